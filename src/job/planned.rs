//! A search that is checked, planned, and bound to what searches.

use std::sync::atomic::AtomicU64;

use serde_json::{Value, json};

use super::approach::{Approach, Through};
use super::columns::check_categories;
use super::engine::{Opened, Subject};
use super::groups::annotated;
use super::inputs::Inputs;
use super::manifest::Manifest;
use super::report::duration;
use super::request::{DeviceChoice, Method, SearchRequest};
use super::run::Run;
use super::sample::{SAMPLE_ROWS, plan_sample};
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
    /// The index, where it is used.
    pub through: Option<Through>,
    /// What is visited.
    pub approach: Approach,
    /// Why, where nobody said.
    pub because: Option<String>,
    /// How it runs.
    pub plan: SearchPlan,
    /// Where the time goes.
    pub opened: Opened,
    /// What happened to the engine that began, where another one had to go on.
    pub lost: Option<String>,
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

/// An engine and a plan of an approach.
type Laid = (Opened, SearchInput, SearchPlan);

impl Layout<'_> {
    /// The first of two approaches where it is quick, or quicker than the other. Says why where there was a choice.
    fn choose(&self, candidates: &[Approach]) -> Result<(Approach, Option<String>, Laid), Error> {
        let [first, second] = candidates else {
            let only = candidates.first().copied().unwrap_or(Approach::All);
            let because = (self.request.how.method == Method::Auto && self.through.is_none())
                .then(|| "without an index every pair is compared".to_owned());
            return Ok((only, because, self.lay(only)?));
        };
        let every_pair = self.lay(*first);
        if let Ok(laid) = every_pair {
            let seconds = laid.2.seconds;
            if seconds <= QUICK_SECONDS {
                let because = format!("comparing every pair takes {}", duration(seconds));
                return Ok((*first, Some(because), laid));
            }
            let other = self.lay(*second)?;
            let sampling = 2.0 * SAMPLE_ROWS as f64 * self.inputs.references.source.rows() as f64;
            let other_seconds = other.2.seconds + sampling / other.1.engine.pairs_per_second;
            let took = format!(
                "comparing every pair takes {}, through the index {}",
                duration(seconds),
                duration(other_seconds)
            );
            let chosen =
                if seconds <= other_seconds { (*first, Some(took), laid) } else { (*second, Some(took), other) };
            return Ok(chosen);
        }
        Ok((*second, Some("the memory is too small to compare every pair".to_owned()), self.lay(*second)?))
    }

    fn lay(&self, approach: Approach) -> Result<Laid, Error> {
        let (request, run) = (self.request, self.run);
        let (queries, references) = (&*self.inputs.queries.source, &*self.inputs.references.source);
        let pairs = match (approach, self.through) {
            (Approach::Near { nprobe, .. }, Some(through)) => {
                let each = nprobe as f64 * through.lists.rows_per_visit() + through.lists.len() as f64;
                queries.rows() as f64 * each
            }
            _ => queries.rows() as f64 * references.rows() as f64,
        };
        let subject = Subject { metric: request.metric, dim: queries.dim(), k: request.k, pairs };
        let opened = Opened::new(&request.device, subject, run)?;
        let input = self.input(approach, &opened);
        match plan(&input) {
            // Nobody asked for the GPU.
            Err(error @ PlanError::DeviceBudget { .. }) if request.device.choice == DeviceChoice::Auto => {
                run.observer.note(&format!("the GPU cannot be used, so the CPU searches: {error}"));
                let opened = Opened::cpu(request.metric, run)?;
                let input = self.input(approach, &opened);
                let plan = plan(&input)?;
                Ok((opened, input, plan))
            }
            planned => Ok((opened, input, planned?)),
        }
    }

    fn input(&self, approach: Approach, opened: &Opened) -> SearchInput {
        let (queries, references) = (&*self.inputs.queries.source, &*self.inputs.references.source);
        let (dim, k) = (queries.dim(), self.request.k);
        let through = self.through.filter(|_| approach != Approach::All);
        SearchInput {
            queries: side(queries),
            references: through.map_or_else(|| side(references), Through::side),
            dim: dim as u64,
            k: k.get() as u64,
            groups: self.request.exclude_group.is_some(),
            names: copies_names(self.request.run.names, queries.rows()),
            written: true,
            lists: through.and_then(|through| through.input(approach, self.request, side(references), &*opened.engine)),
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
        let through = request.how.index.as_deref().map(|path| Through::open(path, run)).transpose()?;
        let inputs = Inputs::open(request, through.as_ref(), &run.io)?;
        if let Some(key) = &request.exclude_group {
            let (queries, references) = annotated(&inputs)?;
            check_categories(references, key)?;
            check_categories(queries, key)?;
        }
        let mut candidates = Approach::candidates(&request.how, through.as_ref(), request.metric)?;
        let chosen = earlier.and_then(|earlier| earlier.parameters["method"].as_str());
        if let Some(&chosen) = candidates.iter().find(|approach| chosen == Some(approach.method())) {
            candidates = vec![chosen];
        }
        let layout = Layout { request, inputs: &inputs, through: through.as_ref(), run };
        let (approach, because, (opened, input, plan)) = layout.choose(&candidates)?;
        if request.compat && matches!(approach, Approach::Near { .. }) {
            let message = "--compat cellmapper-0.2.5 repeats an exact search; leave it out, or use --method exact";
            return Err(JobError::Refused(message.to_owned()).into());
        }
        let through = through.filter(|_| approach != Approach::All);
        let (lost, pairs) = (None, AtomicU64::new(0));
        let threads = run.threads;
        let planned = Self { request, inputs, through, approach, because, plan, opened, lost, input, pairs, threads };
        planned.check_sample()?;
        Ok(planned)
    }

    /// Visits so many lists from now on, and plans again for it.
    ///
    /// # Errors
    /// A plan that does not fit the budget.
    pub fn visit_lists(&mut self, nprobe: usize, run: &Run<'_>) -> Result<(), Error> {
        self.approach = Approach::Near { nprobe, guess: false };
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
        self.check_sample()
    }

    /// Whether the sample can be searched that an approximate search is measured by: better known before than after.
    fn check_sample(&self) -> Result<(), Error> {
        if matches!(self.approach, Approach::Near { .. }) {
            plan_sample(self)?;
        }
        Ok(())
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
            if let Approach::Near { nprobe, .. } = self.approach {
                parameters.insert("nprobe".to_owned(), json!(nprobe));
                parameters.insert("recall".to_owned(), json!(request.how.probes.recall()));
                parameters.insert("candidates".to_owned(), json!(self.candidates().get()));
                parameters.insert("refined".to_owned(), json!(through.refines(request)));
            }
        }
        Ok(parameters)
    }
}
