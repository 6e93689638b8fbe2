//! Room in a mailbox: bounded in requests and in bytes, waited for asynchronously, first come first
//! served (W5).
//!
//! The common case is one compare-and-swap on a word that holds both counts. Only when there is no
//! room does a request go into a queue, under a lock; from then on newcomers queue behind it, and whoever
//! leaves lets in those at the head, so that a large request is not starved by small ones.
//!
//! What queues is the request itself, not its caller: it goes in whether or not the caller's future is polled
//! just then. A caller who keeps one future while he waits for another, as whoever writes from within
//! a scan does, would otherwise keep the room from everybody.

use std::collections::VecDeque;

use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering};

/// Bytes take the low bits of the word, requests the high ones.
const BYTES_BITS: u32 = 40;
const BYTES_MASK: u64 = (1 << BYTES_BITS) - 1;

pub(crate) struct Admission<T> {
    requests_max: u64,
    bytes_max: u64,
    used: AtomicU64,
    /// How many queue; read without the lock to keep the common case short.
    waiting_count: AtomicUsize,
    closed: AtomicBool,
    queue: Mutex<Queue<T>>,
}

struct Queue<T> {
    /// In order of their places.
    waiting: VecDeque<Waiting<T>>,
    place_next: u64,
}

struct Waiting<T> {
    place: Place,
    cost: usize,
    request: T,
}

/// Where a request queues, or did: given back by a caller who does not wait any more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Place(u64);

/// Called with each request that is let in: in order, so with the queue locked.
pub(crate) type LetIn<'a, T> = &'a mut dyn FnMut(T);

impl<T> Admission<T> {
    pub(crate) fn new(requests_max: usize, bytes_max: usize) -> Admission<T> {
        Admission {
            requests_max: requests_max as u64,
            bytes_max: (bytes_max as u64).min(BYTES_MASK / 2),
            used: AtomicU64::new(0),
            waiting_count: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            queue: Mutex::new(Queue { waiting: VecDeque::new(), place_next: 0 }),
        }
    }

    /// Lets `request` in, or queues it, or drops it if nothing comes in any more.
    pub(crate) fn enter(&self, request: T, cost: usize, let_in: LetIn<'_, T>) -> Option<Place> {
        if self.is_closed() {
            return None;
        }
        if self.waiting_count.load(Ordering::SeqCst) == 0 && self.reserve(cost) {
            let_in(request);
            return None;
        }
        let place = {
            let mut queue = self.queue.lock();
            let place = Place(queue.place_next);
            queue.place_next += 1;
            queue.waiting.push_back(Waiting { place, cost, request });
            // Announced before the room is looked at again: a `leave` that this look misses sees the
            // announcement, and lets in.
            self.waiting_count.fetch_add(1, Ordering::SeqCst);
            place
        };
        self.let_in_first(let_in);
        if self.is_closed() {
            self.turn_away();
        }
        Some(place)
    }

    /// Gives back room, and lets in whom there is room for.
    pub(crate) fn leave(&self, requests: usize, bytes: usize, let_in: LetIn<'_, T>) {
        if requests == 0 {
            return;
        }
        self.used.fetch_sub(((requests as u64) << BYTES_BITS) + bytes as u64, Ordering::SeqCst);
        if self.waiting_count.load(Ordering::SeqCst) > 0 {
            self.let_in_first(let_in);
        }
    }

    /// Takes a request out of the queue, if it is there still.
    pub(crate) fn withdraw(&self, place: Place, let_in: LetIn<'_, T>) {
        let withdrawn = {
            let mut queue = self.queue.lock();
            let Ok(index) = queue.waiting.binary_search_by_key(&place, |waiting| waiting.place)
            else {
                return;
            };
            self.waiting_count.fetch_sub(1, Ordering::SeqCst);
            queue.waiting.remove(index)
        };
        drop(withdrawn);
        // It may have been the head that blocked smaller ones behind it.
        self.let_in_first(let_in);
    }

    /// Drops what queues, and whatever comes from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.turn_away();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn turn_away(&self) {
        let waiting = {
            let mut queue = self.queue.lock();
            self.waiting_count.fetch_sub(queue.waiting.len(), Ordering::SeqCst);
            std::mem::take(&mut queue.waiting)
        };
        // Which wakes their callers, so not with the lock held.
        drop(waiting);
    }

    fn let_in_first(&self, let_in: LetIn<'_, T>) {
        let mut queue = self.queue.lock();
        while queue.waiting.front().is_some_and(|first| self.reserve(first.cost))
            && let Some(first) = queue.waiting.pop_front()
        {
            let_in(first.request);
            // Not before: a newcomer that sees nobody queue goes in, and is not to overtake.
            self.waiting_count.fetch_sub(1, Ordering::SeqCst);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An admission, and what it has let in.
    struct Room {
        admission: Admission<&'static str>,
        inside: Vec<&'static str>,
    }

    impl Room {
        fn new(requests_max: usize, bytes_max: usize) -> Room {
            Room { admission: Admission::new(requests_max, bytes_max), inside: Vec::new() }
        }

        fn enter(&mut self, request: &'static str, cost: usize) -> Option<Place> {
            self.admission.enter(request, cost, &mut |request| self.inside.push(request))
        }

        fn leave(&mut self, cost: usize) {
            self.admission.leave(1, cost, &mut |request| self.inside.push(request));
        }

        fn withdraw(&mut self, place: Option<Place>) {
            let place = place.expect("it queued");
            self.admission.withdraw(place, &mut |request| self.inside.push(request));
        }
    }

    #[test]
    fn room_is_bounded_in_number_and_bytes_and_given_in_order() {
        let mut room = Room::new(2, 100);
        room.enter("a", 60);
        room.enter("b", 60);
        // Would fit, but `b` was first.
        room.enter("c", 10);
        assert_eq!(room.inside, ["a"]);
        room.leave(60);
        assert_eq!(room.inside, ["a", "b", "c"]);
        room.enter("d", 1);
        assert_eq!(room.inside, ["a", "b", "c"]);
        room.leave(60);
        assert_eq!(room.inside, ["a", "b", "c", "d"]);
    }

    #[test]
    fn a_withdrawn_head_lets_the_next_in() {
        let mut room = Room::new(8, 100);
        room.enter("a", 60);
        let head = room.enter("b", 60);
        room.enter("c", 10);
        assert_eq!(room.inside, ["a"]);
        room.withdraw(head);
        assert_eq!(room.inside, ["a", "c"]);
        room.withdraw(head);
        assert_eq!(room.inside, ["a", "c"]);
    }

    #[test]
    fn one_larger_than_the_bound_goes_alone() {
        let mut room = Room::new(8, 100);
        room.enter("a", 1000);
        room.enter("b", 1);
        assert_eq!(room.inside, ["a"]);
        room.leave(1000);
        assert_eq!(room.inside, ["a", "b"]);
    }

    #[test]
    fn closing_turns_everybody_away() {
        let mut room = Room::new(1, 100);
        room.enter("a", 1);
        let waiting = room.enter("b", 1);
        room.admission.close();
        room.leave(1);
        assert_eq!(room.enter("c", 1), None);
        room.withdraw(waiting);
        assert_eq!(room.inside, ["a"]);
    }
}
