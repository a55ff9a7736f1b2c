//! What every engine asks of the visits it is given.

use super::{Partition, Visit, VisitQueries};
use crate::error::EngineError;

/// Checks that visits keep to the queries, of which there are so many (rows, dimensions), and to the partition.
///
/// # Errors
/// [`EngineError::Dim`] for rows of another dimension, [`EngineError::Shape`] for rows that are not there or not in order.
pub(super) fn check_visits(queries: (usize, usize), part: &Partition, visits: &[Visit]) -> Result<(), EngineError> {
    let (query_rows, query_dim) = queries;
    let (dim, rows) = (part.block.dim(), part.block.rows());
    let index = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    if dim != query_dim {
        return Err(EngineError::Dim { queries: query_dim, references: dim });
    }
    for visit in visits {
        if visit.rows.start > visit.rows.end || index(visit.rows.end) > rows {
            let why = format!("rows {}..{} of a partition of {rows}", visit.rows.start, visit.rows.end);
            return Err(EngineError::Shape { what: "the rows of a visit", why });
        }
        if let VisitQueries::List(list) = &visit.queries {
            let in_order = list.windows(2).all(|pair| pair[0] < pair[1]);
            if !in_order || list.last().is_some_and(|&last| index(last) >= query_rows) {
                let why = format!("they must be ascending and below {query_rows}");
                return Err(EngineError::Shape { what: "the queries of a visit", why });
            }
        }
    }
    Ok(())
}
