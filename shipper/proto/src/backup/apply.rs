//! Applying: committed epochs go from the journal to the volumes, and their journal space is freed.
//!
//! ```text
//!   prove    every epoch of the pass is read, and its digest checked        else: see `loss.rs`; the volumes are untouched
//!   note     a superblock says up to which epoch something may be on the volumes
//!   write    the volumes are written and flushed
//!   record   a superblock moves the tail
//! ```
//!
//! The note is for a stop in the middle of the writing: should an epoch that is half on the volumes be gone from the journal
//! then, the next start knows that they hold a mixture. It costs one flush of the journal's device a pass, which is twice a
//! second by default.
//!
//! Always holds: one pass at a time; a pass covers whole epochs that are durable in the journal and that
//! [`Backup::is_applicable`] lets through; nothing of a pass is written before all of it is proven to be the sealed epochs'
//! own bytes, and durably noted; its volumes are flushed before the superblock moves the tail, and the tail's superblock is
//! durable before the space is used again.

use std::time::Duration;

use super::{Backup, BackupAction, Sealed};
use crate::ids::Digest;
use crate::journal::Place;
use crate::mutant::{self, Mutant};

/// Where the pass stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ApplyState {
    /// None is under way; the next one is due at this time.
    Idle { due: Option<Duration> },
    /// Epochs up to this one are being read and checked.
    Proving(Sealed),
    /// The superblock that names this one as being applied is being written.
    Noting(Sealed),
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

    /// The last epoch of the pass whose writing was ordered.
    pub(super) fn under_way(&self) -> Option<&Sealed> {
        match self {
            Self::Idle { .. } | Self::Proving(_) | Self::Noting(_) => None,
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
        let places = self.places(&epochs);
        if let (Some(last), Some(_)) = (epochs.last(), &self.state.group) {
            self.apply = ApplyState::Proving(*last);
            self.act(BackupAction::Prove { places });
        }
    }

    /// Where these epochs lie, the oldest sealed first, and what they are.
    fn places(&self, epochs: &[Sealed]) -> Vec<(Sealed, Place)> {
        let mut previous: Digest = self.journal.superblock().tail_digest;
        let place = |sealed: &Sealed| {
            let Sealed { digest, start, end, .. } = *sealed;
            (*sealed, Place { previous: std::mem::replace(&mut previous, digest), digest, start, end })
        };
        epochs.iter().map(place).collect()
    }

    /// The epochs of the pass are in the journal as they were sealed.
    pub(super) fn epochs_proven(&mut self) {
        let ApplyState::Proving(last) = self.apply else { return };
        self.apply = ApplyState::Noting(last);
        if !self.is_noted(&last) {
            self.journal.note_applying(last.epoch);
            self.want_superblock();
        }
        self.continue_noted();
    }

    /// Whether a durable superblock says that this epoch may be on the volumes.
    fn is_noted(&self, last: &Sealed) -> bool {
        let noted = self.journal.superblock().applying;
        noted.is_some_and(|noted| noted >= last.epoch) || mutant::is(Mutant::ApplyUnnoted)
    }

    /// Writes what is proven, once that is noted.
    pub(super) fn continue_noted(&mut self) {
        let ApplyState::Noting(last) = self.apply else { return };
        let (true, Some(group)) = (self.is_noted(&last), &self.state.group) else { return };
        let group = Box::new(group.clone());
        let is_of_pass = |sealed: &&Sealed| sealed.epoch <= last.epoch;
        let epochs = self.sealed.iter().take_while(is_of_pass).copied().collect();
        self.apply = ApplyState::Writing(last);
        self.act(BackupAction::Apply { epochs, group });
        self.put_questions(last.epoch);
        if mutant::is(Mutant::TailBeforeVolume) {
            self.epochs_applied();
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
