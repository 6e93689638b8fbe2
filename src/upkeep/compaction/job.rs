//! Copies what counts of some files into new ones, in steps.
//!
//! Runs beside the worker, which goes on writing and serving: what a step finds in the keydir may have
//! changed when the job ends. So the job only prepares. It leaves new files, durable and not listed, and a
//! list of moves; the worker lists the files, makes each move whose record is still the newest of its key
//! (K4), and then lets go of the inputs (C2).
//!
//! ## Invariants
//! - **CJ1** A record is copied with its sequence number, key, value and body checksum as they are, after
//!   both checksums were verified; only the header's checksum is another, because it names the file. One that
//!   is not encrypted with the newest key is encrypted with that (CO3).
//! - **CJ2** What is left out is a record that the keydir did not point at when it was looked at, or a
//!   tombstone that [`tombstones`](super::tombstones) gave up. Whatever superseded it must be durable
//!   before the inputs are let go: that is the worker's to see to.
//! - **CJ3** A job that fails or is given up leaves nothing behind once [`Job::discard`] has run.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::policy::Pace;
use super::tombstones::{Reading, Tombstones};
use crate::clock::ExpiryClock;
use crate::error::{Error, Result};
use crate::io::{File, Fs};
use crate::keydir::{FileSlot, KeydirReader, Location};
use crate::log::codec::{Codecs, Encoded};
use crate::log::data_file::{DataFile, FileBounds, FileIds, Owner};
use crate::log::files::SealedFile;
use crate::log::format::FormatError;
use crate::log::format::data_header::FileKind;
use crate::log::format::group::GROUP_HEADER_LEN;
use crate::log::format::record::{RecordHeader, RecordKind};
use crate::log::hint_file::HintBuilder;
use crate::log::layout;
use crate::log::scanner::{Group, RecordAt, Scan};
use crate::log::writer::FileWriter;
use crate::route::KeyHasher;
use crate::scratch;
use crate::types::{FileId, KeyHash, Seqno};
use crate::upkeep::hints::{Uncached, check_sealed, hint_of, opened_chain, write_hint};

/// Bytes of an input that one step reads.
const STEP_LEN: u64 = 1 << 20;
/// Bytes of an output that are written, and synced, at once.
const WRITE_LEN: usize = 128 << 10;

/// What a job needs of its partition.
pub(crate) struct Surroundings {
    pub(crate) fs: Fs,
    pub(crate) dir: PathBuf,
    pub(crate) owner: Owner,
    pub(crate) hasher: KeyHasher,
    pub(crate) keydir: KeydirReader,
    pub(crate) ids: FileIds,
    pub(crate) bounds: FileBounds,
    pub(crate) pace: Pace,
    pub(crate) clock: Arc<ExpiryClock>,
    /// The keydir is rid of what range tombstones up to here hide.
    pub(crate) ranges_worked_through: Seqno,
}

/// A file to compact.
pub(crate) struct Input {
    pub(crate) slot: FileSlot,
    pub(crate) data: Arc<DataFile>,
    pub(crate) sealed: SealedFile,
}

/// A record that was copied.
#[derive(Clone, Copy)]
pub(crate) struct Move {
    pub(crate) hash: KeyHash,
    pub(crate) from: Location,
    /// Offset in the output.
    pub(crate) to: u32,
    /// Length there, which is another if the record was encrypted anew.
    pub(crate) len: u32,
}

/// A new file, durable with its hint.
pub(crate) struct Output {
    pub(crate) data: Arc<DataFile>,
    pub(crate) sealed: SealedFile,
    pub(crate) moves: Vec<Move>,
    pub(crate) record_bytes: u64,
    pub(crate) shadow_records: u64,
    pub(crate) shadow_bytes: u64,
    pub(crate) hint_len: u64,
}

/// Where a job stands after a step.
pub(crate) enum Progress {
    /// It is decided which tombstones stay; whoever runs the job may give it up now, for nothing has been
    /// written.
    Decided {
        tombstones_kept: u64,
    },
    Copying,
    Done,
}

/// What a job has done.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    read_bytes: u64,
    written_bytes: u64,
}

pub(crate) struct Job {
    surroundings: Surroundings,
    inputs: Vec<Input>,
    tombstones: Tombstones,
    is_decided: bool,
    /// Index of the input that is being read, and how far.
    reading: usize,
    scan: Option<Scan>,
    /// Most of what was read last was in memory.
    is_cached: bool,
    writing: Option<Writing>,
    outputs: Vec<Output>,
    tally: Tally,
}

/// An output that is not complete yet.
struct Writing {
    path: PathBuf,
    file: Arc<File>,
    id: FileId,
    writer: FileWriter,
    hint: HintBuilder,
    moves: Vec<Move>,
    key_bytes: u64,
    record_bytes: u64,
    shadow_records: u64,
    shadow_bytes: u64,
}

/// A record as it goes into an output.
struct Copy<'a> {
    hash: KeyHash,
    /// The caller's.
    key: &'a [u8],
    /// Where the range of a range tombstone ends.
    end: Cow<'a, [u8]>,
    header: RecordHeader,
    /// As they were stored, or both in one.
    stored: [Cow<'a, [u8]>; 2],
}

impl<'a> Copy<'a> {
    fn of(
        codecs: &Codecs,
        hash: KeyHash,
        key: &'a [u8],
        record: &RecordAt<'a>,
    ) -> Result<Copy<'a>, FormatError> {
        let renewed = codecs.renew(record.header, record.key, record.value)?;
        let as_it_is = || [record.key, record.value].map(Cow::Borrowed);
        let copy = Copy::with(hash, key, record.header, renewed, as_it_is);
        let is_range = record.header.kind == RecordKind::RangeDel;
        if is_range {
            let [_, end] = codecs.plain(record)?;
            return Ok(Copy { end, ..copy });
        }
        Ok(copy)
    }

    /// What shadows as much as a record that has expired.
    fn tombstone(
        codecs: &Codecs,
        hash: KeyHash,
        key: &'a [u8],
        expired: &RecordHeader,
    ) -> Copy<'a> {
        let header = expired.tombstone(key);
        let encoded = codecs.encode(header.kind, header.keyspace, key, &[]);
        Copy::with(hash, key, &header, encoded, || [Cow::Borrowed(key), Cow::Borrowed(&[])])
    }

    fn with(
        hash: KeyHash,
        key: &'a [u8],
        header: &RecordHeader,
        encoded: Option<Encoded>,
        as_it_is: impl FnOnce() -> [Cow<'a, [u8]>; 2],
    ) -> Copy<'a> {
        let end = Cow::Borrowed(&[][..]);
        if let Some(encoded) = encoded {
            let header = encoded.header(header);
            let stored = [Cow::Owned(encoded.body), Cow::Borrowed(&[][..])];
            return Copy { hash, key, end, header, stored };
        }
        Copy { hash, key, end, header: *header, stored: as_it_is() }
    }

    fn body(&self) -> [&[u8]; 2] {
        [&self.stored[0], &self.stored[1]]
    }
}

impl Job {
    /// `outside` is every sealed file that is not among the inputs.
    pub(crate) fn new(
        surroundings: Surroundings,
        inputs: Vec<Input>,
        outside: &[SealedFile],
    ) -> Job {
        let sealed: Vec<SealedFile> = inputs.iter().map(|input| input.sealed).collect();
        Job {
            tombstones: Tombstones::new(
                &sealed,
                outside,
                surroundings.clock.now_ms(),
                surroundings.ranges_worked_through,
            ),
            surroundings,
            inputs,
            is_decided: false,
            reading: 0,
            scan: None,
            is_cached: false,
            writing: None,
            outputs: Vec::new(),
            tally: Tally::default(),
        }
    }

    pub(crate) fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// Files whose hints could not be read, each once.
    pub(crate) fn take_broken_hints(&mut self) -> Vec<FileId> {
        self.tombstones.take_broken_hints()
    }

    /// What a job that is done leaves to its partition: what goes, and what comes.
    pub(crate) fn into_parts(self) -> (Vec<Input>, Vec<Output>) {
        (self.inputs, self.outputs)
    }

    /// Does some of the work; also says how long the pace asks to rest after it.
    ///
    /// # Errors
    /// `Corrupt` for a damaged input, which then stays as it is; `NoSpace` and `Io`.
    pub(crate) fn step(&mut self) -> (Result<Progress>, Duration) {
        let started = Instant::now();
        let before = self.tally;
        let progress = self.work();
        let moved = (self.tally.read_bytes - before.read_bytes)
            + (self.tally.written_bytes - before.written_bytes);
        (progress, self.surroundings.pace.wait(moved, started.elapsed()))
    }

    fn work(&mut self) -> Result<Progress> {
        if !self.is_decided {
            let Surroundings { fs, dir, owner, hasher, keydir, .. } = &self.surroundings;
            let reading = Reading { fs, dir, owner, hasher, keydir };
            self.is_decided = self.tombstones.step(&reading);
            if self.is_decided && !self.tombstones.has_unlisted() {
                return Ok(Progress::Decided { tombstones_kept: self.tombstones.needed_count() });
            }
            return Ok(Progress::Copying);
        }
        if self.reading < self.inputs.len() {
            self.copy()?;
            return Ok(Progress::Copying);
        }
        self.finish_output()?;
        let Surroundings { fs, dir, .. } = &self.surroundings;
        fs.sync_dir(dir).map_err(|source| Error::io("sync", dir, source))?;
        Ok(Progress::Done)
    }

    /// Copies what counts of the next stretch of an input.
    fn copy(&mut self) -> Result<()> {
        let input = &self.inputs[self.reading];
        let (slot, data, sealed) = (input.slot, input.data.clone(), input.sealed);
        let io = |source| Error::io("read", &data.path, source);
        let file = data.open(&self.surroundings.fs).map_err(io)?;
        let reader = Uncached::new(&file);
        let mut scan = match self.scan.take() {
            Some(scan) => scan,
            None => Scan::start(opened_chain(&reader, &data, &sealed, &self.surroundings.owner)?),
        };
        let before = scan.end;
        let codecs = self.surroundings.owner.codecs.clone();
        let mut outcome = Ok(());
        let is_read = scan
            .read_groups_on(&reader, sealed.len, data.identity, STEP_LEN, &mut |group| {
                if outcome.is_ok() {
                    outcome = self.take_group(&codecs, slot, &data, group);
                }
            })
            .map_err(io)?;
        outcome?;
        self.tally.read_bytes += scan.end - before;
        self.is_cached = reader.was_cached();
        self.write_out()?;
        if is_read {
            check_sealed(&scan, &file, &data, &sealed)?;
            self.reading += 1;
        } else {
            self.scan = Some(scan);
        }
        Ok(())
    }

    /// Copies the records of a group that count.
    fn take_group(
        &mut self,
        codecs: &Codecs,
        slot: FileSlot,
        data: &DataFile,
        group: &Group<'_>,
    ) -> Result<()> {
        let mut records = Vec::new();
        let mut hashes = Vec::new();
        // What belongs to a batch was settled long ago, or else the file would not be an input (BA3).
        for record in group.records().filter(|record| !record.header.is_of_batch()) {
            let RecordAt { offset, header, key, value, .. } = record;
            let key = codecs.key(header, key, value).map_err(|why| why.at(&data.path, offset))?;
            hashes.push(self.surroundings.hasher.hash(header.keyspace, &key));
            records.push((record, key));
        }
        let mut newest = vec![None; hashes.len()];
        self.surroundings.keydir.lookup_many(&hashes, |index, location| newest[index] = location);
        for (((record, key), hash), newest) in records.iter().zip(hashes).zip(newest) {
            self.take(codecs, slot, data, record, (key, hash), newest)?;
        }
        Ok(())
    }

    /// Copies a record if it counts, of a key whose newest record is at `newest`.
    fn take(
        &mut self,
        codecs: &Codecs,
        slot: FileSlot,
        data: &DataFile,
        record: &RecordAt<'_>,
        (key, hash): (&[u8], KeyHash),
        newest: Option<Location>,
    ) -> Result<()> {
        let RecordAt { offset, header, .. } = *record;
        let damaged = |why: FormatError| why.at(&data.path, offset);
        let is_here = |newest: &Location| newest.slot == slot && u64::from(newest.offset) == offset;
        let copy = || Copy::of(codecs, hash, key, record).map_err(damaged);
        match header.kind {
            RecordKind::Put => {
                let Some(from) = newest.filter(is_here) else {
                    let may_shadow = newest.is_none() && header.expires_at().is_some();
                    return if may_shadow {
                        self.take_expired(data, key, hash, record)
                    } else {
                        Ok(())
                    };
                };
                let copy = copy()?;
                let to = self.push(&copy)?;
                let writing = self.writing.as_mut().expect("`push` has just written to it");
                writing.moves.push(Move { hash, from, to, len: copy.header.record_len() });
            }
            RecordKind::Del => {
                if newest.is_some() || !self.tombstones.is_needed(data.id, hash, header.seqno) {
                    return Ok(());
                }
                self.push_shadow(&copy()?)?;
            }
            RecordKind::RangeDel => {
                if !self.tombstones.is_range_needed(data.id, header.seqno) {
                    return Ok(());
                }
                self.push_shadow(&copy()?)?;
            }
            RecordKind::BatchDecision | RecordKind::BatchResolve => {}
        }
        Ok(())
    }

    /// A record that had an expiry and is not in the keydir any more: it was taken out for having expired,
    /// and shadows what is older as a tombstone does, or else it is dead, which cannot be told.
    fn take_expired(
        &mut self,
        data: &DataFile,
        key: &[u8],
        hash: KeyHash,
        record: &RecordAt<'_>,
    ) -> Result<()> {
        let header = record.header;
        let Surroundings { clock, owner, .. } = &self.surroundings;
        let Some(expires_at) = header.expires_at().filter(|at| clock.is_past(*at)) else {
            return Ok(()); // Nothing takes out what has not expired, so it was overwritten or deleted.
        };
        let is_seen = self.tombstones.has_seen(expires_at);
        if is_seen && !self.tombstones.is_needed(data.id, hash, header.seqno) {
            return Ok(());
        }
        // T1: a record that might come back with the right time stays as it is.
        let copy = if clock.is_over(expires_at) {
            Copy::tombstone(&owner.codecs, hash, key, header)
        } else {
            Copy::of(&owner.codecs, hash, key, record)
                .map_err(|why| why.at(&data.path, record.offset))?
        };
        self.push_shadow(&copy)
    }

    fn push_shadow(&mut self, copy: &Copy<'_>) -> Result<()> {
        self.push(copy)?;
        let writing = self.writing.as_mut().expect("`push` has just written to it");
        writing.shadow_records += 1;
        writing.shadow_bytes += u64::from(copy.header.record_len());
        Ok(())
    }

    /// Adds a record to the output, or to the next one if it is full; returns its offset there (CJ1).
    fn push(&mut self, copy: &Copy<'_>) -> Result<u32> {
        let Copy { hash, key, end, header, .. } = copy;
        let len = header.record_len();
        let key_bytes = u64::from(header.key_len) + end.len() as u64;
        let bounds = self.surroundings.bounds;
        let is_full = self.writing.as_ref().is_some_and(|writing| {
            let records = writing.writer.record_count() + 1;
            !bounds.admit(writing.writer.len_with(len), records, writing.key_bytes + key_bytes)
        });
        if is_full {
            self.finish_output()?;
        }
        if self.writing.is_none() {
            self.writing = Some(self.begin_output()?);
        }
        let writing = self.writing.as_mut().expect("it was just begun");
        let offset = writing.writer.push(header, copy.body());
        writing.hint.push_record(*hash, &RecordAt { offset, len, header, key, value: end });
        writing.key_bytes += key_bytes;
        writing.record_bytes += u64::from(len);
        if writing.writer.buffered_len() >= WRITE_LEN {
            self.write_out()?;
        }
        Ok(offset as u32)
    }

    fn begin_output(&self) -> Result<Writing> {
        let Surroundings { fs, dir, owner, ids, .. } = &self.surroundings;
        let id = ids.take();
        let path = layout::data_file_path(dir, id);
        let file = fs.create_new(&path).map_err(|source| Error::io("create", &path, source))?;
        file.advise_random();
        let records = self.inputs.iter().map(|input| input.sealed.records).sum::<u64>();
        let records = records.min(self.surroundings.bounds.records_max);
        Ok(Writing {
            writer: FileWriter::begin(file.clone(), &owner.header(FileKind::Data, id)),
            path,
            file,
            id,
            hint: HintBuilder::for_records(records),
            moves: scratch::vec(records as usize),
            key_bytes: 0,
            record_bytes: 0,
            shadow_records: 0,
            shadow_bytes: 0,
        })
    }

    fn write_out(&mut self) -> Result<()> {
        let keep_cached = self.is_cached;
        let Some(writing) = &mut self.writing else { return Ok(()) };
        self.tally.written_bytes += writing.writer.buffered_len() as u64;
        writing
            .writer
            .write_out(keep_cached)
            .map_err(|source| Error::io("write", &writing.path, source))
    }

    /// Closes the output, and makes it and its hint durable.
    fn finish_output(&mut self) -> Result<()> {
        let Some(writing) = &mut self.writing else { return Ok(()) };
        let Surroundings { fs, dir, owner, .. } = &self.surroundings;
        let io = |path: &std::path::Path| {
            let path = path.to_owned();
            move |source| Error::io("write", &path, source)
        };
        let sealed = writing.writer.finish().map_err(io(&writing.path))?;
        let hint = std::mem::take(&mut writing.hint);
        let hint_len = write_hint(fs, dir, owner, &sealed, hint)
            .and_then(|(file, len)| file.sync_all().map(|()| len))
            .map_err(io(&layout::hint_file_path(dir, writing.id)))?;
        let Some(writing) = self.writing.take() else { return Ok(()) };
        self.tally.written_bytes += hint_len;
        let data = DataFile::new(
            writing.id,
            owner.identity_of(writing.id),
            owner.codecs.key_id(),
            writing.path,
            writing.file,
            sealed.len - GROUP_HEADER_LEN as u64,
        );
        data.note_copy();
        if let Some(hint) = hint_of(dir, owner, &sealed, hint_len, None) {
            data.set_hint(hint);
        }
        self.outputs.push(Output {
            data,
            sealed,
            moves: writing.moves,
            record_bytes: writing.record_bytes,
            shadow_records: writing.shadow_records,
            shadow_bytes: writing.shadow_bytes,
            hint_len,
        });
        Ok(())
    }

    /// Removes what was written, none of which is listed.
    pub(crate) fn discard(self) {
        let Surroundings { fs, dir, .. } = &self.surroundings;
        let ids = self.outputs.iter().map(|output| output.sealed.id);
        for id in ids.chain(self.writing.iter().map(|writing| writing.id)) {
            for path in [layout::data_file_path(dir, id), layout::hint_file_path(dir, id)] {
                // One that stays is a stray, which the next open removes.
                drop(fs.remove_file(&path));
            }
        }
    }
}
