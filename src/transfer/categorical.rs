//! Labels: each neighbour votes for its category with its weight; the label is the first category with most votes.
//!
//! Shapes: reference codes, one per reference row; probabilities, query rows × columns. A column is a category that
//! occurs in the reference, in the order of the sorted names (scikit-learn's one-hot order, which CellMapper's
//! argmax follows); missing values, where there are any, are the last column.

use std::collections::HashSet;

use rayon::prelude::*;

use super::{TASK_ROWS, check_codes, check_columns, code_index, index, narrow};
use crate::error::TransferError;
use crate::matrix::MatrixRows;

/// The column of a reference that has no vote.
const NO_VOTE: usize = usize::MAX;

/// One categorical column of the reference, ready to vote. Holds 4 bytes per reference row.
#[derive(Clone, Debug)]
pub struct LabelTransfer {
    codes: Vec<i32>,
    /// The column each category votes for; one more entry, the last, for missing values.
    votes: Vec<usize>,
    /// The category of each column, −1 for missing values.
    columns: Vec<i32>,
}

/// What to write besides labels and confidences, and how sure a label must be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LabelOptions {
    /// Labels with less confidence become missing.
    pub min_confidence: Option<f32>,
    /// Also return every column's probability.
    pub probabilities: bool,
}

/// The labels of some query rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Labels {
    /// Codes into the reference's categories in their stored order; −1 is missing.
    pub codes: Vec<i32>,
    /// The winner's probability, also where `min_confidence` took the label away.
    pub confidences: Vec<f32>,
    /// `rows × columns` row-major, columns as in [`LabelTransfer::columns`]; empty unless asked for.
    pub probabilities: Vec<f32>,
}

impl LabelTransfer {
    /// Labels of the reference: a code into `categories` per row, −1 where missing.
    ///
    /// With a `subset`, only its categories vote and are the columns, in its order; the others' votes are lost, not
    /// shared out, so rows of probabilities may sum to less than 1.
    ///
    /// # Errors
    /// A code out of range; a subset that names an unknown category or one twice.
    pub fn new(codes: Vec<i32>, categories: &[String], subset: Option<&[String]>) -> Result<Self, TransferError> {
        check_codes(&codes, categories.len())?;
        let columns = match subset {
            Some(names) => subset_columns(categories, names)?,
            None => present_columns(&codes, categories),
        };
        let mut votes = vec![NO_VOTE; categories.len() + 1];
        for (column, &code) in columns.iter().enumerate() {
            votes[code_index(code).unwrap_or(categories.len())] = column;
        }
        Ok(Self { codes, votes, columns })
    }

    /// How many reference rows.
    #[must_use]
    pub fn references(&self) -> usize {
        self.codes.len()
    }

    /// The category code of each column of the probabilities, −1 for missing values.
    #[must_use]
    pub fn columns(&self) -> &[i32] {
        &self.columns
    }

    /// Labels, confidences and perhaps probabilities of these rows.
    ///
    /// Votes add up in f64 and are rounded to float32, the type that is written, before they are compared, so a label
    /// is always the first maximum of its row of probabilities. A row without votes gets the first column with
    /// confidence 0, as in CellMapper.
    ///
    /// # Errors
    /// A matrix with columns beyond the reference.
    pub fn transfer(&self, matrix: &MatrixRows, options: &LabelOptions) -> Result<Labels, TransferError> {
        check_columns(matrix, self.codes.len())?;
        let rows = matrix.rows();
        let width = if options.probabilities { self.columns.len() } else { 0 };
        let mut labels =
            Labels { codes: vec![-1; rows], confidences: vec![0.0; rows], probabilities: vec![0.0; rows * width] };
        let mut tasks = Vec::with_capacity(rows.div_ceil(TASK_ROWS));
        let mut probabilities = labels.probabilities.as_mut_slice();
        let outputs = labels.codes.chunks_mut(TASK_ROWS).zip(labels.confidences.chunks_mut(TASK_ROWS));
        for (task, (codes, confidences)) in outputs.enumerate() {
            let (mine, rest) = probabilities.split_at_mut(codes.len() * width);
            probabilities = rest;
            tasks.push((task * TASK_ROWS, codes, confidences, mine));
        }
        tasks.into_par_iter().for_each(|(first, codes, confidences, probabilities)| {
            let mut tally = Tally::new(self.columns.len());
            for (slot, (code, confidence)) in codes.iter_mut().zip(confidences).enumerate() {
                self.vote(matrix.row(first + slot), &mut tally);
                let (column, share) = tally.winner();
                *confidence = share;
                let sure = options.min_confidence.is_none_or(|least| share >= least);
                *code = if sure { self.columns.get(column).copied().unwrap_or(-1) } else { -1 };
                tally.take(&mut probabilities[slot * width..(slot + 1) * width]);
            }
        });
        Ok(labels)
    }

    fn vote(&self, (references, weights): (&[u64], &[f32]), tally: &mut Tally) {
        for (&reference, &weight) in references.iter().zip(weights) {
            let code = self.codes[index(reference)];
            let column = self.votes[code_index(code).unwrap_or(self.votes.len() - 1)];
            if column != NO_VOTE {
                tally.touched.push(column);
                tally.sums[column] += f64::from(weight);
            }
        }
    }
}

/// Categories that occur, sorted by name, then −1 if a value is missing.
fn present_columns(codes: &[i32], categories: &[String]) -> Vec<i32> {
    let mut present = vec![false; categories.len() + 1];
    for &code in codes {
        present[code_index(code).unwrap_or(categories.len())] = true;
    }
    let mut named: Vec<(&String, i32)> = categories.iter().zip(0..).collect();
    named.sort_unstable();
    let mut columns: Vec<i32> = named.into_iter().map(|(_, code)| code).collect();
    columns.retain(|&code| code_index(code).is_some_and(|c| present[c]));
    if present[categories.len()] {
        columns.push(-1);
    }
    columns
}

fn subset_columns(categories: &[String], names: &[String]) -> Result<Vec<i32>, TransferError> {
    let mut seen = HashSet::new();
    let mut columns = Vec::with_capacity(names.len());
    for name in names {
        if !seen.insert(name) {
            return Err(TransferError::Repeated { found: name.clone() });
        }
        let Some((_, code)) = categories.iter().zip(0..).find(|(category, _)| *category == name) else {
            return Err(TransferError::Category { found: name.clone(), known: listed(categories) });
        };
        columns.push(code);
    }
    Ok(columns)
}

/// The names for a message, not all of them when there are thousands.
fn listed(categories: &[String]) -> String {
    let shown = categories.len().min(20);
    let more = if shown < categories.len() { format!(" and {} more", categories.len() - shown) } else { String::new() };
    format!("{}{more}", categories[..shown].join(", "))
}

/// One row's votes. Only the columns that were touched are looked at and cleared, so thousands of categories cost
/// nothing per row.
struct Tally {
    sums: Vec<f64>,
    touched: Vec<usize>,
}

impl Tally {
    fn new(columns: usize) -> Self {
        Self { sums: vec![0.0; columns], touched: Vec::new() }
    }

    /// The first column with most votes, and its votes.
    fn winner(&self) -> (usize, f32) {
        self.touched.iter().fold((0, 0.0), |best, &column| {
            let share = narrow(self.sums[column]);
            if share > best.1 || (share == best.1 && column < best.0) { (column, share) } else { best }
        })
    }

    /// Writes the votes where there is room for them, and clears them.
    fn take(&mut self, probabilities: &mut [f32]) {
        for column in self.touched.drain(..) {
            if let Some(slot) = probabilities.get_mut(column) {
                // A column that was touched twice is cleared already.
                *slot += narrow(self.sums[column]);
            }
            self.sums[column] = 0.0;
        }
    }
}

#[cfg(test)]
#[path = "categorical_tests.rs"]
mod tests;
