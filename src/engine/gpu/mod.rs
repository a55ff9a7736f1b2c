//! The GPU engine: exact search in WGSL on any adapter. Queries and their top-k stay on the device from `begin` to
//! `finish`; only partitions stream, and the least recently used make room for new ones.
//!
//! A visit seeds each query's top-k with exact distances to some rows, then goes over all tiles in steps that double what
//! was seen: a `tile` pass lets few pairs through a filter that never loses a neighbour, a `merge` pass gives those their
//! exact distances. Queries whose survivors did not fit are noted on the device and searched again, without the filter,
//! before anything else is asked. See `shaders/README.md`.

mod cards;
mod codes;
mod device;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod filter_tests;
#[cfg(test)]
mod half_tests;
#[cfg(test)]
mod layout_tests;
mod memory;
mod near;
mod params;
mod passes;
mod programs;
mod queries;
mod resident;
mod rows;
mod search;
mod sorted;
mod space;
mod steps;
mod templates;
#[cfg(test)]
pub(crate) mod tests;
mod together;
pub mod trial;
mod turns;
mod variant;

use std::sync::{Arc, Mutex};

pub use self::device::{Adapter, AdapterChoice, AdapterKind, adapters, choose};
use self::programs::{Library, MergeShape, Programs};
use self::queries::Queries;
use self::resident::{Packing, Resident, Residents, Stored};
use self::rows::Rows;
use self::search::{Objects, Search, Workshop};
use self::sorted::Unsettled;
use self::space::Space;
pub use self::templates::shaders_checksum;
use self::together::Run;
pub use self::variant::{VARIANTS, Variant};
use super::visits::check_visits;
use super::{Engine, EngineLimits, Exclude, Horizon, Partition, Visit};
use crate::block::RowBlock;
use crate::engine::cpu::exact::check_rows;
use crate::error::EngineError;
use crate::metric::{EngineKind, Metric};
use crate::topk::TopK;
use crate::units::{ByteCount, K};

/// Device memory where nobody said how much: adapters do not tell.
pub const DEFAULT_MEMORY: ByteCount = ByteCount(2 << 30);

/// Pairs per second at 50 dimensions of an adapter that was never measured.
const GUESSED_RATE: f64 = 2e9;
/// Query rows that share survivor buffers.
const CHUNK: u32 = 65_536;
/// Survivors of a query between two merges: a doubling step lets about k pass, so this seldom overflows.
const ROOM: u32 = 1024;
/// Most queries of visits to few rows that are gathered at a time.
const SLOTS: u32 = 1 << 20;
/// Rows that are searched without a filter to begin with; twice k where that is more.
const SEED_ROWS: usize = 256;

/// What a GPU engine is made of.
#[derive(Clone, Debug)]
pub struct GpuConfig {
    /// The metric.
    pub metric: Metric,
    /// Where rows are prepared for upload.
    pub pool: Arc<rayon::ThreadPool>,
    /// What computes.
    pub adapter: Adapter,
    /// The variant's name; `None` for cooperative matrices where there are any, else what runs everywhere, untried.
    pub variant: Option<String>,
    /// Device memory to stay within.
    pub memory: ByteCount,
    /// What [`trial::trials`] measured of the variant, for estimates of time; a guess where there is nothing.
    pub pairs_per_second: Option<f64>,
}

/// Exact search on a GPU.
#[derive(Debug)]
pub struct GpuEngine {
    metric: Metric,
    pool: Arc<rayon::ThreadPool>,
    variant: Variant,
    shared: Arc<Library>,
    memory: u64,
    pairs_per_second: f64,
    tuning: Tuning,
    /// The passes of the queries, and their dimensions.
    programs: Option<(usize, Arc<Programs>)>,
    space: Option<(Space, wgpu::Buffer)>,
    /// The queries, and a sample of their rows that a space may be taken from.
    queries: Option<(RowBlock, Queries)>,
    workshop: Option<Workshop>,
    residents: Residents,
    /// What visits of few rows are made of on the host: kept, since fresh memory costs more than what is done in it.
    runs: Mutex<Vec<Run>>,
    /// Visits whose overflowed queries nobody has asked for yet.
    unsettled: Option<Unsettled>,
    overflows: u64,
}

/// Sizes that change how work is cut, never what is found.
#[derive(Clone, Copy, Debug)]
struct Tuning {
    chunk: u32,
    room: u32,
    seed_rows: usize,
    pairs_max: u64,
    slots: u32,
}

impl GpuEngine {
    /// Opens the adapter.
    ///
    /// # Errors
    /// [`EngineError::Variant`] for a variant that is not there or cannot run; whatever the driver refuses.
    pub fn new(config: GpuConfig) -> Result<Self, EngineError> {
        let variant = match &config.variant {
            Some(name) => Variant::named(name, &config.adapter)?,
            None => Variant::preferred(&config.adapter),
        };
        let shared = Library::new(config.adapter.open(&variant)?);
        Ok(Self::with(shared, config, variant))
    }

    /// An engine on a device that is open already.
    fn with(shared: Arc<Library>, config: GpuConfig, variant: Variant) -> Self {
        // Short enough for any watchdog, long enough that submitting costs nothing.
        let pairs_max = match config.adapter.kind {
            AdapterKind::Software => 1 << 21,
            AdapterKind::Discrete => 1 << 33,
            _ => 1 << 28,
        };
        Self {
            metric: config.metric,
            pool: config.pool,
            variant,
            shared,
            memory: config.memory.0,
            pairs_per_second: config.pairs_per_second.unwrap_or(GUESSED_RATE),
            tuning: Tuning { chunk: CHUNK, room: ROOM, seed_rows: SEED_ROWS, pairs_max, slots: SLOTS },
            programs: None,
            space: None,
            queries: None,
            workshop: None,
            residents: Residents::default(),
            runs: Mutex::default(),
            unsettled: None,
            overflows: 0,
        }
    }

    /// The adapter.
    #[must_use]
    pub fn adapter(&self) -> &Adapter {
        &self.shared.device.adapter
    }

    /// The variant in use.
    #[must_use]
    pub fn variant(&self) -> &'static str {
        self.variant.name
    }

    /// Waits until everything asked for is done, what overflowed included: for measurements.
    ///
    /// # Errors
    /// A device that failed meanwhile.
    pub fn drain(&mut self) -> Result<(), EngineError> {
        self.settle()?;
        self.shared.device.wait()
    }

    /// How many queries were searched again, because more passed the filter than there was room for.
    #[must_use]
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    /// Loses the device, as a driver does that is reset.
    #[cfg(test)]
    pub(crate) fn lose(&self) {
        self.shared.device.gpu.destroy();
    }

    /// How many partitions are on the device; those the caller dropped are gone.
    pub fn resident_partitions(&mut self) -> usize {
        self.residents.forget_dropped();
        self.residents.len()
    }

    fn begun(&self, call: &'static str) -> Result<&(RowBlock, Queries), EngineError> {
        self.queries.as_ref().ok_or(EngineError::NotBegun { call })
    }

    /// The passes for these dimensions and this k. Rows of other dimensions cannot stay.
    fn compile(&mut self, dim: usize, k: K) -> Result<(), EngineError> {
        if self.programs.as_ref().is_none_or(|(compiled, _)| *compiled != dim) {
            self.residents.clear();
            self.space = None;
        }
        self.programs = None;
        let programs = self.shared.programs(self.metric, dim, MergeShape::of(k), &self.variant)?;
        self.programs = Some((dim, programs));
        Ok(())
    }

    fn search<'a>(&'a self, part: &'a Resident, seen: u64) -> Result<Search<'a>, EngineError> {
        let not_begun = || EngineError::NotBegun { call: "visit" };
        let (_, queries) = self.begun("visit")?;
        let (_, programs) = self.programs.as_ref().ok_or_else(not_begun)?;
        self.search_of(queries, programs, part, seen)
    }

    /// A search of these queries, which the block's or others beside them may be.
    fn search_of<'a>(
        &'a self,
        queries: &'a Queries,
        programs: &'a Programs,
        part: &'a Resident,
        seen: u64,
    ) -> Result<Search<'a>, EngineError> {
        let not_begun = || EngineError::NotBegun { call: "visit" };
        let (space, _) = self.space.as_ref().ok_or_else(not_begun)?;
        let workshop = self.workshop.as_ref().ok_or_else(not_begun)?;
        let (device, variant, merge) = (&self.shared.device, &self.variant, space.merge_params());
        let runs = &self.runs;
        Ok(Search::new(Objects { device, variant, programs, workshop, queries, part, merge, runs, seen }))
    }
}

impl Engine for GpuEngine {
    fn limits(&self, dim: usize, k: K) -> EngineLimits {
        let bytes = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let row = bytes(dim * size_of::<f32>());
        let tiles = bytes(self.variant.references()) * u64::from(steps::TILES_MAX);
        let packed = bytes(Packing::channels(&self.variant, dim, 2) * size_of::<f32>());
        let rows_max = (self.shared.device.adapter.binding_bytes_max.min(1 << 30) / packed).min(tiles);
        EngineLimits {
            kind: EngineKind::Gpu,
            // What each has seen.
            bytes_per_query: 4,
            bytes_per_reference: 0,
            // Visits that are not settled and what they are made of, and what is on its way.
            bytes_fixed: 64 << 20,
            partition_bytes_max: rows_max * row,
            // Every pair costs a compare beside its dimensions.
            pairs_per_second: self.pairs_per_second * (trial::TIMED_DIM + 6) as f64 / (dim + 6) as f64,
            device: Some(crate::plan::DeviceLimits {
                memory: ByteCount(self.memory),
                bytes_per_query: self.query_bytes(1, dim, k.get()),
                bytes_per_reference: bytes(Stored::bytes_per_row(dim)) + packed,
                bytes_fixed: self.workshop_bytes(dim) + bytes(codes::bytes_fixed(dim)) + (1 << 20),
                query_rows_max: self.shared.device.adapter.binding_bytes_max
                    / bytes((12 * k.get()).max(16 * rows::width(dim))),
            }),
        }
    }

    fn begin(&mut self, queries: &RowBlock, k: K, exclude: &Exclude) -> Result<(), EngineError> {
        self.unsettled = None;
        self.queries = None;
        self.residents.forget_dropped();
        check_rows(self.metric, queries, "query")?;
        let groups = match exclude {
            Exclude::Nothing | Exclude::OwnRow => None,
            Exclude::SameGroup { groups, .. } => Some(groups.as_slice()),
        };
        if let Some(groups) = groups.filter(|groups| groups.len() != queries.rows()) {
            let why = format!("{} groups were given for {} queries", groups.len(), queries.rows());
            return Err(EngineError::Shape { what: "exclusion groups", why });
        }
        let dim = queries.dim();
        self.compile(dim, k)?;
        self.workshop = None;
        self.workshop = Some(self.workshop(queries.rows())?);
        let rows = Rows { metric: self.metric, block: queries, groups, mask: None };
        let resident = self.sparing(|engine| {
            let stored = Stored::upload(&engine.shared.device, &engine.pool, "the queries", rows)?;
            Queries::new(&engine.shared.device, &engine.variant, stored, (dim, k), exclude)
        })?;
        self.queries = Some((space::sample_of(queries)?, resident));
        Ok(())
    }

    fn visit(&mut self, part: &Arc<Partition>, visits: &[Visit]) -> Result<(), EngineError> {
        let (_, queries) = self.begun("visit")?;
        check_visits((queries.stored.n, queries.dim), part, visits)?;
        if queries.stored.n == 0 || part.block.rows() == 0 {
            return Ok(());
        }
        // The partition is on its way while the last visits are still computed.
        let resident = self.resident(part)?;
        self.pack_queries()?;
        // And so is what they will be followed by.
        if let Some((_, queries)) = &mut self.queries {
            queries.wide |= resident.wide;
        }
        self.visit_sorted(resident, visits)
    }

    fn nearest(
        &mut self,
        part: &Arc<Partition>,
        k: K,
        horizon: Option<Horizon>,
        at_a_time: usize,
    ) -> Result<Vec<u32>, EngineError> {
        self.nearest_rows(part, (k, horizon), at_a_time)
    }

    fn bounds(&mut self) -> Result<Vec<f32>, EngineError> {
        let top = self.snapshot_for("bounds")?;
        Ok((0..top.rows()).map(|row| top.row(row).1[top.k() - 1]).collect())
    }

    fn finish(&mut self) -> Result<TopK, EngineError> {
        let top = self.snapshot_for("finish")?;
        self.queries = None;
        self.residents.forget_dropped();
        Ok(top)
    }

    fn snapshot(&mut self) -> Result<TopK, EngineError> {
        self.snapshot_for("snapshot")
    }

    fn restore(&mut self, top: &TopK) -> Result<(), EngineError> {
        self.begun("restore")?;
        self.settle()?;
        if let Some((_, queries)) = &mut self.queries {
            queries.restore(&self.shared.device, top)?;
            queries.open();
        }
        Ok(())
    }
}

impl GpuEngine {
    fn snapshot_for(&mut self, call: &'static str) -> Result<TopK, EngineError> {
        self.begun(call)?;
        self.settle()?;
        let (_, queries) = self.begun(call)?;
        queries.top(&self.shared.device, &self.pool)
    }
}
