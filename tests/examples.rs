//! Every example runs without arguments and ends well; each asserts what it shows.

// A folder that cannot be read ends its test.
#![allow(clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Cargo puts examples beside the folder of this test's own program.
fn built(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the path of this test");
    let folder = own.ancestors().nth(2).expect("target/PROFILE").join("examples");
    folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

fn names() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let entries = std::fs::read_dir(folder).expect("examples/").map(|entry| entry.expect("an entry").path());
    let rust = entries.filter(|path| path.extension().is_some_and(|ending| ending == "rs"));
    let mut names: Vec<String> = rust.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    names
}

#[test]
fn every_example_runs_and_asserts() {
    let names = names();
    assert!(names.len() >= 4, "only {names:?} were found");
    for name in names {
        let program = built(&name);
        assert!(program.is_file(), "{name} is not built: run all of `cargo test`, or `cargo test --examples` first");
        let output = Command::new(&program)
            .env("ATLASKNN_CACHE_DIR", env!("CARGO_TARGET_TMPDIR"))
            .output()
            .expect("the example starts");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {}\n{told}", output.status);
        assert!(!output.stdout.is_empty(), "{name} shows nothing");
        let text = std::fs::read_to_string(format!("{}/examples/{name}.rs", env!("CARGO_MANIFEST_DIR")));
        assert!(text.expect("its source").contains("assert"), "{name} asserts nothing");
    }
}
