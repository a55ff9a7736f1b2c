//! Every pair that visits name is compared once, however they are cut.

use super::*;
use crate::metric::Metric;

/// Visits of 12 lists by queries that visit some of them in a row, so that neighbours share most.
fn visits(queries: u32, lists: u32) -> Vec<Visit> {
    let names = |list: u32| (0..queries).filter(|query| (12 + list - query * 7 % 12) % 12 < lists).collect();
    (0..12).map(|list| Visit { rows: 40 * list..40 * list + 40, queries: VisitQueries::List(names(list)) }).collect()
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
            let cutter = Cutter { simd: &simd, words: 3, threads: 1, room: 28, rows };
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
fn what_bounds_queries_comes_first_and_is_not_visited_again() {
    let simd = &crate::engine::cpu::simd::available(Metric::Euclidean)[0];
    let cutter = Cutter { simd, words: 3, threads: 1, room: 28, rows: 1_001 };
    let (first, all) = (visits(1_001, 1), visits(1_001, 6));
    let rest = |visit: (&Visit, &Visit)| {
        let (before, now) = (listed(visit.0).unwrap_or_default(), listed(visit.1).unwrap_or_default());
        let queries = now.iter().filter(|query| !before.contains(query)).copied().collect();
        Visit { rows: visit.1.rows.clone(), queries: VisitQueries::List(queries) }
    };
    let rest: Vec<Visit> = first.iter().zip(&all).map(rest).collect();
    assert!(
        is_one_each(&first, 1_001)
            && !is_one_each(&rest, 1_001)
            && !is_one_each(&[first.clone(), first.clone()].concat(), 1_001)
    );
    let mut met = Met::default();
    met.extend(1_001, &first);
    let tasks = cutter.by_query(&met, &first, &rest).expect("many queries");
    assert_eq!(pairs(&tasks, 1_001).0, wanted(&all));
    for task in (0..tasks.len()).map(|at| tasks.task(at)) {
        let own = task.legs.iter().take_while(|leg| first.iter().any(|visit| visit.rows == leg.rows));
        let bounded: usize = own.map(|leg| leg.slots(task.slots).map_or(0, <[u16]>::len)).sum();
        let QueryRows::List(queries) = task.queries else { panic!("tasks are of some queries") };
        assert!(bounded >= queries.len(), "each query begins with what bounds it");
    }
    assert!(cutter.by_query(&met, &first, &all).is_none(), "rows would be pending twice");
}

#[test]
fn visits_whose_rows_overlap_or_that_name_all_queries_are_tasks_of_their_own() {
    let simd = &crate::engine::cpu::simd::available(Metric::Euclidean)[0];
    let cutter = Cutter { simd, words: 3, threads: 1, room: 28, rows: 400 };
    let met_of = |visits: &[Visit]| {
        let mut met = Met::default();
        met.extend(400, visits);
        met
    };
    let mut twice = visits(400, 6);
    twice.push(twice[3].clone());
    let met = met_of(&twice);
    assert!(cutter.by_query(&met, &[], &twice).is_none(), "a row would be pending twice");
    let mut all = visits(400, 6);
    assert!(cutter.by_query(&met, &[], &all).is_some());
    all[2].queries = VisitQueries::All;
    assert!(cutter.by_query(&met, &[], &all).is_none());
}
