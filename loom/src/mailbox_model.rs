//! The mailbox: nobody sleeps through a request, room is neither lost nor given twice, one answer.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use loom::future::block_on;
use loom::thread;

use crate::Model;
use crate::admission::{Admission, Place};
use crate::doorbell::{Doorbell, Ticks};
use crate::reply::{Receiver, Sender, slot};
use crate::sync::{AtomicBool, AtomicUsize, Ordering};

pub(crate) const MODELS: [Model; 10] = [
    ("m2: a worker sleeps through no request", Some(3), requests_of_two),
    ("m2: a worker sleeps through no tick", Some(3), request_and_tick),
    ("w5: room for one is given to three in turn", Some(3), room_for_one),
    ("w5: room in bytes is given as far as it goes", Some(3), room_in_bytes),
    ("w5: a caller that gives up leaves its room", Some(4), giving_up),
    ("w5: giving up and leaving at once strand nobody", Some(3), giving_up_before_another),
    ("w5: a head that gives up lets smaller ones in", Some(4), giving_up_at_the_head),
    ("w5: closing turns everybody away", Some(4), closing),
    ("m1: an answer arrives once", None, answered),
    ("m1: a sender that is dropped answers", None, dropped),
];

/// A mailbox's channel, as weak as one can be: what was pushed is seen some time, in order.
#[derive(Default)]
struct Queue {
    pushed: AtomicUsize,
}

impl Queue {
    fn push(&self) {
        self.pushed.fetch_add(1, Ordering::Release);
    }

    fn take_all(&self) -> usize {
        self.pushed.swap(0, Ordering::Acquire)
    }

    fn is_empty(&self) -> bool {
        self.pushed.load(Ordering::Relaxed) == 0
    }
}

#[derive(Default)]
struct Worker {
    doorbell: Doorbell,
    queue: Queue,
}

impl Worker {
    /// `Mailbox::send`.
    fn send(&self) {
        self.queue.push();
        self.doorbell.ring();
    }

    /// `Worker::poll`, turn after turn until so many requests and ticks were met.
    fn run(&self, requests: usize, ticks: bool) {
        let (mut taken, mut ticked) = (0, false);
        block_on(poll_fn(|cx| {
            self.doorbell.awake();
            ticked |= self.doorbell.take_ticks().has(Ticks::UPKEEP);
            taken += self.queue.take_all();
            if taken == requests && ticked == ticks {
                return Poll::Ready(());
            }
            self.doorbell.sleep(cx.waker());
            if !self.queue.is_empty() || self.doorbell.has_tick() {
                self.doorbell.awake();
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        }));
    }
}

fn requests_of_two() {
    let worker = Arc::new(Worker::default());
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let worker = Arc::clone(&worker);
            thread::spawn(move || worker.send())
        })
        .collect();
    worker.run(2, false);
    join(callers);
}

fn request_and_tick() {
    let worker = Arc::new(Worker::default());
    let caller = Arc::clone(&worker);
    let caller = thread::spawn(move || caller.send());
    let timer = Arc::clone(&worker);
    let timer = thread::spawn(move || timer.doorbell.tick(Ticks::UPKEEP));
    worker.run(1, true);
    join([caller, timer]);
}

/// Room, and who is inside.
struct Room {
    /// Requests answer as they are let in.
    admission: Admission<Sender<()>>,
    requests: AtomicUsize,
    bytes: AtomicUsize,
    requests_max: usize,
    bytes_max: usize,
}

/// A request that was sent.
struct Sent {
    place: Option<Place>,
    let_in: Receiver<()>,
}

impl Sent {
    /// Waits until it is let in; false if it never is.
    fn is_let_in(&self) -> bool {
        block_on(poll_fn(|cx| self.let_in.poll_answer(cx))).is_some()
    }

    fn is_in(&self) -> bool {
        let cx = &mut Context::from_waker(Waker::noop());
        self.let_in.poll_answer(cx) == Poll::Ready(Some(()))
    }
}

fn let_in(request: Sender<()>) {
    request.send(());
}

impl Room {
    fn new(requests_max: usize, bytes_max: usize) -> Arc<Room> {
        Arc::new(Room {
            admission: Admission::new(requests_max, bytes_max),
            requests: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            requests_max,
            bytes_max,
        })
    }

    fn send(&self, len: usize) -> Sent {
        let (sender, receiver) = slot();
        let place = self.admission.enter(sender, len, &mut let_in);
        Sent { place, let_in: receiver }
    }

    /// Goes in, is counted there, and leaves as the worker lets a request go.
    fn pass(&self, len: usize) {
        assert!(self.send(len).is_let_in());
        self.stay(len);
    }

    fn stay(&self, len: usize) {
        let requests = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = self.bytes.fetch_add(len, Ordering::Relaxed) + len;
        assert!(requests <= self.requests_max, "{requests} requests are inside");
        assert!(bytes <= self.bytes_max, "{bytes} bytes are inside");
        self.requests.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(len, Ordering::Relaxed);
        self.leave(len);
    }

    fn leave(&self, len: usize) {
        self.admission.leave(1, len, &mut let_in);
    }

    /// Gives up; whoever was let in by then leaves, as a worker lets go of what nobody waits for.
    fn give_up(&self, sent: &Sent, len: usize) {
        if let Some(place) = sent.place {
            self.admission.withdraw(place, &mut let_in);
        }
        if sent.is_in() {
            self.leave(len);
        }
    }

    /// All of the room is there again, once nobody is inside.
    fn is_whole(&self) {
        let all = self.send(self.bytes_max);
        assert!(all.is_in(), "room was lost");
        let more = self.send(1);
        assert!(!more.is_in(), "there is more room than there was");
        self.give_up(&more, 1);
        self.leave(self.bytes_max);
    }
}

fn room_for_one() {
    let room = Room::new(1, 10);
    let others: Vec<_> = (0..2)
        .map(|_| {
            let room = Arc::clone(&room);
            thread::spawn(move || room.pass(1))
        })
        .collect();
    room.pass(1);
    join(others);
    room.is_whole();
}

fn room_in_bytes() {
    let room = Room::new(3, 10);
    let others: Vec<_> = [6, 3]
        .into_iter()
        .map(|len| {
            let room = Arc::clone(&room);
            thread::spawn(move || room.pass(len))
        })
        .collect();
    room.pass(5);
    join(others);
    room.is_whole();
}

/// A future that was polled once and is dropped, while another caller leaves.
fn giving_up() {
    let room = Room::new(1, 10);
    assert!(room.send(1).is_in());
    let leaving = Arc::clone(&room);
    let leaving = thread::spawn(move || leaving.leave(1));
    let sent = room.send(1);
    room.give_up(&sent, 1);
    join([leaving]);
    room.is_whole();
}

/// The same with somebody queued behind, who must get in whoever was let in first.
fn giving_up_before_another() {
    let room = Room::new(1, 10);
    assert!(room.send(1).is_in());
    let head = room.send(1);
    let leaving = Arc::clone(&room);
    let leaving = thread::spawn(move || leaving.leave(1));
    let second = Arc::clone(&room);
    let second = thread::spawn(move || second.pass(1));
    room.give_up(&head, 1);
    join([leaving, second]);
    room.is_whole();
}

/// Nobody leaves here: the room was there all the time, and only the head did not fit.
fn giving_up_at_the_head() {
    let room = Room::new(3, 10);
    assert!(room.send(6).is_in());
    let head = room.send(6);
    let behind = Arc::clone(&room);
    let behind = thread::spawn(move || behind.pass(3));
    room.give_up(&head, 6);
    join([behind]);
    room.leave(6);
    room.is_whole();
}

fn closing() {
    let room = Room::new(1, 10);
    assert!(room.send(1).is_in());
    let waiting = Arc::clone(&room);
    let waiting = thread::spawn(move || assert!(!waiting.send(1).is_let_in()));
    room.admission.close();
    join([waiting]);
    assert!(!room.send(1).is_let_in());
}

fn answered() {
    let (sender, receiver) = slot();
    let is_polled = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_polled);
    let worker = thread::spawn(move || {
        let _either = seen.load(Ordering::Relaxed);
        sender.send(7);
    });
    // The future may move to another task between two polls: the last waker counts.
    let first = receiver.poll_answer(&mut Context::from_waker(Waker::noop()));
    is_polled.store(true, Ordering::Relaxed);
    let answer = match first {
        Poll::Ready(answer) => answer,
        Poll::Pending => block_on(poll_fn(|cx| receiver.poll_answer(cx))),
    };
    assert_eq!(answer, Some(7));
    assert_eq!(block_on(poll_fn(|cx| receiver.poll_answer(cx))), None);
    join([worker]);
}

fn dropped() {
    let (sender, receiver) = slot::<u32>();
    let worker = thread::spawn(move || drop(sender));
    assert_eq!(block_on(poll_fn(|cx| receiver.poll_answer(cx))), None);
    join([worker]);
}

fn join(threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    for thread in threads {
        thread.join().expect("a model's thread does not panic");
    }
}
