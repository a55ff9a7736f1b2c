//! Presence scores: how much weight each reference cell gets from all queries together, and from groups of them.
//!
//! Shapes: `references × (1 + groups)` f64 sums, the first of a row over all queries. What is added up are gauss
//! weights that are not normalised, whatever kernel the mapping uses.

use std::ops::Range;

use rayon::prelude::*;

use super::{check_codes, check_length, code_index, narrow};
use crate::error::TransferError;
use crate::topk::{PADDING, TopK};

/// Fewest reference rows that one task adds to: every task reads all neighbours, so small references use one.
const TASK_REFERENCES: usize = 1 << 14;

/// The sums so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Presence {
    references: usize,
    groups: usize,
    sums: Vec<f64>,
}

/// Which sum of a reference row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresenceOf {
    /// Over all queries.
    All,
    /// Over the queries of one group.
    Group(usize),
}

/// How raw sums become scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PresenceOptions {
    /// log(1 + x) first.
    pub log: bool,
    /// Clip at these percentiles, 0 to 100, ascending.
    pub percentiles: (f64, f64),
    /// Stretch to 0..1 at the end.
    pub min_max: bool,
}

/// The same with the percentiles filled in: a function of one sum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PresenceScale {
    log: bool,
    clip: (f64, f64),
    /// Smallest clipped value and 1/span, if stretched; 1/span is 0 where all values are the same.
    stretch: Option<(f64, f64)>,
}

impl Presence {
    /// Nothing added yet.
    #[must_use]
    pub fn new(references: usize, groups: usize) -> Self {
        Self { references, groups, sums: vec![0.0; references * (1 + groups)] }
    }

    /// Continues from sums that were saved.
    ///
    /// # Errors
    /// Sums of another shape.
    pub fn from_sums(references: usize, groups: usize, sums: Vec<f64>) -> Result<Self, TransferError> {
        check_length("saved presence sums", sums.len(), references * (1 + groups))?;
        Ok(Self { references, groups, sums })
    }

    /// The sums, `references × (1 + groups)` row-major, all queries first.
    #[must_use]
    pub fn sums(&self) -> &[f64] {
        &self.sums
    }

    /// How many reference rows.
    #[must_use]
    pub fn references(&self) -> usize {
        self.references
    }

    /// Adds the weights of the next query rows, one per slot of `top`; `groups` has each row's group, −1 for none.
    ///
    /// Every sum is added to in row order by one thread, so the bytes depend neither on blocks nor on threads.
    ///
    /// # Errors
    /// Lengths or groups that do not fit, a neighbour beyond the reference. Nothing is added then.
    pub fn add(&mut self, top: &TopK, weights: &[f64], groups: Option<&[i32]>) -> Result<(), TransferError> {
        check_length("presence weights", weights.len(), top.ids().len())?;
        if let Some(groups) = groups {
            check_length("groups of the query rows", groups.len(), top.rows())?;
            check_codes(groups, self.groups)?;
        }
        let references = self.references as u64;
        if let Some(&row) = top.ids().par_iter().find_first(|&&id| id != PADDING && id >= references) {
            return Err(TransferError::Reference { row, rows: self.references });
        }
        let width = 1 + self.groups;
        let each = self.references.div_ceil(rayon::current_num_threads()).max(TASK_REFERENCES);
        self.sums.par_chunks_mut(each * width).enumerate().for_each(|(task, sums)| {
            let first = task * each;
            let here = first as u64..(first + sums.len() / width) as u64;
            for (row, weights) in weights.chunks_exact(top.k()).enumerate() {
                let group = groups.and_then(|groups| code_index(groups[row]));
                for (&id, &weight) in top.row(row).0.iter().zip(weights) {
                    if here.contains(&id) {
                        let start = usize::try_from(id - here.start).unwrap_or(usize::MAX) * width;
                        sums[start] += weight;
                        if let Some(group) = group {
                            sums[start + 1 + group] += weight;
                        }
                    }
                }
            }
        });
        Ok(())
    }

    /// Raw sums of these reference rows.
    ///
    /// # Panics
    /// When there is no such group or row.
    pub fn raw(&self, of: PresenceOf, rows: Range<usize>) -> impl Iterator<Item = f64> {
        let (width, offset) = (1 + self.groups, self.offset(of));
        self.sums[rows.start * width..rows.end * width].chunks_exact(width).map(move |row| row[offset])
    }

    /// How these sums become scores. Percentiles are numpy's (linear), of the values after the logarithm; the sums are
    /// read a few times over, but not copied.
    ///
    /// # Errors
    /// Percentiles that are not ascending within 0 to 100.
    ///
    /// # Panics
    /// When there is no such group.
    pub fn scale(&self, of: PresenceOf, options: &PresenceOptions) -> Result<PresenceScale, TransferError> {
        let (low, high) = options.percentiles;
        if !(0.0 <= low && low <= high && high <= 100.0) {
            return Err(TransferError::Percentiles { low, high });
        }
        let mut scale = PresenceScale { log: options.log, clip: (f64::NEG_INFINITY, f64::INFINITY), stretch: None };
        if self.references == 0 {
            return Ok(scale);
        }
        let ranked = |rank: usize| scale.logged(nth(|| self.raw(of, 0..self.references), rank));
        let clip = (self.percentile(low, ranked), self.percentile(high, ranked));
        let (least, most) = (ranked(0).clamp(clip.0, clip.1), ranked(self.references - 1).clamp(clip.0, clip.1));
        scale.clip = clip;
        if options.min_max {
            scale.stretch = Some((least, if most > least { (most - least).recip() } else { 0.0 }));
        }
        Ok(scale)
    }

    /// Scores of these reference rows, float32.
    ///
    /// # Panics
    /// When there is no such group or row.
    #[must_use]
    pub fn scores(&self, of: PresenceOf, scale: &PresenceScale, rows: Range<usize>) -> Vec<f32> {
        self.raw(of, rows).map(|sum| narrow(scale.at(sum))).collect()
    }

    fn offset(&self, of: PresenceOf) -> usize {
        match of {
            PresenceOf::All => 0,
            PresenceOf::Group(group) => {
                assert!(group < self.groups, "group {group} of {}", self.groups);
                1 + group
            }
        }
    }

    /// numpy's linear percentile, with its way of interpolating from the nearer end.
    fn percentile(&self, percent: f64, ranked: impl Fn(usize) -> f64) -> f64 {
        let last = self.references - 1;
        let position = percent / 100.0 * last as f64;
        let below = floor(position).min(last);
        let (a, b, t) = (ranked(below), ranked((below + 1).min(last)), position - below as f64);
        if t < 0.5 { a + (b - a) * t } else { b - (b - a) * (1.0 - t) }
    }
}

impl PresenceScale {
    /// The score of a raw sum.
    #[must_use]
    pub fn at(&self, sum: f64) -> f64 {
        let clipped = self.logged(sum).max(self.clip.0).min(self.clip.1);
        self.stretch.map_or(clipped, |(least, per_span)| (clipped - least) * per_span)
    }

    fn logged(&self, sum: f64) -> f64 {
        if self.log { sum.ln_1p() } else { sum }
    }
}

/// A position among at most 2⁵³ rows, rounded down.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn floor(position: f64) -> usize {
    position as usize
}

/// The value of this rank (from 0) in `total_cmp` order, by four passes of 16 bits each: no copy of 1e8 sums is sorted.
fn nth<I: Iterator<Item = f64>>(values: impl Fn() -> I, mut rank: usize) -> f64 {
    let mut prefix = 0_u64;
    for shift in [48_u32, 32, 16, 0] {
        let mut counts = vec![0_usize; 1 << 16];
        for key in values().map(ordered) {
            if shift == 48 || (key ^ prefix) >> (shift + 16) == 0 {
                counts[digit(key, shift)] += 1;
            }
        }
        for (digit, &count) in (0_u64..).zip(&counts) {
            if rank < count {
                prefix |= digit << shift;
                break;
            }
            rank -= count;
        }
    }
    let bits = if prefix >> 63 == 1 { prefix ^ (1 << 63) } else { !prefix };
    f64::from_bits(bits)
}

fn digit(key: u64, shift: u32) -> usize {
    usize::try_from((key >> shift) & 0xffff).unwrap_or(0)
}

/// Bits that compare as integers the way `total_cmp` compares the numbers.
fn ordered(value: f64) -> u64 {
    let bits = value.to_bits();
    if bits >> 63 == 1 { !bits } else { bits ^ (1 << 63) }
}

#[cfg(test)]
#[path = "presence_tests.rs"]
mod tests;
