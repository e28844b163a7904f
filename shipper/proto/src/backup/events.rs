//! What the backup's driver tells the state machine, and what it must do.
//!
//! Always holds: the daemon and the simulation use these alone; a [`BackupAction`] is carried out once, those of one
//! lane in the order given.

use super::{GiveUpRefused, PromoteRefused, Sealed};
use crate::frame::Frame;
use crate::group::{GroupDescription, LocalVolume};
use crate::ids::{Digest, Epoch};
use crate::journal::{Place, Placement, Superblock};
use crate::message::Message;
use crate::scope::Scope;
use crate::state::DurableState;
use crate::verify::{Digests, HashRequest};
use ftdm_units::{Era, Sectors};

/// What happened outside.
#[derive(Debug)]
pub enum BackupEvent {
    /// A connection was accepted, as [`Backup::admits`] allows (any earlier one was closed before).
    Accepted,
    /// A whole frame arrived, its checksums verified.
    Frame(Frame),
    /// The connection ended.
    Disconnected,
    /// What arrives is not read while the disks catch up: the peer's silence says nothing.
    Behind,
    /// The sync with this ticket succeeded: everything appended before it was issued is durable.
    JournalSynced {
        /// As given in [`BackupAction::SyncJournal`].
        ticket: u64,
    },
    /// The earliest [`BackupAction::FlushVolumes`] that was not answered yet succeeded.
    VolumesFlushed,
    /// The last [`BackupAction::WriteState`] is durable.
    StateWritten,
    /// The last [`BackupAction::WriteSuperblock`] is durable.
    SuperblockWritten,
    /// What the last [`BackupAction::Prove`] named is in the journal as it was sealed.
    Proven,
    /// The journal does not hold this epoch as it was sealed: found by the last [`BackupAction::Prove`], or by the last
    /// [`BackupAction::Apply`], which reads again what it did not keep.
    Unproven {
        /// The first epoch of which that is so. Those before it are in order, and may be on the volumes.
        epoch: Epoch,
        /// Some of its frames were written to the volumes.
        half: bool,
        /// What was found, for people.
        reason: String,
    },
    /// The last [`BackupAction::Apply`] is written and flushed.
    Applied,
    /// What a [`BackupAction::HashVolumes`] found.
    VolumesHashed {
        /// As given.
        token: u64,
        /// The digests; or why not, for people.
        result: Result<Digests, String>,
    },
    /// The devices of this host have other sizes now.
    Room {
        /// As in [`super::BackupConfig::volumes`].
        volumes: Vec<LocalVolume>,
    },
    /// What the last [`BackupAction::Enlarge`] asked for is shown; or why not, for people.
    Enlarged {
        /// Whether.
        result: Result<(), String>,
    },
    /// The era was ended on each volume: those that began; none where that failed.
    EraRolled {
        /// In the group's order.
        eras: Vec<Era>,
    },
    /// Somebody wants a copy of the volumes as they are at a committed epoch.
    Snapshot {
        /// Returned in the answer.
        id: u64,
    },
    /// What a [`BackupAction::ReadOwn`] found; or why it is not known, for people.
    OwnRead {
        /// Where something was written.
        result: Result<Scope, String>,
    },
    /// The volumes are closed.
    VolumesReleased,
    /// Something durable failed. Never retried.
    Failed {
        /// What failed, for people: the device, the operation and the error.
        reason: String,
    },
    /// An operator gives up what this backup holds: the history of the primary that greets counts.
    GiveUp,
    /// An operator or a cluster manager asks to promote; `id` is a fresh random generation id.
    Promote {
        /// Random id of the generation to be made.
        id: [u8; 16],
        /// The epoch that the volumes are to hold; needed where a coordinator commits.
        epoch: Option<Epoch>,
        /// Also where what the volumes hold is no epoch of the group at all, or less than was acknowledged.
        force: bool,
        /// The fencing token, where whoever decides has one: it has to be above any seen before.
        token: Option<u64>,
    },
}

/// What the driver must do.
#[derive(Debug)]
pub enum BackupAction {
    /// Volume lane: the devices show at least these sizes from now on.
    Enlarge {
        /// In the group's order.
        sizes: Vec<Sectors>,
    },
    /// Send to the peer.
    Send(Message),
    /// Close the connection, for this reason, after what was sent has left.
    Close {
        /// For the log.
        reason: String,
    },
    /// Journal lane: write the frame at its place.
    Append {
        /// Where.
        placement: Placement,
        /// The frame as received.
        frame: Frame,
    },
    /// Journal lane: make everything appended so far durable.
    SyncJournal {
        /// Returned in [`BackupEvent::JournalSynced`].
        ticket: u64,
    },
    /// Journal lane: write the superblock and make it durable.
    WriteSuperblock(Box<Superblock>),
    /// State lane: write the state and make it durable.
    WriteState(Box<DurableState>),
    /// Volume lane: write the records of a base copy frame.
    WriteBase {
        /// A `BaseData` frame.
        frame: Frame,
        /// What its records are checked against.
        group: Box<GroupDescription>,
    },
    /// Volume lane: make everything written so far durable.
    FlushVolumes,
    /// Volume lane: read these epochs from the journal, and check each against its digest. Nothing is written.
    Prove {
        /// The epochs, oldest first, contiguous in the journal; each with its place.
        places: Vec<(Sealed, Place)>,
    },
    /// Volume lane: write the records of these epochs, which the last [`Self::Prove`] has proven, from the journal, then make
    /// them durable.
    Apply {
        /// The epochs, oldest first, contiguous in the journal.
        epochs: Vec<Sealed>,
        /// What their records are checked against.
        group: Box<GroupDescription>,
    },
    /// Volume lane: hash what the volumes hold then.
    HashVolumes(HashRequest),
    /// Send to the peer.
    SendFrame(Frame),
    /// Volume lane: find out what was written in these eras of the volumes and later.
    ReadOwn {
        /// In the group's order.
        since: Vec<Era>,
    },
    /// Volume lane: end the era on each volume.
    RollEra,
    /// Volume lane: copy the volumes as they are then.
    Snapshot {
        /// As given.
        id: u64,
        /// What they hold then, exactly.
        epoch: Epoch,
        /// Its digest.
        digest: Digest,
    },
    /// Tell who wanted a snapshot that there is none.
    SnapshotRefused {
        /// As given.
        id: u64,
        /// For people.
        reason: String,
    },
    /// Volume lane: close the volumes, so that somebody else can open them.
    ReleaseVolumes,
    /// Log that the journal has lost epochs, and what follows.
    ReportLoss {
        /// For people.
        text: String,
    },
    /// Tell who wanted what this side holds to be given up.
    GivenUp(Result<(), GiveUpRefused>),
    /// Tell whoever asked to promote.
    PromoteDone(Result<Epoch, PromoteRefused>),
}
