//! The status line of a log-writes target.
//!
//! Form (kernel, `dm-log-writes.c`): `<entries> <last sector allocated>[ logging_disabled]`, the
//! sector in 512-byte units.

use std::str::FromStr;

use crate::units::Sectors;

/// What log-writes says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStatus {
    /// Entries begun so far.
    pub entries: u64,
    /// Log space given out so far, the super included.
    pub used: Sectors,
    /// Writes are still being logged. Once off it never comes on again.
    pub on: bool,
}

/// A status line of another form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log-writes reports `{0}`: expected `ENTRIES SECTOR[ logging_disabled]`")]
pub struct LogStatusError(pub String);

impl LogStatus {
    /// Reads the line without allocating. `None` when it is of another form.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let entries = words.next()?.parse().ok()?;
        let last: u64 = words.next()?.parse().ok()?;
        let on = match words.next() {
            None => true,
            Some("logging_disabled") => false,
            Some(_) => return None,
        };
        Some(Self { entries, used: Sectors(last.checked_add(1)?), on })
    }
}

impl FromStr for LogStatus {
    type Err = LogStatusError;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        Self::parse(line).ok_or_else(|| LogStatusError(line.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_went_off_is_noticed() {
        let on: LogStatus = "3 25".parse().unwrap();
        assert_eq!(on, LogStatus { entries: 3, used: Sectors(26), on: true });
        assert!(!"3 25 logging_disabled".parse::<LogStatus>().unwrap().on);
        for bad in ["", "3", "3 x", "3 25 something", "3 18446744073709551615"] {
            assert!(bad.parse::<LogStatus>().is_err(), "{bad}");
        }
    }
}
