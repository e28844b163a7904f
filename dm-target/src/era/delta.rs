//! What was written since an era, read from a metadata snapshot.
//!
//! Always holds: the result has every block that was written in era `since` or later and before
//! the snapshot; it may have more (a write that a power cut undid), never fewer.
//!
//! How the kernel gets there (`dm-era-target.c`): `take_metadata_snap` first archives the current era's
//! writeset into the writeset tree and begins the next era, commits, then copies the superblock; so the
//! copy names the era that began, and the tree's highest key is the era before. Old writesets are digested
//! in the background, lowest era first: each of its blocks gets that era in the era array, only then
//! the writeset leaves the tree. So the array matters only when the tree begins above `since`.

use super::array::{self, Array};
use super::block::Metadata;
use super::block_set::BlockSet;
use super::bytes::u32_at;
use super::error::{Fault, MetadataError, Structure};
use super::superblock::{self, Superblock};
use super::writeset;
use crate::log_writes::BlockRead;
use crate::table::BlockSectors;
use crate::units::{Era, Sectors};

/// A volume and its granule, which the metadata must match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Size of the volume.
    pub volume: Sectors,
    /// Its granule.
    pub block: BlockSectors,
}

/// What was written since an era.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The blocks.
    pub blocks: BlockSet,
    /// The era that began with the snapshot: ask for this one next time.
    pub next: Era,
    /// Writesets that were read.
    pub writesets: u32,
    /// The era array was read too.
    pub array: bool,
}

/// Reads what was written in era `since` and later, up to the snapshot whose clone of the superblock
/// is block `snapshot` of a metadata device of `blocks` blocks.
///
/// # Errors
/// See [`MetadataError`].
pub fn written_since(
    device: &impl BlockRead,
    blocks: u64,
    snapshot: u64,
    since: Era,
    shape: Shape,
) -> Result<Delta, MetadataError> {
    let mut metadata = Metadata::new(device, blocks);
    let clone = read_clone(&mut metadata, snapshot)?;
    let expect = |what, found: u32, expected: u64| match u64::from(found) {
        found if found == expected => Ok(()),
        found => Err(MetadataError::Shape { what, found, expected }),
    };
    expect("blocks", clone.blocks, shape.block.count(shape.volume))?;
    expect("sectors a block", clone.data_block, shape.block.get().into())?;
    let current = clone.current_era;
    if since >= current {
        return Err(MetadataError::FutureEra { structure: Structure::Clone, found: since, current });
    }
    let mut written = BlockSet::none(clone.blocks);
    let archived = writeset::collect(&mut metadata, clone.writeset_tree_root, since, current, &mut written)?;
    let array = archived.lowest > since;
    if array {
        collect_digested(&mut metadata, &clone, since, &mut written)?;
    }
    Ok(Delta { blocks: written, next: current, writesets: archived.read, array })
}

fn read_clone<R: BlockRead>(
    metadata: &mut Metadata<'_, R>,
    number: u64,
) -> Result<Superblock, MetadataError> {
    let structure = Structure::Clone;
    let at = |fault| MetadataError::Block { structure, block: number, fault };
    match superblock::parse_clone(metadata.raw(structure, number)?, number) {
        Ok(superblock::Content::Era(clone)) => Ok(clone),
        Ok(superblock::Content::Blank) => Err(at(Fault::Blank)),
        Err(e) => Err(at(e.into())),
    }
}

/// Adds the blocks whose last digested write was in era `since` or later.
fn collect_digested<R: BlockRead>(
    metadata: &mut Metadata<'_, R>,
    clone: &Superblock,
    since: Era,
    written: &mut BlockSet,
) -> Result<(), MetadataError> {
    let (structure, current) = (Structure::EraArray, clone.current_era);
    let array = Array { structure, root: clone.era_array_root, value_size: 4, len: clone.blocks.into() };
    array::walk(metadata, array, &mut |first, values| {
        for (block, value) in (first..).zip(values.chunks_exact(4)) {
            let era = Era(u32_at(value, 0));
            if era >= current {
                return Err(MetadataError::FutureEra { structure, found: era, current });
            }
            if era >= since {
                written.insert_word(block / 64, 1 << (block % 64));
            }
        }
        Ok(())
    })
}
