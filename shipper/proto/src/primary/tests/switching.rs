//! The roles are exchanged while the volumes are in use.

use super::*;
use crate::lineage::Standing;
use crate::message::{ByeCause, RefuseCode};
use crate::state::Content;

const NEXT: [u8; 16] = [0xe2; 16];

fn staged(primary: &mut Primary, epoch: u64) -> Vec<PrimaryAction> {
    let digest = Digest([9; 32]);
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Taken { eras: None }));
    primary.handle(
        SECOND,
        PrimaryEvent::Encoded { epoch: Epoch(epoch), digest, stored: 4096, touched: TouchedBytes::default() },
    );
    actions(primary);
    hear(primary, SECOND, &Message::Staged { epoch: Epoch(epoch), digest })
}

/// In sync at epoch 8, somebody has the volume open, and every state is durable.
pub(super) fn in_sync() -> Primary {
    let mut primary = new_primary(config(), state());
    primary.handle_timeout(SECOND);
    primary.handle(SECOND, PrimaryEvent::Connected);
    let greeting = Message::Welcome(welcome(&primary));
    hear(&mut primary, SECOND, &greeting);
    let eras = |era: u32| vec![Era(era); group().volumes().len()];
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Rolled { attempt: 1, eras: eras(8), bytes: 65536 }));
    tried(&mut primary);
    hear(&mut primary, SECOND, &Message::SyncReady);
    primary.handle(SECOND, PrimaryEvent::Copied { frames: 0 });
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Started { eras: eras(9), bytes: 0 }));
    primary.handle(SECOND, PrimaryEvent::Copied { frames: 0 });
    staged(&mut primary, 8);
    assert!(primary.is_in_sync(), "{:?}", primary.replication());
    primary.handle(SECOND, PrimaryEvent::Used(Usage { open: true, written: true, mark: None }));
    all_written(&mut primary);
    primary
}

fn all_written(primary: &mut Primary) -> Vec<PrimaryAction> {
    let mut done = actions(primary);
    while !primary.is_state_durable() {
        primary.handle(SECOND, PrimaryEvent::StateWritten);
        done.extend(actions(primary));
    }
    done
}

fn ask(primary: &mut Primary, stall: bool) -> Vec<PrimaryAction> {
    primary.handle(SECOND, PrimaryEvent::Switch { id: 3, generation: NEXT, stall });
    actions(primary)
}

/// What whoever asked was answered.
fn answer(actions: &[PrimaryAction]) -> Option<&Result<(), DemoteRefused>> {
    actions.iter().find_map(|action| match action {
        PrimaryAction::DemoteDone { id: 3, result } => Some(result),
        _ => None,
    })
}

fn written(actions: &[PrimaryAction]) -> Option<&DurableState> {
    actions.iter().rev().find_map(|action| match action {
        PrimaryAction::WriteState(state) => Some(&**state),
        _ => None,
    })
}

macro_rules! has {
    ($actions:expr, $wanted:pat) => {
        $actions.iter().any(|action| matches!(action, $wanted))
    };
}

/// The last epoch is committed, and nobody lets writes through: the new role is being written.
fn writing() -> Primary {
    let mut primary = in_sync();
    let ordered = ask(&mut primary, true);
    assert!(
        has!(ordered, PrimaryAction::Cut(CutOrder::Cut(Cut { epoch: Epoch(9), hold: true, .. }))),
        "{ordered:?}"
    );
    let committed = staged(&mut primary, 9);
    assert!(has!(committed, PrimaryAction::Cut(CutOrder::Yield)), "{committed:?}");
    assert!(!has!(committed, PrimaryAction::WriteState(_)));
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Yielded));
    let ordered = actions(&mut primary);
    let state = written(&ordered).unwrap();
    assert_eq!((state.role, state.highest_epoch_seen), (Role::Backup, Epoch(9)));
    assert!(!has!(ordered, PrimaryAction::Send(_)), "told before it is durable");
    primary
}

/// The backup was told.
fn told() -> Primary {
    let mut primary = writing();
    let done = all_written(&mut primary);
    assert!(has!(done, PrimaryAction::Send(Message::TakeOver { generation: NEXT })));
    assert_eq!(answer(&done), None);
    primary
}

fn promoted(primary: &Primary) -> Message {
    let generation = Generation { number: 2, id: NEXT };
    let entry = LineageEntry { generation, first_epoch: Epoch(10), digest: Digest([9; 32]) };
    let lineage = [primary.durable.state.lineage.clone(), vec![entry]].concat();
    let standing = Standing {
        role: Role::Primary,
        content: Content::Consistent,
        lineage,
        last_epoch: Epoch(9),
        alone: Some(Epoch(9)),
        numbered: None,
        with_loss: false,
    };
    let text = "this side is a primary".to_owned();
    Message::Refuse { code: RefuseCode::Promoted, text, standing: Some(Box::new(standing)) }
}

fn reconnect(primary: &mut Primary) -> Vec<PrimaryAction> {
    let later = primary.poll_timeout().unwrap();
    primary.handle_timeout(later);
    primary.handle(later, PrimaryEvent::Connected);
    actions(primary)
}

#[test]
fn the_other_side_is_told_behind_the_last_epoch_and_the_volumes_fail_once_it_is_the_primary() {
    let mut primary = told();
    hear(&mut primary, SECOND, &Message::Bye { text: "promoted".into(), cause: ByeCause::Other });
    assert!(has!(reconnect(&mut primary), PrimaryAction::Send(Message::Hello(_))));
    let answered = promoted(&primary);
    let ordered = hear(&mut primary, SECOND, &answered);
    assert!(has!(ordered, PrimaryAction::Cut(CutOrder::Shut)) && !has!(ordered, PrimaryAction::RoleEnded));
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Shut));
    let done = actions(&mut primary);
    assert_eq!(answer(&done), Some(&Ok(())));
    assert!(has!(done, PrimaryAction::RoleEnded));
    // What follows from the link going is not written into the state of a backup.
    assert_eq!(written(&done), None);
}

#[test]
fn a_volume_in_use_is_handed_over_only_if_that_was_meant() {
    let mut primary = in_sync();
    assert_eq!(answer(&ask(&mut primary, false)), Some(&Err(DemoteRefused::InUse)));
    ask(&mut primary, true);
    let again = ask(&mut primary, true);
    assert_eq!(answer(&again), Some(&Err(DemoteRefused::UnderWay)));
}

#[test]
fn no_epoch_is_cut_while_writes_are_held_back() {
    let mut primary = in_sync();
    ask(&mut primary, true);
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Taken { eras: None }));
    primary.handle_timeout(SECOND * 2);
    assert!(!has!(actions(&mut primary), PrimaryAction::Cut(CutOrder::Cut(Cut { .. }))));
}

#[test]
fn a_link_lost_before_the_word_lets_writes_go_on_once_this_side_is_the_primary_again_durably() {
    let lost = |primary: &mut Primary| {
        primary.handle(SECOND, PrimaryEvent::Disconnected { reason: "gone".into() });
        actions(primary)
    };
    // While its epoch travels: as ever.
    let mut primary = in_sync();
    ask(&mut primary, true);
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Taken { eras: None }));
    let done = lost(&mut primary);
    assert!(has!(done, PrimaryAction::Cut(CutOrder::Stop)) && matches!(answer(&done), Some(Err(_))));
    // While the role is being written.
    let mut primary = writing();
    let done = lost(&mut primary);
    assert!(
        !has!(done, PrimaryAction::Cut(CutOrder::Stop)) && !has!(done, PrimaryAction::Cut(CutOrder::Release)),
        "{done:?}"
    );
    primary.handle(SECOND, PrimaryEvent::StateWritten);
    let done = actions(&mut primary);
    let state = written(&done).unwrap();
    assert_eq!((state.role, state.alone), (Role::Primary, Some(Epoch(9))));
    assert!(!has!(done, PrimaryAction::Cut(CutOrder::Release)), "not durable yet");
    let done = all_written(&mut primary);
    assert!(
        has!(done, PrimaryAction::Cut(CutOrder::Release)) && has!(done, PrimaryAction::Cut(CutOrder::Stop)),
        "{done:?}"
    );
    assert!(matches!(answer(&done), Some(Err(DemoteRefused::Failed(_)))));
    assert!(!has!(done, PrimaryAction::Send(Message::TakeOver { .. })));
}

#[test]
fn a_backup_that_greets_as_one_after_the_word_was_lost_ends_the_switch() {
    let mut primary = told();
    primary.handle(SECOND, PrimaryEvent::Disconnected { reason: "gone".into() });
    let lost = actions(&mut primary);
    assert!(
        !has!(lost, PrimaryAction::Cut(CutOrder::Stop)) && !has!(lost, PrimaryAction::Cut(CutOrder::Release)),
        "{lost:?}"
    );
    reconnect(&mut primary);
    let greeting = Message::Welcome(welcome(&primary));
    hear(&mut primary, SECOND, &greeting);
    let done = all_written(&mut primary);
    assert!(
        has!(done, PrimaryAction::Cut(CutOrder::Release)) && matches!(answer(&done), Some(Err(_))),
        "{done:?}"
    );
    assert_eq!(primary.state().role, Role::Primary);
}

#[test]
fn what_was_not_heard_of_in_time_is_shut_and_never_goes_on_by_itself() {
    let mut primary = told();
    primary.handle(SECOND, PrimaryEvent::Disconnected { reason: "gone".into() });
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Shut));
    let done = actions(&mut primary);
    assert_eq!(answer(&done), Some(&Err(DemoteRefused::Unknown)));
    assert!(has!(done, PrimaryAction::RoleEnded) && !has!(done, PrimaryAction::Cut(CutOrder::Release)));
    assert_eq!(primary.state().role, Role::Backup);
}

#[test]
fn a_hold_that_ends_by_itself_ends_the_switch() {
    let mut primary = in_sync();
    ask(&mut primary, true);
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Taken { eras: None }));
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Released { reason: "too long".into() }));
    let done = actions(&mut primary);
    assert_eq!(answer(&done), Some(&Err(DemoteRefused::Failed("too long".into()))));
    assert!(primary.is_in_sync() && primary.state().role == Role::Primary);
}

#[test]
fn a_state_that_cannot_be_written_shuts_the_volumes() {
    let mut primary = writing();
    primary.handle(SECOND, PrimaryEvent::Failed { reason: "broken".into() });
    let done = actions(&mut primary);
    assert!(
        has!(done, PrimaryAction::Cut(CutOrder::Shut)) && !has!(done, PrimaryAction::Cut(CutOrder::Release)),
        "{done:?}"
    );
    assert!(matches!(answer(&done), Some(Err(_))));
}

#[test]
fn without_a_capture_nothing_can_be_held_back() {
    let settings = PrimaryConfig { interval: true, still_budget: Some(SECOND), ..config() };
    let mut primary = new_primary(settings, state());
    assert_eq!(answer(&ask(&mut primary, true)), Some(&Err(DemoteRefused::NoCapture)));
}

#[test]
fn a_token_that_is_seen_in_a_switch_that_fails_stays_seen() {
    let mut primary = writing();
    let lineage = primary.state().lineage.clone();
    let hello = crate::message::Hello {
        protocol_min: 1,
        protocol_max: 1,
        features_optional: 0,
        features_mandatory: 0,
        group: group(),
        lineage,
        last_epoch: Epoch(9),
        last_digest: Digest::ZERO,
        alone: None,
        token: 7,
        numbered: None,
        with_loss: false,
    };
    let frame = Message::Hello(hello).encode(1, Incarnation([9; 16]));
    primary.handle(SECOND, PrimaryEvent::Visited(frame));
    assert_eq!(primary.state().token, 7);
    primary.handle(SECOND, PrimaryEvent::Disconnected { reason: "reset".into() });
    all_written(&mut primary);
    assert_eq!((primary.state().role, primary.state().token), (Role::Primary, 7));
}
