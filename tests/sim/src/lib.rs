//! A deterministic simulation of a pair: the real state machines, formats and journal, on model disks, a
//! model network and a model volume. One seed is one history; the same seed gives the same history again.
//!
//! Always holds: what is executed are exactly the actions of [`ftship_proto::primary::Primary`] and
//! [`ftship_proto::backup::Backup`], in lanes as the daemon's drivers run them; what is judged is judged by
//! the checker, from disks and messages alone.

mod aftermath;
mod arrival;
mod backup_host;
mod bounds;
mod capture;
mod checker;
mod content;
mod coordinator;
mod cut_reports;
mod disk;
mod encoding;
mod ending;
mod eras;
mod failback;
mod growing;
mod lanes;
#[cfg(feature = "mutants")]
pub mod mutants;
mod net;
mod operator;
mod primary_config;
mod primary_host;
mod primary_state;
mod put_back;
mod random;
mod refusal;
mod rounds;
mod scenario;
mod switching;
mod trace;
mod verify;
mod world;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;

use random::Random;
use scenario::Scenario;
use world::World;

/// What histories are like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Whatever is drawn.
    #[default]
    Any,
    /// Nothing goes wrong but power cuts of the primary's host, soon behind rolls of dm-era.
    PowerCuts,
    /// Whole copies are broken off, one after the other.
    BrokenCopies,
    /// Links break, and writes to the journal go astray, all the time.
    LostWrites,
    /// Logs are smaller than what is written during a last round, also when nothing goes wrong any more.
    SmallLogs,
    /// The primary's disks are copied, and put back when the backup has come further.
    PutBack,
    /// At the end the roles are changed without a switch: VM and daemon are stopped, the other side promoted.
    Planned,
    /// Whatever is drawn; and where the old primary has become a backup, the pair's second life.
    Failback,
    /// Volumes are enlarged; and where the old primary has become a backup, the pair's second life.
    Growing,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Any,
        Self::PowerCuts,
        Self::BrokenCopies,
        Self::LostWrites,
        Self::SmallLogs,
        Self::PutBack,
        Self::Planned,
        Self::Failback,
        Self::Growing,
    ];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::PowerCuts => "power-cuts",
            Self::BrokenCopies => "broken-copies",
            Self::LostWrites => "lost-writes",
            Self::SmallLogs => "small-logs",
            Self::PutBack => "put-back",
            Self::Planned => "planned",
            Self::Failback => "failback",
            Self::Growing => "growing",
        }
    }

    fn draw(self, random: &mut Random) -> Scenario {
        let drawn = Scenario::draw(random);
        match self {
            Self::Any => drawn,
            Self::PowerCuts => drawn.of_power_cuts(),
            Self::BrokenCopies => drawn.of_broken_copies(random),
            Self::LostWrites => drawn.of_lost_writes(random),
            Self::SmallLogs => drawn.of_small_logs(random),
            Self::PutBack => drawn.of_put_back(random),
            Self::Planned => Scenario { plans: true, ..drawn },
            Self::Failback => Scenario { fails_back: true, ..drawn },
            Self::Growing => drawn.of_growing(random),
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == text);
        known.ok_or_else(|| format!("histories are of the kinds {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The history in which it happened.
    pub seed: u64,
    /// What it is like.
    pub kind: Kind,
    /// What was found.
    pub text: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, kind, text } = self;
        let of = if *kind == Kind::Any { String::new() } else { format!(" --of {}", kind.name()) };
        write!(f, "seed {seed}: {text}\nrun it again: cargo run -p ftdm-sim -- --seed {seed} --trace{of}")
    }
}

/// Runs one history to its end and returns the number of its events; `trace` gets a line for each.
///
/// # Errors
/// The first invariant that did not hold, a panic of the state machines included.
pub fn run(kind: Kind, seed: u64, trace: Option<Box<dyn Write>>) -> Result<u64, Violation> {
    let history = || {
        let mut world = World::new(seed, |random| kind.draw(random), trace);
        let events = world.run();
        let second = if matches!(kind, Kind::Failback | Kind::Growing) { world.fail_back() } else { None };
        events + second.map_or(0, |mut second| second.run())
    };
    catch_unwind(AssertUnwindSafe(history)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Violation { seed, kind, text: text.unwrap_or_else(|| "a panic without words".into()) }
    })
}

/// Keeps panics quiet: [`run`] returns them.
pub fn silence_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}
