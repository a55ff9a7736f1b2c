//! How long files, functions and examples may be, and where the exceptions are listed.

use crate::source::Source;

pub const FILE_LINES: usize = 400;
pub const FUNCTION_LINES: usize = 60;
pub const EXAMPLE_LINES: usize = 60;

/// The heading in ARCHITECTURE.md under which longer files stand, a line each: "- `path`: reason".
pub const EXCEPTIONS: &str = "## Longer files";

/// Files over the limit that are not listed with a reason, and entries of the list that are no longer needed.
pub fn check_files(sources: &[Source], architecture: &str) -> Vec<String> {
    let listed = exceptions(architecture);
    let mut wrong = Vec::new();
    for source in sources {
        let lines = source.text.lines().count();
        let excused = listed.iter().any(|(path, reason)| *path == source.path && !reason.is_empty());
        if lines > FILE_LINES && !excused {
            wrong.push(format!(
                "{}: {lines} lines, more than {FILE_LINES}; split it, or give a reason under \"{EXCEPTIONS}\" in ARCHITECTURE.md",
                source.path
            ));
        }
        if lines <= FILE_LINES && excused {
            wrong.push(format!("{}: {lines} lines need no exception in ARCHITECTURE.md", source.path));
        }
    }
    let gone = listed.iter().filter(|(path, _)| sources.iter().all(|source| source.path != *path));
    wrong.extend(gone.map(|(path, _)| format!("{path}: is excused in ARCHITECTURE.md and is not there")));
    wrong
}

fn exceptions(architecture: &str) -> Vec<(&str, &str)> {
    let section = architecture.split(EXCEPTIONS).nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    section
        .lines()
        .filter_map(|line| line.strip_prefix("- `")?.split_once('`'))
        .map(|(path, reason)| (path, reason.trim_start_matches(':').trim()))
        .collect()
}

pub fn check_functions(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|source| source.path.starts_with("src/")) {
        for function in source.functions().iter().filter(|function| function.lines > FUNCTION_LINES) {
            wrong.push(format!(
                "{}:{}: `{}` has {} lines, more than {FUNCTION_LINES}",
                source.path, function.line, function.name, function.lines
            ));
        }
    }
    wrong
}

pub fn check_examples(sources: &[Source]) -> Vec<String> {
    let examples = sources.iter().filter(|source| source.path.starts_with("examples/") && source.is_rust());
    let long = examples.filter(|source| source.text.lines().count() > EXAMPLE_LINES);
    long.map(|source| format!("{}: more than {EXAMPLE_LINES} lines", source.path)).collect()
}
