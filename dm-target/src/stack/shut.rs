//! Giving a volume up for good: whatever is written to the visible device from here on fails, and what is held
//! back fails with it.
//!
//! Always holds: no write gets through from the suspend that precedes to the table of errors being live, unless this
//! says so; only [`Stack::recover`] ends it.

use super::devices::Devices;
use super::{Mode, Stack, StackError, io_step, remove_log};
use crate::pause::pulse::{Phase, unwatched};
use crate::pause::{After, Pause};

impl Stack {
    /// Makes the visible device fail all I/O, whatever state a daemon left it in, and removes the log.
    ///
    /// # Errors
    /// The kernel's. The device is left suspended rather than let through what is held back.
    pub fn shut(&self) -> Result<(), StackError> {
        let pause = Pause::begin_anyway(vec![self.visible(unwatched())?], Phase::Paused, Phase::Paused);
        pause.end(After::Shut).map_err(|failed| io_step(format!("shut {}", self.name))(failed.why))?;
        remove_log(&Devices::open()?, self)
    }

    /// Whether a daemon that gave this volume up left it held back or shut, so that nobody's writes went through since.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_given_up(&self) -> Result<bool, StackError> {
        let devices = Devices::open()?;
        let log = devices.find_uuid(&self.id.log())?;
        Ok(self.mode(&devices, log.as_ref())? == Mode::Shut || self.info()?.suspended)
    }
}
