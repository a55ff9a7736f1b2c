//! Which variant of the GPU programs is the fastest: tried once per adapter and driver, and remembered beside what else
//! this user's programs can make again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::engine::gpu::trial::{Trial, trials};
use crate::engine::gpu::{Adapter, Variant, shaders_checksum};
use crate::error::EngineError;
use crate::store::IoCounters;
use crate::store::folder::Folder;

/// The environment variable that names the folder for what is remembered.
pub const CACHE_VARIABLE: &str = "ATLASKNN_CACHE_DIR";
const FILE: &str = "variants.json";

/// An adapter, as what was found on it is remembered.
#[derive(Clone, Debug, PartialEq)]
struct Who {
    adapter: String,
    driver: String,
    /// The variants that it runs.
    runs: Vec<&'static str>,
}

impl Who {
    fn of(adapter: &Adapter) -> Self {
        let runs = Variant::of(adapter).iter().map(|variant| variant.name).collect();
        Self { adapter: adapter.name.clone(), driver: driver(adapter), runs }
    }
}

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
    fn new(who: &Who, trials: &[Trial]) -> Self {
        Self {
            adapter: who.adapter.clone(),
            driver: who.driver.clone(),
            version: version(),
            variants: trials.iter().map(|trial| (trial.variant.to_owned(), trial.pairs_per_second)).collect(),
        }
    }

    /// The trials, if they are of this adapter and of all variants that it runs today.
    fn trials(&self, who: &Who) -> Option<Vec<Trial>> {
        let same = (&self.adapter, &self.driver, &self.version) == (&who.adapter, &who.driver, &version())
            && self.variants.iter().map(|(name, _)| name.as_str()).eq(who.runs.iter().copied());
        let rates = self.variants.iter().map(|(_, rate)| *rate);
        same.then(|| {
            let both = who.runs.iter().zip(rates);
            both.map(|(&variant, pairs_per_second)| Trial { variant, pairs_per_second }).collect()
        })
    }
}

/// What this process found or read. A cache that cannot be written costs one trial per process, not one per engine.
static KNOWN: Mutex<Vec<Remembered>> = Mutex::new(Vec::new());

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
/// Whatever the driver refuses. What cannot be written down is tried again by the next process.
pub fn of(adapter: &Adapter, pool: &Arc<rayon::ThreadPool>, tell: &dyn Fn(&str)) -> Result<Vec<Trial>, EngineError> {
    let look = || {
        tell(&format!("trying the GPU programs on {}, which takes some seconds", adapter.name));
        trials(adapter, pool)
    };
    of_in((&KNOWN, cache_folder().as_deref()), &Who::of(adapter), look, tell)
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

/// The trials that this process knows, or those of the folder, or new ones, which are put into both. Engines that are
/// opened at the same time wait for the one that tries.
fn of_in(
    (known, folder): (&Mutex<Vec<Remembered>>, Option<&Path>),
    who: &Who,
    find: impl FnOnce() -> Result<Vec<Trial>, EngineError>,
    tell: &dyn Fn(&str),
) -> Result<Vec<Trial>, EngineError> {
    let among = |all: &[Remembered]| all.iter().find_map(|known| known.trials(who));
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(trials) = among(&known) {
        return Ok(trials);
    }
    let folder = folder.map(|path| Folder::new(path, &IoCounters::new()));
    // A file that cannot be read or understood is as good as none.
    let bytes = folder.as_ref().and_then(|folder| folder.read(FILE).ok().flatten()).unwrap_or_default();
    let mut all: Vec<Remembered> = serde_json::from_slice(&bytes).unwrap_or_default();
    if let Some(trials) = among(&all) {
        known.push(Remembered::new(who, &trials));
        return Ok(trials);
    }
    let found = find()?;
    let new = Remembered::new(who, &found);
    known.push(new.clone());
    all.retain(|known| (&known.adapter, &known.driver) != (&new.adapter, &new.driver));
    all.push(new);
    if let (Some(folder), Ok(text)) = (folder, serde_json::to_vec_pretty(&all)) {
        // A home that is read-only, as on some clusters, costs the trial in each process.
        if let Err(error) = folder.write(FILE, &text) {
            tell(&format!("this cannot be remembered: {error}; name a folder that can be written in {CACHE_VARIABLE}"));
        }
    }
    Ok(found)
}

#[cfg(test)]
#[path = "variants_tests.rs"]
mod tests;
