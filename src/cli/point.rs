//! Commands on single keys: `put`, `get`, `del`, `exists`, `incr`.

use std::io::Read;
use std::ops::Bound;
use std::time::Duration;

use serde_json::json;

use super::args::{CompressionArgs, KeyspaceArgs, StoreArgs, Text};
use super::expiry::parse_ttl;
use super::failure::{Failure, Outcome};
use super::format::{JsonRecord, JsonText};
use super::output::Output;
use super::store::{
    open_space_existing, open_space_to_look, open_space_to_put, open_space_to_write,
};

#[derive(clap::Args)]
pub(super) struct PutArgs {
    /// 1 to 65,535 bytes.
    key: Text,
    /// The value, or `-` for the bytes of standard input.
    #[arg(allow_hyphen_values = true)]
    value: Text,
    /// Gone after this time, as `90s`, `15m`, `1h 30m` or `7days`.
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    ttl: Option<Duration>,
    #[command(flatten)]
    compression: CompressionArgs,
    #[command(flatten)]
    keyspace: KeyspaceArgs,
}

#[derive(clap::Args)]
pub(super) struct GetArgs {
    key: Text,
    #[command(flatten)]
    keyspace: KeyspaceArgs,
}

#[derive(clap::Args)]
pub(super) struct DelArgs {
    #[arg(required_unless_present_any = ["prefix", "from", "to"], value_name = "KEY")]
    keys: Vec<Text>,
    /// Instead of keys: every key that begins with this.
    #[arg(long, conflicts_with_all = ["keys", "from", "to"])]
    prefix: Option<Text>,
    /// Instead of keys: every key from this one on.
    #[arg(long, conflicts_with = "keys")]
    from: Option<Text>,
    /// Instead of keys: every key before this one.
    #[arg(long, conflicts_with = "keys")]
    to: Option<Text>,
    #[command(flatten)]
    keyspace: KeyspaceArgs,
}

#[derive(clap::Args)]
pub(super) struct ExistsArgs {
    key: Text,
    #[command(flatten)]
    keyspace: KeyspaceArgs,
}

#[derive(clap::Args)]
pub(super) struct IncrArgs {
    /// An absent key counts as zero.
    key: Text,
    #[arg(value_name = "N", default_value_t = 1, allow_hyphen_values = true)]
    by: i64,
    #[command(flatten)]
    keyspace: KeyspaceArgs,
}

pub(super) async fn put(
    store: &StoreArgs,
    args: &PutArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    // Read first: a store is not locked while somebody types.
    let value = match args.value.0.as_slice() {
        b"-" => read_stdin(store.value_len_max)?,
        value => value.to_vec(),
    };
    let db = open_space_to_put(store, &args.compression, &args.keyspace).await?;
    let put = db.put(&args.key.0, value);
    match args.ttl {
        Some(ttl) => put.ttl(ttl).await?,
        None => put.await?,
    }
    db.close().await?;
    if output.is_json() {
        output.json(&json!({ "put": 1 }))?;
    }
    Ok(Outcome::Done)
}

pub(super) async fn get(
    store: &StoreArgs,
    args: &GetArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let db = open_space_to_look(store, &args.keyspace).await?;
    let value = db.get(&args.key.0).await?;
    db.close().await?;
    if output.is_json() {
        let value = value.as_deref().map(JsonText);
        output.json(&JsonRecord { key: JsonText(&args.key.0), value: &value })?;
    } else if let Some(value) = &value {
        output.bytes(value)?;
        if output.is_terminal() {
            output.bytes(b"\n")?;
        }
    }
    if value.is_some() { Ok(Outcome::Done) } else { Ok(missing(&args.key)) }
}

pub(super) async fn del(
    store: &StoreArgs,
    args: &DelArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    // Deleting creates nothing, so neither a store (C1).
    let db = open_space_existing(store, &args.keyspace).await?;
    if args.keys.is_empty() {
        if let Some(prefix) = &args.prefix {
            db.delete_prefix(&prefix.0).await?;
        } else {
            let from = args.from.as_ref().map_or(Bound::Unbounded, |from| Bound::Included(&from.0));
            let to = args.to.as_ref().map_or(Bound::Unbounded, |to| Bound::Excluded(&to.0));
            db.delete_range::<&Vec<u8>>((from, to)).await?;
        }
        db.close().await?;
        if output.is_json() {
            // How many there were nobody knows: they were not looked at.
            output.json(&json!({ "deleted": "range" }))?;
        }
        return Ok(Outcome::Done);
    }
    let mut deleted_count = 0;
    for key in &args.keys {
        deleted_count += usize::from(db.del(&key.0).await?);
    }
    db.close().await?;
    let missing_count = args.keys.len() - deleted_count;
    if output.is_json() {
        output.json(&json!({ "deleted": deleted_count, "missing": missing_count }))?;
    } else {
        output.line(format_args!("deleted {deleted_count} of {}", args.keys.len()))?;
    }
    Ok(if missing_count == 0 { Outcome::Done } else { Outcome::NotFound })
}

pub(super) async fn exists(
    store: &StoreArgs,
    args: &ExistsArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let db = open_space_to_look(store, &args.keyspace).await?;
    let exists = db.contains_key(&args.key.0).await?;
    db.close().await?;
    if output.is_json() {
        output.json(&json!({ "exists": exists }))?;
    } else {
        output.line(exists)?;
    }
    Ok(if exists { Outcome::Done } else { Outcome::NotFound })
}

pub(super) async fn incr(
    store: &StoreArgs,
    args: &IncrArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let db = open_space_to_write(store, &args.keyspace).await?;
    let sum = db.incr(&args.key.0, args.by).await?;
    db.close().await?;
    if output.is_json() {
        output.json(&json!({ "sum": sum }))?;
    } else {
        output.line(sum)?;
    }
    Ok(Outcome::Done)
}

/// Says that there is no such key.
pub(super) fn missing(key: &Text) -> Outcome {
    eprintln!("ringcask: {}: no such key", String::from_utf8_lossy(&key.0));
    Outcome::NotFound
}

/// At most one byte more than a value may have (C3).
fn read_stdin(value_len_max: usize) -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    let mut input = std::io::stdin().lock().take(value_len_max as u64 + 1);
    input.read_to_end(&mut value).map_err(|source| Failure::io("read standard input", &source))?;
    if value.len() > value_len_max {
        return Err(Failure::Failed(format!(
            "standard input is longer than --value-len-max, {value_len_max} bytes"
        )));
    }
    Ok(value)
}
