//! How many of the true neighbours were found: measured on a sample, with an interval.

use serde_json::{Value, json};

use super::approach::Approach;
use super::output::Output;
use super::planned::Planned;
use super::request::{Probes, SearchRequest};
use super::run::Run;
use super::sample::{Sample, chunks_at_once, written};
use crate::error::{Error, JobError};
use crate::metric::{TieBand, tie_band};
use crate::plan::sample::Random;
use crate::schedule::progress::Stage;
use crate::store::index::Encoding;
use crate::store::neighbours::Neighbours;
use crate::topk::TopK;

/// Distinguishes the sample of an audit from others of the same seed.
const SEED: u64 = 0x0061_7564_6974;
/// Resamples of the bootstrap.
const RESAMPLES: usize = 1_000;

/// The share of true neighbours that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recall {
    /// Of the whole sample.
    pub mean: f64,
    /// 95 % interval: percentiles of a bootstrap over queries (Efron 1979), since what is found for one query hangs
    /// together.
    pub interval: (f64, f64),
    /// Queries of the sample that have neighbours.
    pub queries: usize,
}

impl Recall {
    /// From the recall of each query; 1 where there is none.
    #[must_use]
    pub fn of(each: &[f64], seed: u64) -> Self {
        let mean = |sum: f64| if each.is_empty() { 1.0 } else { sum / each.len() as f64 };
        let mut random = Random::new(seed);
        let mut drawn = || each.get(usize::try_from(random.below(each.len() as u64)).unwrap_or(0)).copied();
        let mut means: Vec<f64> = (0..RESAMPLES).map(|_| mean((0..each.len()).filter_map(|_| drawn()).sum())).collect();
        means.sort_unstable_by(f64::total_cmp);
        let percentile = |share: usize| means[(RESAMPLES - 1) * share / 1_000];
        let mean = mean(each.iter().sum());
        // A sample without a miss has no spread, and 3 of its number of others may still miss (the rule of three).
        let low = if mean < 1.0 { percentile(25) } else { (1.0 - 3.0 / each.len() as f64).max(0.0) };
        Self { mean, interval: (low, percentile(975)), queries: each.len() }
    }

    /// For the manifest.
    #[must_use]
    pub fn to_json(self, asked: Option<f64>) -> Value {
        json!({
            "recall": self.mean,
            "recall_low": self.interval.0,
            "recall_high": self.interval.1,
            "interval": "95 %, bootstrap over queries; rule of three where none misses",
            "queries": self.queries,
            "recall_asked": asked,
        })
    }
}

/// The recall of each query that has neighbours. What is as near as the k-th true neighbour counts, whichever of those it
/// is: `band` says which distances are equal, where what was found has its true distances.
#[must_use]
pub fn recalls(found: &TopK, truth: &TopK, band: Option<TieBand>) -> Vec<f64> {
    let of = |row: usize| {
        let ((ids, distances), (true_ids, true_distances)) = (found.neighbours(row), truth.neighbours(row));
        let kth = f64::from(*true_distances.last()?);
        let near = |distance: f32| {
            // The norms behind inner products are not known here: equal is equal.
            let distance = f64::from(distance);
            band.is_some_and(|band| distance <= kth || band.is_tie(distance, kth, 0.0))
        };
        let hits = ids.iter().zip(distances).filter(|(id, distance)| true_ids.contains(id) || near(**distance));
        Some(hits.count().min(true_ids.len()) as f64 / true_ids.len() as f64)
    };
    (0..truth.rows()).filter_map(of).collect()
}

/// The seed of the sample of an audit.
#[must_use]
pub fn seed(request: &SearchRequest) -> u64 {
    request.run.seed ^ SEED
}

/// Measures the recall of a finished search, and says so where it is too low.
///
/// # Errors
/// The first error of reading or searching; [`JobError::Unfit`] for a recall below the one asked for, with --strict.
pub fn audit(planned: &mut Planned<'_>, output: &Output, run: &Run<'_>) -> Result<Recall, Error> {
    let seed = seed(planned.request);
    planned.drop_graph();
    let sample = if let Some(sample) = planned.to_audit.take() {
        sample
    } else {
        let [sample] = Sample::search(planned, [seed], Stage::Audit, run)?;
        sample
    };
    let at_once = chunks_at_once(planned)?;
    let neighbours = Neighbours::open(&output.folder)?;
    let read = |rows| neighbours.read(rows);
    let found = run.pool.install(|| written(&sample.rows, neighbours.k(), at_once, read))?;
    let band = tie_band(planned.request.metric, planned.inputs.queries.source.dim(), planned.input.engine.kind);
    let through = planned.through.as_ref();
    let exact = through.is_none_or(|t| t.index.encoding() == Encoding::F32 || t.refines(planned.request));
    let recall = Recall::of(&recalls(&found, &sample.truth, exact.then_some(band)), seed);
    let Recall { mean, interval: (low, high), queries } = recall;
    tell(mean, &format!(" (95 % interval {low:.4} to {high:.4}, of {queries} queries)"), planned, run)?;
    Ok(recall)
}

/// The recall that was asked for. A graph is not set up for one, so it has to be asked for by name.
#[must_use]
pub fn asked(planned: &Planned<'_>) -> Option<f64> {
    match (planned.approach, planned.request.how.probes) {
        (Approach::Graph, Probes::Auto) if !planned.request.how.strict => None,
        (_, probes) => probes.recall(),
    }
}

/// Says what recall was measured, and how surely.
///
/// # Errors
/// [`JobError::Unfit`] where it is below the one asked for, with --strict.
pub fn tell(mean: f64, surely: &str, planned: &Planned<'_>, run: &Run<'_>) -> Result<(), Error> {
    let measured = format!("audited recall at k = {}: {mean:.4}{surely}", planned.request.k);
    let asked = asked(planned);
    match asked.filter(|asked| mean < *asked) {
        None => run.observer.note(&measured),
        Some(asked) => {
            let encoding = planned.through.as_ref().map_or(Encoding::F32, |through| through.index.encoding());
            let advice = match (planned.approach, encoding) {
                (Approach::Graph, _) => {
                    "raise --hnsw-ef, --hnsw-m or --hnsw-ef-construction, or use --method ivf".to_owned()
                }
                (_, Encoding::F32) => "ask for more with --recall, or with --nprobe and --horizon".to_owned(),
                _ => format!(
                    "ask for more with --recall, or with --nprobe and --horizon, or index with more than {}",
                    encoding.name()
                ),
            };
            let message = format!("{measured} is below the {asked} that was asked for; {advice}");
            if planned.request.how.strict {
                return Err(JobError::Unfit(format!("{message} (--strict)")).into());
            }
            run.observer.warn(&message);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::{EngineKind, Metric};
    use crate::units::K;

    fn top(rows: &[&[(f32, u64)]]) -> TopK {
        let mut top = TopK::empty(rows.len(), K::new(3).unwrap());
        rows.iter().enumerate().for_each(|(row, neighbours)| top.set_row(row, neighbours));
        top
    }

    #[test]
    fn a_miss_counts_and_a_tie_does_not() {
        let truth = top(&[
            &[(1.0, 1), (2.0, 2), (3.0, 3)],
            &[(1.0, 1), (2.0, 2), (3.0, 3)],
            &[(1.0, 1), (2.0, 2), (3.0, 3)],
            &[(1.0, 1)],
            &[],
        ]);
        let found = top(&[
            &[(1.0, 1), (2.0, 2), (3.0, 3)],
            &[(1.0, 1), (3.0, 3), (4.0, 9)],
            // As near as the third, and no nearer.
            &[(1.0, 1), (2.0, 2), (3.000_000_2, 7)],
            &[],
            &[],
        ]);
        let band = tie_band(Metric::Euclidean, 50, EngineKind::Cpu);
        assert_eq!(recalls(&found, &truth, Some(band)), [1.0, 2.0 / 3.0, 1.0, 0.0]);
        assert_eq!(recalls(&found, &truth, None), [1.0, 2.0 / 3.0, 2.0 / 3.0, 0.0]);
        assert_eq!(recalls(&truth, &truth, None), [1.0; 4]);
    }

    #[test]
    fn an_interval_holds_the_mean_and_narrows_with_the_sample() {
        let each = |n: usize| -> Vec<f64> { (0..n).map(|i| if i % 5 == 0 { 0.5 } else { 1.0 }).collect() };
        let (few, many) = (Recall::of(&each(100), 1), Recall::of(&each(10_000), 1));
        for recall in [few, many] {
            assert!((recall.mean - 0.9).abs() < 1e-12);
            assert!(recall.interval.0 < 0.9 && 0.9 < recall.interval.1, "{recall:?}");
        }
        let width = |recall: Recall| recall.interval.1 - recall.interval.0;
        // 2 · 1.96 · 0.2 / √n
        assert!((width(few) / 0.0784 - 1.0).abs() < 0.2 && (width(many) / 0.00784 - 1.0).abs() < 0.2);
        assert_eq!(Recall::of(&[1.0; 300], 3).interval, (0.99, 1.0), "one query in a hundred may miss");
        assert_eq!(Recall::of(&[], 3), Recall { mean: 1.0, interval: (0.0, 1.0), queries: 0 });
    }
}
