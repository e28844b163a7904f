//! Names and UUIDs of the devices of a stack.
//!
//! Always holds: a [`StackName`] is a name that device-mapper and udev take, and what names its hidden devices is
//! neither such a name nor one that LVM makes for a logical volume (LVM's have no `@`); a stack's hidden devices are
//! found by their UUIDs, which follow from the visible device's.
//!
//! # UUIDs
//!
//! What a guest writes to its disk must not be taken for something of the host's: a volume group of the guest that the
//! host activates over a hidden layer is written to past the log. A filter in LVM's configuration is the
//! administrator's, and udev's properties reach only those who ask udev. But LVM and libblkid (`blkid`, `mount` by
//! UUID or label) look at the kernel's UUID of a device, and pass over those of logical volumes. So these UUIDs have
//! the form of LVM's:
//!
//! - The visible device has that of a logical volume: LVM scans it only if it is asked to (`devices/scan_lvs`), which
//!   is the way to look into a guest's disk.
//! - A hidden device has that of a private layer of a logical volume: no setting makes LVM or libblkid look at it.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::ioctl::exchange::MAX_NAME;
use crate::mangle::{Mangling, mangled};

/// What the UUID of every device of a stack begins with: LVM's own word, and in the place of a volume group's UUID one
/// that none has. udev's rules know it.
pub(crate) const UUID_PREFIX: &str = "LVM-ftdm0000000000000000000000000000";
/// What it began with when LVM took the devices for anybody's.
const UUID_PREFIX_BEFORE: &str = "FTDM-";
/// Characters of one UUID of LVM, without its hyphens.
const LVM_UUID: usize = 32;
/// How much of a name is in those of hidden devices when it is too long for all of it.
const MUCH: usize = 100;

/// The name of a stack, which is also the name of its visible device, as the kernel has it: what udev does not bear
/// is mangled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StackName(String);

/// A name that a stack cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or too much.
    #[error("name `{0}` has {len} bytes as the kernel would have it: expected 1 to {MAX_NAME}", len = .1)]
    Length(String, usize),
    /// It cannot be the name of a node.
    #[error("name `{0}` contains `/`: give the device's name, not a path")]
    Slash(String),
    /// Half mangled, so that nobody knows what is meant.
    #[error(
        "name `{0}` is mangled in part only: write it with \\xNN for all characters that need it, or for none"
    )]
    Mixed(String),
    /// Device-mapper's own node, or a folder.
    #[error("name `{0}` is taken by the system: a device of that name would hide /dev/mapper/{0}")]
    Reserved(String),
    /// What hidden devices are called.
    #[error("name `{0}` ends as the hidden devices of ftdm do: choose another")]
    Hidden(String),
}

impl FromStr for StackName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let given = || text.to_owned();
        if text.contains('/') {
            return Err(NameError::Slash(given()));
        }
        let name = mangled(text.as_bytes(), Mangling::Auto).map_err(|_| NameError::Mixed(given()))?;
        let name = String::from_utf8_lossy(&name).into_owned();
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(NameError::Length(given(), name.len()));
        }
        if matches!(text, "." | ".." | "control") {
            return Err(NameError::Reserved(given()));
        }
        let ends_hidden =
            |part: &Part| part.suffix().is_some_and(|suffix| name.ends_with(&format!("@{suffix}")));
        if Part::ALL.iter().any(ends_hidden) {
            return Err(NameError::Hidden(given()));
        }
        Ok(Self(name))
    }
}

/// A device of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The visible device.
    Top,
    /// The log-writes device, there while capturing.
    Log,
    /// RAM disks joined for a log, there while capturing, and only where none has the log's size.
    Ram0,
    /// The same for the other log.
    Ram1,
    /// The gate over dm-era, there where discards are passed on.
    Gate,
    /// The daemon's own way to dm-era for discards, there too.
    Outlet,
    /// The dm-era device.
    Era,
}

impl Part {
    /// All, from above.
    pub const ALL: [Self; 7] =
        [Self::Top, Self::Log, Self::Ram0, Self::Ram1, Self::Gate, Self::Outlet, Self::Era];
    /// Those that hidden, in the order in which they are removed.
    pub const HIDDEN: [Self; 6] = [Self::Log, Self::Ram0, Self::Ram1, Self::Gate, Self::Outlet, Self::Era];
    /// The joined RAM disks.
    pub(crate) const RAMS: [Self; 2] = [Self::Ram0, Self::Ram1];

    fn suffix(self) -> Option<&'static str> {
        match self {
            Self::Top => None,
            Self::Log => Some("log"),
            Self::Ram0 => Some("ram0"),
            Self::Ram1 => Some("ram1"),
            Self::Gate => Some("gate"),
            Self::Outlet => Some("outlet"),
            Self::Era => Some("era"),
        }
    }
}

impl StackName {
    /// The visible device.
    #[must_use]
    pub fn top(&self) -> &str {
        &self.0
    }

    /// A device of the stack.
    #[must_use]
    pub fn of(&self, part: Part) -> String {
        let Some(suffix) = part.suffix() else { return self.0.clone() };
        let whole = format!("{}@{suffix}", self.0);
        if whole.len() <= MAX_NAME {
            return whole;
        }
        let digest = Sha256::digest(&self.0);
        let digest: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}={digest}@{suffix}", &self.0[..MUCH])
    }

    /// What an older ftdm called it.
    #[must_use]
    pub fn of_before(&self, part: Part) -> Option<String> {
        let name = format!("{}-{}", self.0, part.suffix()?);
        (name.len() <= MAX_NAME).then_some(name)
    }

    /// The log-writes device.
    #[must_use]
    pub fn log(&self) -> String {
        self.of(Part::Log)
    }

    /// The dm-era device.
    #[must_use]
    pub fn era(&self) -> String {
        self.of(Part::Era)
    }
}

impl fmt::Display for StackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What identifies a stack's volume, whatever its name: the origin's own UUID where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeId {
    id: String,
    /// What the UUIDs of its stack begin with. A device keeps its UUID, also under a later ftdm.
    prefix: &'static str,
}

impl VolumeId {
    /// From the device-mapper UUID of an origin that is a logical volume
    /// (`LVM-` VGUUID LVUUID, possibly with a suffix). `None` for anything else.
    #[must_use]
    pub fn from_lvm(dm_uuid: &str) -> Option<Self> {
        if dm_uuid.starts_with(UUID_PREFIX) {
            return None;
        }
        let lv = dm_uuid.strip_prefix("LVM-")?.get(LVM_UUID..2 * LVM_UUID)?;
        is_id(lv).then(|| Self::new(lv))
    }

    fn new(id: &str) -> Self {
        Self { id: id.to_owned(), prefix: UUID_PREFIX }
    }

    /// A random one, for an origin without a UUID of its own. It lasts as long as the stack's
    /// devices do: whoever needs it longer records it.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0u8; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self::new(&bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()))
    }

    /// From the UUID of a visible device. `None` when it is not one of ftdm's.
    #[must_use]
    pub fn from_top_uuid(uuid: &str) -> Option<Self> {
        let (prefix, id) = split(uuid)?;
        is_id(id).then(|| Self { id: id.to_owned(), prefix })
    }

    /// Which device of a stack has this UUID. `None` when it is none of ftdm's.
    #[must_use]
    pub fn part(uuid: &str) -> Option<Part> {
        if Self::from_top_uuid(uuid).is_some() {
            return Some(Part::Top);
        }
        let (_, suffix) = split(uuid)?.1.rsplit_once('-')?;
        Part::HIDDEN.into_iter().find(|part| part.suffix() == Some(suffix))
    }

    /// UUID of a device of the stack.
    #[must_use]
    pub fn of(&self, part: Part) -> String {
        match part.suffix() {
            None => format!("{}{}", self.prefix, self.id),
            Some(suffix) => format!("{}{}-{suffix}", self.prefix, self.id),
        }
    }

    /// UUID of the visible device.
    #[must_use]
    pub fn top(&self) -> String {
        self.of(Part::Top)
    }

    /// UUID of the log-writes device.
    #[must_use]
    pub fn log(&self) -> String {
        self.of(Part::Log)
    }

    /// UUID of the dm-era device.
    #[must_use]
    pub fn era(&self) -> String {
        self.of(Part::Era)
    }

    /// Sixteen bytes for handshakes: the first half of SHA-256 over `ftdm volume ` and the id.
    #[must_use]
    pub fn bytes(&self) -> [u8; 16] {
        let digest = Sha256::new_with_prefix(b"ftdm volume ").chain_update(&self.id).finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        bytes
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

/// What a UUID of ftdm's begins with, and the rest.
fn split(uuid: &str) -> Option<(&'static str, &str)> {
    let known = [UUID_PREFIX, UUID_PREFIX_BEFORE];
    known.into_iter().find_map(|prefix| Some((prefix, uuid.strip_prefix(prefix)?)))
}

/// Whether this is one UUID of LVM, or a random one of that length.
fn is_id(text: &str) -> bool {
    text.len() == LVM_UUID && text.bytes().all(|b| b.is_ascii_graphic() && b != b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_device_mapper_takes_is_a_name() {
        for (text, expected) in [
            ("vm1", "vm1"),
            ("vm-100-disk-0", "vm-100-disk-0"),
            ("volume-1f2e", "volume-1f2e"),
            ("a b", "a\\x20b"),
            ("a\\x20b", "a\\x20b"),
            ("ä", "\\xc3\\xa4"),
            ("-x", "-x"),
        ] {
            assert_eq!(text.parse::<StackName>().unwrap().top(), expected);
        }
        assert!("a".repeat(127).parse::<StackName>().is_ok());
        let refused = |text: &str| text.parse::<StackName>().unwrap_err();
        assert!(matches!(refused(&"a".repeat(128)), NameError::Length(_, 128)));
        assert!(matches!(refused(&" ".repeat(32)), NameError::Length(_, 128)));
        assert!(matches!(refused(""), NameError::Length(..)));
        for name in [".", "..", "control"] {
            assert!(matches!(refused(name), NameError::Reserved(_)), "{name}");
        }
        assert!(matches!(refused("a/b"), NameError::Slash(_)));
        assert!(matches!(refused("a\\x20 b"), NameError::Mixed(_)));
        for name in ["vm1@era", "vm1@log", "x@gate", "x@outlet", "x@ram0"] {
            assert!(matches!(refused(name), NameError::Hidden(_)), "{name}");
        }
    }

    #[test]
    fn hidden_devices_have_names_of_their_own() {
        let long = ["a".repeat(127), format!("{}b", "a".repeat(126)), "a".repeat(122)];
        let mut names = Vec::new();
        for text in long.iter().map(String::as_str).chain(["vm1", "vm1-era", "vm"]) {
            let name: StackName = text.parse().unwrap();
            for part in Part::ALL {
                let device = name.of(part);
                assert!(device.len() <= MAX_NAME);
                assert_eq!(device.parse::<StackName>().is_ok(), part == Part::Top, "{device}");
                names.push(device);
            }
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_part_is_known_by_its_uuid() {
        let id = VolumeId::new(&"x".repeat(32));
        for part in Part::ALL {
            assert_eq!(VolumeId::part(&id.of(part)), Some(part));
        }
        assert_eq!(VolumeId::part("LVM-x"), None);
        assert_eq!(VolumeId::part(&format!("{}-other", id.top())), None);
    }

    /// The rules of LVM (`lib/activate/dev_manager.c`) and libblkid (`lib/sysfs.c`).
    #[test]
    fn lvm_and_libblkid_pass_over_every_device() {
        let id = VolumeId::random().unwrap();
        let of_a_logical_volume = |uuid: &str| uuid.starts_with("LVM-") && uuid.len() == "LVM-".len() + 64;
        assert!(of_a_logical_volume(&id.top()));
        assert!(!id.top()[4..].contains('-'), "libblkid takes it for a private device");
        for part in Part::HIDDEN {
            let uuid = id.of(part);
            let private = uuid.starts_with("LVM-") && uuid.len() > "LVM-".len() + 1 + 64;
            assert!(private && uuid[4..].contains('-') && !uuid.ends_with('-'), "{uuid}");
        }
    }

    #[test]
    fn a_stack_of_an_older_ftdm_keeps_its_uuids() {
        let lv = "Lq".repeat(16);
        let id = VolumeId::from_top_uuid(&format!("FTDM-{lv}")).unwrap();
        assert_eq!(id.to_string(), lv);
        assert_eq!((id.top(), id.era()), (format!("FTDM-{lv}"), format!("FTDM-{lv}-era")));
        assert_eq!(VolumeId::part(&id.of(Part::Gate)), Some(Part::Gate));
        assert_eq!(id.bytes(), VolumeId::new(&lv).bytes());
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
        assert_eq!(VolumeId::from_lvm(&id.top()), None, "a visible device is no logical volume");
        assert_ne!(id.bytes(), VolumeId::random().unwrap().bytes());
    }
}
