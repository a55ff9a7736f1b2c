//! Where the chunks of a shard lie in its file. A shard's index is read once and kept while readers work in it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use zarrs::array::codec::{ShardingCodecConfiguration, ShardingIndexLocation};
use zarrs::array::data_type::uint64;
use zarrs::array::{ArrayToBytesCodecTraits, BytesRepresentation, ChunkShape, CodecChain, CodecOptions, FillValue};

use crate::error::StoreError;
use crate::store::disk::Disk;

/// Offsets and lengths of a shard's chunks, or `None` for a shard that was never written.
pub(crate) type ShardIndex = Option<Vec<(u64, u64)>>;

/// The offset and length of a chunk that was never written.
const EMPTY: (u64, u64) = (u64::MAX, u64::MAX);

type Slot = Arc<Mutex<Option<Arc<ShardIndex>>>>;

/// How shards are laid out, and the indexes of those in use.
#[derive(Debug)]
pub(crate) struct Shards {
    codecs: CodecChain,
    shape: ChunkShape,
    index_bytes: u64,
    at_end: bool,
    /// Chunks per shard along each axis.
    pub(crate) per_shard: Vec<u64>,
    kept: Mutex<VecDeque<(String, Slot)>>,
    keep: usize,
}

/// Shape and codecs of the chunks inside a shard.
pub(crate) struct Inside {
    /// Shape of a chunk.
    pub(crate) chunk: ChunkShape,
    /// Its codecs.
    pub(crate) codecs: CodecChain,
}

impl Shards {
    /// The layout that the sharding codec's metadata describes, for shards of this shape. The indexes of the last
    /// `keep` shards are kept.
    pub(crate) fn new(
        configuration: &ShardingCodecConfiguration,
        shard: &[u64],
        keep: usize,
    ) -> Result<(Self, Inside), String> {
        let ShardingCodecConfiguration::V1(configuration) = configuration else {
            return Err("its sharding codec is of an unknown version".to_owned());
        };
        let inside = Inside {
            chunk: configuration.chunk_shape.clone(),
            codecs: CodecChain::from_metadata(&configuration.codecs).map_err(|e| e.to_string())?,
        };
        let codecs = CodecChain::from_metadata(&configuration.index_codecs).map_err(|e| e.to_string())?;
        let mut per_shard = Vec::new();
        let mut shape = ChunkShape::new();
        for (&whole, part) in shard.iter().zip(inside.chunk.iter()) {
            let per = if whole.is_multiple_of(part.get()) { whole / part.get() } else { 0 };
            shape.push(per.try_into().map_err(|_| "its chunks do not fill its shards".to_owned())?);
            per_shard.push(per);
        }
        shape.push(std::num::NonZeroU64::MIN.saturating_add(1));
        let encoded = codecs.encoded_representation(&shape, &uint64(), &FillValue::from(u64::MAX));
        let Ok(BytesRepresentation::FixedSize(index_bytes)) = encoded else {
            return Err("its shard index has no fixed size".to_owned());
        };
        let at_end = configuration.index_location == ShardingIndexLocation::End;
        let kept = Mutex::default();
        Ok((Self { codecs, shape, index_bytes, at_end, per_shard, kept, keep }, inside))
    }

    /// Bytes that the kept indexes take at most.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.index_bytes.saturating_mul(self.keep as u64)
    }

    /// Forgets the kept indexes.
    pub(crate) fn release(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Offset and length of a chunk, given by its place in the shard, or `None` when it was never written.
    pub(crate) fn place(&self, disk: &Disk, key: &str, at: &[u64]) -> Result<Option<(u64, u64)>, StoreError> {
        let index = self.index(disk, key)?;
        let place = at.iter().zip(&self.per_shard).fold(0, |place, (at, per)| place * per + at);
        let entry = index.as_ref().as_ref().and_then(|index| index.get(usize::try_from(place).ok()?).copied());
        Ok(entry.filter(|&entry| entry != EMPTY))
    }

    fn index(&self, disk: &Disk, key: &str) -> Result<Arc<ShardIndex>, StoreError> {
        let slot = self.slot(key);
        // Others who need the same shard wait here, so that its index is read once. Nothing below runs in rayon, so
        // a waiting thread can't be given work that waits for itself.
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = slot.as_ref() {
            return Ok(Arc::clone(index));
        }
        let index = Arc::new(self.load(disk, key)?);
        *slot = Some(Arc::clone(&index));
        Ok(index)
    }

    fn slot(&self, key: &str) -> Slot {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = kept.iter().position(|(k, _)| k == key).and_then(|at| kept.remove(at)) {
            let slot = Arc::clone(&found.1);
            kept.push_back(found);
            return slot;
        }
        if kept.len() >= self.keep {
            kept.pop_front();
        }
        let slot = Slot::default();
        kept.push_back((key.to_owned(), Arc::clone(&slot)));
        slot
    }

    fn load(&self, disk: &Disk, key: &str) -> Result<ShardIndex, StoreError> {
        let encoded = if self.at_end {
            disk.read_suffix(key, self.index_bytes)?
        } else {
            disk.read_range(key, 0, self.index_bytes)?
        };
        let Some(encoded) = encoded else { return Ok(None) };
        let damaged = |why: String| StoreError::Damaged { array: disk.path_of(key).display().to_string(), why };
        let options = CodecOptions::default().with_concurrent_target(1);
        let decoded = self
            .codecs
            .decode(encoded.into(), &self.shape, &uint64(), &FillValue::from(u64::MAX), &options)
            .map_err(|e| damaged(format!("its shard index does not decode: {e}")))?;
        let bytes = decoded.into_fixed().map_err(|e| damaged(e.to_string()))?;
        let (pairs, _) = bytes.as_chunks::<16>();
        Ok(Some(
            pairs
                .iter()
                .map(|pair| {
                    let [a, b, c, d, e, f, g, h, rest @ ..] = *pair;
                    (u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes(rest))
                })
                .collect(),
        ))
    }
}
