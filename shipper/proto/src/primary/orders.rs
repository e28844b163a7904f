//! What the core orders of the cut thread, and what the thread reports: the only words that both use.
//!
//! Always holds: the cut thread carries out one order after the other, and no result names anything that only the driver
//! knows. What a driver keeps of a result (logs, what was read) rides beside it.

use std::time::Duration;

use ftdm_units::{Era, Sectors};

use super::{Primary, PrimaryAction};
use crate::ids::Epoch;

/// What the cut thread must do.
#[derive(Clone, Debug)]
pub enum CutOrder {
    /// End each volume's era in a short pause, drained and flushed, and note what was written since.
    Roll {
        /// Returned in the answer: an earlier attempt's tells nothing.
        attempt: u32,
        /// The eras to start from; `None`: everything.
        since: Option<Vec<Era>>,
    },
    /// Start to capture writes. In the pause in which the log is attached, roll each volume's era, and note what was
    /// written since these.
    Start {
        /// The eras to start from.
        since: Vec<Era>,
    },
    /// Start a capture and end it again, all in one: is it possible?
    Try {
        /// Returned in the answer.
        attempt: u32,
    },
    /// A still round: suspend all volumes; end each one's era, drained and flushed; read what was written since these
    /// eras, which is this epoch's content, and is what [`PrimaryAction::Copy`] copies then; resume.
    Still {
        /// Returned in the answer.
        attempt: u32,
        /// The eras to start from.
        since: Vec<Era>,
        /// Its number.
        epoch: Epoch,
        /// How long the volumes may stay suspended for it.
        budget: Duration,
    },
    /// Cut now; what was captured becomes this epoch.
    Cut(Cut),
    /// Hold writes back, without a capture, for at most so long, or until [`Self::Release`] or [`Self::Shut`]; if this
    /// daemon ends they go on.
    Hold {
        /// How long.
        lease: Duration,
    },
    /// Make sure that nothing lets through what is held back, if this daemon cannot.
    Yield,
    /// Let it through; also where it was shut meanwhile.
    Release,
    /// Make it fail, and all I/O from here on.
    Shut,
    /// No cut now, but keep up with the log and report its use; answered by [`CutResult::Followed`].
    Follow,
    /// Stop to capture writes.
    Stop,
    /// Give the layers below the visible devices at least these sizes, while nothing is captured.
    Enlarge {
        /// In the group's order.
        sizes: Vec<Sectors>,
    },
    /// Let the visible devices show these sizes, which the layers below have.
    Show {
        /// In the group's order.
        sizes: Vec<Sectors>,
    },
}

/// One cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The number of the epoch that ends.
    pub epoch: Epoch,
    /// Roll each volume's era in its pause.
    pub roll: bool,
    /// How long the volumes may stay suspended for it.
    pub budget: Duration,
    /// Hold writes back after it, for as long as the configuration allows.
    pub hold: bool,
    /// What was captured becomes part of this epoch, which goes on. The log is exchanged.
    pub part: bool,
    /// Leave it out if it is proven that nothing was written since the last one.
    pub may_rest: bool,
}

/// What the cut thread reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CutResult {
    /// dm-era was rolled, and what was asked for is known.
    Rolled {
        /// As ordered.
        attempt: u32,
        /// The era of each volume that began.
        eras: Vec<Era>,
        /// Bytes of the volumes that were written since the eras named.
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
    Started {
        /// The era of each volume that began in the pause in which its log was attached.
        eras: Vec<Era>,
        /// Bytes of the volumes that were written since the eras named, and before that pause.
        bytes: u64,
    },
    /// The capture that was to be tried began and ended; or why it did not, for people.
    Tried {
        /// As ordered.
        attempt: u32,
        /// Whether.
        result: Result<(), String>,
    },
    /// A still round: dm-era was rolled, and what was written before was read into memory.
    Still {
        /// As ordered.
        attempt: u32,
        /// The era of each volume that began in the pause.
        eras: Vec<Era>,
        /// Bytes of the volumes that were written since the eras named.
        bytes: u64,
    },
    /// A still round in which dm-era was rolled, but not everything could be read in time. What was written before is
    /// known.
    StillUnread {
        /// As ordered.
        attempt: u32,
        /// The era of each volume that began in the pause.
        eras: Vec<Era>,
        /// Bytes of the volumes that were written since the eras named.
        bytes: u64,
        /// For people.
        reason: String,
    },
    /// The cut is done.
    Taken {
        /// The era of each volume that began in its pause, where a roll was ordered and done.
        eras: Option<Vec<Era>>,
    },
    /// The cut was left out, as it might be: nothing was written since the last one.
    Idle,
    /// The cut failed its checks; the epoch goes on.
    Void {
        /// For people.
        reason: String,
    },
    /// The capture has ended; writes are only tracked.
    Stopped,
    /// The capture could not start, or lost writes; writes are only tracked.
    Lost {
        /// For people.
        reason: String,
    },
    /// The log overflowed, or could not be written: the capture has ended, and nothing else is wrong.
    LogOff {
        /// For people.
        reason: String,
    },
    /// The layers below are as large as was ordered; or why not, for people, and they are as they were.
    Enlarged(Result<(), String>),
    /// The visible devices show what was ordered; or why not, for people.
    Shown(Result<(), String>),
    /// The follow that was ordered has ended, also if it failed.
    Followed,
    /// Writes are held back, as a [`CutOrder::Hold`] ordered.
    Held,
    /// Only a [`CutOrder::Release`] lets through what the last cut held back, and nothing was written since that cut.
    Yielded,
    /// What was held back was let through: as ordered, or because that cannot be made sure, or the time for it was over.
    Released {
        /// For people.
        reason: String,
    },
    /// All I/O of the volumes fails: as ordered, or because the time for holding writes back was over.
    Shut,
    /// How full the log is, in bytes; of several, the fullest.
    LogUse {
        /// Used.
        used: u64,
        /// In all.
        capacity: u64,
    },
}

impl Primary {
    pub(super) fn order(&mut self, order: CutOrder) {
        self.act(PrimaryAction::Cut(order));
    }

    pub(super) fn cut_result(&mut self, now: Duration, result: CutResult) {
        match result {
            CutResult::Rolled { attempt, eras, bytes } => self.rolled(now, attempt, eras, bytes),
            CutResult::RollFailed { attempt, reason, tracking_lost } => {
                if tracking_lost {
                    self.forget_rolls();
                }
                self.roll_failed(now, attempt, &reason);
            }
            CutResult::Started { eras, bytes } => self.capture_started(now, eras, bytes),
            CutResult::Tried { attempt, result } => self.capture_tried(now, attempt, result),
            CutResult::Still { attempt, eras, bytes } => self.still_read(now, attempt, eras, bytes),
            CutResult::StillUnread { attempt, eras, bytes, reason } => {
                self.still_unread(now, attempt, eras, bytes, &reason);
            }
            CutResult::Taken { eras } => self.cut_taken(now, eras),
            CutResult::Idle => self.nothing_written(now),
            CutResult::Void { reason } => self.cut_void(now, &reason),
            CutResult::Stopped => {
                self.capture_stopped();
                self.step_down(now);
            }
            CutResult::Lost { reason } => self.capture_lost(now, &reason),
            CutResult::LogOff { reason } => self.log_off(now, &reason),
            CutResult::Enlarged(result) => self.enlarged(now, result),
            CutResult::Shown(result) => self.resize_shown(result),
            CutResult::Followed => self.cuts.is_following = false,
            CutResult::Held => self.held(),
            CutResult::Yielded => self.yielded(now),
            CutResult::Released { reason } => {
                self.released(now, &reason);
                self.hold_over(&reason);
            }
            CutResult::Shut => {
                self.shut(now);
                self.held_shut(now);
            }
            CutResult::LogUse { used, capacity } => self.log_use(now, used, capacity),
        }
    }
}
