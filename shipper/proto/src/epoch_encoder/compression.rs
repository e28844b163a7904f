//! Whether a frame is worth compressing, and doing so.
//!
//! Always holds: a compressed payload is at least a sixteenth smaller than the raw one. A large payload is judged by a
//! sample first, and the sample by how often each byte occurs in it: what is encrypted or compressed already costs a few
//! instructions for a kibibyte and no attempt.

use lz4_flex::block::{compress_into, get_maximum_output_size};

use super::Buffers;

/// Payloads up to this size are tried whole.
const SMALL: usize = 64 << 10;
/// A sample is this many pieces, spread evenly.
const PIECES: usize = 4;
/// Bytes of a piece.
const PIECE: usize = 4 << 10;
/// Bytes of each piece that are counted.
const COUNTED: usize = 1 << 10;

/// Compresses frame after frame, keeping its buffers.
#[derive(Debug)]
pub(super) struct Compressor {
    buffers: Buffers,
    sample: Vec<u8>,
    out: Vec<u8>,
}

impl Compressor {
    /// Its buffers and what it makes are from `buffers`.
    pub(super) fn new(buffers: Buffers) -> Self {
        let (sample, out) = (Vec::new(), buffers.take());
        Self { buffers, sample, out }
    }

    /// The payload as one lz4 block. `None` when that saves less than a sixteenth.
    pub(super) fn compress(&mut self, raw: &[u8]) -> Option<Vec<u8>> {
        if raw.len() > SMALL && !self.sample_shrinks(raw) {
            return None;
        }
        let len = compressed_len(raw, &mut self.out)?;
        let mut smaller = self.buffers.take();
        smaller.extend_from_slice(&self.out[..len]);
        Some(smaller)
    }

    fn sample_shrinks(&mut self, raw: &[u8]) -> bool {
        self.sample.clear();
        for i in 0..PIECES {
            // From the middle of each part: a frame begins with descriptors, which say nothing of its data.
            let start = raw.len() / (2 * PIECES) * (2 * i + 1);
            self.sample.extend_from_slice(&raw[start..(start + PIECE).min(raw.len())]);
        }
        if looks_random(self.sample.chunks(PIECE).flat_map(|piece| piece.iter().take(COUNTED))) {
            return false;
        }
        compressed_len(&self.sample, &mut self.out).is_some()
    }
}

impl Drop for Compressor {
    fn drop(&mut self) {
        self.buffers.give(std::mem::take(&mut self.out));
    }
}

/// Whether all bytes are about equally frequent, so that only long repetitions would compress. Two bytes of noise are
/// equal once in 256 times; here it may be once in 205.
fn looks_random<'a>(bytes: impl Iterator<Item = &'a u8>) -> bool {
    let mut counts = [0u64; 256];
    let mut total = 0u64;
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
        total += 1;
    }
    let equal_pairs: u64 = counts.iter().map(|count| count * count.saturating_sub(1)).sum();
    equal_pairs * 256 < total * total.saturating_sub(1) / 4 * 5
}

/// Compresses into `out`. `None` when that saves less than a sixteenth.
fn compressed_len(raw: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    out.resize(get_maximum_output_size(raw.len()).max(out.len()), 0);
    let len = compress_into(raw, out).ok()?;
    (len <= raw.len() - raw.len().div_ceil(16)).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    #[test]
    fn noise_is_told_from_what_has_a_form() {
        let is_random = |bytes: &[u8]| looks_random(bytes.iter());
        for seed in 0..50 {
            assert!(is_random(&noise(seed, PIECES * COUNTED)), "{seed}");
        }
        let text = b"A guest's files: text, tables, libraries, and what lies between them. ".repeat(60);
        let digits: Vec<u8> = noise(1, 4096).iter().map(|byte| b'0' + byte % 64).collect();
        let half: Vec<u8> = noise(2, 2048).into_iter().chain(vec![0; 2048]).collect();
        for (name, formed) in [("text", text), ("64 symbols", digits), ("half zero", half)] {
            assert!(!is_random(&formed), "{name}");
        }
        assert!(!is_random(&[]));
    }

    #[test]
    fn a_large_payload_is_tried_whole_where_a_sample_shrinks_and_not_where_it_is_noise() {
        let mut compressor = Compressor::new(Buffers::default());
        let mut noise = noise(3, 1 << 20);
        // As descriptors are.
        noise[..6 << 10].fill(1);
        assert_eq!(compressor.compress(&noise), None);
        assert!(compressor.out.is_empty(), "it was tried");
        let formed: Vec<u8> = noise.iter().flat_map(|byte| [*byte; 16]).take(1 << 20).collect();
        assert!(compressor.compress(&formed).is_some_and(|smaller| smaller.len() < formed.len() * 3 / 4));
    }
}
