use proptest::prelude::*;

use super::*;
use crate::testing::epoch_header;

fn any_header() -> impl Strategy<Value = EpochHeader> {
    (any::<[u64; 4]>(), any::<[u8; 32]>(), any::<bool>(), any::<[u8; 16]>()).prop_map(
        |([a, b, features_optional, staged], previous, commit_point, id)| {
            let last = a.max(b).max(1);
            EpochHeader {
                features_optional,
                first_epoch: Epoch(a.min(b).max(1)),
                last_epoch: Epoch(last),
                previous: Digest(previous),
                commit_point,
                staged: Epoch(staged % last),
                incarnation: Incarnation(id),
                ..epoch_header(1, Digest::ZERO)
            }
        },
    )
}

/// The frame around a payload, with its checksum right.
fn around(frame: &Frame, payload: Vec<u8>) -> Frame {
    Frame::plain(frame.header.kind, frame.header.stamp(), frame.header.seq, payload)
}

proptest! {
    #[test]
    fn headers_come_back_as_they_went(header in any_header()) {
        prop_assert_eq!(EpochHeader::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn cut_or_changed_headers_never_pass_for_what_they_were(
        header in any_header(),
        at in any::<usize>(),
        flip in 1..=255u8,
    ) {
        let frame = header.encode();
        let at = at % frame.payload.len();
        prop_assert_ne!(EpochHeader::decode(&around(&frame, frame.payload[..at].to_vec())), Ok(header.clone()));
        let mut changed = frame.clone();
        changed.payload[at] ^= flip;
        prop_assert!(changed.verify().is_err());
        prop_assert_ne!(EpochHeader::decode(&around(&frame, changed.payload)), Ok(header));
    }

    #[test]
    fn trailers_come_back_or_are_refused(at in any::<usize>(), numbers in any::<[u64; 2]>(), digest in any::<[u8; 32]>()) {
        let [frames, raw_bytes] = numbers;
        let trailer = EpochTrailer { frames, raw_bytes, digest: Digest(digest) };
        let frame = trailer.encode(Stamp::default());
        prop_assert_eq!(EpochTrailer::decode(&frame), Ok(trailer));
        let cut = around(&frame, frame.payload[..at % frame.payload.len()].to_vec());
        prop_assert!(EpochTrailer::decode(&cut).is_err());
    }
}

#[test]
fn a_header_must_agree_with_its_frame_and_itself() {
    let sound = epoch_header(7, Digest::ZERO);
    let refuse = |header: EpochHeader, stamp: Stamp| {
        let frame = Frame::plain(FrameKind::EpochBegin, stamp, 0, header.encode().payload);
        assert!(matches!(EpochHeader::decode(&frame), Err(EpochError::Contradiction { .. })), "{header:?}");
    };
    let stamp = sound.stamp();
    refuse(sound.clone(), Stamp { epoch: Epoch(8), ..stamp });
    refuse(sound.clone(), Stamp { generation: 4, ..stamp });
    refuse(sound.clone(), Stamp { incarnation: Incarnation([0; 16]), ..stamp });
    refuse(EpochHeader { first_epoch: Epoch(8), ..sound.clone() }, stamp);
    refuse(EpochHeader { first_epoch: Epoch(0), ..sound.clone() }, stamp);
    refuse(EpochHeader { staged: Epoch(7), ..sound }, stamp);
}

#[test]
fn what_is_not_understood_is_named() {
    let sound = epoch_header(7, Digest::ZERO);
    let decode = |header: EpochHeader| EpochHeader::decode(&header.encode()).unwrap_err();
    let newer = EpochHeader { protocol: 3, ..sound.clone() };
    assert_eq!(decode(newer), EpochError::Protocol { epoch: Epoch(7), found: 3 });
    let features = EpochHeader { features_mandatory: 1 << 40, ..sound.clone() };
    assert_eq!(decode(features), EpochError::Features { epoch: Epoch(7), unknown: 1 << 40 });
    let mut frame = sound.encode();
    frame.header.seq = 1;
    assert!(matches!(EpochHeader::decode(&frame), Err(EpochError::Unexpected { .. })));
}
