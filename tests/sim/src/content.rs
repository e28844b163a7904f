//! What a volume holds, told apart cheaply: each sector by the number of the write that made it.
//!
//! Always holds: a sector's bytes are a function of the number of the write; number 0 is zeros.

use ftdm_units::SECTOR_SIZE;
use ftship_proto::ids::VolumeIndex;

use crate::disk::Image;
use crate::random::mix;

/// The number of the write in each sector of a volume.
pub(crate) type Content = Vec<u64>;

/// The bytes of a sector that write `number` made. They do not compress when `noisy`.
pub(crate) fn fill(number: u64, noisy: bool, sector: &mut [u8]) {
    for (index, word) in sector.chunks_mut(8).enumerate() {
        let value =
            if number == 0 || index == 0 || !noisy { number } else { mix(number ^ (index as u64) << 48) };
        word.copy_from_slice(&value.to_le_bytes());
    }
}

/// The number of the write that made these bytes.
pub(crate) fn number_of(sector: &[u8]) -> u64 {
    u64::from_le_bytes(*sector.first_chunk().expect("a sector"))
}

/// How many blocks each volume of the group has. A block's place in a [`Content`] counts through all of them.
#[derive(Clone, Debug)]
pub(crate) struct Shape(pub(crate) Vec<usize>);

impl Shape {
    pub(crate) fn blocks(&self) -> usize {
        self.0.iter().sum()
    }

    /// Place of a volume's first block.
    pub(crate) fn start(&self, volume: VolumeIndex) -> usize {
        self.0[..usize::from(volume.0)].iter().sum()
    }

    /// The volume of the block at that place.
    pub(crate) fn volume_of(&self, place: usize) -> VolumeIndex {
        let indexes = (0..).map(VolumeIndex).take(self.0.len());
        indexes.take_while(|index| self.start(*index) <= place).last().unwrap_or_default()
    }

    /// The two blocks that the guest writes in turn: the first of the first volume, the last of the last one.
    pub(crate) fn pair(&self) -> [usize; 2] {
        [0, self.blocks() - 1]
    }
}

/// The content of the volumes' images.
pub(crate) fn read(images: &[&Image], shape: &Shape) -> Content {
    let whole = images.iter().zip(&shape.0);
    whole
        .flat_map(|(image, blocks)| image.bytes(0, blocks * SECTOR_SIZE).chunks(SECTOR_SIZE))
        .map(number_of)
        .collect()
}

/// Checks every byte of a volume against what its sectors claim to be.
pub(crate) fn is_whole(image: &Image, blocks: usize, noisy: bool) -> bool {
    let mut expected = [0; SECTOR_SIZE];
    image.bytes(0, blocks * SECTOR_SIZE).chunks(SECTOR_SIZE).all(|sector| {
        fill(number_of(sector), noisy, &mut expected);
        sector == expected
    })
}
