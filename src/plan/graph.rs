//! What a search through a graph adds to its plan: the graph of the whole reference, and the pairs that building and
//! searching it take.

/// Rows of one graph at most: a graph is built row after row, so that its bytes do not depend on threads, and several of
/// them at once. More graphs are built faster and searched slower, as every query goes through each; building takes far
/// longer than searching unless there are more queries than references.
pub const GRAPH_ROWS: u64 = 1 << 16;
/// Rows that are compared for each candidate that a search keeps: of its links, most lead to rows that were compared
/// before. Measured on digits and word vectors.
const PAIRS_PER_CANDIDATE: f64 = 10.0;
/// What a row of a graph takes beside its values and links: the room of 16 levels, locks, counts, and the allocator's.
const ROW_BYTES: u64 = 760;
/// A link: its place in a list that may have grown to twice its need, and what it points to.
const LINK_BYTES: u64 = 80;

/// The graph of a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GraphInput {
    /// Links of a row, M.
    pub m: u64,
    /// Candidates that are kept while a row is inserted.
    pub ef_construction: u64,
    /// Candidates that are kept while a query is searched.
    pub ef: u64,
    /// Threads there are, each of which may build a graph.
    pub threads: u64,
}

impl GraphInput {
    /// Pairs that building takes, of so many references.
    #[must_use]
    pub fn building(&self, references: u64) -> f64 {
        let rows = references as f64 / graphs(references) as f64;
        references as f64 * (self.ef_construction as f64 * PAIRS_PER_CANDIDATE).min(rows)
    }

    /// How many times as long building takes as it would on all threads.
    #[must_use]
    pub fn waiting(&self, references: u64) -> f64 {
        let rounds = graphs(references).div_ceil(self.threads.max(1));
        (rounds * self.threads.max(1)) as f64 / graphs(references) as f64
    }

    /// Pairs that one query takes.
    #[must_use]
    pub fn per_query(&self, references: u64) -> f64 {
        let graphs = graphs(references);
        let rows = references as f64 / graphs as f64;
        graphs as f64 * (self.ef as f64 * PAIRS_PER_CANDIDATE).min(rows)
    }
}

/// How many graphs so many references make.
#[must_use]
pub fn graphs(references: u64) -> u64 {
    references.div_ceil(GRAPH_ROWS).max(1)
}

/// Host bytes of a graph per row of so many dimensions, each with so many links.
#[must_use]
pub fn bytes_per_row(dim: u64, m: u64) -> u64 {
    // On the lowest level there are twice as many links.
    dim * 4 + ROW_BYTES + 2 * m * LINK_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphs_are_as_few_as_hold_all_rows_and_threads_without_one_wait() {
        for (rows, count) in [(0, 1), (1, 1), (GRAPH_ROWS, 1), (GRAPH_ROWS + 1, 2), (10 * GRAPH_ROWS, 10)] {
            assert_eq!(graphs(rows), count);
        }
        let input = |threads| GraphInput { m: 16, ef_construction: 200, ef: 100, threads };
        assert_eq!(input(1).waiting(5 * GRAPH_ROWS), 1.0);
        assert_eq!(input(4).waiting(GRAPH_ROWS), 4.0);
        assert_eq!(input(4).waiting(5 * GRAPH_ROWS), 8.0 / 5.0);
    }

    #[test]
    fn no_more_pairs_are_expected_than_there_are() {
        let input = GraphInput { m: 16, ef_construction: 200, ef: 100, threads: 2 };
        assert_eq!(input.per_query(50), 50.0);
        assert_eq!(input.building(50), 2_500.0);
        assert!(input.per_query(1 << 20) < f64::from(1 << 20) && input.per_query(1 << 20) > input.per_query(1 << 16));
        assert!(bytes_per_row(50, 32) > bytes_per_row(50, 16));
    }
}
