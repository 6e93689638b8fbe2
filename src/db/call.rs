//! A request's way through a mailbox, as a future: send, wait for room and for the reply.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::Shared;
use crate::error::{Error, Result};
use crate::mailbox::{Place, ReplyReceiver, Request};

/// Sent when it is first polled, as soon as there is room; dropping it before that withdraws it, after that only
/// stops waiting.
pub(super) struct Call<'a, T> {
    shared: &'a Shared,
    shard: usize,
    /// `None` once polled.
    unsent: Option<Request>,
    /// Where the request waits for room, if it does.
    place: Option<Place>,
    receiver: ReplyReceiver<Result<T>>,
}

impl<'a, T> Call<'a, T> {
    pub(super) fn new(
        shared: &'a Shared,
        shard: usize,
        request: Request,
        receiver: ReplyReceiver<Result<T>>,
    ) -> Call<'a, T> {
        Call { shared, shard, unsent: Some(request), place: None, receiver }
    }
}

impl<T> Future for Call<'_, T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let call = self.get_mut();
        if let Some(request) = call.unsent.take() {
            call.place = call.shared.partitions[call.shard].mailbox.send(request);
        }
        let answer = ready!(call.receiver.poll_answer(cx));
        call.place = None;
        let no_answer = || -> Result<T, Error> { Err(call.shared.no_answer(call.shard)) };
        Poll::Ready(answer.unwrap_or_else(no_answer))
    }
}

impl<T> Drop for Call<'_, T> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.shared.partitions[self.shard].mailbox.withdraw(place);
        }
    }
}

/// A call that is sent when it is first polled, or an argument that was refused.
pub(super) enum Prepared<'a, T> {
    Ready(Call<'a, T>),
    /// Told when awaited.
    Refused(Error),
    /// Nothing has to be asked.
    Known(T),
    Done,
}

impl<T> Prepared<'_, T> {
    /// The request, while it can still be changed.
    pub(super) fn request(&mut self) -> Option<&mut Request> {
        match self {
            Prepared::Ready(call) => call.unsent.as_mut(),
            Prepared::Refused(_) | Prepared::Known(_) | Prepared::Done => None,
        }
    }
}

impl<T> Prepared<'_, T> {
    /// An argument that came later is refused; an earlier refusal stays.
    pub(super) fn refuse(&mut self, error: Error) {
        if matches!(self, Prepared::Ready(_) | Prepared::Known(_)) {
            *self = Prepared::Refused(error);
        }
    }
}

impl<T: Unpin> Future for Prepared<'_, T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        match &mut *self {
            Prepared::Known(_) => match std::mem::replace(&mut *self, Prepared::Done) {
                Prepared::Known(answer) => Poll::Ready(Ok(answer)),
                _ => Poll::Pending,
            },
            Prepared::Ready(call) => {
                let polled = Pin::new(call).poll(cx);
                if polled.is_ready() {
                    *self = Prepared::Done;
                }
                polled
            }
            Prepared::Refused(error) => Poll::Ready(Err(error.clone())),
            Prepared::Done => Poll::Pending,
        }
    }
}
