//! Adapters: which there are, what they can do, and opening one. Knows nothing of search.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pollster::block_on;

use super::cards::{Shown, each_card_once, through_one_backend};
use super::variant::Variant;
use crate::error::EngineError;

/// What kind of processor an adapter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdapterKind {
    /// A card with its own memory.
    Discrete,
    /// Shares the memory of the machine.
    Integrated,
    /// A share of a card, in a virtual machine.
    Virtual,
    /// Not told.
    Other,
    /// A program on the CPU (lavapipe, WARP): for tests.
    Software,
}

/// One adapter.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// As its driver calls it.
    pub name: String,
    /// vulkan, metal, dx12.
    pub backend: String,
    /// What kind.
    pub kind: AdapterKind,
    /// Driver and its version.
    pub driver: String,
    /// Where it is on the PCI bus; empty where the driver does not say.
    pub bus_id: String,
    /// The largest buffer, bytes.
    pub buffer_bytes_max: u64,
    /// The largest part of a buffer that a shader sees, bytes.
    pub binding_bytes_max: u64,
    /// Memory that a workgroup shares, bytes.
    pub workgroup_bytes: u64,
    /// Invocations of a workgroup.
    pub workgroup_invocations: u32,
    /// Optional features that a variant could use.
    pub features: Vec<&'static str>,
    /// Invocations of a subgroup: least and most.
    pub subgroup_invocations: (u32, u32),
    handle: wgpu::Adapter,
}

/// Which adapter is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdapterChoice {
    /// The first that is no software, through its better driver.
    Best,
    /// By its number in [`adapters`].
    Number(usize),
    /// By a part of its name, in either case.
    Named(String),
    /// All that are no software, each once.
    All,
}

/// An opened adapter.
#[derive(Debug)]
pub(super) struct Device {
    pub gpu: wgpu::Device,
    pub queue: wgpu::Queue,
    pub adapter: Adapter,
    /// Whether buffers of shaders can be written by the host.
    pub is_mappable: bool,
    lost: Arc<AtomicBool>,
    /// The first error that nobody asked about, which would be the end of the process otherwise.
    unasked: Arc<Mutex<Option<wgpu::Error>>>,
    /// How many of the next allocations are refused, to see what happens then.
    #[cfg(test)]
    pub refusals: std::sync::atomic::AtomicU32,
    /// How many allocations before those are not refused.
    #[cfg(test)]
    pub spared: std::sync::atomic::AtomicU32,
}

const FEATURES: [(wgpu::Features, &str); 4] = [
    (wgpu::Features::SHADER_F16, "f16"),
    (wgpu::Features::SUBGROUP, "subgroups"),
    (wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, "cooperative matrices"),
    (wgpu::Features::MAPPABLE_PRIMARY_BUFFERS, "mappable buffers"),
];

/// All adapters of this machine, the most capable kind first; none where there is no driver.
#[must_use]
pub fn adapters() -> Vec<Adapter> {
    let instance = wgpu::Instance::default();
    let backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let mut found: Vec<Adapter> = block_on(instance.enumerate_adapters(backends)).into_iter().map(describe).collect();
    // The same card may be there through two backends: the order is stable, and Vulkan comes first.
    found.sort_by_key(|adapter| adapter.kind);
    found
}

fn describe(handle: wgpu::Adapter) -> Adapter {
    let (info, limits, has) = (handle.get_info(), handle.limits(), handle.features());
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
        wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
        wgpu::DeviceType::Cpu => AdapterKind::Software,
        wgpu::DeviceType::Other => AdapterKind::Other,
    };
    Adapter {
        name: info.name,
        backend: info.backend.to_str().to_owned(),
        kind,
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        bus_id: info.device_pci_bus_id,
        buffer_bytes_max: limits.max_buffer_size,
        binding_bytes_max: limits.max_storage_buffer_binding_size,
        workgroup_bytes: u64::from(limits.max_compute_workgroup_storage_size),
        subgroup_invocations: (info.subgroup_min_size, info.subgroup_max_size),
        workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        features: FEATURES.iter().filter(|(flag, _)| has.contains(*flag)).map(|(_, name)| *name).collect(),
        handle,
    }
}

/// The adapters of a choice: one, or several for [`AdapterChoice::All`].
///
/// # Errors
/// [`EngineError::Adapter`] when there is none such.
pub fn choose(choice: &AdapterChoice) -> Result<Vec<Adapter>, EngineError> {
    let all = adapters();
    let known = match all.len() {
        0 => "none: no Vulkan, Metal or DX12 driver was found".to_owned(),
        _ => all
            .iter()
            .enumerate()
            .map(|(i, a)| format!("gpu:{i} {} ({})", a.name, a.backend))
            .collect::<Vec<_>>()
            .join(", "),
    };
    let (found, asked) = match choice {
        AdapterChoice::Best => (real(&all, each_card_once).into_iter().take(1).collect(), "a GPU".to_owned()),
        AdapterChoice::Number(n) => (all.get(*n).cloned().into_iter().collect(), format!("gpu:{n}")),
        AdapterChoice::Named(part) => {
            let part = part.to_lowercase();
            let named = all.iter().find(|a| a.name.to_lowercase().contains(&part));
            (named.cloned().into_iter().collect(), format!("an adapter named `{part}`"))
        }
        AdapterChoice::All => (real(&all, through_one_backend), "a GPU".to_owned()),
    };
    if found.is_empty() { Err(EngineError::Adapter { asked, known }) } else { Ok(found) }
}

/// Those that are no software and that `keep` keeps the places of.
fn real(all: &[Adapter], keep: fn(&[Shown<'_>]) -> Vec<usize>) -> Vec<Adapter> {
    let real: Vec<&Adapter> = all.iter().filter(|adapter| !adapter.is_software()).collect();
    let shown: Vec<Shown<'_>> = real
        .iter()
        .map(|adapter| Shown {
            backend: &adapter.backend,
            bus_id: &adapter.bus_id,
            worth: (Variant::of(adapter).len(), adapter.features.len()),
        })
        .collect();
    let places = keep(&shown);
    places.into_iter().map(|place| real[place].clone()).collect()
}

impl Adapter {
    /// Whether it is a program on the CPU.
    #[must_use]
    pub fn is_software(&self) -> bool {
        self.kind == AdapterKind::Software
    }

    /// Opens it with what a variant needs.
    pub(super) fn open(&self, variant: &Variant) -> Result<Device, EngineError> {
        self.open_with(variant.features(), super::passes::experimental(variant))
    }

    /// Opens it with these features.
    pub(super) fn open_with(
        &self,
        required_features: wgpu::Features,
        experimental_features: wgpu::ExperimentalFeatures,
    ) -> Result<Device, EngineError> {
        // Where host and device share their memory, rows are written where they will be read.
        let is_shared = matches!(self.kind, AdapterKind::Integrated | AdapterKind::Software);
        let mappable = wgpu::Features::MAPPABLE_PRIMARY_BUFFERS & self.handle.features();
        let is_mappable = is_shared && !mappable.is_empty();
        let required_features = if is_mappable { required_features | mappable } else { required_features };
        let failed = |why: String| EngineError::Gpu { adapter: self.name.clone(), what: "opening it", why };
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("atlasknn"),
            required_features,
            required_limits: self.handle.limits(),
            experimental_features,
            memory_hints: wgpu::MemoryHints::Performance,
            trace: wgpu::Trace::Off,
        };
        let (device, queue) = block_on(self.handle.request_device(&descriptor)).map_err(|e| failed(e.to_string()))?;
        let lost = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&lost);
        device.set_device_lost_callback(move |_, _| flag.store(true, Ordering::Release));
        let unasked = Arc::new(Mutex::new(None));
        let first = Arc::clone(&unasked);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }));
        Ok(Device {
            gpu: device,
            queue,
            adapter: self.clone(),
            is_mappable,
            lost,
            unasked,
            #[cfg(test)]
            refusals: std::sync::atomic::AtomicU32::new(0),
            #[cfg(test)]
            spared: std::sync::atomic::AtomicU32::new(0),
        })
    }

    /// Whether it multiplies matrices of this side, f16 into f32, with subgroups as the tile takes them for granted.
    fn has_matrices(&self, side: u32) -> bool {
        let fits = |of: &wgpu::CooperativeMatrixProperties| {
            (of.m_size, of.n_size, of.k_size) == (side, side, side)
                && of.ab_type == wgpu::CooperativeScalarType::F16
                && of.cr_type == wgpu::CooperativeScalarType::F32
        };
        // Metal tells 4 to 64 of every device; those with matrices have 32.
        let has_subgroups = self.subgroup_invocations == (SUBGROUP, SUBGROUP) || self.backend == "metal";
        has_subgroups && self.handle.cooperative_matrix_properties().iter().any(fits)
    }

    /// Whether it has what a variant needs.
    pub(super) fn runs(&self, variant: &Variant) -> bool {
        self.handle.features().contains(variant.features())
            && variant.workgroup_bytes() <= self.workgroup_bytes
            && variant.matrix.is_none_or(|side| self.has_matrices(side))
    }
}

/// Invocations of a subgroup, which `tile_half.wgsl` takes for granted.
const SUBGROUP: u32 = 32;

impl Device {
    /// Whether the driver has given it up.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// An error of this adapter.
    pub fn error(&self, what: &'static str, why: impl std::fmt::Display) -> EngineError {
        // A loss is told when the device is done with what it had, and what fails because of it may come first.
        let _ = self.gpu.poll(wgpu::PollType::wait_indefinitely());
        if self.is_lost() {
            return EngineError::DeviceLost { adapter: self.adapter.name.clone() };
        }
        EngineError::Gpu { adapter: self.adapter.name.clone(), what, why: why.to_string() }
    }

    /// Waits until everything submitted is done.
    pub fn wait(&self) -> Result<(), EngineError> {
        self.wait_for(None)
    }

    /// Waits until a submission is done.
    pub fn wait_for(&self, submission_index: Option<wgpu::SubmissionIndex>) -> Result<(), EngineError> {
        match self.gpu.poll(wgpu::PollType::Wait { submission_index, timeout: None }) {
            Ok(_) if self.is_lost() => Err(self.error("waiting", "the device was lost")),
            Ok(_) => match self.unasked.lock().unwrap_or_else(PoisonError::into_inner).take() {
                Some(wgpu::Error::OutOfMemory { .. }) => {
                    Err(EngineError::DeviceMemory { adapter: self.adapter.name.clone(), what: "computing" })
                }
                Some(why) => Err(self.error("computing", why)),
                None => Ok(()),
            },
            Err(why) => Err(self.error("waiting", why)),
        }
    }

    /// A small buffer with these bytes. Not mapped to be written: that panics where the device is lost.
    pub fn filled(&self, label: &'static str, bytes: &[u8], usage: wgpu::BufferUsages) -> wgpu::Buffer {
        let buffer = self.gpu.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: (bytes.len().max(16) as u64).next_multiple_of(16),
            usage: usage | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.queue.write_buffer(&buffer, 0, bytes);
        buffer
    }

    /// A storage buffer with these values, one part after the other.
    pub fn filled_from(&self, label: &'static str, parts: &[&[u32]]) -> wgpu::Buffer {
        let values: usize = parts.iter().map(|part| part.len()).sum();
        let buffer = self.gpu.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: (4 * values.max(4) as u64).next_multiple_of(16),
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        // Memory that is written from is made anew for every call: one call for all parts. None where the device is lost.
        let bytes = std::num::NonZero::new(4 * values as u64);
        let view = bytes.and_then(|bytes| self.queue.write_buffer_with(&buffer, 0, bytes));
        if let Some(mut view) = view {
            let mut at = 0;
            for part in parts {
                let bytes: &[u8] = bytemuck::cast_slice(part);
                view.slice(at..at + bytes.len()).copy_from_slice(bytes);
                at += bytes.len();
            }
        }
        buffer
    }

    /// Runs what may run out of memory or be refused.
    pub fn checked<T>(&self, what: &'static str, work: impl FnOnce(&wgpu::Device) -> T) -> Result<T, EngineError> {
        #[cfg(test)]
        let one_less = |of: &std::sync::atomic::AtomicU32| {
            of.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
        };
        #[cfg(test)]
        if !one_less(&self.spared) && one_less(&self.refusals) {
            return Err(EngineError::DeviceMemory { adapter: self.adapter.name.clone(), what });
        }
        let memory = self.gpu.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.gpu.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = self.gpu.push_error_scope(wgpu::ErrorFilter::Internal);
        let done = work(&self.gpu);
        for scope in [internal, validation] {
            if let Some(why) = block_on(scope.pop()) {
                return Err(self.error(what, why));
            }
        }
        match block_on(memory.pop()) {
            Some(_) => Err(EngineError::DeviceMemory { adapter: self.adapter.name.clone(), what }),
            None => Ok(done),
        }
    }
}
