//! Whole searches on an adapter: the neighbours of the CPU, the record of who found them, and no mixing unasked.
//! Where no adapter is expected, `ATLASKNN_NO_GPU=1` says so; a missing one fails these tests otherwise.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/adapters.rs"]
mod adapters;
#[path = "support/outputs.rs"]
mod outputs;

use std::path::Path;

use adapters::{adapter, agree};
use atlasknn::job::request::{DeviceChoice, DeviceRequest, RunOptions, SearchRequest};
use atlasknn::metric::Metric;
use outputs::{noise, search, search_request, values, write_npy};
use serde_json::Value;

const K: usize = 10;
const DIM: usize = 19;

fn request(dir: &Path, out: &str, device: DeviceChoice) -> SearchRequest {
    let (query, reference) = (dir.join("query.npy"), dir.join("reference.npy"));
    if !query.exists() {
        write_npy(&query, 700, DIM, |row, column| noise(1, row, column));
        write_npy(&reference, 3_000, DIM, |row, column| noise(2, row, column));
    }
    let base = search_request(&query, Some(&reference), &dir.join(out), 10);
    SearchRequest { device: DeviceRequest { choice: device, ..DeviceRequest::default() }, ..base }
}

fn uns(out: &Path, key: &str) -> String {
    values::<String>(out, &format!("uns/atlasknn/{key}"))[0].clone()
}

#[test]
fn the_gpu_finds_the_neighbours_of_the_cpu() {
    let Some(adapter) = adapter() else { return };
    let dir = tempfile::tempdir().unwrap();
    for metric in [Metric::Euclidean, Metric::Cosine, Metric::Manhattan] {
        let on = |out: &str, device| SearchRequest { metric, ..request(dir.path(), out, device) };
        let cpu = on(&format!("cpu-{metric}"), DeviceChoice::Cpu);
        let gpu = on(&format!("gpu-{metric}"), DeviceChoice::Named(adapter.name.clone()));
        search(&cpu).unwrap();
        let outcome = search(&gpu).unwrap();
        assert_eq!((outcome.device, &outcome.adapter), ("gpu", &adapter.name));
        let differ = agree((&cpu.out, &gpu.out), metric, DIM, K).unwrap_or_else(|wrong| panic!("{metric}: {wrong}"));
        assert_eq!(values::<i32>(&gpu.out, "obsm/knn_indices").len(), 700 * K);
        assert!(differ * 1000 < 700 * K, "{metric}: {differ} ids differ");
    }
}

#[test]
fn the_output_names_the_adapter_and_another_engine_needs_leave_to_go_on() {
    let Some(adapter) = adapter() else { return };
    let dir = tempfile::tempdir().unwrap();
    let gpu = request(dir.path(), "out", DeviceChoice::Named(adapter.name.clone()));
    search(&gpu).unwrap();
    assert_eq!(uns(&gpu.out, "run/device"), "gpu");
    assert!(uns(&gpu.out, "engines").contains(&adapter.name));
    // As if the run had been killed before its end: one unit is marked as done, and its neighbour is not.
    let own = gpu.out.join(".atlasknn");
    let manifest = own.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap().replace("\"finished\": true", "\"finished\": false");
    std::fs::write(&manifest, text).unwrap();
    let marker = own.join("done/search/00000000.json");
    let mut value: Value = serde_json::from_slice(&std::fs::read(&marker).unwrap()).unwrap();
    assert_eq!(value["engines"][0]["adapter"], adapter.name);
    value["unit"] = 7.into();
    std::fs::rename(&marker, own.join("done/search/00000007.json")).unwrap();
    std::fs::write(own.join("done/search/00000007.json"), value.to_string()).unwrap();
    let run = RunOptions { resume: true, ..RunOptions::default() };
    let on_cpu =
        SearchRequest { device: DeviceRequest { choice: DeviceChoice::Cpu, ..gpu.device.clone() }, run, ..gpu };
    let message = search(&on_cpu).unwrap_err().to_string();
    assert!(message.contains("--allow-mixed") && message.contains(&adapter.name), "{message}");
    let allowed = SearchRequest { run: RunOptions { allow_mixed: true, ..on_cpu.run }, ..on_cpu };
    search(&allowed).unwrap();
    // The marker is of a unit that this output does not have: what counts is the one that the CPU did.
    assert!(uns(&allowed.out, "engines").starts_with("cpu"), "{}", uns(&allowed.out, "engines"));
}

#[test]
fn an_adapter_that_is_not_there_is_refused_with_those_that_are() {
    let dir = tempfile::tempdir().unwrap();
    let message = search(&request(dir.path(), "out", DeviceChoice::Number(99))).unwrap_err().to_string();
    assert!(message.starts_with("gpu:99 is not there"), "{message}");
    for adapter in atlasknn::engine::gpu::adapters() {
        assert!(message.contains(&adapter.name), "{message}");
    }
}

#[test]
fn too_little_device_memory_is_refused_with_the_least_that_works() {
    let Some(adapter) = adapter() else { return };
    let dir = tempfile::tempdir().unwrap();
    let choice = DeviceChoice::Named(adapter.name);
    let with = |memory: &str| SearchRequest {
        device: DeviceRequest { memory: Some(memory.parse().unwrap()), choice: choice.clone(), variant: None },
        ..request(dir.path(), &memory.replace(' ', ""), choice.clone())
    };
    let message = search(&with("1MiB")).unwrap_err().to_string();
    assert!(message.contains("raise --device-memory"), "{message}");
    let least = message.split("at least ").nth(1).and_then(|rest| rest.split(" (").next()).expect("a size");
    assert!(search(&with(least)).is_ok(), "{message}");
}
