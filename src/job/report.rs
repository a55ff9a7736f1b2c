//! Plans as people and programs read them.

use serde_json::{Value, json};

use super::explain::Explained;
use super::index::Planned as PlannedIndex;
use super::manifest::EngineRecord;
use super::request::PlanReport;
use super::run::Run;
use crate::plan::MemoryTable;
use crate::plan::index::IndexPlan;
use crate::plan::mapping::{MappingInput, MappingPlan};
use crate::plan::search::{Order, SearchPlan};
use crate::units::ByteCount;

/// What is searched and mapped, for the first lines.
pub struct Subject {
    /// Names of the query's and the reference's rows.
    pub names: (String, String),
    /// Their numbers of rows.
    pub rows: (u64, u64),
    /// Dimensions.
    pub dim: usize,
    /// Neighbours per query.
    pub k: usize,
    /// The metric's name.
    pub metric: &'static str,
    /// Which pairs are compared.
    pub explained: Explained,
    /// What searches.
    pub engine: EngineRecord,
}

/// The plan of a search, and of a mapping behind it.
#[must_use]
pub fn report(
    subject: Option<&Subject>,
    search: Option<&SearchPlan>,
    mapping: Option<(&MappingInput, &MappingPlan)>,
    run: &Run<'_>,
) -> PlanReport {
    let mut lines = Vec::new();
    let mut add = |what: &str, value: String| lines.push((what.to_owned(), value));
    if let Some(subject) = subject {
        add("query", format!("{} ({} rows)", subject.names.0, grouped(subject.rows.0)));
        add("reference", format!("{} ({} rows)", subject.names.1, grouped(subject.rows.1)));
        let Subject { dim, k, metric, explained, .. } = subject;
        add("search", format!("{dim} dimensions, k = {k}, {metric}, {}", explained.method));
        explained.lines.iter().for_each(|(what, value)| add(what, value.clone()));
    }
    add("engine", engine(subject, run));
    if let Some(plan) = search {
        search_lines(plan, &mut add);
    }
    let building = subject.and_then(|subject| subject.explained.building.as_ref());
    let written = search.map_or(0, |plan| plan.bytes_written)
        + mapping.map_or(0, |(_, plan)| plan.bytes_written)
        + building.map_or(0, |plan| plan.bytes_written.0 + plan.bytes_written.1);
    if let Some((_, plan)) = mapping {
        add("mapping reads", format!("neighbours {}", ByteCount(plan.bytes_read)));
    }
    add("writes", format!("about {}", ByteCount(written)));
    let samples = subject.and_then(|subject| subject.explained.json["samples_seconds"].as_f64()).unwrap_or(0.0);
    let seconds = building.map_or(0.0, |plan| plan.seconds)
        + samples
        + search.map_or(0.0, |plan| plan.seconds)
        + mapping.map_or(0.0, |(_, plan)| plan.seconds);
    add("expected time", duration(seconds));
    let sample = subject.and_then(|subject| subject.explained.sample.as_ref());
    let mut stages = vec![("index", building.map(IndexPlan::memory))];
    stages.push(("search", search.map(|plan| plan.memory.clone())));
    stages.push(("mapping", mapping.map(|(_, plan)| plan.memory.clone())));
    stages.retain(|(_, table)| table.is_some());
    if stages.len() > 1 {
        add("memory by stage", by_stage(stages.iter().filter_map(|(stage, table)| Some((*stage, table.as_ref()?)))));
    }
    // The stages run one after the other: the one that holds most is what counts.
    let tables = stages.into_iter().filter_map(|(_, table)| table).chain(sample.map(|plan| plan.memory.clone()));
    let memory = tables.max_by_key(MemoryTable::total).unwrap_or_default();
    add(
        "memory at most",
        format!("{} of {} (and up to 128 MiB of code and runtime)", ByteCount(memory.total()), run.budget),
    );
    let device = search.and_then(|plan| plan.device.as_ref());
    if let Some(device) = device {
        add("device memory at most", format!("{} of {}", ByteCount(device.memory.total()), device.budget));
    }
    PlanReport {
        lines,
        memory: memory.0.clone(),
        budget: run.budget,
        device: device.map(|device| (device.memory.0.clone(), device.budget)),
        json: json(subject, search, mapping, run, (written, memory.total(), seconds)),
    }
}

/// How a search goes through both sides.
fn search_lines(plan: &SearchPlan, add: &mut dyn FnMut(&str, String)) {
    add("order", order(plan));
    add("query blocks", format!("{} of up to {} rows", grouped(plan.blocks), grouped(plan.block_rows)));
    let partitions = format!("{} of up to {} rows", grouped(plan.partitions), grouped(plan.partition_rows));
    add("reference partitions", partitions);
    add("pairs", pairs(plan.pairs));
    let (queries, references) = plan.bytes_read;
    add("reads", format!("query {}, reference {}", ByteCount(queries), ByteCount(references)));
}

/// What each stage holds, one after the other.
fn by_stage<'t>(stages: impl Iterator<Item = (&'t str, &'t MemoryTable)>) -> String {
    let stages = stages.map(|(stage, table)| format!("{stage} {}", ByteCount(table.total())));
    stages.collect::<Vec<_>>().join(", then ")
}

/// What searches.
fn engine(subject: Option<&Subject>, run: &Run<'_>) -> String {
    match subject.map(|subject| &subject.engine).filter(|engine| engine.kind() == "gpu") {
        Some(engine) => format!("gpu: {}, variant {}", engine.in_words(), engine.variant),
        None => format!("cpu, {} threads", run.threads),
    }
}

/// The plan of an index.
#[must_use]
pub fn index(planned: &PlannedIndex<'_>, run: &Run<'_>) -> PlanReport {
    let (plan, engine) = (&planned.plan, &planned.opened.record);
    let (rows, dim) = (planned.layout.rows, planned.dim());
    let mut lines = Vec::new();
    let mut add = |what: &str, value: String| lines.push((what.to_owned(), value));
    add("reference", format!("{} ({} rows)", planned.indexed.source.name(), grouped(rows)));
    let (metric, encoding) = (planned.request.metric, planned.request.encoding.name());
    add("index", format!("{dim} dimensions, {metric}, {} lists, {encoding}", grouped(planned.lists)));
    let cpu = engine.kind() == "cpu";
    let named = || format!("gpu: {}, variant {}", engine.in_words(), engine.variant);
    add("engine", if cpu { format!("cpu, {} threads", run.threads) } else { named() });
    add("sample", format!("{} rows", grouped(plan.sample_rows)));
    add("blocks", format!("up to {} rows", grouped(plan.block_rows)));
    add("pairs", pairs(plan.pairs));
    let bytes = |(reference, aside): (u64, u64)| (ByteCount(reference), ByteCount(aside));
    let ((reference, aside), (put, index)) = (bytes(plan.bytes_read), bytes(plan.bytes_written));
    add("reads", format!("reference {reference}, rows put aside {aside}"));
    add("writes", format!("rows put aside {put}, then index {index}"));
    add("expected time", duration(plan.seconds));
    add("memory by stage", by_stage(plan.stages.iter().map(|(stage, table)| (*stage, table))));
    let memory = plan.memory();
    let most = ByteCount(memory.total());
    add("memory at most", format!("{most} of {} (and up to 128 MiB of code and runtime)", run.budget));
    let table = |memory: &MemoryTable| {
        Value::Object(memory.0.iter().map(|(what, bytes)| (what.clone(), json!(bytes))).collect())
    };
    let json = json!({
        "rows": rows,
        "dim": dim,
        "lists": planned.lists,
        "metric": metric.name(),
        "encoding": encoding,
        "device": engine.kind(),
        "adapter": engine.adapter,
        "variant": engine.variant,
        "threads": run.threads,
        "host_memory_bytes": run.budget.0,
        "memory_bytes": memory.total(),
        "memory": plan.stages.iter().map(|(stage, memory)| json!({ *stage: table(memory) })).collect::<Vec<_>>(),
        "sample_rows": plan.sample_rows,
        "block_rows": plan.block_rows,
        "pairs": plan.pairs,
        "bytes_read": { "reference": plan.bytes_read.0, "put_aside": plan.bytes_read.1 },
        "bytes_written": { "put_aside": plan.bytes_written.0, "index": plan.bytes_written.1 },
        "seconds": plan.seconds,
    });
    let device = plan.device.as_ref().map(|device| (device.memory.0.clone(), device.budget));
    PlanReport { lines, memory: memory.0.clone(), budget: run.budget, device, json }
}

fn order(plan: &SearchPlan) -> String {
    match plan.order {
        Order::ReferenceStays => "the reference stays in memory, query blocks stream past it".to_owned(),
        Order::QueriesStay if plan.blocks == 1 => {
            "the query stays in memory, the reference streams past it once".to_owned()
        }
        Order::QueriesStay => {
            format!("a query block stays in memory, the reference streams past it; {} times in all", plan.blocks)
        }
    }
}

/// `1.2 billion`.
pub fn pairs(n: f64) -> String {
    match n {
        n if n >= 1e12 => format!("{:.1} trillion", n / 1e12),
        n if n >= 1e9 => format!("{:.1} billion", n / 1e9),
        n if n >= 1e6 => format!("{:.1} million", n / 1e6),
        n => format!("{n:.0}"),
    }
}

fn json(
    subject: Option<&Subject>,
    search: Option<&SearchPlan>,
    mapping: Option<(&MappingInput, &MappingPlan)>,
    run: &Run<'_>,
    (written, memory_bytes, seconds): (u64, u64, f64),
) -> Value {
    let table = |memory: &MemoryTable| {
        Value::Object(memory.0.iter().map(|(what, bytes)| (what.clone(), json!(bytes))).collect())
    };
    let search_json = search.map(|plan| {
        json!({
            "order": if plan.order == Order::ReferenceStays { "reference_stays" } else { "queries_stay" },
            "block_rows": plan.block_rows,
            "blocks": plan.blocks,
            "partition_rows": plan.partition_rows,
            "partitions": plan.partitions,
            "pairs": plan.pairs,
            "bytes_read": { "query": plan.bytes_read.0, "reference": plan.bytes_read.1 },
            "memory": table(&plan.memory),
            "device_memory": plan.device.as_ref().map(|device| table(&device.memory)),
            "device_memory_bytes": plan.device.as_ref().map(|device| device.budget.0),
            "seconds": plan.seconds,
        })
    });
    let mapping_json = mapping.map(|(_, plan)| {
        json!({
            "pieces_at_once": plan.pieces,
            "bytes_read": plan.bytes_read,
            "memory": table(&plan.memory),
            "seconds": plan.seconds,
        })
    });
    json!({
        "rows": subject.map(|subject| subject.rows.0),
        "reference_rows": subject.map(|subject| subject.rows.1),
        "dim": subject.map(|subject| subject.dim),
        "k": subject.map(|subject| subject.k),
        "metric": subject.map(|subject| subject.metric),
        "method": subject.map_or("exact", |subject| subject.explained.method),
        "index": subject.map(|subject| &subject.explained.json),
        "device": subject.map_or("cpu", |subject| subject.engine.kind()),
        "adapter": subject.map(|subject| &subject.engine.adapter),
        "variant": subject.map(|subject| &subject.engine.variant),
        "threads": run.threads,
        "host_memory_bytes": run.budget.0,
        "memory_bytes": memory_bytes,
        "search": search_json,
        "mapping": mapping_json,
        "bytes_written": written,
        "seconds": seconds,
    })
}

/// 1234567 as 1,234,567.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `about 31 s`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "under a second".to_owned(),
        s if s < 120.0 => format!("about {s:.0} s"),
        s if s < 7_200.0 => format!("about {:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("about {:.0} h", s / 3_600.0),
        s => format!("about {:.0} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_read_well() {
        assert_eq!([grouped(0), grouped(999), grouped(1_000), grouped(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        for (seconds, text) in
            [(0.2, "under a second"), (31.0, "about 31 s"), (600.0, "about 10 min"), (1e6, "about 12 days")]
        {
            assert_eq!(duration(seconds), text);
        }
    }
}
