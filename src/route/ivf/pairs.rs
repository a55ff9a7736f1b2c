//! (query, list) pairs by list.

use std::ops::Range;

use rayon::prelude::*;

use crate::plan::lists::SORTED_ROWS;

/// [`SORTED_ROWS`] as an index.
#[allow(clippy::cast_possible_truncation)]
const RUN: usize = SORTED_ROWS as usize;
/// Queries per word of [`Pairs::Bits`].
pub const WORD: usize = 64;

/// Which queries of a block visit which lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// Few lists per query.
    Sorted(Vec<Run>),
    /// Any number of lists per query, in a room that does not depend on it.
    Bits {
        /// How many lists.
        lists: usize,
        /// Bit `q % 64` of word `q / 64 × lists + list` is query q's.
        words: Vec<u64>,
    },
}

/// The pairs of [`RUN`] queries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where each list's queries begin, and the end.
    starts: Vec<u32>,
    /// The queries of each list, ascending, one list after the other.
    queries: Vec<u32>,
}

impl Run {
    /// These ranks of the lists nearest the queries from `first` on.
    fn sorted(lists: usize, near: &[u32], per_query: usize, (first, ranks): (u32, &Range<usize>)) -> Self {
        // A list that is not there is one that was not found.
        let found = |&list: &u32| Some(index(list)).filter(|&list| list < lists);
        let rows = || near.chunks_exact(per_query).map(|near| &near[ranks.clone()]);
        let mut starts = vec![0; lists + 1];
        for list in rows().flatten().filter_map(found) {
            starts[list + 1] += 1;
        }
        for list in 0..lists {
            starts[list + 1] += starts[list];
        }
        let mut next = starts.clone();
        let mut queries = vec![0; index(starts[lists])];
        for (query, near) in (first..).zip(rows()) {
            for list in near.iter().filter_map(found) {
                queries[index(next[list])] = query;
                next[list] += 1;
            }
        }
        Self { starts, queries }
    }

    fn queries(&self, list: usize) -> &[u32] {
        &self.queries[index(self.starts[list])..index(self.starts[list + 1])]
    }
}

impl Pairs {
    /// These ranks of the lists nearest each query (`rows × per_query`, nearest first), sorted by list.
    pub fn sorted(lists: usize, near: &[u32], per_query: usize, ranks: &Range<usize>) -> Self {
        let per_query = per_query.max(1);
        let runs = near.par_chunks(RUN * per_query).enumerate();
        let first = |run: usize| u32::try_from(run * RUN).unwrap_or(u32::MAX);
        Self::Sorted(runs.map(|(run, near)| Run::sorted(lists, near, per_query, (first(run), ranks))).collect())
    }

    /// Parts of the queries that have no more than so many pairs with these lists together, or are as small as parts can be.
    /// There is one at least.
    pub fn parts(&self, lists: &(impl Iterator<Item = usize> + Clone), pairs_max: usize) -> Vec<Range<usize>> {
        let Self::Sorted(runs) = self else { return Vec::from([Range { start: 0, end: 1 }]) };
        let (mut parts, mut part, mut held) = (Vec::new(), 0..0, 0);
        for run in runs {
            let pairs: usize = lists.clone().map(|list| run.queries(list).len()).sum();
            if !part.is_empty() && held + pairs > pairs_max {
                parts.push(part.clone());
                (part.start, held) = (part.end, 0);
            }
            (part.end, held) = (part.end + 1, held + pairs);
        }
        parts.push(part);
        parts
    }

    /// Whether any query visits this list.
    pub fn has(&self, list: usize) -> bool {
        match self {
            Self::Sorted(runs) => runs.iter().any(|run| !run.queries(list).is_empty()),
            Self::Bits { lists, words } => words.iter().skip(list).step_by(*lists).any(|&word| word != 0),
        }
    }

    /// How many queries of one of the `parts` visit this list.
    pub fn count(&self, list: usize, part: &Range<usize>) -> u64 {
        match self {
            Self::Sorted(runs) => runs[part.clone()].iter().map(|run| run.queries(list).len() as u64).sum(),
            Self::Bits { lists, words } => {
                words.iter().skip(list).step_by(*lists).map(|word| u64::from(word.count_ones())).sum()
            }
        }
    }

    /// The queries of one of the `parts` that visit this list, ascending.
    pub fn queries(&self, list: usize, part: &Range<usize>) -> Vec<u32> {
        match self {
            Self::Sorted(runs) => runs[part.clone()].iter().map(|run| run.queries(list)).collect::<Vec<_>>().concat(),
            Self::Bits { lists, words } => {
                let mut queries = Vec::new();
                for (first, &word) in (0_u32..).step_by(WORD).zip(words.iter().skip(list).step_by(*lists)) {
                    let mut word = word;
                    while word != 0 {
                        queries.push(first + word.trailing_zeros());
                        word &= word - 1;
                    }
                }
                queries
            }
        }
    }
}

/// A u32 as an index.
pub fn index(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_list_has_the_queries_that_named_it_in_order() {
        let near = [2, 0, 1, 2, 0, 1, 0, 2];
        let all = Pairs::sorted(4, &near, 2, &(0..2));
        let found: Vec<Vec<u32>> = (0..4).map(|list| all.queries(list, &(0..1))).collect();
        assert_eq!(found, [vec![0, 2, 3], vec![1, 2], vec![0, 1, 3], vec![]]);
        let first = Pairs::sorted(4, &near, 2, &(0..1));
        assert_eq!((0..4).map(|list| first.has(list)).collect::<Vec<_>>(), [true, true, true, false]);
        assert!(!Pairs::sorted(1, &[], 0, &(0..0)).has(0));
    }

    #[test]
    fn queries_of_several_runs_stay_in_order() {
        let rows = 2 * RUN + 5;
        let near: Vec<u32> = (0..rows).flat_map(|row| [u32::from(row % 3 == 0), 2]).collect();
        let pairs = Pairs::sorted(3, &near, 2, &(0..2));
        let of = |keep: fn(&u32) -> bool| (0..u32::try_from(rows).unwrap()).filter(keep).collect::<Vec<_>>();
        assert_eq!(pairs.queries(0, &(0..3)), of(|row| row % 3 != 0));
        assert_eq!(pairs.queries(1, &(0..3)), of(|row| row % 3 == 0));
        assert_eq!(pairs.queries(2, &(0..3)), of(|_| true));
        assert_eq!(pairs.queries(2, &(1..2)), of(|_| true)[RUN..2 * RUN]);
    }

    #[test]
    fn parts_hold_as_many_pairs_as_asked_where_they_can() {
        let pairs = Pairs::sorted(3, &vec![2; 3 * RUN + 5], 1, &(0..1));
        assert_eq!(pairs.parts(&(0..3), 10 * RUN), [0..4]);
        assert_eq!(pairs.parts(&(0..3), 2 * RUN), [0..2, 2..4]);
        assert_eq!(pairs.parts(&(0..3), 3), [0..1, 1..2, 2..3, 3..4]);
        assert_eq!(pairs.parts(&(0..2), 3), [0..4], "there are no pairs with these lists");
        assert_eq!(Pairs::sorted(3, &[], 1, &(0..1)).parts(&(0..3), 3), [0..0]);
    }

    #[test]
    fn bits_are_the_queries_they_stand_for() {
        let mut words = vec![0_u64; 6];
        words[1] = 1 | 1 << 63;
        words[4] = 1 << 2;
        let pairs = Pairs::Bits { lists: 3, words };
        let found: Vec<Vec<u32>> = (0..3).map(|list| pairs.queries(list, &pairs.parts(&(0..3), 1)[0])).collect();
        assert_eq!(found, [vec![], vec![0, 63, 66], vec![]]);
        assert_eq!((0..3).map(|list| pairs.has(list)).collect::<Vec<_>>(), [false, true, false]);
    }
}
