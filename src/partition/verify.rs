//! Reading a partition whole, without changing anything: what verify reports and repair starts from.
//!
//! Sealed files and the tail are judged by the functions that recovery judges them with, so that a store
//! that verifies opens, and one that does not open does not verify. Only what they call damaged is read a
//! second time by [`salvage`], which goes on where they stop.
//!
//! A hint that recovery would ignore is no damage, because a store without hints is complete (H1). One that
//! it would believe is held against its data file.
//!
//! ## Invariants
//! - **VF1** Nothing is written, removed, cut or renamed.
//! - **VF2** Damage ends nothing: the rest of the file, the other files and the other partitions are read.

use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::recovery::read_header;
use crate::error::Error;
use crate::io::Fs;
use crate::limits::{DATA_FILE_LEN_LIMIT, FILES_LEN_MAX};
use crate::log::codec::Codecs;
use crate::log::data_file::StoreIdentity;
use crate::log::files::{FilesList, SealedFile};
use crate::log::format::data_header::{ExpectedFile, FileKind};
use crate::log::format::hint::block::RECORDS_START;
use crate::log::format::record::RecordKind;
use crate::log::hint_file::{HintBuilder, HintFile, HintReader, disagreement};
use crate::log::layout::{self, FILE_ID_MAX};
use crate::log::salvage::{Extent, Patient, Piece, Salvage, is_loss, salvage};
use crate::log::scanner::{ReadAt, RecordAt};
use crate::log::tail::{SealedVerdict, Tail, TailVerdict, read_sealed, read_tail};
use crate::report::{Damage, VerifyReport};
use crate::route::{KeyHasher, PartitionMap};
use crate::types::{FileId, KeyspaceId, PartitionId, Seqno};

/// A partition that was read whole.
pub(crate) struct Examined {
    pub(crate) id: PartitionId,
    pub(crate) dir: PathBuf,
    pub(crate) list: ListState,
    /// What is listed; without a list, what is there.
    pub(crate) files: Vec<ExaminedFile>,
    /// Hints that recovery would believe, and that contradict their data files.
    pub(crate) hints_wrong: Vec<PathBuf>,
    /// Larger than every id that was ever given, as far as names tell.
    pub(crate) next: FileId,
    /// Largest number of a sound record.
    pub(crate) seqno_max: Seqno,
    /// Keyspaces of sound records.
    pub(crate) keyspaces: BTreeSet<KeyspaceId>,
}

/// What became of `FILES`.
pub(crate) enum ListState {
    Sound(FilesList),
    Damaged,
    Missing,
    /// The operating system does not let it be read.
    Refused(Error),
}

/// A data file that was read.
pub(crate) struct ExaminedFile {
    pub(crate) id: FileId,
    pub(crate) state: FileState,
}

/// What a data file turned out to be.
pub(crate) enum FileState {
    /// Sealed, and what its entry says, or would say.
    Whole(SealedFile),
    /// A log that ends without a closing mark, or in space written ahead: the next open seals it.
    Open,
    Damaged(DamagedFile),
    /// Listed and not there; as many records are gone as its entry says, if it has one.
    Missing {
        records: Option<u64>,
    },
    /// The operating system does not let it be read.
    Refused(Error),
}

/// A data file whose sound records a repair would copy.
pub(crate) struct DamagedFile {
    pub(crate) path: PathBuf,
    /// A repair that was cut short gave it its other name already.
    pub(crate) is_aside: bool,
    pub(crate) extent: Extent,
    pub(crate) records_listed: Option<u64>,
}

impl Examined {
    pub(crate) fn is_sound(&self) -> bool {
        let is_sound =
            |file: &ExaminedFile| matches!(file.state, FileState::Whole(_) | FileState::Open);
        matches!(self.list, ListState::Sound(_)) && self.files.iter().all(is_sound)
    }

    /// Hints that must not be there, or are of no use, beside the files that `listed` names.
    pub(crate) fn hints_useless(&self, listed: impl Fn(FileId) -> bool) -> Vec<PathBuf> {
        let unlisted = self.files.iter().map(|file| file.id).filter(|id| !listed(*id));
        let of_unlisted = unlisted.map(|id| layout::hint_file_path(&self.dir, id));
        of_unlisted.chain(self.hints_wrong.iter().cloned()).collect()
    }
}

/// What examining every partition of a store takes.
pub(crate) struct Examiner<'a> {
    pub(crate) fs: &'a Fs,
    pub(crate) root: &'a Path,
    pub(crate) identity: &'a StoreIdentity,
    /// Without the store's key checksums can be judged and keys cannot.
    pub(crate) codecs: &'a Codecs,
}

/// Reads partition `id` of a store; `progress` is told how many bytes are being read.
pub(crate) fn examine(
    with: &Examiner<'_>,
    id: PartitionId,
    report: &mut VerifyReport,
    progress: &dyn Fn(u64),
) -> Examined {
    let Examiner { fs, root, identity, codecs } = *with;
    let dir = layout::partition_dir(root, id);
    let mut list = read_list(fs, &dir, id, identity, report);
    let mut examination = Examination {
        fs,
        identity,
        codecs,
        hasher: KeyHasher::new(&identity.hash_key),
        map: PartitionMap::new(identity.partition_count),
        report,
        progress,
        seqno_max: Seqno(0),
        keyspaces: BTreeSet::new(),
        hints_wrong: Vec::new(),
        id,
        dir: &dir,
    };
    let names = examination.names().unwrap_or_else(|source| {
        let what = format!("it cannot be listed: {source}");
        examination.report.add_damage(Damage::new(&dir, 0, None, what));
        list = ListState::Refused(Error::io("list", &dir, source));
        Names::default()
    });
    let mut files = Vec::new();
    let mut next = FileId(1);
    match &list {
        ListState::Sound(list) => {
            next = list.next;
            for sealed in &list.sealed {
                let state = examination.sealed(sealed, &names);
                files.push(ExaminedFile { id: sealed.id, state });
            }
            if let Some(id) = list.active {
                files.push(ExaminedFile { id, state: examination.active(id, &names) });
            }
            examination.strays(list, &names);
        }
        ListState::Damaged | ListState::Missing | ListState::Refused(_) => {
            for &id in &names.data {
                files.push(ExaminedFile { id, state: examination.unlisted(id, &names) });
            }
        }
    }
    let Examination { seqno_max, keyspaces, hints_wrong, .. } = examination;
    report.partitions += 1;
    for id in names.data.iter().chain(names.aside.iter().map(|(id, _)| id)) {
        next = next.max(FileId(id.0 + 1));
    }
    Examined { id, dir, list, files, hints_wrong, next, seqno_max, keyspaces }
}

/// Names in the partition's directory that stand for data files.
#[derive(Default)]
struct Names {
    /// In order, and none of an id that no partition lives to give out.
    data: Vec<FileId>,
    /// In order.
    hints: Vec<FileId>,
    /// Damaged originals that a repair set aside, the last one of an id last.
    aside: Vec<(FileId, PathBuf)>,
}

impl Names {
    /// What to collect the records of a file in, if there is a hint to hold them against.
    fn hint_records(&self, id: FileId) -> Option<HintBuilder> {
        self.hints.binary_search(&id).is_ok().then(HintBuilder::new)
    }
}

struct Examination<'a> {
    fs: &'a Fs,
    identity: &'a StoreIdentity,
    codecs: &'a Codecs,
    hasher: KeyHasher,
    /// By which the records of the file count that is being read (RT3).
    map: PartitionMap,
    report: &'a mut VerifyReport,
    progress: &'a dyn Fn(u64),
    seqno_max: Seqno,
    keyspaces: BTreeSet<KeyspaceId>,
    hints_wrong: Vec<PathBuf>,
    id: PartitionId,
    dir: &'a Path,
}

/// What the records of one file add up to; counted only if the file's verdict lets them count.
#[derive(Default)]
struct Tally {
    records: u64,
    misrouted: u64,
    /// Their keys could not be read.
    undecrypted: u64,
    seqno_max: Seqno,
    keyspaces: BTreeSet<KeyspaceId>,
}

impl Examination<'_> {
    fn names(&self) -> io::Result<Names> {
        let mut names = Names::default();
        let mut aside = Vec::new();
        let entries = match self.fs.read_dir(self.dir) {
            // Its list is missing then too, which was said.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
            entries => entries?,
        };
        for entry in entries.iter().filter(|entry| !entry.is_dir) {
            let name = entry.name.to_string_lossy();
            match layout::parse_file_name(&name) {
                Some((id, FileKind::Data)) if id.0 <= FILE_ID_MAX => names.data.push(id),
                Some((id, FileKind::Hint)) if id.0 <= FILE_ID_MAX => names.hints.push(id),
                Some(_) => {}
                None => {
                    if let Some((id, number)) = layout::parse_aside_name(&name)
                        && id.0 <= FILE_ID_MAX
                    {
                        aside.push((id, number, self.dir.join(&entry.name)));
                    }
                }
            }
        }
        names.data.sort_unstable();
        names.hints.sort_unstable();
        aside.sort_unstable();
        names.aside = aside.into_iter().map(|(id, _, path)| (id, path)).collect();
        Ok(names)
    }

    fn sealed(&mut self, sealed: &SealedFile, names: &Names) -> FileState {
        let path = layout::data_file_path(self.dir, sealed.id);
        let (path, is_aside) = match self.find(path, sealed.id, Some(sealed.records), names) {
            Ok(found) => found,
            Err(state) => return state,
        };
        let extent = Extent::sealed(sealed.len);
        let damaged = DamagedFile {
            path: path.clone(),
            is_aside,
            extent,
            records_listed: Some(sealed.records),
        };
        self.with_file(&path, |this, reader, len| {
            let expected = this.expected(sealed.id);
            let mut tally = Tally::default();
            let mut records = names.hint_records(sealed.id);
            let verdict = read_sealed(reader, len, &expected, sealed, &mut |record| {
                this.count(&mut tally, &record);
                this.collect(&mut records, &record);
            })?;
            match verdict {
                SealedVerdict::Intact if !is_aside => {
                    this.keep(&tally);
                    this.hint(sealed, records, &tally);
                    Ok(FileState::Whole(*sealed))
                }
                SealedVerdict::Intact => {
                    this.keep(&tally);
                    Ok(FileState::Damaged(damaged))
                }
                SealedVerdict::Corrupt { offset, why } => {
                    drop(records);
                    let found = this.salvage(reader, len, sealed.id, extent, &path)?;
                    if found.damage_count == 0 {
                        // The file is sound in itself, and not the one that was listed.
                        this.report.add_damage(Damage::new(&path, offset, None, why));
                    }
                    Ok(FileState::Damaged(damaged))
                }
                SealedVerdict::Refuse { why } => {
                    this.report.add_newer(&path, why);
                    Ok(FileState::Whole(*sealed))
                }
            }
        })
    }

    fn active(&mut self, id: FileId, names: &Names) -> FileState {
        let path = layout::data_file_path(self.dir, id);
        let (path, is_aside) = match self.find(path, id, None, names) {
            Ok(found) => found,
            Err(state) => return state,
        };
        if names.hints.binary_search(&id).is_ok() {
            let path = layout::hint_file_path(self.dir, id);
            self.report.ignore_hint(&path, "its data file is not sealed yet");
        }
        self.with_file(&path, |this, reader, len| {
            let (tail, tally) = this.tail(reader, len, id, &mut None)?;
            match tail.verdict {
                TailVerdict::Sealed { .. } if !is_aside => {
                    this.keep(&tally);
                    Ok(FileState::Open)
                }
                TailVerdict::Seal { dropped, .. } if !is_aside => {
                    this.keep(&tally);
                    this.report.torn_bytes += dropped;
                    Ok(FileState::Open)
                }
                TailVerdict::Refuse { why } => {
                    this.report.add_newer(&path, why);
                    Ok(FileState::Open)
                }
                _ => this.damaged_log(reader, len, id, &path, is_aside),
            }
        })
    }

    /// A file of a partition whose list is gone: the file itself has to say what it is.
    fn unlisted(&mut self, id: FileId, names: &Names) -> FileState {
        let path = layout::data_file_path(self.dir, id);
        self.with_file(&path, |this, reader, len| {
            let mut records = names.hint_records(id);
            let (tail, tally) = this.tail(reader, len, id, &mut records)?;
            let scan = tail.log.as_ref().map(|log| &log.scan);
            match (tail.verdict, scan) {
                (TailVerdict::Sealed { len: sealed_len, digest }, Some(scan))
                    if sealed_len == len =>
                {
                    this.keep(&tally);
                    let sealed = SealedFile {
                        id,
                        len,
                        digest,
                        records: scan.records,
                        seqno_min: scan.seqno_min,
                        seqno_max: scan.seqno_max,
                    };
                    this.hint(&sealed, records, &tally);
                    Ok(FileState::Whole(sealed))
                }
                (TailVerdict::Sealed { .. }, _) => {
                    this.keep(&tally);
                    Ok(FileState::Open)
                }
                (TailVerdict::Refuse { why }, _) => {
                    this.report.add_newer(&path, why);
                    Ok(FileState::Open)
                }
                (TailVerdict::Corrupt { .. }, _) => this.damaged_log(reader, len, id, &path, false),
                (TailVerdict::Seal { dropped, .. }, _) => {
                    // Groups of a compaction do not say what was durable, so a hole in its output looks
                    // like a torn end; but a torn log has no closing mark behind the tear.
                    if dropped > 0 && this.probe(reader, len, id)?.is_closed {
                        return this.damaged_log(reader, len, id, &path, false);
                    }
                    this.keep(&tally);
                    this.report.torn_bytes += dropped;
                    Ok(FileState::Open)
                }
            }
        })
    }

    fn tail(
        &mut self,
        reader: &dyn ReadAt,
        len: u64,
        id: FileId,
        records: &mut Option<HintBuilder>,
    ) -> io::Result<(Tail, Tally)> {
        let mut tally = Tally::default();
        let tail = read_tail(reader, len, &self.expected(id), &mut |record| {
            self.count(&mut tally, &record);
            self.collect(records, &record);
        })?;
        Ok((tail, tally))
    }

    /// A log that is damaged: how far it went is what its own groups say.
    fn damaged_log(
        &mut self,
        reader: &dyn ReadAt,
        len: u64,
        id: FileId,
        path: &Path,
        is_aside: bool,
    ) -> io::Result<FileState> {
        let probed = self.probe(reader, len, id)?;
        let extent = if probed.is_closed {
            Extent { durable: u64::MAX, listed_len: None }
        } else {
            Extent::tail(probed.durable_through_max)
        };
        self.salvage(reader, len, id, extent, path)?;
        let path = path.to_owned();
        Ok(FileState::Damaged(DamagedFile { path, is_aside, extent, records_listed: None }))
    }

    fn probe(&self, reader: &dyn ReadAt, len: u64, id: FileId) -> io::Result<Salvage> {
        let go_on = &mut |_: Piece<'_>| ControlFlow::Continue(());
        salvage(reader, len, &self.expected(id), Extent::UNKNOWN, go_on)
    }

    /// Counts what is sound in a damaged file and reports what is not.
    fn salvage(
        &mut self,
        reader: &dyn ReadAt,
        len: u64,
        id: FileId,
        extent: Extent,
        path: &Path,
    ) -> io::Result<Salvage> {
        let mut tally = Tally::default();
        let expected = self.expected(id);
        let found = salvage(reader, len, &expected, extent, &mut |piece| {
            match piece {
                Piece::Group { .. } => {}
                Piece::Record(record) => self.count(&mut tally, &record),
                Piece::Damage(found) => {
                    let mut damage = Damage::new(path, found.offset, Some(found.len), &found.why);
                    damage.key = found.record.as_ref().and_then(|record| {
                        let key = record.key_probably.as_ref()?;
                        self.is_ours(record.keyspace, key).then(|| key.clone())
                    });
                    self.report.add_damage(damage);
                }
            }
            ControlFlow::Continue(())
        })?;
        self.keep(&tally);
        self.report.torn_bytes += found.torn_bytes;
        if let Some(why) = &found.newer {
            self.report.add_newer(path, why);
        }
        Ok(found)
    }

    /// Judges the hint of a sealed file, which has these records.
    fn hint(&mut self, sealed: &SealedFile, records: Option<HintBuilder>, tally: &Tally) {
        if tally.undecrypted > 0 {
            self.report.hints_unjudged += 1;
            return;
        }
        let Some(records) = records else {
            self.report.hints_missing += 1;
            return;
        };
        let path = layout::hint_file_path(self.dir, sealed.id);
        let expected = self.identity.expected(FileKind::Hint, self.id, sealed.id);
        let judge = || {
            let file = self.fs.open_read(&path)?;
            let _best_effort = file.drop_pages();
            let reader = match HintReader::open(&*file, file.len()?, &expected, self.codecs)? {
                Ok(reader) => reader,
                Err(why) => return Ok(Err(why)),
            };
            match HintFile::open(&reader, reader.len(), &expected, sealed)? {
                Ok(hint) => disagreement(&hint, &records),
                Err(why) => Ok(Err(why)),
            }
        };
        let wrong = match judge() {
            Ok(Ok(None)) => {
                self.report.hints += 1;
                return;
            }
            Ok(Ok(Some(wrong))) => wrong,
            Ok(Err(why)) => return self.report.ignore_hint(&path, why),
            Err(error) => {
                return self.report.ignore_hint(&path, format_args!("it cannot be read: {error}"));
            }
        };
        let what =
            format_args!("it contradicts its data file, and would be believed: {}", wrong.what);
        let mut damage = Damage::new(&path, wrong.place.offset, Some(wrong.place.len), what);
        damage.key =
            wrong.key.filter(|key| self.is_ours(key.keyspace, &key.key)).map(|key| key.key);
        self.report.add_damage(damage);
        self.hints_wrong.push(path);
    }

    /// Takes in a record that a hint would have.
    fn collect(&self, records: &mut Option<HintBuilder>, record: &RecordAt<'_>) {
        // Where no record of a file that this build wrote can be: the file is refused by its length.
        let is_within = (RECORDS_START..DATA_FILE_LEN_LIMIT).contains(&record.offset);
        if let Some(collected) = records.as_mut().filter(|_| is_within) {
            match self.codecs.plain(record) {
                Ok([key, value]) => {
                    let hash = self.hasher.hash(record.header.keyspace, &key);
                    collected.push_record(hash, &RecordAt { key: &key, value: &value, ..*record });
                }
                // There is nothing to hold the hint against.
                Err(_) => *records = None,
            }
        }
    }

    /// Where a listed file is, or that it is not.
    fn find(
        &mut self,
        path: PathBuf,
        id: FileId,
        records: Option<u64>,
        names: &Names,
    ) -> Result<(PathBuf, bool), FileState> {
        match self.fs.exists(&path) {
            // What cannot be looked at is not missing; opening it will say why.
            Ok(true) | Err(_) => return Ok((path, false)),
            Ok(false) => {}
        }
        let aside = names.aside.iter().rfind(|(aside, _)| *aside == id);
        let what = match aside {
            Some(_) => "the file is missing, though FILES lists it: a repair was cut short",
            None => "the file is missing, though FILES lists it",
        };
        self.report.add_damage(Damage::new(&path, 0, None, what));
        match aside {
            Some((_, path)) => Ok((path.clone(), true)),
            None => Err(FileState::Missing { records }),
        }
    }

    /// Opens a file for `judge`; what the disk refuses to read becomes a finding and reads as zeros.
    fn with_file(
        &mut self,
        path: &Path,
        judge: impl FnOnce(&mut Self, &dyn ReadAt, u64) -> io::Result<FileState>,
    ) -> FileState {
        let opened = self.fs.open_read(path).and_then(|file| {
            let len = file.len()?;
            Ok((file, len))
        });
        let (file, len) = match opened {
            Ok(opened) => opened,
            Err(source) => {
                self.report.add_damage(Damage::new(
                    path,
                    0,
                    None,
                    format!("it cannot be opened: {source}"),
                ));
                return FileState::Refused(Error::io("open", path, source));
            }
        };
        // What the drive has is what is to be judged, not what memory has; where pages stay, they are read.
        let _best_effort = file.drop_pages();
        file.advise_sequential();
        let epoch = read_header(&file).map(|header| header.map_epoch);
        self.map = self.identity.map_of(epoch.unwrap_or(self.identity.map_epoch));
        self.report.files += 1;
        self.report.bytes += len;
        let progress = self.progress;
        let reader = Patient::new(&*file, len, progress);
        let state = judge(self, &reader, len).unwrap_or_else(|source| {
            self.report.add_damage(Damage::new(
                path,
                0,
                None,
                format!("it cannot be read: {source}"),
            ));
            FileState::Refused(Error::io("read", path, source))
        });
        if let Some((offset, error)) = reader.into_error() {
            let what = format!("it cannot be read from here on: {error}");
            self.report.add_damage(Damage::new(path, offset, None, what));
        }
        state
    }

    fn strays(&mut self, list: &FilesList, names: &Names) {
        let is_stray = |id: &&FileId| !list.has(**id);
        let data = names.data.iter().filter(is_stray);
        let hints = names.hints.iter().filter(is_stray);
        self.report.strays.extend(data.map(|id| layout::data_file_path(self.dir, *id)));
        self.report.strays.extend(hints.map(|id| layout::hint_file_path(self.dir, *id)));
    }

    fn count(&self, tally: &mut Tally, record: &RecordAt<'_>) {
        tally.records += 1;
        let RecordAt { header, key, value, .. } = *record;
        match self.codecs.key(header, key, value) {
            // A range is over keys of all partitions, and each has it; what becomes of a batch has no key.
            Ok(_) if header.kind == RecordKind::RangeDel => {}
            Ok(key) if key.is_empty() && header.is_of_batch() => {}
            Ok(key) => tally.misrouted += u64::from(!self.is_ours(header.keyspace, &key)),
            Err(_) => tally.undecrypted += 1,
        }
        tally.seqno_max = tally.seqno_max.max(record.header.seqno);
        if !tally.keyspaces.contains(&record.header.keyspace) {
            tally.keyspaces.insert(record.header.keyspace);
        }
    }

    fn keep(&mut self, tally: &Tally) {
        self.report.records += tally.records;
        self.report.misrouted_records += tally.misrouted;
        self.report.undecrypted_records += tally.undecrypted;
        self.seqno_max = self.seqno_max.max(tally.seqno_max);
        self.keyspaces.extend(&tally.keyspaces);
    }

    fn is_ours(&self, keyspace: KeyspaceId, key: &[u8]) -> bool {
        self.map.partition_of(self.hasher.hash(keyspace, key)) == self.id
    }

    fn expected(&self, file: FileId) -> ExpectedFile {
        self.identity.expected(FileKind::Data, self.id, file)
    }
}

fn read_list(
    fs: &Fs,
    dir: &Path,
    id: PartitionId,
    identity: &StoreIdentity,
    report: &mut VerifyReport,
) -> ListState {
    let path = dir.join(layout::FILES);
    let bytes = match fs.read_file(&path, FILES_LEN_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            report.add_damage(Damage::new(&path, 0, None, "the list of files is missing"));
            return ListState::Missing;
        }
        Err(error) => {
            report.add_damage(Damage::new(&path, 0, None, format!("it cannot be read: {error}")));
            return if is_loss(&error) || error.kind() == io::ErrorKind::InvalidData {
                ListState::Damaged
            } else {
                ListState::Refused(Error::io("read", &path, error))
            };
        }
    };
    let why = match FilesList::decode(&bytes) {
        Ok(list) if list.store == identity.store && list.partition == id => {
            return ListState::Sound(list);
        }
        Ok(_) => "it belongs to another store or partition".to_owned(),
        Err(why) if why.is_newer() => {
            report.add_newer(&path, why);
            return ListState::Damaged;
        }
        Err(why) => why.to_string(),
    };
    report.add_damage(Damage::new(&path, 0, Some(bytes.len() as u64), why));
    ListState::Damaged
}
