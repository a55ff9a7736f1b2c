//! What may not stay in the project, tests that claim nothing, shaders without a twin, and the map of the project.

use std::collections::BTreeSet;

use crate::source::{Function, Source, has_word, is_rust, words};

/// Left open, or left from looking into something. In halves, so that this file has none of them.
const LEFT_OPEN: [(&str, &str); 7] = [
    ("TO", "DO"),
    ("FIX", "ME"),
    ("to", "do!"),
    ("unimplem", "ented!"),
    ("db", "g!"),
    ("#[ig", "nore"),
    ("thread::sle", "ep"),
];

/// Folders of one machine.
const HOMES: [(&str, &str); 3] = [("/ho", "me/"), ("/ro", "ot/"), ("/Us", "ers/")];

pub fn check_left_open(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        for (line, number) in source.text.lines().zip(1..) {
            for (a, b) in LEFT_OPEN {
                if has_word(line, &format!("{a}{b}")) {
                    wrong.push(format!("{}:{number}: `{a}{b}` is left open", source.path));
                }
            }
            for (a, b) in HOMES {
                if line.contains(&format!("{a}{b}")) {
                    wrong.push(format!("{}:{number}: a path of one machine", source.path));
                }
            }
        }
    }
    wrong
}

/// What makes a test a claim, besides calling a function that makes one.
const CLAIMS: [&str; 4] = ["assert", "panic!", "unwrap_err", "expect_err"];

/// Tests without a claim: neither in their body nor in a function of the project's tests that they call.
pub fn check_claims(sources: &[Source]) -> Vec<String> {
    let functions: Vec<(&Source, Function<'_>)> = sources
        .iter()
        .filter(|source| source.is_rust())
        .flat_map(|source| source.functions().into_iter().map(move |function| (source, function)))
        .collect();
    let claiming = claiming(&functions);
    functions
        .iter()
        .filter(|(_, function)| function.is_test && !function.should_panic && !claims(function.body, &claiming))
        .map(|(source, function)| format!("{}:{}: `{}` asserts nothing", source.path, function.line, function.name))
        .collect()
}

/// Names of the functions for tests that make a claim themselves or through one another.
fn claiming<'a>(functions: &[(&'a Source, Function<'a>)]) -> BTreeSet<&'a str> {
    let for_tests = |source: &Source, function: &Function<'_>| {
        let place = ["tests/", "src/oracle/", "src/store/conformance", "src/engine/conformance"];
        let line = source.shipped.lines().nth(function.line - 1).unwrap_or_default();
        place.iter().any(|place| source.path.starts_with(place)) || line.trim().is_empty()
    };
    let candidates: Vec<&(&Source, Function<'_>)> =
        functions.iter().filter(|(source, function)| for_tests(source, function) && !function.is_test).collect();
    let mut known = BTreeSet::new();
    loop {
        let before = known.len();
        let found: Vec<&str> = candidates.iter().filter(|(_, f)| claims(f.body, &known)).map(|(_, f)| f.name).collect();
        known.extend(found);
        if known.len() == before {
            return known;
        }
    }
}

fn claims(body: &str, claiming: &BTreeSet<&str>) -> bool {
    let calls = |name: &str| words(body, name).any(|at| body[at + name.len()..].trim_start().starts_with(['(', ':']));
    CLAIMS.iter().any(|claim| body.contains(claim)) || claiming.iter().any(|name| calls(name))
}

/// Shaders that nothing checks or nobody finds. `table` is the text of shaders/README.md.
pub fn check_shaders(sources: &[Source], table: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        let Some(name) = source.path.strip_prefix("shaders/").and_then(|file| file.strip_suffix(".wgsl")) else {
            continue;
        };
        let twin = format!("src/oracle/{name}.rs");
        if sources.iter().all(|source| source.path != twin) {
            wrong.push(format!("{}: has no twin {twin}", source.path));
        }
        if !table.contains(&format!("{name}.wgsl")) {
            wrong.push(format!("{}: is not in the table of shaders/README.md", source.path));
        }
    }
    wrong
}

/// Files of `src` that the map in ARCHITECTURE.md leaves out, and files it names that are not there.
pub fn check_map(sources: &[Source], architecture: &str) -> Vec<String> {
    let map = architecture.split("## Map").nth(1).unwrap_or_default().split("\n## ").next().unwrap_or_default();
    let named: BTreeSet<&str> = map.split('`').skip(1).step_by(2).filter(|name| is_rust(name)).collect();
    let beside = |path: &str| path.ends_with("tests.rs");
    let there: BTreeSet<&str> = sources.iter().filter_map(|source| source.path.strip_prefix("src/")).collect();
    let missing = there.iter().filter(|path| !named.contains(**path) && !beside(path));
    let mut wrong: Vec<String> =
        missing.map(|path| format!("src/{path}: has no line in the map of ARCHITECTURE.md")).collect();
    let gone = named.iter().filter(|path| path.contains('/') && !there.contains(**path));
    wrong.extend(gone.map(|path| format!("src/{path}: is in the map of ARCHITECTURE.md and is not there")));
    wrong
}
