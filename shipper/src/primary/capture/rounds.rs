//! What was written since an era, of all volumes of the group: what a round of a sync copies.
//!
//! Always holds: every volume is rolled, drained and flushed, one after the other; a metadata snapshot is dropped on every
//! path.

use ftdm::capture::Capture;
use ftdm::era::delta::Delta;
use ftdm::name::StackName;
use ftdm::pause::pulse::{Phase, Pulse};
use ftdm::stack::Stack;
use ftdm::stack::written::{Written, WrittenError};
use ftdm_units::{Era, Extent};
use ftship_proto::ids::VolumeIndex;
use ftship_proto::scope::Scope;

/// What a roll of all volumes found.
#[derive(Debug)]
pub(in crate::primary) struct Rolled {
    /// The era of each volume that began.
    pub(in crate::primary) eras: Vec<Era>,
    /// What was written before, since the eras asked for.
    pub(in crate::primary) scope: Scope,
}

impl Rolled {
    /// Of volumes that stood still, in the group's order.
    pub(in crate::primary) fn of(volumes: &[Written]) -> Self {
        let mut rolled = Self { eras: Vec::new(), scope: Scope::new() };
        for written in volumes {
            rolled.add(written.delta.next, written.extents());
        }
        rolled
    }

    fn add(&mut self, next: Era, extents: impl Iterator<Item = Extent>) {
        let volume = VolumeIndex(u16::try_from(self.eras.len()).unwrap_or(u16::MAX));
        self.eras.push(next);
        self.scope.extend(extents.map(|extent| (volume, extent)));
    }
}

/// Rolls volumes that only track, each in a pause of its own. `since`: the eras to start from; `None`: everything.
///
/// # Errors
/// The first one's, with the volume's name.
pub(in crate::primary) fn roll(
    stacks: &[Stack],
    since: Option<&[Era]>,
    pulse: &dyn Pulse,
) -> Result<Rolled, (StackName, WrittenError)> {
    let mut rolled = Rolled { eras: Vec::new(), scope: Scope::new() };
    for (at, stack) in stacks.iter().enumerate() {
        let from = since.and_then(|eras| eras.get(at)).copied().unwrap_or(Era(0));
        let written = stack.written_since(from, pulse).map_err(|error| (stack.name().clone(), error))?;
        let (pause, sectors) = (written.pause, written.sectors());
        log::debug!("{}: rolled in a pause of {pause:?}, {sectors} written since era {from}", stack.name());
        rolled.add(written.delta.next, written.extents());
    }
    Ok(rolled)
}

/// What was written before the switches in whose pauses metadata snapshots were taken, since these eras.
///
/// # Errors
/// When one cannot be read.
pub(in crate::primary) fn written_before(
    captures: &mut [Capture],
    since: &[Era],
    pulse: &dyn Pulse,
) -> Result<Rolled, WrittenError> {
    let mut rolled = Rolled { eras: Vec::new(), scope: Scope::new() };
    for (capture, since) in captures.iter_mut().zip(since) {
        pulse.beat(Phase::Capturing);
        let delta = read(capture, *since);
        capture.era_control().drop_snapshot().map_err(WrittenError::dropping)?;
        let (delta, shape) = (delta?, capture.stack().shape()?);
        rolled.add(delta.next, delta.blocks.extents(shape.block, shape.volume));
    }
    pulse.beat(Phase::Capturing);
    Ok(rolled)
}

fn read(capture: &mut Capture, since: Era) -> Result<Delta, WrittenError> {
    let status = capture.era_control().status().map_err(WrittenError::asking)?;
    let snapshot = status.snapshot.ok_or(WrittenError::NoSnapshot)?;
    capture.stack().read_snapshot(snapshot, since)
}

/// The eras that writes go to. `None` when one cannot be asked.
pub(in crate::primary) fn eras(captures: &mut [Capture]) -> Option<Vec<Era>> {
    let era = |capture: &mut Capture| match capture.era_control().status() {
        Ok(status) => Some(status.current),
        Err(error) => {
            log::warn!("the era of {}: {error}", capture.stack().name());
            None
        }
    };
    captures.iter_mut().map(era).collect()
}
