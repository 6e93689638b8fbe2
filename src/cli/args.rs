//! What can be said on the command line.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use clap::{Parser, Subcommand, ValueEnum};

use super::backup::{BackupArgs, RestoreArgs};
use super::bench::BenchArgs;
use super::changes::ChangesArgs;
use super::dump::DumpArgs;
use super::expiry::{ExpireArgs, PersistArgs, TtlArgs};
use super::inspect::InspectArgs;
use super::keyspaces::{ClearArgs, DropArgs};
use super::load::LoadArgs;
use super::point::{DelArgs, ExistsArgs, GetArgs, IncrArgs, PutArgs};
use super::repartition::RepartitionArgs;
use super::scan::{CountArgs, ScanArgs};
use crate::limits::{VALUE_LEN_MAX, VALUE_LEN_MAX_DEFAULT};
use crate::{Compression, Durability, Io};

const AFTER_HELP: &str = "\
Lines:
  json  {\"key\":…,\"value\":…}, each a string if it is UTF-8, else {\"base64\":\"…\"}
  tsv   key TAB value, with \\t \\n \\r \\\\ \\0 for these bytes and every other byte as it is
  What expires has when, in milliseconds since 1970: \"expires_at_ms\", or a third column.

Exit codes:
  0 done, 1 failed or not found, 2 usage; verify and inspect: 1 damaged

RINGCASK_LOG filters what the engine tells on standard error, as RINGCASK_LOG=debug.";

/// Reads and writes a Ringcask store, a durable key-value store in a directory.
#[derive(Parser)]
#[command(name = "ringcask", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) store: StoreArgs,

    /// Print JSON instead of text.
    #[arg(long, global = true)]
    pub(super) json: bool,

    /// Tell more on standard error; twice for still more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,

    #[command(subcommand)]
    pub(super) command: Command,
}

/// Which store, and how it is reached.
#[derive(clap::Args)]
pub(super) struct StoreArgs {
    /// Directory of the store.
    #[arg(long, global = true, env = "RINGCASK_DIR")]
    pub(super) dir: Option<PathBuf>,

    /// How the disk is reached.
    #[arg(long, global = true, value_enum, default_value_t = IoArg::Auto)]
    pub(super) io: IoArg,

    /// Longest value in bytes that is written.
    #[arg(long, global = true, value_name = "BYTES", default_value_t = VALUE_LEN_MAX_DEFAULT,
          value_parser = RangedU64ValueParser::<usize>::new().range(..=VALUE_LEN_MAX as u64))]
    pub(super) value_len_max: usize,

    /// A file with the store's encryption key: 32 bytes, or 64 hex digits. Given again, with the keys before it.
    #[arg(long, global = true, value_name = "FILE", env = "RINGCASK_KEY_FILE")]
    pub(super) key_file: Vec<PathBuf>,
}

/// Which of the store's keyspaces.
#[derive(clap::Args)]
pub(super) struct KeyspaceArgs {
    /// Of this keyspace, instead of the one without a name; created by what puts.
    #[arg(long = "keyspace", value_name = "NAME")]
    pub(super) name: Option<String>,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Store a value.
    Put(PutArgs),
    /// Print a value: exactly its bytes, and a newline only on a terminal.
    Get(GetArgs),
    /// Delete keys, or a range of them; exit code 1 if a key that was named was not there.
    Del(DelArgs),
    /// Delete every key of a keyspace.
    Clear(ClearArgs),
    /// Tell whether a key is there; exit code 1 if not.
    Exists(ExistsArgs),
    /// Let a key expire after a time.
    Expire(ExpireArgs),
    /// Print how long a key is still there.
    Ttl(TtlArgs),
    /// Let a key stay for ever.
    Persist(PersistArgs),
    /// Add to the integer that a key holds, and print the sum.
    Incr(IncrArgs),
    /// Print keys and values in order of key, as TSV or, with --json, as JSON lines.
    Scan(ScanArgs),
    /// Print how many keys there are.
    Count(CountArgs),
    /// Print what was committed, change by change, from a position on, and behind which position to go on.
    Changes(ChangesArgs),
    /// Print the names of all keyspaces.
    Keyspaces,
    /// Drop a keyspace with all that is in it; exit code 1 if there is none.
    DropKeyspace(DropArgs),
    /// Print what the store holds.
    Stats,
    /// Give back the space of records that no longer count.
    Compact,
    /// Make every write durable, whatever durability it was done with.
    Sync,
    /// Put every record of a file of lines; of two with one key the last stays.
    Load(LoadArgs),
    /// Print every record as a line that `load` reads.
    Dump(DumpArgs),
    /// Copy the store as it is now to a directory, which is a store too; of a later backup only what is new.
    Backup(BackupArgs),
    /// Make a store in --dir, which must be empty, of a backup.
    Restore(RestoreArgs),
    /// Read everything and change nothing; exit code 1 if anything is damaged.
    Verify,
    /// Keep all that is sound of a damaged store, and print what was lost.
    Repair,
    /// Give the store another number of partitions; only what has to move is written.
    Repartition(RepartitionArgs),
    /// Print what a file of a store is, structure by structure; exit code 1 if it is damaged.
    Inspect(InspectArgs),
    /// Measure a mix of gets and puts from many tasks.
    Bench(BenchArgs),
}

/// A key or value from the command line, any bytes.
#[derive(Clone)]
pub(super) struct Text(pub(super) Vec<u8>);

impl From<OsString> for Text {
    fn from(text: OsString) -> Text {
        Text(text.into_vec())
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum IoArg {
    /// `io_uring` where it is allowed, else plain system calls.
    Auto,
    /// `io_uring` or an error.
    Uring,
    /// Plain system calls.
    Blocking,
}

impl From<IoArg> for Io {
    fn from(io: IoArg) -> Io {
        match io {
            IoArg::Auto => Io::Auto,
            IoArg::Uring => Io::Uring,
            IoArg::Blocking => Io::Blocking,
        }
    }
}

/// How what a command writes is stored.
#[derive(clap::Args)]
pub(super) struct CompressionArgs {
    /// Compress values: `lz4`, `zstd`, or `zstd:LEVEL` with a level of -7 to 19. Every store can be read
    /// without this.
    #[arg(long, value_name = "HOW", default_value = "none", value_parser = parse_compression)]
    pub(super) compression: Compression,
}

fn parse_compression(text: &str) -> Result<Compression, String> {
    const ZSTD_LEVEL_DEFAULT: i32 = 3;
    match text.split_once(':') {
        None if text == "none" => Ok(Compression::None),
        None if text == "lz4" => Ok(Compression::Lz4),
        None if text == "zstd" => Ok(Compression::Zstd { level: ZSTD_LEVEL_DEFAULT }),
        Some(("zstd", level)) => {
            let level = level.parse().ok().filter(|level| (-7..=19).contains(level));
            let level = level.ok_or_else(|| "a zstd level is -7 to 19".to_owned())?;
            Ok(Compression::Zstd { level })
        }
        _ => Err("it is none, lz4, zstd or zstd:LEVEL".to_owned()),
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum DurabilityArg {
    /// A put is done when it survives a power cut.
    Sync,
    /// A put is done when it survives a killed process.
    Buffered,
}

impl From<DurabilityArg> for Durability {
    fn from(durability: DurabilityArg) -> Durability {
        match durability {
            DurabilityArg::Sync => Durability::Sync,
            DurabilityArg::Buffered => Durability::Buffered,
        }
    }
}

impl fmt::Display for DurabilityArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DurabilityArg::Sync => "sync",
            DurabilityArg::Buffered => "buffered",
        })
    }
}
