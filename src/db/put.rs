//! Storing a value.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::Shared;
use super::call::{Call, Prepared};
use super::value::IntoValue;
use crate::error::Result;
use crate::log::format::record::body_crc;
use crate::mailbox::{Body, Request, reply_slot};
use crate::options::Durability;

/// Up to this many bytes, copying a value is cheaper than a second allocation.
const VALUE_COPY_LEN_MAX: usize = 4 << 10;

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
pub struct Put<'a>(Prepared<'a, ()>);

impl<'a> Put<'a> {
    pub(super) fn new(shared: &'a Shared, key: &[u8], value: impl IntoValue) -> Put<'a> {
        let body = shared.check_key(key).and_then(|()| body(shared, key, value));
        let body = match body {
            Ok(body) => body,
            Err(error) => return Put(Prepared::Refused(error)),
        };
        let hash = shared.hash(key);
        let (reply, receiver) = reply_slot();
        let request = Request::Put { hash, body, durable: shared.durable, reply };
        Put(Prepared::Ready(Call::new(shared, shared.shard_of(hash), request, receiver)))
    }

    /// When this put is acknowledged, instead of what the store was opened with.
    pub fn durability(mut self, durability: Durability) -> Put<'a> {
        if let Some(Request::Put { durable, .. }) = self.0.request() {
            *durable = durability.of_write();
        }
        self
    }
}

/// A short value is copied behind its key, a long one stays where it is. Length and checksum (F3) are of
/// the very bytes that are stored, whatever an implementation of the trait says at its next call; they
/// are computed here, on the caller's thread.
pub(super) fn body(shared: &Shared, key: &[u8], value: impl IntoValue) -> Result<Body> {
    let key_len = key.len() as u16;
    let borrowed = value.as_value();
    if borrowed.len() <= VALUE_COPY_LEN_MAX {
        shared.check_value_len(borrowed.len())?;
        let head = Bytes::from([key, borrowed].concat());
        let crc = body_crc(&head, &[]);
        return Ok(Body { head, tail: Bytes::new(), key_len, crc });
    }
    let tail = value.into_bytes();
    shared.check_value_len(tail.len())?;
    let crc = body_crc(key, &tail);
    Ok(Body { head: Bytes::copy_from_slice(key), tail, key_len, crc })
}

impl Future for Put<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll(cx)
    }
}
