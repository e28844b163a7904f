//! What every block of dm's persistent data is made of: little-endian numbers, and its checksum.
//!
//! Always holds: callers pass a block and a place within it.

/// The checksum of dm's persistent-data blocks: crc32c without the final inversion, salted.
pub(crate) fn checksum(body: &[u8], salt: u32) -> u32 {
    !crc32c::crc32c(body) ^ salt
}

pub(crate) fn u32_at(block: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&block[at..at + 4]);
    u32::from_le_bytes(bytes)
}

pub(crate) fn u64_at(block: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&block[at..at + 8]);
    u64::from_le_bytes(bytes)
}
