//! A device as an input describes it: pieces of blocks, zeros elsewhere.
//!
//! An input is small although the device is not, and a piece may ask for its block's checksum to be
//! made right, as in dm-era's metadata. Always holds: an image takes memory only for the blocks that
//! its input has pieces of.
//!
//! ```text
//! piece: block u16, seal u8, offset u16, length u16, bytes
//! ```

use std::collections::BTreeMap;
use std::io;

use crate::input::Input;

/// Bytes of a block.
pub const BLOCK: usize = 4096;

/// What is done to a block when all of its pieces are there, by the last piece's seal; anything else: nothing.
const SEALS: [(u8, Seal); 3] = [
    (1, Seal { salt: 146_538_381, number_at: 8 }),
    (2, Seal { salt: 121_107, number_at: 8 }),
    (3, Seal { salt: 595_846_735, number_at: 16 }),
];
/// Set in a seal that also writes the block's own number.
const NUMBERED: u8 = 0x80;

/// The checksum of a block of dm's persistent data.
#[derive(Clone, Copy, Debug)]
struct Seal {
    salt: u32,
    number_at: usize,
}

impl Seal {
    fn checksum(self, block: &[u8]) -> u32 {
        !crc32c::crc32c(&block[4..]) ^ self.salt
    }
}

/// The blocks of a device that are not zero.
#[derive(Clone, Debug, Default)]
pub struct Image {
    blocks: BTreeMap<u64, Box<[u8; BLOCK]>>,
}

impl Image {
    /// The image that the rest of an input describes.
    #[must_use]
    pub fn read(input: &mut Input<'_>) -> Self {
        let mut image = Self::default();
        let mut seals = BTreeMap::new();
        while !input.is_empty() {
            let (number, seal) = (u64::from(input.u16()), input.u8());
            let (offset, len) = (usize::from(input.u16()) % BLOCK, usize::from(input.u16()));
            let bytes = input.take(len.min(BLOCK - offset));
            let block = image.blocks.entry(number).or_insert_with(|| Box::new([0; BLOCK]));
            block[offset..offset + bytes.len()].copy_from_slice(bytes);
            seals.insert(number, seal);
        }
        for (number, code) in seals {
            let Some((_, seal)) = SEALS.iter().find(|(known, _)| *known == code & !NUMBERED) else {
                continue;
            };
            let Some(block) = image.blocks.get_mut(&number) else { continue };
            if code & NUMBERED != 0 {
                block[seal.number_at..seal.number_at + 8].copy_from_slice(&number.to_le_bytes());
            }
            let sum = seal.checksum(&block[..]);
            block[..4].copy_from_slice(&sum.to_le_bytes());
        }
        image
    }

    /// Writes a block as the fewest pieces, with the seal that it bears.
    pub fn describe(number: u16, block: &[u8], out: &mut Vec<u8>) {
        let stored = block.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let seal = SEALS.iter().find(|(_, seal)| seal.checksum(block) == stored);
        let seal = seal.map_or(0, |(code, _)| code | NUMBERED);
        let mut at = 0;
        while let Some(start) = (at..block.len()).find(|i| block[*i] != 0) {
            // Zeros that cost less than another piece's header belong to this one.
            let quiet = |i: &usize| block[*i..].iter().take(8).all(|byte| *byte == 0);
            let end = (start..block.len()).find(quiet).unwrap_or(block.len());
            out.extend_from_slice(&number.to_le_bytes());
            out.push(seal);
            for field in [start, end - start] {
                out.extend_from_slice(&u16::try_from(field).unwrap_or(u16::MAX).to_le_bytes());
            }
            out.extend_from_slice(&block[start..end]);
            at = end;
        }
    }

    /// Number of blocks that are not zero.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// All zero.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Fills `buffer` from byte `offset` on, whole blocks of a device of `blocks`.
    ///
    /// # Errors
    /// `UnexpectedEof` beyond the end.
    pub fn read_at(&self, blocks: u64, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        for (number, piece) in (offset / BLOCK as u64..).zip(buffer.chunks_mut(BLOCK)) {
            if number >= blocks {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match self.blocks.get(&number) {
                Some(block) => piece.copy_from_slice(&block[..piece.len()]),
                None => piece.fill(0),
            }
        }
        Ok(())
    }
}
