//! Latency figures for status displays.
//!
//! Always holds: memory is bounded, whatever is recorded.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// A distribution in milliseconds; zeros when nothing was recorded.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Percentiles {
    /// Number of values.
    pub count: u64,
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

/// Records durations, in microseconds up to an hour, with three significant digits.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

const LARGEST_US: u64 = 3_600_000_000;

impl Default for Latencies {
    fn default() -> Self {
        match Histogram::new_with_max(LARGEST_US, 3) {
            Ok(histogram) => Self(histogram),
            Err(error) => unreachable!("constant bounds are legal: {error}"),
        }
    }
}

impl Latencies {
    /// Adds a value; anything above an hour counts as an hour.
    pub fn record(&mut self, value: Duration) {
        let micros = u64::try_from(value.as_micros()).unwrap_or(LARGEST_US);
        self.0.saturating_record(micros.min(LARGEST_US));
    }

    /// The distribution so far.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "microseconds below an hour are exact in an f64")]
    pub fn percentiles(&self) -> Percentiles {
        let ms = |micros: u64| micros as f64 / 1000.0;
        if self.0.is_empty() {
            return Percentiles::default();
        }
        Percentiles {
            count: self.0.len(),
            p50: ms(self.0.value_at_quantile(0.50)),
            p99: ms(self.0.value_at_quantile(0.99)),
            max: ms(self.0.max()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_known_distribution() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentiles().count, 0);
        for ms in 1..=100 {
            latencies.record(Duration::from_millis(ms));
        }
        latencies.record(Duration::from_secs(100_000));
        let p = latencies.percentiles();
        assert_eq!(p.count, 101);
        assert!((p.p50 - 51.0).abs() < 0.1, "{p:?}");
        assert!((p.max / 3_600_000.0 - 1.0).abs() < 0.001, "{p:?}");
    }
}
