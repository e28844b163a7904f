//! The memory that a capture reads its log into.
//!
//! Where memory is locked each new page costs a fault. So an epoch is filled into what an earlier one left, however many
//! are on their way to the backup, and a capture that ends leaves its memory to the next one.
//!
//! Always holds: what is kept is empty, and takes at most [`KEPT`] bytes.

use crate::log_writes::epoch_log::EpochLog;

/// Memory that an epoch has from the start and keeps when it is recycled: growing costs page faults
/// while the log fills.
const KEPT_BYTES: usize = 32 << 20;
/// What recycled epochs may take together: a whole window of them, where epochs are small.
const KEPT: usize = 128 << 20;
/// Those that a capture begins with: one that it fills, and the next.
const FIRST_EPOCHS: usize = 2;

/// Epochs that are to be filled, with their memory.
#[derive(Debug, Default)]
pub struct CaptureMemory(Vec<EpochLog>);

impl CaptureMemory {
    /// What a capture begins with: made ready, as far as no earlier one left it so.
    pub(crate) fn ready(mut self, entries: usize) -> Self {
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

    /// What it takes.
    fn bytes(&self) -> usize {
        self.0.iter().map(EpochLog::memory).sum()
    }

    /// Takes back an epoch that nobody needs any more.
    pub fn keep(&mut self, mut log: EpochLog) {
        log.clear(KEPT_BYTES);
        if self.bytes() + log.memory() <= KEPT {
            self.0.push(log);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a capture does it: a bit of data, and room for entries.
    fn fill(log: &mut EpochLog, bytes: usize) {
        log.reserve(64);
        log.arena.append(bytes, |_, _| Ok(())).unwrap();
    }

    #[test]
    fn what_one_capture_leaves_the_next_one_begins_with() {
        let mut memory = CaptureMemory::default().ready(16);
        let filled: Vec<EpochLog> = (0..5).map(|_| memory.next()).collect();
        assert_eq!(filled.iter().filter(|log| log.memory() >= KEPT_BYTES).count(), FIRST_EPOCHS);
        filled.into_iter().for_each(|log| memory.keep(log));
        let held = memory.bytes();
        assert_eq!(memory.0.len(), 5);
        let ready = memory.ready(16);
        assert_eq!(ready.0.len(), 5);
        assert!(held >= FIRST_EPOCHS * KEPT_BYTES);
    }

    /// The link stands, a window of epochs waits to be encoded, and all come back at once.
    #[test]
    fn every_epoch_of_a_full_window_is_filled_into_what_an_earlier_one_left() {
        let mut memory = CaptureMemory::default().ready(64);
        let fresh = |memory: &mut CaptureMemory| {
            let mut window: Vec<EpochLog> = (0..8).map(|_| memory.next()).collect();
            let before: Vec<usize> = window.iter().map(EpochLog::memory).collect();
            window.iter_mut().for_each(|log| fill(log, 1 << 20));
            let grown = window.iter().zip(&before).filter(|(log, before)| log.memory() > **before).count();
            window.into_iter().for_each(|log| memory.keep(log));
            grown
        };
        assert!(fresh(&mut memory) > 0, "nothing was there before");
        for _ in 0..10 {
            assert_eq!(fresh(&mut memory), 0);
        }
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes() {
        let mut memory = CaptureMemory::default();
        let mut all: Vec<EpochLog> = (0..20).map(|_| EpochLog::default()).collect();
        all.iter_mut().for_each(|log| fill(log, 40 << 20));
        // One with very many entries too.
        all[0].reserve(4 << 20);
        for log in all {
            memory.keep(log);
        }
        assert!(!memory.0.is_empty() && memory.bytes() <= KEPT, "{} bytes", memory.bytes());
    }
}
