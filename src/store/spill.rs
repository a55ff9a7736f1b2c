//! Records in buckets on the disk, for sorting what memory does not hold. A bucket is a file that only grows; it is read
//! from its beginning, and is checked while it is read.
//!
//! The files are for this machine and this job alone: whole numbers lie in them as they do in memory.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::IoCounters;
use super::folder::from_io;
use crate::error::StoreError;

/// Bytes read at a time while a bucket is scanned, about.
pub const PIECE_BYTES: u64 = 4 << 20;

/// How much a bucket holds, and the CRC-32C of that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Bytes.
    pub bytes: u64,
    /// Their checksum.
    pub crc32c: u32,
}

/// Buckets of records.
#[derive(Debug)]
pub struct Spill {
    folder: PathBuf,
    extents: Vec<Extent>,
    /// Whether a bucket was written to since it was last synced.
    dirty: Vec<bool>,
    io: Arc<IoCounters>,
}

impl Spill {
    /// Buckets that hold this much, in a folder; what lies there beyond that is cut off. `None` where less lies there.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn open(folder: &Path, extents: Vec<Extent>, io: &Arc<IoCounters>) -> Result<Option<Self>, StoreError> {
        fs::create_dir_all(folder).map_err(|error| from_io("write", folder, error))?;
        let spill = Self { folder: folder.to_owned(), dirty: vec![false; extents.len()], extents, io: Arc::clone(io) };
        for (bucket, extent) in spill.extents.iter().enumerate() {
            let path = spill.path(bucket);
            let fail = |error| from_io("write", &path, error);
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(fail)?;
            if file.metadata().map_err(fail)?.len() < extent.bytes {
                return Ok(None);
            }
            file.set_len(extent.bytes).map_err(fail)?;
        }
        Ok(Some(spill))
    }

    /// What each bucket holds.
    #[must_use]
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Adds to a bucket.
    ///
    /// # Errors
    /// Any I/O error.
    ///
    /// # Panics
    /// When there is no such bucket.
    pub fn append(&mut self, bucket: usize, words: &[u32]) -> Result<(), StoreError> {
        if words.is_empty() {
            return Ok(());
        }
        let path = self.path(bucket);
        let bytes: &[u8] = bytemuck::cast_slice(words);
        let mut file = OpenOptions::new().append(true).open(&path).map_err(|error| from_io("write", &path, error))?;
        file.write_all(bytes).map_err(|error| from_io("write", &path, error))?;
        let extent = &mut self.extents[bucket];
        extent.crc32c = crc32c::crc32c_append(extent.crc32c, bytes);
        extent.bytes += bytes.len() as u64;
        self.dirty[bucket] = true;
        self.io.add_written(bytes.len() as u64);
        Ok(())
    }

    /// Puts everything that was added on the disk.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        for bucket in 0..self.extents.len() {
            if std::mem::take(&mut self.dirty[bucket]) {
                let path = self.path(bucket);
                let fail = |error| from_io("write", &path, error);
                OpenOptions::new().append(true).open(&path).and_then(|file| file.sync_data()).map_err(fail)?;
            }
        }
        Ok(())
    }

    /// Hands out the records of a bucket, of so many words each, in the order in which they were added, some at a time.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] at the end where the bucket is not what was written; those of `each`; any I/O error.
    pub fn scan<E: From<StoreError>>(
        &self,
        bucket: usize,
        record_words: usize,
        mut each: impl FnMut(&[u32]) -> Result<(), E>,
    ) -> Result<(), E> {
        let path = self.path(bucket);
        let fail = |error| from_io("read", &path, error);
        let mut file = File::open(&path).map_err(fail)?;
        let record_bytes = record_words as u64 * 4;
        let mut words = vec![0; usize::try_from(piece_bytes(record_bytes) / 4).unwrap_or(usize::MAX)];
        let (mut left, mut crc) = (self.extents[bucket].bytes, 0);
        while left > 0 {
            let n = usize::try_from(left / 4).unwrap_or(usize::MAX).min(words.len());
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut words[..n]);
            file.read_exact(bytes).map_err(fail)?;
            crc = crc32c::crc32c_append(crc, bytes);
            left -= bytes.len() as u64;
            self.io.add_read(bytes.len() as u64);
            each(&words[..n])?;
        }
        if crc != self.extents[bucket].crc32c {
            let why =
                "its checksum differs; build the index again with --resume, which puts all rows aside anew".to_owned();
            return Err(StoreError::Damaged { array: path.display().to_string(), why }.into());
        }
        Ok(())
    }

    fn path(&self, bucket: usize) -> PathBuf {
        self.folder.join(format!("{bucket:04}"))
    }
}

/// Bytes of whole records that a scan holds.
#[must_use]
pub fn piece_bytes(record_bytes: u64) -> u64 {
    (PIECE_BYTES / record_bytes).max(1) * record_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(spill: &Spill, bucket: usize) -> Result<Vec<u32>, StoreError> {
        let mut all = Vec::new();
        spill.scan(bucket, 2, |records| {
            all.extend_from_slice(records);
            Ok::<(), StoreError>(())
        })?;
        Ok(all)
    }

    #[test]
    fn records_come_back_in_order_and_what_was_not_noted_is_cut_off() -> Result<(), StoreError> {
        let folder = tempfile::tempdir().unwrap();
        let io = IoCounters::new();
        let open = |extents| Spill::open(folder.path(), extents, &io);
        let mut spill = open(vec![Extent::default(); 2])?.unwrap();
        spill.append(1, &[1, 2, 3, 4])?;
        spill.append(0, &[])?;
        spill.sync()?;
        let noted = spill.extents().to_vec();
        spill.append(1, &[5, 6])?;
        assert_eq!((contents(&spill, 0)?, contents(&spill, 1)?), (vec![], vec![1, 2, 3, 4, 5, 6]));
        let mut spill = open(noted.clone())?.unwrap();
        spill.append(1, &[7, 8])?;
        assert_eq!(contents(&spill, 1)?, [1, 2, 3, 4, 7, 8]);
        let longer = vec![noted[0], Extent { bytes: 1000, ..noted[1] }];
        assert!(open(longer)?.is_none());
        Ok(())
    }

    #[test]
    fn long_buckets_are_read_in_whole_records() -> Result<(), StoreError> {
        let folder = tempfile::tempdir().unwrap();
        let mut spill = Spill::open(folder.path(), vec![Extent::default()], &IoCounters::new())?.unwrap();
        let words: Vec<u32> = (0..2_600_001).collect();
        spill.append(0, &words[..2_600_000])?;
        let (mut next, mut pieces) = (0, 0);
        spill.scan(0, 13, |records| {
            assert!(records.len().is_multiple_of(13) && records[0] == next);
            next += u32::try_from(records.len()).unwrap();
            pieces += 1;
            Ok::<(), StoreError>(())
        })?;
        assert_eq!((next, pieces), (2_600_000, 3));
        Ok(())
    }

    #[test]
    fn a_flipped_bit_is_damage() -> Result<(), StoreError> {
        let folder = tempfile::tempdir().unwrap();
        let mut spill = Spill::open(folder.path(), vec![Extent::default()], &IoCounters::new())?.unwrap();
        spill.append(0, &[1, 2, 3, 4])?;
        let path = folder.path().join("0000");
        let mut bytes = fs::read(&path).unwrap();
        bytes[5] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(contents(&spill, 0), Err(StoreError::Damaged { .. })));
        Ok(())
    }
}
