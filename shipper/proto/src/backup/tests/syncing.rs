//! Staged syncs, and syncs in place that start from an epoch.

use super::*;
use crate::message::Welcome;

fn begin(host: &mut Host, base: Option<u64>) -> bool {
    host.said.clear();
    host.tell(Message::SyncBegin { base_id: BASE_ID, base: base.map(Epoch) });
    host.finish();
    host.said.contains(&Message::SyncReady)
}

/// The connection is lost, and made anew.
fn again(host: &mut Host) -> Welcome {
    host.event(BackupEvent::Disconnected);
    host.finish();
    host.said.clear();
    host.greet(INCARNATION);
    let Some(Message::Welcome(welcome)) = host.said.last() else { panic!("{:?}", host.said) };
    welcome.clone()
}

#[test]
fn until_a_staged_sync_is_committed_the_backup_is_what_it_was() {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    assert_eq!(again(&mut host).held, Some(Epoch(2)));
    host.next = 9;
    let header = EpochHeader { first_epoch: Epoch(3), ..epoch_header(9, host.digest) };
    let (frames, _) = frames_of(header, 4096);
    for frame in &frames[..2] {
        host.event(BackupEvent::Frame(frame.clone()));
    }
    assert!(host.core.is_catching_up() && host.core.phase() == &Phase::Consistent);
    let welcome = again(&mut host);
    assert_eq!((welcome.content, welcome.held), (Content::Consistent, Some(Epoch(2))));
    host.epoch_since(3);
    host.finish();
    assert_eq!((host.staged(), host.core.committed()), (vec![9], Epoch(9)));
    assert!(!host.core.is_catching_up());
}

#[test]
fn epochs_that_leave_something_out_are_refused() {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    host.next = 9;
    host.epoch_since(4);
    host.finish();
    assert!(
        matches!(host.said.last(), Some(Message::Bye { text, .. }) if text.contains("do not follow epoch 2"))
    );
    assert_eq!(host.core.committed(), Epoch(2));
}

#[test]
fn a_sync_in_place_keeps_the_base_that_it_began_with() {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    assert!(begin(&mut host, Some(2)));
    let inconsistent = |base| Content::Inconsistent { base_id: BASE_ID, base };
    assert_eq!(host.state.content, inconsistent(Some(Epoch(2))));
    assert_eq!(again(&mut host).content, inconsistent(Some(Epoch(2))));
    assert!(!begin(&mut host, Some(3)), "what changed between is not known");
    again(&mut host);
    assert!(begin(&mut host, Some(1)), "more than is needed does no harm");
    again(&mut host);
    assert!(begin(&mut host, None));
    assert_eq!(again(&mut host).content, inconsistent(None));
    assert!(!begin(&mut host, Some(1)), "nothing is known any more");
}

#[test]
fn no_base_is_behind_what_is_held() {
    let mut host = Host::in_sync(CommitPolicy::External, AckPolicy::Durable);
    assert_eq!((host.core.staged(), host.core.committed()), (Epoch(2), Epoch::NONE));
    assert!(!begin(&mut host, Some(2)), "it is staged, and not committed");
    assert_eq!(host.core.phase(), &Phase::Consistent);
}
