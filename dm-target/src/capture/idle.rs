//! Whether anything was written since the last cut, or since the log was followed last, as the kernel counts.
//!
//! The counters of the visible device are looked at before a cut or a follow touches anything, and kept when that is
//! done. What comes between the look and the suspend makes them differ later: then one cut too many follows, never one
//! too few. The kernel counts a write before it completes it, so no write that a guest knows to be done is missed.
//!
//! Always holds: a look that shows anything in flight proves nothing, and neither does one with counting switched off;
//! reading them takes no flush and no suspend.

use super::Capture;
use crate::pause::stillness::Look;

/// What was looked at, and when.
#[derive(Debug, Default)]
pub(crate) struct Idle {
    /// Now.
    now: Option<Look>,
    /// Before the last cut that was taken.
    cut: Option<Look>,
    /// Before the last time that all of the log was read.
    followed: Option<Look>,
}

impl Idle {
    /// The cut before which `now` was looked at was taken.
    pub(crate) fn cut(&mut self) {
        self.cut = self.now;
        self.followed = self.now;
    }

    /// All that was in the log before that look was read.
    pub(crate) fn followed(&mut self) {
        self.followed = self.now;
    }

    fn is_as(&self, before: Option<Look>) -> bool {
        self.now.is_some() && self.now == before
    }
}

impl Capture {
    /// Looks at the counters.
    pub(crate) fn look(&mut self) {
        self.idle.now = self.stillness.look().ok().filter(|look| look.in_flight == 0);
    }

    /// Whether the look proves that a cut would end an epoch without any content, and do nothing else.
    pub(crate) fn is_cut(&self) -> bool {
        let is_empty = self.epoch.is_empty() && self.epoch.discards.is_empty();
        self.idle.is_as(self.idle.cut) && is_empty && !self.ledger.has_more() && !self.held && !self.lost
    }

    /// Whether the look proves that the log has nothing new, and no suspects are left to be read.
    pub(crate) fn is_followed(&self) -> bool {
        self.idle.is_as(self.idle.followed) && self.epoch.is_empty()
    }
}
