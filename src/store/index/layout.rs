//! How the arrays of an index are cut into files and chunks. It follows from the shape alone, so the bytes of an index
//! do not depend on the machine that built it.

/// Bytes of float32 rows in one shard, about: what a writer holds of each.
const SHARD_BYTES: u64 = 32 << 20;
/// Bytes of float32 rows that are read and checked together at least: smaller chunks cost more than they save.
const CHUNK_BYTES_MIN: u64 = 4 << 10;
/// Chunks that an average list has. A list that begins and ends anywhere touches one more.
const CHUNKS_PER_LIST: u64 = 4;
/// Most rows of a chunk.
const CHUNK_ROWS_MAX: u64 = 1024;

/// Rows per shard and per chunk of the arrays of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Rows of the index.
    pub rows: u64,
    /// Values per row.
    pub dim: u64,
    /// Rows of a shard, of `rows` and of `ids`.
    pub shard_rows: u64,
    /// Rows of a chunk of `rows`.
    pub chunk_rows: u64,
    /// Rows of a chunk of `ids`, which are small.
    pub ids_chunk_rows: u64,
}

impl Layout {
    /// The layout of `rows × dim` rows in about so many lists, all at least 1.
    #[must_use]
    pub fn new(rows: u64, dim: u64, lists: u64) -> Self {
        let row_bytes = (dim * 4).max(1);
        let per_list = (rows / lists.max(1) / CHUNKS_PER_LIST).max(1);
        let least = CHUNK_BYTES_MIN.div_ceil(row_bytes).next_power_of_two();
        let chunk_rows = per_list.next_power_of_two().max(least).min(CHUNK_ROWS_MAX);
        // Shards of one size, whole chunks, and hardly any padding in the last.
        let shards = rows.saturating_mul(row_bytes).div_ceil(SHARD_BYTES).max(1);
        let shard_rows = rows.div_ceil(shards).max(1).div_ceil(CHUNK_ROWS_MAX) * CHUNK_ROWS_MAX;
        Self { rows, dim, shard_rows, chunk_rows, ids_chunk_rows: CHUNK_ROWS_MAX }
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> u64 {
        self.rows.div_ceil(self.shard_rows)
    }

    /// The rows of a shard.
    #[must_use]
    pub fn shard(&self, shard: u64) -> std::ops::Range<u64> {
        let start = (shard * self.shard_rows).min(self.rows);
        start..self.rows.min(start + self.shard_rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_fill_shards_and_shards_the_array() {
        for (rows, dim, lists) in [
            (1, 1, 1),
            (1000, 50, 10),
            (1 << 20, 50, 4000),
            (150_000, 50, 1500),
            (1 << 33, 1000, 100_000),
            (5, 9000, 5),
        ] {
            let layout = Layout::new(rows, dim, lists);
            assert!(layout.shard_rows.is_multiple_of(layout.chunk_rows), "{layout:?}");
            assert!(layout.shard_rows.is_multiple_of(layout.ids_chunk_rows), "{layout:?}");
            let covered: u64 = (0..layout.shards()).map(|shard| layout.shard(shard)).map(|r| r.end - r.start).sum();
            assert_eq!(covered, rows, "{layout:?}");
            let padding = layout.shards() * layout.shard_rows - rows;
            assert!(padding < layout.shards() * CHUNK_ROWS_MAX, "{layout:?}");
        }
    }

    #[test]
    fn a_list_is_a_few_chunks() {
        let layout = Layout::new(1_000_000, 50, 2_000);
        assert_eq!((layout.chunk_rows, layout.shards()), (128, 6));
        assert_eq!(Layout::new(1_000_000, 2, 10_000).chunk_rows, 512);
        assert_eq!(Layout::new(1_000_000, 50, 10).chunk_rows, CHUNK_ROWS_MAX);
    }
}
