//! What counts as a proof that an epoch is in its place.

use super::*;
use crate::epoch_encoder::EpochEncoder;
use crate::frame::{FrameKind, Stamp};
use crate::ids::VolumeIndex;
use crate::record::Content;
use crate::testing::{extent, noise};

/// A journal of 64 blocks with two synced epochs; the second one's data is larger than a piece.
fn two_epochs() -> (Journal, Place) {
    let mut journal = Journal::new(64);
    assert!(journal.append(8192) && journal.append(40_000));
    journal.sync();
    let place = place(&journal, 1);
    (journal, place)
}

fn place(journal: &Journal, index: usize) -> Place {
    let previous = index.checked_sub(1).map_or(Digest::ZERO, |before| journal.sealed[before].digest);
    let Written { digest, start, end, .. } = journal.sealed[index];
    Place { previous, digest, start, end }
}

fn prove(journal: &mut Journal, place: Place, piece: usize) -> Result<Proof, ProofError<&'static str>> {
    let ring = journal.writer.superblock().ring;
    Proof::of(ring, &mut journal.disk, place, piece, PIECE_LEN)
}

fn redo(journal: &mut Journal, proof: &Proof) -> Result<Vec<Frame>, (ProofError<&'static str>, u64)> {
    let ring = journal.writer.superblock().ring;
    let mut frames = Vec::new();
    let user = |frame: &Frame| {
        frames.push(frame.clone());
        Ok::<_, std::convert::Infallible>(())
    };
    match proof.redo(ring, &mut journal.disk, user) {
        Ok(()) => Ok(frames),
        Err(RedoError::Journal { source, used }) => {
            assert_eq!(frames.len() as u64, used);
            Err((source, used))
        }
        Err(RedoError::User(never)) => match never {},
    }
}

#[test]
fn what_is_proven_is_handed_out_as_it_was_sealed_whatever_is_kept() {
    let (mut journal, place) = two_epochs();
    for piece in [0, 4096, PIECE_LEN] {
        let proof = prove(&mut journal, place, piece).unwrap();
        assert_eq!((proof.epoch(), proof.place()), (Epoch(2), place));
        assert_eq!(proof.kept_len() > 0, piece == PIECE_LEN, "{piece}");
        assert_eq!(redo(&mut journal, &proof), Ok(journal.sealed[1].frames.clone()), "{piece}");
    }
}

/// A broken-off attempt at the same epoch by the same primary, of other content, at the same place: the frames of the
/// attempt that was sealed went astray.
#[test]
fn a_frame_of_another_attempt_at_the_same_epoch_proves_nothing() {
    let mut journal = Journal::new(64);
    assert!(journal.append(8192));
    let start = journal.writer.head();
    let mut stale = Vec::new();
    let mut encoder = EpochEncoder::new(EpochHeader { staged: Epoch(1), ..journal.header() });
    let other = noise(99, 16_384);
    let pushed =
        encoder.push(VolumeIndex(0), extent(2, 32), Content::Data(&other), &mut |frame| stale.push(frame));
    pushed.unwrap();
    encoder.finish(&mut |frame| stale.push(frame));
    assert!(journal.append(16_384));
    journal.sync();
    let place = place(&journal, 1);
    assert_eq!(place.start, start);
    assert!(prove(&mut journal, place, PIECE_LEN).is_ok());
    let sealed = journal.sealed[1].frames.clone();
    assert_eq!(stale.len(), sealed.len());
    for (number, (stale, sealed)) in stale.iter().zip(&sealed).enumerate() {
        assert_ne!(stale, sealed);
        let identity = |frame: &Frame| (frame.header.stamp(), frame.header.seq, frame.header.kind);
        assert_eq!(identity(stale), identity(sealed));
        let position = start + sealed_before(&journal, number);
        journal.put(position, stale);
        assert!(prove(&mut journal, place, PIECE_LEN).is_err(), "frame {number}");
        journal.put(position, sealed);
    }
}

/// Bytes of the second epoch before its frame of this number.
fn sealed_before(journal: &Journal, number: usize) -> u64 {
    journal.sealed[1].frames[..number].iter().map(|frame| padded_len(&frame.header)).sum()
}

#[test]
fn whatever_else_lies_there_is_no_proof() {
    let (mut journal, place) = two_epochs();
    let (first, second) = (journal.sealed[0].clone(), journal.sealed[1].clone());
    let data = second.start + padded_len(&second.frames[0].header);
    journal.put(data, &first.frames[1]);
    assert!(prove(&mut journal, place, PIECE_LEN).is_err(), "a frame of an earlier epoch");
    let stamp = Stamp { epoch: Epoch(9), generation: 3, incarnation: INCARNATION };
    journal.put(data, &Frame::plain(FrameKind::JournalPad, stamp, 0, Vec::new()));
    assert!(prove(&mut journal, place, PIECE_LEN).is_err(), "a pad marker that went astray");
    journal.put(data, &second.frames[1]);
    assert!(prove(&mut journal, place, PIECE_LEN).is_ok());
    let endless = ProofError::Endless { position: place.start };
    assert_eq!(prove(&mut journal, Place { end: data, ..place }, PIECE_LEN).unwrap_err(), endless);
    let empty = Place { end: place.start, ..place };
    assert_eq!(prove(&mut journal, empty, PIECE_LEN).unwrap_err(), endless);
    let other = prove(&mut journal, Place { digest: first.digest, ..place }, PIECE_LEN);
    assert!(matches!(other, Err(ProofError::Other { found, .. }) if found == second.digest));
    let unchained = prove(&mut journal, Place { previous: Digest::ZERO, ..place }, PIECE_LEN);
    assert!(matches!(unchained, Err(ProofError::Epoch { .. })));
}

#[test]
fn what_reads_otherwise_after_its_proof_is_not_handed_out() {
    let (mut journal, place) = two_epochs();
    let kept = prove(&mut journal, place, PIECE_LEN).unwrap();
    let proof = prove(&mut journal, place, 0).unwrap();
    let second = journal.sealed[1].clone();
    let end = second.end - padded_len(&second.frames.last().unwrap().header);
    let data = second.start + padded_len(&second.frames[0].header);
    journal.put(data, &second.frames[0]);
    let changed = redo(&mut journal, &proof).unwrap_err();
    assert_eq!(changed.1, 1, "the frame before it was used: {:?}", changed.0);
    assert_eq!(
        redo(&mut journal, &kept),
        Ok(second.frames.clone()),
        "what is kept in memory is what was proven"
    );
    journal.put(data, &second.frames[1]);
    journal.put(end, &second.frames[0]);
    assert!(redo(&mut journal, &proof).is_err(), "its end too");
}
