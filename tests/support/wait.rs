//! Tests that fail where they would hang.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// No future of a test is pending for so long, unless nobody is going to wake it.
const HANG: Duration = Duration::from_secs(300);

/// Waits for a future, whatever it needs: Ringcask's need no runtime. One that nobody wakes is a failure, with a trace of who
/// waits for it, instead of a run that never ends.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let polled_at = Instant::now();
        std::thread::park_timeout(HANG);
        assert!(polled_at.elapsed() < HANG, "a future hangs");
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
