//! The library's `sync` with loom's atomics and locks, so that loom sees every access.

use std::cell::UnsafeCell;
use std::ops::Deref;
use std::sync::Arc;
use std::task::Waker;

pub(crate) use loom::sync::atomic::{Ordering, fence};
pub(crate) use loom::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

macro_rules! atomic {
    ($name:ident, $inner:ty) => {
        /// With an initial value that counts as a `SeqCst` store: loom lets a `SeqCst` load return any
        /// value that was not stored with `SeqCst`, however old, and takes the first one for such.
        #[derive(Debug)]
        pub(crate) struct $name(loom::sync::atomic::$name);

        #[allow(dead_code, reason = "not every one of them is stored to")]
        impl $name {
            pub(crate) fn new(value: $inner) -> $name {
                let atomic = loom::sync::atomic::$name::new(value);
                atomic.store(value, Ordering::SeqCst);
                $name(atomic)
            }

            /// Behind every store and exchange made so far. Loom leaves a store and another thread's
            /// exchange unordered, even when the exchange has read what the store replaced, and then
            /// returns to later loads a value that no machine would. The orders that this leaves out
            /// are those of other interleavings.
            #[track_caller]
            pub(crate) fn store(&self, value: $inner, ordering: Ordering) {
                let _replaced = self.0.swap(value, ordering);
            }
        }

        impl Default for $name {
            fn default() -> $name {
                $name::new(<$inner>::default())
            }
        }

        impl Deref for $name {
            type Target = loom::sync::atomic::$name;

            fn deref(&self) -> &loom::sync::atomic::$name {
                &self.0
            }
        }
    };
}

atomic!(AtomicBool, bool);
atomic!(AtomicU8, u8);
atomic!(AtomicU64, u64);
atomic!(AtomicUsize, usize);

/// parking_lot's interface; nothing here panics with a lock held but a model that has failed.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect("no model goes on after a panic")
    }
}

#[derive(Debug)]
pub(crate) struct RwLock<T>(loom::sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> RwLock<T> {
        RwLock(loom::sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().expect("no model goes on after a panic")
    }

    pub(crate) fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        self.0.try_read().ok()
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().expect("no model goes on after a panic")
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().expect("no model goes on after a panic")
    }
}

#[derive(Debug, Default)]
pub(crate) struct AtomicWaker(loom::future::AtomicWaker);

impl AtomicWaker {
    pub(crate) fn register(&self, waker: &Waker) {
        self.0.register_by_ref(waker);
    }

    pub(crate) fn wake(&self) {
        self.0.wake();
    }
}

/// arc-swap as far as its users may rely on it: whoever loads a pointer sees what was written before it was
/// stored, and may load an older one as long as nothing says otherwise. Nothing is freed before the end,
/// so this does not model how arc-swap keeps what is still read alive.
pub(crate) struct ArcSwap<T> {
    index: AtomicUsize,
    stored: UnsafeCell<Vec<Arc<T>>>,
}

// SAFETY: loom runs one thread of a model at a time, and no reference into `stored` outlives a call.
unsafe impl<T: Send + Sync> Send for ArcSwap<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for ArcSwap<T> {}

impl<T> ArcSwap<T> {
    pub(crate) fn new(value: Arc<T>) -> ArcSwap<T> {
        ArcSwap { index: AtomicUsize::new(0), stored: UnsafeCell::new(vec![value]) }
    }

    pub(crate) fn load(&self) -> Loaded<T> {
        let index = self.index.load(Ordering::Acquire);
        // SAFETY: nothing switches threads between here and the end of the clone.
        let stored = unsafe { &*self.stored.get() };
        Loaded(Arc::clone(&stored[index]))
    }

    pub(crate) fn store(&self, value: Arc<T>) {
        // SAFETY: nothing switches threads between here and the end of the push.
        let stored = unsafe { &mut *self.stored.get() };
        stored.push(value);
        self.index.store(stored.len() - 1, Ordering::Release);
    }
}

/// What was loaded, for as long as it is looked at.
pub(crate) struct Loaded<T>(Arc<T>);

impl<T> Deref for Loaded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
