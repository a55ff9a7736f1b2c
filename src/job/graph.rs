//! The graph of a search: what it is made with, what it did, and what takes its place for a sample.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::planned::Planned;
use super::report::{duration, grouped};
use super::request::{GraphOptions, SearchRequest};
use super::run::Run;
use crate::engine::Engine;
use crate::engine::hnsw::GraphCounts;
use crate::plan::graph::{GraphInput, graphs};

/// The graph of a search, and what searches without one: a sample, to see what the graph found.
pub struct Graph {
    /// What the engine of the graph tells.
    pub counts: Arc<GraphCounts>,
    /// Searches exactly.
    pub exact: Box<dyn Engine>,
}

/// What the plan must know of it.
#[must_use]
pub fn graph_input(request: &SearchRequest, run: &Run<'_>) -> GraphInput {
    let GraphOptions { m, ef_construction, ef } = request.how.graph;
    let ef = u64::from(ef).max(request.k.get() as u64);
    GraphInput { m: m.into(), ef_construction: ef_construction.into(), ef, threads: run.threads as u64 }
}

impl Planned<'_> {
    /// What searches without a graph or an index.
    #[must_use]
    pub fn exact_engine(&self) -> &dyn Engine {
        self.graph.as_ref().map_or(&*self.opened.engine, |graph| &*graph.exact)
    }

    /// Lets go of the graph: what searches from now on compares every pair.
    pub fn drop_graph(&mut self) {
        if let Some(graph) = &mut self.graph {
            std::mem::swap(&mut self.opened.engine, &mut graph.exact);
        }
        self.graph = None;
    }

    /// What a graph is made and searched with.
    #[must_use]
    pub fn graph_parameters(&self) -> Value {
        let GraphOptions { m, ef_construction, ef } = self.request.how.graph;
        let graphs = graphs(self.inputs.references.source.rows());
        json!({ "m": m, "ef_construction": ef_construction, "ef": ef, "graphs": graphs })
    }

    /// What there is to tell of the graph after a search.
    #[must_use]
    pub fn graph_told(&self) -> Option<Value> {
        let counts = &self.graph.as_ref()?.counts;
        let mut told = self.graph_parameters();
        told["building_seconds"] = json!(counts.building_ms.load(Ordering::Relaxed) as f64 / 1e3);
        told["pairs"] = json!(counts.pairs.load(Ordering::Relaxed));
        told["queries_compared_with_all"] = json!(counts.compared_with_all.load(Ordering::Relaxed));
        Some(told)
    }

    /// How long building the graph is expected to take.
    #[must_use]
    pub fn building_seconds(&self) -> f64 {
        let rows = self.input.references.rows;
        let effort = self.input.graph.map_or(0.0, |graph| graph.building(rows) * graph.waiting(rows));
        effort / self.input.engine.pairs_per_second
    }

    /// Says what is done before anything is found.
    pub fn tell_graph(&self, run: &Run<'_>) {
        if self.graph.is_some() {
            let rows = grouped(self.inputs.references.source.rows());
            let time = duration(self.building_seconds());
            run.observer.note(&format!("a graph of {rows} references is built first, in memory: {time}"));
        }
    }
}
