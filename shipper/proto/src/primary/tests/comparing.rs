//! What a sync asks the backup before it sends anything.

use super::*;
use crate::ids::VolumeIndex;
use crate::protocol::{COMPARE, PROTOCOL};
use crate::rolls::Roll;
use crate::state::Content;
use crate::testing::extent;
use crate::verify::{DigestLength, Digests, HashRequest, Place, ShortDigest};
use ftdm_units::Sectors;

fn eras() -> Vec<Era> {
    vec![Era(9); group().volumes().len()]
}

/// What a round is compared in, and what it asks about when a batch is read, in the first round and the next.
fn asked(settings: PrimaryConfig, welcome: Welcome) -> [(Option<u64>, Option<HashRequest>); 2] {
    let mut state = state();
    state
        .rolls
        .push(Roll { epoch: Epoch(6), at_cut: true, eras: vec![Era(7); group().volumes().len()] })
        .unwrap();
    let mut primary = new_primary(settings, state);
    primary.handle(SECOND, PrimaryEvent::StateWritten);
    primary.handle_timeout(SECOND);
    primary.handle(SECOND, PrimaryEvent::Connected);
    let is_blank = welcome.content == Content::Blank;
    let lineage = primary.durable.state.lineage.clone();
    hear(&mut primary, SECOND, &Message::Welcome(Welcome { lineage, ..welcome }));
    [1, 2].map(|round| {
        let eras = vec![Era(8 + round); group().volumes().len()];
        primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Rolled { attempt: 1, eras, bytes: 4 << 20 }));
        if is_blank && round == 1 {
            tried(&mut primary);
            hear(&mut primary, SECOND, &Message::SyncReady);
        }
        let places = vec![Place { volume: VolumeIndex(0), extent: extent(128, 256) }];
        let copy = actions(&mut primary);
        primary.handle(SECOND, PrimaryEvent::Compares { number: 5, places });
        let question = match actions(&mut primary).pop() {
            Some(PrimaryAction::Send(Message::Hash(request))) => Some(request),
            _ => None,
        };
        let unit = copy.iter().find_map(|action| match action {
            PrimaryAction::Copy { unit } => Some(unit.map(|unit| unit.0)),
            _ => None,
        });
        // In place the round began with SyncReady, whose actions are gone.
        let unit = unit.unwrap_or_else(|| question.as_ref().map(|question| question.unit.0));
        primary.handle(SECOND, PrimaryEvent::Copied { frames: 1 });
        actions(&mut primary);
        (unit, question)
    })
}

fn greeting(content: Content, features: u64) -> Welcome {
    Welcome {
        protocol: PROTOCOL,
        features,
        lineage: Vec::new(),
        highest_epoch_seen: Epoch(8),
        committed: Epoch(8),
        chain_digest: Digest([7; 32]),
        content,
        role: Role::Backup,
        journal_size: Some(1 << 30),
        held: Some(Epoch(8)),
        sizes: None,
    }
}

#[test]
fn a_staged_sync_compares_with_the_epoch_held_and_a_whole_copy_coarsely_at_first() {
    let held = asked(config(), greeting(Content::Consistent, COMPARE));
    for (unit, question) in held {
        let question = question.expect("it is compared");
        assert_eq!((unit, question.unit, question.epoch, question.token), (Some(8), Sectors(8), Epoch(8), 5));
        assert_eq!(question.length, DigestLength::Short);
    }
    let whole = asked(config(), greeting(Content::Blank, COMPARE));
    let units = whole.map(|(unit, question)| (unit, question.map(|question| question.epoch)));
    assert_eq!(units, [(Some(128), Some(Epoch::NONE)), (Some(8), Some(Epoch::NONE))]);
}

#[test]
fn an_older_backup_gets_everything() {
    for content in [Content::Consistent, Content::Blank] {
        assert_eq!(asked(config(), greeting(content, 0)), [(None, None), (None, None)]);
    }
}

#[test]
fn where_a_coordinator_commits_an_epoch_that_it_may_never_commit_is_not_asked_about() {
    let external = || PrimaryConfig { commit: CommitPolicy::External, ..config() };
    let told =
        Welcome { features: COMPARE | crate::protocol::EXTERNAL_COMMIT, ..greeting(Content::Consistent, 0) };
    let is_asked = |welcome: Welcome| asked(external(), welcome)[0].1.is_some();
    assert!(is_asked(told.clone()));
    assert!(!is_asked(Welcome { committed: Epoch(7), ..told }));
}

#[test]
fn what_the_backup_tells_reaches_who_copies_and_is_counted() {
    let mut state = state();
    state
        .rolls
        .push(Roll { epoch: Epoch(6), at_cut: true, eras: vec![Era(7); group().volumes().len()] })
        .unwrap();
    let mut primary = new_primary(config(), state);
    primary.handle(SECOND, PrimaryEvent::StateWritten);
    primary.handle_timeout(SECOND);
    primary.handle(SECOND, PrimaryEvent::Connected);
    let lineage = primary.durable.state.lineage.clone();
    hear(
        &mut primary,
        SECOND,
        &Message::Welcome(Welcome { lineage, ..greeting(Content::Consistent, COMPARE) }),
    );
    primary.handle(SECOND, PrimaryEvent::Cut(CutResult::Rolled { attempt: 1, eras: eras(), bytes: 4 << 20 }));
    let places = vec![Place { volume: VolumeIndex(0), extent: extent(128, 16) }];
    primary.handle(SECOND, PrimaryEvent::Compares { number: 5, places });
    actions(&mut primary);
    let two = vec![ShortDigest([7; 16]); 2];
    let told = Message::Digests { token: 5, result: Ok(Digests::Short(two.clone())) };
    assert!(
        matches!(&hear(&mut primary, SECOND, &told)[..], [PrimaryAction::Told { number: 5, told: Some(digests) }] if *digests == two)
    );
    let text = Message::Digests { token: 6, result: Err("that epoch is past".into()) };
    assert!(matches!(
        &hear(&mut primary, SECOND, &text)[..],
        [PrimaryAction::Told { number: 6, told: None }]
    ));
    let figures = primary.sync(SECOND).unwrap();
    assert!((400..600).contains(&figures.digests), "{figures:?}");
    assert!(primary.is_connected());
}
