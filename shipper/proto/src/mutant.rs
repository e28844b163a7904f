//! Deliberate faults, for the proof that the simulation would see them.
//!
//! Always holds: without the feature `mutants`, which only `tests/sim` turns on, [`is`] is constantly false
//! and nothing of this is in the program.

/// A fault, named after what it breaks. The list, and what each one shows, is in `tests/sim/README.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "tests/sim/README.md describes them in one table")]
pub enum Mutant {
    AckBeforeSync,
    SyncCoversLaterEpochs,
    ApplyBeforeSync,
    ApplyWithoutFlush,
    TailBeforeVolume,
    ReuseBeforeSuperblock,
    OverrunTail,
    BaseWithoutFlush,
    AnyFlushEndsBase,
    ConsistentWithoutCommitPoint,
    AckBeforeState,
    ReadyBeforeState,
    OverwriteUndrained,
    CommitsLostInDraining,
    TrustUnsyncedDisks,
    SkipIncarnation,
    KeepOpenEpoch,
    IgnoreFailure,
    SpinWhenFailed,
    PromoteUnapplied,
    PromoteBeforeState,
    StalledByOldPieces,
    AnyDigestStaged,
    NumberFromOne,
    CheckpointOfRunningCut,
    ForgetCheckpoint,
    CommitPastWord,
    CommitUnsynced,
    CommitBeforeSuperblock,
    ApplyUncommitted,
    KeepForeignStaged,
    PromotePastWord,
    PromoteKeepsLater,
    PromoteUncommitted,
    StagedIsCommitted,
    FlushFirstVolumeOnly,
    LastVolumeUncopied,
    RedoWhateverLiesThere,
    IdentityIsProof,
    ApplyUnnoted,
    LossUntold,
    SlotsInTurn,
    InspectWithoutEpochs,
    InspectReadLate,
    HashAtAnyEpoch,
    RepairForgotten,
    IgnoreAlone,
    ForgetAlone,
    EndsOnReceipt,
    AloneUncommitted,
    PutBackUnseen,
    EndForgotten,
    EndAssumed,
    DemoteAnyway,
    SwitchBeforeState,
    SwitchUnyielded,
    SwitchForgotten,
    SnapshotOfCommitted,
    OlderEraSkipped,
    StagedOfWrongBase,
    ResumeWithNewBase,
    RollBehindCutCounts,
    RollOfEarlierAttempt,
    CutInLastRound,
    RestForEver,
    RestUnproven,
    LastRoundForgotten,
    RollUndrained,
    RollUnflushed,
    OverwriteUnmarked,
    OverwriteUntried,
    SkipAlthoughSent,
    CompareOutOfOrder,
    StandReadLate,
    OwnUntold,
    FollowEachTick,
    PartBeforeCopies,
    GrowthUnnoted,
    GrowthUntold,
}

impl Mutant {
    /// All of them.
    #[cfg(feature = "mutants")]
    pub const ALL: &[Self] = &[
        Self::AckBeforeSync,
        Self::SyncCoversLaterEpochs,
        Self::ApplyBeforeSync,
        Self::ApplyWithoutFlush,
        Self::TailBeforeVolume,
        Self::ReuseBeforeSuperblock,
        Self::OverrunTail,
        Self::BaseWithoutFlush,
        Self::AnyFlushEndsBase,
        Self::ConsistentWithoutCommitPoint,
        Self::AckBeforeState,
        Self::ReadyBeforeState,
        Self::OverwriteUndrained,
        Self::CommitsLostInDraining,
        Self::TrustUnsyncedDisks,
        Self::SkipIncarnation,
        Self::KeepOpenEpoch,
        Self::IgnoreFailure,
        Self::SpinWhenFailed,
        Self::PromoteUnapplied,
        Self::PromoteBeforeState,
        Self::StalledByOldPieces,
        Self::AnyDigestStaged,
        Self::NumberFromOne,
        Self::CheckpointOfRunningCut,
        Self::ForgetCheckpoint,
        Self::CommitPastWord,
        Self::CommitUnsynced,
        Self::CommitBeforeSuperblock,
        Self::ApplyUncommitted,
        Self::KeepForeignStaged,
        Self::PromotePastWord,
        Self::PromoteKeepsLater,
        Self::PromoteUncommitted,
        Self::StagedIsCommitted,
        Self::FlushFirstVolumeOnly,
        Self::LastVolumeUncopied,
        Self::RedoWhateverLiesThere,
        Self::IdentityIsProof,
        Self::ApplyUnnoted,
        Self::LossUntold,
        Self::SlotsInTurn,
        Self::InspectWithoutEpochs,
        Self::InspectReadLate,
        Self::HashAtAnyEpoch,
        Self::RepairForgotten,
        Self::IgnoreAlone,
        Self::ForgetAlone,
        Self::EndsOnReceipt,
        Self::AloneUncommitted,
        Self::PutBackUnseen,
        Self::EndForgotten,
        Self::EndAssumed,
        Self::DemoteAnyway,
        Self::SwitchBeforeState,
        Self::SwitchUnyielded,
        Self::SwitchForgotten,
        Self::SnapshotOfCommitted,
        Self::OlderEraSkipped,
        Self::StagedOfWrongBase,
        Self::ResumeWithNewBase,
        Self::RollBehindCutCounts,
        Self::RollOfEarlierAttempt,
        Self::CutInLastRound,
        Self::RestForEver,
        Self::RestUnproven,
        Self::LastRoundForgotten,
        Self::RollUndrained,
        Self::RollUnflushed,
        Self::OverwriteUnmarked,
        Self::OverwriteUntried,
        Self::SkipAlthoughSent,
        Self::CompareOutOfOrder,
        Self::StandReadLate,
        Self::OwnUntold,
        Self::FollowEachTick,
        Self::PartBeforeCopies,
        Self::GrowthUnnoted,
        Self::GrowthUntold,
    ];
}

#[cfg(feature = "mutants")]
mod selected {
    use super::Mutant;
    use std::cell::Cell;

    thread_local!(static SELECTED: Cell<Option<Mutant>> = const { Cell::new(None) });

    /// Selects the fault that this thread's state machines have from now on.
    pub fn select(mutant: Option<Mutant>) {
        SELECTED.set(mutant);
    }

    /// Whether this fault is selected.
    #[must_use]
    pub fn is(mutant: Mutant) -> bool {
        SELECTED.get() == Some(mutant)
    }
}

#[cfg(feature = "mutants")]
pub use selected::{is, select};

/// Whether this fault is selected: never.
#[cfg(not(feature = "mutants"))]
#[must_use]
#[inline(always)]
pub const fn is(_: Mutant) -> bool {
    false
}
