//! Signals that would end the process in the midst of something that must come to its end.
//!
//! Always holds: they are not lost; they come when the [`HeldSignals`] go.

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

/// Signals that would end the process wait until this goes: it must not die within a pause.
pub struct HeldSignals(Option<SigSet>);

impl HeldSignals {
    /// Holds those of this thread, and of the ones that it starts.
    #[must_use]
    pub fn hold() -> Self {
        let ending: SigSet =
            [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT].into_iter().collect();
        Self(ending.thread_swap_mask(SigmaskHow::SIG_BLOCK).ok())
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        if let Some(before) = &self.0
            && let Err(e) = before.thread_set_mask()
        {
            log::warn!("giving signals free again: {e}");
        }
    }
}
