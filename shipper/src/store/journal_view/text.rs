//! A journal's picture as people read it.
//!
//! Always holds: a journal that is not sound is never called so.

use std::fmt::Write;

use super::{EpochState, Picture, Verdict};

fn state(state: EpochState) -> &'static str {
    match state {
        EpochState::Applied => "applied",
        EpochState::Committed => "committed",
        EpochState::Staged => "staged",
        EpochState::Unfinished => "unfinished",
        EpochState::Dropped => "dropped",
    }
}

/// A heading, one line for each epoch, where they end, and what is wrong.
#[must_use]
pub fn journal(picture: &Picture) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "group {}, journal {}: {} of {} bytes in use, applied up to epoch {}",
        picture.group,
        picture.device.display(),
        picture.used,
        picture.ring_size,
        picture.applied
    );
    if picture.daemon {
        let _ =
            writeln!(out, "the daemon works on it meanwhile: this is one instant, and may be out of date");
    }
    if !picture.epochs.is_empty() {
        let _ = writeln!(
            out,
            "{:>10} {:<10} {:>12} {:>12} {:>10} {:>7} {:>8}  INCARNATION",
            "EPOCH", "STATE", "BYTE", "POSITION", "BYTES", "FRAMES", "RECORDS"
        );
    }
    for line in &picture.epochs {
        let position = line.position.map_or("-".to_owned(), |position| position.to_string());
        let _ = writeln!(
            out,
            "{:>10} {:<10} {:>12} {:>12} {:>10} {:>7} {:>8}  {}",
            line.epoch,
            state(line.state),
            line.offset,
            position,
            line.bytes,
            line.frames,
            line.records,
            line.incarnation
        );
    }
    let end = &picture.end;
    let _ = writeln!(out, "ends at byte {} (position {}): {}", end.offset, end.position, end.reason);
    for finding in &picture.findings {
        let _ = writeln!(out, "byte {}: {}\n    to do: {}", finding.offset, finding.what, finding.advice);
    }
    let verdict = match (picture.verdict, picture.promotable) {
        (Verdict::Sound, Some(epoch)) => format!("sound; a promote gives epoch {epoch} at least"),
        (Verdict::Sound, None) => "sound; nothing in it is promotable".to_owned(),
        (Verdict::Impaired, Some(epoch)) => {
            format!("IMPAIRED: one of two slots is damaged; a promote gives epoch {epoch} at least")
        }
        (Verdict::Impaired, None) => {
            "IMPAIRED: one of two slots is damaged; nothing in it is promotable".to_owned()
        }
        (Verdict::Newer, _) => "written by a newer version".to_owned(),
        (Verdict::Damaged, _) => "DAMAGED".to_owned(),
        (Verdict::Moving, _) => {
            "unknown: the daemon changed it all the time; stop it, or ask again when less is written"
                .to_owned()
        }
    };
    let _ = writeln!(out, "{verdict}");
    out
}
