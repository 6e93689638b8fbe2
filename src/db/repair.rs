//! Repair: keep all that is sound, say what is not.

use std::path::Path;

use super::Db;
use super::directory::random;
use super::examine::{
    Access, ExaminedStore, ManifestState, Progress, examine_store, on_own_thread,
};
use crate::error::{Error, Result};
use crate::log::layout;
use crate::log::manifest::Manifest;
use crate::options::Options;
use crate::partition::repair::{RepairConfig, check_readable, free_name, repair};
use crate::report::RepairReport;

impl Db {
    /// Makes the store at `path`, which must not be open, one that opens and holds exactly its sound
    /// records, and reports what was lost.
    ///
    /// - The sound records of a damaged data file are copied to a new one, with their sequence numbers. The
    ///   damaged file stays beside it as `000000003.data.damaged`: no data is deleted.
    /// - A data file that is listed and missing is no longer listed.
    /// - A `FILES` that is damaged or missing is made anew from the data files that are there. Files that it
    ///   no longer listed then count again, so deleted keys and old values may come back.
    /// - A MANIFEST that is damaged, missing, or of before the store got another number of partitions, is made anew
    ///   from what data files and lists repeat of it. The
    ///   names of keyspaces and their default times to live are lost: a keyspace that any record is in is
    ///   called `recovered-7` then, after its number. One that was being dropped is back, and empty as far as
    ///   it was cleared.
    /// - A hint file that contradicts its data file is removed, and so is that of a damaged one.
    ///
    /// Where the newest record of a key is lost, the key has the value before it, or none. A sound store is
    /// left as it is. Repair may be killed at any moment and run again. It needs space for the sound records of
    /// the damaged files.
    ///
    /// # Errors
    /// As [`Db::verify`]; and `NewerFormat` if anything was written by a newer version of this crate,
    /// `Corrupt` if MANIFEST is damaged and there is nothing to make it anew from, `Io` for a file that
    /// cannot be opened: nothing was changed then. `NoSpace` if the disk is full: nothing is lost, and the
    /// repair can be run again.
    ///
    /// # Example: a damaged byte costs one record
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path();
    /// use ringcask::{Db, Options};
    /// let db = Options::new().partitions(1).open(path).await?;
    /// db.put("a", "1").await?;
    /// db.put("b", "2").await?;
    /// db.close().await?;
    ///
    /// let file = path.join("partition-000/000000001.data");
    /// let mut bytes = std::fs::read(&file).unwrap();
    /// let at = bytes.windows(2).position(|pair| pair == b"a1").unwrap();
    /// bytes[at + 1] ^= 1;
    /// std::fs::write(&file, bytes).unwrap();
    ///
    /// let report = Db::repair(path).await?;
    /// assert_eq!((report.records_kept, report.records_lost), (1, 1));
    /// assert_eq!(report.found.damage[0].key.as_deref(), Some(b"a".as_slice()));
    /// let db = Db::open(path).await?;
    /// assert_eq!(db.get("b").await?.as_deref(), Some(b"2".as_slice()));
    /// # db.close().await }).unwrap();
    /// ```
    pub async fn repair(path: impl AsRef<Path>) -> Result<RepairReport> {
        Options::new().repair(path).await
    }
}

impl Options {
    /// As [`Db::repair`], on the disk, with the patience for the lock, and with data files of the length that
    /// these options say. The other settings do not matter.
    ///
    /// # Errors
    /// As [`Db::repair`].
    pub async fn repair(self, path: impl AsRef<Path>) -> Result<RepairReport> {
        self.repair_with(path.as_ref(), |_, _| ()).await
    }

    /// Also tells `progress` how many bytes of how many were read.
    pub(crate) async fn repair_with(
        self,
        path: &Path,
        progress: impl Fn(u64, u64) + Send + Sync + 'static,
    ) -> Result<RepairReport> {
        let store = path.to_owned();
        on_own_thread("repair", path, move || repair_blocking(&self, &store, &progress)).await
    }
}

pub(super) fn repair_blocking(
    options: &Options,
    path: &Path,
    progress: &Progress,
) -> Result<RepairReport> {
    let mut store = examine_store(options, path, Access::Write, progress)?;
    let found = std::mem::take(&mut store.report);
    if let Some(newer) = found.newer.first() {
        let why = format!("{}, so nothing was repaired", newer.what);
        return Err(Error::newer(&newer.path, why));
    }
    let Some(identity) = &store.identity else {
        return Err(Error::corrupt(
            &store.root.join(layout::MANIFEST),
            0,
            "there is no data file that says what was in it, so it cannot be made anew; restore it from a \
             backup",
        ));
    };
    store.partitions.iter().try_for_each(check_readable)?;
    let mut report = RepairReport { found, ..RepairReport::default() };
    let config = RepairConfig {
        fs: &store.fs,
        root: &store.root,
        identity,
        open_id: u64::from_le_bytes(random()?),
        clock: &options.clock,
        data_file_len_max: options.data_file_len_max,
    };
    // First: the only header that says what it was may be that of a file that is set aside.
    if let ManifestState::Rebuilt { manifest, was_there } = &store.manifest {
        replace_manifest(&store, manifest, *was_there, &mut report)?;
    }
    for examined in &store.partitions {
        repair(&config, examined, &mut report, &|_| ())?;
    }
    if report.is_changed() {
        tracing::info!(
            path = %store.root.display(),
            records_kept = report.records_kept,
            records_lost = report.records_lost,
            set_aside = report.set_aside.len(),
            "store repaired"
        );
    }
    Ok(report)
}

fn replace_manifest(
    store: &ExaminedStore,
    manifest: &Manifest,
    was_there: bool,
    report: &mut RepairReport,
) -> Result<()> {
    let ExaminedStore { fs, root, .. } = store;
    let path = root.join(layout::MANIFEST);
    let text = manifest.encode().map_err(|why| Error::corrupt(&path, 0, why))?;
    let staged = fs
        .stage_file(root, layout::MANIFEST, text.as_bytes())
        .map_err(|source| Error::io("write", &path, source))?;
    if was_there {
        let to = free_name(fs, root, &path)?;
        fs.rename(&path, &to)
            .and_then(|()| fs.sync_dir(root))
            .map_err(|source| Error::io("rename", &path, source))?;
        report.set_aside.push(to);
    }
    staged.commit().map_err(|source| Error::io("replace", &path, source))?;
    report.rebuilt.push(path);
    report.warnings.push(
        "MANIFEST was made anew from data files, which do not have the names of keyspaces: those whose names are \
         lost are called recovered-1 and so on, after their numbers"
            .to_owned(),
    );
    Ok(())
}
