//! Chunk files that are not there. Zarr reads them as the fill value, which is right where a writer left them out and wrong
//! where a store was copied in part; nobody but the user knows which.

use std::fmt;

/// What is not there of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// The array, with its store.
    pub array: String,
    /// Files that are not there, of those asked for.
    pub absent: u64,
    /// Files asked for.
    pub asked: u64,
    /// Files the array may have.
    pub files: u64,
    /// What is read instead of each element.
    pub fill: String,
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { array, absent, asked, files, fill } = self;
        let of = if asked < files { format!("{asked} looked at, of {files}") } else { files.to_string() };
        write!(f, "{array}: {absent} of its chunk files ({of}) are absent and read as its fill value, {fill}")
    }
}
