//! What the primary's daemon says of itself.
//!
//! Always holds: figures are those of the daemon's threads as reported last; saying them changes nothing.

use std::time::Duration;

use ftdm_units::Sectors;
use ftship_proto::backup::PromoteRefused;
use ftship_proto::ids::Epoch;
use ftship_proto::primary::{Carrier, CommitRefused, Replication, SyncFigures};
use ftship_proto::state::StaleToken;

use super::PrimaryDriver;
use crate::config::Ack;
use crate::control::{Epochs, PrimaryFigures, Response, Status, SyncCarrier, SyncStatus};
use crate::link::peer::PeerConnection;
use crate::provision::stacks::with_device_sizes;

impl PrimaryDriver {
    pub(super) fn describe(&self, now: Duration) -> (&'static str, Option<String>) {
        if let Some(reason) = &self.shown.tracking_lost {
            return ("tracking lost", Some(reason.clone()));
        }
        if let Some(fence) = self.core.fence() {
            let state = match () {
                () if self.core.is_frozen() => "frozen",
                () if fence.split => "split brain",
                () => "outdated",
            };
            return (state, Some(self.core.fence_text()));
        }
        match self.core.replication() {
            Replication::Degraded { reason } => ("degraded", Some(reason.clone())),
            Replication::Syncing => ("syncing", self.core.sync_text()),
            Replication::InSync => {
                let switch = self.core.switch_text().map(str::to_owned);
                let stall = || self.core.stall_text(now);
                ("in sync", switch.or_else(|| self.shown.hook_alarm.clone()).or_else(stall))
            }
            Replication::Failed { reason } => {
                ("failed", Some(format!("{reason}; fix the cause: it is tried again by itself")))
            }
        }
    }

    pub(super) fn status(&self, now: Duration) -> Status {
        let core = &self.core;
        let (state, reason) = self.describe(now);
        let counters = core.counters();
        Status {
            group: self.config.group.to_string(),
            role: "primary".into(),
            state: state.into(),
            reason,
            connected: core.is_connected(),
            peer: self.config.peer.to_string(),
            link_error: core.link_error().map(str::to_owned),
            peer_key: self.peer.as_ref().and_then(PeerConnection::peer_key).map(|key| key.to_string()),
            generation: self.stamp.generation,
            commit: self.config.commit,
            ack: core.is_connected().then(|| if core.acks_received() { Ack::Received } else { Ack::Durable }),
            epochs: Epochs {
                cut: core.last_cut().0,
                staged: core.staged().0,
                committed: core.committed().0,
                applied: core.peer_applied().0,
                in_flight: core.in_flight(),
                committed_count: counters.epochs_committed,
            },
            volumes: with_device_sizes(&self.shown.volumes),
            warnings: self.damage.iter().cloned().collect(),
            verify: Some(self.verify_figures(now)),
            peer_standing: core.peer_standing().map(ToString::to_string),
            alone_since: core.state().alone.map(|epoch| epoch.0),
            primary: Some(PrimaryFigures {
                pause_ms: self.shown.pauses.percentiles(),
                pause_stages_ms: self.shown.stages.percentiles(),
                discard_ms: self.shown.discard_times.percentiles(),
                commit_lag_ms: self.shown.lags.percentiles(),
                void_cuts: counters.void_cuts,
                hooks_failed: counters.hooks_failed,
                void_ticks: counters.void_ticks,
                idle_ticks: counters.idle_ticks,
                resync_seconds: core.resync_time().as_secs_f64(),
                sync: core.sync(now).map(|sync| shown(&sync, self.copying.left())),
                last_sync: core.last_sync().map(|sync| shown(&sync, Sectors(0))),
                ..self.shown.figures
            }),
            backup: None,
        }
    }
}

fn shown(sync: &SyncFigures, left: Sectors) -> SyncStatus {
    let (left, seconds) = (left.bytes().unwrap_or(u64::MAX), sync.elapsed.as_secs_f64());
    // Far more bytes than a f64 counts exactly would not change what is shown.
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    let (done, ahead) = (sync.bytes.saturating_sub(left) as f64, left as f64);
    let rate = if seconds > 0.0 { done / seconds } else { 0.0 };
    SyncStatus {
        carrier: sync.carrier.map(|carrier| match carrier {
            Carrier::Staged => SyncCarrier::Staged,
            Carrier::InPlace => SyncCarrier::InPlace,
        }),
        base: sync.base.map(|epoch| epoch.0),
        rounds: sync.rounds,
        bytes: sync.bytes,
        left,
        sent: sync.stored,
        skipped: sync.skipped,
        digests: sync.digests,
        seconds,
        rate,
        seconds_left: (rate > 0.0).then_some(ahead / rate),
    }
}

/// The answer to a promote of a side that was promoted at `at`, and has seen tokens up to `seen`.
pub(super) fn promoted_already(at: Epoch, asked: Option<u64>, seen: u64, token: Option<u64>) -> Response {
    if let Some(token) = token.filter(|token| *token != seen) {
        let reason = if token < seen {
            StaleToken { token, seen }.to_string()
        } else {
            format!("this side is the primary already, by the fencing token {seen}")
        };
        return if token < seen { Response::Stale { reason } } else { Response::Refused { reason } };
    }
    match asked {
        Some(epoch) if epoch != at.0 => {
            Response::Refused { reason: PromoteRefused::Elsewhere(at).to_string() }
        }
        _ => Response::Promoted { epoch: at.0 },
    }
}

pub(super) fn commit_answer(result: Result<Epoch, CommitRefused>) -> Response {
    match result {
        Ok(epoch) => Response::Committed { epoch: epoch.0 },
        Err(
            refused @ (CommitRefused::Auto
            | CommitRefused::NotStaged { .. }
            | CommitRefused::PartOfSync { .. }),
        ) => Response::Refused { reason: refused.to_string() },
        Err(failed) => Response::Failed { reason: failed.to_string() },
    }
}
