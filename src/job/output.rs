//! The folder a job writes: begun, locked, marked unit by unit, resumed, finished.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::checkpoint;
use super::manifest::{EngineRecord, File, Manifest, Marker};
use super::request::RunOptions;
use crate::error::{Error, JobError, StoreError};
use crate::schedule::search::{Checkpoint, Unfinished};
use crate::store::IoCounters;
use crate::store::folder::{Folder, Lock};

/// What is beside the arrays, out of zarr's sight.
const OWN: &str = ".atlasknn";
const MANIFEST: &str = ".atlasknn/manifest.json";
const CHECKPOINT: &str = ".atlasknn/checkpoint";
const FILES: &str = ".atlasknn/files.json";
/// What makes a store of the folder; written last.
const ROOT: &str = "zarr.json";
/// What a job makes beside [`OWN`].
const LAID_OUT: [&str; 18] = [
    ROOT,
    "X",
    "layers",
    "obs",
    "obsm",
    "obsp",
    "uns",
    "var",
    "varm",
    "varp",
    "rows",
    "ids",
    "offsets",
    "centroids",
    "radii",
    "low",
    "step",
    "codebooks",
];

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
    /// Begins an output, or goes on with one of the same job when asked to resume. Where an earlier run ended before
    /// anything of it was finished, there is nothing to keep, and nothing to ask for.
    ///
    /// # Errors
    /// [`JobError::OutputExists`], [`JobError::OtherJob`], [`JobError::Locked`], [`JobError::ManifestDamaged`], a folder
    /// of somebody else, any I/O error.
    pub fn begin(path: &Path, manifest: Manifest, run: &RunOptions, io: &Arc<IoCounters>) -> Result<Self, Error> {
        let folder = Folder::new(path, io);
        // Before the lock, which makes a folder.
        may_begin(&folder, run)?;
        let lock = folder.lock(&format!("{OWN}/lock"))?.ok_or_else(|| JobError::Locked { path: path.to_owned() })?;
        // And again: another run may have written here until the lock was taken.
        let found = may_begin(&folder, run)?;
        let mut manifest = manifest;
        match found {
            Found::Job(earlier) if run.resume => {
                if let Some(differs) = manifest.differs_from(&earlier) {
                    return Err(JobError::OtherJob { path: path.to_owned(), differs }.into());
                }
                manifest = *earlier;
                if manifest.finished && !is_whole(&folder, &manifest)? {
                    // Nobody takes it for finished meanwhile.
                    folder.remove(ROOT)?;
                    manifest.finished = false;
                    write_json(&folder, MANIFEST, &manifest)?;
                }
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
    pub fn save_checkpoint(&self, checkpoint: &Unfinished<'_>, engines: &[EngineRecord]) -> Result<(), Error> {
        Ok(self.folder.write_with(CHECKPOINT, |to| checkpoint::write(checkpoint, engines, to))?)
    }

    /// The state of an unfinished unit and what computed it, if one was saved that can be read and is not longer than this.
    ///
    /// # Errors
    /// Any I/O error. A damaged checkpoint counts as none: the unit is done again.
    pub fn checkpoint(&self, bytes_max: u64) -> Result<Option<(Checkpoint, Vec<EngineRecord>)>, Error> {
        // What a run with a larger budget saved may not fit into this one's.
        if self.folder.length(CHECKPOINT).is_none_or(|bytes| bytes > bytes_max) {
            return Ok(None);
        }
        Ok(self.folder.read(CHECKPOINT)?.and_then(|bytes| checkpoint::decode(&bytes).ok()))
    }

    /// Saves the state of an unfinished index.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn save_state(&self, state: &[u8]) -> Result<(), Error> {
        Ok(self.folder.write_with(CHECKPOINT, |to| to.write_all(state))?)
    }

    /// The state of an unfinished index, if one was saved.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn state(&self) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.folder.read(CHECKPOINT)?)
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
        self.manifest.units.clear();
        for stage in stages(&self.folder)? {
            let units = marker_names(&self.folder, &stage)?.len() as u64;
            self.manifest.units.insert(stage, units);
        }
        self.manifest.finished = true;
        write_json(&self.folder, MANIFEST, &self.manifest)?;
        Ok(self.folder.remove(CHECKPOINT)?)
    }
}

/// What is at the place of an output.
enum Found {
    /// Nothing, or what a run left that ended before anything of it was finished.
    Nothing,
    /// The work of this job or of another.
    Job(Box<Manifest>),
    /// An output whose manifest cannot be read.
    Damaged(String),
    /// Files of somebody else.
    Foreign,
}

/// What is in the folder. It is ours where it has a file [`MANIFEST`], whatever that says: no other program has one.
fn look(folder: &Folder) -> Result<Found, Error> {
    let names = folder.list("")?;
    let manifest = match read_manifest(folder) {
        Ok(Some(manifest)) => manifest,
        Ok(None) if names.iter().any(|name| name != OWN) => return Ok(Found::Foreign),
        Ok(None) => return Ok(Found::Nothing),
        Err(Error::Store(StoreError::Damaged { why, .. })) => return Ok(Found::Damaged(why)),
        Err(error) => return Err(error),
    };
    let mut worked = manifest.finished || folder.length(CHECKPOINT).is_some();
    for stage in stages(folder)? {
        worked |= !marker_names(folder, &stage)?.is_empty();
    }
    // Only what a run makes before it finishes anything may go without being asked for.
    let ours = |name: &String| name == OWN || LAID_OUT.contains(&name.as_str());
    Ok(if worked || !names.iter().all(ours) { Found::Job(Box::new(manifest)) } else { Found::Nothing })
}

/// What is in the folder, if it may be written to as asked.
fn may_begin(folder: &Folder, run: &RunOptions) -> Result<Found, Error> {
    let found = look(folder)?;
    let path = || folder.root().to_owned();
    match &found {
        Found::Foreign => Err(JobError::Unfit(format!(
            "{} is there and was not written by atlasknn; remove it or choose another output",
            folder.root().display()
        ))
        .into()),
        Found::Job(_) if !run.resume && !run.overwrite => Err(JobError::OutputExists { path: path() }.into()),
        Found::Damaged(why) if !run.overwrite => {
            Err(JobError::ManifestDamaged { path: path(), why: why.clone() }.into())
        }
        _ => Ok(found),
    }
}

/// The job that an earlier run began in this folder and this one goes on with; none where it begins anew.
///
/// # Errors
/// As [`Output::begin`], before anything is written.
pub fn earlier(path: &Path, run: &RunOptions, io: &Arc<IoCounters>) -> Result<Option<Manifest>, Error> {
    match may_begin(&Folder::new(path, io), run)? {
        Found::Job(manifest) if run.resume => Ok(Some(*manifest)),
        _ => Ok(None),
    }
}

/// Whether all that a finished output is made of is still there: every marker readable, every file of its length.
fn is_whole(folder: &Folder, manifest: &Manifest) -> Result<bool, Error> {
    let there = |files: &[File]| files.iter().all(|file| folder.length(&file.path) == Some(file.bytes));
    for (stage, units) in &manifest.units {
        let markers = read_markers(folder, stage)?;
        if markers.len() as u64 != *units || !markers.values().all(|marker| there(&marker.files)) {
            return Ok(false);
        }
    }
    Ok(read_files(folder).is_ok_and(|files| files.is_some_and(|files| there(&files))))
}

/// Whether a finished output is at this place, with all that it is made of.
///
/// # Errors
/// Any I/O error.
pub fn is_finished(path: &Path, io: &Arc<IoCounters>) -> Result<bool, Error> {
    let folder = Folder::new(path, io);
    // One that cannot be read is not finished.
    let finished = read_manifest(&folder).ok().flatten().filter(|manifest| manifest.finished);
    finished.map_or(Ok(false), |manifest| is_whole(&folder, &manifest))
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

/// The names of the markers of a stage, readable or not.
fn marker_names(folder: &Folder, stage: &str) -> Result<Vec<String>, Error> {
    let names = folder.list(&format!("{OWN}/done/{stage}"))?;
    // A run that was killed while it wrote one may leave it under its temporary name.
    Ok(names.into_iter().filter(|name| !name.starts_with('.')).collect())
}

/// All readable markers of a stage, whether their files are there or not.
///
/// # Errors
/// Any I/O error.
pub fn read_markers(folder: &Folder, stage: &str) -> Result<BTreeMap<u64, Marker>, Error> {
    let mut markers = BTreeMap::new();
    let dir = format!("{OWN}/done/{stage}");
    for name in marker_names(folder, stage)? {
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
#[path = "output_tests.rs"]
mod tests;
