//! Two slots that hold the same version, so that one whole version always survives a torn write and the newest
//! one survives a damaged slot.
//!
//! Used for the durable state and the journal's superblock. Always holds: a version is written to slot a, made
//! durable, then to slot b, and made durable; only then does anybody act on it. So a sound slot never holds less
//! than the last version that was acted on, also if the other slot is damaged. A slot that is damaged,
//! cannot be read or is of a newer version is never taken for a blank one. Formatting writes both slots, so
//! afterwards one damaged and one blank slot mean loss, not a first write.
//!
//! ```text
//! area:  slot a at byte 0, slot b at byte 65536
//! slot, little endian, 8192 bytes; magic, version and checksum keep their place in every version:
//!      0     8  magic "FTDMSLOT"
//!      8     2  version, 1
//!     10     2  kind: 1 durable state, 2 journal superblock
//!     12     4  body length
//!     16     8  sequence: the higher one is the newer
//!     24     8  zero
//!     32  8156  body, then zeros
//!   8188     4  crc32c of bytes 0..8188
//! ```
//!
//! | slot a | slot b | chosen | why |
//! |---|---|---|---|
//! | any | newer version | error: upgrade | |
//! | any | sound, other kind | error: this area is something else | |
//! | sound | sound, same sequence, same body | slot a | as every write leaves them |
//! | sound | sound, other sequence | the higher sequence | a stop between the two writes |
//! | sound | sound, same sequence, other body | error: ambiguous | |
//! | sound | damaged or unreadable | the sound one, reported | a torn write, or a fault of the device |
//! | sound | blank | the sound one | a stop while it was formatted |
//! | blank | blank | none: not formatted | |
//! | damaged or unreadable | blank, damaged or unreadable | error: damaged, or not an area of slots at all | |
//!
//! (The same with a and b exchanged.) A start writes the version that it chose to both slots again before it acts
//! on it ([`Chosen::is_in_both`]). Earlier versions of this software wrote the slots in turn, so that one held the
//! version before: their areas are read by the same table, and are alike after the first start.

use std::fmt;

/// Bytes of a slot. Large enough for the largest state: 64 generations and 16 volumes.
pub const SLOT_SIZE: usize = 8192;

/// Longest body of a slot.
pub const MAX_BODY: usize = at::CRC - at::BODY;

const MAGIC: [u8; 8] = *b"FTDMSLOT";
const VERSION: u16 = 1;

mod at {
    //! Where each field starts; mirrors the layout above.
    pub(super) const VERSION: usize = 8;
    pub(super) const KIND: usize = 10;
    pub(super) const BODY_LEN: usize = 12;
    pub(super) const SEQUENCE: usize = 16;
    pub(super) const RESERVED: usize = 24;
    pub(super) const BODY: usize = 32;
    pub(super) const CRC: usize = 8188;
}

/// What the body is. The numbers are frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// [`crate::state::DurableState`].
    State = 1,
    /// [`crate::journal::Superblock`].
    JournalSuperblock = 2,
}

/// One of the two slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// Where it starts, in bytes from the start of the area.
    #[must_use]
    pub fn offset(self) -> u64 {
        match self {
            Self::A => 0,
            Self::B => 64 << 10,
        }
    }

    /// Both, in the order in which they are written.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot at byte {}", self.offset())
    }
}

/// The sequence of the version that formatting writes.
pub const FIRST_SEQUENCE: u64 = 1;

/// A slot as the device gives it; `None`: it cannot be read.
pub type ReadSlot<'a> = Option<&'a [u8; SLOT_SIZE]>;

/// The version to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The slot that it was taken from.
    pub slot: Slot,
    /// Its sequence: the next version has the one after it.
    pub sequence: u64,
    /// Its body.
    pub body: Vec<u8>,
    /// What the other slot holds.
    pub other: Found,
}

impl Chosen {
    /// Whether both slots hold it, as every finished write leaves them.
    #[must_use]
    pub fn is_in_both(&self) -> bool {
        self.other == Found::Sound { sequence: self.sequence }
    }

    /// The other slot, if it is damaged or cannot be read.
    #[must_use]
    pub fn damaged(&self) -> Option<DamagedSlot> {
        let is_damaged = !matches!(self.other, Found::Blank | Found::Sound { .. });
        is_damaged.then(|| DamagedSlot { slot: self.slot.other(), found: self.other })
    }
}

/// A slot that holds no version, beside one that does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedSlot {
    /// Which.
    pub slot: Slot,
    /// What it holds instead.
    pub found: Found,
}

impl fmt::Display for DamagedSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} is {}, the other one is sound", self.slot, self.found)
    }
}

/// What one slot holds, without its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Zeros.
    Blank,
    /// A sound version.
    Sound {
        /// Its sequence.
        sequence: u64,
    },
    /// Something that does not begin like a slot.
    Foreign {
        /// Its first bytes.
        start: [u8; 8],
    },
    /// A slot whose checksum or fields do not hold.
    Damaged,
    /// The device does not read it.
    Unreadable,
}

impl Found {
    /// Whether it is something that was never a slot.
    #[must_use]
    pub fn is_foreign(self) -> bool {
        matches!(self, Self::Foreign { .. } | Self::Blank)
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => f.write_str("blank"),
            Self::Sound { sequence } => write!(f, "sound, sequence {sequence}"),
            Self::Foreign { start } => write!(f, "something else, beginning {start:02x?}"),
            Self::Damaged => f.write_str("damaged"),
            Self::Unreadable => f.write_str("unreadable"),
        }
    }
}

/// Slots that give no version to use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// Neither slot is sound.
    #[error("no sound version: the slot at byte 0 is {a}, the one at byte 65536 is {b}")]
    Damaged {
        /// The first slot.
        a: Found,
        /// The second slot.
        b: Found,
    },
    /// A newer version of this software wrote it.
    #[error("{slot} has format version {version}, this host knows {VERSION}: upgrade this host")]
    Newer {
        /// Which slot.
        slot: Slot,
        /// Its version.
        version: u16,
    },
    /// A sound slot of something else.
    #[error("{slot} is of kind {found}, not {expected}: the configuration points at the wrong device")]
    Kind {
        /// Which slot.
        slot: Slot,
        /// Its kind.
        found: u16,
        /// The kind wanted.
        expected: u16,
    },
    /// Two different versions that both claim to be the newest.
    #[error("both slots have sequence {sequence} but differ: two hosts or programs wrote them")]
    Ambiguous {
        /// Their sequence.
        sequence: u64,
    },
    /// A body that no slot can hold.
    #[error("{len} bytes do not fit a slot, which holds {MAX_BODY}")]
    TooLong {
        /// Its length.
        len: usize,
    },
}

/// Encodes a version. `body` is at most [`MAX_BODY`] bytes.
pub fn encode(sequence: u64, kind: SlotKind, body: &[u8]) -> Result<[u8; SLOT_SIZE], SlotError> {
    let too_long = SlotError::TooLong { len: body.len() };
    let len = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_BODY).ok_or(too_long)?;
    let mut bytes = [0; SLOT_SIZE];
    bytes[..at::VERSION].copy_from_slice(&MAGIC);
    bytes[at::VERSION..at::KIND].copy_from_slice(&VERSION.to_le_bytes());
    bytes[at::KIND..at::BODY_LEN].copy_from_slice(&(kind as u16).to_le_bytes());
    bytes[at::BODY_LEN..at::SEQUENCE].copy_from_slice(&len.to_le_bytes());
    bytes[at::SEQUENCE..at::RESERVED].copy_from_slice(&sequence.to_le_bytes());
    bytes[at::BODY..at::BODY + body.len()].copy_from_slice(body);
    let crc = crc32c::crc32c(&bytes[..at::CRC]);
    bytes[at::CRC..].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

/// Chooses by the table above. `None`: both slots are blank.
pub fn choose(kind: SlotKind, a: ReadSlot<'_>, b: ReadSlot<'_>) -> Result<Option<Chosen>, SlotError> {
    let (found_a, found_b) = (read(Slot::A, kind, a)?, read(Slot::B, kind, b)?);
    let (slot, sequence, bytes) = match (found_a, found_b) {
        (Found::Blank, Found::Blank) => return Ok(None),
        (Found::Sound { sequence: x }, Found::Sound { sequence: y }) if x == y && a != b => {
            return Err(SlotError::Ambiguous { sequence: x });
        }
        (Found::Sound { sequence: x }, Found::Sound { sequence: y }) if x < y => (Slot::B, y, b),
        (Found::Sound { sequence }, _) => (Slot::A, sequence, a),
        (_, Found::Sound { sequence }) => (Slot::B, sequence, b),
        (a, b) => return Err(SlotError::Damaged { a, b }),
    };
    let body = bytes.and_then(body).unwrap_or_default().to_vec();
    let other = if slot == Slot::A { found_b } else { found_a };
    Ok(Some(Chosen { slot, sequence, body, other }))
}

/// What a slot holds.
///
/// # Errors
/// A newer version of this software, or something else, has written it.
pub fn read(slot: Slot, kind: SlotKind, bytes: ReadSlot<'_>) -> Result<Found, SlotError> {
    let Some(bytes) = bytes else { return Ok(Found::Unreadable) };
    let start = array(bytes, 0);
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(Found::Blank);
    }
    if start != MAGIC {
        return Ok(Found::Foreign { start });
    }
    if u32::from_le_bytes(array(bytes, at::CRC)) != crc32c::crc32c(&bytes[..at::CRC]) {
        return Ok(Found::Damaged);
    }
    let version = u16::from_le_bytes(array(bytes, at::VERSION));
    if version > VERSION {
        return Err(SlotError::Newer { slot, version });
    }
    let (found, expected) = (u16::from_le_bytes(array(bytes, at::KIND)), kind as u16);
    if found != expected {
        return Err(SlotError::Kind { slot, found, expected });
    }
    let zero = [at::RESERVED..at::BODY, at::BODY + body(bytes).map_or(0, <[u8]>::len)..at::CRC];
    let sound = version == VERSION
        && body(bytes).is_some()
        && zero.into_iter().all(|range| bytes[range].iter().all(|byte| *byte == 0));
    let sequence = u64::from_le_bytes(array(bytes, at::SEQUENCE));
    Ok(if sound { Found::Sound { sequence } } else { Found::Damaged })
}

fn body(bytes: &[u8; SLOT_SIZE]) -> Option<&[u8]> {
    let len = u32::from_le_bytes(array(bytes, at::BODY_LEN)) as usize;
    bytes[at::BODY..at::CRC].get(..len)
}

fn array<const N: usize>(bytes: &[u8; SLOT_SIZE], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

#[cfg(test)]
mod tests;
