//! Verify: the primary's reading and hashing, the flipped blocks, and what is expected of a report.
//!
//! Always holds: a block is flipped only once nothing else goes wrong any more; whatever a verify reports was flipped,
//! and what was flipped is found and repaired, unless an epoch wrote to it first. Chance has a source of its own here,
//! so a history without a verify is what it was without this module.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ftdm_units::SECTOR_SIZE;
use ftship_proto::backup::BackupEvent;
use ftship_proto::ids::Digest;
use ftship_proto::primary::{PrimaryAction, PrimaryEvent, VerifyError, VerifyReport, VerifySizes};
use ftship_proto::verify::{Digests, HashRequest, Inspection, Place, digests_of};

use crate::content::fill;
use crate::cut_reports::PrimaryReport;
use crate::disk::Disks;
use crate::encoding::{EncodeJob, range};
use crate::random::Random;
use crate::scenario::Scenario;
use crate::world::{Event, World};
use ftdm_units::Sectors;

/// Rounds at the end of a history: a flip that is repaired, then a verify that finds nothing.
const LAST_STEPS: u32 = 2;

/// What the verifying thread is asked to read.
#[derive(Debug)]
pub(crate) struct VerifyRead {
    token: u64,
    places: Vec<Place>,
    /// Hash it in these units; else put it into the inspection.
    unit: Option<Sectors>,
    content: Vec<u64>,
}

/// Who asks for verifies in a history.
#[derive(Debug)]
pub(crate) struct Verifier {
    random: Random,
    /// This history has any.
    is_on: bool,
    next_id: u64,
    waiting: BTreeMap<u64, bool>,
    /// What was spoilt on the backup's volumes, and whether something was written over it since.
    flipped: BTreeMap<usize, bool>,
    last_steps: u32,
    snapshots: BTreeSet<u64>,
}

impl Verifier {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x7665_7269_6679);
        let is_on = random.once_in(3);
        let last_steps = if is_on { LAST_STEPS } else { 0 };
        Self {
            random,
            is_on,
            next_id: 0,
            waiting: BTreeMap::new(),
            flipped: BTreeMap::new(),
            last_steps,
            snapshots: BTreeSet::new(),
        }
    }

    /// Whether this block is known to be wrong on the backup.
    pub(crate) fn is_flipped(&self, place: usize) -> bool {
        self.flipped.contains_key(&place)
    }

    pub(crate) fn sizes(scenario: &Scenario) -> VerifySizes {
        let [piece, block] = [scenario.piece * 4, scenario.piece];
        VerifySizes { piece: Sectors(piece), block: Sectors(block), unit: Sectors(1), ahead: 2, round: 3 }
    }
}

impl World {
    pub(crate) fn verify_perform(&mut self, action: PrimaryAction) {
        match action {
            PrimaryAction::Hash { token, place, unit } => self.verify_read(token, vec![place], Some(unit)),
            PrimaryAction::Inspect { token, places, unit } => {
                self.encoder_push(EncodeJob::Inspect(token, Inspection::new(&places, unit)));
                self.verify_read(token, places, None);
            }
            PrimaryAction::Conclude { token, repair } => {
                self.encoder_push(EncodeJob::Conclude { token, repair });
            }
            PrimaryAction::EndInspection => self.encoder_push(EncodeJob::EndInspection),
            PrimaryAction::VerifyDone { id, result } => self.verified(id, result),
            other => panic!("{other:?} is no part of a verify"),
        }
    }

    fn verify_read(&mut self, token: u64, places: Vec<Place>, unit: Option<Sectors>) {
        let Some(daemon) = &mut self.primary.daemon else { return };
        daemon.verify.push_back(VerifyRead { token, places, unit, content: Vec::new() });
        if daemon.verify.len() == 1 {
            self.verify_read_begins();
        }
    }

    /// The thread reads some blocks at once, and the rest when the job ends.
    fn verify_read_begins(&mut self) {
        let host = &mut self.primary;
        let Some(read) = host.daemon.as_mut().and_then(|daemon| daemon.verify.front_mut()) else { return };
        let shape = &self.scenario.shape;
        read.content =
            read.places.iter().flat_map(|place| &host.volume[range(shape, place)]).copied().collect();
        let typical = self.scenario.lane_delay[crate::world::LaneId::Read as usize];
        let (at, run) = (self.now + self.verifier.random.around(typical), self.primary.run);
        self.schedule(at, Event::VerifyRead(run));
    }

    pub(crate) fn verify_read_done(&mut self, run: u32) {
        let (host, shape, noisy) = (&mut self.primary, &self.scenario.shape, self.scenario.noisy);
        if run != host.run {
            return;
        }
        let Some(read) = host.daemon.as_mut().and_then(|daemon| daemon.verify.pop_front()) else { return };
        let VerifyRead { token, places, unit, content } = read;
        let mut content = content.into_iter();
        let mut sector = [0; SECTOR_SIZE];
        let mut bytes = |place: &Place| {
            let mut data = Vec::new();
            for (now, before) in host.volume[range(shape, place)].iter().zip(&mut content) {
                fill(if self.verifier.random.coin() { *now } else { before }, noisy, &mut sector);
                data.extend_from_slice(&sector);
            }
            data
        };
        let read: Vec<Vec<u8>> = places.iter().map(&mut bytes).collect();
        let event = match unit {
            Some(unit) => {
                let digests = read.iter().flat_map(|data| digests_of(data, unit)).collect();
                PrimaryEvent::Hashed { token, result: Ok(digests) }
            }
            None => {
                self.encoder_push(EncodeJob::Fill(token, read));
                PrimaryEvent::Inspected { token, result: Ok(()) }
            }
        };
        self.primary_tell(PrimaryReport::Event(event));
        self.verify_read_begins();
    }

    /// Somebody asks for a verify, now and then, whatever else goes on.
    pub(crate) fn maybe_verify(&mut self) {
        if self.verifier.is_on && self.verifier.random.once_in(2) {
            let repair = self.verifier.random.coin();
            self.ask_to_verify(repair);
        }
    }

    fn ask_to_verify(&mut self, repair: bool) {
        if self.primary.daemon.is_none() {
            return;
        }
        self.verifier.next_id += 1;
        let id = self.verifier.next_id;
        self.note(|_| format!("operator: verify {id}, repair {repair}"));
        self.verifier.waiting.insert(id, repair);
        self.primary_handle(PrimaryEvent::Verify { id, repair });
    }

    /// Somebody wants a snapshot of the backup.
    pub(crate) fn maybe_snapshot(&mut self) {
        if self.verifier.is_on && self.backup.is_up() {
            self.verifier.next_id += 1;
            let id = self.verifier.next_id;
            self.verifier.snapshots.insert(id);
            self.backup_handle(BackupEvent::Snapshot { id });
        }
    }

    pub(crate) fn snapshot_ended(&mut self, id: u64) {
        assert!(self.verifier.snapshots.remove(&id), "snapshot {id} is answered twice");
    }

    /// The backup that was asked is gone.
    pub(crate) fn snapshots_gone(&mut self) {
        self.verifier.snapshots.clear();
    }

    /// The primary that was asked is gone.
    pub(crate) fn verifiers_gone(&mut self) {
        self.verifier.waiting.clear();
    }

    /// In the end, in sync: flips a block and has it repaired, then asks again. Whether that is over.
    pub(crate) fn last_verifies(&mut self) -> bool {
        // In interval mode no verify is possible.
        if self.verifier.last_steps == 0 || self.checker.is_struck() || self.scenario.is_interval {
            return self.verifier.waiting.is_empty();
        }
        if self.verifier.waiting.is_empty() {
            let is_first = self.verifier.last_steps == LAST_STEPS;
            if is_first && self.verifier.flipped.is_empty() {
                self.flip();
            }
            self.ask_to_verify(is_first);
        }
        false
    }

    fn flip(&mut self) {
        let (shape, noisy) = (&self.scenario.shape, self.scenario.noisy);
        let place = self.verifier.random.index(shape.blocks());
        let place = crate::growing::shown(shape, &self.scenario.begins, place);
        let volume = shape.volume_of(place);
        let offset = (place - shape.start(volume)) * SECTOR_SIZE;
        let mut sector = [0; SECTOR_SIZE];
        fill(u64::MAX - self.verifier.random.below(1 << 20), noisy, &mut sector);
        self.backup.disks.volumes[usize::from(volume.0)].corrupt(offset as u64, &sector);
        self.verifier.flipped.insert(place, false);
        self.checker.flipped(place, true);
        self.note(|_| format!("FLIPPED block {place} on the backup"));
    }

    /// The backup writes to one of its volumes.
    pub(crate) fn volume_written(&mut self, volume: usize, offset: u64, len: usize) {
        let start: usize = self.scenario.shape.0[..volume].iter().sum();
        let first = start + usize::try_from(offset).expect("a small volume") / SECTOR_SIZE;
        for (_, is_overwritten) in self.verifier.flipped.range_mut(first..first + len / SECTOR_SIZE) {
            *is_overwritten = true;
        }
    }

    fn verified(&mut self, id: u64, result: Result<VerifyReport, VerifyError>) {
        self.note(|_| format!("verify {id}: {result:?}"));
        let repaired = self.verifier.waiting.remove(&id).expect("each verify has one answer");
        let Ok(report) = result else { return };
        let whole: u64 = self.primary.group.volumes().iter().map(|volume| volume.size.0).sum();
        assert_eq!(report.checked.0, whole, "a verify ended and did not compare everything");
        let found: Vec<usize> =
            report.differing.iter().flat_map(|place| range(&self.scenario.shape, place)).collect();
        let false_alarm = found.iter().find(|place| !self.verifier.is_flipped(**place));
        assert!(
            false_alarm.is_none() || self.checker.is_struck(),
            "a false alarm about block {false_alarm:?}"
        );
        assert!(
            report.untracked.is_empty() || self.checker.is_struck(),
            "the backup's block was flipped, and the tracking is accused: {report:?}"
        );
        assert_eq!(report.differing_sectors.0, found.len() as u64, "the report does not add up");
        for (place, is_overwritten) in std::mem::take(&mut self.verifier.flipped) {
            assert!(
                is_overwritten || found.contains(&place),
                "block {place} was flipped, and nobody noticed"
            );
            if repaired {
                assert!(report.repaired.0 >= found.len() as u64, "found and not repaired");
                self.checker.flipped(place, false);
            } else {
                self.verifier.flipped.insert(place, is_overwritten);
            }
        }
        if self.is_calm() {
            self.more_time();
            self.verifier.last_steps = self.verifier.last_steps.saturating_sub(1);
        }
    }
}

/// What the backup's volumes hold there.
pub(crate) fn backup_digests(disks: &Disks, request: &HashRequest) -> Digests {
    let mut digests = Digests::none(request.length);
    for place in &request.places {
        let start = place.extent.start().bytes().expect("a small volume");
        let len = usize::try_from(place.extent.len().0).expect("a small volume") * SECTOR_SIZE;
        digests.add(disks.volumes[usize::from(place.volume.0)].view.bytes(start, len), request.unit);
    }
    digests
}

/// The encoder's inspection.
#[derive(Debug, Default)]
pub(crate) struct Inspecting {
    current: Option<(u64, Inspection)>,
    concludes: Option<bool>,
}

impl Inspecting {
    pub(crate) fn begin(&mut self, token: u64, inspection: Inspection) {
        *self = Self { current: Some((token, inspection)), concludes: None };
    }

    pub(crate) fn fill(&mut self, token: u64, read: &[Vec<u8>]) {
        if let Some((_, inspection)) = self.current.as_mut().filter(|(current, _)| *current == token) {
            inspection.fill(read);
        }
    }

    pub(crate) fn conclude(&mut self, token: u64, repair: bool) {
        if self.current.as_ref().is_some_and(|(current, _)| *current == token) {
            self.concludes = Some(repair);
        }
    }

    pub(crate) fn inspection(&mut self) -> Option<&mut Inspection> {
        self.current.as_mut().map(|(_, inspection)| inspection)
    }

    /// What goes out with the epoch that is being encoded.
    pub(crate) fn repairs(&self) -> Option<&Inspection> {
        self.current.as_ref().filter(|_| self.concludes == Some(true)).map(|(_, inspection)| inspection)
    }

    /// The end of an inspection whose last epoch this was.
    pub(crate) fn concluded(&mut self) -> Option<(u64, Vec<Option<Digest>>)> {
        self.concludes.take()?;
        let (token, inspection) = self.current.take()?;
        Some((token, inspection.digests()))
    }
}

pub(crate) type VerifyLane = VecDeque<VerifyRead>;
