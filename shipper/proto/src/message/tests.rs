use proptest::prelude::*;

use super::cause::REFUSE_CODES;
use super::*;
use crate::ids::Generation;
use crate::ids::VolumeIndex;
use crate::testing::{INCARNATION, epoch_header, extent, group};
use crate::verify::Place;

/// One line of text. Without spaces: a control character becomes one, and so a changed byte could change nothing.
const LINE: &str = r"[\PC&&\S]{0,100}";

fn any_lineage() -> impl Strategy<Value = Vec<LineageEntry>> {
    let entry = (any::<u64>(), any::<[u8; 16]>(), any::<u64>(), any::<[u8; 32]>());
    let entry = entry.prop_map(|(number, id, first, digest)| LineageEntry {
        generation: Generation { number, id },
        first_epoch: Epoch(first),
        digest: Digest(digest),
    });
    prop::collection::vec(entry, 0..5)
}

fn any_hash_request() -> impl Strategy<Value = HashRequest> {
    let place = (any::<u16>(), 0..u64::MAX / 2, 1..500u64)
        .prop_map(|(volume, start, len)| Place { volume: VolumeIndex(volume), extent: extent(start, len) });
    (any::<u64>(), any::<u64>(), 50..=2048u64, prop::collection::vec(place, 1..60)).prop_map(
        |(token, epoch, unit, places)| HashRequest {
            token,
            epoch: Epoch(epoch),
            unit: Sectors(unit),
            length: if token % 2 == 0 { DigestLength::Whole } else { DigestLength::Short },
            places,
        },
    )
}

fn any_content() -> impl Strategy<Value = Content> {
    prop_oneof![
        Just(Content::Blank),
        Just(Content::Consistent),
        any::<Option<u64>>().prop_map(|fork| Content::Outdated { fork: fork.map(Epoch) }),
        (any::<[u8; 16]>(), any::<Option<u64>>())
            .prop_map(|(base_id, base)| Content::Inconsistent { base_id, base: base.map(Epoch) })
    ]
}

fn any_welcome() -> impl Strategy<Value = Message> {
    (any_lineage(), any::<[u64; 3]>(), any::<u16>(), any::<[u8; 32]>(), any_content()).prop_map(
        |(lineage, [features, seen, committed], protocol, digest, content)| {
            Message::Welcome(Welcome {
                protocol,
                features,
                lineage,
                highest_epoch_seen: Epoch(seen),
                committed: Epoch(committed),
                chain_digest: Digest(digest),
                content,
                role: Role::Backup,
                journal_size: (seen % 2 == 0).then_some(committed),
                held: (seen % 3 == 0).then_some(Epoch(seen)),
                sizes: (seen % 5 == 0).then(|| vec![Sectors(seen >> 10), Sectors(0)]),
            })
        },
    )
}

fn any_refuse() -> impl Strategy<Value = Message> {
    let standing =
        (any_lineage(), any::<u64>(), any::<Option<u64>>()).prop_map(|(lineage, last, alone)| Standing {
            role: Role::Primary,
            content: Content::Consistent,
            lineage,
            last_epoch: Epoch(last),
            alone: alone.map(Epoch),
            numbered: alone.map(|_| Epoch(last)),
            with_loss: last % 3 == 0,
        });
    (any::<u16>(), LINE, prop::option::of(standing)).prop_map(|(code, text, standing)| {
        let (code, standing) = (RefuseCode::from_number(code), standing.map(Box::new));
        Message::Refuse { code, text, standing }
    })
}

fn any_message() -> impl Strategy<Value = Message> {
    let hello = (any_lineage(), any::<[u64; 3]>(), any::<[u16; 2]>(), any::<[u8; 32]>()).prop_map(
        |(lineage, [last, optional, mandatory], [a, b], digest)| {
            Message::Hello(Hello {
                protocol_min: a.min(b),
                protocol_max: a.max(b),
                features_optional: optional,
                features_mandatory: mandatory,
                group: group(),
                lineage,
                last_epoch: Epoch(last),
                last_digest: Digest(digest),
                alone: (last % 2 == 0).then_some(Epoch(optional)),
                token: mandatory,
                numbered: (last % 3 == 0).then_some(Epoch(last)),
                with_loss: last % 5 == 0,
            })
        },
    );
    prop_oneof![
        hello,
        any_welcome(),
        any_refuse(),
        (any::<[u8; 16]>(), any::<Option<u64>>())
            .prop_map(|(base_id, base)| Message::SyncBegin { base_id, base: base.map(Epoch) }),
        Just(Message::SyncReady),
        any::<[u64; 2]>().prop_map(|[frames, bytes]| Message::BaseEnd { frames, bytes }),
        (any::<u64>(), any::<[u8; 32]>())
            .prop_map(|(epoch, digest)| Message::Staged { epoch: Epoch(epoch), digest: Digest(digest) }),
        any::<u64>().prop_map(|epoch| Message::Commit { epoch: Epoch(epoch) }),
        any::<[u8; 16]>().prop_map(|generation| Message::TakeOver { generation }),
        (any::<[u64; 4]>(), any::<Option<u64>>()).prop_map(
            |([committed, applied, journal_used, journal_size], durable)| Message::Report {
                durable: durable.map(Epoch),
                committed: Epoch(committed),
                applied: Epoch(applied),
                journal_used,
                journal_size,
                room: (committed % 2 == 0).then(|| vec![Sectors(applied >> 10); 16]),
            }
        ),
        any_hash_request().prop_map(Message::Hash),
        (any::<u64>(), prop::collection::vec(any::<[u8; 32]>(), 0..40)).prop_map(|(token, digests)| {
            let digests = digests.into_iter().map(Digest);
            let digests = match token % 2 {
                0 => Digests::Whole(digests.collect()),
                _ => Digests::Short(digests.map(ShortDigest::from).collect()),
            };
            Message::Digests { token, result: Ok(digests) }
        }),
        (any::<u64>(), LINE).prop_map(|(token, text)| Message::Digests { token, result: Err(text) }),
        any::<u64>().prop_map(|token| Message::Ping { token }),
        any::<u64>().prop_map(|token| Message::Pong { token }),
        (LINE, prop_oneof![Just(ByeCause::Unsaid), Just(ByeCause::Journal), Just(ByeCause::Other)])
            .prop_map(|(text, cause)| Message::Bye { text, cause }),
    ]
}

/// The frame around a payload, with its checksum right.
fn around(frame: &Frame, payload: Vec<u8>) -> Frame {
    Frame::plain(frame.header.kind, frame.header.stamp(), 0, payload)
}

proptest! {
    #[test]
    fn messages_come_back_as_they_went(message in any_message()) {
        let frame = message.encode(3, INCARNATION);
        prop_assert_eq!(frame.header.incarnation, INCARNATION);
        prop_assert_eq!(Message::decode(&frame), Ok(message));
    }

    #[test]
    fn cut_or_changed_messages_never_pass_for_what_they_were(
        message in any_message(),
        at in any::<usize>(),
        flip in 1..=255u8,
    ) {
        let frame = message.encode(3, INCARNATION);
        if !frame.payload.is_empty() {
            let at = at % frame.payload.len();
            let cut = around(&frame, frame.payload[..at].to_vec());
            // Cut between fields, an optional one may just be missing.
            prop_assert_ne!(Message::decode(&cut), Ok(message.clone()));
            let mut changed = frame.clone();
            changed.payload[at] ^= flip;
            prop_assert!(Message::decode(&changed).is_err());
            // Sealed again it may be another message, but never the same one.
            prop_assert_ne!(Message::decode(&around(&frame, changed.payload)), Ok(message));
        }
    }

    #[test]
    fn what_a_newer_peer_adds_is_skipped_or_refused(message in any_message(), value in any::<[u8; 5]>()) {
        let frame = message.encode(3, INCARNATION);
        for (tag, skipped) in [(OPTIONAL | 0x10, true), (0x10, false)] {
            let mut added = Writer::new();
            added.field(tag, &value);
            let longer = around(&frame, [frame.payload.clone(), added.finish()].concat());
            let result = Message::decode(&longer);
            prop_assert_eq!(result.is_ok(), skipped);
        }
    }

    #[test]
    fn no_payload_panics(kind in 1u16..0x40, payload in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Some(kind) = FrameKind::from_number(kind) {
            let _ = Message::decode(&Frame::plain(kind, Stamp::default(), 0, payload));
        }
    }
}

#[test]
fn a_long_text_is_cut_at_a_character() {
    let text = "ä".repeat(MAX_TEXT);
    let frame = Message::Bye { text, cause: ByeCause::Other }.encode(1, INCARNATION);
    assert_eq!(
        Message::decode(&frame),
        Ok(Message::Bye { text: "ä".repeat(MAX_TEXT / 2), cause: ByeCause::Other })
    );
    let text = format!("a{}", "ä".repeat(MAX_TEXT));
    let frame = Message::Refuse { code: RefuseCode::Other(999), text, standing: None }.encode(1, INCARNATION);
    let Ok(Message::Refuse { code, text, .. }) = Message::decode(&frame) else { panic!("{frame:?}") };
    assert_eq!((code, text.len()), (RefuseCode::Other(999), MAX_TEXT - 1));
    let mut fields = Writer::new();
    fields.field(1, &vec![b'x'; MAX_TEXT + 1]);
    let long = Frame::plain(FrameKind::Bye, Stamp::default(), 0, fields.finish());
    assert!(matches!(Message::decode(&long), Err(MessageError::Fields { .. })));
}

#[test]
fn no_text_of_a_peer_has_a_line_break_or_a_control_character() {
    let text = || "a\nWATCHDOG=trigger\r\nMAINPID=1\u{1b}[2J\u{2028}b".to_owned();
    let line = "a WATCHDOG=trigger  MAINPID=1 [2J b".to_owned();
    let (code, standing) = (RefuseCode::Failed, None);
    for (said, heard) in [
        (
            Message::Bye { text: text(), cause: ByeCause::Journal },
            Message::Bye { text: line.clone(), cause: ByeCause::Journal },
        ),
        (
            Message::Refuse { code, text: text(), standing: None },
            Message::Refuse { code, text: line.clone(), standing },
        ),
        (
            Message::Digests { token: 1, result: Err(text()) },
            Message::Digests { token: 1, result: Err(line.clone()) },
        ),
    ] {
        assert_eq!(Message::decode(&said.encode(1, INCARNATION)), Ok(heard));
    }
}

#[test]
fn a_request_for_more_than_an_answer_holds_is_refused() {
    let place = |sectors| Place { volume: VolumeIndex(0), extent: extent(0, sectors) };
    let decoded = |unit, places: Vec<Place>| {
        let (unit, length) = (Sectors(unit), DigestLength::Short);
        let request = HashRequest { token: 1, epoch: Epoch(7), unit, length, places };
        Message::decode(&Message::Hash(request).encode(1, INCARNATION))
    };
    assert!(decoded(8, vec![place(8192)]).is_ok());
    for (unit, places) in [
        (8, vec![place(8193)]),
        (0, vec![place(8)]),
        (2048, vec![place(65_537)]),
        (2049, vec![place(8)]),
        (8, vec![place(8); 65]),
        (8, Vec::new()),
    ] {
        let result = decoded(unit, places);
        assert!(matches!(result, Err(MessageError::Fields { kind: FrameKind::Hash, .. })), "{result:?}");
    }
    let all = Digests::Whole(vec![Digest([7; 32]); MAX_DIGESTS]);
    let full = Message::Digests { token: u64::MAX, result: Ok(all) };
    let frame = full.encode(1, INCARNATION);
    assert!(frame.payload.len() <= crate::frame::MAX_CONTROL_PAYLOAD);
    assert_eq!(Message::decode(&frame), Ok(full));
    // A length that no digest has.
    let mut fields = Writer::new();
    (1..=3).for_each(|tag| fields.u64(tag, 8));
    fields.field(4, &[0; 10].iter().copied().chain(8u64.to_le_bytes()).collect::<Vec<_>>());
    fields.field(5, &[15]);
    let odd = Frame::plain(FrameKind::Hash, Stamp::default(), 0, fields.finish());
    assert!(matches!(Message::decode(&odd), Err(MessageError::Fields { .. })));
}

#[test]
fn what_is_no_message_or_contradicts_its_frame_is_refused() {
    let begin = epoch_header(1, Digest::ZERO).encode();
    assert_eq!(Message::decode(&begin), Err(MessageError::Kind(FrameKind::EpochBegin)));
    let commit = Message::Commit { epoch: Epoch(5) }.encode(1, INCARNATION);
    assert_eq!(commit.header.epoch, Epoch(5));
    let stamp = Stamp { epoch: Epoch(6), ..commit.header.stamp() };
    let other = Frame::plain(FrameKind::Commit, stamp, 0, commit.payload);
    assert_eq!(Message::decode(&other), Err(MessageError::Contradiction(FrameKind::Commit)));
}

#[test]
fn every_code_has_one_number() {
    for (code, number) in REFUSE_CODES {
        assert_eq!((code.number(), RefuseCode::from_number(number)), (number, code));
    }
}
