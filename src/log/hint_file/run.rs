//! What a hint would say of some records, in memory: for a file that has none, or is still written.
//!
//! Runs are made when a scan needs them, from the log itself, and kept with their data file: a store that is
//! never scanned has none, and writers do nothing for them. A run is compressed as a hint is, some twelve to
//! twenty bytes for a key of sixteen; all runs of a file together hold no more records than a file may, and
//! go when it has its hint.

use std::sync::Arc;

use super::builder::HintBuilder;
use super::cursor::KeyCursor;
use crate::log::files::SealedFile;
use crate::log::format::FormatError;
use crate::log::format::data_header::{DATA_HEADER_LEN, FileIdentity};
use crate::log::format::hint::Section;
use crate::log::format::hint::block::{EntryDecoder, HeldBlock};
use crate::log::format::hint::index::Index;
use crate::log::format::record::RecordHeader;
use crate::sync::Mutex;
use crate::types::KeyHash;

/// Most records of one run: what is sorted at once, some milliseconds.
pub(crate) const RUN_RECORDS_MAX: usize = 64 << 10;

/// Sorted entries of some records.
pub(crate) struct Run {
    identity: FileIdentity,
    /// Bounds of its records, as those of a file (BL2).
    sealed: SealedFile,
    blocks: Vec<u8>,
    index: Index,
    entries: usize,
}

impl Run {
    pub(super) fn new(
        identity: FileIdentity,
        sealed: SealedFile,
        blocks: Vec<u8>,
        index: Index,
        entries: usize,
    ) -> Run {
        Run { identity, sealed, blocks, index, entries }
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    pub(crate) fn cursor(&self, is_reverse: bool) -> KeyCursor {
        KeyCursor::new(self.identity, &self.sealed, is_reverse)
    }

    /// Copies the block at a place that the index names into `buf`.
    pub(crate) fn read(&self, place: Section, buf: &mut Vec<u8>) {
        let start = usize::try_from(place.offset).unwrap_or(0).saturating_sub(DATA_HEADER_LEN);
        buf.clear();
        buf.extend_from_slice(&self.blocks[start..start + place.len as usize]);
    }

    /// Adds every entry to `builder`.
    fn pour(&self, builder: &mut HintBuilder) -> Result<(), FormatError> {
        let mut decoder = EntryDecoder::new(&self.sealed);
        for block in (0..self.index.len()).filter_map(|block| self.index.get(block)) {
            let mut bytes = Vec::new();
            self.read(block.place, &mut bytes);
            let mut block = HeldBlock::decode(bytes, self.identity)?;
            while let Some(entry) = block.next(&mut decoder) {
                let entry = entry?;
                let header = RecordHeader {
                    seqno: entry.seqno,
                    kind: entry.kind,
                    keyspace: entry.keyspace,
                    codec: entry.codec,
                    expires_at_ms: entry.expires_at_ms,
                    batch: entry.batch,
                    raw_len: None,
                    key_len: entry.key.len() as u16,
                    value_len: 0,
                    body_crc: 0,
                };
                builder.push(NO_HASH, &header, entry.key, entry.offset.into(), entry.len);
            }
        }
        Ok(())
    }

    fn merged(&self, other: &Run) -> Result<Run, FormatError> {
        let mut builder = HintBuilder::for_records((self.entries + other.entries) as u64);
        self.pour(&mut builder)?;
        other.pour(&mut builder)?;
        builder.into_run(self.identity)
    }
}

/// Runs have no filter, which is all that needs it.
pub(crate) const NO_HASH: KeyHash = KeyHash { bucket: 0, table: 0, route: 0 };

/// The runs of a data file, and how far into it they go.
#[derive(Clone)]
pub(crate) struct RunSet {
    pub(crate) upto: u64,
    pub(crate) runs: Vec<Arc<Run>>,
}

impl RunSet {
    /// Nothing yet.
    fn new() -> RunSet {
        RunSet { upto: DATA_HEADER_LEN as u64, runs: Vec::new() }
    }

    /// Adds the run of what lies before `upto`. Small runs of about the same size become one, so that a scan
    /// after every few puts leaves some runs and not thousands.
    pub(crate) fn push(&mut self, run: Run, upto: u64) -> Result<(), FormatError> {
        self.upto = upto;
        let mut run = run;
        while let Some(before) = self.runs.last() {
            let is_similar = before.entries <= 2 * run.entries;
            if !is_similar || before.entries + run.entries > RUN_RECORDS_MAX {
                break;
            }
            run = before.merged(&run)?;
            self.runs.pop();
        }
        if run.entries > 0 {
            self.runs.push(Arc::new(run));
        }
        Ok(())
    }
}

/// The runs of a data file as scans share them.
pub(crate) struct Runs {
    set: Mutex<Arc<RunSet>>,
    /// Held by the scan that goes on with them; others wait for what it finds.
    pub(crate) extending: futures::lock::Mutex<()>,
}

impl Default for Runs {
    fn default() -> Runs {
        let set = Mutex::new(Arc::new(RunSet::new()));
        Runs { set, extending: futures::lock::Mutex::default() }
    }
}

impl Runs {
    pub(crate) fn get(&self) -> Arc<RunSet> {
        self.set.lock().clone()
    }

    /// Keeps `set`, unless nobody needs it any more.
    pub(crate) fn keep(&self, set: &Arc<RunSet>, is_needed: impl FnOnce() -> bool) {
        let mut kept = self.set.lock();
        if is_needed() {
            *kept = set.clone();
        }
    }

    pub(crate) fn clear(&self) {
        let empty = Arc::new(RunSet::new());
        let before = std::mem::replace(&mut *self.set.lock(), empty);
        drop(before);
    }
}
