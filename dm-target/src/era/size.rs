//! How much room dm-era's metadata needs.
//!
//! Always holds: metadata of at least [`MetadataSize::minimum`] blocks has room for one roll under a
//! snapshot; too small a device makes the kernel fail writes of the volume, and it cannot grow.
//! Source of the figures: a 4 KiB metadata block holds 1018 entries of the era array or 509 * 64
//! bits of a writeset; copy-on-write keeps two versions while a transaction or a snapshot lasts.

use super::status::EraStatus;
use crate::table::BlockSectors;
use crate::units::Sectors;
/// Sectors of one metadata block.
pub const METADATA_BLOCK_SECTORS: u64 = 8;
/// The most that dm's metadata space map addresses: 255 bitmaps of 16,320 blocks.
pub const MAX_METADATA_BLOCKS: u64 = 255 * 16_320;

/// Era array entries of one metadata block.
const ARRAY_ENTRIES: u64 = 1018;
/// Writeset bits of one metadata block.
const WRITESET_BITS: u64 = 509 * 64;
/// Superblock, space map and the upper nodes of the trees.
const FIXED: u64 = 64;
/// Blocks of the space map and of nodes that a commit copies beside what changed.
const SPINES: u64 = 16;
/// A volume can grow to so many times its size: the kernel does not use what is added to the metadata later.
const GROWTH: u64 = 4;
/// Undigested eras that a recommended device has room for.
const ROOMY_ERAS: u64 = 16;

/// Room for the metadata of one volume, in 4 KiB metadata blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetadataSize {
    /// Below this `create` refuses.
    pub minimum: u64,
    /// With room for the snapshot of a whole resync, for eras not digested yet, and for a volume that grows.
    pub recommended: u64,
    /// What one roll may take until it is digested: a new writeset and its copy, and a copy of the
    /// whole era array, because the kernel uses freed blocks again only after the next commit.
    pub roll: u64,
    /// What the commits of one era's writes may take at once: a copy of the writeset.
    pub writes: u64,
}

/// Percent of the metadata in use from which on it is worth a warning.
const WARN_PERCENT: u64 = 70;

/// How much room is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Enough.
    Enough,
    /// Enough for a roll, but more than 70 percent are in use.
    Low {
        /// Percent in use.
        percent: u64,
    },
    /// Not enough for a roll: the kernel would soon fail writes of the volume.
    Full {
        /// Free blocks.
        free: u64,
        /// Blocks that a roll may take.
        needed: u64,
    },
    /// Not even enough for what the present era still has to record.
    Exhausted {
        /// Free blocks.
        free: u64,
        /// Blocks that its next commit may take.
        needed: u64,
    },
}

impl MetadataSize {
    /// For a volume of `volume` sectors tracked in `block`.
    #[must_use]
    pub fn of(volume: Sectors, block: BlockSectors) -> Self {
        let blocks = block.count(volume);
        let array = blocks.div_ceil(ARRAY_ENTRIES);
        let writeset = blocks.div_ceil(WRITESET_BITS);
        // Index nodes hold at least 126 children each, so they add less than one percent.
        let with_nodes = |n: u64| n + n.div_ceil(100) + FIXED;
        Self {
            minimum: with_nodes(2 * array + 2 * 2 * writeset),
            recommended: with_nodes(GROWTH * (2 * array + 2 * ROOMY_ERAS * writeset))
                .min(MAX_METADATA_BLOCKS),
            roll: with_nodes(array + 2 * writeset) - FIXED / 2,
            writes: writeset + writeset.div_ceil(100) + SPINES,
        }
    }

    /// Whether metadata in this state has room for another era.
    #[must_use]
    pub fn room(self, status: &EraStatus) -> Room {
        let free = status.total.saturating_sub(status.used);
        let percent = status.used.saturating_mul(100) / status.total.max(1);
        if free < self.writes {
            Room::Exhausted { free, needed: self.writes }
        } else if free < self.roll {
            Room::Full { free, needed: self.roll }
        } else if percent >= WARN_PERCENT {
            Room::Low { percent }
        } else {
            Room::Enough
        }
    }

    /// Whether metadata in this state has room to track this volume, where it tracked `before` of it. It cannot grow
    /// itself: how much it takes was decided when it was made.
    #[must_use]
    pub fn has_room_beyond(self, before: Self, status: &EraStatus) -> bool {
        let free = status.total.saturating_sub(status.used);
        let more = self.minimum.saturating_sub(before.minimum);
        status.total >= self.minimum && free >= more.saturating_add(self.roll)
    }

    /// The recommended size as a volume manager would give it: rounded up to whole 4 MiB.
    #[must_use]
    pub fn recommended_sectors(self) -> Sectors {
        Sectors((self.recommended * METADATA_BLOCK_SECTORS).next_multiple_of(8192))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of one metadata block.
    const METADATA_BLOCK: u64 = 4096;

    fn size(volume_gib: u64, block: u32) -> MetadataSize {
        MetadataSize::of(Sectors(volume_gib << 21), BlockSectors::new(block).unwrap())
    }

    #[test]
    fn sizes_fit_what_the_kernel_was_seen_to_use() {
        // 1 TiB in 4 KiB blocks took 1.1 GiB; digesting may copy the era array once.
        let fine = size(1024, 8);
        assert!((2 << 30) / METADATA_BLOCK < fine.minimum && fine.minimum < 2400 * 256, "{fine:?}");
        assert!(fine.recommended > 2 * 263_000);
        // 64 KiB blocks need a sixteenth.
        assert!(size(1024, 128).minimum < fine.minimum / 15);
        assert_eq!(size(1, 128).recommended_sectors(), Sectors(8192));
    }

    #[test]
    fn a_volume_can_grow_as_far_as_its_metadata_was_made_for() {
        use crate::units::Era;
        let small = size(100, 128);
        let used = small.minimum - small.roll;
        let status = |total| EraStatus { used, total, current: Era(5), snapshot: None };
        assert!(size(400, 128).has_room_beyond(small, &status(small.recommended)));
        assert!(!size(800, 128).has_room_beyond(small, &status(small.recommended)));
        assert!(!size(200, 128).has_room_beyond(small, &status(small.minimum)));
        // Full of eras that are not digested yet.
        let full = EraStatus { used: small.recommended - 10, ..status(small.recommended) };
        assert!(!size(101, 128).has_room_beyond(small, &full));
        assert!(size(16 << 10, 8).recommended <= MAX_METADATA_BLOCKS);
    }

    #[test]
    fn a_roll_is_refused_before_the_kernel_fails_writes() {
        use crate::units::Era;
        let size = size(16, 8);
        let status = |used| EraStatus { used, total: 20_000, current: Era(5), snapshot: None };
        assert_eq!(size.room(&status(5000)), Room::Enough);
        assert_eq!(size.room(&status(14_000)), Room::Low { percent: 70 });
        assert!(matches!(size.room(&status(19_000)), Room::Full { free: 1000, .. }));
        assert!(matches!(size.room(&status(19_990)), Room::Exhausted { free: 10, .. }));
        // A fresh device of the least and of the recommended size takes one.
        for total in [size.minimum, size.recommended] {
            let used = size.minimum - size.roll;
            let fresh = EraStatus { used: used.min(size.minimum / 2), total, ..status(0) };
            assert!(!matches!(size.room(&fresh), Room::Full { .. } | Room::Exhausted { .. }), "{total}");
        }
    }
}
