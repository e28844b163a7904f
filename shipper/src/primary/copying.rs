//! Copying: reading what a round covers, live, piece by piece, one after the other, on a thread of its own; the backup is
//! asked meanwhile what it has there, several pieces ahead.
//!
//! Always holds: which piece comes next, which waits for an answer and when a round is complete is decided by
//! [`CopyPlan`]; at most [`AHEAD`] pieces are held in memory; what is compared is what was read, which is what is sent.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::Context;
use ftdm::block_io::{AlignedBuffer, BlockDevice};
use ftdm::log_writes::epoch_log::EpochLog;
use ftdm::stack::still_round::StillContent;
use ftdm_units::{SECTOR_SIZE, Sectors};
use ftship_proto::primary::{Batch, CopyPlan, PrimaryEvent, Told};
use ftship_proto::scope::Scope;
use ftship_proto::verify::{Place, ShortDigest, digests_of};

use super::capture::jobs::CutJob;
use super::encode::{EncodeJob, EncodedPiece, Piece};
use super::{PrimaryDriver, run_in_background};
use crate::runtime::reactor::Reports;
use crate::runtime::wake::LoopWaker;
use crate::runtime::worker::Worker;

/// Sectors read at a time: 1 MiB.
const CHUNK: Sectors = Sectors(2048);
/// Pieces being read, compared or encoded at a time: no more than a backup lets wait for an epoch.
const AHEAD: usize = 8;

/// What was read while the volumes stood still, where a round copies that rather than the live volumes.
pub(super) type Still = Option<Arc<StillContent>>;

/// A piece that was read.
#[derive(Debug)]
pub(super) struct PieceRead {
    piece: Piece,
    result: std::io::Result<()>,
}

/// The reading thread, its buffers, what is to be copied next, and the progress of the round.
#[derive(Debug)]
pub(super) struct Copying {
    reading: Worker<(Piece, Still)>,
    pub(super) pieces: Receiver<PieceRead>,
    /// What the last roll noted.
    pub(super) scope: Scope,
    /// The content of that, where it was read while the volumes stood still.
    pub(super) scope_content: Still,
    /// Parts of the log that are to go out after what was ordered before.
    parts: VecDeque<Vec<EpochLog>>,
    /// Bytes of frames that this chain's copying made.
    pub(super) copied: u64,
    /// Bytes of the volumes that it left out.
    pub(super) skipped: u64,
    still: Still,
    free: Vec<AlignedBuffer>,
    plan: CopyPlan<Piece>,
}

impl Copying {
    /// Starts the reading thread on the volumes, in the group's order, opened for direct reading.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(devices: Vec<BlockDevice>, waker: &Arc<LoopWaker>) -> anyhow::Result<Self> {
        let (reports, pieces) = Reports::channel(waker);
        let reading = Worker::start("copying", 128 << 10, move |queue: Receiver<(Piece, Still)>| {
            run_in_background("copying");
            for (mut piece, still) in queue {
                let result = read(&devices, still.as_deref(), &mut piece);
                drop(still);
                reports.send(PieceRead { piece, result });
            }
        })?;
        let plan = CopyPlan::new(CHUNK, AHEAD);
        Ok(Self {
            reading,
            pieces,
            scope: Scope::new(),
            scope_content: None,
            parts: VecDeque::new(),
            copied: 0,
            skipped: 0,
            still: None,
            free: Vec::new(),
            plan,
        })
    }

    /// Gives up.
    fn end(&mut self) {
        self.still = None;
        let left = self.plan.end();
        self.free.extend(left.into_iter().map(|piece| piece.buffer));
    }

    /// Sectors of this round that are not out yet.
    #[must_use]
    pub(super) fn left(&self) -> Sectors {
        self.plan.left()
    }

    /// Has the next piece read, if there is one and room for it. Returns it.
    fn order(&mut self) -> Option<Batch> {
        let batch = self.plan.order()?;
        let buffer = self.free.pop();
        let buffer =
            buffer.unwrap_or_else(|| AlignedBuffer::new(usize::try_from(CHUNK.0).unwrap_or(0) * SECTOR_SIZE));
        let piece = Piece { batch: batch.clone(), buffer, digests: Vec::new(), told: None };
        self.reading.push((piece, self.still.clone()));
        Some(batch)
    }

    /// Takes a piece that was read; returns it when it still counts and can be encoded.
    ///
    /// # Errors
    /// When reading failed.
    fn take(&mut self, read: PieceRead) -> anyhow::Result<Option<Piece>> {
        let PieceRead { piece, result } = read;
        let counts = self.plan.is_running(piece.batch.chain);
        if counts && result.is_ok() {
            let ready = self.plan.read(piece.batch.number, piece);
            return Ok(ready.map(|(piece, told)| Piece { told, ..piece }));
        }
        self.plan.failed();
        let first = piece.batch.places.first().copied();
        self.free.push(piece.buffer);
        match (counts, first) {
            (true, Some(Place { volume, extent })) => {
                result.map(|()| None).with_context(|| format!("copying: reading {extent} and on of {volume}"))
            }
            _ => Ok(None),
        }
    }
}

/// Reads a batch's places one behind the other, and makes their digests.
fn read(devices: &[BlockDevice], still: Option<&StillContent>, piece: &mut Piece) -> std::io::Result<()> {
    let mut from = 0;
    for place in &piece.batch.places {
        let volume = usize::from(place.volume.0);
        let to =
            from + usize::try_from(place.extent.len().0).unwrap_or(usize::MAX).saturating_mul(SECTOR_SIZE);
        let buffer = piece.buffer.bytes_mut().get_mut(from..to).ok_or(ErrorKind::InvalidInput)?;
        match still {
            Some(still) => still.read(volume, place.extent, buffer)?,
            None => devices.get(volume).ok_or(ErrorKind::NotFound)?.read_extent(place.extent, buffer)?,
        }
        if let Some(unit) = piece.batch.unit {
            piece.digests.extend(digests_of::<ShortDigest>(buffer, unit));
        }
        from = to;
    }
    Ok(())
}

impl PrimaryDriver {
    /// Begins the round that the last roll noted, compared in this unit.
    pub(super) fn copy(&mut self, now: Duration, unit: Option<Sectors>) {
        let scope = std::mem::take(&mut self.copying.scope);
        self.copying.still = self.copying.scope_content.take();
        if self.copying.plan.begin(self.chain, scope, unit) {
            self.core.handle(now, PrimaryEvent::Copied { frames: 0 });
        }
        self.read_more(now);
    }

    /// Gives up copying.
    pub(super) fn stop_copy(&mut self) {
        self.copying.end();
        for logs in std::mem::take(&mut self.copying.parts) {
            self.cut_thread.push(CutJob::Recycle(logs));
        }
    }

    /// A part of the log was cut off.
    pub(super) fn ship_part(&mut self) {
        if let Some(logs) = self.captured.take() {
            self.copying.parts.push_back(logs);
            self.copying.plan.part_cut();
        }
        self.ship_parts();
    }

    /// Encodes a piece that is complete, and the parts that waited for it.
    fn encode_piece(&mut self, piece: Piece) {
        self.encoder.push(EncodeJob::Copied(piece));
        self.ship_parts();
    }

    /// Lets out the parts that may go.
    fn ship_parts(&mut self) {
        while self.copying.plan.lets_parts_out()
            && let Some(logs) = self.copying.parts.pop_front()
        {
            self.encoder.push(EncodeJob::Part(logs));
        }
    }

    /// A part is out.
    pub(super) fn part_encoded(&mut self, now: Duration, frames: u64, stored: u64) {
        self.copying.plan.part_encoded();
        self.read_more(now);
        self.shown.figures.base_bytes_shipped += stored;
        self.copying.copied += stored;
        self.core.handle(now, PrimaryEvent::PartEncoded { stored: self.copying.copied, frames });
    }

    /// Has pieces read as long as there is room, and the backup asked about them. What the core wants done of that is left
    /// to the caller.
    fn read_more(&mut self, now: Duration) {
        while let Some(batch) = self.copying.order() {
            if batch.unit.is_some() {
                let Batch { number, places, .. } = batch;
                self.core.handle(now, PrimaryEvent::Compares { number, places });
            }
        }
    }

    pub(super) fn piece_read(&mut self, now: Duration, read: PieceRead) {
        match self.copying.take(read) {
            Ok(Some(piece)) => self.encode_piece(piece),
            Ok(None) => self.read_more(now),
            Err(error) => {
                let reason = format!("{error:#}");
                self.core.handle(now, PrimaryEvent::ShippingFailed { reason });
            }
        }
        self.act(now);
    }

    /// What the backup has of a piece.
    pub(super) fn piece_told(&mut self, number: u64, told: Told) {
        if let Some((piece, told)) = self.copying.plan.told(number, told) {
            self.encode_piece(Piece { told, ..piece });
        }
    }

    /// A piece is encoded, and sent as far as it has to be.
    pub(super) fn piece_encoded(&mut self, now: Duration, encoded: EncodedPiece) {
        let EncodedPiece { piece, frames, stored, skipped } = encoded;
        let is_current = piece.batch.chain == self.chain;
        let is_complete = self.copying.plan.encoded(&piece.batch, frames);
        self.copying.free.push(piece.buffer);
        self.read_more(now);
        self.shown.figures.base_bytes_shipped += stored;
        if is_current {
            self.copying.copied += stored;
            self.copying.skipped += skipped;
            let (stored, skipped) = (self.copying.copied, self.copying.skipped);
            self.core.handle(now, PrimaryEvent::CopyProgressed { stored, skipped });
        }
        if is_current && is_complete {
            self.copying.still = None;
            let frames = self.copying.plan.frames();
            self.core.handle(now, PrimaryEvent::Copied { frames });
        }
    }
}
