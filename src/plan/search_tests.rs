//! Claims about plans of searches.

use super::*;
use crate::metric::EngineKind;
use proptest::prelude::*;

fn side(rows: u64) -> Side {
    Side { rows, stored_bytes: rows * 200, row_bytes: 200, chunk_rows: 5_000, scratch_bytes: 4 << 20 }
}

fn input(queries: u64, references: u64, budget: ByteCount) -> SearchInput {
    SearchInput {
        queries: side(queries),
        references: side(references),
        dim: 50,
        k: 15,
        groups: false,
        names: true,
        written: true,
        lists: None,
        graph: None,
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
    let side = Side { rows: 100_000, stored_bytes: 1_000, row_bytes: 200, chunk_rows: 100_000, scratch_bytes: 0 };
    assert_eq!((reading(&side, 100_000), reading(&side, 25_000)), (1_000, 4_000));
}

/// A search of 2,000 lists.
fn through_lists(input: SearchInput, nearest: u64, bounded: bool) -> SearchInput {
    let ranking = Some(EngineLimits { bytes_per_query: 200 + 24 * nearest, ..input.engine.clone() });
    let rows_per_visit = input.references.rows as f64 / 1_800.0;
    let (candidates, refined) = (input.k, None);
    let lists = ListsInput {
        lists: 2_000,
        nearest,
        visited: nearest as f64,
        bounded,
        rows_per_visit,
        ranking,
        candidates,
        refined,
    };
    SearchInput { lists: Some(lists), ..input }
}

#[test]
fn what_refining_holds_and_reads_is_planned() {
    let plain = through_lists(input(2_000_000, 4_000_000, ByteCount::mib(512)), 20, false);
    let lists = plain.lists.clone().map(|lists| ListsInput { candidates: 60, refined: Some(side(4_000_000)), ..lists });
    let (plain, refined) = (plan(&plain).unwrap(), plan(&SearchInput { lists, ..plain }).unwrap());
    let bytes = |plan: &SearchPlan, line: &str| plan.memory.0.iter().find(|(what, _)| what == line).map(|(_, b)| *b);
    assert_eq!(bytes(&refined, "neighbours of the block"), Some(refined.block_rows * 60 * 12));
    assert_eq!(bytes(&refined, "references of candidates"), Some(refined.window_rows * 201 + (4 << 20)));
    assert!(bytes(&plain, "references of candidates").is_none());
    let passes = 2_000_000_u64.div_ceil(refined.block_rows.max(UNIT_ROWS));
    assert!(refined.bytes_read.1 > passes * 4_000_000 * 200);
}

#[test]
fn what_lists_add_is_planned_and_what_they_save_is_expected() {
    let whole = input(2_000_000, 4_000_000, ByteCount::mib(512));
    let all = plan(&whole).unwrap();
    let some = plan(&through_lists(whole.clone(), 20, false)).unwrap();
    assert!(some.pairs < all.pairs / 50.0 && some.seconds < all.seconds / 10.0, "{some:?}");
    for line in ["centroids", "lists to visit, per query", "visits", "ids of the references"] {
        assert!(some.memory.0.iter().any(|(what, _)| what == line), "{line} is no line of {:?}", some.memory);
        assert!(!all.memory.0.iter().any(|(what, _)| what == line), "{line} is a line of {:?}", all.memory);
    }
    let within = plan(&through_lists(whole, 8, true)).unwrap();
    assert_eq!(within.pairs, all.pairs, "bounds promise nothing beforehand");
    let few = plan(&through_lists(input(10, 4_000_000, ByteCount::mib(512)), 20, false)).unwrap();
    assert!(few.bytes_read.1 < 4_000_000 * 200 / 5, "{few:?}");
}

#[test]
fn references_that_are_searched_as_codes_take_what_their_codes_take() {
    let floats = through_lists(input(2_000_000, 4_000_000, ByteCount::mib(1_500)), 20, false);
    let bytes = Side { row_bytes: 50, ..floats.references };
    let bytes = SearchInput { references: bytes, ..floats.clone() };
    let (floats, bytes) = (plan(&floats).unwrap(), plan(&bytes).unwrap());
    // 4,000,000 rows are 763 MiB as floats and 191 MiB as bytes; packed they are 840 MiB.
    assert_eq!((floats.order, bytes.order), (Order::QueriesStay, Order::ReferenceStays));
    assert!(bytes.memory.0.contains(&("references".to_owned(), 200_000_000)), "{:?}", bytes.memory);
    let queries = |plan: &SearchPlan| plan.memory.0.iter().find(|(what, _)| what == "query rows").map(|(_, b)| *b);
    assert_eq!(queries(&bytes), Some(2 * bytes.block_rows * 200), "queries are floats");
}

proptest! {
    #[test]
    fn every_plan_fits_its_budget_and_covers_every_row(
        queries in 1_u64..10_000_000, references in 1_u64..10_000_000, mib in 1_u64..8_000, gpu in any::<bool>(),
        lists in prop::option::of((1_u64..2_000, any::<bool>())),
    ) {
        let budget = ByteCount::mib(mib);
        let on_device = SearchInput { budget, ..on_a_device(queries, references, budget) };
        let input = if gpu { on_device } else { input(queries, references, budget) };
        let input = lists.map_or(input.clone(), |(nearest, bounded)| through_lists(input, nearest, bounded));
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

#[test]
fn lists_that_stay_are_together_in_memory_so_that_the_nearest_one_comes_first() {
    let lists = ListsInput {
        lists: 2_000,
        nearest: 30,
        visited: 30.0,
        bounded: false,
        rows_per_visit: 500.0,
        ranking: None,
        candidates: 15,
        refined: None,
    };
    let all = input(1_000_000, 1_000_000, ByteCount::mib(4096));
    let near = plan(&SearchInput { lists: Some(lists), ..all.clone() }).unwrap();
    assert_eq!((near.order, near.partitions), (Order::ReferenceStays, 1));
    let all = plan(&all).unwrap();
    assert!(all.order == Order::ReferenceStays && all.partitions > 1, "{all:?}");
}
