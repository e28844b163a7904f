//! The cut thread: starts and ends the capture and makes the cuts, one job at a time.
//!
//! Always holds: the thread ends its capture before it ends itself, whatever the reason; after a lost
//! capture the volume is back on tracking only; a digest for audits is on its file before the epoch is
//! handed over.

pub(super) mod audit;
mod cutting;
mod handover;
pub(super) mod heartbeat;
pub(super) mod jobs;
mod leftovers;
pub(super) mod rounds;
mod sizes;
mod still_round;
mod unshut;

use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context;
use ftdm::capture::memory::CaptureMemory;
use ftdm::capture::ram_disks::LogPair;
use ftdm::capture::{AtSwitch, Capture, Followed, LostReason};
use ftdm::cut::{CutError, CutMode};
use ftdm::discard::DiscardFigures;
use ftdm::ioctl::{Urgency, set_urgency};
use ftdm::log_writes::epoch_log::EpochLog;
use ftdm::pause::pulse::{Phase, Pulse, shared};
use ftdm::stack::era_device::EraControl;
use ftdm::stack::{Bypassed, Held, Stack};
use ftdm_units::{Era, Sectors};
use ftship_proto::primary::{CutOrder, CutResult};
use ftship_proto::scope::bytes_of;

use crate::runtime::reactor::Reports;
use crate::runtime::wake::LoopWaker;
use crate::runtime::worker::Worker;
use heartbeat::Heartbeat;
use jobs::{CaptureSettings, Cargo, CutJob, CutReport, LogUse};
use leftovers::Leftovers;
use rounds::Rolled;
use unshut::Unshut;

/// The watchdog hears from this thread, and the log is followed, at least so often.
const BEAT_INTERVAL: Duration = Duration::from_millis(100);

/// The same where writes are held back before the log overflows: how often it is looked at.
const ROOM_INTERVAL: Duration = Duration::from_millis(10);
/// How often dm-era is asked whether it still tracks.
const HISTORY_INTERVAL: Duration = Duration::from_secs(1);

/// The cut thread. Dropping it ends the capture, and waits for that.
#[derive(Debug)]
pub(super) struct CutThread {
    worker: Worker<CutJob>,
    pub(super) reports: Receiver<CutReport>,
}

impl CutThread {
    /// Starts the thread on stacks, at least one, that are not captured.
    ///
    /// # Errors
    /// When the thread cannot be started or the audit file not be opened.
    pub(super) fn start(
        stacks: Vec<Stack>,
        settings: CaptureSettings,
        heartbeat: Heartbeat,
        waker: &Arc<LoopWaker>,
    ) -> anyhow::Result<Self> {
        let (reports, received) = Reports::channel(waker);
        let audit = settings.digest_file.as_ref().map(|path| {
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("{}", path.display()))
        });
        let memories = stacks.iter().map(|_| CaptureMemory::default()).collect();
        let mut capturing = Capturing {
            stacks,
            settings,
            heartbeat: Arc::new(heartbeat),
            lease_ends: None,
            hold_ends: None,
            frozen: None,
            captures: Vec::new(),
            memories,
            audit: audit.transpose()?,
            discards: DiscardFigures::default(),
            looked: Instant::now(),
            leftovers: Leftovers::none(),
            unshut: Unshut::none(),
            bypassed: Vec::new(),
        };
        let worker = Worker::start("cut", 512 << 10, move |queue: Receiver<CutJob>| {
            if let Err(error) =
                set_urgency(Urgency::RealTime(1)).and_then(|()| set_urgency(Urgency::Ordinary))
            {
                log::warn!("cuts get no real-time priority, so the VM's pauses depend on the load: {error}");
            }
            capturing.heartbeat.ensure();
            let mut followed = Instant::now();
            loop {
                match queue.recv_timeout(capturing.interval()) {
                    Ok(job) => {
                        followed = Instant::now();
                        capturing.perform(job, &reports);
                    }
                    // However long an epoch is, or whatever keeps the one who orders the cuts: what
                    // was written leaves the kernel's memory, and a full log is noticed.
                    Err(RecvTimeoutError::Timeout) if followed.elapsed() >= BEAT_INTERVAL => {
                        followed = Instant::now();
                        capturing.perform(CutJob::Watch, &reports);
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                capturing.watch_hold(&reports);
                capturing.watch_room(&reports);
                capturing.watch_history(&reports);
                capturing.watch_leftovers();
                if let Some(report) = capturing.shut_later() {
                    reports.send(report.into());
                }
                capturing.beat();
            }
            capturing.end_capture();
            if capturing.unshut.is_empty() {
                capturing.heartbeat.goodbye();
            } else {
                // Without a goodbye the watchdog takes this for a death, and shuts them.
                capturing.beat();
            }
        })?;
        Ok(Self { worker, reports: received })
    }

    /// Queues a job.
    pub(super) fn push(&self, job: CutJob) {
        self.worker.push(job);
    }
}

pub(super) struct Capturing {
    pub(super) stacks: Vec<Stack>,
    pub(super) settings: CaptureSettings,
    pub(super) heartbeat: Arc<Heartbeat>,
    /// Until when writes may be held back.
    lease_ends: Option<Instant>,
    /// Until when writes may be held back behind a cut that holds, or without a capture.
    pub(super) hold_ends: Option<Instant>,
    /// Those that are held back without a capture.
    pub(super) frozen: Option<Held>,
    /// None, or one of each stack.
    pub(super) captures: Vec<Capture>,
    /// What the captures before left, of each stack.
    memories: Vec<CaptureMemory>,
    pub(super) audit: Option<File>,
    /// Figures of the captures that have ended.
    discards: DiscardFigures,
    /// When dm-era was asked last.
    looked: Instant,
    /// What captures left behind that could not be ended.
    leftovers: Leftovers,
    /// Volumes that were given up and could not be shut.
    unshut: Unshut,
    /// The volumes whose dm-era failed and is gone.
    bypassed: Vec<Bypassed>,
}

/// Whether log-writes has switched itself off.
fn is_log_off(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let lost = match cause.downcast_ref() {
            Some(CutError::CaptureLost { reason, .. }) => Some(reason),
            _ => cause.downcast_ref::<LostReason>(),
        };
        matches!(lost, Some(LostReason::LogOff))
    })
}

impl Capturing {
    /// Tells the watchdog that this thread goes on; finds another one where the last is gone.
    fn beat(&self) {
        let is_in = |phase| self.captures.iter().any(|capture| capture.phase() == phase);
        let phase = match () {
            () if !self.unshut.is_empty() => Phase::Yielding,
            () if self.frozen.is_some() => Phase::Renewed,
            () if self.captures.is_empty() && self.leftovers.is_empty() => Phase::Tracking,
            () if self.yields() => Phase::Yielding,
            // This thread ends it by itself.
            () if self.hold_ends.is_some() => Phase::Renewed,
            () if is_in(Phase::Held) => Phase::Held,
            () => Phase::Capturing,
        };
        if !self.heartbeat.beat(phase) {
            self.heartbeat.ensure();
        }
    }

    /// Longest wait for a job.
    fn interval(&self) -> Duration {
        if self.settings.hold.is_some() && !self.captures.is_empty() { ROOM_INTERVAL } else { BEAT_INTERVAL }
    }

    /// Where writes are to wait for room rather than degrade: makes them wait, and ends that when the lease
    /// has run out.
    fn watch_room(&mut self, reports: &Reports<CutReport>) {
        let Some((_, lease)) = self.settings.hold else { return };
        if self.captures.is_empty() || self.hold_ends.is_some() {
            return;
        }
        let held = self
            .captures
            .iter_mut()
            .try_fold(false, |held, capture| Ok::<_, LostReason>(capture.hold_when_full()? || held));
        match (held, self.lease_ends) {
            (Ok(false), _) => self.lease_ends = None,
            (Ok(true), None) => {
                self.lease_ends = Some(Instant::now() + lease);
                reports.send(CutReport::Throttled);
            }
            (Ok(true), Some(end)) if Instant::now() < end => {}
            (Ok(true), Some(_)) => {
                let error =
                    anyhow::anyhow!("writes waited for room, and the backup made no progress for {lease:?}");
                self.give_up(&error, reports);
            }
            (Err(error), _) => self.give_up(&error.into(), reports),
        }
    }

    /// Looks whether a dm-era's metadata fails, or is about to: then that volume goes on without it rather than
    /// fail the guest's writes, and the group is not replicated any more.
    fn watch_history(&mut self, reports: &Reports<CutReport>) {
        if self.looked.elapsed() < HISTORY_INTERVAL {
            return;
        }
        self.looked = Instant::now();
        for bypassed in &mut self.bypassed {
            if let Err(error) = bypassed.mark() {
                log::debug!("the metadata: {error}");
            }
        }
        for at in 0..self.stacks.len() {
            let stack = &self.stacks[at];
            match stack.failing_history() {
                Ok(None) => {}
                Ok(Some(reason)) => self.bypass(at, reason, reports),
                Err(error) => log::warn!("the metadata of {}: {error}", stack.name()),
            }
        }
    }

    fn bypass(&mut self, at: usize, reason: String, reports: &Reports<CutReport>) {
        self.end_capture();
        let stack = &mut self.stacks[at];
        log::error!("{}: {reason}: the volume goes on without dm-era, tracking is lost", stack.name());
        match stack.bypass(&*self.heartbeat) {
            Ok(bypassed) => {
                self.bypassed.push(bypassed);
                reports.send(CutReport::Result(CutResult::Lost { reason }, Cargo::TrackingLost));
            }
            Err(error) => log::error!("{}: {error}", stack.name()),
        }
    }

    fn renew(&mut self) {
        if let Some((_, lease)) = self.settings.hold
            && self.captures.iter().any(|capture| capture.phase() == Phase::Held)
        {
            self.lease_ends = Some(Instant::now() + lease);
            self.heartbeat.beat(Phase::Renewed);
        }
    }

    pub(super) fn give_up(&mut self, error: &anyhow::Error, reports: &Reports<CutReport>) {
        let reason = format!("{error:#}");
        log::error!("capture: {reason}");
        if !self.yields() {
            self.end_capture();
            let result = match is_log_off(error) {
                true => CutResult::LogOff { reason },
                false => CutResult::Lost { reason },
            };
            return reports.send(result.into());
        }
        if let Some(report) = self.shut() {
            reports.send(report.into());
        }
    }

    fn perform(&mut self, job: CutJob, reports: &Reports<CutReport>) {
        let is_follow = matches!(job, CutJob::Ordered(CutOrder::Follow));
        let result = match job {
            CutJob::Ordered(order) => self.obey(order),
            CutJob::Quiesced(cut) => self.cut(cut, CutMode::Quiesced),
            CutJob::Watch => self.follow().map(|()| None),
            CutJob::Throttle => {
                self.throttle();
                Ok(None)
            }
            CutJob::Renew => {
                self.renew();
                Ok(None)
            }
            CutJob::Recycle(logs) => {
                self.recycle(logs);
                Ok(None)
            }
        };
        match result {
            Ok(Some(report)) => reports.send(report),
            Ok(None) => {}
            Err(error) => self.give_up(&error, reports),
        }
        if is_follow {
            reports.send(CutResult::Followed.into());
        }
        if !self.captures.is_empty() {
            let logs = self.captures.iter().map(Capture::log_usage);
            let logs: Vec<_> = logs.map(|(used, capacity)| LogUse { used, capacity }).collect();
            let LogUse { used, capacity } = LogUse::fullest(&logs);
            let cargo = Cargo::LogUse(logs, self.discard_figures());
            reports.send(CutReport::Result(CutResult::LogUse { used, capacity }, cargo));
        }
    }

    /// Carries out an order. A follow is reported by the caller, also if it failed.
    fn obey(&mut self, order: CutOrder) -> anyhow::Result<Option<CutReport>> {
        let result = match order {
            CutOrder::Roll { attempt, since } => return Ok(Some(self.roll(attempt, since.as_deref()))),
            CutOrder::Still { attempt, since, epoch, budget } => {
                return Ok(Some(self.still_round(attempt, &since, epoch, budget)));
            }
            CutOrder::Start { since } => return self.begin(&since).map(Some),
            CutOrder::Cut(cut) => return self.cut(cut, CutMode::Suspend),
            CutOrder::Try { attempt } => {
                let result = self.try_capture().map_err(|error| format!("{error:#}"));
                Some(CutResult::Tried { attempt, result })
            }
            CutOrder::Hold { lease } => Some(self.freeze(lease)),
            CutOrder::Yield => self.yield_up()?,
            CutOrder::Release => Some(self.release("as asked")?),
            CutOrder::Shut => self.shut(),
            CutOrder::Follow => {
                self.follow()?;
                None
            }
            CutOrder::Enlarge { sizes } => Some(self.enlarge(&sizes)),
            CutOrder::Show { sizes } => Some(self.show(&sizes)),
            CutOrder::Stop => {
                self.end_capture();
                Some(CutResult::Stopped)
            }
        };
        Ok(result.map(CutReport::from))
    }

    /// The buffers of an epoch are free again.
    fn recycle(&mut self, logs: Vec<EpochLog>) {
        if self.captures.is_empty() {
            self.memories.iter_mut().zip(logs).for_each(|(memory, log)| memory.keep(log));
        } else {
            self.captures.iter_mut().zip(logs).for_each(|(capture, log)| capture.recycle(log));
        }
    }

    fn roll(&mut self, attempt: u32, since: Option<&[Era]>) -> CutReport {
        // Before anything is copied for a capture that could not begin.
        if let Err(reason) = self.clear_leftovers() {
            return CutResult::RollFailed { attempt, reason, tracking_lost: false }.into();
        }
        match rounds::roll(&self.stacks, since, &*self.heartbeat) {
            Ok(Rolled { eras, scope }) => {
                let bytes = bytes_of(&scope);
                CutReport::Result(CutResult::Rolled { attempt, eras, bytes }, Cargo::Scope(scope))
            }
            Err((stack, error)) => {
                let (reason, tracking_lost) = (format!("volume {stack}: {error}"), error.tracking_lost());
                CutResult::RollFailed { attempt, reason, tracking_lost }.into()
            }
        }
    }

    /// Begins to capture one volume after the other: not at one instant, which only a cut is.
    fn begin(&mut self, since: &[Era]) -> anyhow::Result<CutReport> {
        self.end_capture();
        for (stack, since) in self.stacks.iter().zip(since) {
            stack.ready_to_roll(*since).with_context(|| format!("volume {}", stack.name()))?;
        }
        self.start_captures(true)?;
        let Rolled { eras, scope } = rounds::written_before(&mut self.captures, since, &*self.heartbeat)?;
        let bytes = bytes_of(&scope);
        Ok(CutReport::Result(CutResult::Started { eras, bytes }, Cargo::Scope(scope)))
    }

    /// Captures for a moment, in the same way as for good, but that no era ends.
    fn try_capture(&mut self) -> anyhow::Result<()> {
        self.end_capture();
        let tried = self.start_captures(false).and_then(|()| self.follow());
        self.end_capture();
        tried
    }

    /// `rolls`: in the pause of each switch the era ends, and what it noted is kept to be read.
    fn start_captures(&mut self, rolls: bool) -> anyhow::Result<()> {
        self.clear_leftovers().map_err(anyhow::Error::msg)?;
        let pulse = Arc::clone(&self.heartbeat) as Arc<dyn Pulse>;
        let pulses = shared(&pulse, self.stacks.len());
        let logs = match &self.settings.logs {
            Some(named) => named.iter().map(|[a, b]| LogPair::open(a, b)).collect::<Result<_, _>>()?,
            None => LogPair::free(&self.stacks, self.settings.log_size)?,
        };
        let memories = self.memories.iter_mut().map(std::mem::take);
        let volumes = self.stacks.iter().zip(logs).zip(pulses).zip(memories);
        for (at, (((stack, logs), pulse), memory)) in volumes.enumerate() {
            let mut take = |era: &mut EraControl<'_>| era.take_snapshot();
            let at_switch: Option<AtSwitch<'_>> = if rolls { Some(&mut take) } else { None };
            let begun = Capture::start(stack, logs, memory, at_switch, pulse);
            if begun.is_err() {
                self.leftovers.add(at);
            }
            self.captures.push(begun.with_context(|| format!("volume {}", stack.name()))?);
        }
        Ok(())
    }

    /// Not before the pair is in sync: while a sync copies nothing waits for it.
    fn throttle(&mut self) {
        if let Some((percent, _)) = self.settings.hold {
            self.captures.iter_mut().for_each(|capture| capture.hold_above(percent));
        }
    }

    fn follow(&mut self) -> anyhow::Result<()> {
        for capture in &mut self.captures {
            let followed = capture.follow().with_context(|| format!("volume {}", capture.stack().name()))?;
            if let Followed::FlushFailed(error) = followed {
                log::warn!("flushing {}: {error}", capture.stack().name());
            }
        }
        Ok(())
    }

    /// Ends the capture of every volume, also where one of them fails. Volumes that are being given up are shut.
    pub(super) fn end_capture(&mut self) {
        if self.yields() {
            self.shut();
            return;
        }
        self.hold_ends = None;
        self.frozen = None;
        self.discards = DiscardFigures { pending: Sectors(0), ..self.discard_figures() };
        let captures = std::mem::take(&mut self.captures).into_iter().zip(&mut self.memories);
        for (at, (capture, left)) in captures.enumerate() {
            let name = capture.stack().name().clone();
            match capture.stop() {
                Ok((_, memory)) => *left = memory,
                Err(error) => {
                    log::error!("ending the capture of {name}, which is tried again: {error}");
                    self.leftovers.add(at);
                }
            }
        }
    }

    /// Of all volumes, with those of the captures before.
    fn discard_figures(&self) -> DiscardFigures {
        self.captures.iter().map(Capture::discards).fold(self.discards, |sum, now| DiscardFigures {
            pending: Sectors(sum.pending.0 + now.pending.0),
            given: Sectors(sum.given.0 + now.given.0),
            forgotten: Sectors(sum.forgotten.0 + now.forgotten.0),
        })
    }
}
