//! Exchanging tables: of the visible device in a pause of its own, of a device below in the pause of another, and for a
//! table of errors.
//!
//! Always holds: a device whose table was to be exchanged runs on every way out, but for one that was to be shut.

use std::io;
use std::time::Duration;

use super::pulse::Phase;
use super::{After, Layers, Pausable, Pause};
use crate::fault;
use crate::ioctl::DmControl;
use crate::units::{DevNum, Sectors};

/// The target whose every I/O fails.
pub(crate) const SHUT: &str = "error";
/// Attempts to resume a device before giving up: its writers hang until it runs.
const RESUME_TRIES: u32 = 3;

/// Points a visible device at `below`, within one pause; how long that was. `otherwise` is what whoever stands by hears
/// if the table cannot be loaded.
///
/// # Errors
/// The kernel's. The device runs whenever that is possible at all.
pub(crate) fn point_at<V: Pausable>(volume: V, below: DevNum, otherwise: Phase) -> io::Result<Duration> {
    let mut pause = Pause::begin_anyway(vec![volume], Phase::Paused, otherwise);
    pause.load(|volume| {
        let Layers { top, size, .. } = volume.layers();
        volume.control().load(top, size, "linear", &format!("{below} 0"))
    })?;
    fault::at("stop-loaded");
    let suspended = pause.suspend();
    fault::at("stop-suspended");
    // Also after a failed suspend: a device that may be half way must not stay so.
    let lasted = pause.end(After::Resume(Phase::Tracking))?;
    suspended?;
    Ok(lasted)
}

/// Makes a table of errors live. A volume for which that fails stays suspended.
pub(super) fn shut<V: Pausable>(volume: &mut V) -> io::Result<()> {
    let Layers { top, size, .. } = volume.layers();
    if fault::fails("shut-load") {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    volume.control().load(top, size, SHUT, "")?;
    fault::at("shut-loaded");
    // The watchdog may come between: it leaves a table of errors, or the one that was loaded.
    volume.control().suspend(top)?;
    resume(volume.control(), top)?;
    fault::at("shut-resumed");
    Ok(())
}

/// Why the table of a device was not exchanged.
#[derive(Debug)]
pub(crate) enum SwapError {
    /// It did not drain.
    NotDrained(io::Error),
    /// It does not run.
    NotResumed(io::Error),
}

/// Makes a table live that was loaded on a device under a volume that stands still.
///
/// # Errors
/// See [`SwapError`].
pub(crate) fn swap_table(control: &mut DmControl, device: DevNum) -> Result<(), SwapError> {
    let suspended = control.suspend(device);
    fault::at("mid-rotation");
    // Also after a failed suspend: whatever state that left, the device must run.
    resume(control, device).map_err(SwapError::NotResumed)?;
    suspended.map_err(SwapError::NotDrained)
}

/// Makes a table live on a device that carries nothing of the guest's, also where somebody left it suspended.
///
/// # Errors
/// The kernel's. The device runs whenever that is possible at all.
pub(crate) fn replace(
    control: &mut DmControl,
    device: DevNum,
    size: Sectors,
    target: &str,
    parameters: &str,
) -> io::Result<()> {
    control.load(device, size, target, parameters)?;
    let suspended = control.suspend(device);
    resume(control, device)?;
    suspended
}

/// Lets a device run. Neither allocates nor logs.
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
