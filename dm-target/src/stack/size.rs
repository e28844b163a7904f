//! The size of a volume, changed while it is in use: what the visible device shows, and what the layers below it have.
//!
//! ```text
//! enlarge    dm-era, then the gate, get the new length, each in a pause of its own; the visible device shows what it did
//! (durable)  the caller notes on its disk that the volume is larger
//! show       the visible device gets the new length, in one more pause
//! ```
//!
//! dm-era's table is loaded only while it is suspended: a device that is loaded before would have read its metadata while
//! the present one still changes it. It keeps what it recorded, and ends its era, as with each suspend.
//!
//! Always holds: the visible device never shows more than what every layer below has; a layer that does not run with its
//! new length runs with the old one again, or, if dm-era does not even do that, as the origin, with its history marked as
//! lost; both devices of a pause are resumed on every path out.

use std::io;

use super::bypass::mark_lost;
use super::devices::Devices;
use super::era_device::EraDevice;
use super::written::WrittenError;
use super::written_error::step;
use super::{History, Mode, Stack, StackError, era_status, io_step, settle_top, unless_refused};
use crate::block_io::{Access, BlockDevice, LayerSettings, SettingError};
use crate::discard::Discards;
use crate::era::size::MetadataSize;
use crate::fault;
use crate::ioctl::DmControl;
use crate::name::Part;
use crate::pause::pulse::{Phase, Pulse, unwatched};
use crate::pause::{self, After, Pause};
use crate::units::{DevNum, Era, Sectors};

/// Why a stack does not get another size.
#[derive(Debug, thiserror::Error)]
pub enum ResizeError {
    /// The origin has less.
    #[error("its device has {found}, {wanted} are wanted: enlarge it first (`lvextend`)")]
    Origin {
        /// What the origin has.
        found: Sectors,
        /// What is wanted.
        wanted: Sectors,
    },
    /// dm-era's metadata was made for less.
    #[error(
        "dm-era's metadata ({metadata}) was made too small to track {wanted}: stop the VM and the daemon, `ftship setup \
         --remove`, give the metadata volume {} bytes or more (`lvextend`) and overwrite its first 4096 bytes with zeros, \
         `ftship setup`: the backup is compared as a whole then, once",
        recommended.bytes().unwrap_or(u64::MAX)
    )]
    Metadata {
        /// The metadata device.
        metadata: DevNum,
        /// What is wanted of the volume.
        wanted: Sectors,
        /// What the metadata device needs for that.
        recommended: Sectors,
    },
    /// A step failed; the stack is as it was.
    #[error(transparent)]
    Failed(#[from] WrittenError),
    /// A step failed.
    #[error(transparent)]
    Stack(#[from] StackError),
}

impl Stack {
    /// The size that it can be given: all of the origin, or what dm-era tracks, where its metadata has no room for more.
    ///
    /// # Errors
    /// When the origin or dm-era cannot be asked.
    pub fn room(&self) -> Result<Sectors, StackError> {
        let origin = self.origin_size()?;
        Ok(if origin <= self.tracked || self.has_room(origin)? { origin } else { self.tracked })
    }

    fn origin_size(&self) -> Result<Sectors, StackError> {
        Ok(BlockDevice::open(self.origin.to_string().as_ref(), Access::default())?.size())
    }

    fn has_room(&self, size: Sectors) -> Result<bool, StackError> {
        let Some(History { block, .. }) = self.history else { return Ok(false) };
        let mut control = DmControl::open().map_err(io_step("open device-mapper"))?;
        if control.state(self.era).map_err(io_step(format!("ask {}", self.name.era())))?.suspended {
            return Ok(false);
        }
        let before = MetadataSize::of(self.tracked, block);
        Ok(MetadataSize::of(size, block).has_room_beyond(before, &era_status(&mut control, self)?))
    }

    /// Gives the layers below the visible device at least this length, in pauses of which `pulse` hears. What the
    /// visible device shows stays as it is.
    ///
    /// # Errors
    /// See [`ResizeError`]; the volume goes on as it was.
    pub fn enlarge(&mut self, size: Sectors, pulse: &dyn Pulse) -> Result<(), ResizeError> {
        let found = self.origin_size()?;
        if found < size {
            return Err(ResizeError::Origin { found, wanted: size });
        }
        if self.tracked < size {
            let History { metadata, block } = self.history()?;
            if !self.has_room(size)? {
                let recommended = MetadataSize::of(size, block).recommended_sectors();
                return Err(ResizeError::Metadata { metadata, wanted: size, recommended });
            }
            self.enlarge_era(size, pulse)?;
        }
        if let Some(gate) = self.gate {
            let length = Devices::open()?.table(&self.name.of(Part::Gate))?.map(|line| line.len);
            if length.is_none_or(|length| length < size) {
                self.enlarge_gate(gate, size, pulse)?;
            }
        }
        Ok(())
    }

    fn enlarge_era(&mut self, size: Sectors, pulse: &dyn Pulse) -> Result<(), WrittenError> {
        let mut era = EraDevice::open(self, pulse)?;
        let _lock = self.prepare(&mut era, Era(0))?;
        let mut both = self.visible(pulse)?;
        both.layers.below = Some(self.era);
        let pause = Pause::begin(vec![both], Phase::Tracking);
        let mut pause = pause.map_err(|_| WrittenError::Unguarded)?;
        fault::at("enlarge-begun");
        pause.suspend().map_err(|failed| step("suspend the volume")(failed.why))?;
        fault::at("enlarge-suspended");
        let swapped = pause.each(|volume| self.swap_era(&mut volume.control, size));
        fault::at("enlarge-swapped");
        let ended = pause.end(After::Resume(Phase::Tracking));
        let lasted = ended.map_err(|failed| step("resume the volume")(failed.why))?;
        match swapped.map_err(|failed| failed.why) {
            Ok(()) => self.tracked = size,
            Err(NotSwapped { why, is_lost }) => {
                if is_lost {
                    self.history = None;
                }
                return Err(step("give dm-era its new length")(why));
            }
        }
        self.settle_layers().map_err(StackError::from)?;
        log::info!("{}: dm-era tracks {size} from now on; the volume stood still for {lasted:?}", self.name);
        Ok(())
    }

    /// Exchanges dm-era's table while it is suspended, and lets it run: as the origin if nothing else runs.
    fn swap_era(&self, control: &mut DmControl, size: Sectors) -> Result<(), NotSwapped> {
        let kept = |why| NotSwapped { why, is_lost: false };
        let History { metadata, block } = self.history.ok_or_else(|| kept(io::ErrorKind::NotFound.into()))?;
        let line = format!("{metadata} {} {}", self.origin, block.get());
        control.load(self.era, size, "era", &line).map_err(kept)?;
        let resumed = if fault::fails("enlarge-resume") {
            Err(io::ErrorKind::OutOfMemory.into())
        } else {
            pause::resume(control, self.era)
        };
        let Err(why) = resumed else { return Ok(()) };
        let mut back = |target, line: &str| {
            control.load(self.era, self.tracked, target, line)?;
            pause::resume(control, self.era)
        };
        if back("era", &line).is_ok() {
            return Err(kept(why));
        }
        // Nothing tracks the volume any more, and it has to run.
        let _ = mark_lost(metadata);
        match back("linear", &format!("{} 0", self.origin)) {
            Ok(()) => Err(NotSwapped { why, is_lost: true }),
            Err(worse) => Err(NotSwapped { why: worse, is_lost: true }),
        }
    }

    fn enlarge_gate(&self, gate: DevNum, size: Sectors, pulse: &dyn Pulse) -> Result<(), StackError> {
        let pause = Pause::begin(vec![self.visible(pulse)?], Phase::Tracking);
        let mut pause = pause.map_err(|_| StackError::Unguarded)?;
        pause.suspend().map_err(|failed| io_step(format!("suspend {}", self.name))(failed.why))?;
        let line = format!("{} 0", self.era);
        let swapped = pause.each(|volume| pause::replace(&mut volume.control, gate, size, "linear", &line));
        fault::at("enlarge-gate");
        let ended = pause.end(After::Resume(Phase::Tracking));
        ended.map_err(|failed| io_step(format!("resume {}", self.name))(failed.why))?;
        swapped.map_err(|failed| io_step(format!("enlarge the gate of {}", self.name))(failed.why))?;
        Ok(self.settle_layers()?)
    }

    /// Makes the settings of dm-era and the gate: a device that has been given a table is as the kernel left it.
    pub(super) fn settle_layers(&self) -> Result<(), SettingError> {
        match self.discards() {
            Discards::Off => LayerSettings::open(self.era)?.apply()?,
            Discards::Pass => LayerSettings::open_with_discards(self.era)?.apply()?,
        }
        self.gate.map_or(Ok(()), |gate| LayerSettings::open(gate)?.apply())
    }

    /// From now on the visible device shows this much of the volume, which the layers below have
    /// ([`enlarge`](Self::enlarge)).
    ///
    /// # Errors
    /// When they have less, it does not only track, or the kernel refuses the table.
    pub fn show(&mut self, size: Sectors, pulse: &dyn Pulse) -> Result<(), StackError> {
        if size <= self.size {
            return Ok(());
        }
        if size > self.tracked {
            let what = format!("it tracks {}, {size} are to be shown", self.tracked);
            return Err(StackError::Form { name: self.name.era(), what });
        }
        self.set_size(size, pulse)
    }

    /// From now on the visible device shows only the first `size` of the volume. dm-era goes on tracking what it
    /// tracked.
    ///
    /// # Errors
    /// When it does not only track, or the kernel refuses the table. It does not ask whether the visible device is open:
    /// that is for the caller, before a VM is.
    pub fn limit(&mut self, size: Sectors) -> Result<(), StackError> {
        if size >= self.size { Ok(()) } else { self.set_size(size, &*unwatched()) }
    }

    fn set_size(&mut self, size: Sectors, pulse: &dyn Pulse) -> Result<(), StackError> {
        let status = self.status()?.mode;
        if !matches!(status, Mode::Tracking) {
            return Err(StackError::Busy { name: self.name.to_string(), by: format!("it is {status}") });
        }
        if !pulse.beat(Phase::Tracking) {
            return Err(StackError::Unguarded);
        }
        let mut top = self.visible(pulse)?;
        top.layers.size = size;
        let lasted = pause::point_at(top, self.floor(), Phase::Tracking)
            .map_err(io_step(format!("make {} show {size}", self.name)))?;
        log::info!("{}: the visible device shows {size}, not {}, after {lasted:?}", self.name, self.size);
        self.size = size;
        let settled: Result<(), SettingError> = settle_top(self.top);
        unless_refused(&self.name, settled.as_ref());
        Ok(())
    }
}

/// Why dm-era does not run with its new table.
struct NotSwapped {
    why: io::Error,
    /// It is gone: the origin stands in its place.
    is_lost: bool,
}
