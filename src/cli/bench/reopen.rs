//! How long opening takes.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Options;
use crate::cli::failure::Failure;
use crate::log::format::data_header::FileKind;
use crate::log::layout;

/// What opening the store took, and what there was to read.
pub(super) struct Reopened {
    pub(super) keys: u64,
    pub(super) log_bytes: u64,
    pub(super) with_hints: Duration,
    pub(super) without_hints: Duration,
}

/// Opens the store twice; its files are in the page cache, as far as they fit.
pub(super) async fn measure(options: &Options, dir: &Path) -> Result<Reopened, Failure> {
    let started = Instant::now();
    let db = options.clone().open(dir).await?;
    let with_hints = started.elapsed();
    let total = db.stats().total();
    db.close().await?;
    remove_hints(dir)
        .map_err(|error| Failure::io(format_args!("remove hints in {}", dir.display()), &error))?;
    let started = Instant::now();
    let db = options.clone().open(dir).await?;
    let without_hints = started.elapsed();
    db.close().await?;
    Ok(Reopened { keys: total.keys, log_bytes: total.log_bytes, with_hints, without_hints })
}

fn remove_hints(dir: &Path) -> std::io::Result<()> {
    for partition in std::fs::read_dir(dir)? {
        let partition = partition?;
        if layout::parse_partition_dir_name(&partition.file_name().to_string_lossy()).is_none() {
            continue;
        }
        for file in std::fs::read_dir(partition.path())? {
            let file = file?;
            let parsed = layout::parse_file_name(&file.file_name().to_string_lossy());
            if matches!(parsed, Some((_, FileKind::Hint))) {
                std::fs::remove_file(file.path())?;
            }
        }
    }
    Ok(())
}
