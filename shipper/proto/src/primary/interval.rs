//! Interval mode: nothing is captured between two epochs; each interval, or whoever asks for a checkpoint, begins a sync
//! of what was written since the last one.
//!
//! ```text
//!   in sync, capture off ──interval over, or a checkpoint──► rounds, capture, one epoch ──committed──► capture off
//! ```
//!
//! The blocks of an interval travel once, however often they were written. Where little is expected, as much as the last
//! interval changed, there are no rounds: the capture begins at once, or the volumes stand still at once, and what the roll
//! in that pause names is the only round. Should it be more, rounds follow.
//!
//! Always holds: the capture ends only when everything that was cut is committed, and nobody waits for a cut; what the
//! next sync starts from is the epoch that the backup holds by then.

use std::time::Duration;

use super::plan::{Attempt, Plan};
use super::{Capture, CutOrder, Link, Primary, SyncStep};
use crate::state::Content;

impl Primary {
    /// Notes where the backup stands, and ends the capture until the next interval, once there is nothing more to be
    /// committed.
    pub(super) fn rest(&mut self) {
        let is_settled =
            self.commits.in_flight.is_empty() && self.cuts.cutting.is_none() && self.switch.is_none();
        let is_done = self.syncing.step == SyncStep::None && self.is_in_sync();
        let stops = self.capture == Capture::On && self.commits.checkpoints.is_empty();
        if !self.config.interval || !is_done || !is_settled || !(stops || self.config.still_budget.is_some())
        {
            return;
        }
        if !self.is_connected() {
            return;
        }
        self.stands_at_committed();
        if stops {
            self.enter_capture(Capture::Stopping);
            self.order(CutOrder::Stop);
        }
    }

    /// Notes where the backup stands once everything that was cut is committed, as it would say itself if it were greeted
    /// now.
    pub(super) fn stands_at_committed(&mut self) {
        let highest = self.last_cut();
        let Link::Up { welcome, .. } = &mut self.peer.link else { return };
        welcome.content = Content::Consistent;
        welcome.lineage.clone_from(&self.durable.state.lineage);
        welcome.committed = self.commits.committed;
        welcome.held = Some(self.commits.committed);
        welcome.chain_digest = self.commits.committed_digest;
        welcome.highest_epoch_seen = highest;
        welcome.sizes = None;
    }

    /// When the interval ends: at once, if somebody waits for a checkpoint. `None` where it does not.
    pub(super) fn interval_due(&self) -> Option<Duration> {
        let is_off = self.capture == Capture::Off && self.syncing.step == SyncStep::None && self.is_in_sync();
        let is_settled = self.commits.in_flight.is_empty()
            && self.is_connected()
            && !self.is_stepping_down()
            && self.has_number();
        let at = self.syncing.attempt.begun + self.config.epoch_interval;
        let is_wanted = !self.commits.checkpoints.is_empty() || self.wants_last_cut();
        let at = if is_wanted { Duration::ZERO } else { at };
        (self.config.interval && is_off && is_settled).then_some(at)
    }

    pub(super) fn interval_timeout(&mut self, now: Duration) {
        if self.interval_due().is_none_or(|at| at > now) {
            return;
        }
        match self.plan() {
            Some(Plan { base, since: Some(since), stages: true })
                if self.syncing.expected <= self.config.small_round =>
            {
                self.syncing.attempt =
                    Attempt { base, stages: true, since, begun: now, ..Attempt::default() };
                self.syncing.attempts += 1;
                self.last_round(now);
            }
            _ => self.begin_sync(now),
        }
    }

    /// The capture began without any round before: what was written before is copied now, or, if it is too much for that,
    /// in rounds.
    pub(super) fn went_straight(&mut self, now: Duration) {
        if self.syncing.attempt.bytes <= self.config.small_round && self.is_stageable() {
            return self.stage(now, SyncStep::LastRound);
        }
        self.enter_capture(Capture::Stopping);
        self.order(CutOrder::Stop);
        self.copy_round(now);
    }
}
