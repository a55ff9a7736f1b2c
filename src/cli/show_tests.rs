//! Claims about what is printed at the end.

use std::path::PathBuf;

use super::*;
use crate::job::request::{PresenceRequest, Seconds};
use crate::weights::WeightKernel;

fn an_outcome() -> Outcome {
    Outcome {
        rows: 2_000_000,
        reference_rows: 20_000,
        k: 15,
        method: "exact",
        device: "cpu",
        adapter: "A processor".to_owned(),
        variant: "avx2".to_owned(),
        seconds: Seconds { read: 1.0, search: 20.0, map: 0.0, write: 3.0, total: 21.0 },
        pairs: 40_000_000_000,
        bytes_read: 404 << 20,
        bytes_written: 240 << 20,
        peak_memory_bytes: Some(500 << 20),
        recall: None,
        recall_interval: None,
        share_of_pairs: None,
        units: (16, 0),
        out: PathBuf::from("out.zarr"),
    }
}

fn a_mapping() -> MappingRequest {
    MappingRequest {
        kernel: WeightKernel::Gauss,
        labels: vec!["cell_type".to_owned()],
        label_subsets: Vec::new(),
        values: vec!["n_genes".to_owned()],
        obsm: vec!["X_umap".to_owned()],
        presence: Some(PresenceRequest { by: Some("donor".to_owned()), ..PresenceRequest::default() }),
        self_edges: None,
        matrix: true,
        min_confidence: None,
        probabilities: false,
    }
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn json_has_exactly_the_promised_keys() {
    let value = outcome_json(&an_outcome());
    let wanted = [
        "rows",
        "k",
        "method",
        "device",
        "adapter",
        "variant",
        "seconds",
        "gpairs_per_second",
        "bytes_read",
        "bytes_written",
        "peak_memory_bytes",
        "recall",
        "recall_interval",
        "share_of_pairs",
        "out",
    ];
    assert_eq!(keys(&value), wanted);
    assert_eq!(keys(&value["seconds"]), ["read", "search", "map", "write", "total"]);
    assert_eq!(value["gpairs_per_second"], 2.0, "by the engine's time, not the wall's");
    assert_eq!((&value["recall"], &value["out"]), (&Value::Null, &Value::from("out.zarr")));
    assert_eq!(line(&value).lines().count(), 1);
}

#[test]
fn a_run_without_a_search_has_no_speed_and_still_is_json() {
    let outcome = Outcome { pairs: 0, seconds: Seconds::default(), peak_memory_bytes: None, ..an_outcome() };
    let value = outcome_json(&outcome);
    assert_eq!((&value["gpairs_per_second"], &value["peak_memory_bytes"]), (&Value::from(0.0), &Value::Null));
    assert!(!super::outcome(Kind::Transfer, &outcome, None).contains("speed"));
}

#[test]
fn the_summary_says_what_was_done_and_lists_what_was_written() {
    let page = outcome(Kind::Map, &an_outcome(), Some(&a_mapping()));
    for wanted in [
        "Mapped 2,000,000 cells onto 20,000, by 15 neighbours each (exact, on the CPU).",
        "2.00 Gpair/s",
        "21 s (read 1.0 s, search 20 s, write 3.0 s; these overlap)",
        "500.0 MiB at most",
        "cell_type_pred, cell_type_conf, n_genes_pred",
        "knn_indices, knn_distances, X_umap_pred",
        "presence_score, presence_raw",
        "the mapping matrix",
    ] {
        assert!(page.contains(wanted), "no {wanted} in {page}");
    }
    assert!(!page.contains("resumed") && !page.contains("probabilities"));
    let probable = MappingRequest { probabilities: true, ..a_mapping() };
    let page = outcome(Kind::Map, &an_outcome(), Some(&probable));
    assert!(page.contains("cell_type_probabilities"), "{page}");
    let audited = (Some(0.991), Some((0.9891, 0.993)), Some(0.034));
    let (recall, recall_interval, share_of_pairs) = audited;
    let resumed = Outcome { units: (4, 12), recall, recall_interval, share_of_pairs, ..an_outcome() };
    let page = outcome(Kind::Search, &resumed, None);
    assert!(page.contains("12 units reused, 4 computed now") && page.contains("3.4 % of all pairs"), "{page}");
    assert!(page.contains("99.10 % of the true neighbours were found in a sample (95 % interval 98.91 % to 99.30 %)"));
}

#[test]
fn python_looks_at_the_first_thing_asked_for() {
    let mut mapping = a_mapping();
    let out = PathBuf::from("out.zarr");
    assert!(python(&out, Some(&mapping)).contains("mapped = anndata.read_zarr(\"out.zarr\")"));
    assert!(python(&out, Some(&mapping)).contains("obs[\"cell_type_pred\"].value_counts()"));
    mapping.labels.clear();
    assert!(python(&out, Some(&mapping)).contains("obs[\"n_genes_pred\"].describe()"));
    assert!(python(&out, None).contains("obsm[\"knn_indices\"]"));
}

#[test]
fn a_plan_lists_its_memory_and_the_sum() {
    let report = PlanReport {
        lines: vec![("query".to_owned(), "2,000,000 cells".to_owned()), ("time".to_owned(), "about 20 s".to_owned())],
        memory: vec![("query blocks".to_owned(), 100 << 20), ("references".to_owned(), 156 << 20)],
        budget: ByteCount::mib(512),
        device: Some((vec![("queries".to_owned(), 1 << 30)], ByteCount::mib(2048))),
        json: Value::Null,
    };
    let wanted = "\
Plan
  query  2,000,000 cells
  time   about 20 s

Memory, of the 512.0 MiB allowed
  query blocks  100.0 MiB  19.5 %
  references    156.0 MiB  30.5 %
  together      256.0 MiB  50.0 %

Device memory, of the 2.0 GiB allowed
  queries   1.0 GiB  50.0 %
  together  1.0 GiB  50.0 %
";
    assert_eq!(plan(&report), wanted);
}

#[test]
fn problems_are_listed_and_many_are_counted() {
    let out = PathBuf::from("out.zarr");
    let found = Verification { files: 3, bytes: 1 << 20, rows: 1000, is_index: false, problems: Vec::new() };
    assert_eq!(
        verification(&out, &found),
        "out.zarr is sound: checked 3 files (1.0 MiB) and the neighbours of 1,000 cells.\n"
    );
    let problems: Vec<String> = (0..25).map(|i| format!("chunk {i} is damaged")).collect();
    let broken = Verification { problems, ..found };
    let page = verification(&out, &broken);
    assert!(page.starts_with("out.zarr has 25 problems") && page.contains("chunk 19 is damaged"), "{page}");
    assert!(!page.contains("chunk 20 is damaged") && page.contains("and 5 more"), "{page}");
    let value = verification_json(&out, &broken);
    assert_eq!((&value["ok"], value["problems"].as_array().map(Vec::len)), (&Value::from(false), Some(25)));
}
