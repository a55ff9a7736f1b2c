//! Twin of `numbers.wgsl`: sentinels, flags of a mark, and scaling by powers of two.

/// The bias of rows that are masked or beyond the last one: above every threshold.
pub const ABSENT: f32 = 3.4e38;
/// The threshold of a query that has fewer than k neighbours, or is too far out.
pub const OPEN: f32 = 3.0e38;
/// The bias of a row that is too far out for the filter: below every threshold.
pub const ALWAYS: f32 = -3.2e38;
/// Values farther out than this, in typical norms, would overflow.
pub const FAR: f32 = 1.0e15;
/// More than what flushing to zero may change in the filter's space.
pub const SMALL: f32 = 1.0e-30;
/// The relative error of rounding to f32: 2⁻²⁴.
pub const ULP: f32 = 0.000_000_059_604_645;

/// The smallest number of f16 that is not subnormal.
const SUBNORMAL16: f32 = 1.0 / 16_384.0;

/// Flag of a row that no query may have.
pub const MASKED: u32 = 0x2000_0000;
/// Flag of a zero vector, at cosine distance 1 from everything.
pub const ZERO_VECTOR: u32 = 0x4000_0000;
const EXPONENT_BITS: u32 = 0x3ff;
const EXPONENT_ZERO: i32 = 512;

/// A row as it is kept for exact distances: values · 2^exponent is the row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kept<'a> {
    /// All dimensions; zeros may follow.
    pub values: &'a [f32],
    /// The exponent and flags of its mark.
    pub flags: u32,
}

impl Kept<'_> {
    /// The exponent that was taken out of its values.
    #[must_use]
    pub fn exponent(self) -> i32 {
        (self.flags & EXPONENT_BITS).cast_signed() - EXPONENT_ZERO
    }

    /// Whether all flags of `flag` are set.
    #[must_use]
    pub fn has(self, flag: u32) -> bool {
        self.flags & flag == flag
    }
}

/// 2^e for e in −126..=127.
#[must_use]
pub fn power_of_two(e: i32) -> f32 {
    f32::from_bits((e + 127).cast_unsigned() << 23)
}

/// x · 2^e; what is beyond 2^±250 ends as 0 or a very large number.
#[must_use]
pub fn scaled(x: f32, e: i32) -> f32 {
    if e == 0 {
        return x;
    }
    let first = e.clamp(-125, 125);
    let second = (e - first).clamp(-125, 125);
    (x * power_of_two(first)).clamp(-1.0e38, 1.0e38) * power_of_two(second)
}

/// The exponent of a normal positive number: 0 for 1..2; −127 for 0.
#[must_use]
pub fn exponent_f32(x: f32) -> i32 {
    (x.to_bits() >> 23 & 255).cast_signed() - 127
}

/// The nearest number that f16 holds, 0 where that would be subnormal; |x| is at most 60,000.
#[must_use]
pub fn kept16(x: f32) -> f32 {
    let bits = x.to_bits();
    let value = f32::from_bits(bits.wrapping_add(0xfff + (bits >> 13 & 1)) & 0xffff_e000);
    if value.abs() < SUBNORMAL16 { 0.0 } else { value }
}

/// The least number that f16 holds, not subnormal, and that is not below x; |x| is at most 60,000.
#[must_use]
pub fn raised16(x: f32) -> f32 {
    let up = if x > 0.0 { 0x1fff } else { 0 };
    let value = f32::from_bits(x.to_bits().wrapping_add(up) & 0xffff_e000);
    match value.abs() < SUBNORMAL16 {
        true if x > 0.0 => SUBNORMAL16,
        true => 0.0,
        false => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_f16_are_the_nearest_or_the_next_above_and_never_subnormal() {
        let mut x = 1.0e-9_f32;
        while x < 50_000.0 {
            for x in [x, -x] {
                let (kept, raised) = (kept16(x), raised16(x));
                for value in [kept, raised] {
                    let held = half::f16::from_f32(value);
                    assert!(held.to_f32() == value && (value == 0.0 || held.is_normal()), "{x} became {value}");
                }
                let nearest = half::f16::from_f32(x);
                let expected = if nearest.is_normal() { nearest.to_f32() } else { 0.0 };
                assert_eq!(kept, expected, "{x}");
                assert!(
                    raised >= x && (raised <= x + x.abs() / 1024.0 || raised <= SUBNORMAL16),
                    "{x} became {raised}"
                );
            }
            x *= 1.013;
        }
        assert_eq!((kept16(0.0), raised16(0.0), raised16(-0.0)), (0.0, 0.0, 0.0));
    }

    #[test]
    fn scaling_rounds_nothing_that_is_normal() {
        for (x, e) in [(1.5_f32, 0), (1.5, 100), (-3.0, -120), (1.0e-20, 140), (1.0e30, -200)] {
            assert_eq!(f64::from(scaled(x, e)), f64::from(x) * 2f64.powi(e), "{x} · 2^{e}");
            assert_eq!(exponent_f32(scaled(1.75, e.clamp(-126, 120))), e.clamp(-126, 120));
        }
        assert_eq!(scaled(1.0, -400), 0.0);
        assert!(scaled(-1.0, 400).abs() > 1.0e38);
    }
}
