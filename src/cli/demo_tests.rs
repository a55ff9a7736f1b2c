//! Claims about the demo that need no run.

use clap::Parser;

use super::super::args::{Cli, Command};
use super::*;

/// The words of a command as a shell would cut them; the demo's texts quote nothing.
fn command_lines(page: &str) -> Vec<Vec<String>> {
    page.replace("\\\n", " ")
        .lines()
        .filter(|line| line.trim_start().starts_with("atlasknn "))
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect()
}

#[test]
fn the_command_shown_is_what_the_demo_runs() {
    let places = Places::of(Path::new("demo"));
    let shown = command_lines(&introduction(&places));
    let Ok(Cli { command: Some(Command::Map(args)) }) = Cli::try_parse_from(&shown[0]) else {
        panic!("{shown:?} is no map command")
    };
    let request = map_request(&places, Within::default()).ok();
    assert_eq!(convert::map(&args).ok(), request);
    assert!(request.is_some());
}

#[test]
fn every_command_to_try_next_can_be_typed() {
    let places = Places::of(Path::new("demo"));
    let mapping = map_request(&places, Within::default()).expect("a request").mapping;
    let commands = command_lines(&next_steps(&places, &mapping));
    assert_eq!(commands.len(), 5);
    for words in commands {
        assert!(Cli::try_parse_from(&words).is_ok(), "{words:?}");
    }
}

#[test]
fn the_bundled_stores_are_unpacked_under_their_names() {
    let root = tempfile::tempdir().expect("a folder");
    let dir = root.path().join("demo");
    assert!(extract(&dir).is_ok());
    let places = Places::of(&dir);
    assert!(places.query.is_dir() && places.reference.is_dir());
}
