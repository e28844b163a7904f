//! What is ordered, and shown, while cuts do not come.

use super::switching::in_sync;
use super::*;

const TICK: Duration = Duration::from_millis(50);

fn follows(actions: &[PrimaryAction]) -> usize {
    actions.iter().filter(|action| matches!(action, PrimaryAction::Cut(CutOrder::Follow))).count()
}

/// Lets the next cut, at `now`, succeed; its epoch is encoded and not acknowledged.
fn cut(primary: &mut Primary, now: Duration) {
    primary.cuts.cut_at = now;
    primary.handle_timeout(now);
    let epoch = primary.cuts.cutting.expect("a cut is due");
    primary.handle(now, PrimaryEvent::Cut(CutResult::Taken { eras: None }));
    let (digest, touched) = (Digest([3; 32]), TouchedBytes::default());
    primary.handle(now, PrimaryEvent::Encoded { epoch, digest, stored: 4096, touched });
    actions(primary);
}

#[test]
fn while_the_window_is_full_one_follow_is_ordered_at_a_time() {
    let mut primary = in_sync();
    (0..4).for_each(|n| cut(&mut primary, SECOND + n * TICK));
    let mut now = SECOND + 4 * TICK;
    let mut tick = |primary: &mut Primary| {
        now += TICK;
        primary.handle_timeout(now);
        follows(&actions(primary))
    };
    assert_eq!([(); 5].map(|()| tick(&mut primary)), [1, 0, 0, 0, 0], "it is not done");
    primary.handle(2 * SECOND, PrimaryEvent::Cut(CutResult::Followed));
    assert_eq!([(); 3].map(|()| tick(&mut primary)), [1, 0, 0]);
}

#[test]
fn in_sync_without_a_cut_for_ten_epochs_there_is_a_reason() {
    let mut primary = in_sync();
    let text = |primary: &Primary, at| primary.stall_text(at).unwrap_or_default();
    (0..4).for_each(|n| cut(&mut primary, SECOND + n * TICK));
    let last = SECOND + 3 * TICK;
    assert_eq!(primary.stall_text(last + 10 * TICK), None);
    let late = last + 11 * TICK;
    assert!(text(&primary, late).contains("the window is full, 4 epochs"), "{}", text(&primary, late));
    let silent = last + 2 * SECOND;
    assert!(text(&primary, silent).contains("nothing was heard for"), "{}", text(&primary, silent));
    hear(&mut primary, late, &Message::Staged { epoch: Epoch(12), digest: Digest([3; 32]) });
    primary.handle_timeout(late + TICK);
    assert!(primary.cuts.cutting.is_some() && text(&primary, late + TICK).contains("a cut is under way"));
    primary.handle(late + TICK, PrimaryEvent::Cut(CutResult::Void { reason: "too slow".into() }));
    assert!(text(&primary, late + TICK).ends_with("the last cut was void: too slow"));
    cut(&mut primary, late + 2 * TICK);
    assert_eq!(primary.stall_text(late + 2 * TICK), None);
}
