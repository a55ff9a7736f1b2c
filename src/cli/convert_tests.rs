//! Claims about what flags mean together.

use clap::Parser;

use super::super::args::{Cli, Command};
use super::*;
use crate::job::request::DeviceChoice;
use crate::metric::Metric;
use crate::units::{ByteCount, K};

fn parsed(line: &str) -> Result<Command, String> {
    let words = std::iter::once("atlasknn").chain(line.split_whitespace());
    let cli = Cli::try_parse_from(words).map_err(|e| e.to_string())?;
    cli.command.ok_or_else(|| "no command".to_owned())
}

fn map_of(line: &str) -> Result<MapRequest, String> {
    match parsed(&format!("map q.zarr {line}"))? {
        Command::Map(args) => map(&args).map_err(|usage| usage.0),
        other => Err(format!("{other:?}")),
    }
}

fn mapped(line: &str) -> MapRequest {
    map_of(line).unwrap_or_else(|e| panic!("{line}: {e}"))
}

#[test]
fn a_map_command_without_flags_asks_for_the_documented_defaults() {
    let request = mapped("r.zarr -o out.zarr");
    assert_eq!(
        request.search,
        SearchRequest {
            query: "q.zarr".into(),
            reference: Some("r.zarr".into()),
            out: "out.zarr".into(),
            rep: "X_pca".to_owned(),
            reference_rep: None,
            k: K::new(30).expect("k"),
            metric: Metric::Euclidean,
            exclude_group: None,
            compat: false,
            how: request::How::default(),
            device: DeviceRequest::default(),
            within: Limits::default(),
            run: RunOptions::default(),
        }
    );
    let mapping = request.mapping;
    assert_eq!((mapping.kernel, mapping.presence, mapping.self_edges), (WeightKernel::Gauss, None, None));
    assert!(!mapping.matrix && !mapping.probabilities && mapping.min_confidence.is_none());
}

#[test]
fn each_search_flag_reaches_its_place() {
    let run =
        |run: &RunOptions| (run.resume, run.overwrite, run.allow_mixed, run.names, run.seed, run.checkpoint_seconds);
    let request = mapped(
        "-o out.zarr --rep layers/scaled -k 15 --metric cosine --exclude-group obs/donor --compat cellmapper-0.2.5 \
         --method exact --device cpu --host-memory 512MiB --threads 3 --resume --allow-mixed --names none --seed 7 \
         --checkpoint-seconds 1",
    )
    .search;
    assert_eq!((request.reference, request.rep.as_str(), request.k.get()), (None, "layers/scaled", 15));
    assert_eq!((request.metric, request.exclude_group.as_deref()), (Metric::Cosine, Some("donor")));
    assert!(request.compat);
    assert_eq!(request.within, Limits { host_memory: Some(ByteCount::mib(512)), threads: Some(3) });
    assert_eq!(run(&request.run), (true, false, true, Names::None, 7, 1));
    let request = mapped("r.zarr -o out.zarr --reference-rep X_scvi --overwrite --names all").search;
    assert_eq!(request.reference_rep.as_deref(), Some("X_scvi"));
    assert_eq!(run(&request.run), (false, true, false, Names::All, 0, 120));
}

#[test]
fn an_index_has_no_names_of_cells_to_ask_for() {
    let refused = parsed("index r.zarr -o i.index --names none").expect_err("there are none");
    assert!(refused.contains("unexpected argument '--names'"), "{refused}");
    assert!(parsed("transfer n.zarr r.zarr -o out.zarr --names none").is_ok());
}

#[test]
fn each_flag_of_an_index_reaches_its_place() {
    use crate::job::request::{How, Method, Probes};
    let index = Some(std::path::PathBuf::from("i.index"));
    for (flags, wanted) in [
        ("--index i.index", How { index: index.clone(), ..How::default() }),
        ("--method exact --index i.index", How { method: Method::Exact, index: index.clone(), ..How::default() }),
        (
            "--method ivf --index i.index --nprobe 7 --no-refine",
            How {
                method: Method::Ivf,
                index: index.clone(),
                probes: Probes::Lists(7),
                refine: false,
                ..How::default()
            },
        ),
        (
            "--index i.index --nprobe 9 --horizon 1.4",
            How { index: index.clone(), probes: Probes::WithHorizon(9, 1.4), ..How::default() },
        ),
        (
            "--index i.index --recall 0.95 --strict",
            How { index: index.clone(), probes: Probes::Recall(0.95), strict: true, ..How::default() },
        ),
    ] {
        assert_eq!(mapped(&format!("r -o out {flags}")).search.how, wanted, "{flags}");
    }
    for (flags, says) in [
        ("--index out/i.index", "holds the INDEX"),
        ("--index i --nprobe 3 --recall 0.9", "cannot be used with"),
        ("--index i --nprobe 3 --strict", "cannot be used with"),
        ("--index i --nprobe 0", "--nprobe"),
        ("--index i --recall 1.5", "--recall"),
    ] {
        let message = map_of(&format!("r -o out {flags}")).expect_err(flags);
        assert!(message.contains(says), "{flags}: {message}");
    }
}

#[test]
fn each_flag_of_building_an_index_reaches_its_place() {
    let of = |line: &str| match parsed(&format!("index r.zarr -o i.index {line}")) {
        Ok(Command::Index(args)) => index(&args).unwrap_or_else(|usage| panic!("{line}: {}", usage.0)),
        other => panic!("{line}: {other:?}"),
    };
    let plain = of("");
    assert_eq!((plain.rep.as_str(), plain.metric, plain.lists), ("X_pca", Metric::Euclidean, None));
    assert_eq!((plain.encoding, plain.run), (Kept::F32, RunOptions::default()));
    for (name, encoding) in [("f16", Kept::F16), ("sq8", Kept::Sq8), ("pq", Kept::Pq)] {
        let request = of(&format!("--encoding {name} --lists 77 --metric cosine --rep X_scvi --seed 3 --resume"));
        assert_eq!((request.encoding, request.lists, request.metric), (encoding, Some(77), Metric::Cosine));
        assert_eq!((request.rep.as_str(), request.run.seed, request.run.resume), ("X_scvi", 3, true));
    }
}

#[test]
fn each_device_flag_reaches_its_place() {
    let variant = Some("wide".to_owned());
    for (flags, wanted) in [
        ("--device cpu", DeviceRequest { choice: DeviceChoice::Cpu, ..DeviceRequest::default() }),
        ("--device gpu:1", DeviceRequest { choice: DeviceChoice::Number(1), ..DeviceRequest::default() }),
        (
            "--device H200 --device-variant wide --device-memory 4GiB",
            DeviceRequest {
                choice: DeviceChoice::Named("H200".to_owned()),
                variant,
                memory: Some(ByteCount::mib(4096)),
            },
        ),
    ] {
        assert_eq!(mapped(&format!("-o out {flags}")).search.device, wanted, "{flags}");
    }
    for device in ["auto", "cpu"] {
        let message = map_of(&format!("-o out --device {device} --device-variant wide")).expect_err(device);
        assert!(message.contains("--device gpu"), "{message}");
    }
}

#[test]
fn each_mapping_flag_reaches_its_place() {
    for (name, kernel) in [
        ("gauss", WeightKernel::Gauss),
        ("scarches", WeightKernel::Scarches),
        ("inverse_distance", WeightKernel::InverseDistance),
        ("equal", WeightKernel::Equal),
    ] {
        assert_eq!(mapped(&format!("-o out --kernel {name}")).mapping.kernel, kernel);
    }
    let mapping = mapped(
        "r -o out --label a obs/b --label c a --value n --obsm obsm/X_umap --label-subset a=x --label-subset a=y \
         --matrix --min-confidence 0.5 --probabilities --no-symmetrize --steps 1",
    )
    .mapping;
    assert_eq!(mapping.labels, ["a", "b", "c"], "each once, in the order typed");
    assert_eq!((mapping.values, mapping.obsm), (vec!["n".to_owned()], vec!["X_umap".to_owned()]));
    let subset = |category: &str| ("a".to_owned(), category.to_owned());
    assert_eq!(mapping.label_subsets, [subset("x"), subset("y")]);
    assert!(mapping.matrix && mapping.probabilities && mapping.min_confidence == Some(0.5));
}

#[test]
fn any_presence_flag_asks_for_presence() {
    let usual = PresenceRequest::default();
    for (flags, wanted) in [
        ("--presence", usual.clone()),
        ("--presence-by donor", PresenceRequest { by: Some("donor".to_owned()), ..usual.clone() }),
        ("--presence-log", PresenceRequest { log: true, ..usual.clone() }),
        ("--presence-percentiles 0,99.5", PresenceRequest { percentiles: (0.0, 99.5), ..usual.clone() }),
        ("--presence-no-min-max", PresenceRequest { min_max: false, ..usual.clone() }),
    ] {
        assert_eq!(mapped(&format!("r -o out {flags}")).mapping.presence, Some(wanted), "{flags}");
    }
}

#[test]
fn self_edges_are_for_self_mapping_and_the_last_word_counts() {
    for (flags, wanted) in [
        ("", None),
        ("--self-edges", Some(true)),
        ("--no-self-edges", Some(false)),
        ("--self-edges --no-self-edges", Some(false)),
        ("--no-self-edges --self-edges", Some(true)),
    ] {
        assert_eq!(mapped(&format!("-o out {flags}")).mapping.self_edges, wanted, "{flags}");
    }
    for flag in ["--self-edges", "--no-self-edges"] {
        let message = map_of(&format!("r -o out {flag}")).expect_err(flag);
        assert!(message.starts_with(flag) && message.contains("self-mapping"), "{message}");
    }
}

#[test]
fn flags_that_contradict_each_other_are_refused_with_the_reason() {
    for (flags, wanted) in [
        ("-o out --reference-rep X_scvi", "--reference-rep needs a REFERENCE"),
        ("r -o out --label a --label-subset b=x", "add --label b"),
        ("r -o out --min-confidence 0.5", "--min-confidence is about transferred labels"),
        ("r -o out --probabilities", "--probabilities is about transferred labels"),
        ("r -o q.zarr --overwrite", "q.zarr holds the QUERY"),
        ("./r -o ./r", "holds the REFERENCE"),
        ("r -o out --resume --overwrite", "cannot be used with"),
    ] {
        let message = map_of(flags).expect_err(flags);
        assert!(message.contains(wanted), "{flags}: {message}");
    }
}

#[test]
fn an_output_around_an_input_is_refused_whatever_it_is_called() {
    let root = tempfile::tempdir().expect("a folder");
    let input = root.path().join("data/query.zarr");
    std::fs::create_dir_all(&input).expect("a folder");
    let around = root.path().join("data/../data");
    assert!(not_over("QUERY", &input, &around).is_err());
    assert!(not_over("QUERY", &input, &root.path().join("data/out.zarr")).is_ok());
    assert!(not_over("QUERY", &input, &root.path().join("data/query.zarr2")).is_ok());
    assert!(not_over("QUERY", &input, &root.path().join("new/out.zarr")).is_ok());
    let inside = not_over("QUERY", &input, &root.path().join("data/../data/query.zarr/new/out.zarr"));
    assert!(inside.expect_err("inside").0.contains("lies inside the QUERY"));
}

#[test]
fn transfer_takes_the_mapping_flags_and_leaves_self_edges_to_the_job() {
    let Ok(Command::Transfer(args)) = parsed("transfer n.zarr r.zarr -o out --label a --self-edges --threads 2") else {
        panic!("not parsed")
    };
    let request = transfer(&args).expect("a request");
    assert_eq!((request.neighbours, request.reference), ("n.zarr".into(), "r.zarr".into()));
    assert_eq!((request.mapping.self_edges, request.within.threads), (Some(true), Some(2)));
}

#[test]
fn evaluate_understands_the_label_and_its_column() {
    for (flags, prediction) in [
        ("", "cell_type"),
        ("--prediction label", "label"),
        ("--prediction label_pred", "label"),
        ("--prediction obs/label_pred", "label"),
    ] {
        let Ok(Command::Evaluate(args)) = parsed(&format!("evaluate m --truth q.zarr:obs/cell_type {flags}")) else {
            panic!("not parsed")
        };
        let request = evaluate(&args);
        assert_eq!((request.truth_key.as_str(), request.prediction.as_str()), ("cell_type", prediction), "{flags}");
    }
}
