//! What is kept of an unfinished index: the learned centroids, and how far rows have been put aside. Both are checked
//! when they are read; what is damaged counts as none.

use serde::{Deserialize, Serialize};

use super::train::Trained;
use crate::error::Error;
use crate::job::manifest::{EngineRecord, FORMAT};
use crate::job::output::Output;
use crate::store::spill::{Extent, Spill};

/// The learned centroids.
const TRAINED: &str = ".atlasknn/trained";
/// The rows that were put aside.
pub const SPILL: &str = ".atlasknn/spill";

/// How far rows have been put aside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    format: u32,
    /// What found their lists.
    pub engines: Vec<EngineRecord>,
    /// Rows of the reference that are in the buckets.
    pub rows_done: u64,
    /// The first list of each bucket.
    pub bounds: Vec<u64>,
    /// Bytes of each bucket and their checksum.
    buckets: Vec<(u64, u32)>,
    /// Rows of each learned centroid.
    pub counts: Vec<u64>,
    /// The least and the largest value of each dimension, for encodings that need them.
    pub limits: Vec<(f32, f32)>,
}

impl State {
    /// Nothing is done, and buckets begin at these lists.
    #[must_use]
    pub fn new(bounds: Vec<u64>, lists: usize, limits: usize) -> Self {
        Self {
            format: FORMAT,
            engines: Vec::new(),
            rows_done: 0,
            buckets: vec![(0, 0); bounds.len()],
            bounds,
            counts: vec![0; lists],
            limits: vec![(f32::INFINITY, f32::NEG_INFINITY); limits],
        }
    }

    /// What each bucket holds.
    #[must_use]
    pub fn extents(&self) -> Vec<Extent> {
        self.buckets.iter().map(|&(bytes, crc32c)| Extent { bytes, crc32c }).collect()
    }

    /// Puts what the buckets hold on the disk and saves the state of that.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn save(&mut self, output: &Output, spill: &mut Spill) -> Result<(), Error> {
        spill.sync()?;
        self.buckets = spill.extents().iter().map(|extent| (extent.bytes, extent.crc32c)).collect();
        let text = serde_json::to_vec(self).unwrap_or_default();
        let mut bytes = crc32c::crc32c(&text).to_le_bytes().to_vec();
        bytes.extend(text);
        output.save_state(&bytes)
    }

    /// What was saved.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn load(output: &Output) -> Result<Option<Self>, Error> {
        let bytes = output.state()?.unwrap_or_default();
        let state = checked(&bytes).and_then(|text| serde_json::from_slice::<Self>(text).ok());
        Ok(state.filter(|state| state.format == FORMAT))
    }
}

/// Saves the learned centroids.
///
/// # Errors
/// Any I/O error.
pub fn save_trained(output: &Output, trained: &Trained) -> Result<(), Error> {
    let mut bytes = vec![0; 4];
    bytes.extend(trained.counts.iter().flat_map(|count| count.to_le_bytes()));
    bytes.extend(trained.centroids.iter().chain(&trained.patterns).flat_map(|value| value.to_le_bytes()));
    let crc = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    output.folder.write(TRAINED, &bytes)?;
    output.folder.take_record(TRAINED);
    Ok(())
}

/// The learned centroids that were saved, if they are of so many lists and dimensions, with so many values of patterns.
///
/// # Errors
/// Any I/O error.
pub fn load_trained(output: &Output, lists: usize, dim: usize, patterns: usize) -> Result<Option<Trained>, Error> {
    let bytes = output.folder.read(TRAINED)?.unwrap_or_default();
    let length = lists * (8 + 4 * dim) + 4 * patterns;
    let Some(body) = checked(&bytes).filter(|body| body.len() == length) else { return Ok(None) };
    let (counts, values) = body.split_at(lists * 8);
    let mut centroids: Vec<f32> = values.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let patterns = centroids.split_off(lists * dim);
    let counts = counts.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
    Ok(Some(Trained { centroids, counts, patterns }))
}

/// Removes what an index that is finished no longer needs.
///
/// # Errors
/// Any I/O error.
pub fn clean_up(output: &Output) -> Result<(), Error> {
    output.folder.remove(TRAINED)?;
    Ok(output.folder.remove(SPILL)?)
}

/// What follows a checksum that is right.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (crc, body) = bytes.split_first_chunk::<4>()?;
    (crc32c::crc32c(body) == u32::from_le_bytes(*crc)).then_some(body)
}
