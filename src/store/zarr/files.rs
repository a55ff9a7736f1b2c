//! What is known of an array's chunk files without decoding them: how large they are, which are not there, and whether they
//! are the same files as before.

use serde_json::{Value, json};

use super::ZarrArray;
use crate::error::StoreError;
use crate::store::Absent;
use crate::store::fingerprint::{SUMMED_FILES, summed_parts};

/// Chunk files looked at for their sizes.
const SAMPLED_FILES: u64 = 64;

/// Chunk files asked for: enough for all of them where shards are large, and a second or two on a slow network.
const ASKED_FILES: u64 = 4096;

impl ZarrArray {
    /// How many files it may have.
    fn file_count(&self) -> u64 {
        (0..self.shape.len()).map(|axis| self.files_along(axis)).fold(1, u64::saturating_mul)
    }

    /// Keys of up to `most` chunk files spread evenly over the array, from the first to the last.
    fn sampled_keys(&self, most: u64) -> impl Iterator<Item = String> {
        let counts: Vec<u64> = (0..self.shape.len()).map(|axis| self.files_along(axis)).collect();
        let files = self.file_count();
        let samples = files.min(most);
        (0..samples).map(move |sample| {
            let last = u128::from(samples.max(2) - 1);
            let mut place =
                u64::try_from(u128::from(sample) * u128::from(files - 1) / last).unwrap_or(files.saturating_sub(1));
            let mut at = vec![0; counts.len()];
            for axis in (0..counts.len()).rev() {
                at[axis] = place % counts[axis];
                place /= counts[axis];
            }
            self.array.chunk_key(&at).as_str().to_owned()
        })
    }

    /// Bytes on disk, from a sample of the chunk files.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn stored_bytes(&self) -> Result<u64, StoreError> {
        let (mut bytes, mut sampled) = (0_u128, 0_u128);
        for key in self.sampled_keys(SAMPLED_FILES) {
            bytes += u128::from(self.disk.stat(&key)?.unwrap_or(0));
            sampled += 1;
        }
        Ok(u64::try_from(bytes * u128::from(self.file_count()) / sampled.max(1)).unwrap_or(u64::MAX))
    }

    /// Which of its chunk files are not there, of up to 4,096 spread evenly over the array; `None` when all
    /// are. What is absent inside a shard was left out by who wrote it, and is not counted.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn absent(&self) -> Result<Option<Absent>, StoreError> {
        let (mut absent, mut asked) = (0, 0);
        for key in self.sampled_keys(ASKED_FILES) {
            absent += u64::from(self.disk.stat(&key)?.is_none());
            asked += 1;
        }
        // Old metadata may have null, which reads as zero.
        let fill = match self.node.metadata.get("fill_value") {
            None | Some(Value::Null) => "0".to_owned(),
            Some(Value::String(text)) => format!("\"{text}\""),
            Some(other) => other.to_string(),
        };
        Ok((absent > 0).then(|| Absent { array: self.name.clone(), absent, asked, files: self.file_count(), fill }))
    }

    /// Refuses an array that lacks a chunk file, where its writer leaves out none. All are asked for, up to the first that is
    /// missing: a damaged shape may speak of any number.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], with what to do; any I/O error.
    pub fn whole(&self, remedy: &str) -> Result<(), StoreError> {
        for key in self.sampled_keys(u64::MAX) {
            if self.disk.stat(&key)?.is_none() {
                let why = format!("its chunk file {key} is missing; {remedy}");
                return Err(StoreError::Damaged { array: self.name.clone(), why });
            }
        }
        Ok(())
    }

    /// Metadata, sizes of a sample of the chunk files, and checksums of parts of some of them. Nothing that copying a
    /// store changes.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn fingerprint(&self) -> Result<Value, StoreError> {
        let mut files = Vec::new();
        for key in self.sampled_keys(SAMPLED_FILES) {
            files.push(json!([key, self.disk.stat(&key)?]));
        }
        let mut sums = Vec::new();
        for (place, key) in self.sampled_keys(SUMMED_FILES).enumerate() {
            let mut sum = 0;
            for (offset, len) in summed_parts(place as u64, self.disk.stat(&key)?.unwrap_or(0)) {
                sum = crc32c::crc32c_append(sum, &self.disk.read_range(&key, offset, len)?.unwrap_or_default());
            }
            sums.push(sum);
        }
        Ok(json!({ "path": self.node.path, "metadata": self.node.metadata, "files": files, "crc32c": sums }))
    }
}
