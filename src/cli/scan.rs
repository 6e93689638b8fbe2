//! Commands that walk keys: `scan` and `count`.

use std::ops::Bound;

use serde_json::json;

use super::args::{StoreArgs, Text};
use super::failure::{Failure, Outcome};
use super::format::Format;
use super::output::Output;
use super::store::open_to_look;
use crate::Db;

#[derive(clap::Args)]
pub(super) struct ScanArgs {
    /// Only keys that begin with this.
    #[arg(long)]
    prefix: Option<Text>,
    /// Only keys from this one on.
    #[arg(long)]
    from: Option<Text>,
    /// Only keys before this one.
    #[arg(long)]
    to: Option<Text>,
    /// From the last key to the first.
    #[arg(long)]
    reverse: bool,
    /// At most this many.
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// Print no values.
    #[arg(long)]
    keys_only: bool,
}

#[derive(clap::Args)]
pub(super) struct CountArgs {
    /// Only keys that begin with this.
    #[arg(long)]
    prefix: Option<Text>,
}

pub(super) async fn scan(
    store: &StoreArgs,
    args: &ScanArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let db = open_to_look(store).await?;
    let format = if output.is_json() { Format::Json } else { Format::Tsv };
    let mut line = Vec::new();
    if args.keys_only {
        let mut keys = args.scan(&db).keys();
        while let Some(key) = keys.next().await {
            line.clear();
            format.encode_key(&key?, &mut line);
            output.bytes(&line)?;
        }
    } else {
        let mut entries = args.scan(&db);
        while let Some(entry) = entries.next().await {
            let (key, value) = entry?;
            line.clear();
            format.encode(&key, &value, &mut line);
            output.bytes(&line)?;
        }
    }
    db.close().await?;
    Ok(Outcome::Done)
}

pub(super) async fn count(
    store: &StoreArgs,
    args: &CountArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let db = open_to_look(store).await?;
    let count = match &args.prefix {
        None => db.stats().total().keys,
        Some(prefix) => count_prefix(&db, prefix).await?,
    };
    db.close().await?;
    if output.is_json() {
        output.json(&json!({ "count": count }))?;
    } else {
        output.line(count)?;
    }
    Ok(Outcome::Done)
}

impl ScanArgs {
    fn scan(&self, db: &Db) -> crate::Scan {
        let from = self.from.as_ref().map_or(Bound::Unbounded, |from| Bound::Included(&from.0));
        let to = self.to.as_ref().map_or(Bound::Unbounded, |to| Bound::Excluded(&to.0));
        let mut scan = db.scan().range::<&Vec<u8>>((from, to));
        if let Some(prefix) = &self.prefix {
            scan = scan.prefix(&prefix.0);
        }
        if self.reverse {
            scan = scan.reverse();
        }
        if let Some(limit) = self.limit {
            scan = scan.limit(limit);
        }
        scan
    }
}

async fn count_prefix(db: &Db, prefix: &Text) -> Result<u64, Failure> {
    let mut keys = db.scan().prefix(&prefix.0).keys();
    let mut count = 0;
    while let Some(key) = keys.next().await {
        key?;
        count += 1;
    }
    Ok(count)
}
