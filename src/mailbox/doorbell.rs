//! Wakes a worker that sleeps, and costs next to nothing when it does not.

use std::task::Waker;

use crate::sync::{AtomicBool, AtomicU8, AtomicWaker, Ordering, fence};

/// What a timer asks a worker to look at; a set of both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ticks(u8);

impl Ticks {
    /// What was acknowledged is to be synced.
    pub(crate) const SYNC: Ticks = Ticks(1);
    /// Upkeep may have a reason that only time gives.
    pub(crate) const UPKEEP: Ticks = Ticks(2);

    pub(crate) fn has(self, other: Ticks) -> bool {
        self.0 & other.0 != 0
    }
}

/// Shared by every mailbox of one worker.
#[derive(Default)]
pub(crate) struct Doorbell {
    sleeping: AtomicBool,
    ticks: AtomicU8,
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
    pub(crate) fn tick(&self, ticks: Ticks) {
        self.ticks.fetch_or(ticks.0, Ordering::Relaxed);
        self.ring();
    }

    /// Called by the worker: which timers rang since the last look.
    pub(crate) fn take_ticks(&self) -> Ticks {
        if self.has_tick() { Ticks(self.ticks.swap(0, Ordering::AcqRel)) } else { Ticks::default() }
    }

    /// Whether [`Doorbell::take_ticks`] would have any.
    pub(crate) fn has_tick(&self) -> bool {
        self.ticks.load(Ordering::Relaxed) != 0
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
