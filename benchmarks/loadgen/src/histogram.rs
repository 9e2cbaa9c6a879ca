//! Latencies, counted in buckets whose width is at most 1/64 of their value.

use std::time::Duration;

/// Buckets per power of two.
const STEPS: u64 = 64;

/// How often each latency was seen.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// Counts one latency.
    pub fn record(&mut self, latency: Duration) {
        let index = bucket(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        if index >= self.counts.len() {
            self.counts.resize(index + 1, 0);
        }
        self.counts[index] += 1;
        self.total += 1;
    }

    /// How many latencies were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The latency that `per_mille` of 1000 counted ones do not exceed, to within a bucket.
    pub fn quantile(&self, per_mille: u64) -> Duration {
        let rank = (self.total * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(value(index));
            }
        }
        Duration::ZERO
    }
}

/// Values below `STEPS` have a bucket each; above, every power of two is cut into `STEPS`.
fn bucket(nanoseconds: u64) -> usize {
    let shift = (u64::BITS - nanoseconds.leading_zeros()).saturating_sub(STEPS.ilog2() + 1);
    let index = u64::from(shift) * STEPS + (nanoseconds >> shift);
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// The smallest value of a bucket.
fn value(index: usize) -> u64 {
    let index = index as u64;
    let shift = (index / STEPS).saturating_sub(1);
    (index - shift * STEPS) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_ordered_and_narrow() {
        for nanoseconds in (0..100_000).chain((17..50).map(|power| 1 << power)) {
            let index = bucket(nanoseconds);
            let low = value(index);
            assert!(low <= nanoseconds && nanoseconds - low <= nanoseconds / STEPS);
            assert_eq!(bucket(low), index);
            let next = bucket(nanoseconds + 1);
            assert!(next == index || next == index + 1);
        }
    }

    #[test]
    fn quantiles_of_one_to_a_thousand() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(500), Duration::ZERO);
        for microseconds in 1..=1000 {
            histogram.record(Duration::from_micros(microseconds));
        }
        assert_eq!(histogram.total(), 1000);
        for (per_mille, expected) in [(1, 1.0), (500, 500.0), (990, 990.0), (1000, 1000.0)] {
            let found = histogram.quantile(per_mille).as_secs_f64() * 1e6;
            assert!(
                (found / expected - 1.0).abs() < 0.02,
                "{per_mille}: {found}"
            );
        }
    }
}
