//! The caller's side: a handle that routes keys, drops requests into mailboxes, and awaits replies.

mod backup;
mod batch;
mod blocking;
mod call;
mod changes;
mod compact;
mod digits;
mod directory;
mod examine;
mod get_many;
mod get_range;
mod keyspace;
mod keyspaces;
mod lifecycle;
mod load;
mod open;
mod put;
mod range_del;
mod read;
mod read_cache;
mod repair;
mod repartition;
mod salvage;
mod scan;
mod snapshot;
mod transaction;
mod ttl;
mod update;
mod value;
mod verify;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use self::backup::Backup;
pub use self::batch::{Write, WriteBatch};
pub use self::blocking::{Blocking, BlockingIter};
use self::call::Call;
pub use self::changes::{Change, ChangeKind, ChangePosition, Changes, ChangesSince};
pub use self::keyspace::{Keyspace, OpenKeyspace};
use self::keyspaces::Keyspaces;
use self::lifecycle::Lifecycle;
pub use self::put::Put;
pub use self::range_del::DelRange;
use self::read::ReadNow;
use self::read_cache::ReadCache;
pub use self::scan::{Cursor, Page, Scan, ScanKeys};
pub use self::snapshot::Snapshot;
pub use self::transaction::Transaction;
pub use self::update::Update;
pub use self::value::IntoValue;
pub use self::watch::{DeletedRange, Watch, WatchEvent};
use crate::clock::ExpiryClock;
use crate::error::{Error, ErrorKind, Result};
use crate::io::LockedMemory;
use crate::log::codec::Codecs;
use crate::mailbox::{Body, Durable, Entry, Mailbox, Peers, Request, Watchers, reply_slot};
use crate::moment::Snapshots;
use crate::options::Options;
use crate::partition::PartitionView;
use crate::report::RepairReport;
use crate::route::{KeyHasher, PartitionMap};
use crate::stats::Stats;
use crate::types::{EntryInfo, KeyHash, KeyspaceId, StoreId};

/// An open store: cheap to clone, shared by any number of tasks on any executor.
///
/// Keys are 1 to 65,535 bytes, values 0 bytes to [`Options::value_len_max`]. Every operation is
/// decided by the one worker that owns the key's partition, so operations on one key happen one after
/// the other. Dropping a future cancels the wait, not an operation that was sent: it happens whole or
/// not at all.
///
/// When the last handle is dropped the store closes in the background; [`Db::close`] waits for it.
///
/// # Example: put, get, delete
/// ```
/// # futures::executor::block_on(async {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path();
/// use ringcask::Db;
/// let db = Db::open(path).await?;
/// db.put("user:1", "Ada").await?;
/// assert_eq!(db.get("user:1").await?.as_deref(), Some(b"Ada".as_slice()));
/// assert!(db.del("user:1").await?);
/// assert_eq!(db.get("user:1").await?, None);
/// db.close().await
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Db {
    shared: Arc<Shared>,
    space: Space,
    /// Counts handles; the last one to go closes the store.
    _handle: Arc<Handle>,
}

/// What all handles, futures and streams of a store share.
pub(crate) struct Shared {
    path: PathBuf,
    hasher: KeyHasher,
    map: PartitionMap,
    partitions: Vec<Shard>,
    durable: Durable,
    expiry: Arc<ExpiryClock>,
    codecs: Arc<Codecs>,
    read_cache: ReadCache,
    /// Memory that files are locked in, if any.
    locked: Option<Arc<LockedMemory>>,
    key_len_max: usize,
    value_len_max: usize,
    batch_entries_max: usize,
    batch_bytes_max: usize,
    io_name: &'static str,
    worker_count: usize,
    /// What opening had to repair.
    salvaged: Option<RepairReport>,
    keyspaces: Keyspaces,
    lifecycle: Arc<Lifecycle>,
    peers: Arc<Peers>,
    watchers: Arc<Watchers>,
    /// Told apart by it are a store and its backups that were opened (F5).
    instance: StoreId,
    map_epoch: u64,
    snapshots: Arc<Snapshots>,
    /// Held by who asks for a moment over all partitions: one at a time, so that writers have their turn in between.
    moment_turn: futures::lock::Mutex<()>,
}

/// A key space of the store as a handle uses it (N1).
#[derive(Clone, Copy)]
pub(crate) struct Space {
    id: KeyspaceId,
    /// Of puts that say nothing else.
    default_ttl: Option<Duration>,
}

/// One partition as callers reach it.
struct Shard {
    mailbox: Arc<Mailbox>,
    view: Arc<PartitionView>,
}

struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.begin_close();
    }
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db")
            .field("path", &self.shared.path)
            .field("partitions", &self.shared.partitions.len())
            .finish_non_exhaustive()
    }
}

impl Db {
    /// Opens the store at `path` with the default [`Options`], creating it if there is none.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Db> {
        Options::new().open(path).await
    }

    /// Stores `value` under `key`, replacing what was there.
    ///
    /// The future is sent when it is first polled; before that it can be given its own
    /// [durability](Put::durability). When it resolves the value is as durable as asked, and visible to
    /// every later get. Two operations on one key that are in flight at the same time happen in either
    /// order: await the first to be sure of it.
    ///
    /// # Errors
    /// The future resolves to `InvalidArgument` for a key or value out of bounds, `NoSpace` or `Io` if
    /// the log could not be written (nothing is stored then), `Poisoned` after a failed sync, `Closed`
    /// after close.
    ///
    /// # Example: many at once share their syncs
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = ringcask::Db::open(dir.path()).await?;
    /// let puts = (0..100_u32).map(|n| db.put(n.to_le_bytes(), format!("value {n}")));
    /// futures::future::try_join_all(puts).await?;
    /// assert_eq!(db.stats().total().keys, 100);
    /// # db.close().await }).unwrap();
    /// ```
    pub fn put<K: AsRef<[u8]>, V: IntoValue>(&self, key: K, value: V) -> Put<'_> {
        Put::new(&self.shared, self.space, key.as_ref(), value)
    }

    /// Returns the value of `key`, or `None` if it is absent.
    ///
    /// Reads the newest record published when the call looked the key up; never waits for a write in
    /// flight. A record in the page cache is read on the calling thread, without a hop to the worker.
    ///
    /// # Errors
    /// `Corrupt` if the record on disk fails its checksum or does not decompress, `Io` if it cannot be read, `Closed` after
    /// close, `InvalidArgument` for a key out of bounds.
    pub async fn get<K: AsRef<[u8]>>(&self, key: K) -> Result<Option<Bytes>> {
        self.shared.get(self.space.id, key.as_ref()).await
    }

    /// Whether `key` is present.
    ///
    /// # Errors
    /// As [`Db::get`]: the record is read and checked, because the keydir holds no keys.
    pub async fn contains_key<K: AsRef<[u8]>>(&self, key: K) -> Result<bool> {
        Ok(self.shared.get(self.space.id, key.as_ref()).await?.is_some())
    }

    /// What is known of `key` besides its value; `None` if it is absent.
    ///
    /// # Errors
    /// As [`Db::get`].
    pub async fn entry<K: AsRef<[u8]>>(&self, key: K) -> Result<Option<EntryInfo>> {
        Ok(self.shared.entry(self.space.id, key.as_ref()).await?.map(|entry| entry.info()))
    }

    /// The value of `key` and what else is known of it, of one and the same moment; `None` if it is absent.
    ///
    /// # Errors
    /// As [`Db::get`].
    ///
    /// # Example: change what was read, unless somebody else did meanwhile
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use ringcask::{Db, Expected};
    /// let db = Db::open(dir.path()).await?;
    /// db.put("k", "a long value").await?;
    /// let (value, info) = db.get_with_info("k").await?.unwrap();
    /// let longer = [&value[..], b", and longer"].concat();
    /// assert!(db.compare_and_swap("k", Expected::Seqno(info.seqno), longer).await?.is_done());
    /// # db.close().await }).unwrap();
    /// ```
    pub async fn get_with_info<K: AsRef<[u8]>>(
        &self,
        key: K,
    ) -> Result<Option<(Bytes, EntryInfo)>> {
        let entry = self.shared.entry(self.space.id, key.as_ref()).await?;
        Ok(entry.map(|entry| {
            let info = entry.info();
            (entry.value, info)
        }))
    }

    /// Deletes `key`; true if it was there.
    ///
    /// # Errors
    /// As [`Db::put`].
    pub async fn del<K: AsRef<[u8]>>(&self, key: K) -> Result<bool> {
        let key = key.as_ref();
        self.shared.check_place(self.space.id, key)?;
        let hash = self.shared.hash(self.space.id, key);
        let body = Body::plain(self.space.id, key, Bytes::new());
        let (reply, receiver) = reply_slot();
        let request = Request::Del { hash, body, durable: self.shared.durable, reply };
        Call::new(&self.shared, self.shared.shard_of(hash), request, receiver).await
    }

    /// Makes every write acknowledged before durable, whatever its [`Durability`](crate::Durability).
    ///
    /// # Errors
    /// `Poisoned` if a sync fails, `Closed` after close.
    pub async fn sync(&self) -> Result<()> {
        let syncs = (0..self.shared.partitions.len()).map(|shard| {
            let (reply, receiver) = reply_slot();
            Call::new(&self.shared, shard, Request::Sync { reply }, receiver)
        });
        futures::future::try_join_all(syncs).await?;
        Ok(())
    }

    /// Returns every key and value, in order of key; narrow it down with the methods of [`Scan`].
    ///
    /// A key that is there from the beginning to the end is seen exactly once; one that is put or deleted
    /// meanwhile may or may not be. Memory does not grow with the number of keys: they come from hint files,
    /// which are sorted, a block of some kilobytes of each at a time. A scan keeps the files that it reads on
    /// disk, whatever compaction does, until it is dropped or has passed them.
    ///
    /// A file that has no hint, as the one that is written now, is read the first time that a scan needs it,
    /// and after that only what was added; its keys stay in memory, compressed.
    ///
    /// # Example: the keys of one user
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = ringcask::Db::open(dir.path()).await?;
    /// db.put("user:1:name", "Ada").await?;
    /// db.put("user:2:name", "Grace").await?;
    /// let mut scan = db.scan().prefix("user:1:");
    /// while let Some(entry) = scan.next().await {
    ///     let (key, value) = entry?;
    ///     assert_eq!((&key[..], &value[..]), (&b"user:1:name"[..], &b"Ada"[..]));
    /// }
    /// # drop(scan);
    /// # db.close().await }).unwrap();
    /// ```
    pub fn scan(&self) -> Scan {
        Scan::new(snapshot::AsOf::now(self.shared.clone()), self.space.id)
    }

    /// How many keys there are.
    ///
    /// Every key is looked at, in order, because statistics count keys that have expired until they are swept;
    /// no value is read. [`Stats`] have the quick answer: a little more at times.
    ///
    /// # Errors
    /// As [`Db::get`].
    pub async fn count(&self) -> Result<u64> {
        self.scan().count().await
    }

    /// What the store has counted since it was opened, and what it holds now.
    pub fn stats(&self) -> Stats {
        let shared = &self.shared;
        let partitions =
            shared.partitions.iter().map(|shard| shard.view.stats(shard.mailbox.depth())).collect();
        let (snapshots, snapshot_bytes) = shared.snapshots.count();
        let (io, workers) = (shared.io_name, shared.worker_count);
        let watching = shared.watchers.watching();
        let (read_cache_bytes, read_cache_hits) = shared.read_cache.stats();
        Stats {
            partitions,
            io,
            workers,
            snapshots,
            snapshot_bytes,
            locked_bytes: shared.locked.as_ref().map_or(0, |memory| memory.used()),
            read_cache_bytes,
            read_cache_hits,
            watchers: watching.watchers,
            watch_events_queued: watching.events_queued,
            watch_bytes_queued: watching.bytes_queued,
            watch_events_missed: watching.events_missed,
            change_streams: watching.streams,
            change_followers: watching.followers,
        }
    }

    /// The partition that `key` belongs to: what survives a power cut is a beginning of what each had.
    #[cfg(any(test, feature = "sim"))]
    #[doc(hidden)]
    pub fn partition_of<K: AsRef<[u8]>>(&self, key: K) -> usize {
        self.shared.shard_of(self.shared.hash(self.space.id, key.as_ref()))
    }

    /// The directory of the store.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Closes the store: what was sent is finished, the log is sealed and synced, the lock is released.
    /// Later operations, on any handle, are refused with [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    ///
    /// May be called more than once, from several tasks, with operations in flight; every call returns
    /// when the store is closed. Dropping the future does not stop the closing.
    ///
    /// # Errors
    /// `Poisoned`, `NoSpace` or `Io` if the log could not be sealed; what was acknowledged as durable is
    /// safe all the same.
    pub async fn close(&self) -> Result<()> {
        self.shared.begin_close();
        self.shared.lifecycle.closed().await
    }
}

impl Shared {
    fn begin_close(&self) {
        self.lifecycle.begin_close();
        for shard in &self.partitions {
            shard.mailbox.close();
        }
        self.peers.publications().close();
    }

    fn hash(&self, keyspace: KeyspaceId, key: &[u8]) -> KeyHash {
        self.hasher.hash(keyspace, key)
    }

    fn shard_of(&self, hash: KeyHash) -> usize {
        self.map.partition_of(hash).0 as usize
    }

    /// Why a request got no answer: its partition failed, or the store was closed.
    fn no_answer(&self, shard: usize) -> Error {
        match self.partitions[shard].view.failure() {
            Some(failure) => failure.clone(),
            None if self.lifecycle.is_closing() => Error::closed(),
            None => Error::new(
                ErrorKind::Poisoned,
                "the partition's worker is gone, which is a bug in ringcask; close the store and open it \
                 again to go on",
            ),
        }
    }

    /// Whether the store is open and the keyspace is there.
    fn check_open(&self, keyspace: KeyspaceId) -> Result<()> {
        if self.lifecycle.is_closing() {
            return Err(Error::closed());
        }
        self.keyspaces.check(keyspace)
    }

    /// Whether there can be such a key in a keyspace that is there.
    fn check_place(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<()> {
        self.keyspaces.check(keyspace)?;
        self.check_key(key)
    }

    fn check_key(&self, key: &[u8]) -> Result<()> {
        if key.is_empty() {
            return Err(Error::invalid("the key is empty; a key has at least one byte"));
        }
        if key.len() > self.key_len_max {
            return Err(Error::invalid(format!(
                "the key is {} bytes long; key_len_max is {}",
                key.len(),
                self.key_len_max
            )));
        }
        Ok(())
    }

    fn check_value_len(&self, len: usize) -> Result<()> {
        if len > self.value_len_max {
            return Err(Error::invalid(format!(
                "the value is {len} bytes long; value_len_max is {}",
                self.value_len_max
            )));
        }
        Ok(())
    }

    async fn get(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.entry(keyspace, key).await?.map(|entry| entry.value))
    }

    async fn entry(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<Entry>> {
        self.read(keyspace, key, true).await
    }

    /// Whether the read is a use of the key decides what eviction makes of it.
    async fn read(&self, keyspace: KeyspaceId, key: &[u8], is_use: bool) -> Result<Option<Entry>> {
        match self.read_now(keyspace, key, is_use)? {
            ReadNow::Found(entry) => Ok(Some(entry)),
            ReadNow::Missing => Ok(None),
            ReadNow::Hop => {
                let hash = self.hash(keyspace, key);
                let (reply, receiver) = reply_slot();
                let key = Bytes::copy_from_slice(key);
                let request = Request::Get { hash, keyspace, key, reply };
                let stored = Call::new(self, self.shard_of(hash), request, receiver).await?;
                stored.map(|stored| stored.decode(&self.codecs)).transpose()
            }
        }
    }

    /// As [`read`](Self::read), as far as it goes without waiting.
    fn read_now(&self, keyspace: KeyspaceId, key: &[u8], is_use: bool) -> Result<ReadNow> {
        self.check_key(key)?;
        self.check_open(keyspace)?;
        let hash = self.hash(keyspace, key);
        Ok(read::read_now(self, self.shard_of(hash), hash, (keyspace, key), is_use))
    }
}
