//! The history of rolls, as a field of the durable state.

use ftdm_units::Era;
use ftship_proto::group::MAX_VOLUMES;
use ftship_proto::ids::Epoch;
use ftship_proto::rolls::{MAX_ROLLS, Roll, RollHistory};
use ftship_proto::tlv::{Reader, Writer};

use crate::{Seed, Target, Verdict, explains, within};

pub(super) const TARGET: Target = Target { name: "rolls", run, seeds, max_len: 4 << 10, words: &[] };

/// Memory for any bytes: the entries of a full history, grown by doubling, and the reader's list of fields.
const BOUND: usize = 16 << 10;

fn run(data: &[u8]) -> Verdict {
    let mut fields = Writer::new();
    fields.field(1, data);
    let fields = fields.finish();
    match within(BOUND, || RollHistory::decode(Reader::new(&fields)?.required(1)?)) {
        Ok(mut history) => {
            assert_eq!(history.encode(), data, "one history, one encoding");
            let rolls = history.rolls();
            assert!(rolls.len() <= MAX_ROLLS);
            assert!(rolls.windows(2).all(|w| w[0].epoch <= w[1].epoch && w[0].eras < w[1].eras));
            let bases: Vec<Epoch> =
                rolls.iter().map(|roll| roll.epoch).chain([Epoch(0), Epoch(u64::MAX)]).collect();
            for base in bases {
                let start = history.start(base);
                assert!(start.is_none_or(|eras| rolls.iter().any(|roll| roll.eras == eras)));
            }
            let last = history.last().cloned();
            assert!(last.as_ref().is_none_or(|last| history.is_continued_by(&last.eras)));
            history.forget_before(last.as_ref().map_or(Epoch(0), |roll| roll.epoch));
            assert_eq!(history.last().cloned(), last);
            Verdict::Accepted
        }
        Err(error) => {
            explains(&error, &["field"]);
            Verdict::Refused
        }
    }
}

fn seeds() -> Vec<Seed> {
    let history = |count: u32, volumes: usize| {
        let mut history = RollHistory::default();
        for n in 1..=count {
            // They follow each other, so none is refused.
            let (epoch, eras) = (Epoch(u64::from(n / 2)), vec![Era(2 * n); volumes]);
            let _ = history.push(Roll { epoch, at_cut: n % 6 == 0, eras });
        }
        history.encode()
    };
    vec![
        ("none".into(), history(0, 1)),
        ("some".into(), history(9, 2)),
        ("full".into(), history(150, MAX_VOLUMES)),
    ]
}
