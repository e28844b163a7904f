//! Numbered records that go to two volumes in turn, and what must and must not be found of them after a promote.
//!
//! Several lanes write at once, each to blocks of its own. Record n of a lane is a block of the first volume, made
//! durable, and only then the same block of the second. So at any instant the second has every record that the
//! first has, but perhaps for the last one: whoever takes the two volumes from different instants breaks that.
//!
//! Always holds: a note `EPOCH LAST...`, of each lane, is written only after the checkpoint was acknowledged as
//! committed, with record LAST on both volumes before it was asked for.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use ftdm::block_io::AlignedBuffer;
use nix::libc::O_DIRECT;

const BLOCK: usize = 4096;
/// Records of a lane that a volume holds: record n is in the lane's block n % RING. Few, so that epochs overwrite
/// them several times.
const RING: u64 = 16;
const LANES: usize = 6;
/// Time between two records of a lane.
const PAUSE: Duration = Duration::from_millis(10);
/// Time between two checkpoints.
const INTERVAL: Duration = Duration::from_millis(200);

fn open(device: &Path, write: bool) -> anyhow::Result<File> {
    let opened = File::options().read(true).write(write).custom_flags(O_DIRECT).open(device);
    opened.with_context(|| device.display().to_string())
}

fn offset(lane: usize, number: u64) -> u64 {
    (lane as u64 * RING + number % RING) * BLOCK as u64
}

/// Writes records until it is stopped, and meanwhile checkpoints `group` again and again.
#[allow(clippy::exit, reason = "a writer that fails ends the command; the others never end by themselves")]
pub(crate) fn write(devices: [&Path; 2], notes: &Path, group: &str) -> anyhow::Result<()> {
    let devices = [open(devices[0], true)?, open(devices[1], true)?];
    let done = [const { AtomicU64::new(0) }; LANES];
    std::thread::scope(|scope| {
        for (lane, done) in done.iter().enumerate() {
            let devices = &devices;
            scope.spawn(move || {
                if let Err(error) = write_lane(devices, lane, done) {
                    println!("lane {lane}: {error}");
                    std::process::exit(1);
                }
            });
        }
        checkpoint(&done, notes, group)
    })
}

fn write_lane(devices: &[File; 2], lane: usize, done: &AtomicU64) -> anyhow::Result<()> {
    let mut buffer = AlignedBuffer::new(BLOCK);
    for number in 1_u64.. {
        for word in buffer.bytes_mut().chunks_exact_mut(8) {
            word.copy_from_slice(&number.to_le_bytes());
        }
        for device in devices {
            device.write_all_at(buffer.bytes(), offset(lane, number))?;
            device.sync_data()?;
        }
        done.store(number, Ordering::SeqCst);
        // The logs have room for what is written while whole volumes are read in the pauses.
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

fn checkpoint(done: &[AtomicU64; LANES], notes: &Path, group: &str) -> anyhow::Result<()> {
    let mut noted = File::options().create(true).append(true).open(notes).context("the notes' file")?;
    loop {
        std::thread::sleep(INTERVAL);
        let written: Vec<String> = done.iter().map(|done| done.load(Ordering::SeqCst).to_string()).collect();
        let answer = Command::new("ftship").args(["checkpoint", group, "--wait"]).output()?;
        ensure!(answer.status.success(), "checkpoint: {}", String::from_utf8_lossy(&answer.stderr));
        let epoch = String::from_utf8(answer.stdout)?;
        writeln!(noted, "{} {}", epoch.trim(), written.join(" "))?;
        noted.sync_all()?;
    }
}

/// The newest note: an epoch, and the last record of each lane in it. A last line that a power cut left unfinished is
/// passed over.
fn newest_note(path: &Path) -> anyhow::Result<(u64, [u64; LANES])> {
    let text = fs::read_to_string(path).context("the notes' file")?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let Some(line) = whole.lines().last() else { bail!("no checkpoint was acknowledged") };
    let numbers = line.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>().context("a note")?;
    let (epoch, lanes) = numbers.split_first().context("an empty note")?;
    Ok((*epoch, lanes.try_into().with_context(|| format!("note {line:?}"))?))
}

/// The last record of a lane on a volume: each block holds one record whole, the last that belongs there.
fn last(device: &Path, lane: usize) -> anyhow::Result<u64> {
    let file = open(device, false)?;
    let mut buffer = AlignedBuffer::new(BLOCK);
    let mut found = Vec::new();
    for slot in 0..RING {
        file.read_exact_at(buffer.bytes_mut(), offset(lane, slot))?;
        let mut words = buffer.bytes().chunks_exact(8);
        let first = words.next().unwrap_or_default();
        // A disk writes sectors whole; the kernel, and so the log, writes the block in one.
        ensure!(
            words.all(|word| word == first),
            "{}: lane {lane}: block {slot} is a mixture",
            device.display()
        );
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
            "{}: lane {lane}: block {slot} holds record {number}, wrong beside record {last}",
            device.display()
        );
    }
    Ok(last)
}

/// Compares the records on two volumes promoted at `epoch` with each other and with the notes; the answer is a
/// JSON object.
pub(crate) fn check(devices: [&Path; 2], notes: &Path, epoch: u64) -> anyhow::Result<String> {
    let (newest, acknowledged) = newest_note(notes)?;
    ensure!(epoch >= newest, "promoted at epoch {epoch}, but epoch {newest} was acknowledged");
    let mut under_way = 0;
    for (lane, acknowledged) in acknowledged.into_iter().enumerate() {
        let [first, second] = [last(devices[0], lane)?, last(devices[1], lane)?];
        ensure!(
            first == second || first == second + 1,
            "a mix of two instants: lane {lane} ends with record {first} on the first volume, {second} on the second"
        );
        ensure!(
            second >= acknowledged,
            "records lost: {acknowledged} of lane {lane} acknowledged, {second} found"
        );
        under_way += first - second;
    }
    Ok(format!("{{\"lanes\": {LANES}, \"between_the_volumes\": {under_way}, \"records_lost\": 0}}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file as a volume that holds so many records of each lane.
    fn volume(name: &str, last: u64) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("ftdm-pairs-{}-{name}", std::process::id()));
        let mut content = vec![0; LANES * usize::try_from(RING).unwrap() * BLOCK];
        for (lane, number) in (0..LANES).flat_map(|lane| (1..=last).map(move |number| (lane, number))) {
            let at = usize::try_from(offset(lane, number)).unwrap();
            for word in content[at..at + BLOCK].chunks_exact_mut(8) {
                word.copy_from_slice(&number.to_le_bytes());
            }
        }
        fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn two_instants_and_lost_records_are_told() {
        let (a, b, old) = (volume("a", 100), volume("b", 99), volume("old", 98));
        let (few, none) = (volume("few", 1), volume("none", 0));
        let notes = std::env::temp_dir().join(format!("ftdm-pairs-{}-notes", std::process::id()));
        fs::write(&notes, "7 4 4 4 4 4 4\n9 99 99 99 99 9 9\n11 99").unwrap();
        assert!(check([&a, &b], &notes, 10).unwrap().contains("\"between_the_volumes\": 6"));
        assert!(check([&a, &a], &notes, 9).unwrap().contains("\"between_the_volumes\": 0"));
        let refuse = |devices, epoch| check(devices, &notes, epoch).unwrap_err().to_string();
        assert!(refuse([&a, &old], 10).contains("a mix of two instants"));
        assert!(refuse([&b, &a], 10).contains("a mix of two instants"));
        assert!(refuse([&old, &old], 10).contains("records lost"));
        assert!(refuse([&a, &b], 8).contains("epoch 9 was acknowledged"));
        assert!(refuse([&few, &none], 10).contains("records lost"));
        for path in [a, b, old, few, none, notes] {
            fs::remove_file(path).unwrap();
        }
    }
}
