//! The plan of a mapping: weights and transfer over the neighbours of an earlier search, piece by piece.

use super::{MemoryTable, READ_BYTES_PER_SECOND};
use crate::error::PlanError;
use crate::units::{ByteCount, INNER_ROWS, UNIT_ROWS};

/// A slot as it is read and weighed: id and distance read and checked, then column, weight and sorting room.
const BYTES_PER_SLOT: u64 = 48;

/// What a mapping's plan follows from.
#[derive(Clone, Debug, PartialEq)]
pub struct MappingInput {
    /// Query rows.
    pub queries: u64,
    /// Reference rows.
    pub references: u64,
    /// Entries of a row of M: k, and one more with self edges.
    pub per_row: u64,
    /// What must be known of every reference: (what, bytes per row).
    pub per_reference: Vec<(String, u64)>,
    /// Bytes of output per query row.
    pub per_query: u64,
    /// Whether M is written.
    pub matrix: bool,
    /// Sums per reference: 1 for presence, one more per group.
    pub presence_columns: u64,
    /// Threads.
    pub threads: u64,
    /// Host memory.
    pub budget: ByteCount,
}

/// How a mapping runs.
#[derive(Clone, Debug, PartialEq)]
pub struct MappingPlan {
    /// Pieces of 16,384 query rows that are worked on at once.
    pub pieces: u64,
    /// Host memory, line by line.
    pub memory: MemoryTable,
    /// Bytes of neighbours read, over all passes.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Expected wall time.
    pub seconds: f64,
}

/// Plans a mapping: as many pieces at once as there are threads and the budget holds.
///
/// # Errors
/// [`PlanError::Budget`] with the least that would work.
pub fn plan(input: &MappingInput) -> Result<MappingPlan, PlanError> {
    let most = input.threads.clamp(1, UNIT_ROWS / INNER_ROWS);
    let fits = |pieces: &u64| memory(input, *pieces).total() <= input.budget.0;
    let pieces = (1..=most).rev().find(fits).unwrap_or(1);
    let memory = memory(input, pieces).within(input.budget, ", or map fewer keys at a time")?;
    let slots = input.queries * input.per_row;
    let passes = 1 + u64::from(input.matrix) + u64::from(input.presence_columns > 0);
    let bytes_read = slots * 8 * passes;
    let bytes_written = input.queries * input.per_query
        + if input.matrix { slots * 8 + input.queries * 8 } else { 0 }
        + input.presence_columns * input.references * 12;
    let seconds = (bytes_read + bytes_written) as f64 / READ_BYTES_PER_SECOND;
    Ok(MappingPlan { pieces, memory, bytes_read, bytes_written, seconds })
}

fn memory(input: &MappingInput, pieces: u64) -> MemoryTable {
    let mut table = MemoryTable::default();
    for (what, bytes) in &input.per_reference {
        table.add(&format!("{what} of the references"), bytes * input.references);
    }
    table.add("presence sums", input.presence_columns * input.references * 8);
    if input.presence_columns > 0 {
        // A column at a time: its copy for the percentiles, and the scores.
        table.add("presence scores", input.references * 16);
    }
    table.add("neighbours and weights", pieces * INNER_ROWS.min(input.queries) * input.per_row * BYTES_PER_SLOT);
    // Gathered, and padded to whole shards while written.
    table.add("mapped columns of two units", 2 * UNIT_ROWS * input.per_query);
    if input.matrix {
        // Neighbours of the unit in hand, its entries, and the shard that is being encoded.
        table.add("matrix entries of a unit", UNIT_ROWS * input.per_row * 4 * 8);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(budget: ByteCount) -> MappingInput {
        MappingInput {
            queries: 2_000_000,
            references: 1_000_000,
            per_row: 30,
            per_reference: vec![("labels".to_owned(), 4)],
            per_query: 8,
            matrix: false,
            presence_columns: 1,
            threads: 16,
            budget,
        }
    }

    #[test]
    fn fewer_pieces_run_at_once_in_less_memory() {
        assert_eq!(plan(&input(ByteCount::mib(4096))).unwrap().pieces, 8);
        let tight = plan(&input(ByteCount::mib(100))).unwrap();
        assert!(tight.pieces < 8 && tight.memory.total() <= 100 << 20);
    }

    #[test]
    fn sums_that_do_not_fit_are_refused_by_name() {
        let message =
            plan(&MappingInput { references: 1 << 30, ..input(ByteCount::mib(512)) }).unwrap_err().to_string();
        assert!(message.contains("presence") && message.contains("--host-memory"), "{message}");
    }
}
