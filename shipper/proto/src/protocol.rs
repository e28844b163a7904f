//! Which versions and features of the protocol this code speaks.
//!
//! Always holds: a mandatory feature that is not known here is refused before anything else is done;
//! an optional one is ignored.

use crate::tlv::{TlvError, Value};

/// The protocol version spoken here.
pub const PROTOCOL_VERSION: u16 = 1;

/// An inclusive range of protocol versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolRange {
    /// Lowest version spoken.
    pub min: u16,
    /// Highest version spoken.
    pub max: u16,
}

impl ProtocolRange {
    /// What this code speaks.
    pub const OURS: Self = Self { min: PROTOCOL_VERSION, max: PROTOCOL_VERSION };

    /// The highest version in both. `None` when there is none.
    #[must_use]
    pub fn common(self, peer: Self) -> Option<u16> {
        let highest = self.max.min(peer.max);
        (highest >= self.min.max(peer.min)).then_some(highest)
    }
}

/// Feature bits. A reader ignores optional ones that it does not know and refuses mandatory ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// May be ignored.
    pub optional: u64,
    /// Must be understood.
    pub mandatory: u64,
}

impl Features {
    /// What this code understands: no feature has been added since version 1.
    pub const KNOWN: u64 = 0;

    /// Mandatory bits that are not understood here. 0: none.
    #[must_use]
    pub fn unknown_mandatory(self) -> u64 {
        self.mandatory & !Self::KNOWN
    }

    /// The encoding: optional u64, mandatory u64.
    pub(crate) fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.optional.to_le_bytes());
        bytes[8..].copy_from_slice(&self.mandatory.to_le_bytes());
        bytes
    }

    /// Reads what [`Self::encode`] wrote; the value must end with it.
    pub(crate) fn decode(mut value: Value<'_>) -> Result<Self, TlvError> {
        let features = Self { optional: value.u64()?, mandatory: value.u64()? };
        value.end()?;
        Ok(features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_taken() {
        let range = |min, max| ProtocolRange { min, max };
        assert_eq!(range(1, 3).common(range(2, 5)), Some(3));
        assert_eq!(range(2, 5).common(range(1, 3)), Some(3));
        assert_eq!(range(1, 1).common(range(2, 5)), None);
        assert_eq!(ProtocolRange::OURS.common(ProtocolRange::OURS), Some(PROTOCOL_VERSION));
    }

    #[test]
    fn only_unknown_mandatory_features_matter() {
        assert_eq!(Features { optional: u64::MAX, mandatory: 0 }.unknown_mandatory(), 0);
        assert_eq!(Features { optional: 0, mandatory: 4 }.unknown_mandatory(), 4);
    }
}
