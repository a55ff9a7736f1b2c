use super::*;
use serde_json::json;

fn manifest(k: u64) -> Manifest {
    Manifest {
        format: super::super::manifest::FORMAT,
        version: "0".to_owned(),
        command: "search".to_owned(),
        parameters: json!({ "k": k }),
        inputs: json!({}),
        rows: 10,
        reference_rows: 10,
        k,
        finished: false,
        units: BTreeMap::new(),
        recall: None,
    }
}

fn begin(path: &Path, k: u64, run: RunOptions) -> Result<Output, Error> {
    Output::begin(path, manifest(k), &run, &IoCounters::new())
}

const RESUME: RunOptions = RunOptions {
    resume: true,
    overwrite: false,
    allow_mixed: false,
    names: super::super::request::Names::Auto,
    seed: 0,
    checkpoint_seconds: 1,
};

fn marker(output: &Output, unit: u64) -> Marker {
    let record = output.folder.write(&format!("array/{unit}"), b"data").unwrap();
    Marker { unit, files: vec![record.into()], statistics: None, own_row_first: None, kth: None, engines: Vec::new() }
}

const OVERWRITE: RunOptions = RunOptions { resume: false, overwrite: true, ..RESUME };

#[test]
fn a_second_run_needs_resume_or_overwrite() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let output = begin(&path, 15, RunOptions::default()).unwrap();
    output.mark("search", &marker(&output, 0)).unwrap();
    drop(output);
    let message = begin(&path, 15, RunOptions::default()).unwrap_err().to_string();
    assert!(message.contains("--resume") && message.contains("--overwrite"), "{message}");
    assert!(begin(&path, 15, OVERWRITE).is_ok());
}

#[test]
fn a_run_that_finished_nothing_leaves_nothing_to_ask_about() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let output = begin(&path, 15, RunOptions::default()).unwrap();
    output.folder.write("obsm/knn_indices/zarr.json", b"{}").unwrap();
    drop(output);
    // With other parameters, whether it is asked to resume or not: there is nothing to resume.
    for (k, run) in [(30, RunOptions::default()), (15, RESUME)] {
        let output = begin(&path, k, run).unwrap();
        assert_eq!(output.manifest.k, k);
        assert!(!path.join("obsm").exists());
    }
    // What somebody put beside it is not ours to remove.
    std::fs::write(path.join("notes.txt"), b"mine").unwrap();
    assert!(matches!(begin(&path, 15, RunOptions::default()), Err(Error::Job(JobError::OutputExists { .. }))));
    std::fs::remove_file(path.join("notes.txt")).unwrap();
    // A checkpoint is work that was done.
    std::fs::write(path.join(CHECKPOINT), b"").unwrap();
    assert!(matches!(begin(&path, 15, RunOptions::default()), Err(Error::Job(JobError::OutputExists { .. }))));
}

#[test]
fn a_damaged_manifest_is_replaced_when_asked_and_says_so_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    for damage in [b"".as_slice(), b"{\"format\": 1", b"not JSON", b"[]", b"{}"] {
        drop(begin(&path, 15, OVERWRITE).unwrap());
        std::fs::write(path.join(MANIFEST), damage).unwrap();
        std::fs::create_dir_all(path.join("obsm")).unwrap();
        for run in [RunOptions::default(), RESUME] {
            let message = begin(&path, 15, run).unwrap_err().to_string();
            assert!(message.contains("manifest.json") && message.contains("--overwrite"), "{message}");
        }
        assert_eq!(begin(&path, 15, OVERWRITE).unwrap().manifest, manifest(15));
        assert!(!path.join("obsm").exists());
    }
    // A folder of somebody else does not become ours by what may be lost of ours.
    std::fs::remove_file(path.join(MANIFEST)).unwrap();
    std::fs::write(path.join("thesis.doc"), b"years of work").unwrap();
    assert!(matches!(begin(&path, 15, OVERWRITE), Err(Error::Job(JobError::Unfit(_)))));
    assert!(path.join("thesis.doc").exists());
}

#[test]
fn a_finished_output_that_lost_something_is_gone_on_with() {
    for lost in [".atlasknn/done/search/00000000.json", "array/0", FILES, "zarr.json"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let mut output = begin(&path, 15, RunOptions::default()).unwrap();
        output.mark("search", &marker(&output, 0)).unwrap();
        let other = output.folder.write("zarr.json", b"{}").unwrap();
        output.finish(&[other.into()]).unwrap();
        drop(output);
        assert!(begin(&path, 15, RESUME).unwrap().manifest.finished, "nothing is lost yet");
        std::fs::write(path.join(lost), b"x").unwrap();
        assert!(!begin(&path, 15, RESUME).unwrap().manifest.finished, "{lost}");
        let again = read_manifest(&Folder::new(&path, &IoCounters::new())).unwrap();
        assert!(again.is_some_and(|manifest| !manifest.finished), "{lost}");
    }
}

#[test]
fn resuming_keeps_units_whose_files_are_there_and_another_job_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let output = begin(&path, 15, RunOptions::default()).unwrap();
    for unit in [0, 2] {
        output.mark("search", &marker(&output, unit)).unwrap();
    }
    output.folder.remove("array/2").unwrap();
    drop(output);
    let message = begin(&path, 30, RESUME).unwrap_err().to_string();
    assert!(message.contains("parameters.k was 15 and is now 30"), "{message}");
    let output = begin(&path, 15, RESUME).unwrap();
    assert_eq!(output.done("search").unwrap().into_keys().collect::<Vec<_>>(), [0]);
}

#[test]
fn two_runs_do_not_write_the_same_output() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let _first = begin(&path, 15, RunOptions::default()).unwrap();
    assert!(matches!(begin(&path, 15, RESUME), Err(Error::Job(JobError::Locked { .. }))));
}

#[test]
fn a_folder_of_somebody_else_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.doc"), b"years of work").unwrap();
    for run in [RunOptions { overwrite: true, ..RunOptions::default() }, RESUME, RunOptions::default()] {
        assert!(begin(dir.path(), 15, run).is_err());
    }
    assert!(dir.path().join("thesis.doc").exists());
}
