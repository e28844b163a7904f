//! Following a log as it grows.
//!
//! Always holds: the log is read in order and once, but for a tail that was not complete yet;
//! entries beyond the super's count are never believed; a void cut loses nothing, since what was
//! read stays in the [`EpochLog`] it went into.

use std::io;

use super::BlockRead;
use super::epoch_log::{Entry, EpochLog};
use super::format::{EntryError, FormatError, HEADER, Header, LogSector, SUPER, parse_super};
use crate::block_io::AlignedBuffer;
use crate::units::{SECTOR_SIZE, Sectors};

/// Why a log could not be followed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log device failed.
    #[error("reading the log at byte {at}: {source}")]
    Io {
        /// Where.
        at: u64,
        /// Why.
        source: io::Error,
    },
    /// Its content is not a log's.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// It holds more than memory can number.
    #[error("the epoch has more than {0} entries: cut more often")]
    Entries(usize),
}

/// The place up to which a log was read.
#[derive(Debug)]
pub struct LogReader {
    unit: LogSector,
    volume: Sectors,
    capacity: Sectors,
    /// Entries read.
    read: u64,
    /// Where the next header is, in bytes.
    next: u64,
    super_block: AlignedBuffer,
}

impl LogReader {
    /// For a log, zeroed at its beginning, on a device of `capacity`, of a volume of `volume` whose
    /// logical block is `unit`.
    #[must_use]
    pub fn new(unit: LogSector, volume: Sectors, capacity: Sectors) -> Self {
        let next = unit.bytes().into();
        Self { unit, volume, capacity, read: 0, next, super_block: AlignedBuffer::new(SUPER) }
    }

    /// Begins again at the head of another log.
    pub fn restart(&mut self, capacity: Sectors) {
        self.capacity = capacity;
        self.read = 0;
        self.next = self.unit.bytes().into();
    }

    /// How many entries were read.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.read
    }

    /// How much of the log was read, in sectors.
    #[must_use]
    pub fn consumed(&self) -> Sectors {
        Sectors(self.next / SECTOR_SIZE as u64)
    }

    /// Whether the super counts entries that were not read yet.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn has_more(&mut self, log: &impl BlockRead) -> Result<bool, ReadError> {
        Ok(self.counted(log)? > self.read)
    }

    fn counted(&mut self, log: &impl BlockRead) -> Result<u64, ReadError> {
        let block = self.super_block.bytes_mut();
        log.read_at(0, block).map_err(|source| ReadError::Io { at: 0, source })?;
        let block = block.first_chunk().ok_or(FormatError::Magic(0))?;
        let counted = parse_super(block, self.unit)?;
        if counted < self.read {
            return Err(FormatError::WentBack { before: self.read, now: counted }.into());
        }
        Ok(counted)
    }

    /// Reads all entries that the super counts into `epoch`. `allocated` is how much of the log the
    /// target had given out when its status was read last: a hint for reading much at once.
    /// `on_mark` sees the text of each mark.
    ///
    /// # Errors
    /// See [`ReadError`]; entries before the bad one were read.
    pub fn follow(
        &mut self,
        log: &impl BlockRead,
        allocated: Sectors,
        epoch: &mut EpochLog,
        mut on_mark: impl FnMut(&[u8]),
    ) -> Result<(), ReadError> {
        let counted = self.counted(log)?;
        if counted == self.read {
            return Ok(());
        }
        let base = epoch.arena.len();
        let from = self.next;
        let hint = allocated.0.min(self.capacity.0).saturating_mul(SECTOR_SIZE as u64);
        self.fetch(log, from, hint.saturating_sub(from), epoch)?;
        // Keeps `arena[base + (x - from)]` the byte `x` of the log, for all of it that was fetched.
        let result = loop {
            if self.read == counted {
                break Ok(());
            }
            if let Err(e) = self.one(log, base, from, epoch, &mut on_mark) {
                break Err(e);
            }
        };
        // What lies beyond the counted entries is read again when it is complete.
        epoch.arena.truncate(base + span(from, self.next));
        result
    }

    /// Appends `bytes` of the log from `at` on to the arena's copy of it.
    fn fetch(
        &self,
        log: &impl BlockRead,
        at: u64,
        bytes: u64,
        epoch: &mut EpochLog,
    ) -> Result<(), ReadError> {
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        let read = epoch.arena.append(len, |done, part| log.read_at(at + done as u64, part));
        read.map_err(|source| ReadError::Io { at, source })
    }

    fn one(
        &mut self,
        log: &impl BlockRead,
        base: usize,
        from: u64,
        epoch: &mut EpochLog,
        on_mark: &mut impl FnMut(&[u8]),
    ) -> Result<(), ReadError> {
        let unit = u64::from(self.unit.bytes());
        let header_at = self.next;
        let data_at = header_at + unit;
        let bad = |reader: &Self, what| FormatError::Entry {
            index: reader.read,
            at: header_at / SECTOR_SIZE as u64,
            what,
        };
        let capacity = self.capacity.0.saturating_mul(SECTOR_SIZE as u64);
        if data_at > capacity {
            return Err(bad(self, EntryError::Data).into());
        }
        self.have(log, base, from, data_at, epoch)?;
        let bytes = epoch.arena.contiguous(base + span(from, header_at), span(header_at, data_at));
        let header = Header::parse(bytes, self.unit, self.volume).map_err(|what| bad(self, what))?;
        let end = data_at.saturating_add(header.data().0.saturating_mul(SECTOR_SIZE as u64));
        if end > capacity {
            return Err(bad(self, EntryError::Data).into());
        }
        if let Header::Mark(text) = header {
            on_mark(&bytes[HEADER..HEADER + text]);
        }
        self.have(log, base, from, end, epoch)?;
        match header {
            Header::Write(_) if epoch.entries.len() >= u32::MAX as usize => {
                return Err(ReadError::Entries(epoch.entries.len()));
            }
            Header::Write(extent) => epoch.entries.push(Entry { extent, data: base + span(from, data_at) }),
            Header::Discard(extent) => epoch.discards.push(extent),
            Header::Empty | Header::Mark(_) => {}
        }
        self.next = end;
        self.read += 1;
        Ok(())
    }

    /// Makes sure that the arena's copy of the log reaches to byte `end` of it.
    fn have(
        &self,
        log: &impl BlockRead,
        base: usize,
        from: u64,
        end: u64,
        epoch: &mut EpochLog,
    ) -> Result<(), ReadError> {
        let copied = from + (epoch.arena.len() - base) as u64;
        if end > copied { self.fetch(log, copied, end - copied, epoch) } else { Ok(()) }
    }
}

/// The bytes from `from` to `to`, both places in a log that is in memory.
fn span(from: u64, to: u64) -> usize {
    usize::try_from(to - from).unwrap_or(usize::MAX)
}
