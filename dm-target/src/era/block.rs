//! Blocks of a metadata device: read through a window, each at most once, and verified.
//!
//! Always holds: a block is handed out only with its checksum and its number verified.
//! Source of checksum and numbers: `persistent-data/dm-block-manager.c` of the kernel.

use super::bytes::{checksum, u32_at, u64_at};
use super::error::{Fault, MetadataError, Structure};
use super::size::MAX_METADATA_BLOCKS;
use crate::block_io::AlignedBuffer;
use crate::log_writes::BlockRead;

/// Bytes of a block.
pub(crate) const BLOCK: usize = 4096;
/// Blocks read at once: neighbours often follow each other.
const WINDOW: u64 = 64;

/// How a kind of block proves itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proof {
    /// What the checksum is combined with.
    pub(crate) salt: u32,
    /// Where the block has its own number.
    pub(crate) number_at: usize,
}

/// A metadata device that is being walked.
pub(crate) struct Metadata<'a, R> {
    device: &'a R,
    blocks: u64,
    /// One bit for each block that was reached.
    reached: Vec<u64>,
    window: AlignedBuffer,
    /// First block in the window and how many are.
    held: (u64, u64),
}

impl<'a, R: BlockRead> Metadata<'a, R> {
    /// A device of `blocks` blocks; the kernel uses no more than [`MAX_METADATA_BLOCKS`].
    pub(crate) fn new(device: &'a R, blocks: u64) -> Self {
        let blocks = blocks.min(MAX_METADATA_BLOCKS);
        let words = usize::try_from(blocks.div_ceil(64)).unwrap_or(0);
        let window = AlignedBuffer::new(usize::try_from(WINDOW).unwrap_or(1) * BLOCK);
        Self { device, blocks, reached: vec![0; words], window, held: (0, 0) }
    }

    /// Reads block `number`, which must not have been read before.
    pub(crate) fn raw(&mut self, structure: Structure, number: u64) -> Result<&[u8], MetadataError> {
        let at = |fault| MetadataError::Block { structure, block: number, fault };
        if number == 0 || number >= self.blocks {
            return Err(at(Fault::Outside { blocks: self.blocks }));
        }
        let word = usize::try_from(number / 64).unwrap_or(usize::MAX);
        let reached = self.reached.get_mut(word).ok_or_else(|| at(Fault::Outside { blocks: self.blocks }))?;
        if *reached & (1 << (number % 64)) != 0 {
            return Err(at(Fault::Twice));
        }
        *reached |= 1 << (number % 64);
        self.fill(number).map_err(|e| at(e.into()))?;
        let start = usize::try_from(number - self.held.0).unwrap_or(0) * BLOCK;
        Ok(&self.window.bytes()[start..start + BLOCK])
    }

    /// The same, with checksum and number verified.
    pub(crate) fn block(
        &mut self,
        structure: Structure,
        number: u64,
        proof: Proof,
    ) -> Result<&[u8], MetadataError> {
        let block = self.raw(structure, number)?;
        let at = |fault| Err(MetadataError::Block { structure, block: number, fault });
        let (found, computed) = (u32_at(block, 0), checksum(&block[4..], proof.salt));
        if found != computed {
            return at(Fault::Checksum { found, computed });
        }
        let own = u64_at(block, proof.number_at);
        if own != number {
            return at(Fault::Number(own));
        }
        Ok(block)
    }

    /// Makes the window hold block `number`. What a snapshot refers to does not change any more, so
    /// neighbours read ahead are as good later.
    fn fill(&mut self, number: u64) -> std::io::Result<()> {
        if (self.held.0..self.held.0 + self.held.1).contains(&number) {
            return Ok(());
        }
        let start = number - number % WINDOW;
        let count = WINDOW.min(self.blocks - start);
        let len = usize::try_from(count).unwrap_or(0) * BLOCK;
        self.held = (0, 0);
        self.device.read_at(start * BLOCK as u64, &mut self.window.bytes_mut()[..len])?;
        self.held = (start, count);
        Ok(())
    }
}
