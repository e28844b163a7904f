//! A model of what lies between a guest's writes and the log: log-writes, dm-era and a device, which
//! order everything that the kernel may order. Random histories of it are captured, cut and folded by
//! the code under test; every epoch has to be what the modelled device held at its cut.
//!
//! What the model knows of the kernel (6.1, drivers/md/dm-log-writes.c, dm-era-target.c, dm.c):
//! - The copy of a write is taken when it is submitted. When it completes, also with an error, it joins the
//!   unflushed list; with FUA it joins the queue of what is to be logged at once.
//! - A flush takes the unflushed list along when it is submitted, and queues it when it completes.
//!   Flushes in flight complete in any order. A mark is queued at once.
//! - One thread logs the queue from its head. The super is rewritten after FUA writes and marks only.
//! - dm-era splits a write at its blocks and delays any of the parts; parts of all writes in flight reach
//!   the device in any order, and there sector by sector: overlapping writes mix. A write that fails has
//!   changed any of its sectors, or none. A write completes when all of its parts have.
//! - A suspend lets what is in flight complete and keeps later ones back until the resume.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::io;

use proptest::prelude::*;

use super::truth::Plan;
use super::*;
use crate::log_writes::BlockRead;
use crate::log_writes::epoch_log::PiecePool;
use crate::log_writes::format::{FLUSH, FUA, LogSector, MARK};
use crate::log_writes::reader::LogReader;

const VOLUME: u64 = 96;
/// Sectors of a dm-era block.
const BLOCK: u64 = 16;
const LOG_SECTORS: u64 = 1 << 15;

/// What a sector holds: the number of the write that it is from, 0 for zeroes.
type Content = u64;

/// The log device, and the thread that fills it.
struct Log {
    unit: u64,
    bytes: Vec<u8>,
    next: u64,
    entries: u64,
}

impl BlockRead for Log {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.bytes.read_at(offset, buffer)
    }
}

/// One entry on its way to the log.
#[derive(Clone, Debug)]
struct Pending {
    start: u64,
    len: u64,
    flags: u64,
    fill: Content,
    text: &'static [u8],
}

impl Log {
    fn new(unit: u64) -> Self {
        Self { unit, bytes: vec![0; bytes(Sectors(LOG_SECTORS))], next: unit, entries: 0 }
    }

    fn write(&mut self, block: &Pending) {
        let at = bytes(Sectors(self.next));
        let fields = [block.start / self.unit, block.len / self.unit, block.flags, block.text.len() as u64];
        for (i, field) in fields.into_iter().enumerate() {
            self.bytes[at + i * 8..][..8].copy_from_slice(&field.to_le_bytes());
        }
        self.bytes[at + 32..][..block.text.len()].copy_from_slice(block.text);
        let data = &mut self.bytes[at + bytes(Sectors(self.unit))..][..bytes(Sectors(block.len))];
        data.as_chunks_mut().0.fill(block.fill.to_le_bytes());
        self.next += self.unit + block.len;
        self.entries += 1;
        if block.flags & (FUA | MARK) != 0 {
            self.bytes[..8].copy_from_slice(&0x006a_7366_7773_6872u64.to_le_bytes());
            self.bytes[8..16].copy_from_slice(&1u64.to_le_bytes());
            self.bytes[16..24].copy_from_slice(&self.entries.to_le_bytes());
            self.bytes[24..28].copy_from_slice(&u32::try_from(self.unit * 512).unwrap().to_le_bytes());
        }
    }
}

/// A part of a write below dm-era.
#[derive(Debug)]
struct Part {
    /// Sectors that have not reached the device.
    left: BTreeSet<u64>,
    /// It waits for dm-era's metadata.
    deferred: bool,
}

#[derive(Debug)]
enum InFlight {
    Write {
        block: Pending,
        parts: Vec<Part>,
        fails: bool,
    },
    /// What it took along.
    Flush {
        taken: Vec<Pending>,
    },
}

/// What a guest does.
#[derive(Clone, Debug)]
enum Op {
    Write { start: u64, len: u64, fua: bool, zero: bool, fails: bool },
    Flush,
}

/// Draws the kernel's choices.
struct Choices(u64);

impl Choices {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % limit.max(1) as u64).unwrap()
    }
}

struct Kernel {
    log: Log,
    device: Vec<Content>,
    in_flight: Vec<InFlight>,
    unflushed: Vec<Pending>,
    queue: VecDeque<Pending>,
    /// Kept back by a suspend.
    kept_back: Option<Vec<Op>>,
    writes: Content,
    /// Sectors that only a failed write covers in this epoch: nobody knows what they hold.
    unstable: BTreeSet<u64>,
    written_in_epoch: Vec<u32>,
}

impl Kernel {
    fn new(unit: u64) -> Self {
        Self {
            log: Log::new(unit),
            device: vec![0; usize::try_from(VOLUME).unwrap()],
            in_flight: Vec::new(),
            unflushed: Vec::new(),
            queue: VecDeque::new(),
            kept_back: None,
            writes: 0,
            unstable: BTreeSet::new(),
            written_in_epoch: vec![0; usize::try_from(VOLUME).unwrap()],
        }
    }

    fn submit(&mut self, op: &Op) {
        if let Some(kept_back) = &mut self.kept_back {
            return kept_back.push(op.clone());
        }
        let Op::Write { start, len, fua, zero, fails } = *op else { return self.flush() };
        let unit = self.log.unit;
        let (start, end) = (start / unit * unit, (start + len).div_ceil(unit) * unit);
        self.writes += 1;
        let fill = if zero { 0 } else { self.writes };
        let flags = if fua { FUA } else { 0 };
        let block = Pending { start, len: end - start, flags, fill, text: b"" };
        let parts = (start / BLOCK..end.div_ceil(BLOCK))
            .map(|era_block| Part {
                left: (start.max(era_block * BLOCK)..end.min((era_block + 1) * BLOCK)).collect(),
                deferred: true,
            })
            .collect();
        for sector in start..end {
            let count = &mut self.written_in_epoch[usize::try_from(sector).unwrap()];
            *count += 1;
            // Alone, a failed write leaves what nobody knows; with another one the device is asked.
            if fails && *count == 1 {
                self.unstable.insert(sector);
            } else {
                self.unstable.remove(&sector);
            }
        }
        self.in_flight.push(InFlight::Write { block, parts, fails });
    }

    /// Below the visible device, so also while that is suspended.
    fn flush(&mut self) {
        self.in_flight.push(InFlight::Flush { taken: std::mem::take(&mut self.unflushed) });
    }

    fn mark(&mut self, text: &'static [u8]) {
        self.queue.push_back(Pending { start: 0, len: 0, flags: MARK, fill: 0, text });
    }

    /// One thing happens, if anything can.
    fn advance(&mut self, choices: &mut Choices) -> bool {
        let events = self.in_flight.len() + usize::from(!self.queue.is_empty());
        if events == 0 {
            return false;
        }
        let event = choices.below(events);
        let Some(bio) = self.in_flight.get_mut(event) else {
            let block = self.queue.pop_front().expect("an event of the queue");
            self.log.write(&block);
            return true;
        };
        if let InFlight::Write { block, parts, fails } = bio
            && !parts.is_empty()
        {
            let chosen = choices.below(parts.len());
            let part = &mut parts[chosen];
            if part.deferred {
                part.deferred = false;
            } else if part.left.is_empty() || (*fails && choices.below(3) == 0) {
                parts.swap_remove(chosen);
            } else {
                for _ in 0..=choices.below(4) {
                    let nth = choices.below(part.left.len());
                    let Some(sector) = part.left.iter().nth(nth).copied() else { break };
                    part.left.remove(&sector);
                    self.device[usize::try_from(sector).unwrap()] = block.fill;
                }
            }
            return true;
        }
        match self.in_flight.swap_remove(event) {
            InFlight::Write { block, .. } if block.flags & FUA != 0 => self.queue.push_back(block),
            InFlight::Write { block, .. } => self.unflushed.push(block),
            InFlight::Flush { taken } => {
                self.queue.extend(taken);
                self.queue.push_back(Pending { start: 0, len: 0, flags: FLUSH, fill: 0, text: b"" });
            }
        }
        true
    }

    fn drain_device(&mut self, choices: &mut Choices) {
        while !self.in_flight.is_empty() {
            self.advance(choices);
        }
    }
}

/// The code under test, and what it has made so far.
struct Shipper {
    reader: LogReader,
    replica: Vec<Content>,
    log_order: Vec<Content>,
    epoch: EpochLog,
    plan: Plan,
    sorted: usize,
    /// Reads again in the pause what was touched since it was read live.
    rechecks: bool,
    /// Runs that were read live.
    live: usize,
    suspects: usize,
    log_order_wrong: usize,
}

impl Shipper {
    fn new(unit: u64, rechecks: bool) -> Self {
        let sector = LogSector::new(u32::try_from(unit * 512).unwrap()).unwrap();
        let fresh = vec![0; usize::try_from(VOLUME).unwrap()];
        Self {
            reader: LogReader::new(sector, Sectors(VOLUME), Sectors(LOG_SECTORS)),
            replica: fresh.clone(),
            log_order: fresh,
            epoch: EpochLog::default(),
            plan: Plan::default(),
            sorted: 0,
            rechecks,
            live: 0,
            suspects: 0,
            log_order_wrong: 0,
        }
    }

    /// Flushes, marks, and reads what is logged by then, and then suspects, while writers go on.
    fn follow(&mut self, kernel: &mut Kernel, choices: &mut Choices) {
        kernel.flush();
        kernel.mark(b"tick");
        for _ in 0..choices.below(40) {
            kernel.advance(choices);
        }
        self.reader.follow(&kernel.log, &mut self.epoch, |_| ()).unwrap();
        self.sort();
        self.sorted = self.epoch.entries.len();
        self.plan();
        let truth = self.epoch.truth.len();
        self.plan.keep(Sector(choices.below(64) as u64), 1 + choices.below(4), truth);
        self.live += self.plan.size();
        for read in 0..self.plan.reads.len() {
            for _ in 0..choices.below(10) {
                kernel.advance(choices);
            }
            self.read(read, &kernel.device);
        }
        self.plan.done(&mut self.epoch);
        self.sort();
    }

    /// Makes the numbers of all entries, the two parts of them sorted.
    fn sort(&mut self) {
        let EpochLog { entries, order, .. } = &mut self.epoch;
        order.clear();
        order.extend(0..u32::try_from(entries.len()).unwrap());
        let (head, tail) = order.split_at_mut(self.sorted);
        sort(entries, head);
        sort(entries, tail);
    }

    fn plan(&mut self) {
        if !self.rechecks {
            self.epoch.looked_at = self.epoch.entries.len();
        }
        self.plan.make(&mut self.epoch, self.sorted);
    }

    /// Reads one of the planned runs.
    fn read(&mut self, number: usize, device: &[Content]) {
        let run = self.plan.reads[number];
        let from = usize::try_from(run.start().0).unwrap();
        let fill = |done: usize, part: &mut [u8]| {
            for (i, sector) in part.chunks_mut(SECTOR_SIZE).enumerate() {
                let value = device[from + done / SECTOR_SIZE + i];
                sector.as_chunks_mut().0.fill(value.to_le_bytes());
            }
            Ok(())
        };
        self.epoch.truth.append(bytes(run.len()), fill).unwrap();
    }

    /// Cuts as [`crate::cut`] does: drained, flushed, marked, suspects read, and only then resumed.
    fn cut(&mut self, kernel: &mut Kernel, choices: &mut Choices) -> Result<(), TestCaseError> {
        kernel.kept_back = Some(Vec::new());
        kernel.drain_device(choices);
        kernel.flush();
        kernel.drain_device(choices);
        kernel.mark(b"cut");
        let mut seen = false;
        while !seen {
            kernel.advance(choices);
            let on_mark = |text: &[u8]| seen |= text == b"cut";
            self.reader.scan(&kernel.log, &mut self.epoch, on_mark, |_| true).unwrap();
        }
        self.read_suspects(&kernel.device);
        let device = kernel.device.clone();
        let unknown = std::mem::take(&mut kernel.unstable);
        kernel.written_in_epoch.fill(0);
        for op in kernel.kept_back.take().into_iter().flatten() {
            kernel.submit(&op);
        }
        for _ in 0..choices.below(40) {
            kernel.advance(choices);
        }
        // While the volume runs again.
        self.reader.fetch(&kernel.log, &mut self.epoch).unwrap();
        self.apply();
        let wrong = |replica: &[Content]| {
            (0..VOLUME).zip(replica.iter().zip(&device)).find_map(|(sector, (ours, theirs))| {
                (ours != theirs && !unknown.contains(&sector)).then_some((sector, *ours, *theirs))
            })
        };
        prop_assert_eq!(wrong(&self.replica), None, "(sector, replica, device)");
        self.log_order_wrong += usize::from(wrong(&self.log_order).is_some());
        self.replica.copy_from_slice(&device);
        self.log_order.copy_from_slice(&device);
        self.epoch.clear(&PiecePool::default(), 0);
        self.sorted = 0;
        Ok(())
    }

    fn read_suspects(&mut self, device: &[Content]) {
        self.sort();
        self.plan();
        for read in 0..self.plan.reads.len() {
            self.read(read, device);
        }
        self.plan.done(&mut self.epoch);
        self.suspects += self.epoch.suspects.len();
        let EpochLog { entries, order, .. } = &mut self.epoch;
        sort(entries, order);
    }

    fn apply(&mut self) {
        let replica = &mut self.replica;
        let Ok(()) = fold::<Infallible>(&self.epoch, |extent, content| {
            let to = &mut replica[usize::try_from(extent.start().0).unwrap()..]
                [..usize::try_from(extent.len().0).unwrap()];
            match content {
                super::Content::Data(data) => to.copy_from_slice(&contents(data)),
                super::Content::Zero => to.fill(0),
                super::Content::Unknown => unreachable!("nothing was discarded"),
            }
            Ok(())
        });
        for entry in self.epoch.entries() {
            let logged: Vec<u8> = self.epoch.logged(entry).flatten().copied().collect();
            let at = usize::try_from(entry.extent.start().0).unwrap();
            let values = contents(&logged);
            self.log_order[at..at + values.len()].copy_from_slice(&values);
        }
    }
}

/// What sectors hold; each is checked to hold one write's content throughout.
fn contents(data: &[u8]) -> Vec<Content> {
    data.chunks(SECTOR_SIZE)
        .map(|sector| {
            let words = sector.as_chunks::<8>().0;
            assert!(words.iter().all(|word| word == &words[0]), "a torn sector");
            Content::from_le_bytes(words[0])
        })
        .collect()
}

#[derive(Clone, Debug)]
enum Step {
    Guest(Op),
    /// So many things happen.
    Kernel(usize),
    Follow,
    Cut,
}

fn step() -> impl Strategy<Value = Step> {
    // Most writes meet others.
    let start = prop_oneof![3 => 0..24u64, 1 => 0..VOLUME - 32];
    let write = (start, 1..32u64, 0..4u8, 0..12u8, 0..16u8).prop_map(|(start, len, fua, zero, fails)| {
        Step::Guest(Op::Write { start, len, fua: fua == 0, zero: zero == 0, fails: fails == 0 })
    });
    prop_oneof![
        6 => write,
        2 => Just(Step::Guest(Op::Flush)),
        6 => (1..30usize).prop_map(Step::Kernel),
        1 => Just(Step::Follow),
        1 => Just(Step::Cut),
    ]
}

/// What a history came to.
struct Run {
    /// At how many cuts a fold in the log's order would have been wrong.
    log_order_wrong: usize,
    suspects: usize,
    /// Suspects that were read while writers went on.
    live: usize,
}

/// Runs one history.
fn run(steps: &[Step], seed: u64, unit: u64, rechecks: bool) -> Result<Run, TestCaseError> {
    let mut choices = Choices(seed | 1);
    let mut kernel = Kernel::new(unit);
    let mut shipper = Shipper::new(unit, rechecks);
    for step in steps {
        match step {
            Step::Guest(op) => kernel.submit(op),
            Step::Kernel(events) => {
                for _ in 0..*events {
                    kernel.advance(&mut choices);
                }
            }
            Step::Follow => shipper.follow(&mut kernel, &mut choices),
            Step::Cut => shipper.cut(&mut kernel, &mut choices)?,
        }
    }
    shipper.cut(&mut kernel, &mut choices)?;
    let Shipper { log_order_wrong, suspects, live, .. } = shipper;
    Ok(Run { log_order_wrong, suspects, live })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn an_epoch_is_the_device_at_its_cut(
        steps in proptest::collection::vec(step(), 1..60),
        seed in any::<u64>(),
        unit in prop_oneof![Just(1u64), Just(8u64)],
    ) {
        run(&steps, seed, unit, true)?;
    }
}

/// The same histories tell a fold that believes the log's order.
#[test]
fn the_order_of_the_log_would_be_wrong() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut wrong, mut suspects) = (0, 0);
    for seed in 1..=500 {
        let steps = proptest::collection::vec(step(), 60).new_tree(&mut runner).unwrap().current();
        let run = run(&steps, seed * 0x9E37_79B9, 1, true).unwrap();
        wrong += usize::from(run.log_order_wrong > 0);
        suspects += run.suspects;
    }
    assert!(wrong > 50, "wrong in {wrong} of 500 histories");
    assert!(suspects > 500, "{suspects} suspects");
}

/// The same histories find a pause that believes what was read live, whatever was written since.
#[test]
fn what_was_read_live_has_to_be_read_again_where_it_was_touched() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut wrong, mut live) = (0, 0);
    for seed in 1..=500 {
        let steps = proptest::collection::vec(step(), 60).new_tree(&mut runner).unwrap().current();
        wrong += usize::from(run(&steps, seed * 0x9E37_79B9, 1, false).is_err());
        live += run(&steps, seed * 0x9E37_79B9, 1, true).unwrap().live;
    }
    assert!(wrong > 20, "wrong in {wrong} of 500 histories");
    assert!(live > 200, "{live} suspects were read live");
}
