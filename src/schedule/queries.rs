//! A block of queries, and what they must not get.

use std::ops::Range;

use super::Part;
use super::pager::read_rows;
use super::search::Search;
use crate::block::{RowBlock, RowIds};
use crate::engine::Exclude;
use crate::error::Error;

/// Reads the groups of query rows.
pub type QueryGroups<'a> = &'a (dyn Fn(Range<u64>) -> Result<Vec<u32>, Error> + Sync);

/// Queries, and which references they must not get.
pub(super) type Queries = (RowBlock, Exclude);

/// Reads a block of queries, and what they must not get.
pub(super) fn read_queries(search: &Search<'_>, rows: &Range<u64>) -> Result<Queries, Error> {
    search.clock.time(Part::Read, || {
        let place = |row: u64| usize::try_from(row).unwrap_or(usize::MAX);
        let ids = match search.query_ids {
            Some(ids) => RowIds::List(ids[place(rows.start)..place(rows.end)].to_vec()),
            None => RowIds::Range(rows.clone()),
        };
        let block = read_rows(search.queries, std::slice::from_ref(rows), ids, search.pool)?;
        let own_row = search.exclude_own_row;
        let exclude = match search.query_groups {
            Some(groups) => Exclude::SameGroup { groups: groups(rows.clone())?, own_row },
            None if own_row => Exclude::OwnRow,
            None => Exclude::Nothing,
        };
        Ok((block, exclude))
    })
}
