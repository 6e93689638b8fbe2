//! The hint of a data file as scans have it: where its parts are, and which bytes to fetch for them.
//!
//! It holds no descriptor of its own (its [`StoredFile`] does, as long as it may) and no entries. What is
//! small and asked for again and again stays in memory: where blocks end, first and last key, and the index,
//! a tenth of a byte for a key of sixteen bytes.

use std::io;
use std::sync::{Arc, OnceLock};

use super::cursor::KeyCursor;
use crate::log::files::SealedFile;
use crate::log::format::FormatError;
use crate::log::format::data_header::{DATA_HEADER_LEN, DataHeader, ExpectedFile};
use crate::log::format::hint::block::{BLOCK_HEAD_LEN, Block};
use crate::log::format::hint::index::Index;
use crate::log::format::hint::{KeyRange, Section, TRAILER_LEN, Trailer};
use crate::log::scanner::{ReadAt, read_full};
use crate::log::stored_file::StoredFile;

/// An index up to this many bytes stays in memory once it was needed.
const INDEX_KEPT_LEN_MAX: u64 = 128 << 10;
/// First and last key stay in memory if they are no longer than this together.
const KEYS_KEPT_LEN_MAX: usize = 1 << 10;

/// How much of a block is fetched before its length is known: all of most blocks.
const BLOCK_FETCH_LEN: u64 = 9 << 10;
/// How much of a hint's end is fetched before it is known how long its keys are.
const TAIL_FETCH_LEN: u64 = TRAILER_LEN as u64 + KEYS_KEPT_LEN_MAX as u64;

/// A hint that was written, or verified, by this process.
pub(crate) struct Hint {
    pub(crate) stored: Arc<StoredFile>,
    len: u64,
    expected: ExpectedFile,
    sealed: SealedFile,
    shape: OnceLock<Shape>,
    index: OnceLock<Arc<Index>>,
}

/// What there is to know of a hint before any of its blocks is read.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) blocks_end: u64,
    pub(crate) index: Section,
    /// `None` if there is no entry, or a key is too long to be kept.
    pub(crate) keys: Option<KeyRange>,
    pub(crate) is_empty: bool,
}

/// What was fetched is not enough.
pub(crate) enum Parsed<T> {
    Done(T),
    /// So many bytes are needed.
    More(u64),
}

impl Hint {
    /// The hint of `sealed`, `len` bytes long, in a file that may be open.
    pub(crate) fn new(
        stored: Arc<StoredFile>,
        len: u64,
        expected: ExpectedFile,
        sealed: SealedFile,
    ) -> Hint {
        Hint { stored, len, expected, sealed, shape: OnceLock::new(), index: OnceLock::new() }
    }

    pub(crate) fn cursor(&self, is_reverse: bool) -> KeyCursor {
        KeyCursor::new(self.expected.identity(), &self.sealed, is_reverse)
    }

    /// Length of the file in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Its shape, if that is known already.
    pub(crate) fn shape(&self) -> Option<&Shape> {
        self.shape.get()
    }

    /// Where its header is.
    pub(crate) fn head(&self) -> Section {
        Section { offset: 0, len: self.len.min(DATA_HEADER_LEN as u64) }
    }

    /// Where its last `len` bytes are, or those that are fetched first.
    pub(crate) fn tail(&self, len: Option<u64>) -> Section {
        let len = len.unwrap_or(TAIL_FETCH_LEN).min(self.len);
        Section { offset: self.len - len, len }
    }

    /// Its shape, by its first and last bytes (HI2).
    pub(crate) fn parse_shape(
        &self,
        head: &[u8],
        tail: &[u8],
    ) -> Result<Parsed<&Shape>, FormatError> {
        let (header, _) = DataHeader::decode(head)?;
        header.check_expected(&self.expected)?;
        let identity = self.expected.identity();
        let at = tail.len().saturating_sub(TRAILER_LEN);
        let trailer = Trailer::decode(&tail[at..], self.len, identity)?;
        let keys_len = trailer.keys().len;
        let Some(start) = (at as u64).checked_sub(keys_len) else {
            return Ok(Parsed::More(TRAILER_LEN as u64 + keys_len));
        };
        let tail = trailer.with_keys(&tail[start as usize..at], identity)?;
        if tail.summary.sealed != self.sealed {
            return Err(FormatError::Stale);
        }
        let is_kept = keys_len as usize <= KEYS_KEPT_LEN_MAX;
        let shape = Shape {
            blocks_end: tail.index.offset,
            index: tail.index,
            is_empty: tail.summary.entries == 0,
            keys: tail.summary.keys.filter(|_| is_kept),
        };
        Ok(Parsed::Done(self.shape.get_or_init(|| shape)))
    }

    /// Its shape, read where that may wait for the disk. An outer `Err` is a failed read.
    pub(crate) fn read_shape(
        &self,
        reader: &dyn ReadAt,
    ) -> io::Result<Result<&Shape, FormatError>> {
        if let Some(shape) = self.shape() {
            return Ok(Ok(shape));
        }
        let read = |section: Section| {
            let mut bytes = vec![0; section.len as usize];
            let count = read_full(reader, &mut bytes, section.offset)?;
            bytes.truncate(count);
            io::Result::Ok(bytes)
        };
        let head = read(self.head())?;
        let mut len = None;
        loop {
            let tail = read(self.tail(len))?;
            match self.parse_shape(&head, &tail) {
                Ok(Parsed::Done(shape)) => return Ok(Ok(shape)),
                Ok(Parsed::More(need)) if len.is_none() && need <= self.len => len = Some(need),
                Ok(Parsed::More(need)) => {
                    return Ok(Err(FormatError::Incomplete { need: need as usize }));
                }
                Err(why) => return Ok(Err(why)),
            }
        }
    }

    /// Its index, if that is in memory.
    pub(crate) fn kept_index(&self) -> Option<Arc<Index>> {
        self.index.get().cloned()
    }

    /// Its index, by its bytes.
    pub(crate) fn parse_index(
        &self,
        section: Vec<u8>,
        blocks_end: u64,
    ) -> Result<Arc<Index>, FormatError> {
        let is_kept = section.len() as u64 <= INDEX_KEPT_LEN_MAX;
        let index = Arc::new(Index::decode(section, blocks_end, self.expected.identity())?);
        if is_kept {
            return Ok(self.index.get_or_init(|| index).clone());
        }
        Ok(index)
    }
}

impl Shape {
    /// So many bytes of a block say how long it is.
    pub(crate) const BLOCK_HEAD_LEN: usize = BLOCK_HEAD_LEN;

    /// Where to look for the block that begins at `offset`, whose length may be known.
    pub(crate) fn block(&self, offset: u64, len: Option<u64>) -> Section {
        let len = len.unwrap_or(BLOCK_FETCH_LEN);
        Section { offset, len: len.min(self.blocks_end - offset) }
    }

    /// The length of the block that these bytes begin with.
    pub(crate) fn block_len(bytes: &[u8]) -> Result<u64, FormatError> {
        Ok(Block::len_of(bytes)? as u64)
    }
}
