//! The status line of a dm-era target.
//!
//! Form (kernel, `dm-era-target.c`): `<metadata block sectors> <used>/<total> <current era> <snapshot block | ->`.

use std::str::FromStr;

use crate::units::Era;

/// What dm-era says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EraStatus {
    /// Metadata blocks in use.
    pub used: u64,
    /// Metadata blocks there are.
    pub total: u64,
    /// The era that writes are recorded in now.
    pub current: Era,
    /// Where the clone of the superblock is, while a metadata snapshot is held.
    pub snapshot: Option<u64>,
}

/// A status line of another form: `Error` when dm-era cannot read its own metadata.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "dm-era reports `{0}`: expected `SECTORS USED/TOTAL ERA SNAPSHOT`; its metadata device may have failed"
)]
pub struct EraStatusError(pub String);

impl FromStr for EraStatus {
    type Err = EraStatusError;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_sectors, usage, era, snapshot] = words[..] else { return None };
            let (used, total) = usage.split_once('/')?;
            let snapshot = if snapshot == "-" { None } else { Some(snapshot.parse().ok()?) };
            Some(Self {
                used: used.parse().ok()?,
                total: total.parse().ok()?,
                current: Era(era.parse().ok()?),
                snapshot,
            })
        };
        parse().ok_or_else(|| EraStatusError(line.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_line_are_read_and_an_error_is_not() {
        let plain: EraStatus = "8 21/1024 3 -".parse().unwrap();
        assert_eq!(plain, EraStatus { used: 21, total: 1024, current: Era(3), snapshot: None });
        assert_eq!("8 21/1024 3 17".parse::<EraStatus>().unwrap().snapshot, Some(17));
        for bad in ["Error", "", "8 21 3 -", "8 21/1024 x -", "8 21/1024 3"] {
            assert!(bad.parse::<EraStatus>().is_err(), "{bad}");
        }
    }
}
