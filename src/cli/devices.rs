//! What this machine can compute with, and what each backend does today.

use serde_json::{Value, json};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, System};

use super::text;
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
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
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

const NOT_BUILT: &str = "not built yet";

/// For a program.
pub fn json(cpu: &Processor) -> Value {
    json!({
        "devices": [{
            "device": "cpu",
            "adapter": cpu.name,
            "cores": cpu.cores,
            "threads": cpu.threads,
            "features": cpu.features,
            "memory_bytes": cpu.memory.0,
            "available_memory_bytes": cpu.available.0,
        }],
        "backends": {
            "cpu": { "built": true, "methods": ["exact"], "metrics": Metric::ALL.map(Metric::name) },
            "gpu": { "built": false, "methods": [], "metrics": [] },
        },
    })
}

/// For a person.
pub fn page(cpu: &Processor) -> String {
    let cores = cpu.cores.map_or_else(String::new, |n| format!("{n} cores, "));
    let features = if cpu.features.is_empty() { "none known".to_owned() } else { cpu.features.join(", ") };
    let row = |cells: &[&str]| cells.iter().map(|&c| c.to_owned()).collect::<Vec<_>>();
    let machine = [
        row(&["processor", &cpu.name]),
        row(&["", &format!("{cores}{} threads", cpu.threads)]),
        row(&["wide arithmetic", &features]),
        row(&["memory", &format!("{}, {} of it free now", cpu.memory, cpu.available)]),
        row(&["used by default", &format!("{} (--host-memory)", ByteCount(cpu.memory.0 / 4))]),
    ];
    let mut backends: Vec<Vec<String>> = Metric::ALL.map(|m| row(&[m.name(), "exact", NOT_BUILT])).to_vec();
    backends.push(row(&["ivf, hnsw", NOT_BUILT, NOT_BUILT]));
    format!(
        "This machine\n{}\nWhat can be searched on what (--device, --metric, --method)\n{}",
        text::table(&[], &machine, &[]),
        text::table(&["", "cpu", "gpu"], &backends, &[])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_name_threads_and_memory() {
        let cpu = processor();
        assert!(!cpu.name.is_empty() && cpu.threads > 0 && cpu.memory.0 > 0, "{cpu:?}");
        assert_eq!(json(&cpu)["devices"][0]["threads"], cpu.threads);
    }

    #[test]
    fn the_table_has_all_metrics_and_says_what_is_not_built() {
        let page = page(&processor());
        for metric in Metric::ALL {
            let line = page.lines().find(|l| l.trim_start().starts_with(metric.name())).unwrap_or_default();
            assert!(line.contains("exact") && line.ends_with(NOT_BUILT), "{metric}: {page}");
        }
    }
}
