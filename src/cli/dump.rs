//! `dump`: every record as a line, in order of key.

use super::args::{KeyspaceArgs, StoreArgs};
use super::failure::{Failure, Outcome};
use super::format::Format;
use super::output::Output;
use super::progress;
use super::store::open_space_to_look;

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
    let mut entries = db.scan();
    while let Some(entry) = entries.next().await {
        let (key, value) = entry?;
        line.clear();
        args.format.encode(&key, &value, &mut line);
        output.bytes(&line)?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    db.close().await?;
    Ok(Outcome::Done)
}
