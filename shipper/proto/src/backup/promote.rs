//! Promoting: the backup becomes the primary of a new generation at exactly its last committed epoch, or at the
//! one that the coordinator names.
//!
//! Always holds: what is promoted to is durably committed and on the volumes, what lies behind it is durably
//! dropped, and the new generation is durable, before the volumes are released; asking again gives the same answer;
//! a refused promote changes nothing.

use std::time::Duration;

use super::phase::{CopyStep, PromoteStep};
use super::{Backup, BackupAction, Phase, Sealed};
use crate::generations::LineageEntry;
use crate::ids::{Digest, Epoch, Generation};
use crate::mutant::{self, Mutant};
use crate::rolls::Roll;
use crate::state::{DurableState, Role, StaleToken};
use ftdm_units::Era;

/// Why a promote was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromoteRefused {
    /// Nothing was ever received.
    #[error("the backup is blank: no full sync has reached it yet")]
    Blank,
    /// A full sync did not reach its first commit point.
    #[error("the backup is inconsistent: its full sync did not end; let the primary finish it")]
    Inconsistent,
    /// It was demoted, and its own writes are not overwritten yet.
    #[error(
        "the backup is outdated: what it holds was given up for what the other side has; let that one synchronise it"
    )]
    Outdated,
    /// Its journal has lost what was acknowledged.
    #[error(
        "epochs up to {through} were acknowledged, and the journal has lost those behind {held}: let the primary send them \
         again, or, if it is gone for good, take epoch {held} with --force"
    )]
    Lost {
        /// What the volumes hold, exactly.
        held: Epoch,
        /// The last epoch that is missing.
        through: Epoch,
    },
    /// The daemon has latched a failure.
    #[error(
        "the daemon has failed: {0}; fix the cause, and it tries again by itself. If that cannot be done: stop it, and \
         `ftship promote` with --accept-loss takes what there is"
    )]
    Failed(String),
    /// The coordinator's epoch is missing.
    #[error("this group's coordinator commits: name its epoch with --epoch, from {first} to {last}")]
    NeedsEpoch {
        /// The first that can be named.
        first: Epoch,
        /// The last.
        last: Epoch,
    },
    /// An epoch that is not here, or not any more.
    #[error(
        "epoch {epoch} cannot be promoted to: this backup can be promoted to epochs from {first} to {last}"
    )]
    OutOfRange {
        /// As asked.
        epoch: Epoch,
        /// The first that can be named.
        first: Epoch,
        /// The last.
        last: Epoch,
    },
    /// Somebody was promoted with a higher token.
    #[error(transparent)]
    Stale(#[from] StaleToken),
    /// Another epoch is being promoted to, or was.
    #[error("this side is promoted at epoch {0} already")]
    Elsewhere(Epoch),
}

impl Backup {
    /// The same, decided by somebody who counts decisions.
    pub(super) fn promote_with(
        &mut self,
        now: Duration,
        id: [u8; 16],
        epoch: Option<Epoch>,
        force: bool,
        token: Option<u64>,
    ) {
        let seen = self.state.token.max(self.decision.unwrap_or(0));
        // Asked again, with the token that it has, a promoted side says the same.
        let is_again = matches!(self.phase, Phase::Promoted | Phase::Promoting(_)) && token == Some(seen);
        if let Some(token) = token.filter(|token| *token <= seen && !is_again) {
            return self.act(BackupAction::PromoteDone(Err(StaleToken { token, seen }.into())));
        }
        self.decision = token;
        self.promote(now, id, epoch, force);
        match self.phase {
            // The generation has taken it.
            Phase::Promoting(PromoteStep::Settling { .. } | PromoteStep::Rolling { .. }) => {}
            Phase::Promoting(_) | Phase::Promoted => {
                if let Some(token) = self.decision.take().filter(|token| *token > self.state.token) {
                    self.state.token = token;
                    self.write_state();
                }
            }
            _ => self.decision = None,
        }
    }

    pub(super) fn promote(&mut self, now: Duration, id: [u8; 16], epoch: Option<Epoch>, force: bool) {
        let answer = match &self.phase {
            Phase::Promoted => {
                let at = self.promoted_at();
                Some(if epoch.is_none_or(|epoch| epoch == at) {
                    Ok(at)
                } else {
                    Err(PromoteRefused::Elsewhere(at))
                })
            }
            // The one under way answers both.
            Phase::Promoting(PromoteStep::Settling { at, .. }) if epoch.is_some_and(|epoch| epoch != *at) => {
                Some(Err(PromoteRefused::Elsewhere(*at)))
            }
            Phase::Promoting(_) => return,
            Phase::Outdated | Phase::Inconsistent if force => {
                let at = self.highest_epoch();
                return self.begin_promote(now, PromoteStep::Settling { id, at, forced: true });
            }
            _ => match self.choose(epoch).and_then(|at| self.check_loss(at, force)) {
                Ok(at) => return self.begin_promote(now, PromoteStep::Settling { id, at, forced: false }),
                Err(refused) => Some(Err(refused)),
            },
        };
        if let Some(answer) = answer {
            self.act(BackupAction::PromoteDone(answer));
        }
    }

    /// The epoch to promote to.
    fn choose(&self, epoch: Option<Epoch>) -> Result<Epoch, PromoteRefused> {
        // Until the first overwrite is possible the earlier content counts.
        let standing = match &self.phase {
            Phase::Copying(copying) if copying.step == CopyStep::Draining => Phase::of(&self.state),
            Phase::Copying(copying) if copying.step == CopyStep::Marking => {
                copying.before.as_deref().map_or(Phase::Inconsistent, Phase::of)
            }
            other => other.clone(),
        };
        match standing {
            Phase::Consistent => {}
            Phase::Blank => return Err(PromoteRefused::Blank),
            Phase::Outdated => return Err(PromoteRefused::Outdated),
            Phase::Failed(reason) => return Err(PromoteRefused::Failed(reason)),
            _ => return Err(PromoteRefused::Inconsistent),
        }
        let last = self.staged();
        let mut first = if self.is_external() { self.named() } else { last };
        let staged = self.sealed.iter().filter(|sealed| sealed.commit_point && sealed.epoch > first);
        let staged: Vec<Epoch> = staged.map(|sealed| sealed.epoch).collect();
        if first.is_none() {
            first = staged.first().copied().unwrap_or(first);
        }
        match epoch {
            None if mutant::is(Mutant::PromotePastWord) => Ok(last),
            None if self.is_external() => Err(PromoteRefused::NeedsEpoch { first, last }),
            None => Ok(last),
            Some(_) if mutant::is(Mutant::PromotePastWord) => Ok(last),
            Some(epoch) if epoch == first || staged.contains(&epoch) => Ok(epoch),
            Some(epoch) => Err(PromoteRefused::OutOfRange { epoch, first, last }),
        }
    }

    /// Refuses an epoch behind which something that counts was lost, unless somebody takes it all the same.
    fn check_loss(&self, at: Epoch, force: bool) -> Result<Epoch, PromoteRefused> {
        match self.state.lost {
            Some(through) if at < through && !force => Err(PromoteRefused::Lost { held: at, through }),
            _ => Ok(at),
        }
    }

    /// The last epoch that the coordinator has named, whether that is durable yet or not: it cannot be taken back.
    fn named(&self) -> Epoch {
        let is_named = |sealed: &&Sealed| sealed.commit_point && sealed.epoch <= self.word;
        self.sealed.iter().rfind(is_named).map_or(self.committed, |last| last.epoch.max(self.committed))
    }

    fn begin_promote(&mut self, now: Duration, step: PromoteStep) {
        let before = match &self.phase {
            Phase::Copying(copying) => copying.before.clone(),
            _ => None,
        };
        self.enter(Phase::Promoting(step));
        if let Some(before) = before {
            // `Inconsistent` is on its way to the disk and not true any more.
            self.state = DurableState { token: self.state.token, ..*before };
            self.write_state();
        }
        self.bye(now, "promoted".into());
        self.promote_continue(now);
    }

    /// The epoch whose content the volumes had when this side was promoted.
    #[must_use]
    pub fn promoted_at(&self) -> Epoch {
        self.state.lineage.last().map_or(Epoch::NONE, |entry| Epoch(entry.first_epoch.0.saturating_sub(1)))
    }

    pub(super) fn promote_continue(&mut self, now: Duration) {
        let Phase::Promoting(PromoteStep::Settling { id, at, forced }) = self.phase else { return };
        if self.is_settling() {
            return;
        }
        if forced {
            if !self.apply.is_idle() {
                return;
            }
            self.state.rolls.clear();
            return self.begin_generation(id, at, self.digest, true);
        }
        let has_later = self.sealed.back().is_some_and(|last| last.epoch > at);
        let needs_word = self.committed < at;
        if self.is_external() && has_later && !mutant::is(Mutant::PromoteKeepsLater) {
            return self.drop_behind(at);
        }
        if self.is_external() && needs_word && !mutant::is(Mutant::PromoteUncommitted) {
            self.word = at;
            return self.settle(now);
        }
        if self.has_applicable() && !mutant::is(Mutant::PromoteUnapplied) || !self.apply.is_idle() {
            return self.apply_now(now);
        }
        if self.config.eras.is_some() {
            self.enter(Phase::Promoting(PromoteStep::Rolling { id }));
            return self.act(BackupAction::RollEra);
        }
        self.begin_generation(id, self.committed, self.committed_digest, false);
    }

    /// The volumes hold exactly what is promoted to, and whatever is written to them from now on is in these eras; or it
    /// is not known, and coming back will cost a whole copy.
    pub(super) fn era_rolled(&mut self, eras: Vec<Era>) {
        let Phase::Promoting(PromoteStep::Rolling { id }) = self.phase else { return };
        let roll = Roll { epoch: self.committed, at_cut: true, eras };
        let rolls = &mut self.state.rolls;
        rolls.forget_after(roll.epoch);
        // One that this side made at this very epoch, as a primary that handed over, reaches back at least so far.
        let is_there = rolls.last().is_some_and(|last| last.epoch == roll.epoch && last.at_cut);
        if !(is_there && rolls.is_continued_by(&roll.eras)) && rolls.push(roll.clone()).is_err() {
            rolls.clear();
            // Of nothing but what no group can have: then nothing is known.
            let _ = rolls.push(roll);
        }
        self.begin_generation(id, self.committed, self.committed_digest, false);
    }

    /// `forced`: what the volumes hold may be no epoch at all.
    fn begin_generation(&mut self, id: [u8; 16], at: Epoch, digest: Digest, forced: bool) {
        let number = self.state.lineage.last().map_or(0, |entry| entry.generation.number) + 1;
        let (generation, first_epoch) = (Generation { number, id }, at.next());
        self.state.lineage.push(LineageEntry { generation, first_epoch, digest });
        self.state.role = Role::Primary;
        self.state.end_sizes_at(at);
        self.state.with_loss = forced || self.state.lost.is_some_and(|lost| lost > at);
        self.state.lost = None;
        self.state.alone = Some(at);
        self.state.highest_epoch_seen = self.state.highest_epoch_seen.max(self.highest_epoch());
        self.state.numbered = Some(self.state.highest_epoch_seen);
        self.state.token = self.state.token.max(self.decision.take().unwrap_or(0));
        self.enter(Phase::Promoting(PromoteStep::Marking));
        self.write_state();
        if mutant::is(Mutant::PromoteBeforeState) {
            self.promote_marked();
        }
    }

    pub(super) fn promote_marked(&mut self) {
        if let Phase::Promoting(PromoteStep::Marking) = self.phase {
            self.enter(Phase::Promoting(PromoteStep::Releasing));
            self.act(BackupAction::ReleaseVolumes);
        }
    }

    pub(super) fn volumes_released(&mut self) {
        if let Phase::Promoting(PromoteStep::Releasing) = self.phase {
            self.enter(Phase::Promoted);
            let epoch = self.promoted_at();
            self.act(BackupAction::PromoteDone(Ok(epoch)));
        }
    }
}
