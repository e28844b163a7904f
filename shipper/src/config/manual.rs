//! The manual's tables of keys say what the code does: every key, its default, its range, and whether `ftship reload`
//! puts a change into force.

use super::schema::{self, Schema};
use super::*;

const GOOD: &str = r#"group = "vm1"
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

/// Values for keys that have no range, each other than the one in [`GOOD`].
const SAMPLES: [(&str, &str); 13] = [
    ("group", "\"vm2\""),
    ("address", "\"10.9.0.3:7789\""),
    ("peer", "\"10.9.0.3:7789\""),
    ("control-group", "\"disk\""),
    ("state", "\"/dev/vg/other\""),
    ("[[volume]] name", "\"vm2\""),
    ("[[volume]] device", "\"/dev/vg/other\""),
    ("[[volume]] metadata", "\"/dev/vg/other\""),
    ("[journal] device", "\"/dev/vg/other\""),
    ("[log] devices", "[\"/dev/ram0\", \"/dev/ram1\"]"),
    ("[hooks] freeze", "[\"/bin/true\"]"),
    ("[hooks] thaw", "[\"/bin/true\"]"),
    ("[audit] digest-file", "\"/srv/digests\""),
];

/// One row of the manual.
struct Row {
    key: String,
    default: String,
    range: String,
    reload: String,
}

impl Row {
    /// The range without what is said of interval mode.
    fn usual(&self) -> &str {
        self.range.split(" (").next().unwrap_or_default()
    }

    fn words(&self) -> Vec<String> {
        let is_list = self.range.starts_with('`') && !self.range.contains(" to ");
        let words = self.range.split(", ").map(|word| word.trim_matches('`').to_owned());
        if is_list { words.collect() } else { Vec::new() }
    }
}

fn rows() -> Vec<Row> {
    let manual = include_str!("../../../docs/src/reference/configuration.md");
    let row = |line: &str| {
        let cells: Vec<String> =
            line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        let [key, default, range, reload, _meaning] = &cells[..] else { return None };
        let key = key.strip_prefix('`')?.strip_suffix('`')?.to_owned();
        Some(Row { key, default: default.clone(), range: range.clone(), reload: reload.clone() })
    };
    manual.lines().filter(|line| line.starts_with("| `")).filter_map(row).collect()
}

/// A default or a limit as a configuration has it: what is no number and no truth is a text.
fn literal(value: &str) -> String {
    let value = value.trim_matches('`');
    if value.parse::<u64>().is_ok() || ["true", "false"].contains(&value) {
        value.to_owned()
    } else {
        format!("\"{value}\"")
    }
}

/// [`GOOD`] with this key, in place of the one that it may have.
fn with(key: &str, value: &str) -> String {
    let (section, name) = key.rsplit_once(' ').unwrap_or(("", key));
    let mut here = "";
    let mut lines = Vec::new();
    for line in GOOD.lines() {
        if line.starts_with('[') {
            here = line;
        }
        if !(here == section && line.starts_with(&format!("{name} ="))) {
            lines.push(line.to_owned());
        }
    }
    let line = format!("{name} = {value}");
    match lines.iter().position(|line| line == section) {
        _ if section.is_empty() => lines.insert(0, line),
        Some(place) => lines.insert(place + 1, line),
        None => lines.extend([section.to_owned(), line]),
    }
    lines.join("\n")
}

/// The other keys that a value of this key needs.
fn fitting(key: &str, value: &str, text: String) -> String {
    let interval = "mode = \"interval\"\nepoch = \"1s\"\n";
    match (key, value) {
        ("tls", _) => format!("tls-off-on-a-network = true\n{text}"),
        ("mode", "\"interval\"") => format!("epoch = \"1s\"\n{text}"),
        ("capture", "\"era\"") => format!("{interval}{text}"),
        ("[hooks] freeze", _) => {
            format!("{interval}{text}").replace("[hooks]\n", "[hooks]\nthaw = [\"/bin/true\"]\n")
        }
        _ if key.starts_with("[hooks]") => format!("{interval}{text}"),
        _ => text,
    }
}

/// Whether this value of this key is refused. That another key does not fit to it does not count.
fn is_refused(key: &str, value: &str, text: impl Fn(String) -> String) -> bool {
    let name = key.replace(['[', ']'], "").replace(' ', ".");
    match Config::parse("t.toml", &text(with(key, value))) {
        Ok(_) => false,
        Err(error) => error.to_string().contains(&format!("`{name}`:")),
    }
}

/// The neighbours of a limit: just below, and just above.
fn around(limit: &str) -> (Option<String>, String) {
    let limit = limit.trim_matches('"');
    if let Ok(number) = limit.parse::<u64>() {
        return (number.checked_sub(1).map(|less| less.to_string()), (number + 1).to_string());
    }
    if let Ok(time) = humantime_serde::re::humantime::parse_duration(limit) {
        let ms = u64::try_from(time.as_millis()).unwrap();
        return (ms.checked_sub(1).map(|less| format!("\"{less}ms\"")), format!("\"{}ms\"", ms + 1));
    }
    // Sizes may have to be whole numbers of 4 KiB; then both are wrong in two ways.
    let size: ByteSize = limit.parse().unwrap_or_else(|_| panic!("`{limit}` is no number, time or size"));
    let bytes = size.as_u64();
    (Some(format!("\"{} B\"", bytes - 4096)), format!("\"{} B\"", bytes + 4096))
}

/// A limit as the manual writes it: a value, or one that the default of another key gives.
fn limit(text: &str, rows: &[Row]) -> String {
    if let Some(key) = text.strip_prefix("4 × ") {
        let one = limit(key, rows);
        let time = humantime_serde::re::humantime::parse_duration(one.trim_matches('"')).unwrap();
        return format!("\"{}ms\"", 4 * time.as_millis());
    }
    match rows.iter().find(|row| format!("`{}`", row.key) == text) {
        Some(row) => literal(&row.default),
        None => literal(text),
    }
}

/// The limits that a range names, lowest first.
fn limits(range: &str, rows: &[Row]) -> (Option<String>, Option<String>) {
    if let Some(least) = range.strip_prefix("at least ") {
        return (Some(limit(least, rows)), None);
    }
    match range.split_once(" to ") {
        Some((low, high)) if !range.contains(" of ") => (Some(limit(low, rows)), Some(limit(high, rows))),
        _ => (None, None),
    }
}

/// The keys of a schema, as the manual writes them.
fn keys(schema: &Schema, section: Option<&str>) -> Vec<(String, Schema)> {
    let Schema::Table(fields) = schema else { return Vec::new() };
    let key = |(name, schema): &(&str, Schema)| match schema {
        Schema::Table(_) => keys(schema, Some(&format!("[{name}] "))),
        Schema::Several(inner) if matches!(**inner, Schema::Table(_)) => {
            keys(inner, Some(&format!("[[{name}]] ")))
        }
        _ => vec![(format!("{}{name}", section.unwrap_or_default()), schema.clone())],
    };
    fields.iter().flat_map(key).collect()
}

#[test]
fn the_manual_has_every_key_and_no_other_and_the_words_that_it_takes() {
    let (rows, known) = (rows(), keys(&schema::of::<Config>(), None));
    assert!(known.len() > 30, "{known:?}");
    for (key, schema) in &known {
        let row = rows.iter().find(|row| row.key == *key);
        let row = row.unwrap_or_else(|| panic!("the manual has no row for `{key}`"));
        if let Schema::Word(words) = schema {
            assert_eq!(row.words(), *words, "the words of `{key}`");
        }
    }
    for Row { key, .. } in &rows {
        assert!(known.iter().any(|(known, _)| known == key), "the manual has `{key}`, which is no key");
    }
}

#[test]
fn the_manual_has_the_defaults() {
    let plain = format!("{:?}", Config::parse("t.toml", GOOD).unwrap());
    for Row { key, default, .. } in rows() {
        let (_, name) = key.rsplit_once(' ').unwrap_or(("", &key));
        let had = GOOD.lines().any(|line| line.starts_with(&format!("{name} =")));
        match default.as_str() {
            "must be set" => {
                let without = with(&key, "0").replace(&format!("{name} = 0"), "");
                let text = Config::parse("t.toml", &without).unwrap_err().to_string();
                assert!(text.contains("is missing"), "`{key}` can be left out");
            }
            "none" => assert!(!had, "`{key}` is required"),
            value => {
                let said = Config::parse("t.toml", &with(&key, &literal(value)));
                let said = said.unwrap_or_else(|error| panic!("`{key}`: {error}"));
                assert_eq!(format!("{said:?}"), plain, "the default of `{key}` is not {value}");
            }
        }
    }
}

#[test]
fn the_manual_has_the_limits() {
    let all = rows();
    let mut judged = 0;
    for row in &all {
        let key = &row.key;
        for word in row.words() {
            let value = literal(&word);
            assert!(
                !is_refused(key, &value, |text| fitting(key, &value, text)),
                "`{key}` = {value} is refused"
            );
        }
        let interval = row.range.split_once("(interval mode: ").map(|(_, range)| range.trim_matches(')'));
        let modes = [(row.usual(), ""), (interval.unwrap_or_default(), "mode = \"interval\"\n")];
        for (range, mode) in modes {
            let refused = |value: &str| is_refused(key, value, |text| format!("{mode}{text}"));
            let (low, high) = limits(range, &all);
            for limit in [&low, &high].into_iter().flatten() {
                assert!(!refused(limit), "`{key}` = {limit} is refused");
            }
            if let Some((Some(below), _)) = low.as_deref().map(around) {
                assert!(refused(&below), "`{key}` = {below} is taken");
                judged += 1;
            }
            if let Some((_, above)) = high.as_deref().map(around) {
                assert!(refused(&above), "`{key}` = {above} is taken");
                judged += 1;
            }
        }
    }
    assert!(judged > 40, "only {judged} limits were judged");
}

#[test]
fn the_least_pause_timeout_is_the_documented_one() {
    let short = |text: String| text.replace("[watchdog]", "[limits]\npause-limit = \"10ms\"\n[watchdog]");
    assert!(is_refused("[watchdog] pause-timeout", "\"99ms\"", short));
    assert!(!is_refused("[watchdog] pause-timeout", "\"100ms\"", short));
}

#[test]
fn the_manual_says_which_keys_a_reload_puts_into_force() {
    let all = rows();
    for row in &all {
        let key = &row.key;
        let (low, high) = limits(row.usual(), &all);
        let candidates = row.words().into_iter().map(|word| literal(&word)).chain(low).chain(high);
        let sample = SAMPLES.iter().find(|(name, _)| name == key).map(|(_, value)| (*value).to_owned());
        let values: Vec<String> = sample.into_iter().chain(candidates).collect();
        // A limit may not fit the other keys: the other limit does then.
        let mut taken: Vec<Taken> = Vec::new();
        for value in &values {
            let text = fitting(key, value, with(key, value));
            let Ok(new) = Config::parse("t.toml", &text) else { continue };
            taken.extend(Config::parse("t.toml", GOOD).unwrap().take(&new));
        }
        assert!(!taken.is_empty(), "no sample value for `{key}`: {values:?}");
        let (section, name) = key.rsplit_once(' ').unwrap_or(("", key));
        let section = section.trim_matches(['[', ']']);
        let names = [name.to_owned(), format!("{section}.{name}"), section.to_owned()];
        let is_named = |list: &[&str]| list.iter().any(|said| names.iter().any(|name| name == said));
        let expected =
            match (taken.iter().any(|t| is_named(&t.live)), taken.iter().any(|t| is_named(&t.restart))) {
                (true, false) => "yes",
                (false, true) => "restart",
                (false, false) => "",
                (true, true) => panic!("`{key}` is live and needs a restart"),
            };
        assert_eq!(row.reload, expected, "`{key}`");
    }
}
