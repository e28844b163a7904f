//! Runs histories by their seeds and tells which one broke an invariant.
#![allow(clippy::print_stdout, reason = "this is the program's output")]

use std::io::{BufWriter, stdout};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use ftdm_sim::Kind;
use structopt::StructOpt;

/// Simulates pairs; each seed is one history.
#[derive(Debug, StructOpt)]
#[structopt(name = "ftdm-sim")]
struct Options {
    /// How many seeds to run: 10000 if not said; with `--mutants` at most so many for each, or 20000.
    #[structopt(long)]
    seeds: Option<u64>,
    /// The first of them: 0 if not said, with `--minutes` one that depends on the time.
    #[structopt(long)]
    first: Option<u64>,
    /// Runs this one seed only.
    #[structopt(long)]
    seed: Option<u64>,
    /// With `--seed`: prints what happens, line by line.
    #[structopt(long)]
    trace: bool,
    /// Runs seeds for so many minutes instead.
    #[structopt(long)]
    minutes: Option<u64>,
    /// Histories of one kind: any, power-cuts (soon after rolls of dm-era), broken-copies, lost-writes, small-logs,
    /// put-back, planned, failback, growing; with `--mutants` those in which each is seen best, if not said.
    #[structopt(long)]
    of: Option<Kind>,
    /// Goes on after a violation, up to this many.
    #[structopt(long, default_value = "1")]
    failures: usize,
    /// Shows that each deliberate fault is found. Needs the feature `mutants`.
    #[cfg(feature = "mutants")]
    #[structopt(long)]
    mutants: bool,
    /// With `--mutants`: only those whose name contains this.
    #[cfg(feature = "mutants")]
    #[structopt(long, default_value = "")]
    only: String,
}

fn main() -> ExitCode {
    let options = Options::from_args();
    ftdm_sim::silence_panics();
    #[cfg(feature = "mutants")]
    if options.mutants {
        return mutants(options.of, options.seeds.unwrap_or(20_000), &options.only);
    }
    if let Some(seed) = options.seed {
        let trace = options.trace.then(|| Box::new(BufWriter::new(stdout())) as Box<dyn std::io::Write>);
        return report(
            ftdm_sim::run(options.of.unwrap_or_default(), seed, trace)
                .map(|events| println!("seed {seed}: ok, {events} events")),
        );
    }
    many(&options)
}

fn report(result: Result<(), ftdm_sim::Violation>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
    }
}

fn many(options: &Options) -> ExitCode {
    let start = Instant::now();
    let limit = options.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let seeds = options.seeds.unwrap_or(10_000);
    let first = options.first.unwrap_or_else(|| limit.map_or(0, |_| new_seed()));
    let (mut runs, mut events, mut failures) = (0, 0, 0);
    for seed in first.. {
        let is_over = limit.map_or(runs >= seeds, |limit| start.elapsed() >= limit);
        if is_over || failures >= options.failures {
            break;
        }
        match ftdm_sim::run(options.of.unwrap_or_default(), seed, None) {
            Ok(some) => events += some,
            Err(violation) => {
                println!("{violation}");
                failures += 1;
            }
        }
        runs += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{runs} seeds from {first}, {failures} failed, {events} events, {seconds:.1} s, {:.0} seeds/s",
        f64::from(u32::try_from(runs).unwrap_or(u32::MAX)) / seconds
    );
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Where nobody has been before: a million seeds for each second.
fn new_seed() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs() * 1_000_000)
}

#[cfg(feature = "mutants")]
fn mutants(of: Option<Kind>, most: u64, only: &str) -> ExitCode {
    let mut survivors = 0;
    for (mutant, kind, caught) in ftdm_sim::mutants::all(of, most, only) {
        match caught {
            Some((seeds, text)) => println!("{mutant:?} | {} | {seeds} | {text}", kind.name()),
            None => {
                survivors += 1;
                println!("{mutant:?} | {} | survived {most} seeds |", kind.name());
            }
        }
    }
    if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
