//! Copies the names of an axis, unit by unit.

use std::sync::Arc;

use super::manifest::Marker;
use super::output::Output;
use super::run::Run;
use crate::error::{Error, StoreError};
use crate::schedule::Part;
use crate::schedule::blocks::{unit_count, unit_rows};
use crate::schedule::units::pipeline;
use crate::store::anndata::AnnData;
use crate::store::folder::{FileRecord, Folder};
use crate::store::results::{ArraySpec, Kind, RowArray, Values};

/// `obs/_index` or `var/_index`, being written.
#[derive(Debug)]
pub struct NameWriter<'a> {
    array: RowArray,
    rows: u64,
    /// `None` writes a range index.
    names: Option<&'a AnnData>,
}

impl<'a> NameWriter<'a> {
    /// Creates the index of `axis` (`obs` or `var`), from the names of these cells where they are copied.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn create(folder: &Arc<Folder>, axis: &str, rows: u64, names: Option<&'a AnnData>) -> Result<Self, Error> {
        let kind = if names.is_some() { Kind::String } else { Kind::I64 };
        Self::create_as(kind, folder, axis, rows, names)
    }

    /// The same for a frame in `obsm` or `varm`, whose index must be what AnnData makes of the axis' own: text, also
    /// where rows are numbered.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn create_text(
        folder: &Arc<Folder>,
        frame: &str,
        rows: u64,
        names: Option<&'a AnnData>,
    ) -> Result<Self, Error> {
        Self::create_as(Kind::String, folder, frame, rows, names)
    }

    fn create_as(
        kind: Kind,
        folder: &Arc<Folder>,
        axis: &str,
        rows: u64,
        names: Option<&'a AnnData>,
    ) -> Result<Self, Error> {
        let spec = ArraySpec::rows(&format!("{axis}/_index"), kind, rows, None);
        Ok(Self { array: RowArray::create(folder, spec)?, rows, names })
    }

    /// Writes the names of one unit of rows.
    ///
    /// # Errors
    /// Any I/O error of either side.
    pub fn write_unit(&self, unit: u64) -> Result<FileRecord, Error> {
        let rows = unit_rows(unit, self.rows);
        let values = match self.names {
            Some(cells) => Values::Strings(cells.names(rows)?),
            None if self.array.spec().kind == Kind::String => {
                Values::Strings(rows.map(|row| row.to_string()).collect())
            }
            None => Values::I64(rows.map(i64::try_from).collect::<Result<_, _>>().map_err(|_| StoreError::Zarr {
                array: self.array.spec().path.clone(),
                why: "more rows than int64 counts".to_owned(),
            })?),
        };
        Ok(self.array.write_shard(unit, values)?)
    }
}

/// Writes the names of a whole axis, or what is missing of it.
///
/// # Errors
/// Any I/O error of either side; interruption.
pub fn write_axis(output: &Output, run: &Run<'_>, axis: &str, rows: u64, names: Option<&AnnData>) -> Result<(), Error> {
    let writer = NameWriter::create(&output.folder, axis, rows, names)?;
    let stage = format!("{axis}-names");
    let done = output.done(&stage)?;
    let todo: Vec<u64> = (0..unit_count(rows)).filter(|unit| !done.contains_key(unit)).collect();
    pipeline(
        &todo,
        run.stop,
        |_| Ok(()),
        |unit, ()| {
            let record = run.clock.time(Part::Write, || writer.write_unit(unit))?;
            output.mark(&stage, &Marker { unit, files: vec![record.into()], ..Marker::empty() })
        },
    )
}
