// The exact form of the metric for one pair, from the rows as they are kept: the bits of a distance, in an order that
// compares as the distances do. Included by merge.wgsl, which declares q_rows, r_rows and params.
//
// Squares and products are summed in blocks of 16 dimensions, sixteen blocks to a group, then the groups, so the error
// grows with the logarithm of the dimension as metric::tie_band says. Rows that hold very large or very small values are
// kept as x · 2^-exponent; a pair whose sum comes out where squares may have been flushed is summed again, scaled by its
// largest difference. Whichever way a pair goes follows from its two rows alone.

// The order of value · 2^e, rounded once to f32, subnormals included.
fn order_of(value: f32, e: i32) -> u32 {
    let bits = bitcast<u32>(value);
    let sign = bits & 0x80000000u;
    let stored = i32((bits >> 23u) & 255u);
    var size = 0u;
    if (stored != 0) {
        let exponent = stored + e;
        let mantissa = (bits & 0x7fffffu) | 0x800000u;
        if (exponent >= 255) {
            size = 0x7f800000u;
        } else if (exponent >= 1) {
            size = (mantissa & 0x7fffffu) | (u32(exponent) << 23u);
        } else if (exponent >= -23) {
            let drop = u32(1 - exponent);
            size = (mantissa + ((1u << (drop - 1u)) - 1u) + ((mantissa >> drop) & 1u)) >> drop;
        }
    }
    if (size == 0u) { return 0x80000000u; }
    return select(size | 0x80000000u, ~(size | 0x80000000u), sign != 0u);
}

fn term(q: vec4<f32>, r: vec4<f32>) -> vec4<f32> {
//% if form == "squares"
    let d = q - r;
    return d * d;
//% elif form == "product"
    return q * r;
//% else
    return abs(q - r);
//% endif
}

//% if form == "largest"
fn total(q_base: u32, r_base: u32, q_shift: i32, r_shift: i32) -> f32 {
    var most = 0.0;
    for (var at = 0u; at < params.width; at++) {
        let t = term(scaled4(q_rows[q_base + at], q_shift), scaled4(r_rows[r_base + at], r_shift));
        most = max(most, max(max(t.x, t.y), max(t.z, t.w)));
    }
    return most;
}
//% else
fn total(q_base: u32, r_base: u32, q_shift: i32, r_shift: i32) -> f32 {
    var sum = 0.0;
    for (var group = 0u; group < params.width; group += 64u) {
        var inner = 0.0;
        for (var block = group; block < min(group + 64u, params.width); block += 4u) {
            var s = vec4<f32>();
            for (var at = block; at < min(block + 4u, params.width); at++) {
                s += term(scaled4(q_rows[q_base + at], q_shift), scaled4(r_rows[r_base + at], r_shift));
            }
            inner += (s.x + s.y) + (s.z + s.w);
        }
        sum += inner;
    }
    return sum;
}
//% endif

//% if form == "squares"
fn largest_difference(q_base: u32, r_base: u32, q_shift: i32, r_shift: i32) -> f32 {
    var most = 0.0;
    for (var at = 0u; at < params.width; at++) {
        let d = abs(scaled4(q_rows[q_base + at], q_shift) - scaled4(r_rows[r_base + at], r_shift));
        most = max(most, max(max(d.x, d.y), max(d.z, d.w)));
    }
    return most;
}
//% endif

// The distance of query row q, whose mark is given, and row r of the partition.
fn exact(q: u32, q_mark: vec4<u32>, r: u32, r_mark: vec4<u32>) -> u32 {
    let q_base = q * params.width;
    let r_base = r * params.width;
    let q_exponent = exponent_of(q_mark);
    let r_exponent = exponent_of(r_mark);
//% if form == "product"
    return order_of(-total(q_base, r_base, 0, 0), q_exponent + r_exponent);
//% else
//% if directional
    if (((q_mark.w | r_mark.w) & ZERO_VECTOR) != 0u) { return order_of(1.0, 0); }
//% endif
    let e = max(q_exponent, r_exponent);
    let q_shift = q_exponent - e;
    let r_shift = r_exponent - e;
    let sum = total(q_base, r_base, q_shift, r_shift);
//% if form == "squares"
    if (sum < 8.0e-19) {
        let most = largest_difference(q_base, r_base, q_shift, r_shift);
        if (most == 0.0) { return 0x80000000u; }
        let up = -exponent_f32(most);
        let again = total_of_differences(q_base, r_base, q_shift, r_shift, up);
        return ${ "order_of(sqrt(again), e - up)" if root else ("order_of(0.5 * again, 2 * (e - up))" if directional else "order_of(again, 2 * (e - up))") };
    }
    return ${ "order_of(sqrt(sum), e)" if root else ("order_of(0.5 * sum, 2 * e)" if directional else "order_of(sum, 2 * e)") };
//% else
    return order_of(sum, e);
//% endif
//% endif
}
//% if form == "squares"

// Σ((q−r) · 2^up)², where the largest difference is in 1..2 then.
fn total_of_differences(q_base: u32, r_base: u32, q_shift: i32, r_shift: i32, up: i32) -> f32 {
    var sum = 0.0;
    for (var group = 0u; group < params.width; group += 64u) {
        var inner = 0.0;
        for (var block = group; block < min(group + 64u, params.width); block += 4u) {
            var s = vec4<f32>();
            for (var at = block; at < min(block + 4u, params.width); at++) {
                let d = scaled4(scaled4(q_rows[q_base + at], q_shift) - scaled4(r_rows[r_base + at], r_shift), up);
                s += d * d;
            }
            inner += (s.x + s.y) + (s.z + s.w);
        }
        sum += inner;
    }
    return sum;
}
//% endif
