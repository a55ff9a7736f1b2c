//! The inner loops, once per instruction set, behind one table chosen at run time. With `simd/loops.rs` and
//! `simd/registers.rs`, the only unsafe code of the engine.
//!
//! A panel is `rows` references laid out `[word][rows]`, so that one load brings the same word of consecutive
//! references. A scan holds a tile of `width` queries × `rows` references in registers, adds up all words, and stops at
//! the first panel where some sum is not above its query's τ.

#![allow(unsafe_code)]
// Wrappers of single instructions must be inlined into the function that has the feature, and bools not branched on.
#![allow(clippy::inline_always, clippy::needless_bitwise_bool, clippy::wildcard_imports)]

mod loops;
mod registers;

use self::loops::{Distance, Dot, Largest, PairDot, Step, lowest, prefetch, scan};
use self::registers::*;
use super::exact::{self, Norm};
use super::grid;
use super::tile::{Form, Hits, ROWS_MAX, Scan, WIDTH_MAX};
use crate::metric::Metric;

type ScanFn = unsafe fn(&Scan<'_>, usize, &mut Hits) -> usize;
type LowestFn = unsafe fn(&Scan<'_>, &mut [i32]);
type PlaceFn = unsafe fn(&[f32], Norm, (&[f64], f64), &mut [i32]) -> (f64, f64);
type SumFn = unsafe fn(&[f32], &[f32], Norm, Norm) -> f64;

/// The loops of one tile width.
#[derive(Clone, Copy, Debug)]
struct Loops {
    scan: ScanFn,
    lowest: LowestFn,
}

/// One path: an instruction set's functions for one metric.
#[derive(Clone, Copy, Debug)]
pub(super) struct Simd {
    /// Its name in `ATLASKNN_SIMD`.
    pub name: &'static str,
    /// References per panel.
    pub rows: usize,
    /// Tile widths there are, ascending.
    pub widths: &'static [usize],
    floats: &'static [Loops],
    /// For rows on a grid, where this path and metric have them, and what puts rows there.
    pairs: Option<(&'static [Loops], PlaceFn)>,
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
        let loops = self.loops(width, job);
        assert!(job.tau.len() >= self.widths[width]);
        // SAFETY: `available` makes a table only where its instructions are; the slices are as long as was checked.
        unsafe { (loops.scan)(job, from, hits) }
    }

    /// For each query and each place in a panel, the lowest sum that a reference in that place has, of all panels, of which
    /// there is one at least: `width × rows`. Looks at no τ.
    pub fn lowest(&self, width: usize, job: &Scan<'_>, out: &mut [i32]) {
        let loops = self.loops(width, job);
        assert!(out.len() >= self.widths[width] * self.rows && job.bias.len() >= self.rows);
        // SAFETY: as in `scan`.
        unsafe { (loops.lowest)(job, out) }
    }

    /// What goes over these panels, which are as long as they say.
    fn loops(&self, width: usize, job: &Scan<'_>) -> Loops {
        let panels = job.bias.len() / self.rows;
        assert!(job.panels.len() >= panels * self.rows * job.words);
        assert!(job.queries.len() >= self.widths[width] * job.words);
        match (job.form, self.pairs) {
            (Form::Pairs, Some((pairs, _))) => pairs[width],
            (Form::Pairs, None) => unreachable!("rows are packed for the path that scans them"),
            (Form::Floats, _) => self.floats[width],
        }
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

            $(#[$features])?
            unsafe fn lowest_tile<S: Step<$register>, const W: usize>(job: &Scan<'_>, out: &mut [i32]) {
                // SAFETY: the caller's promise, and the features of this function.
                unsafe { lowest::<$register, S, $registers, W>(job, out) }
            }

            floats!(@sum squares, $(#[$features])?); floats!(@sum unit_squares, $(#[$features])?);
            floats!(@sum product, $(#[$features])?);
            floats!(@sum absolute, $(#[$features])?); floats!(@sum largest, $(#[$features])?);

            const fn loops<S: Step<$register>, const W: usize>() -> Loops {
                Loops { scan: scan_tile::<S, W>, lowest: lowest_tile::<S, W> }
            }

            pub(super) fn table(metric: Metric) -> Simd {
                const { assert!($registers * <$register as Register>::LANES <= ROWS_MAX) };
                const { $(assert!($width <= WIDTH_MAX);)+ };
                let (floats, sum): (&[Loops], SumFn) = match metric {
                    Metric::Euclidean | Metric::SqEuclidean => (const { &[$(loops::<Dot, $width>()),+] }, squares),
                    Metric::Cosine | Metric::Correlation => (const { &[$(loops::<Dot, $width>()),+] }, unit_squares),
                    Metric::InnerProduct => (const { &[$(loops::<Dot, $width>()),+] }, product),
                    Metric::Manhattan => (const { &[$(loops::<Distance, $width>()),+] }, absolute),
                    Metric::Chebyshev => (const { &[$(loops::<Largest, $width>()),+] }, largest),
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
            unsafe fn lowest_tile<const W: usize>(job: &Scan<'_>, out: &mut [i32]) {
                // SAFETY: the caller's promise, and the features of this function.
                unsafe { lowest::<$register, PairDot, $registers, W>(job, out) }
            }

            #[target_feature(enable = $features)]
            unsafe fn place(row: &[f32], norm: Norm, about: (&[f64], f64), out: &mut [i32]) -> (f64, f64) {
                grid::place(row, norm, about, out)
            }

            pub(super) fn table(metric: Metric, floats: &Simd) -> Simd {
                assert!(floats.rows == $registers * <$register as Register>::LANES && floats.widths == [$($width),+]);
                match metric {
                    Metric::Euclidean | Metric::SqEuclidean | Metric::Cosine | Metric::Correlation => {
                        let loops: &[Loops] =
                            const { &[$(Loops { scan: scan_tile::<$width>, lowest: lowest_tile::<$width> }),+] };
                        Simd { name: $name, pairs: Some((loops, place)), rate: $rate, ..*floats }
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

#[cfg(test)]
mod tests {
    use super::super::tile::{float, word};
    use super::*;
    use crate::engine::conformance::noise;

    /// Panels, biases and queries of a scan, of three panels and seven words.
    fn words(form: Form, n: usize, seed: u64) -> Vec<i32> {
        #[allow(clippy::cast_possible_truncation)]
        let of = |value: f32| match form {
            Form::Floats => word(value),
            Form::Pairs => bytemuck::cast([(1e3 * value) as i16, (-7e2 * value) as i16]),
        };
        noise(seed, n).into_iter().map(of).collect()
    }

    #[test]
    fn the_lowest_sums_are_those_of_a_scan() {
        let words_here = 7;
        for (metric, simd) in
            Metric::ALL.into_iter().flat_map(|metric| available(metric).into_iter().map(move |s| (metric, s)))
        {
            for form in [Form::Floats, Form::Pairs].into_iter().filter(|form| *form == Form::Floats || simd.has_pairs())
            {
                let panels = words(form, 3 * words_here * simd.rows, 1);
                let bias = words(form, 3 * simd.rows, 2);
                for (width, &queries) in simd.widths.iter().enumerate() {
                    let values = words(form, words_here * queries, 3);
                    // Everything passes this, so a scan stops at every panel.
                    let tau = vec![if form == Form::Floats { word(f32::MAX) } else { i32::MAX }; queries];
                    let job =
                        Scan { form, panels: &panels, bias: &bias, queries: &values, tau: &tau, words: words_here };
                    let mut found = vec![0; queries * simd.rows];
                    simd.lowest(width, &job, &mut found);
                    let mut hits = Hits::NONE;
                    let mut expected: Vec<Option<i32>> = vec![None; queries * simd.rows];
                    for panel in 0..3 {
                        assert_eq!(simd.scan(width, &job, panel, &mut hits), panel);
                        for (at, least) in expected.iter_mut().enumerate() {
                            let sum = hits.sums[at / simd.rows][at % simd.rows];
                            *least = Some(
                                least
                                    .map_or(sum, |least| if form.order(sum) < form.order(least) { sum } else { least }),
                            );
                        }
                    }
                    let shown = |sums: &[i32]| sums.iter().map(|&sum| float(sum)).collect::<Vec<_>>();
                    let expected: Vec<i32> = expected.into_iter().flatten().collect();
                    assert_eq!(found, expected, "{metric} on {}, {form:?}, {queries}: {:?}", simd.name, shown(&found));
                }
            }
        }
    }
}
