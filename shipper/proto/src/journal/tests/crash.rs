//! Random lives of a journal, with crashes that lose and tear what was not synced.

use proptest::prelude::*;

use super::*;
use crate::testing::noise;

#[derive(Clone, Debug)]
enum Op {
    /// A whole epoch of this many bytes.
    Append(usize),
    /// An epoch that breaks off after its first frames.
    BreakOff(usize),
    Sync,
    /// Apply this share of what is sealed; the superblock is lost in a crash when false.
    Apply(usize, bool),
    /// Drop from this share on.
    Drop(usize),
    /// The device keeps a random part of what was not synced: about this many of 256 sectors.
    Crash(u64, u8),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0usize..40_000).prop_map(Op::Append),
        2 => (0usize..40_000).prop_map(Op::BreakOff),
        2 => Just(Op::Sync),
        3 => (0usize..8, any::<bool>()).prop_map(|(count, durable)| Op::Apply(count, durable)),
        1 => (0usize..8).prop_map(Op::Drop),
        3 => (any::<u64>(), prop_oneof![Just(0u8), Just(128), Just(250), any::<u8>()])
            .prop_map(|(seed, share)| Op::Crash(seed, share)),
    ];
    prop::collection::vec(op, 1..40)
}

impl Journal {
    fn run(&mut self, op: Op) {
        match op {
            Op::Append(len) => {
                self.append(len);
            }
            Op::BreakOff(len) => {
                let (frames, _) = frames_of(self.header(), len);
                let frames = &frames[..frames.len() - 1];
                let _ = frames.iter().try_for_each(|frame| self.place(frame));
                self.writer.drop_open();
                // The primary does not use the number again for other content.
                self.next += 1;
            }
            Op::Sync => self.sync(),
            Op::Apply(count, durable) => {
                self.apply(count.min(self.sealed.len()), durable);
                if !durable {
                    self.crash(count as u64, 128);
                }
            }
            Op::Drop(at) => self.drop_from(at),
            Op::Crash(seed, share) => self.crash(seed, share),
        }
    }

    fn drop_from(&mut self, at: usize) {
        let at = at.min(self.sealed.len());
        let start = self.sealed.get(at).map_or(self.writer.head(), |first| first.start);
        let Ok(marker) = self.writer.drop_sealed(start, Epoch(self.next)) else { return };
        self.disk.write(marker.offset, &marker.block());
        self.disk.sync();
        self.sealed.truncate(at);
        self.digest = self.sealed.last().map_or(self.writer.superblock().tail_digest, |last| last.digest);
        self.synced = self.sealed.last().map_or(self.writer.superblock().tail_epoch, |last| last.epoch);
        self.next += 1;
    }

    /// Loses a part of what was not synced, recovers, and checks what recovery found.
    fn crash(&mut self, seed: u64, share: u8) {
        let mut dice = noise(seed, 8192).into_iter().cycle();
        self.disk.crash(|_| dice.next().unwrap() < share);
        let (superblock, chosen) = self.superblock();
        let recovery = recover(&superblock, &mut self.disk);
        assert_eq!(recovery.ended.class, EndClass::Ordinary, "a crash is no damage: {:?}", recovery.ended);

        // A superblock that made it to the disk moved the tail.
        let tail = superblock.tail_epoch;
        assert!(tail >= self.writer.superblock().tail_epoch);
        let sealed: Vec<Written> = self.sealed.iter().filter(|one| one.epoch > tail).cloned().collect();
        let found = recovery.sealed.iter().map(|one| (one.epoch, one.digest, one.start, one.end));
        let found: Vec<_> = found.collect();
        let expected: Vec<_> = sealed.iter().map(|one| (one.epoch, one.digest, one.start, one.end)).collect();
        assert!(expected.starts_with(&found), "only what was sealed: {found:?} of {expected:?}");
        let last = found.last().map_or(tail, |last| last.0);
        assert!(last >= self.synced, "the last synced seal: {last} is before {}", self.synced);
        for one in &sealed[..found.len()] {
            let frames = EpochFrames::new(superblock.ring, &mut self.disk, one.start, one.end);
            assert_eq!(frames.collect::<Result<Vec<_>, _>>().as_ref(), Ok(&one.frames));
        }

        // A new primary goes on from there, above all numbers ever used.
        self.sealed = sealed[..found.len()].to_vec();
        self.digest = recovery.digest;
        self.writer = JournalWriter::new(superblock.clone(), &recovery);
        // A start makes the slots alike before anything else.
        self.sequence = chosen.sequence;
        self.write_superblock(&superblock, true);
        self.synced = last;
        let id = noise(seed ^ self.next, 16);
        self.incarnation = Incarnation(id.try_into().unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn what_was_synced_survives_any_crash(blocks in 12u64..80, ops in ops()) {
        let mut journal = Journal::new(blocks);
        journal.disk.sync();
        for op in ops {
            journal.run(op);
        }
        journal.crash(1, 0);
    }

    #[test]
    fn no_bytes_make_recovery_panic_or_believe(
        seed in any::<u64>(),
        strikes in prop::collection::vec((0usize..64 * 4096, any::<u8>()), 1..40),
        appends in prop::collection::vec(0usize..20_000, 0..6),
    ) {
        let mut journal = Journal::new(64);
        journal.disk.strike(RING_START, |_| {});
        let start = usize::try_from(RING_START).unwrap();
        journal.disk.durable[start..].copy_from_slice(&noise(seed, 64 * 4096));
        prop_assert_eq!(journal.recover().sealed.len(), 0);
        for len in appends {
            journal.append(len);
        }
        journal.disk.sync();
        for (at, value) in strikes {
            journal.disk.durable[start + at] = value;
        }
        // Whatever was struck, what comes out was sealed so.
        let found = journal.recover().sealed;
        prop_assert!(found.len() <= journal.sealed.len());
        for (found, written) in found.iter().zip(&journal.sealed) {
            prop_assert_eq!((found.digest, found.start), (written.digest, written.start));
        }
    }
}

#[test]
fn every_kill_point_of_an_append_keeps_what_was_synced() {
    let mut whole = Journal::new(64);
    assert!(whole.append(8192));
    whole.sync();
    assert!(whole.append(20_000));
    let pending: Vec<usize> = whole.disk.pending.keys().copied().collect();
    for kept in 0..=pending.len() {
        let mut journal = Journal::new(64);
        journal.append(8192);
        journal.sync();
        journal.append(20_000);
        journal.disk.crash(|sector| pending[..kept].contains(&sector));
        let recovery = journal.recover();
        // Zeros pad the last block: the epoch is whole before they are there.
        let end_sector = pending.len() - 7;
        assert_eq!(recovery.sealed.len(), if kept >= end_sector { 2 } else { 1 }, "{kept}");
        assert_eq!(recovery.ended.class, EndClass::Ordinary);
    }
}
