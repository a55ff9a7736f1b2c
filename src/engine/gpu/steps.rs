//! How a visit is cut up: into steps that are a few times what was seen, into jobs for workgroups, and into dispatches short enough
//! for the watchdogs of drivers. Arithmetic only.

use std::ops::Range;

use super::params::Job;
use super::resident::int;
use crate::engine::VisitQueries;

/// Workgroups that keep any device busy.
const JOBS_WANTED: u32 = 16_384;
/// Share of the smallest part of a row of tiles that every other one follows: the golden ratio spreads any first part of
/// the tiles evenly over all of them.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// A run of tiles in the order in which they are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tiles {
    pub first: u32,
    pub n: u32,
    /// Position p is tile first + (p · stride) mod n.
    pub stride: u32,
    /// Rows of the visit, which may end inside the outermost tiles.
    pub first_row: u32,
    pub last_row: u32,
}

impl Tiles {
    /// The tiles that hold these rows.
    pub fn of(rows: &Range<u32>, tile: u32) -> Self {
        let (first, last) = (rows.start / tile, rows.end.div_ceil(tile));
        let n = if rows.is_empty() { 0 } else { last - first };
        Self { first, n, stride: stride(n), first_row: rows.start, last_row: rows.end }
    }
}

/// A number that has no factor in common with n and is near its golden section; products with positions stay below 2³².
fn stride(n: u32) -> u32 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let near = (f64::from(n) * GOLDEN) as u32;
    (near.max(1)..n.max(2)).find(|&s| gcd(s, n.max(1)) == 1).unwrap_or(1)
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Most tiles of a partition, so that position × stride stays below 2³².
pub(super) const TILES_MAX: u32 = 65_535;

/// Ranges of positions after `seeded`, each as large as all that was seen before it, `seen` tiles' worth to begin with.
pub(super) fn steps(tiles: u32, seeded: u32, seen: u32) -> Vec<Range<u32>> {
    let mut steps = Vec::new();
    let (mut at, mut seen) = (seeded, seen.max(seeded).max(1));
    while at < tiles {
        let end = at.saturating_add(seen).min(tiles);
        // A last step that would be small is not worth a merge of its own.
        let end = if tiles - end < seen / 4 { tiles } else { end };
        steps.push(at..end);
        seen = seen.saturating_add(end - at);
        at = end;
    }
    steps
}

/// Jobs for all query tiles against positions of `tiles`, cut so that there are enough of them.
pub(super) fn jobs(query_tiles: u32, positions: &Range<u32>, tiles: &Tiles) -> Vec<Job> {
    let n = positions.end - positions.start;
    if n == 0 || query_tiles == 0 {
        return Vec::new();
    }
    let parts = JOBS_WANTED.div_ceil(query_tiles).clamp(1, n);
    let length = n.div_ceil(parts);
    let mut jobs = Vec::with_capacity(usize::try_from(query_tiles * n.div_ceil(length)).unwrap_or(0));
    for first in (positions.start..positions.end).step_by(usize::try_from(length).unwrap_or(1)) {
        for query_tile in 0..query_tiles {
            jobs.push(Job {
                query_tile,
                first_position: first,
                last_position: (first + length).min(positions.end),
                first_tile: tiles.first,
                tiles: tiles.n,
                stride: tiles.stride,
                first_reference: tiles.first_row,
                last_reference: tiles.last_row,
            });
        }
    }
    jobs
}

/// Cuts positions so that no part has more than `pairs_max` pairs.
pub(super) fn short(
    positions: Range<u32>,
    pairs_per_position: u64,
    pairs_max: u64,
) -> impl Iterator<Item = Range<u32>> {
    let length = u32::try_from((pairs_max / pairs_per_position.max(1)).max(1)).unwrap_or(u32::MAX);
    let mut at = positions.start;
    std::iter::from_fn(move || {
        let part = at..at.saturating_add(length).min(positions.end);
        at = part.end;
        (!part.is_empty()).then_some(part)
    })
}

/// The slots of a list of queries: whole tiles of rows, with [`NO_ROW`] behind the last.
pub(super) fn slots(rows: impl Iterator<Item = u32>, tile: usize) -> Vec<u32> {
    let mut slots: Vec<u32> = rows.collect();
    slots.resize(slots.len().div_ceil(tile) * tile, NO_ROW);
    slots
}

/// A slot without a query.
pub(super) const NO_ROW: u32 = u32::MAX;

/// Rows of a visit's queries within a chunk of the block.
pub(super) fn rows_in(queries: &VisitQueries, chunk: &Range<u32>) -> Vec<u32> {
    match queries {
        VisitQueries::All => chunk.clone().collect(),
        VisitQueries::List(list) => {
            let from = list.partition_point(|row| *row < chunk.start);
            let to = list.partition_point(|row| *row < chunk.end);
            list[from..to].to_vec()
        }
    }
}

/// Positions that are searched without a filter to begin with: about `rows` rows.
pub(super) fn seeds(tiles: u32, tile: usize, rows: usize) -> u32 {
    int(rows.div_ceil(tile)).min(tiles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tile_is_visited_once_whatever_their_number() {
        for n in [1, 2, 3, 7, 8, 100, 127, 1000, 4093, 65_535] {
            let tiles = Tiles::of(&(0..n * 128), 128);
            let mut seen: Vec<u32> = (0..n).map(|p| tiles.first + (p * tiles.stride) % tiles.n).collect();
            seen.sort_unstable();
            assert!(seen.iter().copied().eq(0..n), "{n} tiles, stride {}", tiles.stride);
        }
        assert_eq!(Tiles::of(&(5..5), 128).n, 0);
        assert_eq!(Tiles::of(&(130..260), 128), Tiles { first: 1, n: 2, stride: 1, first_row: 130, last_row: 260 });
    }

    #[test]
    fn steps_cover_what_is_left_and_double() {
        assert_eq!(steps(8, 8, 0), []);
        assert_eq!(steps(100, 8, 0), [8..16, 16..32, 32..64, 64..100]);
        assert_eq!(steps(100, 0, 1000), [0..100]);
        assert_eq!(steps(70, 8, 0), [8..16, 16..32, 32..70]);
        assert_eq!(steps(3, 0, 0), [0..1, 1..3]);
    }

    #[test]
    fn jobs_cover_every_pair_of_tiles_once() {
        let tiles = Tiles::of(&(0..1000 * 128), 128);
        for query_tiles in [1, 3, 2000] {
            let jobs = jobs(query_tiles, &(8..777), &tiles);
            let pairs: u32 = jobs.iter().map(|job| job.last_position - job.first_position).sum();
            assert_eq!(pairs, query_tiles * (777 - 8));
            assert!(jobs.iter().all(|job| job.first_position >= 8 && job.last_position <= 777));
        }
    }

    #[test]
    fn parts_are_as_short_as_asked() {
        let parts: Vec<_> = short(3..20, 10, 55).collect();
        assert_eq!(parts, [3..8, 8..13, 13..18, 18..20]);
        assert_eq!(short(3..20, 10, 1).count(), 17);
    }
}
