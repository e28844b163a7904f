//! Cuts: when an epoch ends, and how many may be under way.
//!
//! Always holds: epoch numbers rise by one per cut that was taken; a void cut uses up none.

use std::time::Duration;

use ftdm_units::Era;

use super::commit::Checkpoint;
use super::plan::Carrier;
use super::{Capture, Cut, CutOrder, Primary, PrimaryAction, Replication, SyncStep, Until};
use crate::ids::{Digest, Epoch};
use crate::mutant::{self, Mutant};

/// Longest wait before a cut that was due is tried again, however long epochs are.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

impl Primary {
    pub(super) fn cut_timeout(&mut self, now: Duration) {
        let waits = self.cutting.is_some() || self.hooks.is_asked();
        if self.capture != Capture::On || waits || self.cut_at > now {
            return;
        }
        self.cut_at = (self.cut_at + self.config.epoch_interval).max(now);
        if self.switch_bars_cuts() {
            self.cut_at = now + self.retry_interval();
            return self.follow();
        }
        if self.commits.in_flight.len() >= self.config.window || !self.journal_has_room() {
            self.counters.void_ticks += 1;
            self.cut_at = now + self.retry_interval();
            return self.follow();
        }
        if self.sync == SyncStep::LastRound {
            if !self.cut_part() {
                self.follow();
            }
            return;
        }
        if self.freezes_first() {
            return;
        }
        let epoch = self.begin_cut();
        // A host that is too slow for the budget gets longer pauses before it loses its replication.
        let stretched = self.config.pause_budget * 2u32.saturating_pow(self.void_run.min(16));
        let budget = stretched.min(self.config.pause_limit).max(self.config.pause_budget);
        self.round_cutting();
        let roll = self.sync == SyncStep::None && self.roll_is_due(now);
        let may_rest = self.may_rest(now, roll);
        let hold = self.is_last_cut(epoch);
        self.order(CutOrder::Cut(Cut { epoch, roll, budget, hold, part: false, may_rest }));
    }

    /// Keeps up with the log. One that is slow is not asked again: what was queued would stand before the next cut.
    fn follow(&mut self) {
        if !self.is_following || mutant::is(Mutant::FollowEachTick) {
            self.is_following = true;
            self.order(CutOrder::Follow);
        }
    }

    /// The next epoch is about to end: what was asked for until now is in it.
    pub(super) fn begin_cut(&mut self) -> Epoch {
        let epoch = self.next_epoch;
        self.cutting = Some(epoch);
        self.commits.begin_cut(epoch);
        epoch
    }

    pub(super) fn checkpoint(&mut self, now: Duration, id: u64, until: Until) {
        let rests = self.config.interval && self.is_in_sync();
        if self.capture != Capture::On && !rests {
            let reason = match &self.replication {
                Replication::Degraded { reason } | Replication::Failed { reason } => reason.clone(),
                Replication::Syncing | Replication::InSync => "the backup is being synchronised".into(),
            };
            return self.act(PrimaryAction::CheckpointFailed { id, reason });
        }
        // The cut under way may have paused the volume before the request came: only the next one
        // holds everything written before it.
        let epoch = self.cutting.filter(|_| mutant::is(Mutant::CheckpointOfRunningCut));
        self.commits.checkpoints.push(Checkpoint { id, until, epoch, is_cut: false });
        self.cut_at = now;
        self.cut_timeout(now);
        self.interval_timeout(now);
        self.hooks_timeout(now);
    }

    pub(super) fn cut_taken(&mut self, now: Duration, eras: Option<Vec<Era>>) {
        let Some(epoch) = self.cutting.take() else { return };
        if std::mem::take(&mut self.cuts_part) {
            return self.part_taken(now);
        }
        self.thaw();
        if self.capture != Capture::On && self.config.still_budget.is_none() {
            return;
        }
        self.void_run = 0;
        self.stall.ended(now);
        self.last_taken = now;
        self.next_epoch = epoch.next();
        self.round_cut(epoch);
        self.end_copy();
        let after = self.after_epoch(now, eras);
        self.act(PrimaryAction::Ship { epoch, after });
        let stored = std::mem::take(&mut self.log_used);
        self.commits.cut(now, epoch, stored);
        self.answer_checkpoints();
        if self.commits.wants_cut() {
            self.cut_at = now;
        }
        self.cut_timeout(now);
    }

    pub(super) fn cut_void(&mut self, now: Duration, reason: &str) {
        if self.cutting.take().is_none() {
            return;
        }
        self.last_cut_void();
        self.stall.void(reason);
        self.thaw();
        self.counters.void_cuts += 1;
        self.void_run += 1;
        if std::mem::take(&mut self.cuts_part) {
            // It does not matter before the log is full.
            self.cut_at = now + self.retry_interval();
            return self.round_over(now);
        }
        if self.void_run >= self.config.void_limit {
            let run = std::mem::take(&mut self.void_run);
            self.lose_replication(now, &format!("{run} void cuts in a row, the last: {reason}"));
        } else {
            self.cut_at = now + self.retry_interval();
        }
    }

    pub(super) fn retry_interval(&self) -> Duration {
        self.config.epoch_interval.min(RETRY_INTERVAL)
    }

    pub(super) fn log_use(&mut self, now: Duration, used: u64, capacity: u64) {
        self.log_percent = used / (capacity / 100).max(1);
        self.log_used = used;
        if self.capture != Capture::On {
            return;
        }
        if self.sync == SyncStep::LastRound {
            return self.last_round_log(now);
        }
        let waits = self.config.throttles && self.sync == SyncStep::None;
        if waits || self.log_percent < self.config.log_watermark.into() {
            return;
        }
        if self.sync == SyncStep::Finishing {
            self.cut_short(now);
        } else {
            let reason = format!("the log is full ({used} of {capacity} bytes): the backup is too slow");
            self.lose_replication(now, &reason);
        }
    }

    pub(super) fn encoded(&mut self, epoch: Epoch, digest: Digest, stored: u64) {
        if self.attempt.carrier == Some(Carrier::Staged) && epoch == self.attempt.epoch {
            // With what was gathered and had not filled a frame yet.
            self.attempt.stored = stored;
        }
        self.commits.encoded(epoch, digest, stored);
    }
}
