//! The last round without a capture: the volumes stand still for as long as it takes to read it.
//!
//! ```text
//!   suspend all ── flush, roll each ── read what was written before the roll ── resume all       then copied from memory
//! ```
//!
//! Always holds: the epoch is what the volumes held in that pause, and the era that began in it begins exactly at the
//! epoch. What was not read in time is one more round, copied live, and another pause follows.

use std::time::Duration;

use ftdm_units::Era;

use super::{CutOrder, Primary, SyncStep};

impl Primary {
    pub(super) fn still_round(&mut self, now: Duration, budget: Duration) {
        if self.enter_sync(now, SyncStep::Still) && !self.freezes_first() {
            self.order_still_round(budget);
        }
    }

    pub(super) fn order_still_round(&mut self, budget: Duration) {
        let (attempt, since) = (self.syncing.attempts, self.syncing.attempt.since.clone());
        let epoch = self.begin_cut();
        self.order(CutOrder::Still { attempt, since, epoch, budget });
    }

    fn is_still(&self, attempt: u32) -> bool {
        self.syncing.step == SyncStep::Still && attempt == self.syncing.attempts
    }

    pub(super) fn still_read(&mut self, now: Duration, attempt: u32, eras: Vec<Era>, bytes: u64) {
        let Some(epoch) = self.cuts.cutting.filter(|_| self.is_still(attempt)) else { return };
        self.thaw();
        if self.syncing.attempt.carrier.is_none() && !self.would_stage(bytes) {
            // It is written in place, which takes a round of its own.
            self.cuts.cutting = None;
            self.note_round(now, false, eras, bytes);
            return self.copy_round(now);
        }
        self.cuts.next_epoch = epoch.next();
        self.rolls.begin_interval(now);
        self.note_round(now, true, eras, bytes);
        if !self.guard_journal(now, self.syncing.attempt.stored.saturating_add(bytes)) {
            return;
        }
        match self.syncing.attempt.carrier {
            Some(_) => self.copy(now, SyncStep::LastRound),
            None => self.stage(now, SyncStep::LastRound),
        }
    }

    pub(super) fn still_unread(
        &mut self,
        now: Duration,
        attempt: u32,
        eras: Vec<Era>,
        bytes: u64,
        reason: &str,
    ) {
        if !self.is_still(attempt) {
            return;
        }
        self.thaw();
        self.cuts.cutting = None;
        self.counters.void_cuts += 1;
        self.cuts.void_run += 1;
        self.note_round(now, false, eras, bytes);
        if self.cuts.void_run >= self.config.void_limit {
            let run = std::mem::take(&mut self.cuts.void_run);
            let reason =
                format!("the volumes were suspended {run} times for nothing, the last time: {reason}");
            return self.lose_replication(now, &reason);
        }
        self.copy_round(now);
    }
}
