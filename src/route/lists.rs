//! Lists as they will be on the disk: none too large, and how far their rows are from their centroids.

use super::space::ListSpace;

/// No list has more than this many times the mean.
const LARGEST: u64 = 4;

/// A list of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List {
    /// The learned centroid it has.
    pub centroid: usize,
    /// How many rows.
    pub rows: u64,
}

/// The lists of an index whose learned centroids are nearest to so many rows each. One that has too many rows becomes
/// several with the same centroid; one that has none is left out.
#[must_use]
pub fn cut(counts: &[u64]) -> Vec<List> {
    let most = most(counts);
    let mut lists = Vec::with_capacity(counts.len());
    for (centroid, &count) in counts.iter().enumerate() {
        let parts = count.div_ceil(most);
        for part in 0..parts {
            let rows = count / parts + u64::from(part < count % parts);
            lists.push(List { centroid, rows });
        }
    }
    lists
}

/// Most rows that a list may have so that none has more than 4 times the mean of all, cut lists included.
fn most(counts: &[u64]) -> u64 {
    let rows: u64 = counts.iter().sum();
    // Centroids without rows count as lists here, or where all rows are equal one list would have all of them.
    let lists = counts.len().max(1) as u64;
    let with = |most: u64| counts.iter().map(|count| count.div_ceil(most)).sum::<u64>().max(lists);
    let allowed = |lists: u64| (rows.saturating_mul(LARGEST) / lists).max(1);
    // Fewer rows per list are more lists, so this goes down. It ends above 3n/L for n rows and L centroids: with at most c
    // rows each, there are at most n/c + L lists, and c · (n/c + L) ≤ 4n from c = 3n/L on.
    let mut most = allowed(with(u64::MAX));
    loop {
        let next = allowed(with(most));
        if next >= most {
            return most;
        }
        most = next;
    }
}

/// Where each list begins, and at the end where the last one ends.
#[must_use]
pub fn offsets(lists: &[List]) -> Vec<u64> {
    let mut at = 0;
    let ends = lists.iter().map(|list| {
        at += list.rows;
        at
    });
    std::iter::once(0).chain(ends).collect()
}

/// The largest distance between a centroid and some rows, which are put into the space of centroids first. A row without
/// a direction may be anywhere on the sphere: no query on it is farther from the centroid.
#[must_use]
pub fn farthest(space: ListSpace, rows: &[f32], centroid: &[f32]) -> f64 {
    let mut placed = vec![0.0; centroid.len()];
    let distance = |row: &[f32]| {
        if !space.place(row, &mut placed) {
            return 1.0 + centroid.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        }
        placed.iter().zip(centroid).map(|(a, b)| (a - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
    };
    rows.chunks_exact(centroid.len()).map(distance).fold(0.0, f64::max)
}

/// A distance as a float32 that is not less, the rounding of its own sum included.
#[must_use]
pub fn rounded_up(distance: f64, space: ListSpace) -> f32 {
    // A sum of d squares in f64 is off by d · 2⁻⁵³ at most, and a row put on the sphere by a few 2⁻⁵³.
    let distance = distance * (1.0 + 1e-11) + if space == ListSpace::Rows { 0.0 } else { 1e-15 };
    #[allow(clippy::cast_possible_truncation)] // corrected below
    let rounded = distance as f32;
    if f64::from(rounded) < distance { rounded.next_up() } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_list_has_more_than_four_times_the_mean(
            counts in prop::collection::vec(prop_oneof![0_u64..4, 0_u64..1000, Just(0), 5_000_u64..9_000], 1..60),
        ) {
            let lists = cut(&counts);
            let rows: u64 = counts.iter().sum();
            // With fewer rows than centroids a list may have 3 rows, which is too few to speak of balance.
            if rows >= counts.len() as u64 {
                let largest = lists.iter().map(|list| list.rows).max().unwrap_or(0);
                prop_assert!(largest * lists.len() as u64 <= 4 * rows, "{largest} of {rows} in {}", lists.len());
            }
            for (centroid, &count) in counts.iter().enumerate() {
                let of = lists.iter().filter(|list| list.centroid == centroid).map(|list| list.rows);
                prop_assert_eq!(of.clone().sum::<u64>(), count);
                prop_assert!(of.clone().all(|rows| rows > 0));
            }
            prop_assert!(lists.windows(2).all(|pair| pair[0].centroid <= pair[1].centroid));
            prop_assert_eq!(offsets(&lists).last().copied(), Some(rows));
        }

        #[test]
        fn a_radius_is_never_less(distance in prop_oneof![0.0..1e-30_f64, 0.0..1.0, 0.0..1e30]) {
            for (space, more) in [(ListSpace::Rows, 1e-44), (ListSpace::Unit, 1e-14)] {
                let radius = f64::from(rounded_up(distance, space));
                prop_assert!(radius >= distance && radius <= distance * 1.000_001 + more);
            }
        }
    }

    #[test]
    fn a_row_without_a_direction_is_as_far_as_any_on_the_sphere() {
        let centroid = [0.6, 0.0];
        assert_eq!(farthest(ListSpace::Rows, &[0.6, 3.0, 0.6, -4.0], &centroid), 4.0);
        assert!(farthest(ListSpace::Unit, &[5.0, 0.0], &centroid) < 0.41);
        assert!((farthest(ListSpace::Unit, &[5.0, 0.0, 0.0, 0.0], &centroid) - 1.6).abs() < 1e-7);
        assert_eq!(farthest(ListSpace::Rows, &[], &centroid), 0.0);
    }

    #[test]
    fn equal_rows_are_cut_into_equal_lists() {
        let lists = cut(&[1000, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        assert_eq!(lists.iter().map(|list| list.rows).collect::<Vec<_>>(), [334, 333, 333, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        let lists = cut(&[1000, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(lists.iter().map(|list| list.rows).collect::<Vec<_>>(), [334, 333, 333]);
        assert_eq!(cut(&[1000, 0, 0]), [List { centroid: 0, rows: 1000 }]);
        assert_eq!(rounded_up(0.0, ListSpace::Rows), 0.0);
        assert_eq!(rounded_up(f64::INFINITY, ListSpace::Rows), f32::INFINITY);
    }
}
