//! Ten thousand histories, and those that found something once.
//!
//! Always holds: what fails here is printed with the one command that shows the history line by line.

use std::ops::Range;

fn all_hold(seeds: Range<u64>) {
    ftdm_sim::silence_panics();
    let violation = seeds.into_iter().find_map(|seed| ftdm_sim::run(seed, None).err());
    if let Some(violation) = violation {
        // The hook is silent: the harness would show nothing of the panic's text.
        let _ = std::panic::take_hook();
        panic!("{violation}");
    }
}

#[test]
fn the_first_half_of_ten_thousand_histories_holds() {
    all_hold(0..5_000);
}

#[test]
fn the_second_half_of_ten_thousand_histories_holds() {
    all_hold(5_000..10_000);
}

/// A history that a fault of the past breaks; with the feature `mutants` that fault is put back in, and
/// the history must show it: if it does not any more, `--mutants` names another seed.
macro_rules! regression {
    ($name:ident, $seed:expr, $mutant:ident) => {
        #[test]
        fn $name() {
            ftdm_sim::silence_panics();
            assert_eq!(ftdm_sim::run($seed, None).err(), None);
            #[cfg(feature = "mutants")]
            {
                use ftship_proto::mutant::{Mutant, select};
                select(Some(Mutant::$mutant));
                let caught = ftdm_sim::run($seed, None).is_err();
                select(None);
                assert!(caught, "seed {} does not show {:?}", $seed, Mutant::$mutant);
            }
        }
    };
}

mod found_by_simulation {
    regression!(pieces_of_an_old_copy_do_not_stall_the_next, 11, StalledByOldPieces);
    regression!(a_flush_of_a_copy_that_was_given_up_ends_no_other, 791, AnyFlushEndsBase);
    regression!(what_is_synced_while_draining_is_committed, 30_073, CommitsLostInDraining);
    regression!(a_failed_backup_asks_for_no_timer, 91, SpinWhenFailed);
    regression!(what_a_killed_daemon_left_is_synced_first, 54, TrustUnsyncedDisks);
    regression!(a_redo_takes_only_the_frames_of_its_epoch, 5_024, RedoWhateverLiesThere);
}
