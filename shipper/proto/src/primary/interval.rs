//! Interval mode: nothing is captured between two epochs; each interval, or whoever asks for a checkpoint, begins a sync
//! of what was written since the last one.
//!
//! ```text
//!   in sync, capture off ──interval over, or a checkpoint──► rounds, capture, one epoch ──committed──► capture off
//! ```
//!
//! So each block travels once in an interval, however often it was written, and the volume stands still for the rolls and
//! for one cut.
//!
//! Always holds: the capture ends only when everything that was cut is committed, and nobody waits for a cut; what the
//! next sync starts from is the epoch that the backup holds by then.

use std::time::Duration;

use super::{Capture, Link, Primary, PrimaryAction, SyncStep};
use crate::state::Content;

impl Primary {
    /// Ends the capture until the next interval, once there is nothing more to be committed.
    pub(super) fn rest(&mut self) {
        let is_settled = self.in_flight.is_empty()
            && self.cutting.is_none()
            && self.checkpoints.is_empty()
            && self.switch.is_none();
        let is_on = self.capture == Capture::On && self.sync == SyncStep::None && self.is_in_sync();
        if !self.config.interval || !is_on || !is_settled {
            return;
        }
        let highest = self.last_cut();
        let Link::Up { welcome, .. } = &mut self.link else { return };
        // As it would say itself if it were greeted now.
        welcome.content = Content::Consistent;
        welcome.lineage.clone_from(&self.state.lineage);
        welcome.committed = self.committed;
        welcome.held = Some(self.committed);
        welcome.chain_digest = self.committed_digest;
        welcome.highest_epoch_seen = highest;
        self.enter_capture(Capture::Stopping);
        self.act(PrimaryAction::StopCapture);
    }

    /// When the interval ends: at once, if somebody waits for a checkpoint. `None` where it does not.
    pub(super) fn interval_due(&self) -> Option<Duration> {
        let is_off = self.capture == Capture::Off && self.sync == SyncStep::None && self.is_in_sync();
        let rests = self.config.interval && is_off && self.is_connected() && !self.is_stepping_down();
        let at = self.attempt.begun + self.config.epoch_interval;
        let is_wanted = !self.checkpoints.is_empty() || self.wants_last_cut();
        rests.then_some(if is_wanted { Duration::ZERO } else { at })
    }

    pub(super) fn interval_timeout(&mut self, now: Duration) {
        if self.interval_due().is_some_and(|at| at <= now) {
            self.begin_sync(now);
        }
    }
}
