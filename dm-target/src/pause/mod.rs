//! Letting volumes stand still, and run again: what every pause shares, and the heartbeat that tells of it.
//!
//! Always holds: a device that cannot be resumed is tried again before that is given up.

pub mod pool;
pub mod pulse;
pub mod signals;
pub(crate) mod stillness;

use std::io;

use crate::ioctl::{DmControl, Urgency};
use crate::units::DevNum;

/// The volumes' writers wait for what is done in a pause: it goes before everything ordinary.
pub(crate) const PAUSE_URGENCY: Urgency = Urgency::RealTime(10);

/// Attempts to resume a device at the end of a pause before giving up: its writers hang until it runs.
const RESUME_TRIES: u32 = 3;

/// Ends a pause of `device`. Neither allocates nor logs.
///
/// # Errors
/// The kernel's, to the last attempt.
pub(crate) fn resume(control: &mut DmControl, device: DevNum) -> io::Result<()> {
    let mut tries = 1;
    loop {
        match control.resume(device) {
            Err(_) if tries < RESUME_TRIES => tries += 1,
            result => return result,
        }
    }
}
