//! Discards of the guest: taken in by the log, remembered, and given to the volume in the pauses of cuts.
//!
//! dm-era marks only the first block of a discard, so a guest's discard must never reach it as it is. With
//! [`Discards::Off`] every layer refuses them. With [`Discards::Pass`] the stack has one layer more, the
//! *gate*: a linear device over dm-era that takes no discards, for good (its limit is lowered to 0 before anything
//! is pointed at it, and its table never changes). Everything that carries the guest's I/O stands on the gate: the
//! visible device while tracking, log-writes while capturing. What the daemon gives to the volume goes through the
//! *outlet*, another linear device over dm-era, which nobody else uses.
//!
//! ```text
//! visible device ── log-writes ── gate ──────┐
//!                   logs a discard and       ├── dm-era ── origin
//!                   completes it itself      │
//!                        the cut ── outlet ──┘   open while a capture passes discards;
//!                                                one discard per block of dm-era
//! ```
//!
//! log-writes finds below it a device that takes no discards: it then logs each one and completes it, sending
//! nothing down (`log_writes_io_hints` and `log_writes_map` of the kernel; asked again at every change of its
//! table). So a discard of the guest changes nothing on the primary and needs no tracking. What was discarded
//! and not written since is [`pending`]; a cut gives a little of it to the volume ([`outlet`]) in each of its
//! pauses, and the epoch says of those sectors that their content is unknown.
//!
//! Always holds: a sector that is given to the volume was discarded in an earlier epoch, and neither written
//! in that epoch nor since; no discard can reach the volume once its writers run again; each bio that reaches
//! dm-era covers whole what it marks, or only what is marked already.
//!
//! # A daemon that stops in the middle
//!
//! The daemon opens the outlet once, at the beginning of a capture, before the visible device is pointed at
//! the log. In a pause it (1) verifies that the visible device is suspended and nothing was logged behind
//! the mark, (2) discards, (3) verifies again, (4) resumes. Whoever brings the volume back (the watchdog, a new
//! daemon) (a) lowers the outlet's limit to 0, (b) loads dm-era's table on the visible device, (c) suspends that, (d)
//! waits until the outlet has no discard in flight, and gives it a table of errors, (e) resumes ([`valve`]).
//!
//! | the daemon stops (SIGSTOP, SIGKILL) | what happens |
//! |---|---|
//! | before (1), goes on before (a) | as if it had been slow: (d) waits for what it sends, or it is refused |
//! | before (1), goes on after (e) | (1) fails: the device runs. Had somebody suspended it again, (2) is refused, the limit is 0 |
//! | between (1) and (2), goes on between (a) and (e) | every discard is refused: the outlet's limit is 0 |
//! | between (1) and (2), goes on after (e) | the same; what the guest wrote meanwhile is untouched |
//! | within (2), in the kernel | sent before (a): in flight, (d) waits for it, at most [`valve::PATIENCE`]. Past the outlet's check, not counted in flight yet: the suspend under which the table of errors becomes live waits for it, or it finds that table |
//! | between two discards of (2) | the next one is refused |
//! | after (2) | the limit is 0; (3) fails, or the visible device does not point at the log any more: the capture is lost |
//! | killed anywhere | the same as stopped for good: the watchdog acts at once, a new daemon lowers the limits before anything else |
//! | at the beginning of a capture, before it opens the outlet; goes on after (e) | the outlet is open while the visible device points at the gate: nothing of the guest's passes either. The capture either begins, watched again, or ends and shuts it |
//! | the one who brings the volume back dies between (a) and (e) | the outlet stays shut until a capture begins |
//!
//! dm-era's own limit, raised and lowered within each pause, without gate and outlet, would not do: a daemon that is
//! stopped just before it raises and goes on between (a) and (e) would have the visible device inherit a
//! limit above 0 straight from dm-era. And what was lowered to 0 later kernels do not raise again.
//!
//! Not covered: somebody else who resumes the visible device by hand (`dmsetup resume`) between (1) and (3). A
//! write of the guest to a sector that it had discarded before can then be lost to the discard under way.

use std::fmt;
use std::str::FromStr;

mod ledger;
mod outlet;
pub mod pending;
pub(crate) mod valve;

pub use ledger::DiscardFigures;
pub(crate) use ledger::Ledger;
pub(crate) use outlet::Outlet;

/// What becomes of discards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discards {
    /// Every layer refuses them.
    #[default]
    Off,
    /// Taken in while capturing, and given to the volume by the cuts.
    Pass,
}

impl FromStr for Discards {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "pass" => Ok(Self::Pass),
            other => Err(format!("`{other}`: discards are \"off\" or \"pass\"")),
        }
    }
}

impl fmt::Display for Discards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Pass => "pass",
        })
    }
}
