//! Transfer of labels, numbers and embeddings, unit by unit over the neighbours store.

use std::ops::Range;

use rayon::prelude::*;
use serde_json::json;

use super::columns::{categories, embedding, numbers};
use super::manifest::Marker;
use super::mapping::Weighing;
use super::output::Output;
use super::request::MappingRequest;
use super::run::Run;
use crate::error::Error;
use crate::matrix::MatrixRows;
use crate::schedule::Part;
use crate::schedule::blocks::{unit_count, unit_rows};
use crate::schedule::progress::{Stage, Step};
use crate::schedule::units::pipeline;
use crate::store::anndata::AnnData;
use crate::store::results::{ArraySpec, Kind, RowArray, Values, encoding_attributes, write_group, write_small};
use crate::transfer::categorical::{LabelOptions, LabelTransfer};
use crate::transfer::numeric::NumericTransfer;
use crate::units::INNER_ROWS;

/// The stage's folder of markers.
pub const STAGE: &str = "map";

/// Something of the reference, carried to the query.
pub struct Column {
    what: What,
    arrays: Vec<RowArray>,
}

enum What {
    Label(LabelTransfer, LabelOptions),
    /// `true` where the result is float32.
    Number(NumericTransfer, bool),
}

/// Reads what is to be transferred and creates the arrays for it.
///
/// # Errors
/// Missing keys, columns of the wrong kind, any I/O error.
pub fn columns(
    output: &Output,
    cells: Option<&AnnData>,
    mapping: &MappingRequest,
    rows: u64,
) -> Result<Vec<Column>, Error> {
    let Some(cells) = cells else { return Ok(Vec::new()) };
    let mut columns = Vec::new();
    for key in &mapping.labels {
        columns.push(label(output, cells, mapping, key, rows)?);
    }
    for key in &mapping.values {
        let (transfer, single) = numbers(cells, key)?;
        let kind = if single { Kind::F32 } else { Kind::F64 };
        let array = RowArray::create(&output.folder, ArraySpec::rows(&format!("obs/{key}_pred"), kind, rows, None))?;
        columns.push(Column { what: What::Number(transfer, single), arrays: vec![array] });
    }
    for key in &mapping.obsm {
        let path = obsm_path(key);
        let source = cells.representation(&path)?;
        let (transfer, single) = embedding(&*source)?;
        let kind = if single { Kind::F32 } else { Kind::F64 };
        let width = Some(transfer.dim() as u64);
        let array = RowArray::create(&output.folder, ArraySpec::rows(&format!("{path}_pred"), kind, rows, width))?;
        columns.push(Column { what: What::Number(transfer, single), arrays: vec![array] });
    }
    Ok(columns)
}

/// `X_umap` and `obsm/X_umap` are the same key.
#[must_use]
pub fn obsm_path(key: &str) -> String {
    format!("obsm/{}", key.strip_prefix("obsm/").unwrap_or(key))
}

fn label(output: &Output, cells: &AnnData, mapping: &MappingRequest, key: &str, rows: u64) -> Result<Column, Error> {
    let known = categories(cells, key)?;
    let subset: Vec<String> =
        mapping.label_subsets.iter().filter(|(of, _)| of == key).map(|(_, name)| name.clone()).collect();
    let codes = known.read(0..cells.n_obs())?;
    let transfer = LabelTransfer::new(codes, &known.names, (!subset.is_empty()).then_some(subset.as_slice()))?;
    let group = format!("obs/{key}_pred");
    let mut attributes = encoding_attributes("categorical", "0.2.0");
    attributes.insert("ordered".to_owned(), json!(known.ordered));
    write_group(&output.folder, &group, &attributes)?;
    let kind = code_kind(known.names.len());
    let strings = encoding_attributes("string-array", "0.2.0");
    write_small(&output.folder, &format!("{group}/categories"), &Values::Strings(known.names), false, strings)?;
    let array = |path: &str, kind, width| RowArray::create(&output.folder, ArraySpec::rows(path, kind, rows, width));
    let mut arrays =
        vec![array(&format!("{group}/codes"), kind, None)?, array(&format!("obs/{key}_conf"), Kind::F32, None)?];
    if mapping.probabilities {
        let width = transfer.columns().len() as u64;
        arrays.push(array(&format!("obsm/{key}_probabilities"), Kind::F32, Some(width))?);
    }
    let options = LabelOptions { min_confidence: mapping.min_confidence, probabilities: mapping.probabilities };
    Ok(Column { what: What::Label(transfer, options), arrays })
}

/// The smallest integers that hold the codes, as pandas has it.
fn code_kind(categories: usize) -> Kind {
    match categories {
        0..=127 => Kind::I8,
        128..=32_767 => Kind::I16,
        _ => Kind::I32,
    }
}

impl Column {
    /// The paths of the columns of `obs` it makes.
    pub fn obs_names(&self) -> impl Iterator<Item = String> {
        self.arrays.iter().filter_map(|array| {
            let name = array.spec().path.strip_prefix("obs/")?;
            Some(name.strip_suffix("/codes").unwrap_or(name).to_owned())
        })
    }

    /// Categories of the probabilities' columns, as codes, with the key; `None` when there are no probabilities.
    pub fn probability_columns(&self) -> Option<(String, Vec<i32>)> {
        match &self.what {
            What::Label(transfer, options) if options.probabilities => {
                let name = self.arrays[2].spec().path.trim_start_matches("obsm/").to_owned();
                Some((name, transfer.columns().to_vec()))
            }
            _ => None,
        }
    }

    /// Its values for some rows, one per array.
    fn transfer(&self, matrix: &MatrixRows) -> Result<Vec<Values>, Error> {
        Ok(match &self.what {
            What::Label(transfer, options) => {
                let labels = transfer.transfer(matrix, options)?;
                let codes = narrow_codes(labels.codes, self.arrays[0].spec().kind);
                let mut values = vec![codes, Values::F32(labels.confidences)];
                if options.probabilities {
                    values.push(Values::F32(labels.probabilities));
                }
                values
            }
            What::Number(transfer, single) => {
                let values = transfer.transfer(matrix)?;
                #[allow(clippy::cast_possible_truncation)] // float32 in, float32 out, as in CellMapper
                let narrow = |values: Vec<f64>| Values::F32(values.into_iter().map(|x| x as f32).collect());
                vec![if *single { narrow(values) } else { Values::F64(values) }]
            }
        })
    }
}

fn narrow_codes(codes: Vec<i32>, kind: Kind) -> Values {
    // The kind was chosen so that every code fits.
    match kind {
        Kind::I8 => Values::I8(codes.into_iter().map(|c| i8::try_from(c).unwrap_or(-1)).collect()),
        Kind::I16 => Values::I16(codes.into_iter().map(|c| i16::try_from(c).unwrap_or(-1)).collect()),
        _ => Values::I32(codes),
    }
}

/// Transfers whatever is not done yet. Returns how many units were computed and reused.
///
/// # Errors
/// The first error of reading, mapping or writing; interruption.
pub fn run(
    output: &Output,
    run: &Run<'_>,
    weighing: &Weighing,
    columns: &[Column],
    pieces: usize,
) -> Result<(u64, u64), Error> {
    if columns.is_empty() {
        return Ok((0, 0));
    }
    let rows = weighing.neighbours.rows();
    let done = output.done(STAGE)?;
    let todo: Vec<u64> = (0..unit_count(rows)).filter(|unit| !done.contains_key(unit)).collect();
    let count = |units: &mut dyn Iterator<Item = u64>| units.map(|u| unit_rows(u, rows)).map(|r| r.end - r.start).sum();
    let step = |rows: u64| Step { rows, ..Step::default() };
    run.observer.begin(Stage::Map, step(rows), step(count(&mut done.keys().copied())));
    let compute = |unit: u64| {
        run.clock
            .time(Part::Map, || run.pool.install(|| unit_columns(&unit_rows(unit, rows), weighing, columns, pieces)))
    };
    let commit = |unit: u64, values: Vec<Values>| {
        run.clock.time(Part::Write, || write_unit(output, columns, unit, values))?;
        run.observer.advance(Stage::Map, step(count(&mut std::iter::once(unit))));
        Ok(())
    };
    let result = pipeline(&todo, run.stop, compute, commit);
    run.observer.end(Stage::Map);
    result?;
    Ok((todo.len() as u64, done.len() as u64))
}

fn unit_columns(
    rows: &Range<u64>,
    weighing: &Weighing,
    columns: &[Column],
    pieces: usize,
) -> Result<Vec<Values>, Error> {
    let starts: Vec<u64> =
        (0..(rows.end - rows.start).div_ceil(INNER_ROWS)).map(|i| rows.start + i * INNER_ROWS).collect();
    let mut unit: Vec<Values> = Vec::new();
    for together in starts.chunks(pieces.max(1)) {
        let piece = |&start: &u64| -> Result<Vec<Values>, Error> {
            let matrix = weighing.matrix(start..rows.end.min(start + INNER_ROWS))?;
            let mut values = Vec::new();
            for column in columns {
                values.extend(column.transfer(&matrix)?);
            }
            Ok(values)
        };
        for values in together.par_iter().map(piece).collect::<Vec<_>>() {
            let values = values?;
            if unit.is_empty() {
                unit = values;
            } else {
                unit.iter_mut().zip(values).for_each(|(all, piece)| all.append(piece));
            }
        }
    }
    Ok(unit)
}

fn write_unit(output: &Output, columns: &[Column], unit: u64, values: Vec<Values>) -> Result<(), Error> {
    let mut files = Vec::new();
    for (array, values) in columns.iter().flat_map(|column| &column.arrays).zip(values) {
        files.push(array.write_shard(unit, values)?.into());
    }
    output.mark(STAGE, &Marker { unit, files, ..Marker::empty() })
}
