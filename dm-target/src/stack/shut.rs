//! Giving a volume up for good: whatever is written to the visible device from here on fails, and what is held
//! back fails with it.
//!
//! Always holds: no write gets through from the suspend that precedes to the table of errors being live, unless this
//! says so; only [`Stack::recover`] ends it.

use std::io;

use super::devices::Devices;
use super::{Mode, Stack, StackError, io_step, remove_log};
use crate::ioctl::DmControl;
use crate::units::{DevNum, Sectors};

/// The target whose every I/O fails.
pub(crate) const SHUT: &str = "error";

impl Stack {
    /// Makes the visible device fail all I/O, whatever state a daemon left it in, and removes the log.
    ///
    /// # Errors
    /// The kernel's. The device is left suspended rather than let through what is held back.
    pub fn shut(&self) -> Result<(), StackError> {
        let mut control = DmControl::open().map_err(io_step("open device-mapper"))?;
        shut_top(&mut control, self.top, self.size).map_err(io_step(format!("shut {}", self.name)))?;
        remove_log(&Devices::open()?, self)
    }

    /// Whether a daemon that gave this volume up left it held back or shut, so that nobody's writes went through since.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_given_up(&self) -> Result<bool, StackError> {
        let devices = Devices::open()?;
        let log = devices.find(&self.name.log())?;
        Ok(self.mode(&devices, log.as_ref())? == Mode::Shut || self.info()?.suspended)
    }
}

/// Makes the table of errors live, within one suspend, if there is none yet. Neither allocates nor logs.
///
/// # Errors
/// The kernel's; a device that was suspended stays so.
pub(crate) fn shut_top(control: &mut DmControl, top: DevNum, size: Sectors) -> io::Result<()> {
    control.load(top, size, SHUT, "")?;
    control.suspend(top)?;
    crate::pause::resume(control, top)
}
