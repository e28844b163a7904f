//! The durable state of a group on its volume or file, and its formatting.
//!
//! Always holds: of the two slots the newest valid one stays untouched while the other is written; a
//! state is used only after the write and its flush succeeded; a failed write or flush is final.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ftship_proto::slot::{self, SLOT_SIZE, Slot, SlotKind, SlotPosition};
use ftship_proto::state::DurableState;

/// Bytes that the state needs.
const AREA: u64 = (64 << 10) + SLOT_SIZE as u64;

/// An open state.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    file: File,
    position: Option<SlotPosition>,
}

/// Why a state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The device or file failed.
    #[error("state {path}: {action}: {source}")]
    Io {
        /// The state's device or file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
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

impl StateFile {
    /// Opens the device or file for this process alone; a missing file is made only when `create`.
    ///
    /// # Errors
    /// When it is missing, too small, or in use.
    pub fn open(path: &Path, create: bool) -> Result<Self, StateError> {
        let io = |action| move |source| StateError::Io { path: path.into(), action, source };
        let is_device = match std::fs::metadata(path) {
            Ok(metadata) => metadata.file_type().is_block_device(),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.starts_with("/dev") => false,
            Err(error) => return Err(io("open")(error)),
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create && !is_device).truncate(false);
        if is_device {
            // On a block device, O_EXCL without O_CREAT means: nobody else has it mounted or claimed.
            options.custom_flags(nix::libc::O_EXCL);
        }
        let file = options.open(path).map_err(io("open"))?;
        file.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => {
                io("lock")(io::Error::other("another process uses it: is the daemon running?"))
            }
            std::fs::TryLockError::Error(error) => io("lock")(error),
        })?;
        if !is_device && create {
            file.set_len(AREA).map_err(io("resize"))?;
        }
        let size = io::Seek::seek(&mut &file, io::SeekFrom::End(0)).map_err(io("size"))?;
        if size < AREA {
            let reason = format!("has {size} bytes, needs {AREA}");
            return Err(StateError::Unusable { path: path.into(), reason });
        }
        Ok(Self { path: path.into(), file, position: None })
    }

    /// The newest state; `None` when both slots are blank.
    ///
    /// # Errors
    /// When the device fails, or holds something that is not a state of this version.
    pub fn read(&mut self) -> Result<Option<DurableState>, StateError> {
        let mut slots = [[0; SLOT_SIZE]; 2];
        for (bytes, slot) in slots.iter_mut().zip([Slot::A, Slot::B]) {
            self.file.read_exact_at(bytes, slot.offset()).map_err(|source| self.io("read", source))?;
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
    pub fn is_blank(&self) -> Result<bool, StateError> {
        let mut area = vec![0; usize::try_from(AREA).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut area, 0).map_err(|source| self.io("read", source))?;
        Ok(area.iter().all(|byte| *byte == 0))
    }

    /// The newest state, made durable first: a killed daemon may have left it in a volatile cache.
    ///
    /// # Errors
    /// As [`Self::read`], and when nothing was formatted.
    pub fn load(&mut self) -> Result<DurableState, StateError> {
        self.file.sync_all().map_err(|source| self.io("flush", source))?;
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
        self.file.write_all_at(&bytes, next.slot.offset()).map_err(|source| self.io("write", source))?;
        self.file.sync_all().map_err(|source| self.io("flush", source))?;
        self.position = Some(next);
        Ok(())
    }

    /// Makes the state blank and writes `state` to both slots, durably: whatever was there is gone.
    ///
    /// # Errors
    /// When the device fails.
    pub fn format(&mut self, state: &DurableState) -> Result<(), StateError> {
        for slot in [Slot::A, Slot::B] {
            let zeroes = [0; SLOT_SIZE];
            self.file.write_all_at(&zeroes, slot.offset()).map_err(|source| self.io("write", source))?;
        }
        self.position = None;
        self.write(state)?;
        self.write(state)
    }

    fn io(&self, action: &'static str, source: io::Error) -> StateError {
        StateError::Io { path: self.path.clone(), action, source }
    }
}
