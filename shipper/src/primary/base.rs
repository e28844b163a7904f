//! The base copy: reading the volume, live, piece by piece, on a thread of its own.
//!
//! Always holds: a piece counts only if no epoch was queued for encoding between the start of its
//! reading and its own queueing; otherwise it is read again. So content that is older than an epoch
//! never goes on the wire behind that epoch.

use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use anyhow::Context;
use ftdm::block_io::{AlignedBuffer, BlockDevice};
use ftdm_units::{Extent, SECTOR_SIZE, Sector, Sectors};

use super::encode::BaseChunk;
use crate::reactor::Reports;

/// Sectors read at a time: 1 MiB.
const CHUNK: Sectors = Sectors(2048);
/// Pieces being read or encoded at a time.
const AHEAD: usize = 4;

/// Names the moment at which a read was ordered: the chain, and the epochs queued on it so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// Number of the chain.
    pub(super) chain: u64,
    /// Epochs queued for encoding.
    pub(super) epochs: u64,
}

/// A piece that was read.
#[derive(Debug)]
pub(super) struct BaseRead {
    chunk: BaseChunk,
    ordered: Moment,
    result: std::io::Result<()>,
}

/// Progress of a base copy.
#[derive(Debug)]
pub(super) struct BaseCopy {
    jobs: Option<Sender<(BaseChunk, Moment)>>,
    thread: Option<JoinHandle<()>>,
    size: Sectors,
    next: Sector,
    under_way: usize,
    free: Vec<AlignedBuffer>,
    running: Option<u64>,
    /// Frames made.
    pub(super) frames: u64,
    /// Sectors copied.
    pub(super) copied: Sectors,
}

impl BaseCopy {
    /// Starts the reading thread on a device opened for direct reading.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(device: BlockDevice, reports: Reports<BaseRead>) -> anyhow::Result<Self> {
        let size = device.size();
        let (jobs, queue) = mpsc::channel::<(BaseChunk, Moment)>();
        let thread = std::thread::Builder::new()
            .name("base copy".into())
            .stack_size(128 << 10)
            .spawn(move || {
                for (mut chunk, ordered) in queue {
                    let result = device.read_extent(chunk.extent, chunk.buffer.bytes_mut());
                    reports.send(BaseRead { chunk, ordered, result });
                }
            })
            .context("starting the base copy thread")?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
            size,
            next: Sector(0),
            under_way: 0,
            free: Vec::new(),
            running: None,
            frames: 0,
            copied: Sectors(0),
        })
    }

    /// Begins at the first sector.
    pub(super) fn begin(&mut self, moment: Moment) {
        self.running = Some(moment.chain);
        self.next = Sector(0);
        self.frames = 0;
        self.copied = Sectors(0);
        self.order_more(moment);
    }

    /// Gives up.
    pub(super) fn end(&mut self) {
        self.running = None;
    }

    fn order_more(&mut self, moment: Moment) {
        while self.under_way < AHEAD {
            let end = Sector((self.next.0 + CHUNK.0).min(self.size.0));
            let Some(extent) = Extent::between(self.next, end) else { return };
            self.next = end;
            let buffer = self.free.pop();
            let buffer = buffer
                .unwrap_or_else(|| AlignedBuffer::new(usize::try_from(CHUNK.0).unwrap_or(0) * SECTOR_SIZE));
            self.under_way += 1;
            self.order(BaseChunk { extent, buffer }, moment);
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
        if self.running != Some(ordered.chain) {
            self.put_back(chunk.buffer);
            return Ok(None);
        }
        if let Err(error) = result {
            let extent = chunk.extent;
            self.put_back(chunk.buffer);
            return Err(error).with_context(|| format!("base copy: reading {extent}"));
        }
        if ordered != moment {
            self.order(chunk, moment);
            return Ok(None);
        }
        Ok(Some(chunk))
    }

    /// Takes back a piece that is encoded; returns whether the copy is complete with it.
    pub(super) fn encoded(&mut self, chunk: BaseChunk, frames: u64, moment: Moment) -> bool {
        let len = chunk.extent.len();
        self.put_back(chunk.buffer);
        if self.running != Some(moment.chain) {
            return false;
        }
        self.frames += frames;
        self.copied.0 += len.0;
        self.order_more(moment);
        let is_complete = self.copied == self.size;
        if is_complete {
            self.running = None;
        }
        is_complete
    }

    fn put_back(&mut self, buffer: AlignedBuffer) {
        self.under_way -= 1;
        self.free.push(buffer);
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
