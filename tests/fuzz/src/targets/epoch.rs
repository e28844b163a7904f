//! The records of data frames, compressed or not.
//!
//! ```text
//! input: flags u8 (1 compressed, 2 of a base copy), records u32, raw length u32, payload as stored
//! ```

use ftship_proto::frame::{Frame, FrameHeader, FrameKind, HEADER_LEN, MAX_RAW_PAYLOAD};
use ftship_proto::ids::Epoch;
use ftship_proto::protocol::CommitPolicy;
use ftship_proto::record::{Record, RecordBuilder, RecordIter};

use crate::input::Input;
use crate::seeds::{INCARNATION, golden_bytes, group, session};
use crate::{Seed, Target, Verdict, explains, within};

pub(super) const TARGET: Target = Target { name: "epoch", run, seeds, max_len: 16 << 10, words: &[] };

/// Memory for a decompressed payload; nothing else is copied.
const BOUND: usize = MAX_RAW_PAYLOAD + 4096;

fn run(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    let flags = input.u8();
    let (compressed, is_base) = (flags & 1 != 0, flags & 2 != 0);
    let (record_count, raw_len) = (input.u32(), input.u32());
    let payload = input.rest().to_vec();
    let payload_len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let header = FrameHeader {
        kind: if is_base { FrameKind::BaseData } else { FrameKind::EpochData },
        compressed,
        seq: 1,
        epoch: Epoch(9),
        generation: 2,
        incarnation: INCARNATION,
        payload_len,
        raw_len: if compressed { raw_len } else { payload_len },
        record_count,
        payload_crc: crc32c::crc32c(&payload),
    };
    // A header with lengths beyond the limits does not get further than this.
    match FrameHeader::decode(&header.encode()) {
        Ok(decoded) => {
            assert_eq!(decoded, header);
            records(&Frame { header, payload })
        }
        Err(error) => {
            explains(&error, &["frame"]);
            Verdict::Refused
        }
    }
}

/// Decodes the records of a data frame, and checks that they give the same payload again.
pub(super) fn records(frame: &Frame) -> Verdict {
    let FrameHeader { kind, record_count, raw_len, .. } = frame.header;
    let mut scratch = Vec::new();
    let raw = match within(BOUND, || frame.raw_payload(&mut scratch)) {
        Ok(raw) => raw,
        Err(error) => {
            explains(&error, &["frame"]);
            return Verdict::Refused;
        }
    };
    assert_eq!(raw.len(), raw_len as usize);
    let Some(group) = group() else { panic!("the group is sound") };
    let records = match within(4096, || RecordIter::new(raw, kind, record_count, &group)) {
        Ok(records) => records,
        Err(error) => {
            explains(&error, &["record"]);
            return Verdict::Refused;
        }
    };
    let mut builder = RecordBuilder::new(kind);
    let mut found = 0;
    for record in records {
        let Record { volume, extent, content } = record;
        let held = group.volume(volume).is_some_and(|described| described.holds(extent));
        assert!(held, "{extent} is not on {volume}");
        let pushed = builder.push(&group, volume, extent, content);
        assert_eq!(pushed, Ok(()), "came out, and does not go in");
        found += 1;
    }
    assert_eq!(found, record_count);
    let mut again = Vec::new();
    assert_eq!(builder.take(&mut again), record_count);
    assert!(again == raw, "one set of records, one payload");
    Verdict::Accepted
}

fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (name, stream) in
        [("compressed", golden_bytes("compressed")), ("session", session(CommitPolicy::Auto))]
    {
        let mut rest = &stream[..];
        while rest.len() >= HEADER_LEN {
            let Ok(header) = rest.first_chunk().map_or(Err(()), |h| FrameHeader::decode(h).map_err(|_| ()))
            else {
                break;
            };
            let end = HEADER_LEN + header.payload_len as usize;
            if header.kind.carries_records() {
                let flags = u8::from(header.compressed) | u8::from(header.kind == FrameKind::BaseData) << 1;
                let mut bytes = vec![flags];
                bytes.extend_from_slice(&header.record_count.to_le_bytes());
                bytes.extend_from_slice(&header.raw_len.to_le_bytes());
                bytes.extend_from_slice(&rest[HEADER_LEN..end]);
                seeds.push((format!("{name}-{}-{}", header.epoch, header.seq), bytes));
            }
            rest = &rest[end..];
        }
    }
    seeds
}
