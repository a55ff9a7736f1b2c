//! One folder as a key-value storage whose every byte read is counted. Keys are paths inside the folder, with `/`.
//!
//! It is not zarrs' own filesystem store: that one keeps a lock per key for ever, so its memory grows with the chunks.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zarrs::storage::byte_range::{ByteRange, ByteRangeIterator};
use zarrs::storage::{
    ListableStorageTraits, MaybeBytesIterator, ReadableStorageTraits, StorageError, StoreKey, StoreKeys,
    StoreKeysPrefixes, StorePrefix,
};

use crate::error::StoreError;
use crate::store::IoCounters;

/// A folder.
#[derive(Debug)]
pub struct Disk {
    root: PathBuf,
    io: Arc<IoCounters>,
}

impl Disk {
    /// The folder at `path`; what is read from it is added to `io`.
    ///
    /// # Errors
    /// Nothing there, no permission, or not a folder.
    pub fn open(path: &Path, io: &Arc<IoCounters>) -> Result<Self, StoreError> {
        let metadata = std::fs::metadata(path).map_err(|e| io_error("open", path, e))?;
        if !metadata.is_dir() {
            return Err(StoreError::NotAStore { path: path.to_owned(), why: "it is a file, not a folder".to_owned() });
        }
        Ok(Self { root: path.to_owned(), io: Arc::clone(io) })
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The counters that reads are added to.
    #[must_use]
    pub fn counters(&self) -> &Arc<IoCounters> {
        &self.io
    }

    /// The file of a key.
    #[must_use]
    pub fn path_of(&self, key: &str) -> PathBuf {
        if key.is_empty() { self.root.clone() } else { self.root.join(key) }
    }

    /// A whole file, or `None` when there is none.
    ///
    /// # Errors
    /// Any I/O error but a missing file.
    pub fn read(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.whole(key).map_err(|e| io_error("read", &self.path_of(key), e))
    }

    /// `len` bytes of a file from `offset`, or `None` when there is no file.
    ///
    /// # Errors
    /// A file that ends earlier, any I/O error but a missing file.
    pub fn read_range(&self, key: &str, offset: u64, len: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.part(key, ByteRange::FromStart(offset, Some(len))).map_err(|e| io_error("read", &self.path_of(key), e))
    }

    /// The last `len` bytes of a file, or `None` when there is no file.
    ///
    /// # Errors
    /// A shorter file, any I/O error but a missing file.
    pub fn read_suffix(&self, key: &str, len: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.part(key, ByteRange::Suffix(len)).map_err(|e| io_error("read", &self.path_of(key), e))
    }

    /// The length of a file, or `None` when there is none.
    ///
    /// # Errors
    /// Any I/O error but a missing file.
    pub fn stat(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let path = self.path_of(key);
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(metadata.len())),
            Ok(_) => Ok(None),
            Err(e) if is_absent(&e) => Ok(None),
            Err(e) => Err(io_error("read", &path, e)),
        }
    }

    /// Names of the folders directly inside the folder of a key, sorted.
    ///
    /// # Errors
    /// Any I/O error but a missing folder.
    pub fn folders(&self, key: &str) -> Result<Vec<String>, StoreError> {
        let path = self.path_of(key);
        let (_, mut folders) = list(&path).map_err(|e| io_error("list", &path, e))?;
        folders.sort();
        Ok(folders)
    }

    fn whole(&self, key: &str) -> io::Result<Option<Vec<u8>>> {
        let Some(mut file) = open_if_there(&self.path_of(key))? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        self.io.add_read(bytes.len() as u64);
        Ok(Some(bytes))
    }

    fn part(&self, key: &str, range: ByteRange) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = open_if_there(&self.path_of(key))? else { return Ok(None) };
        self.part_of(&file, range).map(Some)
    }

    fn part_of(&self, file: &File, range: ByteRange) -> io::Result<Vec<u8>> {
        // The length is checked before anything is allocated: a damaged index may ask for any number of bytes.
        let size = file.metadata()?.len();
        let (offset, len) = match range {
            ByteRange::FromStart(offset, Some(len)) => (offset, len),
            ByteRange::FromStart(offset, None) => (offset, size.saturating_sub(offset)),
            ByteRange::Suffix(len) => (size.checked_sub(len).ok_or(ErrorKind::UnexpectedEof)?, len),
        };
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| ErrorKind::FileTooLarge)?];
        read_exact_at(file, &mut bytes, offset)?;
        self.io.add_read(len);
        Ok(bytes)
    }
}

impl ReadableStorageTraits for Disk {
    fn get_partial_many<'a>(
        &'a self,
        key: &StoreKey,
        byte_ranges: ByteRangeIterator<'a>,
    ) -> Result<MaybeBytesIterator<'a>, StorageError> {
        let Some(file) = open_if_there(&self.path_of(key.as_str()))? else { return Ok(None) };
        Ok(Some(Box::new(byte_ranges.map(move |range| Ok(self.part_of(&file, range)?.into())))))
    }

    fn size_key(&self, key: &StoreKey) -> Result<Option<u64>, StorageError> {
        self.stat(key.as_str()).map_err(|e| StorageError::Other(e.to_string()))
    }

    fn supports_get_partial(&self) -> bool {
        true
    }
}

impl ListableStorageTraits for Disk {
    fn list(&self) -> Result<StoreKeys, StorageError> {
        self.list_prefix(&StorePrefix::root())
    }

    fn list_prefix(&self, prefix: &StorePrefix) -> Result<StoreKeys, StorageError> {
        let below = self.list_dir(prefix)?;
        let mut keys = below.keys().clone();
        for folder in below.prefixes() {
            keys.extend(self.list_prefix(folder)?);
        }
        Ok(keys)
    }

    fn list_dir(&self, prefix: &StorePrefix) -> Result<StoreKeysPrefixes, StorageError> {
        let (mut files, mut folders) = list(&self.path_of(prefix.as_str().trim_end_matches('/')))?;
        files.sort();
        folders.sort();
        let keys = files.iter().map(|name| StoreKey::new(format!("{}{name}", prefix.as_str())));
        let prefixes = folders.iter().map(|name| StorePrefix::new(format!("{}{name}/", prefix.as_str())));
        Ok(StoreKeysPrefixes::new(keys.collect::<Result<_, _>>()?, prefixes.collect::<Result<_, _>>()?))
    }

    fn size_prefix(&self, prefix: &StorePrefix) -> Result<u64, StorageError> {
        let mut bytes = 0;
        for key in self.list_prefix(prefix)? {
            bytes += self.size_key(&key)?.unwrap_or(0);
        }
        Ok(bytes)
    }
}

/// The store's error for what the system said about a path.
pub(crate) fn io_error(action: &'static str, path: &Path, source: io::Error) -> StoreError {
    let path = path.to_owned();
    match source.kind() {
        ErrorKind::NotFound => StoreError::Missing { path },
        ErrorKind::PermissionDenied => StoreError::Permission { action, path },
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::DiskFull { path },
        ErrorKind::UnexpectedEof => StoreError::Damaged {
            array: path.display().to_string(),
            why: "the file ends before the bytes it should hold".to_owned(),
        },
        _ => StoreError::Io { action, path, source },
    }
}

/// Fills `out` from `offset` of a file, whatever other readers of the same file do.
#[cfg(unix)]
pub(crate) fn read_exact_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

/// Fills `out` from `offset` of a file, whatever other readers of the same file do.
#[cfg(windows)]
pub(crate) fn read_exact_at(file: &File, mut out: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, offset) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                out = &mut out[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if is_absent(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Names of the files and of the folders in a folder; none when it does not exist.
fn list(path: &Path) -> io::Result<(Vec<String>, Vec<String>)> {
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if is_absent(&e) => return Ok((files, folders)),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        // A name that is no text can be no key.
        let Ok(name) = entry.file_name().into_string() else { continue };
        // Following links: stores are often put together from linked folders.
        match std::fs::metadata(entry.path()) {
            Ok(metadata) if metadata.is_dir() => folders.push(name),
            Ok(_) => files.push(name),
            Err(e) if is_absent(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok((files, folders))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_read_is_counted_once() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("c"))?;
        std::fs::write(folder.path().join("c/0"), [1, 2, 3, 4, 5])?;
        let io = IoCounters::new();
        let disk = Disk::open(folder.path(), &io)?;
        assert_eq!(disk.read("c/0")?, Some(vec![1, 2, 3, 4, 5]));
        assert_eq!(disk.read_range("c/0", 1, 2)?, Some(vec![2, 3]));
        assert_eq!(disk.read_suffix("c/0", 2)?, Some(vec![4, 5]));
        assert_eq!(disk.get(&StoreKey::new("c/0")?)?.as_deref(), Some([1, 2, 3, 4, 5].as_slice()));
        assert_eq!(io.read(), 14);
        assert_eq!((disk.read("c/1")?, disk.read("c/0/0")?, disk.stat("c/1")?), (None, None, None));
        assert_eq!(disk.stat("c/0")?, Some(5));
        assert_eq!((disk.folders("")?, disk.folders("none")?), (vec!["c".to_owned()], vec![]));
        assert_eq!((disk.list()?.len(), disk.size()?), (1, 5));
        Ok(())
    }

    #[test]
    fn reading_past_the_end_is_damage_and_allocates_nothing() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("a"), [0; 10])?;
        let disk = Disk::open(folder.path(), &IoCounters::new())?;
        for (offset, len) in [(0, 11), (11, 0), (u64::MAX, 2), (0, u64::MAX)] {
            let read = disk.read_range("a", offset, len);
            assert!(matches!(read, Err(StoreError::Damaged { .. })), "{offset} {len}: {read:?}");
        }
        assert!(matches!(disk.read_suffix("a", 11), Err(StoreError::Damaged { .. })));
        Ok(())
    }

    #[test]
    fn a_missing_folder_and_a_file_are_told_apart() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("a"), "")?;
        let io = IoCounters::new();
        let open = |name: &str| Disk::open(&folder.path().join(name), &io);
        assert!(matches!(open("b"), Err(StoreError::Missing { .. })));
        assert!(matches!(open("a"), Err(StoreError::NotAStore { .. })));
        Ok(())
    }
}
