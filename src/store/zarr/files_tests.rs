use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::ZarrArray;
use crate::error::StoreError;
use crate::store::disk::Disk;
use crate::store::testing::{Failure, codecs, encode, v3, values, write};
use crate::store::{Absent, IoCounters};

fn open(folder: &Path) -> Result<ZarrArray, StoreError> {
    ZarrArray::open(&Arc::new(Disk::open(folder, &IoCounters::new())?), "")
}

fn fingerprint(folder: &Path) -> Result<Value, StoreError> {
    open(folder)?.fingerprint()
}

#[test]
fn a_copy_has_the_fingerprint_and_a_change_of_any_sampled_chunk_has_another() -> Result<(), Failure> {
    let (folder, copy) = (tempfile::tempdir()?, tempfile::tempdir()?);
    // 13 files, so that all of them are sampled; without compression, so that none changes its size.
    let metadata = v3("float32", &[100, 4], &[8, 4], None, &codecs(&[]));
    write(folder.path(), &metadata, encode("float32", &values(100, 4)))?;
    let before = fingerprint(folder.path())?;
    fs::copy(folder.path().join("zarr.json"), copy.path().join("zarr.json"))?;
    for chunk in 0..13 {
        let key = format!("c/{chunk}/0");
        fs::create_dir_all(copy.path().join(&key).parent().ok_or("no parent")?)?;
        let bytes = fs::read(folder.path().join(&key))?;
        fs::write(copy.path().join(&key), &bytes)?;
    }
    assert_eq!(fingerprint(copy.path())?, before, "times of files are not in it");
    for chunk in 0..13 {
        let path = copy.path().join(format!("c/{chunk}/0"));
        let good = fs::read(&path)?;
        for at in [0, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, bad)?;
            assert_ne!(fingerprint(copy.path())?, before, "byte {at} of chunk {chunk}");
        }
        fs::write(&path, &good[1..])?;
        assert_ne!(fingerprint(copy.path())?, before, "chunk {chunk} is shorter");
        fs::remove_file(&path)?;
        assert_ne!(fingerprint(copy.path())?, before, "chunk {chunk} is gone");
        fs::write(&path, good)?;
    }
    assert_eq!(fingerprint(copy.path())?, before);
    Ok(())
}

#[test]
fn a_fingerprint_reads_little_of_many_and_large_files() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let metadata = v3("float32", &[100 << 18, 1], &[1 << 18, 1], None, &codecs(&[]));
    fs::write(folder.path().join("zarr.json"), metadata.to_string())?;
    for chunk in 0..100 {
        let path = folder.path().join(format!("c/{chunk}/0"));
        fs::create_dir_all(path.parent().ok_or("no parent")?)?;
        fs::File::create(path)?.set_len(1 << 20)?;
    }
    let io = IoCounters::new();
    let array = ZarrArray::open(&Arc::new(Disk::open(folder.path(), &io)?), "")?;
    let opened = io.read();
    let before = array.fingerprint()?;
    assert!(io.read() - opened <= 4 << 20, "{} bytes", io.read() - opened);
    assert_eq!(before["files"].as_array().map(Vec::len), Some(64));
    // The last file is sampled, and its end is in the sum.
    let last = folder.path().join("c/99/0");
    let mut bytes = fs::read(&last)?;
    *bytes.last_mut().ok_or("empty")? = 1;
    fs::write(last, bytes)?;
    assert_ne!(array.fingerprint()?, before);
    Ok(())
}

#[test]
fn chunk_files_that_are_not_there_are_counted() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    // 25 × 2 files.
    let metadata = v3("float32", &[100, 4], &[4, 2], None, &codecs(&["zstd"]));
    write(folder.path(), &metadata, encode("float32", &values(100, 4)))?;
    assert_eq!(open(folder.path())?.absent()?, None);
    fs::remove_file(folder.path().join("c/7/1"))?;
    fs::remove_dir_all(folder.path().join("c/24"))?;
    let absent = open(folder.path())?.absent()?.ok_or("nothing absent")?;
    assert_eq!((absent.absent, absent.asked, absent.files), (3, 50, 50));
    let sentence = absent.to_string();
    assert!(sentence.contains("3 of its chunk files (50) are absent and read as its fill value, 0"), "{sentence}");
    let many = Absent { asked: 10, files: 1000, ..absent };
    assert!(many.to_string().contains("(10 looked at, of 1000)"));
    Ok(())
}

#[test]
fn an_array_without_rows_misses_no_chunk() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let metadata = v3("float32", &[0, 4], &[4, 2], None, &codecs(&["zstd"]));
    fs::write(folder.path().join("zarr.json"), metadata.to_string())?;
    let array = open(folder.path())?;
    assert_eq!((array.absent()?, array.stored_bytes()?), (None, 0));
    assert!(array.fingerprint()?["files"].as_array().is_some_and(Vec::is_empty));
    Ok(())
}
