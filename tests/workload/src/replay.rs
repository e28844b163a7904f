//! What a power cut at each flush would have left of a device, from the log that dm-log-writes kept of it.
//!
//! Always holds: a batch, the writes that one flush made durable, is written whole and in its order; of the batch
//! after it only what the seed lets survive, sector by sector. Point 0 is the device before any flush.

use std::path::Path;

use anyhow::{Context, ensure};
use ftdm::block_io::{Access, AlignedBuffer, BlockDevice};
use ftdm::log_writes::format::{FLUSH, FUA, HEADER, Header, LogSector, SUPER, parse_super};
use ftdm::units::{Extent, SECTOR_SIZE, Sectors};

/// Sectors copied at a time.
const CHUNK: u64 = 2048;

/// One entry and where its data lies.
struct Entry {
    header: Header,
    /// Everything completed before it is durable with it.
    flushes: bool,
    /// Durable by itself.
    fua: bool,
    mark: Option<String>,
    data: u64,
}

/// A finished log, read from its beginning.
struct Log {
    device: BlockDevice,
    unit: LogSector,
    volume: Sectors,
    left: u64,
    at: u64,
    buffer: AlignedBuffer,
}

impl Log {
    fn open(path: &Path, volume: Sectors) -> anyhow::Result<Self> {
        let device = BlockDevice::open(path, Access { direct: true, ..Access::default() })?;
        let unit = LogSector::new(device.logical_block()).context("the log's sector size")?;
        let mut buffer = AlignedBuffer::new(SUPER);
        device.read_at(0, buffer.bytes_mut())?;
        let left = parse_super(buffer.bytes().first_chunk().context("a whole super")?, unit)?;
        Ok(Self { device, unit, volume, left, at: u64::from(unit.bytes()), buffer })
    }

    fn next(&mut self) -> anyhow::Result<Option<Entry>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let bytes = &mut self.buffer.bytes_mut()[..self.unit.bytes() as usize];
        self.device.read_at(self.at, bytes)?;
        let header = Header::parse(bytes, self.unit, self.volume)?;
        let flags = bytes[16];
        let mark = match header {
            Header::Mark(len) => Some(String::from_utf8_lossy(&bytes[HEADER..HEADER + len]).into_owned()),
            _ => None,
        };
        let data = self.at + u64::from(self.unit.bytes());
        self.at = data + header.data().0 * SECTOR_SIZE as u64;
        let has = |flag: u64| u64::from(flags) & flag != 0;
        Ok(Some(Entry { header, flushes: has(FLUSH), fua: has(FUA), mark, data }))
    }
}

/// The points after the mark `from`: a line `POINT EPOCH` each, EPOCH being that of the last mark
/// `acknowledged-EPOCH` before it.
pub(crate) fn points(log: &Path, device: &Path, from: &str) -> anyhow::Result<String> {
    let volume = BlockDevice::open(device, Access::default())?.size();
    let mut log = Log::open(log, volume)?;
    let (mut point, mut acknowledged, mut begun, mut lines) = (0, 0, false, String::new());
    while let Some(entry) = log.next()? {
        if let Some(mark) = &entry.mark {
            begun |= mark == from;
            if let Some(epoch) = mark.strip_prefix("acknowledged-") {
                acknowledged = epoch.trim_end_matches('\0').parse().context("a mark's epoch")?;
            }
        }
        if entry.flushes {
            point += 1;
            if begun {
                lines.push_str(&format!("{point} {acknowledged}\n"));
            }
        }
    }
    ensure!(begun, "there is no mark `{from}`");
    Ok(lines)
}

/// Brings `device` from point `from` to point `to`, then adds what `seed` lets survive of the writes that the
/// next flush would have made durable.
pub(crate) fn replay(
    log: &Path,
    device: &Path,
    from: u64,
    to: u64,
    seed: Option<u64>,
) -> anyhow::Result<String> {
    let device = BlockDevice::open(device, Access { write: true, direct: true, ..Access::default() })?;
    let mut log = Log::open(log, device.size())?;
    let mut buffer = AlignedBuffer::new(usize::try_from(CHUNK)? * SECTOR_SIZE);
    let (mut point, mut whole, mut torn) = (0, 0, 0);
    while let Some(entry) = log.next()? {
        if let Header::Write(extent) = entry.header {
            let survives = if point < to || entry.fua { None } else { seed };
            if point >= from && (point < to || seed.is_some()) {
                copy(&log.device, &entry, extent, &device, &mut buffer, survives)?;
                if point < to { whole += 1 } else { torn += 1 }
            }
        }
        if entry.flushes {
            if point >= to {
                break;
            }
            point += 1;
        }
    }
    device.flush()?;
    ensure!(point >= to, "the log has {point} points");
    Ok(format!("{whole} writes, and parts of {torn}"))
}

/// Copies a write, or those sectors of it that the seed lets survive.
fn copy(
    log: &BlockDevice,
    entry: &Entry,
    extent: Extent,
    device: &BlockDevice,
    buffer: &mut AlignedBuffer,
    seed: Option<u64>,
) -> anyhow::Result<()> {
    let size = SECTOR_SIZE as u64;
    let start = extent.start().bytes().context("an extent beyond 64 bits")?;
    let mut done = 0;
    while done < extent.len().0 {
        let count = CHUNK.min(extent.len().0 - done);
        let bytes = &mut buffer.bytes_mut()[..usize::try_from(count * size)?];
        log.read_at(entry.data + done * size, bytes)?;
        match seed {
            None => device.write_at(start + done * size, bytes)?,
            Some(seed) => {
                for (number, sector) in (done..).zip(0..count) {
                    if survives(seed, entry.data + number * size) {
                        let from = usize::try_from(sector * size)?;
                        // Each in aligned memory.
                        let mut one = AlignedBuffer::new(SECTOR_SIZE);
                        one.bytes_mut().copy_from_slice(&buffer.bytes()[from..from + SECTOR_SIZE]);
                        device.write_at(start + number * size, one.bytes())?;
                    }
                }
            }
        }
        done += count;
    }
    Ok(())
}

/// About half of the sectors do; most writes wholly or not at all, as a disk's cache would.
fn survives(seed: u64, at: u64) -> bool {
    let mix = |value: u64| {
        let mixed = (value ^ seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 31)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 33
    };
    // Runs of 16 sectors share their fate, but for one in eight of them.
    let run = mix(at / (16 * SECTOR_SIZE as u64));
    if run % 8 == 0 { mix(at) % 2 == 0 } else { (run / 8) % 2 == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_half_survives_and_the_seed_decides() {
        let kept = |seed| (0..10_000).filter(|n| survives(seed, n * 512)).count();
        for seed in 1..20 {
            assert!((4_000..6_000).contains(&kept(seed)), "{}", kept(seed));
        }
        assert!((0..1000).any(|n| survives(1, n * 512) != survives(2, n * 512)));
    }
}
