//! The cut: the instant that ends an epoch of all volumes of a group, with the truth about every sector that
//! was written more than once.
//!
//! ```text
//! look              each: was nothing written, the cut may be left out; then nothing is touched
//! follow            each: flush, mark, read the log, and suspects        the volumes run
//! suspend           all at once: drains what is in flight  the pause begins
//!                   ── from here to the verifying all stand still: this is the instant ──
//! flush             all at once: what completed goes into its log
//! mark              each
//! read              each: the headers of the log up to the mark
//! suspects          each: those that are not known are read from below the log, direct
//! roll              each: dm-era is flushed, and its era ended, when asked for
//! verify            each: still suspended, log still on, nothing behind the mark
//! rotate            each: the other log takes over, when asked for
//! discard           each: a little of what the guest has discarded is given to the volume, between two checks
//! resume            each                                   the pause ends; or all are held, when asked for
//! fetch             each: the data of what was read in the pause
//! ```
//!
//! Each step is done for every volume before the next one is begun for any. So there is an instant, after
//! the last suspend and before the first check, at which all of them stood still, and what was logged of each
//! is what it held then. A group of one volume is no case of its own.
//!
//! Always holds: every visible device is resumed on every path out of a pause, panics included, unless it is held, and no
//! pause begins without somebody who does it if this process cannot ([`crate::pause::pulse`]); a cut that is void for
//! one volume is void for all, and changes nothing: entries stay in the epochs that go on; a capture that is
//! lost for one volume is lost for all; epochs are handed over only if all devices stood still from the first
//! flush to the last check.

#[cfg(feature = "faults")]
mod apart;
mod steps;

use std::io;
use std::time::Duration;

use crate::capture::{Capture, Followed, LostReason};
use crate::ioctl::{Urgency, set_urgency};
use crate::log_writes::epoch_log::EpochLog;
use crate::name::StackName;
use crate::pause::pulse::Phase;
use crate::pause::{Failed, PAUSE_URGENCY, Pause};
use crate::stack::era_device::EraReader;
use steps::{Laps, Standing, Stop, Stopped};

/// How it is made sure that nobody writes during a cut, to any of the volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutMode {
    /// The visible devices are suspended.
    Suspend,
    /// Somebody else keeps the writers still (the hypervisor has paused the guest, which has the devices
    /// open with `O_DIRECT`); the kernel's counters have to prove it, or the cut is void. Costs neither a
    /// suspend nor an event for udev; the logs are not changed.
    Quiesced,
}

/// What [`cut()`] may be given to do with each volume, told with its place in the group, in the pause.
pub type InPause<'a> = &'a mut dyn FnMut(usize, &EraReader);

/// What kind of cut is wanted.
pub struct CutRequest<'a> {
    /// How the volumes are kept still. Where writes are held back anyway, by suspending.
    pub mode: CutMode,
    /// The epoch that ends; carried by the marks.
    pub epoch: u64,
    /// How long the volumes may stand still, all together.
    pub budget: Duration,
    /// Change a volume to its other log when more than this many bytes of the one in use are used.
    pub rotate_above: Option<u64>,
    /// End each volume's era: flush dm-era and roll it, in the pause. Not where nothing is suspended.
    pub roll: bool,
    /// Do nothing if the kernel's counters prove that no volume was written to since the last cut.
    pub may_rest: bool,
    /// Leave the volumes suspended behind the cut, if it is taken: see [`crate::pause::pulse::Phase::Held`].
    pub hold: bool,
    /// Called for each volume while all stand still, after the suspects were read; from then on the budget
    /// does not apply. For audits: it may read the whole volume.
    pub in_pause: Option<InPause<'a>>,
}

/// What a cut cost: one figure for all volumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CutStats {
    /// Before the pause: flushes, marks and reading what was there.
    pub follow: Duration,
    /// The whole pause, from the first suspend's call to the last resume's return.
    pub pause: Duration,
    /// Draining.
    pub suspend: Duration,
    /// Flushing the log devices.
    pub flush: Duration,
    /// Until the marks were readable and the logs read.
    pub log: Duration,
    /// Finding and reading suspects.
    pub suspects: Duration,
    /// The caller's own work in the pause.
    pub caller: Duration,
    /// Checking, and rotating when that was due.
    pub verify: Duration,
    /// Giving discards to the volumes.
    pub discard: Duration,
    /// Reading the data of what was in flight, after the pause.
    pub data: Duration,
    /// The resumes alone.
    pub resume: Duration,
    /// Entries of the epochs so far.
    pub entries: usize,
    /// Entries that were read within the pause.
    pub entries_in_pause: usize,
    /// Runs of suspects.
    pub suspect_runs: usize,
    /// Their sectors.
    pub suspect_sectors: u64,
    /// Runs that were read within the pause: the others were known.
    pub suspects_in_pause: usize,
    /// Logs that were changed.
    pub rotations: usize,
    /// Every volume's era was ended.
    pub rolled: bool,
    /// Discards sent to the volumes.
    pub discards: usize,
}

/// How a cut went.
#[derive(Debug)]
pub enum CutOutcome {
    /// The epoch of all volumes ended here.
    Taken {
        /// The writes of each volume; give them back with [`Capture::recycle`].
        logs: Vec<EpochLog>,
        /// What it cost.
        stats: CutStats,
    },
    /// Nothing was written since the last cut, and nothing was done.
    Idle,
    /// The epochs go on; nothing is lost.
    Void {
        /// The volume that it was found at.
        volume: StackName,
        /// Why.
        reason: VoidReason,
        /// What the attempt cost.
        stats: CutStats,
    },
}

/// Why a cut was not taken.
#[derive(Debug, thiserror::Error)]
pub enum VoidReason {
    /// Somebody else holds the visible device suspended: that is theirs to end.
    #[error("another process has suspended the visible device")]
    Suspended,
    /// Nobody would bring the volume back if this process stopped in the pause.
    #[error("no watchdog stands by")]
    Unwatched,
    /// The log was so far behind that a pause was not even begun.
    #[error("the log is behind")]
    Behind,
    /// The budget was used up.
    #[error("the pause's budget was used up {0}")]
    Budget(&'static str),
    /// The volume did not stand still all the time.
    #[error("another process resumed the visible device in the pause")]
    Resumed,
    /// Nobody keeps the writers still.
    #[error("the volume is not quiescent: {0}")]
    NotQuiescent(&'static str),
    /// The counters that would prove it cannot be read.
    #[error("cannot find out whether the volume is quiescent (queue/iostats has to be 1): {0}")]
    Unproven(io::Error),
    /// The volume's flush failed.
    #[error("flush: {0}")]
    Flush(io::Error),
    /// It could not be suspended.
    #[error("suspend: {0}")]
    Suspend(io::Error),
    /// dm-era could not be flushed and rolled.
    #[error("ending the era: {0}")]
    Roll(io::Error),
    /// A suspect could not be read.
    #[error("reading suspects: {0}")]
    Suspects(io::Error),
}

/// Why a capture cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// Stop the captures of all volumes; dm-era has what changed.
    #[error("{volume}: {reason}")]
    CaptureLost {
        /// The volume.
        volume: StackName,
        /// Why.
        reason: LostReason,
    },
    /// A visible device could not be resumed: its writers hang until somebody does.
    #[error("{volume} could not be resumed: {error}")]
    NotResumed {
        /// The volume.
        volume: StackName,
        /// Why.
        error: io::Error,
    },
}

/// Ends the epoch of `captures`, the volumes of one group, here and at one instant, if that can be done exactly
/// and within the budget. There is at least one.
///
/// # Errors
/// See [`CutError`]. A cut that merely could not be taken is no error but [`CutOutcome::Void`].
pub fn cut(captures: &mut [Capture], request: CutRequest<'_>) -> Result<CutOutcome, CutError> {
    captures.iter_mut().for_each(Capture::look);
    if request.may_rest && captures.iter().all(Capture::is_cut) {
        return Ok(CutOutcome::Idle);
    }
    #[cfg(feature = "faults")]
    if crate::fault::breaks("cut-apart") {
        return apart::cut(captures, request);
    }
    together(captures, request)
}

/// The cut of all `captures` at one instant.
fn together(captures: &mut [Capture], mut request: CutRequest<'_>) -> Result<CutOutcome, CutError> {
    let mut stats = CutStats::default();
    let mut laps = Laps::new();
    let followed = follow(captures);
    stats.follow = laps.lap();
    if let Err(stopped) = followed {
        return outcome(captures, Err(stopped), stats);
    }
    if captures.iter().any(|capture| capture.held) {
        request.mode = CutMode::Suspend;
    }
    let ended = paused(captures, &mut request, &mut stats);
    let mut laps = Laps::new();
    for (at, capture) in captures.iter_mut().enumerate() {
        // However the pause went: what was read in it is part of the epochs.
        if let Err(reason) = capture.fetch() {
            return outcome(captures, Err(Stopped { at, why: Stop::Lost(reason) }), stats);
        }
    }
    stats.data = laps.lap();
    let taken = match ended {
        Ok(taken) => taken,
        Err(Failed { at, why: error }) => {
            return Err(CutError::NotResumed { volume: captures[at].stack.name.clone(), error });
        }
    };
    for (at, capture) in captures.iter_mut().enumerate() {
        // However the pause went: if somebody took a volume over in it, nothing of it counts.
        if let Err(reason) = capture.refuse_when_taken_over() {
            return outcome(captures, Err(Stopped { at, why: Stop::Lost(reason) }), stats);
        }
        capture.index();
        stats.entries += capture.epoch.entries.len();
    }
    outcome(captures, taken, stats)
}

/// The pause. Within: whether the epochs ended.
fn paused(
    captures: &mut [Capture],
    request: &mut CutRequest<'_>,
    stats: &mut CutStats,
) -> Result<Result<(), Stopped>, Failed<io::Error>> {
    if captures.len() > 1 {
        captures.iter_mut().for_each(Capture::ready_helper);
    }
    let volumes = captures.iter_mut().map(|capture| Standing::prepare(capture, request)).collect();
    let pause = match Pause::begin(volumes, Phase::Capturing) {
        Ok(pause) => pause,
        Err(unguarded) => return Ok(Err(unguarded.map(|_| Stop::Void(VoidReason::Unwatched)))),
    };
    // Refused where the system does not allow it: the pause is then as short as the load permits.
    let urgent = set_urgency(PAUSE_URGENCY).is_ok();
    let taken = steps::run(pause, request, stats);
    if urgent && let Err(e) = set_urgency(Urgency::Ordinary) {
        log::warn!("the cut thread stays real-time: {e}");
    }
    taken
}

/// Follows each log, so that little is left for the pause.
fn follow(captures: &mut [Capture]) -> Result<(), Stopped> {
    for (at, capture) in captures.iter_mut().enumerate() {
        follow_one(capture).map_err(|why| Stopped { at, why })?;
    }
    // While the later ones were followed much may have come for the earlier ones.
    let earlier = captures.len().saturating_sub(1);
    for (at, capture) in captures[..earlier].iter_mut().enumerate() {
        if capture.is_behind().map_err(|lost| Stopped { at, why: lost.into() })? {
            follow_one(capture).map_err(|why| Stopped { at, why })?;
        }
    }
    Ok(())
}

fn follow_one(capture: &mut Capture) -> Result<(), Stop> {
    capture.refuse_when_lost()?;
    let state = capture.top_state().map_err(LostReason::Status)?;
    if state.suspended && !capture.held {
        return Err(Stop::Void(VoidReason::Suspended));
    }
    match capture.follow_log()? {
        Followed::Current { .. } => Ok(()),
        Followed::Behind => Err(Stop::Void(VoidReason::Behind)),
        Followed::FlushFailed(e) => Err(Stop::Void(VoidReason::Flush(e))),
    }
}

/// Hands over the epochs, or leaves them as they are, or gives them up: of all volumes alike.
fn outcome(
    captures: &mut [Capture],
    taken: Result<(), Stopped>,
    stats: CutStats,
) -> Result<CutOutcome, CutError> {
    let Err(Stopped { at, why }) = taken else {
        captures.iter_mut().for_each(|capture| capture.idle.cut());
        let logs = captures.iter_mut().map(Capture::take_epoch).collect();
        return Ok(CutOutcome::Taken { logs, stats });
    };
    let volume = captures[at].stack.name.clone();
    match why {
        Stop::Void(reason) => Ok(CutOutcome::Void { volume, reason, stats }),
        Stop::Lost(reason) => {
            for capture in captures {
                capture.lost = true;
            }
            Err(CutError::CaptureLost { volume, reason })
        }
    }
}
