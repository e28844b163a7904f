//! Holding a volume's writes back while nothing captures them, until somebody decides what becomes of them.
//!
//! Always holds: they go on when this goes, whatever the reason, unless the volume was shut; whoever holds has
//! somebody stand by who does the same if the process cannot ([`crate::pause::pulse`]).

use super::{Stack, StackError, io_step};
use crate::ioctl::DmControl;

/// A volume whose I/O waits.
#[derive(Debug)]
pub struct Held {
    stack: Stack,
    control: DmControl,
    is_shut: bool,
}

impl Stack {
    /// Drains the visible device and holds back all further I/O.
    ///
    /// # Errors
    /// The kernel's; the device runs then.
    pub fn hold(&self) -> Result<Held, StackError> {
        let control = DmControl::open().map_err(io_step("open device-mapper"))?;
        let mut held = Held { stack: self.clone(), control, is_shut: false };
        held.control.suspend(self.top).map_err(io_step(format!("suspend {}", self.name)))?;
        Ok(held)
    }
}

impl Held {
    /// The stack.
    #[must_use]
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// Whether nobody let it go on meanwhile; also not where that cannot be told.
    pub fn is_held(&mut self) -> bool {
        self.control.state(self.stack.top).is_ok_and(|state| state.suspended && !state.inactive)
    }

    /// Makes what waits fail, and all I/O from here on.
    ///
    /// # Errors
    /// The kernel's; it waits still then.
    pub fn shut(mut self) -> Result<(), StackError> {
        self.is_shut = true;
        self.stack.shut()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.is_shut
            && let Err(error) = crate::pause::resume(&mut self.control, self.stack.top)
        {
            log::error!("resuming {}: {error}", self.stack.name);
        }
    }
}
