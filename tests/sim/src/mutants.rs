//! Deliberate faults, one at a time: does any history show them?
//!
//! Always holds: a fault is selected for this thread while its histories run, and never afterwards.

use ftship_proto::mutant::{Mutant, select};

use crate::Kind;

/// A fault, the kind of the histories, how many of them it took to see it, and what was seen; `None`: nothing.
pub type Caught = (Mutant, Kind, Option<(u64, String)>);

/// Runs up to `most` seeds with each fault whose name contains `only`; histories of the kind in which it is seen best,
/// where none is named.
pub fn all(of: Option<Kind>, most: u64, only: &str) -> impl Iterator<Item = Caught> {
    let wanted = move |mutant: &&Mutant| format!("{mutant:?}").contains(only);
    Mutant::ALL.iter().filter(wanted).map(move |mutant| {
        let kind = of.unwrap_or_else(|| best(*mutant));
        select(Some(*mutant));
        let caught = (0..most).find_map(|seed| crate::run(kind, seed, None).err());
        select(None);
        (*mutant, kind, caught.map(|violation| (violation.seed + 1, violation.text)))
    })
}

/// Where a fault is seen soon.
fn best(mutant: Mutant) -> Kind {
    match mutant {
        Mutant::OwnUntold => Kind::Failback,
        Mutant::GrowthUnnoted | Mutant::GrowthUntold => Kind::Growing,
        Mutant::PutBackUnseen => Kind::PutBack,
        Mutant::EndForgotten | Mutant::EndAssumed => Kind::Planned,
        Mutant::RedoWhateverLiesThere
        | Mutant::IdentityIsProof
        | Mutant::ApplyUnnoted
        | Mutant::LossUntold => Kind::LostWrites,
        Mutant::PartBeforeCopies => Kind::SmallLogs,
        Mutant::RollUnflushed => Kind::PowerCuts,
        Mutant::AnyFlushEndsBase | Mutant::ResumeWithNewBase => Kind::BrokenCopies,
        _ => Kind::Any,
    }
}
