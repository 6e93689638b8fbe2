//! What looking at many costs: scans of everything and of a few keys, the beginning of a snapshot, a backup.

use std::path::Path;
use std::time::{Duration, Instant};

use super::beside::BackupDirectory;
use super::keys::Random;
use super::memory::resident_bytes;
use crate::Db;
use crate::cli::failure::Failure;

/// Scans of all keys; the fastest and the slowest are told too.
const SCANS: usize = 5;
/// Scans of a prefix.
const PREFIXES: usize = 1000;
const SNAPSHOTS: usize = 20;
/// Keys between two looks at the process's memory.
const MEMORY_EVERY: u64 = 1 << 16;
/// How long upkeep must have left the keys' files alone before anything is timed, and how long that is waited for.
const QUIET: Duration = Duration::from_secs(2);
const QUIET_WAIT_MAX: Duration = Duration::from_secs(120);

pub(super) struct Looked {
    pub(super) keys: u64,
    pub(super) log_bytes: u64,
    /// Sorted.
    pub(super) keys_only: Vec<Duration>,
    pub(super) with_values: Duration,
    /// Bytes of memory that a scan of all keys has added to the process, at most.
    pub(super) scan_memory: u64,
    /// Scans of all keys with one prefix, sorted, with their values.
    pub(super) prefixes: Vec<Duration>,
    /// Keys with one prefix.
    pub(super) prefix_keys: f64,
    /// Sorted.
    pub(super) snapshots: Vec<Duration>,
    /// A whole one, the files linked or copied.
    pub(super) backup: Duration,
    pub(super) backup_files: u64,
}

pub(super) async fn measure(db: &Db, store: &Path) -> Result<Looked, Failure> {
    // A scan of many files is what makes upkeep merge their keys.
    db.scan().keys().count().await?;
    settle(db);
    let mut keys_only = Vec::new();
    let (mut keys, mut scan_memory) = (0, 0);
    for _ in 0..SCANS {
        let before = resident_bytes();
        let started = Instant::now();
        let mut scan = db.scan().keys();
        keys = 0;
        while let Some(key) = scan.next().await {
            key?;
            keys += 1;
            if keys % MEMORY_EVERY == 0 {
                scan_memory = scan_memory.max(resident_bytes().saturating_sub(before));
            }
        }
        keys_only.push(started.elapsed());
    }
    keys_only.sort_unstable();
    let started = Instant::now();
    let mut scan = db.scan();
    while let Some(entry) = scan.next().await {
        entry?;
    }
    let with_values = started.elapsed();
    let (prefixes, prefix_keys) = scan_prefixes(db, keys).await?;
    let mut snapshots = Vec::new();
    for _ in 0..SNAPSHOTS {
        let started = Instant::now();
        drop(db.snapshot().await?);
        snapshots.push(started.elapsed());
    }
    snapshots.sort_unstable();
    let to = BackupDirectory::beside(store)?;
    let started = Instant::now();
    let report = db.backup(&to.0).await?;
    let backup = started.elapsed();
    Ok(Looked {
        keys,
        log_bytes: db.stats().total().log_bytes,
        keys_only,
        with_values,
        scan_memory,
        prefixes,
        prefix_keys,
        snapshots,
        backup,
        backup_files: report.files,
    })
}

/// Prefixes so long that about a hundred keys have one.
async fn scan_prefixes(db: &Db, keys: u64) -> Result<(Vec<Duration>, f64), Failure> {
    let digits = ((keys / 100).max(1).ilog2() as usize / 4).clamp(1, 15);
    let mut random = Random::new(1);
    let (mut took, mut found) = (Vec::new(), 0_u64);
    for _ in 0..PREFIXES {
        let number = format!("{:016x}", random.next_u64());
        let started = Instant::now();
        let mut scan = db.scan().prefix(format!("record:{}", &number[..digits]));
        while let Some(entry) = scan.next().await {
            entry?;
            found += 1;
        }
        took.push(started.elapsed());
    }
    took.sort_unstable();
    Ok((took, found as f64 / PREFIXES as f64))
}

/// Waits until upkeep has nothing to do any more with what scans read.
fn settle(db: &Db) {
    let now = || {
        let total = db.stats().total();
        (total.hints, total.key_runs, total.key_run_bytes, total.files, total.compactions)
    };
    let started = Instant::now();
    let (mut last, mut since) = (now(), started);
    while since.elapsed() < QUIET && started.elapsed() < QUIET_WAIT_MAX {
        std::thread::sleep(QUIET / 20);
        let now = now();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}
