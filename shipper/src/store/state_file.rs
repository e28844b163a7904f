//! The durable state of a group on its volume or file, and its formatting.
//!
//! Always holds: a state is acted upon only once both slots hold it, see [`super::slots`]; a slot that does not is
//! reported.

use std::io;
use std::path::{Path, PathBuf};

use ftdm::block_io::AlignedBuffer;
use ftdm_units::Sectors;
use ftship_proto::ids::GroupName;
use ftship_proto::slot::{Chosen, SLOT_SIZE, SlotError, SlotKind};
use ftship_proto::state::{DurableState, StateError as LoadError};

use crate::store::slots::{self, ReadSlots, SlotFault, SlotWriter};
use crate::store::storage::{Storage, StorageError};

/// Bytes that the state needs.
const AREA: usize = (64 << 10) + SLOT_SIZE;

/// An open state.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    storage: Storage,
    slots: SlotWriter,
    damage: Option<String>,
}

/// Why a state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The device or file cannot be opened or made.
    #[error("state {0}")]
    Storage(StorageError),
    /// The device or file failed.
    #[error("state {path}: {action}: {error}")]
    Io {
        /// The state's device or file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed. Told by the message, so it is no `source`.
        error: io::Error,
    },
    /// Nothing was ever written.
    #[error("state {0}: blank; `ftship format` makes it ready")]
    Blank(PathBuf),
    /// Both slots are damaged or cannot be read.
    #[error("state {path}: {reason}")]
    Damaged {
        /// The state's device or file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// It holds something else, or is of a newer version.
    #[error("state {path}: {reason}")]
    Unusable {
        /// The state's device or file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
}

impl From<StorageError> for StateError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl StateFile {
    /// Opens the device or file for this process alone.
    ///
    /// # Errors
    /// When it is missing, too small, sparse or in use.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        Self::over(Storage::open(path)?)
    }

    /// Opens it beside a daemon, to read only.
    ///
    /// # Errors
    /// When it is missing, too small or sparse.
    pub fn open_to_read(path: &Path) -> Result<Self, StateError> {
        Self::over(Storage::open_to_read(path)?)
    }

    /// Makes a blank file, durably.
    ///
    /// # Errors
    /// When it is there already, or there is no room for it.
    pub fn create(path: &Path) -> Result<Self, StateError> {
        Self::over(Storage::create(path, AREA as u64)?)
    }

    fn over(storage: Storage) -> Result<Self, StateError> {
        let path = storage.path().to_owned();
        let size = storage.len();
        if size < AREA as u64 {
            return Err(StateError::Unusable { path, reason: format!("has {size} bytes, needs {AREA}") });
        }
        let slots = SlotWriter::new(SlotKind::State, ["state-written", "state-synced"]);
        Ok(Self { path, storage, slots, damage: None })
    }

    /// The newest state; `None` when both slots are blank. Changes nothing; see [`Self::damage`].
    ///
    /// # Errors
    /// When neither slot can be used, or they hold something that is not a state of this version.
    pub fn read(&mut self) -> Result<Option<DurableState>, StateError> {
        Ok(self.choose()?.map(|(state, _, _)| state))
    }

    fn choose(&mut self) -> Result<Option<(DurableState, Chosen, ReadSlots)>, StateError> {
        let slots = slots::read(&self.storage);
        let [a, b] = slots.both();
        let found = DurableState::load(a, b).map_err(|error| {
            let said = slots.error().map(|said| format!(" ({said})")).unwrap_or_default();
            let path = self.path.clone();
            match &error {
                LoadError::Slot(SlotError::Damaged { a, b }) if !(a.is_foreign() && b.is_foreign()) => {
                    StateError::Damaged { path, reason: format!("{error}{said}") }
                }
                _ => StateError::Unusable { path, reason: error.to_string() },
            }
        })?;
        let Some((state, chosen)) = found else { return Ok(None) };
        self.damage = chosen.damaged().map(|damaged| format!("state {}: {damaged}", self.path.display()));
        Ok(Some((state, chosen, slots)))
    }

    /// What was wrong with one of the slots when it was read last, for people.
    #[must_use]
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Whether the area holds nothing but zeros.
    ///
    /// # Errors
    /// When the device fails.
    pub fn is_blank(&mut self) -> Result<bool, StateError> {
        let mut buffer = AlignedBuffer::new(AREA);
        self.storage.read_at(0, buffer.bytes_mut()).map_err(|error| self.io("read", error))?;
        Ok(buffer.bytes().iter().all(|byte| *byte == 0))
    }

    /// The newest state, made durable first, in both slots: a killed daemon may have left it in a volatile cache, or in
    /// one of them.
    ///
    /// # Errors
    /// As [`Self::read`], and when nothing was formatted.
    pub fn load(&mut self) -> Result<DurableState, StateError> {
        self.storage.flush().map_err(|error| self.io("flush", error))?;
        let Some((state, chosen, slots)) = self.choose()? else {
            return Err(StateError::Blank(self.path.clone()));
        };
        let damage = self.slots.go_on(&self.storage, &chosen, slots.error());
        let damage = damage.map_err(|fault| self.fault(fault))?;
        self.damage = damage.map(|damage| format!("state {}: {damage}", self.path.display()));
        Ok(state)
    }

    /// Replaces the state, durably.
    ///
    /// # Errors
    /// When the device fails; nothing is known about the new state then.
    pub fn write(&mut self, state: &DurableState) -> Result<(), StateError> {
        self.slots.write(&self.storage, &state.encode()).map_err(|fault| self.fault(fault))
    }

    /// Makes the state blank and writes `state` to both slots, durably: what was there is gone.
    ///
    /// # Errors
    /// When the device fails.
    pub fn format(&mut self, state: &DurableState) -> Result<(), StateError> {
        self.slots.erase(&self.storage).map_err(|fault| self.fault(fault))?;
        self.write(state)
    }

    fn fault(&self, fault: SlotFault) -> StateError {
        match fault {
            SlotFault::Io { action, error } => self.io(action, error),
            other => self.unusable(other.to_string()),
        }
    }

    fn unusable(&self, reason: String) -> StateError {
        StateError::Unusable { path: self.path.clone(), reason }
    }

    fn io(&self, action: &'static str, error: io::Error) -> StateError {
        StateError::Io { path: self.path.clone(), action, error }
    }
}

/// Why a state is not the one of `group`, where it is not.
pub(crate) fn of_another_group(path: &Path, state: &DurableState, group: &GroupName) -> Option<String> {
    (state.group_name != *group).then(|| {
        format!(
            "state {} belongs to group {}, not {group}: is `state` right in the configuration?",
            path.display(),
            state.group_name
        )
    })
}

/// The sizes on which a pair agreed, in the group's order; none where it never met. Its devices may be larger.
///
/// # Errors
/// When the state cannot be read.
pub fn agreed_sizes(path: &Path) -> Result<Vec<Sectors>, StateError> {
    let group = StateFile::open_to_read(path)?.read()?.and_then(|state| state.group);
    Ok(group.map_or_else(Vec::new, |group| group.volumes().iter().map(|volume| volume.size).collect()))
}
