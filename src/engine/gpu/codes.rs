//! Rows that an index keeps as codes, on their way to the device: uploaded as they are and decoded there, where that gives
//! the bits that the host would send. It does where rows are compared as they are, since directions are made in f64, and
//! where no value is so small or large that it is kept beside an exponent.

use std::borrow::Cow;
use std::ops::Range;

use super::device::Device;
use super::params::{DecodeParams, Mark};
use super::passes::Pass;
use super::resident::{ROW_THREADS, Stored, buffer, int};
use super::rows::{Rows, SANE, width};
use crate::block::codes::{CodedRows, Codes};
use crate::engine::cpu::exact::is_directional;
use crate::error::EngineError;

/// `kind` in `decode.wgsl`.
pub(super) const HALVES: u32 = 0;
pub(super) const SCALED: u32 = 1;
const PATTERNS: u32 = 2;

/// Bytes of decoded rows that are made at a time.
const PART_BYTES: usize = 2 << 20;
/// Patterns and centroids within these are sane, and so are their sums: one that is not 0 is no smaller than the last bit of
/// the smaller of both.
const SANE_TERMS: Range<f32> = 1.5e-8..6e14;

/// Device bytes that decoding takes beside the rows: a part's codes, lists and centroids, and the table.
pub(super) fn bytes_fixed(dim: usize) -> usize {
    // Four rows at least; a byte of each value, and two of patterns for two values.
    3 * (PART_BYTES + 4 * 16 * width(dim)) + dim.next_multiple_of(2) * 256 * size_of::<f32>()
}

/// Codes that a device can decode.
pub(super) struct Decoding<'a> {
    rows: Rows<'a>,
    coded: &'a CodedRows,
    kind: u32,
    /// What the codes mean.
    table: Vec<f32>,
}

impl<'a> Decoding<'a> {
    /// Of these rows, kept as these codes; `None` where the host has to decode them.
    pub fn of(rows: Rows<'a>, coded: &'a CodedRows) -> Option<Self> {
        let sane = |values: &[f32], range: &Range<f32>| {
            values.iter().all(|value| *value == 0.0 || range.contains(&value.abs()))
        };
        let (kind, table) = match coded.codes() {
            // All of f16 is.
            Codes::Halves(_) => (HALVES, Vec::new()),
            Codes::Scaled(_, scale) => {
                let table = scale.table();
                sane(&table, &SANE).then_some((SCALED, table))?
            }
            Codes::Patterns(_, lists) => {
                let table = lists.patterns.to_rows();
                let terms = sane(&table, &SANE_TERMS) && sane(&lists.centroids, &SANE_TERMS);
                terms.then_some((PATTERNS, table))?
            }
        };
        (!is_directional(rows.metric)).then_some(Self { rows, coded, kind, table })
    }

    /// Uploads and decodes all rows. Their marks are made on the pool.
    pub fn upload(
        &self,
        device: &Device,
        pool: &rayon::ThreadPool,
        what: &'static str,
        pass: &Pass,
    ) -> Result<Stored, EngineError> {
        let (n, dim) = (self.coded.rows(), self.coded.dim());
        let row_bytes = 16 * width(dim);
        let stored = Stored {
            rows: buffer(device, what, n * row_bytes)?,
            marks: buffer(device, what, n * size_of::<Mark>())?,
            n,
        };
        // A multiple of four rows, so that the codes of every part but the last fill words.
        let step = (PART_BYTES / row_bytes).next_multiple_of(4).max(4);
        let rows = step.min(n);
        let made = |label, bytes: usize| buffer(device, label, bytes);
        let put = |to: &wgpu::Buffer, at: usize, bytes: &[u8]| device.queue.write_buffer(to, at as u64, bytes);
        let table = made("meaning of codes", size_of_val(self.table.as_slice()))?;
        put(&table, 0, bytemuck::cast_slice(&self.table));
        let codes = made("codes", self.coded.bytes_of(0..rows).len())?;
        let has_lists = usize::from(self.kind == PATTERNS);
        let lists = made("lists of rows", has_lists * rows * size_of::<u32>())?;
        let centroids = made("centroids of lists", has_lists * rows * dim * size_of::<f32>())?;
        let mut marks = vec![Mark::default(); rows];
        for first in (0..n).step_by(step) {
            let part = first..(first + step).min(n);
            let marks = &mut marks[..part.len()];
            pool.install(|| self.rows.mark_sane(part.clone(), marks));
            put(&stored.marks, first * size_of::<Mark>(), bytemuck::cast_slice(marks));
            put(&codes, 0, &whole_words(self.coded.bytes_of(part.clone())));
            let (of_rows, of_lists) = self.lists(part.clone());
            put(&lists, 0, bytemuck::cast_slice(&of_rows));
            put(&centroids, 0, bytemuck::cast_slice(&of_lists));
            let params = DecodeParams {
                kind: self.kind,
                rows: int(part.len()),
                first: int(first),
                dim: int(dim),
                width: int(width(dim)),
                codes: int(self.coded.codes_per_row()),
                ..DecodeParams::default()
            };
            // What is written for the next part is not there before this one is decoded: the queue keeps their order.
            let mut commands = device.gpu.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let groups = (params.rows * params.width).div_ceil(ROW_THREADS);
            pass.add(device, &mut commands, &[&codes, &table, &lists, &centroids, &stored.rows], &params, groups);
            device.queue.submit([commands.finish()]);
        }
        Ok(stored)
    }

    /// For each of some rows its centroid, and the centroids; nothing of codes that need none.
    fn lists(&self, rows: Range<usize>) -> (Vec<u32>, Vec<f32>) {
        let (mut of_rows, mut centroids, mut last) = (Vec::new(), Vec::new(), None);
        for row in rows {
            let Some((list, centroid)) = self.coded.list(row) else { break };
            if last.replace(list) != Some(list) {
                centroids.extend_from_slice(centroid);
            }
            of_rows.push(int(centroids.len() / self.coded.dim() - 1));
        }
        (of_rows, centroids)
    }
}

/// Bytes with zeros behind them, as many as words of four take.
fn whole_words(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut words = Cow::Borrowed(bytes);
    if !bytes.len().is_multiple_of(4) {
        words.to_mut().resize(bytes.len().next_multiple_of(4), 0);
    }
    words
}

#[cfg(test)]
#[path = "codes_tests.rs"]
mod tests;
