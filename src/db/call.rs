//! A request's way through a mailbox, as a future: wait for room, send, wait for the reply.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::Shared;
use crate::error::{Error, Result};
use crate::mailbox::{ReplyReceiver, Request, Ticket};

/// Sent at its first poll that finds room; dropping it before that withdraws it, after that only
/// stops waiting.
pub(super) struct Call<'a, T> {
    shared: &'a Shared,
    shard: usize,
    /// `None` once sent.
    unsent: Option<(Request, Ticket)>,
    receiver: ReplyReceiver<Result<T>>,
}

impl<'a, T> Call<'a, T> {
    pub(super) fn new(
        shared: &'a Shared,
        shard: usize,
        request: Request,
        receiver: ReplyReceiver<Result<T>>,
    ) -> Call<'a, T> {
        let ticket = Ticket::new(request.len_bytes());
        Call { shared, shard, unsent: Some((request, ticket)), receiver }
    }
}

impl<T> Future for Call<'_, T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let call = self.get_mut();
        let mailbox = &call.shared.partitions[call.shard].mailbox;
        if let Some((request, mut ticket)) = call.unsent.take() {
            match mailbox.poll_admit(cx, &mut ticket) {
                Poll::Ready(true) => mailbox.send(ticket, request),
                Poll::Ready(false) => return Poll::Ready(Err(call.shared.no_answer(call.shard))),
                Poll::Pending => {
                    call.unsent = Some((request, ticket));
                    return Poll::Pending;
                }
            }
        }
        let answer = ready!(call.receiver.poll_answer(cx));
        let no_answer = || -> Result<T, Error> { Err(call.shared.no_answer(call.shard)) };
        Poll::Ready(answer.unwrap_or_else(no_answer))
    }
}

impl<T> Drop for Call<'_, T> {
    fn drop(&mut self) {
        if let Some((_, ticket)) = &mut self.unsent {
            self.shared.partitions[self.shard].mailbox.withdraw(ticket);
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
            Prepared::Ready(call) => call.unsent.as_mut().map(|(request, _)| request),
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
