//! The exit codes of `ftship`, by name.
//!
//! Always holds: what a script can act upon has a code of its own. `--help` and the manual list them.

/// The exit codes, but for 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Something failed; the message says what and where.
    Failed = 1,
    /// Wrong arguments, or a configuration that is refused.
    Usage = 2,
    /// No daemon serves this group on this host.
    NoDaemon = 3,
    /// It does not fit the role, the state or what the devices hold.
    Refused = 4,
    /// A newer version wrote the journal.
    NewerVersion = 5,
    /// No answer in time.
    TimedOut = 6,
    /// The journal is damaged.
    Damaged = 7,
    /// A verify found a difference.
    Differs = 8,
    /// A fencing token is not above one seen before.
    StaleToken = 9,
    /// This user may not ask this of the daemon.
    NotPermitted = 10,
    /// Something changed on the primary and was never shipped.
    NeverShipped = 11,
}
