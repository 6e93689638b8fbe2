//! Ringcask is an embedded, durable key-value store for async Rust on Linux: a Bitcask whose
//! partitions share nothing and do their disk work through `io_uring`.
//!
//! ```
//! # futures::executor::block_on(async {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path();
//! use ringcask::Db;
//!
//! let db = Db::open(path).await?;
//! db.put("user:1", "Ada").await?; // acknowledged means on disk
//! assert_eq!(db.get("user:1").await?.as_deref(), Some(b"Ada".as_slice()));
//! assert!(db.del("user:1").await?);
//! db.close().await
//! # }).unwrap();
//! ```
//!
//! # The sentence
//!
//! A **db** handle **route**s a key, drops a request in a **mailbox**; the **worker** hands it to its
//! **partition**, which appends to the **log** through **io**, waits for the sync, publishes in the
//! **keydir**, and replies. What nobody asked for is **upkeep**.
//!
//! Each bold word is a directory of the source. [`docs::architecture`] follows a request along it,
//! [`docs::durability`] says what survives what, [`docs::on_disk_format`] lays out every byte,
//! [`docs::performance`] has the figures, [`docs::glossary`] the words.
//!
//! # What to know before using it
//!
//! - Any executor will do: the futures use no runtime of yours, workers bring their own.
//! - Many writes in flight are what makes it fast: they share one write and one sync.
//! - Every key costs about 28 bytes of memory, however long it is; values stay on disk.
//! - One process opens a store at a time.
//!
//! # Features
//!
//! - `sim`: the simulated disk ([`sim::SimDisk`](https://docs.rs/ringcask)), for testing what is built
//!   on Ringcask against crashes, power cuts and failing disks.
//! - `lz4`, `zstd`: values can be [compressed](Options::compression). A build without them opens every store
//!   that has no such value, and says which feature is missing for one that has.
//! - `encryption`: keys and values can be [encrypted](https://docs.rs/ringcask) at rest.
//! - `cli`: the `ringcask` command.

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
mod clock;
mod db;
pub mod docs;
mod error;
mod io;
mod keydir;
mod len_code;
pub mod limits;
mod log;
mod mailbox;
#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod micro;
mod moment;
mod options;
mod partition;
mod planted;
mod ranges;
mod report;
mod route;
mod scratch;
mod stats;
mod sync;
mod types;
mod upkeep;
mod worker;

pub use io::Memory;
#[cfg(any(test, feature = "sim"))]
pub use io::sim;
#[cfg(feature = "sim")]
#[doc(hidden)]
pub use log::decoders;

pub use db::{
    Backup, Blocking, BlockingIter, Change, ChangeKind, ChangePosition, Changes, ChangesSince,
    Cursor, Db, DelRange, DeletedRange, IntoValue, Keyspace, OpenKeyspace, Page, Put, Scan,
    ScanKeys, Snapshot, Transaction, Update, Watch, WatchEvent, Write, WriteBatch,
};
pub use error::{Error, ErrorKind, Result};
pub use mailbox::{BatchDone, Expected, Swap};
pub use options::{Compaction, Compression, Durability, Eviction, Io, OpenProgress, Options};
pub use report::{
    BackupReport, Damage, IgnoredHint, NewerFile, RepairReport, RepartitionReport, VerifyReport,
};
pub use stats::{Compacted, Histogram, PartitionStats, Stats};
pub use types::{EntryInfo, Ttl};

/// The README's examples compile and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
