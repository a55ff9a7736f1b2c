//! What a plan says of the pairs that are compared, and why.

use serde_json::{Value, json};

use super::approach::{Approach, Near, Through};
use super::cache::OwnIndex;
use super::planned::Planned;
use super::report::{duration, grouped, pairs};
use super::sample::plan_sample;
use crate::error::Error;
use crate::plan::index::IndexPlan;
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
    /// The plan of building an index first, where that is done.
    pub building: Option<IndexPlan>,
}

impl Explained {
    /// What there is to say of a search.
    ///
    /// # Errors
    /// A budget that is too small for the sample.
    pub fn new(planned: &Planned<'_>) -> Result<Self, Error> {
        let method = planned.approach.method();
        let (lines, json) = (Vec::new(), Value::Null);
        let mut explained = Self { method, lines, json, sample: None, building: None };
        if let Some(because) = &planned.because {
            explained.add("method", format!("{method}: {because}"));
        }
        match (&planned.through, &planned.own_index) {
            (Some(through), own) => explained.through(planned, through, own.is_some())?,
            (None, Some(own)) => explained.built_first(planned, own)?,
            (None, None) if planned.graph.is_some() => explained.graph(planned)?,
            (None, None) => {}
        }
        Ok(explained)
    }

    /// Of a search through an index that is there.
    fn through(&mut self, planned: &Planned<'_>, through: &Through, own: bool) -> Result<(), Error> {
        let of = if own { ", of an earlier search of this reference" } else { "" };
        self.add("index", format!("{}, {}{of}", through.name, through.index.encoding().name()));
        let refines = through.refines(planned.request);
        if refines {
            let candidates = planned.candidates();
            self.add("refined", format!("the exact distances of {candidates} candidates each, from the reference"));
        }
        let lists = through.lists.len();
        if planned.approach == Approach::Within {
            let lists = grouped(lists as u64);
            self.add("lists", format!("of {lists}, those that may hold a neighbour; the pairs below are the most"));
        }
        self.near(planned, lists)?;
        self.tell(
            planned,
            json!({
                "path": through.name,
                "lists": lists,
                "encoding": through.index.encoding().name(),
                "refined": refines,
                "candidates": planned.candidates().get(),
                "built_first": false,
            }),
        );
        Ok(())
    }

    /// Of a search through an index that it builds first.
    fn built_first(&mut self, planned: &Planned<'_>, own: &OwnIndex) -> Result<(), Error> {
        let plan = &own.plan;
        let (aside, index) = plan.bytes_written;
        let lists = usize::try_from(own.lists).unwrap_or(usize::MAX);
        self.add("index", format!("none is given, so one is built first, in {}", own.path.display()));
        self.add(
            "building it",
            format!(
                "{} lists, {}, {} of host memory; writes {} that are removed again and {} that are kept",
                grouped(own.lists),
                duration(plan.seconds),
                ByteCount(plan.memory().total()),
                ByteCount(aside),
                ByteCount(index)
            ),
        );
        self.near(planned, lists)?;
        self.tell(
            planned,
            json!({
                "path": own.path.display().to_string(),
                "lists": lists,
                "encoding": "f32",
                "refined": false,
                "candidates": planned.candidates().get(),
                "built_first": true,
                "building": {
                    "seconds": plan.seconds,
                    "pairs": plan.pairs,
                    "memory_bytes": plan.memory().total(),
                    "bytes_read": { "reference": plan.bytes_read.0, "put_aside": plan.bytes_read.1 },
                    "bytes_written": { "put_aside": aside, "index": index },
                },
            }),
        );
        self.building = Some(plan.clone());
        Ok(())
    }

    /// Of a search through a graph.
    fn graph(&mut self, planned: &Planned<'_>) -> Result<(), Error> {
        let parameters = planned.graph_parameters();
        let rows = planned.inputs.references.source.rows();
        let number = |key: &str| grouped(parameters[key].as_u64().unwrap_or(0));
        let graphs =
            if number("graphs") == "1" { "one graph".to_owned() } else { format!("{} graphs", number("graphs")) };
        self.add(
            "graph",
            format!(
                "{graphs} of all {} references, built in memory first: M {}, ef_construction {}, ef {}; {}",
                grouped(rows),
                number("m"),
                number("ef_construction"),
                number("ef"),
                duration(planned.building_seconds())
            ),
        );
        self.audited(planned, false)?;
        let seconds = self.sample.as_ref().map(|sample| sample.seconds);
        self.json = json!({ "hnsw": parameters, "samples_seconds": seconds });
        Ok(())
    }

    /// How many lists are visited, and how that is found out and checked.
    fn near(&mut self, planned: &Planned<'_>, lists: usize) -> Result<(), Error> {
        let Approach::Near(Near { nprobe, horizon, guess, .. }) = planned.approach else { return Ok(()) };
        let (nprobe, lists) = (grouped(nprobe as u64), grouped(lists as u64));
        let within = horizon.map_or(String::new(), |times| format!(" at most, none beyond a horizon of {times}"));
        let recall = planned.request.how.probes.recall().filter(|_| guess);
        self.add(
            "lists",
            match recall {
                Some(recall) => format!(
                    "about {nprobe} of {lists}: as many as find {recall} of the neighbours of a sample, which is searched \
                     first"
                ),
                None => format!("the nearest {nprobe} of {lists}{within}"),
            },
        );
        self.audited(planned, guess)
    }

    /// The sample, or the two together, that are searched exactly.
    fn audited(&mut self, planned: &Planned<'_>, guess: bool) -> Result<(), Error> {
        let sample = plan_sample(planned)?;
        let found = format!(
            "{} cells of the query searched exactly: {} pairs, {} read, {}",
            grouped(sample.block_rows),
            pairs(sample.pairs),
            ByteCount(sample.bytes_read.1),
            duration(sample.seconds)
        );
        self.add(if guess { "calibration and audit" } else { "audit" }, found);
        self.sample = Some(sample);
        Ok(())
    }

    /// The same for programs: what is known of the index, and how it is searched.
    fn tell(&mut self, planned: &Planned<'_>, index: Value) {
        let near = if let Approach::Near(near) = planned.approach { Some(near) } else { None };
        let guess = near.is_some_and(|near| near.guess);
        self.json = index;
        self.json["nprobe"] = json!(near.map(|near| near.nprobe));
        self.json["horizon"] = json!(near.and_then(|near| near.horizon));
        self.json["nprobe_is_a_guess"] = json!(guess);
        self.json["samples_bytes_read"] = json!(self.sample.as_ref().map(|sample| sample.bytes_read.1));
        self.json["samples_seconds"] = json!(self.sample.as_ref().map(|sample| sample.seconds));
    }

    fn add(&mut self, what: &str, value: String) {
        self.lines.push((what.to_owned(), value));
    }
}
