//! The durable state of a group on its volume or file, and its formatting.
//!
//! Always holds: of the two slots the newest valid one stays untouched while the other is written; a
//! state is used only after the write and its flush succeeded and the slot was read back as it was written, for a write
//! that is lost leaves an older version that is as sound; a failure of any of these is final.

use std::io;
use std::path::{Path, PathBuf};

use ftdm::block_io::AlignedBuffer;
use ftdm::fault;
use ftdm_units::Sectors;
use ftship_proto::slot::{self, SLOT_SIZE, Slot, SlotKind, SlotPosition};
use ftship_proto::state::DurableState;

use crate::store::storage::{LOST_WRITE, Storage, StorageError};

/// Bytes that the state needs.
const AREA: usize = (64 << 10) + SLOT_SIZE;

/// An open state.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    storage: Storage,
    position: Option<SlotPosition>,
    buffer: AlignedBuffer,
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
    /// It holds something else, or is damaged.
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
        Ok(Self { path, storage, position: None, buffer: AlignedBuffer::new(AREA) })
    }

    /// The newest state; `None` when both slots are blank.
    ///
    /// # Errors
    /// When the device fails, or holds something that is not a state of this version.
    pub fn read(&mut self) -> Result<Option<DurableState>, StateError> {
        let mut slots = [[0; SLOT_SIZE]; 2];
        for (bytes, slot) in slots.iter_mut().zip([Slot::A, Slot::B]) {
            let buffer = &mut self.buffer.bytes_mut()[..SLOT_SIZE];
            let read = self.storage.read_at(slot.offset(), buffer);
            bytes.copy_from_slice(buffer);
            read.map_err(|error| self.io("read", error))?;
        }
        let unusable = |reason: String| StateError::Unusable { path: self.path.clone(), reason };
        let chosen = slot::choose(SlotKind::State, &slots[0], &slots[1])
            .map_err(|error| unusable(error.to_string()))?;
        let Some(chosen) = chosen else { return Ok(None) };
        let state = DurableState::decode(&chosen.body).map_err(|error| unusable(error.to_string()))?;
        self.position = Some(chosen.position);
        Ok(Some(state))
    }

    /// Whether the area holds nothing but zeros.
    ///
    /// # Errors
    /// When the device fails.
    pub fn is_blank(&mut self) -> Result<bool, StateError> {
        let read = self.storage.read_at(0, self.buffer.bytes_mut());
        read.map_err(|error| self.io("read", error))?;
        Ok(self.buffer.bytes().iter().all(|byte| *byte == 0))
    }

    /// The newest state, made durable first: a killed daemon may have left it in a volatile cache.
    ///
    /// # Errors
    /// As [`Self::read`], and when nothing was formatted.
    pub fn load(&mut self) -> Result<DurableState, StateError> {
        self.storage.flush().map_err(|error| self.io("flush", error))?;
        self.read()?.ok_or_else(|| StateError::Blank(self.path.clone()))
    }

    /// Replaces the state, durably.
    ///
    /// # Errors
    /// When the device fails; nothing is known about the new state then.
    pub fn write(&mut self, state: &DurableState) -> Result<(), StateError> {
        let next = self.position.map_or(SlotPosition::FIRST, SlotPosition::next);
        let bytes = slot::encode(next.sequence, SlotKind::State, &state.encode())
            .map_err(|error| StateError::Unusable { path: self.path.clone(), reason: error.to_string() })?;
        self.write_slot(next.slot, &bytes)?;
        fault::at("state-written");
        self.storage.flush().map_err(|error| self.io("flush", error))?;
        fault::at("state-synced");
        self.check_slot(next.slot, &bytes)?;
        self.position = Some(next);
        Ok(())
    }

    /// Whether the slot holds what was written to it.
    fn check_slot(&mut self, slot: Slot, bytes: &[u8; SLOT_SIZE]) -> Result<(), StateError> {
        let buffer = &mut self.buffer.bytes_mut()[..SLOT_SIZE];
        let read = self.storage.read_at(slot.offset(), buffer);
        let is_kept = buffer[..] == bytes[..];
        read.map_err(|error| self.io("read back", error))?;
        let reason = || format!("{slot} was written and flushed, and holds something else: {LOST_WRITE}");
        if is_kept { Ok(()) } else { Err(StateError::Unusable { path: self.path.clone(), reason: reason() }) }
    }

    /// Makes the state blank and writes `state` to both slots, durably: whatever was there is gone.
    ///
    /// # Errors
    /// When the device fails.
    pub fn format(&mut self, state: &DurableState) -> Result<(), StateError> {
        for slot in [Slot::A, Slot::B] {
            self.write_slot(slot, &[0; SLOT_SIZE])?;
        }
        self.position = None;
        self.write(state)?;
        self.write(state)
    }

    fn write_slot(&mut self, slot: Slot, bytes: &[u8; SLOT_SIZE]) -> Result<(), StateError> {
        let buffer = &mut self.buffer.bytes_mut()[..SLOT_SIZE];
        buffer.copy_from_slice(bytes);
        self.storage.write_at(slot.offset(), buffer).map_err(|error| self.io("write", error))
    }

    fn io(&self, action: &'static str, error: io::Error) -> StateError {
        StateError::Io { path: self.path.clone(), action, error }
    }
}

/// The sizes on which a pair agreed, in the group's order; none where it never met. Its devices may be larger.
///
/// # Errors
/// When the state cannot be read.
pub fn agreed_sizes(path: &Path) -> Result<Vec<Sectors>, StateError> {
    let group = StateFile::open_to_read(path)?.read()?.and_then(|state| state.group);
    Ok(group.map_or_else(Vec::new, |group| group.volumes().iter().map(|volume| volume.size).collect()))
}
