//! Writers and checkers for scenarios: what a VM would do to its volume, in forms that can be checked.
//!
//! `records` appends numbered records to a file on the volume, each made durable, and notes outside the
//! host which of them an acknowledged checkpoint covers; `check` compares a promoted volume with those
//! notes. `pairs` and `check-pairs` do the same with records that go to two volumes in turn. `churn` writes to a device from several threads that overlap deliberately. `exact` cuts a stack
//! and compares each epoch with the volume. `stalls` notes how long a device made it wait.
//! `costs` and `counts` belong to the benchmark. `points` and `replay` make of dm-log-writes' log what power cuts would have left.

// A command for scenarios: it speaks through its output.
#![allow(clippy::print_stdout)]

mod churn;
mod costs;
mod counts;
mod exact;
mod pairs;
mod records;
mod replay;
mod stalls;

use std::path::PathBuf;
use std::time::Duration;

use structopt::StructOpt;

#[derive(Debug, StructOpt)]
#[structopt(name = "ftdm-workload")]
enum Verb {
    /// Appends durable records to FILE until stopped, or until `--count` are written
    Records {
        file: PathBuf,
        /// Where to note what acknowledged checkpoints cover: `EPOCH LAST_RECORD` a line
        #[structopt(long)]
        notes: PathBuf,
        /// Group to checkpoint
        #[structopt(long)]
        group: String,
        /// Records between two checkpoints
        #[structopt(long, default_value = "25")]
        every: u64,
        #[structopt(long)]
        count: Option<u64>,
    },
    /// Checks FILE, on a promoted volume of epoch EPOCH, against the notes
    Check {
        file: PathBuf,
        #[structopt(long)]
        notes: PathBuf,
        #[structopt(long)]
        epoch: u64,
    },
    /// Writes numbered records in turn to two volumes, and checkpoints meanwhile, until stopped
    Pairs {
        first: PathBuf,
        second: PathBuf,
        /// Where to note what acknowledged checkpoints cover: `EPOCH LAST_RECORD...` a line
        #[structopt(long)]
        notes: PathBuf,
        /// Group to checkpoint
        #[structopt(long)]
        group: String,
    },
    /// Checks that two promoted volumes of epoch EPOCH are from one instant, against the notes
    CheckPairs {
        first: PathBuf,
        second: PathBuf,
        #[structopt(long)]
        notes: PathBuf,
        #[structopt(long)]
        epoch: u64,
    },
    /// What dm-log-writes kept: lists the points, one for each flush after the mark FROM, with the epoch that
    /// was acknowledged by then
    Points {
        log: PathBuf,
        /// The device that was logged, or one of its size
        device: PathBuf,
        #[structopt(long)]
        from: String,
    },
    /// Brings DEVICE from one point of LOG to another, as a power cut there would have left it
    Replay {
        log: PathBuf,
        device: PathBuf,
        #[structopt(long, default_value = "0")]
        from: u64,
        #[structopt(long)]
        to: u64,
        /// Also a seeded part of what was not flushed at that point
        #[structopt(long)]
        seed: Option<u64>,
    },
    /// Writes to DEVICE from several threads: direct, buffered and synchronous, overlapping
    Churn {
        device: PathBuf,
        #[structopt(long, default_value = "1")]
        seed: u64,
        #[structopt(long, default_value = "4")]
        threads: u64,
        /// Stop after so many seconds
        #[structopt(long, default_value = "10")]
        seconds: u64,
        /// Writes of each thread per second
        #[structopt(long, default_value = "200")]
        rate: u64,
        /// Blocks of 4 KiB that all threads share, so that writes overlap
        #[structopt(long, default_value = "64")]
        shared: u64,
    },
    /// Cuts stack NAME again and again and compares every epoch with the volume in the pause
    Exact {
        name: String,
        #[structopt(long, default_value = "/dev/ram0")]
        log0: PathBuf,
        #[structopt(long, default_value = "/dev/ram1")]
        log1: PathBuf,
        #[structopt(long, default_value = "500")]
        cuts: u64,
        /// Milliseconds between two cuts
        #[structopt(long, default_value = "50")]
        interval: u64,
        /// Milliseconds that a pause may take, the reading of the whole volume included
        #[structopt(long, default_value = "400")]
        budget: u64,
        /// Bytes in a log after which the next cut rotates it
        #[structopt(long, default_value = "16777216")]
        rotate_above: u64,
        /// Resume every second pause behind the cut's back: these have to be void
        #[structopt(long)]
        resumed_behind: bool,
    },
    /// Prints what a system call, a context switch, a page fault, a hash and the like cost here, as JSON, in microseconds
    Costs {
        /// Be the other end of the pipe
        #[structopt(long)]
        echo: bool,
    },
    /// Prints what the kernel has counted so far: threads, disks, network, as JSON
    Counts {
        /// And the status of this group's daemon
        #[structopt(long)]
        group: Option<String>,
    },
    /// Writes to the last block of DEVICE, and notes every write that takes long, in milliseconds
    Stalls {
        device: PathBuf,
        #[structopt(long)]
        notes: PathBuf,
        /// What is long, in milliseconds
        #[structopt(long, default_value = "50")]
        above: u64,
        #[structopt(long, default_value = "10")]
        seconds: u64,
    },
}

fn main() -> anyhow::Result<()> {
    match Verb::from_args() {
        Verb::Records { file, notes, group, every, count } => {
            records::write(&file, &notes, &group, every, count)
        }
        Verb::Check { file, notes, epoch } => {
            println!("{}", records::check(&file, &notes, epoch)?);
            Ok(())
        }
        Verb::Exact { name, log0, log1, cuts, interval, budget, rotate_above, resumed_behind } => {
            let interval = Duration::from_millis(interval);
            let budget = Duration::from_millis(budget);
            let plan = exact::Plan { cuts, interval, budget, rotate_above, resumed_behind };
            print!("{}", exact::run(&name, [&log0, &log1], plan)?);
            Ok(())
        }
        Verb::Pairs { first, second, notes, group } => pairs::write([&first, &second], &notes, &group),
        Verb::CheckPairs { first, second, notes, epoch } => {
            println!("{}", pairs::check([&first, &second], &notes, epoch)?);
            Ok(())
        }
        Verb::Points { log, device, from } => {
            print!("{}", replay::points(&log, &device, &from)?);
            Ok(())
        }
        Verb::Replay { log, device, from, to, seed } => {
            println!("{}", replay::replay(&log, &device, from, to, seed)?);
            Ok(())
        }
        Verb::Stalls { device, notes, above, seconds } => {
            println!("{}", stalls::run(&device, &notes, Duration::from_millis(above), seconds)?);
            Ok(())
        }
        Verb::Costs { echo: true } => costs::echo(),
        Verb::Costs { echo: false } => {
            println!("{}", serde_json::to_string(&costs::measure(&std::env::current_exe()?)?)?);
            Ok(())
        }
        Verb::Counts { group } => {
            println!("{}", serde_json::to_string(&counts::take(group.as_deref())?)?);
            Ok(())
        }
        Verb::Churn { device, seed, threads, seconds, rate, shared } => {
            let plan = churn::Plan { seed, threads, seconds, rate, shared };
            println!("{}", churn::run(&device, plan)?);
            Ok(())
        }
    }
}
