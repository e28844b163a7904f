//! Holding writes back when this primary learns that another side was promoted over it: so that a person, or whoever
//! manages the cluster, can give this side up before it goes further its own way.
//!
//! ```text
//!   No ──a generation that was not met before, and it is configured──► Asked ──► Held ──given up──► Leaving ──┐
//!   ▲                                                                    │        │       durably a backup    │
//!   │ the other side gives way, or a generation of its own is begun      │        │                           ▼
//!   └────────────────────────────────────────────────────────────────────┼────────┤       the role ends ◄─ Shutting
//!                                                                        ▼        ▼
//!                                    the lease ran out, or nobody can hold: Over: writes go on
//! ```
//!
//! Always holds: writes are held back once for each generation of the other side, under a lease that nobody renews; they
//! fail only once the state says durably that this side is a backup, and go on in every other case.

use std::time::Duration;

use super::{CutOrder, Primary, PrimaryAction};
use crate::ids::Generation;

/// What becomes of the writes of a primary that was promoted over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Hold {
    /// They go on.
    #[default]
    No,
    /// They are about to be held back.
    Asked,
    /// They are.
    Held,
    /// They were, for as long as may be, or could not be.
    Over(String),
    /// This side is given up: once that is durable they are to fail.
    Leaving,
    /// It is: they are being made to fail.
    Shutting,
}

impl Primary {
    /// Whether writes are held back until somebody decides, or the lease ends.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.fencing.hold == Hold::Held
    }

    /// This side has met `theirs`, a generation that it did not know of. Only a later one than its own was promoted over
    /// it: so of two sides at most one holds writes back, and none that was told to go on.
    pub(super) fn hold_writes(&mut self, theirs: Generation) {
        if let Some(lease) = self.config.fence_lease
            && theirs.number > self.durable.state.generation_number()
            && self.switch.is_none()
            && !self.is_stepping_down()
            && !self.is_resizing()
            && !self.has_failed()
        {
            self.fencing.hold = Hold::Asked;
            self.order(CutOrder::Hold { lease });
        }
    }

    /// They are held back.
    pub(super) fn held(&mut self) {
        if self.fencing.hold == Hold::Asked {
            self.fencing.hold = Hold::Held;
            self.act(PrimaryAction::StateChanged);
        }
    }

    /// They go on, though nobody has decided.
    pub(super) fn hold_over(&mut self, reason: &str) {
        if matches!(self.fencing.hold, Hold::Asked | Hold::Held) {
            self.fencing.hold = Hold::Over(reason.to_owned());
            self.act(PrimaryAction::StateChanged);
        }
    }

    /// This side goes on, whatever was decided.
    pub(super) fn let_go(&mut self) {
        if matches!(self.fencing.hold, Hold::Asked | Hold::Held | Hold::Leaving) {
            self.order(CutOrder::Release);
        }
        self.fencing.hold = Hold::No;
    }

    /// This side is given up.
    pub(super) fn give_up_held(&mut self) {
        if matches!(self.fencing.hold, Hold::Asked | Hold::Held) {
            self.fencing.hold = Hold::Leaving;
        }
    }

    /// It is durably a backup. Whether what is held back has to fail before the role ends.
    pub(super) fn shut_held(&mut self) -> bool {
        match self.fencing.hold {
            Hold::Leaving => {
                self.fencing.hold = Hold::Shutting;
                self.order(CutOrder::Shut);
                true
            }
            Hold::Shutting => true,
            Hold::No | Hold::Asked | Hold::Held | Hold::Over(_) => false,
        }
    }

    /// It has failed.
    pub(super) fn held_shut(&mut self, now: Duration) {
        if self.fencing.hold == Hold::Shutting {
            self.fencing.hold = Hold::No;
            self.stepped_down(now);
        }
    }

    /// For people, behind what a fenced primary says of itself.
    pub(super) fn hold_text(&self) -> String {
        match (&self.fencing.hold, self.config.fence_lease) {
            (Hold::Asked | Hold::Held, Some(lease)) => format!(
                ". Writes are held back for {lease:?} at most: `ftship resolve --discard-mine`, or `ftship demote` where \
                 this side wrote nothing of its own, makes them fail and this side the backup; `ftship promote --force` \
                 lets them go on at once"
            ),
            (Hold::Over(reason), _) => format!(". Nobody decided while writes could be held back: {reason}"),
            _ => String::new(),
        }
    }
}
