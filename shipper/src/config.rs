//! The configuration of a group: one TOML schema for both hosts.
//!
//! Always holds: what [`Config::load`] returns has passed every check that needs no device; unknown
//! keys are refused, so that a misspelt one is never ignored silently.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use ftdm::discard::Discards;
use ftdm::name::StackName;
use ftship_proto::group::MAX_VOLUMES;
use ftship_proto::ids::GroupName;
use ftship_proto::journal::MIN_JOURNAL_LEN;
use ftship_proto::protocol::{AckPolicy, CommitPolicy};
use ftship_proto::state::Role;
use serde::{Deserialize, Serialize};

/// Where `GROUP` is looked for when no path is given.
pub const DIRECTORY: &str = "/etc/ftdm";

/// A group's configuration, `/etc/ftdm/GROUP.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Name of the group; the same on both hosts.
    #[serde(deserialize_with = "from_str")]
    pub group: GroupName,
    /// The first role of this host. Only `ftship format` reads it; afterwards the state decides.
    #[serde(deserialize_with = "role")]
    pub role: Role,
    /// Where this host listens while it is the backup.
    pub address: SocketAddr,
    /// Where the other host listens.
    pub peer: SocketAddr,
    /// The durable state: a small volume or a file.
    pub state: PathBuf,
    /// Time between two epochs.
    #[serde(default = "default_epoch", with = "humantime_serde")]
    pub epoch: Duration,
    /// While in sync dm-era is rolled so often, in the pause of a cut: how far back a later sync has to start.
    #[serde(with = "humantime_serde", default = "default_roll_interval")]
    pub roll_interval: Duration,
    /// Whether writes are captured all the time, or only what changed is looked at once in `epoch`.
    #[serde(default)]
    pub mode: Mode,
    /// Who commits an epoch; the same on both hosts.
    #[serde(default)]
    pub commit: Commit,
    /// What the backup's STAGED promises; read on the backup only.
    #[serde(default)]
    pub ack: Ack,
    /// The protected volumes, which are cut and committed together: the same in the same order on both hosts.
    pub volume: Vec<Volume>,
    /// The log that captures writes on the primary.
    #[serde(default)]
    pub log: Log,
    /// The journal on the backup.
    pub journal: Journal,
    /// Limits and time-outs.
    #[serde(default)]
    pub limits: Limits,
    /// The process that stands by for a primary that stops.
    #[serde(default)]
    pub watchdog: Watchdog,
    /// Comparing the backup with the primary.
    #[serde(default)]
    pub verify: Verify,
    /// Recovery points on the backup.
    #[serde(default)]
    pub snapshots: Snapshots,
    /// Records for audits.
    #[serde(default)]
    pub audit: Audit,
    /// Where this was read from.
    #[serde(skip)]
    pub path: PathBuf,
}

/// `mode`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Every write is captured; an epoch is what was captured since the one before.
    #[default]
    Continuous,
    /// Writes are tracked; an epoch is the blocks that changed in the interval.
    Interval,
}

/// `commit`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Commit {
    /// The backup, once it holds the epoch durably.
    #[default]
    Auto,
    /// A coordinator: `ftship commit GROUP --epoch N`.
    External,
}

impl From<Commit> for CommitPolicy {
    fn from(commit: Commit) -> Self {
        match commit {
            Commit::Auto => Self::Auto,
            Commit::External => Self::External,
        }
    }
}

/// `ack`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ack {
    /// What is staged survives a power cut of the backup.
    #[default]
    Durable,
    /// What is staged was received whole; a power cut of the backup in the next moments loses it.
    Received,
}

impl From<Ack> for AckPolicy {
    fn from(ack: Ack) -> Self {
        match ack {
            Ack::Durable => Self::Durable,
            Ack::Received => Self::Received,
        }
    }
}

/// One protected volume.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Volume {
    /// Name given to `ftdm create` on the primary.
    #[serde(deserialize_with = "from_str")]
    pub name: StackName,
    /// The logical volume: the origin on the primary, the copy on the backup.
    pub device: PathBuf,
    /// What becomes of the guest's discards.
    #[serde(default, deserialize_with = "from_str")]
    pub discards: Discards,
}

/// `[log]`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Log {
    /// RAM disks (`brd`), two for each volume, used in turn. When none are named, the first ones that are free.
    pub devices: Vec<PathBuf>,
    /// Size of each when this daemon loads `brd` itself.
    pub size: ByteSize,
}

impl Default for Log {
    fn default() -> Self {
        Self { devices: Vec::new(), size: ByteSize::mib(64) }
    }
}

/// `[journal]`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Journal {
    /// A logical volume, or a regular file, of at least 16 MiB.
    pub device: PathBuf,
    /// Size of the file that `ftship format` makes when there is none.
    #[serde(default)]
    pub size: Option<ByteSize>,
    /// Longest time that committed epochs wait in the journal.
    #[serde(default = "default_apply_delay", with = "humantime_serde")]
    pub apply_delay: Duration,
}

/// `[limits]`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Limits {
    /// A cut whose pause would last longer is void.
    #[serde(with = "humantime_serde")]
    pub pause_budget: Duration,
    /// How far the budget is stretched: it doubles at each void cut in a row.
    #[serde(with = "humantime_serde")]
    pub pause_limit: Duration,
    /// Epochs cut and not acknowledged.
    pub window: usize,
    /// A peer that is silent for this long is gone.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Percent of the log beyond which replication degrades.
    pub log_watermark: u8,
    /// Void cuts in a row after which replication degrades.
    pub void_cuts: u32,
    /// What happens when the log passes its watermark.
    pub overrun: Overrun,
    /// With `throttle`: how long writes wait at most while the backup makes no progress.
    #[serde(with = "humantime_serde")]
    pub throttle_lease: Duration,
}

/// `[limits] overrun`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overrun {
    /// Replication ends, the volume goes on at full speed.
    Degrade,
    /// Writes wait for room, for as long as the backup makes progress.
    Throttle,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pause_budget: Duration::from_millis(10),
            pause_limit: Duration::from_millis(100),
            window: 8,
            timeout: Duration::from_secs(5),
            log_watermark: 75,
            void_cuts: 20,
            overrun: Overrun::Degrade,
            throttle_lease: Duration::from_secs(2),
        }
    }
}

/// `[watchdog]`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Watchdog {
    /// The primary's daemon starts one where there is none, and that one ends with it. Otherwise one has
    /// to be there: without it nothing is captured.
    pub spawn: bool,
    /// A daemon that captures and is silent for this long has stopped.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// The same while the volume stands still for a cut.
    #[serde(with = "humantime_serde")]
    pub pause_timeout: Duration,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self { spawn: true, timeout: Duration::from_secs(3), pause_timeout: Duration::from_millis(500) }
    }
}

/// `[verify]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Verify {
    /// The primary begins one by itself, so long after its start and then after each begin.
    #[serde(with = "humantime_serde")]
    pub every: Option<Duration>,
    /// Those mend what differs.
    pub repair: bool,
    /// The primary reads at most so many bytes a second.
    pub rate: Option<ByteSize>,
}

/// `[snapshots]`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Snapshots {
    /// The backup keeps a recovery point so often: a thin snapshot of a committed epoch.
    #[serde(with = "humantime_serde")]
    pub every: Option<Duration>,
    /// How many are kept.
    pub keep: usize,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self { every: None, keep: 24 }
    }
}

/// `[audit]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Audit {
    /// A file to which the primary appends `EPOCH SHA256...`, a digest of each whole volume, read in the pause of
    /// each cut. For audits and tests only: the pause then lasts as long as the reading.
    pub digest_file: Option<PathBuf>,
}

fn default_epoch() -> Duration {
    Duration::from_millis(50)
}

fn default_roll_interval() -> Duration {
    Duration::from_secs(300)
}

fn default_apply_delay() -> Duration {
    Duration::from_millis(500)
}

fn from_str<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn role<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Role, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "primary" => Ok(Role::Primary),
        "backup" => Ok(Role::Backup),
        other => Err(serde::de::Error::custom(format!("`{other}`: a role is \"primary\" or \"backup\""))),
    }
}

/// Why a configuration is refused. The text names the file, the line or key, and what is legal.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or not of this schema.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: String,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A value is out of range.
    #[error("{path}: `{key}`: {reason}")]
    Value {
        /// The file.
        path: String,
        /// The key.
        key: &'static str,
        /// What is legal.
        reason: String,
    },
}

/// The file that `argument` names: a path when it holds a slash or ends in `.toml`, else a group.
#[must_use]
pub fn path_of(argument: &str) -> PathBuf {
    let is_toml = Path::new(argument).extension().is_some_and(|extension| extension == "toml");
    if argument.contains('/') || is_toml {
        argument.into()
    } else {
        Path::new(DIRECTORY).join(format!("{argument}.toml"))
    }
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// When the file cannot be read, is not of the schema, or holds a value out of range.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: name.clone(), source })?;
        let mut config = Self::parse(&name, &text)?;
        config.path = path.to_owned();
        Ok(config)
    }

    /// Checks a configuration that was read from `path`.
    ///
    /// # Errors
    /// As [`Self::load`], but for reading.
    pub fn parse(path: &str, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|source| ConfigError::Parse { path: path.into(), source: Box::new(source) })?;
        let fault = config.fault();
        match fault {
            Some((key, reason)) => Err(ConfigError::Value { path: path.into(), key, reason }),
            None => Ok(config),
        }
    }

    /// The first value out of range: its key, and what is legal.
    fn fault(&self) -> Option<(&'static str, String)> {
        let limits = &self.limits;
        let between = |value: Duration, low: Duration, high: Duration| {
            (value < low || value > high).then(|| format!("{value:?} is not between {low:?} and {high:?}"))
        };
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        if let Some(fault) = self.volume_fault() {
            return Some(fault);
        }
        if self.address == self.peer {
            return Some(("peer", "is the address of this host itself".into()));
        }
        if self.log.size < ByteSize::mib(4) || self.log.size > ByteSize::gib(16) {
            return Some(("log.size", format!("{} is not between 4 MiB and 16 GiB", self.log.size)));
        }
        if let Some(size) = self.journal.size.filter(|size| size.as_u64() < MIN_JOURNAL_LEN) {
            return Some(("journal.size", format!("{size} is less than 16 MiB")));
        }
        if !(1..=64).contains(&limits.window) {
            return Some(("limits.window", format!("{} is not between 1 and 64", limits.window)));
        }
        if !(10..=90).contains(&limits.log_watermark) {
            return Some((
                "limits.log-watermark",
                format!("{} is not between 10 and 90", limits.log_watermark),
            ));
        }
        if !(1..=1000).contains(&self.snapshots.keep) {
            let text = format!("{} is not between 1 and 1000", self.snapshots.keep);
            return Some(("snapshots.keep", text));
        }
        if limits.void_cuts == 0 {
            return Some(("limits.void-cuts", "must be at least 1".into()));
        }
        if let Some(rate) = self.verify.rate.filter(|rate| *rate < ByteSize::mib(1)) {
            return Some(("verify.rate", format!("{rate} a second is less than 1 MiB")));
        }
        let (shortest, longest) = match self.mode {
            Mode::Continuous => (ms(5), s(3600)),
            Mode::Interval => (s(1), s(7 * 86_400)),
        };
        let durations = [
            ("epoch", between(self.epoch, shortest, longest)),
            ("snapshots.every", self.snapshots.every.and_then(|every| between(every, s(1), s(366 * 86_400)))),
            ("roll-interval", between(self.roll_interval, s(1), s(7 * 24 * 3600))),
            ("verify.every", self.verify.every.and_then(|every| between(every, s(1), s(366 * 86_400)))),
            ("limits.pause-budget", between(limits.pause_budget, ms(1), s(1))),
            ("limits.pause-limit", between(limits.pause_limit, limits.pause_budget, s(1))),
            ("limits.throttle-lease", between(limits.throttle_lease, ms(100), s(60))),
            ("limits.timeout", between(limits.timeout, ms(500), s(300))),
            (
                "watchdog.pause-timeout",
                between(
                    self.watchdog.pause_timeout,
                    limits.pause_limit.saturating_mul(4).max(ms(100)),
                    s(10),
                ),
            ),
            ("watchdog.timeout", between(self.watchdog.timeout, self.watchdog.pause_timeout, s(60))),
            ("journal.apply-delay", between(self.journal.apply_delay, ms(0), s(60))),
        ];
        durations.into_iter().find_map(|(key, reason)| Some((key, reason?)))
    }

    fn volume_fault(&self) -> Option<(&'static str, String)> {
        let count = self.volume.len();
        if !(1..=MAX_VOLUMES).contains(&count) {
            return Some(("volume", format!("{count} volumes: a group has 1 to {MAX_VOLUMES}")));
        }
        if let Some(name) = twice(self.volume.iter().map(|volume| volume.name.top())) {
            return Some(("volume.name", format!("two volumes are called {name}")));
        }
        if let Some(device) = twice(self.volume.iter().map(|volume| &volume.device)) {
            return Some(("volume.device", format!("{} is given twice", device.display())));
        }
        let logs = &self.log.devices;
        if !logs.is_empty() && logs.len() != 2 * count {
            let text = format!("{} devices: {count} volumes need {}, two each", logs.len(), 2 * count);
            return Some(("log.devices", text));
        }
        twice(logs).map(|device| ("log.devices", format!("{} is given twice", device.display())))
    }

    /// The two RAM disks of each volume. `None` when none are named.
    #[must_use]
    pub fn log_pairs(&self) -> Option<Vec<[PathBuf; 2]>> {
        let (pairs, _) = self.log.devices.as_chunks::<2>();
        (!pairs.is_empty()).then(|| pairs.to_vec())
    }
}

/// What comes twice.
fn twice<T: PartialEq>(all: impl IntoIterator<Item = T>) -> Option<T> {
    let mut seen = Vec::new();
    for one in all {
        if seen.contains(&one) {
            return Some(one);
        }
        seen.push(one);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        group = "vm1"
        role = "primary"
        address = "10.9.0.1:7789"
        peer = "10.9.0.2:7789"
        state = "/dev/vg/vm1_state"
        [[volume]]
        name = "vm1"
        device = "/dev/vg/vm1"
        [journal]
        device = "/dev/vg/vm1_journal"
    "#;

    fn refusal(text: &str) -> String {
        Config::parse("t.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let config = Config::parse("t.toml", GOOD).unwrap();
        assert_eq!(config.epoch, Duration::from_millis(50));
        assert_eq!(config.limits.window, 8);
        assert_eq!(config.volume[0].discards, Discards::Off);
        assert_eq!((config.commit, config.ack), (Commit::Auto, Ack::Durable));
        assert_eq!(config.limits.pause_budget, Duration::from_millis(10));
    }

    /// A second volume, and what else is said of it.
    fn second(text: &str, name: &str, device: &str) -> String {
        let volume = format!("[[volume]]\nname = \"{name}\"\ndevice = \"{device}\"\n[journal]");
        text.replace("[journal]", &volume)
    }

    #[test]
    fn each_volume_has_two_ram_disks_of_its_own() {
        let config = Config::parse("t.toml", &second(GOOD, "vm1_b", "/dev/vg/vm1_b")).unwrap();
        let ram = |n: u8| PathBuf::from(format!("/dev/ram{n}"));
        assert_eq!(config.log_pairs(), None);
        let logs = "\n[log]\ndevices = [\"/dev/ram5\", \"/dev/ram4\"]";
        let config = Config::parse("t.toml", &format!("{GOOD}{logs}")).unwrap();
        assert_eq!(config.log_pairs(), Some(vec![[ram(5), ram(4)]]));
        let text = refusal(&second(&format!("{GOOD}{logs}"), "vm1_b", "/dev/vg/vm1_b"));
        assert!(text.contains("log.devices") && text.contains("2 volumes need 4"), "{text}");
        let text = refusal(&format!("{GOOD}\n[log]\ndevices = [\"/dev/ram5\", \"/dev/ram5\"]"));
        assert!(text.contains("/dev/ram5 is given twice"), "{text}");
    }

    #[test]
    fn volumes_of_a_group_are_different_ones_and_not_too_many() {
        let text = refusal(&second(GOOD, "vm1", "/dev/vg/vm1_b"));
        assert!(text.contains("volume.name") && text.contains("vm1"), "{text}");
        let text = refusal(&second(GOOD, "vm1_b", "/dev/vg/vm1"));
        assert!(text.contains("volume.device") && text.contains("/dev/vg/vm1"), "{text}");
        let many = (1..=MAX_VOLUMES)
            .fold(GOOD.to_owned(), |text, n| second(&text, &format!("v{n}"), &format!("/d{n}")));
        let text = refusal(&many);
        assert!(text.contains("17 volumes") && text.contains("1 to 16"), "{text}");
    }

    #[test]
    fn misspelt_keys_are_refused_by_name_and_line() {
        let text = refusal(&GOOD.replace("state =", "stat ="));
        assert!(text.contains("stat") && text.contains("line 6"), "{text}");
    }

    #[test]
    fn values_out_of_range_name_the_key_and_the_range() {
        let text = refusal(&GOOD.replace("role = \"primary\"", "role = \"main\""));
        assert!(text.contains("main") && text.contains("backup"), "{text}");
        let text = refusal(&GOOD.replace("[journal]", "[limits]\nwindow = 0\n[journal]"));
        assert!(text.contains("limits.window") && text.contains("1 and 64"), "{text}");
        let text = refusal(&GOOD.replace("[journal]", "[limits]\npause-budget = \"2m\"\n[journal]"));
        assert!(text.contains("limits.pause-budget"), "{text}");
        let text = refusal(&format!("{GOOD}\nsize = \"8 MiB\""));
        assert!(text.contains("journal.size") && text.contains("16 MiB"), "{text}");
        let text = refusal(&GOOD.replace("state =", "commit = \"always\"\nstate ="));
        assert!(text.contains("always") && text.contains("external"), "{text}");
        let text = refusal(&GOOD.replace("[journal]", "discards = \"on\"\n[journal]"));
        assert!(text.contains("`on`") && text.contains("\"pass\""), "{text}");
        let text = refusal(&GOOD.replace("10.9.0.2", "10.9.0.1"));
        assert!(text.contains("`peer`"), "{text}");
    }

    #[test]
    fn a_limit_beyond_all_time_is_refused_not_multiplied() {
        let ages = "[limits]\npause-limit = \"18446744073709551615s\"\n[journal]";
        let text = refusal(&GOOD.replace("[journal]", ages));
        assert!(text.contains("limits.pause-limit"), "{text}");
    }

    #[test]
    fn a_group_or_a_path_names_the_file() {
        assert_eq!(path_of("vm1"), Path::new("/etc/ftdm/vm1.toml"));
        assert_eq!(path_of("vm1.toml"), Path::new("vm1.toml"));
        assert_eq!(path_of("./vm1"), Path::new("./vm1"));
    }
}
