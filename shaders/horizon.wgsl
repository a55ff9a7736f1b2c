// Takes from each query's top-k what is beyond its horizon: whatever is, squared, more than `times` the mean of the nearest few.
// One invocation owns one query. No barriers.
//
// tops  k orders per query, then k low ids, all inverted, so that 0 is nothing; ascending

struct HorizonParams {
    queries: u32,
    k: u32,
    // Orders in `tops`, and low ids.
    plane: u32,
    // How many the mean is of, where there are as many.
    nearest: u32,
    times: f32,
    // Whether distances are squares already.
    squares: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<storage, read_write> tops: array<u32>;
@group(0) @binding(1) var<uniform> params: HorizonParams;

const INFINITE = 0x7f800000u;

// The bits of a distance, which is not negative: its order has the sign set.
fn bits(at: u32) -> u32 { return ~tops[at] & 0x7fffffffu; }

fn distance(at: u32) -> f32 { return bitcast<f32>(bits(at)); }

// Beside the farthest of all, so that no square overflows.
fn square(at: u32, farthest: f32) -> f32 {
    let x = distance(at) / farthest;
    return select(x * x, x, params.squares == 1u);
}

@compute @workgroup_size(${ threads })
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let query = (group.x + group.y * groups.x) * ${ threads }u + local;
    if (query >= params.queries) { return; }
    let first = query * params.k;
    var there = 0u;
    // What is too far for f32 is as if it were not there.
    while (there < params.k && tops[params.plane + first + there] != 0u && bits(first + there) < INFINITE) { there++; }
    var most = 0.0;
    var farthest = 0.0;
    if (there > 0u) { farthest = distance(first + there - 1u); }
    if (farthest > 0.0) {
        let n = min(there, params.nearest);
        for (var i = 0u; i < n; i++) { most += square(first + i, farthest); }
        most = params.times * (most / f32(n));
    }
    // The nearest one stays in any case.
    for (var i = 1u; i < params.k; i++) {
        let is_far = i >= there || (farthest > 0.0 && square(first + i, farthest) > most);
        if (is_far) { tops[params.plane + first + i] = 0u; }
    }
}
