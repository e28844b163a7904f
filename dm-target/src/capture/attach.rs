//! Putting the log under the visible device, and taking it away again.
//!
//! Always holds: the watchdog hears of it before a table is loaded; the visible device runs on every way
//! out; a capture begins only if the visible device points at its log *after* it was resumed.

use std::io;
use std::time::Duration;

use crate::block_io::LayerSettings;
use crate::capture::{AtSwitch, Capture, CaptureError, step};
use crate::discard::valve::Limit;
use crate::fault;
use crate::ioctl::DmControl;
use crate::pause::pulse::Phase;
use crate::stack::era_device::EraControl;
use crate::stack::{StackError, point_top_at, settle_top};
use crate::units::DevNum;

impl Capture {
    /// Points the visible device at the log, with `at_switch` in the same pause.
    pub(crate) fn switch_on(&mut self, at_switch: Option<AtSwitch<'_>>) -> Result<(), CaptureError> {
        let (top, size) = (self.stack.top, self.stack.size);
        if !self.pulse.beat(Phase::Paused) {
            return Err(CaptureError::Unwatched);
        }
        self.control
            .load(top, size, "linear", &format!("{} 0", self.log_number))
            .map_err(step("load the table of the visible device"))?;
        fault::at("start-loaded");
        let mut switch = Switch { control: &mut self.control, top, abandon: true };
        switch.control.suspend(top).map_err(step("suspend the visible device"))?;
        fault::at("start-suspended");
        if let Some(at_switch) = at_switch {
            let device = &*self.era.0;
            let mut era = EraControl { control: switch.control, era: self.stack.era, device };
            at_switch(&mut era).map_err(step("prepare dm-era"))?;
        }
        switch.abandon = false;
        drop(switch);
        let state = self.control.state(top).map_err(step("ask the visible device"))?;
        if state.suspended || state.inactive {
            return Err(step("resume the visible device")(io::ErrorKind::Other.into()));
        }
        fault::at("start-resumed");
        self.refuse_when_taken_over().map_err(|e| step("begin the capture")(io::Error::other(e)))
    }

    /// Makes the settings of the visible device over the log.
    pub(crate) fn settle(&self) -> Result<(), CaptureError> {
        let top = self.stack.top;
        if !self.ledger.passes() {
            return settle_top(top).map_err(|e| StackError::from(e).into());
        }
        LayerSettings::open_with_discards(top)
            .and_then(|settings| settings.apply())
            .map_err(StackError::from)?;
        // Later kernels remember that it was lowered while there was no log.
        let takes = Limit::open(top).and_then(|limit| limit.raise()).map_err(step("let discards in"))?;
        if !takes {
            log::warn!("{} takes no discards", self.stack.name);
        }
        Ok(())
    }

    /// Loads the other log, wiped, so that in the pause only the change itself is left. When that
    /// fails this log goes on, and the next cut tries again.
    pub(crate) fn ready_spare(&mut self) {
        if self.spare_ready {
            return;
        }
        let spare = &self.rams.0[1 - self.active];
        let parameters = format!("{} {}", self.stack.floor(), spare.number());
        let loaded = spare
            .wipe()
            .and_then(|()| self.control.load(self.log_number, self.stack.size, "log-writes", &parameters));
        match loaded {
            Ok(()) => self.spare_ready = true,
            Err(e) => log::warn!("the other log of {} cannot be made ready: {e}", self.stack.name),
        }
    }

    pub(crate) fn switch_off(&mut self) -> Result<Duration, CaptureError> {
        let (top, size, floor) = (self.stack.top, self.stack.size, self.stack.floor());
        self.pulse.beat(Phase::Paused);
        let paused = point_top_at(&mut self.control, top, size, floor)
            .map_err(step("point the visible device at dm-era"))?;
        self.pulse.beat(Phase::Tracking);
        settle_top(top).map_err(StackError::from)?;
        Ok(paused)
    }
}

/// Resumes the visible device on every way out of the switch; when it was not to happen the loaded
/// table is dropped first, so that the old one goes on.
struct Switch<'a> {
    control: &'a mut DmControl,
    top: DevNum,
    abandon: bool,
}

impl Drop for Switch<'_> {
    fn drop(&mut self) {
        if self.abandon
            && let Err(e) = self.control.clear(self.top)
        {
            log::error!("dropping the table of {}: {e}", self.top);
        }
        if let Err(e) = crate::pause::resume(self.control, self.top) {
            log::error!("resuming {}: {e}", self.top);
        }
    }
}
