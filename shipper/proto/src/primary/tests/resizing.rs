//! Enlarging the volumes: what is asked before, what is durable before what, and what a sync adds.

use super::*;
use crate::message::ByeCause;
use crate::testing::scope;
use ftdm_units::Sectors;

fn sectors(sizes: &[u64]) -> Vec<Sectors> {
    sizes.iter().copied().map(Sectors).collect()
}

const OLD: [u64; 2] = [1 << 20, 1 << 16];
const LARGER: [u64; 2] = [2 << 20, 1 << 16];

/// One that was greeted: the sync rolls.
fn greeted(sizes: Option<Vec<Sectors>>) -> Primary {
    let mut state = state();
    let roll = crate::rolls::Roll { epoch: Epoch(7), at_cut: true, eras: vec![Era(5); 2] };
    state.rolls.push(roll).unwrap();
    let mut primary = new_primary(config(), state);
    primary.handle(Duration::ZERO, PrimaryEvent::StateWritten);
    primary.handle_timeout(Duration::ZERO);
    primary.handle(Duration::ZERO, PrimaryEvent::Connected);
    let welcome = Message::Welcome(Welcome { sizes, ..welcome(&primary) });
    hear(&mut primary, Duration::ZERO, &welcome);
    settle(&mut primary);
    assert!(primary.is_connected());
    primary
}

/// Whatever is to be written is.
fn settle(primary: &mut Primary) {
    for _ in 0..20 {
        primary.handle(Duration::ZERO, PrimaryEvent::StateWritten);
    }
    actions(primary);
}

fn resize(primary: &mut Primary, devices: &[u64], room: &[u64]) -> Vec<PrimaryAction> {
    let event = PrimaryEvent::Resize { id: 9, devices: sectors(devices), room: sectors(room) };
    primary.handle(Duration::ZERO, event);
    actions(primary)
}

fn report(room: Option<Vec<Sectors>>) -> Message {
    let (committed, applied, durable) = (Epoch(7), Epoch(7), Some(Epoch(7)));
    Message::Report { committed, applied, durable, journal_used: 0, journal_size: 1 << 24, room }
}

fn answer(actions: &[PrimaryAction]) -> Option<Result<Resized, ResizeRefused>> {
    actions.iter().find_map(|action| match action {
        PrimaryAction::ResizeDone { id: 9, result } => Some(result.clone()),
        _ => None,
    })
}

fn ordered(actions: &[PrimaryAction]) -> Vec<&CutOrder> {
    let order = |action: &'_ PrimaryAction| matches!(action, PrimaryAction::Cut(_));
    let orders = actions.iter().filter(|action| order(action));
    orders.map(|action| if let PrimaryAction::Cut(order) = action { order } else { unreachable!() }).collect()
}

fn refused(actions: &[PrimaryAction]) -> ResizeRefused {
    answer(actions).expect("an answer").expect_err("refused")
}

#[test]
fn what_cannot_be_enlarged_is_refused_by_name() {
    let mut primary = greeted(None);
    let smaller = refused(&resize(&mut primary, &[(1 << 20) - 8, 1 << 16], &LARGER));
    assert!(matches!(smaller, ResizeRefused::Smaller { volume, .. } if volume.0 == 0), "{smaller}");
    let untracked = refused(&resize(&mut primary, &LARGER, &OLD));
    assert!(matches!(untracked, ResizeRefused::Metadata { volume, .. } if volume.0 == 0), "{untracked}");
    let nothing = answer(&resize(&mut primary, &OLD, &OLD)).unwrap().unwrap();
    assert_eq!((nothing.before, nothing.after), (sectors(&OLD), sectors(&OLD)));
    let mut alone = new_primary(config(), state());
    actions(&mut alone);
    assert_eq!(refused(&resize(&mut alone, &LARGER, &LARGER)), ResizeRefused::NotConnected);
    assert!(primary.is_connected() && !primary.is_resizing(), "nothing has changed");
}

#[test]
fn one_growth_after_the_other() {
    let mut primary = greeted(None);
    // Epoch 7 is committed, and had other sizes.
    primary.durable.state.sizes.note(Epoch(8), sectors(&[1 << 19, 1 << 16]));
    assert_eq!(refused(&resize(&mut primary, &LARGER, &LARGER)), ResizeRefused::Unsettled);
    primary.commits.committed = Epoch(8);
    assert!(answer(&resize(&mut primary, &LARGER, &LARGER)).is_none());
}

#[test]
fn a_backup_has_a_while_to_say_that_it_has_room() {
    let mut primary = greeted(None);
    assert!(answer(&resize(&mut primary, &LARGER, &LARGER)).is_none());
    assert!(answer(&hear(&mut primary, SECOND / 2, &report(Some(sectors(&OLD))))).is_none());
    assert_eq!(refused(&resize(&mut primary, &LARGER, &LARGER)), ResizeRefused::UnderWay);
    primary.handle(
        SECOND / 2,
        PrimaryEvent::Resize { id: 8, devices: sectors(&LARGER), room: sectors(&LARGER) },
    );
    actions(&mut primary);
    hear(&mut primary, 2 * SECOND, &report(Some(sectors(&OLD))));
    hear(&mut primary, 5 * SECOND / 2, &Message::Pong { token: 0 });
    primary.handle_timeout(3 * SECOND);
    let small = refused(&actions(&mut primary));
    assert!(matches!(small, ResizeRefused::Backup { volume, .. } if volume.0 == 0), "{small}");
    assert!(primary.is_connected());
    // An older backup does not say.
    primary.handle(
        3 * SECOND,
        PrimaryEvent::Resize { id: 9, devices: sectors(&LARGER), room: sectors(&LARGER) },
    );
    hear(&mut primary, 4 * SECOND, &report(None));
    hear(&mut primary, 5 * SECOND, &report(None));
    hear(&mut primary, 11 * SECOND / 2, &report(None));
    primary.handle_timeout(6 * SECOND);
    assert_eq!(refused(&actions(&mut primary)), ResizeRefused::Unknown);
    // One that goes away has no room.
    primary.handle(
        6 * SECOND,
        PrimaryEvent::Resize { id: 9, devices: sectors(&LARGER), room: sectors(&LARGER) },
    );
    primary.handle(6 * SECOND, PrimaryEvent::Disconnected { reason: "gone".into() });
    assert_eq!(refused(&actions(&mut primary)), ResizeRefused::NotConnected);
}

/// The layers are being enlarged.
fn enlarging() -> Primary {
    let mut primary = greeted(None);
    resize(&mut primary, &LARGER, &LARGER);
    let begun = hear(&mut primary, SECOND / 2, &report(Some(sectors(&LARGER))));
    assert!(matches!(ordered(&begun)[..], [CutOrder::Enlarge { sizes }] if *sizes == sectors(&LARGER)));
    let says = |action: &PrimaryAction| {
        matches!(action, PrimaryAction::Send(Message::Bye { cause: ByeCause::Other, .. }))
    };
    assert!(begun.iter().any(says) && !primary.is_connected());
    settle(&mut primary);
    primary
}

#[test]
fn the_new_sizes_are_durable_before_anybody_sees_them() {
    let mut primary = enlarging();
    assert_eq!(primary.poll_timeout(), None, "nobody is greeted meanwhile");
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Enlarged(Ok(()))));
    let noting = actions(&mut primary);
    let written = noting.iter().find_map(|action| match action {
        PrimaryAction::WriteState(state) => Some(state.clone()),
        _ => None,
    });
    let state = written.expect("it is written");
    assert_eq!(state.group.as_ref().unwrap().sizes(), sectors(&LARGER));
    // What was cut so far has the old ones.
    assert_eq!(state.group_at(primary.last_cut()).unwrap().sizes(), sectors(&OLD));
    assert_eq!(state.group_at(primary.last_cut().next()).unwrap().sizes(), sectors(&LARGER));
    assert!(ordered(&noting).is_empty());
    primary.handle(SECOND, PrimaryEvent::StateWritten);
    let showing = actions(&mut primary);
    assert!(matches!(ordered(&showing)[..], [CutOrder::Show { sizes }] if *sizes == sectors(&LARGER)));
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Shown(Ok(()))));
    let done = actions(&mut primary);
    let resized = answer(&done).unwrap().unwrap();
    assert_eq!((resized.before, resized.after), (sectors(&OLD), sectors(&LARGER)));
    assert!(done.iter().any(|action| matches!(action, PrimaryAction::RoleEnded)));
    primary.handle_timeout(100 * SECOND);
    assert!(!actions(&mut primary).iter().any(|action| matches!(action, PrimaryAction::Connect)));
}

#[test]
fn what_could_not_be_enlarged_is_as_it_was() {
    let mut primary = enlarging();
    let failed = CutResult::Enlarged(Err("no".into()));
    primary.handle(SECOND, PrimaryEvent::Cut(failed));
    let actions = actions(&mut primary);
    assert_eq!(refused(&actions), ResizeRefused::Kept("no".into()));
    assert!(actions.iter().any(|action| matches!(action, PrimaryAction::Connect)), "replication goes on");
    assert_eq!(primary.state().group, None);
}

#[test]
fn what_cannot_be_shown_is_at_the_next_beginning() {
    let mut primary = enlarging();
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Enlarged(Ok(()))));
    primary.handle(SECOND, PrimaryEvent::StateWritten);
    actions(&mut primary);
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Shown(Err("no".into()))));
    let actions = actions(&mut primary);
    assert!(matches!(refused(&actions), ResizeRefused::Failed(_)));
    assert!(actions.iter().any(|action| matches!(action, PrimaryAction::RoleEnded)));
}

#[test]
fn nothing_else_changes_the_role_meanwhile() {
    let mut primary = enlarging();
    primary.handle(SECOND, PrimaryEvent::Used(Usage::default()));
    primary.handle(SECOND, PrimaryEvent::Switch { id: 4, generation: [1; 16], stall: true });
    let actions = actions(&mut primary);
    let refused = |action: &PrimaryAction| {
        matches!(action, PrimaryAction::DemoteDone { id: 4, result: Err(DemoteRefused::UnderWay) })
    };
    assert!(actions.iter().any(refused));
}

#[test]
fn a_sync_covers_what_the_backup_lacks() {
    let mut primary = greeted(Some(sectors(&[1 << 19, 1 << 16])));
    let attempt = primary.syncing.attempts;
    let rolled = CutResult::Rolled { attempt, eras: vec![Era(8); 2], bytes: 4096 };
    primary.handle(Duration::ZERO, PrimaryEvent::Cut(rolled));
    let actions = actions(&mut primary);
    let widened = actions.iter().find_map(|action| match action {
        PrimaryAction::Widen(scope) => Some(scope.clone()),
        _ => None,
    });
    assert_eq!(widened, Some(scope(&[(0, 1 << 19, 1 << 19)])));
    let at = |wanted: fn(&PrimaryAction) -> bool| actions.iter().position(wanted);
    let (widen, copy) = (
        at(|action| matches!(action, PrimaryAction::Widen(_))),
        at(|action| matches!(action, PrimaryAction::Copy { .. })),
    );
    assert!(widen < copy, "before anything is copied");
    // Whether it fits the journal is seen when it is sent: mostly it is blank on both sides.
    assert_eq!(primary.syncing.attempt.carrier, Some(Carrier::Staged));
    let whole = greeted(None);
    assert!(whole.extension().is_empty());
}
