//! What was written to a stack since an era: a short pause in which dm-era is flushed and rolled, then
//! the metadata snapshot is read while the volume runs.
//!
//! ```text
//! check          tracking, era known, room for another era; nobody else is at it
//! flush          so that little is left for the pause
//! suspend        drains what is in flight                        the pause begins
//! flush          what was written so far cannot revert
//! take           take_metadata_snap: the era's writeset is archived, the next era begins
//! verify         still suspended
//! resume                                                         the pause ends
//! read           the metadata, direct, through the snapshot
//! drop           drop_metadata_snap, on every path
//! ```
//!
//! Always holds: somebody else ends the pause if this process cannot ([`super::guard`]); an era is rolled only
//! drained and flushed, else no result is given; the visible device is resumed and the
//! snapshot dropped on every path out, panics included; a result is given only if all of it was right.

use std::fs::{File, TryLockError};
use std::time::{Duration, Instant};

use super::era_device::EraDevice;
pub use super::written_error::WrittenError;
use super::written_error::step;
use super::{Mode, Stack, StackError};
use crate::block_io::{Access, BlockDevice};
use crate::era::block_set::BlockSet;
use crate::era::delta::{self, Delta, Shape};
use crate::era::size::{METADATA_BLOCK_SECTORS, MetadataSize, Room};
use crate::era::status::EraStatus;
use crate::fault;
use crate::pause::pulse::{Phase, Pulse, unwatched};
use crate::pause::{After, Pause};
use crate::units::{Era, Extent, Sectors};

/// What was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// The blocks, and the era to ask for next time.
    pub delta: Delta,
    /// How long the volume stood still.
    pub pause: Duration,
    /// How long reading the metadata took, while the volume ran.
    pub read: Duration,
    pub(super) shape: Shape,
}

impl Written {
    /// The extents, merged and in order.
    pub fn extents(&self) -> impl Iterator<Item = Extent> + '_ {
        self.blocks().extents(self.shape.block, self.shape.volume)
    }

    /// Their sectors altogether.
    #[must_use]
    pub fn sectors(&self) -> Sectors {
        Sectors(self.extents().map(|extent| extent.len().0).sum())
    }

    /// The blocks.
    #[must_use]
    pub fn blocks(&self) -> &BlockSet {
        &self.delta.blocks
    }
}

impl Stack {
    /// Its size and granule.
    ///
    /// # Errors
    /// [`StackError::Bypassed`].
    pub fn shape(&self) -> Result<Shape, StackError> {
        Ok(Shape { volume: self.size, block: self.history()?.block })
    }

    /// Reads what was written since an era from a metadata snapshot that is held: `snapshot` is where,
    /// as dm-era's status says after [`EraControl::take_snapshot`](super::era_device::EraControl::take_snapshot).
    ///
    /// # Errors
    /// See [`MetadataError`]; or when the device cannot be opened.
    pub fn read_snapshot(&self, snapshot: u64, since: Era) -> Result<Delta, WrittenError> {
        let path = self.history()?.metadata.to_string();
        let direct = Access { direct: true, ..Access::default() };
        let device = BlockDevice::open(path.as_ref(), direct)?;
        let blocks = device.size().0 / METADATA_BLOCK_SECTORS;
        let tracked = Shape { volume: self.tracked, ..self.shape()? };
        Ok(delta::written_since(&device, blocks, snapshot, since, tracked)?)
    }

    /// What was written in era `since` and later. Ends the current era within one short pause, of which `pulse`
    /// hears. Era 0 means everything, whether it was written or not.
    ///
    /// # Errors
    /// See [`WrittenError`]; nothing is lost by an error, the same can be asked again.
    pub fn written_since(&self, since: Era, pulse: &dyn Pulse) -> Result<Written, WrittenError> {
        let mut era = EraDevice::open(self, pulse)?;
        let _lock = self.prepare(&mut era, since)?;
        let (mut held, pause) = roll(era)?;
        let snapshot = held.era.status()?.snapshot;
        let began = Instant::now();
        let delta =
            snapshot.ok_or(WrittenError::NoSnapshot).and_then(|block| self.read_snapshot(block, since));
        let read = began.elapsed();
        held.release()?;
        Ok(Written { delta: delta?, pause, read, shape: self.shape()? })
    }

    /// Ends the current era within one short pause, of which `pulse` hears, and returns the one that begins: whatever
    /// is written from now on is written in that era or a later one.
    ///
    /// # Errors
    /// See [`WrittenError`]; nothing is lost by an error.
    pub fn roll_era(&self, pulse: &dyn Pulse) -> Result<Era, WrittenError> {
        let mut era = EraDevice::open(self, pulse)?;
        let _lock = self.prepare(&mut era, Era(0))?;
        let (mut held, _) = roll(era)?;
        let begun = held.era.status()?.current;
        held.release()?;
        Ok(begun)
    }

    /// Whatever can be done before the pause; the lock keeps others away until it is dropped.
    pub(super) fn prepare(&self, era: &mut EraDevice<'_>, since: Era) -> Result<File, WrittenError> {
        let status = self.status()?;
        match (status.mode, status.suspended) {
            (Mode::Passthrough, _) => return Err(StackError::Bypassed { metadata: None }.into()),
            (Mode::Tracking, false) => {}
            (mode, suspended) => return Err(WrittenError::InUse { mode, suspended }),
        }
        let lock = File::open(era.device.path()).map_err(step("open the dm-era device to lock it"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(WrittenError::Locked),
            Err(TryLockError::Error(e)) => return Err(step("lock the dm-era device")(e)),
        }
        self.make_room(era, since)?;
        era.device.flush().map_err(step("flush the volume"))?;
        Ok(lock)
    }

    /// Checks that dm-era can be rolled and that what was written since an era can be told then; drops a metadata
    /// snapshot that nobody holds any more. To be called before [`Capture::start`](crate::capture::Capture::start)
    /// rolls.
    ///
    /// # Errors
    /// See [`WrittenError`].
    pub fn ready_to_roll(&self, since: Era) -> Result<(), WrittenError> {
        self.make_room(&mut EraDevice::open(self, &*unwatched())?, since)
    }

    /// Checks that the era is known and that there is room; drops what a killed predecessor left.
    fn make_room(&self, era: &mut EraDevice<'_>, since: Era) -> Result<(), WrittenError> {
        let EraStatus { current, snapshot, .. } = era.status()?;
        if since > current {
            return Err(WrittenError::Future { since, current });
        }
        if snapshot.is_some() {
            log::info!("dropping a metadata snapshot that nobody holds any more");
            era.message("drop_metadata_snap").map_err(step("drop an old metadata snapshot"))?;
        }
        let status = era.status()?;
        match MetadataSize::of(self.tracked, self.history()?.block).room(&status) {
            Room::Enough => {}
            Room::Low { percent } => log::warn!("the metadata of {} is {percent} % full", self.name),
            Room::Full { free, needed } | Room::Exhausted { free, needed } => {
                return Err(WrittenError::NoRoom { free, total: status.total, needed });
            }
        }
        Ok(())
    }
}

/// Ends the era in a pause of the visible device; the metadata snapshot, and how long the pause was.
fn roll(mut era: EraDevice<'_>) -> Result<(Snapshot<'_>, Duration), WrittenError> {
    era.refuse_unless_running()?;
    match roll_paused(&mut era) {
        Ok(paused) => Ok((Snapshot { era, dropped: false }, paused)),
        Err(e) => {
            // A roll may fail after the snapshot was taken.
            if era.status().is_ok_and(|status| status.snapshot.is_some()) {
                Snapshot { era, dropped: false }.release()?;
            }
            Err(e)
        }
    }
}

/// Takes a snapshot drained and flushed; how long the volume stood still.
fn roll_paused(era: &mut EraDevice<'_>) -> Result<Duration, WrittenError> {
    let mut pause = Pause::begin(vec![era], Phase::Tracking).map_err(|_| WrittenError::Unguarded)?;
    pause.suspend().map_err(|failed| step("suspend the visible device")(failed.why))?;
    fault::at("written-suspended");
    pause.each(|era| era.roll()).map_err(|failed| failed.why)?;
    pause.is_still().map_err(|_| WrittenError::Resumed)?;
    let ended = pause.end(After::Resume(Phase::Tracking));
    ended.map_err(|failed| step("resume the visible device")(failed.why))
}

/// A metadata snapshot, dropped when this goes.
struct Snapshot<'p> {
    era: EraDevice<'p>,
    dropped: bool,
}

impl Snapshot<'_> {
    fn release(mut self) -> Result<(), WrittenError> {
        self.dropped = true;
        self.era.message("drop_metadata_snap").map_err(step("drop the metadata snapshot"))
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        if !self.dropped
            && let Err(e) = self.era.message("drop_metadata_snap")
        {
            log::error!("dropping the metadata snapshot: {e}");
        }
    }
}
