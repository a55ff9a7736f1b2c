//! Splits, order and repetition must not show in a single byte.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{Case, Subject, block, clustered, cut, k, noise, part_of, whole};
use crate::block::{RowBlock, RowIds};
use crate::engine::{Exclude, Horizon, Partition, Visit, VisitQueries};
use crate::metric::Metric;
use crate::oracle::{self, search::agrees};
use crate::topk::TopK;
use crate::units::K;

/// Visits all partitions in the order given.
fn find(subject: Subject<'_>, metric: Metric, queries: &RowBlock, k: K, parts: &[Arc<Partition>]) -> TopK {
    let mut engine = (subject.make)(metric);
    engine.begin(queries, k, &Exclude::Nothing).expect("begin");
    for part in parts {
        engine.visit(part, &[whole(part)]).expect("visit");
    }
    engine.finish().expect("finish")
}

/// Cuts `0..n` at these places.
fn runs(n: usize, cuts: &[usize]) -> Vec<(usize, usize)> {
    let mut ends: Vec<usize> = cuts.iter().map(|c| c % (n + 1)).chain([0, n]).collect();
    ends.sort_unstable();
    ends.windows(2).map(|w| (w[0], w[1])).collect()
}

pub(crate) fn splits_and_order_do_not_show(subject: Subject<'_>) {
    let queries = block(0, 7, clustered(3, 60, 7, 4));
    // Values on a coarse grid, so that many distances are equal.
    let grid = clustered(4, 500, 7, 4).iter().map(|x| x.round()).collect();
    let references = block(100, 7, grid);
    let expected: Vec<TopK> =
        Metric::ALL.iter().map(|&m| Case::new(m, &queries, &references, k(9)).check(subject, "one visit")).collect();
    let cuts = || prop::collection::vec(0_usize..1000, 0..5);
    let plan = (cuts(), cuts(), cuts(), any::<u64>(), 0..Metric::ALL.len());
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&plan, |(parts, ranges, lists, seed, metric)| {
        let mut visits = Vec::new();
        for (start, end) in runs(500, &parts) {
            let part = Partition::new(part_of(&references, start, end));
            for (a, b) in runs(end - start, &ranges) {
                for (c, d) in runs(60, &lists) {
                    let range = |a: usize, b: usize| u32::try_from(a).expect("few")..u32::try_from(b).expect("few");
                    let queries = VisitQueries::List(range(c, d).collect());
                    visits.push((Arc::clone(&part), Visit { rows: range(a, b), queries }));
                }
            }
        }
        // A shuffle that follows from the seed alone.
        let mut keyed: Vec<_> = visits.into_iter().zip(noise(seed, 10_000)).collect();
        keyed.sort_by(|a, b| a.1.total_cmp(&b.1));
        let mut engine = (subject.make)(Metric::ALL[metric]);
        engine.begin(&queries, k(9), &Exclude::Nothing).expect("begin");
        for ((part, visit), _) in &keyed {
            engine.visit(part, std::slice::from_ref(visit)).expect("visit");
        }
        prop_assert_eq!(engine.finish().expect("finish"), expected[metric].clone());
        Ok(())
    });
    assert_eq!(outcome, Ok(()));
}

pub(crate) fn identical_rows_in_reverse_are_found_by_id(subject: Subject<'_>) {
    let references = block(0, 6, [0.3, -1.7, 2.9, 0.01, 5.0, -3.3].repeat(10_000));
    let queries = block(0, 6, noise(5, 6 * 20));
    for metric in Metric::ALL {
        let mut parts = cut(&references, 1234);
        let forwards = find(subject, metric, &queries, k(15), &parts);
        parts.reverse();
        assert_eq!(find(subject, metric, &queries, k(15), &parts), forwards, "{metric}");
        for query in 0..queries.rows() {
            assert_eq!(forwards.row(query).0, (0..15).collect::<Vec<u64>>(), "{metric}");
        }
    }
}

pub(crate) fn identical_rows_keep_to_ranges_and_exclusion(subject: Subject<'_>) {
    let rows = block(0, 6, [0.3, -1.7, 2.9, 0.01, 5.0, -3.3].repeat(2000));
    let part = Partition::with(rows.clone(), Some((0..2000).map(|row| row / 700).collect()), None);
    let queries = part_of(&rows, 0, 1500);
    for metric in Metric::ALL {
        for k in [k(3), k(256)] {
            let groups = (0..1500).map(|row| row / 700).collect();
            for (exclude, rows) in [
                (Exclude::OwnRow, 0..2000),
                (Exclude::OwnRow, 100..1200),
                (Exclude::SameGroup { groups, own_row: false }, 10..1900),
            ] {
                let mut engine = (subject.make)(metric);
                engine.begin(&queries, k, &exclude).expect("begin");
                engine.visit(&part, &[Visit { rows: rows.clone(), queries: VisitQueries::All }]).expect("visit");
                let found = engine.finish().expect("finish");
                for query in 0..1500_u32 {
                    let group = |row: u32| matches!(exclude, Exclude::SameGroup { .. }) && row / 700 == query / 700;
                    let own = |row: u32| matches!(exclude, Exclude::OwnRow) && row == query;
                    let expected = rows.clone().filter(|&row| !own(row) && !group(row)).map(u64::from).take(k.get());
                    let ids = found.row(usize::try_from(query).expect("few")).0;
                    assert!(expected.eq(ids.iter().copied()), "{metric}, k = {k}, {rows:?}, query {query}: {ids:?}");
                }
            }
        }
    }
}

/// Of many identical rows only the first count, and those that do not must not seem near either, wherever they are.
pub(crate) fn identical_rows_on_the_far_side_hide_nothing(subject: Subject<'_>) {
    let (dim, many) = (6, 400);
    let mut values = [-9.0, 0.5, 0.0, 0.25, 1.0, -1.0].repeat(many);
    let near: Vec<f32> =
        noise(12, dim * 900).chunks(dim).flat_map(|row| [row[0] + 9.0].into_iter().chain(row[1..].to_vec())).collect();
    values.extend(&near);
    let references = block(0, dim, values);
    let queries = block(0, dim, near[..dim * 30].to_vec());
    for metric in Metric::ALL {
        Case::new(metric, &queries, &references, k(7)).check(subject, "identical rows far away");
    }
}

pub(crate) fn ties_go_to_the_lower_id_whatever_the_order(subject: Subject<'_>) {
    // Every row is there five times, under ids that are not in the order of the rows.
    let rows = clustered(6, 100, 8, 3);
    let ids: Vec<u64> = (0..500_u64).map(|i| (i * 137) % 500 + 10).collect();
    let references = RowBlock::new(RowIds::List(ids.clone()), 8, rows.repeat(5)).expect("a block");
    let queries = block(0, 8, rows[..8 * 10].to_vec());
    for metric in Metric::ALL {
        let found = Case::new(metric, &queries, &references, k(5)).check(subject, "five of each");
        for query in 0..queries.rows() {
            // Another row may have the larger inner product.
            if metric != Metric::InnerProduct {
                let mut twins: Vec<u64> = (0..5).map(|copy| ids[copy * 100 + query]).collect();
                twins.sort_unstable();
                assert_eq!(found.row(query).0, twins, "{metric}, query {query}");
            }
        }
        let mut parts = cut(&references, 77);
        parts.reverse();
        assert_eq!(find(subject, metric, &queries, k(5), &parts), found, "{metric}");
    }
}

pub(crate) fn rows_visited_twice_count_once(subject: Subject<'_>) {
    let queries = block(0, 5, clustered(7, 70, 5, 3));
    let references = block(0, 5, clustered(8, 300, 5, 3));
    for metric in Metric::ALL {
        let part = Partition::new(references.clone());
        let expected = find(subject, metric, &queries, k(20), std::slice::from_ref(&part));
        let mut engine = (subject.make)(metric);
        engine.begin(&queries, k(20), &Exclude::Nothing).expect("begin");
        let half = Visit { rows: 100..250, queries: VisitQueries::All };
        engine.visit(&part, &[half.clone(), whole(&part), half]).expect("visit");
        engine.visit(&Partition::new(references.clone()), &[whole(&part)]).expect("visit");
        assert_eq!(engine.finish().expect("finish"), expected, "{metric}");
    }
}

pub(crate) fn lists_of_queries_and_row_ranges_are_kept_to(subject: Subject<'_>) {
    let queries = block(0, 6, clustered(9, 90, 6, 3));
    let references = block(0, 6, clustered(10, 400, 6, 3));
    let part = Partition::new(references.clone());
    for metric in Metric::ALL {
        let mut engine = (subject.make)(metric);
        engine.begin(&queries, k(12), &Exclude::Nothing).expect("begin");
        let odd = VisitQueries::List((0..90).filter(|q| q % 2 == 1).collect());
        let visits = [
            Visit { rows: 33..41, queries: odd },
            Visit { rows: 200..317, queries: VisitQueries::All },
            Visit { rows: 0..400, queries: VisitQueries::List(vec![]) },
            Visit { rows: 50..50, queries: VisitQueries::All },
        ];
        engine.visit(&part, &visits).expect("visit");
        let found = engine.finish().expect("finish");
        let truth = crate::oracle::search::search(metric, &queries, &references, |q, r| {
            (200..317).contains(&r) || q % 2 == 1 && (33..41).contains(&r)
        });
        assert_eq!(agrees(&found, &truth, subject.kind), Ok(()), "{metric}");
    }
}

pub(crate) fn a_restored_search_ends_as_if_it_had_not_stopped(subject: Subject<'_>) {
    let queries = block(0, 6, clustered(11, 70, 6, 3));
    let references = block(0, 6, clustered(12, 600, 6, 3));
    for metric in Metric::ALL {
        let parts = cut(&references, 150);
        let expected = find(subject, metric, &queries, k(8), &parts);
        let mut first = (subject.make)(metric);
        first.begin(&queries, k(8), &Exclude::Nothing).expect("begin");
        first.visit(&parts[2], &[whole(&parts[2])]).expect("visit");
        first.visit(&parts[0], &[whole(&parts[0])]).expect("visit");
        let saved = first.snapshot().expect("snapshot");
        first.visit(&parts[1], &[whole(&parts[1])]).expect("the queries stayed");
        let mut second = (subject.make)(metric);
        second.begin(&queries, k(8), &Exclude::Nothing).expect("begin");
        second.restore(&saved).expect("restore");
        // Part 0 is visited again: a run that died may not know that it had been.
        for part in [&parts[0], &parts[3], &parts[1]] {
            second.visit(part, &[whole(part)]).expect("visit");
        }
        assert_eq!(second.finish().expect("finish"), expected, "{metric}");
        first.restore(&saved).expect("restore");
        assert_eq!(first.finish().expect("finish"), saved, "{metric}: restoring replaces what was found");
    }
}

pub(crate) fn bounds_are_the_last_column(subject: Subject<'_>) {
    let queries = block(0, 6, clustered(13, 70, 6, 3));
    let references = block(0, 6, clustered(14, 40, 6, 3));
    for metric in Metric::ALL {
        let mut engine = (subject.make)(metric);
        engine.begin(&queries, k(30), &Exclude::Nothing).expect("begin");
        for part in cut(&references, 20) {
            engine.visit(&part, &[whole(&part)]).expect("visit");
            let (bounds, top) = (engine.bounds().expect("bounds"), engine.snapshot().expect("snapshot"));
            let last: Vec<f32> = (0..70).map(|query| top.row(query).1[29]).collect();
            assert_eq!(bounds, last, "{metric}");
        }
        assert!(engine.bounds().expect("bounds").iter().all(|bound| bound.is_finite()));
    }
}

pub(crate) fn begin_forgets_what_was_before(subject: Subject<'_>) {
    let references = block(0, 6, clustered(15, 200, 6, 3));
    let part = Partition::new(references.clone());
    let mut engine = (subject.make)(Metric::Euclidean);
    for (queries, k) in [(130, k(30)), (3, k(2)), (70, k(256))] {
        let queries = block(0, 6, clustered(16, queries, 6, 3));
        engine.begin(&queries, k, &Exclude::OwnRow).expect("begin");
        engine.visit(&part, &[whole(&part)]).expect("visit");
        engine.begin(&queries, k, &Exclude::Nothing).expect("begin");
        engine.visit(&part, &[whole(&part)]).expect("visit");
        let expected = Case::new(Metric::Euclidean, &queries, &references, k).check(subject, "alone");
        assert_eq!(engine.finish().expect("finish"), expected);
    }
}

pub(crate) fn nearest_rows_are_found_beside_what_was_begun(subject: Subject<'_>) {
    let (queries, references) = (block(0, 6, clustered(17, 150, 6, 3)), block(0, 6, clustered(18, 300, 6, 3)));
    let marks = block(0, 6, clustered(19, 70, 6, 3));
    let landmarks = Partition::new(marks.clone());
    let grouped = Partition::with(marks.clone(), Some(vec![7; 70]), None);
    for metric in Metric::ALL {
        let part = Partition::with(references.clone(), Some(vec![7; 300]), None);
        // A landmark is no reference: neither the query's own row nor of its group.
        let exclude = Exclude::SameGroup { groups: (0..150).map(|row| row % 8).collect(), own_row: true };
        let mut case = Case::new(metric, &queries, &references, k(9));
        (case.exclude, case.groups) = (exclude.clone(), Some(vec![7; 300]));
        let expected = case.check(subject, "a whole search");
        for (near, at_a_time) in [(k(1), 1000), (k(5), 64), (k(80), 33)] {
            let alone = Case::new(metric, &queries, &marks, near).check(subject, "landmarks");
            let ids: Vec<u32> = alone.ids().iter().map(|&id| u32::try_from(id).unwrap_or(u32::MAX)).collect();
            let mut engine = (subject.make)(metric);
            engine.begin(&queries, k(9), &exclude).expect("begin");
            assert!(engine.nearest(&grouped, near, None, at_a_time).is_err(), "landmarks have no groups");
            assert_eq!(engine.nearest(&landmarks, near, None, at_a_time).expect("nearest"), ids, "{metric}, {near}");
            for horizon in [1.0, 1.3].into_iter().filter_map(|times| Horizon::new(metric, times)) {
                let within = within(&alone, horizon);
                assert!(near < k(5) || within.contains(&u32::MAX), "{metric}, {near}: it leaves something out");
                let found = engine.nearest(&landmarks, near, Some(horizon), at_a_time).expect("nearest");
                assert_eq!(found, within, "{metric}, {near}, {horizon:?}");
            }
            let half = |rows| Visit { rows, queries: VisitQueries::All };
            engine.visit(&part, &[half(0..170)]).expect("visit");
            assert_eq!(
                engine.nearest(&landmarks, near, None, at_a_time).expect("nearest"),
                ids,
                "{metric}, {near}, later"
            );
            engine.visit(&part, &[half(170..300)]).expect("visit");
            assert_eq!(engine.finish().expect("finish"), expected, "{metric}, {near}");
        }
    }
}

pub(crate) fn a_query_that_is_too_far_for_distances_has_its_nearest_landmark_and_others_keep_theirs(
    subject: Subject<'_>,
) {
    let mut values = clustered(21, 9, 6, 3);
    // Its squares are beyond f32.
    values[4 * 6..5 * 6].fill(3e19);
    let (queries, marks) = (block(0, 6, values), block(0, 6, clustered(22, 40, 6, 3)));
    let landmarks = Partition::new(marks.clone());
    let horizon = Horizon::new(Metric::SqEuclidean, 1.2);
    let mut engine = (subject.make)(Metric::SqEuclidean);
    let mut near = |queries: &RowBlock| {
        engine.begin(queries, k(9), &Exclude::Nothing).expect("begin");
        engine.nearest(&landmarks, k(5), horizon, 100).expect("nearest")
    };
    let all = near(&queries);
    for row in 0..queries.rows() {
        let own = &all[row * 5..(row + 1) * 5];
        assert_ne!(own[0], u32::MAX, "query {row} has a list to visit");
        assert_eq!(own, near(&queries.part(row..row + 1)), "query {row}, whatever is beside it");
    }
}

/// The landmarks that a horizon leaves of these.
fn within(near: &TopK, horizon: Horizon) -> Vec<u32> {
    let of_row = |row: usize| {
        let (ids, distances) = near.neighbours(row);
        let kept = oracle::horizon::within(distances, horizon.squares, Horizon::NEAREST, horizon.times);
        let ids = ids.iter().take(kept).map(|&id| u32::try_from(id).unwrap_or(u32::MAX));
        ids.chain(std::iter::repeat(u32::MAX)).take(near.k()).collect::<Vec<_>>()
    };
    (0..near.rows()).flat_map(of_row).collect()
}
