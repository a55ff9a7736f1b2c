//! Trying the variants on an adapter before one is trusted: do they find what a search in f64 finds where a filter that is a
//! little too tight would lose some of it, and how fast is each?

use std::sync::Arc;
use std::time::Instant;

use super::variant::Variant;
use super::{Adapter, GpuConfig, GpuEngine};
use crate::block::{RowBlock, RowIds};
use crate::engine::{Engine, Exclude, Partition, Visit, VisitQueries};
use crate::error::EngineError;
use crate::metric::{EngineKind, Metric};
use crate::oracle::search::{agrees, search};
use crate::topk::TopK;
use crate::units::{ByteCount, K};

/// Dimensions of the rows whose search is timed.
pub const TIMED_DIM: usize = 50;
/// A search that takes this long says how fast a variant is.
const ENOUGH_SECONDS: f64 = 0.02;
/// Queries and references of the first search that is timed; each one after it has twice and four times as many, up to the
/// last.
const FIRST: (usize, usize) = (512, 8_192);
const LAST: (usize, usize) = (16_384, 262_144);
/// Queries and references that are also searched in f64, more than the rows that no filter looks at.
const CHECKED: (usize, usize) = (40, 1_500);
const CHECKED_DIM: usize = 21;
const MEMORY: ByteCount = ByteCount(1 << 30);

/// What trying a variant showed.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// The variant's name.
    pub variant: &'static str,
    /// Pairs per second at [`TIMED_DIM`] dimensions, exact distances included; `None` where it found something wrong, or
    /// the driver refused it.
    pub pairs_per_second: Option<f64>,
}

/// Tries every variant that the adapter runs.
///
/// # Errors
/// Whatever the driver refuses, where it refuses every variant.
pub fn trials(adapter: &Adapter, pool: &Arc<rayon::ThreadPool>) -> Result<Vec<Trial>, EngineError> {
    gathered(Variant::of(adapter).into_iter().map(|variant| (variant.name, rate_if_sound(adapter, pool, &variant))))
}

fn rate_if_sound(
    adapter: &Adapter,
    pool: &Arc<rayon::ThreadPool>,
    variant: &Variant,
) -> Result<Option<f64>, EngineError> {
    if is_sound(adapter, pool, variant)? { rate(adapter, pool, variant).map(Some) } else { Ok(None) }
}

/// One variant that is refused does not stand in the way of the others.
fn gathered(
    tried: impl Iterator<Item = (&'static str, Result<Option<f64>, EngineError>)>,
) -> Result<Vec<Trial>, EngineError> {
    let (mut trials, mut refused, mut last) = (Vec::new(), 0, None);
    for (variant, rate) in tried {
        let pairs_per_second = rate.unwrap_or_else(|error| {
            refused += 1;
            last = Some(error);
            None
        });
        trials.push(Trial { variant, pairs_per_second });
    }
    match last {
        Some(error) if refused == trials.len() => Err(error),
        _ => Ok(trials),
    }
}

fn open(
    adapter: &Adapter,
    pool: &Arc<rayon::ThreadPool>,
    variant: &Variant,
    metric: Metric,
) -> Result<GpuEngine, EngineError> {
    GpuEngine::new(GpuConfig { metric, ..config(adapter, pool, variant) })
}

fn config(adapter: &Adapter, pool: &Arc<rayon::ThreadPool>, variant: &Variant) -> GpuConfig {
    GpuConfig {
        metric: Metric::Euclidean,
        pool: Arc::clone(pool),
        adapter: adapter.clone(),
        variant: Some(variant.name.to_owned()),
        memory: MEMORY,
        pairs_per_second: None,
    }
}

/// Searches everything for everything once and says how long that took, the rows and the programs being there already.
fn timed(engine: &mut GpuEngine, queries: &RowBlock, part: &Arc<Partition>) -> Result<(TopK, f64), EngineError> {
    let rows = u32::try_from(part.block.rows()).unwrap_or(u32::MAX);
    engine.begin(queries, K::new(30).map_err(|error| unfit(&error))?, &Exclude::Nothing)?;
    engine.drain()?;
    let began = Instant::now();
    engine.visit(part, &[Visit { rows: 0..rows, queries: VisitQueries::All }])?;
    engine.drain()?;
    let seconds = began.elapsed().as_secs_f64();
    Ok((engine.finish()?, seconds))
}

fn unfit(error: &dyn std::fmt::Display) -> EngineError {
    EngineError::Shape { what: "the rows of a trial", why: error.to_string() }
}

/// Whether the variant finds the true neighbours of rows that are hard on a filter.
fn is_sound(adapter: &Adapter, pool: &Arc<rayon::ThreadPool>, variant: &Variant) -> Result<bool, EngineError> {
    let shared = open(adapter, pool, variant, Metric::Euclidean)?.shared;
    for hard in HARD {
        // A space of its own for each, on one device.
        let mut engine = GpuEngine::with(Arc::clone(&shared), config(adapter, pool, variant), *variant);
        let (queries, references) = (hard.rows(CHECKED.0, 1)?, hard.rows(CHECKED.1, 2)?);
        let (found, _) = timed(&mut engine, &queries, &Partition::new(references.clone()))?;
        let truth = search(Metric::Euclidean, &queries, &references, |_, _| true);
        if agrees(&found, &truth, EngineKind::Gpu).is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn rate(adapter: &Adapter, pool: &Arc<rayon::ThreadPool>, variant: &Variant) -> Result<f64, EngineError> {
    let mut engine = open(adapter, pool, variant, Metric::Euclidean)?;
    let (mut queries, mut references) = FIRST;
    loop {
        let (block, part) = (mixture(queries, 1)?, Partition::new(mixture(references, 2)?));
        // The first search compiles and uploads.
        timed(&mut engine, &block, &part)?;
        let seconds = timed(&mut engine, &block, &part)?.1.max(1e-9);
        if seconds >= ENOUGH_SECONDS || (queries, references) == LAST {
            return Ok((queries * references) as f64 / seconds);
        }
        (queries, references) = ((2 * queries).min(LAST.0), (4 * references).min(LAST.1));
    }
}

/// A sequence that looks random: values in −1..1.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        // The multiplier of Knuth's MMIX; the high bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bits = u32::try_from(self.0 >> 41).unwrap_or(0);
        bits as f32 / 4_194_304.0 - 1.0
    }
}

/// Rows about 64 centres, in no order.
fn mixture(rows: usize, seed: u64) -> Result<RowBlock, EngineError> {
    let mut centres = Noise(99);
    let centres: Vec<f32> = (0..64 * TIMED_DIM).map(|_| 3.0 * centres.next()).collect();
    let mut noise = Noise(seed);
    let mut values = Vec::with_capacity(rows * TIMED_DIM);
    for row in 0..rows {
        let centre = (row * 37 % 64) * TIMED_DIM;
        values.extend((0..TIMED_DIM).map(|j| centres[centre + j] + noise.next() + noise.next()));
    }
    block(rows, TIMED_DIM, values)
}

fn block(rows: usize, dim: usize, values: Vec<f32>) -> Result<RowBlock, EngineError> {
    RowBlock::new(RowIds::Range(0..rows as u64), dim, values).map_err(|error| unfit(&error))
}

const HARD: [Hard; 3] = [Hard::Shell, Hard::Small, Hard::Offset];

/// Rows that are hard on a filter: what it takes away from a pair decides whether the pair passes.
#[derive(Clone, Copy, Debug)]
enum Hard {
    /// All references at nearly one distance from all queries.
    Shell,
    /// Queries and every other reference near the origin, so small beside the others that f16 has them subnormal.
    Small,
    /// The same far from the origin, with one row that is farther still.
    Offset,
}

impl Hard {
    fn rows(self, rows: usize, seed: u64) -> Result<RowBlock, EngineError> {
        let mut noise = Noise(seed);
        let mut values = Vec::with_capacity(rows * CHECKED_DIM);
        for row in 0..rows {
            let mut own: Vec<f32> = (0..CHECKED_DIM).map(|_| noise.next()).collect();
            let norm = own.iter().map(|x| x * x).sum::<f32>().sqrt();
            for x in &mut own {
                let shell = if seed == 1 { *x * 1e-3 } else { *x / norm * (1.0 + 1e-3 * noise.next()) };
                *x = match self {
                    Self::Shell => shell,
                    Self::Small if seed == 1 || row % 8 == 0 => *x * 3e-5,
                    Self::Small => *x,
                    Self::Offset => shell + 1_000.0 + if row == 7 { 5_000.0 } else { 0.0 },
                };
            }
            values.extend(own);
        }
        block(rows, CHECKED_DIM, values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::gpu::space::Space;
    use crate::engine::gpu::tests::adapter;
    use crate::metric::tie_band;
    use crate::oracle::search::Neighbour;

    #[test]
    fn every_variant_is_tried_and_found_sound() {
        let Some(adapter) = adapter() else { return };
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("a pool"));
        for variant in Variant::of(&adapter) {
            assert!(is_sound(&adapter, &pool, &variant).expect("a trial"), "{}", variant.name);
        }
    }

    #[test]
    fn a_variant_that_is_refused_leaves_the_others_and_all_refused_are_the_error() {
        let refused = || Err(EngineError::DeviceLost { adapter: "A card".to_owned() });
        let some = gathered([("portable", Ok(Some(2e9))), ("wide", refused()), ("cooperative", Ok(None))].into_iter());
        let rates: Vec<_> = some.expect("some").iter().map(|trial| trial.pairs_per_second).collect();
        assert_eq!(rates, [Some(2e9), None, None]);
        assert!(gathered([("portable", refused()), ("wide", refused())].into_iter()).is_err());
    }

    #[test]
    fn hard_rows_tell_a_filter_that_is_too_tight() {
        // A filter in f16 that allows for no error keeps the nearest by its own distances. Those must not be the true ones.
        let band = tie_band(Metric::Euclidean, CHECKED_DIM, EngineKind::Gpu);
        for hard in HARD {
            let (queries, references) =
                (hard.rows(CHECKED.0, 1).expect("rows"), hard.rows(CHECKED.1, 2).expect("rows"));
            // As the filter sees them: about the centre and scaled.
            let space = Space::of(Metric::Euclidean, &queries, &references);
            let scale = 2f32.powi(space.exponent);
            let rounded = |block: &RowBlock| {
                let centred = block.values().iter().zip(space.centre.iter().cycle()).map(|(x, c)| x * scale - c);
                let values = centred.map(|y| half::f16::from_f32(y).to_f32()).collect();
                RowBlock::new(block.ids().clone(), block.dim(), values).expect("rows")
            };
            let truth = search(Metric::Euclidean, &queries, &references, |_, _| true);
            let tight = search(Metric::Euclidean, &rounded(&queries), &rounded(&references), |_, _| true);
            let loses = |(query, kept): (usize, &Vec<Neighbour>)| {
                let of = |id: u64| truth.neighbours[query].iter().find(|n| n.id == id).expect("a reference").distance;
                let farthest = kept[..30].iter().map(|n| of(n.id)).fold(0.0, f64::max);
                !band.is_tie(farthest, truth.neighbours[query][29].distance, 0.0)
            };
            let lost = tight.neighbours.iter().enumerate().filter(|query| loses(*query)).count();
            assert!(2 * lost > CHECKED.0, "{hard:?}: {lost} of {} queries lose a neighbour", CHECKED.0);
        }
    }
}
