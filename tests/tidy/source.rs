//! The project's files as the rules see them: code without comments and strings, functions, paths.

use std::path::Path;

/// One file.
pub struct Source {
    /// From the root of the project, with `/`.
    pub path: String,
    pub text: String,
    /// Of Rust: `text` with comments and the insides of strings blanked out, line by line.
    pub code: String,
    /// The same without what is compiled for tests only.
    pub shipped: String,
}

/// A function: its name, where it begins (counted from 1), how many lines it has, its body, and how it is marked.
pub struct Function<'a> {
    pub name: &'a str,
    pub line: usize,
    pub lines: usize,
    pub body: &'a str,
    pub is_test: bool,
    pub should_panic: bool,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let code = if is_rust(path) { blank_comments_and_strings(text) } else { String::new() };
        let tests_only = path.starts_with("tests/") || path.ends_with("_tests.rs") || path.ends_with("/tests.rs");
        let shipped = if tests_only { String::new() } else { blank_tests(&code) };
        Self { path: path.to_owned(), text: text.to_owned(), code, shipped }
    }

    /// The room a file of `src` belongs to: `src/engine/cpu/mod.rs` is in `engine`, `src/topk.rs` in `topk`.
    pub fn room(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        inside.split(['/', '.']).next()
    }

    pub fn is_rust(&self) -> bool {
        is_rust(&self.path)
    }

    /// Where a word stands in `code` or `shipped`, as lines counted from 1. A word ends where letters do.
    pub fn lines_with(code: &str, word: &str) -> Vec<usize> {
        code.lines().zip(1..).filter(|(line, _)| has_word(line, word)).map(|(_, number)| number).collect()
    }

    /// All functions with a body, nested ones too.
    pub fn functions(&self) -> Vec<Function<'_>> {
        let code = &self.code;
        words(code, "fn").filter_map(|at| function_at(code, at)).collect()
    }
}

pub fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "rs")
}

fn is_letter(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

pub fn has_word(text: &str, word: &str) -> bool {
    words(text, word).next().is_some()
}

/// Where `word` begins, with no letter before or after it.
pub fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let open = word.starts_with(is_letter) && text[..at].ends_with(is_letter);
        let close = word.ends_with(is_letter) && text[at + word.len()..].starts_with(is_letter);
        !open && !close
    })
}

fn function_at(code: &str, at: usize) -> Option<Function<'_>> {
    let rest = code[at + 2..].trim_start();
    let name = &rest[..rest.find(|c| !is_letter(c))?];
    let open = at + body_start(&code[at..]).filter(|_| !name.is_empty())?;
    let close = open + closing(&code[open..])?;
    // Attributes stand above: everything since the end of what came before.
    let attributes = &code[code[..at].rfind(['}', ';', '{']).map_or(0, |i| i + 1)..at];
    Some(Function {
        name,
        line: code[..at].matches('\n').count() + 1,
        lines: code[at..=close].lines().count(),
        body: &code[open..=close],
        is_test: attributes.contains("#[test]"),
        should_panic: attributes.contains("#[should_panic"),
    })
}

/// Where the body of a function begins; `None` where a declaration has none. `[u8; 4]` in between ends nothing.
fn body_start(text: &str) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(at),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// Where the bracket that `text` begins with is closed.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// Blanks every item that follows `#[cfg(test)]`: a module with its braces, or one statement.
fn blank_tests(code: &str) -> String {
    const ATTRIBUTE: &str = "#[cfg(test)]";
    let mut out = code.to_owned();
    while let Some(at) = out.find(ATTRIBUTE) {
        let rest = &out[at..];
        let end = match rest.find(['{', ';']) {
            Some(i) if rest[i..].starts_with('{') => i + closing(&rest[i..]).unwrap_or(rest.len() - i - 1),
            Some(i) => i,
            None => rest.len() - 1,
        };
        let blank = blanked(&rest[..=end]);
        out.replace_range(at..=at + end, &blank);
    }
    out
}

fn blanked(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect()
}

/// Comments and the insides of strings and characters become spaces; lines stay where they are.
fn blank_comments_and_strings(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after_letter = out.ends_with(is_letter);
        let skipped = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            'r' | 'b' if !after_letter => raw_string(rest),
            '\'' => character(rest),
            _ => 0,
        };
        let taken = if skipped == 0 { c.len_utf8() } else { skipped };
        if skipped == 0 {
            out.push(c);
        } else {
            out.push_str(&blanked(&rest[..taken]));
        }
        rest = &rest[taken..];
    }
    out
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// `r"…"`, `br#"…"#`; 0 for a name that begins with these letters, and for `b"…"`, whose quote comes next.
fn raw_string(text: &str) -> usize {
    let body = text.trim_start_matches('b');
    let Some(hashes) = body.strip_prefix('r') else { return 0 };
    let fence = &hashes[..hashes.len() - hashes.trim_start_matches('#').len()];
    let Some(inside) = hashes[fence.len()..].strip_prefix('"') else { return 0 };
    let end = format!("\"{fence}");
    let start = text.len() - inside.len();
    inside.find(&end).map_or(text.len(), |i| start + i + end.len())
}

/// `'x'` and `'\n'`; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut inside = text.char_indices().skip(1);
    match (inside.next(), inside.next()) {
        (Some((_, '\\')), _) => text[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').map_or(0, |(i, _)| i + 3),
        (Some(_), Some((end, '\''))) => end + 1,
        _ => 0,
    }
}
