//! A search that is checked, planned, and bound to what searches.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde_json::{Value, json};

use super::approach::{Approach, Near, Through};
use super::cache::{Foreseen, OwnIndex};
use super::columns::check_categories;
use super::engine::{Opened, Subject};
use super::graph::{Graph, graph_input};
use super::groups::annotated;
use super::inputs::Inputs;
use super::manifest::Manifest;
use super::report::duration;
use super::request::{DeviceChoice, SearchRequest};
use super::run::Run;
use super::sample::{SAMPLE_ROWS, Sample, plan_sample};
use super::search::{copies_names, side};
use crate::error::{Error, JobError, PlanError};
use crate::plan::search::{SearchInput, SearchPlan, plan};
use crate::units::K;

/// What `auto` takes for quick: an exact search that is expected to take less needs no index.
const QUICK_SECONDS: f64 = 60.0;

/// A search that has been checked and planned.
pub struct Planned<'a> {
    /// What was asked.
    pub request: &'a SearchRequest,
    /// Both sides.
    pub inputs: Inputs,
    /// The index, where it is used and there.
    pub through: Option<Through>,
    /// The index that the search makes for itself, or that an earlier one made.
    pub own_index: Option<OwnIndex>,
    /// What is visited.
    pub approach: Approach,
    /// Why, where nobody said.
    pub because: Option<String>,
    /// How it runs.
    pub plan: SearchPlan,
    /// Where the time goes.
    pub opened: Opened,
    /// What its graph is made with and what it did, where there is one.
    pub graph: Option<Graph>,
    /// What happened to the engine that began, where another one had to go on.
    pub lost: Option<String>,
    /// The sample of the audit, without values, where it was searched already.
    pub to_audit: Option<Sample>,
    /// What the plan follows from.
    pub input: SearchInput,
    /// Pairs compared by this run.
    pub pairs: AtomicU64,
    /// Threads of this run.
    pub threads: usize,
}

/// What approaches are laid out for.
struct Layout<'a> {
    request: &'a SearchRequest,
    inputs: &'a Inputs,
    through: Option<&'a Through>,
    run: &'a Run<'a>,
}

/// What an approach takes.
struct Laid {
    opened: Opened,
    input: SearchInput,
    plan: SearchPlan,
    /// The index that has to be built for it.
    own_index: Option<OwnIndex>,
    graph: Option<Graph>,
}

impl Layout<'_> {
    /// The first of two approaches where it is quick, or quicker than the other. Says why where there was a choice.
    fn choose(&self, candidates: &[Approach]) -> Result<(Approach, Option<String>, Laid), Error> {
        let [first, second] = candidates else {
            let only = candidates.first().copied().unwrap_or(Approach::All);
            return Ok((only, None, self.lay(only)?));
        };
        let every_pair = match self.lay(*first) {
            Ok(laid) => laid,
            // Without an index there is nothing that needs less: its recall is checked by comparing every pair of a sample.
            Err(error) if self.through.is_none() => return Err(error),
            Err(_) => {
                let because = "the memory is too small to compare every pair".to_owned();
                return Ok((*second, Some(because), self.lay(*second)?));
            }
        };
        let seconds = every_pair.plan.seconds;
        let takes = format!("comparing every pair takes {}", duration(seconds));
        if seconds <= QUICK_SECONDS {
            return Ok((*first, Some(takes), every_pair));
        }
        let near = match self.lay(*second) {
            Ok(near) => near,
            // Nobody asked for an index.
            Err(Error::Plan(error)) if self.through.is_none() => {
                return Ok((*first, Some(format!("{takes}, and no index can be built: {error}")), every_pair));
            }
            Err(error) => return Err(error),
        };
        let sampling = 2.0 * SAMPLE_ROWS as f64 * self.inputs.references.source.rows() as f64;
        let building = near.own_index.as_ref().map_or(0.0, |index| index.plan.seconds);
        let near_seconds = building + near.plan.seconds + sampling / near.input.engine.pairs_per_second;
        let through =
            if near.own_index.is_some() { "building an index and searching through it" } else { "through the index" };
        let because = Some(format!("{takes}, {through} {}", duration(near_seconds)));
        Ok(if seconds <= near_seconds { (*first, because, every_pair) } else { (*second, because, near) })
    }

    fn lay(&self, approach: Approach) -> Result<Laid, Error> {
        if approach == Approach::Graph {
            return self.lay_graph();
        }
        let (request, run) = (self.request, self.run);
        let queries = &*self.inputs.queries.source;
        let pairs = queries.rows() as f64 * self.pairs_per_query(approach);
        let subject = Subject { metric: request.metric, dim: queries.dim(), k: request.k, pairs };
        let needs_index = self.through.is_none() && matches!(approach, Approach::Near(_));
        let own_index = needs_index.then(|| OwnIndex::plan(request, self.inputs, run)).transpose()?;
        let opened = Opened::new(&request.device, subject, run)?;
        let input = self.input(approach, &opened);
        match plan(&input) {
            // Nobody asked for the GPU.
            Err(error @ PlanError::DeviceBudget { .. }) if request.device.choice == DeviceChoice::Auto => {
                run.observer.note(&format!("the GPU cannot be used, so the CPU searches: {error}"));
                let opened = Opened::cpu(request.metric, run)?;
                let input = self.input(approach, &opened);
                let plan = plan(&input)?;
                Ok(Laid { opened, input, plan, own_index, graph: None })
            }
            planned => Ok(Laid { opened, input, plan: planned?, own_index, graph: None }),
        }
    }

    fn lay_graph(&self) -> Result<Laid, Error> {
        let counts = Arc::default();
        let opened = Opened::graph(self.request, &counts, self.run)?;
        let exact = Opened::cpu(self.request.metric, self.run)?.engine;
        let input = self.input(Approach::Graph, &opened);
        let plan = plan(&input)?;
        Ok(Laid { opened, input, plan, own_index: None, graph: Some(Graph { counts, exact }) })
    }

    fn pairs_per_query(&self, approach: Approach) -> f64 {
        let Approach::Near(near) = approach else { return self.inputs.references.source.rows() as f64 };
        let foreseen = Foreseen::of(self.inputs);
        let (lists, rows) = self
            .through
            .map_or((foreseen.lists, foreseen.rows_per_visit()), |t| (t.lists.len(), t.lists.rows_per_visit()));
        near.expected() * rows + lists as f64
    }

    fn input(&self, approach: Approach, opened: &Opened) -> SearchInput {
        let (queries, references) = (&*self.inputs.queries.source, &*self.inputs.references.source);
        let (dim, k) = (queries.dim(), self.request.k);
        let through = self.through.filter(|_| approach != Approach::All);
        let (rows, lists) = match (through, approach) {
            (Some(through), _) => {
                (through.side(), through.input(approach, self.request, side(references), &*opened.engine))
            }
            (None, Approach::Near(near)) => {
                let foreseen = Foreseen::of(self.inputs);
                (foreseen.side(), Some(foreseen.input(near, k, &*opened.engine)))
            }
            _ => (side(references), None),
        };
        SearchInput {
            queries: side(queries),
            references: rows,
            dim: dim as u64,
            k: k.get() as u64,
            groups: self.request.exclude_group.is_some(),
            names: copies_names(self.request.run.names, queries.rows()),
            written: true,
            lists,
            graph: (approach == Approach::Graph).then(|| graph_input(self.request, self.run)),
            engine: opened.engine.limits(dim, through.map_or(k, |through| through.candidates(self.request))),
            budget: self.run.budget,
        }
    }
}

impl<'a> Planned<'a> {
    /// Opens the inputs, makes the engine and plans. What an `earlier` run chose that goes on now is not chosen again: memory
    /// and devices may be others.
    ///
    /// # Errors
    /// Whatever would stop the search before it begins.
    pub fn new(request: &'a SearchRequest, earlier: Option<&Manifest>, run: &Run<'_>) -> Result<Self, Error> {
        let planned = Self::with(request, request.how.index.as_deref(), earlier, run)?;
        match planned.own_index {
            // What an earlier search built is as good as an index that is named.
            Some(own) if own.is_there => Self::through_own(request, own, earlier, run),
            _ => Ok(planned),
        }
    }

    /// Builds the index that the search needs and does not have, and plans again through it. Returns what there is to
    /// tell of that index.
    ///
    /// # Errors
    /// Those of building and opening an index; a budget that is too small for it as it is.
    pub fn build_index(self, earlier: Option<&Manifest>, run: &Run<'_>) -> Result<(Self, Option<Value>), Error> {
        let Some(own) = &self.own_index else { return Ok((self, None)) };
        if own.is_there {
            let told = own.build(run)?;
            return Ok((self, Some(told)));
        }
        let (request, own) = (self.request, own.clone());
        // The engine and its memory go before another is opened.
        drop(self);
        let told = own.build(run)?;
        Ok((Self::through_own(request, own, earlier, run)?, Some(told)))
    }

    fn through_own(
        request: &'a SearchRequest,
        own: OwnIndex,
        earlier: Option<&Manifest>,
        run: &Run<'_>,
    ) -> Result<Self, Error> {
        let planned = Self::with(request, Some(&own.path), earlier, run)?;
        Ok(Self { own_index: Some(own), ..planned })
    }

    fn with(
        request: &'a SearchRequest,
        index: Option<&Path>,
        earlier: Option<&Manifest>,
        run: &Run<'_>,
    ) -> Result<Self, Error> {
        let through = index.map(|path| Through::open(path, run)).transpose()?;
        let inputs = Inputs::open(request, through.as_ref(), &run.io)?;
        if let Some(key) = &request.exclude_group {
            let (queries, references) = annotated(&inputs)?;
            check_categories(references, key)?;
            check_categories(queries, key)?;
        }
        let mut candidates = match &through {
            Some(through) => Approach::through(&request.how, through, request.metric)?,
            None => Approach::without_index(&request.how, Foreseen::of(&inputs), request.metric)?,
        };
        if request.compat && through.is_none() {
            candidates.truncate(1);
        }
        let chosen = earlier.and_then(|earlier| earlier.parameters["method"].as_str());
        if let Some(&chosen) = candidates.iter().find(|approach| chosen == Some(approach.method())) {
            candidates = vec![chosen];
        }
        let layout = Layout { request, inputs: &inputs, through: through.as_ref(), run };
        let (approach, because, laid) = layout.choose(&candidates)?;
        if request.compat && !approach.is_exact() {
            let message = "--compat cellmapper-0.2.5 repeats an exact search; leave it out, or use --method exact";
            return Err(JobError::Refused(message.to_owned()).into());
        }
        let through = through.filter(|_| approach != Approach::All);
        let (lost, pairs) = (None, AtomicU64::new(0));
        let Laid { opened, input, plan, own_index, graph } = laid;
        let threads = run.threads;
        let planned = Self {
            request,
            inputs,
            through,
            own_index,
            approach,
            because,
            plan,
            opened,
            graph,
            lost,
            to_audit: None,
            input,
            pairs,
            threads,
        };
        planned.check_sample()?;
        Ok(planned)
    }

    /// Visits these lists from now on, and plans again for it.
    ///
    /// # Errors
    /// A plan that does not fit the budget.
    pub fn visit_lists(&mut self, near: Near, run: &Run<'_>) -> Result<(), Error> {
        self.approach = Approach::Near(near);
        self.plan_again(run)
    }

    /// Plans again, for another engine or approach.
    ///
    /// # Errors
    /// A plan that does not fit the budget.
    pub fn plan_again(&mut self, run: &Run<'_>) -> Result<(), Error> {
        let (request, inputs, through) = (self.request, &self.inputs, self.through.as_ref());
        self.input = Layout { request, inputs, through, run }.input(self.approach, &self.opened);
        self.plan = plan(&self.input)?;
        if let Some(sample) = &self.to_audit {
            let bytes = sample.rows.len() as u64 * (request.k.get() as u64 * 12 + 8);
            self.plan.memory.add("neighbours of the sample that is audited", bytes);
        }
        self.check_sample()
    }

    /// Whether the sample can be searched that an approximate search is measured by: better known before than after.
    fn check_sample(&self) -> Result<(), Error> {
        if !self.approach.is_exact() {
            plan_sample(self)?;
        }
        Ok(())
    }

    /// Host bytes of the lists of the index, for as long as the job goes on.
    #[must_use]
    pub fn lists_bytes(&self) -> u64 {
        let foreseen = || self.own_index.as_ref().map_or(0, |_| Foreseen::of(&self.inputs).bytes());
        self.through.as_ref().map_or_else(foreseen, Through::bytes)
    }

    /// Neighbours per query that are searched; no more than are kept, unless they are refined.
    #[must_use]
    pub fn candidates(&self) -> K {
        self.through.as_ref().map_or(self.request.k, |through| through.candidates(self.request))
    }

    /// What the arrays follow from.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn parameters(&self) -> Result<Value, Error> {
        let request = self.request;
        let mut parameters = json!({
            "rep": request.rep,
            "reference_rep": request.reference_rep.as_ref().unwrap_or(&request.rep),
            "k": request.k.get(),
            "metric": request.metric.name(),
            "method": self.approach.method(),
            "self_mapping": self.inputs.self_mapping,
            "exclude_group": request.exclude_group,
            "compat": request.compat.then_some("cellmapper-0.2.5"),
            "names": copies_names(request.run.names, self.inputs.queries.source.rows()),
            "seed": request.run.seed,
        });
        if let (Some(through), Some(parameters)) = (&self.through, parameters.as_object_mut()) {
            // What is exact does not depend on the index, but where an unfinished unit stands does.
            parameters.insert("index".to_owned(), through.fingerprint()?);
            if let Approach::Near(near) = self.approach {
                parameters.insert("nprobe".to_owned(), json!(near.nprobe));
                parameters.insert("horizon".to_owned(), json!(near.horizon));
                parameters.insert("lists_visited".to_owned(), json!(near.visited));
                parameters.insert("recall".to_owned(), json!(request.how.probes.recall()));
                parameters.insert("candidates".to_owned(), json!(self.candidates().get()));
                parameters.insert("refined".to_owned(), json!(through.refines(request)));
            }
        }
        if let (Approach::Graph, Some(parameters)) = (self.approach, parameters.as_object_mut()) {
            parameters.insert("hnsw".to_owned(), self.graph_parameters());
        }
        Ok(parameters)
    }
}
