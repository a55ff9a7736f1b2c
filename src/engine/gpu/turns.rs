//! Visits of some queries to few rows each, put into turns: what is searched before a merge. Arithmetic only.

use std::ops::Range;

use rayon::prelude::*;

use super::steps::rows_in;
use crate::engine::Visit;

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

/// What is searched before a merge: items of some queries and the rows that they see.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Rows of the partition, and where in `queries` those of an item end.
    items: Vec<(Range<u32>, usize)>,
    queries: Vec<u32>,
    /// The queries of all items, ascending, each once.
    pub touched: Vec<u32>,
}

impl Turn {
    /// Rows of the partition, and the queries that see them, ascending.
    pub fn items(&self) -> impl Iterator<Item = (&Range<u32>, &[u32])> {
        let mut start = 0;
        self.items.iter().map(move |(rows, end)| (rows, &self.queries[std::mem::replace(&mut start, *end)..*end]))
    }

    /// The queries that were added last see these rows.
    fn close(&mut self, rows: &Range<u32>) {
        let end = self.queries.len();
        if end > self.items.last().map_or(0, |(_, end)| *end) {
            self.items.push((rows.clone(), end));
        }
    }
}

/// The turns of a chunk of queries.
#[derive(Debug)]
pub(super) struct Turns {
    pub chunk: Range<u32>,
    pub turns: Vec<Turn>,
}

/// Puts visits into the turns of a chunk of queries.
struct Putting<'a> {
    limits: Limits,
    all: Turns,
    /// Rows that each query has seen, now and when its turn began; and which turn that is.
    seen: &'a mut [u32],
    before: Vec<u32>,
    turn: Vec<usize>,
}

impl<'a> Putting<'a> {
    fn new(limits: Limits, chunk: Range<u32>, seen: &'a mut [u32]) -> Self {
        let (before, turn) = (seen.to_vec(), vec![0; seen.len()]);
        Self { limits, all: Turns { chunk, turns: Vec::new() }, seen, before, turn }
    }

    fn at(&self, query: u32) -> usize {
        usize::try_from(query - self.all.chunk.start).unwrap_or(usize::MAX)
    }

    /// Whether so many rows are more than a query should see in any turn that could be its next.
    fn is_much(&self, query: u32, rows: u32) -> bool {
        rows > self.limits.after(self.seen[self.at(query)])
    }

    /// These queries see these rows, each in the first turn that it can.
    fn put(&mut self, rows: &Range<u32>, queries: impl Iterator<Item = u32>) {
        let n = rows.end - rows.start;
        for query in queries {
            let at = self.at(query);
            let taken = self.seen[at] - self.before[at];
            if taken > 0 && taken.saturating_add(n) > self.limits.after(self.before[at]) {
                self.turn[at] += 1;
                self.before[at] = self.seen[at];
            }
            self.seen[at] = self.seen[at].saturating_add(n);
            let turn = self.turn[at];
            if turn >= self.all.turns.len() {
                self.all.turns.resize_with(turn + 1, Turn::default);
            }
            self.all.turns[turn].queries.push(query);
        }
        for turn in &mut self.all.turns {
            turn.close(rows);
        }
    }

    /// The turns, without those in which there is nothing.
    fn done(mut self) -> Turns {
        self.all.turns.retain(|turn| !turn.items.is_empty());
        for turn in &mut self.all.turns {
            let mut marks = vec![false; self.seen.len()];
            for query in &turn.queries {
                marks[usize::try_from(query - self.all.chunk.start).unwrap_or(usize::MAX)] = true;
            }
            turn.touched =
                self.all.chunk.clone().zip(marks).filter(|(_, mark)| *mark).map(|(query, _)| query).collect();
        }
        self.all
    }
}

impl Turns {
    /// The turns of visits of lists of queries, chunk by chunk of these. Brings up to date how many rows each has seen.
    pub fn of(pool: &rayon::ThreadPool, limits: Limits, chunk: u32, seen: &mut [u32], visits: &[&Visit]) -> Vec<Self> {
        let rows = usize::try_from(chunk).unwrap_or(usize::MAX).max(1);
        let one = |(i, seen): (usize, &mut [u32])| Self::of_chunk(limits, super::resident::int(i * rows), seen, visits);
        let all: Vec<Self> = pool.install(|| seen.par_chunks_mut(rows).enumerate().map(one).collect());
        all.into_iter().filter(|turns| !turns.turns.is_empty()).collect()
    }

    fn of_chunk(limits: Limits, first: u32, seen: &mut [u32], visits: &[&Visit]) -> Self {
        let chunk = first..first + super::resident::int(seen.len());
        let mut putting = Putting::new(limits, chunk.clone(), seen);
        for visit in visits {
            let queries = rows_in(&visit.queries, &chunk);
            let n = visit.rows.end - visit.rows.start;
            // What is seen without a threshold must not be more than there is room for.
            let (much, whole): (Vec<u32>, Vec<u32>) = queries.iter().partition(|query| putting.is_much(**query, n));
            putting.put(&visit.rows, whole.into_iter());
            let head = limits.head(&visit.rows);
            putting.put(&(visit.rows.start..head), much.iter().copied());
            putting.put(&(head..visit.rows.end), much.into_iter());
        }
        putting.done()
    }

    /// All that these queries, ascending, see in these turns once more, in turns in which nothing can overflow.
    pub fn again(&self, limits: Limits, queries: &[u32]) -> Self {
        let limits = Limits { enough: u32::MAX, ..limits };
        let mut seen = vec![0; self.chunk.len()];
        let mut wanted = vec![false; self.chunk.len()];
        let mut putting = Putting::new(limits, self.chunk.clone(), &mut seen);
        for &query in queries.iter().filter(|query| self.chunk.contains(query)) {
            wanted[putting.at(query)] = true;
        }
        for (rows, queries) in self.turns.iter().flat_map(Turn::items) {
            let queries: Vec<u32> = queries.iter().copied().filter(|query| wanted[putting.at(*query)]).collect();
            let mut rows = rows.clone();
            while !queries.is_empty() && !rows.is_empty() {
                let head = limits.head(&rows);
                putting.put(&(rows.start..head), queries.iter().copied());
                rows.start = head;
            }
        }
        putting.done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::VisitQueries;
    use proptest::prelude::*;

    fn visit(rows: Range<u32>, queries: impl IntoIterator<Item = u32>) -> Visit {
        Visit { rows, queries: VisitQueries::List(queries.into_iter().collect()) }
    }

    /// Every (query, row) that is seen.
    fn pairs<'a>(items: impl Iterator<Item = (&'a Range<u32>, &'a [u32])>) -> Vec<(u32, u32)> {
        let of = |(rows, queries): (&Range<u32>, &[u32])| {
            let rows = rows.clone();
            queries.iter().flat_map(move |query| rows.clone().map(|row| (*query, row))).collect::<Vec<_>>()
        };
        let mut pairs: Vec<_> = items.flat_map(of).collect();
        pairs.sort_unstable();
        pairs
    }

    /// Rows of each query in a turn.
    fn counts(turn: &Turn, n: usize) -> Vec<u32> {
        let mut counts = vec![0; n];
        for (query, _) in pairs(turn.items()) {
            counts[usize::try_from(query).unwrap()] += 1;
        }
        counts
    }

    const LIMITS: Limits = Limits { room: 40, enough: 6, growth: 3, tile: 16 };

    #[test]
    fn a_query_without_a_threshold_sees_no_more_than_there_is_room_for() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let mut seen = vec![0, 0, 30, 5];
        let visits = [visit(5..95, [0, 2]), visit(100..130, [0, 1, 3])];
        let all = Turns::of(&pool, LIMITS, 128, &mut seen, &visits.iter().collect::<Vec<_>>());
        assert_eq!((all.len(), seen), (1, vec![120, 30, 120, 35]));
        let of = |turn: usize| all[0].turns[turn].items().map(|(r, q)| (r.clone(), q.to_vec())).collect::<Vec<_>>();
        // Query 2 has seen 30 rows, so that it may see 90.
        assert_eq!(of(0), [(5..95, vec![2]), (5..32, vec![0]), (100..130, vec![1, 3])]);
        assert_eq!(of(1), [(32..95, vec![0])]);
        assert_eq!(of(2), [(100..130, vec![0])]);
        assert_eq!(all[0].turns[0].touched, [0, 1, 2, 3]);
    }

    proptest! {
        #[test]
        fn every_pair_is_in_one_turn_and_no_turn_holds_too_much(
            visits in prop::collection::vec((0_u32..300, 1_u32..160, any::<u64>()), 0..12),
            before in prop::collection::vec(prop_oneof![Just(0_u32), 0_u32..60], 50),
            chunk in 1_u32..60,
            some in any::<u64>(),
        ) {
            let list = |bits: u64| (0..50_u32).filter(move |query| bits >> query & 1 == 1);
            let visits: Vec<Visit> = visits.iter().map(|(first, n, bits)| visit(*first..first + n, list(*bits))).collect();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
            let mut seen = before.clone();
            let all = Turns::of(&pool, LIMITS, chunk, &mut seen, &visits.iter().collect::<Vec<_>>());
            let asked = |keep: &dyn Fn(u32) -> bool| {
                let mut asked = Vec::new();
                for visit in &visits {
                    let rows = rows_in(&visit.queries, &(0..50));
                    for query in rows.into_iter().filter(|query| keep(*query)) {
                        asked.extend(visit.rows.clone().map(|row| (query, row)));
                    }
                }
                asked.sort_unstable();
                asked
            };
            let found = |all: &[Turns]| pairs(all.iter().flat_map(|turns| &turns.turns).flat_map(Turn::items));
            prop_assert_eq!(found(&all), asked(&|_| true));
            let mut now = before;
            for turns in &all {
                for turn in &turns.turns {
                    let counts = counts(turn, 50);
                    for (query, (&n, now)) in (0..).zip(counts.iter().zip(&mut now)) {
                        // What is left of a visit behind its head is not cut again.
                        let most = if *now < LIMITS.enough { LIMITS.room } else { LIMITS.after(*now).max(LIMITS.few()) };
                        prop_assert!(n <= most, "query {query} sees {n} rows after {now}");
                        prop_assert_eq!(n > 0, turn.touched.contains(&query));
                        *now += n;
                    }
                }
            }
            prop_assert_eq!(now, seen);
            let some: Vec<u32> = list(some).collect();
            let again: Vec<Turns> = all.iter().map(|turns| turns.again(LIMITS, &some)).collect();
            prop_assert_eq!(found(&again), asked(&|query| some.contains(&query)));
            let most = |turn: &Turn| counts(turn, 50).into_iter().max().unwrap_or(0);
            prop_assert!(again.iter().flat_map(|turns| &turns.turns).all(|turn| most(turn) <= LIMITS.room));
        }
    }
}
