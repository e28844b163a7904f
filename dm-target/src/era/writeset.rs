//! The writeset tree: for each era that was archived and not yet digested into the era array, which
//! blocks were written in it.
//!
//! Always holds: eras follow each other without a gap up to the one before the snapshot's. The
//! kernel archives every era and digests the lowest first, so anything else is a lost history.
//!
//! ```text
//! value: bits u32, root of the bitset u64
//! ```

use super::bitset;
use super::block::Metadata;
use super::block_set::BlockSet;
use super::btree::{self, Tree};
use super::bytes::{u32_at, u64_at};
use super::error::{MetadataError, Structure};
use crate::log_writes::BlockRead;
use crate::units::Era;

const VALUE_SIZE: usize = 12;

/// What was found in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Archived {
    /// The lowest era that still has a writeset.
    pub(crate) lowest: Era,
    /// How many writesets were read.
    pub(crate) read: u32,
}

/// Adds every writeset of era `since` and above to `set`. `current` is the era that the snapshot was
/// taken in, which is archived only later.
pub(crate) fn collect<R: BlockRead>(
    metadata: &mut Metadata<'_, R>,
    root: u64,
    since: Era,
    current: Era,
    set: &mut BlockSet,
) -> Result<Archived, MetadataError> {
    let structure = Structure::WritesetTree;
    let tree = Tree { structure, root, value_size: VALUE_SIZE, below: u64::from(u32::MAX) + 1 };
    let (mut last, mut found) = (None::<Era>, Archived { lowest: current, read: 0 });
    btree::walk(metadata, tree, &mut |metadata, key, value| {
        let era = Era(u32::try_from(key).unwrap_or(u32::MAX));
        if era >= current {
            return Err(MetadataError::FutureEra { structure, found: era, current });
        }
        match last {
            None => found.lowest = era,
            Some(before) if before.0 + 1 != era.0 => {
                return Err(MetadataError::Gap { before, after: era });
            }
            Some(_) => {}
        }
        last = Some(era);
        if era >= since {
            found.read += 1;
            bitset::collect(metadata, Structure::Bitset(era), u64_at(value, 4), u32_at(value, 0), set)?;
        }
        Ok(())
    })?;
    // Taking the snapshot archived the era before it.
    let before = last.unwrap_or(Era(0));
    if before.0.checked_add(1) != Some(current.0) {
        return Err(MetadataError::Gap { before, after: current });
    }
    Ok(found)
}
