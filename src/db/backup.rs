//! Backups of an open store, and what makes a store of one again.
//!
//! What is written, and in which order, stands in `upkeep/backup.rs`; how all partitions come to one moment in
//! `mailbox/gate.rs`, and what each does then in `partition/backup.rs`.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;

use super::directory::{missing_count, read_manifest, sync_new_ancestors};
use super::examine::on_own_thread;
use super::lifecycle::StoreLock;
use super::{Db, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{Fs, Sharing};
use crate::limits::{FILES_LEN_MAX, MANIFEST_LEN_MAX};
use crate::log::files::FilesList;
use crate::log::layout;
use crate::log::manifest::Manifest;
use crate::mailbox::{Message, Pinned, reply_slot};
use crate::options::Options;
use crate::report::BackupReport;
use crate::types::{PartitionId, StoreId};
use crate::upkeep::backup::{Backup as Writing, Listed, settle_lists};
use crate::upkeep::compaction::policy::Pace;

/// A backup that is about to be made; made by [`Db::backup`].
#[must_use = "a backup is made when this is awaited"]
pub struct Backup {
    state: State,
}

enum State {
    Unsent { shared: Arc<Shared>, dir: PathBuf, bytes_per_sec: Option<u64> },
    Sent(BoxFuture<'static, Result<BackupReport>>),
    Done,
}

impl Db {
    /// Makes a backup of the store in the directory `dir`, while everything goes on. It is a store: open it to have what
    /// was there, or [restore](Db::restore) it to where the store was.
    ///
    /// It has what was acknowledged before the call, of all partitions and keyspaces, and each [batch](Db::write) whole or
    /// not at all. The file of each partition that is written then is sealed; sealed files, which are never changed
    /// again, get a second name in `dir`, so a backup on the same file system takes next to no time and space, until
    /// compaction replaces the originals. On another one they are copied; [`Backup::bytes_per_sec`] says how fast.
    ///
    /// With an earlier backup of the same store in `dir` only what is new is linked or copied, and what does not count
    /// any more is removed. At every moment the earlier one is there, or the new one, whatever comes between; a first one
    /// that is cut short does not open, and is gone on with by the next call. Once a backup was opened it is a store of
    /// its own, and no later backup is made into it. A store that was [restored](Db::restore) from a backup has gone its own
    /// way too: it does not replace the backup that it came from, and begins with an empty directory.
    ///
    /// A store in memory is backed up onto the disk too, and opened from there.
    ///
    /// The future is sent when it is first polled; dropping it later does not stop a backup that has come to its files.
    ///
    /// # Errors
    /// `InvalidArgument` if `dir` is inside the store, or holds anything but a backup of this store; `Locked` if it is
    /// open; `NoSpace` or `Io` if it cannot be written (an earlier backup stays what it was); `Poisoned` if a partition
    /// takes no writes, `ReadOnly` if the store was opened so, because a backup seals the log; `Closed` after close.
    ///
    /// # Example: what was deleted is in the backup
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let (path, to) = (dir.path().join("store"), dir.path().join("backup"));
    /// use ringcask::Db;
    /// let db = Db::open(&path).await?;
    /// db.put("k", "v").await?;
    /// db.backup(&to).await?;
    /// db.del("k").await?;
    /// let again = db.backup(&to).await?; // only what is new
    /// assert!(again.is_incremental);
    /// db.put("k", "later").await?;
    /// db.close().await?;
    ///
    /// let old = Db::open(&to).await?;
    /// assert_eq!(old.get("k").await?, None);
    /// old.close().await
    /// # }).unwrap();
    /// ```
    pub fn backup(&self, dir: impl AsRef<Path>) -> Backup {
        let (shared, dir) = (self.shared.clone(), dir.as_ref().to_owned());
        Backup { state: State::Unsent { shared, dir, bytes_per_sec: None } }
    }

    /// Makes a store at `into` of the backup at `backup`, which stays what it is.
    ///
    /// Files get a second name, or are copied if `into` is on another file system. `into` must be empty, or not there. Read
    /// all of the backup first, with [`Db::verify`], where that matters more than time.
    ///
    /// # Errors
    /// `InvalidArgument` if `backup` is none, or has been opened since it was made, which made a store of it, or if `into`
    /// holds anything; `NotAStore`, `Locked`, `NoSpace`, `Io` and `Corrupt` as their names say.
    ///
    /// # Example: back to where it was
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let (path, to) = (dir.path().join("store"), dir.path().join("backup"));
    /// use ringcask::Db;
    /// let db = Db::open(&path).await?;
    /// db.put("k", "v").await?;
    /// db.backup(&to).await?;
    /// db.close().await?;
    /// std::fs::remove_dir_all(&path).unwrap();
    ///
    /// Db::restore(&to, &path).await?;
    /// let db = Db::open(&path).await?;
    /// assert_eq!(db.get("k").await?.as_deref(), Some(b"v".as_slice()));
    /// db.close().await
    /// # }).unwrap();
    /// ```
    pub async fn restore(backup: impl AsRef<Path>, into: impl AsRef<Path>) -> Result<BackupReport> {
        Options::new().restore(backup, into).await
    }
}

impl Backup {
    /// Copies at most this many bytes a second, where files have to be copied. Default: as fast as can be.
    pub fn bytes_per_sec(mut self, bytes: u64) -> Backup {
        if let State::Unsent { bytes_per_sec, .. } = &mut self.state {
            *bytes_per_sec = Some(bytes.max(1));
        }
        self
    }
}

impl Future for Backup {
    type Output = Result<BackupReport>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::Unsent { .. } = self.state
            && let State::Unsent { shared, dir, bytes_per_sec } =
                std::mem::replace(&mut self.state, State::Done)
        {
            self.state = State::Sent(Box::pin(back_up(shared, dir, bytes_per_sec)));
        }
        let State::Sent(future) = &mut self.state else { return Poll::Pending };
        let polled = future.as_mut().poll(cx);
        if polled.is_ready() {
            self.state = State::Done;
        }
        polled
    }
}

async fn back_up(
    shared: Arc<Shared>,
    dir: PathBuf,
    bytes_per_sec: Option<u64>,
) -> Result<BackupReport> {
    // Closing waits for it, and it notices that soon.
    let task = shared.lifecycle.begin_task().ok_or_else(Error::closed)?;
    let source = shared.keyspaces.fs().clone();
    if source.is_read_only() {
        return Err(Error::read_only(&shared.path));
    }
    // What is in memory is backed up onto a disk: another place in memory would be gone with it.
    let fs = if source.is_volatile() { Fs::os() } else { source.clone() };
    let store = (!source.is_volatile()).then(|| shared.path.clone());
    let Manifest { store: id, instance, .. } = shared.keyspaces.manifest();
    let of = Of { store: id, instance };
    let (on, to) = (fs.clone(), dir.clone());
    let target =
        on_own_thread("backup", &dir, move || prepare(&on, store.as_deref(), &to, Some(of)))
            .await?;
    let (manifest, pinned) = shared.pin_moment().await?;
    let manifest = Manifest { backup_of: Some(manifest.instance), ..manifest };
    on_own_thread("backup", &dir, move || {
        let _closing_waits = task;
        let go_on = || if shared.lifecycle.is_closing() { Err(Error::closed()) } else { Ok(()) };
        let report = Writing {
            source: &source,
            fs: &fs,
            from: &shared.path,
            to: &target.root,
            manifest,
            lists: pinned.iter().map(listed).collect(),
            is_incremental: target.is_whole,
            pace: Pace::new(bytes_per_sec),
            go_on: &go_on,
        }
        .write()?;
        tracing::info!(
            path = %target.root.display(),
            files = report.files,
            linked = report.files_linked,
            copied = report.files_copied,
            kept = report.files_kept,
            removed = report.files_removed,
            "backup made"
        );
        Ok(report)
    })
    .await
}

fn listed(pinned: &Pinned) -> Listed {
    Listed { list: pinned.list.clone(), without_hints: pinned.unsettled.clone() }
}

impl Shared {
    /// MANIFEST and the files of all partitions at one moment; the files keep their names while they are held.
    async fn pin_moment(&self) -> Result<(Manifest, Vec<Pinned>)> {
        let _turn = self.moment_turn.lock().await;
        loop {
            if self.lifecycle.is_closing() {
                return Err(Error::closed());
            }
            let before = self.keyspaces.manifest();
            let hold = self.peers.hold();
            std::future::poll_fn(|cx| hold.poll_quiet(cx)).await;
            let receivers = parking_lot::Mutex::new(Vec::new());
            let gate = self.peers.gate(|marking| {
                let (reply, receiver) = reply_slot();
                receivers.lock().push(receiver);
                Message::Backup(marking, reply)
            });
            let marked = std::future::poll_fn(|cx| gate.poll_marked(cx)).await;
            marked.map_err(|shard| self.no_answer(shard))?;
            // A keyspace that is there at the moment has its name in the backup.
            let is_one_moment = hold.is_valid() && self.keyspaces.manifest() == before;
            drop(hold);
            let mut pinned = Vec::new();
            for (shard, receiver) in receivers.into_inner().into_iter().enumerate() {
                let answer = std::future::poll_fn(|cx| receiver.poll_answer(cx)).await;
                pinned.push(answer.unwrap_or_else(|| Err(self.no_answer(shard)))?);
            }
            if is_one_moment {
                return Ok((before, pinned));
            }
        }
    }
}

/// A directory that a backup is written to.
struct Target {
    root: PathBuf,
    /// It has a whole backup.
    is_whole: bool,
    _lock: StoreLock,
}

/// Whose backups a directory may have.
#[derive(Clone, Copy)]
struct Of {
    store: StoreId,
    instance: StoreId,
}

/// Judges the directory before anything is changed in it, and takes its lock. `of` is whose backups it may have.
/// `store` is where the files are, if they are on the same file system.
fn prepare(fs: &Fs, store: Option<&Path>, dir: &Path, of: Option<Of>) -> Result<Target> {
    let missing = missing_count(fs, dir);
    let mut store_or_memory = PathBuf::from("the store in memory");
    if let Some(store) = store {
        let store = fs.canonical(store).map_err(|source| Error::io("find", store, source))?;
        let there = canonical_ahead(fs, dir)?;
        if there.starts_with(&store) || store.starts_with(&there) {
            return Err(into_itself(&store, dir));
        }
        store_or_memory = store;
    }
    let store = store_or_memory;
    drop(judge(fs, &store, dir, of)?);
    fs.create_dir(dir).map_err(|source| Error::io("create", dir, source))?;
    let root = fs.canonical(dir).map_err(|source| Error::io("find", dir, source))?;
    let lock = StoreLock::take(fs, &root, std::time::Duration::ZERO, Sharing::Exclusive, &|| true)?;
    // Again, under the lock: another process may have been making one.
    let found = judge(fs, &store, &root, of)?;
    let is_whole = found.is_some();
    if let Some(mut manifest) = found {
        settle_lists(fs, &root, &mut manifest)?;
    } else {
        let text = marker(of);
        fs.replace_file(&root, layout::BACKUP, text.as_bytes())
            .map_err(|source| Error::io("write", &root.join(layout::BACKUP), source))?;
        sync_new_ancestors(fs, &root, missing)?;
    }
    Ok(Target { root, is_whole, _lock: lock })
}

/// The path without links and dots, as it will be when the directories are made that are missing.
fn canonical_ahead(fs: &Fs, dir: &Path) -> Result<PathBuf> {
    for ancestor in dir.ancestors() {
        let shown = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
        if fs.exists(shown).map_err(|source| Error::io("look for", dir, source))? {
            let there = fs.canonical(shown).map_err(|source| Error::io("find", dir, source))?;
            let rest = dir.strip_prefix(ancestor).unwrap_or(dir);
            return Ok(if rest.as_os_str().is_empty() { there } else { there.join(rest) });
        }
    }
    Ok(dir.to_owned())
}

/// What BACKUP says while there is no MANIFEST beside it.
fn marker(of: Option<Of>) -> String {
    let of = of.map_or_else(|| "a backup".to_owned(), |of| of.instance.to_string());
    format!("Ringcask: incomplete copy of {of}\nIt does not open. Make it again, or remove it.\n")
}

/// The manifest of the backup that is there; `None` if there is room for one.
fn judge(fs: &Fs, store: &Path, dir: &Path, of: Option<Of>) -> Result<Option<Manifest>> {
    let io = |source| Error::io("look into", dir, source);
    if !fs.exists(dir).map_err(io)? {
        return Ok(None);
    }
    let entries = match fs.read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            return Err(refused(store, dir, "it is not a directory"));
        }
        entries => entries.map_err(io)?,
    };
    let has = |name: &str| entries.iter().any(|entry| entry.name == name);
    if has(layout::MANIFEST) {
        let manifest = read_manifest(fs, dir)?;
        return match (manifest.backup_of, of) {
            (Some(backup_of), Some(of)) if backup_of == of.instance => Ok(Some(manifest)),
            (_, None) => Err(refused(store, dir, "it holds a store")),
            (Some(_), Some(of)) if manifest.store == of.store => {
                let what = "it holds a backup of the store that this one was restored from, or of another copy of \
                            it, which would be lost";
                Err(refused(store, dir, what))
            }
            (Some(_), _) => Err(refused(store, dir, "it holds a backup of another store")),
            (None, _) => {
                Err(refused(store, dir, "it holds a store, or a backup that was opened since"))
            }
        };
    }
    if has(layout::BACKUP) {
        let path = dir.join(layout::BACKUP);
        let text = fs
            .read_file(&path, MANIFEST_LEN_MAX)
            .map_err(|source| Error::io("read", &path, source))?;
        if text == marker(of).as_bytes() {
            return Ok(None);
        }
        return Err(refused(store, dir, "it holds an incomplete backup of something else"));
    }
    // What was there before BACKUP was.
    let is_leftover = |name: &str| {
        name == layout::LOCK
            || name
                .strip_suffix(layout::TEMPORARY_SUFFIX)
                .is_some_and(|name| name == layout::BACKUP)
    };
    match entries.iter().find(|entry| !is_leftover(&entry.name.to_string_lossy())) {
        None => Ok(None),
        Some(entry) => {
            Err(refused(store, dir, &format!("it holds {}", entry.name.to_string_lossy())))
        }
    }
}

impl Options {
    /// As [`Db::restore`], on the disk and with the patience for the lock that these options say. The other settings do
    /// not matter.
    ///
    /// # Errors
    /// As [`Db::restore`].
    pub async fn restore(
        self,
        backup: impl AsRef<Path>,
        into: impl AsRef<Path>,
    ) -> Result<BackupReport> {
        let (backup, into) = (backup.as_ref().to_owned(), into.as_ref().to_owned());
        let shown = into.clone();
        on_own_thread("restore", &shown, move || restore(&self, &backup, &into)).await
    }
}

fn restore(options: &Options, backup: &Path, into: &Path) -> Result<BackupReport> {
    let fs = &options.io.fs();
    check_is_backup(fs, backup)?;
    let from = fs.canonical(backup).map_err(|source| Error::io("find", backup, source))?;
    let _lock = StoreLock::take(fs, &from, options.lock_wait, Sharing::Exclusive, &|| true)?;
    let mut manifest = check_is_backup(fs, &from)?;
    settle_lists(fs, &from, &mut manifest)?;
    let target = prepare(fs, Some(&from), into, None)?;
    let lists = (0..manifest.partition_count).map(|id| {
        let path = layout::partition_dir(&from, PartitionId(id)).join(layout::FILES);
        let bytes = fs
            .read_file(&path, FILES_LEN_MAX)
            .map_err(|source| Error::io("read", &path, source))?;
        let list = FilesList::decode(&bytes).map_err(|why| why.at(&path, 0))?;
        if list.store != manifest.store
            || list.partition != PartitionId(id)
            || list.active.is_some()
        {
            return Err(Error::corrupt(&path, 0, "it is not the list of this backup's partition"));
        }
        // What hints it has are good ones.
        Ok(Listed { list, without_hints: Vec::new() })
    });
    let lists = lists.collect::<Result<Vec<Listed>>>()?;
    Writing {
        source: fs,
        fs,
        from: &from,
        to: &target.root,
        manifest,
        lists,
        is_incremental: false,
        pace: Pace::new(None),
        go_on: &|| Ok(()),
    }
    .write()
}

fn check_is_backup(fs: &Fs, path: &Path) -> Result<Manifest> {
    let file = path.join(layout::MANIFEST);
    if !fs.exists(&file).map_err(|source| Error::io("look for", &file, source))? {
        return Err(Error::new(
            ErrorKind::NotAStore,
            format!("{}: there is no backup, or one that was cut short", path.display()),
        ));
    }
    let manifest = read_manifest(fs, path)?;
    if manifest.backup_of.is_none() {
        return Err(Error::invalid(format!(
            "{}: not a backup, but a store, or a backup that was opened since; open it where it is, or make a \
             backup of it",
            path.display()
        )));
    }
    Ok(manifest)
}

#[cold]
fn refused(store: &Path, dir: &Path, what: &str) -> Error {
    Error::invalid(format!(
        "{}: cannot put a copy of {} there: {what}; nothing was changed, choose an empty directory",
        dir.display(),
        store.display()
    ))
}

#[cold]
fn into_itself(store: &Path, dir: &Path) -> Error {
    Error::invalid(format!(
        "{}: a copy of {} cannot be inside of it, or around it; nothing was changed, choose another directory",
        dir.display(),
        store.display()
    ))
}
