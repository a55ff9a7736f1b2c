//! The folder a job writes: begun, locked, marked unit by unit, resumed, finished.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::manifest::{EngineRecord, File, Manifest, Marker, decode_checkpoint, encode_checkpoint};
use super::request::RunOptions;
use crate::error::{Error, JobError, StoreError};
use crate::schedule::search::Checkpoint;
use crate::store::IoCounters;
use crate::store::folder::{Folder, Lock};

/// What is beside the arrays, out of zarr's sight.
const OWN: &str = ".atlasknn";
const MANIFEST: &str = ".atlasknn/manifest.json";
const CHECKPOINT: &str = ".atlasknn/checkpoint";
const FILES: &str = ".atlasknn/files.json";

/// The output of a job, locked while this lives.
#[derive(Debug)]
pub struct Output {
    /// The folder.
    pub folder: Arc<Folder>,
    /// The job.
    pub manifest: Manifest,
    _lock: Lock,
}

impl Output {
    /// Begins an output, or goes on with one of the same job when asked to resume.
    ///
    /// # Errors
    /// [`JobError::OutputExists`], [`JobError::OtherJob`], [`JobError::Locked`], any I/O error.
    pub fn begin(path: &Path, manifest: Manifest, run: &RunOptions, io: &Arc<IoCounters>) -> Result<Self, Error> {
        let folder = Folder::new(path, io);
        let earlier = read_manifest(&folder)?;
        if earlier.is_none() && folder.list("")?.iter().any(|name| name != OWN) {
            let why = format!(
                "{} is there and was not written by atlasknn; remove it or choose another output",
                path.display()
            );
            return Err(JobError::Refused(why).into());
        }
        if earlier.is_some() && !run.resume && !run.overwrite {
            return Err(JobError::OutputExists { path: path.to_owned() }.into());
        }
        let lock = folder.lock(&format!("{OWN}/lock"))?.ok_or_else(|| JobError::Locked { path: path.to_owned() })?;
        let mut manifest = manifest;
        match earlier {
            Some(earlier) if run.resume => {
                if let Some(differs) = manifest.differs_from(&earlier) {
                    return Err(JobError::OtherJob { path: path.to_owned(), differs }.into());
                }
                manifest = earlier;
            }
            _ => {
                // Markers first, so that none outlives its files; the manifest last, so that the folder stays ours.
                for name in folder.list(OWN)? {
                    let path = format!("{OWN}/{name}");
                    if name != "lock" && path != MANIFEST {
                        folder.remove(&path)?;
                    }
                }
                for name in folder.list("")? {
                    if name != OWN {
                        folder.remove(&name)?;
                    }
                }
                write_json(&folder, MANIFEST, &manifest)?;
            }
        }
        Ok(Self { folder, manifest, _lock: lock })
    }

    /// The finished units of a stage whose files are there with the right length, in order.
    ///
    /// # Errors
    /// Any I/O error. A marker that cannot be read counts as none.
    pub fn done(&self, stage: &str) -> Result<BTreeMap<u64, Marker>, Error> {
        let markers = read_markers(&self.folder, stage)?;
        let whole =
            |marker: &Marker| marker.files.iter().all(|file| self.folder.length(&file.path) == Some(file.bytes));
        Ok(markers.into_iter().filter(|(_, marker)| whole(marker)).collect())
    }

    /// Marks a unit as finished; its files are on the disk.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn mark(&self, stage: &str, marker: &Marker) -> Result<(), Error> {
        write_json(&self.folder, &marker_path(stage, marker.unit), marker)
    }

    /// Forgets the finished units of a stage.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn unmark(&self, stage: &str) -> Result<(), Error> {
        Ok(self.folder.remove(&format!("{OWN}/done/{stage}"))?)
    }

    /// Saves the state of an unfinished unit.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn save_checkpoint(&self, checkpoint: &Checkpoint, engines: &[EngineRecord]) -> Result<(), Error> {
        self.folder.write(CHECKPOINT, &encode_checkpoint(checkpoint, engines)?)?;
        Ok(())
    }

    /// The state of an unfinished unit and what computed it, if one was saved and can be read.
    ///
    /// # Errors
    /// Any I/O error. A damaged checkpoint counts as none: the unit is done again.
    pub fn checkpoint(&self) -> Result<Option<(Checkpoint, Vec<EngineRecord>)>, Error> {
        Ok(self.folder.read(CHECKPOINT)?.and_then(|bytes| decode_checkpoint(&bytes).ok()))
    }

    /// Removes the state of an unfinished unit.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn drop_checkpoint(&self) -> Result<(), Error> {
        Ok(self.folder.remove(CHECKPOINT)?)
    }

    /// Records every other file's checksum and sets the manifest to finished.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn finish(&mut self, files: &[File]) -> Result<(), Error> {
        write_json(&self.folder, FILES, &files)?;
        self.manifest.finished = true;
        write_json(&self.folder, MANIFEST, &self.manifest)?;
        Ok(self.folder.remove(CHECKPOINT)?)
    }
}

/// The manifest of an output, or `None` when it has none.
///
/// # Errors
/// A manifest that cannot be read.
pub fn read_manifest(folder: &Folder) -> Result<Option<Manifest>, Error> {
    read_json(folder, MANIFEST)
}

/// The files of a finished output that belong to no unit.
///
/// # Errors
/// A list that cannot be read.
pub fn read_files(folder: &Folder) -> Result<Option<Vec<File>>, Error> {
    read_json(folder, FILES)
}

/// The names of the stages that have finished units.
///
/// # Errors
/// Any I/O error.
pub fn stages(folder: &Folder) -> Result<Vec<String>, Error> {
    Ok(folder.list(&format!("{OWN}/done"))?)
}

/// All readable markers of a stage, whether their files are there or not.
///
/// # Errors
/// Any I/O error.
pub fn read_markers(folder: &Folder, stage: &str) -> Result<BTreeMap<u64, Marker>, Error> {
    let mut markers = BTreeMap::new();
    let dir = format!("{OWN}/done/{stage}");
    for name in folder.list(&dir)? {
        let bytes = folder.read(&format!("{dir}/{name}"))?.unwrap_or_default();
        if let Ok(marker) = serde_json::from_slice::<Marker>(&bytes) {
            markers.insert(marker.unit, marker);
        }
    }
    Ok(markers)
}

fn marker_path(stage: &str, unit: u64) -> String {
    format!("{OWN}/done/{stage}/{unit:08}.json")
}

fn read_json<T: serde::de::DeserializeOwned>(folder: &Folder, path: &str) -> Result<Option<T>, Error> {
    let Some(bytes) = folder.read(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        StoreError::Damaged { array: folder.root().join(path).display().to_string(), why: error.to_string() }.into()
    })
}

fn write_json<T: serde::Serialize>(folder: &Folder, path: &str, value: &T) -> Result<(), Error> {
    let to_error = |error: serde_json::Error| StoreError::Zarr { array: path.to_owned(), why: error.to_string() };
    let value: Value = serde_json::to_value(value).map_err(to_error)?;
    folder.write(path, format!("{value:#}\n").as_bytes())?;
    // These files are found by name; only arrays are listed with their checksums.
    folder.take_record(path);
    Ok(())
}

#[cfg(test)]
mod tests {
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
        Marker {
            unit,
            files: vec![record.into()],
            statistics: None,
            own_row_first: None,
            kth: None,
            engines: Vec::new(),
        }
    }

    #[test]
    fn a_second_run_needs_resume_or_overwrite() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        drop(begin(&path, 15, RunOptions::default()).unwrap());
        let message = begin(&path, 15, RunOptions::default()).unwrap_err().to_string();
        assert!(message.contains("--resume") && message.contains("--overwrite"), "{message}");
        assert!(begin(&path, 15, RunOptions { overwrite: true, ..RunOptions::default() }).is_ok());
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
}
