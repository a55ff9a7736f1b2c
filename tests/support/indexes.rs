//! Builds indexes and holds them against the plain truth.
#![allow(dead_code, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::Path;

use atlasknn::job::request::{DeviceChoice, DeviceRequest, IndexOutcome, IndexRequest, RunOptions, Within};
use atlasknn::metric::{EngineKind, Metric, TieBand, tie_band};
use atlasknn::schedule::progress::{Silent, Stop};
use atlasknn::store::IoCounters;
use atlasknn::store::index::{Encoding, Index};
use atlasknn::units::ByteCount;

/// An index of a `.npy` file with everything at its default.
pub fn index_request(reference: &Path, out: &Path) -> IndexRequest {
    IndexRequest {
        reference: reference.to_owned(),
        out: out.to_owned(),
        rep: "X_pca".to_owned(),
        metric: Metric::Euclidean,
        lists: None,
        encoding: Encoding::F32,
        device: DeviceRequest { choice: DeviceChoice::Cpu, ..DeviceRequest::default() },
        within: Within { host_memory: Some(ByteCount::mib(1024)), threads: Some(2) },
        run: RunOptions::default(),
    }
}

pub fn build(request: &IndexRequest) -> Result<IndexOutcome, atlasknn::Error> {
    atlasknn::job::index(request, &Silent, &Stop::new())
}

pub fn open(path: &Path) -> Index {
    Index::open(path, &IoCounters::new()).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows an index was made of.
pub struct Truth<'a> {
    pub rows: usize,
    pub dim: usize,
    pub value: &'a dyn Fn(usize, usize) -> f32,
    pub metric: Metric,
}

impl Truth<'_> {
    /// Every row once, in the list of its nearest centroid, within its radius; no list too large.
    pub fn check(&self, index: &Index) -> Result<(), String> {
        self.check_built_by(EngineKind::Cpu, index)
    }

    /// The same of an index that this kind of engine built: its tie band decides between centroids.
    pub fn check_built_by(&self, engine: EngineKind, index: &Index) -> Result<(), String> {
        let (rows, lists) = (self.rows as u64, index.lists());
        if (index.rows(), index.dim(), index.metric()) != (rows, self.dim, self.metric) {
            return Err(format!("{} × {} by {}", index.rows(), index.dim(), index.metric()));
        }
        let sizes = index.list_rows();
        let largest = sizes.iter().max().copied().unwrap_or(0);
        if largest * lists as u64 > 4 * rows.max(lists as u64) || sizes.contains(&0) {
            return Err(format!("lists of {sizes:?} rows"));
        }
        let ids = index.ids(0..rows).map_err(|error| error.to_string())?;
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        if sorted != (0..rows).collect::<Vec<_>>() {
            return Err("not every row once".to_owned());
        }
        let mut stored = vec![0.0; self.rows * self.dim];
        index.source().read(&[0..rows], &mut stored).map_err(|error| error.to_string())?;
        for list in 0..lists {
            for at in index.offsets()[list]..index.offsets()[list + 1] {
                let at = usize::try_from(at).expect("a place");
                self.check_row(index, (engine, list), ids[at], &stored[at * self.dim..(at + 1) * self.dim])?;
            }
        }
        Ok(())
    }

    fn check_row(
        &self,
        index: &Index,
        (engine, list): (EngineKind, usize),
        id: u64,
        stored: &[f32],
    ) -> Result<(), String> {
        let row = self.row(id);
        if row != stored {
            return Err(format!("row {id} is {stored:?} and should be {row:?}"));
        }
        let placed = place(self.metric, &row);
        let distance = |list: usize| {
            let centroid = &index.centroids()[list * self.dim..(list + 1) * self.dim];
            placed.iter().zip(centroid).map(|(a, b)| (a - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
        };
        let own = distance(list);
        if own > f64::from(index.radii()[list]) {
            return Err(format!("row {id} is at {own} from its centroid, of radius {}", index.radii()[list]));
        }
        let nearest = (0..index.lists()).map(distance).fold(f64::INFINITY, f64::min);
        // The engine sees rows of length 1 rounded to float32, so its tie is as wide as that.
        let rounding = if placed.iter().zip(&row).all(|(a, b)| *a == f64::from(*b)) { 0.0 } else { 1e-6 };
        let TieBand::Relative(tie) = tie_band(Metric::Euclidean, self.dim, engine) else {
            return Err("a tie band of another kind".to_owned());
        };
        if own > nearest * (1.0 + tie) + rounding {
            return Err(format!("row {id} is at {own} from its centroid, and at {nearest} from another"));
        }
        Ok(())
    }

    fn row(&self, id: u64) -> Vec<f32> {
        let row = usize::try_from(id).expect("a row");
        (0..self.dim).map(|column| (self.value)(row, column)).collect()
    }
}

/// A row in the space that lists are made in.
pub fn place(metric: Metric, row: &[f32]) -> Vec<f64> {
    let mut row: Vec<f64> = row.iter().map(|value| f64::from(*value)).collect();
    if metric == Metric::Correlation {
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        for value in &mut row {
            *value -= mean;
        }
    }
    let length = row.iter().map(|value| value * value).sum::<f64>().sqrt();
    if matches!(metric, Metric::Cosine | Metric::Correlation) && length > 0.0 {
        for value in &mut row {
            *value /= length;
        }
    }
    row
}

/// How far decoded rows are from those they were made of, at most.
pub fn largest_error(index: &Index, value: &dyn Fn(usize, usize) -> f32) -> f64 {
    let (rows, dim) = (index.rows(), index.dim());
    let ids = index.ids(0..rows).expect("ids");
    let mut decoded = vec![0.0; ids.len() * dim];
    index.source().read(&[0..rows], &mut decoded).expect("rows");
    let truth = Truth { rows: ids.len(), dim, value, metric: index.metric() };
    let apart = |(id, row): (&u64, &[f32])| {
        let (a, b) = (place(truth.metric, &truth.row(*id)), place(truth.metric, row));
        a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    };
    ids.iter().zip(decoded.chunks_exact(dim)).map(apart).fold(0.0, f64::max)
}

/// Checksums of every file of an index, those of its run included; the lock is empty.
pub fn bytes(out: &Path) -> BTreeMap<String, u32> {
    fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, u32>) {
        for entry in std::fs::read_dir(folder).expect("folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                collect(root, &path, files);
            } else {
                let name = path.strip_prefix(root).expect("inside").to_string_lossy().into_owned();
                files.insert(name, crc32c::crc32c(&std::fs::read(&path).expect("file")));
            }
        }
    }
    let mut files = BTreeMap::new();
    collect(out, out, &mut files);
    assert!(files.len() > 8, "{files:?}");
    files
}
