//! `compact` and `sync`: what the engine does by itself, on request.

use indicatif::HumanBytes;
use serde_json::json;

use super::args::StoreArgs;
use super::failure::{Failure, Outcome};
use super::output::Output;
use super::progress;
use super::store::open_existing;

pub(super) async fn compact(store: &StoreArgs, output: &mut Output) -> Result<Outcome, Failure> {
    let db = open_existing(store).await?;
    let spinner = progress::waiting("compacting");
    let compacted = db.compact().await;
    spinner.finish_and_clear();
    db.close().await?;
    let done = compacted?;
    if output.is_json() {
        output.json(&json!({
            "files_removed": done.files_removed,
            "files_written": done.files_written,
            "bytes_removed": done.bytes_removed,
            "bytes_written": done.bytes_written,
            "records_kept": done.records_kept,
            "records_dropped": done.records_dropped,
        }))?;
    } else if done.files_removed == 0 {
        output.line(format_args!("nothing to give back"))?;
    } else {
        let freed = done.bytes_removed.saturating_sub(done.bytes_written);
        output.line(format_args!(
            "gave back {}: {} records dropped, {} copied, {} files became {}",
            HumanBytes(freed),
            done.records_dropped,
            done.records_kept,
            done.files_removed,
            done.files_written
        ))?;
    }
    Ok(Outcome::Done)
}

/// Opening a store makes durable what it finds, and closing it what it wrote.
pub(super) async fn sync(store: &StoreArgs, output: &mut Output) -> Result<Outcome, Failure> {
    let db = open_existing(store).await?;
    let synced = db.sync().await;
    db.close().await?;
    synced?;
    if output.is_json() {
        output.json(&json!({ "synced": true }))?;
    }
    Ok(Outcome::Done)
}
