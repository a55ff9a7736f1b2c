//! Writes an index, shard by shard, each once.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    CENTROIDS, CODEBOOKS, Codec, ENCODING_TYPE, ENCODING_VERSION, Encoding, IDS, LOW, Layout, OFFSETS, RADII, ROWS,
    STEP,
};
use crate::block::patterns::PATTERNS;
use crate::error::StoreError;
use crate::store::folder::{FileRecord, Folder};
use crate::store::results::{ArraySpec, Kind, RowArray, Values, consolidate, write_small};

/// An index being written.
#[derive(Debug)]
pub struct IndexWriter {
    folder: Arc<Folder>,
    rows: RowArray,
    ids: RowArray,
}

impl IndexWriter {
    /// Creates the arrays of rows and ids, with `width` codes per row.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn create(folder: &Arc<Folder>, layout: Layout, encoding: Encoding, width: u64) -> Result<Self, StoreError> {
        let kind = match encoding {
            Encoding::F32 => Kind::F32,
            Encoding::F16 => Kind::F16,
            Encoding::Sq8 | Encoding::Pq => Kind::U8,
        };
        let rows = ArraySpec {
            shard_rows: layout.shard_rows,
            inner_rows: layout.chunk_rows,
            // Coordinates hardly compress, and are read again and again.
            compressed: false,
            attributes: Map::new(),
            ..ArraySpec::rows(ROWS, kind, layout.rows, Some(width))
        };
        let ids = ArraySpec {
            shard_rows: layout.shard_rows,
            inner_rows: layout.ids_chunk_rows,
            attributes: Map::new(),
            ..ArraySpec::rows(IDS, Kind::I64, layout.rows, None)
        };
        Ok(Self {
            folder: Arc::clone(folder),
            rows: RowArray::create(folder, rows)?,
            ids: RowArray::create(folder, ids)?,
        })
    }

    /// Writes one shard of both arrays, whole.
    ///
    /// # Errors
    /// Values that do not fill it, any I/O error.
    pub fn write_shard(&self, shard: u64, codes: Values, ids: &[u64]) -> Result<Vec<FileRecord>, StoreError> {
        let too_large = |_| StoreError::Zarr { array: IDS.to_owned(), why: "an id does not fit".to_owned() };
        let ids = ids.iter().map(|&id| i64::try_from(id).map_err(too_large)).collect::<Result<_, _>>()?;
        Ok(vec![self.rows.write_shard(shard, codes)?, self.ids.write_shard(shard, Values::I64(ids))?])
    }

    /// Writes what is known of the lists: `lists + 1` offsets, `lists × dim` centroids, `lists` radii.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn write_lists(&self, offsets: &[u64], centroids: Vec<f32>, radii: Vec<f32>) -> Result<(), StoreError> {
        let too_large = |_| StoreError::Zarr { array: OFFSETS.to_owned(), why: "too many rows".to_owned() };
        let offsets = offsets.iter().map(|&at| i64::try_from(at).map_err(too_large)).collect::<Result<_, _>>()?;
        write_small(&self.folder, OFFSETS, &Values::I64(offsets), false, Map::new())?;
        self.write_matrix(CENTROIDS, radii.len() as u64, centroids)?;
        write_small(&self.folder, RADII, &Values::F32(radii), false, Map::new())
    }

    /// Writes what codes mean.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn write_codec(&self, codec: Codec) -> Result<(), StoreError> {
        match codec {
            Codec::F32 | Codec::F16 => Ok(()),
            Codec::Sq8(scale) => {
                write_small(&self.folder, LOW, &Values::F32(scale.low), false, Map::new())?;
                write_small(&self.folder, STEP, &Values::F32(scale.step), false, Map::new())
            }
            Codec::Pq(patterns) => {
                self.write_matrix(CODEBOOKS, (patterns.codes() * PATTERNS) as u64, patterns.to_rows())
            }
        }
    }

    /// Writes a matrix that is held in memory as a whole.
    fn write_matrix(&self, path: &str, rows: u64, values: Vec<f32>) -> Result<(), StoreError> {
        let width = values.len() as u64 / rows.max(1);
        let spec = ArraySpec {
            shard_rows: rows,
            inner_rows: rows,
            attributes: Map::new(),
            ..ArraySpec::rows(path, Kind::F32, rows, Some(width))
        };
        RowArray::create(&self.folder, spec)?.write_shard(0, Values::F32(values)).map(|_| ())
    }

    /// Writes the root group, which makes an index of it: last of all.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn finish(&self, manifest: &Value, nodes: &[String]) -> Result<(), StoreError> {
        let mut attributes = Map::new();
        attributes.insert("encoding-type".to_owned(), json!(ENCODING_TYPE));
        attributes.insert("encoding-version".to_owned(), json!(ENCODING_VERSION));
        attributes.insert("manifest".to_owned(), manifest.clone());
        consolidate(&self.folder, nodes, &attributes)
    }
}
