//! The arithmetic of learning centroids (Lloyd's k-means): first centroids, means, and where centroids that few rows
//! have go. Which centroid is nearest to a row is for an engine to say.
//!
//! Sums are taken in f64 and in the order of the rows, so the same rows give the same centroids on any machine.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::plan::sample::Random;

/// A centroid whose rows are more than so many times the mean gives some to another.
///
/// Lower makes lists more even, so that a search reads less in each of them, and finds less in as many of them.
const LARGE: f64 = 4.0;
/// One whose rows are fewer than this share of the mean may be the other.
const SMALL: f64 = 0.2;

/// Rows of a sample by their number in it.
pub trait Sample {
    /// How many.
    fn rows(&self) -> usize;
    /// One of them.
    fn row(&self, row: usize) -> &[f32];
}

/// Where each row of a sample belongs.
#[derive(Clone, Debug, Default)]
pub struct Assignment {
    /// The list of each row.
    pub lists: Vec<u32>,
    /// How far it is from that list's centroid.
    pub distances: Vec<f32>,
}

/// `lists` different rows of the sample, row-major: where learning begins. There must be as many.
#[must_use]
pub fn first_centroids(sample: &impl Sample, lists: usize, random: &mut Random) -> Vec<f32> {
    let rows = sample.rows();
    let mut centroids = Vec::new();
    let mut left = lists;
    // Each row is taken with the chance that makes the rest come out right (Knuth's algorithm S).
    for row in 0..rows {
        if random.below((rows - row) as u64) < left as u64 {
            centroids.extend_from_slice(sample.row(row));
            left -= 1;
        }
    }
    centroids
}

/// The mean of each list's rows, `lists × dim`, and how many rows those are. A list without rows keeps its centroid.
#[must_use]
pub fn means(sample: &impl Sample, lists: &[u32], centroids: &[f32], dim: usize) -> (Vec<f32>, Vec<u64>) {
    let n = centroids.len() / dim;
    let (mut sums, mut counts) = (vec![0.0_f64; centroids.len()], vec![0_u64; n]);
    for (row, &list) in lists.iter().enumerate() {
        let list = index(list);
        counts[list] += 1;
        let sum = &mut sums[list * dim..(list + 1) * dim];
        sum.iter_mut().zip(sample.row(row)).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let mut means = centroids.to_vec();
    for (list, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let at = list * dim..(list + 1) * dim;
        #[allow(clippy::cast_possible_truncation)] // a mean of float32 values is within their range
        means[at.clone()].iter_mut().zip(&sums[at]).for_each(|(mean, sum)| *mean = (sum / count as f64) as f32);
    }
    (means, counts)
}

/// A list with many rows, and in how many parts they will be.
struct Large {
    rows: u64,
    parts: u64,
    list: usize,
}

impl Large {
    fn share(&self) -> f64 {
        self.rows as f64 / self.parts as f64
    }
}

impl Ord for Large {
    fn cmp(&self, other: &Self) -> Ordering {
        self.share().total_cmp(&other.share()).then(other.list.cmp(&self.list))
    }
}

impl PartialOrd for Large {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Large {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Large {}

/// Moves the centroids of lists without rows, and of lists with few where others have far too many, to a row of a list
/// that has many. Says how many were moved.
pub fn rebalance(
    sample: &impl Sample,
    assignment: &Assignment,
    counts: &[u64],
    centroids: &mut [f32],
    random: &mut Random,
) -> usize {
    let dim = centroids.len() / counts.len().max(1);
    let mean = assignment.lists.len() as f64 / counts.len().max(1) as f64;
    // A list of equal rows cannot be cut by distance.
    let mut spread = vec![false; counts.len()];
    for (&list, &distance) in assignment.lists.iter().zip(&assignment.distances) {
        spread[index(list)] |= distance > 0.0;
    }
    let large = counts.iter().zip(&spread).enumerate().filter(|(_, (count, spread))| **count > 1 && **spread);
    let mut heap: BinaryHeap<Large> = large.map(|(list, (&rows, _))| Large { rows, parts: 1, list }).collect();
    let mut small: Vec<usize> = (0..counts.len()).filter(|&list| counts[list] as f64 <= SMALL * mean).collect();
    small.sort_by_key(|&list| (counts[list], list));
    // (list that gives, which of its rows) and the list that gets it.
    let mut moves = Vec::new();
    for list in small {
        let Some(mut giver) = heap.pop() else { break };
        let wanted = counts[list] == 0 || giver.share() > LARGE * mean;
        // The giver's own centroid may be among the small ones; then it stays.
        if !wanted || giver.list == list || giver.share() < 2.0 {
            break;
        }
        moves.push(((giver.list, random.below(giver.rows)), list));
        giver.parts += 1;
        heap.push(giver);
    }
    let moved = moves.len();
    moves.sort_unstable();
    place(sample, &assignment.lists, &moves, dim, centroids);
    moved
}

/// Puts the `n`-th row of a list where another list's centroid is, for moves sorted by ((list, n), other).
fn place(sample: &impl Sample, lists: &[u32], moves: &[((usize, u64), usize)], dim: usize, centroids: &mut [f32]) {
    let mut seen = std::collections::HashMap::<usize, u64>::new();
    for &((giver, _), _) in moves {
        seen.insert(giver, 0);
    }
    for (row, &list) in lists.iter().enumerate() {
        let list = index(list);
        let Some(nth) = seen.get_mut(&list) else { continue };
        let first = moves.partition_point(|(from, _)| *from < (list, *nth));
        for &(_, to) in moves[first..].iter().take_while(|(from, _)| *from == (list, *nth)) {
            centroids[to * dim..(to + 1) * dim].copy_from_slice(sample.row(row));
        }
        *nth += 1;
    }
}

/// The order in which centroids lie near each other: cut at the median of the dimension in which they differ most, and
/// again in each half. Lists that are searched together are then read together.
#[must_use]
pub fn neighbourly_order(centroids: &[f32], dim: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..centroids.len() / dim).collect();
    let mut stack = vec![0..order.len()];
    while let Some(range) = stack.pop() {
        if range.len() < 3 {
            continue;
        }
        let part = &mut order[range.clone()];
        let axis = widest(part, centroids, dim);
        let value = |list: &usize| centroids[list * dim + axis];
        let middle = part.len() / 2;
        part.select_nth_unstable_by(middle, |a, b| value(a).total_cmp(&value(b)).then(a.cmp(b)));
        stack.push(range.start..range.start + middle);
        stack.push(range.start + middle..range.end);
    }
    order
}

/// The dimension with the largest variance over these centroids.
fn widest(lists: &[usize], centroids: &[f32], dim: usize) -> usize {
    let n = lists.len() as f64;
    let (mut sum, mut squares) = (vec![0.0_f64; dim], vec![0.0_f64; dim]);
    for &list in lists {
        for (at, &value) in centroids[list * dim..(list + 1) * dim].iter().enumerate() {
            // From the first one, so that an offset costs no digits.
            let value = f64::from(value) - f64::from(centroids[lists[0] * dim + at]);
            sum[at] += value;
            squares[at] += value * value;
        }
    }
    let variance = |at: &usize| squares[*at] / n - (sum[*at] / n).powi(2);
    (0..dim).max_by(|a, b| variance(a).total_cmp(&variance(b)).then(b.cmp(a))).unwrap_or(0)
}

/// A list's number as an index.
pub(crate) fn index(list: u32) -> usize {
    usize::try_from(list).unwrap_or(usize::MAX)
}
