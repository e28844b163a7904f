//! Captures that could not be ended are ended later: another process may have the hidden log device open for a while.
//!
//! Always holds: until the log of a capture is gone no other capture begins, nor a sync that would end in one; meanwhile the
//! watchdog hears that something is captured, so it looks after the volume if this process stops; a volume that is held
//! back or shut stays so.

use std::time::{Duration, Instant};

use super::Capturing;

/// How often it is tried.
const INTERVAL: Duration = Duration::from_secs(1);

/// The volumes whose capture did not end.
#[derive(Debug)]
pub(super) struct Leftovers {
    /// Their places in the group.
    volumes: Vec<usize>,
    tried: Instant,
}

impl Leftovers {
    pub(super) fn none() -> Self {
        Self { volumes: Vec::new(), tried: Instant::now() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.volumes.is_empty()
    }

    /// The capture of this volume may have left its log behind.
    pub(super) fn add(&mut self, volume: usize) {
        if !self.volumes.contains(&volume) {
            self.volumes.push(volume);
        }
    }
}

impl Capturing {
    /// Tries again every second.
    pub(super) fn watch_leftovers(&mut self) {
        if self.leftovers.is_empty() || self.leftovers.tried.elapsed() < INTERVAL {
            return;
        }
        match self.clear_leftovers() {
            Ok(()) => log::info!("what an earlier capture left is gone"),
            Err(reason) => log::debug!("{reason}"),
        }
    }

    /// Ends what could not be ended before.
    ///
    /// # Errors
    /// Why that is not possible yet.
    pub(super) fn clear_leftovers(&mut self) -> Result<(), String> {
        self.leftovers.tried = Instant::now();
        if self.frozen.is_some() {
            return Err("writes are held back: ending the last capture would let them go on".to_owned());
        }
        while let Some(at) = self.leftovers.volumes.last() {
            let stack = &self.stacks[*at];
            match stack.clear_up() {
                Ok(Some(found)) if found.log_left => {
                    let name = stack.name();
                    return Err(format!(
                        "volume {name}: the log of the last capture is still there, because another process has {name}@log \
                         open: close it there (fuser -v /dev/dm-*)"
                    ));
                }
                Ok(_) => {}
                Err(error) => {
                    return Err(format!("volume {}: ending the last capture: {error}", stack.name()));
                }
            }
            self.leftovers.volumes.pop();
        }
        Ok(())
    }
}
