//! Which numbers a primary gives to epochs, what its state says of that, and what it takes disks that were put back for.

use super::fence::written;
use super::*;
use crate::lineage::Standing;

/// Of a primary that has run before, and noted numbers up to this one.
fn noted(numbered: u64) -> DurableState {
    DurableState { numbered: Some(Epoch(numbered)), ..state() }
}

/// It greets a backup of the same generation that holds epoch 7, in `content`.
fn meets(state: DurableState, content: Content) -> (Primary, Vec<PrimaryAction>) {
    let mut primary = Primary::new(config(), state);
    primary.handle(SECOND, PrimaryEvent::StateWritten);
    primary.handle_timeout(SECOND);
    primary.handle(SECOND, PrimaryEvent::Connected);
    let done = actions(&mut primary);
    let welcome = Message::Welcome(Welcome { content, ..welcome(&primary) });
    let heard = hear(&mut primary, SECOND, &welcome);
    (primary, done.into_iter().chain(heard).collect())
}

#[test]
fn no_number_is_given_before_it_is_noted_and_a_new_run_begins_behind_all_that_were() {
    let mut primary = Primary::new(config(), noted(40));
    assert_eq!(primary.last_cut(), Epoch(40));
    let ordered = actions(&mut primary);
    assert_eq!(written(&ordered).unwrap().numbered, Some(Epoch(40)), "a start alone uses none up");
    let (mut primary, done) = meets(noted(40), Content::Consistent);
    // Five seconds of epochs, 50 ms each.
    assert_eq!(written(&done).unwrap().numbered, Some(Epoch(140)));
    assert!(!primary.has_number(), "that is not durable yet");
    primary.handle(SECOND, PrimaryEvent::StateWritten);
    assert!(primary.has_number());
}

#[test]
fn a_backup_that_holds_what_this_side_never_made_is_a_split_brain() {
    let (mut primary, done) = meets(noted(6), Content::Consistent);
    let fence = primary.fence().expect("a split brain");
    assert!(fence.split && fence.generation == state().generation().unwrap());
    assert!(!done.iter().any(|action| matches!(action, PrimaryAction::Cut(_))), "{done:?}");
    assert!(primary.fence_text().contains("put back"), "{}", primary.fence_text());
    // The other side gives up what it has.
    primary.handle(2 * SECOND, PrimaryEvent::StateWritten);
    primary.handle_timeout(10 * SECOND);
    primary.handle(10 * SECOND, PrimaryEvent::Connected);
    let content = Content::Outdated { fork: None };
    let given_up = Message::Welcome(Welcome { content, ..welcome(&primary) });
    hear(&mut primary, 10 * SECOND, &given_up);
    assert_eq!(primary.fence(), None);
}

#[test]
fn what_this_side_may_have_made_is_its_own() {
    let inconsistent = Content::Inconsistent { base_id: [1; 16], base: None };
    for (state, content) in [
        (noted(7), Content::Consistent),
        (noted(90), Content::Consistent),
        // Nothing of it could be promoted.
        (noted(6), inconsistent),
        // A version that noted nothing.
        (state(), Content::Consistent),
    ] {
        let (primary, _) = meets(state.clone(), content);
        assert_eq!(primary.fence(), None, "{:?}, {content:?}", state.numbered);
    }
    // One that was just formatted has made nothing.
    let formatted = DurableState { last_incarnation: None, ..state() };
    assert!(meets(formatted, Content::Consistent).0.fence().is_some());
}

#[test]
fn a_person_may_go_on_with_what_was_put_back_and_it_is_copied_whole() {
    let mut state = noted(6);
    let eras = vec![Era(3); group().volumes().len()];
    state.rolls.push(crate::rolls::Roll { epoch: Epoch(2), at_cut: true, eras }).unwrap();
    let (mut primary, _) = meets(state, Content::Consistent);
    let theirs = Standing {
        role: Role::Backup,
        content: Content::Consistent,
        lineage: primary.state().lineage.clone(),
        last_epoch: Epoch(7),
        alone: None,
        numbered: None,
        with_loss: false,
    };
    primary.handle(SECOND, PrimaryEvent::TakeUp { id: 1, token: None, generation: [0xe3; 16] });
    let state = written(&actions(&mut primary)).unwrap().clone();
    assert!(state.rolls.last().is_none(), "nothing tells where the other side differs");
    let mine = state.standing(Epoch(7));
    assert_eq!(
        crate::lineage::compare(&mine, &theirs),
        crate::lineage::Relation::Overtakes { fork: Epoch(7) }
    );
}
