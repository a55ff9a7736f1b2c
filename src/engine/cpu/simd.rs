//! The inner loops, once per instruction set, behind one table chosen at run time. The only unsafe code of the engine.
//!
//! A panel is `rows` references laid out `[dim][rows]`, so that one load brings the same coordinate of consecutive
//! references. A scan holds a tile of `width` queries × `rows` references in registers, adds up all dimensions, and
//! stops at the first panel where some sum is not above its query's τ.

#![allow(unsafe_code)]
// Wrappers of single instructions must be inlined into the function that has the feature, or they are calls.
#![allow(clippy::inline_always)]

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
#[allow(clippy::wildcard_imports)]
use std::arch::x86_64::*;

use super::exact::{self, Norm};
use crate::error::EngineError;
use crate::metric::Metric;

/// The widest tile, in queries, of any instruction set.
pub(super) const WIDTH_MAX: usize = 12;

/// Which references of a panel are not above τ, a bit each, for each query of the tile.
pub(super) type Masks = [u32; WIDTH_MAX];

/// Consecutive panels against one tile of queries.
#[derive(Clone, Copy)]
pub(super) struct Scan<'a> {
    /// `panels × dim × rows`.
    pub panels: &'a [f32],
    /// `panels × rows`: added to each reference's sum.
    pub bias: &'a [f32],
    /// `dim × width`.
    pub queries: &'a [f32],
    /// One per query.
    pub tau: &'a [f32],
    pub dim: usize,
}

type ScanFn = unsafe fn(&Scan<'_>, usize, &mut Masks) -> usize;
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
    /// The first panel at or after `from` where a query's sum is not above its τ, with `masks` saying which, or the
    /// number of panels. `width` is an index into `widths`.
    #[inline]
    pub fn scan(&self, width: usize, job: &Scan<'_>, from: usize, masks: &mut Masks) -> usize {
        let queries = self.widths[width];
        let panels = job.bias.len() / self.rows;
        assert!(job.panels.len() >= panels * self.rows * job.dim);
        assert!(job.queries.len() >= queries * job.dim && job.tau.len() >= queries);
        // SAFETY: `choose` hands out a table only where its instructions are there; the slices are as long as the
        // scan reads, as just checked.
        unsafe { self.scans[width](job, from, masks) }
    }

    /// The sum that the metric's exact distance is made of.
    #[inline]
    pub fn sum(&self, q: &[f32], r: &[f32], norm_q: Norm, norm_r: Norm) -> f64 {
        // SAFETY: `choose` hands out a table only where its instructions are there; the function itself is safe code.
        unsafe { (self.sum)(q, r, norm_q, norm_r) }
    }

    /// The table for a metric: the named instruction set, or the best one here.
    pub fn choose(metric: Metric, name: Option<&str>) -> Result<Self, EngineError> {
        let mut found = available(metric);
        let Some(name) = name else {
            return Ok(found.swap_remove(0));
        };
        if let Some(at) = found.iter().position(|simd| simd.name == name) {
            return Ok(found.swap_remove(at));
        }
        let why = if NAMES.contains(&name) { "this machine does not have" } else { "is not an instruction set" };
        let known = found.iter().map(|simd| simd.name).collect::<Vec<_>>().join(", ");
        Err(EngineError::Simd { found: name.to_owned(), why, known })
    }
}

/// All names, on whatever machine.
const NAMES: [&str; 4] = ["avx512", "avx2", "neon", "portable"];

/// The tables this machine can run, the fastest first.
pub(super) fn available(metric: Metric) -> Vec<Simd> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        if avx2 && is_x86_feature_detected!("avx512f") {
            found.push(avx512::table(metric));
        }
        if avx2 {
            found.push(avx2::table(metric));
        }
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
    unsafe fn splat(value: f32) -> Self;
    unsafe fn plus(self, other: Self) -> Self;
    /// |self − other|
    unsafe fn distance(self, other: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    /// self − a·b
    unsafe fn minus_product(self, a: Self, b: Self) -> Self;
    /// A bit for every lane that is not above the limit's. The space keeps NaN out of both.
    unsafe fn not_above(self, limit: Self) -> u32;
}

/// How a tile adds up one dimension.
trait Step {
    /// Whether the bias starts the sum, or is added at its end.
    const BIAS_FIRST: bool;
    unsafe fn step<V: Register>(sum: V, q: V, r: V) -> V;
}

struct Dot;
struct Distance;
struct Largest;

impl Step for Dot {
    const BIAS_FIRST: bool = true;
    #[inline(always)]
    unsafe fn step<V: Register>(sum: V, q: V, r: V) -> V {
        // SAFETY: as the caller's.
        unsafe { sum.minus_product(q, r) }
    }
}

impl Step for Distance {
    const BIAS_FIRST: bool = false;
    #[inline(always)]
    unsafe fn step<V: Register>(sum: V, q: V, r: V) -> V {
        // SAFETY: as the caller's.
        unsafe { sum.plus(q.distance(r)) }
    }
}

impl Step for Largest {
    const BIAS_FIRST: bool = false;
    #[inline(always)]
    unsafe fn step<V: Register>(sum: V, q: V, r: V) -> V {
        // SAFETY: as the caller's.
        unsafe { sum.max(q.distance(r)) }
    }
}

/// [`Simd::scan`] for panels of `R` registers and `W` queries.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // indices count registers, which the compiler must see as constants
unsafe fn scan<V: Register, S: Step, const R: usize, const W: usize>(
    job: &Scan<'_>,
    from: usize,
    masks: &mut Masks,
) -> usize {
    let rows = R * V::LANES;
    let panels = job.bias.len() / rows;
    // SAFETY: `Simd::scan` checked that the slices hold `panels` panels and `W` queries; the instructions are the
    // caller's promise.
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
            let mut any = 0;
            for i in 0..W {
                let limit = V::splat(*job.tau.as_ptr().add(i));
                let mut mask = 0;
                for j in 0..R {
                    let mut sum = sums[i][j];
                    if !S::BIAS_FIRST {
                        sum = sum.plus(V::load(bias.add(j * V::LANES)));
                    }
                    mask |= sum.not_above(limit) << (j * V::LANES);
                }
                masks[i] = mask;
                any |= mask;
            }
            if any != 0 {
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
            unsafe fn scan_tile<S: Step, const W: usize>(job: &Scan<'_>, from: usize, masks: &mut Masks) -> usize {
                // SAFETY: the caller's promise, and the features of this function.
                unsafe { scan::<$register, S, $registers, W>(job, from, masks) }
            }

            table!(@sum squares $(#[$features])?);
            table!(@sum unit_squares $(#[$features])?);
            table!(@sum product $(#[$features])?);
            table!(@sum absolute $(#[$features])?);
            table!(@sum largest $(#[$features])?);

            pub(super) fn table(metric: Metric) -> Simd {
                let (scans, sum): (&'static [ScanFn], SumFn) = match metric {
                    Metric::Euclidean | Metric::SqEuclidean => (&[$(scan_tile::<Dot, $width>),+], squares),
                    Metric::Cosine | Metric::Correlation => (&[$(scan_tile::<Dot, $width>),+], unit_squares),
                    Metric::InnerProduct => (&[$(scan_tile::<Dot, $width>),+], product),
                    Metric::Manhattan => (&[$(scan_tile::<Distance, $width>),+], absolute),
                    Metric::Chebyshev => (&[$(scan_tile::<Largest, $width>),+], largest),
                };
                Simd {
                    name: stringify!($name),
                    rows: $registers * <$register as Register>::LANES,
                    widths: &[$($width),+],
                    scans,
                    sum,
                    rate: $rate,
                }
            }
        }
    };
    (@sum $sum:ident $(#[$features:meta])?) => {
        $(#[$features])?
        unsafe fn $sum(q: &[f32], r: &[f32], norm_q: Norm, norm_r: Norm) -> f64 {
            exact::$sum(q, r, norm_q, norm_r)
        }
    };
}

table!(portable, Plain, 4, [1, 2], 4e9,);
#[cfg(target_arch = "x86_64")]
table!(avx2, Wide8, 2, [1, 2, 4, 6], 30e9, #[target_feature(enable = "avx2,fma")]);
#[cfg(target_arch = "x86_64")]
table!(avx512, Wide16, 2, [1, 2, 4, 8, 12], 60e9, #[target_feature(enable = "avx512f,avx2,fma")]);
#[cfg(target_arch = "aarch64")]
table!(neon, Wide4, 4, [1, 2, 4, 6], 20e9, #[target_feature(enable = "neon")]);

/// Implements [`Register`] for a newtype, from one expression on the bare values per operation.
macro_rules! register {
    (
        $name:ident($bare:ty), $lanes:literal;
        load($from:ident) => $load:expr;
        splat($value:ident) => $splat:expr;
        plus($p:ident, $o:ident) => $plus:expr;
        distance($x:ident, $y:ident) => $distance:expr;
        max($m:ident, $n:ident) => $max:expr;
        minus_product($s:ident, $a:ident, $b:ident) => $minus_product:expr;
        not_above($t:ident, $limit:ident) => $not_above:expr;
    ) => {
        #[derive(Clone, Copy)]
        struct $name($bare);

        // SAFETY of all: reached only from functions compiled with the features, which `available` checked; `load` reads
        // what its caller promised.
        #[allow(unused_unsafe)] // plain arrays need none
        impl Register for $name {
            const LANES: usize = $lanes;
            #[inline(always)]
            unsafe fn load($from: *const f32) -> Self {
                unsafe { Self($load) }
            }
            #[inline(always)]
            unsafe fn splat($value: f32) -> Self {
                unsafe { Self($splat) }
            }
            #[inline(always)]
            unsafe fn plus(self, other: Self) -> Self {
                let ($p, $o) = (self.0, other.0);
                unsafe { Self($plus) }
            }
            #[inline(always)]
            unsafe fn distance(self, other: Self) -> Self {
                let ($x, $y) = (self.0, other.0);
                unsafe { Self($distance) }
            }
            #[inline(always)]
            unsafe fn max(self, other: Self) -> Self {
                let ($m, $n) = (self.0, other.0);
                unsafe { Self($max) }
            }
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
        }
    };
}

// Plain arrays, which compilers turn into the vectors every 64-bit processor has.
register! {
    Plain([f32; 4]), 4;
    load(from) => from.cast::<[f32; 4]>().read_unaligned();
    splat(value) => [value; 4];
    plus(a, b) => [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]];
    distance(a, b) => [(a[0] - b[0]).abs(), (a[1] - b[1]).abs(), (a[2] - b[2]).abs(), (a[3] - b[3]).abs()];
    max(a, b) => [a[0].max(b[0]), a[1].max(b[1]), a[2].max(b[2]), a[3].max(b[3])];
    minus_product(s, a, b) => [s[0] - a[0] * b[0], s[1] - a[1] * b[1], s[2] - a[2] * b[2], s[3] - a[3] * b[3]];
    not_above(a, t) => u32::from(a[0] <= t[0])
        | u32::from(a[1] <= t[1]) << 1
        | u32::from(a[2] <= t[2]) << 2
        | u32::from(a[3] <= t[3]) << 3;
}

#[cfg(target_arch = "x86_64")]
register! {
    Wide8(__m256), 8;
    load(from) => _mm256_loadu_ps(from);
    splat(value) => _mm256_set1_ps(value);
    plus(a, b) => _mm256_add_ps(a, b);
    distance(a, b) => _mm256_andnot_ps(_mm256_set1_ps(-0.0), _mm256_sub_ps(a, b));
    max(a, b) => _mm256_max_ps(a, b);
    minus_product(s, a, b) => _mm256_fnmadd_ps(a, b, s);
    not_above(a, t) => _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LE_OQ>(a, t)).cast_unsigned();
}

#[cfg(target_arch = "x86_64")]
register! {
    Wide16(__m512), 16;
    load(from) => _mm512_loadu_ps(from);
    splat(value) => _mm512_set1_ps(value);
    plus(a, b) => _mm512_add_ps(a, b);
    distance(a, b) => _mm512_abs_ps(_mm512_sub_ps(a, b));
    max(a, b) => _mm512_max_ps(a, b);
    minus_product(s, a, b) => _mm512_fnmadd_ps(a, b, s);
    not_above(a, t) => u32::from(_mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, t));
}

#[cfg(target_arch = "aarch64")]
register! {
    Wide4(float32x4_t), 4;
    load(from) => vld1q_f32(from);
    splat(value) => vdupq_n_f32(value);
    plus(a, b) => vaddq_f32(a, b);
    distance(a, b) => vabdq_f32(a, b);
    max(a, b) => vmaxq_f32(a, b);
    minus_product(s, a, b) => vfmsq_f32(s, a, b);
    not_above(a, t) => vaddvq_u32(vandq_u32(vld1q_u32([1_u32, 2, 4, 8].as_ptr()), vcleq_f32(a, t)));
}
