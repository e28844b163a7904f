//! Numbers of epochs: none is given before the state says durably that it may have been.
//!
//! Always holds: whoever finds a higher number of this side's generation elsewhere knows that this side's disks are those of
//! an earlier time: a snapshot that was put back, a restored host. It costs one write of the state in some seconds. What was
//! made in the last seconds before a copy of the disks was taken cannot be told from what a crash at that instant leaves.

use std::time::Duration;

use super::{Primary, SyncStep};
use crate::ids::Epoch;
use crate::state::DurableState;

/// Numbers are noted for so long ahead; when half of them are used up, the next ones are.
const AHEAD: Duration = Duration::from_secs(5);
/// Fewest and most of them.
const FEWEST: u128 = 2;
const MOST: u128 = 4096;

/// What a starting primary knows of the numbers that it gave in its earlier runs: `None` where a version before did not note
/// them.
pub(super) fn known(state: &DurableState) -> bool {
    state.numbered.is_some() || state.last_incarnation.is_none()
}

impl Primary {
    /// How many numbers are noted ahead of the last one that was given.
    fn ahead(&self) -> u64 {
        let interval = self.config.epoch_interval.as_millis().max(1);
        let count = (AHEAD.as_millis() / interval).clamp(FEWEST, MOST);
        u64::try_from(count).unwrap_or(1)
    }

    /// Notes more of them, if few are left. Only for a backup that was met and holds nothing beyond what is noted: each number
    /// that is noted earlier would hide that it does.
    pub(super) fn note_numbers(&mut self) {
        let (last, ahead) = (self.last_cut().0, self.ahead());
        let noted = self.durable.state.numbered.unwrap_or(Epoch::NONE);
        if noted.0 < last.saturating_add(ahead / 2) {
            self.durable.state.numbered = Some(Epoch(last.saturating_add(ahead)));
            // For people: how far this side had come.
            self.durable.state.highest_epoch_seen = self.durable.state.highest_epoch_seen.max(Epoch(last));
            self.write_state();
        }
    }

    /// Whether the next epoch may have its number.
    pub(super) fn has_number(&self) -> bool {
        self.durable.numbered() >= self.cuts.next_epoch
    }

    /// The state is written: what waited for a number goes on.
    pub(super) fn go_on_numbered(&mut self, now: Duration) {
        if self.has_number() && self.config.still_budget.is_some() && self.syncing.step == SyncStep::Copying {
            self.round_over(now);
        }
    }

    /// The highest number that this side may have given, where it can tell.
    pub(super) fn numbered(&self) -> Option<Epoch> {
        self.knows_numbers.then(|| self.last_cut())
    }
}
