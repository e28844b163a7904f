//! Performs one part of an epoch's way through the daemons again and again, on made-up content, so that a profiler has
//! something to count: `tests/bench/instructions` runs it under callgrind.
//!
//! Always holds: what is prepared is the same for every number of times, so the difference of two runs is the part's own.

mod parts;

use structopt::StructOpt;
use structopt::clap::AppSettings::ColoredHelp;

use parts::Part;

/// Performs one part of an epoch's way, on an epoch of 4 MiB in random writes of 4 KiB.
#[derive(Debug, StructOpt)]
#[structopt(setting = ColoredHelp)]
struct Args {
    /// Which: parse, fold, encode, decode or check
    part: Part,
    /// How often
    times: u32,
}

fn main() -> anyhow::Result<()> {
    let Args { part, times } = Args::from_args();
    let mut prepared = parts::Prepared::new()?;
    for _ in 0..times {
        prepared.perform(part)?;
    }
    Ok(())
}
