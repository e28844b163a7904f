//! Giving pending discards to the volume, in the pause of a cut.
//!
//! Always holds: every block of dm-era that an issued discard touches is marked by a discard that lies within
//! that block alone, and has completed before one that does not is sent; what is given to the volume was pending; it is in
//! `issued` before the kernel hears of it.

use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::pending::Pending;
use super::valve::{Limit, Valve};
use crate::block_io::{Access, BlockDevice};
use crate::name::Part;
use crate::pause::pool::PausePool;
use crate::pause::pulse::{Phase, Pulse};
use crate::stack::{Stack, StackError};
use crate::table::BlockSectors;
use crate::units::{Extent, Sector, Sectors};

/// Units sent at a time at most: as many as the volume has been seen to take in a pause's slice.
const BATCH: usize = 8;
/// Longest time in one pause, as long as one discard does not take longer.
const SLICE: Duration = Duration::from_millis(2);
/// The same, as a share of the pause's budget.
const SHARE_OF_BUDGET: u32 = 4;
/// After discards that took a time t none are given for this many times t: 1/21 of the time at most.
const REST: u32 = 20;

/// Units in which a device can be given discards, in sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Granule {
    len: u64,
    offset: u64,
}

impl Granule {
    /// From a device's own figures, in bytes.
    fn of(granularity: u64, alignment: u64, logical_block: u32) -> Self {
        let len = granularity.max(logical_block.into()).div_ceil(512).max(1);
        Self { len, offset: alignment / 512 % len }
    }

    /// The first whole unit that begins at or after `at`, and lies within `within`.
    fn next(self, at: Sector, within: Extent) -> Option<Extent> {
        let from = at.0.max(self.offset) - self.offset;
        let start = from.div_ceil(self.len) * self.len + self.offset;
        let unit = Extent::new(Sector(start), Sectors(self.len))?;
        (unit.start() >= within.start() && unit.end() <= within.end()).then_some(unit)
    }
}

/// What to discard together: the discards that mark, one block of dm-era each, and the whole, when the marking
/// ones are too small to have an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unit {
    extent: Extent,
    whole: bool,
}

/// The first unit of `extent` from `at` on.
fn next_unit(at: Sector, extent: Extent, granule: Granule, block: BlockSectors) -> Option<Unit> {
    let first = granule.next(at, extent)?;
    let block_len = u64::from(block.get());
    let fits = block_len.is_multiple_of(granule.len) && granule.offset == 0;
    if !fits {
        return Some(Unit { extent: first, whole: true });
    }
    // As many units as there are up to the end of the block or of the extent.
    let block_end = (first.start().0 / block_len + 1) * block_len;
    let end = extent.end().0.min(block_end);
    let end = end - end % granule.len;
    Some(Unit { extent: Extent::between(first.start(), Sector(end))?, whole: false })
}

/// The parts of `extent` in each block.
fn in_blocks(extent: Extent, block: BlockSectors) -> impl Iterator<Item = Extent> {
    let len = u64::from(block.get());
    let first = extent.start().0 / len;
    let last = (extent.end().0 - 1) / len;
    (first..=last).filter_map(move |n| {
        let whole = Extent::new(Sector(n * len), Sectors(len))?;
        whole.intersect(extent)
    })
}

/// What was issued in one pause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Issued {
    /// Discards sent.
    pub(crate) count: usize,
    /// Sectors given to the volume.
    pub(crate) sectors: u64,
}

/// The way to the volume.
#[derive(Debug)]
pub(crate) struct Outlet {
    valve: Valve,
    granule: Granule,
    block: BlockSectors,
    /// Where the last pause ended: the next one goes on from there.
    cursor: Sector,
    rests_until: Instant,
    /// How many units are sent at a time.
    batch: usize,
    /// These.
    units: Vec<Unit>,
    /// The discards of these.
    parts: Vec<Extent>,
}

impl Outlet {
    /// Lets discards through to the volume. Also gives the device that they go to. `None` when that takes none,
    /// or the stack has no gate.
    pub(crate) fn open(stack: &Stack) -> Result<Option<(Self, BlockDevice)>, StackError> {
        let Some(gate) = stack.gate().filter(|_| stack.passes()) else { return Ok(None) };
        let Some(outlet) = stack.outlet() else {
            log::warn!(
                "{}: an older ftdm made its stack, so the guest cannot discard; ftdm remove and create it again",
                stack.name()
            );
            return Ok(None);
        };
        let step = |step: &str| {
            let step = step.to_owned();
            move |e: io::Error| StackError::Step { step, reason: e.to_string() }
        };
        let gate_limit = Limit::open(gate).map_err(step("open the limit of discards of the gate"))?;
        if gate_limit.get().map_err(step("read the limit of discards of the gate"))? > 0 {
            let what = "it takes discards, and must not".to_owned();
            return Err(StackError::Form { name: stack.name().of(Part::Gate), what });
        }
        let mut valve = stack.valve()?;
        if !valve.let_through(stack.era()).map_err(step("let discards through"))? {
            log::warn!("{}: its volume takes no discards, so the guest cannot discard", stack.name());
            return Ok(None);
        }
        let granule = valve.limit().granule();
        let (granularity, alignment) = granule.map_err(step("read the granule of discards"))?;
        let device = BlockDevice::open_dm(outlet, Access { write: true, ..Access::default() })?;
        let granule = Granule::of(granularity, alignment, device.logical_block());
        let block = stack.history()?.block;
        let marks = usize::try_from(granule.len / u64::from(block.get())).unwrap_or(0) + 2;
        let outlet = Self {
            valve,
            granule,
            block,
            cursor: Sector(0),
            rests_until: Instant::now(),
            batch: 1,
            units: Vec::with_capacity(BATCH),
            parts: Vec::with_capacity(marks.max(BATCH)),
        };
        Ok(Some((outlet, device)))
    }

    /// How long a pause with this budget may take for discards; `None` when it is too soon for any.
    pub(crate) fn slice(&self, budget: Duration) -> Option<Duration> {
        (Instant::now() >= self.rests_until).then(|| SLICE.min(budget / SHARE_OF_BUDGET))
    }

    /// Whether some of `pending` is worth a discard.
    pub(crate) fn can_issue(&self, pending: &Pending) -> bool {
        let whole = |extent: &Extent| next_unit(extent.start(), *extent, self.granule, self.block);
        pending.extents().iter().any(|extent| whole(extent).is_some())
    }

    /// Gives discards to the volume until `end`. Only while the visible device is suspended.
    pub(crate) fn issue(
        &mut self,
        pending: &mut Pending,
        issued: &mut Pending,
        pool: &mut PausePool,
        end: Instant,
        pulse: &dyn Pulse,
    ) -> Issued {
        let began = Instant::now();
        let mut done = Issued::default();
        let mut may_wrap = true;
        while issued.room() > BATCH && Instant::now() < end {
            self.collect(pending);
            if self.units.is_empty() && std::mem::take(&mut may_wrap) {
                self.cursor = Sector(0);
                self.collect(pending);
            }
            if self.units.is_empty() {
                break;
            }
            pulse.beat(Phase::Paused);
            self.units.iter().for_each(|unit| issued.add(unit.extent));
            done.count += self.parts.len();
            let sent_at = Instant::now();
            let mut sent = pool.discard(&self.parts);
            if let ([Unit { extent, whole: true }], Ok(())) = (&self.units[..], &sent) {
                done.count += 1;
                sent = pool.discard(&[*extent]);
            }
            match sent {
                // The valve was shut: the check that follows tells why.
                Err(e) if e.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => break,
                Err(e) => log::debug!("discarding {:?}: {e}", self.units),
                Ok(()) => done.sectors += self.units.iter().map(|unit| unit.extent.len().0).sum::<u64>(),
            }
            self.units.iter().for_each(|unit| pending.remove(unit.extent));
            self.adapt(sent_at.elapsed());
        }
        let now = Instant::now();
        self.rests_until = now + (now - began) * REST;
        done
    }

    /// Learns from how long a batch took.
    fn adapt(&mut self, took: Duration) {
        if took > SLICE {
            self.batch = (self.batch / 2).max(1);
        } else if took < SLICE / 2 && self.units.len() == self.batch {
            self.batch = (self.batch * 2).min(BATCH);
        }
    }

    /// What to send at a time, from the cursor on: several units that mark by themselves, or one that does not.
    fn collect(&mut self, pending: &Pending) {
        self.units.clear();
        self.parts.clear();
        let first = pending.extents().partition_point(|extent| extent.end() <= self.cursor);
        for extent in &pending.extents()[first..] {
            let mut at = self.cursor.max(extent.start());
            while let Some(unit) = next_unit(at, *extent, self.granule, self.block) {
                if self.units.len() == self.batch || (unit.whole && !self.units.is_empty()) {
                    return;
                }
                at = unit.extent.end();
                self.cursor = at;
                self.units.push(unit);
                self.parts.extend(in_blocks(unit.extent, self.block));
            }
        }
    }

    /// Lets nothing through any more.
    pub(crate) fn shut(&self) -> io::Result<()> {
        self.valve.shut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn units(extent: Extent, granule: Granule, block: BlockSectors) -> Vec<Unit> {
        let mut units = Vec::new();
        let mut at = extent.start();
        while let Some(unit) = next_unit(at, extent, granule, block) {
            at = unit.extent.end();
            units.push(unit);
        }
        units
    }

    proptest! {
        #[test]
        fn units_are_whole_granules_and_each_block_is_marked_by_itself(
            start in 0..4000u64, len in 1..3000u64, granularity in 1..40u64, offset in 0..40u64, block in 1..20u32,
        ) {
            let extent = Extent::new(Sector(start), Sectors(len)).unwrap();
            let granule = Granule { len: granularity, offset: offset % granularity };
            let block = BlockSectors::new(block * 8).unwrap();
            let units = units(extent, granule, block);
            let mut covered = Vec::new();
            for unit in &units {
                prop_assert!(extent.intersect(unit.extent) == Some(unit.extent));
                prop_assert_eq!((unit.extent.start().0 + granule.len - granule.offset) % granule.len, 0);
                prop_assert_eq!(unit.extent.len().0 % granule.len, 0);
                let parts: Vec<_> = in_blocks(unit.extent, block).collect();
                prop_assert!(unit.whole || parts == [unit.extent]);
                let len = u64::from(block.get());
                prop_assert!(parts.iter().all(|p| p.start().0 / len == (p.end().0 - 1) / len));
                prop_assert_eq!(parts.iter().map(|p| p.len().0).sum::<u64>(), unit.extent.len().0);
                covered.extend(unit.extent.start().0..unit.extent.end().0);
            }
            // Every whole granule of the extent is in one of them.
            let wanted: Vec<u64> = (start..start + len)
                .filter(|s| {
                    let Some(from) = s.checked_sub(granule.offset) else { return false };
                    let first = from / granule.len * granule.len + granule.offset;
                    first >= start && first + granule.len <= start + len
                })
                .collect();
            prop_assert_eq!(covered, wanted);
        }
    }

    #[test]
    fn a_thin_pool_of_large_chunks_gets_whole_chunks_behind_their_marks() {
        let granule = Granule::of(1 << 20, 0, 512);
        let block = BlockSectors::new(128).unwrap();
        let extent = Extent::new(Sector(100), Sectors(3 * 2048)).unwrap();
        let units = units(extent, granule, block);
        assert_eq!(units.len(), 2);
        assert!(units.iter().all(|unit| unit.whole));
        assert_eq!(in_blocks(units[0].extent, block).count(), 16);
        assert_eq!(Granule::of(0, 0, 4096).len, 8);
    }
}
