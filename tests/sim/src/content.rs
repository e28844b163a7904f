//! What a volume holds, told apart cheaply: each sector by the number of the write that made it.
//!
//! Always holds: a sector's bytes are a function of the number of the write; number 0 is zeros.

use ftdm_units::SECTOR_SIZE;

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

/// The content of a volume's image.
pub(crate) fn read(image: &Image, blocks: usize) -> Content {
    image.bytes(0, blocks * SECTOR_SIZE).chunks(SECTOR_SIZE).map(number_of).collect()
}

/// Checks every byte of a volume against what its sectors claim to be.
pub(crate) fn is_whole(image: &Image, blocks: usize, noisy: bool) -> bool {
    let mut expected = [0; SECTOR_SIZE];
    image.bytes(0, blocks * SECTOR_SIZE).chunks(SECTOR_SIZE).all(|sector| {
        fill(number_of(sector), noisy, &mut expected);
        sector == expected
    })
}
