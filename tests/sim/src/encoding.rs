//! From captured blocks to frames, with the real encoders.
//!
//! Always holds: what comes out is in the order of the jobs; an epoch's digest is reported before its last
//! frame is handed over (`shipper/src/primary/encode.rs`).

use std::ops::Range;

use ftdm_units::{Extent, SECTOR_SIZE, Sector, Sectors};
use ftship_proto::epoch_encoder::{EpochEncoder, PlainEncoder};
use ftship_proto::frame::{Frame, FrameKind};
use ftship_proto::group::{GroupDescription, VolumeDescription};
use ftship_proto::ids::{Digest, Epoch, GroupName, VolumeIndex, VolumeUuid};
use ftship_proto::journal::padded_len;
use ftship_proto::message::Message;
use ftship_proto::primary::{AfterEpoch, Batch, Comparison, Run, Told, TouchedBytes};
use ftship_proto::record::Content;

use ftship_proto::verify::{Inspection, Place, ShortDigest, digests_of, patch};

use crate::content::{Shape, fill};
use crate::primary_host::PrimaryDaemon;
use crate::scenario::Scenario;
use crate::verify::Inspecting;
use crate::world::{LaneId, World};

pub(crate) fn group_name() -> GroupName {
    "pair".parse().expect("a sound name")
}

/// The group as it is at the beginning.
pub(crate) fn group(scenario: &Scenario) -> GroupDescription {
    group_of(&scenario.begins)
}

/// The group of volumes of so many blocks.
pub(crate) fn group_of(sizes: &[usize]) -> GroupDescription {
    let volume = |(id, blocks): (u8, &usize)| VolumeDescription {
        uuid: VolumeUuid([id; 16]),
        size: Sectors(*blocks as u64),
        logical_block_size: 512,
    };
    let volumes = (7..).zip(sizes).map(volume).collect();
    GroupDescription::new(group_name(), volumes).expect("a sound group")
}

/// The blocks of an epoch and their content at its cut, sorted.
#[derive(Debug)]
pub(crate) struct Captured(pub(crate) Vec<(usize, u64)>);

/// A piece of what is copied.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) batch: Batch,
    /// What was read of its blocks, in their order.
    pub(crate) content: Vec<u64>,
    /// What the backup has there.
    pub(crate) told: Told,
}

impl Piece {
    /// Its blocks.
    pub(crate) fn blocks(&self, shape: &Shape) -> Vec<usize> {
        self.batch.places.iter().flat_map(|place| range(shape, place)).collect()
    }

    /// The digests of its units as they were read.
    fn digests(&self, noisy: bool) -> Vec<ShortDigest> {
        let Some(unit) = self.batch.unit else { return Vec::new() };
        let mut content = self.content.iter();
        let mut of = |place: &Place| {
            let count = usize::try_from(place.extent.len().0).expect("a small volume");
            let mut data = vec![0; count * SECTOR_SIZE];
            data.chunks_mut(SECTOR_SIZE)
                .zip(content.by_ref())
                .for_each(|(sector, number)| fill(*number, noisy, sector));
            digests_of::<ShortDigest>(&data, unit)
        };
        self.batch.places.iter().flat_map(&mut of).collect()
    }

    /// The blocks of a part of it, and what was read of them.
    fn part(&self, run: &Run, shape: &Shape) -> impl Iterator<Item = (usize, u64)> {
        let at = usize::try_from(run.at.0).expect("a small volume");
        range(shape, &run.place).zip(self.content[at..].iter().copied())
    }
}

/// The blocks of a place.
pub(crate) fn range(shape: &Shape, place: &Place) -> Range<usize> {
    let start = shape.start(place.volume);
    let block = |sector: Sector| start + usize::try_from(sector.0).expect("a small volume");
    block(place.extent.start())..block(place.extent.end())
}

#[derive(Debug)]
pub(crate) enum EncodeJob {
    Open {
        chain: u64,
        previous: Digest,
    },
    CatchUp {
        first: Epoch,
        epoch: Epoch,
        staged: Epoch,
    },
    Copied(Piece),
    /// What was captured of the epoch that is being copied into.
    Part(Captured),
    Epoch {
        epoch: Epoch,
        staged: Epoch,
        captured: Captured,
        after: AfterEpoch,
    },
    Message(Message),
    Inspect(u64, Inspection),
    Fill(u64, Vec<Vec<u8>>),
    Conclude {
        token: u64,
        repair: bool,
    },
    EndInspection,
}

/// What comes out, in order.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) chain: u64,
    pub(crate) item: EncodedItem,
}

#[derive(Debug)]
pub(crate) enum EncodedItem {
    Frame(Frame),
    Epoch { epoch: Epoch, digest: Digest, stored: u64, touched: TouchedBytes },
    Copied { batch: Batch, frames: u64, stored: u64, skipped: u64 },
    Part { frames: u64, stored: u64 },
    Concluded { token: u64, digests: Vec<Option<Digest>> },
}

impl PrimaryDaemon {
    /// Puts runs into the epoch that is open for them, or into a base copy. Returns how many frames that took, and what
    /// the frames take in a journal.
    fn encode_runs(&mut self, runs: &[BlockRun], out: &mut Vec<EncodedItem>) -> (u64, u64) {
        let mut frames = Vec::new();
        let mut sink = |frame| frames.push(frame);
        for (volume, extent, data) in runs {
            let pushed = match &mut self.catch_up {
                Some(encoder) => encoder.push(*volume, *extent, content_of(data), &mut sink),
                None => self.base_encoder.push(*volume, *extent, content_of(data), &mut sink),
            };
            pushed.expect("a run lies on the volume");
        }
        if self.catch_up.is_none() {
            self.base_encoder.flush(&mut sink);
        }
        let stored = frames.iter().map(|frame| padded_len(&frame.header)).sum();
        let count = frames.len() as u64;
        out.extend(frames.into_iter().map(EncodedItem::Frame));
        (count, stored)
    }

    fn open_chain(&mut self, group: &GroupDescription, chain: u64, previous: Digest) {
        self.encoder_chain = chain;
        self.inspecting = Inspecting::default();
        self.header.previous = previous;
        self.catch_up = None;
        let (generation, incarnation) = (self.stamp.generation, self.stamp.incarnation);
        self.base_encoder = PlainEncoder::base(group.clone(), generation, incarnation);
        self.comparison = Comparison::in_place();
        self.touched.end_epoch(AfterEpoch::Rolled);
    }

    /// Makes the frames of an epoch of these runs, or of their rest where some went out before. Returns its digest.
    fn encode_epoch(
        &mut self,
        epoch: Epoch,
        staged: Epoch,
        runs: &[BlockRun],
        volumes: usize,
        after: AfterEpoch,
        out: &mut Vec<EncodedItem>,
    ) -> Digest {
        let header = &mut self.header;
        let encoder = self.catch_up.take().unwrap_or_else(|| {
            header.staged = staged;
            (header.first_epoch, header.last_epoch) = (epoch, epoch);
            EpochEncoder::new(header.clone())
        });
        if let Some(inspection) = self.inspecting.inspection() {
            for (volume, extent, data) in runs {
                inspection.put(*volume, *extent, content_of(data));
            }
        }
        runs.iter().for_each(|(volume, extent, _)| self.touched.note(*volume, *extent));
        let touched = self.touched.end_epoch(after);
        let repairs = self.inspecting.repairs();
        let (frames, digest) = epoch_frames(encoder, runs, repairs, volumes);
        self.header.previous = digest;
        if let Some((token, digests)) = self.inspecting.concluded() {
            out.push(EncodedItem::Concluded { token, digests });
        }
        let stored = frames.iter().map(|frame| padded_len(&frame.header)).sum();
        for frame in frames {
            if frame.header.kind == FrameKind::EpochEnd {
                out.push(EncodedItem::Epoch { epoch, digest, stored, touched });
            }
            out.push(EncodedItem::Frame(frame));
        }
        digest
    }
}

/// Neighbouring blocks of one volume; no bytes: of zeros.
type BlockRun = (VolumeIndex, Extent, Vec<u8>);

impl World {
    pub(crate) fn encoder_push(&mut self, job: EncodeJob) {
        let Some(daemon) = &mut self.primary.daemon else { return };
        daemon.encode.jobs.push_back(job);
        if daemon.encode.jobs.len() == 1 {
            self.lane_begin(LaneId::Encode, self.primary.run);
        }
    }

    pub(crate) fn encode_done(&mut self) {
        let (noisy, shape) = (self.scenario.noisy, &self.scenario.shape);
        let Some(daemon) = &mut self.primary.daemon else { return };
        let Some(job) = daemon.encode.jobs.pop_front() else { return };
        let mut out = Vec::new();
        match job {
            EncodeJob::Open { chain, previous } => {
                daemon.open_chain(&self.primary.group, chain, previous);
                self.checker.chain_opened();
            }
            EncodeJob::Inspect(token, inspection) => daemon.inspecting.begin(token, inspection),
            EncodeJob::Fill(token, read) => daemon.inspecting.fill(token, &read),
            EncodeJob::Conclude { token, repair } => daemon.inspecting.conclude(token, repair),
            EncodeJob::EndInspection => daemon.inspecting = Inspecting::default(),
            EncodeJob::Message(message) => {
                let frame = message.encode(daemon.stamp.generation, daemon.stamp.incarnation);
                out.push(EncodedItem::Frame(frame));
            }
            EncodeJob::CatchUp { first, epoch, staged } => {
                let header = &mut daemon.header;
                (header.staged, header.first_epoch, header.last_epoch) = (staged, first, epoch);
                daemon.catch_up = Some(EpochEncoder::new(header.clone()));
                daemon.comparison = Comparison::staged();
            }
            EncodeJob::Copied(piece) => {
                let differing =
                    daemon.comparison.differing(&piece.batch, &piece.digests(noisy), piece.told.as_deref());
                let sent: u64 = differing.iter().map(|run| run.place.extent.len().0).sum();
                let blocks = differing.iter().flat_map(|run| piece.part(run, shape));
                let (frames, stored) = daemon.encode_runs(&runs(blocks, shape, noisy), &mut out);
                let skipped = (piece.batch.sectors().0 - sent) * SECTOR_SIZE as u64;
                out.push(EncodedItem::Copied { batch: piece.batch, frames, stored, skipped });
            }
            EncodeJob::Part(captured) => {
                let runs = runs(captured.0.into_iter(), shape, noisy);
                for &(volume, extent, _) in &runs {
                    daemon.touched.note(volume, extent);
                    daemon.comparison.sent(Place { volume, extent });
                }
                let (frames, stored) = daemon.encode_runs(&runs, &mut out);
                out.push(EncodedItem::Part { frames, stored });
            }
            EncodeJob::Epoch { epoch, staged, captured, after } => {
                let runs = runs(captured.0.iter().copied(), shape, noisy);
                let digest = daemon.encode_epoch(epoch, staged, &runs, shape.0.len(), after, &mut out);
                self.checker.encoded(daemon.incarnation, epoch, digest);
            }
        }
        let Some(daemon) = &mut self.primary.daemon else { return };
        let chain = daemon.encoder_chain;
        daemon.encoded.extend(out.into_iter().map(|item| Encoded { chain, item }));
        if !daemon.encode.jobs.is_empty() {
            self.lane_begin(LaneId::Encode, self.primary.run);
        }
    }
}

fn epoch_frames(
    mut encoder: EpochEncoder,
    runs: &[BlockRun],
    repairs: Option<&Inspection>,
    volumes: usize,
) -> (Vec<Frame>, Digest) {
    let mut frames = Vec::new();
    let mut sink = |frame| frames.push(frame);
    for volume in (0..).map(VolumeIndex).take(volumes) {
        let repairs = repairs.into_iter().flat_map(|inspection| inspection.content(volume));
        let mut put = patch(repairs, |extent, content| encoder.push(volume, extent, content, &mut sink));
        let mut pieces = runs.iter().filter(|(of, ..)| *of == volume);
        let done = pieces.try_for_each(|(_, extent, data)| put(Some((*extent, content_of(data)))));
        done.and_then(|()| put(None)).expect("blocks lie on the volume");
    }
    let summary = encoder.finish(&mut sink);
    (frames, summary.digest)
}

/// Runs of neighbouring blocks, of data or of zeros (then without bytes).
fn runs(blocks: impl Iterator<Item = (usize, u64)>, shape: &Shape, noisy: bool) -> Vec<BlockRun> {
    let mut runs: Vec<(usize, usize, bool, Vec<u8>)> = Vec::new();
    for (block, number) in blocks {
        let mut sector = [0; SECTOR_SIZE];
        fill(number, noisy, &mut sector);
        match runs.last_mut() {
            Some((start, len, zero, data))
                if *start + *len == block
                    && *zero == (number == 0)
                    && shape.volume_of(*start) == shape.volume_of(block) =>
            {
                *len += 1;
                if number != 0 {
                    data.extend_from_slice(&sector);
                }
            }
            _ if number == 0 => runs.push((block, 1, true, Vec::new())),
            _ => runs.push((block, 1, false, sector.to_vec())),
        }
    }
    let extent = |start, len| Extent::new(Sector(start as u64), Sectors(len as u64)).expect("not empty");
    let run = |(place, len, _, data)| {
        let volume = shape.volume_of(place);
        (volume, extent(place - shape.start(volume), len), data)
    };
    runs.into_iter().map(run).collect()
}

fn content_of(data: &[u8]) -> Content<'_> {
    if data.is_empty() { Content::Zero } else { Content::Data(data) }
}
