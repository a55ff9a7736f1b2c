//! Presence scores: one pass over the neighbours in row order, sums kept for every reference, scores at the end.

use serde_json::json;

use super::columns::{Categories, categories};
use super::mapping::Weighing;
use super::output::Output;
use super::request::PresenceRequest;
use super::run::Run;
use crate::error::{Error, JobError};
use crate::schedule::Part;
use crate::schedule::blocks::{unit_count, unit_rows};
use crate::schedule::progress::{Stage, Step};
use crate::schedule::units::pipeline;
use crate::store::anndata::AnnData;
use crate::store::results::{ArraySpec, Kind, RowArray, Values, encoding_attributes, write_group};
use crate::topk::TopK;
use crate::transfer::presence::{Presence, PresenceOf, PresenceOptions};
use crate::units::INNER_ROWS;
use crate::weights::gauss_weights;

/// Writes `var/presence_raw`, `var/presence_score` and, by groups, `varm/presence_score`. Returns the `var` columns.
///
/// # Errors
/// The first error of reading or writing; interruption, after which this stage begins again.
pub fn run(
    output: &Output,
    run: &Run<'_>,
    weighing: &Weighing,
    request: &PresenceRequest,
    queries: Option<&AnnData>,
) -> Result<Vec<String>, Error> {
    let groups = match (&request.by, queries) {
        (None, _) => None,
        (Some(key), Some(cells)) => Some(categories(cells, key)?),
        (Some(_), None) => {
            return Err(JobError::Refused("--presence-by needs the query to be an AnnData store".to_owned()).into());
        }
    };
    let presence = sum(run, weighing, groups.as_ref())?;
    let options = PresenceOptions { log: request.log, percentiles: request.percentiles, min_max: request.min_max };
    write(output, &presence, &options, groups.as_ref())?;
    Ok(vec!["presence_score".to_owned(), "presence_raw".to_owned()])
}

/// Neighbours, their weights, and the groups of the query rows.
type Piece = (TopK, Vec<f64>, Option<Vec<i32>>);

fn sum(run: &Run<'_>, weighing: &Weighing, groups: Option<&Categories>) -> Result<Presence, Error> {
    let rows = weighing.neighbours.rows();
    let references = usize::try_from(weighing.references).unwrap_or(usize::MAX);
    let mut presence = Presence::new(references, groups.map_or(0, |groups| groups.names.len()));
    let pieces: Vec<u64> = (0..rows.div_ceil(INNER_ROWS)).collect();
    let step = |rows: u64| Step { rows, ..Step::default() };
    run.observer.begin(Stage::Presence, step(rows), step(0));
    let piece_rows = |piece: u64| piece * INNER_ROWS..rows.min((piece + 1) * INNER_ROWS);
    let compute = |piece: u64| -> Result<Piece, Error> {
        run.pool.install(|| {
            let top = weighing.read(piece_rows(piece))?;
            let weights = gauss_weights(&weighing.statistics, &top);
            let groups = groups.map(|groups| groups.read(piece_rows(piece))).transpose()?;
            Ok((top, weights, groups))
        })
    };
    let add = |piece: u64, (top, weights, groups): Piece| {
        run.clock.time(Part::Map, || run.pool.install(|| presence.add(&top, &weights, groups.as_deref())))?;
        let rows = piece_rows(piece);
        run.observer.advance(Stage::Presence, step(rows.end - rows.start));
        Ok(())
    };
    let result = pipeline(&pieces, run.stop, compute, add);
    run.observer.end(Stage::Presence);
    result?;
    Ok(presence)
}

fn write(
    output: &Output,
    presence: &Presence,
    options: &PresenceOptions,
    groups: Option<&Categories>,
) -> Result<(), Error> {
    let references = presence.references() as u64;
    let column = |name: &str, kind| {
        RowArray::create(&output.folder, ArraySpec::rows(&format!("var/{name}"), kind, references, None))
    };
    let (raw, score) = (column("presence_raw", Kind::F64)?, column("presence_score", Kind::F32)?);
    let by_group = groups.map(|groups| group_columns(output, groups, references)).transpose()?.unwrap_or_default();
    let scale = presence.scale(PresenceOf::All, options)?;
    let group_scales: Vec<_> =
        (0..by_group.len()).map(|group| presence.scale(PresenceOf::Group(group), options)).collect::<Result<_, _>>()?;
    for shard in 0..unit_count(references) {
        let rows = unit_rows(shard, references);
        let index = |row: u64| usize::try_from(row).unwrap_or(usize::MAX);
        let rows = index(rows.start)..index(rows.end);
        raw.write_shard(shard, Values::F64(presence.raw(PresenceOf::All, rows.clone()).collect()))?;
        score.write_shard(shard, Values::F32(presence.scores(PresenceOf::All, &scale, rows.clone())))?;
        for (group, (array, scale)) in by_group.iter().zip(&group_scales).enumerate() {
            let scores = presence.scores(PresenceOf::Group(group), scale, rows.clone());
            array.write_shard(shard, Values::F32(scores))?;
        }
    }
    Ok(())
}

/// `varm/presence_score` as a data frame, one column per group, as CellMapper has it.
fn group_columns(output: &Output, groups: &Categories, references: u64) -> Result<Vec<RowArray>, Error> {
    let mut attributes = encoding_attributes("dataframe", "0.2.0");
    attributes.insert("_index".to_owned(), json!("_index"));
    attributes.insert("column-order".to_owned(), json!(groups.names));
    write_group(&output.folder, "varm/presence_score", &attributes)?;
    let column = |name: &String| {
        let path = format!("varm/presence_score/{}", name.replace('/', "_"));
        Ok(RowArray::create(&output.folder, ArraySpec::rows(&path, Kind::F32, references, None))?)
    };
    groups.names.iter().map(column).collect()
}
