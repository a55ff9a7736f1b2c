//! The engine on whatever adapter is there; in CI that is a software one. A missing one is a failed test unless
//! `ATLASKNN_NO_GPU=1` says that none is expected.

use std::sync::{Mutex, PoisonError};

use naga::valid::{Capabilities, ValidationFlags, Validator};

use super::*;
use crate::engine::conformance::{Subject, block, claims, clustered, cut, k, whole};
use crate::engine::several::Several;
use crate::visit::VisitQueries;

fn pool() -> Arc<rayon::ThreadPool> {
    Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("a pool"))
}

/// The variant under test: the environment's on machines that have several, the portable one elsewhere.
const VARIANT_VARIABLE: &str = "ATLASKNN_TEST_VARIANT";

/// The adapter that tests run on; none only where none is expected.
pub(crate) fn adapter() -> Option<Adapter> {
    let found = adapters().into_iter().next();
    let none_is_expected = std::env::var("ATLASKNN_NO_GPU").is_ok_and(|value| value == "1");
    assert!(
        found.is_some() || none_is_expected,
        "no adapter: install a driver (mesa-vulkan-drivers), or say ATLASKNN_NO_GPU=1"
    );
    found
}

pub(super) fn config(metric: Metric) -> GpuConfig {
    let adapter = adapter().expect("a test that has asked for an adapter");
    let variant = std::env::var(VARIANT_VARIABLE).ok();
    GpuConfig { metric, pool: pool(), adapter, variant, memory: DEFAULT_MEMORY, pairs_per_second: None }
}

/// An engine on a device that no other test uses now: most of the time of tests would go to compiling the same passes.
fn engine(metric: Metric) -> GpuEngine {
    static OPEN: Mutex<Vec<(Variant, Arc<Library>)>> = Mutex::new(Vec::new());
    let config = config(metric);
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    // The list has one reference, an engine another one.
    let free = open.iter().find(|(_, shared)| Arc::strong_count(shared) == 1 && !shared.device.is_lost());
    if let Some((variant, shared)) = free.map(|(variant, shared)| (*variant, Arc::clone(shared))) {
        return GpuEngine::with(shared, config, variant);
    }
    let engine = GpuEngine::new(config).expect("an engine");
    open.push((engine.variant, Arc::clone(&engine.shared)));
    engine
}

fn subject() -> Subject<'static> {
    Subject { make: &|metric| Box::new(engine(metric)), kind: EngineKind::Gpu }
}

fn on_an_adapter(claim: fn(Subject<'_>)) {
    if adapter().is_some() {
        claim(subject());
    }
}

claims!(each: on_an_adapter);

#[test]
fn two_devices_share_the_queries_and_find_the_bytes_of_one() {
    if adapter().is_none() {
        return;
    }
    let (queries, references) = (block(0, 12, clustered(1, 301, 12, 5)), block(0, 12, clustered(2, 900, 12, 5)));
    let find = |mut engine: Box<dyn Engine>| {
        engine.begin(&queries, k(9), &Exclude::OwnRow).expect("begin");
        for part in cut(&references, 400) {
            engine.visit(&part, &[whole(&part)]).expect("visit");
        }
        engine.finish().expect("finish")
    };
    let one = || Box::new(engine(Metric::Euclidean)) as Box<dyn Engine>;
    assert_eq!(find(Box::new(Several::new(vec![one(), one()], pool()))), find(one()));
}

/// Claims again with everything cut small: few seeds, so that most rows meet the filter; little room, so that survivors
/// overflow; several chunks of queries and many submissions.
mod cut_small {
    use super::*;
    use crate::engine::conformance::{numbers, order, shapes};

    fn cut_small(metric: Metric) -> Box<dyn Engine> {
        let mut engine = engine(metric);
        engine.tuning = Tuning { chunk: 128, room: 40, seed_rows: 1, pairs_max: 1 << 17, slots: 256 };
        Box::new(engine)
    }

    fn check(claim: fn(Subject<'_>)) {
        if adapter().is_some() {
            claim(Subject { make: &cut_small, kind: EngineKind::Gpu });
        }
    }

    #[test]
    fn every_shape_agrees_with_the_oracle() {
        check(shapes::every_shape_agrees_with_the_oracle);
    }

    #[test]
    fn splits_and_order_do_not_show() {
        check(order::splits_and_order_do_not_show);
    }

    #[test]
    fn identical_rows_in_reverse_are_found_by_id() {
        check(order::identical_rows_in_reverse_are_found_by_id);
    }

    #[test]
    fn groups_are_excluded() {
        check(numbers::groups_are_excluded);
    }

    #[test]
    fn offsets_outliers_and_the_ends_of_f32_change_no_neighbour() {
        check(numbers::offsets_and_scales_change_no_neighbour);
        check(numbers::one_outlier_changes_nothing_else);
        check(numbers::values_near_the_ends_of_f32_agree);
    }

    #[test]
    fn zero_vectors_are_at_cosine_distance_one() {
        check(numbers::zero_vectors_are_at_cosine_distance_one);
    }

    #[test]
    fn rows_stored_by_cluster_overflow_and_are_all_found() {
        check(numbers::clustered_rows_stored_by_cluster_agree);
        if adapter().is_none() {
            return;
        }
        let mut engine = engine(Metric::Euclidean);
        engine.tuning = Tuning { chunk: 128, room: 40, seed_rows: 1, pairs_max: 1 << 17, slots: 256 };
        // Sorted from far to near, as seen from the queries: everything is nearer than what came before.
        let values: Vec<f32> = (0..4000_u16).rev().map(f32::from).collect();
        let (queries, references) = (block(0, 1, vec![-1.0; 5]), block(0, 1, values));
        engine.begin(&queries, k(30), &Exclude::Nothing).expect("begin");
        for part in cut(&references, 1000) {
            engine.visit(&part, &[whole(&part)]).expect("visit");
        }
        let found = engine.finish().expect("finish");
        assert!(engine.overflows() > 0, "nothing overflowed");
        for query in 0..5 {
            assert_eq!(found.row(query).0, (3970..4000).rev().collect::<Vec<u64>>());
        }
    }

    #[test]
    fn a_query_that_overflows_in_several_visits_of_a_call_is_searched_again_once() {
        if adapter().is_none() {
            return;
        }
        let mut engine = engine(Metric::Euclidean);
        engine.tuning = Tuning { chunk: 128, room: 40, seed_rows: 1, pairs_max: 1 << 17, slots: 256 };
        // All equal, so nothing can be dropped; each visit has a query that has seen nothing, for which all of its
        // queries get seeds.
        let (queries, references) = (block(0, 4, vec![1.0; 24 * 4]), block(0, 4, vec![1.0; 2500 * 4]));
        let part = &cut(&references, 2500)[0];
        let visits: Vec<Visit> = (0..5)
            .map(|i| Visit {
                rows: i * 500..(i + 1) * 500,
                queries: VisitQueries::List((0..20).filter(|q| *q != 19 - i).chain([20 + i.min(3)]).collect()),
            })
            .collect();
        engine.begin(&queries, k(3), &Exclude::Nothing).expect("begin");
        engine.visit(part, &visits).expect("visit");
        let found = engine.finish().expect("finish");
        assert!((1..=24).contains(&engine.overflows()), "{} of 24 queries overflowed", engine.overflows());
        for query in 0..24 {
            let first = visits.iter().find_map(|visit| match &visit.queries {
                VisitQueries::List(list) if list.contains(&query) => Some(u64::from(visit.rows.start)),
                _ => None,
            });
            let first = first.expect("a visit of every query");
            let row = found.row(usize::try_from(query).expect("few"));
            assert_eq!(row.0, (first..first + 3).collect::<Vec<u64>>(), "query {query}");
        }
    }
}

/// Every shader of every variant, metric and kind of dimension, expanded.
pub(super) fn every_shader() -> impl Iterator<Item = (String, Variant, String)> {
    let cases = VARIANTS.into_iter().flat_map(|v| Metric::ALL.into_iter().map(move |m| (v, m)));
    cases.flat_map(|(variant, metric)| {
        let dims = [1, 3, 10, 16, 28, 50, 100, 128, 784, 2048].into_iter();
        dims.flat_map(move |dim| {
            // One k for each shape of a merge.
            let sources = [1, 50, 100, 256]
                .into_iter()
                .flat_map(move |k_of| programs::sources(metric, dim, programs::MergeShape::of(k(k_of)), &variant));
            sources.map(move |(file, label, words)| {
                let what = format!("{label} ({file}), {}, {metric}, {dim} dimensions", variant.name);
                (what, variant, templates::expand(file, &words).expect("an expansion"))
            })
        })
    })
}

#[test]
fn every_shader_is_valid_with_what_its_variant_declares() {
    let mut seen = std::collections::HashSet::new();
    let mut wrong = std::collections::BTreeMap::new();
    for (what, variant, source) in every_shader() {
        if !seen.insert(source.clone()) {
            continue;
        }
        let capabilities = if variant.is_cooperative() {
            Capabilities::SHADER_FLOAT16
                | Capabilities::COOPERATIVE_MATRIX
                | Capabilities::SUBGROUP
                | Capabilities::SUBGROUP_BARRIER
        } else {
            Capabilities::empty()
        };
        if let Err(why) = validate(&source, capabilities) {
            wrong.entry(why).or_insert(what);
        }
    }
    for (why, what) in &wrong {
        eprintln!("{what}: {why}");
    }
    assert!(wrong.is_empty(), "{} shaders are not valid", wrong.len());
    assert!(seen.len() > 50, "{} different shaders", seen.len());
}

fn validate(source: &str, capabilities: Capabilities) -> Result<naga::Module, String> {
    let module = naga::front::wgsl::parse_str(source).map_err(|why| why.emit_to_string(source))?;
    let checked = Validator::new(ValidationFlags::all(), capabilities).validate(&module);
    checked.map_err(|why| why.emit_to_string(source)).map(|_| module)
}
