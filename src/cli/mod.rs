//! The command line: flags, text, progress, exit codes. The only code that prints.
//!
//! `args` and `flags` are the commands as typed, `values` reads single values, `unbuilt` refuses what is not there
//! yet, `convert` makes requests of `job` from the rest, `run` carries them out, and `show` (with `info`, `index`,
//! `evaluate`, `devices`) puts results into words. `heap` sets up the allocator. It computes nothing.

mod args;
mod console;
mod convert;
mod demo;
mod devices;
mod evaluate;
mod flags;
mod heap;
mod help;
mod index;
mod info;
mod progress;
mod run;
mod show;
mod text;
mod unbuilt;
mod values;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::engine::hnsw::is_guarded;
use args::Cli;
use console::{Failure, Mark};

/// Runs the command of this process's arguments. Exit codes: 0 done, 1 failed, 2 bad usage, 75 interrupted and
/// resumable.
#[must_use]
pub fn main() -> ExitCode {
    heap::give_large_buffers_back();
    let usual = std::panic::take_hook();
    // What becomes an error is told by that alone.
    std::panic::set_hook(Box::new(move |panic| {
        if !is_guarded() {
            usual(panic);
        }
    }));
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error),
    };
    let done = match &cli.command {
        Some(command) => run::command(command),
        None => console::print(help::WELCOME),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&failure),
    }
}

fn failed(failure: &Failure) -> ExitCode {
    if let Some(message) = failure.message() {
        console::tell(&console::marked(Mark::Error, &message, console::colours()));
    }
    ExitCode::from(failure.exit_code())
}

/// Help and version are printed and done; anything else is bad usage.
fn not_parsed(error: &clap::Error) -> ExitCode {
    // A reader that has gone away is no error, and there is nobody else to tell.
    let _ = error.print();
    if error.kind() == ErrorKind::MissingRequiredArgument && std::env::args().any(|word| takes_several(&word)) {
        console::tell(
            "\n  tip: --label, --value and --obsm take all the words that follow; write QUERY and REFERENCE first",
        );
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn takes_several(word: &str) -> bool {
    ["--label", "--value", "--obsm", "--layer"].contains(&word)
}
