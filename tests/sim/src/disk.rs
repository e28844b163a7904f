//! A disk with a volatile write cache.
//!
//! Always holds: only [`Disk::sync`] makes anything durable for certain. At a power cut each sector of what
//! was not synced is lost or kept by itself, so a write is torn at 512 bytes; all of it may be lost. A sync
//! that fails leaves each sector lost, kept or still waiting.

use std::convert::Infallible;

use ftdm_units::SECTOR_SIZE;
use ftship_proto::journal::ReadAt;
use ftship_proto::slot::{Found, ReadSlot, SLOT_SIZE, Slot, SlotKind, encode, read};

use crate::random::Random;

/// Bytes that exist, from this byte of the device on. What lies between regions is never touched.
#[derive(Clone, Debug)]
struct Region {
    start: u64,
    bytes: Vec<u8>,
}

/// What one party sees of a disk.
#[derive(Clone, Debug)]
pub(crate) struct Image(Vec<Region>);

impl Image {
    fn locate(&self, offset: u64, len: usize) -> (usize, std::ops::Range<usize>) {
        let fits = |region: &Region| {
            offset >= region.start && offset + len as u64 <= region.start + region.bytes.len() as u64
        };
        let index = self.0.iter().position(fits).expect("I/O stays within the device");
        let at = usize::try_from(offset - self.0[index].start).expect("small");
        (index, at..at + len)
    }

    pub(crate) fn bytes(&self, offset: u64, len: usize) -> &[u8] {
        let (index, range) = self.locate(offset, len);
        &self.0[index].bytes[range]
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let (index, range) = self.locate(offset, bytes.len());
        self.0[index].bytes[range].copy_from_slice(bytes);
    }

    /// The two slots at the start of a journal or state.
    pub(crate) fn slots(&self) -> [ReadSlot<'_>; 2] {
        Slot::BOTH.map(|slot| self.bytes(slot.offset(), SLOT_SIZE).first_chunk())
    }
}

/// The journal's pure code reads through this.
pub(crate) struct ImageReader<'a>(pub(crate) &'a Image);

impl ReadAt for ImageReader<'_> {
    type Error = Infallible;

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Infallible> {
        buf.copy_from_slice(self.0.bytes(offset, buf.len()));
        Ok(())
    }
}

/// The backup's disks.
#[derive(Debug)]
pub(crate) struct Disks {
    pub(crate) journal: Disk,
    pub(crate) state: Disk,
    pub(crate) volumes: Vec<Disk>,
}

/// What one party sees of them.
#[derive(Clone, Debug)]
pub(crate) struct Images<'a> {
    pub(crate) journal: &'a Image,
    pub(crate) state: &'a Image,
    pub(crate) volumes: Vec<&'a Image>,
}

impl Disks {
    /// What reads give.
    pub(crate) fn view(&self) -> Images<'_> {
        let volumes = self.volumes.iter().map(|volume| &volume.view).collect();
        Images { journal: &self.journal.view, state: &self.state.view, volumes }
    }

    /// What surely survives a power cut.
    pub(crate) fn durable(&self) -> Images<'_> {
        let volumes = self.volumes.iter().map(|volume| &volume.durable).collect();
        Images { journal: &self.journal.durable, state: &self.state.durable, volumes }
    }

    pub(crate) fn power_cut(&mut self, random: &mut Random) {
        for disk in [&mut self.journal, &mut self.state].into_iter().chain(&mut self.volumes) {
            disk.power_cut(random);
        }
    }
}

/// See the head of this module.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    /// What a read gives.
    pub(crate) view: Image,
    /// What surely survives a power cut.
    pub(crate) durable: Image,
    /// Written and not synced, in order, sector by sector at the latest when it matters.
    cached: Vec<(u64, Vec<u8>)>,
}

impl Disk {
    /// A disk of zeros with these regions {start, length}.
    pub(crate) fn new(regions: &[(u64, usize)]) -> Self {
        let regions = regions.iter().map(|(start, len)| Region { start: *start, bytes: vec![0; *len] });
        let view = Image(regions.collect());
        Self { durable: view.clone(), view, cached: Vec::new() }
    }

    /// Writes a version to both slots, one after the other, durably.
    pub(crate) fn write_slots(&mut self, sequence: u64, kind: SlotKind, body: &[u8]) {
        let bytes = encode(sequence, kind, body).expect("a slot holds it");
        for slot in Slot::BOTH {
            self.write(slot.offset(), &bytes);
            self.sync();
        }
    }

    /// One of two sound slots rots.
    pub(crate) fn rot_slot(&mut self, kind: SlotKind, slot: Slot) -> bool {
        let sound = |slot: Slot| {
            let bytes = self.view.bytes(slot.offset(), SLOT_SIZE).first_chunk();
            read(slot, kind, bytes).is_ok_and(|found| matches!(found, Found::Sound { .. }))
        };
        let is_rotten = Slot::BOTH.into_iter().all(sound);
        if is_rotten {
            self.corrupt(slot.offset() + 100, &[0x99; 40]);
        }
        is_rotten
    }

    /// Bytes that nobody wrote.
    pub(crate) fn corrupt(&mut self, offset: u64, bytes: &[u8]) {
        self.view.put(offset, bytes);
        self.durable.put(offset, bytes);
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.view.put(offset, bytes);
        self.cached.push((offset, bytes.to_vec()));
    }

    /// A write of which only some sectors reached the cache.
    pub(crate) fn write_torn(&mut self, offset: u64, bytes: &[u8], random: &mut Random) {
        for (at, sector) in sectors(offset, bytes) {
            if random.coin() {
                self.write(at, sector);
            }
        }
    }

    pub(crate) fn sync(&mut self) {
        for (offset, bytes) in self.cached.drain(..) {
            self.durable.put(offset, &bytes);
        }
    }

    /// A sync that reports an error.
    pub(crate) fn sync_failed(&mut self, random: &mut Random) {
        let cached = std::mem::take(&mut self.cached);
        let mode = random.below(3);
        let mut waiting = Vec::new();
        for (offset, bytes) in &cached {
            for (at, sector) in sectors(*offset, bytes) {
                match if mode == 2 { random.below(3) } else { mode } {
                    0 => {}
                    1 => self.durable.put(at, sector),
                    _ => waiting.push((at, sector.to_vec())),
                }
            }
        }
        self.view = self.durable.clone();
        for (offset, bytes) in waiting {
            self.write(offset, &bytes);
        }
    }

    pub(crate) fn power_cut(&mut self, random: &mut Random) {
        // Of one in `odds` sectors the write survives; 0: all are lost; 1: all survive.
        let odds = [0, 0, 1, 2, 2, 8][random.index(6)];
        for (offset, bytes) in std::mem::take(&mut self.cached) {
            for (at, sector) in sectors(offset, &bytes) {
                if random.once_in(odds) {
                    self.durable.put(at, sector);
                }
            }
        }
        self.view = self.durable.clone();
    }
}

fn sectors(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    (offset..).step_by(SECTOR_SIZE).zip(bytes.chunks(SECTOR_SIZE))
}
