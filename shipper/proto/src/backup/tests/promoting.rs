//! To what a backup can be promoted, and until when.

use super::*;
use crate::state::StaleToken;

fn draining() -> Host {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    host.epoch();
    host.tell(Message::SyncBegin { base_id: BASE_ID, base: None });
    host
}

fn is_promoted_at(host: &mut Host, epoch: u64) {
    host.finish();
    assert_eq!(host.promoted, [Ok(Epoch(epoch))]);
    assert_eq!((host.state.role, host.state.content), (Role::Primary, Content::Consistent));
    assert_eq!((host.core.applied(), host.core.promoted_at()), (Epoch(epoch), Epoch(epoch)));
}

#[test]
fn while_a_full_sync_drains_the_earlier_content_is_promotable() {
    let mut host = draining();
    host.said.clear();
    host.promote(None);
    is_promoted_at(&mut host, 3);
    assert!(!host.said.contains(&Message::SyncReady));
    assert_eq!(host.state.lineage.len(), 2, "the generation before, and the new one");
}

#[test]
fn while_the_mark_is_on_its_way_too_and_the_mark_is_taken_back() {
    let mut host = draining();
    while !matches!(host.pending.front(), Some(BackupAction::WriteState(_))) {
        host.step();
    }
    host.said.clear();
    host.promote(None);
    assert!(host.promoted.is_empty());
    host.step();
    assert!(matches!(host.state.content, Content::Inconsistent { .. }));
    host.step();
    assert_eq!(host.state.content, Content::Consistent);
    is_promoted_at(&mut host, 3);
    assert!(!host.said.contains(&Message::SyncReady));
}

#[test]
fn once_overwriting_is_possible_nothing_is() {
    let mut host = draining();
    host.finish();
    host.promote(None);
    assert_eq!(host.promoted, [Err(PromoteRefused::Inconsistent)]);
    let mut blank = Host::new(CommitPolicy::Auto, AckPolicy::Durable);
    blank.promote(None);
    assert_eq!(blank.promoted, [Err(PromoteRefused::Blank)]);
}

/// Epochs 2 to 5 staged, 3 committed.
fn external() -> Host {
    let mut host = Host::in_sync(CommitPolicy::External, AckPolicy::Durable);
    for _ in 0..3 {
        host.epoch();
    }
    host.finish();
    host.tell(Message::Commit { epoch: Epoch(3) });
    host.finish();
    host
}

#[test]
fn a_coordinators_backup_wants_an_epoch_and_names_the_range() {
    let mut host = external();
    host.promote(None);
    let (first, last) = (Epoch(3), Epoch(5));
    assert_eq!(host.promoted.pop(), Some(Err(PromoteRefused::NeedsEpoch { first, last })));
    for wrong in [0, 2, 6] {
        host.promote(Some(wrong));
        let epoch = Epoch(wrong);
        let refused = PromoteRefused::OutOfRange { epoch, first, last };
        assert_eq!(host.promoted.pop(), Some(Err(refused)));
    }
    assert!(host.core.is_connected(), "a refused promote changes nothing");
    assert_eq!(host.core.phase(), &Phase::Consistent);
}

#[test]
fn a_word_that_is_on_its_way_to_the_disk_is_not_taken_back() {
    let mut host = external();
    host.tell(Message::Commit { epoch: Epoch(5) });
    assert_eq!(host.core.committed(), Epoch(3));
    host.promote(Some(4));
    let refused = PromoteRefused::OutOfRange { epoch: Epoch(4), first: Epoch(5), last: Epoch(5) };
    assert_eq!(host.promoted.pop(), Some(Err(refused)));
    host.promote(Some(5));
    is_promoted_at(&mut host, 5);
}

#[test]
fn a_promote_commits_its_epoch_and_drops_what_follows_durably_before_the_volumes_are_released() {
    for at in 3..=5 {
        let mut host = external();
        host.promote(Some(at));
        while !matches!(host.pending.front(), Some(BackupAction::ReleaseVolumes)) {
            host.step();
        }
        assert_eq!(host.superblock.committed, Some(Epoch(at)));
        assert_eq!(host.superblock.tail_epoch, Epoch(at));
        assert_eq!(host.state.role, Role::Primary);
        assert_eq!(host.state.highest_epoch_seen, Epoch(5), "numbers go on above what was dropped");
        let dropped = host.superblock.dropped.map(|dropped| dropped.through);
        assert_eq!(dropped, (at < 5).then_some(Epoch(5)));
        is_promoted_at(&mut host, at);
        host.promote(Some(at));
        host.promote(Some(1));
        assert_eq!(host.promoted[1..], [Ok(Epoch(at)), Err(PromoteRefused::Elsewhere(Epoch(at)))]);
    }
}

#[test]
fn the_first_commit_point_can_be_chosen_though_nothing_was_ever_committed() {
    let mut host = Host::in_sync(CommitPolicy::External, AckPolicy::Durable);
    host.promote(Some(1));
    let refused = PromoteRefused::OutOfRange { epoch: Epoch(1), first: Epoch(2), last: Epoch(2) };
    assert_eq!(host.promoted.pop(), Some(Err(refused)));
    host.promote(Some(2));
    is_promoted_at(&mut host, 2);
}

#[test]
fn a_promote_that_was_decided_before_another_one_is_refused() {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    host.event(BackupEvent::Disconnected);
    host.event(BackupEvent::Accepted);
    host.tell(Message::Hello(Hello { token: 7, ..host.hello() }));
    host.finish();
    assert_eq!(host.state.token, 7, "what the primary has seen is durable here too");
    let promote = |host: &mut Host, token| {
        let (id, epoch, force) = ([9; 16], None, false);
        host.event(BackupEvent::Promote { id, epoch, force, token: Some(token) });
        host.finish();
        host.promoted.pop()
    };
    for token in [6, 7] {
        let stale = StaleToken { token, seen: 7 };
        assert_eq!(promote(&mut host, token), Some(Err(PromoteRefused::Stale(stale))));
        assert_eq!((host.state.role, host.state.token), (Role::Backup, 7));
    }
    let at = promote(&mut host, 8);
    assert!(matches!(at, Some(Ok(_))), "{at:?}");
    assert_eq!((host.state.role, host.state.token), (Role::Primary, 8), "in one write");
    assert_eq!(promote(&mut host, 8), at, "asked again");
    assert!(matches!(promote(&mut host, 7), Some(Err(PromoteRefused::Stale(_)))));
}

#[test]
fn a_promote_is_announced_only_once_it_is_durable() {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    host.promote(None);
    let mut told = Vec::new();
    while !host.pending.is_empty() {
        host.greet(INCARNATION);
        let Some(Message::Refuse { code, standing, .. }) = host.said.last() else {
            panic!("{:?}", host.said)
        };
        let role = standing.as_ref().map(|standing| standing.role);
        assert_eq!(role == Some(Role::Primary), host.state.role == Role::Primary, "{:?}", host.core.phase());
        told.push((*code, role));
        host.step();
    }
    assert!(told.contains(&(RefuseCode::Busy, None)), "while the generation is being written");
    assert_eq!(told.last(), Some(&(RefuseCode::Promoted, Some(Role::Primary))));
}

#[test]
fn a_token_is_not_durable_before_the_generation_that_it_decided() {
    // A sync in place is about to begin: the state before it is written again, in the middle of the promote.
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    host.tell(Message::SyncBegin { base_id: BASE_ID, base: None });
    while !matches!(host.pending.front(), Some(BackupAction::WriteState(_))) {
        host.step();
    }
    host.event(BackupEvent::Promote { id: [9; 16], epoch: None, force: false, token: Some(8) });
    while !host.pending.is_empty() {
        host.step();
        assert_eq!(host.state.token == 8, host.state.role == Role::Primary);
    }
    assert_eq!(host.promoted, [Ok(Epoch(2))]);
    assert_eq!(host.state.token, 8);
}
