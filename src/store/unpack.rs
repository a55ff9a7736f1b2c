//! Files carried inside the program, put on disk: the demo's data.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Component, Path};

use crate::error::StoreError;

/// Stands in a folder that [`unpack`] made, so that it touches no other.
pub const MARKER: &str = ".atlasknn-demo";

/// Writes the files (relative path, bytes) under `dir`. The top-level folders named in the paths are replaced as a
/// whole; anything else in `dir` stays. Files that are there already, all of them and nothing else, are not touched: to
/// a search that was made with them, a file written again is another input.
///
/// # Errors
/// [`StoreError::Occupied`] when `dir` holds something and was not made by an earlier call; any I/O error.
pub fn unpack(files: &[(&str, &[u8])], dir: &Path) -> Result<(), StoreError> {
    let marker = dir.join(MARKER);
    if !is_free(dir)? && !marker.is_file() {
        return Err(StoreError::Occupied { path: dir.to_path_buf() });
    }
    if is_there(files, dir) {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(|e| failed("create", dir, e))?;
    fs::write(&marker, "made by `atlasknn demo`, which may replace what it put here\n")
        .map_err(|e| failed("write", &marker, e))?;
    for old in tops(files) {
        let path = dir.join(old);
        match fs::remove_dir_all(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("replace", &path, e)),
            _ => {}
        }
    }
    for (name, bytes) in files {
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|e| failed("create", parent, e))?;
        }
        fs::write(&path, bytes).map_err(|e| failed("write", &path, e))?;
    }
    Ok(())
}

/// Whether `dir` holds each of these files as it is here, and their folders hold no other.
fn is_there(files: &[(&str, &[u8])], dir: &Path) -> bool {
    let same = |(name, bytes): &(&str, &[u8])| fs::read(dir.join(name)).is_ok_and(|found| found == *bytes);
    let inside = |top: &str| files.iter().filter(|(name, _)| Path::new(name).starts_with(top)).count();
    files.iter().all(same) && tops(files).into_iter().all(|top| count(&dir.join(top)).is_ok_and(|n| n == inside(top)))
}

/// How many files a folder and the folders in it hold.
fn count(dir: &Path) -> io::Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(files)
}

/// Whether nothing is there, or an empty folder.
fn is_free(dir: &Path) -> Result<bool, StoreError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => Ok(false),
        Err(e) => Err(failed("read", dir, e)),
    }
}

/// The first folders of the paths, each once.
fn tops<'a>(files: &[(&'a str, &[u8])]) -> BTreeSet<&'a str> {
    let folder = |name: &'a str| {
        let mut parts = Path::new(name).components();
        match (parts.next(), parts.next()) {
            (Some(Component::Normal(top)), Some(_)) => top.to_str(),
            _ => None,
        }
    };
    files.iter().filter_map(|(name, _)| folder(name)).collect()
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> StoreError {
    let path = path.to_path_buf();
    match source.kind() {
        io::ErrorKind::PermissionDenied => StoreError::Permission { action, path },
        io::ErrorKind::StorageFull => StoreError::DiskFull { path },
        _ => StoreError::Io { action, path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [(&str, &[u8]); 3] = [("a.zarr/zarr.json", b"{}"), ("a.zarr/c/0", b"\x00\x01"), ("note.txt", b"hi")];

    fn text(path: &Path) -> Vec<u8> {
        fs::read(path).unwrap()
    }

    #[test]
    fn files_come_out_as_they_went_in() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("new/demo");
        unpack(&FILES, &dir).unwrap();
        for (name, bytes) in FILES {
            assert_eq!(text(&dir.join(name)), bytes, "{name}");
        }
    }

    #[test]
    fn a_second_time_replaces_the_folders_and_leaves_the_rest() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        unpack(&FILES, dir).unwrap();
        fs::write(dir.join("a.zarr/stale"), "x").unwrap();
        fs::create_dir(dir.join("mine")).unwrap();
        unpack(&FILES, dir).unwrap();
        assert!(!dir.join("a.zarr/stale").exists() && dir.join("mine").exists());
        assert_eq!(text(&dir.join("a.zarr/zarr.json")), b"{}");
    }

    #[test]
    fn files_that_are_there_already_are_not_written_again() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        unpack(&FILES, dir).unwrap();
        let written = |name: &str| fs::metadata(dir.join(name)).unwrap().modified().unwrap();
        let before = FILES.map(|(name, _)| written(name));
        // A file written again would not be read-only any more, however coarse the clock of the file system is.
        for (name, _) in FILES {
            let mut permissions = fs::metadata(dir.join(name)).unwrap().permissions();
            permissions.set_readonly(true);
            fs::set_permissions(dir.join(name), permissions).unwrap();
        }
        unpack(&FILES, dir).unwrap();
        assert_eq!(FILES.map(|(name, _)| written(name)), before);
        assert!(fs::metadata(dir.join("a.zarr/c/0")).unwrap().permissions().readonly());
    }

    #[test]
    fn a_changed_file_is_put_right() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        unpack(&FILES, dir).unwrap();
        fs::write(dir.join("a.zarr/c/0"), b"\x00\x02").unwrap();
        unpack(&FILES, dir).unwrap();
        assert_eq!(text(&dir.join("a.zarr/c/0")), b"\x00\x01");
    }

    #[test]
    fn a_folder_of_somebody_else_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("mine");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("thesis.txt"), "x").unwrap();
        let file = root.path().join("file");
        fs::write(&file, "x").unwrap();
        for path in [&dir, &file] {
            assert!(matches!(unpack(&FILES, path), Err(StoreError::Occupied { .. })), "{}", path.display());
        }
        assert!(!dir.join("a.zarr").exists() && text(&file) == b"x");
    }
}
