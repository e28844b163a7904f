//! The primary's durable state: what it says, and what follows when it cannot be written.
//!
//! Always holds: the state machine alone decides what the state says; its writes are carried out one after the other.
//! After one failed write nothing is replicated any more: what the disk holds is not known, and the volume goes on
//! without it.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Primary, PrimaryAction, Replication};
use crate::ids::Epoch;
use crate::state::DurableState;

/// The state as last decided, and how far its disk is.
#[derive(Debug)]
pub(super) struct Durable {
    pub(super) state: DurableState,
    /// Writes of it that were ordered and are not done: the numbers that each notes.
    writes: VecDeque<Epoch>,
    /// Numbers up to this one are noted on the disk.
    numbered: Epoch,
}

impl Durable {
    /// As the disk has it.
    pub(super) fn new(state: DurableState) -> Self {
        let numbered = state.numbered.unwrap_or(Epoch::NONE);
        Self { state, writes: VecDeque::new(), numbered }
    }

    /// Notes that a write is ordered. Returns what is to be written.
    fn order(&mut self) -> Box<DurableState> {
        self.writes.push_back(self.state.numbered.unwrap_or(Epoch::NONE));
        Box::new(self.state.clone())
    }

    /// The oldest write is done.
    pub(super) fn written(&mut self) {
        self.numbered = self.writes.pop_front().unwrap_or(self.numbered);
    }

    /// Whether the disk has what was last decided.
    fn is_written(&self) -> bool {
        self.writes.is_empty()
    }

    #[cfg(test)]
    pub(super) fn note_all_numbers(&mut self) {
        let all = Epoch(u64::MAX);
        (self.state.numbered, self.numbered) = (Some(all), all);
        self.writes.iter_mut().for_each(|noted| *noted = all);
    }

    /// Up to which number the disk says that it may have been given to an epoch.
    pub(super) fn numbered(&self) -> Epoch {
        self.numbered
    }
}

impl Primary {
    /// Durable state, as last decided.
    #[must_use]
    pub fn state(&self) -> &DurableState {
        &self.durable.state
    }

    /// Whether what was last decided of the state is durable.
    #[must_use]
    pub fn is_state_durable(&self) -> bool {
        self.durable.is_written() && !self.has_failed()
    }

    /// Notes that this incarnation runs, and forgets a history that the volumes' eras do not continue: what changed
    /// since is not known then.
    pub(super) fn take_over_state(&mut self) {
        let rolls = &mut self.durable.state.rolls;
        if !self.config.eras.as_ref().is_some_and(|eras| rolls.is_continued_by(eras)) {
            rolls.clear();
        }
        self.durable.state.last_incarnation = Some(self.config.incarnation);
        self.write_state();
    }

    /// Nothing tells any more what changed since any epoch.
    pub(super) fn forget_rolls(&mut self) {
        self.durable.state.rolls.clear();
        self.write_state();
    }

    pub(super) fn write_state(&mut self) {
        if !self.has_failed() {
            let state = self.durable.order();
            self.act(PrimaryAction::WriteState(state));
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(self.replication, Replication::Failed { .. })
    }

    pub(super) fn fail(&mut self, now: Duration, reason: String) {
        if self.has_failed() {
            return;
        }
        self.switch_failed(&reason);
        self.resize_failed(&reason);
        self.let_go();
        self.lose_replication(now, &reason);
        self.set_replication(Replication::Failed { reason });
    }
}
