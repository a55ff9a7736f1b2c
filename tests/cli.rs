//! Claims about the command as it is typed: help, refusals, exit codes, what goes to which stream.
#![allow(clippy::unwrap_used, clippy::expect_used)]
// A command that does not start or prints no text is a failed test.

#[path = "support/outputs.rs"]
mod outputs;

use std::process::Output;

use outputs::program;

const COMMANDS: [&str; 9] = ["demo", "map", "search", "transfer", "index", "evaluate", "info", "devices", "verify"];

fn atlasknn(words: &[&str]) -> Output {
    program().args(words).output().expect("the command starts")
}

fn typed(line: &str) -> Output {
    atlasknn(&line.split_whitespace().collect::<Vec<_>>())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// The message of a command that must be refused as bad usage, with nothing on stdout.
fn refusal(line: &str) -> String {
    let output = typed(line);
    assert_eq!(output.status.code(), Some(2), "{line}: {}", text(&output.stderr));
    assert!(output.stdout.is_empty(), "{line}");
    let message = text(&output.stderr);
    assert!(message.starts_with("error: "), "{line}: {message}");
    message
}

#[test]
fn alone_it_welcomes_with_three_commands() {
    let output = typed("");
    let page = text(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty());
    for command in ["atlasknn demo", "atlasknn info", "atlasknn map"] {
        assert!(page.contains(command), "{page}");
    }
}

#[test]
fn help_of_every_command_has_examples_of_it() {
    for command in COMMANDS {
        for flag in ["--help", "-h"] {
            let output = atlasknn(&[command, flag]);
            let page = text(&output.stdout);
            assert!(output.status.success() && page.contains("Examples"), "{command}: {page}");
            assert!(page.matches(&format!("    atlasknn {command}")).count() >= 2, "{command}: {page}");
        }
    }
    let page = text(&typed("--help").stdout);
    assert!(COMMANDS.iter().all(|command| page.contains(command)), "{page}");
}

#[test]
fn every_example_in_the_help_can_be_typed() {
    for command in COMMANDS {
        let page = text(&atlasknn(&[command, "--help"]).stdout).replace("\\\n", " ");
        for line in page.lines().filter(|line| line.starts_with("    atlasknn ")) {
            let line = line.split(" && ").next().unwrap_or(line).replace("\"cell_type=CD4 T\"", "cell_type=CD4");
            let line = line.replace("\"cell_type=CD8 T\"", "cell_type=CD8");
            // With --help behind it, clap checks the words before it and runs nothing.
            let output = typed(&format!("{} --help", line.trim().trim_start_matches("atlasknn ")));
            assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        }
    }
}

#[test]
fn examples_can_be_pasted_from_a_terminal_of_their_width() {
    for command in COMMANDS {
        let page = text(&atlasknn(&[command, "--help"]).stdout);
        let examples = page.split("Examples").nth(1).expect("examples");
        let lines: Vec<&str> = examples.lines().collect();
        // A line that clap wrapped begins at the margin of the one before it.
        for pair in lines.windows(2).filter(|pair| pair[0].starts_with("    ")) {
            assert!(pair[0].ends_with('\\') || !pair[1].starts_with("    "), "{command}: {pair:?}");
        }
    }
}

#[test]
fn help_groups_the_flags() {
    let page = text(&typed("map --help").stdout);
    let headings = ["What to search:", "How to search:", "How to map:", "Within what:", "The run:"];
    let places: Vec<_> = headings.iter().map(|h| page.find(h).unwrap_or_else(|| panic!("no {h} in {page}"))).collect();
    assert!(places.is_sorted(), "{page}");
}

#[test]
fn what_is_not_built_is_refused_by_its_name() {
    let search = ["--scanpy"];
    let mapping = [
        "--kernel random",
        "--kernel jaccard",
        "--kernel hnoca",
        "--kernel umap",
        "--layer X",
        "--steps 2",
        "--symmetrize",
        "--scanpy",
        "--max-row 5",
    ];
    let cases = search.iter().flat_map(|flag| [format!("map q r -o out {flag}"), format!("search q r -o out {flag}")]);
    let cases = cases
        .chain(mapping.iter().flat_map(|flag| [format!("map q -o out {flag}"), format!("transfer n r -o out {flag}")]));
    for line in cases {
        let flag = line.split_whitespace().find(|word| word.starts_with("--")).expect("a flag");
        let message = refusal(&line);
        assert!(message.contains(flag) && message.contains("not built yet"), "{line}: {message}");
        // A value that the parser refuses comes with how to get help.
        let lines = if flag == "--device" { 3 } else { 1 };
        assert_eq!(message.lines().count(), lines, "{line}: {message}");
    }
}

#[test]
fn bad_values_say_what_is_wanted() {
    for (line, wanted) in [
        ("map q r -o out -k 0", "1 to 256"),
        ("map q r -o out -k 257", "1 to 256"),
        ("search q r -o out -k many", "1 to 256"),
        ("search q r -o out -k -3", "1 to 256"),
        ("search q r -o out --metric euclid", "euclidean"),
        ("search q r -o out --host-memory lots", "8GiB"),
        ("search q r -o out --threads 0", "1 to 1024"),
        ("index r -o i --lists 0", "whole number"),
        ("index r -o i --encoding f8", "sq8"),
        ("search q r -o out --nprobe 0", "--nprobe"),
        ("search q r -o out --nprobe 4 --recall 0.9", "--recall"),
        ("search q r -o out --nprobe 4 --strict", "--strict"),
        ("search q r -o out --hnsw-ef 50", "--method hnsw"),
        ("search q r -o out --method ivf --hnsw-m 8", "--method hnsw"),
        ("search q r -o out --method hnsw --hnsw-m -1", "--hnsw-m"),
        ("search q r -o out --method hnsw --hnsw-m 1e6", "--hnsw-m"),
        ("map q r -o out --recall 1.2", "0.99"),
        ("map q r -o out --recall 0", "0.99"),
        ("search q r -o out --device gpu:first", "atlasknn devices"),
        ("search q r -o out --device-variant wide", "--device gpu"),
        ("search q r -o out --device gpu --device-memory lots", "8GiB"),
        ("map q r -o out --presence-percentiles 99,1", "1,99"),
        ("map q r -o out --presence-percentiles 5", "1,99"),
        ("map q r -o out --min-confidence 2", "0 to 1"),
        ("map q r -o out --kernel gaus", "gauss"),
        ("map q r -o out --compat cellmapper-0.3", "cellmapper-0.2.5"),
        ("map q r -o out --steps 0", "--steps"),
        ("map q r -o out --label-subset T", "KEY=CATEGORY"),
        ("map q r -o out --self-edges", "self-mapping"),
        ("map q r", "--out"),
        ("map --label a q r -o out", "write QUERY and REFERENCE first"),
        ("map -o out --label a ./Cargo.toml", "write QUERY and REFERENCE first"),
        ("evaluate m --truth query.zarr", "query.zarr:obs/cell_type"),
        ("transfer n r -o out", "nothing to transfer"),
        ("frobnicate", "frobnicate"),
    ] {
        let message = refusal(line);
        assert!(message.contains(wanted), "{line}: {message}");
    }
}

#[test]
fn devices_says_what_there_is_in_both_forms() {
    let output = typed("devices --json");
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(value["devices"][0]["device"], "cpu");
    assert_eq!(value["backends"]["cpu"]["metrics"].as_array().map(Vec::len), Some(7));
    assert_eq!(value["backends"]["gpu"], value["backends"]["cpu"]);
    let page = text(&typed("devices").stdout);
    assert!(page.contains("euclidean") && page.contains("all but inner_product"), "{page}");
}

#[test]
fn the_demo_leaves_a_folder_of_somebody_else_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("thesis.txt"), "x").expect("a file");
    let output = program().arg("demo").arg("-o").arg(dir.path()).output().expect("the command starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("was not made by the demo"), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 1);
}

#[test]
#[cfg(unix)]
fn a_reader_that_goes_away_is_no_error() {
    use std::process::Stdio;
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    for words in [vec!["devices"], vec!["map", "--help"], vec![]] {
        let mut command = program();
        let stdout = Stdio::from(writer.try_clone().expect("a pipe"));
        // Without a session, a layer of Mesa tells that there is none when adapters are listed.
        command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
        let output = command.args(&words).stdout(stdout).stderr(Stdio::piped()).output().expect("the command starts");
        assert!(output.status.success() && output.stderr.is_empty(), "{words:?}: {}", text(&output.stderr));
    }
}

#[test]
fn the_environment_forces_the_instruction_set_and_the_manifest_says_which() {
    let dir = tempfile::tempdir().expect("a folder");
    let rows = dir.path().join("rows.npy");
    outputs::write_npy(&rows, 300, 5, |row, column| outputs::noise(1, row, column));
    let search = |name: &str| {
        let out = dir.path().join(name);
        let mut command = program();
        command.args(["search", "--json", "-q", "-k", "7"]).arg(&rows).arg("-o").arg(&out).env("ATLASKNN_SIMD", name);
        (command.output().expect("the command starts"), out)
    };
    let mut first = None;
    for name in ["portable", "avx2", "avx2-i16", "avx2-vnni", "avx512", "avx512-i16", "avx512-vnni", "neon"] {
        let (output, out) = search(name);
        if !output.status.success() {
            let message = text(&output.stderr);
            assert!(message.contains(name) && message.contains("this machine does not have"), "{message}");
            assert_ne!(name, "portable", "it runs everywhere");
            continue;
        }
        let variant: Vec<String> = outputs::values(&out, "uns/atlasknn/run/variant");
        assert_eq!(variant, [name]);
        let bytes = outputs::array_bytes(&out);
        assert_eq!(bytes, *first.get_or_insert_with(|| bytes.clone()), "{name}");
    }
    let (wrong, out) = search("sse9");
    assert_eq!(wrong.status.code(), Some(1));
    let message = text(&wrong.stderr);
    assert!(message.contains("sse9") && message.contains("is not an instruction set"), "{message}");
    assert!(!out.exists(), "nothing is begun");
}
