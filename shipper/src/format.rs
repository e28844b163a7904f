//! Making the state and the journal of a group ready for their first use.
//!
//! Always holds: what looks used (another group's, a file system's, any content at all) is refused
//! unless the operator insists; every check is made before the first write.

use std::io;

use ftship_proto::ids::{Digest, Epoch, Generation};
use ftship_proto::state::{Content, DurableState, LineageEntry, Role};

use crate::backup::{JournalDevice, JournalFault};
use crate::config::Config;
use crate::state_file::{StateError, StateFile};

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
        matches!(self, Self::StateInUse { .. } | Self::JournalInUse { .. })
    }
}

/// Formats the state and, on a backup, the journal. Returns what was done, for people.
///
/// # Errors
/// See [`FormatError`].
pub fn format(config: &Config, force: bool) -> Result<String, FormatError> {
    let mut state_file = StateFile::open(&config.state, true)?;
    if !force && let Some(found) = state_content(&mut state_file)? {
        return Err(FormatError::StateInUse { path: config.state.display().to_string(), found });
    }
    let mut done = format!("group {}: {} formatted", config.group, config.state.display());
    if config.role == Role::Backup {
        let mut journal = JournalDevice::open(&config.journal.device)?;
        if !force && let Some(found) = journal.content()? {
            return Err(FormatError::JournalInUse {
                path: config.journal.device.display().to_string(),
                found,
            });
        }
        journal.format(&config.group, random()?)?;
        done.push_str(&format!(", {} formatted", config.journal.device.display()));
    }
    state_file.format(&first_state(config)?)?;
    Ok(format!("{done}; this host is the {}", config.role))
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

/// A primary begins the history of the group; a backup learns it from its first full sync.
fn first_state(config: &Config) -> Result<DurableState, FormatError> {
    let lineage = match config.role {
        Role::Primary => vec![LineageEntry {
            generation: Generation { number: 1, id: random()? },
            first_epoch: Epoch(1),
            digest: Digest::ZERO,
        }],
        Role::Backup => Vec::new(),
    };
    Ok(DurableState {
        group_name: config.group.clone(),
        formatted_id: random()?,
        role: config.role,
        lineage,
        highest_epoch_seen: Epoch::NONE,
        content: Content::Blank,
        group: None,
        last_incarnation: None,
    })
}

fn random() -> Result<[u8; 16], FormatError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| FormatError::Random(io::Error::other(error)))?;
    Ok(id)
}
