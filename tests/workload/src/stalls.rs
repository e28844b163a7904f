//! A writer that tells how long the device made it wait.
//!
//! Always holds: a line is on its file, which is to be elsewhere, before the next write begins; each write
//! goes past the page cache.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use ftdm::block_io::AlignedBuffer;
use nix::libc::O_DIRECT;

const BLOCK: u64 = 4096;
/// Time between two writes.
const INTERVAL: Duration = Duration::from_millis(2);

/// Writes to the last block of `device` for so many seconds; notes, in milliseconds, each write that took
/// longer than `above`. Returns the longest and how many there were.
pub(crate) fn run(device: &Path, notes: &Path, above: Duration, seconds: u64) -> anyhow::Result<String> {
    let mut file = File::options().write(true).custom_flags(O_DIRECT).open(device)?;
    let size = std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0))?;
    let mut notes = File::options().create(true).append(true).open(notes).context("the notes")?;
    let mut buffer = AlignedBuffer::new(usize::try_from(BLOCK)?);
    let (start, mut longest, mut writes) = (Instant::now(), Duration::ZERO, 0u64);
    while start.elapsed() < Duration::from_secs(seconds) {
        writes += 1;
        buffer.bytes_mut()[..8].copy_from_slice(&writes.to_le_bytes());
        let begun = Instant::now();
        file.write_all_at(buffer.bytes(), size / BLOCK * BLOCK - BLOCK)?;
        let took = begun.elapsed();
        longest = longest.max(took);
        if took > above {
            // In one piece: others may note theirs in the same file.
            notes.write_all(format!("{}\n", took.as_millis()).as_bytes())?;
        }
        thread::sleep(INTERVAL);
    }
    Ok(format!("{writes} writes, the longest took {} ms", longest.as_millis()))
}
