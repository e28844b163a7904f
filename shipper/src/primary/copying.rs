//! Copying: reading what a round covers, live, piece by piece, one after the other, on a thread of its own.
//!
//! Always holds: which piece comes next and when a round is complete is decided by [`CopyPlan`]; at most [`AHEAD`]
//! pieces are held in memory.

use std::io::ErrorKind;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::Context;
use ftdm::block_io::{AlignedBuffer, BlockDevice};
use ftdm_units::{Era, SECTOR_SIZE, Sectors};
use ftship_proto::primary::{CopyPlan, PrimaryEvent, Scope};

use super::encode::{EncodeJob, Piece};
use super::rounds::Rolled;
use super::{PrimaryDriver, run_in_background};
use crate::reactor::Reports;
use crate::worker::Worker;

/// Sectors read at a time: 1 MiB.
const CHUNK: Sectors = Sectors(2048);
/// Pieces being read or encoded at a time.
const AHEAD: usize = 4;

/// A piece that was read.
#[derive(Debug)]
pub(super) struct PieceRead {
    piece: Piece,
    chain: u64,
    result: std::io::Result<()>,
}

/// The reading thread, its buffers, and the progress of the round.
#[derive(Debug)]
pub(super) struct Copying {
    reading: Worker<(Piece, u64)>,
    free: Vec<AlignedBuffer>,
    plan: CopyPlan,
}

impl Copying {
    /// Starts the reading thread on the volumes, in the group's order, opened for direct reading.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(devices: Vec<BlockDevice>, reports: Reports<PieceRead>) -> anyhow::Result<Self> {
        let reading = Worker::start("copying", 128 << 10, move |queue: Receiver<(Piece, u64)>| {
            run_in_background("copying");
            for (mut piece, chain) in queue {
                let result = match devices.get(usize::from(piece.volume.0)) {
                    Some(device) => device.read_extent(piece.extent, piece.buffer.bytes_mut()),
                    None => Err(ErrorKind::NotFound.into()),
                };
                reports.send(PieceRead { piece, chain, result });
            }
        })?;
        let plan = CopyPlan::new(CHUNK, AHEAD);
        Ok(Self { reading, free: Vec::new(), plan })
    }

    /// Begins a round of this chain. Returns whether there is nothing to copy.
    pub(super) fn begin(&mut self, chain: u64, scope: Scope) -> bool {
        let is_complete = self.plan.begin(chain, scope);
        self.order_more(chain);
        is_complete
    }

    /// Gives up.
    pub(super) fn end(&mut self) {
        self.plan.end();
    }

    /// Sectors of this round that are not out yet.
    #[must_use]
    pub(super) fn left(&self) -> Sectors {
        self.plan.left()
    }

    /// Frames made in this round.
    #[must_use]
    pub(super) fn frames(&self) -> u64 {
        self.plan.frames()
    }

    fn order_more(&mut self, chain: u64) {
        while let Some((volume, extent)) = self.plan.order() {
            let buffer = self.free.pop();
            let buffer = buffer
                .unwrap_or_else(|| AlignedBuffer::new(usize::try_from(CHUNK.0).unwrap_or(0) * SECTOR_SIZE));
            self.reading.push((Piece { volume, extent, buffer }, chain));
        }
    }

    /// Takes a piece that was read; returns it when it still counts, to be encoded. `chain` is the present one.
    ///
    /// # Errors
    /// When reading failed.
    pub(super) fn take(&mut self, read: PieceRead, chain: u64) -> anyhow::Result<Option<Piece>> {
        let PieceRead { piece, chain: ordered, result } = read;
        let counts = self.plan.is_running(ordered);
        if counts && result.is_ok() {
            return Ok(Some(piece));
        }
        self.plan.failed();
        let (volume, extent) = (piece.volume, piece.extent);
        self.free.push(piece.buffer);
        if counts {
            return result.map(|()| None).with_context(|| format!("copying: reading {extent} of {volume}"));
        }
        self.order_more(chain);
        Ok(None)
    }

    /// Takes back a piece of chain `of` that is encoded; returns whether the round is complete with it. `chain` is the
    /// present one.
    pub(super) fn encoded(&mut self, piece: Piece, frames: u64, of: u64, chain: u64) -> bool {
        let is_complete = self.plan.encoded(piece.extent, of, frames);
        self.free.push(piece.buffer);
        self.order_more(chain);
        is_complete
    }
}

impl PrimaryDriver {
    /// Begins the round that the last roll noted.
    pub(super) fn copy(&mut self, now: Duration) {
        let scope = std::mem::take(&mut self.scope);
        if self.copying.begin(self.chain, scope) {
            self.core.handle(now, PrimaryEvent::Copied { frames: 0 });
        }
    }

    /// Keeps what is to be copied; returns the eras that began, and how many bytes were written before.
    pub(super) fn note_scope(&mut self, written: Rolled) -> (Vec<Era>, u64) {
        let bytes = written.bytes();
        self.scope = written.scope;
        (written.eras, bytes)
    }

    pub(super) fn piece_read(&mut self, now: Duration, read: PieceRead) {
        match self.copying.take(read, self.chain) {
            Ok(Some(piece)) => self.encoder.push(EncodeJob::Copied(piece)),
            Ok(None) => {}
            Err(error) => {
                let reason = format!("{error:#}");
                self.core.handle(now, PrimaryEvent::CaptureLost { reason });
                self.act(now);
            }
        }
    }

    pub(super) fn copied_piece(&mut self, now: Duration, stored: u64, is_current: bool, is_complete: bool) {
        self.figures.base_bytes_shipped += stored;
        if is_current {
            self.copied += stored;
            self.core.handle(now, PrimaryEvent::CopyProgressed { stored: self.copied });
        }
        if is_current && is_complete {
            let frames = self.copying.frames();
            self.core.handle(now, PrimaryEvent::Copied { frames });
        }
    }
}
