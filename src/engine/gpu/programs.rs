//! The passes of a metric, dimension, k and variant, compiled when they are first needed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::Value;

use super::codes;
use super::device::Device;
use super::passes::{Pass, Use};
use super::resident::ROW_THREADS;
use super::space::Space;
use super::templates::expand;
use super::variant::Variant;
use crate::engine::cpu::exact::is_directional;
use crate::error::EngineError;
use crate::metric::Metric;
use crate::units::K;

/// How a workgroup that merges is made for a k: with as little memory as will do, since that decides how many merge at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct MergeShape {
    /// The largest k it can merge.
    pub k_max: usize,
    threads: usize,
    /// Candidates that are gathered before they are put in order.
    found: usize,
}

impl MergeShape {
    /// The smallest that is large enough.
    pub fn of(k: K) -> Self {
        let k_max = k.get().next_power_of_two().max(32);
        let threads = if k_max <= 64 { 64 } else { 128 };
        Self { k_max, threads, found: 2 * threads }
    }
}

/// All passes of a search.
#[derive(Debug)]
pub(super) struct Programs {
    pub pack_queries: Pass,
    pub pack_references: Pass,
    pub tile: Pass,
    pub merge: Pass,
    pub gather: Pass,
    pub decode: Pass,
    pub horizon: Pass,
    /// Those of the cooperative variant.
    pub half: Option<HalfPrograms>,
}

/// The passes of the filter in f16.
#[derive(Debug)]
pub(super) struct HalfPrograms {
    pub pack_queries: Pass,
    pub pack_references: Pass,
    pub columns: Pass,
    pub tile: Pass,
    pub gather: Pass,
}

/// Fragments of queries that a subgroup holds in registers: with more dimensions they are loaded again for each product.
const BLOCKS_HELD_MAX: usize = 8;

/// A shader's words.
pub(super) type Words = Vec<(&'static str, Value)>;

/// How the tile adds up a dimension.
fn step(metric: Metric) -> &'static str {
    match metric {
        Metric::Manhattan => "absolute",
        Metric::Chebyshev => "largest",
        _ => "dot",
    }
}

/// Whether the tile is computed on cooperative matrices, which add up products and nothing else.
fn has_half(metric: Metric, variant: &Variant) -> bool {
    variant.is_cooperative() && step(metric) == "dot"
}

/// What the exact form adds up.
fn form(metric: Metric) -> &'static str {
    match metric {
        Metric::InnerProduct => "product",
        Metric::Manhattan => "absolute",
        Metric::Chebyshev => "largest",
        _ => "squares",
    }
}

/// The words of each shader, by its file and a label.
pub(super) fn sources(
    metric: Metric,
    dim: usize,
    shape: MergeShape,
    variant: &Variant,
) -> Vec<(&'static str, &'static str, Words)> {
    let pack = |queries: bool| -> Words {
        vec![
            ("queries", queries.into()),
            ("tile", (if queries { variant.queries() } else { variant.references() }).into()),
            ("head", (if queries { 0 } else { 2 }).into()),
            ("threads", ROW_THREADS.into()),
            ("inner", (metric == Metric::InnerProduct).into()),
            ("step", step(metric).into()),
            ("gain", Space::gain(metric).into()),
        ]
    };
    let (tm, tn) = variant.per_invocation;
    let tile = vec![
        ("tm", tm.into()),
        ("tn", tn.into()),
        ("slab", variant.slabs(dim).1.into()),
        ("step", step(metric).into()),
    ];
    let merge = vec![
        ("threads", shape.threads.into()),
        ("found", shape.found.into()),
        ("k_max", shape.k_max.into()),
        ("form", form(metric).into()),
        ("root", (metric == Metric::Euclidean).into()),
        ("directional", is_directional(metric).into()),
    ];
    let mut all = vec![
        ("pack.wgsl", "packing queries", pack(true)),
        ("pack.wgsl", "packing references", pack(false)),
        ("tile.wgsl", "distance tile", tile),
        ("merge.wgsl", "merge", merge),
        ("gather.wgsl", "gathering queries", gather(variant, false)),
        ("decode.wgsl", "decoding", decode()),
        ("horizon.wgsl", "horizon", vec![("threads", ROW_THREADS.into())]),
    ];
    if has_half(metric, variant) {
        all.extend(half_sources(dim, variant));
    }
    all
}

/// The same of the shaders in f16.
fn half_sources(dim: usize, variant: &Variant) -> [(&'static str, &'static str, Words); 5] {
    let (blocks, extra) = Variant::fragments(dim);
    let pack = |queries: bool, tile: usize| -> Words {
        vec![
            ("queries", queries.into()),
            ("tile", tile.into()),
            ("head", (if queries { 0 } else { 2 }).into()),
            ("extra", extra.into()),
            ("threads", ROW_THREADS.into()),
        ]
    };
    let columns = vec![("extra", extra.into()), ("threads", ROW_THREADS.into())];
    let tile =
        vec![("blocks", blocks.into()), ("hold", (blocks <= BLOCKS_HELD_MAX).into()), ("side", variant.matrix.into())];
    [
        ("pack_half.wgsl", "packing queries in f16", pack(true, variant.queries())),
        ("pack_half.wgsl", "packing references in f16", pack(false, variant.references())),
        ("columns.wgsl", "columns", columns),
        ("tile_half.wgsl", "distance tile in f16", tile),
        ("gather.wgsl", "gathering queries in f16", gather(variant, true)),
    ]
}

fn gather(variant: &Variant, half: bool) -> Words {
    vec![("tile", variant.queries().into()), ("threads", ROW_THREADS.into()), ("half", half.into())]
}

fn decode() -> Words {
    vec![("threads", ROW_THREADS.into()), ("halves", codes::HALVES.into()), ("scaled", codes::SCALED.into())]
}

/// How the shader of a label uses its buffers.
pub(super) fn uses(label: &str) -> &'static [Use] {
    use Use::{Read, Write};
    match label {
        "packing queries" => &[Read, Read, Read, Write, Write],
        "packing references" | "columns" => &[Read, Read, Read, Write],
        "decoding" => &[Read, Read, Read, Read, Write],
        "distance tile" => &[Read, Read, Read, Read, Read, Write, Write],
        "merge" => &[Read, Read, Write, Read, Write, Write, Read, Read],
        "horizon" => &[Write],
        "packing queries in f16" => &[Read, Write, Write],
        "packing references in f16" => &[Read, Write],
        "distance tile in f16" => &[Read, Read, Read, Read, Read, Read, Write, Write],
        _ => &[Read, Read, Write],
    }
}

/// Metric, dimensions, merges and the name of the variant.
type Key = (Metric, usize, MergeShape, &'static str);

/// What was compiled for a device.
#[derive(Debug)]
pub(super) struct Library {
    pub device: Device,
    compiled: Mutex<HashMap<Key, Arc<Programs>>>,
}

impl Library {
    /// Nothing compiled yet.
    pub fn new(device: Device) -> Arc<Self> {
        Arc::new(Self { device, compiled: Mutex::default() })
    }

    /// The passes, compiled when they are first asked for.
    pub fn programs(
        &self,
        metric: Metric,
        dim: usize,
        shape: MergeShape,
        variant: &Variant,
    ) -> Result<Arc<Programs>, EngineError> {
        let key = (metric, dim, shape, variant.name);
        let compiled = || self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(programs) = compiled().get(&key) {
            return Ok(Arc::clone(programs));
        }
        let programs = Arc::new(Programs::new(&self.device, metric, dim, shape, variant)?);
        compiled().insert(key, Arc::clone(&programs));
        Ok(programs)
    }
}

impl Programs {
    /// Compiles all passes.
    fn new(
        device: &Device,
        metric: Metric,
        dim: usize,
        shape: MergeShape,
        variant: &Variant,
    ) -> Result<Self, EngineError> {
        let mut passes = sources(metric, dim, shape, variant)
            .into_iter()
            .map(|(file, label, words)| Pass::new(device, label, expand(file, &words)?, uses(label)))
            .collect::<Result<Vec<_>, _>>()?
            .into_iter();
        let mut next = || passes.next().ok_or_else(|| device.error("compiling", "a shader is missing"));
        Ok(Self {
            pack_queries: next()?,
            pack_references: next()?,
            tile: next()?,
            merge: next()?,
            gather: next()?,
            decode: next()?,
            horizon: next()?,
            half: if has_half(metric, variant) {
                Some(HalfPrograms {
                    pack_queries: next()?,
                    pack_references: next()?,
                    columns: next()?,
                    tile: next()?,
                    gather: next()?,
                })
            } else {
                None
            },
        })
    }
}
