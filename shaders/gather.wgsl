// Copies the queries of a visit, by their rows, into tiles of their own, as pack.wgsl lays them out. One invocation owns
// one slot; slots without a query are zeros. No barriers.
//
// from   [tile][channel][TILE] f32   all queries of the block
// slots  query row of each slot, 0xffffffff for none
// to     [tile][channel][TILE] f32   the visit's

struct GatherParams {
    slots: u32,
    channels: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read> queries: array<f32>;
@group(0) @binding(1) var<storage, read> slots: array<u32>;
@group(0) @binding(2) var<storage, read_write> gathered: array<f32>;
@group(0) @binding(3) var<uniform> params: GatherParams;

const TILE = ${ tile }u;

@compute @workgroup_size(${ threads })
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let slot = (group.x + group.y * groups.x) * ${ threads }u + local;
    if (slot >= params.slots) { return; }
    let row = slots[slot];
    let to = (slot / TILE) * params.channels * TILE + slot % TILE;
    let source = (row / TILE) * params.channels * TILE + row % TILE;
    for (var k = 0u; k < params.channels; k++) {
        var value = 0.0;
        if (row != 0xffffffffu) { value = queries[source + k * TILE]; }
        gathered[to + k * TILE] = value;
    }
}
