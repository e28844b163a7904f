//! Holding writes back while the log has no room for them.
//!
//! Always holds: writes are held only while somebody would end that if this process stopped
//! ([`Phase::Held`]); the next cut ends it, whatever becomes of that cut, and so does the capture's end.

use std::io;

use crate::capture::{Capture, LostReason};
use crate::pause::pulse::Phase;
use crate::pause::{After, Pause};

impl Capture {
    /// From now on writes are held back when more than `percent` of the log is used.
    pub fn hold_above(&mut self, percent: u8) {
        self.hold_percent = Some(percent);
    }

    /// Looks how full the log is, and holds writes back when it is too full. Returns whether they are.
    ///
    /// # Errors
    /// When the capture is lost, or the volume cannot be suspended; it then runs.
    pub fn hold_when_full(&mut self) -> Result<bool, LostReason> {
        let Some(percent) = self.hold_percent else { return Ok(false) };
        if !self.held {
            let (used, capacity) = self.check()?;
            if used > capacity / 100 * u64::from(percent) {
                let held = self.hold().map_err(LostReason::Hold);
                self.note_lost(held)?;
            }
        }
        Ok(self.held)
    }

    fn hold(&mut self) -> io::Result<()> {
        let pause = Pause::begin(vec![&mut *self], Phase::Capturing);
        let mut pause = pause.map_err(|failed| io::Error::other(failed.why))?;
        pause.suspend()?;
        pause.end(After::Hold)?;
        self.held = true;
        Ok(())
    }
}
