//! A folder that is written to: every file appears whole or not at all, and is remembered with its checksum.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use zarrs::storage::byte_range::{ByteRange, ByteRangeIterator};
use zarrs::storage::{
    Bytes, MaybeBytesIterator, OffsetBytesIterator, ReadableStorageTraits, StorageError, StoreKey, StorePrefix,
    WritableStorageTraits,
};

use super::IoCounters;
use crate::error::StoreError;

/// A file as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRecord {
    /// Path inside the folder, with `/`.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// CRC-32C of its bytes.
    pub crc32c: u32,
}

/// Held while a folder is written to.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// A folder of files that become visible whole: written under another name, synced, renamed.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    io: Arc<IoCounters>,
    written: Mutex<BTreeMap<String, FileRecord>>,
}

impl Folder {
    /// The folder at `root`, which need not exist yet.
    #[must_use]
    pub fn new(root: &Path, io: &Arc<IoCounters>) -> Arc<Self> {
        Arc::new(Self { root: root.to_owned(), io: Arc::clone(io), written: Mutex::default() })
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes a file: after this returns it is on the disk, whole, under its name.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Permission`] or [`StoreError::Io`].
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<FileRecord, StoreError> {
        let target = self.root.join(path);
        Self::replace(&target, |to| to.write_all(bytes)).map_err(|error| from_io("write", &target, error))?;
        self.io.add_written(bytes.len() as u64);
        let record = FileRecord { path: path.to_owned(), bytes: bytes.len() as u64, crc32c: crc32c::crc32c(bytes) };
        self.remembered().insert(path.to_owned(), record.clone());
        Ok(record)
    }

    /// Writes a file piece by piece, as whole as [`write`](Self::write) does; it is not remembered.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_with(
        &self,
        path: &str,
        pieces: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<(), StoreError> {
        let target = self.root.join(path);
        Self::replace(&target, pieces).map_err(|error| from_io("write", &target, error))?;
        self.io.add_written(fs::metadata(&target).map_or(0, |metadata| metadata.len()));
        Ok(())
    }

    /// A whole file, or `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError::Permission`] or [`StoreError::Io`].
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let full = self.root.join(path);
        match fs::read(&full) {
            Ok(bytes) => {
                self.io.add_read(bytes.len() as u64);
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(from_io("read", &full, error)),
        }
    }

    /// The length of a file, or `None` when there is none.
    #[must_use]
    pub fn length(&self, path: &str) -> Option<u64> {
        fs::metadata(self.root.join(path)).ok().filter(fs::Metadata::is_file).map(|m| m.len())
    }

    /// CRC-32C and length of a file, read in small pieces; `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError::Permission`] or [`StoreError::Io`].
    pub fn checksum(&self, path: &str) -> Result<Option<FileRecord>, StoreError> {
        let full = self.root.join(path);
        let mut file = match File::open(&full) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(from_io("read", &full, error)),
        };
        let (mut crc, mut bytes, mut piece) = (0, 0_u64, vec![0; 1 << 20]);
        loop {
            let n = file.read(&mut piece).map_err(|error| from_io("read", &full, error))?;
            if n == 0 {
                break;
            }
            crc = crc32c::crc32c_append(crc, &piece[..n]);
            bytes += n as u64;
        }
        self.io.add_read(bytes);
        Ok(Some(FileRecord { path: path.to_owned(), bytes, crc32c: crc }))
    }

    /// The names in a folder below this one, sorted; empty when there is none.
    ///
    /// # Errors
    /// [`StoreError::Permission`] or [`StoreError::Io`].
    pub fn list(&self, path: &str) -> Result<Vec<String>, StoreError> {
        let full = self.root.join(path);
        let entries = match fs::read_dir(&full) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(from_io("read", &full, error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| from_io("read", &full, error))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// The paths of all files in a folder below this one and in its folders, sorted.
    ///
    /// # Errors
    /// [`StoreError::Permission`] or [`StoreError::Io`].
    pub fn files(&self, path: &str) -> Result<Vec<String>, StoreError> {
        let mut files = Vec::new();
        for name in self.list(path)? {
            let child = if path.is_empty() { name } else { format!("{path}/{name}") };
            if self.length(&child).is_some() {
                files.push(child);
            } else {
                files.extend(self.files(&child)?);
            }
        }
        Ok(files)
    }

    /// Removes a file or a folder with everything in it, if it is there.
    ///
    /// # Errors
    /// [`StoreError::Permission`] or [`StoreError::Io`].
    pub fn remove(&self, path: &str) -> Result<(), StoreError> {
        let full = self.root.join(path);
        let result = if full.is_dir() { fs::remove_dir_all(&full) } else { fs::remove_file(&full) };
        match result {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(from_io("remove", &full, error)),
            _ => Ok(()),
        }
    }

    /// Takes a lock that no other process has, or `None`. The operating system lets go of it when the process ends,
    /// however it ends.
    ///
    /// # Errors
    /// [`StoreError::Permission`] or [`StoreError::Io`].
    pub fn lock(&self, path: &str) -> Result<Option<Lock>, StoreError> {
        let full = self.root.join(path);
        let open = || {
            fs::create_dir_all(full.parent().unwrap_or(Path::new(".")))?;
            File::create(&full)
        };
        let file = open().map_err(|error| from_io("write", &full, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(from_io("lock", &full, error)),
        }
    }

    /// Bytes free on the disk that this folder is or will be on; `None` where the system does not tell.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        let there = self.root.ancestors().find(|path| path.exists())?;
        let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
        fs4::available_space(there).ok()
    }

    /// What was written at this path since it was last taken.
    pub fn take_record(&self, path: &str) -> Option<FileRecord> {
        self.remembered().remove(path)
    }

    /// Everything written since it was last taken, in order of path.
    pub fn take_records(&self) -> Vec<FileRecord> {
        std::mem::take(&mut *self.remembered()).into_values().collect()
    }

    fn replace(target: &Path, pieces: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> std::io::Result<()> {
        let temporary = temporary_name(target);
        replace(target, &temporary, pieces).inspect_err(|_| {
            // A half-written file is of no use; that it cannot be removed either changes nothing.
            let _ = fs::remove_file(&temporary);
        })
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, FileRecord>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn temporary_name(target: &Path) -> PathBuf {
    let name = target.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    target.with_file_name(format!(".{name}.partial"))
}

fn replace(
    target: &Path,
    temporary: &Path,
    pieces: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let parent = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    let mut file = File::create(temporary)?;
    pieces(&mut file)?;
    file.sync_all()?;
    drop(file);
    fs::rename(temporary, target)?;
    // The rename itself must survive a power cut; Windows has no such call on folders.
    #[cfg(unix)]
    File::open(parent)?.sync_all()?;
    Ok(())
}

/// The path without links, `.` and `..`, as far as it exists; what is to be made below that is added as it is.
#[must_use]
pub fn real_path(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for there in path.ancestors() {
        if let (Ok(real), Ok(below)) = (fs::canonicalize(there), path.strip_prefix(there)) {
            // Joining nothing would add a slash.
            return if below.as_os_str().is_empty() { real } else { real.join(below) };
        }
    }
    path
}

/// Puts the operating system's error into the words of this library.
pub(crate) fn from_io(action: &'static str, path: &Path, error: std::io::Error) -> StoreError {
    let path = path.to_owned();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::DiskFull { path },
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => StoreError::Permission { action, path },
        ErrorKind::NotFound if action == "read" => StoreError::Missing { path },
        // Making a folder where a file is says that it exists.
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            let file = path.ancestors().find(|at| at.is_file()).unwrap_or(&path);
            let (array, found) = (file.display().to_string(), "a file".to_owned());
            StoreError::WrongKind { array, found, expected: "a folder is needed here; name another path".to_owned() }
        }
        _ => StoreError::Io { action, path, source: error },
    }
}

/// zarrs hands errors through as its own; the reason survives in the text or as an I/O error.
fn to_storage(error: StoreError) -> StorageError {
    match error {
        StoreError::Io { source, .. } => StorageError::from(source),
        StoreError::DiskFull { .. } => StorageError::from(std::io::Error::from(ErrorKind::StorageFull)),
        StoreError::Permission { .. } => StorageError::from(std::io::Error::from(ErrorKind::PermissionDenied)),
        other => StorageError::Other(other.to_string()),
    }
}

impl WritableStorageTraits for Folder {
    fn set(&self, key: &StoreKey, value: Bytes) -> Result<(), StorageError> {
        self.write(key.as_str(), &value).map(|_| ()).map_err(to_storage)
    }

    fn set_partial_many(&self, _: &StoreKey, _: OffsetBytesIterator) -> Result<(), StorageError> {
        Err(StorageError::Other("files are written whole".to_owned()))
    }

    fn erase(&self, key: &StoreKey) -> Result<(), StorageError> {
        self.remove(key.as_str()).map_err(to_storage)
    }

    fn erase_prefix(&self, prefix: &StorePrefix) -> Result<(), StorageError> {
        self.remove(prefix.as_str()).map_err(to_storage)
    }

    fn supports_set_partial(&self) -> bool {
        false
    }
}

impl ReadableStorageTraits for Folder {
    fn get_partial_many<'a>(
        &'a self,
        key: &StoreKey,
        byte_ranges: ByteRangeIterator<'a>,
    ) -> Result<MaybeBytesIterator<'a>, StorageError> {
        use std::io::{Seek, SeekFrom};
        let mut file = match File::open(self.root.join(key.as_str())) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let length = file.metadata()?.len();
        let pieces = byte_ranges.map(move |range| {
            let there = match range {
                ByteRange::FromStart(at, len) => at.checked_add(len.unwrap_or(0)).is_some_and(|end| end <= length),
                ByteRange::Suffix(len) => len <= length,
            };
            if !there {
                return Err(std::io::Error::from(ErrorKind::UnexpectedEof).into());
            }
            let (start, end) = (range.start(length), range.end(length));
            let mut bytes = vec![0; usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX)];
            file.seek(SeekFrom::Start(start))?;
            file.read_exact(&mut bytes)?;
            self.io.add_read(bytes.len() as u64);
            Ok(Bytes::from(bytes))
        });
        Ok(Some(Box::new(pieces)))
    }

    fn size_key(&self, key: &StoreKey) -> Result<Option<u64>, StorageError> {
        Ok(self.length(key.as_str()))
    }

    fn supports_get_partial(&self) -> bool {
        true
    }
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
