// Words that the other shaders include: sentinels, flags of a mark, and scaling by powers of two that no device flushes
// or reorders. Fast math may assume that there is no inf or NaN, so none is ever a float here.

// Above every threshold: rows that are masked or beyond the last one.
const ABSENT = 3.4e38;
// The threshold of a query that has fewer than k neighbours.
const OPEN = 3.0e38;
// The threshold of a slot without a query.
const CLOSED = -3.4e38;
// The bias of a row that is too far out for the filter: below every threshold but CLOSED.
const ALWAYS = -3.2e38;
// Rows farther out than this, in typical norms, would overflow.
const FAR = 1.0e15;
// More than what flushing to zero may change in the filter's space.
const SMALL = 1.0e-30;
const ULP = 0.000000059604645;
// The smallest number of f16 that is not subnormal: 2^-14.
const SUBNORMAL16 = 0.00006103515625;
const NO_GROUP = 0xffffffffu;

const MASKED = 0x20000000u;
const ZERO_VECTOR = 0x40000000u;
const EXPONENT_BITS = 0x3ffu;
const EXPONENT_ZERO = 512;

fn exponent_of(mark: vec4<u32>) -> i32 { return i32(mark.w & EXPONENT_BITS) - EXPONENT_ZERO; }

// 2^e for e in -126..127.
fn power_of_two(e: i32) -> f32 { return bitcast<f32>(u32(e + 127) << 23u); }

// x · 2^e; what is beyond ±2^250 ends as 0 or a very large number.
fn scaled4(x: vec4<f32>, e: i32) -> vec4<f32> {
    if (e == 0) { return x; }
    let first = clamp(e, -125, 125);
    let second = clamp(e - first, -125, 125);
    return clamp(x * power_of_two(first), vec4<f32>(-1.0e38), vec4<f32>(1.0e38)) * power_of_two(second);
}

// The nearest number that f16 holds, 0 where that would be subnormal: some devices flush those. Made of bits, since compilers
// take f32(f16(x)) for x. |x| is at most 60000.
fn kept16(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    let value = bitcast<f32>((bits + 0xfffu + ((bits >> 13u) & 1u)) & 0xffffe000u);
    return select(value, 0.0, abs(value) < SUBNORMAL16);
}

// The least number that f16 holds, not subnormal, and that is not below x.
fn raised16(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    let value = bitcast<f32>((bits + select(0u, 0x1fffu, x > 0.0)) & 0xffffe000u);
    return select(value, select(0.0, SUBNORMAL16, x > 0.0), abs(value) < SUBNORMAL16);
}

// The exponent of a normal number: 0 for 1..2.
fn exponent_f32(x: f32) -> i32 { return i32((bitcast<u32>(x) >> 23u) & 255u) - 127; }
