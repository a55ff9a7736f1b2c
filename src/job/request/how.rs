//! How a user wants the reference to be searched.

use std::path::PathBuf;

pub use crate::engine::hnsw::GraphOptions;

/// How to search.
#[derive(Clone, Debug, PartialEq)]
pub struct How {
    /// Compare every pair or the likely ones.
    pub method: Method,
    /// An index of the reference.
    pub index: Option<PathBuf>,
    /// How many lists of it each query visits.
    pub probes: Probes,
    /// Fail where the audited recall is below the one asked for.
    pub strict: bool,
    /// Whether what a compressed index finds gets its exact distances from the reference.
    pub refine: bool,
    /// How a graph is built and searched.
    pub graph: GraphOptions,
}

impl Default for How {
    fn default() -> Self {
        Self {
            method: Method::Auto,
            index: None,
            probes: Probes::Auto,
            strict: false,
            refine: true,
            graph: GraphOptions::default(),
        }
    }
}

/// Which pairs are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// All while that is quick, else the likely ones.
    #[default]
    Auto,
    /// All of them, or with an index those that are not certain to be too far.
    Exact,
    /// Those of a query with the lists of an index that are nearest to it.
    Ivf,
    /// Those that a graph of the reference leads to.
    Hnsw,
}

/// How many lists each query visits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Probes {
    /// As many as find [`DEFAULT_RECALL`] of the neighbours.
    #[default]
    Auto,
    /// So many.
    Lists(u32),
    /// At most so many, and none beyond this [`Horizon`](crate::visit::Horizon).
    WithHorizon(u32, f64),
    /// As many as find this share of the neighbours, 0 to 1.
    Recall(f64),
}

/// The recall that is aimed at where nobody said which.
pub const DEFAULT_RECALL: f64 = 0.99;

impl Probes {
    /// The recall that is asked for; none where a number of lists is.
    #[must_use]
    pub fn recall(self) -> Option<f64> {
        match self {
            Self::Auto => Some(DEFAULT_RECALL),
            Self::Lists(_) | Self::WithHorizon(..) => None,
            Self::Recall(recall) => Some(recall),
        }
    }
}
