//! What is refused, and what of it is said.

use ftship_proto::group::MAX_VOLUMES;

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
    let many =
        (1..=MAX_VOLUMES).fold(GOOD.to_owned(), |text, n| second(&text, &format!("v{n}"), &format!("/d{n}")));
    let text = refusal(&many);
    assert!(text.contains("17 volumes") && text.contains("1 to 16"), "{text}");
}

#[test]
fn misspelt_keys_are_refused_by_name_and_line() {
    let text = refusal(&GOOD.replace("state =", "stat ="));
    assert_eq!(
        text,
        "t.toml: `state`: is missing\nt.toml:6: `stat`: there is no such key; did you mean `state`?"
    );
    let text = refusal(&GOOD.replace("[journal]", "[journal]\nflavour = 1"));
    assert_eq!(
        text,
        "t.toml:11: `journal.flavour`: there is no such key; here may stand: device, size, apply-delay"
    );
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

#[test]
fn all_that_is_wrong_is_told_at_once_in_the_order_of_lines_with_what_would_be_right() {
    let text = r#"
        group = "vm 1"
        role = "primray"
        address = "10.9.0.1"
        peer = "10.9.0.2:7789"
        epoch = "1ms"
        commit = "extrenal"
        [[volume]]
        nmae = "vm1"
        device = "/dev/vg/vm1"
        discards = "pas"
        [limits]
        window = 100
        timeout = 5
        pause-limit = "2s"
        [journal]
        size = "1 MiB"
    "#;
    let text = refusal(text);
    let expected = [
        ("t.toml: `state`: is missing", ""),
        ("t.toml:2: `group`: ", ""),
        ("t.toml:3: `role`: ", "nearest: \"primary\""),
        ("t.toml:4: `address`: ", ""),
        ("t.toml:6: `epoch`: \"1ms\" is not between \"5ms\" and \"1h\"", "nearest: \"5ms\""),
        ("t.toml:7: `commit`: unknown variant `extrenal`", "nearest: \"external\""),
        ("t.toml:8: `volume.name`: is missing", ""),
        ("t.toml:9: `volume.nmae`: ", "did you mean `name`?"),
        ("t.toml:11: `volume.discards`: ", "nearest: \"pass\""),
        ("t.toml:13: `limits.window`: 100 is not between 1 and 64", "nearest: 64"),
        ("t.toml:14: `limits.timeout`: ", ""),
        ("t.toml:15: `limits.pause-limit`: \"2s\" is not between \"10ms\" and \"1s\"", "nearest: \"1s\""),
        ("t.toml:16: `journal.device`: is missing", ""),
        ("t.toml:17: `journal.size`: \"1 MiB\" is less than \"16 MiB\"", "nearest: \"16 MiB\""),
    ];
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{text}");
    for (line, (start, end)) in lines.iter().zip(expected) {
        assert!(line.starts_with(start) && line.ends_with(end), "{line}");
    }
}

#[test]
fn what_a_refusal_says_is_nearest_is_taken() {
    let wrong = ["epoch = \"1ms\"", "epoch = \"2h\"", "roll-interval = \"0s\""];
    for line in wrong {
        let Err(ConfigError::Refused { faults, .. }) =
            Config::parse("t.toml", &GOOD.replace("state =", &format!("{line}\nstate =")))
        else {
            panic!("{line} was taken")
        };
        let (key, _) = line.split_once(' ').unwrap();
        let mended = format!("{key} = {}", faults[0].nearest.as_ref().unwrap());
        Config::parse("t.toml", &GOOD.replace("state =", &format!("{mended}\nstate ="))).unwrap();
    }
}

#[test]
fn what_is_no_toml_is_refused_with_its_line() {
    let text = refusal("group = \"a\nrole = 3\n\n[journal\n");
    assert!(text.starts_with("t.toml:1: ") && text.contains("\nt.toml:4: "), "{text}");
}

#[test]
fn a_value_where_a_section_belongs_is_refused_by_its_key() {
    let (before, _) = GOOD.split_once("[journal]").unwrap();
    let text = refusal(&before.replace("state =", "journal = 3\nstate ="));
    assert!(text.starts_with("t.toml:6: `journal`: invalid type"), "{text}");
    let text = refusal("volume = 3\njournal = []\ngroup = {}");
    assert!(text.contains("t.toml:1: `volume`") && text.contains("t.toml:3: `group`"), "{text}");
}

#[test]
fn plaintext_on_a_network_is_said_twice() {
    let config = Config::parse("t.toml", GOOD).unwrap();
    assert_eq!(config.tls, Protection::Required);
    let off = GOOD.replace("state =", "tls = \"off\"\nstate =");
    let text = refusal(&off);
    assert!(text.contains("`tls`") && text.contains("tls-off-on-a-network = true"), "{text}");
    let local = off.replace("10.9.0.1:7789", "127.0.0.1:7789").replace("10.9.0.2:7789", "[::1]:7789");
    assert_eq!(Config::parse("t.toml", &local).unwrap().tls, Protection::Off);
    let half = off.replace("10.9.0.1:7789", "127.0.0.1:7789");
    assert!(refusal(&half).contains("`tls`"));
    let twice = off.replace("state =", "tls-off-on-a-network = true\nstate =");
    assert_eq!(Config::parse("t.toml", &twice).unwrap().tls, Protection::Off);
    assert!(refusal(&off.replace("off", "on")).contains("required"));
}

#[test]
fn what_can_only_be_a_mistake_is_refused() {
    let with = |from: &str, to: &str| refusal(&GOOD.replace(from, to));
    let freeze = "mode = \"interval\"\nepoch = \"60s\"\nhooks = { freeze = [\"/bin/true\"] }\n    [[volume]]";
    for (from, to, what) in [
        ("[[volume]]", freeze, "`hooks.thaw`: is missing"),
        ("10.9.0.1:7789", "10.9.0.1:0", "`address`: port 0"),
        ("10.9.0.2:7789", "10.9.0.2:0", "`peer`: port 0"),
        ("10.9.0.2:7789", "0.0.0.0:7789", "`peer`: 0.0.0.0 is no host's address"),
        ("10.9.0.2:7789", "[::ffff:10.9.0.1]:7789", "`peer`: is the address of this host itself"),
        (
            "device = \"/dev/vg/vm1\"",
            "device = \"/dev/mapper/vm1\"",
            "`volume.device`: /dev/mapper/vm1 is made by ftdm",
        ),
        ("\"/dev/vg/vm1_state\"", "\"/tmp/state\"", "`state`: /tmp/state does not outlive a boot"),
        (
            "\"/dev/vg/vm1_state\"",
            "\"/var/tmp/state\"",
            "`state`: /var/tmp/state is below /var/tmp: the service has",
        ),
        ("\"/dev/vg/vm1_state\"", "\"/root/state\"", "closed to the service (ProtectHome=yes)"),
        (
            "\"/dev/vg/vm1_journal\"",
            "\"/etc/j\"",
            "`journal.device`: /etc/j is below /etc: the service cannot",
        ),
        ("\"/dev/vg/vm1_state\"", "\"state\"", "`state`: state is relative"),
        ("\"/dev/vg/vm1_journal\"", "\"/dev/shm/j\"", "`journal.device`: /dev/shm/j does not outlive a boot"),
        (
            "\"/dev/vg/vm1_journal\"",
            "\"/dev/mapper/vm1\"",
            "`journal.device`: /dev/mapper/vm1 is the VM's own disk",
        ),
    ] {
        let text = with(from, to);
        assert!(text.contains(what), "{what}: {text}");
    }
}

#[test]
fn files_may_be_where_people_keep_data() {
    for folder in ["/srv/ftdm", "/var/lib/ftdm", "/data", "/mnt/disk", "/opt/ftdm"] {
        let text = GOOD.replace("/dev/vg/vm1_state", &format!("{folder}/state"));
        assert!(Config::parse("t.toml", &text).is_ok(), "{folder}");
    }
    let hooks = "mode = \"interval\"\nepoch = \"60s\"\n\
        hooks = { freeze = [\"/home/me/freeze\"], thaw = [\"/usr/local/sbin/thaw\"] }\n    [[volume]]";
    let remarks = Config::parse("t.toml", &GOOD.replace("[[volume]]", hooks)).unwrap().remarks();
    assert_eq!(remarks.len(), 1, "{remarks:?}");
    assert!(remarks[0].contains("`hooks.freeze`: /home/me/freeze is below /home"), "{remarks:?}");
}

#[test]
fn two_groups_of_a_host_share_nothing() {
    let config = |text: &str| Config::parse("t.toml", text).unwrap();
    let one = config(GOOD);
    let apart = GOOD.replace("vm1", "vm2").replace(":7789", ":7790");
    assert_eq!(one.collides(&config(&apart)), None);
    let port = GOOD.replace("vm1", "vm2");
    assert_eq!(one.collides(&config(&port)), Some("it listens at port 7789".into()));
    let device = apart.replace("/dev/vg/vm2_journal", "/dev/vg/vm1_state");
    assert_eq!(one.collides(&config(&device)), Some("it uses /dev/vg/vm1_state".into()));
    let name = apart.replace("name = \"vm2\"", "name = \"vm1\"");
    assert_eq!(one.collides(&config(&name)), Some("it calls a volume vm1".into()));
}

#[test]
fn a_role_that_was_changed_is_not_called_unchanged() {
    let mut config = Config::parse("t.toml", GOOD).unwrap();
    let new = Config::parse("t.toml", &GOOD.replace("\"primary\"", "\"backup\"")).unwrap();
    let taken = config.take(&new).unwrap();
    assert_eq!((taken.live.len(), taken.restart.len(), taken.ignored), (0, 0, vec!["role"]));
}
