//! Where a backup stands, and from where it may go where.
//!
//! Always holds: every change goes through [`Backup::enter`] or [`Backup::copy_step`], which know the table
//! [`LEGAL`]; a change that is not in it is a fault of this program and ends in [`Phase::Failed`], where nothing is
//! acknowledged, applied or promoted any more.
//!
//! ```text
//!              SyncBegin   what is committed is applied   state: Inconsistent    rest applied, SyncReady
//!   Blank ──────────► Draining ─────────────► Marking ──────────► Clearing ─────────────► Base
//!   Inconsistent ────►   │ ▲                     │ promote                               │ BaseEnd
//!                promote │ │ SyncBegin           │                                       ▼
//!                        ▼ │                     ▼                                    Flushing
//!   Promoted ◄─ … ◄─ Settling ◄──────────────────┘                                       │ volumes flushed
//!                        ▲                                                               ▼
//!                promote │          state: Consistent            commit point durable  Flushed
//!                        └──────── Consistent ◄──────── Sealing ◄────────────────────────┘
//!
//!   Outdated is left as Inconsistent is.
//!   link lost:  Draining ► what the state says;  Clearing, Base, Flushing, Flushed ► Inconsistent;
//!               Marking ► Inconsistent once written;  Sealing ► Consistent once written
//!   promote:    Settling ► Rolling (where the volumes are tracked) ► Marking (the new generation) ► Releasing ►
//!               Promoted; with force also from Inconsistent and Outdated
//!   another primary greets where a coordinator has committed nothing yet:  Consistent ► Inconsistent
//!   the journal has lost what was to be applied (`loss.rs`):  Consistent, Copying, Settling ► Inconsistent, unless the
//!               volumes hold exactly the epoch before: then Settling ► Consistent, which knows what it lacks
//!   a person gives up what is here (`giving_up.rs`):  Consistent ► Outdated
//!   a write or flush failed:  any ► Failed
//! ```

use super::Backup;
use crate::ids::Epoch;
use crate::mutant::{self, Mutant};
use crate::state::{Content, DurableState, Role};

/// Where the backup stands; see the picture at the head of its module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing received yet.
    Blank,
    /// A sync in place did not end; nothing promotable is here.
    Inconsistent,
    /// This side was demoted and has writes that the other side's history has not: to be overwritten there.
    Outdated,
    /// A sync in place is under way.
    Copying(Copying),
    /// Promotable: to the last committed epoch, or to one that the coordinator chooses; while a staged sync arrives too.
    Consistent,
    /// A promote is under way.
    Promoting(PromoteStep),
    /// This side is the primary of a new generation.
    Promoted,
    /// A write or flush failed; nothing is acknowledged any more.
    Failed(String),
}

/// How far a sync in place has come on this side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copying {
    pub(super) base_id: [u8; 16],
    /// What is left out of the copy has not changed since this epoch.
    pub(super) base: Option<Epoch>,
    pub(super) step: CopyStep,
    /// What this side has of its own behind the base.
    pub(super) own: OwnChanges,
    /// Whether a commit point is durable in the journal.
    pub(super) commit_point_synced: bool,
    /// The durable state before `Inconsistent` was written.
    pub(super) before: Option<Box<DurableState>>,
}

/// How far a backup that was a primary is with telling what it has of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnChanges {
    /// Not asked for yet.
    Unread,
    /// Being read.
    Reading,
    /// The primary has it.
    Told,
}

/// The steps of a sync in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyStep {
    /// Committed epochs are being applied before anything is overwritten.
    Draining,
    /// `Inconsistent` is being made durable.
    Marking,
    /// It is durable: what nobody committed is got out of the journal's way.
    Clearing,
    /// What is copied arrives.
    Base,
    /// The base copy has ended and is being flushed.
    Flushing,
    /// The base copy is durable; the next durable commit point ends the sync.
    Flushed,
    /// `Consistent` is being made durable.
    Sealing,
}

/// How far a promote has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromoteStep {
    /// Epochs up to this one are being committed and applied, later ones dropped.
    Settling {
        /// Random id of the generation to be made.
        id: [u8; 16],
        /// What the volumes are to hold.
        at: Epoch,
        /// The operator takes what they hold, whether or not it is a committed epoch.
        forced: bool,
    },
    /// The era is being ended on the volumes, so that what is written from now on is known.
    Rolling {
        /// Random id of the generation to be made.
        id: [u8; 16],
    },
    /// The new generation is being made durable.
    Marking,
    /// The volumes are being closed.
    Releasing,
}

/// A phase without what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Blank,
    Inconsistent,
    Outdated,
    Copying(CopyStep),
    Consistent,
    Settling,
    Rolling,
    NewGeneration,
    Releasing,
    Promoted,
    Failed,
}

use CopyStep::{Base, Clearing, Draining, Flushed, Flushing, Marking, Sealing};
use Stage::{
    Blank, Consistent, Copying as In, Failed, Inconsistent, NewGeneration, Outdated, Promoted, Releasing,
    Rolling, Settling,
};

/// From where one may go where; to [`Stage::Failed`] from everywhere else.
const LEGAL: [(Stage, &[Stage]); 16] = [
    (Blank, &[In(Draining)]),
    (Inconsistent, &[In(Draining), Settling]),
    (Outdated, &[In(Draining), Settling]),
    (Consistent, &[In(Draining), Settling, Inconsistent, Outdated]),
    (In(Draining), &[In(Marking), Blank, Inconsistent, Outdated, Consistent, Settling]),
    (In(Marking), &[In(Clearing), Inconsistent, Settling]),
    (In(Clearing), &[In(Base), Inconsistent]),
    (In(Base), &[In(Flushing), Inconsistent]),
    (In(Flushing), &[In(Flushed), Inconsistent]),
    (In(Flushed), &[In(Sealing), Inconsistent]),
    (In(Sealing), &[Consistent, Inconsistent]),
    (Settling, &[Rolling, NewGeneration, Consistent, Inconsistent]),
    (Rolling, &[NewGeneration]),
    (NewGeneration, &[Releasing]),
    (Releasing, &[Promoted]),
    (Promoted, &[]),
];

/// Whether one may go from one stage to another.
pub(super) fn is_legal(from: Stage, to: Stage) -> bool {
    let row = LEGAL.iter().find(|(stage, _)| *stage == from);
    row.is_some_and(|(_, next)| to == Failed || next.contains(&to))
}

impl Phase {
    pub(super) fn stage(&self) -> Stage {
        match self {
            Self::Blank => Blank,
            Self::Inconsistent => Inconsistent,
            Self::Outdated => Outdated,
            Self::Copying(copying) => In(copying.step),
            Self::Consistent => Consistent,
            Self::Promoting(PromoteStep::Settling { .. }) => Settling,
            Self::Promoting(PromoteStep::Rolling { .. }) => Rolling,
            Self::Promoting(PromoteStep::Marking) => NewGeneration,
            Self::Promoting(PromoteStep::Releasing) => Releasing,
            Self::Promoted => Promoted,
            Self::Failed(_) => Failed,
        }
    }

    /// Where a backup stands by its durable state alone.
    pub(super) fn of(state: &DurableState) -> Self {
        match (state.role, state.content) {
            (Role::Primary, _) => Self::Promoted,
            (Role::Backup, Content::Blank) => Self::Blank,
            (Role::Backup, Content::Inconsistent { .. }) => Self::Inconsistent,
            (Role::Backup, Content::Outdated { .. }) => Self::Outdated,
            (Role::Backup, Content::Consistent) => Self::Consistent,
        }
    }

    /// Its step, while there is one.
    pub(super) fn copying(&self) -> Option<CopyStep> {
        if let Self::Copying(copying) = self { Some(copying.step) } else { None }
    }
}

impl Backup {
    /// Goes on to `next`; a step that the table does not have latches a failure instead.
    pub(super) fn enter(&mut self, next: Phase) {
        let (from, to) = (self.phase.stage(), next.stage());
        if is_legal(from, to) {
            self.phase = next;
        } else if from != Failed {
            self.fail(format!("a fault of this program: from {from:?} to {to:?} there is no way"));
        }
    }

    /// Takes the next step of a sync in place.
    pub(super) fn copy_step(&mut self, step: CopyStep) {
        if let Phase::Copying(copying) = &self.phase {
            self.enter(Phase::Copying(Copying { step, ..copying.clone() }));
        }
    }

    /// Whether the durable content is what the coordinator, or STAGED, was told of: then commits count.
    pub(super) fn is_consistent(&self) -> bool {
        let drains = mutant::is(Mutant::CommitsLostInDraining);
        match self.phase.stage() {
            Consistent | Settling => true,
            In(Draining) => self.state.content == Content::Consistent && !drains,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Stage; 17] = [
        Blank,
        Inconsistent,
        Outdated,
        In(Draining),
        In(Marking),
        In(Clearing),
        In(Base),
        In(Flushing),
        In(Flushed),
        In(Sealing),
        Consistent,
        Settling,
        Rolling,
        NewGeneration,
        Releasing,
        Promoted,
        Failed,
    ];

    #[test]
    fn every_stage_has_one_row_and_failing_is_for_ever() {
        for stage in ALL {
            let rows = LEGAL.iter().filter(|(from, _)| *from == stage).count();
            assert_eq!(rows, usize::from(stage != Failed), "{stage:?}");
            assert_eq!(is_legal(stage, Failed), stage != Failed, "{stage:?}");
            assert!(!is_legal(Failed, stage));
        }
    }

    #[test]
    fn nothing_is_overwritten_before_it_is_marked_nor_released_before_a_generation() {
        let into = |to: Stage| ALL.into_iter().filter(|from| is_legal(*from, to)).collect::<Vec<_>>();
        assert_eq!(into(In(Base)), [In(Clearing)]);
        assert_eq!(into(In(Clearing)), [In(Marking)]);
        assert_eq!(into(Consistent), [In(Draining), In(Sealing), Settling]);
        assert_eq!(into(Releasing), [NewGeneration]);
        assert_eq!(into(Promoted), [Releasing]);
    }
}
