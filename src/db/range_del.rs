//! Deleting ranges of keys.

use std::future::Future;
use std::ops::{Bound, RangeBounds};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::JoinAll;

use super::call::Call;
use super::{Db, Shared};
use crate::error::Result;
use crate::mailbox::{Body, Durable, Request, reply_slot};
use crate::options::Durability;
use crate::ranges::{bounds_of, bounds_of_prefix};
use crate::types::KeyspaceId;

/// A deletion of a range of keys that has not been sent yet; await it to send it.
///
/// It costs one record in each partition, however many keys there are. When it resolves, every key of the range
/// that was there when it was sent is gone, for all readers, and as durably as asked. Memory and space are given back
/// by and by: see [`range_dels_pending`](crate::PartitionStats::range_dels_pending). A put that is sent after it
/// resolved stays.
///
/// Partitions are on their own: while it is under way a reader may find a key of one partition gone and one of
/// another still there, and so may whoever opens the store after a crash meanwhile. If it fails it may have
/// been done in some partitions; doing it again does no harm.
#[must_use = "nothing is deleted until this is awaited"]
pub struct DelRange<'a> {
    shared: &'a Shared,
    state: State<'a>,
}

enum State<'a> {
    /// `None` if no key can be in the range.
    Unsent {
        keyspace: KeyspaceId,
        bounds: Option<(Bytes, Bytes)>,
        durable: Durable,
    },
    Sent(JoinAll<Call<'a, ()>>),
    Done,
}

impl Db {
    /// Deletes every key within `range`, of this handle's keyspace.
    ///
    /// # Errors
    /// As [`Db::put`].
    ///
    /// # Example: a month of a log
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = ringcask::Db::open(dir.path()).await?;
    /// for day in ["2026-04-30", "2026-05-01", "2026-05-31", "2026-06-01"] {
    ///     db.put(day, "…").await?;
    /// }
    /// db.delete_range("2026-05".."2026-06").await?;
    /// assert_eq!(db.get("2026-05-31").await?, None);
    /// assert_eq!(db.count().await?, 2);
    /// # db.close().await }).unwrap();
    /// ```
    pub fn delete_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> DelRange<'_> {
        fn bytes<K: AsRef<[u8]>>(bound: Bound<&K>) -> Bound<&[u8]> {
            bound.map(AsRef::as_ref)
        }
        self.del_range(bounds_of(bytes(range.start_bound()), bytes(range.end_bound())))
    }

    /// Deletes every key that begins with `prefix`, of this handle's keyspace; an empty one is that of all keys.
    ///
    /// # Errors
    /// As [`Db::put`].
    pub fn delete_prefix(&self, prefix: impl AsRef<[u8]>) -> DelRange<'_> {
        self.del_range(bounds_of_prefix(prefix.as_ref()))
    }

    /// Deletes every key of this handle's keyspace, and none of the others.
    ///
    /// # Errors
    /// As [`Db::put`].
    ///
    /// # Example: an empty cache
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = ringcask::Db::open(dir.path()).await?;
    /// let cache = db.keyspace("cache").await?;
    /// cache.put("k", "v").await?;
    /// db.put("k", "v").await?;
    /// cache.clear().await?;
    /// assert_eq!(cache.get("k").await?, None);
    /// assert!(db.contains_key("k").await?);
    /// # db.close().await }).unwrap();
    /// ```
    pub fn clear(&self) -> DelRange<'_> {
        self.del_range(bounds_of(Bound::Unbounded, Bound::Unbounded))
    }

    fn del_range(&self, bounds: Option<(Bytes, Bytes)>) -> DelRange<'_> {
        let (shared, keyspace) = (&*self.shared, self.space.id);
        DelRange { shared, state: State::Unsent { keyspace, bounds, durable: shared.durable } }
    }
}

impl DelRange<'_> {
    /// When it is acknowledged, instead of what the store was opened with.
    pub fn durability(mut self, durability: Durability) -> Self {
        if let State::Unsent { durable, .. } = &mut self.state {
            *durable = durability.of_write();
        }
        self
    }
}

impl Future for DelRange<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            match &mut self.state {
                State::Unsent { keyspace, bounds, durable } => {
                    let (keyspace, durable) = (*keyspace, *durable);
                    let bounds = bounds.take();
                    self.shared.check_open(keyspace)?;
                    let Some((begin, end)) = bounds else {
                        self.state = State::Done;
                        return Poll::Ready(Ok(()));
                    };
                    let sent = self.shared.del_range(keyspace, &begin, &end, false, durable);
                    self.state = State::Sent(sent);
                }
                State::Sent(calls) => {
                    let ended = ready!(Pin::new(calls).poll(cx));
                    self.state = State::Done;
                    return Poll::Ready(ended.into_iter().collect());
                }
                State::Done => return Poll::Pending,
            }
        }
    }
}

impl Shared {
    /// Deletes a range in every partition.
    pub(super) fn del_range(
        &self,
        keyspace: KeyspaceId,
        begin: &Bytes,
        end: &Bytes,
        is_drop: bool,
        durable: Durable,
    ) -> JoinAll<Call<'_, ()>> {
        let calls = (0..self.partitions.len()).map(|shard| {
            let (reply, receiver) = reply_slot();
            let body = Body::plain(keyspace, begin, end.clone());
            let request = Request::RangeDel { body, is_drop, durable, reply };
            Call::new(self, shard, request, receiver)
        });
        futures::future::join_all(calls)
    }
}
