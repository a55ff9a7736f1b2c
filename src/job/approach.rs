//! Which rows of the reference a search visits: all of them, or those of the lists of an index that are near or may hold a
//! neighbour.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::cache::Foreseen;
use super::inputs::Inputs;
use super::request::{How, Method, Probes, SearchRequest};
use super::run::Run;
use super::sample::SAMPLE_ROWS;
use super::search::side;
use crate::block::{RowBlock, RowIds};
use crate::engine::Engine;
use crate::error::{Error, JobError};
use crate::metric::Metric;
use crate::plan::lists::ListsInput;
use crate::plan::search::{Order, SearchPlan, Side};
use crate::route::Router;
use crate::route::all::AllRows;
use crate::route::ivf::{Bounded, Cut, Lists, Probing, nearest_by_engine, refusal};
use crate::store::index::{Encoding, Index};
use crate::store::prepared::Preparation;
use crate::units::K;
use crate::visit::Horizon;

/// Lists that give each query its bound. Fewer give worse bounds, more are visited for nothing: between 2 and 16 it hardly
/// matters.
const SEEDS: usize = 4;

/// Lists that are visited, as a share of all, before it is known how many find the recall that is asked for.
const GUESSED_SHARE: usize = 16;
const GUESSED: std::ops::RangeInclusive<usize> = 8..=256;

const PROBES_OF_EXACT: &str = "--nprobe and --recall are about a search that is not exact; leave out --method exact";
const STRICT_OF_EXACT: &str = "--strict is about a search that is not exact; leave it out, or --method exact";

fn refuse<T>(message: impl Into<String>) -> Result<T, Error> {
    Err(JobError::Refused(message.into()).into())
}

/// A horizon is measured in distances.
fn check_horizon(probes: Probes, metric: Metric) -> Result<(), Error> {
    if matches!(probes, Probes::WithHorizon(..)) && Horizon::new(metric, 1.0).is_none() {
        return refuse(format!("--horizon is about distances, and {metric} is none; use --nprobe alone"));
    }
    Ok(())
}

/// Which lists are visited.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Near {
    /// At most so many, the nearest.
    pub nprobe: usize,
    /// None beyond this [`Horizon`], in times the mean.
    pub horizon: Option<f64>,
    /// How many that are of a query, on average, as far as is known.
    pub visited: Option<f64>,
    /// Whether this is a guess, to be replaced before the search begins.
    pub guess: bool,
}

impl Near {
    /// The nearest so many.
    #[must_use]
    pub fn nearest(nprobe: usize) -> Self {
        Self { nprobe, horizon: None, visited: Some(nprobe as f64), guess: false }
    }

    /// How many lists that is taken for.
    #[must_use]
    pub fn expected(self) -> f64 {
        self.visited.unwrap_or(self.nprobe as f64)
    }

    /// What is asked for, of so many lists.
    #[must_use]
    pub fn of(probes: Probes, lists: usize) -> Self {
        let at_most = |nprobe: u32| usize::try_from(nprobe).unwrap_or(usize::MAX).min(lists);
        match probes {
            Probes::Lists(nprobe) => Self::nearest(at_most(nprobe)),
            Probes::WithHorizon(nprobe, times) => {
                Self { horizon: Some(times), visited: None, ..Self::nearest(at_most(nprobe)) }
            }
            _ => Self {
                guess: true,
                ..Self::nearest((lists / GUESSED_SHARE).clamp(*GUESSED.start(), *GUESSED.end()).min(lists))
            },
        }
    }
}

/// What is visited.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Approach {
    /// Every row.
    All,
    /// Lists near each query.
    Near(Near),
    /// Every list that may hold a neighbour.
    Within,
    /// What a graph of the reference leads to.
    Graph,
}

impl Approach {
    /// What an output says it was found by.
    #[must_use]
    pub fn method(self) -> &'static str {
        match self {
            Self::All | Self::Within => "exact",
            Self::Near(_) => "ivf",
            Self::Graph => "hnsw",
        }
    }

    /// Whether all true neighbours are found.
    #[must_use]
    pub fn is_exact(self) -> bool {
        matches!(self, Self::All | Self::Within)
    }

    /// The approaches that a request without an index leaves open, the first choice first: one that needs an index builds
    /// it, as `foreseen`.
    ///
    /// # Errors
    /// Choices that do not go together.
    pub fn without_index(how: &How, foreseen: Foreseen, metric: Metric) -> Result<Vec<Self>, Error> {
        check_horizon(how.probes, metric)?;
        let asked_for_lists = how.probes != Probes::Auto;
        if !how.refine {
            return refuse(
                "--no-refine is about what a compressed index finds; name the index with --index, or leave it out",
            );
        }
        let near = Self::Near(Near::of(how.probes, foreseen.lists()));
        match how.method {
            Method::Exact if how.strict => refuse(STRICT_OF_EXACT),
            Method::Exact if asked_for_lists => refuse(PROBES_OF_EXACT),
            Method::Exact => Ok(vec![Self::All]),
            Method::Ivf => Ok(vec![near]),
            Method::Hnsw if matches!(how.probes, Probes::Lists(_) | Probes::WithHorizon(..)) => {
                refuse("--nprobe is about the lists of --method ivf; a graph has --hnsw-ef")
            }
            Method::Hnsw => Ok(vec![Self::Graph]),
            Method::Auto if asked_for_lists => Ok(vec![near]),
            Method::Auto => Ok(vec![Self::All, near]),
        }
    }

    /// The approaches that a request through an index leaves open, the first choice first.
    ///
    /// # Errors
    /// Choices that do not go together.
    pub fn through(how: &How, through: &Through, metric: Metric) -> Result<Vec<Self>, Error> {
        check_horizon(how.probes, metric)?;
        let asked_for_lists = how.probes != Probes::Auto;
        let codes = through.index.encoding() != Encoding::F32;
        if !how.refine && !codes {
            return refuse(format!("the index {} keeps rows as they are; leave out --no-refine", through.name));
        }
        if !how.refine && matches!(how.probes, Probes::Recall(_)) {
            return refuse(
                "--recall counts on exact distances for what is found in the lists; leave out --no-refine, or use --nprobe",
            );
        }
        let near = Self::Near(Near::of(how.probes, through.lists.len()));
        match how.method {
            Method::Exact if how.strict => refuse(STRICT_OF_EXACT),
            Method::Exact if asked_for_lists => refuse(PROBES_OF_EXACT),
            Method::Exact => match (refusal(metric), through.index.encoding()) {
                (Some(why), _) => refuse(why),
                (None, Encoding::F32) => Ok(vec![Self::Within]),
                (None, encoding) => refuse(format!(
                    "the index {} keeps rows as {}, which is not exact; build one with --encoding f32, or leave out --index",
                    through.name,
                    encoding.name()
                )),
            },
            Method::Ivf => Ok(vec![near]),
            Method::Hnsw => refuse(
                "--method hnsw makes a graph of its own and uses no index; leave out --index, or use --method ivf",
            ),
            Method::Auto if asked_for_lists => Ok(vec![near]),
            Method::Auto => Ok(vec![Self::All, near]),
        }
    }
}

/// An index that fits the job.
#[derive(Debug)]
pub struct Through {
    /// The index.
    pub index: Index,
    /// Its lists, as routes take them.
    pub lists: Arc<Lists>,
    /// Where it is.
    pub name: String,
}

impl Through {
    /// The index at `path`.
    ///
    /// # Errors
    /// As [`Index::open`].
    pub fn open(path: &Path, run: &Run<'_>) -> Result<Self, Error> {
        let index = Index::open(path, &run.io)?;
        let ids = RowIds::Range(0..index.lists() as u64);
        let centroids = RowBlock::new(ids, index.dim(), index.centroids().to_vec())?;
        let lists = Lists { centroids, offsets: index.offsets().to_vec(), radii: index.radii().to_vec() };
        Ok(Self { index, lists: Arc::new(lists), name: path.display().to_string() })
    }

    /// Refuses an index of something else than what is searched.
    ///
    /// # Errors
    /// [`JobError::Unfit`] for another reference, [`JobError::Refused`] for another metric.
    pub fn check(&self, request: &SearchRequest, inputs: &Inputs) -> Result<(), Error> {
        let (built, wanted) = (self.index.metric(), request.metric);
        let same_lists = |metric| matches!(metric, Metric::Euclidean | Metric::SqEuclidean);
        if built != wanted && !(same_lists(built) && same_lists(wanted)) {
            return Err(JobError::Refused(format!(
                "the index {} was built for --metric {built}, and this search is by {wanted}; build one for {wanted}",
                self.name
            ))
            .into());
        }
        if inputs.reference_fingerprint != *self.index.fingerprint_of_reference() {
            return Err(JobError::Unfit(format!(
                "the index {} was not built from {}, or that has changed since; name the reference it was built from, or \
                 build it again with `atlasknn index`",
                self.name,
                inputs.references.source.name()
            ))
            .into());
        }
        let prepared = Preparation::of(wanted).is_some() || wanted.ignores_offset();
        if request.how.method == Method::Exact
            && prepared
            && inputs.has_float64()
            && self.index.preparation()?.is_none()
        {
            return Err(JobError::Unfit(format!(
                "the index {} is of float32 rows and {} is float64: a search of both without it takes the same off both \
                 sides before it rounds; leave out --index, or store both sides alike",
                self.name,
                inputs.queries.source.name()
            ))
            .into());
        }
        Ok(())
    }

    /// What tells it from any other index.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn fingerprint(&self) -> Result<Value, Error> {
        let all = json!([self.index.manifest(), self.index.source().fingerprint()?]);
        Ok(json!(format!("{:08x}", crc32c::crc32c(all.to_string().as_bytes()))))
    }

    /// What planning must know of its rows.
    #[must_use]
    pub fn side(&self) -> Side {
        let side = side(&**self.index.source());
        let ids = self.index.ids_scratch_bytes();
        Side { stored_bytes: self.index.stored_bytes(), scratch_bytes: side.scratch_bytes + ids, ..side }
    }

    /// Host bytes of its lists, for as long as the job goes on.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        // Of patterns, partitions know where lists begin as well.
        self.lists.len() as u64 * (self.index.dim() as u64 * 8 + 32)
    }

    /// Host bytes of ranking its lists for some queries, on so many threads.
    #[must_use]
    pub fn measured_bytes(&self, threads: usize) -> u64 {
        let (lists, dim) = (self.lists.len() as u64, self.index.dim() as u64);
        // Of each thread a distance and a place in the order; of the sample, where its neighbours are and how far lists are.
        let sample = SAMPLE_ROWS * u64::from(K::MAX) * 20;
        8 * (lists * (dim + 1) + threads as u64 * (3 * lists + dim)) + sample
    }

    /// What the plan must know of lists; `None` where they are not used.
    pub fn input(
        &self,
        approach: Approach,
        request: &SearchRequest,
        reference: Side,
        engine: &dyn Engine,
    ) -> Option<ListsInput> {
        let (nearest, visited, bounded) = match approach {
            Approach::All | Approach::Graph => return None,
            Approach::Near(near) => (near.nprobe, near.expected(), false),
            Approach::Within => (SEEDS.min(self.lists.len()), self.lists.len() as f64, true),
        };
        let ranking = nearest_by_engine(request.metric, &self.lists, nearest);
        Some(ListsInput {
            lists: self.lists.len() as u64,
            nearest: nearest as u64,
            visited,
            bounded,
            rows_per_visit: self.lists.rows_per_visit(),
            ranking: ranking.map(|nearest| engine.limits(self.index.dim(), nearest)),
            candidates: self.candidates(request).get() as u64,
            refined: self.refines(request).then_some(reference),
        })
    }

    /// Whether what is found gets its exact distances from the reference.
    #[must_use]
    pub fn refines(&self, request: &SearchRequest) -> bool {
        request.how.refine && self.index.encoding() != Encoding::F32
    }

    /// Neighbours per query that are searched: more than are kept, as the order of compressed rows is not quite the true
    /// one. How many more hardly matters for halves, and much for patterns of several values.
    #[must_use]
    pub fn candidates(&self, request: &SearchRequest) -> K {
        let k = u32::try_from(request.k.get()).unwrap_or(K::MAX);
        let candidates = match self.index.encoding() {
            Encoding::F32 => k,
            Encoding::F16 => k + 16,
            Encoding::Sq8 => 2 * k + 16,
            Encoding::Pq => 4 * k + 64,
        };
        let refined = self.refines(request).then(|| K::new(candidates.min(K::MAX)).ok()).flatten();
        refined.unwrap_or(request.k)
    }

    fn cut(&self, plan: &SearchPlan) -> Cut {
        let rows = partition_rows(plan);
        match plan.order {
            Order::ReferenceStays => Cut::kept(rows, &self.lists.offsets),
            Order::QueriesStay => Cut::streamed(rows),
        }
    }
}

/// What says which rows are visited, of so many references.
pub fn router(
    approach: Approach,
    through: Option<&Through>,
    metric: Metric,
    plan: &SearchPlan,
    rows: u64,
) -> Box<dyn Router> {
    match (approach, through) {
        (Approach::Near(near), Some(through)) => {
            #[allow(clippy::cast_possible_truncation)]
            let horizon = near.horizon.and_then(|times| Horizon::new(metric, times as f32));
            let nearest = Probing::new(metric, Arc::clone(&through.lists), near.nprobe, through.cut(plan));
            Box::new(nearest.within(horizon))
        }
        (Approach::Within, Some(through)) => {
            Box::new(Bounded::new(metric, Arc::clone(&through.lists), SEEDS, through.cut(plan)))
        }
        _ => Box::new(AllRows::new(rows, partition_rows(plan))),
    }
}

fn partition_rows(plan: &SearchPlan) -> u32 {
    u32::try_from(plan.partition_rows).unwrap_or(u32::MAX)
}
