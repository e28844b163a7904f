//! What both hosts must agree on before a byte is shipped: the group's volumes and their shape.
//!
//! Always holds: a [`GroupDescription`] has 1 to 16 volumes with distinct identities, each of a whole
//! number of logical blocks, so every later bounds check can rely on it.

use std::fmt;

use ftdm_units::{Extent, Sectors};

use crate::ids::{GroupName, VolumeIndex, VolumeUuid};
use crate::tlv::{TlvError, Value};

/// Most volumes in a group.
pub const MAX_VOLUMES: usize = 16;

/// Largest volume: 2^63 bytes, the most that a file offset reaches.
pub const MAX_SECTORS: u64 = 1 << 54;

/// One replicated volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeDescription {
    /// Identity of the replicated volume, the same on both hosts.
    pub uuid: VolumeUuid,
    /// Its size.
    pub size: Sectors,
    /// Smallest unit it reads and writes, in bytes: a power of two from 512 to 65536.
    pub logical_block_size: u32,
}

impl VolumeDescription {
    /// The logical block in sectors.
    #[must_use]
    pub fn block(&self) -> Sectors {
        Sectors(u64::from(self.logical_block_size / 512))
    }

    /// Whether `extent` lies on the volume and is made of whole logical blocks.
    #[must_use]
    pub fn holds(&self, extent: Extent) -> bool {
        let block = self.block().0;
        extent.fits(self.size)
            && extent.start().0.is_multiple_of(block)
            && extent.len().0.is_multiple_of(block)
    }

    /// Whether a device of this host can hold the volume: THE RULE for shapes, at the greeting, at each start and
    /// after a failover. A larger device serves, its end is not used. The logical blocks are the same, or a VM that
    /// is moved to the other host would write what this one cannot.
    ///
    /// # Errors
    /// What is wrong with the device.
    pub fn fits(&self, device: LocalVolume) -> Result<(), Unfit> {
        let LocalVolume { size, logical_block_size } = device;
        if size < self.size {
            return Err(Unfit::Small { needed: self.size, found: size });
        }
        if logical_block_size != self.logical_block_size {
            return Err(Unfit::Blocks { needed: self.logical_block_size, found: logical_block_size });
        }
        Ok(())
    }

    fn sound(&self) -> bool {
        self.logical_block_size.is_power_of_two()
            && (512..=65536).contains(&self.logical_block_size)
            && (1..=MAX_SECTORS).contains(&self.size.0)
            && self.size.0.is_multiple_of(self.block().0)
    }
}

/// A volume as a host's own device gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalVolume {
    /// Size of the device.
    pub size: Sectors,
    /// Its logical block size, in bytes.
    pub logical_block_size: u32,
}

/// Why a device cannot hold a volume of the group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is too small.
    #[error(
        "it has {found}, the group's volume has {needed}: enlarge it (`lvextend`) to {} bytes or more",
        needed.bytes().unwrap_or(u64::MAX)
    )]
    Small {
        /// The group's.
        needed: Sectors,
        /// The device's.
        found: Sectors,
    },
    /// Its logical blocks are of another size.
    #[error(
        "it has logical blocks of {found} bytes, the group's volume has {needed}: both hosts need the same, so put one \
         of the volumes on other disks"
    )]
    Blocks {
        /// The group's, in bytes.
        needed: u32,
        /// The device's, in bytes.
        found: u32,
    },
}

/// A description that no group can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// No volume, or too many.
    #[error("a group has 1 to {MAX_VOLUMES} volumes, not {0}")]
    Count(usize),
    /// A size or logical block size that no block device has.
    #[error(
        "{0} has a size of {1} with logical blocks of {2} bytes: it must be whole logical blocks of 512 to 65536 bytes"
    )]
    Shape(VolumeIndex, Sectors, u32),
    /// The same volume twice.
    #[error("{0} and {1} are the same volume {2}")]
    Twice(VolumeIndex, VolumeIndex, VolumeUuid),
}

/// The volumes of one VM that are cut and committed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    name: GroupName,
    volumes: Vec<VolumeDescription>,
}

impl GroupDescription {
    /// Checks and keeps the description. The order of `volumes` gives the [`VolumeIndex`]es.
    pub fn new(name: GroupName, volumes: Vec<VolumeDescription>) -> Result<Self, GroupError> {
        if !(1..=MAX_VOLUMES).contains(&volumes.len()) {
            return Err(GroupError::Count(volumes.len()));
        }
        for (i, volume) in indexed(&volumes) {
            if !volume.sound() {
                return Err(GroupError::Shape(i, volume.size, volume.logical_block_size));
            }
            if let Some((j, _)) = indexed(&volumes).find(|(j, other)| *j < i && other.uuid == volume.uuid) {
                return Err(GroupError::Twice(j, i, volume.uuid));
            }
        }
        Ok(Self { name, volumes })
    }

    /// The group's name.
    #[must_use]
    pub fn name(&self) -> &GroupName {
        &self.name
    }

    /// The volumes, in the order of their indexes.
    #[must_use]
    pub fn volumes(&self) -> &[VolumeDescription] {
        &self.volumes
    }

    /// One volume. `None` when the index is beyond the last.
    #[must_use]
    pub fn volume(&self, index: VolumeIndex) -> Option<&VolumeDescription> {
        self.volumes.get(usize::from(index.0))
    }

    /// The volumes with their indexes.
    pub fn indexed(&self) -> impl Iterator<Item = (VolumeIndex, &VolumeDescription)> {
        indexed(&self.volumes)
    }

    /// Size of each volume.
    #[must_use]
    pub fn sizes(&self) -> Vec<Sectors> {
        self.volumes.iter().map(|volume| volume.size).collect()
    }

    /// The same volumes with these sizes, each of whole logical blocks: what is over is left out.
    ///
    /// # Errors
    /// Where one is of no possible size, or there are fewer sizes than volumes.
    pub fn with_sizes(&self, sizes: &[Sectors]) -> Result<Self, GroupError> {
        let resize = |(volume, size): (&VolumeDescription, &Sectors)| VolumeDescription {
            size: Sectors(size.0 - size.0 % volume.block().0),
            ..*volume
        };
        if sizes.len() != self.volumes.len() {
            return Err(GroupError::Count(sizes.len()));
        }
        Self::new(self.name.clone(), self.volumes.iter().zip(sizes).map(resize).collect())
    }

    /// The first volume that is smaller than this, in the group's order.
    #[must_use]
    pub fn smaller_than(&self, sizes: &[Sectors]) -> Option<(VolumeIndex, Sectors, Sectors)> {
        let pairs = self.indexed().zip(sizes);
        pairs.map(|((index, volume), size)| (index, volume.size, *size)).find(|(_, mine, other)| mine < other)
    }

    /// The first thing in which the peer's description differs, but for sizes, which change. `None` when they agree.
    #[must_use]
    pub fn mismatch(&self, peer: &Self) -> Option<Mismatch> {
        if self.name != peer.name {
            return Some(Mismatch::Name { ours: self.name.clone(), theirs: peer.name.clone() });
        }
        if self.volumes.len() != peer.volumes.len() {
            return Some(Mismatch::Count { ours: self.volumes.len(), theirs: peer.volumes.len() });
        }
        self.indexed().zip(&peer.volumes).find_map(|((volume, ours), theirs)| {
            if ours.uuid != theirs.uuid {
                Some(Mismatch::Uuid { volume, ours: ours.uuid, theirs: theirs.uuid })
            } else if ours.logical_block_size != theirs.logical_block_size {
                let (ours, theirs) = (ours.logical_block_size, theirs.logical_block_size);
                Some(Mismatch::LogicalBlockSize { volume, ours, theirs })
            } else {
                None
            }
        })
    }

    /// Appends the encoding: name length u8, name, volume count u16, then 28 bytes for each volume
    /// {identity 16 bytes, size in sectors u64, logical block size in bytes u32}.
    pub(crate) fn encode_into(&self, out: &mut Vec<u8>) {
        let name = self.name.as_str().as_bytes();
        out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(name);
        out.extend_from_slice(&u16::try_from(self.volumes.len()).unwrap_or(u16::MAX).to_le_bytes());
        for volume in &self.volumes {
            out.extend_from_slice(&volume.uuid.0);
            out.extend_from_slice(&volume.size.0.to_le_bytes());
            out.extend_from_slice(&volume.logical_block_size.to_le_bytes());
        }
    }

    /// Reads what [`Self::encode_into`] wrote; the value must end with it.
    pub(crate) fn decode(mut value: Value<'_>) -> Result<Self, TlvError> {
        let name_len = usize::from(value.u8()?);
        let name = std::str::from_utf8(value.take(name_len)?).map_err(|e| value.invalid(e))?;
        let name = name.parse().map_err(|e| value.invalid(e))?;
        let count = usize::from(value.u16()?);
        if !(1..=MAX_VOLUMES).contains(&count) {
            return Err(value.invalid(GroupError::Count(count)));
        }
        let mut volumes = Vec::with_capacity(count);
        for _ in 0..count {
            let uuid = VolumeUuid(value.array()?);
            let size = Sectors(value.u64()?);
            volumes.push(VolumeDescription { uuid, size, logical_block_size: value.u32()? });
        }
        let group = Self::new(name, volumes).map_err(|e| value.invalid(e))?;
        value.end()?;
        Ok(group)
    }
}

impl fmt::Display for GroupDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {} of {} volumes", self.name, self.volumes.len())
    }
}

fn indexed(volumes: &[VolumeDescription]) -> impl Iterator<Item = (VolumeIndex, &VolumeDescription)> {
    (0..).map(VolumeIndex).zip(volumes)
}

/// In what two hosts' descriptions of a group differ.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Another group's name.
    #[error(
        "this host has group {ours}, the peer has group {theirs}: point them at each other's counterpart"
    )]
    Name {
        /// This host's.
        ours: GroupName,
        /// The peer's.
        theirs: GroupName,
    },
    /// Another number of volumes.
    #[error(
        "this host has {ours} volumes, the peer has {theirs}: list the same volumes in the same order on both"
    )]
    Count {
        /// This host's.
        ours: usize,
        /// The peer's.
        theirs: usize,
    },
    /// Another volume.
    #[error(
        "{volume} is {ours} here and {theirs} at the peer: the order of the volumes differs, or this replica belongs to another volume: list the same volumes in the same order on both"
    )]
    Uuid {
        /// Which volume.
        volume: VolumeIndex,
        /// This host's.
        ours: VolumeUuid,
        /// The peer's.
        theirs: VolumeUuid,
    },
    /// Another logical block size.
    #[error(
        "{volume} has logical blocks of {ours} bytes here and {theirs} at the peer: use devices with the same one"
    )]
    LogicalBlockSize {
        /// Which volume.
        volume: VolumeIndex,
        /// This host's, in bytes.
        ours: u32,
        /// The peer's, in bytes.
        theirs: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use ftdm_units::Sector;

    fn volume(id: u8, size: u64, logical_block_size: u32) -> VolumeDescription {
        VolumeDescription { uuid: VolumeUuid([id; 16]), size: Sectors(size), logical_block_size }
    }

    fn group(name: &str, volumes: &[VolumeDescription]) -> GroupDescription {
        GroupDescription::new(name.parse().unwrap(), volumes.to_vec()).unwrap()
    }

    #[test]
    fn descriptions_that_no_device_has_are_refused() {
        let name: GroupName = "g".parse().unwrap();
        let refuse =
            |volumes: Vec<VolumeDescription>| GroupDescription::new(name.clone(), volumes).unwrap_err();
        assert_eq!(refuse(vec![]), GroupError::Count(0));
        let many: Vec<_> = (0..17).map(|id| volume(id, 8, 512)).collect();
        assert_eq!(refuse(many.clone()), GroupError::Count(17));
        assert!(GroupDescription::new(name.clone(), many[..16].to_vec()).is_ok());
        for bad in [(0, 512), (8, 0), (8, 256), (8, 1000), (9, 4096), (8, 1 << 17), (MAX_SECTORS + 1, 512)] {
            assert!(matches!(refuse(vec![volume(1, bad.0, bad.1)]), GroupError::Shape(..)), "{bad:?}");
        }
        let twice = refuse(vec![volume(1, 8, 512), volume(2, 8, 512), volume(1, 16, 512)]);
        assert_eq!(twice, GroupError::Twice(VolumeIndex(0), VolumeIndex(2), VolumeUuid([1; 16])));
    }

    #[test]
    fn each_difference_is_named() {
        let ours = group("g", &[volume(1, 64, 512), volume(2, 64, 4096)]);
        assert_eq!(ours.mismatch(&ours.clone()), None);
        let second = |changed| ours.mismatch(&group("g", &[volume(1, 64, 512), changed]));
        assert!(matches!(ours.mismatch(&group("h", ours.volumes())), Some(Mismatch::Name { .. })));
        let one = group("g", &ours.volumes()[..1]);
        assert_eq!(ours.mismatch(&one), Some(Mismatch::Count { ours: 2, theirs: 1 }));
        assert!(matches!(second(volume(3, 64, 4096)), Some(Mismatch::Uuid { volume: VolumeIndex(1), .. })));
        assert_eq!(second(volume(2, 72, 4096)), None, "sizes change");
        let block = second(volume(2, 64, 512)).unwrap();
        assert_eq!(block, Mismatch::LogicalBlockSize { volume: VolumeIndex(1), ours: 4096, theirs: 512 });
    }

    #[test]
    fn sizes_are_whole_blocks() {
        let ours = group("g", &[volume(1, 64, 512), volume(2, 64, 4096)]);
        let larger = ours.with_sizes(&[Sectors(65), Sectors(87)]).unwrap();
        assert_eq!(larger.sizes(), [Sectors(65), Sectors(80)]);
        assert_eq!(larger.smaller_than(&[Sectors(65), Sectors(80)]), None);
        let second = Some((VolumeIndex(1), Sectors(64), Sectors(80)));
        assert_eq!(ours.smaller_than(&[Sectors(64), Sectors(80)]), second);
        assert_eq!(ours.with_sizes(&[Sectors(64)]), Err(GroupError::Count(1)));
        assert!(matches!(ours.with_sizes(&[Sectors(64), Sectors(7)]), Err(GroupError::Shape(..))));
    }

    #[test]
    fn a_larger_device_serves_and_other_blocks_do_not() {
        let fits = |size, logical_block_size| {
            volume(1, 64, 512).fits(LocalVolume { size: Sectors(size), logical_block_size })
        };
        assert_eq!((fits(64, 512), fits(80, 512)), (Ok(()), Ok(())));
        assert_eq!(fits(63, 512), Err(Unfit::Small { needed: Sectors(64), found: Sectors(63) }));
        assert_eq!(fits(64, 4096), Err(Unfit::Blocks { needed: 512, found: 4096 }));
        let large = volume(1, 64, 4096).fits(LocalVolume { size: Sectors(64), logical_block_size: 512 });
        assert_eq!(large, Err(Unfit::Blocks { needed: 4096, found: 512 }));
    }

    #[test]
    fn a_volume_holds_whole_logical_blocks_only() {
        let volume = volume(1, 64, 4096);
        let holds = |start, len| volume.holds(Extent::new(Sector(start), Sectors(len)).unwrap());
        assert!(holds(0, 64) && holds(56, 8));
        assert!(!holds(56, 16) && !holds(4, 8) && !holds(8, 4) && !holds(64, 8));
    }
}
