//! An inverted file on disk, one zarr v3 group: rows in list order with their ids, and what a search must know of each
//! list. Rows of a list lie together, so a list is one run of the array.

mod code;
mod layout;
mod rows;
mod write;

use std::ops::Range;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use serde_json::Value;

pub use code::Codec;
pub use layout::Layout;
pub use write::IndexWriter;

use super::disk::Disk;
use super::node::{Node, store_name};
use super::open::open_folder;
use super::prepared::Preparation;
use super::zarr::{ZarrArray, ZarrSource, ZarrVector};
use super::{IoCounters, Source};
use crate::block::codes::ListPatterns;
use crate::block::patterns::Patterns;
use crate::block::scale::Scale;
use crate::error::StoreError;
use crate::metric::Metric;
use rows::{Coded, Meaning};

/// The `encoding-type` of the root group.
pub const ENCODING_TYPE: &str = "atlasknn-ivf";
/// The `encoding-version` that this writes and reads.
pub const ENCODING_VERSION: &str = "0.1.0";
/// Rows in list order.
pub const ROWS: &str = "rows";
/// The reference row of each.
pub const IDS: &str = "ids";
/// Where each list begins, and at the end where the last one ends.
pub const OFFSETS: &str = "offsets";
/// The centroid of each list, in the space that lists are made in.
pub const CENTROIDS: &str = "centroids";
/// How far from it its rows are at most.
pub const RADII: &str = "radii";

/// What byte 0 means in each dimension, with [`Encoding::Sq8`].
pub const LOW: &str = "low";
/// How far apart bytes are in each dimension, with [`Encoding::Sq8`].
pub const STEP: &str = "step";

/// The patterns of each code, with [`Encoding::Pq`].
pub const CODEBOOKS: &str = "codebooks";

/// How rows are kept in an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As they are compared.
    F32,
    /// Rounded to float16.
    F16,
    /// A byte per value, between the least and the largest value of its dimension.
    Sq8,
    /// A byte for a few values at a time: the nearest of 256 patterns of what is left beside the centroid.
    Pq,
}

impl Encoding {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Sq8, Self::Pq];

    /// The name on the command line and in the manifest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Sq8 => "sq8",
            Self::Pq => "pq",
        }
    }
}

impl FromStr for Encoding {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|e| e.name() == name).ok_or_else(|| format!("an encoding `{name}`"))
    }
}

/// An index, open for searching. Centroids, offsets and radii are in memory; rows and ids are read by range.
#[derive(Debug)]
pub struct Index {
    metric: Metric,
    encoding: Encoding,
    source: Arc<dyn Source>,
    ids: ZarrVector,
    offsets: Arc<Vec<u64>>,
    centroids: Arc<Vec<f32>>,
    radii: Vec<f32>,
    manifest: Value,
    stored_bytes: u64,
}

impl Index {
    /// The index at `path`.
    ///
    /// # Errors
    /// [`StoreError::NotAStore`] for anything that is not a finished index of this version; missing arrays;
    /// [`StoreError::Damaged`] where the parts contradict each other, or where a file is missing.
    pub fn open(path: &Path, io: &Arc<IoCounters>) -> Result<Self, StoreError> {
        let (disk, root) = open_folder(path, io)?;
        let manifest = manifest_of(&disk, &root)?;
        let name = store_name(&disk);
        let damaged = |why: String| StoreError::Damaged { array: name.clone(), why };
        let text = |key: &str| {
            manifest.get(key).and_then(Value::as_str).ok_or_else(|| damaged(format!("its manifest has no {key}")))
        };
        let metric: Metric = text("metric")?.parse().map_err(|_| damaged("its metric is unknown".to_owned()))?;
        let encoding: Encoding =
            text("encoding")?.parse().map_err(|found| damaged(format!("it has {found}, which this can't read")))?;
        whole(&disk, encoding)?;
        let ids = ZarrVector::open(&disk, IDS)?;
        let offsets = Arc::new(whole_numbers(&disk, OFFSETS)?);
        let radii = floats(&disk, RADII)?;
        let (centroids, dim) = matrix(&disk, CENTROIDS)?;
        let centroids = Arc::new(centroids);
        let source = rows_of(&disk, encoding, (&offsets, &centroids), dim)?;
        let rows = source.rows();
        let lists = radii.len();
        let in_order = offsets.windows(2).all(|pair| pair[0] <= pair[1]);
        if lists == 0 || offsets.len() != lists + 1 || offsets[0] != 0 || offsets[lists] != rows || !in_order {
            return Err(damaged(format!("its {OFFSETS} do not cut {rows} rows into {lists} lists")));
        }
        if centroids.len() != lists * dim || source.dim() != dim {
            return Err(damaged(format!("its {CENTROIDS} are not {lists} × {dim}")));
        }
        if ids.len() != rows {
            return Err(damaged(format!("it has {} {IDS} for {rows} rows", ids.len())));
        }
        if radii.iter().any(|radius| radius.is_nan() || *radius < 0.0) {
            return Err(damaged(format!("one of its {RADII} is no distance")));
        }
        let stored_bytes = source.stored_bytes() + ids.array().stored_bytes()?;
        Ok(Self { metric, encoding, source, ids, offsets, centroids, radii, manifest, stored_bytes })
    }

    /// Whether the store at `path` says that it is an index, whether it can be read or not.
    #[must_use]
    pub fn is_at(path: &Path) -> bool {
        let root = open_folder(path, &IoCounters::new());
        root.is_ok_and(|(_, root)| root.encoding() == ENCODING_TYPE)
    }

    /// Values per row.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.source.dim()
    }

    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.source.rows()
    }

    /// How many lists.
    #[must_use]
    pub fn lists(&self) -> usize {
        self.radii.len()
    }

    /// The centroids, `lists × dim`, in the space that lists are made in: that of the rows, and for cosine and correlation
    /// that of the rows (minus their own mean) scaled to length 1.
    #[must_use]
    pub fn centroids(&self) -> &[f32] {
        &self.centroids
    }

    /// `lists + 1` row numbers: list i is the rows `offsets[i]..offsets[i + 1]` in list order.
    #[must_use]
    pub fn offsets(&self) -> &[u64] {
        &self.offsets
    }

    /// Rows of each list.
    #[must_use]
    pub fn list_rows(&self) -> Vec<u64> {
        self.offsets.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// Of each list, an upper bound of the euclidean distance between its centroid and any of its rows, in the space that
    /// lists are made in. A row without a direction (all zero, under cosine) counts as being everywhere on the sphere.
    #[must_use]
    pub fn radii(&self) -> &[f32] {
        &self.radii
    }

    /// The metric it was built for.
    #[must_use]
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// How rows are kept.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The rows in list order, `rows × dim`, as codes or decoded: those that an exact search compares where the encoding is
    /// f32.
    #[must_use]
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// The rows of the reference that these rows in list order are.
    ///
    /// # Errors
    /// Rows out of range, damaged chunks, an id that is no row.
    pub fn ids(&self, range: Range<u64>) -> Result<Vec<u64>, StoreError> {
        let rows = self.rows();
        let ids = self.ids.integers(range)?;
        ids.into_iter()
            .map(|id| {
                u64::try_from(id).ok().filter(|id| *id < rows).ok_or_else(|| StoreError::Damaged {
                    array: self.ids.array().name().to_owned(),
                    why: format!("it names row {id} of {rows}"),
                })
            })
            .collect()
    }

    /// Bytes that one call of [`ids`](Self::ids) holds beyond what it returns.
    #[must_use]
    pub fn ids_scratch_bytes(&self) -> u64 {
        self.ids.scratch_bytes()
    }

    /// Bytes on disk of rows and ids.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// The fingerprint of the array it was built from, as [`Source::fingerprint`] gives it before any preparation.
    #[must_use]
    pub fn fingerprint_of_reference(&self) -> &Value {
        &self.manifest["reference"]
    }

    /// What was done to the rows in float64 before they were rounded, and has to be done to queries as well; `None` where
    /// they are as the reference has them.
    ///
    /// # Errors
    /// A manifest that says something else.
    pub fn preparation(&self) -> Result<Option<Preparation>, StoreError> {
        Preparation::from_json(&self.manifest["preparation"]).ok_or_else(|| StoreError::Damaged {
            array: self.source.name().to_owned(),
            why: "its manifest has a preparation that this does not know".to_owned(),
        })
    }

    /// Everything it was built from and with.
    #[must_use]
    pub fn manifest(&self) -> &Value {
        &self.manifest
    }
}

/// The manifest in the attributes of the root group.
fn manifest_of(disk: &Disk, root: &Node) -> Result<Value, StoreError> {
    let refuse = |why: String| StoreError::NotAStore { path: disk.root().to_owned(), why };
    if root.encoding() != ENCODING_TYPE {
        let found = if root.encoding().is_empty() { "a zarr store" } else { root.encoding() };
        return Err(refuse(format!("it is {found}, not an index; build one with atlasknn index")));
    }
    let version = root.attributes.get("encoding-version").and_then(Value::as_str).unwrap_or("none");
    if version != ENCODING_VERSION {
        let ours = format!("this reads version {ENCODING_VERSION}; build it again with atlasknn index");
        return Err(refuse(format!("it is an index of version {version}, and {ours}")));
    }
    root.attributes.get("manifest").cloned().ok_or_else(|| StoreError::Damaged {
        array: store_name(disk),
        why: "its attributes have no manifest".to_owned(),
    })
}

/// Every chunk file is there: zarr reads one that is not as zeros, and a list of zeros has no neighbour.
fn whole(disk: &Arc<Disk>, encoding: Encoding) -> Result<(), StoreError> {
    let codec: &[&str] = match encoding {
        Encoding::F32 | Encoding::F16 => &[],
        Encoding::Sq8 => &[LOW, STEP],
        Encoding::Pq => &[CODEBOOKS],
    };
    let remedy = "copy the index again, or build it again with --overwrite";
    let arrays = [ROWS, IDS, OFFSETS, CENTROIDS, RADII].iter().chain(codec);
    arrays.into_iter().try_for_each(|path| ZarrArray::open(disk, path)?.whole(remedy))
}

fn whole_numbers(disk: &Arc<Disk>, path: &str) -> Result<Vec<u64>, StoreError> {
    let vector = ZarrVector::open(disk, path)?;
    let numbers = vector.integers(0..vector.len())?;
    let whole: Option<Vec<u64>> = numbers.into_iter().map(|n| u64::try_from(n).ok()).collect();
    whole.ok_or_else(|| StoreError::Damaged {
        array: vector.array().name().to_owned(),
        why: "it holds a number below 0".to_owned(),
    })
}

#[allow(clippy::cast_possible_truncation)] // they were float32
fn floats(disk: &Arc<Disk>, path: &str) -> Result<Vec<f32>, StoreError> {
    let vector = ZarrVector::open(disk, path)?;
    Ok(vector.numbers(0..vector.len())?.into_iter().map(|v| v as f32).collect())
}

/// All values of a small matrix, and how wide it is.
fn matrix(disk: &Arc<Disk>, path: &str) -> Result<(Vec<f32>, usize), StoreError> {
    let source = ZarrSource::open(disk, path)?;
    let values = usize::try_from(source.rows()).ok().and_then(|rows| rows.checked_mul(source.dim()));
    let mut out = vec![0.0; values.unwrap_or(usize::MAX)];
    source.read(&[0..source.rows()], &mut out)?;
    Ok((out, source.dim()))
}

/// The rows, as floats or as what they are kept as.
fn rows_of(
    disk: &Arc<Disk>,
    encoding: Encoding,
    (offsets, centroids): (&Arc<Vec<u64>>, &Arc<Vec<f32>>),
    dim: usize,
) -> Result<Arc<dyn Source>, StoreError> {
    let codes = match encoding {
        Encoding::F32 | Encoding::F16 => ZarrSource::open(disk, ROWS)?,
        Encoding::Sq8 | Encoding::Pq => ZarrSource::open_codes(disk, ROWS)?,
    };
    let meaning = match encoding {
        Encoding::F32 => return Ok(Arc::new(codes)),
        Encoding::F16 => Some(Meaning::Halves),
        Encoding::Sq8 => Some(Meaning::Scale(Arc::new(Scale { low: floats(disk, LOW)?, step: floats(disk, STEP)? }))),
        Encoding::Pq => {
            let (rows, _) = matrix(disk, CODEBOOKS)?;
            let (centroids, offsets) = (Arc::clone(centroids), Arc::clone(offsets));
            Patterns::from_rows(&rows, dim)
                .map(|patterns| Meaning::Patterns(Arc::new(ListPatterns { patterns, centroids, offsets })))
        }
    };
    let name = codes.name().to_owned();
    let coded = meaning.and_then(|meaning| Coded::new(codes, dim, meaning));
    let why = "what its codes mean does not fit them".to_owned();
    Ok(Arc::new(coded.ok_or(StoreError::Damaged { array: name, why })?))
}
