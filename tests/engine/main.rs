//! The engine as its users see it: on a ring, on plain system calls, and on a disk that fails.
//!
//! Tests that draw random numbers print their seed and take it back from `RINGCASK_SEED`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[expect(clippy::allow_attributes, reason = "an unused helper is none in the next binary")]
#[allow(dead_code, reason = "every test binary uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

mod accounting;
mod backup;
mod batch;
mod blocking;
mod changes;
mod clock;
mod compaction;
mod compaction_faults;
#[cfg(all(feature = "lz4", feature = "zstd"))]
mod compression;
mod concurrency;
mod durability;
#[cfg(feature = "encryption")]
mod encryption;
mod eviction;
mod executors;
mod expiry;
mod faults;
mod full_disk;
mod get_range;
mod handles;
mod hints;
mod key_runs;
mod keyspace;
mod lifecycle;
mod load;
mod locked;
mod memory;
mod opening;
mod pages;
mod range_del;
mod read_cache;
mod read_only;
mod repair;
mod repartition;
mod rotation;
mod salvage;
mod scan;
mod scan_files;
mod scrub;
mod snapshot;
mod stats;
mod transaction;
mod update;
mod values;
mod verify;
mod watch;
