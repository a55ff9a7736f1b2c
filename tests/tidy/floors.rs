//! Arrows go down: who may see whom.

use crate::source::{Source, has_word, words};

/// The rooms of each floor, floor 0 first. A room sees the rooms of the floors below its own.
pub const FLOORS: [&[&str]; 8] = [
    &["metric", "units", "error"],
    &["topk", "block", "matrix", "visit"],
    &["oracle"],
    &["plan", "store"],
    &["engine", "route", "weights", "transfer"],
    &["schedule"],
    &["job"],
    &["cli"],
];

/// The roof: declares the rooms and belongs to none.
const ROOF: [&str; 2] = ["lib", "main"];

/// The words of floor 0 are explained with one another: an error names a byte count, parsing one gives an error.
const SEE_EACH_OTHER: usize = 0;

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// What is wrong, a line each.
pub fn check(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        let Some(room) = source.room().filter(|room| !ROOF.contains(room)) else { continue };
        let Some(own) = floor(room) else {
            wrong
                .push(format!("{}: room `{room}` is on no floor; put it into FLOORS and ARCHITECTURE.md", source.path));
            continue;
        };
        for seen in rooms_seen(source) {
            match floor(&seen) {
                Some(other) if seen == room || other < own || (other == own && own == SEE_EACH_OTHER) => {}
                Some(other) => wrong.push(format!(
                    "{}: `{room}` on floor {own} sees `{seen}` on floor {other}; arrows only go down",
                    source.path
                )),
                // Names that the roof re-exports are not rooms: only `Error` is.
                None if seen == "Error" => {}
                None => wrong.push(format!("{}: `crate::{seen}` is no room", source.path)),
            }
        }
    }
    wrong
}

/// Rooms named by the paths of what is shipped, each once.
fn rooms_seen(source: &Source) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    let depth = module_depth(&source.path);
    let mut note = |path: &str| {
        let room = path.split("::").next().unwrap_or_default().trim();
        if !room.is_empty() && room != "self" && room != "*" && !seen.iter().any(|known| known == room) {
            seen.push(room.to_owned());
        }
    };
    for path in paths(&source.shipped, "crate::") {
        note(&path);
    }
    for path in paths(&source.shipped, "super::") {
        let ups = 1 + path.matches("super::").count();
        if ups == depth {
            note(path.trim_start_matches("super::"));
        }
    }
    seen
}

/// How many modules a file is below the crate: `src/topk.rs` 1, `src/store/zarr/mod.rs` 2, `src/store/zarr/rows.rs` 3.
fn module_depth(path: &str) -> usize {
    path.trim_start_matches("src/").trim_end_matches("/mod.rs").matches('/').count() + 1
}

/// What follows each `prefix`, with the branches of `{a, b::c}` as paths of their own.
fn paths(code: &str, prefix: &str) -> Vec<String> {
    let starts = words(code, prefix).filter(|&at| !code[..at].ends_with("super::"));
    starts.flat_map(|at| branches(&code[at + prefix.len()..])).collect()
}

fn branches(text: &str) -> Vec<String> {
    let Some(inside) = text.strip_prefix('{') else {
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
        // `super::{a, b}` below another `super::`.
        return match text[end..].strip_prefix('{') {
            Some(_) if text[..end].trim_end_matches("super::").is_empty() && end > 0 => {
                branches(&text[end..]).into_iter().map(|branch| format!("{}{branch}", &text[..end])).collect()
            }
            _ => vec![text[..end].to_owned()],
        };
    };
    let (mut found, mut depth, mut current) = (Vec::new(), 0_usize, String::new());
    for c in inside.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => found.push(std::mem::take(&mut current)),
            '{' => depth += 1,
            '}' => depth -= 1,
            _ if depth == 0 && !c.is_whitespace() => current.push(c),
            _ => {}
        }
    }
    found.push(current);
    found
}

/// Words that only some rooms may say in what is shipped: (word, who may, why).
pub const RESERVED: [(&str, &[&str], &str); 17] = [
    ("print!", &["src/cli/", "src/main.rs"], "only cli prints"),
    ("println!", &["src/cli/", "src/main.rs"], "only cli prints"),
    ("eprint!", &["src/cli/", "src/main.rs"], "only cli prints"),
    ("eprintln!", &["src/cli/", "src/main.rs"], "only cli prints"),
    ("process::exit", &["src/cli/", "src/main.rs"], "only cli ends the process"),
    ("std::fs", &["src/store/"], "only store opens files"),
    ("File::open", &["src/store/"], "only store opens files"),
    ("File::create", &["src/store/"], "only store opens files"),
    ("OpenOptions", &["src/store/"], "only store opens files"),
    ("zarrs", &["src/store/"], "only store knows zarr"),
    ("Serialize", &["src/job/"], "only job derives serde"),
    ("Deserialize", &["src/job/"], "only job derives serde"),
    ("serde::", &["src/job/"], "only job derives serde"),
    ("thread::spawn", &["src/schedule/"], "only schedule starts threads"),
    ("thread::scope", &["src/schedule/"], "only schedule starts threads"),
    ("wgpu", &["src/engine/gpu/"], "only engine/gpu names wgpu"),
    (
        "unsafe",
        &[
            "src/engine/cpu/simd.rs",
            "src/engine/cpu/simd/loops.rs",
            "src/engine/cpu/simd/registers.rs",
            "src/engine/gpu/passes.rs",
            "src/cli/heap.rs",
            "src/cli/displays.rs",
        ],
        "unsafe code has one file per reason",
    ),
];

/// Who says a reserved word without being allowed to.
pub fn check_reserved(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|source| source.path.starts_with("src/")) {
        for (word, who, why) in RESERVED {
            if who.iter().any(|place| source.path.starts_with(place)) || !has_word(&source.shipped, word) {
                continue;
            }
            for line in Source::lines_with(&source.shipped, word) {
                wrong.push(format!("{}:{line}: `{word}`: {why}", source.path));
            }
        }
    }
    wrong
}
