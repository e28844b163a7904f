//! The backup's disk work, each lane a thread that runs its jobs in order.
//!
//! Always holds: after the first error a lane does nothing more and has reported it; a flush reports
//! success only when everything the lane wrote before it is durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use ftdm::fault;
use ftdm_units::Era;
use ftship_proto::backup::Sealed;
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
use crate::store::snapshots::{Order, Snapshot};
use crate::store::state_file::StateFile;

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

/// Starts the lane of the journal and the state.
///
/// # Errors
/// When the thread cannot be started.
pub(super) fn journal_lane(
    mut journal: JournalDevice,
    mut state: StateFile,
    reports: Reports<LaneReport>,
) -> anyhow::Result<Lane<JournalJob>> {
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

/// Starts the lane of the volumes; `redo` reads the journal.
///
/// # Errors
/// When the thread cannot be started.
pub(super) fn volume_lane(
    volumes: Volumes,
    mut redo: Redo,
    reports: Reports<LaneReport>,
) -> anyhow::Result<Lane<VolumeJob>> {
    let mut volumes = Some(volumes);
    Lane::start("volume", reports, move |job| {
        if let VolumeJob::Release(group) = job {
            fault::at("promote-before-writable");
            if let Some((mut volumes, group)) = volumes.take().zip(group) {
                // A primary that starts does it again, and refuses a volume for which it fails.
                volumes.limit(&group).unwrap_or_else(|error| log::error!("{error:#}"));
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
            VolumeJob::Prove(places) => Ok(Some(match redo.prove(places)? {
                Ok(()) => LaneReport::Proven,
                Err(unproven) => LaneReport::Unproven(unproven),
            })),
            VolumeJob::Apply(epochs, group) => {
                fault::at("apply-begun");
                if let Err(unproven) = redo.apply(&epochs, volumes, &group)? {
                    return Ok(Some(LaneReport::Unproven(unproven)));
                }
                fault::at("apply-written");
                volumes.flush()?;
                fault::at("apply-synced");
                Ok(Some(LaneReport::Applied))
            }
            VolumeJob::Hash(request) => {
                let digests = |()| volumes.digests(&request).map_err(|error| format!("{error:#}"));
                let result = redo.check_whole().and_then(digests);
                Ok(Some(LaneReport::Hashed { token: request.token, result }))
            }
            VolumeJob::ReadOwn(since) => {
                let result = volumes.written_since(&since).map_err(|error| format!("{error:#}"));
                Ok(Some(LaneReport::OwnRead { result }))
            }
            VolumeJob::Roll => {
                // A promote goes on all the same: what is not known is copied.
                let eras = volumes.roll().unwrap_or_else(|error| {
                    log::error!("what changes from now on is not known: {error:#}");
                    Vec::new()
                });
                Ok(Some(LaneReport::Rolled { eras }))
            }
            VolumeJob::Snapshot { id, epoch, order } => {
                let take = |()| order.take(epoch).map_err(|error| format!("{error:#}"));
                let result = redo.check_whole().and_then(take);
                match order.remove_oldest() {
                    Ok(names) if names.is_empty() => {}
                    Ok(names) => log::info!("removed the oldest recovery points: {}", names.join(", ")),
                    Err(error) => log::error!("removing the oldest recovery points: {error:#}"),
                }
                Ok(Some(LaneReport::Snapshot { id, result }))
            }
            VolumeJob::Release(_) => unreachable!("handled above"),
        }
    })
}
