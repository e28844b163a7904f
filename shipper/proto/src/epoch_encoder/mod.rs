//! Frames out of extents: an epoch's, a base copy's, or of where a backup has content of its own.
//!
//! Always holds: what comes out is what a receiver accepts (sorted records within a frame, whole logical
//! blocks, lengths within the limits), each pushed extent comes out once, in the order pushed, and a frame
//! is never larger than its raw payload plus its header.

mod buffers;
mod compression;

use ftdm_units::{Extent, SECTOR_SIZE, Sectors};

use crate::digest::EpochHasher;
use crate::epoch::{EpochHeader, EpochSummary, EpochTrailer};
use crate::frame::{Frame, FrameHeader, FrameKind, Stamp};
use crate::group::GroupDescription;
use crate::ids::{Epoch, Incarnation, VolumeIndex};
use crate::record::{Content, DESCRIPTOR_LEN, RecordBuilder, RecordError, check_content};

pub use buffers::Buffers;
use compression::Compressor;

/// Raw bytes at which a data frame is closed.
pub const TARGET_RAW_PAYLOAD: usize = 1 << 20;

/// Turns one epoch's folded extents into frames.
#[derive(Debug)]
pub struct EpochEncoder {
    group: GroupDescription,
    frames: DataFrames,
    chain: Chain,
}

impl EpochEncoder {
    /// An encoder for the epoch that `header` describes.
    #[must_use]
    pub fn new(header: EpochHeader) -> Self {
        Self::reusing(header, Buffers::default())
    }

    /// The same. Payloads are in `buffers`: give them back when they are sent.
    #[must_use]
    pub fn reusing(header: EpochHeader, buffers: Buffers) -> Self {
        let frames = DataFrames::new(FrameKind::EpochData, header.stamp(), 1, buffers);
        let hasher = EpochHasher::new(header.previous);
        let chain = Chain { begin: Some(header.encode()), hasher, stored_bytes: 0 };
        Self { group: header.group, frames, chain }
    }

    /// Adds an extent's content; frames that are full go to `sink`. Extents that come sorted by volume and
    /// sector make the fewest frames.
    ///
    /// # Errors
    /// The extent is not whole blocks of its volume, or the data is not as long: nothing is added.
    pub fn push(
        &mut self,
        volume: VolumeIndex,
        extent: Extent,
        content: Content<'_>,
        sink: &mut dyn FnMut(Frame),
    ) -> Result<(), RecordError> {
        let Self { group, frames, chain } = self;
        frames.push(group, volume, extent, content, &mut |frame| chain.send(frame, sink))
    }

    /// Sends what is left and the last frame to `sink`.
    pub fn finish(mut self, sink: &mut dyn FnMut(Frame)) -> EpochSummary {
        let Self { frames, chain, .. } = &mut self;
        frames.flush(&mut |frame| chain.send(frame, sink));
        chain.start(sink);
        let (frames, raw_bytes, stamp) = (self.frames.seq, self.frames.raw_bytes, self.frames.stamp);
        let digest = self.chain.hasher.finish();
        let end = EpochTrailer { frames, raw_bytes, digest }.encode(stamp);
        let stored_bytes = self.chain.stored_bytes + end.wire_len();
        sink(end);
        EpochSummary { digest, frames, raw_bytes, stored_bytes }
    }
}

/// What every frame of an epoch but the last passes on its way out.
#[derive(Debug)]
struct Chain {
    /// The first frame, until it went out.
    begin: Option<Frame>,
    hasher: EpochHasher,
    stored_bytes: u64,
}

impl Chain {
    fn send(&mut self, frame: Frame, sink: &mut dyn FnMut(Frame)) {
        self.start(sink);
        self.pass(frame, sink);
    }

    /// Lets the first frame go, once.
    fn start(&mut self, sink: &mut dyn FnMut(Frame)) {
        if let Some(begin) = self.begin.take() {
            self.pass(begin, sink);
        }
    }

    fn pass(&mut self, frame: Frame, sink: &mut dyn FnMut(Frame)) {
        self.hasher.add(&frame);
        self.stored_bytes += frame.wire_len();
        sink(frame);
    }
}

/// Turns extents into frames that belong to no epoch: of a base copy, or of where a backup has content of its own.
#[derive(Debug)]
pub struct PlainEncoder {
    group: GroupDescription,
    frames: DataFrames,
}

impl PlainEncoder {
    /// An encoder of [`FrameKind::BaseData`] frames, of data and zeros.
    #[must_use]
    pub fn base(group: GroupDescription, generation: u64, incarnation: Incarnation) -> Self {
        Self::new(FrameKind::BaseData, group, generation, incarnation)
    }

    /// Has payloads in `buffers` from now on: give them back when they are sent.
    #[must_use]
    pub fn reusing(mut self, buffers: Buffers) -> Self {
        let DataFrames { kind, stamp, .. } = self.frames;
        self.frames = DataFrames::new(kind, stamp, 0, buffers);
        self
    }

    /// An encoder of [`FrameKind::Differs`] frames, of unknown content, stamped for the primary that is greeted.
    #[must_use]
    pub fn differs(group: GroupDescription, generation: u64, incarnation: Incarnation) -> Self {
        Self::new(FrameKind::Differs, group, generation, incarnation)
    }

    fn new(kind: FrameKind, group: GroupDescription, generation: u64, incarnation: Incarnation) -> Self {
        let stamp = Stamp { epoch: Epoch::NONE, generation, incarnation };
        Self { group, frames: DataFrames::new(kind, stamp, 0, Buffers::default()) }
    }

    /// Adds an extent's content; frames that are full go to `sink`.
    ///
    /// # Errors
    /// As [`EpochEncoder::push`], and for content that frames of this kind do not hold.
    pub fn push(
        &mut self,
        volume: VolumeIndex,
        extent: Extent,
        content: Content<'_>,
        sink: &mut dyn FnMut(Frame),
    ) -> Result<(), RecordError> {
        self.frames.push(&self.group, volume, extent, content, sink)
    }

    /// Sends what was gathered so far to `sink`: at the end, and before a pause in a copy.
    pub fn flush(&mut self, sink: &mut dyn FnMut(Frame)) {
        self.frames.flush(sink);
    }
}

/// Data frames of one epoch or base copy: what the encoders share.
#[derive(Debug)]
struct DataFrames {
    kind: FrameKind,
    stamp: Stamp,
    /// Number of the next frame.
    seq: u64,
    raw_bytes: u64,
    builder: RecordBuilder,
    compressor: Compressor,
    buffers: Buffers,
}

impl DataFrames {
    fn new(kind: FrameKind, stamp: Stamp, seq: u64, buffers: Buffers) -> Self {
        let builder = RecordBuilder::reusing(kind, buffers.take());
        let compressor = Compressor::new(buffers.clone());
        Self { kind, stamp, seq, raw_bytes: 0, builder, compressor, buffers }
    }

    /// Adds an extent, cut where a frame is full.
    fn push(
        &mut self,
        group: &GroupDescription,
        volume: VolumeIndex,
        extent: Extent,
        content: Content<'_>,
        sink: &mut dyn FnMut(Frame),
    ) -> Result<(), RecordError> {
        let block = check_content(self.kind, group, volume, extent, content)?;
        let mut rest = extent;
        loop {
            let len = self.piece(rest.len(), block, matches!(content, Content::Data(_)));
            let Some(piece) = Extent::new(rest.start(), len) else {
                self.flush(sink);
                continue;
            };
            let part = match content {
                Content::Data(data) => {
                    let from = bytes(Sectors(piece.start().0 - extent.start().0));
                    Content::Data(&data[from..from + bytes(len)])
                }
                other => other,
            };
            match self.builder.push(group, volume, piece, part) {
                Err(RecordError::Order { .. }) if !self.builder.is_empty() => {
                    self.flush(sink);
                    continue;
                }
                result => result?,
            }
            match Extent::between(piece.end(), rest.end()) {
                Some(left) => rest = left,
                None => break,
            }
        }
        if self.builder.raw_len() >= TARGET_RAW_PAYLOAD {
            self.flush(sink);
        }
        Ok(())
    }

    /// How much of `want` goes into the frame being filled, in whole blocks. 0: it is full.
    fn piece(&self, want: Sectors, block: Sectors, has_data: bool) -> Sectors {
        let room = TARGET_RAW_PAYLOAD.saturating_sub(self.builder.raw_len());
        let most = match room.checked_sub(DESCRIPTOR_LEN) {
            None => 0,
            Some(room) if has_data => (room / SECTOR_SIZE) as u64,
            Some(_) => u64::from(u32::MAX),
        };
        Sectors(want.0.min(most - most % block.0))
    }

    /// Closes the frame being filled, if there is anything in it.
    fn flush(&mut self, sink: &mut dyn FnMut(Frame)) {
        if self.builder.is_empty() {
            return;
        }
        let mut raw = self.buffers.take();
        let record_count = self.builder.take(&mut raw);
        let raw_len = length(raw.len());
        let (compressed, payload) = match self.compressor.compress(&raw) {
            Some(smaller) => {
                self.buffers.give(raw);
                (true, smaller)
            }
            None => (false, raw),
        };
        let Stamp { epoch, generation, incarnation } = self.stamp;
        let header = FrameHeader {
            kind: self.kind,
            compressed,
            seq: self.seq,
            epoch,
            generation,
            incarnation,
            payload_len: length(payload.len()),
            raw_len,
            record_count,
            payload_crc: crc32c::crc32c(&payload),
        };
        self.seq += 1;
        self.raw_bytes += u64::from(raw_len);
        sink(Frame { header, payload });
    }
}

impl Drop for DataFrames {
    fn drop(&mut self) {
        self.buffers.give(self.builder.give_up());
    }
}

/// Sectors of a piece, in bytes: a piece is never larger than a frame.
fn bytes(sectors: Sectors) -> usize {
    usize::try_from(sectors.0).unwrap_or(usize::MAX).saturating_mul(SECTOR_SIZE)
}

/// The length of a payload: never larger than a frame.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
