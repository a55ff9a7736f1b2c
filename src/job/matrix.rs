//! The mapping matrix as CSR in `X`. Its shards follow its entries; they are the units' where every row has as many.

use serde_json::json;

use super::manifest::Marker;
use super::mapping::Weighing;
use super::output::Output;
use super::run::Run;
use crate::error::{Error, StoreError};
use crate::matrix::MatrixRows;
use crate::schedule::Part;
use crate::schedule::blocks::{unit_count, unit_rows};
use crate::schedule::progress::{Stage, Step};
use crate::schedule::units::pipeline;
use crate::store::neighbours::index_kind;
use crate::store::results::{ArraySpec, Kind, RowArray, Values, encoding_attributes, write_group};
use crate::units::UNIT_ROWS;

/// The stage's folders of markers: shards of entries, and shards of `indptr`.
pub const STAGE: &str = "matrix";
const INDPTR_STAGE: &str = "matrix-indptr";

/// Where each unit's entries begin; one more, the end. From counts alone, so that any shard can be made on its own.
pub struct Offsets(Vec<u64>);

impl Offsets {
    /// From the number of entries of each unit, in order.
    #[must_use]
    pub fn new(counts: impl IntoIterator<Item = u64>) -> Self {
        let mut offsets = vec![0];
        let mut sum = 0;
        for count in counts {
            sum += count;
            offsets.push(sum);
        }
        Self(offsets)
    }

    fn entries(&self) -> u64 {
        self.0.last().copied().unwrap_or(0)
    }

    /// The units that have entries in this range.
    fn units(&self, start: u64, end: u64) -> std::ops::Range<usize> {
        let first = self.0.partition_point(|&offset| offset <= start).saturating_sub(1);
        let last = self.0.partition_point(|&offset| offset < end);
        first..last.min(self.0.len() - 1)
    }
}

/// Writes whatever is not done yet.
///
/// # Errors
/// The first error of reading, weighing or writing; interruption.
pub fn run(output: &Output, run: &Run<'_>, weighing: &Weighing, offsets: &Offsets) -> Result<(), Error> {
    let (rows, references) = (weighing.neighbours.rows(), weighing.references);
    let per_row = weighing.per_row();
    let mut attributes = encoding_attributes("csr_matrix", "0.1.0");
    attributes.insert("shape".to_owned(), json!([rows, references]));
    write_group(&output.folder, "X", &attributes)?;
    let entries = offsets.entries();
    let create = |spec| RowArray::create(&output.folder, spec);
    let plain = |spec: ArraySpec| ArraySpec { attributes: encoding_attributes("array", "0.2.0"), ..spec };
    let data = create(plain(ArraySpec::entries("X/data", Kind::F32, entries, per_row)))?;
    let indices = create(plain(ArraySpec::entries("X/indices", index_kind(references), entries, per_row)))?;
    let indptr = create(plain(ArraySpec::rows("X/indptr", index_kind(entries), rows + 1, None)))?;
    let shard_entries = UNIT_ROWS * per_row;
    let done = output.done(STAGE)?;
    let todo: Vec<u64> = (0..data.shards()).filter(|shard| !done.contains_key(shard)).collect();
    // Told in rows' worth of entries, so that the bar ends at the number of rows.
    let rows_of = |shard: u64| (rows.min((shard + 1) * UNIT_ROWS)).saturating_sub(shard * UNIT_ROWS);
    let step = |rows: u64| Step { rows, ..Step::default() };
    run.observer.begin(Stage::Matrix, step(rows), step(done.keys().map(|&shard| rows_of(shard)).sum()));
    let compute = |shard: u64| {
        let range = shard * shard_entries..entries.min((shard + 1) * shard_entries);
        run.clock.time(Part::Map, || run.pool.install(|| shard_values(weighing, offsets, range)))
    };
    let commit = |shard: u64, (columns, weights): (Vec<u64>, Vec<f32>)| {
        run.clock.time(Part::Write, || {
            let files = vec![
                data.write_shard(shard, Values::F32(weights))?.into(),
                indices.write_shard(shard, integers(columns, indices.spec().kind)?)?.into(),
            ];
            output.mark(STAGE, &Marker { unit: shard, files, ..Marker::empty() })
        })?;
        run.observer.advance(Stage::Matrix, step(rows_of(shard)));
        Ok(())
    };
    let result = pipeline(&todo, run.stop, compute, commit);
    run.observer.end(Stage::Matrix);
    result?;
    write_indptr(output, run, weighing, offsets, &indptr)
}

/// The entries of one shard, from the units that reach into it.
fn shard_values(
    weighing: &Weighing,
    offsets: &Offsets,
    range: std::ops::Range<u64>,
) -> Result<(Vec<u64>, Vec<f32>), Error> {
    let (mut columns, mut weights) = (Vec::new(), Vec::new());
    for unit in offsets.units(range.start, range.end) {
        let matrix = weighing.unit(unit as u64)?;
        let first = offsets.0[unit];
        let within = |entry: u64| usize::try_from(entry.saturating_sub(first)).unwrap_or(usize::MAX);
        let part = within(range.start)..within(range.end).min(matrix.columns.len());
        columns.extend_from_slice(&matrix.columns[part.clone()]);
        weights.extend_from_slice(&matrix.weights[part]);
    }
    Ok((columns, weights))
}

/// Where each row's entries begin: `rows + 1` numbers, so that a last shard may hold the end alone.
fn write_indptr(
    output: &Output,
    run: &Run<'_>,
    weighing: &Weighing,
    offsets: &Offsets,
    array: &RowArray,
) -> Result<(), Error> {
    let rows = weighing.neighbours.rows();
    let done = output.done(INDPTR_STAGE)?;
    let todo: Vec<u64> = (0..array.shards()).filter(|shard| !done.contains_key(shard)).collect();
    let compute = |shard: u64| -> Result<Vec<u64>, Error> {
        if shard >= unit_count(rows) {
            return Ok(vec![offsets.entries()]);
        }
        let first = offsets.0[usize::try_from(shard).unwrap_or(usize::MAX)];
        let own = unit_rows(shard, rows);
        let mut begins: Vec<u64> = run.pool.install(|| weighing.row_lengths(own.clone()))?;
        let mut sum = first;
        for begin in &mut begins {
            sum += std::mem::replace(begin, sum);
        }
        if own.end == rows && !rows.is_multiple_of(UNIT_ROWS) {
            begins.push(sum);
        }
        Ok(begins)
    };
    let commit = |shard: u64, begins: Vec<u64>| {
        let record = array.write_shard(shard, integers(begins, array.spec().kind)?)?;
        output.mark(INDPTR_STAGE, &Marker { unit: shard, files: vec![record.into()], ..Marker::empty() })
    };
    pipeline(&todo, run.stop, compute, commit)
}

fn integers(values: Vec<u64>, kind: Kind) -> Result<Values, Error> {
    let too_large = |_| StoreError::Zarr { array: "X".to_owned(), why: "a number does not fit".to_owned() };
    Ok(match kind {
        Kind::I32 => Values::I32(values.into_iter().map(i32::try_from).collect::<Result<_, _>>().map_err(too_large)?),
        _ => Values::I64(values.into_iter().map(i64::try_from).collect::<Result<_, _>>().map_err(too_large)?),
    })
}

/// How many entries each row of a matrix has.
#[must_use]
pub fn row_lengths(matrix: &MatrixRows) -> Vec<u64> {
    matrix.offsets.windows(2).map(|pair| (pair[1] - pair[0]) as u64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_knows_which_units_reach_into_it() {
        let offsets = Offsets::new([10, 0, 7, 3]);
        for (range, units) in
            [(0..5, 0..1), (0..10, 0..1), (9..11, 0..3), (10..17, 2..3), (16..20, 2..4), (17..20, 3..4)]
        {
            let found: Vec<usize> =
                offsets.units(range.start, range.end).filter(|&u| offsets.0[u + 1] > offsets.0[u]).collect();
            let expected: Vec<usize> = units.filter(|&u| offsets.0[u + 1] > offsets.0[u]).collect();
            assert_eq!(found, expected, "{range:?}");
        }
        assert_eq!(offsets.entries(), 20);
    }
}
