//! What a run tells while it works. The library says it, the caller shows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The parts of a run that take time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Finding out how many lists to visit.
    Calibrate,
    /// Finding neighbours.
    Search,
    /// Finding the neighbours of a sample exactly.
    Audit,
    /// Copying the references' names.
    Names,
    /// Transferring labels, numbers and embeddings.
    Map,
    /// Writing the mapping matrix.
    Matrix,
    /// Summing presence scores.
    Presence,
    /// Checking an output.
    Verify,
    /// Learning the centroids of an index.
    Train,
    /// Finding each row's list.
    Assign,
    /// Writing rows in the order of their lists.
    Sort,
}

impl Stage {
    /// The word shown for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Calibrate => "calibrate",
            Self::Search => "search",
            Self::Audit => "audit",
            Self::Names => "names",
            Self::Map => "map",
            Self::Matrix => "matrix",
            Self::Presence => "presence",
            Self::Verify => "verify",
            Self::Train => "train",
            Self::Assign => "assign",
            Self::Sort => "sort",
        }
    }
}

/// Work done since the last report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Rows finished.
    pub rows: u64,
    /// Pairs compared.
    pub pairs: u64,
    /// Bytes read and written.
    pub bytes: u64,
}

/// Hears how a run goes. All methods may be called from any thread.
pub trait Observer: Sync {
    /// A stage begins: this much work in all, of which `done` was finished by an earlier run.
    fn begin(&self, _stage: Stage, _total: Step, _done: Step) {}
    /// Work done since the last call.
    fn advance(&self, _stage: Stage, _step: Step) {}
    /// A stage is over.
    fn end(&self, _stage: Stage) {}
    /// Something worth knowing, for example which units are reused.
    fn note(&self, _message: &str) {}
    /// Something to look into; the run goes on.
    fn warn(&self, _message: &str) {}
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}

/// Asks a run to stop where it can be gone on with: between units, and in a search between portions of a partition.
#[derive(Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Not asked yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// True once somebody asked, for an engine that works long between two borders.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// Asks.
    pub fn ask(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether somebody asked.
    #[must_use]
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
