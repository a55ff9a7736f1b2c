//! Claims about searches that build the index they need: where it is kept, that it is built once, what the plan says.
#![allow(clippy::unwrap_used, clippy::expect_used)]
// A job that fails where it should not is a failed test.

#[path = "support/files.rs"]
mod files;
#[path = "support/indexes.rs"]
mod indexes;
#[path = "support/outputs.rs"]
mod outputs;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use atlasknn::Error;
use atlasknn::error::JobError;
use atlasknn::job::request::{How, IndexRequest, Method, Outcome, PlanReport, Probes, RunOptions, SearchRequest};
use atlasknn::metric::Metric;
use atlasknn::schedule::progress::{Observer, Silent, Stage, Step, Stop};
use files::{Files, clustered};
use indexes::{build, index_request};
use outputs::{array_bytes, noise, search, search_request, values, write_npy, write_npy_f64};

const DIM: usize = 8;
const REFERENCES: usize = 6_000;
const QUERIES: usize = 1_100;

fn files() -> Files {
    Files::of((QUERIES, REFERENCES), DIM, clustered)
}

impl Files {
    fn ivf(&self, out: &str) -> SearchRequest {
        let how = How { method: Method::Ivf, ..How::default() };
        SearchRequest { how, ..search_request(&self.query, Some(&self.reference), &self.path(out), 10) }
    }

    /// The indexes that searches built, in the order of their names.
    fn kept(&self) -> Vec<PathBuf> {
        kept_in(&self.path("atlasknn-cache"))
    }
}

fn kept_in(cache: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(cache).into_iter().flatten();
    let mut kept: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    kept.sort();
    kept
}

/// Hears what a run says, and asks it to stop once a stage has advanced.
#[derive(Default)]
struct Listener {
    said: Mutex<Vec<String>>,
    stages: Mutex<Vec<Stage>>,
    stop_in: Option<(Stage, Stop)>,
}

impl Listener {
    fn run(&self, request: &SearchRequest) -> Result<Outcome, Error> {
        let never = Stop::new();
        let stop = self.stop_in.as_ref().map_or(&never, |(_, stop)| stop);
        atlasknn::job::search(request, self, stop)
    }

    fn heard(&self, words: &str) -> bool {
        self.said.lock().unwrap().iter().any(|message| message.contains(words))
    }
}

impl Observer for Listener {
    fn note(&self, message: &str) {
        self.said.lock().unwrap().push(message.to_owned());
    }
    fn begin(&self, stage: Stage, _: Step, _: Step) {
        self.stages.lock().unwrap().push(stage);
    }
    fn advance(&self, stage: Stage, _: Step) {
        if let Some((wanted, stop)) = &self.stop_in
            && *wanted == stage
        {
            stop.ask();
        }
    }
}

#[test]
fn an_index_is_built_once_and_finds_what_one_that_is_named_finds() {
    let files = files();
    let named = files.path("named.index");
    build(&index_request(&files.reference, &named)).unwrap();
    let mut request = files.ivf("named");
    request.how.index = Some(named.clone());
    search(&request).unwrap();
    let expected = array_bytes(&files.path("named"));

    let first = Listener::default();
    let outcome = first.run(&files.ivf("first")).unwrap();
    assert_eq!(outcome.method, "ivf");
    assert!(outcome.recall.unwrap() >= 0.98, "{outcome:?}");
    assert_eq!(array_bytes(&files.path("first")), expected);
    let kept = files.kept();
    assert!(kept.len() == 1 && kept[0].to_string_lossy().contains("reference-"), "{kept:?}");
    assert!(first.heard(&kept[0].display().to_string()) && first.heard("one is built"), "{:?}", first.said);
    assert_eq!(indexes::bytes(&kept[0])["rows/c/0/0"], indexes::bytes(&named)["rows/c/0/0"]);
    assert!(atlasknn::job::verify(&kept[0], &Silent).unwrap().problems.is_empty());
    assert_eq!(values::<bool>(&files.path("first"), "uns/atlasknn/own_index/built"), [true]);

    let second = Listener::default();
    second.run(&files.ivf("second")).unwrap();
    assert!(second.heard("used again") && !second.stages.lock().unwrap().contains(&Stage::Train), "{:?}", second.said);
    assert_eq!(array_bytes(&files.path("second")), expected);
    assert_eq!(values::<bool>(&files.path("second"), "uns/atlasknn/own_index/built"), [false]);
    assert_eq!(files.kept(), kept);
}

#[test]
fn what_is_not_of_this_search_is_not_used() {
    let files = files();
    search(&files.ivf("first")).unwrap();
    search(&SearchRequest { metric: Metric::Cosine, ..files.ivf("cosine") }).unwrap();
    assert_eq!(files.kept().len(), 2);
    write_npy(&files.reference, REFERENCES, DIM, clustered(3));
    let outcome = search(&files.ivf("changed")).unwrap();
    assert!(outcome.recall.unwrap() >= 0.98, "{outcome:?}");
    assert_eq!(files.kept().len(), 3);
    let self_mapping = search_request(&files.query, None, &files.path("self"), 10);
    search(&SearchRequest { how: files.ivf("self").how, ..self_mapping }).unwrap();
    let kept = files.kept();
    assert!(kept.len() == 4 && kept.iter().any(|path| path.to_string_lossy().contains("query-")), "{kept:?}");
    let found: Vec<i32> = values(&files.path("self"), "obsm/knn_indices");
    let own = found.chunks(10).enumerate().any(|(row, near)| near.iter().any(|&id| usize::try_from(id) == Ok(row)));
    assert!(!own, "a cell is its own neighbour");
}

#[test]
fn a_search_stopped_while_its_index_is_built_goes_on_to_the_same_bytes() {
    let files = files();
    search(&files.ivf("whole")).unwrap();
    let (expected, index) = (array_bytes(&files.path("whole")), files.kept().remove(0));
    let index_bytes = indexes::bytes(&index);
    for stage in [Stage::Train, Stage::Assign, Stage::Sort, Stage::Calibrate] {
        std::fs::remove_dir_all(files.path("atlasknn-cache")).unwrap();
        let out = format!("stopped-{stage:?}");
        let listener = Listener { stop_in: Some((stage, Stop::new())), ..Listener::default() };
        match listener.run(&files.ivf(&out)) {
            Err(Error::Job(JobError::Interrupted)) => {}
            // The last step of a stage may be too late to be stopped after.
            done => drop(done.unwrap()),
        }
        let run = RunOptions { resume: true, ..RunOptions::default() };
        search(&SearchRequest { run, ..files.ivf(&out) }).unwrap();
        assert_eq!(array_bytes(&files.path(&out)), expected, "{stage:?}");
        assert_eq!(indexes::bytes(&index), index_bytes, "{stage:?}");
    }
}

#[test]
fn what_is_finished_does_not_need_its_index_again_and_what_is_not_does() {
    let files = files();
    let first = search(&files.ivf("out")).unwrap();
    let resume = RunOptions { resume: true, ..RunOptions::default() };
    let again = SearchRequest { run: resume, ..files.ivf("out") };
    let cache = files.path("atlasknn-cache");
    std::fs::remove_dir_all(&cache).unwrap();
    let listener = Listener::default();
    let outcome = listener.run(&again).unwrap();
    assert_eq!((outcome.recall, outcome.method, outcome.pairs), (first.recall, "ivf", 0));
    assert!(!cache.exists() && listener.stages.lock().unwrap().is_empty(), "an index was built for nothing");
    // Another job is refused as ever.
    let other = SearchRequest { how: How { probes: Probes::Lists(3), ..again.how.clone() }, ..again.clone() };
    assert!(matches!(search(&other), Err(Error::Job(JobError::OtherJob { .. }))));
    // And what lost a chunk is searched again.
    let bytes = array_bytes(&files.path("out"));
    std::fs::remove_dir_all(&cache).unwrap();
    std::fs::remove_file(files.path("out").join("obsm/knn_indices/c/0/0")).unwrap();
    search(&again).unwrap();
    assert_eq!((array_bytes(&files.path("out")), files.kept().len()), (bytes, 1));
}

#[test]
fn the_plan_of_a_run_that_goes_on_is_that_of_the_run_that_began() {
    let files = files();
    search(&files.ivf("out")).unwrap();
    let auto = SearchRequest { how: How::default(), ..files.ivf("out") };
    let plan = |resume: bool| {
        let run = RunOptions { resume, ..RunOptions::default() };
        atlasknn::job::plan_search(&SearchRequest { run, ..auto.clone() }).unwrap()
    };
    assert_eq!(plan(false).json["method"], "exact", "so few pairs are all compared");
    let going_on = plan(true);
    assert_eq!(
        (&going_on.json["method"], &going_on.json["index"]["nprobe_is_a_guess"]),
        (&"ivf".into(), &false.into())
    );
    let manifest = std::fs::read(files.path("out/.atlasknn/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(going_on.json["index"]["nprobe"], manifest["parameters"]["nprobe"]);
}

#[test]
fn an_index_that_lost_a_file_is_mended() {
    let files = files();
    search(&files.ivf("first")).unwrap();
    let index = files.kept().remove(0);
    let before = indexes::bytes(&index);
    std::fs::remove_file(index.join("ids/c/0")).unwrap();
    search(&files.ivf("second")).unwrap();
    assert_eq!(array_bytes(&files.path("second")), array_bytes(&files.path("first")));
    assert_eq!(indexes::bytes(&index), before);
}

#[test]
fn float64_rows_are_prepared_as_with_a_named_index() {
    let files = files();
    let (query, reference) = (files.path("q64.npy"), files.path("r64.npy"));
    let far = |seed| move |row, column| f64::from(clustered(seed)(row, column)) + 1e6;
    write_npy(&query, 300, DIM, clustered(1));
    write_npy_f64(&reference, REFERENCES, DIM, far(2));
    for metric in [Metric::Euclidean, Metric::Cosine] {
        let request = |out: &str, index: Option<PathBuf>| {
            let how = How { method: Method::Ivf, index, probes: Probes::Lists(20), ..How::default() };
            SearchRequest { how, metric, ..search_request(&query, Some(&reference), &files.path(out), 10) }
        };
        let named = files.path(&format!("{metric}.index"));
        build(&IndexRequest { metric, ..index_request(&reference, &named) }).unwrap();
        let (a, b) = (format!("{metric}-named"), format!("{metric}-own"));
        search(&request(&a, Some(named))).unwrap();
        search(&request(&b, None)).unwrap();
        assert_eq!(array_bytes(&files.path(&a)), array_bytes(&files.path(&b)), "{metric}");
    }
}

fn says(plan: &PlanReport, what: &str, text: &str) {
    assert!(plan.lines.iter().any(|(name, value)| name == what && value.contains(text)), "{text}: {:?}", plan.lines);
}

#[test]
fn the_plan_says_what_is_built_and_what_that_takes() {
    let files = files();
    let plan = |request: &SearchRequest| atlasknn::job::plan_search(request).unwrap();
    let first = plan(&files.ivf("out"));
    assert!(!files.path("out").exists() && files.kept().is_empty(), "a plan writes nothing");
    says(&first, "index", "one is built first, in ");
    says(&first, "building it", "93 lists, under a second");
    says(&first, "calibration and audit", "1,100 cells");
    says(&first, "memory by stage", "index ");
    let building = &first.json["index"]["building"];
    assert_eq!(first.json["index"]["built_first"], true);
    let index_bytes = building["bytes_written"]["index"].as_u64().unwrap();
    assert!(index_bytes > (REFERENCES * (4 * DIM + 8)) as u64, "{building}");
    assert!(first.json["bytes_written"].as_u64().unwrap() > index_bytes);
    assert!(first.json["memory_bytes"].as_u64() >= building["memory_bytes"].as_u64());
    search(&files.ivf("out")).unwrap();
    let again = plan(&files.ivf("other"));
    says(&again, "index", "of an earlier search of this reference");
    assert_eq!(again.json["index"]["built_first"], false);
    assert!(again.json["bytes_written"].as_u64() < first.json["bytes_written"].as_u64());
}

#[test]
fn auto_builds_an_index_where_that_is_quicker_and_nowhere_else() {
    let files = files();
    let auto = |query: &Path, out: &str| search_request(query, None, &files.path(out), 10);
    let small = atlasknn::job::plan_search(&auto(&files.query, "small")).unwrap();
    says(&small, "method", "exact: comparing every pair takes under a second");
    let large = files.path("large.npy");
    write_npy(&large, 1_500_000, 2, |row, column| noise(1, row, column));
    let planned = atlasknn::job::plan_search(&auto(&large, "large")).unwrap();
    says(&planned, "method", "ivf: comparing every pair takes");
    says(&planned, "method", "building an index and searching through it");
    says(&planned, "index", "none is given");
    // CellMapper's results are exact.
    let compat = SearchRequest { compat: true, ..auto(&large, "large") };
    assert_eq!(atlasknn::job::plan_search(&compat).unwrap().json["method"], "exact");
}

#[test]
fn the_command_says_where_the_index_is() {
    let files = files();
    let run = |words: &[&str]| {
        let mut command = outputs::program();
        command.arg("search").arg(&files.query).arg(&files.reference).args(["-k", "10", "--method", "ivf"]);
        command.args(["--device", "cpu"]).args(words).arg("-o").arg(files.path("out")).output().unwrap()
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let dry = run(&["--dry-run"]);
    assert!(dry.status.success() && text(&dry.stdout).contains("one is built first"), "{dry:?}");
    assert!(files.kept().is_empty());
    let output = run(&["--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("atlasknn-cache"), "{}", text(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["method"], "ivf");
    assert!(json["recall"].as_f64().unwrap() >= 0.98);
    for (words, says) in [
        (["--no-refine", "--overwrite", "-q"], "--no-refine"),
        (["--nprobe=3", "--overwrite", "--method=exact"], "cannot be used multiple times"),
    ] {
        let refused = run(&words);
        assert!(!refused.status.success() && text(&refused.stderr).contains(says), "{}", text(&refused.stderr));
    }
}
