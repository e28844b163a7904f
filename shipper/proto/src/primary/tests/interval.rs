use super::*;
use crate::message::Message;
use crate::protocol::PROTOCOL;
use crate::rolls::Roll;
use crate::state::Content;

const STAMP: Incarnation = Incarnation([0xa1; 16]);

fn hear(primary: &mut Primary, now: Duration, message: &Message) -> Vec<PrimaryAction> {
    primary.handle(now, PrimaryEvent::Frame(message.encode(1, STAMP)));
    actions(primary)
}

/// The eras since which a sync was ordered to look.
fn rolled_since(actions: &[PrimaryAction]) -> Option<Vec<Era>> {
    actions.iter().find_map(|action| match action {
        PrimaryAction::Roll { since, .. } => since.clone(),
        _ => None,
    })
}

/// Lets the sync that has begun come to its end at `now` as epoch `epoch`, its rolls beginning `era` and the one after.
fn sync(primary: &mut Primary, now: Duration, attempt: u32, epoch: u64, era: u32) -> Vec<PrimaryAction> {
    let eras = |era: u32| vec![Era(era); group().volumes().len()];
    primary.handle(now, PrimaryEvent::Rolled { attempt, eras: eras(era), bytes: 65536 });
    primary.handle(now, PrimaryEvent::Copied { frames: 0 });
    primary.handle(now, PrimaryEvent::CaptureStarted { eras: eras(era + 1), bytes: 0 });
    primary.handle(now, PrimaryEvent::Copied { frames: 0 });
    primary.handle(now, PrimaryEvent::CutTaken { eras: None });
    let digest = Digest([u8::try_from(epoch).unwrap(); 32]);
    primary.handle(now, PrimaryEvent::Encoded { epoch: Epoch(epoch), digest, stored: 4096 });
    actions(primary);
    hear(primary, now, &Message::Staged { epoch: Epoch(epoch), digest })
}

/// In sync at epoch 8, which a sync made at one second.
fn resting() -> Primary {
    let mut state = state();
    state
        .rolls
        .push(Roll { epoch: Epoch(6), at_cut: true, eras: vec![Era(7); group().volumes().len()] })
        .unwrap();
    let settings = PrimaryConfig { interval: true, epoch_interval: SECOND * 60, ..config() };
    let mut primary = Primary::new(settings, state);
    primary.handle(SECOND, PrimaryEvent::StateWritten);
    primary.handle_timeout(SECOND);
    primary.handle(SECOND, PrimaryEvent::Connected);
    let welcome = Message::Welcome(Welcome {
        protocol: PROTOCOL,
        features: 0,
        lineage: primary.state.lineage.clone(),
        highest_epoch_seen: Epoch(7),
        committed: Epoch(7),
        chain_digest: Digest([7; 32]),
        content: Content::Consistent,
        role: Role::Backup,
        journal_size: Some(1 << 24),
        held: Some(Epoch(7)),
    });
    hear(&mut primary, SECOND, &welcome);
    let done = sync(&mut primary, SECOND, 1, 8, 9);
    assert!(done.iter().any(|action| matches!(action, PrimaryAction::StopCapture)), "{done:?}");
    primary.handle(SECOND, PrimaryEvent::CaptureStopped);
    assert!(primary.is_in_sync() && !primary.is_capturing());
    primary
}

#[test]
fn the_next_epoch_is_what_was_written_since_the_last_ones_capture_began() {
    let mut primary = resting();
    actions(&mut primary);
    assert_eq!(primary.interval_due(), Some(SECOND * 61));
    // The backup is heard all the time.
    for second in 3..61 {
        hear(&mut primary, SECOND * second, &Message::Pong { token: 0 });
        primary.handle_timeout(SECOND * second);
        assert_eq!(rolled_since(&actions(&mut primary)), None);
    }
    hear(&mut primary, SECOND * 61, &Message::Pong { token: 0 });
    primary.handle_timeout(SECOND * 61);
    assert_eq!(rolled_since(&actions(&mut primary)), Some(vec![Era(10); group().volumes().len()]));
    assert!(primary.is_in_sync());
    let done = sync(&mut primary, SECOND * 61, 2, 9, 11);
    assert!(done.iter().any(|action| matches!(action, PrimaryAction::StopCapture)), "{done:?}");
    assert_eq!(primary.committed(), Epoch(9));
}

#[test]
fn whoever_asks_for_a_checkpoint_does_not_wait_for_the_interval() {
    let mut primary = resting();
    actions(&mut primary);
    primary.handle(SECOND, PrimaryEvent::Checkpoint { id: 3, until: Until::Committed });
    assert!(rolled_since(&actions(&mut primary)).is_some());
    let done = sync(&mut primary, SECOND, 2, 9, 11);
    let reached = |action: &PrimaryAction| {
        matches!(action, PrimaryAction::CheckpointReached { id: 3, epoch: Epoch(9), .. })
    };
    assert!(done.iter().any(reached), "{done:?}");
}

#[test]
fn a_link_lost_between_two_intervals_degrades_and_the_next_greeting_catches_up() {
    let mut primary = resting();
    actions(&mut primary);
    primary.handle(SECOND * 2, PrimaryEvent::Disconnected { reason: "cut".into() });
    assert!(!primary.is_in_sync());
    assert_eq!(primary.interval_due(), None);
}
