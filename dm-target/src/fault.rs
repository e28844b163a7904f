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
    let Some(path) = std::env::var_os("FTDM_FAULT") else { return };
    let Ok(text) = std::fs::read_to_string(&path) else { return };
    let signal = match text.trim().split_once(' ') {
        Some((wanted, "STOP")) if wanted == point => Signal::SIGSTOP,
        Some((wanted, "KILL")) if wanted == point => Signal::SIGKILL,
        _ => return,
    };
    // Removed first: a scenario sees by that that the point was reached. Sent to this thread, which then
    // does not take one more step; it stops or ends the whole process all the same.
    if std::fs::remove_file(&path).is_ok()
        && let Err(e) = raise(signal)
    {
        log::error!("fault point {point}: {e}");
    }
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
    if !cfg!(feature = "faults") {
        return false;
    }
    let Some(path) = std::env::var_os("FTDM_FAULT") else { return false };
    let wanted = std::fs::read_to_string(&path).is_ok_and(|text| text.trim() == format!("{point} FAIL"));
    wanted && std::fs::remove_file(&path).is_ok()
}
