//! What it means that a pair is in sync: the backup's disks hold the epoch that ended the sync, whatever anybody says.
//!
//! Always holds: what is judged are the backup's disks as a power cut of that instant would leave them, and what was
//! encoded; no state machine is asked whether it is right.

use ftship_proto::ids::Epoch;
use ftship_proto::primary::Replication;
use ftship_proto::protocol::CommitPolicy;
use ftship_proto::state::{DurableState, Role};

use crate::checker::Checker;
use crate::disk::Disks;
use crate::world::World;

/// How far the present chain of epochs has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Arrived {
    /// The backup could lose its first epoch.
    No,
    /// The backup holds it durably.
    Durable,
    /// It is what a promote gives, or a later one is.
    Committed,
}

impl Checker {
    /// Another chain of epochs begins: with the one that is encoded next.
    pub(crate) fn chain_opened(&mut self) {
        self.first_of_chain = None;
    }

    /// Whether the backup's disks hold the first epoch of the present chain, and so everything that the guest wrote
    /// before the sync that it ends.
    pub(crate) fn arrived(&self, disks: &Disks) -> Arrived {
        let found = self.examine(&disks.durable());
        if found.state.role == Role::Primary || self.is_struck() {
            // A person chose what is left.
            return Arrived::Committed;
        }
        let Some(first) = self.first_of_chain else { return Arrived::No };
        let held = found.choices.last().map_or(Epoch::NONE, |last| last.0);
        let committed = match self.commit {
            CommitPolicy::Auto => held,
            CommitPolicy::External => found.committed.unwrap_or(Epoch::NONE),
        };
        match () {
            () if committed >= first => Arrived::Committed,
            () if held >= first => Arrived::Durable,
            () => Arrived::No,
        }
    }
}

impl World {
    /// Invariant 20, first half: who says that the pair is in sync is right.
    pub(crate) fn judge_in_sync(&mut self) {
        let Some(daemon) = &mut self.primary.daemon else { return };
        let is_so = *daemon.core.replication() == Replication::InSync;
        if !std::mem::replace(&mut daemon.says_in_sync, is_so) && is_so {
            let arrived = self.checker.arrived(&self.backup.disks);
            assert!(arrived >= Arrived::Durable, "in sync, and the backup could lose the sync's epoch");
        }
    }

    /// What the guest wrote alone is on the backup, as a promote would give it.
    pub(crate) fn is_alone_no_more(&mut self) {
        let in_sync = self.primary.daemon.as_ref().is_some_and(|daemon| daemon.core.is_in_sync());
        let is_alone = in_sync && self.primary.alone_since.is_some();
        if is_alone && self.checker.arrived(&self.backup.disks) == Arrived::Committed {
            self.primary.alone_since = None;
        }
    }

    /// Invariant 20, second half: the primary forgets that it went on alone only when a promote of the other side would
    /// lose nothing of that.
    pub(crate) fn judge_alone(&mut self, next: &DurableState) {
        let Some(daemon) = &mut self.primary.daemon else { return };
        let is_alone = next.alone.is_some();
        let was_alone = std::mem::replace(&mut daemon.says_alone, is_alone);
        if was_alone && !is_alone && next.role == Role::Primary {
            let arrived = self.checker.arrived(&self.backup.disks);
            assert_eq!(arrived, Arrived::Committed, "the primary forgets that it went on alone");
        }
    }
}
