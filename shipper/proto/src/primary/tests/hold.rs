//! A primary that was promoted over holds writes back, once, until somebody decides.

use super::fence::{FORK, all_written, greeting, has_ended, promoted, refusal, with_rolls, written};
use super::*;
use crate::state::Content;

const LEASE: Duration = Duration::from_secs(60);
const IN_USE: Usage = Usage { open: true, written: true, mark: None };

macro_rules! has {
    ($actions:expr, $wanted:pat) => {
        $actions.iter().any(|action| matches!(action, $wanted))
    };
}

/// It has met the promoted side, and all it ordered but the answer to its hold is done.
fn met(state: DurableState) -> (Primary, Vec<PrimaryAction>) {
    let mut primary = greeting(state);
    primary.config.fence_lease = Some(LEASE);
    primary.handle(SECOND, PrimaryEvent::Used(IN_USE));
    primary.handle(SECOND, refusal(Some(promoted())));
    let mut ordered = actions(&mut primary);
    ordered.extend(all_written(&mut primary));
    (primary, ordered)
}

fn frozen() -> Primary {
    let (mut primary, ordered) = met(with_rolls());
    assert!(has!(ordered, PrimaryAction::Cut(CutOrder::Hold { lease: LEASE })), "{ordered:?}");
    assert!(!primary.is_frozen());
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Held));
    assert!(primary.is_frozen());
    assert!(primary.fence_text().contains("held back for 60s at most"), "{}", primary.fence_text());
    actions(&mut primary);
    primary
}

#[test]
fn without_being_told_to_it_holds_nothing_back() {
    let mut primary = greeting(with_rolls());
    primary.handle(SECOND, refusal(Some(promoted())));
    let mut ordered = actions(&mut primary);
    ordered.extend(all_written(&mut primary));
    assert!(!has!(ordered, PrimaryAction::Cut(CutOrder::Hold { .. })));
}

#[test]
fn one_that_was_told_to_go_on_holds_nothing_back() {
    let mut state = with_rolls();
    state.lineage.push(LineageEntry {
        generation: Generation { number: 2, id: [0xe3; 16] },
        first_epoch: FORK.next(),
        digest: Digest([7; 32]),
    });
    let (primary, ordered) = met(state);
    assert!(primary.fence().unwrap().split && !has!(ordered, PrimaryAction::Cut(CutOrder::Hold { .. })));
}

#[test]
fn it_goes_on_alone_when_the_lease_ends_and_is_not_frozen_again_by_the_same_promote() {
    let mut primary = frozen();
    let state = primary.state().clone();
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Released { reason: "for as long as may be".into() }));
    assert!(!primary.is_frozen() && !primary.is_stepping_down());
    assert!(primary.fence_text().contains("Nobody decided"), "{}", primary.fence_text());
    primary.handle(SECOND, PrimaryEvent::Demote { id: 4, discard: true });
    let refused = actions(&mut primary);
    assert!(has!(refused, PrimaryAction::DemoteDone { result: Err(DemoteRefused::InUse), .. }));
    // Nor by a daemon that is started anew, whatever it has learnt of itself since.
    for split in [true, false] {
        let mut state = state.clone();
        state.fenced.as_mut().unwrap().split = split;
        let mut primary = greeting(state);
        primary.config.fence_lease = Some(LEASE);
        primary.handle(SECOND, refusal(Some(promoted())));
        let ordered = actions(&mut primary);
        assert!(
            primary.fence().unwrap().split && !has!(ordered, PrimaryAction::Cut(CutOrder::Hold { .. })),
            "{ordered:?}"
        );
    }
}

#[test]
fn given_up_while_in_use_it_fails_what_waits_once_it_is_durably_a_backup() {
    let mut primary = frozen();
    primary.handle(SECOND, PrimaryEvent::Demote { id: 4, discard: true });
    let ordered = actions(&mut primary);
    let state = written(&ordered).unwrap();
    assert_eq!((state.role, state.content), (Role::Backup, Content::Outdated { fork: Some(FORK) }));
    assert!(!has!(ordered, PrimaryAction::Cut(CutOrder::Shut)), "not before it is durable");
    let durable = all_written(&mut primary);
    assert!(has!(durable, PrimaryAction::Cut(CutOrder::Shut)) && !has_ended(&durable));
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Shut));
    let ended = actions(&mut primary);
    assert!(has_ended(&ended) && has!(ended, PrimaryAction::DemoteDone { id: 4, result: Ok(()) }));
}

#[test]
fn whoever_takes_it_up_or_cannot_write_the_state_lets_writes_go_on() {
    let mut primary = frozen();
    primary.handle(SECOND, PrimaryEvent::TakeUp { id: 4, token: None, generation: [0xe3; 16] });
    assert!(has!(actions(&mut primary), PrimaryAction::Cut(CutOrder::Release)));
    let done = all_written(&mut primary);
    assert!(has_ended(&done) && !has!(done, PrimaryAction::Cut(CutOrder::Shut)));
    for is_given_up in [false, true] {
        let mut primary = frozen();
        if is_given_up {
            primary.handle(SECOND, PrimaryEvent::Demote { id: 4, discard: true });
        }
        primary.handle(SECOND, PrimaryEvent::Failed { reason: "the state's disk".into() });
        let ordered = actions(&mut primary);
        assert!(
            has!(ordered, PrimaryAction::Cut(CutOrder::Release))
                && !has!(ordered, PrimaryAction::Cut(CutOrder::Shut))
        );
    }
}

#[test]
fn when_the_other_side_gives_way_writes_go_on() {
    let mut primary = frozen();
    let mut theirs = primary.standing();
    (theirs.role, theirs.alone) = (Role::Backup, None);
    theirs.last_epoch = Epoch(90);
    assert!(primary.meet(SECOND, &theirs));
    assert!(has!(actions(&mut primary), PrimaryAction::Cut(CutOrder::Release)));
    assert_eq!(primary.fence(), None);
}
