//! What follows when the journal does not hold what was sealed in it: its device lost, misdirected or changed a write, or
//! cannot read it back.
//!
//! What is left is the chain up to the last epoch that is still proven. Everything behind it is given up, for its first
//! epoch is missing; the primary has it all, and sends it again by an ordinary sync.
//!
//! | content | the volumes | it becomes |
//! |---|---|---|
//! | consistent | exactly an epoch: nothing behind it was begun | consistent, and [`DurableState::lost`] says up to which epoch it lacks what counts: no promote without force, until it holds that again |
//! | consistent | that epoch, and parts of what came behind it | inconsistent, the epoch as base: they differ only where later epochs wrote |
//! | consistent | what a sync in place left, whose commit point is gone | inconsistent, without a base |
//! | any other | nothing that could be promoted anyway | the same |
//!
//! Always holds: the state that says so is durable before the journal forgets what was lost, so that no stop in between
//! makes less than was acknowledged look like all; the volumes are not touched; the primary is sent away, and finds at its next
//! greeting what is left.

use std::time::Duration;

use super::apply::ApplyState;
use super::phase::PromoteStep;
use super::{Backup, BackupAction, Link, Phase, PromoteRefused};
use crate::ids::Epoch;
use crate::mutant::{self, Mutant};
use crate::state::{Content, DurableState, Role};

/// What the volumes of a backup will hold once all that can be applied is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// Nothing of the group.
    Nothing,
    /// One committed epoch. `lost`: up to this one, later ones counted and are gone.
    Exactly {
        /// That epoch.
        epoch: Epoch,
        /// The last that is lost.
        lost: Option<Epoch>,
    },
    /// That epoch, where there is one, and parts of later ones.
    Mixture {
        /// The epoch.
        base: Option<Epoch>,
    },
    /// What this side wrote itself, as a primary, after that epoch.
    Own {
        /// The epoch, where it is known.
        fork: Option<Epoch>,
    },
}

impl Backup {
    /// What a promote gives, whatever it takes.
    #[must_use]
    pub fn holding(&self) -> Holding {
        match self.state.content {
            Content::Blank => Holding::Nothing,
            Content::Consistent => {
                let epoch = if self.is_external() { self.committed() } else { self.staged() };
                Holding::Exactly { epoch, lost: self.state.lost.filter(|lost| *lost > epoch) }
            }
            Content::Inconsistent { base, .. } => Holding::Mixture { base },
            Content::Outdated { fork } => Holding::Own { fork },
        }
    }

    /// Of a backup that holds exactly one epoch: that one, and the last of those that count and that its journal has lost.
    #[must_use]
    pub fn lost(&self) -> Option<(Epoch, Epoch)> {
        let lost = self.state.lost.filter(|_| self.state.content == Content::Consistent)?;
        (lost > self.committed).then_some((self.committed, lost))
    }

    /// What is missing from the journal that was found at the start. `lost`: up to this epoch, as the journal itself tells.
    pub(super) fn check_journal(&mut self, lost: Option<Epoch>) {
        if self.state.role != Role::Backup {
            return;
        }
        let (named, held) = (self.state.highest_epoch_seen, self.journal.floor());
        let named = Some(named).filter(|named| self.state.content == Content::Consistent && *named > held);
        let Some(through) = lost.max(named) else { return };
        let half = self.journal.superblock().may_have_begun_behind(self.held());
        let reason = "it was durable in the journal once, and is not found there any more".to_owned();
        self.lose(Duration::ZERO, self.held(), through, half, &reason);
    }

    /// A pass has found that an epoch is not in the journal as it was sealed.
    pub(super) fn unproven(&mut self, now: Duration, epoch: Epoch, half: bool, reason: &str) {
        let kept = self.sealed.iter().rfind(|sealed| sealed.epoch < epoch);
        let kept = kept.map_or(self.applied, |last| last.epoch);
        let acknowledged = self.synced.max(self.acknowledged);
        self.apply = ApplyState::Idle { due: None };
        self.lose(now, kept, acknowledged, half, reason);
        self.schedule_apply(now);
        self.go_on(now);
    }

    /// Gives up everything behind `kept`. `through`: up to this epoch it was durable, or acknowledged; `half`: something of
    /// it may be on the volumes.
    fn lose(&mut self, now: Duration, kept: Epoch, through: Epoch, half: bool, reason: &str) {
        let first = self.sealed.iter().find(|sealed| sealed.epoch > kept);
        let start = first.map_or(self.journal.head(), |first| first.start);
        // Where a coordinator commits, what it did not commit may be dropped.
        let counts = if self.is_external() { self.committed } else { through };
        let lost = Some(counts).filter(|counts| *counts > kept);
        self.content_after_loss(kept, lost, half);
        self.write_state();
        self.sealed.retain(|sealed| sealed.epoch <= kept);
        self.journal.note_applying(kept);
        self.uncommit(kept);
        self.drop_from(start, through);
        let text = match self.lost() {
            Some((_, lost)) => format!(
                "the journal has lost epochs up to {lost}, which were acknowledged: {reason}. What is left is exactly \
                 epoch {kept}; the primary sends what is missing, or `ftship promote --force` takes that epoch"
            ),
            None => format!(
                "the journal has lost what follows epoch {kept}: {reason}. The primary sends it again"
            ),
        };
        self.act(BackupAction::ReportLoss { text: text.clone() });
        if !matches!(self.link, Link::Down) {
            self.bye(now, text);
        }
        self.phase_after_loss(kept);
    }

    fn content_after_loss(&mut self, kept: Epoch, lost: Option<Epoch>, half: bool) {
        let DurableState { content, highest_epoch_seen, last_incarnation, .. } = &mut self.state;
        if *content != Content::Consistent || mutant::is(Mutant::LossUntold) {
            return;
        }
        let base_id = last_incarnation.unwrap_or_default().0;
        // What a sync in place left is an epoch only once its commit point is applied.
        let was_exact = !kept.is_none() && kept >= *highest_epoch_seen;
        if !was_exact || half {
            *content = Content::Inconsistent { base_id, base: Some(kept).filter(|_| was_exact) };
        } else if lost.is_some() {
            self.state.lost = self.state.lost.max(lost);
        }
    }

    /// What was committed behind `kept` is not there any more.
    fn uncommit(&mut self, kept: Epoch) {
        if self.state.content != Content::Consistent {
            return self.forget_commits();
        }
        if self.committed > kept {
            let tail = self.journal.superblock().tail_digest;
            let digest = self.sealed.back().map_or(tail, |last| last.digest);
            (self.committed, self.committed_digest, self.word) = (kept, digest, kept);
            if self.is_external() {
                self.journal.note_committed(Some(kept));
            }
        }
        self.found = self.found.min(kept);
    }

    fn phase_after_loss(&mut self, kept: Epoch) {
        match self.phase {
            // Whatever the volumes hold, somebody takes the blame for it.
            Phase::Promoting(PromoteStep::Settling { forced: true, .. }) | Phase::Failed(_) => return,
            Phase::Promoting(PromoteStep::Settling { at: epoch, .. }) => {
                let refused = match self.lost() {
                    Some((held, through)) => PromoteRefused::Lost { held, through },
                    None if self.state.content == Content::Consistent => {
                        PromoteRefused::OutOfRange { epoch, first: self.committed, last: kept }
                    }
                    None => PromoteRefused::Inconsistent,
                };
                self.decision = None;
                self.act(BackupAction::PromoteDone(Err(refused)));
            }
            _ => {}
        }
        let next = Phase::of(&self.state);
        if self.phase != next {
            self.enter(next);
        }
    }
}
