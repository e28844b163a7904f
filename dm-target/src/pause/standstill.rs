//! Whether this thread has suspended volumes, for those who must not be called then.
//!
//! Always holds: it is so from the first suspend of a pause until that pause is gone, however it ends.

use std::cell::Cell;

thread_local!(static PAUSES: Cell<u32> = const { Cell::new(0) });

/// Held for as long as the volumes stand still.
#[derive(Debug)]
pub(crate) struct Standstill(());

impl Standstill {
    /// Volumes are about to be suspended.
    pub(crate) fn begin() -> Self {
        PAUSES.set(PAUSES.get() + 1);
        Self(())
    }

    /// Whether this thread has suspended volumes.
    pub(crate) fn is_here() -> bool {
        PAUSES.get() > 0
    }
}

impl Drop for Standstill {
    fn drop(&mut self) {
        PAUSES.set(PAUSES.get() - 1);
    }
}
