//! What can be wrong with metadata, and where.
//!
//! Always holds: every error of content names the structure and the block it was found in.

use std::fmt;
use std::io;

use super::superblock::SuperblockError;
use crate::units::Era;

/// A part of the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// The copy of the superblock that a metadata snapshot is.
    Clone,
    /// The tree that leads from eras to writesets.
    WritesetTree,
    /// The index of one writeset's bits.
    Bitset(Era),
    /// The index of the era array.
    EraArray,
}

impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clone => f.write_str("the metadata snapshot"),
            Self::WritesetTree => f.write_str("the writeset tree"),
            Self::Bitset(era) => write!(f, "the writeset of era {era}"),
            Self::EraArray => f.write_str("the era array"),
        }
    }
}

/// Why a block is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The device failed.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A reference that leads beyond the device, or to its superblock.
    #[error("is referred to, and is not one of the blocks 1 to {last}", last = .blocks.saturating_sub(1))]
    Outside {
        /// Blocks of the device.
        blocks: u64,
    },
    /// A block that was reached before: a cycle, or two owners.
    #[error("is reached twice: its owners form a cycle or share it")]
    Twice,
    /// More levels than the kernel makes.
    #[error("lies deeper than {0} levels")]
    Deep(u32),
    /// Damaged.
    #[error("has the checksum {found:#010x}, its content gives {computed:#010x}")]
    Checksum {
        /// As stored.
        found: u32,
        /// As computed.
        computed: u32,
    },
    /// Written for another place.
    #[error("says that it is block {0}")]
    Number(u64),
    /// A field contradicts the format, or what leads here.
    #[error("has {field} {found}: expected {expected}")]
    Field {
        /// Which one.
        field: &'static str,
        /// Its value.
        found: u64,
        /// The legal value, or the highest one.
        expected: u64,
    },
    /// Neither a leaf nor an internal node.
    #[error("has the flags {0:#x}: expected 1 (internal) or 2 (leaf)")]
    Flags(u32),
    /// A node without entries that is not a root.
    #[error("is empty, and is not the root")]
    Empty,
    /// Keys that do not rise, or that lie outside what their parent says.
    #[error("has the key {found} where keys from {from} to below {below} belong")]
    Key {
        /// The key.
        found: u64,
        /// Lowest that may stand there.
        from: u64,
        /// First that may not.
        below: u64,
    },
    /// An array that ends early.
    #[error("leads to {found} blocks of the array: expected {expected}")]
    Short {
        /// As found.
        found: u64,
        /// By the array's length.
        expected: u64,
    },
    /// The copy of the superblock is none.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// No superblock at all.
    #[error("is blank")]
    Blank,
}

/// Metadata that cannot be relied on.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// One block.
    #[error("{structure}: block {block} {fault}")]
    Block {
        /// What was being read.
        structure: Structure,
        /// Block of the metadata device.
        block: u64,
        /// What is wrong with it.
        fault: Fault,
    },
    /// The metadata is of another volume than the caller's.
    #[error("the metadata tracks {found} {what}, the volume has {expected}")]
    Shape {
        /// Which figure.
        what: &'static str,
        /// In the metadata.
        found: u64,
        /// Of the volume.
        expected: u64,
    },
    /// Eras between which none may be missing.
    #[error("writesets are missing between era {before} and era {after}: the history has a gap")]
    Gap {
        /// The last one before.
        before: Era,
        /// The first one after; that in which the snapshot was taken, when none is after.
        after: Era,
    },
    /// An era that has not begun.
    #[error("{structure} names era {found}, the snapshot was taken in era {current}")]
    FutureEra {
        /// Where.
        structure: Structure,
        /// The era named.
        found: Era,
        /// That of the snapshot.
        current: Era,
    },
}

impl MetadataError {
    /// The device failed; the metadata itself may be all right.
    #[must_use]
    pub fn is_io(&self) -> bool {
        matches!(self, Self::Block { fault: Fault::Read(_), .. })
    }
}
