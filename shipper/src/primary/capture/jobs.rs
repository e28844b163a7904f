//! What the cut thread is asked to do, what it reports, and what it needs to know from the start.

use std::path::PathBuf;
use std::time::Duration;

use ftdm::cut::CutMode;
use ftdm::cut::CutStats;
use ftdm::discard::DiscardFigures;
use ftdm::log_writes::epoch_log::EpochLog;
use ftdm::stack::standing::StillContent;
use ftdm_units::{Era, Sectors};
use ftship_proto::ids::Epoch;

use super::rounds::Rolled;

/// What the cut thread is asked to do.
#[derive(Debug)]
pub(in crate::primary) enum CaptureJob {
    /// End each volume's era in a pause, and tell what was written since.
    Roll {
        /// Returned in the answer.
        attempt: u32,
        /// The eras to start from; `None`: everything.
        since: Option<Vec<Era>>,
    },
    /// Capture from now on; roll in the pause of the switch, and tell what was written since.
    Start {
        /// The eras to start from.
        since: Vec<Era>,
    },
    /// Begin a capture, follow its log, and end it again: is it possible?
    Try {
        /// Returned in the answer.
        attempt: u32,
    },
    /// Let the volumes stand still, roll, and read what was written since; that is this epoch.
    Stand {
        /// Returned in the answer.
        attempt: u32,
        /// The eras to start from.
        since: Vec<Era>,
        /// Its number.
        epoch: Epoch,
        /// How long they may stand still.
        budget: Duration,
    },
    /// End the epoch.
    Cut(CutOrder),
    /// From now on writes are held back while the log has no room, where that is configured.
    Throttle,
    /// Hold writes back without a capture, for so long at most.
    Hold(Duration),
    /// Nobody is to let through any more what a cut holds back.
    Yield,
    /// Let it through.
    Release,
    /// Make it fail, and all I/O from here on.
    Shut,
    /// Keep up with the log, and say when that is done.
    Follow,
    /// The same, by the cut thread itself: also when no cut is ordered.
    Watch,
    /// Track only.
    Stop,
    /// The backup makes progress: writes that are held back may be so for longer.
    Renew,
    /// The buffers of a captured epoch are free again.
    Recycle(Vec<EpochLog>),
}

/// What it reports.
#[derive(Debug)]
pub(in crate::primary) enum CaptureReport {
    /// The eras have ended.
    Rolled {
        /// As ordered.
        attempt: u32,
        /// What was written before.
        written: Rolled,
    },
    /// They have not, or what was written cannot be told.
    RollFailed {
        /// As ordered.
        attempt: u32,
        /// Why.
        reason: String,
        /// It will never be.
        tracking_lost: bool,
    },
    /// The volumes stood still, and dm-era was rolled.
    Stood {
        /// As ordered.
        attempt: u32,
        /// What was written before.
        written: Rolled,
        /// What they held there in the pause; or why that was not read.
        content: Result<StillContent, &'static str>,
        /// How long they stood still.
        pause: Duration,
    },
    /// The capture began and ended; or why it did not.
    Tried {
        /// As ordered.
        attempt: u32,
        /// Whether.
        result: Result<(), String>,
    },
    /// Capturing.
    Started {
        /// What was written before.
        written: Rolled,
    },
    /// The epoch has ended.
    Taken {
        /// The eras that began in its pause, when that was ordered and done.
        eras: Option<Vec<Era>>,
        /// What was captured of each volume.
        logs: Vec<EpochLog>,
        /// Figures.
        stats: Box<CutStats>,
    },
    /// The cut was left out: nothing was written since the last one.
    Idle,
    /// The cut failed its checks; the epoch goes on.
    Void {
        /// Why.
        reason: String,
    },
    /// The capture could not start, or lost writes; only tracking now.
    Lost {
        /// Why.
        reason: String,
    },
    /// log-writes switched itself off: only tracking now.
    LogOff {
        /// Why.
        reason: String,
    },
    /// dm-era's metadata fails: the volume goes on without it, and nothing is tracked any more.
    TrackingLost {
        /// Why.
        reason: String,
    },
    /// Tracking only, as asked.
    Stopped,
    /// Writes are held back until the next cut.
    Held,
    /// They are, without a capture, until somebody decides.
    Frozen,
    /// What a cut holds back stays so, whatever becomes of this process.
    Yielded,
    /// It was let through: as asked, or because the time for holding was over, or nobody stood by.
    Released {
        /// For people.
        reason: String,
    },
    /// It failed, and so does all I/O: as asked, or because the time for holding was over.
    Shut,
    /// The log was followed as ordered, or could not be.
    Followed,
    /// How full the logs are.
    LogUse {
        /// Of each volume.
        logs: Vec<LogUse>,
        /// The guest's discards, of all volumes.
        discards: DiscardFigures,
    },
}

/// How full a log is.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::primary) struct LogUse {
    /// Bytes used.
    pub(in crate::primary) used: u64,
    /// Bytes in all.
    pub(in crate::primary) capacity: u64,
}

/// What the cut thread needs to know.
#[derive(Debug)]
pub(in crate::primary) struct CaptureSettings {
    /// The two RAM disks of each volume; `None`: free ones of `log_size`.
    pub(in crate::primary) logs: Option<Vec<[PathBuf; 2]>>,
    /// What a log has to have, where none are named.
    pub(in crate::primary) log_size: Sectors,
    /// Log use, in percent, beyond which a cut exchanges the log.
    pub(in crate::primary) rotate_at: u8,
    /// Log use, in percent, beyond which writes are held back, and for how long at most without a
    /// [`CaptureJob::Renew`].
    pub(in crate::primary) hold: Option<(u8, Duration)>,
    /// How long writes are held back at most behind a cut that holds.
    pub(in crate::primary) switch_hold: Duration,
    /// File for audit digests.
    pub(in crate::primary) digest_file: Option<PathBuf>,
}

/// A cut as the core orders it.
#[derive(Debug)]
pub(in crate::primary) struct CutOrder {
    /// The number of the epoch that ends.
    pub(in crate::primary) epoch: Epoch,
    /// Whether the volumes are suspended, or still by themselves.
    pub(in crate::primary) mode: CutMode,
    /// How long they may stand still.
    pub(in crate::primary) budget: Duration,
    /// End each volume's era in the pause.
    pub(in crate::primary) roll: bool,
    /// Hold writes back behind it.
    pub(in crate::primary) hold: bool,
    /// The epoch goes on; the log is exchanged.
    pub(in crate::primary) part: bool,
    /// Leave it out if nothing was written since the last one.
    pub(in crate::primary) may_rest: bool,
}
