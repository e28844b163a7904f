//! A deterministic simulation of a pair: the real state machines, formats and journal, on model disks, a
//! model network and a model volume. One seed is one history; the same seed gives the same history again.
//!
//! Always holds: what is executed are exactly the actions of [`ftship_proto::primary::Primary`] and
//! [`ftship_proto::backup::Backup`], in lanes as the daemon's drivers run them; what is judged is judged by
//! the checker, from disks and messages alone.

mod aftermath;
mod backup_host;
mod bounds;
mod capture;
mod checker;
mod content;
mod coordinator;
mod disk;
mod encoding;
mod eras;
mod lanes;
#[cfg(feature = "mutants")]
pub mod mutants;
mod net;
mod operator;
mod primary_host;
mod primary_state;
mod random;
mod scenario;
mod switching;
mod trace;
mod verify;
mod world;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use world::World;

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The history in which it happened.
    pub seed: u64,
    /// What was found.
    pub text: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, text } = self;
        write!(f, "seed {seed}: {text}\nrun it again: cargo run -p ftdm-sim -- --seed {seed} --trace")
    }
}

/// Runs one history to its end and returns the number of its events; `trace` gets a line for each.
///
/// # Errors
/// The first invariant that did not hold, a panic of the state machines included.
pub fn run(seed: u64, trace: Option<Box<dyn Write>>) -> Result<u64, Violation> {
    let result = catch_unwind(AssertUnwindSafe(|| World::new(seed, trace).run()));
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Violation { seed, text: text.unwrap_or_else(|| "a panic without words".into()) }
    })
}

/// Keeps panics quiet: [`run`] returns them.
pub fn silence_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}
