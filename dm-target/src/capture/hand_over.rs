//! Giving a volume up to another side: behind a cut that holds, what is written waits, and then either goes on as if
//! nothing had been, or fails.
//!
//! ```text
//!   cut that holds ──► held ──yield_up──► yielding ──shut──► every write fails
//!                        │                    │
//!                        └──── release ───────┘  writes go on, captured
//! ```
//!
//! Always holds: while a capture yields, nobody lets its writes through, whatever becomes of this process: the watchdog
//! shuts the volume rather than bring it back; a capture is shut only if nothing was written behind the cut.

use crate::capture::{Capture, CaptureError, LostReason, step};
use crate::fault;
use crate::pause::pulse::Phase;
use crate::pause::{After, Pause, Unguarded};
use crate::stack::devices::Devices;
use crate::stack::remove_log;

impl Capture {
    /// From here on writes that are held back are not let through by anybody but [`release`](Self::release).
    ///
    /// # Errors
    /// When they were let through meanwhile, or nobody stands by to keep to that.
    pub fn yield_up(&mut self) -> Result<(), LostReason> {
        if !self.pulse.beat_heard(Phase::Yielding) {
            return Err(LostReason::Hold(std::io::Error::other(Unguarded)));
        }
        self.yields = true;
        // Behind the beat: until it was heard the watchdog may have brought the volume back.
        let held = self.refuse_unless_held();
        self.note_lost(held)
    }

    /// Nothing was written since the cut: the visible device still stands, over this capture's log.
    fn refuse_unless_held(&mut self) -> Result<(), LostReason> {
        let state = self.top_state().map_err(LostReason::Status)?;
        if !self.held || !state.suspended || !self.epoch.entries.is_empty() {
            return Err(LostReason::TakenOver);
        }
        self.refuse_when_taken_over()
    }

    /// Lets writes that are held back go on, captured as before.
    ///
    /// # Errors
    /// When the capture was lost meanwhile.
    pub fn release(&mut self) -> Result<(), LostReason> {
        (self.held, self.yields) = (false, false);
        let pause = Pause::begin_anyway(vec![&mut *self], Phase::Paused, Phase::Capturing);
        let resumed = pause.end_hold().map_err(|failed| LostReason::Hold(failed.why));
        let own = resumed.and_then(|_| self.refuse_when_taken_over());
        self.note_lost(own)
    }

    /// Ends the capture of a volume that yields: what is held back fails, and so does everything later.
    ///
    /// # Errors
    /// When writes may have got through, or the table of errors cannot be made live: they stay held back then.
    pub fn shut(mut self) -> Result<(), CaptureError> {
        let pause = Pause::begin_anyway(vec![&mut self], Phase::Yielding, Phase::Yielding);
        pause.end(After::Shut).map_err(|failed| step("shut the volume")(failed.why))?;
        self.ledger.shut();
        fault::at("shut-discards");
        let Self { log_flush, helper, rams, stack, .. } = self;
        drop((helper, log_flush, rams));
        remove_log(&Devices::open()?, &stack)?;
        Ok(())
    }
}
