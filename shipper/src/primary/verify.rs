//! Verify on the primary: the thread that reads and hashes, live and in the background, the encoder's inspection, and
//! what is shown of it all.
//!
//! Always holds: a place is read only after the encoder was told of its inspection, and the core hears of the reading
//! only after the encoder was given what was read, so that both keep their places before the cut; memory is bounded by
//! one inspection and one piece.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant, SystemTime};

use ftdm::block_io::{AlignedBuffer, BlockDevice};
use ftdm_units::{SECTOR_SIZE, Sectors};
use ftship_proto::ids::Digest;
use ftship_proto::primary::{PrimaryAction, PrimaryEvent, Replication, VerifyError, VerifyReport};
use ftship_proto::verify::{Inspection, Place, digests_of};

use super::encode::EncodeJob;
use super::inspecting::InspectJob;
use super::{PrimaryDriver, run_in_background};
use crate::config::Verify as Settings;
use crate::control::server::ClientId;
use crate::control::{Response, VerifyFigures, VerifyOutcome, VerifyRunning};
use crate::runtime::reactor::Reports;
use crate::runtime::wake::LoopWaker;
use crate::runtime::worker::Worker;

/// Asks by itself, when the configuration says so.
const SCHEDULED: u64 = u64::MAX;
/// When it could not be asked, how soon it is tried again.
const RETRY: Duration = Duration::from_secs(60);

/// What the thread is to read.
#[derive(Debug)]
struct ReadJob {
    token: u64,
    places: Vec<Place>,
    /// Hash it in these units; else hand it over.
    unit: Option<Sectors>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct VerifyRead {
    token: u64,
    result: Result<ReadResult, String>,
    hashes: bool,
}

#[derive(Debug)]
enum ReadResult {
    Digests(Vec<Digest>),
    Content(Vec<Vec<u8>>),
}

/// The reading thread, when verifies are due, and what the last one found.
#[derive(Debug)]
pub(super) struct VerifyLane {
    reading: Worker<ReadJob>,
    pub(super) reads: Receiver<VerifyRead>,
    every: Option<Duration>,
    repair: bool,
    due: Option<Duration>,
    last: Option<VerifyOutcome>,
    /// Since the daemon's start.
    count: u64,
    /// Bytes that were never shipped, of all of them.
    untracked: u64,
}

impl VerifyLane {
    /// Starts the thread on the volumes, in the group's order, opened for direct reading. It reads at most as fast as
    /// the settings say.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(
        devices: Vec<BlockDevice>,
        settings: &Settings,
        waker: &Arc<LoopWaker>,
    ) -> anyhow::Result<Self> {
        let (reports, reads) = Reports::channel(waker);
        let rate = settings.rate.map(|rate| rate.as_u64());
        let reading = Worker::start("verify", 128 << 10, move |queue: Receiver<ReadJob>| {
            run_in_background("verify");
            let mut buffer = AlignedBuffer::new(0);
            for ReadJob { token, places, unit } in queue {
                let begun = Instant::now();
                let read = places.iter().map(|place| read(&devices, &mut buffer, *place));
                let result = match unit {
                    Some(unit) => {
                        let digests = read.map(|data| data.map(|data| digests_of(&data, unit)));
                        digests.collect::<Result<Vec<_>, _>>().map(|all| ReadResult::Digests(all.concat()))
                    }
                    None => read.collect::<Result<_, _>>().map(ReadResult::Content),
                };
                let bytes: u64 = places.iter().map(|place| place.extent.len().bytes().unwrap_or(0)).sum();
                // A round is small, and waits for a cut: only the scan is held to a rate.
                if let (Some(rate), Some(_)) = (rate, unit) {
                    let least = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
                    std::thread::sleep(least.saturating_sub(begun.elapsed()));
                }
                reports.send(VerifyRead { token, result, hashes: unit.is_some() });
            }
        })?;
        let Settings { every, repair, .. } = *settings;
        Ok(Self { reading, reads, every, repair, due: every, last: None, count: 0, untracked: 0 })
    }

    fn push(&self, job: ReadJob) {
        self.reading.push(job);
    }

    /// Goes on as another configuration says.
    pub(super) fn tune(&mut self, now: Duration, settings: &Settings) {
        self.repair = settings.repair;
        if self.every != settings.every {
            self.every = settings.every;
            self.due = self.every.map(|every| now + every);
        }
    }

    fn retry(&mut self, now: Duration) {
        self.due = self.every.map(|every| now + every.min(RETRY));
    }

    pub(super) fn due(&self) -> Option<Duration> {
        self.due
    }
}

fn read(devices: &[BlockDevice], buffer: &mut AlignedBuffer, place: Place) -> Result<Vec<u8>, String> {
    let len = usize::try_from(place.extent.len().0).unwrap_or(usize::MAX).saturating_mul(SECTOR_SIZE);
    if buffer.bytes().len() < len {
        *buffer = AlignedBuffer::new(len);
    }
    let result = match devices.get(usize::from(place.volume.0)) {
        Some(device) => device.read_extent(place.extent, buffer.bytes_mut()),
        None => Err(ErrorKind::NotFound.into()),
    };
    let failed = |error| format!("reading {} of {}: {error}", place.extent, place.volume);
    result.map(|()| buffer.bytes()[..len].to_vec()).map_err(failed)
}

impl PrimaryDriver {
    pub(super) fn verify_act(&mut self, now: Duration, action: PrimaryAction) {
        match action {
            PrimaryAction::Hash { token, place, unit } => {
                self.verifies.push(ReadJob { token, places: vec![place], unit: Some(unit) });
            }
            PrimaryAction::Inspect { token, places, unit } => {
                let inspection = Inspection::new(&places, unit);
                self.encoder.push(EncodeJob::Inspect(InspectJob::Begin(token, inspection)));
                self.verifies.push(ReadJob { token, places, unit: None });
            }
            PrimaryAction::Conclude { token, repair } => {
                self.encoder.push(EncodeJob::Inspect(InspectJob::Conclude { token, repair }));
            }
            PrimaryAction::EndInspection => self.encoder.push(EncodeJob::Inspect(InspectJob::End)),
            PrimaryAction::VerifyDone { id, result } => self.verify_done(now, id, result),
            other => log::error!("a fault of this program: {other:?} is no part of a verify"),
        }
    }

    pub(super) fn verify_read(&mut self, now: Duration, read: VerifyRead) {
        let VerifyRead { token, result, hashes } = read;
        let event = match result {
            Ok(ReadResult::Digests(digests)) => PrimaryEvent::Hashed { token, result: Ok(digests) },
            Ok(ReadResult::Content(content)) => {
                self.encoder.push(EncodeJob::Inspect(InspectJob::Fill(token, content)));
                PrimaryEvent::Inspected { token, result: Ok(()) }
            }
            Err(reason) if hashes => PrimaryEvent::Hashed { token, result: Err(reason) },
            Err(reason) => PrimaryEvent::Inspected { token, result: Err(reason) },
        };
        self.core.handle(now, event);
        self.act(now);
    }

    pub(super) fn verify_wanted(&mut self, now: Duration, client: ClientId, repair: bool) {
        self.clients.wait(client);
        self.core.handle(now, PrimaryEvent::Verify { id: client.0 as u64, repair });
    }

    /// Begins the verify that the configuration wants, when it is time.
    pub(super) fn verify_when_due(&mut self, now: Duration) {
        if self.verifies.due.is_none_or(|due| due > now) {
            return;
        }
        if *self.core.replication() != Replication::InSync || self.core.verify_progress().is_some() {
            self.verifies.retry(now);
            return;
        }
        self.verifies.due = self.verifies.every.map(|every| now + every);
        log::info!("verify: begins, as configured");
        let repair = self.verifies.repair;
        self.core.handle(now, PrimaryEvent::Verify { id: SCHEDULED, repair });
        self.act(now);
    }

    fn verify_done(&mut self, now: Duration, id: u64, result: Result<VerifyReport, VerifyError>) {
        let result = match result {
            Ok(report) => {
                let outcome = self.outcome(&report);
                if outcome.differing_bytes > 0 {
                    log::error!("verify: {}", crate::control::text::verify(&outcome));
                } else {
                    log::info!("verify: {}", crate::control::text::verify(&outcome));
                }
                if outcome.untracked_bytes > 0 {
                    log::error!("tracking alarm: {}", crate::control::text::untracked(&outcome));
                }
                self.verifies.untracked += outcome.untracked_bytes;
                self.verifies.last = Some(outcome.clone());
                self.verifies.count += 1;
                Response::Verified(Box::new(outcome))
            }
            Err(error @ VerifyError::Interrupted(_)) => {
                log::warn!("{error}");
                Response::Failed { reason: error.to_string() }
            }
            Err(error) => Response::Refused { reason: error.to_string() },
        };
        if id == SCHEDULED {
            if !matches!(result, Response::Verified(_)) {
                self.verifies.retry(now);
            }
        } else {
            self.clients.answer(id, result);
        }
    }

    fn outcome(&self, report: &VerifyReport) -> VerifyOutcome {
        let bytes = |sectors: Sectors| sectors.bytes().unwrap_or(u64::MAX);
        let named = |place: &Place| crate::control::Differing {
            volume: self
                .config
                .volume
                .get(usize::from(place.volume.0))
                .map_or_else(|| place.volume.to_string(), |volume| volume.name.to_string()),
            sector: place.extent.start().0,
            sectors: place.extent.len().0,
        };
        VerifyOutcome {
            finished: SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()),
            seconds: report.took.as_secs_f64(),
            checked_bytes: bytes(report.checked),
            candidates: report.candidates,
            differing: report.differing.iter().map(named).collect(),
            differing_bytes: bytes(report.differing_sectors),
            untracked: report.untracked.iter().map(named).collect(),
            untracked_bytes: bytes(report.untracked_sectors),
            repaired_bytes: bytes(report.repaired),
            undecided_bytes: bytes(report.undecided),
        }
    }

    pub(super) fn verify_figures(&self, now: Duration) -> VerifyFigures {
        let bytes = |sectors: Sectors| sectors.bytes().unwrap_or(u64::MAX);
        let running = self.core.verify_progress().map(|progress| VerifyRunning {
            checked_bytes: bytes(progress.checked),
            volume_bytes: bytes(progress.whole),
            differing_bytes: bytes(progress.differing),
            seconds: now.saturating_sub(progress.begun).as_secs_f64(),
        });
        let next = self.verifies.due.map(|due| due.saturating_sub(now).as_secs());
        VerifyFigures {
            running,
            last: self.verifies.last.clone(),
            count: self.verifies.count,
            untracked_bytes: self.verifies.untracked,
            next_seconds: next,
        }
    }
}
