//! The engine of a job: chosen, opened, opened again, named.

use std::sync::Arc;

use super::manifest::EngineRecord;
use super::request::{DeviceChoice, DeviceRequest};
use super::run::{Run, processor_name};
use crate::engine::Engine;
use crate::engine::cpu::{CpuConfig, CpuEngine};
use crate::engine::gpu::{Adapter, AdapterChoice, DEFAULT_MEMORY, GpuConfig, GpuEngine, choose};
use crate::error::{EngineError, Error};
use crate::metric::Metric;
use crate::units::K;

/// A search that the CPU does in less than this is over before a GPU is ready.
const WORTH_A_GPU_SECONDS: f64 = 2.0;

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
    /// What the request asks for. `auto` is a GPU that is no software where the CPU would take long, else the CPU.
    ///
    /// # Errors
    /// An adapter or variant that is not there, or whatever its driver refuses.
    pub fn new(request: &DeviceRequest, subject: Subject, run: &Run<'_>) -> Result<Self, Error> {
        let choice = match &request.choice {
            DeviceChoice::Cpu => return Self::cpu(subject.metric, run),
            DeviceChoice::Auto => return Self::auto(request, subject, run),
            DeviceChoice::Gpu => AdapterChoice::Best,
            DeviceChoice::Number(n) => AdapterChoice::Number(*n),
            DeviceChoice::Named(part) => AdapterChoice::Named(part.clone()),
        };
        let adapter = choose(&choice)?;
        Ok(Self::gpu(adapter, choice, request, subject.metric, run)?)
    }

    fn auto(request: &DeviceRequest, subject: Subject, run: &Run<'_>) -> Result<Self, Error> {
        let cpu = Self::cpu(subject.metric, run)?;
        let rate = cpu.engine.limits(subject.dim, subject.k).pairs_per_second;
        if subject.pairs / rate <= WORTH_A_GPU_SECONDS {
            return Ok(cpu);
        }
        let Ok(adapter) = choose(&AdapterChoice::Best) else { return Ok(cpu) };
        match Self::gpu(adapter, AdapterChoice::Best, request, subject.metric, run) {
            Ok(gpu) => Ok(gpu),
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

    fn gpu(
        adapter: Adapter,
        choice: AdapterChoice,
        request: &DeviceRequest,
        metric: Metric,
        run: &Run<'_>,
    ) -> Result<Self, EngineError> {
        let memory = request.memory.unwrap_or(DEFAULT_MEMORY);
        let config =
            GpuConfig { metric, pool: Arc::clone(&run.pool), adapter, variant: request.variant.clone(), memory };
        let engine = GpuEngine::new(config.clone())?;
        let record = EngineRecord {
            device: "gpu".to_owned(),
            adapter: engine.adapter().name.clone(),
            driver: driver(engine.adapter()),
            variant: engine.variant().to_owned(),
        };
        let reopen = move || open_again(&config, &choice);
        Ok(Self { engine: Box::new(engine), record, reopen: Some(Box::new(reopen)) })
    }
}

/// Backend and driver: what besides the adapter decides about the last bits.
fn driver(adapter: &Adapter) -> String {
    format!("{} {}", adapter.backend, adapter.driver).trim().to_owned()
}

/// The handle of a lost device may be as lost as the device, so the adapter is looked for again.
fn open_again(config: &GpuConfig, choice: &AdapterChoice) -> Result<Box<dyn Engine>, EngineError> {
    let adapter = choose(choice)?;
    if (&adapter.name, driver(&adapter)) != (&config.adapter.name, driver(&config.adapter)) {
        return Err(EngineError::DeviceLost { adapter: config.adapter.name.clone() });
    }
    Ok(Box::new(GpuEngine::new(GpuConfig { adapter, ..config.clone() })?))
}
