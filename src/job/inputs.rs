//! Opens the two cell sets of a job and makes them comparable, before any work is done.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::approach::Through;
use super::request::SearchRequest;
use crate::error::{EngineError, Error, JobError, StoreError};
use crate::metric::Metric;
use crate::store::anndata::AnnData;
use crate::store::open::open_representation;
use crate::store::prepared::{Preparation, Prepared};
use crate::store::{FloatType, IoCounters, Source};

/// Rows that the centre of float64 data is taken from, in this many runs.
const CENTRE_RUNS: u64 = 16;
const CENTRE_RUN_ROWS: u64 = 1_024;

/// One cell set.
#[derive(Debug)]
pub struct Cells {
    /// The rows that are compared.
    pub source: Arc<dyn Source>,
    /// What is known of the cells; `None` for a bare array.
    pub annotations: Option<AnnData>,
}

/// Both cell sets, ready to be compared.
#[derive(Debug)]
pub struct Inputs {
    /// The query.
    pub queries: Cells,
    /// The reference.
    pub references: Cells,
    /// Whether they are the same.
    pub self_mapping: bool,
    /// The fingerprint of the reference as it is stored.
    pub reference_fingerprint: Value,
    /// How far rounding float64 rows moved them at most, over the rows of the sample; `None` when nothing was rounded.
    pub rounding: Option<f64>,
}

impl Inputs {
    /// Opens what a search names. With an index, rows are made ready as its own were.
    ///
    /// # Errors
    /// Missing stores and keys, wrong types, empty sets, different dimensions, an index of something else.
    pub fn open(request: &SearchRequest, through: Option<&Through>, io: &Arc<IoCounters>) -> Result<Self, Error> {
        let queries = open_cells(&request.query, &request.rep, io)?;
        let self_mapping = request.reference.is_none();
        let reference_path = request.reference.as_ref().unwrap_or(&request.query);
        let reference_rep = request.reference_rep.as_ref().unwrap_or(&request.rep);
        let references = open_cells(reference_path, reference_rep, io)?;
        for (cells, side) in [(&queries, "query"), (&references, "reference")] {
            if cells.source.rows() == 0 {
                return Err(JobError::Unfit(format!("the {side} {} has no rows", cells.source.name())).into());
            }
        }
        let (q, r) = (queries.source.dim(), references.source.dim());
        if q != r {
            return Err(EngineError::Dim { queries: q, references: r }.into());
        }
        let reference_fingerprint = references.source.fingerprint()?;
        let mut inputs = Self { queries, references, self_mapping, reference_fingerprint, rounding: None };
        match through {
            Some(through) => {
                through.check(request, &inputs)?;
                let preparation = through.index.preparation()?;
                if preparation.is_none() && request.metric.ignores_offset() && inputs.has_float64() {
                    let nothing = vec![0.0; q];
                    inputs.rounding = Some(rounding(&*inputs.queries.source, &*inputs.references.source, &nothing)?);
                }
                inputs.prepare_as(preparation)?;
            }
            None => inputs.prepare(request.metric)?,
        }
        Ok(inputs)
    }

    /// The fingerprints of both sides.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn fingerprint(&self) -> Result<Value, Error> {
        let reference = if self.self_mapping { json!("query") } else { self.references.source.fingerprint()? };
        Ok(json!({ "query": self.queries.source.fingerprint()?, "reference": reference }))
    }

    /// Whether rows of a side are rounded.
    #[must_use]
    pub fn has_float64(&self) -> bool {
        [&self.queries, &self.references].iter().any(|cells| cells.source.dtype() == FloatType::F64)
    }

    /// float64 rows are rounded to float32 once; what can be taken off before that is taken off in float64.
    fn prepare(&mut self, metric: Metric) -> Result<(), Error> {
        if !self.has_float64() {
            return Ok(());
        }
        let centre = if metric.ignores_offset() { Some(centre(&*self.references.source)?) } else { None };
        self.prepare_as(Preparation::of(metric).or(centre.map(|centre| Preparation::Centre(centre.into()))))
    }

    fn prepare_as(&mut self, preparation: Option<Preparation>) -> Result<(), Error> {
        let Some(preparation) = preparation else { return Ok(()) };
        if let Preparation::Centre(centre) = &preparation {
            self.rounding = Some(rounding(&*self.queries.source, &*self.references.source, centre)?);
        }
        for cells in [&mut self.queries, &mut self.references] {
            cells.source = Arc::new(Prepared::new(Arc::clone(&cells.source), preparation.clone())?);
        }
        Ok(())
    }
}

/// Cells to be indexed.
#[derive(Debug)]
pub struct Indexed {
    /// The rows as a search compares them.
    pub source: Arc<dyn Source>,
    /// What was done to them before they were rounded.
    pub preparation: Option<Preparation>,
    /// The fingerprint of the array itself.
    pub fingerprint: Value,
}

impl Indexed {
    /// Opens what an index is to be made of. float64 rows are prepared as for a search.
    ///
    /// # Errors
    /// As [`Inputs::open`].
    pub fn open(path: &Path, rep: &str, metric: Metric, io: &Arc<IoCounters>) -> Result<Self, Error> {
        let Cells { source, .. } = open_cells(path, rep, io)?;
        if source.rows() == 0 {
            return Err(JobError::Unfit(format!("the reference {} has no rows", source.name())).into());
        }
        let fingerprint = source.fingerprint()?;
        if source.dtype() != FloatType::F64 {
            return Ok(Self { source, preparation: None, fingerprint });
        }
        let preparation = match Preparation::of(metric) {
            None if metric.ignores_offset() => Some(Preparation::Centre(centre(&*source)?.into())),
            preparation => preparation,
        };
        let source = match &preparation {
            Some(preparation) => Arc::new(Prepared::new(source, preparation.clone())?),
            None => source,
        };
        Ok(Self { source, preparation, fingerprint })
    }
}

/// What is known of the cells at `path`; `None` for a bare array.
///
/// # Errors
/// Any I/O error.
pub fn annotations(path: &Path, io: &Arc<IoCounters>) -> Result<Option<AnnData>, Error> {
    match AnnData::open(path, io) {
        Ok(cells) => Ok(Some(cells)),
        Err(StoreError::NotAStore { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn open_cells(path: &Path, rep: &str, io: &Arc<IoCounters>) -> Result<Cells, Error> {
    let source = open_representation(path, rep, io)?;
    let annotations = annotations(path, io)?;
    if let Some(annotations) = &annotations
        && annotations.n_obs() != source.rows()
    {
        return Err(JobError::Unfit(format!(
            "{} has {} rows and the cells of {} are {}",
            source.name(),
            source.rows(),
            path.display(),
            annotations.n_obs()
        ))
        .into());
    }
    Ok(Cells { source, annotations })
}

/// Runs of rows spread evenly over a source: the same for the same number of rows.
fn sample(rows: u64) -> Vec<std::ops::Range<u64>> {
    let run = CENTRE_RUN_ROWS.min(rows.div_ceil(CENTRE_RUNS)).max(1);
    let runs = (0..CENTRE_RUNS).map(|i| {
        let start = (rows - run.min(rows)) * i / (CENTRE_RUNS - 1).max(1);
        start..rows.min(start + run)
    });
    let mut runs: Vec<_> = runs.collect();
    runs.dedup();
    runs
}

/// The mean of a sample of rows.
fn centre(source: &dyn Source) -> Result<Vec<f64>, Error> {
    let dim = source.dim();
    let (mut sum, mut rows) = (vec![0.0; dim], 0_u32);
    for range in sample(source.rows()) {
        let mut values = vec![0.0; usize::try_from(range.end - range.start).unwrap_or(usize::MAX) * dim];
        source.read_f64(&[range], &mut values)?;
        for row in values.chunks_exact(dim) {
            rows += 1;
            // A running mean: sums of large values would lose the digits that centring is for.
            sum.iter_mut().zip(row).for_each(|(mean, x)| *mean += (x - *mean) / f64::from(rows));
        }
    }
    Ok(sum)
}

/// The largest distance between a sampled row, centred, and its float32 rounding.
fn rounding(queries: &dyn Source, references: &dyn Source, centre: &[f64]) -> Result<f64, Error> {
    let mut largest = 0.0_f64;
    for source in [queries, references] {
        for range in sample(source.rows()) {
            let mut values = vec![0.0; usize::try_from(range.end - range.start).unwrap_or(usize::MAX) * centre.len()];
            source.read_f64(&[range], &mut values)?;
            for row in values.chunks_exact(centre.len()) {
                #[allow(clippy::cast_possible_truncation)] // the rounding that is being measured
                let moved = |(x, c): (&f64, &f64)| (x - c) - f64::from((x - c) as f32);
                let squared = row.iter().zip(centre).map(|xc| moved(xc).powi(2)).sum::<f64>();
                largest = largest.max(squared.sqrt());
            }
        }
    }
    Ok(largest)
}
