//! What a run leaves beside its arrays so that it can be resumed, checked and explained: manifest and markers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::store::folder::FileRecord;
use crate::weights::stats::DistanceStatistics;

/// The layout of everything below; another number cannot be resumed.
pub const FORMAT: u32 = 1;

/// The job that a folder belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Version of this program.
    pub version: String,
    /// search, map or transfer.
    pub command: String,
    /// Everything that the arrays follow from. Budgets and threads are not among it.
    pub parameters: Value,
    /// Fingerprints of the inputs.
    pub inputs: Value,
    /// Query rows.
    pub rows: u64,
    /// Reference rows.
    pub reference_rows: u64,
    /// Slots per query.
    pub k: u64,
    /// Set when everything is written.
    pub finished: bool,
    /// Of a finished job: how many units each stage has. A marker that is lost would not be missed otherwise.
    #[serde(default)]
    pub units: BTreeMap<String, u64>,
    /// Of an approximate search: its audited recall.
    #[serde(default)]
    pub recall: Option<f64>,
}

impl Manifest {
    /// What keeps `self` from going on with the work of `earlier`, in words; `None` when nothing does.
    #[must_use]
    pub fn differs_from(&self, earlier: &Self) -> Option<String> {
        let mut differences = Vec::new();
        let mut compare =
            |what: &str, now: &Value, then: &Value| collect_differences(what, now, then, &mut differences);
        compare("format", &self.format.into(), &earlier.format.into());
        compare("version", &self.version.clone().into(), &earlier.version.clone().into());
        compare("command", &self.command.clone().into(), &earlier.command.clone().into());
        if self.command == earlier.command {
            compare("parameters", &self.parameters, &earlier.parameters);
        }
        // A fingerprint names every file: too long to read, and it says no more than this.
        for side in ["query", "reference"].into_iter().filter(|side| self.inputs[side] != earlier.inputs[side]) {
            differences.push(format!("the {side} is another one, or was changed or copied since"));
        }
        for (key, what) in [("annotations", "what is transferred"), ("groups", "--exclude-group")] {
            let (Value::Object(_) | Value::Array(_)) = &self.inputs[key] else { continue };
            if self.inputs[key] != earlier.inputs[key] && !earlier.inputs[key].is_null() {
                differences.push(format!("the columns of {what} were changed since"));
            }
        }
        (!differences.is_empty()).then(|| differences.join("; "))
    }
}

fn collect_differences(path: &str, now: &Value, then: &Value, out: &mut Vec<String>) {
    match (now, then) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let (x, y) = (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
                collect_differences(&format!("{path}.{key}"), x, y, out);
            }
        }
        _ if now != then => out.push(format!("{path} was {then} and is now {now}")),
        _ => {}
    }
}

/// A file of a finished unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Path inside the output.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// CRC-32C of its bytes.
    pub crc32c: u32,
}

impl From<FileRecord> for File {
    fn from(record: FileRecord) -> Self {
        Self { path: record.path, bytes: record.bytes, crc32c: record.crc32c }
    }
}

/// Distances of a unit, to be merged with those of the others in unit order.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// How many.
    pub count: f64,
    /// Their mean.
    pub mean: f64,
    /// Sum of squared differences from the mean.
    pub m2: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl From<&DistanceStatistics> for Statistics {
    fn from(s: &DistanceStatistics) -> Self {
        Self { count: s.count, mean: s.mean, m2: s.m2, min: s.min, max: s.max }
    }
}

impl From<&Statistics> for DistanceStatistics {
    fn from(s: &Statistics) -> Self {
        Self { count: s.count, mean: s.mean, m2: s.m2, min: s.min, max: s.max }
    }
}

/// A finished unit of a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Marker {
    /// Its number.
    pub unit: u64,
    /// Its files.
    pub files: Vec<File>,
    /// Of a searched unit: its distances.
    pub statistics: Option<Statistics>,
    /// Of a searched unit: whether each row's first neighbour is the row itself.
    pub own_row_first: Option<bool>,
    /// Of a searched unit: the sum of its k-th distances, of the rows that have k neighbours, and how many those are.
    pub kth: Option<(f64, u64)>,
    /// Of a searched unit: what computed it; several where a run went on with another engine in its middle.
    #[serde(default)]
    pub engines: Vec<EngineRecord>,
}

/// What computed something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineRecord {
    /// cpu or gpu.
    pub device: String,
    /// The processor's or adapter's name.
    pub adapter: String,
    /// Backend and driver of an adapter; nothing for a processor.
    pub driver: String,
    /// Instruction set, or variant of the GPU programs.
    pub variant: String,
}

impl EngineRecord {
    /// Whether both find the same bytes: any two processors do, and one adapter with one driver, whatever the variant.
    #[must_use]
    pub fn finds_the_same_as(&self, other: &Self) -> bool {
        self.device == other.device
            && (self.device == "cpu" || (&self.adapter, &self.driver) == (&other.adapter, &other.driver))
    }

    /// For a sentence: `the CPU`, `NVIDIA H200 (vulkan 570.1)`.
    #[must_use]
    pub fn in_words(&self) -> String {
        if self.device == "cpu" { "the CPU".to_owned() } else { format!("{} ({})", self.adapter, self.driver) }
    }

    /// cpu or gpu.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        if self.device == "gpu" { "gpu" } else { "cpu" }
    }
}

/// The records of both, each once.
#[must_use]
pub fn both(a: &[EngineRecord], b: &[EngineRecord]) -> Vec<EngineRecord> {
    let mut all = a.to_vec();
    all.extend(b.iter().filter(|record| !a.contains(record)).cloned());
    all
}

impl Marker {
    /// A marker without files.
    #[must_use]
    pub fn empty() -> Self {
        Self { unit: 0, files: Vec::new(), statistics: None, own_row_first: None, kth: None, engines: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(device: &str, adapter: &str, driver: &str, variant: &str) -> EngineRecord {
        let [device, adapter, driver, variant] = [device, adapter, driver, variant].map(str::to_owned);
        EngineRecord { device, adapter, driver, variant }
    }

    #[test]
    fn processors_find_the_same_and_adapters_only_with_one_driver() {
        let card = record("gpu", "A card", "vulkan 1.2", "wide");
        for (other, same) in [
            (record("gpu", "A card", "vulkan 1.2", "portable"), true),
            (record("gpu", "A card", "vulkan 1.3", "wide"), false),
            (record("gpu", "Another", "vulkan 1.2", "wide"), false),
            (record("cpu", "A card", "vulkan 1.2", "wide"), false),
        ] {
            assert_eq!(card.finds_the_same_as(&other), same, "{other:?}");
        }
        assert!(record("cpu", "one", "", "avx2").finds_the_same_as(&record("cpu", "two", "", "avx512")));
    }

    #[test]
    fn a_marker_from_before_engines_were_recorded_is_still_read() {
        let text = json!({"unit": 3, "files": [], "statistics": null, "own_row_first": null, "kth": null});
        assert_eq!(serde_json::from_value::<Marker>(text).unwrap(), Marker { unit: 3, ..Marker::empty() });
    }

    #[test]
    fn statistics_survive_json_bit_for_bit() {
        let statistics = Statistics { count: 3.0, mean: 0.1 + 0.2, m2: 1.0 / 3.0, min: 0.0, max: 2.5e-300 };
        let text = serde_json::to_string(&statistics).unwrap();
        assert_eq!(serde_json::from_str::<Statistics>(&text).unwrap(), statistics);
    }

    #[test]
    fn what_differs_is_named() {
        let manifest = |parameters| Manifest {
            format: FORMAT,
            version: "1".to_owned(),
            command: "map".to_owned(),
            parameters,
            inputs: json!({}),
            rows: 1,
            reference_rows: 1,
            k: 1,
            finished: false,
            units: BTreeMap::new(),
            recall: None,
        };
        let (a, b) = (manifest(json!({"k": 15, "metric": "cosine"})), manifest(json!({"k": 30, "metric": "cosine"})));
        assert_eq!(a.differs_from(&b).unwrap(), "parameters.k was 30 and is now 15");
        assert_eq!(a.differs_from(&a), None);
        let other = Manifest { command: "search".to_owned(), parameters: json!({}), ..a.clone() };
        assert_eq!(other.differs_from(&a).unwrap(), "command was \"map\" and is now \"search\"");
        let changed = Manifest { inputs: json!({"query": {"files": [["c/0", 1, 2]]}}), ..a.clone() };
        assert_eq!(changed.differs_from(&a).unwrap(), "the query is another one, or was changed or copied since");
    }
}
