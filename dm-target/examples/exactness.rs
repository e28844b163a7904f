//! Proves cuts exact on a real kernel: captures a stack under load, cuts it again and again, folds
//! every epoch into a replica in memory, and compares that with the volume as it stood in the pause.
//!
//! `exactness NAME RAM0 RAM1 CUTS INTERVAL_MS BUDGET_MS ROTATE_BYTES AUDIT_EVERY [hang|resume]`
//!
//! Exits with 0 when every audited cut was equal. With `hang` the first audited pause never ends:
//! for tests that kill a daemon in its pause. With `resume` every second audit resumes the device behind
//! the cut's back, as an operator might: such cuts have to be void.
#![allow(clippy::print_stdout, reason = "the result of an example is what it prints")]

use std::convert::Infallible;
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use ftdm::block_io::AlignedBuffer;
use ftdm::capture::{Capture, EraReader};
use ftdm::cut::{CutMode, CutOutcome, CutRequest, CutStats};
use ftdm::fold::{Content, fold};
use ftdm::ioctl::{DmControl, enter_io_path};
use ftdm::log_device::{LogPair, load_brd};
use ftdm::log_writes::epoch_log::EpochLog;
use ftdm::pulse::unwatched;
use ftdm::stack::Stack;
use ftdm::units::{Extent, SECTOR_SIZE, Sector, Sectors};

struct Options {
    cuts: u64,
    interval: Duration,
    budget: Duration,
    rotate_above: u64,
    audit_every: u64,
    hang: bool,
    resume: bool,
}

#[derive(Default)]
struct Tally {
    taken: u64,
    void: u64,
    rotations: u64,
    audits: u64,
    wrong: u64,
    log_order_wrong: u64,
    bytes: u64,
    suspects: u64,
    pauses: Vec<CutStats>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, ram0, ram1, numbers @ ..] = &words[..] else { return Err("NAME RAM0 RAM1 ...".into()) };
    let number =
        |i: usize| -> Result<u64, Box<dyn Error>> { Ok(numbers.get(i).ok_or("too few arguments")?.parse()?) };
    let options = Options {
        cuts: number(0)?,
        interval: Duration::from_millis(number(1)?),
        budget: Duration::from_millis(number(2)?),
        rotate_above: number(3)?,
        audit_every: number(4)?,
        hang: numbers.get(5).is_some_and(|w| w == "hang"),
        resume: numbers.get(5).is_some_and(|w| w == "resume"),
    };
    env_logger::Builder::new().filter_level(log::LevelFilter::Warn).parse_default_env().init();
    enter_io_path()?;
    let stack = Stack::open(&name.parse()?)?;
    let size = bytes_of(stack.size());
    // All memory before the capture: where a page fault is slow the log would fill meanwhile.
    let mut replica = AlignedBuffer::new(size);
    let mut naive = AlignedBuffer::new(size);
    let mut truth = AlignedBuffer::new(size);
    let reader = EraReader::open(&stack)?;
    // Where brd is loaded already its devices are taken as they are.
    load_brd(2, Sectors(128 << 10))?;
    let pair = LogPair::open(Path::new(ram0), Path::new(ram1))?;
    let mut base = |era: &mut ftdm::capture::EraControl<'_>| {
        era.flush()?;
        read_all(&reader, replica.bytes_mut())
    };
    let mut capture = Capture::start(&stack, pair, Some(&mut base), unwatched())?;
    let tally = {
        naive.bytes_mut().copy_from_slice(replica.bytes());
        let images =
            Images { replica: replica.bytes_mut(), naive: naive.bytes_mut(), truth: truth.bytes_mut() };
        run(&mut capture, &options, images)?
    };
    let paused = capture.stop()?;
    report(&tally, paused);
    if tally.wrong > 0 { Err(format!("{} audits failed", tally.wrong).into()) } else { Ok(()) }
}

/// The volume folded as it should be, folded in the order of the log, and as it is.
struct Images<'a> {
    replica: &'a mut [u8],
    naive: &'a mut [u8],
    truth: &'a mut [u8],
}

fn run(capture: &mut Capture, options: &Options, images: Images<'_>) -> Result<Tally, Box<dyn Error>> {
    let Images { replica, naive, truth } = images;
    let mut tally = Tally::default();
    let mut sabotage = options.resume;
    let mut operator = DmControl::open()?;
    let top = capture.stack().top();
    let mut next = Instant::now();
    while tally.taken < options.cuts {
        next += options.interval;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        next = next.max(Instant::now() - options.interval);
        let audit = (tally.taken + 1).is_multiple_of(options.audit_every);
        sabotage = options.resume && audit && !sabotage;
        let mut look = |era: &EraReader| {
            if sabotage {
                operator.resume(top).expect("the device is there");
                std::thread::sleep(Duration::from_millis(20));
            }
            if options.hang {
                loop {
                    std::thread::park();
                }
            }
            read_all(era, truth).expect("the volume is readable");
        };
        let request = CutRequest {
            mode: CutMode::Suspend,
            epoch: tally.taken + 1,
            budget: options.budget,
            rotate_above: Some(options.rotate_above),
            in_pause: audit.then_some(&mut look),
        };
        match capture.cut(request)? {
            CutOutcome::Void { reason, stats } => {
                log::info!("void: {reason}: {stats:?} used {:?}", capture.log_usage());
                tally.void += 1;
                if tally.void < 20 {
                    println!("void: {reason}");
                }
            }
            CutOutcome::Taken { .. } if sabotage => {
                return Err("a cut was taken although the device had been resumed".into());
            }
            CutOutcome::Taken { log, stats } => {
                log::info!("cut {}: {stats:?} used {:?}", tally.taken + 1, capture.log_usage());
                apply(&log, replica, naive);
                tally.taken += 1;
                tally.bytes += log.bytes() as u64;
                tally.suspects += stats.suspect_sectors;
                tally.rotations += u64::from(stats.rotated);
                if audit {
                    judge(&mut tally, truth, replica, naive);
                } else {
                    tally.pauses.push(stats);
                }
                capture.recycle(log);
            }
        }
    }
    Ok(tally)
}

fn judge(tally: &mut Tally, truth: &[u8], replica: &mut [u8], naive: &mut [u8]) {
    tally.audits += 1;
    if replica != truth {
        tally.wrong += 1;
        let at = replica.iter().zip(truth).position(|(a, b)| a != b).unwrap_or(0);
        println!("cut {}: differs, first at sector {}", tally.taken, at / SECTOR_SIZE);
        replica.copy_from_slice(truth);
    }
    if naive != truth {
        tally.log_order_wrong += 1;
        naive.copy_from_slice(truth);
    }
}

/// Applies an epoch as it should be, and as a fold that believed the log's order would.
fn apply(log: &EpochLog, replica: &mut [u8], naive: &mut [u8]) {
    let Ok(()) = fold::<Infallible>(log, |extent, content| {
        let target = &mut replica[range(extent)];
        match content {
            Content::Data(data) => target.copy_from_slice(data),
            Content::Zero => target.fill(0),
        }
        Ok(())
    });
    for entry in log.entries() {
        let mut target = &mut naive[range(entry.extent)];
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

fn report(tally: &Tally, last_pause: Duration) {
    let Tally { taken, void, rotations, audits, wrong, log_order_wrong, .. } = tally;
    println!("taken {taken} void {void} rotations {rotations} audits {audits} wrong {wrong}");
    println!("a fold in log order would have been wrong at {log_order_wrong} of {audits} audits");
    let per = |n: u64| n / taken.max(&1);
    println!("per cut: {} KiB in memory, {} suspect sectors", per(tally.bytes) / 1024, per(tally.suspects));
    let show = |what: &str, of: &dyn Fn(&CutStats) -> Duration, only: &dyn Fn(&CutStats) -> bool| {
        let mut all: Vec<Duration> = tally.pauses.iter().filter(|s| only(s)).map(of).collect();
        all.sort();
        let at = |share: usize| all.get((all.len() * share / 100).min(all.len().saturating_sub(1)));
        println!("{what:10} n={} p50 {:?} p99 {:?} max {:?}", all.len(), at(50), at(99), all.last());
    };
    let any = |_: &CutStats| true;
    show("follow", &|s| s.follow, &any);
    show("pause", &|s| s.pause, &|s| !s.rotated);
    show("rotating", &|s| s.pause, &|s| s.rotated);
    show("suspend", &|s| s.suspend, &any);
    show("flush", &|s| s.flush, &any);
    show("log", &|s| s.log, &any);
    show("suspects", &|s| s.suspects, &any);
    show("verify", &|s| s.verify, &|s| !s.rotated);
    show("rotate", &|s| s.verify, &|s| s.rotated);
    show("resume", &|s| s.resume, &any);
    println!("the last switch paused {last_pause:?}");
}
