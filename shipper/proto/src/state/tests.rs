use proptest::prelude::*;

use super::*;
use crate::generations::MAX_LINEAGE;
use crate::group::{MAX_VOLUMES, VolumeDescription};
use crate::ids::{Digest, VolumeUuid};
use crate::rolls::{MAX_ROLLS, Roll};
use crate::slot::{MAX_BODY, encode};
use crate::testing::group;
use ftdm_units::{Era, Sectors};

fn entry(number: u64) -> LineageEntry {
    let generation = Generation { number, id: [7; 16] };
    LineageEntry { generation, first_epoch: Epoch(number * 100), digest: Digest([8; 32]) }
}

/// One roll in each of `count` epochs.
fn rolls(count: u32, volumes: usize) -> RollHistory {
    let mut rolls = RollHistory::default();
    for n in 1..=count {
        rolls.push(Roll { epoch: Epoch(n.into()), at_cut: true, eras: vec![Era(n); volumes] }).unwrap();
    }
    rolls
}

/// So many changes of sizes.
fn sizes(count: u64, volumes: usize) -> SizeHistory {
    let mut sizes = SizeHistory::default();
    (1..=count).for_each(|n| sizes.note(Epoch(n * 10), vec![Sectors(n * 8); volumes]));
    sizes
}

fn any_state() -> impl Strategy<Value = DurableState> {
    let content = prop_oneof![
        Just(Content::Blank),
        Just(Content::Consistent),
        any::<Option<u64>>().prop_map(|fork| Content::Outdated { fork: fork.map(Epoch) }),
        (any::<[u8; 16]>(), any::<Option<u64>>())
            .prop_map(|(base_id, base)| Content::Inconsistent { base_id, base: base.map(Epoch) })
    ];
    let role = prop_oneof![Just(Role::Primary), Just(Role::Backup)];
    (content, role, 0u64..=64, any::<u64>(), any::<bool>(), any::<Option<[u8; 16]>>(), 0u32..20).prop_map(
        |(content, role, generations, seen, known, incarnation, count)| DurableState {
            group_name: "vm1".parse().unwrap(),
            formatted_id: [4; 16],
            role,
            lineage: (0..generations).map(entry).collect(),
            highest_epoch_seen: Epoch(seen),
            content,
            group: known.then(group),
            last_incarnation: incarnation.map(Incarnation),
            rolls: rolls(count, 2),
            alone: (seen % 3 == 0).then_some(Epoch(seen)),
            fenced: (seen % 2 == 0).then_some(Fence {
                generation: Generation { number: seen, id: [9; 16] },
                fork: Epoch(seen),
                split: known,
            }),
            devices: (0..generations % 17).map(|n| VolumeUuid([u8::try_from(n).unwrap(); 16])).collect(),
            token: seen / 5,
            lost: (seen % 7 == 0).then_some(Epoch(seen)),
            numbered: (seen % 11 == 0).then_some(Epoch(seen)),
            with_loss: seen % 13 == 0,
            ended_at: incarnation.map(WriteMark),
            sizes: sizes(if known { count.into() } else { 0 }, 2),
        },
    )
}

proptest! {
    #[test]
    fn states_come_back_as_they_went(state in any_state()) {
        prop_assert_eq!(DurableState::decode(&state.encode()), Ok(state));
    }

    #[test]
    fn cut_or_changed_bodies_never_panic(state in any_state(), at in any::<usize>(), flip in 1..=255u8) {
        let body = state.encode();
        let at = at % body.len();
        prop_assert_ne!(DurableState::decode(&body[..at]), Ok(state.clone()));
        let mut changed = body;
        changed[at] ^= flip;
        prop_assert_ne!(DurableState::decode(&changed), Ok(state));
    }
}

#[test]
fn the_largest_state_fits_a_slot() {
    let volume = |id: u8| VolumeDescription {
        uuid: VolumeUuid([id; 16]),
        size: Sectors(1 << 30),
        logical_block_size: 512,
    };
    let name: GroupName = "n".repeat(64).parse().unwrap();
    let volumes = (0..u8::try_from(MAX_VOLUMES).unwrap()).map(volume).collect();
    let state = DurableState {
        group: Some(GroupDescription::new(name.clone(), volumes).unwrap()),
        group_name: name,
        formatted_id: [1; 16],
        role: Role::Backup,
        lineage: (0..100).map(entry).collect(),
        highest_epoch_seen: Epoch(u64::MAX),
        content: Content::Inconsistent { base_id: [2; 16], base: Some(Epoch(7)) },
        last_incarnation: Some(Incarnation([3; 16])),
        rolls: rolls(2 * u32::try_from(MAX_ROLLS).unwrap(), MAX_VOLUMES),
        alone: Some(Epoch(u64::MAX)),
        devices: vec![VolumeUuid([5; 16]); MAX_VOLUMES],
        fenced: Some(Fence { generation: entry(7).generation, fork: Epoch(9), split: true }),
        token: u64::MAX,
        lost: Some(Epoch(u64::MAX)),
        numbered: Some(Epoch(u64::MAX)),
        with_loss: true,
        ended_at: Some(WriteMark([6; 16])),
        sizes: sizes(7, MAX_VOLUMES),
    };
    let body = state.encode();
    assert!(body.len() <= MAX_BODY, "{}", body.len());
    assert!(state.rolls.rolls().len() > MAX_ROLLS / 2);
    let kept = DurableState::decode(&body).unwrap().lineage;
    assert_eq!((kept.len(), kept[0], kept[63]), (MAX_LINEAGE, entry(36), entry(99)));
    let slot = encode(1, SlotKind::State, &body).unwrap();
    let (loaded, chosen) = DurableState::load(Some(&slot), None).unwrap().unwrap();
    assert_eq!((loaded.lineage, chosen.sequence), (kept, 1));
}

#[test]
fn a_lineage_longer_than_any_is_refused() {
    let entries: Vec<u8> = (0..65).flat_map(|i| encode_lineage(&[entry(i)])).collect();
    let mut fields = Writer::new();
    fields.field(5, &entries);
    let bytes = fields.finish();
    let value = Reader::new(&bytes).unwrap().required(5).unwrap();
    assert!(matches!(decode_lineage(value), Err(TlvError::Value { .. })));
}
