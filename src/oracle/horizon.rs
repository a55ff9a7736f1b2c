//! Twin of `horizon.wgsl`: how many of the nearest lists a query visits.

/// Of ascending distances, how many are near beside the mean square of the first `nearest`: `times` that, or less. The first
/// is in any case; one that is infinite is not there.
#[must_use]
pub fn within(distances: &[f32], squares: bool, nearest: usize, times: f32) -> usize {
    let there: Vec<f32> = distances.iter().copied().take_while(|distance| distance.is_finite()).collect();
    let farthest = there.last().copied().unwrap_or(0.0);
    if farthest <= 0.0 {
        return there.len().max(1).min(distances.len());
    }
    // Beside the farthest of all, so that no square overflows.
    let square = |distance: f32| if squares { distance / farthest } else { (distance / farthest).powi(2) };
    let first = &there[..nearest.min(there.len())];
    let most = times * (first.iter().map(|&distance| square(distance)).sum::<f32>() / first.len() as f32);
    there.iter().enumerate().filter(|&(rank, &distance)| rank == 0 || square(distance) <= most).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_computed_by_hand() {
        // Squares 1, 4, 9, 16: the mean of the first two is 2.5.
        let distances = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(within(&distances, false, 2, 3.5), 2);
        assert_eq!(within(&distances, false, 2, 3.7), 3);
        assert_eq!(within(&distances, false, 2, 0.1), 1);
        // As squares the mean of the first two is 1.5.
        assert_eq!(within(&distances, true, 2, 2.1), 3);
        assert_eq!(within(&[0.0, 0.0], false, 2, 2.0), 2);
        assert_eq!(within(&[1e30, 2e30, f32::INFINITY], false, 2, 1.7), 2);
        assert_eq!(within(&[f32::INFINITY; 2], true, 2, 2.0), 1);
        assert_eq!(within(&[], true, 2, 2.0), 0);
    }
}
