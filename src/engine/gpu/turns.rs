//! Visits of some queries to few rows each, put into turns: what is searched before a merge. Arithmetic only.

use std::ops::Range;

use rayon::prelude::*;

use super::resident::int;
use crate::engine::{Visit, VisitQueries};

/// Queries that are put into turns by one thread.
const PART: usize = if cfg!(test) { 7 } else { 4096 };

/// More pieces than what is seen at once, of few rows, is ever cut into.
const PIECES_MAX: usize = 1 << 16;

/// How many rows a query may see in a turn, so that its survivors seldom overflow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Room for survivors: as many rows as a query may see that has no threshold yet.
    pub room: u32,
    /// Rows after which there is one.
    pub enough: u32,
    /// How many times the rows that a query has seen may follow in one turn: each time about k of them pass.
    pub growth: u32,
    /// Rows of a tile, which should not be cut.
    pub tile: u32,
}

impl Limits {
    pub fn new(room: u32, k: u32, tile: u32) -> Self {
        Self { room, enough: 2 * k, growth: (room / (2 * k)).max(1), tile }
    }

    /// Most rows of a visit that is put into turns: its head, and what is left of it.
    pub fn few(&self) -> u32 {
        self.room.saturating_mul(1 + self.growth.min(8))
    }

    /// Rows that may follow in a turn after so many.
    fn after(&self, seen: u32) -> u32 {
        if seen < self.enough { self.room } else { self.room.max(seen.saturating_mul(self.growth)) }
    }

    /// The end of the first rows of a visit, at most as many as there is room for.
    fn head(&self, rows: &Range<u32>) -> u32 {
        let end = rows.start.saturating_add(self.room);
        let whole = end / self.tile * self.tile;
        (if whole > rows.start { whole } else { end }).min(rows.end)
    }
}

/// What some queries see before a merge: items of queries and rows.
#[derive(Debug, Default)]
pub(super) struct Turn {
    items: Vec<Item>,
    queries: Vec<u32>,
    /// Those that no item before theirs has.
    new: Vec<u32>,
    /// Whether a query of it sees more than one item, or has seen rows before.
    is_more: bool,
}

#[derive(Debug)]
struct Item {
    /// Items are in the order of these, and one of another part with the same number has the same rows.
    number: usize,
    /// Rows of the partition.
    rows: Range<u32>,
    /// Where in `queries` those of the item end.
    end: usize,
    /// And in `new`.
    new_end: usize,
}

impl Turn {
    /// The queries that were added last see these rows.
    fn close(&mut self, number: usize, rows: &Range<u32>) {
        let end = self.queries.len();
        if end > self.items.last().map_or(0, |item| item.end) {
            self.items.push(Item { number, rows: rows.clone(), end, new_end: self.new.len() });
        }
    }

    /// Queries of an item, ascending, and those of them that are new.
    fn queries_of(&self, at: usize) -> (&[u32], &[u32]) {
        let (start, new_start) = match at {
            0 => (0, 0),
            at => (self.items[at - 1].end, self.items[at - 1].new_end),
        };
        (&self.queries[start..self.items[at].end], &self.new[new_start..self.items[at].new_end])
    }
}

/// The turns of a chunk of queries, of each part of it by itself.
#[derive(Debug)]
pub(super) struct Turns {
    pub chunk: Range<u32>,
    parts: Vec<Vec<Turn>>,
}

/// Rows of the partition, and those that see them of some consecutive queries.
#[derive(Debug, Default)]
pub(super) struct Seeing {
    pub rows: Range<u32>,
    /// Ascending.
    pub queries: Vec<u32>,
    /// Those that see nothing before that in this turn.
    pub new: Vec<u32>,
}

/// How far a query is.
#[derive(Clone, Copy, Debug)]
struct Standing {
    /// Rows that it has seen, now and when its turn began.
    seen: u32,
    before: u32,
    /// Which turn that is.
    turn: u32,
    /// Before which turn it is new.
    listed: u32,
}

/// Puts visits into the turns of some queries.
struct Putting {
    limits: Limits,
    first: u32,
    queries: Vec<Standing>,
    turns: Vec<Turn>,
}

impl Putting {
    fn new(limits: Limits, first: u32, seen: &[u32]) -> Self {
        let queries = seen.iter().map(|&seen| Standing { seen, before: seen, turn: 0, listed: 0 }).collect();
        Self { limits, first, queries, turns: Vec::new() }
    }

    /// Whether so many rows are more than a query should see in any turn that could be its next.
    fn is_much(&self, query: u32, rows: u32) -> bool {
        rows > self.limits.after(self.queries[index(query - self.first)].seen)
    }

    /// These queries see these rows, each in the first turn that it can.
    fn put(&mut self, number: usize, rows: &Range<u32>, queries: impl Iterator<Item = u32>) {
        let n = rows.end - rows.start;
        for query in queries {
            let standing = &mut self.queries[index(query - self.first)];
            let taken = standing.seen - standing.before;
            if taken > 0 && taken.saturating_add(n) > self.limits.after(standing.before) {
                (standing.turn, standing.before) = (standing.turn + 1, standing.seen);
            }
            standing.seen = standing.seen.saturating_add(n);
            let at = index(standing.turn);
            if at >= self.turns.len() {
                self.turns.resize_with(at + 1, Turn::default);
            }
            let turn = &mut self.turns[at];
            turn.queries.push(query);
            let is_new = standing.listed <= standing.turn;
            if is_new {
                turn.new.push(query);
                standing.listed = standing.turn + 1;
            }
            turn.is_more |= !is_new || standing.before > 0;
        }
        for turn in &mut self.turns {
            turn.close(number, rows);
        }
    }

    /// These queries of a visit see its rows.
    fn visit(&mut self, number: usize, rows: &Range<u32>, queries: &[u32]) {
        let n = rows.end - rows.start;
        if !queries.iter().any(|query| self.is_much(*query, n)) {
            return self.put(3 * number, rows, queries.iter().copied());
        }
        // What is seen without a threshold must not be more than there is room for.
        let (much, whole): (Vec<u32>, Vec<u32>) = queries.iter().partition(|query| self.is_much(**query, n));
        self.put(3 * number, rows, whole.into_iter());
        let head = self.limits.head(rows);
        self.put(3 * number + 1, &(rows.start..head), much.iter().copied());
        self.put(3 * number + 2, &(head..rows.end), much.into_iter());
    }
}

/// The list of queries of a visit; none where it is of all.
fn list_of(visit: &Visit) -> &[u32] {
    if let VisitQueries::List(list) = &visit.queries { list } else { &[] }
}

/// All queries between the first and the last of any visit.
fn span(visits: &[&Visit]) -> Range<u32> {
    let first = visits.iter().filter_map(|visit| list_of(visit).first()).min();
    let last = visits.iter().filter_map(|visit| list_of(visit).last()).max();
    first.zip(last).map_or(0..0, |(first, last)| *first..last.saturating_add(1))
}

fn index(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

impl Turns {
    /// The turns of visits of lists of queries, chunk by chunk of these. Brings up to date how many rows each has seen.
    pub fn of(pool: &rayon::ThreadPool, limits: Limits, chunk: u32, seen: &mut [u32], visits: &[&Visit]) -> Vec<Self> {
        let rows = index(chunk).max(1);
        let span = span(visits);
        let one = |(i, seen): (usize, &mut [u32])| {
            let first = int(i * rows);
            let chunk = first..first + int(seen.len());
            let is_asked = chunk.start < span.end && span.start < chunk.end;
            is_asked.then(|| Self::of_chunk(limits, chunk, seen, visits))
        };
        pool.install(|| seen.par_chunks_mut(rows).enumerate().filter_map(one).collect())
    }

    fn of_chunk(limits: Limits, chunk: Range<u32>, seen: &mut [u32], visits: &[&Visit]) -> Self {
        let end = |part: usize| (chunk.start + int(part * PART)).min(chunk.end);
        let ends: Vec<u32> = (0..=seen.len().div_ceil(PART)).map(end).collect();
        // Where each part's queries begin in the list of each visit: a list is read once.
        let mut cuts = vec![0; ends.len() * visits.len()];
        cuts.par_chunks_mut(ends.len()).zip(visits).for_each(|(cuts, visit)| {
            let list = list_of(visit);
            let mut at = 0;
            for (cut, end) in cuts.iter_mut().zip(&ends) {
                at += list[at..].partition_point(|query| query < end);
                *cut = at;
            }
        });
        let part = |(i, seen): (usize, &mut [u32])| {
            let mut putting = Putting::new(limits, ends[i], seen);
            for (number, (visit, cuts)) in visits.iter().zip(cuts.chunks_exact(ends.len())).enumerate() {
                putting.visit(number, &visit.rows, &list_of(visit)[cuts[i]..cuts[i + 1]]);
            }
            seen.iter_mut().zip(&putting.queries).for_each(|(seen, now)| *seen = now.seen);
            putting.turns
        };
        let parts = seen.par_chunks_mut(PART).enumerate().map(part).collect();
        Self { chunk, parts }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.parts.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// How many pairs of queries and rows of the partition's pieces are in a turn, a query counted once per piece.
    pub fn pairs(&self, turn: usize) -> usize {
        self.parts.iter().filter_map(|turns| turns.get(turn)).map(|turn| turn.queries.len()).sum()
    }

    /// Whether each query of a turn sees the rows of one item, and has seen none before: nothing could be filtered.
    pub fn is_first(&self, turn: usize) -> bool {
        !self.parts.iter().filter_map(|turns| turns.get(turn)).any(|turn| turn.is_more)
    }

    /// One more than the largest number of an item.
    fn numbers(&self) -> usize {
        let last = |turn: &Turn| turn.items.last().map_or(0, |item| item.number + 1);
        self.parts.iter().flatten().map(last).max().unwrap_or(0)
    }

    /// What is seen in one of so many runs of a turn, the queries of all parts together.
    pub fn seeing(&self, turn: usize, run: usize, runs: usize) -> impl Iterator<Item = Seeing> {
        let at = |run: usize| run * self.numbers() / runs;
        let (start, end) = (at(run), at(run + 1));
        let parts: Vec<&Turn> = self.parts.iter().filter_map(|turns| turns.get(turn)).collect();
        let first = |part: &&Turn| part.items.partition_point(|item| item.number < start);
        let mut next: Vec<usize> = parts.iter().map(first).collect();
        std::iter::from_fn(move || {
            let number = |(part, at): (&&Turn, &usize)| part.items.get(*at).map(|item| item.number);
            let first = parts.iter().zip(&next).filter_map(number).min().filter(|first| *first < end)?;
            let mut seeing = Seeing::default();
            for (part, at) in parts.iter().zip(&mut next) {
                if let Some(item) = part.items.get(*at).filter(|item| item.number == first) {
                    let (queries, new) = part.queries_of(*at);
                    if seeing.queries.is_empty() {
                        // Parts are alike.
                        seeing.queries.reserve(queries.len() * parts.len() * 2);
                    }
                    seeing.rows = item.rows.clone();
                    seeing.queries.extend_from_slice(queries);
                    seeing.new.extend_from_slice(new);
                    *at += 1;
                }
            }
            Some(seeing)
        })
    }

    /// All that these queries, ascending, see in these turns once more, in turns in which nothing can overflow.
    pub fn again(&self, limits: Limits, queries: &[u32]) -> Self {
        let limits = Limits { enough: u32::MAX, ..limits };
        let part = |(i, turns): (usize, &Vec<Turn>)| {
            let first = self.chunk.start + int(i * PART);
            let end = first.saturating_add(int(PART)).min(self.chunk.end);
            let at = |row: u32| queries.partition_point(|query| *query < row);
            let wanted = &queries[at(first)..at(end)];
            if wanted.is_empty() {
                return Vec::new();
            }
            let mut putting = Putting::new(limits, first, &vec![0; index(end - first)]);
            let items = turns.iter().flat_map(|turn| (0..turn.items.len()).map(move |at| (turn, at)));
            let mut items: Vec<(&Turn, usize)> = items.collect();
            items.sort_by_key(|(turn, at)| turn.items[*at].number);
            let number = |(turn, at): &(&Turn, usize)| turn.items[*at].number;
            for same in items.chunk_by(|a, b| number(a) == number(b)) {
                let is_wanted = |query: &u32| wanted.binary_search(query).is_ok();
                let queries = same.iter().flat_map(|(turn, at)| turn.queries_of(*at).0).copied();
                let mut queries: Vec<u32> = queries.filter(is_wanted).collect();
                queries.sort_unstable();
                let (turn, at) = same[0];
                let mut rows = turn.items[at].rows.clone();
                for piece in 0.. {
                    if queries.is_empty() || rows.is_empty() {
                        break;
                    }
                    let head = limits.head(&rows);
                    let number = turn.items[at].number * PIECES_MAX + piece;
                    putting.put(number, &(rows.start..head), queries.iter().copied());
                    rows.start = head;
                }
            }
            putting.turns
        };
        Self { chunk: self.chunk.clone(), parts: self.parts.iter().enumerate().map(part).collect() }
    }
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
