//! Latencies of requests, counted in a histogram.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest latency that is counted as it is: ten minutes.
const MAX_US: u64 = 600_000_000;
/// Decimal digits that a latency keeps.
const DIGITS: u8 = 3;

/// Counted latencies. Their memory does not grow with their number.
#[derive(Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    #[allow(clippy::expect_used, reason = "the bounds are constants, and the tests create one")]
    fn default() -> Self {
        Self(Histogram::new_with_max(MAX_US, DIGITS).expect("the bounds of the histogram"))
    }
}

impl Latencies {
    pub(crate) fn add(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(MAX_US));
    }

    pub(crate) fn add_all(&mut self, other: &Self) {
        // Err: impossible, because both have the same bounds.
        let _ = self.0.add(&other.0);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// Returns the latency in microseconds that the part `share` of all does not exceed, or 0 if there are
    /// none.
    pub(crate) fn quantile_us(&self, share: f64) -> u64 {
        self.0.value_at_quantile(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_nearest_rank() {
        let table = [(&[][..], 0.5, 0), (&[7], 0.99, 7), (&[1, 2, 3, 4], 0.5, 2), (&[1, 2, 3, 4], 0.99, 4)];
        for (all, share, expected) in table {
            let (mut halves, mut last) = (Latencies::default(), Latencies::default());
            for (index, us) in all.iter().enumerate() {
                let half = if index % 2 == 0 { &mut halves } else { &mut last };
                half.add(Duration::from_micros(*us));
            }
            halves.add_all(&last);
            assert_eq!((halves.count(), halves.quantile_us(share)), (all.len() as u64, expected), "{all:?}");
        }
        let mut endless = Latencies::default();
        endless.add(Duration::from_secs(100_000));
        assert!(endless.quantile_us(1.0) >= MAX_US);
    }
}
