//! Twin of `pack.wgsl`: one row put into the filter's space, y = x · 2^exponent − centre, and its share of the error bound.
//!
//! With size R = ‖y‖ (1-norm for manhattan, largest value for chebyshev) and u = 2⁻²⁴:
//!   dot        start ½R² + zero share, slack 1.02γ(start + ½R²) + 1.02m(R + m) + 5e-7·start + ε, m = 2(uR + shift)
//!   inner      start 0, slack 2.04(γ + 2u)R + 4(R + 2)shift + ε; the query's norm is in 1..2, so it has none but ε
//!   others     start 0, slack 1.02(1 + 4γ)(2uR + shift) + ε
//! A reference's bias is start − slack; a query's offset is slack − ½R² − zero share.

use super::numbers::{ABSENT, ALWAYS, FAR, Kept, MASKED, SMALL, ULP, ZERO_VECTOR, exponent_f32, scaled};
use crate::metric::Metric;

/// Where rows live for the filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    /// The metric.
    pub metric: Metric,
    /// log2 of the scale.
    pub exponent: i32,
    /// The scaled centre, `dim` values; not looked at for inner products.
    pub centre: Vec<f32>,
    /// γ: the relative error of a sum over all dimensions.
    pub gamma: f32,
    /// How far rounding may move a row whatever its size.
    pub shift: f32,
    /// What a zero vector is farther than its sum says.
    pub zero_share: f32,
}

/// A reference in the space.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// `dim` values.
    pub values: Vec<f32>,
    /// What its sums would start from without rounding.
    pub start: f32,
    /// Its share of the error.
    pub slack: f32,
}

impl Reference {
    /// What its sums start from.
    #[must_use]
    pub fn bias(&self) -> f32 {
        self.start - self.slack
    }
}

/// A query in the space.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// `dim` values, not negated.
    pub values: Vec<f32>,
    /// What its sums leave out: ½‖y‖² and the share of a zero vector.
    pub left_out: f32,
    /// Its share of the error.
    pub slack: f32,
    /// log2 of what turns a distance into a bound.
    pub gain: i32,
    /// Whether it is too far out, so that everything passes.
    pub far: bool,
}

impl Query {
    /// What its threshold is more than the reach of its distance.
    #[must_use]
    pub fn offset(&self) -> f32 {
        self.slack - self.left_out
    }
}

/// What is added up in every dimension.
pub(super) fn is_dot(metric: Metric) -> bool {
    !matches!(metric, Metric::Manhattan | Metric::Chebyshev)
}

impl Space {
    /// The row times 2^exponent, about the centre, and whether it is too far out.
    fn place(&self, row: Kept<'_>, exponent: i32) -> (Vec<f32>, bool) {
        let centre = |k: usize| if self.metric == Metric::InnerProduct { 0.0 } else { self.centre[k] };
        let place = |(k, &x): (usize, &f32)| scaled(x, exponent) - centre(k);
        let values: Vec<f32> = row.values.iter().take(self.centre.len()).enumerate().map(place).collect();
        let far = values.iter().any(|y| y.is_nan() || y.abs() >= FAR);
        (if far { vec![0.0; values.len()] } else { values }, far)
    }

    /// The sum that the row's size follows from.
    fn sum(&self, values: &[f32]) -> f32 {
        match self.metric {
            Metric::Manhattan => values.iter().fold(0.0, |sum, y| sum + y.abs()),
            Metric::Chebyshev => values.iter().fold(0.0, |most, y| most.max(y.abs())),
            _ => values.iter().fold(0.0, |sum, y| sum + y * y),
        }
    }

    fn zero(&self, row: Kept<'_>) -> f32 {
        if row.has(ZERO_VECTOR) { self.zero_share } else { 0.0 }
    }

    /// How much rounding the row to f32 moves half squared distances.
    fn rounding(&self, size: f32) -> f32 {
        let moved = 2.0 * (ULP * size + self.shift);
        1.02 * moved * (size + moved)
    }

    fn linear_slack(&self, sum: f32) -> f32 {
        (1.0 + 4.0 * self.gamma) * 1.02 * (2.0 * ULP * sum + self.shift) + SMALL
    }

    /// A reference, packed.
    #[must_use]
    pub fn reference(&self, row: Kept<'_>) -> Reference {
        let (values, far) = self.place(row, row.exponent() + self.exponent);
        if row.has(MASKED) {
            return Reference { values: vec![0.0; values.len()], start: ABSENT, slack: 0.0 };
        }
        if far {
            return Reference { values, start: ALWAYS, slack: 0.0 };
        }
        let sum = self.sum(&values);
        let size = sum.sqrt() * 1.000_001;
        let half = 0.5 * sum;
        let (start, slack) = match self.metric {
            Metric::InnerProduct => {
                (0.0, 2.04 * (self.gamma + 2.0 * ULP) * size + 4.0 * (size + 2.0) * self.shift + SMALL)
            }
            metric if is_dot(metric) => {
                let start = half + self.zero(row);
                (start, 1.02 * self.gamma * (start + half) + self.rounding(size) + 0.000_000_5 * start + SMALL)
            }
            _ => (0.0, self.linear_slack(sum)),
        };
        Reference { values, start, slack }
    }

    /// A query, packed.
    #[must_use]
    pub fn query(&self, row: Kept<'_>) -> Query {
        let mut exponent = row.exponent() + self.exponent;
        let mut gain = match self.metric {
            Metric::SqEuclidean => 2 * self.exponent - 1,
            Metric::Cosine | Metric::Correlation => 2 * self.exponent,
            _ => self.exponent,
        };
        if self.metric == Metric::InnerProduct {
            // A factor per query changes no order, and a norm in 1..2 leaves the bound to the references.
            exponent = -exponent_f32(self.sum(row.values).sqrt());
            gain = self.exponent + exponent - row.exponent();
        }
        let (values, far) = self.place(row, exponent);
        let sum = self.sum(&values);
        let (left_out, slack) = match self.metric {
            Metric::InnerProduct => (0.0, SMALL),
            metric if is_dot(metric) => {
                let half = 0.5 * sum;
                let rounding = self.rounding(sum.sqrt() * 1.000_001);
                (half + self.zero(row), (1.02 * self.gamma + 0.000_000_5) * half + rounding + SMALL)
            }
            _ => (0.0, self.linear_slack(sum)),
        };
        Query { values, left_out, slack, gain, far }
    }
}
