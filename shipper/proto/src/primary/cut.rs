//! Cuts: when an epoch ends, and how many may be under way.
//!
//! Always holds: epoch numbers rise by one per cut that was taken; a void cut uses up none.

use std::time::Duration;

use super::{Capture, Checkpoint, InFlight, Primary, PrimaryAction, Replication, SyncStep, Until};
use crate::ids::{Digest, Epoch};
use crate::mutant::{self, Mutant};

/// Time between two cuts while the base copy runs.
const COPY_CUT_INTERVAL: Duration = Duration::from_millis(500);
/// Log use, in percent, at which one is due all the same.
const COPY_CUT_PERCENT: u64 = 25;
/// Longest wait before a cut that was due is tried again, however long epochs are.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

impl Primary {
    pub(super) fn cut_timeout(&mut self, now: Duration) {
        if self.capture != Capture::On || self.cutting.is_some() || self.cut_at > now {
            return;
        }
        self.cut_at = (self.cut_at + self.config.epoch_interval).max(now);
        if self.in_flight.len() >= self.config.window || !self.journal_has_room() {
            self.counters.void_ticks += 1;
            self.cut_at = now + self.retry_interval();
            self.act(PrimaryAction::Follow);
            return;
        }
        if self.sync == SyncStep::Copying && !self.copy_wants_cut(now) {
            self.act(PrimaryAction::Follow);
            return;
        }
        let epoch = self.next_epoch;
        let commit_point = self.sync != SyncStep::Copying || mutant::is(Mutant::CommitPointAlways);
        self.cutting = Some((epoch, commit_point));
        for checkpoint in self.checkpoints.iter_mut().filter(|one| one.awaits(commit_point)) {
            checkpoint.epoch = Some(epoch);
        }
        // A host that is too slow for the budget gets longer pauses before it loses its replication.
        let stretched = self.config.pause_budget * 2u32.saturating_pow(self.void_run.min(16));
        let budget = stretched.min(self.config.pause_limit).max(self.config.pause_budget);
        self.round_cutting();
        self.act(PrimaryAction::Cut { epoch, commit_point, budget });
    }

    /// While the base copy runs cuts only drain the log, and each makes the pieces that are being read
    /// worthless: so they are rare, unless the log fills or somebody asks.
    fn copy_wants_cut(&self, now: Duration) -> bool {
        now >= self.last_cut + COPY_CUT_INTERVAL
            || self.log_percent >= COPY_CUT_PERCENT
            || self.checkpoints.iter().any(|checkpoint| checkpoint.awaits(false))
    }

    pub(super) fn checkpoint(&mut self, now: Duration, id: u64, until: Until) {
        if self.capture != Capture::On {
            let reason = match &self.replication {
                Replication::Degraded { reason } | Replication::Failed { reason } => reason.clone(),
                Replication::Syncing | Replication::InSync => "the full sync has only begun".into(),
            };
            return self.act(PrimaryAction::CheckpointFailed { id, reason });
        }
        // The cut under way may have paused the volume before the request came: only the next one
        // holds everything written before it.
        let mut checkpoint = Checkpoint { id, until, epoch: None, is_cut: false };
        if let Some((epoch, commit_point)) = self.cutting
            && checkpoint.awaits(commit_point)
            && mutant::is(Mutant::CheckpointOfRunningCut)
        {
            checkpoint.epoch = Some(epoch);
        }
        self.checkpoints.push(checkpoint);
        self.cut_at = now;
        self.cut_timeout(now);
    }

    pub(super) fn cut_taken(&mut self, now: Duration) {
        let Some((epoch, commit_point)) = self.cutting.take() else { return };
        if self.capture != Capture::On {
            return;
        }
        self.void_run = 0;
        self.last_cut = now;
        self.next_epoch = epoch.next();
        self.round_cut(epoch);
        self.act(PrimaryAction::Ship { epoch, commit_point });
        let stored = std::mem::take(&mut self.log_used);
        self.in_flight.push_back(InFlight {
            epoch,
            commit_point,
            cut_at: now,
            digest: None,
            stored,
            staged: false,
        });
        for checkpoint in self.checkpoints.iter_mut().filter(|one| one.epoch == Some(epoch)) {
            checkpoint.is_cut = true;
        }
        self.answer_checkpoints();
        let makes_commit_points = self.sync != SyncStep::Copying;
        if self.checkpoints.iter().any(|checkpoint| checkpoint.awaits(makes_commit_points)) {
            self.cut_at = now;
        }
        self.cut_timeout(now);
    }

    pub(super) fn cut_void(&mut self, now: Duration, reason: &str) {
        if self.cutting.take().is_none() {
            return;
        }
        self.counters.void_cuts += 1;
        self.void_run += 1;
        // While the base copy runs nothing waits for a cut but the log, and that has its own limit.
        if self.void_run >= self.config.void_limit && self.sync != SyncStep::Copying {
            let run = std::mem::take(&mut self.void_run);
            self.lose_replication(now, &format!("{run} void cuts in a row, the last: {reason}"));
        } else {
            self.cut_at = now + self.retry_interval();
        }
    }

    fn retry_interval(&self) -> Duration {
        self.config.epoch_interval.min(RETRY_INTERVAL)
    }

    pub(super) fn log_use(&mut self, now: Duration, used: u64, capacity: u64) {
        self.log_percent = used / (capacity / 100).max(1);
        self.log_used = used;
        if self.capture == Capture::On && self.log_percent >= self.config.log_watermark.into() {
            let reason = format!("the log is full ({used} of {capacity} bytes): the backup is too slow");
            self.lose_replication(now, &reason);
        }
    }

    pub(super) fn encoded(&mut self, epoch: Epoch, digest: Digest, stored: u64) {
        if let Some(one) = self.in_flight.iter_mut().find(|one| one.epoch == epoch) {
            (one.digest, one.stored) = (Some(digest), stored);
        }
    }
}
