//! How much room dm-era's metadata needs.
//!
//! Always holds: metadata of at least [`MetadataSize::minimum`] blocks survives one undigested era;
//! too small a device makes the kernel fail writes of the volume, and it cannot grow.
//! Source of the figures: a 4 KiB metadata block holds 1018 entries of the era array or 509 * 64
//! bits of a writeset; copy-on-write keeps two versions while a transaction or a snapshot lasts.

use crate::table::BlockSectors;
use crate::units::Sectors;

/// Bytes of one metadata block.
pub const METADATA_BLOCK: u64 = 4096;
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
/// Undigested eras that a recommended device has room for.
const ROOMY_ERAS: u64 = 16;

/// Room for the metadata of one volume, in 4 KiB metadata blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetadataSize {
    /// Below this `create` refuses.
    pub minimum: u64,
    /// With room for the snapshot of a whole resync and for eras not digested yet.
    pub recommended: u64,
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
            minimum: with_nodes(array + 2 * 2 * writeset),
            recommended: with_nodes(2 * array + 2 * ROOMY_ERAS * writeset),
        }
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

    fn size(volume_gib: u64, block: u32) -> MetadataSize {
        MetadataSize::of(Sectors(volume_gib << 21), BlockSectors::new(block).unwrap())
    }

    #[test]
    fn sizes_fit_what_the_kernel_was_seen_to_use() {
        // 1 TiB in 4 KiB blocks took 1.1 GiB.
        let fine = size(1024, 8);
        assert!((1 << 30) / METADATA_BLOCK < fine.minimum && fine.minimum < 1200 * 256, "{fine:?}");
        assert!(fine.recommended > 2 * 263_000);
        // 64 KiB blocks need a sixteenth.
        assert!(size(1024, 128).minimum < fine.minimum / 15);
        assert_eq!(size(1, 128).recommended_sectors(), Sectors(8192));
    }
}
