//! What a search holds in memory of a device's own: queries and top-k, two partitions, and what the engine works in.

use super::{DeviceLimits, MemoryTable, round_up_to_tenth};
use crate::error::PlanError;
use crate::units::ByteCount;

/// Partitions that are on the device at once: one searched and one on its way.
const PARTITIONS: u64 = 2;

/// A search's share of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct DevicePlan {
    /// What it may take.
    pub budget: ByteCount,
    /// What it takes, line by line.
    pub memory: MemoryTable,
    /// Whether blocks are small enough for its buffers.
    pub blocks_fit: bool,
}

impl DevicePlan {
    /// Whether the device holds it.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.blocks_fit && self.memory.total() <= self.budget.0
    }

    /// This plan, if the device holds it.
    ///
    /// # Errors
    /// [`PlanError::DeviceBudget`] with what it would need.
    pub fn within(self) -> Result<Self, PlanError> {
        if self.fits() {
            return Ok(self);
        }
        // Printed in tenths: round up, so that the printed number is one that works.
        let needs = ByteCount(round_up_to_tenth(self.memory.total()));
        Err(PlanError::DeviceBudget { budget: self.budget, needs, why: self.memory.largest(3) })
    }
}

/// Most rows of a partition beside a block of so many queries; 0 where the block alone is too much.
#[must_use]
pub fn partition_rows_max(limits: &DeviceLimits, block_rows: u64) -> u64 {
    let taken = limits.bytes_fixed.saturating_add(block_rows.saturating_mul(limits.bytes_per_query));
    limits.memory.0.saturating_sub(taken) / (PARTITIONS * limits.bytes_per_reference).max(1)
}

/// What lies on the device for blocks and partitions of so many rows, with what the nearest lists of some queries take.
/// Partitions that were searched stay there while there is room, so the table has as many as will.
#[must_use]
pub fn device_plan(
    limits: &DeviceLimits,
    (block_rows, ranking_bytes): (u64, u64),
    partition_rows: u64,
    partitions: u64,
) -> DevicePlan {
    let mut memory = MemoryTable::default();
    let partition = partition_rows.saturating_mul(limits.bytes_per_reference);
    let block = block_rows.saturating_mul(limits.bytes_per_query);
    memory.add("queries and their neighbours", block.saturating_add(ranking_bytes));
    memory.add("survivors and fixed buffers", limits.bytes_fixed);
    let room = limits.memory.0.saturating_sub(memory.total()) / partition.max(1);
    let held = room.max(PARTITIONS).min(partitions);
    memory.add("reference partitions", held.saturating_mul(partition));
    DevicePlan { budget: limits.memory, memory, blocks_fit: block_rows <= limits.query_rows_max }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(memory: u64) -> DeviceLimits {
        DeviceLimits {
            memory: ByteCount(memory),
            bytes_per_query: 1_000,
            bytes_per_reference: 500,
            bytes_fixed: 10_000,
            query_rows_max: 1_000,
        }
    }

    #[test]
    fn what_is_left_beside_the_queries_goes_to_two_partitions() {
        let rows = partition_rows_max(&limits(200_000), 100);
        assert_eq!(rows, 90);
        assert!(device_plan(&limits(200_000), (100, 0), rows, 9).fits());
        assert!(!device_plan(&limits(200_000), (100, 0), rows + 1, 9).fits());
        assert_eq!(partition_rows_max(&limits(100_000), 100), 0);
    }

    #[test]
    fn partitions_stay_while_there_is_room_and_no_more_than_there_are() {
        let held = |partitions| device_plan(&limits(200_000), (100, 0), 20, partitions).memory.total();
        assert_eq!((held(1), held(3), held(9), held(99)), (120_000, 140_000, 200_000, 200_000));
    }

    #[test]
    fn blocks_that_no_buffer_holds_do_not_fit_any_memory() {
        assert!(!device_plan(&limits(1 << 40), (1_001, 0), 1, 1).fits());
    }

    #[test]
    fn what_is_refused_would_work_with_the_memory_it_names() {
        let Err(PlanError::DeviceBudget { needs, why, .. }) = device_plan(&limits(100_000), (100, 0), 50, 4).within()
        else {
            panic!("it was not refused");
        };
        assert!(why.starts_with("queries"), "{why}");
        assert!(device_plan(&limits(needs.0), (100, 0), 50, 4).fits(), "{needs}");
    }
}
