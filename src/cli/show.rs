//! Outcomes, plans and checks as text for people and as JSON for programs. Returns strings, prints nothing.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::text;
use crate::job::request::{MappingRequest, Outcome, PlanReport, Verification};
use crate::units::ByteCount;

/// One line of JSON.
pub fn line(value: &Value) -> String {
    format!("{value}\n")
}

/// What a run did, under the promised names.
pub fn outcome_json(outcome: &Outcome) -> Value {
    json!({
        "rows": outcome.rows,
        "k": outcome.k,
        "method": outcome.method,
        "device": outcome.device,
        "adapter": outcome.adapter,
        "variant": outcome.variant,
        "seconds": {
            "read": outcome.seconds.read,
            "search": outcome.seconds.search,
            "map": outcome.seconds.map,
            "write": outcome.seconds.write,
            "total": outcome.seconds.total,
        },
        "gpairs_per_second": pairs_per_second(outcome) / 1e9,
        "bytes_read": outcome.bytes_read,
        "bytes_written": outcome.bytes_written,
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "recall": outcome.recall,
        "recall_interval": outcome.recall_interval.map(|(low, high)| [low, high]),
        "share_of_pairs": outcome.share_of_pairs,
        "out": outcome.out.display().to_string(),
    })
}

/// 0 where nothing was searched.
fn pairs_per_second(outcome: &Outcome) -> f64 {
    if outcome.seconds.search > 0.0 { outcome.pairs as f64 / outcome.seconds.search } else { 0.0 }
}

/// What a run was, for the first line of its summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Neighbours only.
    Search,
    /// Neighbours and transfer.
    Map,
    /// Transfer only.
    Transfer,
}

/// What a run did and what it wrote.
pub fn outcome(kind: Kind, outcome: &Outcome, mapping: Option<&MappingRequest>) -> String {
    let mut page = headline(kind, outcome);
    page.push_str(&text::table(&[], &measures(outcome), &[]));
    let _ = writeln!(page, "\nWrote {}", outcome.out.display());
    page.push_str(&text::table(&[], &written(mapping), &[]));
    page
}

fn headline(kind: Kind, outcome: &Outcome) -> String {
    let (queries, references) = (text::counted(outcome.rows, "cell"), text::count(outcome.reference_rows));
    let how = format!("{}, on the {}", outcome.method, outcome.device.to_uppercase());
    let neighbours = text::counted(outcome.k, "neighbour");
    let mut line = match kind {
        Kind::Search => format!("Found {neighbours} of each of {queries} among {references} ({how})."),
        Kind::Map => format!("Mapped {queries} onto {references}, by {neighbours} each ({how})."),
        Kind::Transfer => format!("Transferred from {references} to {queries}, by {neighbours} each."),
    };
    if let Some(recall) = outcome.recall {
        let interval = outcome.recall_interval.map_or_else(String::new, |(low, high)| {
            format!(" (95 % interval {} to {})", text::percent_of_a_recall(low), text::percent_of_a_recall(high))
        });
        let recall = text::percent_of_a_recall(recall);
        let _ = write!(line, "\n{recall} of the true neighbours were found in a sample{interval}.");
    }
    line + "\n"
}

fn measures(outcome: &Outcome) -> Vec<Vec<String>> {
    let seconds = &outcome.seconds;
    let parts: Vec<String> =
        [("read", seconds.read), ("search", seconds.search), ("map", seconds.map), ("write", seconds.write)]
            .into_iter()
            .filter(|(_, s)| *s > 0.0)
            .map(|(name, s)| format!("{name} {}", text::duration(s)))
            .collect();
    let stages = if parts.is_empty() { String::new() } else { format!(" ({}; these overlap)", parts.join(", ")) };
    let mut rows = vec![("time", format!("{}{stages}", text::duration(seconds.total)))];
    if outcome.pairs > 0 && seconds.search > 0.0 {
        rows.push(("speed", text::pair_rate(pairs_per_second(outcome))));
        rows.extend(outcome.share_of_pairs.map(|share| ("compared", format!("{} of all pairs", text::percent(share)))));
    }
    let (read, written) = (ByteCount(outcome.bytes_read), ByteCount(outcome.bytes_written));
    rows.push(("files", format!("{read} read, {written} written")));
    if let Some(peak) = outcome.peak_memory_bytes {
        rows.push(("memory", format!("{} at most", ByteCount(peak))));
    }
    let (computed, reused) = outcome.units;
    if reused > 0 {
        rows.push((
            "resumed",
            format!("{} reused, {} computed now", text::counted(reused, "unit"), text::count(computed)),
        ));
    }
    rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect()
}

/// The arrays of the output by their group, as the layout of the output names them.
fn written(mapping: Option<&MappingRequest>) -> Vec<Vec<String>> {
    let mut obs = Vec::new();
    let mut obsm = Vec::new();
    let mut var = Vec::new();
    let mut varm = Vec::new();
    let mut rows: Vec<Vec<String>> = Vec::new();
    if let Some(mapping) = mapping {
        for label in &mapping.labels {
            obs.extend([format!("{label}_pred"), format!("{label}_conf")]);
            obsm.extend(mapping.probabilities.then(|| format!("{label}_probabilities")));
        }
        obs.extend(mapping.values.iter().map(|key| format!("{key}_pred")));
        obsm.extend(mapping.obsm.iter().map(|key| format!("{key}_pred")));
        if let Some(presence) = &mapping.presence {
            var.extend(["presence_score".to_owned(), "presence_raw".to_owned()]);
            varm.extend(presence.by.iter().map(|_| "presence_score".to_owned()));
        }
        if mapping.matrix {
            rows.push(vec!["X".to_owned(), "the mapping matrix".to_owned()]);
        }
    }
    let neighbours = ["knn_indices".to_owned(), "knn_distances".to_owned()];
    obsm.splice(0..0, neighbours);
    for (group, names) in [("obs", obs), ("obsm", obsm), ("var", var), ("varm", varm)] {
        if !names.is_empty() {
            rows.push(vec![group.to_owned(), names.join(", ")]);
        }
    }
    rows
}

/// How to look at an output in Python.
pub fn python(out: &Path, mapping: Option<&MappingRequest>) -> String {
    let mut lines =
        vec!["import anndata".to_owned(), format!("mapped = anndata.read_zarr({})", text::python_string(out))];
    lines.push(match mapping {
        Some(m) if !m.labels.is_empty() => format!("mapped.obs[\"{}_pred\"].value_counts()", m.labels[0]),
        Some(m) if !m.values.is_empty() => format!("mapped.obs[\"{}_pred\"].describe()", m.values[0]),
        Some(m) if !m.obsm.is_empty() => format!("mapped.obsm[\"{}_pred\"]", m.obsm[0]),
        _ => "mapped.obsm[\"knn_indices\"]".to_owned(),
    });
    let mut page = "Look at it in Python:\n".to_owned();
    for line in lines {
        let _ = writeln!(page, "  {line}");
    }
    page
}

/// A plan, as a person reads it.
pub fn plan(plan: &PlanReport) -> String {
    let mut page = "Plan\n".to_owned();
    let lines: Vec<_> = plan.lines.iter().map(|(what, value)| vec![what.clone(), value.clone()]).collect();
    page.push_str(&text::table(&[], &lines, &[]));
    page.push_str(&memory("Memory", &plan.memory, plan.budget));
    if let Some((lines, budget)) = &plan.device {
        page.push_str(&memory("Device memory", lines, *budget));
    }
    page
}

/// What is held, and which share of the budget that is.
fn memory(title: &str, lines: &[(String, u64)], budget: ByteCount) -> String {
    let used: u64 = lines.iter().map(|(_, bytes)| bytes).sum();
    let share = |bytes: u64| if budget.0 == 0 { String::new() } else { text::percent(bytes as f64 / budget.0 as f64) };
    let row = |what: &str, bytes: u64| vec![what.to_owned(), ByteCount(bytes).to_string(), share(bytes)];
    let mut rows: Vec<_> = lines.iter().map(|(what, bytes)| row(what, *bytes)).collect();
    rows.push(row("together", used));
    format!("\n{title}, of the {budget} allowed\n{}", text::table(&[], &rows, &[1, 2]))
}

/// A check of an output, under names of its own.
pub fn verification_json(out: &Path, found: &Verification) -> Value {
    json!({
        "out": out.display().to_string(),
        "ok": found.problems.is_empty(),
        "files": found.files,
        "bytes": found.bytes,
        "rows": found.rows,
        "problems": found.problems,
    })
}

/// Problems shown to a person; more than these are counted.
const PROBLEMS_SHOWN: usize = 20;

/// A check of an output, as a person reads it.
pub fn verification(out: &Path, found: &Verification) -> String {
    let seen = format!(
        "{} ({}) and the {} of {}",
        text::counted(found.files, "file"),
        ByteCount(found.bytes),
        if found.is_index { "places" } else { "neighbours" },
        text::counted(found.rows, "cell"),
    );
    if found.problems.is_empty() {
        return format!("{} is sound: checked {seen}.\n", out.display());
    }
    let n = u64::try_from(found.problems.len()).unwrap_or(u64::MAX);
    let mut page = format!("{} has {}; checked {seen}.\n", out.display(), text::counted(n, "problem"));
    for problem in found.problems.iter().take(PROBLEMS_SHOWN) {
        let _ = writeln!(page, "  {problem}");
    }
    if found.problems.len() > PROBLEMS_SHOWN {
        let _ = writeln!(page, "  and {} more; --json lists all", found.problems.len() - PROBLEMS_SHOWN);
    }
    page
}

#[cfg(test)]
#[path = "show_tests.rs"]
mod tests;
