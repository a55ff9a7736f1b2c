//! The output: one AnnData, zarr v3. Row arrays are sharded by work unit and written a whole shard at a time.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use zarrs::array::builder::ArrayBuilderFillValue;
use zarrs::array::codec::{Crc32cCodec, ShardingCodecOptions, SubchunkWriteOrder, ZstdCodec};
use zarrs::array::data_type;
use zarrs::array::{
    Array, ArrayBuilder, ArrayError, ArrayMetadataOptions, CodecOptions, CodecSpecificOptions, DataType,
};
use zarrs::metadata::FillValueMetadata;
use zarrs::storage::StorageError;

use super::folder::{FileRecord, Folder, from_io};
use crate::error::StoreError;
use crate::units::{INNER_ROWS, UNIT_ROWS};

/// Fast, and within a few percent of level 3 on float bits and row ids.
const ZSTD_LEVEL: i32 = 1;

/// Values to write, row-major.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Values {
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    U8(Vec<u8>),
    F16(Vec<half::f16>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    Strings(Vec<String>),
}

/// Does the same for every kind of values.
macro_rules! each_kind {
    ($values:expr, $v:ident => $body:expr) => {
        match $values {
            Values::I8($v) => $body,
            Values::I16($v) => $body,
            Values::I32($v) => $body,
            Values::I64($v) => $body,
            Values::U8($v) => $body,
            Values::F16($v) => $body,
            Values::F32($v) => $body,
            Values::F64($v) => $body,
            Values::Bool($v) => $body,
            Values::Strings($v) => $body,
        }
    };
}

impl Values {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        each_kind!(self, v => v.len())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends values of the same kind.
    ///
    /// # Panics
    /// When they are of another kind: an array has one.
    pub fn append(&mut self, other: Self) {
        match (self, other) {
            (Self::I8(a), Self::I8(b)) => a.extend(b),
            (Self::I16(a), Self::I16(b)) => a.extend(b),
            (Self::I32(a), Self::I32(b)) => a.extend(b),
            (Self::I64(a), Self::I64(b)) => a.extend(b),
            (Self::U8(a), Self::U8(b)) => a.extend(b),
            (Self::F16(a), Self::F16(b)) => a.extend(b),
            (Self::F32(a), Self::F32(b)) => a.extend(b),
            (Self::F64(a), Self::F64(b)) => a.extend(b),
            (Self::Bool(a), Self::Bool(b)) => a.extend(b),
            (Self::Strings(a), Self::Strings(b)) => a.extend(b),
            (a, b) => panic!("{:?} after {:?}", b.kind(), a.kind()),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::I8(_) => Kind::I8,
            Self::I16(_) => Kind::I16,
            Self::I32(_) => Kind::I32,
            Self::I64(_) => Kind::I64,
            Self::U8(_) => Kind::U8,
            Self::F16(_) => Kind::F16,
            Self::F32(_) => Kind::F32,
            Self::F64(_) => Kind::F64,
            Self::Bool(_) => Kind::Bool,
            Self::Strings(_) => Kind::String,
        }
    }

    /// Appends zeros (or empty strings) up to `len`: the part of a shard beyond the array's end.
    #[allow(clippy::default_trait_access)] // the default is of another type in every arm
    fn pad(&mut self, len: usize) {
        each_kind!(self, v => v.resize(len, Default::default()));
    }
}

/// What an array holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    I8,
    I16,
    I32,
    I64,
    U8,
    F16,
    F32,
    F64,
    Bool,
    String,
}

impl Kind {
    fn zarr(self) -> (DataType, ArrayBuilderFillValue) {
        match self {
            Self::I8 => (data_type::int8(), 0_i8.into()),
            Self::I16 => (data_type::int16(), 0_i16.into()),
            Self::I32 => (data_type::int32(), 0_i32.into()),
            Self::I64 => (data_type::int64(), 0_i64.into()),
            Self::U8 => (data_type::uint8(), 0_u8.into()),
            Self::F16 => (data_type::float16(), half::f16::ZERO.into()),
            Self::F32 => (data_type::float32(), 0_f32.into()),
            Self::F64 => (data_type::float64(), 0_f64.into()),
            Self::Bool => (data_type::bool(), FillValueMetadata::from(false).into()),
            Self::String => (data_type::string(), "".into()),
        }
    }

    /// Bytes per value; strings are counted as 24 bytes of handle and 24 of text.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::I16 | Self::F16 => 2,
            Self::I32 | Self::F32 => 4,
            Self::I64 | Self::F64 => 8,
            Self::String => 48,
        }
    }
}

/// A row array to create.
#[derive(Clone, Debug)]
pub struct ArraySpec {
    /// Path in the store, for example `obsm/knn_indices`.
    pub path: String,
    /// What it holds.
    pub kind: Kind,
    /// Rows.
    pub rows: u64,
    /// Columns; `None` for a one-dimensional array.
    pub width: Option<u64>,
    /// Rows per shard; [`UNIT_ROWS`], but for CSR entries, which follow their rows.
    pub shard_rows: u64,
    /// Rows per inner chunk.
    pub inner_rows: u64,
    /// Whether inner chunks are compressed; all of them carry a checksum.
    pub compressed: bool,
    /// `encoding-type` and whatever else belongs in the attributes.
    pub attributes: Map<String, Value>,
}

impl ArraySpec {
    /// `rows` values, or rows of `width`, in shards of one work unit, encoded as AnnData's `array` or `string-array`.
    #[must_use]
    pub fn rows(path: &str, kind: Kind, rows: u64, width: Option<u64>) -> Self {
        let encoding = if kind == Kind::String { "string-array" } else { "array" };
        Self {
            path: path.to_owned(),
            kind,
            rows,
            width,
            shard_rows: UNIT_ROWS,
            inner_rows: INNER_ROWS,
            compressed: true,
            attributes: encoding_attributes(encoding, "0.2.0"),
        }
    }

    /// CSR entries: as many per shard as a unit of rows with `per_row` entries each has.
    #[must_use]
    pub fn entries(path: &str, kind: Kind, entries: u64, per_row: u64) -> Self {
        let spec = Self::rows(path, kind, entries, None);
        Self { shard_rows: UNIT_ROWS * per_row, inner_rows: INNER_ROWS * per_row, ..spec }
    }
}

/// AnnData's `encoding-type` and `encoding-version`.
#[must_use]
pub fn encoding_attributes(kind: &str, version: &str) -> Map<String, Value> {
    let mut attributes = Map::new();
    attributes.insert("encoding-type".to_owned(), json!(kind));
    attributes.insert("encoding-version".to_owned(), json!(version));
    attributes
}

/// A sharded row array being written. Shards may be written in any order, each by one thread, each once.
#[derive(Debug)]
pub struct RowArray {
    folder: Arc<Folder>,
    array: Array<Folder>,
    spec: ArraySpec,
}

impl RowArray {
    /// Creates the array: its metadata, or nothing where the same metadata is there already.
    ///
    /// # Errors
    /// Any I/O error, or a shape that zarr refuses.
    pub fn create(folder: &Arc<Folder>, spec: ArraySpec) -> Result<Self, StoreError> {
        let columns = spec.width.map(|width| width.max(1));
        let shape = |rows: u64| std::iter::once(rows).chain(columns).collect::<Vec<u64>>();
        let (data_type, fill) = spec.kind.zarr();
        let full_shape: Vec<u64> = std::iter::once(spec.rows).chain(spec.width).collect();
        let mut builder = ArrayBuilder::new(full_shape, shape(spec.shard_rows), data_type, fill);
        builder
            .subchunk_shape(shape(spec.inner_rows))
            .bytes_to_bytes_codecs(codecs(spec.compressed))
            .attributes(spec.attributes.clone())
            // Inner chunks in row order, whatever thread encoded them: the same values are the same bytes.
            .codec_specific_options(
                CodecSpecificOptions::default()
                    .with_option(ShardingCodecOptions::default().with_subchunk_write_order(SubchunkWriteOrder::C)),
            );
        let array = build(folder, &builder, &spec.path)?;
        Ok(Self { folder: Arc::clone(folder), array, spec })
    }

    /// How many shards the array has.
    #[must_use]
    pub fn shards(&self) -> u64 {
        self.spec.rows.div_ceil(self.spec.shard_rows)
    }

    /// What it was created from.
    #[must_use]
    pub fn spec(&self) -> &ArraySpec {
        &self.spec
    }

    /// Writes one shard, whole: its rows, fewer in the last one.
    ///
    /// # Errors
    /// Values that do not fill the shard's rows, any I/O error.
    pub fn write_shard(&self, shard: u64, mut values: Values) -> Result<FileRecord, StoreError> {
        let width = self.spec.width.unwrap_or(1);
        let start = shard * self.spec.shard_rows;
        let rows = self.spec.shard_rows.min(self.spec.rows.saturating_sub(start));
        if values.kind() != self.spec.kind || values.len() as u64 != rows * width {
            return Err(self.refuse(&format!("{} values do not fill shard {shard}", values.len())));
        }
        let full = usize::try_from(self.spec.shard_rows * width).map_err(|e| self.refuse(&e.to_string()))?;
        values.pad(full);
        let indices: Vec<u64> = std::iter::once(shard).chain(self.spec.width.map(|_| 0)).collect();
        store_chunk(&self.folder, &self.array, &indices, &values)
    }

    fn refuse(&self, why: &str) -> StoreError {
        StoreError::Zarr { array: self.spec.path.clone(), why: why.to_owned() }
    }
}

/// Writes a whole one-dimensional array (or a scalar, with `scalar`) as one chunk: categories, manifest values.
///
/// # Errors
/// Any I/O error.
pub fn write_small(
    folder: &Arc<Folder>,
    path: &str,
    values: &Values,
    scalar: bool,
    attributes: Map<String, Value>,
) -> Result<(), StoreError> {
    let (data_type, fill) = values.kind().zarr();
    let shape = if scalar { vec![] } else { vec![values.len() as u64] };
    let chunk = if scalar { vec![] } else { vec![values.len().max(1) as u64] };
    let mut builder = ArrayBuilder::new(shape, chunk, data_type, fill);
    builder.bytes_to_bytes_codecs(codecs(true)).attributes(attributes);
    let array = build(folder, &builder, path)?;
    if values.is_empty() {
        return Ok(());
    }
    let indices = if scalar { vec![] } else { vec![0] };
    store_chunk(folder, &array, &indices, values).map(|_| ())
}

/// Writes a group's metadata.
///
/// # Errors
/// Any I/O error.
pub fn write_group(folder: &Folder, path: &str, attributes: &Map<String, Value>) -> Result<(), StoreError> {
    let metadata = json!({ "zarr_format": 3, "node_type": "group", "attributes": attributes });
    folder.write(&metadata_key(path), pretty(&metadata).as_bytes()).map(|_| ())
}

/// Writes the root group with the metadata of every node below it, so that opening reads one file.
///
/// # Errors
/// Any I/O error, or a node whose metadata is not JSON.
pub fn consolidate(folder: &Folder, nodes: &[String], attributes: &Map<String, Value>) -> Result<(), StoreError> {
    let mut metadata = Map::new();
    for node in nodes {
        let key = metadata_key(node);
        let bytes = folder.read(&key)?.ok_or_else(|| StoreError::Missing { path: folder.root().join(&key) })?;
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|error| StoreError::Damaged { array: key, why: error.to_string() })?;
        metadata.insert(node.clone(), value);
    }
    let root = json!({
        "zarr_format": 3,
        "node_type": "group",
        "attributes": attributes,
        "consolidated_metadata": { "kind": "inline", "must_understand": false, "metadata": metadata },
    });
    folder.write("zarr.json", pretty(&root).as_bytes()).map(|_| ())
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn metadata_key(path: &str) -> String {
    if path.is_empty() { "zarr.json".to_owned() } else { format!("{path}/zarr.json") }
}

fn codecs(compressed: bool) -> Vec<Arc<dyn zarrs::array::BytesToBytesCodecTraits>> {
    // The crc32c comes last, so that it covers the bytes as they lie on the disk. zarrs does not look at it when it
    // decodes a part of a shard, so zstd keeps a checksum of its own.
    let checksum: Arc<dyn zarrs::array::BytesToBytesCodecTraits> = Arc::new(Crc32cCodec::new());
    if compressed { vec![Arc::new(ZstdCodec::new(ZSTD_LEVEL, true)), checksum] } else { vec![checksum] }
}

fn build(folder: &Arc<Folder>, builder: &ArrayBuilder, path: &str) -> Result<Array<Folder>, StoreError> {
    let refuse = |why: String| StoreError::Zarr { array: path.to_owned(), why };
    let array = builder.build(Arc::clone(folder), &format!("/{path}")).map_err(|e| refuse(e.to_string()))?;
    let options = ArrayMetadataOptions::default().with_include_zarrs_metadata(false);
    array.store_metadata_opt(&options).map_err(|error| from_storage(folder, path, error))?;
    Ok(array)
}

fn store_chunk(
    folder: &Folder,
    array: &Array<Folder>,
    indices: &[u64],
    values: &Values,
) -> Result<FileRecord, StoreError> {
    // A chunk of zeros is written too: a file that is not there is then always an error.
    let options = CodecOptions::default().with_store_empty_chunks(true);
    let key = array.chunk_key(indices);
    let result = each_kind!(values, v => array.store_chunk_opt(indices, v.as_slice(), &options));
    result.map_err(|error| match error {
        ArrayError::StorageError(error) => from_storage(folder, key.as_str(), error),
        other => StoreError::Zarr { array: key.as_str().to_owned(), why: other.to_string() },
    })?;
    folder.take_record(key.as_str()).ok_or_else(|| StoreError::Missing { path: folder.root().join(key.as_str()) })
}

fn from_storage(folder: &Folder, path: &str, error: StorageError) -> StoreError {
    match error {
        StorageError::IOError(error) => {
            let copy = error.raw_os_error().map_or_else(
                || std::io::Error::new(error.kind(), error.to_string()),
                std::io::Error::from_raw_os_error,
            );
            from_io("write", &folder.root().join(path), copy)
        }
        other => StoreError::Zarr { array: path.to_owned(), why: other.to_string() },
    }
}
