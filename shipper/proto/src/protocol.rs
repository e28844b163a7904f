//! Which version and features of the protocol this code speaks.
//!
//! Always holds: a mandatory feature that is not known here is refused before anything else is done;
//! an optional one is ignored.

/// The protocol version spoken here.
pub const PROTOCOL: u16 = 1;

/// Feature bits understood here: none has been added since version 1.
pub const FEATURES_KNOWN: u64 = 0;

/// Mandatory feature bits that are not understood here. 0: none.
#[must_use]
pub fn unknown_features(mandatory: u64) -> u64 {
    mandatory & !FEATURES_KNOWN
}
