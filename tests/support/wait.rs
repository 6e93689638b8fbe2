//! Tests that fail where they would hang.

use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// No future of a test is pending for so long, unless nobody is going to wake it.
const HANG: Duration = Duration::from_secs(300);

/// Waits for a future, whatever it needs: Ringcask's need no runtime. One that nobody wakes is a failure, with a trace of who
/// waits for it, instead of a run that never ends.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Bell {
        thread: Thread,
        has_rung: AtomicBool,
    }
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.has_rung.store(true, Ordering::Release);
            self.thread.unpark();
        }
    }
    let mut future = pin!(future);
    let bell = Bell { thread: std::thread::current(), has_rung: AtomicBool::new(false) };
    let bell = Arc::new(bell);
    let waker = Waker::from(bell.clone());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let polled_at = Instant::now();
        // The flag, because whoever waits inside of the future may take the thread's one token.
        while !bell.has_rung.swap(false, Ordering::Acquire) {
            assert!(polled_at.elapsed() < HANG, "a future hangs");
            std::thread::park_timeout(HANG);
        }
    }
}

/// Calls `f` when it is dropped, also by an assertion that fails: what a test's other threads wait for, so that it
/// fails and does not hang.
pub(crate) fn defer(f: impl FnMut()) -> impl Drop {
    struct Defer<F: FnMut()>(F);
    impl<F: FnMut()> Drop for Defer<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    Defer(f)
}

/// What `look` sees once it is as it should be; what it takes is for upkeep, which takes its time.
///
/// # Panics
/// If that does not come within a minute.
pub(crate) fn until<T: Debug>(what: &str, look: impl Fn() -> T, is_so: impl Fn(&T) -> bool) -> T {
    let began = Instant::now();
    loop {
        let seen = look();
        if is_so(&seen) {
            return seen;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: {seen:#?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
