//! Sizes that hurt, and what does not fit together.

use super::{Case, Subject, block, clustered, k, whole};
use crate::engine::{Exclude, Partition, Visit, VisitQueries};
use crate::error::EngineError;
use crate::metric::Metric;
use crate::topk::TopK;

pub(crate) fn every_shape_agrees_with_the_oracle(subject: Subject<'_>) {
    let (ks, counts) = ([1, 15, 256, 30], [1, 5, 6, 7, 100]);
    let mut turn = 0;
    for rows in [1, 15, 16, 17, 255, 1000] {
        for dim in [1, 3, 4, 50, 51, 128, 1000] {
            // 4 and 5 have no common factor, so all pairs of k and number of queries come up.
            let (k_here, queries) = (k(ks[turn % 4]), counts[turn % 5]);
            turn += 1;
            let references = block(0, dim, clustered(1, rows, dim, 5));
            let queries = block(1 << 40, dim, clustered(2, queries, dim, 5));
            for metric in Metric::ALL {
                // Every row of one value is constant.
                if metric != Metric::Correlation || dim > 1 {
                    let what = format!("{} queries × {rows} rows × {dim}", queries.rows());
                    Case::new(metric, &queries, &references, k_here).check(subject, &what);
                }
            }
        }
    }
}

/// (queries, rows, dim, k): one query or many, narrow or wide, and k of 1, of all rows, and of more than there are.
pub(crate) const SHAPES: [(usize, usize, usize, u32); 11] = [
    (1, 20_000, 2, 256),
    (64, 3_000, 10, 100),
    (1_000, 400, 2, 15),
    (1_000, 300, 30, 30),
    (1_000, 100, 50, 256),
    (64, 700, 127, 1),
    (64, 701, 128, 30),
    (65, 300, 129, 256),
    (64, 130, 784, 100),
    (64, 100, 2_000, 1),
    (1, 1_000, 2_000, 256),
];

pub(crate) fn few_and_many_queries_of_any_width_agree_with_the_oracle(subject: Subject<'_>) {
    for (queries, rows, dim, k_here) in SHAPES {
        let references = block(0, dim, clustered(3, rows, dim, 9));
        let queries = block(1 << 40, dim, clustered(4, queries, dim, 9));
        for metric in Metric::ALL {
            let what = format!("{} queries × {rows} rows × {dim}", queries.rows());
            Case::new(metric, &queries, &references, k(k_here)).check(subject, &what);
        }
    }
}

pub(crate) fn nothing_is_found_where_there_is_nothing(subject: Subject<'_>) {
    let (none, some) = (block(0, 3, vec![]), block(0, 3, clustered(1, 4, 3, 2)));
    for metric in Metric::ALL {
        assert_eq!(Case::new(metric, &none, &some, k(2)).find(subject).rows(), 0, "{metric}");
        assert_eq!(Case::new(metric, &some, &none, k(2)).find(subject), TopK::empty(4, k(2)), "{metric}");
        let mut engine = (subject.make)(metric);
        engine.begin(&some, k(2), &Exclude::Nothing).expect("begin");
        assert_eq!(engine.finish().expect("finish"), TopK::empty(4, k(2)), "{metric}");
    }
}

pub(crate) fn misfits_are_errors(subject: Subject<'_>) {
    let (narrow, wide) = (block(0, 3, vec![1.0; 12]), block(0, 4, vec![1.0; 12]));
    let mut engine = (subject.make)(Metric::Euclidean);
    let groups = Exclude::SameGroup { groups: vec![0; 3], own_row: false };
    assert!(matches!(engine.begin(&narrow, k(2), &groups), Err(EngineError::Shape { .. })));
    engine.begin(&narrow, k(2), &Exclude::Nothing).expect("begin");
    let part = Partition::new(wide);
    let dims = engine.visit(&part, &[whole(&part)]);
    assert!(matches!(dims, Err(EngineError::Dim { queries: 3, references: 4 })));
    let part = Partition::new(narrow.clone());
    #[allow(clippy::reversed_empty_ranges)]
    let wrong = [
        (0..5, VisitQueries::All),
        (3..2, VisitQueries::All),
        (0..4, VisitQueries::List(vec![4])),
        (0..4, VisitQueries::List(vec![1, 0])),
        (0..4, VisitQueries::List(vec![1, 1])),
    ];
    for (rows, queries) in wrong {
        let visit = Visit { rows, queries };
        let result = engine.visit(&part, std::slice::from_ref(&visit));
        assert!(matches!(result, Err(EngineError::Shape { .. })), "{visit:?}");
    }
    for top in [TopK::empty(3, k(2)), TopK::empty(4, k(3))] {
        assert!(matches!(engine.restore(&top), Err(EngineError::Shape { .. })));
    }
}

pub(crate) fn calls_before_begin_are_errors(subject: Subject<'_>) {
    let rows = block(0, 3, vec![1.0; 12]);
    let part = Partition::new(rows.clone());
    let mut engine = (subject.make)(Metric::Euclidean);
    let all_refuse = |engine: &mut dyn crate::engine::Engine| {
        assert!(matches!(engine.visit(&part, &[whole(&part)]), Err(EngineError::NotBegun { call: "visit" })));
        assert!(matches!(engine.bounds(), Err(EngineError::NotBegun { call: "bounds" })));
        assert!(matches!(engine.snapshot(), Err(EngineError::NotBegun { call: "snapshot" })));
        assert!(matches!(engine.restore(&TopK::empty(4, k(1))), Err(EngineError::NotBegun { call: "restore" })));
        assert!(matches!(engine.finish(), Err(EngineError::NotBegun { call: "finish" })));
    };
    all_refuse(engine.as_mut());
    engine.begin(&rows, k(1), &Exclude::Nothing).expect("begin");
    engine.finish().expect("finish");
    all_refuse(engine.as_mut());
}
