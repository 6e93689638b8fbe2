//! `keyspaces`, `clear`, `drop-keyspace`: which there are, and how they become empty, or go.

use serde_json::json;

use super::args::{KeyspaceArgs, StoreArgs};
use super::failure::{Failure, Outcome};
use super::output::Output;
use super::store::{open_existing, open_space_existing, open_to_look};

#[derive(clap::Args)]
pub(super) struct ClearArgs {
    #[command(flatten)]
    keyspace: KeyspaceArgs,
}

#[derive(clap::Args)]
pub(super) struct DropArgs {
    /// Of the keyspace.
    name: String,
}

pub(super) async fn list(store: &StoreArgs, output: &mut Output) -> Result<Outcome, Failure> {
    let db = open_to_look(store).await?;
    let names = db.keyspaces();
    db.close().await?;
    if output.is_json() {
        output.json(&json!({ "keyspaces": names }))?;
    } else {
        for name in names {
            output.line(name)?;
        }
    }
    Ok(Outcome::Done)
}

pub(super) async fn clear(
    store: &StoreArgs,
    args: &ClearArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let db = open_space_existing(store, &args.keyspace).await?;
    db.clear().await?;
    db.close().await?;
    if output.is_json() {
        output.json(&json!({ "cleared": args.keyspace.name }))?;
    }
    Ok(Outcome::Done)
}

pub(super) async fn drop_one(
    store: &StoreArgs,
    args: &DropArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let db = open_existing(store).await?;
    let was_there = db.drop_keyspace(&args.name).await?;
    db.close().await?;
    if output.is_json() {
        output.json(&json!({ "dropped": was_there }))?;
    } else if !was_there {
        eprintln!("ringcask: {}: no such keyspace", args.name);
    }
    Ok(if was_there { Outcome::Done } else { Outcome::NotFound })
}
