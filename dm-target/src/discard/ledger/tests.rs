//! The rule of what is pending, sector by sector, against the ledger.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::log_writes::epoch_log::PiecePool;
use crate::units::{Extent, Sector};

const VOLUME: u64 = 64;

#[derive(Clone, Debug)]
enum Step {
    Write(u64, u64),
    Discard(u64, u64),
    /// A cut that gives up to so many runs to the volume, and is void or not.
    Cut {
        runs: usize,
        void: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let run = || (0..VOLUME - 8, 1..8u64);
    prop_oneof![
        3 => run().prop_map(|(start, len)| Step::Write(start, len)),
        2 => run().prop_map(|(start, len)| Step::Discard(start, len)),
        2 => (0..4usize, any::<bool>()).prop_map(|(runs, void)| Step::Cut { runs, void }),
    ]
}

fn extent(start: u64, len: u64) -> Extent {
    Extent::new(Sector(start), Sectors(len)).unwrap()
}

fn sectors(extents: &[Extent]) -> BTreeSet<u64> {
    extents.iter().flat_map(|e| e.start().0..e.end().0).collect()
}

/// The rule itself, sector by sector.
#[derive(Default)]
struct Model {
    pending: BTreeSet<u64>,
    /// Of the epoch.
    written: BTreeSet<u64>,
    discarded: BTreeSet<u64>,
    issued: BTreeSet<u64>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn pending_is_what_was_discarded_and_not_written_then_or_later_and_not_given(
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let mut ledger = Ledger::with_limits(256, 256);
        let mut epoch = EpochLog::default();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Write(start, len) => {
                    epoch.entries.push(Entry { extent: extent(start, len), data: 0 });
                    model.written.extend(start..start + len);
                    model.pending.retain(|s| !(start..start + len).contains(s));
                    model.issued.retain(|s| !(start..start + len).contains(s));
                }
                Step::Discard(start, len) => {
                    epoch.discards.push(extent(start, len));
                    model.discarded.extend(start..start + len);
                }
                Step::Cut { runs, void } => {
                    ledger.note(&epoch.entries);
                    prop_assert_eq!(&sectors(ledger.pending.extents()), &model.pending);
                    for run in ledger.pending.extents().to_vec().into_iter().take(runs) {
                        // Nothing that this epoch wrote, and nothing that only this epoch discarded.
                        ledger.issued.add(run);
                        ledger.pending.remove(run);
                        model.pending.retain(|s| !(run.start().0..run.end().0).contains(s));
                        model.issued.extend(run.start().0..run.end().0);
                    }
                    if void {
                        continue;
                    }
                    ledger.close_sets(&mut epoch);
                    prop_assert_eq!(&sectors(epoch.unknown()), &model.issued);
                    prop_assert!(model.issued.is_disjoint(&model.written));
                    model.pending.extend(model.discarded.difference(&model.written));
                    prop_assert_eq!(&sectors(ledger.pending.extents()), &model.pending);
                    prop_assert_eq!(ledger.figures().forgotten, Sectors(0));
                    model.written.clear();
                    model.discarded.clear();
                    model.issued.clear();
                    epoch.clear(&PiecePool::default(), 0);
                }
            }
        }
    }
}
