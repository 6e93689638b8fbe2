//! A store that is not open, read whole: the part that verify and repair share.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::directory::{Found, foreign, holds_data, look, random};
use super::lifecycle::StoreLock;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{Fs, Sharing};
use crate::limits::{FILES_LEN_MAX, KEYSPACES_MAX, MANIFEST_LEN_MAX, PARTITIONS_MAX};
use crate::log::data_file::StoreIdentity;
use crate::log::files::FilesList;
use crate::log::format::data_header::{DataHeader, FileKind};
use crate::log::layout;
use crate::log::manifest::{MANIFEST_VERSION, Manifest, ManifestKeyspace, WiderMap};
use crate::log::salvage::is_loss;
use crate::options::Options;
use crate::partition::recovery::read_header;
use crate::partition::verify::{Examined, Examiner, examine};
use crate::report::{Damage, VerifyReport};
use crate::types::{FileId, KeyId, KeyspaceId, PartitionId, StoreId};
use crate::upkeep::backup::settle_lists;

/// Who is told how far the reading is: bytes read, and how many there are.
pub(crate) type Progress = dyn Fn(u64, u64) + Send + Sync;

/// A store that was read whole, and is locked.
pub(super) struct ExaminedStore {
    pub(super) fs: Fs,
    pub(super) root: PathBuf,
    pub(super) manifest: ManifestState,
    /// What the store is; `None` if nothing says so, or only a newer build can read it.
    pub(super) identity: Option<StoreIdentity>,
    pub(super) partitions: Vec<Examined>,
    pub(super) report: VerifyReport,
    _lock: Option<StoreLock>,
}

/// What became of MANIFEST.
pub(super) enum ManifestState {
    Sound,
    /// Made anew from what data files say, for want of a sound one.
    Rebuilt {
        manifest: Manifest,
        was_there: bool,
    },
    /// No data file has a header that says what MANIFEST did.
    Lost,
    /// A newer build wrote it.
    Newer,
}

/// Who else may have the store.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Where the file system is mounted read-only nobody can write, so no lock is needed.
    Read,
    Write,
}

/// Runs `job` on a thread of its own, because it blocks; whoever awaits it needs no runtime.
pub(super) async fn on_own_thread<T: Send + 'static>(
    attempt: &'static str,
    path: &Path,
    job: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = futures::channel::oneshot::channel();
    std::thread::Builder::new()
        .name(format!("ringcask-{attempt}"))
        .spawn(move || {
            // If the caller is gone, so is whoever wanted to know.
            let _caller_is_gone = sender.send(job());
        })
        .map_err(|source| Error::io(&format!("start a thread to {attempt}"), path, source))?;
    receiver.await.unwrap_or_else(|_canceled| {
        let message = format!("{}: the thread of {attempt} panicked", path.display());
        Err(Error::new(ErrorKind::Io, message))
    })
}

/// Locks the store at `path` and reads all of it; changes nothing but that LOCK is created where there is
/// none.
pub(super) fn examine_store(
    options: &Options,
    path: &Path,
    access: Access,
    progress: &Progress,
) -> Result<ExaminedStore> {
    options.check()?;
    let fs = options.io.fs();
    check_is_store(&fs, path)?;
    let root = fs.canonical(path).map_err(|source| Error::io("find", path, source))?;
    let lock = match StoreLock::take(&fs, &root, options.lock_wait, Sharing::Exclusive, &|| true) {
        Err(error) if access == Access::Read && is_read_only(&error) => None,
        taken => Some(taken?),
    };
    // Again, under the lock: another process may have been repairing it.
    check_is_store(&fs, &root)?;
    let mut report = VerifyReport::default();
    let manifest = judge_manifest(&fs, &root, &mut report)?;
    let mut store = ExaminedStore {
        fs,
        root,
        manifest: ManifestState::Sound,
        identity: None,
        partitions: Vec::new(),
        report,
        _lock: lock,
    };
    let manifest = match manifest {
        Judged::Sound(mut manifest) => {
            // What an incremental backup has committed and not put in place yet.
            settle_lists(&store.fs, &store.root, &mut manifest)?;
            match judge_epoch(&store.fs, &store.root, &manifest, &mut store.report)? {
                None => manifest,
                Some(rebuilt) => {
                    store.manifest =
                        ManifestState::Rebuilt { manifest: rebuilt.clone(), was_there: true };
                    rebuilt
                }
            }
        }
        Judged::Newer => {
            store.manifest = ManifestState::Newer;
            return Ok(store);
        }
        Judged::Damaged { was_there } => {
            let remains = Remains::find(&store.fs, &store.root)?;
            let Some(manifest) = remains.rebuild(&store.root)? else {
                store.manifest = ManifestState::Lost;
                return Ok(store);
            };
            let rebuilt = manifest.clone();
            store.manifest = ManifestState::Rebuilt { manifest, was_there };
            rebuilt
        }
    };
    let (identity, codecs) = (StoreIdentity::of(&manifest), options.codecs());
    store.identity = Some(identity.clone());
    let ids = (0..identity.partition_count).map(PartitionId);
    let total =
        ids.clone().map(|id| data_len(&store.fs, &layout::partition_dir(&store.root, id))).sum();
    let done = std::cell::Cell::new(0_u64);
    let step = |bytes: u64| {
        done.set(done.get() + bytes);
        // Damaged files are read more than once.
        progress(done.get().min(total), total);
    };
    for id in ids {
        let with =
            Examiner { fs: &store.fs, root: &store.root, identity: &identity, codecs: &codecs };
        let examined = examine(&with, id, &mut store.report, &step);
        store.partitions.push(examined);
    }
    if let ManifestState::Rebuilt { manifest, .. } = &mut store.manifest {
        let found = store.partitions.iter().flat_map(|examined| &examined.keyspaces).copied();
        name_anew(manifest, found.collect());
    }
    Ok(store)
}

/// Gives the keyspaces that records are in, and whose names are lost, names by which they can be opened.
fn name_anew(manifest: &mut Manifest, mut found: BTreeSet<KeyspaceId>) {
    let newest = found.last().copied().unwrap_or_default();
    let next = KeyspaceId(newest.0.saturating_add(1)).max(manifest.keyspace_next);
    manifest.keyspace_next = next;
    let keyspaces = &mut manifest.keyspaces;
    found.retain(|id| {
        (1..next.0).contains(&id.0) && keyspaces.iter().all(|keyspace| keyspace.id != *id)
    });
    for id in found.into_iter().take(KEYSPACES_MAX.saturating_sub(keyspaces.len())) {
        let mut name = format!("recovered-{id}");
        while keyspaces.iter().any(|keyspace| keyspace.name == name) {
            name.push('+');
        }
        keyspaces.push(ManifestKeyspace { id, name, default_ttl_ms: None, is_dropping: false });
    }
    keyspaces.sort_unstable_by_key(|keyspace| keyspace.id);
}

/// Whether the file system is mounted read-only.
pub(super) fn is_read_only(error: &Error) -> bool {
    let source =
        std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == io::ErrorKind::ReadOnlyFilesystem)
}

fn check_is_store(fs: &Fs, path: &Path) -> Result<()> {
    match look(fs, path) {
        Ok(Found::Store) => Ok(()),
        // Somebody's file beside the partitions of a store whose MANIFEST is missing changes nothing.
        Ok(Found::Foreign(_)) if holds_partitions(fs, path) => Ok(()),
        Ok(Found::Foreign(what)) => Err(foreign(path, &what)),
        Ok(Found::Room) => Err(Error::new(
            ErrorKind::NotAStore,
            format!("{}: there is no store; check the path", path.display()),
        )),
        // Partitions without MANIFEST are a store whose MANIFEST is missing.
        Err(error) if error.is_corrupt() => Ok(()),
        Err(error) => Err(error),
    }
}

fn holds_partitions(fs: &Fs, path: &Path) -> bool {
    let dirs = layout::partition_dirs(fs, path).unwrap_or_default();
    dirs.iter().any(|(_, dir)| holds_data(fs, dir).unwrap_or(false))
}

enum Judged {
    Sound(Manifest),
    Damaged { was_there: bool },
    Newer,
}

fn judge_manifest(fs: &Fs, root: &Path, report: &mut VerifyReport) -> Result<Judged> {
    let path = root.join(layout::MANIFEST);
    let bytes = match fs.read_file(&path, MANIFEST_LEN_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            report.add_damage(Damage::new(&path, 0, None, "the file is missing"));
            return Ok(Judged::Damaged { was_there: false });
        }
        // Whatever else it is, it is not damage: the same store opens for whoever may read it.
        Err(error) if !is_loss(&error) && error.kind() != io::ErrorKind::InvalidData => {
            return Err(Error::io("read", &path, error));
        }
        Err(error) => {
            report.add_damage(Damage::new(&path, 0, None, format!("it cannot be read: {error}")));
            return Ok(Judged::Damaged { was_there: true });
        }
    };
    match Manifest::decode(&bytes) {
        Ok(manifest) => Ok(Judged::Sound(manifest)),
        Err(why) if why.is_newer() => {
            report.add_newer(&path, why);
            Ok(Judged::Newer)
        }
        Err(why) => {
            report.add_damage(Damage::new(&path, 0, Some(bytes.len() as u64), why));
            Ok(Judged::Damaged { was_there: true })
        }
    }
}

/// What MANIFEST has to be instead, if files show that it is an older one that somebody has put back.
fn judge_epoch(
    fs: &Fs,
    root: &Path,
    manifest: &Manifest,
    report: &mut VerifyReport,
) -> Result<Option<Manifest>> {
    // Then there may be files of a map that never came into force, which the next open clears away.
    if manifest.is_repartitioning {
        return Ok(None);
    }
    let remains = Remains::find(fs, root)?;
    let epochs = remains.epochs(manifest.store);
    let Some(epoch) = epochs.max().filter(|epoch| *epoch > manifest.map_epoch) else {
        return Ok(None);
    };
    let what = format!(
        "it is an older one: it says map epoch {}, and there are files of map epoch {epoch}",
        manifest.map_epoch
    );
    report.add_damage(Damage::new(&root.join(layout::MANIFEST), 0, None, what));
    let Some(rebuilt) = remains.rebuild(root)? else { return Ok(None) };
    let Manifest { instance, created_at_ms, backup_of, keyspace_next, .. } = *manifest;
    let keyspaces = manifest.keyspaces.clone();
    Ok(Some(Manifest { created_at_ms, keyspace_next, keyspaces, instance, backup_of, ..rebuilt }))
}

/// What the partitions of a store still say of what MANIFEST said (F2).
#[derive(Default)]
struct Remains {
    /// Of data files that are where they say they are, and whether `FILES` lists them.
    headers: Vec<(DataHeader, bool)>,
    lists: Vec<FilesList>,
}

impl Remains {
    fn find(fs: &Fs, root: &Path) -> Result<Remains> {
        let mut remains = Remains::default();
        for (partition, dir) in layout::partition_dirs(fs, root)? {
            remains.look_into(fs, &dir, partition)?;
        }
        Ok(remains)
    }

    fn look_into(&mut self, fs: &Fs, dir: &Path, partition: PartitionId) -> Result<()> {
        let files = fs.read_file(&dir.join(layout::FILES), FILES_LEN_MAX).ok();
        let list = files.and_then(|bytes| FilesList::decode(&bytes).ok());
        let list = list.filter(|list| list.partition == partition);
        for entry in fs.read_dir(dir).map_err(|source| Error::io("list", dir, source))? {
            let name = entry.name.to_string_lossy();
            let Some((id, FileKind::Data)) = layout::parse_file_name(&name) else { continue };
            let path = dir.join(&entry.name);
            // Whatever is wrong with the others is said when they are read.
            let Some(header) = fs.open_read(&path).ok().and_then(|file| read_header(&file)) else {
                continue;
            };
            let is_in_place =
                header.kind == FileKind::Data && header.partition == partition && header.file == id;
            let is_listed =
                list.as_ref().is_some_and(|list| list.store == header.store && list.has(id));
            if is_in_place {
                self.headers.push((header, is_listed));
            }
        }
        self.lists.extend(list);
        Ok(())
    }

    /// Map epochs that files of this store which count say.
    fn epochs(&self, store: StoreId) -> impl Iterator<Item = u64> {
        let of_store = move |header: &&DataHeader| header.store == store;
        let listed = self.headers.iter().filter(|(_, is_listed)| *is_listed);
        let headers = listed.map(|(header, _)| header).filter(of_store);
        let lists = self.lists.iter().filter(move |list| list.store == store);
        headers.map(|header| header.map_epoch).chain(lists.map(|list| list.map_epoch))
    }

    /// MANIFEST as far as they repeat it.
    ///
    /// # Errors
    /// `Corrupt` if they contradict each other.
    fn rebuild(mut self, root: &Path) -> Result<Option<Manifest>> {
        // Files that a list names count more than those that may have been put there.
        if self.headers.iter().any(|(_, is_listed)| *is_listed) {
            self.headers.retain(|(_, is_listed)| *is_listed);
        }
        let headers = self.headers.iter().map(|(header, _)| header);
        let Some(newest) = headers.clone().max_by_key(|header| header.map_epoch) else {
            return Ok(None);
        };
        let agrees = |header: &DataHeader| {
            header.store == newest.store && header.hash_key == newest.hash_key
        };
        let maps = self.maps(newest.store).filter(|_| headers.clone().all(agrees));
        let Some((maps, is_repartitioning)) = maps else {
            return Err(Error::corrupt(
                &root.join(layout::MANIFEST),
                0,
                "it cannot be made anew, because the data files belong to more than one store; move those \
                 of the others away, then try again",
            ));
        };
        let Some((&map_epoch, &partition_count)) = maps.last_key_value() else { return Ok(None) };
        let mut widest = partition_count;
        let mut wider_maps = Vec::new();
        for (&through, &partition_count) in maps.iter().rev() {
            if partition_count > widest {
                wider_maps.push(WiderMap { through, partition_count });
                widest = partition_count;
            }
        }
        wider_maps.reverse();
        Ok(Some(Manifest {
            format_version: MANIFEST_VERSION,
            store: newest.store,
            // Nothing says which one it was.
            instance: StoreId(random()?),
            backup_of: None,
            lists_next: false,
            created_at_ms: headers.clone().map(|header| header.created_at_ms).min().unwrap_or(0),
            map_epoch,
            partition_count,
            hash_key: newest.hash_key,
            keyspace_next: KeyspaceId(1),
            key: headers.max_by_key(|header| header.created_at_ms).map_or(KeyId::NONE, |h| h.key),
            keyspaces: Vec::new(),
            is_repartitioning,
            wider_maps,
            // What there is is all that is known of what there was.
            file_next: self
                .lists
                .iter()
                .map(|list| list.next.min(FileId(layout::FILE_ID_MAX)))
                .max()
                .unwrap_or(FileId(1)),
        }))
    }

    /// Which maps were in force, by epoch, as far as anything still counts by them; and whether a later one was begun
    /// and never came into force. `None` if they contradict each other.
    fn maps(&self, store: StoreId) -> Option<(BTreeMap<u64, u32>, bool)> {
        let lists = || self.lists.iter().filter(|list| list.store == store);
        let of_headers =
            self.headers.iter().map(|(header, _)| (header.map_epoch, header.partition_count));
        let of_lists =
            lists().filter_map(|list| list.partition_count.map(|count| (list.map_epoch, count)));
        let wider = lists().flat_map(|list| &list.wider_maps);
        let wider = wider.map(|map| (map.through, map.partition_count));
        let mut maps = BTreeMap::new();
        for (epoch, count) in of_headers.chain(of_lists).chain(wider) {
            let is_sound = (1..=PARTITIONS_MAX).contains(&count);
            if !is_sound || *maps.entry(epoch).or_insert(count) != count {
                return None;
            }
        }
        let newest = maps.last_key_value().map(|(&epoch, &count)| (epoch, count));
        let is_begun = newest.is_some_and(|(epoch, count)| {
            let before = epoch.checked_sub(1).and_then(|before| maps.get(&before));
            before.is_some_and(|&before| !self.is_in_force(store, epoch, count, before))
        });
        if is_begun {
            maps.pop_last();
        }
        Some((maps, is_begun))
    }

    /// Whether everything is there that a change from `before` to `count` partitions writes before it counts (RP3).
    fn is_in_force(&self, store: StoreId, epoch: u64, count: u32, before: u32) -> bool {
        let is_growing = count > before;
        let list_of = |id: u32| {
            self.lists.iter().find(|list| list.store == store && list.partition == PartitionId(id))
        };
        // Its list may be lost as MANIFEST is; then partitions that were not to get keys may have written since.
        let is_written = || {
            let of_staying = |header: &DataHeader| header.partition.0 < before;
            is_growing
                && self
                    .headers
                    .iter()
                    .any(|(header, _)| of_staying(header) && header.map_epoch >= epoch)
        };
        let targets = if is_growing { before..count } else { 0..count };
        targets.map(list_of).all(|list| match list {
            Some(list) => list.map_epoch >= epoch,
            None => !is_growing || is_written(),
        })
    }
}

/// Bytes in data files, for whoever shows progress.
fn data_len(fs: &Fs, dir: &Path) -> u64 {
    let entries = fs.read_dir(dir).unwrap_or_default();
    let is_data = |name: &str| matches!(layout::parse_file_name(name), Some((_, FileKind::Data)));
    entries
        .iter()
        .filter(|entry| is_data(&entry.name.to_string_lossy()))
        .map(|entry| entry.len)
        .sum()
}
