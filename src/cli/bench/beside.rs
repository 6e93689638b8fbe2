//! What goes on beside the mix, again and again, so that its price shows in the latencies.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use futures::executor::block_on;

use crate::cli::failure::Failure;
use crate::{Db, Result};

/// Between two backups, and how long a snapshot lives.
const PERIOD: Duration = Duration::from_secs(1);
/// Between two looks whether the mix is over.
const LOOK_EVERY: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Beside {
    /// Scans of everything.
    Scan,
    /// Scans of all keys.
    ScanKeys,
    /// Snapshots that live for a second each.
    Snapshot,
    /// Backups into a directory beside the store's, one a second; the first links or copies everything.
    Backup,
}

impl Beside {
    pub(super) fn name(self) -> &'static str {
        match self {
            Beside::Scan => "scan",
            Beside::ScanKeys => "scan-keys",
            Beside::Snapshot => "snapshot",
            Beside::Backup => "backup",
        }
    }
}

/// How often it was done, and what that came to.
#[derive(Default)]
pub(super) struct Done {
    pub(super) times: u64,
    /// Keys passed, or files placed.
    pub(super) count: u64,
    pub(super) longest: Duration,
}

/// A directory for backups of a bench's store, which is removed in the end.
pub(super) struct BackupDirectory(pub(super) PathBuf);

impl BackupDirectory {
    /// Beside the store's, so that files can have names in both.
    pub(super) fn beside(store: &Path) -> std::result::Result<BackupDirectory, Failure> {
        let path = PathBuf::from(format!("{}.backup-{}", store.display(), std::process::id()));
        if path.exists() {
            return Err(Failure::Failed(format!("{}: it is there already", path.display())));
        }
        Ok(BackupDirectory(path))
    }
}

impl Drop for BackupDirectory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0)
            && self.0.exists()
        {
            tracing::warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Runs the mix with that beside it.
pub(super) fn run_beside<T>(
    what: Option<Beside>,
    db: &Db,
    store: &Path,
    mix: impl FnOnce() -> std::result::Result<T, Failure>,
) -> std::result::Result<(T, Option<Done>), Failure> {
    let Some(what) = what else { return Ok((mix()?, None)) };
    let backup = BackupDirectory::beside(store)?;
    let is_over = AtomicBool::new(false);
    let (mixed, done) = std::thread::scope(|scope| {
        let beside = scope.spawn(|| repeat(what, db, &backup.0, &is_over));
        let mixed = mix();
        is_over.store(true, Ordering::Relaxed);
        let done = match beside.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        (mixed, done)
    });
    Ok((mixed?, Some(done?)))
}

fn repeat(what: Beside, db: &Db, backup: &Path, is_over: &AtomicBool) -> Result<Done> {
    let is_over = || is_over.load(Ordering::Relaxed);
    let mut done = Done::default();
    while !is_over() {
        let started = Instant::now();
        let is_whole = match what {
            Beside::Scan => {
                let mut scan = db.scan();
                walk(is_over, &mut done.count, || {
                    block_on(scan.next()).map(|entry| entry.map(drop))
                })?
            }
            Beside::ScanKeys => {
                let mut keys = db.scan().keys();
                walk(is_over, &mut done.count, || block_on(keys.next()).map(|key| key.map(drop)))?
            }
            Beside::Snapshot => {
                let snapshot = block_on(db.snapshot())?;
                done.longest = done.longest.max(started.elapsed());
                rest(PERIOD, is_over);
                drop(snapshot);
                done.times += 1;
                continue;
            }
            Beside::Backup => {
                let report = block_on(db.backup(backup))?;
                done.count += report.files_linked + report.files_copied;
                true
            }
        };
        if is_whole {
            done.times += 1;
            done.longest = done.longest.max(started.elapsed());
        }
        if what == Beside::Backup {
            rest(PERIOD, is_over);
        }
    }
    Ok(done)
}

/// Takes entries until there are no more, which is true, or until it is over.
fn walk(
    is_over: impl Fn() -> bool,
    count: &mut u64,
    mut next: impl FnMut() -> Option<Result<()>>,
) -> Result<bool> {
    while let Some(entry) = next() {
        entry?;
        *count += 1;
        if count.is_multiple_of(1024) && is_over() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn rest(time: Duration, is_over: impl Fn() -> bool) {
    let until = Instant::now() + time;
    while Instant::now() < until && !is_over() {
        std::thread::sleep(LOOK_EVERY);
    }
}
