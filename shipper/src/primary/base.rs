//! The base copy: reading the volumes, live, piece by piece, one after the other, on a thread of its own.
//!
//! Always holds: what counts and what is read again is decided by [`BasePlan`]; at most [`AHEAD`] pieces
//! are held in memory.

use std::io::ErrorKind;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use anyhow::Context;
use ftdm::block_io::{AlignedBuffer, BlockDevice};
use ftdm_units::{SECTOR_SIZE, Sectors};
use ftship_proto::primary::{BasePlan, Moment, Verdict};

use super::encode::BaseChunk;
use super::run_in_background;
use crate::reactor::Reports;

/// Sectors read at a time: 1 MiB.
const CHUNK: Sectors = Sectors(2048);
/// Pieces being read or encoded at a time.
const AHEAD: usize = 4;

/// A piece that was read.
#[derive(Debug)]
pub(super) struct BaseRead {
    chunk: BaseChunk,
    ordered: Moment,
    result: std::io::Result<()>,
}

/// The reading thread, its buffers, and the progress of the copy.
#[derive(Debug)]
pub(super) struct BaseCopy {
    jobs: Option<Sender<(BaseChunk, Moment)>>,
    thread: Option<JoinHandle<()>>,
    free: Vec<AlignedBuffer>,
    plan: BasePlan,
}

impl BaseCopy {
    /// Starts the reading thread on the volumes, in the group's order, opened for direct reading.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(devices: Vec<BlockDevice>, reports: Reports<BaseRead>) -> anyhow::Result<Self> {
        let sizes: Vec<_> = devices.iter().map(BlockDevice::size).collect();
        let (jobs, queue) = mpsc::channel::<(BaseChunk, Moment)>();
        let thread = std::thread::Builder::new()
            .name("base copy".into())
            .stack_size(128 << 10)
            .spawn(move || {
                run_in_background("base copy");
                for (mut chunk, ordered) in queue {
                    let result = match devices.get(usize::from(chunk.volume.0)) {
                        Some(device) => device.read_extent(chunk.extent, chunk.buffer.bytes_mut()),
                        None => Err(ErrorKind::NotFound.into()),
                    };
                    reports.send(BaseRead { chunk, ordered, result });
                }
            })
            .context("starting the base copy thread")?;
        let plan = BasePlan::new(&sizes, CHUNK, AHEAD);
        Ok(Self { jobs: Some(jobs), thread: Some(thread), free: Vec::new(), plan })
    }

    /// Begins at the first sector of the first volume.
    pub(super) fn begin(&mut self, moment: Moment) {
        self.plan.begin(moment.chain);
        self.order_more(moment);
    }

    /// Gives up.
    pub(super) fn end(&mut self) {
        self.plan.end();
    }

    /// Sectors copied.
    #[must_use]
    pub(super) fn copied(&self) -> Sectors {
        self.plan.copied()
    }

    /// Frames made.
    #[must_use]
    pub(super) fn frames(&self) -> u64 {
        self.plan.frames()
    }

    fn order_more(&mut self, moment: Moment) {
        while let Some((volume, extent)) = self.plan.order() {
            let buffer = self.free.pop();
            let buffer = buffer
                .unwrap_or_else(|| AlignedBuffer::new(usize::try_from(CHUNK.0).unwrap_or(0) * SECTOR_SIZE));
            self.order(BaseChunk { volume, extent, buffer }, moment);
        }
    }

    fn order(&self, chunk: BaseChunk, moment: Moment) {
        if let Some(jobs) = &self.jobs
            && jobs.send((chunk, moment)).is_err()
        {
            log::error!("the base copy has ended; its thread must have panicked");
        }
    }

    /// Takes a piece that was read; returns it when it may be queued for encoding now.
    ///
    /// # Errors
    /// When reading failed.
    pub(super) fn take(&mut self, read: BaseRead, moment: Moment) -> anyhow::Result<Option<BaseChunk>> {
        let BaseRead { chunk, ordered, result } = read;
        match self.plan.judge(ordered, moment) {
            Verdict::Forget => {
                self.free.push(chunk.buffer);
                self.order_more(moment);
                Ok(None)
            }
            Verdict::Queue | Verdict::ReadAgain if result.is_err() => {
                let (volume, extent) = (chunk.volume, chunk.extent);
                self.plan.failed();
                self.free.push(chunk.buffer);
                result.map(|()| None).with_context(|| format!("base copy: reading {extent} of {volume}"))
            }
            Verdict::ReadAgain => {
                self.order(chunk, moment);
                Ok(None)
            }
            Verdict::Queue => Ok(Some(chunk)),
        }
    }

    /// Takes back a piece of `chain` that is encoded; returns whether the copy is complete with it.
    pub(super) fn encoded(&mut self, chunk: BaseChunk, frames: u64, chain: u64, moment: Moment) -> bool {
        let is_complete = self.plan.encoded(chunk.extent, chain, frames);
        self.free.push(chunk.buffer);
        self.order_more(moment);
        is_complete
    }
}

impl Drop for BaseCopy {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the base copy's thread had panicked");
        }
    }
}
