//! The one frame of wire and journal: a 128-byte header and a payload.
//!
//! The backup journals frames as it received them, so the header carries everything that identifies
//! a frame on its own. Always holds: a decoded [`FrameHeader`] is checksummed, of a known version
//! and kind, and its lengths are within the limits, so a payload may be allocated from it.
//!
//! Header, little endian. Offsets 0..72 and the header checksum keep their place and meaning in every
//! later version.
//!
//! ```text
//! offset  size
//!      0     4  magic "FTDM"
//!      4     2  header version, 1
//!      6     2  kind; 0x8000 set: a reader that does not know it skips the frame
//!      8     4  flags; bit 0: the payload is one lz4 block
//!     12     4  record count, data frames only
//!     16     8  seq: number of the frame within its epoch or base copy
//!     24     8  epoch, 0 outside epochs
//!     32     8  generation number
//!     40    16  incarnation of the primary
//!     56     4  payload length as stored
//!     60     4  payload length decompressed
//!     64     4  crc32c of the payload as stored
//!     68    56  zero
//!    124     4  crc32c of bytes 0..124
//! ```

mod decoder;
mod kind;

use crate::ids::{Epoch, Incarnation};

pub use decoder::FrameDecoder;
pub use kind::FrameKind;

/// Bytes of a header.
pub const HEADER_LEN: usize = 128;

/// Least bytes that a record takes in a payload, uncompressed.
pub const MIN_RECORD_LEN: usize = 24;

/// Most bytes in a data frame's payload, decompressed (and so also stored).
pub const MAX_RAW_PAYLOAD: usize = 2 << 20;

/// Most bytes in a control frame's payload.
pub const MAX_CONTROL_PAYLOAD: usize = 64 << 10;

/// Version of the header that this code writes and reads.
pub const HEADER_VERSION: u16 = 1;

const MAGIC: [u8; 4] = *b"FTDM";
const FLAG_LZ4: u32 = 1;

mod at {
    //! Where each field of the header starts; mirrors the layout above.
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 4;
    pub(super) const KIND: usize = 6;
    pub(super) const FLAGS: usize = 8;
    pub(super) const RECORD_COUNT: usize = 12;
    pub(super) const SEQ: usize = 16;
    pub(super) const EPOCH: usize = 24;
    pub(super) const GENERATION: usize = 32;
    pub(super) const INCARNATION: usize = 40;
    pub(super) const PAYLOAD_LEN: usize = 56;
    pub(super) const RAW_LEN: usize = 60;
    pub(super) const PAYLOAD_CRC: usize = 64;
    pub(super) const RESERVED: usize = 68;
    pub(super) const HEADER_CRC: usize = 124;
}

/// Bytes that are not a sound frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Something else than a frame.
    #[error("no frame starts here: found {found:02x?}, not \"FTDM\"")]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// A damaged header.
    #[error("frame header is damaged: its checksum is {computed:#010x}, not {stored:#010x}")]
    HeaderChecksum {
        /// As the header says.
        stored: u32,
        /// As its bytes give.
        computed: u32,
    },
    /// A sound header of another version.
    #[error(
        "frame of epoch {epoch} has header version {found}, this host knows {HEADER_VERSION}: upgrade this host"
    )]
    Version {
        /// The version found.
        found: u16,
        /// Epoch of the frame: this field has its place in every version.
        epoch: Epoch,
    },
    /// A sound frame of a kind that must not be skipped and is not known.
    #[error("frame of epoch {epoch} is of the unknown kind {kind:#06x}: upgrade this host")]
    Kind {
        /// The kind found.
        kind: u16,
        /// Epoch of the frame.
        epoch: Epoch,
    },
    /// A kind that only ever lies in a journal.
    #[error("a {0:?} frame must not come over a connection")]
    JournalOnly(FrameKind),
    /// Flags that are not known, or not allowed for the kind.
    #[error("{kind:?} frame has flags {flags:#010x}, which it cannot have")]
    Flags {
        /// Kind of the frame.
        kind: FrameKind,
        /// The flags found.
        flags: u32,
    },
    /// Bytes that must be zero in this version.
    #[error("{0:?} frame has bytes set that this version keeps zero")]
    Reserved(FrameKind),
    /// A length beyond its kind's limit, or lengths that contradict each other.
    #[error(
        "{kind:?} frame says {payload_len} bytes stored, {raw_len} decompressed, {record_count} records: beyond its limits"
    )]
    Lengths {
        /// Kind of the frame.
        kind: FrameKind,
        /// Stored length.
        payload_len: u32,
        /// Decompressed length.
        raw_len: u32,
        /// Records in it.
        record_count: u32,
    },
    /// The payload is not as long as the header says.
    #[error("{kind:?} frame {seq} of epoch {epoch} has {found} bytes of payload, not {expected}")]
    PayloadLength {
        /// Kind of the frame.
        kind: FrameKind,
        /// Its epoch.
        epoch: Epoch,
        /// Its number.
        seq: u64,
        /// As the header says.
        expected: usize,
        /// What is there.
        found: usize,
    },
    /// The payload is not what its checksum says.
    #[error("payload of {kind:?} frame {seq} of epoch {epoch} is damaged: its checksum does not match")]
    PayloadChecksum {
        /// Kind of the frame.
        kind: FrameKind,
        /// Its epoch.
        epoch: Epoch,
        /// Its number.
        seq: u64,
    },
    /// The payload is not an lz4 block of the promised length.
    #[error("payload of {kind:?} frame {seq} of epoch {epoch} does not decompress to its {raw_len} bytes")]
    Decompress {
        /// Kind of the frame.
        kind: FrameKind,
        /// Its epoch.
        epoch: Epoch,
        /// Its number.
        seq: u64,
        /// The promised length.
        raw_len: u32,
    },
}

/// What a sender stamps on each of its frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The epoch that the frame belongs to; [`Epoch::NONE`] outside epochs.
    pub epoch: Epoch,
    /// Number of the sender's generation.
    pub generation: u64,
    /// The primary's incarnation.
    pub incarnation: Incarnation,
}

/// A frame's header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the payload holds.
    pub kind: FrameKind,
    /// Whether the payload is stored as one lz4 block.
    pub compressed: bool,
    /// Number of the frame within its epoch or base copy, from 0.
    pub seq: u64,
    /// The epoch that the frame belongs to; [`Epoch::NONE`] outside epochs.
    pub epoch: Epoch,
    /// Number of the sender's generation.
    pub generation: u64,
    /// The primary's incarnation.
    pub incarnation: Incarnation,
    /// Bytes of the payload as stored.
    pub payload_len: u32,
    /// Bytes of the payload decompressed; the same when it is not compressed.
    pub raw_len: u32,
    /// Records in the payload; data frames only.
    pub record_count: u32,
    /// crc32c of the payload as stored.
    pub payload_crc: u32,
}

impl FrameHeader {
    /// Decodes and checks a header.
    ///
    /// # Errors
    /// In this order: magic, checksum, version, kind, flags, reserved bytes, lengths.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let magic = array(bytes, at::MAGIC);
        if magic != MAGIC {
            return Err(FrameError::Magic { found: magic });
        }
        let stored = u32_at(bytes, at::HEADER_CRC);
        let computed = crc32c::crc32c(&bytes[..at::HEADER_CRC]);
        if stored != computed {
            return Err(FrameError::HeaderChecksum { stored, computed });
        }
        let epoch = Epoch(u64_at(bytes, at::EPOCH));
        let version = u16::from_le_bytes(array(bytes, at::VERSION));
        if version != HEADER_VERSION {
            return Err(FrameError::Version { found: version, epoch });
        }
        let kind = u16::from_le_bytes(array(bytes, at::KIND));
        let kind = FrameKind::from_number(kind).ok_or(FrameError::Kind { kind, epoch })?;
        let flags = u32_at(bytes, at::FLAGS);
        if flags & !FLAG_LZ4 != 0 || (flags != 0 && !kind.carries_records()) {
            return Err(FrameError::Flags { kind, flags });
        }
        if bytes[at::RESERVED..at::HEADER_CRC].iter().any(|byte| *byte != 0) {
            return Err(FrameError::Reserved(kind));
        }
        let header = Self {
            kind,
            compressed: flags & FLAG_LZ4 != 0,
            seq: u64_at(bytes, at::SEQ),
            epoch,
            generation: u64_at(bytes, at::GENERATION),
            incarnation: Incarnation(array(bytes, at::INCARNATION)),
            payload_len: u32_at(bytes, at::PAYLOAD_LEN),
            raw_len: u32_at(bytes, at::RAW_LEN),
            record_count: u32_at(bytes, at::RECORD_COUNT),
            payload_crc: u32_at(bytes, at::PAYLOAD_CRC),
        };
        header.check_lengths()?;
        Ok(header)
    }

    /// The header as it is sent and stored.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(at::MAGIC, &MAGIC);
        put(at::VERSION, &HEADER_VERSION.to_le_bytes());
        put(at::KIND, &self.kind.number().to_le_bytes());
        put(at::FLAGS, &(if self.compressed { FLAG_LZ4 } else { 0 }).to_le_bytes());
        put(at::RECORD_COUNT, &self.record_count.to_le_bytes());
        put(at::SEQ, &self.seq.to_le_bytes());
        put(at::EPOCH, &self.epoch.0.to_le_bytes());
        put(at::GENERATION, &self.generation.to_le_bytes());
        put(at::INCARNATION, &self.incarnation.0);
        put(at::PAYLOAD_LEN, &self.payload_len.to_le_bytes());
        put(at::RAW_LEN, &self.raw_len.to_le_bytes());
        put(at::PAYLOAD_CRC, &self.payload_crc.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..at::HEADER_CRC]);
        bytes[at::HEADER_CRC..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// What the sender stamped on it.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        Stamp { epoch: self.epoch, generation: self.generation, incarnation: self.incarnation }
    }

    /// Header and stored payload together, in bytes.
    #[must_use]
    pub fn wire_len(&self) -> u64 {
        HEADER_LEN as u64 + u64::from(self.payload_len)
    }

    /// Checks a stored payload against this header: its length and checksum.
    pub fn verify(&self, payload: &[u8]) -> Result<(), FrameError> {
        let Self { kind, seq, epoch, .. } = *self;
        if payload.len() != self.payload_len as usize {
            let (expected, found) = (self.payload_len as usize, payload.len());
            return Err(FrameError::PayloadLength { kind, epoch, seq, expected, found });
        }
        if crc32c::crc32c(payload) != self.payload_crc {
            return Err(FrameError::PayloadChecksum { kind, epoch, seq });
        }
        Ok(())
    }

    fn check_lengths(&self) -> Result<(), FrameError> {
        let limit = if self.kind.carries_records() { MAX_RAW_PAYLOAD } else { MAX_CONTROL_PAYLOAD };
        let records = u64::from(self.record_count) * MIN_RECORD_LEN as u64;
        let sound = self.raw_len as usize <= limit
            && if self.compressed {
                self.payload_len < self.raw_len
            } else {
                self.payload_len == self.raw_len
            }
            && records <= u64::from(self.raw_len)
            && (self.kind.carries_records() || self.record_count == 0);
        let Self { kind, payload_len, raw_len, record_count, .. } = *self;
        if sound { Ok(()) } else { Err(FrameError::Lengths { kind, payload_len, raw_len, record_count }) }
    }
}

/// A header with its payload, as sent and stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The header.
    pub header: FrameHeader,
    /// The payload, compressed if the header says so.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame whose payload is stored as it is. `payload` must be within its kind's limit.
    #[must_use]
    pub fn plain(kind: FrameKind, stamp: Stamp, seq: u64, payload: Vec<u8>) -> Self {
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let payload_crc = crc32c::crc32c(&payload);
        let Stamp { epoch, generation, incarnation } = stamp;
        let header = FrameHeader {
            kind,
            compressed: false,
            seq,
            epoch,
            generation,
            incarnation,
            payload_len: len,
            raw_len: len,
            record_count: 0,
            payload_crc,
        };
        debug_assert_eq!(header.check_lengths(), Ok(()));
        Self { header, payload }
    }

    /// Checks the payload against the header.
    pub fn verify(&self) -> Result<(), FrameError> {
        self.header.verify(&self.payload)
    }

    /// The payload decompressed: itself, or what `scratch` now holds. `scratch` never grows beyond
    /// [`MAX_RAW_PAYLOAD`].
    pub fn raw_payload<'a>(&'a self, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], FrameError> {
        let FrameHeader { kind, seq, epoch, raw_len, compressed, .. } = self.header;
        if !compressed {
            return Ok(&self.payload);
        }
        self.header.check_lengths()?;
        scratch.resize(raw_len as usize, 0);
        match lz4_flex::block::decompress_into(&self.payload, scratch) {
            Ok(len) if len == scratch.len() => Ok(scratch),
            _ => Err(FrameError::Decompress { kind, epoch, seq, raw_len }),
        }
    }

    /// Appends header and payload to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        out.reserve(HEADER_LEN + self.payload.len());
        out.extend_from_slice(&self.header.encode());
        out.extend_from_slice(&self.payload);
    }

    /// Header and payload together, in bytes.
    #[must_use]
    pub fn wire_len(&self) -> u64 {
        self.header.wire_len()
    }
}

fn array<const N: usize>(bytes: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

fn u32_at(bytes: &[u8; HEADER_LEN], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn u64_at(bytes: &[u8; HEADER_LEN], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

#[cfg(test)]
mod tests;
