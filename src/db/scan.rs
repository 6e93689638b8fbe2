//! Walking the store in key order.
//!
//! First pass: pages of every partition's log, keeping the keys that match. Then the keys are sorted,
//! and values fetched in order, several at a time so that cold ones overlap on the rings.

use std::ops::{Bound, RangeBounds};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{Stream, StreamExt};

use super::Shared;
use super::call::Call;
use crate::error::Result;
use crate::mailbox::{PagePosition, Request, reply_slot};
use crate::types::KeyspaceId;

/// Values read at a time, if they are short.
const READ_AHEAD_MAX: usize = 64;
/// Bytes of values read at a time, judged by the last one read.
const READ_AHEAD_BYTES: usize = 4 << 20;

/// A stream of `(key, value)` in key order; made by [`Db::scan`](crate::Db::scan).
///
/// An error ends the stream.
#[must_use = "a scan does nothing until it is polled"]
pub struct Scan {
    shared: Arc<Shared>,
    keyspace: KeyspaceId,
    keys: ScanKeys,
    window: FuturesOrdered<Fetch>,
    /// Begins with one, because nothing is known of the first value's length.
    window_len_max: usize,
    ended: bool,
}

/// A stream of keys in order; made by [`Scan::keys`].
#[must_use = "a scan does nothing until it is polled"]
pub struct ScanKeys(KeysState);

/// The entry of a key, unless it was deleted since the key was collected.
type Fetch = BoxFuture<'static, Result<Option<(Bytes, Bytes)>>>;

enum KeysState {
    Unsent(Arc<Shared>, Selection),
    Collecting(BoxFuture<'static, Result<Vec<Bytes>>>),
    Sorted(std::vec::IntoIter<Bytes>),
}

#[derive(Clone)]
struct Selection {
    keyspace: KeyspaceId,
    prefix: Bytes,
    from: Bound<Bytes>,
    to: Bound<Bytes>,
    reverse: bool,
    limit: usize,
}

impl Scan {
    pub(super) fn new(shared: Arc<Shared>, keyspace: KeyspaceId) -> Scan {
        let selection = Selection {
            keyspace,
            prefix: Bytes::new(),
            from: Bound::Unbounded,
            to: Bound::Unbounded,
            reverse: false,
            limit: usize::MAX,
        };
        Scan {
            keyspace,
            keys: ScanKeys(KeysState::Unsent(shared.clone(), selection)),
            shared,
            window: FuturesOrdered::new(),
            window_len_max: 1,
            ended: false,
        }
    }

    /// Only keys that begin with `prefix`.
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> Scan {
        self.selection().prefix = Bytes::copy_from_slice(prefix.as_ref());
        self
    }

    /// Only keys within `range`.
    ///
    /// # Example: from one key up to another, which is left out
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ringcask::Db::open(dir.path()).await?;
    /// # for key in ["a", "b", "c"] { db.put(key, "").await?; }
    /// use futures::TryStreamExt;
    /// let keys: Vec<_> = db.scan().range("a".."c").keys().try_collect().await?;
    /// assert_eq!(keys, ["a", "b"]);
    /// # db.close().await }).unwrap();
    /// ```
    pub fn range<K: AsRef<[u8]>>(mut self, range: impl RangeBounds<K>) -> Scan {
        let owned = |bound: Bound<&K>| bound.map(|key| Bytes::copy_from_slice(key.as_ref()));
        let selection = self.selection();
        selection.from = owned(range.start_bound());
        selection.to = owned(range.end_bound());
        self
    }

    /// From the last key to the first.
    pub fn reverse(mut self) -> Scan {
        self.selection().reverse = true;
        self
    }

    /// At most `count` entries.
    pub fn limit(mut self, count: usize) -> Scan {
        self.selection().limit = count;
        self
    }

    /// Keys only: no value is read.
    pub fn keys(self) -> ScanKeys {
        self.keys
    }

    /// The next entry, or `None` at the end.
    ///
    /// # Errors
    /// As [`Db::get`](crate::Db::get).
    pub async fn next(&mut self) -> Option<Result<(Bytes, Bytes)>> {
        StreamExt::next(self).await
    }

    fn selection(&mut self) -> &mut Selection {
        match &mut self.keys.0 {
            KeysState::Unsent(_, selection) => selection,
            _ => unreachable!("a scan is built before it is polled: builders take it by value"),
        }
    }

    fn fetch(&self, key: Bytes) -> Fetch {
        let (shared, keyspace) = (self.shared.clone(), self.keyspace);
        Box::pin(async move { Ok(shared.get(keyspace, &key).await?.map(|value| (key, value))) })
    }
}

impl ScanKeys {
    /// The next key, or `None` at the end.
    ///
    /// # Errors
    /// As [`Db::get`](crate::Db::get).
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        StreamExt::next(self).await
    }
}

impl Stream for ScanKeys {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        loop {
            match &mut self.0 {
                KeysState::Unsent(shared, selection) => {
                    let collecting = collect_keys(shared.clone(), selection.clone());
                    self.0 = KeysState::Collecting(Box::pin(collecting));
                }
                KeysState::Collecting(collecting) => match ready!(collecting.as_mut().poll(cx)) {
                    Ok(keys) => self.0 = KeysState::Sorted(keys.into_iter()),
                    Err(error) => {
                        self.0 = KeysState::Sorted(Vec::new().into_iter());
                        return Poll::Ready(Some(Err(error)));
                    }
                },
                KeysState::Sorted(keys) => return Poll::Ready(keys.next().map(Ok)),
            }
        }
    }
}

impl Stream for Scan {
    type Item = Result<(Bytes, Bytes)>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            while !self.ended && self.window.len() < self.window_len_max {
                match Pin::new(&mut self.keys).poll_next(cx) {
                    Poll::Ready(Some(Ok(key))) => {
                        let fetch = self.fetch(key);
                        self.window.push_back(fetch);
                    }
                    Poll::Ready(Some(Err(error))) => {
                        self.ended = true;
                        return Poll::Ready(Some(Err(error)));
                    }
                    Poll::Ready(None) => self.ended = true,
                    Poll::Pending => break,
                }
            }
            if self.window.is_empty() {
                return if self.ended { Poll::Ready(None) } else { Poll::Pending };
            }
            match ready!(self.window.poll_next_unpin(cx)) {
                Some(Ok(Some((key, value)))) => {
                    let short_enough = READ_AHEAD_BYTES / value.len().max(1);
                    self.window_len_max = short_enough.clamp(1, READ_AHEAD_MAX);
                    return Poll::Ready(Some(Ok((key, value))));
                }
                Some(Ok(None)) | None => {} // Deleted since the keys were collected.
                Some(Err(error)) => {
                    self.ended = true;
                    self.window.clear();
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

impl Selection {
    fn matches(&self, key: &[u8]) -> bool {
        let from = match &self.from {
            Bound::Unbounded => true,
            Bound::Included(from) => key >= &from[..],
            Bound::Excluded(from) => key > &from[..],
        };
        let to = match &self.to {
            Bound::Unbounded => true,
            Bound::Included(to) => key <= &to[..],
            Bound::Excluded(to) => key < &to[..],
        };
        from && to && key.starts_with(&self.prefix)
    }
}

async fn collect_keys(shared: Arc<Shared>, selection: Selection) -> Result<Vec<Bytes>> {
    let walks =
        (0..shared.partitions.len()).map(|shard| collect_partition(&shared, shard, &selection));
    let mut keys = futures::future::try_join_all(walks).await?.concat();
    keys.sort_unstable();
    // A key that was overwritten during the walk shows up at each of its places before that.
    keys.dedup();
    if selection.reverse {
        keys.reverse();
    }
    keys.truncate(selection.limit);
    Ok(keys)
}

async fn collect_partition(
    shared: &Shared,
    shard: usize,
    selection: &Selection,
) -> Result<Vec<Bytes>> {
    let mut keys = Vec::new();
    let mut from = Some(PagePosition::default());
    let mut walk = None;
    while let Some(position) = from {
        let (reply, receiver) = reply_slot();
        let keyspace = selection.keyspace;
        let request = Request::Page { keyspace, walk, from: position, reply };
        let page = Call::new(shared, shard, request, receiver).await?;
        // Copied, so that a short key does not keep its whole page alive.
        let matching = page.keys.iter().filter(|key| selection.matches(key));
        keys.extend(matching.map(|key| Bytes::copy_from_slice(key)));
        walk = Some(page.walk);
        from = page.next;
    }
    Ok(keys)
}
