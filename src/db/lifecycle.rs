//! From open to closed: who may still ask, who waits for the end, and who holds the lock until then.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::io::{Fs, LockFile, Sharing};
use crate::limits::CLOSING_WAIT;
use crate::log::layout;
use crate::worker::Ticker;

/// How often a waiting open tries the lock again.
const LOCK_RETRY: Duration = Duration::from_millis(2);

/// Shared by the handles and the workers of one store.
pub(crate) struct Lifecycle {
    closing: AtomicBool,
    state: Mutex<State>,
}

struct State {
    /// And [tasks](Task) beside them.
    workers_running: usize,
    outcome: Result<()>,
    /// Held until the last worker has ended.
    lock: Option<StoreLock>,
    ticker: Option<Ticker>,
    wakers: Vec<Waker>,
}

impl Lifecycle {
    pub(super) fn new(lock: StoreLock, worker_count: usize) -> Lifecycle {
        Lifecycle {
            closing: AtomicBool::new(false),
            state: Mutex::new(State {
                workers_running: worker_count,
                outcome: Ok(()),
                lock: Some(lock),
                ticker: None,
                wakers: Vec::new(),
            }),
        }
    }

    pub(super) fn keep(&self, ticker: Ticker) {
        self.state.lock().ticker = Some(ticker);
    }

    pub(super) fn begin_close(&self) {
        if !self.closing.swap(true, Ordering::SeqCst) {
            let mut state = self.state.lock();
            if let Some(lock) = &state.lock {
                lock.note_closing();
            }
            state.ticker = None;
        }
    }

    /// Something other than a worker begins that has to end before the store counts as closed; `None` if it
    /// is closing already.
    pub(super) fn begin_task(self: &Arc<Self>) -> Option<Task> {
        let mut state = self.state.lock();
        // Asked under the lock: after it, `closed` counts this one too.
        if self.is_closing() || state.workers_running == 0 {
            return None;
        }
        state.workers_running += 1;
        Some(Task(self.clone()))
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Called once by each worker and task, as the last thing it does.
    pub(super) fn worker_ended(&self, outcome: Result<()>) {
        let wakers = {
            let mut state = self.state.lock();
            if state.outcome.is_ok() {
                state.outcome = outcome;
            }
            state.workers_running -= 1;
            if state.workers_running > 0 {
                return;
            }
            state.lock = None;
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits until every worker has ended and the lock is free.
    pub(super) async fn closed(&self) -> Result<()> {
        std::future::poll_fn(|cx| {
            let mut state = self.state.lock();
            if state.workers_running == 0 {
                return Poll::Ready(state.outcome.clone());
            }
            if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

/// Work under way that closing waits for; over when dropped.
pub(super) struct Task(Arc<Lifecycle>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.worker_ended(Ok(()));
    }
}

/// Whether somebody still waits for what is being done.
pub(super) type IsAwaited<'a> = &'a dyn Fn() -> bool;

/// The thread may have begun late, or waited or loaded for long: by now the caller may have gone, and have opened the
/// store again, with other options.
pub(super) fn check_awaited(is_awaited: IsAwaited<'_>) -> Result<()> {
    if is_awaited() { Ok(()) } else { Err(Error::closed()) }
}

/// Stores of this process that are closing, by path: an open of one of them waits (X1). The number
/// tells two instances of one path apart.
static CLOSING: Mutex<Vec<(u64, PathBuf)>> = Mutex::new(Vec::new());

static NEXT_LOCK: AtomicU64 = AtomicU64::new(0);

/// The flock of a store; released when dropped.
pub(crate) struct StoreLock {
    number: u64,
    path: PathBuf,
    file: Option<LockFile>,
}

impl StoreLock {
    /// No lock, where nobody could write.
    pub(super) fn none(root: &Path) -> StoreLock {
        let number = NEXT_LOCK.fetch_add(1, Ordering::Relaxed);
        StoreLock { number, path: root.join(layout::LOCK), file: None }
    }

    /// Takes the lock of the store at `root`, waiting up to `wait` for another holder, and up to
    /// [`CLOSING_WAIT`] for an instance of this process that is closing, and not once nobody awaits it.
    pub(super) fn take(
        fs: &Fs,
        root: &Path,
        wait: Duration,
        sharing: Sharing,
        is_awaited: IsAwaited<'_>,
    ) -> Result<StoreLock> {
        let path = root.join(layout::LOCK);
        let started = Instant::now();
        loop {
            // Asked before the lock is tried: asked afterwards, an instance that lets go in between
            // would be found holding the lock, and then not closing.
            let is_closing = CLOSING.lock().iter().any(|(_, closing)| *closing == path);
            let taken =
                fs.lock(&path, sharing).map_err(|source| Error::io("lock", &path, source))?;
            check_awaited(is_awaited)?;
            if let Some(file) = taken {
                let number = NEXT_LOCK.fetch_add(1, Ordering::Relaxed);
                return Ok(StoreLock { number, path, file: Some(file) });
            }
            let wait = if is_closing { wait.max(CLOSING_WAIT) } else { wait };
            if started.elapsed() >= wait {
                let how = match sharing {
                    Sharing::Exclusive => "open in another instance",
                    Sharing::Shared => "open in another instance that may write to it",
                };
                return Err(Error::new(
                    ErrorKind::Locked,
                    format!(
                        "{}: the store is {how}; close that one first, or wait for it with \
                         Options::lock_wait",
                        root.display()
                    ),
                ));
            }
            std::thread::sleep(LOCK_RETRY);
        }
    }

    fn note_closing(&self) {
        CLOSING.lock().push((self.number, self.path.clone()));
    }
}

impl Drop for StoreLock {
    fn drop(&mut self) {
        // A waiting open sees either a free lock or the note, which therefore goes last.
        self.file = None;
        CLOSING.lock().retain(|(number, _)| *number != self.number);
    }
}
