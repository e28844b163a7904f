//! The backup's driver: carries out what [`ftship_proto::backup::Backup`] decides.
//!
//! Always holds: every action goes to its lane in the order in which it was decided; frames are read
//! from the connection only while the state machine wants them and the lanes keep up, so memory is
//! bounded by [`BACKLOG_LIMIT`] and one frame.

mod hash;
mod identity;
mod lanes;
mod redo;
mod snapshot;
mod volume_device;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use ftdm::fault;
use ftship_proto::backup::{
    Backup, BackupAction, BackupConfig, BackupEvent, Phase, PromoteRefused, Recovered,
};
use ftship_proto::frame::Frame;
use ftship_proto::group::LocalVolume;
use ftship_proto::ids::{Epoch, Incarnation};
use ftship_proto::message::Message;
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
use crate::store::journal_device::JournalDevice;
use crate::store::state_file::StateFile;
use identity::{check_identities, identities};
use lanes::{JournalJob, Lane, LaneReport, VolumeJob, journal_lane, volume_lane};
use redo::{Redo, Unproven};
use snapshot::Snapshots;
use volume_device::{DiscardCounts, Volumes};

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
    journal: Lane<JournalJob>,
    volume: Option<Lane<VolumeJob>>,
    discards: Arc<DiscardCounts>,
    reports: Receiver<LaneReport>,
    waiting: Vec<ClientId>,
    answers: Vec<(ClientId, Response)>,
    shown: (&'static str, Option<String>),
    /// Not everything that has arrived was read: others have their turn first.
    has_more: bool,
    snapshots: Snapshots,
    volumes: Vec<VolumeFigures>,
    /// Why nothing tells what changes on the volumes: coming back to the other side will cost a whole copy.
    untracked: Option<String>,
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
        let mut journal = JournalDevice::open(&config.journal.device)?;
        let recovery = journal.recover(&config.group, state.last_incarnation)?;
        log::info!("journal {}: {}", config.journal.device.display(), recovery.summary);
        let redo = Redo::of(&journal)?;
        let is_promoted = state.role == Role::Primary;
        let mut local = Vec::new();
        let mut devices = Vec::new();
        let mut discards = Arc::default();
        let mut untracked = None;
        let mut eras = None;
        let mut volume = None;
        if !is_promoted {
            let volumes = Volumes::open(&config.volume)?;
            untracked = volumes.untracked();
            eras = volumes.eras();
            if let Some(group) = &state.group {
                volumes.check(group)?;
            }
            devices = identities(&config.volume);
            check_identities(&config.volume, &state.devices, &devices)?;
            local = volumes.local();
            discards = volumes.discards();
            volume = Some(volume_lane(volumes, redo, reports.clone())?);
        }
        if let Some(reason) = &untracked {
            log::warn!(
                "what changes on the volumes is not tracked: {reason}; after a promote the other side needs a whole copy"
            );
        }
        let shown_volumes = volume_figures(config, &local);
        let core_config = BackupConfig {
            group: config.group.clone(),
            volumes: local,
            devices,
            timeout: config.limits.timeout,
            apply_delay: config.journal.apply_delay,
            commit: config.commit.into(),
            ack: config.ack.into(),
            eras,
        };
        let recovered = Recovered {
            state,
            journal: recovery.writer,
            sealed: recovery.sealed,
            applied: recovery.applied,
            applied_digest: recovery.applied_digest,
            lost: recovery.lost,
        };
        let registry = reactor.registry()?;
        Ok(Self {
            config: config.clone(),
            core: Backup::new(core_config, recovered),
            door: Door::open(config, reactor.registry()?)?,
            registry,
            peer: None,
            journal: journal_lane(journal, state_file, reports)?,
            volume,
            discards,
            reports: received,
            waiting: Vec::new(),
            answers: Vec::new(),
            shown: ("", None),
            has_more: false,
            snapshots: Snapshots::new(config),
            volumes: shown_volumes,
            untracked,
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
            if self.backlog() >= BACKLOG_LIMIT {
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

    fn backlog(&self) -> usize {
        self.journal.backlog() + self.volume.as_ref().map_or(0, Lane::backlog)
    }

    fn hang_up(&mut self) {
        if let Some(peer) = self.peer.take() {
            peer.close(&self.registry);
        }
    }

    fn act(&mut self, now: Duration) {
        while let Some(action) = self.core.poll_action() {
            match action {
                BackupAction::Send(message) => self.send(&message),
                BackupAction::Close { reason } => {
                    log::info!("connection closed: {reason}");
                    self.hang_up();
                }
                BackupAction::Append { placement, frame } => {
                    let weight = frame.payload.len();
                    self.journal.push(weight, JournalJob::Append(placement, frame));
                }
                BackupAction::SyncJournal { ticket } => self.journal.push(0, JournalJob::Sync(ticket)),
                BackupAction::WriteSuperblock(new) => self.journal.push(0, JournalJob::Superblock(new)),
                BackupAction::WriteState(state) => self.journal.push(0, JournalJob::State(state)),
                BackupAction::WriteBase { frame, group } => {
                    self.volume_job(now, frame.payload.len(), VolumeJob::Base(frame, group));
                }
                BackupAction::FlushVolumes => self.volume_job(now, 0, VolumeJob::Flush),
                BackupAction::Prove { places } => self.volume_job(now, 0, VolumeJob::Prove(places)),
                BackupAction::Apply { epochs, group } => {
                    self.volume_job(now, 0, VolumeJob::Apply(epochs, group));
                }
                BackupAction::HashVolumes(request) => self.volume_job(now, 0, VolumeJob::Hash(request)),
                BackupAction::SendFrame(frame) => self.send_frame(&frame),
                BackupAction::ReadOwn { since } => self.volume_job(now, 0, VolumeJob::ReadOwn(since)),
                BackupAction::RollEra => self.volume_job(now, 0, VolumeJob::Roll),
                BackupAction::Snapshot { id, epoch, .. } => self.take_snapshot(now, id, epoch),
                BackupAction::SnapshotRefused { id, reason } => self.snapshot_refused(id, reason),
                BackupAction::ReleaseVolumes => {
                    let group = self.core.state().group.clone().map(Box::new);
                    self.volume_job(now, 0, VolumeJob::Release(group));
                }
                BackupAction::ReportLoss { text } => log::error!("{text}"),
                BackupAction::PromoteDone(result) => self.promote_done(&result),
            }
        }
    }

    fn volume_job(&mut self, now: Duration, weight: usize, job: VolumeJob) {
        match &self.volume {
            Some(lane) => lane.push(weight, job),
            None => {
                let reason = "the volumes are closed".into();
                self.core.handle(now, BackupEvent::Failed { reason });
            }
        }
    }

    fn send(&mut self, message: &Message) {
        let generation = self.core.state().generation_number();
        let incarnation = self.core.peer_incarnation().unwrap_or(Incarnation([0; 16]));
        self.send_frame(&message.encode(generation, incarnation));
    }

    fn send_frame(&mut self, frame: &Frame) {
        let Some(peer) = &mut self.peer else { return };
        let mut bytes = Vec::new();
        frame.encode_into(&mut bytes);
        peer.queue(bytes);
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
            volumes: with_device_sizes(&self.volumes),
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
            Phase::Failed(reason) => ("failed", Some(reason.clone())),
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
            Request::Switch { .. } => self.answers.push((client, refuse("switch"))),
            Request::Demote | Request::DiscardMine => self.answers.push((client, refuse("stepping down"))),
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
            let event = match report {
                LaneReport::Snapshot { id, result } => {
                    self.snapshot_taken(now, id, result);
                    continue;
                }
                LaneReport::JournalSynced { ticket } => BackupEvent::JournalSynced { ticket },
                LaneReport::SuperblockWritten => BackupEvent::SuperblockWritten,
                LaneReport::StateWritten => BackupEvent::StateWritten,
                LaneReport::VolumesFlushed => BackupEvent::VolumesFlushed,
                LaneReport::Proven => BackupEvent::Proven,
                LaneReport::Unproven(Unproven { epoch, half, reason }) => {
                    BackupEvent::Unproven { epoch, half, reason }
                }
                LaneReport::Applied => BackupEvent::Applied,
                LaneReport::Hashed { token, result } => BackupEvent::VolumesHashed { token, result },
                LaneReport::OwnRead { result } => BackupEvent::OwnRead { result },
                LaneReport::Rolled { eras } => BackupEvent::EraRolled { eras },
                LaneReport::VolumesReleased => BackupEvent::VolumesReleased,
                LaneReport::Failed { reason } => {
                    log::error!("{reason}");
                    BackupEvent::Failed { reason }
                }
            };
            let is_superblock = matches!(event, BackupEvent::SuperblockWritten);
            self.core.handle(now, event);
            if is_superblock {
                fault::at("space-freed");
            }
            self.act(now);
        }
        self.admit(now);
        self.point_when_due(now);
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
        *self.core.phase() == Phase::Promoted && self.volume.is_some() && self.untracked.is_none()
    }

    fn answers(&mut self) -> Vec<(ClientId, Response)> {
        std::mem::take(&mut self.answers)
    }

    fn stop(mut self: Box<Self>) {
        self.send(&Message::Bye { text: "the backup's daemon stops".into() });
        self.hang_up();
        // Lanes finish what they were given when they are dropped.
    }
}

/// The volumes as the status shows them. A promoted backup has none of them open, and tells no sizes.
fn volume_figures(config: &Config, local: &[LocalVolume]) -> Vec<VolumeFigures> {
    let figures = |(at, volume): (usize, &crate::config::Volume)| VolumeFigures {
        name: volume.name.to_string(),
        device: volume.device.display().to_string(),
        size: local.get(at).map_or(0, |local| local.size.bytes().unwrap_or(u64::MAX)),
        ..VolumeFigures::default()
    };
    config.volume.iter().enumerate().map(figures).collect()
}
