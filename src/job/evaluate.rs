//! Compares transferred labels with known ones, streaming both.

use super::columns::categories;
use super::request::{EvaluateRequest, Evaluation, LabelScore};
use crate::error::{Error, JobError};
use crate::schedule::blocks::{unit_count, unit_rows};
use crate::store::IoCounters;
use crate::store::anndata::AnnData;
use crate::transfer::agreement::{Agreement, shared_labels};

/// How well transferred labels agree with known ones.
///
/// # Errors
/// A column that is missing or is no label, stores with different numbers of cells.
pub fn evaluate(request: &EvaluateRequest) -> Result<Evaluation, Error> {
    let io = IoCounters::new();
    let mapped = AnnData::open(&request.out, &io)?;
    let known = AnnData::open(&request.truth, &io)?;
    if mapped.n_obs() != known.n_obs() {
        let message = format!(
            "{} has {} cells and {} has {}: known labels must be of the cells that were mapped",
            request.out.display(),
            mapped.n_obs(),
            request.truth.display(),
            known.n_obs()
        );
        return Err(JobError::Unfit(message).into());
    }
    let truth = categories(&known, &request.truth_key)?;
    let transferred = categories(&mapped, &format!("{}_pred", request.prediction))?;
    let confidences = mapped.obs(&format!("{}_conf", request.prediction))?;
    let (names, of_truth, of_transferred) = shared_labels(&truth.names, &transferred.names);
    let mut agreement = Agreement::new(names.len(), request.min_confidence);
    for unit in 0..unit_count(mapped.n_obs()) {
        let rows = unit_rows(unit, mapped.n_obs());
        let translate = |codes: Vec<i32>, to: &[i32]| -> Vec<i32> {
            let one = |code: i32| usize::try_from(code).ok().and_then(|code| to.get(code)).copied();
            codes.into_iter().map(|code| one(code).unwrap_or(-1)).collect()
        };
        let confidence = confidences.numbers(rows.clone())?;
        #[allow(clippy::cast_possible_truncation)] // they were written as float32
        let confidence: Vec<f32> = confidence.into_iter().map(|c| c as f32).collect();
        let truth = translate(truth.read(rows.clone())?, &of_truth);
        agreement.add(&truth, &translate(transferred.read(rows)?, &of_transferred), Some(&confidence))?;
    }
    let scores = agreement.scores();
    let label = |score: &crate::transfer::agreement::LabelScore| LabelScore {
        name: names.get(score.label).cloned().unwrap_or_default(),
        support: score.support,
        precision: score.precision,
        recall: score.recall,
        f1: score.f1,
    };
    Ok(Evaluation {
        accuracy: scores.accuracy,
        precision: scores.precision,
        recall: scores.recall,
        f1_weighted: scores.f1_weighted,
        f1_macro: scores.f1_macro,
        excluded_fraction: scores.excluded_fraction,
        rows: scores.compared,
        labels: scores.labels.iter().map(label).collect(),
    })
}
