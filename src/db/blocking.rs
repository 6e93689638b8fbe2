//! The store for callers without a runtime: each operation is waited for on the calling thread.

use std::future::Future;
use std::ops::RangeBounds;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::{Stream, StreamExt};

use super::{Db, IntoValue, Scan, ScanKeys, Snapshot};
use crate::error::Result;
use crate::mailbox::{Expected, Swap};
use crate::options::Options;
use crate::report::BackupReport;
use crate::stats::{Compacted, Stats};
use crate::types::{EntryInfo, Ttl};

/// A handle of an open store whose methods return when they are done.
///
/// The same store as through [`Db`], whose methods these are, and whose documentation holds for them; both may
/// be used side by side. What has to be [waited for](Blocking::wait) is any future of this crate, so
/// settings of a single write are given as ever.
///
/// Waiting blocks the thread. Called in an async task it blocks the runtime's thread with all the tasks that
/// are on it, but never for good: what the answer depends on are the store's own threads. A loop of such
/// calls has one write under way at a time, and a sync for each; threads that call at the same time share
/// syncs.
///
/// # Example: no runtime, no `await`
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use std::time::Duration;
///
/// use ringcask::Blocking;
///
/// let db = Blocking::open(dir.path())?;
/// db.put("user:1", "Ada")?;
/// assert_eq!(db.get("user:1")?.unwrap(), "Ada");
/// db.wait(db.handle().put("code", "314159").ttl(Duration::from_secs(300)))?;
/// assert_eq!(db.incr("visits", 1)?, 1);
/// let users = db.iter(db.handle().scan().prefix("user:"));
/// assert_eq!(users.collect::<Result<Vec<_>, _>>()?.len(), 1);
/// db.close()?;
/// # Ok::<(), ringcask::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Blocking {
    db: Db,
}

/// Entries as they come, each waited for; see [`Blocking::iter`].
#[derive(Debug)]
#[must_use = "an iterator does nothing until it is asked for something"]
pub struct BlockingIter<S>(S);

impl<S: Stream + Unpin> Iterator for BlockingIter<S> {
    type Item = S::Item;

    fn next(&mut self) -> Option<S::Item> {
        wait(self.0.next())
    }
}

impl Options {
    /// As [`Options::open`], for callers without a runtime.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_blocking(self, path: impl AsRef<Path>) -> Result<Blocking> {
        wait(self.open(path)).map(|db| db.blocking())
    }
}

impl Db {
    /// The same store with methods that return when they are done, for callers without a runtime.
    pub fn blocking(&self) -> Blocking {
        Blocking { db: self.clone() }
    }
}

/// Methods that wait for those of [`Db`] with the same name.
macro_rules! waiting {
    ($(fn $name:ident $(<$($generic:ident: $bound:path),*>)? ($($argument:ident: $type:ty),*) -> $returned:ty;)*) => {$(
        #[doc = concat!("Waits for [`Db::", stringify!($name), "`].")]
        ///
        /// # Errors
        #[doc = concat!("As [`Db::", stringify!($name), "`].")]
        pub fn $name $(<$($generic: $bound),*>)? (&self, $($argument: $type),*) -> Result<$returned> {
            wait(self.db.$name($($argument),*))
        }
    )*};
}

impl Blocking {
    /// Opens the store at `path` with the default [`Options`], creating it if there is none.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Blocking> {
        Options::new().open_blocking(path)
    }

    /// The handle whose methods return futures.
    pub fn handle(&self) -> &Db {
        &self.db
    }

    /// Waits for any future: `db.wait(db.handle().put("k", "v").ttl(ttl))`.
    ///
    /// For futures of this crate, which need no runtime; one that needs a runtime's timers or sockets may never
    /// be done here.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        wait(future)
    }

    waiting! {
        fn put<K: AsRef<[u8]>, V: IntoValue>(key: K, value: V) -> ();
        fn get<K: AsRef<[u8]>>(key: K) -> Option<Bytes>;
        fn get_many<K: AsRef<[u8]>>(keys: impl IntoIterator<Item = K>) -> Vec<Option<Bytes>>;
        fn get_range<K: AsRef<[u8]>>(key: K, range: impl RangeBounds<u64>) -> Option<Bytes>;
        fn contains_key<K: AsRef<[u8]>>(key: K) -> bool;
        fn entry<K: AsRef<[u8]>>(key: K) -> Option<EntryInfo>;
        fn get_with_info<K: AsRef<[u8]>>(key: K) -> Option<(Bytes, EntryInfo)>;
        fn del<K: AsRef<[u8]>>(key: K) -> bool;
        fn put_if_absent<K: AsRef<[u8]>, V: IntoValue>(key: K, value: V) -> bool;
        fn put_if_present<K: AsRef<[u8]>, V: IntoValue>(key: K, value: V) -> bool;
        fn compare_and_swap<K: AsRef<[u8]>, V: IntoValue>(key: K, expected: impl Into<Expected>, new: V) -> Swap;
        fn compare_and_del<K: AsRef<[u8]>>(key: K, expected: impl Into<Expected>) -> Swap;
        fn get_and_put<K: AsRef<[u8]>, V: IntoValue>(key: K, value: V) -> Option<Bytes>;
        fn get_and_del<K: AsRef<[u8]>>(key: K) -> Option<Bytes>;
        fn incr<K: AsRef<[u8]>>(key: K, by: i64) -> i64;
        fn append<K: AsRef<[u8]>, V: IntoValue>(key: K, tail: V) -> u64;
        fn expire<K: AsRef<[u8]>>(key: K, ttl: Duration) -> bool;
        fn expire_at<K: AsRef<[u8]>>(key: K, at: SystemTime) -> bool;
        fn persist<K: AsRef<[u8]>>(key: K) -> bool;
        fn ttl<K: AsRef<[u8]>>(key: K) -> Ttl;
        fn load<K: AsRef<[u8]>, V: IntoValue>(records: impl IntoIterator<Item = (K, V)>) -> u64;
        fn snapshot() -> Snapshot;
        fn backup(dir: impl AsRef<Path>) -> BackupReport;
        fn sync() -> ();
        fn compact() -> Compacted;
        fn close() -> ();
    }

    /// Every key and value, in order of key; for less than that see [`Blocking::iter`].
    ///
    /// # Errors
    /// As [`Db::scan`], for each entry.
    pub fn scan(&self) -> BlockingIter<Scan> {
        self.iter(self.db.scan())
    }

    /// Every key, in order.
    ///
    /// # Errors
    /// As [`Db::scan`], for each key.
    pub fn keys(&self) -> BlockingIter<ScanKeys> {
        self.iter(self.db.scan().keys())
    }

    /// What a stream of this crate yields: `db.iter(db.handle().scan().prefix("user:"))`.
    pub fn iter<S: Stream + Unpin>(&self, stream: S) -> BlockingIter<S> {
        BlockingIter(stream)
    }

    /// What [`Db::stats`] says, which never waits.
    pub fn stats(&self) -> Stats {
        self.db.stats()
    }
}

/// Not an executor of the `futures` crate, which refuses to run inside another one on the same thread.
fn wait<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let bell = Arc::new(Bell { thread: std::thread::current(), has_rung: AtomicBool::new(false) });
    let waker = Waker::from(bell.clone());
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        // The flag, because the thread may be unparked by others, and its one token be taken by them.
        while !bell.has_rung.swap(false, Ordering::Acquire) {
            std::thread::park();
        }
    }
}

struct Bell {
    thread: Thread,
    has_rung: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, Ordering::Release);
        self.thread.unpark();
    }
}
