//! dm-era's superblock: is this device blank, dm-era's, or somebody else's?
//!
//! Always holds: parsing changes nothing and trusts no field before the checksum.
//!
//! ```text
//! offset  field                      (little endian, block 0, 4096 bytes)
//!      0  checksum u32               crc32c of bytes 4..4096, all bits set at start and not inverted
//!      4  flags u32                  at the end, xor 146538381
//!      8  block number u64           0
//!     16  uuid [u8; 16]
//!     32  magic u64                  2126579579
//!     40  version u32                1
//!     44  space map root [u8; 128]
//!    172  data block size u32        sectors
//!    176  metadata block size u32    sectors
//!    180  blocks u32                 0 until the first activation
//!    184  current era u32
//!    188  writeset bits u32, root u64
//!    200  writeset tree root u64
//!    208  era array root u64
//!    216  metadata snapshot u64      0: none
//! ```
//! In its place stands, once a volume had to go on without dm-era, a block that no kernel takes for metadata:
//!
//! ```text
//!      0  text, zero-padded          for whoever looks at it: "ftdm: tracking lost..."
//!     64  magic u64                  ASCII "FTDMLOST"
//!     72  version u32                1
//! ```
//! Source: `dm-era-target.c` and `persistent-data/dm-block-manager.c` of the kernel.

use super::bytes::{checksum, u32_at, u64_at};
use crate::units::Era;

/// Bytes of the superblock.
pub const SUPERBLOCK: usize = 4096;
const MAGIC: u64 = 2_126_579_579;
const CHECKSUM_XOR: u32 = 146_538_381;
const VERSION: u32 = 1;
const METADATA_BLOCK_SECTORS: u32 = 8;
const LOST_TEXT: &[u8] = b"ftdm: tracking lost, the volume went on without dm-era";
const LOST_MAGIC: u64 = u64::from_le_bytes(*b"FTDMLOST");
const LOST_VERSION: u32 = 1;

/// What block 0 of a device holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing but zeroes: the kernel would format it.
    Blank,
    /// Metadata of dm-era.
    Era(Superblock),
}

/// The fields of the superblock that ftdm looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Tracking granule in sectors.
    pub data_block: u32,
    /// Blocks of the volume; 0 when formatted but never activated.
    pub blocks: u32,
    /// The era at the last commit.
    pub current_era: Era,
    /// Root of the tree of writesets that are not digested yet.
    pub writeset_tree_root: u64,
    /// Root of the array that has the era of each block's last digested write.
    pub era_array_root: u64,
    /// Where a metadata snapshot is held, if one is.
    pub snapshot: Option<u64>,
}

/// Why block 0 is neither blank nor usable metadata.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    /// Fewer bytes than a superblock has.
    #[error("{0} bytes are too few for a superblock of {SUPERBLOCK}")]
    Short(usize),
    /// Something else's content.
    #[error("block 0 is neither blank nor dm-era metadata: magic {found:#x} instead of {MAGIC:#x}")]
    Magic {
        /// What stands where the magic should.
        found: u64,
    },
    /// Damaged.
    #[error("the superblock's checksum is {found:#010x}, its content gives {computed:#010x}: it is damaged")]
    Checksum {
        /// As stored.
        found: u32,
        /// As computed.
        computed: u32,
    },
    /// From a kernel that writes another format.
    #[error("the metadata has version {0}: only version {VERSION} is known")]
    Version(u32),
    /// A field contradicts the format.
    #[error("the superblock's {field} is {found}: expected {expected}")]
    Field {
        /// Which one.
        field: &'static str,
        /// Its value.
        found: u64,
        /// The only legal value.
        expected: u64,
    },
}

/// Judges block 0 of a metadata device.
///
/// # Errors
/// See [`SuperblockError`].
pub fn parse(block: &[u8]) -> Result<Content, SuperblockError> {
    parse_clone(block, 0)
}

/// Judges block `number`, where a metadata snapshot has its copy of the superblock.
///
/// # Errors
/// See [`SuperblockError`].
pub fn parse_clone(block: &[u8], number: u64) -> Result<Content, SuperblockError> {
    let block = block.get(..SUPERBLOCK).ok_or(SuperblockError::Short(block.len()))?;
    if block.iter().all(|b| *b == 0) {
        return Ok(Content::Blank);
    }
    let magic = u64_at(block, 32);
    if magic != MAGIC {
        return Err(SuperblockError::Magic { found: magic });
    }
    let (found, computed) = (u32_at(block, 0), checksum(&block[4..], CHECKSUM_XOR));
    if found != computed {
        return Err(SuperblockError::Checksum { found, computed });
    }
    let version = u32_at(block, 40);
    if version != VERSION {
        return Err(SuperblockError::Version(version));
    }
    let expect = |field, found: u64, expected: u64| {
        if found == expected { Ok(()) } else { Err(SuperblockError::Field { field, found, expected }) }
    };
    expect("block number", u64_at(block, 8), number)?;
    expect("metadata block size", u32_at(block, 176).into(), METADATA_BLOCK_SECTORS.into())?;
    let snapshot = u64_at(block, 216);
    Ok(Content::Era(Superblock {
        data_block: u32_at(block, 172),
        blocks: u32_at(block, 180),
        current_era: Era(u32_at(block, 184)),
        writeset_tree_root: u64_at(block, 200),
        era_array_root: u64_at(block, 208),
        snapshot: (snapshot != 0).then_some(snapshot),
    }))
}

/// The block that stands for metadata that was given up.
#[must_use]
pub fn lost_marker() -> [u8; SUPERBLOCK] {
    let mut block = [0; SUPERBLOCK];
    block[..LOST_TEXT.len()].copy_from_slice(LOST_TEXT);
    block[64..72].copy_from_slice(&LOST_MAGIC.to_le_bytes());
    block[72..76].copy_from_slice(&LOST_VERSION.to_le_bytes());
    block
}

/// Whether block 0 says that tracking was lost. There is no checksum: where it may say so, it is believed, in
/// any version.
#[must_use]
pub fn says_lost(block: &[u8]) -> bool {
    block.len() >= SUPERBLOCK && u64_at(block, 64) == LOST_MAGIC
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn superblock() -> Vec<u8> {
        let mut block = vec![0u8; SUPERBLOCK];
        block[32..40].copy_from_slice(&MAGIC.to_le_bytes());
        block[40..44].copy_from_slice(&1u32.to_le_bytes());
        block[172..176].copy_from_slice(&128u32.to_le_bytes());
        block[176..180].copy_from_slice(&8u32.to_le_bytes());
        block[180..184].copy_from_slice(&16_384u32.to_le_bytes());
        block[184..188].copy_from_slice(&7u32.to_le_bytes());
        seal(&mut block);
        block
    }

    fn seal(block: &mut [u8]) {
        let sum = checksum(&block[4..], CHECKSUM_XOR);
        block[..4].copy_from_slice(&sum.to_le_bytes());
    }

    #[test]
    fn a_superblock_is_read() {
        let expected = Superblock {
            data_block: 128,
            blocks: 16_384,
            current_era: Era(7),
            writeset_tree_root: 0,
            era_array_root: 0,
            snapshot: None,
        };
        assert_eq!(parse(&superblock()), Ok(Content::Era(expected)));
        assert_eq!(parse(&[0; SUPERBLOCK]), Ok(Content::Blank));
        assert_eq!(parse(&[0; 100]), Err(SuperblockError::Short(100)));
        let moved = Err(SuperblockError::Field { field: "block number", found: 0, expected: 5 });
        assert_eq!(parse_clone(&superblock(), 5), moved);
    }

    #[test]
    fn metadata_that_was_given_up_is_neither_blank_nor_metadata() {
        let marker = lost_marker();
        assert!(says_lost(&marker));
        assert!(matches!(parse(&marker), Err(SuperblockError::Magic { .. })));
        assert!(!says_lost(&superblock()) && !says_lost(&[0; SUPERBLOCK]) && !says_lost(&marker[..80]));
    }

    #[test]
    fn each_contradiction_has_its_error() {
        let with = |at: usize, value: u8, sealed: bool| {
            let mut block = superblock();
            block[at] = value;
            if sealed {
                seal(&mut block);
            }
            parse(&block)
        };
        assert!(matches!(with(32, 0, true), Err(SuperblockError::Magic { .. })));
        assert!(matches!(with(184, 8, false), Err(SuperblockError::Checksum { .. })));
        assert_eq!(with(40, 2, true), Err(SuperblockError::Version(2)));
        assert!(matches!(with(8, 1, true), Err(SuperblockError::Field { field: "block number", .. })));
        assert!(matches!(with(176, 16, true), Err(SuperblockError::Field { .. })));
    }

    proptest! {
        #[test]
        fn any_single_changed_byte_is_noticed(at in 0..SUPERBLOCK, flip in 1u8..) {
            let mut block = superblock();
            block[at] ^= flip;
            prop_assert!(parse(&block).is_err());
        }
    }
}
