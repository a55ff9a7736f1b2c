//! The adapter that tests run on, and outputs of two engines held against each other.
#![allow(dead_code, clippy::expect_used)]

use std::path::Path;

use atlasknn::engine::gpu::{Adapter, adapters};
use atlasknn::job::request::{DeviceChoice, DeviceRequest};
use atlasknn::metric::{EngineKind, Metric, tie_band};

use super::outputs::values;

/// A software adapter where there is one: it is the one that checks everywhere have in common. None only where
/// `ATLASKNN_NO_GPU=1` says that none is expected.
pub fn adapter() -> Option<Adapter> {
    let mut found = adapters();
    let at = found.iter().position(Adapter::is_software).unwrap_or(0);
    if found.is_empty() {
        let expected = std::env::var("ATLASKNN_NO_GPU").is_ok_and(|value| value == "1");
        assert!(expected, "no adapter: install a driver (mesa-vulkan-drivers), or say ATLASKNN_NO_GPU=1");
        return None;
    }
    Some(found.swap_remove(at))
}

pub fn on_cpu() -> DeviceRequest {
    DeviceRequest { choice: DeviceChoice::Cpu, ..DeviceRequest::default() }
}

pub fn on(adapter: &Adapter) -> DeviceRequest {
    DeviceRequest { choice: DeviceChoice::Named(adapter.name.clone()), ..DeviceRequest::default() }
}

/// Whether two outputs with k neighbours per row have the same ids and distances, those apart that are in a tie, and how many
/// ids differ.
pub fn agree((a, b): (&Path, &Path), metric: Metric, dim: usize, k: usize) -> Result<usize, String> {
    let ids = |out: &Path| values::<i32>(out, "obsm/knn_indices");
    let distances = |out: &Path| values::<f32>(out, "obsm/knn_distances");
    let ((ids_a, ids_b), (da, db)) = ((ids(a), ids(b)), (distances(a), distances(b)));
    if ids_a.len() != ids_b.len() {
        return Err(format!("{} ids and {}", ids_a.len(), ids_b.len()));
    }
    let band = tie_band(metric, dim, EngineKind::Gpu);
    // Norms are left out, which makes ties of inner products narrower than they are.
    let is_tie = |a: f32, b: f32| band.is_tie(f64::from(a), f64::from(b), f64::from(a.abs()));
    for slot in 0..ids_a.len() {
        if !is_tie(da[slot], db[slot]) {
            return Err(format!("slot {slot}: distances {} and {}", da[slot], db[slot]));
        }
        let near = |other: usize| is_tie(da[slot], da[other]);
        let in_a_tie = (slot % k > 0 && near(slot - 1)) || slot % k + 1 == k || near(slot + 1);
        if ids_a[slot] != ids_b[slot] && !in_a_tie {
            return Err(format!("slot {slot}: ids {} and {}", ids_a[slot], ids_b[slot]));
        }
    }
    Ok(ids_a.iter().zip(&ids_b).filter(|(a, b)| a != b).count())
}
