//! The `atlasknn` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    atlasknn::cli::main()
}
