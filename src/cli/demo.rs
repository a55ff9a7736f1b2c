//! `atlasknn demo`: the bundled PBMC data, mapped, shown and judged.

use std::path::{Path, PathBuf};

use include_dir::{Dir, DirEntry, include_dir};

use super::args::DemoArgs;
use super::console::{Failure, print};
use super::flags::Talk;
use super::text::shell_word;
use super::{convert, evaluate, run, show};
use crate::job;
use crate::job::request::{
    DeviceRequest, EvaluateRequest, How, MapRequest, MappingRequest, PresenceRequest, RunOptions, SearchRequest, Within,
};
use crate::metric::Metric;
use crate::store::unpack::unpack;
use crate::units::K;
use crate::weights::WeightKernel;

static QUERY: Dir = include_dir!("$CARGO_MANIFEST_DIR/examples/data/pbmc_query.zarr");
static REFERENCE: Dir = include_dir!("$CARGO_MANIFEST_DIR/examples/data/pbmc_reference.zarr");

const QUERY_NAME: &str = "pbmc_query.zarr";
const REFERENCE_NAME: &str = "pbmc_reference.zarr";
const OUT_NAME: &str = "mapped.zarr";
const LABEL: &str = "bulk_labels";
const VALUE: &str = "n_genes";
const EMBEDDING: &str = "X_umap";
const K_DEMO: u32 = 30;

/// Where things are in the demo's folder.
struct Places {
    query: PathBuf,
    reference: PathBuf,
    out: PathBuf,
}

impl Places {
    fn of(dir: &Path) -> Self {
        Self { query: dir.join(QUERY_NAME), reference: dir.join(REFERENCE_NAME), out: dir.join(OUT_NAME) }
    }
}

/// Runs the demo.
pub fn run(args: &DemoArgs) -> Result<(), Failure> {
    extract(&args.out)?;
    let places = Places::of(&args.out);
    let request = map_request(&places, convert::limits(&args.within))?;
    let say = |page: &str| if args.talk.json { Ok(()) } else { print(page) };
    say(&introduction(&places))?;
    say(&format!("{}\n", show::plan(&job::plan_map(&request)?)))?;
    let outcome = run::watched(quiet_unless_asked(args.talk), |observer, stop| job::map(&request, observer, stop))?;
    say(&format!("{}\n", show::outcome(show::Kind::Map, &outcome, Some(&request.mapping))))?;
    let found = job::evaluate(&evaluation(&places))?;
    if args.talk.json {
        let mut value = show::outcome_json(&outcome);
        value["evaluation"] = evaluate::json(&found);
        return print(&show::line(&value));
    }
    say(&format!("Against the known labels of the query:\n{}\n", evaluate::page(&found)))?;
    say(&next_steps(&places, &request.mapping))
}

/// A run this short needs no progress.
fn quiet_unless_asked(talk: Talk) -> Talk {
    Talk { quiet: !talk.verbose, ..talk }
}

fn extract(dir: &Path) -> Result<(), Failure> {
    let mut files = Vec::new();
    collect(&QUERY, QUERY_NAME, &mut files);
    collect(&REFERENCE, REFERENCE_NAME, &mut files);
    let borrowed: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
    Ok(unpack(&borrowed, dir)?)
}

fn collect(dir: &'static Dir, top: &str, files: &mut Vec<(String, &'static [u8])>) {
    for entry in dir.entries() {
        match entry {
            DirEntry::Dir(below) => collect(below, top, files),
            DirEntry::File(file) => files.push((format!("{top}/{}", file.path().display()), file.contents())),
        }
    }
}

fn map_request(places: &Places, within: Within) -> Result<MapRequest, Failure> {
    let search = SearchRequest {
        query: places.query.clone(),
        reference: Some(places.reference.clone()),
        out: places.out.clone(),
        rep: "X_pca".to_owned(),
        reference_rep: None,
        k: K::new(K_DEMO)?,
        metric: Metric::Euclidean,
        exclude_group: None,
        compat: false,
        how: How::default(),
        device: DeviceRequest::default(),
        within,
        run: RunOptions { overwrite: true, ..RunOptions::default() },
    };
    let mapping = MappingRequest {
        kernel: WeightKernel::Gauss,
        labels: vec![LABEL.to_owned()],
        label_subsets: Vec::new(),
        values: vec![VALUE.to_owned()],
        obsm: vec![EMBEDDING.to_owned()],
        presence: Some(PresenceRequest::default()),
        self_edges: None,
        matrix: false,
        min_confidence: None,
        probabilities: false,
    };
    Ok(MapRequest { search, mapping })
}

fn evaluation(places: &Places) -> EvaluateRequest {
    EvaluateRequest {
        out: places.out.clone(),
        truth: places.query.clone(),
        truth_key: LABEL.to_owned(),
        prediction: LABEL.to_owned(),
        min_confidence: 0.0,
    }
}

fn introduction(places: &Places) -> String {
    let (query, reference, out) = words(places);
    format!(
        "\
700 PBMCs (10x Genomics, as in scanpy) are cut into a reference with known cell types and a query. The demo finds the
{K_DEMO} nearest reference cells of every query cell in PCA space, and transfers from them the cell type, the number of
genes and the UMAP position. It also scores how well each reference cell is represented in the query. By hand:

  atlasknn map {query} {reference} -o {out} --overwrite \\
      --rep X_pca -k {K_DEMO} --kernel gauss --label {LABEL} --value {VALUE} --obsm {EMBEDDING} --presence

"
    )
}

fn next_steps(places: &Places, mapping: &MappingRequest) -> String {
    let (query, reference, out) = words(places);
    let other = shell_word(&places.out.with_file_name("equal.zarr"));
    let own = shell_word(&places.out.with_file_name("smoothed.zarr"));
    format!(
        "\
{python}
Try next:
  what the query holds
    atlasknn info {query}
  the same score again, for sure labels only
    atlasknn evaluate {out} --truth {query}:obs/{LABEL} --min-confidence 0.8
  another kernel from the same neighbours, without a new search
    atlasknn transfer {out} {reference} -o {other} --label {LABEL} --kernel equal
  the reference mapped onto itself, to find doubtful labels
    atlasknn map {reference} -o {own} --rep X_pca --label {LABEL}
  your own cells
    atlasknn map QUERY REFERENCE -o OUT --rep X_pca --label cell_type
",
        python = show::python(&places.out, Some(mapping)),
    )
}

fn words(places: &Places) -> (String, String, String) {
    (shell_word(&places.query), shell_word(&places.reference), shell_word(&places.out))
}

#[cfg(test)]
#[path = "demo_tests.rs"]
mod tests;
