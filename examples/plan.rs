//! Planning is arithmetic: what a search of a billion cells against a hundred million will hold, read and take.
//!
//! Run: `cargo run --release --example plan`

use std::error::Error;

use atlasknn::engine::EngineLimits;
use atlasknn::metric::EngineKind;
use atlasknn::plan::search::{Order, SearchInput, Side, plan};
use atlasknn::units::ByteCount;

fn side(rows: u64, dim: u64) -> Side {
    Side { rows, stored_bytes: rows * dim * 4, row_bytes: dim * 4, chunk_rows: 10_000, scratch_bytes: 8 << 20 }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (dim, budget) = (50, ByteCount::mib(64 << 10));
    // Numbers as a CPU engine of 64 cores would give; `Engine::limits` says those of the machine at hand.
    let engine = EngineLimits {
        kind: EngineKind::Cpu,
        bytes_per_query: 600,
        bytes_per_reference: 208,
        bytes_fixed: 64 << 20,
        partition_bytes_max: 1 << 30,
        pairs_per_second: 6e10,
        device: None,
    };
    let queries = side(1_000_000_000, dim);
    let references = side(100_000_000, dim);
    let (groups, names, written, lists, graph) = (false, false, true, None, None);
    let input = SearchInput { queries, references, dim, k: 30, groups, names, written, lists, graph, engine, budget };
    let plan = plan(&input)?;

    println!("{} blocks of {} queries, {} partitions", plan.blocks, plan.block_rows, plan.partitions);
    println!("reads {}, writes {}", ByteCount(plan.bytes_read.0 + plan.bytes_read.1), ByteCount(plan.bytes_written));
    println!("takes about {:.0} days", plan.seconds / 86_400.0);
    println!("holds {} of {budget}:", ByteCount(plan.memory.total()));
    for (what, bytes) in &plan.memory.0 {
        println!("  {:>10}  {what}", ByteCount(*bytes).to_string());
    }
    assert_eq!(plan.order, Order::ReferenceStays, "100 million references fit 64 GiB");
    assert!(plan.memory.total() <= budget.0);
    assert!(plan.blocks * plan.block_rows >= queries.rows);

    // With less memory the queries stay instead, and the reference is read once per block of them.
    let tight = atlasknn::plan::search::plan(&SearchInput { budget: ByteCount::mib(4096), ..input.clone() })?;
    println!("within 4 GiB: {} blocks, reads {}", tight.blocks, ByteCount(tight.bytes_read.1));
    assert_eq!(tight.order, Order::QueriesStay);
    // What cannot work is refused, with the least that would.
    let refused = atlasknn::plan::search::plan(&SearchInput { budget: ByteCount::mib(16), ..input });
    println!("within 16 MiB: {}", refused.as_ref().err().map_or_else(String::new, ToString::to_string));
    assert!(refused.is_err());
    Ok(())
}
