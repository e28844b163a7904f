//! Why a capture cannot begin or end, and why one is of no use any more.

use std::io;

use crate::block_io::OpenError;
use crate::log_writes::reader::ReadError;
use crate::stack::{Mode, StackError};

/// Why a capture could not begin or end.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The stack's devices.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The stack is not merely tracking.
    #[error("{name} is {mode}{}: recover it first", if *suspended { " and suspended" } else { "" })]
    NotTracking {
        /// The stack.
        name: String,
        /// Where its I/O goes.
        mode: Mode,
        /// Its I/O is held back.
        suspended: bool,
    },
    /// Nobody would bring the volume back if this process stopped while it stands still.
    #[error("no watchdog stands by")]
    Unwatched,
    /// This kernel's log would not say what was written.
    #[error(
        "kernel {kernel} takes direct writes from memory that is not aligned to a sector, and its log-writes logs them \
         wrongly: set capture = \"era\" for this group, or boot another kernel (6.18 to 7.1 are known for this)"
    )]
    Unaligned {
        /// Its release.
        kernel: String,
    },
    /// The volume's logical block is not one that a log can have.
    #[error("the volume's logical block of {0} bytes is not between 512 and 4096")]
    LogicalBlock(u32),
    /// A step failed.
    #[error("cannot {step}: {source}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

pub(crate) fn step(step: &'static str) -> impl FnOnce(io::Error) -> CaptureError {
    move |source| CaptureError::Step { step, source }
}

/// Why a capture is of no use any more: stop it, and go on with tracking.
#[derive(Debug, thiserror::Error)]
pub enum LostReason {
    /// log-writes switched itself off: its log was full, or writing or allocating failed.
    #[error("log-writes switched logging off (log full, log I/O error or no memory): see the kernel's log")]
    LogOff,
    /// The log could not be read, or is not what it should be.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// The device below could not be asked.
    #[error("asking the log device: {0}")]
    Status(io::Error),
    /// Changing to the other log failed half way.
    #[error("rotating the log: {0}")]
    Rotation(io::Error),
    /// Somebody resumed the visible device while the log was being changed.
    #[error("another process resumed the visible device while the log was rotated: writes may be missing")]
    ResumedInRotation,
    /// The watchdog acted, or an administrator.
    #[error("the volume was taken off the log, as a watchdog does when the daemon stops: writes are missing")]
    TakenOver,
    /// Writes could not be held back before the log overflows.
    #[error("holding writes back: {0}")]
    Hold(io::Error),
    /// It was lost before.
    #[error("the capture was lost earlier")]
    Earlier,
}

/// Why opening a device of the stack failed, for callers that open some themselves.
impl From<OpenError> for CaptureError {
    fn from(error: OpenError) -> Self {
        Self::Stack(error.into())
    }
}
