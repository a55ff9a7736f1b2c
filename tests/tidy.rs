//! House rules as tests. Each is run on the project as it stands, and on a snippet that breaks it.
//!
//! The rules themselves are explained in ARCHITECTURE.md (floors, laws) and CONTRIBUTING.md.

// A project that cannot be read ends its test.
#![allow(clippy::expect_used)]

#[path = "tidy/floors.rs"]
mod floors;
#[path = "tidy/sizes.rs"]
mod sizes;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/texts.rs"]
mod texts;

use std::path::Path;

use source::Source;

/// Where the project's own files are, and which of them are read.
const FOLDERS: [&str; 7] = ["src", "shaders", "tests", "benches", "examples", "python", "scripts"];
const ENDINGS: [&str; 3] = ["rs", "wgsl", "py"];
/// Data, and what tools leave behind.
const NOT_OURS: [&str; 4] = ["fixtures", "target", "__pycache__", "data"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_default()
}

fn project() -> Vec<Source> {
    let mut sources = Vec::new();
    for folder in FOLDERS {
        collect(&root().join(folder), &mut sources);
    }
    assert!(sources.len() > 20, "only {} files found: is the walk still right?", sources.len());
    sources
}

fn collect(folder: &Path, sources: &mut Vec<Source>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a folder's entry").path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !NOT_OURS.contains(&name.as_str()) && !name.starts_with('.') {
            collect(&path, sources);
        } else if path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known)) {
            let text = std::fs::read_to_string(&path).expect("a file of the project is text");
            let inside = path.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/");
            sources.push(Source::new(&inside, &text));
        }
    }
}

fn files(files: &[(&str, &str)]) -> Vec<Source> {
    files.iter().map(|(path, text)| Source::new(path, text)).collect()
}

#[track_caller]
fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} against the house rules:\n{}", wrong.len(), wrong.join("\n"));
}

/// The rule finds exactly the files that were made to break it, each once.
#[track_caller]
fn only(wrong: &[String], broken: &[&str]) {
    assert_eq!(wrong.len(), broken.len(), "found {wrong:#?}");
    for (wrong, path) in wrong.iter().zip(broken) {
        assert!(wrong.starts_with(path), "{wrong}, expected one about {path}");
    }
}

#[test]
fn arrows_go_down() {
    none(&floors::check(&project()));
}

#[test]
fn an_arrow_that_goes_up_or_sideways_is_seen() {
    let wrong = floors::check(&files(&[
        ("src/block.rs", "use crate::units::K;\nuse crate::topk::TopK;"),
        ("src/engine/cpu/mod.rs", "use crate::{block::RowBlock, route::{all::All, Router}};"),
        ("src/oracle/tile.rs", "fn f() { crate::engine::open(); }"),
        ("src/plan/search.rs", "use super::super::store::Source;"),
        ("src/store/zarr/rows.rs", "use super::super::super::job::Run;\nuse super::super::Source;"),
        ("src/weights/mod.rs", "use super::transfer;"),
        (
            "src/metric.rs",
            "use crate::error::UnitError;\n// use crate::cli;\n#[cfg(test)]\nmod tests { use crate::job; }",
        ),
        ("src/gadgets/mod.rs", "use crate::error::Error;"),
        ("src/job/run.rs", "use crate::schedule::{Clock, Part};\nuse super::request::Within;\nuse crate::Error;"),
        ("src/cli/run.rs", "use crate::nowhere::Thing;"),
    ]));
    only(
        &wrong,
        &[
            "src/block.rs: `block` on floor 1 sees `topk`",
            "src/engine/cpu/mod.rs: `engine` on floor 4 sees `route`",
            "src/oracle/tile.rs: `oracle` on floor 2 sees `engine`",
            "src/plan/search.rs: `plan` on floor 3 sees `store`",
            "src/store/zarr/rows.rs: `store` on floor 3 sees `job`",
            "src/weights/mod.rs: `weights` on floor 4 sees `transfer`",
            "src/gadgets/mod.rs: room `gadgets` is on no floor",
            "src/cli/run.rs: `crate::nowhere` is no room",
        ],
    );
}

#[test]
fn every_room_is_on_one_floor_and_is_there_or_to_come() {
    let declared = Source::new("src/lib.rs", &read("src/lib.rs"));
    let rooms: Vec<&str> =
        declared.code.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let floors: Vec<&str> = floors::FLOORS.iter().flat_map(|floor| floor.iter().copied()).collect();
    assert!(rooms.iter().all(|room| floors.contains(room)), "{rooms:?} are not all on {floors:?}");
    assert_eq!(floors.iter().collect::<std::collections::BTreeSet<_>>().len(), floors.len(), "a room is on two floors");
}

#[test]
fn reserved_words_stay_in_their_rooms() {
    none(&floors::check_reserved(&project()));
}

#[test]
fn a_reserved_word_elsewhere_is_seen_and_talk_about_it_is_not() {
    let wrong = floors::check_reserved(&files(&[
        ("src/job/run.rs", "/// Never println!\nfn f() { println!(\"x\"); }"),
        ("src/plan/mod.rs", "fn f() { let text = \"eprintln!\"; std::process::exit(1) }"),
        ("src/schedule/mod.rs", "use std::fs::File;\nfn f() { File::open(\"x\"); std::thread::scope(|_| ()); }"),
        (
            "src/route/all.rs",
            "#[derive(Serialize)]\nstruct A;\n#[cfg(test)]\nmod tests { fn f() { std::fs::read(\"x\"); } }",
        ),
        ("src/engine/hnsw.rs", "fn f() { unsafe { g() } }\nfn h() { wgpu::new() }"),
        ("src/engine/gpu/device.rs", "use wgpu::Device;"),
        ("src/cli/show.rs", "fn f() { println!() }"),
        ("src/store/folder.rs", "use std::fs;"),
        ("src/lib.rs", "#![deny(unsafe_code)]"),
    ]));
    let broken = [
        "src/job/run.rs:2: `println!`",
        "src/plan/mod.rs:1: `process::exit`",
        "src/schedule/mod.rs:1: `std::fs`",
        "src/schedule/mod.rs:2: `File::open`",
        "src/route/all.rs:1: `Serialize`",
        "src/engine/hnsw.rs:2: `wgpu`",
        "src/engine/hnsw.rs:1: `unsafe`",
    ];
    only(&wrong, &broken);
}

#[test]
fn files_and_functions_are_short() {
    let project = project();
    none(&sizes::check_files(&project, &read("ARCHITECTURE.md")));
    none(&sizes::check_functions(&project));
    none(&sizes::check_examples(&project));
}

#[test]
fn a_long_file_needs_a_reason_that_is_still_true() {
    let long = "x\n".repeat(sizes::FILE_LINES + 1);
    let tree = files(&[("src/a.rs", &long), ("tests/b.py", &long), ("src/c.rs", "short"), ("src/d.rs", &long)]);
    let listed = "## Longer files\n\n- `src/a.rs`: a reason\n- `src/c.rs`: a reason\n- `src/d.rs`:\n- `src/e.rs`: gone\n\
                  \n## Next\n- `tests/b.py`: another list\n";
    only(
        &sizes::check_files(&tree, listed),
        &["tests/b.py: 401", "src/c.rs: 1", "src/d.rs: 401", "src/e.rs: is excused"],
    );
}

#[test]
fn a_long_function_or_example_is_seen() {
    let long = format!("fn short() {{}}\nfn long(a: [u8; 4]) -> u8 {{\n{}}}\n", "    // }\n".repeat(60));
    let just = format!("trait T {{ fn declared(&self);\nfn just(&self) {{\n{}}} }}\n", "    g('{');\n".repeat(58));
    let tree =
        files(&[("src/a.rs", &long), ("src/b.rs", &just), ("examples/c.rs", &long), ("examples/d.rs", "fn main() {}")]);
    only(&sizes::check_functions(&tree), &["src/a.rs:2: `long` has 62 lines"]);
    only(&sizes::check_examples(&tree), &["examples/c.rs"]);
}

#[test]
fn nothing_is_left_open() {
    none(&texts::check_left_open(&project()));
}

#[test]
fn what_is_left_open_is_seen() {
    let words =
        [("TO", "DO: later"), ("FIX", "ME"), ("to", "do!()"), ("db", "g!(x)"), ("#[ig", "nore]"), ("/ho", "me/me/x")];
    for (a, b) in words {
        only(&texts::check_left_open(&files(&[("src/a.rs", &format!("fn f() {{}}\n// {a}{b}"))])), &["src/a.rs:2"]);
    }
    none(&texts::check_left_open(&files(&[("src/a.rs", "fn mastodons() {}")])));
}

#[test]
fn every_test_claims_something() {
    none(&texts::check_claims(&project()));
}

#[test]
fn a_test_that_claims_nothing_is_seen() {
    let tree = files(&[
        ("tests/a.rs", "#[test]\nfn empty() { run(); }\nfn run() {}"),
        (
            "tests/b.rs",
            "#[test]\nfn direct() { assert_eq!(1, 1); }\n#[test]\nfn through() { check(1); }\nfn check(n: u8) { deeper(n) }\nfn deeper(n: u8) { assert!(n > 0) }\n#[test]\n#[should_panic(expected = \"x\")]\nfn panics() { run() }",
        ),
        (
            "src/c.rs",
            "fn check_input() { assert!(true) }\n#[cfg(test)]\nmod tests {\n#[test]\nfn only_calls_the_library() { check_input(); }\n}",
        ),
        (
            "src/d.rs",
            "#[cfg(test)]\nmod tests {\n// assert\n#[test]\nfn in_a_comment() { let x = \"assert!(true)\"; }\n}",
        ),
    ]);
    only(
        &texts::check_claims(&tree),
        &["tests/a.rs:2: `empty`", "src/c.rs:5: `only_calls_the_library`", "src/d.rs:5: `in_a_comment`"],
    );
}

#[test]
fn every_shader_has_a_twin_and_is_in_the_table() {
    none(&texts::check_shaders(&project(), &read("shaders/README.md")));
}

#[test]
fn a_shader_without_a_twin_or_off_the_table_is_seen() {
    let tree = files(&[("shaders/tile.wgsl", ""), ("shaders/merge.wgsl", ""), ("src/oracle/merge.rs", "")]);
    only(
        &texts::check_shaders(&tree, "| tile.wgsl | ..."),
        &["shaders/tile.wgsl: has no twin", "shaders/merge.wgsl: is not"],
    );
}

#[test]
fn the_map_has_every_file() {
    none(&texts::check_map(&project(), &read("ARCHITECTURE.md")));
}

#[test]
fn a_file_off_the_map_is_seen() {
    let tree = files(&[("src/a.rs", ""), ("src/b/c.rs", ""), ("src/b/c_tests.rs", ""), ("tests/d.rs", "")]);
    let map = "## Words\n`b/c.rs`\n## Map\n- `a.rs`: a.\n- `b/e.rs`, `tests.rs`: gone\n## Next\n`b/c.rs`";
    only(&texts::check_map(&tree, map), &["src/b/c.rs: has no line", "src/b/e.rs: is in the map"]);
}

#[test]
fn code_is_told_from_comments_and_strings() {
    let text = "a // b\nc /* d /* e */ f */ g\n\"h \\\" i\" j r#\"k \" l\"# m 'n' '\\'' 'o b\"p\" '{' q";
    let source = Source::new("src/a.rs", text);
    let left: String = source.code.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(left, "a c g j m 'o b q");
    assert_eq!(source.code.lines().count(), text.lines().count());
}
