//! What the cut thread and the hooks report, and what is kept of it; leases of writes that are held back.
//!
//! Always holds: a lease is renewed only when the backup has taken in something since the last time.

use std::sync::Arc;
use std::time::Duration;

use ftship_proto::ids::Epoch;
use ftship_proto::primary::{CutResult, PrimaryEvent};
use ftship_proto::scope::bytes_of;

use super::capture::jobs::{Cargo, CutJob, CutReport};
use super::{PROGRESS_BYTES, PrimaryDriver};
use crate::control::Response;
use crate::link::peer::PeerConnection;
use crate::standby::hooks::HookReport;

impl PrimaryDriver {
    pub(super) fn cut_report(&mut self, now: Duration, report: CutReport) {
        let (result, cargo) = match report {
            CutReport::Result(result, cargo) => (result, cargo),
            CutReport::Throttled => {
                self.shown.figures.holds += 1;
                self.progress = Some(self.progress_now());
                return;
            }
        };
        self.keep(&result, cargo);
        match &result {
            CutResult::Void { reason } => {
                log::debug!("void cut: {reason}");
                self.withdraw(now, reason);
            }
            CutResult::Stopped | CutResult::Lost { .. } | CutResult::LogOff { .. } => {
                self.shown.figures.discards_pending = 0;
            }
            _ => {}
        }
        // After any other result nothing is held any more. After a void cut writes may be: a lease too many does no harm.
        if !matches!(result, CutResult::LogUse { .. } | CutResult::Followed | CutResult::Void { .. }) {
            self.progress = None;
        }
        self.core.handle(now, PrimaryEvent::Cut(result));
        self.act(now);
        // An epoch that is not to be shipped any more.
        if let Some(logs) = self.captured.take() {
            self.cut_thread.push(CutJob::Recycle(logs));
        }
    }

    /// Keeps what rides along with a result, until the core says what becomes of it.
    fn keep(&mut self, result: &CutResult, cargo: Cargo) {
        match cargo {
            Cargo::Nothing => {}
            Cargo::Scope(scope) => (self.copying.scope, self.copying.scope_content) = (scope, None),
            Cargo::Still(scope, content, pause) => {
                self.shown.pauses.record(pause);
                let bytes = bytes_of(&scope);
                log::info!("the volumes were suspended for {pause:.1?}: {bytes} bytes were written before");
                if let CutResult::StillUnread { reason, .. } = result {
                    log::warn!("the volumes were suspended for nothing: {reason}");
                }
                (self.copying.scope, self.copying.scope_content) = (scope, content.map(Arc::new));
            }
            Cargo::Captured(logs, stats) => {
                self.shown.note_cut(&logs, &stats);
                self.captured = Some(logs);
            }
            Cargo::LogUse(logs, discards) => {
                self.shown.note_log_use(&logs);
                self.shown.note_discards(discards);
            }
            Cargo::TrackingLost => {
                if let CutResult::Lost { reason } = result {
                    self.shown.tracking_lost = Some(reason.clone());
                }
            }
        }
    }

    pub(super) fn hook_report(&mut self, now: Duration, report: HookReport) {
        match report {
            HookReport::Froze { token, result } => {
                self.shown.hook_alarm = result.as_ref().err().cloned();
                if let Err(reason) = &result {
                    log::error!("{reason}");
                }
                self.core.handle(now, PrimaryEvent::Froze { token, result });
            }
            HookReport::Expired { token } => {
                let text = "the guest was thawed before its cut was over, by the hooks' time-out or because the process \
                            that holds it was killed";
                log::error!("{text}");
                self.shown.hook_alarm = Some(text.to_owned());
                self.core.handle(now, PrimaryEvent::ThawedEarly { token });
            }
            HookReport::Thawed(Ok(())) => {}
            HookReport::Thawed(Err(reason)) => {
                log::error!("the thaw hook failed: {reason}");
                self.shown.hook_alarm = Some(format!("the thaw hook failed: {reason}"));
            }
        }
        self.act(now);
    }

    /// A cut without a suspend was asked for and could not be taken: nobody gets a suspend instead.
    fn withdraw(&mut self, now: Duration, reason: &str) {
        for client in self.clients.withdraw() {
            let id = client.0 as u64;
            self.core.handle(now, PrimaryEvent::CheckpointWithdrawn { id });
            self.clients.answer(id, Response::Refused { reason: reason.to_owned() });
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
            self.cut_thread.push(CutJob::Renew);
        }
    }
}
