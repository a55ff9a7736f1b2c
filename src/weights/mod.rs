//! From distances to weights: CellMapper's kernels and what each must see. No files.
//!
//! Shapes: neighbours come as [`TopK`](crate::topk::TopK) rows, weights leave as rows of the mapping matrix. One block
//! of query rows at a time; what a kernel must know of all rows is in [`stats::DistanceStatistics`].

mod rows;
pub mod stats;

use std::fmt;
use std::str::FromStr;

use crate::error::UnitError;
use stats::DistanceStatistics;

pub use rows::{gauss_weights, weigh};

/// CellMapper's distance → weight function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WeightKernel {
    /// exp(−d²/2s²), s the mean distance
    Gauss,
    /// exp(−d·v/4), v the variance of the distances
    Scarches,
    /// 1/(d + 1e-8)
    InverseDistance,
    /// 1
    Equal,
}

/// Kernels of CellMapper that need more than the distances of one row, or random numbers.
const NOT_BUILT: [&str; 4] = ["random", "jaccard", "hnoca", "umap"];

impl WeightKernel {
    /// All that are built, in the order of the command line's help.
    pub const ALL: [Self; 4] = [Self::Gauss, Self::Scarches, Self::InverseDistance, Self::Equal];

    /// The name on the command line and in the manifest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gauss => "gauss",
            Self::Scarches => "scarches",
            Self::InverseDistance => "inverse_distance",
            Self::Equal => "equal",
        }
    }

    /// Whether values must be ≥ 0 and 0 only between equals (`Metric::is_distance`): such kernels refuse inner products.
    #[must_use]
    pub fn needs_distance(self) -> bool {
        self != Self::Equal
    }

    /// Whether weights depend on the statistics of all distances, so that they need a pass of their own.
    #[must_use]
    pub fn needs_statistics(self) -> bool {
        matches!(self, Self::Gauss | Self::Scarches)
    }

    /// The weight of each distance, given the statistics of all of them.
    #[must_use]
    pub fn function(self, statistics: &DistanceStatistics) -> WeightFunction {
        match self {
            Self::Gauss => {
                let width = 2.0 * statistics.mean * statistics.mean;
                // All distances 0 is 0/0 in the formula; equal distances get equal weights, so its limit is 1.
                if width > 0.0 { WeightFunction::Gauss { width } } else { WeightFunction::One }
            }
            Self::Scarches => WeightFunction::Exponential { rate: statistics.variance() / 4.0 },
            Self::InverseDistance => WeightFunction::Inverse,
            Self::Equal => WeightFunction::One,
        }
    }
}

impl fmt::Display for WeightKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for WeightKernel {
    type Err = UnitError;

    fn from_str(name: &str) -> Result<Self, UnitError> {
        if let Some(kernel) = Self::ALL.into_iter().find(|kernel| kernel.name() == name) {
            return Ok(kernel);
        }
        let (found, known) = (name.to_owned(), Self::ALL.map(Self::name).join(", "));
        let built = !NOT_BUILT.contains(&name);
        Err(if built { UnitError::Kernel { found, known } } else { UnitError::KernelNotBuilt { found, known } })
    }
}

/// A kernel with its statistics filled in: a function of one distance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WeightFunction {
    /// exp(−d²/width)
    Gauss {
        /// 2s², s the mean distance.
        width: f64,
    },
    /// exp(−d·rate)
    Exponential {
        /// A quarter of the variance.
        rate: f64,
    },
    /// 1/(d + 1e-8)
    Inverse,
    /// 1
    One,
}

impl WeightFunction {
    /// The weight at distance `d`, before the row is normalised.
    #[must_use]
    pub fn at(self, d: f64) -> f64 {
        match self {
            Self::Gauss { width } => (-(d * d) / width).exp(),
            Self::Exponential { rate } => (-d * rate).exp(),
            Self::Inverse => 1.0 / (d + 1e-8),
            Self::One => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_back_to_its_kernel() {
        for kernel in WeightKernel::ALL {
            assert_eq!(kernel.name().parse(), Ok(kernel));
        }
    }

    #[test]
    fn a_kernel_that_is_not_there_is_told_from_one_that_is_not_built() {
        let unknown = "gaus".parse::<WeightKernel>().expect_err("no such kernel").to_string();
        assert_eq!(unknown, "there is no kernel `gaus`: use one of gauss, scarches, inverse_distance, equal");
        for name in NOT_BUILT {
            let error = name.parse::<WeightKernel>().expect_err("not built").to_string();
            assert!(error.starts_with(&format!("kernel `{name}` is not built yet")), "{error}");
        }
    }

    #[test]
    fn kernels_say_what_they_need() {
        let needs = WeightKernel::ALL.map(|kernel| (kernel.needs_distance(), kernel.needs_statistics()));
        assert_eq!(needs, [(true, true), (true, true), (true, false), (false, false)]);
    }

    #[test]
    fn distances_without_spread_weigh_the_same() {
        let zeros = DistanceStatistics::default().with_zeros(5);
        let same = DistanceStatistics { count: 3.0, mean: 2.0, m2: 0.0, min: 2.0, max: 2.0 };
        for (kernel, statistics, d) in [(WeightKernel::Gauss, zeros, 0.0), (WeightKernel::Scarches, same, 2.0)] {
            assert_eq!(kernel.function(&statistics).at(d), 1.0, "{kernel}");
        }
    }
}
