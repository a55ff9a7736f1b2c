//! Numbers as people read them, and paths as a shell takes them.

use std::path::Path;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// `2,000,000`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 cell`, `2,000 cells`.
pub fn counted(n: u64, one: &str) -> String {
    format!("{} {one}{}", count(n), if n == 1 { "" } else { "s" })
}

/// `0.8 s`, `42 s`, `3 min 05 s`, `2 h 10 min`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "unknown".to_owned();
    }
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let whole = std::time::Duration::from_secs_f64(seconds.round().min(1e12)).as_secs();
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// `3.21 Gpair/s`, `850 kpair/s`.
pub fn pair_rate(pairs_per_second: f64) -> String {
    format!("{}pair/s", scaled(pairs_per_second))
}

/// `120 MB/s`.
pub fn byte_rate(bytes_per_second: f64) -> String {
    format!("{} MB/s", three_digits(bytes_per_second / 1e6))
}

fn scaled(value: f64) -> String {
    let (unit, name) = match value {
        v if v >= 1e8 => (1e9, "G"),
        v if v >= 1e6 => (1e6, "M"),
        v if v >= 1e3 => (1e3, "k"),
        _ => (1.0, ""),
    };
    format!("{} {name}", three_digits(value / unit))
}

fn three_digits(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// `97.1 %`.
pub fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1} %", 100.0 * share) } else { "-".to_owned() }
}

/// `99.87 %`: recalls are told apart by their last digits.
pub fn percent_of_a_recall(recall: f64) -> String {
    format!("{:.2} %", 100.0 * recall)
}

/// The path as it is typed in a shell.
pub fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:@%,~\\".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// The path as a string of Python.
pub fn python_string(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('\\', "\\\\").replace('"', "\\\""))
}

/// A table without lines: a header, then rows; `right` are the columns of numbers.
pub fn table(header: &[&str], rows: &[Vec<String>], right: &[usize]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if !header.is_empty() {
        table.set_header(header);
    }
    table.add_rows(rows);
    for (place, column) in table.column_iter_mut().enumerate() {
        column.set_padding((2, 0));
        if right.contains(&place) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = String::new();
    for line in table.to_string().lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_times_rounded_for_people() {
        for (n, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (2_000_000, "2,000,000"), (12_345, "12,345")] {
            assert_eq!(count(n), text);
        }
        for (seconds, text) in [
            (0.04, "0.0 s"),
            (9.96, "10 s"),
            (59.6, "1 min 00 s"),
            (125.0, "2 min 05 s"),
            (7800.0, "2 h 10 min"),
            (f64::INFINITY, "unknown"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
        assert_eq!((counted(1, "cell"), counted(0, "cell")), ("1 cell".to_owned(), "0 cells".to_owned()));
    }

    #[test]
    fn rates_keep_three_digits() {
        for (rate, text) in [
            (3.214e9, "3.21 Gpair/s"),
            (123_456_789.0, "0.12 Gpair/s"),
            (45_600_000.0, "45.6 Mpair/s"),
            (850_400.0, "850 kpair/s"),
            (0.0, "0.00 pair/s"),
        ] {
            assert_eq!(pair_rate(rate), text, "{rate}");
        }
        assert_eq!(byte_rate(120_400_000.0), "120 MB/s");
    }

    #[test]
    fn a_path_with_a_space_can_be_pasted() {
        assert_eq!(shell_word(Path::new("a/b_1.zarr")), "a/b_1.zarr");
        assert_eq!(shell_word(Path::new("my cells.zarr")), "'my cells.zarr'");
        assert_eq!(shell_word(Path::new("it's")), r"'it'\''s'");
        assert_eq!(python_string(Path::new(r"C:\a")), r#""C:\\a""#);
    }

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["bcd".to_owned(), "10".to_owned()]];
        assert_eq!(table(&["x", "n"], &rows, &[1]), "  x     n\n  a     1\n  bcd  10\n");
    }
}
