//! What the primary's driver tells the state machine, and what it must do.
//!
//! Always holds: the daemon and the simulation use these alone; a [`PrimaryAction`] is carried out once, those of one
//! lane in the order given.

use std::time::Duration;

use super::{
    AfterEpoch, CommitRefused, CutOrder, CutResult, DemoteRefused, ResizeRefused, Resized, Told,
    TouchedBytes, Usage, VerifyError, VerifyReport,
};
use crate::frame::Frame;
use crate::ids::{Digest, Epoch};
use crate::message::Message;
use crate::scope::Scope;
use crate::state::DurableState;
use crate::verify::Place;
use ftdm_units::Sectors;

/// What happened outside.
#[derive(Debug)]
pub enum PrimaryEvent {
    /// The connection that was asked for stands.
    Connected,
    /// It could not be made, or it ended.
    Disconnected {
        /// For people.
        reason: String,
    },
    /// A whole frame arrived, its checksums verified.
    Frame(Frame),
    /// The cut thread reports this.
    Cut(CutResult),
    /// What was captured or copied could not be read or encoded.
    ShippingFailed {
        /// For people.
        reason: String,
    },
    /// What a [`PrimaryAction::Widen`] named is part of the round.
    Widened {
        /// Bytes that the round covers now.
        bytes: u64,
    },
    /// What a [`PrimaryAction::ShipPart`] ordered is out.
    PartEncoded {
        /// Bytes of all frames made for this sync so far.
        stored: u64,
        /// Frames that it took.
        frames: u64,
    },
    /// The guest is frozen; or why not, for people, and it has been thawed then.
    Froze {
        /// As ordered.
        token: u64,
        /// Whether.
        result: Result<(), String>,
    },
    /// The guest goes on, though no [`PrimaryAction::Thaw`] ordered it.
    ThawedEarly {
        /// Of the [`PrimaryAction::Freeze`].
        token: u64,
    },
    /// The epoch was folded and framed; this is its digest.
    Encoded {
        /// The epoch.
        epoch: Epoch,
        /// Chained digest.
        digest: Digest,
        /// Bytes of all its frames.
        stored: u64,
        /// What was written to, up to this epoch.
        touched: TouchedBytes,
    },
    /// This batch is about to be read, to be compared with what the backup has.
    Compares {
        /// Returned in the answer.
        number: u64,
        /// What.
        places: Vec<Place>,
    },
    /// Pieces of what is copied are out.
    CopyProgressed {
        /// Bytes of all frames made for this sync so far.
        stored: u64,
        /// Bytes of the volumes that were not sent, the backup having them.
        skipped: u64,
    },
    /// Everything of the round was read and queued for sending.
    Copied {
        /// Frames of the base copy that this round made; none where it is staged.
        frames: u64,
    },
    /// Somebody wants a checkpoint.
    Checkpoint {
        /// Returned in the answer.
        id: u64,
        /// When to answer.
        until: Until,
    },
    /// The coordinator commits this epoch and all before it.
    Commit {
        /// Returned in the answer.
        id: u64,
        /// The epoch.
        epoch: Epoch,
    },
    /// Whoever wanted this checkpoint does not want it any more.
    CheckpointWithdrawn {
        /// As given with [`PrimaryEvent::Checkpoint`].
        id: u64,
    },
    /// The last [`PrimaryAction::WriteState`] is durable.
    StateWritten,
    /// Something that must be durable failed. Never retried.
    Failed {
        /// What failed, for people: the device, the operation and the error.
        reason: String,
    },
    /// Somebody else connected to this host and said this.
    Visited(Frame),
    /// How the volumes are used, asked for by [`Primary::wants_usage`](super::Primary::wants_usage).
    Used(Usage),
    /// The daemon is about to end, while the volumes are used so.
    Stopping(Usage),
    /// An operator wants this side to become the backup of the other, which was promoted.
    Demote {
        /// Returned in the answer.
        id: u64,
        /// Also where this side has writes that the other has not.
        discard: bool,
    },
    /// An operator wants the roles to be exchanged.
    Switch {
        /// Returned in the answer.
        id: u64,
        /// Also while somebody has the volumes open: writes wait, and then fail.
        stall: bool,
        /// Random id of the generation that the other side is to make.
        generation: [u8; 16],
    },
    /// An operator wants to go on with what this side holds, though another was promoted over it.
    TakeUp {
        /// Returned in the answer.
        id: u64,
        /// The fencing token, where there is one.
        token: Option<u64>,
        /// Random id of the generation to be made.
        generation: [u8; 16],
    },
    /// An operator wants the volumes to have what their devices have.
    Resize {
        /// Returned in the answer.
        id: u64,
        /// The size of each device, in the group's order.
        devices: Vec<Sectors>,
        /// How much of it dm-era can track.
        room: Vec<Sectors>,
    },
    /// An operator wants the backup to be overwritten by a full sync.
    FullSync {
        /// Returned in the answer.
        id: u64,
    },
    /// Somebody wants to know whether the backup's volumes hold what they should.
    Verify {
        /// Returned in the answer.
        id: u64,
        /// What differs is to be mended.
        repair: bool,
    },
    /// A [`PrimaryAction::Hash`] is done.
    Hashed {
        /// As given.
        token: u64,
        /// The digests; or why not, for people.
        result: Result<Vec<Digest>, String>,
    },
    /// The places of a [`PrimaryAction::Inspect`] were read, and put into the inspection.
    Inspected {
        /// As given.
        token: u64,
        /// Why not, for people.
        result: Result<(), String>,
    },
    /// The epoch behind a [`PrimaryAction::Conclude`] is laid over the inspection.
    Concluded {
        /// As given.
        token: u64,
        /// See [`crate::verify::Inspection::digests`].
        digests: Vec<Option<Digest>>,
    },
}

/// What the driver must do.
#[derive(Debug)]
pub enum PrimaryAction {
    /// State lane: write the state and make it durable.
    WriteState(Box<DurableState>),
    /// Connect to the peer.
    Connect,
    /// The backup has content of its own there: the round that is about to be copied covers that too.
    Widen(Scope),
    /// Answer whoever said [`PrimaryEvent::Visited`], and see it off.
    Answer(Message),
    /// The state says durably that this side is a backup, or the primary of another generation: end this role, and begin
    /// anew with what the state says.
    RoleEnded,
    /// Tell who asked whether this side has changed its role.
    DemoteDone {
        /// As given.
        id: u64,
        /// Why not.
        result: Result<(), DemoteRefused>,
    },
    /// Send at once.
    Send(Message),
    /// Send behind everything that was queued for encoding before.
    SendInOrder(Message),
    /// Close the connection and forget what is queued for it.
    Close {
        /// For the log.
        reason: String,
    },
    /// Begin a new chain of epochs: forget everything queued, chain the first epoch to this digest.
    OpenChain {
        /// Digest before the first epoch.
        previous: Digest,
    },
    /// What is copied from now on is part of this epoch, which the next [`PrimaryAction::Ship`] ends.
    OpenCatchUp {
        /// The first epoch that it stands for.
        first: Epoch,
        /// Its number.
        epoch: Epoch,
        /// The last epoch of this chain that is known to be durable.
        staged: Epoch,
    },
    /// For the cut thread.
    Cut(CutOrder),
    /// Run the hooks that freeze the guest, for this epoch.
    Freeze {
        /// Returned in the answer.
        token: u64,
        /// Its number.
        epoch: Epoch,
    },
    /// Run those that thaw it.
    Thaw,
    /// Fold, frame and send what the last cut captured, behind everything queued before.
    Ship {
        /// Its number.
        epoch: Epoch,
        /// What becomes of the set of granules after it.
        after: AfterEpoch,
    },
    /// Fold what the last cut captured, and send it as part of what is being copied: after every piece that was ordered
    /// before, and before every later one.
    ShipPart,
    /// Copy what the last roll noted, live.
    Copy {
        /// Compare each so many sectors of it, and send what differs; `None`: send everything.
        unit: Option<Sectors>,
    },
    /// What the backup has of a batch that was compared.
    Told {
        /// As given in [`PrimaryEvent::Compares`].
        number: u64,
        /// As far as it says.
        told: Told,
    },
    /// Stop copying.
    StopCopy,
    /// Tell who asked for a checkpoint that it has come as far as asked.
    CheckpointReached {
        /// As given.
        id: u64,
        /// The epoch that holds everything written before the request.
        epoch: Epoch,
        /// As given.
        until: Until,
    },
    /// Tell who asked that it will not be.
    CheckpointFailed {
        /// As given.
        id: u64,
        /// For people.
        reason: String,
    },
    /// Tell the coordinator how far the backup has committed, durably, or why it may not have.
    CommitDone {
        /// As given.
        id: u64,
        /// The last committed epoch: the one named, or a later one.
        result: Result<Epoch, CommitRefused>,
    },
    /// Tell who asked for larger volumes what came of it.
    ResizeDone {
        /// As given.
        id: u64,
        /// The sizes; or why they are not those asked for.
        result: Result<Resized, ResizeRefused>,
    },
    /// Tell who asked for a full sync whether it has begun.
    FullSyncBegun {
        /// As given.
        id: u64,
        /// Why not.
        result: Result<(), String>,
    },
    /// Read a place, live, and hash it.
    Hash {
        /// Returned in the answer.
        token: u64,
        /// What.
        place: Place,
        /// One digest for each so many sectors.
        unit: Sectors,
    },
    /// Begin an inspection: every epoch that is shipped behind this is laid over it; and once that is so, read the
    /// places, live.
    Inspect {
        /// Returned in the answers.
        token: u64,
        /// What, sorted.
        places: Vec<Place>,
        /// One digest for each so many sectors.
        unit: Sectors,
    },
    /// The epoch that is shipped next is the inspection's last: tell the digests then, and end it.
    Conclude {
        /// As given with [`PrimaryAction::Inspect`].
        token: u64,
        /// Ship the content of the places with that epoch.
        repair: bool,
    },
    /// Forget the inspection.
    EndInspection,
    /// Tell who wanted a verify what came of it.
    VerifyDone {
        /// As given.
        id: u64,
        /// What it found.
        result: Result<VerifyReport, VerifyError>,
    },
    /// For figures: this epoch is committed, so long after its cut.
    Committed {
        /// The epoch.
        epoch: Epoch,
        /// Time since its cut.
        lag: Duration,
    },
    /// For the log: the state has changed.
    StateChanged,
}

/// How far a checkpoint must have come for whoever asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Until {
    /// Its epoch is cut.
    #[default]
    Cut,
    /// The backup has acknowledged it: STAGED.
    Staged,
    /// The backup has committed it, durably.
    Committed,
}
