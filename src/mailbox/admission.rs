//! Room in a mailbox: bounded in requests and in bytes, waited for asynchronously, first come first
//! served (W5).
//!
//! The common case is one compare-and-swap on a word that holds both counts. Only when there is no
//! room does a caller take the lock and queue; from then on newcomers queue behind it, and whoever
//! leaves hands the room to the head of the queue, so that a large request is not starved by small
//! ones.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering};

/// Bytes take the low bits of the word, requests the high ones.
const BYTES_BITS: u32 = 40;
const BYTES_MASK: u64 = (1 << BYTES_BITS) - 1;

pub(crate) struct Admission {
    requests_max: u64,
    bytes_max: u64,
    used: AtomicU64,
    /// How many queue; read without the lock to keep the common case short.
    waiting_count: AtomicUsize,
    closed: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// In order of `id`.
    waiting: VecDeque<Waiting>,
    next_id: u64,
}

struct Waiting {
    id: u64,
    cost: u64,
    waker: Waker,
    /// Room is reserved for it; it leaves the queue when it next polls, or is withdrawn.
    granted: bool,
}

/// One caller's place: outside, in the queue, or admitted. Whoever drops it withdraws it first.
pub(crate) struct Ticket {
    len: usize,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    Queued(u64),
    Inside,
    Used,
}

impl Ticket {
    pub(crate) fn new(len: usize) -> Ticket {
        Ticket { len, place: Place::Outside }
    }

    /// From here on the room belongs to the request, and the worker gives it back.
    pub(super) fn consume(&mut self) {
        assert!(self.place == Place::Inside, "only what was admitted is sent");
        self.place = Place::Used;
    }
}

impl Admission {
    pub(crate) fn new(requests_max: usize, bytes_max: usize) -> Admission {
        Admission {
            requests_max: requests_max as u64,
            bytes_max: (bytes_max as u64).min(BYTES_MASK / 2),
            used: AtomicU64::new(0),
            waiting_count: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            queue: Mutex::new(Queue::default()),
        }
    }

    /// `Ready(true)` with room reserved, `Ready(false)` when closed.
    pub(crate) fn poll_enter(&self, cx: &mut Context<'_>, ticket: &mut Ticket) -> Poll<bool> {
        if self.closed.load(Ordering::SeqCst) {
            self.withdraw(ticket);
            return Poll::Ready(false);
        }
        match ticket.place {
            Place::Inside | Place::Used => Poll::Ready(true),
            Place::Outside => {
                if self.waiting_count.load(Ordering::SeqCst) == 0 && self.reserve(ticket.len) {
                    ticket.place = Place::Inside;
                    return Poll::Ready(true);
                }
                self.enqueue(cx, ticket)
            }
            Place::Queued(id) => {
                let mut queue = self.queue.lock();
                let Some(index) = queue.index_of(id) else { return Poll::Ready(false) };
                let waiting = &mut queue.waiting[index];
                if waiting.granted {
                    queue.waiting.remove(index);
                    self.waiting_count.fetch_sub(1, Ordering::SeqCst);
                    ticket.place = Place::Inside;
                    return Poll::Ready(true);
                }
                waiting.waker.clone_from(cx.waker());
                Poll::Pending
            }
        }
    }

    /// Gives back room and hands it to the head of the queue.
    pub(crate) fn leave(&self, requests: usize, bytes: usize) {
        if requests == 0 {
            return;
        }
        self.used.fetch_sub(((requests as u64) << BYTES_BITS) + bytes as u64, Ordering::SeqCst);
        if self.waiting_count.load(Ordering::SeqCst) > 0 {
            self.grant();
        }
    }

    pub(crate) fn withdraw(&self, ticket: &mut Ticket) {
        match std::mem::replace(&mut ticket.place, Place::Outside) {
            Place::Outside => {}
            Place::Used => ticket.place = Place::Used,
            Place::Inside => self.leave(1, ticket.len),
            Place::Queued(id) => {
                let mut queue = self.queue.lock();
                let Some(index) = queue.index_of(id) else { return };
                let granted = queue.waiting.remove(index).is_some_and(|waiting| waiting.granted);
                self.waiting_count.fetch_sub(1, Ordering::SeqCst);
                drop(queue);
                if granted {
                    self.leave(1, ticket.len);
                } else {
                    // It may have been the head that blocked smaller ones behind it.
                    self.grant();
                }
            }
        }
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let wakers: Vec<Waker> =
            self.queue.lock().waiting.iter().map(|waiting| waiting.waker.clone()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn enqueue(&self, cx: &mut Context<'_>, ticket: &mut Ticket) -> Poll<bool> {
        let mut queue = self.queue.lock();
        let id = queue.next_id;
        queue.next_id += 1;
        queue.waiting.push_back(Waiting {
            id,
            cost: ticket.len as u64,
            waker: cx.waker().clone(),
            granted: false,
        });
        ticket.place = Place::Queued(id);
        // Announced before the count is looked at again: a `leave` that this look misses sees the
        // announcement, and grants.
        self.waiting_count.fetch_add(1, Ordering::SeqCst);
        drop(queue);
        self.grant();
        if self.closed.load(Ordering::SeqCst) {
            self.withdraw(ticket);
            return Poll::Ready(false);
        }
        // The grant may have been for this very ticket, whose waker then has been called.
        Poll::Pending
    }

    /// Reserves room for the first in the queue, for as many as there is room.
    fn grant(&self) {
        let mut wakers = Vec::new();
        {
            let mut queue = self.queue.lock();
            for waiting in queue.waiting.iter_mut().filter(|waiting| !waiting.granted) {
                if !self.reserve(waiting.cost as usize) {
                    break;
                }
                waiting.granted = true;
                wakers.push(waiting.waker.clone());
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    fn reserve(&self, len: usize) -> bool {
        let cost = len as u64 & BYTES_MASK;
        self.used
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |used| {
                let (requests, bytes) = (used >> BYTES_BITS, used & BYTES_MASK);
                // One request larger than the bound goes alone rather than never.
                let fits =
                    requests < self.requests_max && (bytes == 0 || bytes + cost <= self.bytes_max);
                fits.then(|| used + (1 << BYTES_BITS) + cost)
            })
            .is_ok()
    }
}

impl Queue {
    fn index_of(&self, id: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&id, |waiting| waiting.id).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(admission: &Admission, ticket: &mut Ticket) -> Poll<bool> {
        admission.poll_enter(&mut Context::from_waker(Waker::noop()), ticket)
    }

    #[test]
    fn room_is_bounded_in_number_and_bytes_and_given_in_order() {
        let admission = Admission::new(2, 100);
        let (mut a, mut b, mut c, mut d) =
            (Ticket::new(60), Ticket::new(60), Ticket::new(10), Ticket::new(1));
        assert_eq!(poll(&admission, &mut a), Poll::Ready(true));
        assert_eq!(poll(&admission, &mut b), Poll::Pending);
        // Would fit, but `b` was first.
        assert_eq!(poll(&admission, &mut c), Poll::Pending);
        admission.leave(1, 60);
        assert_eq!(poll(&admission, &mut b), Poll::Ready(true));
        assert_eq!(poll(&admission, &mut c), Poll::Ready(true));
        assert_eq!(poll(&admission, &mut d), Poll::Pending);
        admission.withdraw(&mut b);
        assert_eq!(poll(&admission, &mut d), Poll::Ready(true));
    }

    #[test]
    fn a_withdrawn_head_lets_the_next_in() {
        let admission = Admission::new(8, 100);
        let (mut a, mut b, mut c) = (Ticket::new(60), Ticket::new(60), Ticket::new(10));
        assert_eq!(poll(&admission, &mut a), Poll::Ready(true));
        assert_eq!(poll(&admission, &mut b), Poll::Pending);
        assert_eq!(poll(&admission, &mut c), Poll::Pending);
        admission.withdraw(&mut b);
        assert_eq!(poll(&admission, &mut c), Poll::Ready(true));
    }

    #[test]
    fn one_larger_than_the_bound_goes_alone() {
        let admission = Admission::new(8, 100);
        let (mut a, mut b) = (Ticket::new(1000), Ticket::new(1));
        assert_eq!(poll(&admission, &mut a), Poll::Ready(true));
        assert_eq!(poll(&admission, &mut b), Poll::Pending);
        admission.leave(1, 1000);
        assert_eq!(poll(&admission, &mut b), Poll::Ready(true));
    }

    #[test]
    fn closing_turns_everybody_away() {
        let admission = Admission::new(1, 100);
        let (mut a, mut b) = (Ticket::new(1), Ticket::new(1));
        assert_eq!(poll(&admission, &mut a), Poll::Ready(true));
        assert_eq!(poll(&admission, &mut b), Poll::Pending);
        admission.close();
        assert_eq!(poll(&admission, &mut b), Poll::Ready(false));
        assert_eq!(poll(&admission, &mut Ticket::new(1)), Poll::Ready(false));
    }
}
