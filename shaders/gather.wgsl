// Copies the queries of a visit, by their rows, into tiles of their own, as pack.wgsl lays them out. One invocation owns
// one slot; slots without a query are zeros. No barriers.
//
// from   [tile][channel][TILE]   all queries of the block: f32, or f16 fragments, whose channels are columns
// slots  query row of each slot, 0xffffffff for none
// to     [tile][channel][TILE]   the visit's
//% if half
enable f16;
//% endif

struct GatherParams {
    slots: u32,
    channels: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read> queries: array<${ "f16" if half else "f32" }>;
@group(0) @binding(1) var<storage, read> slots: array<u32>;
@group(0) @binding(2) var<storage, read_write> gathered: array<${ "f16" if half else "f32" }>;
@group(0) @binding(3) var<uniform> params: GatherParams;

const TILE = ${ tile }u;

fn place(row: u32, k: u32) -> u32 {
//% if half
    return ((row / 16u) * (params.channels / 16u) + k / 16u) * 256u + (row % 16u) * 16u + k % 16u;
//% else
    return (row / TILE) * params.channels * TILE + k * TILE + row % TILE;
//% endif
}

@compute @workgroup_size(${ threads })
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let slot = (group.x + group.y * groups.x) * ${ threads }u + local;
    if (slot >= params.slots) { return; }
    let row = slots[slot];
    for (var k = 0u; k < params.channels; k++) {
        let to = place(slot, k);
        gathered[to] = ${ "f16(0.0)" if half else "0.0" };
        if (row != 0xffffffffu) { gathered[to] = queries[place(row, k)]; }
    }
}
