//! What the engine counts, always on.
//!
//! A worker's counters have one writer and are added up when somebody asks; callers that read
//! without a hop count into stripes, so that two threads rarely share a cache line (G4).

mod counter;
mod histogram;

pub(crate) use counter::{Counter, Striped};
pub use histogram::Histogram;
pub(crate) use histogram::Recorder;

/// What a store has done since it was opened, and what it holds now; see [`Db::stats`](crate::Db::stats).
///
/// # Example: how many puts shared one sync
/// ```
/// # futures::executor::block_on(async {
/// let dir = tempfile::tempdir().unwrap();
/// let db = ringcask::Db::open(dir.path()).await?;
/// db.put("k", "v").await?;
/// let total = db.stats().total();
/// assert_eq!((total.puts, total.keys), (1, 1));
/// println!("{:.1} records a commit", total.commit_records as f64 / total.commits as f64);
/// # db.close().await }).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// One entry a partition, in order of number.
    pub partitions: Vec<PartitionStats>,
    /// How the store reaches its disk: `uring`, `blocking`, `memory` or `sim`.
    pub io: &'static str,
    /// Worker threads.
    pub workers: usize,
    /// Snapshots that can be read.
    pub snapshots: u64,
    /// Bytes of memory that they take for what has changed since they were made.
    pub snapshot_bytes: u64,
    /// Bytes of memory that files are locked in, or just being locked ([`Options::locked_bytes`](crate::Options::locked_bytes)).
    pub locked_bytes: u64,
    /// Bytes of memory that [`Options::read_cache_bytes`](crate::Options::read_cache_bytes) has come to.
    pub read_cache_bytes: u64,
    /// Reads that were answered from there.
    pub read_cache_hits: u64,
    /// [Watches](crate::Db::watch) that have begun.
    pub watchers: u64,
    /// Events that wait for them.
    pub watch_events_queued: u64,
    /// Bytes of memory that these take.
    pub watch_bytes_queued: u64,
    /// Events that were left out because somebody took them too slowly, of watches that are over too; each watch was told
    /// of its own.
    pub watch_events_missed: u64,
    /// [Streams of changes](crate::Db::changes) that there are; each keeps the files of the log that it has still to read.
    pub change_streams: u64,
    /// Of these, such that wait for more.
    pub change_followers: u64,
}

impl Stats {
    /// All partitions added up.
    pub fn total(&self) -> PartitionStats {
        let mut total = PartitionStats::default();
        for partition in &self.partitions {
            total.add(partition);
        }
        total
    }
}

/// What a compaction did; see [`Db::compact`](crate::Db::compact).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// Data files that are gone.
    pub files_removed: u64,
    /// Data files that took their place.
    pub files_written: u64,
    /// Bytes of data files that are gone.
    pub bytes_removed: u64,
    /// Bytes of data files that took their place.
    pub bytes_written: u64,
    /// Records that were copied.
    pub records_kept: u64,
    /// Records that no longer counted.
    pub records_dropped: u64,
}

impl Compacted {
    pub(crate) fn add(&mut self, other: &Compacted) {
        self.files_removed += other.files_removed;
        self.files_written += other.files_written;
        self.bytes_removed += other.bytes_removed;
        self.bytes_written += other.bytes_written;
        self.records_kept += other.records_kept;
        self.records_dropped += other.records_dropped;
    }
}

macro_rules! partition_stats {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Counts of one partition; see [`Stats`].
        #[derive(Clone, Debug, Default)]
        #[non_exhaustive]
        pub struct PartitionStats {
            $($(#[doc = $doc])* pub $name: u64,)*
            /// Time from staging a commit group's first record to its publication, in nanoseconds.
            pub commit_latency: Histogram,
            /// Why the partition no longer takes writes, if so.
            pub poisoned: Option<String>,
        }

        impl PartitionStats {
            fn add(&mut self, other: &PartitionStats) {
                $(self.$name += other.$name;)*
                self.commit_latency.add(&other.commit_latency);
                if self.poisoned.is_none() {
                    self.poisoned.clone_from(&other.poisoned);
                }
            }

            /// Every count with its name, for output that must not forget one.
            pub fn counts(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

partition_stats! {
    /// Keys present, of all keyspaces; those that have expired, or were deleted with a range, some moments longer.
    keys,
    /// Bytes of memory that the keydir has allocated.
    keydir_bytes,
    /// Records put.
    puts,
    /// Bytes of their values, as they were given.
    put_value_bytes,
    /// Bytes of these as they are stored: fewer where values are compressed.
    put_stored_bytes,
    /// Deletions asked for, of keys that were there or not.
    dels,
    /// Batches and transactions that the partition saw through, or tried to. What they write counts as records
    /// put and deletions too.
    batches,
    /// Keys that have a time to live; each takes some seventy bytes more.
    keys_mortal,
    /// Keys that were taken out because they had expired.
    expired,
    /// Ranges of keys deleted: by prefix, by range, all of a keyspace.
    range_dels,
    /// Ranges that hide keys which are counted as present still, and as live, until upkeep comes to them.
    range_dels_pending,
    /// Keys that upkeep took out because a range that was deleted had them.
    range_removed,
    /// Keys that were evicted because the store held as much as it may.
    evicted,
    /// Most keys that it may hold; 0 if that is not bounded.
    entries_max,
    /// Most live bytes that it may hold; 0 if that is not bounded.
    bytes_max,
    /// Writes that were refused because the store was full.
    writes_full,
    /// Reads of a key, whatever they found.
    gets,
    /// Of these, answered on the caller's thread.
    gets_hop_free,
    /// Of these, of keys that were not there.
    gets_missing,
    /// Records read by the worker, because they were not in the page cache.
    reads,
    /// Bytes of these.
    read_bytes,
    /// Stretches of the log read by walks over the store.
    pages,
    /// Bytes of these.
    page_bytes,
    /// Commit groups written.
    commits,
    /// Records in them.
    commit_records,
    /// Bytes in them, headers and padding included.
    commit_bytes,
    /// Syncs of a data file for commits.
    syncs,
    /// Groups that were made durable by one DSYNC write into space written ahead.
    commits_dsync,
    /// Bytes of zeros written ahead of the log.
    prewritten_bytes,
    /// Commit groups that failed.
    commits_failed,
    /// Data files, the active one included.
    files,
    /// Of these, with an open descriptor.
    files_open,
    /// Times a descriptor that had been given up was opened again.
    files_opened,
    /// Data files that are not encrypted with the newest key, in a store that has one: at zero no older key is
    /// needed any more, and nothing is unencrypted. [`Db::compact`](crate::Db::compact) gets there.
    files_other_key,
    /// Times a data file was sealed and a new one begun.
    rotations,
    /// Hint files written.
    hints,
    /// Bytes of these.
    hint_bytes,
    /// Key runs that there are: files in which the keys of many data files are in one order, for scans.
    key_runs,
    /// Bytes of these.
    key_run_bytes,
    /// Compactions that went through.
    compactions,
    /// Compactions that failed; nothing is lost by one.
    compactions_failed,
    /// Nanoseconds that writers were held back, because compaction was behind.
    throttled_nanos,
    /// Dead bytes beyond those at which compaction starts, while it is at work.
    compaction_debt_bytes,
    /// Bytes of the files that compactions removed.
    compaction_read_bytes,
    /// Bytes of the files that compactions wrote.
    compaction_written_bytes,
    /// Bytes of data files that were scrubbed and found sound.
    scrubbed_bytes,
    /// Times that all data files of a partition were scrubbed.
    scrub_passes,
    /// Data files that were found damaged by scrubbing, by compaction, or when their hint was written.
    files_damaged,
    /// Bytes in data files up to their logical ends.
    log_bytes,
    /// Of these, of records that are the newest of their key.
    live_bytes,
    /// Of these, of tombstones.
    shadow_bytes,
    /// Of these, of records that are neither: what compaction can give back.
    dead_bytes,
    /// Requests waiting in the mailbox.
    queue_depth,
}
