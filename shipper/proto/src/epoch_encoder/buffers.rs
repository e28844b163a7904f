//! Memory of payloads that is used again, so that a stream of frames asks the kernel for none.
//!
//! Always holds: at most [`KEPT`] buffers of at most [`LARGEST`] bytes are kept; small ones are not worth it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::frame::MAX_RAW_PAYLOAD;

/// Frames that are under way between the encoder and the socket, and a few.
const KEPT: usize = 16;
const SMALLEST: usize = 64 << 10;
const LARGEST: usize = MAX_RAW_PAYLOAD + (64 << 10);

/// A store of buffers that encoders take from, and whoever has sent a payload gives back to.
#[derive(Clone, Debug, Default)]
pub struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// An empty buffer, with room if there is one that was used before.
    #[must_use]
    pub fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Keeps a buffer whose content nobody needs any more.
    pub fn give(&self, mut buffer: Vec<u8>) {
        if !(SMALLEST..=LARGEST).contains(&buffer.capacity()) {
            return;
        }
        buffer.clear();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_in_number_and_size() {
        let buffers = Buffers::default();
        for capacity in [0, SMALLEST - 1, LARGEST + 1] {
            buffers.give(Vec::with_capacity(capacity));
        }
        assert_eq!(buffers.take().capacity(), 0);
        (0..2 * KEPT).for_each(|_| buffers.give(vec![1; SMALLEST]));
        let mut taken = (0..).map(|_| buffers.take()).take_while(|buffer| buffer.capacity() > 0);
        assert_eq!(taken.by_ref().inspect(|buffer| assert!(buffer.is_empty())).count(), KEPT);
    }
}
