//! The full sync: a copy of the live volumes, overridden by what is captured meanwhile.
//!
//! The capture starts before the first block is read, and the driver queues every block that it read
//! before the epochs that were cut after the read began. So an epoch always arrives after any older
//! content of its sectors, and the first epoch that was ordered after the whole copy was queued is one
//! exact state: a commit point.
//!
//! Always holds: a backup that holds a committed epoch is overwritten only on an operator's word.

use std::time::Duration;

use super::{Capture, Link, Primary, PrimaryAction, Replication, SyncStep};
use crate::ids::{Digest, Epoch};
use crate::message::Message;
use crate::mutant::{self, Mutant};
use crate::state::Content;

impl Primary {
    /// What follows a greeting depends on what the backup holds.
    pub(super) fn greeted(&mut self, now: Duration) {
        let Link::Up { welcome, .. } = &self.link else { return };
        match welcome.content {
            Content::Blank | Content::Inconsistent { .. } | Content::Outdated { .. } => self.begin_sync(now),
            Content::Consistent => {
                self.committed = welcome.committed;
                let reason = format!(
                    "the backup holds epoch {} and keeps it: what changed since is only \
                     tracked. `ftship full-sync` overwrites the backup with a new copy",
                    welcome.committed
                );
                self.set_replication(Replication::Degraded { reason });
                self.repeat_word();
            }
        }
    }

    pub(super) fn full_sync(&mut self, now: Duration, id: u64) {
        let result = match (&self.link, &self.replication) {
            (Link::Up { .. }, Replication::Degraded { .. }) if self.sync == SyncStep::None => {
                self.begin_sync(now);
                Ok(())
            }
            (_, Replication::Failed { reason }) => Err(reason.clone()),
            (Link::Up { .. }, _) => Err("the backup is in sync, or syncing already".to_owned()),
            _ => Err("the backup is not connected".to_owned()),
        };
        self.act(PrimaryAction::FullSyncBegun { id, result });
    }

    fn begin_sync(&mut self, now: Duration) {
        let Link::Up { welcome, .. } = &self.link else { return };
        if !mutant::is(Mutant::NumberFromOne) {
            self.next_epoch = self.next_epoch.max(welcome.highest_epoch_seen.next());
        }
        let previous = welcome.chain_digest;
        let mut base_id = self.config.incarnation.0;
        for (byte, count) in base_id.iter_mut().zip(self.syncs_begun.to_le_bytes()) {
            *byte ^= count;
        }
        self.syncs_begun += 1;
        if !self.enter_sync(now, SyncStep::Asked) {
            return;
        }
        // What the backup has staged and committed is about to be overwritten.
        self.staged = Epoch::NONE;
        self.first_point = None;
        self.committed = Epoch::NONE;
        self.committed_digest = Digest::ZERO;
        self.word = Epoch::NONE;
        self.words_unknown("a full sync overwrites what the backup has staged");
        self.act(PrimaryAction::OpenChain { previous });
        self.act(PrimaryAction::Send(Message::SyncBegin { base_id }));
        self.set_replication(Replication::Syncing);
    }

    pub(super) fn sync_ready(&mut self, now: Duration) {
        self.enter_sync(now, SyncStep::Ready);
        self.start_capture();
    }

    fn start_capture(&mut self) {
        // A capture that is still winding up starts anew from `capture_stopped`.
        if self.capture == Capture::Off && self.sync == SyncStep::Ready {
            self.enter_capture(Capture::Starting);
            self.act(PrimaryAction::StartCapture);
        }
    }

    pub(super) fn capture_started(&mut self, now: Duration) {
        // Else degraded meanwhile: the stop is on its way.
        if self.capture == Capture::Starting && self.enter_capture(Capture::On) {
            self.cut_at = now + self.config.epoch_interval;
            self.last_cut = now;
            (self.log_percent, self.log_used) = (0, 0);
            if self.enter_sync(now, SyncStep::Copying) {
                self.act(PrimaryAction::StartBase);
            }
        }
    }

    pub(super) fn capture_stopped(&mut self) {
        self.enter_capture(Capture::Off);
        self.cutting = None;
        self.start_capture();
    }

    pub(super) fn capture_lost(&mut self, now: Duration, reason: &str) {
        self.cutting = None;
        self.lose_replication(now, &format!("capture lost: {reason}"));
    }

    /// Replication cannot go on over this link: degrade, and let the backup see the connection end.
    pub(super) fn lose_replication(&mut self, now: Duration, reason: &str) {
        self.degrade(reason);
        self.lose_link(now, reason);
    }

    pub(super) fn base_copied(&mut self, now: Duration, frames: u64, bytes: u64) {
        if self.sync == SyncStep::Copying && self.enter_sync(now, SyncStep::Finishing) {
            self.act(PrimaryAction::SendInOrder(Message::BaseEnd { frames, bytes }));
            // The commit point need not wait for the next tick.
            self.cut_at = now;
            self.cut_timeout(now);
        }
    }
}
