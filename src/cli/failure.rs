//! How a command ends.

use std::fmt;
use std::io;

use crate::Error;

/// A command that ran to its end.
pub(super) enum Outcome {
    Done,
    /// A key that was asked for is not there; the command has said so.
    NotFound,
    /// What was looked at is damaged; the command has said where.
    Damaged,
}

/// A command that did not.
#[derive(Debug)]
pub(super) enum Failure {
    Store(Error),
    /// One sentence: what was tried, on what, and what came of it.
    Failed(String),
    /// The arguments make no sense together.
    Usage(String),
    /// Nobody reads standard output any more.
    PipeClosed,
}

impl Failure {
    /// `attempt` completes "cannot …", as "read standard input".
    pub(super) fn io(attempt: impl fmt::Display, source: &io::Error) -> Failure {
        Failure::Failed(format!("cannot {attempt}: {source}"))
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Failure::PipeClosed => 0,
            Failure::Store(_) | Failure::Failed(_) => 1,
            Failure::Usage(_) => 2,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Store(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Store(error) => error.fmt(f),
            Failure::Failed(sentence) | Failure::Usage(sentence) => f.write_str(sentence),
            Failure::PipeClosed => f.write_str("the reader of standard output has gone"),
        }
    }
}
