//! Medians and spreads.

use std::time::Duration;

use serde::Serialize;

/// How a figure is distributed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// How many samples there are.
    pub(crate) count: usize,
    /// The smallest.
    pub(crate) min: f64,
    /// A quarter of them is below.
    pub(crate) p25: f64,
    /// Half of them is below.
    pub(crate) median: f64,
    /// A quarter of them is above.
    pub(crate) p75: f64,
    /// A hundredth of them is above.
    pub(crate) p99: f64,
    /// The largest.
    pub(crate) max: f64,
}

impl Summary {
    /// Of these samples; none of no sample.
    pub(crate) fn of(samples: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            count: sorted.len(),
            min: *sorted.first()?,
            p25: quantile(&sorted, 25)?,
            median: quantile(&sorted, 50)?,
            p75: quantile(&sorted, 75)?,
            p99: quantile(&sorted, 99)?,
            max: *sorted.last()?,
        })
    }
}

/// The value below which so many hundredths of the samples are, between two of them in proportion.
fn quantile(sorted: &[f64], hundredths: usize) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let (index, rest) = (last * hundredths / 100, last * hundredths % 100);
    let below = sorted.get(index)?;
    let above = sorted.get(index + 1).unwrap_or(below);
    Some(below + (above - below) * exact(rest) / 100.0)
}

/// A count as a number to divide: counts, bytes and nanoseconds of a run are far below 2^53.
#[expect(
    clippy::cast_precision_loss,
    reason = "what a run counts is far below 2^53"
)]
pub(crate) fn exact(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}

/// A duration in milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// Bytes in mebibytes.
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    exact(bytes) / (1_024.0 * 1_024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(one: f64, other: f64) -> bool {
        (one - other).abs() < 1e-9
    }

    #[test]
    fn a_summary_of_one_to_a_hundred_and_one_has_its_places_where_they_are_counted() {
        let shuffled = (0..101_u64).map(|number| exact(number * 37 % 101 + 1));
        let summary = Summary::of(shuffled).unwrap();
        assert_eq!(summary.count, 101);
        for (seen, wanted) in [
            (summary.min, 1.0),
            (summary.p25, 26.0),
            (summary.median, 51.0),
            (summary.p75, 76.0),
            (summary.p99, 100.0),
            (summary.max, 101.0),
        ] {
            assert!(close(seen, wanted), "{seen} for {wanted}");
        }
    }

    #[test]
    fn a_place_between_two_samples_is_shared_in_proportion() {
        let summary = Summary::of([4.0, 1.0, 2.0, 3.0]).unwrap();
        assert!(close(summary.median, 2.5) && close(summary.p25, 1.75));
        assert!(close(summary.p99, 3.97));
    }

    #[test]
    fn one_sample_is_all_of_its_summary_and_none_has_no_summary() {
        let summary = Summary::of([7.0]).unwrap();
        assert!(close(summary.min, 7.0) && close(summary.p99, 7.0));
        assert_eq!(Summary::of([]), None);
    }

    #[test]
    fn units_are_what_their_names_say() {
        assert!(close(milliseconds(Duration::from_micros(1_500)), 1.5));
        assert!(close(mebibytes(3 << 20), 3.0));
    }
}
