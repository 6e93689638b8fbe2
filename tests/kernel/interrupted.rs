//! System calls that are interrupted, as by the signals of a profiler or a debugger that attaches.
//!
//! Without this test a store could fail, or hang, once in a month.

use ringcask::Io;

use crate::support::drivers;
use crate::support::strace::said_with;

/// Breaks if entries that the kernel did not take are left lying until something else wakes the worker.
#[test]
fn interrupted_calls_are_made_again() {
    for (io, works, calls) in [
        (Io::Uring, "works with uring", "io_uring_enter"),
        (Io::Blocking, "works with blocking", "preadv2,pwrite64,pwritev2"),
    ] {
        if !drivers().iter().any(|driver| format!("{driver:?}") == format!("{io:?}")) {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let injection = format!("{calls}:error=EINTR:when=2+3");
        let said = said_with(&injection, "first-steps", &dir.path().join("store"), &io);
        let Some(said) = said else { return };
        assert_eq!(said, [works], "{calls}");
    }
}
