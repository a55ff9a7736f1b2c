//! How visits are cut into tasks: visit by visit, or query by query where the queries that meet share many visits.
//!
//! A query that visits many lists is packed, bounded and merged once per task. So where queries can be put together that
//! visit the same lists, a task is of those and goes through their lists one after the other: visits of an inverted file
//! by a block, whose queries are put in the order of the list that they visit first.

use std::ops::Range;

use super::simd::Simd;
use crate::visit::{Visit, VisitQueries};

/// Most queries in a task: enough that reading a panel from memory is paid for, few enough for their candidates to stay
/// in the cache.
const QUERIES_MAX: usize = 96;
/// Bytes of queries in the filter's space that stay in the cache beside the panels.
const QUERY_BYTES: usize = 384 << 10;
/// Tasks per thread that are worth having, so that none waits long for the last.
const TASKS_PER_THREAD: usize = 4;
/// Reference rows below which splitting costs more than it brings: each part begins without a good τ.
const SPLIT_ROWS_MIN: usize = 4096;
/// Queries of a task that a visit has on average where tasks are made query by query: fewer leave tiles empty, and 10,000
/// queries of a mixture, of which 32 lists have 5 to 7 of a task in common, are slower so by a tenth.
const QUERIES_PER_LEG_MIN: usize = 8;

/// Rows of the query block.
#[derive(Clone, Debug)]
pub(super) enum QueryRows<'a> {
    Run(Range<usize>),
    List(&'a [u32]),
}

/// Rows of the partition that some queries of a task meet.
#[derive(Clone, Debug)]
pub(super) struct Leg {
    pub rows: Range<u32>,
    /// Where it says which those are; all of them where this is empty.
    slots: Range<u32>,
}

impl Leg {
    /// Which queries of the task meet these rows; `None` for all.
    pub fn slots<'s>(&self, slots: &'s [u16]) -> Option<&'s [u16]> {
        (!self.slots.is_empty()).then(|| &slots[index(self.slots.start)..index(self.slots.end)])
    }
}

/// Some queries against the rows of some legs, no row of which is in two.
#[derive(Clone, Debug)]
pub(super) struct Task<'a> {
    pub queries: QueryRows<'a>,
    pub legs: &'a [Leg],
    /// What legs say of their queries.
    pub slots: &'a [u16],
}

/// The tasks of a call.
#[derive(Debug, Default)]
pub(super) struct Tasks<'a> {
    /// The queries of each task, and the end of its legs.
    ends: Vec<(QueryRows<'a>, usize)>,
    legs: Vec<Leg>,
    slots: Vec<u16>,
}

/// The queries of a block in the order in which visits named them first.
#[derive(Clone, Debug, Default)]
pub(super) struct Met {
    /// The place of each query in that order.
    places: Vec<u32>,
    queries: Vec<u32>,
}

impl Met {
    /// Puts those behind that visits name first now, of a block of so many queries.
    pub fn extend(&mut self, rows: usize, visits: &[Visit]) {
        if self.queries.len() == rows {
            return;
        }
        self.places.resize(rows, u32::MAX);
        for &query in visits.iter().filter_map(listed).flatten() {
            let place = &mut self.places[index(query)];
            if *place == u32::MAX {
                *place = u32::try_from(self.queries.len()).unwrap_or(u32::MAX);
                self.queries.push(query);
            }
        }
    }
}

/// The queries of a visit, where it names them.
fn listed(visit: &Visit) -> Option<&[u32]> {
    match &visit.queries {
        VisitQueries::All => None,
        VisitQueries::List(list) => Some(list),
    }
}

/// What tasks are cut for.
pub(super) struct Cutter<'a> {
    pub simd: &'a Simd,
    /// Words of a packed row.
    pub words: usize,
    pub threads: usize,
    /// Queries of the block.
    pub rows: usize,
}

impl Cutter<'_> {
    /// Tasks of these visits.
    pub fn cut<'a>(&self, met: &'a Met, visits: &'a [Visit]) -> Tasks<'a> {
        self.by_query(met, visits).unwrap_or_else(|| self.by_visit(visits))
    }

    /// Tasks of consecutive queries of `met`; `None` where too few of those share visits.
    fn by_query<'a>(&self, met: &'a Met, visits: &[Visit]) -> Option<Tasks<'a>> {
        let lists: Vec<&[u32]> = visits.iter().map(listed).collect::<Option<_>>()?;
        let apart = visits.windows(2).all(|pair| pair[0].rows.end <= pair[1].rows.start);
        let most = queries_max(self.words, self.simd);
        let count = met.queries.len().div_ceil(most);
        if lists.len() < 2 || !apart || count < TASKS_PER_THREAD * self.threads {
            return None;
        }
        let place = |query: &u32| {
            let place = index(met.places[index(*query)]);
            (place / most, place % most)
        };
        // (legs, slots) of each task.
        let (mut sizes, mut last) = (vec![(0, 0); count], vec![usize::MAX; count]);
        for (visit, list) in lists.iter().enumerate() {
            for (task, _) in list.iter().map(place) {
                sizes[task].0 += usize::from(last[task] != visit);
                sizes[task].1 += 1;
                last[task] = visit;
            }
        }
        let (mut legs, mut slots) = (0, 0);
        let mut at: Vec<(usize, usize)> = Vec::with_capacity(count);
        for &(of_legs, of_slots) in &sizes {
            at.push((legs, slots));
            (legs, slots) = (legs + of_legs, slots + of_slots);
        }
        if slots < QUERIES_PER_LEG_MIN * legs || u32::try_from(slots).is_err() {
            return None;
        }
        let mut cut =
            Tasks { ends: Vec::new(), legs: vec![Leg { rows: 0..0, slots: 0..0 }; legs], slots: vec![0; slots] };
        last.fill(usize::MAX);
        for (visit, list) in lists.iter().enumerate() {
            for (task, slot) in list.iter().map(place) {
                let (leg, end) = &mut at[task];
                let here = u32::try_from(*end).unwrap_or(u32::MAX);
                if last[task] != visit {
                    cut.legs[*leg] = Leg { rows: visits[visit].rows.clone(), slots: here..here };
                    (last[task], *leg) = (visit, *leg + 1);
                }
                cut.slots[*end] = u16::try_from(slot).unwrap_or(u16::MAX);
                cut.legs[*leg - 1].slots.end = here + 1;
                *end += 1;
            }
        }
        let queries = met.queries.chunks(most).map(QueryRows::List);
        cut.ends = queries.zip(at).map(|(queries, (legs, _))| (queries, legs)).collect();
        Some(cut)
    }

    /// Tasks of one visit each: cut by queries, and by references as well where the queries are too few for all threads.
    fn by_visit<'a>(&self, visits: &'a [Visit]) -> Tasks<'a> {
        let size = |count: usize| queries_per_task(self.words, self.simd, count, self.threads);
        let count = |visit: &Visit| listed(visit).map_or(self.rows, <[u32]>::len);
        let by_queries: usize = visits.iter().map(|visit| count(visit).div_ceil(size(count(visit)))).sum();
        let parts = (TASKS_PER_THREAD * self.threads).div_ceil(by_queries.max(1));
        let mut cut = Tasks::default();
        for visit in visits {
            let parts = split(visit.rows.clone(), parts);
            let size = size(count(visit));
            for first in (0..count(visit)).step_by(size) {
                let end = (first + size).min(count(visit));
                let queries =
                    listed(visit).map_or(QueryRows::Run(first..end), |list| QueryRows::List(&list[first..end]));
                for rows in &parts {
                    cut.legs.push(Leg { rows: rows.clone(), slots: 0..0 });
                    cut.ends.push((queries.clone(), cut.legs.len()));
                }
            }
        }
        cut
    }
}

impl Tasks<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// One of them.
    pub fn task(&self, at: usize) -> Task<'_> {
        let first = at.checked_sub(1).map_or(0, |before| self.ends[before].1);
        let (queries, end) = &self.ends[at];
        Task { queries: queries.clone(), legs: &self.legs[first..*end], slots: &self.slots }
    }
}

/// How many queries a task may have.
pub(super) fn queries_max(words: usize, simd: &Simd) -> usize {
    let widest = simd.widths.last().copied().unwrap_or(1);
    let fit = (QUERY_BYTES / (size_of::<i32>() * words)).clamp(widest, QUERIES_MAX);
    fit - fit % widest
}

/// How many queries a task should have, of so many: as many as it may, or up to half of that where it leaves every thread
/// the same number of tasks.
pub(super) fn queries_per_task(words: usize, simd: &Simd, queries: usize, threads: usize) -> usize {
    let most = queries_max(words, simd);
    let widest = simd.widths.last().copied().unwrap_or(1);
    let tasks = queries.div_ceil(most).next_multiple_of(threads).max(1);
    let even = queries.div_ceil(tasks).next_multiple_of(widest);
    if queries > most && 2 * even >= most { even } else { most }
}

/// Cuts rows into at most so many runs, none of them small; no runs where there are no rows.
fn split(rows: Range<u32>, parts: usize) -> Vec<Range<u32>> {
    if rows.is_empty() {
        return Vec::new();
    }
    let parts = parts.min(rows.len() / SPLIT_ROWS_MIN).max(1);
    let step = rows.len().div_ceil(parts);
    let end = |start: u32| u32::try_from(step).map_or(rows.end, |step| rows.end.min(start.saturating_add(step)));
    rows.clone().step_by(step).map(|start| start..end(start)).collect()
}

/// A u32 as an index.
#[inline]
pub(super) fn index(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Metric;

    /// Visits of 12 lists by queries that visit some of them in a row, so that neighbours share most.
    fn visits(queries: u32, lists: u32) -> Vec<Visit> {
        let names = |list: u32| (0..queries).filter(|query| (12 + list - query * 7 % 12) % 12 < lists).collect();
        (0..12)
            .map(|list| Visit { rows: 40 * list..40 * list + 40, queries: VisitQueries::List(names(list)) })
            .collect()
    }

    /// Every (query, row of the partition) that the tasks compare, and how many legs the longest task has.
    fn pairs(tasks: &Tasks<'_>, rows: usize) -> (Vec<(usize, u32)>, usize) {
        let (mut pairs, mut longest) = (Vec::new(), 0);
        for task in (0..tasks.len()).map(|at| tasks.task(at)) {
            longest = longest.max(task.legs.len());
            let queries: Vec<usize> = match &task.queries {
                QueryRows::Run(run) => run.clone().collect(),
                QueryRows::List(list) => list.iter().map(|&query| index(query)).collect(),
            };
            assert!(queries.iter().all(|&query| query < rows));
            for leg in task.legs {
                let all: Vec<u16> = (0..u16::try_from(queries.len()).expect("few")).collect();
                for &slot in leg.slots(task.slots).unwrap_or(&all) {
                    pairs.extend(leg.rows.clone().map(|row| (queries[usize::from(slot)], row)));
                }
            }
        }
        pairs.sort_unstable();
        (pairs, longest)
    }

    fn wanted(visits: &[Visit]) -> Vec<(usize, u32)> {
        let of = |visit: &Visit| {
            let queries = listed(visit).unwrap_or_default().to_vec();
            let rows = visit.rows.clone();
            queries.into_iter().flat_map(move |query| rows.clone().map(move |row| (index(query), row)))
        };
        let mut pairs: Vec<_> = visits.iter().flat_map(of).collect();
        pairs.sort_unstable();
        pairs
    }

    #[test]
    fn every_pair_is_compared_once_whether_tasks_are_of_a_visit_or_of_queries() {
        for simd in crate::engine::cpu::simd::available(Metric::Euclidean) {
            for (queries, lists, shared) in [(400, 6, true), (1_001, 12, true), (97, 6, false), (400, 0, false)] {
                let rows = index(queries);
                let cutter = Cutter { simd: &simd, words: 3, threads: 1, rows };
                let all = visits(queries, lists);
                let mut met = Met::default();
                // The first call names the list that each query is nearest to, as a route does.
                met.extend(rows, &visits(queries, 1));
                let cut = cutter.cut(&met, &all);
                let (found, longest) = pairs(&cut, rows);
                assert_eq!(found, wanted(&all), "{queries} queries of {lists} lists on {}", simd.name);
                assert_eq!(longest > 1, shared, "{queries} queries of {lists} lists on {}", simd.name);
            }
        }
    }

    #[test]
    fn visits_whose_rows_overlap_or_that_name_all_queries_are_tasks_of_their_own() {
        let simd = &crate::engine::cpu::simd::available(Metric::Euclidean)[0];
        let cutter = Cutter { simd, words: 3, threads: 1, rows: 400 };
        let met_of = |visits: &[Visit]| {
            let mut met = Met::default();
            met.extend(400, visits);
            met
        };
        let mut twice = visits(400, 6);
        twice.push(twice[3].clone());
        let met = met_of(&twice);
        assert!(cutter.by_query(&met, &twice).is_none(), "a row would be pending twice");
        let mut all = visits(400, 6);
        assert!(cutter.by_query(&met, &all).is_some());
        all[2].queries = VisitQueries::All;
        assert!(cutter.by_query(&met, &all).is_none());
    }
}
