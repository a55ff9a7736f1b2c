//! What a run leaves beside its arrays so that it can be resumed, checked and explained: manifest, markers, checkpoint.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, StoreError};
use crate::schedule::search::Checkpoint;
use crate::store::folder::FileRecord;
use crate::topk::TopK;
use crate::units::K;
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

/// Turns a checkpoint into the bytes of a file: a line of JSON, then ids, then distances, little-endian.
///
/// # Errors
/// A header that cannot be written as JSON; it always can.
pub fn encode_checkpoint(checkpoint: &Checkpoint, engines: &[EngineRecord]) -> Result<Vec<u8>, Error> {
    let header = CheckpointHeader {
        format: FORMAT,
        rows: (checkpoint.rows.start, checkpoint.rows.end),
        complete_to: checkpoint.complete_to,
        references_done: checkpoint.references_done,
        k: u32::try_from(checkpoint.top.k()).unwrap_or(K::MAX),
        crc32c: crc32c::crc32c_append(
            crc32c::crc32c(bytemuck::cast_slice(checkpoint.top.ids())),
            bytemuck::cast_slice(checkpoint.top.distances()),
        ),
        engines: engines.to_vec(),
    };
    let mut bytes = serde_json::to_vec(&header).map_err(|error| damaged(&error.to_string()))?;
    bytes.push(b'\n');
    bytes.reserve_exact(checkpoint.top.ids().len() * 12);
    bytes.extend(checkpoint.top.ids().iter().flat_map(|id| id.to_le_bytes()));
    bytes.extend(checkpoint.top.distances().iter().flat_map(|d| d.to_le_bytes()));
    Ok(bytes)
}

/// The checkpoint in these bytes, and what computed it.
///
/// # Errors
/// [`StoreError::Damaged`] when they are not what was written.
pub fn decode_checkpoint(bytes: &[u8]) -> Result<(Checkpoint, Vec<EngineRecord>), Error> {
    let end = bytes.iter().position(|&b| b == b'\n').ok_or_else(|| damaged("no header"))?;
    let header: CheckpointHeader =
        serde_json::from_slice(&bytes[..end]).map_err(|error| damaged(&error.to_string()))?;
    let k = K::new(header.k)?;
    let body = &bytes[end + 1..];
    let rows = header.rows.1.checked_sub(header.rows.0).ok_or_else(|| damaged("rows"))?;
    let slots = usize::try_from(rows).unwrap_or(usize::MAX).saturating_mul(k.get());
    if header.format != FORMAT || body.len() != slots.saturating_mul(12) {
        return Err(damaged("it has another length than its header says"));
    }
    let (ids, distances) = body.split_at(slots * 8);
    let ids: Vec<u64> = ids.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
    let distances: Vec<f32> = distances.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let crc = crc32c::crc32c_append(crc32c::crc32c(bytemuck::cast_slice(&ids)), bytemuck::cast_slice(&distances));
    let top = TopK::from_parts(k, ids, distances).filter(|_| crc == header.crc32c);
    let checkpoint = Checkpoint {
        rows: header.rows.0..header.rows.1,
        complete_to: header.complete_to,
        references_done: header.references_done,
        top: top.ok_or_else(|| damaged("its checksum is wrong"))?,
    };
    Ok((checkpoint, header.engines))
}

#[derive(Serialize, Deserialize)]
struct CheckpointHeader {
    format: u32,
    rows: (u64, u64),
    complete_to: u64,
    references_done: u64,
    k: u32,
    crc32c: u32,
    #[serde(default)]
    engines: Vec<EngineRecord>,
}

fn damaged(why: &str) -> Error {
    StoreError::Damaged { array: "the checkpoint".to_owned(), why: why.to_owned() }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn checkpoint() -> Checkpoint {
        let mut top = TopK::empty(3, K::new(2).unwrap());
        top.set_row(1, &[(0.25, 7), (0.5, 1)]);
        Checkpoint { rows: 10..13, complete_to: 11, references_done: 99, top }
    }

    fn record(device: &str, adapter: &str, driver: &str, variant: &str) -> EngineRecord {
        let [device, adapter, driver, variant] = [device, adapter, driver, variant].map(str::to_owned);
        EngineRecord { device, adapter, driver, variant }
    }

    #[test]
    fn a_checkpoint_comes_back_as_it_was() {
        let engines = vec![record("gpu", "A card", "vulkan 1.2", "wide")];
        let bytes = encode_checkpoint(&checkpoint(), &engines).unwrap();
        assert_eq!(decode_checkpoint(&bytes).unwrap(), (checkpoint(), engines));
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
    fn a_checkpoint_with_a_flipped_byte_is_refused() {
        let bytes = encode_checkpoint(&checkpoint(), &[]).unwrap();
        for at in [bytes.len() - 1, bytes.len() - 40, 5] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(decode_checkpoint(&bad).is_err(), "byte {at}");
        }
        assert!(decode_checkpoint(&bytes[..bytes.len() - 4]).is_err());
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
