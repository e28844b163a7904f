//! A journal found at a start: superblock and ring from bytes, scanned, read back, written on.
//!
//! ```text
//! input: length of the superblock's body u16, the body, then the pieces of an image of the ring
//! ```

use std::convert::Infallible;

use ftship_proto::frame::FrameKind;
use ftship_proto::ids::{Digest, Epoch};
use ftship_proto::journal::{
    EndClass, EpochFrames, JournalWriter, Placement, RING_START, ReadAt, Recovery, Ring, SealedEpoch,
    Superblock, encode_padded, recover,
};
use ftship_proto::slot::{SlotKind, encode};
use sha2::{Digest as _, Sha256};
use twox_hash::XxHash3_128;

use crate::image::{BLOCK, Image};
use crate::input::Input;
use crate::mend::{Depth, FRAME_HEADER, Frames};
use crate::{Seed, Target, Verdict, explains, seeds, within};

pub(super) const TARGET: Target =
    Target { name: "recovery", run, seeds, max_len: 64 << 10, words: &["FTDM\u{1}\0"] };

/// Most blocks of a ring here.
const RING_BLOCKS: u64 = 256;

/// Memory for any journal of 1 MiB: what is read at once, grown by doubling, a frame, and the sealed epochs.
/// In general it is 3 MiB more and does not depend on the journal's size.
const BOUND: usize = 4 << 20;

/// A ring in memory; what lies before it is not read.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    ring: Ring,
    bytes: Vec<u8>,
}

impl Disk {
    /// Zeros.
    pub(super) fn new(ring: Ring) -> Self {
        Self { ring, bytes: vec![0; usize::try_from(ring.capacity()).unwrap_or(0)] }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let at = usize::try_from(offset - (self.ring.end() - self.ring.capacity())).unwrap_or(usize::MAX);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Bytes of the ring from a position up to its end.
    fn at(&self, position: u64) -> &[u8] {
        let rest = usize::try_from(self.ring.rest(position)).unwrap_or(0);
        &self.bytes[self.bytes.len() - rest..]
    }

    /// Makes checksums, digests and counts right along the way that a scan takes.
    fn mend(&mut self, superblock: &Superblock, depth: Depth) {
        let (mut frames, mut position) = (Frames::after(superblock.tail_digest.0, depth), superblock.tail);
        while position < superblock.tail + self.ring.capacity() {
            let at = self.bytes.len() - usize::try_from(self.ring.rest(position)).unwrap_or(0);
            let frame = &mut self.bytes[at..];
            if frame[..FRAME_HEADER].iter().all(|byte| *byte == 0) {
                return;
            }
            let kind = u16::from_le_bytes([frame[6], frame[7]]);
            let Some(len) = frames.mend(frame) else { return };
            let padded = len.next_multiple_of(BLOCK) as u64;
            position +=
                if kind == FrameKind::JournalPad.number() { self.ring.rest(position) } else { padded };
        }
    }
}

impl ReadAt for Disk {
    type Error = Infallible;

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Infallible> {
        assert!(offset.is_multiple_of(BLOCK as u64) && buf.len().is_multiple_of(BLOCK));
        let start = self.ring.end() - self.ring.capacity();
        assert!(offset >= start && offset + buf.len() as u64 <= self.ring.end(), "a read beside the ring");
        let at = usize::try_from(offset - start).unwrap_or(usize::MAX);
        buf.copy_from_slice(&self.bytes[at..at + buf.len()]);
        Ok(())
    }
}

fn run(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    let len = usize::from(input.u16());
    let body = input.take(len);
    let Ok(slot) = encode(1, SlotKind::JournalSuperblock, body) else { return Verdict::Refused };
    let device_len = RING_START + RING_BLOCKS * BLOCK as u64;
    let superblock = match Superblock::load(Some(&slot), None, device_len) {
        Ok(Some((superblock, _))) => superblock,
        Ok(None) => panic!("the slot is not blank"),
        Err(error) => {
            explains(&error, &["slot", "field", "ring", "tail"]);
            return Verdict::Refused;
        }
    };
    let image = Image::read(&mut input);
    let mut disk = Disk::new(superblock.ring);
    let blocks = superblock.ring.capacity() / BLOCK as u64;
    if image.read_at(blocks, 0, &mut disk.bytes).is_err() {
        panic!("the ring has as many blocks as bytes");
    }
    let mended = Depth::ALL.map(|depth| {
        let mut mended = disk.clone();
        mended.mend(&superblock, depth);
        if mended.bytes == disk.bytes { Verdict::Refused } else { judge(&superblock, &mut mended) }
    });
    mended.into_iter().fold(judge(&superblock, &mut disk), Verdict::or)
}

fn judge(superblock: &Superblock, disk: &mut Disk) -> Verdict {
    let found = scan(superblock, disk);
    check(superblock, disk, &found);
    write_on(superblock, disk, &found);
    Verdict::of(!found.sealed.is_empty())
}

/// Scans within the bound.
pub(super) fn scan(superblock: &Superblock, disk: &mut Disk) -> Recovery {
    within(BOUND, || recover(superblock, disk))
}

/// Everything that recovery reports lies there, checked without its own readers.
fn check(superblock: &Superblock, disk: &mut Disk, found: &Recovery) {
    let (mut digest, mut floor, mut position) =
        (superblock.tail_digest, superblock.tail_epoch, superblock.tail);
    for sealed in &found.sealed {
        assert!(sealed.start >= position && sealed.end > sealed.start);
        assert!(sealed.epoch > floor && sealed.first_epoch <= sealed.epoch);
        assert_eq!(
            sealed.digest,
            own_digest(disk, sealed, digest),
            "epoch {} is not what it was",
            sealed.epoch
        );
        read_back(disk, sealed);
        (digest, floor, position) = (sealed.digest, sealed.epoch, sealed.end);
    }
    assert!(found.end >= position && found.end <= superblock.tail + superblock.ring.capacity());
    assert!(found.ended.position >= found.end && found.floor >= floor);
    assert_eq!(found.digest, digest);
    assert!(!found.ended.reason.to_string().is_empty());
    if let EndClass::Damaged { lost_through, .. } = found.ended.class {
        assert!(lost_through > found.floor, "nothing was lost");
    }
    assert_eq!(scan(superblock, disk), *found, "a second look gives the same");
}

/// Digest of the frames from an epoch's start to its end, checksums verified, by the format's description.
fn own_digest(disk: &Disk, sealed: &SealedEpoch, previous: Digest) -> Digest {
    let mut hasher = Sha256::new_with_prefix(previous.0);
    let (mut position, mut last): (_, &[u8]) = (sealed.start, &[]);
    while position < sealed.end {
        let bytes = disk.at(position);
        let field = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let kind = u16::from_le_bytes([bytes[6], bytes[7]]);
        assert_eq!((&bytes[..4], field(124)), (&b"FTDM"[..], crc32c::crc32c(&bytes[..124])));
        if kind == FrameKind::JournalPad.number() {
            position += disk.ring.rest(position);
            continue;
        }
        let len = FRAME_HEADER + field(56) as usize;
        assert_eq!(field(64), crc32c::crc32c(&bytes[FRAME_HEADER..len]));
        position += len.next_multiple_of(BLOCK) as u64;
        if position < sealed.end {
            hasher.update(&bytes[..FRAME_HEADER]);
            hasher.update(XxHash3_128::oneshot(&bytes[FRAME_HEADER..len]).to_le_bytes());
        } else {
            assert_eq!(kind, FrameKind::EpochEnd.number(), "it does not end with its last frame");
            last = &bytes[FRAME_HEADER..len];
        }
    }
    assert_eq!(position, sealed.end);
    let digest: [u8; 32] = hasher.finalize().into();
    assert!(last.windows(32).any(|named| named == digest), "its last frame names another digest");
    Digest(digest)
}

/// The epoch's frames come back for being applied.
fn read_back(disk: &mut Disk, sealed: &SealedEpoch) {
    let mut last = None;
    for frame in EpochFrames::new(disk.ring, disk, sealed.start, sealed.end) {
        let frame = frame.unwrap_or_else(|error| panic!("epoch {}: {error}", sealed.epoch));
        assert_eq!((frame.header.epoch, frame.header.incarnation), (sealed.epoch, sealed.incarnation));
        last = Some(frame.header.kind);
    }
    assert_eq!(last, Some(FrameKind::EpochEnd));
}

/// The next epoch goes where nothing is needed, and is found again.
fn write_on(superblock: &Superblock, disk: &Disk, found: &Recovery) {
    let next = found.floor.next();
    let Some((frames, digest)) = seeds::epoch(next.0, found.digest, true) else { return };
    let mut disk = disk.clone();
    let mut writer = JournalWriter::new(superblock.clone(), found);
    for frame in &frames {
        let Ok(Placement { position, offset, len, pad }) = writer.reserve(frame) else { return };
        assert!(position >= found.end && position + len <= superblock.tail + superblock.ring.capacity());
        assert_eq!(offset, superblock.ring.offset(position));
        if let Some(pad) = pad {
            disk.write(pad.offset, &pad.block());
        }
        let mut bytes = Vec::new();
        encode_padded(frame, &mut bytes);
        disk.write(offset, &bytes);
    }
    let (_, end) = writer.seal();
    let after = writer.superblock_after(end, next, digest);
    assert_eq!(Superblock::decode(&after.encode()).as_ref(), Ok(&after));
    if *superblock.group_name.as_str() != *"vm1" {
        return;
    }
    let again = scan(superblock, &mut disk);
    // What lay behind may follow on it: the seeds' epochs are all alike.
    let new = again.sealed.get(found.sealed.len()).map(|sealed| (sealed.epoch, sealed.digest));
    assert_eq!(new, Some((next, digest)), "{:?}", again.ended);
}

fn seeds() -> Vec<Seed> {
    // A ring of 40 blocks, its tail 3 blocks before the end: an epoch, a dropped one, two more, remains.
    let built = || {
        let ring = Ring::new(RING_START, 40 * BLOCK as u64)?;
        let format = Superblock::format([0x71; 16], "vm1".parse().ok()?, 16 << 20).ok()?;
        let tail = ring.capacity() * 3 - 3 * BLOCK as u64;
        let superblock = Superblock { ring, tail, incarnation: Some(seeds::INCARNATION), ..format };
        let mut disk = Disk::new(ring);
        let mut writer = JournalWriter::new(superblock.clone(), &scan(&superblock, &mut disk));
        let mut digest = Digest::ZERO;
        let mut inputs = vec![("empty".to_owned(), input(&superblock, &disk))];
        for epoch in [1, 2, 4, 5] {
            let (frames, sealed) = seeds::epoch(epoch, digest, true)?;
            for frame in &frames {
                let placement = writer.reserve(frame).ok()?;
                if let Some(pad) = placement.pad {
                    disk.write(pad.offset, &pad.block());
                }
                let mut bytes = Vec::new();
                encode_padded(frame, &mut bytes);
                disk.write(placement.offset, &bytes);
            }
            let (start, _) = writer.seal();
            if epoch == 2 {
                let marker = writer.drop_sealed(start, Epoch(3)).ok()?;
                disk.write(marker.offset, &marker.block());
            } else {
                digest = sealed;
            }
            inputs.push((format!("through-{epoch}"), input(&superblock, &disk)));
        }
        Some(inputs.split_off(1))
    };
    built().unwrap_or_default()
}

fn input(superblock: &Superblock, disk: &Disk) -> Vec<u8> {
    let body = superblock.encode();
    let mut bytes = u16::try_from(body.len()).unwrap_or(0).to_le_bytes().to_vec();
    bytes.extend(body);
    for (number, block) in (0..).zip(disk.bytes.chunks(BLOCK)) {
        Image::describe(number, block, &mut bytes);
    }
    bytes
}
