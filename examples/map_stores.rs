//! A whole job from another program: the bundled PBMC query mapped onto its reference, and how well that went.
//!
//! Run: `cargo run --release --example map_stores`

use std::error::Error;
use std::path::Path;

use atlasknn::job;
use atlasknn::job::request::{
    DeviceRequest, EvaluateRequest, How, MapRequest, MappingRequest, RunOptions, SearchRequest, Within,
};
use atlasknn::metric::Metric;
use atlasknn::schedule::progress::{Silent, Stop};
use atlasknn::units::K;
use atlasknn::weights::WeightKernel;

fn main() -> Result<(), Box<dyn Error>> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data");
    let folder = tempfile::tempdir()?;
    let (query, out) = (data.join("pbmc_query.zarr"), folder.path().join("mapped.zarr"));
    let search = SearchRequest {
        query: query.clone(),
        reference: Some(data.join("pbmc_reference.zarr")),
        out: out.clone(),
        rep: "X_pca".to_owned(),
        reference_rep: None,
        k: K::new(30)?,
        metric: Metric::Euclidean,
        exclude_group: None,
        compat: false,
        how: How::default(),
        device: DeviceRequest::default(),
        within: Within { host_memory: Some("512MiB".parse()?), threads: None },
        run: RunOptions::default(),
    };
    let mapping = MappingRequest {
        kernel: WeightKernel::Gauss,
        labels: vec!["bulk_labels".to_owned()],
        label_subsets: Vec::new(),
        values: vec!["n_genes".to_owned()],
        obsm: vec!["X_umap".to_owned()],
        presence: None,
        self_edges: None,
        matrix: false,
        min_confidence: None,
        probabilities: false,
    };
    // `Silent` hears nothing of the progress; `Stop` could be asked from another thread, for example by Ctrl-C.
    let outcome = job::map(&MapRequest { search, mapping }, &Silent, &Stop::new())?;
    println!("{} cells mapped onto {} in {:.2} s", outcome.rows, outcome.reference_rows, outcome.seconds.total);
    let (truth_key, prediction) = ("bulk_labels".to_owned(), "bulk_labels".to_owned());
    let found = job::evaluate(&EvaluateRequest { out, truth: query, truth_key, prediction, min_confidence: 0.0 })?;
    println!("{:.1}% of the labels are right", 100.0 * found.accuracy);
    assert_eq!((outcome.rows, outcome.reference_rows, found.rows), (200, 500, 200));
    assert!(found.accuracy > 0.7, "accuracy {}", found.accuracy);
    Ok(())
}
