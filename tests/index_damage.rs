//! Searches through an index of which a file is missing, damaged, or of another size: refused by name, never answered.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/indexes.rs"]
mod indexes;
#[path = "support/outputs.rs"]
mod outputs;

use std::fs;
use std::path::{Path, PathBuf};

use atlasknn::job::request::{How, IndexRequest, Method, Probes, RunOptions, SearchRequest};
use atlasknn::store::index::Encoding;
use indexes::{build, index_request};
use outputs::{array_bytes, noise, search, search_request, write_npy};

const DIM: usize = 64;
/// Enough for two shards of rows.
const REFERENCES: usize = 140_000;

struct Files {
    dir: tempfile::TempDir,
    reference: PathBuf,
    query: PathBuf,
}

fn files(references: usize) -> Files {
    let dir = tempfile::tempdir().unwrap();
    let (reference, query) = (dir.path().join("r.npy"), dir.path().join("q.npy"));
    write_npy(&reference, references, DIM, |row, column| noise(1, row % 3_000, column) + 0.1 * noise(2, row, column));
    write_npy(&query, 40, DIM, |row, column| noise(1, row * 7, column) + 0.1 * noise(3, row, column));
    Files { dir, reference, query }
}

impl Files {
    fn index(&self, encoding: Encoding) -> PathBuf {
        let out = self.dir.path().join(encoding.name());
        build(&IndexRequest { lists: Some(40), encoding, ..index_request(&self.reference, &out) }).unwrap();
        out
    }

    /// A search that reads every row of the index.
    fn request(&self, index: &Path, method: Method) -> SearchRequest {
        let probes = if method == Method::Ivf { Probes::Lists(1_000) } else { Probes::Auto };
        let how = How { method, index: Some(index.to_owned()), probes, ..How::default() };
        let run = RunOptions { overwrite: true, ..RunOptions::default() };
        let request = search_request(&self.query, Some(&self.reference), &self.dir.path().join("out"), 9);
        SearchRequest { how, run, ..request }
    }
}

/// The files of an index that a search reads, its markers and metadata excepted.
fn chunk_files(index: &Path) -> Vec<String> {
    indexes::bytes(index).into_keys().filter(|path| path.contains("/c/")).collect()
}

#[test]
fn a_search_refuses_an_index_with_a_missing_file_and_names_it() {
    let files = files(REFERENCES);
    let index = files.index(Encoding::F32);
    let paths = chunk_files(&index);
    assert!(paths.iter().any(|path| path == "rows/c/1/0") && paths.len() == 7, "{paths:?}");
    for path in &paths {
        fs::rename(index.join(path), index.join("away")).unwrap();
        for method in [Method::Exact, Method::Ivf] {
            let error = search(&files.request(&index, method)).unwrap_err().to_string();
            let (array, file) = path.split_once('/').unwrap();
            assert!(error.contains(array) && error.contains(file) && error.contains("missing"), "{path}: {error}");
        }
        fs::rename(index.join("away"), index.join(path)).unwrap();
    }
    search(&files.request(&index, Method::Exact)).unwrap();
}

#[test]
fn a_search_through_all_lists_notices_a_flipped_bit_and_a_short_file_of_any_array() {
    let files = files(2_000);
    for encoding in Encoding::ALL {
        let index = files.index(encoding);
        search(&files.request(&index, Method::Ivf)).unwrap();
        let expected = array_bytes(&files.dir.path().join("out"));
        let paths = chunk_files(&index);
        assert!(paths.len() >= 5, "{paths:?}");
        for path in &paths {
            let good = fs::read(index.join(path)).unwrap();
            let mut flipped = good.clone();
            let middle = good.len() / 2;
            flipped[middle] ^= 1;
            for bad in [&flipped[..], &good[..good.len() - 1], &[]] {
                fs::write(index.join(path), bad).unwrap();
                let found = search(&files.request(&index, Method::Ivf));
                assert!(found.is_err(), "{path} of {} bytes instead of {}", bad.len(), good.len());
            }
            fs::write(index.join(path), good).unwrap();
        }
        search(&files.request(&index, Method::Ivf)).unwrap();
        assert_eq!(array_bytes(&files.dir.path().join("out")), expected);
    }
}

#[test]
fn a_shape_that_no_memory_holds_is_named_and_not_made_room_for() {
    let files = files(2_000);
    let index = files.index(Encoding::Pq);
    for array in ["centroids", "radii", "offsets", "codebooks"] {
        let path = index.join(array).join("zarr.json");
        let good = fs::read_to_string(&path).unwrap();
        let mut metadata: serde_json::Value = serde_json::from_str(&good).unwrap();
        metadata["shape"][0] = (1_u64 << 50).into();
        fs::write(&path, metadata.to_string()).unwrap();
        let error = search(&files.request(&index, Method::Ivf)).unwrap_err().to_string();
        assert!(error.contains(array) && error.contains("missing"), "{array}: {error}");
        fs::write(&path, good).unwrap();
    }
}
