//! The asynchronous face: what one worker does to files while it goes on serving.
//!
//! ## The sleep protocol
//! Entries of the ring reach the kernel when the runtime parks, and a worker that keeps being
//! woken never parks: its own writes would wait for the callers to pause. So a worker advertises
//! itself as wakeable from other threads only after [`Disk::poll_flush`] was `Ready`:
//!
//! ```text
//! turn:   wakeable = false; drain mailbox; start and poll operations
//!         poll_flush → Pending: return Pending            (only the ring can wake us: we park)
//!         poll_flush → Ready:   wakeable = true; look into the mailbox once more; return Pending
//! ```
//!
//! While `poll_flush` is `Pending`, callers only fill the mailbox. The runtime has nothing to run,
//! so it parks, so it submits, so the NOP that `poll_flush` pushed completes and wakes the worker.
//! Therefore no stream of requests, however dense, delays a submission by more than one turn.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;

use super::file::File;
use super::pool::{Helper, Pool};
use super::ring::{self, Ring};
#[cfg(any(test, feature = "sim"))]
use super::sim::SimDisk;

/// An operation. Submitted at its first poll (U2); dropping it later only ends the waiting (U1).
///
/// A dropped write that needs more than one transfer (a short count, more than 1 GiB) may end
/// after any of them when it ran on a ring.
pub(crate) type Op<T> = LocalBoxFuture<'static, T>;

/// A quarter of a core that a worker or a caller wants too.
const UPKEEP_NICENESS: i32 = 5;

/// How durable a write is when it completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteMode {
    /// In the page cache; a later [`Disk::sync`] makes it durable.
    Plain,
    /// Exactly the written range is on disk. Nothing is said about the bytes before it (W2).
    Dsync,
}

/// The disk as one worker sees it. A clone is the same ring, or the same threads.
#[derive(Clone)]
pub(crate) struct Disk {
    backend: Backend,
    /// For sequences that writers wait for.
    cold: Rc<Helper>,
    /// For what nobody waits for.
    upkeep: Rc<Helper>,
    /// For files that readers wait for.
    opening: Rc<Helper>,
    timer: Rc<Helper>,
}

#[derive(Clone)]
enum Backend {
    Uring(Rc<Ring>),
    Blocking(Rc<Pool>),
    /// For files in memory alone.
    Memory,
    #[cfg(any(test, feature = "sim"))]
    Sim(SimDisk),
}

impl Disk {
    pub(super) fn uring(ring: Rc<Ring>) -> Disk {
        Disk::new(Backend::Uring(ring))
    }

    pub(super) fn blocking(pool: Pool) -> Disk {
        Disk::new(Backend::Blocking(Rc::new(pool)))
    }

    pub(super) fn memory() -> Disk {
        Disk::new(Backend::Memory)
    }

    #[cfg(any(test, feature = "sim"))]
    pub(super) fn sim(disk: SimDisk) -> Disk {
        Disk::new(Backend::Sim(disk))
    }

    fn new(backend: Backend) -> Disk {
        Disk {
            backend,
            cold: Rc::new(Helper::new("ringcask-cold", 0)),
            upkeep: Rc::new(Helper::new("ringcask-upkeep", UPKEEP_NICENESS)),
            opening: Rc::new(Helper::new("ringcask-open", 0)),
            timer: Rc::new(Helper::new("ringcask-timer", 0)),
        }
    }

    /// Writes all of `buf` at `offset`; the buffer comes back with the result.
    ///
    /// After an error any part of the range may hold the new bytes. Writes in flight at the same
    /// time have no order among each other, nor has a sync started before they completed.
    pub(crate) fn write(
        &self,
        file: &Arc<File>,
        buf: Vec<u8>,
        offset: u64,
        mode: WriteMode,
    ) -> Op<(io::Result<()>, Vec<u8>)> {
        let file = Arc::clone(file);
        match &self.backend {
            _ if file.is_in_memory() => {
                async move { (file.write_all_at(&buf, offset), buf) }.boxed_local()
            }
            Backend::Memory => std::future::ready((Err(not_in_memory()), buf)).boxed_local(),
            Backend::Uring(ring) => {
                ring::write(Rc::clone(ring), file, buf, offset, mode).boxed_local()
            }
            Backend::Blocking(pool) => {
                let pool = Rc::clone(pool);
                async move {
                    let reply = pool.write(file, buf, offset, mode);
                    drop(pool);
                    reply.await.unwrap_or_else(|_| (Err(helper_gone()), Vec::new()))
                }
                .boxed_local()
            }
            #[cfg(any(test, feature = "sim"))]
            Backend::Sim(disk) => {
                super::sim::write(disk.clone(), file, buf, offset, mode).boxed_local()
            }
        }
    }

    /// As [`write`](Self::write), on this thread: the worker does nothing else until it is done. `None`
    /// if this disk would rather be written to the other way.
    #[cfg_attr(
        not(any(test, feature = "sim")),
        expect(clippy::unnecessary_wraps, reason = "only the simulated disk ever declines")
    )]
    pub(crate) fn write_here(
        &self,
        file: &File,
        buf: &[u8],
        offset: u64,
        mode: WriteMode,
    ) -> Option<io::Result<()>> {
        match &self.backend {
            // So that tests take both ways.
            #[cfg(any(test, feature = "sim"))]
            Backend::Sim(disk) if !disk.toss() => None,
            _ => Some(match mode {
                WriteMode::Plain => file.write_all_at(buf, offset),
                WriteMode::Dsync => file.write_all_dsync_at(buf, offset),
            }),
        }
    }

    /// Makes durable what was written by operations that completed before this one was submitted.
    ///
    /// An error is final for the file (D1, U4).
    pub(crate) fn sync(&self, file: &Arc<File>) -> Op<io::Result<()>> {
        let file = Arc::clone(file);
        match &self.backend {
            _ if file.is_in_memory() => std::future::ready(Ok(())).boxed_local(),
            Backend::Memory => std::future::ready(Err(not_in_memory())).boxed_local(),
            Backend::Uring(ring) => ring::sync(Rc::clone(ring), file).boxed_local(),
            Backend::Blocking(pool) => {
                let pool = Rc::clone(pool);
                async move {
                    let reply = pool.sync(file);
                    drop(pool);
                    reply.await.unwrap_or_else(|_| Err(helper_gone()))
                }
                .boxed_local()
            }
            #[cfg(any(test, feature = "sim"))]
            Backend::Sim(disk) => super::sim::sync(disk.clone(), file).boxed_local(),
        }
    }

    /// Reads `len` bytes at `offset`; fewer only if the file ends there.
    pub(crate) fn read(
        &self,
        file: &Arc<File>,
        len: usize,
        offset: u64,
    ) -> Op<io::Result<Vec<u8>>> {
        let file = Arc::clone(file);
        match &self.backend {
            _ if file.is_in_memory() => async move {
                let mut buf = vec![0; len];
                let count = file.read_at(&mut buf, offset)?;
                buf.truncate(count);
                Ok(buf)
            }
            .boxed_local(),
            Backend::Memory => std::future::ready(Err(not_in_memory())).boxed_local(),
            Backend::Uring(ring) => ring::read(Rc::clone(ring), file, len, offset).boxed_local(),
            Backend::Blocking(pool) => {
                let pool = Rc::clone(pool);
                async move {
                    let reply = pool.read(file, len, offset);
                    drop(pool);
                    reply.await.unwrap_or_else(|_| Err(helper_gone()))
                }
                .boxed_local()
            }
            #[cfg(any(test, feature = "sim"))]
            Backend::Sim(disk) => super::sim::read(disk.clone(), file, len, offset).boxed_local(),
        }
    }

    /// Runs blocking calls off the worker, one job at a time in order of submission. `None` if the
    /// job panicked.
    pub(crate) fn cold<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Op<Option<T>> {
        self.help(&self.cold, job)
    }

    /// As [`cold`](Self::cold), in a queue of its own, so that no commit waits behind it.
    pub(crate) fn upkeep<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Op<Option<T>> {
        self.help(&self.upkeep, job)
    }

    /// As [`cold`](Self::cold), in a queue of its own for files that reads need.
    pub(crate) fn open<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Op<Option<T>> {
        self.help(&self.opening, job)
    }

    /// Lets time pass. Pauses of one worker come one after the other.
    pub(crate) fn pause(&self, pause: Duration) -> Op<()> {
        let passed = self.help(&self.timer, move || std::thread::sleep(pause));
        async move {
            let _panicked = passed.await;
        }
        .boxed_local()
    }

    #[cfg_attr(
        not(any(test, feature = "sim")),
        expect(clippy::unused_self, reason = "only the simulated disk has no helpers")
    )]
    fn help<T: Send + 'static>(
        &self,
        helper: &Rc<Helper>,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Op<Option<T>> {
        #[cfg(any(test, feature = "sim"))]
        if let Backend::Sim(_) = &self.backend {
            // On this thread: a real one would make the order of operations depend on the scheduler.
            // But not at once, so that whoever started it takes a turn while it is under way.
            return async move {
                super::sim::take_a_turn().await;
                super::pool::catch(job)
            }
            .boxed_local();
        }
        let helper = Rc::clone(helper);
        async move {
            let reply = helper.run(job);
            drop(helper);
            reply.await.unwrap_or(None)
        }
        .boxed_local()
    }

    /// Starts the helper threads that would be started on demand. A thread inherits the cores of the
    /// one that starts it, so a worker calls this before it is pinned: helpers then run wherever
    /// there is room, beside the worker and not on top of it.
    pub(crate) fn start_helpers(&self) {
        #[cfg(any(test, feature = "sim"))]
        if let Backend::Sim(_) = &self.backend {
            return;
        }
        self.cold.start();
        self.upkeep.start();
        self.opening.start();
    }

    /// Ready once everything started on this disk was handed to the kernel; see the module's
    /// protocol. At once where there is no ring.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.backend {
            Backend::Uring(ring) => ring.poll_flush(cx),
            Backend::Blocking(_) | Backend::Memory => Poll::Ready(()),
            #[cfg(any(test, feature = "sim"))]
            Backend::Sim(_) => Poll::Ready(()),
        }
    }
}

#[cold]
fn not_in_memory() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "a file of a disk cannot be used without the disk")
}

#[cold]
fn helper_gone() -> io::Error {
    io::Error::other("the helper thread of this operation panicked")
}
