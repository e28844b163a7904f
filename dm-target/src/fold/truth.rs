//! Reading the truth about suspects, most of it while the volume runs.
//!
//! ```text
//! read live, at any time       entries 0..p were read from the log, then the suspects among them from the device
//! entry p or a later one       was logged: what it touches is not known any more
//! read in the pause            what is not known; after it every suspect is
//! ```
//! Whatever can change a sector after it was read live is logged after that, as entry p or a later one: a write that
//! had completed and was logged before had changed it before.
//!
//! Always holds: what is known is what the device holds unless an entry that was not looked at touches it; a part of
//! the truth is never moved.

use super::{find_suspects, merged, plan_reads};
use crate::log_writes::epoch_log::{EpochLog, Suspect};
use crate::units::{Extent, SECTOR_SIZE, Sector, Sectors};

/// Suspects at most this far apart are read in one.
const READ_GAP: Sectors = Sectors(64);

/// Room for what is planned, so that nothing is allocated in a pause.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// What is to be read, in order; the content is to be appended to the epoch's truth.
    pub(crate) reads: Vec<Extent>,
    /// The suspects that are read by it.
    missing: Vec<Suspect>,
    suspects: Vec<Suspect>,
}

impl Plan {
    /// Makes room for what `entries` more entries may bring.
    pub(crate) fn reserve(&mut self, epoch: &EpochLog, entries: usize) {
        let room = 2 * epoch.entries.len() + entries;
        self.missing.reserve(room.saturating_sub(self.missing.len()));
        self.suspects.reserve(room.saturating_sub(self.suspects.len()));
        self.reads.reserve(room.saturating_sub(self.reads.len()));
    }

    /// Plans to read the suspects of `epoch` that are not known. `sorted` is how much of its order is sorted; the rest is
    /// sorted by itself.
    pub(crate) fn make(&mut self, epoch: &mut EpochLog, sorted: usize) {
        let EpochLog { entries, order, suspects, looked_at, truth, .. } = epoch;
        let (head, tail) = order.split_at(sorted);
        let fresh = *looked_at;
        let touched = merged(entries, head, tail).filter(|i| *i as usize >= fresh);
        subtract(suspects, touched.map(|i| entries[i as usize].extent), &mut self.missing);
        std::mem::swap(suspects, &mut self.missing);
        *looked_at = entries.len();
        find_suspects(entries, head, tail, &mut self.suspects);
        subtract(&self.suspects, suspects.iter().map(|known| known.extent), &mut self.missing);
        plan_reads(&mut self.missing, READ_GAP, truth.len(), &mut self.reads);
    }

    /// Keeps so many of the runs that are to be read, from the first that begins at `from` or later on. Returns where the
    /// next begins; `None` when nothing is left out.
    pub(crate) fn keep(&mut self, from: Sector, runs: usize, truth: usize) -> Option<Sector> {
        let first = self.missing.partition_point(|suspect| suspect.extent.start() < from);
        let first = if first == self.missing.len() { 0 } else { first };
        self.missing.drain(..first);
        let next = self.missing.get(runs).map(|suspect| suspect.extent.start());
        self.missing.truncate(runs);
        plan_reads(&mut self.missing, READ_GAP, truth, &mut self.reads);
        if first > 0 { next.or(Some(Sector(0))) } else { next }
    }

    /// What was planned was read.
    pub(crate) fn done(&mut self, epoch: &mut EpochLog) {
        std::mem::swap(&mut epoch.suspects, &mut self.suspects);
        epoch.suspects.clear();
        let (mut known, mut read) = (self.suspects.iter().peekable(), self.missing.iter().peekable());
        while let Some(next) = match (known.peek(), read.peek()) {
            (Some(k), Some(r)) if k.extent.start() > r.extent.start() => read.next(),
            (Some(_), _) => known.next(),
            (None, _) => read.next(),
        } {
            epoch.suspects.push(*next);
        }
    }

    /// Runs that are to be read.
    pub(crate) fn size(&self) -> usize {
        self.missing.len()
    }
}

/// What of `runs`, sorted and disjoint, is not in `without`, sorted by where they begin.
fn subtract(runs: &[Suspect], without: impl Iterator<Item = Extent>, left: &mut Vec<Suspect>) {
    left.clear();
    let mut without = without.peekable();
    let mut covered = Sector(0);
    for run in runs {
        let end = run.extent.end();
        let mut at = run.extent.start();
        while at < end {
            while let Some(extent) = without.next_if(|extent| extent.start() <= at) {
                covered = covered.max(extent.end());
            }
            if covered > at {
                at = covered.min(end);
                continue;
            }
            let next = without.peek().map_or(end, |extent| extent.start().min(end));
            if let Some(extent) = Extent::between(at, next) {
                let skipped = usize::try_from(at.0 - run.extent.start().0).unwrap_or(usize::MAX);
                left.push(Suspect { extent, truth: run.truth + skipped.saturating_mul(SECTOR_SIZE) });
            }
            at = next;
        }
    }
}
