//! Checks an output: every file there with its checksum, every row of neighbours sorted and in range; of an index, every row
//! there and within its list's radius.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::index;
use super::manifest::{File, Manifest};
use super::output::{read_files, read_manifest, read_markers, stages};
use super::request::{Verification, Within};
use super::run::Run;
use super::search;
use crate::error::{Error, StoreError};
use crate::schedule::progress::{Observer, Stage, Step, Stop};
use crate::store::IoCounters;
use crate::store::folder::Folder;
use crate::store::neighbours::{INDICES, Neighbours};
use crate::topk::PADDING;
use crate::units::{INNER_ROWS, UNIT_ROWS};

/// Checks the output at `path`. What is wrong inside it is in the report.
///
/// # Errors
/// A folder that is no output at all.
pub fn verify(path: &Path, observer: &dyn Observer) -> Result<Verification, Error> {
    let folder = Folder::new(path, &IoCounters::new());
    if !path.exists() {
        return Err(StoreError::Missing { path: path.to_owned() }.into());
    }
    let manifest = read_manifest(&folder)?.ok_or_else(|| StoreError::NotAStore {
        path: path.to_owned(),
        why: "it has no manifest of atlasknn".to_owned(),
    })?;
    let mut report = Verification::default();
    if !manifest.finished {
        report.problems.push("the run that writes it is not finished; go on with --resume".to_owned());
    }
    let files = listed_files(&folder, &manifest, &mut report)?;
    let total: u64 = files.iter().map(|file| file.bytes).sum();
    observer.begin(Stage::Verify, Step { bytes: total, ..Step::default() }, Step::default());
    for file in &files {
        check_file(&folder, file, &mut report)?;
        observer.advance(Stage::Verify, Step { bytes: file.bytes, ..Step::default() });
    }
    if folder.length(&format!("{INDICES}/zarr.json")).is_some() {
        // What an unfinished search has not written yet would read as zeros.
        let searched = read_markers(&folder, search::STAGE)?;
        let written = |row: u64| manifest.finished || searched.contains_key(&(row / UNIT_ROWS));
        check_rows(&folder, manifest.reference_rows, written, &mut report);
    }
    if manifest.command == index::COMMAND && manifest.finished {
        let stop = Stop::new();
        let run = Run::begin(&Within::default(), observer, &stop)?;
        run.pool.install(|| index::check(path, &mut report));
    }
    observer.end(Stage::Verify);
    Ok(report)
}

/// The files of every unit and the others. What a marker that is lost had listed would pass unseen, so that is a problem.
fn listed_files(folder: &Arc<Folder>, manifest: &Manifest, report: &mut Verification) -> Result<Vec<File>, Error> {
    let mut files = Vec::new();
    // Those that should be there, and those that are.
    let stages = stages(folder)?.into_iter().chain(manifest.units.keys().cloned()).collect::<BTreeSet<_>>();
    for stage in stages {
        let markers = read_markers(folder, &stage)?;
        let lost = manifest.units.get(&stage).map_or(0, |units| units.saturating_sub(markers.len() as u64));
        if lost > 0 {
            let problem = format!("{lost} markers of {stage} are missing or can't be read; --resume makes them again");
            report.problems.push(problem);
        }
        files.extend(markers.into_values().flat_map(|marker| marker.files));
    }
    match read_files(folder)? {
        Some(others) => files.extend(others),
        None if manifest.finished => report.problems.push("the list of files is missing".to_owned()),
        None => {}
    }
    Ok(files)
}

fn check_file(folder: &Folder, file: &File, report: &mut Verification) -> Result<(), Error> {
    let problem = match folder.checksum(&file.path)? {
        None => Some("is missing".to_owned()),
        Some(found) if found.bytes != file.bytes => {
            Some(format!("has {} bytes and was written with {}", found.bytes, file.bytes))
        }
        Some(found) if found.crc32c != file.crc32c => Some("is not what was written: its checksum differs".to_owned()),
        Some(_) => None,
    };
    report.files += 1;
    report.bytes += file.bytes;
    report.problems.extend(problem.map(|problem| format!("{} {problem}", file.path)));
    Ok(())
}

/// Neighbours are checked for what they mean, not only for their bytes.
fn check_rows(folder: &Arc<Folder>, references: u64, written: impl Fn(u64) -> bool, report: &mut Verification) {
    let neighbours = match Neighbours::open(folder) {
        Ok(neighbours) => neighbours,
        Err(error) => return report.problems.push(error.to_string()),
    };
    let mut start = 0;
    while start < neighbours.rows() {
        let end = neighbours.rows().min(start + INNER_ROWS);
        if !written(start) {
            start = end;
            continue;
        }
        match neighbours.read(start..end) {
            Ok(top) => {
                let out_of_range = top.ids().iter().position(|&id| id != PADDING && id >= references);
                report.problems.extend(out_of_range.map(|slot| {
                    let row = start + (slot / top.k()) as u64;
                    format!("row {row} names reference row {} of {references}", top.ids()[slot])
                }));
                report.rows += end - start;
            }
            Err(error) => report.problems.push(error.to_string()),
        }
        start = end;
    }
}
