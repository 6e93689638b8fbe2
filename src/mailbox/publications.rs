//! Which batches over several partitions are being published: so that a reader of several partitions sees each
//! of them whole or not at all (S1).
//!
//! A batch becomes visible in one partition after the other. A reader compares counts before and after its reads:
//! no publication under way before, none begun since, so it has seen none half way. One that finds the counts
//! moving all the time closes the *gate*: what is under way ends, what is decided waits, the reader reads. Nobody
//! else waits but whoever writes the keys of those batches.
//!
//! ## Invariants
//! - **PB1** `started` is never behind `finished`; they are equal when no publication is under way.
//! - **PB2** The gate is closed for the length of a lease: a reader that is neither polled nor dropped keeps
//!   nobody waiting for longer than two ticks, and notices that its lease is over.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::peers::{Agreement, Peers};
use crate::sync::{AtomicU64, Mutex, Ordering};

#[derive(Default)]
pub(crate) struct Publications {
    started: AtomicU64,
    finished: AtomicU64,
    gate: Mutex<Gate>,
}

#[derive(Default)]
struct Gate {
    /// Readers for whom it is closed.
    readers: usize,
    /// Changes when it is opened without them.
    lease: u64,
    /// Ticks since it was closed.
    ticks: u32,
    /// It stays open, because the store closes.
    is_over: bool,
    held: Vec<Arc<Agreement>>,
    wakers: Vec<Waker>,
}

impl Publications {
    /// Whether a batch that is decided may be published now; if not, it is when the gate opens.
    pub(super) fn admit(&self, agreement: &Arc<Agreement>) -> bool {
        let mut gate = self.gate.lock();
        if gate.readers > 0 {
            gate.held.push(agreement.clone());
            return false;
        }
        self.started.fetch_add(1, Ordering::SeqCst);
        true
    }

    /// A batch is published in every partition.
    pub(super) fn ended(&self) {
        let mut gate = self.gate.lock();
        self.finished.fetch_add(1, Ordering::SeqCst);
        let wakers =
            if self.quiet().is_some() { std::mem::take(&mut gate.wakers) } else { Vec::new() };
        drop(gate);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// How many publications there were, if none is under way.
    pub(crate) fn quiet(&self) -> Option<u64> {
        // In this order: had one started in between, the counts would differ (PB1).
        let finished = self.finished.load(Ordering::SeqCst);
        let started = self.started.load(Ordering::SeqCst);
        (started == finished).then_some(started)
    }

    /// Whether none was begun since there were so many.
    pub(crate) fn is_still(&self, seen: u64) -> bool {
        self.started.load(Ordering::SeqCst) == seen
    }

    /// Time has passed (PB2).
    pub(crate) fn tick(&self) {
        let mut gate = self.gate.lock();
        if gate.readers == 0 {
            return;
        }
        gate.ticks += 1;
        if gate.ticks > 1 {
            let held = self.open(&mut gate);
            drop(gate);
            publish(held);
        }
    }

    /// The store closes, and waits for nobody who only reads.
    pub(crate) fn close(&self) {
        let mut gate = self.gate.lock();
        gate.is_over = true;
        let held = self.open(&mut gate);
        let wakers = std::mem::take(&mut gate.wakers);
        drop(gate);
        publish(held);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn open(&self, gate: &mut Gate) -> Vec<Arc<Agreement>> {
        gate.readers = 0;
        gate.lease += 1;
        self.started.fetch_add(gate.held.len() as u64, Ordering::SeqCst);
        std::mem::take(&mut gate.held)
    }
}

fn publish(held: Vec<Arc<Agreement>>) {
    for agreement in held {
        agreement.publish();
    }
}

/// Keeps the gate closed while it lives.
pub(crate) struct Hold {
    peers: Arc<Peers>,
    lease: u64,
}

impl Hold {
    pub(super) fn new(peers: Arc<Peers>) -> Hold {
        let mut gate = peers.publications().gate.lock();
        if gate.readers == 0 {
            gate.ticks = 0;
        }
        if !gate.is_over {
            gate.readers += 1;
        }
        let lease = gate.lease;
        drop(gate);
        Hold { peers, lease }
    }

    /// Waits until no publication is under way.
    pub(crate) fn poll_quiet(&self, cx: &mut Context<'_>) -> Poll<()> {
        let publications = self.peers.publications();
        let mut gate = publications.gate.lock();
        if publications.quiet().is_some() || gate.is_over {
            return Poll::Ready(());
        }
        if !gate.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            gate.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Whether the gate was closed all the time.
    pub(crate) fn is_valid(&self) -> bool {
        let gate = self.peers.publications().gate.lock();
        gate.lease == self.lease && !gate.is_over
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let publications = self.peers.publications();
        let mut gate = publications.gate.lock();
        if gate.lease != self.lease || gate.is_over {
            return;
        }
        gate.readers -= 1;
        if gate.readers == 0 {
            let held = publications.open(&mut gate);
            drop(gate);
            publish(held);
        }
    }
}
