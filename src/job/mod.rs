//! What the user asked for, checked and bound to objects; work units; manifest. The only serde.

pub mod request;

use std::path::Path;

use crate::error::{Error, JobError};
use crate::schedule::progress::{Observer, Stop};
use request::{MapRequest, Outcome, PlanReport, SearchRequest, TransferRequest};

fn unbuilt() -> Error {
    JobError::Refused("not built yet".to_owned()).into()
}

/// The plan of a search or mapping, without running it.
///
/// # Errors
/// Whatever would stop the run before it begins.
pub fn plan_search(_request: &SearchRequest) -> Result<PlanReport, Error> {
    Err(unbuilt())
}

/// The plan of a mapping, without running it.
///
/// # Errors
/// Whatever would stop the run before it begins.
pub fn plan_map(_request: &MapRequest) -> Result<PlanReport, Error> {
    Err(unbuilt())
}

/// Neighbours only.
///
/// # Errors
/// Any of the library's.
pub fn search(_request: &SearchRequest, _observer: &dyn Observer, _stop: &Stop) -> Result<Outcome, Error> {
    Err(unbuilt())
}

/// Neighbours, weights and transfer.
///
/// # Errors
/// Any of the library's.
pub fn map(_request: &MapRequest, _observer: &dyn Observer, _stop: &Stop) -> Result<Outcome, Error> {
    Err(unbuilt())
}

/// Weights and transfer from an earlier search.
///
/// # Errors
/// Any of the library's.
pub fn transfer(_request: &TransferRequest, _observer: &dyn Observer, _stop: &Stop) -> Result<Outcome, Error> {
    Err(unbuilt())
}

/// Every chunk present, checksums right, rows sorted and in range.
///
/// # Errors
/// A store that cannot be read at all. What is wrong inside it is in the report.
pub fn verify(_out: &Path, _observer: &dyn Observer) -> Result<request::Verification, Error> {
    Err(unbuilt())
}

/// The plan of a transfer, without running it.
///
/// # Errors
/// Whatever would stop the run before it begins.
pub fn plan_transfer(_request: &TransferRequest) -> Result<PlanReport, Error> {
    Err(unbuilt())
}

/// How well transferred labels agree with known ones.
///
/// # Errors
/// A column that is missing or is no label, stores with different numbers of cells.
pub fn evaluate(_request: &request::EvaluateRequest) -> Result<request::Evaluation, Error> {
    Err(unbuilt())
}
