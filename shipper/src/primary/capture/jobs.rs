//! What the cut thread is given beside the core's orders, what rides along with its results, and what it needs to know
//! from the start.

use std::path::PathBuf;
use std::time::Duration;

use ftdm::cut::CutStats;
use ftdm::discard::DiscardFigures;
use ftdm::log_writes::epoch_log::EpochLog;
use ftdm::stack::still_round::StillContent;
use ftdm_units::Sectors;
use ftship_proto::primary::{Cut, CutOrder, CutResult};
use ftship_proto::scope::Scope;

/// What the cut thread is asked to do.
#[derive(Debug)]
pub(in crate::primary) enum CutJob {
    /// As the core orders it. A cut suspends.
    Ordered(CutOrder),
    /// A cut as the core orders it, that must not suspend: the volumes have to be still by themselves.
    Quiesced(Cut),
    /// From now on writes are held back while the log has no room, where that is configured.
    Throttle,
    /// The cut thread's own: keep up with the log, also when no cut is ordered.
    Watch,
    /// The backup makes progress: writes that are held back may be so for longer.
    Renew,
    /// The buffers of a captured epoch are free again.
    Recycle(Vec<EpochLog>),
}

/// What it reports.
#[derive(Debug)]
pub(in crate::primary) enum CutReport {
    /// For the core, and what the driver keeps of it.
    Result(CutResult, Cargo),
    /// Writes wait for room in the log, until the next cut.
    Throttled,
}

/// What rides along with a result.
#[derive(Debug)]
pub(in crate::primary) enum Cargo {
    Nothing,
    /// What was written before a roll.
    Scope(Scope),
    /// What was written before a still round; what the volumes held there, if it was read; and how long they were
    /// suspended.
    Still(Scope, Option<StillContent>, Duration),
    /// What a cut captured of each volume, and its figures.
    Captured(Vec<EpochLog>, Box<CutStats>),
    /// How full the log of each volume is, and the guest's discards, of all volumes.
    LogUse(Vec<LogUse>, DiscardFigures),
    /// dm-era's metadata fails: the volume goes on without it, and nothing is tracked any more.
    TrackingLost,
}

impl From<CutResult> for CutReport {
    fn from(result: CutResult) -> Self {
        Self::Result(result, Cargo::Nothing)
    }
}

/// How full a log is.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::primary) struct LogUse {
    /// Bytes used.
    pub(in crate::primary) used: u64,
    /// Bytes in all.
    pub(in crate::primary) capacity: u64,
}

impl LogUse {
    /// The log that is fullest.
    pub(in crate::primary) fn fullest(logs: &[Self]) -> Self {
        let share = |log: &&Self| u128::from(log.used) * 1_000_000 / u128::from(log.capacity.max(1));
        logs.iter().max_by_key(share).copied().unwrap_or_default()
    }
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
    /// [`CutJob::Renew`].
    pub(in crate::primary) hold: Option<(u8, Duration)>,
    /// How long writes are held back at most after a cut that holds.
    pub(in crate::primary) switch_hold: Duration,
    /// File for audit digests.
    pub(in crate::primary) digest_file: Option<PathBuf>,
}
