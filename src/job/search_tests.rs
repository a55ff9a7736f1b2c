//! Claims about a search whose device is lost for good.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use super::*;
use crate::block::RowBlock;
use crate::engine::{EngineLimits, Exclude, Horizon, Partition};
use crate::job::manifest::Manifest;
use crate::job::request::{DeviceChoice, DeviceRequest, How, RunOptions, SearchRequest, Within};
use crate::metric::Metric;
use crate::schedule::progress::{Silent, Stop};
use crate::topk::TopK;
use crate::visit::Visit;

/// Loses its device at every visit but so many, which those that are opened in its place share.
struct Lost(Box<dyn Engine>, Arc<AtomicU32>);

impl Engine for Lost {
    fn limits(&self, dim: usize, k: K) -> EngineLimits {
        self.0.limits(dim, k)
    }
    fn begin(&mut self, queries: &RowBlock, k: K, exclude: &Exclude) -> Result<(), EngineError> {
        self.0.begin(queries, k, exclude)
    }
    fn visit(&mut self, part: &Arc<Partition>, visits: &[Visit]) -> Result<(), EngineError> {
        let left = self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        let lost = |_| EngineError::DeviceLost { adapter: "A card".to_owned() };
        left.map_err(lost).and_then(|_| self.0.visit(part, visits))
    }
    fn nearest(
        &mut self,
        part: &Arc<Partition>,
        k: K,
        horizon: Option<Horizon>,
        at_a_time: usize,
    ) -> Result<Vec<u32>, EngineError> {
        self.0.nearest(part, k, horizon, at_a_time)
    }
    fn bounds(&mut self) -> Result<Vec<f32>, EngineError> {
        self.0.bounds()
    }
    fn finish(&mut self) -> Result<TopK, EngineError> {
        self.0.finish()
    }
    fn snapshot(&mut self) -> Result<TopK, EngineError> {
        self.0.snapshot()
    }
    fn restore(&mut self, top: &TopK) -> Result<(), EngineError> {
        self.0.restore(top)
    }
}

/// A card that finds what the CPU does, and is lost for good after so many visits.
pub fn lost_after(visits: u32, cpu: &EngineRecord) -> Opened {
    let left = Arc::new(AtomicU32::new(visits));
    let open = move || -> Box<dyn Engine> {
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap());
        let config = crate::engine::cpu::CpuConfig { metric: Metric::Euclidean, pool, simd: None };
        Box::new(Lost(Box::new(crate::engine::cpu::CpuEngine::new(config).unwrap()), Arc::clone(&left)))
    };
    let record = EngineRecord { device: "gpu".to_owned(), adapter: "A card".to_owned(), ..cpu.clone() };
    Opened { engine: open(), record, reopen: Some(Box::new(move || Ok(open()))) }
}

fn request(out: &Path) -> SearchRequest {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data");
    SearchRequest {
        query: data.join("pbmc_query.zarr"),
        reference: Some(data.join("pbmc_reference.zarr")),
        out: out.to_owned(),
        rep: "X_pca".to_owned(),
        reference_rep: None,
        k: K::new(5).unwrap(),
        metric: Metric::Euclidean,
        exclude_group: None,
        compat: false,
        how: How::default(),
        device: DeviceRequest { choice: DeviceChoice::Cpu, ..DeviceRequest::default() },
        within: Within::default(),
        run: RunOptions::default(),
    }
}

#[test]
fn the_cpu_goes_on_where_a_device_is_lost_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let request = request(&dir.path().join("out"));
    let stop = Stop::new();
    let run = Run::begin(&request.within, &Silent, &stop).unwrap();
    let mut planned = Planned::new(&request, None, &run).unwrap();
    let cpu = planned.opened.record.clone();
    planned.opened = lost_after(0, &cpu);
    let manifest = Manifest {
        format: crate::job::manifest::FORMAT,
        version: "0".to_owned(),
        command: "search".to_owned(),
        parameters: planned.parameters().unwrap(),
        inputs: json!({}),
        rows: 200,
        reference_rows: 500,
        k: 5,
        units: std::collections::BTreeMap::new(),
        recall: None,
        finished: false,
    };
    let output = Output::begin(&request.out, manifest, &request.run, &run.io).unwrap();
    let done = planned.run(&output, &run).unwrap();
    assert_eq!((done.units, done.pairs), ((1, 0), 100_000));
    assert_eq!(output.done(STAGE).unwrap()[&0].engines, [cpu]);
    let message = planned.lost.unwrap();
    assert!(message.contains("A card was lost") && message.contains("the CPU goes on"), "{message}");
}

const U: u64 = UNIT_ROWS;

#[test]
fn only_a_checkpoint_of_units_that_are_to_do_is_gone_on_with() {
    let k = K::new(1).unwrap();
    for (rows, todo, expected) in [
        (0..10, vec![0], true),
        (U..2 * U + 5, vec![0, 1, 2], true),
        (U..2 * U, vec![1], true),
        (0..10, vec![1], false),
        // The marker of the first unit was lost after both had been finished.
        (U..2 * U + 5, vec![1], false),
        (U..2 * U + 5, vec![1, 3], false),
        (5..10, vec![0], false),
        (0..0, vec![0], false),
        (0..4 * U + 1, vec![0, 1, 2, 3, 4], false),
    ] {
        let top = TopK::empty(usize::try_from(rows.end - rows.start).unwrap(), k);
        let saved = Checkpoint { complete_to: rows.start, rows: rows.clone(), round: 0, references_done: 1, top };
        assert_eq!(goes_on(&saved, &todo, 4 * U, k), expected, "{rows:?} of {todo:?}");
    }
    let saved = Checkpoint { rows: 0..1, complete_to: 0, round: 0, references_done: 1, top: TopK::empty(1, k) };
    assert!(!goes_on(&saved, &[0], 1, K::new(2).unwrap()), "another k");
}
