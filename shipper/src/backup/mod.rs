//! The backup's driver: carries out what [`ftship_proto::backup::Backup`] decides.
//!
//! Always holds: every action goes to its lane in the order in which it was decided; frames are read
//! from the connection only while the state machine wants them and the lanes keep up, so memory is
//! bounded by [`BACKLOG_LIMIT`] and one frame.

mod hash;
mod identity;
mod lanes;
pub mod last_resort;
mod opened;
mod redo;
mod room;
mod snapshot;
mod volume_device;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use ftdm::fault;
use ftdm_units::Sectors;
use ftship_proto::backup::{Backup, BackupAction, BackupEvent, GiveUpRefused, Phase, PromoteRefused};
use ftship_proto::frame::Frame;
use ftship_proto::group::GroupDescription;
use ftship_proto::ids::{Epoch, Incarnation};
use ftship_proto::message::{ByeCause, Message};
use ftship_proto::state::{DurableState, Role};
use mio::Registry;
use mio::event::Event;

use crate::config::Config;
use crate::control::server::ClientId;
use crate::control::{BackupFigures, Epochs, Request, Response, Status, VolumeFigures};
use crate::link::door::Door;
use crate::link::peer::PeerConnection;
use crate::provision::stacks::with_device_sizes;
use crate::runtime::reactor::{Driver, Reactor, Reports, summary};
use crate::runtime::tokens::PEER;
use crate::store::state_file::StateFile;
use lanes::{LaneReport, Lanes, Taken};
use opened::{Opened, open_journal};
use room::Room;
use snapshot::Snapshots;
use volume_device::DiscardCounts;

/// Bytes that may wait for the disks.
const BACKLOG_LIMIT: usize = 32 << 20;

/// Frames read before reports are sent and timers looked at.
const FRAMES_AT_ONCE: usize = 16;

/// The driver of a backup, and of a backup that was promoted.
#[derive(Debug)]
pub struct BackupDriver {
    config: Config,
    core: Backup,
    registry: Registry,
    door: Door,
    peer: Option<PeerConnection>,
    lanes: Lanes,
    discards: Arc<DiscardCounts>,
    reports: Receiver<LaneReport>,
    waiting: Vec<ClientId>,
    /// Who wants what this side holds to be given up.
    giving_up: Vec<ClientId>,
    answers: Vec<(ClientId, Response)>,
    shown: (&'static str, Option<String>),
    /// Not everything that has arrived was read: others have their turn first.
    has_more: bool,
    snapshots: Snapshots,
    room: Room,
    volumes: Vec<VolumeFigures>,
    /// Why nothing tells what changes on the volumes: coming back to the other side will cost a whole copy.
    untracked: Option<String>,
    /// What is wrong with a device, and has cost nothing yet.
    damage: Vec<String>,
}

impl BackupDriver {
    /// Opens the journal and the volumes, recovers, and listens.
    ///
    /// # Errors
    /// When a device cannot be used, or the address is taken.
    pub fn new(
        config: &Config,
        state: DurableState,
        state_file: StateFile,
        reactor: &Reactor,
    ) -> anyhow::Result<Self> {
        let (reports, received) = Reports::channel(reactor.waker());
        let mut damage: Vec<String> = state_file.damage().map(str::to_owned).into_iter().collect();
        let journal = match open_journal(config, &state) {
            Ok(journal) => Some(journal),
            // What was promoted needs none, until it is a backup again.
            Err(fault) if state.role == Role::Primary => {
                damage.push(format!(
                    "{fault}. Before this host is a backup again, give it a journal: `ftship format`"
                ));
                None
            }
            Err(fault) => anyhow::bail!("{fault}. {}", without_journal(config)),
        };
        let mut opened = Opened::new(config, state, journal)?;
        for what in &opened.damage {
            log::error!("{what}");
        }
        damage.append(&mut opened.damage);
        let (volumes, discards) = (volume_figures(config, &opened.shown), Arc::clone(&opened.discards));
        let untracked = opened.untracked.take();
        let (core, lanes) = opened.start(state_file, reports)?;
        Ok(Self {
            config: config.clone(),
            core,
            door: Door::open(config, reactor.registry()?)?,
            registry: reactor.registry()?,
            peer: None,
            lanes,
            discards,
            reports: received,
            waiting: Vec::new(),
            giving_up: Vec::new(),
            answers: Vec::new(),
            shown: ("", None),
            has_more: false,
            snapshots: Snapshots::new(config),
            room: Room::new(config),
            volumes,
            untracked,
            damage,
        })
    }

    /// Takes in who has come through the door.
    fn admit(&mut self, now: Duration) {
        while let Some(peer) = self.door.admitted(now, PEER) {
            if !self.core.admits() {
                log::warn!("{}: turned away, a primary is connected", peer.peer());
                peer.close(&self.registry);
                continue;
            }
            if let Some(old) = self.peer.replace(peer) {
                old.close(&self.registry);
            }
            self.core.handle(now, BackupEvent::Accepted);
        }
    }

    /// Reads some frames while they are wanted and the disks keep up.
    fn receive(&mut self, now: Duration) {
        self.has_more = false;
        for number in 0.. {
            if self.lanes.backlog() >= BACKLOG_LIMIT {
                return self.core.handle(now, BackupEvent::Behind);
            }
            if !self.core.wants_frames() {
                return;
            }
            if number == FRAMES_AT_ONCE {
                self.has_more = true;
                return;
            }
            let Some(peer) = &mut self.peer else { return };
            match peer.next_frame() {
                Ok(None) => return,
                Ok(Some(frame)) => self.core.handle(now, BackupEvent::Frame(frame)),
                Err(error) => {
                    log::warn!("{}: {error}", peer.peer());
                    self.hang_up();
                    self.core.handle(now, BackupEvent::Disconnected);
                }
            }
            self.act(now);
        }
    }

    fn hang_up(&mut self) {
        if let Some(peer) = self.peer.take() {
            peer.close(&self.registry);
        }
    }

    fn act(&mut self, now: Duration) {
        while let Some(action) = self.core.poll_action() {
            let other = match self.lanes.take(self.core.state(), action) {
                Taken::Queued => continue,
                Taken::VolumesClosed => {
                    self.volumes_closed(now);
                    continue;
                }
                Taken::Other(other) => other,
            };
            match other {
                BackupAction::Send(message) => self.send(&message),
                BackupAction::Close { reason } => {
                    log::info!("connection closed: {reason}");
                    self.hang_up();
                }
                BackupAction::SendFrame(frame) => self.send_frame(frame),
                BackupAction::Snapshot { id, epoch, .. } => self.take_snapshot(now, id, epoch),
                BackupAction::SnapshotRefused { id, reason } => self.snapshot_refused(id, reason),
                BackupAction::ReportLoss { text } => log::error!("{text}"),
                BackupAction::PromoteDone(result) => self.promote_done(&result),
                BackupAction::GivenUp(result) => self.given_up(&result),
                disk => unreachable!("{disk:?} is disk work"),
            }
        }
    }

    fn volumes_closed(&mut self, now: Duration) {
        self.core.handle(now, BackupEvent::Failed { reason: "the volumes are closed".into() });
    }

    fn send(&mut self, message: &Message) {
        let generation = self.core.state().generation_number();
        let incarnation = self.core.peer_incarnation().unwrap_or(Incarnation([0; 16]));
        self.send_frame(message.encode(generation, incarnation));
    }

    fn send_frame(&mut self, frame: Frame) {
        if let Some(peer) = &mut self.peer {
            peer.queue(frame);
        }
    }

    fn promote_done(&mut self, result: &Result<Epoch, PromoteRefused>) {
        let answer = match result {
            Ok(epoch) => {
                log::info!("promoted at epoch {epoch}");
                Response::Promoted { epoch: epoch.0 }
            }
            Err(PromoteRefused::Stale(stale)) => Response::Stale { reason: stale.to_string() },
            Err(refused) => Response::Refused { reason: refused.to_string() },
        };
        let waiting = std::mem::take(&mut self.waiting);
        self.answers.extend(waiting.into_iter().map(|client| (client, answer.clone())));
    }

    fn given_up(&mut self, result: &Result<(), GiveUpRefused>) {
        let answer = match result {
            Ok(()) => {
                log::info!("what this backup holds is given up");
                Response::Started
            }
            Err(refused @ GiveUpRefused::NoSplit) => Response::Refused { reason: refused.to_string() },
            Err(failed @ GiveUpRefused::Failed(_)) => Response::Failed { reason: failed.to_string() },
        };
        let waiting = std::mem::take(&mut self.giving_up);
        self.answers.extend(waiting.into_iter().map(|client| (client, answer.clone())));
    }

    fn promote(
        &mut self,
        now: Duration,
        client: ClientId,
        epoch: Option<u64>,
        force: bool,
        token: Option<u64>,
    ) {
        fault::at("promote-begun");
        let mut id = [0; 16];
        if let Err(error) = getrandom::fill(&mut id) {
            let reason = format!("no random generation id: {error}");
            return self.answers.push((client, Response::Failed { reason }));
        }
        self.waiting.push(client);
        self.core.handle(now, BackupEvent::Promote { id, epoch: epoch.map(Epoch), force, token });
    }

    fn status(&self) -> Status {
        let core = &self.core;
        let (journal_used, journal_size) = core.journal_use();
        let counters = core.counters();
        let (state, reason) = self.describe();
        Status {
            group: self.config.group.to_string(),
            role: core.state().role.to_string(),
            state: state.into(),
            reason,
            connected: core.is_connected(),
            peer: self.config.peer.to_string(),
            link_error: None,
            peer_key: self.peer.as_ref().and_then(PeerConnection::peer_key).map(|key| key.to_string()),
            generation: core.state().generation_number(),
            commit: self.config.commit,
            ack: Some(self.config.ack),
            epochs: Epochs {
                cut: 0,
                staged: core.staged().0,
                committed: core.committed().0,
                applied: core.applied().0,
                in_flight: 0,
                committed_count: counters.epochs_committed,
            },
            volumes: with_device_sizes(&self.sized()),
            warnings: self.damage.iter().chain(self.snapshots.kept()).cloned().collect(),
            verify: None,
            peer_standing: None,
            alone_since: None,
            primary: None,
            backup: Some(BackupFigures {
                journal_used,
                journal_size,
                epoch_bytes: counters.epoch_bytes,
                base_bytes: counters.base_bytes,
                discarded: self.discards.bytes.load(Ordering::Relaxed),
                discard_errors: self.discards.errors.load(Ordering::Relaxed),
            }),
        }
    }

    /// The volumes, in the sizes that the pair agreed on.
    fn sized(&self) -> Vec<VolumeFigures> {
        let mut volumes = self.volumes.clone();
        let agreed = self.core.state().group.as_ref().map(GroupDescription::sizes).unwrap_or_default();
        for (volume, agreed) in volumes.iter_mut().filter(|volume| volume.size > 0).zip(agreed) {
            volume.size = agreed.bytes().unwrap_or(volume.size);
        }
        volumes
    }

    fn describe(&self) -> (&'static str, Option<String>) {
        match self.core.phase() {
            Phase::Blank => ("inconsistent", Some("blank: no sync has reached this backup yet".into())),
            Phase::Outdated => (
                "outdated",
                Some("the other side was promoted: waiting for it to resynchronise this one".into()),
            ),
            Phase::Inconsistent => {
                let text = "a mixture: a sync in place did not end, or the journal lost what was being applied; the \
                            primary syncs it again";
                ("inconsistent", Some(text.into()))
            }
            Phase::Copying(_) => ("syncing", Some("a sync in place is under way; not promotable yet".into())),
            Phase::Consistent => self.describe_consistent(),
            Phase::Promoting(_) => ("degraded", Some("being promoted".into())),
            Phase::Promoted => {
                let text = format!("promoted at epoch {}; nothing is replicated", self.core.promoted_at());
                ("degraded", Some(text))
            }
            Phase::Failed(reason) => {
                ("failed", Some(format!("{reason}; fix the cause: it is tried again by itself")))
            }
        }
    }

    fn describe_consistent(&self) -> (&'static str, Option<String>) {
        let core = &self.core;
        let arrives = core.is_catching_up();
        if let Some((held, through)) = core.lost() {
            let text = format!(
                "the journal has lost epochs up to {through}, which were acknowledged; the volumes hold exactly epoch \
                 {held}: {}",
                if arrives {
                    "what is missing arrives"
                } else {
                    "waiting for the primary to send what is missing"
                }
            );
            return ("outdated", Some(text));
        }
        if arrives {
            let text = format!("what changed arrives; promotable to epoch {}", core.committed());
            return ("syncing", Some(text));
        }
        if core.is_replicating() {
            return ("in sync", None);
        }
        let connected = if core.is_connected() {
            "the primary is connected but sends no epochs"
        } else {
            "no primary is connected"
        };
        ("degraded", Some(format!("{connected}; promotable")))
    }

    /// Logs a change of state once.
    fn show_change(&mut self) {
        let now = self.describe();
        if self.shown != now {
            let (state, reason) = &now;
            log::info!(
                "state: {state}{}",
                reason.as_ref().map(|text| format!(": {text}")).unwrap_or_default()
            );
            self.shown = now;
        }
    }
}

impl Driver for BackupDriver {
    fn summary(&self, _now: Duration) -> String {
        summary("backup", self.describe())
    }

    fn reload(&mut self, now: Duration, config: &Config) {
        self.config = config.clone();
        self.core.tune(config.limits.timeout, config.journal.apply_delay);
        self.snapshots.tune(now, config);
    }

    fn timeout(&self) -> Option<Duration> {
        let more = self.has_more.then_some(Duration::ZERO);
        let dues = [more, self.core.poll_timeout(), self.snapshots.due(), self.door.timeout()];
        dues.into_iter().flatten().min()
    }

    fn socket_event(&mut self, now: Duration, event: &Event) {
        match (event.token(), &mut self.peer) {
            (PEER, Some(peer)) => peer.mark_readable(),
            (PEER, None) => {}
            (token, _) => self.door.event(now, token),
        }
    }

    fn request(&mut self, now: Duration, client: ClientId, request: Request) {
        let refuse = |what: &str| {
            let reason = format!("{what} is for the primary; this host is the backup");
            Response::Refused { reason }
        };
        match request {
            Request::Status => self.answers.push((client, Response::Status(Box::new(self.status())))),
            Request::Promote { epoch, force, token } => self.promote(now, client, epoch, force, token),
            Request::Resize => self.answers.push((client, refuse("resize"))),
            Request::Switch { .. } => self.answers.push((client, refuse("switch"))),
            Request::Demote => self.answers.push((client, refuse("stepping down"))),
            Request::DiscardMine => {
                self.giving_up.push(client);
                self.core.handle(now, BackupEvent::GiveUp);
            }
            Request::TestCopy { name, size } => self.test_copy(now, client, name, size),
            Request::Commit { .. } => self.answers.push((client, refuse("commit"))),
            Request::Checkpoint { .. } => self.answers.push((client, refuse("checkpoint"))),
            Request::FullSync => self.answers.push((client, refuse("full-sync"))),
            Request::Reload => self.answers.push((client, refuse("this way of reloading"))),
            Request::Verify { .. } => self.answers.push((client, refuse("verify"))),
        }
    }

    fn run(&mut self, now: Duration) {
        while let Ok(report) = self.reports.try_recv() {
            if let LaneReport::Snapshot { id, result, kept } = report {
                self.snapshot_taken(now, id, result, kept);
                continue;
            }
            if let LaneReport::Failed { reason } = &report {
                log::error!("{reason}");
            }
            let Some(event) = report.into_event() else { continue };
            let is_superblock = matches!(event, BackupEvent::SuperblockWritten);
            self.core.handle(now, event);
            if is_superblock {
                fault::at("space-freed");
            }
            self.act(now);
        }
        self.admit(now);
        self.point_when_due(now);
        self.look_for_room(now);
        // What has arrived is heard before anybody is called silent.
        self.receive(now);
        self.core.handle_timeout(now);
        self.act(now);
        if let Some(peer) = &mut self.peer
            && let Err(error) = peer.flush()
        {
            log::warn!("{}: {error}", peer.peer());
            self.hang_up();
            self.core.handle(now, BackupEvent::Disconnected);
            self.act(now);
        }
        self.show_change();
    }

    fn is_over(&self) -> bool {
        *self.core.phase() == Phase::Promoted && self.lanes.volume.is_some() && self.untracked.is_none()
    }

    fn has_failed(&self) -> bool {
        matches!(self.core.phase(), Phase::Failed(_))
    }

    fn answers(&mut self) -> Vec<(ClientId, Response)> {
        std::mem::take(&mut self.answers)
    }

    fn stop(mut self: Box<Self>) {
        self.send(&Message::Bye { text: "the backup's daemon stops".into(), cause: ByeCause::Other });
        self.hang_up();
        // Lanes finish what they were given when they are dropped.
    }
}

/// What is left where the journal cannot be used.
fn without_journal(config: &Config) -> String {
    format!(
        "While the primary lives, `ftship format --force` and a full sync replace it. If the primary is gone, `ftship \
         promote {} --accept-loss` makes the volumes usable without it",
        config.group
    )
}

/// The volumes as the status shows them. A promoted backup has none of them open, and tells no sizes.
fn volume_figures(config: &Config, shown: &[Sectors]) -> Vec<VolumeFigures> {
    let figures = |(at, volume): (usize, &crate::config::Volume)| VolumeFigures {
        name: volume.name.to_string(),
        device: volume.device.display().to_string(),
        size: shown.get(at).map_or(0, |shown| shown.bytes().unwrap_or(u64::MAX)),
        ..VolumeFigures::default()
    };
    config.volume.iter().enumerate().map(figures).collect()
}
