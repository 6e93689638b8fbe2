//! Commands that walk keys: `scan` and `count`.

use std::ops::Bound;
use std::str::FromStr;

use serde_json::json;

use super::args::{KeyspaceArgs, StoreArgs, Text};
use super::failure::{Failure, Outcome};
use super::format::Format;
use super::output::Output;
use super::store::open_space_to_look;
use crate::{Cursor, Db};

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
    /// Print one page, at most 1000 unless --limit says else: the first for `start`, or the one that a cursor
    /// leads to. The cursor of the next page is printed on standard error, or with --json in a last line
    /// {"next":…}.
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<PageStart>,
    #[command(flatten)]
    keyspace: KeyspaceArgs,
}

/// Where a page begins.
#[derive(Clone)]
struct PageStart(Option<Cursor>);

impl FromStr for PageStart {
    type Err = crate::Error;

    fn from_str(text: &str) -> crate::Result<PageStart> {
        Ok(PageStart(if text == "start" { None } else { Some(text.parse()?) }))
    }
}

#[derive(clap::Args)]
pub(super) struct CountArgs {
    /// Only keys that begin with this.
    #[arg(long)]
    prefix: Option<Text>,
    #[command(flatten)]
    keyspace: KeyspaceArgs,
}

pub(super) async fn scan(
    store: &StoreArgs,
    args: &ScanArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let db = open_space_to_look(store, &args.keyspace).await?;
    let format = if output.is_json() { Format::Json } else { Format::Tsv };
    let mut line = Vec::new();
    if let Some(PageStart(cursor)) = &args.cursor {
        let mut show = |key: &[u8], value: Option<&[u8]>| {
            line.clear();
            match value {
                Some(value) => format.encode(key, value, None, &mut line),
                None => format.encode_key(key, &mut line),
            }
            output.bytes(&line)
        };
        let next = page(args.scan(&db), args.keys_only, cursor.as_ref(), &mut show).await?;
        print_next(next.as_ref(), output)?;
    } else if args.keys_only {
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
            format.encode(&key, &value, None, &mut line);
            output.bytes(&line)?;
        }
    }
    db.close().await?;
    Ok(Outcome::Done)
}

/// Prints a key, and its value unless only keys were asked for.
type Show<'s> = dyn FnMut(&[u8], Option<&[u8]>) -> Result<(), Failure> + 's;

/// Shows the entries of one page; returns where the next one begins.
async fn page(
    scan: crate::Scan,
    is_keys_only: bool,
    cursor: Option<&Cursor>,
    show: &mut Show<'_>,
) -> Result<Option<Cursor>, Failure> {
    if is_keys_only {
        let page = scan.keys().page(cursor).await?;
        page.entries.iter().try_for_each(|key| show(key, None))?;
        return Ok(page.next);
    }
    let page = scan.page(cursor).await?;
    page.entries.iter().try_for_each(|(key, value)| show(key, Some(value)))?;
    Ok(page.next)
}

fn print_next(next: Option<&Cursor>, output: &mut Output) -> Result<(), Failure> {
    let next = next.map(Cursor::to_string);
    if output.is_json() {
        return output.json(&json!({ "next": next }));
    }
    if let Some(next) = next {
        output.flush()?;
        eprintln!("next: {next}");
    }
    Ok(())
}

pub(super) async fn count(
    store: &StoreArgs,
    args: &CountArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let db = open_space_to_look(store, &args.keyspace).await?;
    let count = match &args.prefix {
        None => db.count().await?,
        Some(prefix) => db.scan().prefix(&prefix.0).count().await?,
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
