//! Each row of the decision table at the head of `recovery.rs`.

use super::*;
use crate::epoch::{EpochError, EpochTrailer};
use crate::frame::{FrameError, FrameKind, Stamp};
use crate::group::GroupDescription;
use crate::ids::Generation;

const STRANGER: Incarnation = Incarnation([0x55; 16]);

/// A journal of 64 blocks with two synced epochs, and the position behind them.
fn two_epochs() -> (Journal, u64) {
    let mut journal = Journal::new(64);
    assert!(journal.append(8192) && journal.append(8192));
    journal.sync();
    let head = journal.writer.head();
    (journal, head)
}

/// What lies at the end, between epochs, once `strike` has put it there.
fn between(strike: impl FnOnce(&mut Journal, u64)) -> Ended {
    let (mut journal, head) = two_epochs();
    strike(&mut journal, head);
    let recovery = journal.recover();
    assert_eq!((recovery.sealed.len(), recovery.end), (2, head));
    assert_eq!((recovery.floor, recovery.digest), (Epoch(2), journal.digest));
    assert_eq!(recovery.ended.unsealed, None);
    recovery.ended
}

/// The same behind the first frame of a third epoch.
fn inside(strike: impl FnOnce(&mut Journal, u64, &[Frame])) -> Ended {
    let (mut journal, start) = two_epochs();
    let frames = journal.begin(8192, 1);
    let head = journal.writer.head();
    strike(&mut journal, head, &frames);
    let recovery = journal.recover();
    assert_eq!((recovery.sealed.len(), recovery.end, recovery.floor), (2, start, Epoch(2)));
    assert_eq!(recovery.ended.unsealed, Some(Epoch(3)));
    recovery.ended
}

fn ordinary(ended: Ended) -> EndReason {
    assert_eq!(ended.class, EndClass::Ordinary, "{ended:?}");
    ended.reason
}

fn plain(kind: FrameKind, epoch: u64, seq: u64) -> Frame {
    let stamp = Stamp { epoch: Epoch(epoch), generation: 3, incarnation: INCARNATION };
    Frame::plain(kind, stamp, seq, Vec::new())
}

#[test]
fn row_1_the_tail_again() {
    let mut journal = Journal::new(8);
    while journal.append(0) {}
    let recovery = journal.recover();
    assert_eq!((recovery.sealed.len(), ordinary(recovery.ended)), (4, EndReason::RingEnd));
    let mut journal = Journal::new(4);
    journal.begin(3 * 4096 - 512, 2);
    let recovery = journal.recover();
    assert_eq!((recovery.ended.unsealed, recovery.end), (Some(Epoch(1)), 0));
    assert_eq!(ordinary(recovery.ended), EndReason::RingEnd);
}

#[test]
fn row_2_zeros() {
    assert_eq!(ordinary(between(|_, _| {})), EndReason::Blank);
    assert_eq!(ordinary(inside(|_, _, _| {})), EndReason::Blank);
}

#[test]
fn rows_3_and_4_no_header_that_can_be_read() {
    let version = |journal: &mut Journal, at: u64, field: std::ops::Range<usize>, value: u16| {
        journal.put(at, &plain(FrameKind::EpochBegin, 3, 0));
        let offset = journal.writer.superblock().ring.offset(at);
        journal.disk.strike(offset, |block| {
            block[field].copy_from_slice(&value.to_le_bytes());
            let crc = crc32c::crc32c(&block[..124]);
            block[124..128].copy_from_slice(&crc.to_le_bytes());
        });
    };
    let noise = |journal: &mut Journal, at| {
        let offset = journal.writer.superblock().ring.offset(at);
        journal.disk.strike(offset, |block| block.fill(0x5a));
    };
    for reason in [ordinary(between(noise)), ordinary(inside(|journal, at, _| noise(journal, at)))] {
        assert!(matches!(reason, EndReason::NotAFrame(FrameError::Magic { .. })));
    }
    let torn = between(|journal, at| {
        journal.put(at, &plain(FrameKind::EpochBegin, 3, 0));
        let offset = journal.writer.superblock().ring.offset(at);
        journal.disk.strike(offset, |block| block[24] ^= 1);
    });
    assert!(matches!(ordinary(torn), EndReason::NotAFrame(FrameError::HeaderChecksum { .. })));
    let newer = between(|journal, at| version(journal, at, 4..6, 2));
    assert!(matches!(ordinary(newer), EndReason::NotAFrame(FrameError::Version { found: 2, .. })));
    let unknown = inside(|journal, at, _| version(journal, at, 6..8, 0x7000));
    assert!(matches!(ordinary(unknown), EndReason::NotAFrame(FrameError::Kind { kind: 0x7000, .. })));
}

#[test]
fn row_5_remains_of_an_earlier_lap() {
    let old = plain(FrameKind::EpochData, 2, 1);
    let stale = EndReason::Stale { kind: FrameKind::EpochData, epoch: Epoch(2) };
    assert_eq!(ordinary(between(|journal, at| journal.put(at, &old))), stale);
    assert_eq!(ordinary(inside(|journal, at, _| journal.put(at, &old))), stale);
    // A whole lap: the head stands before what the lap before left.
    let mut journal = Journal::new(32);
    for _ in 0..20 {
        assert!(journal.append(8192));
        journal.apply(1, true);
    }
    let recovery = journal.recover();
    assert_eq!((recovery.sealed.len(), recovery.floor), (0, Epoch(20)));
    assert!(matches!(ordinary(recovery.ended), EndReason::Stale { .. }));
}

#[test]
fn row_6_frames_that_straddle_the_end_or_reach_the_tail() {
    let mut journal = Journal::new(16);
    assert!(journal.append(8192) && journal.append(8192));
    let (frames, _) = frames_of(journal.header(), 20_000);
    let mut long = frames[0].clone();
    // A first frame that claims more than the six blocks that are left.
    long.header.payload_len = 30_000;
    long.header.raw_len = 30_000;
    journal.put(journal.writer.head(), &long);
    let recovery = journal.recover();
    let misplaced = EndReason::Misplaced { kind: FrameKind::EpochBegin, epoch: Epoch(3) };
    assert_eq!(ordinary(recovery.ended), misplaced);
    // The same in the middle of the ring, in front of the tail.
    let mut journal = Journal::new(16);
    assert!(journal.append(8192) && journal.append(8192));
    journal.apply(2, true);
    assert!(journal.append(8192) && journal.append(8192));
    let head = journal.writer.head();
    long.header.epoch = Epoch(5);
    journal.put(head, &long);
    let recovery = journal.recover();
    assert_eq!((recovery.sealed.len(), recovery.end), (2, head));
    assert!(matches!(ordinary(recovery.ended), EndReason::Misplaced { .. }));
}

#[test]
fn rows_7_and_8_drop_markers() {
    let (mut journal, head) = two_epochs();
    let second = journal.sealed.pop().unwrap();
    let marker = journal.writer.drop_sealed(second.start, second.epoch).unwrap();
    journal.disk.write(marker.offset, &marker.block());
    let recovery = journal.recover();
    assert_eq!((recovery.sealed.len(), recovery.floor), (1, Epoch(2)));
    assert_eq!((recovery.end, recovery.digest), (second.start + 4096, journal.sealed[0].digest));
    // The superblock need not know of the drop: it is no damage.
    assert!(matches!(ordinary(recovery.ended), EndReason::Stale { .. }));
    // The next epoch follows the marker.
    journal.digest = journal.sealed[0].digest;
    assert!(journal.append(20_000));
    let recovery = journal.recover();
    assert_eq!(recovery.sealed.last().map(|last| last.epoch), Some(Epoch(3)));
    assert!(recovery.end > head);

    let misplaced = |epoch| EndReason::Misplaced { kind: FrameKind::JournalDrop, epoch: Epoch(epoch) };
    let forged = between(|journal, at| journal.put(at, &plain(FrameKind::JournalDrop, u64::MAX, 0)));
    assert_eq!(ordinary(forged), misplaced(u64::MAX));
    let within = inside(|journal, at, _| {
        let offset = journal.writer.superblock().ring.offset(at);
        let marker = Marker::drop(offset, Epoch(9), JOURNAL_ID);
        journal.disk.write(marker.offset, &marker.block());
    });
    assert_eq!(ordinary(within), misplaced(9));
}

#[test]
fn rows_9_and_10_pad_markers() {
    let mut journal = Journal::new(16);
    assert!(journal.append(8192) && journal.append(8192));
    journal.apply(2, true);
    // Six blocks are left: the data frame goes to the ring's start.
    assert!(journal.append(30_000));
    let recovery = journal.recover();
    assert_eq!(recovery.sealed.len(), 1);
    assert_eq!(recovery.end, journal.writer.head());
    let ring = journal.writer.superblock().ring;
    let Written { start, end, frames, .. } = journal.sealed[0].clone();
    let read: Result<Vec<_>, _> = EpochFrames::new(ring, &mut journal.disk, start, end).collect();
    assert_eq!(read, Ok(frames));

    let misplaced = EndReason::Misplaced { kind: FrameKind::JournalPad, epoch: Epoch(3) };
    let pad = |seq| plain(FrameKind::JournalPad, 3, seq);
    assert_eq!(ordinary(between(|journal, at| journal.put(at, &pad(1)))), misplaced);
    assert_eq!(ordinary(inside(|journal, at, _| journal.put(at, &pad(2)))), misplaced);
    // The right one leads to the ring's start, which is in use here.
    assert_eq!(ordinary(between(|journal, at| journal.put(at, &pad(0)))), EndReason::RingEnd);
    let mut other = pad(1);
    other.header.incarnation = STRANGER;
    assert_eq!(ordinary(inside(|journal, at, _| journal.put(at, &other))), misplaced);
}

#[test]
fn row_11_kinds_that_are_never_journalled() {
    for kind in [FrameKind::Staged, FrameKind::BaseData, FrameKind::Skippable(0x9000)] {
        let misplaced = EndReason::Misplaced { kind, epoch: Epoch(3) };
        assert_eq!(ordinary(between(|journal, at| journal.put(at, &plain(kind, 3, 0)))), misplaced);
        assert_eq!(ordinary(inside(|journal, at, _| journal.put(at, &plain(kind, 3, 1)))), misplaced);
    }
}

#[test]
fn row_12_torn_payloads() {
    let first = between(|journal, at| {
        let mut begin = journal.header().encode();
        begin.payload[5] ^= 1;
        journal.put(at, &begin);
    });
    assert!(matches!(ordinary(first), EndReason::Payload(FrameError::PayloadChecksum { .. })));
    let second = inside(|journal, at, frames| {
        let mut data = frames[1].clone();
        data.payload[5000] ^= 1;
        journal.put(at, &data);
    });
    assert!(matches!(ordinary(second), EndReason::Payload(FrameError::PayloadChecksum { .. })));
}

#[test]
fn row_13_an_epoch_inside_another() {
    let again = inside(|journal, at, frames| journal.put(at, &frames[0]));
    assert!(matches!(ordinary(again), EndReason::NotNext(EpochError::Unexpected { .. })));
}

#[test]
fn row_14_an_epoch_of_another_chain() {
    let other = between(|journal, at| {
        let header = EpochHeader { previous: Digest([9; 32]), ..journal.header() };
        journal.put(at, &header.encode());
    });
    assert!(matches!(ordinary(other), EndReason::OtherChain(EpochError::Chain { epoch: Epoch(3), .. })));
}

#[test]
fn row_15_an_epoch_of_another_group() {
    let other = between(|journal, at| {
        let mut header = journal.header();
        let volumes = header.group.volumes().to_vec();
        header.group = GroupDescription::new("vm2".parse().unwrap(), volumes).unwrap();
        journal.put(at, &header.encode());
    });
    assert_eq!(ordinary(other), EndReason::OtherGroup("vm2".parse().unwrap()));
}

#[test]
fn row_16_an_epoch_for_a_newer_version() {
    let newer = |incarnation, features_mandatory| {
        between(|journal, at| {
            let header = EpochHeader { incarnation, features_mandatory, ..journal.header() };
            journal.put(at, &header.encode());
        })
    };
    let refused = newer(INCARNATION, 1 << 63);
    assert_eq!(refused.class, EndClass::Refused);
    assert!(
        matches!(refused.reason, EndReason::Newer(EpochError::Features { unknown, .. }) if unknown == 1 << 63)
    );
    assert!(matches!(ordinary(newer(STRANGER, 1 << 63)), EndReason::Newer(_)));
    let protocol = between(|journal, at| {
        let header = EpochHeader { protocol: 1, ..journal.header() };
        journal.put(at, &header.encode());
    });
    assert_eq!(protocol.class, EndClass::Refused);
}

#[test]
fn rows_17_and_18_a_frame_that_is_not_the_next() {
    let not_next = |ended| matches!(ordinary(ended), EndReason::NotNext(EpochError::Unexpected { .. }));
    assert!(not_next(between(|journal, at| journal.put(at, &plain(FrameKind::EpochData, 3, 0)))));
    assert!(not_next(between(|journal, at| journal.put(at, &plain(FrameKind::EpochEnd, 3, 0)))));
    assert!(not_next(inside(|journal, at, _| journal.put(at, &plain(FrameKind::EpochData, 3, 2)))));
    assert!(not_next(inside(|journal, at, _| journal.put(at, &plain(FrameKind::EpochData, 4, 1)))));
    assert!(not_next(inside(|journal, at, frames| {
        let mut other = frames[1].clone();
        other.header.incarnation = STRANGER;
        journal.put(at, &other);
    })));
    // The next one is passed: what ends the scan lies behind it.
    let passed = inside(|journal, at, frames| journal.put(at, &frames[1]));
    assert_eq!(ordinary(passed), EndReason::Blank);
}

#[test]
fn rows_19_and_20_the_last_frame() {
    let wrong = inside(|journal, at, frames| {
        journal.put(at, &frames[1]);
        let said = EpochTrailer::decode(&frames[2]).unwrap();
        let wrong = EpochTrailer { digest: Digest([1; 32]), ..said }.encode(frames[2].header.stamp());
        journal.put(at + padded_len(&frames[1].header), &wrong);
    });
    assert!(matches!(ordinary(wrong), EndReason::WrongDigest(EpochError::Digest { epoch: Epoch(3), .. })));

    let (mut journal, _) = two_epochs();
    let recovery = journal.recover();
    for (found, written) in recovery.sealed.iter().zip(&journal.sealed) {
        assert_eq!((found.epoch, found.digest), (written.epoch, written.digest));
        assert_eq!((found.start, found.end), (written.start, written.end));
        assert_eq!((found.first_epoch, found.incarnation), (written.epoch, INCARNATION));
        assert_eq!(found.generation, Generation { number: 3, id: [0xee; 16] });
        assert!(found.commit_point);
    }
    assert_eq!((recovery.sealed.len(), recovery.floor), (2, Epoch(2)));
}

/// A journal of synced epochs of which the second was struck afterwards.
fn struck(epochs: usize, each_synced: bool) -> Journal {
    let mut journal = Journal::new(128);
    for _ in 0..epochs {
        assert!(journal.append(8192));
        if each_synced {
            journal.sync();
        }
    }
    let offset = journal.writer.superblock().ring.offset(journal.sealed[1].start);
    journal.disk.strike(offset + 4096, |block| block[1000] ^= 1);
    journal
}

#[test]
fn a_durable_epoch_that_is_gone_is_damage() {
    // Epoch 4 says that epoch 3 was staged.
    let mut journal = struck(4, true);
    let recovery = journal.recover();
    assert_eq!(recovery.sealed.len(), 1);
    let position = journal.sealed[3].start;
    let by = Evidence::LaterEpoch { epoch: Epoch(4), position };
    assert_eq!(recovery.ended.class, EndClass::Damaged { lost_through: Epoch(3), by });
    // The superblock says so where nothing later does.
    let mut journal = struck(2, true);
    let superblock = journal.writer.superblock_after(0, Epoch::NONE, Digest::ZERO);
    journal.write_superblock(&superblock, true);
    let class = journal.recover().ended.class;
    assert_eq!(class, EndClass::Damaged { lost_through: Epoch(2), by: Evidence::Superblock });
}

#[test]
fn what_may_never_have_been_durable_is_no_damage() {
    // Four epochs between two syncs: one of them lost and the next whole is a crash like any other.
    let recovery = struck(4, false).recover();
    assert_eq!((recovery.sealed.len(), recovery.ended.class), (1, EndClass::Ordinary));
    assert!(matches!(recovery.ended.reason, EndReason::Payload(_)));
}

#[test]
fn a_witness_that_a_guest_could_forge_does_not_count() {
    let mut journal = struck(2, false);
    let forged = EpochHeader {
        incarnation: STRANGER,
        staged: Epoch(1 << 40),
        ..epoch_header((1 << 40) + 1, Digest::ZERO)
    };
    journal.put(journal.writer.head() + 8192, &forged.encode());
    assert_eq!(journal.recover().ended.class, EndClass::Ordinary);
}

#[test]
fn an_accepted_damage_stays_accepted() {
    let mut journal = struck(4, true);
    let recovery = journal.recover();
    let EndClass::Damaged { lost_through, .. } = recovery.ended.class else { panic!("{recovery:?}") };
    let (superblock, _) = journal.superblock();
    journal.writer = JournalWriter::new(superblock, &recovery);
    let marker = journal.writer.drop_sealed(recovery.end, lost_through).unwrap();
    journal.disk.write(marker.offset, &marker.block());
    let again = journal.recover();
    assert_eq!((again.ended.class, again.floor), (EndClass::Ordinary, Epoch(3)));
    journal.digest = recovery.digest;
    journal.next = 5;
    assert!(journal.append(8192));
    let last = journal.recover();
    assert_eq!(last.sealed.last().map(|last| last.epoch), Some(Epoch(5)));
    assert_eq!(last.ended.class, EndClass::Ordinary);
}

#[test]
fn row_21_where_the_superblock_says_that_epochs_were_dropped() {
    let (mut journal, head) = two_epochs();
    let second = journal.sealed[1].clone();
    // Known to be durable, and so missed unless it is known to be dropped.
    journal.writer.drop_from(second.start, Epoch::NONE);
    let superblock = journal.writer.superblock_now();
    assert_eq!(superblock.synced, Epoch(2));
    journal.write_superblock(&superblock, true);
    journal.disk.sync();
    let recovery = journal.recover();
    assert_eq!((recovery.sealed.len(), recovery.end, recovery.floor), (1, second.start, Epoch(2)));
    let stale = EndReason::Stale { kind: FrameKind::EpochBegin, epoch: Epoch(2) };
    assert_eq!(ordinary(recovery.ended), stale);
    // A torn frame behind it is no loss either; the next epoch continues what is kept.
    journal.digest = journal.sealed[0].digest;
    journal.sealed.truncate(1);
    assert!(journal.append(8192));
    journal.sync();
    let recovery = journal.recover();
    let epochs: Vec<u64> = recovery.sealed.iter().map(|sealed| sealed.epoch.0).collect();
    assert_eq!(epochs, [1, 3]);
    assert!(recovery.end >= head);
}

/// The end of what was found, once the blocks at these positions cannot be read.
fn unreadable(journal: &mut Journal, positions: impl IntoIterator<Item = u64>) -> Recovery {
    journal.disk.sync();
    let ring = journal.writer.superblock().ring;
    journal.disk.bad = positions.into_iter().map(|position| ring.offset(position)).collect();
    journal.recover()
}

#[test]
fn row_22_a_place_that_cannot_be_read_is_damage_of_that_place_alone() {
    let block = BLOCK_LEN as u64;
    let (mut journal, head) = two_epochs();
    // Anywhere behind the end it hides nothing, also where the search for evidence comes by.
    for at in 1..40 {
        assert_eq!(ordinary(unreadable(&mut journal, [head + at * block]).ended), EndReason::Blank);
    }
    let hidden = |epoch| EndClass::Damaged { lost_through: Epoch(epoch), by: Evidence::Unreadable };
    // At the end: one block is too small for an epoch, two are not.
    let one = unreadable(&mut journal, [head]);
    assert_eq!((one.sealed.len(), ordinary(one.ended)), (2, EndReason::Unreadable("I/O error".into())));
    assert_eq!(unreadable(&mut journal, [head, head + block]).ended.class, hidden(3));
    // Of an epoch that is there, any block: the epochs before it are whole, and it is not passed over in silence.
    let (start, end) = (journal.sealed[1].start, journal.sealed[1].end);
    for position in (start..end).step_by(BLOCK_LEN) {
        let found = unreadable(&mut journal, [position]);
        assert_eq!((found.sealed.len(), found.floor), (1, Epoch(1)), "{position}");
        assert_eq!(found.ended.class, hidden(2), "{position}");
    }
    // Where no epoch is left to name the primary, its frames' numbers are not believed: at least one is lost.
    let first = journal.sealed[0].start;
    assert_eq!(unreadable(&mut journal, [first]).ended.class, hidden(1));
}

#[test]
fn row_22_numbers_of_frames_that_a_guest_could_forge_are_not_believed() {
    let (mut journal, head) = two_epochs();
    let stamp = Stamp { epoch: Epoch(u64::MAX), generation: 3, incarnation: STRANGER };
    journal.put(head + 8192, &Frame::plain(FrameKind::EpochData, stamp, 5, Vec::new()));
    let found = unreadable(&mut journal, [head]);
    let by = Evidence::Unreadable;
    assert_eq!(found.ended.class, EndClass::Damaged { lost_through: Epoch(3), by });
}
