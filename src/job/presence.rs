//! Presence scores: one pass over the neighbours in row order, sums kept for every reference, scores at the end.

use std::collections::HashSet;

use serde_json::json;

use super::columns::{Categories, categories};
use super::mapping::Weighing;
use super::names::NameWriter;
use super::output::Output;
use super::request::PresenceRequest;
use super::run::Run;
use super::wanted::Sides;
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
    sides: &Sides<'_>,
) -> Result<Vec<String>, Error> {
    let groups = match (&request.by, sides.queries) {
        (None, _) => None,
        (Some(key), Some(cells)) => Some(categories(cells, key)?),
        (Some(_), None) => {
            return Err(JobError::Refused("--presence-by needs the query to be an AnnData store".to_owned()).into());
        }
    };
    let presence = sum(run, weighing, groups.as_ref())?;
    let options = PresenceOptions { log: request.log, percentiles: request.percentiles, min_max: request.min_max };
    write(output, &presence, &options, groups.as_ref(), sides)?;
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
    sides: &Sides<'_>,
) -> Result<(), Error> {
    let references = presence.references() as u64;
    let column = |name: &str, kind| {
        RowArray::create(&output.folder, ArraySpec::rows(&format!("var/{name}"), kind, references, None))
    };
    let (raw, score) = (column("presence_raw", Kind::F64)?, column("presence_score", Kind::F32)?);
    let frame = groups.map(|groups| Frame::create(output, groups, references, sides.reference_names)).transpose()?;
    let by_group = frame.as_ref().map_or(&[][..], |frame| &frame.columns);
    let scale = presence.scale(PresenceOf::All, options)?;
    let group_scales: Vec<_> =
        (0..by_group.len()).map(|group| presence.scale(PresenceOf::Group(group), options)).collect::<Result<_, _>>()?;
    for shard in 0..unit_count(references) {
        let rows = unit_rows(shard, references);
        let index = |row: u64| usize::try_from(row).unwrap_or(usize::MAX);
        let rows = index(rows.start)..index(rows.end);
        raw.write_shard(shard, Values::F64(presence.raw(PresenceOf::All, rows.clone()).collect()))?;
        score.write_shard(shard, Values::F32(presence.scores(PresenceOf::All, &scale, rows.clone())))?;
        if let Some(frame) = &frame {
            frame.index.write_unit(shard)?;
        }
        for (group, (array, scale)) in by_group.iter().zip(&group_scales).enumerate() {
            let scores = presence.scores(PresenceOf::Group(group), scale, rows.clone());
            array.write_shard(shard, Values::F32(scores))?;
        }
    }
    Ok(())
}

/// `varm/presence_score` as a data frame, one column per group, as CellMapper has it.
struct Frame<'a> {
    index: NameWriter<'a>,
    columns: Vec<RowArray>,
}

impl<'a> Frame<'a> {
    fn create(
        output: &Output,
        groups: &Categories,
        references: u64,
        names: Option<&'a AnnData>,
    ) -> Result<Self, Error> {
        const PATH: &str = "varm/presence_score";
        let columns = column_names(&groups.names);
        let mut attributes = encoding_attributes("dataframe", "0.2.0");
        attributes.insert("_index".to_owned(), json!("_index"));
        attributes.insert("column-order".to_owned(), json!(columns));
        write_group(&output.folder, PATH, &attributes)?;
        let column = |name: &String| {
            RowArray::create(&output.folder, ArraySpec::rows(&format!("{PATH}/{name}"), Kind::F32, references, None))
        };
        Ok(Self {
            index: NameWriter::create_text(&output.folder, PATH, references, names)?,
            columns: columns.iter().map(column).collect::<Result<_, _>>()?,
        })
    }
}

/// Categories as names of arrays, in the same order, each another one: no `/`, and none that zarr or AnnData keep for
/// themselves.
fn column_names(categories: &[String]) -> Vec<String> {
    let mut taken = HashSet::new();
    let mut unique = |category: &String| {
        let plain = category.replace('/', "_");
        let reserved = plain.trim_matches('.').is_empty() || plain.starts_with("__");
        let base = if reserved || plain == "_index" || plain == "zarr.json" { format!("group {plain}") } else { plain };
        let mut name = base.clone();
        let mut copy = 1;
        while !taken.insert(name.clone()) {
            copy += 1;
            name = format!("{base} ({copy})");
        }
        name
    };
    categories.iter().map(&mut unique).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_category_has_a_column_of_its_own() {
        let names = ["T/NK", "T_NK", "B", "_index", "", "..", "__x", "zarr.json"].map(str::to_owned);
        let expected = ["T_NK", "T_NK (2)", "B", "group _index", "group ", "group ..", "group __x", "group zarr.json"];
        assert_eq!(column_names(&names), expected);
    }
}
