use super::*;

fn folder() -> (tempfile::TempDir, Arc<Folder>) {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(&dir.path().join("out"), &IoCounters::new());
    (dir, folder)
}

#[test]
fn a_file_is_replaced_whole_and_remembered_with_its_checksum() {
    let (_dir, folder) = folder();
    folder.write("a/b", b"first").unwrap();
    let record = folder.write("a/b", b"second").unwrap();
    assert_eq!(folder.read("a/b").unwrap().as_deref(), Some(b"second".as_slice()));
    assert_eq!(folder.list("a").unwrap(), ["b"], "no partial file stays behind");
    assert_eq!(folder.checksum("a/b").unwrap(), Some(record.clone()));
    assert_eq!(folder.take_records(), [record]);
}

#[test]
fn a_flipped_byte_changes_the_checksum() {
    let (_dir, folder) = folder();
    let record = folder.write("x", &[1, 2, 3]).unwrap();
    std::fs::write(folder.root().join("x"), [1, 2, 2]).unwrap();
    assert_ne!(folder.checksum("x").unwrap(), Some(record));
}

#[test]
fn what_is_not_there_is_none() {
    let (_dir, folder) = folder();
    assert_eq!(folder.read("none").unwrap(), None);
    assert_eq!(folder.checksum("none").unwrap(), None);
    assert_eq!(folder.list("none").unwrap(), Vec::<String>::new());
    folder.remove("none").unwrap();
}

#[test]
fn a_part_beyond_the_end_of_a_file_is_an_error() {
    let (_dir, folder) = folder();
    folder.write("x", &[1, 2, 3]).unwrap();
    let key = StoreKey::new("x").unwrap();
    for (range, there) in [
        (ByteRange::Suffix(3), true),
        (ByteRange::Suffix(4), false),
        (ByteRange::FromStart(1, Some(2)), true),
        (ByteRange::FromStart(1, Some(3)), false),
        (ByteRange::FromStart(3, None), true),
        (ByteRange::FromStart(4, None), false),
        (ByteRange::FromStart(u64::MAX, Some(2)), false),
    ] {
        let parts = folder.get_partial_many(&key, Box::new([range].into_iter())).unwrap().unwrap();
        assert_eq!(parts.collect::<Result<Vec<_>, _>>().is_ok(), there, "{range:?}");
    }
}

#[test]
fn a_write_that_fails_says_where() {
    let (dir, _) = folder();
    std::fs::write(dir.path().join("file"), b"").unwrap();
    let folder = Folder::new(&dir.path().join("file"), &IoCounters::new());
    for error in [folder.write("inside", b"x").unwrap_err(), folder.read("inside").unwrap_err()] {
        let message = error.to_string();
        assert!(message.ends_with("file is a file; a folder is needed here; name another path"), "{message}");
    }
}

#[test]
fn a_file_written_in_pieces_is_whole_or_not_there() {
    let (_dir, folder) = folder();
    let written = folder.write_with("a/b", |to| to.write_all(b"one, ").and_then(|()| to.write_all(b"two")));
    written.unwrap();
    assert_eq!(folder.read("a/b").unwrap().as_deref(), Some(b"one, two".as_slice()));
    let failed = folder.write_with("a/b", |to| to.write_all(b"three").and(Err(ErrorKind::StorageFull.into())));
    assert!(matches!(failed, Err(StoreError::DiskFull { .. })));
    assert_eq!(folder.read("a/b").unwrap().as_deref(), Some(b"one, two".as_slice()), "the one before stays");
    assert_eq!(folder.list("a").unwrap(), ["b"]);
    assert_eq!(folder.take_records(), []);
}

#[test]
fn a_path_is_the_same_however_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let real = std::fs::canonicalize(dir.path()).unwrap();
    std::fs::create_dir(real.join("a")).unwrap();
    for written in ["a", "a/.", "a/../a", "./a/"] {
        assert_eq!(real_path(&dir.path().join(written)), real.join("a"), "{written}");
    }
    // What is not there yet is below what is.
    for written in ["new/out", "a/../new/out", "new/./out"] {
        assert_eq!(real_path(&dir.path().join(written)), real.join("new/out"), "{written}");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(real.join("a"), real.join("link")).unwrap();
        assert_eq!(real_path(&dir.path().join("link/out")), real.join("a/out"));
    }
}
