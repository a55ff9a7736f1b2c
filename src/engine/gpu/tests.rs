//! The engine on whatever adapter is there; in CI that is a software one.

use naga::valid::{Capabilities, ValidationFlags, Validator};

use super::*;
use crate::engine::conformance::{Subject, claims};

fn pool() -> Arc<rayon::ThreadPool> {
    Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("a pool"))
}

fn engine(metric: Metric) -> GpuEngine {
    let adapter = adapters().into_iter().next().expect("an adapter: install mesa-vulkan-drivers");
    let config = GpuConfig { metric, pool: pool(), adapter, variant: None, memory: DEFAULT_MEMORY };
    GpuEngine::new(config).expect("an engine")
}

fn subject() -> Subject<'static> {
    Subject { make: &|metric| Box::new(engine(metric)), kind: EngineKind::Gpu }
}

claims!(subject());

/// Every shader of every variant, metric and kind of dimension, expanded.
fn every_shader() -> impl Iterator<Item = (String, Variant, String)> {
    let cases = VARIANTS.into_iter().flat_map(|v| Metric::ALL.into_iter().map(move |m| (v, m)));
    cases.flat_map(|(variant, metric)| {
        let dims = [1, 3, 10, 16, 28, 50, 100, 128, 784, 2048].into_iter();
        dims.flat_map(move |dim| {
            let sources = programs::sources(metric, dim, &variant).into_iter();
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
            Capabilities::SHADER_FLOAT16 | Capabilities::COOPERATIVE_MATRIX | Capabilities::SUBGROUP
                | Capabilities::SUBGROUP_BARRIER
        } else {
            Capabilities::empty()
        };
        if let Err(why) = validate(&source, capabilities) {
            wrong.entry(why).or_insert(what);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.iter().map(|(why, what)| format!("{what}: {why}\n")).collect::<String>());
    assert!(seen.len() > 50, "{} different shaders", seen.len());
}

fn validate(source: &str, capabilities: Capabilities) -> Result<naga::Module, String> {
    let module = naga::front::wgsl::parse_str(source).map_err(|why| why.emit_to_string(source))?;
    let checked = Validator::new(ValidationFlags::all(), capabilities).validate(&module);
    checked.map_err(|why| why.emit_to_string(source)).map(|_| module)
}
