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

// A distance that is there, which is not negative: its order is its bits with the sign set.
fn distance(at: u32) -> f32 { return bitcast<f32>(~tops[at] & 0x7fffffffu); }

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
    while (there < params.k && tops[params.plane + first + there] != 0u) { there++; }
    if (there < 2u) { return; }
    let farthest = distance(first + there - 1u);
    if (farthest <= 0.0) { return; }
    let n = min(there, params.nearest);
    var sum = 0.0;
    for (var i = 0u; i < n; i++) { sum += square(first + i, farthest); }
    let most = params.times * (sum / f32(n));
    // The nearest one stays in any case.
    for (var i = 1u; i < there; i++) {
        if (square(first + i, farthest) > most) { tops[params.plane + first + i] = 0u; }
    }
}
