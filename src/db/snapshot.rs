//! Snapshots: the store as it was at one moment, while everything goes on (S1).
//!
//! ```text
//! no batch over partitions is half published           (mailbox/publications.rs)
//! every partition marks what it has, and waits          (mailbox/gate.rs, partition/snapshot.rs)
//! the last one has marked: the snapshot is there, and all go on
//! reads      keydir first, then what it said before     (moment.rs)
//! ```
//!
//! What was there is on disk, in files that the snapshot holds on to; nothing is copied.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::call::Call;
use super::read::{ReadNow, read_place};
use super::{Db, Scan, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::keydir::Location;
use crate::limits::SNAPSHOT_GETS_MAX;
use crate::log::data_file::FileTable;
use crate::mailbox::{Entry, GetAt, Marked, Message, Peers, Request, reply_slot};
use crate::moment::{Before, End, Life, Moment, Place};
use crate::types::{EntryInfo, ExpiresAt, FileId, KeyHash, KeyspaceId, Seqno};

/// The store, or one keyspace of it, as it was at one moment; made by [`Db::snapshot`].
///
/// Whatever is written, deleted, evicted or compacted later, and whatever expires later, is not seen. Reads go on at the
/// speed of those of the store. It costs the disk space of what it holds, and memory for each key that changes
/// while it lives; both are given back when it is dropped, with its clones and scans. It ends by itself when it gets
/// [too old](crate::Options::snapshot_age_max), or when [too much](crate::Options::snapshot_bytes_max) is
/// changed; then reads fail with [`SnapshotEnded`](ErrorKind::SnapshotEnded). It is no handle: after the store is closed
/// it cannot be read.
#[derive(Clone)]
pub struct Snapshot {
    as_of: AsOf,
    keyspace: KeyspaceId,
}

impl Db {
    /// The store as it is now: one moment over all partitions, at which each [batch](Db::write) has happened whole or
    /// not at all.
    ///
    /// What was acknowledged before is in it. Waits for commit groups that are in flight, one for each partition, and
    /// holds other writes up for that time; reads go on. Any number of snapshots may live at once.
    ///
    /// A [`Keyspace`](crate::Keyspace) makes one that is about its own keys; [`Snapshot::keyspace`] shows another
    /// keyspace at the same moment.
    ///
    /// # Errors
    /// `Closed` after close; `Poisoned` if a worker is gone.
    ///
    /// # Example: a report of one moment
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = ringcask::Db::open(dir.path()).await?;
    /// db.put("balance:ada", "10").await?;
    /// db.put("balance:bob", "20").await?;
    /// let snapshot = db.snapshot().await?;
    /// db.put("balance:ada", "0").await?;
    /// db.del("balance:bob").await?;
    /// assert_eq!(snapshot.get("balance:ada").await?.as_deref(), Some(b"10".as_slice()));
    /// assert_eq!(snapshot.scan().prefix("balance:").count().await?, 2);
    /// assert_eq!(db.count().await?, 1);
    /// # drop(snapshot);
    /// # db.close().await }).unwrap();
    /// ```
    pub async fn snapshot(&self) -> Result<Snapshot> {
        let shared = &self.shared;
        let _turn = shared.moment_turn.lock().await;
        loop {
            shared.check_open(self.space.id)?;
            let hold = shared.peers.hold();
            std::future::poll_fn(|cx| hold.poll_quiet(cx)).await;
            // Ends it, if nobody waits for it any more.
            let living = Living { life: shared.snapshots.begin(), peers: shared.peers.clone() };
            let gate = shared.peers.gate(|marking| Message::Snapshot(marking, living.life.clone()));
            let marked = std::future::poll_fn(|cx| gate.poll_marked(cx)).await;
            let Marked { marks, now_ms } = marked.map_err(|shard| shared.no_answer(shard))?;
            // Otherwise publications went on meanwhile, because this took too long.
            if hold.is_valid() {
                let at = At { moments: marks, now_ms, living };
                let as_of = AsOf { shared: shared.clone(), at: Some(Arc::new(at)) };
                return Ok(Snapshot { as_of, keyspace: self.space.id });
            }
        }
    }
}

impl Snapshot {
    /// Returns the value that `key` had, or `None` if it was absent.
    ///
    /// # Errors
    /// `SnapshotEnded` as [`Snapshot`] says; otherwise as [`Db::get`].
    pub async fn get<K: AsRef<[u8]>>(&self, key: K) -> Result<Option<Bytes>> {
        Ok(self.as_of.read(self.keyspace, key.as_ref()).await?.map(|entry| entry.value))
    }

    /// Returns the values of `keys`, in their order; cold records are read at the same time.
    ///
    /// # Errors
    /// As [`Snapshot::get`]; the first error is returned.
    pub async fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Bytes>>> {
        let keys: Vec<Bytes> =
            keys.into_iter().map(|key| Bytes::copy_from_slice(key.as_ref())).collect();
        let gets = keys.into_iter().map(|key| self.get(key));
        stream::iter(gets).buffered(SNAPSHOT_GETS_MAX).try_collect().await
    }

    /// Whether `key` was present.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub async fn contains_key<K: AsRef<[u8]>>(&self, key: K) -> Result<bool> {
        Ok(self.get(key).await?.is_some())
    }

    /// What was known of `key` besides its value; `None` if it was absent.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub async fn entry<K: AsRef<[u8]>>(&self, key: K) -> Result<Option<EntryInfo>> {
        Ok(self.as_of.read(self.keyspace, key.as_ref()).await?.map(|entry| entry.info()))
    }

    /// Returns every key and value that there was, in order of key; narrow it down with the methods of [`Scan`].
    ///
    /// The stream keeps the snapshot alive. Pages of it may be asked for at any time while it lives, and leave nothing
    /// out and pass nothing twice.
    ///
    /// # Example: pages, whatever is written meanwhile
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = ringcask::Db::open(dir.path()).await?;
    /// for key in ["a", "b", "c"] {
    ///     db.put(key, "").await?;
    /// }
    /// let snapshot = db.snapshot().await?;
    /// let first = snapshot.scan().keys().limit(2).page(None).await?;
    /// db.clear().await?;
    /// let second = snapshot.scan().keys().limit(2).page(first.next.as_ref()).await?;
    /// assert_eq!((first.entries, second.entries), (vec!["a".into(), "b".into()], vec!["c".into()]));
    /// # drop(snapshot);
    /// # db.close().await }).unwrap();
    /// ```
    pub fn scan(&self) -> Scan {
        Scan::new(self.as_of.clone(), self.keyspace)
    }

    /// How many keys there were. Every key is looked at, and no value.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub async fn count(&self) -> Result<u64> {
        self.scan().count().await
    }

    /// The same moment of another keyspace: of the one that `handle` is bound to, which may be a
    /// [`Keyspace`](crate::Keyspace), or a [`Db`] for the default one. One that was made later is empty.
    ///
    /// # Errors
    /// `InvalidArgument` for a handle of another store; `KeyspaceDropped` if the keyspace was dropped.
    ///
    /// # Example: two keyspaces that belong together
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = ringcask::Db::open(dir.path()).await?;
    /// let index = db.keyspace("index").await?;
    /// db.put("k", "v").await?;
    /// index.put("v", "k").await?;
    /// let now = db.snapshot().await?;
    /// let index_now = now.keyspace(&index)?;
    /// index.clear().await?;
    /// assert_eq!(index_now.get("v").await?.as_deref(), Some(b"k".as_slice()));
    /// # drop((now, index_now));
    /// # db.close().await }).unwrap();
    /// ```
    pub fn keyspace(&self, handle: &Db) -> Result<Snapshot> {
        if !Arc::ptr_eq(&handle.shared, &self.as_of.shared) {
            return Err(Error::invalid(format!(
                "{}: the keyspace belongs to another store than the snapshot, which is of {}",
                handle.path().display(),
                self.as_of.shared.path.display()
            )));
        }
        self.as_of.shared.keyspaces.check(handle.space.id)?;
        Ok(Snapshot { as_of: self.as_of.clone(), keyspace: handle.space.id })
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("path", &self.as_of.shared.path)
            .field("keyspace", &self.keyspace)
            .finish_non_exhaustive()
    }
}

/// Every partition at the moment of a snapshot.
struct At {
    moments: Vec<Arc<Moment>>,
    /// In milliseconds since 1970: what had expired by then is not there, and what expires later stays.
    now_ms: u64,
    living: Living,
}

/// A snapshot that somebody has, or waits for.
struct Living {
    life: Arc<Life>,
    peers: Arc<Peers>,
}

impl Drop for Living {
    fn drop(&mut self) {
        if self.life.end(End::Dropped) {
            self.peers.snapshot_ended();
        }
    }
}

impl At {
    /// Where the newest record of the key was.
    fn find(&self, shared: &Shared, shard: usize, hash: KeyHash) -> Result<Option<Place>> {
        let view = &shared.partitions[shard].view;
        // In this order (SS1, SS3).
        let now = view.keydir.lookup(hash, |location| {
            // While the entry is known to be there, so is its file.
            (location, view.files.load().get(location.slot).cloned())
        });
        let before = self.moments[shard].before(hash);
        self.check(shared, shard)?;
        match (before, now) {
            (Before::At(place), _) => Ok(Some(place)),
            (Before::Absent, _) | (Before::Same, None) => Ok(None),
            (Before::Same, Some((location, Some(data)))) => Ok(Some(Place { data, location })),
            (Before::Same, Some((_, None))) => Err(shared.no_answer(shard)),
        }
    }

    fn check(&self, shared: &Shared, shard: usize) -> Result<()> {
        let Living { life, peers } = &self.living;
        if life.grow_old() {
            peers.snapshot_ended();
        }
        match life.ended() {
            None => Ok(()),
            Some(End::Gone | End::Dropped) => Err(shared.no_answer(shard)),
            Some(End::TooOld) => Err(too_old(shared)),
            Some(End::TooLarge) => Err(too_large(shared)),
        }
    }

    fn hides(&self, expires_at: Option<ExpiresAt>) -> bool {
        expires_at.is_some_and(|at| at.as_ms() <= self.now_ms)
    }

    /// The entry of a key, unless it had expired, or its range had been deleted.
    fn shown(
        &self,
        shard: usize,
        (keyspace, key): (KeyspaceId, &[u8]),
        entry: Option<Entry>,
    ) -> Option<Entry> {
        let cover = self.moments[shard].ranges.cover(keyspace, key);
        entry.filter(|entry| entry.seqno >= cover && !self.hides(entry.expires_at))
    }
}

/// Where reads look: at what is there now, or at what was there at a moment.
#[derive(Clone)]
pub(super) struct AsOf {
    shared: Arc<Shared>,
    at: Option<Arc<At>>,
}

/// What is known of a key without reading its record.
#[derive(Clone, Copy)]
pub(super) struct Located {
    /// Where it is, and in which file, if it might matter.
    pub(super) found: Option<(Location, Option<FileId>)>,
    /// Below this sequence number the key is deleted; zero if it is in no range that was deleted.
    pub(super) cover: Seqno,
}

impl AsOf {
    /// What there is now.
    pub(super) fn now(shared: Arc<Shared>) -> AsOf {
        AsOf { shared, at: None }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Whether it can be read.
    pub(super) fn check(&self, keyspace: KeyspaceId) -> Result<()> {
        match &self.at {
            None => self.shared.check_open(keyspace),
            // What was there is there, also if its keyspace was dropped since (N1).
            Some(_) if self.shared.lifecycle.is_closing() => Err(Error::closed()),
            Some(at) => at.check(&self.shared, 0),
        }
    }

    /// The files of a partition, and what scans walk over.
    pub(super) fn table(&self, shard: usize) -> Result<Arc<FileTable>> {
        if let Some(at) = &self.at {
            let table = at.moments[shard].table();
            at.check(&self.shared, shard)?;
            return Ok(table);
        }
        let view = &self.shared.partitions[shard].view;
        let table = view.files.load_full();
        if table.iter().next().is_none() && view.is_gone() {
            return Err(self.shared.no_answer(shard));
        }
        Ok(table)
    }

    /// Where each of these keys of one partition is, told with its number, in any order.
    pub(super) fn locate_many<'k>(
        &self,
        shard: usize,
        keyspace: KeyspaceId,
        keys: impl Iterator<Item = &'k [u8]>,
        mut tell: impl FnMut(usize, Located),
    ) -> Result<()> {
        if let Some(at) = &self.at {
            for (number, key) in keys.enumerate() {
                let cover = at.moments[shard].ranges.cover(keyspace, key);
                let found = at.find(&self.shared, shard, self.shared.hash(keyspace, key))?;
                let found = found.map(|place| (place.location, Some(place.data.id)));
                tell(number, Located { found, cover });
            }
            return Ok(());
        }
        let view = &self.shared.partitions[shard].view;
        // Before the look-up (RG2).
        let cover_and_hash =
            |key| (view.ranges.cover(keyspace, key), self.shared.hash(keyspace, key));
        let (covers, hashes): (Vec<_>, Vec<_>) = keys.map(cover_and_hash).unzip();
        view.keydir.lookup_many(&hashes, |number, location| {
            let cover = covers[number];
            let found = location.map(|location| {
                let is_wanted = location.has_expiry || cover > Seqno(0);
                // While the entry is known to be there, so is its file.
                let file = |()| view.files.load().get(location.slot).map(|data| data.id);
                (location, is_wanted.then_some(()).and_then(file))
            });
            tell(number, Located { found, cover });
        });
        Ok(())
    }

    /// Whether a record with this expiry is not to be shown.
    pub(super) fn hides(&self, expires_at: Option<ExpiresAt>) -> bool {
        match &self.at {
            None => self.shared.expiry.hides(expires_at),
            Some(at) => at.hides(expires_at),
        }
    }

    /// The entry of a key; it is no use of it that eviction would count.
    pub(super) async fn read(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<Entry>> {
        let (shared, at) = match &self.at {
            None => return self.shared.read(keyspace, key, false).await,
            Some(at) => (&*self.shared, at),
        };
        let place = match self.seek(at, keyspace, key)? {
            Sought::Known(entry) => return Ok(entry),
            Sought::At(place) => place,
        };
        let shard = shared.shard_of(shared.hash(keyspace, key));
        let (reply, receiver) = reply_slot();
        let get = GetAt { place, keyspace, key: Bytes::copy_from_slice(key), reply };
        let stored = Call::new(shared, shard, Request::GetAt(Box::new(get)), receiver).await?;
        let entry = stored.map(|stored| stored.decode(&shared.codecs)).transpose()?;
        Ok(at.shown(shard, (keyspace, key), entry))
    }

    /// As [`read`](Self::read), as far as it goes without waiting.
    pub(super) fn read_now(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<ReadNow> {
        let Some(at) = &self.at else {
            return self.shared.read_now(keyspace, key, false);
        };
        Ok(match self.seek(at, keyspace, key)? {
            Sought::Known(Some(entry)) => ReadNow::Found(entry),
            Sought::Known(None) => ReadNow::Missing,
            Sought::At(_) => ReadNow::Hop,
        })
    }

    fn seek(&self, at: &At, keyspace: KeyspaceId, key: &[u8]) -> Result<Sought> {
        let shared = &*self.shared;
        shared.check_key(key)?;
        self.check(keyspace)?;
        let hash = shared.hash(keyspace, key);
        let shard = shared.shard_of(hash);
        let view = &shared.partitions[shard].view;
        let Some(place) = at.find(shared, shard, hash)? else {
            view.gets_hop_free.add(1);
            view.gets_missing.add(1);
            return Ok(Sought::Known(None));
        };
        Ok(match read_place(shared, shard, &place, (keyspace, key)) {
            None => Sought::At(place),
            entry => Sought::Known(at.shown(shard, (keyspace, key), entry)),
        })
    }
}

/// What a moment says of a key.
enum Sought {
    Known(Option<Entry>),
    /// The record there has to be waited for.
    At(Place),
}

#[cold]
fn too_old(shared: &Shared) -> Error {
    Error::new(
        ErrorKind::SnapshotEnded,
        format!(
            "{}: the snapshot is older than {:?}: make another one, or allow more by \
             Options::snapshot_age_max",
            shared.path.display(),
            shared.snapshots.age_max().unwrap_or_default()
        ),
    )
}

#[cold]
fn too_large(shared: &Shared) -> Error {
    Error::new(
        ErrorKind::SnapshotEnded,
        format!(
            "{}: so much was changed since the snapshot was made that all snapshots take more than {} bytes of \
             memory, and it was the oldest: make another one, or allow more by Options::snapshot_bytes_max",
            shared.path.display(),
            shared.snapshots.bytes_max()
        ),
    )
}
