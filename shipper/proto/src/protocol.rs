//! Which versions and features of the protocol this code speaks, and what a feature promises.
//!
//! Always holds: a mandatory feature that is not known here is refused before anything else is done;
//! an optional one is ignored. The numbers of the bits are frozen.

/// The lowest protocol version spoken here.
pub const PROTOCOL_MIN: u16 = 2;

/// The highest protocol version spoken here.
pub const PROTOCOL: u16 = 2;

/// Mandatory: a coordinator commits epochs, nobody else does.
pub const EXTERNAL_COMMIT: u64 = 1 << 0;

/// Optional: the primary understands that an epoch may be acknowledged before it is durable.
pub const ACK_RECEIVED: u64 = 1 << 1;

/// Optional: the backup answers what its volumes hold, by digests.
pub const VERIFY: u64 = 1 << 2;

/// Optional: the backup tells what it has by short digests, also while a sync is under way.
pub const COMPARE: u64 = 1 << 3;

/// Feature bits understood here.
pub const FEATURES_KNOWN: u64 = EXTERNAL_COMMIT | ACK_RECEIVED | VERIFY | COMPARE;

/// Who commits an epoch; the same on both hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommitPolicy {
    /// The backup: an epoch that is wholly staged is committed.
    #[default]
    Auto,
    /// A coordinator, which says so to the primary: an epoch is committed on its word, with all earlier ones.
    External,
}

impl std::fmt::Display for CommitPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::External => "external",
        })
    }
}

/// What STAGED promises; the backup's choice. A commit is durable in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckPolicy {
    /// The epoch survives a power cut of the backup.
    #[default]
    Durable,
    /// The epoch was received whole and checked. It survives the loss of the primary, but not a power cut of
    /// the backup in the moments before the journal's next sync.
    Received,
}

impl std::fmt::Display for AckPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Durable => "durable",
            Self::Received => "received",
        })
    }
}

/// The version that a peer which speaks `min` to `max` and this side use: the highest that both speak.
#[must_use]
pub fn common_version(min: u16, max: u16) -> Option<u16> {
    let highest = max.min(PROTOCOL);
    (highest >= min.max(PROTOCOL_MIN)).then_some(highest)
}

/// Mandatory feature bits that are not understood here. 0: none.
#[must_use]
pub fn unknown_features(mandatory: u64) -> u64 {
    mandatory & !FEATURES_KNOWN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_version_that_both_speak() {
        assert_eq!(common_version(PROTOCOL, PROTOCOL), Some(PROTOCOL));
        assert_eq!(common_version(0, 9), Some(PROTOCOL));
        assert_eq!(common_version(PROTOCOL + 1, PROTOCOL + 5), None);
        assert_eq!(common_version(0, 0), None);
    }

    #[test]
    fn only_unknown_bits_are_in_the_way() {
        assert_eq!(unknown_features(FEATURES_KNOWN), 0);
        assert_eq!(unknown_features(FEATURES_KNOWN | 1 << 63), 1 << 63);
    }
}
