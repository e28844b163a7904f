//! Applying: committed epochs go from the journal to the volumes, and their journal space is freed.
//!
//! Always holds: one pass at a time; a pass covers whole epochs that are durable in the journal and that
//! [`Backup::is_applicable`] lets through; its volumes are flushed before the superblock moves the tail, and the
//! tail's superblock is durable before the space is used again.

use std::time::Duration;

use super::{Backup, BackupAction, Sealed};
use crate::mutant::{self, Mutant};

/// Where the pass stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ApplyState {
    /// None is under way; the next one is due at this time.
    Idle { due: Option<Duration> },
    /// Epochs up to this one are being written and flushed.
    Writing(Sealed),
    /// The superblock that frees them is being written.
    Recording(Sealed),
}

impl ApplyState {
    pub(super) fn due(&self) -> Option<Duration> {
        match self {
            Self::Idle { due } => *due,
            _ => None,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self, Self::Idle { .. })
    }

    /// The last epoch of the pass that is under way.
    pub(super) fn under_way(&self) -> Option<&Sealed> {
        match self {
            Self::Idle { .. } => None,
            Self::Writing(last) | Self::Recording(last) => Some(last),
        }
    }

    /// What the next superblock is to free.
    pub(super) fn recording(&self) -> Option<&Sealed> {
        if let Self::Recording(last) = self { Some(last) } else { None }
    }
}

impl Backup {
    pub(super) fn has_applicable(&self) -> bool {
        self.sealed.front().is_some_and(|first| self.is_applicable(first))
    }

    /// Lets a pass begin after the configured delay, or at once when the journal is half full.
    pub(super) fn schedule_apply(&mut self, now: Duration) {
        let ApplyState::Idle { due } = &self.apply else { return };
        if !self.has_applicable() {
            return;
        }
        let pressed =
            self.blocked.is_some() || self.is_asked() || self.journal.used() * 2 > self.journal.capacity();
        let at = if pressed { now } else { now + self.config.apply_delay };
        self.apply = ApplyState::Idle { due: Some(due.map_or(at, |due| due.min(at))) };
        self.apply_timeout(now);
    }

    /// Lets a pass begin at once.
    pub(super) fn apply_now(&mut self, now: Duration) {
        if let ApplyState::Idle { .. } = self.apply {
            self.apply = ApplyState::Idle { due: Some(now) };
            self.apply_timeout(now);
        }
    }

    pub(super) fn apply_timeout(&mut self, now: Duration) {
        let ApplyState::Idle { due: Some(due) } = self.apply else { return };
        if due > now {
            return;
        }
        self.apply = ApplyState::Idle { due: None };
        let epochs: Vec<Sealed> =
            self.sealed.iter().take_while(|sealed| self.is_applicable(sealed)).copied().collect();
        let epochs = self.up_to_question(epochs);
        if let (Some(last), Some(group)) = (epochs.last(), &self.state.group) {
            self.apply = ApplyState::Writing(*last);
            let group = Box::new(group.clone());
            let last = last.epoch;
            self.act(BackupAction::Apply { epochs, group });
            self.put_questions(last);
            if mutant::is(Mutant::TailBeforeVolume) {
                self.epochs_applied();
            }
        }
    }

    pub(super) fn epochs_applied(&mut self) {
        let ApplyState::Writing(last) = self.apply else { return };
        self.apply = ApplyState::Recording(last);
        self.want_superblock();
        if mutant::is(Mutant::ReuseBeforeSuperblock) {
            let early = self.journal.superblock_after(last.end, last.epoch, last.digest);
            self.journal.advance_tail(early);
        }
    }

    /// A superblock with this tail is durable: ends the pass that waited for it.
    pub(super) fn tail_recorded(&mut self, tail: u64) {
        let ApplyState::Recording(last) = self.apply else { return };
        if tail == last.end {
            self.apply = ApplyState::Idle { due: None };
            self.applied = last.epoch;
            self.sealed.retain(|sealed| sealed.epoch > last.epoch);
        }
    }
}
