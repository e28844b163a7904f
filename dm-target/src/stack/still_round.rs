//! Reading what was written to the volumes of a group since an era each, while all of them stand still: one exact state,
//! on kernels without log-writes too.
//!
//! ```text
//! check, flush   each, as in [`super::written`]; memory is made ready
//! suspend        each: drains what is in flight              the pause begins
//! roll           each: flush, take_metadata_snap
//! read           each: the metadata through the snapshot, then the blocks that it names, direct
//! verify         each: still suspended
//! resume         each                                        the pause ends
//! drop           each: drop_metadata_snap, on every path
//! ```
//!
//! Always holds: content is given only if every volume stood still from before the first roll to behind the last read;
//! what is not read within the budget, or has no room, is named all the same; every visible device is resumed and every
//! snapshot dropped on every path out, and somebody else ends the pause if this process cannot.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use super::Stack;
use super::era_device::EraDevice;
use super::written::Written;
use super::written_error::{WrittenError, step};
use crate::block_io::{AlignedBuffer, BlockDevice};
use crate::era::delta::Delta;
use crate::fault;
use crate::ioctl::DmControl;
use crate::name::StackName;
use crate::pause::pulse::{Phase, Pulse};
use crate::pause::{After, Failed, Layers, Pausable, Pause};
use crate::units::{Era, Extent, SECTOR_SIZE, Sector, Sectors};

/// Read at a time; so often the budget is looked at, and whoever stands by hears.
const CHUNK: Sectors = Sectors(2048);
/// Each extent begins at a multiple of this in memory.
const ALIGN: usize = 4096;

/// What may be given to do with each volume, told with its place in the group, in the pause.
pub type InStill<'a> = &'a mut dyn FnMut(usize, &BlockDevice);

/// What is wanted.
pub struct StillRequest<'a> {
    /// The era of each volume to start from.
    pub since: &'a [Era],
    /// How long the volumes may stand still, all together.
    pub budget: Duration,
    /// Bytes of memory for what is read.
    pub room: usize,
    /// Called for each volume once everything was read; the budget does not apply to it. For audits.
    pub in_pause: Option<InStill<'a>>,
}

/// What was found.
#[derive(Debug)]
pub struct StillRound {
    /// What was written to each volume before the pause; and the era that began in it.
    pub volumes: Vec<Written>,
    /// What the volumes held there in the pause; or why it was not read.
    pub content: Result<StillContent, &'static str>,
    /// How long they stood still.
    pub pause: Duration,
}

/// What volumes held, in the places that were read.
#[derive(Debug)]
pub struct StillContent {
    buffer: AlignedBuffer,
    /// Of each volume: where, and the offset in the buffer.
    places: Vec<Vec<(Extent, usize)>>,
}

impl StillContent {
    fn with_room(bytes: usize, volumes: usize) -> Self {
        Self { buffer: AlignedBuffer::new(bytes), places: vec![Vec::new(); volumes] }
    }

    /// Gives each extent of a volume its place. False: there is no room.
    fn place(&mut self, volume: usize, extents: impl Iterator<Item = Extent>, used: &mut usize) -> bool {
        for extent in extents {
            let Some(len) = extent.len().bytes().and_then(|len| usize::try_from(len).ok()) else {
                return false;
            };
            let end = used.saturating_add(len);
            if end > self.buffer.bytes().len() {
                return false;
            }
            self.places[volume].push((extent, *used));
            *used = end.next_multiple_of(ALIGN);
        }
        true
    }

    /// Fills the beginning of `buffer` with what volume number `volume` held at `extent`.
    ///
    /// # Errors
    /// `NotFound` for a place that was not read, `InvalidInput` for a buffer that is too small.
    pub fn read(&self, volume: usize, extent: Extent, buffer: &mut [u8]) -> io::Result<()> {
        let places = self.places.get(volume).ok_or(io::ErrorKind::NotFound)?;
        let after = places.partition_point(|(place, _)| place.start() <= extent.start());
        let (place, offset) = after.checked_sub(1).map(|at| places[at]).ok_or(io::ErrorKind::NotFound)?;
        if extent.end() > place.end() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let bytes = |sectors: u64| usize::try_from(sectors).unwrap_or(usize::MAX).saturating_mul(SECTOR_SIZE);
        let from = offset + bytes(extent.start().0 - place.start().0);
        let held = &self.buffer.bytes()[from..from + bytes(extent.len().0)];
        buffer.get_mut(..held.len()).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(held);
        Ok(())
    }
}

/// A volume of the group.
struct Volume<'s> {
    stack: &'s Stack,
    since: Era,
    era: EraDevice<'s>,
    _lock: File,
    /// A metadata snapshot is held.
    taken: bool,
}

impl<'s> Volume<'s> {
    fn prepare(stack: &'s Stack, since: Era, pulse: &'s dyn Pulse) -> Result<Self, WrittenError> {
        let mut era = EraDevice::open(stack, pulse)?;
        let lock = stack.prepare(&mut era, since)?;
        era.refuse_unless_running()?;
        Ok(Self { stack, since, era, _lock: lock, taken: false })
    }

    fn roll(&mut self) -> Result<(), WrittenError> {
        // It may fail after the snapshot was taken.
        self.taken = true;
        self.era.roll()
    }

    fn delta(&mut self) -> Result<Delta, WrittenError> {
        let snapshot = self.era.status()?.snapshot.ok_or(WrittenError::NoSnapshot)?;
        self.stack.read_snapshot(snapshot, self.since)
    }
}

impl Pausable for Volume<'_> {
    fn layers(&self) -> Layers {
        self.era.layers()
    }

    fn control(&mut self) -> &mut DmControl {
        self.era.control()
    }

    fn pulse(&self) -> &dyn Pulse {
        self.era.pulse()
    }
}

impl Drop for Volume<'_> {
    fn drop(&mut self) {
        if self.taken
            && self.era.status().is_ok_and(|status| status.snapshot.is_some())
            && let Err(error) = self.era.message("drop_metadata_snap")
        {
            log::error!("dropping the metadata snapshot of {}: {error}", self.stack.name());
        }
    }
}

/// What was read of all volumes, or as far as it came.
struct Reading {
    deltas: Vec<Delta>,
    complete: Result<(), &'static str>,
}

/// Lets all volumes of a group stand still, ends the era of each, and reads what was written before; `pulse` hears of
/// every step.
///
/// # Errors
/// The first one's, with the volume's name; nothing is lost by an error.
pub fn still_round(
    stacks: &[Stack],
    request: StillRequest<'_>,
    pulse: &dyn Pulse,
) -> Result<StillRound, (StackName, WrittenError)> {
    let named = |at: usize| move |error| (stacks[at].name().clone(), error);
    let mut volumes = Vec::with_capacity(stacks.len());
    for (at, (stack, since)) in stacks.iter().zip(request.since).enumerate() {
        volumes.push(Volume::prepare(stack, *since, pulse).map_err(named(at))?);
    }
    let mut content = StillContent::with_room(request.room, volumes.len());
    let pause = Pause::begin(volumes.iter_mut().collect(), Phase::Tracking);
    let pause = pause.map_err(|failed| named(failed.at)(WrittenError::Unguarded))?;
    let deadline = pause.began() + request.budget;
    let read = read_still(pause, deadline, &mut content, request.in_pause);
    let (Reading { mut deltas, complete }, pause) = read.map_err(|failed| named(failed.at)(failed.why))?;
    for (at, volume) in volumes.iter_mut().enumerate().skip(deltas.len()) {
        deltas.push(volume.delta().map_err(named(at))?);
    }
    let mut written = Vec::with_capacity(deltas.len());
    for (at, delta) in deltas.into_iter().enumerate() {
        let shape = stacks[at].shape().map_err(|error| named(at)(error.into()))?;
        written.push(Written { delta, pause, read: Duration::ZERO, shape });
    }
    Ok(StillRound { volumes: written, content: complete.map(|()| content), pause })
}

/// What was read in the pause, and how long it was.
fn read_still(
    mut pause: Pause<&mut Volume<'_>>,
    deadline: Instant,
    content: &mut StillContent,
    in_pause: Option<InStill<'_>>,
) -> Result<(Reading, Duration), Failed<WrittenError>> {
    pause.suspend().map_err(|failed| failed.map(step("suspend the visible device")))?;
    fault::at("stand-suspended");
    pause.each(|volume| volume.roll())?;
    fault::at("stand-rolled");
    let reading = read(&mut pause, deadline, content)?;
    fault::at("stand-read");
    if let (Ok(()), Some(in_pause)) = (reading.complete, in_pause) {
        for at in 0..pause.volumes().len() {
            in_pause(at, &pause.volumes()[at].era.device);
            pause.beat();
        }
    }
    pause.is_still().map_err(|failed| failed.map(|_| WrittenError::Resumed))?;
    fault::at("stand-verified");
    let ended = pause.end(After::Resume(Phase::Tracking));
    Ok((reading, ended.map_err(|failed| failed.map(step("resume the visible device")))?))
}

fn read(
    pause: &mut Pause<&mut Volume<'_>>,
    deadline: Instant,
    content: &mut StillContent,
) -> Result<Reading, Failed<WrittenError>> {
    let count = pause.volumes().len();
    let mut deltas = Vec::with_capacity(count);
    let mut used = 0;
    for at in 0..count {
        let failed = |why| Failed { at, why };
        let volume = &mut pause.volumes()[at];
        let delta = volume.delta().map_err(failed)?;
        let shape = volume.stack.shape().map_err(|error| failed(error.into()))?;
        pause.beat();
        let fits = content.place(at, delta.blocks.extents(shape.block, shape.volume), &mut used);
        deltas.push(delta);
        if !fits {
            return Ok(Reading { deltas, complete: Err("it is more than there is memory for") });
        }
    }
    for at in 0..count {
        let StillContent { buffer, places } = &mut *content;
        for (extent, offset) in &places[at] {
            let to = &mut buffer.bytes_mut()[*offset..];
            let done = read_extent(&pause.volumes()[at].era, deadline, *extent, to);
            if let Err(why) = done.map_err(|why| Failed { at, why })? {
                return Ok(Reading { deltas, complete: Err(why) });
            }
        }
    }
    Ok(Reading { deltas, complete: Ok(()) })
}

/// Within: why it was not read.
fn read_extent(
    era: &EraDevice<'_>,
    deadline: Instant,
    whole: Extent,
    mut to: &mut [u8],
) -> Result<Result<(), &'static str>, WrittenError> {
    let mut next = whole.start();
    while let Some(extent) = Extent::between(next, Sector((next.0 + CHUNK.0).min(whole.end().0))) {
        if Instant::now() >= deadline {
            return Ok(Err("the pause's budget was used up by reading"));
        }
        era.device.read_extent(extent, to).map_err(step("read the volume"))?;
        era.pulse().beat(Phase::Paused);
        let len = usize::try_from(extent.len().0).unwrap_or(0) * SECTOR_SIZE;
        to = &mut to[len..];
        next = extent.end();
    }
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(start: u64, len: u64) -> Extent {
        Extent::new(Sector(start), Sectors(len)).unwrap()
    }

    #[test]
    fn what_was_placed_is_found_and_nothing_else_is() {
        let mut content = StillContent::with_room(3 * ALIGN, 2);
        let mut used = 0;
        assert!(content.place(0, [extent(8, 9)].into_iter(), &mut used));
        assert!(content.place(1, [extent(0, 8)].into_iter(), &mut used));
        assert!(!content.place(1, [extent(64, 1)].into_iter(), &mut used), "no room");
        for (at, byte) in content.buffer.bytes_mut().iter_mut().enumerate() {
            *byte = u8::try_from(at / SECTOR_SIZE).unwrap();
        }
        let mut sector = [0; SECTOR_SIZE];
        content.read(0, extent(16, 1), &mut sector).unwrap();
        assert_eq!(sector[0], 8);
        content.read(1, extent(7, 1), &mut sector).unwrap();
        assert_eq!(sector[0], 16 + 7);
        for (volume, wrong) in [(0, extent(7, 1)), (0, extent(16, 2)), (1, extent(64, 1)), (2, extent(0, 1))]
        {
            let mut buffer = [0; 2 * SECTOR_SIZE];
            let error = content.read(volume, wrong, &mut buffer).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{wrong} of {volume}");
        }
    }
}
