//! What the first and last frame of an epoch say about it.
//!
//! Always holds: an [`EpochHeader`] that was decoded is of a protocol and of features that are understood
//! here, and agrees with the frame that brought it.

use crate::frame::{Frame, FrameKind, Stamp};
use crate::group::GroupDescription;
use crate::ids::{Digest, Epoch, Generation, Incarnation};
use crate::protocol::{PROTOCOL, unknown_features};
use crate::tlv::{OPTIONAL, Reader, TlvError, Writer};

/// What the first frame of an epoch says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochHeader {
    /// Protocol version of the epoch's frames.
    pub protocol: u16,
    /// Features that they use and a reader may ignore.
    pub features_optional: u64,
    /// Features that they use and a reader must understand.
    pub features_mandatory: u64,
    /// The group as it is at the epoch's cut.
    pub group: GroupDescription,
    /// The primary that made it.
    pub incarnation: Incarnation,
    /// The generation in which it was made.
    pub generation: Generation,
    /// First epoch covered: below `last_epoch` when this one stands for several (a catch-up).
    pub first_epoch: Epoch,
    /// Last epoch covered: the number of this epoch.
    pub last_epoch: Epoch,
    /// Digest of the epoch before it, [`Digest::ZERO`] at the start of a chain.
    pub previous: Digest,
    /// Whether the volumes are one exact state once this epoch is applied. False while a full sync's base
    /// copy is not complete.
    pub commit_point: bool,
    /// The highest epoch of this chain that the primary knew to be staged when it made this header; none at
    /// the start of each chain. It proves to a journal's recovery that those epochs were durable.
    pub staged: Epoch,
}

/// What the last frame of an epoch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochTrailer {
    /// Frames before this one.
    pub frames: u64,
    /// Decompressed bytes in the data frames.
    pub raw_bytes: u64,
    /// The epoch's digest.
    pub digest: Digest,
}

/// An epoch in figures, once its last frame is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochSummary {
    /// The epoch's digest.
    pub digest: Digest,
    /// Frames, without the last.
    pub frames: u64,
    /// Decompressed bytes in the data frames.
    pub raw_bytes: u64,
    /// Bytes of all frames as sent and stored, headers and the last frame included.
    pub stored_bytes: u64,
}

/// Frames that do not make an epoch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EpochError {
    /// Another frame than the one that must come.
    #[error("expected {expected} of epoch {epoch}, found a {found:?} frame {seq} of epoch {of}")]
    Unexpected {
        /// The epoch being read.
        epoch: Epoch,
        /// What must come.
        expected: String,
        /// What came.
        found: FrameKind,
        /// Its number.
        seq: u64,
        /// Its epoch.
        of: Epoch,
    },
    /// The contents of the first or last frame are not sound.
    #[error("{kind:?} frame of epoch {epoch}: {source}")]
    Fields {
        /// Kind of the frame.
        kind: FrameKind,
        /// Its epoch.
        epoch: Epoch,
        /// What is wrong.
        source: TlvError,
    },
    /// A protocol that is not spoken here.
    #[error(
        "epoch {epoch} is of protocol {found}, this host speaks {PROTOCOL}: use a version that speaks {found}"
    )]
    Protocol {
        /// The epoch.
        epoch: Epoch,
        /// Its protocol.
        found: u16,
    },
    /// Mandatory features that are not understood here.
    #[error("epoch {epoch} needs features {unknown:#x}, which this host does not know: upgrade this host")]
    Features {
        /// The epoch.
        epoch: Epoch,
        /// The unknown bits.
        unknown: u64,
    },
    /// The epoch's header and its frame's contradict each other, or its range of epochs is none.
    #[error("epoch {epoch}: its header contradicts the frame that brings it")]
    Contradiction {
        /// The epoch as the frame says.
        epoch: Epoch,
    },
    /// The epoch does not follow the one that is held.
    #[error("epoch {epoch} follows an epoch of digest {previous}, but the one held has {held}")]
    Chain {
        /// The epoch.
        epoch: Epoch,
        /// The digest that it follows.
        previous: Digest,
        /// The digest that is held.
        held: Digest,
    },
    /// The last frame counts otherwise.
    #[error(
        "epoch {epoch} ends with {frames} frames of {raw_bytes} bytes, its last frame says {said_frames} of {said_bytes}"
    )]
    Counts {
        /// The epoch.
        epoch: Epoch,
        /// Frames counted.
        frames: u64,
        /// Bytes counted.
        raw_bytes: u64,
        /// Frames as said.
        said_frames: u64,
        /// Bytes as said.
        said_bytes: u64,
    },
    /// The last frame's digest is not that of the frames.
    #[error("epoch {epoch} has digest {computed}, its last frame says {said}")]
    Digest {
        /// The epoch.
        epoch: Epoch,
        /// As its frames give.
        computed: Digest,
        /// As said.
        said: Digest,
    },
}

mod tag {
    //! Fields of the epoch's first frame.
    use super::OPTIONAL;
    pub(super) const PROTOCOL: u16 = 1;
    pub(super) const FEATURES: u16 = 2;
    pub(super) const GROUP: u16 = 3;
    pub(super) const INCARNATION: u16 = 4;
    pub(super) const GENERATION: u16 = 5;
    pub(super) const EPOCHS: u16 = 6;
    pub(super) const PREVIOUS: u16 = 7;
    pub(super) const COMMIT_POINT: u16 = 8;
    pub(super) const STAGED: u16 = OPTIONAL | 1;
    /// Fields of the last frame.
    pub(super) const FRAMES: u16 = 1;
    pub(super) const RAW_BYTES: u16 = 2;
    pub(super) const DIGEST: u16 = 3;
}

impl EpochHeader {
    /// What all frames of the epoch are stamped with.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        Stamp { epoch: self.last_epoch, generation: self.generation.number, incarnation: self.incarnation }
    }

    /// The epoch's first frame.
    #[must_use]
    pub fn encode(&self) -> Frame {
        let mut group = Vec::new();
        self.group.encode_into(&mut group);
        let epochs = [self.first_epoch.0.to_le_bytes(), self.last_epoch.0.to_le_bytes()].concat();
        let mut fields = Writer::new();
        fields.u16(tag::PROTOCOL, self.protocol);
        let features = [self.features_optional.to_le_bytes(), self.features_mandatory.to_le_bytes()].concat();
        fields.field(tag::FEATURES, &features);
        fields.field(tag::GROUP, &group);
        fields.field(tag::INCARNATION, &self.incarnation.0);
        fields.field(tag::GENERATION, &self.generation.encode());
        fields.field(tag::EPOCHS, &epochs);
        fields.field(tag::PREVIOUS, &self.previous.0);
        fields.field(tag::COMMIT_POINT, &[u8::from(self.commit_point)]);
        fields.u64(tag::STAGED, self.staged.0);
        Frame::plain(FrameKind::EpochBegin, self.stamp(), 0, fields.finish())
    }

    /// Reads the epoch's first frame; its payload must have been verified.
    ///
    /// # Errors
    /// Another frame, fields that are not sound or contradict the frame, an unknown protocol or
    /// mandatory feature.
    pub fn decode(frame: &Frame) -> Result<Self, EpochError> {
        let (epoch, found, seq) = (frame.header.epoch, frame.header.kind, frame.header.seq);
        if found != FrameKind::EpochBegin || seq != 0 {
            let expected = "the first frame".to_owned();
            return Err(EpochError::Unexpected { epoch, expected, found, seq, of: epoch });
        }
        // Protocol and features come first: they decide what the rest means.
        let start = || {
            let mut fields = Reader::new(&frame.payload)?;
            let protocol = fields.u16(tag::PROTOCOL)?;
            let mut features = fields.required(tag::FEATURES)?;
            let (optional, mandatory) = (features.u64()?, features.u64()?);
            features.end()?;
            Ok((fields, protocol, optional, mandatory))
        };
        let (fields, protocol, optional, mandatory) = start().map_err(|e| fields_error(frame, e))?;
        if protocol != PROTOCOL {
            return Err(EpochError::Protocol { epoch, found: protocol });
        }
        if unknown_features(mandatory) != 0 {
            return Err(EpochError::Features { epoch, unknown: unknown_features(mandatory) });
        }
        let this = Self::from_fields(fields, protocol, [optional, mandatory]);
        let this = this.map_err(|e| fields_error(frame, e))?;
        let sound = this.stamp() == frame.header.stamp()
            && this.first_epoch <= this.last_epoch
            && !this.first_epoch.is_none()
            && this.staged < this.last_epoch;
        if sound { Ok(this) } else { Err(EpochError::Contradiction { epoch }) }
    }

    fn from_fields(mut fields: Reader<'_>, protocol: u16, features: [u64; 2]) -> Result<Self, TlvError> {
        let group = GroupDescription::decode(fields.required(tag::GROUP)?)?;
        let incarnation = Incarnation(fields.array(tag::INCARNATION)?);
        let generation = Generation::decode(fields.array(tag::GENERATION)?);
        let mut epochs = fields.required(tag::EPOCHS)?;
        let (first_epoch, last_epoch) = (Epoch(epochs.u64()?), Epoch(epochs.u64()?));
        epochs.end()?;
        let previous = Digest(fields.array(tag::PREVIOUS)?);
        let mut flag = fields.required(tag::COMMIT_POINT)?;
        let commit_point = match flag.u8()? {
            0 => false,
            1 => true,
            other => return Err(flag.invalid(format_args!("{other}, neither no nor yes"))),
        };
        flag.end()?;
        let staged = fields.optional_array(tag::STAGED)?.map(u64::from_le_bytes);
        let staged = staged.map_or(Epoch::NONE, Epoch);
        fields.finish()?;
        Ok(Self {
            protocol,
            features_optional: features[0],
            features_mandatory: features[1],
            group,
            incarnation,
            generation,
            first_epoch,
            last_epoch,
            previous,
            commit_point,
            staged,
        })
    }
}

impl EpochTrailer {
    /// The epoch's last frame.
    #[must_use]
    pub fn encode(&self, stamp: Stamp) -> Frame {
        let mut fields = Writer::new();
        fields.u64(tag::FRAMES, self.frames);
        fields.u64(tag::RAW_BYTES, self.raw_bytes);
        fields.field(tag::DIGEST, &self.digest.0);
        Frame::plain(FrameKind::EpochEnd, stamp, self.frames, fields.finish())
    }

    /// Reads the epoch's last frame; its payload must have been verified.
    pub fn decode(frame: &Frame) -> Result<Self, EpochError> {
        let read = || {
            let mut fields = Reader::new(&frame.payload)?;
            let (frames, raw_bytes) = (fields.u64(tag::FRAMES)?, fields.u64(tag::RAW_BYTES)?);
            let digest = Digest(fields.array(tag::DIGEST)?);
            fields.finish()?;
            Ok(Self { frames, raw_bytes, digest })
        };
        read().map_err(|source| fields_error(frame, source))
    }
}

fn fields_error(frame: &Frame, source: TlvError) -> EpochError {
    EpochError::Fields { kind: frame.header.kind, epoch: frame.header.epoch, source }
}

#[cfg(test)]
mod tests;
