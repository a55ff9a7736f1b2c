//! Registers of every instruction set, by the few things a scan does with one.
//!
//! A register holds 32-bit words: f32 ([`Floats`]), or pairs of i16 whose sums are i32 ([`Pairs`]). All of it is unsafe
//! because it may only be called where the instructions are there.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// One register of words, as all scans use it.
pub(super) trait Register: Copy {
    const LANES: usize;
    unsafe fn load(from: *const i32) -> Self;
    unsafe fn store(self, to: *mut i32);
    unsafe fn splat(word: i32) -> Self;
    /// The smaller of each two words, neither of which is NaN: the space keeps that out.
    unsafe fn min(self, other: Self) -> Self;
    /// A bit for every lane that is not above the limit's. The space keeps NaN out of both.
    unsafe fn not_above(self, limit: Self) -> u32;
    /// For each lane, whether it has been above all its limits so far.
    type Above: Copy;
    unsafe fn all() -> Self::Above;
    unsafe fn above(self, limit: Self, so_far: Self::Above) -> Self::Above;
    unsafe fn is_all(above: Self::Above) -> bool;
}

/// Words that are f32.
pub(super) trait Floats: Register {
    unsafe fn plus(self, other: Self) -> Self;
    /// |self − other|
    unsafe fn distance(self, other: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    /// self − a·b
    unsafe fn minus_product(self, a: Self, b: Self) -> Self;
}

/// Words that are two i16, or an i32 where they are sums.
pub(super) trait Pairs: Register {
    /// self + a₀b₀ + a₁b₁, wrapping.
    unsafe fn plus_products(self, a: Self, b: Self) -> Self;
}

/// Implements [`Register`] for a newtype, from one expression on the bare values per operation.
macro_rules! register {
    (
        [$($generics:tt)*] $name:ty, $lanes:literal, $above:ty;
        load($from:ident) => $load:expr;
        store($v:ident, $to:ident) => $store:expr;
        splat($word:ident) => $splat:expr;
        min($x:ident, $y:ident) => $min:expr;
        not_above: ($t:ident, $limit:ident) => $not_above:expr;
        all: $all:expr;
        above: ($u:ident, $bound:ident, $so_far:ident) => $above_is:expr;
        is_all: $flags:ident => $is_all:expr;
    ) => {
        // SAFETY of all: reached only from functions compiled with the features, which `available` checked; `load` and
        // `store` touch what their caller promised.
        #[allow(unused_unsafe)] // plain arrays need none
        impl $($generics)* Register for $name {
            const LANES: usize = $lanes;
            type Above = $above;
            #[inline(always)]
            unsafe fn load($from: *const i32) -> Self {
                unsafe { Self($load) }
            }
            #[inline(always)]
            unsafe fn store(self, $to: *mut i32) {
                let $v = self.0;
                unsafe { $store }
            }
            #[inline(always)]
            unsafe fn splat($word: i32) -> Self {
                unsafe { Self($splat) }
            }
            #[inline(always)]
            unsafe fn min(self, other: Self) -> Self {
                let ($x, $y) = (self.0, other.0);
                unsafe { Self($min) }
            }
            #[inline(always)]
            unsafe fn not_above(self, limit: Self) -> u32 {
                let ($t, $limit) = (self.0, limit.0);
                unsafe { $not_above }
            }
            #[inline(always)]
            unsafe fn all() -> $above {
                unsafe { $all }
            }
            #[inline(always)]
            unsafe fn above(self, limit: Self, $so_far: $above) -> $above {
                let ($u, $bound) = (self.0, limit.0);
                unsafe { $above_is }
            }
            #[inline(always)]
            unsafe fn is_all($flags: $above) -> bool {
                unsafe { $is_all }
            }
        }
    };
}

/// Implements [`Floats`] for a newtype in the same way.
macro_rules! floats {
    (
        $name:ident;
        $(of_two $binary:ident($x:ident, $y:ident) => $binary_is:expr;)+
        minus_product: ($s:ident, $a:ident, $b:ident) => $minus_product:expr;
    ) => {
        // SAFETY of all: as for `Register`.
        #[allow(unused_unsafe)]
        impl Floats for $name {
            $(#[inline(always)]
            unsafe fn $binary(self, other: Self) -> Self {
                let ($x, $y) = (self.0, other.0);
                unsafe { Self($binary_is) }
            })+
            #[inline(always)]
            unsafe fn minus_product(self, a: Self, b: Self) -> Self {
                let ($s, $a, $b) = (self.0, a.0, b.0);
                unsafe { Self($minus_product) }
            }
        }
    };
}

/// Plain arrays, which compilers turn into the vectors every 64-bit processor has.
#[derive(Clone, Copy)]
pub(super) struct Plain([f32; 4]);

register! {
    [] Plain, 4, [bool; 4];
    load(from) => from.cast::<[f32; 4]>().read_unaligned();
    store(v, to) => to.cast::<[f32; 4]>().write_unaligned(v);
    splat(word) => [f32::from_bits(word.cast_unsigned()); 4];
    min(a, b) => [smaller(a[0], b[0]), smaller(a[1], b[1]), smaller(a[2], b[2]), smaller(a[3], b[3])];
    not_above: (a, t) => u32::from(a[0] <= t[0])
        | u32::from(a[1] <= t[1]) << 1
        | u32::from(a[2] <= t[2]) << 2
        | u32::from(a[3] <= t[3]) << 3;
    all: [true; 4];
    above: (a, t, so) => [so[0] & (a[0] > t[0]), so[1] & (a[1] > t[1]), so[2] & (a[2] > t[2]), so[3] & (a[3] > t[3])];
    is_all: above => above[0] & above[1] & above[2] & above[3];
}

floats! {
    Plain;
    of_two plus(a, b) => [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]];
    of_two distance(a, b) => [(a[0] - b[0]).abs(), (a[1] - b[1]).abs(), (a[2] - b[2]).abs(), (a[3] - b[3]).abs()];
    of_two max(a, b) => [larger(a[0], b[0]), larger(a[1], b[1]), larger(a[2], b[2]), larger(a[3], b[3])];
    minus_product: (s, a, b) => [s[0] - a[0] * b[0], s[1] - a[1] * b[1], s[2] - a[2] * b[2], s[3] - a[3] * b[3]];
}

/// The larger of two that are no NaN, which `f32::max` would look for.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The smaller one, in the same way.
#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// 8 f32 of AVX2.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Wide8(__m256);

#[cfg(target_arch = "x86_64")]
register! {
    [] Wide8, 8, __m256;
    load(from) => _mm256_loadu_ps(from.cast());
    store(v, to) => _mm256_storeu_ps(to.cast(), v);
    splat(word) => _mm256_castsi256_ps(_mm256_set1_epi32(word));
    min(a, b) => _mm256_min_ps(a, b);
    not_above: (a, t) => _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LE_OQ>(a, t)).cast_unsigned();
    all: _mm256_castsi256_ps(_mm256_set1_epi32(-1));
    above: (a, t, so_far) => _mm256_and_ps(so_far, _mm256_cmp_ps::<_CMP_GT_OQ>(a, t));
    is_all: above => _mm256_movemask_ps(above) == 0xFF;
}

#[cfg(target_arch = "x86_64")]
floats! {
    Wide8;
    of_two plus(a, b) => _mm256_add_ps(a, b);
    of_two distance(a, b) => _mm256_andnot_ps(_mm256_set1_ps(-0.0), _mm256_sub_ps(a, b));
    of_two max(a, b) => _mm256_max_ps(a, b);
    minus_product: (s, a, b) => _mm256_fnmadd_ps(a, b, s);
}

/// 16 f32 of AVX-512.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Wide16(__m512);

#[cfg(target_arch = "x86_64")]
register! {
    [] Wide16, 16, __mmask16;
    load(from) => _mm512_loadu_ps(from.cast());
    store(v, to) => _mm512_storeu_ps(to.cast(), v);
    splat(word) => _mm512_castsi512_ps(_mm512_set1_epi32(word));
    min(a, b) => _mm512_min_ps(a, b);
    not_above: (a, t) => u32::from(_mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, t));
    all: __mmask16::MAX;
    above: (a, t, so_far) => _mm512_mask_cmp_ps_mask::<_CMP_GT_OQ>(so_far, a, t);
    is_all: above => above == __mmask16::MAX;
}

#[cfg(target_arch = "x86_64")]
floats! {
    Wide16;
    of_two plus(a, b) => _mm512_add_ps(a, b);
    of_two distance(a, b) => _mm512_abs_ps(_mm512_sub_ps(a, b));
    of_two max(a, b) => _mm512_max_ps(a, b);
    minus_product: (s, a, b) => _mm512_fnmadd_ps(a, b, s);
}

/// 8 words of AVX2 that are pairs of i16; `VNNI` has one instruction for products and sum.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Pairs8<const VNNI: bool>(__m256i);

#[cfg(target_arch = "x86_64")]
register! {
    [<const VNNI: bool>] Pairs8<VNNI>, 8, __m256i;
    load(from) => _mm256_loadu_si256(from.cast());
    store(v, to) => _mm256_storeu_si256(to.cast(), v);
    splat(word) => _mm256_set1_epi32(word);
    min(a, b) => _mm256_min_epi32(a, b);
    not_above: (a, t) =>
        !_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(a, t))).cast_unsigned() & 0xFF;
    all: _mm256_set1_epi32(-1);
    above: (a, t, so_far) => _mm256_and_si256(so_far, _mm256_cmpgt_epi32(a, t));
    is_all: above => _mm256_movemask_epi8(above) == -1;
}

#[cfg(target_arch = "x86_64")]
impl<const VNNI: bool> Pairs for Pairs8<VNNI> {
    #[inline(always)]
    unsafe fn plus_products(self, a: Self, b: Self) -> Self {
        // SAFETY: as for `Register`.
        unsafe {
            if VNNI {
                Self(_mm256_dpwssd_avx_epi32(self.0, a.0, b.0))
            } else {
                Self(_mm256_add_epi32(self.0, _mm256_madd_epi16(a.0, b.0)))
            }
        }
    }
}

/// 16 words of AVX-512 that are pairs of i16; `VNNI` has one instruction for products and sum.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Pairs16<const VNNI: bool>(__m512i);

#[cfg(target_arch = "x86_64")]
register! {
    [<const VNNI: bool>] Pairs16<VNNI>, 16, __mmask16;
    load(from) => _mm512_loadu_si512(from.cast());
    store(v, to) => _mm512_storeu_si512(to.cast(), v);
    splat(word) => _mm512_set1_epi32(word);
    min(a, b) => _mm512_min_epi32(a, b);
    not_above: (a, t) => u32::from(_mm512_cmple_epi32_mask(a, t));
    all: __mmask16::MAX;
    above: (a, t, so_far) => _mm512_mask_cmpgt_epi32_mask(so_far, a, t);
    is_all: above => above == __mmask16::MAX;
}

#[cfg(target_arch = "x86_64")]
impl<const VNNI: bool> Pairs for Pairs16<VNNI> {
    #[inline(always)]
    unsafe fn plus_products(self, a: Self, b: Self) -> Self {
        // SAFETY: as for `Register`.
        unsafe {
            if VNNI {
                Self(_mm512_dpwssd_epi32(self.0, a.0, b.0))
            } else {
                Self(_mm512_add_epi32(self.0, _mm512_madd_epi16(a.0, b.0)))
            }
        }
    }
}

/// 4 f32 of NEON.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy)]
pub(super) struct Wide4(float32x4_t);

#[cfg(target_arch = "aarch64")]
register! {
    [] Wide4, 4, uint32x4_t;
    load(from) => vld1q_f32(from.cast());
    store(v, to) => vst1q_f32(to.cast(), v);
    splat(word) => vreinterpretq_f32_s32(vdupq_n_s32(word));
    min(a, b) => vminq_f32(a, b);
    not_above: (a, t) => vaddvq_u32(vandq_u32(vld1q_u32([1_u32, 2, 4, 8].as_ptr()), vcleq_f32(a, t)));
    all: vdupq_n_u32(u32::MAX);
    above: (a, t, so_far) => vandq_u32(so_far, vcgtq_f32(a, t));
    is_all: above => vminvq_u32(above) == u32::MAX;
}

#[cfg(target_arch = "aarch64")]
floats! {
    Wide4;
    of_two plus(a, b) => vaddq_f32(a, b);
    of_two distance(a, b) => vabdq_f32(a, b);
    of_two max(a, b) => vmaxq_f32(a, b);
    minus_product: (s, a, b) => vfmsq_f32(s, a, b);
}
