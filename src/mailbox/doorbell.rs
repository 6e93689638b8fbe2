//! Wakes a worker that sleeps, and costs next to nothing when it does not.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::Waker;

use futures::task::AtomicWaker;

/// Shared by every mailbox of one worker.
#[derive(Default)]
pub(crate) struct Doorbell {
    sleeping: AtomicBool,
    tick: AtomicBool,
    waker: AtomicWaker,
}

impl Doorbell {
    /// Called by callers after something was put where the worker will find it.
    pub(crate) fn ring(&self) {
        // Pairs with the fence in `sleep`: of "I queued, then saw it awake" and "it went to sleep,
        // then saw nothing queued" at most one can happen (M2).
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Called by a timer: the worker should look at what is due.
    pub(crate) fn tick(&self) {
        self.tick.store(true, Ordering::Relaxed);
        self.ring();
    }

    /// Called by the worker: whether a timer rang since the last look.
    pub(crate) fn take_tick(&self) -> bool {
        self.has_tick() && self.tick.swap(false, Ordering::AcqRel)
    }

    /// Whether [`Doorbell::take_tick`] would be true.
    pub(crate) fn has_tick(&self) -> bool {
        self.tick.load(Ordering::Relaxed)
    }

    /// Called by the worker before it returns to its executor: from here on it may be woken. The
    /// worker must look into its mailboxes once more afterwards, and call [`Doorbell::awake`] if it
    /// finds anything.
    pub(crate) fn sleep(&self, waker: &Waker) {
        self.waker.register(waker);
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Called by the worker when it runs: nobody needs to wake it now.
    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }
}
