//! dm-era's metadata, as far as ftdm reads it: pure parsers over [`BlockRead`], nothing is written.
//!
//! Always holds: no byte of a block is believed before its checksum and its own number were
//! verified; no block is reached twice, so that a walk ends after at most as many reads as the
//! device has blocks; sizes are checked before memory is taken. Malformed metadata is an
//! [`error::MetadataError`] that names the block.
//!
//! ```text
//! superblock ──► clone (metadata snapshot) ──┬─► writeset tree: era ► {bits, root} ──► bitset: array of u64
//!                                            └─► era array: array of u32, one for each block
//! an array is a btree: index ► array block       a tree of writesets is a btree too
//! ```
//!
//! [`BlockRead`]: crate::log_writes::BlockRead

mod array;
mod bitset;
mod block;
pub mod block_set;
mod btree;
mod bytes;
pub mod delta;
pub mod error;
pub mod size;
pub mod status;
pub mod superblock;
mod writeset;
