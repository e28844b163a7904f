//! The digest that chains epochs, and the check that received frames are one whole epoch.
//!
//! Digest of an epoch: SHA-256 over the previous epoch's digest, then for each of its frames but the last
//! the header as encoded and the XXH3-128 of the payload as stored, 16 bytes, little endian. Both sides compute it over
//! the same bytes.
//!
//! The payload's hash has to tell bytes that were lost, mixed up or rotted, and has no secret: whoever writes to a journal
//! on purpose can write the digest that goes with it, whatever the hash. So it is chosen by its cost, a thirtieth of
//! SHA-256's on a processor without instructions for that. Where equal digests mean that content is *not sent*, a guest
//! could want a collision: [`crate::verify`] has SHA-256.
//!
//! Always holds: an [`EpochVerifier`] gives a summary only for frames that are all of one epoch, generation and
//! incarnation, in sequence without gap, and of the digest that the last one names.

use sha2::{Digest as _, Sha256};
use twox_hash::XxHash3_128;

use crate::epoch::{EpochError, EpochHeader, EpochSummary, EpochTrailer};
use crate::frame::{Frame, FrameKind, Stamp};
use crate::ids::Digest;

/// Computes an epoch's digest frame by frame.
#[derive(Clone, Debug)]
pub struct EpochHasher(Sha256);

impl EpochHasher {
    /// Starts after the epoch that has the digest `previous`.
    #[must_use]
    pub fn new(previous: Digest) -> Self {
        let mut sha = Sha256::new();
        sha.update(previous.0);
        Self(sha)
    }

    /// Adds a frame: its header and its payload as stored.
    pub fn add(&mut self, frame: &Frame) {
        self.0.update(frame.header.encode());
        self.0.update(XxHash3_128::oneshot(&frame.payload).to_le_bytes());
    }

    /// The digest.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// Follows the frames of one epoch, from its first to its last. It looks at headers and digest, not at
/// payload checksums or records: those are checked where frames are read.
#[derive(Clone, Debug)]
pub struct EpochVerifier {
    held: Digest,
    header: Option<EpochHeader>,
    stamp: Stamp,
    hasher: EpochHasher,
    frames: u64,
    raw_bytes: u64,
    stored_bytes: u64,
    ended: bool,
}

impl EpochVerifier {
    /// A verifier for the epoch after the one that has the digest `held`.
    #[must_use]
    pub fn new(held: Digest) -> Self {
        Self {
            held,
            header: None,
            stamp: Stamp::default(),
            hasher: EpochHasher::new(held),
            frames: 0,
            raw_bytes: 0,
            stored_bytes: 0,
            ended: false,
        }
    }

    /// What the first frame said, once it was pushed.
    #[must_use]
    pub fn header(&self) -> Option<&EpochHeader> {
        self.header.as_ref()
    }

    /// Number of the frame that must come next.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.frames
    }

    /// The chain's digest behind the frames pushed so far: of all before this epoch, and of these.
    #[must_use]
    pub fn running(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Adds the next frame. `Some` when it was the last and the epoch is whole and right.
    ///
    /// # Errors
    /// The frame is not the next one, the epoch does not follow the one that is held, or the last frame's
    /// counts or digest are not those of the frames. Then the verifier takes no more: the epoch is
    /// to be dropped.
    pub fn push(&mut self, frame: &Frame) -> Result<Option<EpochSummary>, EpochError> {
        let result = self.next(frame);
        self.ended |= !matches!(result, Ok(None));
        result
    }

    fn next(&mut self, frame: &Frame) -> Result<Option<EpochSummary>, EpochError> {
        let header = &frame.header;
        if self.header.is_none() && !self.ended {
            self.begin(frame)?;
        } else if self.ended
            || !matches!(header.kind, FrameKind::EpochData | FrameKind::EpochEnd)
            || header.seq != self.frames
            || header.stamp() != self.stamp
        {
            return Err(self.unexpected(frame));
        }
        self.stored_bytes = self.stored_bytes.saturating_add(header.wire_len());
        if header.kind == FrameKind::EpochEnd {
            return self.seal(&EpochTrailer::decode(frame)?).map(Some);
        }
        if header.kind == FrameKind::EpochData {
            self.raw_bytes = self.raw_bytes.saturating_add(u64::from(header.raw_len));
        }
        self.hasher.add(frame);
        self.frames += 1;
        Ok(None)
    }

    fn begin(&mut self, frame: &Frame) -> Result<(), EpochError> {
        let header = EpochHeader::decode(frame)?;
        let (previous, held) = (header.previous, self.held);
        if previous != held {
            return Err(EpochError::Chain { epoch: header.last_epoch, previous, held });
        }
        self.stamp = header.stamp();
        self.header = Some(header);
        Ok(())
    }

    fn seal(&self, said: &EpochTrailer) -> Result<EpochSummary, EpochError> {
        let Self { frames, raw_bytes, stored_bytes, stamp: Stamp { epoch, .. }, .. } = *self;
        if (said.frames, said.raw_bytes) != (frames, raw_bytes) {
            let (said_frames, said_bytes) = (said.frames, said.raw_bytes);
            return Err(EpochError::Counts { epoch, frames, raw_bytes, said_frames, said_bytes });
        }
        let computed = self.hasher.clone().finish();
        if computed != said.digest {
            return Err(EpochError::Digest { epoch, computed, said: said.digest });
        }
        Ok(EpochSummary { digest: computed, frames, raw_bytes, stored_bytes })
    }

    fn unexpected(&self, frame: &Frame) -> EpochError {
        let Stamp { epoch, incarnation, generation } = self.stamp;
        let expected = if self.ended {
            "nothing more".to_owned()
        } else {
            format!("frame {} of incarnation {incarnation}, generation {generation},", self.frames)
        };
        let (found, seq, of) = (frame.header.kind, frame.header.seq, frame.header.epoch);
        EpochError::Unexpected { epoch, expected, found, seq, of }
    }
}

#[cfg(test)]
mod tests;
