//! A primary meets a side that was promoted over it, or beside it.

use super::*;
use crate::lineage::Standing;
use crate::message::{Hello, Message, RefuseCode};
use crate::rolls::Roll;
use crate::state::{Content, Fence, StaleToken};

pub(super) const FORK: Epoch = Epoch(100);
const IDLE: Usage = Usage { open: false, written: false, mark: None };

fn second() -> LineageEntry {
    let generation = Generation { number: 2, id: [0xe2; 16] };
    LineageEntry { generation, first_epoch: FORK.next(), digest: Digest([7; 32]) }
}

/// The side that was promoted behind [`FORK`].
pub(super) fn promoted() -> Standing {
    let lineage = [state().lineage, vec![second()]].concat();
    let (role, content) = (Role::Primary, Content::Consistent);
    let (last_epoch, alone) = (Epoch(120), Some(FORK));
    Standing { role, content, lineage, last_epoch, alone, numbered: None, with_loss: false }
}

pub(super) fn refusal(standing: Option<Standing>) -> PrimaryEvent {
    let (code, text) = (RefuseCode::Promoted, "this side is a primary".to_owned());
    let standing = standing.map(Box::new);
    PrimaryEvent::Frame(Message::Refuse { code, text, standing }.encode(2, Incarnation([0xa1; 16])))
}

/// A primary of this state, its first write of which is done, that waits for an answer to its greeting.
pub(super) fn greeting(state: DurableState) -> Primary {
    let mut primary = new_primary(config(), state);
    primary.handle(SECOND, PrimaryEvent::StateWritten);
    primary.handle_timeout(SECOND);
    primary.handle(SECOND, PrimaryEvent::Connected);
    actions(&mut primary);
    primary
}

/// The last state that was ordered to be written.
pub(super) fn written(actions: &[PrimaryAction]) -> Option<&DurableState> {
    let state = |action: &'_ PrimaryAction| matches!(action, PrimaryAction::WriteState(_));
    match actions.iter().rfind(|action| state(action)) {
        Some(PrimaryAction::WriteState(state)) => Some(state),
        _ => None,
    }
}

pub(super) fn has_ended(actions: &[PrimaryAction]) -> bool {
    actions.iter().any(|action| matches!(action, PrimaryAction::RoleEnded))
}

pub(super) fn all_written(primary: &mut Primary) -> Vec<PrimaryAction> {
    let mut done = Vec::new();
    while !primary.is_state_durable() {
        primary.handle(SECOND, PrimaryEvent::StateWritten);
        done.extend(actions(primary));
    }
    done
}

pub(super) fn with_rolls() -> DurableState {
    let mut state = state();
    let eras = vec![Era(3); group().volumes().len()];
    state.rolls.push(Roll { epoch: Epoch(90), at_cut: true, eras }).unwrap();
    state
}

#[test]
fn one_that_never_went_alone_becomes_the_backup_once_nobody_uses_it_and_that_is_durable() {
    let mut primary = greeting(with_rolls());
    primary.handle(SECOND, refusal(Some(promoted())));
    let fence = Fence { generation: second().generation, fork: FORK, split: false };
    assert_eq!(written(&actions(&mut primary)).unwrap().fenced, Some(fence));
    // Nobody knows yet who uses it, then somebody does.
    assert!(!has_ended(&all_written(&mut primary)));
    primary.handle(SECOND, PrimaryEvent::Used(Usage { open: true, written: false, mark: None }));
    assert!(written(&actions(&mut primary)).is_none());
    primary.handle(SECOND, PrimaryEvent::Used(IDLE));
    let ordered = actions(&mut primary);
    let state = written(&ordered).unwrap().clone();
    assert_eq!((state.role, state.content), (Role::Backup, Content::Outdated { fork: Some(FORK) }));
    assert_eq!((state.alone, state.fenced, state.group), (None, None, Some(group())));
    assert!(!has_ended(&ordered), "not before it is durable");
    assert!(has_ended(&all_written(&mut primary)));
    assert_eq!(primary.poll_timeout(), None, "it connects no more");
}

#[test]
fn without_a_roll_that_reaches_back_to_the_fork_a_whole_copy_will_be_needed() {
    let mut primary = greeting(state());
    primary.handle(SECOND, refusal(Some(promoted())));
    all_written(&mut primary);
    actions(&mut primary);
    primary.handle(SECOND, PrimaryEvent::Used(IDLE));
    let ordered = actions(&mut primary);
    assert_eq!(written(&ordered).unwrap().content, Content::Outdated { fork: None });
}

#[test]
fn one_that_went_alone_gives_nothing_up_by_itself_also_after_a_restart() {
    for alone in [Some(Epoch(98)), None] {
        let mut primary = greeting(DurableState { alone, ..with_rolls() });
        if alone.is_none() {
            // The volume was written to, and no daemon was there to see it.
            primary.handle(SECOND, PrimaryEvent::Used(Usage { open: false, written: true, mark: None }));
        }
        primary.handle(SECOND, refusal(Some(promoted())));
        let state = written(&actions(&mut primary)).unwrap().clone();
        assert!(state.fenced.unwrap().split && state.alone.is_some(), "{alone:?}");
        all_written(&mut primary);
        let mut primary = greeting(state);
        primary.handle(SECOND, PrimaryEvent::Used(IDLE));
        primary.handle(SECOND, PrimaryEvent::Demote { id: 4, discard: false });
        let ordered = actions(&mut primary);
        let refused = Err(DemoteRefused::Split(FORK));
        let is_refused = |action: &PrimaryAction| matches!(action, PrimaryAction::DemoteDone { id: 4, result } if *result == refused);
        assert!(ordered.iter().any(is_refused) && !has_ended(&ordered));
        primary.handle(SECOND, PrimaryEvent::Demote { id: 5, discard: true });
        let state = written(&actions(&mut primary)).unwrap().clone();
        assert_eq!(state.role, Role::Backup);
        assert!(has_ended(&all_written(&mut primary)));
    }
}

#[test]
fn one_that_is_written_to_after_it_was_told_is_outdated_no_more_but_a_split_brain() {
    let mut primary = greeting(with_rolls());
    primary.handle(SECOND, refusal(Some(promoted())));
    primary.handle(SECOND, PrimaryEvent::Used(Usage { open: true, written: true, mark: None }));
    assert!(written(&actions(&mut primary)).unwrap().fenced.unwrap().split);
    primary.handle(SECOND, PrimaryEvent::Used(IDLE));
    assert!(!has_ended(&all_written(&mut primary)));
}

#[test]
fn an_older_version_that_says_no_more_than_that_it_is_a_primary_changes_nothing() {
    let mut primary = greeting(with_rolls());
    primary.handle(SECOND, refusal(None));
    assert_eq!(primary.fence(), None);
    assert!(matches!(primary.replication(), Replication::Degraded { .. }));
    assert_eq!(primary.link_error(), Some("the backup refuses: this side is a primary"));
}

/// How the side that was promoted over this one knocks.
fn hello_of_promoted(token: u64) -> Message {
    Message::Hello(Hello {
        protocol_min: 1,
        protocol_max: 1,
        features_optional: 0,
        features_mandatory: 0,
        group: group(),
        lineage: promoted().lineage,
        last_epoch: Epoch(120),
        last_digest: Digest::ZERO,
        alone: Some(FORK),
        token,
        numbered: None,
        with_loss: false,
    })
}

#[test]
fn whoever_knocks_is_told_where_this_side_stands_and_is_learnt_from() {
    let mut primary = greeting(with_rolls());
    let mine = primary.standing();
    let frame = hello_of_promoted(7).encode(2, Incarnation([9; 16]));
    primary.handle(SECOND, PrimaryEvent::Visited(frame));
    let ordered = actions(&mut primary);
    let told = ordered.iter().find_map(|action| match action {
        PrimaryAction::Answer(Message::Refuse { code, standing, .. }) => Some((*code, standing.clone())),
        _ => None,
    });
    assert_eq!(told, Some((RefuseCode::Promoted, Some(Box::new(mine)))));
    assert_eq!(primary.fence().unwrap().fork, FORK);
    // Whoever decides by tokens decided that: an earlier decision is refused from now on.
    assert_eq!(primary.state().token, 7);
    primary.handle(SECOND, PrimaryEvent::TakeUp { id: 3, token: Some(7), generation: [0xe3; 16] });
    let refused = actions(&mut primary).into_iter().find_map(|action| match action {
        PrimaryAction::DemoteDone { result, .. } => Some(result),
        _ => None,
    });
    assert_eq!(refused, Some(Err(DemoteRefused::Stale(StaleToken { token: 7, seen: 7 }))));
}

#[test]
fn the_older_history_is_taken_up_again_as_a_generation_of_its_own() {
    let mut primary = greeting(with_rolls());
    primary.handle(SECOND, refusal(Some(promoted())));
    all_written(&mut primary);
    actions(&mut primary);
    primary.handle(SECOND, PrimaryEvent::TakeUp { id: 3, token: Some(5), generation: [0xe3; 16] });
    let state = written(&actions(&mut primary)).unwrap().clone();
    assert_eq!((state.role, state.fenced, state.lineage.len()), (Role::Primary, None, 2));
    assert_eq!(state.token, 5);
    // Nobody may act on the new generation before it is durable.
    let hello = hello_of_promoted(0);
    primary.handle(SECOND, PrimaryEvent::Visited(hello.encode(2, Incarnation([9; 16]))));
    let is_told = actions(&mut primary)
        .into_iter()
        .any(|action| matches!(action, PrimaryAction::Answer(Message::Refuse { standing: Some(_), .. })));
    assert!(!is_told);
    assert!(state.alone.is_some() && has_ended(&all_written(&mut primary)));
    let again = new_primary(config(), state).standing();
    let relation = crate::lineage::compare(&again, &promoted());
    assert_eq!(relation, crate::lineage::Relation::SplitBrain { fork: FORK });
}
