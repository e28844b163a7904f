//! The backup's disk work, step by step, so that it can stop or fail between any two.
//!
//! Always holds: a step is one write, one pass's proof, one epoch's redo, or one sync; a stop tears the write under way at
//! sectors; a step that fails ends its lane, as `shipper/src/backup/lanes.rs` does.

use std::collections::VecDeque;
use std::convert::Infallible;

use ftdm_units::Era;
use ftship_proto::backup::{BackupEvent, Sealed};
use ftship_proto::frame::Frame;
use ftship_proto::group::GroupDescription;
use ftship_proto::ids::{Digest, Epoch};
use ftship_proto::journal::{
    BLOCK_LEN, Place, Placement, Proof, RING_START, RedoError, Superblock, encode_padded,
};
use ftship_proto::mutant::{self, Mutant};
use ftship_proto::record::{Content, Record, RecordIter};
use ftship_proto::slot::{self, Slot, SlotKind};
use ftship_proto::state::DurableState;
use ftship_proto::verify::HashRequest;

use crate::backup_host::BackupDaemon;
use crate::disk::{Disk, ImageReader};
use crate::verify::backup_digests;
use crate::world::{Lane, LaneId, World};

pub(crate) enum JournalJob {
    Append(Placement, Frame),
    Sync(u64),
    Superblock(Box<Superblock>),
    State(Box<DurableState>),
}

pub(crate) enum VolumeJob {
    Base(Frame, Box<GroupDescription>),
    Flush,
    Prove(Vec<(Sealed, Place)>),
    Apply(Vec<Sealed>, Box<GroupDescription>),
    Hash(HashRequest),
    /// Which eras began with it.
    Roll(Vec<Era>),
    ReadOwn(Vec<Era>),
    Snapshot(u64, Epoch, Digest),
    Enlarge,
    Release,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskId {
    Journal,
    State,
    Volume(usize),
}

enum Step {
    Write(DiskId, u64, Vec<u8>),
    /// The next version, superblock or state, into one of its slots.
    Slot(SlotKind, Slot, Vec<u8>),
    /// It is durable in both.
    Slotted(SlotKind),
    Prove(Vec<(Sealed, Place)>),
    Redo(Sealed, Box<GroupDescription>),
    Sync(DiskId),
    Hash(HashRequest),
    ReadOwn(Vec<Era>),
    Snapshot(u64, Epoch, Digest),
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Write(disk, offset, bytes) => write!(f, "writes {disk:?} {offset}+{}", bytes.len()),
            Self::Slot(kind, slot, _) => write!(f, "writes slot {slot:?}, {kind:?}"),
            Self::Slotted(kind) => write!(f, "has a new {kind:?}"),
            Self::Prove(places) => {
                let epochs: Vec<_> = places.iter().map(|(sealed, _)| sealed.epoch.0).collect();
                write!(f, "proves epochs {epochs:?}")
            }
            Self::Redo(sealed, _) => write!(f, "redoes epoch {}", sealed.epoch),
            Self::Sync(disk) => write!(f, "syncs {disk:?}"),
            Self::Snapshot(_, epoch, _) => write!(f, "takes a snapshot of epoch {epoch}"),
            Self::ReadOwn(since) => write!(f, "finds out what was written here since {since:?}"),
            Self::Hash(request) => write!(f, "hashes {:?} for epoch {}", request.places, request.epoch),
        }
    }
}

/// One job.
pub(crate) struct Work {
    steps: VecDeque<Step>,
    report: Option<BackupEvent>,
    weight: usize,
}

impl Work {
    pub(crate) fn of_journal(job: JournalJob, weight: usize) -> Self {
        let slot = |kind, disk, body: Vec<u8>| {
            let in_turn = mutant::is(Mutant::SlotsInTurn);
            let write = |slot| [Step::Slot(kind, slot, body.clone()), Step::Sync(disk)];
            let slots = if in_turn { &Slot::BOTH[..1] } else { &Slot::BOTH };
            let mut steps: Vec<Step> = slots.iter().flat_map(|slot| write(*slot)).collect();
            steps.push(Step::Slotted(kind));
            steps
        };
        let (steps, report) = match job {
            JournalJob::Append(placement, frame) => {
                let mut bytes = Vec::new();
                encode_padded(&frame, &mut bytes);
                let pad = placement.pad;
                let pad = pad.map(|pad| Step::Write(DiskId::Journal, pad.offset, pad.block().to_vec()));
                let write = Step::Write(DiskId::Journal, placement.offset, bytes);
                (pad.into_iter().chain([write]).collect(), None)
            }
            JournalJob::Sync(ticket) => {
                (vec![Step::Sync(DiskId::Journal)], Some(BackupEvent::JournalSynced { ticket }))
            }
            JournalJob::Superblock(new) => {
                let steps = slot(SlotKind::JournalSuperblock, DiskId::Journal, new.encode());
                (steps, Some(BackupEvent::SuperblockWritten))
            }
            JournalJob::State(new) => {
                (slot(SlotKind::State, DiskId::State, new.encode()), Some(BackupEvent::StateWritten))
            }
        };
        Self { steps: steps.into(), report, weight }
    }

    pub(crate) fn of_volume(job: VolumeJob, weight: usize, volumes: usize) -> Self {
        let (steps, report) = match job {
            VolumeJob::Base(frame, group) => (writes(&frame, &group), None),
            VolumeJob::Flush => (flush(volumes), Some(BackupEvent::VolumesFlushed)),
            VolumeJob::Prove(places) => (vec![Step::Prove(places)], Some(BackupEvent::Proven)),
            VolumeJob::Apply(epochs, group) => {
                let redo = epochs.into_iter().map(|epoch| Step::Redo(epoch, group.clone()));
                let sync = if mutant::is(Mutant::ApplyWithoutFlush) { Vec::new() } else { flush(volumes) };
                (redo.chain(sync).collect(), Some(BackupEvent::Applied))
            }
            VolumeJob::Hash(request) => (vec![Step::Hash(request)], None),
            VolumeJob::Roll(eras) => (Vec::new(), Some(BackupEvent::EraRolled { eras })),
            VolumeJob::ReadOwn(since) => (vec![Step::ReadOwn(since)], None),
            VolumeJob::Snapshot(id, epoch, digest) => (vec![Step::Snapshot(id, epoch, digest)], None),
            VolumeJob::Enlarge => (Vec::new(), Some(BackupEvent::Enlarged { result: Ok(()) })),
            VolumeJob::Release => (Vec::new(), Some(BackupEvent::VolumesReleased)),
        };
        Self { steps: steps.into(), report, weight }
    }
}

/// The plain write of a version into a slot.
fn slot_write(sequence: u64, kind: SlotKind, slot: Slot, body: &[u8]) -> Step {
    let bytes = slot::encode(sequence, kind, body).expect("a slot holds it");
    let disk = if kind == SlotKind::State { DiskId::State } else { DiskId::Journal };
    Step::Write(disk, slot_offset(sequence, slot), bytes.to_vec())
}

/// Where a version goes: into that slot, or as earlier versions of the software wrote, in turn.
pub(crate) fn slot_offset(sequence: u64, slot: Slot) -> u64 {
    let is_even = sequence.is_multiple_of(2);
    if mutant::is(Mutant::SlotsInTurn) && is_even { slot.other().offset() } else { slot.offset() }
}

/// See [`World::redo`].
fn redo_of(
    daemon: &BackupDaemon,
    journal: &Disk,
    sealed: &Sealed,
    group: &GroupDescription,
) -> (Vec<Step>, Option<bool>) {
    let proof = daemon.proofs.iter().find(|(proven, _)| proven == sealed);
    let (_, proof) = proof.unwrap_or_else(|| panic!("epoch {} is applied without a proof", sealed.epoch));
    let mut steps = Vec::new();
    let user = |frame: &Frame| {
        steps.extend(writes(frame, group));
        Ok::<_, Infallible>(())
    };
    let broken = match proof.redo(daemon.ring, &mut ImageReader(&journal.view), user) {
        Ok(()) => None,
        Err(RedoError::Journal { used, .. }) => Some(used > 0),
        Err(RedoError::User(never)) => match never {},
    };
    (steps, broken)
}

/// Makes every volume durable.
fn flush(volumes: usize) -> Vec<Step> {
    let count = if mutant::is(Mutant::FlushFirstVolumeOnly) { 1 } else { volumes };
    (0..count).map(|index| Step::Sync(DiskId::Volume(index))).collect()
}

/// The writes that a data frame asks for.
fn writes(frame: &Frame, group: &GroupDescription) -> Vec<Step> {
    if !frame.header.kind.carries_records() {
        return Vec::new();
    }
    let mut scratch = Vec::new();
    let raw = frame.raw_payload(&mut scratch).expect("checked when it was received");
    let records = RecordIter::new(raw, frame.header.kind, frame.header.record_count, group);
    let write = |Record { volume, extent, content }| {
        let disk = DiskId::Volume(usize::from(volume.0));
        let (start, len) = (extent.start().bytes()?, usize::try_from(extent.len().bytes()?).ok()?);
        match content {
            Content::Data(data) => Some(Step::Write(disk, start, data.to_vec())),
            Content::Zero => Some(Step::Write(disk, start, vec![0; len])),
            Content::Unknown => None,
        }
    };
    records.expect("checked when it was received").filter_map(write).collect()
}

impl World {
    /// The time of the first job's first step is over.
    pub(crate) fn backup_lane(&mut self, lane: LaneId, run: u32) {
        if run != self.backup.run {
            return;
        }
        if let Some(step) = self.next_step(lane, |_| true) {
            let fails = self.random.once_in(self.scenario.odds_disk);
            let failing = if fails { " FAILS" } else { "" };
            self.note(|_| format!("{lane:?} lane: {}{failing}", step));
            if fails {
                self.step_fails(&step);
                return self.lane_fails(lane);
            }
            self.step_done(step);
        }
        while let Some(step) = self.next_step(lane, |step| matches!(step, Step::Slotted(_))) {
            self.step_done(step);
        }
        let is_done =
            self.lane(lane).and_then(|queue| queue.jobs.front()).is_some_and(|job| job.steps.is_empty());
        if is_done {
            self.job_done(lane);
        }
        if self.lane(lane).is_some_and(|queue| !queue.jobs.is_empty()) {
            self.lane_begin(lane, run);
        }
        self.backup_receive();
    }

    /// All that the lane was given is done, as when its daemon is stopped; nobody hears of it.
    pub(crate) fn finish_lane(&mut self, lane: LaneId) {
        while self.lane(lane).is_some_and(|queue| !queue.failed && !queue.jobs.is_empty()) {
            while let Some(step) = self.next_step(lane, |_| true) {
                self.step_done(step);
            }
            if let Some(queue) = self.lane(lane) {
                queue.jobs.pop_front();
            }
        }
    }

    fn lane(&mut self, lane: LaneId) -> Option<&mut Lane<Work>> {
        let daemon = self.backup.daemon.as_mut()?;
        Some(if lane == LaneId::Journal { &mut daemon.journal } else { &mut daemon.volume })
    }

    fn next_step(&mut self, lane: LaneId, wanted: impl FnOnce(&Step) -> bool) -> Option<Step> {
        let steps = &mut self.lane(lane)?.jobs.front_mut()?.steps;
        steps.pop_front_if(|step| wanted(step))
    }

    fn job_done(&mut self, lane: LaneId) {
        let Some(work) = self.lane(lane).and_then(|queue| queue.jobs.pop_front()) else { return };
        if let Some(daemon) = &mut self.backup.daemon {
            daemon.backlog -= work.weight;
        }
        if let Some(report) = work.report {
            self.backup_tell(report);
        }
    }

    fn lane_fails(&mut self, lane: LaneId) {
        if let Some(queue) = self.lane(lane) {
            queue.failed = true;
        }
        self.backup_tell(BackupEvent::Failed { reason: format!("{lane:?} lane: I/O error") });
    }

    fn disk(&mut self, disk: DiskId) -> &mut Disk {
        match disk {
            DiskId::Journal => &mut self.backup.disks.journal,
            DiskId::State => &mut self.backup.disks.state,
            DiskId::Volume(index) => &mut self.backup.disks.volumes[index],
        }
    }

    fn step_done(&mut self, step: Step) {
        match step {
            Step::Prove(places) => self.prove(places),
            Step::Redo(sealed, group) => {
                let (writes, broken) = self.redo(&sealed, &group);
                for write in writes {
                    self.step_done(write);
                }
                if let Some(half) = broken {
                    if let Some(daemon) = &mut self.backup.daemon {
                        daemon.is_broken = true;
                    }
                    self.job_broken(sealed.epoch, half);
                }
            }
            Step::Slot(..) => {
                for write in self.expand(step) {
                    self.step_done(write);
                }
            }
            Step::Write(disk, offset, bytes) => {
                let Some(offset) = self.aim(disk, offset, bytes.len()) else { return };
                self.note_backup_write(disk, offset, bytes.len());
                if let DiskId::Volume(volume) = disk {
                    self.volume_written(volume, offset, bytes.len());
                }
                self.disk(disk).write(offset, &bytes);
            }
            Step::Sync(disk) => self.disk(disk).sync(),
            Step::Snapshot(id, epoch, digest) => {
                if !self.backup.daemon.as_ref().is_some_and(|daemon| daemon.is_broken) {
                    self.checker.snapshot(&self.backup.disks, epoch, digest);
                }
                self.snapshot_ended(id);
            }
            Step::Hash(request) => self.hash_volumes(&request),
            Step::ReadOwn(since) => {
                let eras = self.backup.eras.as_ref().expect("asked of who was a primary");
                let scope = eras.written_since(Some(&since));
                self.backup_tell(BackupEvent::OwnRead { result: Ok(scope) });
            }
            Step::Slotted(kind) => {
                if let Some(daemon) = &mut self.backup.daemon {
                    *daemon.sequence(kind) += 1;
                }
                self.power_cut_would_do();
            }
        }
    }

    /// Tells what the volumes hold now.
    pub(crate) fn hash_volumes(&mut self, request: &HashRequest) {
        let is_broken = self.backup.daemon.as_ref().is_some_and(|daemon| daemon.is_broken);
        let digests = || backup_digests(&self.backup.disks, request);
        let result = if is_broken { Err("a redo broke off".into()) } else { Ok(digests()) };
        self.backup_tell(BackupEvent::VolumesHashed { token: request.token, result });
    }

    /// A step as plain writes.
    fn expand(&mut self, step: Step) -> Vec<Step> {
        let Some(daemon) = &mut self.backup.daemon else { return Vec::new() };
        match step {
            Step::Slot(kind, slot, body) => vec![slot_write(*daemon.sequence(kind) + 1, kind, slot, &body)],
            other => vec![other],
        }
    }

    /// Reads these epochs and checks them, as `shipper/src/backup/redo.rs` does.
    fn prove(&mut self, places: Vec<(Sealed, Place)>) {
        let (piece, Some(daemon)) = (self.scenario.proof_piece, &mut self.backup.daemon) else { return };
        daemon.is_broken = false;
        daemon.proofs.clear();
        for (sealed, place) in places {
            let mut reader = ImageReader(&self.backup.disks.journal.view);
            match Proof::of(daemon.ring, &mut reader, place, piece, piece) {
                Ok(proof) => daemon.proofs.push((sealed, proof)),
                Err(_) => return self.job_broken(sealed.epoch, false),
            }
        }
    }

    /// The writes of an epoch's redo. Should the journal give something else than was proven: those up to there, and whether
    /// there are any.
    fn redo(&self, sealed: &Sealed, group: &GroupDescription) -> (Vec<Step>, Option<bool>) {
        let Some(daemon) = &self.backup.daemon else { return (Vec::new(), None) };
        redo_of(daemon, &self.backup.disks.journal, sealed, group)
    }

    /// The journal does not hold an epoch as it was sealed: the volume lane's job ends with that report.
    fn job_broken(&mut self, epoch: Epoch, half: bool) {
        assert!(self.checker.is_struck(), "epoch {epoch} is not proven, and nothing was misdirected");
        if let Some(work) = self.lane(LaneId::Volume).and_then(|lane| lane.jobs.front_mut()) {
            work.steps.clear();
            let reason = "other bytes lie there".into();
            work.report = Some(BackupEvent::Unproven { epoch, half, reason });
        }
    }

    fn step_fails(&mut self, step: &Step) {
        match step {
            Step::Sync(disk) => {
                let mut random = self.random.clone();
                self.disk(*disk).sync_failed(&mut random);
                self.random = random;
            }
            _ => self.step_torn(step),
        }
    }

    /// Where a write lands: where it is to, unless it goes astray within the ring, or nowhere.
    fn aim(&mut self, disk: DiskId, offset: u64, len: usize) -> Option<u64> {
        let Some(left) = self.misdirects.filter(|_| disk == DiskId::Journal && offset >= RING_START) else {
            return Some(offset);
        };
        self.misdirects = left.checked_sub(1);
        if left > 0 {
            return Some(offset);
        }
        self.checker.struck();
        if self.random.coin() {
            self.note(|_| format!("FAULT the write to {offset} is lost"));
            return None;
        }
        let blocks = self.scenario.ring_blocks - len.div_ceil(BLOCK_LEN) as u64 + 1;
        let lands = RING_START + self.random.below(blocks) * BLOCK_LEN as u64;
        self.note(|_| format!("FAULT the write to {offset} lands at {lands}"));
        Some(lands)
    }

    /// What if the power were cut now, and everything lost that was not synced?
    fn power_cut_would_do(&self) {
        self.checker.examine(&self.backup.disks.durable());
    }

    /// Only some sectors of a write happen.
    fn step_torn(&mut self, step: &Step) {
        if let Step::Write(disk, offset, bytes) = step {
            self.note_backup_write(*disk, *offset, bytes.len());
            let mut random = self.random.clone();
            self.disk(*disk).write_torn(*offset, bytes, &mut random);
            self.random = random;
        }
    }

    /// The daemon's threads stop wherever they are.
    pub(crate) fn lanes_interrupted(&mut self, daemon: &BackupDaemon) {
        for lane in [&daemon.journal, &daemon.volume] {
            if lane.failed {
                continue;
            }
            let first = lane.jobs.front().and_then(|work| work.steps.front());
            match first {
                Some(Step::Slot(kind, slot, body)) => {
                    let is_state = *kind == SlotKind::State;
                    let sequence = if is_state { daemon.state_at } else { daemon.superblock_at };
                    self.step_torn(&slot_write(sequence + 1, *kind, *slot, body));
                }
                Some(Step::Redo(epoch, group)) => {
                    let (steps, _) = redo_of(daemon, &self.backup.disks.journal, epoch, group);
                    for step in steps {
                        self.step_torn(&step);
                    }
                }
                Some(step) => self.step_torn(step),
                None => {}
            }
        }
    }
}

impl BackupDaemon {
    /// Of the newest version.
    fn sequence(&mut self, kind: SlotKind) -> &mut u64 {
        match kind {
            SlotKind::State => &mut self.state_at,
            SlotKind::JournalSuperblock => &mut self.superblock_at,
        }
    }
}
