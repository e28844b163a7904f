//! The on-disk form of a log-writes log.
//!
//! Always holds: parsing never panics and never believes a field that contradicts the log or volume.
//!
//! ```text
//! super, at byte 0                     entry header, one sector        (little endian)
//!   0  magic u64  0x6a736677736872       0  sector u64       of the volume
//!   8  version u64  1                    8  sectors u64
//!  16  entries u64                      16  flags u64
//!  24  sector size u32                  24  data length u64  of a mark's text
//! ```
//! A header is followed by its data; a discard has none, and a mark's text stands in the header's
//! own sector, behind it. Positions, lengths and the place of the first header count sectors of the
//! super's sector size.
//! Source: `dm-log-writes.c` of the kernel.

use crate::units::{Extent, SECTOR_SIZE, Sector, Sectors};

/// Bytes of the super that are read: any logical block fits.
pub const SUPER: usize = 4096;
pub(crate) const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
/// Bytes of an entry header before a mark's text.
pub const HEADER: usize = 32;

/// The write carried a flush before it, or was nothing but one.
pub const FLUSH: u64 = 1;
/// The write was durable when it completed.
pub const FUA: u64 = 2;
/// No data: the extent was discarded.
pub const DISCARD: u64 = 4;
/// Not a write: a text that was sent to the target.
pub const MARK: u64 = 8;
/// The writer called it metadata.
pub const METADATA: u64 = 16;
const KNOWN: u64 = FLUSH | FUA | DISCARD | MARK | METADATA;

/// A sector size that log-writes can have been set up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSector(u32);

impl LogSector {
    /// `None` unless `bytes` is a logical block size between 512 and 4096.
    #[must_use]
    pub fn new(bytes: u32) -> Option<Self> {
        matches!(bytes, 512 | 1024 | 2048 | 4096).then_some(Self(bytes))
    }

    /// In bytes.
    #[must_use]
    pub fn bytes(self) -> u32 {
        self.0
    }

    /// How many 512-byte sectors one is.
    #[must_use]
    pub fn sectors(self) -> u64 {
        u64::from(self.0) / SECTOR_SIZE as u64
    }
}

/// What is wrong with a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Not a super of log-writes.
    #[error("the log's super has magic {0:#x} instead of {MAGIC:#x}")]
    Magic(u64),
    /// Of another version.
    #[error("the log has version {0}: only version {VERSION} is known")]
    Version(u64),
    /// The super's sector size is not the volume's.
    #[error("the log counts sectors of {found} bytes, the volume's are {expected}")]
    SectorSize {
        /// In the super.
        found: u32,
        /// Of the volume.
        expected: u32,
    },
    /// Fewer entries than were there before.
    #[error("the log went back from {before} entries to {now}")]
    WentBack {
        /// Counted before.
        before: u64,
        /// Counted now.
        now: u64,
    },
    /// A header that cannot be.
    #[error("entry {index} at sector {at} of the log: {what}")]
    Entry {
        /// Number of the entry, from 0.
        index: u64,
        /// Where its header is, in 512-byte sectors.
        at: u64,
        /// What is wrong.
        what: EntryError,
    },
}

/// What is wrong with one entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// A flag that no known kernel sets.
    #[error("flags {0:#x} are not known")]
    Flags(u64),
    /// Beyond the volume.
    #[error("it writes {sectors} sectors at {sector}, beyond the volume's end")]
    Beyond {
        /// Position, in sectors of the log.
        sector: u64,
        /// Length, in sectors of the log.
        sectors: u64,
    },
    /// Beyond the log.
    #[error("its data ends beyond the log")]
    Data,
    /// A mark that has sectors, or more text than fits its sector.
    #[error("it is a mark of {sectors} sectors and {text} bytes")]
    Mark {
        /// Its sectors.
        sectors: u64,
        /// Its text's length.
        text: u64,
    },
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

/// The number of entries that are complete, from the super. 0 while none was written yet (the super
/// of a new log is all zero).
///
/// # Errors
/// When it is something else than a log of this sector size.
pub fn parse_super(block: &[u8; SUPER], sector: LogSector) -> Result<u64, FormatError> {
    let (magic, version, entries) = (u64_at(block, 0), u64_at(block, 8), u64_at(block, 16));
    if magic == 0 && version == 0 && entries == 0 {
        return Ok(0);
    }
    if magic != MAGIC {
        return Err(FormatError::Magic(magic));
    }
    if version != VERSION {
        return Err(FormatError::Version(version));
    }
    let found = u32::from_le_bytes([block[24], block[25], block[26], block[27]]);
    if found != sector.bytes() {
        return Err(FormatError::SectorSize { found, expected: sector.bytes() });
    }
    Ok(entries)
}

/// What one entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Data of this extent follows.
    Write(Extent),
    /// This extent was discarded; no data follows.
    Discard(Extent),
    /// A flush without data.
    Empty,
    /// A mark with this many bytes of text in the header's sector.
    Mark(usize),
}

impl Header {
    /// Parses a header's sector, `bytes`, for a volume of `volume`.
    ///
    /// # Errors
    /// See [`EntryError`].
    pub fn parse(bytes: &[u8], unit: LogSector, volume: Sectors) -> Result<Self, EntryError> {
        let (sector, sectors) = (u64_at(bytes, 0), u64_at(bytes, 8));
        let (flags, text) = (u64_at(bytes, 16), u64_at(bytes, 24));
        if flags & !KNOWN != 0 {
            return Err(EntryError::Flags(flags));
        }
        if flags & MARK != 0 {
            let fits = usize::try_from(text).ok().filter(|n| *n <= bytes.len().saturating_sub(HEADER));
            return match fits {
                Some(text) if sectors == 0 => Ok(Self::Mark(text)),
                _ => Err(EntryError::Mark { sectors, text }),
            };
        }
        if sectors == 0 {
            return Ok(Self::Empty);
        }
        let beyond = EntryError::Beyond { sector, sectors };
        let start = sector.checked_mul(unit.sectors());
        let len = sectors.checked_mul(unit.sectors());
        let extent = start
            .zip(len)
            .and_then(|(start, len)| Extent::new(Sector(start), Sectors(len)))
            .filter(|extent| extent.fits(volume))
            .ok_or(beyond)?;
        Ok(if flags & DISCARD != 0 { Self::Discard(extent) } else { Self::Write(extent) })
    }

    /// Data that follows the header, in 512-byte sectors.
    #[must_use]
    pub fn data(self) -> Sectors {
        match self {
            Self::Write(extent) => extent.len(),
            Self::Discard(_) | Self::Empty | Self::Mark(_) => Sectors(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(sector: u64, sectors: u64, flags: u64, text: u64) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        for (i, field) in [sector, sectors, flags, text].into_iter().enumerate() {
            bytes[i * 8..i * 8 + 8].copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn headers_are_judged() {
        let unit = LogSector::new(512).unwrap();
        let parse = |h: Vec<u8>| Header::parse(&h, unit, Sectors(100));
        let extent = Extent::new(Sector(92), Sectors(8)).unwrap();
        assert_eq!(parse(header(92, 8, METADATA | FUA, 0)), Ok(Header::Write(extent)));
        assert_eq!(parse(header(92, 8, DISCARD, 0)), Ok(Header::Discard(extent)));
        assert_eq!(parse(header(0, 0, FLUSH | FUA | METADATA, 0)), Ok(Header::Empty));
        assert_eq!(parse(header(0, 0, MARK, 480)), Ok(Header::Mark(480)));
        assert!(matches!(parse(header(0, 0, MARK, 481)), Err(EntryError::Mark { .. })));
        assert!(matches!(parse(header(0, 1, MARK, 4)), Err(EntryError::Mark { .. })));
        assert!(matches!(parse(header(93, 8, 0, 0)), Err(EntryError::Beyond { .. })));
        assert!(matches!(parse(header(u64::MAX, 8, 0, 0)), Err(EntryError::Beyond { .. })));
        assert!(matches!(parse(header(0, 8, 32, 0)), Err(EntryError::Flags(32))));
    }

    #[test]
    fn four_kibibyte_sectors_count_eightfold() {
        let unit = LogSector::new(4096).unwrap();
        let extent = Extent::new(Sector(8), Sectors(16)).unwrap();
        assert_eq!(Header::parse(&header(1, 2, 0, 0), unit, Sectors(24)), Ok(Header::Write(extent)));
        assert!(Header::parse(&header(2, 2, 0, 0), unit, Sectors(24)).is_err());
    }

    #[test]
    fn only_an_empty_super_or_this_logs_own_is_taken() {
        let unit = LogSector::new(512).unwrap();
        let mut block = [0; SUPER];
        assert_eq!(parse_super(&block, unit), Ok(0));
        block[..8].copy_from_slice(&MAGIC.to_le_bytes());
        assert_eq!(parse_super(&block, unit), Err(FormatError::Version(0)));
        block[8] = 1;
        block[16] = 9;
        assert!(matches!(parse_super(&block, unit), Err(FormatError::SectorSize { found: 0, .. })));
        block[25] = 2;
        assert_eq!(parse_super(&block, unit), Ok(9));
        block[0] ^= 1;
        assert!(matches!(parse_super(&block, unit), Err(FormatError::Magic(_))));
    }

    proptest! {
        #[test]
        fn no_header_panics_or_leaves_the_volume(
            bytes in proptest::collection::vec(any::<u8>(), 512), flags in 0u64..32, small in any::<bool>()
        ) {
            let mut bytes = bytes;
            bytes[16..24].copy_from_slice(&flags.to_le_bytes());
            if small {
                bytes[2..8].fill(0);
                bytes[10..16].fill(0);
            }
            if let Ok(Header::Write(e) | Header::Discard(e)) =
                Header::parse(&bytes, LogSector::new(512).unwrap(), Sectors(1 << 16))
            {
                prop_assert!(e.fits(Sectors(1 << 16)));
            }
        }
    }
}
