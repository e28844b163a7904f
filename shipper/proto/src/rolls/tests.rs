use proptest::prelude::*;

use super::*;
use crate::tlv::{Reader, Writer};

/// Of two volumes, the second of which is ten eras ahead.
fn roll(era: u32, epoch: u64, at_cut: bool) -> Roll {
    Roll { epoch: Epoch(epoch), at_cut, eras: vec![Era(era), Era(era + 10)] }
}

fn history(rolls: &[(u32, u64, bool)]) -> RollHistory {
    let mut history = RollHistory::default();
    for (era, epoch, at_cut) in rolls {
        history.push(roll(*era, *epoch, *at_cut)).unwrap();
    }
    history
}

fn start(history: &RollHistory, base: u64) -> Option<u32> {
    history.start(Epoch(base)).map(|eras| {
        assert_eq!(eras[1], Era(eras[0].0 + 10));
        eras[0].0
    })
}

fn decode(bytes: &[u8]) -> Result<RollHistory, TlvError> {
    let mut fields = Writer::new();
    fields.field(1, bytes);
    let fields = fields.finish();
    RollHistory::decode(Reader::new(&fields)?.required(1)?)
}

#[test]
fn a_base_starts_at_its_own_cut_or_at_the_last_roll_before_it() {
    let history = history(&[(3, 0, false), (5, 10, true), (6, 10, false), (9, 20, false), (11, 30, true)]);
    assert_eq!(start(&history, 10), Some(5), "rolled in the pause of the cut");
    assert_eq!(start(&history, 15), Some(6), "the highest before");
    assert_eq!(start(&history, 20), Some(6), "era 9 began after cut 20, and writes came between");
    assert_eq!(start(&history, 29), Some(9));
    assert_eq!(start(&history, 30), Some(11));
    assert_eq!(start(&history, u64::MAX), Some(11));
    assert_eq!(start(&history, 0), None, "era 3 began after epoch 0 ended, nobody knows when it did");
}

#[test]
fn what_is_needed_is_not_forgotten() {
    let mut history = history(&[(3, 0, false), (5, 10, true), (6, 10, false), (9, 20, false)]);
    assert!(history.forget_before(Epoch(12)));
    assert_eq!(history.rolls().len(), 2);
    assert_eq!(start(&history, 12), Some(6));
    assert_eq!(start(&history, 10), None, "older bases are");
    assert!(!history.forget_before(Epoch(12)));
}

#[test]
fn rolls_between_the_same_cuts_take_one_place() {
    let mut history = history(&[(3, 7, false), (5, 10, true)]);
    for era in 6..200 {
        history.push(roll(era, 10, false)).unwrap();
    }
    assert_eq!(history.rolls().len(), 3);
    assert_eq!((start(&history, 8), start(&history, 10), start(&history, 11)), (Some(3), Some(5), Some(199)));
}

#[test]
fn a_history_that_was_reset_is_refused() {
    let mut history = history(&[(57, 10, true)]);
    let before = history.clone();
    let other_volumes = Roll { epoch: Epoch(11), at_cut: false, eras: vec![Era(58), Era(67)] };
    for next in
        [roll(57, 11, false), roll(2, 11, false), roll(58, 9, false), roll(58, 10, true), other_volumes]
    {
        assert!(history.push(next).is_err());
        assert_eq!(history, before);
    }
    assert!(RollHistory::default().push(Roll { epoch: Epoch(1), at_cut: true, eras: vec![] }).is_err());
    assert!(history.is_continued_by(&[Era(57), Era(67)]) && history.is_continued_by(&[Era(60), Era(99)]));
    assert!(!history.is_continued_by(&[Era(57), Era(66)]) && !history.is_continued_by(&[Era(57)]));
    assert!(RollHistory::default().is_continued_by(&[Era(1)]));
}

#[test]
fn each_contradiction_is_refused() {
    let good = history(&[(2, 1, true), (7, 9, false)]).encode();
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        decode(&bytes)
    };
    assert!(decode(&good).is_ok());
    for (at, value, what) in [(0, 17, "volumes"), (0, 0, "volumes"), (10, 2, "flags"), (28, 2, "follow")] {
        let text = changed(at, value).unwrap_err().to_string();
        assert!(text.contains(what), "{text}");
    }
    assert!(changed(0, 1).is_err());
    let twice = [&good[..], &good[19..]].concat();
    assert!(decode(&twice).is_err());
}

proptest! {
    #[test]
    fn encoding_is_exact_and_no_cut_is_taken(
        steps in proptest::collection::vec((1u32..9, 0u64..9, any::<bool>()), 0..40),
        at in any::<proptest::sample::Index>(),
    ) {
        let mut history = RollHistory::default();
        let (mut era, mut epoch) = (0, 0);
        for (more, later, at_cut) in steps {
            (era, epoch) = (era + more, epoch + later);
            history.push(roll(era, epoch, at_cut && later > 0)).unwrap();
        }
        let bytes = history.encode();
        prop_assert_ne!(decode(&bytes[..at.index(bytes.len())]), Ok(history.clone()));
        prop_assert_eq!(decode(&bytes), Ok(history));
    }

    #[test]
    fn no_write_after_the_base_lies_before_the_start(
        events in proptest::collection::vec(0u8..4, 1..200),
        lost in any::<u64>(),
    ) {
        // 0 a write, 1 a cut, 2 a roll, 3 a cut and a roll in one pause; some entries are lost.
        let (mut era, mut epoch) = (1u32, 0u64);
        let mut history = RollHistory::default();
        let mut writes = Vec::new();
        for (index, event) in events.iter().enumerate() {
            if *event == 0 {
                writes.push((epoch, era));
                continue;
            }
            epoch += u64::from(*event != 2);
            if *event != 1 {
                era += 1;
                if lost >> (index % 64) & 1 == 0 {
                    history.push(roll(era, epoch, *event == 3)).unwrap();
                }
            }
        }
        for base in 0..=epoch {
            let start = start(&history, base).unwrap_or(0);
            // A write with `after` == base came after the cut of epoch `base`.
            for (after, era) in writes.iter().filter(|(after, _)| *after >= base) {
                prop_assert!(*era >= start, "base {}: a write after {} in era {}", base, after, era);
            }
        }
    }

    #[test]
    fn a_full_history_stays_right_and_bounded(rolls in 1u32..500, base in 0u64..600) {
        let mut history = RollHistory::default();
        for n in 1..=rolls {
            history.push(roll(n + 1, n.into(), true)).unwrap();
        }
        prop_assert!(history.rolls().len() <= MAX_ROLLS);
        if base > 0 {
            let exact = base.min(rolls.into()) + 1;
            prop_assert!(start(&history, base).is_some_and(|era| u64::from(era) <= exact));
        }
    }
}
