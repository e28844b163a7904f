//! A last round that takes longer than the log takes to fill.

use super::*;

fn eras(era: u32) -> Vec<Era> {
    vec![Era(era); group().volumes().len()]
}

/// Writes are captured, and the last round of a sync in place is being copied.
fn in_last_round(config: PrimaryConfig) -> Primary {
    let mut primary = new_primary(config, state());
    primary.handle_timeout(SECOND);
    primary.handle(SECOND, PrimaryEvent::Connected);
    let greeting = Message::Welcome(welcome(&primary));
    hear(&mut primary, SECOND, &greeting);
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Rolled { attempt: 1, eras: eras(8), bytes: 65536 }));
    tried(&mut primary);
    hear(&mut primary, SECOND, &Message::SyncReady);
    primary.handle(SECOND, PrimaryEvent::Copied { frames: 0 });
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Started { eras: eras(9), bytes: 1 << 20 }));
    actions(&mut primary);
    assert_eq!(primary.syncing.step, SyncStep::LastRound);
    primary
}

fn log(primary: &mut Primary, now: Duration, used: u64) -> Vec<PrimaryAction> {
    primary.handle(now, PrimaryEvent::Cut(CutResult::LogUse { used, capacity: 1000 }));
    actions(primary)
}

fn is_part(action: &PrimaryAction) -> bool {
    matches!(action, PrimaryAction::Cut(CutOrder::Cut(Cut { epoch: Epoch(8), part: true, roll: false, .. })))
}

/// A part is cut off. Returns what follows.
fn part(primary: &mut Primary, now: Duration) -> Vec<PrimaryAction> {
    let ordered = log(primary, now, 400);
    assert!(ordered.iter().any(is_part), "{ordered:?}");
    primary.handle(now, PrimaryEvent::Cut(CutResult::Taken { eras: None }));
    actions(primary)
}

#[test]
fn when_the_log_fills_a_part_goes_out_and_the_epoch_goes_on() {
    let mut primary = in_last_round(config());
    assert!(log(&mut primary, 2 * SECOND, 290).is_empty());
    for n in 2..6 {
        let done = part(&mut primary, n * SECOND);
        assert!(matches!(done[..], [PrimaryAction::ShipPart]), "{done:?}");
    }
    assert_eq!(primary.last_cut(), Epoch(7), "no epoch has ended");
    assert!(!log(&mut primary, 6 * SECOND, 500).iter().any(is_part), "as many as epochs are under way");
    primary.handle(6 * SECOND, PrimaryEvent::PartEncoded { stored: 4096, frames: 1 });
    actions(&mut primary);
    part(&mut primary, 7 * SECOND);
}

#[test]
fn a_part_that_is_being_cut_goes_before_the_end_of_the_copy() {
    let mut primary = in_last_round(config());
    assert!(log(&mut primary, SECOND, 400).iter().any(is_part));
    primary.handle(SECOND, PrimaryEvent::Copied { frames: 3 });
    assert!(actions(&mut primary).is_empty());
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Taken { eras: None }));
    let done = actions(&mut primary);
    assert!(matches!(done[..], [PrimaryAction::ShipPart]), "{done:?}");
    primary.handle(SECOND, PrimaryEvent::PartEncoded { stored: 4096, frames: 1 });
    let done = actions(&mut primary);
    let ends = matches!(done[..], [PrimaryAction::Cut(CutOrder::Cut(Cut { part: false, .. })), ..]);
    assert!(ends, "{done:?}");
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Taken { eras: None }));
    let done = actions(&mut primary);
    let ends = matches!(
        done[..],
        [
            PrimaryAction::SendInOrder(Message::BaseEnd { .. }),
            PrimaryAction::Ship { epoch: Epoch(8), .. },
            ..
        ]
    );
    assert!(ends, "{done:?}");
    let mut primary = in_last_round(config());
    log(&mut primary, SECOND, 400);
    primary.handle(SECOND, PrimaryEvent::Copied { frames: 3 });
    for _ in 0..10 {
        primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Void { reason: "too slow".into() }));
    }
    assert_eq!(primary.syncing.step, SyncStep::Finishing, "a part that is void does not matter");
}

#[test]
fn writers_that_outrun_the_parts_cost_another_round_and_not_the_sync() {
    let mut primary = in_last_round(PrimaryConfig { throttles: true, ..config() });
    part(&mut primary, 2 * SECOND);
    let done = log(&mut primary, 3 * SECOND, 900);
    assert!(done.iter().any(|action| matches!(action, PrimaryAction::Cut(CutOrder::Stop))), "{done:?}");
    assert_eq!((primary.syncing.step, primary.replication()), (SyncStep::Copying, &Replication::Syncing));
    assert!(primary.sync_text().is_some_and(|text| text.contains("MB/s")), "{:?}", primary.sync_text());
    primary.handle(3 * SECOND, PrimaryEvent::Cut(CutResult::Stopped));
    primary.handle(3 * SECOND, PrimaryEvent::Copied { frames: 3 });
    assert!(actions(&mut primary).is_empty(), "a part is not out");
    primary.handle(3 * SECOND, PrimaryEvent::PartEncoded { stored: 4096, frames: 1 });
    let done = actions(&mut primary);
    let again = |action: &PrimaryAction| {
        matches!(action, PrimaryAction::Cut(CutOrder::Start { since }) if *since == eras(9))
            || matches!(action, PrimaryAction::Cut(CutOrder::Roll { since: Some(since), .. }) if *since == eras(9))
    };
    assert!(done.iter().any(again), "{done:?}");
}

#[test]
fn a_log_that_overflows_in_a_last_round_costs_another_round_too() {
    let mut primary = in_last_round(config());
    primary.handle(2 * SECOND, PrimaryEvent::Cut(CutResult::LogOff { reason: "log off".into() }));
    assert_eq!((primary.syncing.step, primary.replication()), (SyncStep::Copying, &Replication::Syncing));
    let mut primary = switching::in_sync();
    primary.handle(2 * SECOND, PrimaryEvent::Cut(CutResult::LogOff { reason: "log off".into() }));
    assert!(matches!(primary.replication(), Replication::Degraded { .. }));
}

#[test]
fn a_log_that_is_full_before_the_epoch_is_acknowledged_costs_another_sync_from_that_epoch() {
    let mut primary = in_last_round(config());
    primary.handle(SECOND, PrimaryEvent::Copied { frames: 3 });
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Taken { eras: None }));
    let (epoch, digest, touched) = (Epoch(8), Digest([3; 32]), TouchedBytes::default());
    primary.handle(SECOND, PrimaryEvent::Encoded { epoch, digest, stored: 4096, touched });
    actions(&mut primary);
    let done = log(&mut primary, 2 * SECOND, 900);
    assert!(done.iter().any(|action| matches!(action, PrimaryAction::Cut(CutOrder::Stop))), "{done:?}");
    primary.handle(
        2 * SECOND,
        PrimaryEvent::Cut(CutResult::LogOff { reason: "it overflows before the capture is stopped".into() }),
    );
    assert_eq!(primary.replication(), &Replication::Syncing);
    let done = hear(&mut primary, 3 * SECOND, &Message::Staged { epoch, digest });
    assert_eq!((primary.committed(), primary.replication()), (Epoch(8), &Replication::Syncing));
    let rolls = |action: &PrimaryAction| matches!(action, PrimaryAction::Cut(CutOrder::Roll { since: Some(since), .. }) if *since == eras(9));
    assert!(done.iter().any(rolls), "{done:?}");
    primary.handle(3 * SECOND, PrimaryEvent::Cut(CutResult::Stopped));
    primary
        .handle(3 * SECOND, PrimaryEvent::Cut(CutResult::Rolled { attempt: 2, eras: eras(10), bytes: 4096 }));
    let done = actions(&mut primary);
    let staged = |action: &PrimaryAction| {
        matches!(action, PrimaryAction::OpenCatchUp { first: Epoch(9), epoch: Epoch(9), .. })
    };
    assert!(done.iter().any(staged), "{done:?}");
}
