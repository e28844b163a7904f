//! Where everything lies in a journal.
//!
//! ```text
//! device:   0         superblock, slot a            (see crate::slot)
//!           64 KiB    superblock, slot b
//!           1 MiB     ring: whole blocks of 4096 bytes up to the end of the device
//! ```
//!
//! The ring is addressed by absolute positions that only ever grow: position p lies at byte
//! `ring start + p mod ring length`. Tail and head are positions; the ring holds `head - tail` bytes.
//!
//! A frame is stored as received, header then payload, and zeros up to the next whole block. It never
//! straddles the ring's end: when it does not fit before it, a pad marker takes the rest and the frame goes
//! to the ring's start. A marker is a frame without payload at the start of a block:
//!
//! | marker | stamped with | means |
//! |---|---|---|
//! | `JournalPad` | epoch, generation, incarnation and seq of the frame that follows | the rest of the ring up to its end is empty |
//! | `JournalDrop` | the highest epoch sealed so far, the journal's id as incarnation | epochs up to that one which lay from here on were dropped on purpose |
//!
//! A drop marker stays where it is; the next epoch follows it. A superblock can say the same ([`Dropped`]): that
//! is one write which a crash cannot tear, for epochs that a role change drops. Formatting must zero the ring, or frames of
//! the device's earlier life could be taken for lost epochs.
//!
//! Remains of earlier laps lie behind the head, and they contain what the guest wrote: possibly forged
//! frames. So nothing there is believed that does not continue the digest chain or carry an id that the
//! guest cannot know. A later version that stores frames or features which this one cannot read must
//! first write a superblock with a newer slot version, which this one refuses.

use crate::frame::{Frame, FrameHeader, FrameKind, HEADER_LEN, Stamp};
use crate::ids::{Digest, Epoch, GroupName, Incarnation};
use crate::slot::{Chosen, ReadSlot, SlotError, SlotKind, choose};
use crate::tlv::{OPTIONAL, Reader, TlvError, Value, Writer};

/// Unit of the ring, in bytes: every frame and marker starts at a multiple of it.
pub const BLOCK_LEN: usize = 4096;

/// Byte on the device where the ring starts.
pub const RING_START: u64 = 1 << 20;

/// Smallest device that can be a journal, in bytes.
pub const MIN_JOURNAL_LEN: u64 = 16 << 20;

/// Bound of positions and offsets, so that sums of a few cannot overflow. 2^62 bytes at 10 GB/s last 14 years
/// of writing without a pause.
pub(super) const MAX_POSITION: u64 = 1 << 62;

/// A journal that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The device is too small to be one.
    #[error("a journal needs at least {MIN_JOURNAL_LEN} bytes, the device has {0}")]
    TooSmall(u64),
    /// The device is smaller than when it was formatted.
    #[error("the journal's ring ends at byte {needed}, the device has {found}: give it back its size")]
    Shrunk {
        /// Where the ring ends.
        needed: u64,
        /// Size of the device.
        found: u64,
    },
    /// The superblock's slots.
    #[error("journal superblock: {0}")]
    Slot(#[from] SlotError),
    /// The contents of a sound superblock.
    #[error("journal superblock: {0}")]
    Fields(#[from] TlvError),
    /// The superblock's ring is none.
    #[error("journal superblock names a ring of {len} bytes from byte {start}, which cannot be")]
    Ring {
        /// Where it starts.
        start: u64,
        /// Its length.
        len: u64,
    },
    /// The superblock's tail is no place for a frame.
    #[error("journal superblock names position {0} as the tail, which is not the start of a block")]
    Tail(u64),
}

/// The part of the device that holds frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    start: u64,
    len: u64,
}

impl Ring {
    /// The ring of `len` bytes from byte `start`: whole blocks, not empty, not beyond 2^62.
    #[must_use]
    pub fn new(start: u64, len: u64) -> Option<Self> {
        let whole = start.is_multiple_of(BLOCK_LEN as u64) && len.is_multiple_of(BLOCK_LEN as u64);
        let end = start.checked_add(len)?;
        (whole && len > 0 && end <= MAX_POSITION).then_some(Self { start, len })
    }

    /// Length in bytes.
    #[must_use]
    pub fn capacity(self) -> u64 {
        self.len
    }

    /// One past its last byte on the device.
    #[must_use]
    pub fn end(self) -> u64 {
        self.start + self.len
    }

    /// Byte on the device of a position.
    #[must_use]
    pub fn offset(self, position: u64) -> u64 {
        self.start + position % self.len
    }

    /// Bytes from a position up to the ring's end.
    #[must_use]
    pub fn rest(self, position: u64) -> u64 {
        self.len - position % self.len
    }
}

/// What the superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Drawn at random when the journal was formatted.
    pub journal_id: [u8; 16],
    /// The group.
    pub group_name: GroupName,
    /// Where frames lie.
    pub ring: Ring,
    /// Position of the first epoch that may not be applied yet.
    pub tail: u64,
    /// The last epoch that is applied, and durable on the volumes.
    pub tail_epoch: Epoch,
    /// That epoch's digest.
    pub tail_digest: Digest,
    /// The highest epoch known to be durable in the journal when this was written.
    pub synced: Epoch,
    /// The primary that made the newest epoch sealed when this was written.
    pub incarnation: Option<Incarnation>,
    /// Where a coordinator commits: the last epoch on its word, [`Epoch::NONE`] when none of the present
    /// content is. `None` where whatever is wholly staged is committed.
    pub committed: Option<Epoch>,
    /// The newest epochs that were dropped on purpose.
    pub dropped: Option<Dropped>,
    /// The highest epoch of which something may be on the volumes: noted before it is applied. `None`: written by a
    /// version that did not note it.
    pub applying: Option<Epoch>,
}

/// Sealed epochs that were dropped on purpose, all in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Position where the first of them starts, and the next epoch will.
    pub position: u64,
    /// The highest of them.
    pub through: Epoch,
}

mod tag {
    //! Fields of the superblock.
    use super::OPTIONAL;
    pub(super) const JOURNAL_ID: u16 = 1;
    pub(super) const GROUP_NAME: u16 = 2;
    pub(super) const RING: u16 = 3;
    pub(super) const TAIL: u16 = 4;
    pub(super) const TAIL_EPOCH: u16 = 5;
    pub(super) const TAIL_DIGEST: u16 = 6;
    /// Mandatory: whoever does not know these two would commit what it must not.
    pub(super) const COMMITTED: u16 = 7;
    pub(super) const DROPPED: u16 = 8;
    pub(super) const SYNCED: u16 = OPTIONAL | 1;
    pub(super) const INCARNATION: u16 = OPTIONAL | 2;
    pub(super) const APPLYING: u16 = OPTIONAL | 3;
}

impl Superblock {
    /// The superblock of a new journal on a device of `device_len` bytes. The ring must be zeroed, then
    /// this be written to both slots.
    ///
    /// # Errors
    /// The device is too small.
    pub fn format(
        journal_id: [u8; 16],
        group_name: GroupName,
        device_len: u64,
    ) -> Result<Self, JournalError> {
        let too_small = JournalError::TooSmall(device_len);
        if device_len < MIN_JOURNAL_LEN {
            return Err(too_small);
        }
        let len = (device_len - RING_START) / BLOCK_LEN as u64 * BLOCK_LEN as u64;
        let ring = Ring::new(RING_START, len).ok_or(too_small)?;
        Ok(Self {
            journal_id,
            group_name,
            ring,
            tail: 0,
            tail_epoch: Epoch::NONE,
            tail_digest: Digest::ZERO,
            synced: Epoch::NONE,
            incarnation: None,
            committed: None,
            dropped: None,
            applying: Some(Epoch::NONE),
        })
    }

    /// The body of the slot.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut fields = Writer::new();
        fields.field(tag::JOURNAL_ID, &self.journal_id);
        fields.field(tag::GROUP_NAME, self.group_name.as_str().as_bytes());
        fields.field(tag::RING, &[self.ring.start.to_le_bytes(), self.ring.len.to_le_bytes()].concat());
        fields.u64(tag::TAIL, self.tail);
        fields.u64(tag::TAIL_EPOCH, self.tail_epoch.0);
        fields.field(tag::TAIL_DIGEST, &self.tail_digest.0);
        if let Some(committed) = self.committed {
            fields.u64(tag::COMMITTED, committed.0);
        }
        if let Some(dropped) = self.dropped {
            let value = [dropped.position.to_le_bytes(), dropped.through.0.to_le_bytes()].concat();
            fields.field(tag::DROPPED, &value);
        }
        fields.u64(tag::SYNCED, self.synced.0);
        if let Some(incarnation) = self.incarnation {
            fields.field(tag::INCARNATION, &incarnation.0);
        }
        if let Some(applying) = self.applying {
            fields.u64(tag::APPLYING, applying.0);
        }
        fields.finish()
    }

    /// Reads the body of a slot.
    pub fn decode(body: &[u8]) -> Result<Self, JournalError> {
        let mut fields = Reader::new(body)?;
        let journal_id = fields.array(tag::JOURNAL_ID)?;
        let mut name = fields.required(tag::GROUP_NAME)?;
        let group_name = name.text(GroupName::MAX_LEN)?.parse().map_err(|e| name.invalid(e))?;
        let mut ring = fields.required(tag::RING)?;
        let (start, len) = (ring.u64()?, ring.u64()?);
        ring.end()?;
        let tail = fields.u64(tag::TAIL)?;
        let tail_epoch = Epoch(fields.u64(tag::TAIL_EPOCH)?);
        let tail_digest = Digest(fields.array(tag::TAIL_DIGEST)?);
        let committed = fields.optional_array(tag::COMMITTED)?.map(u64::from_le_bytes).map(Epoch);
        let dropped = fields.optional(tag::DROPPED).map(Dropped::decode).transpose()?;
        let synced = fields.optional_array(tag::SYNCED)?.map(u64::from_le_bytes);
        let synced = synced.map_or(Epoch::NONE, Epoch);
        let incarnation = fields.optional_array(tag::INCARNATION)?.map(Incarnation);
        let applying = fields.optional_array(tag::APPLYING)?.map(u64::from_le_bytes).map(Epoch);
        fields.finish()?;
        let ring = Ring::new(start, len).filter(|ring| ring.start >= RING_START);
        let ring = ring.ok_or(JournalError::Ring { start, len })?;
        if !tail.is_multiple_of(BLOCK_LEN as u64) || tail > MAX_POSITION {
            return Err(JournalError::Tail(tail));
        }
        Ok(Self {
            journal_id,
            group_name,
            ring,
            tail,
            tail_epoch,
            tail_digest,
            synced,
            incarnation,
            committed,
            dropped,
            applying,
        })
    }

    /// Whether something of an epoch behind `held` may be on the volumes.
    #[must_use]
    pub fn may_have_begun_behind(&self, held: Epoch) -> bool {
        self.applying.is_none_or(|applying| applying > held)
    }

    /// The newest superblock of the two slots and where it was found. `None` when both are blank: not formatted.
    ///
    /// # Errors
    /// The slots or the superblock are not sound, or the ring does not fit a device of `device_len` bytes.
    pub fn load(
        a: ReadSlot<'_>,
        b: ReadSlot<'_>,
        device_len: u64,
    ) -> Result<Option<(Self, Chosen)>, JournalError> {
        let Some(chosen) = choose(SlotKind::JournalSuperblock, a, b)? else { return Ok(None) };
        let superblock = Self::decode(&chosen.body)?;
        let needed = superblock.ring.end();
        if needed > device_len {
            return Err(JournalError::Shrunk { needed, found: device_len });
        }
        Ok(Some((superblock, chosen)))
    }
}

impl Dropped {
    fn decode(mut value: Value<'_>) -> Result<Self, TlvError> {
        let (position, through) = (value.u64()?, Epoch(value.u64()?));
        if !position.is_multiple_of(BLOCK_LEN as u64) || position > MAX_POSITION {
            return Err(value.invalid(format_args!("position {position}, where no frame can start")));
        }
        value.end()?;
        Ok(Self { position, through })
    }
}

/// A marker that is to be written: one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Byte on the device.
    pub offset: u64,
    kind: FrameKind,
    stamp: Stamp,
    seq: u64,
}

impl Marker {
    pub(super) fn pad(offset: u64, next: &FrameHeader) -> Self {
        Self { offset, kind: FrameKind::JournalPad, stamp: next.stamp(), seq: next.seq }
    }

    pub(super) fn drop(offset: u64, through: Epoch, journal_id: [u8; 16]) -> Self {
        let stamp = Stamp { epoch: through, generation: 0, incarnation: Incarnation(journal_id) };
        Self { offset, kind: FrameKind::JournalDrop, stamp, seq: 0 }
    }

    /// What to write.
    #[must_use]
    pub fn block(&self) -> [u8; BLOCK_LEN] {
        let mut block = [0; BLOCK_LEN];
        let frame = Frame::plain(self.kind, self.stamp, self.seq, Vec::new());
        block[..HEADER_LEN].copy_from_slice(&frame.header.encode());
        block
    }
}

/// Bytes that a frame takes in the ring: whole blocks.
#[must_use]
pub fn padded_len(header: &FrameHeader) -> u64 {
    header.wire_len().next_multiple_of(BLOCK_LEN as u64)
}

/// Replaces `out` by the frame as it lies in the ring: header, payload, zeros.
pub fn encode_padded(frame: &Frame, out: &mut Vec<u8>) {
    out.clear();
    frame.encode_into(out);
    out.resize(out.len().next_multiple_of(BLOCK_LEN), 0);
}
