//! Another number of partitions: what has to move is copied, and one replacement of MANIFEST makes it count.
//!
//! 1. MANIFEST says that something was begun, so that whoever comes after a crash clears it away.
//! 2. What moves is copied to new data files of the partitions that get it, and `FILES` of each lists them (RP3).
//!    Under the old map none of that counts.
//! 3. MANIFEST has the new count and the next map epoch: that is the commit.
//! 4. Files of partitions that are no more are removed, and MANIFEST says that it is over.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::Db;
use super::directory::{open_directory, random};
use super::examine::{Progress, on_own_thread};
use super::open::open_files_max;
use crate::clock::{Clock, ExpiryClock};
use crate::error::{Error, ErrorKind, Result};
use crate::io::Fs;
use crate::limits::{FILES_LEN_MAX, PARTITIONS_MAX};
use crate::log::data_file::{Owner, StoreIdentity};
use crate::log::files::FilesList;
use crate::log::layout;
use crate::log::manifest::Manifest;
use crate::mailbox::{Peers, Watchers};
use crate::moment::Snapshots;
use crate::options::{Compaction, Options};
use crate::partition::recovery::{
    self, Loaded, Recovered, empty_files, newer_map, read_header, remove_strays,
};
use crate::partition::repartition::{Target, move_out};
use crate::partition::{PartitionConfig, Retention};
use crate::report::RepartitionReport;
use crate::route::PartitionMap;
use crate::types::{FileId, PartitionId, Seqno};

impl Db {
    /// Gives the store at `path`, which must not be open, `partition_count` partitions.
    ///
    /// Consistent hashing says which keys another partition gets: from four to seven it is three of seven, and none
    /// of the others is written again. Only what a key holds moves, with its time to live; what it leaves behind
    /// takes its space until compaction comes there. Until then the store takes at most the moved records' space more
    /// than before. Files of partitions that are no more are removed, and their directories, unless something else is in them.
    ///
    /// May be killed at any moment: the store has the one count or the other, and everything is there. Sequence
    /// numbers of keys that moved are new ones.
    ///
    /// # Errors
    /// As opening the store; `InvalidArgument` for a count that is not 1 to 4,096; `NoSpace` and `Io` if what moves
    /// could not be written: the store is as it was then. `Corrupt` if a file is damaged, which moves nothing either:
    /// repair the store, or restore a backup.
    ///
    /// # Example: from two partitions to three
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path();
    /// use ringcask::{Db, Options};
    /// let db = Options::new().partitions(2).open(path).await?;
    /// for key in 0..100 {
    ///     db.put(format!("k{key}"), "v").await?;
    /// }
    /// db.close().await?;
    ///
    /// let report = Db::repartition(path, 3).await?;
    /// assert_eq!(report.keys_moved + report.keys_kept, 100);
    /// assert!(report.keys_moved < 60);
    /// let db = Db::open(path).await?;
    /// assert_eq!(db.stats().partitions.len(), 3);
    /// assert_eq!(db.get("k7").await?.as_deref(), Some(b"v".as_slice()));
    /// # db.close().await }).unwrap();
    /// ```
    pub async fn repartition(
        path: impl AsRef<Path>,
        partition_count: u32,
    ) -> Result<RepartitionReport> {
        Options::new().repartition(path, partition_count).await
    }
}

impl Options {
    /// As [`Db::repartition`], on the disk, with the patience for the lock, with the encryption keys, and with data
    /// files of the bounds that these options say. The other settings do not matter.
    ///
    /// # Errors
    /// As [`Db::repartition`].
    pub async fn repartition(
        self,
        path: impl AsRef<Path>,
        partition_count: u32,
    ) -> Result<RepartitionReport> {
        self.repartition_with(path.as_ref(), partition_count, |_, _| ()).await
    }

    /// Also tells `progress` how many bytes of how many were read.
    pub(crate) async fn repartition_with(
        self,
        path: &Path,
        partition_count: u32,
        progress: impl Fn(u64, u64) + Send + Sync + 'static,
    ) -> Result<RepartitionReport> {
        let store = path.to_owned();
        let job = move || repartition_blocking(self, &store, partition_count, &progress);
        on_own_thread("repartition", path, job).await
    }
}

fn repartition_blocking(
    options: Options,
    path: &Path,
    partition_count: u32,
    progress: &Progress,
) -> Result<RepartitionReport> {
    if !(1..=PARTITIONS_MAX).contains(&partition_count) {
        let what = format!("{partition_count} partitions; there can be 1 to {PARTITIONS_MAX}");
        return Err(Error::invalid(what));
    }
    let options = Options { create_if_missing: false, partitions: None, ..options };
    options.check()?;
    if options.read_only {
        return Err(Error::read_only(path));
    }
    let fs = options.io.fs();
    let (root, mut manifest, _lock) = open_directory(&fs, &options, path, &|| true)?;
    let mut report = RepartitionReport {
        partitions_before: manifest.partition_count,
        partitions_after: partition_count,
        ..RepartitionReport::default()
    };
    let recovered = recover(&fs, &root, &options, &manifest)?;
    if partition_count == manifest.partition_count {
        report.keys_kept = recovered.iter().map(Recovered::keys).sum();
        return Ok(report);
    }
    let mut next = manifest.with_partitions(partition_count);
    let given_up = recovered.iter().skip(partition_count as usize);
    next.file_next =
        given_up.map(|recovered| recovered.listed().next).fold(next.file_next, FileId::max);
    manifest.is_repartitioning = true;
    manifest.replace(&fs, &root)?;
    let moving = Moving { fs: &fs, root: &root, options: &options, progress };
    if let Err(error) = moving.copy(&recovered, &next, &mut report) {
        // If that fails too, the next open does it.
        if let Err(left) = clear_away(&fs, &root, &mut manifest) {
            tracing::warn!(path = %root.display(), error = %left, "cannot clear away what was copied");
        }
        return Err(error);
    }
    drop(recovered);
    let is_shrinking = partition_count < manifest.partition_count;
    let mut manifest = Manifest { is_repartitioning: is_shrinking, ..next };
    manifest.replace(&fs, &root)?;
    tracing::info!(
        path = %root.display(),
        from = report.partitions_before,
        to = partition_count,
        keys_moved = report.keys_moved,
        keys_kept = report.keys_kept,
        "store repartitioned"
    );
    // It is done; and whoever opens the store next does this if it fails.
    if let Err(error) = clear_away(&fs, &root, &mut manifest) {
        tracing::warn!(path = %root.display(), %error, "cannot remove files of partitions that are no more");
    }
    Ok(report)
}

/// Reads every partition, and settles what a killed store has left, as an open does.
fn recover(fs: &Fs, root: &Path, options: &Options, manifest: &Manifest) -> Result<Vec<Recovered>> {
    let config = PartitionConfig {
        identity: StoreIdentity::of(manifest),
        open_id: u64::from_le_bytes(random()?),
        clock: options.clock.clone(),
        // What has expired moves too: whether the clock is right is not for this to decide.
        expiry: Arc::new(ExpiryClock::new(Clock::Stopped)),
        codecs: Arc::new(options.codecs()),
        bounds: options.file_bounds(),
        capacity: options.capacity(),
        prewrite: false,
        compaction: Compaction::off(),
        scrub: None,
        locked: None,
        open_files_max: (open_files_max(options) / manifest.partition_count as usize).max(1),
        peers: Arc::new(Peers::new([])),
        watchers: Arc::new(Watchers::new(0)),
        changes_retention: Retention::default(),
        snapshots: Arc::new(Snapshots::new(0, None, Clock::Stopped)),
    };
    let mut loaded = Vec::new();
    for id in (0..manifest.partition_count).map(PartitionId) {
        loaded.push(recovery::load(fs, root, id, &config, &mut |_| ())?);
    }
    let decided: HashSet<u64> = loaded.iter().flat_map(Loaded::decisions).copied().collect();
    let settled: Result<Vec<Recovered>> =
        loaded.into_iter().map(|loaded| loaded.settle(&decided)).collect();
    let mut recovered = settled?;
    for recovered in &mut recovered {
        remove_strays(fs, &recovered.take_strays());
    }
    Ok(recovered)
}

struct Moving<'a> {
    fs: &'a Fs,
    root: &'a Path,
    options: &'a Options,
    progress: &'a Progress,
}

impl Moving<'_> {
    /// Copies what moves, and makes it durable (RP3).
    fn copy(
        &self,
        recovered: &[Recovered],
        next: &Manifest,
        report: &mut RepartitionReport,
    ) -> Result<()> {
        let mut targets = self.targets(recovered, next)?;
        let count_before = recovered.len() as u32;
        // Partitions that stay lose keys only to new ones (RT2).
        let loses =
            |index: u32| next.partition_count > count_before || index >= next.partition_count;
        let len_of = |recovered: &Recovered| -> u64 {
            recovered.listed().sealed.iter().map(|sealed| sealed.len).sum()
        };
        let sources = (0..).zip(recovered).filter(|(index, _)| loses(*index));
        let total = sources.clone().map(|(_, recovered)| len_of(recovered)).sum();
        let mut done = 0;
        (self.progress)(done, total);
        for (_, recovered) in sources {
            let map = PartitionMap::new(next.partition_count);
            let moved = move_out(recovered, map, &mut targets, &mut |len| {
                done += len;
                (self.progress)(done, total);
            })?;
            report.keys_moved += moved.keys;
            report.keys_kept += moved.kept;
            report.bytes_moved += moved.bytes;
        }
        let staying = (0..).zip(recovered).filter(|(index, _)| !loses(*index));
        report.keys_kept += staying.map(|(_, recovered)| recovered.keys()).sum::<u64>();
        targets.values_mut().try_for_each(Target::finish)
    }

    /// The partitions that get keys: the new ones, or all that stay.
    fn targets(
        &self,
        recovered: &[Recovered],
        next: &Manifest,
    ) -> Result<BTreeMap<PartitionId, Target>> {
        let Moving { fs, root, options, .. } = *self;
        let count_before = recovered.len() as u32;
        let identity = StoreIdentity::of(next);
        let open_id = u64::from_le_bytes(random()?);
        let seqno = recovered.iter().map(Recovered::next_seqno).max().unwrap_or(Seqno(0));
        let mut targets = BTreeMap::new();
        let first = if next.partition_count > count_before { count_before } else { 0 };
        for id in (first..next.partition_count).map(PartitionId) {
            let listed = if let Some(recovered) = recovered.get(id.0 as usize) {
                recovered.listed().clone()
            } else {
                self.make_room(id)?;
                FilesList { next: next.file_next, ..empty_files(&identity, id) }
            };
            let owner = Owner {
                identity: identity.clone(),
                partition: id,
                open_id,
                clock: options.clock.clone(),
                codecs: Arc::new(options.codecs()),
            };
            let bounds = options.file_bounds();
            targets.insert(id, Target::new(fs, root, owner, bounds, listed, seqno));
        }
        if first > 0 {
            fs.sync_dir(root).map_err(|source| Error::io("sync", root, source))?;
        }
        Ok(targets)
    }

    /// Makes the directory of a new partition.
    fn make_room(&self, id: PartitionId) -> Result<()> {
        let Moving { fs, root, .. } = *self;
        let dir = layout::partition_dir(root, id);
        fs.create_dir(&dir).map_err(|source| Error::io("create", &dir, source))?;
        let entries = fs.read_dir(&dir).map_err(|source| Error::io("list", &dir, source))?;
        match entries.iter().find(|entry| layout::is_of_partition(&entry.name.to_string_lossy())) {
            None => Ok(()),
            Some(entry) => Err(Error::new(
                ErrorKind::NotAStore,
                format!(
                    "{}: it is in the directory of a partition that the store does not have yet; move it away, then \
                     try again",
                    dir.join(&entry.name).display()
                ),
            )),
        }
    }
}

/// Removes what a change of the partition count has left that is over, or was interrupted, and notes that.
pub(super) fn clear_away(fs: &Fs, root: &Path, manifest: &mut Manifest) -> Result<()> {
    if !manifest.is_repartitioning {
        return Ok(());
    }
    let mut is_any_empty = false;
    for (id, dir) in layout::partition_dirs(fs, root)? {
        if id.0 < manifest.partition_count {
            forget_newer(fs, &dir, manifest)?;
        } else {
            remove_files(fs, &dir)?;
            is_any_empty |= fs.remove_dir(&dir).is_ok();
        }
    }
    if is_any_empty {
        fs.sync_dir(root).map_err(|source| Error::io("sync", root, source))?;
    }
    manifest.is_repartitioning = false;
    manifest.replace(fs, root)
}

/// Takes files off the list that were written for a map which never came into force.
fn forget_newer(fs: &Fs, dir: &Path, manifest: &Manifest) -> Result<()> {
    let path = dir.join(layout::FILES);
    // Whatever is wrong with it is said by who needs it.
    let Ok(bytes) = fs.read_file(&path, FILES_LEN_MAX) else { return Ok(()) };
    let Ok(mut listed) = FilesList::decode(&bytes) else { return Ok(()) };
    let is_newer = |path: &Path| {
        let header = fs.open_read(path).ok().and_then(|file| read_header(&file));
        header.is_some_and(|header| {
            header.store == manifest.store && header.map_epoch > manifest.map_epoch
        })
    };
    let before = (listed.sealed.len(), listed.map_epoch);
    listed.sealed.retain(|sealed| !is_newer(&layout::data_file_path(dir, sealed.id)));
    if listed.map_epoch > manifest.map_epoch {
        listed.map_epoch = manifest.map_epoch;
        listed.partition_count = Some(manifest.partition_count);
        listed.wider_maps.clone_from(&manifest.wider_maps);
    }
    if before == (listed.sealed.len(), listed.map_epoch) {
        return Ok(());
    }
    // The files themselves are strays from here on, which opening removes.
    fs.replace_file(dir, layout::FILES, &listed.encode())
        .map_err(|source| Error::io("replace", &path, source))
}

/// Refuses a MANIFEST that somebody has put back: by its map keys are looked for where they no longer are. Recovery
/// refuses it too where it comes upon files that are newer; here it is about partitions that it does not know.
pub(super) fn check_newest(fs: &Fs, root: &Path, manifest: &Manifest) -> Result<()> {
    if manifest.is_repartitioning {
        return Ok(());
    }
    let mut dirs = layout::partition_dirs(fs, root)?;
    dirs.retain(|(id, _)| id.0 >= manifest.partition_count);
    for (_, dir) in dirs {
        let path = dir.join(layout::FILES);
        let Ok(bytes) = fs.read_file(&path, FILES_LEN_MAX) else { continue };
        let Ok(listed) = FilesList::decode(&bytes) else { continue };
        if listed.store == manifest.store && listed.map_epoch > manifest.map_epoch {
            return Err(newer_map(&path, listed.map_epoch, manifest.map_epoch));
        }
    }
    Ok(())
}

/// Removes every file of a partition that is none.
fn remove_files(fs: &Fs, dir: &Path) -> Result<()> {
    for entry in fs.read_dir(dir).map_err(|source| Error::io("list", dir, source))? {
        if !entry.is_dir && layout::is_of_partition(&entry.name.to_string_lossy()) {
            let path = dir.join(&entry.name);
            fs.remove_file(&path).map_err(|source| Error::io("remove", &path, source))?;
        }
    }
    fs.sync_dir(dir).map_err(|source| Error::io("sync", dir, source))
}
