//! The plan of a search: which side stays, how many rows of each at a time, and what that holds, reads and takes.

use super::device::{DevicePlan, device_plan, partition_rows_max};
use super::graph::GraphInput;
use super::lists::ListsInput;
use super::{EngineLimits, MemoryTable, READ_BYTES_PER_SECOND};
use crate::error::PlanError;
use crate::units::{ByteCount, UNIT_ROWS};

/// Partitions that stay are cut this small, so that a long unit has borders to checkpoint at.
const HELD_PARTITION_BYTES: u64 = 64 << 20;
/// Of lists they are larger: where a block meets the list that bounds its queries best in a later partition, it searches the
/// earlier ones without a bound. In partitions of 64 MiB the visits of a million cells took a quarter longer.
const HELD_LISTS_BYTES: u64 = 1 << 30;
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
    /// Bytes of a row in memory, as a reference: fewer than those of its values where it is searched as codes.
    pub row_bytes: u64,
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
    /// Whether what is found is written; else it is handed to whoever asked.
    pub written: bool,
    /// The lists it goes through; `None` where every row is visited.
    pub lists: Option<ListsInput>,
    /// The graph it goes through, which is of the whole reference; `None` where there is none.
    pub graph: Option<GraphInput>,
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
    /// Query rows whose nearest lists are found at a time.
    pub ranked_rows: u64,
    /// Reference rows that candidates are measured against at a time.
    pub window_rows: u64,
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

const ORDERS: [Order; 2] = [Order::ReferenceStays, Order::QueriesStay];

/// Plans a search.
///
/// Both loop orders are laid out with the largest query block that fits; the one that reads fewer bytes is taken, and
/// of two that read the same, the one that holds less.
///
/// # Errors
/// [`PlanError::Budget`] and [`PlanError::DeviceBudget`] with the least that would work.
pub fn plan(input: &SearchInput) -> Result<SearchPlan, PlanError> {
    // A graph of a reference that comes and goes would be built again and again.
    let orders = if input.graph.is_some() { &ORDERS[..1] } else { &ORDERS[..] };
    let layouts: Vec<Layout<'_>> = orders.iter().map(|&order| Layout { input, order }).collect();
    let last = &layouts[layouts.len() - 1];
    let best = layouts
        .iter()
        .filter_map(Layout::largest_that_fits)
        .min_by_key(|plan| (plan.bytes_read.0 + plan.bytes_read.1, plan.memory.total()));
    if let Some(plan) = best {
        return Ok(plan);
    }
    if let Some(device) = last.smallest().device {
        device.within()?;
    }
    let least = layouts.iter().map(Layout::smallest).min_by_key(|plan| plan.memory.total());
    let table = least.map(|plan| plan.memory).unwrap_or_default();
    let advice = match input.graph {
        Some(_) => ", lower --hnsw-m, or use --method ivf",
        None if input.k > 30 => ", or lower k",
        None => "",
    };
    // Nothing fitted, so `within` refuses; were it to accept, the smallest plan would be the plan.
    table.within(input.budget, advice)?;
    Ok(last.smallest())
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
            Order::ReferenceStays if self.input.lists.is_some() && self.input.engine.device.is_none() => {
                HELD_LISTS_BYTES
            }
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
        let lists = self.input.lists.as_ref();
        let all_references = reading(references, partition_rows).saturating_mul(passes);
        let needed = lists.map_or(all_references, |lists| share_of(all_references, lists.share_read(block_rows)));
        let refining = lists.map_or(0, |lists| lists.refining_reads(queries.rows, block_rows));
        let bytes_read = (reading(queries, block_rows), needed.saturating_add(refining));
        let (effort, pairs) = self.effort();
        let read_seconds = (bytes_read.0 as f64 + bytes_read.1 as f64) / READ_BYTES_PER_SECOND;
        SearchPlan {
            order: self.order,
            block_rows,
            partition_rows,
            blocks,
            partitions,
            memory,
            ranked_rows: lists.map_or(block_rows, |lists| lists.ranked_rows(block_rows)),
            window_rows: ListsInput::window_rows(self.input.dim, self.input.budget),
            device: self.input.engine.device.as_ref().map(|device| {
                let ranking = lists.map_or(0, |lists| lists.ranking_device_bytes(block_rows));
                device_plan(device, (block_rows, ranking), partition_rows, partitions)
            }),
            bytes_read,
            bytes_written: queries.rows * (self.input.k * self.slot_bytes() + if self.input.names { 16 } else { 0 }),
            pairs,
            seconds: read_seconds.max(effort / self.input.engine.pairs_per_second),
        }
    }

    /// Pairs as the engine's rate counts them, and as they are.
    fn effort(&self) -> (f64, f64) {
        let SearchInput { queries, references, lists, graph, .. } = self.input;
        let (queries, references) = (queries.rows, references.rows);
        if let Some(lists) = lists {
            return (lists.effort(queries, references), lists.pairs(queries, references));
        }
        let all = queries as f64 * references as f64;
        let Some(graph) = graph else { return (all, all) };
        let (building, searching) = (graph.building(references), queries as f64 * graph.per_query(references));
        (building * graph.waiting(references) + searching, building + searching)
    }

    /// Rows of about `target` bytes: whole chunks of the source where those are not far larger. Fewer where a device
    /// has no room for more beside the block, but never so few that reading them would be slow.
    fn partition_rows(&self, target: u64, block_rows: u64) -> u64 {
        if self.input.graph.is_some() {
            return self.input.references.rows.max(1);
        }
        // What codes take less, an engine may pack into more again.
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
        let group_bytes = if self.input.groups { 4 } else { 0 };
        let (row_bytes, query_bytes) = (references.row_bytes + group_bytes, dim * 4 + group_bytes);
        let unit_rows = queries.rows.min(UNIT_ROWS);
        let found = self.input.lists.as_ref().map_or(*k, |lists| lists.candidates);
        let mut table = MemoryTable::default();
        match self.order {
            Order::ReferenceStays => {
                table.add("references", references.rows * row_bytes);
                let packed = if self.input.graph.is_some() { "graph of the references" } else { "references, packed" };
                table.add(packed, references.rows * engine.bytes_per_reference);
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
        if let Some(lists) = &self.input.lists {
            let resident = partitions.min(2) * partition_rows;
            let ids = if self.order == Order::ReferenceStays { references.rows } else { resident };
            lists.add_memory(&mut table, *dim, block_rows, ids);
        }
        let block_buffers = if self.order == Order::ReferenceStays { blocks.min(2) } else { 1 };
        table.add("query rows", block_buffers * block_rows * query_bytes);
        let lists = self.input.lists.as_ref();
        let ranking = lists.map_or(0, |lists| lists.ranking_bytes(*dim, block_rows));
        table.add("engine, per query", block_rows * engine.bytes_per_query);
        table.add("engine, for the nearest lists", ranking);
        table.add("engine, fixed", engine.bytes_fixed);
        table.add("neighbours of the block", block_rows * found * 12);
        if block_rows < unit_rows {
            table.add("neighbours of the unit", unit_rows * found * 12);
            table.add("checkpoint of the unit", unit_rows * found * 12);
        }
        if let Some(lists) = lists {
            lists.add_refining(&mut table, self.input, block_rows);
        }
        if !self.input.written {
            table.add("reading and decoding", queries.scratch_bytes + references.scratch_bytes);
            return table;
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

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a share of them, 0 to 1
fn share_of(bytes: u64, share: f64) -> u64 {
    (bytes as f64 * share).ceil() as u64
}

/// Bytes read when `side` is read once in pieces: more than it has where its chunks are larger than the pieces.
fn reading(side: &Side, piece_rows: u64) -> u64 {
    let pieces_per_chunk = side.chunk_rows.min(side.rows).div_ceil(piece_rows.max(1)).max(1);
    side.stored_bytes.saturating_mul(pieces_per_chunk)
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
