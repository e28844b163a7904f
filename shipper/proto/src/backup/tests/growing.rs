//! A primary whose volumes are larger than those that are known here.

use super::*;
use crate::group::GroupDescription;
use crate::state::Content;

/// The first volume has become larger.
fn larger() -> GroupDescription {
    let mut sizes = group().sizes();
    sizes[0].0 *= 2;
    group().with_sizes(&sizes).unwrap()
}

fn room(host: &mut Host, of: &GroupDescription) {
    let volumes = of
        .volumes()
        .iter()
        .map(|volume| LocalVolume { size: volume.size, logical_block_size: volume.logical_block_size });
    host.event(BackupEvent::Room { volumes: volumes.collect() });
}

fn welcomed(host: &Host) -> Option<Option<Vec<Sectors>>> {
    match host.said.last() {
        Some(Message::Welcome(welcome)) => Some(welcome.sizes.clone()),
        _ => None,
    }
}

/// In sync, at epoch 2; then the primary greets with larger volumes, for which there is room.
fn greeted() -> Host {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    room(&mut host, &larger());
    host.event(BackupEvent::Disconnected);
    host.group = larger();
    host.said.clear();
    host.greet(INCARNATION);
    host
}

fn promoted(mut host: Host) -> (u64, GroupDescription) {
    host.promote(None);
    host.finish();
    let Some(Ok(epoch)) = host.promoted.last() else { panic!("{:?}", host.promoted) };
    (epoch.0, host.state.group.unwrap())
}

#[test]
fn without_room_they_are_refused_by_name() {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    host.group = larger();
    host.event(BackupEvent::Disconnected);
    host.greet(INCARNATION);
    assert_eq!(host.refusal(), Some(RefuseCode::VolumeMismatch));
    host.event(BackupEvent::Disconnected);
    room(&mut host, &larger());
    host.greet(INCARNATION);
    host.pending.clear();
    host.event(BackupEvent::Enlarged { result: Err("no".into()) });
    assert_eq!(host.refusal(), Some(RefuseCode::VolumeMismatch));
    assert_eq!(host.state.group, Some(group()));
}

#[test]
fn the_devices_and_then_the_state_come_before_the_welcome() {
    let mut host = greeted();
    assert!(
        matches!(host.pending.back(), Some(BackupAction::Enlarge { sizes }) if *sizes == larger().sizes())
    );
    while !matches!(host.pending.front(), Some(BackupAction::Enlarge { .. })) {
        host.step();
    }
    host.step();
    assert!(matches!(host.pending.back(), Some(BackupAction::WriteState(_))));
    assert_eq!(welcomed(&host), None);
    host.finish();
    assert_eq!(welcomed(&host), Some(Some(group().sizes())), "what is held has the old sizes");
    assert_eq!(host.state.group, Some(larger()));
}

#[test]
fn a_promote_gives_the_sizes_of_its_epoch() {
    let mut host = greeted();
    host.finish();
    assert_eq!(promoted(host), (2, group()));
    let mut host = greeted();
    host.finish();
    host.epoch_since(3);
    host.finish();
    assert_eq!(promoted(host), (3, larger()));
}

#[test]
fn what_is_greeted_again_still_lacks_what_it_did() {
    let mut host = greeted();
    host.finish();
    for _ in 0..2 {
        host.event(BackupEvent::Disconnected);
        host.said.clear();
        host.greet(INCARNATION);
        host.finish();
        assert_eq!(welcomed(&host), Some(Some(group().sizes())));
    }
    host.epoch_since(3);
    host.finish();
    host.event(BackupEvent::Disconnected);
    host.greet(INCARNATION);
    host.finish();
    assert_eq!(welcomed(&host), Some(None), "it holds an epoch of the new sizes");
}

#[test]
fn a_sync_in_place_that_breaks_off_lacks_it_too() {
    let mut host = greeted();
    host.finish();
    host.tell(Message::SyncBegin { base_id: BASE_ID, base: Some(Epoch(2)) });
    host.finish();
    host.event(BackupEvent::Disconnected);
    assert!(matches!(host.state.content, Content::Inconsistent { .. }));
    host.greet(INCARNATION);
    host.finish();
    assert_eq!(welcomed(&host), Some(Some(group().sizes())));
    host.tell(Message::SyncBegin { base_id: BASE_ID, base: Some(Epoch(2)) });
    host.finish();
    host.tell(Message::BaseEnd { frames: 0, bytes: 0 });
    host.epoch();
    host.finish();
    host.event(BackupEvent::Disconnected);
    host.greet(INCARNATION);
    host.finish();
    assert_eq!(welcomed(&host), Some(None));
    assert!(host.state.sizes.is_empty());
}

#[test]
fn what_is_held_exactly_does_not_become_smaller() {
    let mut host = greeted();
    host.finish();
    host.epoch_since(3);
    host.finish();
    host.event(BackupEvent::Disconnected);
    host.group = group();
    host.greet(INCARNATION);
    assert_eq!(host.refusal(), Some(RefuseCode::VolumeMismatch));
}

#[test]
fn an_old_primary_takes_the_size_that_its_successor_has() {
    let mut state = DurableState::new_backup("vm1".parse().unwrap(), [1; 16]);
    state.lineage = Host::new(CommitPolicy::Auto, AckPolicy::Durable).hello().lineage;
    state.group = Some(group());
    state.resize(Epoch(8), larger());
    state.highest_epoch_seen = Epoch(9);
    state.content = Content::Outdated { fork: Some(Epoch(5)) };
    let mut host = Host::of(state, None, CommitPolicy::Auto, AckPolicy::Durable);
    room(&mut host, &larger());
    host.greet(INCARNATION);
    host.finish();
    assert_eq!(welcomed(&host), Some(None), "{:?}", host.said);
    assert_eq!(host.state.group, Some(group()));
    // Had its successor grown too, what this side grew by itself counts for nothing.
    host.event(BackupEvent::Disconnected);
    host.group = larger();
    host.greet(INCARNATION);
    host.finish();
    assert_eq!(welcomed(&host), Some(Some(group().sizes())));
}

#[test]
fn what_an_old_primary_wrote_beyond_the_end_is_of_no_use() {
    let scope = crate::testing::scope(&[(0, 0, 8), (0, (1 << 20) - 8, 16), (0, 1 << 20, 8), (1, 0, 8)]);
    let cut = crate::testing::scope(&[(0, 0, 8), (0, (1 << 20) - 8, 8), (1, 0, 8)]);
    assert_eq!(growth::within(&scope, &group()), cut);
}
