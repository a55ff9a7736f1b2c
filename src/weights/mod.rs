//! From distances to weights: CellMapper's kernels and what each must see. No files.

use std::fmt;

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

impl WeightKernel {
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
}

impl fmt::Display for WeightKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
