//! From flags as typed to the requests of `job`, with the checks that need more than one flag.

use std::path::Path;

use super::args::{EvaluateArgs, IndexArgs, MapArgs, SearchArgs, Sides, TransferArgs};
use super::flags::{Device, How, Mapping, Names as Named, Run, What, Within};
use super::unbuilt;
use super::values::{Encoding, Kernel, Lists, Method, NamesChoice};
use crate::job::request::{
    self, DeviceRequest, EvaluateRequest, GraphOptions, IndexRequest, MapRequest, MappingRequest, Names,
    PresenceRequest, Probes, RunOptions, SearchRequest, TransferRequest, Within as Limits,
};
use crate::store::folder::real_path;
use crate::store::index::Encoding as Kept;
use crate::weights::WeightKernel;

/// A sentence about how the command was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage(pub String);

fn refuse<T>(sentence: impl Into<String>) -> Result<T, Usage> {
    Err(Usage(sentence.into()))
}

fn built(unbuilt: Option<String>) -> Result<(), Usage> {
    unbuilt.map_or(Ok(()), refuse)
}

/// What `search` asks for.
pub fn search(args: &SearchArgs) -> Result<SearchRequest, Usage> {
    built(unbuilt::search(args))?;
    search_request(&args.sides, &args.what, &args.how, &args.within, run(&args.run, args.names))
}

/// What `map` asks for.
pub fn map(args: &MapArgs) -> Result<MapRequest, Usage> {
    built(unbuilt::map(args))?;
    let search = search_request(&args.sides, &args.what, &args.how, &args.within, run(&args.run, args.names))?;
    if search.reference.is_some() && (args.mapping.self_edges || args.mapping.no_self_edges) {
        let flag = if args.mapping.self_edges { "--self-edges" } else { "--no-self-edges" };
        return refuse(format!(
            "{flag} is for self-mapping: with a REFERENCE, no row is a query cell's own; leave out one of the two"
        ));
    }
    Ok(MapRequest { search, mapping: mapping(&args.mapping)? })
}

/// What `transfer` asks for. Whether self edges make sense shows only in the neighbours, so that is left to the job.
pub fn transfer(args: &TransferArgs) -> Result<TransferRequest, Usage> {
    built(unbuilt::transfer(args))?;
    not_over("NEIGHBOURS", &args.neighbours, &args.out)?;
    not_over("REFERENCE", &args.reference, &args.out)?;
    Ok(TransferRequest {
        neighbours: args.neighbours.clone(),
        reference: args.reference.clone(),
        out: args.out.clone(),
        mapping: mapping(&args.mapping)?,
        within: limits(&args.within),
        run: run(&args.run, args.names),
    })
}

/// What `index` asks for.
pub fn index(args: &IndexArgs) -> Result<IndexRequest, Usage> {
    not_over("REFERENCE", &args.reference, &args.out)?;
    Ok(IndexRequest {
        reference: args.reference.clone(),
        out: args.out.clone(),
        rep: args.rep.clone(),
        metric: args.metric,
        lists: match args.lists {
            Lists::Auto => None,
            Lists::Number(lists) => Some(lists),
        },
        encoding: match args.encoding {
            Encoding::F32 => Kept::F32,
            Encoding::F16 => Kept::F16,
            Encoding::Sq8 => Kept::Sq8,
            Encoding::Pq => Kept::Pq,
        },
        device: device(&args.device, &args.within)?,
        within: limits(&args.within),
        // An index has no names of cells.
        run: run(&args.run, Named { names: None }),
    })
}

/// What `evaluate` asks for. The label's own name and that of its column are both understood.
pub fn evaluate(args: &EvaluateArgs) -> EvaluateRequest {
    let prediction = args.prediction.as_ref().unwrap_or(&args.truth.key);
    let label =
        if args.prediction.is_some() { prediction.strip_suffix("_pred").unwrap_or(prediction) } else { prediction };
    EvaluateRequest {
        out: args.out.clone(),
        truth: args.truth.store.clone(),
        truth_key: args.truth.key.clone(),
        prediction: label.to_owned(),
        min_confidence: args.min_confidence,
    }
}

/// Budget and threads.
pub fn limits(args: &Within) -> Limits {
    Limits { host_memory: args.host_memory, threads: args.threads.map(std::num::NonZeroUsize::get) }
}

/// What computes. The value of `--device` was read when it was parsed.
fn device(args: &Device, within: &Within) -> Result<DeviceRequest, Usage> {
    let choice = args.device.clone();
    if args.device_variant.is_some() && !choice.is_gpu() {
        return refuse(
            "--device-variant is about the programs of a GPU: name one with --device, for example --device gpu",
        );
    }
    Ok(DeviceRequest { choice, variant: args.device_variant.clone(), memory: within.device_memory })
}

/// How to search. Whether the choices go together depends on the index as well, so that is left to the job.
fn approach(args: &How) -> Result<request::How, Usage> {
    Ok(request::How {
        method: match args.method {
            Method::Exact => request::Method::Exact,
            Method::Ivf => request::Method::Ivf,
            Method::Hnsw => request::Method::Hnsw,
            Method::Auto => request::Method::Auto,
        },
        index: args.index.clone(),
        probes: match (args.nprobe, args.horizon, args.recall) {
            (Some(nprobe), Some(times), _) => Probes::WithHorizon(nprobe.get(), times),
            (Some(nprobe), None, _) => Probes::Lists(nprobe.get()),
            (None, _, Some(recall)) => Probes::Recall(recall),
            (None, _, None) => Probes::Auto,
        },
        strict: args.strict,
        refine: !args.no_refine,
        graph: graph(args)?,
    })
}

fn graph(args: &How) -> Result<GraphOptions, Usage> {
    let typed =
        [("--hnsw-m", args.hnsw_m), ("--hnsw-ef-construction", args.hnsw_ef_construction), ("--hnsw-ef", args.hnsw_ef)];
    if let Some((flag, _)) = typed.iter().find(|(_, value)| value.is_some() && args.method != Method::Hnsw) {
        return refuse(format!("{flag} is about a graph: add --method hnsw, or leave it out"));
    }
    let usual = GraphOptions::default();
    Ok(GraphOptions {
        m: args.hnsw_m.unwrap_or(usual.m),
        ef_construction: args.hnsw_ef_construction.unwrap_or(usual.ef_construction),
        ef: args.hnsw_ef.unwrap_or(usual.ef),
    })
}

fn search_request(
    sides: &Sides,
    what: &What,
    how: &How,
    within: &Within,
    run: RunOptions,
) -> Result<SearchRequest, Usage> {
    if sides.reference.is_none() && what.reference_rep.is_some() {
        return refuse(
            "--reference-rep needs a REFERENCE: in self-mapping both sides are the query, and --rep names its rows",
        );
    }
    not_over("QUERY", &sides.query, &sides.out)?;
    if let Some(index) = &how.index {
        not_over("INDEX", index, &sides.out)?;
    }
    if let Some(reference) = &sides.reference {
        not_over("REFERENCE", reference, &sides.out)?;
    }
    Ok(SearchRequest {
        query: sides.query.clone(),
        reference: sides.reference.clone(),
        out: sides.out.clone(),
        rep: what.rep.clone(),
        reference_rep: what.reference_rep.clone(),
        k: what.k,
        metric: what.metric,
        exclude_group: what.exclude_group.clone(),
        compat: what.compat.is_some(),
        device: device(&how.device, within)?,
        how: approach(how)?,
        within: limits(within),
        run,
    })
}

/// Refuses an output that is an input, or a folder around it, which `--overwrite` would delete; and one inside an input,
/// which would be another store with it.
fn not_over(what: &str, input: &Path, out: &Path) -> Result<(), Usage> {
    let (input, real_out) = (real_path(input), real_path(out));
    if input.starts_with(&real_out) {
        return refuse(format!("{} holds the {what}; choose another place with -o", out.display()));
    }
    if real_out.starts_with(&input) {
        return refuse(format!("{} lies inside the {what}; choose another place with -o", out.display()));
    }
    Ok(())
}

fn mapping(args: &Mapping) -> Result<MappingRequest, Usage> {
    if let Some((key, _)) = args.label_subset.iter().find(|(key, _)| !args.label.contains(key)) {
        return refuse(format!("--label-subset {key}=... is about a label that is not transferred; add --label {key}"));
    }
    if args.label.is_empty() && (args.min_confidence.is_some() || args.probabilities) {
        let flag = if args.probabilities { "--probabilities" } else { "--min-confidence" };
        return refuse(format!("{flag} is about transferred labels; add --label KEY"));
    }
    Ok(MappingRequest {
        kernel: kernel(args.kernel)?,
        labels: once(&args.label),
        label_subsets: once(&args.label_subset),
        values: once(&args.value),
        obsm: once(&args.obsm),
        presence: presence(args),
        self_edges: match (args.self_edges, args.no_self_edges) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
        matrix: args.matrix,
        min_confidence: args.min_confidence,
        probabilities: args.probabilities,
    })
}

/// Each entry once, at its first place.
fn once<T: Clone + PartialEq>(typed: &[T]) -> Vec<T> {
    let mut kept: Vec<T> = Vec::with_capacity(typed.len());
    for entry in typed {
        if !kept.contains(entry) {
            kept.push(entry.clone());
        }
    }
    kept
}

fn kernel(typed: Kernel) -> Result<WeightKernel, Usage> {
    match typed {
        Kernel::Gauss => Ok(WeightKernel::Gauss),
        Kernel::Scarches => Ok(WeightKernel::Scarches),
        Kernel::InverseDistance => Ok(WeightKernel::InverseDistance),
        Kernel::Equal => Ok(WeightKernel::Equal),
        Kernel::Random | Kernel::Jaccard | Kernel::Hnoca | Kernel::Umap => refuse("this --kernel is not built yet"),
    }
}

/// Any flag about presence asks for it.
fn presence(args: &Mapping) -> Option<PresenceRequest> {
    let asked = args.presence
        || args.presence_by.is_some()
        || args.presence_log
        || args.presence_percentiles.is_some()
        || args.presence_no_min_max;
    asked.then(|| {
        let usual = PresenceRequest::default();
        PresenceRequest {
            by: args.presence_by.clone(),
            log: args.presence_log,
            percentiles: args.presence_percentiles.unwrap_or(usual.percentiles),
            min_max: !args.presence_no_min_max,
        }
    })
}

fn run(args: &Run, named: Named) -> RunOptions {
    RunOptions {
        resume: args.resume,
        overwrite: args.overwrite,
        allow_mixed: args.allow_mixed,
        names: match named.names {
            None => Names::Auto,
            Some(NamesChoice::All) => Names::All,
            Some(NamesChoice::None) => Names::None,
        },
        seed: args.seed,
        checkpoint_seconds: args.checkpoint_seconds,
    }
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
