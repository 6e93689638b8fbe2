//! How long opening takes.

use std::time::{Duration, Instant};

use super::directory::BenchDirectory;
use crate::cli::failure::Failure;
use crate::{Options, PartitionStats};

/// What opening the store took, and what there was to read.
pub(super) struct Reopened {
    pub(super) keys: u64,
    pub(super) log_bytes: u64,
    pub(super) with_hints: Duration,
    pub(super) without_hints: Duration,
}

/// Opens the store with its hints and without, its files in the page cache as far as they fit, or all on the disk.
pub(super) async fn measure(
    options: &Options,
    directory: &BenchDirectory,
    is_cold: bool,
) -> Result<Reopened, Failure> {
    let (with_hints, total) = open_once(options, directory, is_cold).await?;
    directory.remove_hints()?;
    let (without_hints, _) = open_once(options, directory, is_cold).await?;
    let PartitionStats { keys, log_bytes, .. } = total;
    Ok(Reopened { keys, log_bytes, with_hints, without_hints })
}

async fn open_once(
    options: &Options,
    directory: &BenchDirectory,
    is_cold: bool,
) -> Result<(Duration, PartitionStats), Failure> {
    if is_cold {
        directory.drop_pages()?;
    }
    let started = Instant::now();
    let db = options.clone().open(directory.path()).await?;
    let took = started.elapsed();
    let total = db.stats().total();
    db.close().await?;
    Ok((took, total))
}
