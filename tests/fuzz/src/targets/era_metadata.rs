//! dm-era's metadata: what was written since an era.
//!
//! ```text
//! input: since u32, snapshot u64, volume u32 in sectors, block u16 in 8 sectors, blocks of the device u64,
//!        then the pieces of an image
//! ```

use std::cell::Cell;
use std::io;

use ftdm::era::delta::{self, Delta, Shape};
use ftdm::era::error::MetadataError;
use ftdm::log_writes::BlockRead;
use ftdm::table::BlockSectors;
use ftdm::units::{Era, Sectors};

use crate::image::{BLOCK, Image};
use crate::input::Input;
use crate::seeds::put_hex;
use crate::{Seed, Target, Verdict, explains, within};

pub(super) const TARGET: Target = Target { name: "era_metadata", run, seeds, max_len: 64 << 10, words: &[] };

/// Memory, whatever the device says of itself: one bit for each block that the kernel can address (0.5 MiB),
/// a window of 64 blocks, copies of the nodes on the way down two trees, and one bit for each block of the
/// volume.
fn bound(volume_blocks: u64) -> usize {
    (1 << 20) + usize::try_from(volume_blocks / 8).unwrap_or(usize::MAX)
}

struct Device {
    image: Image,
    blocks: u64,
    reads: Cell<u64>,
}

impl BlockRead for Device {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.reads.set(self.reads.get() + 1);
        assert!(offset.is_multiple_of(BLOCK as u64) && buffer.len().is_multiple_of(BLOCK));
        self.image.read_at(self.blocks, offset, buffer)
    }
}

fn run(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    let (since, snapshot) = (Era(input.u32()), input.u64());
    let volume = Sectors(input.u32().into());
    let Some(block) = BlockSectors::new(8 * u32::from(input.u16())) else { return Verdict::Refused };
    let blocks = input.u64();
    let shape = Shape { volume, block };
    let device = Device { image: Image::read(&mut input), blocks, reads: Cell::new(0) };
    let read = |since| {
        let bound = bound(block.count(volume));
        within(bound, || delta::written_since(&device, blocks, snapshot, since, shape))
    };
    let result = read(since);
    // Blank blocks are no part of anything, so a walk reaches at most the others, once, and one more.
    assert!(device.reads.get() <= device.image.len() as u64 + 1, "{} reads", device.reads.get());
    match result {
        Ok(delta) => {
            check(&delta, since, shape);
            // Less is written since later.
            if let Ok(later) = read(Era(since.0 + 1)) {
                assert_eq!(later.next, delta.next);
                let missing = later.blocks.runs().find(|(first, _)| !delta.blocks.contains(*first));
                assert_eq!(missing, None);
                assert!(later.blocks.count() <= delta.blocks.count());
            }
            Verdict::Accepted
        }
        Err(error) => {
            explains(&error, &["block ", "metadata tracks", "era "]);
            if error.is_io() {
                assert!(matches!(error, MetadataError::Block { .. }));
            }
            Verdict::Refused
        }
    }
}

fn check(delta: &Delta, since: Era, shape: Shape) {
    let blocks = shape.block.count(shape.volume);
    assert_eq!(u64::from(delta.blocks.blocks()), blocks);
    assert!(delta.next > since && delta.blocks.count() <= blocks);
    assert!(delta.array || delta.writesets > 0, "from nowhere");
    if since == Era(0) {
        assert!(delta.array && delta.blocks.count() == blocks, "everything was written since 0");
    }
    let mut end = 0;
    for extent in delta.blocks.extents(shape.block, shape.volume) {
        assert!(extent.fits(shape.volume) && extent.start().0 >= end);
        end = extent.end().0;
    }
}

/// Snapshots that a real kernel wrote, as dm-target's tests have them.
fn seeds() -> Vec<Seed> {
    let small = include_str!("../../../../dm-target/tests/era/small.golden");
    let large = include_str!("../../../../dm-target/tests/era/large.golden");
    let mut seeds = Vec::new();
    for (name, text, volume, block) in [("small", small, 12u32 << 11, 16u16), ("large", large, 1 << 21, 1)] {
        for since in [0u32, 1, 3] {
            seeds.push((format!("{name}-since-{since}"), input(text, since, volume, block)));
        }
    }
    seeds
}

fn input(text: &str, since: u32, volume: u32, block: u16) -> Vec<u8> {
    let (mut snapshot, mut blocks) = (0u64, std::collections::BTreeMap::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["snapshot", number] => snapshot = number.parse().unwrap_or(0),
            ["since" | "#", ..] => {}
            [number, offset, digits] => {
                let number: u16 = number.parse().unwrap_or(0);
                let block = blocks.entry(number).or_insert_with(|| vec![0; BLOCK]);
                put_hex(block, offset.parse().unwrap_or(0), digits);
            }
            _ => {}
        }
    }
    let device = blocks.keys().max().map_or(0, |last| u64::from(*last) + 1);
    let mut bytes = since.to_le_bytes().to_vec();
    bytes.extend_from_slice(&snapshot.to_le_bytes());
    bytes.extend_from_slice(&volume.to_le_bytes());
    bytes.extend_from_slice(&block.to_le_bytes());
    bytes.extend_from_slice(&device.to_le_bytes());
    blocks.iter().for_each(|(number, block)| Image::describe(*number, block, &mut bytes));
    bytes
}
