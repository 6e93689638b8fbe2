//! Opening a partition: what is on disk becomes a keydir.
//!
//! `FILES` says which files count (F1). Sealed files must be exactly what it says; the file that was
//! active when the store was last used is the tail, and only its end may be torn: it is synced, its
//! pages are dropped so that what is read is what the drive has, it is cut where its log ends, sealed
//! and listed (F4). All of it can be interrupted anywhere and done again.
//!
//! ## Invariants
//! - **RO1** A store that is opened read-only is what it would be otherwise, and not a byte of it changes: the
//!   tail counts up to where it would be cut, and what settling batches writes is in memory. The file system refuses
//!   whatever else would be written.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::rotation::{seal_file, too_many_files};
use super::settle::BatchesFound;
use super::{PartitionConfig, PartitionView};
use crate::clock::ExpiryClock;
use crate::error::{Error, Result};
use crate::io::{File, Fs};
use crate::keydir::{Aging, Expiries, FileSlot, Keydir, KeydirLoader, Location, Usage};
use crate::limits::FILES_LEN_MAX;
use crate::log::codec::Codecs;
use crate::log::data_file::{DataFile, FileBounds, FileTable, Owner, StoreIdentity};
use crate::log::files::{FilesList, SealedFile};
use crate::log::format::FormatError;
use crate::log::format::data_header::{DATA_HEADER_LEN, DataHeader, FileKind};
use crate::log::format::group::GROUP_HEADER_LEN;
use crate::log::format::hint::block::HintEntry;
use crate::log::format::hint::ranges::HintRange;
use crate::log::format::record::RecordKind;
use crate::log::layout::{self, FILE_ID_MAX};
use crate::log::scanner::RecordAt;
use crate::log::tail::{SealedVerdict, TailVerdict, read_sealed, read_sealed_ends, read_tail};
use crate::planted::{Bug, is_planted};
use crate::ranges::{RangeDel, Ranges};
use crate::route::{KeyHasher, PartitionMap};
use crate::types::{ExpiresAt, FileId, KeyHash, KeyId, KeyspaceId, PartitionId, Seqno};
use crate::upkeep::hints::{hint_of, read_hint};
use crate::upkeep::range_del::{RangeJob, Surroundings};

/// Sequence numbers skipped at every open, so that one given before a crash is never given again (F5).
const SEQNO_STEP: u64 = 1 << 32;

/// A partition as it is on disk.
pub(crate) struct Recovered {
    pub(super) id: PartitionId,
    pub(super) owner: Owner,
    pub(super) dir: PathBuf,
    pub(super) fs: Fs,
    pub(super) keydir: Keydir,
    pub(super) expiries: Expiries,
    pub(super) usage: Usage,
    pub(super) files: FileTable,
    pub(super) hints_due: Vec<FileId>,
    pub(super) has_reserve: bool,
    pub(super) listed: FilesList,
    pub(super) next_seqno: Seqno,
    pub(super) view: Arc<PartitionView>,
    strays: Vec<PathBuf>,
    pub(crate) report: Report,
}

impl Recovered {
    pub(crate) fn view(&self) -> &Arc<PartitionView> {
        &self.view
    }

    /// Files to be removed once every partition is loaded; see [`remove_strays`].
    pub(crate) fn take_strays(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.strays)
    }
}

/// Removes files that no list names. Not before all of the store has proved to be sound: what one partition
/// misses may be what somebody put into another, and a repair would want to look at it. One that stays costs
/// its space and is never read, so it is no reason not to open.
pub(crate) fn remove_strays(fs: &Fs, strays: &[PathBuf]) {
    for path in strays {
        match fs.remove_file(path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed an unlisted file"),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot remove an unlisted file");
            }
        }
    }
}

/// How far loading a partition has come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LoadProgress {
    pub(crate) files: u64,
    pub(crate) files_total: u64,
    pub(crate) records: u64,
}

/// What recovery found, for the event that `open` emits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    pub(crate) files: u64,
    /// Of these, loaded from their hints.
    pub(crate) hints: u64,
    pub(crate) records: u64,
    pub(crate) keys: u64,
    pub(crate) torn_bytes: u64,
    /// The largest keyspace of any record.
    pub(crate) keyspace_max: KeyspaceId,
}

impl Report {
    pub(crate) fn add(&mut self, other: &Report) {
        self.files += other.files;
        self.hints += other.hints;
        self.records += other.records;
        self.keys += other.keys;
        self.torn_bytes += other.torn_bytes;
        self.keyspace_max = self.keyspace_max.max(other.keyspace_max);
    }
}

/// The `FILES` of a partition that holds nothing yet.
pub(crate) fn empty_files(identity: &StoreIdentity, id: PartitionId) -> FilesList {
    FilesList {
        store: identity.store,
        partition: id,
        map_epoch: identity.map_epoch,
        partition_count: Some(identity.partition_count),
        wider_maps: identity.wider_maps.clone(),
        active: None,
        next: FileId(1),
        seqno_floor: Seqno(0),
        log_gone: FileId(0),
        copies: std::collections::BTreeSet::new(),
        sealed: Vec::new(),
    }
}

/// A partition that is read, and in which batches may be left that all partitions together have to settle.
pub(crate) struct Loaded<'a> {
    recovery: Recovery<'a>,
    strays: Vec<PathBuf>,
    aging: Aging,
}

impl Loaded<'_> {
    /// Batches with intents here that are not resolved.
    pub(crate) fn unsettled(&self) -> Vec<u64> {
        self.recovery.loading.batches.unsettled()
    }

    /// Batches that are decided here.
    pub(crate) fn decisions(&self) -> &[u64] {
        self.recovery.loading.batches.decisions()
    }

    /// Makes the intents of these batches count; those of all others never will (BA1, BA2).
    pub(crate) fn settle(mut self, committed: &HashSet<u64>) -> Result<Recovered> {
        if let Some(what) = self.recovery.loading.unknown {
            let why = format!("it holds {what} that this build does not know");
            return Err(Error::newer(&self.recovery.dir, why));
        }
        if let Some((why, slot, offset)) = self.recovery.loading.undecodable.take() {
            let data = self.recovery.files.get(slot);
            return Err(why.at(data.map_or(&self.recovery.dir, |data| &data.path), offset));
        }
        self.recovery.settle(committed)?;
        self.recovery.hide_ranges()?;
        self.recovery.finish(self.strays, self.aging)
    }
}

/// Reads partition `id` of the store at `root`.
pub(crate) fn load<'a>(
    fs: &'a Fs,
    root: &Path,
    id: PartitionId,
    config: &PartitionConfig,
    tell: &mut dyn FnMut(LoadProgress),
) -> Result<Loaded<'a>> {
    let dir = layout::partition_dir(root, id);
    let identity = &config.identity;
    let mut recovery = Recovery {
        fs,
        listed: read_files(fs, &dir, id, identity)?,
        dir: dir.clone(),
        id,
        owner: Owner {
            identity: identity.clone(),
            partition: id,
            open_id: config.open_id,
            clock: config.clock.clone(),
            codecs: config.codecs.clone(),
        },
        loading: Loading {
            id,
            hasher: KeyHasher::new(&identity.hash_key),
            map: PartitionMap::new(identity.partition_count),
            loader: KeydirLoader::new(),
            usage: Usage::default(),
            clock: config.expiry.clone(),
            expiring: HashMap::new(),
            ranges: Vec::new(),
            batches: BatchesFound::default(),
            unknown: None,
            codecs: config.codecs.clone(),
            undecodable: None,
            keyspace_max: KeyspaceId(0),
        },
        bounds: config.bounds,
        files: FileTable::default(),
        hints_due: Vec::new(),
        unsealed: None,
        opened: 0,
        open_files_max: config.open_files_max,
        log_bytes: 0,
        seqno_max: Seqno(0),
        report: Report::default(),
    };
    let listed_next = recovery.listed.next;
    let mut strays = recovery.find_strays()?;
    recovery.pass_over_newer();
    let sealed = recovery.listed.sealed.clone();
    let files_total = sealed.len() as u64 + u64::from(recovery.listed.active.is_some());
    tell(LoadProgress { files_total, ..LoadProgress::default() });
    for sealed in sealed {
        recovery.load_sealed(&sealed)?;
        let Report { files, records, .. } = recovery.report;
        tell(LoadProgress { files, files_total, records });
    }
    if let Some(tail) = recovery.listed.active {
        recovery.load_tail(tail)?;
    } else if recovery.listed.next != listed_next {
        recovery.list_without_tail()?;
    }
    if is_planted(Bug::UnlistedFileRead) {
        recovery.adopt(&mut strays)?;
    }
    if fs.is_read_only() {
        strays.clear();
    }
    if !strays.is_empty() {
        // Whoever replaced `FILES` may have been killed before its name was durable, and then the list that
        // a power cut brings back has these files (C2).
        fs.sync_dir(&dir).map_err(|source| Error::io("sync", &dir, source))?;
    }
    Ok(Loaded { recovery, strays, aging: config.capacity.aging() })
}

pub(super) struct Recovery<'a> {
    pub(super) fs: &'a Fs,
    pub(super) dir: PathBuf,
    id: PartitionId,
    pub(super) owner: Owner,
    pub(super) bounds: FileBounds,
    pub(super) listed: FilesList,
    pub(super) loading: Loading,
    pub(super) files: FileTable,
    /// Files that were read themselves.
    pub(super) hints_due: Vec<FileId>,
    /// The tail, where it is not sealed because nothing is written (RO1).
    unsealed: Option<FileId>,
    /// Descriptors of data files, of which so many may stay open.
    opened: usize,
    open_files_max: usize,
    log_bytes: u64,
    seqno_max: Seqno,
    report: Report,
}

/// What records become while they are read.
pub(super) struct Loading {
    id: PartitionId,
    hasher: KeyHasher,
    /// By which records of the file that is read count (RT3).
    pub(super) map: PartitionMap,
    loader: KeydirLoader,
    usage: Usage,
    clock: Arc<ExpiryClock>,
    /// Of each key with an expiry the newest record that has one.
    expiring: HashMap<KeyHash, (Seqno, ExpiresAt)>,
    /// Range tombstones, which hide older records of whatever file.
    ranges: Vec<RangeDel>,
    pub(super) batches: BatchesFound,
    /// The format has it and this build cannot honour it: loading it would give wrong answers.
    unknown: Option<&'static str>,
    codecs: Arc<Codecs>,
    /// Why key or value of some record could not be read, so that the store had better not be opened, and the
    /// record's place.
    undecodable: Option<(FormatError, FileSlot, u64)>,
    /// Of what was taken.
    keyspace_max: KeyspaceId,
}

impl Loading {
    /// A record of a file that is read itself.
    pub(super) fn take_record(&mut self, slot: FileSlot, record: &RecordAt<'_>) {
        let header = record.header;
        self.usage.records(slot, 1, u64::from(record.len));
        if header.is_of_batch() {
            return self.batches.take(slot, record);
        }
        if matches!(header.kind, RecordKind::Del | RecordKind::RangeDel) {
            self.usage.shadow(slot, 1, u64::from(record.len));
        }
        let [key, value] = match self.codecs.plain(record) {
            Ok(plain) => plain,
            Err(why) => {
                self.undecodable.get_or_insert((why, slot, record.offset));
                return;
            }
        };
        if header.kind == RecordKind::RangeDel {
            self.keyspace_max = self.keyspace_max.max(header.keyspace);
            return self.ranges.push(RangeDel::of(header, &key, &value));
        }
        let entry = HintEntry {
            keyspace: header.keyspace,
            key: &key,
            kind: header.kind,
            seqno: header.seqno,
            offset: record.offset as u32,
            len: record.len,
            expires_at_ms: header.expires_at_ms,
            codec: header.codec,
            batch: header.batch,
        };
        self.take(slot, &entry);
    }

    fn take_ranges(&mut self, ranges: &[HintRange]) {
        let newest = ranges.iter().map(|range| range.range.keyspace).max().unwrap_or_default();
        self.keyspace_max = self.keyspace_max.max(newest);
        self.ranges.extend(ranges.iter().map(|range| range.range.clone()));
    }

    /// What a file says about a key.
    fn take(&mut self, slot: FileSlot, entry: &HintEntry<'_>) {
        self.keyspace_max = self.keyspace_max.max(entry.keyspace);
        let hash = self.hasher.hash(entry.keyspace, entry.key);
        // Left behind when another partition got the key (RT3).
        if self.map.partition_of(hash) != self.id {
            return;
        }
        let expires_at = entry.expires_at_ms.and_then(ExpiresAt::from_ms);
        let what = match entry.kind {
            RecordKind::Put if self.clock.hides(expires_at) => {
                // Its own tombstone.
                self.usage.shadow(slot, 1, u64::from(entry.len));
                None
            }
            RecordKind::Put => Some(Location {
                slot,
                offset: entry.offset,
                len: entry.len,
                has_expiry: expires_at.is_some(),
            }),
            RecordKind::Del => None,
            RecordKind::RangeDel | RecordKind::BatchDecision | RecordKind::BatchResolve => {
                // Of a batch none has a hint entry (BA3).
                self.unknown.get_or_insert("a record of a kind");
                return;
            }
        };
        if entry.batch.is_some() {
            self.unknown.get_or_insert("a record with an attribute");
        }
        if let Err(why) = Codecs::can_decode(entry.codec) {
            self.undecodable.get_or_insert((why, slot, u64::from(entry.offset)));
        }
        if let Some(expires_at) = expires_at {
            let newest = self.expiring.entry(hash).or_insert((entry.seqno, expires_at));
            if newest.0 < entry.seqno {
                *newest = (entry.seqno, expires_at);
            }
        }
        self.loader.offer(hash, entry.seqno, what);
    }
}

impl Recovery<'_> {
    /// Files that `FILES` does not name are leftovers of an interrupted step, or came back in a power
    /// cut; they are never read (F1). Files that are not ours stay.
    fn find_strays(&mut self) -> Result<Vec<PathBuf>> {
        let io = |source| Error::io("list", &self.dir, source);
        let mut strays = Vec::new();
        for entry in self.fs.read_dir(&self.dir).map_err(io)? {
            let Some((id, kind)) = layout::parse_file_name(&entry.name.to_string_lossy()) else {
                continue;
            };
            if !self.listed.has(id) && !entry.is_dir && id.0 <= FILE_ID_MAX {
                strays.push(self.dir.join(layout::file_name(id, kind)));
                // Ids are never reused, even of files that never counted.
                self.listed.next = self.listed.next.max(FileId(id.0 + 1));
            }
        }
        Ok(strays)
    }

    /// A change of the partition count that was interrupted may have listed what it had written. Whoever opens the
    /// store to write has that cleared away before; a reader passes over it (RO1).
    fn pass_over_newer(&mut self) {
        let identity = &self.owner.identity;
        if !self.fs.is_read_only() || !identity.is_repartitioning {
            return;
        }
        let mut kept = Vec::new();
        for sealed in std::mem::take(&mut self.listed.sealed) {
            let path = layout::data_file_path(&self.dir, sealed.id);
            let header = self.fs.open_read(&path).ok().and_then(|file| read_header(&file));
            if header.is_none_or(|header| header.map_epoch <= identity.map_epoch) {
                kept.push(sealed);
            }
        }
        self.listed.sealed = kept;
    }

    /// What F1 forbids.
    fn adopt(&mut self, strays: &mut Vec<PathBuf>) -> Result<()> {
        for path in std::mem::take(strays) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if let Some((id, FileKind::Data)) = layout::parse_file_name(&name) {
                self.load_tail(id)?;
            }
        }
        Ok(())
    }

    /// Reads the hint of a sealed file, or else the file itself (H1).
    fn load_sealed(&mut self, sealed: &SealedFile) -> Result<()> {
        let (slot, data, file) = self.open(sealed.id, false)?;
        data.set_records_end(sealed.len.saturating_sub(GROUP_HEADER_LEN as u64));
        let expected = self.owner.expected(FileKind::Data, sealed.id);
        let io = |source| Error::io("read", &data.path, source);
        let len = file.len().map_err(io)?;
        refuse(read_sealed_ends(&*file, len, &expected, sealed).map_err(io)?, &data.path)?;
        if self.load_hint(slot, &data, sealed) {
            self.report.hints += 1;
        } else {
            file.advise_sequential();
            let verdict = read_sealed(&*file, len, &expected, sealed, &mut |record| {
                self.loading.take_record(slot, &record);
            });
            refuse(verdict.map_err(io)?, &data.path)?;
            self.hints_due.push(sealed.id);
        }
        file.advise_random();
        self.count(sealed);
        Ok(())
    }

    fn load_hint(&mut self, slot: FileSlot, data: &DataFile, sealed: &SealedFile) -> bool {
        // Entries that were taken before a hint turns out damaged do no harm: the file says the same.
        let totals = read_hint(self.fs, &self.dir, &self.owner, sealed, |hint| {
            let visited = hint.visit(&mut |entry| self.loading.take(slot, &entry))?;
            self.loading.take_ranges(&hint.summary().ranges);
            // Not needed here, and some five bytes in a hundred: damaged, they would stay so for good.
            let (index, filter) = (hint.index()?, hint.filter()?);
            let found = (hint.summary().totals, hint.sections().len());
            Ok(visited.and(index).and(filter).map(|_sound| found))
        });
        let Some((totals, len)) = totals else { return false };
        if let Some(hint) = hint_of(&self.dir, &self.owner, sealed, len, None) {
            data.set_hint(hint);
        }
        let usage = &mut self.loading.usage;
        usage.records(slot, sealed.records, totals.record_bytes);
        usage.shadow(slot, totals.tombstone_records, totals.tombstone_bytes);
        true
    }

    /// Cuts, seals and lists the file that was active when the store was last used.
    fn load_tail(&mut self, id: FileId) -> Result<()> {
        let is_written = !self.fs.is_read_only();
        let (slot, data, file) = self.open(id, is_written)?;
        let io = |attempt: &'static str| {
            let path = &data.path;
            move |source| Error::io(attempt, path, source)
        };
        // Only what the drive has counts: pages of a failed sync look clean and are not.
        if is_written {
            file.sync_all().map_err(io("sync"))?;
        }
        file.drop_pages().map_err(io("drop the cached pages of"))?;
        let len = file.len().map_err(io("read the length of"))?;
        let expected = self.owner.expected(FileKind::Data, id);
        let tail = read_tail(&*file, len, &expected, &mut |record| {
            self.loading.take_record(slot, &record);
        })
        .map_err(io("read"))?;
        tracing::debug!(path = %data.path.display(), row = ?tail.row, "judged the log's last file");
        let log = tail.log.as_ref();
        let (len, digest) = match tail.verdict {
            TailVerdict::Sealed { len, digest } => {
                // What lies behind the mark is space written ahead.
                if is_written {
                    file.set_len(len).map_err(io("cut"))?;
                    file.sync_all().map_err(io("sync"))?;
                }
                (len, digest)
            }
            TailVerdict::Seal { end, dropped } => {
                self.report_torn(&data.path, end, dropped);
                let chain = log.expect("a log that is to be sealed was read").scan.chain;
                let (mark, digest) = chain.closing_mark(end).encode(expected.identity());
                if is_written {
                    seal_file(&file, end, &mark)
                        .map_err(|(_, source)| Error::io("seal", &data.path, source))?;
                }
                (end + GROUP_HEADER_LEN as u64, digest)
            }
            TailVerdict::Corrupt { offset, why } => {
                return Err(Error::corrupt(&data.path, offset, why));
            }
            TailVerdict::Refuse { why } => return Err(Error::newer(&data.path, why)),
        };
        file.advise_random();
        data.set_records_end(len.saturating_sub(GROUP_HEADER_LEN as u64));
        let scan = log.map(|log| &log.scan);
        let sealed = SealedFile {
            id,
            len,
            digest,
            records: scan.map_or(0, |scan| scan.records),
            seqno_min: scan.map_or(Seqno(0), |scan| scan.seqno_min),
            seqno_max: scan.map_or(Seqno(0), |scan| scan.seqno_max),
        };
        self.count(&sealed);
        self.hints_due.push(id);
        self.unsealed = (!is_written).then_some(id);
        self.listed.sealed.push(sealed);
        self.listed.sealed.sort_unstable_by_key(|sealed| sealed.id);
        self.list_without_tail()
    }

    pub(super) fn count(&mut self, sealed: &SealedFile) {
        self.log_bytes += sealed.len;
        self.report.files += 1;
        self.report.records += sealed.records;
        self.seqno_max = self.seqno_max.max(sealed.seqno_max);
    }

    fn report_torn(&mut self, path: &Path, offset: u64, bytes: u64) {
        if bytes > 0 {
            tracing::warn!(
                path = %path.display(),
                offset,
                bytes,
                "cut off what a crash had left incomplete"
            );
            self.report.torn_bytes += bytes;
        }
    }

    pub(super) fn list_without_tail(&mut self) -> Result<()> {
        self.listed.active = None;
        if self.fs.is_read_only() {
            return Ok(());
        }
        self.fs
            .replace_file(&self.dir, layout::FILES, &self.listed.encode())
            .map_err(|source| Error::io("replace", &self.dir.join(layout::FILES), source))
    }

    fn open(&mut self, id: FileId, write: bool) -> Result<(FileSlot, Arc<DataFile>, Arc<File>)> {
        let path = layout::data_file_path(&self.dir, id);
        let opened = if write { self.fs.open_write(&path) } else { self.fs.open_read(&path) };
        let file = opened.map_err(|source| {
            if source.kind() == std::io::ErrorKind::NotFound {
                Error::corrupt(&path, 0, "the file is missing, though FILES lists it")
            } else {
                Error::io("open", &path, source)
            }
        })?;
        let identity = self.owner.identity_of(id);
        let header = read_header(&file);
        let key = header.as_ref().map_or(KeyId::NONE, |header| header.key);
        self.owner.codecs.check_key(key).map_err(|why| why.at(&path, 0))?;
        // Whether it is that file is for others to say.
        let created_at_ms = header.as_ref().map_or(0, |header| header.created_at_ms);
        let epoch = header.map_or(self.owner.identity.map_epoch, |header| header.map_epoch);
        self.loading.map = self.owner.identity.map_of(epoch);
        if epoch > self.owner.identity.map_epoch {
            return Err(newer_map(&path, epoch, self.owner.identity.map_epoch));
        }
        let data = DataFile::new(id, identity, key, path, file.clone(), DATA_HEADER_LEN as u64);
        data.note_created(created_at_ms);
        if self.listed.copies.contains(&id) {
            data.note_copy();
        }
        let slot = self.files.insert(data.clone()).ok_or_else(|| too_many_files(&self.dir))?;
        self.opened += 1;
        if self.opened > self.open_files_max {
            data.give_up();
        }
        Ok((slot, data, file))
    }

    /// Takes back what was loaded and is older than a range over it. A range may be in any file and hide
    /// records of any other, so that shows only now; and what was loaded has no keys, so files are asked again,
    /// as far as ranges reach.
    pub(super) fn hide_ranges(&mut self) -> Result<()> {
        let ranges = std::mem::take(&mut self.loading.ranges);
        if ranges.is_empty() {
            return Ok(());
        }
        let ranges = Arc::new(Ranges::of(ranges));
        let is_older =
            |sealed: &&SealedFile| sealed.records > 0 && sealed.seqno_min < ranges.seqno_max();
        for sealed in self.listed.sealed.iter().filter(is_older) {
            let Some((slot, data)) = self.files.iter().find(|(_, data)| data.id == sealed.id)
            else {
                continue;
            };
            let surroundings = Surroundings {
                fs: self.fs.clone(),
                dir: self.dir.clone(),
                owner: self.owner.clone(),
                hasher: self.loading.hasher.clone(),
                ranges: ranges.clone(),
            };
            let has_hint = !self.hints_due.contains(&sealed.id);
            let data = data.clone();
            let mut job = if self.unsealed == Some(sealed.id) {
                let end = data.records_end();
                RangeJob::log(surroundings, slot, data, end)
            } else {
                RangeJob::sealed(surroundings, slot, data, *sealed, has_hint)
            };
            loop {
                let step = job.step()?;
                for hidden in step.hidden {
                    self.loading.loader.hide(hidden.hash, hidden.seqno);
                }
                if step.is_over {
                    break;
                }
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self, strays: Vec<PathBuf>, aging: Aging) -> Result<Recovered> {
        let next_seqno = self.next_seqno()?;
        let Loading { loader, mut usage, expiring, keyspace_max, .. } = self.loading;
        let keydir = loader.finish(aging, |location| usage.live(location));
        let mut expiries = Expiries::default();
        for (hash, (_, expires_at)) in expiring {
            if keydir.get(hash).is_some_and(|location| location.has_expiry) {
                expiries.set(hash, Some(expires_at));
            }
        }
        let view = Arc::new(PartitionView::new(keydir.reader(), &self.files, self.seqno_max));
        view.counters.files.set(self.report.files);
        view.counters.log_bytes.set(self.log_bytes);
        view.counters.files_other_key.set(self.files.not_under(self.owner.codecs.key_id()));
        view.counters.keys_mortal.set(expiries.len() as u64);
        view.show_usage(&usage);
        self.report.keys = keydir.len();
        self.report.keyspace_max = keyspace_max;
        Ok(Recovered {
            id: self.id,
            owner: self.owner,
            has_reserve: self.fs.exists(&self.dir.join(layout::RESERVE)).unwrap_or(false),
            dir: self.dir,
            fs: self.fs.clone(),
            keydir,
            expiries,
            usage,
            files: self.files,
            hints_due: self.hints_due,
            listed: self.listed,
            next_seqno,
            view,
            strays,
            report: self.report,
        })
    }
}

/// What a file says of itself. Whether it is that file is for others to say.
pub(crate) fn read_header(file: &File) -> Option<DataHeader> {
    let mut bytes = [0; DATA_HEADER_LEN];
    let count = file.read_at(&mut bytes, 0).ok()?;
    DataHeader::decode(bytes.get(..count)?).ok().map(|(header, _)| header)
}

pub(super) fn refuse(verdict: SealedVerdict, path: &Path) -> Result<()> {
    match verdict {
        SealedVerdict::Intact => Ok(()),
        SealedVerdict::Corrupt { offset, why } => Err(Error::corrupt(path, offset, why)),
        SealedVerdict::Refuse { why } => Err(Error::newer(path, why)),
    }
}

impl Recovery<'_> {
    /// The first number that was never given (F5).
    pub(super) fn next_seqno(&self) -> Result<Seqno> {
        let mut spent = self.seqno_max.max(self.listed.seqno_floor);
        if is_planted(Bug::SeqnoReset) {
            spent = Seqno(0);
        }
        spent.0.checked_add(SEQNO_STEP).map(Seqno).ok_or_else(|| {
            let what = format!("sequence number {spent} is beyond any that was ever given");
            Error::corrupt(&self.dir.join(layout::FILES), 0, what)
        })
    }
}

/// Says of a file that its store has been given another number of partitions since MANIFEST was written.
#[cold]
pub(crate) fn newer_map(path: &Path, epoch: u64, map_epoch: u64) -> Error {
    let what = format!(
        "it was written when the store had map epoch {epoch}, and MANIFEST says {map_epoch}, so it is an older one; \
         repair makes it anew"
    );
    Error::corrupt(path, 0, what)
}

fn read_files(fs: &Fs, dir: &Path, id: PartitionId, identity: &StoreIdentity) -> Result<FilesList> {
    let path = dir.join(layout::FILES);
    let bytes = fs.read_file(&path, FILES_LEN_MAX).map_err(|source| {
        if source.kind() == std::io::ErrorKind::NotFound {
            Error::corrupt(&path, 0, "the file is missing")
        } else {
            Error::io("read", &path, source)
        }
    })?;
    let listed = FilesList::decode(&bytes).map_err(|why| why.at(&path, 0))?;
    if listed.store != identity.store || listed.partition != id {
        let what = format!(
            "it belongs to partition {} of store {}, not to partition {id} of store {}",
            listed.partition, listed.store, identity.store
        );
        return Err(Error::corrupt(&path, 0, what));
    }
    Ok(listed)
}
