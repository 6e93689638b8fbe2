//! Writing a backup: names for files that are never changed again, or copies of them, and then what makes them a store.
//!
//! ```text
//! first      BACKUP says that this is going to be one                       (synced)
//! files      each sealed file and its hint, by a hard link or a copy        (directories synced)
//! lists      FILES of each partition; beside the old ones, if there are any (synced)
//! commit     MANIFEST                                                       (one replacement)
//! after it   the new lists take the place of the old, files that are not listed go
//! ```
//!
//! Cut short before the commit it leaves nothing that opens, or the backup that was there before: lists that MANIFEST
//! does not speak of are not read. Cut short after it, it leaves the new one: MANIFEST says that lists may
//! have to be put in place, and whoever comes next does that ([`settle_lists`]).
//!
//! ## Invariants
//! - **BU1** A file that may have two names is never written to: data files are sealed, a store goes on in new ones,
//!   and hints and lists are replaced by new files.
//! - **BU2** MANIFEST is replaced when everything that it makes count is durable.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::compaction::policy::Pace;
use super::hints::Uncached;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{File, Fs};
use crate::log::files::{FilesList, SealedFile};
use crate::log::format::data_header::FileKind;
use crate::log::format::group::GROUP_HEADER_LEN;
use crate::log::layout;
use crate::log::manifest::Manifest;
use crate::log::scanner::ReadAt;
use crate::planted::{Bug, is_planted};
use crate::report::BackupReport;
use crate::types::{FileId, PartitionId};

/// Bytes that are copied at once.
const COPY_LEN: usize = 1 << 20;

/// Longest rest between two looks whether anybody still wants it.
const REST_MAX: Duration = Duration::from_millis(100);

/// Where a backup is made from and to.
pub(crate) struct Backup<'b> {
    /// Where the files are that are copied; another one than `fs` if they are in memory.
    pub(crate) source: &'b Fs,
    pub(crate) fs: &'b Fs,
    pub(crate) from: &'b Path,
    pub(crate) to: &'b Path,
    /// What MANIFEST of the backup is to say.
    pub(crate) manifest: Manifest,
    pub(crate) lists: Vec<Listed>,
    /// There is a whole one already, which counts until this one does.
    pub(crate) is_incremental: bool,
    pub(crate) pace: Pace,
    /// Whether to go on; asked between files, and while one is copied.
    pub(crate) go_on: &'b dyn Fn() -> Result<()>,
}

/// The files of one partition.
pub(crate) struct Listed {
    pub(crate) list: FilesList,
    /// Files whose hints are left out.
    pub(crate) without_hints: Vec<FileId>,
}

/// What came of one file.
enum Placed {
    Linked,
    Copied,
    Kept,
}

impl Backup<'_> {
    pub(crate) fn write(self) -> Result<BackupReport> {
        let mut made = Vec::new();
        let written = self.write_files(&mut made);
        if written.is_err() {
            // Space that others need; none of it counts yet.
            for path in made {
                drop(self.fs.remove_file(&path));
            }
        }
        let mut report = written?;
        self.commit()?;
        self.clean(&mut report)?;
        Ok(report)
    }

    fn write_files(&self, made: &mut Vec<PathBuf>) -> Result<BackupReport> {
        let Backup { fs, from, to, .. } = *self;
        let mut report =
            BackupReport { is_incremental: self.is_incremental, ..BackupReport::default() };
        if is_planted(Bug::BackupManifestFirst) {
            self.replace_manifest()?;
        }
        for Listed { list, without_hints } in &self.lists {
            let (from, to) = (partition_dir(from, list), partition_dir(to, list));
            fs.create_dir(&to).map_err(|source| Error::io("create", &to, source))?;
            for sealed in &list.sealed {
                (self.go_on)()?;
                let name = layout::file_name(sealed.id, FileKind::Data);
                let placed = self.place(&from.join(&name), &to.join(&name), Some(sealed), made)?;
                report.note(sealed.len, &placed);
                if without_hints.contains(&sealed.id) {
                    continue;
                }
                let name = layout::file_name(sealed.id, FileKind::Hint);
                // Without a hint the data file is read instead (H1).
                match self.place(&from.join(&name), &to.join(&name), None, made) {
                    Err(error) if error.kind() == ErrorKind::NoSpace => return Err(error),
                    _ => {}
                }
            }
            fs.sync_dir(&to).map_err(|source| Error::io("sync", &to, source))?;
        }
        fs.sync_dir(to).map_err(|source| Error::io("sync", to, source))?;
        let name = if self.is_incremental { layout::FILES_NEXT } else { layout::FILES };
        for Listed { list, .. } in &self.lists {
            let dir = partition_dir(to, list);
            fs.replace_file(&dir, name, &list.encode())
                .map_err(|source| Error::io("write", &dir.join(name), source))?;
        }
        Ok(report)
    }

    /// From here on it is the backup that counts.
    fn commit(&self) -> Result<()> {
        self.replace_manifest()?;
        if self.is_incremental {
            let mut manifest = Manifest { lists_next: true, ..self.manifest.clone() };
            settle_lists(self.fs, self.to, &mut manifest)?;
        }
        Ok(())
    }

    fn replace_manifest(&self) -> Result<()> {
        let manifest = Manifest { lists_next: self.is_incremental, ..self.manifest.clone() };
        manifest.replace(self.fs, self.to)
    }

    /// Removes what does not count any more. One that stays costs its space and is never read.
    fn clean(&self, report: &mut BackupReport) -> Result<()> {
        let Backup { fs, to, .. } = *self;
        for Listed { list, .. } in &self.lists {
            let dir = partition_dir(to, list);
            let entries =
                fs.read_dir(&dir).map_err(|source| Error::io("look into", &dir, source))?;
            for entry in entries {
                let name = entry.name.to_string_lossy();
                let whole = name.strip_suffix(layout::TEMPORARY_SUFFIX);
                let Some((id, kind)) = layout::parse_file_name(whole.unwrap_or(&name)) else {
                    continue;
                };
                let is_listed = list.find_sealed(id).is_some();
                if (!is_listed || whole.is_some()) && fs.remove_file(&dir.join(&entry.name)).is_ok()
                {
                    report.files_removed += u64::from(kind == FileKind::Data && whole.is_none());
                }
            }
        }
        self.clean_partitions(report)?;
        drop(fs.remove_file(&to.join(layout::BACKUP)));
        Ok(())
    }

    /// Removes partitions that the store does not have any more.
    fn clean_partitions(&self, report: &mut BackupReport) -> Result<()> {
        let Backup { fs, to, .. } = *self;
        let mut dirs = layout::partition_dirs(fs, to)?;
        dirs.retain(|(id, _)| id.0 >= self.manifest.partition_count);
        for (_, dir) in dirs {
            let entries =
                fs.read_dir(&dir).map_err(|source| Error::io("look into", &dir, source))?;
            for entry in entries {
                let name = entry.name.to_string_lossy();
                if layout::is_of_partition(&name) && fs.remove_file(&dir.join(&entry.name)).is_ok()
                {
                    let kind = layout::parse_file_name(&name).map(|(_, kind)| kind);
                    report.files_removed += u64::from(kind == Some(FileKind::Data));
                }
            }
            // Something else may be in it.
            let _stays = fs.sync_dir(&dir).and_then(|()| fs.remove_dir(&dir));
        }
        fs.sync_dir(to).map_err(|source| Error::io("sync", to, source))
    }

    /// Gives a file its place in the backup; `sealed` says what a data file is.
    fn place(
        &self,
        from: &Path,
        to: &Path,
        sealed: Option<&SealedFile>,
        made: &mut Vec<PathBuf>,
    ) -> Result<Placed> {
        let fs = self.fs;
        if fs.exists(to).map_err(|source| Error::io("look for", to, source))? {
            if self.is_same(from, to, sealed).map_err(|source| Error::io("read", to, source))? {
                return Ok(Placed::Kept);
            }
            if sealed.is_some() {
                return Err(other_copy(to));
            }
            fs.remove_file(to).map_err(|source| Error::io("remove", to, source))?;
        }
        match self.source.hard_link(from, to) {
            Ok(()) => {
                made.push(to.to_owned());
                Ok(Placed::Linked)
            }
            Err(error) if needs_copy(&error) => {
                self.copy(from, to)?;
                made.push(to.to_owned());
                Ok(Placed::Copied)
            }
            Err(source) => Err(Error::io("link into the backup", from, source)),
        }
    }

    /// Whether a file is in its place already: a hint by its length, a data file by its end too, which is a digest of all
    /// of it.
    fn is_same(&self, from: &Path, to: &Path, sealed: Option<&SealedFile>) -> io::Result<bool> {
        let (from, to) = (self.source.open_read(from)?, self.fs.open_read(to)?);
        let len = to.len()?;
        if len != sealed.map_or(from.len()?, |sealed| sealed.len) {
            return Ok(false);
        }
        Ok(sealed.is_none() || end_of(&from, len)? == end_of(&to, len)?)
    }

    /// Under another name until it is whole and durable.
    fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        let temporary = PathBuf::from(format!("{}{}", to.display(), layout::TEMPORARY_SUFFIX));
        match self.fs.remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &temporary, error));
            }
            _ => {}
        }
        let copied = self.copy_bytes(from, &temporary).and_then(|()| {
            self.fs.rename(&temporary, to).map_err(|source| Error::io("rename", to, source))
        });
        if copied.is_err() {
            drop(self.fs.remove_file(&temporary));
        }
        copied
    }

    fn copy_bytes(&self, from: &Path, to: &Path) -> Result<()> {
        let source =
            self.source.open_read(from).map_err(|source| Error::io("open", from, source))?;
        let target = self.fs.create_new(to).map_err(|source| Error::io("create", to, source))?;
        let (reader, mut at, mut buf) = (Uncached::new(&source), 0, vec![0; COPY_LEN]);
        loop {
            let started = Instant::now();
            let count =
                reader.read_at(&mut buf, at).map_err(|source| Error::io("read", from, source))?;
            if count == 0 {
                break;
            }
            target
                .write_all_uncached_at(&buf[..count], at)
                .map_err(|source| Error::io("write", to, source))?;
            at += count as u64;
            (self.go_on)()?;
            let mut rest = self.pace.wait(count as u64, started.elapsed());
            while !rest.is_zero() {
                let now = rest.min(REST_MAX);
                self.fs.rest(now);
                rest -= now;
                (self.go_on)()?;
            }
        }
        target.sync_all().map_err(|source| Error::io("sync", to, source))
    }
}

/// Puts lists in place that a backup has committed, if it was cut short before it had done that.
pub(crate) fn settle_lists(fs: &Fs, root: &Path, manifest: &mut Manifest) -> Result<()> {
    if !manifest.lists_next {
        return Ok(());
    }
    for id in (0..manifest.partition_count).map(PartitionId) {
        let dir = layout::partition_dir(root, id);
        let (from, to) = (dir.join(layout::FILES_NEXT), dir.join(layout::FILES));
        let io = |source| Error::io("put in place", &to, source);
        // It may be in place already.
        if fs.exists(&from).map_err(io)? {
            fs.rename(&from, &to).map_err(io)?;
        }
        fs.sync_dir(&dir).map_err(io)?;
    }
    manifest.lists_next = false;
    manifest.replace(fs, root)
}

fn partition_dir(root: &Path, list: &FilesList) -> PathBuf {
    layout::partition_dir(root, list.partition)
}

fn end_of(file: &File, len: u64) -> io::Result<[u8; GROUP_HEADER_LEN]> {
    let mut bytes = [0; GROUP_HEADER_LEN];
    let at = len.saturating_sub(GROUP_HEADER_LEN as u64);
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], at + done as u64)? {
            0 => break,
            count => done += count,
        }
    }
    Ok(bytes)
}

/// Whether the file cannot have another name there: on another file system, or where there are no such names, or not
/// one more.
fn needs_copy(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let copied = [Errno::XDEV, Errno::PERM, Errno::OPNOTSUPP, Errno::MLINK, Errno::NOSYS];
    copied.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cold]
fn other_copy(path: &Path) -> Error {
    Error::invalid(format!(
        "{}: differs from the store's file of this number, so the backup is one of another copy of the store; \
         choose an empty directory",
        path.display()
    ))
}

impl BackupReport {
    fn note(&mut self, len: u64, placed: &Placed) {
        self.files += 1;
        self.bytes += len;
        match placed {
            Placed::Linked => self.files_linked += 1,
            Placed::Copied => {
                self.files_copied += 1;
                self.bytes_copied += len;
            }
            Placed::Kept => self.files_kept += 1,
        }
    }
}
