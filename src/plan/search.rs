//! The plan of a search: which side stays, how many rows of each at a time, and what that holds, reads and takes.

use super::device::{DevicePlan, device_plan, partition_rows_max};
use super::{EngineLimits, MemoryTable, READ_BYTES_PER_SECOND};
use crate::error::PlanError;
use crate::units::{ByteCount, UNIT_ROWS};

/// Partitions that stay are cut this small, so that a long unit has borders to checkpoint at.
const HELD_PARTITION_BYTES: u64 = 64 << 20;
/// Partitions that stream are at least this large, to read well, and at most as large as those that stay.
const STREAMED_PARTITION_BYTES: u64 = 1 << 20;
/// Query rows in a block smaller than a unit, largest first; each divides a unit.
const SMALL_BLOCKS: [u64; 8] = [131_072, 65_536, 32_768, 16_384, 8_192, 4_096, 1_024, 256];
/// Most units in one block: more would lose too much when a run is killed.
const UNITS_PER_BLOCK_MAX: u64 = 64;
/// A name as a `String` (24 bytes of handle) with its text, and its copy on the way to the disk.
const NAME_BYTES: u64 = 2 * 64;

/// One side of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// Rows.
    pub rows: u64,
    /// Bytes on disk.
    pub stored_bytes: u64,
    /// Rows decoded together.
    pub chunk_rows: u64,
    /// Bytes a read holds beyond the buffer it fills.
    pub scratch_bytes: u64,
}

/// What a search's plan follows from.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchInput {
    /// The query.
    pub queries: Side,
    /// The reference.
    pub references: Side,
    /// Dimensions.
    pub dim: u64,
    /// Neighbours per query.
    pub k: u64,
    /// Whether rows carry a group (`--exclude-group`).
    pub groups: bool,
    /// Whether the names of the query are copied.
    pub names: bool,
    /// The engine's limits.
    pub engine: EngineLimits,
    /// Host memory.
    pub budget: ByteCount,
}

/// Which side is read once and which is read again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The whole reference is resident; query blocks stream past it.
    ReferenceStays,
    /// A query block stays while the reference streams past it, once per block.
    QueriesStay,
}

/// How a search runs.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchPlan {
    /// Which side stays.
    pub order: Order,
    /// Query rows resident together: several whole units, or a part of one.
    pub block_rows: u64,
    /// Reference rows resident together.
    pub partition_rows: u64,
    /// How many blocks.
    pub blocks: u64,
    /// How many partitions.
    pub partitions: u64,
    /// Host memory, line by line.
    pub memory: MemoryTable,
    /// Memory of the device, where the engine has one.
    pub device: Option<DevicePlan>,
    /// Bytes of the query and of the reference read from disk.
    pub bytes_read: (u64, u64),
    /// Bytes written.
    pub bytes_written: u64,
    /// Pairs compared.
    pub pairs: f64,
    /// Expected wall time.
    pub seconds: f64,
}

/// Plans a search.
///
/// Both loop orders are laid out with the largest query block that fits; the one that reads fewer bytes is taken, and
/// of two that read the same, the one that holds less.
///
/// # Errors
/// [`PlanError::Budget`] and [`PlanError::DeviceBudget`] with the least that would work.
pub fn plan(input: &SearchInput) -> Result<SearchPlan, PlanError> {
    let layouts = [Order::ReferenceStays, Order::QueriesStay].map(|order| Layout { input, order });
    let best = layouts
        .iter()
        .filter_map(Layout::largest_that_fits)
        .min_by_key(|plan| (plan.bytes_read.0 + plan.bytes_read.1, plan.memory.total()));
    if let Some(plan) = best {
        return Ok(plan);
    }
    if let Some(device) = layouts[1].smallest().device {
        device.within()?;
    }
    let least = layouts.iter().map(Layout::smallest).min_by_key(|plan| plan.memory.total());
    let table = least.map(|plan| plan.memory).unwrap_or_default();
    let advice = if input.k > 30 { ", or lower k" } else { "" };
    // Nothing fitted, so `within` refuses; were it to accept, the smallest plan would be the plan.
    table.within(input.budget, advice)?;
    let smallest = layouts[1].smallest();
    Ok(smallest)
}

struct Layout<'a> {
    input: &'a SearchInput,
    order: Order,
}

impl Layout<'_> {
    fn largest_that_fits(&self) -> Option<SearchPlan> {
        let units = self.input.queries.rows.div_ceil(UNIT_ROWS).clamp(1, UNITS_PER_BLOCK_MAX);
        let several = match self.order {
            // A larger block reads no less when the reference stays.
            Order::ReferenceStays => 1,
            Order::QueriesStay => units,
        };
        let blocks = (2..=several).rev().map(|units| units * UNIT_ROWS).chain(SMALL_BLOCKS);
        // The queries get the memory; a partition takes a small share of it.
        let partition = match self.order {
            Order::ReferenceStays => HELD_PARTITION_BYTES,
            Order::QueriesStay => (self.input.budget.0 / 16).clamp(STREAMED_PARTITION_BYTES, HELD_PARTITION_BYTES),
        };
        let plans = blocks.map(|rows| self.with_block(rows, partition)).chain(std::iter::once(self.smallest()));
        plans.into_iter().find(|plan| {
            plan.memory.total() <= self.input.budget.0 && plan.device.as_ref().is_none_or(DevicePlan::fits)
        })
    }

    fn smallest(&self) -> SearchPlan {
        self.with_block(SMALL_BLOCKS[SMALL_BLOCKS.len() - 1], STREAMED_PARTITION_BYTES)
    }

    fn with_block(&self, block_rows: u64, partition_bytes: u64) -> SearchPlan {
        let SearchInput { queries, references, .. } = self.input;
        let block_rows = block_rows.min(queries.rows.max(1));
        let partition_rows = self.partition_rows(partition_bytes, block_rows);
        let blocks = queries.rows.div_ceil(block_rows);
        let partitions = references.rows.div_ceil(partition_rows);
        let memory = self.memory(block_rows, partition_rows, blocks, partitions);
        let passes = match self.order {
            Order::ReferenceStays => 1,
            Order::QueriesStay => blocks,
        };
        let bytes_read = (reading(queries, block_rows), reading(references, partition_rows).saturating_mul(passes));
        let pairs = queries.rows as f64 * references.rows as f64;
        let read_seconds = (bytes_read.0 as f64 + bytes_read.1 as f64) / READ_BYTES_PER_SECOND;
        SearchPlan {
            order: self.order,
            block_rows,
            partition_rows,
            blocks,
            partitions,
            memory,
            device: self
                .input
                .engine
                .device
                .as_ref()
                .map(|device| device_plan(device, block_rows, partition_rows, partitions)),
            bytes_read,
            bytes_written: queries.rows * (self.input.k * self.slot_bytes() + if self.input.names { 16 } else { 0 }),
            pairs,
            seconds: read_seconds.max(pairs / self.input.engine.pairs_per_second),
        }
    }

    /// Rows of about `target` bytes: whole chunks of the source where those are not far larger. Fewer where a device
    /// has no room for more beside the block, but never so few that reading them would be slow.
    fn partition_rows(&self, target: u64, block_rows: u64) -> u64 {
        let row_bytes = self.input.dim * 4;
        let most = (self.input.engine.partition_bytes_max / row_bytes).max(1);
        let device = self.input.engine.device.as_ref();
        let room = device.map_or(u64::MAX, |device| partition_rows_max(device, block_rows));
        let least = STREAMED_PARTITION_BYTES.min(target) / row_bytes;
        let rows = (target / row_bytes).min(room.max(least)).clamp(1, most);
        let chunk = self.input.references.chunk_rows.max(1);
        let rows = if chunk <= rows { rows / chunk * chunk } else { rows };
        rows.min(self.input.references.rows.max(1))
    }

    /// Bytes of an id and a distance in the output.
    fn slot_bytes(&self) -> u64 {
        if self.input.references.rows < 1 << 31 { 8 } else { 12 }
    }

    fn memory(&self, block_rows: u64, partition_rows: u64, blocks: u64, partitions: u64) -> MemoryTable {
        let SearchInput { queries, references, dim, k, engine, .. } = self.input;
        let row_bytes = dim * 4 + if self.input.groups { 4 } else { 0 };
        let unit_rows = queries.rows.min(UNIT_ROWS);
        let mut table = MemoryTable::default();
        match self.order {
            Order::ReferenceStays => {
                table.add("references", references.rows * row_bytes);
                table.add("references, packed", references.rows * engine.bytes_per_reference);
            }
            Order::QueriesStay => {
                let held = partitions.min(2);
                table.add("reference partitions, one searched and one read", held * partition_rows * row_bytes);
                table.add("reference partition, packed", partition_rows * engine.bytes_per_reference);
                if self.input.groups {
                    table.add("groups of the references", references.rows * 4);
                }
            }
        }
        let block_buffers = if self.order == Order::ReferenceStays { blocks.min(2) } else { 1 };
        table.add("query rows", block_buffers * block_rows * row_bytes);
        table.add("engine, per query", block_rows * engine.bytes_per_query);
        table.add("engine, fixed", engine.bytes_fixed);
        table.add("neighbours of the block", block_rows * k * 12);
        if block_rows < unit_rows {
            table.add("neighbours of the unit", unit_rows * k * 12);
            table.add("checkpoint of the unit", unit_rows * k * 12);
        }
        // One unit's neighbours, both output columns, and the one that is being encoded (padded to a whole shard).
        let column = UNIT_ROWS * k * (self.slot_bytes() - 4);
        table.add("unit being written", unit_rows * k * 12 + 2 * column);
        if self.input.names {
            table.add("names", unit_rows * NAME_BYTES);
        }
        table.add("reading and decoding", queries.scratch_bytes + references.scratch_bytes);
        table
    }
}

/// Bytes read when `side` is read once in pieces: more than it has where its chunks are larger than the pieces.
fn reading(side: &Side, piece_rows: u64) -> u64 {
    let pieces_per_chunk = side.chunk_rows.min(side.rows).div_ceil(piece_rows.max(1)).max(1);
    side.stored_bytes.saturating_mul(pieces_per_chunk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::EngineKind;
    use proptest::prelude::*;

    fn side(rows: u64) -> Side {
        Side { rows, stored_bytes: rows * 200, chunk_rows: 5_000, scratch_bytes: 4 << 20 }
    }

    fn input(queries: u64, references: u64, budget: ByteCount) -> SearchInput {
        SearchInput {
            queries: side(queries),
            references: side(references),
            dim: 50,
            k: 15,
            groups: false,
            names: true,
            engine: EngineLimits {
                kind: EngineKind::Cpu,
                bytes_per_query: 500,
                bytes_per_reference: 220,
                bytes_fixed: 1 << 20,
                partition_bytes_max: 1 << 30,
                pairs_per_second: 1e9,
                device: None,
            },
            budget,
        }
    }

    #[test]
    fn a_small_reference_stays_and_a_large_one_streams() {
        let small = plan(&input(2_000_000, 20_000, ByteCount::mib(512))).unwrap();
        assert_eq!(small.order, Order::ReferenceStays);
        assert_eq!(small.bytes_read, (2_000_000 * 200, 20_000 * 200));
        let large = plan(&input(20_000, 4_000_000, ByteCount::mib(512))).unwrap();
        assert_eq!(large.order, Order::QueriesStay);
        assert_eq!((large.blocks, large.bytes_read), (1, (20_000 * 200, 4_000_000 * 200)));
    }

    #[test]
    fn when_neither_fits_the_larger_query_block_reads_less() {
        let tight = plan(&input(4_000_000, 40_000_000, ByteCount::mib(512))).unwrap();
        let roomy = plan(&input(4_000_000, 40_000_000, ByteCount::mib(4096))).unwrap();
        assert_eq!((tight.order, roomy.order), (Order::QueriesStay, Order::QueriesStay));
        assert!(roomy.bytes_read.1 < tight.bytes_read.1);
    }

    #[test]
    fn a_block_smaller_than_a_unit_has_room_for_its_checkpoint() {
        // Saved or gone on with, a checkpoint holds the whole rows of the unit and those of the block.
        let plan = plan(&input(2_000_000, 4_000_000, ByteCount::mib(200))).unwrap();
        assert!(plan.block_rows < UNIT_ROWS, "{plan:?}");
        let checkpoint = plan.memory.0.iter().find(|(what, _)| what == "checkpoint of the unit");
        assert_eq!(checkpoint.map(|(_, bytes)| *bytes), Some(UNIT_ROWS * 15 * 12));
    }

    #[test]
    fn a_budget_that_cannot_work_is_refused_with_the_least_that_would() {
        let refused = plan(&input(2_000_000, 4_000_000, ByteCount::mib(16))).unwrap_err();
        let PlanError::Budget { needs, .. } = &refused else { panic!("{refused}") };
        assert!(plan(&input(2_000_000, 4_000_000, *needs)).is_ok(), "{refused}");
        assert!(plan(&input(2_000_000, 4_000_000, ByteCount(needs.0 * 9 / 10))).is_err(), "{refused}");
    }

    fn on_a_device(queries: u64, references: u64, memory: ByteCount) -> SearchInput {
        let device = super::super::DeviceLimits {
            memory,
            bytes_per_query: 800,
            bytes_per_reference: 450,
            bytes_fixed: 100 << 20,
            query_rows_max: 200_000,
        };
        let mut input = input(queries, references, ByteCount::mib(8_000));
        input.engine.device = Some(device);
        input
    }

    #[test]
    fn a_block_and_two_partitions_fit_the_device() {
        let device = |plan: &SearchPlan| plan.device.clone().map(|device| device.memory.total()).unwrap_or_default();
        let roomy = plan(&on_a_device(4_000_000, 40_000_000, ByteCount::mib(4_096))).unwrap();
        assert_eq!(roomy.block_rows, 131_072, "the next block has more rows than a buffer");
        let tight = plan(&on_a_device(4_000_000, 40_000_000, ByteCount::mib(160))).unwrap();
        assert!(tight.block_rows < roomy.block_rows && tight.partition_rows < roomy.partition_rows);
        assert!(device(&tight) <= 160 << 20 && device(&roomy) <= 4_096 << 20);
        let small = plan(&on_a_device(1_000, 1_000, ByteCount::mib(4_096))).unwrap();
        assert_eq!(device(&small), (100 << 20) + 1_000 * 800 + 1_000 * 450);
    }

    #[test]
    fn a_device_that_cannot_work_is_refused_with_the_least_memory_that_would() {
        let refused = plan(&on_a_device(2_000_000, 4_000_000, ByteCount::mib(64))).unwrap_err();
        let PlanError::DeviceBudget { needs, .. } = &refused else { panic!("{refused}") };
        assert!(plan(&on_a_device(2_000_000, 4_000_000, *needs)).is_ok(), "{refused}");
        assert!(plan(&on_a_device(2_000_000, 4_000_000, ByteCount(needs.0 * 9 / 10))).is_err(), "{refused}");
    }

    #[test]
    fn a_chunk_larger_than_the_piece_is_counted_as_often_as_it_is_read() {
        let side = Side { rows: 100_000, stored_bytes: 1_000, chunk_rows: 100_000, scratch_bytes: 0 };
        assert_eq!((reading(&side, 100_000), reading(&side, 25_000)), (1_000, 4_000));
    }

    proptest! {
        #[test]
        fn every_plan_fits_its_budget_and_covers_every_row(
            queries in 1_u64..10_000_000, references in 1_u64..10_000_000, mib in 1_u64..8_000, gpu in any::<bool>(),
        ) {
            let budget = ByteCount::mib(mib);
            let on_device = SearchInput { budget, ..on_a_device(queries, references, budget) };
            let input = if gpu { on_device } else { input(queries, references, budget) };
            if let Ok(plan) = plan(&input) {
                prop_assert!(plan.device.as_ref().is_none_or(DevicePlan::fits));
                prop_assert!(plan.device.is_none() || plan.block_rows <= 200_000);
                prop_assert!(plan.memory.total() <= input.budget.0);
                prop_assert!(plan.blocks * plan.block_rows >= queries);
                prop_assert!(plan.partitions * plan.partition_rows >= references);
                prop_assert!(plan.block_rows.is_multiple_of(UNIT_ROWS) || UNIT_ROWS.is_multiple_of(plan.block_rows) || plan.blocks == 1);
            }
        }
    }
}
