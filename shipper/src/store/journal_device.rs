//! The journal on its device: what [`ftship_proto::journal`] decides, written and read for real.
//!
//! Always holds: the device or file is open exclusively and past the page cache; [`JournalDevice::sync`]
//! succeeds only when everything appended before is durable.

use std::path::{Path, PathBuf};
use std::time::Instant;

use bytesize::ByteSize;
use ftdm::block_io::AlignedBuffer;
use ftdm::fault;
use ftship_proto::backup::Sealed;
use ftship_proto::frame::{Frame, MAX_RAW_PAYLOAD};
use ftship_proto::ids::{Digest, Epoch, GroupName, Incarnation};
use ftship_proto::journal::{
    BLOCK_LEN, EndClass, EndReason, JournalError, JournalWriter, MIN_JOURNAL_LEN, Placement, ReadAt, Ring,
    SealedEpoch, Superblock, encode_padded, recover,
};
use ftship_proto::slot::{Chosen, SlotError, SlotKind};
use ftship_proto::state::DurableState;

use crate::store::read_ahead::ReadAhead;
use crate::store::slots::{self, ReadSlots, SlotFault, SlotWriter};
use crate::store::storage::{Storage, StorageError};

/// Largest frame as it lies in the ring, with room to spare: header, payload and padding.
pub(crate) const LARGEST_FRAME: usize = MAX_RAW_PAYLOAD + 2 * BLOCK_LEN;

/// Bytes zeroed at a time when formatting.
const CHUNK: usize = 1 << 20;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalFault {
    /// The device or file cannot be opened or made.
    #[error("journal {0}")]
    Storage(StorageError),
    /// The device failed.
    #[error("journal {path}: {action}: {error}")]
    Io {
        /// The device.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed. Told by the message, so it is no `source`.
        error: std::io::Error,
    },
    /// Nothing was ever formatted.
    #[error("journal {0}: blank; `ftship format` makes it ready")]
    Blank(PathBuf),
    /// It is not for this group, or this version, to use.
    #[error("journal {path}: {reason}")]
    Refused {
        /// The device.
        path: PathBuf,
        /// What was found, and what to do.
        reason: String,
    },
    /// What it holds cannot be used.
    #[error("journal {path}: {reason}")]
    Unusable {
        /// The device.
        path: PathBuf,
        /// What was found, and what to do.
        reason: String,
    },
}

impl From<StorageError> for JournalFault {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// An open journal.
#[derive(Debug)]
pub struct JournalDevice {
    device: Storage,
    slots: SlotWriter,
    ring: Option<Ring>,
    buffer: AlignedBuffer,
    encoded: Vec<u8>,
}

/// What recovery found.
#[derive(Debug)]
pub struct Recovery {
    /// Goes on behind the last sealed epoch.
    pub writer: JournalWriter,
    /// Sealed and not applied.
    pub sealed: Vec<Sealed>,
    /// Last applied epoch.
    pub applied: Epoch,
    /// Its digest.
    pub applied_digest: Digest,
    /// Epochs up to this one were durable in it, and are not found.
    pub lost: Option<Epoch>,
    /// For the log.
    pub summary: String,
    /// What is wrong with the device, and has cost nothing yet.
    pub damage: Vec<String>,
}

impl Recovery {
    /// Of a journal that is given up: nothing is in it, and nothing after the last epoch that the state names is held.
    ///
    /// # Errors
    /// Never: the smallest journal is large enough.
    pub fn without_journal(state: &DurableState) -> Result<Self, JournalError> {
        let formatted = Superblock::format([0; 16], state.group_name.clone(), MIN_JOURNAL_LEN)?;
        let superblock = Superblock { tail_epoch: state.highest_epoch_seen, ..formatted };
        let found = recover(&superblock, &mut |_, bytes: &mut [u8]| {
            bytes.fill(0);
            Ok::<_, std::convert::Infallible>(())
        });
        Ok(Self {
            applied: superblock.tail_epoch,
            applied_digest: superblock.tail_digest,
            writer: JournalWriter::new(superblock, &found),
            sealed: Vec::new(),
            lost: None,
            summary: "given up".into(),
            damage: Vec::new(),
        })
    }
}

impl JournalDevice {
    /// Opens the device or file for this process alone.
    ///
    /// # Errors
    /// When it is missing, in use or sparse.
    pub fn open(path: &Path) -> Result<Self, JournalFault> {
        Ok(Self::over(Storage::open(path)?))
    }

    /// Makes a file of `len` zero bytes for it, durably.
    ///
    /// # Errors
    /// When it is there already, or there is no room for it.
    pub fn create(path: &Path, len: u64) -> Result<Self, JournalFault> {
        Ok(Self::over(Storage::create(path, len)?))
    }

    fn over(device: Storage) -> Self {
        let buffer = AlignedBuffer::new(LARGEST_FRAME);
        let slots = SlotWriter::new(SlotKind::JournalSuperblock, ["superblock-written", "superblock-synced"]);
        Self { device, slots, ring: None, buffer, encoded: Vec::new() }
    }

    /// A second descriptor of the same journal, which was recovered, for reading, and where its ring lies.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) fn reader(&self) -> Result<(Storage, Ring), JournalFault> {
        let ring = self.ring.ok_or_else(|| self.unusable("not recovered"))?;
        Ok((Storage::open_to_read(self.device.path())?, ring))
    }

    fn len(&self) -> u64 {
        self.device.len()
    }

    fn io(&self, action: &'static str, error: std::io::Error) -> JournalFault {
        JournalFault::Io { path: self.device.path().into(), action, error }
    }

    fn refused(&self, reason: impl std::fmt::Display) -> JournalFault {
        JournalFault::Refused { path: self.device.path().into(), reason: reason.to_string() }
    }

    fn unusable(&self, reason: impl std::fmt::Display) -> JournalFault {
        JournalFault::Unusable { path: self.device.path().into(), reason: reason.to_string() }
    }

    fn load(&self) -> Result<Option<(Superblock, Chosen, ReadSlots)>, JournalFault> {
        let slots = slots::read(&self.device);
        let [a, b] = slots.both();
        let found = Superblock::load(a, b, self.len()).map_err(|error| {
            let said = slots.error().map(|said| format!(" ({said})")).unwrap_or_default();
            match error {
                JournalError::Slot(SlotError::Newer { .. } | SlotError::Kind { .. }) => self.refused(error),
                _ => self.unusable(format_args!("{error}{said}")),
            }
        })?;
        Ok(found.map(|(superblock, chosen)| (superblock, chosen, slots)))
    }

    /// Refuses a device or file that is too small to be a journal.
    ///
    /// # Errors
    /// When it is.
    pub fn check_size(&self) -> Result<(), JournalFault> {
        match self.len() {
            len if len < MIN_JOURNAL_LEN => Err(self.unusable(JournalError::TooSmall(len))),
            _ => Ok(()),
        }
    }

    /// What the device holds, when it is not blank.
    ///
    /// # Errors
    /// When the device fails.
    pub fn content(&mut self) -> Result<Option<String>, JournalFault> {
        match self.load() {
            Ok(Some((superblock, ..))) => {
                Ok(Some(format!("holds the journal of group {}", superblock.group_name)))
            }
            Ok(None) => {
                let buffer = &mut self.buffer.bytes_mut()[..CHUNK];
                let read = self.device.read_at(0, buffer);
                let is_blank = buffer.iter().all(|byte| *byte == 0);
                read.map_err(|error| self.io("read", error))?;
                Ok((!is_blank).then(|| "holds data of another kind".into()))
            }
            Err(JournalFault::Unusable { reason, .. } | JournalFault::Refused { reason, .. }) => {
                Ok(Some(reason))
            }
            Err(fault) => Err(fault),
        }
    }

    /// Zeroes the device and writes the superblock of an empty journal, durably.
    ///
    /// # Errors
    /// When the device fails or is too small.
    pub fn format(&mut self, group: &GroupName, id: [u8; 16]) -> Result<(), JournalFault> {
        let superblock =
            Superblock::format(id, group.clone(), self.len()).map_err(|error| self.unusable(error))?;
        self.buffer.bytes_mut()[..CHUNK].fill(0);
        let mut offset = 0;
        while offset < self.len() {
            let len = usize::try_from(self.len() - offset).map_or(CHUNK, |left| left.min(CHUNK));
            self.device
                .write_at(offset, &self.buffer.bytes()[..len])
                .map_err(|error| self.io("zero", error))?;
            offset += len as u64;
        }
        self.slots.erase(&self.device).map_err(|fault| self.fault(fault))?;
        self.write_superblock(&superblock)
    }

    /// Reads the journal; afterwards it can be appended to. `heard` is the primary that the state names: its
    /// epochs bear witness before the journal's own superblock has named it. `progress` hears how many bytes were read,
    /// and how many there can be.
    ///
    /// # Errors
    /// When it is blank, another group's, or of a newer version.
    pub fn recover(
        &mut self,
        group: &GroupName,
        heard: Option<Incarnation>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Recovery, JournalFault> {
        // A killed daemon may have left anything in a volatile cache, a superblock too: what is read here is
        // built upon, so it has to be durable first.
        self.sync()?;
        let Some((mut superblock, chosen, slots)) = self.load()? else {
            return Err(JournalFault::Blank(self.device.path().into()));
        };
        superblock.incarnation = superblock.incarnation.or(heard);
        if superblock.group_name != *group {
            return Err(self.refused(format_args!(
                "belongs to group {}, not {group}: is `journal.device` right?",
                superblock.group_name
            )));
        }
        let damaged =
            self.slots.go_on(&self.device, &chosen, slots.error()).map_err(|fault| self.fault(fault))?;
        let path = self.device.path().display();
        let mut damage: Vec<String> =
            damaged.into_iter().map(|what| format!("journal {path}: superblock: {what}")).collect();
        let (begun, most) = (Instant::now(), superblock.ring.capacity());
        let mut progress = |read| progress(read, most);
        let mut reader = ReadAhead::new(&self.device, &mut progress);
        let found = recover(&superblock, &mut reader);
        let read = ByteSize(reader.read()).display().iec();
        if let EndReason::Unreadable(error) = &found.ended.reason {
            let offset = superblock.ring.offset(found.ended.position);
            damage.push(format!("journal {path}: byte {offset} cannot be read ({error}): check the device"));
        }
        let lost = match found.ended.class {
            EndClass::Ordinary => None,
            EndClass::Refused => {
                return Err(self.refused(format_args!("{}: update this host first", found.ended.reason)));
            }
            EndClass::Damaged { lost_through, .. } => Some(lost_through),
        };
        let sealed: Vec<Sealed> = found.sealed.iter().map(sealed_of).collect();
        let summary = format!(
            "applied up to epoch {}, {} more in the journal; then: {} (read {read} in {:.1} s)",
            superblock.tail_epoch,
            sealed.len(),
            found.ended.reason,
            begun.elapsed().as_secs_f64()
        );
        let writer = JournalWriter::new(superblock.clone(), &found);
        let (applied, applied_digest) = (superblock.tail_epoch, superblock.tail_digest);
        self.ring = Some(superblock.ring);
        Ok(Recovery { writer, sealed, applied, applied_digest, lost, summary, damage })
    }

    /// Writes a frame at its place. Durable only after [`Self::sync`].
    ///
    /// # Errors
    /// When the device fails.
    pub fn append(&mut self, placement: &Placement, frame: &Frame) -> Result<(), JournalFault> {
        if let Some(pad) = &placement.pad {
            self.write(pad.offset, &pad.block())?;
        }
        let mut encoded = std::mem::take(&mut self.encoded);
        encode_padded(frame, &mut encoded);
        let result = self.write(placement.offset, &encoded);
        self.encoded = encoded;
        result
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), JournalFault> {
        let buffer = &mut self.buffer.bytes_mut()[..bytes.len()];
        buffer.copy_from_slice(bytes);
        self.device
            .write_at(offset, &self.buffer.bytes()[..bytes.len()])
            .map_err(|error| self.io("write", error))
    }

    /// Makes everything written durable.
    ///
    /// # Errors
    /// When the device fails: nothing is known about what was written then.
    pub fn sync(&mut self) -> Result<(), JournalFault> {
        if fault::breaks("no-journal-sync") {
            return Ok(());
        }
        self.device.flush().map_err(|error| self.io("flush", error))
    }

    /// Replaces the superblock, durably.
    ///
    /// # Errors
    /// When the device fails.
    pub fn write_superblock(&mut self, superblock: &Superblock) -> Result<(), JournalFault> {
        self.slots.write(&self.device, &superblock.encode()).map_err(|fault| self.fault(fault))
    }

    fn fault(&self, fault: SlotFault) -> JournalFault {
        match fault {
            SlotFault::Io { action, error } => self.io(action, error),
            other => self.unusable(format_args!("superblock: {other}")),
        }
    }
}

fn sealed_of(found: &SealedEpoch) -> Sealed {
    let SealedEpoch { epoch, digest, incarnation, start, end, commit_point, .. } = *found;
    Sealed { epoch, digest, incarnation, start, end, commit_point }
}

/// Reads whole blocks, aligned, for the journal's pure code.
pub(crate) struct DeviceReader<'a>(pub(crate) &'a Storage, pub(crate) &'a mut AlignedBuffer);

impl ReadAt for DeviceReader<'_> {
    type Error = std::io::Error;

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Self::Error> {
        let buffer = &mut self.1.bytes_mut()[..out.len()];
        self.0.read_at(offset, buffer)?;
        out.copy_from_slice(buffer);
        Ok(())
    }
}
