//! The same bytes for any budget, any number of threads, and however often a run is killed on the way.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/kills.rs"]
mod kills;
#[path = "support/outputs.rs"]
mod outputs;

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use atlasknn::job::request::{MapRequest, RunOptions, SearchRequest, Within};
use atlasknn::schedule::progress::{Observer, Silent, Stage, Step, Stop};
use atlasknn::units::ByteCount;
use atlasknn::weights::WeightKernel;
use kills::kill_when;
use outputs::{array_bytes, map, mapping, noise, pbmc, program, search, search_request, write_npy};

const DIM: usize = 4;

struct Files {
    dir: tempfile::TempDir,
    query: PathBuf,
    reference: PathBuf,
}

fn files(queries: usize, references: usize) -> Files {
    let dir = tempfile::tempdir().unwrap();
    let (query, reference) = (dir.path().join("query.npy"), dir.path().join("reference.npy"));
    write_npy(&query, queries, DIM, |row, column| noise(1, row, column));
    write_npy(&reference, references, DIM, |row, column| noise(2, row, column));
    Files { dir, query, reference }
}

impl Files {
    fn request(&self, out: &str) -> SearchRequest {
        search_request(&self.query, Some(&self.reference), &self.dir.path().join(out), 5)
    }

    fn within(&self, out: &str, mib: u64, threads: usize) -> SearchRequest {
        let within = Within { host_memory: Some(ByteCount::mib(mib)), threads: Some(threads) };
        SearchRequest { within, ..self.request(out) }
    }
}

#[test]
fn budgets_and_threads_do_not_change_a_byte() {
    // Enough references for several partitions, enough queries for three units, the last one short.
    let files = files(300_000, 60_000);
    let whole = files.within("whole", 4096, 2);
    search(&whole).unwrap();
    let expected = array_bytes(&whole.out);
    for (out, mib, threads) in [("a", 1024, 1), ("b", 256, 2), ("c", 60, 1)] {
        let request = files.within(out, mib, threads);
        let plan = atlasknn::job::plan_search(&request).unwrap();
        search(&request).unwrap();
        assert_eq!(array_bytes(&request.out), expected, "{mib} MiB, {threads} threads, {:?}", plan.lines);
    }
}

#[test]
fn both_loop_orders_give_the_same_bytes() {
    let files = files(3_000, 1_000_000);
    let order = |request: &SearchRequest| {
        atlasknn::job::plan_search(request).unwrap().json["search"]["order"].as_str().unwrap_or_default().to_owned()
    };
    let streaming = files.within("streaming", 40, 2);
    // Mirrored: the small side is the reference.
    let mut staying = files.within("staying", 1024, 2);
    staying.query.clone_from(&files.reference);
    staying.reference = Some(files.query.clone());
    assert_eq!((order(&streaming), order(&staying)), ("queries_stay".to_owned(), "reference_stays".to_owned()));
    search(&streaming).unwrap();
    let whole = files.within("whole", 4096, 1);
    search(&whole).unwrap();
    assert_eq!(array_bytes(&streaming.out), array_bytes(&whole.out));
}

fn mapped(out: &Path, mib: u64, threads: usize) -> MapRequest {
    let mut mapping = mapping(WeightKernel::Gauss);
    mapping.labels = vec!["bulk_labels".to_owned()];
    mapping.values = vec!["n_genes".to_owned()];
    mapping.obsm = vec!["X_umap".to_owned()];
    mapping.presence = Some(outputs::raw_presence(Some("phase")));
    mapping.matrix = true;
    let search = search_request(&pbmc("query"), Some(&pbmc("reference")), out, 15);
    let within = Within { host_memory: Some(ByteCount::mib(mib)), threads: Some(threads) };
    MapRequest { search: SearchRequest { within, ..search }, mapping }
}

#[test]
fn mapped_arrays_do_not_depend_on_threads_or_budget() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    map(&mapped(&a, 1024, 1)).unwrap();
    map(&mapped(&b, 256, 3)).unwrap();
    assert_eq!(array_bytes(&a), array_bytes(&b));
}

/// Starts the command line on these files, checkpointing as often as it can.
fn start(files: &Files, out: &Path, mib: u64, resume: bool) -> Child {
    let mut command = program();
    command.args(["search", "-q", "--threads", "2", "-k", "5", "--checkpoint-seconds", "0"]);
    command.arg("--host-memory").arg(format!("{mib}MiB"));
    command.arg(&files.query).arg(&files.reference).arg("-o").arg(out);
    if resume {
        command.arg("--resume");
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn wait(mut child: Child) -> i32 {
    child.wait().unwrap().code().unwrap_or(-1)
}

fn markers(out: &Path) -> usize {
    std::fs::read_dir(out.join(".atlasknn/done/search")).map_or(0, |entries| {
        entries.filter(|entry| entry.as_ref().is_ok_and(|e| !e.file_name().to_string_lossy().starts_with('.'))).count()
    })
}

#[test]
fn a_run_killed_ten_times_ends_with_the_same_bytes_and_reuses_what_was_done() {
    let units = 17;
    let files = files((units - 1) * 131_072 + 77, 300);
    let whole = files.dir.path().join("whole");
    assert_eq!(wait(start(&files, &whole, 256, false)), 0);
    let expected = array_bytes(&whole);
    let out = files.dir.path().join("killed");
    let mut kills = 0;
    for i in 0..10 {
        // 5 to 95 percent of the units, and each time a little after the marker.
        let at = 1 + (units - 1) * i / 10;
        let child = start(&files, &out, 256, i > 0);
        kills += usize::from(kill_when(child, || markers(&out) >= at));
    }
    assert!(kills >= 8, "only {kills} runs were killed on the way");
    let before = markers(&out);
    assert_eq!(wait(start(&files, &out, 512, true)), 0);
    assert_eq!(array_bytes(&out), expected);
    let reused: Vec<i64> = outputs::values(&out, "uns/atlasknn/run/units_reused");
    assert!(reused[0] >= i64::try_from(before).unwrap() - 1 && reused[0] > 0, "{} of {before} reused", reused[0]);
    let read = |out: &Path| outputs::values::<i64>(out, "uns/atlasknn/run/bytes_read")[0];
    assert!(read(&out) < read(&whole), "the last part reads less than the whole");
}

#[test]
fn one_long_unit_goes_on_from_its_checkpoint() {
    // One block of queries, many partitions: nothing but checkpoints to go on from.
    let files = files(2_000, 1_500_000);
    let (whole, out) = (files.dir.path().join("whole"), files.dir.path().join("killed"));
    assert_eq!(wait(start(&files, &whole, 40, false)), 0);
    let expected = array_bytes(&whole);
    let checkpoint = out.join(".atlasknn/checkpoint");
    let stamp = || std::fs::metadata(&checkpoint).and_then(|m| m.modified()).ok();
    let mut kills = 0;
    for i in 0..5 {
        let before = stamp();
        // Another checkpoint has been written since this run began.
        kills += usize::from(kill_when(start(&files, &out, 40, i > 0), || stamp().is_some() && stamp() != before));
    }
    assert!(kills >= 3, "only {kills} runs were killed on the way");
    assert!(checkpoint.exists());
    // The last one has another budget, so other partitions and blocks.
    assert_eq!(wait(start(&files, &out, 64, true)), 0);
    assert_eq!(array_bytes(&out), expected);
    let read = |out: &Path| outputs::values::<i64>(out, "uns/atlasknn/run/bytes_read")[0];
    assert!(read(&out) < read(&whole), "the references before the checkpoint are not read again");
    assert!(!checkpoint.exists());
}

/// Asks to stop as soon as some rows are done.
struct StopAfter<'a>(&'a Stop);

impl Observer for StopAfter<'_> {
    fn advance(&self, stage: Stage, step: Step) {
        if stage == Stage::Search && step.rows > 0 {
            self.0.ask();
        }
    }
}

#[test]
fn asking_to_stop_ends_with_interrupted_and_the_rest_can_be_resumed() {
    let files = files(500_000, 300);
    let whole = files.request("whole");
    search(&whole).unwrap();
    let request = files.request("stopped");
    let stop = Stop::new();
    let error = atlasknn::job::search(&request, &StopAfter(&stop), &stop).unwrap_err();
    assert!(matches!(error, atlasknn::Error::Job(atlasknn::error::JobError::Interrupted)), "{error}");
    assert!(markers(&request.out) >= 1);
    // However far it came: the last unit was not written.
    for file in [".atlasknn/done/search/00000003.json", "obsm/knn_indices/c/3/0", "obsm/knn_distances/c/3/0"] {
        let _ = std::fs::remove_file(request.out.join(file));
    }
    let found = atlasknn::job::verify(&request.out, &Silent).unwrap();
    assert!(matches!(found.problems.as_slice(), [one] if one.contains("not finished")), "{:?}", found.problems);
    assert!(found.rows > 0 && found.rows < 500_000);
    let resumed = SearchRequest { run: RunOptions { resume: true, ..request.run }, ..request };
    let outcome = atlasknn::job::search(&resumed, &Silent, &Stop::new()).unwrap();
    assert!(outcome.units.1 >= 1);
    assert_eq!(array_bytes(&resumed.out), array_bytes(&whole.out));
}

#[test]
fn a_changed_input_is_not_resumed() {
    let files = files(1_000, 300);
    let request = files.request("out");
    search(&request).unwrap();
    write_npy(&files.reference, 301, DIM, |row, column| noise(3, row, column));
    let resumed = SearchRequest { run: RunOptions { resume: true, ..request.run }, ..request };
    let message = search(&resumed).unwrap_err().to_string();
    assert!(message.contains("another job") && message.contains("the reference is another one"), "{message}");
}

#[test]
fn verify_finds_a_flipped_byte_in_any_array_and_a_missing_file() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    map(&mapped(&out, 512, 2)).unwrap();
    let verify = || atlasknn::job::verify(&out, &Silent).unwrap();
    assert_eq!(verify().problems, Vec::<String>::new());
    assert_eq!(verify().rows, 200);
    let files = array_bytes(&out);
    assert!(files.len() > 20, "{}", files.len());
    for path in files.keys() {
        let path = out.join(path);
        let good = std::fs::read(&path).unwrap();
        for at in [0, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, bad).unwrap();
            assert!(!verify().problems.is_empty(), "byte {at} of {}", path.display());
        }
        std::fs::remove_file(&path).unwrap();
        assert!(!verify().problems.is_empty(), "{} is missing", path.display());
        std::fs::write(&path, good).unwrap();
    }
    assert_eq!(verify().problems, Vec::<String>::new());
}
