// The distance tile: QUERIES × REFERENCES sums at a time in registers, a compare with each query's threshold, and a rare
// append of what passes. The distance matrix is never written.
//
// A workgroup owns one tile of queries against a run of tiles of references (a job). An invocation owns ${ tm } queries ×
// ${ tn } references. Two barriers per slab of ${ slab } dimensions: one before it is read, one before it is overwritten.
//
// queries     [tile][dim][QUERIES] f32         in the filter's space, negated for products
// references  [tile][2 + dim][REFERENCES] f32  bias, group, dimensions
// states      2 vec4<u32> per query row        group in [0].z, threshold in [1].x
// slots       query row of each slot, ABSENT_ROW for none
// jobs        2 vec4<u32> per job              query tile, first and last position, first tile | tiles, stride, first and last row
// counts      u32 per query row of the chunk   survivors, counted on beyond the room there is
// survivors   room u32 per query row           rows of the partition

struct TileParams {
    jobs: u32,
    // Slabs to a row.
    slabs: u32,
    // Room for survivors per query.
    room: u32,
    // First query row of the chunk.
    first_row: u32,
}

@group(0) @binding(0) var<storage, read> queries: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> references: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> states: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> slots: array<u32>;
@group(0) @binding(4) var<storage, read> jobs: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> counts: array<atomic<u32>>;
@group(0) @binding(6) var<storage, read_write> survivors: array<u32>;
@group(0) @binding(7) var<uniform> params: TileParams;

//% include "numbers.wgsl"

const ABSENT_ROW = 0xffffffffu;
const QUERIES = ${ 16 * tm }u;
const REFERENCES = ${ 16 * tn }u;

var<workgroup> q_slab: array<vec4<f32>, ${ slab * 4 * tm }>;
var<workgroup> r_slab: array<vec4<f32>, ${ slab * 4 * tn }>;

fn append(row: u32, group: u32, reference: u32, other: f32, rows: vec2<u32>) {
    let same = group != NO_GROUP && group == bitcast<u32>(other);
    if (reference >= rows.x && reference < rows.y && !same) {
        let at = row - params.first_row;
        let n = atomicAdd(&counts[at], 1u);
        if (n < params.room) { survivors[at * params.room + n] = reference; }
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>,
        @builtin(local_invocation_index) t: u32) {
    let job = workgroup.x + workgroup.y * workgroups.x;
    if (job >= params.jobs) { return; }
    let where_ = jobs[2u * job];
    let what = jobs[2u * job + 1u];
    let tx = t % 16u;
    let ty = t / 16u;
//% for i in range(tm)
    let row${ i } = slots[where_.x * QUERIES + (${ (i // 4) * 16 }u + ty) * 4u + ${ i % 4 }u];
    var limit${ i } = CLOSED;
    if (row${ i } != ABSENT_ROW) { limit${ i } = bitcast<f32>(states[2u * row${ i } + 1u].x); }
//% endfor
    let q_base = where_.x * params.slabs * ${ slab * 4 * tm }u;
    for (var position = where_.y; position < where_.z; position++) {
        let tile = where_.w + (position * what.y) % what.x;
        let r_base = tile * (2u + params.slabs * ${ slab }u) * ${ 4 * tn }u;
//% for j in range(tn // 4)
        let bias${ j } = references[r_base + ${ 16 * j }u + tx];
//% for i in range(tm)
        var sum${ i }_${ j } = ${ "bias" ~ j if step == "dot" else "vec4<f32>()" };
//% endfor
//% endfor
        for (var slab = 0u; slab < params.slabs; slab++) {
//% for l in range((slab * 4 * tm + 255) // 256)
            ${ "if (t + " ~ (l * 256) ~ "u < " ~ (slab * 4 * tm) ~ "u) " if (l + 1) * 256 > slab * 4 * tm else "" }{
                q_slab[t + ${ l * 256 }u] = queries[q_base + slab * ${ slab * 4 * tm }u + t + ${ l * 256 }u];
            }
//% endfor
//% for l in range((slab * 4 * tn + 255) // 256)
            ${ "if (t + " ~ (l * 256) ~ "u < " ~ (slab * 4 * tn) ~ "u) " if (l + 1) * 256 > slab * 4 * tn else "" }{
                r_slab[t + ${ l * 256 }u] = references[r_base + ${ 8 * tn }u + slab * ${ slab * 4 * tn }u + t + ${ l * 256 }u];
            }
//% endfor
            workgroupBarrier();
//% for k in range(slab)
            {
//% for i in range(tm // 4)
                let q${ i } = q_slab[${ k * 4 * tm + 16 * i }u + ty];
//% endfor
//% for j in range(tn // 4)
                let r${ j } = r_slab[${ k * 4 * tn + 16 * j }u + tx];
//% endfor
//% for i in range(tm)
//% for j in range(tn // 4)
//% set q = "vec4<f32>(q" ~ (i // 4) ~ "." ~ "xyzw"[i % 4] ~ ")"
//% if step == "dot"
                sum${ i }_${ j } = fma(${ q }, r${ j }, sum${ i }_${ j });
//% elif step == "absolute"
                sum${ i }_${ j } += abs(${ q } - r${ j });
//% else
                sum${ i }_${ j } = max(sum${ i }_${ j }, abs(${ q } - r${ j }));
//% endif
//% endfor
//% endfor
            }
//% endfor
            workgroupBarrier();
        }
        let first = tile * REFERENCES + 4u * tx;
//% for i in range(tm)
        {
//% for j in range(tn // 4)
            let s${ j } = sum${ i }_${ j }${ "" if step == "dot" else " + bias" ~ j };
//% endfor
            var least = s0;
//% for j in range(1, tn // 4)
            least = min(least, s${ j });
//% endfor
            if (min(min(least.x, least.y), min(least.z, least.w)) <= limit${ i }) {
                let group = states[2u * row${ i }].z;
//% for j in range(tn // 4)
                let groups${ j } = references[r_base + ${ 4 * tn + 16 * j }u + tx];
                for (var c = 0u; c < 4u; c++) {
                    if (s${ j }[c] <= limit${ i }) { append(row${ i }, group, first + ${ 64 * j }u + c, groups${ j }[c], what.zw); }
                }
//% endfor
            }
        }
//% endfor
    }
}
