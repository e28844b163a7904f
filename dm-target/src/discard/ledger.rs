//! What a capture knows of the guest's discards.
//!
//! Always holds: a sector is pending only if it was discarded in an epoch that has ended, neither written in
//! that epoch (the log does not prove the order of the two) nor in a later one, and not given to the volume;
//! what was given to the volume is in the epoch that ends next, whatever void cuts come between, unless it is
//! written before that.

use std::time::{Duration, Instant};

use super::outlet::{Issued, Outlet};
use super::pending::Pending;
use crate::log_writes::epoch_log::{Entry, EpochLog};
use crate::pause::pool::PausePool;
use crate::pause::pulse::Pulse;
use crate::units::Sectors;

/// Extents that may be pending: 64 KiB of memory.
const PENDING: usize = 4096;
/// Extents that may be given to the volume in one epoch.
const ISSUED: usize = 1024;

/// Figures of the discards of a capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiscardFigures {
    /// Discarded and not written since, to be given to the volume.
    pub pending: Sectors,
    /// Given to the volume so far.
    pub given: Sectors,
    /// Forgotten for want of room: their space is not given back until they are discarded again.
    pub forgotten: Sectors,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ledger {
    outlet: Option<Outlet>,
    pending: Pending,
    issued: Pending,
    /// Entries of the epoch whose sectors were taken out of `pending`.
    noted: usize,
    /// There is something that can be given to the volume.
    ready: bool,
    given: u64,
}

impl Ledger {
    /// Without an outlet discards are not remembered.
    pub(crate) fn new(outlet: Option<Outlet>) -> Self {
        let (pending, issued) = if outlet.is_some() { (PENDING, ISSUED) } else { (0, 0) };
        Self { outlet, ..Self::with_limits(pending, issued) }
    }

    fn with_limits(pending: usize, issued: usize) -> Self {
        let (pending, issued) = (Pending::new(pending), Pending::new(issued));
        Self { outlet: None, pending, issued, noted: 0, ready: false, given: 0 }
    }

    pub(crate) fn passes(&self) -> bool {
        self.outlet.is_some()
    }

    /// Takes in what was written in the epoch so far. Does not allocate.
    pub(crate) fn note(&mut self, entries: &[Entry]) {
        if !self.pending.is_empty() {
            for entry in &entries[self.noted.min(entries.len())..] {
                self.pending.remove(entry.extent);
            }
        }
        self.noted = entries.len();
    }

    /// How long a pause with this budget may take for discards. `None` when there is nothing to do.
    pub(crate) fn slice(&self, budget: Duration) -> Option<Duration> {
        let outlet = self.outlet.as_ref().filter(|_| self.ready)?;
        outlet.slice(budget)
    }

    /// Whether a pause would give discards to the volume.
    pub(crate) fn has_more(&self) -> bool {
        self.ready && self.outlet.is_some()
    }

    /// Gives discards to the volume until `end`. Only while the visible device is suspended, and after
    /// everything written was [`note`](Self::note)d.
    pub(crate) fn issue(&mut self, pool: &mut PausePool, end: Instant, pulse: &dyn Pulse) -> Issued {
        let Some(outlet) = &mut self.outlet else { return Issued::default() };
        let issued = outlet.issue(&mut self.pending, &mut self.issued, pool, end, pulse);
        self.given += issued.sectors;
        issued
    }

    /// The epoch has ended: what it discarded is pending from here on, what was given to the volume is unknown
    /// in it.
    pub(crate) fn close(&mut self, epoch: &mut EpochLog) {
        if let Some(outlet) = self.outlet.take() {
            self.close_sets(epoch);
            self.ready = outlet.can_issue(&self.pending);
            self.outlet = Some(outlet);
        }
    }

    fn close_sets(&mut self, epoch: &mut EpochLog) {
        self.note(&epoch.entries);
        self.noted = 0;
        if !self.issued.is_empty() {
            for entry in &epoch.entries {
                self.issued.remove(entry.extent);
            }
            self.issued.drain_into(&mut epoch.unknown);
        }
        if !epoch.discards.is_empty() {
            let mut fresh = Pending::new(epoch.discards.len() + epoch.entries.len());
            fresh.add_all(epoch.discards.iter().copied());
            for entry in &epoch.entries {
                fresh.remove(entry.extent);
            }
            self.pending.add_all(fresh.extents().iter().copied());
        }
    }

    pub(crate) fn figures(&self) -> DiscardFigures {
        DiscardFigures {
            pending: self.pending.sectors(),
            given: Sectors(self.given),
            forgotten: Sectors(self.pending.forgotten().0 + self.issued.forgotten().0),
        }
    }

    /// Lets nothing through to the volume any more.
    pub(crate) fn shut(&self) {
        if let Some(Err(e)) = self.outlet.as_ref().map(Outlet::shut) {
            log::error!("shutting off discards: {e}");
        }
    }
}

#[cfg(test)]
mod tests;
