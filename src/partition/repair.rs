//! Making a partition whole again from what is sound in it.
//!
//! The order is what makes a repair safe to kill anywhere and to run again:
//!
//! 1. the sound records of damaged files are written to new files, which are synced, and their names;
//! 2. the new `FILES` is written under a temporary name, so that a full disk shows before anything moved;
//! 3. damaged files get the names under which they are kept; directory sync;
//! 4. `FILES` is replaced;
//! 5. hints that contradict their data files are removed, and those of files that are no longer listed.
//!
//! Killed before 3 the partition is what it was, and the new files are strays. Killed between 3 and 4 its
//! list names files that are not there, which no open accepts; the next repair finds them under their other
//! name. The originals move before the list does because a file that is not listed is removed by
//! the next open.
//!
//! ## Invariants
//! - **RP1** Nothing is deleted but new files of a repair that failed, and hints, which say nothing that data
//!   files do not.
//! - **RP2** Sequence numbers and bodies are carried over verbatim; ids and the floor of sequence numbers
//!   only grow (F1, F5).

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::recovery::{empty_files, read_header};
use super::rotation::too_many_files;
use super::verify::{DamagedFile, Examined, ExaminedFile, FileState, ListState};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::io::Fs;
use crate::limits::FILES_PER_PARTITION_MAX;
use crate::log::data_file::StoreIdentity;
use crate::log::files::{FilesList, SealedFile};
use crate::log::format::data_header::{DataHeader, FileKind};
use crate::log::layout;
use crate::log::salvage::{Extent, Patient, Piece, salvage};
use crate::log::scanner::RecordAt;
use crate::log::writer::FileWriter;
use crate::report::RepairReport;
use crate::types::{FileId, KeyId, Seqno};

/// Sequence numbers skipped where the list is lost that says which were given: many times what an open
/// skips, because nobody knows how many opens there were since the last record that is left.
const SEQNO_STEP_UNLISTED: u64 = 1 << 40;

/// Buffered bytes at which a new file is written to.
const WRITE_LEN: usize = 4 << 20;

/// What all partitions have in common.
pub(crate) struct RepairConfig<'a> {
    pub(crate) fs: &'a Fs,
    pub(crate) root: &'a Path,
    pub(crate) identity: &'a StoreIdentity,
    /// Random, as for an open.
    pub(crate) open_id: u64,
    pub(crate) clock: &'a Clock,
    pub(crate) data_file_len_max: u64,
}

/// Refuses what the operating system keeps from being read, before anything is changed.
pub(crate) fn check_readable(examined: &Examined) -> Result<()> {
    if let ListState::Refused(error) = &examined.list {
        return Err(error.clone());
    }
    for file in &examined.files {
        if let FileState::Refused(error) = &file.state {
            return Err(error.clone());
        }
    }
    Ok(())
}

/// Repairs what `examined` found; a sound partition is not touched.
pub(crate) fn repair(
    config: &RepairConfig<'_>,
    examined: &Examined,
    report: &mut RepairReport,
    progress: &dyn Fn(u64),
) -> Result<()> {
    if examined.is_sound() {
        return remove_hints(config.fs, examined, &examined.hints_wrong, report);
    }
    let RepairConfig { fs, root, .. } = *config;
    let dir = &examined.dir;
    if !fs.exists(dir).map_err(|source| Error::io("find", dir, source))? {
        fs.create_dir(dir)
            .and_then(|()| fs.sync_dir(root))
            .map_err(|source| Error::io("create", dir, source))?;
    }
    let mut repair = Repair {
        config,
        examined,
        listed: begin_list(config.identity, examined),
        written: Vec::new(),
        aside: Vec::new(),
        missing: Vec::new(),
        records_kept: 0,
        records_lost: 0,
        is_loss_uncounted: false,
        progress,
    };
    repair.files().and_then(|()| repair.prepare()).inspect_err(|_| repair.remove_written())?;
    repair.commit()?;
    let listed = &repair.listed;
    let hints = examined.hints_useless(|id| listed.has(id));
    repair.tell(report);
    remove_hints(fs, examined, &hints, report)
}

/// A repair that is killed before the last of them is gone finds the rest again.
fn remove_hints(
    fs: &Fs,
    examined: &Examined,
    hints: &[PathBuf],
    report: &mut RepairReport,
) -> Result<()> {
    let mut is_any_removed = false;
    for path in hints {
        match fs.remove_file(path) {
            Ok(()) => {
                is_any_removed = true;
                report.hints_removed.push(path.clone());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("remove", path, error)),
        }
    }
    if is_any_removed {
        let dir = &examined.dir;
        fs.sync_dir(dir).map_err(|source| Error::io("sync", dir, source))?;
    }
    Ok(())
}

/// The new list without any file, its numbers above all that were given (RP2).
fn begin_list(identity: &StoreIdentity, examined: &Examined) -> FilesList {
    let mut listed = empty_files(identity, examined.id);
    listed.next = examined.next;
    match &examined.list {
        ListState::Sound(before) => {
            let of_files = before.sealed.iter().map(|sealed| sealed.seqno_max).max();
            listed.map_epoch = before.map_epoch;
            listed.partition_count = before.partition_count;
            listed.wider_maps.clone_from(&before.wider_maps);
            listed.seqno_floor = before.seqno_floor.max(of_files.unwrap_or_default());
        }
        ListState::Damaged | ListState::Missing | ListState::Refused(_) => {
            let floor = examined.seqno_max.0.checked_add(SEQNO_STEP_UNLISTED);
            listed.seqno_floor = floor.map_or(examined.seqno_max, Seqno);
        }
    }
    listed
}

struct Repair<'a> {
    config: &'a RepairConfig<'a>,
    examined: &'a Examined,
    listed: FilesList,
    /// New files, durable but for their names.
    written: Vec<PathBuf>,
    /// Files to be renamed, and to what.
    aside: Vec<(PathBuf, PathBuf)>,
    missing: Vec<PathBuf>,
    records_kept: u64,
    records_lost: u64,
    /// A file was damaged or missing of which nobody knows how many records it had.
    is_loss_uncounted: bool,
    progress: &'a dyn Fn(u64),
}

impl Repair<'_> {
    /// Decides about every file, and writes the new ones.
    fn files(&mut self) -> Result<()> {
        let examined = self.examined;
        let is_open = |file: &&ExaminedFile| matches!(file.state, FileState::Open);
        // Of several logs without an end the newest is the one that open seals; there is more than one
        // only if the list is lost.
        self.listed.active = examined.files.iter().filter(is_open).map(|file| file.id).max();
        for file in &examined.files {
            match &file.state {
                FileState::Whole(sealed) => self.listed.sealed.push(*sealed),
                FileState::Open if self.listed.active == Some(file.id) => {}
                FileState::Open => {
                    let path = layout::data_file_path(&examined.dir, file.id);
                    let extent = Extent::tail(0);
                    let log = DamagedFile { path, is_aside: false, extent, records_listed: None };
                    self.rewrite(file.id, &log)?;
                }
                FileState::Damaged(damaged) => self.rewrite(file.id, damaged)?,
                FileState::Missing { records } => {
                    match records {
                        Some(records) => self.records_lost += records,
                        None => self.is_loss_uncounted = true,
                    }
                    self.missing.push(layout::data_file_path(&examined.dir, file.id));
                }
                FileState::Refused(error) => return Err(error.clone()),
            }
        }
        self.listed.sealed.sort_unstable_by_key(|sealed| sealed.id);
        Ok(())
    }

    /// Copies what is sound in a file to as many new ones as it needs, and notes that it moves.
    fn rewrite(&mut self, id: FileId, damaged: &DamagedFile) -> Result<()> {
        let fs = self.config.fs;
        let path = &damaged.path;
        let opened = fs.open_read(path).and_then(|file| {
            let len = file.len()?;
            Ok((file, len))
        });
        let (file, len) = opened.map_err(|source| Error::io("open", path, source))?;
        let reader = Patient::new(&*file, len, self.progress);
        let expected = self.config.identity.expected(FileKind::Data, self.examined.id, id);
        let of = read_header(&file);
        let mut copy = Copy { repair: self, of, writer: None, records: 0, error: None };
        let walked = salvage(&reader, len, &expected, damaged.extent, &mut |piece| match piece {
            Piece::Record(record) => copy.record(&record),
            Piece::Group { .. } | Piece::Damage(_) => ControlFlow::Continue(()),
        });
        walked.map_err(|source| Error::io("read", path, source))?;
        let records = copy.finish()?;
        self.records_kept += records;
        match damaged.records_listed {
            Some(listed) => self.records_lost += listed.saturating_sub(records),
            None => self.is_loss_uncounted = true,
        }
        if !damaged.is_aside {
            self.aside.push((path.clone(), free_name(fs, &self.examined.dir, path)?));
        } else if records == 0 {
            // Nothing of it is left, and nobody is told otherwise.
            self.missing.push(layout::data_file_path(&self.examined.dir, id));
        }
        Ok(())
    }

    /// The last of what may fail without a trace.
    fn prepare(&mut self) -> Result<()> {
        let RepairConfig { fs, .. } = *self.config;
        let dir = &self.examined.dir;
        // What was copied is not in the order of the log, so nobody can go on following it.
        self.listed.log_gone = FileId(self.listed.next.0.saturating_sub(1));
        if self.listed.sealed.len() > FILES_PER_PARTITION_MAX {
            return Err(too_many_files(dir));
        }
        let path = dir.join(layout::FILES);
        if matches!(self.examined.list, ListState::Damaged) {
            self.aside.push((path.clone(), free_name(fs, dir, &path)?));
        }
        fs.sync_dir(dir).map_err(|source| Error::io("sync", dir, source))?;
        Ok(())
    }

    /// Steps 2 to 4 of the module's order.
    fn commit(&mut self) -> Result<()> {
        let RepairConfig { fs, .. } = *self.config;
        let dir = &self.examined.dir;
        let path = dir.join(layout::FILES);
        let staged =
            fs.stage_file(dir, layout::FILES, &self.listed.encode()).map_err(|source| {
                self.remove_written();
                Error::io("write", &path, source)
            })?;
        for (from, to) in &self.aside {
            fs.rename(from, to).map_err(|source| Error::io("rename", from, source))?;
        }
        fs.sync_dir(dir).map_err(|source| Error::io("sync", dir, source))?;
        staged.commit().map_err(|source| Error::io("replace", &path, source))
    }

    fn tell(self, report: &mut RepairReport) {
        let partition = self.examined.id;
        if !matches!(self.examined.list, ListState::Sound(_)) {
            report.rebuilt.push(self.examined.dir.join(layout::FILES));
            report.warnings.push(format!(
                "partition {partition}: FILES was made anew from the files that are there; where one of \
                 them had been replaced before, deleted keys and old values may be back"
            ));
        } else if self.records_lost > 0 || self.is_loss_uncounted {
            report.warnings.push(format!(
                "partition {partition}: where a lost record was the newest of its key, an older value of \
                 that key may be back"
            ));
        }
        report.records_kept += self.records_kept;
        report.records_lost += self.records_lost;
        report.written.extend(self.written);
        report.set_aside.extend(self.aside.into_iter().map(|(_, to)| to));
        report.missing.extend(self.missing);
    }

    /// Best effort: what stays is a stray, which the next open removes.
    fn remove_written(&mut self) {
        for path in self.written.drain(..) {
            let _stays = self.config.fs.remove_file(&path);
        }
    }
}

/// Records on their way from a damaged file to new ones.
struct Copy<'a, 'r> {
    repair: &'a mut Repair<'r>,
    /// That the damaged file says its records are encrypted with; none if it no longer says any, which has them
    /// all written again by the next compaction.
    /// And by which map they count (RT3); by the current one, if it no longer says any.
    of: Option<DataHeader>,
    writer: Option<(PathBuf, FileWriter)>,
    records: u64,
    error: Option<Error>,
}

impl Copy<'_, '_> {
    fn record(&mut self, record: &RecordAt<'_>) -> ControlFlow<()> {
        match self.push(record) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.error = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    fn push(&mut self, record: &RecordAt<'_>) -> Result<()> {
        let len_max = self.repair.config.data_file_len_max;
        let is_full = |writer: &FileWriter| writer.len_with(record.len) > len_max;
        if self.writer.as_ref().is_some_and(|(_, writer)| is_full(writer)) {
            self.finish_file()?;
        }
        let (path, writer) = match &mut self.writer {
            Some(writer) => writer,
            None => self.writer.insert(self.repair.begin_file(self.of.as_ref())?),
        };
        writer.push(record.header, [record.key, record.value]);
        self.records += 1;
        if writer.buffered_len() >= WRITE_LEN {
            writer.write_out(false).map_err(|source| Error::io("write", path, source))?;
        }
        Ok(())
    }

    fn finish_file(&mut self) -> Result<()> {
        let Some((path, mut writer)) = self.writer.take() else { return Ok(()) };
        let sealed: SealedFile =
            writer.finish().map_err(|source| Error::io("write", &path, source))?;
        self.repair.listed.sealed.push(sealed);
        Ok(())
    }

    /// How many records were copied.
    fn finish(mut self) -> Result<u64> {
        let finished = match self.error.take() {
            Some(error) => Err(error),
            None => self.finish_file(),
        };
        finished.map(|()| self.records)
    }
}

impl Repair<'_> {
    fn begin_file(&mut self, of: Option<&DataHeader>) -> Result<(PathBuf, FileWriter)> {
        let RepairConfig { fs, identity, open_id, .. } = *self.config;
        let id = self.listed.next;
        self.listed.next = FileId(id.0 + 1);
        let path = layout::data_file_path(&self.examined.dir, id);
        let file = fs.create_new(&path).map_err(|source| Error::io("create", &path, source))?;
        self.written.push(path.clone());
        let header = DataHeader {
            kind: FileKind::Data,
            store: identity.store,
            partition: self.examined.id,
            partition_count: of.map_or(identity.partition_count, |header| header.partition_count),
            file: id,
            map_epoch: of.map_or(identity.map_epoch, |header| header.map_epoch),
            hash_key: identity.hash_key,
            open_id,
            created_at_ms: self.config.clock.wall_ms(),
            key: of.map_or(KeyId::NONE, |header| header.key),
        };
        Ok((path, FileWriter::begin(file, &header)))
    }
}

/// The first name to set `path` aside under that nothing has yet.
pub(crate) fn free_name(fs: &Fs, dir: &Path, path: &Path) -> Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    for number in 1.. {
        let to = dir.join(layout::aside_name(&name, number));
        if !fs.exists(&to).map_err(|source| Error::io("find", &to, source))? {
            return Ok(to);
        }
    }
    Err(Error::io("find a name for", path, io::ErrorKind::AlreadyExists.into()))
}
