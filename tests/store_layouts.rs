//! Stores that AnnData tools wrote, in every layout there is, read equal to what was put in. The stores and what they
//! hold were made by the scripts beside them in `tests/fixtures`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use atlasknn::store::anndata::AnnData;
use atlasknn::store::columns::{Column, ColumnKind, MISSING};
use atlasknn::store::describe::describe;
use atlasknn::store::open::open_representation;
use atlasknn::store::{IoCounters, Source, conformance};
use serde_json::{Value, json};

const LAYOUTS: [&str; 4] = ["v2", "v3_default", "v3_split_features", "v3_annbatch_sharded"];
const CELLS: u64 = 2000;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn layout(name: &str) -> PathBuf {
    fixture(&format!("anndata_layouts/{name}.zarr"))
}

fn json_file(name: &str) -> Result<Value, Box<dyn Error>> {
    Ok(serde_json::from_slice(&std::fs::read(fixture(name))?)?)
}

fn array<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>, Box<dyn Error>> {
    value[key].as_array().ok_or_else(|| format!("no {key}").into())
}

/// The expected embedding: the `.npy` source has its own tests.
fn embedding(key: &str) -> Result<Vec<f64>, Box<dyn Error>> {
    let path = fixture(&format!("anndata_layouts/expected/{key}.npy"));
    let source = open_representation(&path, "", &IoCounters::new())?;
    let mut rows = vec![0.0; usize::try_from(source.rows())? * source.dim()];
    source.read_f64(&[0..source.rows()], &mut rows)?;
    Ok(rows)
}

/// What a column holds, as JSON: null where missing.
fn as_json(column: &Column) -> Result<Vec<Value>, Box<dyn Error>> {
    let all = 0..column.rows();
    Ok(match column.kind() {
        ColumnKind::Categorical { categories, .. } => {
            let name = |code: i32| usize::try_from(code).map_or(Value::Null, |code| json!(categories[code]));
            column.codes(all)?.into_iter().map(name).collect()
        }
        ColumnKind::Strings => column.strings(all)?.into_iter().map(|text| json!(text)).collect(),
        ColumnKind::Number { .. } => column.numbers(all)?.into_iter().map(|number| json!(number)).collect(),
        ColumnKind::Bool => column.bools(all)?.into_iter().map(|truth| json!(truth)).collect(),
    })
}

#[test]
fn every_layout_holds_the_same_embeddings() -> Result<(), Box<dyn Error>> {
    for name in LAYOUTS {
        for key in ["X_pca", "X_f64", "X_f16"] {
            let source = open_representation(&layout(name), key, &IoCounters::new())?;
            conformance::check(source.as_ref(), &embedding(key)?).map_err(|e| format!("{name} {key}: {e}"))?;
        }
    }
    Ok(())
}

#[test]
fn every_layout_holds_the_same_columns_and_names() -> Result<(), Box<dyn Error>> {
    let expected = json_file("anndata_layouts/expected/columns.json")?;
    for name in LAYOUTS {
        let data = AnnData::open(&layout(name), &IoCounters::new())?;
        assert_eq!((data.n_obs(), data.n_vars()), (CELLS, 100), "{name}");
        assert_eq!(data.obs_keys()?, ["cell_type", "cat_na", "score", "nint", "flag", "name"], "{name}");
        assert_eq!(data.obsm_keys()?, ["X_f16", "X_f64", "X_pca"], "{name}");
        for key in ["cell_type", "score", "nint", "flag", "name"] {
            assert!(as_json(&data.obs(key)?)? == *array(&expected, key)?, "{name} {key}");
        }
        let codes: Vec<Value> = data.obs("cat_na")?.codes(0..CELLS)?.into_iter().map(|code| json!(code)).collect();
        assert!(codes == *array(&expected, "cat_na_codes")?, "{name}");
        assert!(codes.contains(&json!(MISSING)), "{name}");
        assert_eq!(data.obs("cat_na")?.categories()?, ["x", "y"], "{name}");
        assert_eq!(*data.obs("nint")?.kind(), ColumnKind::Number { dtype: "int64".to_owned(), integer: true });
        let names = array(&expected, "index")?;
        assert!(data.names(0..CELLS)?.into_iter().map(Value::from).eq(names.iter().cloned()), "{name}");
        assert_eq!(data.names(1998..2000)?, ["cell1998", "cell1999"], "{name}");
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

#[test]
fn a_collection_reads_as_its_datasets_in_the_order_of_their_numbers() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let attributes = json!({"encoding-type": "annbatch-preshuffled", "encoding-version": "0.1.0"});
    let root = json!({"zarr_format": 3, "node_type": "group", "attributes": attributes});
    std::fs::write(folder.path().join("zarr.json"), root.to_string())?;
    // 10 comes after 2 as a number and before it as a text.
    copy(&layout("v3_default"), &folder.path().join("dataset_10"))?;
    copy(&layout("v3_annbatch_sharded"), &folder.path().join("dataset_2"))?;
    // The datasets number their categories differently: B, NKé, T and T, B.
    let categories = folder.path().join("dataset_10/obs/cell_type");
    std::fs::remove_dir_all(&categories)?;
    copy(&layout("v3_default").join("obs/cat_na"), &categories)?;

    let io = IoCounters::new();
    let data = AnnData::open(folder.path(), &io)?;
    assert_eq!((data.n_obs(), data.n_vars(), data.n_datasets()), (2 * CELLS, 100, 2));
    for key in ["X_pca", "obsm/X_f64", "X_f16"] {
        let once = embedding(key.trim_start_matches("obsm/"))?;
        let source = open_representation(folder.path(), key, &io)?;
        conformance::check(source.as_ref(), &[once.as_slice(), &once].concat()).map_err(|e| format!("{key}: {e}"))?;
    }
    let expected = json_file("anndata_layouts/expected/columns.json")?;
    for key in ["score", "nint", "flag", "name"] {
        let once = array(&expected, key)?;
        assert!(as_json(&data.obs(key)?)? == [once.as_slice(), once].concat(), "{key}");
    }
    let types = data.obs("cell_type")?;
    assert_eq!(types.categories()?, ["B", "NKé", "T", "x", "y"]);
    let codes = array(&expected, "cat_na_codes")?;
    let named = codes.iter().map(|code| match code.as_i64() {
        Some(0) => json!("x"),
        Some(1) => json!("y"),
        _ => Value::Null,
    });
    let wanted: Vec<Value> = array(&expected, "cell_type")?.iter().cloned().chain(named).collect();
    assert!(as_json(&types)? == wanted);
    assert_eq!(data.names(1999..2001)?, ["cell1999", "cell0"]);
    let entries = describe(folder.path(), &io)?;
    let pca = entries.iter().find(|entry| entry.path == "obsm/X_pca").ok_or("no X_pca")?;
    assert_eq!((pca.shape.as_slice(), pca.representation), ([4000, 50].as_slice(), true));
    Ok(())
}

#[test]
fn older_layouts_read_equal() -> Result<(), Box<dyn Error>> {
    let expected = json_file("older_layouts/expected.json")?;
    let numbers = |key: &str| -> Result<Vec<f64>, Box<dyn Error>> {
        Ok(array(&expected, key)?
            .iter()
            .flat_map(|row| row.as_array().into_iter().flatten())
            .filter_map(Value::as_f64)
            .collect())
    };
    for name in ["v2", "v3"] {
        let path = fixture(&format!("older_layouts/{name}.zarr"));
        let data = AnnData::open(&path, &IoCounters::new())?;
        conformance::check(data.representation("X")?.as_ref(), &numbers("X")?)?;
        conformance::check(data.representation("layers/half")?.as_ref(), &numbers("half")?)?;
        assert_eq!(data.layer_keys()?, ["half"]);
        for (key, values) in expected["obs"].as_object().ok_or("no obs")? {
            let column = data.obs(key)?;
            let found = as_json(&column)?;
            let values = values.as_array().ok_or("no column")?;
            let wanted: Vec<Value> = match (key.as_str(), column.kind()) {
                // Categories that are numbers or truth values become text.
                ("numbered", _) => values.iter().map(|v| json!(format!("{:?}", v.as_f64().unwrap_or(0.0)))).collect(),
                ("whole", _) => values.iter().map(|v| json!(v.to_string())).collect(),
                ("truth", _) => {
                    values.iter().map(|v| json!(if *v == json!(true) { "True" } else { "False" })).collect()
                }
                (_, ColumnKind::Number { .. }) => values.iter().map(|v| json!(v.as_f64())).collect(),
                _ => values.clone(),
            };
            assert_eq!(found, wanted, "{name} {key}");
        }
        let ordered =
            ColumnKind::Categorical { categories: ["low", "mid", "high"].map(str::to_owned).to_vec(), ordered: true };
        assert_eq!(*data.obs("ordered")?.kind(), ordered, "{name}");
        assert_eq!(data.names(20..23)?, ["c20", "c21", "c22"], "{name}");
    }
    let v2 = AnnData::open(&fixture("older_layouts/v2.zarr"), &IoCounters::new())?;
    let thirds = numbers("columns_first")?;
    conformance::check(v2.representation("X_columns_first")?.as_ref(), &thirds)?;
    #[allow(clippy::cast_possible_truncation, reason = "numpy rounded them when it stored them")]
    let singles: Vec<f64> = thirds.iter().map(|v| f64::from(*v as f32)).collect();
    conformance::check(v2.representation("X_big_endian")?.as_ref(), &singles)?;
    Ok(())
}

#[test]
fn a_store_without_cells_reads_empty() -> Result<(), Box<dyn Error>> {
    let data = AnnData::open(&fixture("older_layouts/empty.zarr"), &IoCounters::new())?;
    assert_eq!((data.n_obs(), data.n_vars(), data.names(0..0)?.len()), (0, 4, 0));
    conformance::check(data.representation("X_pca")?.as_ref(), &[])?;
    for key in data.obs_keys()? {
        assert_eq!(as_json(&data.obs(&key)?)?, Vec::<Value>::new(), "{key}");
    }
    Ok(())
}

#[test]
fn whatever_is_an_array_can_be_opened() -> Result<(), Box<dyn Error>> {
    let io = IoCounters::new();
    let expected = embedding("X_pca")?;
    let sources: [(PathBuf, &str); 5] = [
        (layout("v3_default"), "X_pca"),
        (layout("v3_default"), "/obsm/X_pca/"),
        (layout("v3_default").join("obsm/X_pca"), ""),
        (layout("v2").join("obsm/X_pca"), "ignored"),
        (layout("v2").join("obsm"), "X_pca"),
    ];
    for (path, rep) in sources {
        let source = open_representation(&path, rep, &io)?;
        assert!(source.name().starts_with(&path.display().to_string()), "{}", source.name());
        conformance::check(source.as_ref(), &expected).map_err(|e| format!("{} {rep}: {e}", path.display()))?;
    }
    assert!(io.read() > 0);
    Ok(())
}

#[test]
fn what_cannot_be_opened_is_said_plainly() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    for name in ["cells.h5ad", "cells.zarr.zip", "cells.npz", "cells.csv"] {
        std::fs::write(folder.path().join(name), "x")?;
    }
    let store = layout("v3_default");
    for (path, rep, says) in [
        (folder.path().join("none.zarr"), "X_pca", "none.zarr does not exist"),
        (folder.path().join("none.npy"), "", "none.npy does not exist"),
        (folder.path().join("celsl.csv"), "", "has no celsl.csv; there is cells.csv"),
        (folder.path().join("cell.npy"), "", "has no cell.npy; there is cells.npz"),
        (store.join(".."), "X_pca", "zarr.json, .zgroup or .zarray; name one of the stores in it: v2.zarr"),
        (folder.path().to_owned(), "X_pca", "is not a store this can read: it has no zarr.json, .zgroup or .zarray"),
        (folder.path().join("cells.h5ad"), "X_pca", "cells.h5ad\").write_zarr(\""),
        (folder.path().join("cells.zarr.zip"), "X_pca", "unzip it first"),
        (folder.path().join("cells.npz"), "", "save the one you mean with numpy.save"),
        (folder.path().join("cells.csv"), "", "a zarr store is a folder"),
        (PathBuf::from("s3://bucket/x.zarr"), "X_pca", "behind a URL are not supported yet"),
        (store.clone(), "X_pcs", "has no obsm/X_pcs; there is obsm/X_pca, obsm/X_f16"),
        (store.clone(), "layers/x", "has no layers/x; there is"),
        (store.clone(), "", "has no obsm/; there is"),
        (store.clone(), "../v2.zarr/obsm/X_pca", "has no ../v2.zarr/obsm/X_pca"),
        (store.clone(), "X", ":X is a sparse matrix (csr_matrix); coordinates must be dense"),
        (store.clone(), "obs/cell_type", ":obs/cell_type is a group (categorical); an array is needed"),
        (store.clone(), "obs/score", ":obs/score is 1-dimensional; coordinates must be two-dimensional"),
        (store.join("obsm"), "X_pcs", "has no X_pcs; there is X_pca"),
        (fixture("older_layouts/v2.zarr"), "X_table", ":obsm/X_table is a table; coordinates must be an array"),
        (fixture("older_layouts/v2.zarr"), "X_whole", ":obsm/X_whole is of int64; coordinates must be float16"),
    ] {
        let opened = open_representation(&path, rep, &IoCounters::new()).map(|source| source.name().to_owned());
        let error = opened.map_err(|e| e.to_string());
        assert!(error.as_ref().is_err_and(|e| e.contains(says)), "{} {rep}\n  {says}\n  {error:?}", path.display());
    }
    let error =
        AnnData::open(&folder.path().join("cells.h5ad"), &IoCounters::new()).map(|_| ()).map_err(|e| e.to_string());
    assert!(error.as_ref().is_err_and(|e| e.contains("write_zarr")), "{error:?}");
    let error = AnnData::open(&store.join("obsm"), &IoCounters::new()).map(|_| ()).map_err(|e| e.to_string());
    assert!(error.as_ref().is_err_and(|e| e.contains("it has no obs, so it is no AnnData")), "{error:?}");
    let data = AnnData::open(&store, &IoCounters::new())?;
    let error = data.obs("celltype").map(|_| ()).map_err(|e| e.to_string());
    assert!(error.as_ref().is_err_and(|e| e.contains("has no obs/celltype; there is obs/cell_type")), "{error:?}");
    let error = data.obs("score")?.codes(0..1).map_err(|e| e.to_string());
    assert!(error.as_ref().is_err_and(|e| e.contains("obs/score is a numeric column; a categorical")), "{error:?}");
    assert!(data.obs("score")?.numbers(1999..2001).is_err() && data.names(2001..2001).is_err());
    Ok(())
}

#[test]
fn a_description_tells_what_can_be_searched() -> Result<(), Box<dyn Error>> {
    for name in LAYOUTS {
        let entries = describe(&layout(name), &IoCounters::new())?;
        let searchable: Vec<&str> = entries.iter().filter(|e| e.representation).map(|e| e.path.as_str()).collect();
        assert_eq!(searchable, ["obsm/X_f16", "obsm/X_f64", "obsm/X_pca"], "{name}");
        let entry = |path: &str| entries.iter().find(|e| e.path == path).ok_or_else(|| format!("{name} has no {path}"));
        assert_eq!(entry("")?.kind, "anndata");
        let x = entry("X")?;
        assert_eq!(
            (x.kind.as_str(), x.dtype.as_str(), x.shape.as_slice()),
            ("csr_matrix", "float32", [2000, 100].as_slice())
        );
        assert!(x.stored_bytes > 0 && entry("obs/nint")?.kind == "nullable-integer");
        assert!(entry("X/data").is_err() && entry("obs/cell_type/codes").is_err());
        let pca = entry("obsm/X_pca")?;
        let (chunks, shards, codec) = match name {
            "v2" => ([1000, 50], None, "blosc"),
            "v3_default" => ([1000, 50], Some(vec![1000, 50]), "zstd"),
            "v3_split_features" => ([300, 25], Some(vec![600, 50]), "zstd"),
            _ => ([64, 50], Some(vec![512, 50]), "blosc"),
        };
        assert_eq!((pca.chunks.as_slice(), &pca.shards), (chunks.as_slice(), &shards), "{name}");
        assert_eq!(pca.codecs.last().map(String::as_str), Some(codec), "{name}");
        assert!((200_000..500_000).contains(&pca.stored_bytes), "{name} {}", pca.stored_bytes);
    }
    let npy = describe(&fixture("anndata_layouts/expected/X_f16.npy"), &IoCounters::new())?;
    assert_eq!((npy.len(), npy[0].representation, npy[0].dtype.as_str()), (1, true, "float16"));
    Ok(())
}

#[test]
fn a_pass_over_a_real_store_reads_its_files_once() -> Result<(), Box<dyn Error>> {
    for name in LAYOUTS {
        let io = IoCounters::new();
        let source = open_representation(&layout(name), "X_pca", &io)?;
        let opened = io.read();
        let mut buffer = vec![0.0; 300 * 50];
        for start in (0..CELLS).step_by(300) {
            let rows = start..CELLS.min(start + 300);
            let values = usize::try_from(rows.end - rows.start)? * 50;
            source.read(&[rows], &mut buffer[..values])?;
        }
        assert_eq!(io.read() - opened, source.stored_bytes(), "{name}");
    }
    Ok(())
}

#[test]
fn sources_are_shared_between_threads() -> Result<(), Box<dyn Error>> {
    let source: Arc<dyn Source> = open_representation(&layout("v3_annbatch_sharded"), "X_pca", &IoCounters::new())?;
    let expected = embedding("X_pca")?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build()?;
    pool.install(|| conformance::check(source.as_ref(), &expected))?;
    Ok(())
}
