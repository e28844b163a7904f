//! The numbers and identities that everything else is keyed by, one type for each.
//!
//! Always holds: there is no arithmetic between kinds, and the only arithmetic at all is
//! [`Epoch::next`]. A [`GroupName`] is never empty, never longer than 64 characters and safe in
//! a file name. Nothing here is random: identities are drawn outside and handed in.

use std::fmt;
use std::str::FromStr;

/// A text that does not name what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a decimal epoch number.
    #[error("{0:?} is not an epoch: give a decimal number")]
    Epoch(String),
    /// Not 32 hexadecimal digits (hyphens between them are allowed).
    #[error("{0:?} is not an identity: give 32 hexadecimal digits")]
    Hex(String),
    /// Not `NUMBER:ID`.
    #[error("{0:?} is not a generation: give NUMBER:ID, ID being 32 hexadecimal digits")]
    Generation(String),
    /// Not a usable group name.
    #[error("{0:?} is not a group name: use 1 to 64 of the characters a-z A-Z 0-9 _ . -")]
    GroupName(String),
}

/// The number of an epoch: the unit committed atomically on the backup. 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// No epoch yet.
    pub const NONE: Self = Self(0);

    /// Whether this names an epoch at all.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// The epoch that follows. Saturates: at one epoch a nanosecond 64 bits last 584 years.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Epoch {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        text.parse().map(Self).map_err(|_| IdError::Epoch(text.to_owned()))
    }
}

/// What a promote makes: a number for people and order, a random id for identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Generation {
    /// One above the generation that was promoted from.
    pub number: u64,
    /// 128 random bits: two promotes of the same number differ here.
    pub id: [u8; 16],
}

impl Generation {
    /// The encoding: number u64, id.
    pub(crate) fn encode(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..].copy_from_slice(&self.id);
        bytes
    }

    /// Reads what [`Self::encode`] wrote.
    pub(crate) fn decode(bytes: [u8; 24]) -> Self {
        let number = std::array::from_fn(|i| bytes[i]);
        Self { number: u64::from_le_bytes(number), id: std::array::from_fn(|i| bytes[8 + i]) }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.number)?;
        write_hex(f, &self.id)
    }
}

impl FromStr for Generation {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = || IdError::Generation(text.to_owned());
        let (number, id) = text.split_once(':').ok_or_else(error)?;
        let number = number.parse().map_err(|_| error())?;
        let id = parse_hex16(id).ok_or_else(error)?;
        Ok(Self { number, id })
    }
}

/// Drawn at random at each start of a primary. The order means nothing; it is for sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub [u8; 16]);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// Identity of a replicated volume, the same on both hosts: the primary's; the backup learns it at
/// its first full sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeUuid(pub [u8; 16]);

impl fmt::Display for VolumeUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl FromStr for VolumeUuid {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        parse_hex16(text).map(Self).ok_or_else(|| IdError::Hex(text.to_owned()))
    }
}

/// Position of a volume in its group's description.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeIndex(pub u16);

impl fmt::Display for VolumeIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "volume {}", self.0)
    }
}

/// A SHA-256: of an epoch chained to all before it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Where every chain starts.
    pub const ZERO: Self = Self([0; 32]);
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Name of a group: `[a-zA-Z0-9_.-]{1,64}`, and neither `.` nor `..`, because files are named after it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName(String);

impl GroupName {
    /// Longest name, in characters (which are bytes).
    pub const MAX_LEN: usize = 64;

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for GroupName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let sound = (1..=Self::MAX_LEN).contains(&text.len())
            && text.bytes().all(allowed)
            && !matches!(text, "." | "..");
        if sound { Ok(Self(text.to_owned())) } else { Err(IdError::GroupName(shorten(text))) }
    }
}

/// Keeps a hostile name out of error messages beyond what shows the mistake.
fn shorten(text: &str) -> String {
    text.chars().take(GroupName::MAX_LEN + 1).collect()
}

/// Writes bytes as lower-case hexadecimal digits.
fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// 32 hexadecimal digits, hyphens ignored.
fn parse_hex16(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> =
        text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16)?.try_into().ok()).collect::<Option<_>>()?;
    let mut id = [0; 16];
    if digits.len() != 2 * id.len() {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_names_are_what_a_file_name_can_hold() {
        for good in ["vm1", "a", "A_b.c-9", &"x".repeat(64)] {
            assert_eq!(good.parse::<GroupName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä", "a\0", &"x".repeat(65)] {
            assert!(bad.parse::<GroupName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn identities_print_and_parse_the_same() {
        let id: [u8; 16] = std::array::from_fn(|i| u8::try_from(i * 17).unwrap());
        let uuid = VolumeUuid(id);
        assert_eq!(uuid.to_string(), "00112233445566778899aabbccddeeff");
        assert_eq!(uuid.to_string().parse(), Ok(uuid));
        assert_eq!("00112233-4455-6677-8899-AABBCCDDEEFF".parse(), Ok(uuid));
        let generation = Generation { number: 7, id };
        assert_eq!(generation.to_string().parse(), Ok(generation));
        assert_eq!(Epoch(12).to_string().parse(), Ok(Epoch(12)));
        for bad in ["", "0011", "00112233445566778899aabbccddeefg", "00112233445566778899aabbccddeeff00"] {
            assert!(bad.parse::<VolumeUuid>().is_err(), "{bad:?}");
            assert!(format!("1:{bad}").parse::<Generation>().is_err());
        }
        assert!("-1".parse::<Epoch>().is_err());
    }

    #[test]
    fn the_epoch_after_the_last_is_still_the_last() {
        assert_eq!(Epoch::NONE.next(), Epoch(1));
        assert_eq!(Epoch(u64::MAX).next(), Epoch(u64::MAX));
    }
}
