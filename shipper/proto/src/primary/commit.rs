//! From acknowledged to committed, and the coordinator's word.
//!
//! Always holds: the backup is told of no epoch as committed that the coordinator did not name, or that it did not
//! acknowledge itself; the coordinator is told of no epoch as committed before it is so durably. A word outlives the
//! connection: it is told again at the next one, for as long as the chain of epochs is the same. A sync ends only once the
//! backup has said that its epoch is durable, by STAGED where that means it, else by a report; that this side went on alone
//! is forgotten only once that epoch is committed: from then on every promote gives it, or a later one.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Link, Primary, PrimaryAction, SyncStep, Until};
use crate::ids::{Digest, Epoch};
use crate::message::Message;
use crate::mutant::{self, Mutant};
use crate::protocol::{ACK_RECEIVED, CommitPolicy};
use crate::state::WriteMark;

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

/// An epoch that is cut and not committed, or not acknowledged.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) epoch: Epoch,
    pub(super) cut_at: Duration,
    pub(super) digest: Option<Digest>,
    /// What its frames take; estimated until they are made.
    pub(super) stored: u64,
    pub(super) staged: bool,
}

/// A client that waits for an epoch.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub(super) id: u64,
    pub(super) until: Until,
    /// The cut that was ordered after the request.
    pub(super) epoch: Option<Epoch>,
    /// That cut is done.
    pub(super) is_cut: bool,
    /// The volumes were closed when it was asked for, and this was their mark.
    pub(super) closed_at: Option<WriteMark>,
}

/// How far the epochs of this chain have come, and who waits for them.
#[derive(Debug)]
pub(super) struct Commits {
    pub(super) in_flight: VecDeque<InFlight>,
    pub(super) checkpoints: Vec<Checkpoint>,
    /// The last commit point of this chain that the backup acknowledged.
    pub(super) staged: Epoch,
    /// The last epoch that a report of the backup called durable.
    pub(super) durable: Epoch,
    /// The last sync: the epoch that it came after, and the one that it made of all since.
    pub(super) synced_by: Option<(Epoch, Epoch)>,
    pub(super) committed: Epoch,
    pub(super) committed_digest: Digest,
    /// The last epoch that the coordinator named, and who waits for that to be done.
    pub(super) word: Epoch,
    /// While the volumes were closed, with this mark, this epoch was cut.
    closed: Option<(WriteMark, Epoch)>,
    words: Vec<(u64, Epoch)>,
}

impl Default for Commits {
    fn default() -> Self {
        Self {
            in_flight: VecDeque::new(),
            checkpoints: Vec::new(),
            staged: Epoch::NONE,
            durable: Epoch::NONE,
            synced_by: None,
            committed: Epoch::NONE,
            committed_digest: Digest::ZERO,
            word: Epoch::NONE,
            closed: None,
            words: Vec::new(),
        }
    }
}

impl Commits {
    /// This epoch is about to end: what was asked for until now is in it.
    pub(super) fn begin_cut(&mut self, epoch: Epoch) {
        for checkpoint in &mut self.checkpoints {
            checkpoint.epoch.get_or_insert(epoch);
        }
    }

    /// It has ended; its frames take about so much.
    pub(super) fn cut(&mut self, now: Duration, epoch: Epoch, stored: u64) {
        self.in_flight.push_back(InFlight { epoch, cut_at: now, digest: None, stored, staged: false });
        for checkpoint in self.checkpoints.iter_mut().filter(|one| one.epoch == Some(epoch)) {
            checkpoint.is_cut = true;
            self.closed = checkpoint.closed_at.map(|mark| (mark, epoch)).or(self.closed);
        }
    }

    /// Whether volumes of this mark hold nothing that is not committed.
    pub(super) fn holds_all(&self, mark: Option<WriteMark>) -> bool {
        self.closed.is_some_and(|(at, epoch)| Some(at) == mark && epoch <= self.committed)
    }

    /// It is framed.
    pub(super) fn encoded(&mut self, epoch: Epoch, digest: Digest, stored: u64) {
        if let Some(one) = self.in_flight.iter_mut().find(|one| one.epoch == epoch) {
            (one.digest, one.stored) = (Some(digest), stored);
        }
    }

    /// Whether a checkpoint waits for a cut that is not ordered yet.
    pub(super) fn wants_cut(&self) -> bool {
        self.checkpoints.iter().any(|checkpoint| checkpoint.epoch.is_none())
    }

    /// What the epochs in flight take in a journal.
    fn stored(&self) -> u64 {
        self.in_flight.iter().map(|one| one.stored).sum()
    }

    /// STAGED covers all earlier epochs as well.
    fn stage(&mut self, epoch: Epoch) {
        for one in self.in_flight.iter_mut().filter(|one| one.epoch <= epoch) {
            one.staged = true;
            self.staged = one.epoch;
        }
    }
}

impl Primary {
    fn is_external(&self) -> bool {
        self.config.commit == CommitPolicy::External
    }

    /// Whether the backup acknowledges before its disk has an epoch.
    #[must_use]
    pub fn acks_received(&self) -> bool {
        matches!(&self.peer.link, Link::Up { welcome, .. } if welcome.features & ACK_RECEIVED != 0)
    }

    /// The last epoch of this chain that is known to be durable on the backup.
    #[must_use]
    pub fn known_durable(&self) -> Epoch {
        // While syncing, only what the backup has said over this connection.
        if self.syncing.step == SyncStep::None && !self.acks_received() {
            self.commits.staged
        } else {
            self.commits.committed
        }
    }

    /// Whether the journal can take one more epoch while those in flight may stay there: only where a coordinator
    /// commits. Half of it is kept free, so that what the next epoch grows to fits as well.
    pub(super) fn journal_has_room(&self) -> bool {
        let Link::Up { welcome, .. } = &self.peer.link else { return true };
        let (true, Some(size)) =
            (self.is_external() && !self.commits.in_flight.is_empty(), welcome.journal_size)
        else {
            return true;
        };
        self.commits.stored().saturating_add(self.cuts.log_used) <= size / 2
    }

    /// The sync has come to its end once the backup cannot lose its epoch any more.
    fn end_sync(&mut self, now: Duration) {
        let durable = match self.acks_received() && !mutant::is(Mutant::EndsOnReceipt) {
            true => self.commits.committed.max(self.commits.durable).min(self.commits.staged),
            false => self.commits.staged,
        };
        let attempt = &self.syncing.attempt;
        if self.syncing.step == SyncStep::Finishing && !attempt.is_cut_short && durable >= attempt.epoch {
            self.synced(now);
        }
        self.alone_no_more();
    }

    /// STAGED(N) covers all earlier epochs as well.
    pub(super) fn staged_by_backup(&mut self, now: Duration, epoch: Epoch, digest: Digest) {
        let Some(named) = self.commits.in_flight.iter().find(|one| one.epoch == epoch) else {
            // Acknowledged before, or of a chain that was given up.
            return;
        };
        if named.digest != Some(digest) && !mutant::is(Mutant::AnyDigestStaged) {
            let reason = format!("the backup staged epoch {epoch} with another digest");
            return self.lose_replication(now, &reason);
        }
        self.commits.stage(epoch);
        if !self.is_external() && !self.acks_received() || mutant::is(Mutant::StagedIsCommitted) {
            self.committed_up_to(now, epoch);
        }
        self.end_sync(now);
        self.answer_checkpoints();
        self.switch_committed(now);
        self.rest();
        self.catch_up(now);
        self.cut_timeout(now);
    }

    /// The backup says how far it has committed.
    pub(super) fn reported(&mut self, now: Duration, committed: Epoch, durable: Option<Epoch>) {
        self.commits.durable = durable.unwrap_or(committed);
        self.committed_up_to(now, committed);
        self.end_sync(now);
        self.answer_words();
        self.answer_checkpoints();
        self.switch_committed(now);
        self.rest();
        self.catch_up(now);
        self.cut_timeout(now);
    }

    fn committed_up_to(&mut self, now: Duration, epoch: Epoch) {
        while let Some(one) = self.commits.in_flight.pop_front_if(|one| one.staged && one.epoch <= epoch) {
            self.commits.committed = one.epoch;
            self.commits.committed_digest = one.digest.unwrap_or(self.commits.committed_digest);
            self.counters.epochs_committed += 1;
            let lag = now.saturating_sub(one.cut_at);
            self.act(PrimaryAction::Committed { epoch: one.epoch, lag });
        }
        // One that was staged over an earlier connection is in flight no more.
        if epoch > self.commits.committed && epoch <= self.commits.staged {
            self.commits.committed = epoch;
            self.act(PrimaryAction::Committed { epoch, lag: Duration::ZERO });
        }
    }

    pub(super) fn commit(&mut self, id: u64, epoch: Epoch) {
        let refused = if !self.is_external() {
            Some(CommitRefused::Auto)
        } else if epoch > self.staged() {
            Some(CommitRefused::NotStaged { epoch, staged: self.staged() })
        } else {
            let sync =
                self.commits.synced_by.filter(|(after, first)| (after.next()..*first).contains(&epoch));
            sync.map(|(_, first)| CommitRefused::PartOfSync { epoch, first })
        };
        if let Some(refused) = refused {
            return self.act(PrimaryAction::CommitDone { id, result: Err(refused) });
        }
        if epoch <= self.commits.committed {
            let committed = self.commits.committed;
            return self.act(PrimaryAction::CommitDone { id, result: Ok(committed) });
        }
        self.commits.word = self.commits.word.max(epoch);
        if !self.is_connected() {
            return self.act(PrimaryAction::CommitDone { id, result: Err(CommitRefused::Later(epoch)) });
        }
        self.commits.words.push((id, epoch));
        self.act(PrimaryAction::Send(Message::Commit { epoch }));
    }

    /// Tells a backup that was away what it did not hear, or did not confirm.
    pub(super) fn repeat_word(&mut self) {
        if self.is_external() && self.commits.word > self.commits.committed {
            let epoch = self.commits.word;
            self.act(PrimaryAction::Send(Message::Commit { epoch }));
        }
    }

    fn answer_words(&mut self) {
        let committed = self.commits.committed;
        for (id, _) in self.commits.words.extract_if(.., |(_, epoch)| *epoch <= committed).collect::<Vec<_>>()
        {
            self.act(PrimaryAction::CommitDone { id, result: Ok(committed) });
        }
    }

    /// Those who wait will hear nothing more.
    pub(super) fn words_unknown(&mut self, reason: &str) {
        for (id, epoch) in std::mem::take(&mut self.commits.words) {
            let result = Err(CommitRefused::Unknown { epoch, reason: reason.to_owned() });
            self.act(PrimaryAction::CommitDone { id, result });
        }
    }

    /// No checkpoint that was asked for will be.
    pub(super) fn fail_checkpoints(&mut self, reason: &str) {
        for checkpoint in std::mem::take(&mut self.commits.checkpoints) {
            self.act(PrimaryAction::CheckpointFailed { id: checkpoint.id, reason: reason.to_owned() });
        }
    }

    /// Answers whoever asked for a checkpoint that has come far enough.
    pub(super) fn answer_checkpoints(&mut self) {
        let (staged, committed) = match self.syncing.step {
            SyncStep::None => (self.commits.staged, self.commits.committed),
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
        for done in self.commits.checkpoints.extract_if(.., is_done).collect::<Vec<_>>() {
            if let Checkpoint { id, until, epoch: Some(epoch), .. } = done {
                self.act(PrimaryAction::CheckpointReached { id, epoch, until });
            }
        }
    }
}
