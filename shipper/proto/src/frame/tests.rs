use proptest::prelude::*;

use super::*;
use crate::testing::{epoch_header, frames_of, noise};

fn any_kind() -> impl Strategy<Value = FrameKind> {
    use FrameKind::*;
    prop_oneof![
        Just(Hello),
        Just(Welcome),
        Just(Bye),
        Just(BaseData),
        Just(EpochBegin),
        Just(EpochData),
        Just(EpochEnd),
        Just(JournalPad),
        (0u16..0x7fff).prop_map(|n| Skippable(n | 0x8000)),
    ]
}

fn any_header() -> impl Strategy<Value = FrameHeader> {
    (any_kind(), any::<[u64; 3]>(), any::<[u8; 16]>(), any::<u32>(), any::<u32>(), any::<bool>()).prop_map(
        |(kind, [seq, epoch, generation], incarnation, len, payload_crc, compressed)| {
            let data = kind.carries_records();
            let limit = if data { MAX_RAW_PAYLOAD } else { MAX_CONTROL_PAYLOAD };
            let raw_len = 2 + len % (u32::try_from(limit).unwrap() - 1);
            let compressed = compressed && data;
            FrameHeader {
                kind,
                compressed,
                seq,
                epoch: Epoch(epoch),
                generation,
                incarnation: Incarnation(incarnation),
                payload_len: if compressed { raw_len / 2 } else { raw_len },
                raw_len,
                record_count: if data { raw_len / 24 } else { 0 },
                payload_crc,
            }
        },
    )
}

/// The header with a field changed and the checksum put right.
fn patched(header: &FrameHeader, at: usize, field: &[u8]) -> Result<FrameHeader, FrameError> {
    let mut bytes = header.encode();
    bytes[at..at + field.len()].copy_from_slice(field);
    let crc = crc32c::crc32c(&bytes[..124]);
    bytes[124..].copy_from_slice(&crc.to_le_bytes());
    FrameHeader::decode(&bytes)
}

fn data_frame() -> Frame {
    let (frames, _) = frames_of(epoch_header(7, crate::ids::Digest::ZERO), 8192);
    frames.into_iter().find(|frame| frame.header.kind == FrameKind::EpochData).unwrap()
}

proptest! {
    #[test]
    fn headers_come_back_as_they_went(header in any_header()) {
        prop_assert_eq!(FrameHeader::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn any_change_of_a_header_is_an_error(header in any_header(), at in 0..HEADER_LEN, flip in 1..=255u8) {
        let mut bytes = header.encode();
        bytes[at] ^= flip;
        prop_assert!(FrameHeader::decode(&bytes).is_err());
    }

    #[test]
    fn no_bytes_make_a_header_panic_or_exceed_the_limits(
        noise in prop::array::uniform32(any::<u32>()),
        kind in any::<u8>(),
    ) {
        let mut bytes = [0; HEADER_LEN];
        bytes.chunks_exact_mut(4).zip(noise).for_each(|(chunk, word)| chunk.copy_from_slice(&word.to_le_bytes()));
        prop_assert!(FrameHeader::decode(&bytes).is_err());
        // With everything right but the free fields, what is accepted is within the limits.
        bytes[..8].copy_from_slice(&[b'F', b'T', b'D', b'M', 1, 0, kind & 0x2f, 0]);
        bytes[8] &= 1;
        bytes[9..12].fill(0);
        bytes[68..124].fill(0);
        for len in [60, 56, 14] {
            bytes[len + 2] &= 0x1f;
            bytes[len + 3] = 0;
        }
        let crc = crc32c::crc32c(&bytes[..124]);
        bytes[124..].copy_from_slice(&crc.to_le_bytes());
        if let Ok(header) = FrameHeader::decode(&bytes) {
            prop_assert!(header.payload_len <= header.raw_len && header.raw_len as usize <= MAX_RAW_PAYLOAD);
        }
    }

    #[test]
    fn frames_come_out_of_a_stream_however_it_is_cut(
        cuts in prop::collection::vec(1usize..5000, 1..20),
        sizes in prop::collection::vec(0usize..20_000, 1..5),
    ) {
        let mut stream = Vec::new();
        let mut sent = Vec::new();
        for (seq, size) in sizes.into_iter().enumerate() {
            let kind = if seq == 1 { FrameKind::Skippable(0x8001) } else { FrameKind::Ping };
            let frame = Frame::plain(kind, Stamp::default(), seq as u64, noise(seq as u64, size));
            frame.encode_into(&mut stream);
            if seq != 1 {
                sent.push(frame);
            }
        }
        let mut decoder = FrameDecoder::new();
        let mut received = Vec::new();
        let (mut rest, mut cuts) = (&stream[..], cuts.into_iter().cycle());
        while !rest.is_empty() {
            let (mut piece, after) = rest.split_at(cuts.next().unwrap().min(rest.len()));
            rest = after;
            while !piece.is_empty() {
                let (taken, frame) = decoder.feed(piece).unwrap();
                piece = &piece[taken..];
                received.extend(frame);
            }
        }
        prop_assert!(decoder.is_between_frames());
        prop_assert_eq!(received, sent);
    }
}

#[test]
fn each_field_is_checked_by_itself() {
    let header = data_frame().header;
    assert_eq!(patched(&header, 0, b"FTDM"), Ok(header));
    assert!(matches!(patched(&header, 0, b"XXXX"), Err(FrameError::Magic { .. })));
    let newer = patched(&header, 4, &2u16.to_le_bytes());
    assert_eq!(newer, Err(FrameError::Version { found: 2, epoch: Epoch(7) }));
    assert!(matches!(patched(&header, 6, &0x3fu16.to_le_bytes()), Err(FrameError::Kind { kind: 0x3f, .. })));
    assert!(matches!(patched(&header, 8, &2u32.to_le_bytes()), Err(FrameError::Flags { .. })));
    for at in 68..124 {
        assert!(matches!(patched(&header, at, &[1]), Err(FrameError::Reserved(_))), "{at}");
    }
    let too_long = u32::try_from(MAX_RAW_PAYLOAD + 1).unwrap().to_le_bytes();
    let lengths = |at, field: &[u8]| matches!(patched(&header, at, field), Err(FrameError::Lengths { .. }));
    assert!(lengths(56, &too_long) && lengths(60, &too_long) && lengths(56, &[too_long, too_long].concat()));
    assert!(lengths(12, &(header.raw_len / 24 + 1).to_le_bytes()));
    let ping = Frame::plain(FrameKind::Ping, Stamp::default(), 0, vec![0; 40]).header;
    assert!(matches!(patched(&ping, 12, &1u32.to_le_bytes()), Err(FrameError::Lengths { .. })));
    assert!(matches!(patched(&ping, 8, &1u32.to_le_bytes()), Err(FrameError::Flags { .. })));
    let long = u32::try_from(MAX_CONTROL_PAYLOAD + 1).unwrap().to_le_bytes();
    assert!(matches!(patched(&ping, 56, &[long, long].concat()), Err(FrameError::Lengths { .. })));
}

#[test]
fn a_payload_must_be_what_the_header_says() {
    let frame = data_frame();
    assert_eq!(frame.verify(), Ok(()));
    for at in 0..frame.payload.len() {
        let mut changed = frame.clone();
        changed.payload[at] ^= 0x10;
        assert!(matches!(changed.verify(), Err(FrameError::PayloadChecksum { .. })), "{at}");
    }
    let mut short = frame;
    short.payload.pop();
    assert!(matches!(short.verify(), Err(FrameError::PayloadLength { .. })));
}

#[test]
fn decompression_is_bounded_by_the_promised_length() {
    let raw = vec![7; 100_000];
    let payload = lz4_flex::block::compress(&raw);
    let len = |n: usize| u32::try_from(n).unwrap();
    let mut frame = Frame::plain(FrameKind::EpochData, Stamp::default(), 1, payload);
    frame.header.compressed = true;
    let mut scratch = Vec::new();
    for (raw_len, sound) in [(raw.len(), true), (raw.len() - 1, false), (raw.len() + 1, false)] {
        frame.header.raw_len = len(raw_len);
        let result = frame.raw_payload(&mut scratch).map(<[u8]>::to_vec);
        assert_eq!(result.is_ok(), sound, "{raw_len}");
        assert!(scratch.len() <= raw.len() + 1);
    }
    frame.header.raw_len = len(MAX_RAW_PAYLOAD + 1);
    assert!(matches!(frame.raw_payload(&mut scratch), Err(FrameError::Lengths { .. })));
    frame.header.raw_len = len(raw.len());
    frame.payload = noise(1, frame.payload.len());
    assert!(matches!(frame.raw_payload(&mut scratch), Err(FrameError::Decompress { .. })));
}

#[test]
fn a_decoder_stops_for_good_at_the_first_error() {
    let good = Frame::plain(FrameKind::Ping, Stamp::default(), 0, vec![1, 2, 3]);
    let mut stream = Vec::new();
    good.encode_into(&mut stream);
    stream[HEADER_LEN] ^= 1;
    let mut decoder = FrameDecoder::new();
    let error = decoder.feed(&stream).unwrap_err();
    assert!(matches!(error, FrameError::PayloadChecksum { .. }));
    let mut sound = Vec::new();
    good.encode_into(&mut sound);
    assert_eq!(decoder.feed(&sound).unwrap_err(), error);
    assert!(!decoder.is_between_frames());
}

#[test]
fn a_decoder_allocates_nothing_before_the_header_is_sound() {
    let mut decoder = FrameDecoder::new();
    assert_eq!(decoder.spare().len(), HEADER_LEN);
    let pad = Frame::plain(FrameKind::JournalPad, Stamp::default(), 0, Vec::new());
    let error = decoder.feed(&pad.header.encode()).unwrap_err();
    assert_eq!(error, FrameError::JournalOnly(FrameKind::JournalPad));
    assert!(decoder.spare().len() <= HEADER_LEN);
}
