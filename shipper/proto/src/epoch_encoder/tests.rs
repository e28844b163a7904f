use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::digest::EpochVerifier;
use crate::frame::HEADER_LEN;
use crate::ids::Digest;
use crate::record::{Record, RecordIter};
use crate::testing::{INCARNATION, epoch_header, extent, group, noise};

/// What each sector holds: `None` for unknown.
type Model = BTreeMap<(u16, u64), Option<Vec<u8>>>;

fn apply(model: &mut Model, volume: VolumeIndex, extent: Extent, content: Content<'_>) {
    for (i, sector) in (extent.start().0..extent.end().0).enumerate() {
        let value = match content {
            Content::Data(data) => Some(data[i * SECTOR_SIZE..(i + 1) * SECTOR_SIZE].to_vec()),
            Content::Zero => Some(vec![0; SECTOR_SIZE]),
            Content::Unknown => None,
        };
        model.insert((volume.0, sector), value);
    }
}

fn replay(frames: &[Frame]) -> Model {
    let (mut model, mut scratch) = (Model::new(), Vec::new());
    for frame in frames.iter().filter(|frame| frame.header.kind.carries_records()) {
        assert!(frame.payload.len() <= TARGET_RAW_PAYLOAD);
        let (kind, count) = (frame.header.kind, frame.header.record_count);
        let raw = frame.raw_payload(&mut scratch).unwrap();
        for record in RecordIter::new(raw, kind, count, &group()).unwrap() {
            let Record { volume, extent, content } = record;
            apply(&mut model, volume, extent, content);
        }
    }
    model
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_pushed_is_what_a_receiver_gets(
        pushes in prop::collection::vec((0u16..2, 0u64..500, 1u64..300, 0u8..4, any::<u64>()), 0..12),
    ) {
        let mut encoder = EpochEncoder::new(epoch_header(5, Digest([3; 32])));
        let (mut frames, mut model) = (Vec::new(), Model::new());
        let mut sink = |frame| frames.push(frame);
        for (volume, at, len, what, seed) in pushes {
            let block = group().volume(VolumeIndex(volume)).unwrap().block().0;
            let extent = extent(at * block, len * block);
            let len = bytes(extent.len());
            let data = if what == 0 { vec![5; len] } else { noise(seed, len) };
            let content = match what { 2 => Content::Zero, 3 => Content::Unknown, _ => Content::Data(&data) };
            encoder.push(VolumeIndex(volume), extent, content, &mut sink).unwrap();
            apply(&mut model, VolumeIndex(volume), extent, content);
        }
        let summary = encoder.finish(&mut sink);
        prop_assert_eq!(replay(&frames), model);
        let mut verifier = EpochVerifier::new(Digest([3; 32]));
        let (last, others) = frames.split_last().unwrap();
        for frame in others {
            prop_assert_eq!(frame.verify(), Ok(()));
            prop_assert_eq!(verifier.push(frame), Ok(None));
        }
        prop_assert_eq!(verifier.push(last), Ok(Some(summary)));
        prop_assert_eq!(summary.stored_bytes, frames.iter().map(Frame::wire_len).sum::<u64>());
    }
}

#[test]
fn a_large_extent_is_cut_into_frames_of_whole_blocks() {
    let data = noise(1, 5 << 20);
    let mut frames = Vec::new();
    let mut encoder = PlainEncoder::base(group(), 1, INCARNATION);
    let whole = extent(8, 5 << 11);
    encoder.push(VolumeIndex(1), whole, Content::Data(&data), &mut |frame| frames.push(frame)).unwrap();
    encoder.flush(&mut |frame| frames.push(frame));
    assert_eq!(frames.len(), 6);
    assert!(frames.iter().zip(0..).all(|(frame, seq)| frame.header.seq == seq));
    let mut model = Model::new();
    apply(&mut model, VolumeIndex(1), whole, Content::Data(&data));
    assert_eq!(replay(&frames), model);
}

#[test]
fn zeros_cost_a_descriptor_however_many_they_are() {
    let mut large = group().volumes().to_vec();
    large[1].size = Sectors(1 << 40);
    let mut header = epoch_header(1, Digest::ZERO);
    header.group = GroupDescription::new("vm1".parse().unwrap(), large).unwrap();
    let (mut frames, mut encoder) = (Vec::new(), EpochEncoder::new(header));
    let mut sink = |frame| frames.push(frame);
    encoder.push(VolumeIndex(1), extent(0, 1 << 34), Content::Zero, &mut sink).unwrap();
    encoder.finish(&mut sink);
    assert_eq!(frames[1].header.record_count, 5);
    assert_eq!(frames.len(), 3);
}

#[test]
fn a_bad_push_adds_nothing() {
    let (mut frames, mut encoder) = (Vec::new(), EpochEncoder::new(epoch_header(1, Digest::ZERO)));
    let mut sink = |frame| frames.push(frame);
    let bad = encoder.push(VolumeIndex(1), extent(0, 8), Content::Data(&[0; 512]), &mut sink);
    assert!(matches!(bad, Err(RecordError::DataLength { .. })));
    assert!(encoder.push(VolumeIndex(1), extent(0, 1 << 30), Content::Zero, &mut sink).is_err());
    assert!(encoder.push(VolumeIndex(9), extent(0, 8), Content::Zero, &mut sink).is_err());
    let summary = encoder.finish(&mut sink);
    assert_eq!((summary.frames, summary.raw_bytes), (1, 0));
    assert_eq!(frames.len(), 2);
}

#[test]
fn compression_is_used_where_it_helps_and_never_grows_a_frame() {
    let text: Vec<u8> = (0..1 << 20).map(|i| b"a line of a log file, mostly the same\n"[i % 38]).collect();
    let half = [noise(1, 512 << 10), vec![0; 512 << 10]].concat();
    for (data, compressed) in [(text, true), (half, true), (noise(2, 1 << 20), false)] {
        let (mut frames, mut encoder) = (Vec::new(), EpochEncoder::new(epoch_header(1, Digest::ZERO)));
        let mut sink = |frame| frames.push(frame);
        encoder.push(VolumeIndex(0), extent(0, 2048), Content::Data(&data), &mut sink).unwrap();
        let summary = encoder.finish(&mut sink);
        assert_eq!(frames[1].header.compressed, compressed);
        let overhead = frames.len() as u64 * HEADER_LEN as u64 + 1024;
        assert!(summary.stored_bytes <= summary.raw_bytes + overhead);
    }
}

#[test]
fn payloads_that_were_sent_hold_the_next_epoch() {
    let (data, buffers) = (noise(3, 2 << 20), Buffers::default());
    let mut encode = |epoch| {
        let mut frames = Vec::new();
        let mut encoder = EpochEncoder::reusing(epoch_header(epoch, Digest::ZERO), buffers.clone());
        let whole = extent(0, 4 << 10);
        encoder.push(VolumeIndex(0), whole, Content::Data(&data), &mut |frame| frames.push(frame)).unwrap();
        encoder.finish(&mut |frame| frames.push(frame));
        let large = frames.into_iter().map(|frame| frame.payload).filter(|payload| payload.len() > 64 << 10);
        let places: Vec<_> = large
            .map(|payload| {
                let place = payload.as_ptr();
                buffers.give(payload);
                place
            })
            .collect();
        assert_eq!(places.len(), 2);
        places
    };
    // What records were gathered in takes its turn as a payload.
    let known: Vec<_> = (1..5).flat_map(&mut encode).collect();
    for epoch in 5..9 {
        let places = encode(epoch);
        assert!(places.iter().all(|place| known.contains(place)), "epoch {epoch}: {places:?}, {known:?}");
    }
}
