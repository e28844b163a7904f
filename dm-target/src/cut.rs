//! The cut: the instant that ends an epoch, with the truth about every sector that was written
//! more than once.
//!
//! ```text
//! follow            flush, mark, read the log              the volume runs
//! suspend           drains what is in flight               the pause begins
//! flush, mark       what completed goes into the log, then the mark
//! read              the log up to the mark
//! suspects          read from below the log, direct
//! verify            still suspended, log still on, nothing behind the mark
//! rotate            the other log takes over, when asked for
//! discard           a little of what the guest has discarded is given to the volume, between two checks
//! resume                                                   the pause ends
//! ```
//!
//! Always holds: the visible device is resumed on every path out of a pause, panics included, and no
//! pause begins without somebody who does it if this process cannot ([`crate::pulse`]); a void cut changes nothing, its entries stay in the epoch that goes on; an epoch is handed over
//! only if the device stood still from the flush to the last check.

use std::io;
use std::time::{Duration, Instant};

use crate::capture::{Capture, EraReader, Followed, LostReason, PAUSE_BYTES, Seen};
use crate::fault;
use crate::fold;
use crate::ioctl::{Urgency, set_urgency};
use crate::log_writes::epoch_log::EpochLog;
use crate::pause_pool::PoolError;
use crate::pulse::Phase;
use crate::stillness::Look;
use crate::units::Sectors;

/// Suspects at most this far apart are read in one.
const READ_GAP: Sectors = Sectors(64);
/// The volume's writers wait for what is done in a pause: it goes before everything ordinary.
pub(crate) const PAUSE_URGENCY: Urgency = Urgency::RealTime(10);
/// Attempts to resume a device before giving up.
const RESUME_TRIES: u32 = 3;

/// How it is made sure that nobody writes during a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutMode {
    /// The visible device is suspended.
    Suspend,
    /// Somebody else keeps the writers still (the hypervisor has paused the guest, which has the device
    /// open with `O_DIRECT`); the kernel's counters have to prove it, or the cut is void. Costs neither a
    /// suspend nor an event for udev; the log is not changed.
    Quiesced,
}

/// What kind of cut is wanted.
pub struct CutRequest<'a> {
    /// How the volume is kept still. Where writes are held back anyway, by that.
    pub mode: CutMode,
    /// The epoch that ends; carried by the mark.
    pub epoch: u64,
    /// How long the volume may stand still.
    pub budget: Duration,
    /// Change to the other log when more than this many bytes of this one are used.
    pub rotate_above: Option<u64>,
    /// Called while the volume stands still, after the suspects were read; from then on the budget
    /// does not apply. For audits: it may read the whole volume.
    pub in_pause: Option<&'a mut dyn FnMut(&EraReader)>,
}

/// What a cut cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CutStats {
    /// Before the pause: flush, mark and reading what was there.
    pub follow: Duration,
    /// The whole pause, from the suspend's call to the resume's return.
    pub pause: Duration,
    /// Draining.
    pub suspend: Duration,
    /// Flushing the log device.
    pub flush: Duration,
    /// Until the mark was readable and the log read.
    pub log: Duration,
    /// Finding and reading suspects.
    pub suspects: Duration,
    /// The caller's own work in the pause.
    pub caller: Duration,
    /// Checking, and rotating when that was due.
    pub verify: Duration,
    /// Giving discards to the volume.
    pub discard: Duration,
    /// The resume alone.
    pub resume: Duration,
    /// Entries of the epoch so far.
    pub entries: usize,
    /// Entries that were read within the pause.
    pub entries_in_pause: usize,
    /// Runs of suspects.
    pub suspect_runs: usize,
    /// Their sectors.
    pub suspect_sectors: u64,
    /// The log was changed.
    pub rotated: bool,
    /// Discards sent to the volume.
    pub discards: usize,
}

/// How a cut went.
#[derive(Debug)]
pub enum CutOutcome {
    /// The epoch ended here.
    Taken {
        /// Its writes; give it back with [`Capture::recycle`].
        log: EpochLog,
        /// What it cost.
        stats: CutStats,
    },
    /// The epoch goes on; nothing is lost.
    Void {
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
    #[error("somebody else has suspended the visible device")]
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
    #[error("somebody resumed the visible device in the pause")]
    Resumed,
    /// Nobody keeps the writers still.
    #[error("the volume is not quiescent: {0}")]
    NotQuiescent(&'static str),
    /// The counters that would prove it cannot be read.
    #[error("whether the volume is quiescent cannot be told (queue/iostats has to be 1): {0}")]
    Unproven(io::Error),
    /// The volume's flush failed.
    #[error("flush: {0}")]
    Flush(io::Error),
    /// It could not be suspended.
    #[error("suspend: {0}")]
    Suspend(io::Error),
    /// A suspect could not be read.
    #[error("reading suspects: {0}")]
    Suspects(io::Error),
}

/// Why a capture cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// Stop the capture; dm-era has what changed.
    #[error(transparent)]
    CaptureLost(#[from] LostReason),
    /// The visible device could not be resumed: its writers hang until somebody does.
    #[error("the visible device could not be resumed: {0}")]
    NotResumed(io::Error),
}

enum Stop {
    Void(VoidReason),
    Lost(LostReason),
}

impl From<LostReason> for Stop {
    fn from(reason: LostReason) -> Self {
        Self::Lost(reason)
    }
}

/// The visible device is suspended as long as this lives.
struct Paused<'a> {
    capture: &'a mut Capture,
    /// There is nothing to resume.
    running: bool,
    /// What the counters said at the beginning, when they are to prove that nobody writes.
    before: Option<Look>,
}

impl Paused<'_> {
    fn resume(&mut self) -> io::Result<()> {
        let mut tries = 1;
        loop {
            let top = self.capture.stack.top;
            match self.capture.control.resume(top) {
                Ok(()) => {
                    self.running = true;
                    return Ok(());
                }
                Err(e) if tries == RESUME_TRIES => return Err(e),
                Err(_) => tries += 1,
            }
        }
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        if !self.running
            && let Err(e) = self.resume()
        {
            log::error!("resuming {}: {e}", self.capture.stack.name);
        }
    }
}

/// Measures stages one after the other.
struct Laps(Instant);

impl Laps {
    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now - std::mem::replace(&mut self.0, now)
    }
}

fn in_time(deadline: Instant, stage: &'static str) -> Result<(), Stop> {
    if Instant::now() < deadline { Ok(()) } else { Err(Stop::Void(VoidReason::Budget(stage))) }
}

impl Capture {
    /// Ends the epoch here, if that can be done exactly and within the budget.
    ///
    /// # Errors
    /// See [`CutError`]. A cut that merely could not be taken is no error but
    /// [`CutOutcome::Void`].
    pub fn cut(&mut self, mut request: CutRequest<'_>) -> Result<CutOutcome, CutError> {
        let mut stats = CutStats::default();
        self.refuse_when_lost()?;
        let state = self.top_state().map_err(LostReason::Status);
        if self.note_lost(state)?.suspended && !self.held {
            return Ok(CutOutcome::Void { reason: VoidReason::Suspended, stats });
        }
        let mut laps = Laps(Instant::now());
        let followed = self.follow()?;
        stats.follow = laps.lap();
        match followed {
            Followed::Current { .. } => {}
            Followed::Behind => return Ok(CutOutcome::Void { reason: VoidReason::Behind, stats }),
            Followed::FlushFailed(e) => return Ok(CutOutcome::Void { reason: VoidReason::Flush(e), stats }),
        }
        if self.held {
            request.mode = CutMode::Suspend;
        }
        let rotate = request.mode == CutMode::Suspend
            && request.rotate_above.is_some_and(|limit| self.log_usage().0 > limit);
        if rotate {
            self.ready_spare();
        }
        if !self.pulse.beat(Phase::Paused) {
            return Ok(CutOutcome::Void { reason: VoidReason::Unwatched, stats });
        }
        // Whatever becomes of this cut, what it does in the end is resume.
        self.held = false;
        // Refused where the system does not allow it: the pause is then as short as the load permits.
        let urgent = set_urgency(PAUSE_URGENCY).is_ok();
        let stopped = self.pause(&mut request, rotate, &mut stats);
        if urgent && let Err(e) = set_urgency(Urgency::Ordinary) {
            log::warn!("the cut thread stays real-time: {e}");
        }
        self.pulse.beat(Phase::Capturing);
        let stopped = stopped?;
        // However the pause went: if somebody took the volume over in it, nothing of it counts.
        let own = self.refuse_when_taken_over();
        self.note_lost(own)?;
        self.index();
        stats.entries = self.epoch.entries.len();
        match stopped {
            None => Ok(CutOutcome::Taken { log: self.take_epoch(), stats }),
            Some(Stop::Void(reason)) => {
                self.epoch.forget_suspects();
                Ok(CutOutcome::Void { reason, stats })
            }
            Some(Stop::Lost(reason)) => {
                self.lost = true;
                Err(reason.into())
            }
        }
    }

    /// From suspend to resume. `None` when the cut was taken.
    fn pause(
        &mut self,
        request: &mut CutRequest<'_>,
        rotate: bool,
        stats: &mut CutStats,
    ) -> Result<Option<Stop>, CutError> {
        let began = Instant::now();
        let deadline = began + request.budget;
        let mut paused = Paused { capture: self, running: request.mode == CutMode::Quiesced, before: None };
        let taken = paused.take(request, deadline, rotate, stats);
        let mut laps = Laps(Instant::now());
        let resumed = if paused.running { Ok(()) } else { paused.resume() };
        stats.resume = laps.lap();
        stats.pause = began.elapsed();
        // The guard has no more to do: it either resumed, or tried as often as it would again.
        paused.running = true;
        drop(paused);
        resumed.map_err(CutError::NotResumed)?;
        Ok(taken.err())
    }

    /// Loads the other log, wiped, so that in the pause only the change itself is left. When that
    /// fails this log goes on, and the next cut tries again.
    fn ready_spare(&mut self) {
        if self.spare_ready {
            return;
        }
        let spare = &self.rams.0[1 - self.active];
        let parameters = format!("{} {}", self.stack.floor(), spare.number());
        let loaded = spare
            .wipe()
            .and_then(|()| self.control.load(self.log_number, self.stack.size, "log-writes", &parameters));
        match loaded {
            Ok(()) => self.spare_ready = true,
            Err(e) => log::warn!("the other log of {} cannot be made ready: {e}", self.stack.name),
        }
    }
}

impl Paused<'_> {
    /// Everything that happens in the pause but the resume.
    fn take(
        &mut self,
        request: &mut CutRequest<'_>,
        deadline: Instant,
        rotate: bool,
        stats: &mut CutStats,
    ) -> Result<(), Stop> {
        let mut laps = Laps(Instant::now());
        match request.mode {
            CutMode::Suspend => self.suspend()?,
            CutMode::Quiesced => self.before = Some(self.look("a write is under way")?),
        }
        let capture = &mut *self.capture;
        stats.suspend = laps.lap();
        fault::at("after-suspend");
        in_time(deadline, "by draining")?;
        capture.flush_log().map_err(|e| Stop::Void(VoidReason::Flush(e)))?;
        stats.flush = laps.lap();
        fault::at("after-flush");
        in_time(deadline, "by the flush")?;
        let before = capture.epoch.entries.len();
        let mark = capture.mark("cut", request.epoch).map_err(LostReason::Status)?;
        fault::at("after-mark");
        // More than memory was made ready for is read while the volume runs, and the cut comes later.
        let seen = capture.read_to(&mark, deadline, PAUSE_BYTES as u64, Phase::Paused)?;
        stats.log = laps.lap();
        stats.entries_in_pause = capture.epoch.entries.len() - before;
        match seen {
            Seen::Mark => {}
            Seen::Late => return Err(Stop::Void(VoidReason::Budget("by the log"))),
            Seen::TooMuch => return Err(Stop::Void(VoidReason::Behind)),
        }
        self.read_suspects(deadline, stats)?;
        stats.suspects = laps.lap();
        fault::at("after-suspects");
        if let Some(in_pause) = &mut request.in_pause {
            in_pause(&self.capture.era);
            stats.caller = laps.lap();
        }
        self.verify()?;
        // Rotating is not worth a void cut: with no time left the next cut does it.
        let time_left = request.in_pause.is_some() || Instant::now() < deadline;
        if rotate && self.capture.spare_ready && time_left {
            self.rotate()?;
            stats.rotated = true;
        }
        stats.verify = laps.lap();
        if request.mode == CutMode::Suspend && time_left {
            self.give_back(request.budget, stats)?;
            stats.discard = laps.lap();
        }
        fault::at("before-resume");
        Ok(())
    }

    fn suspend(&mut self) -> Result<(), Stop> {
        let top = self.capture.stack.top;
        self.capture.control.suspend(top).map_err(|e| Stop::Void(VoidReason::Suspend(e)))
    }

    /// Looks at the counters; nothing may be in flight.
    fn look(&self, otherwise: &'static str) -> Result<Look, Stop> {
        match self.capture.stillness.look() {
            Ok(look) if look.in_flight == 0 => Ok(look),
            Ok(_) => Err(Stop::Void(VoidReason::NotQuiescent(otherwise))),
            Err(e) => Err(Stop::Void(VoidReason::Unproven(e))),
        }
    }

    fn read_suspects(&mut self, deadline: Instant, stats: &mut CutStats) -> Result<(), Stop> {
        let Capture { epoch, reads, pool, .. } = &mut *self.capture;
        epoch.forget_suspects();
        let known = epoch.order.len();
        epoch.order.extend((known..epoch.entries.len()).filter_map(|i| u32::try_from(i).ok()));
        let (head, tail) = epoch.order.split_at_mut(known);
        fold::sort(&epoch.entries, tail);
        fold::find_suspects(&epoch.entries, head, tail, &mut epoch.suspects);
        fold::plan_reads(&mut epoch.suspects, READ_GAP, 0, reads);
        stats.suspect_runs = epoch.suspects.len();
        stats.suspect_sectors = epoch.suspects.iter().map(|s| s.extent.len().0).sum();
        pool.read(reads, &mut epoch.truth, deadline).map_err(|e| {
            Stop::Void(match e {
                PoolError::Io(e) => VoidReason::Suspects(e),
                PoolError::Late => VoidReason::Budget("by reading suspects"),
            })
        })
    }

    /// The volume still stands, the log is on and has nothing behind the mark.
    fn verify(&mut self) -> Result<(), Stop> {
        let status = self.capture.ask()?;
        let is_still = match self.before {
            Some(before) => {
                if self.look("a write began meanwhile")? != before {
                    return Err(Stop::Void(VoidReason::NotQuiescent("it was written to meanwhile")));
                }
                true
            }
            None => self.capture.top_state().map_err(LostReason::Status)?.suspended,
        };
        let capture = &mut *self.capture;
        if !is_still || status.entries != capture.reader.entries() {
            return Err(Stop::Void(VoidReason::Resumed));
        }
        Ok(())
    }

    /// Gives some of what the guest has discarded to the volume: see [`crate::discard`].
    fn give_back(&mut self, budget: Duration, stats: &mut CutStats) -> Result<(), Stop> {
        let capture = &mut *self.capture;
        let Some(slice) = capture.ledger.slice(budget) else { return Ok(()) };
        capture.ledger.note(&capture.epoch.entries);
        self.verify()?;
        fault::at("discard-verified");
        let capture = &mut *self.capture;
        let issued = capture.ledger.issue(&mut capture.pool, Instant::now() + slice, &*capture.pulse);
        stats.discards = issued.count;
        fault::at("discard-issued");
        self.verify()
    }

    /// The other log takes over. The volume stands still, so nothing is on its way to either.
    fn rotate(&mut self) -> Result<(), Stop> {
        let capture = &mut *self.capture;
        capture.spare_ready = false;
        let log = capture.log_number;
        let suspended = capture.control.suspend(log);
        fault::at("mid-rotation");
        // Also after a failed suspend: whatever state that left, the log device must run.
        let resumed = capture.control.resume(log).or_else(|_| capture.control.resume(log));
        if let Err(e) = resumed {
            self.leave_log();
            return Err(LostReason::Rotation(e).into());
        }
        suspended.map_err(LostReason::Rotation)?;
        capture.log_settings.apply().map_err(|e| LostReason::Rotation(io::Error::other(e)))?;
        capture.active = 1 - capture.active;
        let capacity = capture.rams.0[capture.active].capacity();
        capture.reader.restart(capacity);
        capture.ask()?;
        let state = capture.top_state().map_err(LostReason::Status)?;
        if state.suspended { Ok(()) } else { Err(LostReason::ResumedInRotation.into()) }
    }

    /// The log device does not run: the resume that follows is to make dm-era live instead, or the
    /// volume's writers would hang on it.
    fn leave_log(&mut self) {
        let capture = &mut *self.capture;
        let below = format!("{} 0", capture.stack.floor());
        if let Err(e) = capture.control.load(capture.stack.top, capture.stack.size, "linear", &below) {
            log::error!("pointing {} at dm-era: {e}", capture.stack.name);
        }
    }
}
