//! `backup` and `restore`: a copy of the store that is a store, and back.

use std::path::PathBuf;

use indicatif::{HumanBytes, HumanCount};
use serde_json::json;

use super::args::StoreArgs;
use super::failure::{Failure, Outcome};
use super::output::Output;
use super::progress;
use super::store::{dir, open_existing, options};
use super::verify::verify_at;
use crate::BackupReport;

#[derive(clap::Args)]
pub(super) struct BackupArgs {
    /// Directory of the backup: empty, or with an earlier one of the same store.
    #[arg(value_name = "DST")]
    to: PathBuf,

    /// Copy at most this many bytes a second, where files have to be copied.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    bytes_per_sec: Option<u64>,
}

#[derive(clap::Args)]
pub(super) struct RestoreArgs {
    /// Directory of the backup.
    #[arg(value_name = "SRC")]
    from: PathBuf,

    /// Read all of the backup first, and restore nothing if anything is damaged.
    #[arg(long)]
    verify: bool,
}

pub(super) async fn backup(
    store: &StoreArgs,
    args: &BackupArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let db = open_existing(store).await?;
    let spinner = progress::waiting("backing up");
    let mut backup = db.backup(&args.to);
    if let Some(rate) = args.bytes_per_sec {
        backup = backup.bytes_per_sec(rate);
    }
    let made = backup.await;
    spinner.finish_and_clear();
    db.close().await?;
    print(&made?, output)?;
    Ok(Outcome::Done)
}

pub(super) async fn restore(
    store: &StoreArgs,
    args: &RestoreArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let into = dir(store)?;
    if args.verify && !verify_at(store, &args.from, output).await? {
        return Ok(Outcome::Damaged);
    }
    let spinner = progress::waiting("restoring");
    let restored = options(store)?.restore(&args.from, into).await;
    spinner.finish_and_clear();
    print(&restored?, output)?;
    Ok(Outcome::Done)
}

fn print(report: &BackupReport, output: &mut Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(&json!({
            "incremental": report.is_incremental,
            "files": report.files,
            "bytes": report.bytes,
            "files_linked": report.files_linked,
            "files_copied": report.files_copied,
            "bytes_copied": report.bytes_copied,
            "files_kept": report.files_kept,
            "files_removed": report.files_removed,
        }));
    }
    output.line(format_args!(
        "{} data files, {}: {} linked, {} copied ({}), {} were there, {} removed",
        HumanCount(report.files),
        HumanBytes(report.bytes),
        HumanCount(report.files_linked),
        HumanCount(report.files_copied),
        HumanBytes(report.bytes_copied),
        HumanCount(report.files_kept),
        HumanCount(report.files_removed),
    ))
}
