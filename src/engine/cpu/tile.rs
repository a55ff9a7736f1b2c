//! What goes into a scan and what comes out. All of it is 32-bit words, whose meaning is the form's.

/// The widest tile, in queries, of any instruction set.
pub(super) const WIDTH_MAX: usize = 12;

/// The most references to a panel.
pub(super) const ROWS_MAX: usize = 32;

/// What the words of packed rows, and of their sums, are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A word is an f32, and so are sums.
    Floats,
    /// A word is two dimensions as i16, the first in the lower half; a sum is an i32. Queries are packed negated.
    Pairs,
}

impl Form {
    /// Words that rows of `dim` dimensions take.
    pub fn words(self, dim: usize) -> usize {
        match self {
            Self::Floats => dim,
            Self::Pairs => dim.div_ceil(2),
        }
    }

    /// The bias of a row that never passes.
    pub fn never(self) -> i32 {
        match self {
            Self::Floats => word(f32::INFINITY),
            Self::Pairs => i32::MAX,
        }
    }

    /// The bias, and with it the sum, of a row that always passes, and whose sum says nothing; also the τ that no other
    /// sum passes.
    pub fn always(self) -> i32 {
        match self {
            Self::Floats => word(f32::NEG_INFINITY),
            Self::Pairs => i32::MIN,
        }
    }

    /// A sum as a number that orders as sums do.
    #[inline]
    pub fn order(self, sum: i32) -> i32 {
        match self {
            // Adding 0 makes −0 into 0. The bits of negative numbers order the other way round.
            Self::Floats => flip(word(float(sum) + 0.0)),
            Self::Pairs => sum,
        }
    }

    /// The sum behind its order.
    pub fn value(self, order: i32) -> f64 {
        match self {
            Self::Floats => f64::from(float(flip(order))),
            Self::Pairs => f64::from(order),
        }
    }
}

/// All bits but the sign of negative words turned round.
fn flip(word: i32) -> i32 {
    word ^ ((word >> 31) & i32::MAX)
}

/// An f32 as a word.
#[inline]
pub(super) fn word(value: f32) -> i32 {
    value.to_bits().cast_signed()
}

/// A word as an f32.
#[inline]
pub(super) fn float(word: i32) -> f32 {
    f32::from_bits(word.cast_unsigned())
}

/// What a scan stopped at, for each query of the tile.
#[derive(Clone, Debug)]
pub(super) struct Hits {
    /// Which queries have any, a bit each.
    pub queries: u32,
    /// Which references of the panel are not above τ, a bit each.
    pub masks: [u32; WIDTH_MAX],
    /// The sums of all references of the panel.
    pub sums: [[i32; ROWS_MAX]; WIDTH_MAX],
}

impl Hits {
    /// Nothing yet.
    pub const NONE: Self = Self { queries: 0, masks: [0; WIDTH_MAX], sums: [[0; ROWS_MAX]; WIDTH_MAX] };
}

/// Consecutive panels against one tile of queries.
#[derive(Clone, Copy)]
pub(super) struct Scan<'a> {
    pub form: Form,
    /// `panels × words × rows`.
    pub panels: &'a [i32],
    /// `panels × rows`: added to each reference's sum.
    pub bias: &'a [i32],
    /// `words × width`.
    pub queries: &'a [i32],
    /// One per query.
    pub tau: &'a [i32],
    /// Words of a row.
    pub words: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_ordered_as_numbers_and_come_back() {
        let sums = [f32::NEG_INFINITY, f32::MIN, -2.5, -1e-45, 0.0, 1e-45, 1.0, f32::MAX, f32::INFINITY];
        assert!(sums.is_sorted_by_key(|&sum| Form::Floats.order(word(sum))));
        assert_eq!(Form::Floats.order(word(-0.0)), Form::Floats.order(word(0.0)));
        for sum in sums {
            assert_eq!(Form::Floats.value(Form::Floats.order(word(sum))), f64::from(sum));
        }
        for sum in [i32::MIN, -1, 0, 7, i32::MAX] {
            assert_eq!((Form::Pairs.order(sum), Form::Pairs.value(sum)), (sum, f64::from(sum)));
        }
    }
}
