use super::*;
use crate::rolls::Roll;

/// The eras since which a sync was ordered to look.
fn rolled_since(actions: &[PrimaryAction]) -> Option<Vec<Era>> {
    actions.iter().find_map(|action| match action {
        PrimaryAction::Cut(CutOrder::Roll { since, .. }) => since.clone(),
        _ => None,
    })
}

fn eras(era: u32) -> Vec<Era> {
    vec![Era(era); group().volumes().len()]
}

/// Those since which a capture, or a pause, was ordered to look.
fn straight_since(actions: &[PrimaryAction]) -> Option<Vec<Era>> {
    actions.iter().find_map(|action| match action {
        PrimaryAction::Cut(CutOrder::Start { since }) | PrimaryAction::Cut(CutOrder::Still { since, .. }) => {
            Some(since.clone())
        }
        _ => None,
    })
}

fn stops_capture(actions: &[PrimaryAction]) -> bool {
    actions.iter().any(|action| matches!(action, PrimaryAction::Cut(CutOrder::Stop)))
}

/// The epoch is encoded, and the backup has it.
fn acknowledged(primary: &mut Primary, now: Duration, epoch: u64) -> Vec<PrimaryAction> {
    let digest = Digest([u8::try_from(epoch).unwrap(); 32]);
    primary.handle(
        now,
        PrimaryEvent::Encoded { epoch: Epoch(epoch), digest, stored: 4096, touched: TouchedBytes::default() },
    );
    actions(primary);
    hear(primary, now, &Message::Staged { epoch: Epoch(epoch), digest })
}

/// The capture has begun, with era `era`; lets the sync come to its end at `now` as epoch `epoch`.
fn captured(primary: &mut Primary, now: Duration, epoch: u64, era: u32) -> Vec<PrimaryAction> {
    primary.handle(now, PrimaryEvent::Cut(CutResult::Started { eras: eras(era), bytes: 65536 }));
    primary.handle(now, PrimaryEvent::Copied { frames: 0 });
    primary.handle(now, PrimaryEvent::Cut(CutResult::Taken { eras: None }));
    acknowledged(primary, now, epoch)
}

/// In sync at epoch 8, which a sync made at one second; era 10 began with it, or in it.
fn resting() -> Primary {
    let mut primary = greeted(None);
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Rolled { attempt: 1, eras: eras(9), bytes: 65536 }));
    primary.handle(SECOND, PrimaryEvent::Copied { frames: 0 });
    let done = captured(&mut primary, SECOND, 8, 10);
    assert!(stops_capture(&done), "{done:?}");
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Stopped));
    assert!(primary.is_in_sync() && !primary.is_capturing());
    actions(&mut primary);
    primary
}

/// Connected, a sync from epoch 7 on is to begin.
fn greeted(still_budget: Option<Duration>) -> Primary {
    let mut state = state();
    state
        .rolls
        .push(Roll { epoch: Epoch(6), at_cut: true, eras: vec![Era(7); group().volumes().len()] })
        .unwrap();
    let settings = PrimaryConfig { interval: true, still_budget, epoch_interval: SECOND * 60, ..config() };
    let mut primary = new_primary(settings, state);
    primary.handle(SECOND, PrimaryEvent::StateWritten);
    primary.handle_timeout(SECOND);
    primary.handle(SECOND, PrimaryEvent::Connected);
    let welcome = Message::Welcome(welcome(&primary));
    let begun = hear(&mut primary, SECOND, &welcome);
    assert!(rolled_since(&begun).is_some(), "{begun:?}");
    primary
}

#[test]
fn the_next_epoch_is_what_was_written_since_the_last_ones_capture_began() {
    let mut primary = resting();
    assert_eq!(primary.interval_due(), Some(SECOND * 61));
    // The backup is heard all the time.
    for second in 3..61 {
        hear(&mut primary, SECOND * second, &Message::Pong { token: 0 });
        primary.handle_timeout(SECOND * second);
        assert_eq!(straight_since(&actions(&mut primary)), None);
    }
    hear(&mut primary, SECOND * 61, &Message::Pong { token: 0 });
    primary.handle_timeout(SECOND * 61);
    let begun = actions(&mut primary);
    assert_eq!(straight_since(&begun), Some(eras(10)));
    assert_eq!(rolled_since(&begun), None, "a pause that little change does not ask for");
    assert!(primary.is_in_sync());
    let done = captured(&mut primary, SECOND * 61, 9, 11);
    assert!(stops_capture(&done), "{done:?}");
    assert_eq!(primary.committed(), Epoch(9));
    assert_eq!(primary.last_sync().unwrap().rounds, 1);
}

#[test]
fn an_interval_of_more_than_expected_goes_on_in_rounds_and_the_next_one_begins_with_them() {
    let mut primary = resting();
    let small = primary.config.small_round;
    primary.handle(SECOND, PrimaryEvent::Checkpoint { id: 3, until: Until::Committed });
    assert!(straight_since(&actions(&mut primary)).is_some());
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Started { eras: eras(11), bytes: small + 1 }));
    let done = actions(&mut primary);
    assert!(
        stops_capture(&done) && done.iter().any(|action| matches!(action, PrimaryAction::Copy { .. })),
        "{done:?}"
    );
    primary.handle(SECOND, PrimaryEvent::Copied { frames: 0 });
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Stopped));
    assert_eq!(rolled_since(&actions(&mut primary)), Some(eras(11)));
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Rolled { attempt: 2, eras: eras(12), bytes: 4096 }));
    primary.handle(SECOND, PrimaryEvent::Copied { frames: 0 });
    assert_eq!(straight_since(&actions(&mut primary)), Some(eras(12)));
    captured(&mut primary, SECOND, 9, 13);
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Stopped));
    actions(&mut primary);
    primary.handle(SECOND, PrimaryEvent::Checkpoint { id: 4, until: Until::Committed });
    assert_eq!(rolled_since(&actions(&mut primary)), Some(eras(13)));
}

#[test]
fn whoever_asks_for_a_checkpoint_does_not_wait_for_the_interval() {
    let mut primary = resting();
    primary.handle(SECOND, PrimaryEvent::Checkpoint { id: 3, until: Until::Committed });
    assert!(straight_since(&actions(&mut primary)).is_some());
    let done = captured(&mut primary, SECOND, 9, 11);
    let reached = |action: &PrimaryAction| {
        matches!(action, PrimaryAction::CheckpointReached { id: 3, epoch: Epoch(9), .. })
    };
    assert!(done.iter().any(reached), "{done:?}");
}

/// In sync at epoch 8, with whose pause era 10 began.
fn still() -> Primary {
    let mut primary = greeted(Some(SECOND));
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Rolled { attempt: 1, eras: eras(9), bytes: 65536 }));
    primary.handle(SECOND, PrimaryEvent::Copied { frames: 0 });
    still_round(&mut primary, 1, 8, 10);
    actions(&mut primary);
    primary
}

/// The volumes stood still for this attempt, and era `era` began; that is epoch `epoch` on the backup.
fn still_round(primary: &mut Primary, attempt: u32, epoch: u64, era: u32) -> Vec<PrimaryAction> {
    let ordered = actions(primary);
    let is_ordered = |action: &PrimaryAction| matches!(action, PrimaryAction::Cut(CutOrder::Still { epoch: of, .. }) if *of == Epoch(epoch));
    assert!(ordered.iter().any(is_ordered), "{ordered:?}");
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Still { attempt, eras: eras(era), bytes: 4096 }));
    let copied = actions(primary);
    assert!(copied.iter().any(|action| matches!(action, PrimaryAction::Copy { .. })), "{copied:?}");
    primary.handle(SECOND, PrimaryEvent::Copied { frames: 0 });
    let shipped = actions(primary);
    let is_shipped = |action: &PrimaryAction| matches!(action, PrimaryAction::Ship { epoch: of, .. } if *of == Epoch(epoch));
    assert!(shipped.iter().any(is_shipped), "{shipped:?}");
    acknowledged(primary, SECOND, epoch)
}

#[test]
fn without_a_capture_an_interval_is_one_pause_and_the_next_starts_exactly_there() {
    let mut primary = still();
    assert!(primary.is_in_sync() && !primary.is_capturing());
    assert_eq!(primary.durable.state.rolls.start(Epoch(8)), Some(&*eras(10)));
    primary.handle(SECOND, PrimaryEvent::Checkpoint { id: 3, until: Until::Committed });
    // Came while the volumes stand still: what it asks for is not in the epoch.
    primary.handle(SECOND, PrimaryEvent::Checkpoint { id: 4, until: Until::Committed });
    let done = still_round(&mut primary, 2, 9, 11);
    let reached = |wanted: u64| move |action: &PrimaryAction| matches!(action, PrimaryAction::CheckpointReached { id, .. } if *id == wanted);
    assert!(done.iter().any(reached(3)) && !done.iter().any(reached(4)), "{done:?}");
    primary.handle_timeout(SECOND);
    assert!(still_round(&mut primary, 3, 10, 12).iter().any(reached(4)));
}

#[test]
fn what_is_not_read_in_time_is_one_more_round_and_ever_more_of_them_degrade() {
    let mut primary = still();
    primary.handle(SECOND, PrimaryEvent::Checkpoint { id: 3, until: Until::Committed });
    let limit = primary.config.void_limit;
    for run in 1..=limit {
        let ordered = actions(&mut primary);
        assert!(straight_since(&ordered).is_some(), "{ordered:?}");
        let reason = "too slow".to_owned();
        let in_vain = PrimaryEvent::Cut(CutResult::StillUnread {
            attempt: 2,
            eras: eras(10 + run),
            bytes: 4096,
            reason,
        });
        primary.handle(SECOND, in_vain);
        assert_eq!(primary.is_in_sync(), run < limit);
        if run < limit {
            primary.handle(SECOND, PrimaryEvent::Copied { frames: 0 });
        }
    }
    assert_eq!(primary.counters().void_cuts, u64::from(limit));
}

#[test]
fn a_link_lost_between_two_intervals_degrades_and_the_next_greeting_catches_up() {
    let mut primary = resting();
    actions(&mut primary);
    primary.handle(SECOND * 2, PrimaryEvent::Disconnected { reason: "cut".into() });
    assert!(!primary.is_in_sync());
    assert_eq!(primary.interval_due(), None);
}

#[test]
fn a_cut_follows_the_freeze_at_once_and_a_hook_that_fails_costs_one_interval() {
    let mut primary = resting();
    primary.config.hooks = Some(OnFailure::Skip);
    for (attempt, fails) in [(2, true), (2, false)] {
        primary.handle(SECOND, PrimaryEvent::Checkpoint { id: 3, until: Until::Cut });
        if fails {
            assert!(straight_since(&actions(&mut primary)).is_some());
            primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Started { eras: eras(11), bytes: 4096 }));
        } else {
            primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Stopped));
            assert_eq!(rolled_since(&actions(&mut primary)), Some(eras(11)));
            primary.handle(
                SECOND,
                PrimaryEvent::Cut(CutResult::Rolled { attempt, eras: eras(12), bytes: 4096 }),
            );
            primary.handle(SECOND, PrimaryEvent::Copied { frames: 0 });
            primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Started { eras: eras(13), bytes: 4096 }));
        }
        primary.handle(SECOND, PrimaryEvent::Copied { frames: 0 });
        let freezes = |action: &PrimaryAction| match action {
            PrimaryAction::Freeze { token, .. } => Some(*token),
            _ => None,
        };
        let token = actions(&mut primary).iter().find_map(freezes).expect("the guest is frozen first");
        let result = if fails { Err("no".to_owned()) } else { Ok(()) };
        primary.handle(SECOND, PrimaryEvent::Froze { token, result });
        let done = actions(&mut primary);
        let cuts = done.iter().any(|action| matches!(action, PrimaryAction::Cut(CutOrder::Cut(Cut { .. }))));
        let failed =
            done.iter().any(|action| matches!(action, PrimaryAction::CheckpointFailed { id: 3, .. }));
        assert_eq!((cuts, failed, stops_capture(&done)), (!fails, fails, fails), "{done:?}");
        assert!(primary.is_in_sync());
    }
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Taken { eras: None }));
    assert!(actions(&mut primary).iter().any(|action| matches!(action, PrimaryAction::Thaw)));
}

/// Frozen for the epoch that a checkpoint asked for; the cut is ordered, unless the window is full. The freeze's token.
fn frozen(policy: OnFailure, window: usize) -> (Primary, u64) {
    let mut primary = resting();
    (primary.config.hooks, primary.config.window) = (Some(policy), window);
    primary.handle(SECOND, PrimaryEvent::Checkpoint { id: 3, until: Until::Cut });
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Started { eras: eras(11), bytes: 4096 }));
    primary.config.window = 4;
    primary.handle(SECOND, PrimaryEvent::Copied { frames: 0 });
    let freezes = |action: &PrimaryAction| match action {
        PrimaryAction::Freeze { token, .. } => Some(*token),
        _ => None,
    };
    let token = actions(&mut primary).iter().find_map(freezes).expect("the guest is frozen first");
    primary.config.window = window;
    primary.handle(SECOND, PrimaryEvent::Froze { token, result: Ok(()) });
    (primary, token)
}

fn is_cut(actions: &[PrimaryAction]) -> bool {
    actions.iter().any(|action| matches!(action, PrimaryAction::Cut(CutOrder::Cut(_))))
}

#[test]
fn a_guest_that_goes_on_unordered_before_its_cut_is_a_hook_that_failed() {
    // The cut waits for the window: it is skipped, or made all the same.
    let (mut primary, token) = frozen(OnFailure::Skip, 0);
    assert!(!is_cut(&actions(&mut primary)));
    primary.handle(SECOND, PrimaryEvent::ThawedEarly { token });
    let done = actions(&mut primary);
    let failed = done.iter().any(|action| matches!(action, PrimaryAction::CheckpointFailed { id: 3, .. }));
    assert!(failed && stops_capture(&done) && primary.counters().hooks_failed == 1, "{done:?}");
    let (mut primary, token) = frozen(OnFailure::Cut, 0);
    primary.handle(SECOND, PrimaryEvent::ThawedEarly { token });
    primary.config.window = 4;
    primary.handle_timeout(SECOND + SECOND / 3);
    assert!(is_cut(&actions(&mut primary)) && primary.counters().hooks_failed == 1);
}

#[test]
fn a_guest_that_goes_on_unordered_during_its_cut_leaves_none_that_counts_as_clean() {
    for is_taken in [false, true] {
        let (mut primary, token) = frozen(OnFailure::Skip, 4);
        assert!(is_cut(&actions(&mut primary)));
        if is_taken {
            primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Taken { eras: None }));
        }
        primary.handle(SECOND, PrimaryEvent::ThawedEarly { token: token + 1 });
        assert_eq!(primary.counters().hooks_failed, 0, "that is of no freeze");
        primary.handle(SECOND, PrimaryEvent::ThawedEarly { token });
        assert_eq!(primary.counters().hooks_failed, 1);
    }
}
