//! When a cut rolls dm-era.

use super::switching::in_sync;
use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Makes the next cut, at `now`; its epoch ends with these figures. Returns whether it rolled, and what became of the
/// set of granules after it.
fn cut(primary: &mut Primary, now: Duration, since_roll: u64, recent: u64) -> (bool, AfterEpoch) {
    primary.cuts.cut_at = now;
    primary.handle_timeout(now);
    let ordered = actions(primary);
    let (epoch, rolls) = ordered
        .iter()
        .find_map(|action| match action {
            PrimaryAction::Cut(CutOrder::Cut(Cut { epoch, roll, .. })) => Some((*epoch, *roll)),
            _ => None,
        })
        .unwrap_or_else(|| panic!("no cut: {ordered:?}"));
    let eras = rolls.then(|| vec![Era(100 + u32::try_from(epoch.0).unwrap()); group().volumes().len()]);
    primary.handle(now, PrimaryEvent::Cut(CutResult::Taken { eras }));
    let after = actions(primary)
        .iter()
        .find_map(|action| match action {
            PrimaryAction::Ship { after, .. } => Some(*after),
            _ => None,
        })
        .expect("a cut is shipped");
    let digest = Digest([3; 32]);
    let touched = TouchedBytes { since_roll, recent };
    primary.handle(now, PrimaryEvent::Encoded { epoch, digest, stored: 4096, touched });
    hear(primary, now, &Message::Staged { epoch, digest });
    actions(primary);
    (rolls, after)
}

#[test]
fn dm_era_is_rolled_only_if_a_resync_would_compare_for_long_and_a_roll_helps() {
    let mut primary = in_sync();
    let config = PrimaryConfig { timeout: 100 * DAY, resync_target: 10 * SECOND, ..config() };
    primary.tune(SECOND, tuning(&config));
    let gib = 1 << 30;
    // Much was written, and most of it is not written to any more, but the interval is not over.
    assert_eq!(cut(&mut primary, 30 * SECOND, 4 * gib, gib), (false, AfterEpoch::Keep));
    // It is over.
    assert_eq!(cut(&mut primary, 62 * SECOND, 0, 0), (true, AfterEpoch::Rolled));
    assert_eq!(primary.state().rolls.last().map(|roll| roll.at_cut), Some(true));
    // Little was written: a resync compares for less than the target, however long ago the last roll is.
    assert_eq!(cut(&mut primary, 123 * SECOND, gib / 2, 0), (false, AfterEpoch::NewInterval));
    assert_eq!(cut(&mut primary, DAY, gib / 2, 0), (false, AfterEpoch::NewInterval));
    assert_eq!(primary.resync_time().as_secs(), 5);
    // Much is written, again and again to the same places: a roll would not help.
    assert_eq!(cut(&mut primary, 2 * DAY, 4 * gib, 3 * gib), (false, AfterEpoch::NewInterval));
    assert_eq!(cut(&mut primary, 3 * DAY, 4 * gib, 2 * gib), (false, AfterEpoch::NewInterval));
    assert_eq!(cut(&mut primary, 4 * DAY, 0, 0), (true, AfterEpoch::Rolled));
}
