//! Promoting: the backup becomes the primary of a new generation at exactly its last committed epoch.
//!
//! Always holds: everything committed is on the volumes, and the new generation is durable, before the
//! volumes are released; asking again gives the same answer.

use std::time::Duration;

use super::{Backup, BackupAction, Phase, PromoteRefused};
use crate::ids::{Epoch, Generation};
use crate::mutant::{self, Mutant};
use crate::state::{LineageEntry, Role};

/// How far a promote has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The last sealed epochs are being made durable and applied.
    Settling {
        /// Random id of the generation to be made.
        id: [u8; 16],
    },
    /// The new generation is being made durable.
    Marking,
    /// The volumes are being closed.
    Releasing,
}

impl Backup {
    pub(super) fn promote(&mut self, now: Duration, id: [u8; 16]) {
        let refused = match &self.phase {
            Phase::Promoted => {
                let epoch = self.promoted_at();
                return self.act(BackupAction::PromoteDone(Ok(epoch)));
            }
            // The one under way answers both.
            Phase::Promoting(_) => return,
            Phase::Consistent => None,
            Phase::Blank => Some(PromoteRefused::Blank),
            Phase::Inconsistent | Phase::Copying(_) => Some(PromoteRefused::Inconsistent),
            Phase::Failed(reason) => Some(PromoteRefused::Failed(reason.clone())),
        };
        if let Some(refused) = refused {
            return self.act(BackupAction::PromoteDone(Err(refused)));
        }
        self.bye("promoted".into());
        self.phase = Phase::Promoting(Step::Settling { id });
        self.promote_continue(now);
    }

    /// The epoch whose content the volumes had when this side was promoted.
    #[must_use]
    pub fn promoted_at(&self) -> Epoch {
        self.state.lineage.last().map_or(Epoch::NONE, |entry| Epoch(entry.first_epoch.0.saturating_sub(1)))
    }

    pub(super) fn promote_continue(&mut self, now: Duration) {
        let Phase::Promoting(Step::Settling { id }) = self.phase else { return };
        if self.sync.running.is_some() {
            return;
        }
        if !self.sealed.is_empty() && !mutant::is(Mutant::PromoteUnapplied) {
            return self.apply_now(now);
        }
        let number = self.state.lineage.last().map_or(0, |entry| entry.generation.number) + 1;
        self.state.lineage.push(LineageEntry {
            generation: Generation { number, id },
            first_epoch: self.committed.next(),
            digest: self.committed_digest,
        });
        self.state.role = Role::Primary;
        self.state.highest_epoch_seen = self.state.highest_epoch_seen.max(self.committed);
        self.phase = Phase::Promoting(Step::Marking);
        self.write_state();
        if mutant::is(Mutant::PromoteBeforeState) {
            self.promote_marked();
        }
    }

    pub(super) fn promote_marked(&mut self) {
        if let Phase::Promoting(step @ Step::Marking) = &mut self.phase {
            *step = Step::Releasing;
            self.act(BackupAction::ReleaseVolumes);
        }
    }

    pub(super) fn volumes_released(&mut self) {
        if let Phase::Promoting(Step::Releasing) = self.phase {
            self.phase = Phase::Promoted;
            let epoch = self.committed;
            self.act(BackupAction::PromoteDone(Ok(epoch)));
        }
    }
}
