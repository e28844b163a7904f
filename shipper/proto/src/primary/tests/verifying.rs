use super::*;
use crate::protocol::{PROTOCOL, VERIFY};
use crate::state::Content;

/// A primary that is connected to a backup with these features, and not in sync.
fn connected(features: u64) -> Primary {
    let mut primary = Primary::new(config(), state());
    primary.handle(SECOND, PrimaryEvent::StateWritten);
    primary.handle_timeout(SECOND);
    primary.handle(SECOND, PrimaryEvent::Connected);
    let welcome = Message::Welcome(Welcome {
        protocol: PROTOCOL,
        features,
        lineage: state().lineage,
        highest_epoch_seen: Epoch(7),
        committed: Epoch(7),
        chain_digest: Digest::ZERO,
        content: Content::Consistent,
        role: Role::Backup,
        journal_size: None,
        held: None,
    });
    primary.handle(SECOND, PrimaryEvent::Frame(welcome.encode(1, Incarnation([0xa1; 16]))));
    assert!(primary.is_connected());
    actions(&mut primary);
    primary
}

/// What a verify is answered, at once.
fn refusal(primary: &mut Primary) -> VerifyError {
    primary.handle(SECOND, PrimaryEvent::Verify { id: 5, repair: true });
    match actions(primary).pop() {
        Some(PrimaryAction::VerifyDone { id: 5, result: Err(error) }) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_backup_that_does_not_know_how_is_named_as_the_reason() {
    assert_eq!(refusal(&mut connected(0)), VerifyError::Unknown);
}

#[test]
fn there_is_nothing_to_compare_with_but_in_sync() {
    assert!(matches!(refusal(&mut connected(VERIFY)), VerifyError::NotInSync(_)));
    let mut alone = Primary::new(config(), state());
    assert!(
        matches!(refusal(&mut alone), VerifyError::NotInSync(reason) if reason.contains("not connected"))
    );
    alone.handle(SECOND, PrimaryEvent::Failed { reason: "the disk is broken".into() });
    actions(&mut alone);
    assert_eq!(refusal(&mut alone), VerifyError::NotInSync("the disk is broken".into()));
}
