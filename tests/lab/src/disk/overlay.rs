//! A disk image behind a volatile write cache.
//!
//! Writes live in memory until a flush merges them into the image, so a power cut loses them: all,
//! or a seeded random part, sector by sector. What must hold: after [`CachedDisk::flush`] returns,
//! everything written before survives any cut; reads always see the latest write; the cache never
//! exceeds its limit (the oldest pages are written through, as real caches do).

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FallocateFlags, fallocate};

/// The unit that survives a power cut as a whole.
pub const SECTOR: usize = 512;

/// The unit in which the cache is managed.
const PAGE: usize = 4096;
const SECTORS_PER_PAGE: usize = PAGE / SECTOR;

/// The most that one write to the image merges.
const MERGE: usize = 1024 * 1024;

/// What a power cut leaves of the unflushed sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survivors {
    /// None.
    Nothing,
    /// About half of them, chosen by this seed and the sector's number alone.
    Random(u64),
}

/// What becomes of flushes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Flushes {
    /// They make durable what was written.
    #[default]
    Work,
    /// They are answered with an error and do nothing; reads and writes go on.
    Fail,
}

/// What a disk has done since the lab started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that read.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Requests that wrote.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Flushes that were done.
    pub flushes: u64,
    /// Flushes that were answered with an error.
    pub failed_flushes: u64,
    /// Requests that discarded.
    pub discards: u64,
    /// Bytes written to the image without a flush, because the cache was full.
    pub written_through_bytes: u64,
    /// Sectors lost in power cuts.
    pub lost_sectors: u64,
    /// Unflushed sectors that survived power cuts.
    pub survived_sectors: u64,
}

#[derive(Debug)]
struct Page {
    /// Bit n: sector n of the page is in the cache.
    sectors: u8,
    bytes: Box<[u8; PAGE]>,
}

/// An image file with a write cache in front.
#[derive(Debug)]
pub struct CachedDisk {
    image: File,
    size: u64,
    cache: BTreeMap<u64, Page>,
    /// Pages in the order in which they entered the cache.
    oldest: VecDeque<u64>,
    most_pages: usize,
    flushes: Flushes,
    counters: Counters,
}

impl CachedDisk {
    /// A disk of `size` bytes (whole pages) kept in `image`, with a cache of at most `limit` bytes.
    #[must_use]
    pub fn new(image: File, size: u64, limit: usize) -> Self {
        CachedDisk {
            image,
            size,
            cache: BTreeMap::new(),
            oldest: VecDeque::new(),
            most_pages: (limit / PAGE).max(1),
            flushes: Flushes::Work,
            counters: Counters::default(),
        }
    }

    /// The size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What the disk has done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Reads whole sectors at the byte `offset`.
    ///
    /// # Errors
    /// `InvalidInput` when they are not sectors of this disk; what the image file says.
    pub fn read(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.check(offset, buffer.len())?;
        self.image.read_exact_at(buffer, offset)?;
        let first = offset / PAGE as u64;
        let end = (offset + buffer.len() as u64).div_ceil(PAGE as u64);
        for (&number, page) in self.cache.range(first..end) {
            for sector in (0..SECTORS_PER_PAGE).filter(|sector| page.sectors & (1 << sector) != 0) {
                let at = number * PAGE as u64 + (sector * SECTOR) as u64;
                let Some(into) = at.checked_sub(offset).and_then(|at| usize::try_from(at).ok()) else {
                    continue;
                };
                if let Some(target) = buffer.get_mut(into..into + SECTOR) {
                    target.copy_from_slice(&page.bytes[sector * SECTOR..][..SECTOR]);
                }
            }
        }
        self.counters.reads += 1;
        self.counters.read_bytes += buffer.len() as u64;
        Ok(())
    }

    /// Writes whole sectors at the byte `offset` into the cache.
    ///
    /// # Errors
    /// As [`CachedDisk::read`].
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check(offset, bytes.len())?;
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            let number = at / PAGE as u64;
            let within = usize::try_from(at % PAGE as u64).unwrap_or(0);
            let (piece, after) = rest.split_at(rest.len().min(PAGE - within));
            let page = self.cache.entry(number).or_insert_with(|| {
                self.oldest.push_back(number);
                Page { sectors: 0, bytes: Box::new([0; PAGE]) }
            });
            page.bytes[within..within + piece.len()].copy_from_slice(piece);
            for sector in within / SECTOR..(within + piece.len()) / SECTOR {
                page.sectors |= 1 << sector;
            }
            at += piece.len() as u64;
            rest = after;
        }
        self.counters.writes += 1;
        self.counters.written_bytes += bytes.len() as u64;
        self.write_through()
    }

    /// Discards whole sectors: they read as zeros from now on, whatever happens to the power. (A disk
    /// may keep a discard or forget it in a cut; this one keeps it, which spares the cache.)
    ///
    /// # Errors
    /// As [`CachedDisk::read`].
    pub fn discard(&mut self, offset: u64, length: u64) -> io::Result<()> {
        self.check(offset, usize::try_from(length).unwrap_or(usize::MAX))?;
        let first = offset / PAGE as u64;
        let end = (offset + length).div_ceil(PAGE as u64);
        for (&number, page) in self.cache.range_mut(first..end) {
            for sector in 0..SECTORS_PER_PAGE {
                let at = number * PAGE as u64 + (sector * SECTOR) as u64;
                if (offset..offset + length).contains(&at) {
                    page.sectors &= !(1 << sector);
                }
            }
        }
        let (at, length) = (i64::try_from(offset), i64::try_from(length));
        if let (Ok(at), Ok(length @ 1..)) = (at, length) {
            let how = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            fallocate(&self.image, how, at, length)?;
        }
        self.counters.discards += 1;
        Ok(())
    }

    /// What becomes of flushes from now on, also across power cuts.
    pub fn set_flushes(&mut self, flushes: Flushes) {
        self.flushes = flushes;
    }

    /// Makes everything written so far survive.
    ///
    /// # Errors
    /// When flushes are to fail, and what the image file says; nothing is dropped from the cache then.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.flushes == Flushes::Fail {
            self.counters.failed_flushes += 1;
            return Err(io::Error::other("flushes are to fail"));
        }
        merge(&self.image, &self.cache, |_| true)?;
        self.cache.clear();
        self.oldest.clear();
        self.counters.flushes += 1;
        Ok(())
    }

    /// The power is cut: what was not flushed is lost, but for the survivors.
    ///
    /// # Errors
    /// What the image file says.
    pub fn cut_power(&mut self, survivors: Survivors) -> io::Result<()> {
        let all: u64 = self.cache.values().map(|page| u64::from(page.sectors.count_ones())).sum();
        let kept = match survivors {
            Survivors::Nothing => 0,
            Survivors::Random(seed) => merge(&self.image, &self.cache, |sector| survives(seed, sector))?,
        };
        self.cache.clear();
        self.oldest.clear();
        self.counters.survived_sectors += kept;
        self.counters.lost_sectors += all - kept;
        Ok(())
    }

    fn check(&self, offset: u64, length: usize) -> io::Result<()> {
        let fits = offset.checked_add(length as u64).is_some_and(|end| end <= self.size);
        if fits && offset.is_multiple_of(SECTOR as u64) && length.is_multiple_of(SECTOR) {
            Ok(())
        } else {
            let what = format!("{length} bytes at {offset} are not sectors of a disk of {} bytes", self.size);
            Err(io::Error::new(io::ErrorKind::InvalidInput, what))
        }
    }

    fn write_through(&mut self) -> io::Result<()> {
        while self.cache.len() > self.most_pages {
            let Some(number) = self.oldest.pop_front() else { break };
            if let Some(page) = self.cache.remove(&number) {
                let one = BTreeMap::from([(number, page)]);
                self.counters.written_through_bytes += merge(&self.image, &one, |_| true)? * SECTOR as u64;
            }
        }
        Ok(())
    }
}

/// Whether a sector survives: a fixed function, so that a run can be repeated by its seed.
/// (The finaliser of `SplitMix64`, Steele et al. 2014.)
fn survives(seed: u64, sector: u64) -> bool {
    let mut bits = seed ^ sector.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits ^ (bits >> 31)) & 1 == 0
}

/// Writes the chosen cached sectors to the image, neighbours together; returns how many.
fn merge(image: &File, cache: &BTreeMap<u64, Page>, chosen: impl Fn(u64) -> bool) -> io::Result<u64> {
    let mut run = Vec::new();
    let mut run_at = 0;
    let mut count = 0;
    for (&number, page) in cache {
        for sector in (0..SECTORS_PER_PAGE).filter(|sector| page.sectors & (1 << sector) != 0) {
            let absolute = number * SECTORS_PER_PAGE as u64 + sector as u64;
            if !chosen(absolute) {
                continue;
            }
            let at = absolute * SECTOR as u64;
            if run_at + run.len() as u64 != at || run.len() >= MERGE {
                image.write_all_at(&run, run_at)?;
                run.clear();
                run_at = at;
            }
            run.extend_from_slice(&page.bytes[sector * SECTOR..][..SECTOR]);
            count += 1;
        }
    }
    image.write_all_at(&run, run_at)?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 64 * PAGE as u64;

    fn disk(limit: usize) -> CachedDisk {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ftdm-lab-overlay-{}-{number}", std::process::id()));
        let image = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        image.set_len(SIZE).unwrap();
        CachedDisk::new(image, SIZE, limit)
    }

    fn content(disk: &mut CachedDisk) -> Vec<u8> {
        let mut all = vec![0; usize::try_from(SIZE).unwrap()];
        disk.read(0, &mut all).unwrap();
        all
    }

    #[test]
    fn a_cut_loses_what_was_not_flushed_and_only_that() {
        let mut disk = disk(1 << 20);
        disk.write(512, &[1; 1024]).unwrap();
        disk.flush().unwrap();
        disk.write(1024, &[2; 512]).unwrap();
        assert_eq!(content(&mut disk)[512..1536], [[1; 512], [2; 512]].concat());
        disk.cut_power(Survivors::Nothing).unwrap();
        assert_eq!(content(&mut disk)[512..1536], [1; 1024]);
        assert_eq!(disk.counters().lost_sectors, 1);
    }

    #[test]
    fn a_random_part_survives_and_the_seed_decides_which() {
        let parts: Vec<Vec<u8>> = [7, 7, 8]
            .iter()
            .map(|&seed| {
                let mut disk = disk(1 << 20);
                disk.write(0, &[1; 32 * PAGE]).unwrap();
                disk.cut_power(Survivors::Random(seed)).unwrap();
                let counters = disk.counters();
                assert_eq!(counters.lost_sectors + counters.survived_sectors, 256);
                assert!((64..192).contains(&counters.survived_sectors));
                content(&mut disk)
            })
            .collect();
        assert_eq!(parts[0], parts[1]);
        assert_ne!(parts[0], parts[2]);
    }

    #[test]
    fn a_full_cache_writes_its_oldest_page_through() {
        let mut disk = disk(2 * PAGE);
        for page in 0..3 {
            disk.write(page * PAGE as u64, &[9; PAGE]).unwrap();
        }
        assert_eq!(disk.counters().written_through_bytes, PAGE as u64);
        disk.cut_power(Survivors::Nothing).unwrap();
        let after = content(&mut disk);
        assert!(after[..PAGE].iter().all(|&byte| byte == 9) && after[PAGE..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn flushes_that_are_to_fail_keep_nothing_from_a_cut() {
        let mut disk = disk(1 << 20);
        disk.write(0, &[1; 512]).unwrap();
        disk.set_flushes(Flushes::Fail);
        assert!(disk.flush().is_err());
        disk.write(512, &[2; 512]).unwrap();
        assert_eq!(content(&mut disk)[..1024], [[1; 512], [2; 512]].concat());
        disk.cut_power(Survivors::Nothing).unwrap();
        assert!(disk.flush().is_err());
        assert_eq!((disk.counters().lost_sectors, disk.counters().failed_flushes), (2, 2));
        disk.write(0, &[3; 512]).unwrap();
        disk.set_flushes(Flushes::Work);
        disk.flush().unwrap();
        disk.cut_power(Survivors::Nothing).unwrap();
        assert_eq!(content(&mut disk)[..512], [3; 512]);
    }

    #[test]
    fn requests_outside_the_disk_are_refused() {
        let mut disk = disk(1 << 20);
        assert!(disk.write(SIZE, &[0; 512]).is_err());
        assert!(disk.write(1, &[0; 512]).is_err());
        assert!(disk.write(0, &[0; 100]).is_err());
        assert!(disk.read(u64::MAX - 511, &mut [0; 512]).is_err());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write { sector: usize, count: usize, byte: u8 },
        Discard { sector: usize, count: usize },
        Flush,
        Cut,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..480_usize, 1..32_usize, any::<u8>())
                .prop_map(|(sector, count, byte)| Step::Write { sector, count, byte }),
            1 => (0..480_usize, 0..32_usize).prop_map(|(sector, count)| Step::Discard { sector, count }),
            2 => Just(Step::Flush),
            1 => Just(Step::Cut),
        ]
    }

    proptest! {
        /// The disk behaves as two arrays: what reads see, and what survives.
        #[test]
        fn the_disk_is_two_arrays(steps in prop::collection::vec(step(), 1..60)) {
            let mut disk = disk(1 << 20);
            let mut seen = vec![0_u8; usize::try_from(SIZE).unwrap()];
            let mut durable = seen.clone();
            for step in steps {
                match step {
                    Step::Write { sector, count, byte } => {
                        disk.write((sector * SECTOR) as u64, &vec![byte; count * SECTOR]).unwrap();
                        seen[sector * SECTOR..][..count * SECTOR].fill(byte);
                    }
                    Step::Discard { sector, count } => {
                        disk.discard((sector * SECTOR) as u64, (count * SECTOR) as u64).unwrap();
                        seen[sector * SECTOR..][..count * SECTOR].fill(0);
                        durable[sector * SECTOR..][..count * SECTOR].fill(0);
                    }
                    Step::Flush => {
                        disk.flush().unwrap();
                        durable.copy_from_slice(&seen);
                    }
                    Step::Cut => {
                        disk.cut_power(Survivors::Nothing).unwrap();
                        seen.copy_from_slice(&durable);
                    }
                }
                prop_assert!(content(&mut disk) == seen);
            }
        }
    }
}
