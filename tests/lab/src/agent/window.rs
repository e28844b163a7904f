//! Flow control: how many bytes of a stream are on their way.
//!
//! What must hold: no more bytes than the window has are sent and not yet taken, so that a slow
//! reader of one command's output neither fills memory nor holds up other commands.

use std::sync::{Condvar, Mutex, PoisonError};

/// The sender's side of one stream's window.
#[derive(Debug)]
pub struct Window {
    size: usize,
    on_the_way: Mutex<usize>,
    changed: Condvar,
}

impl Window {
    /// A window of `size` bytes.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Window { size, on_the_way: Mutex::new(0), changed: Condvar::new() }
    }

    /// Waits until `count` bytes (at most the window's size) may be sent.
    pub fn reserve(&self, count: usize) {
        let on_the_way = self.on_the_way.lock().unwrap_or_else(PoisonError::into_inner);
        let mut on_the_way = self
            .changed
            .wait_while(on_the_way, |on_the_way| *on_the_way + count > self.size)
            .unwrap_or_else(PoisonError::into_inner);
        *on_the_way += count;
    }

    /// The receiver has taken `count` bytes.
    pub fn taken(&self, count: u32) {
        let mut on_the_way = self.on_the_way.lock().unwrap_or_else(PoisonError::into_inner);
        *on_the_way = on_the_way.saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_full_window_waits_for_the_receiver() {
        let window = Arc::new(Window::new(10));
        window.reserve(10);
        let sender = thread::spawn({
            let window = Arc::clone(&window);
            move || window.reserve(1)
        });
        thread::sleep(Duration::from_millis(50));
        assert!(!sender.is_finished());
        window.taken(1);
        sender.join().unwrap();
    }
}
