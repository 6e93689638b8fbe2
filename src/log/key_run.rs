//! Key runs: the keys of many sealed files in one order, so that a scan over thousands of files is not a merge
//! of thousands of cursors.
//!
//! ```text
//! key run = data header (128, kind 4) · block · block · …
//! ```
//!
//! Blocks are those of a [hint](super::format::hint::block). Of a key that expires an entry says where its record
//! is, and in the place of a batch the data file; of all others only the key counts. A run names keys and vouches
//! for none: which of them are there says the keydir.
//!
//! Runs are written by upkeep, once scans have found many files, and belong to the open that wrote them: where its
//! blocks are is in memory only, and a run that is found on disk is removed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::files::SealedFile;
use super::format::FormatError;
use super::format::data_header::{DATA_HEADER_LEN, DataHeader, FileIdentity};
use super::format::hint::block::{BlockBuilder, HintEntry, RECORDS_START};
use super::format::hint::index::{Index, encode_count, encode_line};
use super::format::hint::{HintKey, KeyRange};
use super::format::record::{Codec, RECORD_HEADER_LEN, RecordKind};
use super::hint_file::{KeyAt, KeyCursor};
use super::stored_file::StoredFile;
use crate::io::File;
use crate::len_code::round_len;
use crate::limits;
use crate::types::{FileId, KeyspaceId, Seqno};

/// Bytes written at once.
const PIECE_LEN: usize = 1 << 20;

/// The keys of the data files that it covers, as scans read them.
///
/// Its index stays in memory: a tenth of a byte for a key of sixteen bytes.
pub(crate) struct KeyRun {
    pub(crate) stored: Arc<StoredFile>,
    identity: FileIdentity,
    index: Index,
    /// First and last key; `None` if it has none.
    pub(crate) keys: Option<KeyRange>,
    pub(crate) entries: u64,
    /// Length of the file in bytes.
    pub(crate) len: u64,
    /// In order: every key of these files that was there when the run was written is in it.
    covers: Vec<FileId>,
    is_broken: AtomicBool,
}

impl KeyRun {
    pub(crate) fn covers(&self, file: FileId) -> bool {
        self.covers.binary_search(&file).is_ok()
    }

    /// What KR2 forbids.
    pub(crate) fn cover(&mut self, files: impl Iterator<Item = FileId>) {
        self.covers.extend(files);
        self.covers.sort_unstable();
    }

    /// The files that it covers, in order of ids; some may be gone.
    pub(crate) fn files(&self) -> &[FileId] {
        &self.covers
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    pub(crate) fn cursor(&self, is_reverse: bool) -> KeyCursor {
        cursor(self.identity, is_reverse)
    }

    /// A block of it was found damaged, or could not be read: from here on nobody uses it.
    pub(crate) fn set_broken(&self) {
        self.is_broken.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }
}

/// The data file that an entry of a run says its record is in.
pub(crate) fn file_of(at: &KeyAt) -> Option<FileId> {
    at.batch.map(FileId)
}

fn cursor(identity: FileIdentity, is_reverse: bool) -> KeyCursor {
    // Bounds of any data file at all (BL2).
    let any = SealedFile {
        id: FileId::default(),
        len: limits::DATA_FILE_LEN_LIMIT,
        digest: 0,
        records: u64::MAX,
        seqno_min: Seqno(0),
        seqno_max: Seqno(u64::MAX),
    };
    KeyCursor::new(identity, &any, is_reverse)
}

/// Writes a run key after key.
pub(crate) struct KeyRunWriter {
    identity: FileIdentity,
    file: Arc<File>,
    /// What is not written yet, and how much is.
    piece: Vec<u8>,
    written: u64,
    block: BlockBuilder,
    /// The first key of the block.
    first: Option<HintKey>,
    index: Vec<u8>,
    blocks: u32,
    keys: Option<KeyRange>,
    entries: u64,
}

impl KeyRunWriter {
    /// Begins a run in a file that is empty.
    pub(crate) fn begin(file: Arc<File>, header: &DataHeader) -> KeyRunWriter {
        KeyRunWriter {
            identity: header.identity(),
            file,
            piece: header.encode().0.to_vec(),
            written: 0,
            block: BlockBuilder::new(),
            first: None,
            index: encode_count(0).to_vec(),
            blocks: 0,
            keys: None,
            entries: 0,
        }
    }

    /// Appends the key that follows the last one; `at` is where its record is, in `file`.
    pub(crate) fn push(
        &mut self,
        keyspace: KeyspaceId,
        key: &[u8],
        at: &KeyAt,
        file: Option<FileId>,
    ) -> io::Result<()> {
        let is_placed = at.expires_at_ms.is_some() && file.is_some();
        let entry = HintEntry {
            keyspace,
            key,
            kind: RecordKind::Put,
            seqno: if is_placed { at.seqno } else { Seqno(0) },
            offset: if is_placed { at.offset } else { RECORDS_START as u32 },
            // Nobody reads by it, so it is as short as a record of this key can be.
            len: round_len((RECORD_HEADER_LEN + key.len()) as u32),
            expires_at_ms: at.expires_at_ms,
            codec: Codec::default(),
            batch: file.filter(|_| is_placed).map(|file| file.0),
        };
        self.block.push(&entry, Seqno(0));
        self.entries += 1;
        if self.first.is_none() {
            self.first = Some(HintKey { keyspace, key: key.to_vec() });
        }
        if self.block.is_full() {
            self.end_block(keyspace, key)?;
        }
        Ok(())
    }

    /// Ends the block whose last key this is.
    fn end_block(&mut self, keyspace: KeyspaceId, key: &[u8]) -> io::Result<()> {
        let Some(first) = self.first.take() else { return Ok(()) };
        let bytes = self.block.finish(self.identity);
        self.index.extend_from_slice(&encode_line(bytes.len() as u32, first.keyspace, &first.key));
        self.index.extend_from_slice(&first.key);
        self.blocks += 1;
        self.piece.extend_from_slice(bytes);
        self.block.clear();
        let last = HintKey { keyspace, key: key.to_vec() };
        match &mut self.keys {
            Some(keys) => keys.last = last,
            none => *none = Some(KeyRange { first, last }),
        }
        if self.piece.len() >= PIECE_LEN { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_uncached_at(&self.piece, self.written)?;
        self.written += self.piece.len() as u64;
        self.piece.clear();
        Ok(())
    }

    /// The run, whose last key this is, in the file that was begun with, which is at `stored`.
    pub(crate) fn finish(
        mut self,
        last: Option<(KeyspaceId, &[u8])>,
        stored: Arc<StoredFile>,
        mut covers: Vec<FileId>,
    ) -> io::Result<KeyRun> {
        if let Some((keyspace, key)) = last {
            self.end_block(keyspace, key)?;
        }
        self.flush()?;
        let KeyRunWriter { identity, mut index, written, keys, entries, .. } = self;
        let count = encode_count(self.blocks);
        index[..count.len()].copy_from_slice(&count);
        let crc = crc32c::crc32c_append(identity.0, &index);
        index.extend_from_slice(&crc.to_le_bytes());
        index.shrink_to_fit();
        let decoded = Index::decode(index, written, identity);
        let index = decoded.map_err(|why: FormatError| io::Error::other(why.to_string()))?;
        covers.sort_unstable();
        let is_broken = AtomicBool::new(false);
        Ok(KeyRun { stored, identity, index, keys, entries, len: written, covers, is_broken })
    }
}

/// Where the blocks of a run begin.
pub(crate) const BLOCKS_START: u64 = DATA_HEADER_LEN as u64;
