//! How often the backup is tried.

use super::*;
use crate::message::ByeCause;
use crate::primary::plan::Carrier;

/// When the next attempt to connect is made, and it fails like this.
fn attempt(primary: &mut Primary, fail: impl FnOnce(&mut Primary, Duration)) -> Duration {
    let at = primary.poll_timeout().unwrap();
    primary.handle_timeout(at);
    assert!(matches!(&actions(primary)[..], [.., PrimaryAction::Connect]), "an attempt is due");
    fail(primary, at);
    at
}

fn refused(primary: &mut Primary, now: Duration) {
    primary.handle(now, PrimaryEvent::Disconnected { reason: "connection refused".into() });
}

fn silent(primary: &mut Primary, _: Duration) {
    let deadline = primary.poll_timeout().unwrap();
    primary.handle_timeout(deadline);
    assert!(!primary.is_connected());
}

fn hung_up(primary: &mut Primary, now: Duration) {
    primary.handle(now, PrimaryEvent::Connected);
    primary.handle(now, PrimaryEvent::Disconnected { reason: "the peer closed the connection".into() });
}

#[test]
fn whoever_cannot_be_reached_is_tried_steadily_and_whoever_hangs_up_ever_more_rarely() {
    let mut primary = new_primary(PrimaryConfig { timeout: 10 * SECOND, ..config() }, state());
    primary.handle(SECOND, PrimaryEvent::StateWritten);
    let mut gaps = |fail: fn(&mut Primary, Duration)| {
        let times: Vec<Duration> = (0..8).map(|_| attempt(&mut primary, fail)).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>()
    };
    assert!(gaps(refused).iter().all(|gap| *gap == SECOND));
    assert!(gaps(silent).iter().all(|gap| *gap == SECOND * 9 / 4), "the kernel tries twice in each");
    let rarer = gaps(hung_up);
    assert!(rarer.is_sorted() && rarer[1] > SECOND / 4 && rarer[6] == 5 * SECOND, "{rarer:?}");
}

/// After two goodbyes of this kind while a sync is staged, how the next one goes about it.
fn staged_again_after(cause: ByeCause) -> bool {
    let mut primary = new_primary(config(), fence::with_rolls());
    let mut now = SECOND;
    for _ in 0..3 {
        primary.handle_timeout(now);
        primary.handle(now, PrimaryEvent::Connected);
        let welcome = Welcome { held: Some(Epoch(95)), committed: Epoch(95), ..welcome(&primary) };
        hear(&mut primary, now, &Message::Welcome(welcome));
        let eras = vec![Era(8); group().volumes().len()];
        let attempt = primary.syncing.attempts;
        primary.handle(now, PrimaryEvent::Cut(CutResult::Rolled { attempt, eras, bytes: 4096 }));
        let is_staged = primary.syncing.attempt.carrier == Some(Carrier::Staged);
        actions(&mut primary);
        if !is_staged {
            return false;
        }
        hear(&mut primary, now, &Message::Bye { text: "so it is".into(), cause });
        now += 60 * SECOND;
    }
    true
}

#[test]
fn only_what_the_journal_does_not_take_is_written_in_place_the_next_time() {
    assert!(staged_again_after(ByeCause::Other), "a backup that was restarted gives up nothing for that");
    assert!(!staged_again_after(ByeCause::Journal));
    assert!(!staged_again_after(ByeCause::Unsaid), "of an earlier version, which does not say why");
}
