//! The backup's disk work, each lane a thread that runs its jobs in order.
//!
//! Always holds: after the first error a lane does nothing more and has reported it; a flush reports
//! success only when everything the lane wrote before it is durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use ftdm::fault;
use ftdm_units::{Era, Sectors};
use ftship_proto::backup::{BackupAction, BackupEvent, Sealed};
use ftship_proto::frame::{Frame, FrameKind};
use ftship_proto::group::GroupDescription;
use ftship_proto::ids::Epoch;
use ftship_proto::journal::{Place, Placement, Superblock};
use ftship_proto::scope::Scope;
use ftship_proto::state::DurableState;
use ftship_proto::verify::{Digests, HashRequest};

use super::redo::{Redo, Unproven};
use super::volume_device::Volumes;
use crate::runtime::reactor::Reports;
use crate::runtime::worker::Worker;
use crate::store::journal_device::JournalDevice;
use crate::store::snapshots::{Order, Removed, Snapshot};
use crate::store::state_file::StateFile;

const NO_JOURNAL: &str = "there is no journal";

/// What lanes report.
#[derive(Debug)]
pub(super) enum LaneReport {
    /// A sync of the journal succeeded.
    JournalSynced {
        /// As ordered.
        ticket: u64,
    },
    /// The superblock is durable.
    SuperblockWritten,
    /// The state is durable.
    StateWritten,
    /// The volumes are flushed.
    VolumesFlushed,
    /// The epochs are in the journal as they were sealed.
    Proven,
    /// One is not.
    Unproven(Unproven),
    /// The epochs are on the volumes and flushed.
    Applied,
    /// What the volumes hold.
    Hashed {
        /// As ordered.
        token: u64,
        /// The digests; or why not, for people.
        result: Result<Digests, String>,
    },
    /// What was written in the eras asked for; or why it is not known.
    OwnRead {
        /// Where.
        result: Result<Scope, String>,
    },
    /// The era was ended on each volume; none where that failed.
    Rolled {
        /// Those that began.
        eras: Vec<Era>,
    },
    /// What came of a snapshot.
    Snapshot {
        /// As ordered.
        id: u64,
        /// The snapshot; or why there is none, for people.
        result: Result<Snapshot, String>,
        /// Recovery points that are to be removed and cannot be, for people.
        kept: Vec<String>,
    },
    /// The volumes show what was asked for; or why not, for people.
    Enlarged {
        /// Whether.
        result: Result<(), String>,
    },
    /// The volumes are closed.
    VolumesReleased,
    /// The lane has failed for good.
    Failed {
        /// What, where and why.
        reason: String,
    },
}

/// Jobs of the journal lane, which also writes the state.
#[derive(Debug)]
pub(super) enum JournalJob {
    /// Write a frame at its place.
    Append(Placement, Frame),
    /// Flush.
    Sync(u64),
    /// Write and flush a superblock.
    Superblock(Box<Superblock>),
    /// Write and flush the state.
    State(Box<DurableState>),
}

/// Jobs of the volume lane.
#[derive(Debug)]
pub(super) enum VolumeJob {
    /// Write the records of a base copy frame.
    Base(Frame, Box<GroupDescription>),
    /// Flush.
    Flush,
    /// Read these epochs, and check each against its digest.
    Prove(Vec<(Sealed, Place)>),
    /// Write the records of these epochs, which are proven, then flush.
    Apply(Vec<Sealed>, Box<GroupDescription>),
    /// Hash what they hold.
    Hash(HashRequest),
    /// Find out what was written in these eras and later.
    ReadOwn(Vec<Era>),
    /// End the era on each volume.
    Roll,
    /// Take a snapshot of them.
    Snapshot {
        /// Returned in the report.
        id: u64,
        /// What they hold then.
        epoch: Epoch,
        /// What is wanted.
        order: Box<Order>,
    },
    /// Show at least these sizes.
    Enlarge(Vec<Sectors>),
    /// Close the volumes, which from then on show the size of the group's.
    Release(Option<Box<GroupDescription>>),
}

/// A thread with a queue of jobs.
#[derive(Debug)]
pub(super) struct Lane<J> {
    worker: Worker<(usize, J)>,
    backlog: Arc<AtomicUsize>,
}

impl<J: Send + 'static> Lane<J> {
    fn start(
        name: &'static str,
        reports: Reports<LaneReport>,
        mut perform: impl FnMut(J) -> anyhow::Result<Option<LaneReport>> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let backlog = Arc::new(AtomicUsize::new(0));
        let done = Arc::clone(&backlog);
        let worker = Worker::start(name, 256 << 10, move |queue| {
            let mut failed = false;
            for (weight, job) in queue {
                if !failed {
                    match perform(job) {
                        Ok(Some(report)) => reports.send(report),
                        Ok(None) => {}
                        Err(error) => {
                            failed = true;
                            reports.send(LaneReport::Failed { reason: format!("{error:#}") });
                        }
                    }
                }
                done.fetch_sub(weight, Ordering::Release);
                reports.wake();
            }
        })?;
        Ok(Self { worker, backlog })
    }

    /// Queues a job that holds `weight` bytes.
    pub(super) fn push(&self, weight: usize, job: J) {
        self.backlog.fetch_add(weight, Ordering::Acquire);
        self.worker.push((weight, job));
    }

    /// Bytes held by jobs that are not done.
    #[must_use]
    pub(super) fn backlog(&self) -> usize {
        self.backlog.load(Ordering::Acquire)
    }
}

/// Both lanes. The volumes' is gone once this side was promoted.
#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) journal: Lane<JournalJob>,
    pub(super) volume: Option<Lane<VolumeJob>>,
}

/// What became of an action.
#[derive(Debug)]
pub(super) enum Taken {
    /// It is queued.
    Queued,
    /// It is for the volumes, which are closed.
    VolumesClosed,
    /// It is no disk work.
    Other(BackupAction),
}

impl Lanes {
    /// Queues an action that is disk work. `state` names the group's sizes, which released volumes show.
    pub(super) fn take(&self, state: &DurableState, action: BackupAction) -> Taken {
        let (weight, job) = match action {
            BackupAction::Append { placement, frame } => {
                self.journal.push(frame.payload.len(), JournalJob::Append(placement, frame));
                return Taken::Queued;
            }
            BackupAction::SyncJournal { ticket } => return self.take_journal(JournalJob::Sync(ticket)),
            BackupAction::WriteSuperblock(new) => return self.take_journal(JournalJob::Superblock(new)),
            BackupAction::WriteState(state) => return self.take_journal(JournalJob::State(state)),
            BackupAction::WriteBase { frame, group } => (frame.payload.len(), VolumeJob::Base(frame, group)),
            BackupAction::FlushVolumes => (0, VolumeJob::Flush),
            BackupAction::Prove { places } => (0, VolumeJob::Prove(places)),
            BackupAction::Apply { epochs, group } => (0, VolumeJob::Apply(epochs, group)),
            BackupAction::HashVolumes(request) => (0, VolumeJob::Hash(request)),
            BackupAction::ReadOwn { since } => (0, VolumeJob::ReadOwn(since)),
            BackupAction::RollEra => (0, VolumeJob::Roll),
            BackupAction::Enlarge { sizes } => (0, VolumeJob::Enlarge(sizes)),
            BackupAction::ReleaseVolumes => (0, VolumeJob::Release(state.group.clone().map(Box::new))),
            other => return Taken::Other(other),
        };
        self.take_volume(weight, job)
    }

    fn take_journal(&self, job: JournalJob) -> Taken {
        self.journal.push(0, job);
        Taken::Queued
    }

    /// Queues a job of the volume lane.
    pub(super) fn take_volume(&self, weight: usize, job: VolumeJob) -> Taken {
        let Some(volume) = &self.volume else { return Taken::VolumesClosed };
        volume.push(weight, job);
        Taken::Queued
    }

    /// Bytes held by jobs that are not done.
    pub(super) fn backlog(&self) -> usize {
        self.journal.backlog() + self.volume.as_ref().map_or(0, Lane::backlog)
    }
}

impl LaneReport {
    /// For the state machine; what came of a snapshot is not.
    pub(super) fn into_event(self) -> Option<BackupEvent> {
        Some(match self {
            Self::Snapshot { .. } => return None,
            Self::JournalSynced { ticket } => BackupEvent::JournalSynced { ticket },
            Self::SuperblockWritten => BackupEvent::SuperblockWritten,
            Self::StateWritten => BackupEvent::StateWritten,
            Self::VolumesFlushed => BackupEvent::VolumesFlushed,
            Self::Proven => BackupEvent::Proven,
            Self::Unproven(Unproven { epoch, half, reason }) => BackupEvent::Unproven { epoch, half, reason },
            Self::Applied => BackupEvent::Applied,
            Self::Hashed { token, result } => BackupEvent::VolumesHashed { token, result },
            Self::OwnRead { result } => BackupEvent::OwnRead { result },
            Self::Rolled { eras } => BackupEvent::EraRolled { eras },
            Self::Enlarged { result } => BackupEvent::Enlarged { result },
            Self::VolumesReleased => BackupEvent::VolumesReleased,
            Self::Failed { reason } => BackupEvent::Failed { reason },
        })
    }
}

/// Starts the lane of the state, and of the journal if there is one: a journal that is given up holds nothing, and all that
/// is written to it is.
///
/// # Errors
/// When the thread cannot be started.
pub(super) fn journal_lane(
    journal: Option<JournalDevice>,
    mut state: StateFile,
    reports: Reports<LaneReport>,
) -> anyhow::Result<Lane<JournalJob>> {
    let Some(mut journal) = journal else {
        return Lane::start("journal", reports, move |job| match job {
            JournalJob::Append(..) => anyhow::bail!(NO_JOURNAL),
            JournalJob::Sync(ticket) => Ok(Some(LaneReport::JournalSynced { ticket })),
            JournalJob::Superblock(_) => Ok(Some(LaneReport::SuperblockWritten)),
            JournalJob::State(new) => {
                state.write(&new)?;
                Ok(Some(LaneReport::StateWritten))
            }
        });
    };
    Lane::start("journal", reports, move |job| match job {
        JournalJob::Append(placement, frame) => {
            journal.append(&placement, &frame)?;
            fault::at(if frame.header.kind == FrameKind::EpochEnd {
                "journal-written"
            } else {
                "frame-written"
            });
            Ok(None)
        }
        JournalJob::Sync(ticket) => {
            journal.sync()?;
            fault::at("journal-synced");
            Ok(Some(LaneReport::JournalSynced { ticket }))
        }
        JournalJob::Superblock(superblock) => {
            journal.write_superblock(&superblock)?;
            Ok(Some(LaneReport::SuperblockWritten))
        }
        JournalJob::State(new) => {
            state.write(&new)?;
            Ok(Some(LaneReport::StateWritten))
        }
    })
}

/// Starts the lane of the volumes; `redo` reads the journal, if there is one.
///
/// # Errors
/// When the thread cannot be started.
pub(super) fn volume_lane(
    volumes: Volumes,
    mut redo: Option<Redo>,
    reports: Reports<LaneReport>,
) -> anyhow::Result<Lane<VolumeJob>> {
    let mut volumes = Some(volumes);
    Lane::start("volume", reports, move |job| {
        if let VolumeJob::Release(group) = job {
            fault::at("promote-before-writable");
            if let Some(volumes) = volumes.take() {
                // A primary that starts does it again, and refuses a volume for which it fails.
                volumes.release(group.as_deref()).unwrap_or_else(|error| log::error!("{error:#}"));
            }
            fault::at("promote-writable");
            return Ok(Some(LaneReport::VolumesReleased));
        }
        let volumes = volumes.as_mut().context("the volumes are closed")?;
        match job {
            VolumeJob::Base(frame, group) => {
                volumes.write_records(&frame, &group)?;
                fault::at("base-written");
                Ok(None)
            }
            VolumeJob::Flush => {
                volumes.flush()?;
                fault::at("base-flushed");
                Ok(Some(LaneReport::VolumesFlushed))
            }
            VolumeJob::Prove(places) => Ok(Some(match redo.as_mut().context(NO_JOURNAL)?.prove(places) {
                Ok(()) => LaneReport::Proven,
                Err(unproven) => LaneReport::Unproven(unproven),
            })),
            VolumeJob::Apply(epochs, group) => {
                fault::at("apply-begun");
                if let Err(unproven) = redo.as_mut().context(NO_JOURNAL)?.apply(&epochs, volumes, &group)? {
                    return Ok(Some(LaneReport::Unproven(unproven)));
                }
                fault::at("apply-written");
                volumes.flush()?;
                fault::at("apply-synced");
                Ok(Some(LaneReport::Applied))
            }
            VolumeJob::Hash(request) => {
                let digests = |()| volumes.digests(&request).map_err(|error| format!("{error:#}"));
                let result = check_whole(redo.as_ref()).and_then(digests);
                Ok(Some(LaneReport::Hashed { token: request.token, result }))
            }
            VolumeJob::ReadOwn(since) => {
                let result = volumes.written_since(&since).map_err(|error| format!("{error:#}"));
                Ok(Some(LaneReport::OwnRead { result }))
            }
            VolumeJob::Roll => Ok(Some(LaneReport::Rolled { eras: roll(volumes) })),
            VolumeJob::Enlarge(sizes) => {
                let result = enlarge(volumes, &sizes);
                Ok(Some(LaneReport::Enlarged { result }))
            }
            VolumeJob::Snapshot { id, epoch, order } => {
                let take = |()| order.take(epoch).map_err(|error| format!("{error:#}"));
                let result = check_whole(redo.as_ref()).and_then(take);
                let removed = order.remove_oldest();
                let Removed { gone, kept } = removed.unwrap_or_else(|error| Removed {
                    kept: vec![format!("removing the oldest recovery points: {error:#}")],
                    ..Removed::default()
                });
                if !gone.is_empty() {
                    log::info!("removed the oldest recovery points: {}", gone.join(", "));
                }
                Ok(Some(LaneReport::Snapshot { id, result, kept }))
            }
            VolumeJob::Release(_) => unreachable!("handled above"),
        }
    })
}

/// Ends the era on each volume. A promote goes on all the same if that fails: what is not known is copied.
fn roll(volumes: &Volumes) -> Vec<Era> {
    volumes.roll().unwrap_or_else(|error| {
        log::error!("what changes from now on is not known: {error:#}");
        Vec::new()
    })
}

fn enlarge(volumes: &mut Volumes, sizes: &[Sectors]) -> Result<(), String> {
    let result = volumes.enlarge(sizes).map_err(|error| format!("{error:#}"));
    fault::at("volumes-enlarged");
    result
}

/// Whether the volumes hold what was last applied, wholly.
fn check_whole(redo: Option<&Redo>) -> Result<(), String> {
    redo.map_or(Ok(()), Redo::check_whole)
}
