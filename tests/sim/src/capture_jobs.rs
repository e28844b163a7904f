//! What the model's cut thread is asked to do, and what it and the copying report.

use ftdm_units::Era;
use ftship_proto::ids::Epoch;
use ftship_proto::primary::PrimaryEvent;
use ftship_proto::scope::Scope;

use crate::content::Content;
use crate::encoding::{Captured, Piece};

/// What the cut thread is asked to do.
#[derive(Debug)]
pub(crate) enum CutJob {
    /// Roll, for the attempt of this number.
    Roll(u32, Option<Vec<Era>>),
    Start(Vec<Era>),
    /// Begin to capture, and end it again, for the attempt of this number.
    Try(u32),
    /// Stand still, and roll, for the attempt of this number; what was written since is this epoch.
    Stand(u32, Vec<Era>, Epoch),
    /// End this epoch, roll in its pause or not, and hold writes back after it or not. Or, where it may rest, do nothing if
    /// nothing was written.
    Cut {
        epoch: Epoch,
        roll: bool,
        hold: bool,
        /// The epoch goes on.
        part: bool,
        may_rest: bool,
    },
    /// Writes wait, without a capture.
    Hold,
    /// From here on only a release lets through what is held back.
    Yield,
    Release,
    Shut,
    Follow,
    Stop,
}

/// What the cut thread and the base copy report.
#[derive(Debug)]
pub(crate) enum PrimaryReport {
    Taken(Captured, Option<Vec<Era>>),
    /// What was written since the eras asked for; the event says which began.
    Scope(Scope, PrimaryEvent),
    /// The same, and what the volumes held in the pause.
    Stood(Scope, Content, PrimaryEvent),
    Event(PrimaryEvent),
    Read(Piece),
}
