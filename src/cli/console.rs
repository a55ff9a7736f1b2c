//! The only place that writes to stdout and stderr, and what goes wrong in front of a person.

use std::error::Error as StdError;
use std::io::{self, IsTerminal, Write};

use super::convert::Usage;
use crate::error::{Error, JobError};

/// Why a command did not end well.
#[derive(Debug)]
pub enum Failure {
    /// The command cannot be used like this.
    Usage(String),
    /// The library says so.
    Library(Error),
    /// Results could not be printed.
    Print(io::Error),
    /// What is wrong was printed already, as the result.
    Shown,
}

impl Failure {
    /// The exit code: 1 failed, 2 bad usage, 75 interrupted and resumable.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Library(Error::Unit(_) | Error::Job(JobError::Refused(_))) => 2,
            Self::Library(Error::Job(JobError::Interrupted)) => 75,
            Self::Library(_) | Self::Print(_) | Self::Shown => 1,
        }
    }

    /// One line, the causes behind it; nothing where everything was said.
    pub fn message(&self) -> Option<String> {
        match self {
            Self::Usage(sentence) => Some(sentence.clone()),
            Self::Library(error) => Some(with_causes(error)),
            Self::Print(error) => Some(format!("cannot print the result: {error}")),
            Self::Shown => None,
        }
    }
}

impl From<Usage> for Failure {
    fn from(usage: Usage) -> Self {
        Self::Usage(usage.0)
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Library(error.into())
    }
}

fn with_causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

/// Prints to stdout. A reader that has gone away (`| head`) is no error.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Print(error)),
        _ => Ok(()),
    }
}

/// Prints a line to stderr; where even that fails there is nobody to tell.
pub fn tell(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Whether stderr is a terminal that takes bars and moves.
pub fn is_terminal() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// `error:` or `warning:` in front of a message, in colour where asked for.
pub fn marked(mark: Mark, message: &str, colour: bool) -> String {
    let (word, code) = match mark {
        Mark::Error => ("error:", "1;31"),
        Mark::Warning => ("warning:", "33"),
    };
    if colour { format!("\x1b[{code}m{word}\x1b[0m {message}") } else { format!("{word} {message}") }
}

/// What kind of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The run is over.
    Error,
    /// The run goes on.
    Warning,
}

/// Whether to colour stderr: a terminal, and nobody asked for none.
pub fn colours() -> bool {
    is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::error::StoreError;

    #[test]
    fn each_failure_has_its_exit_code() {
        for (failure, code) in [
            (Failure::Usage("x".to_owned()), 2),
            (JobError::Refused("x".to_owned()).into(), 2),
            (JobError::Unfit("x".to_owned()).into(), 1),
            (JobError::Interrupted.into(), 75),
            (JobError::OutputExists { path: PathBuf::from("x") }.into(), 1),
            (StoreError::Missing { path: PathBuf::from("x") }.into(), 1),
            (Failure::Shown, 1),
        ] {
            assert_eq!(failure.exit_code(), code, "{failure:?}");
        }
    }

    #[test]
    fn causes_follow_the_message() {
        let source = io::Error::other("the disk is on fire");
        let failure: Failure = StoreError::Io { action: "read", path: PathBuf::from("a.zarr"), source }.into();
        assert_eq!(failure.message().as_deref(), Some("cannot read a.zarr: the disk is on fire"));
    }

    #[test]
    fn colour_is_only_where_it_is_asked_for() {
        assert_eq!(marked(Mark::Warning, "look", false), "warning: look");
        assert!(marked(Mark::Warning, "look", true).starts_with("\x1b[33mwarning:\x1b[0m"));
    }
}
