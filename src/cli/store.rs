//! Opening the store that `--dir` names.

use std::path::Path;

use super::args::{CompressionArgs, KeyspaceArgs, StoreArgs};
use super::failure::Failure;
use crate::{Compaction, Db, Options};

/// For commands that write: a store is created if there is none.
pub(super) async fn open_to_write(args: &StoreArgs) -> Result<Db, Failure> {
    Ok(options(args).open(dir(args)?).await?)
}

/// For commands that put values into a keyspace, compressed as they are told to.
pub(super) async fn open_space_to_put(
    args: &StoreArgs,
    compression: &CompressionArgs,
    keyspace: &KeyspaceArgs,
) -> Result<Db, Failure> {
    let options = options(args).compression(compression.compression);
    let db = options.open(dir(args)?).await?;
    space_of(db, keyspace).await
}

/// For commands that only look (C1): they are gone before compaction could finish what it began.
pub(super) async fn open_to_look(args: &StoreArgs) -> Result<Db, Failure> {
    let options = options(args).create_if_missing(false).compaction(Compaction::off());
    Ok(options.open(dir(args)?).await?)
}

/// For commands that write into a keyspace, which is created if there is none.
pub(super) async fn open_space_to_write(
    args: &StoreArgs,
    keyspace: &KeyspaceArgs,
) -> Result<Db, Failure> {
    let db = open_to_write(args).await?;
    space_of(db, keyspace).await
}

/// For commands that only look at a keyspace, and create none (C1).
pub(super) async fn open_space_to_look(
    args: &StoreArgs,
    keyspace: &KeyspaceArgs,
) -> Result<Db, Failure> {
    let db = open_to_look(args).await?;
    if let Some(name) = &keyspace.name
        && !db.keyspaces().contains(name)
    {
        return Err(Failure::Failed(format!("the store has no keyspace {name:?}")));
    }
    space_of(db, keyspace).await
}

async fn space_of(db: Db, keyspace: &KeyspaceArgs) -> Result<Db, Failure> {
    match &keyspace.name {
        Some(name) => Ok(Db::clone(&*db.keyspace(name).await?)),
        None => Ok(db),
    }
}

pub(super) fn options(args: &StoreArgs) -> Options {
    Options::new().io(args.io.into()).value_len_max(args.value_len_max)
}

pub(super) fn dir(args: &StoreArgs) -> Result<&Path, Failure> {
    args.dir.as_deref().ok_or_else(|| {
        Failure::Usage("no store is named; give --dir DIR or set RINGCASK_DIR".to_owned())
    })
}
