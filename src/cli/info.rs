//! What a store holds, and what each array can be used as.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::console::Failure;
use super::text;
use crate::error::Error;
use crate::store::IoCounters;
use crate::store::describe::{Entry, describe};
use crate::store::index::Index;
use crate::units::ByteCount;

/// What the store holds: the one place that asks it.
pub fn items(store: &Path) -> Result<Vec<Entry>, Failure> {
    Ok(describe(store, &IoCounters::new()).map_err(Error::from)?)
}

/// The store as an index, if it says that it is one.
pub fn index(store: &Path) -> Result<Option<Index>, Failure> {
    if !Index::is_at(store) {
        return Ok(None);
    }
    Ok(Some(Index::open(store, &IoCounters::new()).map_err(Error::from)?))
}

/// What a column or array can be given to.
fn use_as(item: &Entry) -> Vec<String> {
    let mut uses = Vec::new();
    if item.representation && item.path.is_empty() {
        uses.push("QUERY or REFERENCE".to_owned());
    } else if item.representation {
        uses.push(format!("--rep {}", item.path.strip_prefix("obsm/").unwrap_or(&item.path)));
    }
    if let Some(key) = item.path.strip_prefix("obsm/")
        && item.representation
    {
        uses.push(format!("--obsm {key}"));
    }
    if let Some(key) = item.path.strip_prefix("obs/") {
        let kind = item.kind.to_lowercase();
        let words = kind.contains("categorical") || kind.contains("string");
        // Only an array or column of its own is a key, and the names of the cells are none.
        let column = item.shape.len() == 1 && !item.index && !key.contains('/');
        if column && words {
            uses.push(format!("--label {key}"));
        } else if column {
            uses.push(format!("--value {key}"));
        }
    }
    uses
}

/// For a program.
pub fn json(store: &Path, items: &[Entry]) -> Value {
    let entry = |item: &Entry| {
        json!({
            "path": item.path,
            "kind": item.kind,
            "shape": item.shape,
            "dtype": item.dtype,
            "chunks": item.chunks,
            "shards": item.shards,
            "stored_bytes": item.stored_bytes,
            "can_be_rep": item.representation,
        })
    };
    json!({ "store": store.display().to_string(), "entries": items.iter().map(entry).collect::<Vec<_>>() })
}

/// For a person: what can be searched first, then everything else in the store's order. Folders without values of their
/// own are left out, and `uns` is one line: `--json` has it all.
pub fn page(store: &Path, items: &[Entry]) -> String {
    let stored: u64 = items.iter().map(|i| i.stored_bytes).sum();
    let (unstructured, items): (Vec<&Entry>, Vec<&Entry>) =
        items.iter().filter(|i| !is_folder(i)).partition(|i| i.path.starts_with("uns/"));
    let count = |items: &[&Entry]| text::counted(u64::try_from(items.len()).unwrap_or(u64::MAX), "array");
    let mut page = format!("{}: {}, {} on disk\n", store.display(), count(&items), ByteCount(stored));
    let (reps, rest): (Vec<&Entry>, Vec<&Entry>) = items.into_iter().partition(|i| i.representation);
    let head = ["", "shape", "type", "chunks", "on disk", "use it as"];
    if reps.is_empty() {
        page.push_str("\nNothing in it can be searched: that needs a dense array of floats with a row per cell.\n");
    } else {
        page.push_str("\nCoordinates that can be searched\n");
        page.push_str(&text::table(&head, &rows(&reps), &[4]));
    }
    if !rest.is_empty() {
        page.push_str("\nEverything else\n");
        page.push_str(&text::table(&head, &rows(&rest), &[4]));
    }
    if !unstructured.is_empty() {
        let stored = ByteCount(unstructured.iter().map(|i| i.stored_bytes).sum());
        let _ = writeln!(page, "\nand {} in uns, {stored}; --json lists them", count(&unstructured));
    }
    let store = text::shell_word(store);
    let next = match reps.first().map(|rep| rep.path.strip_prefix("obsm/").unwrap_or(&rep.path)) {
        Some("") => format!("search {store} REFERENCE -o OUT"),
        Some(name) => format!("map {store} REFERENCE -o OUT --rep {name}"),
        None => return page,
    };
    let _ = writeln!(page, "\nNext:\n  atlasknn {next}");
    page
}

/// Whether it only holds others: no type and no values of its own.
fn is_folder(item: &Entry) -> bool {
    (item.dtype.is_empty() && item.shape.is_empty() && item.stored_bytes == 0) || item.kind == "null"
}

fn rows(items: &[&Entry]) -> Vec<Vec<String>> {
    items
        .iter()
        .map(|item| {
            let chunks = match &item.shards {
                Some(shards) => format!("{} in shards of {}", by(&item.chunks), by(shards)),
                None => by(&item.chunks),
            };
            let kind = if item.kind == "array" || item.kind == "npy" || item.kind == item.dtype {
                item.dtype.clone()
            } else if item.dtype.is_empty() {
                item.kind.clone()
            } else {
                format!("{} ({})", item.kind, item.dtype)
            };
            let size = ByteCount(item.stored_bytes).to_string();
            vec![item.path.clone(), by(&item.shape), kind, chunks, size, use_as(item).join(", ")]
        })
        .collect()
}

/// `20,000 × 50`
fn by(shape: &[u64]) -> String {
    shape.iter().map(|&n| text::count(n)).collect::<Vec<_>>().join(" × ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(path: &str, kind: &str, shape: &[u64], can_be_rep: bool) -> Entry {
        Entry {
            path: path.to_owned(),
            kind: kind.to_owned(),
            shape: shape.to_vec(),
            dtype: "float32".to_owned(),
            chunks: shape.to_vec(),
            shards: None,
            stored_bytes: 1 << 20,
            codecs: Vec::new(),
            representation: can_be_rep,
            index: path == "obs/_index",
        }
    }

    #[test]
    fn each_kind_says_what_it_can_be_used_as() {
        for (path, kind, rep, uses) in [
            ("obsm/X_pca", "array", true, vec!["--rep X_pca", "--obsm X_pca"]),
            ("X", "array", true, vec!["--rep X"]),
            ("layers/scaled", "array", true, vec!["--rep layers/scaled"]),
            ("obs/cell_type", "categorical", false, vec!["--label cell_type"]),
            ("obs/donor", "nullable-string-array", false, vec!["--label donor"]),
            ("obs/_index", "string-array", false, vec![]),
            ("obs/n_genes", "array", false, vec!["--value n_genes"]),
            ("obs/doublet", "nullable-boolean", false, vec!["--value doublet"]),
            ("uns/pca/variance", "array", false, vec![]),
            ("", "npy", true, vec!["QUERY or REFERENCE"]),
        ] {
            assert_eq!(use_as(&item(path, kind, &[10], rep)), uses, "{path}");
        }
    }

    #[test]
    fn what_can_be_searched_comes_first_and_the_next_command_uses_it() {
        let items =
            [item("obs/cell_type", "categorical", &[2000], false), item("obsm/X_scvi", "array", &[2000, 30], true)];
        let page = page(Path::new("atlas.zarr"), &items);
        let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("no {text} in {page}"));
        assert!(at("obsm/X_scvi") < at("obs/cell_type") && at("2,000 × 30") < at("--label cell_type"));
        assert!(page.ends_with("atlasknn map atlas.zarr REFERENCE -o OUT --rep X_scvi\n"), "{page}");
        assert!(super::page(Path::new("a"), &items[..1]).contains("Nothing in it can be searched"));
        let bare = super::page(Path::new("a.npy"), &[item("", "npy", &[5, 2], true)]);
        assert!(bare.ends_with("atlasknn search a.npy REFERENCE -o OUT\n"), "{bare}");
    }

    #[test]
    fn folders_are_left_out_and_uns_is_one_line() {
        let folder = Entry { dtype: String::new(), stored_bytes: 0, ..item("obsm", "dict", &[], false) };
        let items = [
            folder,
            item("obs/cell_id", "string-array", &[5], false),
            item("uns/atlasknn/k", "numeric-scalar", &[], false),
            item("uns/atlasknn/version", "string", &[], false),
        ];
        let page = page(Path::new("a.zarr"), &items);
        assert!(page.starts_with("a.zarr: 1 array, 3.0 MiB on disk"), "{page}");
        assert!(page.contains("and 2 arrays in uns, 2.0 MiB; --json lists them"), "{page}");
        assert!(!page.contains("obsm") && !page.contains("uns/"), "{page}");
    }

    #[test]
    fn the_names_of_cells_are_no_label() {
        let mut names = item("obs/cell_id", "string-array", &[10], false);
        assert_eq!(use_as(&names), ["--label cell_id"]);
        names.index = true;
        assert!(use_as(&names).is_empty());
        names.kind = "array".to_owned();
        assert!(use_as(&names).is_empty());
    }

    #[test]
    fn json_lists_every_entry() {
        let value = json(Path::new("a.zarr"), &[item("X", "array", &[5, 2], true)]);
        assert_eq!(value["entries"][0]["shape"], json!([5, 2]));
        assert_eq!(value["entries"][0]["can_be_rep"], true);
    }
}
