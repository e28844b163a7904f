//! A model of the device and of log-writes that may order everything the kernel may, against the fold.

use std::convert::Infallible;
use std::io;

use proptest::prelude::*;

use super::*;
use crate::log_writes::BlockRead;
use crate::log_writes::format::{DISCARD, FLUSH, FUA, LogSector, MARK, SUPER};
use crate::log_writes::reader::LogReader;

const VOLUME: u64 = 96;
const LOG: u64 = 1 << 10;
/// What the fold's replica holds where anything will do.
const UNKNOWN: u8 = 252;

/// Builds logs as the kernel does.
struct Logger {
    bytes: Vec<u8>,
    next: usize,
    entries: u64,
}

impl Logger {
    fn new() -> Self {
        Self { bytes: vec![0; usize::try_from(LOG).unwrap() * 512], next: 512, entries: 0 }
    }

    fn put(&mut self, sector: u64, sectors: u64, flags: u64, text: &[u8], data: &[u8]) {
        for (i, field) in [sector, sectors, flags, text.len() as u64].into_iter().enumerate() {
            self.bytes[self.next + i * 8..][..8].copy_from_slice(&field.to_le_bytes());
        }
        self.bytes[self.next + 32..][..text.len()].copy_from_slice(text);
        self.bytes[self.next + 512..][..data.len()].copy_from_slice(data);
        self.next += 512 + data.len();
        self.entries += 1;
        if flags & (FUA | MARK) != 0 {
            self.update_super();
        }
    }

    fn update_super(&mut self) {
        self.bytes[..8].copy_from_slice(&0x006a_7366_7773_6872u64.to_le_bytes());
        self.bytes[8..16].copy_from_slice(&1u64.to_le_bytes());
        self.bytes[16..24].copy_from_slice(&self.entries.to_le_bytes());
        self.bytes[24..28].copy_from_slice(&512u32.to_le_bytes());
    }
}

#[derive(Clone, Debug)]
struct Write {
    start: u64,
    len: u64,
    /// Every sector of the write is filled with this; 0 makes zero runs.
    fill: u8,
    discard: bool,
    /// The mark that ends a follow comes behind it.
    marked: bool,
}

fn write() -> impl Strategy<Value = Write> {
    (0..VOLUME, 1..24u64, 0..=250u8, 0..20u8, any::<bool>()).prop_map(|(start, len, fill, kind, marked)| {
        Write {
            start,
            len: len.min(VOLUME - start),
            fill: if kind == 1 { 0 } else { fill },
            discard: kind == 0,
            marked,
        }
    })
}

fn covers(w: &Write, sector: u64) -> bool {
    (w.start..w.start + w.len).contains(&sector)
}

/// The device after the epoch: where several writes overlap any of them may have won, sector by
/// sector; a discard never reached it.
fn device(before: &[u8], writes: &[Write], choices: &[u8]) -> Vec<u8> {
    (0..VOLUME)
        .map(|sector| {
            let covering: Vec<&Write> = writes.iter().filter(|w| !w.discard && covers(w, sector)).collect();
            let choice = usize::from(choices[usize::try_from(sector).unwrap()]);
            match covering.len() {
                0 => before[usize::try_from(sector).unwrap()],
                n => covering[choice % n].fill,
            }
        })
        .collect()
}

/// Logs the writes in the order of `writes` and reads the log as a capture does.
fn captured(writes: &[Write]) -> EpochLog {
    let mut logger = Logger::new();
    let unit = LogSector::new(512).unwrap();
    let mut reader = LogReader::new(unit, Sectors(VOLUME), Sectors(LOG));
    let mut epoch = EpochLog::default();
    let mut marks = 0;
    for w in writes {
        let data = vec![w.fill; if w.discard { 0 } else { usize::try_from(w.len).unwrap() * 512 }];
        logger.put(w.start, w.len, if w.discard { DISCARD } else { 0 }, b"", &data);
        logger.put(0, 0, FLUSH, b"", b"");
        if w.marked {
            logger.put(0, 0, MARK, b"tick", b"");
            let log = logger.bytes.clone();
            reader.follow(&log, &mut epoch, |_| marks += 1).unwrap();
        }
    }
    logger.put(0, 0, MARK, b"cut", b"");
    let (log, next) = (logger.bytes, logger.next);
    reader.follow(&log, &mut epoch, |text| marks += u32::from(text == b"cut") * 100).unwrap();
    assert!(marks >= 100);
    assert_eq!(reader.consumed(), Sectors((next / 512) as u64));
    let discards = writes.iter().filter(|w| w.discard).count();
    assert_eq!((epoch.entries().len(), epoch.discards().len()), (writes.len() - discards, discards));
    epoch
}

/// What a cut does in its pause, with `truth` as the device; `head` entries were sorted before it.
fn settle(epoch: &mut EpochLog, head: usize, truth: &[u8]) {
    epoch.order.clear();
    epoch.order.extend(0..u32::try_from(epoch.entries.len()).unwrap());
    let head = head.min(epoch.entries.len());
    let (first, last) = epoch.order.split_at_mut(head);
    sort(&epoch.entries, first);
    sort(&epoch.entries, last);
    find_suspects(&epoch.entries, first, last, &mut epoch.suspects);
    let mut reads = Vec::new();
    plan_reads(&mut epoch.suspects, Sectors(4), 0, &mut reads);
    assert!(reads.windows(2).all(|r| r[0].end() < r[1].start()));
    for read in reads {
        let from = read.start().0;
        epoch
            .truth
            .append(bytes(read.len()), |done, part| {
                for (i, sector) in part.chunks_mut(512).enumerate() {
                    sector.fill(truth[usize::try_from(from).unwrap() + done / 512 + i]);
                }
                Ok(())
            })
            .unwrap();
    }
    sort(&epoch.entries, &mut epoch.order);
}

fn folded(epoch: &EpochLog, before: &[u8]) -> Vec<u8> {
    let mut replica = before.to_vec();
    let mut last = Sector(0);
    let Ok(()) = fold::<Infallible>(epoch, |extent, content| {
        assert!(extent.start() >= last, "{extent} comes after sector {}", last.0);
        last = extent.end();
        for sector in extent.start().0..extent.end().0 {
            replica[usize::try_from(sector).unwrap()] = match content {
                Content::Zero => 0,
                Content::Unknown => UNKNOWN,
                Content::Data(data) => {
                    assert_eq!(data.len(), bytes(extent.len()));
                    data[bytes(Sectors(sector - extent.start().0))]
                }
            };
        }
        Ok(())
    });
    replica
}

/// What a fold that believed the order of the log would make.
fn folded_in_log_order(epoch: &EpochLog, before: &[u8]) -> Vec<u8> {
    let mut replica = before.to_vec();
    for entry in epoch.entries() {
        let mut sector = usize::try_from(entry.extent.start().0).unwrap();
        for part in epoch.logged(entry) {
            for data in part.chunks(512) {
                replica[sector] = data[0];
                sector += 1;
            }
        }
    }
    replica
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_fold_is_the_device_whatever_the_order_was(
        writes in proptest::collection::vec(write(), 0..14),
        choices in proptest::collection::vec(any::<u8>(), 96),
        head in 0..14usize,
    ) {
        let before = vec![251u8; 96];
        let after = device(&before, &writes, &choices);
        let mut epoch = captured(&writes);
        settle(&mut epoch, head, &after);
        prop_assert_eq!(folded(&epoch, &before), after);
    }

    #[test]
    fn suspects_are_exactly_what_is_written_twice(
        writes in proptest::collection::vec(write(), 0..14), head in 0..14usize,
    ) {
        let mut epoch = captured(&writes);
        settle(&mut epoch, head, &[0; 96]);
        for sector in 0..VOLUME {
            let covering: Vec<_> = writes.iter().filter(|w| !w.discard && covers(w, sector)).collect();
            let doubtful = covering.len() > 1;
            let found = epoch.suspects().iter().any(|s| (s.extent.start().0..s.extent.end().0).contains(&sector));
            prop_assert_eq!(doubtful, found, "sector {}", sector);
        }
        prop_assert!(epoch.suspects().windows(2).all(|s| s[0].extent.end() < s[1].extent.start()));
    }

    #[test]
    fn what_the_cut_discarded_is_unknown_and_nothing_else_is(
        writes in proptest::collection::vec(write(), 0..10),
        issued in proptest::collection::vec((0..VOLUME, 1..10u64), 0..8),
        head in 0..10usize,
    ) {
        let before = vec![251u8; 96];
        let after = device(&before, &writes, &[0; 96]);
        let mut epoch = captured(&writes);
        settle(&mut epoch, head, &after);
        let mut unknown = crate::discard::pending::Pending::new(64);
        unknown.add_all(issued.iter().filter_map(|(s, n)| Extent::new(Sector(*s), Sectors((*n).min(VOLUME - s)))));
        for entry in &epoch.entries {
            unknown.remove(entry.extent);
        }
        unknown.drain_into(&mut epoch.unknown);
        let replica = folded(&epoch, &before);
        for (sector, value) in (0..VOLUME).zip(replica) {
            let is_unknown = epoch.unknown().iter().any(|e| (e.start().0..e.end().0).contains(&sector));
            let at = usize::try_from(sector).unwrap();
            prop_assert_eq!(value, if is_unknown { UNKNOWN } else { after[at] }, "sector {}", sector);
        }
    }

    #[test]
    fn no_log_makes_the_reader_panic_or_leave_the_volume(
        writes in proptest::collection::vec(write(), 1..6),
        damage in proptest::collection::vec((0..8192usize, any::<u8>()), 1..8),
    ) {
        let mut logger = Logger::new();
        for w in &writes {
            logger.put(w.start, w.len, FUA, b"", &vec![w.fill; usize::try_from(w.len).unwrap() * 512]);
        }
        for (at, value) in damage {
            logger.bytes[at] = value;
        }
        let mut epoch = EpochLog::default();
        let mut reader = LogReader::new(LogSector::new(512).unwrap(), Sectors(VOLUME), Sectors(LOG));
        let _ = reader.follow(&logger.bytes, &mut epoch, |_| ());
        prop_assert!(epoch.entries().iter().all(|e| e.extent.fits(Sectors(VOLUME))));
    }
}

/// The reason for suspects: plain A, then FUA B to the same sector is logged as B, A.
#[test]
fn a_fold_in_the_order_of_the_log_is_wrong() {
    let write = |fill| Write { start: 8, len: 8, fill, discard: false, marked: false };
    let (a, b) = (write(1), write(2));
    let before = vec![251u8; 96];
    let mut after = before.clone();
    after[8..16].fill(b.fill);
    let mut epoch = captured(&[b, a]);
    settle(&mut epoch, 1, &after);
    assert_eq!(folded(&epoch, &before), after);
    assert_ne!(folded_in_log_order(&epoch, &before), after);
}

#[test]
fn entries_beyond_the_super_are_not_believed() {
    let mut logger = Logger::new();
    logger.put(0, 1, FUA, b"", &[1; 512]);
    logger.put(8, 1, 0, b"", &[2; 512]);
    let unit = LogSector::new(512).unwrap();
    let mut reader = LogReader::new(unit, Sectors(VOLUME), Sectors(LOG));
    let mut epoch = EpochLog::default();
    let log = logger.bytes.clone();
    reader.follow(&log, &mut epoch, |_| ()).unwrap();
    assert_eq!(epoch.entries().len(), 1);
    assert!(!reader.has_more(&log).unwrap());
    logger.update_super();
    reader.follow(&logger.bytes, &mut epoch, |_| ()).unwrap();
    assert_eq!(epoch.entries().len(), 2);
    assert_eq!(reader.consumed(), Sectors(5));
}

#[test]
fn zeroes_are_found_in_whole_aligned_granules_only() {
    let mut logger = Logger::new();
    logger.put(4, 20, 0, b"", &[0; 20 * 512]);
    logger.put(0, 0, MARK, b"", b"");
    let unit = LogSector::new(512).unwrap();
    let mut reader = LogReader::new(unit, Sectors(VOLUME), Sectors(LOG));
    let mut epoch = EpochLog::default();
    reader.follow(&logger.bytes, &mut epoch, |_| ()).unwrap();
    settle(&mut epoch, 0, &[0; 96]);
    let mut pieces = Vec::new();
    let Ok(()) = fold::<Infallible>(&epoch, |extent, content| {
        pieces.push((extent.start().0, extent.end().0, content == Content::Zero));
        Ok(())
    });
    assert_eq!(pieces, [(4, 8, false), (8, 24, true)]);
}

#[test]
fn a_log_that_lost_entries_or_changed_its_form_is_refused() {
    let unit = LogSector::new(512).unwrap();
    let mut reader = LogReader::new(unit, Sectors(VOLUME), Sectors(LOG));
    let mut epoch = EpochLog::default();
    let mut logger = Logger::new();
    logger.put(0, 1, FUA, b"", &[1; 512]);
    reader.follow(&logger.bytes, &mut epoch, |_| ()).unwrap();
    assert!(reader.has_more(&vec![0; SUPER]).is_err());
    logger.bytes[0] = 0;
    assert!(reader.has_more(&logger.bytes).is_err());
}

/// A log that counts what is read of it, in bytes and in reads.
struct Counted(Vec<u8>, std::cell::Cell<usize>, std::cell::Cell<usize>);

impl Counted {
    fn new(bytes: Vec<u8>) -> Self {
        Self(bytes, std::cell::Cell::new(0), std::cell::Cell::new(0))
    }
}

impl BlockRead for Counted {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.1.set(self.1.get() + buffer.len());
        self.2.set(self.2.get() + 1);
        self.0.read_at(offset, buffer)
    }
}

#[test]
fn while_the_volume_runs_each_byte_of_the_log_is_read_once_and_many_entries_at_a_time() {
    let mut logger = Logger { bytes: vec![0; 8 << 20], next: 512, entries: 0 };
    for n in 0..512 {
        logger.put(n * 8, 8, FUA, b"", &vec![u8::try_from(n % 251).unwrap(); 4096]);
    }
    let written = logger.next;
    let unit = LogSector::new(512).unwrap();
    let mut reader = LogReader::new(unit, Sectors(1 << 14), Sectors(1 << 14));
    let mut epoch = EpochLog::default();
    let log = Counted::new(logger.bytes);
    reader.follow(&log, &mut epoch, |_| ()).unwrap();
    assert_eq!((epoch.entries().len(), epoch.bytes()), (512, written - 512));
    assert!(log.1.get() < written + (64 << 10), "{} bytes were read of {written}", log.1.get());
    assert!(log.2.get() <= 8, "{} reads", log.2.get());
    for (entry, n) in epoch.entries().iter().zip(0..) {
        let fill = u8::try_from(n % 251).unwrap();
        assert!(epoch.logged(entry).flatten().all(|byte| *byte == fill), "{}", entry.extent);
    }
}

#[test]
fn what_is_read_in_a_pause_does_not_grow_with_the_data_in_flight() {
    let mut logger = Logger { bytes: vec![0; 8 << 20], next: 512, entries: 0 };
    for n in 0..6u8 {
        logger.put(0, 2048, FUA, b"", &vec![n + 1; 1 << 20]);
    }
    let unit = LogSector::new(512).unwrap();
    let mut reader = LogReader::new(unit, Sectors(1 << 14), Sectors(1 << 14));
    let mut epoch = EpochLog::default();
    let log = Counted::new(logger.bytes);
    assert!(reader.scan(&log, &mut epoch, |_| (), |_| true).unwrap());
    assert!(log.1.get() < 256 << 10, "{} bytes were read", log.1.get());
    assert_eq!(epoch.bytes(), 6 * ((1 << 20) + 512));
    reader.fetch(&log, &mut epoch).unwrap();
    for (entry, n) in epoch.entries().iter().zip(1..) {
        assert!(epoch.logged(entry).flatten().all(|byte| *byte == n), "{}", entry.extent);
    }
}
