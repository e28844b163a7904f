//! Making the state and the journal of a group ready for their first use.
//!
//! Always holds: what looks used (another group's, a file system's, any content at all) is refused
//! unless the operator insists; every check is made before the first write.

use std::io;
use std::path::Path;

use ftship_proto::generations::LineageEntry;
use ftship_proto::ids::{Digest, Epoch, Generation};
use ftship_proto::state::{DurableState, Role};

use crate::config::Config;
use crate::store::journal_device::{JournalDevice, JournalFault};
use crate::store::state_file::{StateError, StateFile};
use crate::store::storage::StorageError;

/// Why formatting was not done.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The state's device or file holds something.
    #[error("state {path}: {found}; `--force` overwrites it")]
    StateInUse {
        /// The device or file.
        path: String,
        /// What it holds.
        found: String,
    },
    /// The journal's device holds something.
    #[error("journal {path}: {found}; `--force` overwrites it")]
    JournalInUse {
        /// The device.
        path: String,
        /// What it holds.
        found: String,
    },
    /// There is no journal, and nothing says how large a file it is to be.
    #[error(
        "journal {0}: there is none; `journal.size` in the configuration says how large a file is to be made"
    )]
    NoSize(String),
    /// The state cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalFault),
    /// The system has no random numbers.
    #[error("no random id: {0}")]
    Random(io::Error),
}

impl FormatError {
    /// Whether a check refused, rather than something failed.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::StateInUse { .. } | Self::JournalInUse { .. } | Self::NoSize(_) => true,
            Self::State(StateError::Storage(error)) | Self::Journal(JournalFault::Storage(error)) => {
                matches!(error, StorageError::Sparse { .. } | StorageError::InUse(_) | StorageError::Kind(_))
            }
            _ => false,
        }
    }
}

/// Formats the state and, on a backup, the journal; files that are missing are made. Returns what was done,
/// for people.
///
/// # Errors
/// See [`FormatError`].
pub fn format(config: &Config, force: bool) -> Result<String, FormatError> {
    let (state, journal) = (&config.state, &config.journal.device);
    let mut state_file = if is_missing(state) { None } else { Some(StateFile::open(state)?) };
    if let Some(found) = state_file.as_mut().filter(|_| !force).map(state_content).transpose()?.flatten() {
        return Err(FormatError::StateInUse { path: state.display().to_string(), found });
    }
    // A primary needs it when it is the backup one day.
    let is_absent = matches!(journal.try_exists(), Ok(false)) && config.journal.size.is_none();
    let journal_device = match config.role {
        Role::Primary if is_absent => None,
        _ => Some(open_journal(config, force)?),
    };
    let mut state_file = state_file.map_or_else(|| StateFile::create(state), Ok)?;
    let mut done = format!("group {}: {} formatted", config.group, state.display());
    if let Some(mut device) = journal_device {
        device.format(&config.group, random()?)?;
        done.push_str(&format!(", {} formatted", journal.display()));
    }
    state_file.format(&first_state(config)?)?;
    Ok(format!("{done}; this host is the {}", config.role))
}

/// Whether a file is to be made. What is missing below `/dev` is a device that is not there yet.
fn is_missing(path: &Path) -> bool {
    !path.starts_with("/dev") && matches!(path.try_exists(), Ok(false))
}

/// The journal, when it may be formatted; made, when it is a file that is missing.
fn open_journal(config: &Config, force: bool) -> Result<JournalDevice, FormatError> {
    let path = &config.journal.device;
    if is_missing(path) {
        let size = config.journal.size.ok_or_else(|| FormatError::NoSize(path.display().to_string()))?;
        return Ok(JournalDevice::create(path, size.as_u64())?);
    }
    let mut journal = JournalDevice::open(path)?;
    journal.check_size()?;
    match journal.content()? {
        Some(found) if !force => Err(FormatError::JournalInUse { path: path.display().to_string(), found }),
        _ => Ok(journal),
    }
}

/// What the state's device holds, when it is not blank.
fn state_content(state_file: &mut StateFile) -> Result<Option<String>, StateError> {
    match state_file.read() {
        Ok(Some(state)) => Ok(Some(format!("holds the state of group {}", state.group_name))),
        Ok(None) if state_file.is_blank()? => Ok(None),
        Ok(None) => Ok(Some("holds data of another kind".into())),
        Err(StateError::Unusable { reason, .. }) => Ok(Some(reason)),
        Err(error) => Err(error),
    }
}

/// A primary begins the history of the group.
fn first_state(config: &Config) -> Result<DurableState, FormatError> {
    let blank = DurableState::new_backup(config.group.clone(), random()?);
    if config.role == Role::Backup {
        return Ok(blank);
    }
    let generation = Generation { number: 1, id: random()? };
    let lineage = vec![LineageEntry { generation, first_epoch: Epoch(1), digest: Digest::ZERO }];
    Ok(DurableState { role: Role::Primary, lineage, ..blank })
}

fn random() -> Result<[u8; 16], FormatError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| FormatError::Random(io::Error::other(error)))?;
    Ok(id)
}
