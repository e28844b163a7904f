use proptest::prelude::*;

use super::*;
use crate::testing::{extent, group, noise};

type Owned = (VolumeIndex, Extent, Option<Vec<u8>>);

/// Sorted, non-overlapping records: data, or zeros where there is none.
fn records() -> impl Strategy<Value = Vec<Owned>> {
    let step = (0u64..40, 1u64..12, any::<bool>(), any::<u64>());
    (prop::collection::vec(step, 0..20), 0usize..20).prop_map(|(steps, switch)| {
        let (mut volume, mut block, mut at, mut records) = (0, 1, 0, Vec::new());
        for (i, (gap, len, is_data, seed)) in steps.into_iter().enumerate() {
            if i == switch {
                (volume, block, at) = (1, 8, 0);
            }
            let extent = extent((at + gap) * block, len * block);
            at += gap + len;
            let data = is_data.then(|| noise(seed, usize::try_from(extent.len().0).unwrap() * SECTOR_SIZE));
            records.push((VolumeIndex(volume), extent, data));
        }
        records
    })
}

fn build(records: &[Owned]) -> (Vec<u8>, u32) {
    let mut builder = RecordBuilder::new(FrameKind::EpochData);
    for (volume, extent, data) in records {
        let content = data.as_ref().map_or(Content::Zero, |data| Content::Data(data));
        builder.push(&group(), *volume, *extent, content).unwrap();
    }
    let mut raw = Vec::new();
    let count = builder.take(&mut raw);
    (raw, count)
}

fn parse(raw: &[u8], count: u32) -> Result<Vec<Record<'_>>, RecordError> {
    RecordIter::new(raw, FrameKind::EpochData, count, &group()).map(Iterator::collect)
}

proptest! {
    #[test]
    fn records_come_back_as_they_went(records in records()) {
        let (raw, count) = build(&records);
        let parsed = parse(&raw, count).unwrap();
        prop_assert_eq!(parsed.len(), records.len());
        for (record, (volume, extent, data)) in parsed.into_iter().zip(&records) {
            let content = data.as_ref().map_or(Content::Zero, |data| Content::Data(data));
            prop_assert_eq!(record, Record { volume: *volume, extent: *extent, content });
        }
    }

    #[test]
    fn any_cut_or_wrong_count_is_an_error(records in records(), cut in 1usize..5000, off in 1u32..5) {
        let (raw, count) = build(&records);
        if cut <= raw.len() {
            prop_assert!(parse(&raw[..raw.len() - cut], count).is_err());
        }
        prop_assert!(parse(&raw, count + off).is_err() || raw.is_empty());
        // With fewer descriptors the rest would be data that nobody needs.
        prop_assert!(off > count || parse(&raw, count - off).is_err());
    }

    #[test]
    fn whatever_is_accepted_is_within_the_group(mut raw in prop::collection::vec(any::<u8>(), 0..200), count in 0u32..9) {
        // Make it likely that the descriptors are sound.
        let limit = raw.len().min(count as usize * DESCRIPTOR_LEN);
        for descriptor in raw[..limit].chunks_mut(DESCRIPTOR_LEN) {
            for (i, byte) in descriptor.iter_mut().enumerate() {
                *byte &= [3, 0, 1, 0, 0x1f, 0, 0, 0, 0xff, 3, 0, 0, 0, 0, 0, 0].get(i).copied().unwrap_or(0);
            }
        }
        let described = group();
        for Record { volume, extent, .. } in parse(&raw, count).into_iter().flatten() {
            prop_assert!(described.volume(volume).unwrap().holds(extent));
        }
    }
}

#[test]
fn what_does_not_lie_on_a_volume_is_refused() {
    let mut builder = RecordBuilder::new(FrameKind::EpochData);
    let mut zero = |volume, extent| builder.push(&group(), VolumeIndex(volume), extent, Content::Zero);
    assert!(matches!(zero(2, extent(0, 8)), Err(RecordError::Volume { .. })));
    assert!(matches!(zero(0, extent(1 << 20, 8)), Err(RecordError::Extent { .. })));
    assert!(matches!(zero(0, extent((1 << 20) - 4, 8)), Err(RecordError::Extent { .. })));
    assert!(matches!(zero(1, extent(4, 8)), Err(RecordError::Extent { .. })));
    assert!(matches!(zero(1, extent(8, 4)), Err(RecordError::Extent { .. })));
    assert_eq!(zero(1, extent(8, 8)), Ok(()));
    assert!(matches!(zero(1, extent(8, 8)), Err(RecordError::Order { index: 1 })));
    assert!(matches!(zero(0, extent(800, 8)), Err(RecordError::Order { index: 1 })));
    assert_eq!(builder.count(), 1);
}

#[test]
fn data_must_be_as_long_as_its_extent_and_fit_the_frame() {
    let mut builder = RecordBuilder::new(FrameKind::EpochData);
    let mut data = |extent, len| builder.push(&group(), VolumeIndex(0), extent, Content::Data(&vec![1; len]));
    assert!(matches!(data(extent(0, 2), 1023), Err(RecordError::DataLength { needed: 1024, found: 1023 })));
    assert!(matches!(data(extent(0, 4096), MAX_RAW_PAYLOAD), Err(RecordError::Full { .. })));
    assert_eq!(data(extent(0, 4095), MAX_RAW_PAYLOAD - 512), Ok(()));
    assert!(matches!(data(extent(5000, 1), 512), Err(RecordError::Full { .. })));
}

#[test]
fn frames_hold_only_their_kinds_of_records() {
    let mut base = RecordBuilder::new(FrameKind::BaseData);
    let unknown = base.push(&group(), VolumeIndex(0), extent(0, 1), Content::Unknown);
    assert!(matches!(unknown, Err(RecordError::Kind { kind: 4, .. })));
    base.push(&group(), VolumeIndex(0), extent(0, 1), Content::Data(&[9; 512])).unwrap();
    let mut raw = Vec::new();
    let count = base.take(&mut raw);
    assert!(RecordIter::new(&raw, FrameKind::BaseData, count, &group()).is_ok());
    let wrong = RecordIter::new(&raw, FrameKind::EpochData, count, &group()).unwrap_err();
    assert_eq!(wrong, RecordError::Kind { index: 0, kind: 1, frame: FrameKind::EpochData });
}

#[test]
fn a_resize_is_refused_as_one_in_every_frame() {
    for kind in [FrameKind::EpochData, FrameKind::BaseData, FrameKind::Differs] {
        let raw = crate::testing::resize();
        assert_eq!(RecordIter::new(&raw, kind, 1, &group()).unwrap_err(), RecordError::Resize { index: 0 });
    }
}

#[test]
fn reserved_bytes_must_be_zero() {
    let (raw, count) = build(&[(VolumeIndex(0), extent(0, 1), None)]);
    for at in [1].into_iter().chain(16..24) {
        let mut changed = raw.clone();
        changed[at] = 1;
        assert_eq!(parse(&changed, count), Err(RecordError::Reserved { index: 0 }));
    }
}
