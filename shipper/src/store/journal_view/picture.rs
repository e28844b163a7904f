//! What a look into a journal shows.
//!
//! Always holds: these types are also the JSON of `ftship journal --json`.

use std::io;
use std::path::PathBuf;

use ftship_proto::journal::JournalError;
use serde::Serialize;

use crate::control::exit::Code;
use crate::store::storage::StorageError;

/// Why there is no picture at all.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The device or file cannot be opened.
    #[error("journal {0}")]
    Storage(#[from] StorageError),
    /// It cannot be read.
    #[error("journal {path}: reading: {error}")]
    Io {
        /// The device or file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is no journal, or another group's.
    #[error("journal {path}: {reason}")]
    Other {
        /// The device or file.
        path: PathBuf,
        /// What it is.
        reason: String,
    },
    /// A newer version wrote its superblock.
    #[error("journal {path}: {source}")]
    Newer {
        /// The device or file.
        path: PathBuf,
        /// What is newer.
        source: JournalError,
    },
    /// Its superblock cannot be used.
    #[error("journal {path}: {source}{}", advice_without_superblock(source))]
    Damaged {
        /// The device or file.
        path: PathBuf,
        /// What is wrong.
        source: JournalError,
    },
}

/// How far an epoch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EpochState {
    /// On the volumes; only a remainder, until its space is used again.
    Applied,
    /// Whole, and what a promote gives at least.
    Committed,
    /// Whole, but not committed: a full sync has not ended, or the coordinator has not said so.
    Staged,
    /// Begun and not whole: it will be dropped.
    Unfinished,
    /// Dropped on purpose, with all before it that are not listed.
    Dropped,
}

/// One epoch in the ring.
#[derive(Clone, Debug, Serialize)]
pub struct EpochLine {
    /// Its number.
    pub epoch: u64,
    /// First epoch that it covers.
    pub first_epoch: u64,
    /// How far it has come.
    pub state: EpochState,
    /// Random id of the primary that made it.
    pub incarnation: String,
    /// The generation in which it was made.
    pub generation: u64,
    /// Bytes that it takes in the ring.
    pub bytes: u64,
    /// Its frames.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Byte on the device.
    pub offset: u64,
    /// Absolute position; none for what earlier laps left.
    pub position: Option<u64>,
    /// Its digest, chained over all before it; none while it is not whole.
    pub digest: Option<String>,
}

/// Where the scan ended and why.
#[derive(Clone, Debug, Serialize)]
pub struct EndLine {
    /// Absolute position.
    pub position: u64,
    /// Byte on the device.
    pub offset: u64,
    /// What lies there.
    pub reason: String,
}

/// What all of it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing is wrong.
    Sound,
    /// Nothing is lost, but what is kept in two places is damaged in one of them.
    Impaired,
    /// A newer version wrote it.
    Newer,
    /// Something that was durable is gone or changed.
    Damaged,
    /// A daemon changed it again and again meanwhile.
    Moving,
}

/// Something that is wrong, or worth knowing.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Byte on the device.
    pub offset: u64,
    /// What was found.
    pub what: String,
    /// What to do.
    pub advice: String,
}

/// A journal in one instant.
#[derive(Clone, Debug, Serialize)]
pub struct Picture {
    /// The group.
    pub group: String,
    /// The device or file.
    pub device: PathBuf,
    /// Whether a daemon works on it meanwhile.
    pub daemon: bool,
    /// First byte of the ring.
    pub ring_start: u64,
    /// Its bytes.
    pub ring_size: u64,
    /// Bytes in use.
    pub used: u64,
    /// The last epoch that is on the volumes.
    pub applied: u64,
    /// What a promote would give, as far as this journal tells.
    pub promotable: Option<u64>,
    /// The epochs, in the order of the ring.
    pub epochs: Vec<EpochLine>,
    /// Where they end.
    pub end: EndLine,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What it means.
    pub verdict: Verdict,
}

impl Verdict {
    /// The exit code of a check that gave it.
    #[must_use]
    pub fn code(self) -> Option<Code> {
        match self {
            Self::Sound => None,
            Self::Newer => Some(Code::NewerVersion),
            Self::Moving => Some(Code::TimedOut),
            Self::Damaged | Self::Impaired => Some(Code::Damaged),
        }
    }
}

impl ViewError {
    /// The exit code when there is no picture.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Storage(_) | Self::Io { .. } => Code::Failed,
            Self::Other { .. } => Code::Refused,
            Self::Newer { .. } => Code::NewerVersion,
            Self::Damaged { .. } => Code::Damaged,
        }
    }
}

fn advice_without_superblock(error: &JournalError) -> &'static str {
    match error {
        // It says itself what to do.
        JournalError::Shrunk { .. } => "",
        _ => {
            ". Nothing in it can be told without its superblock: keep a copy of the device and check it. While the \
             primary lives: `ftship format --force` and a full sync. If it is gone: `ftship promote GROUP --accept-loss`"
        }
    }
}
