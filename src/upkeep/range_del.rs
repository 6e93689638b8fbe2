//! Finds the records of a data file that range tombstones hide.
//!
//! Opening and upkeep ask the same question: which records of this file are older than a range that is over
//! their key? Its hint knows, in order of keys, so only the blocks that a range touches are read. A file
//! without a hint is read itself, and so is the log as far as it goes.
//!
//! ## Invariants
//! - **RW1** What is found is every put of the file that is hidden and may be the newest of its key, perhaps
//!   more than once, and perhaps with records that something else has superseded.

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::io::Fs;
use crate::keydir::FileSlot;
use crate::log::data_file::{DataFile, Owner};
use crate::log::files::SealedFile;
use crate::log::format::FormatError;
use crate::log::format::hint::block::HintEntry;
use crate::log::format::hint::index::Index;
use crate::log::format::record::RecordKind;
use crate::log::hint_file::HintFile;
use crate::log::scanner::Scan;
use crate::ranges::Ranges;
use crate::route::KeyHasher;
use crate::types::{FileId, KeyHash, Seqno};
use crate::upkeep::hints::{Uncached, check_sealed, opened_chain, read_hint};

/// Blocks of a hint that one step reads, 8 KiB each.
const BLOCKS_A_STEP: usize = 64;
/// Bytes of a data file that one step reads.
const STEP_LEN: u64 = 1 << 20;

/// A record that a range hides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hidden {
    pub(crate) hash: KeyHash,
    pub(crate) offset: u32,
    pub(crate) seqno: Seqno,
}

/// What a step found, and whether it was the last one.
#[derive(Default)]
pub(crate) struct Step {
    pub(crate) hidden: Vec<Hidden>,
    pub(crate) is_over: bool,
}

/// What a job needs of its partition.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) fs: Fs,
    pub(crate) dir: PathBuf,
    pub(crate) owner: Owner,
    pub(crate) hasher: KeyHasher,
    pub(crate) ranges: Arc<Ranges>,
}

/// Looks through one data file, in steps.
pub(crate) struct RangeJob {
    surroundings: Surroundings,
    slot: FileSlot,
    data: Arc<DataFile>,
    /// Of the log only its id and how far it goes.
    file: SealedFile,
    is_log: bool,
    at: At,
}

/// How far a job is.
enum At {
    /// The next block of the hint.
    Hint(usize),
    /// Without a scan it has not begun.
    Data(Option<Scan>),
}

impl RangeJob {
    pub(crate) fn sealed(
        surroundings: Surroundings,
        slot: FileSlot,
        data: Arc<DataFile>,
        file: SealedFile,
        has_hint: bool,
    ) -> RangeJob {
        let at = if has_hint { At::Hint(0) } else { At::Data(None) };
        RangeJob { surroundings, slot, data, file, is_log: false, at }
    }

    /// The file that is written, up to `end`.
    pub(crate) fn log(
        surroundings: Surroundings,
        slot: FileSlot,
        data: Arc<DataFile>,
        end: u64,
    ) -> RangeJob {
        let (id, seqno) = (data.id, Seqno(0));
        let file =
            SealedFile { id, len: end, digest: 0, records: 0, seqno_min: seqno, seqno_max: seqno };
        RangeJob { surroundings, slot, data, file, is_log: true, at: At::Data(None) }
    }

    /// Where keydir entries of the file point.
    pub(crate) fn place(&self) -> (FileId, FileSlot) {
        (self.data.id, self.slot)
    }

    /// Looks through a part of the file.
    ///
    /// # Errors
    /// `Corrupt` for a file that is not what it should be, and `Io`.
    pub(crate) fn step(&mut self) -> Result<Step> {
        match self.at {
            At::Hint(from) => {
                let Surroundings { fs, dir, owner, .. } = &self.surroundings;
                let read =
                    read_hint(fs, dir, owner, &self.file, |hint| self.read_blocks(hint, from));
                let Some((step, next)) = read else {
                    self.at = At::Data(None);
                    return Ok(Step::default());
                };
                self.at = At::Hint(next);
                Ok(step)
            }
            At::Data(_) => self.read_data(),
        }
    }

    fn read_blocks(
        &self,
        hint: &HintFile<'_>,
        from: usize,
    ) -> io::Result<Result<(Step, usize), FormatError>> {
        let mut hidden = Vec::new();
        let index = match hint.index()? {
            Ok(index) => index,
            Err(why) => return Ok(Err(why)),
        };
        let ranges = &self.surroundings.ranges;
        let next = visit_touched(hint, &index, ranges, from, BLOCKS_A_STEP, &mut |entry| {
            if is_hidden(ranges, entry) {
                let hash = self.surroundings.hasher.hash(entry.keyspace, entry.key);
                hidden.push(Hidden { hash, offset: entry.offset, seqno: entry.seqno });
            }
            ControlFlow::Continue(())
        })?;
        Ok(next.map(|next| (Step { hidden, is_over: next >= index.len() }, next)))
    }

    fn read_data(&mut self) -> Result<Step> {
        let RangeJob { surroundings, data, file, is_log, at, .. } = self;
        let Surroundings { fs, owner, hasher, ranges, .. } = surroundings;
        let io = |source| Error::io("read", &data.path, source);
        let opened = data.open(fs).map_err(io)?;
        let reader = Uncached::new(&opened);
        let begun = match at {
            At::Data(scan) => scan.take(),
            At::Hint(_) => None,
        };
        let mut scan = match begun {
            Some(scan) => scan,
            None => Scan::start(opened_chain(&reader, data, file, owner)?),
        };
        let (mut hidden, mut undecodable) = (Vec::new(), None);
        let is_over = scan
            .read_on(&reader, file.len, data.identity, STEP_LEN, &mut |record| {
                let (keyspace, seqno) = (record.header.keyspace, record.header.seqno);
                if record.header.kind != RecordKind::Put {
                    return;
                }
                match owner.codecs.key(record.header, record.key, record.value) {
                    Ok(key) if seqno < ranges.cover(keyspace, &key) => {
                        let hash = hasher.hash(keyspace, &key);
                        hidden.push(Hidden { hash, offset: record.offset as u32, seqno });
                    }
                    Ok(_) => {}
                    Err(why) => {
                        undecodable.get_or_insert_with(|| why.at(&data.path, record.offset));
                    }
                }
            })
            .map_err(io)?;
        if let Some(error) = undecodable {
            return Err(error);
        }
        if is_over && !*is_log {
            check_sealed(&scan, &opened, data, file)?;
        } else if is_over && scan.end != file.len {
            let what = "the log ends before what was written to it";
            return Err(Error::corrupt(&data.path, scan.end, what));
        }
        *at = At::Data(Some(scan));
        Ok(Step { hidden, is_over })
    }
}

/// Whether a range hides what the entry stands for.
pub(crate) fn is_hidden(ranges: &Ranges, entry: &HintEntry<'_>) -> bool {
    entry.kind == RecordKind::Put && entry.seqno < ranges.cover(entry.keyspace, entry.key)
}

/// Visits the entries of the hint's blocks that a range touches, from block `from` on and `budget` of them at
/// most; returns the block to go on with, which is behind the last one when all were visited.
pub(crate) fn visit_touched(
    hint: &HintFile<'_>,
    index: &Index,
    ranges: &Ranges,
    from: usize,
    budget: usize,
    visit: &mut dyn FnMut(&HintEntry<'_>) -> ControlFlow<()>,
) -> io::Result<Result<usize, FormatError>> {
    let mut decoder = hint.decoder();
    let mut buf = Vec::new();
    let mut left = budget;
    let mut number = from;
    while let Some(block) = index.get(number) {
        let next = index.get(number + 1).map(|next| (next.keyspace, next.key));
        if ranges.touch((block.keyspace, block.key), next) {
            if left == 0 {
                return Ok(Ok(number));
            }
            left -= 1;
            decoder.reset();
            let entries =
                hint.block(block.place, &mut buf)?.and_then(|block| block.entries_from(0));
            let mut entries = match entries {
                Ok(entries) => entries,
                Err(why) => return Ok(Err(why)),
            };
            while let Some(entry) = entries.next(&mut decoder) {
                match entry {
                    Ok(entry) if visit(&entry).is_break() => return Ok(Ok(index.len())),
                    Ok(_) => {}
                    Err(why) => return Ok(Err(why)),
                }
            }
        }
        number += 1;
    }
    Ok(Ok(number))
}
