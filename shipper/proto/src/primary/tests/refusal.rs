//! A capture that is refused.

use super::*;

/// A backup that holds epoch 7, of which nothing is known since, was greeted; dm-era was rolled. What is done then.
fn rolled(primary: &mut Primary, now: Duration, attempt: u32) -> Vec<PrimaryAction> {
    primary.handle_timeout(now);
    primary.handle(now, PrimaryEvent::Connected);
    let greeting = Message::Welcome(welcome(primary));
    hear(primary, now, &greeting);
    let eras = vec![Era(7 + attempt); group().volumes().len()];
    primary.handle(now, PrimaryEvent::Cut(CutResult::Rolled { attempt, eras, bytes: 65536 }));
    actions(primary)
}

fn tries(done: &[PrimaryAction]) -> bool {
    done.iter().any(|action| matches!(action, PrimaryAction::Cut(CutOrder::Try { .. })))
}

fn overwrites(done: &[PrimaryAction]) -> bool {
    done.iter().any(|action| matches!(action, PrimaryAction::Send(Message::SyncBegin { .. })))
}

fn refuse(primary: &mut Primary, now: Duration, attempt: u32) -> Vec<PrimaryAction> {
    primary.handle(now, PrimaryEvent::Cut(CutResult::Tried { attempt, result: Err("refused".into()) }));
    actions(primary)
}

fn reason(primary: &Primary) -> String {
    match primary.replication() {
        Replication::Degraded { reason } => reason.clone(),
        other => panic!("{other:?}"),
    }
}

/// Refused at 1 and at 11 seconds.
fn refused_twice() -> Primary {
    let mut primary = new_primary(config(), state());
    for (attempt, at) in [(1, SECOND), (2, 11 * SECOND)] {
        assert!(tries(&rolled(&mut primary, at, attempt)));
        assert!(!overwrites(&refuse(&mut primary, at, attempt)));
    }
    primary
}

#[test]
fn a_backup_is_overwritten_only_after_a_capture_was_tried() {
    let mut primary = new_primary(config(), state());
    let done = rolled(&mut primary, SECOND, 1);
    assert!(tries(&done) && !overwrites(&done), "{done:?}");
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Tried { attempt: 0, result: Ok(()) }));
    assert!(actions(&mut primary).is_empty(), "another attempt's");
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Tried { attempt: 1, result: Ok(()) }));
    assert!(overwrites(&actions(&mut primary)));
}

#[test]
fn after_two_refusals_the_pair_stays_connected_and_waits() {
    let mut primary = refused_twice();
    assert!(reason(&primary).contains("2 times for the same reason: refused"), "{}", reason(&primary));
    let at = 20 * SECOND;
    assert!(!tries(&rolled(&mut primary, at, 3)), "tried again after 9 seconds");
    assert!(primary.is_connected() && reason(&primary).contains("refused"));
    primary.handle_timeout(at);
    actions(&mut primary);
    assert!(primary.poll_timeout().is_some_and(|due| due > at));
    // 30 seconds after the second refusal; the backup is greeted once more for it.
    primary.handle(41 * SECOND, PrimaryEvent::Frame(Message::Ping { token: 0 }.encode(1, STAMP)));
    primary.handle_timeout(41 * SECOND);
    assert!(actions(&mut primary).iter().any(|action| matches!(action, PrimaryAction::Connect)));
    assert!(tries(&rolled(&mut primary, 41 * SECOND, 3)));
    refuse(&mut primary, 41 * SECOND, 3);
    assert!(reason(&primary).contains("60s after"), "{}", reason(&primary));
}

#[test]
fn a_reload_tries_again_at_once() {
    let mut primary = refused_twice();
    rolled(&mut primary, 20 * SECOND, 3);
    primary.tune(20 * SECOND, tuning(&PrimaryConfig { roll_interval: SECOND, ..config() }));
    assert_eq!(primary.poll_timeout(), Some(20 * SECOND));
    assert!(tries(&rolled(&mut primary, 20 * SECOND, 3)));
}

#[test]
fn other_reasons_and_captures_that_begin_are_counted_anew() {
    let mut primary = refused_twice();
    rolled(&mut primary, 41 * SECOND, 3);
    primary.handle(
        41 * SECOND,
        PrimaryEvent::Cut(CutResult::Tried { attempt: 3, result: Err("another".into()) }),
    );
    assert_eq!(reason(&primary), "the capture cannot begin: another");
    actions(&mut primary);
    assert!(tries(&rolled(&mut primary, 50 * SECOND, 4)));
}
