//! Least squares with coefficients that are not negative, as costs never are.

/// Coefficients `x >= 0` that make the sum of squares of `rows · x - values` least.
///
/// Coordinate descent: sets each coefficient in turn to its best value while the others are fixed. With the few unknowns here
/// it converges in some hundred rounds. The coefficient of a column of zeros is zero.
pub(crate) fn solve<const N: usize>(rows: &[[f64; N]], values: &[f64]) -> [f64; N] {
    let mut found = [0.0; N];
    let dot = |a: &[f64; N], b: &[f64; N]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for _ in 0..ROUNDS {
        for at in 0..N {
            let column = |row: &[f64; N]| row.get(at).copied().unwrap_or(0.0);
            let square: f64 = rows.iter().map(|row| column(row).powi(2)).sum();
            if square == 0.0 {
                continue;
            }
            let gradient: f64 =
                rows.iter().zip(values).map(|(row, value)| column(row) * (value - dot(row, &found))).sum();
            if let Some(coefficient) = found.get_mut(at) {
                *coefficient = (*coefficient + gradient / square).max(0.0);
            }
        }
    }
    found
}

const ROUNDS: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_costs_are_found_again() {
        let rows = [[1.0, 10.0, 0.0], [5.0, 2.0, 1.0], [0.0, 7.0, 3.0], [9.0, 1.0, 2.0]];
        let costs = [0.5, 2.0, 0.25];
        let values = rows.map(|row| row.iter().zip(costs).map(|(a, b)| a * b).sum::<f64>());
        for (found, cost) in solve(&rows, &values).iter().zip(costs) {
            assert!((found - cost).abs() < 1e-6, "{found} {cost}");
        }
    }

    #[test]
    fn no_cost_is_negative() {
        let found = solve(&[[1.0, 1.0], [1.0, 2.0], [0.0, 0.0]], &[2.0, 1.0, 0.0]);
        assert!(found[0] > 0.0 && found[1] == 0.0, "{found:?}");
        assert_eq!(solve::<2>(&[], &[]), [0.0, 0.0]);
    }
}
