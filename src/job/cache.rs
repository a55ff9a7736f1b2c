//! The index that a search builds where it needs one and none is given: kept beside the output, for every search of the
//! same reference. The name says what it is of, so another reference gets another.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use super::approach::Near;
use super::index::{self, Planned as PlannedIndex};
use super::inputs::Inputs;
use super::manifest::FORMAT;
use super::output;
use super::request::{IndexRequest, RunOptions, SearchRequest};
use super::run::Run;
use crate::engine::Engine;
use crate::error::Error;
use crate::plan::index::{IndexPlan, lists_for};
use crate::plan::lists::ListsInput;
use crate::plan::search::Side;
use crate::store::folder::real_path;
use crate::store::index::{Encoding, Layout};
use crate::units::K;

/// The folder beside an output.
const FOLDER: &str = "atlasknn-cache";
/// Rows of a visited list beside those of an average one, where lists are not known yet: k-means gives 1.2 to 2.
const EXPECTED_IMBALANCE: f64 = 1.5;
/// Lists that are cut because they are too large (over 4 times the mean) add at most a quarter.
const CUT_SHARE: u64 = 4;
/// Chunks that are read and decoded at once, about.
const CHUNKS_AT_ONCE: u64 = 64;

/// What planning assumes of an index that is not there yet.
#[derive(Clone, Copy, Debug)]
pub struct Foreseen {
    /// Lists at most.
    pub lists: usize,
    layout: Layout,
}

impl Foreseen {
    /// Of an index of these references.
    #[must_use]
    pub fn of(inputs: &Inputs) -> Self {
        let source = &inputs.references.source;
        let learned = lists_for(source.rows());
        let lists = usize::try_from(learned + learned / CUT_SHARE).unwrap_or(usize::MAX);
        Self { lists, layout: Layout::new(source.rows(), source.dim() as u64, learned) }
    }

    /// How many lists it has.
    #[must_use]
    pub fn lists(self) -> usize {
        self.lists
    }

    /// Rows of a list that a query visits.
    #[must_use]
    pub fn rows_per_visit(self) -> f64 {
        (EXPECTED_IMBALANCE * self.layout.rows as f64 / self.lists as f64).min(self.layout.rows as f64)
    }

    /// What planning must know of its rows.
    #[must_use]
    pub fn side(self) -> Side {
        let Layout { rows, dim, chunk_rows, ids_chunk_rows, shard_rows } = self.layout;
        let chunk_bytes = chunk_rows * dim * 4 + ids_chunk_rows * 8;
        Side {
            rows,
            stored_bytes: rows * (dim * 4 + 8),
            row_bytes: dim * 4,
            chunk_rows,
            scratch_bytes: CHUNKS_AT_ONCE * (2 * chunk_bytes + 16 * shard_rows / chunk_rows.max(1)),
        }
    }

    /// Host bytes of its lists, for as long as the job goes on.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.lists as u64 * (self.layout.dim * 8 + 24)
    }

    /// What the plan must know of lists.
    #[must_use]
    pub fn input(self, near: Near, k: K, engine: &dyn Engine) -> ListsInput {
        let dim = usize::try_from(self.layout.dim).unwrap_or(usize::MAX);
        let nearest = u32::try_from(near.nprobe).ok().and_then(|n| K::new(n).ok());
        ListsInput {
            lists: self.lists as u64,
            nearest: near.nprobe as u64,
            visited: near.expected(),
            bounded: false,
            rows_per_visit: self.rows_per_visit(),
            ranking: nearest.map(|nearest| engine.limits(dim, nearest)),
            candidates: k.get() as u64,
            refined: None,
        }
    }
}

/// An index that a search makes for itself, or that an earlier one made.
#[derive(Clone, Debug)]
pub struct OwnIndex {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it is there, and whole.
    pub is_there: bool,
    /// How it is built.
    pub plan: IndexPlan,
    /// How many lists are learned.
    pub lists: u64,
    request: IndexRequest,
}

impl OwnIndex {
    /// The index that a search of these references would make.
    ///
    /// # Errors
    /// A budget that is too small to build it.
    pub fn plan(search: &SearchRequest, inputs: &Inputs, run: &Run<'_>) -> Result<Self, Error> {
        let reference = search.reference.as_ref().unwrap_or(&search.query);
        let rep = search.reference_rep.as_ref().unwrap_or(&search.rep);
        let mut request = IndexRequest {
            reference: reference.clone(),
            out: PathBuf::new(),
            rep: rep.clone(),
            metric: search.metric,
            lists: None,
            encoding: Encoding::F32,
            device: search.device.clone(),
            within: search.within,
            // What an interrupted search began is gone on with, whether it is resumed or begun again.
            run: RunOptions { resume: true, ..search.run },
        };
        let lists = lists_for(inputs.references.source.rows());
        request.out = place(&search.out, &request, lists, &inputs.reference_fingerprint);
        let path = request.out.clone();
        let is_there = output::is_finished(&path, &run.io)?;
        let plan = PlannedIndex::new(&request, run)?.plan;
        Ok(Self { path, is_there, plan, lists, request })
    }

    /// Builds it, or goes on with what an earlier run began. Returns what there is to tell of it.
    ///
    /// # Errors
    /// Those of building an index.
    pub fn build(&self, run: &Run<'_>) -> Result<Value, Error> {
        let path = self.path.display();
        if self.is_there {
            run.observer.note(&format!("the index {path} is of this reference; it is used again"));
            return Ok(json!({ "path": path.to_string(), "built": false }));
        }
        run.observer.note(&format!(
            "no index is given: one is built in {path} first; other searches of this reference beside this output use it \
             again, and it may be removed when none will"
        ));
        let began = Instant::now();
        // Its time and pairs are not those of the search.
        let pairs = index::make(&self.request, &run.with_own_clock())?.pairs;
        let seconds = began.elapsed().as_secs_f64();
        Ok(json!({ "path": path.to_string(), "built": true, "seconds": seconds, "pairs": pairs }))
    }
}

/// Where the index of a reference is kept: beside the output, under a name that says all that its bytes follow from but
/// the kind of engine, all of which make indexes that are as good.
fn place(out: &Path, request: &IndexRequest, lists: u64, reference: &Value) -> PathBuf {
    let out = real_path(out);
    let beside = out.parent().unwrap_or(&out);
    let stem = request.reference.file_stem().map_or_else(|| "reference".into(), |stem| stem.to_string_lossy());
    let follows_from = json!([
        FORMAT,
        env!("CARGO_PKG_VERSION"),
        request.rep,
        request.metric.name(),
        lists,
        request.encoding.name(),
        request.run.seed,
        reference,
    ]);
    let key = crc32c::crc32c(follows_from.to_string().as_bytes());
    beside.join(FOLDER).join(format!("{stem}-{key:08x}.index"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::request::{DeviceRequest, Within};
    use crate::metric::Metric;

    #[test]
    fn another_reference_metric_or_seed_is_kept_in_another_place() {
        let request = IndexRequest {
            reference: PathBuf::from("atlas.zarr"),
            out: PathBuf::new(),
            rep: "X_pca".to_owned(),
            metric: Metric::Euclidean,
            lists: None,
            encoding: Encoding::F32,
            device: DeviceRequest::default(),
            within: Within::default(),
            run: RunOptions::default(),
        };
        let fingerprint = json!({ "shape": [10, 2] });
        let of = |request: &IndexRequest, lists, reference: &Value| {
            place(Path::new("results/out.zarr"), request, lists, reference)
        };
        let usual = of(&request, 9, &fingerprint);
        let name = usual.file_name().unwrap().to_string_lossy();
        assert!(usual.parent().unwrap().ends_with("results/atlasknn-cache"), "{usual:?}");
        assert!(name.starts_with("atlas-") && name.ends_with(".index"), "{name}");
        let other_output = place(Path::new("results/other.zarr"), &request, 9, &fingerprint);
        assert_eq!(other_output, usual, "all outputs of a folder share it");
        let others = [
            of(&request, 10, &fingerprint),
            of(&request, 9, &json!({ "shape": [11, 2] })),
            of(&IndexRequest { metric: Metric::Cosine, ..request.clone() }, 9, &fingerprint),
            of(&IndexRequest { rep: "X_scvi".to_owned(), ..request.clone() }, 9, &fingerprint),
            of(&IndexRequest { run: RunOptions { seed: 1, ..request.run }, ..request.clone() }, 9, &fingerprint),
        ];
        assert!(others.iter().all(|other| *other != usual), "{others:?}");
    }
}
