//! Reading frames back out of the ring.
//!
//! Always holds: a frame that comes out was checked against both of its checksums; no more than one frame's
//! bytes are held; a place whose header does not hold is never read beyond its first block. That does not make it the
//! frame that was written there: only [`Proof`](super::Proof) shows that.

use crate::frame::{Frame, FrameError, FrameHeader, FrameKind, HEADER_LEN};

use super::layout::{BLOCK_LEN, Ring, padded_len};

/// A device or file that the caller reads for us.
pub trait ReadAt {
    /// What can go wrong.
    type Error: std::fmt::Display;

    /// Fills `buf` with the bytes from `offset` on. Both are multiples of [`BLOCK_LEN`].
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error>;
}

/// A function that fills.
impl<E: std::fmt::Display, F: FnMut(u64, &mut [u8]) -> Result<(), E>> ReadAt for F {
    type Error = E;

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), E> {
        self(offset, buf)
    }
}

/// Bytes that a search reads at once.
const CHUNK: usize = 1 << 20;

/// What a block of the ring begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// Zeros.
    Blank,
    /// A sound header.
    Header(FrameHeader),
    /// Something else.
    Other(FrameError),
}

/// Reads the ring by positions.
#[derive(Debug)]
pub(super) struct RingReader<'d, D> {
    pub(super) ring: Ring,
    device: &'d mut D,
    /// The first block of a frame, then all of it.
    buffer: Vec<u8>,
}

impl<'d, D: ReadAt> RingReader<'d, D> {
    pub(super) fn new(ring: Ring, device: &'d mut D) -> Self {
        Self { ring, device, buffer: Vec::new() }
    }

    /// Looks at the block at `position`.
    pub(super) fn block(&mut self, position: u64) -> Result<Block, D::Error> {
        self.fill(position, BLOCK_LEN)?;
        Ok(match self.buffer.first_chunk::<HEADER_LEN>() {
            Some(_) if self.buffer.iter().all(|byte| *byte == 0) => Block::Blank,
            Some(bytes) => FrameHeader::decode(bytes).map_or_else(Block::Other, Block::Header),
            None => Block::Blank,
        })
    }

    /// How much of the ring from `position` up to `end` is read in one piece.
    pub(super) fn chunk(&self, position: u64, end: u64) -> usize {
        let room = self.ring.rest(position).min(end - position);
        usize::try_from(room).unwrap_or(CHUNK).min(CHUNK)
    }

    /// The sound headers among the blocks of a chunk that can be read, with their positions.
    pub(super) fn headers(&mut self, position: u64, chunk: usize) -> Vec<(u64, FrameHeader)> {
        if self.fill(position, chunk).is_ok() {
            return sound_headers(position, &self.buffer).collect();
        }
        // One place that cannot be read hides no other.
        let blocks = (position..position + chunk as u64).step_by(BLOCK_LEN);
        let one = |at| match self.fill(at, BLOCK_LEN) {
            Ok(()) => sound_headers(at, &self.buffer).next(),
            Err(_) => None,
        };
        blocks.filter_map(one).collect()
    }

    /// How many bytes from `position` on, of `len`, cannot be read: whole blocks.
    pub(super) fn hole(&mut self, position: u64, len: u64) -> u64 {
        let blocks = (position..position + len).step_by(BLOCK_LEN);
        let bad = blocks.take_while(|at| self.fill(*at, BLOCK_LEN).is_err()).count();
        (bad * BLOCK_LEN) as u64
    }

    /// Reads the frame at `position`, whose header is `header` and which does not straddle the ring's end.
    pub(super) fn frame(
        &mut self,
        position: u64,
        header: FrameHeader,
    ) -> Result<Result<Frame, FrameError>, D::Error> {
        let end = HEADER_LEN + header.payload_len as usize;
        self.fill(position, end.next_multiple_of(BLOCK_LEN))?;
        let payload = self.buffer[HEADER_LEN..end].to_vec();
        Ok(header.verify(&payload).map(|()| Frame { header, payload }))
    }

    fn fill(&mut self, position: u64, len: usize) -> Result<(), D::Error> {
        self.buffer.resize(len, 0);
        self.device.read_at(self.ring.offset(position), &mut self.buffer)
    }
}

/// The sound headers at the starts of these blocks, with their positions.
fn sound_headers(position: u64, blocks: &[u8]) -> impl Iterator<Item = (u64, FrameHeader)> {
    let blocks = (position..).step_by(BLOCK_LEN).zip(blocks.chunks(BLOCK_LEN));
    blocks.filter_map(|(at, block)| {
        let header = FrameHeader::decode(block.first_chunk::<HEADER_LEN>()?).ok()?;
        Some((at, header))
    })
}

/// A stretch of the journal that should hold frames and does not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError<E> {
    /// The device.
    #[error("reading the journal at position {position}: {source}")]
    Device {
        /// Where.
        position: u64,
        /// What the device says.
        source: E,
    },
    /// A frame that was sound once is not any more.
    #[error("journal at position {position}: {source}")]
    Frame {
        /// Where.
        position: u64,
        /// What is wrong with it.
        source: FrameError,
    },
    /// Something that no epoch is made of.
    #[error("journal at position {position} holds no frame of an epoch where one must be")]
    Missing {
        /// Where.
        position: u64,
    },
}

/// The frames of one or more sealed epochs, from a position to another, markers left out.
#[derive(Debug)]
pub struct EpochFrames<'d, D> {
    reader: RingReader<'d, D>,
    position: u64,
    end: u64,
}

impl<'d, D: ReadAt> EpochFrames<'d, D> {
    /// The frames from `start` to `end`: positions where sealed epochs start and end.
    pub fn new(ring: Ring, device: &'d mut D, start: u64, end: u64) -> Self {
        Self { reader: RingReader::new(ring, device), position: start, end }
    }

    fn read(&mut self) -> Result<Option<Frame>, ReadError<D::Error>> {
        while self.position < self.end {
            let position = self.position;
            let device = |source| ReadError::Device { position, source };
            let header = match self.reader.block(position).map_err(device)? {
                Block::Header(header) => header,
                Block::Other(source) => return Err(ReadError::Frame { position, source }),
                Block::Blank => return Err(ReadError::Missing { position }),
            };
            let ring = self.reader.ring;
            self.position += match header.kind {
                FrameKind::JournalPad => ring.rest(position),
                FrameKind::JournalDrop => BLOCK_LEN as u64,
                kind if kind.is_of_epoch() && padded_len(&header) <= ring.rest(position) => {
                    let frame = self.reader.frame(position, header).map_err(device)?;
                    let frame = frame.map_err(|source| ReadError::Frame { position, source })?;
                    self.position += padded_len(&header);
                    return Ok(Some(frame));
                }
                _ => return Err(ReadError::Missing { position }),
            };
        }
        Ok(None)
    }
}

impl<D: ReadAt> Iterator for EpochFrames<'_, D> {
    type Item = Result<Frame, ReadError<D::Error>>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.read().transpose();
        if let Some(Err(_)) = item {
            self.position = self.end;
        }
        item
    }
}
