//! Deliberate faults: points at which a scenario stops or kills the process, the proof that it may be stopped
//! anywhere; points at which a call of the kernel fails; and promises that it breaks, the proof that the scenarios
//! would notice.
//!
//! Always holds: without the feature `faults` nothing of this is in the program. With it, the file
//! that `FTDM_FAULT` names is read at every point; when it says `POINT STOP` or `POINT KILL` it is removed
//! and the process sends itself that signal. `POINT FAIL` makes the call there fail, once. `FTDM_BREAK` lists the
//! promises to break, separated by commas.

/// Where the process may be told to stop. Nothing, without the feature.
#[cfg(not(feature = "faults"))]
pub const fn at(_point: &str) {}

/// Where the process may be told to stop.
#[cfg(feature = "faults")]
pub fn at(point: &str) {
    use nix::sys::signal::{Signal, raise};
    for (order, signal) in [("STOP", Signal::SIGSTOP), ("KILL", Signal::SIGKILL)] {
        // Sent to this thread, which then does not take one more step; it stops or ends the whole process all the same.
        if is_ordered(point, order)
            && let Err(e) = raise(signal)
        {
            log::error!("fault point {point}: {e}");
        }
    }
}

/// Whether the file orders this at this point. It is removed: a scenario sees by that that the point was reached.
fn is_ordered(point: &str, order: &str) -> bool {
    let Some(path) = std::env::var_os("FTDM_FAULT") else { return false };
    let is_here = std::fs::read_to_string(&path).is_ok_and(|text| text.trim() == format!("{point} {order}"));
    is_here && std::fs::remove_file(&path).is_ok()
}

/// Whether a scenario asks for this promise to be broken. Never, without the feature.
#[must_use]
pub fn breaks(promise: &str) -> bool {
    cfg!(feature = "faults")
        && std::env::var("FTDM_BREAK").is_ok_and(|wanted| wanted.split(',').any(|one| one == promise))
}

/// Whether the call at this point is to fail. Never, without the feature.
#[must_use]
pub fn fails(point: &str) -> bool {
    cfg!(feature = "faults") && is_ordered(point, "FAIL")
}
