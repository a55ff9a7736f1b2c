//! The passes of one metric, dimension and variant, compiled when they are first needed.

use minijinja::Value;

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

/// Invocations of a workgroup that merges.
pub(super) const MERGE_THREADS: u32 = 64;
/// Candidates that a merge gathers before they are put in order.
const FOUND_MAX: u32 = 256;

/// All passes of a search.
#[derive(Debug)]
pub(super) struct Programs {
    pub pack_queries: Pass,
    pub pack_references: Pass,
    pub tile: Pass,
    pub merge: Pass,
    pub gather: Pass,
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
pub(super) fn sources(metric: Metric, dim: usize, variant: &Variant) -> Vec<(&'static str, &'static str, Words)> {
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
        ("threads", MERGE_THREADS.into()),
        ("found", FOUND_MAX.into()),
        ("k_max", K::MAX.into()),
        ("form", form(metric).into()),
        ("root", (metric == Metric::Euclidean).into()),
        ("directional", is_directional(metric).into()),
    ];
    let gather =
        |half: bool| vec![("tile", variant.queries().into()), ("threads", ROW_THREADS.into()), ("half", half.into())];
    let mut all = vec![
        ("pack.wgsl", "packing queries", pack(true)),
        ("pack.wgsl", "packing references", pack(false)),
        ("tile.wgsl", "distance tile", tile),
        ("merge.wgsl", "merge", merge),
        ("gather.wgsl", "gathering queries", gather(false)),
    ];
    if has_half(metric, variant) {
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
        all.push(("pack_half.wgsl", "packing queries in f16", pack(true, variant.queries())));
        all.push(("pack_half.wgsl", "packing references in f16", pack(false, variant.references())));
        all.push(("columns.wgsl", "columns", vec![("extra", extra.into()), ("threads", ROW_THREADS.into())]));
        let tile = vec![("blocks", blocks.into()), ("hold", (blocks <= BLOCKS_HELD_MAX).into())];
        all.push(("tile_half.wgsl", "distance tile in f16", tile));
        all.push(("gather.wgsl", "gathering queries in f16", gather(true)));
    }
    all
}

/// How the shader of a label uses its buffers.
pub(super) fn uses(label: &str) -> &'static [Use] {
    use Use::{Read, Write};
    match label {
        "packing queries" => &[Read, Read, Read, Write, Write],
        "packing references" | "columns" => &[Read, Read, Read, Write],
        "distance tile" => &[Read, Read, Read, Read, Read, Write, Write],
        "merge" => &[Read, Read, Write, Read, Write, Write, Read, Read],
        "packing queries in f16" => &[Read, Write, Write],
        "packing references in f16" => &[Read, Write],
        "distance tile in f16" => &[Read, Read, Read, Read, Read, Read, Write, Write],
        _ => &[Read, Read, Write],
    }
}

impl Programs {
    /// Compiles all passes.
    pub fn new(device: &Device, metric: Metric, dim: usize, variant: &Variant) -> Result<Self, EngineError> {
        let mut passes = sources(metric, dim, variant)
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
