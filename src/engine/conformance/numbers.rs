//! Values that hurt: exclusion, offsets, outliers, the ends of f32, zero and constant rows.

use super::{Case, Subject, block, clustered, k, noise, whole};
use crate::engine::{Exclude, NO_GROUP, Partition};
use crate::error::EngineError;
use crate::metric::Metric;

const DISTANCES: [Metric; 6] =
    [Metric::Euclidean, Metric::SqEuclidean, Metric::Cosine, Metric::Correlation, Metric::Manhattan, Metric::Chebyshev];

pub(crate) fn a_row_is_its_own_nearest_at_zero(subject: Subject<'_>) {
    for (offset, scale) in [(0.0, 1.0), (1e3, 1.0), (0.0, 1e-3), (7.0, 1e3)] {
        let rows = clustered(20, 300, 50, 5).iter().map(|x| x * scale + offset).collect();
        let rows = block(1000, 50, rows);
        for metric in DISTANCES {
            let found = Case::new(metric, &rows, &rows, k(5)).check(subject, "self");
            for query in 0..rows.rows() {
                let (ids, distances) = found.row(query);
                assert_eq!((ids[0], distances[0].to_bits()), (1000 + query as u64, 0), "{metric}");
            }
        }
    }
}

pub(crate) fn the_own_row_is_excluded_by_id(subject: Subject<'_>) {
    // Each row twice: the twin stays, whatever its distance.
    let rows = block(0, 9, clustered(21, 80, 9, 4).repeat(2));
    for metric in Metric::ALL {
        let case = Case { exclude: Exclude::OwnRow, ..Case::new(metric, &rows, &rows, k(10)) };
        let found = case.check(subject, "without self");
        if metric != Metric::InnerProduct {
            assert!((0..160).all(|query| found.row(query).0[0] == (query as u64 + 80) % 160), "{metric}");
        }
    }
}

pub(crate) fn groups_are_excluded(subject: Subject<'_>) {
    let rows = block(0, 9, clustered(22, 200, 9, 4));
    let groups: Vec<u32> = (0..200_u32).map(|row| if row % 7 == 0 { NO_GROUP } else { row / 50 }).collect();
    for metric in Metric::ALL {
        for own_row in [false, true] {
            let exclude = Exclude::SameGroup { groups: groups.clone(), own_row };
            let case = Case { exclude, groups: Some(groups.clone()), ..Case::new(metric, &rows, &rows, k(10)) };
            case.check(subject, "another group");
        }
        // A partition without groups has none to exclude.
        let exclude = Exclude::SameGroup { groups: groups.clone(), own_row: false };
        Case { exclude, ..Case::new(metric, &rows, &rows, k(10)) }.check(subject, "no groups");
    }
}

pub(crate) fn masked_rows_are_not_found(subject: Subject<'_>) {
    let (queries, references) = (block(0, 9, clustered(23, 50, 9, 4)), block(0, 9, clustered(24, 300, 9, 4)));
    for metric in Metric::ALL {
        for every in [2, 100, 1000] {
            let mask = Some((0..300).map(|row| row % every == 1).collect());
            Case { mask, ..Case::new(metric, &queries, &references, k(10)) }.check(subject, "masked");
        }
    }
}

pub(crate) fn offsets_and_scales_change_no_neighbour(subject: Subject<'_>) {
    for (offset, scale) in [(1e3, 1.0), (-1e3, 0.1), (0.0, 1e-3), (0.0, 1e3), (1e5, 1.0)] {
        let moved = |values: Vec<f32>| values.iter().map(|x| x * scale + offset).collect();
        let queries = block(0, 50, moved(clustered(25, 60, 50, 6)));
        let references = block(0, 50, moved(clustered(26, 1500, 50, 6)));
        for metric in Metric::ALL {
            Case::new(metric, &queries, &references, k(30)).check(subject, &format!("{offset} + {scale}·x"));
        }
    }
}

pub(crate) fn one_outlier_changes_nothing_else(subject: Subject<'_>) {
    let queries = block(0, 20, clustered(27, 40, 20, 6));
    for size in [1e6, 1e18, 1e37] {
        let mut values = clustered(28, 700, 20, 6);
        for (value, noise) in values[20 * 350..20 * 351].iter_mut().zip(noise(29, 20)) {
            *value = noise * size;
        }
        let references = block(0, 20, values);
        for metric in Metric::ALL {
            Case::new(metric, &queries, &references, k(30)).check(subject, &format!("an outlier of {size}"));
            Case::new(metric, &references, &queries, k(30)).check(subject, &format!("a query of {size}"));
        }
    }
}

pub(crate) fn values_near_the_ends_of_f32_agree(subject: Subject<'_>) {
    let (queries, references) = (clustered(30, 30, 12, 4), clustered(31, 400, 12, 4));
    for scale in [1e-45, 1e-42, 1e-38, 1e-30, 1e-20, 1e18, 1e30, 2e37] {
        let scaled = |values: &[f32]| block(0, 12, values.iter().map(|x| x * scale).collect());
        let (queries, references) = (scaled(&queries), scaled(&references));
        for metric in Metric::ALL {
            // At the smallest scale most rows are zeros and ones of the last bit, and many are constant.
            if metric != Metric::Correlation || scale > 1e-44 {
                Case::new(metric, &queries, &references, k(20)).check(subject, &format!("scale {scale}"));
            }
        }
    }
}

pub(crate) fn zero_vectors_are_at_cosine_distance_one(subject: Subject<'_>) {
    let zeros_at = |mut values: Vec<f32>, rows: &[usize]| {
        for &row in rows {
            values[row * 10..(row + 1) * 10].fill(0.0);
        }
        block(0, 10, values)
    };
    let references = zeros_at(noise(32, 10 * 300), &[0, 7, 100, 299]);
    let queries = zeros_at(noise(33, 10 * 20), &[3, 19]);
    for k_here in [k(15), k(256)] {
        let found = Case::new(Metric::Cosine, &queries, &references, k_here).check(subject, "zeros");
        for query in [3, 19] {
            assert!(found.row(query).1.iter().all(|&distance| distance == 1.0));
            assert_eq!(found.row(query).0, (0..k_here.get() as u64).collect::<Vec<_>>());
        }
    }
    let nothing = block(0, 10, vec![0.0; 10 * 40]);
    for metric in Metric::ALL.into_iter().filter(|&metric| metric != Metric::Correlation) {
        Case::new(metric, &nothing, &nothing, k(5)).check(subject, "only zeros");
        Case::new(metric, &queries, &nothing, k(5)).check(subject, "zero references");
        Case::new(metric, &nothing, &references, k(5)).check(subject, "zero queries");
    }
}

pub(crate) fn constant_rows_have_no_correlation(subject: Subject<'_>) {
    let good = block(50, 6, noise(34, 6 * 30));
    let mut values = noise(35, 6 * 30);
    values[6 * 11..6 * 12].fill(0.1);
    values[6 * 20..6 * 21].fill(0.0);
    let bad = block(50, 6, values);
    let mut engine = (subject.make)(Metric::Correlation);
    let refused = engine.begin(&bad, k(3), &Exclude::Nothing);
    assert!(matches!(refused, Err(EngineError::ConstantRow { side: "query", row: 61 })), "{refused:?}");
    engine.begin(&good, k(3), &Exclude::Nothing).expect("begin");
    let part = Partition::new(bad);
    let refused = engine.visit(&part, &[whole(&part)]);
    assert!(matches!(refused, Err(EngineError::ConstantRow { side: "reference", row: 61 })), "{refused:?}");
}

pub(crate) fn clustered_rows_stored_by_cluster_agree(subject: Subject<'_>) {
    let references = block(0, 10, clustered(36, 20_000, 10, 40));
    let queries = block(0, 10, clustered(37, 40, 10, 40));
    for metric in Metric::ALL {
        let found = Case::new(metric, &queries, &references, k(30)).check(subject, "by cluster");
        assert!(found.ids().iter().all(|&id| id < 20_000), "{metric}");
    }
}
