//! Routes through an inverted file: reference rows in list order, each list the rows nearest one centroid.
//!
//! [`Probing`] visits the lists nearest a query and is approximate. `bounded` visits every list that may hold a neighbour
//! and is exact. Both turn (query, list) `pairs` into visits of partitions (`parts`); `ranking` measures centroids.

mod bounded;
mod pairs;
mod parts;
mod probing;
mod ranking;

use std::ops::Range;

use rayon::prelude::*;

pub use bounded::{Bounded, refusal};
pub use parts::Cut;
pub use probing::{Probing, list_ranks, list_ratios, nearest_by_engine};

use crate::block::RowBlock;
use crate::plan::lists::PORTION_PAIRS;
use crate::visit::{Visit, VisitQueries};
use pairs::Pairs;
use parts::Part;

use super::Route;

/// What is known of the lists of an inverted file.
#[derive(Clone, Debug, PartialEq)]
pub struct Lists {
    /// `lists × dim`; the ids are the numbers of the lists.
    pub centroids: RowBlock,
    /// The first row of each list, in list order, and behind the last one the number of rows.
    pub offsets: Vec<u64>,
    /// No row of a list is farther from its centroid than this: rounded up, euclidean, in the space of the lists (rows
    /// of length 1 for cosine, minus their own mean before for correlation).
    pub radii: Vec<f32>,
}

impl Lists {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.centroids.rows()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows of a list, in list order.
    #[must_use]
    pub fn rows(&self, list: usize) -> Range<u64> {
        self.offsets[list]..self.offsets[list + 1]
    }

    /// Expected rows of a list that is visited: queries are where the rows are, so large lists are visited more often.
    #[must_use]
    pub fn rows_per_visit(&self) -> f64 {
        let sizes = self.offsets.windows(2).map(|pair| (pair[1] - pair[0]) as f64);
        let (sum, squares) = sizes.fold((0.0, 0.0), |(sum, squares), n| (sum + n, squares + n * n));
        if sum > 0.0 { squares / sum } else { 0.0 }
    }
}

/// What a block visits: its pairs, and the partitions they lie in.
struct ListRoute {
    /// Pairs that are visited before others in each partition.
    pairs: Vec<Pairs>,
    parts: Vec<Part>,
}

impl ListRoute {
    fn new(pairs: Vec<Pairs>, lists: &Lists, cut: &Cut, seen_to: u64) -> Self {
        let needed = (0..lists.len()).filter(|&list| pairs.iter().any(|pairs| pairs.has(list)));
        let parts = cut.parts(needed.map(|list| (list, lists.rows(list))), seen_to);
        Self { pairs, parts }
    }
}

impl Route for ListRoute {
    fn partitions(&self) -> usize {
        self.parts.len()
    }

    fn rows(&self, partition: usize) -> &[Range<u64>] {
        &self.parts[partition].rows
    }

    fn visits<'v>(&'v self, partition: usize) -> Box<dyn Iterator<Item = Vec<Visit>> + Send + 'v> {
        let pieces = &self.parts[partition].pieces;
        let of = move |pairs: &'v Pairs| {
            let most = usize::try_from(PORTION_PAIRS).unwrap_or(usize::MAX);
            let parts = pairs.parts(&pieces.iter().map(|(list, _)| *list), most);
            parts.into_iter().flat_map(move |queries| Portions { pairs, queries, pieces })
        };
        Box::new(self.pairs.iter().flat_map(of))
    }
}

/// The visits of some pairs to some pieces of lists, as many at a time as make a portion.
struct Portions<'a> {
    pairs: &'a Pairs,
    /// Which part of the queries: a portion of few queries and all their lists is merged into them at once.
    queries: Range<usize>,
    pieces: &'a [(usize, Range<u32>)],
}

impl Iterator for Portions<'_> {
    type Item = Vec<Visit>;

    fn next(&mut self) -> Option<Vec<Visit>> {
        let Self { pairs, queries, pieces } = self;
        let mut held = 0;
        let n = pieces.iter().take_while(|(list, _)| {
            let had_room = held < PORTION_PAIRS;
            held += pairs.count(*list, queries);
            had_room
        });
        let (portion, rest) = pieces.split_at(n.count());
        *pieces = rest;
        let visit = |(list, rows): &(usize, Range<u32>)| {
            let queries = pairs.queries(*list, queries);
            (!queries.is_empty()).then(|| Visit { rows: rows.clone(), queries: VisitQueries::List(queries) })
        };
        let visits: Vec<Visit> = portion.par_iter().filter_map(visit).collect();
        Some(visits).filter(|visits| !visits.is_empty())
    }
}
