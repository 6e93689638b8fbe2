//! Many small pieces of work on all cores.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Calls `work` with every index below `count`, on all cores.
pub(crate) fn on_all_cores(count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let _others = StopOthers { next: &next, count };
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    work(index);
                }
            });
        }
    });
}

/// If this thread panics, the others have nothing left to do.
struct StopOthers<'a> {
    next: &'a AtomicUsize,
    count: usize,
}

impl Drop for StopOthers<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.next.store(self.count, Ordering::Relaxed);
        }
    }
}
