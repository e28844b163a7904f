//! A journal on a disk that forgets: what the tests of rows and crashes share.

mod crash;
mod proofs;
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::epoch::EpochHeader;
use crate::frame::Frame;
use crate::ids::{Digest, Epoch, Incarnation};
use crate::slot::{Chosen, FIRST_SEQUENCE, SLOT_SIZE, Slot, SlotKind, encode};
use crate::testing::{INCARNATION, epoch_header, frames_of};

const JOURNAL_ID: [u8; 16] = [0x77; 16];
const SECTOR: usize = 512;

/// A disk with a volatile cache: what was not synced may be lost, sector by sector.
pub(super) struct Disk {
    /// Offsets of blocks that cannot be read.
    pub(super) bad: BTreeSet<u64>,
    durable: Vec<u8>,
    pending: BTreeMap<usize, [u8; SECTOR]>,
}

impl Disk {
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let first = usize::try_from(offset).unwrap() / SECTOR;
        for (i, sector) in bytes.chunks_exact(SECTOR).enumerate() {
            self.pending.insert(first + i, sector.try_into().unwrap());
        }
    }

    pub(super) fn sync(&mut self) {
        self.crash(|_| true);
    }

    /// Keeps those unsynced sectors that `keeps` says, and forgets the others.
    pub(super) fn crash(&mut self, mut keeps: impl FnMut(usize) -> bool) {
        for (sector, bytes) in std::mem::take(&mut self.pending) {
            if keeps(sector) {
                self.durable[sector * SECTOR..][..SECTOR].copy_from_slice(&bytes);
            }
        }
    }

    /// Changes bytes as a fault of the medium does.
    pub(super) fn strike(&mut self, offset: u64, change: impl FnOnce(&mut [u8])) {
        self.sync();
        change(&mut self.durable[usize::try_from(offset).unwrap()..][..BLOCK_LEN]);
    }
}

impl ReadAt for Disk {
    type Error = &'static str;

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        assert!(offset.is_multiple_of(BLOCK_LEN as u64) && buf.len().is_multiple_of(BLOCK_LEN));
        if self.bad.range(offset..offset + buf.len() as u64).next().is_some() {
            return Err("I/O error");
        }
        let first = usize::try_from(offset).unwrap();
        buf.copy_from_slice(&self.durable[first..first + buf.len()]);
        for (i, sector) in buf.chunks_exact_mut(SECTOR).enumerate() {
            if let Some(pending) = self.pending.get(&(first / SECTOR + i)) {
                sector.copy_from_slice(pending);
            }
        }
        Ok(())
    }
}

/// An epoch that was sealed, and its frames.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) epoch: Epoch,
    pub(super) digest: Digest,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) frames: Vec<Frame>,
}

/// A backup's journal as the daemon drives it.
pub(super) struct Journal {
    pub(super) disk: Disk,
    pub(super) sequence: u64,
    pub(super) writer: JournalWriter,
    /// Sealed and not applied.
    pub(super) sealed: Vec<Written>,
    pub(super) digest: Digest,
    pub(super) synced: Epoch,
    pub(super) next: u64,
    pub(super) incarnation: Incarnation,
}

impl Journal {
    /// A formatted journal with a ring of `blocks`.
    pub(super) fn new(blocks: u64) -> Self {
        let len = blocks * BLOCK_LEN as u64;
        let superblock = Superblock {
            ring: Ring::new(RING_START, len).unwrap(),
            ..Superblock::format(JOURNAL_ID, "vm1".parse().unwrap(), MIN_JOURNAL_LEN).unwrap()
        };
        let size = usize::try_from(RING_START + len).unwrap();
        let mut disk = Disk { bad: BTreeSet::new(), durable: vec![0; size], pending: BTreeMap::new() };
        let recovery = recover(&superblock, &mut disk);
        let (writer, digest) = (JournalWriter::new(superblock.clone(), &recovery), recovery.digest);
        let (sealed, synced) = (Vec::new(), Epoch::NONE);
        let mut journal =
            Self { disk, sequence: 0, writer, sealed, digest, synced, next: 1, incarnation: INCARNATION };
        journal.write_superblock(&superblock, true);
        assert_eq!(journal.sequence, FIRST_SEQUENCE);
        journal
    }

    /// Writes the next version to both slots, one after the other; or, not durably, to the first alone.
    pub(super) fn write_superblock(&mut self, superblock: &Superblock, durable: bool) {
        self.sequence += 1;
        let bytes = encode(self.sequence, SlotKind::JournalSuperblock, &superblock.encode()).unwrap();
        for slot in Slot::BOTH {
            self.disk.write(slot.offset(), &bytes);
            if !durable {
                return;
            }
            self.disk.sync();
        }
    }

    pub(super) fn header(&self) -> EpochHeader {
        EpochHeader {
            incarnation: self.incarnation,
            staged: self.synced,
            ..epoch_header(self.next, self.digest)
        }
    }

    /// Writes a frame to its place.
    pub(super) fn place(&mut self, frame: &Frame) -> Result<(), ReserveError> {
        let placement = self.writer.reserve(frame)?;
        if let Some(pad) = placement.pad {
            self.disk.write(pad.offset, &pad.block());
        }
        let mut bytes = Vec::new();
        encode_padded(frame, &mut bytes);
        assert_eq!(bytes.len() as u64, placement.len);
        self.disk.write(placement.offset, &bytes);
        Ok(())
    }

    /// Appends and seals an epoch of about `len` bytes. False when there is no room.
    pub(super) fn append(&mut self, len: usize) -> bool {
        let (frames, summary) = frames_of(self.header(), len);
        if frames.iter().any(|frame| self.place(frame).is_err()) {
            self.writer.drop_open();
            return false;
        }
        let (start, end) = self.writer.seal();
        let (epoch, digest) = (Epoch(self.next), summary.digest);
        self.sealed.push(Written { epoch, digest, start, end, frames });
        self.digest = summary.digest;
        self.next += 1;
        true
    }

    /// Begins an epoch of `len` bytes and leaves off after `frames` of its frames.
    pub(super) fn begin(&mut self, len: usize, frames: usize) -> Vec<Frame> {
        let (all, _) = frames_of(self.header(), len);
        for frame in &all[..frames] {
            self.place(frame).unwrap();
        }
        all
    }

    pub(super) fn sync(&mut self) {
        self.disk.sync();
        if let Some(last) = self.sealed.last() {
            self.synced = last.epoch;
            self.writer.note_synced(last.epoch);
        }
    }

    /// Applies the oldest `count` epochs; the superblock is durable when `durable`.
    pub(super) fn apply(&mut self, count: usize, durable: bool) {
        self.sync();
        let Some(last) = self.sealed.get(count.wrapping_sub(1)).cloned() else { return };
        let superblock = self.writer.superblock_after(last.end, last.epoch, last.digest);
        self.write_superblock(&superblock, durable);
        if durable {
            self.writer.advance_tail(superblock);
            self.sealed.drain(..count);
        }
    }

    pub(super) fn superblock(&mut self) -> (Superblock, Chosen) {
        let mut read = |slot: Slot| {
            let mut bytes = [0; SLOT_SIZE];
            self.disk.read_at(slot.offset(), &mut bytes).unwrap();
            bytes
        };
        let (a, b) = (read(Slot::A), read(Slot::B));
        Superblock::load(Some(&a), Some(&b), self.disk.durable.len() as u64).unwrap().unwrap()
    }

    pub(super) fn recover(&mut self) -> Recovery {
        let (superblock, _) = self.superblock();
        recover(&superblock, &mut self.disk)
    }

    /// Writes a frame to any position, as a fault or an earlier life of the device would.
    pub(super) fn put(&mut self, position: u64, frame: &Frame) {
        let mut bytes = Vec::new();
        encode_padded(frame, &mut bytes);
        let offset = self.writer.superblock().ring.offset(position);
        self.disk.write(offset, &bytes);
    }
}

#[test]
fn superblocks_come_back_and_say_what_is_wrong() {
    let superblock = Superblock::format(JOURNAL_ID, "vm1".parse().unwrap(), MIN_JOURNAL_LEN + 5000).unwrap();
    assert_eq!(superblock.ring.capacity(), MIN_JOURNAL_LEN - RING_START + 4096);
    let superblock = Superblock { incarnation: Some(INCARNATION), tail: 8192, ..superblock };
    assert_eq!(Superblock::decode(&superblock.encode()), Ok(superblock.clone()));
    let small = Superblock::format(JOURNAL_ID, "vm1".parse().unwrap(), MIN_JOURNAL_LEN - 1);
    assert_eq!(small, Err(JournalError::TooSmall(MIN_JOURNAL_LEN - 1)));
    let odd = Superblock { tail: 100, ..superblock.clone() };
    assert_eq!(Superblock::decode(&odd.encode()), Err(JournalError::Tail(100)));
    let slot = encode(1, SlotKind::JournalSuperblock, &superblock.encode()).unwrap();
    let load = |len| Superblock::load(Some(&slot), Some(&slot), len);
    let needed = superblock.ring.end();
    assert_eq!(load(needed - 1), Err(JournalError::Shrunk { needed, found: needed - 1 }));
    assert_eq!(load(needed).map(|found| found.map(|found| found.0)), Ok(Some(superblock)));
    let blank = Some(&[0; SLOT_SIZE]);
    assert_eq!(Superblock::load(blank, blank, needed), Ok(None));
}

#[test]
fn no_superblock_makes_a_scan_overflow() {
    let mut fields = crate::tlv::Writer::new();
    let at = |start: u64, len: u64| [start.to_le_bytes(), len.to_le_bytes()].concat();
    fields.field(1, &JOURNAL_ID);
    fields.field(2, b"vm1");
    fields.field(3, &at(RING_START, u64::MAX - 4095));
    assert!(Superblock::decode(&fields.finish()).is_err());
    assert_eq!(Ring::new(RING_START, u64::MAX - 4095), None);
    assert_eq!(Ring::new(RING_START, 0), None);
    assert_eq!(Ring::new(RING_START, 4095), None);
}

#[test]
fn what_is_in_use_is_never_given_away() {
    let mut journal = Journal::new(16);
    assert!(journal.append(8192) && journal.append(8192) && journal.append(8192));
    // 3 epochs of 5 blocks are in use; the next would reach the tail.
    assert_eq!(journal.writer.used(), 15 * 4096);
    let (frames, _) = frames_of(journal.header(), 8192);
    assert!(journal.place(&frames[0]).is_ok());
    assert_eq!(journal.place(&frames[1]), Err(ReserveError::Full));
    journal.writer.drop_open();
    journal.sync();
    let first = journal.sealed[0].clone();
    let superblock = journal.writer.superblock_after(first.end, first.epoch, first.digest);
    // Nothing is free before the superblock is durable.
    assert!(!journal.append(8192));
    journal.write_superblock(&superblock, true);
    journal.disk.sync();
    journal.writer.advance_tail(superblock);
    journal.sealed.remove(0);
    assert!(journal.append(8192));
    assert!(!journal.append(8192));
}

#[test]
fn an_epoch_that_can_never_fit_says_so() {
    let mut journal = Journal::new(8);
    let (frames, _) = frames_of(journal.header(), 7 * 4096);
    journal.place(&frames[0]).unwrap();
    journal.place(&frames[1]).unwrap_err();
    let too_large = ReserveError::TooLarge { epoch: Epoch(1), capacity: 8 * 4096 };
    assert_eq!(journal.place(&frames[1]), Err(too_large));
}

#[test]
fn frames_that_do_not_belong_are_not_placed() {
    let mut journal = Journal::new(64);
    let (frames, _) = frames_of(journal.header(), 8192);
    let out_of_place =
        |result: Result<(), ReserveError>| matches!(result, Err(ReserveError::OutOfPlace { .. }));
    assert!(out_of_place(journal.place(&frames[1])));
    journal.place(&frames[0]).unwrap();
    assert!(out_of_place(journal.place(&frames[0])));
    let mut other = frames[1].clone();
    other.header.incarnation = Incarnation([9; 16]);
    assert!(out_of_place(journal.place(&other)));
    journal.place(&frames[1]).unwrap();
    journal.place(&frames[2]).unwrap();
    assert!(out_of_place(journal.place(&frames[1])));
    journal.writer.seal();
    // The same epoch again is not above the last one.
    assert!(out_of_place(journal.place(&frames[0])));
}

#[test]
fn reading_an_epoch_back_notices_any_damage() {
    let mut journal = Journal::new(64);
    assert!(journal.append(8192) && journal.append(40_000));
    let ring = journal.writer.superblock().ring;
    let Written { start, end, frames, .. } = journal.sealed[1].clone();
    let read = |disk: &mut Disk| EpochFrames::new(ring, disk, start, end).collect::<Result<Vec<_>, _>>();
    assert_eq!(read(&mut journal.disk), Ok(frames));
    journal.disk.strike(ring.offset(start) + 4096, |block| block[200] ^= 1);
    assert!(matches!(read(&mut journal.disk), Err(ReadError::Frame { .. })));
    journal.disk.strike(ring.offset(start), |block| block.fill(0));
    assert_eq!(read(&mut journal.disk), Err(ReadError::Missing { position: start }));
}
