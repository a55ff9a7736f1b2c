//! An index read again: every row there once, and none farther from its list's centroid than the list says.

use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use crate::error::Error;
use crate::job::request::Verification;
use crate::route::lists::farthest;
use crate::route::space::ListSpace;
use crate::store::IoCounters;
use crate::store::index::{Encoding, Index};

/// Ids that are ticked off in one pass over them: 16 MiB of bits.
const TICKED: u64 = 1 << 27;
/// Rows read at a time at most, and bytes of them.
const PIECE_ROWS: u64 = 65_536;
const PIECE_BYTES: u64 = 64 << 20;

/// Checks what an index says of its rows. What is wrong is in the report.
pub fn check(path: &Path, report: &mut Verification) {
    report.is_index = true;
    let index = match Index::open(path, &IoCounters::new()) {
        Ok(index) => index,
        Err(error) => return report.problems.push(error.to_string()),
    };
    if let Err(error) = check_ids(&index, TICKED, report).and_then(|()| check_rows(&index, report)) {
        report.problems.push(error.to_string());
    }
}

/// Every row of the reference is named once: in as many passes as the bits for all of them take.
fn check_ids(index: &Index, ticked: u64, report: &mut Verification) -> Result<(), Error> {
    let rows = index.rows();
    for first in (0..rows).step_by(usize::try_from(ticked).unwrap_or(usize::MAX)) {
        let window = first..rows.min(first + ticked);
        let mut seen = vec![0_u64; usize::try_from((window.end - window.start).div_ceil(64)).unwrap_or(usize::MAX)];
        let mut twice = None;
        for piece in pieces(rows, PIECE_ROWS) {
            for id in index.ids(piece)?.into_iter().filter(|id| window.contains(id)) {
                let (word, bit) = ((id - first) / 64, 1_u64 << ((id - first) % 64));
                let word = &mut seen[usize::try_from(word).unwrap_or(usize::MAX)];
                if *word & bit != 0 {
                    twice = twice.or(Some(id));
                }
                *word |= bit;
            }
        }
        report.problems.extend(twice.map(|id| format!("row {id} of the reference is in it more than once")));
        let found: u64 = seen.iter().map(|word| u64::from(word.count_ones())).sum();
        let missing = window.end - window.start - found;
        if missing > 0 {
            report.problems.push(format!("{missing} rows of the reference are missing"));
        }
    }
    Ok(())
}

/// No row is farther from its centroid than the radius of its list, and what encoding may have added to that.
fn check_rows(index: &Index, report: &mut Verification) -> Result<(), Error> {
    let (dim, space) = (index.dim(), ListSpace::of(index.metric()));
    let more = if index.encoding() == Encoding::F32 {
        0.0
    } else {
        // The manifest's number is of rows before they were decoded, which rounds once more.
        index.manifest()["largest_encoding_error"].as_f64().unwrap_or(f64::INFINITY) * (1.0 + 1e-6)
    };
    let (offsets, centroids, radii) = (index.offsets(), index.centroids(), index.radii());
    for piece in pieces(index.rows(), PIECE_ROWS.min(PIECE_BYTES / (4 * dim as u64)).max(1)) {
        let mut values = vec![0.0; usize::try_from(piece.end - piece.start).unwrap_or(usize::MAX) * dim];
        index.source().read(std::slice::from_ref(&piece), &mut values)?;
        let first = offsets.partition_point(|at| *at <= piece.start) - 1;
        let last = offsets.partition_point(|at| *at < piece.end);
        let place = |row: u64| usize::try_from(row.clamp(piece.start, piece.end) - piece.start).unwrap_or(usize::MAX);
        let wrong = (first..last).into_par_iter().filter_map(|list| {
            let rows = &values[place(offsets[list]) * dim..place(offsets[list + 1]) * dim];
            let farthest = farthest(space, rows, &centroids[list * dim..(list + 1) * dim]);
            let radius = f64::from(radii[list]);
            (farthest > radius + more).then(|| {
                format!("list {list} has a row at {farthest} from its centroid, beyond its radius of {radius}")
            })
        });
        report.problems.extend(wrong.collect::<Vec<_>>());
        report.rows += piece.end - piece.start;
    }
    Ok(())
}

fn pieces(rows: u64, piece_rows: u64) -> impl Iterator<Item = Range<u64>> {
    (0..rows.div_ceil(piece_rows)).map(move |piece| piece * piece_rows..rows.min((piece + 1) * piece_rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_all_rows_in_order_whatever_their_size() {
        for (rows, piece_rows) in [(0, 5), (1, 5), (5, 5), (6, 5), (100_000, 65_536), (7, 1)] {
            let all: Vec<u64> = pieces(rows, piece_rows).flatten().collect();
            assert!(all.iter().copied().eq(0..rows), "{rows} by {piece_rows}");
            assert!(pieces(rows, piece_rows).all(|piece| piece.end - piece.start <= piece_rows));
        }
    }
}
