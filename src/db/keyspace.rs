//! Keyspaces: key spaces of their own inside of one store (N1).
//!
//! A keyspace is a number in front of every key, a name for it in MANIFEST, and a default time to live; it has
//! no files, no memory and no thread of its own. Every handle is bound to one, and [`Keyspace`] is a handle with
//! a name.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::keyspaces::{Changed, Outcome, as_ms};
use super::{Db, Shared};
use crate::error::{Error, Result};

/// A handle of a store that is bound to one keyspace: everything that is done to keys through it, every scan,
/// [`count`](Db::count) and [`clear`](Db::clear) is about that keyspace alone.
///
/// It dereferences to a [`Db`], so all of the API is there. What is about the store as a whole stays so:
/// [`sync`](Db::sync), [`compact`](Db::compact), [`stats`](Db::stats) and [`close`](Db::close) mean all
/// keyspaces. It counts as a handle: the store closes when the last of all of them is dropped.
#[derive(Clone)]
pub struct Keyspace {
    db: Db,
    name: Arc<str>,
}

impl Keyspace {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Deref for Keyspace {
    type Target = Db;

    fn deref(&self) -> &Db {
        &self.db
    }
}

impl fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyspace").field("name", &self.name).field("db", &self.db).finish()
    }
}

impl Db {
    /// Opens the keyspace `name`, creating it if there is none.
    ///
    /// A keyspace has keys of its own: the same key in two of them is two keys. A store may have
    /// [8192](crate::limits::KEYSPACES_MAX) of them, and a thousand cost nothing but a thousand names in
    /// MANIFEST. When the future resolves a new one is durable. The keys of a [`Db`] that was opened are in
    /// the default keyspace, which has no name.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is not 1 to 255 bytes long, for one keyspace too many, or if every
    /// number that a keyspace can have was used up; `NoSpace` or `Io` if MANIFEST could not be replaced
    /// (nothing is changed then); `Poisoned` if it is unknown whether it was; `Closed` after close.
    ///
    /// # Example: sessions that end by themselves, beside carts that do not
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use std::time::Duration;
    /// let db = ringcask::Db::open(dir.path()).await?;
    /// let sessions = db.keyspace("sessions").default_ttl(Duration::from_secs(1800)).await?;
    /// let carts = db.keyspace("carts").await?;
    /// sessions.put("ada", "token").await?;
    /// carts.put("ada", "3 books").await?;
    /// assert_eq!(carts.get("ada").await?.as_deref(), Some(b"3 books".as_slice()));
    /// assert_eq!(db.get("ada").await?, None);
    /// assert_eq!(db.keyspaces(), ["carts", "sessions"]);
    /// # db.close().await }).unwrap();
    /// ```
    pub fn keyspace(&self, name: impl AsRef<str>) -> OpenKeyspace {
        OpenKeyspace {
            db: self.clone(),
            name: name.as_ref().into(),
            default_ttl_ms: Ok(None),
            change: None,
        }
    }

    /// The names of all keyspaces, sorted; the default one has none.
    pub fn keyspaces(&self) -> Vec<String> {
        self.shared.keyspaces.names()
    }

    /// Drops the keyspace `name` with all that is in it; true if there was one.
    ///
    /// Handles of it are refused with [`KeyspaceDropped`](crate::ErrorKind::KeyspaceDropped) from then on,
    /// streams included. One of the same name that is opened later is another one, and empty. Costs a record in
    /// each partition and two replacements of MANIFEST; the space is given back by compaction. Once it has begun
    /// it goes on: after a crash the next open ends it, and after an error whoever drops or opens the name again.
    ///
    /// # Errors
    /// As [`Db::keyspace`] and [`Db::clear`].
    ///
    /// # Example: a tenant leaves
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = ringcask::Db::open(dir.path()).await?;
    /// let tenant = db.keyspace("tenant 7").await?;
    /// tenant.put("k", "v").await?;
    /// assert!(db.drop_keyspace("tenant 7").await?);
    /// let error = tenant.get("k").await.unwrap_err();
    /// assert_eq!(error.kind(), ringcask::ErrorKind::KeyspaceDropped);
    /// assert_eq!(db.keyspace("tenant 7").await?.get("k").await?, None);
    /// # db.close().await }).unwrap();
    /// ```
    pub async fn drop_keyspace(&self, name: impl AsRef<str>) -> Result<bool> {
        let dropped = self.shared.drop_space(name.as_ref())?.await;
        match dropped.unwrap_or_else(|_canceled| Err(worker_gone()))? {
            Outcome::Dropped(was_there) => Ok(was_there),
            Outcome::Opened(_) => Err(worker_gone()),
        }
    }
}

/// A keyspace that is about to be opened; await it to have it.
#[must_use = "a keyspace is opened when this is awaited"]
pub struct OpenKeyspace {
    db: Db,
    name: Arc<str>,
    /// What is asked for, zero for none; `None` leaves it as it is.
    default_ttl_ms: Result<Option<u64>>,
    /// Once MANIFEST has to be replaced for it.
    change: Option<Changed>,
}

impl OpenKeyspace {
    /// What is put into this keyspace without an expiry of its own expires after `ttl`; with `None` it stays.
    ///
    /// Stored with the keyspace, in whole milliseconds, rounded up; it replaces what the keyspace had before, for
    /// the handles that are opened from then on. A keyspace that was never told goes by
    /// [`Options::default_ttl`](crate::Options::default_ttl). Zero is refused when awaited.
    pub fn default_ttl(mut self, ttl: impl Into<Option<Duration>>) -> OpenKeyspace {
        self.default_ttl_ms = as_ms(ttl.into()).map(Some);
        self
    }
}

impl Future for OpenKeyspace {
    type Output = Result<Keyspace>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Keyspace>> {
        let this = &mut *self;
        let shared: &Arc<Shared> = &this.db.shared;
        let space = match &mut this.change {
            Some(change) => {
                let ended = ready!(Pin::new(change).poll(cx));
                match ended.unwrap_or_else(|_canceled| Err(worker_gone()))? {
                    Outcome::Opened(space) => space,
                    Outcome::Dropped(_) => return Poll::Ready(Err(worker_gone())),
                }
            }
            None => match shared.open_space(&this.name, this.default_ttl_ms.clone()?)? {
                Ok(space) => space,
                Err(change) => {
                    this.change = Some(change);
                    return self.poll(cx);
                }
            },
        };
        let db = Db { space, ..this.db.clone() };
        Poll::Ready(Ok(Keyspace { db, name: this.name.clone() }))
    }
}

#[cold]
pub(super) fn worker_gone() -> Error {
    Error::new(
        crate::error::ErrorKind::Io,
        "the thread that changed the keyspaces panicked, which is a bug in ringcask",
    )
}
