use super::*;
use crate::ids::VolumeIndex;
use crate::protocol::{PROTOCOL, VERIFY};
use crate::state::Content;
use crate::verify::{Digests, HashRequest, Place};
use ftdm_units::Sectors;

/// A primary that is connected to a backup with these features, and not in sync.
fn connected(features: u64) -> Primary {
    let mut primary = new_primary(config(), state());
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
        sizes: None,
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
    let mut alone = new_primary(config(), state());
    assert!(
        matches!(refusal(&mut alone), VerifyError::NotInSync(reason) if reason.contains("not connected"))
    );
    alone.handle(SECOND, PrimaryEvent::Failed { reason: "the disk is broken".into() });
    actions(&mut alone);
    assert_eq!(refusal(&mut alone), VerifyError::NotInSync("the disk is broken".into()));
}

/// What a volume holds, where that is not 0, by sector.
type Held = std::collections::BTreeMap<u64, u8>;

/// Stands for the digest of a place of the first volume.
fn digest(held: &Held, place: Place) -> Digest {
    let mut digest = [1; 32];
    if place.volume == VolumeIndex(0) {
        for (sector, value) in held.range(place.extent.start().0..place.extent.end().0) {
            digest[1..9].copy_from_slice(&sector.to_le_bytes());
            digest[0] = value.wrapping_add(digest[0]);
        }
    }
    Digest(digest)
}

/// Verifies to the end, in a pair of these volumes.
fn verified(primary: &mut Primary, now: &mut Duration, (here, there): (&Held, &Held)) -> VerifyReport {
    let of = |held: &Held, places: &[Place], unit| -> Vec<Digest> {
        places.iter().flat_map(|place| place.units(unit)).map(|place| digest(held, place)).collect()
    };
    let mut inspected = Vec::new();
    primary.handle(*now, PrimaryEvent::Verify { id: 5, repair: false });
    loop {
        let Some(action) = primary.poll_action() else {
            *now += SECOND / 20;
            primary.handle_timeout(*now);
            continue;
        };
        match action {
            PrimaryAction::Hash { token, place, unit } => {
                let result = Ok(of(here, &[place], unit));
                primary.handle(*now, PrimaryEvent::Hashed { token, result });
            }
            PrimaryAction::Send(Message::Hash(asked)) | PrimaryAction::SendInOrder(Message::Hash(asked)) => {
                let HashRequest { token, unit, places, .. } = asked;
                let result = Ok(Digests::Whole(of(there, &places, unit)));
                let answer = Message::Digests { token, result }.encode(1, STAMP);
                primary.handle(*now, PrimaryEvent::Frame(answer));
            }
            PrimaryAction::Inspect { token, places, unit } => {
                inspected = of(here, &places, unit).into_iter().map(Some).collect();
                primary.handle(*now, PrimaryEvent::Inspected { token, result: Ok(()) });
            }
            PrimaryAction::Conclude { token, .. } => {
                let digests = std::mem::take(&mut inspected);
                primary.handle(*now, PrimaryEvent::Concluded { token, digests });
            }
            PrimaryAction::Cut(CutOrder::Cut(Cut { epoch, .. })) => {
                primary.handle(*now, PrimaryEvent::Cut(CutResult::Taken { eras: None }));
                let digest = Digest([9; 32]);
                primary.handle(
                    *now,
                    PrimaryEvent::Encoded { epoch, digest, stored: 4096, touched: TouchedBytes::default() },
                );
                let staged = Message::Staged { epoch, digest }.encode(1, STAMP);
                primary.handle(*now, PrimaryEvent::Frame(staged));
            }
            PrimaryAction::VerifyDone { id: 5, result } => return result.unwrap(),
            _ => {}
        }
    }
}

#[test]
fn what_changed_here_and_was_never_shipped_is_told_from_what_changed_on_the_backup() {
    let (mut primary, mut now) = (switching::in_sync(), SECOND);
    let (mut here, mut there) = (Held::new(), Held::new());
    let unit = |start: u64| Place { volume: VolumeIndex(0), extent: crate::testing::extent(start, 8) };
    // Nothing is known of it before the first verify.
    here.insert(1000, 1);
    let first = verified(&mut primary, &mut now, (&here, &there));
    assert_eq!((first.differing, first.untracked), (vec![unit(1000)], vec![]));
    there.insert(1000, 1);
    assert_eq!(verified(&mut primary, &mut now, (&here, &there)).differing, []);
    // Below the stack here, by somebody over there, and something of each in one block.
    here.insert(5000, 2);
    there.insert(9000, 3);
    here.insert(20_000, 4);
    there.insert(20_010, 5);
    for _ in 0..2 {
        let found = verified(&mut primary, &mut now, (&here, &there));
        let both = Place { extent: crate::testing::extent(20_000, 16), ..unit(0) };
        let all = vec![unit(5000), unit(9000), both];
        assert_eq!((found.differing, found.untracked), (all, vec![unit(5000)]));
        assert_eq!(found.untracked_sectors, Sectors(8));
    }
    // The guest wrote there too: what was shipped says nothing of it.
    there.insert(5001, 6);
    here.insert(5001, 6);
    assert_eq!(verified(&mut primary, &mut now, (&here, &there)).untracked, []);
}
