//! The cut thread: starts and ends the capture and makes the cuts, one job at a time.
//!
//! Always holds: the thread ends its capture before it ends itself, whatever the reason; after a lost
//! capture the volume is back on tracking only; a digest for audits is on its file before the epoch is
//! handed over.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use ftdm::block_io::AlignedBuffer;
use ftdm::capture::{Capture, EraReader, Followed};
use ftdm::cut::{CutMode, CutOutcome, CutRequest, CutStats};
use ftdm::discard::DiscardFigures;
use ftdm::ioctl::{Urgency, set_urgency};
use ftdm::log_device::LogPair;
use ftdm::log_writes::epoch_log::EpochLog;
use ftdm::pulse::{Phase, Pulse};
use ftdm::stack::{Bypassed, Stack};
use ftdm_units::{Extent, Sector, Sectors};
use ftship_proto::ids::{Digest, Epoch};
use sha2::{Digest as _, Sha256};

use super::heartbeat::Heartbeat;
use crate::reactor::Reports;

/// The watchdog hears from this thread, and the log is followed, at least so often.
const BEAT_INTERVAL: Duration = Duration::from_millis(100);

/// The same where writes are held back before the log overflows: how often it is looked at.
const ROOM_INTERVAL: Duration = Duration::from_millis(10);
/// How often dm-era is asked whether it still tracks.
const HISTORY_INTERVAL: Duration = Duration::from_secs(1);

/// What the cut thread is asked to do.
#[derive(Debug)]
pub(super) enum CaptureJob {
    /// Capture from now on.
    Start,
    /// End the epoch.
    Cut {
        /// Its number.
        epoch: Epoch,
        /// Whether the volume is suspended, or still by itself.
        mode: CutMode,
        /// How long it may stand still.
        budget: Duration,
    },
    /// Keep up with the log.
    Follow,
    /// Track only.
    Stop,
    /// The backup makes progress: writes that are held back may be so for longer.
    Renew,
    /// The buffers of a captured epoch are free again.
    Recycle(EpochLog),
}

/// What it reports.
#[derive(Debug)]
pub(super) enum CaptureReport {
    /// Capturing.
    Started,
    /// The epoch has ended.
    Taken {
        /// What was captured.
        log: EpochLog,
        /// Figures.
        stats: Box<CutStats>,
    },
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
    /// dm-era's metadata fails: the volume goes on without it, and nothing is tracked any more.
    TrackingLost {
        /// Why.
        reason: String,
    },
    /// Tracking only, as asked.
    Stopped,
    /// Writes are held back until the next cut.
    Held,
    /// How full the log is.
    LogUse {
        /// Bytes used.
        used: u64,
        /// Bytes in all.
        capacity: u64,
        /// The guest's discards.
        discards: DiscardFigures,
    },
}

/// What the cut thread needs to know.
#[derive(Debug)]
pub(super) struct CaptureSettings {
    /// The two RAM disks; `None`: two free ones of `log_size`.
    pub(super) logs: Option<[PathBuf; 2]>,
    /// What a log has to have, where none are named.
    pub(super) log_size: Sectors,
    /// Log use, in percent, beyond which a cut exchanges the log.
    pub(super) rotate_at: u8,
    /// Log use, in percent, beyond which writes are held back, and for how long at most without a
    /// [`CaptureJob::Renew`].
    pub(super) hold: Option<(u8, Duration)>,
    /// File for audit digests.
    pub(super) digest_file: Option<PathBuf>,
}

/// The cut thread.
#[derive(Debug)]
pub(super) struct CutThread {
    jobs: Option<Sender<CaptureJob>>,
    thread: Option<JoinHandle<()>>,
}

impl CutThread {
    /// Starts the thread on a stack that is not captured.
    ///
    /// # Errors
    /// When the thread cannot be started or the audit file not be opened.
    pub(super) fn start(
        stack: Stack,
        settings: CaptureSettings,
        heartbeat: Heartbeat,
        reports: Reports<CaptureReport>,
    ) -> anyhow::Result<Self> {
        let audit = settings.digest_file.as_ref().map(|path| {
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("{}", path.display()))
        });
        let mut worker = Worker {
            stack,
            settings,
            heartbeat: Arc::new(heartbeat),
            lease_ends: None,
            capture: None,
            audit: audit.transpose()?,
            discards: DiscardFigures::default(),
            looked: Instant::now(),
            bypassed: None,
        };
        let (jobs, queue) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("cut".into())
            .stack_size(512 << 10)
            .spawn(move || {
                if let Err(error) =
                    set_urgency(Urgency::RealTime(1)).and_then(|()| set_urgency(Urgency::Ordinary))
                {
                    log::warn!(
                        "cuts get no real-time priority, so the VM's pauses depend on the load: {error}"
                    );
                }
                worker.heartbeat.ensure();
                let mut followed = Instant::now();
                loop {
                    match queue.recv_timeout(worker.interval()) {
                        Ok(job) => {
                            followed = Instant::now();
                            worker.perform(job, &reports);
                        }
                        // However long an epoch is, or whatever keeps the one who orders the cuts: what
                        // was written leaves the kernel's memory, and a full log is noticed.
                        Err(RecvTimeoutError::Timeout) if followed.elapsed() >= BEAT_INTERVAL => {
                            followed = Instant::now();
                            worker.perform(CaptureJob::Follow, &reports);
                        }
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => break,
                    }
                    worker.watch_room(&reports);
                    worker.watch_history(&reports);
                    worker.beat();
                }
                worker.end_capture();
                worker.heartbeat.goodbye();
            })
            .context("starting the cut thread")?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Queues a job.
    pub(super) fn push(&self, job: CaptureJob) {
        if let Some(jobs) = &self.jobs
            && jobs.send(job).is_err()
        {
            log::error!("the cut thread has ended; it must have panicked");
        }
    }
}

impl Drop for CutThread {
    /// Ends the capture, and waits for that.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the cut thread had panicked");
        }
    }
}

struct Worker {
    stack: Stack,
    settings: CaptureSettings,
    heartbeat: Arc<Heartbeat>,
    /// Until when writes may be held back.
    lease_ends: Option<Instant>,
    capture: Option<Capture>,
    audit: Option<File>,
    /// Figures of the captures that have ended.
    discards: DiscardFigures,
    /// When dm-era was asked last.
    looked: Instant,
    /// dm-era failed and is gone.
    bypassed: Option<Bypassed>,
}

impl Worker {
    /// Tells the watchdog that this thread goes on; finds another one where the last is gone.
    fn beat(&self) {
        let phase = self.capture.as_ref().map_or(Phase::Tracking, Capture::phase);
        if !self.heartbeat.beat(phase) {
            self.heartbeat.ensure();
        }
    }

    /// Longest wait for a job.
    fn interval(&self) -> Duration {
        if self.settings.hold.is_some() && self.capture.is_some() { ROOM_INTERVAL } else { BEAT_INTERVAL }
    }

    /// Where writes are to wait for room rather than degrade: makes them wait, and ends that when the lease
    /// has run out.
    fn watch_room(&mut self, reports: &Reports<CaptureReport>) {
        let (Some((_, lease)), Some(capture)) = (self.settings.hold, &mut self.capture) else { return };
        match (capture.hold_when_full(), self.lease_ends) {
            (Ok(false), _) => self.lease_ends = None,
            (Ok(true), None) => {
                self.lease_ends = Some(Instant::now() + lease);
                reports.send(CaptureReport::Held);
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

    /// Looks whether dm-era's metadata fails, or is about to: then the volume goes on without it rather than
    /// fail the guest's writes.
    fn watch_history(&mut self, reports: &Reports<CaptureReport>) {
        if self.looked.elapsed() < HISTORY_INTERVAL {
            return;
        }
        self.looked = Instant::now();
        if let Some(bypassed) = &mut self.bypassed
            && let Err(error) = bypassed.mark()
        {
            return log::debug!("the metadata of {}: {error}", self.stack.name());
        }
        let reason = match self.stack.failing_history() {
            Ok(None) => return,
            Ok(Some(reason)) => reason,
            Err(error) => return log::warn!("the metadata of {}: {error}", self.stack.name()),
        };
        log::error!("{}: {reason}: the volume goes on without dm-era, tracking is lost", self.stack.name());
        self.end_capture();
        match self.stack.bypass(&*self.heartbeat) {
            Ok(bypassed) => {
                self.bypassed = Some(bypassed);
                reports.send(CaptureReport::TrackingLost { reason });
            }
            Err(error) => log::error!("{}: {error}", self.stack.name()),
        }
    }

    fn renew(&mut self) -> anyhow::Result<Option<CaptureReport>> {
        if let (Some((_, lease)), Some(capture)) = (self.settings.hold, &self.capture)
            && capture.phase() == Phase::Held
        {
            self.lease_ends = Some(Instant::now() + lease);
            self.heartbeat.beat(Phase::Renewed);
        }
        Ok(None)
    }

    fn give_up(&mut self, error: &anyhow::Error, reports: &Reports<CaptureReport>) {
        let reason = format!("{error:#}");
        log::error!("capture of {}: {reason}", self.stack.name());
        self.end_capture();
        reports.send(CaptureReport::Lost { reason });
    }

    fn perform(&mut self, job: CaptureJob, reports: &Reports<CaptureReport>) {
        let result = match job {
            CaptureJob::Start => self.begin().map(|()| Some(CaptureReport::Started)),
            CaptureJob::Cut { epoch, mode, budget } => self.cut(epoch, mode, budget),
            CaptureJob::Renew => self.renew(),
            CaptureJob::Follow => self.follow(),
            CaptureJob::Stop => {
                self.end_capture();
                Ok(Some(CaptureReport::Stopped))
            }
            CaptureJob::Recycle(log) => {
                if let Some(capture) = &mut self.capture {
                    capture.recycle(log);
                }
                Ok(None)
            }
        };
        match result {
            Ok(Some(report)) => reports.send(report),
            Ok(None) => {}
            Err(error) => self.give_up(&error, reports),
        }
        if let Some(capture) = &self.capture {
            let (used, capacity) = capture.log_usage();
            reports.send(CaptureReport::LogUse { used, capacity, discards: self.discards_of(capture) });
        }
    }

    fn begin(&mut self) -> anyhow::Result<()> {
        self.end_capture();
        let logs = match &self.settings.logs {
            Some([first, second]) => LogPair::open(first, second)?,
            None => LogPair::free(self.settings.log_size)?,
        };
        let pulse = Arc::clone(&self.heartbeat) as Arc<dyn Pulse>;
        let mut capture = Capture::start(&self.stack, logs, None, pulse)?;
        if let Some((percent, _)) = self.settings.hold {
            capture.hold_above(percent);
        }
        self.capture = Some(capture);
        Ok(())
    }

    fn follow(&mut self) -> anyhow::Result<Option<CaptureReport>> {
        if let Some(capture) = &mut self.capture
            && let Followed::FlushFailed(error) = capture.follow()?
        {
            log::warn!("flushing {}: {error}", self.stack.name());
        }
        Ok(None)
    }

    fn cut(
        &mut self,
        epoch: Epoch,
        mode: CutMode,
        budget: Duration,
    ) -> anyhow::Result<Option<CaptureReport>> {
        let Some(capture) = &mut self.capture else {
            return Ok(Some(CaptureReport::Void { reason: "not capturing".into() }));
        };
        let mut digest = None;
        let pulse = &*self.heartbeat;
        let mut audit = |reader: &EraReader| digest = Some(volume_digest(reader, pulse));
        let request = CutRequest {
            mode,
            epoch: epoch.0,
            budget,
            rotate_above: Some(capture.log_usage().1 / 100 * u64::from(self.settings.rotate_at)),
            in_pause: if self.audit.is_some() { Some(&mut audit) } else { None },
        };
        match capture.cut(request)? {
            CutOutcome::Taken { log, stats } => {
                if let (Some(file), Some(digest)) = (&mut self.audit, digest) {
                    let digest = digest.context("reading the volume for the audit")?;
                    writeln!(file, "{} {digest}", epoch.0).context("writing the audit file")?;
                }
                Ok(Some(CaptureReport::Taken { log, stats: Box::new(stats) }))
            }
            CutOutcome::Void { reason, .. } => Ok(Some(CaptureReport::Void { reason: reason.to_string() })),
        }
    }

    fn end_capture(&mut self) {
        let Some(capture) = self.capture.take() else { return };
        self.discards = DiscardFigures { pending: Sectors(0), ..self.discards_of(&capture) };
        if let Err(error) = capture.stop() {
            log::error!("ending the capture of {}: {error}", self.stack.name());
        }
    }

    /// With those of the captures before.
    fn discards_of(&self, capture: &Capture) -> DiscardFigures {
        let now = capture.discards();
        DiscardFigures {
            pending: now.pending,
            given: Sectors(self.discards.given.0 + now.given.0),
            forgotten: Sectors(self.discards.forgotten.0 + now.forgotten.0),
        }
    }
}

/// SHA-256 of the whole volume.
fn volume_digest(reader: &EraReader, pulse: &dyn Pulse) -> std::io::Result<Digest> {
    let mut hasher = Sha256::new();
    let size = reader.size();
    let mut buffer = AlignedBuffer::new(1 << 20);
    let mut next = Sector(0);
    while let Some(extent) = Extent::between(next, Sector((next.0 + 2048).min(size.0))) {
        pulse.beat(Phase::Paused);
        reader.read(extent, buffer.bytes_mut())?;
        let len = usize::try_from(extent.len().0).unwrap_or(0) * ftdm_units::SECTOR_SIZE;
        hasher.update(&buffer.bytes()[..len]);
        next = extent.end();
    }
    Ok(Digest(hasher.finalize().into()))
}
