//! The only thing that crosses threads: requests go in, replies come back.
//!
//! Each partition has one mailbox. A request first passes [`Admission`], which bounds what is queued
//! in number and in bytes and makes the rest wait (W5); then it goes into a crossbeam channel that therefore
//! never is full; then the worker's [`Doorbell`] is rung, which costs a system call only if the worker
//! sleeps.
//!
//! ## Invariants
//! - **M1** A request that was admitted and sent gets exactly one reply: a reply slot that is dropped
//!   unanswered answers with an error (R1).
//! - **M2** After a request is in the channel, either the worker is awake and will look again before
//!   it sleeps, or it has been woken.
//! - **M3** Nothing in here blocks a thread.

mod admission;
mod batch;
mod doorbell;
mod gate;
mod peers;
mod pinned;
mod publications;
mod put_many;
mod reply;
mod request;
mod update;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

pub(crate) use admission::{Admission, LetIn, Place};
pub use batch::BatchDone;
pub(crate) use batch::{
    Batch, BatchEntry, Condition, EntryChange, Message, Part, Participation, conflict,
};
pub(crate) use doorbell::{Doorbell, Ticks};
pub(crate) use gate::{Marked, Marking};
pub(crate) use peers::{Agreement, Deciding, Peers, batch_id};
pub(crate) use pinned::Pinned;
pub(crate) use put_many::{PutMany, PutReply, Together};
pub(crate) use reply::{Receiver as ReplyReceiver, Sender as ReplySender, slot as reply_slot};
pub(crate) use request::{
    Body, Durable, Entry, GetAt, GetMany, PageOf, Request, Stored, ValuePart,
};
pub(crate) use update::{Change, Expiry, Update, When};
pub use update::{Expected, Swap};
pub(crate) use watch::{Changed, Event, Interest, Told, WatchedKeys, Watcher, Watchers, raw_len};

/// The caller's end, shared by every handle of the store.
pub(crate) struct Mailbox {
    admission: Admission<Request>,
    sender: crossbeam_channel::Sender<Request>,
    /// For what is still queued when the worker's end is gone, which the channel would keep as long as there
    /// are senders.
    leftover: crossbeam_channel::Receiver<Request>,
    /// The worker's end is gone, and nobody else takes requests.
    abandoned: AtomicBool,
    doorbell: Arc<Doorbell>,
}

/// The worker's end.
pub(crate) struct Inbox {
    receiver: crossbeam_channel::Receiver<Request>,
    mailbox: Arc<Mailbox>,
}

/// A mailbox that holds at most `requests_max` requests of `bytes_max` bytes together.
pub(crate) fn mailbox(
    requests_max: usize,
    bytes_max: usize,
    doorbell: &Arc<Doorbell>,
) -> (Arc<Mailbox>, Inbox) {
    let (sender, receiver) = crossbeam_channel::bounded(requests_max);
    let mailbox = Arc::new(Mailbox {
        admission: Admission::new(requests_max, bytes_max),
        sender,
        leftover: receiver.clone(),
        abandoned: AtomicBool::new(false),
        doorbell: doorbell.clone(),
    });
    (mailbox.clone(), Inbox { receiver, mailbox })
}

impl Mailbox {
    /// Sends a request as soon as there is room for it, whether or not its caller is polled until then. A
    /// request to a worker that is gone is dropped, which answers it (M1).
    pub(crate) fn send(&self, request: Request) -> Option<Place> {
        let cost = request.len_bytes();
        self.letting_in(|let_in| self.admission.enter(request, cost, let_in))
    }

    /// Takes back a request that still waits for room.
    pub(crate) fn withdraw(&self, place: Place) {
        self.letting_in(|let_in| self.admission.withdraw(place, let_in));
    }

    fn letting_in<R>(&self, act: impl FnOnce(LetIn<'_, Request>) -> R) -> R {
        let mut is_any = false;
        // Never full, because `Admission` counts at most the channel's capacity.
        let done = act(&mut |request| is_any |= self.sender.try_send(request).is_ok());
        if is_any {
            self.doorbell.ring();
            // Pairs with the fence in `abandon`: of "I queued, then saw a worker" and "it went, then saw nothing
            // queued" at most one can happen.
            fence(Ordering::SeqCst);
            if self.abandoned.load(Ordering::Relaxed) {
                self.drop_leftover();
            }
        }
        done
    }

    /// The worker's end goes.
    fn abandon(&self) {
        self.admission.close();
        self.abandoned.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.drop_leftover();
    }

    /// Answers whatever is queued by dropping it.
    fn drop_leftover(&self) {
        self.leftover.try_iter().for_each(drop);
    }

    /// Refuses whatever comes from now on, and whatever waits for room.
    pub(crate) fn close(&self) {
        self.admission.close();
        self.doorbell.ring();
    }

    /// Requests queued now.
    pub(crate) fn depth(&self) -> u64 {
        self.sender.len() as u64
    }
}

impl Inbox {
    /// The next request, with its room still counted: give it back with [`Inbox::release`].
    pub(crate) fn take(&self) -> Option<Request> {
        self.receiver.try_recv().ok()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.mailbox.admission.is_closed()
    }

    /// Gives back the room of `requests` taken requests, and lets in those who wait.
    pub(crate) fn release(&self, requests: usize, bytes: usize) {
        let mailbox = &self.mailbox;
        mailbox.letting_in(|let_in| mailbox.admission.leave(requests, bytes, let_in));
    }
}

impl Drop for Inbox {
    /// A worker that is gone, by panic too, must not leave callers waiting for room or for an answer.
    fn drop(&mut self) {
        self.mailbox.abandon();
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn sync_request() -> (Request, ReplyReceiver<crate::error::Result<()>>) {
        let (reply, receiver) = reply_slot();
        (Request::Sync { reply }, receiver)
    }

    /// M1: breaks if a worker that panics leaves those waiting for ever whose requests it had not taken yet,
    /// or who wait for room, or come later.
    #[test]
    fn a_request_that_no_worker_takes_is_answered() {
        let cx = &mut Context::from_waker(Waker::noop());
        let (mailbox, inbox) = mailbox(1, 1000, &Arc::default());
        let (sent, sent_answer) = sync_request();
        let (waiting, waiting_answer) = sync_request();
        assert_eq!(mailbox.send(sent), None);
        assert!(mailbox.send(waiting).is_some());
        assert!(sent_answer.poll_answer(cx).is_pending());
        assert!(waiting_answer.poll_answer(cx).is_pending());
        drop(inbox);
        assert!(matches!(sent_answer.poll_answer(cx), Poll::Ready(None)));
        assert!(matches!(waiting_answer.poll_answer(cx), Poll::Ready(None)));
        let (late, late_answer) = sync_request();
        mailbox.send(late);
        assert!(matches!(late_answer.poll_answer(cx), Poll::Ready(None)));
    }
}
