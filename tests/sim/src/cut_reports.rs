//! What the model's cut thread, its copying and its other threads report to the primary's daemon.
//!
//! Always holds: orders and results of the cut thread are the core's own.

use ftship_proto::primary::{CutResult, PrimaryEvent};
use ftship_proto::scope::Scope;

use crate::content::Content;
use crate::encoding::{Captured, Piece};

/// What a thread reports.
#[derive(Debug)]
pub(crate) enum PrimaryReport {
    /// Of the cut thread, with what the daemon keeps of it.
    Cut(CutResult, Cargo),
    Event(PrimaryEvent),
    Read(Piece),
}

/// What rides along with a result.
#[derive(Debug)]
pub(crate) enum Cargo {
    Nothing,
    /// What was written since the eras asked for.
    Scope(Scope),
    /// The same, and what the volumes held in the pause.
    Still(Scope, Content),
    /// What was captured.
    Captured(Captured),
}

impl From<CutResult> for PrimaryReport {
    fn from(result: CutResult) -> Self {
        Self::Cut(result, Cargo::Nothing)
    }
}
