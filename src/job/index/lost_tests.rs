//! Claims about an index whose device is lost for good while it is built.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::job::request::{DeviceRequest, RunOptions, Within};
use crate::job::search::tests::lost_after;

const LISTS: u64 = 12;
/// Rows that are assigned together: the 500 rows take five blocks.
const BLOCK: u64 = 100;

/// Hears warnings.
#[derive(Default)]
struct Warned(Mutex<Vec<String>>);

impl Observer for Warned {
    fn warn(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

fn request(out: &Path, encoding: Encoding) -> IndexRequest {
    IndexRequest {
        reference: Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/pbmc_reference.zarr"),
        out: out.to_owned(),
        rep: "X_pca".to_owned(),
        metric: Metric::Euclidean,
        lists: Some(LISTS),
        encoding,
        device: DeviceRequest { choice: DeviceChoice::Cpu, ..DeviceRequest::default() },
        within: Within::default(),
        run: RunOptions::default(),
    }
}

/// What an index holds, by the place of the file.
fn files(index: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut folders = vec![index.to_owned()];
    let mut files = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_none_or(|name| name != "zarr.json") {
                let place = path.strip_prefix(index).unwrap().to_owned();
                files.insert(place, std::fs::read(&path).unwrap());
            }
        }
    }
    files.retain(|place, _| !place.starts_with(".atlasknn"));
    files
}

/// Builds with a card that is lost after so many visits. Returns the pairs compared, the engines of the index, and what the
/// user was warned of.
fn build_losing(request: &IndexRequest, visits: Option<u32>) -> (u64, Vec<String>, Vec<String>) {
    let (warned, stop) = (Warned::default(), Stop::new());
    let run = Run::begin(&request.within, &warned, &stop).unwrap();
    let mut planned = Planned::new(request, &run).unwrap();
    if let Some(visits) = visits {
        planned.opened = lost_after(visits, &planned.opened.record);
        planned.plan.block_rows = BLOCK;
    }
    let mut output = Output::begin(&request.out, planned.manifest(), &request.run, &run.io).unwrap();
    let pairs = build(&mut planned, &mut output, &run).unwrap();
    state::clean_up(&output).unwrap();
    let index = Index::open(&request.out, &run.io).unwrap();
    let engines = index.manifest()["engines"].as_array().unwrap();
    let engines = engines.iter().map(|engine| engine["device"].as_str().unwrap().to_owned()).collect();
    (pairs, engines, warned.0.into_inner().unwrap())
}

#[test]
fn the_cpu_goes_on_where_a_device_is_lost_for_good_while_an_index_is_built() {
    let dir = tempfile::tempdir().unwrap();
    for encoding in [Encoding::F32, Encoding::Pq] {
        let whole = request(&dir.path().join(format!("whole-{}", encoding.name())), encoding);
        let (all_pairs, engines, warned) = build_losing(&whole, None);
        assert_eq!((engines, warned.len()), (vec!["cpu".to_owned()], 0));
        // How many visits training takes, which is where one that never is lost stops learning.
        let rounds = crate::plan::index::rounds(500, LISTS);
        let training: u64 = rounds.iter().map(|stride| 500_u64.div_ceil(*stride).div_ceil(BLOCK)).sum();
        let patterns = if encoding == Encoding::Pq { 5 } else { 0 };
        let assigning = u32::try_from(training + patterns).unwrap();
        for (visits, by) in [(0, vec!["cpu"]), (3, vec!["cpu"]), (assigning + 2, vec!["gpu", "cpu"])] {
            let losing = request(&dir.path().join(format!("{visits}-{}", encoding.name())), encoding);
            let (pairs, engines, warned) = build_losing(&losing, Some(visits));
            let what = format!("{} lost after {visits} visits", encoding.name());
            assert_eq!((pairs, engines), (all_pairs, by.iter().map(ToString::to_string).collect()), "{what}");
            assert_eq!(files(&losing.out), files(&whole.out), "{what}");
            let last = warned.last().map_or("", String::as_str);
            assert!(
                warned.len() == 3 && last.contains("A card was lost") && last.contains("the CPU goes on"),
                "{warned:?}"
            );
        }
    }
}
