//! Opening the store that `--dir` names.

use std::path::Path;

use super::args::{CompressionArgs, KeyspaceArgs, StoreArgs};
use super::failure::Failure;
use crate::{Compaction, Db, Options};

/// For commands that write: a store is created if there is none.
pub(super) async fn open_to_write(args: &StoreArgs) -> Result<Db, Failure> {
    Ok(options(args)?.open(dir(args)?).await?)
}

/// For commands that put values into a keyspace, compressed as they are told to.
pub(super) async fn open_space_to_put(
    args: &StoreArgs,
    compression: &CompressionArgs,
    keyspace: &KeyspaceArgs,
) -> Result<Db, Failure> {
    let options = options(args)?.compression(compression.compression);
    let db = options.open(dir(args)?).await?;
    space_of(db, keyspace).await
}

/// For commands that only look (C1), and change nothing.
pub(super) async fn open_to_look(args: &StoreArgs) -> Result<Db, Failure> {
    Ok(options(args)?.read_only(true).open(dir(args)?).await?)
}

/// For commands that change what is there, and create no store (C1): they are gone before compaction could finish
/// what it began.
pub(super) async fn open_existing(args: &StoreArgs) -> Result<Db, Failure> {
    let options = options(args)?.create_if_missing(false).compaction(Compaction::off());
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
    space_that_is_there(db, keyspace).await
}

/// For commands that change what is in a keyspace, and create none (C1).
pub(super) async fn open_space_existing(
    args: &StoreArgs,
    keyspace: &KeyspaceArgs,
) -> Result<Db, Failure> {
    let db = open_existing(args).await?;
    space_that_is_there(db, keyspace).await
}

async fn space_that_is_there(db: Db, keyspace: &KeyspaceArgs) -> Result<Db, Failure> {
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

pub(super) fn options(args: &StoreArgs) -> Result<Options, Failure> {
    let mut options = Options::new().io(args.io.into()).value_len_max(args.value_len_max);
    for (index, path) in args.key_file.iter().enumerate() {
        let key = read_key(path)?;
        options =
            if index == 0 { options.encryption_key(key) } else { options.encryption_key_old(key) };
    }
    Ok(options)
}

fn read_key(path: &Path) -> Result<[u8; 32], Failure> {
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::io(format_args!("read {}", path.display()), &error))?;
    let parsed = <[u8; 32]>::try_from(bytes.as_slice()).ok().or_else(|| parse_key(&bytes));
    parsed.ok_or_else(|| {
        let what = format!("{}: a key is 32 bytes, or 64 hex digits", path.display());
        Failure::Failed(what)
    })
}

fn parse_key(text: &[u8]) -> Option<[u8; 32]> {
    let digits = std::str::from_utf8(text).ok()?.trim();
    let is_hex = digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let mut key = [0; 32];
    for (byte, pair) in key.iter_mut().zip(digits.as_bytes().chunks(2)).filter(|_| is_hex) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    is_hex.then_some(key)
}

pub(super) fn dir(args: &StoreArgs) -> Result<&Path, Failure> {
    args.dir.as_deref().ok_or_else(|| {
        Failure::Usage("no store is named; give --dir DIR or set RINGCASK_DIR".to_owned())
    })
}
