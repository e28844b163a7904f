//! The status of a group as people read it.

use std::fmt::{Display, Write};

use crate::config::{Ack, Commit};
use crate::control::{
    BackupFigures, Epochs, PrimaryFigures, Status, SyncCarrier, SyncStatus, VerifyFigures, VerifyOutcome,
    VerifyRunning, VolumeFigures,
};
use crate::runtime::metrics::Percentiles;

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
    let mut lines = Lines::default();
    head_lines(status, &mut lines);
    for volume in status.volumes.iter().filter(|_| status.volumes.len() > 1) {
        lines.add("volume", volume_line(volume, status.primary.is_some()));
    }
    for volume in status.volumes.iter().filter(|volume| volume.size > 0 && volume.device_size > volume.size) {
        let VolumeFigures { name, device, size, device_size, .. } = volume;
        let text = format!("{name}: {device} has {device_size} bytes, the pair agreed on {size}");
        lines.add("unused", text);
    }
    if let Some(primary) = &status.primary {
        primary_lines(&status.epochs, primary, &mut lines);
    }
    if let Some(figures) = &status.verify {
        verify_lines(figures, &mut lines);
    }
    if let Some(backup) = &status.backup {
        backup_lines(&status.epochs, backup, &mut lines);
    }
    lines.0
}

/// Lines of a name and a value.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, value: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{name:<14}{value}");
    }
}

/// Role and state, the other side, and the policies that are not the usual ones.
fn head_lines(status: &Status, lines: &mut Lines) {
    lines.add("group", &status.group);
    lines.add("role", format!("{}, generation {}", status.role, status.generation));
    lines.add("state", &status.state);
    if let Some(reason) = &status.reason {
        lines.add("reason", reason);
    }
    for what in &status.warnings {
        lines.add("WARNING", what);
    }
    let link = if status.connected { "connected" } else { "not connected" };
    let error = status.link_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    lines.add("peer", format!("{} {link}{error}", status.peer));
    if let Some(key) = &status.peer_key {
        lines.add("peer's key", key);
    }
    if let Some(theirs) = &status.peer_standing {
        lines.add("other side", theirs);
    }
    if let Some(epoch) = status.alone_since {
        lines.add("alone", format!("since epoch {epoch}"));
    }
    if status.commit == Commit::External {
        lines.add("commit", "external: a coordinator says `ftship commit`");
    }
    if status.ack == Some(Ack::Received) {
        lines.add("ack", "received: staged is not yet durable on the backup");
    }
}

/// Only a primary captures what is written.
fn volume_line(volume: &VolumeFigures, captures: bool) -> String {
    let VolumeFigures { name, device, size, log_used, log_size, bytes_written, .. } = volume;
    let mut text = format!("{name} on {device}");
    if *size > 0 {
        text.push_str(&format!(", {size} bytes"));
    }
    if captures {
        text.push_str(&format!(", {bytes_written} written, log {log_used} of {log_size}"));
    }
    text
}

fn primary_lines(epochs: &Epochs, primary: &PrimaryFigures, lines: &mut Lines) {
    let Epochs { cut, staged, committed, in_flight, applied, .. } = epochs;
    lines.add(
        "epochs",
        format!(
            "{cut} cut, {staged} staged, {committed} committed, {in_flight} in flight, {applied} on the backup's volumes"
        ),
    );
    if let Some(sync) = &primary.sync {
        lines.add("sync", sync_under_way(sync));
    } else if let Some(sync) = &primary.last_sync {
        let (carrier, base) = carrier_and_base(sync);
        let text = format!("{carrier}{base}, in {:.1} s{}", sync.seconds, sent_and_skipped(sync));
        lines.add("last sync", text);
    }
    lines.add("pause", format!("{}, {} void", percentiles(&primary.pause_ms), primary.void_cuts));
    lines.add("commit lag", percentiles(&primary.commit_lag_ms));
    let PrimaryFigures { bytes_written, bytes_shipped, log_used, log_size, log_rotations, .. } = primary;
    lines.add("written", format!("{bytes_written} bytes, shipped {bytes_shipped} bytes"));
    lines.add("log", format!("{log_used} of {log_size} bytes, {log_rotations} rotations"));
    lines.add(
        "resync",
        format!("compares for about {:.1} s if this host loses its power now", primary.resync_seconds),
    );
    let PrimaryFigures { discards_pending, discards_given, discards_forgotten, discard_ms, .. } = primary;
    if discards_pending + discards_given + discards_forgotten > 0 {
        lines.add(
            "discards",
            format!(
                "{discards_given} bytes given back, {discards_pending} pending, {discards_forgotten} forgotten; \
                 p99 {:.2} ms of a pause",
                discard_ms.p99
            ),
        );
    }
}

fn percentiles(figures: &Percentiles) -> String {
    let Percentiles { p50, p99, max, .. } = figures;
    format!("p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms")
}

fn backup_lines(epochs: &Epochs, backup: &BackupFigures, lines: &mut Lines) {
    let Epochs { staged, committed, applied, .. } = epochs;
    lines.add("epochs", format!("{staged} staged, {committed} committed, {applied} on the volumes"));
    lines.add("journal", format!("{} of {} bytes", backup.journal_used, backup.journal_size));
    lines.add(
        "received",
        format!("{} bytes of epochs, {} bytes of base copy", backup.epoch_bytes, backup.base_bytes),
    );
    if backup.discarded + backup.discard_errors > 0 {
        lines.add(
            "discards",
            format!("{} bytes given back, {} failed", backup.discarded, backup.discard_errors),
        );
    }
}

fn verify_lines(figures: &VerifyFigures, lines: &mut Lines) {
    if let Some(running) = &figures.running {
        lines.add("verifying", progress(running));
    }
    if let Some(last) = &figures.last {
        lines.add("verified", verify(last));
        if last.untracked_bytes > 0 {
            lines.add("ALARM", untracked(last));
        }
    }
    if let (Some(seconds), None) = (figures.next_seconds, &figures.running) {
        lines.add("next verify", format!("in {seconds} s"));
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
