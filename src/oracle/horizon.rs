//! Twin of `horizon.wgsl`: how many of the nearest lists a query visits.

/// Of ascending distances, how many are near beside the mean square of the first `nearest`: `times` that, or less. The first
/// is in any case.
#[must_use]
pub fn within(distances: &[f64], is_square: bool, nearest: usize, times: f64) -> usize {
    let square = |distance: f64| if is_square { distance } else { distance * distance };
    let first = &distances[..nearest.min(distances.len())];
    let mean = first.iter().map(|&distance| square(distance)).sum::<f64>() / first.len() as f64;
    distances.iter().enumerate().filter(|&(rank, &distance)| rank == 0 || square(distance) <= times * mean).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_computed_by_hand() {
        // Squares 1, 4, 9, 16: the mean of the first two is 2.5.
        let distances = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(within(&distances, false, 2, 3.5), 2);
        assert_eq!(within(&distances, false, 2, 3.6), 3);
        assert_eq!(within(&distances, false, 2, 0.1), 1);
        // As squares the mean of the first two is 1.5.
        assert_eq!(within(&distances, true, 2, 2.0), 3);
        assert_eq!(within(&[], true, 2, 2.0), 0);
    }
}
