//! How a store is opened: every setting, its default, and what it trades.

mod compaction;
mod compression;
mod encryption;
mod eviction;
mod progress;

use std::time::Duration;

pub use self::compaction::Compaction;
pub use self::compression::Compression;
pub(crate) use self::encryption::EncryptionKeys;
pub(crate) use self::eviction::Capacity;
pub use self::eviction::Eviction;
pub(crate) use self::progress::OnOpenProgress;
pub use self::progress::OpenProgress;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::io::{Fs, Memory};
use crate::limits;
use crate::mailbox::Durable;
use crate::partition::Retention;

/// When a write is acknowledged.
///
/// Set for the store with [`Options::durability`], for one write with
/// [`Put::durability`](crate::Put::durability).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Acknowledged means on disk: it survives a killed process and a power cut. Writes that arrive
    /// while a sync is under way share the next one.
    #[default]
    Sync,
    /// Acknowledged once written to the page cache; synced at least this often. It survives a killed
    /// process; a power cut loses at most the last interval. For one write it means [`Durability::Buffered`].
    Interval(Duration),
    /// Acknowledged once written to the page cache. It survives a killed process; a power cut loses
    /// what the kernel had not written back, unless [`Db::sync`](crate::Db::sync) was called after it.
    Buffered,
}

impl Durability {
    pub(crate) fn of_write(self) -> Durable {
        match self {
            Durability::Sync => Durable::Sync,
            Durability::Interval(_) | Durability::Buffered => Durable::Written,
        }
    }
}

/// How the store reaches its disk.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Io {
    /// `io_uring` where the kernel and sandbox allow it, else [`Io::Blocking`] with one warning that
    /// says why.
    #[default]
    Auto,
    /// `io_uring`, or an error that says what denies it and what to change.
    Uring,
    /// Plain system calls on helper threads.
    Blocking,
    /// No disk: the store is in memory, and gone with the last clone of this [`Memory`] and the last handle.
    Memory(Memory),
    /// A simulated disk, for tests; feature `sim`.
    #[cfg(any(test, feature = "sim"))]
    Sim(crate::io::SimDisk),
}

impl Io {
    /// The file system that the store is on.
    pub(crate) fn fs(&self) -> Fs {
        match self {
            Io::Auto | Io::Uring | Io::Blocking => Fs::os(),
            Io::Memory(memory) => Fs::memory(memory.clone()),
            #[cfg(any(test, feature = "sim"))]
            Io::Sim(disk) => Fs::sim(disk.clone()),
        }
    }
}

/// Settings of a store; start with [`Options::new`], end with [`Options::open`].
///
/// # Example: four partitions, acknowledged before they are on disk
/// ```
/// # futures::executor::block_on(async {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path();
/// use ringcask::{Durability, Options};
/// let db = Options::new().partitions(4).durability(Durability::Buffered).open(path).await?;
/// db.put("k", "v").await?;
/// db.sync().await?; // from here on it survives a power cut
/// # db.close().await }).unwrap();
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until `open` is called"]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct Options {
    pub(crate) partitions: Option<u32>,
    pub(crate) workers: Option<usize>,
    pub(crate) pin_workers: bool,
    pub(crate) durability: Durability,
    pub(crate) io: Io,
    pub(crate) create_if_missing: bool,
    pub(crate) lock_wait: Duration,
    pub(crate) salvage: bool,
    pub(crate) read_only: bool,
    pub(crate) key_len_max: usize,
    pub(crate) value_len_max: usize,
    pub(crate) batch_entries_max: usize,
    pub(crate) batch_bytes_max: usize,
    pub(crate) data_file_len_max: u64,
    pub(crate) data_file_records_max: u64,
    pub(crate) mailbox_requests_max: usize,
    pub(crate) mailbox_bytes_max: usize,
    pub(crate) read_cache_bytes: u64,
    pub(crate) locked_bytes: u64,
    pub(crate) prewrite: bool,
    pub(crate) compaction: Compaction,
    pub(crate) compression: Compression,
    pub(crate) compression_len_min: usize,
    pub(crate) encryption: EncryptionKeys,
    pub(crate) scrub_bytes_per_sec: Option<u64>,
    pub(crate) changes_retention_bytes: Option<u64>,
    pub(crate) changes_retention_age: Option<Duration>,
    pub(crate) open_files_max: Option<usize>,
    pub(crate) on_open_progress: Option<OnOpenProgress>,
    pub(crate) clock: Clock,
    pub(crate) default_ttl: Option<Duration>,
    pub(crate) entries_max: Option<u64>,
    pub(crate) bytes_max: Option<u64>,
    pub(crate) eviction: Eviction,
    pub(crate) snapshot_age_max: Option<Duration>,
    pub(crate) snapshot_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            partitions: None,
            workers: None,
            pin_workers: true,
            durability: Durability::Sync,
            io: Io::Auto,
            create_if_missing: true,
            lock_wait: Duration::ZERO,
            salvage: false,
            read_only: false,
            key_len_max: limits::KEY_LEN_MAX,
            value_len_max: limits::VALUE_LEN_MAX_DEFAULT,
            batch_entries_max: limits::BATCH_ENTRIES_MAX_DEFAULT,
            batch_bytes_max: limits::BATCH_BYTES_MAX_DEFAULT,
            data_file_len_max: limits::DATA_FILE_LEN_MAX_DEFAULT,
            data_file_records_max: limits::DATA_FILE_RECORDS_MAX_DEFAULT,
            mailbox_requests_max: limits::MAILBOX_REQUESTS_MAX_DEFAULT,
            mailbox_bytes_max: limits::MAILBOX_BYTES_MAX_DEFAULT,
            read_cache_bytes: 0,
            locked_bytes: 0,
            prewrite: true,
            compaction: Compaction::new(),
            compression: Compression::None,
            compression_len_min: limits::COMPRESSION_LEN_MIN_DEFAULT,
            encryption: EncryptionKeys::default(),
            scrub_bytes_per_sec: None,
            changes_retention_bytes: None,
            changes_retention_age: None,
            open_files_max: None,
            on_open_progress: None,
            clock: Clock::default(),
            default_ttl: None,
            entries_max: None,
            bytes_max: None,
            eviction: Eviction::None,
            snapshot_age_max: Some(limits::SNAPSHOT_AGE_MAX_DEFAULT),
            snapshot_bytes_max: limits::SNAPSHOT_BYTES_MAX_DEFAULT,
        }
    }
}

impl Options {
    /// The defaults: what [`Db::open`](crate::Db::open) uses.
    pub fn new() -> Options {
        Options::default()
    }

    /// How many partitions a new store gets. Default: one a core. A store keeps its count: opening
    /// one with another count asked for is [`ErrorKind::PartitionCount`](crate::ErrorKind::PartitionCount).
    pub fn partitions(mut self, count: u32) -> Options {
        self.partitions = Some(count);
        self
    }

    /// How many worker threads share the partitions. Default: one a core, at most one a partition.
    pub fn workers(mut self, count: usize) -> Options {
        self.workers = Some(count);
        self
    }

    /// Whether each worker is pinned to a core of those the process may use. Default: true. Turn it
    /// off where other threads are pinned already, or the process shares its cores with others.
    pub fn pin_workers(mut self, pin: bool) -> Options {
        self.pin_workers = pin;
        self
    }

    /// When writes are acknowledged, unless a write says otherwise. Default: [`Durability::Sync`].
    pub fn durability(mut self, durability: Durability) -> Options {
        self.durability = durability;
        self
    }

    /// How the disk is reached. Default: [`Io::Auto`].
    pub fn io(mut self, io: Io) -> Options {
        self.io = io;
        self
    }

    /// Keeps the store in memory, and nothing on a disk: the path that it is opened at is only a name for it.
    ///
    /// The API is the same, and so are its promises, but for durability: any is accepted and means nothing, and when the
    /// store is closed it is gone. Memory is taken as data files are: what is overwritten or deleted is given back by
    /// compaction; bound what lives with [`Options::bytes_max`]. A clone of these options has the same memory, so a
    /// store can be closed and opened again with it; [`Io::Memory`] says how several stores share one.
    ///
    /// # Example: a cache
    /// ```
    /// # futures::executor::block_on(async {
    /// use ringcask::{Eviction, Options};
    /// let options = Options::new().in_memory().bytes_max(64 << 20).eviction(Eviction::Lru);
    /// let db = options.open("sessions").await?;
    /// db.put("k", "v").await?;
    /// assert_eq!(db.get("k").await?.as_deref(), Some(b"v".as_slice()));
    /// # db.close().await }).unwrap();
    /// ```
    pub fn in_memory(self) -> Options {
        self.io(Io::Memory(Memory::new()))
    }

    /// Whether a store is created where there is none. Default: true.
    pub fn create_if_missing(mut self, create: bool) -> Options {
        self.create_if_missing = create;
        self
    }

    /// How long to wait for another process to close the store. Default: not at all.
    pub fn lock_wait(mut self, wait: Duration) -> Options {
        self.lock_wait = wait;
        self
    }

    /// Whether a store that does not open because it is damaged is [repaired](crate::Db::repair) and then
    /// opened. Default: false, it is an error.
    ///
    /// For a service that would rather lose records than stay down: what was lost is told to `tracing`, and by
    /// [`Db::salvaged`](crate::Db::salvaged). Damaged files stay beside the new ones. Damage that opening does
    /// not meet, in a value that nobody has read yet, is no reason for a repair.
    pub fn salvage(mut self, salvage: bool) -> Options {
        self.salvage = salvage;
        self
    }

    /// Whether the store is only read. Default: false.
    ///
    /// Not a byte of it is changed, on whatever disk it is, and no name in its directory: what a crash has left
    /// torn or undecided is settled in memory, as an open that writes would do it on disk, and there is no upkeep.
    /// Only a missing LOCK is created, where that can be. Everything that writes is refused with
    /// [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly). Any number of readers may have the store open at one
    /// time, but none beside a writer: opening is `Locked` then, for whoever comes second.
    ///
    /// # Example: two readers
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path();
    /// use ringcask::{Db, ErrorKind, Options};
    /// let db = Db::open(path).await?;
    /// db.put("k", "v").await?;
    /// db.close().await?;
    ///
    /// let one = Options::new().read_only(true).open(path).await?;
    /// let other = Options::new().read_only(true).open(path).await?;
    /// assert_eq!(one.get("k").await?, other.get("k").await?);
    /// assert_eq!(one.del("k").await.unwrap_err().kind(), ErrorKind::ReadOnly);
    /// # one.close().await?;
    /// # other.close().await }).unwrap();
    /// ```
    pub fn read_only(mut self, read_only: bool) -> Options {
        self.read_only = read_only;
        self
    }

    /// Longest accepted key in bytes, 1 to 65,535. Default: 65,535.
    pub fn key_len_max(mut self, len_bytes: usize) -> Options {
        self.key_len_max = len_bytes;
        self
    }

    /// Longest accepted value in bytes, up to 1 GiB. Default: 64 MiB.
    pub fn value_len_max(mut self, len_bytes: usize) -> Options {
        self.value_len_max = len_bytes;
        self
    }

    /// Most entries of a [`WriteBatch`](crate::WriteBatch), 1 to 2²⁴. Default: 65,536.
    pub fn batch_entries_max(mut self, count: usize) -> Options {
        self.batch_entries_max = count;
        self
    }

    /// Most bytes of keys and values in a [`WriteBatch`](crate::WriteBatch), up to 4 GiB. Default: 64 MiB. A
    /// batch is in memory until it is done, and waits alone in a mailbox that is smaller.
    pub fn batch_bytes_max(mut self, len_bytes: usize) -> Options {
        self.batch_bytes_max = len_bytes;
        self
    }

    /// Length in bytes at which a data file is sealed, 4 KiB to 4 GiB. Default: 256 MiB. A record
    /// that is longer gets a file of its own. Smaller files are compacted in smaller steps; larger
    /// ones need fewer descriptors.
    pub fn data_file_len_max(mut self, len_bytes: u64) -> Options {
        self.data_file_len_max = len_bytes;
        self
    }

    /// Number of records at which a data file is sealed, 1 to 2²⁴. Default: 2²⁰. What upkeep does with a
    /// file at once, sorting its keys for the hint file above all, takes memory in proportion: some 30
    /// bytes a record and its key.
    pub fn data_file_records_max(mut self, count: u64) -> Options {
        self.data_file_records_max = count;
        self
    }

    /// How many requests wait in the mailbox of one partition before callers wait. Default: 4,096.
    pub fn mailbox_requests_max(mut self, count: usize) -> Options {
        self.mailbox_requests_max = count;
        self
    }

    /// How many bytes of keys and values wait in the mailbox of one partition before callers wait.
    /// Default: 32 MiB. One larger request waits alone.
    pub fn mailbox_bytes_max(mut self, len_bytes: usize) -> Options {
        self.mailbox_bytes_max = len_bytes;
        self
    }

    /// How many bytes of records that were read are kept in memory, for all partitions together. Default: 0, none.
    ///
    /// Without it a hot value comes from the page cache, which costs a system call and a checksum each time; with it, neither.
    /// It is worth its memory where the same values are read again and again, by scans above all, and where nothing
    /// else needs the memory: the page cache has most of these values too. What it holds is never stale, and of an
    /// encrypted store it is plain text. Records of up to 64 KiB are kept, those that are read often rather than
    /// those that were read last; [`Stats::read_cache_hits`](crate::Stats::read_cache_hits) says how many reads it answers.
    pub fn read_cache_bytes(mut self, len_bytes: u64) -> Options {
        self.read_cache_bytes = len_bytes;
        self
    }

    /// How many bytes of memory data files and hint files may be locked in, by the page, for all partitions together. Default: 0,
    /// none.
    ///
    /// What is locked is read without a system call and never from the disk, by gets and scans alike, whatever else the
    /// machine needs memory for. It is the fastest way to read a store that fits; a file in which the newest
    /// records are still being written is read from the page cache, as ever. Files are locked one after the other, the newest
    /// first, as far as the bytes reach, beside hints and compaction, after the store is open and as files are sealed; what is
    /// locked stays until compaction has taken the file. [`Stats::locked_bytes`](crate::Stats::locked_bytes) says how far
    /// that has come. The memory is the page cache's own, so a value is not in memory twice, but the
    /// process is charged for it.
    ///
    /// A process may lock as much as `RLIMIT_MEMLOCK` says, often 8 MiB (`ulimit -l`; `LimitMEMLOCK=` of systemd).
    /// The store must be on a file system of this machine, where nobody shortens its files.
    ///
    /// # Errors
    /// Opening fails with [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the process may not lock so many bytes.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("store");
    /// let db = ringcask::Options::new().locked_bytes(1 << 20).open(&path).await?;
    /// assert!(db.stats().locked_bytes <= 1 << 20);
    /// # db.close().await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn locked_bytes(mut self, len_bytes: u64) -> Options {
        self.locked_bytes = len_bytes;
        self
    }

    /// Whether zeros are written ahead of the log while groups are small, so that one write makes a
    /// group durable. Default: true. Costs up to twice the bytes written, saves about a third of a
    /// durable put's latency on drives without power-loss protection.
    pub fn prewrite(mut self, prewrite: bool) -> Options {
        self.prewrite = prewrite;
        self
    }

    /// When and how fast dead records are given back. Default: [`Compaction::new`].
    pub fn compaction(mut self, compaction: Compaction) -> Options {
        self.compaction = compaction;
        self
    }

    /// How values are compressed, each by itself, on the thread of whoever puts and gets them. Default:
    /// [`Compression::None`].
    ///
    /// A value is stored compressed only if that saves at least a sixteenth of it, so what does not compress
    /// costs the attempt and nothing else. The setting is about what is written from now on; a store may have
    /// been opened with others before, and all its values stay readable. Compaction copies them as they are.
    #[cfg_attr(
        feature = "lz4",
        doc = "
# Example: a store whose values are compressed from now on
```
# futures::executor::block_on(async {
# let dir = tempfile::tempdir().unwrap();
use ringcask::{Compression, Options};
let db = Options::new().compression(Compression::Lz4).open(dir.path()).await?;
db.put(\"page\", \"very much the same \".repeat(100)).await?;
let total = db.stats().total();
assert!(total.put_stored_bytes < total.put_value_bytes / 10);
# db.close().await }).unwrap();
```"
    )]
    pub fn compression(mut self, compression: Compression) -> Options {
        self.compression = compression;
        self
    }

    /// Shortest value in bytes that is compressed. Default: 256. Shorter ones seldom get shorter by more than
    /// the eight bytes that a compressed record's header needs.
    pub fn compression_len_min(mut self, len_bytes: usize) -> Options {
        self.compression_len_min = len_bytes;
        self
    }

    /// Reads data files in the background, at most this many bytes a second, all partitions together, to
    /// find damage before somebody needs the record. Default: not at all.
    ///
    /// Each sealed file is read once after the store was opened, and then once a day, or as often as the rate
    /// allows, when upkeep has nothing else to do; the page cache is left as it is. What is found goes to
    /// `tracing` as an error with file and offset, and is counted in
    /// [`PartitionStats::files_damaged`](crate::PartitionStats::files_damaged). Nothing is changed: restore a
    /// backup, or close the store and run [`Db::repair`](crate::Db::repair). A day is 86,400 seconds, so
    /// 10 MB/s read some 860 GB.
    pub fn scrub_bytes_per_sec(mut self, bytes: u64) -> Options {
        self.scrub_bytes_per_sec = Some(bytes);
        self
    }

    /// Keeps the newest bytes of the log, so many of all partitions together, as they were written, for those who
    /// [follow it](crate::Db::changes): compaction leaves these files alone. Default: nothing is kept; with a
    /// [`changes_retention_age`](Options::changes_retention_age), whatever is younger.
    ///
    /// What is superseded in them takes space until they are old enough, so a store takes up to this much more. Only whole
    /// files are kept, and each partition keeps its share.
    pub fn changes_retention_bytes(mut self, bytes: u64) -> Options {
        self.changes_retention_bytes = Some(bytes);
        self
    }

    /// Keeps files of the log whose newest change is no older than this, as they were written, for those who
    /// [follow it](crate::Db::changes). Default: no age is asked for.
    ///
    /// With [`changes_retention_bytes`](Options::changes_retention_bytes) a file is kept while it is within both: the age
    /// says how long somebody may stay away, and the bytes how much space that may cost. Alone it keeps whatever is
    /// younger, so a store that is overwritten fast grows by all that is written in this time.
    ///
    /// Age goes by the wall clock, in milliseconds, also while the store is closed. While that was set by more than a
    /// minute since the store was opened, nothing is taken for old.
    ///
    /// # Example: whoever comes back within a day has missed nothing, unless 10 GiB were written
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use std::time::Duration;
    ///
    /// use ringcask::Options;
    /// let options = Options::new()
    ///     .changes_retention_age(Duration::from_secs(86_400))
    ///     .changes_retention_bytes(10 << 30);
    /// let db = options.open(dir.path()).await?;
    /// # db.close().await }).unwrap();
    /// ```
    pub fn changes_retention_age(mut self, age: Duration) -> Options {
        self.changes_retention_age = Some(age);
        self
    }

    /// What is kept of each partition's log, of so many.
    pub(crate) fn changes_retention(&self, partition_count: usize) -> Retention {
        let age_max_ms = self
            .changes_retention_age
            .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let bytes = self.changes_retention_bytes.unwrap_or(match age_max_ms {
            Some(_) => u64::MAX,
            None => 0,
        });
        Retention { bytes: bytes.div_ceil(partition_count.max(1) as u64), age_max_ms }
    }

    /// How many data files stay open, all partitions together; those longest unused are closed, and
    /// opened again when they are read. Default: half of what the process may open (`ulimit -n`), at most
    /// 10,000. At least one file a partition stays open.
    ///
    /// As many again stay open of files that compaction has replaced and that a scan or a snapshot still reads; what is
    /// more keeps its name, and its space, until nobody reads it.
    pub fn open_files_max(mut self, count: usize) -> Options {
        self.open_files_max = Some(count);
        self
    }

    /// Calls `callback` after each data file that opening has loaded, one call after the other; partitions go
    /// on loading meanwhile. Default: nobody is told.
    ///
    /// # Example: a line a file
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = ringcask::Options::new()
    ///     .on_open_progress(|done| eprintln!("{} of {} files", done.files, done.files_total))
    ///     .open(dir.path())
    ///     .await?;
    /// # db.close().await }).unwrap();
    /// ```
    pub fn on_open_progress(
        mut self,
        callback: impl Fn(OpenProgress) + Send + Sync + 'static,
    ) -> Options {
        self.on_open_progress = Some(OnOpenProgress::new(callback));
        self
    }

    /// Values expire after this long if their put does not say otherwise; default: never.
    pub fn default_ttl(mut self, ttl: Duration) -> Options {
        self.default_ttl = Some(ttl);
        self
    }

    /// How old a [snapshot](crate::Db::snapshot) may get; `None` for any age. Default: one hour.
    ///
    /// What compaction would give back stays on disk while a snapshot needs it, so one that was forgotten would
    /// fill the disk by and by. Reading one that is older fails with
    /// [`SnapshotEnded`](crate::ErrorKind::SnapshotEnded).
    pub fn snapshot_age_max(mut self, age: impl Into<Option<Duration>>) -> Options {
        self.snapshot_age_max = age.into();
        self
    }

    /// Bytes of memory that all [snapshots](crate::Db::snapshot) of the store may take together. Default: 256 MiB.
    ///
    /// Each key that is written, deleted or expires while a snapshot lives costs it 35 to 70 bytes, once. When all take
    /// more than this the oldest one ends: reading it fails with
    /// [`SnapshotEnded`](crate::ErrorKind::SnapshotEnded).
    pub fn snapshot_bytes_max(mut self, bytes: u64) -> Options {
        self.snapshot_bytes_max = bytes;
        self
    }

    /// Takes the time from `clock` instead of the system, on any disk; for tests, feature `sim`.
    #[cfg(any(test, feature = "sim"))]
    pub fn clock(mut self, clock: crate::sim::SimClock) -> Options {
        self.clock = Clock::Sim(clock);
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        let within = |name: &str, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(Error::invalid(format!("{name} is {value}; it must be {least} to {most}")))
            }
        };
        if self.read_only && self.salvage {
            let what = "read_only and salvage exclude each other: a repair writes";
            return Err(Error::invalid(what));
        }
        if let Some(count) = self.partitions {
            within("partitions", count.into(), 1, limits::PARTITIONS_MAX.into())?;
        }
        if let Some(count) = self.workers {
            within("workers", count as u64, 1, limits::PARTITIONS_MAX.into())?;
        }
        if let Durability::Interval(interval) = self.durability {
            within("the sync interval in milliseconds", interval.as_millis() as u64, 1, 3_600_000)?;
        }
        within("key_len_max", self.key_len_max as u64, 1, limits::KEY_LEN_MAX as u64)?;
        within("value_len_max", self.value_len_max as u64, 0, limits::VALUE_LEN_MAX as u64)?;
        within("batch_entries_max", self.batch_entries_max as u64, 1, limits::BATCH_ENTRIES_LIMIT)?;
        within("batch_bytes_max", self.batch_bytes_max as u64, 1, limits::BATCH_BYTES_LIMIT)?;
        within(
            "data_file_len_max",
            self.data_file_len_max,
            limits::DATA_FILE_LEN_MIN,
            limits::DATA_FILE_LEN_LIMIT,
        )?;
        // What lies above takes hundreds of megabytes for each value under way.
        #[cfg(feature = "zstd")]
        if let Compression::Zstd { level } = self.compression
            && !(-7..=19).contains(&level)
        {
            return Err(Error::invalid(format!("the zstd level is {level}; it must be -7 to 19")));
        }
        self.compaction.check().map_err(|what| Error::invalid(format!("compaction: {what}")))?;
        if let Some(rate) = self.scrub_bytes_per_sec {
            within("scrub_bytes_per_sec", rate, 1, u64::MAX)?;
        }
        for (name, bound) in [("entries_max", self.entries_max), ("bytes_max", self.bytes_max)] {
            within(name, bound.unwrap_or(1), 1, u64::MAX)?;
        }
        if let Some(age) = self.snapshot_age_max {
            within("snapshot_age_max in milliseconds", age.as_millis() as u64, 1, u64::MAX)?;
        }
        within("data_file_records_max", self.data_file_records_max, 1, 1 << 24)?;
        within("mailbox_requests_max", self.mailbox_requests_max as u64, 1, 1 << 20)?;
        within("mailbox_bytes_max", self.mailbox_bytes_max as u64, 1, 1 << 36)
    }
}
