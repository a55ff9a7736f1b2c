//! What a search through a graph adds to its plan: the graph of the whole reference, and the pairs that building and
//! searching it take.

/// Rows of one graph at most: a graph is built row after row, so that its bytes do not depend on threads, and several of
/// them at once. More graphs are built faster and searched slower, as every query goes through each.
pub const GRAPH_ROWS: u64 = 1 << 18;
/// Links per row that are expected to be compared for each candidate that a search keeps: of the links of a candidate,
/// most lead to rows that were compared before.
const PAIRS_PER_CANDIDATE: f64 = 12.0;
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
}

impl GraphInput {
    /// Pairs that building takes, of so many references.
    #[must_use]
    pub fn building(&self, references: u64) -> f64 {
        let rows = references.min(GRAPH_ROWS) as f64;
        // Candidates for links are compared with one another as well.
        references as f64 * (self.ef_construction as f64 * (PAIRS_PER_CANDIDATE + self.m as f64)).min(rows)
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
