//! Finding RAM disks for the logs of a group, whatever others of this host have loaded brd for.
//!
//! brd has one size for all its disks, from when it was loaded, and as many as it was loaded with. But it makes another
//! one whenever somebody opens a number that it does not have, on kernels that load drivers by number
//! (`CONFIG_BLOCK_LEGACY_AUTOLOAD`, which distributions have). So there are always enough, and where each is too small
//! several are joined.
//!
//! Always holds: what is in use, or holds anything but a stale log, is not touched; each part of a joined log begins
//! with a mark that says whose it was, which no write of the log reaches.

use std::path::Path;

use super::{BRD, LogDevice, LogDeviceError, LogPair, load_brd};
use crate::name::Part;
use crate::stack::devices::{Devices, TargetLine};
use crate::stack::{Stack, remove_rams};
use crate::units::Sectors;

/// What each part of a joined log has before its share of the log: the mark.
const HEAD: u64 = 8;
/// What of a part is used is a multiple of this, so that no block of the volume is split.
const GRAIN: u64 = 8;
/// The most RAM disks that one log is joined of.
const MOST_PARTS: usize = 512;

/// How brd was loaded.
#[derive(Clone, Copy, Debug)]
struct Loaded {
    /// Of each RAM disk, also of those that are still to be made.
    size: Sectors,
    /// Minor numbers from one to the next.
    stride: u32,
}

impl Loaded {
    fn look() -> Self {
        let parameter = |name: &str| -> Option<u64> {
            std::fs::read_to_string(format!("/sys/module/brd/parameters/{name}")).ok()?.trim().parse().ok()
        };
        let stride = parameter("max_part").and_then(|n| u32::try_from(n).ok()).unwrap_or(1).max(1);
        Self { size: Sectors(parameter("rd_size").unwrap_or(0).saturating_mul(2)), stride }
    }
}

/// What a RAM disk of this size adds to a joined log.
fn share(size: Sectors) -> u64 {
    size.0.saturating_sub(HEAD) / GRAIN * GRAIN
}

/// Numbers of the RAM disks that are there, in order.
fn numbers() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/sys/block") else { return Vec::new() };
    let number = |name: String| name.strip_prefix("ram")?.parse::<u32>().ok();
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut numbers: Vec<u32> = names.filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

/// Size of a RAM disk that is there.
fn size_of(number: u32) -> Sectors {
    let text = std::fs::read_to_string(format!("/sys/block/ram{number}/size")).unwrap_or_default();
    Sectors(text.trim().parse().unwrap_or(0))
}

/// The first numbers that are not taken.
fn absent(there: &[u32], count: usize) -> Vec<u32> {
    (0..).filter(|number| there.binary_search(number).is_err()).take(count).collect()
}

/// The search for the logs of one group.
struct Search<'a> {
    devices: Devices,
    stacks: &'a [Stack],
    size: Sectors,
    loaded: Loaded,
    passed_over: Vec<String>,
}

impl LogPair {
    /// Takes RAM disks that have `size` and are free, two for each stack, loading brd when it is not loaded, having it
    /// make more where there are too few, and joining smaller ones where none has the size.
    ///
    /// # Errors
    /// See [`LogDeviceError`]; what is in use, or holds anything but a stale log, was not touched.
    pub fn free(stacks: &[Stack], size: Sectors) -> Result<Vec<Self>, LogDeviceError> {
        let count = 2 * stacks.len();
        load_brd(u32::try_from(count).unwrap_or(u32::MAX), size)?;
        let devices = Devices::open()?;
        for stack in stacks {
            remove_rams(&devices, stack)?;
        }
        let (loaded, passed_over) = (Loaded::look(), Vec::new());
        let mut search = Search { devices, stacks, size, loaded, passed_over };
        let mut logs = Vec::with_capacity(count);
        search.take_whole(&numbers(), count, &mut logs);
        if logs.len() < count && loaded.size >= size {
            let made = search.make(logs.len(), count - logs.len());
            search.take_whole(&made, count, &mut logs);
        }
        while logs.len() < count {
            let log = search.join(logs.len(), count)?;
            logs.push(log);
        }
        let mut logs = logs.into_iter();
        Ok(std::iter::from_fn(|| Some(Self([logs.next()?, logs.next()?]))).collect())
    }

    /// Makes sure that those of `paths` exist that name RAM disks, as far as the kernel makes them.
    ///
    /// # Errors
    /// When the kernel has no brd, or device-mapper is not there.
    pub fn make_named<'p>(
        stack: &Stack,
        paths: impl Iterator<Item = &'p Path>,
        size: Sectors,
    ) -> Result<(), LogDeviceError> {
        let named: Vec<u32> =
            paths.filter_map(|path| path.to_str()?.strip_prefix("/dev/ram")?.parse().ok()).collect();
        load_brd(named.iter().max().map_or(0, |most| most.saturating_add(1)), size)?;
        let there = numbers();
        let missing: Vec<u32> =
            named.into_iter().filter(|number| there.binary_search(number).is_err()).collect();
        let (devices, stacks) = (Devices::open()?, std::slice::from_ref(stack));
        remove_rams(&devices, stack)?;
        let mut search = Search { devices, stacks, size, loaded: Loaded::look(), passed_over: Vec::new() };
        if !missing.is_empty() && search.make_numbers(0, &missing).len() < missing.len() {
            log::warn!("{}", search.passed_over.join(", "));
        }
        Ok(())
    }
}

impl Search<'_> {
    /// Takes one, if it is free.
    fn take(&mut self, number: u32) -> Option<LogDevice> {
        let name = format!("ram{number}");
        let why = match LogDevice::open(&Path::new("/dev").join(&name)) {
            Ok(device) => match device.is_free() {
                Ok(true) => return Some(device),
                Ok(false) => format!("{name} holds something"),
                Err(e) => format!("{name}: {e}"),
            },
            Err(e) => e.to_string(),
        };
        self.passed_over.push(why);
        None
    }

    /// Takes those of `numbers` that a whole log fits on, until there are `count` logs.
    fn take_whole(&mut self, numbers: &[u32], count: usize, logs: &mut Vec<LogDevice>) {
        for number in numbers {
            if logs.len() == count {
                return;
            }
            if size_of(*number) >= self.size {
                logs.extend(self.take(*number));
            }
        }
    }

    /// Has so many more made; those that there are then. `slot`: the log for which that is, whose device is not made yet.
    fn make(&mut self, slot: usize, count: usize) -> Vec<u32> {
        self.make_numbers(slot, &absent(&numbers(), count))
    }

    fn make_numbers(&mut self, slot: usize, wanted: &[u32]) -> Vec<u32> {
        let line = |number: &u32| self.line(*number, GRAIN, 0);
        let lines: Vec<TargetLine> = wanted.iter().map(line).collect();
        let (name, uuid) = self.name(slot);
        if let Err(e) = self.devices.touch(&name, &uuid, &lines) {
            self.passed_over.push(format!("the kernel makes no more RAM disks by their numbers ({e})"));
        }
        wanted.iter().copied().filter(|number| size_of(*number).0 > 0).collect()
    }

    /// A part of a RAM disk, for a table.
    fn line(&self, number: u32, len: u64, from: u64) -> TargetLine {
        let minor = u64::from(number) * u64::from(self.loaded.stride);
        let parameters = format!("{BRD}:{minor} {from}");
        TargetLine { len: Sectors(len), target: "linear".to_owned(), parameters }
    }

    /// What the joined device of a log is called.
    fn name(&self, slot: usize) -> (String, String) {
        let (stack, part) = (&self.stacks[slot / 2], Part::RAMS[slot % 2]);
        (stack.name().of(part), stack.id().of(part))
    }

    /// A log on several RAM disks: those that are there and free, then new ones.
    fn join(&mut self, slot: usize, count: usize) -> Result<LogDevice, LogDeviceError> {
        let too_few = |search: &Self| LogDeviceError::NoneFree {
            count,
            size: search.size,
            found: search.passed_over.join(", "),
        };
        let mut parts: Vec<(u32, u64, LogDevice)> = Vec::new();
        let mut lacking = self.size.0;
        let mut candidates = numbers();
        loop {
            for number in candidates {
                let share = share(size_of(number)).min(lacking);
                if share == 0 {
                    continue;
                }
                if let Some(device) = self.take(number) {
                    lacking -= share;
                    parts.push((number, share, device));
                }
            }
            let more =
                usize::try_from(lacking.div_ceil(share(self.loaded.size).max(1))).unwrap_or(usize::MAX);
            if more == 0 {
                break;
            }
            if parts.len().saturating_add(more) > MOST_PARTS {
                let what = format!("of those of {} it would take more than {MOST_PARTS}", self.loaded.size);
                self.passed_over.push(what);
                return Err(too_few(self));
            }
            candidates = self.make(slot, more);
            if candidates.is_empty() {
                return Err(too_few(self));
            }
        }
        for (_, _, device) in &parts {
            device.wipe().map_err(|e| LogDeviceError::Mark(device.device.path().to_owned(), e))?;
        }
        let lines: Vec<TargetLine> =
            parts.iter().map(|(number, share, _)| self.line(*number, *share, HEAD)).collect();
        let (name, uuid) = self.name(slot);
        let number = self.devices.join(&name, &uuid, &lines)?;
        log::info!("{name}: a log of {} on {} RAM disks", self.size, lines.len());
        LogDevice::joined(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_ones_get_the_first_numbers_that_nobody_has() {
        assert_eq!(absent(&[], 3), [0, 1, 2]);
        assert_eq!(absent(&[0, 1, 3, 7], 4), [2, 4, 5, 6]);
    }

    #[test]
    fn the_mark_of_a_part_is_no_part_of_the_log() {
        assert_eq!(share(Sectors(8192)), 8184);
        assert_eq!(share(Sectors(8195)), 8184);
        assert_eq!((share(Sectors(8)), share(Sectors(0))), (0, 0));
    }
}
