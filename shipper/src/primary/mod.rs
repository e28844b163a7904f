//! The primary's driver: carries out what [`ftship_proto::primary::Primary`] decides.
//!
//! Always holds: what belongs to a chain of epochs that was given up never reaches a later connection;
//! memory is bounded by the window, the base copy's pieces and the connection's output.

mod capture;
mod clients;
mod connection;
mod copying;
mod encode;
mod inspecting;
mod pace;
mod reports;
mod resizing;
mod roles;
mod settings;
mod shown;
mod state_lane;
mod status;
mod usage;
mod verify;
mod volumes;

use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::Context;
use ftdm::ioctl::{Urgency, enter_io_path, set_urgency};
use ftdm::log_writes::epoch_log::EpochLog;
use ftship_proto::frame::Stamp;
use ftship_proto::group::GroupDescription;
use ftship_proto::ids::{Epoch, Incarnation};
use ftship_proto::message::{ByeCause, Message};
use ftship_proto::primary::{AfterEpoch, CutOrder, Primary, PrimaryAction, PrimaryEvent, Replication, Until};
use ftship_proto::scope::{bytes_of, union};
use ftship_proto::state::DurableState;
use mio::Registry;
use mio::event::Event;

use crate::config::{CaptureBy, Config, Mode};
use crate::control::server::ClientId;
use crate::control::{Request, Response};
use crate::link::door::Door;
use crate::link::peer::PeerConnection;
use crate::link::visitor::Visitor;
use crate::runtime::metrics::Latencies;
use crate::runtime::reactor::{Driver, Reactor, Reports, summary};
use crate::runtime::tokens::{PEER, VISITOR};
use crate::standby::hooks::{HookReport, Hooks};
use crate::store::state_file::StateFile;
use capture::CutThread;
use capture::heartbeat::Heartbeat;
use capture::jobs::CutJob;
use clients::Clients;
use copying::Copying;
use encode::{EncodeJob, Encoder};
use shown::Shown;
use state_lane::StateLane;
use status::{commit_answer, promoted_already};
use usage::Onlooker;
use verify::VerifyLane;
use volumes::Volumes;

/// So many bytes that the connection took are progress; less may be greetings in a buffer on this side.
const PROGRESS_BYTES: u64 = 64 << 10;

/// The driver of a primary.
#[derive(Debug)]
pub struct PrimaryDriver {
    config: Config,
    core: Primary,
    stamp: Stamp,
    registry: Registry,
    peer: Option<PeerConnection>,
    door: Door,
    visitor: Visitor,
    cut_thread: CutThread,
    encoder: Encoder,
    copying: Copying,
    /// Numbers the chains of epochs.
    chain: u64,
    verifies: VerifyLane,
    /// What the last cut captured, until the core says that it is to be shipped.
    captured: Option<Vec<EpochLog>>,
    clients: Clients,
    /// While writes are held back: how far the backup was when the lease was renewed last.
    progress: Option<(Epoch, usize, u64)>,
    shown: Shown,
    usage: Onlooker,
    /// When to look again who uses the volumes.
    look_at: Duration,
    is_over: bool,
    state: StateLane,
    hooks: Hooks,
    hook_reports: Receiver<HookReport>,
    /// What is wrong with the device of the state, and has cost nothing yet.
    damage: Option<String>,
}

impl PrimaryDriver {
    /// Opens the stacks and the logs and starts the threads.
    ///
    /// # Errors
    /// When a stack does not exist or a device cannot be used.
    pub fn new(
        config: &Config,
        state: DurableState,
        state_file: StateFile,
        reactor: &Reactor,
    ) -> anyhow::Result<Self> {
        let volumes = Volumes::open(config, state.group.as_ref())?;
        enter_io_path().context("locking memory")?;
        let readers = volumes.open_eras()?;
        let described = GroupDescription::new(config.group.clone(), volumes.describe(&readers))?;
        let group = volumes::known_as(described, state.group.as_ref())?;
        let mut incarnation = [0; 16];
        getrandom::fill(&mut incarnation)
            .map_err(|error| anyhow::anyhow!("no random incarnation: {error}"))?;
        let newest =
            state.lineage.last().context("the state names no generation: format it again")?.generation;
        let stamp =
            Stamp { epoch: Epoch(0), generation: newest.number, incarnation: Incarnation(incarnation) };
        let header = settings::header(group.clone(), newest, stamp.incarnation);
        let core = Primary::new(settings::core(config, group, stamp.incarnation, volumes.eras()), state);
        let touched = volumes.touched(&readers);
        let shown = Shown::new(config, &volumes, &readers);
        let usage = Onlooker::new(&volumes.stacks);
        let waker = reactor.waker();
        let verifies = VerifyLane::start(volumes.open_eras()?, &config.verify, waker)?;
        let (hooked, hook_reports) = Reports::channel(waker);
        let (encoder_wakes, _) = Reports::channel(waker);
        let heartbeat = Heartbeat::new(config);
        Ok(Self {
            config: config.clone(),
            core,
            stamp,
            registry: reactor.registry()?,
            peer: None,
            door: Door::open(config, reactor.registry()?)?,
            visitor: Visitor::new(reactor.registry()?),
            cut_thread: CutThread::start(volumes.stacks, settings::capture(config), heartbeat, waker)?,
            encoder: Encoder::start(stamp, header, touched, encoder_wakes)?,
            copying: Copying::start(readers, waker)?,
            chain: 0,
            verifies,
            captured: None,
            clients: Clients::default(),
            progress: None,
            shown,
            usage,
            look_at: Duration::ZERO,
            is_over: false,
            damage: state_file.damage().map(str::to_owned),
            state: StateLane::start(state_file, waker)?,
            hooks: Hooks::start(config, hooked)?,
            hook_reports,
        })
    }

    fn act(&mut self, now: Duration) {
        while let Some(action) = self.core.poll_action() {
            match action {
                PrimaryAction::WriteState(state) => self.state.push(state),
                PrimaryAction::Answer(message) => {
                    let frame = self.encoded(&message);
                    self.visitor.answer(frame);
                }
                PrimaryAction::RoleEnded => {
                    log::info!("this host is the {} from now on", self.core.state().role);
                    self.is_over = true;
                }
                PrimaryAction::DemoteDone { id, result } => {
                    let answer = self.demoted(result);
                    self.clients.answer(id, answer);
                }
                PrimaryAction::Connect => self.connect(now),
                PrimaryAction::Send(message) => self.send(&message),
                PrimaryAction::SendInOrder(message) => self.encoder.push(EncodeJob::Message(message)),
                PrimaryAction::Close { reason } => self.close(&reason),
                PrimaryAction::OpenChain { previous } => {
                    self.next_chain();
                    self.encoder.push(EncodeJob::Open { chain: self.chain, previous });
                }
                PrimaryAction::OpenCatchUp { first, epoch, staged } => {
                    self.encoder.push(EncodeJob::CatchUp { first, epoch, staged });
                }
                PrimaryAction::Cut(order) => self.order(order),
                PrimaryAction::Freeze { token, epoch } => self.hooks.freeze(token, epoch),
                PrimaryAction::Thaw => self.hooks.thaw(),
                PrimaryAction::ShipPart => self.ship_part(),
                PrimaryAction::Ship { epoch, after } => self.ship(epoch, after),
                PrimaryAction::Widen(scope) => {
                    self.copying.scope = union(std::mem::take(&mut self.copying.scope), scope);
                    let bytes = bytes_of(&self.copying.scope);
                    self.core.handle(now, PrimaryEvent::Widened { bytes });
                }
                PrimaryAction::Copy { unit } => self.copy(now, unit),
                PrimaryAction::Told { number, told } => self.piece_told(number, told),
                PrimaryAction::StopCopy => self.stop_copy(),
                PrimaryAction::CheckpointReached { id, epoch, .. } => {
                    self.clients.answer(id, Response::Checkpoint { epoch: epoch.0 });
                }
                PrimaryAction::CheckpointFailed { id, reason } => self.clients.fail_checkpoint(id, reason),
                PrimaryAction::CommitDone { id, result } => self.clients.answer(id, commit_answer(result)),
                PrimaryAction::ResizeDone { id, result } => {
                    let answer = self.resized(result);
                    self.clients.answer(id, answer);
                }
                PrimaryAction::FullSyncBegun { id, result } => {
                    let answer = match result {
                        Ok(()) => Response::Started,
                        Err(reason) => Response::Refused { reason },
                    };
                    self.clients.answer(id, answer);
                }
                PrimaryAction::Committed { lag, .. } => self.shown.lags.record(lag),
                PrimaryAction::Hash { .. }
                | PrimaryAction::Inspect { .. }
                | PrimaryAction::Conclude { .. }
                | PrimaryAction::EndInspection
                | PrimaryAction::VerifyDone { .. } => self.verify_act(now, action),
                PrimaryAction::StateChanged => self.state_changed(now),
            }
        }
    }

    /// A cut for clients that want no suspend must do without.
    fn order(&mut self, order: CutOrder) {
        self.cut_thread.push(match order {
            CutOrder::Cut(cut) if self.clients.begin_cut(cut.part) => CutJob::Quiesced(cut),
            order => CutJob::Ordered(order),
        });
    }

    fn state_changed(&mut self, now: Duration) {
        if *self.core.replication() == Replication::InSync {
            // The first commit point waited for the base copy: not a figure of epochs.
            self.shown.lags = Latencies::default();
            self.cut_thread.push(CutJob::Throttle);
        }
        let (state, reason) = self.describe(now);
        log::info!("state: {state}{}", reason.map(|text| format!(": {text}")).unwrap_or_default());
    }

    fn ship(&mut self, epoch: Epoch, after: AfterEpoch) {
        // What was read while the volumes stood still was copied before: nothing is left.
        let nothing = (self.config.capture == CaptureBy::Era).then(Vec::new);
        if let Some(logs) = self.captured.take().or(nothing) {
            let staged = self.core.known_durable();
            self.encoder.push(EncodeJob::Epoch { epoch, staged, logs, after });
        }
    }
}

impl Driver for PrimaryDriver {
    fn timeout(&self) -> Option<Duration> {
        let look = self.core.wants_usage().then_some(self.look_at);
        let more = self.peer.as_ref().is_some_and(PeerConnection::has_unflushed).then_some(Duration::ZERO);
        let dues = [
            more,
            self.core.poll_timeout(),
            self.door.timeout(),
            self.visitor.timeout(),
            self.verifies.due(),
            look,
        ];
        dues.into_iter().flatten().min()
    }

    fn socket_event(&mut self, now: Duration, event: &Event) {
        match event.token() {
            VISITOR => self.visitor.mark_readable(),
            PEER => {
                if let Some(peer) = &mut self.peer {
                    peer.mark_readable();
                }
            }
            token => self.door.event(now, token),
        }
    }

    fn request(&mut self, now: Duration, client: ClientId, request: Request) {
        let id = client.0 as u64;
        match request {
            Request::Status => {
                self.clients.answer_at_once(client, Response::Status(Box::new(self.status(now))));
            }
            Request::Checkpoint { quiesced: true, .. } if self.config.mode == Mode::Interval => {
                let reason = "with mode = \"interval\" every checkpoint suspends the volume".into();
                self.clients.answer_at_once(client, Response::Refused { reason });
            }
            Request::Checkpoint { wait, staged, quiesced } => {
                match quiesced {
                    true => self.clients.wait_quiesced(client),
                    false => self.clients.wait(client),
                }
                let until = match (wait, staged) {
                    (false, _) => Until::Cut,
                    (true, true) => Until::Staged,
                    (true, false) => Until::Committed,
                };
                // Whether the volumes are closed tells whether this is all that there is.
                self.core.handle(now, PrimaryEvent::Used(self.usage.look()));
                self.core.handle(now, PrimaryEvent::Checkpoint { id, until });
            }
            Request::FullSync => {
                self.clients.wait(client);
                self.core.handle(now, PrimaryEvent::FullSync { id });
            }
            Request::Commit { epoch } => {
                self.clients.wait(client);
                self.core.handle(now, PrimaryEvent::Commit { id, epoch: Epoch(epoch) });
            }
            Request::Verify { repair } => self.verify_wanted(now, client, repair),
            Request::Resize => self.resize(now, client),
            Request::Switch { stall } => self.switch(now, client, stall),
            Request::Demote => self.demote(now, client, false),
            Request::DiscardMine => self.demote(now, client, true),
            Request::Promote { force: true, token, .. } if self.core.fence().is_some() => {
                self.take_up(now, client, token);
            }
            Request::Promote { epoch, token, .. } if self.core.state().group.is_some() => {
                let answer = promoted_already(self.core.promoted_at(), epoch, self.core.state().token, token);
                self.clients.answer_at_once(client, answer);
            }
            Request::Reload => {
                let reason = "the daemon answers this in every role".into();
                self.clients.answer_at_once(client, Response::Refused { reason });
            }
            Request::Promote { .. } | Request::TestCopy { .. } => {
                let reason = "promote is for the backup; this host is the primary".into();
                self.clients.answer_at_once(client, Response::Refused { reason });
            }
        }
    }

    fn run(&mut self, now: Duration) {
        while let Ok(report) = self.cut_thread.reports.try_recv() {
            self.cut_report(now, report);
        }
        while let Ok(event) = self.state.reports.try_recv() {
            self.core.handle(now, event);
            self.act(now);
        }
        while let Ok(report) = self.hook_reports.try_recv() {
            self.hook_report(now, report);
        }
        while let Ok(read) = self.copying.pieces.try_recv() {
            self.piece_read(now, read);
        }
        while let Ok(read) = self.verifies.reads.try_recv() {
            self.verify_read(now, read);
        }
        self.verify_when_due(now);
        while let Some(visitor) = self.door.admitted(now, VISITOR) {
            self.visitor.enters(now, visitor);
        }
        self.found(now);
        while let Some(frame) = self.visitor.listen(now) {
            self.core.handle(now, PrimaryEvent::Visited(frame));
            self.act(now);
        }
        self.look(now);
        // What has arrived is heard before anybody is called silent.
        let heard = self.hear(now);
        self.broke(now, heard);
        self.judge_path(now);
        self.core.handle_timeout(now);
        self.act(now);
        let told = self.talk(now);
        self.broke(now, told);
        self.pump(now);
        self.renew();
    }

    fn is_over(&self) -> bool {
        self.is_over
    }

    fn summary(&self, now: Duration) -> String {
        summary("primary", self.describe(now))
    }

    fn reload(&mut self, now: Duration, config: &Config) {
        self.config = config.clone();
        self.core.tune(now, settings::tuning(config));
        self.shown.figures.epoch_ms = config.epoch.as_secs_f64() * 1000.0;
        self.verifies.tune(now, &config.verify);
    }

    fn has_failed(&self) -> bool {
        matches!(self.core.replication(), Replication::Failed { .. })
    }

    fn answers(&mut self) -> Vec<(ClientId, Response)> {
        self.clients.take_ready()
    }

    fn stop(mut self: Box<Self>) {
        self.core.handle(Duration::MAX, PrimaryEvent::Stopping(self.usage.look()));
        while let Some(action) = self.core.poll_action() {
            if let PrimaryAction::WriteState(state) = action {
                self.state.push(state);
            }
        }
        self.send(&Message::Bye { text: "the primary's daemon stops".into(), cause: ByeCause::Other });
        self.hang_up();
        // The cut thread ends the capture when it is dropped.
    }
}

/// Bulk work gives way to the VM, to the log's thread in the kernel and to cuts.
fn run_in_background(thread: &str) {
    if let Err(error) = set_urgency(Urgency::Background) {
        log::warn!("the {thread} thread competes with the VM: {error}");
    }
}
