//! The backup's decisions, scripted: each event and each completion in the order that a test wants.

mod failback;
mod greeting;
mod growing;
mod losing;
mod promoting;
mod staging;
mod syncing;
mod verifying;

use crate::group::LocalVolume;
use std::collections::VecDeque;

use super::*;
use crate::epoch::EpochHeader;
use crate::journal::{MIN_JOURNAL_LEN, Superblock, recover};
use crate::message::{Hello, Message, RefuseCode};
use crate::protocol::{ACK_RECEIVED, EXTERNAL_COMMIT, PROTOCOL};
use crate::state::{Content, Role};
use crate::testing::{INCARNATION, epoch_header, frames_of, group};
use crate::verify::Digests;
use ftdm_units::Sectors;

const NOW: Duration = Duration::from_secs(1);
pub(super) const BASE_ID: [u8; 16] = [0xb1; 16];

/// A backup, what it wants done, and what it said.
pub(super) struct Host {
    pub(super) core: Backup,
    /// Disk work that is not done.
    pub(super) pending: VecDeque<BackupAction>,
    pub(super) said: Vec<Message>,
    /// Sent, and no messages.
    pub(super) frames: Vec<Frame>,
    pub(super) promoted: Vec<Result<Epoch, PromoteRefused>>,
    /// What was reported as lost.
    pub(super) losses: Vec<String>,
    /// Durable.
    pub(super) state: DurableState,
    pub(super) given_up: Vec<Result<(), GiveUpRefused>>,
    pub(super) superblock: Superblock,
    /// Of its primary.
    pub(super) group: GroupDescription,
    digest: Digest,
    next: u64,
}

impl Host {
    pub(super) fn new(commit: CommitPolicy, ack: AckPolicy) -> Self {
        Self::of(DurableState::new_backup("vm1".parse().unwrap(), [1; 16]), None, commit, ack)
    }

    /// One that starts with this state and an empty journal, on volumes of these eras.
    pub(super) fn of(
        state: DurableState,
        eras: Option<Vec<Era>>,
        commit: CommitPolicy,
        ack: AckPolicy,
    ) -> Self {
        let superblock = Superblock::format([7; 16], "vm1".parse().unwrap(), MIN_JOURNAL_LEN).unwrap();
        let recovery = recover(&superblock, &mut |_, buf: &mut [u8]| {
            buf.fill(0);
            Ok::<_, std::convert::Infallible>(())
        });
        let local = |volume: &crate::group::VolumeDescription| LocalVolume {
            size: volume.size,
            logical_block_size: volume.logical_block_size,
        };
        let config = BackupConfig {
            group: "vm1".parse().unwrap(),
            volumes: group().volumes().iter().map(local).collect(),
            shown: group().sizes(),
            devices: Vec::new(),
            timeout: Duration::from_secs(5),
            apply_delay: Duration::ZERO,
            commit,
            ack,
            eras,
        };
        let journal = JournalWriter::new(superblock.clone(), &recovery);
        let recovered = Recovered {
            state: state.clone(),
            journal,
            sealed: Vec::new(),
            applied: Epoch::NONE,
            applied_digest: Digest::ZERO,
            lost: None,
        };
        let core = Backup::new(config, recovered);
        let (pending, said, promoted, frames) = (VecDeque::new(), Vec::new(), Vec::new(), Vec::new());
        let (digest, losses) = (Digest::ZERO, Vec::new());
        let mut host = Self {
            core,
            pending,
            said,
            frames,
            promoted,
            given_up: Vec::new(),
            losses,
            state,
            superblock,
            group: group(),
            digest,
            next: 1,
        };
        host.finish();
        host
    }

    /// A backup that has had its full sync, up to the first commit point: epoch 2.
    pub(super) fn in_sync(commit: CommitPolicy, ack: AckPolicy) -> Self {
        let mut host = Self::new(commit, ack);
        host.greet(INCARNATION);
        host.tell(Message::SyncBegin { base_id: BASE_ID, base: None });
        host.finish();
        assert_eq!(host.said.pop(), Some(Message::SyncReady));
        host.tell(Message::BaseEnd { frames: 0, bytes: 0 });
        host.next = 2;
        host.epoch();
        host.finish();
        assert_eq!(host.core.phase(), &Phase::Consistent);
        host
    }

    pub(super) fn event(&mut self, event: BackupEvent) {
        self.core.handle(NOW, event);
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(action) = self.core.poll_action() {
            match action {
                BackupAction::Send(message) => self.said.push(message),
                BackupAction::SendFrame(frame) => self.frames.push(frame),
                BackupAction::Close { .. } | BackupAction::Append { .. } | BackupAction::WriteBase { .. } => {
                }
                BackupAction::ReportLoss { text } => self.losses.push(text),
                BackupAction::PromoteDone(result) => self.promoted.push(result),
                BackupAction::GivenUp(result) => self.given_up.push(result),
                disk => self.pending.push_back(disk),
            }
        }
    }

    /// The oldest disk work is done.
    pub(super) fn step(&mut self) {
        let event = match self.pending.pop_front().expect("something to do") {
            BackupAction::SyncJournal { ticket } => BackupEvent::JournalSynced { ticket },
            BackupAction::WriteSuperblock(superblock) => {
                self.superblock = *superblock;
                BackupEvent::SuperblockWritten
            }
            BackupAction::WriteState(state) => {
                self.state = *state;
                BackupEvent::StateWritten
            }
            BackupAction::FlushVolumes => BackupEvent::VolumesFlushed,
            BackupAction::Prove { .. } => BackupEvent::Proven,
            BackupAction::Apply { .. } => BackupEvent::Applied,
            BackupAction::HashVolumes(request) => {
                let mut digests = Digests::none(request.length);
                (0..request.digest_count()).for_each(|_| digests.add(&[0], Sectors(1)));
                let result = Ok(digests);
                BackupEvent::VolumesHashed { token: request.token, result }
            }
            BackupAction::Enlarge { .. } => BackupEvent::Enlarged { result: Ok(()) },
            BackupAction::ReadOwn { .. } => BackupEvent::OwnRead { result: Ok(Vec::new()) },
            BackupAction::RollEra => BackupEvent::EraRolled { eras: vec![Era(7); 2] },
            BackupAction::ReleaseVolumes => BackupEvent::VolumesReleased,
            other => panic!("{other:?} is no disk work"),
        };
        self.event(event);
    }

    /// All disk work is done.
    pub(super) fn finish(&mut self) {
        self.collect();
        while !self.pending.is_empty() {
            self.step();
        }
    }

    pub(super) fn tell_as(&mut self, message: &Message, incarnation: Incarnation) {
        self.event(BackupEvent::Frame(message.encode(3, incarnation)));
    }

    pub(super) fn tell(&mut self, message: Message) {
        self.tell_as(&message, INCARNATION);
    }

    pub(super) fn hello(&self) -> Hello {
        let external = self.core.config.commit == CommitPolicy::External;
        Hello {
            protocol_min: 1,
            protocol_max: PROTOCOL,
            features_optional: ACK_RECEIVED,
            features_mandatory: if external { EXTERNAL_COMMIT } else { 0 },
            group: self.group.clone(),
            lineage: vec![LineageEntry {
                generation: epoch_header(1, Digest::ZERO).generation,
                first_epoch: Epoch(1),
                digest: Digest::ZERO,
            }],
            last_epoch: Epoch::NONE,
            last_digest: Digest::ZERO,
            alone: None,
            token: 0,
            numbered: None,
            with_loss: false,
        }
    }

    pub(super) fn greet(&mut self, incarnation: Incarnation) {
        self.event(BackupEvent::Accepted);
        self.tell_as(&Message::Hello(self.hello()), incarnation);
    }

    /// The next epoch arrives whole.
    pub(super) fn epoch(&mut self) -> Epoch {
        self.epoch_since(self.next)
    }

    /// The next epoch arrives whole; it stands for all from `first` on.
    pub(super) fn epoch_since(&mut self, first: u64) -> Epoch {
        let features_mandatory = self.hello().features_mandatory;
        let header = EpochHeader {
            features_mandatory,
            first_epoch: Epoch(first),
            group: self.group.clone(),
            ..epoch_header(self.next, self.digest)
        };
        let (frames, summary) = frames_of(header, 4096);
        for frame in frames {
            self.event(BackupEvent::Frame(frame));
        }
        self.digest = summary.digest;
        self.next += 1;
        Epoch(self.next - 1)
    }

    /// The epochs of the STAGEDs said so far.
    pub(super) fn staged(&self) -> Vec<u64> {
        let epoch = |message: &Message| match message {
            Message::Staged { epoch, .. } => Some(epoch.0),
            _ => None,
        };
        self.said.iter().filter_map(epoch).collect()
    }

    pub(super) fn promote(&mut self, epoch: Option<u64>) {
        self.event(BackupEvent::Promote { id: [9; 16], epoch: epoch.map(Epoch), force: false, token: None });
    }

    pub(super) fn refusal(&self) -> Option<RefuseCode> {
        match self.said.last() {
            Some(Message::Refuse { code, .. }) => Some(*code),
            _ => None,
        }
    }
}

#[test]
fn a_step_that_is_not_drawn_latches_a_failure() {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    host.core.enter(Phase::Promoted);
    host.collect();
    let Phase::Failed(reason) = host.core.phase() else { panic!("{:?}", host.core.phase()) };
    assert!(reason.contains("Consistent") && reason.contains("Promoted"), "{reason}");
    host.epoch();
    host.promote(None);
    assert!(host.pending.is_empty(), "nothing is done any more");
    assert!(matches!(host.promoted.as_slice(), [Err(PromoteRefused::Failed(_))]));
}

#[test]
fn after_a_failed_write_nothing_is_acknowledged() {
    let mut host = Host::in_sync(CommitPolicy::Auto, AckPolicy::Durable);
    let told = host.staged();
    host.epoch();
    host.event(BackupEvent::Failed { reason: "journal: I/O error".into() });
    host.finish();
    assert_eq!(host.staged(), told);
    host.greet(INCARNATION);
    assert_eq!(host.refusal(), Some(RefuseCode::Failed));
    assert_eq!(host.core.peer_incarnation(), Some(INCARNATION));
}
