//! The primary's durable state: what it says, and what follows when it cannot be written.
//!
//! Always holds: the state machine alone decides what the state says; its writes are carried out one after the other.
//! After one failed write nothing is replicated any more: what the disk holds is not known, and the volume goes on
//! without it.

use std::time::Duration;

use super::{Primary, PrimaryAction, Replication};
use crate::state::DurableState;

impl Primary {
    /// Durable state, as last decided.
    #[must_use]
    pub fn state(&self) -> &DurableState {
        &self.state
    }

    /// Whether what was last decided of the state is durable.
    #[must_use]
    pub fn is_state_durable(&self) -> bool {
        self.state_writes == 0 && !self.has_failed()
    }

    /// Notes that this incarnation runs, and forgets a history that the volumes' eras do not continue: what changed
    /// since is not known then.
    pub(super) fn take_over_state(&mut self) {
        let rolls = &mut self.state.rolls;
        if !self.config.eras.as_ref().is_some_and(|eras| rolls.is_continued_by(eras)) {
            rolls.clear();
        }
        self.state.last_incarnation = Some(self.config.incarnation);
        self.write_state();
    }

    /// Nothing tells any more what changed since any epoch.
    pub(super) fn forget_rolls(&mut self) {
        self.state.rolls.clear();
        self.write_state();
    }

    pub(super) fn write_state(&mut self) {
        if !self.has_failed() {
            self.state_writes += 1;
            let state = Box::new(self.state.clone());
            self.act(PrimaryAction::WriteState(state));
        }
    }

    pub(super) fn state_written(&mut self) {
        self.state_writes = self.state_writes.saturating_sub(1);
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(self.replication, Replication::Failed { .. })
    }

    pub(super) fn fail(&mut self, now: Duration, reason: String) {
        if self.has_failed() {
            return;
        }
        self.switch_failed(&reason);
        self.let_go();
        self.lose_replication(now, &reason);
        self.set_replication(Replication::Failed { reason });
    }
}
