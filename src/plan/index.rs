//! The plan of building an index: how many lists, how many rows at a time, what each stage holds.

use super::device::{DevicePlan, device_plan, partition_rows_max};
use super::sample::sample_rows;
use super::search::Side;
use super::{EngineLimits, MemoryTable, READ_BYTES_PER_SECOND};
use crate::error::PlanError;
use crate::units::ByteCount;

/// Rounds of learning: first on a part of the sample, where most centroids find their place, then on all of it.
///
/// On a million cells of a mixture and on word vectors, 5 rounds on every 4th row and 3 on all give the recall of 10 rounds
/// on all with less than half of the pairs.
const ROUNDS: [(usize, u64); 2] = [(5, 4), (3, 1)];
/// Rounds at the end in which centroids are not moved away from lists with few rows: they settle where rows are.
///
/// On word vectors the recall of 32 lists of 1,200 is 0.003 higher with 5 than with 3, for 2 % more rows in each; with all 8 it
/// is another 0.003, for 5 % more. On a mixture there is nothing to move.
const SETTLING: usize = 5;
/// Rows per list that a part of the sample has at least.
const PART_ROWS_PER_LIST_MIN: u64 = 16;
/// Rows of a block, largest first.
const BLOCKS: [u64; 8] = [131_072, 65_536, 32_768, 16_384, 8_192, 4_096, 1_024, 256];
/// Rows sorted at a time, in bytes of records: more is no faster.
const SORTED_BYTES: u64 = 192 << 20;
/// And at least: a bucket is read again for each part of it that is sorted.
const SORTED_BYTES_MIN: u64 = 4 << 20;
/// Bytes of records in a bucket, about.
const BUCKET_BYTES: u64 = 64 << 20;
/// Most buckets.
const BUCKETS_MAX: u64 = 1_024;
/// A bucket's share of the rows is known from the sample only, so sorting has room for this much more.
const BUCKET_SLACK: u64 = 2;
/// Words of a record beside its row: id (two) and list.
pub const RECORD_WORDS: u64 = 3;
/// Rows that a list has at least on average when their number is chosen.
const ROWS_PER_LIST_MIN: u64 = 64;

/// What an index's plan follows from.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexInput {
    /// The rows.
    pub rows: Side,
    /// Dimensions.
    pub dim: u64,
    /// Lists.
    pub lists: u64,
    /// Whether lists are made in another space than that of the rows.
    pub placed: bool,
    /// Bytes of an encoded row.
    pub code_bytes: u64,
    /// Rows of the sample that patterns are learned from at most, where the encoding has any.
    pub pattern_rows: u64,
    /// Rows of a shard.
    pub shard_rows: u64,
    /// The engine's limits, for one neighbour.
    pub engine: EngineLimits,
    /// Host memory.
    pub budget: ByteCount,
}

/// How an index is built.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexPlan {
    /// Rows in a block, of the sample and of all rows.
    pub block_rows: u64,
    /// Centroids that are compared together.
    pub part_rows: u64,
    /// Rows of the sample.
    pub sample_rows: u64,
    /// Buckets that rows are sorted by first.
    pub buckets: u64,
    /// Rows sorted in memory at a time.
    pub sorted_rows: u64,
    /// What each stage holds, in order: (stage, lines).
    pub stages: Vec<(&'static str, MemoryTable)>,
    /// Memory of the device, where the engine has one.
    pub device: Option<DevicePlan>,
    /// Bytes read: of the reference, and of what was put aside.
    pub bytes_read: (u64, u64),
    /// Bytes written: what is put aside, and the index.
    pub bytes_written: (u64, u64),
    /// Pairs compared.
    pub pairs: f64,
    /// Expected wall time.
    pub seconds: f64,
}

impl IndexPlan {
    /// The stage that holds most.
    #[must_use]
    pub fn memory(&self) -> MemoryTable {
        let tables = self.stages.iter().map(|(_, table)| table);
        tables.max_by_key(|table| table.total()).cloned().unwrap_or_default()
    }
}

/// How many lists suit so many rows: 2√n; fewer for few rows. A search reads n·nprobe/lists rows and compares with all
/// centroids, and building compares each row with all of them.
///
/// A million cells of a mixture are indexed in 2.9, 3.6, 4.5 and 5.6 s with 1.4, 2, 2.6 and 3.2 times √n lists, and the neighbours
/// of all of them at recall 0.99 take 12.9, 11.8, 12.3 and 13.4 s more (2 cores).
#[must_use]
pub fn lists_for(rows: u64) -> u64 {
    (2 * rows.isqrt()).min(rows / ROWS_PER_LIST_MIN).max(1)
}

/// The rounds of learning: in each, every so many rows of the sample are compared with all centroids.
#[must_use]
pub fn rounds(sample_rows: u64, lists: u64) -> Vec<u64> {
    let most = (sample_rows / lists.max(1) / PART_ROWS_PER_LIST_MIN).max(1);
    ROUNDS.iter().flat_map(|&(rounds, stride)| std::iter::repeat_n(stride.min(most), rounds)).collect()
}

/// How many rounds there are at the end in which centroids only settle.
#[must_use]
pub fn settling_rounds() -> usize {
    SETTLING
}

/// Pairs that learning takes.
#[must_use]
pub fn training_pairs(sample_rows: u64, lists: u64) -> u64 {
    let rows: u64 = rounds(sample_rows, lists).iter().map(|stride| sample_rows.div_ceil(*stride)).sum();
    rows.saturating_mul(lists)
}

/// Plans an index.
///
/// # Errors
/// [`PlanError::Budget`] and [`PlanError::DeviceBudget`] with the least that would work.
pub fn plan(input: &IndexInput) -> Result<IndexPlan, PlanError> {
    let fits =
        |plan: &IndexPlan| plan.memory().total() <= input.budget.0 && plan.device.as_ref().is_none_or(DevicePlan::fits);
    let mut sorted = SORTED_BYTES;
    let plans = BLOCKS.iter().map(|&rows| {
        let plan = with_block(input, rows, sorted);
        sorted = (sorted / 2).max(SORTED_BYTES_MIN);
        plan
    });
    if let Some(plan) = plans.into_iter().find(fits) {
        return Ok(plan);
    }
    let least = with_block(input, BLOCKS[BLOCKS.len() - 1], SORTED_BYTES_MIN);
    if let Some(device) = least.device.clone() {
        device.within()?;
    }
    // The sample does not depend on the budget, or the index would.
    least.memory().within(input.budget, ", or lower --lists")?;
    Ok(least)
}

fn with_block(input: &IndexInput, block_rows: u64, sorted_bytes: u64) -> IndexPlan {
    let IndexInput { rows, dim, lists, code_bytes, engine, .. } = input;
    let n = rows.rows;
    let block_rows = block_rows.min(n.max(1));
    let record_bytes = record_bytes(*dim);
    let buckets = n.saturating_mul(record_bytes).div_ceil(BUCKET_BYTES).clamp(1, BUCKETS_MAX).min(*lists);
    let bucket_rows = (n / buckets + 1) * BUCKET_SLACK;
    let sorted_rows = (sorted_bytes / record_bytes).max(1).min(bucket_rows).min(n.max(1));
    let device = engine.device.as_ref();
    let room = device.map_or(u64::MAX, |device| partition_rows_max(device, block_rows)).max(1);
    let part_rows = (engine.partition_bytes_max / (dim * 4).max(1)).max(1).min(room).min(*lists);
    let sample_rows = sample_rows(n, *lists);
    let pairs = training_pairs(sample_rows, *lists) as f64 + *lists as f64 * n as f64;
    // Runs of the sample are in nearly every chunk, so it takes a pass as well. Buckets have as many rows as was expected.
    let passes = n.div_ceil(buckets).div_ceil(sorted_rows).max(1);
    let bytes_read = (rows.stored_bytes.saturating_mul(2), (n * record_bytes).saturating_mul(passes));
    let bytes_written = (n * record_bytes, n * (code_bytes + 8) + lists * (dim * 4 + 16));
    let moved = bytes_read.0 + bytes_read.1 + bytes_written.0 + bytes_written.1;
    IndexPlan {
        block_rows,
        part_rows,
        sample_rows,
        buckets,
        sorted_rows,
        stages: stages(input, block_rows, sample_rows, sorted_rows),
        device: device.map(|device| device_plan(device, (block_rows, 0), part_rows, lists.div_ceil(part_rows))),
        bytes_read,
        bytes_written,
        pairs,
        seconds: pairs / engine.pairs_per_second + moved as f64 / READ_BYTES_PER_SECOND,
    }
}

/// Bytes of a row on its way to its list.
#[must_use]
pub fn record_bytes(dim: u64) -> u64 {
    (dim + RECORD_WORDS) * 4
}

fn stages(input: &IndexInput, block_rows: u64, sample_rows: u64, sorted_rows: u64) -> Vec<(&'static str, MemoryTable)> {
    let IndexInput { rows, dim, lists, engine, .. } = input;
    let row_bytes = dim * 4;
    let centroids = lists * row_bytes;
    let searching = |table: &mut MemoryTable| {
        table.add("centroids, packed", lists * engine.bytes_per_reference);
        table.add("engine, per row of a block", block_rows * engine.bytes_per_query);
        table.add("engine, fixed", engine.bytes_fixed);
        // As the engine hands them out, and as list and distance.
        table.add("nearest centroids of a block", block_rows * 20);
    };
    let mut train = MemoryTable::default();
    train.add("sample", sample_rows * (row_bytes + 8));
    // Learned, compared with, and being summed in float64.
    train.add("centroids", centroids * 5 + lists * 64);
    searching(&mut train);
    train.add("rows of a block", block_rows.min(sample_rows) * row_bytes);
    // What is left of them beside their centroids, and the same again in parts of a few dimensions.
    train.add("rows that patterns are learned from", 2 * input.pattern_rows.min(sample_rows) * row_bytes);
    train.add("reading and decoding", rows.scratch_bytes);
    let mut assign = MemoryTable::default();
    let blocks = 3 + u64::from(input.placed);
    assign.add("rows, one block read, one assigned, one put aside", blocks * block_rows * row_bytes);
    assign.add("rows of a block by bucket", block_rows * record_bytes(*dim));
    assign.add("centroids", 2 * centroids + lists * 16);
    searching(&mut assign);
    assign.add("reading and decoding", rows.scratch_bytes);
    let mut sort = MemoryTable::default();
    sort.add(
        "rows being sorted",
        sorted_rows * (record_bytes(*dim) + 8) + super::SPILL_PIECE_BYTES + record_bytes(*dim),
    );
    sort.add("centroids", 2 * centroids + lists * 64);
    let shard = input.shard_rows.min(rows.rows.next_multiple_of(1024));
    // One filling and one being written: its codes, as chunks, and as a file.
    sort.add("shards, one filled and one written", shard * (2 * (row_bytes + 8) + 3 * (input.code_bytes + 8)));
    vec![("train", train), ("assign", assign), ("sort", sort)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::EngineKind;
    use proptest::prelude::*;

    fn input(rows: u64, lists: u64, budget: ByteCount) -> IndexInput {
        IndexInput {
            rows: Side { rows, stored_bytes: rows * 200, row_bytes: 200, chunk_rows: 16_384, scratch_bytes: 8 << 20 },
            dim: 50,
            lists,
            placed: false,
            code_bytes: 200,
            pattern_rows: 0,
            shard_rows: 131_072,
            engine: EngineLimits {
                kind: EngineKind::Cpu,
                bytes_per_query: 250,
                bytes_per_reference: 220,
                bytes_fixed: 1 << 20,
                partition_bytes_max: 1 << 30,
                pairs_per_second: 1e9,
                device: None,
            },
            budget,
        }
    }

    proptest! {
        #[test]
        fn a_plan_is_within_its_budget_or_refused_with_one_that_works(
            rows in prop_oneof![1_u64..1000, 1_u64..100_000_000],
            mib in 8_u64..4096,
        ) {
            let input = input(rows, lists_for(rows), ByteCount::mib(mib));
            match plan(&input) {
                Ok(plan) => {
                    prop_assert!(plan.memory().total() <= input.budget.0);
                    prop_assert!(plan.block_rows > 0 && plan.sorted_rows > 0 && plan.buckets > 0);
                }
                Err(PlanError::Budget { needs, .. }) => {
                    let again = plan(&IndexInput { budget: needs, ..input });
                    prop_assert!(again.is_ok(), "{again:?}");
                }
                Err(other) => prop_assert!(false, "{other}"),
            }
        }

        #[test]
        fn lists_are_chosen_between_one_and_the_rows(rows in 1_u64..1 << 40) {
            let lists = lists_for(rows);
            prop_assert!(lists >= 1 && lists <= rows && lists < 1 << 32);
        }
    }

    #[test]
    fn twenty_million_rows_are_indexed_within_a_gibibyte() {
        let input = input(20_000_000, lists_for(20_000_000), ByteCount(1 << 30));
        let plan = plan(&input).unwrap();
        assert_eq!((input.lists, plan.block_rows), (8_944, 131_072));
        assert_eq!(plan.stages.len(), 3);
    }

    #[test]
    fn learning_holds_the_block_that_is_compared_beside_the_sample() {
        let input = IndexInput { dim: 2_048, pattern_rows: 16_384, ..input(400_000, 2_528, ByteCount(4 << 30)) };
        let plan = plan(&input).unwrap();
        let (stage, memory) = &plan.stages[0];
        let rows = plan.sample_rows + plan.block_rows + 2 * 16_384;
        assert!(*stage == "train" && memory.total() > rows * 8_192, "{memory:?}");
    }

    #[test]
    fn the_reference_is_read_twice_and_each_bucket_once_for_each_part_of_it_that_is_sorted() {
        // All rows are the sample, and of many rows a part is: nearly every chunk is read for both.
        for rows in [1_000, 100_000, 20_000_000] {
            let plan = plan(&input(rows, lists_for(rows), ByteCount(4 << 30))).unwrap();
            assert_eq!(plan.bytes_read, (2 * rows * 200, rows * 212), "{rows}");
        }
    }

    #[test]
    fn a_sample_that_does_not_fit_is_refused_by_name() {
        let message = plan(&input(1_000_000_000, 1 << 17, ByteCount(1 << 30))).unwrap_err().to_string();
        assert!(message.contains("sample") && message.contains("--lists"), "{message}");
    }
}
