//! Cuts: when an epoch ends, how many may be under way, and when one is committed.
//!
//! Always holds: epoch numbers rise by one per cut that was taken; a void cut uses up none.

use std::time::Duration;

use super::link::FIRST_BACKOFF;
use super::{Capture, Checkpoint, InFlight, Primary, PrimaryAction, Replication, SyncStep};
use crate::ids::{Digest, Epoch};
use crate::mutant::{self, Mutant};

/// Time between two cuts while the base copy runs.
const COPY_CUT_INTERVAL: Duration = Duration::from_millis(500);
/// Log use, in percent, at which one is due all the same.
const COPY_CUT_PERCENT: u64 = 25;

impl Primary {
    pub(super) fn cut_timeout(&mut self, now: Duration) {
        if self.capture != Capture::On || self.cutting.is_some() || self.cut_at > now {
            return;
        }
        self.cut_at = (self.cut_at + self.config.epoch_interval).max(now);
        if self.in_flight.len() >= self.config.window {
            self.counters.void_ticks += 1;
            self.cut_at = now + self.config.epoch_interval;
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
        for checkpoint in &mut self.checkpoints {
            checkpoint.epoch.get_or_insert(epoch);
        }
        // A host that is too slow for the budget gets longer pauses before it loses its replication.
        let stretched = self.config.pause_budget * 2u32.saturating_pow(self.void_run.min(16));
        let budget = stretched.min(self.config.pause_limit).max(self.config.pause_budget);
        self.act(PrimaryAction::Cut { epoch, commit_point, budget });
    }

    /// While the base copy runs cuts only drain the log, and each makes the pieces that are being read
    /// worthless: so they are rare, unless the log fills or somebody asks.
    fn copy_wants_cut(&self, now: Duration) -> bool {
        now >= self.last_cut + COPY_CUT_INTERVAL
            || self.log_percent >= COPY_CUT_PERCENT
            || self.checkpoints.iter().any(|checkpoint| checkpoint.epoch.is_none())
    }

    pub(super) fn checkpoint(&mut self, now: Duration, id: u64) {
        if self.capture != Capture::On {
            let reason = match &self.replication {
                Replication::Degraded { reason } => reason.clone(),
                Replication::Syncing | Replication::InSync => "the full sync has only begun".into(),
            };
            return self.act(PrimaryAction::CheckpointFailed { id, reason });
        }
        // The cut under way may have paused the volume before the request came: only the next one
        // holds everything written before it.
        let running = self.cutting.filter(|_| mutant::is(Mutant::CheckpointOfRunningCut));
        self.checkpoints.push(Checkpoint { id, epoch: running.map(|(epoch, _)| epoch), told: false });
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
        self.act(PrimaryAction::Ship { epoch, commit_point });
        self.in_flight.push_back(InFlight { epoch, commit_point, cut_at: now, digest: None });
        for checkpoint in self.checkpoints.iter_mut().filter(|one| one.epoch == Some(epoch) && !one.told) {
            checkpoint.told = true;
            self.actions.push_back(PrimaryAction::CheckpointCut { id: checkpoint.id, epoch });
        }
        if self.checkpoints.iter().any(|checkpoint| checkpoint.epoch.is_none()) {
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
            self.cut_at = now + self.config.epoch_interval;
        }
    }

    pub(super) fn log_use(&mut self, now: Duration, used: u64, capacity: u64) {
        self.log_percent = used / (capacity / 100).max(1);
        if self.capture == Capture::On && self.log_percent >= self.config.log_watermark.into() {
            let reason = format!("the log is full ({used} of {capacity} bytes): the backup is too slow");
            self.lose_replication(now, &reason);
        }
    }

    pub(super) fn encoded(&mut self, epoch: Epoch, digest: Digest) {
        if let Some(one) = self.in_flight.iter_mut().find(|one| one.epoch == epoch) {
            one.digest = Some(digest);
        }
    }

    /// STAGED(N) covers all earlier epochs as well; under the `auto` policy a wholly staged epoch is
    /// committed.
    pub(super) fn staged(&mut self, now: Duration, epoch: Epoch, digest: Digest) {
        let Some(named) = self.in_flight.iter().find(|one| one.epoch == epoch) else {
            // Acknowledged before, or of a chain that was given up.
            return;
        };
        if named.digest != Some(digest) && !mutant::is(Mutant::AnyDigestStaged) {
            let reason = format!("the backup staged epoch {epoch} with another digest");
            return self.lose_replication(now, &reason);
        }
        self.committed_digest = digest;
        while let Some(one) = self.in_flight.pop_front_if(|one| one.epoch <= epoch) {
            if one.commit_point {
                self.counters.epochs_committed += 1;
                self.committed = one.epoch;
                let lag = now.saturating_sub(one.cut_at);
                self.act(PrimaryAction::Committed { epoch: one.epoch, lag });
            }
        }
        if self.sync == SyncStep::Finishing && !self.committed.is_none() {
            self.sync = SyncStep::None;
            self.backoff = FIRST_BACKOFF;
            self.set_replication(Replication::InSync);
        }
        self.answer_checkpoints();
        self.cut_timeout(now);
    }

    fn answer_checkpoints(&mut self) {
        if self.sync != SyncStep::None {
            return;
        }
        let committed = self.committed;
        let is_done = |one: &mut Checkpoint| one.epoch.is_some_and(|epoch| epoch <= committed) && one.told;
        for done in self.checkpoints.extract_if(.., is_done).collect::<Vec<_>>() {
            let epoch = done.epoch.unwrap_or(committed);
            self.act(PrimaryAction::CheckpointCommitted { id: done.id, epoch });
        }
    }
}
