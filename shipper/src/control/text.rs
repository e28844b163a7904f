//! The status of a group as people read it.

use std::fmt::Write;

use crate::config::{Ack, Commit};
use crate::control::{
    Epochs, Status, SyncCarrier, SyncStatus, VerifyFigures, VerifyOutcome, VerifyRunning, VolumeFigures,
};

/// How, and since which epoch.
fn carrier_and_base(sync: &SyncStatus) -> (&'static str, String) {
    let carrier = match sync.carrier {
        Some(SyncCarrier::Staged) => "staged",
        Some(SyncCarrier::InPlace) => "in place",
        None => "planned",
    };
    (carrier, sync.base.map_or(", whole".into(), |epoch| format!(", changes since epoch {epoch}")))
}

/// How far a sync is, at which rate, and how long what is left of its round takes at that.
#[must_use]
pub fn sync_under_way(sync: &SyncStatus) -> String {
    let (carrier, base) = carrier_and_base(sync);
    let done = sync.bytes.saturating_sub(sync.left);
    let mut text = format!("{carrier}{base}: {done} of {} bytes, round {}", sync.bytes, sync.rounds);
    if let Some(left) = sync.seconds_left {
        text.push_str(&format!(", {:.1} MB/s, {left:.0} s left", sync.rate / 1e6));
    }
    text.push_str(&sent_and_skipped(sync));
    text
}

/// What it cost, and what it did not.
fn sent_and_skipped(sync: &SyncStatus) -> String {
    let SyncStatus { sent, skipped, digests, .. } = sync;
    format!("; {sent} bytes sent, {skipped} not sent, the backup having them, {digests} of digests")
}

/// Several lines, one figure each; the first says role and state.
#[must_use]
pub fn status(status: &Status) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<14}{value}");
    };
    line("group", status.group.clone());
    line("role", format!("{}, generation {}", status.role, status.generation));
    line("state", status.state.clone());
    if let Some(reason) = &status.reason {
        line("reason", reason.clone());
    }
    for what in &status.warnings {
        line("WARNING", what.clone());
    }
    let link = if status.connected { "connected" } else { "not connected" };
    let error = status.link_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    line("peer", format!("{} {link}{error}", status.peer));
    if let Some(key) = &status.peer_key {
        line("peer's key", key.clone());
    }
    if let Some(theirs) = &status.peer_standing {
        line("other side", theirs.clone());
    }
    if let Some(epoch) = status.alone_since {
        line("alone", format!("since epoch {epoch}"));
    }
    if status.commit == Commit::External {
        line("commit", "external: a coordinator says `ftship commit`".into());
    }
    if status.ack == Some(Ack::Received) {
        line("ack", "received: staged is not yet durable on the backup".into());
    }
    for volume in status.volumes.iter().filter(|_| status.volumes.len() > 1) {
        let VolumeFigures { name, device, size, log_used, log_size, bytes_written, .. } = volume;
        let mut text = format!("{name} on {device}");
        if *size > 0 {
            text.push_str(&format!(", {size} bytes"));
        }
        if status.primary.is_some() {
            text.push_str(&format!(", {bytes_written} written, log {log_used} of {log_size}"));
        }
        line("volume", text);
    }
    for volume in status.volumes.iter().filter(|volume| volume.size > 0 && volume.device_size > volume.size) {
        let VolumeFigures { name, device, size, device_size, .. } = volume;
        line("unused", format!("{name}: {device} has {device_size} bytes, the pair agreed on {size}"));
    }
    let epochs = &status.epochs;
    if let Some(primary) = &status.primary {
        line(
            "epochs",
            format!(
                "{} cut, {} staged, {} committed, {} in flight, {} on the backup's volumes",
                epochs.cut, epochs.staged, epochs.committed, epochs.in_flight, epochs.applied
            ),
        );
        if let Some(sync) = &primary.sync {
            line("sync", sync_under_way(sync));
        } else if let Some(sync) = &primary.last_sync {
            let (carrier, base) = carrier_and_base(sync);
            let text = format!("{carrier}{base}, in {:.1} s{}", sync.seconds, sent_and_skipped(sync));
            line("last sync", text);
        }
        let p = &primary.pause_ms;
        line(
            "pause",
            format!(
                "p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms, {} void",
                p.p50, p.p99, p.max, primary.void_cuts
            ),
        );
        let p = &primary.commit_lag_ms;
        line("commit lag", format!("p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", p.p50, p.p99, p.max));
        line("written", format!("{} bytes, shipped {} bytes", primary.bytes_written, primary.bytes_shipped));
        line(
            "log",
            format!(
                "{} of {} bytes, {} rotations",
                primary.log_used, primary.log_size, primary.log_rotations
            ),
        );
        line(
            "resync",
            format!("compares for about {:.1} s if this host loses its power now", primary.resync_seconds),
        );
        if primary.discards_pending + primary.discards_given + primary.discards_forgotten > 0 {
            line(
                "discards",
                format!(
                    "{} bytes given back, {} pending, {} forgotten; p99 {:.2} ms of a pause",
                    primary.discards_given,
                    primary.discards_pending,
                    primary.discards_forgotten,
                    primary.discard_ms.p99
                ),
            );
        }
    }
    if let Some(figures) = &status.verify {
        verify_lines(figures, &mut line);
    }
    if let Some(backup) = &status.backup {
        let Epochs { staged, committed, applied, .. } = epochs;
        line("epochs", format!("{staged} staged, {committed} committed, {applied} on the volumes"));
        line("journal", format!("{} of {} bytes", backup.journal_used, backup.journal_size));
        line(
            "received",
            format!("{} bytes of epochs, {} bytes of base copy", backup.epoch_bytes, backup.base_bytes),
        );
        if backup.discarded + backup.discard_errors > 0 {
            line(
                "discards",
                format!("{} bytes given back, {} failed", backup.discarded, backup.discard_errors),
            );
        }
    }
    out
}

fn verify_lines(figures: &VerifyFigures, line: &mut impl FnMut(&str, String)) {
    if let Some(running) = &figures.running {
        line("verifying", progress(running));
    }
    if let Some(last) = &figures.last {
        line("verified", verify(last));
        if last.untracked_bytes > 0 {
            line("ALARM", untracked(last));
        }
    }
    if let (Some(seconds), None) = (figures.next_seconds, &figures.running) {
        line("next verify", format!("in {seconds} s"));
    }
}

/// How far a verify is, in one line.
#[must_use]
pub fn progress(running: &VerifyRunning) -> String {
    let VerifyRunning { checked_bytes, volume_bytes, differing_bytes, seconds } = running;
    format!(
        "{checked_bytes} of {volume_bytes} bytes compared, {}, {differing_bytes} bytes differ",
        rate(*checked_bytes, *seconds)
    )
}

/// What changed on the primary and was never shipped, in one line.
#[must_use]
pub fn untracked(outcome: &VerifyOutcome) -> String {
    let places = outcome.untracked.iter().map(|at| format!("{} {}+{}", at.volume, at.sector, at.sectors));
    format!(
        "{} bytes changed on this side and were never shipped: something wrote below the stack, the storage of either side \
         lost or changed something, or a write was missed (sectors {})",
        outcome.untracked_bytes,
        places.collect::<Vec<_>>().join(", ")
    )
}

/// What a verify found, in one line.
#[must_use]
pub fn verify(outcome: &VerifyOutcome) -> String {
    let VerifyOutcome { checked_bytes, seconds, differing_bytes, repaired_bytes, undecided_bytes, .. } =
        outcome;
    let mut text = match differing_bytes {
        0 => "equal".to_owned(),
        _ => format!("{differing_bytes} bytes differed, {repaired_bytes} of them were repaired"),
    };
    if *undecided_bytes > 0 {
        text.push_str(&format!(", {undecided_bytes} bytes could not be compared"));
    }
    format!("{text}: {checked_bytes} bytes in {seconds:.1} s, {}", rate(*checked_bytes, *seconds))
}

fn rate(bytes: u64, seconds: f64) -> String {
    format!("{:.1} MB/s", bytes as f64 / 1e6 / seconds.max(1e-3))
}
