//! Ten thousand histories, and those that found something once. `SIM_SEEDS=N` runs another number of them.
//!
//! Always holds: what fails here is printed with the one command that shows the history line by line.

use std::ops::Range;

use ftdm_sim::Kind;

fn all_hold(kind: Kind, seeds: Range<u64>) {
    ftdm_sim::silence_panics();
    let violation = seeds.into_iter().find_map(|seed| ftdm_sim::run(kind, seed, None).err());
    if let Some(violation) = violation {
        // The hook is silent: the harness would show nothing of the panic's text.
        let _ = std::panic::take_hook();
        panic!("{violation}");
    }
}

/// How many histories the two halves run together: `SIM_SEEDS`, else ten thousand.
fn histories() -> u64 {
    let given = std::env::var("SIM_SEEDS").ok();
    given.map_or(10_000, |text| text.parse().unwrap_or_else(|_| panic!("SIM_SEEDS={text} is not a number")))
}

#[test]
fn the_first_half_of_the_histories_holds() {
    all_hold(Kind::Any, 0..histories() / 2);
}

#[test]
fn the_second_half_of_the_histories_holds() {
    all_hold(Kind::Any, histories() / 2..histories());
}

/// A history that a fault of the past breaks; with the feature `mutants` that fault is put back in, and
/// the history must show it: if it does not any more, `--mutants` names another seed.
macro_rules! regression {
    ($name:ident, $kind:ident, $seed:expr, $mutant:ident) => {
        #[test]
        fn $name() {
            ftdm_sim::silence_panics();
            assert_eq!(ftdm_sim::run(Kind::$kind, $seed, None).err(), None);
            #[cfg(feature = "mutants")]
            {
                use ftship_proto::mutant::{Mutant, select};
                select(Some(Mutant::$mutant));
                let caught = ftdm_sim::run(Kind::$kind, $seed, None).is_err();
                select(None);
                assert!(caught, "seed {} does not show {:?}", $seed, Mutant::$mutant);
            }
        }
    };
}

/// What a power cut takes back from the primary's volume was noted by dm-era, but before the roll that the next sync
/// starts from: only a flush in front of the roll makes that right. In other histories there is hardly ever a power cut
/// at such a time.
#[test]
fn power_cuts_behind_rolls_take_nothing_back_that_was_shipped() {
    ftdm_sim::silence_panics();
    let broken = || (0..100).find_map(|seed| ftdm_sim::run(Kind::PowerCuts, seed, None).err());
    assert_eq!(broken(), None);
    #[cfg(feature = "mutants")]
    {
        use ftship_proto::mutant::{Mutant, select};
        select(Some(Mutant::RollUnflushed));
        let caught = broken();
        select(None);
        assert!(caught.is_some(), "no history shows that dm-era is rolled before a flush");
    }
}

#[test]
fn whole_copies_that_are_broken_off_leave_nothing_behind() {
    all_hold(Kind::BrokenCopies, 0..400);
}

#[test]
fn writes_to_the_journal_that_are_lost_make_no_mixture_and_are_made_good() {
    all_hold(Kind::LostWrites, 0..400);
}

/// A frame of a broken-off attempt at the same epoch was taken for the one that was lost.
#[test]
fn a_stale_frame_of_the_same_epoch_is_not_applied() {
    all_hold(Kind::Any, 772_026_397..772_026_398);
}

/// Nothing looks who uses a volume before its primary was promoted over, the checker took it: so what a power cut took along was
/// called noted.
#[test]
fn what_no_daemon_had_the_time_to_note_is_not_missed() {
    all_hold(Kind::Any, 772_028_063..772_028_064);
}

#[test]
fn disks_that_are_put_back_overwrite_nothing_unasked() {
    all_hold(Kind::PutBack, 0..150);
}

#[test]
fn planned_failovers_need_no_switch() {
    all_hold(Kind::Planned, 0..200);
}

#[test]
fn old_primaries_come_back_and_take_their_role_again() {
    all_hold(Kind::Failback, 0..600);
}

#[test]
fn volumes_grow_in_the_middle_of_everything() {
    all_hold(Kind::Growing, 0..400);
}

mod found_by_simulation {
    use ftdm_sim::Kind;

    regression!(pieces_of_an_old_copy_do_not_stall_the_next, Any, 4, StalledByOldPieces);
    regression!(a_failed_backup_asks_for_no_timer, Any, 271, SpinWhenFailed);
    regression!(a_redo_takes_only_the_frames_of_its_epoch, LostWrites, 6, RedoWhateverLiesThere);
    regression!(the_same_epoch_in_another_attempt_is_another_content, LostWrites, 754, IdentityIsProof);
    regression!(a_backup_that_is_ahead_of_disks_that_were_put_back_is_kept, PutBack, 10, PutBackUnseen);
    regression!(an_end_with_everything_committed_is_not_forgotten, Planned, 0, EndForgotten);
    regression!(an_end_with_something_uncommitted_is_not_called_so, Planned, 159, EndAssumed);
    regression!(epochs_of_larger_volumes_come_after_the_state, Growing, 13, GrowthUnnoted);
    regression!(what_a_backup_lacks_is_part_of_a_sync, Growing, 12, GrowthUntold);
    regression!(what_an_old_primary_has_of_its_own_is_overwritten, Failback, 9, OwnUntold);
}
