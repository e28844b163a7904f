//! From durable to acknowledged to committed, and what is dropped instead.
//!
//! Always holds: in the `auto` policy the journal's sync commits, in the `external` policy a superblock that names
//! an epoch which the coordinator named; nothing else does. What an epoch of another incarnation awaits is
//! dropped, durably, before its successor is let in.

use std::time::Duration;

use super::phase::{CopyStep, Phase};
use super::{Backup, BackupAction, Link, Sealed};
use crate::ids::{Digest, Epoch, Incarnation};
use crate::journal::Superblock;
use crate::message::Message;
use crate::mutant::{self, Mutant};
use crate::protocol::{AckPolicy, CommitPolicy};
use crate::state::Content;

/// Superblocks: at most one is being written; what is noted meanwhile goes into the next.
#[derive(Debug, Default)]
pub(super) struct SuperblockWrites {
    running: Option<Box<Superblock>>,
    is_wanted: bool,
}

impl SuperblockWrites {
    /// Whether one is being written.
    pub(super) fn is_busy(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn take(&mut self) -> Option<Superblock> {
        self.running.take().map(|superblock| *superblock)
    }
}

impl Backup {
    pub(super) fn is_external(&self) -> bool {
        self.config.commit == CommitPolicy::External
    }

    /// Has the superblock written with everything noted, now or behind the one under way.
    pub(super) fn want_superblock(&mut self) {
        self.superblocks.is_wanted = true;
        self.next_superblock();
    }

    pub(super) fn next_superblock(&mut self) {
        if !self.superblocks.is_wanted || self.superblocks.is_busy() {
            return;
        }
        self.superblocks.is_wanted = false;
        let superblock = Box::new(match self.apply.recording() {
            Some(last) => self.journal.superblock_after(last.end, last.epoch, last.digest),
            None => self.journal.superblock_now(),
        });
        self.superblocks.running = Some(superblock.clone());
        self.act(BackupAction::WriteSuperblock(superblock));
    }

    /// Acknowledges and commits whatever may be by now.
    pub(super) fn settle(&mut self, now: Duration) {
        if self.is_consistent() {
            // In this order: a report says nothing of an epoch that is not acknowledged.
            self.acknowledge();
            self.commit();
            self.report_durable();
        }
        self.schedule_apply(now);
    }

    /// The last epoch that no power cut takes away any more, whether it is committed or not.
    pub(super) fn durable(&self) -> Epoch {
        if self.is_consistent() { self.synced.min(self.held()) } else { Epoch::NONE }
    }

    /// Where STAGED does not tell what is durable, a report does, at once.
    fn report_durable(&mut self) {
        let is_news = self.durable() > self.reported && self.ack() == AckPolicy::Received;
        if is_news && matches!(self.link, Link::Up { .. }) {
            self.report();
        }
    }

    /// STAGED for the last commit point that may be acknowledged.
    pub(super) fn acknowledge(&mut self) {
        let last = match self.ack() {
            AckPolicy::Durable => self.synced,
            AckPolicy::Received => self.sealed.back().map_or(Epoch::NONE, |last| last.epoch),
        };
        let told = self.acknowledged;
        let fits = |sealed: &&Sealed| sealed.commit_point && sealed.epoch > told && sealed.epoch <= last;
        let Some(Sealed { epoch, digest, .. }) = self.sealed.iter().rfind(fits).copied() else { return };
        self.acknowledged = epoch;
        if let Link::Up { .. } = self.link {
            self.act(BackupAction::Send(Message::Staged { epoch, digest }));
        }
    }

    /// What STAGED means on this connection: a primary that does not know `received` gets `durable`.
    pub(super) fn ack(&self) -> AckPolicy {
        match &self.link {
            Link::Up { peer, .. } if peer.knows_received => self.config.ack,
            _ => AckPolicy::Durable,
        }
    }

    fn commit(&mut self) {
        let everything = !self.is_external() || mutant::is(Mutant::CommitPastWord);
        let word = if everything { Epoch(u64::MAX) } else { self.word };
        let durable = if mutant::is(Mutant::CommitUnsynced) { word } else { self.synced };
        let fits = |sealed: &&Sealed| sealed.commit_point && sealed.epoch <= word.min(durable);
        let Some(last) = self.sealed.iter().rfind(fits).copied() else { return };
        if !self.is_external() {
            return self.committed_up_to(&last);
        }
        if self.journal.noted_committed().is_none_or(|noted| noted < last.epoch) {
            self.journal.note_committed(Some(last.epoch));
            self.want_superblock();
        }
        if mutant::is(Mutant::CommitBeforeSuperblock) {
            self.committed_up_to(&last);
        }
    }

    fn committed_up_to(&mut self, last: &Sealed) {
        let is_new = |sealed: &&Sealed| sealed.commit_point && sealed.epoch > self.committed;
        let newly = self.sealed.iter().filter(is_new).take_while(|sealed| sealed.epoch <= last.epoch).count();
        if newly == 0 {
            return;
        }
        self.counters.epochs_committed += newly as u64;
        (self.committed, self.committed_digest) = (last.epoch, last.digest);
        let is_said_by_staged = !self.is_external() && self.ack() == AckPolicy::Durable;
        if matches!(self.link, Link::Up { .. }) && !is_said_by_staged {
            self.report();
        }
    }

    /// The coordinator's word: `epoch` and all before it. It reaches no further than what is here.
    pub(super) fn commit_word(&mut self, now: Duration, epoch: Epoch) -> Result<(), String> {
        if !self.is_external() {
            return Err("COMMIT in a group that commits by itself".into());
        }
        let here = self.sealed.back().map_or(self.committed, |last| last.epoch);
        self.word = self.word.max(epoch.min(here));
        self.settle(now);
        Ok(())
    }

    pub(super) fn superblock_written(&mut self, now: Duration) {
        let Some(superblock) = self.superblocks.take() else { return };
        let (tail, committed) = (superblock.tail, superblock.committed);
        self.journal.advance_tail(superblock);
        if self.is_external() && self.is_consistent() {
            let named = |sealed: &&Sealed| Some(sealed.epoch) == committed;
            if let Some(last) = self.sealed.iter().find(named).copied() {
                self.committed_up_to(&last);
            }
        }
        self.tail_recorded(tail);
        self.continue_noted();
        self.next_superblock();
        self.unblock(now);
        self.settle(now);
        self.go_on(now);
    }

    /// Whether what is durable still changes by itself: a role change waits until it does not.
    pub(super) fn is_settling(&self) -> bool {
        self.sync.running.is_some() || self.superblocks.is_busy() || self.state_writes > 0
    }

    /// Drops what is sealed behind `kept`; durable once the superblock is.
    pub(super) fn drop_behind(&mut self, kept: Epoch) {
        let Some(at) = self.sealed.iter().position(|sealed| sealed.epoch > kept) else { return };
        let start = self.sealed[at].start;
        self.sealed.truncate(at);
        self.drop_from(start, Epoch::NONE);
    }

    /// Drops whatever the journal holds from position `start` on; what comes next continues what is left, and is numbered
    /// above `through`.
    pub(super) fn drop_from(&mut self, start: u64, through: Epoch) {
        self.journal.drop_from(start, through);
        let last = self.sealed.back().map(|last| last.digest);
        self.digest = last.unwrap_or(self.journal.superblock().tail_digest);
        self.want_superblock();
    }

    /// Whether there is something that only the coordinator of another incarnation could commit.
    pub(super) fn awaits_another(&self, incarnation: Incarnation) -> bool {
        let is_foreign = |sealed: &Sealed| sealed.epoch > self.committed && sealed.incarnation != incarnation;
        self.is_external()
            && self.state.content == Content::Consistent
            && self.sealed.iter().any(is_foreign)
            && !mutant::is(Mutant::KeepForeignStaged)
    }

    /// Drops that: to the last committed epoch; or, when there is none, to nothing that could be promoted.
    pub(super) fn drop_foreign(&mut self) {
        if self.committed.is_none() {
            let base_id = self.state.last_incarnation.unwrap_or_default().0;
            self.state.content = Content::Inconsistent { base_id, base: None };
            self.write_state();
            self.enter(Phase::Inconsistent);
        } else {
            self.drop_behind(self.committed);
        }
    }

    /// Nothing that was committed before is there any more.
    pub(super) fn forget_commits(&mut self) {
        (self.committed, self.committed_digest) = (Epoch::NONE, Digest::ZERO);
        self.word = Epoch::NONE;
        if self.is_external() {
            self.journal.note_committed(Some(Epoch::NONE));
            self.want_superblock();
        }
    }

    /// Whether the journal is full of epochs that nobody has committed: then nothing will make room.
    pub(super) fn is_stuck(&self) -> bool {
        self.blocked.is_some()
            && self.is_external()
            && !self.is_settling()
            && self.apply.is_idle()
            && !self.has_applicable()
            && matches!(self.phase, Phase::Consistent)
    }

    /// Whether an epoch may go from the journal to the volumes.
    pub(super) fn is_applicable(&self, sealed: &Sealed) -> bool {
        if sealed.epoch > self.synced && !mutant::is(Mutant::ApplyBeforeSync) {
            return false;
        }
        if !self.is_external() || mutant::is(Mutant::ApplyUncommitted) {
            return !matches!(self.phase, Phase::Failed(_));
        }
        let is_committed = sealed.epoch <= self.committed;
        match &self.phase {
            // Not before that is durable: until then the disks say that this could still be promoted to.
            Phase::Blank | Phase::Inconsistent => self.state_writes == 0,
            Phase::Copying(copying) => match copying.step {
                CopyStep::Draining => is_committed || self.state.content != Content::Consistent,
                CopyStep::Marking => false,
                CopyStep::Clearing => true,
                CopyStep::Base | CopyStep::Flushing | CopyStep::Flushed | CopyStep::Sealing => false,
            },
            Phase::Failed(_) => false,
            _ => is_committed,
        }
    }
}
