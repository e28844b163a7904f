//! The backup's half of the protocol: what is journalled, acknowledged, applied and promoted, and when.
//!
//! Sans-IO: [`Backup::handle`] takes events, [`Backup::poll_action`] yields what the driver must do,
//! time is a parameter. The driver runs actions of one lane in the order given; lanes run side by
//! side.
//!
//! Always holds:
//! - STAGED(N) is sent only after a journal sync that began after N's last frame was appended has
//!   succeeded ([`AckPolicy::Received`] waives that), and, for the first commit point of a full sync, after the
//!   base copy was flushed and the durable state says `Consistent`.
//! - Where a coordinator commits, nothing is committed, applied or promoted past its word.
//! - Only committed epochs are applied to a consistent volume, in order, each proven to be what was sealed before anything
//!   of it is written; journal space is freed only after the superblock that says so is durable.
//! - After one failed write or flush nothing is acknowledged, applied or promoted any more ([`Phase::Failed`]).
//! - A promote makes the new generation durable before the volumes are released.
//!
//! Where it stands and from where it may go where is drawn in [`Phase`]'s module, `phase.rs`.

mod apply;
mod commit;
mod events;
mod full_sync;
mod giving_up;
mod greet;
mod growth;
mod loss;
mod phase;
mod promote;
mod receive;
mod snapshot;
mod verify;

use std::collections::VecDeque;
use std::time::Duration;

use crate::digest::EpochVerifier;
use crate::frame::Frame;
use crate::generations::LineageEntry;
use crate::group::GroupDescription;
use crate::group::LocalVolume;
use crate::ids::{Digest, Epoch, GroupName, Incarnation, VolumeUuid};
use crate::journal::JournalWriter;
use crate::message::{ByeCause, RefuseCode};
use crate::mutant::{self, Mutant};
use crate::protocol::{AckPolicy, CommitPolicy};
use crate::state::DurableState;
use crate::verify::HashRequest;
use ftdm_units::{Era, Sectors};

pub use events::{BackupAction, BackupEvent};
pub use giving_up::GiveUpRefused;
pub use loss::Holding;
pub use phase::{Copying, Phase};
pub use promote::PromoteRefused;

/// What the backup is told at its start, from its configuration and its devices.
#[derive(Clone, Debug)]
pub struct BackupConfig {
    /// The group that this daemon serves.
    pub group: GroupName,
    /// Size and logical block size of each volume here, in the group's order: the size that it could be given.
    pub volumes: Vec<LocalVolume>,
    /// The size that its device shows now.
    pub shown: Vec<Sectors>,
    /// Their identities as this host's devices; none where one has none.
    pub devices: Vec<VolumeUuid>,
    /// A peer that is silent for this long is gone.
    pub timeout: Duration,
    /// Longest time that committed epochs wait in the journal before they are applied.
    pub apply_delay: Duration,
    /// Who commits.
    pub commit: CommitPolicy,
    /// What STAGED promises.
    pub ack: AckPolicy,
    /// The era that each volume's writes go to, in the group's order; `None` where that is not tracked, or not known.
    pub eras: Option<Vec<Era>>,
}

/// What the journal and the state on disk said at the start.
#[derive(Debug)]
pub struct Recovered {
    /// Durable state of the group.
    pub state: DurableState,
    /// The journal, its head behind the last sealed epoch.
    pub journal: JournalWriter,
    /// Sealed epochs that are not applied yet, oldest first: wholly staged, and so committed under the `auto`
    /// policy.
    pub sealed: Vec<Sealed>,
    /// Last applied epoch.
    pub applied: Epoch,
    /// Its digest.
    pub applied_digest: Digest,
    /// The journal tells that epochs up to this one were durable in it, and are not found.
    pub lost: Option<Epoch>,
}

/// An epoch that is wholly in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The epoch.
    pub epoch: Epoch,
    /// Its digest, chained over all earlier ones.
    pub digest: Digest,
    /// The primary that made it.
    pub incarnation: Incarnation,
    /// Journal position of its first frame.
    pub start: u64,
    /// Journal position behind its last frame.
    pub end: u64,
    /// Whether the volumes are one exact state once it is applied.
    pub commit_point: bool,
}

/// The connection as the protocol sees it.
#[derive(Debug)]
enum Link {
    Down,
    /// Accepted; only a `Hello` is legal.
    Greeting {
        deadline: Duration,
    },
    /// Its `Hello` is in order; what it must not find here is being dropped.
    Clearing {
        deadline: Duration,
        peer: Box<Peer>,
    },
    /// Greeted.
    Up {
        peer: Peer,
        heard: Duration,
        report_at: Duration,
        /// An epoch has come over it.
        replicates: bool,
    },
}

#[derive(Clone, Debug)]
struct Peer {
    incarnation: Incarnation,
    generation: u64,
    protocol: u16,
    /// It understands [`AckPolicy::Received`].
    knows_received: bool,
    /// It may ask what the volumes hold.
    knows_verify: bool,
    /// It may ask that by short digests, also while a sync is under way.
    knows_compare: bool,
    group: GroupDescription,
    lineage: Vec<LineageEntry>,
}

/// Figures for status displays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackupCounters {
    /// Epochs committed since the start of the daemon.
    pub epochs_committed: u64,
    /// Base copy bytes received, as stored in frames.
    pub base_bytes: u64,
    /// Epoch bytes received, as stored in frames.
    pub epoch_bytes: u64,
}

/// The backup's state machine.
#[derive(Debug)]
pub struct Backup {
    config: BackupConfig,
    state: DurableState,
    phase: Phase,
    link: Link,
    /// The primary that greeted over the present connection, or the last one: whoever is answered.
    correspondent: Option<Incarnation>,
    /// A primary was refused because its history is another one.
    is_disputed: bool,
    /// What this side holds is being given up.
    is_giving_up: bool,
    /// The fencing token of the promote under way: durable with its generation, and not before.
    decision: Option<u64>,
    journal: JournalWriter,
    /// The epoch that is arriving.
    open: Option<EpochVerifier>,
    /// It stands for several: a staged sync.
    catches_up: bool,
    /// A frame for which the journal had no room.
    blocked: Option<Frame>,
    /// Sealed and not applied, oldest first.
    sealed: VecDeque<Sealed>,
    /// The last epoch that is durable in the journal.
    synced: Epoch,
    /// The last epoch that STAGED was due for.
    acknowledged: Epoch,
    /// The last epoch that a report called durable.
    reported: Epoch,
    /// The coordinator's last word.
    word: Epoch,
    /// The last epoch that was committed when the daemon started: an earlier one may have redone it in part.
    found: Epoch,
    /// The last epoch that is durably committed.
    committed: Epoch,
    committed_digest: Digest,
    applied: Epoch,
    /// Digest of the last sealed epoch: what the next one must chain to.
    digest: Digest,
    sync: SyncState,
    superblocks: commit::SuperblockWrites,
    /// Writes of the state that were ordered and are not done: only the last one's end counts.
    state_writes: u32,
    /// Flushes of the volumes that were ordered and are not done: those of a base copy that was given up
    /// may still be on their way when the next one ends.
    flushes: u32,
    /// Reads of what this side wrote itself that were ordered and are not done: only the last one counts.
    reads: u32,
    apply: apply::ApplyState,
    /// What the primary asked about epochs that are not on the volumes yet.
    questions: Vec<HashRequest>,
    hashing: verify::Hashing,
    snapshots: Vec<snapshot::Wanted>,
    /// Other sizes of the volumes, which a primary brings.
    growing: growth::Growing,
    /// Decompressed payload of the frame that is being checked.
    scratch: Vec<u8>,
    actions: VecDeque<BackupAction>,
    counters: BackupCounters,
}

/// Journal syncs: at most one is under way, so that several epochs share one.
#[derive(Debug, Default)]
struct SyncState {
    next_ticket: u64,
    /// The ticket under way and the newest sealed epoch that it covers.
    running: Option<(u64, Epoch)>,
}

impl Backup {
    /// Goes on with another time-out and delay of applying.
    pub fn tune(&mut self, timeout: Duration, apply_delay: Duration) {
        (self.config.timeout, self.config.apply_delay) = (timeout, apply_delay);
    }

    /// A backup that continues from what its disks say.
    #[must_use]
    pub fn new(config: BackupConfig, recovered: Recovered) -> Self {
        let Recovered { state, mut journal, sealed, applied, applied_digest, lost } = recovered;
        let digest = sealed.last().map_or(applied_digest, |last| last.digest);
        let phase = Phase::of(&state);
        let named = journal.noted_committed();
        let (committed, committed_digest) = match (config.commit, named) {
            (CommitPolicy::External, Some(named)) => {
                let last = sealed.iter().find(|sealed| sealed.epoch == named);
                (named, last.map_or(applied_digest, |last| last.digest))
            }
            _ => (applied, applied_digest),
        };
        // What was staged while nobody but the backup committed is committed for good.
        let last = sealed.iter().rfind(|sealed| sealed.commit_point).map_or(applied, |last| last.epoch);
        journal.note_committed((config.commit == CommitPolicy::External).then_some(named.unwrap_or(last)));
        let is_noted = journal.noted_committed() == named;
        let mut backup = Self {
            config,
            state,
            phase,
            link: Link::Down,
            correspondent: None,
            is_disputed: false,
            is_giving_up: false,
            decision: None,
            journal,
            open: None,
            catches_up: false,
            blocked: None,
            sealed: sealed.into(),
            synced: applied,
            acknowledged: applied,
            reported: applied,
            word: named.unwrap_or(last),
            found: named.unwrap_or(last),
            committed,
            committed_digest,
            applied,
            digest,
            sync: SyncState::default(),
            superblocks: commit::SuperblockWrites::default(),
            state_writes: 0,
            flushes: 0,
            reads: 0,
            apply: apply::ApplyState::Idle { due: None },
            questions: Vec::new(),
            hashing: verify::Hashing::default(),
            snapshots: Vec::new(),
            growing: growth::Growing::No,
            scratch: Vec::new(),
            actions: VecDeque::new(),
            counters: BackupCounters::default(),
        };
        // What recovery read back may still sit in a volatile cache, left there by a killed daemon:
        // it is not committed before a sync of our own has succeeded.
        backup.sync_journal();
        if !is_noted {
            // In the same lane, so behind that sync and before any frame.
            backup.want_superblock();
        }
        backup.check_journal(lost);
        backup.check_own_history();
        backup
    }

    /// Tells what happened at `now` (time since any fixed origin; never goes back).
    pub fn handle(&mut self, now: Duration, event: BackupEvent) {
        if let Phase::Failed(_) = self.phase {
            return self.handle_failed(event);
        }
        match event {
            BackupEvent::Accepted => self.accepted(now),
            BackupEvent::Frame(frame) => self.frame(now, frame),
            BackupEvent::Disconnected => self.disconnected(now),
            BackupEvent::Behind => self.not_listening(now),
            BackupEvent::JournalSynced { ticket } => self.journal_synced(now, ticket),
            BackupEvent::VolumesFlushed => self.volumes_flushed(now),
            BackupEvent::StateWritten => self.state_written(now),
            BackupEvent::Proven => self.epochs_proven(),
            BackupEvent::Unproven { epoch, half, reason } => self.unproven(now, epoch, half, &reason),
            BackupEvent::Applied => self.epochs_applied(),
            BackupEvent::SuperblockWritten => self.superblock_written(now),
            BackupEvent::VolumesHashed { token, result } => self.volumes_hashed(token, result),
            BackupEvent::Snapshot { id } => self.snapshot(now, id),
            BackupEvent::VolumesReleased => self.volumes_released(),
            BackupEvent::Failed { .. } if mutant::is(Mutant::IgnoreFailure) => {}
            BackupEvent::Failed { reason } => self.fail(reason),
            BackupEvent::OwnRead { result } => self.own_read(now, result),
            BackupEvent::GiveUp => self.give_up(),
            BackupEvent::EraRolled { eras } => self.era_rolled(eras),
            BackupEvent::Room { volumes } => self.has_room(volumes),
            BackupEvent::Enlarged { result } => self.enlarged(now, result),
            BackupEvent::Promote { id, epoch, force, token } => {
                self.promote_with(now, id, epoch, force, token);
            }
        }
        if self.is_stuck() {
            let text =
                "the journal is full of epochs that await their COMMIT: commit sooner, or make it larger";
            self.leave(now, text.into(), ByeCause::Journal);
        }
    }

    /// Goes on with whatever waited for what is durable now.
    fn go_on(&mut self, now: Duration) {
        self.continue_draining(now);
        self.continue_clearing(now);
        self.continue_snapshots(now);
        self.promote_continue(now);
        self.greet(now);
    }

    /// Tells that time has come to `now`.
    pub fn handle_timeout(&mut self, now: Duration) {
        if let Phase::Failed(_) = self.phase {
            return;
        }
        self.link_timeout(now);
        self.apply_timeout(now);
    }

    /// When [`Self::handle_timeout`] is due at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        if matches!(self.phase, Phase::Failed(_)) && !mutant::is(Mutant::SpinWhenFailed) {
            return None;
        }
        let link = match self.link {
            Link::Down => None,
            Link::Greeting { deadline } | Link::Clearing { deadline, .. } => Some(deadline),
            Link::Up { heard, report_at, .. } if self.wants_frames() => {
                Some(report_at.min(heard + self.config.timeout))
            }
            Link::Up { report_at, .. } => Some(report_at),
        };
        [link, self.apply.due()].into_iter().flatten().min()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<BackupAction> {
        self.actions.pop_front()
    }

    /// Whether frames may be handed in. False while the journal is full: the driver then stops reading,
    /// and the primary's window closes.
    #[must_use]
    pub fn wants_frames(&self) -> bool {
        self.blocked.is_none()
    }

    /// Whether a new connection may take the place of the present one: a greeted primary is not given up for
    /// whoever knocks; if it is dead, it times out.
    #[must_use]
    pub fn admits(&self) -> bool {
        !self.is_connected()
    }

    /// Where the backup stands.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Whether a greeted primary is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.link, Link::Up { .. })
    }

    /// Whether the primary that is connected sends epochs.
    #[must_use]
    pub fn is_replicating(&self) -> bool {
        matches!(self.link, Link::Up { replicates: true, .. })
    }

    /// Whether a staged sync is arriving: the content stays what it is until that is committed.
    #[must_use]
    pub fn is_catching_up(&self) -> bool {
        self.open.is_some() && self.catches_up
    }

    /// The last epoch that is wholly in the journal or on the volumes: the next one continues it.
    fn held(&self) -> Epoch {
        self.sealed.back().map_or(self.applied, |last| last.epoch)
    }

    /// The last epoch that is wholly staged and could be committed.
    #[must_use]
    pub fn staged(&self) -> Epoch {
        self.sealed.iter().rfind(|sealed| sealed.commit_point).map_or(self.committed, |last| last.epoch)
    }

    /// The last committed epoch: what a promote gives. [`Epoch(0)`](Epoch) before the first.
    #[must_use]
    pub fn committed(&self) -> Epoch {
        self.committed
    }

    /// Digest of [`Self::committed`].
    #[must_use]
    pub fn committed_digest(&self) -> Digest {
        self.committed_digest
    }

    /// The last epoch that is on the volumes.
    #[must_use]
    pub fn applied(&self) -> Epoch {
        self.applied
    }

    /// The incarnation of the primary to which anything that is sent goes: the one that greeted last.
    #[must_use]
    pub fn peer_incarnation(&self) -> Option<Incarnation> {
        self.correspondent
    }

    /// Durable state, as last decided.
    #[must_use]
    pub fn state(&self) -> &DurableState {
        &self.state
    }

    /// Journal bytes in use, and its capacity.
    #[must_use]
    pub fn journal_use(&self) -> (u64, u64) {
        (self.journal.used(), self.journal.capacity())
    }

    /// Figures for status displays.
    #[must_use]
    pub fn counters(&self) -> BackupCounters {
        self.counters
    }

    fn act(&mut self, action: BackupAction) {
        self.actions.push_back(action);
    }

    fn write_state(&mut self) {
        let state = Box::new(self.state.clone());
        self.state_writes += 1;
        self.act(BackupAction::WriteState(state));
    }

    fn fail(&mut self, reason: String) {
        if let Phase::Promoting(_) = self.phase {
            self.act(BackupAction::PromoteDone(Err(PromoteRefused::Failed(reason.clone()))));
        }
        if std::mem::take(&mut self.is_giving_up) {
            self.act(BackupAction::GivenUp(Err(GiveUpRefused::Failed(reason.clone()))));
        }
        for wanted in std::mem::take(&mut self.snapshots) {
            self.act(BackupAction::SnapshotRefused {
                id: wanted.id(),
                reason: format!("the daemon has failed: {reason}"),
            });
        }
        // First of all: nothing that the lost link entails may be decided any more.
        self.phase = Phase::Failed(reason.clone());
        self.close(Duration::ZERO, format!("failed: {reason}"));
    }

    /// After a failure the only answers left are refusals.
    fn handle_failed(&mut self, event: BackupEvent) {
        let Phase::Failed(reason) = &self.phase else { return };
        let reason = reason.clone();
        match event {
            BackupEvent::Promote { .. } => {
                self.act(BackupAction::PromoteDone(Err(PromoteRefused::Failed(reason))));
            }
            BackupEvent::GiveUp => {
                self.act(BackupAction::GivenUp(Err(GiveUpRefused::Failed(reason))));
            }
            BackupEvent::Snapshot { id } => {
                let reason = format!("the daemon has failed: {reason}");
                self.act(BackupAction::SnapshotRefused { id, reason });
            }
            BackupEvent::Accepted => (self.link, self.correspondent) = (Link::Down, None),
            BackupEvent::Frame(frame) => {
                self.correspondent = Some(frame.header.incarnation);
                self.refuse(RefuseCode::Failed, reason);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
