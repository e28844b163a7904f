//! The primary's host: a volume that a guest writes, and the daemon that ships it.
//!
//! Always holds: actions are carried out as the daemon's driver does it (`shipper/src/primary`): one cut
//! job at a time, pieces of the base copy read in order, one encoder whose output keeps its order, and
//! nothing of a chain that was given up on a later connection.

use std::collections::{BTreeSet, VecDeque};

use ftdm_units::Sectors;
use ftship_proto::epoch::EpochHeader;
use ftship_proto::epoch_encoder::{EpochEncoder, PlainEncoder};
use ftship_proto::frame::{Frame, Stamp};
use ftship_proto::group::GroupDescription;
use ftship_proto::ids::{Epoch, Generation, Incarnation};
use ftship_proto::message::{Hello, Message};
use ftship_proto::mutant::{self, Mutant};
use ftship_proto::primary::{
    Comparison, CopyPlan, Cut, CutOrder, CutResult, LONGEST_REST, Primary, PrimaryAction, PrimaryEvent,
    Replication, Touched, Usage,
};
use ftship_proto::protocol::COMPARE;
use ftship_proto::scope::Scope;
use ftship_proto::state::{DurableState, Role, WriteMark};

use crate::content::Content;
use crate::cut_reports::{Cargo, PrimaryReport};
use crate::disk::Disk;
use crate::encoding::{Captured, EncodeJob, Encoded, EncodedItem, Piece};
use crate::eras::Eras;
use crate::net::{ConnId, Item};
use crate::primary_state;
use crate::random::Random;
use crate::refusal::Refusals;
use crate::scenario::Scenario;
use crate::switching::Gate;
use crate::verify::{Inspecting, VerifyLane};
use crate::world::{Event, Lane, LaneId, Side, World};

/// A running daemon.
pub(crate) struct PrimaryDaemon {
    pub(crate) core: Primary,
    pub(crate) incarnation: Incarnation,
    pub(crate) stamp: Stamp,
    pub(crate) header: EpochHeader,
    pub(crate) base_encoder: PlainEncoder,
    pub(crate) comparison: Comparison,
    pub(crate) touched: Touched,
    pub(crate) encoder_chain: u64,
    pub(crate) peer: Option<ConnId>,
    pub(crate) chain: u64,
    captured: Option<Captured>,
    /// When the core last heard that a cut was taken.
    taken_at: u64,
    /// What the last roll noted.
    pub(crate) scope: Scope,
    /// Parts of the log that are to go out after what was ordered before.
    pub(crate) parts: VecDeque<Captured>,
    /// What is copied, where that was read while the volumes stood still.
    pub(crate) still: Option<Content>,
    /// The epoch that what is copied is part of.
    pub(crate) catch_up: Option<EpochEncoder>,
    /// Bytes of the frames of this chain's copying.
    pub(crate) copied: u64,
    /// Bytes of the volumes that it left out.
    pub(crate) skipped: u64,
    pub(crate) plan: CopyPlan<Piece>,
    /// Blocks written since the last cut, while capturing.
    pub(crate) dirty: Option<BTreeSet<usize>>,
    pub(crate) log_used: u64,
    /// When it last heard of a cut that was taken, or came in sync.
    pub(crate) last_cut: u64,
    /// What it said last.
    pub(crate) says_in_sync: bool,
    pub(crate) says_alone: bool,
    pub(crate) refusals: Refusals,
    pub(crate) cut: Lane<CutOrder>,
    pub(crate) read: Lane<Piece>,
    pub(crate) encode: Lane<EncodeJob>,
    pub(crate) state: Lane<Box<DurableState>>,
    pub(crate) state_at: u64,
    pub(crate) verify: VerifyLane,
    pub(crate) inspecting: Inspecting,
    pub(crate) encoded: VecDeque<Encoded>,
    report_at: u64,
    timer: Option<u64>,
}

/// See the head of this module.
pub(crate) struct PrimaryHost {
    pub(crate) volume: Content,
    pub(crate) eras: Eras,
    /// Number of the last write.
    pub(crate) writes: u64,
    /// The number of the last write to each block, whether it lasted or not.
    pub(crate) touched: Vec<u64>,
    /// Last writes that a power cut may undo: block and content before.
    pub(crate) unflushed: VecDeque<(usize, u64)>,
    pub(crate) group: GroupDescription,
    /// Blocks that each visible device has.
    pub(crate) shown: Vec<usize>,
    pub(crate) generation: Generation,
    pub(crate) state: Disk,
    pub(crate) powered: bool,
    /// The VM runs here.
    pub(crate) has_guest: bool,
    /// What becomes of what it writes.
    pub(crate) gate: Gate,
    /// It wrote since the host was powered on.
    pub(crate) written: bool,
    /// How often it was powered on.
    pub(crate) boots: u64,
    /// When it first wrote while nobody but this side had it, since the pair was last in sync.
    pub(crate) alone_since: Option<u64>,
    pub(crate) daemon_since: Option<u64>,
    /// If none runs: when it ended, unless what it last knew was not on its disk yet.
    pub(crate) daemon_until: Option<u64>,
    pub(crate) run: u32,
    /// A hook holds the guest's file systems still, or will in a moment.
    pub(crate) is_frozen: bool,
    pub(crate) frozen_at: u64,
    /// It failed, or what it was for was given up.
    pub(crate) hook_failed: bool,
    pub(crate) daemon: Option<Box<PrimaryDaemon>>,
}

impl PrimaryHost {
    pub(crate) fn new(scenario: &Scenario, random: &mut Random) -> Self {
        let mut volume = vec![0; scenario.shape.blocks()];
        let mut writes = 0;
        for block in &mut volume {
            if random.coin() {
                writes += 1;
                *block = writes;
            }
        }
        let generation = Generation { number: 1, id: random.id() };
        Self {
            volume,
            eras: Eras::new(scenario),
            touched: vec![0; scenario.shape.blocks()],
            writes,
            unflushed: VecDeque::new(),
            group: crate::encoding::group(scenario),
            shown: scenario.begins.clone(),
            generation,
            state: primary_state::format(random.id(), generation),
            powered: true,
            has_guest: true,
            gate: Gate::Open,
            written: false,
            boots: 0,
            alone_since: None,
            daemon_since: None,
            daemon_until: None,
            run: 0,
            is_frozen: false,
            frozen_at: 0,
            hook_failed: false,
            daemon: None,
        }
    }
}

impl PrimaryHost {
    /// What the daemon sees of whoever uses the volumes.
    pub(crate) fn usage(&self) -> Usage {
        let mark = [self.boots.to_le_bytes(), self.writes.to_le_bytes()].concat();
        let mark = mark.first_chunk().copied().map(WriteMark);
        Usage { open: self.has_guest, written: self.written, mark }
    }
}

impl PrimaryDaemon {
    fn stop_copy(&mut self) {
        self.plan.end();
        self.parts.clear();
    }
}

impl World {
    pub(crate) fn primary_start(&mut self) {
        let incarnation = Incarnation(self.random.id());
        self.operator.forget_primary();
        self.coordinator.forget_primary();
        self.checker.present(incarnation);
        let (state, state_at) = self.state_load();
        let host = &mut self.primary;
        host.run += 1;
        host.powered = true;
        if state.role == Role::Backup {
            host.gate = Gate::Shut;
            self.note(|_| "primary: its state says that it is a backup".into());
            self.operator.aftermath.demoted = true;
            return self.nobody_is_primary();
        }
        host.gate = Gate::Open;
        host.group = state.group.clone().unwrap_or_else(|| host.group.clone());
        let sizes = crate::growing::blocks(&host.group.sizes());
        host.eras.shown.clone_from(&sizes);
        self.guest_sees(sizes);
        let (host, scenario) = (&mut self.primary, &self.scenario);
        host.generation = state.generation().expect("a primary has one");
        (host.daemon_since, host.daemon_until) = (Some(self.now), None);
        let header = host.header(incarnation);
        let config = host.config(scenario, incarnation);
        let granule = Sectors(scenario.granule as u64);
        let touched = Touched::new(scenario.shape.0.iter().map(|blocks| (Sectors(*blocks as u64), granule)));
        let says_alone = state.alone.is_some();
        let core = Primary::new(config, state);
        host.daemon = Some(Box::new(PrimaryDaemon {
            core,
            incarnation,
            stamp: Stamp { epoch: Epoch::NONE, generation: host.generation.number, incarnation },
            base_encoder: PlainEncoder::base(host.group.clone(), host.generation.number, incarnation),
            comparison: Comparison::in_place(),
            touched,
            header,
            encoder_chain: 0,
            peer: None,
            chain: 0,
            captured: None,
            taken_at: 0,
            scope: Scope::new(),
            parts: VecDeque::new(),
            still: None,
            catch_up: None,
            copied: 0,
            skipped: 0,
            plan: CopyPlan::new(Sectors(scenario.piece), scenario.ahead),
            dirty: None,
            log_used: 0,
            last_cut: 0,
            says_in_sync: false,
            says_alone,
            refusals: Refusals::default(),
            cut: Lane::default(),
            read: Lane::default(),
            encode: Lane::default(),
            state: Lane::default(),
            state_at,
            verify: VerifyLane::default(),
            inspecting: Inspecting::default(),
            encoded: VecDeque::new(),
            report_at: 0,
            timer: None,
        }));
        self.note(|_| format!("primary: started, incarnation {incarnation}"));
        self.primary_settle();
    }

    /// The daemon is gone, and with it what it had in memory; `tells`: its kernel ends its connection.
    pub(crate) fn primary_stop(&mut self, tells: bool) {
        self.primary.run += 1;
        self.gate_let_go();
        // Whoever holds the guest sees that the daemon is gone.
        self.primary.is_frozen = false;
        if let Some(daemon) = self.primary.daemon.take() {
            // A state's disk that stalls has nothing yet.
            self.primary.daemon_until = Some(if daemon.core.is_state_durable() { self.now } else { 0 });
            self.state_interrupted(&daemon);
            if let Some(conn) = daemon.peer {
                self.net_close(conn, Side::Primary, tells);
            }
        }
        self.checker.requesters_gone();
        self.verifiers_gone();
    }

    /// Hands an event to the core and does what follows from it.
    pub(crate) fn primary_handle(&mut self, event: PrimaryEvent) {
        let now = self.time();
        if let Some(daemon) = &mut self.primary.daemon {
            daemon.core.handle(now, event);
            self.primary_settle();
        }
    }

    pub(crate) fn primary_timer(&mut self) {
        let now = self.time();
        let Some(daemon) = &mut self.primary.daemon else { return };
        if daemon.timer != Some(self.now) {
            return;
        }
        daemon.timer = None;
        daemon.core.handle_timeout(now);
        assert!(daemon.core.poll_timeout().is_none_or(|at| at > now), "the primary's timer does not move on");
        self.primary_settle();
    }

    fn primary_settle(&mut self) {
        self.primary_act();
        let now = self.now;
        let Some(daemon) = &mut self.primary.daemon else { return };
        let Some(at) = daemon.core.poll_timeout() else { return };
        let at = u64::try_from(at.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX).max(now);
        if daemon.timer.is_none_or(|timer| at < timer) {
            daemon.timer = Some(at);
            self.schedule(at, Event::Timer(Side::Primary));
        }
    }

    fn primary_act(&mut self) {
        while let Some(action) = self.primary.daemon.as_mut().and_then(|daemon| daemon.core.poll_action()) {
            self.note(|_| format!("primary does {}", crate::trace::primary_action(&action)));
            if self.random.once_in(self.scenario.odds_crash * 4) {
                return self.crash(Side::Primary);
            }
            self.primary_perform(action);
        }
    }

    fn primary_perform(&mut self, action: PrimaryAction) {
        let Some(daemon) = &mut self.primary.daemon else { return };
        match action {
            PrimaryAction::WriteState(state) => {
                self.judge_alone(&state);
                self.state_push(state);
            }
            PrimaryAction::Connect => {
                let conn = self.net_connect();
                if let Some(daemon) = &mut self.primary.daemon {
                    daemon.refusals.begun = false;
                    daemon.peer = Some(conn);
                }
            }
            PrimaryAction::Send(message) => self.primary_send(&message),
            PrimaryAction::SendInOrder(message) => self.encoder_push(EncodeJob::Message(message)),
            PrimaryAction::Close { .. } => self.primary_hang_up(),
            PrimaryAction::OpenChain { previous } => {
                daemon.next_chain();
                let chain = daemon.chain;
                self.encoder_push(EncodeJob::Open { chain, previous });
            }
            PrimaryAction::OpenCatchUp { first, epoch, staged } => {
                self.encoder_push(EncodeJob::CatchUp { first, epoch, staged });
            }
            PrimaryAction::Cut(order) => self.primary_order(order),
            PrimaryAction::Freeze { token, .. } => self.freeze(token),
            PrimaryAction::Thaw => self.thaw(),
            PrimaryAction::ShipPart => self.ship_part(),
            PrimaryAction::Ship { epoch, after } => {
                let nothing = self.scenario.is_still.then(|| Captured(Default::default()));
                if let Some(captured) = daemon.captured.take().or(nothing) {
                    let staged = daemon.core.known_durable();
                    self.encoder_push(EncodeJob::Epoch { epoch, staged, captured, after });
                }
            }
            PrimaryAction::Copy { unit } => self.copy(unit),
            PrimaryAction::Told { number, told } => {
                if let Some((piece, told)) = daemon.plan.told(number, told) {
                    self.encoder_push(EncodeJob::Copied(Piece { told, ..piece }));
                    self.ship_parts();
                }
            }
            PrimaryAction::StopCopy => daemon.stop_copy(),
            PrimaryAction::CheckpointReached { id, epoch, until } => {
                let incarnation = daemon.incarnation;
                self.checker.checkpoint_reached(id, incarnation, epoch, until);
                self.operator.checkpoint_answered(id, true);
                self.planned_checkpoint(id, true);
            }
            PrimaryAction::CheckpointFailed { id, .. } => {
                self.checker.checkpoint_failed(id);
                self.operator.checkpoint_answered(id, false);
            }
            PrimaryAction::Committed { epoch, .. } => {
                let incarnation = daemon.incarnation;
                self.checker.committed(incarnation, epoch);
                self.is_alone_no_more();
            }
            PrimaryAction::CommitDone { id, result } => self.commit_done(id, &result),
            PrimaryAction::StateChanged => self.state_changed(),
            PrimaryAction::RoleEnded => self.stepped_down(),
            PrimaryAction::Widen(scope) => self.widen(scope),
            PrimaryAction::Answer(_)
            | PrimaryAction::DemoteDone { .. }
            | PrimaryAction::ResizeDone { .. }
            | PrimaryAction::FullSyncBegun { .. } => {}
            of_verify => self.verify_perform(of_verify),
        }
    }

    /// A part of the log was cut off.
    fn ship_part(&mut self) {
        if let Some(daemon) = &mut self.primary.daemon
            && let Some(part) = daemon.captured.take()
        {
            daemon.parts.push_back(part);
            daemon.plan.part_cut();
        }
        self.ship_parts();
    }

    fn primary_order(&mut self, order: CutOrder) {
        if let (CutOrder::Cut(Cut { may_rest: true, .. }), Some(daemon)) = (&order, &self.primary.daemon) {
            let next = self.now + self.scenario.epoch_interval;
            assert!(next <= daemon.taken_at + micros(LONGEST_REST), "two cuts may be too far apart");
        }
        self.cut_push(order);
    }

    pub(crate) fn primary_send(&mut self, message: &Message) {
        let Some(daemon) = &self.primary.daemon else { return };
        let incarnation = daemon.incarnation;
        if let Message::SyncBegin { .. } = message {
            self.expect_capture();
            self.expect_decided(incarnation);
            self.checker.superseded();
        }
        let generation = self.primary.generation.number;
        let frame = match message {
            Message::Hello(hello) if self.scenario.is_older => {
                let features_optional = hello.features_optional & !COMPARE;
                Message::Hello(Hello { features_optional, ..hello.clone() }).encode(generation, incarnation)
            }
            message => message.encode(generation, incarnation),
        };
        self.primary_transmit(frame);
    }

    fn primary_transmit(&mut self, frame: Frame) {
        if let Some(conn) = self.primary.daemon.as_ref().and_then(|daemon| daemon.peer) {
            let old = self.operator.remember(&frame);
            for frame in [frame].into_iter().chain(old) {
                self.net_send(conn, Side::Primary, Item::Frame(frame));
            }
        }
    }

    fn primary_hang_up(&mut self) {
        let Some(daemon) = &mut self.primary.daemon else { return };
        let peer = daemon.peer.take();
        daemon.next_chain();
        if let Some(conn) = peer {
            self.net_close(conn, Side::Primary, true);
        }
    }

    fn primary_lost(&mut self, reason: &str) {
        self.primary_hang_up();
        self.primary_handle(PrimaryEvent::Disconnected { reason: reason.to_owned() });
    }

    fn primary_peer_is(&self, conn: ConnId) -> bool {
        self.primary.daemon.as_ref().is_some_and(|daemon| daemon.peer == Some(conn))
    }

    pub(crate) fn primary_established(&mut self, conn: ConnId) {
        if self.primary_peer_is(conn) {
            self.primary_handle(PrimaryEvent::Connected);
            self.primary_receive();
        }
    }

    pub(crate) fn primary_refused(&mut self, conn: ConnId) {
        if self.primary_peer_is(conn) {
            self.primary_lost("refused");
        }
    }

    /// Reads whatever has arrived.
    pub(crate) fn primary_receive(&mut self) {
        while let Some(conn) = self.primary.daemon.as_ref().and_then(|daemon| daemon.peer) {
            match self.net.arrived(conn, Side::Primary) {
                None => return,
                Some(Item::Frame(frame)) => {
                    self.note(|_| format!("primary gets {}", crate::trace::frame(&frame)));
                    self.primary_handle(PrimaryEvent::Frame(frame));
                }
                Some(Item::End) => self.primary_lost("the connection ended"),
            }
        }
    }

    /// Moves what the encoder has made to the connection, as far as that wants it.
    pub(crate) fn primary_pump(&mut self) {
        while let Some(daemon) = &mut self.primary.daemon {
            let room = |conn| self.net.unread(conn, Side::Backup) < self.scenario.output_frames;
            if !daemon.peer.is_none_or(room) {
                return;
            }
            let Some(encoded) = daemon.encoded.pop_front() else { return };
            let is_current = encoded.chain == daemon.chain;
            match encoded.item {
                EncodedItem::Copied { batch, frames, stored, skipped } => {
                    let is_complete = daemon.plan.encoded(&batch, frames);
                    let frames = daemon.plan.frames();
                    if is_current || !mutant::is(Mutant::StalledByOldPieces) {
                        self.copy_order();
                    }
                    if is_current {
                        self.copied_piece(stored, skipped);
                    }
                    if is_complete && is_current {
                        self.primary_handle(PrimaryEvent::Copied { frames });
                    }
                }
                _ if !is_current => {}
                EncodedItem::Frame(frame) => self.primary_transmit(frame),
                EncodedItem::Part { frames, stored } => self.part_encoded(stored, frames),
                EncodedItem::Concluded { token, digests } => {
                    self.primary_handle(PrimaryEvent::Concluded { token, digests });
                }
                EncodedItem::Epoch { epoch, digest, stored, touched } => {
                    self.primary_handle(PrimaryEvent::Encoded { epoch, digest, stored, touched });
                }
            }
        }
    }

    /// Queues a report to the daemon's loop, behind earlier ones.
    pub(crate) fn primary_tell(&mut self, report: PrimaryReport) {
        let wait = match report {
            // Verifying and resuming, behind the instant of the cut.
            PrimaryReport::Cut(CutResult::Taken { .. }, _) => {
                self.random.around(self.scenario.lane_delay[LaneId::Cut as usize])
            }
            _ => self.random.around(20),
        };
        let (now, run) = (self.now, self.primary.run);
        if let Some(daemon) = &mut self.primary.daemon {
            daemon.report_at = daemon.report_at.max(now + wait);
            let at = daemon.report_at;
            self.schedule(at, Event::PrimaryReport(run, report));
        }
    }

    pub(crate) fn primary_report(&mut self, run: u32, report: PrimaryReport) {
        if run != self.primary.run {
            return;
        }
        let Some(daemon) = &mut self.primary.daemon else { return };
        let event = match report {
            PrimaryReport::Event(event) => event,
            PrimaryReport::Cut(result, cargo) => {
                if matches!(result, CutResult::Taken { .. } | CutResult::Idle) {
                    // An epoch that has nothing need not end.
                    daemon.last_cut = self.now;
                }
                match cargo {
                    Cargo::Nothing => {}
                    Cargo::Scope(scope) => (daemon.scope, daemon.still) = (scope, None),
                    Cargo::Still(scope, content) => (daemon.scope, daemon.still) = (scope, Some(content)),
                    Cargo::Captured(captured) => {
                        daemon.captured = Some(captured);
                        daemon.taken_at = self.now;
                    }
                }
                PrimaryEvent::Cut(result)
            }
            PrimaryReport::Read(piece) => return self.piece_read(piece),
        };
        self.primary_handle(event);
        if let Some(daemon) = &mut self.primary.daemon {
            daemon.captured = None;
        }
    }

    pub(crate) fn primary_lane(&mut self, lane: LaneId, run: u32) {
        if run != self.primary.run {
            return;
        }
        match lane {
            LaneId::Cut => self.cut_done(),
            LaneId::Read => self.read_done(),
            LaneId::State => self.state_done(),
            _ => self.encode_done(),
        }
    }
}

impl World {
    /// Whether the daemon has latched a failure.
    pub(crate) fn primary_failed(&self) -> bool {
        let failed = |daemon: &PrimaryDaemon| matches!(daemon.core.replication(), Replication::Failed { .. });
        self.primary.daemon.as_deref().is_some_and(failed)
    }
}

impl PrimaryDaemon {
    fn next_chain(&mut self) {
        self.chain += 1;
        (self.copied, self.skipped) = (0, 0);
    }
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
