//! Numbered records, and what must and must not be found of them after a promote.
//!
//! Always holds: a note `EPOCH LAST` is written only after the checkpoint was acknowledged as committed;
//! no record after LAST was begun before that answer came.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};

/// Bytes of a record: its number, padding, a newline.
const RECORD: usize = 64;

fn record(number: u64) -> String {
    format!("{number:020} {:.>width$}\n", "", width = RECORD - 22)
}

/// Appends records, each followed by fsync, and checkpoints after every `every` of them.
pub(crate) fn write(
    file: &Path,
    notes: &Path,
    group: &str,
    every: u64,
    count: Option<u64>,
) -> anyhow::Result<()> {
    let mut out = File::options().create(true).append(true).open(file).context("the records' file")?;
    let mut noted = File::options().create(true).append(true).open(notes).context("the notes' file")?;
    let mut number = fs::metadata(file)?.len() / RECORD as u64;
    let last = count.map(|count| number + count);
    while last.is_none_or(|last| number < last) {
        number += 1;
        out.write_all(record(number).as_bytes())?;
        out.sync_all()?;
        if number.is_multiple_of(every) {
            let answer = Command::new("ftship").args(["checkpoint", group, "--wait"]).output()?;
            ensure!(answer.status.success(), "checkpoint: {}", String::from_utf8_lossy(&answer.stderr));
            let epoch = String::from_utf8(answer.stdout)?;
            writeln!(noted, "{} {number}", epoch.trim())?;
            noted.sync_all()?;
        }
    }
    Ok(())
}

/// The notes, oldest first. A last line that a power cut left unfinished is passed over.
fn read_notes(path: &Path) -> anyhow::Result<Vec<(u64, u64)>> {
    let text = fs::read_to_string(path).context("the notes' file")?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| {
            let (epoch, last) = line.split_once(' ').with_context(|| format!("note {line:?}"))?;
            Ok((epoch.parse()?, last.parse()?))
        })
        .collect()
}

/// Compares the records on a volume promoted at `epoch` with the notes; the answer is a JSON object.
pub(crate) fn check(file: &Path, notes: &Path, epoch: u64) -> anyhow::Result<String> {
    let notes = read_notes(notes)?;
    let content = fs::read(file).context("the records' file")?;
    let mut found = 0;
    for (index, bytes) in content.chunks(RECORD).enumerate() {
        let expected = record(index as u64 + 1);
        // A record that was being appended at the cut may be there in part, or as zeros.
        if bytes != expected.as_bytes() {
            ensure!(
                content.len() - index * RECORD <= 4096,
                "record {} is damaged, and not the last",
                index + 1
            );
            break;
        }
        found = index as u64 + 1;
    }
    let Some(&(newest, acknowledged)) = notes.last() else { bail!("no checkpoint was acknowledged") };
    ensure!(epoch >= newest, "promoted at epoch {epoch}, but epoch {newest} was acknowledged");
    let lost = acknowledged.saturating_sub(found);
    // Records begun after the answer for an epoch at or beyond the promoted one cannot be in it.
    let limit = notes.iter().find(|(noted, _)| *noted >= epoch).map(|(_, last)| *last);
    if let Some(limit) = limit {
        ensure!(found <= limit, "record {found} was begun after epoch {epoch}, which ends at {limit}");
    }
    ensure!(lost == 0, "{lost} records lost: {acknowledged} acknowledged, {found} found");
    Ok(format!(
        "{{\"records_acknowledged\": {acknowledged}, \"records_found\": {found}, \"records_lost\": {lost}}}"
    ))
}
