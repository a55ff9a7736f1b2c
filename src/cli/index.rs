//! What building an index did, and what an index is like: sizes of its lists, and how evenly rows are spread over them.

use std::path::Path;

use serde_json::{Value, json};

use super::text;
use crate::job::request::IndexOutcome;
use crate::store::index::Index;
use crate::units::ByteCount;

/// Sizes of lists.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Balance {
    /// The smallest.
    pub least: u64,
    /// Half of the lists are smaller.
    pub median: u64,
    /// The largest.
    pub most: u64,
    /// Rows of all of them.
    pub rows: u64,
    /// How many.
    pub lists: u64,
}

impl Balance {
    /// Of lists with so many rows each.
    pub fn of(rows: &[u64]) -> Self {
        let mut sorted = rows.to_vec();
        sorted.sort_unstable();
        let at = |place: usize| sorted.get(place).copied().unwrap_or(0);
        Self {
            least: at(0),
            median: at(sorted.len() / 2),
            most: at(sorted.len().saturating_sub(1)),
            rows: sorted.iter().sum(),
            lists: u64::try_from(sorted.len()).unwrap_or(u64::MAX),
        }
    }

    /// Rows of a list on average.
    fn mean(&self) -> f64 {
        self.rows as f64 / self.lists.max(1) as f64
    }

    /// The share of all rows that is in the largest list.
    fn largest_share(&self) -> f64 {
        self.most as f64 / self.rows.max(1) as f64
    }

    fn json(&self) -> Value {
        json!({
            "least": self.least,
            "median": self.median,
            "most": self.most,
            "mean": self.mean(),
            "largest_share": self.largest_share(),
        })
    }

    fn lines(&self) -> Vec<Vec<String>> {
        let sizes = format!(
            "{} to {} cells, half of them below {}",
            text::count(self.least),
            text::count(self.most),
            text::count(self.median)
        );
        let largest = format!(
            "{:.1} times the mean, {} of all cells",
            self.most as f64 / self.mean().max(f64::MIN_POSITIVE),
            text::percent(self.largest_share())
        );
        vec![line("lists", text::count(self.lists)), line("sizes", sizes), line("largest", largest)]
    }
}

fn line(what: &str, value: String) -> Vec<String> {
    vec![what.to_owned(), value]
}

/// What building an index did, for a program.
pub fn json(outcome: &IndexOutcome) -> Value {
    let seconds = &outcome.seconds;
    let rate = if seconds.search > 0.0 { outcome.pairs as f64 / seconds.search / 1e9 } else { 0.0 };
    json!({
        "rows": outcome.rows,
        "dim": outcome.dim,
        "lists": outcome.lists.len(),
        "metric": outcome.metric.name(),
        "encoding": outcome.encoding.name(),
        "balance": Balance::of(&outcome.lists).json(),
        "device": outcome.device,
        "adapter": outcome.adapter,
        "variant": outcome.variant,
        "seconds": {
            "read": seconds.read,
            "search": seconds.search,
            "map": seconds.map,
            "write": seconds.write,
            "total": seconds.total,
        },
        "gpairs_per_second": rate,
        "bytes_read": outcome.bytes_read,
        "bytes_written": outcome.bytes_written,
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "out": outcome.out.display().to_string(),
    })
}

/// What building an index did, for a person.
pub fn page(outcome: &IndexOutcome) -> String {
    let seconds = &outcome.seconds;
    let mut rows = Balance::of(&outcome.lists).lines();
    rows.push(line("kept as", outcome.encoding.name().to_owned()));
    let parts = [("read", seconds.read), ("search", seconds.search), ("write", seconds.write)];
    let parts = parts.map(|(name, s)| format!("{name} {}", text::duration(s))).join(", ");
    rows.push(line("time", format!("{} ({parts}; these overlap)", text::duration(seconds.total))));
    if outcome.pairs > 0 && seconds.search > 0.0 {
        rows.push(line("speed", text::pair_rate(outcome.pairs as f64 / seconds.search)));
    }
    let (read, written) = (ByteCount(outcome.bytes_read), ByteCount(outcome.bytes_written));
    rows.push(line("files", format!("{read} read, {written} written")));
    if let Some(peak) = outcome.peak_memory_bytes {
        rows.push(line("memory", format!("{} at most", ByteCount(peak))));
    }
    format!(
        "Indexed {} of {} dimensions by {} distance (on the {}).\n{}\nWrote {}\n",
        text::counted(outcome.rows, "cell"),
        outcome.dim,
        outcome.metric,
        outcome.device.to_uppercase(),
        text::table(&[], &rows, &[]),
        outcome.out.display()
    )
}

/// What an index is like, for a program.
pub fn info_json(store: &Path, index: &Index) -> Value {
    json!({
        "store": store.display().to_string(),
        "kind": "index",
        "rows": index.rows(),
        "dim": index.dim(),
        "lists": index.lists(),
        "metric": index.metric().name(),
        "encoding": index.encoding().name(),
        "balance": Balance::of(&index.list_rows()).json(),
        "stored_bytes": index.stored_bytes(),
        "manifest": index.manifest(),
    })
}

/// What an index is like, for a person.
pub fn info_page(store: &Path, index: &Index) -> String {
    let mut rows = vec![
        line("cells", text::count(index.rows())),
        line("dimensions", text::count(u64::try_from(index.dim()).unwrap_or(u64::MAX))),
        line("metric", index.metric().name().to_owned()),
    ];
    rows.extend(Balance::of(&index.list_rows()).lines());
    let size = format!("{}, {} on disk", index.encoding().name(), ByteCount(index.stored_bytes()));
    rows.push(line("kept as", size));
    format!("{}: an index\n{}", store.display(), text::table(&[], &rows, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balance_is_of_all_lists() {
        let balance = Balance::of(&[4, 1, 7, 4]);
        assert_eq!(balance, Balance { least: 1, median: 4, most: 7, rows: 16, lists: 4 });
        assert_eq!(balance.json()["largest_share"], 7.0 / 16.0);
        assert!(balance.lines()[2][1].starts_with("1.8 times the mean"), "{:?}", balance.lines());
        assert_eq!(Balance::of(&[]).mean(), 0.0);
    }
}
