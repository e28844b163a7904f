//! The fields of control messages and of an epoch's first and last frame, without the way there.
//!
//! ```text
//! input: kind u8 (index into KINDS), epoch u64, generation u64, payload
//! ```

use ftship_proto::epoch::{EpochHeader, EpochTrailer};
use ftship_proto::frame::{Frame, FrameKind, MAX_CONTROL_PAYLOAD, Stamp};
use ftship_proto::ids::Epoch;
use ftship_proto::message::{MAX_TEXT, Message};

use crate::input::Input;
use crate::seeds::{INCARNATION, epoch, golden_frames};
use crate::{Seed, Target, Verdict, explains, within};

pub(super) const TARGET: Target = Target { name: "message", run, seeds, max_len: 8 << 10, words: &["vm1"] };

const KINDS: [FrameKind; 14] = [
    FrameKind::Hello,
    FrameKind::Welcome,
    FrameKind::Refuse,
    FrameKind::Bye,
    FrameKind::Ping,
    FrameKind::Pong,
    FrameKind::Report,
    FrameKind::SyncBegin,
    FrameKind::SyncReady,
    FrameKind::BaseEnd,
    FrameKind::Staged,
    FrameKind::Commit,
    FrameKind::EpochBegin,
    FrameKind::EpochEnd,
];

/// Memory for the fields of any control payload: 64 fields, 64 volumes, 64 generations and a text.
const BOUND: usize = 32 << 10;

fn run(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    let kind = KINDS[usize::from(input.u8()) % KINDS.len()];
    let (epoch, generation) = (Epoch(input.u64()), input.u64());
    let payload = input.rest();
    let payload = payload[..payload.len().min(MAX_CONTROL_PAYLOAD)].to_vec();
    fields(&Frame::plain(kind, Stamp { epoch, generation, incarnation: INCARNATION }, 0, payload))
}

/// Decodes what is in a frame that carries no records, and checks that it survives being encoded.
pub(super) fn fields(frame: &Frame) -> Verdict {
    match frame.header.kind {
        FrameKind::EpochBegin => begin(frame),
        FrameKind::EpochEnd => end(frame),
        _ => message(frame),
    }
}

fn message(frame: &Frame) -> Verdict {
    match within(BOUND, || Message::decode(frame)) {
        Ok(message) => {
            let again = message.encode(frame.header.generation, frame.header.incarnation);
            assert_eq!((again.header.kind, again.header.epoch), (frame.header.kind, frame.header.epoch));
            assert_eq!(again.header.stamp(), frame.header.stamp());
            assert_eq!(Message::decode(&again).as_ref(), Ok(&message));
            if let Message::Bye { text, .. } | Message::Refuse { text, .. } = &message {
                assert!(text.len() <= MAX_TEXT);
            }
            Verdict::Accepted
        }
        Err(error) => {
            explains(&error, &["field", "frame", "contradicts"]);
            Verdict::Refused
        }
    }
}

fn begin(frame: &Frame) -> Verdict {
    match within(BOUND, || EpochHeader::decode(frame)) {
        Ok(header) => {
            assert_eq!(header.stamp(), frame.header.stamp());
            assert!(header.first_epoch <= header.last_epoch && header.staged < header.last_epoch);
            assert_eq!(EpochHeader::decode(&header.encode()), Ok(header));
            Verdict::Accepted
        }
        Err(error) => {
            explains(&error, &["epoch "]);
            Verdict::Refused
        }
    }
}

fn end(frame: &Frame) -> Verdict {
    match within(BOUND, || EpochTrailer::decode(frame)) {
        Ok(trailer) => {
            assert_eq!(EpochTrailer::decode(&trailer.encode(frame.header.stamp())), Ok(trailer));
            Verdict::Accepted
        }
        Err(error) => {
            explains(&error, &["epoch "]);
            Verdict::Refused
        }
    }
}

fn seeds() -> Vec<Seed> {
    let decoded = golden_frames().into_iter().filter_map(|(name, bytes)| {
        let (_, frame) = ftship_proto::frame::FrameDecoder::new().feed(&bytes).ok()?;
        Some((name, frame?))
    });
    let own = epoch(5, ftship_proto::ids::Digest::ZERO, true).map_or(Vec::new(), |(frames, _)| frames);
    let own = own.into_iter().map(|frame| (format!("epoch-{}", frame.header.seq), frame));
    let input = |(name, frame): (String, Frame)| {
        let kind = KINDS.iter().position(|kind| *kind == frame.header.kind)?;
        let mut bytes = vec![u8::try_from(kind).ok()?];
        bytes.extend_from_slice(&frame.header.epoch.0.to_le_bytes());
        bytes.extend_from_slice(&frame.header.generation.to_le_bytes());
        bytes.extend_from_slice(&frame.payload);
        Some((name, bytes))
    };
    decoded.chain(own).filter_map(input).collect()
}
