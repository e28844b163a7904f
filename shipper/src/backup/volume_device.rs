//! The backup's copies of the group's volumes.
//!
//! Where a stack of the volume's name is there, the backup writes to dm-era below its visible device, so that what
//! changes is tracked in both roles; else it writes to the logical volume itself.
//!
//! Always holds: each device is open exclusively, past the page cache; of a stack that is the visible device, which takes
//! no writes of others either, also while no daemon runs, until it is released; only records that were checked against the
//! group's description are written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use ftdm::block_io::{Access, AlignedBuffer, BlockDevice, OpenError, sysfs};
use ftdm::fault;
use ftdm::pause::pulse::unwatched;
use ftdm::stack::{Stack, StackError};
use ftdm_units::{Era, Extent, SECTOR_SIZE, Sector, Sectors};
use ftship_proto::frame::{Frame, FrameKind};
use ftship_proto::group::GroupDescription;
use ftship_proto::group::LocalVolume;
use ftship_proto::ids::VolumeIndex;
use ftship_proto::record::{Content, Record, RecordIter};
use ftship_proto::scope::Scope;

use super::room::room_of;
use crate::config::Volume;

/// Bytes written at a time; also how many zeros are kept at hand.
const CHUNK: usize = 1 << 20;

/// Most extents that a backup names as its own.
const MOST_EXTENTS: usize = 1 << 20;

/// How long a device that somebody has open is waited for, and how often it is looked at.
const PATIENCE: Duration = Duration::from_secs(2);
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Counted since the volumes were opened.
#[derive(Debug, Default)]
pub(super) struct DiscardCounts {
    /// Bytes discarded on the volumes.
    pub(super) bytes: AtomicU64,
    /// Discards that failed.
    pub(super) errors: AtomicU64,
}

/// All volumes of the group, open.
#[derive(Debug)]
pub(super) struct Volumes {
    devices: Vec<VolumeDevice>,
    discards: Arc<DiscardCounts>,
    scratch: Vec<u8>,
}

impl Volumes {
    /// Opens the volumes, in the group's order, for this process alone.
    ///
    /// # Errors
    /// When one is missing, mounted, held, not a block device, or the same as another.
    pub(super) fn open(volumes: &[Volume]) -> anyhow::Result<Self> {
        let discards = Arc::default();
        let open = |volume| VolumeDevice::open(volume, &discards);
        let devices = volumes.iter().map(open).collect::<anyhow::Result<_>>()?;
        Ok(Self { devices, discards, scratch: Vec::new() })
    }

    /// The first volume of which nothing tells what changes on it, and why.
    #[must_use]
    pub(super) fn untracked(&self) -> Option<String> {
        self.devices.iter().find_map(VolumeDevice::untracked)
    }

    /// The era that each volume's writes go to, in the group's order. `None` when one is not tracked, or does not say.
    #[must_use]
    pub(super) fn eras(&self) -> Option<Vec<Era>> {
        let era = |volume: &VolumeDevice| Some(volume.stack.as_ref()?.status().ok()?.era?.current);
        self.devices.iter().map(era).collect()
    }

    /// What was written in these eras and later, on all volumes; where that would be too many extents, with what lies
    /// between those that are close.
    ///
    /// # Errors
    /// When a volume is not tracked, or its history is of no use.
    pub(super) fn written_since(&self, since: &[Era]) -> anyhow::Result<Scope> {
        let mut scope = Scope::new();
        for ((index, volume), since) in (0..).zip(&self.devices).zip(since) {
            let stack = volume.stack.as_ref().context("there is no stack")?;
            let written = stack.written_since(*since, &*unwatched())?;
            scope.extend(written.extents().map(|extent| (VolumeIndex(index), extent)));
        }
        Ok(coarsened(scope, MOST_EXTENTS))
    }

    /// Ends the era on every volume; returns those that begin, in the group's order.
    ///
    /// # Errors
    /// When a volume is not tracked, or its era cannot be ended.
    pub(super) fn roll(&self) -> anyhow::Result<Vec<Era>> {
        let roll = |volume: &VolumeDevice| {
            let stack = volume.stack.as_ref().context("there is no stack")?;
            Ok(stack.roll_era(&*unwatched())?)
        };
        self.devices.iter().map(roll).collect()
    }

    /// What became of the guest's discards.
    #[must_use]
    pub(super) fn discards(&self) -> Arc<DiscardCounts> {
        Arc::clone(&self.discards)
    }

    /// The size that each shows.
    #[must_use]
    pub(super) fn shown(&self) -> Vec<Sectors> {
        self.devices.iter().map(|volume| volume.device.size()).collect()
    }

    /// From now on each shows at least this size.
    ///
    /// # Errors
    /// When a device is too small, or its stack cannot be changed. Those before it are larger then, which harms nothing.
    pub(super) fn enlarge(&mut self, sizes: &[Sectors]) -> anyhow::Result<()> {
        self.devices.iter_mut().zip(sizes).try_for_each(|(volume, size)| volume.enlarge(*size))
    }

    /// The size that each could be given, and its logical block size.
    #[must_use]
    pub(super) fn local(&self) -> Vec<LocalVolume> {
        self.devices.iter().map(VolumeDevice::local).collect()
    }

    /// Whether these are the volumes that `group` describes, as far as their shape tells.
    ///
    /// # Errors
    /// How they differ.
    pub(super) fn check(&self, group: &GroupDescription) -> anyhow::Result<()> {
        let (here, there) = (self.devices.len(), group.volumes().len());
        anyhow::ensure!(
            here == there,
            "the backup holds {there} volumes, the configuration lists {here}: list those that were synced, in \
             the same order, or format the backup again"
        );
        for ((index, want), volume) in group.indexed().zip(&self.devices) {
            want.fits(volume.local()).with_context(|| {
                format!(
                    "{}, for {index}: is the order of the volumes in the configuration another one now?",
                    volume.device.path().display()
                )
            })?;
        }
        Ok(())
    }

    /// Writes every record of a data frame to its volume. Frames without records are passed over.
    ///
    /// # Errors
    /// When the frame is not what it says, or a device fails.
    pub(super) fn write_records(&mut self, frame: &Frame, group: &GroupDescription) -> anyhow::Result<()> {
        if !frame.header.kind.carries_records() {
            return Ok(());
        }
        let raw = frame.raw_payload(&mut self.scratch)?;
        let (kind, count) = (frame.header.kind, frame.header.record_count);
        for (number, record) in (0..).zip(RecordIter::new(raw, kind, count, group)?) {
            if kind == FrameKind::EpochData && number == count / 2 {
                fault::at("apply-half");
            }
            let Record { volume, extent, content } = record;
            let device = self.devices.get_mut(usize::from(volume.0));
            device.with_context(|| format!("{volume} is not open"))?.put(extent, content)?;
        }
        Ok(())
    }

    /// A volume's device, and a buffer to read it into.
    pub(super) fn reader(&mut self, volume: VolumeIndex) -> Option<(&BlockDevice, &mut AlignedBuffer)> {
        self.devices.get_mut(usize::from(volume.0)).map(|volume| (&volume.device, &mut volume.buffer))
    }

    /// Gives the volumes to their next user. The visible devices show no more than the group's volumes have,
    /// also where the logical volumes are larger.
    ///
    /// # Errors
    /// When a table cannot be changed, or writes not be allowed: of the first such volume, after all others were tried.
    pub(super) fn release(self, group: Option<&GroupDescription>) -> anyhow::Result<()> {
        let sizes: Vec<Sectors> =
            group.into_iter().flat_map(GroupDescription::volumes).map(|v| v.size).collect();
        let stacks: Vec<Stack> = self.devices.into_iter().filter_map(|volume| volume.stack).collect();
        let mut released = Ok(());
        for (at, mut stack) in stacks.into_iter().enumerate() {
            let limited = sizes.get(at).map_or(Ok(()), |size| stack.limit(*size));
            released = released.and(limited).and(stack.set_read_only(false));
        }
        Ok(released?)
    }

    /// Makes everything written durable, on all volumes.
    ///
    /// # Errors
    /// When a device fails: what was written is lost then, and the flush must not be tried again.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        self.devices.iter_mut().try_for_each(VolumeDevice::flush)
    }
}

/// An open volume.
#[derive(Debug)]
struct VolumeDevice {
    /// In the size that the volume shows.
    device: BlockDevice,
    stack: Option<Stack>,
    /// The visible device of the stack, which nobody else has meanwhile.
    _visible: Option<BlockDevice>,
    /// Size of the device below.
    origin: Sectors,
    /// What takes discards, and their unit; `None` where nothing does.
    discarding: Option<(BlockDevice, Sectors)>,
    discards: Arc<DiscardCounts>,
    buffer: AlignedBuffer,
}

impl VolumeDevice {
    fn open(volume: &Volume, discards: &Arc<DiscardCounts>) -> anyhow::Result<Self> {
        let stack = find_stack(volume)?;
        let (visible, device) = match &stack {
            Some(stack) => {
                let visible = open_alone(stack).context("the backup's volume")?;
                stack.set_read_only(true)?;
                (Some(visible), stack.open_tracked().context("the backup's volume")?)
            }
            None => {
                let access = Access { write: true, direct: true, exclusive: true };
                (None, BlockDevice::open(&volume.device, access).context("the backup's volume")?)
            }
        };
        let below = match &stack {
            Some(stack) => stack.open_for_discards()?,
            None => {
                BlockDevice::open(&volume.device, Access { write: true, direct: true, exclusive: false })?
            }
        };
        let origin = below.size();
        let discarding = discard_granule(&below).map(|granule| (below, granule));
        let (discards, buffer) = (Arc::clone(discards), AlignedBuffer::new(CHUNK));
        Ok(Self { device, stack, _visible: visible, origin, discarding, discards, buffer })
    }

    fn local(&self) -> LocalVolume {
        let shown = self.device.size();
        let size =
            self.stack.as_ref().map_or(shown, |stack| room_of(stack, self.origin.max(shown)).max(shown));
        LocalVolume { size, logical_block_size: self.device.logical_block() }
    }

    fn enlarge(&mut self, size: Sectors) -> anyhow::Result<()> {
        match &mut self.stack {
            Some(stack) if stack.size() < size => {
                let of_volume = format!("volume {}", stack.name());
                stack.enlarge(size, &*unwatched()).with_context(|| of_volume.clone())?;
                stack.show(size, &*unwatched()).with_context(|| of_volume.clone())?;
                self.device = stack.open_tracked().context(of_volume)?;
            }
            Some(_) => {}
            None => {
                let path = self.device.path().display().to_string();
                self.device.look_again().context(path)?;
            }
        }
        let (found, path) = (self.device.size(), self.device.path().display());
        anyhow::ensure!(found >= size, "{path} has {found}, {size} are needed");
        Ok(())
    }

    fn untracked(&self) -> Option<String> {
        match &self.stack {
            None => Some(format!("{} has no stack: `ftdm create` makes one", self.device.path().display())),
            Some(stack) => stack.history().err().map(|error| format!("{}: {error}", stack.name())),
        }
    }

    fn put(&mut self, extent: Extent, content: Content<'_>) -> anyhow::Result<()> {
        match content {
            Content::Data(data) => self.write(extent, data),
            Content::Zero => self.write_zeroes(extent),
            // Any content will do: the guest has discarded it.
            Content::Unknown => {
                self.give_back(extent);
                Ok(())
            }
        }
    }

    fn write(&mut self, extent: Extent, data: &[u8]) -> anyhow::Result<()> {
        let mut offset = extent.start().bytes().context("an extent beyond 64 bits")?;
        for piece in data.chunks(CHUNK) {
            // Direct I/O needs aligned memory.
            let buffer = &mut self.buffer.bytes_mut()[..piece.len()];
            buffer.copy_from_slice(piece);
            self.device.write_at(offset, buffer).with_context(|| self.failed("writing", extent))?;
            offset += piece.len() as u64;
        }
        Ok(())
    }

    /// Discards the whole units within `extent`. Failing only means that space is not given back.
    fn give_back(&self, extent: Extent) {
        let Some((device, granule)) = &self.discarding else { return };
        let Some(inner) = inner(extent, *granule) else { return };
        match device.discard(inner) {
            Ok(()) => {
                let bytes = inner.len().bytes().unwrap_or(0);
                self.discards.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(error) => {
                if self.discards.errors.fetch_add(1, Ordering::Relaxed) == 0 {
                    log::warn!(
                        "{}; further ones are only counted: {error}",
                        self.failed("discarding", inner)
                    );
                }
            }
        }
    }

    fn write_zeroes(&mut self, extent: Extent) -> anyhow::Result<()> {
        let mut offset = extent.start().bytes().context("an extent beyond 64 bits")?;
        let mut left = extent.len().0.saturating_mul(SECTOR_SIZE as u64);
        let most = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        self.buffer.bytes_mut()[..most].fill(0);
        while left > 0 {
            let len = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            let zeroes = &self.buffer.bytes()[..len];
            self.device.write_at(offset, zeroes).with_context(|| self.failed("zeroing", extent))?;
            offset += len as u64;
            left -= len as u64;
        }
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.device.flush().with_context(|| format!("volume {}: flush", self.device.path().display()))
    }

    fn failed(&self, action: &str, extent: Extent) -> String {
        format!("volume {}: {action} {extent}", self.device.path().display())
    }
}

/// The stack of the volume's name, brought back from whatever a daemon before left.
fn find_stack(volume: &Volume) -> anyhow::Result<Option<Stack>> {
    let stack = match Stack::open(&volume.name) {
        Ok(stack) => stack,
        Err(StackError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("volume {}", volume.name)),
    };
    let meant = BlockDevice::open(&volume.device, Access::default()).context("the backup's volume")?;
    anyhow::ensure!(
        meant.number() == stack.origin(),
        "volume {}: its stack is built over device {}, the configuration names {} ({}): make them agree",
        volume.name,
        stack.origin(),
        volume.device.display(),
        meant.number()
    );
    stack.recover().with_context(|| format!("volume {}", volume.name))?;
    Ok(Some(stack))
}

/// Opens the visible device for this process alone; somebody who only looks at it, as udev does, is waited for.
fn open_alone(stack: &Stack) -> anyhow::Result<BlockDevice> {
    let begun = Instant::now();
    loop {
        match stack.open_alone() {
            Err(StackError::Busy { .. } | StackError::Open(OpenError::Busy { .. }))
                if begun.elapsed() < PATIENCE =>
            {
                std::thread::sleep(BETWEEN_LOOKS);
            }
            opened => return Ok(opened?),
        }
    }
}

/// The unit of discards of a device, as the kernel says. `None` when it takes none.
fn discard_granule(device: &BlockDevice) -> Option<Sectors> {
    let queue = sysfs(device.number()).join("queue");
    let read = |name| std::fs::read_to_string(queue.join(name)).ok()?.trim().parse::<u64>().ok();
    read("discard_max_bytes").filter(|most| *most > 0)?;
    let granule = read("discard_granularity")?.max(device.logical_block().into());
    Sectors::from_bytes(granule)
}

/// At most so many extents that cover all of these.
fn coarsened(mut scope: Scope, most: usize) -> Scope {
    let mut gap = 1;
    while scope.len() > most {
        gap *= 2;
        let mut merged: Scope = Vec::with_capacity(scope.len());
        for (volume, extent) in scope {
            match merged.last_mut() {
                Some((before, last)) if *before == volume && extent.start().0 - last.end().0 <= gap => {
                    *last = Extent::between(last.start(), extent.end()).unwrap_or(*last);
                }
                _ => merged.push((volume, extent)),
            }
        }
        scope = merged;
    }
    scope
}

/// The whole units of `granule` within `extent`.
fn inner(extent: Extent, granule: Sectors) -> Option<Extent> {
    let start = extent.start().0.checked_next_multiple_of(granule.0)?;
    let end = extent.end().0 - extent.end().0 % granule.0;
    Extent::between(Sector(start), Sector(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_extents_cover_what_many_did() {
        let extent = |start, end| Extent::between(Sector(start), Sector(end)).unwrap();
        let (a, b) = (VolumeIndex(0), VolumeIndex(1));
        let scope =
            vec![(a, extent(0, 8)), (a, extent(16, 24)), (a, extent(100, 108)), (b, extent(108, 116))];
        assert_eq!(coarsened(scope.clone(), 4), scope);
        let three = vec![(a, extent(0, 24)), (a, extent(100, 108)), (b, extent(108, 116))];
        assert_eq!(coarsened(scope.clone(), 3), three);
        assert_eq!(coarsened(scope, 2), [(a, extent(0, 108)), (b, extent(108, 116))]);
    }

    #[test]
    fn only_whole_units_are_discarded() {
        let extent = |start, end| Extent::between(Sector(start), Sector(end)).unwrap();
        assert_eq!(inner(extent(1, 300), Sectors(128)), Some(extent(128, 256)));
        assert_eq!(inner(extent(128, 256), Sectors(128)), Some(extent(128, 256)));
        assert_eq!(inner(extent(129, 383), Sectors(128)), None);
        assert_eq!(inner(extent(130, 140), Sectors(128)), None);
    }
}
