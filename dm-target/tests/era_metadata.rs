//! dm-era's metadata as the real kernel wrote it, as a model writes it, and damaged in every way: the
//! parser gives what era_invalidate gave, what the model says, or an error that names the place.
//!
//! The fixtures in `era/` are snapshots taken from a running kernel (6.1) by `tests/scenarios/era.py golden`:
//! lines `BLOCK OFFSET HEX` for what is not zero, and `since ERA FIRST+COUNT...` as era_invalidate said.

use std::collections::BTreeMap;
use std::io;

use ftdm::era::delta::{self, Delta, Shape};
use ftdm::era::error::{Fault, MetadataError};
use ftdm::log_writes::BlockRead;
use ftdm::table::BlockSectors;
use ftdm::units::{Era, Sectors};
use proptest::prelude::*;

const BLOCK: usize = 4096;
/// Salts of the checksums: superblock, btree node, array block.
const SALTS: [u32; 3] = [146_538_381, 121_107, 595_846_735];

fn checksum(block: &[u8], salt: u32) -> u32 {
    !crc32c::crc32c(&block[4..]) ^ salt
}

/// A metadata device in memory; what was never written is zero.
#[derive(Clone, Debug, Default)]
struct Image {
    blocks: BTreeMap<u64, Vec<u8>>,
    len: u64,
}

impl BlockRead for Image {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        for (index, piece) in (offset / BLOCK as u64..).zip(buffer.chunks_mut(BLOCK)) {
            if index >= self.len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match self.blocks.get(&index) {
                Some(block) => piece.copy_from_slice(block),
                None => piece.fill(0),
            }
        }
        Ok(())
    }
}

impl Image {
    fn put(&mut self, number: u64, mut block: Vec<u8>, salt: u32, number_at: usize) {
        block.resize(BLOCK, 0);
        block[number_at..number_at + 8].copy_from_slice(&number.to_le_bytes());
        let sum = checksum(&block, salt);
        block[..4].copy_from_slice(&sum.to_le_bytes());
        self.blocks.insert(number, block);
    }

    /// Changes bytes; with the checksum mended afterwards when `sealed`.
    fn change(&mut self, number: u64, at: usize, xor: &[u8], sealed: bool) {
        let Some(block) = self.blocks.get_mut(&number) else { return };
        let stored = u32::from_le_bytes(block[..4].try_into().unwrap());
        let salt = SALTS.into_iter().find(|salt| checksum(block, *salt) == stored);
        for (byte, flip) in block[at..].iter_mut().zip(xor) {
            *byte ^= flip;
        }
        if let (true, Some(salt)) = (sealed, salt) {
            let sum = checksum(block, salt);
            block[..4].copy_from_slice(&sum.to_le_bytes());
        }
    }
}

struct Golden {
    image: Image,
    snapshot: u64,
    shape: Shape,
    answers: Vec<(Era, Vec<(u32, u32)>)>,
}

impl Golden {
    fn read(text: &str, volume: u64, block: u32) -> Self {
        let shape = Shape { volume: Sectors(volume), block: BlockSectors::new(block).unwrap() };
        let mut golden = Self { image: Image::default(), snapshot: 0, shape, answers: Vec::new() };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["snapshot", block] => golden.snapshot = block.parse().unwrap(),
                ["since", era, ref runs @ ..] => {
                    let run = |run: &&str| {
                        let (first, count) = run.split_once('+').unwrap();
                        (first.parse().unwrap(), count.parse().unwrap())
                    };
                    golden.answers.push((Era(era.parse().unwrap()), runs.iter().map(run).collect()));
                }
                [number, offset, hex] => {
                    let offset: usize = offset.parse().unwrap();
                    let block = golden.image.blocks.entry(number.parse().unwrap());
                    let block = block.or_insert_with(|| vec![0; BLOCK]);
                    for (byte, pair) in block[offset..].iter_mut().zip(hex.as_bytes().chunks(2)) {
                        *byte = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
                    }
                }
                _ => panic!("{line}"),
            }
        }
        golden.image.len = golden.image.blocks.keys().max().unwrap() + 1;
        golden
    }

    fn since(&self, era: Era) -> Result<Delta, MetadataError> {
        delta::written_since(&self.image, self.image.len, self.snapshot, era, self.shape)
    }
}

fn small() -> Golden {
    Golden::read(include_str!("era/small.golden"), 12 << 11, 128)
}

fn large() -> Golden {
    Golden::read(include_str!("era/large.golden"), 1 << 21, 8)
}

#[test]
fn what_the_kernel_wrote_is_read_as_era_invalidate_reads_it() {
    for golden in [small(), large()] {
        assert!(golden.answers.len() > 4);
        let mut ways = (false, false);
        for (era, expected) in &golden.answers {
            let delta = golden.since(*era).unwrap();
            assert_eq!(&delta.blocks.runs().collect::<Vec<_>>(), expected, "since {era}");
            ways = (ways.0 || delta.array, ways.1 || delta.writesets > 0);
        }
        assert_eq!(ways, (true, true), "the array and the writesets were both needed");
    }
}

#[test]
fn the_caller_must_mean_this_volume_and_this_history() {
    let mut golden = small();
    let next = golden.since(Era(1)).unwrap().next;
    assert!(matches!(golden.since(next), Err(MetadataError::FutureEra { .. })));
    let snapshot = golden.snapshot;
    for wrong in [0, 5, golden.image.len, u64::MAX] {
        golden.snapshot = wrong;
        assert!(matches!(golden.since(Era(1)), Err(MetadataError::Block { .. })), "{wrong}");
    }
    golden.snapshot = snapshot;
    golden.shape.volume = Sectors(golden.shape.volume.0 + 128);
    assert!(matches!(golden.since(Era(1)), Err(MetadataError::Shape { .. })));
}

#[test]
fn any_changed_byte_of_a_block_that_is_read_is_noticed() {
    let golden = small();
    for (number, block) in &golden.image.blocks {
        for at in (0..BLOCK).step_by(61).chain([0, 3, 4, 8, 16, 24, 32, BLOCK - 1]) {
            let mut damaged = small();
            damaged.image.change(*number, at, &[0x40], false);
            let fault = damaged.since(Era(1));
            assert!(
                matches!(&fault, Err(MetadataError::Block { block, .. }) if block == number),
                "block {number} byte {at}: {fault:?}, it had {:#x}",
                block[at]
            );
        }
    }
}

#[test]
fn a_device_that_ends_early_or_fails_is_an_error_of_reading() {
    let golden = small();
    for (len, claimed) in [(golden.image.len / 2, golden.image.len), (0, golden.image.len)] {
        let mut golden = small();
        golden.image.len = len;
        let read = delta::written_since(&golden.image, claimed, golden.snapshot, Era(1), golden.shape);
        assert!(read.unwrap_err().is_io());
        let read = delta::written_since(&golden.image, len, golden.snapshot, Era(1), golden.shape);
        assert!(matches!(read, Err(MetadataError::Block { fault: Fault::Outside { .. }, .. })));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Also when the checksums are right, as a bug or an attacker would make them.
    #[test]
    fn no_damage_makes_it_panic_or_hang(
        changes in proptest::collection::vec(
            (any::<prop::sample::Index>(), 0..BLOCK, proptest::collection::vec(any::<u8>(), 1..9)), 1..4),
        header in any::<bool>(),
        era in 0u32..12,
    ) {
        let mut golden = small();
        let numbers: Vec<u64> = golden.image.blocks.keys().copied().collect();
        for (which, at, xor) in changes {
            let at = if header { at % 256 } else { at };
            golden.image.change(*which.get(&numbers), at, &xor, true);
        }
        match golden.since(Era(era)) {
            Ok(delta) => prop_assert!(delta.blocks.count() <= u64::from(delta.blocks.blocks())),
            Err(e) => prop_assert!(!e.to_string().is_empty()),
        }
    }

    #[test]
    fn blocks_that_change_places_are_noticed(a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let mut golden = small();
        let numbers: Vec<u64> = golden.image.blocks.keys().copied().collect();
        let (a, b) = (*a.get(&numbers), *b.get(&numbers));
        prop_assume!(a != b);
        let (first, second) = (golden.image.blocks[&a].clone(), golden.image.blocks[&b].clone());
        golden.image.blocks.insert(a, second);
        golden.image.blocks.insert(b, first);
        prop_assert!(golden.since(Era(1)).is_err());
    }
}

/// A model of what the kernel keeps, written in its format with small nodes, so that trees are high.
#[derive(Clone, Debug)]
struct Model {
    blocks: u32,
    /// Blocks written in each era from 1 on.
    eras: Vec<Vec<u32>>,
    /// So many of the first eras are digested.
    digested: usize,
    /// Entries of a node.
    fanout: usize,
}

impl Model {
    fn image(&self) -> (Image, u64) {
        let mut writer = Writer { image: Image::default(), next: 1, fanout: self.fanout };
        let mut array = vec![0u32; self.blocks as usize];
        let mut writesets = Vec::new();
        for (era, written) in (1u32..).zip(&self.eras) {
            if era as usize <= self.digested {
                written.iter().for_each(|block| array[*block as usize] = era);
                continue;
            }
            let mut words = vec![0u64; self.blocks.div_ceil(64) as usize];
            written.iter().for_each(|b| words[*b as usize / 64] |= 1 << (b % 64));
            let root = writer.array(words.iter().map(|w| w.to_le_bytes().to_vec()).collect(), 8);
            let value = [&self.blocks.to_le_bytes()[..], &root.to_le_bytes()].concat();
            writesets.push((u64::from(era), value));
        }
        let tree = writer.tree(writesets, 12);
        let array = writer.array(array.iter().map(|era| era.to_le_bytes().to_vec()).collect(), 4);
        let mut clone = vec![0u8; BLOCK];
        clone[32..40].copy_from_slice(&2_126_579_579u64.to_le_bytes());
        clone[40] = 1;
        clone[172] = 8;
        clone[176] = 8;
        clone[180..184].copy_from_slice(&self.blocks.to_le_bytes());
        clone[184..188].copy_from_slice(&self.current().0.to_le_bytes());
        clone[200..208].copy_from_slice(&tree.to_le_bytes());
        clone[208..216].copy_from_slice(&array.to_le_bytes());
        let snapshot = writer.put(clone, SALTS[0], 8);
        writer.image.len = writer.next;
        (writer.image, snapshot)
    }

    fn current(&self) -> Era {
        Era(u32::try_from(self.eras.len()).unwrap() + 1)
    }

    fn since(&self, era: Era) -> Vec<u32> {
        if era == Era(0) {
            return (0..self.blocks).collect();
        }
        let mut blocks: Vec<u32> = self.eras[era.0 as usize - 1..].concat();
        blocks.sort_unstable();
        blocks.dedup();
        blocks
    }

    fn shape(&self) -> Shape {
        let block = BlockSectors::new(8).unwrap();
        Shape { volume: Sectors(u64::from(self.blocks) * 8), block }
    }
}

struct Writer {
    image: Image,
    next: u64,
    fanout: usize,
}

impl Writer {
    fn put(&mut self, block: Vec<u8>, salt: u32, number_at: usize) -> u64 {
        let number = self.next;
        self.next += 1;
        self.image.put(number, block, salt, number_at);
        number
    }

    fn node(&mut self, leaf: bool, entries: &[(u64, Vec<u8>)], value_size: usize) -> u64 {
        let most = (BLOCK - 32) / (8 + value_size);
        let mut block = vec![0u8; BLOCK];
        let fields = [if leaf { 2 } else { 1 }, 0, 0, entries.len(), most, value_size];
        for (at, field) in (4..).step_by(4).zip(fields) {
            block[at..at + 4].copy_from_slice(&u32::try_from(field).unwrap().to_le_bytes());
        }
        for (index, (key, value)) in entries.iter().enumerate() {
            block[32 + 8 * index..][..8].copy_from_slice(&key.to_le_bytes());
            block[32 + 8 * most + value_size * index..][..value_size].copy_from_slice(value);
        }
        self.put(block, SALTS[1], 8)
    }

    fn tree(&mut self, mut entries: Vec<(u64, Vec<u8>)>, mut value_size: usize) -> u64 {
        let mut leaf = true;
        loop {
            if entries.len() <= self.fanout {
                return self.node(leaf, &entries, value_size);
            }
            let nodes: Vec<_> = entries.chunks(self.fanout).map(<[_]>::to_vec).collect();
            entries = nodes
                .iter()
                .map(|node| (node[0].0, self.node(leaf, node, value_size).to_le_bytes().to_vec()))
                .collect();
            (leaf, value_size) = (false, 8);
        }
    }

    fn array(&mut self, values: Vec<Vec<u8>>, value_size: usize) -> u64 {
        let most = (BLOCK - 24) / value_size;
        let blocks: Vec<_> = values.chunks(most).map(|values| (values.len(), values.concat())).collect();
        let mut entries = Vec::new();
        for (index, (count, bytes)) in (0u64..).zip(blocks) {
            let mut block = vec![0u8; 24];
            for (at, field) in [(4, most), (8, count), (12, value_size)] {
                block[at..at + 4].copy_from_slice(&u32::try_from(field).unwrap().to_le_bytes());
            }
            block.extend(bytes);
            let number = self.put(block, SALTS[2], 16);
            entries.push((index, number.to_le_bytes().to_vec()));
        }
        self.tree(entries, 8)
    }
}

fn model() -> impl Strategy<Value = Model> {
    (1u32..20_000, 1usize..30, 2usize..8).prop_flat_map(|(blocks, eras, fanout)| {
        let written = proptest::collection::vec(proptest::collection::vec(0..blocks, 0..40), eras);
        (written, 0..eras).prop_map(move |(eras, digested)| Model { blocks, eras, digested, fanout })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_a_model_wrote_is_read_back(model in model()) {
        let (image, snapshot) = model.image();
        for era in 0..model.current().0 {
            let delta = delta::written_since(&image, image.len, snapshot, Era(era), model.shape());
            let delta = delta.unwrap();
            let found: Vec<u32> =
                delta.blocks.runs().flat_map(|(first, count)| first..first + count).collect();
            prop_assert_eq!(found, model.since(Era(era)), "since {}", era);
            prop_assert_eq!(delta.next, model.current());
        }
    }

    #[test]
    fn a_model_with_damage_gives_a_result_or_an_error(
        model in model(),
        which in any::<prop::sample::Index>(),
        at in 0..BLOCK,
        xor in 1u8..,
    ) {
        let (mut image, snapshot) = model.image();
        let numbers: Vec<u64> = image.blocks.keys().copied().collect();
        image.change(*which.get(&numbers), at % 128, &[xor], true);
        let _ = delta::written_since(&image, image.len, snapshot, Era(1), model.shape());
    }
}

#[test]
fn a_missing_writeset_is_a_gap_and_a_cycle_is_found() {
    let model = Model { blocks: 70_000, eras: vec![vec![1], vec![2], vec![3]], digested: 1, fanout: 2 };
    let (image, snapshot) = model.image();
    let read = |image: &Image| delta::written_since(image, image.len, snapshot, Era(1), model.shape());
    assert!(read(&image).is_ok());
    // The clone names a later era than the tree: the last writeset is missing.
    let mut later = image.clone();
    later.change(snapshot, 184, &[4 ^ 5], true);
    assert!(matches!(read(&later), Err(MetadataError::Gap { before: Era(3), after: Era(5) })));
    // An internal node whose first child is itself.
    let (number, block) = image.blocks.iter().find(|(_, b)| b[4] == 1 && b[8..16] != [0; 8]).unwrap();
    let most = u32::from_le_bytes(block[20..24].try_into().unwrap()) as usize;
    let child = u64::from_le_bytes(block[32 + 8 * most..][..8].try_into().unwrap());
    let mut cyclic = image.clone();
    cyclic.change(*number, 32 + 8 * most, &(child ^ number).to_le_bytes(), true);
    assert!(
        matches!(read(&cyclic), Err(MetadataError::Block { fault: Fault::Twice, .. })),
        "{:?}",
        read(&cyclic)
    );
}
