//! Claims about whole searches through a graph: what they find, what they refuse, what they say of themselves.
#![cfg(feature = "hnsw")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_precision_loss)]
// A job that fails where it should not is a failed test.

#[path = "support/outputs.rs"]
mod outputs;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use atlasknn::Error;
use atlasknn::error::{JobError, PlanError};
use atlasknn::job::request::{DeviceChoice, GraphOptions, How, Method, Probes, RunOptions, SearchRequest, Within};
use atlasknn::metric::Metric;
use atlasknn::schedule::progress::{Observer, Silent, Stage, Step, Stop};
use atlasknn::units::ByteCount;
use outputs::{array_bytes, noise, search, search_request, values, write_npy};

const DIM: usize = 10;
const REFERENCES: usize = 6_000;
const QUERIES: usize = 1_200;

/// Rows of clusters that touch each other.
fn clustered(seed: u64) -> impl Fn(usize, usize) -> f32 {
    move |row, column| 3.0 * noise(9, (row * 7919) % 30, column) + noise(seed, row, column)
}

struct Files {
    dir: tempfile::TempDir,
    query: PathBuf,
    reference: PathBuf,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (query, reference) = (dir.path().join("query.npy"), dir.path().join("reference.npy"));
        write_npy(&query, QUERIES, DIM, clustered(1));
        write_npy(&reference, REFERENCES, DIM, clustered(2));
        Self { dir, query, reference }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn request(&self, out: &str) -> SearchRequest {
        let how = How { method: Method::Hnsw, ..How::default() };
        SearchRequest { how, ..search_request(&self.query, Some(&self.reference), &self.path(out), 10) }
    }

    fn exactly(&self, out: &str) -> PathBuf {
        search(&SearchRequest { how: How::default(), ..self.request(out) }).unwrap();
        self.path(out)
    }
}

/// The share of the neighbours in `truth` that are in `found`.
fn recall(found: &Path, truth: &Path) -> f64 {
    let (found, truth): (Vec<i32>, Vec<i32>) = (values(found, "obsm/knn_indices"), values(truth, "obsm/knn_indices"));
    let hits = found.chunks(10).zip(truth.chunks(10)).map(|(f, t)| f.iter().filter(|id| t.contains(id)).count());
    hits.sum::<usize>() as f64 / truth.len() as f64
}

/// Hears what a run says.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Observer for Heard {
    fn note(&self, message: &str) {
        self.0.lock().unwrap().push(format!("note: {message}"));
    }
    fn warn(&self, message: &str) {
        self.0.lock().unwrap().push(format!("warning: {message}"));
    }
}

#[test]
fn the_audit_tells_the_recall_and_the_manifest_what_was_done() {
    let files = Files::new();
    let (out, heard) = (files.path("out"), Heard::default());
    let outcome = atlasknn::job::search(&files.request("out"), &heard, &Stop::new()).unwrap();
    let truth = files.exactly("truth");
    let (audited, true_recall) = (outcome.recall.unwrap(), recall(&out, &truth));
    assert!(audited > 0.97 && (audited - true_recall).abs() < 0.02, "{audited}, {true_recall}");
    assert_eq!((outcome.method, outcome.device, &*outcome.variant), ("hnsw", "cpu", "hnsw"));
    assert_eq!(outcome.k, 10);
    let said = heard.0.into_inner().unwrap();
    assert!(said.iter().any(|line| line.contains("a graph of 6,000 references is built first")), "{said:?}");
    assert!(said.iter().any(|line| line.starts_with("note: audited recall")), "{said:?}");
    assert_eq!(values::<f64>(&out, "uns/atlasknn/audit/recall"), [audited]);
    assert_eq!(values::<i64>(&out, "uns/atlasknn/hnsw/ef_construction"), [200]);
    assert_eq!(values::<i64>(&out, "uns/atlasknn/hnsw/graphs"), [1]);
    let pairs = values::<i64>(&out, "uns/atlasknn/hnsw/pairs");
    assert_eq!(u64::try_from(pairs[0]).unwrap(), outcome.pairs);
    let distances: Vec<f32> = values(&out, "obsm/knn_distances");
    assert!(distances.chunks(10).all(|row| row.is_sorted() && row[9].is_finite()));
}

#[test]
fn threads_budgets_and_interruptions_do_not_change_a_byte() {
    let files = Files::new();
    search(&files.request("whole")).unwrap();
    let expected = array_bytes(&files.path("whole"));
    let within = Within { threads: Some(1), host_memory: Some(ByteCount::mib(256)) };
    search(&SearchRequest { within, ..files.request("alone") }).unwrap();
    assert_eq!(array_bytes(&files.path("alone")), expected);
    // Stopped before the graph is there.
    let stop = Stop::new();
    stop.ask();
    let error = atlasknn::job::search(&files.request("stopped"), &Silent, &stop).unwrap_err();
    assert!(matches!(error, Error::Job(JobError::Interrupted)), "{error}");
    let run = RunOptions { resume: true, ..RunOptions::default() };
    search(&SearchRequest { run, ..files.request("stopped") }).unwrap();
    assert_eq!(array_bytes(&files.path("stopped")), expected);
    // What is finished is not searched again.
    let again =
        atlasknn::job::search(&SearchRequest { run, ..files.request("whole") }, &NoSearch, &Stop::new()).unwrap();
    assert!(again.recall.is_some(), "{again:?}");
}

/// Fails where something is searched.
struct NoSearch;

impl Observer for NoSearch {
    fn begin(&self, stage: Stage, _: Step, _: Step) {
        panic!("{stage:?} begins");
    }
}

#[test]
fn too_low_a_recall_is_a_warning_or_with_strict_an_error() {
    let files = Files::new();
    let graph = GraphOptions { m: 2, ef_construction: 4, ef: 1 };
    let how = How { graph, probes: Probes::Recall(0.999), ..files.request("out").how };
    let heard = Heard::default();
    let request = SearchRequest { how: how.clone(), ..files.request("out") };
    let outcome = atlasknn::job::search(&request, &heard, &Stop::new()).unwrap();
    assert!(outcome.recall.unwrap() < 0.999, "{outcome:?}");
    let said = heard.0.into_inner().unwrap();
    let warned = |line: &String| line.starts_with("warning: ") && line.contains("0.999") && line.contains("--hnsw-ef");
    assert!(said.iter().any(warned), "{said:?}");
    let strict = How { strict: true, ..how };
    let error = search(&SearchRequest { how: strict, ..files.request("strict") }).unwrap_err().to_string();
    assert!(error.contains("--strict") && error.contains("0.999"), "{error}");
}

#[test]
fn every_metric_but_inner_products_is_searched_and_no_cell_finds_itself() {
    let files = Files::new();
    for metric in Metric::ALL {
        let request = SearchRequest { metric, ..files.request(&format!("{metric}")) };
        let result = search(&SearchRequest { reference: None, ..request });
        if metric == Metric::InnerProduct {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Job(JobError::Refused(_))) && error.to_string().contains("--method ivf"));
            continue;
        }
        assert!(result.unwrap().recall.unwrap() > 0.95, "{metric}");
        let found: Vec<i32> = values(&files.path(&format!("{metric}")), "obsm/knn_indices");
        for (row, near) in found.chunks(10).enumerate() {
            assert!(near.iter().all(|&id| id >= 0 && usize::try_from(id).unwrap() != row), "{metric}, {row}");
        }
    }
}

#[test]
fn a_budget_without_room_for_the_graph_is_refused_with_one_that_works() {
    let files = Files::new();
    let with = |budget: ByteCount, out: &str| {
        let within = Within { threads: Some(2), host_memory: Some(budget) };
        search(&SearchRequest { within, ..files.request(out) })
    };
    let error = with(ByteCount::mib(9), "out").unwrap_err();
    let Error::Plan(PlanError::Budget { needs, .. }) = &error else { panic!("{error}") };
    assert!(error.to_string().contains("graph of the references") && error.to_string().contains("--method ivf"));
    assert!(with(*needs, "enough").unwrap().recall.unwrap() > 0.97);
    let plan = atlasknn::job::plan_search(&files.request("planned")).unwrap();
    let line = |name: &str| plan.lines.iter().find(|(what, _)| what == name).map(|(_, value)| value.clone()).unwrap();
    assert!(
        line("graph").contains("one graph of all 6,000 references") && line("graph").contains("ef_construction 200")
    );
    assert!(line("audit").contains("1,000 cells"));
    assert!(plan.memory.iter().any(|(what, bytes)| what == "graph of the references" && *bytes > 6_000 * 2_000));
    assert_eq!((&plan.json["method"], &plan.json["index"]["hnsw"]["m"]), (&"hnsw".into(), &16.into()));
}

#[test]
fn what_a_graph_cannot_do_is_refused_by_name_and_the_process_goes_on() {
    let files = Files::new();
    let usual = files.request("out");
    let graph = |graph: GraphOptions| SearchRequest { how: How { graph, ..usual.how.clone() }, ..usual.clone() };
    let how = |how: How| SearchRequest { how, ..usual.clone() };
    let options = GraphOptions::default();
    let mut gpu = usual.clone();
    gpu.device.choice = DeviceChoice::Gpu;
    for (request, says) in [
        (graph(GraphOptions { m: 0, ..options }), "--hnsw-m 0"),
        (graph(GraphOptions { m: 1, ..options }), "--hnsw-m 1 "),
        (graph(GraphOptions { m: 257, ..options }), "--hnsw-m 257"),
        (graph(GraphOptions { m: 1_000_000, ..options }), "2 to 256"),
        (graph(GraphOptions { ef: 0, ..options }), "--hnsw-ef 0"),
        (graph(GraphOptions { ef: u32::MAX, ..options }), "1 to 10000"),
        (graph(GraphOptions { ef_construction: 0, ..options }), "--hnsw-ef-construction 0"),
        (how(How { probes: Probes::Lists(3), ..usual.how.clone() }), "--nprobe"),
        (how(How { refine: false, ..usual.how.clone() }), "--no-refine"),
        (SearchRequest { compat: true, ..usual.clone() }, "--compat"),
        (gpu, "--device"),
    ] {
        let error = search(&request).unwrap_err();
        assert!(
            matches!(error, Error::Job(JobError::Refused(_))) && error.to_string().contains(says),
            "{says}: {error}"
        );
    }
    assert!(!files.path("out").exists());
}

#[test]
fn hostile_references_give_k_neighbours_or_as_many_as_there_are() {
    let files = Files::new();
    let reference = files.path("hostile.npy");
    let check = |rows: usize, value: &dyn Fn(usize, usize) -> f32, what: &str| {
        write_npy(&reference, rows, DIM, value);
        let out = files.path(what);
        let request = SearchRequest { reference: Some(reference.clone()), out: out.clone(), ..files.request(what) };
        search(&request).unwrap_or_else(|error| panic!("{what}: {error}"));
        let found: Vec<i32> = values(&out, "obsm/knn_indices");
        let wanted = rows.min(10);
        assert!(found.chunks(10).all(|row| row.iter().filter(|id| **id >= 0).count() == wanted), "{what}");
    };
    check(1, &|_, _| 1.0, "one row");
    check(7, &|row, _| row as f32, "fewer than k");
    check(1_500, &|_, _| 2.5, "all equal");
    check(1_500, &|row, _| if row % 2 == 0 { f32::MAX } else { f32::MIN }, "the ends of f32");
    check(1_500, &|row, column| noise(1, row, column) * 1e-38, "as small as can be");
    check(1_500, &|row, column| if row == 0 { 1e30 } else { noise(1, row, column) }, "an outlier");
}

#[test]
fn the_command_takes_the_options_and_prints_json_alone() {
    let files = Files::new();
    let run = |words: &[&str]| {
        let mut command = outputs::program();
        command.arg("search").arg(&files.query).arg(&files.reference).arg("-o").arg(files.path("out"));
        command.args(["-k", "10", "--method", "hnsw", "--overwrite"]).args(words).output().unwrap()
    };
    let output = run(&["--hnsw-m", "8", "--hnsw-ef-construction", "50", "--hnsw-ef=64", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((json["method"].as_str(), json["variant"].as_str()), (Some("hnsw"), Some("hnsw")));
    assert!(json["recall"].as_f64().unwrap() > 0.9 && json["gpairs_per_second"].as_f64().unwrap() > 0.0);
    let refused = run(&["--hnsw-m", "257"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("2 to 256"), "{refused:?}");
}
