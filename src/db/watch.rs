//! Watching keys change.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::Bytes;
use futures::{Stream, StreamExt};

use super::{Db, Shared};
use crate::error::{Error, Result};
use crate::limits::{
    WATCH_BYTES_MAX_DEFAULT, WATCH_EVENTS_MAX_DEFAULT, WATCH_VALUE_LEN_MAX_DEFAULT,
};
use crate::log::format::record::RecordHeader;
use crate::mailbox::{Changed, Event, Interest, Told, WatchedKeys, Watcher};
use crate::ranges::RangeDel;
use crate::route::{KeyHasher, PartitionMap};
use crate::types::{ExpiresAt, PartitionId};

/// A stream of what happens to keys; made by [`Db::watch`].
///
/// An error ends the stream, and so does closing the store. Dropping it ends the watch.
#[must_use = "a watch sees nothing before it has begun"]
pub struct Watch {
    shared: Arc<Shared>,
    interest: Interest,
    events_max: usize,
    bytes_max: usize,
    state: State,
}

enum State {
    Unsent,
    Watching(Arc<Watcher>),
    Ended,
}

/// What happened to a key that is [watched](Db::watch).
///
/// Every change has the sequence number of the record behind it, as [`EntryInfo`](crate::EntryInfo) has it: for one
/// key, and for all keys of one partition, numbers only grow.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// The key has a new value, or the same one with another time to live.
    Put {
        /// The key.
        key: Bytes,
        /// The value; `None` if it is longer than [`Watch::value_len_max`].
        value: Option<Bytes>,
        /// Of the write.
        seqno: u64,
        /// When it expires; `None` if never.
        expires_at: Option<SystemTime>,
    },
    /// The key was deleted.
    Del {
        /// The key.
        key: Bytes,
        /// Of the deletion.
        seqno: u64,
    },
    /// The key has expired. Readers miss it from that moment on; this comes when the store has noticed.
    Expired {
        /// The key.
        key: Bytes,
        /// Of the write that has expired: nothing is written for an expiry.
        seqno: u64,
    },
    /// The key was evicted, to keep within a bound.
    Evicted {
        /// The key.
        key: Bytes,
        /// Of the eviction.
        seqno: u64,
    },
    /// A range of keys was deleted at once, by `clear`, `delete_range`, `delete_prefix` or `drop_keyspace`.
    DelRange {
        /// Which keys. Each partition tells this of its own keys, so it comes once for each partition.
        range: DeletedRange,
        /// Of the deletion.
        seqno: u64,
    },
    /// So many events are missing here, because they were not taken in time. What happened meanwhile can only be
    /// read from the store.
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// Keys of one partition that were deleted at once; part of [`WatchEvent::DelRange`].
#[derive(Clone)]
pub struct DeletedRange {
    range: RangeDel,
    partition: PartitionId,
    hasher: KeyHasher,
    map: PartitionMap,
}

impl DeletedRange {
    pub(super) fn new(shared: &Shared, range: RangeDel, partition: PartitionId) -> DeletedRange {
        DeletedRange { range, partition, hasher: shared.hasher.clone(), map: shared.map }
    }

    /// The first key that may be in it.
    pub fn begin(&self) -> &Bytes {
        &self.range.begin
    }

    /// The key before which it ends; `None` if nothing follows it.
    pub fn end(&self) -> Option<&Bytes> {
        Some(&self.range.end).filter(|end| !end.is_empty())
    }

    /// The partition whose keys these are, from zero.
    pub fn partition(&self) -> usize {
        self.partition.0 as usize
    }

    /// Whether `key` was deleted with it, if it was there: it lies between begin and end, and belongs to this
    /// partition. The other partitions have deleted theirs before or after this, and told so.
    pub fn contains(&self, key: impl AsRef<[u8]>) -> bool {
        let (keyspace, key) = (self.range.keyspace, key.as_ref());
        self.range.covers(keyspace, key)
            && self.map.partition_of(self.hasher.hash(keyspace, key)) == self.partition
    }
}

impl fmt::Debug for DeletedRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeletedRange")
            .field("begin", self.begin())
            .field("end", &self.end())
            .field("partition", &self.partition())
            .finish_non_exhaustive()
    }
}

impl PartialEq for DeletedRange {
    fn eq(&self, other: &DeletedRange) -> bool {
        (&self.range, self.partition) == (&other.range, other.partition)
    }
}

impl Eq for DeletedRange {}

impl Db {
    /// Watches the keys of this handle's keyspace; narrow it down with the methods of [`Watch`].
    ///
    /// The watch begins with [`Watch::begin`], or when the stream is first polled. From then on it yields every
    /// change that a caller can have seen: whatever way it came (a put, an increment, a batch, a new time to
    /// live, an expiry, an eviction, …), when it is published, and so only once it is as durable as was asked for. The changes
    /// of a key come in the order in which they happened; those of keys of different partitions in any order. A
    /// rename is a deletion and a put. When a write is acknowledged its events are there to be taken, and those of a batch
    /// come one behind the other for each partition.
    ///
    /// Writers never wait for a watcher. What is not taken waits in a [buffer](Watch::buffer), and when that is full
    /// events are left out: [`WatchEvent::Lagged`] stands where they are missing, and says how many. While nobody watches
    /// it costs writers nothing.
    ///
    /// A deletion of a key that was not there may be told or not, and a key that has expired and is put again before the store
    /// noticed is only told as put. A stream ends when the store is closed, after what was still to be told.
    ///
    /// # Example: what happens to one user
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use ringcask::{Db, WatchEvent};
    /// let db = Db::open(dir.path()).await?;
    /// let mut watch = db.watch().prefix("user:1:").begin()?;
    /// db.put("user:1:name", "Ada").await?;
    /// db.put("user:2:name", "Grace").await?;
    /// db.del("user:1:name").await?;
    /// let Some(WatchEvent::Put { key, value, .. }) = watch.next().await.transpose()? else { panic!() };
    /// assert_eq!((&key[..], value.as_deref()), (&b"user:1:name"[..], Some(&b"Ada"[..])));
    /// assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Del { .. }))));
    /// db.close().await?;
    /// assert!(watch.next().await.is_none());
    /// # Ok::<(), ringcask::Error>(()) }).unwrap();
    /// ```
    pub fn watch(&self) -> Watch {
        let (keyspace, keys) = (self.space.id, WatchedKeys::All);
        Watch {
            shared: self.shared.clone(),
            interest: Interest { keyspace, keys, value_len_max: WATCH_VALUE_LEN_MAX_DEFAULT },
            events_max: WATCH_EVENTS_MAX_DEFAULT,
            bytes_max: WATCH_BYTES_MAX_DEFAULT,
            state: State::Unsent,
        }
    }
}

impl Watch {
    /// Only keys that begin with `prefix`, instead of all.
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> Watch {
        self.interest.keys = WatchedKeys::Prefix(Bytes::copy_from_slice(prefix.as_ref()));
        self
    }

    /// Only this key, instead of all.
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Watch {
        self.interest.keys = WatchedKeys::One(Bytes::copy_from_slice(key.as_ref()));
        self
    }

    /// Values longer than this many bytes are left out of their events; default 64 KiB, and 0 leaves out all that are not
    /// empty. Whoever needs such a value gets it from the store, where it may be a newer one by then.
    pub fn value_len_max(mut self, bytes: usize) -> Watch {
        self.interest.value_len_max = bytes;
        self
    }

    /// So many events, of so many bytes together, wait to be taken before events are left out; default 4096 and
    /// 4 MiB. One event is kept however long it is. After a gap events are left out until half of the buffer is free again.
    pub fn buffer(mut self, events: usize, bytes: usize) -> Watch {
        self.events_max = events.max(1);
        self.bytes_max = bytes;
        self
    }

    /// Begins at once: whatever is sent to the store from here on will be seen.
    ///
    /// # Errors
    /// `Closed` after close, `KeyspaceDropped` if the keyspace is gone. Without this call the stream yields them.
    ///
    /// # Example: no change between what was read and what is watched
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = ringcask::Db::open(dir.path()).await?;
    /// let mut watch = db.watch().key("config").begin()?;
    /// let now = db.get("config").await?; // Whatever replaces this will be told.
    /// # assert!(now.is_none());
    /// # drop(watch);
    /// # db.close().await }).unwrap();
    /// ```
    pub fn begin(mut self) -> Result<Watch> {
        self.register()?;
        Ok(self)
    }

    /// The next event, or `None` when the store is closed.
    ///
    /// # Errors
    /// As [`Watch::begin`], if the watch has not begun. `Corrupt` if a value does not decompress or decrypt.
    pub async fn next(&mut self) -> Option<Result<WatchEvent>> {
        StreamExt::next(self).await
    }

    fn register(&mut self) -> Result<Arc<Watcher>> {
        match &self.state {
            State::Watching(watcher) => return Ok(watcher.clone()),
            State::Ended => return Err(Error::closed()),
            State::Unsent => {}
        }
        self.shared.check_open(self.interest.keyspace)?;
        let interest = self.interest.clone();
        let watcher = self.shared.watchers.begin(interest, self.events_max, self.bytes_max);
        self.state = State::Watching(watcher.clone());
        Ok(watcher)
    }

    fn end(&mut self) {
        if let State::Watching(watcher) = std::mem::replace(&mut self.state, State::Ended) {
            self.shared.watchers.leave(&watcher);
        }
    }
}

impl Stream for Watch {
    type Item = Result<WatchEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if matches!(self.state, State::Ended) {
            return Poll::Ready(None);
        }
        let watcher = match self.register() {
            Ok(watcher) => watcher,
            Err(error) => {
                self.end();
                return Poll::Ready(Some(Err(error)));
            }
        };
        let event = match ready!(watcher.poll_told(cx)) {
            Some(Told::Event(event)) => self.shared.watch_event(event),
            Some(Told::Missed(missed)) => Ok(WatchEvent::Lagged { missed }),
            None => {
                self.end();
                return Poll::Ready(None);
            }
        };
        if event.is_err() {
            self.end();
        }
        Poll::Ready(Some(event))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn watch_event(&self, event: Event) -> Result<WatchEvent> {
        let Event { keyspace, seqno, change } = event;
        let seqno = seqno.0;
        Ok(match change {
            Changed::Put { key, header, stored } => {
                let value = stored.map(|stored| self.watched_value(&header, stored)).transpose()?;
                let expires_at = header.expires_at().map(ExpiresAt::as_time);
                WatchEvent::Put { key, value, seqno, expires_at }
            }
            Changed::Del { key } => WatchEvent::Del { key, seqno },
            Changed::Expired { key } => WatchEvent::Expired { key, seqno },
            Changed::Evicted { key } => WatchEvent::Evicted { key, seqno },
            Changed::RangeDel { begin, end, partition } => {
                let range = RangeDel { keyspace, begin, end, seqno: event.seqno };
                WatchEvent::DelRange { range: DeletedRange::new(self, range, partition), seqno }
            }
        })
    }

    /// Decoded where the stream is polled, and not by the worker.
    pub(super) fn watched_value(&self, header: &RecordHeader, stored: Bytes) -> Result<Bytes> {
        match self.codecs.decode(header, &stored) {
            Ok(Some(value)) => Ok(value.into()),
            Ok(None) => Ok(stored),
            Err(why) => Err(why.at(&self.path, 0)),
        }
    }
}
