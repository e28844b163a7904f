//! A backup that was a primary once names what it wrote itself, before anything of it is overwritten.

use ftdm_units::{Era, Extent, Sector};

use super::*;
use crate::frame::FrameKind;
use crate::ids::VolumeIndex;
use crate::record::RecordIter;
use crate::rolls::Roll;
use crate::scope::Scope;

const FORK: u64 = 40;

fn own() -> Scope {
    let extent = |start, end| Extent::between(Sector(start), Sector(end)).unwrap();
    vec![(VolumeIndex(0), extent(0, 128)), (VolumeIndex(0), extent(512, 640)), (VolumeIndex(1), extent(0, 8))]
}

/// Demoted at [`FORK`], with this era reached on each volume.
fn demoted(era: Option<u32>) -> Host {
    let mut state = DurableState::new_backup("vm1".parse().unwrap(), [1; 16]);
    let eras = |era| vec![Era(era); group().volumes().len()];
    state.rolls.push(Roll { epoch: Epoch(30), at_cut: true, eras: eras(5) }).unwrap();
    state.content = Content::Outdated { fork: Some(Epoch(FORK)) };
    state.group = Some(group());
    let mut host = Host::of(state, era.map(eras), CommitPolicy::Auto, AckPolicy::Durable);
    host.greet(INCARNATION);
    host
}

fn begin(host: &mut Host, base: Option<u64>) {
    host.said.clear();
    host.frames.clear();
    host.tell(Message::SyncBegin { base_id: BASE_ID, base: base.map(Epoch) });
}

fn told(host: &Host) -> Scope {
    let mut told = Scope::new();
    for frame in &host.frames {
        let mut raw = Vec::new();
        let raw = frame.raw_payload(&mut raw).unwrap();
        let (kind, count) = (frame.header.kind, frame.header.record_count);
        assert_eq!((kind, frame.header.incarnation), (FrameKind::Differs, INCARNATION));
        for record in RecordIter::new(raw, kind, count, &group()).unwrap() {
            let crate::record::Record { volume, extent, .. } = record;
            told.push((volume, extent));
        }
    }
    told
}

#[test]
fn what_it_wrote_since_the_fork_is_told_before_it_is_ready_and_again_after_an_interruption() {
    let mut host = demoted(Some(9));
    for _ in 0..2 {
        begin(&mut host, Some(FORK));
        while !host.pending.iter().any(|action| matches!(action, BackupAction::ReadOwn { .. })) {
            host.step();
        }
        let at = host.pending.iter().position(|action| matches!(action, BackupAction::ReadOwn { .. }));
        let Some(BackupAction::ReadOwn { since }) = host.pending.remove(at.unwrap()) else { panic!() };
        assert_eq!(since, [Era(5), Era(5)], "from the roll before the fork on");
        assert_eq!(host.state.content, Content::Inconsistent { base_id: BASE_ID, base: Some(Epoch(FORK)) });
        host.finish();
        assert!(!host.said.contains(&Message::SyncReady));
        host.event(BackupEvent::OwnRead { result: Ok(own()) });
        assert_eq!(told(&host), own());
        assert_eq!(host.said.last(), Some(&Message::SyncReady));
        host.event(BackupEvent::Disconnected);
        host.greet(INCARNATION);
    }
}

#[test]
fn once_it_is_consistent_it_has_nothing_of_its_own_any_more() {
    let mut host = demoted(Some(9));
    begin(&mut host, Some(FORK));
    host.finish();
    host.tell(Message::BaseEnd { frames: 0, bytes: 0 });
    host.epoch();
    host.finish();
    assert_eq!((host.state.content, host.state.rolls.last()), (Content::Consistent, None));
}

#[test]
fn a_history_that_does_not_go_on_is_none() {
    for era in [None, Some(4)] {
        let mut host = demoted(era);
        assert_eq!(host.state.content, Content::Outdated { fork: None });
        begin(&mut host, Some(FORK));
        host.finish();
        assert!(matches!(host.said.last(), Some(Message::Bye { .. })), "{:?}", host.said);
        host.greet(INCARNATION);
        begin(&mut host, None);
        host.finish();
        assert_eq!((host.said.last(), host.frames.len()), (Some(&Message::SyncReady), 0));
    }
}

#[test]
fn what_cannot_be_read_makes_the_next_copy_a_whole_one() {
    let mut host = demoted(Some(9));
    begin(&mut host, Some(FORK));
    while !host.pending.iter().any(|action| matches!(action, BackupAction::ReadOwn { .. })) {
        host.step();
    }
    host.pending.retain(|action| !matches!(action, BackupAction::ReadOwn { .. }));
    host.event(BackupEvent::OwnRead { result: Err("the metadata is damaged".into()) });
    host.finish();
    assert_eq!(host.state.content, Content::Inconsistent { base_id: BASE_ID, base: None });
    assert!(host.state.rolls.last().is_none() && !host.core.is_connected());
}
