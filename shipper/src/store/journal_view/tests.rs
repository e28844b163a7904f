//! Journals in files, damaged in one place each: is it said what is wrong, and where?

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use ftdm_units::{Extent, Sector, Sectors};
use ftship_proto::epoch_encoder::EpochEncoder;
use ftship_proto::group::{GroupDescription, VolumeDescription};
use ftship_proto::ids::{Digest, Generation, Incarnation, VolumeIndex, VolumeUuid};
use ftship_proto::journal::{JournalWriter, RING_START};
use ftship_proto::protocol::PROTOCOL;
use ftship_proto::record::Content as RecordContent;

use ftship_proto::slot::SLOT_SIZE;

use super::*;
use crate::control::exit::Code;
use crate::store::journal_device::JournalDevice;
use crate::store::storage::tests::{forget, scratch};

const BLOCK: u64 = BLOCK_LEN as u64;

/// A journal in a file, written as the daemon writes it.
struct Journal {
    path: PathBuf,
    device: Option<JournalDevice>,
    writer: JournalWriter,
    digest: Digest,
    next: u64,
    state: DurableState,
}

fn name() -> GroupName {
    "vm1".parse().unwrap()
}

fn description() -> GroupDescription {
    let volume =
        VolumeDescription { uuid: VolumeUuid([1; 16]), size: Sectors(1 << 20), logical_block_size: 512 };
    GroupDescription::new(name(), vec![volume]).unwrap()
}

impl Journal {
    fn new() -> Self {
        let path = scratch("journal");
        let mut device = JournalDevice::create(&path, 16 << 20).unwrap();
        device.format(&name(), [7; 16]).unwrap();
        let recovery = device.recover(&name(), None, &mut |_, _| ()).unwrap();
        let state = DurableState {
            content: Content::Consistent,
            group: Some(description()),
            last_incarnation: Some(Incarnation([0xa1; 16])),
            ..DurableState::new_backup(name(), [1; 16])
        };
        let (writer, digest) = (recovery.writer, recovery.applied_digest);
        Self { path, device: Some(device), writer, digest, next: 1, state }
    }

    fn device(&mut self) -> &mut JournalDevice {
        self.device.as_mut().unwrap()
    }

    /// Epochs of three blocks each: header, data, trailer. All before each are known to be durable.
    fn with_epochs(count: u64) -> Self {
        let mut journal = Self::new();
        for _ in 0..count {
            journal.append(true);
        }
        journal.device().sync().unwrap();
        journal
    }

    fn append(&mut self, whole: bool) {
        let header = EpochHeader {
            protocol: PROTOCOL,
            features_optional: 0,
            features_mandatory: 0,
            group: description(),
            incarnation: Incarnation([0xa1; 16]),
            generation: Generation { number: 1, id: [2; 16] },
            first_epoch: Epoch(self.next),
            last_epoch: Epoch(self.next),
            previous: self.digest,
            commit_point: true,
            staged: Epoch(self.next - 1),
        };
        let mut frames = Vec::new();
        let mut encoder = EpochEncoder::new(header);
        // Not to be compressed.
        let mut data = [0; 512];
        getrandom::fill(&mut data).unwrap();
        let extent = Extent::new(Sector(8), Sectors(1)).unwrap();
        encoder
            .push(VolumeIndex(0), extent, RecordContent::Data(&data), &mut |frame| frames.push(frame))
            .unwrap();
        let summary = encoder.finish(&mut |frame| frames.push(frame));
        if !whole {
            frames.pop();
        }
        for frame in &frames {
            let placement = self.writer.reserve(frame).unwrap();
            self.device().append(&placement, frame).unwrap();
        }
        if whole {
            self.writer.seal();
            self.digest = summary.digest;
            self.next += 1;
        }
    }

    /// Ends the daemon, as it were, and changes bytes.
    fn strike(&mut self, offset: u64, bytes: &[u8]) {
        self.device = None;
        File::options().write(true).open(&self.path).unwrap().write_all_at(bytes, offset).unwrap();
    }

    fn view(&mut self, all: bool) -> Result<Picture, ViewError> {
        self.device = None;
        let before = std::fs::read(&self.path).unwrap();
        let group = name();
        let view = View {
            path: &self.path,
            group: &group,
            state: Some(&self.state),
            state_damage: None,
            daemon: false,
            all,
        };
        let result = view.take();
        assert!(before == std::fs::read(&self.path).unwrap(), "it was changed");
        result
    }

    /// The picture of a journal that is damaged; its last finding is to name this byte.
    fn damaged(mut self, offset: u64) -> (Picture, String) {
        let picture = self.view(false).unwrap();
        assert_eq!(picture.verdict, Verdict::Damaged);
        assert_eq!(picture.verdict.code(), Some(Code::Damaged));
        let finding = picture.findings.last().unwrap();
        assert_eq!(finding.offset, offset, "{finding:?}");
        assert!(finding.advice.contains("ftship promote GROUP --accept-loss"), "{finding:?}");
        let what = finding.what.clone();
        assert!(text::journal(&picture).contains(&what));
        (picture, what)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.device = None;
        forget(&self.path);
    }
}

fn states(picture: &Picture) -> Vec<(u64, EpochState)> {
    picture.epochs.iter().map(|line| (line.epoch, line.state)).collect()
}

#[test]
fn epochs_are_listed_with_where_they_lie_and_how_far_they_came() {
    let mut journal = Journal::with_epochs(3);
    journal.append(false);
    let picture = journal.view(false).unwrap();
    use EpochState::{Committed, Unfinished};
    assert_eq!(states(&picture), [(1, Committed), (2, Committed), (3, Committed), (4, Unfinished)]);
    assert_eq!((picture.verdict, picture.promotable), (Verdict::Sound, Some(3)));
    let second = &picture.epochs[1];
    assert_eq!((second.offset, second.bytes), (RING_START + 3 * BLOCK, 3 * BLOCK));
    assert_eq!((second.frames, second.records, second.generation), (3, 1, 1));
    assert_eq!(picture.epochs[3].frames, 2);
    let text = text::journal(&picture);
    assert!(text.contains("unfinished") && text.contains("epoch 3 at least"), "{text}");
}

#[test]
fn what_is_applied_is_listed_until_it_is_overwritten() {
    let mut journal = Journal::with_epochs(2);
    let superblock = journal.writer.superblock_after(6 * BLOCK, Epoch(2), journal.digest);
    journal.device().write_superblock(&superblock).unwrap();
    assert_eq!(states(&journal.view(false).unwrap()), []);
    let picture = journal.view(true).unwrap();
    assert_eq!(states(&picture), [(1, EpochState::Applied), (2, EpochState::Applied)]);
    assert_eq!((picture.applied, picture.promotable), (2, Some(2)));
}

#[test]
fn without_a_consistent_state_nothing_is_committed() {
    let mut journal = Journal::with_epochs(1);
    journal.state.content = Content::Inconsistent { base_id: [0; 16], base: None };
    let picture = journal.view(false).unwrap();
    assert_eq!(states(&picture), [(1, EpochState::Staged)]);
    assert_eq!(picture.promotable, None);
}

#[test]
fn where_a_coordinator_commits_its_word_is_what_counts() {
    let mut journal = Journal::with_epochs(3);
    journal.writer.note_committed(Some(Epoch(2)));
    let superblock = journal.writer.superblock_now();
    journal.device().write_superblock(&superblock).unwrap();
    let picture = journal.view(false).unwrap();
    use EpochState::{Committed, Dropped, Staged};
    assert_eq!(states(&picture), [(1, Committed), (2, Committed), (3, Staged)]);
    assert_eq!(picture.promotable, Some(2));

    let mut journal = Journal::with_epochs(3);
    journal.writer.drop_from(6 * BLOCK, Epoch(0));
    let superblock = journal.writer.superblock_now();
    journal.device().write_superblock(&superblock).unwrap();
    let picture = journal.view(false).unwrap();
    assert_eq!(states(&picture), [(1, Committed), (2, Committed), (3, Dropped)]);
}

#[test]
fn a_drop_marker_is_listed() {
    let mut journal = Journal::with_epochs(2);
    let marker = journal.writer.drop_sealed(3 * BLOCK, Epoch(2)).unwrap();
    let block = marker.block();
    journal.strike(marker.offset, &block);
    let picture = journal.view(false).unwrap();
    assert_eq!(states(&picture), [(1, EpochState::Committed), (2, EpochState::Dropped)]);
    assert_eq!(picture.verdict, Verdict::Sound);
}

#[test]
fn a_changed_payload_of_an_acknowledged_epoch_is_named_with_its_byte() {
    let mut journal = Journal::with_epochs(4);
    let data_frame = RING_START + 3 * BLOCK + BLOCK;
    journal.strike(data_frame + 300, &[0xff; 3]);
    let (picture, what) = journal.damaged(data_frame);
    assert!(what.contains("epochs 2 to 3") && what.contains("checksum"), "{what}");
    assert_eq!(picture.epochs[0].state, EpochState::Committed);
}

#[test]
fn a_changed_header_is_named_with_its_byte() {
    let mut journal = Journal::with_epochs(3);
    journal.strike(RING_START + 20, &[0xff]);
    let (_, what) = journal.damaged(RING_START);
    assert!(what.contains("epochs 1 to 2") && what.contains("header"), "{what}");
}

#[test]
fn an_epoch_that_another_history_put_there_breaks_the_chain() {
    let mut journal = Journal::with_epochs(4);
    let mut other = Journal::new();
    // The same epoch by all its frames, after another predecessor.
    other.digest = Digest([9; 32]);
    other.next = 2;
    other.append(true);
    other.device = None;
    let bytes = std::fs::read(&other.path).unwrap();
    let start = usize::try_from(RING_START).unwrap();
    let epoch = &bytes[start..start + 3 * BLOCK_LEN];
    journal.strike(RING_START + 3 * BLOCK, epoch);
    let (_, what) = journal.damaged(RING_START + 3 * BLOCK);
    assert!(what.contains("epochs 2 to 3"), "{what}");
}

#[test]
fn a_torn_end_is_ordinary_when_nothing_says_that_it_was_durable() {
    let mut journal = Journal::with_epochs(3);
    journal.strike(RING_START + 8 * BLOCK, &[0; BLOCK_LEN]);
    let picture = journal.view(false).unwrap();
    assert_eq!(picture.verdict, Verdict::Sound);
    assert_eq!(picture.epochs.last().unwrap().state, EpochState::Unfinished);
    assert_eq!(picture.promotable, Some(2));
}

#[test]
fn a_torn_superblock_slot_is_told_and_two_are_damage() {
    let mut journal = Journal::with_epochs(1);
    journal.strike(40, &[0xff; 8]);
    let picture = journal.view(false).unwrap();
    assert_eq!((picture.verdict, picture.findings[0].offset), (Verdict::Impaired, 0));
    assert_eq!(picture.verdict.code(), Some(Code::Damaged));
    journal.strike(65536 + 40, &[0xff; 8]);
    let error = journal.view(false).unwrap_err();
    assert_eq!(error.code(), Code::Damaged);
    assert!(error.to_string().contains("byte 65536"), "{error}");
}

#[test]
fn a_newer_superblock_is_refused() {
    let mut journal = Journal::with_epochs(1);
    let mut slot = std::fs::read(&journal.path).unwrap()[..SLOT_SIZE].to_vec();
    slot[8] = 2;
    let crc = crc32c::crc32c(&slot[..SLOT_SIZE - 4]);
    slot[SLOT_SIZE - 4..].copy_from_slice(&crc.to_le_bytes());
    journal.strike(0, &slot);
    let error = journal.view(false).unwrap_err();
    assert_eq!(error.code(), Code::NewerVersion);
    assert!(error.to_string().contains("upgrade"), "{error}");
}

#[test]
fn other_content_other_groups_and_nothing_are_told_apart() {
    let mut journal = Journal::with_epochs(1);
    journal.state.group_name = name();
    let other: GroupName = "vm2".parse().unwrap();
    journal.device = None;
    let view = View {
        path: &journal.path,
        group: &other,
        state: None,
        state_damage: None,
        daemon: false,
        all: false,
    };
    let error = view.take().unwrap_err();
    assert!(error.to_string().contains("belongs to group vm1"), "{error}");
    assert_eq!(error.code(), Code::Refused);
    journal.strike(0, &vec![0x55; 1 << 20]);
    let error = journal.view(false).unwrap_err();
    assert_eq!(error.code(), Code::Refused, "{error}");
    journal.strike(0, &vec![0; 1 << 20]);
    assert!(journal.view(false).unwrap_err().to_string().contains("blank"));
}

#[test]
fn a_journal_that_shrank_is_damaged() {
    let mut journal = Journal::with_epochs(1);
    journal.device = None;
    File::options().write(true).open(&journal.path).unwrap().set_len(8 << 20).unwrap();
    let error = journal.view(false).unwrap_err();
    assert_eq!(error.code(), Code::Damaged);
    assert!(error.to_string().contains("16777216"), "{error}");
}

#[test]
fn a_journal_older_than_the_state_is_damaged() {
    let mut journal = Journal::with_epochs(2);
    journal.state.highest_epoch_seen = Epoch(5);
    let (_, what) = journal.damaged(RING_START + 6 * BLOCK);
    assert!(what.contains("epoch 2") && what.contains("epoch 5"), "{what}");
}
