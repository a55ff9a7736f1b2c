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

/// The index of one shard, once somebody has read it.
type Slot = Arc<Mutex<Option<Arc<ShardIndex>>>>;

/// The shards that lie beside each other, with their keys: whoever has them reads each index at most once, together
/// with all who have them too.
#[derive(Debug, Default)]
pub(crate) struct Reserved(Vec<(String, Slot)>);

/// How shards are laid out, and the indexes of those used last.
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
    /// The layout that the sharding codec's metadata describes, for shards of this shape. The last `keep` shards that
    /// were reserved are kept.
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

    /// Bytes that one index takes.
    pub(crate) fn index_bytes(&self) -> u64 {
        self.index_bytes
    }

    /// Reserves the shards with these keys.
    pub(crate) fn reserve(&self, keys: Vec<String>) -> Reserved {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = keys.into_iter().map(|key| {
            let slot = match kept.iter().position(|(k, _)| *k == key).and_then(|at| kept.remove(at)) {
                Some((_, slot)) => slot,
                None => Slot::default(),
            };
            kept.push_back((key.clone(), Arc::clone(&slot)));
            (key, slot)
        });
        let reserved = Reserved(slots.collect());
        let surplus = kept.len().saturating_sub(self.keep);
        kept.drain(..surplus);
        reserved
    }

    /// Forgets the kept indexes.
    pub(crate) fn release(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The key of a reserved shard, and offset and length of a chunk, given by its place in the shard; `None` when it was
    /// never written.
    pub(crate) fn place<'a>(
        &self,
        disk: &Disk,
        (reserved, beside): (&'a Reserved, usize),
        at: &[u64],
    ) -> Result<Option<(&'a str, u64, u64)>, StoreError> {
        let Some((key, slot)) = reserved.0.get(beside) else { return Ok(None) };
        let index = self.index(disk, key, slot)?;
        let place = at.iter().zip(&self.per_shard).fold(0, |place, (at, per)| place * per + at);
        let entry = index.as_ref().as_ref().and_then(|index| index.get(usize::try_from(place).ok()?).copied());
        Ok(entry.filter(|&entry| entry != EMPTY).map(|(offset, len)| (key.as_str(), offset, len)))
    }

    fn index(&self, disk: &Disk, key: &str, slot: &Slot) -> Result<Arc<ShardIndex>, StoreError> {
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
