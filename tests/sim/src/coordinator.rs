//! The coordinator, where there is one: it holds the VM's memory of some epochs and says which are committed.
//!
//! Always holds: it names no epoch that is not staged as far as it knows, but to see that such a word is refused;
//! after the loss of the primary it chooses between its last word and the last epoch that it saw staged.

use std::collections::BTreeMap;

use ftship_proto::ids::Epoch;
use ftship_proto::primary::{CommitRefused, PrimaryEvent};
use ftship_proto::protocol::CommitPolicy;

use crate::world::{Event, World};

/// See the head of this module.
#[derive(Debug, Default)]
pub(crate) struct Coordinator {
    next_id: u64,
    /// Words that were not answered yet.
    waiting: BTreeMap<u64, Epoch>,
}

impl Coordinator {
    /// The primary that it spoke to is gone.
    pub(crate) fn forget_primary(&mut self) {
        self.waiting.clear();
    }
}

impl World {
    pub(crate) fn is_external(&self) -> bool {
        self.scenario.commit == CommitPolicy::External
    }

    /// It looks what is staged, and commits some of it, or nothing.
    pub(crate) fn coordinate(&mut self) {
        let next = self.now + self.random.around(self.scenario.coordinator_interval);
        self.schedule(next, Event::Coordinator);
        let Some(daemon) = &self.primary.daemon else { return };
        let (staged, committed, incarnation) =
            (daemon.core.staged(), daemon.core.committed(), daemon.incarnation);
        // Memory arrives later than the disk, more often than not.
        let held = Epoch(committed.0 + self.random.below(staged.0 - committed.0 + 1));
        let held = if self.random.coin() { staged } else { held };
        let epoch = if self.random.once_in(50) { Epoch(staged.0 + 1) } else { held };
        if epoch.is_none() {
            return;
        }
        if epoch <= staged {
            self.checker.word(incarnation, epoch);
        }
        let coordinator = &mut self.coordinator;
        coordinator.next_id += 1;
        let id = coordinator.next_id;
        coordinator.waiting.insert(id, epoch);
        self.note(|_| format!("coordinator: commit {epoch}, staged is {staged}"));
        self.primary_handle(PrimaryEvent::Commit { id, epoch });
    }

    pub(crate) fn commit_done(&mut self, id: u64, result: &Result<Epoch, CommitRefused>) {
        let asked = self.coordinator.waiting.remove(&id).expect("each word has one answer");
        match result {
            Ok(committed) => {
                assert!(*committed >= asked, "epoch {asked} is said to be committed, {committed} is");
                self.checker.told_committed(*committed);
            }
            Err(CommitRefused::NotStaged { staged, .. }) => {
                assert!(asked > *staged, "epoch {asked} is refused, {staged} is staged");
            }
            Err(CommitRefused::PartOfSync { first, .. }) => {
                assert!(asked < *first, "epoch {asked} is refused, {first} can be committed");
            }
            Err(CommitRefused::Auto) => assert!(!self.is_external(), "a coordinator is refused"),
            Err(CommitRefused::Later(_) | CommitRefused::Unknown { .. }) => {}
        }
    }

    /// The epoch to promote to: of `choices`, which the backup holds, when they are known; else of what the
    /// coordinator saw.
    pub(crate) fn choose(&mut self, choices: Option<Vec<Epoch>>) -> Option<Epoch> {
        if !self.is_external() {
            return None;
        }
        let (word, staged) = (self.checker.last_word(), self.checker.last_staged());
        let mut choices = choices.unwrap_or_else(|| vec![word, staged]);
        choices.retain(|epoch| *epoch >= word && !epoch.is_none());
        if choices.is_empty() { None } else { Some(choices[self.random.index(choices.len())]) }
    }
}
