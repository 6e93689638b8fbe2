//! Verify: read everything, change nothing, say what is wrong.

use std::path::Path;

use super::Db;
use super::examine::{Access, ManifestState, Progress, examine_store, on_own_thread};
use crate::error::Result;
use crate::log::layout;
use crate::options::Options;
use crate::report::{Damage, VerifyReport};

impl Db {
    /// Reads every byte of the store at `path`, which must not be open, and reports what is damaged.
    ///
    /// Every checksum of every file that counts is checked, from the drive rather than from memory where
    /// the kernel allows it, and damage ends nothing: what follows it is read too. Nothing is changed, not
    /// even what the next open would clean up; only the empty file `LOCK` is created if there is none. A
    /// store that is sound by this report opens, and every one of its values can be read.
    ///
    /// Hint files are read too. One that the next open ignores and makes anew, because it is damaged or belongs
    /// to another state of its data file, is listed and is no damage. One whose checksums hold and that
    /// contradicts its data file is damage: opening would believe it.
    ///
    /// A file or block that the operating system refuses to read is reported as damage.
    ///
    /// # Errors
    /// `Locked` while an instance holds the store; `NotAStore` if there is none; `Io` if its directory or
    /// MANIFEST cannot be read for want of permission. Damage is no error, it is what the report is for.
    ///
    /// # Example: a store after a clean close
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path();
    /// use ringcask::Db;
    /// let db = Db::open(path).await?;
    /// db.put("k", "v").await?;
    /// db.close().await?;
    ///
    /// let report = Db::verify(path).await?;
    /// assert!(report.is_sound(), "{:?}", report.damage);
    /// assert_eq!(report.records, 1);
    /// # Ok::<(), ringcask::Error>(()) }).unwrap();
    /// ```
    pub async fn verify(path: impl AsRef<Path>) -> Result<VerifyReport> {
        Options::new().verify(path).await
    }
}

impl Options {
    /// As [`Db::verify`], on the disk and with the patience for the lock that these options say. The other
    /// settings do not matter.
    ///
    /// # Errors
    /// As [`Db::verify`].
    pub async fn verify(self, path: impl AsRef<Path>) -> Result<VerifyReport> {
        self.verify_with(path.as_ref(), |_, _| ()).await
    }

    /// Also tells `progress` how many bytes of how many were read.
    pub(crate) async fn verify_with(
        self,
        path: &Path,
        progress: impl Fn(u64, u64) + Send + Sync + 'static,
    ) -> Result<VerifyReport> {
        let store = path.to_owned();
        on_own_thread("verify", path, move || verify(&self, &store, &progress)).await
    }
}

fn verify(options: &Options, path: &Path, progress: &Progress) -> Result<VerifyReport> {
    let mut store = examine_store(options, path, Access::Read, progress)?;
    if let ManifestState::Lost = store.manifest {
        let what = "no data file says what was in it either, so no other file could be judged";
        let path = store.root.join(layout::MANIFEST);
        store.report.add_damage(Damage::new(&path, 0, None, what));
    }
    Ok(store.report)
}
