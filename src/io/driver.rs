//! Builds the runtime a worker's thread lives in, and finds out whether a ring is to be had.

#![expect(unsafe_code, reason = "pushing the probe's NOP")]

use std::io;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::rc::Rc;

use futures::FutureExt;
use io_uring::{IoUring, Probe, opcode};
use parking_lot::Mutex;
use rustix::io::Errno;

use super::disk::Disk;
use super::pool::Pool;
use super::ring::Ring;
#[cfg(any(test, feature = "sim"))]
use super::sim::SimDisk;

/// Entries pushed between two submissions; one more makes tokio-uring submit early.
const SUBMISSIONS: u32 = 256;

/// Room for completions. Beyond it the kernel keeps a list, which costs an allocation for each.
const COMPLETIONS: u32 = 1024;

const PROBE_SUBMISSIONS: u32 = 2;

/// How a worker's disk operations are done.
pub(crate) enum Driver {
    /// A ring of `io_uring`.
    Uring,
    /// System calls on helper threads.
    Blocking,
    /// No disk: files are in memory.
    Memory,
    /// The simulated disk: deterministic, on the worker's thread alone.
    #[cfg(any(test, feature = "sim"))]
    Sim(SimDisk),
}

impl Driver {
    /// Builds the runtime on this thread and blocks until the engine's future is done.
    ///
    /// When it returns, whatever was in flight has completed (U3), also if the future panicked.
    /// The output must not hold operations of the disk: with a ring they would be waited for.
    ///
    /// # Errors
    /// What the kernel said when the ring or the helper threads could not be made. `engine` was
    /// not called then.
    pub(crate) fn run<F, Fut>(self, engine: F) -> io::Result<Fut::Output>
    where
        F: FnOnce(Disk) -> Fut,
        Fut: Future,
    {
        match self {
            Driver::Uring => {
                let runtime = runtime()?;
                // The main future, not a spawned task: it is polled first in every turn, and
                // waking it from another thread is one atomic swap and at most one eventfd write.
                let outcome = runtime.block_on(run_drained(engine));
                drop(runtime);
                Ok(outcome.unwrap_or_else(|panic| resume_unwind(panic)))
            }
            Driver::Blocking => {
                let disk = Disk::blocking(Pool::new()?);
                Ok(futures::executor::block_on(engine(disk)))
            }
            Driver::Memory => Ok(futures::executor::block_on(engine(Disk::memory()))),
            #[cfg(any(test, feature = "sim"))]
            Driver::Sim(disk) => Ok(futures::executor::block_on(engine(Disk::sim(disk)))),
        }
    }
}

/// Runs the engine's future, and then the ring until it is empty (U3), also after a panic: an
/// unwinding thread would drop the runtime under operations in flight.
async fn run_drained<F, Fut>(engine: F) -> std::thread::Result<Fut::Output>
where
    F: FnOnce(Disk) -> Fut,
    Fut: Future,
{
    let ring = Rc::new(Ring::new());
    let disk = Disk::uring(Rc::clone(&ring));
    // The future is dropped at the end of this statement, and every operation it holds with it.
    let outcome = AssertUnwindSafe(async move { engine(disk).await }).catch_unwind().await;
    ring.drain().await;
    outcome
}

/// Descriptors that tokio-uring's runtime takes, with some to spare.
const RUNTIME_DESCRIPTORS: usize = 8;

/// Creates the ring of a worker.
///
/// A failing `tokio_uring::Runtime::new` leaks the epoll instance it began with, so flags and
/// limits are tried on a small ring first, and descriptors are seen to be there. One worker at a
/// time: two would take each other's.
fn runtime() -> io::Result<tokio_uring::Runtime> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one_at_a_time = ONE_AT_A_TIME.lock();
    let mut ring = match probe(&ring_flags()) {
        Ok(()) => ring_flags(),
        // Before Linux 6.0 the flags are unknown. They save interrupts, nothing depends on them.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
            probe_uring()?;
            IoUring::builder()
        }
        Err(error) => return Err(error),
    };
    ring.setup_cqsize(COMPLETIONS);
    probe_descriptors()?;
    tokio_uring::Runtime::new(tokio_uring::builder().entries(SUBMISSIONS).uring_builder(&ring))
}

fn probe_descriptors() -> io::Result<()> {
    let (reader, _writer) = io::pipe()?;
    let more: io::Result<Vec<io::PipeReader>> =
        (2..RUNTIME_DESCRIPTORS).map(|_| reader.try_clone()).collect();
    more.map(drop)
}

/// One thread submits, and completions need not interrupt it. Never `defer_taskrun`: this version
/// of io-uring does not ask for events when it submits, so completions would not arrive.
fn ring_flags() -> io_uring::Builder {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_coop_taskrun();
    builder
}

/// Creates a small ring and runs a NOP on it, the only test that sees sandboxes as well as kernels.
///
/// # Errors
/// What the kernel said; [`uring_denied_hint`] says what to do about it.
pub(crate) fn probe_uring() -> Result<(), io::Error> {
    probe(&IoUring::builder())
}

fn probe(builder: &io_uring::Builder) -> io::Result<()> {
    let mut ring = builder.build(PROBE_SUBMISSIONS)?;
    let nop = opcode::Nop::new().build();
    // SAFETY: a NOP has no pointers and no descriptor, so nothing has to outlive the push.
    unsafe { ring.submission().push(&nop) }.map_err(io::Error::other)?;
    ring.submit_and_wait(1)?;
    let completion = ring.completion().next();
    match completion.map(|entry| entry.result()) {
        Some(result) if result >= 0 => probe_opcodes(&ring),
        Some(result) => Err(io::Error::from_raw_os_error(-result)),
        None => Err(Errno::NOSYS.into()),
    }
}

/// Reads and writes without an iovec came with Linux 5.6, later than the ring itself.
fn probe_opcodes(ring: &IoUring) -> io::Result<()> {
    let mut probe = Probe::new();
    // The query came with the same release, so a kernel that refuses it lacks the rest too.
    let known = ring.submitter().register_probe(&mut probe).is_ok();
    let needed = [opcode::Read::CODE, opcode::Write::CODE, opcode::Fsync::CODE];
    if known && needed.iter().all(|&code| probe.is_supported(code)) {
        Ok(())
    } else {
        Err(Errno::NOSYS.into())
    }
}

/// What to change so that `io_uring` works, as one clause.
pub(crate) fn uring_denied_hint(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::PERM | Errno::ACCESS) => {
            "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp \
             profile, and set the sysctl kernel.io_uring_disabled to 0"
        }
        Some(Errno::NOSYS) => {
            "run Linux 5.6 or newer with CONFIG_IO_URING, outside of sandboxes that do not implement it"
        }
        Some(Errno::NOMEM) => "raise the limit of locked memory (ulimit -l, LimitMEMLOCK)",
        Some(Errno::MFILE) => "raise the process's limit of open files (ulimit -n, LimitNOFILE)",
        Some(Errno::NFILE) => "raise the system's limit of open files (sysctl fs.file-max)",
        _ => "look the error up in io_uring_setup(2), or choose the blocking driver",
    }
}
