//! The guest, the capture of its writes, and the copying's reads: exact by construction.
//!
//! Always holds: an epoch is the set of blocks written between two cuts, with their content at the later
//! one; a piece of what is copied is read block by block while the guest goes on writing.

use std::collections::BTreeSet;

use ftdm_units::Era;
use ftship_proto::ids::Epoch;
use ftship_proto::mutant::{self, Mutant};
use ftship_proto::primary::{Batch, Cut, CutOrder, CutResult, PrimaryEvent};
use ftship_proto::scope::bytes_of;

use crate::content::Content;
use crate::cut_reports::{Cargo, PrimaryReport};
use crate::encoding::{Captured, EncodeJob, Piece};
use crate::scenario::Scenario;
use crate::switching::Gate;
use crate::world::{Event, LaneId, World};

/// Nobody holds a guest still for so long, in microseconds.
const MAX_FROZEN: u64 = 10_000_000;
/// The guest writes nothing for so long at most, in microseconds, now and then.
const MAX_IDLE: u64 = 2_500_000;
/// Writes that a power cut of the primary may undo.
const UNFLUSHED: usize = 8;

impl World {
    /// The guest writes a few blocks; some of them twice, some to zeros.
    pub(crate) fn guest_writes(&mut self) {
        let mut at = self.now + self.random.around(self.scenario.guest_interval);
        if self.scenario.counts_writes && self.random.once_in(16) {
            at += self.random.below(MAX_IDLE);
        }
        self.schedule(at, Event::Guest);
        if !self.primary.powered || !self.primary.has_guest || self.primary.gate != Gate::Open {
            return;
        }
        assert!(!self.operator.handed_over, "the guest writes here, and the other side took over");
        let since = self.primary.frozen_at;
        assert!(
            !self.primary.is_frozen || self.now < since + MAX_FROZEN,
            "the guest is frozen since {since}"
        );
        self.guest_burst();
    }

    /// A few blocks at once.
    pub(crate) fn guest_burst(&mut self) {
        self.note_guest_write();
        for _ in 0..=self.random.below(self.scenario.burst) {
            let shape = &self.scenario.shape;
            let block = self.random.index(shape.blocks());
            let mut block = crate::growing::shown(shape, &self.primary.shown, block);
            let mut zero = self.random.once_in(self.scenario.odds_zero);
            let host = &mut self.primary;
            if shape.pair().contains(&block) {
                // These two never in any other order, and never as zeros.
                block = shape.pair()[usize::from(host.volume[0] > host.volume[shape.blocks() - 1])];
                zero = false;
            }
            host.writes += 1;
            host.eras.note(block);
            host.touched[block] = host.writes;
            host.unflushed.push_back((block, host.volume[block]));
            if host.unflushed.len() > UNFLUSHED {
                host.unflushed.pop_front();
            }
            host.volume[block] = if zero { 0 } else { host.writes };
            self.checker.wrote(&host.volume);
            if let Some(daemon) = &mut host.daemon
                && let Some(dirty) = &mut daemon.dirty
            {
                dirty.insert(block);
                daemon.log_used += 1;
            }
        }
    }

    /// Some of the last writes never reached the primary's disk.
    pub(crate) fn guest_power_cut(&mut self) {
        while let Some((block, before)) = self.primary.unflushed.pop_back() {
            if self.random.coin() {
                self.primary.volume[block] = before;
            }
        }
        self.checker.wrote(&self.primary.volume);
    }

    pub(crate) fn cut_push(&mut self, job: CutOrder) {
        let Some(daemon) = &mut self.primary.daemon else { return };
        daemon.cut.jobs.push_back(job);
        let count = |of: fn(&CutOrder) -> bool| daemon.cut.jobs.iter().filter(|job| of(job)).count();
        // Whatever is queued stands before the next cut.
        assert!(
            count(|job| matches!(job, CutOrder::Follow)) <= 1,
            "more than one follow of the log is ordered"
        );
        assert!(count(|job| matches!(job, CutOrder::Cut(_))) <= 1, "more than one cut is ordered");
        if daemon.cut.jobs.len() == 1 {
            self.lane_begin(LaneId::Cut, self.primary.run);
        }
    }

    /// The lane's first job will be done after a while.
    pub(crate) fn lane_begin(&mut self, lane: LaneId, run: u32) {
        let at = self.job_end(lane);
        self.schedule(at, Event::Lane(lane, run));
    }

    pub(crate) fn cut_done(&mut self) {
        let (lost, void) = (self.scenario.odds_lost, self.scenario.odds_void);
        let (lost, void) = (self.random.once_in(lost), self.random.once_in(void));
        let capacity = self.scenario.log_capacity;
        let Some(daemon) = &mut self.primary.daemon else { return };
        let Some(order) = daemon.cut.jobs.pop_front() else { return };
        let overflown = daemon.log_used > capacity;
        let is_follow = matches!(order, CutOrder::Follow);
        let failed = daemon.dirty.is_some() && (lost || overflown) && !matches!(order, CutOrder::Stop);
        let report = match order {
            _ if failed && self.gate_let_go() => Some(self.perform_switch(&CutOrder::Shut).into()),
            _ if failed => {
                self.primary_uncapture();
                Some(CutResult::LogOff { reason: "log off".into() }.into())
            }
            CutOrder::Follow => None,
            order => Some(self.obey(order, void)),
        };
        self.note(|_| format!("cut thread: {report:?}"));
        if let Some(report) = report {
            self.primary_tell(report);
        }
        if is_follow {
            self.primary_tell(CutResult::Followed.into());
        }
        let Some(daemon) = &self.primary.daemon else { return };
        if daemon.dirty.is_some() {
            let result = CutResult::LogUse { used: daemon.log_used * 1024, capacity: capacity * 1024 };
            self.primary_tell(result.into());
        }
        if self.primary.daemon.as_ref().is_some_and(|daemon| !daemon.cut.jobs.is_empty()) {
            self.lane_begin(LaneId::Cut, self.primary.run);
        }
    }

    /// Carries out an order; `void`: whatever can fail its checks does.
    fn obey(&mut self, order: CutOrder, void: bool) -> PrimaryReport {
        match order {
            CutOrder::Roll { attempt, .. } if void && self.random.coin() => {
                let (reason, tracking_lost) = ("no room in the metadata".into(), self.random.once_in(8));
                CutResult::RollFailed { attempt, reason, tracking_lost }.into()
            }
            CutOrder::Roll { attempt, since } => {
                let eras = self.roll();
                let scope = self.primary.eras.written_since(since.as_deref());
                let bytes = bytes_of(&scope);
                PrimaryReport::Cut(CutResult::Rolled { attempt, eras, bytes }, Cargo::Scope(scope))
            }
            CutOrder::Start { .. } if self.refuses_capture() => {
                let reason = self.refused();
                CutResult::Lost { reason }.into()
            }
            CutOrder::Try { attempt } => {
                let result = if self.refuses_capture() {
                    Err(self.refused())
                } else {
                    self.begun();
                    Ok(())
                };
                CutResult::Tried { attempt, result }.into()
            }
            CutOrder::Start { since } => {
                self.begun();
                let eras = self.roll();
                let scope = self.primary.eras.written_since(Some(&since));
                let bytes = bytes_of(&scope);
                if let Some(daemon) = &mut self.primary.daemon {
                    daemon.dirty = Some(BTreeSet::new());
                    daemon.log_used = 0;
                }
                PrimaryReport::Cut(CutResult::Started { eras, bytes }, Cargo::Scope(scope))
            }
            CutOrder::Still { attempt, since, epoch, .. } => self.still_round(attempt, &since, epoch, void),
            CutOrder::Stop => {
                self.gate_let_go();
                self.primary_uncapture();
                CutResult::Stopped.into()
            }
            CutOrder::Follow => CutResult::Followed.into(),
            CutOrder::Enlarge { .. } => self.enlarge(void).into(),
            CutOrder::Show { sizes } => self.show(&sizes, void).into(),
            CutOrder::Cut(cut) => self.ordered_cut(&cut, void),
            CutOrder::Hold { .. } => {
                self.hold();
                CutResult::Held.into()
            }
            of_switch @ (CutOrder::Yield | CutOrder::Release | CutOrder::Shut) => {
                self.perform_switch(&of_switch).into()
            }
        }
    }

    fn ordered_cut(&mut self, order: &Cut, void: bool) -> PrimaryReport {
        let Cut { epoch, roll, hold, part, may_rest, .. } = *order;
        if part {
            return self.cut_part(void);
        }
        if may_rest && self.is_idle() {
            return CutResult::Idle.into();
        }
        // No hooks are run before the last cut of a switch.
        self.primary.hook_failed |= hold;
        let report = self.cut(epoch, roll, void);
        if hold && matches!(report, PrimaryReport::Cut(CutResult::Taken { .. }, _)) {
            self.hold();
        }
        report
    }

    fn primary_uncapture(&mut self) {
        if let Some(daemon) = &mut self.primary.daemon {
            daemon.dirty = None;
        }
    }

    /// Ends the era of every volume, drained and flushed.
    fn roll(&mut self) -> Vec<Era> {
        if !mutant::is(Mutant::RollUnflushed) {
            self.primary.unflushed.clear();
        }
        let eras = self.primary.eras.roll();
        self.checker.rolled(&eras, self.primary.writes);
        eras
    }

    /// The hooks are run: they take a while, or fail.
    pub(crate) fn freeze(&mut self, token: u64) {
        assert!(!self.primary.is_frozen, "the guest is frozen twice");
        let fails = self.random.once_in(self.scenario.odds_void);
        self.primary.frozen_at = self.now;
        (self.primary.is_frozen, self.primary.hook_failed) = (!fails, fails);
        let result = if fails { Err("the hook failed".into()) } else { Ok(()) };
        self.primary_tell(PrimaryReport::Event(PrimaryEvent::Froze { token, result }));
    }

    /// The hooks are run that let the guest go on.
    pub(crate) fn thaw(&mut self) {
        // What was ordered and is not done counts no more.
        let ordered = |order: &CutOrder| matches!(order, CutOrder::Still { .. } | CutOrder::Cut(_));
        let jobs = self.primary.daemon.as_ref().map(|daemon| &daemon.cut.jobs);
        self.primary.hook_failed |= jobs.is_some_and(|jobs| jobs.iter().any(ordered));
        self.primary.is_frozen = false;
    }

    /// All volumes are suspended for an instant.
    fn still_round(&mut self, attempt: u32, since: &[Era], epoch: Epoch, void: bool) -> PrimaryReport {
        if void && self.random.coin() {
            let (reason, tracking_lost) = ("somebody resumed".into(), false);
            return CutResult::RollFailed { attempt, reason, tracking_lost }.into();
        }
        let eras = self.roll();
        expect_frozen(self.primary.is_frozen || self.primary.hook_failed, &self.scenario);
        let host = &self.primary;
        let scope = host.eras.written_since(Some(since));
        let bytes = bytes_of(&scope);
        if void {
            let reason = "too much to be read".into();
            let result = CutResult::StillUnread { attempt, eras, bytes, reason };
            return PrimaryReport::Cut(result, Cargo::Scope(scope));
        }
        if let Some(daemon) = &host.daemon {
            self.checker.cut(daemon.incarnation, epoch, host);
        }
        PrimaryReport::Cut(
            CutResult::Still { attempt, eras, bytes },
            Cargo::Still(scope, host.volume.clone()),
        )
    }

    /// The counters prove that nothing was written since the last cut.
    fn is_idle(&self) -> bool {
        let host = &self.primary;
        let Some(daemon) = &host.daemon else { return false };
        let Some(dirty) = daemon.dirty.as_ref().filter(|_| self.scenario.counts_writes) else { return false };
        let is_idle = dirty.is_empty() || mutant::is(Mutant::RestUnproven);
        if is_idle {
            self.checker.rests(daemon.incarnation, &host.volume);
        }
        is_idle
    }

    fn cut(&mut self, epoch: Epoch, roll: bool, void: bool) -> PrimaryReport {
        // A void cut may have rolled all the same.
        let is_capturing = self.primary.daemon.as_ref().is_some_and(|daemon| daemon.dirty.is_some());
        let eras = (roll && is_capturing && !(void && self.random.coin())).then(|| self.roll());
        let host = &mut self.primary;
        let report = |reason: &str| CutResult::Void { reason: reason.into() }.into();
        let Some(daemon) = &mut host.daemon else { return report("stopped") };
        match &mut daemon.dirty {
            Some(dirty) if !void => {
                expect_frozen(host.is_frozen || host.hook_failed, &self.scenario);
                let dirty = std::mem::take(dirty);
                daemon.log_used = 0;
                let content = dirty.into_iter().map(|block| (block, host.volume[block])).collect();
                let incarnation = daemon.incarnation;
                self.checker.cut(incarnation, epoch, host);
                PrimaryReport::Cut(CutResult::Taken { eras }, Cargo::Captured(Captured(content)))
            }
            Some(_) => report("checks failed"),
            None => report("not capturing"),
        }
    }

    /// Takes what was captured so far; the log is another one from then on.
    fn cut_part(&mut self, void: bool) -> PrimaryReport {
        let host = &mut self.primary;
        let dirty = host.daemon.as_mut().filter(|_| !void).and_then(|daemon| {
            let dirty = daemon.dirty.as_mut().map(std::mem::take);
            daemon.log_used = if dirty.is_some() { 0 } else { daemon.log_used };
            dirty
        });
        match dirty {
            Some(dirty) => {
                let content = dirty.into_iter().map(|block| (block, host.volume[block])).collect();
                let result = CutResult::Taken { eras: None };
                PrimaryReport::Cut(result, Cargo::Captured(Captured(content)))
            }
            None => CutResult::Void { reason: "checks failed".into() }.into(),
        }
    }

    /// Orders pieces of what is copied as long as the plan has any.
    pub(crate) fn copy_order(&mut self) {
        while let Some(daemon) = &mut self.primary.daemon {
            let Some(batch) = daemon.plan.order() else { return };
            let Batch { number, places, unit, .. } = batch.clone();
            daemon.read.jobs.push_back(Piece { batch, content: Vec::new(), told: None });
            if daemon.read.jobs.len() == 1 {
                self.read_begin();
            }
            if unit.is_some() {
                self.primary_handle(PrimaryEvent::Compares { number, places });
            }
        }
    }

    /// The thread reads some blocks at once, and the rest when the job ends.
    fn read_begin(&mut self) {
        let host = &mut self.primary;
        let Some(daemon) = &mut host.daemon else { return };
        let source = source_of(&daemon.still, &host.volume);
        if let Some(piece) = daemon.read.jobs.front_mut() {
            piece.content =
                piece.blocks(&self.scenario.shape).into_iter().map(|block| source[block]).collect();
            self.lane_begin(LaneId::Read, self.primary.run);
        }
    }

    pub(crate) fn read_done(&mut self) {
        let host = &mut self.primary;
        let Some(daemon) = &mut host.daemon else { return };
        let Some(mut piece) = daemon.read.jobs.pop_front() else { return };
        let source = source_of(&daemon.still, &host.volume);
        for (block, number) in piece.blocks(&self.scenario.shape).into_iter().zip(&mut piece.content) {
            if self.random.coin() {
                *number = source[block];
            }
        }
        self.primary_tell(PrimaryReport::Read(piece));
        self.read_begin();
    }

    pub(crate) fn piece_read(&mut self, piece: Piece) {
        let Some(daemon) = &mut self.primary.daemon else { return };
        if daemon.plan.is_running(piece.batch.chain) {
            if let Some((piece, told)) = daemon.plan.read(piece.batch.number, piece) {
                self.encoder_push(EncodeJob::Copied(Piece { told, ..piece }));
                self.ship_parts();
            }
            return;
        }
        if !mutant::is(Mutant::StalledByOldPieces) {
            daemon.plan.failed();
            self.copy_order();
        }
    }
}

/// What a piece is read from: the live volume, unless it stood still to be read.
fn source_of<'a>(still: &'a Option<Content>, live: &'a Content) -> &'a Content {
    still.as_ref().filter(|_| !mutant::is(Mutant::StandReadLate)).unwrap_or(live)
}

/// The guest is frozen at the instant of an epoch, unless the hooks failed.
fn expect_frozen(is_excused: bool, scenario: &Scenario) {
    assert!(is_excused || scenario.hooks.is_none(), "a cut while the guest is not frozen");
}
