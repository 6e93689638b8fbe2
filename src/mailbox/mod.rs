//! The only thing that crosses threads: requests go in, replies come back.
//!
//! Each partition has one mailbox. A caller first passes [`Admission`], which bounds what is queued
//! in number and in bytes and makes callers wait asynchronously (W5); then the request goes into a
//! crossbeam channel that therefore never is full; then the worker's [`Doorbell`] is rung, which
//! costs a system call only if the worker sleeps.
//!
//! ## Invariants
//! - **M1** A request that was admitted and sent gets exactly one reply: a reply slot that is dropped
//!   unanswered answers with an error (R1).
//! - **M2** After a request is in the channel, either the worker is awake and will look again before
//!   it sleeps, or it has been woken.
//! - **M3** Nothing in here blocks a thread.

mod admission;
mod doorbell;
mod reply;
mod request;

use std::sync::Arc;
use std::task::{Context, Poll};

pub(crate) use admission::{Admission, Ticket};
pub(crate) use doorbell::{Doorbell, Ticks};
pub(crate) use reply::{Receiver as ReplyReceiver, Sender as ReplySender, slot as reply_slot};
pub(crate) use request::{Body, Durable, Page, PagePosition, Request, Walk};

/// The caller's end, shared by every handle of the store.
pub(crate) struct Mailbox {
    admission: Admission,
    sender: crossbeam_channel::Sender<Request>,
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
        doorbell: doorbell.clone(),
    });
    (mailbox.clone(), Inbox { receiver, mailbox })
}

impl Mailbox {
    /// Waits for room for `len` bytes; `Ready(false)` once the mailbox is closed.
    pub(crate) fn poll_admit(&self, cx: &mut Context<'_>, ticket: &mut Ticket) -> Poll<bool> {
        self.admission.poll_enter(cx, ticket)
    }

    /// Gives up a place that was waited for, or admitted and not used.
    pub(crate) fn withdraw(&self, ticket: &mut Ticket) {
        self.admission.withdraw(ticket);
    }

    /// Sends what was admitted. A request to a worker that is gone is dropped, which answers it (M1).
    pub(crate) fn send(&self, mut ticket: Ticket, request: Request) {
        ticket.consume();
        // Never full, because `Admission` counts at most the channel's capacity.
        if self.sender.try_send(request).is_ok() {
            self.doorbell.ring();
        }
    }

    /// Refuses whatever comes from now on and wakes everybody who waits for room.
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
        self.mailbox.admission.leave(requests, bytes);
    }
}

impl Drop for Inbox {
    /// A worker that is gone, by panic too, must not leave callers waiting for room.
    fn drop(&mut self) {
        self.mailbox.admission.close();
    }
}
