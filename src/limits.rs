//! Every bound of the engine, named, with its unit as the last word.
//!
//! What a caller can change is a default here and a setter on [`Options`](crate::Options); what
//! the format fixes is a constant.

use std::time::Duration;

/// Longest key in bytes: the record header keeps the length in 16 bits.
pub const KEY_LEN_MAX: usize = u16::MAX as usize;

/// Longest value in bytes that [`Options::value_len_max`](crate::Options::value_len_max) accepts.
pub const VALUE_LEN_MAX: usize = 1 << 30;

/// Default of [`Options::value_len_max`](crate::Options::value_len_max): 64 MiB.
pub const VALUE_LEN_MAX_DEFAULT: usize = 64 << 20;

/// Default of [`Options::compression_len_min`](crate::Options::compression_len_min).
pub const COMPRESSION_LEN_MIN_DEFAULT: usize = 256;

/// Default of [`Options::batch_entries_max`](crate::Options::batch_entries_max): 65,536.
pub const BATCH_ENTRIES_MAX_DEFAULT: usize = 1 << 16;

/// Most entries that [`Options::batch_entries_max`](crate::Options::batch_entries_max) accepts.
pub const BATCH_ENTRIES_LIMIT: u64 = 1 << 24;

/// Default of [`Options::batch_bytes_max`](crate::Options::batch_bytes_max): 64 MiB.
pub const BATCH_BYTES_MAX_DEFAULT: usize = 64 << 20;

/// Most bytes that [`Options::batch_bytes_max`](crate::Options::batch_bytes_max) accepts.
pub const BATCH_BYTES_LIMIT: u64 = 4 << 30;

/// Default of [`Options::data_file_len_max`](crate::Options::data_file_len_max): 256 MiB.
pub const DATA_FILE_LEN_MAX_DEFAULT: u64 = 256 << 20;

/// Smallest accepted `data_file_len_max` in bytes; tests rotate often with it.
pub const DATA_FILE_LEN_MIN: u64 = 4 << 10;

/// Longest data file in bytes: the keydir keeps offsets as 29 bits of 8-byte units.
pub const DATA_FILE_LEN_LIMIT: u64 = 1 << 32;

/// Bytes that each partition keeps in reserve for deletions on a full disk, or the length of two data
/// files if that is less.
pub const RESERVE_LEN: u64 = 4 << 20;

/// Default of [`Options::data_file_records_max`](crate::Options::data_file_records_max): 2²⁰.
pub const DATA_FILE_RECORDS_MAX_DEFAULT: u64 = 1 << 20;

/// Bytes of keys at which a data file is sealed: a hint's builder has them all in memory.
pub const DATA_FILE_KEY_BYTES_MAX: u64 = 128 << 20;

/// Most data files of one partition: the keydir keeps the file as 16 bits.
pub const FILES_PER_PARTITION_MAX: usize = 1 << 16;

/// Data files that stay open by default, all partitions together, if the process may open twice as many.
pub const OPEN_FILES_MAX_DEFAULT: usize = 10_000;

/// Most partitions of a store.
pub const PARTITIONS_MAX: u32 = 4096;

/// Longest name of a keyspace in bytes.
pub const KEYSPACE_NAME_LEN_MAX: usize = 255;

/// Most keyspaces of a store at a time: MANIFEST, which names them all, is replaced as a whole.
pub const KEYSPACES_MAX: usize = 8192;

/// Most ranges of one partition that were deleted and are not worked off; deleting more waits.
pub const RANGES_PENDING_MAX: usize = 4096;

/// Default of [`Options::mailbox_requests_max`](crate::Options::mailbox_requests_max).
pub const MAILBOX_REQUESTS_MAX_DEFAULT: usize = 4096;

/// Default of [`Options::mailbox_bytes_max`](crate::Options::mailbox_bytes_max): 32 MiB.
pub const MAILBOX_BYTES_MAX_DEFAULT: usize = 32 << 20;

/// A commit group is closed when its encoded records reach this many bytes.
pub const GROUP_LEN_MAX: usize = 4 << 20;

/// Most records of one commit group.
pub const GROUP_RECORDS_MAX: usize = 1 << 16;

/// A record longer than this many bytes is a commit group of its own (W5).
pub const GROUP_ALONE_LEN_BYTES: usize = 1 << 20;

/// Bytes staged behind the group in flight before a worker stops draining the mailbox (W5).
pub const STAGED_BYTES_MAX: usize = 8 << 20;

/// Bytes of keys and values that a bulk load sends to a partition at once, when it has them.
pub const LOAD_CHUNK_LEN_BYTES: usize = 64 << 10;

/// Chunks of a bulk load in flight at once, for each partition.
pub const LOAD_CHUNKS_IN_FLIGHT_MAX: usize = 4;

/// Requests a worker takes from one mailbox before it looks at its disk again.
pub const DRAIN_REQUESTS_MAX: usize = 512;

/// Cold reads of one partition under way at once.
pub const READS_IN_FLIGHT_MAX: usize = 64;

/// Bytes of cold reads of one partition under way at once; one longer read may go over it alone.
pub const READS_IN_FLIGHT_BYTES_MAX: usize = 32 << 20;

/// Pages that one partition reads for scans at once: a block of keys with what follows it, at most 1 MiB of
/// log, or one commit group.
pub const PAGES_IN_FLIGHT_MAX: usize = 16;

/// Most entries of a page of a scan that asked for no limit.
pub const PAGE_ENTRIES_DEFAULT: usize = 1000;

/// Bytes of keys and values at which a page of a scan ends; its last entry may go over it.
pub const PAGE_BYTES_MAX: usize = 16 << 20;

/// Age at which a snapshot ends, if the options do not say otherwise.
pub const SNAPSHOT_AGE_MAX_DEFAULT: Duration = Duration::from_secs(60 * 60);

/// Bytes of memory that the snapshots of a store may take, if the options do not say otherwise.
pub const SNAPSHOT_BYTES_MAX_DEFAULT: u64 = 256 << 20;

/// Keys that one `get_many` of a snapshot reads at once.
pub const SNAPSHOT_GETS_MAX: usize = 64;

/// Parts of long values that one partition reads at once.
pub const PARTS_IN_FLIGHT_MAX: usize = 16;

/// Bytes that are read at a time of a record of which a part was asked for.
pub const PART_STEP_LEN: usize = 1 << 20;

/// Reads of many keys at one moment that one partition has under way.
pub const GET_MANY_IN_FLIGHT_MAX: usize = 16;

/// A record longer than this many bytes is read by the worker, not on the caller's thread (G2).
pub const READ_NOW_LEN_MAX: usize = 64 << 10;

/// A value up to this many bytes is copied out of the read buffer; a longer one is sliced from it.
pub const READ_COPY_LEN_MAX: usize = 4 << 10;

/// How long `open` waits for an instance of the same process that is closing (X1).
pub const CLOSING_WAIT: Duration = Duration::from_secs(5);

/// Longest MANIFEST that is read, in bytes.
pub const MANIFEST_LEN_MAX: u64 = 16 << 20;

/// Longest `FILES` that is read, in bytes: every file listed, with room to spare.
pub const FILES_LEN_MAX: u64 = 16 << 20;

/// Records of expired keys that one partition reads at once, to tell watchers their keys.
pub const EXPIRED_READING_MAX: usize = 32;

/// Default of [`Watch::buffer`](crate::Watch::buffer): events that wait for one watcher.
pub const WATCH_EVENTS_MAX_DEFAULT: usize = 4096;

/// Default of [`Watch::buffer`](crate::Watch::buffer): 4 MiB.
pub const WATCH_BYTES_MAX_DEFAULT: usize = 4 << 20;

/// Default of [`Watch::value_len_max`](crate::Watch::value_len_max): 64 KiB.
pub const WATCH_VALUE_LEN_MAX_DEFAULT: usize = 64 << 10;

/// Keys that eviction compares, taken at random, to evict one of them.
pub const EVICTION_CANDIDATES: usize = 8;

/// Keys that a worker evicts from one partition before it does something else: about a millisecond.
pub const EVICTIONS_A_TURN: usize = 512;

/// Evictions of one partition that wait for their commit at once.
pub const EVICTIONS_STAGED_MAX: usize = 4096;

/// Records of keys that are to be evicted, of one partition, read from the disk at once.
pub const EVICTIONS_READING_MAX: usize = 64;

/// Buckets of one keydir table (K6).
pub const KEYDIR_TABLE_BUCKETS: usize = 16 << 10;

/// Average number of entries per keydir table at which an expansion must have ended. Sizes of tables
/// deviate by some 120 entries, which leaves the fullest more than four deviations of room.
pub const KEYDIR_TABLE_FILL: u64 = 13_800;

/// Longest step of zeros written ahead of the log, in bytes (W3). Each step delays the commits beside
/// it: with 1 MiB durable puts of 64 and 256 callers are 12–15 % faster than with 4 MiB, and their
/// p99.9 falls from 8–10 ms to 2–4 ms; steps of 512 KiB are slower again.
pub const PREWRITE_LEN_MAX: u64 = 1 << 20;

/// Time from the beginning of one scrub of all data files to that of the next, if the rate allows it.
pub const SCRUB_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Most ranges of damage that one report lists; the others are counted.
pub const DAMAGE_REPORTED_MAX: usize = 1 << 16;

/// Bytes of keys in one report of damage.
pub const DAMAGE_KEY_BYTES_MAX: usize = 16 << 20;
