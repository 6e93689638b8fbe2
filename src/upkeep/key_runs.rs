//! Key runs: hints, and runs that there are already, become one run.
//!
//! Beside the worker, which goes on writing and compacting: what a step finds in the keydir may have changed by
//! the time the run is there. That does no harm, because a run names keys and vouches for none.
//!
//! ## Invariants
//! - **KR1** A key of an input is in the run unless the keydir did not have it when the step came to it. All
//!   records of the inputs were published before: a file has its hint after it was sealed, and is sealed after
//!   what is in it was published. So a key that is left out comes back only in a newer file.
//! - **KR2** A run covers the data files whose hints it was made from, and what its other inputs covered, and
//!   nothing else.

use std::collections::BinaryHeap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::io::{File, Fs};
use crate::keydir::KeydirReader;
use crate::log::data_file::{DataFile, Owner};
use crate::log::format::FormatError;
use crate::log::format::data_header::FileKind;
use crate::log::hint_file::{Hint, KeyAt, KeyCursor, Shape};
use crate::log::key_run::{self, BLOCKS_START, KeyRun, KeyRunWriter};
use crate::log::layout;
use crate::log::stored_file::StoredFile;
use crate::route::KeyHasher;
use crate::types::{FileId, KeyspaceId};

/// Keys that one step looks at, some milliseconds.
const STEP_KEYS: usize = 32 << 10;
/// Bytes of inputs in memory at once, all together; and of one of them, however many there are.
const READ_BYTES: usize = 2 << 20;
const READ_LEN_MIN: usize = 8 << 10;
const READ_LEN_MAX: usize = 256 << 10;

/// What a job needs of its partition.
pub(crate) struct Surroundings {
    pub(crate) fs: Fs,
    pub(crate) dir: PathBuf,
    pub(crate) owner: Owner,
    pub(crate) hasher: KeyHasher,
    pub(crate) keydir: KeydirReader,
}

/// What is merged.
#[derive(Clone)]
pub(crate) enum Input {
    /// The data file comes last, as with scans (G3).
    Hint(Arc<Hint>, Arc<DataFile>),
    Run(Arc<KeyRun>),
}

/// Why a job ended without a run.
pub(crate) enum Trouble {
    /// The input is not to be used.
    Broken(Input),
    Failed(Error),
}

/// Writes one run, in steps.
pub(crate) struct KeyRunJob {
    surroundings: Surroundings,
    id: FileId,
    inputs: Vec<Input>,
    merge: Option<Merge>,
}

/// A job that has begun.
struct Merge {
    sources: Vec<Source>,
    /// Where the sources are, the smallest key first.
    heap: BinaryHeap<Head>,
    writer: KeyRunWriter,
    /// The key that was looked at last; no key is empty.
    keyspace: KeyspaceId,
    key: Vec<u8>,
    /// The key that was written last.
    last: Option<(KeyspaceId, Vec<u8>)>,
}

/// An input that is read from its first block to its last.
struct Source {
    stored: Arc<StoredFile>,
    file: Arc<File>,
    /// Of all its entries, if they are a hint's.
    data: Option<FileId>,
    cursor: KeyCursor,
    /// The next block begins here in what was read, which begins at `offset` in the file.
    at: usize,
    buf: Vec<u8>,
    offset: u64,
    end: u64,
    /// Bytes that `buf` holds, unless a block is longer.
    read_len: usize,
    is_begun: bool,
}

/// The key that a source is at. The largest is the one that comes first.
struct Head {
    keyspace: KeyspaceId,
    key: Vec<u8>,
    at: KeyAt,
    source: usize,
}

impl Ord for Head {
    fn cmp(&self, other: &Head) -> std::cmp::Ordering {
        let keys = (other.keyspace, &other.key).cmp(&(self.keyspace, &self.key));
        // Of two records of a key the newer one says where it is.
        keys.then_with(|| self.at.seqno.cmp(&other.at.seqno))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Head) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Head) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

impl KeyRunJob {
    /// Makes one run of the inputs, in a file of this id.
    pub(crate) fn new(surroundings: Surroundings, id: FileId, inputs: Vec<Input>) -> KeyRunJob {
        KeyRunJob { surroundings, id, inputs, merge: None }
    }

    pub(crate) fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// Where it writes.
    pub(crate) fn path(&self) -> PathBuf {
        layout::key_run_path(&self.surroundings.dir, self.id)
    }

    /// Merges on; the run once it is written.
    pub(crate) fn step(&mut self) -> Result<Option<KeyRun>, Trouble> {
        let mut merge = match self.merge.take() {
            Some(merge) => merge,
            None => self.begin()?,
        };
        for _ in 0..STEP_KEYS {
            let Some(head) = merge.heap.pop() else {
                return self.finish(merge).map(Some);
            };
            self.take(&mut merge, head)?;
        }
        self.merge = Some(merge);
        Ok(None)
    }

    fn begin(&self) -> Result<Merge, Trouble> {
        let Surroundings { fs, owner, .. } = &self.surroundings;
        let path = self.path();
        let io = |source| Trouble::Failed(Error::io("create", &path, source));
        let file = fs.create_new(&path).map_err(io)?;
        let writer = KeyRunWriter::begin(file, &owner.header(FileKind::KeyRun, self.id));
        let read_len = (READ_BYTES / self.inputs.len().max(1)).clamp(READ_LEN_MIN, READ_LEN_MAX);
        let sources = self.inputs.iter().map(|input| Source::open(fs, input, read_len));
        let mut merge = Merge {
            sources: sources.collect::<Result<_, _>>()?,
            heap: BinaryHeap::new(),
            writer,
            keyspace: KeyspaceId::default(),
            key: Vec::new(),
            last: None,
        };
        for source in 0..merge.sources.len() {
            self.go_on(&mut merge, source, Vec::new())?;
        }
        Ok(merge)
    }

    /// Writes the key if it is there, and lets its source go on.
    fn take(&self, merge: &mut Merge, head: Head) -> Result<(), Trouble> {
        let Head { keyspace, key, at, source } = head;
        let mut spare = key;
        if merge.key.is_empty() || (keyspace, &spare) != (merge.keyspace, &merge.key) {
            merge.keyspace = keyspace;
            std::mem::swap(&mut merge.key, &mut spare);
            let hash = self.surroundings.hasher.hash(keyspace, &merge.key);
            if self.surroundings.keydir.lookup(hash, |_| ()).is_some() {
                let file = merge.sources[source].data.or_else(|| key_run::file_of(&at));
                let written = merge.writer.push(keyspace, &merge.key, &at, file);
                written.map_err(|error| self.unwritten(error))?;
                let last = merge.last.get_or_insert_default();
                last.0 = keyspace;
                last.1.clone_from(&merge.key);
            }
        }
        self.go_on(merge, source, spare)
    }

    /// Puts the next key of a source onto the heap, if it has one.
    fn go_on(&self, merge: &mut Merge, source: usize, mut key: Vec<u8>) -> Result<(), Trouble> {
        match merge.sources[source].advance() {
            Ok(true) => {
                let cursor = &merge.sources[source].cursor;
                let (keyspace, found) = cursor.key();
                key.clear();
                key.extend_from_slice(found);
                merge.heap.push(Head { keyspace, key, at: cursor.at(), source });
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(why) => {
                let path = &merge.sources[source].stored.path;
                tracing::warn!(path = %path.display(), %why, "keys cannot be merged");
                Err(Trouble::Broken(self.inputs[source].clone()))
            }
        }
    }

    fn finish(&self, merge: Merge) -> Result<KeyRun, Trouble> {
        let mut covers = Vec::new();
        for input in &self.inputs {
            match input {
                Input::Hint(_, data) => covers.push(data.id),
                Input::Run(run) => covers.extend_from_slice(run.files()),
            }
        }
        let last = merge.last.as_ref().map(|(keyspace, key)| (*keyspace, key.as_slice()));
        let stored = StoredFile::new(self.path(), None);
        merge.writer.finish(last, stored, covers).map_err(|error| self.unwritten(error))
    }

    fn unwritten(&self, source: io::Error) -> Trouble {
        Trouble::Failed(Error::io("write", &self.path(), source))
    }
}

impl Source {
    fn open(fs: &Fs, input: &Input, read_len: usize) -> Result<Source, Trouble> {
        let stored = match input {
            Input::Hint(hint, _) => &hint.stored,
            Input::Run(run) => &run.stored,
        };
        let broken = |why: &dyn std::fmt::Display| {
            tracing::warn!(path = %stored.path.display(), %why, "keys cannot be merged");
            Trouble::Broken(input.clone())
        };
        let file = stored.open(fs).map_err(|error| broken(&error))?;
        let (data, cursor, end) = match input {
            Input::Hint(hint, data) => {
                let shape = hint.read_shape(&*file).map_err(|error| broken(&error))?;
                let shape = shape.map_err(|why| broken(&why))?;
                (Some(data.id), hint.cursor(false), shape.blocks_end)
            }
            Input::Run(run) => (None, run.cursor(false), run.len),
        };
        Ok(Source {
            stored: stored.clone(),
            file,
            data,
            cursor,
            at: 0,
            buf: Vec::new(),
            offset: BLOCKS_START,
            end,
            read_len,
            is_begun: false,
        })
    }

    /// Goes to the next entry; false behind the last one.
    fn advance(&mut self) -> Result<bool, Broken> {
        loop {
            if self.is_begun && self.cursor.advance()? {
                return Ok(true);
            }
            if self.offset + self.at as u64 >= self.end {
                return Ok(false);
            }
            let mut block = self.cursor.take_buf();
            self.have(Shape::BLOCK_HEAD_LEN)?;
            let len = Shape::block_len(&self.buf[self.at..])? as usize;
            self.have(len)?;
            block.clear();
            block.extend_from_slice(&self.buf[self.at..self.at + len]);
            self.at += len;
            self.cursor.enter(block, self.is_begun)?;
            self.is_begun = true;
        }
    }

    /// Reads on until there are so many bytes of the next block.
    fn have(&mut self, len: usize) -> Result<(), Broken> {
        if self.buf.len() - self.at >= len {
            return Ok(());
        }
        self.buf.drain(..self.at);
        self.offset += std::mem::take(&mut self.at) as u64;
        let held = self.buf.len();
        let left = self.end - self.offset - held as u64;
        let wanted = left.min((self.read_len.max(len) - held) as u64) as usize;
        self.buf.resize(held + wanted, 0);
        let (count, _) = self
            .file
            .read_uncached_at(&mut self.buf[held..], self.offset + held as u64)
            .map_err(Broken::Unreadable)?;
        self.buf.truncate(held + count);
        if self.buf.len() < len {
            return Err(FormatError::Incomplete { need: len }.into());
        }
        Ok(())
    }
}

/// Why an input cannot be read on.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Unreadable(io::Error),
    #[error(transparent)]
    Wrong(#[from] FormatError),
}
