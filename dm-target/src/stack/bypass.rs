//! Taking dm-era out from under a volume when its metadata fails: from then on nothing is tracked, and
//! everybody is told so for good.
//!
//! ```text
//! suspend        the visible device, which drains it             the pause begins
//! suspend        dm-era, which commits for the last time
//! mark           the metadata's first block says `tracking lost`, durably
//! replace        dm-era's device becomes a linear one over the origin
//! resume         both                                            the pause ends
//! ```
//!
//! Always holds: no write goes past dm-era before the metadata says that tracking is lost, unless it can say
//! nothing any more; both devices are resumed on every path out, panics included, and by the rescue when this
//! process dies: as dm-era up to the replacement, as the origin from then on.

use std::io;

use super::{History, Mode, Stack, StackError, io_step, settle_top, unless_refused};
use crate::block_io::{Access, AlignedBuffer, BlockDevice};
use crate::era::size::{MetadataSize, Room};
use crate::era::superblock::{SUPERBLOCK, lost_marker};
use crate::ioctl::DmControl;
use crate::pause::pulse::{Phase, Pulse};
use crate::pause::{After, Pause};
use crate::units::DevNum;

/// A volume without dm-era, and whether its metadata says so.
#[derive(Debug)]
pub struct Bypassed {
    unmarked: Option<DevNum>,
}

impl Bypassed {
    /// Lets the metadata say that tracking is lost, if it does not yet: a device that failed may come back,
    /// with a history that is not to be believed.
    ///
    /// # Errors
    /// The metadata device's. Try again later.
    pub fn mark(&mut self) -> io::Result<()> {
        let Some(metadata) = self.unmarked else { return Ok(()) };
        mark_lost(metadata)?;
        self.unmarked = None;
        Ok(())
    }
}

/// Lets a metadata device that no dm-era uses any more say that tracking is lost.
pub(super) fn mark_lost(metadata: DevNum) -> io::Result<()> {
    let access = Access { write: true, direct: true, exclusive: false };
    let device = BlockDevice::open(metadata.to_string().as_ref(), access).map_err(io::Error::other)?;
    let mut block = AlignedBuffer::new(SUPERBLOCK);
    block.bytes_mut().copy_from_slice(&lost_marker());
    device.write_at(0, block.bytes())?;
    device.flush()
}

impl Stack {
    /// What is wrong with dm-era's metadata, when writes of the volume fail because of it, or are about to.
    ///
    /// # Errors
    /// When dm-era cannot be asked; it must not be suspended.
    pub fn failing_history(&self) -> Result<Option<String>, StackError> {
        let Some(History { block, .. }) = self.history else { return Ok(None) };
        let mut control = DmControl::open().map_err(io_step("open device-mapper"))?;
        let line = control.status_line(self.era).map_err(io_step(format!("ask {}", self.name.era())))?;
        let status = match line.parse() {
            Ok(status) => status,
            Err(error) => return Ok(Some(format!("{error}"))),
        };
        Ok(match MetadataSize::of(self.tracked, block).room(&status) {
            Room::Exhausted { free, needed } => {
                Some(format!("dm-era's metadata has {free} free blocks, its next commit may take {needed}"))
            }
            Room::Enough | Room::Low { .. } | Room::Full { .. } => None,
        })
    }

    /// Takes dm-era out from under the volume, in a pause of which `pulse` hears. A capture is to be given up
    /// first ([`Self::recover`]). Only [`super::remove`] and a new history lead back. Does nothing to a stack
    /// without dm-era.
    ///
    /// # Errors
    /// The kernel's; [`StackError::Busy`] while something captures, [`StackError::Unguarded`].
    pub fn bypass(&mut self, pulse: &dyn Pulse) -> Result<Bypassed, StackError> {
        let Some(History { metadata, .. }) = self.history else { return Ok(Bypassed { unmarked: None }) };
        let status = super::devices::Devices::open().and_then(|devices| {
            let log = devices.find_uuid(&self.id.log())?;
            self.mode(&devices, log.as_ref())
        })?;
        if status != Mode::Tracking {
            return Err(StackError::Busy { name: self.name.to_string(), by: format!("it is {status}") });
        }
        let mut both = self.visible(pulse)?;
        both.layers.below = Some(self.era);
        let pause = Pause::begin(vec![both], Phase::Tracking);
        let mut pause = pause.map_err(|_| StackError::Unguarded)?;
        pause.suspend().map_err(|failed| io_step(format!("suspend {}", self.name))(failed.why))?;
        let mut bypassed = Bypassed { unmarked: Some(metadata) };
        let marked = bypassed.mark();
        let line = format!("{} 0", self.origin);
        let loaded = pause.each(|volume| volume.control.load(self.era, self.tracked, "linear", &line));
        loaded.map_err(|failed| io_step(format!("replace {}", self.name.era()))(failed.why))?;
        let ended = pause.end(After::Resume(Phase::Tracking));
        ended.map_err(|failed| io_step(format!("resume {}", self.name))(failed.why))?;
        self.history = None;
        for device in [self.era, self.top] {
            unless_refused(&self.name, settle_top(device).as_ref());
        }
        if let Err(error) = marked {
            log::error!("the metadata of {} cannot say yet that tracking is lost: {error}", self.name);
        }
        Ok(bypassed)
    }
}
