//! From acknowledged to committed, and the coordinator's word.
//!
//! Always holds: the backup is told of no epoch as committed that the coordinator did not name, or that it did not
//! acknowledge itself; the coordinator is told of no epoch as committed before it is so durably. A word outlives the
//! connection: it is told again at the next one, for as long as the chain of epochs is the same.

use std::time::Duration;

use super::{Checkpoint, Link, Primary, PrimaryAction, SyncStep, Until};
use crate::ids::{Digest, Epoch};
use crate::message::Message;
use crate::mutant::{self, Mutant};
use crate::protocol::{ACK_RECEIVED, CommitPolicy};

/// Why a COMMIT was not done, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitRefused {
    /// Nobody is to say it.
    #[error("this group commits by itself (commit = \"auto\")")]
    Auto,
    /// The backup has not acknowledged the epoch.
    #[error("epoch {epoch} is not staged: the backup has acknowledged epoch {staged}")]
    NotStaged {
        /// As asked.
        epoch: Epoch,
        /// The last one acknowledged; 0 is none.
        staged: Epoch,
    },
    /// Nothing could be promoted to up to there.
    #[error("epoch {epoch} is part of a sync: the first that can be committed is epoch {first}")]
    PartOfSync {
        /// As asked.
        epoch: Epoch,
        /// The first commit point.
        first: Epoch,
    },
    /// The backup cannot be told now.
    #[error(
        "the backup is not connected: it is told to commit epoch {0} as soon as it is back, unless a sync in place comes first"
    )]
    Later(Epoch),
    /// The connection was lost before the backup said that it is done.
    #[error("whether epoch {epoch} is committed is not known: {reason}")]
    Unknown {
        /// As asked.
        epoch: Epoch,
        /// For people.
        reason: String,
    },
}

impl Primary {
    fn is_external(&self) -> bool {
        self.config.commit == CommitPolicy::External
    }

    /// Whether the backup acknowledges before its disk has an epoch.
    #[must_use]
    pub fn acks_received(&self) -> bool {
        matches!(&self.link, Link::Up { welcome, .. } if welcome.features & ACK_RECEIVED != 0)
    }

    /// The last epoch of this chain that is known to be durable on the backup.
    #[must_use]
    pub fn known_durable(&self) -> Epoch {
        // While syncing, only what the backup has said over this connection.
        if self.sync == SyncStep::None && !self.acks_received() { self.staged } else { self.committed }
    }

    /// Whether the journal can take one more epoch while those in flight may stay there: only where a coordinator
    /// commits. Half of it is kept free, so that what the next epoch grows to fits as well.
    pub(super) fn journal_has_room(&self) -> bool {
        let Link::Up { welcome, .. } = &self.link else { return true };
        let (true, Some(size)) = (self.is_external() && !self.in_flight.is_empty(), welcome.journal_size)
        else {
            return true;
        };
        let held: u64 = self.in_flight.iter().map(|one| one.stored).sum();
        held.saturating_add(self.log_used) <= size / 2
    }

    /// STAGED(N) covers all earlier epochs as well.
    pub(super) fn staged_by_backup(&mut self, now: Duration, epoch: Epoch, digest: Digest) {
        let Some(named) = self.in_flight.iter().find(|one| one.epoch == epoch) else {
            // Acknowledged before, or of a chain that was given up.
            return;
        };
        if named.digest != Some(digest) && !mutant::is(Mutant::AnyDigestStaged) {
            let reason = format!("the backup staged epoch {epoch} with another digest");
            return self.lose_replication(now, &reason);
        }
        for one in self.in_flight.iter_mut().filter(|one| one.epoch <= epoch) {
            one.staged = true;
            self.staged = one.epoch;
        }
        if !self.is_external() && !self.acks_received() || mutant::is(Mutant::StagedIsCommitted) {
            self.committed_up_to(now, epoch);
        }
        if self.sync == SyncStep::Finishing && !self.attempt.is_cut_short {
            self.synced(now);
        }
        self.answer_checkpoints();
        self.switch_committed(now);
        self.rest();
        self.catch_up(now);
        self.cut_timeout(now);
    }

    /// The backup says how far it has committed.
    pub(super) fn reported(&mut self, now: Duration, committed: Epoch) {
        self.committed_up_to(now, committed);
        self.answer_words();
        self.answer_checkpoints();
        self.switch_committed(now);
        self.rest();
        self.catch_up(now);
        self.cut_timeout(now);
    }

    fn committed_up_to(&mut self, now: Duration, epoch: Epoch) {
        while let Some(one) = self.in_flight.pop_front_if(|one| one.staged && one.epoch <= epoch) {
            self.committed = one.epoch;
            self.committed_digest = one.digest.unwrap_or(self.committed_digest);
            self.counters.epochs_committed += 1;
            let lag = now.saturating_sub(one.cut_at);
            self.act(PrimaryAction::Committed { epoch: one.epoch, lag });
        }
        // One that was staged over an earlier connection is in flight no more.
        if epoch > self.committed && epoch <= self.staged {
            self.committed = epoch;
            self.act(PrimaryAction::Committed { epoch, lag: Duration::ZERO });
        }
    }

    pub(super) fn commit(&mut self, id: u64, epoch: Epoch) {
        let refused = if !self.is_external() {
            Some(CommitRefused::Auto)
        } else if epoch > self.staged() {
            Some(CommitRefused::NotStaged { epoch, staged: self.staged() })
        } else {
            let sync = self.synced_by.filter(|(after, first)| (after.next()..*first).contains(&epoch));
            sync.map(|(_, first)| CommitRefused::PartOfSync { epoch, first })
        };
        if let Some(refused) = refused {
            return self.act(PrimaryAction::CommitDone { id, result: Err(refused) });
        }
        if epoch <= self.committed {
            let committed = self.committed;
            return self.act(PrimaryAction::CommitDone { id, result: Ok(committed) });
        }
        self.word = self.word.max(epoch);
        if !self.is_connected() {
            return self.act(PrimaryAction::CommitDone { id, result: Err(CommitRefused::Later(epoch)) });
        }
        self.words.push((id, epoch));
        self.act(PrimaryAction::Send(Message::Commit { epoch }));
    }

    /// Tells a backup that was away what it did not hear, or did not confirm.
    pub(super) fn repeat_word(&mut self) {
        if self.is_external() && self.word > self.committed {
            let epoch = self.word;
            self.act(PrimaryAction::Send(Message::Commit { epoch }));
        }
    }

    fn answer_words(&mut self) {
        let committed = self.committed;
        for (id, _) in self.words.extract_if(.., |(_, epoch)| *epoch <= committed).collect::<Vec<_>>() {
            self.act(PrimaryAction::CommitDone { id, result: Ok(committed) });
        }
    }

    /// Those who wait will hear nothing more.
    pub(super) fn words_unknown(&mut self, reason: &str) {
        for (id, epoch) in std::mem::take(&mut self.words) {
            let result = Err(CommitRefused::Unknown { epoch, reason: reason.to_owned() });
            self.act(PrimaryAction::CommitDone { id, result });
        }
    }

    /// Answers whoever asked for a checkpoint that has come far enough.
    pub(super) fn answer_checkpoints(&mut self) {
        let (staged, committed) = match self.sync {
            SyncStep::None => (self.staged, self.committed),
            // Until the first commit point is there the backup is nothing that could be promoted.
            _ => (Epoch::NONE, Epoch::NONE),
        };
        let is_done = |one: &mut Checkpoint| {
            one.is_cut
                && one.epoch.is_some_and(|epoch| match one.until {
                    Until::Cut => true,
                    Until::Staged => epoch <= staged,
                    Until::Committed => epoch <= committed,
                })
        };
        for done in self.checkpoints.extract_if(.., is_done).collect::<Vec<_>>() {
            if let Checkpoint { id, until, epoch: Some(epoch), .. } = done {
                self.act(PrimaryAction::CheckpointReached { id, epoch, until });
            }
        }
    }
}
