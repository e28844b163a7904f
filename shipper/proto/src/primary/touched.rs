//! What a resync would have to compare, and when rolling dm-era is worth its cost.
//!
//! After the primary's power is cut, both sides read and compare every granule that was written to since dm-era was
//! last rolled at a cut. A roll makes that set empty again. It costs the volume a longer pause, and after it the first
//! write to each granule waits for dm-era's metadata. So dm-era is not rolled by the clock. Every `roll-interval` the
//! primary asks two questions:
//!
//! - Would comparing the set take longer than `resync-target`, at the rate of this pair's last sync?
//! - Would a roll help? What was written to in the last interval is written to again after a roll. Only if that is at
//!   most half of the set does the roll at least halve what a resync compares.
//!
//! Always holds: the set has at least the granules of every epoch that was encoded since the last roll. The figures
//! decide only when dm-era is rolled, never what is copied: dm-era's own metadata says that.

use std::time::Duration;

use ftdm_units::{Era, Extent, SECTOR_SIZE, Sectors};

use super::Primary;
use super::plan::SyncFigures;
use crate::ids::VolumeIndex;

/// Bytes a second at which a pair compares, until one of its syncs has shown it.
const ASSUMED_RATE: u64 = 100 << 20;
/// A sync of fewer bytes says nothing about the rate: its fixed costs hide it.
const TELLING_SYNC: u64 = 64 << 20;
/// A roll has to make the set smaller by this factor.
const GAIN: u64 = 2;

/// Bytes of the granules that were written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TouchedBytes {
    /// Since the last roll.
    pub since_roll: u64,
    /// Since the last roll or the beginning of the present interval, whichever is later.
    pub recent: u64,
}

/// What becomes of the set after an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterEpoch {
    /// It grows on.
    #[default]
    Keep,
    /// An interval has ended.
    NewInterval,
    /// dm-era was rolled in the pause of the epoch's cut.
    Rolled,
}

/// The granules that were written to, of all volumes of a group. Takes a quarter of a byte for each granule.
#[derive(Clone, Debug)]
pub struct Touched {
    volumes: Vec<Volume>,
}

#[derive(Clone, Debug)]
struct Volume {
    granule: u64,
    since_roll: Bits,
    recent: Bits,
}

/// A set of granules and their number.
#[derive(Clone, Debug)]
struct Bits {
    words: Vec<u64>,
    count: u64,
}

impl Bits {
    fn of(granules: u64) -> Self {
        Self { words: vec![0; usize::try_from(granules.div_ceil(64)).unwrap_or(usize::MAX)], count: 0 }
    }

    fn insert(&mut self, granule: u64) {
        let word = usize::try_from(granule / 64).ok().and_then(|at| self.words.get_mut(at));
        if let Some(word) = word {
            let bit = 1 << (granule % 64);
            self.count += u64::from(*word & bit == 0);
            *word |= bit;
        }
    }

    fn clear(&mut self) {
        if self.count > 0 {
            self.words.fill(0);
            self.count = 0;
        }
    }
}

impl Touched {
    /// For volumes of these sizes, each with dm-era's granule for it, in the group's order.
    #[must_use]
    pub fn new(volumes: impl IntoIterator<Item = (Sectors, Sectors)>) -> Self {
        let volume = |(size, granule): (Sectors, Sectors)| {
            let granule = granule.0.max(1);
            let none = Bits::of(size.0.div_ceil(granule));
            Volume { granule, since_roll: none.clone(), recent: none }
        };
        Self { volumes: volumes.into_iter().map(volume).collect() }
    }

    /// Something was written there.
    pub fn note(&mut self, volume: VolumeIndex, extent: Extent) {
        let Some(volume) = self.volumes.get_mut(usize::from(volume.0)) else { return };
        let (start, end) = (extent.start().0, extent.end().0);
        for granule in start / volume.granule..end.div_ceil(volume.granule) {
            volume.since_roll.insert(granule);
            volume.recent.insert(granule);
        }
    }

    /// An epoch has ended: its figures, and what becomes of the set after it.
    pub fn end_epoch(&mut self, after: AfterEpoch) -> TouchedBytes {
        for volume in &mut self.volumes {
            match after {
                AfterEpoch::Keep => {}
                AfterEpoch::NewInterval => volume.recent.clear(),
                AfterEpoch::Rolled => {
                    volume.recent.clear();
                    volume.since_roll.clear();
                }
            }
        }
        let bytes = |of: fn(&Volume) -> &Bits| {
            let of = |volume: &Volume| of(volume).count * volume.granule * SECTOR_SIZE as u64;
            self.volumes.iter().map(of).sum()
        };
        TouchedBytes { since_roll: bytes(|v| &v.since_roll), recent: bytes(|v| &v.recent) }
    }
}

/// When dm-era was last rolled or considered, and what was written since.
#[derive(Clone, Copy, Debug)]
pub(super) struct RollClock {
    interval_begun: Duration,
    touched: TouchedBytes,
    /// Bytes a second.
    rate: u64,
}

impl Default for RollClock {
    fn default() -> Self {
        Self { interval_begun: Duration::ZERO, touched: TouchedBytes::default(), rate: ASSUMED_RATE }
    }
}

impl RollClock {
    /// dm-era was rolled, or need not be.
    pub(super) fn begin_interval(&mut self, now: Duration) {
        self.interval_begun = now;
    }

    pub(super) fn note(&mut self, touched: TouchedBytes) {
        self.touched = touched;
    }

    /// A sync has ended, and shows how fast this pair compares and copies.
    pub(super) fn learn(&mut self, sync: &SyncFigures) {
        if sync.bytes >= TELLING_SYNC {
            let micros = sync.elapsed.as_micros().max(1);
            let rate = u128::from(sync.bytes) * 1_000_000 / micros;
            self.rate = u64::try_from(rate).unwrap_or(u64::MAX).max(1);
        }
    }

    /// How long a resync would compare.
    pub(super) fn resync_time(&self) -> Duration {
        Duration::from_secs_f64(self.touched.since_roll as f64 / self.rate as f64)
    }

    pub(super) fn is_due(&self, now: Duration, interval: Duration, target: Duration) -> bool {
        let TouchedBytes { since_roll, recent } = self.touched;
        self.is_over(now, interval) && self.resync_time() > target && recent <= since_roll / GAIN
    }

    fn is_over(&self, now: Duration, interval: Duration) -> bool {
        self.interval_begun + interval <= now
    }
}

impl Primary {
    /// How long a resync would compare if the primary lost its power now: an estimate.
    #[must_use]
    pub fn resync_time(&self) -> Duration {
        self.rolls.resync_time()
    }

    /// Whether the next cut is to roll dm-era.
    pub(super) fn roll_is_due(&self, now: Duration) -> bool {
        self.rolls.is_due(now, self.config.roll_interval, self.config.resync_target)
    }

    /// A cut is done, in whose pause these eras began: what becomes of the set of granules after its epoch.
    pub(super) fn after_epoch(&mut self, now: Duration, eras: Option<Vec<Era>>) -> AfterEpoch {
        let after = match eras {
            Some(eras) => {
                self.note_roll(true, eras);
                AfterEpoch::Rolled
            }
            None if self.rolls.is_over(now, self.config.roll_interval) => AfterEpoch::NewInterval,
            None => return AfterEpoch::Keep,
        };
        self.rolls.begin_interval(now);
        after
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ftdm_units::Sector;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const SECOND: Duration = Duration::from_secs(1);

    fn extent(start: u64, len: u64) -> Extent {
        Extent::new(Sector(start), Sectors(len)).unwrap()
    }

    #[test]
    fn a_roll_empties_the_set_and_an_interval_only_what_is_recent() {
        let mut touched = Touched::new([(Sectors(1000), Sectors(128)), (Sectors(64), Sectors(8))]);
        touched.note(VolumeIndex(0), extent(127, 2));
        touched.note(VolumeIndex(0), extent(0, 1));
        touched.note(VolumeIndex(1), extent(63, 1));
        let all = (2 * 128 + 8) * 512;
        let figures = |since_roll, recent| TouchedBytes { since_roll, recent };
        assert_eq!(touched.end_epoch(AfterEpoch::Keep), figures(all, all));
        assert_eq!(touched.end_epoch(AfterEpoch::NewInterval), figures(all, 0));
        touched.note(VolumeIndex(0), extent(999, 1));
        assert_eq!(touched.end_epoch(AfterEpoch::Keep), figures(all + 128 * 512, 128 * 512));
        assert_eq!(touched.end_epoch(AfterEpoch::Rolled), figures(0, 0));
    }

    #[test]
    fn a_roll_is_due_only_if_a_resync_takes_long_and_the_roll_would_halve_it() {
        let due = |since_roll: u64, recent: u64, now: u64| {
            let mut clock = RollClock::default();
            clock.begin_interval(SECOND);
            clock.note(TouchedBytes { since_roll: since_roll << 20, recent: recent << 20 });
            clock.is_due(Duration::from_secs(now), 300 * SECOND, 10 * SECOND)
        };
        assert!(due(1001, 500, 301));
        assert!(!due(1000, 500, 301), "comparing it takes ten seconds");
        assert!(!due(1001, 501, 301), "after a roll most of it would be written to again");
        assert!(!due(1001, 500, 300), "the interval is not over");
    }

    #[test]
    fn a_large_sync_shows_the_rate_and_a_small_one_does_not() {
        let figures = |bytes: u64, elapsed| SyncFigures {
            base: None,
            carrier: None,
            is_whole: true,
            rounds: 1,
            round_bytes: bytes,
            bytes,
            stored: 0,
            skipped: 0,
            digests: 0,
            elapsed,
        };
        let mut clock = RollClock::default();
        clock.note(TouchedBytes { since_roll: 200 << 20, recent: 0 });
        assert_eq!(clock.resync_time(), 2 * SECOND);
        clock.learn(&figures(128 << 20, 4 * SECOND));
        assert_eq!(clock.resync_time(), Duration::from_millis(6250));
        clock.learn(&figures(1 << 20, 4 * SECOND));
        assert_eq!(clock.resync_time(), Duration::from_millis(6250));
        clock.learn(&figures(u64::MAX, Duration::ZERO));
        assert!(clock.resync_time() < SECOND);
    }

    proptest! {
        #[test]
        fn it_counts_the_granules_of_all_extents(
            granule in 1u64..20,
            extents in proptest::collection::vec((0u64..500, 1u64..60), 0..30),
        ) {
            let mut touched = Touched::new([(Sectors(560), Sectors(granule))]);
            let mut expected = BTreeSet::new();
            for (start, len) in extents {
                touched.note(VolumeIndex(0), extent(start, len));
                expected.extend((start..start + len).map(|sector| sector / granule));
            }
            let bytes = expected.len() as u64 * granule * 512;
            prop_assert_eq!(touched.end_epoch(AfterEpoch::Keep).since_roll, bytes);
        }
    }
}
