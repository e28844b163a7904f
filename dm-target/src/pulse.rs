//! The heartbeat of a capture: what the thread that captures is doing to the visible device, told to
//! whoever would have to bring that device back if the thread stopped here.
//!
//! Always holds: a beat is sent before the visible device is touched and after it runs again, so that
//! what was heard last is never more harmless than what was done.

use std::fmt::Debug;
use std::sync::Arc;

/// What the capturing thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The visible device points at dm-era: nothing can go wrong.
    Tracking,
    /// Writes flow, and are logged.
    Capturing,
    /// Writes are held back, or about to be, for a cut or a change of tables.
    Paused,
    /// Writes are held back until there is room for what they write.
    Held,
    /// The same, and there is reason to expect room soon: the lease of holding begins anew.
    Renewed,
}

/// Where beats go.
pub trait Pulse: Debug + Send + Sync {
    /// Tells the phase, at every step that makes progress. Neither blocks nor allocates, as it is called
    /// while the volume stands still. Returns whether somebody is there to act if no beat follows.
    fn beat(&self, phase: Phase) -> bool;
}

#[derive(Debug)]
struct Unwatched;

impl Pulse for Unwatched {
    fn beat(&self, _phase: Phase) -> bool {
        true
    }
}

/// For programs that nobody watches: if one is killed in a pause, the volume hangs until
/// [`Stack::recover`](crate::stack::Stack::recover).
#[must_use]
pub fn unwatched() -> Arc<dyn Pulse> {
    Arc::new(Unwatched)
}
