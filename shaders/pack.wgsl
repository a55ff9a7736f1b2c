// Puts rows into the filter's space: centred, scaled by a power of two, laid out in tiles, with the bounds that make
// dropping a pair safe. One invocation owns one row. No barriers.
//
// rows    n × width vec4<f32>   the rows as they are kept for exact distances: x · 2^-exponent(mark)
// marks   n vec4<u32>           id low, id high, group, exponent and flags
// centre  dim f32               the centre, times 2^exponent
// tiles   out                   [tile][channel][TILE] f32; references have two channels before their dimensions: bias, group
//% if queries
// states  out                   n × 2 vec4<u32>: the mark; then threshold, offset, gain exponent, far
//% endif

struct PackParams {
    rows: u32,
    // Rows of whole tiles.
    slots: u32,
    dim: u32,
    // vec4s to a row.
    width: u32,
    // Channels to a tile.
    channels: u32,
    // log2 of the space's scale.
    exponent: i32,
    // γ: the relative error of a sum over all dimensions.
    gamma: f32,
    // How far rounding may move a row whatever its size.
    shift: f32,
    // What a zero vector is farther than its sum says.
    zero_share: f32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<storage, read> rows: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> marks: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> centre: array<f32>;
@group(0) @binding(3) var<storage, read_write> tiles: array<f32>;
//% if queries
@group(0) @binding(4) var<storage, read_write> states: array<vec4<u32>>;
//% endif
@group(0) @binding(${ 5 if queries else 4 }) var<uniform> params: PackParams;

const TILE = ${ tile }u;
const HEAD = ${ head }u;

//% include "numbers.wgsl"

fn placed(row: u32, at: u32, exponent: i32) -> vec4<f32> {
    let x = rows[row * params.width + at];
//% if inner
    return scaled4(x, exponent);
//% else
    let k = 4u * at;
    var c = vec4<f32>();
//% for j in range(4)
    if (k + ${ j }u < params.dim) { c[${ j }] = centre[k + ${ j }u]; }
//% endfor
    return scaled4(x, exponent) - c;
//% endif
}

@compute @workgroup_size(${ threads })
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let row = (group.x + group.y * groups.x) * ${ threads }u + local;
    if (row >= params.slots) { return; }
    let base = (row / TILE) * params.channels * TILE + row % TILE;
    for (var k = 0u; k < params.channels; k++) { tiles[base + k * TILE] = 0.0; }
//% if queries
    if (row >= params.rows) { return; }
//% else
    tiles[base] = ABSENT;
    if (row >= params.rows || (marks[row].w & MASKED) != 0u) { return; }
//% endif
    let mark = marks[row];
    let stored = exponent_of(mark);
//% if inner and queries
    // A factor per query changes no order, and a norm in 1..2 leaves the bound to the references.
    var norm2 = 0.0;
    for (var at = 0u; at < params.width; at++) { let x = rows[row * params.width + at]; norm2 += dot(x, x); }
    // The stored row is sane or in 1..2, so the sum is in range.
    let own = -exponent_f32(sqrt(norm2)) ;
    let exponent = own;
    let gain = params.exponent + own - stored;
//% else
    let exponent = stored + params.exponent;
    let gain = ${ gain };
//% endif
    var sum = 0.0;
    var far = false;
    for (var at = 0u; at < params.width; at++) {
        let y = placed(row, at, exponent);
        let size = abs(y);
        far = far || !(max(max(size.x, size.y), max(size.z, size.w)) < FAR);
//% if step == "dot"
        sum += dot(y, y);
//% elif step == "absolute"
        sum += dot(size, vec4<f32>(1.0));
//% else
        sum = max(sum, max(max(size.x, size.y), max(size.z, size.w)));
//% endif
        for (var j = 0u; j < 4u; j++) {
            let k = 4u * at + j;
            if (k < params.dim) { tiles[base + (HEAD + k) * TILE] = ${ "-" if queries and step == "dot" else "" }y[j]; }
        }
    }
    if (far) {
        for (var k = 0u; k < params.channels; k++) { tiles[base + k * TILE] = 0.0; }
    }
//% if step == "dot"
    let size = sqrt(sum) * 1.000001;
    let moved = 2.0 * (ULP * size + params.shift);
    let rounding = 1.02 * moved * (size + moved);
    let half = 0.5 * sum;
    let zero = select(0.0, params.zero_share, (mark.w & ZERO_VECTOR) != 0u);
//% else
    let slack = (1.0 + 4.0 * params.gamma) * 1.02 * (2.0 * ULP * sum + params.shift) + SMALL;
//% endif
//% if queries
    let id = array<u32, 4>(mark.x, mark.y, mark.z, mark.w);
//% if inner
    let offset = SMALL;
//% elif step == "dot"
    let offset = (1.02 * params.gamma + 0.0000005) * half + rounding + SMALL - half - zero;
//% else
    let offset = slack;
//% endif
    states[2u * row] = mark;
    states[2u * row + 1u] = vec4<u32>(bitcast<u32>(OPEN), bitcast<u32>(offset), bitcast<u32>(gain), u32(far));
//% else
//% if inner
    let bias = -(2.04 * (params.gamma + 2.0 * ULP) * size + 4.0 * (size + 2.0) * params.shift) - SMALL;
//% elif step == "dot"
    let start = half + zero;
    let bias = start - (1.02 * params.gamma * (start + half) + rounding + 0.0000005 * start + SMALL);
//% else
    let bias = -slack;
//% endif
    tiles[base] = select(bias, ALWAYS, far);
    tiles[base + TILE] = bitcast<f32>(mark.z);
//% endif
}
