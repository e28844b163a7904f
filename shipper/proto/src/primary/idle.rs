//! An idle volume rests: where nothing was written since the last cut, a cut that is due is left out.
//!
//! The core orders each cut and says with it whether it may be left out. The thread that cuts looks at the kernel's
//! counters before it touches anything. If they prove that nothing was written since the last cut, it does nothing and
//! says [`CutResult::Idle`](super::CutResult::Idle). It looks at each tick: the first tick after a write
//! cuts.
//!
//! Always holds: a cut that somebody waits for, or that does more than end an epoch, is never left out; while the pair
//! is in sync two cuts are never ordered further apart than [`LONGEST_REST`] or the interval of epochs, whichever is
//! longer, because of a rest.

use std::time::Duration;

use super::{Primary, SyncStep};
use crate::mutant::{self, Mutant};

/// The longest time without a cut. What relies on cuts (figures, alarms, a counter that somebody switched off) is late
/// by so much at most.
pub const LONGEST_REST: Duration = Duration::from_secs(1);

impl Primary {
    /// Whether the cut that is due now may be left out if nothing was written since the last one.
    pub(super) fn may_rest(&self, now: Duration, roll: bool) -> bool {
        let does_more = roll || self.verify.is_some() || self.switch.is_some() || self.config.hooks.is_some();
        let is_settled = self.is_in_sync() && self.syncing.step == SyncStep::None;
        // The next tick is to come in time.
        let next = now + self.config.epoch_interval;
        let is_soon = next <= self.cuts.last_taken + LONGEST_REST || mutant::is(Mutant::RestForEver);
        is_settled && is_soon && !self.is_cut_wanted() && !does_more
    }

    /// Somebody waits for a cut.
    fn is_cut_wanted(&self) -> bool {
        self.commits.checkpoints.iter().any(|one| !one.is_cut) || self.wants_last_cut()
    }

    /// The cut that was ordered was left out: the epoch goes on, and has nothing yet.
    pub(super) fn nothing_written(&mut self, now: Duration) {
        if self.cuts.cutting.take().is_none() {
            return;
        }
        self.counters.idle_ticks += 1;
        self.cuts.stall.ended(now);
        if self.is_cut_wanted() {
            // Since it was ordered.
            self.cuts.cut_at = now;
        }
        self.cut_timeout(now);
    }
}
