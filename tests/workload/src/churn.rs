//! Writers that overlap deliberately: the patterns for which a log alone does not tell the final content.
//!
//! Some threads write directly, some directly and synchronously (the kernel makes these writes FUA), some
//! through the page cache with fsync, some through it synchronously; all flush now and then, so that
//! several flushes are in flight at once. Those that go past the page cache share three quarters of the
//! device, and hit a small part of them often; those that go through it have the last quarter: the
//! kernel fails an fsync when both meet on one page.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use ftdm::block_io::AlignedBuffer;
use nix::libc::{O_DIRECT, O_DSYNC};

const BLOCK: u64 = 4096;

/// How much is written, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) threads: u64,
    pub(crate) seconds: u64,
    pub(crate) rate: u64,
    pub(crate) shared: u64,
}

/// Small, fast, reproducible: xorshift64*.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % limit.max(1)
    }
}

/// Runs all writers; says how much they wrote.
pub(crate) fn run(device: &Path, plan: Plan) -> anyhow::Result<String> {
    let mut probe = File::open(device).with_context(|| device.display().to_string())?;
    let size = std::io::Seek::seek(&mut probe, std::io::SeekFrom::End(0))?;
    let blocks = size / BLOCK;
    let writers: Vec<_> = (0..plan.threads)
        .map(|number| {
            let device = device.to_owned();
            thread::spawn(move || writer(&device, number, blocks, plan))
        })
        .collect();
    let mut written = 0;
    for writer in writers {
        written += writer.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
    }
    Ok(format!("{written} bytes written by {} threads", plan.threads))
}

fn writer(device: &Path, number: u64, blocks: u64, plan: Plan) -> anyhow::Result<u64> {
    let flags = [O_DIRECT, 0, O_DIRECT | O_DSYNC, O_DIRECT, O_DSYNC][usize::try_from(number % 5)?];
    let cached = flags & O_DIRECT == 0;
    let file = File::options().write(true).custom_flags(flags).open(device)?;
    let mut random = Random::new(plan.seed.wrapping_add(number + 1));
    let mut buffer = AlignedBuffer::new(usize::try_from(16 * BLOCK)?);
    let (start, mut done, mut written) = (Instant::now(), 0, 0);
    let end = Duration::from_secs(plan.seconds);
    while start.elapsed() < end {
        let due = Duration::from_micros(done * 1_000_000 / plan.rate.max(1));
        if let Some(wait) = due.checked_sub(start.elapsed()) {
            thread::sleep(wait.min(Duration::from_millis(20)));
            continue;
        }
        let count = 1 + random.below(if done % 8 == 0 { 16 } else { 3 });
        let (first, last) = if cached { (blocks / 4 * 3, blocks) } else { (0, blocks / 4 * 3) };
        let area = if random.below(3) == 0 { last - first } else { plan.shared.min(last - first) };
        let block = first + random.below(area.saturating_sub(count).max(1));
        let length = usize::try_from(count * BLOCK)?;
        let data = &mut buffer.bytes_mut()[..length];
        fill(data, number, done, random.below(5) == 0);
        file.write_all_at(data, block * BLOCK)?;
        if (flags == 0 && done % 4 == 0) || random.below(32) == 0 {
            file.sync_data()?;
        }
        done += 1;
        written += length as u64;
    }
    file.sync_all()?;
    Ok(written)
}

/// Content that tells who wrote it and when, or zeros.
fn fill(data: &mut [u8], writer: u64, count: u64, zeros: bool) {
    for (index, word) in data.chunks_exact_mut(8).enumerate() {
        let value = if zeros { 0 } else { (writer << 56) ^ (count << 16) ^ index as u64 };
        word.copy_from_slice(&value.to_le_bytes());
    }
}
