//! Claims about searches through lists: which rows they find, held against the oracle and against a search of all rows.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::lists_case_tests::*;
use super::progress::{Silent, Stop};
use crate::error::{Error, JobError};
use crate::metric::{EngineKind, Metric};
use crate::oracle::search as oracle;
use crate::plan::search::Order;
use crate::route::ivf::{Bounded, Cut, Probing};
use crate::route::{Known, Landmarks, Route, Router};

const METRICS: [Metric; 4] = [Metric::Euclidean, Metric::SqEuclidean, Metric::Cosine, Metric::Correlation];

fn cuts(index: &Index) -> [(Cut, Order); 4] {
    [
        (Cut::streamed(1_000_000), Order::QueriesStay),
        (Cut::streamed(7), Order::QueriesStay),
        (Cut::kept(90, &index.lists.offsets), Order::ReferenceStays),
        (Cut::kept(7, &index.lists.offsets), Order::ReferenceStays),
    ]
}

/// A case without exclusions.
fn case<'a>(metric: Metric, sides: (&'a [f32], &'a [f32]), index: &'a Index, router: &'a dyn Router) -> Case<'a> {
    Case {
        metric,
        k: 5,
        queries: sides.0,
        references: sides.1,
        index: Some(index),
        router,
        order: Order::QueriesStay,
        own_row: false,
        groups: None,
    }
}

#[test]
fn probing_every_list_finds_what_is_found_without_an_index() {
    let (queries, references) = (rows(Lie::Clustered, 300, 1), rows(Lie::Clustered, 500, 2));
    for metric in Metric::ALL {
        let index = index(metric, &references, 23);
        for (cut, order) in cuts(&index) {
            let router = Probing::new(metric, Arc::clone(&index.lists), 99, cut);
            let case = Case { order, ..case(metric, (&queries, &references), &index, &router) };
            assert_eq!(case.run(), (case.exactly(), 300 * 500), "{metric}, {order:?}");
        }
    }
}

/// The lists of each query, nearest first, by definition.
fn ranked(metric: Metric, index: &Index, query: &[f32]) -> Vec<usize> {
    let distance = |list: usize| oracle::distance(metric, query, index.lists.centroids.row(list));
    let mut lists: Vec<usize> = (0..index.lists.len()).collect();
    lists.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)));
    lists
}

#[test]
fn probing_finds_the_nearest_rows_of_the_nearest_lists() {
    for (lie, metric, lists, nprobe) in [
        (Lie::Clustered, Metric::Euclidean, 23, 1),
        (Lie::Clustered, Metric::Cosine, 23, 3),
        (Lie::Uniform, Metric::Euclidean, 40, 7),
        (Lie::Uniform, Metric::Correlation, 40, 2),
        (Lie::Uniform, Metric::InnerProduct, 12, 3),
        // More than an engine finds, and lists of one row.
        (Lie::Uniform, Metric::Euclidean, 500, 300),
        (Lie::Uniform, Metric::Cosine, 500, 300),
        (Lie::Uniform, Metric::Correlation, 500, 300),
        (Lie::Uniform, Metric::Manhattan, 500, 300),
        (Lie::Clustered, Metric::Chebyshev, 500, 300),
        (Lie::Uniform, Metric::Manhattan, 40, 7),
        (Lie::Uniform, Metric::Chebyshev, 40, 7),
        (Lie::Uniform, Metric::Euclidean, 500, 2),
    ] {
        let (queries, references) = (rows(lie, 150, 1), rows(lie, 500, 2));
        let index = index(metric, &references, lists);
        let mut list_of = vec![0; 500];
        for list in 0..lists {
            let members = index.lists.rows(list);
            index.ids[place(members.start)..place(members.end)].iter().for_each(|&id| list_of[place(id)] = list);
        }
        let probed: Vec<Vec<usize>> =
            queries.chunks_exact(DIM).map(|query| ranked(metric, &index, query)[..nprobe].to_vec()).collect();
        let allowed = |q: usize, r: usize| probed[q].contains(&list_of[r]);
        let truth = oracle::search(metric, &block(&queries), &block(&references), allowed);
        for (cut, order) in cuts(&index) {
            let router = Probing::new(metric, Arc::clone(&index.lists), nprobe, cut);
            let case = Case { order, ..case(metric, (&queries, &references), &index, &router) };
            let (found, pairs) = case.run();
            oracle::agrees(&found, &truth, EngineKind::Cpu).unwrap_or_else(|e| panic!("{lie:?}, {metric}: {e}"));
            assert_eq!(pairs, truth.neighbours.iter().map(|n| n.len() as u64).sum::<u64>());
        }
    }
}

#[test]
fn bounds_leave_out_lists_and_no_neighbour() {
    let mut shares = Vec::new();
    for lie in [Lie::Clustered, Lie::Uniform, Lie::Identical, Lie::Outliers] {
        for metric in METRICS.into_iter().filter(|m| !matches!((m, lie), (Metric::Correlation, Lie::Identical))) {
            let (queries, references) = (rows(lie, 300, 1), rows(lie, 500, 2));
            for lists in [1, 23, 500] {
                let index = index(metric, &references, lists);
                for (cut, order) in cuts(&index) {
                    let router = Bounded::new(metric, Arc::clone(&index.lists), 2, cut);
                    let case = Case { order, ..case(metric, (&queries, &references), &index, &router) };
                    let (found, pairs) = case.run();
                    assert_eq!(found, case.exactly(), "{lie:?}, {metric}, {lists} lists, {order:?}");
                    shares.push((lie, metric, lists, pairs as f64 / 150_000.0));
                }
            }
        }
    }
    let share = |lie: &str, lists| {
        let of =
            |s: &&(Lie, Metric, usize, f64)| format!("{:?}", s.0) == lie && s.1 == Metric::Euclidean && s.2 == lists;
        shares.iter().find(of).map(|s| s.3).unwrap()
    };
    assert_eq!(share("Clustered", 1), 1.0);
    assert!(share("Clustered", 23) < 0.2, "{shares:?}");
    assert_eq!(share("Identical", 23), 1.0, "every row is as near as the k-th");
}

#[test]
fn zero_vectors_are_at_cosine_distance_1_through_bounds_as_well() {
    let (mut queries, mut references) = (rows(Lie::Clustered, 40, 1), rows(Lie::Clustered, 200, 2));
    queries[..2 * DIM].fill(0.0);
    references[..5 * DIM].fill(0.0);
    let index = index(Metric::Cosine, &references, 9);
    let router = Bounded::new(Metric::Cosine, Arc::clone(&index.lists), 1, Cut::streamed(50));
    let case = case(Metric::Cosine, (&queries, &references), &index, &router);
    assert_eq!(case.run().0, case.exactly());
}

#[test]
fn bounds_hold_at_the_ends_of_what_floats_can_be() {
    for scale in [1e-42, 1e-20, 1e18, 1e36] {
        let scaled = |seed, n| rows(Lie::Uniform, n, seed).iter().map(|x| x * scale).collect::<Vec<f32>>();
        let (queries, references) = (scaled(1, 100), scaled(2, 300));
        for metric in [Metric::Euclidean, Metric::SqEuclidean] {
            let index = index(metric, &references, 20);
            let router = Bounded::new(metric, Arc::clone(&index.lists), 1, Cut::streamed(50));
            let case = case(metric, (&queries, &references), &index, &router);
            assert_eq!(case.run().0, case.exactly(), "{metric}, {scale}");
        }
    }
}

#[test]
fn own_rows_and_groups_are_left_out_by_id() {
    let cells = rows(Lie::Clustered, 400, 3);
    let groups: Vec<u32> = (0..400).map(|row| row % 3).collect();
    let index = index(Metric::Euclidean, &cells, 23);
    let all = Probing::new(Metric::Euclidean, Arc::clone(&index.lists), 23, Cut::streamed(60));
    let within = Bounded::new(Metric::Euclidean, Arc::clone(&index.lists), 2, Cut::streamed(60));
    let routers: [&dyn Router; 2] = [&all, &within];
    for router in routers {
        for groups in [None, Some((groups.as_slice(), groups.as_slice()))] {
            let plain = case(Metric::Euclidean, (&cells, &cells), &index, router);
            let case = Case { own_row: true, groups, ..plain };
            let found = case.run().0;
            assert_eq!(found, case.exactly());
            for row in 0..400 {
                let group = |id: u64| groups.map(|(of, _)| of[place(id)]);
                assert!(found.row(row).0.iter().all(|&id| id != row as u64), "row {row}");
                assert!(groups.is_none() || found.row(row).0.iter().all(|&id| group(id) != group(row as u64)));
            }
        }
    }
}

#[test]
fn queries_whose_lists_hold_fewer_than_k_rows_are_padded() {
    let (queries, references) = (rows(Lie::Uniform, 60, 1), rows(Lie::Uniform, 90, 2));
    let index = index(Metric::Euclidean, &references, 30);
    let router = Probing::new(Metric::Euclidean, Arc::clone(&index.lists), 2, Cut::streamed(11));
    let case = Case { k: 50, ..case(Metric::Euclidean, (&queries, &references), &index, &router) };
    let (found, pairs) = case.run();
    let neighbours: usize = (0..60).map(|row| found.neighbours(row).0.len()).sum();
    assert_eq!(neighbours as u64, pairs);
    assert!((0..60).any(|row| found.neighbours(row).0.len() < 20));
    let within = Bounded::new(Metric::Euclidean, Arc::clone(&index.lists), 1, Cut::streamed(11));
    let case = Case { router: &within, ..case };
    assert_eq!(case.run().0, case.exactly(), "fewer than k so far is no bound");
}

#[test]
fn a_search_stopped_after_any_partition_goes_on_to_the_same_bytes() {
    let (queries, references) = (rows(Lie::Uniform, 400, 1), rows(Lie::Uniform, 500, 2));
    let index = index(Metric::Euclidean, &references, 23);
    let lists = || Arc::clone(&index.lists);
    let near = Probing::new(Metric::Euclidean, lists(), 6, Cut::streamed(100));
    let within = Bounded::new(Metric::Euclidean, lists(), 2, Cut::streamed(100));
    // Another budget cuts other partitions.
    let near_again = Probing::new(Metric::Euclidean, lists(), 6, Cut::kept(30, &index.lists.offsets));
    let within_again = Bounded::new(Metric::Euclidean, lists(), 2, Cut::kept(30, &index.lists.offsets));
    let pairs: [(&dyn Router, &dyn Router); 2] = [(&near, &near_again), (&within, &within_again)];
    let seeding = Probing::new(Metric::Euclidean, lists(), 2, Cut::streamed(100));
    let seeds = case(Metric::Euclidean, (&queries, &references), &index, &seeding).run().1;
    for (router, again) in pairs {
        // So that there are no borders but those of partitions.
        let router = &Portioned(router, None);
        let case = case(Metric::Euclidean, (&queries, &references), &index, router);
        let (whole, in_all) = case.run();
        let mut rounds = Vec::new();
        for partitions in 1..40 {
            let (kept, stop, pairs) = (Kept::default(), Stop::new(), AtomicU64::new(0));
            let stopping = StopAfter(AtomicU64::new(partitions), &stop);
            match case.run_with(&kept, None, &stopping, &stop, &pairs) {
                Err(Error::Job(JobError::Interrupted)) => {}
                done => {
                    done.unwrap();
                    break;
                }
            }
            let saved = kept.saved.into_inner().unwrap().unwrap();
            rounds.push(saved.round);
            let kept = Kept::default();
            let goes_on = Case { router: again, order: Order::ReferenceStays, ..case };
            goes_on.run_with(&kept, Some(saved), &Silent, &Stop::new(), &pairs).unwrap();
            assert_eq!(kept.found.into_inner().unwrap().unwrap(), whole, "after {partitions} partitions");
            // Bounds may have become better meanwhile; nothing is compared twice but the lists that gave the first ones.
            let again = if router.rounds() > 1 { seeds } else { 0 };
            assert!(pairs.into_inner() <= in_all + again);
        }
        assert!(rounds.len() > 5 && rounds.iter().max() == Some(&(router.rounds() - 1)), "{rounds:?}");
    }
}

#[test]
fn a_search_stopped_within_any_partition_goes_on_to_the_same_bytes() {
    let (queries, references) = (rows(Lie::Uniform, 400, 1), rows(Lie::Uniform, 500, 2));
    let index = index(Metric::Euclidean, &references, 23);
    let lists = || Arc::clone(&index.lists);
    // One partition, as where lists stay in memory, and several.
    let one = || Cut::kept(1_000, &index.lists.offsets);
    let near = Probing::new(Metric::Euclidean, lists(), 6, one());
    let within = Bounded::new(Metric::Euclidean, lists(), 2, one());
    let several = Probing::new(Metric::Euclidean, lists(), 6, Cut::streamed(200));
    let cases: [(&dyn Router, Order, usize); 3] =
        [(&near, Order::ReferenceStays, 1), (&within, Order::ReferenceStays, 1), (&several, Order::QueriesStay, 3)];
    for (router, order, partitions) in cases {
        let portioned = Portioned(router, Some(15));
        let case = Case { order, ..case(Metric::Euclidean, (&queries, &references), &index, &portioned) };
        let whole = Case { router, ..case }.run().0;
        let (mut within, mut rounds) = (0, Vec::new());
        for portions in (1..).step_by(5) {
            let (kept, stop, pairs) = (Kept::default(), Stop::new(), AtomicU64::new(0));
            let stopping = StopAfter(AtomicU64::new(portions), &stop);
            match case.run_with(&kept, None, &stopping, &stop, &pairs) {
                Err(Error::Job(JobError::Interrupted)) => {}
                done => {
                    done.unwrap();
                    break;
                }
            }
            assert_eq!(stopping.0.into_inner(), 0, "nothing was visited once it was asked to stop");
            let saved = kept.saved.into_inner().unwrap().unwrap();
            within += usize::from(saved.complete_to < saved.rows.end);
            rounds.push(saved.round);
            if partitions == 1 && saved.round + 1 == router.rounds() {
                assert_eq!(saved.references_done, 0, "those of a partition count when all were visited");
            }
            let kept = Kept::default();
            // Without portions it goes on to the same.
            let goes_on = Case { router, ..case };
            goes_on.run_with(&kept, Some(saved), &Silent, &Stop::new(), &pairs).unwrap();
            assert_eq!(kept.found.into_inner().unwrap().unwrap(), whole, "after {portions} portions");
        }
        let borders = 2 * partitions * usize::try_from(router.rounds()).unwrap();
        assert!(within > borders, "stopped within partitions, {within} times in {borders}");
        assert_eq!(rounds.iter().max(), Some(&(router.rounds() - 1)));
    }
}

/// A router that is told other nearest lists than those that the engine finds: for each query the one of this rank.
struct Ranked<'a> {
    router: &'a dyn Router,
    index: &'a Index,
    rank: usize,
}

impl Router for Ranked<'_> {
    fn landmarks(&self) -> Option<Landmarks<'_>> {
        self.router.landmarks()
    }
    fn rounds(&self) -> u32 {
        self.router.rounds()
    }
    fn route<'r>(&'r self, round: u32, known: &Known<'_>) -> Box<dyn Route + 'r> {
        let nearest = |query: usize| ranked(Metric::Euclidean, self.index, known.queries.row(query))[self.rank];
        let near: Vec<u32> = (0..known.queries.rows()).map(|query| u32::try_from(nearest(query)).unwrap()).collect();
        self.router.route(round, &Known { near: if known.near.is_empty() { &[] } else { &near }, ..*known })
    }
}

#[test]
fn bounds_lose_nothing_when_an_engine_goes_on_that_takes_other_lists_for_the_nearest() {
    let (queries, references) = (rows(Lie::Uniform, 200, 1), rows(Lie::Uniform, 500, 2));
    let index = index(Metric::Euclidean, &references, 23);
    let router = Bounded::new(Metric::Euclidean, Arc::clone(&index.lists), 1, Cut::streamed(40));
    let first = Ranked { router: &router, index: &index, rank: 0 };
    let other = Ranked { router: &router, index: &index, rank: 1 };
    let case = case(Metric::Euclidean, (&queries, &references), &index, &first);
    let expected = case.exactly();
    let mut rounds = Vec::new();
    for partitions in (1..60).step_by(4) {
        let (kept, stop, pairs) = (Kept::default(), Stop::new(), AtomicU64::new(0));
        let stopping = StopAfter(AtomicU64::new(partitions), &stop);
        if case.run_with(&kept, None, &stopping, &stop, &pairs).is_ok() {
            break;
        }
        let saved = kept.saved.into_inner().unwrap().unwrap();
        rounds.push(saved.round);
        let kept = Kept::default();
        let goes_on = Case { router: &other, ..case };
        goes_on.run_with(&kept, Some(saved), &Silent, &Stop::new(), &pairs).unwrap();
        assert_eq!(kept.found.into_inner().unwrap().unwrap(), expected, "after {partitions} partitions");
    }
    assert!(rounds.contains(&0) && rounds.contains(&1), "{rounds:?}");
}
