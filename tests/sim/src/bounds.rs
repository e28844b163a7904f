//! How much a sync may copy, judged from the guest's writes and from the primary's disk.
//!
//! Always holds: a round copies no granule that the guest did not write since the roll from which it starts; the first
//! one starts at the newest roll that the durable history allows for its base, or at a newer one.

use std::collections::HashMap;

use ftdm_units::Era;
use ftship_proto::primary::SyncFigures;
use ftship_proto::rolls::Roll;
use ftship_proto::scope::Scope;
use ftship_proto::state::DurableState;

use crate::checker::Checker;
use crate::eras::Eras;
use crate::primary_host::PrimaryHost;

/// The rolls that were made, whoever knows of them.
#[derive(Debug, Default)]
pub(crate) struct Rolls {
    /// How many writes the guest had made by then.
    writes: HashMap<Vec<Era>, u64>,
    last: [u64; 2],
    /// Where the backup has content of its own, as it says, granules of it.
    named: Vec<(usize, usize)>,
}

impl Rolls {
    /// The backup names content of its own.
    pub(crate) fn named(&mut self, eras: &Eras, scope: &Scope) {
        self.named.extend(scope.iter().flat_map(|(volume, extent)| eras.granules(*volume, *extent)));
    }
}

impl Checker {
    pub(crate) fn rolled(&mut self, eras: &[Era], writes: u64) {
        self.rolls.named.clear();
        self.rolls.writes.insert(eras.to_vec(), writes);
        self.rolls.last = [self.rolls.last[1], writes];
    }

    /// Invariant 14: what a round copies was written since.
    pub(crate) fn round(&self, host: &PrimaryHost, sync: &SyncFigures, scope: &Scope) {
        let since = match (sync.rounds, sync.base) {
            (1, None) => return,
            (1, Some(base)) => {
                let [a, b] = host.state.durable.slots();
                // A torn state is that of a daemon that is no more.
                let Ok(Some((state, _))) = DurableState::load(a, b) else { return };
                let fits = |roll: &&Roll| roll.epoch < base || roll.epoch == base && roll.at_cut;
                let known = |roll: &Roll| self.rolls.writes.get(&roll.eras).copied();
                state.rolls.rolls().iter().filter(fits).filter_map(known).max().unwrap_or(0)
            }
            _ => self.rolls.last[0],
        };
        let mut written: Vec<(usize, usize)> = host
            .touched
            .iter()
            .enumerate()
            .filter(|(_, write)| **write > since)
            .map(|(place, _)| host.eras.granule_of(place))
            .collect();
        written.dedup();
        written.extend(&self.rolls.named);
        let copied = scope.iter().flat_map(|(volume, extent)| host.eras.granules(*volume, *extent));
        for granule in copied {
            assert!(
                written.contains(&granule),
                "round {} copies {granule:?}, not written since {since}",
                sync.rounds
            );
        }
    }
}
