//! The memory that a capture reads its log into.
//!
//! Always holds: what is kept is empty, and at most [`KEPT_EPOCHS`] epochs of [`KEPT_BYTES`] each. Where memory is locked
//! each new page costs a fault: so a capture that ends leaves its memory to the next one, which then begins without them.

use crate::log_writes::epoch_log::EpochLog;

/// Memory that an epoch has from the start and keeps when it is recycled: growing costs page faults
/// while the log fills.
const KEPT_BYTES: usize = 32 << 20;
/// Recycled epochs that are kept.
const KEPT_EPOCHS: usize = 3;
/// Those that a capture begins with: one that it fills, and the next.
const FIRST_EPOCHS: usize = 2;

/// Epochs that are to be filled, with their memory.
#[derive(Debug, Default)]
pub struct CaptureMemory(Vec<EpochLog>);

impl CaptureMemory {
    /// What a capture begins with: made ready, as far as no earlier one left it so.
    pub(crate) fn ready(mut self, entries: usize) -> Self {
        self.0.reserve(KEPT_EPOCHS);
        while self.0.len() < FIRST_EPOCHS {
            self.0.push(EpochLog::default());
        }
        for log in &mut self.0 {
            log.arena.reserve(KEPT_BYTES);
            log.reserve(entries);
        }
        self
    }

    /// The next epoch to be filled.
    pub(crate) fn next(&mut self) -> EpochLog {
        self.0.pop().unwrap_or_default()
    }

    /// The one that [`Self::next`] will give.
    pub(crate) fn upcoming(&mut self) -> Option<&mut EpochLog> {
        if self.0.is_empty() {
            self.0.push(EpochLog::default());
        }
        self.0.last_mut()
    }

    /// Takes back an epoch that nobody needs any more.
    pub fn keep(&mut self, mut log: EpochLog) {
        if self.0.len() < KEPT_EPOCHS {
            log.clear(KEPT_BYTES);
            self.0.push(log);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_capture_leaves_the_next_one_begins_with() {
        let mut memory = CaptureMemory::default().ready(16);
        let filled: Vec<EpochLog> = (0..5).map(|_| memory.next()).collect();
        assert_eq!(filled.iter().filter(|log| log.memory() >= KEPT_BYTES).count(), FIRST_EPOCHS);
        filled.into_iter().for_each(|log| memory.keep(log));
        assert_eq!(memory.0.len(), KEPT_EPOCHS);
        let held: usize = memory.0.iter().map(EpochLog::memory).sum();
        let ready = memory.ready(16);
        assert_eq!(ready.0.len(), KEPT_EPOCHS);
        assert!(held >= FIRST_EPOCHS * KEPT_BYTES);
    }
}
