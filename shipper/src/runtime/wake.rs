//! Waking the event loop from other threads.
//!
//! Always holds: what a thread did before it woke the loop, the loop sees after it was woken; a loop that was woken and
//! has not looked yet is not woken again, which would cost a system call and find nothing new.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use mio::{Registry, Waker};

use super::tokens::WAKER;

/// The way to wake a loop.
#[derive(Debug)]
pub struct LoopWaker {
    waker: Waker,
    /// It was woken, and has not looked since.
    is_woken: AtomicBool,
}

impl LoopWaker {
    /// For the loop that polls `registry`.
    ///
    /// # Errors
    /// When the kernel gives no descriptor.
    pub fn new(registry: &Registry) -> anyhow::Result<Self> {
        let waker = Waker::new(registry, WAKER).context("making the event loop's waker")?;
        Ok(Self { waker, is_woken: AtomicBool::new(false) })
    }

    /// Wakes the loop.
    pub fn wake(&self) {
        if self.is_woken.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Err(error) = self.waker.wake() {
            self.is_woken.store(false, Ordering::SeqCst);
            log::error!("the event loop cannot be woken: {error}");
        }
    }

    /// The loop looks from here on at what was done before.
    pub fn looks(&self) {
        self.is_woken.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;

    #[test]
    fn a_loop_is_woken_once_for_each_look() {
        let mut poll = Poll::new().unwrap();
        let waker = LoopWaker::new(poll.registry()).unwrap();
        let mut events = Events::with_capacity(8);
        let mut is_woken = |waker: &LoopWaker| {
            poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            waker.looks();
            !events.is_empty()
        };
        assert!(!is_woken(&waker));
        for _ in 0..3 {
            waker.wake();
            waker.wake();
            assert!(is_woken(&waker));
            assert!(!is_woken(&waker));
        }
    }
}
