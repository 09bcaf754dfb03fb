//! Max-min fairness.

/// Divides `capacity` among takers that can take at most `limits`: one gets less than another only if that is its limit.
pub(crate) fn share(capacity: f64, limits: &[f64]) -> Vec<f64> {
    if capacity.is_infinite() {
        return limits.to_vec();
    }
    let mut order: Vec<usize> = (0..limits.len()).collect();
    let limit = |index: usize| limits.get(index).copied().unwrap_or(0.0);
    order.sort_by(|a, b| limit(*a).total_cmp(&limit(*b)));
    let mut parts = vec![0.0; limits.len()];
    let mut left = capacity;
    for (done, index) in order.iter().enumerate() {
        let even = left / (limits.len() - done) as f64;
        let part = limit(*index).min(even).max(0.0);
        left -= part;
        if let Some(slot) = parts.get_mut(*index) {
            *slot = part;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_is_fair() {
        for (capacity, limits, expected) in [
            (10.0, vec![], vec![]),
            (10.0, vec![20.0, 20.0], vec![5.0, 5.0]),
            (10.0, vec![1.0, 20.0, 20.0], vec![1.0, 4.5, 4.5]),
            (10.0, vec![3.0, 1.0], vec![3.0, 1.0]),
            (f64::INFINITY, vec![3.0, 1.0], vec![3.0, 1.0]),
        ] {
            assert_eq!(share(capacity, &limits), expected, "{capacity} {limits:?}");
        }
    }
}
