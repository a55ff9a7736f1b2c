//! Arithmetic only: from shapes, budget and engine limits to block sizes, the loop order, and what a run will hold and
//! read. Same input, same plan. What the output looks like follows from n and k alone, never from here.

pub mod device;
pub mod graph;
pub mod index;
pub mod lists;
pub mod mapping;
pub mod sample;
pub mod search;

use crate::error::PlanError;
use crate::metric::EngineKind;
use crate::units::ByteCount;

/// What planning must know of an engine.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineLimits {
    /// Which arithmetic.
    pub kind: EngineKind,
    /// Host bytes per query row between `begin` and `finish`, the caller's block and the finished `TopK` not counted.
    pub bytes_per_query: u64,
    /// Host bytes per row of a partition that the engine has visited and still holds, the partition itself not counted.
    pub bytes_per_reference: u64,
    /// Host bytes whatever the sizes.
    pub bytes_fixed: u64,
    /// Most bytes of rows in one partition.
    pub partition_bytes_max: u64,
    /// Expected rate, pairs per second, for the plan's estimate of time.
    pub pairs_per_second: f64,
    /// What it holds in memory of its own; `None` where it has none.
    pub device: Option<DeviceLimits>,
}

/// What planning must know of an engine with memory of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceLimits {
    /// The device memory to stay within.
    pub memory: ByteCount,
    /// Device bytes per query row between `begin` and `finish`.
    pub bytes_per_query: u64,
    /// Device bytes per row of a partition that is resident.
    pub bytes_per_reference: u64,
    /// Device bytes whatever the sizes.
    pub bytes_fixed: u64,
    /// Most query rows of a block: buffers have a largest size.
    pub query_rows_max: u64,
}

/// Expected rate of reading and decoding, for estimates of time.
pub const READ_BYTES_PER_SECOND: f64 = 400e6;
/// Bytes that reading back what was put aside holds: `store::spill` reads so much at a time.
pub const SPILL_PIECE_BYTES: u64 = 4 << 20;

/// What a stage holds on the host: (what, bytes), in the order a person would read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryTable(pub Vec<(String, u64)>);

impl MemoryTable {
    /// Adds a line; nothing when it is empty.
    pub fn add(&mut self, what: &str, bytes: u64) {
        if bytes > 0 {
            self.0.push((what.to_owned(), bytes));
        }
    }

    /// The sum.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }

    /// The largest lines first, as a sentence's part: `packed references 800.0 MiB, query block 10.0 MiB`.
    #[must_use]
    pub fn largest(&self, n: usize) -> String {
        let mut lines = self.0.clone();
        lines.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let parts: Vec<String> =
            lines.into_iter().take(n).map(|(what, bytes)| format!("{what} {}", ByteCount(bytes))).collect();
        parts.join(", ")
    }

    /// This table, if it fits.
    ///
    /// # Errors
    /// [`PlanError::Budget`] naming what takes the most.
    pub fn within(self, budget: ByteCount, advice: &str) -> Result<Self, PlanError> {
        let needs = ByteCount(self.total());
        if needs <= budget {
            return Ok(self);
        }
        // Printed in tenths: round up, so that the printed number is one that works.
        let needs = ByteCount(round_up_to_tenth(needs.0));
        Err(PlanError::Budget { budget, needs, why: self.largest(3), advice: advice.to_owned() })
    }
}

/// The least that is not less and prints as what it is, in tenths.
#[must_use]
pub fn round_up_to_tenth(bytes: u64) -> u64 {
    let unit = [1_u64 << 40, 1 << 30, 1 << 20, 1 << 10].into_iter().find(|unit| bytes >= *unit).unwrap_or(10);
    (bytes.saturating_mul(10).div_ceil(unit) * unit).div_ceil(10)
}
