//! Names and UUIDs of the devices of a stack.
//!
//! Always holds: a [`StackName`] is legal for device-mapper and cannot collide with a name that
//! LVM makes for a logical volume (those contain hyphens); the hidden devices are found from it
//! alone.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// The longest name, in bytes.
pub const MAX_NAME: usize = 64;
/// What the UUID of every device of a stack begins with.
pub const UUID_PREFIX: &str = "FTDM-";
/// Characters of one UUID of LVM, without its hyphens.
const LVM_UUID: usize = 32;

/// The name of a stack, which is also the name of its visible device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StackName(String);

/// A name that a stack cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or too much.
    #[error("name `{0}` has {len} characters: expected 1 to {MAX_NAME}", len = .0.len())]
    Length(String),
    /// A character outside `[a-zA-Z0-9_.]`.
    #[error("name `{name}` contains `{character}`: expected only letters, digits, `_` and `.`")]
    Character {
        /// The name given.
        name: String,
        /// The first illegal character.
        character: char,
    },
    /// `.` and `..` would be folders.
    #[error("name `{0}` is a folder's name, not a device's")]
    Dots(String),
}

impl FromStr for StackName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        if let Some(character) = text.chars().find(|c| !legal(*c)) {
            return Err(NameError::Character { name: text.to_owned(), character });
        }
        if text.is_empty() || text.len() > MAX_NAME {
            return Err(NameError::Length(text.to_owned()));
        }
        if text == "." || text == ".." {
            return Err(NameError::Dots(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl StackName {
    /// The visible device.
    #[must_use]
    pub fn top(&self) -> &str {
        &self.0
    }

    /// The log-writes device, there while capturing.
    #[must_use]
    pub fn log(&self) -> String {
        format!("{}-log", self.0)
    }

    /// The dm-era device.
    #[must_use]
    pub fn era(&self) -> String {
        format!("{}-era", self.0)
    }

    /// The gate over it, there where discards are passed on.
    #[must_use]
    pub fn gate(&self) -> String {
        format!("{}-gate", self.0)
    }

    /// The daemon's own way to dm-era for discards, there too.
    #[must_use]
    pub fn outlet(&self) -> String {
        format!("{}-outlet", self.0)
    }
}

impl fmt::Display for StackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What identifies a stack's volume, whatever its name: the origin's own UUID where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeId(String);

impl VolumeId {
    /// From the device-mapper UUID of an origin that is a logical volume
    /// (`LVM-` VGUUID LVUUID, possibly with a suffix). `None` for anything else.
    #[must_use]
    pub fn from_lvm(dm_uuid: &str) -> Option<Self> {
        let lv = dm_uuid.strip_prefix("LVM-")?.get(LVM_UUID..2 * LVM_UUID)?;
        lv.bytes().all(|b| b.is_ascii_graphic() && b != b'-').then(|| Self(lv.to_owned()))
    }

    /// A random one, for an origin without a UUID of its own. It lasts as long as the stack's
    /// devices do: whoever needs it longer records it.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0u8; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes.iter().map(|b| format!("{b:02x}")).collect()))
    }

    /// From the UUID of a visible device. `None` when it is not one of ftdm's.
    #[must_use]
    pub fn from_top_uuid(uuid: &str) -> Option<Self> {
        let id = uuid.strip_prefix(UUID_PREFIX)?;
        (!id.is_empty() && !id.contains('-')).then(|| Self(id.to_owned()))
    }

    /// UUID of the visible device.
    #[must_use]
    pub fn top(&self) -> String {
        format!("{UUID_PREFIX}{}", self.0)
    }

    /// UUID of the log-writes device.
    #[must_use]
    pub fn log(&self) -> String {
        format!("{UUID_PREFIX}{}-log", self.0)
    }

    /// UUID of the dm-era device.
    #[must_use]
    pub fn era(&self) -> String {
        format!("{UUID_PREFIX}{}-era", self.0)
    }

    /// UUID of the gate.
    #[must_use]
    pub fn gate(&self) -> String {
        format!("{UUID_PREFIX}{}-gate", self.0)
    }

    /// UUID of the outlet.
    #[must_use]
    pub fn outlet(&self) -> String {
        format!("{UUID_PREFIX}{}-outlet", self.0)
    }

    /// Sixteen bytes for handshakes: the first half of SHA-256 over `ftdm volume ` and the id.
    #[must_use]
    pub fn bytes(&self) -> [u8; 16] {
        let digest = Sha256::new_with_prefix(b"ftdm volume ").chain_update(&self.0).finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        bytes
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lvm_could_make_or_that_are_not_names_are_refused() {
        assert!("vm1".parse::<StackName>().is_ok());
        assert!("a".repeat(64).parse::<StackName>().is_ok());
        assert!(matches!("a".repeat(65).parse::<StackName>(), Err(NameError::Length(_))));
        assert!(matches!("".parse::<StackName>(), Err(NameError::Length(_))));
        assert!(matches!("..".parse::<StackName>(), Err(NameError::Dots(_))));
        for name in ["vg-lv", "a/b", "a b", "ä"] {
            assert!(matches!(name.parse::<StackName>(), Err(NameError::Character { .. })), "{name}");
        }
    }

    #[test]
    fn the_id_is_the_logical_volumes_half_of_the_uuid() {
        let (vg, lv) = ("v".repeat(32), "Lq".repeat(16));
        let id = VolumeId::from_lvm(&format!("LVM-{vg}{lv}")).unwrap();
        assert_eq!(id.to_string(), lv);
        assert_eq!(VolumeId::from_top_uuid(&id.top()), Some(id.clone()));
        assert_eq!(VolumeId::from_top_uuid(&id.era()), None);
        assert_eq!(VolumeId::from_lvm(&format!("LVM-{vg}")), None);
        assert_eq!(VolumeId::from_lvm("CRYPT-x"), None);
        assert_ne!(id.bytes(), VolumeId::random().unwrap().bytes());
    }
}
