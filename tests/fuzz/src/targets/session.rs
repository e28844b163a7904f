//! A whole connection against the backup's state machine: frames of a hostile primary that knows the group.
//!
//! ```text
//! input: policies u8 (1 a coordinator commits, 2 an epoch is acknowledged on receipt), schedule u64 (two bits for each frame: 0, 1 all that was ordered is done first; 2 it goes on; 3 the
//!        connection is made anew), then the bytes of the connection
//! ```

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use ftdm_units::{Era, Sectors};
use ftship_proto::backup::{Backup, BackupAction, BackupConfig, BackupEvent, Phase, Recovered, Sealed};
use ftship_proto::frame::{Frame, FrameDecoder};
use ftship_proto::group::{GroupDescription, LocalVolume};
use ftship_proto::ids::{Digest, Epoch};
use ftship_proto::journal::{
    JournalWriter, Place, Placement, Proof, RING_START, Ring, Superblock, encode_padded,
};
use ftship_proto::message::Message;
use ftship_proto::protocol::{AckPolicy, CommitPolicy};
use ftship_proto::record::RecordIter;
use ftship_proto::slot::{self, SlotKind};
use ftship_proto::state::{Content, DurableState};
use ftship_proto::verify::{Digests, HashRequest, MAX_DIGESTS, MAX_HASHED};

use super::recovery::{Disk, scan};
use crate::image::BLOCK;
use crate::input::Input;
use crate::{Seed, Target, Verdict, mend, seeds, within};

pub(super) const TARGET: Target =
    Target { name: "session", run, seeds, max_len: 32 << 10, words: &["FTDM\u{1}\0"] };

const RING_BLOCKS: u64 = 64;
const NOW: Duration = Duration::from_secs(1);

/// Memory that one event may take: the frame that is checked, decompressed, and what is ordered.
const BOUND: usize = 6 << 20;

/// A backup with devices in memory.
struct Host {
    volumes: usize,
    backup: Backup,
    disk: Disk,
    superblock: Superblock,
    proofs: Vec<Proof>,
    /// What was ordered and is not done, oldest first.
    ordered: VecDeque<BackupEvent>,
    staged: Option<(Epoch, Digest)>,
    committed: (Epoch, Digest),
    promoted: Option<bool>,
    closed: bool,
}

fn run(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    let (policies, schedule) = (input.u8(), input.u64());
    let bytes = input.rest();
    let mended = mend::Depth::ALL.map(|depth| {
        let mut mended = bytes.to_vec();
        mend::Frames::after([0; 32], depth).mend_stream(&mut mended);
        if mended == bytes { Verdict::Refused } else { play(policies, schedule, &mended) }
    });
    mended.into_iter().fold(play(policies, schedule, bytes), Verdict::or)
}

fn play(policies: u8, mut schedule: u64, bytes: &[u8]) -> Verdict {
    let Some(mut host) = Host::new(policies) else { panic!("a formatted backup starts") };
    let (mut decoder, mut rest) = (FrameDecoder::new(), bytes);
    host.tell(BackupEvent::Accepted);
    while let Ok((taken, Some(frame))) = decoder.feed(rest) {
        rest = &rest[taken..];
        schedule = schedule.rotate_right(2);
        match schedule & 3 {
            2 => {}
            3 => {
                host.tell(BackupEvent::Disconnected);
                host.tell(BackupEvent::Accepted);
            }
            _ => host.do_all(),
        }
        if host.closed {
            break;
        }
        // While the journal is full, the driver does not read.
        if !host.backup.wants_frames() {
            host.do_all();
        }
        if host.backup.wants_frames() {
            host.tell(BackupEvent::Frame(frame));
        }
    }
    host.do_all();
    host.check_end();
    Verdict::of(host.staged.is_some())
}

impl Host {
    fn new(policies: u8) -> Option<Self> {
        let commit = if policies & 1 != 0 { CommitPolicy::External } else { CommitPolicy::Auto };
        let ack = if policies & 2 != 0 { AckPolicy::Received } else { AckPolicy::Durable };
        let group = seeds::group()?;
        let ring = Ring::new(RING_START, RING_BLOCKS * BLOCK as u64)?;
        let format = Superblock::format([0x71; 16], group.name().clone(), 16 << 20).ok()?;
        let superblock = Superblock { ring, ..format };
        let mut disk = Disk::new(ring);
        let journal = JournalWriter::new(superblock.clone(), &scan(&superblock, &mut disk));
        let volumes = group.volumes().iter().map(|volume| LocalVolume {
            size: Sectors(volume.size.0 * 2),
            logical_block_size: volume.logical_block_size,
        });
        let config = BackupConfig {
            group: group.name().clone(),
            volumes: volumes.collect(),
            shown: group.sizes(),
            devices: Vec::new(),
            timeout: Duration::from_secs(5),
            apply_delay: Duration::from_millis(500),
            commit,
            ack,
            eras: Some(vec![Era(7); group.volumes().len()]),
        };
        let recovered = Recovered {
            state: DurableState::new_backup(group.name().clone(), [0xf1; 16]),
            journal,
            sealed: Vec::new(),
            applied: Epoch::NONE,
            applied_digest: Digest::ZERO,
            lost: None,
        };
        let backup = Backup::new(config, recovered);
        let (ordered, committed) = (VecDeque::new(), (Epoch::NONE, Digest::ZERO));
        Some(Self {
            volumes: group.volumes().len(),
            backup,
            disk,
            superblock,
            proofs: Vec::new(),
            ordered,
            staged: None,
            committed,
            promoted: None,
            closed: false,
        })
    }

    fn tell(&mut self, event: BackupEvent) {
        within(BOUND, || self.backup.handle(NOW, event));
        self.perform();
    }

    /// Does everything that was ordered, and what follows from it.
    fn do_all(&mut self) {
        while let Some(done) = self.ordered.pop_front() {
            self.tell(done);
        }
    }

    fn perform(&mut self) {
        while let Some(action) = self.backup.poll_action() {
            match action {
                BackupAction::Send(message) => self.sent(&message),
                BackupAction::Close { reason } => {
                    assert!(!reason.is_empty() && !self.backup.is_connected());
                    self.closed = true;
                }
                BackupAction::Append { placement, frame } => self.append(placement, &frame),
                BackupAction::SyncJournal { ticket } => {
                    self.ordered.push_back(BackupEvent::JournalSynced { ticket });
                }
                BackupAction::WriteSuperblock(superblock) => {
                    assert_eq!(Superblock::decode(&superblock.encode()).as_ref(), Ok(&*superblock));
                    assert!(superblock.tail >= self.superblock.tail);
                    self.superblock = *superblock;
                    self.ordered.push_back(BackupEvent::SuperblockWritten);
                }
                BackupAction::SendFrame(_) | BackupAction::ReadOwn { .. } => {
                    unreachable!("it never was a primary")
                }
                BackupAction::RollEra => {
                    let eras = vec![Era(7); self.volumes];
                    self.ordered.push_back(BackupEvent::EraRolled { eras });
                }
                BackupAction::Enlarge { sizes } => {
                    assert_eq!(sizes.len(), self.volumes);
                    self.ordered.push_back(BackupEvent::Enlarged { result: Ok(()) });
                }
                BackupAction::WriteState(state) => {
                    let body = state.encode();
                    assert!(slot::encode(1, SlotKind::State, &body).is_ok(), "a state that fits no slot");
                    assert_eq!(DurableState::decode(&body).as_ref(), Ok(&*state));
                    self.ordered.push_back(BackupEvent::StateWritten);
                }
                BackupAction::WriteBase { frame, group } => records(&frame, &group),
                BackupAction::FlushVolumes => self.ordered.push_back(BackupEvent::VolumesFlushed),
                BackupAction::Prove { places } => self.prove(places),
                BackupAction::Apply { epochs, group } => self.apply(&epochs, &group),
                BackupAction::ReportLoss { text } => panic!("{text}"),
                BackupAction::GivenUp(_) => panic!("nobody gives anything up"),
                // Nobody here asks for any.
                BackupAction::Snapshot { .. } | BackupAction::SnapshotRefused { .. } => {
                    panic!("a snapshot that nobody asked for")
                }
                BackupAction::HashVolumes(request) => self.hash(&request),
                BackupAction::ReleaseVolumes => self.ordered.push_back(BackupEvent::VolumesReleased),
                BackupAction::PromoteDone(result) => {
                    assert!(self.promoted.replace(result.is_ok()).is_none(), "answered twice");
                    assert!(result.is_err() || result == Ok(self.backup.committed()));
                }
            }
        }
        let (used, capacity) = self.backup.journal_use();
        assert!(used <= capacity);
        let committed = (self.backup.committed(), self.backup.committed_digest());
        assert!(committed == self.committed || committed.0 > self.committed.0, "a commit was taken back");
        self.committed = committed;
    }

    fn prove(&mut self, places: Vec<(Sealed, Place)>) {
        self.proofs.clear();
        for (sealed, place) in places {
            let proof = Proof::of(self.superblock.ring, &mut self.disk, place, 4096, 4096);
            let proof = proof.unwrap_or_else(|error| panic!("epoch {}: {error}", sealed.epoch));
            self.proofs.push(proof);
        }
        self.ordered.push_back(BackupEvent::Proven);
    }

    fn apply(&mut self, epochs: &[Sealed], group: &GroupDescription) {
        let is_proven = epochs.iter().map(|sealed| sealed.epoch).eq(self.proofs.iter().map(Proof::epoch));
        assert!(is_proven, "what is applied is what was proven");
        for proof in &self.proofs {
            let user = |frame: &Frame| {
                records(frame, group);
                Ok::<_, Infallible>(())
            };
            let redone = proof.redo(self.superblock.ring, &mut self.disk, user);
            assert!(redone.is_ok(), "epoch {}: {redone:?}", proof.epoch());
        }
        self.ordered.push_back(BackupEvent::Applied);
    }

    fn hash(&mut self, request: &HashRequest) {
        // No answer may be longer than a frame, and nothing off the volumes is read.
        assert!(request.digest_count() <= MAX_DIGESTS && request.sectors() <= MAX_HASHED);
        assert_eq!(seeds::group().map(|group| request.check(&group)), Some(Ok(())));
        let mut digests = Digests::none(request.length);
        (0..request.digest_count()).for_each(|_| digests.add(&[0], Sectors(1)));
        let result = Ok(digests);
        self.ordered.push_back(BackupEvent::VolumesHashed { token: request.token, result });
    }

    fn sent(&mut self, message: &Message) {
        let frame = message.encode(0, seeds::INCARNATION);
        assert!(Message::decode(&frame).is_ok(), "says what nobody understands");
        if let Message::Staged { epoch, digest } = message {
            let again =
                self.staged.is_none_or(|(before, was)| before < *epoch || (before, was) == (*epoch, *digest));
            assert!(again, "epoch {epoch} with another digest");
            self.staged = Some((*epoch, *digest));
        }
    }

    /// A frame goes into free space, as it came.
    fn append(&mut self, placement: Placement, frame: &Frame) {
        let Placement { position, offset, len, pad } = placement;
        assert!(position >= self.superblock.tail);
        assert!(position + len <= self.superblock.tail + self.superblock.ring.capacity());
        records(frame, &seeds::group().unwrap_or_else(|| panic!("the group is sound")));
        if let Some(pad) = pad {
            self.disk.write(pad.offset, &pad.block());
        }
        let mut bytes = Vec::new();
        encode_padded(frame, &mut bytes);
        assert_eq!(bytes.len() as u64, len);
        self.disk.write(offset, &bytes);
    }

    /// After a restart, everything that was committed is there; and a promote gives it.
    fn check_end(&mut self) {
        let found = scan(&self.superblock, &mut self.disk);
        let (epoch, digest) = self.committed;
        let held = found.sealed.iter().find(|sealed| sealed.epoch == epoch).map(|sealed| sealed.digest);
        let applied = self.superblock.tail_epoch >= epoch;
        assert!(held == Some(digest) || applied, "epoch {epoch} was committed and is gone");
        self.backup.handle_timeout(NOW + Duration::from_secs(60));
        self.perform();
        self.do_all();
        if *self.backup.phase() == Phase::Promoted {
            // The peer handed over.
            return;
        }
        // The last one that was committed can always be named.
        let consistent = self.backup.state().content == Content::Consistent;
        self.tell(BackupEvent::Promote { id: [7; 16], epoch: Some(epoch), force: false, token: None });
        self.do_all();
        assert_eq!(self.promoted, Some(matches!(self.backup.phase(), Phase::Promoted)));
        let nothing = epoch.is_none() || !consistent;
        assert!(self.promoted == Some(true) || nothing, "{:?} of epoch {epoch}", self.backup.phase());
    }
}

/// Whatever gets as far as a device or the journal can be applied.
fn records(frame: &Frame, group: &GroupDescription) {
    assert_eq!(frame.verify(), Ok(()));
    if !frame.header.kind.carries_records() {
        return;
    }
    let mut scratch = Vec::new();
    let raw = frame.raw_payload(&mut scratch).unwrap_or_else(|error| panic!("{error}"));
    let records = RecordIter::new(raw, frame.header.kind, frame.header.record_count, group);
    let records = records.unwrap_or_else(|error| panic!("{error}"));
    let sectors: u64 = records.map(|record| record.extent.len().0).sum();
    assert!(Sectors(sectors) <= Sectors(group.volumes().iter().map(|volume| volume.size.0).sum()));
}

fn seeds() -> Vec<Seed> {
    let input = |policies: u8, schedule: u64| {
        let commit = if policies & 1 != 0 { CommitPolicy::External } else { CommitPolicy::Auto };
        [&[policies], &schedule.to_le_bytes()[..], &seeds::session(commit)].concat()
    };
    vec![
        ("prompt".into(), input(0, 0)),
        ("coordinated".into(), input(1, 0)),
        ("on-receipt".into(), input(2, 0)),
        ("coordinated-on-receipt".into(), input(3, 0)),
    ]
}
