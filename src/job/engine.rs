//! The engine of a job: chosen, opened, opened again, named.

use std::sync::Arc;

use super::manifest::EngineRecord;
use super::request::{DeviceChoice, DeviceRequest, SearchRequest};
use super::run::{Run, processor_name};
use super::variants::{self, driver};
use crate::engine::Engine;
use crate::engine::cpu::{CpuConfig, CpuEngine};
use crate::engine::gpu::{Adapter, AdapterChoice, DEFAULT_MEMORY, GpuConfig, GpuEngine, Variant, choose};
use crate::engine::hnsw::{self, GraphCounts, HnswConfig};
use crate::engine::several::Several;
use crate::error::{EngineError, Error, JobError};
use crate::metric::Metric;
use crate::units::K;

/// A search that the CPU does in less than this is over before a GPU is ready.
const WORTH_A_GPU_SECONDS: f64 = 2.0;
/// What a GPU takes before it begins: opening it and compiling.
const READY_SECONDS: f64 = 1.0;

/// An engine and who it is.
pub struct Opened {
    /// What searches.
    pub engine: Box<dyn Engine>,
    /// Its name in the manifest.
    pub record: EngineRecord,
    /// Opens it again after its device was lost; `None` where nothing can be lost.
    pub reopen: Option<Reopen>,
}

/// See [`Opened::reopen`].
pub type Reopen = Box<dyn Fn() -> Result<Box<dyn Engine>, EngineError> + Send>;

/// What is searched, for the choice between CPU and GPU.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// The metric.
    pub metric: Metric,
    /// Dimensions.
    pub dim: usize,
    /// Neighbours.
    pub k: K,
    /// Pairs.
    pub pairs: f64,
}

impl Opened {
    /// What the request asks for. `auto` is a GPU that is no software where the CPU would take long and the GPU less, else
    /// the CPU.
    ///
    /// # Errors
    /// An adapter or variant that is not there, or whatever its driver refuses.
    pub fn new(request: &DeviceRequest, subject: Subject, run: &Run<'_>) -> Result<Self, Error> {
        let choice = match &request.choice {
            DeviceChoice::Cpu => return Self::cpu(subject.metric, run),
            DeviceChoice::Auto => return Self::auto(request, subject, run),
            DeviceChoice::Gpu => AdapterChoice::Best,
            DeviceChoice::AllGpus => AdapterChoice::All,
            DeviceChoice::Number(n) => AdapterChoice::Number(*n),
            DeviceChoice::Named(part) => AdapterChoice::Named(part.clone()),
        };
        Ok(Self::gpu(choice, request, subject.metric, run)?)
    }

    fn auto(request: &DeviceRequest, subject: Subject, run: &Run<'_>) -> Result<Self, Error> {
        let cpu = Self::cpu(subject.metric, run)?;
        let seconds = |opened: &Self| subject.pairs / opened.engine.limits(subject.dim, subject.k).pairs_per_second;
        if seconds(&cpu) <= WORTH_A_GPU_SECONDS || choose(&AdapterChoice::Best).is_err() {
            return Ok(cpu);
        }
        match Self::gpu(AdapterChoice::Best, request, subject.metric, run) {
            Ok(gpu) if seconds(&gpu) + READY_SECONDS < seconds(&cpu) => Ok(gpu),
            Ok(gpu) => {
                run.observer.note(&format!("the CPU searches: {} would take longer", gpu.record.adapter));
                Ok(cpu)
            }
            Err(error) => {
                run.observer.note(&format!("the GPU cannot be used, so the CPU searches: {error}"));
                Ok(cpu)
            }
        }
    }

    /// The CPU.
    ///
    /// # Errors
    /// An instruction set that is forced and not there.
    pub fn cpu(metric: Metric, run: &Run<'_>) -> Result<Self, Error> {
        let engine = CpuEngine::new(CpuConfig { metric, pool: Arc::clone(&run.pool), simd: None })?;
        let record = EngineRecord {
            device: "cpu".to_owned(),
            adapter: processor_name(),
            driver: String::new(),
            variant: engine.simd().to_owned(),
        };
        Ok(Self { engine: Box::new(engine), record, reopen: None })
    }

    /// A graph of the reference, on the CPU.
    ///
    /// # Errors
    /// A device, metric or options that no graph can be made with.
    pub fn graph(request: &SearchRequest, counts: &Arc<GraphCounts>, run: &Run<'_>) -> Result<Self, Error> {
        let metric = request.metric;
        let refused = |error: EngineError| JobError::Refused(error.to_string());
        if request.device.choice.is_gpu() {
            let message = "--method hnsw runs on the CPU only; leave out --device, or use --method ivf";
            return Err(JobError::Refused(message.to_owned()).into());
        }
        hnsw::check_metric(metric).map_err(refused)?;
        let config = HnswConfig {
            metric,
            pool: Arc::clone(&run.pool),
            options: request.how.graph.check().map_err(refused)?,
            exact_rows: hnsw::EXACT_ROWS,
            stop: run.stop.flag(),
            counts: Arc::clone(counts),
        };
        let record = EngineRecord {
            device: "cpu".to_owned(),
            adapter: processor_name(),
            driver: String::new(),
            variant: "hnsw".to_owned(),
        };
        Ok(Self { engine: hnsw::open(config).map_err(refused)?, record, reopen: None })
    }

    fn gpu(choice: AdapterChoice, request: &DeviceRequest, metric: Metric, run: &Run<'_>) -> Result<Self, EngineError> {
        let configs = choose(&choice)?
            .into_iter()
            .map(|adapter| config(adapter, request, metric, run))
            .collect::<Result<Vec<_>, _>>()?;
        if configs.len() > 1 {
            run.observer.note(&format!("{} adapters share the queries", configs.len()));
            warn_of_slow(&configs, run);
        }
        let engines = configs.iter().map(|config| GpuEngine::new(config.clone())).collect::<Result<Vec<_>, _>>()?;
        let record = EngineRecord {
            device: "gpu".to_owned(),
            adapter: each_once(engines.iter().map(|engine| engine.adapter().name.clone())),
            driver: each_once(engines.iter().map(|engine| driver(engine.adapter()))),
            variant: each_once(engines.iter().map(|engine| engine.variant().to_owned())),
        };
        let pool = Arc::clone(&run.pool);
        let reopen = move || open_again(&configs, &choice, &pool);
        Ok(Self { engine: together(engines, &run.pool), record, reopen: Some(Box::new(reopen)) })
    }
}

/// What an adapter is opened with: the variant that was asked for, or the fastest that is known to be right.
fn config(adapter: Adapter, request: &DeviceRequest, metric: Metric, run: &Run<'_>) -> Result<GpuConfig, EngineError> {
    let mut config = GpuConfig {
        metric,
        pool: Arc::clone(&run.pool),
        variant: request.variant.clone(),
        memory: request.memory.unwrap_or(DEFAULT_MEMORY),
        pairs_per_second: None,
        adapter,
    };
    if let Some(name) = &config.variant {
        Variant::named(name, &config.adapter)?;
    }
    // In software nothing is fast, and trying would take longer than most searches.
    if config.adapter.is_software() {
        return Ok(config);
    }
    let trials = variants::of(&config.adapter, &run.pool, &|message| run.observer.note(message))?;
    let taken = match &config.variant {
        Some(name) => trials.iter().find(|trial| trial.variant == name),
        None => variants::best(&trials),
    };
    match taken {
        Some(trial) if trial.pairs_per_second.is_some() => {
            config.variant = Some(trial.variant.to_owned());
            config.pairs_per_second = trial.pairs_per_second;
            Ok(config)
        }
        _ => Err(EngineError::Unsound {
            variant: config.variant.map_or_else(|| "every variant".to_owned(), |name| format!("variant {name}")),
            adapter: config.adapter.name,
        }),
    }
}

/// The queries are shared evenly, so a slow adapter can make all of them slower than the fastest alone.
fn warn_of_slow(configs: &[GpuConfig], run: &Run<'_>) {
    let rate = |config: &&GpuConfig| config.pairs_per_second.unwrap_or(0.0);
    let by_rate = |a: &&GpuConfig, b: &&GpuConfig| rate(a).total_cmp(&rate(b));
    if let (Some(slow), Some(fast)) = (configs.iter().min_by(by_rate), configs.iter().max_by(by_rate))
        && rate(&slow) * (configs.len() as f64) < rate(&fast)
    {
        run.observer.warn(&format!(
            "all wait for {}: {} alone would be faster; choose it with --device",
            slow.adapter.name, fast.adapter.name
        ));
    }
}

/// Different names in their order, with a plus between.
fn each_once(names: impl Iterator<Item = String>) -> String {
    let mut all: Vec<String> = Vec::new();
    for name in names {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all.join(" + ")
}

/// One engine as it is, several as one.
fn together(mut engines: Vec<GpuEngine>, pool: &Arc<rayon::ThreadPool>) -> Box<dyn Engine> {
    match engines.pop() {
        Some(only) if engines.is_empty() => Box::new(only),
        last => {
            let all = engines.into_iter().chain(last).map(|engine| Box::new(engine) as Box<dyn Engine>);
            Box::new(Several::new(all.collect(), Arc::clone(pool)))
        }
    }
}

/// The handle of a lost device may be as lost as the device, so the adapters are looked for again.
fn open_again(
    configs: &[GpuConfig],
    choice: &AdapterChoice,
    pool: &Arc<rayon::ThreadPool>,
) -> Result<Box<dyn Engine>, EngineError> {
    let found = choose(choice)?;
    let same = |(adapter, config): (&Adapter, &GpuConfig)| {
        (&adapter.name, driver(adapter)) == (&config.adapter.name, driver(&config.adapter))
    };
    if found.len() != configs.len() || !found.iter().zip(configs).all(same) {
        let adapter = each_once(configs.iter().map(|config| config.adapter.name.clone()));
        return Err(EngineError::DeviceLost { adapter });
    }
    let open = |(adapter, config): (Adapter, &GpuConfig)| GpuEngine::new(GpuConfig { adapter, ..config.clone() });
    Ok(together(found.into_iter().zip(configs).map(open).collect::<Result<_, _>>()?, pool))
}
