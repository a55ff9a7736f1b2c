//! The inverted file of ann-search-rs in a process of its own, asked as `peer_lists.py` is:
//! `ann-search-peer REFERENCES QUERIES K THREADS LISTS IDS`. Each line of input is a number of lists to visit, or `build`.
#![allow(clippy::expect_used, clippy::print_stdout)]

use std::io::{BufRead, Write};
use std::time::Instant;

use ann_search_rs::prelude::Verbosity;
use ann_search_rs::{build_ivf_index, query_ivf_index};

/// Values and shape of a float32 `.npy` file in C order.
fn npy(path: &str) -> (Vec<f32>, usize, usize) {
    let bytes = std::fs::read(path).expect("a file");
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]])) + 10;
    let text = String::from_utf8_lossy(&bytes[..header]).into_owned();
    let shape = text.split("'shape': (").nth(1).and_then(|rest| rest.split(')').next()).expect("a shape");
    let sizes: Vec<usize> = shape.split(',').filter_map(|size| size.trim().parse().ok()).collect();
    let values = bytes[header..].as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
    (values, sizes[0], sizes[1])
}

fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().expect("somebody who reads");
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [references, queries, k, threads, lists, ids] = &args[..] else {
        panic!("REFERENCES QUERIES K THREADS LISTS IDS");
    };
    let number = |text: &str| text.parse::<usize>().expect("a number");
    rayon::ThreadPoolBuilder::new().num_threads(number(threads)).build_global().expect("a pool");
    let (references, rows, dim) = npy(references);
    let (queries, query_rows, _) = npy(queries);
    let (k, lists) = (number(k), number(lists));
    let build = || {
        let started = Instant::now();
        let index =
            build_ivf_index((&references[..], rows, dim), Some(lists), None, "euclidean", 0, Verbosity::Quiet).expect("an index");
        (index, started.elapsed().as_secs_f64())
    };
    let (mut index, seconds) = build();
    say(&format!("{{\"ready\": true, \"prepare_s\": {seconds}}}"));
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a line");
        if line.trim() == "build" {
            let (again, seconds) = build();
            index = again;
            say(&format!("{{\"seconds\": {seconds}}}"));
            continue;
        }
        let nprobe = number(line.trim());
        let started = Instant::now();
        // With distances, as the others hand them out.
        let (found, _) =
            query_ivf_index((&queries[..], query_rows, dim), &index, k, Some(nprobe), true, Verbosity::Quiet).expect("neighbours");
        let seconds = started.elapsed().as_secs_f64();
        let padded = found.iter().flat_map(|ids| (0..k).map(|at| ids.get(at).map_or(u64::MAX, |&id| id as u64)));
        let bytes: Vec<u8> = padded.flat_map(u64::to_le_bytes).collect();
        std::fs::write(ids, bytes).expect("a file that can be written");
        say(&format!("{{\"seconds\": {seconds}}}"));
    }
}
