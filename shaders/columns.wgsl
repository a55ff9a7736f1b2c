// Writes each slot's threshold, raised by its share of the error, into the columns of its fragments as a high and a low
// part. One invocation owns one slot. No barriers.
enable f16;

struct ColumnsParams {
    slots: u32,
    // First slot of the fragments.
    first: u32,
    // Fragments to 16 rows.
    blocks: u32,
    pad0: u32,
}

@group(0) @binding(0) var<storage, read> states: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> shares: array<f32>;
@group(0) @binding(2) var<storage, read> slots: array<u32>;
@group(0) @binding(3) var<storage, read_write> fragments: array<f16>;
@group(0) @binding(4) var<uniform> params: ColumnsParams;

const EXTRA = ${ extra }u;

//% include "numbers.wgsl"

@compute @workgroup_size(${ threads })
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let at = (group.x + group.y * groups.x) * ${ threads }u + local;
    if (at >= params.slots) { return; }
    let slot = params.first + at;
    let row = slots[slot];
    var high = -65504.0;
    var low = -65504.0;
    if (row != 0xffffffffu) {
        let tau = bitcast<f32>(states[2u * row + 1u].x);
        let share = shares[row];
        // What is open stays so; the two together would be infinite.
        var raised = 60000.0;
        if (tau < 1.0e38 && share < 1.0e38) {
            let sum = tau + share;
            raised = clamp(sum + 0.000002 * abs(sum) + 0.0000002, -60000.0, 60000.0);
        }
        high = kept16(raised);
        low = raised16(raised - high);
    }
    let to = (slot / 16u) * params.blocks * 256u + ((EXTRA + 2u) / 16u) * 256u + (slot % 16u) * 16u + (EXTRA + 2u) % 16u;
    fragments[to] = f16(high);
    fragments[to + 1u] = f16(low);
}
