//! What the mailbox and the keydir share between threads with, under one name.
//!
//! The crate in `loom/` compiles their sources again with loom's counterparts in the place of this module,
//! and runs them in every interleaving: a file that is modelled there takes its atomics and locks from here.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};

pub(crate) use arc_swap::ArcSwap;
pub(crate) use futures::task::AtomicWaker;
pub(crate) use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
