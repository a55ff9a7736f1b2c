//! The inner loops, once per instruction set, behind one table chosen at run time. With `simd/registers.rs`, the only
//! unsafe code of the engine.
//!
//! A panel is `rows` references laid out `[word][rows]`, so that one load brings the same word of consecutive
//! references. A scan holds a tile of `width` queries × `rows` references in registers, adds up all words, and stops at
//! the first panel where some sum is not above its query's τ.

#![allow(unsafe_code)]
// Wrappers of single instructions must be inlined into the function that has the feature, and bools not branched on.
#![allow(clippy::inline_always, clippy::needless_bitwise_bool, clippy::wildcard_imports)]

mod registers;

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use self::registers::*;
use super::exact::{self, Norm};
use super::grid;
use super::tile::{Form, Hits, ROWS_MAX, Scan, WIDTH_MAX};
use crate::metric::Metric;

type ScanFn = unsafe fn(&Scan<'_>, usize, &mut Hits) -> usize;
type PlaceFn = unsafe fn(&[f32], Norm, (&[f64], f64), &mut [i32]) -> (f64, f64);
type SumFn = unsafe fn(&[f32], &[f32], Norm, Norm) -> f64;

/// One path: an instruction set's functions for one metric.
#[derive(Clone, Copy, Debug)]
pub(super) struct Simd {
    /// Its name in `ATLASKNN_SIMD`.
    pub name: &'static str,
    /// References per panel.
    pub rows: usize,
    /// Tile widths there are, ascending.
    pub widths: &'static [usize],
    floats: &'static [ScanFn],
    /// For rows on a grid, where this path and metric have them, and what puts rows there.
    pairs: Option<(&'static [ScanFn], PlaceFn)>,
    sum: SumFn,
    /// Multiplications and additions per second and thread, roughly: for estimates of time only.
    pub rate: f64,
}

impl Simd {
    /// Whether rows may be [`Form::Pairs`].
    pub fn has_pairs(&self) -> bool {
        self.pairs.is_some()
    }

    /// The first panel at or after `from` where a query's sum is not above its τ, with `hits` saying which, or the
    /// number of panels. `width` is an index into `widths`.
    #[inline]
    pub fn scan(&self, width: usize, job: &Scan<'_>, from: usize, hits: &mut Hits) -> usize {
        let queries = self.widths[width];
        let panels = job.bias.len() / self.rows;
        assert!(job.panels.len() >= panels * self.rows * job.words);
        assert!(job.queries.len() >= queries * job.words && job.tau.len() >= queries);
        let scans = match (job.form, self.pairs) {
            (Form::Pairs, Some((pairs, _))) => pairs,
            (Form::Pairs, None) => unreachable!("rows are packed for the path that scans them"),
            (Form::Floats, _) => self.floats,
        };
        // SAFETY: `available` makes a table only where its instructions are; the slices are as long as just checked.
        unsafe { scans[width](job, from, hits) }
    }

    /// The sum that the metric's exact distance is made of.
    #[inline]
    pub fn sum(&self, q: &[f32], r: &[f32], norm_q: Norm, norm_r: Norm) -> f64 {
        // SAFETY: `available` makes a table only where its instructions are; the function itself is safe code.
        unsafe { (self.sum)(q, r, norm_q, norm_r) }
    }

    /// Puts a row onto a grid: [`grid::place`].
    #[inline]
    pub fn place(&self, row: &[f32], norm: Norm, about: (&[f64], f64), out: &mut [i32]) -> (f64, f64) {
        match self.pairs {
            // SAFETY: `available` makes a table only where its instructions are; the function itself is safe code.
            Some((_, place)) => unsafe { place(row, norm, about, out) },
            None => grid::place(row, norm, about, out),
        }
    }

    /// Asks for a row that will be needed soon.
    #[inline]
    pub fn prefetch(row: &[u8]) {
        row.chunks(64).for_each(|line| prefetch(line.as_ptr().cast()));
    }
}

/// The paths this machine can run, the fastest first. Tests run every one the machine has; on the authors' (a Zen 5) that
/// is all but NEON, which has been compiled at most.
pub(super) fn available(metric: Metric) -> Vec<Simd> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        if is_x86_feature_detected!("avx512f") {
            if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vnni") {
                found.push(avx512_vnni::table(metric, &avx512::table(metric)));
            }
            if is_x86_feature_detected!("avx512bw") {
                found.push(avx512_i16::table(metric, &avx512::table(metric)));
            }
            found.push(avx512::table(metric));
        }
        if is_x86_feature_detected!("avxvnni") {
            found.push(avx2_vnni::table(metric, &avx2::table(metric)));
        }
        found.push(avx2_i16::table(metric, &avx2::table(metric)));
        found.push(avx2::table(metric));
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("neon") {
        found.push(neon::table(metric));
    }
    found.push(portable::table(metric));
    found
}

/// How a tile adds up one word.
trait Step<V: Register> {
    /// Whether the bias starts the sum, or is added at its end.
    const BIAS_FIRST: bool;
    unsafe fn step(sum: V, q: V, r: V) -> V;
    unsafe fn add_bias(sum: V, bias: V) -> V;
}

macro_rules! step {
    ($name:ident, $kind:ident, ($sum:ident, $q:ident, $r:ident) => $step:expr, $first:literal, ($end:ident, $bias:ident) => $add:expr) => {
        struct $name;
        impl<V: $kind> Step<V> for $name {
            const BIAS_FIRST: bool = $first;
            #[inline(always)]
            unsafe fn step($sum: V, $q: V, $r: V) -> V {
                // SAFETY: as the caller's.
                unsafe { $step }
            }
            #[inline(always)]
            #[allow(unused_unsafe)] // where the sum began with it
            unsafe fn add_bias($end: V, $bias: V) -> V {
                // SAFETY: as the caller's.
                unsafe { $add }
            }
        }
    };
}

step!(Dot, Floats, (sum, q, r) => sum.minus_product(q, r), true, (sum, _bias) => sum);
step!(PairDot, Pairs, (sum, q, r) => sum.plus_products(q, r), true, (sum, _bias) => sum);
step!(Distance, Floats, (sum, q, r) => sum.plus(q.distance(r)), false, (sum, bias) => sum.plus(bias));
step!(Largest, Floats, (sum, q, r) => sum.max(q.distance(r)), false, (sum, bias) => sum.plus(bias));

/// How far ahead a scan asks for panels, in words: about as many as the next cache delivers meanwhile.
const AHEAD: usize = 512;

/// Asks for a cache line that is needed soon, and does nothing where there is no such instruction.
#[inline(always)]
fn prefetch(at: *const i32) {
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
        hits.queries = 0;
        for i in 0..W {
            let limit = V::splat(*job.tau.as_ptr().add(i));
            let mut mask = 0;
            for j in 0..R {
                mask |= sums[i][j].not_above(limit) << (j * V::LANES);
                sums[i][j].store(hits.sums[i].as_mut_ptr().add(j * V::LANES));
            }
            hits.masks[i] = mask;
            hits.queries |= u32::from(mask != 0) << i;
        }
    }
}

/// [`Simd::scan`] for panels of `R` registers and `W` queries.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // indices count registers, which the compiler must see as constants
unsafe fn scan<V: Register, S: Step<V>, const R: usize, const W: usize>(
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
            let mut r = job.panels.as_ptr().add(panel * rows * job.words);
            let mut q = job.queries.as_ptr();
            let mut first = [V::splat(0); R];
            if S::BIAS_FIRST {
                for j in 0..R {
                    first[j] = V::load(bias.add(j * V::LANES));
                }
            }
            let mut sums = [first; W];
            for _ in 0..job.words {
                for line in (0..rows).step_by(16) {
                    prefetch(r.wrapping_add(AHEAD + line));
                }
                let mut reference = [V::splat(0); R];
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
                        sums[i][j] = S::add_bias(sums[i][j], V::load(bias.add(j * V::LANES)));
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

/// The table of one instruction set on f32: `$registers` registers to a panel, tiles of these widths.
macro_rules! floats {
    ($name:ident, $register:ty, $registers:literal, [$($width:literal),+], $rate:expr, $(#[$features:meta])?) => {
        mod $name {
            use super::*;

            $(#[$features])?
            unsafe fn scan_tile<S: Step<$register>, const W: usize>(
                job: &Scan<'_>,
                from: usize,
                hits: &mut Hits,
            ) -> usize {
                // SAFETY: the caller's promise, and the features of this function.
                unsafe { scan::<$register, S, $registers, W>(job, from, hits) }
            }

            floats!(@sum squares, $(#[$features])?); floats!(@sum unit_squares, $(#[$features])?);
            floats!(@sum product, $(#[$features])?);
            floats!(@sum absolute, $(#[$features])?); floats!(@sum largest, $(#[$features])?);

            pub(super) fn table(metric: Metric) -> Simd {
                const { assert!($registers * <$register as Register>::LANES <= ROWS_MAX) };
                const { $(assert!($width <= WIDTH_MAX);)+ };
                let (floats, sum): (&[ScanFn], SumFn) = match metric {
                    Metric::Euclidean | Metric::SqEuclidean => (&[$(scan_tile::<Dot, $width>),+], squares),
                    Metric::Cosine | Metric::Correlation => (&[$(scan_tile::<Dot, $width>),+], unit_squares),
                    Metric::InnerProduct => (&[$(scan_tile::<Dot, $width>),+], product),
                    Metric::Manhattan => (&[$(scan_tile::<Distance, $width>),+], absolute),
                    Metric::Chebyshev => (&[$(scan_tile::<Largest, $width>),+], largest),
                };
                let rows = $registers * <$register as Register>::LANES;
                let widths = &[$($width),+];
                Simd { name: stringify!($name), rows, widths, floats, pairs: None, sum, rate: $rate }
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

/// The same with pairs of i16 beside them, for metrics that follow from a scalar product and a k-th distance.
macro_rules! pairs {
    ($module:ident, $name:literal, $register:ty, $registers:literal, [$($width:literal),+], $rate:expr, $features:literal) => {
        mod $module {
            use super::*;

            #[target_feature(enable = $features)]
            unsafe fn scan_tile<const W: usize>(job: &Scan<'_>, from: usize, hits: &mut Hits) -> usize {
                // SAFETY: the caller's promise, and the features of this function.
                unsafe { scan::<$register, PairDot, $registers, W>(job, from, hits) }
            }

            #[target_feature(enable = $features)]
            unsafe fn place(row: &[f32], norm: Norm, about: (&[f64], f64), out: &mut [i32]) -> (f64, f64) {
                grid::place(row, norm, about, out)
            }

            pub(super) fn table(metric: Metric, floats: &Simd) -> Simd {
                assert!(floats.rows == $registers * <$register as Register>::LANES && floats.widths == [$($width),+]);
                match metric {
                    Metric::Euclidean | Metric::SqEuclidean | Metric::Cosine | Metric::Correlation => {
                        Simd { name: $name, pairs: Some((&[$(scan_tile::<$width>),+], place)), rate: $rate, ..*floats }
                    }
                    Metric::InnerProduct | Metric::Manhattan | Metric::Chebyshev => Simd { name: $name, ..*floats },
                }
            }
        }
    };
}

floats!(portable, Plain, 2, [1, 2, 4], 15e9,);
#[cfg(target_arch = "x86_64")]
floats!(avx2, Wide8, 2, [1, 2, 4, 6], 40e9, #[target_feature(enable = "avx2,fma")]);
#[cfg(target_arch = "x86_64")]
pairs!(avx2_i16, "avx2-i16", Pairs8<false>, 2, [1, 2, 4, 6], 65e9, "avx2,fma");
#[cfg(target_arch = "x86_64")]
pairs!(avx2_vnni, "avx2-vnni", Pairs8<true>, 2, [1, 2, 4, 6], 80e9, "avx2,fma,avxvnni");
#[cfg(target_arch = "x86_64")]
floats!(avx512, Wide16, 2, [1, 2, 4, 8, 12], 70e9, #[target_feature(enable = "avx512f,avx2,fma")]);
#[cfg(target_arch = "x86_64")]
pairs!(avx512_i16, "avx512-i16", Pairs16<false>, 2, [1, 2, 4, 8, 12], 120e9, "avx512f,avx512bw,avx2,fma");
#[cfg(target_arch = "x86_64")]
pairs!(avx512_vnni, "avx512-vnni", Pairs16<true>, 2, [1, 2, 4, 8, 12], 140e9, "avx512f,avx512bw,avx512vnni,avx2,fma");
#[cfg(target_arch = "aarch64")]
floats!(neon, Wide4, 4, [1, 2, 4, 6], 20e9, #[target_feature(enable = "neon")]);
