//! Sealed epochs from the journal to the volumes: proven first, then written.
//!
//! Always holds: nothing of an epoch is written that was not proven by the last [`Redo::prove`]; of what was proven at most
//! [`KEPT_LEN`] bytes of frames are kept in memory, the rest is read again; once a redo has failed, what the volumes hold is
//! not said to be an epoch before the next proof.

use std::io;

use anyhow::Context;
use ftdm::block_io::AlignedBuffer;
use ftship_proto::backup::Sealed;
use ftship_proto::frame::Frame;
use ftship_proto::group::GroupDescription;
use ftship_proto::ids::Epoch;
use ftship_proto::journal::{PIECE_LEN, Place, Proof, ProofError, RedoError, Ring};

use super::volume_device::Volumes;
use crate::store::journal_device::{DeviceReader, JournalDevice, JournalFault, LARGEST_FRAME};
use crate::store::storage::Storage;

/// Most bytes of frames that are kept between the proof of a pass and its writing.
const KEPT_LEN: usize = 2 * PIECE_LEN;

/// An epoch that the journal does not hold as it was sealed.
#[derive(Debug)]
pub(super) struct Unproven {
    /// The first one.
    pub(super) epoch: Epoch,
    /// Some of its frames were written to the volumes.
    pub(super) half: bool,
    /// What was found, for people.
    pub(super) reason: String,
}

/// A reading descriptor of the journal, and what was proven by it.
#[derive(Debug)]
pub(super) struct Redo {
    device: Storage,
    ring: Ring,
    buffer: AlignedBuffer,
    proofs: Vec<(Sealed, Proof)>,
    is_broken: bool,
}

impl Redo {
    /// Over a descriptor of its own.
    ///
    /// # Errors
    /// When the journal was not recovered, or cannot be opened again.
    pub(super) fn of(journal: &JournalDevice) -> Result<Self, JournalFault> {
        let (device, ring) = journal.reader()?;
        let buffer = AlignedBuffer::new(LARGEST_FRAME);
        Ok(Self { device, ring, buffer, proofs: Vec::new(), is_broken: false })
    }

    /// Reads these epochs, and checks each against its digest.
    ///
    /// # Errors
    /// The first that is not what was sealed, or cannot be read.
    pub(super) fn prove(&mut self, places: Vec<(Sealed, Place)>) -> Result<(), Unproven> {
        self.proofs.clear();
        self.is_broken = false;
        let mut room = KEPT_LEN;
        for (sealed, place) in places {
            let mut reader = DeviceReader(&self.device, &mut self.buffer);
            match Proof::of(self.ring, &mut reader, place, PIECE_LEN, room) {
                Ok(proof) => {
                    room -= proof.kept_len();
                    self.proofs.push((sealed, proof));
                }
                Err(error) => return Err(self.unproven(sealed.epoch, false, &error)),
            }
        }
        Ok(())
    }

    /// An epoch that is not in its place, or cannot be read there: a read error is damage of what it hits, and no more.
    fn unproven(&self, epoch: Epoch, half: bool, error: &ProofError<io::Error>) -> Unproven {
        Unproven { epoch, half, reason: format!("{}: {error}", self.device.path().display()) }
    }

    /// Writes these epochs, which were proven, to the volumes. Durable only once they are flushed.
    ///
    /// # Errors
    /// The inner one: an epoch reads otherwise than it was proven. The outer one: the volumes fail.
    pub(super) fn apply(
        &mut self,
        epochs: &[Sealed],
        volumes: &mut Volumes,
        group: &GroupDescription,
    ) -> anyhow::Result<Result<(), Unproven>> {
        let proofs = std::mem::take(&mut self.proofs);
        for epoch in epochs {
            let proof = proofs.iter().find(|(proven, _)| proven == epoch);
            let (_, proof) = proof.with_context(|| format!("epoch {} is not proven", epoch.epoch))?;
            let mut reader = DeviceReader(&self.device, &mut self.buffer);
            let user = |frame: &Frame| volumes.write_records(frame, group);
            match proof.redo(self.ring, &mut reader, user) {
                Ok(()) => {}
                Err(RedoError::User(error)) => return Err(error),
                Err(RedoError::Journal { source, used }) => {
                    self.is_broken = true;
                    return Ok(Err(self.unproven(epoch.epoch, used > 0, &source)));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Whether the volumes hold what was last applied, wholly.
    ///
    /// # Errors
    /// When not, for people.
    pub(super) fn check_whole(&self) -> Result<(), String> {
        if self.is_broken { Err("the last epoch could not be applied".into()) } else { Ok(()) }
    }
}
