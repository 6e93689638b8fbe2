//! Standard output: text or JSON, buffered, and quiet when its reader goes away.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use serde::Serialize;

use super::failure::Failure;

/// Large enough that a dump costs few system calls.
const BUFFER_LEN_BYTES: usize = 128 << 10;

pub(super) struct Output {
    out: BufWriter<StdoutLock<'static>>,
    is_json: bool,
}

impl Output {
    pub(super) fn new(is_json: bool) -> Output {
        Output { out: BufWriter::with_capacity(BUFFER_LEN_BYTES, io::stdout().lock()), is_json }
    }

    /// Whether `--json` was given.
    pub(super) fn is_json(&self) -> bool {
        self.is_json
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.out.get_ref().is_terminal()
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(|source| refused(&source))
    }

    pub(super) fn line(&mut self, line: impl fmt::Display) -> Result<(), Failure> {
        writeln!(self.out, "{line}").map_err(|source| refused(&source))
    }

    /// One line of JSON.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.out, value)
            .map_err(io::Error::from)
            .and_then(|()| self.out.write_all(b"\n"))
            .map_err(|source| refused(&source))
    }

    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|source| refused(&source))
    }
}

fn refused(source: &io::Error) -> Failure {
    match source.kind() {
        io::ErrorKind::BrokenPipe => Failure::PipeClosed,
        _ => Failure::io("write to standard output", source),
    }
}
