// The distance tile on cooperative matrices: f16 products summed in f32 as a filter. Columns of the operands carry bias and
// threshold, so the sign of a sum says whether a pair passes; zero passes.
//
// A workgroup owns 128 queries against a run of tiles of 128 references (a job); each of its four subgroups 64 queries ×
// 16 references at a time. A subgroup stores its sums to its own piece of workgroup memory and looks at them there: the
// barriers are the subgroup's own, before its sums are read and before they are overwritten. Matrices are ${ side } × ${ side }:
// fragments of 16 × 16 are one of those, or four.
//
// queries     [slot/16][column/16][16][16] f16
// references  [row/16][column/16][16][16] f16
// tiles       [tile][2 + dim][128] f32         for the groups of the references
// states, slots, jobs, counts, survivors       as in tile.wgsl
enable f16;
enable wgpu_cooperative_matrix;

struct HalfTileParams {
    jobs: u32,
    room: u32,
    first_row: u32,
    // Channels to a tile of references.
    channels: u32,
    // Query rows of the block.
    rows: u32,
    // Whether slots are some of the query rows; else each slot is the row of its number.
    listed: u32,
    // Whether references of a query's group are excluded.
    grouped: u32,
    pad0: u32,
}

@group(0) @binding(0) var<storage, read> queries: array<f16>;
@group(0) @binding(1) var<storage, read> references: array<f16>;
@group(0) @binding(2) var<storage, read> tiles: array<f32>;
@group(0) @binding(3) var<storage, read> states: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> slots: array<u32>;
@group(0) @binding(5) var<storage, read> jobs: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> counts: array<atomic<u32>>;
@group(0) @binding(7) var<storage, read_write> survivors: array<u32>;
@group(0) @binding(8) var<uniform> params: HalfTileParams;

const NO_GROUP = 0xffffffffu;
const BLOCKS = ${ blocks }u;

var<workgroup> sums: array<f32, 4096>;

fn append(slot: u32, reference: u32, rows: vec2<u32>) {
    var row = slot;
    if (params.listed != 0u) { row = slots[slot]; }
    if (row >= params.rows || reference < rows.x || reference >= rows.y) { return; }
    if (params.grouped != 0u) {
        let group = states[2u * row].z;
        let other = bitcast<u32>(tiles[(reference / 128u) * params.channels * 128u + 128u + reference % 128u]);
        if (group != NO_GROUP && group == other) { return; }
    }
    let at = row - params.first_row;
    let n = atomicAdd(&counts[at], 1u);
    if (n < params.room) { survivors[at * params.room + n] = reference; }
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>,
        @builtin(local_invocation_index) t: u32) {
    let job = workgroup.x + workgroup.y * workgroups.x;
    if (job >= params.jobs) { return; }
    let where_ = jobs[2u * job];
    let what = jobs[2u * job + 1u];
    let lane = t % 32u;
    let sx = (t / 32u) % 2u;
    let q0 = where_.x * 128u + (t / 64u) * 64u;
    let own = (t / 32u) * 1024u;
//% set mat = "coop_mat" ~ side ~ "x" ~ side
//% set n = 16 // side
//% if hold
//% for i in range(4 * n)
//% for k in range(blocks * n)
    let a${ i }_${ k } = coopLoadT<${ mat }<f16,A>>(&queries[((q0 / 16u + ${ i // n }u) * BLOCKS + ${ k // n }u) * 256u + ${ (i % n) * 128 + (k % n) * 8 }u], 16u);
//% endfor
//% endfor
//% endif
    for (var position = where_.y; position < where_.z; position++) {
        let tile = where_.w + (position * what.y) % what.x;
        for (var part = 0u; part < 4u; part++) {
            let r0 = tile * 128u + part * 32u + sx * 16u;
//% for i in range(4 * n)
//% for j in range(n)
            var c${ i }_${ j } = ${ mat }<f32,C>();
//% endfor
//% endfor
            let r_base = (r0 / 16u) * BLOCKS * 256u;
//% if hold
//% for k in range(blocks * n)
            {
//% for j in range(n)
                let b${ j } = coopLoad<${ mat }<f16,B>>(&references[r_base + ${ k // n * 256 + j * 128 + (k % n) * 8 }u], 16u);
//% endfor
//% for i in range(4 * n)
//% for j in range(n)
                c${ i }_${ j } = coopMultiplyAdd(a${ i }_${ k }, b${ j }, c${ i }_${ j });
//% endfor
//% endfor
            }
//% endfor
//% else
            for (var k = 0u; k < BLOCKS; k++) {
//% for h in range(n)
//% for j in range(n)
                let b${ h }_${ j } = coopLoad<${ mat }<f16,B>>(&references[r_base + k * 256u + ${ j * 128 + h * 8 }u], 16u);
//% endfor
//% for i in range(4 * n)
                let a${ h }_${ i } = coopLoadT<${ mat }<f16,A>>(&queries[((q0 / 16u + ${ i // n }u) * BLOCKS + k) * 256u + ${ (i % n) * 128 + h * 8 }u], 16u);
//% for j in range(n)
                c${ i }_${ j } = coopMultiplyAdd(a${ h }_${ i }, b${ h }_${ j }, c${ i }_${ j });
//% endfor
//% endfor
//% endfor
            }
//% endif
//% for i in range(4 * n)
//% for j in range(n)
            coopStoreT(c${ i }_${ j }, &sums[own + ${ 256 * (i // n) + (i % n) * 128 + j * 8 }u], 16u);
//% endfor
//% endfor
            subgroupBarrier();
            // Few tiles hold a pair that passes, and few of those more than one: quarters keep the search for it short.
//% for g in range(4)
            var most${ g } = -1.0;
//% for e in range(8)
            most${ g } = max(most${ g }, sums[own + ${ 256 * g + 32 * e }u + lane]);
//% endfor
//% endfor
//% for g in range(4)
            if (most${ g } >= 0.0) {
                for (var x = ${ 256 * g }u + lane; x < ${ 256 * g + 256 }u; x += 32u) {
                    if (sums[own + x] >= 0.0) { append(q0 + x / 16u, r0 + x % 16u, what.zw); }
                }
            }
//% endfor
            subgroupBarrier();
        }
    }
}
