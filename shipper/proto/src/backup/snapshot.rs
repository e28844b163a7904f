//! Copies of the volumes as they were at a committed epoch, while everything goes on.
//!
//! Always holds: a snapshot is taken in the volume lane between two passes, so the volumes hold exactly one committed
//! epoch then, flushed: the last one committed when it was asked for, or a later one. Nothing here changes what is
//! held.

use std::time::Duration;

use super::{Backup, BackupAction, Phase};
use crate::ids::{Digest, Epoch};
use crate::mutant::{self, Mutant};

/// Most that wait.
const MAX_WAITING: usize = 16;

/// Somebody wants a snapshot of this epoch, or a later one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    id: u64,
    epoch: Epoch,
}

impl Wanted {
    pub(super) fn id(self) -> u64 {
        self.id
    }
}

impl Backup {
    pub(super) fn snapshot(&mut self, now: Duration, id: u64) {
        let refused = match &self.phase {
            Phase::Consistent if self.committed.is_none() => Some("nothing is committed yet".to_owned()),
            Phase::Consistent if self.snapshots.len() >= MAX_WAITING => {
                Some("too many are waiting".to_owned())
            }
            Phase::Consistent => None,
            Phase::Failed(reason) => Some(format!("the daemon has failed: {reason}")),
            Phase::Promoted | Phase::Promoting(_) => Some("this side was promoted".to_owned()),
            _ => Some("the backup holds no committed epoch, or is being rewritten".to_owned()),
        };
        if let Some(reason) = refused {
            return self.act(BackupAction::SnapshotRefused { id, reason });
        }
        self.snapshots.push(Wanted { id, epoch: self.committed.max(self.found) });
        self.continue_snapshots(now);
    }

    /// Takes what can be taken now.
    pub(super) fn continue_snapshots(&mut self, now: Duration) {
        if self.snapshots.is_empty() {
            return;
        }
        if !matches!(self.phase, Phase::Consistent) {
            for Wanted { id, .. } in std::mem::take(&mut self.snapshots) {
                let reason = "the volumes changed hands or are being rewritten meanwhile".into();
                self.act(BackupAction::SnapshotRefused { id, reason });
            }
            return;
        }
        if self.snapshots.iter().any(|wanted| wanted.epoch > self.on_volumes().0) {
            self.apply_now(now);
        }
        let (epoch, digest) = self.on_volumes();
        let ready = self.snapshots.extract_if(.., |wanted| wanted.epoch <= epoch).collect::<Vec<_>>();
        for Wanted { id, .. } in ready {
            let epoch = if mutant::is(Mutant::SnapshotOfCommitted) { self.committed } else { epoch };
            self.act(BackupAction::Snapshot { id, epoch, digest });
        }
    }

    /// What the volumes hold behind the passes that were ordered so far.
    fn on_volumes(&self) -> (Epoch, Digest) {
        let applied = || (self.applied, self.journal.superblock().tail_digest);
        self.apply.under_way().map_or_else(applied, |last| (last.epoch, last.digest))
    }
}
