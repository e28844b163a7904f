//! The parts, and the epoch that they work on.

use std::convert::Infallible;
use std::hint::black_box;
use std::str::FromStr;

use anyhow::{Context, bail};
use ftdm::capture::memory::CaptureMemory;
use ftdm::fold::{Content as Folded, fold};
use ftdm::log_writes::epoch_log::EpochLog;
use ftdm::log_writes::format::LogSector;
use ftdm::log_writes::reader::LogReader;
use ftdm::units::{SECTOR_SIZE, Sectors};
use ftship_proto::digest::EpochVerifier;
use ftship_proto::epoch::EpochHeader;
use ftship_proto::epoch_encoder::{Buffers, EpochEncoder};
use ftship_proto::frame::Frame;
use ftship_proto::group::{GroupDescription, VolumeDescription};
use ftship_proto::ids::{Digest, Epoch, Generation, Incarnation, VolumeIndex};
use ftship_proto::record::{Content, RecordIter};

/// The epoch's writes, each of a page.
const WRITES: u64 = 1024;
/// Sectors of a page.
const PAGE: u64 = 8;
/// The volume.
const VOLUME: Sectors = Sectors(1 << 21);
/// A number without a common factor with the volume's pages: its multiples are all of them, in no order.
const STRIDE: u64 = 104_729;

/// A part of an epoch's way.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// Reading the log.
    Parse,
    /// Reducing it to its final content.
    Fold,
    /// Both, and making frames of it.
    Encode,
    /// Checking frames and taking them apart, as the backup does before it applies them.
    Decode,
    /// The epoch's digest, as the backup checks it.
    Check,
}

impl FromStr for Part {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Ok(match name {
            "parse" => Part::Parse,
            "fold" => Part::Fold,
            "encode" => Part::Encode,
            "decode" => Part::Decode,
            "check" => Part::Check,
            other => bail!("there is no part `{other}`: parse, fold, encode, decode, check"),
        })
    }
}

/// A log in memory.
fn log() -> Vec<u8> {
    let mut bytes = vec![0; SECTOR_SIZE];
    for (at, field) in [(0, 0x006a_7366_7773_6872u64), (8, 1), (16, WRITES)] {
        bytes[at..at + 8].copy_from_slice(&field.to_le_bytes());
    }
    bytes[24..28].copy_from_slice(&512u32.to_le_bytes());
    let mut state = 1u64;
    for n in 0..WRITES {
        let page = n * STRIDE % (VOLUME.0 / PAGE);
        let mut header = vec![0; SECTOR_SIZE];
        for (at, field) in [(0, page * PAGE), (8, PAGE)] {
            header[at..at + 8].copy_from_slice(&field.to_le_bytes());
        }
        bytes.extend(header);
        for _ in 0..PAGE * SECTOR_SIZE as u64 / 8 {
            // Knuth's multiplier: nothing that compresses.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes.extend(state.to_le_bytes());
        }
    }
    bytes.resize(bytes.len().next_multiple_of(1 << 20), 0);
    bytes
}

/// What the parts work on.
pub(crate) struct Prepared {
    log: Vec<u8>,
    unit: LogSector,
    memory: CaptureMemory,
    epoch: EpochLog,
    group: GroupDescription,
    header: EpochHeader,
    buffers: Buffers,
    frames: Vec<Frame>,
    scratch: Vec<u8>,
}

impl Prepared {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let volume = VolumeDescription {
            uuid: "00000000-0000-4000-8000-000000000001".parse().context("the volume's name")?,
            size: VOLUME,
            logical_block_size: 512,
        };
        let group = GroupDescription::new("vm1".parse().context("the group's name")?, vec![volume])?;
        let header = EpochHeader {
            protocol: ftship_proto::protocol::PROTOCOL,
            features_optional: 0,
            features_mandatory: 0,
            group: group.clone(),
            incarnation: Incarnation([1; 16]),
            generation: Generation { number: 1, id: [1; 16] },
            first_epoch: Epoch(1),
            last_epoch: Epoch(1),
            previous: Digest::ZERO,
            commit_point: true,
            staged: Epoch::NONE,
        };
        let mut prepared = Self {
            log: log(),
            unit: LogSector::new(512).context("512 is a sector size")?,
            memory: CaptureMemory::default(),
            epoch: EpochLog::default(),
            group,
            header,
            buffers: Buffers::default(),
            frames: Vec::new(),
            scratch: Vec::new(),
        };
        prepared.epoch = prepared.parse()?;
        // Memory is made ready here and not where it is counted.
        let again = prepared.parse()?;
        prepared.memory.keep(again);
        prepared.epoch.index();
        prepared.frames = prepared.encode()?;
        Ok(prepared)
    }

    pub(crate) fn perform(&mut self, part: Part) -> anyhow::Result<()> {
        match part {
            Part::Parse => {
                let epoch = self.parse()?;
                self.memory.keep(epoch);
            }
            Part::Fold => {
                let mut pieces = 0;
                let Ok(()) = fold::<Infallible>(&self.epoch, |_, _| {
                    pieces += 1;
                    Ok(())
                });
                black_box(pieces);
            }
            Part::Encode => {
                for frame in self.encode()? {
                    self.buffers.give(frame.payload);
                }
            }
            Part::Decode => self.decode()?,
            Part::Check => {
                let mut verifier = EpochVerifier::new(Digest::ZERO);
                for frame in &self.frames {
                    black_box(verifier.push(frame)?);
                }
            }
        }
        Ok(())
    }

    fn parse(&mut self) -> anyhow::Result<EpochLog> {
        let mut reader = LogReader::new(self.unit, VOLUME, Sectors((self.log.len() / SECTOR_SIZE) as u64));
        let mut epoch = self.memory.next_epoch();
        reader.follow(&self.log, &mut epoch, |_| ())?;
        Ok(epoch)
    }

    fn encode(&self) -> anyhow::Result<Vec<Frame>> {
        let mut encoder = EpochEncoder::reusing(self.header.clone(), self.buffers.clone());
        let mut frames = Vec::new();
        let mut sink = |frame| frames.push(frame);
        fold(&self.epoch, |extent, content| {
            let content = match content {
                Folded::Data(data) => Content::Data(data),
                Folded::Zero => Content::Zero,
                Folded::Unknown => Content::Unknown,
            };
            encoder.push(VolumeIndex(0), extent, content, &mut sink)
        })?;
        encoder.finish(&mut sink);
        Ok(frames)
    }

    fn decode(&mut self) -> anyhow::Result<()> {
        for frame in self.frames.iter().filter(|frame| frame.header.kind.carries_records()) {
            frame.verify()?;
            let raw = frame.raw_payload(&mut self.scratch)?;
            let records = RecordIter::new(raw, frame.header.kind, frame.header.record_count, &self.group)?;
            black_box(records.count());
        }
        Ok(())
    }
}
