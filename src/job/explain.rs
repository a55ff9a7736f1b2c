//! What a plan says of the pairs that are compared, and why.

use serde_json::{Value, json};

use super::approach::Approach;
use super::planned::Planned;
use super::report::{duration, grouped, pairs};
use super::sample::plan_sample;
use crate::error::Error;
use crate::plan::search::SearchPlan;
use crate::units::ByteCount;

/// Which pairs are compared, for people and programs.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// exact or ivf.
    pub method: &'static str,
    /// (what, value) as a person reads them, in order.
    pub lines: Vec<(String, String)>,
    /// The same for programs.
    pub json: Value,
    /// The plan of searching a sample exactly, where that is done.
    pub sample: Option<SearchPlan>,
}

impl Explained {
    /// What there is to say of a search.
    ///
    /// # Errors
    /// A budget that is too small for the sample.
    pub fn new(planned: &Planned<'_>) -> Result<Self, Error> {
        let method = planned.approach.method();
        let mut explained = Self { method, lines: Vec::new(), json: Value::Null, sample: None };
        if let Some(because) = &planned.because {
            explained.add("method", format!("{method}: {because}"));
        }
        let Some(through) = &planned.through else { return Ok(explained) };
        explained.add("index", format!("{}, {}", through.name, through.index.encoding().name()));
        if through.refines(planned.request) {
            let candidates = planned.candidates();
            explained
                .add("refined", format!("the exact distances of {candidates} candidates each, from the reference"));
        }
        let mut samples = 1_u32;
        let lists = grouped(through.lists.len() as u64);
        match planned.approach {
            Approach::Near { nprobe, guess } => {
                let recall = planned.request.how.probes.recall().filter(|_| guess);
                samples += u32::from(guess);
                explained.add("lists", match recall {
                    Some(recall) => format!(
                        "about {} of {lists}: as many as find {recall} of the neighbours of a sample, which is searched first",
                        grouped(nprobe as u64)
                    ),
                    None => format!("the nearest {} of {lists}", grouped(nprobe as u64)),
                });
                let sample = plan_sample(planned)?;
                let found = format!(
                    "{} cells of the query searched exactly: {} pairs, {} read, {}",
                    grouped(sample.block_rows),
                    pairs(sample.pairs),
                    ByteCount(times(samples, sample.bytes_read.1)),
                    duration(f64::from(samples) * sample.seconds)
                );
                explained.add(if guess { "calibration and audit" } else { "audit" }, found);
                explained.sample = Some(sample);
            }
            _ => explained.add("lists", format!("of {lists}, all that may hold a neighbour; pairs are at most")),
        }
        let nprobe = match planned.approach {
            Approach::Near { nprobe, .. } => Some(nprobe),
            _ => None,
        };
        explained.json = json!({
            "path": through.name,
            "lists": through.lists.len(),
            "encoding": through.index.encoding().name(),
            "refined": through.refines(planned.request),
            "candidates": planned.candidates().get(),
            "nprobe": nprobe,
            "nprobe_is_a_guess": matches!(planned.approach, Approach::Near { guess: true, .. }),
            "samples_bytes_read": explained.sample.as_ref().map(|sample| times(samples, sample.bytes_read.1)),
            "samples_seconds": explained.sample.as_ref().map(|sample| f64::from(samples) * sample.seconds),
        });
        Ok(explained)
    }

    fn add(&mut self, what: &str, value: String) {
        self.lines.push((what.to_owned(), value));
    }
}

/// Bytes of so many samples.
fn times(samples: u32, bytes: u64) -> u64 {
    u64::from(samples).saturating_mul(bytes)
}
