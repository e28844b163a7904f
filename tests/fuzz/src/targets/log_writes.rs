//! A log-writes log, followed while it grows.
//!
//! ```text
//! input: sector size u8 (512 << n % 4), volume u32 in sectors, entries read at first u8, entries scanned at a time u32, the log
//! ```

use std::io;

use ftdm::log_writes::BlockRead;
use ftdm::log_writes::epoch_log::{EpochLog, PIECE};
use ftdm::log_writes::format::LogSector;
use ftdm::log_writes::reader::{LogReader, ReadError};
use ftdm::units::{SECTOR_SIZE, Sectors};

use crate::input::Input;
use crate::{Seed, Target, Verdict, explains, within};

pub(super) const TARGET: Target =
    Target { name: "log_writes", run, seeds, max_len: 64 << 10, words: &["ftdm-", "-cut"] };

/// Memory for a log of `len` bytes: a copy by whole pieces, entries, each read by doubling.
fn bound(len: usize) -> usize {
    2 * PIECE + 4 * len
}

/// A log in memory.
struct Log(Vec<u8>);

impl BlockRead for Log {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)
    }
}

impl Log {
    fn counted(&self) -> Option<u64> {
        self.0.get(16..24)?.try_into().ok().map(u64::from_le_bytes)
    }

    /// The same log when fewer entries were complete.
    fn earlier(&self, entries: u64) -> Self {
        let mut bytes = self.0.clone();
        if let (Some(field), Some(now)) = (bytes.get_mut(16..24), self.counted()) {
            field.copy_from_slice(&now.min(entries).to_le_bytes());
        }
        Self(bytes)
    }

    fn capacity(&self) -> Sectors {
        Sectors((self.0.len() / SECTOR_SIZE) as u64)
    }
}

/// What a reader made of a log.
#[derive(Default)]
struct Read {
    epoch: EpochLog,
    marks: Vec<Vec<u8>>,
}

impl Read {
    fn follow(&mut self, reader: &mut LogReader, log: &Log) -> Result<(), ReadError> {
        let Self { epoch, marks } = self;
        let bound = bound(log.0.len());
        within(bound, || reader.follow(log, epoch, |mark| marks.push(mark.to_vec())))
    }

    /// The same by so many headers at a time, with the data behind them.
    fn follow_in_parts(&mut self, reader: &mut LogReader, log: &Log, part: u32) -> Result<(), ReadError> {
        let Self { epoch, marks } = self;
        loop {
            let mut rest = part;
            let goes_on = |_: &EpochLog| rest.checked_sub(1).inspect(|left| rest = *left).is_some();
            let scanned = reader.scan(log, epoch, |mark| marks.push(mark.to_vec()), goes_on);
            reader.fetch(log, epoch)?;
            if scanned? {
                return Ok(());
            }
        }
    }
}

fn run(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    let Some(unit) = LogSector::new(512 << (input.u8() % 4)) else { panic!("it is one of the four") };
    let volume = Sectors(input.u32().into());
    let (first, part) = (u64::from(input.u8()), input.u32().max(1));
    let log = Log(input.rest().to_vec());

    let mut at_once = Read::default();
    let mut reader = LogReader::new(unit, volume, log.capacity());
    let result = at_once.follow(&mut reader, &log);
    assert!(reader.consumed() <= log.capacity().max(Sectors(unit.sectors())));
    let kept = at_once.epoch.entries().len() + at_once.epoch.discards().len();
    assert!(kept as u64 <= reader.entries());
    check(&log, unit, volume, reader.entries(), &at_once);

    // Whoever follows a log while it grows reads the same.
    let mut growing = Read::default();
    let mut follower = LogReader::new(unit, volume, log.capacity());
    let earlier = growing.follow(&mut follower, &log.earlier(first));
    let later = earlier.and_then(|()| growing.follow_in_parts(&mut follower, &log, part));
    assert_eq!(growing.marks, at_once.marks);
    assert_eq!((follower.entries(), follower.consumed()), (reader.entries(), reader.consumed()));
    assert_eq!(result.is_ok(), later.is_ok());
    check(&log, unit, volume, follower.entries(), &growing);

    match result {
        Ok(()) => {
            assert_eq!(reader.has_more(&log).ok(), Some(false));
            // The log was rotated: fewer entries are no log of this reader any more.
            if reader.entries() > 0 && log.counted().is_some_and(|n| n > 0) {
                assert!(reader.has_more(&log.earlier(0)).is_err());
            }
            Verdict::of(reader.entries() > 0)
        }
        Err(error) => {
            explains(&error, &["entry ", "the log", "the epoch has more"]);
            Verdict::Refused
        }
    }
}

/// Entries, data and marks are those that the format's description gives.
fn check(log: &Log, unit: LogSector, volume: Sectors, entries: u64, read: &Read) {
    let unit_bytes = unit.bytes() as usize;
    let mut at = unit_bytes;
    let (mut found, mut marks) = (read.epoch.entries().iter(), read.marks.iter());
    let mut discards = read.epoch.discards().iter();
    for _ in 0..entries {
        let field = |n: usize| u64::from_le_bytes(std::array::from_fn(|i| log.0[at + 8 * n + i]));
        let (sector, sectors, flags, text) = (field(0), field(1), field(2), field(3));
        if flags & 8 != 0 {
            let text = usize::try_from(text).unwrap_or(usize::MAX);
            assert_eq!(marks.next().map(Vec::as_slice), Some(&log.0[at + 32..at + 32 + text]));
        } else if sectors > 0 {
            let written = if flags & 4 == 0 { found.next() } else { None };
            let extent = written.map(|entry| entry.extent).or_else(|| discards.next().copied());
            let place = extent.map(|extent| (extent.start().0, extent.len().0));
            assert_eq!(place, Some((sector * unit.sectors(), sectors * unit.sectors())));
            assert!(extent.is_some_and(|extent| extent.fits(volume)));
            if let Some(entry) = written {
                let logged: Vec<u8> = read.epoch.logged(entry).flatten().copied().collect();
                let start = at + unit_bytes;
                let len = usize::try_from(sectors).unwrap_or(0) * unit_bytes;
                assert!(logged == log.0[start..start + len], "another content");
                at += len;
            } else {
                assert!(flags & 4 != 0, "an entry is missing");
            }
        }
        at += unit_bytes;
    }
    assert!(found.next().is_none() && marks.next().is_none() && discards.next().is_none());
}

fn seeds() -> Vec<Seed> {
    let log = |shift: u8| {
        let unit = 512usize << shift;
        let mut input = vec![shift];
        input.extend_from_slice(&(1u32 << 16).to_le_bytes());
        input.push(3);
        input.extend_from_slice(&4u32.to_le_bytes());
        let mut log = vec![0; unit];
        let entries: [(u64, u64, u64, &[u8]); 7] = [
            (0, 0, 1, b""),
            (16, 2, 0, b"written"),
            (16, 1, 2, b"and again"),
            (64, 8, 4, b""),
            (0, 0, 8, b"ftdm-0123456789abcdef-1-cut"),
            (1000, 1, 18, b"late"),
            (0, 0, 8, b"ftdm-0123456789abcdef-2-cut"),
        ];
        for (sector, sectors, flags, bytes) in entries {
            let text = if flags & 8 != 0 { bytes.len() as u64 } else { 0 };
            let mut header: Vec<u8> =
                [sector, sectors, flags, text].iter().flat_map(|field| field.to_le_bytes()).collect();
            if flags & 8 != 0 {
                header.extend_from_slice(bytes);
            }
            header.resize(unit, 0);
            log.extend(header);
            if flags & 12 == 0 {
                let mut content = bytes.to_vec();
                content.resize(unit * usize::try_from(sectors).unwrap_or(0), 0x77);
                log.extend(content);
            }
        }
        for (at, field) in [(0, 0x006a_7366_7773_6872u64), (8, 1), (16, entries.len() as u64)] {
            log[at..at + 8].copy_from_slice(&field.to_le_bytes());
        }
        log[24..28].copy_from_slice(&u32::try_from(unit).unwrap_or(0).to_le_bytes());
        log.resize(log.len().max(8 << 10), 0);
        input.extend(log);
        input
    };
    vec![("512".into(), log(0)), ("4096".into(), log(3))]
}
