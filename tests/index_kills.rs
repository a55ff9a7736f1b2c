//! A build of an index that is killed at any moment goes on to the same bytes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/indexes.rs"]
mod indexes;
#[path = "support/kills.rs"]
mod kills;
#[path = "support/outputs.rs"]
mod outputs;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use kills::kill_when;
use outputs::{noise, write_npy};

/// Enough for three shards of rows.
const ROWS: usize = 400_000;

fn start(reference: &Path, out: &Path, encoding: &str, mib: u64) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atlasknn"));
    command.args(["index", "-q", "--device", "cpu", "--threads", "2", "--lists", "64", "--checkpoint-seconds", "0"]);
    command.args(["--resume", "--encoding", encoding]).arg("--host-memory").arg(format!("{mib}MiB"));
    command.arg(reference).arg("-o").arg(out).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn shards_done(out: &Path) -> usize {
    let marker = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|e| e.file_name().to_string_lossy().starts_with('0'))
    };
    std::fs::read_dir(out.join(".atlasknn/done/rows")).map_or(0, |entries| entries.map(marker).filter(|is| *is).count())
}

/// Files of an index but what a killed run was writing.
fn bytes(out: &Path) -> BTreeMap<String, u32> {
    indexes::bytes(out).into_iter().filter(|(path, _)| !path.ends_with(".partial")).collect()
}

#[test]
fn a_build_killed_in_every_stage_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let reference = dir.path().join("r.npy");
    write_npy(&reference, ROWS, 50, |row, column| noise(1, row, column) + noise(2, row % 97, column));
    for encoding in ["f32", "sq8"] {
        let (whole, out) = (dir.path().join(format!("{encoding}-whole")), dir.path().join(encoding));
        assert!(start(&reference, &whole, encoding, 1024).wait().unwrap().success());
        let expected = bytes(&whole);
        let mut kills = Vec::new();
        for moment in ["a file", "learned", "rows aside", "more rows aside", "a shard", "another shard"] {
            let (stamp_of, done) = (out.join(".atlasknn/checkpoint"), shards_done(&out));
            let stamp = || std::fs::metadata(&stamp_of).and_then(|m| m.modified()).ok();
            let before = stamp();
            let reached = || match moment {
                "a file" => out.join(".atlasknn/manifest.json").exists(),
                "learned" => out.join(".atlasknn/trained").exists(),
                "rows aside" | "more rows aside" => stamp().is_some() && stamp() != before,
                _ => shards_done(&out) > done,
            };
            // Another budget each time, so other blocks, buckets and groups of lists.
            let mib = 170 + 20 * kills.len() as u64;
            if kill_when(start(&reference, &out, encoding, mib), reached) {
                kills.push(moment);
            }
        }
        assert!(kills.len() >= 4, "{encoding}: only {kills:?} were reached");
        assert!(start(&reference, &out, encoding, 400).wait().unwrap().success(), "{encoding}: after {kills:?}");
        assert_eq!(bytes(&out), expected, "{encoding}: after {kills:?}");
    }
}
