//! Which deletions are still needed (C1), and which expired records, which are deletions too.
//!
//! A tombstone shadows the older records of its key. While any of them may lie in a file that stays, it
//! has to stay too, or the key would come back with the next open. So every file outside the inputs
//! that holds older records at all is asked whether it may hold the key: its hint has a filter. A filter
//! that says "maybe" of a key that is not there keeps a tombstone for one more compaction, no more.
//!
//! ## Invariants
//! - **TO1** A tombstone is given up only if the keydir has a newer record of its key, or if each file
//!   outside the inputs either begins above its sequence number or has a filter that excludes the key.
//! - **TO3** A range tombstone is given up only if the keydir is rid of all that it hides, and no file outside
//!   the inputs holds an older put of a key of its range that no newer range of the inputs hides. Intents of batches
//!   are puts too, and may count again for an open that has lost the hint (BA1). No hint lists them, so one with
//!   intents is taken to hold such a put.
//! - **TO2** What cannot be read is taken to hold every key.

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use hashbrown::HashTable;

use crate::io::Fs;
use crate::keydir::KeydirReader;
use crate::log::data_file::Owner;
use crate::log::files::SealedFile;
use crate::log::format::FormatError;
use crate::log::format::hint::ranges::HintRange;
use crate::log::format::record::RecordKind;
use crate::log::hint_file::HintFile;
use crate::planted::{Bug, is_planted};
use crate::ranges::{RangeDel, Ranges};
use crate::route::KeyHasher;
use crate::types::{ExpiresAt, FileId, KeyHash, Seqno};
use crate::upkeep::hints::read_hint;
use crate::upkeep::range_del::{is_hidden, visit_touched};

/// The newest tombstone of a key in the inputs.
struct Candidate {
    hash: KeyHash,
    seqno: Seqno,
    is_needed: bool,
}

/// A range tombstone in the inputs.
struct RangeCandidate {
    file: FileId,
    range: RangeDel,
    is_needed: bool,
}

/// Decides over the tombstones of some files, one file a step.
pub(super) struct Tombstones {
    /// What expired later than this, in milliseconds since 1970, is not decided over.
    as_of_ms: u64,
    candidates: HashTable<Candidate>,
    ranges: Vec<RangeCandidate>,
    /// Of ranges up to here the keydir has nothing that they hide.
    worked_through: Seqno,
    needed: usize,
    /// Inputs whose tombstones could not be listed: all of them stay.
    unlisted: Vec<FileId>,
    /// Files whose hints could not be read.
    broken: Vec<FileId>,
    /// Inputs that are still to be listed.
    inputs: Vec<SealedFile>,
    /// Files that stay and are still to be asked.
    outside: Vec<SealedFile>,
}

/// What reading hints takes.
pub(super) struct Reading<'a> {
    pub(super) fs: &'a Fs,
    pub(super) dir: &'a Path,
    pub(super) owner: &'a Owner,
    pub(super) hasher: &'a KeyHasher,
    pub(super) keydir: &'a KeydirReader,
}

impl Tombstones {
    /// `inputs` are to be compacted, `outside` is every other sealed file. The active file need not be
    /// asked: it holds nothing older than a sealed one.
    pub(super) fn new(
        inputs: &[SealedFile],
        outside: &[SealedFile],
        as_of_ms: u64,
        worked_through: Seqno,
    ) -> Tombstones {
        let oldest_outside =
            outside.iter().filter(|file| file.records > 0).map(|file| file.seqno_min);
        let oldest_outside = oldest_outside.min().unwrap_or(Seqno(u64::MAX));
        // Only these can have tombstones with anything older outside.
        let inputs = inputs.iter().filter(|input| input.seqno_max > oldest_outside);
        Tombstones {
            as_of_ms,
            candidates: HashTable::new(),
            ranges: Vec::new(),
            worked_through,
            needed: 0,
            unlisted: Vec::new(),
            broken: Vec::new(),
            inputs: inputs.copied().collect(),
            outside: outside.iter().filter(|file| file.records > 0).copied().collect(),
        }
    }

    /// Whether what expired at this moment was decided over.
    pub(super) fn has_seen(&self, expires_at: ExpiresAt) -> bool {
        expires_at.as_ms() <= self.as_of_ms
    }

    /// Looks at one file; true once every tombstone is decided over.
    pub(super) fn step(&mut self, reading: &Reading<'_>) -> bool {
        if let Some(input) = self.inputs.pop() {
            self.list(&input, reading);
        } else if self.needed < self.candidates.len() + self.ranges.len() {
            match self.outside.pop() {
                Some(outside) => self.ask(&outside, reading),
                None => return true,
            }
        } else {
            return true;
        }
        false
    }

    /// Tombstones that stay.
    pub(super) fn needed_count(&self) -> u64 {
        self.needed as u64
    }

    /// Whether any input's tombstones stay unseen.
    pub(super) fn has_unlisted(&self) -> bool {
        !self.unlisted.is_empty()
    }

    pub(super) fn take_broken_hints(&mut self) -> Vec<FileId> {
        std::mem::take(&mut self.broken)
    }

    /// Whether the tombstone `seqno` of `hash`, which lies in `file`, has to stay. The keydir is the
    /// caller's to ask once more.
    pub(super) fn is_needed(&self, file: FileId, hash: KeyHash, seqno: Seqno) -> bool {
        self.unlisted.contains(&file)
            || self
                .candidates
                .find(hash.bucket, |candidate| candidate.hash == hash)
                .is_some_and(|candidate| candidate.is_needed && candidate.seqno == seqno)
    }

    /// Whether the range tombstone `seqno`, which lies in `file`, has to stay.
    pub(super) fn is_range_needed(&self, file: FileId, seqno: Seqno) -> bool {
        let is_listed = |known: &&RangeCandidate| known.file == file && known.range.seqno == seqno;
        // TO3: what it hides would be copied as if it counted.
        seqno > self.worked_through
            || self.unlisted.contains(&file)
            || self.ranges.iter().find(is_listed).is_some_and(|known| known.is_needed)
    }

    fn list(&mut self, input: &SealedFile, reading: &Reading<'_>) {
        let (candidates, as_of_ms) = (&mut self.candidates, self.as_of_ms);
        let mut ranges = Vec::new();
        let listed = read_hint(reading.fs, reading.dir, reading.owner, input, |hint| {
            ranges.clone_from(&hint.summary().ranges);
            hint.visit(&mut |entry| {
                let is_expired = entry.expires_at_ms.is_some_and(|at| at <= as_of_ms);
                if entry.kind != RecordKind::Del && !is_expired {
                    return;
                }
                let hash = reading.hasher.hash(entry.keyspace, entry.key);
                // TO1: the newer record shadows whatever the tombstone did. What has expired may be there
                // still, and be taken out before it is copied.
                if !is_expired && reading.keydir.lookup(hash, |_| ()).is_some() {
                    return;
                }
                let seqno = entry.seqno;
                let candidate = candidates
                    .entry(hash.bucket, |known| known.hash == hash, |known| known.hash.bucket)
                    .or_insert(Candidate { hash, seqno, is_needed: false })
                    .into_mut();
                candidate.seqno = candidate.seqno.max(seqno);
            })
        });
        if listed.is_none() {
            self.unlisted.push(input.id); // TO2
            self.broken.push(input.id);
            return;
        }
        for HintRange { range, .. } in ranges {
            let is_needed = range.seqno > self.worked_through;
            self.needed += usize::from(is_needed);
            self.ranges.push(RangeCandidate { file: input.id, range, is_needed });
        }
    }

    fn ask(&mut self, outside: &SealedFile, reading: &Reading<'_>) {
        self.ask_ranges(outside, reading);
        let is_older = |candidate: &Candidate| candidate.seqno > outside.seqno_min;
        if !self.candidates.iter().any(|candidate| !candidate.is_needed && is_older(candidate)) {
            return;
        }
        let ask = |hint: &HintFile<'_>| hint.filter();
        let filter = read_hint(reading.fs, reading.dir, reading.owner, outside, ask);
        if filter.is_none() {
            self.note_broken(outside.id);
        }
        for candidate in &mut self.candidates {
            let may_hold =
                || filter.as_ref().is_none_or(|filter| filter.may_contain(candidate.hash));
            let is_dropped = is_planted(Bug::TombstoneDroppedEarly);
            if !candidate.is_needed && is_older(candidate) && may_hold() && !is_dropped {
                candidate.is_needed = true;
                self.needed += 1;
            }
        }
    }

    fn note_broken(&mut self, file: FileId) {
        if !self.broken.contains(&file) {
            self.broken.push(file);
        }
    }

    /// Keeps the range tombstones that hide something in `outside`.
    fn ask_ranges(&mut self, outside: &SealedFile, reading: &Reading<'_>) {
        let is_asked =
            |known: &&RangeCandidate| !known.is_needed && known.range.seqno > outside.seqno_min;
        let asked = self.ranges.iter().filter(is_asked).map(|known| known.range.clone());
        let asked: Vec<RangeDel> = asked.collect();
        if asked.is_empty() || is_planted(Bug::RangeDroppedEarly) {
            return;
        }
        let (count, ranges) = (asked.len(), Ranges::of(asked));
        let ask = |hint: &HintFile<'_>| {
            if hint.summary().has_intents && !is_planted(Bug::IntentsUnhidden) {
                Ok(Ok(None)) // They may be of any key.
            } else {
                Ok(hiding(hint, &ranges, count)?.map(Some))
            }
        };
        let answer = read_hint(reading.fs, reading.dir, reading.owner, outside, ask);
        if answer.is_none() {
            self.note_broken(outside.id);
        }
        let hiding = answer.flatten();
        for known in &mut self.ranges {
            let seqno = known.range.seqno;
            let is_hiding = hiding.as_ref().is_none_or(|hiding| hiding.contains(&seqno)); // TO2
            if !known.is_needed && seqno > outside.seqno_min && is_hiding {
                known.is_needed = true;
                self.needed += 1;
            }
        }
    }
}

/// Which of `count` ranges hide something in the data file of the hint that no newer one of them hides.
fn hiding(
    hint: &HintFile<'_>,
    ranges: &Ranges,
    count: usize,
) -> io::Result<Result<HashSet<Seqno>, FormatError>> {
    let mut hiding = HashSet::new();
    let index = match hint.index()? {
        Ok(index) => index,
        Err(why) => return Ok(Err(why)),
    };
    let visited = visit_touched(hint, &index, ranges, 0, usize::MAX, &mut |entry| {
        if is_hidden(ranges, entry) {
            hiding.insert(ranges.cover(entry.keyspace, entry.key));
        }
        if hiding.len() == count { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(visited.map(|_| hiding))
}
