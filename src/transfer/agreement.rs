//! How well transferred labels agree with known ones: scikit-learn's scores, from counts that are added to row by row.

use std::collections::{BTreeMap, HashMap};

use super::{check_codes, check_length, code_index};
use crate::error::TransferError;

/// Counts of (known, transferred) pairs. Memory grows with the pairs that occur, not with the rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Agreement {
    labels: usize,
    min_confidence: f32,
    counts: HashMap<(usize, usize), u64>,
    excluded: u64,
}

/// All scores of one comparison. Ratios without a denominator are 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// Rows whose label is known.
    pub rows: u64,
    /// Those of them that were compared.
    pub compared: u64,
    /// Share of the compared rows with the right label.
    pub accuracy: f64,
    /// Mean precision, weighted by support.
    pub precision: f64,
    /// Mean recall, weighted by support.
    pub recall: f64,
    /// Mean F1, weighted by support.
    pub f1_weighted: f64,
    /// Mean F1 of the labels that occur, known or transferred.
    pub f1_macro: f64,
    /// Share of the known rows that were not compared.
    pub excluded_fraction: f64,
    /// Each label that occurs, known or transferred, in the order of the codes.
    pub labels: Vec<LabelScore>,
}

/// The scores of one label.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelScore {
    /// Its code.
    pub label: usize,
    /// Rows that have it.
    pub support: u64,
    /// Rows that it was transferred to.
    pub transferred: u64,
    /// Both.
    pub correct: u64,
    /// Share of the transferred that are correct.
    pub precision: f64,
    /// Share of the support that is correct.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
}

impl Agreement {
    /// Nothing counted; codes will be below `labels`, and rows with less confidence are not compared.
    #[must_use]
    pub fn new(labels: usize, min_confidence: f32) -> Self {
        Self { labels, min_confidence, counts: HashMap::new(), excluded: 0 }
    }

    /// Counts some rows. Rows without a known label (−1) are left out altogether; rows without a transferred label
    /// or with too little confidence are excluded, which is counted.
    ///
    /// # Errors
    /// Lengths that differ, codes out of range. Nothing is counted then.
    pub fn add(
        &mut self,
        known: &[i32],
        transferred: &[i32],
        confidences: Option<&[f32]>,
    ) -> Result<(), TransferError> {
        check_length("transferred labels", transferred.len(), known.len())?;
        if let Some(confidences) = confidences {
            check_length("confidences", confidences.len(), known.len())?;
        }
        check_codes(known, self.labels)?;
        check_codes(transferred, self.labels)?;
        for (row, (&known, &transferred)) in known.iter().zip(transferred).enumerate() {
            let Some(known) = code_index(known) else { continue };
            let sure = confidences.is_none_or(|confidences| confidences[row] >= self.min_confidence);
            match code_index(transferred).filter(|_| sure) {
                Some(transferred) => *self.counts.entry((known, transferred)).or_default() += 1,
                None => self.excluded += 1,
            }
        }
        Ok(())
    }

    /// Rows by (known, transferred), ascending, pairs that do not occur left out.
    #[must_use]
    pub fn confusion(&self) -> BTreeMap<(usize, usize), u64> {
        self.counts.iter().map(|(&pair, &count)| (pair, count)).collect()
    }

    /// The scores of what was counted.
    #[must_use]
    pub fn scores(&self) -> Scores {
        let labels = self.label_scores();
        let compared: u64 = labels.iter().map(|label| label.support).sum();
        let correct: u64 = labels.iter().map(|label| label.correct).sum();
        let rows = compared + self.excluded;
        let weighted = |score: fn(&LabelScore) -> f64| {
            labels.iter().map(|label| label.support as f64 * score(label)).sum::<f64>() / compared.max(1) as f64
        };
        Scores {
            rows,
            compared,
            accuracy: ratio(correct, compared),
            precision: weighted(|label| label.precision),
            recall: weighted(|label| label.recall),
            f1_weighted: weighted(|label| label.f1),
            f1_macro: labels.iter().map(|label| label.f1).sum::<f64>() / labels.len().max(1) as f64,
            excluded_fraction: ratio(self.excluded, rows),
            labels,
        }
    }

    fn label_scores(&self) -> Vec<LabelScore> {
        let mut tallies: BTreeMap<usize, (u64, u64, u64)> = BTreeMap::new();
        for (&(known, transferred), &count) in &self.counts {
            tallies.entry(known).or_default().0 += count;
            tallies.entry(transferred).or_default().1 += count;
            if known == transferred {
                tallies.entry(known).or_default().2 += count;
            }
        }
        let score = |(label, (support, transferred, correct))| LabelScore {
            label,
            support,
            transferred,
            correct,
            precision: ratio(correct, transferred),
            recall: ratio(correct, support),
            f1: ratio(2 * correct, support + transferred),
        };
        tallies.into_iter().map(score).collect()
    }
}

/// One list of labels for two columns that name their categories differently or in another order: the names of both,
/// sorted, and for each category of either its position there.
#[must_use]
pub fn shared_labels(known: &[String], transferred: &[String]) -> (Vec<String>, Vec<i32>, Vec<i32>) {
    let mut names: Vec<String> = known.iter().chain(transferred).cloned().collect();
    names.sort_unstable();
    names.dedup();
    let position = |name: &String| names.binary_search(name).ok().and_then(|p| i32::try_from(p).ok()).unwrap_or(-1);
    let (of_known, of_transferred) = (known.iter().map(position).collect(), transferred.iter().map(position).collect());
    (names, of_known, of_transferred)
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::vocabulary::recode;

    /// scikit-learn 1.9.1: accuracy, precision/recall/f1 weighted, f1 macro of [0,0,1,1,2,2] and [0,1,1,1,0,3].
    #[test]
    fn scores_are_those_of_scikit_learn() -> Result<(), TransferError> {
        let mut agreement = Agreement::new(5, 0.0);
        agreement.add(&[0, 0, 1], &[0, 1, 1], None)?;
        agreement.add(&[1, 2, 2], &[1, 0, 3], None)?;
        let scores = agreement.scores();
        assert_eq!((scores.rows, scores.compared, scores.accuracy, scores.excluded_fraction), (6, 6, 0.5, 0.0));
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-15, "{a} {b}");
        close(scores.precision, (0.5 + 2.0 / 3.0) / 3.0);
        close(scores.recall, 0.5);
        close(scores.f1_weighted, (0.5 + 0.8) / 3.0);
        // Label 3 was never right and label 4 never occurs: 3 counts in the macro mean, 4 does not.
        close(scores.f1_macro, (0.5 + 0.8) / 4.0);
        let table: Vec<_> = scores.labels.iter().map(|l| (l.label, l.support, l.transferred, l.correct)).collect();
        assert_eq!(table, [(0, 2, 2, 1), (1, 2, 3, 2), (2, 2, 0, 0), (3, 0, 1, 0)]);
        assert_eq!(agreement.confusion()[&(2, 3)], 1);
        Ok(())
    }

    #[test]
    fn unknown_rows_are_dropped_and_unsure_rows_excluded() -> Result<(), TransferError> {
        let mut agreement = Agreement::new(2, 0.5);
        agreement.add(&[-1, 0, 0, 1, 1], &[0, 0, 1, -1, 1], Some(&[1.0, 0.5, 0.49, 1.0, f32::NAN]))?;
        let scores = agreement.scores();
        assert_eq!((scores.rows, scores.compared, scores.accuracy, scores.excluded_fraction), (4, 1, 1.0, 0.75));
        Ok(())
    }

    #[test]
    fn nothing_to_compare_scores_zero() {
        let scores = Agreement::new(3, 0.0).scores();
        assert_eq!((scores.rows, scores.accuracy, scores.f1_macro, scores.labels.len()), (0, 0.0, 0.0, 0));
        assert!(!scores.precision.is_nan() && !scores.excluded_fraction.is_nan());
    }

    #[test]
    fn what_does_not_fit_is_refused_and_nothing_is_counted() {
        let mut agreement = Agreement::new(2, 0.0);
        assert!(agreement.add(&[0], &[0, 1], None).is_err());
        assert!(agreement.add(&[0], &[0], Some(&[])).is_err());
        assert!(agreement.add(&[0, 2], &[0, 0], None).is_err());
        assert!(agreement.add(&[0, 0], &[0, -2], None).is_err());
        assert_eq!(agreement, Agreement::new(2, 0.0));
    }

    #[test]
    fn two_lists_of_categories_share_their_names() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let (labels, known, transferred) = shared_labels(&names(&["b", "a"]), &names(&["c", "b"]));
        assert_eq!(
            (labels, known.as_slice(), transferred.as_slice()),
            (names(&["a", "b", "c"]), &[1, 0][..], &[2, 1][..])
        );
        let mut codes = [0, 1, -1];
        recode(&mut codes, &transferred);
        assert_eq!(codes, [2, 1, -1]);
    }
}
