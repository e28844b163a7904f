//! The verbs that make, show and end udev's cookies.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use ftdm::ioctl::semaphore::MAGIC;

use super::args::{Options, Verb, Words};
use super::cookie::{self, find};
use super::dm::{Done, fail, say};
use super::{Failure, tables, usage};

const FLAGS: [&str; 7] = [
    "DISABLE_DM_RULES",
    "DISABLE_SUBSYSTEM_RULES",
    "DISABLE_DISK_RULES",
    "DISABLE_OTHER_RULES",
    "LOW_PRIORITY",
    "DISABLE_LIBRARY_FALLBACK",
    "PRIMARY_SOURCE",
];

/// A cookie as it is written: decimal, hexadecimal with 0x, octal with 0. Of what is no number: 0.
pub(crate) fn number(text: &str) -> u32 {
    let (digits, radix) = match text.trim_start() {
        text if text.starts_with("0x") || text.starts_with("0X") => (&text[2..], 16),
        text if text.starts_with('0') => (text, 8),
        text => (text, 10),
    };
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    u64::from_str_radix(&digits[..end], radix).map_or(0, |n| u32::try_from(n & 0xffff_ffff).unwrap_or(0))
}

pub(crate) fn run(options: &Options, verb: &Verb, out: &mut dyn Write) -> Result<(), Failure> {
    match verb {
        Verb::Udevcreatecookie(given) | Verb::Udevcookies(given) if !given.words.is_empty() => {
            Err(usage("Incorrect number of arguments."))
        }
        Verb::Udevcreatecookie(_) => {
            if !cookie::udev_runs() {
                return Ok(());
            }
            match cookie::create() {
                Ok((cookie, _)) => Ok(writeln!(out, "0x{cookie:08X}")?),
                Err(why) => Ok(fail(why)?),
            }
        }
        Verb::Udevreleasecookie(given) => {
            let given = match &given.words[..] {
                [] => options.udevcookie.clone().or_else(|| std::env::var("DM_UDEV_COOKIE").ok()),
                [word] => Some(word.to_string_lossy().into_owned()),
                _ => return Err(usage("Incorrect number of arguments.")),
            };
            let Some(given) = given else { return Ok(fail("No udev transaction cookie given.")?) };
            Ok(release(valid(&given)?)?)
        }
        Verb::Udevcomplete(given) => {
            let cookie = valid(&one(given)?.to_string_lossy())?;
            complete(cookie)?;
            Ok(writeln!(out, "DM_COOKIE_COMPLETED=0x{cookie:<10x}")?)
        }
        Verb::UdevcompleteAll(given) => complete_all(options, given, out),
        Verb::Udevcookies(_) => cookies(out),
        Verb::Udevflags(given) => flags(valid(&one(given)?.to_string_lossy())?, out),
        _ => Ok(()),
    }
}

fn one(given: &Words) -> Result<&OsString, Failure> {
    match &given.words[..] {
        [word] => Ok(word),
        _ => Err(usage("Incorrect number of arguments.")),
    }
}

/// A cookie that may be one.
fn valid(text: &str) -> Done<u32> {
    match number(text) {
        0 => fail("Incorrect cookie value."),
        cookie => Ok(cookie),
    }
}

fn release(cookie: u32) -> Done {
    if !cookie::udev_runs() {
        return Ok(());
    }
    let semaphore = find(cookie).or_else(fail)?;
    let released = semaphore.count(-1).and_then(|()| semaphore.wait()).and_then(|()| semaphore.remove());
    released.or_else(|e| fail(format!("Failed to release the cookie: {}", e.desc())))
}

fn complete(cookie: u32) -> Done {
    if !cookie::udev_runs() {
        return Ok(());
    }
    let cookie = MAGIC << 16 | cookie & 0xffff;
    let semaphore = find(cookie).or_else(fail)?;
    semaphore.count(-1).or_else(|e| fail(format!("Failed to decrement the cookie: {}", e.desc())))
}

/// A cookie that is there: what /proc says of its semaphore.
struct Shown {
    key: u32,
    id: i32,
    used: i64,
    changed: i64,
}

fn there() -> Vec<Shown> {
    let text = std::fs::read_to_string("/proc/sysvipc/sem").unwrap_or_default();
    let shown = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = |n: usize| words.get(n).and_then(|word| word.parse::<i64>().ok());
        let key = u32::try_from(at(0)?).ok().filter(|key| key >> 16 == MAGIC)?;
        Some(Shown { key, id: i32::try_from(at(1)?).ok()?, used: at(8)?, changed: at(9)? })
    };
    text.lines().filter_map(shown).collect()
}

fn cookies(out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(out, "Cookie       Semid      Value      Last semop time           Last change time")?;
    for Shown { key, id, used, changed } in there() {
        let value = find(key).ok().and_then(|semaphore| semaphore.value().ok()).unwrap_or(0);
        writeln!(
            out,
            "{:<12} {id:<10} {value:<10} {:<25} {}",
            format!("0x{key:x}"),
            time(used),
            time(changed)
        )?;
    }
    Ok(())
}

fn time(seconds: i64) -> String {
    if seconds == 0 { "unknown".to_owned() } else { seconds.to_string() }
}

fn flags(cookie: u32, out: &mut dyn Write) -> Result<(), Failure> {
    for bit in 0..16 {
        if cookie >> (16 + bit) & 1 == 0 {
            continue;
        }
        match FLAGS.get(bit) {
            Some(name) => writeln!(out, "DM_UDEV_{name}_FLAG='1'")?,
            None if bit < 8 => writeln!(out, "DM_UDEV_FLAG{bit}='1'")?,
            None => writeln!(out, "DM_SUBSYSTEM_UDEV_FLAG{}='1'", bit - 8)?,
        }
    }
    Ok(())
}

fn complete_all(options: &Options, given: &Words, out: &mut dyn Write) -> Result<(), Failure> {
    let age = match &given.words[..] {
        [] => 0,
        [word] => match tables::number(word.as_bytes()) {
            Some((age, [])) => age,
            _ => return Ok(fail("Failed to read age_in_minutes parameter.")?),
        },
        _ => return Err(usage("Incorrect number of arguments.")),
    };
    if !options.yes {
        let which = if age == 0 { String::new() } else { format!(" older than {age} minutes") };
        say(format!(
            "WARNING: This operation will destroy all semaphores{which} with keys that have a prefix {MAGIC} (0x{MAGIC:x})."
        ));
        if !super::help::asked_yes("Do you really want to continue? [y/n]: ", out)? {
            writeln!(out, "Semaphores with keys prefixed by {MAGIC} (0x{MAGIC:x}) NOT destroyed.")?;
            return Ok(());
        }
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let mut count = 0;
    for Shown { key, changed, .. } in there() {
        let old = now.saturating_sub(u64::try_from(changed).unwrap_or(0)) >= age * 60;
        if old && find(key).is_ok_and(|semaphore| semaphore.remove().is_ok()) {
            count += 1;
        }
    }
    writeln!(out, "{count} semaphores with keys prefixed by {MAGIC} (0x{MAGIC:x}) destroyed. 0 skipped.")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_read_in_every_base() {
        for (text, expected) in
            [("0xd4d0001", 0x0d4d_0001), ("16", 16), ("010", 8), ("x", 0), ("", 0), ("5x", 5)]
        {
            assert_eq!(number(text), expected, "{text}");
        }
        assert_eq!(number("4294967295"), u32::MAX);
    }

    #[test]
    fn flags_are_named() {
        let shown = |cookie| {
            let mut out = Vec::new();
            flags(cookie, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(shown(0xffff), "");
        assert_eq!(
            shown(0x0041_0000),
            "DM_UDEV_DISABLE_DM_RULES_FLAG='1'\nDM_UDEV_PRIMARY_SOURCE_FLAG='1'\n"
        );
        assert_eq!(
            shown(0x8180_0001),
            "DM_UDEV_FLAG7='1'\nDM_SUBSYSTEM_UDEV_FLAG0='1'\nDM_SUBSYSTEM_UDEV_FLAG7='1'\n"
        );
    }
}
