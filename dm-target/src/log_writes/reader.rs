//! Following a log as it grows: its headers first, its data later.
//!
//! Always holds: the log is read in order, and each entry is believed once; entries beyond the super's count are never
//! believed; what was scanned has its place in the [`EpochLog`] it went into, and its data there as soon as it was
//! fetched, which has to be before the log is wiped; a void cut loses nothing.

use std::io;

use super::BlockRead;
use super::epoch_log::{Entry, EpochLog};
use super::format::{EntryError, FormatError, HEADER, Header, LogSector, SUPER, parse_super};
use crate::block_io::AlignedBuffer;
use crate::units::{SECTOR_SIZE, Sectors};

/// Read at a time where headers are close together.
const WINDOW: usize = 64 << 10;
/// Read at once where entries are read with their data: at least, at most, and for each entry that is still to come. Most
/// writes are of a page; that more is read than they turn out to be costs a copy, that less is read one more read.
const LEAST_AHEAD: u64 = 16 << 10;
const MOST_AHEAD: u64 = 1 << 20;
const USUAL_WRITE: u64 = 4 << 10;

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
    /// Up to where the data was fetched.
    fetched: u64,
    super_block: AlignedBuffer,
    window: Window,
}

/// A part of the log that has headers.
#[derive(Debug)]
struct Window {
    buffer: AlignedBuffer,
    at: u64,
    len: usize,
    /// Bytes of data behind the header before.
    gap: u64,
}

impl Window {
    /// `unit` bytes of the log at `at`, where a header is. `end` is the log's.
    fn header(&mut self, log: &impl BlockRead, at: u64, unit: usize, end: u64) -> Result<&[u8], ReadError> {
        let known = at >= self.at && at + unit as u64 <= self.at + self.len as u64;
        if !known {
            // Where much data lies between two headers only they are read.
            let wanted = if self.gap >= WINDOW as u64 { unit } else { WINDOW };
            let len = wanted.min(span(at, end) / unit * unit);
            let part = self.buffer.bytes_mut().get_mut(..len).unwrap_or_default();
            log.read_at(at, part).map_err(|source| ReadError::Io { at, source })?;
            (self.at, self.len) = (at, len);
        }
        let from = span(self.at, at);
        Ok(&self.buffer.bytes()[from..from + unit])
    }
}

/// A part of a log whose entries were read, and whose data was not.
#[derive(Debug)]
pub struct Unfetched {
    at: u64,
    bytes: u64,
}

impl Unfetched {
    /// Appends the data to the epoch that the entries went into. What was left unfetched first has to be fetched first.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn fetch(&self, log: &impl BlockRead, epoch: &mut EpochLog) -> Result<(), ReadError> {
        let Self { at, bytes } = *self;
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        let read = epoch.arena.append(len, |done, part| log.read_at(at + done as u64, part));
        read.map_err(|source| ReadError::Io { at, source })?;
        epoch.awaited = epoch.awaited.saturating_sub(len);
        Ok(())
    }
}

impl LogReader {
    /// For a log, zeroed at its beginning, on a device of `capacity`, of a volume of `volume` whose
    /// logical block is `unit`.
    #[must_use]
    pub fn new(unit: LogSector, volume: Sectors, capacity: Sectors) -> Self {
        let next = unit.bytes().into();
        let window = Window { buffer: AlignedBuffer::new(WINDOW), at: 0, len: 0, gap: 0 };
        let super_block = AlignedBuffer::new(SUPER);
        Self { unit, volume, capacity, read: 0, next, fetched: next, super_block, window }
    }

    /// Begins again at the head of another log; what was left unfetched of the one before.
    #[must_use]
    pub fn restart(&mut self, capacity: Sectors) -> Unfetched {
        let left = self.unfetched();
        self.capacity = capacity;
        self.read = 0;
        self.next = self.unit.bytes().into();
        self.fetched = self.next;
        left
    }

    /// What was scanned and not fetched yet: to be fetched before anything else is.
    fn unfetched(&mut self) -> Unfetched {
        let at = std::mem::replace(&mut self.fetched, self.next);
        Unfetched { at, bytes: self.next - at }
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

    /// Reads all entries that the super counts into `epoch`, and their data: each byte once, many entries in one read.
    /// `on_mark` sees the text of each mark.
    ///
    /// # Errors
    /// See [`ReadError`]; entries before the bad one were read.
    pub fn follow(
        &mut self,
        log: &impl BlockRead,
        epoch: &mut EpochLog,
        mut on_mark: impl FnMut(&[u8]),
    ) -> Result<(), ReadError> {
        self.fetch(log, epoch)?;
        let counted = self.counted(log)?;
        let mut copy = Copied { base: epoch.arena.len(), from: self.next, to: self.next };
        let mut followed = Ok(());
        while followed.is_ok() && self.read < counted {
            followed = self.copy_one(log, epoch, &mut copy, counted, &mut on_mark);
        }
        // Behind the entries that are believed the log may still change.
        epoch.arena.truncate(copy.place(self.next));
        self.fetched = self.next;
        followed
    }

    /// Reads the entries that the super counts into `epoch`, without their data, for as long as `goes_on` says. Returns
    /// whether it read all of them. Allocates only if the epoch has no room for entries.
    ///
    /// # Errors
    /// See [`ReadError`]; entries before the bad one were read.
    pub fn scan(
        &mut self,
        log: &impl BlockRead,
        epoch: &mut EpochLog,
        mut on_mark: impl FnMut(&[u8]),
        mut goes_on: impl FnMut(&EpochLog) -> bool,
    ) -> Result<bool, ReadError> {
        let counted = self.counted(log)?;
        // What the window has beyond the entries that were counted before may have changed.
        (self.window.len, self.window.gap) = (0, 0);
        while self.read < counted {
            if !goes_on(epoch) {
                return Ok(false);
            }
            self.one(log, epoch, &mut on_mark)?;
        }
        Ok(true)
    }

    /// Reads the data of what was scanned.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn fetch(&mut self, log: &impl BlockRead, epoch: &mut EpochLog) -> Result<(), ReadError> {
        self.unfetched().fetch(log, epoch)
    }

    /// The next entry, of which only the header is read.
    fn one(
        &mut self,
        log: &impl BlockRead,
        epoch: &mut EpochLog,
        on_mark: &mut impl FnMut(&[u8]),
    ) -> Result<(), ReadError> {
        let unit = u64::from(self.unit.bytes());
        let (header_at, data_at, capacity) = (self.next, self.data_at()?, self.bytes());
        let index = self.read;
        let bytes = self.window.header(log, header_at, span(0, unit), capacity)?;
        let header =
            heard(bytes, self.unit, self.volume, on_mark).map_err(|what| bad(index, header_at, what))?;
        let end = self.end_of(header)?;
        let place = epoch.arena.len() + epoch.awaited + span(header_at, data_at);
        self.believe(header, end, place, epoch)?;
        epoch.awaited += span(header_at, end);
        self.window.gap = end - data_at;
        Ok(())
    }

    /// The next entry, which is read whole.
    fn copy_one(
        &mut self,
        log: &impl BlockRead,
        epoch: &mut EpochLog,
        copy: &mut Copied,
        counted: u64,
        on_mark: &mut impl FnMut(&[u8]),
    ) -> Result<(), ReadError> {
        let unit = u64::from(self.unit.bytes());
        let (data_at, capacity) = (self.data_at()?, self.bytes());
        let expected = (counted - self.read).saturating_mul(unit + USUAL_WRITE);
        let ahead =
            data_at.saturating_add(expected.clamp(LEAST_AHEAD, MOST_AHEAD)).min(capacity / unit * unit);
        copy.reach(log, epoch, data_at, ahead)?;
        let place = copy.place(data_at);
        let bytes = epoch.arena.contiguous(copy.place(self.next), span(0, unit));
        let header =
            heard(bytes, self.unit, self.volume, on_mark).map_err(|what| bad(self.read, self.next, what))?;
        let end = self.end_of(header)?;
        copy.reach(log, epoch, end, end)?;
        self.believe(header, end, place, epoch)
    }

    /// The log's size.
    fn bytes(&self) -> u64 {
        self.capacity.0.saturating_mul(SECTOR_SIZE as u64)
    }

    /// Where the data of the next entry begins: after its header.
    fn data_at(&self) -> Result<u64, ReadError> {
        let at = self.next + u64::from(self.unit.bytes());
        if at <= self.bytes() { Ok(at) } else { Err(bad(self.read, self.next, EntryError::Data).into()) }
    }

    /// Where the next entry ends, whose header this is.
    fn end_of(&self, header: Header) -> Result<u64, ReadError> {
        let data = header.data().0.saturating_mul(SECTOR_SIZE as u64);
        let end = self.data_at()?.saturating_add(data);
        if end <= self.bytes() { Ok(end) } else { Err(bad(self.read, self.next, EntryError::Data).into()) }
    }

    /// Takes the next entry into the epoch. `place` is where the arena has its data, or will have it.
    fn believe(
        &mut self,
        header: Header,
        end: u64,
        place: usize,
        epoch: &mut EpochLog,
    ) -> Result<(), ReadError> {
        match header {
            Header::Write(_) if epoch.entries.len() >= u32::MAX as usize => {
                return Err(ReadError::Entries(epoch.entries.len()));
            }
            Header::Write(extent) => epoch.entries.push(Entry { extent, data: place }),
            Header::Discard(extent) => epoch.discards.push(extent),
            Header::Empty | Header::Mark(_) => {}
        }
        self.next = end;
        self.read += 1;
        Ok(())
    }
}

/// The part of a log that the arena has from `base` on.
#[derive(Debug)]
struct Copied {
    base: usize,
    from: u64,
    to: u64,
}

impl Copied {
    /// Where the arena has byte `at` of the log.
    fn place(&self, at: u64) -> usize {
        self.base + span(self.from, at)
    }

    /// Reads on if not all before `needed` is there: then up to `ahead`.
    fn reach(
        &mut self,
        log: &impl BlockRead,
        epoch: &mut EpochLog,
        needed: u64,
        ahead: u64,
    ) -> Result<(), ReadError> {
        if needed <= self.to {
            return Ok(());
        }
        let (at, to) = (self.to, ahead.max(needed));
        let read = epoch.arena.append(span(at, to), |done, part| log.read_at(at + done as u64, part));
        read.map_err(|source| ReadError::Io { at, source })?;
        self.to = to;
        Ok(())
    }
}

/// What a header's sector says; `on_mark` gets the text of a mark.
fn heard(
    bytes: &[u8],
    unit: LogSector,
    volume: Sectors,
    on_mark: &mut impl FnMut(&[u8]),
) -> Result<Header, EntryError> {
    let header = Header::parse(bytes, unit, volume)?;
    if let Header::Mark(text) = header {
        on_mark(&bytes[HEADER..HEADER + text]);
    }
    Ok(header)
}

/// What is wrong with entry `index`, whose header is at this byte.
fn bad(index: u64, header_at: u64, what: EntryError) -> FormatError {
    FormatError::Entry { index, at: header_at / SECTOR_SIZE as u64, what }
}

/// The bytes from `from` to `to`, both places in a log that is in memory.
fn span(from: u64, to: u64) -> usize {
    usize::try_from(to - from).unwrap_or(usize::MAX)
}
