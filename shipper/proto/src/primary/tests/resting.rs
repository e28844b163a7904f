//! When a cut may be left out.

use super::switching::in_sync;
use super::*;

const TICK: Duration = Duration::from_millis(50);

/// The cut that is ordered at `now`: whether it may be left out. `None`: no cut.
fn tick(primary: &mut Primary, now: Duration) -> Option<bool> {
    primary.handle_timeout(now);
    ordered(primary)
}

fn ordered(primary: &mut Primary) -> Option<bool> {
    actions(primary).iter().find_map(|action| match action {
        PrimaryAction::Cut(CutOrder::Cut(Cut { may_rest, .. })) => Some(*may_rest),
        _ => None,
    })
}

/// A pair that is in sync, whose next tick is at the time returned, and which was cut there.
fn resting() -> (Primary, Duration) {
    let mut primary = in_sync();
    primary.tune(SECOND, tuning(&PrimaryConfig { timeout: 1000 * SECOND, ..config() }));
    let now = SECOND + TICK;
    primary.cuts.cut_at = now;
    assert!(tick(&mut primary, now).is_some());
    primary.handle(now, PrimaryEvent::Cut(CutResult::Taken { eras: None }));
    actions(&mut primary);
    (primary, now)
}

#[test]
fn nothing_is_cut_for_a_second_at_most() {
    let (mut primary, begun) = resting();
    let before = primary.last_cut();
    let mut now = begun;
    while now + TICK < begun + SECOND {
        now += TICK;
        assert_eq!(tick(&mut primary, now), Some(true), "{now:?}");
        primary.handle(now, PrimaryEvent::Cut(CutResult::Idle));
        assert_eq!(ordered(&mut primary), None, "one look a tick");
        assert_eq!(primary.last_cut(), before, "what was left out has no number");
    }
    assert_eq!(tick(&mut primary, now + TICK), Some(false), "a second is over");
    assert_eq!(primary.counters().idle_ticks, 19);
}

#[test]
fn an_interval_of_a_second_or_more_has_no_rests() {
    let (mut primary, begun) = resting();
    primary.tune(
        begun,
        tuning(&PrimaryConfig { epoch_interval: 2 * SECOND, timeout: 1000 * SECOND, ..config() }),
    );
    assert_eq!(tick(&mut primary, begun + 2 * SECOND), Some(false));
}

#[test]
fn whoever_waits_for_a_cut_gets_it() {
    let (mut primary, now) = resting();
    primary.handle(now + TICK / 2, PrimaryEvent::Checkpoint { id: 1, until: Until::Cut });
    assert_eq!(ordered(&mut primary), Some(false), "asked for before the order");
    primary.handle(now + TICK / 2, PrimaryEvent::Cut(CutResult::Taken { eras: None }));
    actions(&mut primary);
    let now = now + 3 * TICK;
    assert_eq!(tick(&mut primary, now), Some(true));
    primary.handle(now, PrimaryEvent::Checkpoint { id: 2, until: Until::Cut });
    assert_eq!(ordered(&mut primary), None, "one cut at a time");
    primary.handle(now, PrimaryEvent::Cut(CutResult::Idle));
    assert_eq!(ordered(&mut primary), Some(false), "asked for meanwhile: at once");
    primary.handle(now, PrimaryEvent::Cut(CutResult::Taken { eras: None }));
    let answers = actions(&mut primary);
    assert!(answers.iter().any(|action| matches!(action, PrimaryAction::CheckpointReached { id: 2, .. })));
}

#[test]
fn a_verify_a_roll_and_a_switch_get_their_cuts() {
    let (mut primary, now) = resting();
    primary.handle(now, PrimaryEvent::Verify { id: 1, repair: false });
    actions(&mut primary);
    assert_eq!(tick(&mut primary, now + TICK), Some(false), "a verify");

    let (mut primary, _) = resting();
    let config = PrimaryConfig { timeout: 1000 * SECOND, roll_interval: TICK, ..config() };
    primary.tune(now, tuning(&config));
    let touched = TouchedBytes { since_roll: 1 << 40, recent: 0 };
    primary.handle(now, PrimaryEvent::Encoded { epoch: Epoch(1), digest: Digest::ZERO, stored: 0, touched });
    assert_eq!(tick(&mut primary, now + 2 * TICK), Some(false), "a roll");

    let (mut primary, now) = resting();
    assert_eq!(tick(&mut primary, now + TICK), Some(true));
    let usage = Usage { open: false, written: true, mark: None };
    primary.handle(now + TICK, PrimaryEvent::Used(usage));
    primary.handle(now + TICK, PrimaryEvent::Switch { id: 1, generation: [7; 16], stall: true });
    primary.commits.in_flight.clear();
    primary.handle(now + TICK, PrimaryEvent::Cut(CutResult::Idle));
    assert_eq!(ordered(&mut primary), Some(false), "a switch");
}
