//! Verify: whether the backup's volumes hold what they should, while everything goes on.
//!
//! ```text
//!   scan     both sides hash piece after piece, live, in parallel; blocks whose digests differ are candidates:
//!            most of them were written to, or are on their way
//!   round    some candidates are read here, live, and the epochs from then on laid over them (`crate::verify`);
//!            a cut N that was ordered after that reading had ended gives their exact content at N; the backup
//!            hashes them when exactly N is on its volumes: what differs now, differs
//!   doubt    where a block differs that an earlier verify found equal, the backup is asked what it holds now: if that
//!            is what both held then, it changed here and was never shipped (`agreed.rs`)
//!   repair   another round with what differs: its content at N travels in epoch N, the backup's answer is of after
//! ```
//!
//! A round begins when it is full or the scan has come to its end, and the scan goes on behind it: memory is bounded
//! by one round and the pieces ahead, whatever the size of the volumes and however much differs.
//!
//! Always holds: only what differed in a round, at one and the same epoch, is reported; nothing of a verify delays or
//! lengthens a cut; it ends with the replication that it looks at, and leaves nothing behind.

use std::collections::VecDeque;
use std::time::Duration;

use ftdm_units::{Extent, Sector, Sectors};

use super::{Capture, Link, Primary, PrimaryAction, Replication, SyncStep};
use crate::ids::{Digest, Epoch, VolumeIndex};
use crate::message::Message;
use crate::mutant::{self, Mutant};
use crate::protocol::VERIFY;
use crate::verify::{DigestLength, HashRequest, MAX_PLACES, Place};

/// A verify that comes no further for so long is given up. A coordinator may take its time to commit.
const PATIENCE: Duration = Duration::from_secs(300);
/// Attempts to compare a block of which an epoch says that any content will do.
const TRIES: u8 = 4;
/// Most places that a report lists; what lies beyond is only counted.
pub const MAX_LISTED: usize = 256;

/// The sizes that a verify works with; each but the last two in sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifySizes {
    /// Read and hashed at a time.
    pub piece: Sectors,
    /// What has one digest in the scan, and is looked at in a round.
    pub block: Sectors,
    /// What has one digest in a round, and is reported and repaired.
    pub unit: Sectors,
    /// Pieces that both sides may be at.
    pub ahead: usize,
    /// Blocks in a round, up to [`MAX_PLACES`].
    pub round: usize,
}

impl Default for VerifySizes {
    fn default() -> Self {
        Self { piece: Sectors(2048), block: Sectors(128), unit: Sectors(8), ahead: 4, round: MAX_PLACES }
    }
}

/// What a verify has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Sectors of the volumes compared.
    pub checked: Sectors,
    /// Blocks that were looked at more closely.
    pub candidates: u64,
    /// Where the backup held something else, sorted as found, at most [`MAX_LISTED`].
    pub differing: Vec<Place>,
    /// Of these, at most as many, those that changed here and were never shipped, as far as that can be told.
    pub untracked: Vec<Place>,
    /// Sectors of all of them.
    pub untracked_sectors: Sectors,
    /// Sectors that differed.
    pub differing_sectors: Sectors,
    /// Of the differing ones, sectors that the backup holds rightly now.
    pub repaired: Sectors,
    /// Sectors that could not be compared, because the guest kept discarding them.
    pub undecided: Sectors,
    /// Time that it took.
    pub took: Duration,
}

/// Why a verify was refused, or did not end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// There is nothing to compare with.
    #[error("only a pair in sync can be verified: {0}")]
    NotInSync(String),
    /// The backup's software is older.
    #[error("the backup does not know how to verify: update it")]
    Unknown,
    /// It was begun and did not come to its end.
    #[error("the verify was interrupted: {0}")]
    Interrupted(String),
}

/// How far a verify is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Sectors compared.
    pub checked: Sectors,
    /// Sectors of all volumes.
    pub whole: Sectors,
    /// Sectors that differ, so far.
    pub differing: Sectors,
    /// When it began.
    pub begun: Duration,
}

/// Digests of both sides, as they come in.
#[derive(Debug)]
struct Sides<D> {
    mine: Option<Vec<D>>,
    theirs: Option<Vec<Digest>>,
}

impl<D> Default for Sides<D> {
    fn default() -> Self {
        Self { mine: None, theirs: None }
    }
}

impl<D> Sides<D> {
    fn take(&mut self) -> Option<(Vec<D>, Vec<Digest>)> {
        if self.mine.is_some() { Some((self.mine.take()?, self.theirs.take()?)) } else { None }
    }

    fn is_whole(&self) -> bool {
        self.mine.is_some() && self.theirs.is_some()
    }
}

#[derive(Debug)]
struct Piece {
    token: u64,
    place: Place,
    sides: Sides<Digest>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    place: Place,
    tries: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RoundStep {
    /// The places are being read.
    Reading,
    /// They were read; the next cut that is ordered will do.
    Read,
    /// A cut was ordered since.
    Cutting,
    /// The backup was asked about this epoch.
    Asked,
}

#[derive(Debug)]
struct Round {
    token: u64,
    step: RoundStep,
    repairs: bool,
    /// How often each place was looked at before.
    tries: Vec<u8>,
    places: Vec<Place>,
    sides: Sides<Option<Digest>>,
}

/// A block that differs, and that was equal at an earlier verify: the backup is asked what it holds now.
#[derive(Debug)]
struct Doubt {
    token: u64,
    block: Place,
    differing: Vec<Place>,
}

/// A verify that is under way.
#[derive(Debug)]
pub(super) struct Verify {
    askers: Vec<u64>,
    /// Who wants one that repairs, once this one has ended.
    repair_next: Vec<u64>,
    repair: bool,
    begun: Duration,
    deadline: Duration,
    sizes: VerifySizes,
    next: (VolumeIndex, Sector),
    pieces: Vec<Piece>,
    candidates: VecDeque<Candidate>,
    /// What differs and is to be repaired.
    broken: Vec<Place>,
    round: Option<Round>,
    /// Settled before anything is repaired.
    doubts: Vec<Doubt>,
    report: VerifyReport,
}

impl Primary {
    /// How far the verify is that is under way.
    #[must_use]
    pub fn verify_progress(&self) -> Option<VerifyProgress> {
        let verify = self.verify.as_ref()?;
        let whole = self.config.group.volumes().iter().map(|volume| volume.size.0).sum();
        let VerifyReport { checked, differing_sectors: differing, .. } = verify.report;
        Some(VerifyProgress { checked, whole: Sectors(whole), differing, begun: verify.begun })
    }

    pub(super) fn verify_due(&self) -> Option<Duration> {
        self.verify.as_ref().map(|verify| verify.deadline)
    }

    pub(super) fn verify_timeout(&mut self, now: Duration) {
        if self.verify_due().is_some_and(|due| due <= now) {
            self.interrupt_verify(&format!("it came no further for {PATIENCE:?}"));
        }
    }

    pub(super) fn verify(&mut self, now: Duration, id: u64, repair: bool) {
        if let Some(verify) = &mut self.verify
            && (verify.repair || !repair)
        {
            // The one under way answers both.
            return verify.askers.push(id);
        }
        if let Some(verify) = &mut self.verify {
            return verify.repair_next.push(id);
        }
        let refused = match (&self.peer.link, &self.replication) {
            (Link::Up { welcome, .. }, _) if welcome.features & VERIFY == 0 => Some(VerifyError::Unknown),
            (Link::Up { .. }, Replication::InSync)
                if self.capture == Capture::On
                    && self.syncing.step == SyncStep::None
                    && !self.config.interval =>
            {
                None
            }
            (_, Replication::Degraded { reason } | Replication::Failed { reason }) => {
                Some(VerifyError::NotInSync(reason.clone()))
            }
            _ if self.config.interval => Some(VerifyError::NotInSync(
                "no epochs are cut between two intervals (mode = \"interval\"); see --offline".into(),
            )),
            _ => Some(VerifyError::NotInSync("it is being synced".into())),
        };
        if let Some(refused) = refused {
            return self.act(PrimaryAction::VerifyDone { id, result: Err(refused) });
        }
        let coarsest = self.config.group.volumes().iter().map(|volume| volume.block()).max();
        let mut sizes = self.config.verify;
        sizes.unit = sizes.unit.max(coarsest.unwrap_or(sizes.unit));
        sizes.block = sizes.block.max(sizes.unit);
        self.verify = Some(Box::new(Verify {
            askers: vec![id],
            repair_next: Vec::new(),
            repair,
            begun: now,
            deadline: now + PATIENCE,
            sizes,
            next: (VolumeIndex(0), Sector(0)),
            pieces: Vec::new(),
            candidates: VecDeque::new(),
            broken: Vec::new(),
            round: None,
            doubts: Vec::new(),
            report: VerifyReport::default(),
        }));
        self.continue_verify(now);
    }

    /// It cannot go on.
    pub(super) fn interrupt_verify(&mut self, reason: &str) {
        let Some(verify) = self.verify.take() else { return };
        if verify.round.is_some() {
            self.act(PrimaryAction::EndInspection);
        }
        for id in verify.askers.into_iter().chain(verify.repair_next) {
            let result = Err(VerifyError::Interrupted(reason.to_owned()));
            self.act(PrimaryAction::VerifyDone { id, result });
        }
    }

    fn end_verify(&mut self, now: Duration, verify: Verify) {
        let took = now.saturating_sub(verify.begun);
        let mut report = VerifyReport { took, ..verify.report };
        report.differing.sort_unstable_by_key(order);
        report.untracked.sort_unstable_by_key(order);
        for id in verify.askers {
            self.act(PrimaryAction::VerifyDone { id, result: Ok(report.clone()) });
        }
        for id in verify.repair_next {
            self.verify(now, id, true);
        }
    }

    /// Starts whatever can be started.
    fn continue_verify(&mut self, now: Duration) {
        let Some(verify) = &mut self.verify else { return };
        verify.deadline = now + PATIENCE;
        if verify.round.is_none() && verify.wants_round(self.config.group.volumes().len()) {
            return self.begin_round();
        }
        while let Some(place) = self.next_piece() {
            let Some(verify) = &mut self.verify else { return };
            let (token, unit) = (next_token(&mut self.verify_token), verify.sizes.block);
            verify.pieces.push(Piece { token, place, sides: Sides::default() });
            self.act(PrimaryAction::Hash { token, place, unit });
            let (epoch, length) = (Epoch::NONE, DigestLength::Whole);
            let request = HashRequest { token, epoch, unit, length, places: vec![place] };
            self.act(PrimaryAction::Send(Message::Hash(request)));
        }
        if let Some(verify) = self.verify.take_if(|verify| verify.is_done()) {
            self.end_verify(now, *verify);
        }
    }

    /// The next piece of the scan, if one may begin.
    fn next_piece(&mut self) -> Option<Place> {
        let verify = self.verify.as_mut()?;
        if verify.pieces.len() >= verify.sizes.ahead || verify.candidates.len() >= verify.sizes.round {
            return None;
        }
        let (volume, start) = verify.next;
        let size = self.config.group.volume(volume)?.size;
        let end = Sector((start.0 + verify.sizes.piece.0).min(size.0));
        let is_last = end.0 == size.0;
        verify.next = if is_last { (VolumeIndex(volume.0 + 1), Sector(0)) } else { (volume, end) };
        Some(Place { volume, extent: Extent::between(start, end)? })
    }

    /// A piece was read and hashed here; in a round: the content of all its places at the epoch.
    pub(super) fn hashed(&mut self, now: Duration, token: u64, result: Result<Vec<Digest>, String>) {
        match result {
            Ok(digests) => self.piece_side(now, token, |sides| sides.mine = Some(digests)),
            Err(reason) => self.interrupt_verify(&reason),
        }
    }

    /// What the backup answers.
    pub(super) fn peer_digests(&mut self, now: Duration, token: u64, result: Result<Vec<Digest>, String>) {
        let Some(verify) = &mut self.verify else { return };
        let is_known = verify.pieces.iter().any(|piece| piece.token == token)
            || verify.doubts.iter().any(|doubt| doubt.token == token)
            || verify.round.as_ref().is_some_and(|round| round.token == token);
        let digests = match result {
            // Of a verify that has ended.
            _ if !is_known => return,
            Ok(digests) => digests,
            Err(reason) => return self.interrupt_verify(&format!("the backup cannot tell: {reason}")),
        };
        if self.settle_doubt(token, &digests) {
            return self.continue_verify(now);
        }
        match self.verify.as_mut().and_then(|verify| verify.round.as_mut()) {
            Some(round) if round.token == token => {
                round.sides.theirs = Some(digests);
                self.judge_round(now);
            }
            _ => self.piece_side(now, token, |sides| sides.theirs = Some(digests)),
        }
    }

    fn piece_side(&mut self, now: Duration, token: u64, put: impl FnOnce(&mut Sides<Digest>)) {
        let Some(verify) = &mut self.verify else { return };
        let Some(at) = verify.pieces.iter().position(|piece| piece.token == token) else { return };
        put(&mut verify.pieces[at].sides);
        if !verify.pieces[at].sides.is_whole() {
            return;
        }
        let mut piece = verify.pieces.swap_remove(at);
        let Some((mine, theirs)) = piece.sides.take() else { return };
        if mine.len() != theirs.len() {
            return self.interrupt_verify("the backup answered with another number of digests");
        }
        verify.report.checked.0 += piece.place.extent.len().0;
        for ((block, mine), theirs) in piece.place.units(verify.sizes.block).zip(mine).zip(theirs) {
            if mine == theirs {
                self.agreed.note(block, verify.sizes.block, &mine);
            } else {
                verify.report.candidates += 1;
                verify.candidates.push_back(Candidate { place: block, tries: 0 });
            }
        }
        self.continue_verify(now);
    }

    fn begin_round(&mut self) {
        let token = next_token(&mut self.verify_token);
        let Some(verify) = &mut self.verify else { return };
        let round = verify.next_round(token);
        let (places, unit) = (round.places.clone(), verify.sizes.unit);
        verify.round = Some(round);
        self.act(PrimaryAction::Inspect { token, places, unit });
    }

    /// The places of a round were read.
    pub(super) fn inspected(&mut self, token: u64, result: Result<(), String>) {
        if let Err(reason) = result {
            return self.interrupt_verify(&reason);
        }
        if let Some(round) = self.round(token)
            && round.step == RoundStep::Reading
        {
            round.step = RoundStep::Read;
        }
    }

    fn round(&mut self, token: u64) -> Option<&mut Round> {
        self.verify.as_mut()?.round.as_mut().filter(|round| round.token == token)
    }

    /// A cut is ordered.
    pub(super) fn round_cutting(&mut self) {
        let Some(round) = self.verify.as_mut().and_then(|verify| verify.round.as_mut()) else { return };
        let is_early = round.step == RoundStep::Reading && mutant::is(Mutant::InspectReadLate);
        if round.step == RoundStep::Read || is_early {
            round.step = RoundStep::Cutting;
        }
    }

    /// The cut was taken, and its epoch is about to be shipped: the question goes before it.
    pub(super) fn round_cut(&mut self, epoch: Epoch) {
        let Some(verify) = &mut self.verify else { return };
        let Some(round) = &mut verify.round else { return };
        if round.step != RoundStep::Cutting {
            return;
        }
        round.step = RoundStep::Asked;
        let (token, repair) = (round.token, round.repairs && !mutant::is(Mutant::RepairForgotten));
        let (unit, length) = (verify.sizes.unit, DigestLength::Whole);
        let request = HashRequest { token, epoch, unit, length, places: round.places.clone() };
        self.act(PrimaryAction::SendInOrder(Message::Hash(request)));
        self.act(PrimaryAction::Conclude { token, repair });
    }

    /// The exact content of a round's places at its epoch.
    pub(super) fn concluded(&mut self, now: Duration, token: u64, digests: Vec<Option<Digest>>) {
        if let Some(round) = self.round(token) {
            round.sides.mine = Some(digests);
            self.judge_round(now);
        }
    }

    fn judge_round(&mut self, now: Duration) {
        let Some(verify) = &mut self.verify else { return };
        let Some(round) = verify.round.take_if(|round| round.sides.is_whole()) else { return };
        match verify.judge(round) {
            Ok(differing) => self.doubt(differing),
            Err(reason) => return self.interrupt_verify(reason),
        }
        self.continue_verify(now);
    }

    /// These blocks differ: where that can tell whose volume changed, the backup is asked what it holds now. What was
    /// captured up to the round's epoch is on its volume by then.
    fn doubt(&mut self, differing: Vec<(Place, Vec<Place>)>) {
        let Some(verify) = &mut self.verify else { return };
        let unit = verify.sizes.block;
        for (block, differing) in differing {
            if self.agreed.knows(block, unit) {
                let token = next_token(&mut self.verify_token);
                verify.doubts.push(Doubt { token, block, differing });
                let (epoch, length) = (Epoch::NONE, DigestLength::Whole);
                let request = HashRequest { token, epoch, unit, length, places: vec![block] };
                self.actions.push_back(PrimaryAction::Send(Message::Hash(request)));
            }
        }
    }

    /// What the backup holds of a block that differs. False: it was not asked for that.
    fn settle_doubt(&mut self, token: u64, digests: &[Digest]) -> bool {
        let Some(verify) = &mut self.verify else { return false };
        let Some(at) = verify.doubts.iter().position(|doubt| doubt.token == token) else { return false };
        let Doubt { block, differing, .. } = verify.doubts.swap_remove(at);
        let is_held = |digest: &Digest| self.agreed.is(block, verify.sizes.block, digest);
        if matches!(digests, [digest] if is_held(digest)) {
            let VerifyReport { untracked, untracked_sectors, .. } = &mut verify.report;
            list(&differing, untracked, untracked_sectors);
        }
        true
    }
}

impl Verify {
    fn wants_round(&self, volumes: usize) -> bool {
        let is_scanned = usize::from(self.next.0.0) >= volumes && self.pieces.is_empty();
        let is_full = self.candidates.len() >= self.sizes.round;
        let repairs = !self.broken.is_empty() && self.doubts.is_empty();
        repairs || is_full || is_scanned && !self.candidates.is_empty()
    }

    fn is_done(&self) -> bool {
        self.round.is_none() && self.pieces.is_empty() && self.doubts.is_empty()
    }

    /// What differs is repaired before anything else is looked at.
    fn next_round(&mut self, token: u64) -> Round {
        let repairs = !self.broken.is_empty() && self.doubts.is_empty();
        let (mut tries, mut places) = (Vec::new(), Vec::new());
        if repairs {
            places.extend(self.broken.drain(..self.broken.len().min(MAX_PLACES)));
        } else {
            let count = self.candidates.len().min(self.sizes.round);
            let mut some: Vec<_> = self.candidates.drain(..count).collect();
            some.sort_unstable_by_key(|candidate| order(&candidate.place));
            (places, tries) = some.iter().map(|candidate| (candidate.place, candidate.tries)).unzip();
        }
        Round { token, step: RoundStep::Reading, repairs, tries, places, sides: Sides::default() }
    }

    /// Compares what both sides have at the round's epoch. Returns the whole blocks in which something was found, each
    /// with that.
    fn judge(&mut self, mut round: Round) -> Result<Vec<(Place, Vec<Place>)>, &'static str> {
        let Some((mine, theirs)) = round.sides.take() else { return Ok(Vec::new()) };
        if mine.len() != theirs.len() {
            return Err("the backup answered with another number of digests");
        }
        let unit = self.sizes.unit;
        let mut digests = mine.into_iter().zip(theirs);
        let mut blocks = Vec::new();
        for (index, place) in round.places.iter().enumerate() {
            let (mut unknown, mut differing) = (Vec::new(), Vec::new());
            for (part, (mine, theirs)) in place.units(unit).zip(&mut digests) {
                match mine {
                    None => join(&mut unknown, part),
                    Some(mine) if mine == theirs => {
                        if round.repairs {
                            self.report.repaired.0 += part.extent.len().0;
                        }
                    }
                    Some(_) => join(&mut differing, part),
                }
            }
            let tries = round.tries.get(index).map_or(TRIES, |tries| tries + 1);
            unknown.into_iter().for_each(|part| self.undecided(part, tries));
            if !round.repairs && !differing.is_empty() {
                self.found(&differing);
                // What is looked at again is a part of one.
                if tries == 1 {
                    blocks.push((*place, differing));
                }
            }
        }
        Ok(blocks)
    }

    /// The guest has discarded this in the very epoch: looks again, but not for ever.
    fn undecided(&mut self, place: Place, tries: u8) {
        if tries < TRIES {
            self.candidates.push_back(Candidate { place, tries });
        } else {
            self.report.undecided.0 += place.extent.len().0;
        }
    }

    fn found(&mut self, differing: &[Place]) {
        let VerifyReport { differing: listed, differing_sectors, .. } = &mut self.report;
        list(differing, listed, differing_sectors);
        if self.repair {
            self.broken.extend_from_slice(differing);
        }
    }
}

fn order(place: &Place) -> (VolumeIndex, Sector) {
    (place.volume, place.extent.start())
}

/// Counts these places, and lists them as far as a report does.
fn list(places: &[Place], listed: &mut Vec<Place>, sectors: &mut Sectors) {
    for place in places {
        sectors.0 += place.extent.len().0;
        if listed.len() < MAX_LISTED {
            join(listed, *place);
        }
    }
}

/// Adds a place that lies behind those there, joined with its neighbour.
fn join(places: &mut Vec<Place>, new: Place) {
    if let Some(last) = places.last_mut()
        && last.volume == new.volume
        && last.extent.end() == new.extent.start()
        && let Some(joined) = Extent::between(last.extent.start(), new.extent.end())
    {
        last.extent = joined;
        return;
    }
    places.push(new);
}

fn next_token(token: &mut u64) -> u64 {
    *token = token.wrapping_add(1);
    *token
}
