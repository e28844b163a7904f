//! Cuts: when an epoch ends, and how many may be under way.
//!
//! Always holds: epoch numbers rise by one per cut that was taken; a void cut uses up none.

use std::time::Duration;

use ftdm_units::Era;

use super::budget::Budget;
use super::commit::Checkpoint;
use super::plan::Carrier;
use super::stall::Stall;
use super::{Capture, Cut, CutOrder, Primary, PrimaryAction, Replication, SyncStep, Until};
use crate::ids::{Digest, Epoch};
use crate::mutant::{self, Mutant};

/// Longest wait before a cut that was due is tried again, however long epochs are.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// When the next cut is due, the one that is under way, and how full the log is.
#[derive(Debug)]
pub(super) struct CutClock {
    pub(super) next_epoch: Epoch,
    pub(super) cut_at: Duration,
    /// When a cut was taken last.
    pub(super) last_taken: Duration,
    /// The cut that was ordered and is not done.
    pub(super) cutting: Option<Epoch>,
    /// It cuts off a part.
    pub(super) is_part: bool,
    /// The follow that was ordered is not done.
    pub(super) is_following: bool,
    /// What keeps the next cut from succeeding.
    pub(super) stall: Stall,
    /// Void cuts since the last one that was taken.
    pub(super) void_run: u32,
    /// How long the next pause may last.
    pub(super) budget: Budget,
    pub(super) log_percent: u64,
    pub(super) log_used: u64,
}

impl CutClock {
    /// The first cut ends this epoch.
    pub(super) fn new(next_epoch: Epoch) -> Self {
        Self {
            next_epoch,
            cut_at: Duration::ZERO,
            last_taken: Duration::ZERO,
            cutting: None,
            is_part: false,
            is_following: false,
            stall: Stall::default(),
            void_run: 0,
            budget: Budget::default(),
            log_percent: 0,
            log_used: 0,
        }
    }

    /// The result of the cut under way, if there is one, does not count any more.
    pub(super) fn give_up(&mut self) {
        (self.cutting, self.is_part) = (None, false);
    }

    /// An epoch has ended.
    fn taken(&mut self, now: Duration, epoch: Epoch) {
        self.void_run = 0;
        self.budget.taken();
        self.stall.ended(now);
        self.last_taken = now;
        self.next_epoch = epoch.next();
    }
}

impl Primary {
    pub(super) fn cut_timeout(&mut self, now: Duration) {
        let waits = self.cuts.cutting.is_some() || self.hooks.is_asked();
        if self.capture != Capture::On || waits || self.cuts.cut_at > now {
            return;
        }
        self.cuts.cut_at = (self.cuts.cut_at + self.config.epoch_interval).max(now);
        if self.switch_bars_cuts() {
            self.cuts.cut_at = now + self.retry_interval();
            return self.follow();
        }
        let waits_for_number = !self.has_number() && self.syncing.step != SyncStep::LastRound;
        if self.commits.in_flight.len() >= self.config.window || !self.journal_has_room() || waits_for_number
        {
            self.counters.void_ticks += 1;
            self.cuts.cut_at = now + self.retry_interval();
            return self.follow();
        }
        if self.syncing.step == SyncStep::LastRound {
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
        let budget = self.cuts.budget.next(self.config.pause_budget, self.config.pause_limit);
        self.round_cutting();
        let roll = self.syncing.step == SyncStep::None && self.roll_is_due(now);
        let may_rest = self.may_rest(now, roll);
        let hold = self.is_last_cut(epoch);
        self.order(CutOrder::Cut(Cut { epoch, roll, budget, hold, part: false, may_rest }));
    }

    /// Keeps up with the log. One that is slow is not asked again: what was queued would stand before the next cut.
    fn follow(&mut self) {
        if !self.cuts.is_following || mutant::is(Mutant::FollowEachTick) {
            self.cuts.is_following = true;
            self.order(CutOrder::Follow);
        }
    }

    /// The next epoch is about to end: what was asked for until now is in it.
    pub(super) fn begin_cut(&mut self) -> Epoch {
        let epoch = self.cuts.next_epoch;
        self.cuts.cutting = Some(epoch);
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
        let epoch = self.cuts.cutting.filter(|_| mutant::is(Mutant::CheckpointOfRunningCut));
        let closed_at = self.fencing.usage.filter(|usage| !usage.open).and_then(|usage| usage.mark);
        self.commits.checkpoints.push(Checkpoint { id, until, epoch, is_cut: false, closed_at });
        self.cuts.cut_at = now;
        self.cut_timeout(now);
        self.interval_timeout(now);
        self.hooks_timeout(now);
    }

    pub(super) fn cut_taken(&mut self, now: Duration, eras: Option<Vec<Era>>) {
        let Some(epoch) = self.cuts.cutting.take() else { return };
        if std::mem::take(&mut self.cuts.is_part) {
            return self.part_taken(now);
        }
        self.thaw();
        if self.capture != Capture::On && self.config.still_budget.is_none() {
            return;
        }
        self.cuts.taken(now, epoch);
        self.note_numbers();
        self.round_cut(epoch);
        self.end_copy();
        let after = self.after_epoch(now, eras);
        self.act(PrimaryAction::Ship { epoch, after });
        let stored = std::mem::take(&mut self.cuts.log_used);
        self.commits.cut(now, epoch, stored);
        self.answer_checkpoints();
        if self.commits.wants_cut() {
            self.cuts.cut_at = now;
        }
        self.cut_timeout(now);
    }

    pub(super) fn cut_void(&mut self, now: Duration, reason: &str) {
        if self.cuts.cutting.take().is_none() {
            return;
        }
        self.last_cut_void();
        self.cuts.stall.void(reason);
        self.thaw();
        self.counters.void_cuts += 1;
        self.cuts.void_run += 1;
        if std::mem::take(&mut self.cuts.is_part) {
            // It does not matter before the log is full.
            self.cuts.cut_at = now + self.retry_interval();
            return self.round_over(now);
        }
        self.cuts.budget.void(self.config.pause_budget, self.config.pause_limit);
        if self.cuts.void_run >= self.config.void_limit {
            let run = std::mem::take(&mut self.cuts.void_run);
            self.lose_replication(now, &format!("{run} void cuts in a row, the last: {reason}"));
        } else {
            self.cuts.cut_at = now + self.retry_interval();
        }
    }

    pub(super) fn retry_interval(&self) -> Duration {
        self.config.epoch_interval.min(RETRY_INTERVAL)
    }

    pub(super) fn log_use(&mut self, now: Duration, used: u64, capacity: u64) {
        self.cuts.log_percent = used / (capacity / 100).max(1);
        self.cuts.log_used = used;
        if self.capture != Capture::On {
            return;
        }
        if self.syncing.step == SyncStep::LastRound {
            return self.last_round_log(now);
        }
        let waits = self.config.throttles && self.syncing.step == SyncStep::None;
        if waits || self.cuts.log_percent < self.config.log_watermark.into() {
            return;
        }
        if self.syncing.step == SyncStep::Finishing {
            self.cut_short(now);
        } else {
            let reason = format!("the log is full ({used} of {capacity} bytes): {}", self.awaited(now));
            self.lose_replication(now, &reason);
        }
    }

    pub(super) fn encoded(&mut self, epoch: Epoch, digest: Digest, stored: u64) {
        if self.syncing.attempt.carrier == Some(Carrier::Staged) && epoch == self.syncing.attempt.epoch {
            // With what was gathered and had not filled a frame yet.
            self.syncing.attempt.stored = stored;
        }
        self.commits.encoded(epoch, digest, stored);
    }
}
