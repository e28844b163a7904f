//! Where the next frame goes, and what may be overwritten.
//!
//! Always holds: `tail <= head <= tail + ring length`; a place that was given away lies in free space;
//! space becomes free only by [`JournalWriter::advance_tail`], which is to be called once the superblock that
//! says so is durable. An epoch is open from its first frame until it is sealed or dropped.

use crate::frame::{Frame, FrameKind, Stamp};
use crate::ids::{Digest, Epoch, Incarnation};
use crate::mutant::{self, Mutant};

use super::layout::{BLOCK_LEN, Dropped, MAX_POSITION, Marker, Superblock, padded_len};
use super::recovery::Recovery;

/// Where a frame goes: write the pad marker, if there is one, and the frame as
/// [`encode_padded`](super::encode_padded) gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Absolute position in the ring.
    pub position: u64,
    /// Byte on the device.
    pub offset: u64,
    /// Bytes to write, whole blocks.
    pub len: u64,
    /// Set when the frame did not fit before the ring's end.
    pub pad: Option<Marker>,
}

/// Why there is no place for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// No room until epochs are applied and the tail is advanced.
    #[error("the journal is full")]
    Full,
    /// The epoch would not even fit the empty ring.
    #[error("epoch {epoch} does not fit the journal of {capacity} bytes: give it a larger one")]
    TooLarge {
        /// The epoch.
        epoch: Epoch,
        /// Length of the ring.
        capacity: u64,
    },
    /// A frame that does not belong where the journal is.
    #[error("a {kind:?} frame of epoch {epoch} cannot be journalled now")]
    OutOfPlace {
        /// Its kind.
        kind: FrameKind,
        /// Its epoch.
        epoch: Epoch,
    },
}

/// An epoch that is being written.
#[derive(Clone, Copy, Debug)]
struct Open {
    start: u64,
    stamp: Stamp,
    /// Set once its last frame has a place.
    ended: bool,
}

/// Gives away the ring's space.
///
/// One frame after the other: [`Self::reserve`] each, [`Self::seal`] behind the last. What is given away must be
/// written in that order or be made durable together, and reading it back is for
/// [`EpochFrames`](super::EpochFrames).
#[derive(Clone, Debug)]
pub struct JournalWriter {
    /// As it is durable.
    superblock: Superblock,
    head: u64,
    /// New epochs are above this one.
    floor: Epoch,
    synced: Epoch,
    /// Of the newest epoch sealed.
    incarnation: Option<Incarnation>,
    committed: Option<Epoch>,
    dropped: Option<Dropped>,
    applying: Option<Epoch>,
    open: Option<Open>,
}

impl JournalWriter {
    /// A writer that goes on where recovery ended.
    #[must_use]
    pub fn new(superblock: Superblock, recovery: &Recovery) -> Self {
        let synced = superblock.synced;
        let incarnation = recovery.sealed.last().map(|last| last.incarnation).or(superblock.incarnation);
        Self {
            head: recovery.end,
            floor: recovery.floor,
            synced,
            incarnation,
            committed: superblock.committed,
            dropped: superblock.dropped,
            applying: superblock.applying,
            open: None,
            superblock,
        }
    }

    /// Gives a frame of an epoch its place; the first one opens the epoch.
    ///
    /// # Errors
    /// Nothing changes. [`ReserveError::Full`]: try again after [`Self::advance_tail`].
    pub fn reserve(&mut self, frame: &Frame) -> Result<Placement, ReserveError> {
        let header = &frame.header;
        let (kind, epoch) = (header.kind, header.epoch);
        let in_place = match &self.open {
            None => kind == FrameKind::EpochBegin && epoch > self.floor,
            Some(open) => {
                let continues = matches!(kind, FrameKind::EpochData | FrameKind::EpochEnd);
                continues && !open.ended && header.stamp() == open.stamp
            }
        };
        if !in_place {
            return Err(ReserveError::OutOfPlace { kind, epoch });
        }
        let (ring, len) = (self.superblock.ring, padded_len(header));
        let rest = ring.rest(self.head);
        let (position, pad) = if len > rest {
            (self.head + rest, Some(Marker::pad(ring.offset(self.head), header)))
        } else {
            (self.head, None)
        };
        let start = self.open.map_or(self.head, |open| open.start);
        if position + len > start + ring.capacity() {
            return Err(ReserveError::TooLarge { epoch, capacity: ring.capacity() });
        }
        // No superblock could name the place: that is reached after four exbibytes.
        let is_nameable = position + len <= MAX_POSITION;
        let fits = position + len <= self.superblock.tail + ring.capacity();
        if !is_nameable || (!fits && !mutant::is(Mutant::OverrunTail)) {
            return Err(ReserveError::Full);
        }
        self.head = position + len;
        self.open = Some(Open { start, stamp: header.stamp(), ended: kind == FrameKind::EpochEnd });
        Ok(Placement { position, offset: ring.offset(position), len, pad })
    }

    /// Closes the open epoch, whose last frame was verified and has its place. Returns where it starts and
    /// ends; without an open epoch the head, twice.
    pub fn seal(&mut self) -> (u64, u64) {
        let Some(open) = self.open.take() else { return (self.head, self.head) };
        self.floor = open.stamp.epoch;
        self.incarnation = Some(open.stamp.incarnation);
        (open.start, self.head)
    }

    /// Forgets the open epoch: what comes next overwrites it, after whatever is being written there
    /// already has been written.
    pub fn drop_open(&mut self) {
        if let Some(open) = self.open.take() {
            self.head = open.start;
        }
    }

    /// Drops the sealed epochs from position `start` on, and the open one. `start` is where a sealed
    /// epoch that is not applied starts, or the head. `through` raises what new epochs must be above: pass
    /// what was lost when a damage is accepted, else the last epoch dropped.
    ///
    /// The marker must be durable before anything is written behind it: without it, what was dropped and
    /// then overwritten would be taken for damaged.
    ///
    /// # Errors
    /// [`ReserveError::Full`] when there is no room for the marker, only possible at the head.
    pub fn drop_sealed(&mut self, start: u64, through: Epoch) -> Result<Marker, ReserveError> {
        debug_assert!(self.superblock.tail <= start && start <= self.head, "only what is used is dropped");
        let head = start + BLOCK_LEN as u64;
        if head > self.superblock.tail + self.capacity() {
            return Err(ReserveError::Full);
        }
        self.open = None;
        self.head = head;
        self.floor = self.floor.max(through);
        Ok(Marker::drop(self.superblock.ring.offset(start), self.floor, self.superblock.journal_id))
    }

    /// Drops the sealed epochs from position `start` on, and the open one, as [`Self::drop_sealed`] does; the next
    /// superblock will say so, and must be durable before anything is written behind `start`.
    pub fn drop_from(&mut self, start: u64, through: Epoch) {
        debug_assert!(self.superblock.tail <= start && start <= self.head, "only what is used is dropped");
        self.open = None;
        self.floor = self.floor.max(through);
        self.head = start;
        self.dropped = Some(Dropped { position: start, through: self.floor });
    }

    /// Notes the last epoch that a coordinator committed; the next superblock will say so. `None`: there is no
    /// coordinator.
    pub fn note_committed(&mut self, committed: Option<Epoch>) {
        self.committed = committed;
    }

    /// What the next superblock will say of a coordinator's commits.
    #[must_use]
    pub fn noted_committed(&self) -> Option<Epoch> {
        self.committed
    }

    /// Notes the highest epoch of which something may be on the volumes from now on; the next superblock will say so, and
    /// must be durable before the first write.
    pub fn note_applying(&mut self, epoch: Epoch) {
        self.applying = Some(epoch);
    }

    /// Notes that the journal is durable up to `epoch`; the next superblock will say so.
    pub fn note_synced(&mut self, epoch: Epoch) {
        self.synced = self.synced.max(epoch);
    }

    /// The superblock to write for what was noted, the tail being where it is.
    #[must_use]
    pub fn superblock_now(&self) -> Superblock {
        let Superblock { tail, tail_epoch, tail_digest, .. } = self.superblock;
        self.superblock_after(tail, tail_epoch, tail_digest)
    }

    /// The superblock to write when everything up to position `end`, the end of `epoch`, is applied.
    #[must_use]
    pub fn superblock_after(&self, end: u64, epoch: Epoch, digest: Digest) -> Superblock {
        Superblock {
            tail: end,
            tail_epoch: epoch,
            tail_digest: digest,
            synced: self.synced.max(epoch),
            incarnation: self.incarnation,
            committed: self.committed,
            // Of no use once the scan starts behind it.
            dropped: self.dropped.filter(|dropped| dropped.position >= end),
            applying: self.applying,
            ..self.superblock.clone()
        }
    }

    /// Frees what lies before the tail of `superblock`, which [`Self::superblock_after`] gave and which is durable now.
    pub fn advance_tail(&mut self, superblock: Superblock) {
        let end = superblock.tail;
        debug_assert!(self.superblock.tail <= end && end <= self.head, "the tail moves within what is used");
        self.superblock = superblock;
    }

    /// The superblock as it is durable.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Position behind the last frame.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.head
    }

    /// The highest epoch that was sealed here or dropped: new ones are above it.
    #[must_use]
    pub fn floor(&self) -> Epoch {
        self.floor
    }

    /// Bytes in use, the open epoch included.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.head - self.superblock.tail
    }

    /// Bytes of the ring.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.superblock.ring.capacity()
    }
}
