//! Bits on disk: an array of u64, bit `n` being bit `n % 64` of word `n / 64`.
//!
//! Source: `persistent-data/dm-bitset.c` of the kernel.

use super::array::{self, Array};
use super::block::Metadata;
use super::block_set::BlockSet;
use super::bytes::u64_at;
use super::error::{MetadataError, Structure};
use crate::log_writes::BlockRead;

/// Adds the bits of a bitset to `set`; those beyond the set's blocks are ignored.
pub(crate) fn collect<R: BlockRead>(
    metadata: &mut Metadata<'_, R>,
    structure: Structure,
    root: u64,
    bits: u32,
    set: &mut BlockSet,
) -> Result<(), MetadataError> {
    let array = Array { structure, root, value_size: 8, len: u64::from(bits).div_ceil(64) };
    array::walk(metadata, array, &mut |first, values| {
        for (index, word) in (first..).zip(values.chunks_exact(8)) {
            // Bits of the last word beyond the end of the bitset mean nothing.
            let used = u64::from(bits) - index * 64;
            let mask = if used < 64 { (1 << used) - 1 } else { u64::MAX };
            set.insert_word(index, u64_at(word, 0) & mask);
        }
        Ok(())
    })
}
