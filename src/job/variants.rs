//! Which variant of the GPU programs is the fastest: tried once per adapter and driver, and remembered beside what else
//! this user's programs can make again.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::gpu::trial::{Trial, trials};
use crate::engine::gpu::{Adapter, Variant, shaders_checksum};
use crate::error::EngineError;
use crate::store::IoCounters;
use crate::store::folder::Folder;

/// The environment variable that names the folder for what is remembered.
pub const CACHE_VARIABLE: &str = "ATLASKNN_CACHE_DIR";
const FILE: &str = "variants.json";

/// What was found on an adapter with a driver, by a version of this program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Remembered {
    adapter: String,
    driver: String,
    version: String,
    /// Name and pairs per second, `None` for a variant that found something wrong.
    variants: Vec<(String, Option<f64>)>,
}

impl Remembered {
    fn new(adapter: &Adapter, trials: &[Trial]) -> Self {
        Self {
            adapter: adapter.name.clone(),
            driver: driver(adapter),
            version: version(),
            variants: trials.iter().map(|trial| (trial.variant.to_owned(), trial.pairs_per_second)).collect(),
        }
    }

    /// The trials, if they are of this adapter and of all variants that it runs today.
    fn trials(&self, adapter: &Adapter) -> Option<Vec<Trial>> {
        let runs = Variant::of(adapter);
        let same = (&self.adapter, &self.driver, &self.version) == (&adapter.name, &driver(adapter), &version())
            && self.variants.iter().map(|(name, _)| name.as_str()).eq(runs.iter().map(|variant| variant.name));
        let rates = self.variants.iter().map(|(_, rate)| *rate);
        same.then(|| {
            runs.iter()
                .zip(rates)
                .map(|(variant, pairs_per_second)| Trial { variant: variant.name, pairs_per_second })
                .collect()
        })
    }
}

/// Of this program and of its shaders, which say what is found and how fast.
fn version() -> String {
    format!("{} {:08x}", env!("CARGO_PKG_VERSION"), shaders_checksum())
}

/// Backend and driver: what besides the adapter decides about speed and the last bits.
#[must_use]
pub fn driver(adapter: &Adapter) -> String {
    format!("{} {}", adapter.backend, adapter.driver).trim().to_owned()
}

/// The trials of an adapter's variants: those that are remembered, or new ones, which `tell` is told of.
///
/// # Errors
/// Whatever the driver refuses. What cannot be remembered is tried again the next time.
pub fn of(adapter: &Adapter, pool: &Arc<rayon::ThreadPool>, tell: &dyn Fn(&str)) -> Result<Vec<Trial>, EngineError> {
    let look = || {
        tell(&format!("trying the GPU programs on {}, which takes some seconds", adapter.name));
        trials(adapter, pool)
    };
    of_in(cache_folder().as_ref(), adapter, look, tell)
}

/// The trials of each adapter, for a list of them. Nothing is known of software, which is never tried, nor where threads
/// cannot be started.
#[must_use]
pub fn table(adapters: &[Adapter], tell: &dyn Fn(&str)) -> Vec<Option<Result<Vec<Trial>, EngineError>>> {
    let pool = rayon::ThreadPoolBuilder::new().build().map(Arc::new).ok();
    let tried = |adapter: &Adapter| pool.as_ref().map(|pool| of(adapter, pool, tell));
    adapters.iter().map(|adapter| if adapter.is_software() { None } else { tried(adapter) }).collect()
}

/// The fastest variant that finds what it must, `None` where none does.
#[must_use]
pub fn best(trials: &[Trial]) -> Option<&Trial> {
    let rate = |trial: &&Trial| trial.pairs_per_second.unwrap_or(0.0);
    trials.iter().filter(|trial| trial.pairs_per_second.is_some()).max_by(|a, b| rate(a).total_cmp(&rate(b)))
}

fn cache_folder() -> Option<PathBuf> {
    match std::env::var_os(CACHE_VARIABLE).filter(|name| !name.is_empty()) {
        Some(named) => Some(PathBuf::from(named)),
        None => dirs::cache_dir().map(|folder| folder.join("atlasknn")),
    }
}

fn of_in(
    folder: Option<&PathBuf>,
    adapter: &Adapter,
    find: impl FnOnce() -> Result<Vec<Trial>, EngineError>,
    tell: &dyn Fn(&str),
) -> Result<Vec<Trial>, EngineError> {
    let folder = folder.map(|path| Folder::new(path, &IoCounters::new()));
    // A file that cannot be read or understood is as good as none.
    let bytes = folder.as_ref().and_then(|folder| folder.read(FILE).ok().flatten()).unwrap_or_default();
    let mut all: Vec<Remembered> = serde_json::from_slice(&bytes).unwrap_or_default();
    if let Some(trials) = all.iter().find_map(|known| known.trials(adapter)) {
        return Ok(trials);
    }
    let found = find()?;
    let new = Remembered::new(adapter, &found);
    all.retain(|known| (&known.adapter, &known.driver) != (&new.adapter, &new.driver));
    all.push(new);
    if let (Some(folder), Ok(text)) = (folder, serde_json::to_vec_pretty(&all)) {
        // A home that is read-only, as on some clusters, costs the trial each time.
        if let Err(error) = folder.write(FILE, &text) {
            tell(&format!("this cannot be remembered: {error}; name a folder that can be written in {CACHE_VARIABLE}"));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::gpu::adapters;

    fn invented(adapter: &Adapter, first: Option<f64>) -> Vec<Trial> {
        let rates = [first, Some(2e9), Some(3e9), Some(1e9)];
        let trial =
            |(variant, pairs_per_second): (Variant, Option<f64>)| Trial { variant: variant.name, pairs_per_second };
        Variant::of(adapter).into_iter().zip(rates).map(trial).collect()
    }

    #[test]
    fn an_adapter_is_tried_once_and_again_when_its_driver_changes() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("not/there/yet");
        let adapter = adapters().into_iter().next().expect("an adapter: install mesa-vulkan-drivers");
        let tried = std::cell::Cell::new(0);
        let look = |adapter: &Adapter| {
            of_in(
                Some(&folder),
                adapter,
                || {
                    tried.set(tried.get() + 1);
                    Ok(invented(adapter, Some(5e9)))
                },
                &|_| (),
            )
            .expect("trials")
        };
        assert_eq!((look(&adapter), tried.get()), (invented(&adapter, Some(5e9)), 1));
        assert_eq!((look(&adapter), tried.get()), (invented(&adapter, Some(5e9)), 1));
        let newer = {
            let mut newer = adapter.clone();
            newer.driver = "a newer one".to_owned();
            newer
        };
        look(&newer);
        look(&adapter);
        assert_eq!(tried.get(), 2, "both drivers are remembered");
        std::fs::write(folder.join(FILE), "[{").expect("to write");
        look(&adapter);
        assert_eq!(tried.get(), 3, "a damaged file is as good as none");
    }

    #[test]
    fn the_fastest_that_finds_what_it_must_is_best() {
        let adapter = adapters().into_iter().next().expect("an adapter: install mesa-vulkan-drivers");
        let rate = |first| best(&invented(&adapter, first)).and_then(|trial| trial.pairs_per_second);
        assert_eq!(rate(Some(9e9)), Some(9e9));
        assert_ne!(rate(None), None);
        assert!(best(&[Trial { variant: "portable", pairs_per_second: None }]).is_none());
    }
}
