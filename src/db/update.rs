//! Operations that look before they write; the worker decides them, so nothing comes between.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use super::call::{Call, Prepared};
use super::put::body;
use super::value::IntoValue;
use super::{Db, Shared, Space};
use crate::error::Result;
use crate::mailbox::{
    Change, Expected, Expiry, ReplySender, Request, Swap, Update as Sent, When, reply_slot,
};
use crate::options::Durability;

/// An operation that looks before it writes and has not been sent yet; await it to send it.
///
/// It is decided by the one worker that owns the key, so between the look and the write nothing can
/// happen to the key. What is said of [`Put`](crate::Put) about polling holds here too.
#[must_use = "an operation does nothing until it is awaited"]
pub struct Update<'a, T> {
    shared: &'a Shared,
    prepared: Prepared<'a, T>,
}

impl<'a, T> Update<'a, T> {
    pub(super) fn new(
        shared: &'a Shared,
        space: Space,
        key: &[u8],
        change: impl FnOnce(ReplySender<Result<T>>) -> Result<(Change, Expiry)>,
    ) -> Update<'a, T> {
        let (reply, receiver) = reply_slot();
        let (change, expiry) = match shared.check_place(space.id, key).and_then(|()| change(reply))
        {
            Ok(made) => made,
            Err(error) => return Update { shared, prepared: Prepared::Refused(error) },
        };
        let hash = shared.hash(space.id, key);
        let request = Request::Update(Box::new(Sent {
            hash,
            keyspace: space.id,
            key: Bytes::copy_from_slice(key),
            durable: shared.durable,
            expiry,
            value_len_max: shared.value_len_max,
            change,
        }));
        let call = Call::new(shared, shared.shard_of(hash), request, receiver);
        Update { shared, prepared: Prepared::Ready(call) }
    }

    /// What is written expires after `ttl` from now; in whole milliseconds, rounded up.
    ///
    /// Without this, a value that replaces another expires as
    /// [`Options::default_ttl`](crate::Options::default_ttl) says, and one that is changed by `incr` or
    /// `append` when it would have anyway.
    pub fn ttl(mut self, ttl: Duration) -> Update<'a, T> {
        match self.shared.after(ttl) {
            Ok(at) => {
                if let Some(Request::Update(update)) = self.prepared.request() {
                    update.expiry = Expiry::At(Some(at));
                }
            }
            Err(error) => self.prepared.refuse(error),
        }
        self
    }

    /// When it is acknowledged, instead of what the store was opened with. An answer is as durable as
    /// that also if nothing had to be written: what it is about may be new.
    pub fn durability(mut self, durability: Durability) -> Update<'a, T> {
        if let Some(Request::Update(update)) = self.prepared.request() {
            update.durable = durability.of_write();
        }
        self
    }
}

impl<T: Unpin> Future for Update<'_, T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        Pin::new(&mut self.prepared).poll(cx)
    }
}

impl Db {
    /// Stores `value` only if `key` is absent; true if it did.
    ///
    /// # Errors
    /// As [`Db::put`].
    ///
    /// # Example: of many who try, one gets the lock
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = ringcask::Db::open(dir.path()).await?;
    /// assert!(db.put_if_absent("lock", "task 1").await?);
    /// assert!(!db.put_if_absent("lock", "task 2").await?);
    /// # db.close().await }).unwrap();
    /// ```
    pub fn put_if_absent<K: AsRef<[u8]>, V: IntoValue>(
        &self,
        key: K,
        value: V,
    ) -> Update<'_, bool> {
        self.put_if(When::Absent, key.as_ref(), value)
    }

    /// Stores `value` only if `key` has one already; true if it did.
    ///
    /// # Errors
    /// As [`Db::put`].
    pub fn put_if_present<K: AsRef<[u8]>, V: IntoValue>(
        &self,
        key: K,
        value: V,
    ) -> Update<'_, bool> {
        self.put_if(When::Present, key.as_ref(), value)
    }

    fn put_if(&self, when: When, key: &[u8], value: impl IntoValue) -> Update<'_, bool> {
        Update::new(&self.shared, self.space, key, |reply| {
            let body = body(&self.shared, self.space.id, key, value)?;
            Ok((Change::PutIf { when, body, reply }, self.shared.replaced(self.space)?))
        })
    }

    /// Stores `new` only if `key` is as [expected](Expected): absent, of a certain value, or written
    /// with a certain sequence number.
    ///
    /// # Errors
    /// As [`Db::put`], and as [`Db::get`] for the record that is compared.
    ///
    /// # Example: nobody else's change is lost
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use ringcask::{Db, Expected, Swap};
    /// let db = Db::open(dir.path()).await?;
    /// assert!(db.compare_and_swap("k", Expected::Absent, "1").await?.is_done());
    /// assert!(db.compare_and_swap("k", "1", "2").await?.is_done());
    /// assert_eq!(db.compare_and_swap("k", "1", "3").await?, Swap::Mismatch(Some("2".into())));
    ///
    /// let seqno = db.entry("k").await?.unwrap().seqno;
    /// assert!(db.compare_and_swap("k", Expected::Seqno(seqno), "3").await?.is_done());
    /// # db.close().await }).unwrap();
    /// ```
    pub fn compare_and_swap<K: AsRef<[u8]>, V: IntoValue>(
        &self,
        key: K,
        expected: impl Into<Expected>,
        new: V,
    ) -> Update<'_, Swap> {
        let key = key.as_ref();
        Update::new(&self.shared, self.space, key, |reply| {
            let body = Some(body(&self.shared, self.space.id, key, new)?);
            let change = Change::Swap { expected: expected.into(), body, reply };
            Ok((change, self.shared.replaced(self.space)?))
        })
    }

    /// As [`compare_and_swap`](Self::compare_and_swap), or deletes without a value; what is there by then has its
    /// time to live from what it replaces.
    pub(super) fn swap_keeping_ttl(
        &self,
        key: &[u8],
        expected: Expected,
        new: Option<Bytes>,
    ) -> Update<'_, Swap> {
        Update::new(&self.shared, self.space, key, |reply| {
            let body = new.map(|new| body(&self.shared, self.space.id, key, new)).transpose()?;
            Ok((Change::Swap { expected, body, reply }, self.shared.changed(self.space)?))
        })
    }

    /// Deletes `key` only if it is as [expected](Expected).
    ///
    /// # Errors
    /// As [`Db::compare_and_swap`].
    ///
    /// # Example: give back a lock that may have become another's
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = ringcask::Db::open(dir.path()).await?;
    /// db.put("lock", "task 2").await?;
    /// assert!(!db.compare_and_del("lock", "task 1").await?.is_done());
    /// assert!(db.compare_and_del("lock", "task 2").await?.is_done());
    /// # db.close().await }).unwrap();
    /// ```
    pub fn compare_and_del<K: AsRef<[u8]>>(
        &self,
        key: K,
        expected: impl Into<Expected>,
    ) -> Update<'_, Swap> {
        Update::new(&self.shared, self.space, key.as_ref(), |reply| {
            let change = Change::Swap { expected: expected.into(), body: None, reply };
            Ok((change, Expiry::At(None)))
        })
    }

    /// Stores `value` and returns the one it replaces.
    ///
    /// # Errors
    /// As [`Db::put`], and as [`Db::get`] for the value that is returned.
    pub fn get_and_put<K: AsRef<[u8]>, V: IntoValue>(
        &self,
        key: K,
        value: V,
    ) -> Update<'_, Option<Bytes>> {
        let key = key.as_ref();
        Update::new(&self.shared, self.space, key, |reply| {
            let body = Some(body(&self.shared, self.space.id, key, value)?);
            Ok((Change::Exchange { body, reply }, self.shared.replaced(self.space)?))
        })
    }

    /// Deletes `key` and returns the value it had.
    ///
    /// # Errors
    /// As [`Db::get_and_put`].
    ///
    /// # Example: each job is taken once
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = ringcask::Db::open(dir.path()).await?;
    /// db.put("job", "build").await?;
    /// let (one, other) = futures::join!(db.get_and_del("job"), db.get_and_del("job"));
    /// assert!(one?.is_some() != other?.is_some());
    /// # db.close().await }).unwrap();
    /// ```
    pub fn get_and_del<K: AsRef<[u8]>>(&self, key: K) -> Update<'_, Option<Bytes>> {
        Update::new(&self.shared, self.space, key.as_ref(), |reply| {
            Ok((Change::Exchange { body: None, reply }, Expiry::At(None)))
        })
    }

    /// Adds `by` to the integer that `key` holds as decimal digits, and returns the sum. An absent key
    /// counts as zero.
    ///
    /// # Errors
    /// `InvalidArgument` if the value is not an integer of 64 bits, or the sum would not be one; the
    /// value stays. As [`Db::put`] and [`Db::get`] otherwise.
    ///
    /// # Example: a counter
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = ringcask::Db::open(dir.path()).await?;
    /// assert_eq!(db.incr("hits", 1).await?, 1);
    /// assert_eq!(db.incr("hits", 41).await?, 42);
    /// assert_eq!(db.get("hits").await?.as_deref(), Some(b"42".as_slice()));
    /// # db.close().await }).unwrap();
    /// ```
    pub fn incr<K: AsRef<[u8]>>(&self, key: K, by: i64) -> Update<'_, i64> {
        Update::new(&self.shared, self.space, key.as_ref(), |reply| {
            Ok((Change::Incr { by, reply }, self.shared.changed(self.space)?))
        })
    }

    /// Puts `tail` behind the value of `key`, and returns the length in bytes of both. An absent key
    /// counts as empty.
    ///
    /// The whole value is written anew.
    ///
    /// # Errors
    /// As [`Db::put`] and [`Db::get`].
    pub fn append<K: AsRef<[u8]>, V: IntoValue>(&self, key: K, tail: V) -> Update<'_, u64> {
        Update::new(&self.shared, self.space, key.as_ref(), |reply| {
            let tail = tail.into_bytes();
            self.shared.check_value_len(tail.len())?;
            Ok((Change::Append { tail, reply }, self.shared.changed(self.space)?))
        })
    }
}

impl Shared {
    /// When a value expires that takes the place of another.
    fn replaced(&self, space: Space) -> Result<Expiry> {
        Ok(Expiry::At(self.default_expiry(space)?))
    }

    /// When a value expires that is made from another.
    fn changed(&self, space: Space) -> Result<Expiry> {
        Ok(Expiry::Keep { or: self.default_expiry(space)? })
    }
}
