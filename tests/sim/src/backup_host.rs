//! The backup's host: three disks, and the daemon that keeps them.
//!
//! Always holds: actions are carried out as the daemon's driver does it (`shipper/src/backup`): the journal
//! lane writes journal, superblock and state, the volume lane the volume; each in order, both at the same
//! time; after its first error a lane does nothing more.

use ftdm_units::{SECTOR_SIZE, Sectors};
use ftship_proto::backup::{Backup, BackupAction, BackupConfig, BackupEvent, Phase, Recovered, Sealed};
use ftship_proto::frame::FrameKind;
use ftship_proto::group::LocalVolume;
use ftship_proto::ids::{Digest, Epoch, Incarnation};
use ftship_proto::journal::{
    BLOCK_LEN, EndClass, JournalWriter, Proof, RING_START, Ring, Superblock, recover,
};
use ftship_proto::message::{Message, Welcome};
use ftship_proto::mutant::{self, Mutant};
use ftship_proto::slot::{FIRST_SEQUENCE, SLOT_SIZE, Slot, SlotKind};
use ftship_proto::state::DurableState;
use ftship_proto::verify::DigestLength;

use crate::disk::{Disk, Disks, ImageReader};
use crate::eras::Eras;
use crate::failback::PROMOTED_ERA;
use crate::lanes::{JournalJob, VolumeJob, Work};
use crate::net::{ConnId, Item};
use crate::random::Random;
use crate::scenario::Scenario;
use crate::world::{Event, Lane, LaneId, Side, World};

/// A running daemon.
pub(crate) struct BackupDaemon {
    pub(crate) core: Backup,
    pub(crate) peer: Option<ConnId>,
    pub(crate) ring: Ring,
    pub(crate) journal: Lane<Work>,
    pub(crate) volume: Lane<Work>,
    /// Sequences of the newest superblock and state.
    pub(crate) superblock_at: u64,
    pub(crate) state_at: u64,
    pub(crate) backlog: usize,
    /// What the last proof has read.
    pub(crate) proofs: Vec<(Sealed, Proof)>,
    /// A redo broke off since: the volumes hold no epoch.
    pub(crate) is_broken: bool,
    report_at: u64,
    timer: Option<u64>,
}

/// See the head of this module.
pub(crate) struct BackupHost {
    pub(crate) disks: Disks,
    /// What dm-era below the volumes knows, where this side was a primary once.
    pub(crate) eras: Option<Eras>,
    pub(crate) powered: bool,
    pub(crate) run: u32,
    pub(crate) daemon: Option<Box<BackupDaemon>>,
}

impl BackupHost {
    /// Disks as `ftship format` leaves them; the ring is smaller than any real one, so that it wraps.
    pub(crate) fn new(scenario: &Scenario, random: &mut Random) -> Self {
        let slots = [(Slot::A.offset(), SLOT_SIZE), (Slot::B.offset(), SLOT_SIZE)];
        let ring_len = scenario.ring_blocks * BLOCK_LEN as u64;
        let ring_region = (RING_START, usize::try_from(ring_len).expect("a small ring"));
        let mut journal = Disk::new(&[slots[0], slots[1], ring_region]);
        let mut state = Disk::new(&slots);
        let superblock = Superblock {
            journal_id: random.id(),
            group_name: crate::encoding::group_name(),
            ring: Ring::new(RING_START, ring_len).expect("whole blocks"),
            tail: 0,
            tail_epoch: Epoch::NONE,
            tail_digest: Digest::ZERO,
            synced: Epoch::NONE,
            incarnation: None,
            committed: None,
            dropped: None,
            applying: Some(Epoch::NONE),
        };
        let first = DurableState::new_backup(crate::encoding::group_name(), random.id());
        journal.write_slots(FIRST_SEQUENCE, SlotKind::JournalSuperblock, &superblock.encode());
        state.write_slots(FIRST_SEQUENCE, SlotKind::State, &first.encode());
        let volumes = scenario.shape.0.iter().map(|blocks| Disk::new(&[(0, blocks * SECTOR_SIZE)])).collect();
        Self { disks: Disks { journal, state, volumes }, eras: None, powered: true, run: 0, daemon: None }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.daemon.is_some()
    }
}

impl World {
    /// Starts the daemon on what the disks say, as `BackupDriver::new` does.
    pub(crate) fn backup_start(&mut self) {
        self.backup.run += 1;
        self.backup.powered = true;
        if !mutant::is(Mutant::TrustUnsyncedDisks) {
            // What a killed daemon wrote may not be durable yet.
            self.backup.disks.journal.sync();
            self.backup.disks.state.sync();
        }
        self.rot(Side::Backup);
        let disks = &mut self.backup.disks;
        let [a, b] = disks.state.view.slots();
        let (state, chosen) = DurableState::load(a, b).expect("a sound state").expect("formatted");
        let state_at = chosen.sequence;
        let [a, b] = disks.journal.view.slots();
        let (superblock, chosen) =
            Superblock::load(a, b, u64::MAX).expect("a sound superblock").expect("formatted");
        let superblock_at = chosen.sequence;
        if !mutant::is(Mutant::SlotsInTurn) {
            // Before anybody acts on them.
            disks.state.write_slots(state_at, SlotKind::State, &state.encode());
            disks.journal.write_slots(superblock_at, SlotKind::JournalSuperblock, &superblock.encode());
        }
        let found = recover(&superblock, &mut ImageReader(&disks.journal.view));
        let lost = match found.ended.class {
            EndClass::Ordinary => None,
            EndClass::Refused => panic!("a newer version's journal"),
            EndClass::Damaged { lost_through, .. } => Some(lost_through),
        };
        let is_struck = self.checker.is_struck();
        assert!(lost.is_none() || is_struck, "an undamaged journal has lost: {}", found.ended.reason);
        let sealed = found.sealed.iter().map(|found| Sealed {
            epoch: found.epoch,
            digest: found.digest,
            incarnation: found.incarnation,
            start: found.start,
            end: found.end,
            commit_point: found.commit_point,
        });
        let recovered = Recovered {
            state,
            journal: JournalWriter::new(superblock.clone(), &found),
            sealed: sealed.collect(),
            applied: superblock.tail_epoch,
            applied_digest: superblock.tail_digest,
            lost,
        };
        let config = self.backup_config();
        self.backup.daemon = Some(Box::new(BackupDaemon {
            core: Backup::new(config, recovered),
            peer: None,
            ring: superblock.ring,
            journal: Lane::default(),
            volume: Lane::default(),
            superblock_at,
            state_at,
            backlog: 0,
            proofs: Vec::new(),
            is_broken: false,
            report_at: 0,
            timer: None,
        }));
        assert!(!self.backup_failed(), "a backup does not start");
        self.note(|world| {
            let core = &world.backup.daemon.as_ref().expect("just started").core;
            format!("backup: started, {:?}, applied {}", core.phase(), core.applied())
        });
        self.backup_settle();
    }

    fn backup_config(&self) -> BackupConfig {
        let local = |blocks: &usize| LocalVolume { size: Sectors(*blocks as u64), logical_block_size: 512 };
        BackupConfig {
            group: crate::encoding::group_name(),
            volumes: self.scenario.shape.0.iter().map(local).collect(),
            shown: self.shown_by_backup(),
            devices: Vec::new(),
            timeout: std::time::Duration::from_micros(self.scenario.timeout),
            apply_delay: std::time::Duration::from_micros(self.scenario.apply_delay),
            commit: self.scenario.commit,
            ack: self.scenario.ack,
            eras: match &self.backup.eras {
                Some(eras) => Some(eras.now()),
                None => self.scenario.is_tracked.then(|| vec![PROMOTED_ERA; self.scenario.shape.0.len()]),
            },
        }
    }

    /// The sizes that the devices show when the daemon starts: those that its state names.
    fn shown_by_backup(&self) -> Vec<Sectors> {
        let [a, b] = self.backup.disks.state.view.slots();
        let state = DurableState::load(a, b).expect("a sound state").expect("formatted").0;
        let begins = || self.scenario.begins.iter().map(|blocks| Sectors(*blocks as u64)).collect();
        state.group.map_or_else(begins, |group| group.sizes())
    }

    /// The daemon is gone. What its threads were doing is done in part.
    pub(crate) fn backup_stop(&mut self, tells: bool) {
        self.backup.run += 1;
        let Some(daemon) = self.backup.daemon.take() else { return };
        self.snapshots_gone();
        self.lanes_interrupted(&daemon);
        if let Some(conn) = daemon.peer {
            self.net_close(conn, Side::Backup, tells);
        }
    }

    pub(crate) fn backup_handle(&mut self, event: BackupEvent) {
        let now = self.time();
        if let Some(daemon) = &mut self.backup.daemon {
            daemon.core.handle(now, event);
            self.backup_settle();
        }
    }

    pub(crate) fn backup_timer(&mut self) {
        let now = self.time();
        let Some(daemon) = &mut self.backup.daemon else { return };
        if daemon.timer != Some(self.now) {
            return;
        }
        daemon.timer = None;
        if daemon.backlog >= self.scenario.backlog {
            daemon.core.handle(now, BackupEvent::Behind);
        }
        daemon.core.handle_timeout(now);
        assert!(daemon.core.poll_timeout().is_none_or(|at| at > now), "the backup's timer does not move on");
        self.backup_settle();
        self.backup_receive();
    }

    fn backup_settle(&mut self) {
        self.backup_act();
        let now = self.now;
        let Some(daemon) = &mut self.backup.daemon else { return };
        let Some(at) = daemon.core.poll_timeout() else { return };
        let at = u64::try_from(at.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX).max(now);
        if daemon.timer.is_none_or(|timer| at < timer) {
            daemon.timer = Some(at);
            self.schedule(at, Event::Timer(Side::Backup));
        }
    }

    fn backup_act(&mut self) {
        while let Some(action) = self.backup.daemon.as_mut().and_then(|daemon| daemon.core.poll_action()) {
            self.note(|_| format!("backup does {}", crate::trace::backup_action(&action)));
            if self.random.once_in(self.scenario.odds_crash) {
                return self.crash(Side::Backup);
            }
            self.backup_perform(action);
        }
    }

    fn backup_perform(&mut self, action: BackupAction) {
        match action {
            BackupAction::Send(message) => self.backup_send(&message),
            BackupAction::Close { .. } => self.backup_hang_up(),
            BackupAction::Append { placement, frame } => {
                self.checker.appends(&self.backup.disks.journal, &placement);
                self.journal_push(frame.payload.len(), JournalJob::Append(placement, frame));
            }
            BackupAction::SyncJournal { ticket } => self.journal_push(0, JournalJob::Sync(ticket)),
            BackupAction::WriteSuperblock(new) => self.journal_push(0, JournalJob::Superblock(new)),
            BackupAction::WriteState(state) => self.journal_push(0, JournalJob::State(state)),
            BackupAction::WriteBase { frame, group } => {
                self.volume_push(frame.payload.len(), VolumeJob::Base(frame, group));
            }
            BackupAction::FlushVolumes => self.volume_push(0, VolumeJob::Flush),
            BackupAction::Prove { places } => self.volume_push(0, VolumeJob::Prove(places)),
            BackupAction::Apply { epochs, group } => self.volume_push(0, VolumeJob::Apply(epochs, group)),
            BackupAction::HashVolumes(request)
                if request.length == DigestLength::Short && mutant::is(Mutant::CompareOutOfOrder) =>
            {
                self.hash_volumes(&request);
            }
            BackupAction::HashVolumes(request) => self.volume_push(0, VolumeJob::Hash(request)),
            BackupAction::SendFrame(frame) => {
                if let Some(conn) = self.backup.daemon.as_ref().and_then(|daemon| daemon.peer) {
                    self.net_send(conn, Side::Backup, Item::Frame(frame));
                }
            }
            BackupAction::ReadOwn { since } => self.volume_push(0, VolumeJob::ReadOwn(since)),
            BackupAction::Enlarge { .. } => self.volume_push(0, VolumeJob::Enlarge),
            BackupAction::RollEra => {
                // Nothing is being written: whatever was to be applied is.
                let untracked = || vec![PROMOTED_ERA; self.scenario.shape.0.len()];
                let eras = self.backup.eras.as_mut().map_or_else(untracked, Eras::roll);
                self.volume_push(0, VolumeJob::Roll(eras));
            }
            BackupAction::Snapshot { id, epoch, digest } => {
                self.volume_push(0, VolumeJob::Snapshot(id, epoch, digest));
            }
            BackupAction::SnapshotRefused { id, .. } => self.snapshot_ended(id),
            BackupAction::ReleaseVolumes => self.volume_push(0, VolumeJob::Release),
            BackupAction::ReportLoss { .. } => {
                assert!(self.checker.is_struck(), "what was never misdirected is reported as lost");
            }
            BackupAction::PromoteDone(result) => self.promote_done(&result),
            BackupAction::GivenUp(result) => self.given_up(&result),
        }
    }

    pub(crate) fn backup_send(&mut self, message: &Message) {
        if let Message::Staged { epoch, digest } = message {
            let Self { checker, backup, .. } = self;
            checker.acknowledges(&backup.disks, *epoch, *digest);
            let maker = self.checker.known[digest].incarnation;
            self.expect_decided(maker);
        }
        if let Message::Report { committed, .. } | Message::Welcome(Welcome { committed, .. }) = message {
            let Self { checker, backup, .. } = self;
            checker.reports(&backup.disks, *committed);
        }
        if let (Message::Welcome(_), Some(daemon)) = (message, &self.backup.daemon) {
            let incarnation = daemon.core.peer_incarnation().expect("whom it welcomes");
            self.checker.welcomes(&self.backup.disks, incarnation);
        }
        let Some(daemon) = &self.backup.daemon else { return };
        let generation = daemon.core.state().generation_number();
        let incarnation = daemon.core.peer_incarnation().unwrap_or(Incarnation([0; 16]));
        if let Some(conn) = daemon.peer {
            self.net_send(conn, Side::Backup, Item::Frame(message.encode(generation, incarnation)));
        }
    }

    fn backup_hang_up(&mut self) {
        if let Some(conn) = self.backup.daemon.as_mut().and_then(|daemon| daemon.peer.take()) {
            self.net_close(conn, Side::Backup, true);
        }
    }

    pub(crate) fn backup_accept(&mut self, conn: ConnId) {
        let Some(daemon) = &mut self.backup.daemon else { return };
        if !daemon.core.admits() {
            self.note(|_| format!("backup: connection {conn} turned away"));
            return self.net_close(conn, Side::Backup, true);
        }
        if let Some(old) = daemon.peer.replace(conn) {
            self.net_close(old, Side::Backup, true);
        }
        self.backup_handle(BackupEvent::Accepted);
    }

    /// Reads frames while they are wanted and the disks keep up.
    pub(crate) fn backup_receive(&mut self) {
        while let Some(daemon) = &self.backup.daemon {
            let Some(conn) = daemon.peer else { return };
            if !daemon.core.wants_frames() || daemon.backlog >= self.scenario.backlog {
                return;
            }
            match self.net.arrived(conn, Side::Backup) {
                None => return,
                Some(Item::Frame(frame)) => {
                    self.note(|_| format!("backup gets {}", crate::trace::frame(&frame)));
                    let kind = frame.header.kind;
                    self.backup_handle(BackupEvent::Frame(frame));
                    match kind {
                        FrameKind::SyncBegin => self.full_sync_heard(),
                        FrameKind::EpochData => self.data_arrived(),
                        _ => {}
                    }
                }
                Some(Item::End) => {
                    self.backup_hang_up();
                    self.backup_handle(BackupEvent::Disconnected);
                }
            }
        }
    }

    /// Queues a report to the daemon's loop, behind earlier ones.
    pub(crate) fn backup_tell(&mut self, report: BackupEvent) {
        let wait = self.random.around(20);
        let (now, run) = (self.now, self.backup.run);
        if let Some(daemon) = &mut self.backup.daemon {
            daemon.report_at = daemon.report_at.max(now + wait);
            let at = daemon.report_at;
            self.schedule(at, Event::BackupReport(run, report));
        }
    }

    pub(crate) fn backup_report(&mut self, run: u32, report: BackupEvent) {
        if run == self.backup.run {
            self.note(|_| format!("backup is told {report:?}"));
            self.backup_handle(report);
            self.backup_receive();
        }
    }

    fn journal_push(&mut self, weight: usize, job: JournalJob) {
        let Some(daemon) = &mut self.backup.daemon else { return };
        daemon.backlog += weight;
        let work = Work::of_journal(job, weight);
        daemon.journal.jobs.push_back(work);
        if daemon.journal.jobs.len() == 1 {
            self.lane_begin(LaneId::Journal, self.backup.run);
        }
    }

    fn volume_push(&mut self, weight: usize, job: VolumeJob) {
        let Some(daemon) = &mut self.backup.daemon else { return };
        daemon.backlog += weight;
        let work = Work::of_volume(job, weight, self.scenario.shape.0.len());
        daemon.volume.jobs.push_back(work);
        if daemon.volume.jobs.len() == 1 {
            self.lane_begin(LaneId::Volume, self.backup.run);
        }
    }

    /// Whether the daemon has latched a failure.
    pub(crate) fn backup_failed(&self) -> bool {
        let failed = |daemon: &BackupDaemon| matches!(daemon.core.phase(), Phase::Failed(_));
        self.backup.daemon.as_deref().is_some_and(failed)
    }
}
