//! What happens in the middle of a search when the device has no memory left, and when it is lost.

use std::sync::atomic::Ordering;

use super::tests::{adapter, config};
use super::*;
use crate::engine::conformance::{block, clustered, cut, k, whole};

const ROWS: usize = 900;

fn queries() -> RowBlock {
    block(1 << 40, 7, clustered(1, 300, 7, 5))
}

fn partitions() -> Vec<Arc<Partition>> {
    cut(&block(0, 7, clustered(2, ROWS, 7, 5)), 300)
}

fn engine() -> GpuEngine {
    GpuEngine::new(config(Metric::Euclidean)).expect("an engine")
}

/// Searches all partitions, `before` being done before each visit.
fn find(engine: &mut GpuEngine, mut before: impl FnMut(usize, &mut GpuEngine)) -> Result<TopK, EngineError> {
    engine.begin(&queries(), k(9), &Exclude::Nothing)?;
    // Held to the end, so that they stay on the device while there is room.
    let parts = partitions();
    for (i, part) in parts.iter().enumerate() {
        before(i, engine);
        engine.visit(part, &[whole(part)])?;
    }
    engine.finish()
}

fn refuse(engine: &GpuEngine, allocations: u32) {
    engine.shared.device.refusals.store(allocations, Ordering::Release);
}

#[test]
fn memory_that_is_refused_is_spared_and_the_search_goes_on_with_the_same_bytes() {
    if adapter().is_none() {
        return;
    }
    let whole = find(&mut engine(), |_, _| ()).expect("a search");
    // Refused once, the other partitions go; refused again, half of the room for survivors as well.
    for (refusals, halved, fewer) in [(0, 1, false), (1, 2, false), (2, 2, true)] {
        let mut engine = engine();
        let memory = engine.memory;
        let refuse_third = |i: usize, engine: &mut GpuEngine| {
            if i == 2 {
                refuse(engine, refusals);
            }
        };
        assert_eq!(find(&mut engine, refuse_third).expect("a search"), whole, "{refusals} refusals");
        assert_eq!((engine.memory, engine.tuning.chunk < 300), (memory / halved, fewer), "{refusals} refusals");
    }
}

#[test]
fn a_search_begins_with_less_room_for_survivors_where_there_is_no_more() {
    if adapter().is_none() {
        return;
    }
    let whole = find(&mut engine(), |_, _| ()).expect("a search");
    let mut engine = engine();
    find(&mut engine, |_, _| ()).expect("a search");
    refuse(&engine, 1);
    assert_eq!(find(&mut engine, |_, _| ()).expect("a search"), whole);
    assert!(engine.tuning.chunk < 300, "{}", engine.tuning.chunk);
}

#[test]
fn queries_make_partitions_of_the_block_before_go() {
    if adapter().is_none() {
        return;
    }
    let whole_top = find(&mut engine(), |_, _| ()).expect("a search");
    let mut engine = engine();
    let parts = partitions();
    let search = |engine: &mut GpuEngine| {
        for part in &parts {
            engine.visit(part, &[whole(part)]).expect("visit");
        }
        engine.finish().expect("finish")
    };
    engine.begin(&queries(), k(9), &Exclude::Nothing).expect("begin");
    search(&mut engine);
    assert_eq!(engine.resident_partitions(), parts.len());
    // The room for survivors is made of five buffers; what is refused after it is the queries'.
    engine.shared.device.spared.store(5, Ordering::Release);
    refuse(&engine, 1);
    engine.begin(&queries(), k(9), &Exclude::Nothing).expect("begin");
    assert_eq!((engine.resident_partitions(), search(&mut engine)), (0, whole_top));
}

#[test]
fn where_nothing_can_be_spared_the_memory_is_the_error() {
    if adapter().is_none() {
        return;
    }
    let refuse_all = |i: usize, engine: &mut GpuEngine| {
        if i == 1 {
            refuse(engine, u32::MAX);
        }
    };
    let error = find(&mut engine(), refuse_all).expect_err("no memory");
    assert!(matches!(error, EngineError::DeviceMemory { .. }), "{error}");
    assert!(error.to_string().contains("--device-memory"), "{error}");
}

type Call = fn(&mut GpuEngine) -> Result<(), EngineError>;

#[test]
fn a_device_that_is_lost_says_so_at_whatever_comes_next() {
    if adapter().is_none() {
        return;
    }
    for lost_at in 0..3 {
        let lose_there = |i: usize, engine: &mut GpuEngine| {
            if i == lost_at {
                engine.lose();
            }
        };
        let error = find(&mut engine(), lose_there).expect_err("a lost device");
        assert!(matches!(error, EngineError::DeviceLost { .. }), "lost before visit {lost_at}: {error}");
    }
    let calls: [Call; 4] = [
        // Beginning waits for nothing, so what follows says it.
        |engine| {
            engine.begin(&queries(), k(9), &Exclude::Nothing)?;
            engine.snapshot().map(drop)
        },
        |engine| engine.bounds().map(drop),
        |engine| engine.snapshot().map(drop),
        |engine| engine.finish().map(drop),
    ];
    for (i, call) in calls.into_iter().enumerate() {
        let mut engine = engine();
        engine.begin(&queries(), k(9), &Exclude::Nothing).expect("begin");
        let parts = partitions();
        engine.visit(&parts[0], &[whole(&parts[0])]).expect("visit");
        engine.lose();
        let error = call(&mut engine).expect_err("a lost device");
        assert!(matches!(error, EngineError::DeviceLost { .. }), "call {i}: {error}");
    }
}
