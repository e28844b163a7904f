//! The bytes of a connection: frames, and in each what its kind says.

use ftship_proto::frame::{Frame, FrameDecoder, FrameError, HEADER_LEN, MAX_RAW_PAYLOAD};
use ftship_proto::protocol::CommitPolicy;

use super::{epoch, message};
use crate::{Seed, Target, Verdict, explains, mend, seeds, within};

pub(super) const TARGET: Target =
    Target { name: "wire", run, seeds, max_len: 16 << 10, words: &["FTDM\u{1}\0"] };

/// Memory that a decoder holds, whatever arrives: one payload.
const BOUND: usize = MAX_RAW_PAYLOAD + 4096;

fn run(data: &[u8]) -> Verdict {
    let mended = mend::Depth::ALL.map(|depth| {
        let mut mended = data.to_vec();
        mend::Frames::after([0; 32], depth).mend_stream(&mut mended);
        if mended == data { Verdict::Refused } else { judge(&mended) }
    });
    mended.into_iter().fold(judge(data), Verdict::or)
}

fn judge(bytes: &[u8]) -> Verdict {
    let (mut decoder, mut rest) = (FrameDecoder::new(), bytes);
    let (mut frames, mut ended) = (Vec::new(), None);
    while !rest.is_empty() && ended.is_none() {
        match within(BOUND, || decoder.feed(rest)) {
            Ok((taken, frame)) => {
                assert!(taken > 0 && taken <= rest.len(), "the stream stands still");
                if let Some(frame) = frame {
                    let start = bytes.len() - rest.len();
                    check_bytes(&frame, &bytes[start..start + taken]);
                    frames.push(frame);
                }
                rest = &rest[taken..];
            }
            Err(error) => {
                explains(&error, &["frame"]);
                assert_eq!(decoder.feed(rest).err().as_ref(), Some(&error), "it goes on after an error");
                assert!(!decoder.is_between_frames());
                ended = Some(error);
            }
        }
    }
    assert_eq!(in_pieces(bytes), (frames.clone(), ended));
    let accepted = frames.iter().map(content).fold(Verdict::Refused, Verdict::or);
    accepted.or(Verdict::of(frames.iter().any(|frame| frame.payload.is_empty())))
}

/// A frame that came out is what lay there, possibly after frames that were skipped.
fn check_bytes(frame: &Frame, bytes: &[u8]) {
    let mut encoded = Vec::new();
    frame.encode_into(&mut encoded);
    assert_eq!(encoded.len() as u64, frame.wire_len());
    assert!(bytes.ends_with(&encoded), "another frame than came");
    assert!(frame.payload.len() <= MAX_RAW_PAYLOAD);
}

/// The same through the reactor's interface, a few bytes at a time.
fn in_pieces(bytes: &[u8]) -> (Vec<Frame>, Option<FrameError>) {
    let (mut decoder, mut frames, mut rest) = (FrameDecoder::new(), Vec::new(), bytes);
    while !rest.is_empty() {
        let spare = decoder.spare();
        assert!(!spare.is_empty(), "no room for the next byte");
        let len = spare.len().min(rest.len()).min(1 + rest.len() % 97);
        spare[..len].copy_from_slice(&rest[..len]);
        rest = &rest[len..];
        match decoder.filled(len) {
            Ok(frame) => frames.extend(frame),
            Err(error) => return (frames, Some(error)),
        }
    }
    (frames, None)
}

/// What the frame's kind says is in it.
fn content(frame: &Frame) -> Verdict {
    assert!(frame.wire_len() >= HEADER_LEN as u64);
    if frame.header.kind.carries_records() { epoch::records(frame) } else { message::fields(frame) }
}

fn seeds() -> Vec<Seed> {
    let mut seeds = seeds::golden_frames();
    seeds.push(("session".into(), seeds::session(CommitPolicy::Auto)));
    seeds
}
