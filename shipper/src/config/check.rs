//! Everything that is wrong with a configuration, with its line, the reason, and what would be right.
//!
//! Always holds: a text without faults gives a configuration, and one with a fault gives none. What was wrong at one
//! place is replaced by an example, so that the rest is judged as well.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use bytesize::ByteSize;
use ftship_proto::group::MAX_VOLUMES;
use ftship_proto::journal::MIN_JOURNAL_LEN;
use humantime_serde::re::humantime::format_duration;
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use crate::link::host::HostAddress;

use super::schema::{self, Schema};
use super::{CaptureBy, Config, Mode, NamedDevices, Protection, places, twice};

/// More faults than these help nobody.
const MOST: usize = 50;

/// What cannot be left out, and what stands in for it while the rest is judged.
const REQUIRED: [(&str, &str, &str); 9] = [
    ("", "group", "'x'"),
    ("", "role", "'primary'"),
    ("", "address", "'192.0.2.1:7789'"),
    ("", "peer", "'192.0.2.2:7789'"),
    ("", "state", "'/x'"),
    ("", "volume", "[{ name = 'x', device = '/y' }]"),
    ("", "journal", "{ device = '/z' }"),
    ("volume", "name", "'x'"),
    ("volume", "device", "'/y'"),
];
/// The same of a section that has to be there, and so may lack it.
const JOURNAL_DEVICE: (&str, &str, &str) = ("journal", "device", "'/z'");

/// Words of keys whose types read them by themselves.
const WORDS: [(&str, &[&str]); 2] = [("role", &["primary", "backup"]), ("discards", &["off", "pass"])];

/// Something that is wrong in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, counted from 1; nothing where it concerns the whole file.
    pub line: Option<usize>,
    /// Which key, with its section.
    pub key: String,
    /// Why it is refused, or what is legal.
    pub reason: String,
    /// The nearest that would be taken.
    pub nearest: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{line}: ")?,
            None => f.write_str(" ")?,
        }
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.reason)?;
        self.nearest.as_ref().map_or(Ok(()), |nearest| write!(f, "; nearest: {nearest}"))
    }
}

/// A text that is being read.
struct Reading<'a> {
    text: &'a str,
    faults: Vec<Fault>,
}

/// Reads a configuration, or says all that is wrong with it.
pub(super) fn read(text: &str) -> Result<Config, Vec<Fault>> {
    let mut reading = Reading { text, faults: Vec::new() };
    let (mut root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors.iter().take(MOST) {
            reading.fault(error.span(), "", error.message().replace('\n', ", "), None);
        }
        return Err(reading.sorted());
    }
    reading.unknown_keys("", root.get_mut(), &schema::of::<Config>());
    reading.missing_keys(root.get_mut());
    match reading.typed(&mut root) {
        Some(config) => {
            for OutOfRange { key, reason, nearest } in out_of_range(&config) {
                let is_known = reading.faults.iter().any(|fault| fault.key == key);
                if !is_known {
                    reading.fault(span_of(root.get_ref(), &key), &key, reason, nearest);
                }
            }
            if reading.faults.is_empty() { Ok(config) } else { Err(reading.sorted()) }
        }
        None => Err(reading.sorted()),
    }
}

/// All that is wrong with a configuration that no file says: one that a reload puts together.
pub(super) fn judge(config: &Config) -> Vec<Fault> {
    // The nearest value would be one for a file, and this is in none.
    let fault = |OutOfRange { key, reason, .. }| Fault { line: None, key, reason, nearest: None };
    out_of_range(config).into_iter().map(fault).collect()
}

impl Reading<'_> {
    fn fault(&mut self, span: Option<Range<usize>>, key: &str, reason: String, nearest: Option<String>) {
        if self.faults.len() < MOST {
            let line = span.map(|span| 1 + self.text[..span.start].matches('\n').count());
            self.faults.push(Fault { line, key: key.to_owned(), reason, nearest });
        }
    }

    fn sorted(mut self) -> Vec<Fault> {
        self.faults.sort_by_key(|fault| fault.line);
        self.faults
    }

    /// Takes out what the schema does not know.
    fn unknown_keys(&mut self, section: &str, table: &mut DeTable<'_>, schema: &Schema) {
        let Schema::Table(fields) = schema else { return };
        let known = |key: &str| fields.iter().find(|(name, _)| *name == key).map(|(_, schema)| schema);
        let strangers: Vec<_> = table
            .keys()
            .filter(|key| known(key.get_ref()).is_none())
            .map(|key| (key.get_ref().to_string(), key.span()))
            .collect();
        for (key, span) in strangers {
            let absent = fields.iter().map(|(name, _)| *name).filter(|name| !table.contains_key(*name));
            let reason = match similar(&key, absent) {
                Some(name) => format!("there is no such key; did you mean `{name}`?"),
                None => {
                    let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
                    format!("there is no such key; here may stand: {}", names.join(", "))
                }
            };
            self.fault(Some(span), &place(section, &key), reason, None);
            table.remove(key.as_str());
        }
        for (key, value) in table.iter_mut() {
            let key = key.get_ref().to_string();
            let Some(schema) = known(&key) else { continue };
            match (schema, value.get_mut()) {
                (Schema::Table(_), DeValue::Table(inner)) => self.unknown_keys(&key, inner, schema),
                (Schema::Several(schema), DeValue::Array(all)) => {
                    for one in all.iter_mut() {
                        if let DeValue::Table(inner) = one.get_mut() {
                            self.unknown_keys(&key, inner, schema);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Says what is not there, and puts examples in its place.
    fn missing_keys(&mut self, root: &mut DeTable<'_>) {
        for (section, key, example) in REQUIRED.into_iter().chain([JOURNAL_DEVICE]) {
            if section.is_empty() {
                self.missing_key(None, root, (section, key, example));
                continue;
            }
            let Some(value) = root.get_mut(section) else { continue };
            let span = value.span();
            match value.get_mut() {
                DeValue::Table(inner) => self.missing_key(Some(span), inner, (section, key, example)),
                DeValue::Array(all) => {
                    for one in all.iter_mut() {
                        let span = one.span();
                        if let DeValue::Table(inner) = one.get_mut() {
                            self.missing_key(Some(span), inner, (section, key, example));
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn missing_key(
        &mut self,
        span: Option<Range<usize>>,
        table: &mut DeTable<'_>,
        (section, key, example): (&str, &'static str, &'static str),
    ) {
        if table.contains_key(key) {
            return;
        }
        self.fault(span.clone(), &place(section, key), "is missing".into(), None);
        let at = span.map_or(0..0, |span| span.start..span.start);
        if let Some(value) = example_at(&at, example) {
            table.insert(Spanned::new(at, key.into()), value);
        }
    }

    /// Reads it as often as there is something of a wrong type, each time with one such thing less.
    fn typed(&mut self, root: &mut Spanned<DeTable<'_>>) -> Option<Config> {
        loop {
            let error = match Config::deserialize(Deserializer::from(root.clone())) {
                Ok(config) => return Some(config),
                Err(error) => error,
            };
            let span = error.span();
            let found = span.as_ref().and_then(|span| mend(root.get_mut(), "", span));
            let (key, was) = found.clone().unwrap_or_default();
            let words = WORDS.iter().find(|(name, _)| key.ends_with(name)).map(|(_, words)| *words);
            let schema = words.map_or_else(|| words_of(&schema::of::<Config>(), &key), Some);
            let nearest = schema.and_then(|words| similar(&was, words.iter().copied()));
            let reason = error.message().replace('\n', ", ");
            self.fault(span, &key, reason, nearest.map(|word| format!("\"{word}\"")));
            if found.is_none() || self.faults.len() >= MOST {
                return None;
            }
        }
    }
}

/// `section.key`
fn place(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// A value from its text, as if it stood at `at`.
fn example_at(at: &Range<usize>, example: &'static str) -> Option<Spanned<DeValue<'static>>> {
    let value = DeValue::parse(example).ok()?;
    Some(Spanned::new(at.clone(), value.into_inner()))
}

/// Replaces the value at `span` by an example, or takes it out; returns its key and what it was.
fn mend(table: &mut DeTable<'_>, section: &str, span: &Range<usize>) -> Option<(String, String)> {
    let holds = |outer: &Range<usize>| outer.start <= span.start && span.end <= outer.end;
    let names: Vec<String> = table.keys().map(|key| key.get_ref().to_string()).collect();
    for name in names {
        let value = table.get_mut(name.as_str())?;
        let at = value.span();
        // The tables first: those of `[[name]]` lie anywhere, and their list says nothing of where.
        let inner = match value.get_mut() {
            DeValue::Table(inner) => mend(inner, &name, span),
            DeValue::Array(all) => all.iter_mut().find_map(|one| match one.get_mut() {
                DeValue::Table(inner) => mend(inner, &name, span),
                _ => None,
            }),
            _ => None,
        };
        if inner.is_some() {
            return inner;
        }
        if !holds(&at) {
            continue;
        }
        let was = value.get_ref().as_str().unwrap_or_default().to_owned();
        let required = REQUIRED.into_iter().chain([JOURNAL_DEVICE]);
        let example = required.into_iter().find(|(place, key, _)| (*place, *key) == (section, name.as_str()));
        let replaced = example.and_then(|(_, _, example)| example_at(&(0..0), example));
        match replaced {
            Some(example) => *value = example,
            None => drop(table.remove(name.as_str())),
        }
        return Some((place(section, &name), was));
    }
    None
}

/// The words that may stand at `key`.
fn words_of(schema: &Schema, key: &str) -> Option<&'static [&'static str]> {
    let mut here = schema.clone();
    for name in key.split('.') {
        if let Schema::Several(inner) = here {
            here = *inner;
        }
        let Schema::Table(fields) = here else { return None };
        here = fields.into_iter().find(|(field, _)| *field == name)?.1;
    }
    match here {
        Schema::Word(words) => Some(words),
        _ => None,
    }
}

/// Where the value of `key` stands.
fn span_of(root: &DeTable<'_>, key: &str) -> Option<Range<usize>> {
    match key.split_once('.') {
        None => root.get(key).map(Spanned::span),
        Some((section, key)) => match root.get(section)?.get_ref() {
            DeValue::Table(inner) => inner.get(key).map(Spanned::span),
            DeValue::Array(all) => all.iter().rev().find_map(|one| match one.get_ref() {
                DeValue::Table(inner) => inner.get(key).map(Spanned::span),
                _ => None,
            }),
            _ => None,
        },
    }
}

/// The most similar of some words, if any is similar enough to have been meant.
fn similar<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let far = |other: &str| (distance(word, other), other.len().abs_diff(word.len()));
    let nearest = words.min_by_key(|other| far(other))?;
    (far(nearest).0 <= (nearest.len().max(word.len()) / 3).max(1)).then_some(nearest)
}

/// How many letters have to be changed, added or removed, or exchanged with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    // Whoever writes so much means no key.
    const LONGEST: usize = 64;
    let cut = |word: &str| word.chars().take(LONGEST).collect::<String>();
    strsim::osa_distance(&cut(a), &cut(b))
}

/// A value that the schema takes and the daemon does not.
struct OutOfRange {
    key: String,
    reason: String,
    nearest: Option<String>,
}

/// The values that are out of range, or do not fit each other.
fn out_of_range(config: &Config) -> Vec<OutOfRange> {
    let mut found = contradictions(config);
    found.extend(numbers(config));
    found.extend(blocks(config));
    found.extend(durations(config));
    found
}

fn contradiction(key: &str, reason: String) -> OutOfRange {
    OutOfRange { key: key.to_owned(), reason, nearest: None }
}

fn contradictions(config: &Config) -> Vec<OutOfRange> {
    let mut found = Vec::new();
    let count = config.volume.len();
    if !(1..=MAX_VOLUMES).contains(&count) {
        found.push(contradiction("volume", format!("{count} volumes: a group has 1 to {MAX_VOLUMES}")));
    }
    if let Some(name) = twice(config.volume.iter().map(|volume| volume.name.top())) {
        found.push(contradiction("volume.name", format!("two volumes are called {name}")));
    }
    if let Some(device) = twice(config.volume.iter().map(|volume| &volume.device)) {
        found.push(contradiction("volume.device", format!("{} is given twice", device.display())));
    }
    if let Some(device) = twice(NamedDevices::from(config).all()).filter(|_| found.is_empty()) {
        let text = format!("{} has another use in this configuration", device.display());
        found.push(contradiction("volume.metadata", text));
    }
    let logs = &config.log.devices;
    if !logs.is_empty() && logs.len() != 2 * count {
        let text = format!("{} devices: {count} volumes need {}, two each", logs.len(), 2 * count);
        found.push(contradiction("log.devices", text));
    }
    if let Some(device) = twice(logs) {
        found.push(contradiction("log.devices", format!("{} is given twice", device.display())));
    }
    if config.capture == CaptureBy::Era && config.mode == Mode::Continuous {
        let reason = "`era` is for mode = \"interval\": without a log the volumes stand still for what has changed to be read";
        found.push(contradiction("capture", reason.into()));
    }
    if config.hooks.policy().is_some() && config.mode == Mode::Continuous {
        let reason = "hooks are for mode = \"interval\": epochs of the other end many times a second";
        found.push(contradiction("hooks", reason.into()));
    }
    if !config.hooks.freeze.is_empty() && config.hooks.thaw.is_empty() {
        let reason = "is missing: nothing would let the guest go on that `hooks.freeze` holds still";
        found.push(contradiction("hooks.thaw", reason.into()));
    }
    found.extend(addresses(config));
    found.extend(places::wrong(config).into_iter().map(|(key, reason)| contradiction(key, reason)));
    // A name may stand for another address tomorrow.
    let is_local =
        |host: &HostAddress| host.canonical().literal().is_some_and(|address| address.ip().is_loopback());
    let on_a_network = !(is_local(&config.address) && is_local(&config.peer));
    if config.tls == Protection::Off && on_a_network && !config.tls_off_on_a_network {
        let text = "is off, and others can reach `address` or the path to `peer`: leave it out and see `ftship keygen` \
            and `ftship pair`, or add tls-off-on-a-network = true";
        found.push(contradiction("tls", text.into()));
    }
    found
}

/// Addresses that no host can have, or that are the same host's.
fn addresses(config: &Config) -> Vec<OutOfRange> {
    let mut found = Vec::new();
    for (key, host) in [("address", &config.address), ("peer", &config.peer)] {
        let ip = host.canonical().literal().map(|address| address.ip());
        if host.port() == 0 {
            let nearest = Some(format!("\"{}\"", host.clone().at_port(7789)));
            found.push(OutOfRange { key: key.into(), reason: "port 0 is no port".into(), nearest });
        } else if let Some(ip) = ip.filter(|ip| ip.is_multicast() || (key == "peer" && ip.is_unspecified())) {
            found.push(contradiction(key, format!("{ip} is no host's address: name the host's own one")));
        }
    }
    if config.address.canonical() == config.peer.canonical() {
        found.push(contradiction("peer", "is the address of this host itself".into()));
    }
    found
}

/// What is wrong with a value that has to lie between two others, in the words that a file may have.
fn between<T: PartialOrd>(
    key: &str,
    value: &T,
    low: &T,
    high: &T,
    word: impl Fn(&T) -> String,
) -> Option<OutOfRange> {
    let nearest = if value < low { low } else { high };
    (value < low || value > high).then(|| OutOfRange {
        key: key.to_owned(),
        reason: format!("{} is not between {} and {}", word(value), word(low), word(high)),
        nearest: Some(word(nearest)),
    })
}

/// A size in the largest unit of which it is a whole number.
fn size_word(size: &ByteSize) -> String {
    let bytes = size.as_u64();
    let units = [(60, "EiB"), (50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    unit.map_or_else(|| format!("\"{bytes} B\""), |(shift, name)| format!("\"{} {name}\"", bytes >> shift))
}

fn numbers(config: &Config) -> Vec<OutOfRange> {
    let limits = &config.limits;
    let number = |key, value: u64, low, high| between(key, &value, &low, &high, u64::to_string);
    let at_least = |key: &str, value: ByteSize, low: ByteSize| {
        (value < low).then(|| OutOfRange {
            key: key.to_owned(),
            reason: format!("{} is less than {}", size_word(&value), size_word(&low)),
            nearest: Some(size_word(&low)),
        })
    };
    [
        number("limits.window", limits.window as u64, 1, 64),
        number("limits.log-watermark", limits.log_watermark.into(), 10, 90),
        number("limits.void-cuts", limits.void_cuts.into(), 1, u32::MAX.into()),
        number("snapshots.keep", config.snapshots.keep as u64, 1, 1000),
        between("log.size", &config.log.size, &ByteSize::mib(4), &ByteSize::gib(16), size_word),
        config.journal.size.and_then(|size| at_least("journal.size", size, ByteSize(MIN_JOURNAL_LEN))),
        config.verify.rate.and_then(|rate| at_least("verify.rate", rate, ByteSize::mib(1))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn blocks(config: &Config) -> Option<OutOfRange> {
    let (least, most) = (ByteSize::kib(4), ByteSize::gib(1));
    let sizes = config.volume.iter().map(|volume| volume.block);
    let wrong = sizes
        .into_iter()
        .find(|size| !size.as_u64().is_multiple_of(least.as_u64()) || !(least..=most).contains(size))?;
    let nearest = (wrong.as_u64().next_multiple_of(least.as_u64())).clamp(least.as_u64(), most.as_u64());
    Some(OutOfRange {
        key: "volume.block".into(),
        reason: format!("{} is not a multiple of 4 KiB up to 1 GiB", size_word(&wrong)),
        nearest: Some(size_word(&ByteSize(nearest))),
    })
}

fn durations(config: &Config) -> Vec<OutOfRange> {
    let (ms, s) = (Duration::from_millis, Duration::from_secs);
    let (limits, watchdog) = (&config.limits, &config.watchdog);
    let (shortest, longest) = match config.mode {
        Mode::Continuous => (ms(5), s(3600)),
        Mode::Interval => (s(1), s(7 * 86_400)),
    };
    let year = s(366 * 86_400);
    let duration = |key, value: Duration, low: Duration, high: Duration| {
        between(key, &value, &low, &high, |time| format!("\"{}\"", format_duration(*time)))
    };
    // What is derived from a value that is itself out of range says nothing.
    let least_limit = if limits.pause_budget > s(1) { ms(1) } else { limits.pause_budget.max(ms(1)) };
    let derived = if limits.pause_limit > s(1) { ms(0) } else { limits.pause_limit * 4 };
    let least_timeout = derived.max(ms(100));
    [
        duration("epoch", config.epoch, shortest, longest),
        config.snapshots.every.and_then(|every| duration("snapshots.every", every, s(1), year)),
        duration("roll-interval", config.roll_interval, s(1), s(7 * 24 * 3600)),
        duration("resync-target", config.resync_target, s(0), s(24 * 3600)),
        config.verify.every.and_then(|every| duration("verify.every", every, s(1), year)),
        duration("limits.pause-budget", limits.pause_budget, ms(1), s(1)),
        duration("limits.pause-limit", limits.pause_limit, least_limit, s(1)),
        duration("limits.era-pause", limits.era_pause, ms(10), s(60)),
        duration("limits.throttle-lease", limits.throttle_lease, ms(100), s(60)),
        duration("limits.switch-hold", limits.switch_hold, s(1), s(60)),
        duration("limits.fence-lease", limits.fence_lease, s(1), s(600)),
        duration("limits.timeout", limits.timeout, ms(500), s(300)),
        duration("watchdog.pause-timeout", watchdog.pause_timeout, least_timeout, s(10)),
        duration("watchdog.timeout", watchdog.timeout, watchdog.pause_timeout.min(s(60)), s(60)),
        duration("hooks.timeout", config.hooks.timeout, ms(100), s(60)),
        duration("journal.apply-delay", config.journal.apply_delay, ms(0), s(60)),
    ]
    .into_iter()
    .flatten()
    .collect()
}
