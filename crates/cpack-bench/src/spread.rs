//! Repeated measurements.

use serde::{Deserialize, Serialize};

/// The values of repeated measurements, in the order in which they were taken, and their median, minimum and maximum.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    /// With an even number of values, the mean of the two in the middle.
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) values: Vec<f64>,
}

impl Spread {
    /// Without values everything is zero.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.into_iter().collect();
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
        let half = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { at(half) } else { f64::midpoint(at(half.saturating_sub(1)), at(half)) };
        Self { median, min: at(0), max: at(sorted.len().saturating_sub(1)), values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_has_the_median_in_the_middle() {
        for (values, median) in [(vec![], 0.0), (vec![3.0], 3.0), (vec![9.0, 1.0], 5.0), (vec![5.0, 1.0, 2.0], 2.0)] {
            assert_eq!(Spread::of(values.clone()).median, median, "{values:?}");
        }
        let spread = Spread::of([2.0, 1.0, 4.0]);
        assert_eq!((spread.min, spread.max, spread.values), (1.0, 4.0, vec![2.0, 1.0, 4.0]));
    }
}
