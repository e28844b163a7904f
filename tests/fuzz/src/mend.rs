//! Makes the checksums of mutated bytes right again, and, where wanted, what else follows from them: counts
//! and digests of epochs. Without it a mutation would be refused at the door.
//!
//! Always holds: the length stays, and sound bytes stay as they are. The offsets are written out here
//! once more, so that a parser is not judged by its own constants.

use sha2::{Digest as _, Sha256};
use twox_hash::XxHash3_128;

/// Bytes of a frame's header.
pub const FRAME_HEADER: usize = 128;
const EPOCH_BEGIN: u16 = 0x20;
const EPOCH_DATA: u16 = 0x21;
const EPOCH_END: u16 = 0x22;

/// The checksum at the end, over all before it: a roll map, a slot.
pub fn trailing_checksum(bytes: &mut [u8]) {
    let Some(end) = bytes.len().checked_sub(4) else { return };
    let sum = crc32c::crc32c(&bytes[..end]);
    bytes[end..].copy_from_slice(&sum.to_le_bytes());
}

/// Follows the frames of a stream or journal and mends them.
#[derive(Clone, Debug)]
pub struct Frames {
    /// Digest of the last epoch.
    digest: [u8; 32],
    /// Of the epoch that is open.
    hasher: Sha256,
    frames: u64,
    raw_bytes: u64,
    depth: Depth,
}

/// How much is mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The checksums of frames alone.
    Checksums,
    /// Also what epochs say of their frames: counts and digests.
    Digests,
}

impl Depth {
    /// Both, the shallower first.
    pub const ALL: [Self; 2] = [Self::Checksums, Self::Digests];
}

impl Frames {
    /// After the epoch of this digest.
    #[must_use]
    pub fn after(digest: [u8; 32], depth: Depth) -> Self {
        Self { digest, hasher: Sha256::new(), frames: 0, raw_bytes: 0, depth }
    }

    /// Mends the frame at the front of `bytes`. Returns its length. `None`: no whole frame is there, at
    /// most a header, which is mended too.
    pub fn mend(&mut self, bytes: &mut [u8]) -> Option<usize> {
        if bytes.len() < FRAME_HEADER {
            return None;
        }
        let (header, rest) = bytes.split_at_mut(FRAME_HEADER);
        let field = |header: &[u8], at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| header[at + i]));
        let kind = u16::from_le_bytes([header[6], header[7]]);
        let len = field(header, 56) as usize;
        let payload = rest.get_mut(..len);
        if let Some(payload) = &payload {
            let payload = crc32c::crc32c(payload);
            header[64..68].copy_from_slice(&payload.to_le_bytes());
        }
        let raw_len = field(header, 60);
        let seal = |header: &mut [u8]| {
            let sum = crc32c::crc32c(&header[..124]);
            header[124..].copy_from_slice(&sum.to_le_bytes());
        };
        let Some(payload) = payload else {
            seal(header);
            return None;
        };
        match kind {
            _ if self.depth == Depth::Checksums => {}
            EPOCH_BEGIN => {
                set_field(payload, 7, &self.digest);
                (self.hasher, self.frames, self.raw_bytes) = (Sha256::new_with_prefix(self.digest), 0, 0);
            }
            EPOCH_DATA => self.raw_bytes = self.raw_bytes.wrapping_add(raw_len.into()),
            EPOCH_END => {
                let digest = self.hasher.clone().finalize();
                set_field(payload, 1, &self.frames.to_le_bytes());
                set_field(payload, 2, &self.raw_bytes.to_le_bytes());
                set_field(payload, 3, &digest);
                self.digest.copy_from_slice(&digest);
            }
            _ => {}
        }
        let sum = crc32c::crc32c(payload);
        header[64..68].copy_from_slice(&sum.to_le_bytes());
        seal(header);
        if matches!(kind, EPOCH_BEGIN | EPOCH_DATA) {
            self.hasher.update(&*header);
            self.hasher.update(XxHash3_128::oneshot(payload).to_le_bytes());
            self.frames += 1;
        }
        Some(FRAME_HEADER + len)
    }

    /// Mends frame after frame, as they follow each other on the wire.
    pub fn mend_stream(&mut self, mut bytes: &mut [u8]) {
        while let Some(len) = self.mend(bytes) {
            bytes = &mut bytes[len..];
        }
    }
}

/// Overwrites the value of `tag` in fields, if it is there and as long as `value`.
fn set_field(fields: &mut [u8], tag: u16, value: &[u8]) {
    let mut at = 0;
    while let Some(head) = fields.get(at..at + 6) {
        let found = u16::from_le_bytes([head[0], head[1]]);
        let len = u32::from_le_bytes([head[2], head[3], head[4], head[5]]) as usize;
        let (start, end) = (at + 6, (at + 6).saturating_add(len));
        if found == tag && len == value.len() && end <= fields.len() {
            fields[start..end].copy_from_slice(value);
            return;
        }
        at = end;
        if at > fields.len() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds;
    use ftship_proto::protocol::CommitPolicy;

    #[test]
    fn sound_bytes_stay_as_they_are_and_damaged_ones_are_mended() {
        for sound in [seeds::session(CommitPolicy::Auto), seeds::golden_bytes("hello")] {
            for depth in Depth::ALL {
                let mut mended = sound.clone();
                Frames::after([0; 32], depth).mend_stream(&mut mended);
                assert!(mended == sound);
            }
            let mut damaged = sound.clone();
            (damaged[64], damaged[125]) = (damaged[64] ^ 1, !damaged[125]);
            Frames::after([0; 32], Depth::Checksums).mend_stream(&mut damaged);
            assert!(damaged == sound);
        }
        let mut map = [1, 2, 3, 0, 0, 0, 0];
        trailing_checksum(&mut map);
        assert_eq!(map[3..], crc32c::crc32c(&[1, 2, 3]).to_le_bytes());
        trailing_checksum(&mut [1]);
    }
}
