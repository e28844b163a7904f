//! A set of the volume's blocks, one bit for each.
//!
//! Always holds: it has only blocks below its length.

use crate::table::BlockSectors;
use crate::units::{Extent, Sector, Sectors};

/// Blocks of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSet {
    words: Vec<u64>,
    blocks: u32,
}

impl BlockSet {
    /// None of `blocks` blocks. Takes an eighth of a byte for each, at most 512 MiB.
    #[must_use]
    pub fn none(blocks: u32) -> Self {
        Self { words: vec![0; blocks.div_ceil(64) as usize], blocks }
    }

    /// Blocks that there are.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Adds a block; one that the volume does not have is ignored.
    pub fn insert(&mut self, block: u32) {
        self.insert_word(u64::from(block) / 64, 1 << (block % 64));
    }

    /// Adds the blocks `64 * index + n` for every set bit `n`.
    pub(crate) fn insert_word(&mut self, index: u64, bits: u64) {
        let Some(word) = usize::try_from(index).ok().and_then(|i| self.words.get_mut(i)) else { return };
        let used = u64::from(self.blocks) - index * 64;
        *word |= if used < 64 { bits & ((1 << used) - 1) } else { bits };
    }

    /// Whether a block is in it.
    #[must_use]
    pub fn contains(&self, block: u32) -> bool {
        let word = self.words.get(block as usize / 64);
        word.is_some_and(|word| word & (1 << (block % 64)) != 0)
    }

    /// How many blocks are in it.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Runs of neighbouring blocks, in order: first block, number of blocks.
    pub fn runs(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let mut next = 0;
        std::iter::from_fn(move || {
            let start = self.find(next, true)?;
            let end = self.find(start, false).unwrap_or(self.blocks);
            next = end;
            Some((start, end - start))
        })
    }

    /// The first block from `from` on that is in the set, or is not.
    fn find(&self, from: u32, wanted: bool) -> Option<u32> {
        let mut at = from;
        while at < self.blocks {
            let word = self.words[at as usize / 64];
            let rest = (if wanted { word } else { !word }) >> (at % 64);
            if rest != 0 {
                let found = at.checked_add(rest.trailing_zeros())?;
                return (found < self.blocks).then_some(found);
            }
            at = (at / 64 + 1).checked_mul(64)?;
        }
        None
    }

    /// The extents of a volume of `volume` sectors that these blocks are, merged and in order; the
    /// last block may be a part only.
    pub fn extents(&self, block: BlockSectors, volume: Sectors) -> impl Iterator<Item = Extent> + '_ {
        let size = u64::from(block.get());
        self.runs().filter_map(move |(first, count)| {
            let start = u64::from(first) * size;
            let end = ((u64::from(first) + u64::from(count)) * size).min(volume.0);
            Extent::between(Sector(start), Sector(end))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn extents_are_merged_and_end_with_the_volume() {
        let mut set = BlockSet::none(130);
        for block in [0, 1, 2, 63, 64, 129, 130] {
            set.insert(block);
        }
        let block = BlockSectors::new(8).unwrap();
        let extents: Vec<_> =
            set.extents(block, Sectors(129 * 8 + 3)).map(|e| (e.start().0, e.len().0)).collect();
        assert_eq!(extents, [(0, 24), (63 * 8, 16), (129 * 8, 3)]);
        assert_eq!(set.count(), 6);
        assert_eq!(BlockSet::none(0).runs().count(), 0);
    }

    proptest! {
        #[test]
        fn it_is_a_set(blocks in 1u32..400, wanted in proptest::collection::btree_set(0u32..400, 0..200)) {
            let mut set = BlockSet::none(blocks);
            wanted.iter().for_each(|b| set.insert(*b));
            let expected: BTreeSet<u32> = wanted.into_iter().filter(|b| *b < blocks).collect();
            let runs: Vec<_> = set.runs().collect();
            let found: BTreeSet<u32> = runs.iter().flat_map(|(start, len)| *start..start + len).collect();
            prop_assert_eq!(&found, &expected);
            prop_assert!(expected.iter().all(|b| set.contains(*b)));
            prop_assert_eq!(set.count(), expected.len() as u64);
            prop_assert!(runs.windows(2).all(|w| w[0].0 + w[0].1 < w[1].0), "not merged: {:?}", runs);
        }
    }
}
