// Makes rows that came as codes into the rows that are kept for exact distances. One invocation owns four dimensions of a
// row. No barriers. What a code means is looked up, so a device computes nothing that the host would round in another way:
// only the centroid and the pattern beside it are added, as they are there.
//
// codes      rows × codes of a row, without gaps: two halves to a word, or four bytes
// table      [dim][256] f32 of bytes that are values; [code][256][2] f32 of patterns
// lists      of patterns, for each row: its centroid
// centroids  [list][dim] f32 of patterns
// rows       out, from row `first` on: row × width vec4<f32>, zeros beyond dim

struct DecodeParams {
    // HALVES, SCALED or PATTERNS.
    kind: u32,
    // Rows that are decoded, and where they are put.
    rows: u32,
    first: u32,
    dim: u32,
    // vec4s to a row.
    width: u32,
    // Codes to a row.
    codes: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read> codes: array<u32>;
@group(0) @binding(1) var<storage, read> table: array<f32>;
@group(0) @binding(2) var<storage, read> lists: array<u32>;
@group(0) @binding(3) var<storage, read> centroids: array<f32>;
@group(0) @binding(4) var<storage, read_write> rows: array<vec4<f32>>;
@group(0) @binding(5) var<uniform> params: DecodeParams;

const HALVES = ${ halves }u;
const SCALED = ${ scaled }u;

// The value of a half. Made of bits, since devices may take subnormal ones for 0: those are multiples of 2^-24.
fn half_at(at: u32) -> f32 {
    let bits = (codes[at / 2u] >> (16u * (at % 2u))) & 0xffffu;
    let sign = (bits & 0x8000u) << 16u;
    let magnitude = bits & 0x7fffu;
    let normal = (magnitude << 13u) + (112u << 23u);
    let subnormal = bitcast<u32>(f32(magnitude) * 0.000000059604644775390625);
    return bitcast<f32>(sign | select(normal, subnormal, magnitude < 0x400u));
}

fn byte_at(at: u32) -> u32 { return (codes[at / 4u] >> (8u * (at % 4u))) & 255u; }

fn value(row: u32, k: u32) -> f32 {
    if (k >= params.dim) { return 0.0; }
    let first = row * params.codes;
    if (params.kind == HALVES) { return half_at(first + k); }
    if (params.kind == SCALED) { return table[256u * k + byte_at(first + k)]; }
    let pattern = 256u * (k / 2u) + byte_at(first + k / 2u);
    return centroids[lists[row] * params.dim + k] + table[2u * pattern + k % 2u];
}

@compute @workgroup_size(${ threads })
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let at = (group.x + group.y * groups.x) * ${ threads }u + local;
    if (at >= params.rows * params.width) { return; }
    let row = at / params.width;
    let k = 4u * (at % params.width);
    rows[params.first * params.width + at] =
        vec4<f32>(value(row, k), value(row, k + 1u), value(row, k + 2u), value(row, k + 3u));
}
