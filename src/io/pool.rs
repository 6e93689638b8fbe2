//! Helper threads of one worker: the blocking disk where there is no ring, and the helpers.
//!
//! Writes and syncs share one thread, so they happen in the order they were submitted; reads have
//! four, so that a cold read waits neither for a sync nor for another read. Calls that would stop
//! a worker go to a helper, which a worker with a ring has too: one for what writers wait for
//! (rotation, directory syncs), one for files that readers wait for, one for upkeep, which nobody waits
//! for.
//!
//! The queues have no bound of their own: the worker's bounds on groups and reads in flight (W5)
//! are theirs, and a queue that could be full would have to block the worker or fail a write.

use std::cell::OnceCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use futures::channel::oneshot;

use super::disk::WriteMode;
use super::file::File;

/// Enough to hand over what has been read ahead, few enough that the stacks do not count.
const READ_THREADS: usize = 4;

type Job = Box<dyn FnOnce() + Send>;

/// The blocking disk of one worker.
pub(super) struct Pool {
    writes: Threads,
    reads: Threads,
}

impl Pool {
    pub(super) fn new() -> io::Result<Pool> {
        Ok(Pool {
            writes: Threads::spawn("ringcask-write", 1, 0)?,
            reads: Threads::spawn("ringcask-read", READ_THREADS, 0)?,
        })
    }

    pub(super) fn write(
        &self,
        file: Arc<File>,
        buf: Vec<u8>,
        offset: u64,
        mode: WriteMode,
    ) -> oneshot::Receiver<(io::Result<()>, Vec<u8>)> {
        self.writes.submit(move || {
            let result = match mode {
                WriteMode::Plain => file.write_all_at(&buf, offset),
                WriteMode::Dsync => file.write_all_dsync_at(&buf, offset),
            };
            (result, buf)
        })
    }

    pub(super) fn sync(&self, file: Arc<File>) -> oneshot::Receiver<io::Result<()>> {
        self.writes.submit(move || file.sync_data())
    }

    pub(super) fn read(
        &self,
        file: Arc<File>,
        len: usize,
        offset: u64,
    ) -> oneshot::Receiver<io::Result<Vec<u8>>> {
        // However few the threads are, the drive has before it all that is waited for.
        file.advise_needed(offset, len);
        self.reads.submit(move || {
            let mut buf = vec![0; len];
            let count = file.read_at(&mut buf, offset)?;
            buf.truncate(count);
            Ok(buf)
        })
    }
}

/// One thread that takes blocking jobs off a worker, started ahead or with its first job.
pub(super) struct Helper {
    name: &'static str,
    /// How much less it gets of a core that others want too.
    niceness: i32,
    threads: OnceCell<Threads>,
}

impl Helper {
    pub(super) fn new(name: &'static str, niceness: i32) -> Helper {
        Helper { name, niceness, threads: OnceCell::new() }
    }

    /// Best effort: the first job tries again.
    pub(super) fn start(&self) {
        let _started = self.threads();
    }

    /// Runs `job` on the thread; the answer is `None` if it panicked.
    pub(super) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<Option<T>> {
        let guarded = move || catch(job);
        if let Some(threads) = self.threads() {
            threads.submit(guarded)
        } else {
            // Rotation has to go on when the process is out of threads: slow is better than stuck.
            let (sender, receiver) = oneshot::channel();
            drop(sender.send(guarded()));
            receiver
        }
    }

    fn threads(&self) -> Option<&Threads> {
        if self.threads.get().is_none() {
            let threads = Threads::spawn(self.name, 1, self.niceness).ok()?;
            return Some(self.threads.get_or_init(|| threads));
        }
        self.threads.get()
    }
}

/// Runs `job`, turning a panic into `None`: one broken job must not take later ones with it.
pub(super) fn catch<T>(job: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(job)).ok()
}

/// Threads of one name that take jobs from one queue.
///
/// Dropping it waits until the queue is empty and the threads are gone. That is U3: a write whose
/// waiter was dropped must not reach the file after the store's lock was released.
struct Threads {
    /// `None` only while dropping; its end is what ends the threads.
    queue: Option<Sender<Job>>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    fn spawn(name: &str, count: usize, niceness: i32) -> io::Result<Threads> {
        let (sender, receiver) = crossbeam_channel::unbounded::<Job>();
        let mut threads = Threads { queue: Some(sender), handles: Vec::with_capacity(count) };
        for _ in 0..count {
            let receiver = receiver.clone();
            let work = move || {
                if niceness > 0 {
                    // Only this thread's, as Linux has it. Refused, it is no worse than before.
                    let _refused = rustix::process::setpriority_process(None, niceness);
                }
                receiver.into_iter().for_each(|job| job());
            };
            threads.handles.push(std::thread::Builder::new().name(name.into()).spawn(work)?);
        }
        Ok(threads)
    }

    /// Queues `job`. The receiver is cancelled if the job was dropped, which takes a panic.
    fn submit<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        // A dropped receiver is a caller who no longer waits; the work is done all the same (U1).
        let job = Box::new(move || drop(sender.send(job())));
        if let Some(queue) = &self.queue {
            // Refused only when every thread is gone: then the job is dropped, and its waiter told.
            drop(queue.send(job));
        }
        receiver
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.queue = None;
        for handle in self.handles.drain(..) {
            // A thread that panicked has already cancelled its waiter.
            drop(handle.join());
        }
    }
}
