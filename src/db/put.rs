//! Storing a value.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use super::call::{Call, Prepared};
use super::ttl::moment;
use super::value::IntoValue;
use super::{Shared, Space};
use crate::error::Result;
use crate::mailbox::{Body, Request, reply_slot};
use crate::options::Durability;
use crate::types::{ExpiresAt, KeyspaceId};

/// A put that has not been sent yet; await it to send it and learn that it is done.
///
/// A put that was polled and found the mailbox full has a place in its queue. Poll it to the end or drop
/// it: one that is kept and never polled again keeps room from others once its turn has come.
///
/// # Example: acknowledged before it is on disk
/// ```
/// # futures::executor::block_on(async {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = ringcask::Db::open(dir.path()).await?;
/// db.put("hits", "17").durability(ringcask::Durability::Buffered).await?;
/// # db.close().await }).unwrap();
/// ```
#[must_use = "a put does nothing until it is awaited"]
pub struct Put<'a> {
    shared: &'a Shared,
    prepared: Prepared<'a, ()>,
}

impl<'a> Put<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        space: Space,
        key: &[u8],
        value: impl IntoValue,
    ) -> Put<'a> {
        let body =
            shared.check_place(space.id, key).and_then(|()| body(shared, space.id, key, value));
        let made = body.and_then(|body| Ok((body, shared.default_expiry(space)?)));
        let (body, expires_at) = match made {
            Ok(made) => made,
            Err(error) => return Put { shared, prepared: Prepared::Refused(error) },
        };
        let hash = shared.hash(space.id, key);
        let (reply, receiver) = reply_slot();
        let request =
            Request::Put { hash, body, expires_at, durable: shared.durable, reply: reply.into() };
        let call = Call::new(shared, shared.shard_of(hash), request, receiver);
        Put { shared, prepared: Prepared::Ready(call) }
    }

    /// The value expires after `ttl` from now, instead of what [`Options::default_ttl`] says; in whole
    /// milliseconds, rounded up. Zero, or a time beyond any date, is refused when awaited.
    ///
    /// [`Options::default_ttl`]: crate::Options::default_ttl
    ///
    /// # Example: gone when its time has come
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = ringcask::Db::open(dir.path()).await?;
    /// db.put("code", "314159").ttl(std::time::Duration::from_secs(300)).await?;
    /// # db.close().await }).unwrap();
    /// ```
    pub fn ttl(mut self, ttl: Duration) -> Put<'a> {
        match self.shared.after(ttl) {
            Ok(at) => self.expires(Some(at)),
            Err(error) => self.prepared.refuse(error),
        }
        self
    }

    /// The value expires at a time, instead of what [`Options::default_ttl`] says. One that is past deletes what
    /// was there; one beyond any date is refused when awaited.
    ///
    /// [`Options::default_ttl`]: crate::Options::default_ttl
    pub fn expires_at(mut self, at: SystemTime) -> Put<'a> {
        match moment(at) {
            Ok(at) => self.expires(Some(at)),
            Err(error) => self.prepared.refuse(error),
        }
        self
    }

    /// The value stays, whatever [`Options::default_ttl`](crate::Options::default_ttl) says.
    pub fn forever(mut self) -> Put<'a> {
        self.expires(None);
        self
    }

    fn expires(&mut self, at: Option<ExpiresAt>) {
        if let Some(Request::Put { expires_at, .. }) = self.prepared.request() {
            *expires_at = at;
        }
    }

    /// When this put is acknowledged, instead of what the store was opened with.
    pub fn durability(mut self, durability: Durability) -> Put<'a> {
        if let Some(Request::Put { durable, .. }) = self.prepared.request() {
            *durable = durability.of_write();
        }
        self
    }
}

/// What is stored of a value, made on the caller's thread: compressed, or a short one copied behind its key,
/// or a long one where it is. Length and checksum (F3) are of the very bytes that are stored, whatever an
/// implementation of the trait says at its next call.
pub(super) fn body(
    shared: &Shared,
    keyspace: KeyspaceId,
    key: &[u8],
    value: impl IntoValue,
) -> Result<Body> {
    let borrowed = value.as_value();
    shared.check_value_len(borrowed.len())?;
    if let Some(body) = Body::copied(&shared.codecs, keyspace, key, borrowed) {
        return Ok(body);
    }
    let owned = value.into_bytes();
    shared.check_value_len(owned.len())?;
    Ok(Body::plain(keyspace, key, owned))
}

impl Future for Put<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.prepared).poll(cx)
    }
}
