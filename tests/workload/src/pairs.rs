//! Numbered records that go to two volumes in turn, and what must and must not be found of them after a promote.
//!
//! Record n is a block of the first volume, made durable, and only then the same block of the second. So at any
//! instant the second has every record that the first has, but perhaps for the last one: whoever takes the two
//! volumes from different instants breaks that.
//!
//! Always holds: a note `EPOCH LAST` is written only after the checkpoint was acknowledged as committed, with
//! record LAST on both volumes before it was asked for; no record after LAST was begun before the answer came.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use ftdm::block_io::AlignedBuffer;
use nix::libc::O_DIRECT;

use crate::records::read_notes;

const BLOCK: usize = 4096;
/// Records that a volume holds: record n is in block n % RING. Few, so that epochs overwrite them several times.
const RING: u64 = 32;

fn open(device: &Path, write: bool) -> anyhow::Result<File> {
    let opened = File::options().read(true).write(write).custom_flags(O_DIRECT).open(device);
    opened.with_context(|| device.display().to_string())
}

fn offset(number: u64) -> u64 {
    number % RING * BLOCK as u64
}

/// Writes records until stopped, and checkpoints `group` after every `every` of them.
pub(crate) fn write(devices: [&Path; 2], notes: &Path, group: &str, every: u64) -> anyhow::Result<()> {
    let devices = [open(devices[0], true)?, open(devices[1], true)?];
    let mut noted = File::options().create(true).append(true).open(notes).context("the notes' file")?;
    let mut buffer = AlignedBuffer::new(BLOCK);
    for number in 1_u64.. {
        for word in buffer.bytes_mut().chunks_exact_mut(8) {
            word.copy_from_slice(&number.to_le_bytes());
        }
        for device in &devices {
            device.write_all_at(buffer.bytes(), offset(number))?;
            device.sync_data()?;
        }
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

/// The last record of a volume: each block holds one record whole, the last that belongs there.
fn last(device: &Path) -> anyhow::Result<u64> {
    let file = open(device, false)?;
    let mut buffer = AlignedBuffer::new(BLOCK);
    let mut found = Vec::new();
    for slot in 0..RING {
        file.read_exact_at(buffer.bytes_mut(), offset(slot))?;
        let mut words = buffer.bytes().chunks_exact(8);
        let first = words.next().unwrap_or_default();
        // A disk writes sectors whole; the kernel, and so the log, writes the block in one.
        ensure!(words.all(|word| word == first), "{}: block {slot} is a mixture", device.display());
        found.push(u64::from_le_bytes(first.try_into()?));
    }
    let last = found.iter().copied().max().unwrap_or(0);
    for (slot, number) in (0..RING).zip(found) {
        let back = (last + RING - slot) % RING;
        let expected = last.saturating_sub(back);
        // Blocks that no record has reached yet hold zeros.
        let is_early = last < back || expected == 0;
        ensure!(
            number == expected || (is_early && number == 0),
            "{}: block {slot} holds record {number}, wrong beside record {last}",
            device.display()
        );
    }
    Ok(last)
}

/// Compares the records on two volumes promoted at `epoch` with each other and with the notes; the answer is a
/// JSON object.
pub(crate) fn check(devices: [&Path; 2], notes: &Path, epoch: u64) -> anyhow::Result<String> {
    let notes = read_notes(notes)?;
    let [first, second] = [last(devices[0])?, last(devices[1])?];
    ensure!(
        first == second || first == second + 1,
        "a mix of two instants: the first volume ends with record {first}, the second with {second}"
    );
    let Some(&(newest, acknowledged)) = notes.last() else { bail!("no checkpoint was acknowledged") };
    ensure!(epoch >= newest, "promoted at epoch {epoch}, but epoch {newest} was acknowledged");
    ensure!(second >= acknowledged, "records lost: {acknowledged} acknowledged, {second} found");
    // Records begun after the answer for an epoch at or beyond the promoted one cannot be in it.
    let limit = notes.iter().find(|(noted, _)| *noted >= epoch).map(|(_, last)| *last);
    if let Some(limit) = limit {
        ensure!(first <= limit, "record {first} was begun after epoch {epoch}, which ends at {limit}");
    }
    Ok(format!(
        "{{\"records_acknowledged\": {acknowledged}, \"first_volume\": {first}, \"second_volume\": {second}}}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file as a volume that holds these records.
    fn volume(name: &str, numbers: std::ops::RangeInclusive<u64>) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("ftdm-pairs-{}-{name}", std::process::id()));
        let mut content = vec![0; usize::try_from(RING).unwrap() * BLOCK];
        for number in numbers {
            let at = usize::try_from(offset(number)).unwrap();
            for word in content[at..at + BLOCK].chunks_exact_mut(8) {
                word.copy_from_slice(&number.to_le_bytes());
            }
        }
        std::fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn two_instants_and_lost_records_are_told() {
        let (a, b, old) = (volume("a", 1..=100), volume("b", 1..=99), volume("old", 1..=98));
        let (few, none) = (volume("few", 1..=1), volume("none", 1..=0));
        let notes = std::env::temp_dir().join(format!("ftdm-pairs-{}-notes", std::process::id()));
        std::fs::write(&notes, "7 40\n9 99\n").unwrap();
        assert!(check([&a, &b], &notes, 10).unwrap().contains("\"second_volume\": 99"));
        let refuse = |devices, epoch| check(devices, &notes, epoch).unwrap_err().to_string();
        assert!(refuse([&a, &old], 10).contains("a mix of two instants"));
        assert!(refuse([&b, &a], 10).contains("a mix of two instants"));
        assert!(refuse([&old, &old], 10).contains("records lost"));
        assert!(refuse([&a, &b], 8).contains("epoch 9 was acknowledged"));
        assert!(refuse([&a, &a], 9).contains("begun after epoch 9"));
        assert!(refuse([&few, &none], 10).contains("records lost"));
        for path in [a, b, old, few, none, notes] {
            std::fs::remove_file(path).unwrap();
        }
    }
}
