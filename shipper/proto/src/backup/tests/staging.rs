//! What is acknowledged and committed, when.

use super::*;
use crate::frame::{FrameKind, Stamp};
use crate::testing::resize;

#[test]
fn by_itself_a_backup_commits_what_its_journal_holds_durably() {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    assert_eq!((host.staged(), host.core.committed()), (vec![2], Epoch(2)));
    host.epoch();
    assert_eq!((host.staged(), host.core.committed()), (vec![2], Epoch(2)));
    host.step();
    assert_eq!((host.staged(), host.core.committed()), (vec![2, 3], Epoch(3)));
    assert_eq!(host.superblock.committed, None);
}

#[test]
fn a_coordinator_commits_what_it_names_and_all_before_and_only_a_superblock_does_it() {
    let mut host = Host::in_sync(CommitPolicy::External, AckPolicy::Durable);
    for _ in 0..3 {
        host.epoch();
    }
    host.finish();
    assert_eq!((host.core.staged(), host.core.committed()), (Epoch(5), Epoch::NONE));
    assert_eq!(host.superblock.committed, Some(Epoch::NONE));
    host.tell(Message::Commit { epoch: Epoch(4) });
    assert_eq!(host.core.committed(), Epoch::NONE, "nothing says it durably yet");
    host.step();
    assert_eq!((host.core.committed(), host.superblock.committed), (Epoch(4), Some(Epoch(4))));
    assert!(matches!(host.said.last(), Some(Message::Report { committed: Epoch(4), .. })));
    host.finish();
    assert_eq!(host.core.applied(), Epoch(4), "no further than the word");
}

#[test]
fn a_word_reaches_no_further_than_what_is_here() {
    let mut host = Host::in_sync(CommitPolicy::External, AckPolicy::Durable);
    host.tell(Message::Commit { epoch: Epoch(1_000) });
    host.epoch();
    host.finish();
    assert_eq!((host.core.committed(), host.core.staged()), (Epoch(2), Epoch(3)));
}

#[test]
fn where_nobody_commits_a_word_is_a_breach() {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    host.tell(Message::Commit { epoch: Epoch(2) });
    assert!(matches!(host.said.last(), Some(Message::Bye { text, .. }) if text.contains("COMMIT")));
}

#[test]
fn received_means_before_the_disk_and_committed_still_means_behind_it() {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Received);
    host.epoch();
    assert_eq!((host.staged(), host.core.committed()), (vec![2, 3], Epoch(2)));
    host.step();
    assert_eq!(host.core.committed(), Epoch(3));
    assert!(matches!(host.said.last(), Some(Message::Report { committed: Epoch(3), .. })));
}

#[test]
fn a_report_says_what_is_durable_before_a_coordinator_commits_it() {
    let mut host = Host::in_sync(CommitPolicy::External, AckPolicy::Received);
    host.epoch();
    let reports = |host: &Host, epoch| {
        let durable = |message: &&Message| matches!(message, Message::Report { durable: Some(Epoch(at)), .. } if *at == epoch);
        host.said.iter().filter(durable).count()
    };
    assert_eq!((host.staged(), reports(&host, 3)), (vec![2, 3], 0), "it is only received");
    host.step();
    assert_eq!((host.core.committed(), reports(&host, 3)), (Epoch::NONE, 1));
}

#[test]
fn a_primary_that_does_not_know_received_gets_durable() {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Received);
    host.event(BackupEvent::Accepted);
    host.tell(Message::Hello(Hello { features_optional: 0, ..host.hello() }));
    let Some(Message::Welcome(welcome)) = host.said.last() else { panic!("{:?}", host.said.last()) };
    assert_eq!(welcome.features, 0);
    host.epoch();
    assert_eq!(host.staged(), [2]);
    host.step();
    assert_eq!(host.staged(), [2, 3]);
}

#[test]
fn what_is_synced_while_draining_is_committed() {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    host.epoch();
    host.tell(Message::SyncBegin { base_id: BASE_ID, base: None });
    assert_eq!(host.core.committed(), Epoch(2));
    host.step();
    assert_eq!((host.core.committed(), host.staged()), (Epoch(3), vec![2, 3]));
    assert_eq!(host.state.content, Content::Consistent, "it is applied first");
    host.finish();
    assert_eq!(host.state.content, Content::Inconsistent { base_id: BASE_ID, base: None });
    assert_eq!((host.core.applied(), host.said.last()), (Epoch(3), Some(&Message::SyncReady)));
}

#[test]
fn what_nobody_committed_goes_only_once_overwriting_is_marked() {
    let mut host = Host::in_sync(CommitPolicy::External, AckPolicy::Durable);
    host.epoch();
    host.finish();
    host.tell(Message::Commit { epoch: Epoch(2) });
    host.finish();
    host.tell(Message::SyncBegin { base_id: BASE_ID, base: None });
    assert!(matches!(host.pending.front(), Some(BackupAction::WriteState(_))));
    assert_eq!((host.core.staged(), host.core.applied()), (Epoch(3), Epoch(2)));
    host.step();
    assert!(matches!(host.state.content, Content::Inconsistent { .. }));
    host.finish();
    assert_eq!((host.core.applied(), host.superblock.committed), (Epoch(3), Some(Epoch::NONE)));
    assert_eq!(host.said.last(), Some(&Message::SyncReady));
}

#[test]
fn a_journal_full_of_what_nobody_commits_ends_the_connection() {
    let mut host = Host::in_sync(CommitPolicy::External, AckPolicy::Durable);
    let capacity = host.core.journal_use().1;
    for _ in 0..capacity / 4096 {
        if !host.core.is_connected() {
            break;
        }
        host.epoch();
        host.finish();
    }
    assert!(
        matches!(host.said.last(), Some(Message::Bye { text, .. }) if text.contains("await their COMMIT"))
    );
    assert_eq!(host.core.phase(), &Phase::Consistent);
    let staged = host.core.staged();
    host.greet(INCARNATION);
    host.tell(Message::Commit { epoch: staged });
    host.finish();
    assert_eq!((host.core.committed(), host.core.applied()), (staged, staged));
}

#[test]
fn an_epoch_with_a_record_that_no_volume_can_take_is_refused_before_it_is_stored() {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    let header = epoch_header(host.next, host.digest);
    let stamp = Stamp { epoch: Epoch(host.next), generation: 3, incarnation: INCARNATION };
    host.event(BackupEvent::Frame(header.encode()));
    let used = host.core.journal_use().0;
    let mut frame = Frame::plain(FrameKind::EpochData, stamp, 1, resize());
    frame.header.record_count = 1;
    host.event(BackupEvent::Frame(frame));
    assert!(matches!(host.said.last(), Some(Message::Bye { text, .. }) if text.contains("is a resize")));
    assert!(host.core.journal_use().0 <= used, "nothing of it is stored");
    host.finish();
    assert_eq!((host.staged(), host.core.phase()), (vec![2], &Phase::Consistent));
    host.greet(INCARNATION);
    host.epoch();
    host.finish();
    assert_eq!((host.core.committed(), host.core.applied()), (Epoch(3), Epoch(3)), "it goes on");
}
