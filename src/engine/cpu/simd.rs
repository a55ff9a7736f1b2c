//! The inner loops, once per instruction set, behind one table chosen at run time. The only unsafe code of the engine.
//!
//! A panel is `rows` references laid out `[dim][rows]`, so that one load brings the same coordinate of consecutive
//! references. A scan holds a tile of `width` queries × `rows` references in registers, adds up all dimensions, and
//! stops at the first panel where some sum is not above its query's τ.

#![allow(unsafe_code)]
// Wrappers of single instructions must be inlined into the function that has the feature, and bools not branched on.
#![allow(clippy::inline_always, clippy::needless_bitwise_bool, clippy::wildcard_imports)]

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::exact::{self, Norm};
use super::tile::{Hits, ROWS_MAX, Scan, WIDTH_MAX};
use crate::metric::Metric;

type ScanFn = unsafe fn(&Scan<'_>, usize, &mut Hits) -> usize;
type SumFn = unsafe fn(&[f32], &[f32], Norm, Norm) -> f64;

/// One instruction set's functions for one metric.
#[derive(Clone, Copy, Debug)]
pub(super) struct Simd {
    /// Its name in `ATLASKNN_SIMD`.
    pub name: &'static str,
    /// References per panel.
    pub rows: usize,
    /// Tile widths there are, ascending.
    pub widths: &'static [usize],
    scans: &'static [ScanFn],
    sum: SumFn,
    /// Multiplications and additions per second and thread, roughly: for estimates of time only.
    pub rate: f64,
}

impl Simd {
    /// The first panel at or after `from` where a query's sum is not above its τ, with `hits` saying which, or the
    /// number of panels. `width` is an index into `widths`.
    #[inline]
    pub fn scan(&self, width: usize, job: &Scan<'_>, from: usize, hits: &mut Hits) -> usize {
        let queries = self.widths[width];
        let panels = job.bias.len() / self.rows;
        assert!(job.panels.len() >= panels * self.rows * job.dim);
        assert!(job.queries.len() >= queries * job.dim && job.tau.len() >= queries);
        // SAFETY: `available` makes a table only where its instructions are; the slices are as long as just checked.
        unsafe { self.scans[width](job, from, hits) }
    }

    /// The sum that the metric's exact distance is made of.
    #[inline]
    pub fn sum(&self, q: &[f32], r: &[f32], norm_q: Norm, norm_r: Norm) -> f64 {
        // SAFETY: `available` makes a table only where its instructions are; the function itself is safe code.
        unsafe { (self.sum)(q, r, norm_q, norm_r) }
    }

    /// Asks for a row that will be needed soon.
    #[inline]
    pub fn prefetch(row: &[f32]) {
        row.chunks(16).for_each(|line| prefetch(line.as_ptr()));
    }
}

/// The tables this machine can run, the fastest first.
pub(super) fn available(metric: Metric) -> Vec<Simd> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        if is_x86_feature_detected!("avx512f") {
            found.push(avx512::table(metric));
        }
        found.push(avx2::table(metric));
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("neon") {
        found.push(neon::table(metric));
    }
    found.push(portable::table(metric));
    found
}

/// One register of f32. All of it is unsafe because it may only be called where the instructions are there.
trait Register: Copy {
    const LANES: usize;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn splat(value: f32) -> Self;
    unsafe fn plus(self, other: Self) -> Self;
    /// |self − other|
    unsafe fn distance(self, other: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    /// self − a·b
    unsafe fn minus_product(self, a: Self, b: Self) -> Self;
    /// A bit for every lane that is not above the limit's. The space keeps NaN out of both.
    unsafe fn not_above(self, limit: Self) -> u32;
    /// For each lane, whether it has been above all its limits so far.
    type Above: Copy;
    unsafe fn all() -> Self::Above;
    unsafe fn above(self, limit: Self, so_far: Self::Above) -> Self::Above;
    unsafe fn is_all(above: Self::Above) -> bool;
}

/// How a tile adds up one dimension.
trait Step {
    /// Whether the bias starts the sum, or is added at its end.
    const BIAS_FIRST: bool;
    unsafe fn step<V: Register>(sum: V, q: V, r: V) -> V;
}

macro_rules! step {
    ($name:ident, $bias_first:literal, ($sum:ident, $q:ident, $r:ident) => $step:expr) => {
        struct $name;
        impl Step for $name {
            const BIAS_FIRST: bool = $bias_first;
            #[inline(always)]
            unsafe fn step<V: Register>($sum: V, $q: V, $r: V) -> V {
                // SAFETY: as the caller's.
                unsafe { $step }
            }
        }
    };
}

step!(Dot, true, (sum, q, r) => sum.minus_product(q, r));
step!(Distance, false, (sum, q, r) => sum.plus(q.distance(r)));
step!(Largest, false, (sum, q, r) => sum.max(q.distance(r)));

/// How far ahead a scan asks for panels, in values: about as many as the next cache delivers meanwhile.
const AHEAD: usize = 512;

/// Asks for a cache line that is needed soon, and does nothing where there is no such instruction.
#[inline(always)]
fn prefetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which reads nothing whatever the address.
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Writes down a tile's sums, and for each query which of them are not above its limit.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // as in `scan`
unsafe fn keep<V: Register, const R: usize, const W: usize>(job: &Scan<'_>, sums: &[[V; R]; W], hits: &mut Hits) {
    // SAFETY: as in `scan`, the only caller.
    unsafe {
        for i in 0..W {
            let limit = V::splat(*job.tau.as_ptr().add(i));
            hits.masks[i] = 0;
            for j in 0..R {
                hits.masks[i] |= sums[i][j].not_above(limit) << (j * V::LANES);
                sums[i][j].store(hits.sums[i].as_mut_ptr().add(j * V::LANES));
            }
        }
    }
}

/// [`Simd::scan`] for panels of `R` registers and `W` queries.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // indices count registers, which the compiler must see as constants
unsafe fn scan<V: Register, S: Step, const R: usize, const W: usize>(
    job: &Scan<'_>,
    from: usize,
    hits: &mut Hits,
) -> usize {
    let rows = R * V::LANES;
    let panels = job.bias.len() / rows;
    // SAFETY: `Simd::scan` checked that the slices hold all panels and `W` queries; the instructions are the caller's
    // promise, and `table!` checked that the tile fits into `Hits`.
    unsafe {
        for panel in from..panels {
            let bias = job.bias.as_ptr().add(panel * rows);
            let mut r = job.panels.as_ptr().add(panel * rows * job.dim);
            let mut q = job.queries.as_ptr();
            let mut first = [V::splat(0.0); R];
            if S::BIAS_FIRST {
                for j in 0..R {
                    first[j] = V::load(bias.add(j * V::LANES));
                }
            }
            let mut sums = [first; W];
            for _ in 0..job.dim {
                for line in (0..rows).step_by(16) {
                    prefetch(r.wrapping_add(AHEAD + line));
                }
                let mut reference = [V::splat(0.0); R];
                for j in 0..R {
                    reference[j] = V::load(r.add(j * V::LANES));
                }
                for i in 0..W {
                    let query = V::splat(*q.add(i));
                    for j in 0..R {
                        sums[i][j] = S::step(sums[i][j], query, reference[j]);
                    }
                }
                r = r.add(rows);
                q = q.add(W);
            }
            // One branch for the whole tile; which references it was for is worked out after it, seldom.
            let mut above = [V::all(); R];
            for i in 0..W {
                let limit = V::splat(*job.tau.as_ptr().add(i));
                for j in 0..R {
                    if !S::BIAS_FIRST {
                        sums[i][j] = sums[i][j].plus(V::load(bias.add(j * V::LANES)));
                    }
                    above[j] = sums[i][j].above(limit, above[j]);
                }
            }
            if !above.iter().all(|&above| V::is_all(above)) {
                keep(job, &sums, hits);
                return panel;
            }
        }
    }
    panels
}

/// The table of one instruction set: `$registers` registers to a panel, tiles of these widths.
macro_rules! table {
    ($name:ident, $register:ty, $registers:literal, [$($width:literal),+], $rate:expr, $(#[$features:meta])?) => {
        mod $name {
            use super::*;

            $(#[$features])?
            unsafe fn scan_tile<S: Step, const W: usize>(job: &Scan<'_>, from: usize, hits: &mut Hits) -> usize {
                // SAFETY: the caller's promise, and the features of this function.
                unsafe { scan::<$register, S, $registers, W>(job, from, hits) }
            }

            table!(@sum squares, $(#[$features])?); table!(@sum unit_squares, $(#[$features])?);
            table!(@sum product, $(#[$features])?);
            table!(@sum absolute, $(#[$features])?); table!(@sum largest, $(#[$features])?);

            pub(super) fn table(metric: Metric) -> Simd {
                const { assert!($registers * <$register as Register>::LANES <= ROWS_MAX) };
                const { $(assert!($width <= WIDTH_MAX);)+ };
                let (scans, sum): (&[ScanFn], SumFn) = match metric {
                    Metric::Euclidean | Metric::SqEuclidean => (&[$(scan_tile::<Dot, $width>),+], squares),
                    Metric::Cosine | Metric::Correlation => (&[$(scan_tile::<Dot, $width>),+], unit_squares),
                    Metric::InnerProduct => (&[$(scan_tile::<Dot, $width>),+], product),
                    Metric::Manhattan => (&[$(scan_tile::<Distance, $width>),+], absolute),
                    Metric::Chebyshev => (&[$(scan_tile::<Largest, $width>),+], largest),
                };
                let rows = $registers * <$register as Register>::LANES;
                Simd { name: stringify!($name), rows, widths: &[$($width),+], scans, sum, rate: $rate }
            }
        }
    };
    (@sum $sum:ident, $(#[$features:meta])?) => {
        $(#[$features])?
        unsafe fn $sum(q: &[f32], r: &[f32], norm_q: Norm, norm_r: Norm) -> f64 {
            exact::$sum(q, r, norm_q, norm_r)
        }
    };
}

table!(portable, Plain, 2, [1, 2, 4], 15e9,);
#[cfg(target_arch = "x86_64")]
table!(avx2, Wide8, 2, [1, 2, 4, 6], 40e9, #[target_feature(enable = "avx2,fma")]);
#[cfg(target_arch = "x86_64")]
table!(avx512, Wide16, 2, [1, 2, 4, 8, 12], 70e9, #[target_feature(enable = "avx512f,avx2,fma")]);
#[cfg(target_arch = "aarch64")]
table!(neon, Wide4, 4, [1, 2, 4, 6], 20e9, #[target_feature(enable = "neon")]);

/// Implements [`Register`] for a newtype, from one expression on the bare values per operation.
macro_rules! register {
    (
        $name:ident($bare:ty), $lanes:literal, $above:ty;
        load($from:ident) => $load:expr;
        store($v:ident, $to:ident) => $store:expr;
        splat($value:ident) => $splat:expr;
        $(of_two $binary:ident($x:ident, $y:ident) => $binary_is:expr;)+
        minus_product: ($s:ident, $a:ident, $b:ident) => $minus_product:expr;
        not_above: ($t:ident, $limit:ident) => $not_above:expr;
        all: $all:expr;
        above: ($u:ident, $bound:ident, $so_far:ident) => $above_is:expr;
        is_all: $flags:ident => $is_all:expr;
    ) => {
        #[derive(Clone, Copy)]
        struct $name($bare);

        // SAFETY of all: reached only from functions compiled with the features, which `available` checked; `load` and
        // `store` touch what their caller promised.
        #[allow(unused_unsafe)] // plain arrays need none
        impl Register for $name {
            const LANES: usize = $lanes;
            type Above = $above;
            #[inline(always)]
            unsafe fn load($from: *const f32) -> Self {
                unsafe { Self($load) }
            }
            #[inline(always)]
            unsafe fn store(self, $to: *mut f32) {
                let $v = self.0;
                unsafe { $store }
            }
            #[inline(always)]
            unsafe fn splat($value: f32) -> Self {
                unsafe { Self($splat) }
            }
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

/// The larger of two that are no NaN, which `f32::max` would look for.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

// Plain arrays, which compilers turn into the vectors every 64-bit processor has.
register! {
    Plain([f32; 4]), 4, [bool; 4];
    load(from) => from.cast::<[f32; 4]>().read_unaligned();
    store(v, to) => to.cast::<[f32; 4]>().write_unaligned(v);
    splat(value) => [value; 4];
    of_two plus(a, b) => [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]];
    of_two distance(a, b) => [(a[0] - b[0]).abs(), (a[1] - b[1]).abs(), (a[2] - b[2]).abs(), (a[3] - b[3]).abs()];
    of_two max(a, b) => [larger(a[0], b[0]), larger(a[1], b[1]), larger(a[2], b[2]), larger(a[3], b[3])];
    minus_product: (s, a, b) => [s[0] - a[0] * b[0], s[1] - a[1] * b[1], s[2] - a[2] * b[2], s[3] - a[3] * b[3]];
    not_above: (a, t) => u32::from(a[0] <= t[0])
        | u32::from(a[1] <= t[1]) << 1
        | u32::from(a[2] <= t[2]) << 2
        | u32::from(a[3] <= t[3]) << 3;
    all: [true; 4];
    above: (a, t, so) => [so[0] & (a[0] > t[0]), so[1] & (a[1] > t[1]), so[2] & (a[2] > t[2]), so[3] & (a[3] > t[3])];
    is_all: above => above[0] & above[1] & above[2] & above[3];
}

#[cfg(target_arch = "x86_64")]
register! {
    Wide8(__m256), 8, __m256;
    load(from) => _mm256_loadu_ps(from);
    store(v, to) => _mm256_storeu_ps(to, v);
    splat(value) => _mm256_set1_ps(value);
    of_two plus(a, b) => _mm256_add_ps(a, b);
    of_two distance(a, b) => _mm256_andnot_ps(_mm256_set1_ps(-0.0), _mm256_sub_ps(a, b));
    of_two max(a, b) => _mm256_max_ps(a, b);
    minus_product: (s, a, b) => _mm256_fnmadd_ps(a, b, s);
    not_above: (a, t) => _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LE_OQ>(a, t)).cast_unsigned();
    all: _mm256_castsi256_ps(_mm256_set1_epi32(-1));
    above: (a, t, so_far) => _mm256_and_ps(so_far, _mm256_cmp_ps::<_CMP_GT_OQ>(a, t));
    is_all: above => _mm256_movemask_ps(above) == 0xFF;
}

#[cfg(target_arch = "x86_64")]
register! {
    Wide16(__m512), 16, __mmask16;
    load(from) => _mm512_loadu_ps(from);
    store(v, to) => _mm512_storeu_ps(to, v);
    splat(value) => _mm512_set1_ps(value);
    of_two plus(a, b) => _mm512_add_ps(a, b);
    of_two distance(a, b) => _mm512_abs_ps(_mm512_sub_ps(a, b));
    of_two max(a, b) => _mm512_max_ps(a, b);
    minus_product: (s, a, b) => _mm512_fnmadd_ps(a, b, s);
    not_above: (a, t) => u32::from(_mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, t));
    all: __mmask16::MAX;
    above: (a, t, so_far) => _mm512_mask_cmp_ps_mask::<_CMP_GT_OQ>(so_far, a, t);
    is_all: above => above == __mmask16::MAX;
}

#[cfg(target_arch = "aarch64")]
register! {
    Wide4(float32x4_t), 4, uint32x4_t;
    load(from) => vld1q_f32(from);
    store(v, to) => vst1q_f32(to, v);
    splat(value) => vdupq_n_f32(value);
    of_two plus(a, b) => vaddq_f32(a, b);
    of_two distance(a, b) => vabdq_f32(a, b);
    of_two max(a, b) => vmaxq_f32(a, b);
    minus_product: (s, a, b) => vfmsq_f32(s, a, b);
    not_above: (a, t) => vaddvq_u32(vandq_u32(vld1q_u32([1_u32, 2, 4, 8].as_ptr()), vcleq_f32(a, t)));
    all: vdupq_n_u32(u32::MAX);
    above: (a, t, so_far) => vandq_u32(so_far, vcgtq_f32(a, t));
    is_all: above => vminvq_u32(above) == u32::MAX;
}
