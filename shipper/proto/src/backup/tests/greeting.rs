//! Who is let in, and what must be gone before.

use super::*;
use crate::group::GroupDescription;

const STRANGER: Incarnation = Incarnation([0x55; 16]);

/// What a `Hello` changed in this way is answered with.
fn refused(host: &mut Host, change: impl FnOnce(&mut Hello)) -> Option<RefuseCode> {
    let state = host.state.clone();
    let mut hello = host.hello();
    change(&mut hello);
    host.event(BackupEvent::Accepted);
    host.tell(Message::Hello(hello));
    host.finish();
    assert!(!host.core.is_connected() || host.refusal().is_none());
    assert_eq!(host.state, state, "a refused peer changes nothing");
    host.refusal()
}

#[test]
fn each_mismatch_has_its_code() {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    let mut code = |change: &dyn Fn(&mut Hello)| refused(&mut host, change);
    let volumes = |hello: &Hello| hello.group.volumes().to_vec();
    let with = |name: &str, volumes| GroupDescription::new(name.parse().unwrap(), volumes).unwrap();
    let newer = |hello: &mut Hello| (hello.protocol_min, hello.protocol_max) = (PROTOCOL + 1, PROTOCOL + 3);
    assert_eq!(code(&newer), Some(RefuseCode::Version));
    assert_eq!(code(&|hello| hello.features_mandatory = 1 << 40), Some(RefuseCode::Feature));
    assert_eq!(code(&|hello| hello.features_mandatory = EXTERNAL_COMMIT), Some(RefuseCode::CommitPolicy));
    assert_eq!(code(&|hello| hello.group = with("vm2", volumes(hello))), Some(RefuseCode::Group));
    let fewer = |hello: &mut Hello| hello.group = with("vm1", volumes(hello)[..1].to_vec());
    assert_eq!(code(&fewer), Some(RefuseCode::VolumeMismatch));
    let larger = |hello: &mut Hello| {
        let mut volumes = volumes(hello);
        volumes[1].size.0 += 8;
        hello.group = with("vm1", volumes);
    };
    assert_eq!(code(&larger), Some(RefuseCode::VolumeMismatch));
    let swapped = |hello: &mut Hello| {
        let mut volumes = volumes(hello);
        volumes[0].uuid.0[0] ^= 1;
        hello.group = with("vm1", volumes);
    };
    assert_eq!(code(&swapped), Some(RefuseCode::VolumeMismatch));
    assert_eq!(code(&|hello| hello.lineage[0].generation.id[0] ^= 1), Some(RefuseCode::SplitBrain));
    assert_eq!(code(&|hello| hello.features_optional = u64::MAX), None, "optional ones are ignored");
    assert_eq!(code(&|hello| (hello.protocol_min, hello.protocol_max) = (0, 900)), None);
}

#[test]
fn both_sides_must_name_the_same_policy() {
    let mut host = Host::new(CommitPolicy::External, AckPolicy::Durable);
    let auto = |hello: &mut Hello| hello.features_mandatory = 0;
    assert_eq!(refused(&mut host, auto), Some(RefuseCode::CommitPolicy));
    assert_eq!(refused(&mut host, |_| {}), None);
    let Some(Message::Welcome(welcome)) = host.said.last() else { panic!("{:?}", host.said.last()) };
    assert_eq!(welcome.features & EXTERNAL_COMMIT, EXTERNAL_COMMIT);
    assert_eq!(welcome.journal_size, Some(host.core.journal_use().1));
}

#[test]
fn a_host_that_is_promoted_or_busy_says_so() {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    host.tell(Message::SyncBegin { base_id: BASE_ID, base: None });
    host.event(BackupEvent::Disconnected);
    assert_eq!(host.core.phase().copying(), Some(phase::CopyStep::Marking));
    host.event(BackupEvent::Accepted);
    host.tell(Message::Hello(host.hello()));
    assert_eq!(host.refusal(), Some(RefuseCode::Busy));
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    host.promote(None);
    host.finish();
    assert_eq!(refused(&mut host, |_| {}), Some(RefuseCode::Promoted));
}

#[test]
fn a_second_connection_is_not_admitted_while_a_greeted_primary_is_there() {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    assert!(!host.core.admits());
    host.event(BackupEvent::Disconnected);
    assert!(host.core.admits());
    host.event(BackupEvent::Accepted);
    assert!(host.core.admits(), "whoever says nothing makes room for whoever comes");
}

#[test]
fn what_is_staged_outlives_a_lost_link_of_the_same_incarnation() {
    let mut host = Host::in_sync(CommitPolicy::External, AckPolicy::Durable);
    host.epoch();
    host.finish();
    host.event(BackupEvent::Disconnected);
    host.greet(INCARNATION);
    assert!(host.core.is_connected());
    host.tell(Message::Commit { epoch: Epoch(3) });
    host.finish();
    assert_eq!(host.core.committed(), Epoch(3));
}

#[test]
fn another_incarnation_is_welcomed_once_what_only_its_predecessor_could_commit_is_dropped_durably() {
    let mut host = Host::in_sync(CommitPolicy::External, AckPolicy::Durable);
    host.epoch();
    host.finish();
    host.tell(Message::Commit { epoch: Epoch(2) });
    host.finish();
    host.event(BackupEvent::Disconnected);
    host.said.clear();
    host.greet(STRANGER);
    assert!(host.said.is_empty(), "not yet");
    assert_eq!(host.pending.len(), 1);
    host.step();
    let Some(Message::Welcome(welcome)) = host.said.last() else { panic!("{:?}", host.said) };
    assert_eq!((welcome.committed, welcome.highest_epoch_seen), (Epoch(2), Epoch(3)));
    assert_eq!(welcome.chain_digest, host.core.committed_digest());
    assert_eq!(host.superblock.dropped.map(|dropped| dropped.through), Some(Epoch(3)));
    assert_eq!(host.core.staged(), Epoch(2));
}

#[test]
fn where_nothing_was_committed_yet_that_leaves_nothing_to_promote_to() {
    let mut host = Host::in_sync(CommitPolicy::External, AckPolicy::Durable);
    host.event(BackupEvent::Disconnected);
    host.greet(STRANGER);
    host.core.handle_timeout(NOW * 3);
    host.collect();
    let is_mark = |action: &BackupAction| matches!(action, BackupAction::WriteState(_));
    assert!(
        host.pending.iter().all(is_mark),
        "nothing is redone before the mark is durable: {:?}",
        host.pending
    );
    host.finish();
    assert!(host.core.is_connected());
    assert!(matches!(host.state.content, Content::Inconsistent { .. }));
    host.promote(Some(2));
    assert_eq!(host.promoted, [Err(PromoteRefused::Inconsistent)]);
}

#[test]
fn a_primary_has_a_generation_and_its_epochs_are_of_that_one() {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    let other = |hello: &mut Hello| hello.lineage[0].generation.number = 4;
    for change in [&(|hello: &mut Hello| hello.lineage.clear()) as &dyn Fn(&mut Hello), &other] {
        assert_eq!(refused(&mut host, change), Some(RefuseCode::ProtocolError));
    }
    let mut blank = Host::new(CommitPolicy::Auto, AckPolicy::Durable);
    assert_eq!(refused(&mut blank, |hello| hello.lineage.clear()), Some(RefuseCode::ProtocolError));
    // Of the same number, but not the same generation.
    host.greet(INCARNATION);
    let mut header = epoch_header(3, host.core.digest);
    header.generation.id[0] ^= 1;
    let (frames, _) = frames_of(header, 4096);
    host.event(BackupEvent::Frame(frames[0].clone()));
    assert!(
        matches!(host.said.last(), Some(Message::Bye { text, .. }) if text.contains("another generation"))
    );
    // Of the primary's generation, of which this side has no epoch: only a sync in place takes that over.
    let later = |hello: &mut Hello| {
        let generation = crate::ids::Generation { number: 3, id: [0x44; 16] };
        hello.lineage[0].generation.number = 2;
        hello.lineage.push(LineageEntry { generation, first_epoch: Epoch(3), digest: host.core.digest });
    };
    let mut hello = host.hello();
    later(&mut hello);
    host.core.state.lineage = hello.lineage[..1].to_vec();
    host.event(BackupEvent::Accepted);
    host.tell(Message::Hello(hello.clone()));
    host.finish();
    let (frames, _) = frames_of(
        EpochHeader { generation: hello.lineage[1].generation, ..epoch_header(3, host.core.digest) },
        4096,
    );
    host.event(BackupEvent::Frame(frames[0].clone()));
    assert!(matches!(host.said.last(), Some(Message::Bye { text, .. }) if text.contains("has no epoch of")));
}

#[test]
fn whoever_is_refused_or_left_is_named() {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    host.tell(Message::BaseEnd { frames: 0, bytes: 0 });
    assert!(matches!(host.said.last(), Some(Message::Bye { .. })));
    assert_eq!(host.core.peer_incarnation(), Some(INCARNATION));
    host.event(BackupEvent::Accepted);
    assert_eq!(host.core.peer_incarnation(), None, "nobody has greeted over this connection");
    let hello = Hello { features_mandatory: 1 << 40, ..host.hello() };
    host.tell_as(&Message::Hello(hello), STRANGER);
    assert_eq!(host.refusal(), Some(RefuseCode::Feature));
    assert_eq!(host.core.peer_incarnation(), Some(STRANGER));
}

#[test]
fn what_a_primary_that_was_put_back_never_made_is_given_up_only_by_a_person_and_durably() {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    host.event(BackupEvent::GiveUp);
    assert_eq!(host.given_up.pop(), Some(Err(GiveUpRefused::NoSplit)), "its primary is connected");
    host.event(BackupEvent::Disconnected);
    host.event(BackupEvent::GiveUp);
    assert_eq!(host.given_up.pop(), Some(Err(GiveUpRefused::NoSplit)), "nobody has another history");
    let put_back = |hello: &mut Hello| hello.numbered = Some(Epoch(1));
    assert_eq!(refused(&mut host, put_back), Some(RefuseCode::SplitBrain));
    assert_eq!(
        refused(&mut host, |hello| hello.lineage[0].generation.id[0] ^= 1),
        Some(RefuseCode::SplitBrain)
    );
    host.event(BackupEvent::GiveUp);
    assert_eq!(
        host.given_up.pop(),
        Some(Err(GiveUpRefused::NoSplit)),
        "one of another group would not be let in"
    );
    assert_eq!(refused(&mut host, put_back), Some(RefuseCode::SplitBrain));
    host.event(BackupEvent::GiveUp);
    assert_eq!(host.given_up, [], "it is not durable yet");
    host.finish();
    assert_eq!((host.given_up.pop(), host.state.content), (Some(Ok(())), Content::Outdated { fork: None }));
    // A promote would give what a person has given up.
    host.promote(None);
    assert_eq!(host.promoted.pop(), Some(Err(PromoteRefused::Outdated)));
    assert_eq!(refused(&mut host, put_back), None);
}
