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
/// Most queries in a task that goes through several visits, and most bytes of those and of what waits for them. Its panels are
/// in no cache, so the more queries share one that is read, the better: of a million cells of a mixture, each in 15 lists of
/// 2,000, tasks of 96, 192 and 384 queries took 32, 30 and 28 s of processor time, and of 768 no less that can be told.
const TOGETHER_MAX: usize = 384;
const TOGETHER_BYTES: usize = 448 << 10;
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
    /// Whether no visit named any.
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

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

/// Whether each of so many queries has one visit at most, and all visits name theirs.
pub(super) fn is_one_each(visits: &[Visit], queries: usize) -> bool {
    let mut seen = vec![false; queries];
    let mut once = |&query: &u32| !std::mem::replace(&mut seen[index(query)], true);
    visits.iter().all(|visit| listed(visit).is_some_and(|list| list.iter().all(&mut once)))
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
    /// References per query that wait for their exact distance.
    pub room: usize,
    /// Queries of the block.
    pub rows: usize,
}

impl Cutter<'_> {
    /// Tasks of these visits.
    pub fn cut<'a>(&self, met: &'a Met, visits: &'a [Visit]) -> Tasks<'a> {
        self.by_query(met, &[], visits).unwrap_or_else(|| self.by_visit(visits))
    }

    /// Whether there are queries for enough tasks of some each.
    pub fn has_many(&self, queries: usize) -> bool {
        queries.div_ceil(queries_max(self.words, self.simd)) >= TASKS_PER_THREAD * self.threads
    }

    /// How many of so many queries go through their visits together.
    fn together(&self, queries: usize) -> usize {
        let (least, most) = (queries_max(self.words, self.simd), together_max(self.words, self.room, self.simd));
        let each = (queries / (TASKS_PER_THREAD * self.threads)).clamp(least, most.max(least));
        each - each % self.simd.widths.last().copied().unwrap_or(1)
    }

    /// Tasks of consecutive queries of `met`, which visit `first` what gives them a good bound for the rest; `None` where too few
    /// of those share visits.
    pub fn by_query<'a>(&self, met: &'a Met, first: &[Visit], rest: &[Visit]) -> Option<Tasks<'a>> {
        let visits: Vec<&Visit> = first.iter().chain(rest).collect();
        let lists: Vec<&[u32]> = visits.iter().map(|visit| listed(visit)).collect::<Option<_>>()?;
        if lists.len() < 2 || !self.has_many(met.queries.len()) || !self.are_apart(first, rest) {
            return None;
        }
        let most = self.together(met.queries.len());
        let count = met.queries.len().div_ceil(most);
        // The task of each query, and its place there.
        let each = u32::try_from(most).unwrap_or(u32::MAX);
        let spot = |&place: &u32| (place / each, u16::try_from(place % each).unwrap_or(u16::MAX));
        let spots: Vec<(u32, u16)> = met.places.iter().map(spot).collect();
        let place = |query: &u32| {
            let (task, slot) = spots[index(*query)];
            (index(task), slot)
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
                cut.slots[*end] = slot;
                cut.legs[*leg - 1].slots.end = here + 1;
                *end += 1;
            }
        }
        let queries = met.queries.chunks(most).map(QueryRows::List);
        cut.ends = queries.zip(at).map(|(queries, (legs, _))| (queries, legs)).collect();
        Some(cut)
    }

    /// Whether no query visits a row twice, as far as is seen at a glance: rows ascend from visit to visit in both parts, and
    /// a query has one visit at most in the first.
    fn are_apart(&self, first: &[Visit], rest: &[Visit]) -> bool {
        let ascend = |visits: &[Visit]| visits.windows(2).all(|pair| pair[0].rows.end <= pair[1].rows.start);
        if first.is_empty() {
            return ascend(rest);
        }
        let mut before = vec![usize::MAX; self.rows];
        for (at, visit) in first.iter().enumerate() {
            for &query in listed(visit).unwrap_or_default() {
                before[index(query)] = at;
            }
        }
        let meets = |visit: &Visit, query: u32| {
            let before = first.get(before[index(query)]).map_or(&(0..0), |visit| &visit.rows);
            before.start < visit.rows.end && visit.rows.start < before.end
        };
        let free = |visit: &Visit| !listed(visit).unwrap_or_default().iter().any(|&query| meets(visit, query));
        ascend(first) && ascend(rest) && rest.iter().all(free)
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

/// How many queries a task may have that goes through several visits, with room for so many references each.
pub(super) fn together_max(words: usize, room: usize, simd: &Simd) -> usize {
    let widest = simd.widths.last().copied().unwrap_or(1);
    let fit = TOGETHER_BYTES / (size_of::<i32>() * words + size_of::<u64>() * room);
    fit.clamp(widest, TOGETHER_MAX)
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
#[path = "tasks_tests.rs"]
mod tests;
