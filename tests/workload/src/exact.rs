//! Proves cuts exact on a real kernel: captures a stack under load, cuts it again and again, folds every
//! epoch into a replica in memory, and compares the replica with the volume as it was read in the pause.
//!
//! A second replica believes the order of the log, which is not the order of the writes: it shows that
//! the load tells right from wrong.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::path::Path;
use std::slice;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use ftdm::block_io::AlignedBuffer;
use ftdm::capture::Capture;
use ftdm::capture::memory::CaptureMemory;
use ftdm::capture::ram_disks::{LogPair, load_brd};
use ftdm::cut::{CutMode, CutOutcome, CutRequest, CutStats, cut};
use ftdm::fold::{Content, fold};
use ftdm::ioctl::{DmControl, enter_io_path};
use ftdm::log_writes::epoch_log::EpochLog;
use ftdm::pause::pulse::unwatched;
use ftdm::stack::Stack;
use ftdm::stack::era_device::{EraControl, EraReader};
use ftdm::units::{Extent, SECTOR_SIZE, Sector, Sectors};

/// How the volume is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) cuts: u64,
    pub(crate) interval: Duration,
    pub(crate) budget: Duration,
    pub(crate) rotate_above: u64,
    /// Every second pause is ended by somebody else: such cuts have to be void.
    pub(crate) resumed_behind: bool,
}

#[derive(Default)]
struct Tally {
    taken: u64,
    void: u64,
    resumed: u64,
    wrong: u64,
    log_order_wrong: u64,
    bytes: u64,
    stats: Vec<CutStats>,
}

/// The volume folded as it should be, folded in the order of the log, and room to read it.
struct Images {
    replica: AlignedBuffer,
    log_order: AlignedBuffer,
    truth: AlignedBuffer,
}

/// Cuts `name` as planned, with logs on `logs`. Says what it saw.
///
/// # Errors
/// When a replica differed, a cut that had to be void was taken, or the load cannot show a difference.
pub(crate) fn run(name: &str, logs: [&Path; 2], plan: Plan) -> anyhow::Result<String> {
    enter_io_path()?;
    let mut stack = Stack::open(&name.parse()?)?;
    stack.refuse_discards();
    let size = bytes_of(stack.size());
    // All memory before the capture: where a page fault is slow the log would fill meanwhile.
    let mut images = Images {
        replica: AlignedBuffer::new(size),
        log_order: AlignedBuffer::new(size),
        truth: AlignedBuffer::new(size),
    };
    let reader = EraReader::open(&stack)?;
    load_brd(2, Sectors(128 << 10))?;
    let pair = LogPair::open(logs[0], logs[1])?;
    let mut base = |era: &mut EraControl<'_>| {
        era.flush()?;
        read_all(&reader, images.replica.bytes_mut())
    };
    let mut capture = Capture::start(&stack, pair, CaptureMemory::default(), Some(&mut base), unwatched())?;
    images.log_order.bytes_mut().copy_from_slice(images.replica.bytes());
    let tally = cut_repeatedly(&mut capture, plan, &mut images)?;
    capture.stop()?;
    let said = report(&tally);
    ensure!(tally.wrong == 0, "{} of {} epochs are wrong\n{said}", tally.wrong, tally.taken);
    ensure!(!plan.resumed_behind || tally.resumed > 0, "no cut was resumed behind its back\n{said}");
    Ok(said)
}

fn cut_repeatedly(capture: &mut Capture, plan: Plan, images: &mut Images) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let mut operator = DmControl::open()?;
    let top = capture.stack().top();
    let mut next = Instant::now();
    let mut tries = 0_u64;
    while tally.taken < plan.cuts {
        next += plan.interval;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        next = next.max(Instant::now() - plan.interval);
        tries += 1;
        let behind = plan.resumed_behind && tries.is_multiple_of(2);
        let mut reached = false;
        let truth = &mut images.truth;
        let mut look = |_, era: &EraReader| {
            reached = true;
            if behind {
                operator.resume(top).expect("the device is there");
                std::thread::sleep(Duration::from_millis(20));
            }
            read_all(era, truth.bytes_mut()).expect("the volume is readable");
        };
        let request = CutRequest {
            mode: CutMode::Suspend,
            epoch: tally.taken + 1,
            budget: plan.budget,
            roll: false,
            may_rest: false,
            rotate_above: Some(plan.rotate_above),
            hold: false,
            in_pause: Some(&mut look),
        };
        match cut(slice::from_mut(capture), request)? {
            CutOutcome::Idle => bail!("a cut that may not rest was left out"),
            CutOutcome::Void { .. } if behind && reached => tally.resumed += 1,
            CutOutcome::Void { reason, .. } => {
                tally.void += 1;
                if tally.void <= 20 {
                    println!("void: {reason}");
                }
            }
            CutOutcome::Taken { .. } if behind => bail!("cut {} was taken although resumed", tally.taken + 1),
            CutOutcome::Taken { logs, stats } => {
                tally.taken += 1;
                let Ok([log]) = <[EpochLog; 1]>::try_from(logs) else { bail!("one volume was cut") };
                judge(&mut tally, &log, images);
                tally.stats.push(stats);
                capture.recycle(log);
                if tally.taken.is_multiple_of(50) {
                    println!("{} cuts", tally.taken);
                }
            }
        }
    }
    Ok(tally)
}

fn judge(tally: &mut Tally, log: &EpochLog, images: &mut Images) {
    tally.bytes += log.bytes() as u64;
    apply(log, images);
    let truth = images.truth.bytes();
    if images.replica.bytes() != truth {
        tally.wrong += 1;
        let mut pairs = images.replica.bytes().iter().zip(truth);
        let at = pairs.position(|(a, b)| a != b).unwrap_or(0);
        println!("epoch {}: differs, first at sector {}", tally.taken, at / SECTOR_SIZE);
        images.replica.bytes_mut().copy_from_slice(truth);
    }
    if images.log_order.bytes() != truth {
        tally.log_order_wrong += 1;
        images.log_order.bytes_mut().copy_from_slice(truth);
    }
}

/// Applies an epoch as it should be, and as a fold that believed the log's order would.
fn apply(log: &EpochLog, images: &mut Images) {
    let replica = images.replica.bytes_mut();
    let Ok(()) = fold::<Infallible>(log, |extent, content| {
        let target = &mut replica[range(extent)];
        match content {
            Content::Data(data) => target.copy_from_slice(data),
            Content::Zero => target.fill(0),
            // Not without discards.
            Content::Unknown => {}
        }
        Ok(())
    });
    for entry in log.entries() {
        let mut target = &mut images.log_order.bytes_mut()[range(entry.extent)];
        for part in log.logged(entry) {
            let (now, rest) = target.split_at_mut(part.len());
            now.copy_from_slice(part);
            target = rest;
        }
    }
}

fn read_all(era: &EraReader, into: &mut [u8]) -> std::io::Result<()> {
    for (i, part) in into.chunks_mut(1 << 20).enumerate() {
        let sectors = Sectors((part.len() / SECTOR_SIZE) as u64);
        let extent =
            Extent::new(Sector((i as u64) << 11), sectors).ok_or(std::io::ErrorKind::InvalidInput)?;
        era.read(extent, part)?;
    }
    Ok(())
}

fn bytes_of(sectors: Sectors) -> usize {
    sectors.bytes().and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
}

fn range(extent: Extent) -> std::ops::Range<usize> {
    bytes_of(Sectors(extent.start().0))..bytes_of(Sectors(extent.end().0))
}

/// Times are those of the cut's own steps: reading the whole volume is not counted.
fn report(tally: &Tally) -> String {
    let Tally { taken, void, resumed, wrong, log_order_wrong, .. } = tally;
    let mut said = format!(
        "{taken} epochs, {wrong} wrong; {void} void cuts, {resumed} resumed by others and void\n\
         a fold in the log's order is wrong at {log_order_wrong} of {taken}\n"
    );
    let per = |n: u64| n / taken.max(&1);
    let suspects: u64 = tally.stats.iter().map(|s| s.suspect_sectors).sum();
    let rotations: usize = tally.stats.iter().map(|s| s.rotations).sum();
    let _ = writeln!(
        said,
        "each: {} KiB logged, {} suspect sectors; {rotations} rotations",
        per(tally.bytes) / 1024,
        per(suspects)
    );
    let mut show = |what: &str, of: &dyn Fn(&CutStats) -> Duration| {
        let mut all: Vec<Duration> = tally.stats.iter().map(of).collect();
        all.sort();
        let at = |share: usize| all.get(all.len() * share / 100).or(all.last()).copied().unwrap_or_default();
        let _ = writeln!(said, "{what:9} p50 {:?} p99 {:?} max {:?}", at(50), at(99), at(100));
    };
    show("pause", &|s| s.pause.saturating_sub(s.caller));
    show("suspend", &|s| s.suspend);
    show("flush", &|s| s.flush);
    show("log", &|s| s.log);
    show("suspects", &|s| s.suspects);
    show("verify", &|s| s.verify);
    show("resume", &|s| s.resume);
    said
}
