//! The btrees of dm's persistent data: u64 keys, values of one size.
//!
//! Always holds: keys are handed out in strictly rising order; a node's keys lie within what its
//! parent says; only a root may be empty.
//!
//! ```text
//! offset  field                      (little endian, 4096 bytes)
//!      0  checksum u32               salt 121107
//!      4  flags u32                  1: internal, 2: leaf
//!      8  block number u64
//!     16  entries u32
//!     20  most entries u32
//!     24  value size u32             8 in internal nodes: the child's block
//!     28  padding u32
//!     32  keys u64[most entries]
//!         values [most entries]
//! ```
//! Source: `persistent-data/dm-btree-internal.h` of the kernel.

use super::block::{BLOCK, Metadata, Proof};
use super::bytes::{u32_at, u64_at};
use super::error::{Fault, MetadataError, Structure};
use crate::log_writes::BlockRead;

const PROOF: Proof = Proof { salt: 121_107, number_at: 8 };
const HEADER: usize = 32;
const INTERNAL: u32 = 1;
const LEAF: u32 = 2;
const CHILD_SIZE: usize = 8;
/// The kernel's own limit for walking a tree.
const MAX_DEPTH: u32 = 16;

/// A tree, as its owner describes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tree {
    pub(crate) structure: Structure,
    pub(crate) root: u64,
    pub(crate) value_size: usize,
    /// First key that may not occur.
    pub(crate) below: u64,
}

/// What is done with each entry; it may read on in the same metadata.
pub(crate) type Visit<'v, 'a, R> =
    &'v mut dyn FnMut(&mut Metadata<'a, R>, u64, &[u8]) -> Result<(), MetadataError>;

/// Hands out all entries of `tree` by rising key.
pub(crate) fn walk<'a, R: BlockRead>(
    metadata: &mut Metadata<'a, R>,
    tree: Tree,
    visit: Visit<'_, 'a, R>,
) -> Result<(), MetadataError> {
    walk_node(metadata, tree, Place { block: tree.root, depth: 1, from: 0, below: tree.below }, visit)
}

/// Where in a tree a node is, and which keys may be in it.
#[derive(Clone, Copy)]
struct Place {
    block: u64,
    depth: u32,
    from: u64,
    below: u64,
}

fn walk_node<'a, R: BlockRead>(
    metadata: &mut Metadata<'a, R>,
    tree: Tree,
    place: Place,
    visit: Visit<'_, 'a, R>,
) -> Result<(), MetadataError> {
    let at = |fault| MetadataError::Block { structure: tree.structure, block: place.block, fault };
    if place.depth > MAX_DEPTH {
        return Err(at(Fault::Deep(MAX_DEPTH)));
    }
    let block = metadata.block(tree.structure, place.block, PROOF)?;
    let node = Node::parse(block, tree.value_size).map_err(at)?;
    node.check_keys(place).map_err(at)?;
    for (index, key) in node.keys.iter().enumerate() {
        let value = &node.values[index * node.value_size..(index + 1) * node.value_size];
        if node.leaf {
            visit(metadata, *key, value)?;
            continue;
        }
        let below = node.keys.get(index + 1).copied().unwrap_or(place.below);
        let child = Place { block: u64_at(value, 0), depth: place.depth + 1, from: *key, below };
        walk_node(metadata, tree, child, visit)?;
    }
    Ok(())
}

/// A node's entries, copied: the block they were in makes room for the next.
struct Node {
    leaf: bool,
    keys: Vec<u64>,
    value_size: usize,
    values: Vec<u8>,
}

impl Node {
    fn parse(block: &[u8], leaf_value_size: usize) -> Result<Self, Fault> {
        let leaf = match u32_at(block, 4) {
            INTERNAL => false,
            LEAF => true,
            other => return Err(Fault::Flags(other)),
        };
        let value_size = if leaf { leaf_value_size } else { CHILD_SIZE };
        let size = u32_at(block, 24);
        if u64::from(size) != value_size as u64 {
            let expected = value_size as u64;
            return Err(Fault::Field { field: "the value size", found: size.into(), expected });
        }
        let (entries, most) = (u32_at(block, 16), u32_at(block, 20));
        let room = (BLOCK - HEADER) / (8 + value_size);
        let most = match usize::try_from(most) {
            Ok(n) if n <= room => n,
            _ => {
                let expected = room as u64;
                return Err(Fault::Field { field: "room for entries", found: most.into(), expected });
            }
        };
        let entries = match usize::try_from(entries) {
            Ok(n) if n <= most => n,
            _ => {
                let expected = most as u64;
                return Err(Fault::Field { field: "entries", found: entries.into(), expected });
            }
        };
        let keys = (0..entries).map(|i| u64_at(block, HEADER + 8 * i)).collect();
        let start = HEADER + 8 * most;
        let values = block[start..start + entries * value_size].to_vec();
        Ok(Self { leaf, keys, value_size, values })
    }

    fn check_keys(&self, place: Place) -> Result<(), Fault> {
        if self.keys.is_empty() && !(self.leaf && place.depth == 1) {
            return Err(Fault::Empty);
        }
        let mut from = place.from;
        for key in &self.keys {
            if !(from..place.below).contains(key) {
                return Err(Fault::Key { found: *key, from, below: place.below });
            }
            from = key + 1;
        }
        Ok(())
    }
}
