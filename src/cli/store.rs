//! Opening the store that `--dir` names.

use std::path::Path;

use super::args::{CompressionArgs, StoreArgs};
use super::failure::Failure;
use crate::{Compaction, Db, Options};

/// For commands that write: a store is created if there is none.
pub(super) async fn open_to_write(args: &StoreArgs) -> Result<Db, Failure> {
    Ok(options(args).open(dir(args)?).await?)
}

/// For commands that write values, compressed as they are told to.
pub(super) async fn open_to_put(
    args: &StoreArgs,
    compression: &CompressionArgs,
) -> Result<Db, Failure> {
    let options = options(args).compression(compression.compression);
    Ok(options.open(dir(args)?).await?)
}

/// For commands that only look (C1): they are gone before compaction could finish what it began.
pub(super) async fn open_to_look(args: &StoreArgs) -> Result<Db, Failure> {
    let options = options(args).create_if_missing(false).compaction(Compaction::off());
    Ok(options.open(dir(args)?).await?)
}

pub(super) fn options(args: &StoreArgs) -> Options {
    Options::new().io(args.io.into()).value_len_max(args.value_len_max)
}

pub(super) fn dir(args: &StoreArgs) -> Result<&Path, Failure> {
    args.dir.as_deref().ok_or_else(|| {
        Failure::Usage("no store is named; give --dir DIR or set RINGCASK_DIR".to_owned())
    })
}
