// Turns packed rows into f16 fragments for cooperative matrices, with columns that carry bias and threshold, and the bound
// on what rounding to f16 does. One invocation owns one row. No barriers.
//
// tiles      [tile][channel][TILE] f32        as pack.wgsl leaves them
// fragments  [row/16][column/16][16][16] f16  dimensions, then from EXTRA on: references bias high, bias low, 1, 1;
//                                             queries 1, 1, threshold high, threshold low (written by columns.wgsl)
//% if queries
// shares     f32 per row                      the row's share of the error, for its threshold
//% endif
//
// |q·r − q̂·r̂| ≤ ε_q‖r‖ + ‖q̂‖ε_r, with ε the norm of what rounding took away, and each product is at most the mean of
// ε²/u and u‖·‖²; so every row pays for itself. u is the size that ε usually has beside the norm.
enable f16;

struct HalfParams {
    slots: u32,
    dim: u32,
    channels: u32,
    // Fragments to 16 rows.
    blocks: u32,
    gamma: f32,
    rows: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read> tiles: array<f32>;
@group(0) @binding(1) var<storage, read_write> fragments: array<f16>;
//% if queries
@group(0) @binding(2) var<storage, read_write> shares: array<f32>;
@group(0) @binding(3) var<uniform> params: HalfParams;
//% else
@group(0) @binding(2) var<uniform> params: HalfParams;
//% endif

const TILE = ${ tile }u;
const HEAD = ${ head }u;
const EXTRA = ${ extra }u;
const U = 0.000244140625;
// Half the square of the largest norm that leaves room for products within f16's range.
const HALF_MAX = 16384.0;
// The largest bias. With products within 32768 either way, a threshold of 60000 lets all of them through.
const BIAS_MAX = 20000.0;

//% include "numbers.wgsl"

@compute @workgroup_size(${ threads })
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let row = (group.x + group.y * groups.x) * ${ threads }u + local;
    if (row >= params.slots) { return; }
    let source = (row / TILE) * params.channels * TILE + row % TILE;
    let to = (row / 16u) * params.blocks * 256u + (row % 16u) * 16u;
    var sum = 0.0;
    var lost = 0.0;
    for (var k = 0u; k < params.blocks * 16u; k++) {
        var value = 0.0;
        if (k < params.dim) { value = ${ "-" if queries else "" }tiles[source + (HEAD + k) * TILE]; }
        // Far values are taken out below.
        let kept = kept16(clamp(value, -60000.0, 60000.0));
        let rest = value - kept;
        sum += value * value;
        lost += rest * rest;
        fragments[to + (k / 16u) * 256u + k % 16u] = f16(kept);
    }
    let half = 0.5 * sum;
    let far = !(half < HALF_MAX);
    let share = (0.5 * (U * sum + lost / U)) * 1.01 + params.gamma * 2.0 * half + 0.0000002;
//% if queries
    // What is too far out lets everything pass.
    shares[row] = select(share, OPEN, far);
    if (far) {
        for (var k = 0u; k < params.dim; k++) { fragments[to + (k / 16u) * 256u + k % 16u] = f16(0.0); }
    }
    if (row < params.rows) {
        fragments[to + (EXTRA / 16u) * 256u + EXTRA % 16u] = f16(1.0);
        fragments[to + (EXTRA / 16u) * 256u + EXTRA % 16u + 1u] = f16(1.0);
    }
//% else
    let bias = tiles[source];
    let absent = bias >= 3.0e38;
    // A bias that f16 cannot hold comes of a zero vector's share. It passes always, since clamping would part it from the
    // thresholds, which are clamped too.
    let always = !absent && (far || bias < -3.0e38 || bias > BIAS_MAX);
    var high = select(-65504.0, 65504.0, always);
    var low = high;
    if (!absent && !always) {
        let value = share - bias;
        let raised = value + 0.000002 * abs(value) + 0.0000002;
        high = kept16(raised);
        low = raised16(raised - high);
    }
    if (absent || always) {
        for (var k = 0u; k < params.dim; k++) { fragments[to + (k / 16u) * 256u + k % 16u] = f16(0.0); }
    }
    let at = to + (EXTRA / 16u) * 256u + EXTRA % 16u;
    let one = to + ((EXTRA + 2u) / 16u) * 256u + (EXTRA + 2u) % 16u;
    fragments[at] = f16(high);
    fragments[at + 1u] = f16(low);
    fragments[one] = f16(1.0);
    fragments[one + 1u] = f16(1.0);
//% endif
}
