//! Runs of `index` that end early, indexes that are damaged or of somebody else, and what cannot be indexed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/indexes.rs"]
mod indexes;
#[path = "support/outputs.rs"]
mod outputs;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use atlasknn::job::request::{IndexRequest, RunOptions, Within};
use atlasknn::metric::Metric;
use atlasknn::schedule::progress::{Observer, Silent, Stage, Step, Stop};
use atlasknn::store::IoCounters;
use atlasknn::store::index::{Encoding, Index};
use atlasknn::units::ByteCount;
use indexes::{build, index_request};
use outputs::{noise, search, search_request, write_npy};

/// Asks to stop after so many steps of the work.
struct StopAfter<'a> {
    left: AtomicU64,
    stop: &'a Stop,
}

impl Observer for StopAfter<'_> {
    fn advance(&self, _: Stage, _: Step) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.stop.ask();
        }
    }
}

#[test]
fn a_build_stopped_anywhere_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let reference = dir.path().join("r.npy");
    write_npy(&reference, 180_000, 50, |row, column| noise(1, row, column) + noise(2, row % 97, column));
    // So little that blocks are small, and two shards.
    let within = Within { host_memory: Some(ByteCount::mib(170)), threads: Some(2) };
    for encoding in [Encoding::F32, Encoding::Sq8] {
        let request = |out: &str, resume: bool| IndexRequest {
            lists: Some(64),
            encoding,
            within,
            run: RunOptions { resume, checkpoint_seconds: 0, ..RunOptions::default() },
            ..index_request(&reference, &dir.path().join(format!("{}-{out}", encoding.name())))
        };
        let whole = request("whole", false);
        build(&whole).unwrap();
        let expected = indexes::bytes(&whole.out);
        let mut stopped = 0;
        for steps in [1, 6, 9, 10, 11, 12, 13] {
            let name = format!("after-{steps}");
            let (stop, first) = (Stop::new(), request(&name, false));
            let observer = StopAfter { left: AtomicU64::new(steps), stop: &stop };
            match atlasknn::job::index(&first, &observer, &stop) {
                Err(error) => assert!(error.to_string().contains("interrupted"), "{steps}: {error}"),
                Ok(_) => continue,
            }
            stopped += 1;
            assert!(Index::open(&first.out, &IoCounters::new()).is_err(), "{steps}: an unfinished index was opened");
            build(&request(&name, true)).unwrap_or_else(|error| panic!("after {steps}: {error}"));
            assert_eq!(indexes::bytes(&first.out), expected, "after {steps}");
        }
        assert!(stopped >= 4, "only {stopped} runs were stopped before their end");
    }
}

#[test]
fn every_damaged_file_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (reference, out) = (dir.path().join("r.npy"), dir.path().join("i"));
    write_npy(&reference, 3_000, 4, |row, column| noise(1, row, column));
    build(&IndexRequest { lists: Some(30), ..index_request(&reference, &out) }).unwrap();
    let files: Vec<String> = indexes::bytes(&out).into_keys().filter(|path| !path.starts_with(".atlasknn")).collect();
    for path in &files {
        let good = fs::read(out.join(path)).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        fs::write(out.join(path), bad).unwrap();
        let report = atlasknn::job::verify(&out, &Silent).unwrap();
        assert!(report.problems.iter().any(|problem| problem.contains(path)), "{path}: {report:?}");
        fs::remove_file(out.join(path)).unwrap();
        let report = atlasknn::job::verify(&out, &Silent).unwrap();
        assert!(report.problems.iter().any(|problem| problem.contains("missing")), "{path}: {report:?}");
        fs::write(out.join(path), good).unwrap();
    }
    assert!(atlasknn::job::verify(&out, &Silent).unwrap().problems.is_empty());
}

#[test]
fn what_is_no_index_of_this_version_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (reference, out, found) = (dir.path().join("r.npy"), dir.path().join("i"), dir.path().join("found"));
    write_npy(&reference, 300, 4, |row, column| noise(1, row, column));
    build(&IndexRequest { lists: Some(5), ..index_request(&reference, &out) }).unwrap();
    search(&search_request(&reference, None, &found, 3)).unwrap();
    let refused = |path: &Path| Index::open(path, &IoCounters::new()).unwrap_err().to_string();
    assert!(refused(&found).contains("anndata, not an index"), "{}", refused(&found));
    assert!(refused(&dir.path().join("nothing")).contains("does not exist"));
    let root = out.join("zarr.json");
    let text = fs::read_to_string(&root).unwrap();
    for (from, to, says) in [
        ("\"encoding-version\": \"0.1.0\"", "\"encoding-version\": \"9.0.0\"", "version 9.0.0"),
        ("\"metric\": \"euclidean\"", "\"metric\": \"taxicab\"", "metric is unknown"),
        ("\"encoding\": \"f32\"", "\"encoding\": \"f8\"", "an encoding `f8`"),
        ("\"manifest\"", "\"manifesto\"", "no manifest"),
    ] {
        assert!(text.contains(from), "{text}");
        fs::write(&root, text.replace(from, to)).unwrap();
        assert!(refused(&out).contains(says), "{}", refused(&out));
    }
}

#[test]
fn what_cannot_be_indexed_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    write_npy(&path("none.npy"), 0, 4, |_, _| 0.0);
    write_npy(&path("large.npy"), 200, 4, |row, _| if row == 77 { 1e5 } else { 1.0 });
    write_npy(&path("nan.npy"), 200, 4, |row, column| if row == 150 { f32::NAN } else { noise(1, row, column) });
    write_npy(&path("flat.npy"), 200, 4, |row, column| if row == 33 { 2.0 } else { noise(1, row, column) });
    let request = |name: &str| IndexRequest { lists: Some(4), ..index_request(&path(name), &path("out")) };
    for (request, says) in [
        (request("none.npy"), "no rows"),
        (IndexRequest { encoding: Encoding::F16, ..request("large.npy") }, "row 77 holds 100000"),
        (request("nan.npy"), "row 150"),
        (IndexRequest { metric: Metric::Correlation, ..request("flat.npy") }, "row 33 is constant"),
    ] {
        let run = RunOptions { overwrite: true, ..RunOptions::default() };
        let error = build(&IndexRequest { run, ..request }).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

/// Hears whether rows are sorted.
#[derive(Default)]
struct Sorts(AtomicU64);

impl Observer for Sorts {
    fn begin(&self, stage: Stage, _: Step, _: Step) {
        self.0.fetch_add(u64::from(stage == Stage::Sort), Ordering::SeqCst);
    }
}

#[test]
fn what_an_encoding_cannot_keep_is_refused_by_the_row() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let fine = |row: usize, column: usize| 1_000.0 + 0.3 * noise(1, row, column);
    write_npy(
        &path("near.npy"),
        300,
        4,
        |row, column| if row < 290 { 900.0 * noise(1, row, column) } else { fine(row, column) },
    );
    // The same limits in every dimension, so that equal bytes are equal values.
    let even = |row: usize, column: usize| if (row + column).is_multiple_of(2) { 2_000.0 } else { -2_000.0 };
    let even = |row: usize, column: usize| if row < 290 { even(row, column) } else { fine(row, column) };
    write_npy(&path("even.npy"), 300, 4, even);
    write_npy(&path("tiny.npy"), 300, 4, |row, column| if row == 7 { 1e-9 } else { noise(1, row, column) });
    write_npy(&path("huge.npy"), 300, 4, |row, column| 3.4e38 * noise(1, row, column).signum());
    write_npy(&path("large.npy"), 300, 4, |row, column| if row == 77 { 1e5 } else { noise(1, row, column) });
    let sorts = |name: &str, metric: Metric, encoding: Encoding| {
        let run = RunOptions { overwrite: true, ..RunOptions::default() };
        let request =
            IndexRequest { lists: Some(4), metric, encoding, run, ..index_request(&path(name), &path("out")) };
        let heard = Sorts::default();
        let built = atlasknn::job::index(&request, &heard, &Stop::new());
        (built.map(|_| ()).map_err(|error| error.to_string()), heard.0.into_inner())
    };
    for (name, metric, encoding, says) in [
        ("near.npy", Metric::Correlation, Encoding::F16, "row 29"),
        ("even.npy", Metric::Correlation, Encoding::Sq8, "row 29"),
        ("tiny.npy", Metric::Cosine, Encoding::F16, "row 7 loses its direction"),
        ("huge.npy", Metric::Euclidean, Encoding::Pq, "no float32"),
    ] {
        let (built, _) = sorts(name, metric, encoding);
        let error = built.unwrap_err();
        assert!(error.contains(says) && error.contains("--encoding f32"), "{name}, {metric}: {error}");
        assert_eq!(sorts(name, metric, Encoding::F32).0, Ok(()), "{name}, {metric}");
    }
    let (built, sorted) = sorts("large.npy", Metric::Euclidean, Encoding::F16);
    assert!(built.unwrap_err().contains("row 77 holds 100000") && sorted == 0, "it was found at the very end");
    assert_eq!(sorts("near.npy", Metric::Euclidean, Encoding::F16), (Ok(()), 1));
}

#[test]
fn another_job_is_not_gone_on_with_and_a_finished_one_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (reference, out) = (dir.path().join("r.npy"), dir.path().join("i"));
    write_npy(&reference, 900, 4, |row, column| noise(1, row, column));
    let request = IndexRequest { lists: Some(9), ..index_request(&reference, &out) };
    build(&request).unwrap();
    let before = indexes::bytes(&out);
    assert!(build(&request).unwrap_err().to_string().contains("--overwrite"));
    let resume = RunOptions { resume: true, ..RunOptions::default() };
    let other = IndexRequest { lists: Some(10), run: resume, ..request.clone() };
    assert!(build(&other).unwrap_err().to_string().contains("parameters.lists was 9 and is now 10"));
    build(&IndexRequest { run: resume, ..request.clone() }).unwrap();
    assert_eq!(indexes::bytes(&out), before);
    // What was lost is made again.
    fs::remove_file(out.join("ids/c/0")).unwrap();
    build(&IndexRequest { run: resume, ..request }).unwrap();
    assert_eq!(indexes::bytes(&out), before);
}

#[test]
fn a_mended_index_is_of_one_pass_over_the_rows_and_nobody_opens_it_before() {
    let dir = tempfile::tempdir().unwrap();
    let (reference, out) = (dir.path().join("r.npy"), dir.path().join("i"));
    write_npy(&reference, 140_000, 64, |row, column| noise(1, row % 500, column) + noise(2, row, column));
    let run = RunOptions { resume: true, checkpoint_seconds: 0, ..RunOptions::default() };
    let request = IndexRequest { lists: Some(30), run, ..index_request(&reference, &out) };
    build(&request).unwrap();
    let before = indexes::bytes(&out);
    // Shard 1 as another engine would have made it, which takes other centroids for the nearest here and there.
    let shard = out.join("ids/c/1");
    let mut ids = fs::read(&shard).unwrap();
    let middle = ids.len() / 2;
    ids[middle] ^= 1;
    fs::write(&shard, ids).unwrap();
    fs::remove_file(out.join("rows/c/0/0")).unwrap();
    let stop = Stop::new();
    let observer = StopAfter { left: AtomicU64::new(1), stop: &stop };
    let error = atlasknn::job::index(&request, &observer, &stop).unwrap_err().to_string();
    assert!(error.contains("interrupted"), "{error}");
    let error = Index::open(&out, &IoCounters::new()).unwrap_err().to_string();
    assert!(error.contains("not a store"), "{error}");
    build(&request).unwrap();
    assert_eq!(indexes::bytes(&out), before);
}

#[test]
fn rows_put_aside_for_centroids_that_are_lost_are_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let (reference, out) = (dir.path().join("r.npy"), dir.path().join("i"));
    write_npy(&reference, 180_000, 50, |row, column| noise(1, row, column) + noise(2, row % 97, column));
    let within = Within { host_memory: Some(ByteCount::mib(170)), threads: Some(2) };
    let run = RunOptions { resume: true, checkpoint_seconds: 0, ..RunOptions::default() };
    let request = IndexRequest { lists: Some(64), within, run, ..index_request(&reference, &out) };
    build(&request).unwrap();
    let before = indexes::bytes(&out);
    fs::remove_file(out.join("rows/c/0/0")).unwrap();
    let stop = Stop::new();
    let observer = Assigned { rows: AtomicU64::new(0), stop: Some(&stop) };
    atlasknn::job::index(&request, &observer, &stop).unwrap_err();
    assert!(out.join(".atlasknn/checkpoint").exists());
    // Centroids that are not those of the state, and cannot be read.
    let trained = out.join(".atlasknn/trained");
    let mut bytes = fs::read(&trained).unwrap();
    bytes[9] ^= 1;
    fs::write(&trained, bytes).unwrap();
    let again = Assigned { rows: AtomicU64::new(0), stop: None };
    atlasknn::job::index(&request, &again, &Stop::new()).unwrap();
    assert_eq!(again.rows.into_inner(), 180_000, "every row was assigned again");
    assert_eq!(indexes::bytes(&out), before);
}

/// Counts the rows that are put aside, and may ask to stop at the first.
struct Assigned<'a> {
    rows: AtomicU64,
    stop: Option<&'a Stop>,
}

impl Observer for Assigned<'_> {
    fn advance(&self, stage: Stage, step: Step) {
        if stage == Stage::Assign {
            self.rows.fetch_add(step.rows, Ordering::SeqCst);
            self.stop.into_iter().for_each(Stop::ask);
        }
    }
}
