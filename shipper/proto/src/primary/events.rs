//! What the primary's driver tells the state machine, and what it must do.
//!
//! Always holds: the daemon and the simulation use these alone; a [`PrimaryAction`] is carried out once, those of one
//! lane in the order given.

use std::time::Duration;

use ftdm_units::Era;

use super::{AfterEpoch, CommitRefused, DemoteRefused, Told, TouchedBytes, Usage, VerifyError, VerifyReport};
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
    /// dm-era was rolled, and what was asked for is known.
    Rolled {
        /// As ordered.
        attempt: u32,
        /// The era of each volume that began.
        eras: Vec<Era>,
        /// Bytes of the volumes that were written since the eras named.
        bytes: u64,
    },
    /// What a [`PrimaryAction::Widen`] named is part of the round.
    Widened {
        /// Bytes that the round covers now.
        bytes: u64,
    },
    /// dm-era was not rolled, or what it recorded is not known.
    RollFailed {
        /// As ordered.
        attempt: u32,
        /// For people.
        reason: String,
        /// It never will be: the history of rolls is of no use any more.
        tracking_lost: bool,
    },
    /// Writes are being captured from now on.
    CaptureStarted {
        /// The era of each volume that began in the pause of its switch.
        eras: Vec<Era>,
        /// Bytes of the volumes that were written since the eras named, and before the switch.
        bytes: u64,
    },
    /// The volumes stood still: dm-era was rolled, and what was written before was read into memory.
    Stood {
        /// As ordered.
        attempt: u32,
        /// The era of each volume that began in the pause.
        eras: Vec<Era>,
        /// Bytes of the volumes that were written since the eras named.
        bytes: u64,
    },
    /// They did, and dm-era was rolled, but not everything could be read in time: what was written before is known.
    StoodInVain {
        /// As ordered.
        attempt: u32,
        /// The era of each volume that began in the pause.
        eras: Vec<Era>,
        /// Bytes of the volumes that were written since the eras named.
        bytes: u64,
        /// For people.
        reason: String,
    },
    /// The capture has ended; writes are only tracked.
    CaptureStopped,
    /// The capture that was to be tried began and ended; or why it did not, for people.
    CaptureTried {
        /// As ordered.
        attempt: u32,
        /// Whether.
        result: Result<(), String>,
    },
    /// The capture could not start, or lost writes.
    CaptureLost {
        /// For people.
        reason: String,
    },
    /// The follow that was ordered has ended, also if it failed.
    Followed,
    /// The log overflowed, or could not be written: the capture has ended, and nothing else is wrong.
    LogOff {
        /// For people.
        reason: String,
    },
    /// What a [`PrimaryAction::ShipPart`] ordered is out.
    PartEncoded {
        /// Bytes of all frames made for this sync so far.
        stored: u64,
        /// Frames that it took.
        frames: u64,
    },
    /// The cut that was ordered is done.
    CutTaken {
        /// The era of each volume that began in its pause, where a roll was ordered and done.
        eras: Option<Vec<Era>>,
    },
    /// The guest is frozen; or why not, for people, and it has been thawed then.
    Froze {
        /// As ordered.
        token: u64,
        /// Whether.
        result: Result<(), String>,
    },
    /// The cut that was ordered failed its checks; the epoch goes on.
    CutVoid {
        /// For people.
        reason: String,
    },
    /// The cut that was ordered was left out, as it might be: nothing was written since the last one.
    NothingWritten,
    /// What the last cut held back is let through by nobody but a [`PrimaryAction::Release`] any more, and nothing was
    /// written since that cut.
    Yielded,
    /// Writes are held back, as a [`PrimaryAction::Hold`] ordered.
    Held,
    /// It was let through: as ordered, or because that cannot be made sure, or the time for it was over.
    Released {
        /// For people.
        reason: String,
    },
    /// All I/O of the volumes fails: as ordered, or because the time for holding writes back was over.
    Shut,
    /// How full the log is, in bytes.
    LogUse {
        /// Used.
        used: u64,
        /// In all.
        capacity: u64,
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
    /// End each volume's era in a short pause, drained and flushed, and note what was written since.
    Roll {
        /// Returned in the answer: an earlier attempt's tells nothing.
        attempt: u32,
        /// The eras to start from; `None`: everything.
        since: Option<Vec<Era>>,
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
    /// Start to capture writes; in the pause of the switch roll each volume's era, and note what was written since
    /// these.
    StartCapture {
        /// The eras to start from.
        since: Vec<Era>,
    },
    /// Begin a capture and end it again, all in one: is it possible?
    TryCapture {
        /// Returned in the answer.
        attempt: u32,
    },
    /// Let all volumes stand still; end each one's era, drained and flushed; read what was written since these eras,
    /// which is this epoch's content, and is what [`PrimaryAction::Copy`] copies then; let them go on.
    Stand {
        /// Returned in the answer.
        attempt: u32,
        /// The eras to start from.
        since: Vec<Era>,
        /// Its number.
        epoch: Epoch,
        /// How long the volumes may stand still for it.
        budget: Duration,
    },
    /// Run the hooks that freeze the guest, for this epoch.
    Freeze {
        /// Returned in the answer.
        token: u64,
        /// Its number.
        epoch: Epoch,
    },
    /// Run those that thaw it.
    Thaw,
    /// Stop to capture writes.
    StopCapture,
    /// Cut now; what was captured becomes this epoch.
    Cut {
        /// Its number.
        epoch: Epoch,
        /// Roll each volume's era in its pause.
        roll: bool,
        /// How long the volume may stand still for it.
        budget: Duration,
        /// Hold writes back behind it, for as long as the configuration allows.
        hold: bool,
        /// What was captured becomes part of this epoch, which goes on. The log is exchanged.
        part: bool,
        /// Leave it out if it is proven that nothing was written since the last one.
        may_rest: bool,
    },
    /// Hold writes back, without a capture, for so long at most, or until a [`PrimaryAction::Release`] or
    /// [`PrimaryAction::Shut`]; if this daemon ends they go on.
    Hold {
        /// How long.
        lease: Duration,
    },
    /// Make sure that nobody lets through what is held back, if this daemon cannot.
    Yield,
    /// Let it through; also where it was shut meanwhile.
    Release,
    /// Make it fail, and all I/O from here on.
    Shut,
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
    /// No cut now, but keep up with the log and tell its use; answered by [`PrimaryEvent::Followed`].
    Follow,
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
