//! Records from a file or standard input, parsed on a thread of their own, in bounded batches.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::channel::mpsc::{self, Receiver, Sender};
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};

use super::failure::Failure;
use super::format::{Decoded, Format};
use crate::limits::KEY_LEN_MAX;

/// A batch is handed on when it has this many records, or …
pub(super) const BATCH_RECORDS_MAX: usize = 512;
/// … when its records reach this many bytes, whichever is first; one long record may go over it.
pub(super) const BATCH_BYTES_MAX: usize = 1 << 20;
/// Batches parsed ahead of the puts.
const BATCHES_AHEAD: usize = 4;

const BUFFER_LEN_BYTES: usize = 1 << 20;

pub(super) struct Record {
    /// Where it was read, for errors about it.
    pub(super) line_number: u64,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) expires_at: Option<SystemTime>,
}

#[derive(Default)]
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    /// Of the records' keys and values.
    pub(super) len_bytes: usize,
    /// Bytes of input that the lines took, for the progress bar.
    pub(super) input_bytes: u64,
}

/// Where lines come from.
pub(super) struct Source {
    name: String,
    read: Box<dyn Read + Send>,
    /// Length in bytes, where it can be known.
    pub(super) len: Option<u64>,
}

impl Source {
    /// `-` is standard input.
    pub(super) fn open(path: &Path) -> Result<Source, Failure> {
        if path == Path::new("-") {
            let read = Box::new(std::io::stdin());
            return Ok(Source { name: "standard input".to_owned(), read, len: None });
        }
        let failed = |source| Failure::io(format_args!("open {}", path.display()), &source);
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let len = metadata.is_file().then_some(metadata.len());
        Ok(Source { name: path.display().to_string(), read: Box::new(file), len })
    }
}

/// The receiving end of the parser's thread.
pub(super) struct Batches {
    name: String,
    receiver: Receiver<Result<Batch, Failure>>,
    /// Taken when the thread has said its last.
    parser: Option<JoinHandle<()>>,
}

impl Batches {
    /// Starts to read; the thread ends with the input, at the first error, or when this is dropped.
    pub(super) fn start(source: Source, format: Format, value_len_max: usize) -> Batches {
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
        let name = source.name.clone();
        let lines = Lines {
            name: source.name,
            input: BufReader::with_capacity(BUFFER_LEN_BYTES, source.read),
            line: Vec::new(),
            number: 0,
            len_max: format.line_len_max(KEY_LEN_MAX, value_len_max),
        };
        let parser = std::thread::spawn(move || send_batches(lines, format, sender));
        Batches { name, receiver, parser: Some(parser) }
    }

    /// What to call the input in errors.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The next batch; nothing at the end of the input, and after an error.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Batch, Failure>>> {
        self.receiver.poll_next_unpin(cx).map(|batch| batch.or_else(|| self.parser_panicked()))
    }

    /// A channel that ends because its thread panicked must not pass for the end of the input.
    fn parser_panicked(&mut self) -> Option<Result<Batch, Failure>> {
        let joined = self.parser.take()?.join();
        joined.is_err().then(|| Err(Failure::Failed(format!("reading {} panicked", self.name))))
    }
}

fn send_batches(mut lines: Lines, format: Format, mut sender: Sender<Result<Batch, Failure>>) {
    loop {
        let mut batch = Batch::default();
        let end = fill(&mut lines, format, &mut batch);
        // The records before a bad line are loaded first.
        if !batch.records.is_empty() && block_on(sender.send(Ok(batch))).is_err() {
            return; // The load has failed and reads no further.
        }
        match end {
            Ok(Fill::More) => {}
            Ok(Fill::Ended) => return,
            Err(failure) => {
                // If nobody listens, the load has failed with an error of its own.
                let _unheard = block_on(sender.send(Err(failure)));
                return;
            }
        }
    }
}

enum Fill {
    More,
    Ended,
}

fn fill(lines: &mut Lines, format: Format, batch: &mut Batch) -> Result<Fill, Failure> {
    while batch.records.len() < BATCH_RECORDS_MAX && batch.len_bytes < BATCH_BYTES_MAX {
        // Before waiting for a slow pipe, hand on what has arrived.
        if lines.input.buffer().is_empty() && !batch.records.is_empty() {
            return Ok(Fill::More);
        }
        if !lines.advance()? {
            return Ok(Fill::Ended);
        }
        let decoded = format.decode(&lines.line).map_err(|what| lines.failure(what))?;
        let Decoded { key, value, expires_at_ms } = decoded;
        let expires_at = expires_at_ms.map(|ms| UNIX_EPOCH + Duration::from_millis(ms));
        batch.len_bytes += key.len() + value.len();
        batch.input_bytes += lines.line.len() as u64 + 1;
        batch.records.push(Record { line_number: lines.number, key, value, expires_at });
    }
    Ok(Fill::More)
}

struct Lines {
    name: String,
    input: BufReader<Box<dyn Read + Send>>,
    /// The current line, without its newline.
    line: Vec<u8>,
    /// Its number, from 1.
    number: u64,
    len_max: usize,
}

impl Lines {
    /// Reads the next line; false at the end of the input.
    fn advance(&mut self) -> Result<bool, Failure> {
        self.line.clear();
        self.number += 1;
        let mut bounded = self.input.by_ref().take(self.len_max as u64 + 1);
        bounded
            .read_until(b'\n', &mut self.line)
            .map_err(|source| Failure::io(format_args!("read {}", self.name), &source))?;
        if self.line.pop_if(|byte| *byte == b'\n').is_some() {
            return Ok(true);
        }
        if self.line.len() > self.len_max {
            return Err(self.failure(format_args!(
                "the line is longer than {} bytes, more than any record takes",
                self.len_max
            )));
        }
        // The last line may go without a newline.
        Ok(!self.line.is_empty())
    }

    fn failure(&self, what: impl std::fmt::Display) -> Failure {
        Failure::Failed(format!("{} line {}: {what}", self.name, self.number))
    }
}
