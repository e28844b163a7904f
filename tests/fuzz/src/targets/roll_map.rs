//! The durable map from epochs to eras.

use ftdm::era::roll_map::{MAX_BYTES, MAX_ENTRIES, Roll, RollMap};
use ftdm::units::Era;

use crate::{Seed, Target, Verdict, explains, mend, within};

pub(super) const TARGET: Target =
    Target { name: "roll_map", run, seeds, max_len: MAX_BYTES + 64, words: &["FTDMROLL"] };

/// Memory for any bytes: the entries of a full map, grown by doubling.
const BOUND: usize = 4 * MAX_BYTES;

fn run(data: &[u8]) -> Verdict {
    let mut mended = data.to_vec();
    mend::trailing_checksum(&mut mended);
    judge(data).or(judge(&mended))
}

fn judge(bytes: &[u8]) -> Verdict {
    match within(BOUND, || RollMap::decode(bytes)) {
        Ok(mut map) => {
            assert_eq!(map.encode(), bytes, "one map, one encoding");
            assert!(map.rolls().len() <= MAX_ENTRIES);
            assert!(map.rolls().windows(2).all(|w| w[0].era < w[1].era && w[0].epoch <= w[1].epoch));
            for base in map.rolls().iter().map(|roll| roll.epoch).chain([0, u64::MAX]) {
                let start = map.start(base);
                assert!(start.is_none_or(|era| map.rolls().iter().any(|roll| roll.era == era)));
            }
            let last = map.rolls().last().copied();
            map.forget_before(last.map_or(0, |roll| roll.epoch));
            assert_eq!(map.rolls().last().copied(), last);
            Verdict::Accepted
        }
        Err(error) => {
            explains(&error, &["roll map"]);
            Verdict::Refused
        }
    }
}

fn seeds() -> Vec<Seed> {
    let map = |count: u32| {
        let mut map = RollMap::default();
        for n in 1..=count {
            // They follow each other, so none is refused.
            let _ = map.push(Roll { era: Era(2 * n), epoch: u64::from(n / 2), at_cut: n % 3 == 0 });
        }
        map.encode()
    };
    vec![("empty".into(), map(0)), ("some".into(), map(9)), ("full".into(), map(1500))]
}
