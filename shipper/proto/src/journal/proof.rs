//! Proving that a sealed epoch's own bytes lie in the ring, before anything of it is used.
//!
//! Epoch, incarnation and sequence do not identify a frame. A broken-off attempt at the same epoch has the same three and
//! lay at the same place, its checksums are sound, and a write that the device loses or misdirects leaves it standing.
//! The epoch's digest, chained over all before it and known since the epoch was sealed, does identify its bytes.
//!
//! Always holds: a [`Proof`] is of a whole epoch, from the frame that continues the chain to the last one, under the
//! digest that was asked for; what it hands out are those bytes and no others, whatever the device answers the second
//! time. Memory is bounded by one piece, and one frame, of an epoch that is larger than the room given for it.
//!
//! ```text
//!   of      reads the epoch once, and checks its digest        nothing was used yet: it can still be refused whole
//!   redo    small epoch: the frames that were read
//!           large epoch: piece by piece read again, each compared with the chain's digest behind it, then used
//! ```
//!
//! Why not frame by frame, with a list of checksums kept since staging? That reads every epoch once, but finds a wrong third
//! frame when the first two are on the volume. Proven whole, a wrong epoch leaves the volume what it was: exactly the epoch
//! before, which can be promoted and from which the primary sends the rest. The price is one SHA-256 of each byte, and a second
//! reading of epochs above [`PIECE_LEN`].

use crate::digest::EpochVerifier;
use crate::epoch::EpochError;
use crate::frame::{Frame, FrameKind};
use crate::ids::{Digest, Epoch};
use crate::mutant::{self, Mutant};

use super::layout::Ring;
use super::read::{EpochFrames, ReadAt, ReadError};

/// Bytes of frames that are compared, and used, in one piece.
pub const PIECE_LEN: usize = 4 << 20;

/// Where a sealed epoch lies, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Digest of the epoch before it.
    pub previous: Digest,
    /// Its own.
    pub digest: Digest,
    /// Position of its first frame.
    pub start: u64,
    /// Position behind its last frame.
    pub end: u64,
}

/// What lies in an epoch's place is not that epoch, or cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError<E> {
    /// No whole frames.
    #[error(transparent)]
    Read(#[from] ReadError<E>),
    /// Frames that do not make an epoch, or not one that continues the chain.
    #[error("journal at position {position}: {source}")]
    Epoch {
        /// Where the epoch starts.
        position: u64,
        /// What is wrong.
        source: EpochError,
    },
    /// An epoch, and sound, but another one.
    #[error("journal at position {position} holds an epoch of digest {found}, not the one of {sealed}")]
    Other {
        /// Where the epoch starts.
        position: u64,
        /// Its digest.
        found: Digest,
        /// The digest of what was written there.
        sealed: Digest,
    },
    /// The frames end before the epoch does.
    #[error("journal at position {position}: the epoch that starts there has no end")]
    Endless {
        /// Where the epoch starts.
        position: u64,
    },
    /// It was proven, and reads otherwise now.
    #[error("journal at position {position}: the epoch that starts there reads otherwise than a moment ago")]
    Changed {
        /// Where the epoch starts.
        position: u64,
    },
}

/// Why a redo of a proven epoch ended early.
#[derive(Debug)]
pub enum RedoError<E, V> {
    /// The journal's device gave something else than was proven. `used`: frames of the epoch that were handed out before.
    Journal {
        /// What it gave.
        source: ProofError<E>,
        /// Frames that were handed out.
        used: u64,
    },
    /// Whoever uses the frames failed.
    User(V),
}

/// Some consecutive frames of an epoch, and the chain's digest behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    frames: u64,
    digest: Digest,
}

/// An epoch that was read and is what was sealed.
#[derive(Clone, Debug)]
pub struct Proof {
    epoch: Epoch,
    place: Place,
    pieces: Vec<Piece>,
    /// All its frames, where there was room for them.
    kept: Option<Vec<Frame>>,
    kept_len: usize,
}

impl Proof {
    /// Reads the epoch at `place`. Frames of up to `piece` bytes are compared, later, as one; where the whole epoch is no
    /// larger than that and than `room`, its frames are kept.
    ///
    /// # Errors
    /// What lies there is not that epoch, or the device fails: nothing of it may be used.
    pub fn of<D: ReadAt>(
        ring: Ring,
        device: &mut D,
        place: Place,
        piece: usize,
        room: usize,
    ) -> Result<Self, ProofError<D::Error>> {
        if mutant::is(Mutant::RedoWhateverLiesThere) || mutant::is(Mutant::IdentityIsProof) {
            return Self::of_identity(ring, device, place);
        }
        let mut verifier = EpochVerifier::new(place.previous);
        let (mut pieces, mut kept, mut kept_len) = (Vec::new(), Some(Vec::new()), 0);
        let mut open = Piece { frames: 0, digest: Digest::ZERO };
        let mut open_len = 0;
        let mut sealed = None;
        for frame in EpochFrames::new(ring, device, place.start, place.end) {
            let frame = frame?;
            sealed = verifier.push(&frame).map_err(|source| at(place, source))?;
            let len = frame_len(&frame);
            if open.frames > 0 && open_len + len > piece {
                pieces.push(std::mem::replace(&mut open, Piece { frames: 0, digest: Digest::ZERO }));
                open_len = 0;
            }
            open = Piece { frames: open.frames + 1, digest: verifier.running() };
            open_len += len;
            kept_len += len;
            if kept_len > room.min(piece) {
                kept = None;
            }
            if let Some(kept) = &mut kept {
                kept.push(frame);
            }
        }
        pieces.push(open);
        let position = place.start;
        let found = sealed.ok_or(ProofError::Endless { position })?.digest;
        if found != place.digest {
            return Err(ProofError::Other { position, found, sealed: place.digest });
        }
        let epoch = verifier.header().map_or(Epoch::NONE, |header| header.last_epoch);
        let kept_len = if kept.is_some() { kept_len } else { 0 };
        Ok(Self { epoch, place, pieces, kept, kept_len })
    }

    /// What a fault takes for a proof: that the frames are of one epoch, in order; or not even that.
    fn of_identity<D: ReadAt>(
        ring: Ring,
        device: &mut D,
        place: Place,
    ) -> Result<Self, ProofError<D::Error>> {
        let frames: Vec<Frame> =
            EpochFrames::new(ring, device, place.start, place.end).collect::<Result<_, _>>()?;
        let stamp = frames.first().map(|frame| frame.header.stamp());
        let is_next =
            |(seq, frame): (u64, &Frame)| (frame.header.seq, Some(frame.header.stamp())) == (seq, stamp);
        let ends = frames.last().is_some_and(|last| last.header.kind == FrameKind::EpochEnd);
        if !((0..).zip(&frames).all(is_next) && ends || mutant::is(Mutant::RedoWhateverLiesThere)) {
            return Err(ProofError::Endless { position: place.start });
        }
        let epoch = stamp.map_or(Epoch::NONE, |stamp| stamp.epoch);
        Ok(Self { epoch, place, pieces: Vec::new(), kept: Some(frames), kept_len: 0 })
    }

    /// The epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Where it lies, and what it is.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// Bytes of frames that it holds in memory.
    #[must_use]
    pub fn kept_len(&self) -> usize {
        self.kept_len
    }

    /// Hands the epoch's frames to `user`, in order.
    ///
    /// # Errors
    /// Those of `user`, and when what was not kept reads otherwise now: then the piece that does is not handed out.
    pub fn redo<D: ReadAt, V>(
        &self,
        ring: Ring,
        device: &mut D,
        mut user: impl FnMut(&Frame) -> Result<(), V>,
    ) -> Result<(), RedoError<D::Error, V>> {
        if let Some(kept) = &self.kept {
            return kept.iter().try_for_each(user).map_err(RedoError::User);
        }
        let mut frames = EpochFrames::new(ring, device, self.place.start, self.place.end);
        let mut verifier = EpochVerifier::new(self.place.previous);
        let mut used = 0;
        for piece in &self.pieces {
            let read = self.read(&mut frames, &mut verifier, piece);
            for frame in read.map_err(|source| RedoError::Journal { source, used })? {
                user(&frame).map_err(RedoError::User)?;
                used += 1;
            }
        }
        Ok(())
    }

    /// Reads a piece again, and compares it.
    fn read<D: ReadAt>(
        &self,
        frames: &mut EpochFrames<'_, D>,
        verifier: &mut EpochVerifier,
        piece: &Piece,
    ) -> Result<Vec<Frame>, ProofError<D::Error>> {
        let mut read = Vec::new();
        for _ in 0..piece.frames {
            let frame = frames.next().ok_or(ProofError::Endless { position: self.place.start })??;
            verifier.push(&frame).map_err(|source| at(self.place, source))?;
            read.push(frame);
        }
        let is_same = verifier.running() == piece.digest;
        if is_same { Ok(read) } else { Err(ProofError::Changed { position: self.place.start }) }
    }
}

fn at<E>(place: Place, source: EpochError) -> ProofError<E> {
    ProofError::Epoch { position: place.start, source }
}

fn frame_len(frame: &Frame) -> usize {
    crate::frame::HEADER_LEN + frame.payload.len()
}
