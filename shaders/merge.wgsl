// Gives candidates their exact distances and merges them into a query's sorted top-k, then tightens its threshold.
//
// A workgroup owns one query. Candidates are what passed the filter, or all rows of a range of positions. What is nearer
// than the k-th best is gathered in workgroup memory, sorted, and merged by rank: the place of each is the number of those
// before it in both lists. Barriers part gathering, sorting and moving, which read what the step before has written.
//
// q_rows, r_rows  n × width vec4<f32>   rows as they are kept
// states          2 vec4<u32> per query: id low, id high, group, exponent and flags | threshold, offset, gain, state
// r_marks         id low, id high, group, exponent and flags
// tops            k orders per query, then k low ids, then k high ids, all inverted, so that cleared memory is an empty top-k
// counts          survivors of each query of the chunk; at overflow_at: how many queries overflowed, and which
// survivors       room rows per query of the chunk
// work            query rows, where they are listed, and the rows that each sees

struct MergeParams {
    // vec4s to a row.
    width: u32,
    k: u32,
    room: u32,
    // First query row of the chunk.
    first_row: u32,
    // Workgroups with work.
    queries: u32,
    // 0: queries are consecutive; 1: `work` lists them; 2: each with its own first row and the one behind its last.
    listed: u32,
    // Whether candidates are positions first_position..last_position, or rows of the list, rather than survivors.
    ranged: u32,
    overflow_at: u32,
    first_position: u32,
    last_position: u32,
    first_tile: u32,
    tiles: u32,
    stride: u32,
    first_reference: u32,
    last_reference: u32,
    // Rows to a tile.
    tile: u32,
    own_row: u32,
    // How much a bound is widened, relative to it.
    share: f32,
    // Whether queries that overflowed are searched to their end, so that they may be listed anew.
    again: u32,
    // The query whose top-k is the first of `tops`.
    tops_from: u32,
    // Orders in `tops`, and low ids, and high ids.
    plane: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<storage, read> q_rows: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> r_rows: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> states: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> r_marks: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> tops: array<u32>;
@group(0) @binding(5) var<storage, read_write> counts: array<atomic<u32>>;
@group(0) @binding(6) var<storage, read> survivors: array<u32>;
@group(0) @binding(7) var<storage, read> work: array<u32>;
@group(0) @binding(8) var<uniform> params: MergeParams;

//% include "numbers.wgsl"
//% include "exact.wgsl"

const THREADS = ${ threads }u;
const FOUND_MAX = ${ found }u;
const OVERFLOWED = 2u;

// A neighbour: order, low and high half of the id. Smaller is nearer.
struct Neighbour { order: u32, low: u32, high: u32 }

var<workgroup> top: array<Neighbour, ${ k_max }>;
var<workgroup> merged: array<Neighbour, ${ k_max }>;
var<workgroup> found: array<Neighbour, ${ found }>;
var<workgroup> n_found: atomic<u32>;

fn nearer(a: Neighbour, b: Neighbour) -> bool {
    if (a.order != b.order) { return a.order < b.order; }
    if (a.high != b.high) { return a.high < b.high; }
    return a.low < b.low;
}

fn is_same(a: Neighbour, b: Neighbour) -> bool { return a.order == b.order && a.high == b.high && a.low == b.low; }

// How many of the top-k are nearer.
fn place(neighbour: Neighbour) -> u32 {
    var low = 0u;
    var high = params.k;
    while (low < high) {
        let middle = (low + high) / 2u;
        if (nearer(top[middle], neighbour)) { low = middle + 1u; } else { high = middle; }
    }
    return low;
}

// How many of the first n found ones, in order, are nearer.
fn place_found(neighbour: Neighbour, n: u32) -> u32 {
    var low = 0u;
    var high = n;
    while (low < high) {
        let middle = (low + high) / 2u;
        if (nearer(found[middle], neighbour)) { low = middle + 1u; } else { high = middle; }
    }
    return low;
}

fn merge_found(t: u32) {
    let n = min(atomicLoad(&n_found), FOUND_MAX);
    var size = 1u;
    while (size < n) { size *= 2u; }
    // What is there already counts once; it goes to the end with what fills up the power of two.
    for (var i = t; i < size; i += THREADS) {
        var drop = i >= n;
        if (!drop) {
            let at = place(found[i]);
            drop = at < params.k && is_same(top[min(at, params.k - 1u)], found[i]);
        }
        if (drop) { found[i] = Neighbour(0xffffffffu, 0xffffffffu, 0xffffffffu); }
    }
    workgroupBarrier();
    // A bitonic sort: runs of `run` are in order, alternately up and down, after each round.
    for (var run = 2u; run <= size; run *= 2u) {
        for (var apart = run / 2u; apart > 0u; apart /= 2u) {
            for (var i = t; i < size / 2u; i += THREADS) {
                let a = 2u * apart * (i / apart) + i % apart;
                let first = found[a];
                let second = found[a + apart];
                if (nearer(second, first) == ((a & run) == 0u)) {
                    found[a] = second;
                    found[a + apart] = first;
                }
            }
            workgroupBarrier();
        }
    }
    for (var i = t; i < n; i += THREADS) {
        let own = found[i];
        let rank = i + place(own);
        if (own.order != 0xffffffffu && rank < params.k) { merged[rank] = own; }
    }
    for (var i = t; i < params.k; i += THREADS) {
        let own = top[i];
        let rank = i + place_found(own, n);
        if (rank < params.k) { merged[rank] = own; }
    }
    workgroupBarrier();
    for (var i = t; i < params.k; i += THREADS) { top[i] = merged[i]; }
    if (t == 0u) { atomicStore(&n_found, 0u); }
    workgroupBarrier();
}

// The largest sum of any pair whose distance could be of this order or less.
fn threshold(order: u32, state: vec4<u32>) -> f32 {
    // Whatever rounds to a distance lies below the next one.
    let edge = order + 1u;
    let bits = select(~edge, edge & 0x7fffffffu, edge >= 0x80000000u);
    let stored = i32((bits >> 23u) & 255u);
    if (stored == 255 || (state.w & 1u) != 0u) { return OPEN; }
    var value = bitcast<f32>((bits & 0x7fffffu) | 0x3f800000u);
    var exponent = stored - 127;
    if (stored == 0) { value = f32(bits & 0x7fffffu); exponent = -149; }
    value = scaled4(vec4<f32>(value), exponent + bitcast<i32>(state.z)).x;
//% if root
    value = min(value, 1.0e19);
    let reach = 0.5 * value * value;
//% else
    let reach = min(value, OPEN) * select(1.0, -1.0, (bits >> 31u) == 1u);
//% endif
    return min(reach + abs(reach) * params.share + bitcast<f32>(state.y), OPEN);
}

@compute @workgroup_size(${ threads })
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>,
        @builtin(local_invocation_index) t: u32) {
    let item = workgroup.x + workgroup.y * workgroups.x;
    if (item >= params.queries) { return; }
    var q = params.first_row + item;
    if (params.listed == 1u) { q = work[item]; }
    if (params.listed == 2u) { q = work[3u * item]; }
    let mark = states[2u * q];
    let state = states[2u * q + 1u];
    let at = q - params.first_row;
    var n = (params.last_position - params.first_position) * params.tile;
    if (params.listed == 2u) { n = work[3u * item + 2u] - work[3u * item + 1u]; }
    var counted = 0u;
    if (params.ranged == 0u) {
        counted = atomicLoad(&counts[at]);
        n = min(counted, params.room);
    }
    let base = params.k * (q - params.tops_from);
    for (var i = t; i < params.k; i += THREADS) {
        top[i] = Neighbour(~tops[base + i], ~tops[params.plane + base + i], ~tops[2u * params.plane + base + i]);
    }
    if (t == 0u) { atomicStore(&n_found, 0u); }
    workgroupBarrier();
    for (var first = 0u; first < n; first += THREADS) {
        let i = first + t;
        if (i < n) {
            var r = 0u;
            var wanted = true;
            if (params.ranged == 0u) {
                r = survivors[at * params.room + i];
            } else if (params.listed == 2u) {
                r = work[3u * item + 1u] + i;
            } else {
                let position = params.first_position + i / params.tile;
                r = (params.first_tile + (position * params.stride) % params.tiles) * params.tile + i % params.tile;
                wanted = r >= params.first_reference && r < params.last_reference;
            }
            if (wanted) {
                let other = r_marks[r];
                let own = params.own_row != 0u && other.x == mark.x && other.y == mark.y;
                let same = mark.z != NO_GROUP && mark.z == other.z;
                if (!own && !same && (other.w & MASKED) == 0u) {
                    let neighbour = Neighbour(exact(q, mark, r, other), other.x, other.y);
                    if (nearer(neighbour, top[params.k - 1u])) {
                        found[atomicAdd(&n_found, 1u)] = neighbour;
                    }
                }
            }
        }
        workgroupBarrier();
        let gathered = atomicLoad(&n_found);
        workgroupBarrier();
        if (gathered > FOUND_MAX - THREADS) { merge_found(t); }
    }
    merge_found(t);
    for (var i = t; i < params.k; i += THREADS) {
        let neighbour = top[i];
        tops[base + i] = ~neighbour.order;
        tops[params.plane + base + i] = ~neighbour.low;
        tops[2u * params.plane + base + i] = ~neighbour.high;
    }
    if (t == 0u) {
        let last = top[params.k - 1u];
        var tau = OPEN;
        if ((last.low & last.high) != 0xffffffffu) { tau = threshold(last.order, state); }
        var flags = state.w;
        if (params.ranged == 0u) {
            atomicStore(&counts[at], 0u);
            if (counted > params.room && (flags & OVERFLOWED) == 0u) {
                flags |= OVERFLOWED;
                let overflowed = atomicAdd(&counts[params.overflow_at], 1u);
                atomicStore(&counts[params.overflow_at + 1u + overflowed], q);
            }
        }
        if (params.again != 0u) { flags &= ~OVERFLOWED; }
        states[2u * q + 1u] = vec4<u32>(bitcast<u32>(tau), state.y, state.z, flags);
    }
}
