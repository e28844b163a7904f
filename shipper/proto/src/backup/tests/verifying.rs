//! Answers about what the volumes hold.

use super::*;
use crate::ids::VolumeIndex;
use crate::protocol::{COMPARE, VERIFY};
use crate::testing::extent;
use crate::verify::{DigestLength, Place};

fn request(epoch: u64) -> HashRequest {
    let places = vec![Place { volume: VolumeIndex(1), extent: extent(8, 16) }];
    let length = DigestLength::Whole;
    HashRequest { token: epoch + 100, epoch: Epoch(epoch), unit: Sectors(8), length, places }
}

/// A backup in sync, of a primary that may ask.
fn asked() -> Host {
    asked_for(VERIFY)
}

fn asked_for(features_optional: u64) -> Host {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    host.event(BackupEvent::Accepted);
    host.tell(Message::Hello(Hello { features_optional, ..host.hello() }));
    let Some(Message::Welcome(welcome)) = host.said.last() else { panic!("{:?}", host.said.last()) };
    assert_eq!(welcome.features, features_optional);
    host
}

fn short(epoch: u64) -> Message {
    Message::Hash(HashRequest { length: DigestLength::Short, ..request(epoch) })
}

fn answer(host: &Host) -> Option<(u64, Result<usize, String>)> {
    match host.said.last() {
        Some(Message::Digests { token, result }) => {
            Some((*token, result.as_ref().map(Digests::count).map_err(Clone::clone)))
        }
        _ => None,
    }
}

/// The epochs of each pass, and 0 for each hashing, in the order of the volume lane.
fn volume_lane(host: &mut Host) -> Vec<u64> {
    let mut order = Vec::new();
    while let Some(next) = host.pending.front() {
        match next {
            BackupAction::Apply { epochs, .. } => order.extend(epochs.iter().map(|sealed| sealed.epoch.0)),
            BackupAction::HashVolumes(_) => order.push(0),
            _ => {}
        }
        host.step();
    }
    order
}

#[test]
fn a_question_without_an_epoch_is_answered_at_once() {
    let mut host = asked();
    host.tell(Message::Hash(request(0)));
    host.finish();
    assert_eq!(answer(&host), Some((100, Ok(2))));
}

#[test]
fn a_question_about_an_epoch_is_answered_between_it_and_the_next() {
    let mut host = asked();
    host.tell(Message::Hash(request(4)));
    for _ in 3..=6 {
        host.epoch();
    }
    // One sync covers the first, the next all others.
    let lane = volume_lane(&mut host);
    let at = lane.iter().position(|epoch| *epoch == 0).unwrap();
    assert_eq!((lane[..at].iter().max(), lane[at + 1..].iter().min()), (Some(&4), Some(&5)), "{lane:?}");
    assert_eq!(answer(&host), Some((104, Ok(2))));
    assert_eq!(host.core.applied(), Epoch(6));
}

#[test]
fn what_is_past_or_does_not_come_by_itself_is_answered_by_a_text() {
    let mut host = asked();
    host.tell(Message::Hash(request(1)));
    assert!(matches!(answer(&host), Some((101, Err(text))) if text.contains("past")));
    // Asked about epoch 3, and it never comes.
    host.tell(Message::Hash(request(3)));
    host.next = 4;
    host.epoch_since(3);
    host.finish();
    assert!(matches!(answer(&host), Some((103, Err(text))) if text.contains("by itself")));
    assert_eq!(host.core.applied(), Epoch(4));
}

#[test]
fn questions_are_of_one_connection_that_agreed_on_them() {
    let mut host = asked();
    host.tell(Message::Hash(request(3)));
    host.event(BackupEvent::Disconnected);
    host.greet(INCARNATION);
    host.epoch();
    host.finish();
    assert_eq!((answer(&host), host.core.applied()), (None, Epoch(3)));
    host.tell(Message::Hash(request(0)));
    assert!(matches!(host.said.last(), Some(Message::Bye { text, .. }) if text.contains("agreed")));

    let mut host = asked();
    let mut beyond = request(0);
    beyond.places[0].extent = extent(1 << 20, 8);
    host.tell(Message::Hash(beyond));
    assert!(matches!(host.said.last(), Some(Message::Bye { text, .. }) if text.contains("whole blocks")));
    assert!(!host.core.is_connected());
}

/// A primary that starts anew counts its questions from 1 again: what the volume lane still does for the one before it
/// would be taken for the answer to another question.
#[test]
fn the_answer_to_a_question_of_an_earlier_connection_is_given_to_nobody() {
    let mut host = asked();
    host.tell(Message::Hash(request(0)));
    host.tell(Message::Hash(request(0)));
    let said = host.said.len();
    host.event(BackupEvent::Disconnected);
    host.event(BackupEvent::Accepted);
    let hello = Hello { features_optional: VERIFY, ..host.hello() };
    host.tell_as(&Message::Hello(hello), Incarnation([0x77; 16]));
    host.tell_as(&Message::Hash(request(0)), Incarnation([0x77; 16]));
    assert_eq!(host.pending.len(), 3, "the lane has not begun");
    host.step();
    host.step();
    assert_eq!((host.said.len(), answer(&host)), (said + 1, None), "two are of the connection before");
    host.step();
    assert_eq!(answer(&host), Some((100, Ok(2))));
}

#[test]
fn a_question_about_the_epoch_held_is_answered_once_that_is_on_the_volumes() {
    let mut host = asked_for(COMPARE);
    host.tell(short(2));
    assert_eq!(volume_lane(&mut host), [0], "it is there already");
    assert!(
        matches!(host.said.last(), Some(Message::Digests { token: 102, result: Ok(Digests::Short(two)) }) if two.len() == 2)
    );
    host.epoch();
    host.tell(short(3));
    assert_eq!(volume_lane(&mut host), [3, 0], "it has to be applied before");
    assert_eq!(answer(&host), Some((103, Ok(2))));
    host.tell(Message::Hash(request(0)));
    assert!(
        matches!(host.said.last(), Some(Message::Bye { text, .. }) if text.contains("agreed")),
        "of another length"
    );
}

#[test]
fn while_a_sync_overwrites_the_volumes_they_are_hashed_behind_what_was_sent() {
    let mut host = asked_for(COMPARE | VERIFY);
    host.tell(Message::SyncBegin { base_id: BASE_ID, base: None });
    host.tell(short(0));
    assert!(matches!(answer(&host), Some((100, Err(_)))), "nothing is settled yet");
    host.finish();
    assert_eq!(host.said.last(), Some(&Message::SyncReady));
    host.tell(short(0));
    host.finish();
    assert_eq!(answer(&host), Some((100, Ok(2))));
    host.tell(short(2));
    assert!(matches!(answer(&host), Some((102, Err(_)))), "no epoch is on them");
    host.tell(Message::BaseEnd { frames: 0, bytes: 0 });
    host.tell(short(0));
    assert!(matches!(answer(&host), Some((100, Err(_)))), "epochs may come");
}

/// Hashings that wait for the volume lane.
fn hashings(host: &Host) -> usize {
    host.pending.iter().filter(|action| matches!(action, BackupAction::HashVolumes(_))).count()
}

#[test]
fn what_is_to_be_hashed_is_bounded_over_all_connections() {
    let mut host = asked();
    for _ in 0..32 {
        host.tell(Message::Hash(request(0)));
    }
    assert_eq!((hashings(&host), host.core.is_connected()), (32, true), "a connection may ask so much");
    host.tell(Message::Hash(request(0)));
    assert!(
        matches!(host.said.last(), Some(Message::Bye { text, .. }) if text.contains("too many questions"))
    );
    for _ in 0..10 {
        host.event(BackupEvent::Accepted);
        host.tell(Message::Hello(Hello { features_optional: VERIFY, ..host.hello() }));
        for _ in 0..100 {
            host.tell(Message::Hash(request(0)));
        }
        assert!(matches!(answer(&host), Some((100, Err(text))) if text.contains("earlier questions")));
        host.event(BackupEvent::Disconnected);
    }
    assert_eq!(hashings(&host), 32, "another connection adds none");
    host.event(BackupEvent::Accepted);
    host.tell(Message::Hello(Hello { features_optional: VERIFY, ..host.hello() }));
    host.finish();
    host.tell(Message::Hash(request(0)));
    host.finish();
    assert_eq!(answer(&host), Some((100, Ok(2))), "when they are done it is answered again");
}
