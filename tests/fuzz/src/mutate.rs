//! Mutations that a seed decides: the same number gives the same input, on every machine.
//!
//! Always holds: an input is never longer than its target's longest.

use crate::Target;

/// SplitMix64.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`; 0 when that is 0.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next().checked_rem(end as u64).unwrap_or(0)).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }
}

/// Input number `seed` of a target: one of `inputs`, changed in one to eight ways.
#[must_use]
pub fn case(target: &Target, inputs: &[Vec<u8>], seed: u64) -> Vec<u8> {
    let name = target.name.bytes().fold(0, |hash: u64, byte| hash.wrapping_mul(257) ^ u64::from(byte));
    let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ name);
    let mut bytes = inputs.get(random.below(inputs.len())).cloned().unwrap_or_default();
    for _ in 0..=random.below(8) {
        change(&mut random, target, inputs, &mut bytes);
    }
    bytes.truncate(target.max_len);
    bytes
}

/// Where to change something: anywhere, near the front, or, most often, where a run of equal bytes ends. That
/// is where fields begin; runs of zeros or of content are long and mean little.
fn place(random: &mut Random, bytes: &[u8]) -> usize {
    let at = random.below(bytes.len());
    match random.below(4) {
        0 => at,
        1 => random.below(bytes.len().min(256)),
        _ => {
            let is_edge = |i: &usize| bytes[*i] != bytes[i - 1];
            let (before, behind) = (1..at.max(1), at.max(1)..bytes.len());
            behind.chain(before).find(is_edge).unwrap_or(at)
        }
    }
}

fn change(random: &mut Random, target: &Target, inputs: &[Vec<u8>], bytes: &mut Vec<u8>) {
    let at = place(random, bytes);
    let rest = bytes.len() - at;
    match random.below(10) {
        0 if rest > 0 => bytes[at] ^= 1 << random.below(8),
        1 if rest > 0 => bytes[at] = random.byte(),
        2 => bytes.truncate(at),
        3 | 4 => number(random, &mut bytes[at..]),
        5 => {
            let len = random.below(rest.min(64) + 1);
            bytes.drain(at..at + len);
        }
        6 => {
            let len = random.below(64);
            let fill = [0, 0xff, random.byte()][random.below(3)];
            bytes.splice(at..at, std::iter::repeat_n(fill, len));
        }
        7 => {
            // A stretch of another input, over or between what is here.
            let Some(other) = inputs.get(random.below(inputs.len())) else { return };
            let from = place(random, other);
            let len = random.below((other.len() - from).min(8192) + 1);
            let over = if random.below(2) == 0 { len.min(rest) } else { 0 };
            bytes.splice(at..at + over, other[from..from + len].iter().copied());
        }
        8 => {
            let len = random.below(rest.min(512) + 1);
            let stretch = bytes[at..at + len].to_vec();
            let to = place(random, bytes);
            bytes.splice(to..to, stretch);
        }
        _ => {
            let Some(word) = target.words.get(random.below(target.words.len())) else { return };
            let over = match random.below(3) {
                0 => at..at,
                1 => at..at + word.len().min(rest),
                _ => token(bytes, at),
            };
            bytes.splice(over, word.bytes());
        }
    }
}

/// The word of a text that `at` is in.
fn token(bytes: &[u8], at: usize) -> std::ops::Range<usize> {
    let ends = |byte: &u8| byte.is_ascii_whitespace();
    let start = bytes[..at].iter().rposition(ends).map_or(0, |i| i + 1);
    let end = bytes[at..].iter().position(ends).map_or(bytes.len(), |i| at + i);
    start..end.max(start)
}

/// Overwrites a number of 1, 2, 4 or 8 bytes: with one that lies at an edge, or one near what is there.
fn number(random: &mut Random, bytes: &mut [u8]) {
    let width = (1usize << random.below(4)).min(bytes.len());
    let mut field = [0; 8];
    field[..width].copy_from_slice(&bytes[..width]);
    let there = u64::from_le_bytes(field);
    let edge = 1u64 << random.below((8 * width).max(1));
    let value = match random.below(7) {
        0 => 0,
        1 => u64::MAX,
        2 => edge,
        3 => edge - 1,
        4 => edge | random.next() & (edge - 1),
        5 => there.wrapping_add(random.next() % 9).wrapping_sub(4),
        _ => there.wrapping_mul(2),
    };
    bytes[..width].copy_from_slice(&value.to_le_bytes()[..width]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TARGETS;

    #[test]
    fn a_seed_is_an_input_and_most_seeds_are_different_ones() {
        let inputs = vec![vec![7; 100], vec![9; 40]];
        let all: Vec<_> = (0..500).map(|seed| case(&TARGETS[0], &inputs, seed)).collect();
        assert_eq!(case(&TARGETS[0], &inputs, 77), all[77]);
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert!(different.len() > 400);
        assert!(case(&TARGETS[0], &[], 3).len() <= TARGETS[0].max_len);
    }
}
