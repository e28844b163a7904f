//! Why it cannot be said what was written.
//!
//! Always holds: an error after which a full verify is needed says so by [`WrittenError::tracking_lost`].

use std::io;

use super::{Mode, StackError};
use crate::block_io::OpenError;
use crate::era::error::MetadataError;
use crate::units::Era;

/// Why it cannot be said what was written.
#[derive(Debug, thiserror::Error)]
pub enum WrittenError {
    /// The stack's devices.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// A daemon captures: the era is its to roll.
    #[error("it is {mode}{}: stop the daemon that captures it, or ask that", if *suspended { " and suspended" } else { "" })]
    InUse {
        /// Where the stack's I/O goes.
        mode: Mode,
        /// Its I/O is held back.
        suspended: bool,
    },
    /// An era that has not begun in this history.
    #[error(
        "era {since} is above the current era {current}: if it was ever reported, the metadata was replaced \
         since and tracking is lost, so that a full verify is needed"
    )]
    Future {
        /// The era asked for.
        since: Era,
        /// The one that writes go to.
        current: Era,
    },
    /// Rolling would fill the metadata, and then writes of the volume fail.
    #[error(
        "{free} of {total} blocks of the metadata are free, another era may take {needed}: wait until earlier \
         eras are digested; if that does not help the metadata device is too small (ftdm metadata-size)"
    )]
    NoRoom {
        /// Free blocks.
        free: u64,
        /// All blocks.
        total: u64,
        /// Blocks that an era may take.
        needed: u64,
    },
    /// Nobody would bring the volume back if this process were killed in the pause.
    #[error("the process that guards the pause is gone: try again")]
    Unguarded,
    /// Another process does the same.
    #[error("another process reads what was written just now: try again when it is done")]
    Locked,
    /// The volume did not stand still.
    #[error("another process resumed the visible device in the pause: nothing is lost, try again")]
    Resumed,
    /// The metadata snapshot that was taken is not there.
    #[error("the metadata snapshot is gone: another process dropped it")]
    NoSnapshot,
    /// A step failed.
    #[error("cannot {step}: {source}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The metadata cannot be relied on, or not be read.
    #[error("{}{source}", if source.is_io() { "" } else { "tracking lost: " })]
    Metadata {
        /// What is wrong with it.
        #[from]
        source: MetadataError,
    },
}

impl WrittenError {
    /// dm-era could not be asked.
    #[must_use]
    pub fn asking(source: io::Error) -> Self {
        step("ask dm-era")(source)
    }

    /// The metadata snapshot could not be dropped.
    #[must_use]
    pub fn dropping(source: io::Error) -> Self {
        step("drop the metadata snapshot")(source)
    }

    /// What changed before cannot be known any more: a full verify is needed.
    #[must_use]
    pub fn tracking_lost(&self) -> bool {
        match self {
            Self::Stack(StackError::Bypassed { .. }) | Self::Future { .. } => true,
            Self::Metadata { source } => !source.is_io(),
            _ => false,
        }
    }
}

impl From<OpenError> for WrittenError {
    fn from(error: OpenError) -> Self {
        Self::Stack(error.into())
    }
}

pub(super) fn step(step: &'static str) -> impl FnOnce(io::Error) -> WrittenError {
    move |source| WrittenError::Step { step, source }
}
