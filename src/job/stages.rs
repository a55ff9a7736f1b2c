//! The mapping stages in their order: transfer, matrix, presence. Each goes on where it was left.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::manifest::Marker;
use super::mapping::{Weighing, statistics};
use super::matrix::Offsets;
use super::output::{Output, read_markers};
use super::request::MappingRequest;
use super::run::Run;
use super::wanted::{Sides, self_edges};
use super::{map, matrix, presence, search};
use crate::error::Error;
use crate::plan::mapping::MappingPlan;
use crate::schedule::blocks::{unit_count, unit_rows};
use crate::store::folder::Folder;
use crate::store::neighbours::Neighbours;

/// What the stages added to the two axes and to `uns`.
#[derive(Debug, Default)]
pub struct Mapped {
    /// Columns of `obs`.
    pub obs: Vec<String>,
    /// Columns of `var`.
    pub var: Vec<String>,
    /// Entries for the manifest.
    pub uns: Map<String, Value>,
}

/// Runs every stage that the mapping asks for on the neighbours in `from`.
///
/// # Errors
/// The first error of reading, mapping or writing; interruption.
pub fn run(
    output: &Output,
    run: &Run<'_>,
    from: &Arc<Folder>,
    sides: &Sides<'_>,
    mapping: &MappingRequest,
    plan: &MappingPlan,
) -> Result<Mapped, Error> {
    let neighbours = Neighbours::open(from)?;
    let units = unit_count(neighbours.rows());
    let markers = read_markers(from, search::STAGE)?;
    let weighing = Weighing {
        references: sides.reference_rows,
        kernel: mapping.kernel,
        statistics: statistics(markers.values(), units)?,
        self_edges: self_edges(mapping),
        neighbours,
    };
    let mut mapped = Mapped::default();
    let columns = map::columns(output, sides.references, mapping, sides.rows)?;
    map::run(output, run, &weighing, &columns, usize::try_from(plan.pieces).unwrap_or(1))?;
    for column in &columns {
        mapped.obs.extend(column.obs_names());
        if let Some((name, codes)) = column.probability_columns() {
            mapped.uns.insert(format!("{name}_columns"), json!(codes));
        }
    }
    drop(columns);
    if mapping.matrix {
        let counts = markers.values().map(|marker| entries(marker, &weighing));
        matrix::run(output, run, &weighing, &Offsets::new(counts))?;
    }
    if let Some(request) = &mapping.presence {
        mapped.var = presence::run(output, run, &weighing, request, sides)?;
    }
    let (statistics, found) = (&weighing.statistics, weighing.statistics.count);
    mapped.uns.insert(
        "distances".to_owned(),
        json!({
            "count": found,
            "mean": statistics.mean,
            "std": statistics.std(),
            "min": statistics.min,
            "max": statistics.max,
        }),
    );
    Ok(mapped)
}

/// Entries of M of a unit: its neighbours, and the diagonal where that is added.
fn entries(marker: &Marker, weighing: &Weighing) -> u64 {
    let rows = unit_rows(marker.unit, weighing.neighbours.rows());
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count, kept as f64
    let neighbours = marker.statistics.as_ref().map_or(0, |statistics| statistics.count as u64);
    neighbours + if weighing.self_edges { rows.end - rows.start } else { 0 }
}
