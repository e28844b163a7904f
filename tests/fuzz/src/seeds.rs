//! Sound inputs, from the project's frozen files and from its encoders.

use ftdm_units::{Extent, Sector, Sectors};
use ftship_proto::epoch::EpochHeader;
use ftship_proto::epoch_encoder::{EpochEncoder, PlainEncoder};
use ftship_proto::frame::Frame;
use ftship_proto::generations::LineageEntry;
use ftship_proto::group::{GroupDescription, VolumeDescription};
use ftship_proto::ids::{Digest, Epoch, Generation, Incarnation, VolumeIndex, VolumeUuid};
use ftship_proto::message::{ByeCause, Hello, Message};
use ftship_proto::protocol::{ACK_RECEIVED, COMPARE, CommitPolicy, EXTERNAL_COMMIT, PROTOCOL, VERIFY};
use ftship_proto::record::Content;
use ftship_proto::verify::{DigestLength, HashRequest, Place};

use crate::Seed;

/// The frozen encodings of `ftship-proto`, by name.
macro_rules! golden {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../shipper/proto/tests/golden/", $name, ".hex")))),*]
    };
}

const GOLDEN: [(&str, &str); 26] = golden![
    "base_end",
    "bye",
    "bye_journal",
    "commit",
    "compressed",
    "digests",
    "digests_none",
    "epoch_content_2",
    "hash",
    "hello",
    "journal_begin_2",
    "journal_drop",
    "journal_pad",
    "ping",
    "pong",
    "refuse",
    "report",
    "staged",
    "state",
    "state_rolls",
    "superblock",
    "sync_begin",
    "sync_begin_base",
    "sync_ready",
    "welcome",
    "welcome_held",
];

/// The frozen bytes of one encoding: total length, then lines of offset and hexadecimal digits.
pub(crate) fn golden_bytes(name: &str) -> Vec<u8> {
    let text = GOLDEN.iter().find(|(known, _)| *known == name).map_or("0", |(_, text)| *text);
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let len = lines.next().and_then(|line| line.parse().ok()).unwrap_or(0);
    let mut bytes = vec![0; len];
    for line in lines {
        let (offset, digits) = line.split_once(' ').unwrap_or(("0", ""));
        put_hex(&mut bytes, usize::from_str_radix(offset, 16).unwrap_or(0), digits);
    }
    bytes
}

/// The frozen encodings that come over a connection.
pub(crate) fn golden_frames() -> Vec<Seed> {
    let stays_here =
        |name: &str| name.starts_with("journal") || matches!(name, "state" | "state_rolls" | "superblock");
    let frames = GOLDEN.iter().filter(|(name, _)| !stays_here(name));
    frames.map(|(name, _)| ((*name).to_owned(), golden_bytes(name))).collect()
}

/// Writes hexadecimal digits as bytes.
pub(crate) fn put_hex(bytes: &mut [u8], offset: usize, digits: &str) {
    for (byte, pair) in bytes[offset..].iter_mut().zip(digits.as_bytes().chunks(2)) {
        let text = std::str::from_utf8(pair).unwrap_or("0");
        *byte = u8::from_str_radix(text, 16).unwrap_or(0);
    }
}

pub(crate) const INCARNATION: Incarnation = Incarnation([0xa1; 16]);

const GENERATION: Generation = Generation { number: 2, id: [0xe0; 16] };

/// The group of the frozen encodings: a volume of 512-byte and one of 4096-byte blocks.
pub(crate) fn group() -> Option<GroupDescription> {
    let volume = |id: u8, size, logical_block_size| VolumeDescription {
        uuid: VolumeUuid([id; 16]),
        size: Sectors(size),
        logical_block_size,
    };
    let volumes = vec![volume(1, 1 << 20, 512), volume(2, 1 << 16, 4096)];
    GroupDescription::new("vm1".parse().ok()?, volumes).ok()
}

/// What begins an epoch of that group.
pub(crate) fn epoch_header(epoch: u64, previous: Digest, commit_point: bool) -> Option<EpochHeader> {
    Some(EpochHeader {
        protocol: PROTOCOL,
        features_optional: 0,
        features_mandatory: 0,
        group: group()?,
        incarnation: INCARNATION,
        generation: GENERATION,
        first_epoch: Epoch(epoch),
        last_epoch: Epoch(epoch),
        previous,
        commit_point,
        staged: Epoch::NONE,
    })
}

/// The frames of an epoch with a bit of everything.
pub(crate) fn epoch(epoch: u64, previous: Digest, commit_point: bool) -> Option<(Vec<Frame>, Digest)> {
    let mut frames = Vec::new();
    let mut sink = |frame| frames.push(frame);
    let mut encoder = EpochEncoder::new(epoch_header(epoch, previous, commit_point)?);
    let text: Vec<u8> = b"a write of the guest, ".iter().copied().cycle().take(4096).collect();
    let place = |start, len| Extent::new(Sector(start), Sectors(len));
    encoder.push(VolumeIndex(0), place(8 * (epoch % 64), 8)?, Content::Data(&text), &mut sink).ok()?;
    encoder.push(VolumeIndex(0), place(9 << 10, 100)?, Content::Zero, &mut sink).ok()?;
    encoder.push(VolumeIndex(1), place(64, 8)?, Content::Unknown, &mut sink).ok()?;
    let summary = encoder.finish(&mut sink);
    Some((frames, summary.digest))
}

/// What a primary sends in a whole session: full sync, two epochs, a coordinator's commit, goodbye.
pub(crate) fn session(commit: CommitPolicy) -> Vec<u8> {
    let frames = session_frames(commit).unwrap_or_default();
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| frame.encode_into(&mut bytes));
    bytes
}

fn session_frames(commit: CommitPolicy) -> Option<Vec<Frame>> {
    let entry = LineageEntry { generation: GENERATION, first_epoch: Epoch(1), digest: Digest::ZERO };
    let hello = Message::Hello(Hello {
        protocol_min: PROTOCOL,
        protocol_max: PROTOCOL,
        features_optional: ACK_RECEIVED | VERIFY | COMPARE,
        features_mandatory: if commit == CommitPolicy::External { EXTERNAL_COMMIT } else { 0 },
        group: group()?,
        lineage: vec![entry],
        last_epoch: Epoch::NONE,
        last_digest: Digest::ZERO,
        alone: None,
        token: 7,
        numbered: Some(Epoch(9)),
        with_loss: false,
    });
    let say = |message: Message| message.encode(GENERATION.number, INCARNATION);
    let mut frames = vec![say(hello), say(Message::SyncBegin { base_id: [0xb1; 16], base: None })];
    let mut base = PlainEncoder::base(group()?, GENERATION.number, INCARNATION);
    let extent = Extent::new(Sector(0), Sectors(8))?;
    base.push(VolumeIndex(0), extent, Content::Data(&[0x5a; 4096]), &mut |frame| frames.push(frame)).ok()?;
    base.flush(&mut |frame| frames.push(frame));
    frames.push(say(Message::BaseEnd { frames: 1, bytes: 4096 + 24 }));
    let (first, digest) = epoch(1, Digest::ZERO, true)?;
    frames.extend(first);
    let (second, digest) = epoch(2, digest, true)?;
    frames.extend(second);
    frames.push(say(Message::Ping { token: 7 }));
    if commit == CommitPolicy::External {
        frames.push(say(Message::Commit { epoch: Epoch(2) }));
    }
    let place = |volume, extent| Place { volume: VolumeIndex(volume), extent };
    let places = vec![place(0, extent), place(1, Extent::new(Sector(64), Sectors(16))?)];
    let (whole, short) = (DigestLength::Whole, DigestLength::Short);
    for (token, epoch, length) in [(1, Epoch::NONE, whole), (2, Epoch(2), short), (3, Epoch(3), whole)] {
        let request = HashRequest { token, epoch, unit: Sectors(8), length, places: places.clone() };
        frames.push(say(Message::Hash(request)));
    }
    frames.extend(epoch(3, digest, true)?.0);
    frames.push(say(Message::Bye { text: "done".into(), cause: ByeCause::Other }));
    Some(frames)
}
