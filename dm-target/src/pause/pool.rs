//! Reading or discarding many runs of a device at once, with threads and buffers made before.
//!
//! Always holds: what was started before a pause ended is waited for; no thread of the pool panics
//! while one waits for it (reads and discards only return errors).

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::PAUSE_URGENCY;
use crate::block_io::{AlignedBuffer, BlockDevice};
use crate::ioctl::set_urgency;
use crate::log_writes::epoch_log::Arena;
use crate::units::{Extent, SECTOR_SIZE, Sector};

/// The most that one read takes.
const SLOT: usize = 128 << 10;
const SLOT_SECTORS: u64 = (SLOT / SECTOR_SIZE) as u64;
/// Reads in one round.
const SLOTS: usize = 32;
/// Threads besides the caller's own.
const THREADS: usize = 3;
/// The same where discards are passed: dm-era commits its metadata once for all that arrive at a time.
const THREADS_FOR_DISCARDS: usize = 7;
/// Up to this many reads are not worth waking anybody.
const FEW: usize = 2;

struct Slot {
    extent: Option<Extent>,
    /// Taken out while it is being read into.
    buffer: Option<AlignedBuffer>,
    result: io::Result<()>,
}

/// What a round does to its extents.
#[derive(Clone, Copy)]
enum Work {
    Read,
    Discard,
}

struct Round {
    work: Work,
    slots: Vec<Slot>,
    filled: usize,
    next: usize,
    done: usize,
    quit: bool,
}

struct Shared {
    device: Arc<BlockDevice>,
    /// The same, open for writing, where discards are passed.
    discards: Option<BlockDevice>,
    round: Mutex<Round>,
    begin: Condvar,
    end: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads slots until none is left, without holding the lock meanwhile.
    fn work<'a>(&'a self, mut round: MutexGuard<'a, Round>) -> MutexGuard<'a, Round> {
        while round.next < round.filled {
            let index = round.next;
            round.next += 1;
            let (work, extent) = (round.work, round.slots[index].extent);
            let mut buffer = round.slots[index].buffer.take();
            drop(round);
            let result = match (work, extent, &mut buffer, &self.discards) {
                (Work::Read, Some(extent), Some(buffer), _) => {
                    self.device.read_extent(extent, buffer.bytes_mut())
                }
                (Work::Discard, Some(extent), _, Some(device)) => device.discard(extent),
                _ => Err(io::ErrorKind::InvalidInput.into()),
            };
            round = self.lock();
            round.slots[index].buffer = buffer;
            round.slots[index].result = result;
            round.done += 1;
            if round.done == round.filled {
                self.end.notify_all();
            }
        }
        round
    }

    fn serve(&self) {
        let mut round = self.lock();
        loop {
            round = self.work(round);
            if round.quit {
                return;
            }
            round = self.begin.wait(round).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Why the runs were not read.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The device failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The time was over before the last round.
    #[error("not finished in time")]
    Late,
}

/// The threads and their buffers.
pub struct PausePool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for PausePool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PausePool").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

impl PausePool {
    /// Starts the threads for reads of `device`, and for discards where `discards` is the same device, open
    /// for writing.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(device: Arc<BlockDevice>, discards: Option<BlockDevice>) -> io::Result<Self> {
        let threads = if discards.is_some() { THREADS_FOR_DISCARDS } else { THREADS };
        let slot = || Slot { extent: None, buffer: Some(AlignedBuffer::new(SLOT)), result: Ok(()) };
        let slots = std::iter::repeat_with(slot).take(SLOTS).collect();
        let round = Mutex::new(Round { work: Work::Read, slots, filled: 0, next: 0, done: 0, quit: false });
        let shared = Arc::new(Shared { device, discards, round, begin: Condvar::new(), end: Condvar::new() });
        let mut pool = Self { shared, threads: Vec::with_capacity(threads) };
        for n in 0..threads {
            let shared = Arc::clone(&pool.shared);
            let builder = std::thread::Builder::new().name(format!("suspects-{n}")).stack_size(128 << 10);
            pool.threads.push(builder.spawn(move || {
                if let Err(e) = set_urgency(PAUSE_URGENCY) {
                    log::debug!("reading suspects without real-time priority: {e}");
                }
                shared.serve();
            })?);
        }
        Ok(pool)
    }

    /// Reads `runs` one after the other into `out`. No new round begins after `deadline`.
    ///
    /// # Errors
    /// See [`PoolError`]; then `out` holds a part.
    pub fn read(&mut self, runs: &[Extent], out: &mut Arena, deadline: Instant) -> Result<(), PoolError> {
        let mut pieces = runs.iter().flat_map(|run| split(*run));
        loop {
            if Instant::now() >= deadline {
                return Err(PoolError::Late);
            }
            let Some(mut round) = self.round(Work::Read, &mut pieces) else { return Ok(()) };
            collect(&mut round, out)?;
        }
    }

    /// Discards `parts`, as many at a time as there are threads. When one fails no further round begins.
    ///
    /// # Errors
    /// The device's.
    pub fn discard(&mut self, parts: &[Extent]) -> io::Result<()> {
        let mut parts = parts.iter().copied();
        while let Some(mut round) = self.round(Work::Discard, &mut parts) {
            let filled = round.filled;
            for slot in &mut round.slots[..filled] {
                slot.extent = None;
                std::mem::replace(&mut slot.result, Ok(()))?;
            }
        }
        Ok(())
    }

    /// One round of what `pieces` has next, to its end. `None` when that is nothing.
    fn round(&self, work: Work, pieces: &mut impl Iterator<Item = Extent>) -> Option<MutexGuard<'_, Round>> {
        let mut round = self.shared.lock();
        (round.work, round.filled, round.next, round.done) = (work, 0, 0, 0);
        for piece in pieces.take(SLOTS) {
            let filled = round.filled;
            round.slots[filled].extent = Some(piece);
            round.filled += 1;
        }
        if round.filled == 0 {
            return None;
        }
        if round.filled > FEW || matches!(work, Work::Discard) {
            self.shared.begin.notify_all();
        }
        round = self.shared.work(round);
        while round.done < round.filled {
            round = self.shared.end.wait(round).unwrap_or_else(PoisonError::into_inner);
        }
        Some(round)
    }
}

/// Appends what a round has read, in order.
fn collect(round: &mut Round, out: &mut Arena) -> io::Result<()> {
    let filled = round.filled;
    for slot in &mut round.slots[..filled] {
        std::mem::replace(&mut slot.result, Ok(()))?;
        if let (Some(extent), Some(buffer)) = (slot.extent.take(), &slot.buffer) {
            let len = usize::try_from(extent.len().0).unwrap_or(usize::MAX).saturating_mul(SECTOR_SIZE);
            out.append(len, |from, part| {
                part.copy_from_slice(&buffer.bytes()[from..from + part.len()]);
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// A run in pieces that fit a slot.
fn split(run: Extent) -> impl Iterator<Item = Extent> {
    let (first, end) = (run.start().0, run.end());
    let pieces = run.len().0.div_ceil(SLOT_SECTORS);
    (0..pieces).filter_map(move |n| {
        let start = first + n * SLOT_SECTORS;
        Extent::between(Sector(start), Sector(start + SLOT_SECTORS).min(end))
    })
}

impl Drop for PausePool {
    fn drop(&mut self) {
        {
            let mut round = self.shared.lock();
            (round.filled, round.next) = (0, 0);
            round.quit = true;
        }
        self.shared.begin.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a reading thread panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Sectors;

    #[test]
    fn runs_are_split_without_gap_or_overlap() {
        let run = Extent::new(Sector(7), Sectors(2 * SLOT_SECTORS + 3)).unwrap();
        let pieces: Vec<_> = split(run).collect();
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[0].start(), run.start());
        assert_eq!(pieces[2].end(), run.end());
        assert!(pieces.windows(2).all(|p| p[0].end() == p[1].start()));
    }
}
