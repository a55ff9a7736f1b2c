//! What a path does with a tile of `W` queries and panels of `R` registers of references, whatever its registers: adds up the
//! words, and looks for sums that are not above τ, or for the lowest. Compiled inside the functions of `simd` that have the
//! instructions; which of those a machine has is decided there.

#![allow(clippy::needless_range_loop)] // indices count registers, which the compiler must see as constants

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use super::registers::{Floats, Pairs, Register};
use crate::engine::cpu::tile::{Hits, Scan};

/// How a tile adds up one word.
pub(super) trait Step<V: Register> {
    /// Whether the bias starts the sum, or is added at its end.
    const BIAS_FIRST: bool;
    unsafe fn step(sum: V, q: V, r: V) -> V;
    unsafe fn add_bias(sum: V, bias: V) -> V;
}

macro_rules! step {
    ($name:ident, $kind:ident, ($sum:ident, $q:ident, $r:ident) => $step:expr, $first:literal, ($end:ident, $bias:ident) => $add:expr) => {
        pub(super) struct $name;
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
pub(super) fn prefetch(at: *const i32) {
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

/// The sums of one panel of `R` registers with `W` queries.
#[inline(always)]
unsafe fn tile<V: Register, S: Step<V>, const R: usize, const W: usize>(job: &Scan<'_>, panel: usize) -> [[V; R]; W] {
    let rows = R * V::LANES;
    // SAFETY: as in `scan` and `lowest`, the only callers.
    unsafe {
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
        if !S::BIAS_FIRST {
            for i in 0..W {
                for j in 0..R {
                    sums[i][j] = S::add_bias(sums[i][j], V::load(bias.add(j * V::LANES)));
                }
            }
        }
        sums
    }
}

/// [`Simd::scan`] for panels of `R` registers and `W` queries.
#[inline(always)]
pub(super) unsafe fn scan<V: Register, S: Step<V>, const R: usize, const W: usize>(
    job: &Scan<'_>,
    from: usize,
    hits: &mut Hits,
) -> usize {
    let panels = job.bias.len() / (R * V::LANES);
    // SAFETY: `Simd::scan` checked that the slices hold all panels and `W` queries; the instructions are the caller's
    // promise, and `table!` checked that the tile fits into `Hits`.
    unsafe {
        for panel in from..panels {
            let sums = tile::<V, S, R, W>(job, panel);
            // One branch for the whole tile; which references it was for is worked out after it, seldom.
            let mut above = [V::all(); R];
            for i in 0..W {
                let limit = V::splat(*job.tau.as_ptr().add(i));
                for j in 0..R {
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

/// [`Simd::lowest`] for panels of `R` registers and `W` queries.
#[inline(always)]
pub(super) unsafe fn lowest<V: Register, S: Step<V>, const R: usize, const W: usize>(job: &Scan<'_>, out: &mut [i32]) {
    let rows = R * V::LANES;
    // SAFETY: as in `scan`; `Simd::lowest` checked that there is a place for each sum of a tile.
    unsafe {
        for panel in 0..job.bias.len() / rows {
            let sums = tile::<V, S, R, W>(job, panel);
            for i in 0..W {
                for j in 0..R {
                    let out = out.as_mut_ptr().add(i * rows + j * V::LANES);
                    let least = if panel == 0 { sums[i][j] } else { sums[i][j].min(V::load(out)) };
                    least.store(out);
                }
            }
        }
    }
}
