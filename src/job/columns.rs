//! Annotations of cells as a job uses them: text as codes, numbers in the precision they are stored in.

use std::ops::Range;

use crate::error::{Error, StoreError};
use crate::store::anndata::AnnData;
use crate::store::columns::{Column, ColumnKind};
use crate::store::{FloatType, Source};
use crate::transfer::numeric::{NumericTransfer, Values};
use crate::transfer::vocabulary::{Vocabulary, recode};
use crate::units::UNIT_ROWS;

/// A categorical or text column: names, and codes by row range. Text is read once through to learn its names.
pub struct Categories {
    /// The categories, in stored order; of text, sorted.
    pub names: Vec<String>,
    /// Whether the order of categories means something.
    pub ordered: bool,
    column: Column,
    vocabulary: Option<(Vocabulary, Vec<i32>)>,
}

/// Opens `obs/KEY` as categories.
///
/// # Errors
/// A missing key, a column of numbers, any I/O error.
pub fn categories(cells: &AnnData, key: &str) -> Result<Categories, Error> {
    let column = cells.obs(key)?;
    match column.kind().clone() {
        ColumnKind::Categorical { categories, ordered } => {
            Ok(Categories { names: categories, ordered, column, vocabulary: None })
        }
        ColumnKind::Strings => {
            let mut vocabulary = Vocabulary::new();
            for rows in pieces(cells.n_obs()) {
                for value in column.strings(rows)?.iter().flatten() {
                    vocabulary.code(value)?;
                }
            }
            let (names, positions) = vocabulary.clone().sorted();
            Ok(Categories { names, ordered: false, column, vocabulary: Some((vocabulary, positions)) })
        }
        _ => Err(no_categories(&column)),
    }
}

/// Checks that [`categories`] would open `obs/KEY`, without reading it.
///
/// # Errors
/// A missing key, a column of numbers.
pub fn check_categories(cells: &AnnData, key: &str) -> Result<(), Error> {
    let column = cells.obs(key)?;
    match column.kind() {
        ColumnKind::Categorical { .. } | ColumnKind::Strings => Ok(()),
        _ => Err(no_categories(&column)),
    }
}

fn no_categories(column: &Column) -> Error {
    let expected = "a categorical or text column is needed: make it one with .astype(str).astype(\"category\"), or \
                    transfer numbers with --value";
    StoreError::WrongKind {
        array: column.name().to_owned(),
        found: format!("a {} column", column.kind().name()),
        expected: expected.to_owned(),
    }
    .into()
}

impl Categories {
    /// Codes of these rows, −1 where the value is missing.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn read(&self, rows: Range<u64>) -> Result<Vec<i32>, Error> {
        let Some((vocabulary, positions)) = &self.vocabulary else {
            return Ok(self.column.codes(rows)?);
        };
        let mut codes = Vec::with_capacity(length(&rows));
        for piece in pieces_of(rows) {
            let values = self.column.strings(piece)?;
            codes.extend(values.iter().map(|value| value.as_deref().and_then(|v| vocabulary.find(v)).unwrap_or(-1)));
        }
        recode(&mut codes, positions);
        Ok(codes)
    }
}

/// Reads a column of numbers, whole.
///
/// # Errors
/// A missing key, a column that holds no numbers, any I/O error.
pub fn numbers(cells: &AnnData, key: &str) -> Result<(NumericTransfer, bool), Error> {
    let column = cells.obs(key)?;
    let single = is_single(&column)?;
    let mut values = Growing::new(single, cells.n_obs());
    for rows in pieces(cells.n_obs()) {
        values.extend(&column.numbers(rows)?);
    }
    Ok((NumericTransfer::new(values.0, 1)?, single))
}

/// Whether a column's numbers are float32 (or float16); booleans and integers are not.
///
/// # Errors
/// A column that holds no numbers.
pub fn is_single(column: &Column) -> Result<bool, Error> {
    match column.kind() {
        ColumnKind::Number { dtype, .. } => Ok(dtype == "float32" || dtype == "float16"),
        ColumnKind::Bool => Ok(false),
        other => Err(StoreError::WrongKind {
            array: column.name().to_owned(),
            found: format!("a {} column", other.name()),
            expected: "values are numbers or booleans; use --label for categories and text".to_owned(),
        }
        .into()),
    }
}

/// Reads an embedding, whole.
///
/// # Errors
/// Any I/O error, values that are not finite.
pub fn embedding(source: &dyn Source) -> Result<(NumericTransfer, bool), Error> {
    let single = source.dtype() != FloatType::F64;
    let dim = source.dim();
    let mut values = Growing::new(single, source.rows() * dim as u64);
    for rows in pieces(source.rows()) {
        let mut piece = vec![0.0; length(&rows) * dim];
        source.read_f64(&[rows], &mut piece)?;
        values.extend(&piece);
    }
    Ok((NumericTransfer::new(values.0, dim)?, single))
}

struct Growing(Values);

impl Growing {
    fn new(single: bool, len: u64) -> Self {
        let len = usize::try_from(len).unwrap_or(0);
        Self(if single { Values::F32(Vec::with_capacity(len)) } else { Values::F64(Vec::with_capacity(len)) })
    }

    fn extend(&mut self, piece: &[f64]) {
        match &mut self.0 {
            // These were float32 (or float16) on the disk: nothing is lost.
            #[allow(clippy::cast_possible_truncation)]
            Values::F32(values) => values.extend(piece.iter().map(|&x| x as f32)),
            Values::F64(values) => values.extend(piece),
        }
    }
}

fn pieces(rows: u64) -> impl Iterator<Item = Range<u64>> {
    pieces_of(0..rows)
}

fn pieces_of(rows: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let mut start = rows.start;
    std::iter::from_fn(move || {
        let piece = start..rows.end.min(start + UNIT_ROWS);
        start = piece.end;
        (!piece.is_empty()).then_some(piece)
    })
}

fn length(rows: &Range<u64>) -> usize {
    usize::try_from(rows.end - rows.start).unwrap_or(usize::MAX)
}
