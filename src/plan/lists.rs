//! What a search through the lists of an index adds to its plan: centroids, the lists near each query, ids.

use super::search::{SearchInput, Side};
use super::{EngineLimits, MemoryTable};
use crate::units::{ByteCount, UNIT_ROWS};

/// Queries of all visits of a portion, a query counted once per visit: no more than this and those of one visit.
pub const PORTION_PAIRS: u64 = 1 << 21;
/// What an engine finds of lists at a time: it takes three times the room of what is kept of it.
const RANKED_BYTES: u64 = 16 << 20;
/// Queries whose pairs with lists are sorted in one task.
pub const SORTED_ROWS: u64 = 32_768;
/// A list number or the row of a query.
const NUMBER_BYTES: u64 = 4;
/// An id or an offset.
const ID_BYTES: u64 = 8;
/// Neighbours as an engine returns them.
const SLOT_BYTES: u64 = 12;
/// Bytes of references that candidates are measured against at a time.
const WINDOW_BYTES_MIN: u64 = 1 << 20;
const WINDOW_BYTES_MAX: u64 = 64 << 20;
/// What visits of lists reach of an engine's rate: there are few queries to each.
///
/// 10,000 queries reach 0.24 to 0.30 of that of an exact search where they visit 64 to 128 lists of word vectors, and 0.16 to
/// 0.23 at 16 to 32 lists of a mixture, centroids counted; more queries reach more.
const RATE: f64 = 0.25;

/// A search through lists.
#[derive(Clone, Debug, PartialEq)]
pub struct ListsInput {
    /// Lists of the index.
    pub lists: u64,
    /// Lists that each query is told: those it visits, or those that give it a bound.
    pub nearest: u64,
    /// How many lists a query visits, on average: no more than it is told, unless bounds decide.
    pub visited: f64,
    /// Whether each query visits, beyond those, whatever its bound lets through: then any list may be visited.
    pub bounded: bool,
    /// Expected rows of a visited list.
    pub rows_per_visit: f64,
    /// The limits, for `nearest` neighbours, of the engine that finds them; `None` where the host does.
    pub ranking: Option<EngineLimits>,
    /// Neighbours per query that are searched: more than are kept where the index is compressed.
    pub candidates: u64,
    /// The reference, where candidates get their exact distances from it.
    pub refined: Option<Side>,
}

impl ListsInput {
    /// Queries whose nearest lists are found at a time.
    #[must_use]
    pub fn ranked_rows(&self, block_rows: u64) -> u64 {
        let fit = RANKED_BYTES / (SLOT_BYTES * self.nearest.max(1));
        fit.clamp(1, block_rows.max(1))
    }

    /// Pairs that so many queries compare with so many references: at most, where bounds decide.
    #[must_use]
    pub fn pairs(&self, queries: u64, references: u64) -> f64 {
        let all = references as f64;
        let each = if self.bounded { all } else { (self.visited * self.rows_per_visit).min(all) };
        queries as f64 * each
    }

    /// Pairs as an engine's rate counts them: with the centroids, and what small visits cost more.
    #[must_use]
    pub fn effort(&self, queries: u64, references: u64) -> f64 {
        (self.pairs(queries, references) + queries as f64 * self.lists as f64) / RATE
    }

    /// The share of the references that a block of so many queries needs.
    #[must_use]
    pub fn share_read(&self, block_rows: u64) -> f64 {
        let missed = 1.0 - (self.visited / self.lists.max(1) as f64).min(1.0);
        if self.bounded { 1.0 } else { 1.0 - missed.powf(block_rows as f64) }
    }

    /// Host bytes of the engine, beside the block, while it finds the nearest lists of some of the queries.
    pub(super) fn ranking_bytes(&self, dim: u64, block_rows: u64) -> u64 {
        let per_query = |limits: &EngineLimits| limits.bytes_per_query + self.nearest * SLOT_BYTES + 4 * dim;
        self.ranking.as_ref().map_or(0, |limits| self.ranked_rows(block_rows) * per_query(limits))
    }

    /// The same of its device, where the queries lie already.
    pub(super) fn ranking_device_bytes(&self, block_rows: u64) -> u64 {
        self.ranking.as_ref().map_or(0, |_| self.ranked_rows(block_rows) * self.nearest * SLOT_BYTES)
    }

    /// References of a window that candidates are refined in.
    #[must_use]
    pub fn window_rows(dim: u64, budget: ByteCount) -> u64 {
        let bytes = (budget.0 / 16).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        (bytes / (dim * 4)).max(1)
    }

    /// Bytes of the reference that are read for it, by so many queries in blocks of so many.
    pub(super) fn refining_reads(&self, queries: u64, block_rows: u64) -> u64 {
        let passes = queries.div_ceil(block_rows.max(UNIT_ROWS.min(queries)).max(1));
        self.refined.as_ref().map_or(0, |side| side.stored_bytes.saturating_mul(passes))
    }

    /// What refining holds beside a block: a window, what stays, and the queries of a unit where blocks are smaller.
    pub(super) fn add_refining(&self, table: &mut MemoryTable, input: &SearchInput, block_rows: u64) {
        let Some(side) = &self.refined else { return };
        let window = Self::window_rows(input.dim, input.budget).min(side.rows);
        table.add("references of candidates", window * (input.dim * 4 + 1) + side.scratch_bytes);
        let unit = input.queries.rows.min(UNIT_ROWS);
        table.add("neighbours refined", block_rows.max(unit) * input.k * SLOT_BYTES);
        if block_rows < unit {
            table.add("query rows of the unit", unit * input.dim * 4);
        }
    }

    /// What is held on the host beside rows and queries, for so many ids of references.
    pub(super) fn add_memory(&self, table: &mut MemoryTable, dim: u64, block_rows: u64, ids: u64) {
        table.add("ids of the references", ids * ID_BYTES);
        // As the index has them, as the routes do, and as the engine does.
        let packed = self.ranking.as_ref().map_or(0, |limits| limits.bytes_per_reference);
        let on_host = if self.bounded || self.ranking.is_none() { dim * 8 } else { 0 };
        table.add("centroids", self.lists * (3 * dim * 4 + packed + on_host + ID_BYTES + 4));
        let told = block_rows.saturating_mul(self.nearest).saturating_mul(NUMBER_BYTES);
        let by_list = if self.bounded { told.max(block_rows.div_ceil(64) * 8 * self.lists) } else { told };
        // Where each list's queries begin, in each run of queries that is sorted on its own.
        let starts = NUMBER_BYTES * (self.lists + 1) * block_rows.div_ceil(SORTED_ROWS) * 2;
        table.add("lists to visit, per query", told + by_list + starts);
        let pairs = block_rows.saturating_mul(if self.bounded { self.lists } else { self.nearest });
        // The engine may keep a copy, and that of the portion before.
        table.add("visits", 3 * NUMBER_BYTES * (pairs.min(PORTION_PAIRS) + block_rows));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(nearest: u64, bounded: bool) -> ListsInput {
        ListsInput {
            lists: 1_000,
            nearest,
            visited: nearest as f64,
            bounded,
            rows_per_visit: 600.0,
            ranking: None,
            candidates: 30,
            refined: None,
        }
    }

    #[test]
    fn pairs_follow_from_the_lists_that_are_visited_and_are_never_more_than_all() {
        assert_eq!(input(10, false).pairs(100, 500_000), 600_000.0);
        assert_eq!(input(1_000, false).pairs(100, 500_000), 5e7);
        assert_eq!(input(10, true).pairs(100, 500_000), 5e7);
    }

    #[test]
    fn a_large_block_needs_every_list_and_one_query_its_own() {
        assert!(input(10, false).share_read(100_000) > 0.999_999);
        assert!((input(10, false).share_read(1) - 0.01).abs() < 1e-12);
        assert_eq!(input(10, true).share_read(1), 1.0);
        assert_eq!(input(1_000, false).share_read(1), 1.0);
    }

    #[test]
    fn what_is_kept_of_many_lists_does_not_grow_with_those_that_bounds_let_through() {
        let total = |input: &ListsInput, rows| {
            let mut table = MemoryTable::default();
            input.add_memory(&mut table, 50, rows, 0);
            table.total()
        };
        // A bit for each pair of query and list, numbers for three portions, and where runs of queries begin.
        let of = |rows: u64| total(&input(8, true), rows);
        assert!(of(131_072) - of(65_536) < 65_536 * (1_000 / 8 + 8 * 4 + 12 + 1));
        assert!(total(&input(8, false), 131_072) < of(131_072));
    }
}
