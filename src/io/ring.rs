//! The operations of a worker's ring: what each keeps alive, how its entry is filled, how its
//! completion is read.
//!
//! tokio-uring owns the ring and its loop. Its own file type closes the descriptor with its owner
//! and has no per-write flags, so entries are filled here and handed over with the data they need.
//!
//! ## Invariants
//! - **U1** An entry holds raw pointers that the type system does not see (tokio-uring's `submit`
//!   is a safe function). They are valid until the completion because everything they point at is
//!   in [`Held`], which the operation owns: while its future is polled, in the future; once the
//!   future is dropped, in tokio-uring's driver, until the kernel's completion arrives. The
//!   `Vec`'s bytes and the `Arc`'s descriptor do not move when their owner does. Nothing reads or
//!   writes the `Vec` before the completion hands it back.
//! - **U3** The runtime is dropped only after [`Ring::drain`]: tokio-uring 0.5 frees the data of
//!   dropped operations when its driver is dropped, *before* it waits for their completions, and
//!   the kernel would go on reading from and writing to freed memory.
//! - **U6** `pushed` counts every entry pushed, and only NOPs of [`Ring::poll_flush`] are not
//!   counted; `flushed` is a count that the kernel has certainly seen.
//! - **U7** A submission that fails is made again: tokio-uring drops the error (`EAGAIN` where the kernel
//!   has no memory for a moment, `EINTR`) and sleeps, and nothing that is in the queue could wake it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::FutureExt;
use io_uring::types::{Fd, FsyncFlags};
use io_uring::{cqueue, opcode, squeue};
use rustix::io::{Errno, ReadWriteFlags};
use tokio::time::Sleep;
use tokio_uring::{InFlightOneshot, OneshotOutputTransform, UnsubmittedOneshot};

use super::disk::WriteMode;
use super::file::{File, position_after};
use crate::planted::{Bug, is_planted};

/// Longest transfer of one entry in bytes. The kernel's limit is 2 GiB less a page, silently.
const TRANSFER_LEN_MAX: usize = 1 << 30;

/// How often in a row an entry is pushed again after `EINTR` or `EAGAIN`. Older kernels return
/// `EAGAIN` where they should have waited; an endless row of them is an error to report.
const RETRIES_MAX: u32 = 128;

/// How long entries lie before the runtime is made to submit them again (U7).
const SUBMIT_AGAIN: Duration = Duration::from_millis(50);

/// One worker's use of its ring.
pub(super) struct Ring {
    pushed: Cell<u64>,
    flushed: Cell<u64>,
    /// The NOP under way, with the value of `pushed` it vouches for.
    flush: RefCell<Option<(u64, InFlight<()>)>>,
    /// Wakes the worker while the NOP is under way. It is left running when the NOP completes, so that a
    /// flush costs no timer of its own.
    submit_again: RefCell<Option<Pin<Box<Sleep>>>>,
    /// How many [`Held`] are alive, wherever they are.
    held_count: Cell<usize>,
    /// Woken when `held_count` reaches zero.
    drained: Cell<Option<Waker>>,
}

/// What an operation keeps alive until its completion.
struct Held {
    file: Arc<File>,
    buf: Vec<u8>,
    _count: HeldCount,
}

impl Held {
    fn new(ring: &Rc<Ring>, file: Arc<File>, buf: Vec<u8>) -> Held {
        ring.held_count.set(ring.held_count.get() + 1);
        Held { file, buf, _count: HeldCount(Rc::clone(ring)) }
    }
}

/// Part of every [`Held`], and so dropped by whoever ends up with it: the operation, or
/// tokio-uring's driver when the completion of a dropped operation arrives.
struct HeldCount(Rc<Ring>);

impl Drop for HeldCount {
    fn drop(&mut self) {
        let left = self.0.held_count.get() - 1;
        self.0.held_count.set(left);
        if left == 0
            && let Some(waker) = self.0.drained.take()
        {
            waker.wake();
        }
    }
}

type InFlight<D> = InFlightOneshot<D, Completion<D>>;

/// Turns a completion into its result and the data that was held for it.
struct Completion<D>(PhantomData<D>);

impl<D> OneshotOutputTransform for Completion<D> {
    type Output = (io::Result<usize>, D);
    type StoredData = D;

    fn transform_oneshot_output(self, data: D, entry: cqueue::Entry) -> Self::Output {
        let result = usize::try_from(entry.result())
            .map_err(|_| io::Error::from_raw_os_error(-entry.result()));
        (result, data)
    }
}

impl Ring {
    /// To be used only inside the runtime of this thread's worker.
    pub(super) fn new() -> Ring {
        Ring {
            pushed: Cell::new(0),
            flushed: Cell::new(0),
            flush: RefCell::new(None),
            submit_again: RefCell::new(None),
            held_count: Cell::new(0),
            drained: Cell::new(None),
        }
    }

    /// Ready once every entry pushed so far was handed to the kernel.
    ///
    /// A NOP completes only after the submission that carried it, and a submission carries
    /// everything pushed before it. Entries pushed behind the NOP may have missed that submission,
    /// so they take another round.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut flush = self.flush.borrow_mut();
        loop {
            if let Some((mark, nop)) = flush.as_mut() {
                // Its result does not matter: a completion proves the submission.
                if nop.poll_unpin(cx).is_pending() {
                    self.wake_to_submit_again(cx);
                    return Poll::Pending;
                }
                self.flushed.set(*mark);
                *flush = None;
            }
            if self.flushed.get() == self.pushed.get() {
                return Poll::Ready(());
            }
            *flush = Some((self.pushed.get(), submit((), opcode::Nop::new().build())));
        }
    }

    /// Whenever the worker is polled and returns, the runtime parks, which submits.
    fn wake_to_submit_again(&self, cx: &mut Context<'_>) {
        let mut timer = self.submit_again.borrow_mut();
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(SUBMIT_AGAIN)));
        while timer.as_mut().poll(cx).is_ready() {
            timer.as_mut().reset(tokio::time::Instant::now() + SUBMIT_AGAIN);
        }
    }

    /// Waits until no operation is in flight; to be called when no [`Op`](super::Op) is left that
    /// somebody would have to poll.
    pub(super) async fn drain(&self) {
        poll_fn(|cx| {
            if self.held_count.get() == 0 {
                return Poll::Ready(());
            }
            self.drained.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Pushes one entry and waits for its completion.
    async fn transfer(&self, held: Held, entry: squeue::Entry) -> (io::Result<usize>, Held) {
        self.pushed.set(self.pushed.get() + 1);
        submit(held, entry).await
    }
}

fn submit<D: 'static>(data: D, entry: squeue::Entry) -> InFlight<D> {
    UnsubmittedOneshot::new(data, Completion(PhantomData), entry).submit()
}

/// Writes all of `buf`.
pub(super) async fn write(
    ring: Rc<Ring>,
    file: Arc<File>,
    buf: Vec<u8>,
    offset: u64,
    mode: WriteMode,
) -> (io::Result<()>, Vec<u8>) {
    let mut held = Held::new(&ring, file, buf);
    let mut progress = Progress::default();
    while progress.done < held.buf.len() {
        let entry = match write_entry(&held, progress.done, offset, mode) {
            Ok(entry) => entry,
            Err(error) => return (Err(error), held.buf),
        };
        let (result, back) = ring.transfer(held, entry).await;
        held = back;
        match progress.advance(result) {
            Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), held.buf),
            Ok(_) if is_planted(Bug::ShortWriteIgnored) => break,
            Ok(_) | Err(Step::Retry) => {}
            Err(Step::Fail(error)) => return (Err(error), held.buf),
        }
    }
    (Ok(()), held.buf)
}

fn write_entry(
    held: &Held,
    done: usize,
    offset: u64,
    mode: WriteMode,
) -> io::Result<squeue::Entry> {
    let rest = &held.buf[done..];
    let flags = match mode {
        WriteMode::Plain => ReadWriteFlags::empty(),
        WriteMode::Dsync => ReadWriteFlags::DSYNC,
    };
    Ok(opcode::Write::new(fd(&held.file)?, rest.as_ptr(), transfer_len(rest.len()))
        .offset(position_after(offset, done)?)
        .rw_flags(flags.bits().cast_signed())
        .build())
}

/// Reads until `len` bytes are there or the file ends.
pub(super) async fn read(
    ring: Rc<Ring>,
    file: Arc<File>,
    len: usize,
    offset: u64,
) -> io::Result<Vec<u8>> {
    // Zeroed, although the kernel overwrites it: large blocks come zeroed from the allocator for
    // free, small ones cost nanoseconds beside a read, and no byte is ever uninitialised.
    let mut held = Held::new(&ring, file, vec![0; len]);
    let mut progress = Progress::default();
    while progress.done < len {
        let entry = read_entry(&mut held, progress.done, offset)?;
        let (result, back) = ring.transfer(held, entry).await;
        held = back;
        match progress.advance(result) {
            Ok(0) => break,
            Ok(_) | Err(Step::Retry) => {}
            Err(Step::Fail(error)) => return Err(error),
        }
    }
    held.buf.truncate(progress.done);
    Ok(held.buf)
}

fn read_entry(held: &mut Held, done: usize, offset: u64) -> io::Result<squeue::Entry> {
    let fd = fd(&held.file)?;
    let rest = &mut held.buf[done..];
    Ok(opcode::Read::new(fd, rest.as_mut_ptr(), transfer_len(rest.len()))
        .offset(position_after(offset, done)?)
        .build())
}

/// Makes the file's data and length durable.
pub(super) async fn sync(ring: Rc<Ring>, file: Arc<File>) -> io::Result<()> {
    let held = Held::new(&ring, file, Vec::new());
    let entry = opcode::Fsync::new(fd(&held.file)?).flags(FsyncFlags::DATASYNC).build();
    let (result, _held) = ring.transfer(held, entry).await;
    result.map(drop)
}

fn fd(file: &File) -> io::Result<Fd> {
    let raw: RawFd = file.descriptor()?.as_raw_fd();
    Ok(Fd(raw))
}

fn transfer_len(len: usize) -> u32 {
    const _: () = assert!(TRANSFER_LEN_MAX <= i32::MAX as usize);
    len.min(TRANSFER_LEN_MAX) as u32
}

/// How far a transfer of several entries got.
#[derive(Default)]
struct Progress {
    done: usize,
    retries: u32,
}

enum Step {
    Retry,
    Fail(io::Error),
}

impl Progress {
    /// Takes in one completion: the count of bytes moved, or what to do about the error.
    fn advance(&mut self, result: io::Result<usize>) -> Result<usize, Step> {
        match result {
            Ok(count) => {
                self.done += count;
                self.retries = 0;
                Ok(count)
            }
            Err(error) if self.retries < RETRIES_MAX && is_transient(&error) => {
                self.retries += 1;
                Err(Step::Retry)
            }
            Err(error) => Err(Step::Fail(error)),
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INTR | Errno::AGAIN))
}
