//! `dump`: every record as a line, in order of key, with the time it expires.

use bytes::Bytes;
use futures::StreamExt;

use super::args::{KeyspaceArgs, StoreArgs};
use super::failure::{Failure, Outcome};
use super::format::{Format, epoch_ms};
use super::output::Output;
use super::progress;
use super::store::open_space_to_look;
use crate::{Db, EntryInfo, Result};

/// Records read at the same time: few, because their values may be long.
const READ_AHEAD: usize = 8;

#[derive(clap::Args)]
pub(super) struct DumpArgs {
    /// What a line looks like.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    #[command(flatten)]
    keyspace: KeyspaceArgs,
}

pub(super) async fn dump(
    store: &StoreArgs,
    args: &DumpArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let db = open_space_to_look(store, &args.keyspace).await?;
    let progress = if output.is_terminal() {
        indicatif::ProgressBar::hidden()
    } else {
        progress::records("dump", db.stats().total().keys)
    };
    let mut line = Vec::new();
    let read = |key: Result<Bytes>| read(&db, key);
    let mut entries = db.scan().keys().map(read).buffered(READ_AHEAD);
    while let Some(entry) = entries.next().await {
        // Deleted since its key was found.
        let Some((key, value, info)) = entry? else { continue };
        line.clear();
        let expires_at_ms = info.expires_at.and_then(epoch_ms);
        args.format.encode(&key, &value, expires_at_ms, &mut line);
        output.bytes(&line)?;
        progress.inc(1);
    }
    drop(entries);
    progress.finish_and_clear();
    db.close().await?;
    Ok(Outcome::Done)
}

async fn read(db: &Db, key: Result<Bytes>) -> Result<Option<(Bytes, Bytes, EntryInfo)>> {
    let key = key?;
    Ok(db.get_with_info(&key).await?.map(|(value, info)| (key, value, info)))
}
