//! Commands on times to live: `expire`, `ttl`, `persist`.

use std::time::Duration;

use serde_json::json;

use super::args::{KeyspaceArgs, StoreArgs, Text};
use super::failure::{Failure, Outcome};
use super::output::Output;
use super::point::missing;
use super::store::{open_space_existing, open_space_to_look};
use crate::Ttl;

#[derive(clap::Args)]
pub(super) struct ExpireArgs {
    key: Text,
    /// As `90s`, `15m`, `1h 30m` or `7days`.
    #[arg(value_parser = parse_ttl)]
    ttl: Duration,
    #[command(flatten)]
    keyspace: KeyspaceArgs,
}

#[derive(clap::Args)]
pub(super) struct TtlArgs {
    key: Text,
    #[command(flatten)]
    keyspace: KeyspaceArgs,
}

#[derive(clap::Args)]
pub(super) struct PersistArgs {
    key: Text,
    #[command(flatten)]
    keyspace: KeyspaceArgs,
}

/// A time with its unit; the engine says what it thinks of zero, and of too much.
pub(super) fn parse_ttl(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

pub(super) async fn expire(
    store: &StoreArgs,
    args: &ExpireArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let db = open_space_existing(store, &args.keyspace).await?;
    let is_there = db.expire(&args.key.0, args.ttl).await?;
    db.close().await?;
    if output.is_json() {
        output.json(&json!({ "expires": is_there }))?;
    }
    Ok(if is_there { Outcome::Done } else { missing(&args.key) })
}

pub(super) async fn ttl(
    store: &StoreArgs,
    args: &TtlArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let db = open_space_to_look(store, &args.keyspace).await?;
    let ttl = db.ttl(&args.key.0).await?;
    db.close().await?;
    let (text, left_ms) = match ttl {
        Ttl::Missing => return Ok(missing(&args.key)),
        Ttl::Forever => ("forever".to_owned(), None),
        Ttl::Left(left) => {
            (humantime::format_duration(left).to_string(), Some(left.as_millis() as u64))
        }
    };
    if output.is_json() {
        output.json(&json!({ "left_ms": left_ms }))?;
    } else {
        output.line(text)?;
    }
    Ok(Outcome::Done)
}

pub(super) async fn persist(
    store: &StoreArgs,
    args: &PersistArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let db = open_space_existing(store, &args.keyspace).await?;
    let is_there = db.contains_key(&args.key.0).await?;
    let was_mortal = db.persist(&args.key.0).await?;
    db.close().await?;
    if output.is_json() {
        output.json(&json!({ "persisted": was_mortal }))?;
    }
    Ok(if is_there { Outcome::Done } else { missing(&args.key) })
}
