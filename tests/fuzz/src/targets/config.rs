//! A group's configuration, as a file has it.

use ftship::config::{Config, ConfigError, Protection};
use ftship::link::host::HostAddress;

use crate::{Seed, Target, Verdict, explains, within};

pub(super) const TARGET: Target = Target {
    name: "config",
    run,
    seeds,
    max_len: 4096,
    words: &[
        "group",
        "role",
        "address",
        "peer",
        "state",
        "epoch",
        "[[volume]]",
        "[log]",
        "[journal]",
        "[limits]",
        "[watchdog]",
        "[audit]",
        "name",
        "device",
        "devices",
        "size",
        "apply-delay",
        "pause-budget",
        "pause-limit",
        "window",
        "timeout",
        "log-watermark",
        "void-cuts",
        "overrun",
        "throttle-lease",
        "pause-timeout",
        "spawn",
        "digest-file",
        "\"primary\"",
        "\"backup\"",
        "\"throttle\"",
        " = ",
        "\n",
        "\"18446744073709551615s\"",
        "\"1y\"",
        "\"0s\"",
        "16EiB",
        "4MiB",
        "-1",
        "18446744073709551615",
        "[::1]:7",
        "\"\"\"",
        "{",
        "}",
        "[",
        "]",
        "true",
        "tls",
        "\"off\"",
        "tls-off-on-a-network",
        "127.0.0.1:7",
    ],
};

/// Memory for a text of `len` bytes: the TOML parser keeps what it sees, and every error, until the end.
fn bound(len: usize) -> usize {
    (64 << 10) + 1024 * len
}

fn run(data: &[u8]) -> Verdict {
    // Reading the file refuses anything else.
    let Ok(text) = std::str::from_utf8(data) else { return Verdict::Refused };
    match within(bound(data.len()), || Config::parse("fuzz.toml", text)) {
        Ok(config) => {
            check(&config);
            Verdict::Accepted
        }
        Err(error) => {
            explains(&error, &["fuzz.toml"]);
            match error {
                ConfigError::Refused { ref faults, .. } => {
                    assert!(!faults.is_empty());
                    let lines = text.matches('\n').count() + 1;
                    for fault in faults {
                        assert!(fault.line.is_none_or(|line| (1..=lines).contains(&line)), "{fault}");
                        explains(&error, &[&fault.reason]);
                    }
                }
                ConfigError::Read { .. } => panic!("nothing was read"),
                ConfigError::NeedsRestart { .. } => panic!("nothing was running"),
            }
            Verdict::Refused
        }
    }
}

/// What the daemon relies on without looking again.
fn check(config: &Config) {
    let ms = |duration: std::time::Duration| duration.as_millis();
    assert!((1..=16).contains(&config.volume.len()));
    assert!(
        !config.group.as_str().is_empty() && config.volume.iter().all(|volume| !volume.name.top().is_empty())
    );
    assert_ne!(config.address, config.peer);
    let is_local = |place: &HostAddress| {
        place.literal().is_some_and(|address| address.ip().to_canonical().is_loopback())
    };
    assert!(
        config.tls == Protection::Required
            || config.tls_off_on_a_network
            || (is_local(&config.address) && is_local(&config.peer))
    );
    if let Some(pairs) = config.log_pairs() {
        let mut logs: Vec<_> = pairs.concat();
        logs.sort();
        logs.dedup();
        assert_eq!(logs.len(), 2 * config.volume.len());
    }
    assert!((1..=64).contains(&config.limits.window) && config.limits.void_cuts > 0);
    assert!((10..=90).contains(&config.limits.log_watermark));
    assert!((4 << 20..=16 << 30).contains(&config.log.size.as_u64()));
    assert!((5..=3_600_000).contains(&ms(config.epoch)));
    assert!(config.limits.pause_budget <= config.limits.pause_limit && ms(config.limits.pause_limit) <= 1000);
    assert!(ms(config.watchdog.pause_timeout) <= 10_000 && ms(config.watchdog.timeout) <= 60_000);
    assert!(ms(config.limits.throttle_lease) <= 60_000 && ms(config.journal.apply_delay) <= 60_000);
    assert!((500..=300_000).contains(&ms(config.limits.timeout)));
}

fn seeds() -> Vec<Seed> {
    let least = "group = \"vm1\"\nrole = \"primary\"\naddress = \"10.9.0.1:7789\"\npeer = \"10.9.0.2:7789\"\n\
        state = \"/dev/vg/vm1_state\"\n[[volume]]\nname = \"vm1\"\ndevice = \"/dev/vg/vm1\"\n\
        [journal]\ndevice = \"/dev/vg/vm1_journal\"\n";
    let rest = "apply-delay = \"100ms\"\n[log]\ndevices = [\"/dev/ram2\", \"/dev/ram3\"]\nsize = \"128MiB\"\n\
        [limits]\npause-budget = \"10ms\"\npause-limit = \"50ms\"\nwindow = 8\ntimeout = \"5s\"\n\
        log-watermark = 75\nvoid-cuts = 20\noverrun = \"throttle\"\nthrottle-lease = \"2s\"\n\
        [watchdog]\nspawn = true\ntimeout = \"3s\"\npause-timeout = \"500ms\"\n\
        [audit]\ndigest-file = \"/var/log/digests\"\n";
    let whole = format!("epoch = \"50ms\"\n{least}{rest}");
    vec![("least".into(), least.into()), ("whole".into(), whole.into())]
}
