//! Queries and references on disk, and where the rest of a test goes.
#![allow(dead_code, clippy::unwrap_used)]

use std::path::PathBuf;

use super::outputs::{noise, write_npy};

/// Rows of clusters that touch each other, so that neighbours are in several lists.
pub fn clustered(seed: u64) -> impl Fn(usize, usize) -> f32 {
    move |row, column| 3.0 * noise(9, (row * 7919) % 30, column) + noise(seed, row, column)
}

pub struct Files {
    pub dir: tempfile::TempDir,
    pub query: PathBuf,
    pub reference: PathBuf,
}

impl Files {
    /// So many queries and references, of `rows` with another seed each.
    pub fn of<F: Fn(usize, usize) -> f32>(
        (queries, references): (usize, usize),
        dim: usize,
        rows: impl Fn(u64) -> F,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (query, reference) = (dir.path().join("query.npy"), dir.path().join("reference.npy"));
        write_npy(&query, queries, dim, rows(1));
        write_npy(&reference, references, dim, rows(2));
        Self { dir, query, reference }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}
