//! Columns of `obs` by row range, in the encodings that AnnData writes: categories, texts, numbers, truth values, each
//! with or without missing entries. A column of a collection is the columns of its datasets as one.

use std::collections::HashMap;
use std::iter;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::error::StoreError;
use crate::store::Absent;
use crate::store::disk::Disk;
use crate::store::node::{Node, NodeKind, join};
use crate::store::zarr::{Element, ZarrArray, ZarrVector};

/// The code of a missing category.
pub const MISSING: i32 = -1;

/// What a column holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// One of these categories per row, or none.
    Categorical {
        /// Their names; numbers and truth values as Python prints them.
        categories: Vec<String>,
        /// Whether their order means something.
        ordered: bool,
    },
    /// A text per row, or none.
    Strings,
    /// A number per row, missing ones as NaN.
    Number {
        /// Its zarr type, for example `int64`.
        dtype: String,
        /// Whether whole numbers are stored.
        integer: bool,
    },
    /// True or false per row, or neither.
    Bool,
}

impl ColumnKind {
    /// What messages call it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Categorical { .. } => "categorical",
            Self::Strings => "text",
            Self::Number { .. } => "numeric",
            Self::Bool => "true or false",
        }
    }
}

/// A column, open for reading.
#[derive(Debug)]
pub struct Column {
    name: String,
    kind: ColumnKind,
    parts: Vec<Part>,
    /// Rows before each part, and at the end all rows.
    starts: Vec<u64>,
    /// The part read last: the only one that may keep something.
    last: AtomicUsize,
}

/// The column of one dataset.
#[derive(Debug)]
struct Part {
    values: ZarrVector,
    /// True where missing.
    mask: Option<ZarrVector>,
    /// The column's code of each of the dataset's.
    codes: Vec<i32>,
}

/// A part with what it says of the kind.
struct Opened {
    part: Part,
    kind: ColumnKind,
}

impl Column {
    /// The column at `paths` of a store, one path per dataset; `name` is what messages call it.
    ///
    /// # Errors
    /// No such column, an encoding that is not supported, datasets that disagree about the kind.
    pub(crate) fn open(disk: &Arc<Disk>, paths: &[String], name: &str) -> Result<Self, StoreError> {
        let mut opened = Vec::with_capacity(paths.len());
        for path in paths {
            opened.push(open_part(disk, path)?);
        }
        let (kind, parts) = unify(opened, name)?;
        let mut starts = vec![0];
        for part in &parts {
            starts.push(starts[starts.len() - 1] + part.values.len());
        }
        Ok(Self { name: name.to_owned(), kind, parts, starts, last: AtomicUsize::new(0) })
    }

    /// The column with its store, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it holds.
    #[must_use]
    pub fn kind(&self) -> &ColumnKind {
        &self.kind
    }

    /// The categories of a categorical column.
    ///
    /// # Errors
    /// Another kind of column.
    pub fn categories(&self) -> Result<&[String], StoreError> {
        match &self.kind {
            ColumnKind::Categorical { categories, .. } => Ok(categories),
            _ => Err(self.wrong_kind("a categorical column is needed; make it one with .astype(\"category\")")),
        }
    }

    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.starts[self.parts.len()]
    }

    /// Most bytes that one read holds beyond what it returns, what is kept for the next one included.
    #[must_use]
    pub fn scratch_bytes(&self) -> u64 {
        let vector =
            |part: &Part| part.values.scratch_bytes() + part.mask.as_ref().map_or(0, ZarrVector::scratch_bytes);
        self.parts.iter().map(vector).max().unwrap_or(0)
    }

    /// Chunk files that are not there, so that rows read as the fill value.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn absent(&self) -> Result<Vec<Absent>, StoreError> {
        let mut all = Vec::new();
        for array in self.arrays() {
            all.extend(array.absent()?);
        }
        Ok(all)
    }

    /// What would change if the column did.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn fingerprint(&self) -> Result<Value, StoreError> {
        let arrays = self.arrays().map(ZarrArray::fingerprint).collect::<Result<Vec<_>, _>>()?;
        Ok(json!({ "kind": self.kind.name(), "categories": self.categories().ok(), "arrays": arrays }))
    }

    fn arrays(&self) -> impl Iterator<Item = &ZarrArray> {
        self.parts.iter().flat_map(|part| iter::once(&part.values).chain(&part.mask)).map(ZarrVector::array)
    }

    /// Codes into the categories, [`MISSING`] where there is none.
    ///
    /// # Errors
    /// Another kind of column, a code without a category, rows out of range, a damaged chunk, any I/O error.
    pub fn codes(&self, range: Range<u64>) -> Result<Vec<i32>, StoreError> {
        self.categories()?;
        self.collect(range, |part, rows| {
            let codes = part.values.integers(rows)?;
            let code = |code: i64| match usize::try_from(code) {
                Ok(at) => part.codes.get(at).copied(),
                Err(_) => (code == i64::from(MISSING)).then_some(MISSING),
            };
            codes
                .into_iter()
                .map(|c| code(c).ok_or_else(|| self.damaged(&format!("code {c} has no category"))))
                .collect()
        })
    }

    /// Texts, `None` where missing.
    ///
    /// # Errors
    /// Another kind of column, rows out of range, a damaged chunk, any I/O error.
    pub fn strings(&self, range: Range<u64>) -> Result<Vec<Option<String>>, StoreError> {
        if self.kind != ColumnKind::Strings {
            return Err(self.wrong_kind("a column of texts is needed"));
        }
        self.collect(range, |part, rows| Ok(masked(part.values.texts(rows.clone())?, part.mask(rows)?)))
    }

    /// Numbers as float64, NaN where missing; true is 1 and false is 0. Whole numbers beyond 2⁵³ are rounded.
    ///
    /// # Errors
    /// Another kind of column, rows out of range, a damaged chunk, any I/O error.
    pub fn numbers(&self, range: Range<u64>) -> Result<Vec<f64>, StoreError> {
        if !matches!(self.kind, ColumnKind::Number { .. } | ColumnKind::Bool) {
            return Err(self.wrong_kind("a column of numbers is needed"));
        }
        self.collect(range, |part, rows| {
            let numbers = masked(part.values.numbers(rows.clone())?, part.mask(rows)?);
            Ok(numbers.into_iter().map(|n| n.unwrap_or(f64::NAN)).collect())
        })
    }

    /// Truth values, `None` where missing.
    ///
    /// # Errors
    /// Another kind of column, rows out of range, a damaged chunk, any I/O error.
    pub fn bools(&self, range: Range<u64>) -> Result<Vec<Option<bool>>, StoreError> {
        if self.kind != ColumnKind::Bool {
            return Err(self.wrong_kind("a column of true or false is needed"));
        }
        self.collect(range, |part, rows| Ok(masked(part.values.bools(rows.clone())?, part.mask(rows)?)))
    }

    /// Whatever it holds as text, `nan` where missing: for names.
    pub(crate) fn as_texts(&self, range: Range<u64>) -> Result<Vec<String>, StoreError> {
        if let ColumnKind::Categorical { categories, .. } = &self.kind {
            let name = |code: i32| usize::try_from(code).ok().and_then(|at| categories.get(at)).cloned();
            let names = self.codes(range)?.into_iter().map(name);
            return Ok(names.map(|n| n.unwrap_or_else(|| "nan".to_owned())).collect());
        }
        self.collect(range, |part, rows| {
            let texts = masked(part.values.as_texts(rows.clone())?, part.mask(rows)?);
            Ok(texts.into_iter().map(|t| t.unwrap_or_else(|| "nan".to_owned())).collect())
        })
    }

    fn wrong_kind(&self, expected: &str) -> StoreError {
        let found = format!("a {} column", self.kind.name());
        StoreError::WrongKind { array: self.name.clone(), found, expected: expected.to_owned() }
    }

    fn damaged(&self, why: &str) -> StoreError {
        StoreError::Damaged { array: self.name.clone(), why: why.to_owned() }
    }

    /// What `read` gives for the rows of each part, one after the other.
    fn collect<T>(
        &self,
        range: Range<u64>,
        read: impl Fn(&Part, Range<u64>) -> Result<Vec<T>, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = self.rows();
        if range.start > range.end || range.end > rows {
            let (start, end) = (range.start, range.end);
            return Err(StoreError::OutOfRange { array: self.name.clone(), rows, start, end });
        }
        let mut all = Vec::new();
        for (at, (part, bounds)) in self.parts.iter().zip(self.starts.windows(2)).enumerate() {
            let (start, end) = (range.start.max(bounds[0]), range.end.min(bounds[1]));
            if start < end {
                let last = self.last.swap(at, Ordering::Relaxed);
                if last != at {
                    self.parts[last].release();
                }
                all.extend(read(part, start - bounds[0]..end - bounds[0])?);
            }
        }
        Ok(all)
    }
}

impl Part {
    fn release(&self) {
        self.values.release();
        if let Some(mask) = &self.mask {
            mask.release();
        }
    }

    fn mask(&self, rows: Range<u64>) -> Result<Option<Vec<bool>>, StoreError> {
        self.mask.as_ref().map(|mask| mask.bools(rows)).transpose()
    }
}

fn masked<T>(values: Vec<T>, mask: Option<Vec<bool>>) -> Vec<Option<T>> {
    match mask {
        Some(mask) => values.into_iter().zip(mask).map(|(value, missing)| (!missing).then_some(value)).collect(),
        None => values.into_iter().map(Some).collect(),
    }
}

fn open_part(disk: &Arc<Disk>, path: &str) -> Result<Opened, StoreError> {
    let node = Node::required(disk, path)?;
    let wrong = |found: String| StoreError::WrongKind {
        array: node.name(disk),
        found,
        expected: "a column must be categorical, text, numbers or true and false".to_owned(),
    };
    if node.kind == NodeKind::Array {
        let values = ZarrVector::open(disk, path)?;
        if node.attributes.contains_key("categories") {
            return Err(wrong(
                "a categorical column of an AnnData older than 0.8; write it again with a newer one".to_owned(),
            ));
        }
        let kind = plain_kind(values.array().element()).map_err(wrong)?;
        return Ok(Opened { part: Part { values, mask: None, codes: Vec::new() }, kind });
    }
    match node.encoding() {
        "categorical" => open_categorical(disk, path, &node),
        "nullable-integer" | "nullable-float" | "nullable-boolean" | "nullable-string-array" => {
            let values = ZarrVector::open(disk, &join(path, "values"))?;
            let mask = ZarrVector::open(disk, &join(path, "mask"))?;
            if mask.len() != values.len() {
                let why = format!("{} values have a mask of {}", values.len(), mask.len());
                return Err(StoreError::Damaged { array: node.name(disk), why });
            }
            let kind = plain_kind(values.array().element()).map_err(wrong)?;
            Ok(Opened { part: Part { values, mask: Some(mask), codes: Vec::new() }, kind })
        }
        "" => Err(wrong("a group".to_owned())),
        other => Err(wrong(format!("a {other}"))),
    }
}

fn open_categorical(disk: &Arc<Disk>, path: &str, node: &Node) -> Result<Opened, StoreError> {
    let values = ZarrVector::open(disk, &join(path, "codes"))?;
    let ordered = node.attributes.get("ordered").and_then(Value::as_bool).unwrap_or(false);
    let names = Column::open(disk, &[join(path, "categories")], &node.name(disk))?;
    let categories = names.as_texts(0..names.rows())?;
    let codes = (0..).take(categories.len()).collect();
    Ok(Opened { part: Part { values, mask: None, codes }, kind: ColumnKind::Categorical { categories, ordered } })
}

fn plain_kind(element: &Element) -> Result<ColumnKind, String> {
    match element {
        Element::Bool => Ok(ColumnKind::Bool),
        Element::Int(_) | Element::UInt(_) => Ok(ColumnKind::Number { dtype: element.name(), integer: true }),
        Element::Float(_) => Ok(ColumnKind::Number { dtype: element.name(), integer: false }),
        Element::Text | Element::FixedText(_) => Ok(ColumnKind::Strings),
        Element::Other(name) => Err(format!("of {name}")),
    }
}

/// One kind for the columns of all datasets. Categories are joined in the order in which they first appear.
fn unify(opened: Vec<Opened>, name: &str) -> Result<(ColumnKind, Vec<Part>), StoreError> {
    let wrong = |found: String, expected: &str| StoreError::WrongKind {
        array: name.to_owned(),
        found,
        expected: expected.to_owned(),
    };
    let mut all = opened.into_iter();
    let Some(first) = all.next() else {
        return Err(wrong("empty".to_owned(), "a collection needs at least one dataset"));
    };
    let (mut kind, mut parts) = (first.kind, vec![first.part]);
    for Opened { mut part, kind: other } in all {
        match (&mut kind, other) {
            (
                ColumnKind::Categorical { categories, ordered },
                ColumnKind::Categorical { categories: more, ordered: o },
            ) => {
                *ordered &= o && *categories == more;
                part.codes = join_categories(categories, more);
            }
            (ColumnKind::Number { dtype, integer }, ColumnKind::Number { dtype: d, integer: i }) => {
                if *dtype != d {
                    let wider = if *integer && i { "int64" } else { "float64" };
                    wider.clone_into(dtype);
                }
                *integer &= i;
            }
            (one, other) if *one == other => {}
            (one, other) => {
                let found = format!("{} in one dataset and {} in another", one.name(), other.name());
                return Err(wrong(found, "all datasets of a collection must agree"));
            }
        }
        parts.push(part);
    }
    Ok((kind, parts))
}

/// Adds the new categories of `more`, and says where each of `more` is now.
fn join_categories(categories: &mut Vec<String>, more: Vec<String>) -> Vec<i32> {
    let mut places: HashMap<String, i32> = categories.iter().cloned().zip(0..).collect();
    let mut codes = Vec::with_capacity(more.len());
    for category in more {
        let next = i32::try_from(categories.len()).unwrap_or(i32::MAX);
        let code = *places.entry(category.clone()).or_insert(next);
        if code == next {
            categories.push(category);
        }
        codes.push(code);
    }
    codes
}

#[cfg(test)]
#[path = "columns_tests.rs"]
mod tests;
