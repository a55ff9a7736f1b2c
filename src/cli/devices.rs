//! What this machine can compute with, and what each backend does today.

use serde_json::{Value, json};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, System};

use super::text;
pub use crate::engine::gpu::adapters;
use crate::engine::gpu::trial::Trial;
use crate::engine::gpu::{Adapter, AdapterKind, DEFAULT_MEMORY, Variant};
use crate::error::EngineError;
use crate::metric::Metric;
use crate::units::ByteCount;

/// The processor and its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processor {
    /// As its maker calls it.
    pub name: String,
    /// Cores, where the system tells.
    pub cores: Option<usize>,
    /// Threads that run at once for this process.
    pub threads: usize,
    /// Wide arithmetic it can do.
    pub features: Vec<&'static str>,
    /// Memory of the machine.
    pub memory: ByteCount,
    /// Of it, free now.
    pub available: ByteCount,
}

/// Asks the system.
pub fn processor() -> Processor {
    let mut system = System::new();
    system.refresh_cpu_list(CpuRefreshKind::nothing());
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let brand = system.cpus().first().map(|cpu| cpu.brand().trim().to_owned()).filter(|name| !name.is_empty());
    Processor {
        name: brand.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        cores: System::physical_core_count(),
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
        features: features(),
        memory: ByteCount(system.total_memory()),
        available: ByteCount(system.available_memory()),
    }
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    [
        ("sse4.2", std::is_x86_feature_detected!("sse4.2")),
        ("avx", std::is_x86_feature_detected!("avx")),
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("fma", std::is_x86_feature_detected!("fma")),
        ("f16c", std::is_x86_feature_detected!("f16c")),
        ("avxvnni", std::is_x86_feature_detected!("avxvnni")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
        ("avx512bw", std::is_x86_feature_detected!("avx512bw")),
        ("avx512vnni", std::is_x86_feature_detected!("avx512vnni")),
    ]
    .into_iter()
    .filter_map(|(name, there)| there.then_some(name))
    .collect()
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<&'static str> {
    if std::arch::is_aarch64_feature_detected!("neon") { vec!["neon"] } else { Vec::new() }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<&'static str> {
    Vec::new()
}

/// An adapter and what trying its variants showed.
pub type Tried = (Adapter, Option<Result<Vec<Trial>, EngineError>>);

/// Tries the variants of the adapters, where they were never tried before.
pub fn tried(adapters: Vec<Adapter>, tell: &dyn Fn(&str)) -> Vec<Tried> {
    let trials = crate::job::variants::table(&adapters, tell);
    adapters.into_iter().zip(trials).collect()
}

/// For a program.
pub fn json(cpu: &Processor, adapters: &[Tried]) -> Value {
    let processor = json!({
        "device": "cpu",
        "adapter": cpu.name,
        "cores": cpu.cores,
        "threads": cpu.threads,
        "features": cpu.features,
        "memory_bytes": cpu.memory.0,
        "available_memory_bytes": cpu.available.0,
    });
    let gpus = adapters.iter().enumerate().map(|(n, (adapter, trials))| {
        json!({
            "device": format!("gpu:{n}"),
            "adapter": adapter.name,
            "backend": adapter.backend,
            "type": kind(adapter.kind),
            "driver": adapter.driver,
            "buffer_bytes_max": adapter.buffer_bytes_max,
            "binding_bytes_max": adapter.binding_bytes_max,
            "workgroup_bytes": adapter.workgroup_bytes,
            "workgroup_invocations": adapter.workgroup_invocations,
            "features": adapter.features,
            "variants": Variant::of(adapter).iter().map(|variant| variant.name).collect::<Vec<_>>(),
            "gpairs_per_second": rates(trials.as_ref()),
            "trial_error": trials.as_ref().and_then(|trials| trials.as_ref().err()).map(ToString::to_string),
            "subgroup_invocations": [adapter.subgroup_invocations.0, adapter.subgroup_invocations.1],
        })
    });
    let backend = || json!({ "built": true, "methods": ["exact"], "metrics": Metric::ALL.map(Metric::name) });
    json!({
        "devices": std::iter::once(processor).chain(gpus).collect::<Vec<_>>(),
        "backends": { "cpu": backend(), "gpu": backend() },
    })
}

/// Gpair/s of each variant that finds what it must.
fn rates(trials: Option<&Result<Vec<Trial>, EngineError>>) -> Value {
    let known = trials.and_then(|trials| trials.as_ref().ok()).into_iter().flatten();
    known.map(|trial| (trial.variant.to_owned(), json!(trial.pairs_per_second.map(|rate| rate / 1e9)))).collect()
}

/// What trying a variant showed, in words.
fn in_words(variant: &Variant, trials: Option<&Result<Vec<Trial>, EngineError>>) -> String {
    let trials = match trials {
        None => return String::new(),
        Some(Err(why)) => return format!("; could not be tried: {why}"),
        Some(Ok(trials)) => trials,
    };
    match trials.iter().find(|trial| trial.variant == variant.name).map(|trial| trial.pairs_per_second) {
        Some(Some(rate)) if rate < 1e9 => format!("; {:.0} Mpair/s here", rate / 1e6),
        Some(Some(rate)) => format!("; {:.0} Gpair/s here", rate / 1e9),
        Some(None) => "; finds wrong neighbours here, or none, and is not used".to_owned(),
        None => String::new(),
    }
}

fn kind(kind: AdapterKind) -> &'static str {
    match kind {
        AdapterKind::Discrete => "discrete",
        AdapterKind::Integrated => "integrated",
        AdapterKind::Virtual => "virtual",
        AdapterKind::Other => "other",
        AdapterKind::Software => "software",
    }
}

/// For a person.
pub fn page(cpu: &Processor, adapters: &[Tried]) -> String {
    let cores = cpu.cores.map_or_else(String::new, |n| format!("{n} cores, "));
    let features = if cpu.features.is_empty() { "none known".to_owned() } else { cpu.features.join(", ") };
    let machine = [
        row(&["processor", &cpu.name]),
        row(&["", &format!("{cores}{} threads", cpu.threads)]),
        row(&["wide arithmetic", &features]),
        row(&["memory", &format!("{}, {} of it free now", cpu.memory, cpu.available)]),
        row(&["used by default", &format!("{} (--host-memory)", ByteCount(cpu.memory.0 / 4))]),
    ];
    let mut backends: Vec<Vec<String>> = Metric::ALL.map(|m| row(&[m.name(), "exact", "exact"])).to_vec();
    backends.push(row(&["ivf", "all metrics", "all metrics"]));
    let graph = if cfg!(feature = "hnsw") { "all but inner_product" } else { "not in this build" };
    backends.push(row(&["hnsw", graph, "-"]));
    format!(
        "This machine\n{}\n{}\nWhat can be searched on what (--device, --metric, --method)\n{}",
        text::table(&[], &machine, &[]),
        gpus(adapters),
        text::table(&["", "cpu", "gpu"], &backends, &[])
    )
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|&c| c.to_owned()).collect()
}

fn gpus(adapters: &[Tried]) -> String {
    if adapters.is_empty() {
        return "Adapters (--device)\n  none: no Vulkan, Metal or DX12 driver was found\n".to_owned();
    }
    let mut rows = Vec::new();
    for (n, (adapter, trials)) in adapters.iter().enumerate() {
        let software = if adapter.is_software() { "; used only where it is asked for by number or name" } else { "" };
        let (buffer, binding) = (ByteCount(adapter.buffer_bytes_max), ByteCount(adapter.binding_bytes_max));
        let workgroup = ByteCount(adapter.workgroup_bytes);
        let optional = if adapter.features.is_empty() { "none".to_owned() } else { adapter.features.join(", ") };
        rows.push(row(&[&format!("gpu:{n}"), &adapter.name]));
        rows.push(row(&["", &format!("{}, {}, {}{software}", adapter.backend, adapter.driver, kind(adapter.kind))]));
        rows.push(row(&["", &format!("buffers up to {buffer}, {binding} of one in a program")]));
        let invocations = adapter.workgroup_invocations;
        rows.push(row(&["", &format!("workgroups of up to {invocations} invocations and {workgroup}")]));
        rows.push(row(&["", &format!("optional features: {optional}")]));
        let variants = Variant::of(adapter);
        let about = |v: &Variant| format!("variant {}: {}{}", v.name, v.about, in_words(v, trials.as_ref()));
        rows.extend(variants.iter().map(|v| row(&["", &about(v)])));
    }
    let memory = format!(
        "  used by default: the fastest variant (50 dimensions, k = 30), and {DEFAULT_MEMORY} of an adapter's memory \
         (--device-memory)\n"
    );
    format!("Adapters (--device, --device-variant)\n{}{memory}", text::table(&[], &rows, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_name_threads_and_memory() {
        let cpu = processor();
        assert!(!cpu.name.is_empty() && cpu.threads > 0 && cpu.memory.0 > 0, "{cpu:?}");
        assert_eq!(json(&cpu, &[])["devices"][0]["threads"], cpu.threads);
    }

    #[test]
    fn the_table_has_all_metrics_on_both_and_says_what_a_graph_is_for() {
        let page = page(&processor(), &[]);
        for metric in Metric::ALL {
            let line = page.lines().find(|l| l.trim_start().starts_with(metric.name())).unwrap_or_default();
            assert_eq!(line.matches("exact").count(), 2, "{metric}: {page}");
        }
        let graph = page.lines().find(|l| l.trim_start().starts_with("hnsw")).unwrap_or_default();
        assert!(page.contains("ivf") && graph.trim_end().ends_with('-'), "{page}");
    }

    #[test]
    fn adapters_are_listed_by_the_words_that_choose_them() {
        let invented = |adapter: &Adapter| {
            let rates = [Some(3e9), None, Some(5e8)];
            let trial = |(v, pairs_per_second): (Variant, Option<f64>)| Trial { variant: v.name, pairs_per_second };
            Variant::of(adapter).into_iter().zip(rates).map(trial).collect::<Vec<_>>()
        };
        let found: Vec<Tried> = adapters().into_iter().map(|a| (a.clone(), Some(Ok(invented(&a))))).collect();
        let (page, json) = (page(&processor(), &found), json(&processor(), &found));
        for (n, (adapter, _)) in found.iter().enumerate() {
            assert!(page.contains(&format!("gpu:{n}")) && page.contains(&adapter.name), "{page}");
            assert!(page.contains("variant portable") && page.contains("; 3 Gpair/s here"), "{page}");
            assert!(page.contains("finds wrong neighbours here, or none"), "{page}");
            assert_eq!(json["devices"][n + 1]["gpairs_per_second"]["portable"], 3.0);
            assert_eq!(json["devices"][n + 1]["device"], format!("gpu:{n}"));
        }
        assert!(gpus(&[]).contains("no Vulkan, Metal or DX12 driver"));
    }
}
