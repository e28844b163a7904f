//! Whether a frame is worth compressing, and doing so.
//!
//! Always holds: a compressed payload is at least a sixteenth smaller than the raw one. A large payload is
//! judged by a sample first, so a stream that does not compress costs a few per cent of trying.

use lz4_flex::block::{compress_into, get_maximum_output_size};

use super::Buffers;

/// Payloads up to this size are tried whole.
const SMALL: usize = 64 << 10;
/// A sample is this many pieces, spread evenly.
const PIECES: usize = 4;
/// Bytes of a piece.
const PIECE: usize = 4 << 10;

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
            let start = raw.len() / PIECES * i;
            self.sample.extend_from_slice(&raw[start..(start + PIECE).min(raw.len())]);
        }
        compressed_len(&self.sample, &mut self.out).is_some()
    }
}

impl Drop for Compressor {
    fn drop(&mut self) {
        self.buffers.give(std::mem::take(&mut self.out));
    }
}

/// Compresses into `out`. `None` when that saves less than a sixteenth.
fn compressed_len(raw: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    out.resize(get_maximum_output_size(raw.len()).max(out.len()), 0);
    let len = compress_into(raw, out).ok()?;
    (len <= raw.len() - raw.len().div_ceil(16)).then_some(len)
}
