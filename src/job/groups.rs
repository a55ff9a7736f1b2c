//! The groups of leave-one-group-out: one numbering for both sides.

use std::collections::HashMap;
use std::ops::Range;

use super::columns::{Categories, categories};
use super::inputs::Inputs;
use crate::engine::NO_GROUP;
use crate::error::{Error, JobError};
use crate::store::anndata::AnnData;

/// What is known of the cells of both sides, for --exclude-group.
///
/// # Errors
/// [`JobError::Refused`] for bare arrays.
pub fn annotated(inputs: &Inputs) -> Result<(&AnnData, &AnnData), Error> {
    let both = inputs.queries.annotations.as_ref().zip(inputs.references.annotations.as_ref());
    both.ok_or_else(|| JobError::Refused("--exclude-group needs AnnData stores on both sides".to_owned()).into())
}

/// Groups of both sides, by the name of the category.
pub struct Groups {
    /// Group of every reference row.
    pub references: Vec<u32>,
    queries: Categories,
    numbers: HashMap<String, u32>,
}

impl Groups {
    /// Reads `obs/KEY` of the references and opens that of the queries.
    ///
    /// # Errors
    /// A missing key, a column that is not categorical or text.
    pub fn open(queries: &AnnData, references: &AnnData, key: &str) -> Result<Self, Error> {
        let known = categories(references, key)?;
        let numbers: HashMap<String, u32> = (0_u32..).zip(&known.names).map(|(i, name)| (name.clone(), i)).collect();
        let codes = known.read(0..references.n_obs())?;
        let references = codes.into_iter().map(|code| u32::try_from(code).unwrap_or(NO_GROUP)).collect();
        Ok(Self { references, queries: categories(queries, key)?, numbers })
    }

    /// Reads the groups of query rows; a category the references do not have is no group.
    pub fn reader(&self) -> impl Fn(Range<u64>) -> Result<Vec<u32>, Error> + Sync {
        let of_code: Vec<u32> =
            self.queries.names.iter().map(|name| self.numbers.get(name).copied().unwrap_or(NO_GROUP)).collect();
        move |rows| {
            let codes = self.queries.read(rows)?;
            let group = |code: i32| -> Option<u32> { of_code.get(usize::try_from(code).ok()?).copied() };
            Ok(codes.into_iter().map(|code| group(code).unwrap_or(NO_GROUP)).collect())
        }
    }
}
