//! What the cut thread reports, as events for the state machine; leases of writes that are held back.
//!
//! Always holds: a lease is renewed only when the backup has taken in something since the last time.

use std::sync::Arc;
use std::time::Duration;

use ftdm_units::SECTOR_SIZE;
use ftship_proto::ids::Epoch;
use ftship_proto::primary::PrimaryEvent;

use super::capture::jobs::{CaptureJob, CaptureReport};
use super::{PROGRESS_BYTES, PrimaryDriver};
use crate::control::Response;
use crate::link::peer::PeerConnection;
use crate::standby::hooks::HookReport;

impl PrimaryDriver {
    pub(super) fn capture_report(&mut self, now: Duration, report: CaptureReport) {
        let event = match report {
            CaptureReport::Rolled { attempt, written } => {
                let (eras, bytes) = self.note_scope(written);
                PrimaryEvent::Rolled { attempt, eras, bytes }
            }
            CaptureReport::RollFailed { attempt, reason, tracking_lost } => {
                PrimaryEvent::RollFailed { attempt, reason, tracking_lost }
            }
            CaptureReport::Started { written } => {
                let (eras, bytes) = self.note_scope(written);
                PrimaryEvent::CaptureStarted { eras, bytes }
            }
            CaptureReport::Stood { attempt, written, content, pause } => {
                self.pauses.record(pause);
                let (eras, bytes) = self.note_scope(written);
                log::info!("the volumes stood still for {pause:.1?}: {bytes} bytes were written before");
                match content {
                    Ok(content) => {
                        self.still = Some(Arc::new(content));
                        PrimaryEvent::Stood { attempt, eras, bytes }
                    }
                    Err(reason) => {
                        log::warn!("the volumes were suspended for nothing: {reason}");
                        let reason = reason.to_owned();
                        PrimaryEvent::StoodInVain { attempt, eras, bytes, reason }
                    }
                }
            }
            CaptureReport::Stopped => PrimaryEvent::CaptureStopped,
            CaptureReport::Followed => PrimaryEvent::Followed,
            CaptureReport::Frozen => PrimaryEvent::Held,
            CaptureReport::Yielded => PrimaryEvent::Yielded,
            CaptureReport::Released { reason } => PrimaryEvent::Released { reason },
            CaptureReport::Shut => PrimaryEvent::Shut,
            CaptureReport::Held => {
                self.figures.holds += 1;
                self.progress = Some(self.progress_now());
                return;
            }
            CaptureReport::Idle => PrimaryEvent::NothingWritten,
            CaptureReport::Void { reason } => {
                log::debug!("void cut: {reason}");
                self.withdraw(now, &reason);
                PrimaryEvent::CutVoid { reason }
            }
            CaptureReport::Tried { attempt, result } => PrimaryEvent::CaptureTried { attempt, result },
            CaptureReport::Lost { reason } => PrimaryEvent::CaptureLost { reason },
            CaptureReport::LogOff { reason } => PrimaryEvent::LogOff { reason },
            CaptureReport::TrackingLost { reason } => {
                self.tracking_lost = Some(reason.clone());
                PrimaryEvent::CaptureLost { reason }
            }
            CaptureReport::LogUse { logs, discards } => {
                let (used, capacity) = self.note_log_use(&logs);
                self.note_discards(discards);
                PrimaryEvent::LogUse { used, capacity }
            }
            CaptureReport::Taken { eras, logs, stats } => {
                self.pauses.record(stats.pause);
                for (volume, log) in self.volumes.iter_mut().zip(&logs) {
                    let sectors: u64 = log.entries().iter().map(|entry| entry.extent.len().0).sum();
                    volume.bytes_written += sectors * SECTOR_SIZE as u64;
                    self.figures.bytes_written += sectors * SECTOR_SIZE as u64;
                }
                self.figures.suspect_sectors += stats.suspect_sectors;
                self.figures.log_rotations += stats.rotations as u64;
                if stats.discards > 0 {
                    self.discard_times.record(stats.discard);
                }
                self.captured = Some(logs);
                PrimaryEvent::CutTaken { eras }
            }
        };
        let is_quiet = matches!(event, PrimaryEvent::LogUse { .. } | PrimaryEvent::Followed);
        if !is_quiet && !matches!(event, PrimaryEvent::CutVoid { .. }) {
            // Nothing is held any more. After a void cut writes may be: a lease too many does no harm.
            self.progress = None;
        }
        if matches!(
            event,
            PrimaryEvent::CaptureStopped | PrimaryEvent::CaptureLost { .. } | PrimaryEvent::LogOff { .. }
        ) {
            self.figures.discards_pending = 0;
        }
        self.core.handle(now, event);
        self.act(now);
        // An epoch that is not to be shipped any more.
        if let Some(logs) = self.captured.take() {
            self.cut_thread.push(CaptureJob::Recycle(logs));
        }
    }

    pub(super) fn hook_report(&mut self, now: Duration, report: HookReport) {
        match report {
            HookReport::Froze { token, result } => {
                self.hook_alarm = result.as_ref().err().cloned();
                if let Err(reason) = &result {
                    log::error!("{reason}");
                }
                self.core.handle(now, PrimaryEvent::Froze { token, result });
            }
            HookReport::Thawed(Ok(())) => {}
            HookReport::Thawed(Err(reason)) => {
                log::error!("the thaw hook failed: {reason}");
                self.hook_alarm = Some(format!("the thaw hook failed: {reason}"));
            }
        }
        self.act(now);
    }

    /// A cut without a suspend was asked for and could not be taken: nobody gets a suspend instead.
    fn withdraw(&mut self, now: Duration, reason: &str) {
        for client in std::mem::take(&mut self.cutting) {
            let id = client.0 as u64;
            self.core.handle(now, PrimaryEvent::CheckpointWithdrawn { id });
            self.answer(id, Response::Refused { reason: reason.to_owned() });
        }
    }

    /// What changes when the backup takes in anything.
    fn progress_now(&self) -> (Epoch, usize, u64) {
        let sent = self.peer.as_ref().map_or(0, PeerConnection::sent);
        (self.core.committed(), self.core.in_flight(), sent)
    }

    /// Renews the lease of writes that are held back, when there was progress.
    pub(super) fn renew(&mut self) {
        let now = self.progress_now();
        let is_progress = self.progress.is_some_and(|(committed, in_flight, sent)| {
            (committed, in_flight) != (now.0, now.1) || now.2 >= sent + PROGRESS_BYTES
        });
        if is_progress {
            self.progress = Some(now);
            self.cut_thread.push(CaptureJob::Renew);
        }
    }
}
