//! Answers about what the volumes hold.

use super::*;
use crate::ids::VolumeIndex;
use crate::protocol::VERIFY;
use crate::testing::extent;
use crate::verify::Place;
use ftdm_units::Sectors;

fn request(epoch: u64) -> HashRequest {
    let places = vec![Place { volume: VolumeIndex(1), extent: extent(8, 16) }];
    HashRequest { token: epoch + 100, epoch: Epoch(epoch), unit: Sectors(8), places }
}

/// A backup in sync, of a primary that may ask.
fn asked() -> Host {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    host.event(BackupEvent::Accepted);
    host.tell(Message::Hello(Hello { features_optional: VERIFY, ..host.hello() }));
    let Some(Message::Welcome(welcome)) = host.said.last() else { panic!("{:?}", host.said.last()) };
    assert_eq!(welcome.features, VERIFY);
    host
}

fn answer(host: &Host) -> Option<(u64, Result<usize, String>)> {
    match host.said.last() {
        Some(Message::Digests { token, result }) => {
            Some((*token, result.as_ref().map(Vec::len).map_err(Clone::clone)))
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
    host.tell(Message::Hash(request(2)));
    assert!(matches!(answer(&host), Some((102, Err(text))) if text.contains("past")));
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
    assert!(matches!(host.said.last(), Some(Message::Bye { text }) if text.contains("agreed")));

    let mut host = asked();
    let mut beyond = request(0);
    beyond.places[0].extent = extent(1 << 20, 8);
    host.tell(Message::Hash(beyond));
    assert!(matches!(host.said.last(), Some(Message::Bye { text }) if text.contains("whole blocks")));
    assert!(!host.core.is_connected());
}
