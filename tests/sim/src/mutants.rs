//! Deliberate faults, one at a time: does any history show them?
//!
//! Always holds: a fault is selected for this thread while its histories run, and never afterwards.

use ftship_proto::mutant::{Mutant, select};

/// A fault, and how many seeds it took to see it and what was seen; `None`: nothing in `most` seeds.
pub type Caught = (Mutant, Option<(u64, String)>);

/// Runs up to `most` seeds with each fault whose name contains `only`.
pub fn all(most: u64, only: &str) -> impl Iterator<Item = Caught> {
    let wanted = move |mutant: &&Mutant| format!("{mutant:?}").contains(only);
    Mutant::ALL.iter().filter(wanted).map(move |mutant| {
        select(Some(*mutant));
        let caught = (0..most).find_map(|seed| crate::run(seed, None).err());
        select(None);
        (*mutant, caught.map(|violation| (violation.seed + 1, violation.text)))
    })
}
