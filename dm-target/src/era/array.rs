//! The arrays of dm's persistent data: a btree that leads from 0, 1, 2... to blocks of values.
//!
//! Always holds: exactly as many values as the array has are handed out, in order; every block but
//! the last is full.
//!
//! ```text
//! offset  field                      (little endian, 4096 bytes)
//!      0  checksum u32               salt 595846735
//!      4  most entries u32
//!      8  entries u32
//!     12  value size u32
//!     16  block number u64
//!     24  values
//! ```
//! Source: `persistent-data/dm-array.c` of the kernel.

use super::block::{BLOCK, Metadata, Proof};
use super::btree::{self, Tree};
use super::bytes::{u32_at, u64_at};
use super::error::{Fault, MetadataError, Structure};
use crate::log_writes::BlockRead;

const PROOF: Proof = Proof { salt: 595_846_735, number_at: 16 };
const HEADER: usize = 24;

/// An array, as its owner describes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Array {
    pub(crate) structure: Structure,
    pub(crate) root: u64,
    pub(crate) value_size: usize,
    /// Values it has.
    pub(crate) len: u64,
}

/// What is done with the values of each block: the index of the first, and their bytes.
pub(crate) type Visit<'v> = &'v mut dyn FnMut(u64, &[u8]) -> Result<(), MetadataError>;

/// Hands out the values block by block.
pub(crate) fn walk<R: BlockRead>(
    metadata: &mut Metadata<'_, R>,
    array: Array,
    visit: Visit<'_>,
) -> Result<(), MetadataError> {
    let room = (BLOCK - HEADER) / array.value_size;
    let blocks = array.len.div_ceil(room as u64);
    let tree = Tree { structure: array.structure, root: array.root, value_size: 8, below: blocks };
    let mut found = 0;
    btree::walk(metadata, tree, &mut |metadata, index, value| {
        let short = MetadataError::Block {
            structure: array.structure,
            block: array.root,
            fault: Fault::Short { found, expected: blocks },
        };
        if index != found {
            return Err(short);
        }
        found += 1;
        let first = index * room as u64;
        let expected = (array.len - first).min(room as u64);
        visit(first, values(metadata, array, u64_at(value, 0), expected)?)
    })?;
    if found != blocks {
        let fault = Fault::Short { found, expected: blocks };
        return Err(MetadataError::Block { structure: array.structure, block: array.root, fault });
    }
    Ok(())
}

/// The values of one block, of which there must be `expected`.
fn values<'m, R: BlockRead>(
    metadata: &'m mut Metadata<'_, R>,
    array: Array,
    number: u64,
    expected: u64,
) -> Result<&'m [u8], MetadataError> {
    let block = metadata.block(array.structure, number, PROOF)?;
    let room = (BLOCK - HEADER) / array.value_size;
    let fields = [
        ("room for values", u32_at(block, 4), room as u64),
        ("values", u32_at(block, 8), expected),
        ("the value size", u32_at(block, 12), array.value_size as u64),
    ];
    for (field, found, expected) in fields {
        if u64::from(found) != expected {
            let fault = Fault::Field { field, found: found.into(), expected };
            return Err(MetadataError::Block { structure: array.structure, block: number, fault });
        }
    }
    let len = usize::try_from(expected).unwrap_or(room).min(room) * array.value_size;
    Ok(&block[HEADER..HEADER + len])
}
