use super::*;
use crate::ids::{Digest, Epoch, Incarnation};
use crate::testing::{epoch_header, frames_of};

fn epoch() -> Vec<Frame> {
    frames_of(epoch_header(9, Digest([1; 32])), 3 << 20).0
}

fn verify<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> Result<Option<EpochSummary>, EpochError> {
    let mut verifier = EpochVerifier::new(Digest([1; 32]));
    let mut sealed = None;
    for frame in frames {
        sealed = verifier.push(frame)?;
    }
    Ok(sealed)
}

#[test]
fn only_all_frames_in_order_make_an_epoch() {
    let frames = epoch();
    assert!(frames.len() > 4);
    assert!(verify(&frames).unwrap().is_some());
    for left_out in 0..frames.len() {
        let some = frames.iter().enumerate().filter(|(i, _)| *i != left_out).map(|(_, frame)| frame);
        let result = verify(some);
        assert!(left_out + 1 == frames.len() && result == Ok(None) || result.is_err(), "{left_out}");
    }
    for twice in 0..frames.len() {
        let some = frames[..=twice].iter().chain(&frames[twice..]);
        assert!(matches!(verify(some), Err(EpochError::Unexpected { .. })), "{twice}");
    }
    let mut swapped = frames;
    swapped.swap(1, 2);
    assert!(matches!(verify(&swapped), Err(EpochError::Unexpected { .. })));
}

#[test]
fn a_frame_of_another_epoch_or_sender_is_not_taken() {
    let change = |change: fn(&mut Frame)| {
        let mut frames = epoch();
        change(&mut frames[1]);
        verify(&frames)
    };
    for result in [
        change(|frame| frame.header.epoch = Epoch(10)),
        change(|frame| frame.header.incarnation = Incarnation([9; 16])),
        change(|frame| frame.header.generation += 1),
    ] {
        assert!(matches!(result, Err(EpochError::Unexpected { .. })), "{result:?}");
    }
}

#[test]
fn any_change_of_header_or_payload_changes_the_digest() {
    let frames = epoch();
    for i in 0..frames.len() - 1 {
        let mut changed = frames.clone();
        // Even one that no other check sees: the checksum of the payload put right.
        let at = changed[i].payload.len() / 2;
        changed[i].payload[at] ^= 1;
        changed[i].header.payload_crc = crc32c::crc32c(&changed[i].payload);
        assert!(verify(&changed).is_err(), "{i}");
    }
    let mut changed = frames;
    changed[1].header.payload_crc ^= 1;
    assert!(matches!(verify(&changed), Err(EpochError::Digest { .. })));
}

#[test]
fn the_chain_is_part_of_the_digest() {
    let (one, other) = (epoch_header(9, Digest([1; 32])), epoch_header(9, Digest([2; 32])));
    assert_ne!(frames_of(one, 4096).1.digest, frames_of(other.clone(), 4096).1.digest);
    let result = verify(&frames_of(other, 4096).0);
    assert!(matches!(result, Err(EpochError::Chain { epoch: Epoch(9), .. })));
}

#[test]
fn the_last_frame_must_count_right() {
    let frames = epoch();
    let stamp = frames[0].header.stamp();
    let said = EpochTrailer::decode(frames.last().unwrap()).unwrap();
    for wrong in [
        EpochTrailer { raw_bytes: said.raw_bytes + 1, ..said },
        EpochTrailer { digest: Digest([7; 32]), ..said },
    ] {
        let mut changed = frames.clone();
        *changed.last_mut().unwrap() = wrong.encode(stamp);
        let error = verify(&changed).unwrap_err();
        assert!(matches!(error, EpochError::Counts { .. } | EpochError::Digest { .. }));
    }
}

#[test]
fn a_failed_verifier_takes_nothing_more() {
    let frames = epoch();
    let mut verifier = EpochVerifier::new(Digest([1; 32]));
    verifier.push(&frames[0]).unwrap();
    assert!(verifier.push(&frames[2]).is_err());
    assert!(verifier.push(&frames[1]).is_err());
}
