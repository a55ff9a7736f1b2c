//! The seven distances, by their names on the command line, and how far two engines may differ in each.

use std::fmt;
use std::str::FromStr;

use crate::error::UnitError;

/// How far apart two rows are. Smaller is nearer in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Metric {
    /// √Σ(q−r)²
    Euclidean,
    /// Σ(q−r)²
    SqEuclidean,
    /// 1 − cos(q, r); a zero vector is at distance 1 from everything
    Cosine,
    /// −q·r
    InnerProduct,
    /// cosine of the rows minus their own means; a constant row is an error
    Correlation,
    /// Σ|q−r|
    Manhattan,
    /// max|q−r|
    Chebyshev,
}

impl Metric {
    /// All of them, in the order of the command line's help.
    pub const ALL: [Self; 7] = [
        Self::Euclidean,
        Self::SqEuclidean,
        Self::Cosine,
        Self::InnerProduct,
        Self::Correlation,
        Self::Manhattan,
        Self::Chebyshev,
    ];

    /// The name on the command line and in the manifest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Euclidean => "euclidean",
            Self::SqEuclidean => "sqeuclidean",
            Self::Cosine => "cosine",
            Self::InnerProduct => "inner_product",
            Self::Correlation => "correlation",
            Self::Manhattan => "manhattan",
            Self::Chebyshev => "chebyshev",
        }
    }

    /// Whether values are ≥ 0 and 0 only between equal directions or rows: what distance-based weights need.
    #[must_use]
    pub fn is_distance(self) -> bool {
        self != Self::InnerProduct
    }

    /// Whether moving both rows by the same vector leaves the value alone, so that rows may be centred.
    #[must_use]
    pub fn ignores_offset(self) -> bool {
        matches!(self, Self::Euclidean | Self::SqEuclidean | Self::Manhattan | Self::Chebyshev)
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Metric {
    type Err = UnitError;

    fn from_str(name: &str) -> Result<Self, UnitError> {
        Self::ALL
            .into_iter()
            .find(|m| m.name() == name)
            .ok_or_else(|| UnitError::Metric { found: name.to_owned(), known: Self::ALL.map(Self::name).join(", ") })
    }
}

/// Which arithmetic computed a distance: the two differ in their tie bands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EngineKind {
    /// Exact form in f64, rounded once.
    Cpu,
    /// Exact form in f32, summed in blocks of 16 and then in a tree.
    Gpu,
}

/// Within how much of each other two distances count as equal when the ids of two engines are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TieBand {
    /// This share of the larger distance.
    Relative(f64),
    /// This much.
    Absolute(f64),
    /// This share of ‖q‖‖r‖.
    RelativeToNorms(f64),
}

impl TieBand {
    /// Whether distances `a` and `b` of rows with the given product of norms ‖q‖‖r‖ are a tie.
    #[must_use]
    pub fn is_tie(self, a: f64, b: f64, norm_product: f64) -> bool {
        let width = match self {
            Self::Relative(share) => share * a.abs().max(b.abs()),
            Self::Absolute(width) => width,
            Self::RelativeToNorms(share) => share * norm_product,
        };
        (a - b).abs() <= width
    }
}

/// The tie band of a metric in `dim` dimensions on an engine; the one place for these numbers.
///
/// The CPU rounds an f64 result once, so 1e-6 leaves room for the naive f64 oracle's other order of summation and for
/// rows near each other; the GPU sums `dim` f32 products in blocks of 16 and a tree, so its error grows with log₂(dim/16).
#[must_use]
pub fn tie_band(metric: Metric, dim: usize, engine: EngineKind) -> TieBand {
    let width = match engine {
        EngineKind::Cpu => 1e-6,
        EngineKind::Gpu => {
            let blocks = dim.div_ceil(16).max(1);
            let tree_depth = f64::from(blocks.next_power_of_two().trailing_zeros());
            4.0 * (18.0 + tree_depth) * 2f64.powi(-24)
        }
    };
    match metric {
        Metric::Cosine | Metric::Correlation => TieBand::Absolute(width),
        Metric::InnerProduct => TieBand::RelativeToNorms(width),
        Metric::Euclidean | Metric::SqEuclidean | Metric::Manhattan | Metric::Chebyshev => TieBand::Relative(width),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_back_to_its_metric() {
        for metric in Metric::ALL {
            assert_eq!(metric.name().parse(), Ok(metric));
        }
        assert!("euclid".parse::<Metric>().is_err());
    }

    #[test]
    fn a_tie_band_tells_ties_from_differences() {
        let band = tie_band(Metric::Euclidean, 50, EngineKind::Cpu);
        assert!(band.is_tie(1000.0, 1000.0005, 0.0) && !band.is_tie(1000.0, 1000.01, 0.0));
        let band = tie_band(Metric::Cosine, 50, EngineKind::Gpu);
        assert!(band.is_tie(1e-7, 2e-7, 0.0) && !band.is_tie(0.1, 0.1001, 0.0));
    }
}
