use super::*;
use crate::rolls::Roll;

fn roll(era: u32, epoch: u64) -> Roll {
    Roll { epoch: Epoch(epoch), at_cut: false, eras: vec![Era(era); group().volumes().len()] }
}

#[test]
fn a_state_that_cannot_be_written_ends_replication_for_good() {
    let mut primary = new_primary(config(), state());
    assert!(!primary.is_state_durable());
    assert!(matches!(&actions(&mut primary)[..], [PrimaryAction::WriteState(state)]
        if state.last_incarnation == Some(Incarnation([0xa1; 16]))));
    primary.handle_timeout(SECOND);
    primary.handle(SECOND, PrimaryEvent::Connected);
    actions(&mut primary);
    primary.handle(SECOND, PrimaryEvent::Failed { reason: "the disk is broken".into() });
    assert_eq!(*primary.replication(), Replication::Failed { reason: "the disk is broken".into() });
    assert!(matches!(
        actions(&mut primary)[..],
        [.., PrimaryAction::Close { .. }, PrimaryAction::StateChanged]
    ));
    assert_eq!(primary.poll_timeout(), None, "it never connects again");
    primary.handle_timeout(100 * SECOND);
    primary.handle(100 * SECOND, PrimaryEvent::FullSync { id: 9 });
    assert!(
        matches!(&actions(&mut primary)[..], [PrimaryAction::FullSyncBegun { id: 9, result: Err(reason) }]
        if reason == "the disk is broken")
    );
}

#[test]
fn a_history_counts_only_if_the_volumes_continue_it() {
    let mut known = state();
    known.rolls.push(roll(7, 40)).unwrap();
    let kept = |eras| {
        let primary = new_primary(PrimaryConfig { eras, ..config() }, known.clone());
        assert_eq!(primary.last_cut(), Epoch(40), "numbers go on above every epoch that was cut");
        primary.state().rolls == known.rolls
    };
    let volumes = group().volumes().len();
    assert!(kept(Some(vec![Era(7); volumes])) && kept(Some(vec![Era(8); volumes])));
    assert!(!kept(Some(vec![Era(6); volumes])), "the metadata is another one");
    assert!(!kept(None), "nothing is tracked");
}
