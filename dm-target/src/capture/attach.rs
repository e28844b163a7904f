//! Putting the log under the visible device, and taking it away again.
//!
//! Always holds: the watchdog hears of it before a table is loaded; a capture begins only if the visible device points at its log *after* it was resumed.

use std::io;
use std::time::Duration;

use crate::block_io::LayerSettings;
use crate::capture::{AtSwitch, Capture, CaptureError, step};
use crate::discard::valve::Limit;
use crate::fault;
use crate::pause::pulse::Phase;
use crate::pause::{self, After, Layers, Pausable, Pause};
use crate::stack::{StackError, settle_top, unless_refused};

impl Capture {
    /// Points the visible device at the log, with `at_switch` in the same pause.
    pub(crate) fn switch_on(&mut self, at_switch: Option<AtSwitch<'_>>) -> Result<(), CaptureError> {
        let log = self.log_number;
        let mut pause =
            Pause::begin(vec![&mut *self], Phase::Tracking).map_err(|_| CaptureError::Unwatched)?;
        let loaded = pause.load(|volume| {
            let Layers { top, size, .. } = volume.layers();
            volume.control().load(top, size, "linear", &format!("{log} 0"))
        });
        loaded.map_err(|failed| step("load the table of the visible device")(failed.why))?;
        fault::at("start-loaded");
        pause.suspend().map_err(|failed| step("suspend the visible device")(failed.why))?;
        fault::at("start-suspended");
        if let Some(at_switch) = at_switch {
            let prepared = pause.each(|capture| at_switch(&mut capture.era_control()));
            prepared.map_err(|failed| step("prepare dm-era")(failed.why))?;
        }
        let resumed = pause.end(After::Resume(Phase::Capturing)).map(drop);
        let begun = resumed.map_err(|failed| step("resume the visible device")(failed.why));
        begun.and_then(|()| self.confirm()).or_else(|e| self.switch_off().and(Err(e)))
    }

    /// The capture has begun.
    fn confirm(&mut self) -> Result<(), CaptureError> {
        let state = self.control.state(self.stack.top).map_err(step("ask the visible device"))?;
        if state.suspended || state.inactive {
            return Err(step("resume the visible device")(io::ErrorKind::Other.into()));
        }
        fault::at("start-resumed");
        self.refuse_when_taken_over().map_err(|e| step("begin the capture")(io::Error::other(e)))?;
        self.settle()
    }

    /// Makes the settings of the visible device over the log.
    fn settle(&self) -> Result<(), CaptureError> {
        let top = self.stack.top;
        if !self.ledger.passes() {
            return settle_top(top).map_err(|e| StackError::from(e).into());
        }
        LayerSettings::open_with_discards(top)
            .and_then(|settings| settings.apply())
            .map_err(StackError::from)?;
        // Some kernels may remember that it was lowered while there was no log. Discards are not worth a capture.
        match Limit::open(top).and_then(|limit| limit.raise()) {
            Ok(true) => {}
            Ok(false) => log::warn!("{} takes no discards", self.stack.name),
            Err(e) => {
                log::warn!("{}: the guest cannot discard: queue/discard_max_bytes: {e}", self.stack.name);
            }
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

    /// Points the visible device at dm-era; how long it stood still.
    pub(crate) fn switch_off(&mut self) -> Result<Duration, CaptureError> {
        let (top, floor) = (self.stack.top, self.stack.floor());
        let paused = pause::point_at(&mut *self, floor, Phase::Capturing);
        let paused = paused.map_err(step("point the visible device at dm-era"))?;
        unless_refused(&self.stack.name, settle_top(top).as_ref());
        Ok(paused)
    }
}
