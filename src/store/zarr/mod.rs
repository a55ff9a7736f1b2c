//! A zarr array of either format as chunks that are read and decoded one by one. With `disk.rs`, the only code that
//! calls zarrs.
//!
//! Chunks of a shard are fetched by the shard's index and decoded whole by their own codecs, not by zarrs' partial
//! decoders: those skip the crc32c of a chunk.

mod element;
mod files;
mod rows;
mod shards;
mod vector;

#[cfg(test)]
mod files_tests;
#[cfg(test)]
mod rows_tests;
#[cfg(test)]
mod vector_tests;

use std::sync::Arc;

use serde_json::Value;
use zarrs::array::codec::ShardingCodecConfiguration;
use zarrs::array::{
    Array, ArrayBytes, ArrayMetadata, ArrayToBytesCodecTraits, ChunkShape, CodecChain, CodecError, CodecOptions,
};

use crate::error::StoreError;
use crate::store::disk::Disk;
use crate::store::node::{Node, NodeKind, numbers};

pub use element::Element;
pub use rows::ZarrSource;
use shards::{Reserved, Shards};
pub use vector::ZarrVector;

/// Rows of shards whose indexes are kept: one for each of two readers who pass over the array at different places.
const KEPT_ROWS: usize = 2;

/// An array, open for reading.
#[derive(Debug)]
pub struct ZarrArray {
    name: String,
    disk: Arc<Disk>,
    node: Node,
    element: Element,
    shape: Vec<u64>,
    /// Shape of what is in one file: a shard, or a chunk of an array without shards.
    file: Vec<u64>,
    /// Shape of what is decoded together.
    chunk: Vec<u64>,
    array: Array<Disk>,
    codecs: Arc<CodecChain>,
    codec_names: Vec<String>,
    chunk_shape: ChunkShape,
    shards: Option<Shards>,
}

/// A decoded chunk: always of the full chunk shape, row-major, in the machine's byte order.
#[derive(Debug)]
pub(crate) enum Chunk {
    /// Never written: every element is this one.
    Fill(Vec<u8>),
    /// Elements of a fixed size.
    Fixed(Vec<u8>),
    /// Texts, and where each begins and ends.
    Text(Vec<u8>, Vec<usize>),
}

impl ZarrArray {
    /// The array at `path` of a store.
    ///
    /// # Errors
    /// No such array, a group, codecs or a chunk grid that are not supported.
    pub fn open(disk: &Arc<Disk>, path: &str) -> Result<Self, StoreError> {
        let node = Node::required(disk, path)?;
        let name = node.name(disk);
        if node.kind == NodeKind::Group {
            let found = match node.encoding() {
                "" => "a group".to_owned(),
                encoding => format!("a group ({encoding})"),
            };
            return Err(StoreError::WrongKind { array: name, found, expected: "an array is needed".to_owned() });
        }
        let unreadable = |why: String| StoreError::Zarr { array: name.clone(), why };
        let element = Element::of(&node);
        let shape = node.shape();
        let file = file_shape(&node).ok_or_else(|| unreadable("its chunks are not a regular grid".to_owned()))?;
        if file.len() != shape.len() || file.contains(&0) {
            return Err(unreadable(format!("chunks of {file:?} do not fit its shape {shape:?}")));
        }
        let array = Array::open(Arc::clone(disk), &format!("/{path}")).map_err(|e| unreadable(e.to_string()))?;
        let (codecs, chunk_shape, shards) = if let Some(configuration) = sharding(&array) {
            let beside = shape.iter().zip(&file).skip(1).map(|(n, per)| n.div_ceil(*per)).product::<u64>();
            let keep = usize::try_from(beside).unwrap_or(usize::MAX).saturating_mul(KEPT_ROWS);
            let (shards, inside) = Shards::new(&configuration, &file, keep).map_err(unreadable)?;
            (Arc::new(inside.codecs), inside.chunk, Some(shards))
        } else {
            let nonzero = |&n: &u64| n.try_into().map_err(|_| unreadable("an empty chunk".to_owned()));
            (array.codecs(), file.iter().map(nonzero).collect::<Result<_, _>>()?, None)
        };
        let chunk = chunk_shape.iter().map(|n| n.get()).collect();
        let (disk, codec_names) = (Arc::clone(disk), codec_names(&node));
        Ok(Self { name, disk, node, element, shape, file, chunk, array, codecs, codec_names, chunk_shape, shards })
    }

    /// The array with its store.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path and attributes.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The type of its elements.
    #[must_use]
    pub fn element(&self) -> &Element {
        &self.element
    }

    /// Its shape.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// The shape of what is decoded together.
    #[must_use]
    pub fn chunk_shape(&self) -> &[u64] {
        &self.chunk
    }

    /// The shape of a shard, if the array has shards.
    #[must_use]
    pub fn shard_shape(&self) -> Option<&[u64]> {
        self.shards.as_ref().map(|_| self.file.as_slice())
    }

    /// Names of the codecs of a chunk, in the order they were applied.
    #[must_use]
    pub fn codec_names(&self) -> &[String] {
        &self.codec_names
    }

    /// Bytes that decoding one chunk takes at most, what comes out and the kept shard indexes not counted.
    pub(crate) fn decode_bytes(&self) -> u64 {
        let decoded = self.chunk_bytes();
        // Nothing is stored much larger than it is. A checksum copies what it checks, and a codec that works on
        // elements copies what it turns round; gzip grows its buffer as it goes.
        let encoded = decoded + decoded / 8 + 4096;
        let has = |name: &str| self.codec_names.iter().any(|n| n == name);
        let checked = if has("crc32c") { encoded } else { 0 };
        let turned = if has("transpose") || has("order F") || has("gzip") { decoded } else { 0 };
        encoded + checked + turned
    }

    /// Bytes of one decoded chunk; an estimate for texts.
    pub(crate) fn chunk_bytes(&self) -> u64 {
        let element = self.element.bytes().map_or(48, |bytes| bytes as u64);
        self.chunk.iter().fold(element, |bytes, n| bytes.saturating_mul(*n))
    }

    /// Bytes that the kept shard indexes take at most, and those of this many rows of chunks that are being read.
    pub(crate) fn index_bytes(&self, reading: usize) -> u64 {
        let beside = (1..self.shape.len()).map(|axis| self.files_along(axis)).fold(1, u64::saturating_mul);
        let rows = (KEPT_ROWS + reading) as u64;
        self.shards.as_ref().map_or(0, |shards| shards.index_bytes().saturating_mul(beside).saturating_mul(rows))
    }

    /// Forgets the kept shard indexes.
    pub(crate) fn release(&self) {
        if let Some(shards) = &self.shards {
            shards.release();
        }
    }

    /// Shards along an axis, or chunks of an array without.
    pub(crate) fn files_along(&self, axis: usize) -> u64 {
        self.shape[axis].div_ceil(self.file[axis])
    }

    /// Reserves the shards of a row of chunks, so that their indexes are read once however its chunks are read. Rows
    /// that are reserved in order share the shards that they have in common.
    pub(crate) fn reserve(&self, row: u64) -> Reserved {
        let Some(shards) = &self.shards else { return Reserved::default() };
        let mut at = vec![0; self.shape.len()];
        at[0] = row / shards.per_shard[0];
        let beside = if at.len() > 1 { self.files_along(1) } else { 1 };
        let key = |column: u64| {
            if let Some(second) = at.get_mut(1) {
                *second = column;
            }
            self.array.chunk_key(&at).as_str().to_owned()
        };
        shards.reserve((0..beside).map(key).collect())
    }

    /// Reads and decodes the chunk at this place of the grid of chunks, in a row that is reserved.
    pub(crate) fn chunk(&self, at: &[u64], reserved: &Reserved) -> Result<Chunk, StoreError> {
        let Some((key, encoded)) = self.encoded(at, reserved)? else {
            return Ok(Chunk::Fill(self.array.fill_value().as_ne_bytes().to_vec()));
        };
        let damaged = |why: String| self.damaged(&key, &why);
        self.check_zstd(&encoded).map_err(damaged)?;
        let options = CodecOptions::default().with_concurrent_target(1);
        let (data_type, fill) = (self.array.data_type(), self.array.fill_value());
        let decoded =
            self.codecs.decode(encoded.into(), &self.chunk_shape, data_type, fill, &options).map_err(|e| match e {
                CodecError::InvalidChecksum => damaged("its checksum differs".to_owned()),
                other => damaged(other.to_string()),
            })?;
        match decoded {
            ArrayBytes::Fixed(bytes) => Ok(Chunk::Fixed(bytes.into_owned())),
            ArrayBytes::Variable(texts) => {
                let (bytes, offsets) = texts.into_parts();
                Ok(Chunk::Text(bytes.into_owned(), offsets.to_vec()))
            }
            ArrayBytes::Optional(_) => Err(damaged("optional elements are not supported".to_owned())),
        }
    }

    fn damaged(&self, key: &str, why: &str) -> StoreError {
        StoreError::Damaged { array: self.name.clone(), why: format!("a chunk of {key} does not decode: {why}") }
    }

    /// The key of its file and the encoded bytes of a chunk, or `None` when it was never written.
    fn encoded(&self, at: &[u64], reserved: &Reserved) -> Result<Option<(String, Vec<u8>)>, StoreError> {
        let Some(shards) = &self.shards else {
            let key = self.array.chunk_key(at).as_str().to_owned();
            return Ok(self.disk.read(&key)?.map(|bytes| (key, bytes)));
        };
        let inside: Vec<u64> = at.iter().zip(&shards.per_shard).map(|(at, per)| at % per).collect();
        let beside = at.get(1).map_or(0, |at| at / shards.per_shard[1]);
        let reserved = (reserved, usize::try_from(beside).unwrap_or(usize::MAX));
        let of_array = |e: StoreError| match e {
            StoreError::Damaged { array: file, why } => self.damaged(&file, &why),
            other => other,
        };
        let Some((key, offset, len)) = shards.place(&self.disk, reserved, &inside).map_err(of_array)? else {
            return Ok(None);
        };
        let bytes = self.disk.read_range(key, offset, len).map_err(of_array)?;
        // Its index was read from it, so it is no shard that was never written.
        bytes.map(|bytes| Some((key.to_owned(), bytes))).ok_or_else(|| self.damaged(key, "the file is gone"))
    }

    /// Refuses a zstd frame that says it holds far more than a chunk: zstd would allocate what a damaged header says.
    fn check_zstd(&self, encoded: &[u8]) -> Result<(), String> {
        let says = if self.codec_names.last().is_some_and(|n| n == "zstd") { zstd_content(encoded) } else { None };
        let limit = self.chunk_bytes().saturating_mul(4).saturating_add(1 << 20);
        match (says, self.element.bytes()) {
            (Some(says), Some(_)) if says > limit => Err(format!("its zstd frame says it holds {says} bytes")),
            _ => Ok(()),
        }
    }
}

/// The shape of what is in one file, or `None` when the chunks are not a regular grid.
pub(crate) fn file_shape(node: &Node) -> Option<Vec<u64>> {
    if node.zarr_format == 2 {
        return Some(numbers(node.metadata.get("chunks")));
    }
    let grid = node.metadata.get("chunk_grid")?;
    let regular = grid.get("name").and_then(Value::as_str) == Some("regular");
    regular.then(|| numbers(grid.get("configuration").and_then(|c| c.get("chunk_shape"))))
}

/// The sharding codec's configuration where it is the only codec; with others before or after it a shard is decoded whole.
fn sharding(array: &Array<Disk>) -> Option<ShardingCodecConfiguration> {
    let ArrayMetadata::V3(metadata) = array.metadata() else { return None };
    match metadata.codecs.as_slice() {
        [codec] if codec.name() == "sharding_indexed" => codec.to_typed_configuration().ok(),
        _ => None,
    }
}

fn codec_names(node: &Node) -> Vec<String> {
    let named = |codecs: Option<&Value>, key: &str| -> Vec<String> {
        let codecs = codecs.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        codecs.iter().filter_map(|c| c.get(key).and_then(Value::as_str).or(c.as_str())).map(str::to_owned).collect()
    };
    let metadata = &node.metadata;
    if node.zarr_format == 2 {
        let mut names = named(metadata.get("filters"), "id");
        names.extend(metadata.get("compressor").and_then(|c| c.get("id")).and_then(Value::as_str).map(str::to_owned));
        if metadata.get("order").and_then(Value::as_str) == Some("F") {
            names.insert(0, "order F".to_owned());
        }
        return names;
    }
    let outer = metadata.get("codecs").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    match outer {
        [one] if one.get("name").and_then(Value::as_str) == Some("sharding_indexed") => {
            named(one.get("configuration").and_then(|c| c.get("codecs")), "name")
        }
        _ => named(metadata.get("codecs"), "name"),
    }
}

/// The content size that a zstd frame's header gives (RFC 8878, 3.1.1.1).
fn zstd_content(frame: &[u8]) -> Option<u64> {
    let (magic, rest) = frame.split_first_chunk::<4>()?;
    let (&descriptor, rest) = rest.split_first()?;
    if u32::from_le_bytes(*magic) != 0xFD2F_B528 {
        return None;
    }
    let single_segment = descriptor & 0x20 != 0;
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size = rest.get(usize::from(!single_segment) + dictionary..)?;
    match descriptor >> 6 {
        0 if single_segment => size.first().map(|&n| u64::from(n)),
        0 => None,
        1 => size.first_chunk().map(|n| u64::from(u16::from_le_bytes(*n)) + 256),
        2 => size.first_chunk().map(|n| u64::from(u32::from_le_bytes(*n))),
        _ => size.first_chunk().map(|n| u64::from_le_bytes(*n)),
    }
}
