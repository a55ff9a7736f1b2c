//! The engine on whatever adapter is there; in CI that is a software one.

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
