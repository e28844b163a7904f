//! Volumes that are given up and could not be shut are shut later.
//!
//! Always holds: nobody hears that the volumes are shut before each of them is; until then what they hold back stays so,
//! and the watchdog hears that they yield, so that it shuts them if this process ends; only a release ends that.

use std::time::{Duration, Instant};

use ftdm::stack::{Mode, Stack};

use super::Capturing;
use super::jobs::CaptureReport;

/// How often it is tried.
const INTERVAL: Duration = Duration::from_secs(1);

/// The volumes that are still to be shut.
#[derive(Debug)]
pub(super) struct Unshut {
    /// Their places in the group.
    volumes: Vec<usize>,
    tried: Instant,
}

impl Unshut {
    pub(super) fn none() -> Self {
        Self { volumes: Vec::new(), tried: Instant::now() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.volumes.is_empty()
    }

    fn is_due(&self) -> bool {
        !self.is_empty() && self.tried.elapsed() >= INTERVAL
    }
}

impl Capturing {
    /// Makes all I/O of the volumes fail. Says so once that is done for all of them; one for which it fails stays held
    /// back, and is tried again.
    pub(super) fn shut(&mut self) -> Option<CaptureReport> {
        self.hold_ends = None;
        let frozen = self.frozen.take();
        let captures = std::mem::take(&mut self.captures);
        let was_held = frozen.is_some() || !captures.is_empty();
        self.unshut = Unshut::none();
        if let Some(frozen) = frozen
            && let Err((name, error)) = frozen.shut()
        {
            log::error!("{name}: {error}");
        }
        for capture in captures {
            let name = capture.stack().name().clone();
            if let Err(error) = capture.shut() {
                log::error!("{name}: {error}");
            }
        }
        self.unshut.volumes = (0..self.stacks.len()).collect();
        // Where nothing was held somebody let the volumes go on meanwhile.
        self.shut_rest(was_held)
    }

    /// Tries again every second.
    pub(super) fn shut_later(&mut self) -> Option<CaptureReport> {
        if self.unshut.is_due() { self.shut_rest(false) } else { None }
    }

    /// Shuts those that are not. `was_tried`: just now, so this only looks.
    fn shut_rest(&mut self, was_tried: bool) -> Option<CaptureReport> {
        self.unshut.tried = Instant::now();
        for at in std::mem::take(&mut self.unshut.volumes) {
            let stack = &self.stacks[at];
            if !was_tried
                && !is_shut(stack)
                && let Err(error) = stack.shut()
            {
                log::error!("{}: {error}", stack.name());
            }
            if !is_shut(stack) {
                log::error!("{} stays held back: it is tried again to shut it", stack.name());
                self.unshut.volumes.push(at);
                continue;
            }
            log::warn!("{} is given up: all I/O fails from here on", stack.name());
            if stack.status().is_ok_and(|status| status.log.is_some()) {
                self.leftovers.add(at);
            }
        }
        self.unshut.is_empty().then_some(CaptureReport::Shut)
    }
}

fn is_shut(stack: &Stack) -> bool {
    stack.status().is_ok_and(|status| status.mode == Mode::Shut && !status.suspended)
}
