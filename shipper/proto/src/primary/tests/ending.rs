//! When a sync has come to its end, and when a primary forgets that it went on alone.

use super::*;
use crate::protocol::{ACK_RECEIVED, EXTERNAL_COMMIT};
use crate::rolls::Roll;

const EPOCH: Epoch = Epoch(8);
const DIGEST: Digest = Digest([8; 32]);

/// It went on alone, and everything that it has is cut, as epoch 8, and on its way.
fn finishing(commit: CommitPolicy, features: u64) -> Primary {
    let mut state = DurableState { alone: Some(Epoch(7)), ..state() };
    let eras = vec![Era(7); group().volumes().len()];
    state.rolls.push(Roll { epoch: Epoch(6), at_cut: true, eras: eras.clone() }).unwrap();
    let mut primary = new_primary(PrimaryConfig { commit, ..config() }, state);
    primary.handle_timeout(SECOND);
    primary.handle(SECOND, PrimaryEvent::Connected);
    let welcome = Message::Welcome(Welcome { features, ..welcome(&primary) });
    hear(&mut primary, SECOND, &welcome);
    let later = |era| vec![Era(era); group().volumes().len()];
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Rolled { attempt: 1, eras: later(9), bytes: 4096 }));
    primary.handle(SECOND, PrimaryEvent::Copied { frames: 0 });
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Started { eras: later(10), bytes: 4096 }));
    primary.handle(SECOND, PrimaryEvent::Copied { frames: 0 });
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Taken { eras: None }));
    let touched = TouchedBytes::default();
    primary.handle(SECOND, PrimaryEvent::Encoded { epoch: EPOCH, digest: DIGEST, stored: 4096, touched });
    actions(&mut primary);
    primary
}

fn staged() -> Message {
    Message::Staged { epoch: EPOCH, digest: DIGEST }
}

fn report(committed: u64, durable: Option<u64>) -> Message {
    let (committed, durable) = (Epoch(committed), durable.map(Epoch));
    let (journal_used, journal_size, room) = (0, 1 << 24, None);
    Message::Report { committed, applied: Epoch(7), durable, journal_used, journal_size, room }
}

/// Whether it says that it is in sync, and that it has writes of its own.
fn says(primary: &Primary) -> (bool, bool) {
    (primary.is_in_sync(), primary.durable.state.alone.is_some())
}

#[test]
fn where_staged_means_durable_it_ends_the_sync() {
    let mut primary = finishing(CommitPolicy::Auto, 0);
    hear(&mut primary, SECOND, &report(7, Some(7)));
    assert_eq!(says(&primary), (false, true));
    hear(&mut primary, SECOND, &staged());
    assert_eq!(says(&primary), (true, false));
}

#[test]
fn what_was_only_received_ends_no_sync() {
    for (name, durable) in [("a backup", Some(7)), ("an older one", None)] {
        let mut primary = finishing(CommitPolicy::Auto, ACK_RECEIVED);
        hear(&mut primary, SECOND, &staged());
        assert_eq!(says(&primary), (false, true), "{name}");
        hear(&mut primary, SECOND, &report(7, durable));
        assert_eq!(says(&primary), (false, true), "{name}");
        hear(&mut primary, SECOND, &report(8, durable.map(|_| 8)));
        assert_eq!(says(&primary), (true, false), "{name}");
    }
}

#[test]
fn a_coordinator_is_not_waited_for_but_nothing_is_forgotten_before_its_word_is_done() {
    for features in [EXTERNAL_COMMIT, EXTERNAL_COMMIT | ACK_RECEIVED] {
        let mut primary = finishing(CommitPolicy::External, features);
        hear(&mut primary, SECOND, &staged());
        assert_eq!(says(&primary), (features & ACK_RECEIVED == 0, true));
        hear(&mut primary, SECOND, &report(7, Some(8)));
        assert_eq!(says(&primary), (true, true));
        hear(&mut primary, SECOND, &report(8, Some(8)));
        assert_eq!(says(&primary), (true, false));
    }
}

#[test]
fn a_report_from_before_the_cut_says_nothing_of_it() {
    let mut primary = finishing(CommitPolicy::Auto, ACK_RECEIVED);
    hear(&mut primary, SECOND, &report(8, Some(8)));
    assert_eq!(says(&primary), (false, true), "it was not staged as what was cut here");
}
