//! The frozen bytes of every encoding, against `tests/golden/*.hex`.
//!
//! A difference means that hosts of two versions no longer understand each other, or that a journal or
//! state written before cannot be read: never adapt a file, make a new version. A file has the total
//! length, then each 32 bytes that are not all zero with their offset.

use ftdm_units::{Era, Extent, Sector, Sectors};
use ftship_proto::epoch::{EpochError, EpochHeader, EpochTrailer};
use ftship_proto::epoch_encoder::{EpochEncoder, PlainEncoder};
use ftship_proto::frame::{Frame, FrameDecoder, FrameKind};
use ftship_proto::generations::LineageEntry;
use ftship_proto::group::{GroupDescription, VolumeDescription};
use ftship_proto::growth::SizeHistory;
use ftship_proto::ids::{Digest, Epoch, Generation, Incarnation, VolumeIndex, VolumeUuid};
use ftship_proto::journal::{Dropped, JournalWriter, Ring, Superblock, encode_padded, recover};
use ftship_proto::lineage::Standing;
use ftship_proto::message::{ByeCause, Hello, Message, RefuseCode, Welcome};
use ftship_proto::record::{Content as Data, RecordError, RecordIter};
use ftship_proto::rolls::{Roll, RollHistory};
use ftship_proto::slot::{SLOT_SIZE, SlotKind, encode};
use ftship_proto::state::{Content, DurableState, Fence, Role, WriteMark};
use ftship_proto::verify::{DigestLength, Digests, HashRequest, Place, ShortDigest};

/// Bytes of the first frame of these epochs.
const HEADER_AND_FIELDS: usize = 128 + 231;
const INCARNATION: Incarnation = Incarnation([0xa1; 16]);

fn golden(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/golden/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut bytes = vec![0; lines.next().unwrap().parse().unwrap()];
    for line in lines {
        let (offset, digits) = line.split_once(' ').unwrap();
        let offset = usize::from_str_radix(offset, 16).unwrap();
        for (i, pair) in digits.as_bytes().chunks(2).enumerate() {
            bytes[offset + i] = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        }
    }
    bytes
}

fn check(name: &str, encoded: &[u8]) {
    let frozen = golden(name);
    let differs = frozen.iter().zip(encoded).position(|(a, b)| a != b);
    assert!(
        frozen == encoded,
        "{name}: {} bytes, frozen {}, first difference at {differs:?}",
        encoded.len(),
        frozen.len()
    );
}

fn bytes_of(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| frame.encode_into(&mut bytes));
    bytes
}

fn frames_in(mut bytes: &[u8]) -> Vec<Frame> {
    let (mut decoder, mut frames) = (FrameDecoder::new(), Vec::new());
    while !bytes.is_empty() {
        let (taken, frame) = decoder.feed(bytes).unwrap();
        frames.extend(frame);
        bytes = &bytes[taken..];
    }
    assert!(decoder.is_between_frames());
    frames
}

fn group() -> GroupDescription {
    let volume = |id: u8, size, logical_block_size| VolumeDescription {
        uuid: VolumeUuid([id; 16]),
        size: Sectors(size),
        logical_block_size,
    };
    let volumes = vec![volume(1, 1 << 20, 512), volume(2, 1 << 16, 4096)];
    GroupDescription::new("vm1".parse().unwrap(), volumes).unwrap()
}

fn generation(number: u64) -> Generation {
    Generation { number, id: [0xe0; 16] }
}

fn lineage() -> Vec<LineageEntry> {
    let entry = |number, first, digest| LineageEntry {
        generation: generation(number),
        first_epoch: Epoch(first),
        digest: Digest([digest; 32]),
    };
    vec![entry(1, 1, 0), entry(2, 4711, 0xd1)]
}

fn epoch_header() -> EpochHeader {
    EpochHeader {
        protocol: 2,
        features_optional: 6,
        features_mandatory: 0,
        group: group(),
        incarnation: INCARNATION,
        generation: generation(2),
        first_epoch: Epoch(4711),
        last_epoch: Epoch(4712),
        previous: Digest([0xd1; 32]),
        commit_point: true,
        staged: Epoch(4709),
    }
}

/// Bytes that lz4 cannot shrink.
fn varied(len: usize) -> Vec<u8> {
    let step = |x: &u32| Some((x ^ (x << 13)) ^ ((x ^ (x << 13)) >> 17) ^ (x << 5));
    std::iter::successors(Some(1u32), step).map(|x| x.to_be_bytes()[1]).take(len).collect()
}

fn extent(start: u64, len: u64) -> Extent {
    Extent::new(Sector(start), Sectors(len)).unwrap()
}

/// The frozen slot that holds this state, whichever way one goes.
fn check_state(name: &str, sequence: u64, state: DurableState) {
    check(name, &encode(sequence, SlotKind::State, &state.encode()).unwrap());
    let slot: [u8; SLOT_SIZE] = golden(name).try_into().unwrap();
    let (found, chosen) = DurableState::load(Some(&slot), Some(&slot)).unwrap().unwrap();
    assert_eq!((found, chosen.sequence), (state, sequence), "{name}");
}

fn hash_request(length: DigestLength) -> HashRequest {
    let place = |volume, start, len| Place { volume: VolumeIndex(volume), extent: extent(start, len) };
    HashRequest {
        token: 0x77,
        epoch: Epoch(4713),
        unit: Sectors(8),
        length,
        places: vec![place(0, 5, 4), place(1, 1 << 10, 8)],
    }
}

#[test]
fn messages() {
    let hello =
        Message::Hello(Hello { protocol_max: 3, features_optional: 5, features_mandatory: 9, ..a_hello() });
    let welcome = Message::Welcome(Welcome {
        protocol: 1,
        features: 5,
        lineage: lineage(),
        highest_epoch_seen: Epoch(4713),
        committed: Epoch(4710),
        chain_digest: Digest([0xd3; 32]),
        content: Content::Inconsistent { base_id: [0xb1; 16], base: None },
        role: Role::Backup,
        journal_size: None,
        held: None,
        sizes: None,
    });
    let digests = |digests| Message::Digests { token: 0x77, result: Ok(digests) };
    let all = [
        ("hello", hello),
        ("welcome", welcome),
        (
            "refuse",
            Message::Refuse { code: RefuseCode::VolumeMismatch, text: "resize it".into(), standing: None },
        ),
        ("sync_begin", Message::SyncBegin { base_id: [0xb1; 16], base: None }),
        ("sync_ready", Message::SyncReady),
        ("base_end", Message::BaseEnd { frames: 77, bytes: 1 << 40 }),
        ("staged", Message::Staged { epoch: Epoch(4712), digest: Digest([0xd2; 32]) }),
        ("commit", Message::Commit { epoch: Epoch(4712) }),
        ("take_over", Message::TakeOver { generation: [0xe3; 16] }),
        (
            "report",
            Message::Report {
                committed: Epoch(4712),
                applied: Epoch(4700),
                durable: None,
                journal_used: 12345,
                journal_size: 1 << 30,
                room: None,
            },
        ),
        ("ping", Message::Ping { token: 0x0102_0304_0506_0708 }),
        ("pong", Message::Pong { token: 0x0102_0304_0506_0708 }),
        ("bye", Message::Bye { text: "promoted".into(), cause: ByeCause::Unsaid }),
        ("bye_journal", Message::Bye { text: "it is full".into(), cause: ByeCause::Journal }),
        ("hash", Message::Hash(hash_request(DigestLength::Whole))),
        ("hash_short", Message::Hash(hash_request(DigestLength::Short))),
        ("digests", digests(Digests::Whole([0xd4, 0xd5].map(|byte| Digest([byte; 32])).to_vec()))),
        ("digests_short", digests(Digests::Short([0xd4, 0xd5].map(|byte| ShortDigest([byte; 16])).to_vec()))),
        ("digests_none", Message::Digests { token: 0x77, result: Err("that epoch is past".into()) }),
    ];
    for (name, message) in all {
        check(name, &bytes_of(&[message.encode(2, INCARNATION)]));
        let frames = frames_in(&golden(name));
        assert_eq!(Message::decode(&frames[0]), Ok(message), "{name}");
    }
}

/// Each refusal that is known, and one that a later version may send.
#[test]
fn refusals() {
    let text = "say why, and what to do";
    let codes: Vec<RefuseCode> = RefuseCode::known().chain([RefuseCode::Other(0x7777)]).collect();
    let refuse = |code: &RefuseCode| Message::Refuse { code: *code, text: text.into(), standing: None };
    let frames: Vec<Frame> = codes.iter().map(|code| refuse(code).encode(2, INCARNATION)).collect();
    check("refusals", &bytes_of(&frames));
    for (frame, code) in frames_in(&golden("refusals")).iter().zip(&codes) {
        assert_eq!(Message::decode(frame), Ok(refuse(code)));
    }
}

#[test]
fn a_report_with_its_optional_field() {
    let report = Message::Report {
        committed: Epoch(4712),
        applied: Epoch(4700),
        durable: Some(Epoch(4715)),
        journal_used: 12345,
        journal_size: 1 << 30,
        room: None,
    };
    check("report_durable", &bytes_of(&[report.encode(2, INCARNATION)]));
    assert_eq!(Message::decode(&frames_in(&golden("report_durable"))[0]), Ok(report));
}

#[test]
fn a_welcome_with_its_optional_field() {
    let welcome = Message::Welcome(Welcome {
        protocol: 1,
        features: 3,
        lineage: lineage(),
        highest_epoch_seen: Epoch(4713),
        committed: Epoch::NONE,
        chain_digest: Digest([0xd3; 32]),
        content: Content::Consistent,
        role: Role::Backup,
        journal_size: Some(15 << 20),
        held: None,
        sizes: None,
    });
    check("welcome_journal", &bytes_of(&[welcome.encode(2, INCARNATION)]));
    assert_eq!(Message::decode(&frames_in(&golden("welcome_journal"))[0]), Ok(welcome));
}

#[test]
fn what_a_sync_starts_from() {
    let base = Some(Epoch(4711));
    let welcome = Message::Welcome(Welcome {
        protocol: 1,
        features: 0,
        lineage: lineage(),
        highest_epoch_seen: Epoch(4713),
        committed: Epoch(4710),
        chain_digest: Digest([0xd3; 32]),
        content: Content::Inconsistent { base_id: [0xb1; 16], base },
        role: Role::Backup,
        journal_size: Some(15 << 20),
        held: Some(Epoch(4712)),
        sizes: None,
    });
    let begin = Message::SyncBegin { base_id: [0xb1; 16], base };
    for (name, message) in [("welcome_held", welcome), ("sync_begin_base", begin)] {
        check(name, &bytes_of(&[message.encode(2, INCARNATION)]));
        assert_eq!(Message::decode(&frames_in(&golden(name))[0]), Ok(message), "{name}");
    }
}

#[test]
fn epoch() {
    let mut frames = Vec::new();
    let mut encoder = EpochEncoder::new(epoch_header());
    let mut sink = |frame| frames.push(frame);
    // Too varied to be compressed: the bytes of lz4 are not ours to freeze.
    let data = varied(2048);
    encoder.push(VolumeIndex(0), extent(5, 4), Data::Data(&data), &mut sink).unwrap();
    encoder.push(VolumeIndex(0), extent(9, 1 << 10), Data::Zero, &mut sink).unwrap();
    encoder.push(VolumeIndex(1), extent(16, 8), Data::Unknown, &mut sink).unwrap();
    let summary = encoder.finish(&mut sink);
    assert!(!frames[1].header.compressed);
    check("epoch_content_2", &bytes_of(&frames));
    let frozen = frames_in(&golden("epoch_content_2"));
    assert_eq!(EpochHeader::decode(&frozen[0]), Ok(epoch_header()));
    assert_eq!(EpochTrailer::decode(&frozen[2]).unwrap().digest, summary.digest);
}

#[test]
fn an_epoch_of_protocol_1_is_refused_by_name_and_so_is_its_resize() {
    for name in ["epoch", "epoch_content", "journal_begin"] {
        let refused = EpochHeader::decode(&frames_in(&golden(name)[..HEADER_AND_FIELDS])[0]).unwrap_err();
        assert_eq!(refused, EpochError::Protocol { epoch: Epoch(4712), found: 1 }, "{name}");
    }
    let frozen = frames_in(&golden("epoch"));
    assert!(EpochTrailer::decode(&frozen[2]).is_ok());
    let (kind, count) = (frozen[1].header.kind, frozen[1].header.record_count);
    let records = RecordIter::new(&frozen[1].payload, kind, count, &group());
    assert_eq!(records.unwrap_err(), RecordError::Resize { index: 0 });
}

#[test]
fn compressed_frames_stay_readable() {
    let frozen = frames_in(&golden("compressed"));
    assert!(frozen[0].header.compressed && frozen[0].header.kind == FrameKind::BaseData);
    let mut encoder = PlainEncoder::base(group(), 2, INCARNATION);
    let text: Vec<u8> =
        b"the quick brown fox jumps over the lazy dog ".iter().copied().cycle().take(4096).collect();
    let mut frames = Vec::new();
    encoder.push(VolumeIndex(1), extent(8, 8), Data::Data(&text), &mut |_| {}).unwrap();
    encoder.flush(&mut |frame| frames.push(frame));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    assert_eq!(frozen[0].raw_payload(&mut theirs), frames[0].raw_payload(&mut ours));
}

#[test]
fn durable_state() {
    let state = DurableState {
        group_name: "vm1".parse().unwrap(),
        formatted_id: [0xf1; 16],
        role: Role::Primary,
        lineage: lineage(),
        highest_epoch_seen: Epoch(4713),
        content: Content::Consistent,
        group: Some(group()),
        last_incarnation: Some(INCARNATION),
        rolls: RollHistory::default(),
        alone: None,
        fenced: None,
        devices: Vec::new(),
        token: 0,
        lost: None,
        numbered: None,
        with_loss: false,
        ended_at: None,
        sizes: SizeHistory::default(),
    };
    check_state("state", 7, state);
}

#[test]
fn a_state_with_its_rolls() {
    let roll =
        |epoch, at_cut, eras: [u32; 2]| Roll { epoch: Epoch(epoch), at_cut, eras: eras.map(Era).to_vec() };
    let mut rolls = RollHistory::default();
    rolls.push(roll(4710, true, [7, 0x0102_0304])).unwrap();
    rolls.push(roll(4712, false, [9, 0x0102_0305])).unwrap();
    let state = DurableState {
        group_name: "vm1".parse().unwrap(),
        formatted_id: [0xf1; 16],
        role: Role::Primary,
        lineage: lineage(),
        highest_epoch_seen: Epoch(4713),
        content: Content::Blank,
        group: None,
        last_incarnation: Some(INCARNATION),
        rolls,
        alone: None,
        fenced: None,
        devices: Vec::new(),
        token: 0,
        lost: None,
        numbered: None,
        with_loss: false,
        ended_at: None,
        sizes: SizeHistory::default(),
    };
    check_state("state_rolls", 8, state);
}

#[test]
fn a_state_that_was_promoted_over_and_one_that_stepped_down() {
    let blank = DurableState::new_backup("vm1".parse().unwrap(), [0xf1; 16]);
    let fenced = DurableState {
        role: Role::Primary,
        lineage: lineage(),
        alone: Some(Epoch(4711)),
        fenced: Some(Fence { generation: generation(3), fork: Epoch(4710), split: true }),
        ..blank.clone()
    };
    let outdated = Content::Outdated { fork: Some(Epoch(4710)) };
    let outdated = DurableState { lineage: lineage(), content: outdated, ..blank };
    let lost = DurableState { content: Content::Consistent, lost: Some(Epoch(4713)), ..outdated.clone() };
    let placed =
        DurableState { devices: vec![VolumeUuid([0xf7; 16]), VolumeUuid([0xf8; 16])], ..outdated.clone() };
    for (name, state) in [
        ("state_devices", placed),
        ("state_fenced", fenced),
        ("state_lost", lost),
        ("state_outdated", outdated),
    ] {
        check_state(name, 9, state);
    }
}

/// The first volume has grown, twice.
#[test]
fn volumes_that_grew() {
    let sizes = |first: u64| vec![Sectors(first), Sectors(1 << 16)];
    let blank = DurableState::new_backup("vm1".parse().unwrap(), [0xf1; 16]);
    let mut state = DurableState { lineage: lineage(), group: Some(group()), ..blank };
    state.sizes.note(Epoch(4700), sizes(1 << 18));
    state.sizes.note(Epoch(4712), sizes(1 << 19));
    check_state("state_sizes", 9, state);
    let report = Message::Report {
        committed: Epoch(4712),
        applied: Epoch(4700),
        durable: Some(Epoch(4715)),
        journal_used: 12345,
        journal_size: 1 << 30,
        room: Some(sizes(1 << 21)),
    };
    let welcome = Message::Welcome(Welcome {
        protocol: 2,
        features: 0,
        lineage: lineage(),
        highest_epoch_seen: Epoch(4713),
        committed: Epoch(4710),
        chain_digest: Digest([0xd3; 32]),
        content: Content::Consistent,
        role: Role::Backup,
        journal_size: Some(15 << 20),
        held: Some(Epoch(4712)),
        sizes: Some(sizes(1 << 19)),
    });
    for (name, message) in [("report_room", report), ("welcome_sizes", welcome)] {
        check(name, &bytes_of(&[message.encode(2, INCARNATION)]));
        assert_eq!(Message::decode(&frames_in(&golden(name))[0]), Ok(message), "{name}");
    }
}

#[test]
fn a_refusal_that_says_where_its_sender_stands() {
    let standing = Standing {
        role: Role::Primary,
        content: Content::Consistent,
        lineage: lineage(),
        last_epoch: Epoch(4712),
        alone: Some(Epoch(4710)),
        numbered: None,
        with_loss: false,
    };
    let (code, text) = (RefuseCode::Promoted, "this side is a primary".to_owned());
    let refuse = Message::Refuse { code, text, standing: Some(Box::new(standing)) };
    check("refuse_standing", &bytes_of(&[refuse.encode(2, INCARNATION)]));
    assert_eq!(Message::decode(&frames_in(&golden("refuse_standing"))[0]), Ok(refuse));
}

#[test]
fn journal() {
    let ring = 4 * 4096;
    let superblock = Superblock {
        ring: Ring::new(1 << 20, ring).unwrap(),
        tail: ring * 3 + 4096 * 2,
        tail_epoch: Epoch(4710),
        tail_digest: Digest([0xd1; 32]),
        synced: Epoch(4710),
        incarnation: Some(INCARNATION),
        applying: None,
        ..Superblock::format([0x71; 16], "vm1".parse().unwrap(), 16 << 20).unwrap()
    };
    check("superblock", &encode(9, SlotKind::JournalSuperblock, &superblock.encode()).unwrap());
    let slot: [u8; SLOT_SIZE] = golden("superblock").try_into().unwrap();
    let load = |slot| {
        let found = Superblock::load(Some(slot), Some(slot), 16 << 20).unwrap();
        found.map(|(superblock, chosen)| (superblock, chosen.sequence))
    };
    assert_eq!(load(&slot), Some((superblock.clone(), 9)));

    let external = Superblock {
        committed: Some(Epoch(4710)),
        dropped: Some(Dropped { position: ring * 3 + 4096 * 3, through: Epoch(4713) }),
        ..superblock.clone()
    };
    check("superblock_external", &encode(9, SlotKind::JournalSuperblock, &external.encode()).unwrap());
    let slot: [u8; SLOT_SIZE] = golden("superblock_external").try_into().unwrap();
    assert_eq!(load(&slot), Some((external, 9)));

    let applying = Superblock { applying: Some(Epoch(4712)), ..superblock.clone() };
    check("superblock_applying", &encode(9, SlotKind::JournalSuperblock, &applying.encode()).unwrap());
    let slot: [u8; SLOT_SIZE] = golden("superblock_applying").try_into().unwrap();
    assert_eq!(load(&slot), Some((applying, 9)));

    let recovery = recover(&superblock, &mut |_, buf: &mut [u8]| {
        buf.fill(0);
        Ok::<_, std::convert::Infallible>(())
    });
    let mut writer = JournalWriter::new(superblock, &recovery);
    let begin = epoch_header().encode();
    let placement = writer.reserve(&begin).unwrap();
    assert_eq!((placement.offset, placement.len), ((1 << 20) + 8192, 4096));
    let mut padded = Vec::new();
    encode_padded(&begin, &mut padded);
    check("journal_begin_2", &padded);
    let mut encoder = EpochEncoder::new(epoch_header());
    let mut frames = Vec::new();
    let data = varied(4096);
    encoder.push(VolumeIndex(0), extent(0, 8), Data::Data(&data), &mut |_| {}).unwrap();
    encoder.finish(&mut |frame| frames.push(frame));
    // Two blocks, where one is left before the ring's end.
    assert_eq!((frames[1].header.kind, frames[1].wire_len()), (FrameKind::EpochData, 128 + 24 + 4096));
    let placement = writer.reserve(&frames[1]).unwrap();
    assert_eq!((placement.offset, placement.position), (1 << 20, ring * 4));
    check("journal_pad", &placement.pad.unwrap().block());
    let marker = writer.drop_sealed(ring * 3 + 4096 * 2, Epoch(4713)).unwrap();
    check("journal_drop", &marker.block());
}

fn a_hello() -> Hello {
    Hello {
        protocol_min: 1,
        protocol_max: 1,
        features_optional: 1,
        features_mandatory: 0,
        group: group(),
        lineage: lineage(),
        last_epoch: Epoch(4712),
        last_digest: Digest([0xd2; 32]),
        alone: None,
        token: 0,
        numbered: None,
        with_loss: false,
    }
}

#[test]
fn fencing_tokens() {
    let blank = DurableState::new_backup("vm1".parse().unwrap(), [0xf1; 16]);
    check_state("state_token", 9, DurableState { lineage: lineage(), token: 0x0102_0304_0506_0708, ..blank });
    let hello = Message::Hello(Hello { alone: Some(Epoch(4710)), token: 0x0102_0304_0506_0708, ..a_hello() });
    check("hello_token", &bytes_of(&[hello.encode(2, INCARNATION)]));
    assert_eq!(Message::decode(&frames_in(&golden("hello_token"))[0]), Ok(hello));
}

/// What tells that disks were put back, and that a generation began with less than was acknowledged.
#[test]
fn numbers_that_were_given_and_a_loss_that_was_taken() {
    let blank = DurableState::new_backup("vm1".parse().unwrap(), [0xf1; 16]);
    let (numbered, with_loss) = (Some(Epoch(4800)), true);
    let role = Role::Primary;
    let state = DurableState { role, lineage: lineage(), numbered, with_loss, ..blank };
    let standing = Box::new(Standing { numbered, ..state.standing(Epoch(4712)) });
    check_state("state_numbered", 9, state);
    let hello = Message::Hello(Hello { numbered, with_loss, ..a_hello() });
    let (code, text) = (RefuseCode::Promoted, "this side is a primary".to_owned());
    let refuse = Message::Refuse { code, text, standing: Some(standing) };
    for (name, message) in [("hello_numbered", hello), ("refuse_standing_numbered", refuse)] {
        check(name, &bytes_of(&[message.encode(2, INCARNATION)]));
        assert_eq!(Message::decode(&frames_in(&golden(name))[0]), Ok(message), "{name}");
    }
}

#[test]
fn a_primary_that_ended_with_everything_committed() {
    let blank = DurableState::new_backup("vm1".parse().unwrap(), [0xf1; 16]);
    let ended_at = Some(WriteMark([0xe9; 16]));
    let state = DurableState { role: Role::Primary, lineage: lineage(), ended_at, ..blank };
    check_state("state_ended", 9, state);
}
