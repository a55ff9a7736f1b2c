//! The neighbours store: the border between search and mapping. Written by a search, read row range by row range.

use std::ops::Range;
use std::sync::Arc;

use zarrs::array::{Array, ArraySubset, DataType, ElementOwned, data_type};

use super::IoCounters;
use super::folder::{FileRecord, Folder};
use super::results::{ArraySpec, Kind, RowArray, Values};
use crate::error::StoreError;
use crate::topk::{PADDING, TopK};
use crate::units::K;

/// Where the reference rows are.
pub const INDICES: &str = "obsm/knn_indices";
/// Where their distances are.
pub const DISTANCES: &str = "obsm/knn_distances";

/// Both arrays, being written.
#[derive(Debug)]
pub struct NeighboursWriter {
    indices: RowArray,
    distances: RowArray,
}

/// The type of a column of row numbers: int32 where it reaches.
#[must_use]
pub fn index_kind(rows: u64) -> Kind {
    if rows < 1 << 31 { Kind::I32 } else { Kind::I64 }
}

impl NeighboursWriter {
    /// Creates `obsm/knn_indices` and `obsm/knn_distances` for `rows × k` neighbours among `references` rows.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn create(folder: &Arc<Folder>, rows: u64, k: u64, references: u64) -> Result<Self, StoreError> {
        let indices = ArraySpec::rows(INDICES, index_kind(references), rows, Some(k));
        let distances = ArraySpec::rows(DISTANCES, Kind::F32, rows, Some(k));
        Ok(Self { indices: RowArray::create(folder, indices)?, distances: RowArray::create(folder, distances)? })
    }

    /// Writes one unit's rows. Padding becomes −1 and +∞.
    ///
    /// # Errors
    /// An id that does not fit the column, any I/O error.
    pub fn write_unit(&self, unit: u64, top: TopK) -> Result<Vec<FileRecord>, StoreError> {
        let (ids, distances) = top.into_parts();
        let damaged = |_| StoreError::Zarr { array: INDICES.to_owned(), why: "an id does not fit".to_owned() };
        let indices = match self.indices.spec().kind {
            Kind::I32 => Values::I32(convert(&ids, |id| i32::try_from(id).map_err(damaged), -1)?),
            _ => Values::I64(convert(&ids, |id| i64::try_from(id).map_err(damaged), -1)?),
        };
        drop(ids);
        Ok(vec![self.indices.write_shard(unit, indices)?, self.distances.write_shard(unit, Values::F32(distances))?])
    }
}

fn convert<T: Copy>(ids: &[u64], to: impl Fn(u64) -> Result<T, StoreError>, missing: T) -> Result<Vec<T>, StoreError> {
    ids.iter().map(|&id| if id == PADDING { Ok(missing) } else { to(id) }).collect()
}

/// Both arrays, being read.
#[derive(Debug)]
pub struct Neighbours {
    indices: Array<Folder>,
    distances: Array<Folder>,
    rows: u64,
    k: K,
    name: String,
}

impl Neighbours {
    /// Opens the neighbours of an earlier search.
    ///
    /// # Errors
    /// No such arrays, or arrays of another shape or type than a search writes.
    pub fn open(folder: &Arc<Folder>) -> Result<Self, StoreError> {
        let name = folder.root().display().to_string();
        let open = |path: &str| {
            Array::open(Arc::clone(folder), &format!("/{path}")).map_err(|_| StoreError::MissingKey {
                store: name.clone(),
                key: path.to_owned(),
                near: Vec::new(),
            })
        };
        let (indices, distances) = (open(INDICES)?, open(DISTANCES)?);
        let wrong = |found: String| StoreError::WrongKind {
            array: format!("{name}:{INDICES}"),
            found,
            expected: "neighbours are (rows, k) integers and float32 distances of the same shape".to_owned(),
        };
        let (rows, k) = match (indices.shape(), distances.shape()) {
            ([rows, k], other) if other == [*rows, *k] => (*rows, *k),
            (a, b) => return Err(wrong(format!("of shapes {a:?} and {b:?}"))),
        };
        let k = u32::try_from(k).ok().and_then(|k| K::new(k).ok()).ok_or_else(|| wrong(format!("{k} wide")))?;
        let is = |array: &Array<Folder>, kind: DataType| *array.data_type() == kind;
        let integers = is(&indices, data_type::int32()) || is(&indices, data_type::int64());
        if !integers || !is(&distances, data_type::float32()) {
            return Err(wrong("of another type".to_owned()));
        }
        Ok(Self { indices, distances, rows, k, name })
    }

    /// Opens the neighbours of the store at a path.
    ///
    /// # Errors
    /// As [`Neighbours::open`].
    pub fn open_path(path: &std::path::Path, io: &Arc<IoCounters>) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::Missing { path: path.to_owned() });
        }
        Self::open(&Folder::new(path, io))
    }

    /// Query rows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Slots per query.
    #[must_use]
    pub fn k(&self) -> K {
        self.k
    }

    /// The neighbours of these query rows.
    ///
    /// # Errors
    /// Rows out of range, damaged chunks, rows that are not sorted or hold an id below −1.
    pub fn read(&self, rows: Range<u64>) -> Result<TopK, StoreError> {
        let ids = if *self.indices.data_type() == data_type::int32() {
            self.retrieve::<i32>(&self.indices, &rows)?.into_iter().map(|id| id.try_into().unwrap_or(PADDING)).collect()
        } else {
            self.retrieve::<i64>(&self.indices, &rows)?.into_iter().map(|id| id.try_into().unwrap_or(PADDING)).collect()
        };
        let distances = self.retrieve::<f32>(&self.distances, &rows)?;
        TopK::from_parts(self.k, ids, distances).ok_or_else(|| StoreError::Damaged {
            array: format!("{}:{INDICES}", self.name),
            why: format!("rows {}..{} are not in ascending order of (distance, id)", rows.start, rows.end),
        })
    }

    fn retrieve<T: ElementOwned>(&self, array: &Array<Folder>, rows: &Range<u64>) -> Result<Vec<T>, StoreError> {
        if rows.end > self.rows || rows.start > rows.end {
            return Err(StoreError::OutOfRange {
                array: self.name.clone(),
                rows: self.rows,
                start: rows.start,
                end: rows.end,
            });
        }
        let subset = ArraySubset::new_with_ranges(&[rows.clone(), 0..self.k.get() as u64]);
        array.retrieve_array_subset::<Vec<T>>(&subset).map_err(|error| StoreError::Damaged {
            array: format!("{}:{}", self.name, array.path().as_str().trim_start_matches('/')),
            why: error.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_come_back_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), &IoCounters::new());
        let k = K::new(3).unwrap();
        let mut top = TopK::empty(5, k);
        for row in 0..5 {
            top.set_row(row, &[(0.5, row as u64), (0.5, 40), (1.0, 7)][..row.min(3)]);
        }
        for references in [50, 1 << 33] {
            let writer = NeighboursWriter::create(&folder, 5, 3, references).unwrap();
            let records = writer.write_unit(0, top.clone()).unwrap();
            assert_eq!(records.len(), 2);
            let neighbours = Neighbours::open(&folder).unwrap();
            assert_eq!(neighbours.read(0..5).unwrap(), top);
            assert_eq!(neighbours.read(3..4).unwrap().row(0), top.row(3));
            assert!(neighbours.read(3..6).is_err());
            folder.remove("obsm").unwrap();
        }
    }

    #[test]
    fn rows_that_do_not_fill_the_shard_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), &IoCounters::new());
        let writer = NeighboursWriter::create(&folder, 5, 3, 50).unwrap();
        assert!(writer.write_unit(0, TopK::empty(4, K::new(3).unwrap())).is_err());
    }

    #[test]
    fn no_flipped_byte_becomes_another_neighbour() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), &IoCounters::new());
        let writer = NeighboursWriter::create(&folder, 5, 3, 50).unwrap();
        let mut top = TopK::empty(5, K::new(3).unwrap());
        top.set_row(2, &[(0.5, 7), (0.75, 4)]);
        let records = writer.write_unit(0, top.clone()).unwrap();
        let mut refused = 0;
        for record in &records {
            let path = dir.path().join(&record.path);
            let good = std::fs::read(&path).unwrap();
            for at in 0..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 4;
                std::fs::write(&path, bad).unwrap();
                match Neighbours::open(&folder).unwrap().read(0..5) {
                    Ok(read) => assert_eq!(read, top, "byte {at} of {}", record.path),
                    Err(error) => {
                        assert!(error.to_string().contains("is damaged"), "{error}");
                        refused += 1;
                    }
                }
            }
            std::fs::write(&path, good).unwrap();
        }
        assert!(refused > 100, "only {refused} flips were refused");
    }
}
