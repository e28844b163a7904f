//! What the tests of several modules build on.

use ftdm_units::{Extent, Sector, Sectors};

use crate::epoch::{EpochHeader, EpochSummary};
use crate::epoch_encoder::EpochEncoder;
use crate::frame::Frame;
use crate::group::{GroupDescription, VolumeDescription};
use crate::ids::{Digest, Epoch, Generation, Incarnation, VolumeIndex, VolumeUuid};
use crate::protocol::PROTOCOL;
use crate::record::Content;
use crate::scope::Scope;

pub(crate) const INCARNATION: Incarnation = Incarnation([0xa1; 16]);

pub(crate) fn extent(start: u64, len: u64) -> Extent {
    Extent::new(Sector(start), Sectors(len)).unwrap()
}

/// A scope of these (volume, first sector, sectors).
pub(crate) fn scope(extents: &[(u16, u64, u64)]) -> Scope {
    extents.iter().map(|&(volume, start, len)| (VolumeIndex(volume), extent(start, len))).collect()
}

/// Two volumes: one of 512-byte and one of 4096-byte blocks.
pub(crate) fn group() -> GroupDescription {
    let volume = |id: u8, size, logical_block_size| VolumeDescription {
        uuid: VolumeUuid([id; 16]),
        size: Sectors(size),
        logical_block_size,
    };
    let volumes = vec![volume(1, 1 << 20, 512), volume(2, 1 << 16, 4096)];
    GroupDescription::new("vm1".parse().unwrap(), volumes).unwrap()
}

pub(crate) fn epoch_header(epoch: u64, previous: Digest) -> EpochHeader {
    EpochHeader {
        protocol: PROTOCOL,
        features_optional: 0,
        features_mandatory: 0,
        group: group(),
        incarnation: INCARNATION,
        generation: Generation { number: 3, id: [0xee; 16] },
        first_epoch: Epoch(epoch),
        last_epoch: Epoch(epoch),
        previous,
        commit_point: true,
        staged: Epoch::NONE,
    }
}

/// Bytes that lz4 cannot shrink, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    let mut word = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let words = std::iter::repeat_with(|| word().to_le_bytes());
    words.take(len.div_ceil(8)).flatten().take(len).collect()
}

/// The raw payload of a frame with one record: the second volume has the size that [`group`] says.
pub(crate) fn resize() -> Vec<u8> {
    let mut raw = vec![5, 0, 1, 0, 0, 0, 0, 0];
    raw.extend_from_slice(&(1u64 << 16).to_le_bytes());
    raw.extend_from_slice(&[0; 8]);
    raw
}

/// An epoch of `header` whose content takes about `len` bytes, in frames of at most 1 MiB.
pub(crate) fn frames_of(header: EpochHeader, len: usize) -> (Vec<Frame>, EpochSummary) {
    let seed = header.last_epoch.0;
    let mut frames = Vec::new();
    let mut sink = |frame| frames.push(frame);
    let mut encoder = EpochEncoder::new(header);
    let sectors = (len / 512) as u64;
    if sectors > 0 {
        let data = noise(seed, len / 512 * 512);
        encoder.push(VolumeIndex(0), extent(seed % 64, sectors), Content::Data(&data), &mut sink).unwrap();
    }
    let summary = encoder.finish(&mut sink);
    (frames, summary)
}
