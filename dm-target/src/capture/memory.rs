//! The memory that a capture reads its log into.
//!
//! Where memory is locked each new page costs a fault. So an epoch is filled into what earlier ones left, however many
//! are on their way to the backup, and a capture that ends leaves its memory to the next one.
//!
//! Always holds: what is kept is empty, and takes at most [`KEPT`] bytes.

use crate::log_writes::epoch_log::{EpochLog, PiecePool};

/// Memory for content that is there from the start: growing costs page faults while the log fills.
const READY: usize = 64 << 20;
/// What is kept: what is under way at once where a link is slow for a moment.
const KEPT: usize = 128 << 20;
/// What each list of an epoch (its entries, its suspects) keeps when it is used again.
const KEPT_LIST: usize = 4 << 20;
/// Those that a capture begins with: one that it fills, and the next.
const FIRST_EPOCHS: usize = 2;

/// Epochs that are to be filled, and the memory for their content.
#[derive(Debug, Default)]
pub struct CaptureMemory {
    pool: PiecePool,
    epochs: Vec<EpochLog>,
}

impl CaptureMemory {
    /// What a capture begins with: made ready, as far as no earlier one left it so.
    pub(crate) fn ready(mut self, entries: usize) -> Self {
        while self.epochs.len() < FIRST_EPOCHS {
            self.epochs.push(EpochLog::new(&self.pool));
        }
        // Each has its first pieces from the pool.
        self.epochs.iter_mut().for_each(|log| log.reserve(entries));
        self.pool.fill(READY);
        self
    }

    /// The next epoch to be filled.
    pub fn next_epoch(&mut self) -> EpochLog {
        self.epochs.pop().unwrap_or_else(|| EpochLog::new(&self.pool))
    }

    /// The one that [`Self::next_epoch`] will give.
    pub(crate) fn upcoming(&mut self) -> Option<&mut EpochLog> {
        if self.epochs.is_empty() {
            self.epochs.push(EpochLog::new(&self.pool));
        }
        self.epochs.last_mut()
    }

    /// What the epochs take beside the pool.
    fn lists(&self) -> usize {
        self.epochs.iter().map(EpochLog::memory).sum()
    }

    /// Takes back an epoch that nobody needs any more.
    pub fn keep(&mut self, mut log: EpochLog) {
        log.clear(&self.pool, KEPT_LIST);
        if self.lists() + log.memory() <= KEPT / 2 {
            self.epochs.push(log);
        }
        self.pool.shrink(KEPT.saturating_sub(self.lists()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl CaptureMemory {
        fn bytes(&self) -> usize {
            self.pool.bytes() + self.lists()
        }
    }

    /// As a capture does it: a bit of data, and room for entries.
    fn fill(log: &mut EpochLog, bytes: usize) {
        log.reserve(64);
        log.arena.append(bytes, |_, _| Ok(())).unwrap();
    }

    #[test]
    fn what_one_capture_leaves_the_next_one_begins_with() {
        let mut memory = CaptureMemory::default().ready(16);
        assert_eq!(memory.epochs.len(), FIRST_EPOCHS);
        let mut filled: Vec<EpochLog> = (0..5).map(|_| memory.next_epoch()).collect();
        filled.iter_mut().for_each(|log| fill(log, 20 << 20));
        filled.into_iter().for_each(|log| memory.keep(log));
        let held = memory.bytes();
        assert!(held >= 5 * (20 << 20) && memory.epochs.len() == 5);
        let ready = memory.ready(16);
        assert_eq!((ready.bytes(), ready.epochs.len()), (held, 5));
    }

    /// The link stands, a window of epochs waits to be encoded, and all come back at once: however many, what counts is
    /// what is in them.
    #[test]
    fn every_epoch_of_a_full_window_is_filled_into_what_earlier_ones_left() {
        let mut memory = CaptureMemory::default().ready(64);
        let round = |memory: &mut CaptureMemory, epochs: usize, bytes: usize| {
            let mut window: Vec<EpochLog> = (0..epochs).map(|_| memory.next_epoch()).collect();
            window.iter_mut().for_each(|log| {
                fill(log, bytes);
                log.trim();
            });
            window.into_iter().for_each(|log| memory.keep(log));
            memory.bytes()
        };
        let held = round(&mut memory, 8, 6 << 20);
        for _ in 0..10 {
            assert_eq!(round(&mut memory, 8, 6 << 20), held);
            assert_eq!(round(&mut memory, 2, 24 << 20), held);
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
        assert!(!memory.epochs.is_empty() && memory.bytes() <= KEPT, "{} bytes", memory.bytes());
    }
}
