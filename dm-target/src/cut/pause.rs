//! What is done while the volumes of a group stand still.
//!
//! Always holds: each step is done for all volumes before the next one begins; whatever becomes of a
//! [`Paused`], all visible devices run when it is gone; nothing is allocated between the first suspend and the
//! last resume.

use std::io;
use std::time::{Duration, Instant};

use super::{CutMode, CutRequest, CutStats, VoidReason};
use crate::capture::{Capture, LostReason, PAUSE_BYTES, Seen};
use crate::fault;
use crate::fold;
use crate::log_writes::mark::Mark;
use crate::pause::pool::PoolError;
use crate::pause::pulse::Phase;
use crate::pause::stillness::Look;
use crate::units::Sectors;

/// Suspects at most this far apart are read in one.
const READ_GAP: Sectors = Sectors(64);

/// Why a volume's part of a cut was not done.
pub(super) enum Stop {
    Void(VoidReason),
    Lost(LostReason),
}

impl From<LostReason> for Stop {
    fn from(reason: LostReason) -> Self {
        Self::Lost(reason)
    }
}

/// The same, with the place of the volume that was being worked on.
pub(super) struct Stopped {
    pub(super) at: usize,
    pub(super) why: Stop,
}

/// Measures stages one after the other.
pub(super) struct Laps(Instant);

impl Laps {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }

    pub(super) fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now - std::mem::replace(&mut self.0, now)
    }
}

fn in_time(deadline: Instant, stage: &'static str) -> Result<(), Stop> {
    if Instant::now() < deadline { Ok(()) } else { Err(Stop::Void(VoidReason::Budget(stage))) }
}

/// One volume of the group, and what the pause needs to know of it.
struct Standing<'a> {
    capture: &'a mut Capture,
    /// The other log is to take over.
    rotate: bool,
    /// What the counters said at the beginning, when they are to prove that nobody writes.
    before: Option<Look>,
    mark: Option<Mark>,
}

/// All volumes of the group. They may be suspended for as long as this lives.
pub(super) struct Paused<'a> {
    volumes: Vec<Standing<'a>>,
    /// The volume that is worked on.
    at: usize,
    /// There is nothing to resume.
    running: bool,
}

impl<'a> Paused<'a> {
    /// Makes ready what must not be made in the pause, which begins with [`run`](Self::run).
    pub(super) fn prepare(captures: &'a mut [Capture], request: &CutRequest<'_>) -> Self {
        let ready = |capture: &'a mut Capture| {
            let rotate = request.mode == CutMode::Suspend
                && request.rotate_above.is_some_and(|limit| capture.log_usage().0 > limit);
            if rotate {
                capture.ready_spare();
            }
            Standing { capture, rotate, before: None, mark: None }
        };
        Self { volumes: captures.iter_mut().map(ready).collect(), at: 0, running: true }
    }

    /// Tells whoever would bring the volumes back that they are about to stand still; a volume for which there
    /// is nobody.
    pub(super) fn unwatched(&self) -> Option<usize> {
        self.volumes.iter().position(|volume| !volume.capture.pulse.beat(Phase::Paused))
    }

    /// The pause. Within: whether the epochs ended.
    ///
    /// # Errors
    /// When a volume could not be resumed, and which.
    pub(super) fn run(
        mut self,
        request: &mut CutRequest<'_>,
        stats: &mut CutStats,
    ) -> Result<Result<(), Stopped>, (usize, io::Error)> {
        let began = Instant::now();
        // Whatever becomes of this cut, what it does in the end is resume.
        for volume in &mut self.volumes {
            volume.capture.held = false;
        }
        self.running = request.mode == CutMode::Quiesced;
        let taken = self.take(request, began + request.budget, stats);
        let mut laps = Laps::new();
        self.running |= request.hold && taken.is_ok() && self.hold();
        let resumed = if self.running { Ok(()) } else { self.resume() };
        stats.resume = laps.lap();
        stats.pause = began.elapsed();
        // The guard has no more to do: it either resumed, or tried as often as it would again.
        self.running = true;
        resumed.map(|()| taken.map_err(|why| Stopped { at: self.at, why }))
    }

    /// Leaves every volume as it is, under the lease of holding.
    fn hold(&mut self) -> bool {
        for volume in &mut self.volumes {
            volume.capture.held = true;
        }
        true
    }

    /// Resumes every volume, also when one of them cannot be.
    fn resume(&mut self) -> Result<(), (usize, io::Error)> {
        let mut result = Ok(());
        for (at, volume) in self.volumes.iter_mut().enumerate() {
            if let Err(error) = volume.resume() {
                result = result.and(Err((at, error)));
            }
        }
        result
    }

    fn each(&mut self, mut step: impl FnMut(&mut Standing<'a>) -> Result<(), Stop>) -> Result<(), Stop> {
        for (at, volume) in self.volumes.iter_mut().enumerate() {
            self.at = at;
            step(volume)?;
        }
        Ok(())
    }

    /// Everything that happens in the pause but the resume.
    fn take(
        &mut self,
        request: &mut CutRequest<'_>,
        deadline: Instant,
        stats: &mut CutStats,
    ) -> Result<(), Stop> {
        let mut laps = Laps::new();
        match request.mode {
            CutMode::Suspend => self.each(Standing::suspend)?,
            CutMode::Quiesced => self.each(Standing::look_first)?,
        }
        stats.suspend = laps.lap();
        fault::at("after-suspend");
        in_time(deadline, "by draining")?;
        self.each(|volume| volume.capture.flush_log().map_err(|e| Stop::Void(VoidReason::Flush(e))))?;
        stats.flush = laps.lap();
        fault::at("after-flush");
        in_time(deadline, "by the flush")?;
        self.each(|volume| volume.send_mark(request.epoch))?;
        fault::at("after-mark");
        self.each(|volume| volume.read_log(deadline, stats))?;
        stats.log = laps.lap();
        self.each(|volume| volume.read_suspects(deadline, stats))?;
        stats.suspects = laps.lap();
        fault::at("after-suspects");
        if let Some(in_pause) = &mut request.in_pause {
            for (at, volume) in self.volumes.iter().enumerate() {
                in_pause(at, &volume.capture.era);
            }
            stats.caller = laps.lap();
        }
        if request.roll && request.mode == CutMode::Suspend {
            self.each(Standing::roll)?;
            stats.rolled = true;
            stats.caller += laps.lap();
        }
        self.each(Standing::verify)?;
        // Neither is worth a void cut: with no time left the next cut does it.
        let time_left = request.in_pause.is_some() || stats.rolled || Instant::now() < deadline;
        if time_left {
            self.each(|volume| volume.rotate_when_ready(stats))?;
        }
        stats.verify = laps.lap();
        if request.mode == CutMode::Suspend && time_left {
            // Each has its share of what a pause may take for discards.
            let share = u32::try_from(self.volumes.len()).unwrap_or(u32::MAX);
            self.each(|volume| volume.give_back(request.budget / share, stats))?;
            stats.discard = laps.lap();
        }
        fault::at("before-resume");
        Ok(())
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        if !self.running
            && let Err((at, e)) = self.resume()
        {
            log::error!("resuming {}: {e}", self.volumes[at].capture.stack.name);
        }
    }
}

impl Standing<'_> {
    fn resume(&mut self) -> io::Result<()> {
        let top = self.capture.stack.top;
        crate::pause::resume(&mut self.capture.control, top)
    }

    fn suspend(&mut self) -> Result<(), Stop> {
        let top = self.capture.stack.top;
        self.capture.control.suspend(top).map_err(|e| Stop::Void(VoidReason::Suspend(e)))?;
        fault::at("one-suspended");
        Ok(())
    }

    fn look_first(&mut self) -> Result<(), Stop> {
        self.before = Some(self.look("a write is under way")?);
        Ok(())
    }

    /// Looks at the counters; nothing may be in flight.
    fn look(&self, otherwise: &'static str) -> Result<Look, Stop> {
        match self.capture.stillness.look() {
            Ok(look) if look.in_flight == 0 => Ok(look),
            Ok(_) => Err(Stop::Void(VoidReason::NotQuiescent(otherwise))),
            Err(e) => Err(Stop::Void(VoidReason::Unproven(e))),
        }
    }

    fn send_mark(&mut self, epoch: u64) -> Result<(), Stop> {
        self.mark = Some(self.capture.mark("cut", epoch).map_err(LostReason::Status)?);
        Ok(())
    }

    /// Reads the log up to the mark.
    fn read_log(&mut self, deadline: Instant, stats: &mut CutStats) -> Result<(), Stop> {
        let Some(mark) = &self.mark else { return Ok(()) };
        let before = self.capture.epoch.entries.len();
        // More than memory was made ready for is read while the volume runs, and the cut comes later.
        let seen = self.capture.read_to(mark, deadline, PAUSE_BYTES as u64, Phase::Paused)?;
        stats.entries_in_pause += self.capture.epoch.entries.len() - before;
        match seen {
            Seen::Mark => Ok(()),
            Seen::Late => Err(Stop::Void(VoidReason::Budget("by the log"))),
            Seen::TooMuch => Err(Stop::Void(VoidReason::Behind)),
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
        stats.suspect_runs += epoch.suspects.len();
        stats.suspect_sectors += epoch.suspects.iter().map(|s| s.extent.len().0).sum::<u64>();
        pool.read(reads, &mut epoch.truth, deadline).map_err(|e| {
            Stop::Void(match e {
                PoolError::Io(e) => VoidReason::Suspects(e),
                PoolError::Late => VoidReason::Budget("by reading suspects"),
            })
        })
    }

    /// Ends the era. A write that is not durable yet could revert in a power cut and would not be shipped again.
    fn roll(&mut self) -> Result<(), Stop> {
        let mut era = self.capture.era_control();
        let rolled = era.flush().and_then(|()| era.message("checkpoint"));
        rolled.map_err(|e| Stop::Void(VoidReason::Roll(e)))
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
        stats.discards += issued.count;
        fault::at("discard-issued");
        self.verify()
    }

    fn rotate_when_ready(&mut self, stats: &mut CutStats) -> Result<(), Stop> {
        if self.rotate && self.capture.spare_ready {
            self.rotate()?;
            stats.rotations += 1;
        }
        Ok(())
    }

    /// The other log takes over. The volume stands still, so nothing is on its way to either.
    fn rotate(&mut self) -> Result<(), Stop> {
        let capture = &mut *self.capture;
        capture.spare_ready = false;
        let log = capture.log_number;
        let suspended = capture.control.suspend(log);
        fault::at("mid-rotation");
        // Also after a failed suspend: whatever state that left, the log device must run.
        if let Err(e) = crate::pause::resume(&mut capture.control, log) {
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
