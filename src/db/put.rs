//! Storing a value.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::Shared;
use super::call::Call;
use super::value::IntoValue;
use crate::error::{Error, Result};
use crate::log::format::record::body_crc;
use crate::mailbox::{Body, Request, reply_slot};
use crate::options::Durability;

/// Up to this many bytes, copying a value is cheaper than a second allocation.
const VALUE_COPY_LEN_MAX: usize = 4 << 10;

/// A put that has not been sent yet; await it to send it and learn that it is done.
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
pub struct Put<'a>(State<'a>);

enum State<'a> {
    Ready(Call<'a, ()>),
    /// An argument was refused; told when awaited.
    Refused(Error),
    Done,
}

impl<'a> Put<'a> {
    pub(super) fn new(shared: &'a Shared, key: &[u8], value: impl IntoValue) -> Put<'a> {
        let value_len = value.as_value().len();
        let checked = shared.check_key(key).and_then(|()| shared.check_value_len(value_len));
        if let Err(error) = checked {
            return Put(State::Refused(error));
        }
        let hash = shared.hash(key);
        let body = body(key, value);
        let (reply, receiver) = reply_slot();
        let request = Request::Put { hash, body, durable: shared.durable, reply };
        Put(State::Ready(Call::new(shared, shared.shard_of(hash), request, receiver)))
    }

    /// When this put is acknowledged, instead of what the store was opened with.
    pub fn durability(mut self, durability: Durability) -> Put<'a> {
        if let State::Ready(call) = &mut self.0
            && let Some(Request::Put { durable, .. }) = call.request()
        {
            *durable = durability.of_write();
        }
        self
    }
}

/// A short value is copied behind its key, a long one stays where it is; the checksum over both is
/// computed here, on the caller's thread (F3).
fn body(key: &[u8], value: impl IntoValue) -> Body {
    let key_len = key.len() as u16;
    let crc = body_crc(key, value.as_value());
    if value.as_value().len() > VALUE_COPY_LEN_MAX {
        let (head, tail) = (Bytes::copy_from_slice(key), value.into_bytes());
        return Body { head, tail, key_len, crc };
    }
    let head = Bytes::from([key, value.as_value()].concat());
    Body { head, tail: Bytes::new(), key_len, crc }
}

impl Future for Put<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match &mut self.0 {
            State::Ready(call) => {
                let polled = Pin::new(call).poll(cx);
                if polled.is_ready() {
                    self.0 = State::Done;
                }
                polled
            }
            State::Refused(error) => Poll::Ready(Err(error.clone())),
            State::Done => Poll::Pending,
        }
    }
}
