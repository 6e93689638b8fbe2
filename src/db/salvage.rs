//! Opening a damaged store by repairing it first, for whoever asked for that.

use std::path::Path;

use super::Db;
use super::repair::repair_blocking;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::report::RepairReport;

/// Findings that are told one by one.
const TOLD_MAX: usize = 100;

impl Db {
    /// What a repair found and did when the store was opened, if it was damaged and
    /// [`Options::salvage`] was set.
    ///
    /// # Example: a store that lost a file
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path();
    /// use ringcask::{Db, Options};
    /// let db = Options::new().partitions(1).open(path).await?;
    /// db.put("k", "v").await?;
    /// db.close().await?;
    /// std::fs::remove_file(path.join("partition-000/000000001.data")).unwrap();
    ///
    /// assert!(Db::open(path).await.unwrap_err().is_corrupt());
    /// let db = Options::new().salvage(true).open(path).await?;
    /// let report = db.salvaged().expect("it was damaged");
    /// assert_eq!((report.missing.len(), report.records_lost), (1, 1));
    /// # db.close().await }).unwrap();
    /// ```
    pub fn salvaged(&self) -> Option<&RepairReport> {
        self.shared.salvaged.as_ref()
    }
}

/// Repairs the store that could not be opened; `None` if there was nothing to repair.
pub(super) fn salvage(
    options: &Options,
    path: &Path,
    refused: &Error,
) -> Result<Option<RepairReport>> {
    tracing::warn!(%refused, "the store is damaged and is repaired");
    let report = repair_blocking(options, path, &|_, _| ())?;
    if !report.is_changed() {
        return Ok(None);
    }
    for damage in report.found.damage.iter().take(TOLD_MAX) {
        tracing::warn!("{damage}");
    }
    for warning in &report.warnings {
        tracing::warn!("{warning}");
    }
    tracing::warn!(
        path = %path.display(),
        damaged_ranges = report.found.damage_count(),
        records_kept = report.records_kept,
        records_lost = report.records_lost,
        set_aside = report.set_aside.len(),
        missing = report.missing.len(),
        "what is sound was kept"
    );
    Ok(Some(report))
}
