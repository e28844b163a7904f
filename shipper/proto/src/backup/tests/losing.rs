//! What follows when the journal does not hold what was sealed in it.

use super::*;

/// Consistent at epoch 2, which is on the volumes; 3 to 5 are staged, and being proven.
fn proving() -> Host {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    let delay = Duration::from_secs(2);
    host.core.tune(Duration::from_secs(5), delay);
    for _ in 0..3 {
        host.epoch();
    }
    host.finish();
    assert_eq!((host.core.applied(), host.staged()), (Epoch(2), vec![2, 3, 5]));
    host.core.handle_timeout(NOW + delay);
    host.collect();
    host.core.tune(Duration::from_secs(5), Duration::ZERO);
    assert!(matches!(host.pending.front(), Some(BackupAction::Prove { places }) if places.len() == 3));
    host
}

/// The pass's next job finds that this epoch is not what was sealed.
fn unproven(host: &mut Host, epoch: u64, half: bool) {
    let job = host.pending.pop_front();
    assert!(matches!(job, Some(BackupAction::Prove { .. } | BackupAction::Apply { .. })), "{job:?}");
    host.event(BackupEvent::Unproven { epoch: Epoch(epoch), half, reason: "other bytes".into() });
}

#[test]
fn nothing_is_written_before_it_is_proven_and_noted() {
    let mut host = proving();
    host.step();
    assert!(matches!(host.pending.front(), Some(BackupAction::WriteSuperblock(_))), "{:?}", host.pending);
    assert!(!host.pending.iter().any(|job| matches!(job, BackupAction::Apply { .. })));
    host.step();
    assert_eq!((host.superblock.applying, host.superblock.tail_epoch), (Some(Epoch(5)), Epoch(2)));
    assert!(host.superblock.synced >= Epoch(5), "so a loss of it shows");
    assert!(matches!(host.pending.front(), Some(BackupAction::Apply { epochs, .. }) if epochs.len() == 3));
    host.finish();
    assert_eq!((host.core.applied(), host.superblock.tail_epoch), (Epoch(5), Epoch(5)));
}

#[test]
fn what_is_before_the_loss_is_kept_exactly_and_the_rest_said_to_be_lost_before_it_is_forgotten() {
    let mut host = proving();
    unproven(&mut host, 4, false);
    assert!(matches!(host.said.last(), Some(Message::Bye { text, .. }) if text.contains("exactly")));
    assert_eq!(host.losses.len(), 1);
    while host.state.lost.is_none() {
        assert_eq!(host.superblock.dropped, None, "the state is first");
        host.step();
    }
    host.finish();
    assert_eq!((host.state.content, host.state.lost), (Content::Consistent, Some(Epoch(5))));
    assert_eq!((host.core.applied(), host.core.committed()), (Epoch(3), Epoch(3)));
    assert_eq!(host.superblock.tail_epoch, Epoch(3), "epoch 3 was in order");
    assert_eq!(host.core.lost(), Some((Epoch(3), Epoch(5))));
    let refused = PromoteRefused::Lost { held: Epoch(3), through: Epoch(5) };
    host.promote(None);
    assert_eq!(host.promoted.pop(), Some(Err(refused)));
    host.event(BackupEvent::Promote { id: [9; 16], epoch: None, force: true, token: None });
    host.finish();
    assert_eq!(host.promoted, [Ok(Epoch(3))], "whoever takes it all the same gets exactly that epoch");
    assert_eq!((host.state.role, host.state.lost), (Role::Primary, None));
}

#[test]
fn the_primary_finds_what_is_left_and_a_staged_sync_ends_the_loss() {
    let mut host = proving();
    unproven(&mut host, 3, false);
    host.finish();
    host.said.clear();
    host.greet(INCARNATION);
    let Some(Message::Welcome(welcome)) = host.said.first() else { panic!("{:?}", host.said) };
    assert_eq!((welcome.content, welcome.held), (Content::Consistent, Some(Epoch(2))));
    assert_eq!((welcome.committed, welcome.highest_epoch_seen), (Epoch(2), Epoch(5)));
    let digest = welcome.chain_digest;
    assert_eq!(digest, host.superblock.tail_digest, "the next epoch continues what is left");
    host.digest = digest;
    let epoch = host.epoch_since(3);
    host.finish();
    assert_eq!((host.core.applied(), host.core.lost()), (epoch, None));
    host.promote(None);
    host.finish();
    assert_eq!(host.promoted, [Ok(epoch)]);
}

#[test]
fn what_is_half_on_the_volumes_is_a_mixture_and_says_so() {
    let mut host = proving();
    host.step();
    host.step();
    unproven(&mut host, 4, true);
    host.finish();
    let base = Some(Epoch(3));
    assert!(matches!(host.state.content, Content::Inconsistent { base: known, .. } if known == base));
    host.promote(None);
    assert_eq!(host.promoted, [Err(PromoteRefused::Inconsistent)]);
}

#[test]
fn a_promote_that_finds_a_loss_is_refused_and_the_backup_stays_one() {
    let mut host = proving();
    host.promote(None);
    unproven(&mut host, 5, false);
    host.finish();
    let refused = PromoteRefused::Lost { held: Epoch(4), through: Epoch(5) };
    assert_eq!(host.promoted, [Err(refused)]);
    assert_eq!((host.core.phase(), host.state.role), (&Phase::Consistent, Role::Backup));
    assert_eq!(host.core.applied(), Epoch(4));
}

#[test]
fn a_commit_point_of_a_sync_in_place_that_is_gone_leaves_no_epoch() {
    let mut host = Host::new(CommitPolicy::Auto, AckPolicy::Durable);
    host.greet(INCARNATION);
    host.tell(Message::SyncBegin { base_id: BASE_ID, base: None });
    host.finish();
    host.tell(Message::BaseEnd { frames: 0, bytes: 0 });
    host.next = 2;
    host.epoch();
    while !matches!(host.pending.front(), Some(BackupAction::Prove { .. })) {
        host.step();
    }
    unproven(&mut host, 2, false);
    host.finish();
    assert!(matches!(host.state.content, Content::Inconsistent { base: None, .. }), "{:?}", host.state);
    assert_eq!(host.core.phase(), &Phase::Inconsistent);
}

#[test]
fn where_a_coordinator_commits_what_it_did_not_commit_is_dropped_and_nothing_is_lost() {
    let mut host = Host::in_sync(CommitPolicy::External, AckPolicy::Durable);
    for _ in 0..3 {
        host.epoch();
    }
    host.finish();
    host.tell(Message::Commit { epoch: Epoch(4) });
    while !matches!(host.pending.front(), Some(BackupAction::Prove { .. })) {
        host.step();
    }
    unproven(&mut host, 4, false);
    host.finish();
    assert_eq!((host.state.lost, host.superblock.committed), (Some(Epoch(4)), Some(Epoch(3))));
    assert_eq!((host.core.committed(), host.core.staged()), (Epoch(3), Epoch(3)));
    host.promote(Some(3));
    let lost = PromoteRefused::Lost { held: Epoch(3), through: Epoch(4) };
    assert_eq!(host.promoted, [Err(lost)], "epoch 4 was committed");
}

/// A start on a journal of which recovery says that an epoch was durable once.
fn start(lost: u64, applying: Option<u64>) -> Host {
    let host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    let superblock = Superblock { applying: applying.map(Epoch), ..host.superblock.clone() };
    let recovery = recover(&superblock, &mut |_, buf: &mut [u8]| {
        buf.fill(0);
        Ok::<_, std::convert::Infallible>(())
    });
    let recovered = Recovered {
        state: host.state.clone(),
        journal: JournalWriter::new(superblock.clone(), &recovery),
        sealed: Vec::new(),
        applied: superblock.tail_epoch,
        applied_digest: superblock.tail_digest,
        lost: Some(Epoch(lost)),
    };
    let core = Backup::new(host.core.config.clone(), recovered);
    let mut host = Host { core, superblock, pending: VecDeque::new(), ..host };
    host.finish();
    host
}

#[test]
fn a_start_tells_what_was_begun_from_what_was_not() {
    let host = start(6, Some(2));
    assert_eq!((host.state.content, host.core.lost()), (Content::Consistent, Some((Epoch(2), Epoch(6)))));
    assert_eq!(host.superblock.dropped.map(|dropped| dropped.through), Some(Epoch(6)));
    for begun in [Some(3), None] {
        let host = start(6, begun);
        let base = Some(Epoch(2));
        assert!(matches!(host.state.content, Content::Inconsistent { base: known, .. } if known == base));
        assert_eq!(host.core.phase(), &Phase::Inconsistent, "{begun:?}");
    }
}
