//! The steps of a cut while the volumes of a group stand still.
//!
//! Always holds: each step is done for all volumes before the next one begins; nothing is allocated between the first
//! suspend and the last resume.

use std::io;
use std::time::{Duration, Instant};

use super::{CutMode, CutRequest, CutStats, VoidReason};
use crate::capture::{Capture, LostReason, Seen};
use crate::fault;
use crate::fold;
use crate::ioctl::DmControl;
use crate::log_writes::mark::Mark;
use crate::pause::helper::{Helper, Task};
use crate::pause::pool::PoolError;
use crate::pause::pulse::{Phase, Pulse};
use crate::pause::stillness::Stillness;
use crate::pause::{self, After, Failed, Layers, Moved, Pausable, Pause, SwapError};

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

impl From<Moved> for Stop {
    fn from(moved: Moved) -> Self {
        Self::Void(match moved {
            Moved::Resumed => VoidReason::Resumed,
            Moved::Unasked(e) => return LostReason::Status(e).into(),
            Moved::Written(what) => VoidReason::NotQuiescent(what),
            Moved::Uncounted(e) => VoidReason::Unproven(e),
        })
    }
}

/// The same, with the place of the volume that was being worked on.
pub(super) type Stopped = Failed<Stop>;

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
pub(super) struct Standing<'a> {
    pub(super) capture: &'a mut Capture,
    /// The other log is to take over.
    rotate: bool,
    mark: Option<Mark>,
}

impl Pausable for Standing<'_> {
    fn layers(&self) -> Layers {
        self.capture.layers()
    }

    fn control(&mut self) -> &mut DmControl {
        &mut self.capture.control
    }

    fn pulse(&self) -> &dyn Pulse {
        &*self.capture.pulse
    }

    fn stillness(&self) -> Option<&Stillness> {
        self.capture.stillness()
    }

    fn helper(&self) -> Option<&Helper> {
        self.capture.helper.as_ref()
    }
}

impl<'a> Standing<'a> {
    /// Makes ready what must not be made in the pause.
    pub(super) fn prepare(capture: &'a mut Capture, request: &CutRequest<'_>) -> Self {
        let rotate = request.mode == CutMode::Suspend
            && request.rotate_above.is_some_and(|limit| capture.log_usage().0 > limit);
        if rotate {
            capture.ready_spare();
        }
        Self { capture, rotate, mark: None }
    }
}

/// The pause of a cut, from the beat to the end. Within: whether the epochs ended.
///
/// # Errors
/// When a volume could not be resumed, and which.
pub(super) fn run(
    mut pause: Pause<Standing<'_>>,
    request: &mut CutRequest<'_>,
    stats: &mut CutStats,
) -> Result<Result<(), Stopped>, Failed<io::Error>> {
    // Whatever becomes of this cut, what it does in the end is resume.
    for volume in pause.volumes() {
        volume.capture.held = false;
    }
    let taken = take(&mut pause, request, stats);
    let mut laps = Laps::new();
    let is_held = request.hold && taken.is_ok();
    for volume in pause.volumes() {
        volume.capture.held = is_held;
    }
    let lasted = pause.end(if is_held { After::Hold } else { After::Resume(Phase::Capturing) })?;
    stats.resume = laps.lap();
    stats.pause = lasted;
    Ok(taken)
}

/// Everything that happens in the pause but its end.
fn take(
    pause: &mut Pause<Standing<'_>>,
    request: &mut CutRequest<'_>,
    stats: &mut CutStats,
) -> Result<(), Stopped> {
    let deadline = pause.began() + request.budget;
    let in_time = |stage| in_time(deadline, stage).map_err(|why| Failed { at: 0, why });
    let mut laps = Laps::new();
    match request.mode {
        CutMode::Suspend => {
            pause.suspend().map_err(|failed| failed.map(|e| Stop::Void(VoidReason::Suspend(e))))?;
        }
        CutMode::Quiesced => pause.trust_counters().map_err(|failed| failed.map(Stop::from))?,
    }
    stats.suspend = laps.lap();
    fault::at("after-suspend");
    in_time("by draining")?;
    let flushed = pause.at_once(|_| Task::Flush, "one-flushed", |volume| volume.capture.flush_log());
    flushed.map_err(|failed| failed.map(|e| Stop::Void(VoidReason::Flush(e))))?;
    stats.flush = laps.lap();
    fault::at("after-flush");
    in_time("by the flush")?;
    pause.each(|volume| volume.send_mark(request.epoch))?;
    fault::at("after-mark");
    pause.each(|volume| volume.read_log(deadline, stats))?;
    stats.log = laps.lap();
    pause.each(|volume| volume.read_suspects(deadline, stats))?;
    stats.suspects = laps.lap();
    fault::at("after-suspects");
    if let Some(in_pause) = &mut request.in_pause {
        for (at, volume) in pause.volumes().iter().enumerate() {
            in_pause(at, &volume.capture.era);
        }
        stats.caller = laps.lap();
    }
    if request.roll && request.mode == CutMode::Suspend {
        pause.each(Standing::roll)?;
        stats.rolled = true;
        stats.caller += laps.lap();
    }
    verify(pause)?;
    // Neither is worth a void cut: with no time left the next cut does it.
    let time_left = request.in_pause.is_some() || stats.rolled || Instant::now() < deadline;
    if time_left {
        pause.each(|volume| volume.rotate_when_ready(stats))?;
    }
    stats.verify = laps.lap();
    if request.mode == CutMode::Suspend && time_left {
        give_back(pause, request.budget, stats)?;
        stats.discard = laps.lap();
    }
    fault::at("before-resume");
    Ok(())
}

/// Every log is on and has nothing behind its mark, and then: every volume has stood still until now.
fn verify(pause: &mut Pause<Standing<'_>>) -> Result<(), Stopped> {
    pause.each(Standing::verify_log)?;
    pause.is_still().map_err(|failed| failed.map(Stop::from))
}

/// Gives some of what the guest has discarded to the volumes, between two checks: see [`crate::discard`].
fn give_back(pause: &mut Pause<Standing<'_>>, budget: Duration, stats: &mut CutStats) -> Result<(), Stopped> {
    // Each has its share of what a pause may take for discards.
    let share = budget / u32::try_from(pause.volumes().len()).unwrap_or(u32::MAX);
    let has_some = |volume: &Standing<'_>| volume.capture.ledger.slice(share).is_some();
    if !pause.volumes().iter().any(has_some) {
        return Ok(());
    }
    verify(pause)?;
    fault::at("discard-verified");
    pause.each(|volume| {
        volume.give_back(share, stats);
        Ok(())
    })?;
    fault::at("discard-issued");
    verify(pause)
}

impl Standing<'_> {
    fn send_mark(&mut self, epoch: u64) -> Result<(), Stop> {
        self.mark = Some(self.capture.mark("cut", epoch).map_err(LostReason::Status)?);
        Ok(())
    }

    /// Reads the log up to the mark.
    fn read_log(&mut self, deadline: Instant, stats: &mut CutStats) -> Result<(), Stop> {
        let Some(mark) = &self.mark else { return Ok(()) };
        let before = self.capture.epoch.entries.len();
        // Headers are enough to find suspects: the data is fetched while the volume runs again.
        let seen = self.capture.read_to(mark, deadline, Phase::Paused)?;
        stats.entries_in_pause += self.capture.epoch.entries.len() - before;
        match seen {
            Seen::Mark => Ok(()),
            Seen::Late => Err(Stop::Void(VoidReason::Budget("by the log"))),
            Seen::TooMuch => Err(Stop::Void(VoidReason::Behind)),
        }
    }

    fn read_suspects(&mut self, deadline: Instant, stats: &mut CutStats) -> Result<(), Stop> {
        let Capture { epoch, plan, pool, .. } = &mut *self.capture;
        let known = epoch.number();
        fold::sort(&epoch.entries, &mut epoch.order[known..]);
        plan.make(epoch, known);
        stats.suspects_in_pause += plan.size();
        let before = epoch.truth.len();
        if let Err(e) = pool.read(&plan.reads, &mut epoch.truth, deadline) {
            epoch.truth.truncate(before);
            return Err(Stop::Void(match e {
                PoolError::Io(e) => VoidReason::Suspects(e),
                PoolError::Late => VoidReason::Budget("by reading suspects"),
            }));
        }
        plan.done(epoch);
        stats.suspect_runs += epoch.suspects.len();
        stats.suspect_sectors += epoch.suspects.iter().map(|s| s.extent.len().0).sum::<u64>();
        Ok(())
    }

    /// Ends the era. A write that is not durable yet could revert in a power cut and would not be shipped again.
    fn roll(&mut self) -> Result<(), Stop> {
        let mut era = self.capture.era_control();
        let rolled = era.flush().and_then(|()| era.message("checkpoint"));
        rolled.map_err(|e| Stop::Void(VoidReason::Roll(e)))
    }

    /// The log is on and has nothing behind the mark.
    fn verify_log(&mut self) -> Result<(), Stop> {
        let status = self.capture.ask()?;
        if status.entries != self.capture.reader.entries() {
            return Err(Stop::Void(VoidReason::Resumed));
        }
        Ok(())
    }

    fn give_back(&mut self, share: Duration, stats: &mut CutStats) {
        let capture = &mut *self.capture;
        let Some(slice) = capture.ledger.slice(share) else { return };
        capture.ledger.note(&capture.epoch.entries);
        let issued = capture.ledger.issue(&mut capture.pool, Instant::now() + slice, &*capture.pulse);
        stats.discards += issued.count;
    }

    fn rotate_when_ready(&mut self, stats: &mut CutStats) -> Result<(), Stop> {
        if self.rotate && self.capture.spare_ready {
            self.rotate()?;
            stats.rotations += 1;
        }
        Ok(())
    }

    /// The other log takes over. The volume stands still, so nothing is on its way to either. The kernel sets the log
    /// device's limits up again, and they are left so: nothing asks them but a table that is loaded over the log, and the
    /// visible device keeps its own for as long as the capture lasts.
    fn rotate(&mut self) -> Result<(), Stop> {
        let capture = &mut *self.capture;
        capture.spare_ready = false;
        let log = capture.log_number;
        match pause::swap_table(&mut capture.control, log) {
            Ok(()) => {}
            Err(SwapError::NotDrained(e)) => return Err(LostReason::Rotation(e).into()),
            Err(SwapError::NotResumed(e)) => {
                self.leave_log();
                return Err(LostReason::Rotation(e).into());
            }
        }
        capture.change_log();
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
