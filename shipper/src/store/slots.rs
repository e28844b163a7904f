//! The two slots of a durable state, or of a journal's superblock, on their device.
//!
//! Always holds: a version counts as written once each slot that the device takes holds it, written, flushed and read back
//! one after the other: a write that is lost would leave an older version that is as sound. A slot that the device does not
//! take is left alone only if nothing in it could be taken for a version. A failure of any of these is final.

use std::io;

use ftdm::block_io::AlignedBuffer;
use ftdm::fault;
use ftship_proto::slot::{self, Chosen, Found, ReadSlot, SLOT_SIZE, Slot, SlotError, SlotKind};

use crate::store::storage::{LOST_WRITE, Storage};

/// Why a version is not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SlotFault {
    /// The device failed.
    #[error("{action}: {error}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it failed. The message has it, so it is no `source`.
        error: io::Error,
    },
    /// A slot holds something else than what was written to it.
    #[error("{0} was written and flushed, and holds something else: {LOST_WRITE}")]
    Lost(Slot),
    /// A slot cannot be written, and holds an older version that would be believed.
    #[error("{slot} holds an older version and cannot be written ({error}): replace the device")]
    Stale {
        /// Which.
        slot: Slot,
        /// Why not.
        error: String,
    },
    /// The version does not fit.
    #[error(transparent)]
    Encoding(#[from] SlotError),
}

fn io(action: &'static str) -> impl Fn(io::Error) -> SlotFault {
    move |error| SlotFault::Io { action, error }
}

/// What the device gave for both slots.
#[derive(Debug)]
pub(crate) struct ReadSlots([Result<Box<[u8; SLOT_SIZE]>, io::Error>; 2]);

impl ReadSlots {
    /// For the table that chooses: a read error is damage of the slot that it hits.
    pub(crate) fn both(&self) -> [ReadSlot<'_>; 2] {
        self.0.each_ref().map(|slot| slot.as_deref().ok())
    }

    /// What the device said, where it did not read one.
    pub(crate) fn error(&self) -> Option<&io::Error> {
        self.0.iter().find_map(|slot| slot.as_ref().err())
    }
}

/// Reads both slots.
pub(crate) fn read(storage: &Storage) -> ReadSlots {
    let mut buffer = AlignedBuffer::new(SLOT_SIZE);
    ReadSlots(Slot::BOTH.map(|slot| {
        let mut bytes = Box::new([0; SLOT_SIZE]);
        storage.read_at(slot.offset(), buffer.bytes_mut())?;
        bytes.copy_from_slice(buffer.bytes());
        Ok(bytes)
    }))
}

/// Writes versions.
#[derive(Debug)]
pub(crate) struct SlotWriter {
    kind: SlotKind,
    /// Points at which tests stop it: a slot is written, and durable.
    points: [&'static str; 2],
    /// Of the newest version; 0: there is none.
    sequence: u64,
    /// The device does not take this one.
    broken: Option<Slot>,
    buffer: AlignedBuffer,
}

impl SlotWriter {
    /// Of an area that holds no version yet.
    pub(crate) fn new(kind: SlotKind, points: [&'static str; 2]) -> Self {
        let buffer = AlignedBuffer::new(SLOT_SIZE);
        Self { kind, points, sequence: 0, broken: None, buffer }
    }

    /// Goes on after the version that was chosen, once both slots hold it; returns what is wrong with one of them, for
    /// people.
    ///
    /// # Errors
    /// When the other slot could bring an older version back, and cannot be written.
    pub(crate) fn go_on(
        &mut self,
        storage: &Storage,
        chosen: &Chosen,
        error: Option<&io::Error>,
    ) -> Result<Option<String>, SlotFault> {
        self.sequence = chosen.sequence;
        self.broken = None;
        if chosen.is_in_both() {
            return Ok(None);
        }
        let bytes = slot::encode(chosen.sequence, self.kind, &chosen.body)?;
        let other = chosen.slot.other();
        let result = self.write_slot(storage, other, &bytes);
        let Some(damaged) = chosen.damaged() else {
            // A stop between the two writes, or the software wrote them in turn once.
            return match result {
                Ok(()) => Ok(None),
                Err(error) => {
                    self.give_up(storage, other, &error).map(|error| Some(format!("the {other} {error}")))
                }
            };
        };
        let error = error.map(|error| format!(" ({error})")).unwrap_or_default();
        match result {
            Ok(()) => Ok(Some(format!("{damaged}{error}; it was written again: check the device"))),
            Err(failed) => {
                let left = self.give_up(storage, other, &failed)?;
                Ok(Some(format!("{damaged}{error}, and {left}")))
            }
        }
    }

    /// Leaves a slot alone that cannot be written, if nothing in it could be taken for a version.
    fn give_up(&mut self, storage: &Storage, slot: Slot, error: &SlotFault) -> Result<String, SlotFault> {
        let slots = read(storage);
        let bytes = slots.both()[Slot::BOTH.iter().position(|one| *one == slot).unwrap_or(0)];
        if let Found::Sound { .. } = slot::read(slot, self.kind, bytes)? {
            return Err(SlotFault::Stale { slot, error: error.to_string() });
        }
        self.broken = Some(slot);
        Ok(format!(
            "cannot be written: {error}. Each version is in one place only from now on, and a power cut while it is \
             written may lose it: replace the device"
        ))
    }

    /// Replaces the version, durably.
    ///
    /// # Errors
    /// When the device fails; nothing is known about the new version then.
    pub(crate) fn write(&mut self, storage: &Storage, body: &[u8]) -> Result<(), SlotFault> {
        let next = self.sequence.saturating_add(1);
        let bytes = slot::encode(next, self.kind, body)?;
        let broken = self.broken;
        for slot in Slot::BOTH.into_iter().filter(|slot| broken != Some(*slot)) {
            self.write_slot(storage, slot, &bytes)?;
        }
        self.sequence = next;
        Ok(())
    }

    /// Makes the area blank: the next version is its first.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn erase(&mut self, storage: &Storage) -> Result<(), SlotFault> {
        (self.sequence, self.broken) = (0, None);
        self.buffer.bytes_mut().fill(0);
        let erase = |slot: Slot| storage.write_at(slot.offset(), self.buffer.bytes()).map_err(io("write"));
        Slot::BOTH.into_iter().try_for_each(erase)
    }

    fn write_slot(
        &mut self,
        storage: &Storage,
        slot: Slot,
        bytes: &[u8; SLOT_SIZE],
    ) -> Result<(), SlotFault> {
        let [written, synced] = self.points;
        self.buffer.bytes_mut().copy_from_slice(bytes);
        storage.write_at(slot.offset(), self.buffer.bytes()).map_err(io("write"))?;
        fault::at(written);
        if self.kind == SlotKind::State || !fault::breaks("no-journal-sync") {
            storage.flush().map_err(io("flush"))?;
        }
        fault::at(synced);
        storage.read_at(slot.offset(), self.buffer.bytes_mut()).map_err(io("read back"))?;
        if self.buffer.bytes() == bytes { Ok(()) } else { Err(SlotFault::Lost(slot)) }
    }
}
