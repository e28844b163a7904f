//! Bringing the visible device back onto dm-era, whatever a daemon that died left behind: a
//! capture that nobody reads, a suspended device, a device that was shut, a table loaded but not live.
//!
//! Always holds: nothing of discards is let through any more, before anything else; once the table is swapped the visible device is live, and the log-writes device is
//! removed only when nothing points at it any more. The order matters: a table loaded by the dead
//! daemon is replaced before any resume could make it live.

use super::devices::Devices;
use super::{Mode, Stack, StackError, io_step, settle_top, unless_refused};
use crate::block_io::{Access, BlockDevice};
use crate::ioctl::DmControl;
use crate::name::Part;
use crate::pause;
use crate::pause::pulse::{Phase, unwatched};

/// What [`Stack::recover`] found and mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Where the visible device pointed.
    pub mode: Mode,
    /// It was suspended: the daemon died within a pause.
    pub suspended: bool,
    /// A log-writes device was there: what it held is lost, the era delta has it.
    pub log: bool,
    /// That device is still there, because somebody has it open: a daemon that lives, but hangs.
    pub log_left: bool,
}

impl Stack {
    /// Clears up after a daemon that died, for a watchdog: as [`recover`](Self::recover), but a volume that was shut stays
    /// shut, and only its log is removed. `None` for such a one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn clear_up(&self) -> Result<Option<Recovered>, StackError> {
        let devices = Devices::open()?;
        let log = devices.find_uuid(&self.id.log())?;
        if self.mode(&devices, log.as_ref())? == Mode::Shut {
            return remove_log(&devices, self).map(|()| None);
        }
        self.recover().map(Some)
    }

    /// Brings the visible device back to dm-era, or what stands in its place, after a daemon died or hangs,
    /// and removes its log. Does nothing to a stack that runs there.
    ///
    /// # Errors
    /// The kernel's. The visible device is resumed whenever that is possible at all.
    pub fn recover(&self) -> Result<Recovered, StackError> {
        let devices = Devices::open()?;
        let mut control = DmControl::open().map_err(io_step("open device-mapper"))?;
        let log = devices.find_uuid(&self.id.log())?;
        let mut valve = self.valve()?;
        let shut = valve.shut();
        if let Err(e) = &shut {
            log::error!("shutting off discards of {}: {e}", self.name);
        }
        let top = control.state(self.top).map_err(io_step(format!("ask {}", self.name)))?;
        let mode = self.mode(&devices, log.as_ref())?;
        let mut found = Recovered { mode, suspended: top.suspended, log: log.is_some(), log_left: false };
        // Where the limit is refused, the table of errors that this ends with shuts discards off as well.
        let refused = if (top.suspended || shut.is_err()) && !valve.wait() { shut } else { Ok(()) };
        if control.state(self.era).is_ok_and(|era| era.suspended) {
            // Somebody died while giving dm-era up.
            pause::resume(&mut control, self.era).map_err(io_step(format!("resume {}", self.name.era())))?;
        }
        if let Some(gate) = self.gate()
            && control.state(gate).is_ok_and(|gate| gate.suspended)
        {
            // Somebody died while enlarging it.
            pause::resume(&mut control, gate)
                .map_err(io_step(format!("resume the gate of {}", self.name)))?;
        }
        // Before the visible device takes over what a layer below takes.
        unless_refused(&self.name, self.settle_layers().as_ref());
        if let Some(log) = &log
            && log.live
            && log.suspended
        {
            pause::resume(&mut control, log.number)
                .map_err(io_step(format!("resume {}", self.name.log())))?;
        }
        if mode == Mode::Shut
            && let Ok(device) = BlockDevice::open_dm(self.top, Access::default())
        {
            // What the page cache could not write is told once, to whoever flushes next: let that be here.
            let told = device.flush();
            log::debug!("{} was shut: {told:?}", self.name);
        }
        let at_rest = matches!(mode, Mode::Tracking | Mode::Passthrough);
        if !at_rest || top.suspended || top.inactive {
            let swap = pause::point_at(self.visible(unwatched())?, self.floor(), Phase::Paused);
            swap.map_err(io_step(format!("point {} at {}", self.name, self.name.era())))?;
            unless_refused(&self.name, settle_top(self.top).as_ref());
        }
        if log.is_some() {
            match remove_log(&devices, self) {
                Err(StackError::Busy { .. }) => found.log_left = true,
                removed => removed?,
            }
        }
        refused.map_err(io_step(format!("shut off discards of {}", self.name)))?;
        Ok(found)
    }
}

/// Flushes and removes the log-writes device. Nothing may point at it any more.
pub(crate) fn remove_log(devices: &Devices, stack: &Stack) -> Result<(), StackError> {
    let Some(log) = devices.find_uuid(&stack.id.log())? else { return Ok(()) };
    let name = &log.name;
    if log.live && !log.suspended {
        // What is in the log is given up; the flush only keeps the volume's own promises.
        match BlockDevice::open_dm(log.number, Access::default()).map(|d| d.flush()) {
            Ok(Ok(())) => {}
            Ok(Err(e)) => log::warn!("flush of {name}: {e}"),
            Err(e) => log::warn!("{e}"),
        }
    }
    devices.remove(name)?;
    // The next capture does the same: no reason to say that this one has not ended.
    if let Err(e) = remove_rams(devices, stack) {
        log::warn!("{}: {e}", stack.name);
    }
    Ok(())
}

/// Removes the joined RAM disks that an ended capture had its logs on.
pub(crate) fn remove_rams(devices: &Devices, stack: &Stack) -> Result<(), StackError> {
    for part in Part::RAMS {
        if let Some(joined) = devices.find_uuid(&stack.id.of(part))? {
            devices.remove(&joined.name)?;
        }
    }
    Ok(())
}
