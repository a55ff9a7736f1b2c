//! What a run leaves behind when it fails, and what the next one makes of it and of inputs that are not whole.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/outputs.rs"]
mod outputs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Mutex;

use atlasknn::job::request::{MapRequest, RunOptions, SearchRequest, TransferRequest, Within};
use atlasknn::schedule::progress::{Observer, Silent, Stop};
use atlasknn::weights::WeightKernel;
use outputs::{array_bytes, mapping, noise, pbmc, program, search, search_request, write_npy, write_npy_f64};

fn write_rows(path: &Path, rows: usize) {
    write_npy(path, rows, 4, |row, column| noise(1, row, column));
}

fn typed(words: &[&str], paths: &[&Path]) -> Output {
    program().args(words).args(paths).output().expect("the command starts")
}

#[test]
fn a_search_that_failed_before_it_finished_anything_is_simply_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let (query, reference, out) = (dir.path().join("q.npy"), dir.path().join("r.npy"), dir.path().join("out"));
    write_rows(&query, 300);
    write_npy(&reference, 200, 4, |row, column| if row == 177 { f32::NAN } else { noise(2, row, column) });
    let request = search_request(&query, Some(&reference), &out, 5);
    assert!(search(&request).unwrap_err().to_string().contains("row 177"));
    write_npy(&reference, 200, 4, |row, column| noise(2, row, column));
    search(&request).unwrap();
    assert!(search(&request).unwrap_err().to_string().contains("--overwrite"), "now there is something to keep");
    let alone = SearchRequest { out: dir.path().join("alone"), ..request.clone() };
    search(&alone).unwrap();
    assert_eq!(array_bytes(&out), array_bytes(&alone.out));
}

#[test]
fn data_that_do_not_fit_fail_and_only_bad_usage_is_bad_usage() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (query, empty, other) = (path("q.npy"), path("none.npy"), path("other.npy"));
    write_rows(&query, 30);
    write_rows(&empty, 0);
    write_npy(&other, 30, 4, |row, column| noise(9, row, column));
    let (found, foreign, begun) = (path("found"), path("foreign"), path("begun"));
    assert!(typed(&["search", "-q", "-k", "3"], &[&query, &query, Path::new("-o"), &found]).status.success());
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.doc"), "years of work").unwrap();
    copy(&found, &begun);
    let manifest = begun.join(".atlasknn/manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"finished\": true", "\"finished\": false")).unwrap();
    let (out, winding) = (path("out"), path("begun/../found"));
    let o = Path::new("-o");
    for (words, paths, code, says) in [
        (vec!["search"], vec![&*query, &*empty, o, &*out], 1, "no rows"),
        (vec!["search"], vec![&*empty, &*query, o, &*out], 1, "no rows"),
        (vec!["search", "--overwrite"], vec![&*query, &*query, o, &*foreign], 1, "not written by atlasknn"),
        (vec!["search"], vec![&*query, &*query, o, &*found], 1, "--overwrite"),
        (vec!["transfer", "--matrix"], vec![&*found, &*other, o, &*out], 1, "not the reference"),
        (vec!["transfer", "--matrix"], vec![&*begun, &*query, o, &*out], 1, "not finished"),
        (vec!["search"], vec![&*query, &*query, o, dir.path()], 2, "holds the QUERY"),
        (vec!["transfer", "--matrix", "--overwrite"], vec![&*found, &*query, o, &*winding], 2, "holds the NEIGHBOURS"),
        (vec!["search", "--exclude-group", "donor"], vec![&*query, &*query, o, &*out], 2, "AnnData"),
    ] {
        let output = typed(&words, &paths);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{words:?} {paths:?}: {message}");
        assert!(message.contains(says), "{words:?} {paths:?}: {message}");
        assert!(!out.exists(), "{words:?} {paths:?}");
    }
    assert!(foreign.join("thesis.doc").exists() && found.join("obsm/knn_indices").exists());
}

/// The files of a folder under another name, written now.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::write(to, fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

fn transfer_request(neighbours: &Path, reference: &Path, out: &Path) -> TransferRequest {
    TransferRequest {
        neighbours: neighbours.to_owned(),
        reference: reference.to_owned(),
        out: out.to_owned(),
        mapping: atlasknn::job::request::MappingRequest { matrix: true, ..mapping(WeightKernel::Gauss) },
        within: Within::default(),
        run: RunOptions::default(),
    }
}

fn transfer(neighbours: &Path, reference: &Path, out: &Path) -> Result<(), atlasknn::Error> {
    atlasknn::job::transfer(&transfer_request(neighbours, reference, out), &Silent, &Stop::new()).map(|_| ())
}

#[test]
fn a_copied_reference_is_the_same_and_a_changed_one_is_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (found, copied) = (path("found"), path("copied.zarr"));
    search(&search_request(&pbmc("query"), Some(&pbmc("reference")), &found, 5)).unwrap();
    copy(&pbmc("reference"), &copied);
    transfer(&found, &copied, &path("mapped")).unwrap();
    let chunk = files(&copied.join("obsm/X_pca")).into_iter().find(|file| !is_metadata(file)).unwrap();
    let mut bytes = fs::read(&chunk).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(chunk, bytes).unwrap();
    let message = transfer(&found, &copied, &path("again")).unwrap_err().to_string();
    assert!(message.contains("has changed since"), "{message}");
}

#[test]
fn an_input_is_not_overwritten_by_another_name() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, found) = (dir.path().join("rows.npy"), dir.path().join("found"));
    write_rows(&rows, 30);
    search(&search_request(&rows, None, &found, 3)).unwrap();
    for out in ["found", "found/.", "found/../found", "found/obsm/.."] {
        let mut request = transfer_request(&found, &rows, &dir.path().join(out));
        request.run.overwrite = true;
        let message = atlasknn::job::transfer(&request, &Silent, &Stop::new()).unwrap_err().to_string();
        assert!(message.contains("holds the input"), "{out}: {message}");
    }
    transfer(&found, &rows, &dir.path().join("mapped")).unwrap();
}

#[test]
fn rows_of_float64_can_be_transferred_from() {
    let dir = tempfile::tempdir().unwrap();
    let (query, reference, found) = (dir.path().join("q.npy"), dir.path().join("r.npy"), dir.path().join("found"));
    let value = |seed| move |row, column| f64::from(noise(seed, row, column)) + 1e3;
    write_npy_f64(&query, 30, 4, value(1));
    write_npy_f64(&reference, 40, 4, value(2));
    for metric in atlasknn::metric::Metric::ALL.into_iter().filter(|metric| metric.is_distance()) {
        let options = RunOptions { overwrite: true, ..RunOptions::default() };
        let request = search_request(&query, Some(&reference), &found, 5);
        search(&SearchRequest { metric, run: options, ..request }).unwrap();
        transfer(&found, &reference, &dir.path().join(metric.name())).unwrap_or_else(|e| panic!("{metric}: {e}"));
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn is_metadata(file: &Path) -> bool {
    [".zarray", ".zattrs", ".zgroup", "zarr.json"].iter().any(|name| file.ends_with(name))
}

/// Keeps what a run tells.
#[derive(Default)]
struct Told {
    warnings: Mutex<Vec<String>>,
    notes: Mutex<Vec<String>>,
}

impl Observer for Told {
    fn note(&self, message: &str) {
        self.notes.lock().unwrap().push(message.to_owned());
    }

    fn warn(&self, message: &str) {
        self.warnings.lock().unwrap().push(message.to_owned());
    }
}

#[test]
fn chunks_that_are_not_there_are_told_before_the_search() {
    let dir = tempfile::tempdir().unwrap();
    let copied = dir.path().join("copied.zarr");
    copy(&pbmc("reference"), &copied);
    let map = |reference: &Path, out: &str| {
        let search = search_request(&pbmc("query"), Some(reference), &dir.path().join(out), 5);
        let mut mapping = mapping(WeightKernel::Gauss);
        (mapping.labels, mapping.obsm) = (vec!["bulk_labels".to_owned()], vec!["X_umap".to_owned()]);
        let told = Told::default();
        atlasknn::job::map(&MapRequest { search, mapping }, &told, &Stop::new()).unwrap();
        (told.warnings.into_inner().unwrap(), told.notes.into_inner().unwrap())
    };
    assert_eq!(map(&copied, "whole"), (vec![], vec![]));
    for array in ["obsm/X_pca", "obsm/X_umap", "obs/bulk_labels/codes"] {
        let chunk = files(&copied.join(array)).into_iter().find(|file| !is_metadata(file)).unwrap();
        fs::remove_file(chunk).unwrap();
    }
    let (warnings, notes) = map(&copied, "part");
    assert_eq!((warnings.len(), notes.len()), (2, 1), "{warnings:?} {notes:?}");
    for (message, array) in [(&warnings[0], "obsm/X_pca"), (&warnings[1], "obsm/X_umap"), (&notes[0], "bulk_labels")] {
        assert!(message.contains(array) && message.contains("1 of its chunk files"), "{message}");
        assert!(message.contains("fill value, 0") && message.contains("cop"), "{message}");
    }
}

#[test]
fn a_finished_output_that_lost_a_marker_or_a_file_is_found_out_and_mended() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let search = search_request(&pbmc("query"), Some(&pbmc("reference")), &out, 5);
    let mut mapping = mapping(WeightKernel::Gauss);
    mapping.labels = vec!["bulk_labels".to_owned()];
    let request = MapRequest { search: search.clone(), mapping };
    outputs::map(&request).unwrap();
    let expected = array_bytes(&out);
    let problems = || atlasknn::job::verify(&out, &Silent).unwrap().problems;
    assert_eq!(problems(), Vec::<String>::new());
    let resume = RunOptions { resume: true, ..RunOptions::default() };
    let resumed = MapRequest { search: SearchRequest { run: resume, ..search }, ..request };
    for lost in [
        ".atlasknn/done/search/00000000.json",
        ".atlasknn/done/map/00000000.json",
        ".atlasknn/files.json",
        "obsm/knn_indices/c/0/0",
        "obs/bulk_labels_pred/categories/zarr.json",
    ] {
        let path = out.join(lost);
        let good = fs::read(&path).unwrap();
        for damage in [None, Some(&good[..good.len() / 2])] {
            match damage {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let found = atlasknn::job::verify(&out, &Silent);
            assert!(found.is_err() || !found.unwrap().problems.is_empty(), "{lost}, {damage:?}");
            outputs::map(&resumed).unwrap_or_else(|error| panic!("{lost}, {damage:?}: {error}"));
            assert_eq!(problems(), Vec::<String>::new(), "{lost}");
            assert_eq!(array_bytes(&out), expected, "{lost}");
        }
    }
}

#[test]
fn a_mapping_is_not_resumed_with_other_labels_or_groups() {
    let dir = tempfile::tempdir().unwrap();
    let copied = dir.path().join("copied.zarr");
    copy(&pbmc("reference"), &copied);
    let mut mapping = mapping(WeightKernel::Gauss);
    (mapping.labels, mapping.values) = (vec!["bulk_labels".to_owned()], vec!["n_genes".to_owned()]);
    let search = search_request(&pbmc("query"), Some(&copied), &dir.path().join("out"), 5);
    let search = SearchRequest { exclude_group: Some("phase".to_owned()), ..search };
    outputs::map(&MapRequest { search: search.clone(), mapping: mapping.clone() }).unwrap();
    let resume = RunOptions { resume: true, ..RunOptions::default() };
    let resumed = MapRequest { search: SearchRequest { run: resume, ..search }, mapping };
    for (column, says) in [("bulk_labels/codes", "transferred"), ("n_genes", "transferred"), ("phase/codes", "group")] {
        outputs::map(&resumed).unwrap();
        let chunk = files(&copied.join("obs").join(column)).into_iter().find(|file| !is_metadata(file)).unwrap();
        let good = fs::read(&chunk).unwrap();
        fs::write(&chunk, [good.as_slice(), &[0]].concat()).unwrap();
        let message = outputs::map(&resumed).unwrap_err().to_string();
        assert!(message.contains("changed since") && message.contains(says), "{column}: {message}");
        fs::write(&chunk, good).unwrap();
    }
}
