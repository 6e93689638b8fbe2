//! Walking the store in key order.
//!
//! ```text
//! span    which keys, in which direction
//! file    the keys of one data file in order, block by block
//! walk    files merged, keys that are there
//! page    a stretch of a scan, and where the next one begins
//! ```
//!
//! Keys come from hints, which are sorted, and are held against the keydir; values are read in order of key,
//! several at a time so that cold ones overlap on the rings. All of it happens on the caller's side (W7):
//! a worker only reads what is not in the page cache.

mod file;
mod page;
mod span;
mod walk;

use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};

pub(super) use self::file::Reader;
pub use self::page::{Cursor, Page};
use self::span::Span;
use self::walk::{Keys, Walk};
use super::read::ReadNow;
use super::snapshot::AsOf;
use crate::error::Result;
use crate::mailbox::Entry;
use crate::types::KeyspaceId;

/// Values read at a time, if they are short.
const READ_AHEAD_MAX: usize = 64;
/// Bytes of values read at a time, judged by the last one read.
const READ_AHEAD_BYTES: usize = 4 << 20;

/// Keys of the first page of a scan; each later one has twice as many, as long as they are short.
const PAGE_KEYS_MIN: usize = 16;
const PAGE_KEYS_MAX: usize = 1 << 10;
/// Bytes of keys in a page, whose last one may go over it. Every key of a page keeps all of it in memory.
const PAGE_BYTES: usize = 16 << 10;

/// A stream of `(key, value)` in key order; made by [`Db::scan`](crate::Db::scan) and
/// [`Snapshot::scan`](crate::Snapshot::scan).
///
/// An error ends the stream.
#[must_use = "a scan does nothing until it is polled"]
pub struct Scan {
    as_of: AsOf,
    keyspace: KeyspaceId,
    keys: KeyStream,
    filter: Option<Filter>,
    /// Entries that may still come.
    left: usize,
    window: VecDeque<Fetch>,
    /// Begins with one, because nothing is known of the first value's length.
    window_len_max: usize,
    ended: bool,
}

/// A stream of keys in order; made by [`Scan::keys`].
#[must_use = "a scan does nothing until it is polled"]
pub struct ScanKeys(KeysOf);

enum KeysOf {
    /// No value is read.
    All(Box<Scan>),
    /// Only a value says whether its key is wanted.
    Filtered(Box<Scan>),
}

type Filter = Box<dyn FnMut(&[u8], &[u8]) -> bool + Send>;

/// The entry of a key, unless it was deleted since the key was passed.
enum Fetch {
    Done(Result<Option<(Bytes, Entry)>>),
    /// A worker was asked: it has been polled, so that its read is under way while others are.
    Asked(BoxFuture<'static, Result<Option<(Bytes, Entry)>>>),
}

impl Scan {
    pub(super) fn new(as_of: AsOf, keyspace: KeyspaceId) -> Scan {
        Scan {
            keyspace,
            keys: KeyStream {
                state: KeysState::Unsent(as_of.clone(), Span::all(keyspace)),
                page_keys: PAGE_KEYS_MIN,
            },
            as_of,
            filter: None,
            left: usize::MAX,
            window: VecDeque::new(),
            window_len_max: 1,
            ended: false,
        }
    }

    /// Only keys that begin with `prefix`; together with a range, only those that are in it too.
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> Scan {
        self.span().narrow_to_prefix(prefix.as_ref());
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
        let (from, to) = (owned(range.start_bound()), owned(range.end_bound()));
        self.span().narrow(from, to);
        self
    }

    /// From the last key to the first.
    pub fn reverse(mut self) -> Scan {
        self.span().is_reverse = true;
        self
    }

    /// At most `count` entries.
    pub fn limit(mut self, count: usize) -> Scan {
        self.left = count;
        self
    }

    /// Only entries of which `is_wanted` says so, given key and value. It runs where the stream is polled,
    /// never on a worker, and a limit counts what it lets through.
    ///
    /// # Example: large values
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ringcask::Db::open(dir.path()).await?;
    /// # for (key, value) in [("a", "1"), ("b", "22"), ("c", "333")] { db.put(key, value).await?; }
    /// use futures::TryStreamExt;
    /// let large = db.scan().filter(|_key, value| value.len() > 1).keys();
    /// assert_eq!(large.try_collect::<Vec<_>>().await?, ["b", "c"]);
    /// # db.close().await }).unwrap();
    /// ```
    pub fn filter(mut self, is_wanted: impl FnMut(&[u8], &[u8]) -> bool + Send + 'static) -> Scan {
        let mut is_wanted = is_wanted;
        self.filter = Some(match self.filter.take() {
            None => Box::new(is_wanted),
            Some(mut before) => {
                Box::new(move |key, value| before(key, value) && is_wanted(key, value))
            }
        });
        self
    }

    /// Keys only: no value is read, unless a filter has to see them.
    pub fn keys(self) -> ScanKeys {
        let is_filtered = self.filter.is_some();
        let scan = Box::new(self);
        ScanKeys(if is_filtered { KeysOf::Filtered(scan) } else { KeysOf::All(scan) })
    }

    /// The next entry, or `None` at the end.
    ///
    /// # Errors
    /// As [`Db::get`](crate::Db::get).
    pub async fn next(&mut self) -> Option<Result<(Bytes, Bytes)>> {
        StreamExt::next(self).await
    }

    /// How many entries there are. No value is read, unless a filter has to see them.
    ///
    /// # Errors
    /// As [`Db::get`](crate::Db::get).
    ///
    /// # Example: the keys of one user
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ringcask::Db::open(dir.path()).await?;
    /// # for key in ["user:1:a", "user:1:b", "user:2:a"] { db.put(key, "").await?; }
    /// assert_eq!(db.scan().prefix("user:1:").count().await?, 2);
    /// # db.close().await }).unwrap();
    /// ```
    pub async fn count(self) -> Result<u64> {
        self.keys().count().await
    }

    fn span(&mut self) -> &mut Span {
        self.keys.span()
    }

    fn fetch(&self, key: Bytes, cx: &mut Context<'_>) -> Fetch {
        match self.as_of.read_now(self.keyspace, &key) {
            Ok(ReadNow::Found(entry)) => Fetch::Done(Ok(Some((key, entry)))),
            Ok(ReadNow::Missing) => Fetch::Done(Ok(None)),
            Err(error) => Fetch::Done(Err(error)),
            Ok(ReadNow::Hop) => {
                let (as_of, keyspace) = (self.as_of.clone(), self.keyspace);
                let asked = Box::pin(async move {
                    let entry = as_of.read(keyspace, &key).await?;
                    Ok(entry.map(|entry| (key, entry)))
                });
                let mut fetch = Fetch::Asked(asked);
                let _ = fetch.poll(cx);
                fetch
            }
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.window.clear();
        self.keys.state = KeysState::Ended;
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

    /// How many keys there are.
    ///
    /// # Errors
    /// As [`Db::get`](crate::Db::get).
    pub async fn count(self) -> Result<u64> {
        match self.0 {
            KeysOf::All(scan) => scan.keys.count(scan.left as u64).await,
            KeysOf::Filtered(mut scan) => {
                let mut count = 0;
                while let Some(entry) = scan.next().await {
                    entry?;
                    count += 1;
                }
                Ok(count)
            }
        }
    }
}

impl Stream for ScanKeys {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        match &mut self.0 {
            KeysOf::All(scan) if scan.left == 0 => Poll::Ready(None),
            KeysOf::All(scan) => {
                let key = ready!(scan.keys.poll_key(cx));
                match key {
                    Some(Ok(_)) => scan.left -= 1,
                    Some(Err(_)) | None => scan.left = 0,
                }
                if scan.left == 0 {
                    scan.end();
                }
                Poll::Ready(key)
            }
            KeysOf::Filtered(scan) => {
                let entry = ready!(scan.poll_next_unpin(cx));
                // Few keys may be wanted, so none keeps the page of all of them in memory.
                Poll::Ready(entry.map(|entry| entry.map(|(key, _)| Bytes::copy_from_slice(&key))))
            }
        }
    }
}

impl Stream for Scan {
    type Item = Result<(Bytes, Bytes)>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let entry = ready!(self.poll_entry(cx));
        Poll::Ready(entry.map(|entry| entry.map(|(key, entry)| (key, entry.value))))
    }
}

impl Scan {
    /// The next key, and all that is known of it.
    pub(in crate::db) fn poll_entry(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<(Bytes, Entry)>>> {
        loop {
            if self.left == 0 && !self.ended {
                self.end();
            }
            // What is in the page cache is read when it is wanted, the rest ahead of that.
            while !self.ended
                && !matches!(self.window.front(), Some(Fetch::Done(_)))
                && self.window.len() < self.window_len_max.min(self.left)
            {
                match self.keys.poll_key(cx) {
                    Poll::Ready(Some(Ok(key))) => {
                        let fetch = self.fetch(key, cx);
                        self.window.push_back(fetch);
                    }
                    Poll::Ready(Some(Err(error))) => {
                        self.end();
                        return Poll::Ready(Some(Err(error)));
                    }
                    Poll::Ready(None) => self.ended = true,
                    Poll::Pending => break,
                }
            }
            let Some(first) = self.window.front_mut() else {
                return if self.ended { Poll::Ready(None) } else { Poll::Pending };
            };
            ready!(first.poll(cx));
            match self.window.pop_front() {
                Some(Fetch::Done(Ok(Some((key, entry))))) => {
                    let short_enough = READ_AHEAD_BYTES / entry.value.len().max(1);
                    self.window_len_max = short_enough.clamp(1, READ_AHEAD_MAX);
                    if self.filter.as_mut().is_none_or(|filter| filter(&key, &entry.value)) {
                        self.left -= 1;
                        return Poll::Ready(Some(Ok((key, entry))));
                    }
                }
                Some(Fetch::Done(Err(error))) => {
                    self.end();
                    return Poll::Ready(Some(Err(error)));
                }
                // Deleted since the key was passed.
                Some(Fetch::Done(Ok(None)) | Fetch::Asked(_)) | None => {}
            }
        }
    }
}

impl Fetch {
    /// Ready once it is done.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Fetch::Asked(asked) = self {
            *self = Fetch::Done(ready!(asked.poll_unpin(cx)));
        }
        Poll::Ready(())
    }
}

/// Keys of a walk, a page at a time.
struct KeyStream {
    state: KeysState,
    /// So many in the next page.
    page_keys: usize,
}

enum KeysState {
    Unsent(AsOf, Span),
    Filling(BoxFuture<'static, Filled>),
    Page(KeyPage, Option<Box<Walk>>),
    Ended,
}

/// A walk that has filled a page, or why not; `None` if it is over.
type Filled = Result<(KeyPage, Option<Box<Walk>>)>;

struct KeyPage {
    bytes: Bytes,
    ends: Vec<u32>,
    next: usize,
}

impl KeyStream {
    fn span(&mut self) -> &mut Span {
        match &mut self.state {
            KeysState::Unsent(_, span) => span,
            _ => unreachable!("a scan is built before it is polled: builders take it by value"),
        }
    }

    fn poll_key(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        loop {
            match &mut self.state {
                KeysState::Ended => return Poll::Ready(None),
                KeysState::Filling(filling) => match ready!(filling.as_mut().poll(cx)) {
                    Ok((page, walk)) => self.state = KeysState::Page(page, walk),
                    Err(error) => {
                        self.state = KeysState::Ended;
                        return Poll::Ready(Some(Err(error)));
                    }
                },
                KeysState::Page(page, _) if page.next < page.ends.len() => {
                    return Poll::Ready(Some(Ok(page.take())));
                }
                KeysState::Page(..) | KeysState::Unsent(..) => self.go_on(),
            }
        }
    }

    /// Begins with the next page, if there is any.
    fn go_on(&mut self) {
        let count = self.page_keys;
        self.page_keys = (count * 2).min(PAGE_KEYS_MAX);
        self.state = match std::mem::replace(&mut self.state, KeysState::Ended) {
            KeysState::Unsent(as_of, span) => KeysState::Filling(Box::pin(async move {
                fill(Box::new(Walk::begin(as_of, span).await?), count).await
            })),
            KeysState::Page(_, Some(walk)) => KeysState::Filling(Box::pin(fill(walk, count))),
            _ => KeysState::Ended,
        };
    }

    async fn count(self, count_max: u64) -> Result<u64> {
        match self.state {
            KeysState::Unsent(as_of, span) => {
                Walk::begin(as_of, span).await?.count(count_max).await
            }
            _ => self.count_rest(count_max).await,
        }
    }

    /// The rest of keys that were begun with.
    async fn count_rest(mut self, count_max: u64) -> Result<u64> {
        let mut count = 0;
        while count < count_max {
            match std::future::poll_fn(|cx| self.poll_key(cx)).await {
                Some(key) => drop(key?),
                None => break,
            }
            count += 1;
        }
        Ok(count)
    }
}

impl KeyPage {
    fn take(&mut self) -> Bytes {
        let start = self.next.checked_sub(1).map_or(0, |before| self.ends[before]);
        let end = self.ends[self.next];
        self.next += 1;
        self.bytes.slice(start as usize..end as usize)
    }
}

async fn fill(mut walk: Box<Walk>, count_max: usize) -> Filled {
    let mut keys = Keys::default();
    let has_more = walk.fill(&mut keys, count_max, PAGE_BYTES).await?;
    let page = KeyPage { bytes: Bytes::from(keys.bytes), ends: keys.ends, next: 0 };
    Ok((page, has_more.then_some(walk)))
}

/// Lets others of the same thread have a turn.
async fn take_a_turn() {
    let mut has_waited = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
