//! The digest that chains epochs, and the check that received frames are one whole epoch.
//!
//! Digest of an epoch: SHA-256 over the previous epoch's digest, then for each of its frames but the last
//! the header as encoded and the payload as stored. Both sides compute it over the same bytes. Always
//! holds: an [`EpochVerifier`] gives a summary only for frames that are all of one epoch, generation and
//! incarnation, in sequence without gap, and of the digest that the last one names.

use sha2::{Digest as _, Sha256};

use crate::epoch::{EpochError, EpochHeader, EpochSummary, EpochTrailer};
use crate::frame::{FrameHeader, FrameKind, Stamp};
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
    pub fn add(&mut self, header: &FrameHeader, payload: &[u8]) {
        self.0.update(header.encode());
        self.0.update(payload);
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
    header: EpochHeader,
    stamp: Stamp,
    hasher: EpochHasher,
    frames: u64,
    raw_bytes: u64,
    stored_bytes: u64,
    ended: bool,
}

impl EpochVerifier {
    /// Starts with an epoch's first frame, which must follow the epoch of digest `held`.
    pub fn begin(header: &FrameHeader, payload: &[u8], held: Digest) -> Result<Self, EpochError> {
        let epoch_header = EpochHeader::from_frame(header, payload)?;
        let previous = epoch_header.previous;
        if previous != held {
            return Err(EpochError::Chain { epoch: epoch_header.last_epoch, previous, held });
        }
        let mut hasher = EpochHasher::new(held);
        hasher.add(header, payload);
        Ok(Self {
            stamp: header.stamp,
            header: epoch_header,
            hasher,
            frames: 1,
            raw_bytes: 0,
            stored_bytes: header.wire_len(),
            ended: false,
        })
    }

    /// What the first frame said.
    #[must_use]
    pub fn header(&self) -> &EpochHeader {
        &self.header
    }

    /// Number of the frame that must come next.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.frames
    }

    /// Adds the next frame. `Some` when it was the last and the epoch is whole and right.
    ///
    /// # Errors
    /// The frame is not the next one, or the last one's counts or digest are not those of the frames.
    /// The verifier is of no use afterwards: the epoch is to be dropped.
    pub fn push(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<Option<EpochSummary>, EpochError> {
        let kind_fits = matches!(header.kind, FrameKind::EpochData | FrameKind::EpochEnd);
        if self.ended || !kind_fits || header.seq != self.frames || header.stamp != self.stamp {
            return Err(self.unexpected(header));
        }
        self.stored_bytes = self.stored_bytes.saturating_add(header.wire_len());
        if header.kind == FrameKind::EpochData {
            self.hasher.add(header, payload);
            self.frames += 1;
            self.raw_bytes = self.raw_bytes.saturating_add(u64::from(header.raw_len));
            return Ok(None);
        }
        self.ended = true;
        self.seal(&EpochTrailer::from_frame(header, payload)?).map(Some)
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

    fn unexpected(&self, header: &FrameHeader) -> EpochError {
        let Stamp { epoch, incarnation, generation } = self.stamp;
        let expected =
            format!("frame {} of incarnation {incarnation}, generation {generation},", self.frames);
        let (found, seq, of) = (header.kind, header.seq, header.stamp.epoch);
        EpochError::Unexpected { epoch, expected, found, seq, of }
    }
}

#[cfg(test)]
mod tests;
