//! Asynchronous operations of a simulated disk: queued per file, done a few polls later (Q6).
//!
//! The queue owns an operation from its submission, as a kernel does. Any poll of any operation on
//! a file moves the head of that file's queue, so a future that its owner holds without polling
//! cannot stop the others. An operation whose future was dropped is done as soon as it is the head.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::io::Errno;

use super::SimDisk;
use super::contents::ChangeId;
use super::file::SimFile;
use super::names::InodeId;
use super::state::{Handle, Inode, State};
use crate::io::disk::WriteMode;
use crate::io::file::{File, position_after};

/// Names one submitted operation.
pub(super) type Ticket = u64;

/// How an operation ended; the buffer is empty for a sync.
pub(super) type Outcome = (io::Result<()>, Vec<u8>);

/// Most polls of a file's operations between the head becoming the head and its effect.
const DELAY_POLLS_MAX: usize = 2;

/// One submitted operation.
pub(super) struct Entry {
    ticket: Ticket,
    delay_polls: usize,
    abandoned: bool,
    work: Work,
    buf: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Work {
    Write { offset: u64, done: usize, dsync: bool },
    Sync { handle: Handle, mark: ChangeId },
    Read { offset: u64, done: usize },
}

impl Work {
    fn syncs(self) -> bool {
        matches!(self, Work::Sync { .. } | Work::Write { dsync: true, .. })
    }
}

pub(in crate::io) async fn write(
    disk: SimDisk,
    file: Arc<File>,
    buf: Vec<u8>,
    offset: u64,
    mode: WriteMode,
) -> Outcome {
    let checked = file.simulated().and_then(SimFile::check_writable);
    if let Err(error) = checked.and_then(|()| position_after(offset, buf.len())) {
        return (Err(error), buf);
    }
    let work = Work::Write { offset, done: 0, dsync: mode == WriteMode::Dsync };
    run(&disk, &file, work, buf).await
}

pub(in crate::io) async fn sync(disk: SimDisk, file: Arc<File>) -> io::Result<()> {
    let handle = file.simulated()?.handle;
    run(&disk, &file, Work::Sync { handle, mark: 0 }, Vec::new()).await.0
}

pub(in crate::io) async fn read(
    disk: SimDisk,
    file: Arc<File>,
    len: usize,
    offset: u64,
) -> io::Result<Vec<u8>> {
    let (result, buf) = run(&disk, &file, Work::Read { offset, done: 0 }, vec![0; len]).await;
    result.map(|()| buf)
}

/// Ready at its second poll.
pub(in crate::io) async fn take_a_turn() {
    let mut polled = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn run(disk: &SimDisk, file: &File, work: Work, buf: Vec<u8>) -> Outcome {
    let file = match file.simulated().and_then(|file| file.check_on(disk)) {
        Ok(file) => file,
        Err(error) => return (Err(error), buf),
    };
    let ticket = disk.state().submit(file.handle.inode, work, buf);
    Submitted { disk, inode: file.handle.inode, ticket }.await
}

/// Waits for one operation. Dropping it leaves the operation in the queue (U1).
struct Submitted<'a> {
    disk: &'a SimDisk,
    inode: InodeId,
    ticket: Ticket,
}

impl Future for Submitted<'_> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let mut state = self.disk.state();
        state.step(self.inode);
        if let Some(outcome) = state.outcomes.remove(&self.ticket) {
            return Poll::Ready(outcome);
        }
        drop(state);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Submitted<'_> {
    fn drop(&mut self) {
        self.disk.state().abandon(self.inode, self.ticket);
    }
}

impl State {
    fn submit(&mut self, inode: InodeId, work: Work, buf: Vec<u8>) -> Ticket {
        self.ticket_last += 1;
        let ticket = self.ticket_last;
        let delay_polls = self.random.below(DELAY_POLLS_MAX + 1);
        let work = match work {
            Work::Sync { handle, .. } => Work::Sync { handle, mark: self.change_last() },
            other => other,
        };
        if let Some(queue) = self.queue(inode) {
            queue.push_back(Entry { ticket, delay_polls, abandoned: false, work, buf });
        } else {
            self.outcomes.insert(ticket, (Err(Errno::NOENT.into()), buf));
        }
        ticket
    }

    /// Files whose next operation is a sync that is not to end.
    pub(super) fn stalled(&self) -> usize {
        let is_stalled = |inode: &&Inode| inode.queue.front().is_some_and(|head| head.work.syncs());
        if self.faults.syncs_stalled { self.inodes.values().filter(is_stalled).count() } else { 0 }
    }

    /// Moves the head of the queue by one poll.
    fn step(&mut self, inode: InodeId) {
        let is_stalled = self.faults.syncs_stalled;
        let Some(queue) = self.queue(inode) else { return };
        match queue.front_mut() {
            Some(head) if is_stalled && head.work.syncs() => {}
            Some(head) if head.delay_polls > 0 => head.delay_polls -= 1,
            Some(_) => {
                self.transfer_head(inode);
                self.settle(inode);
            }
            None => {}
        }
    }

    fn abandon(&mut self, inode: InodeId, ticket: Ticket) {
        if self.outcomes.remove(&ticket).is_some() {
            return;
        }
        let Some(queue) = self.queue(inode) else { return };
        for entry in queue.iter_mut().filter(|entry| entry.ticket == ticket) {
            entry.abandoned = true;
        }
        self.settle(inode);
    }

    /// Does what nobody polls any more, as far as it is at the head.
    fn settle(&mut self, inode: InodeId) {
        while self.queue(inode).and_then(|queue| queue.front()).is_some_and(|head| head.abandoned) {
            self.transfer_head(inode);
        }
    }

    /// Does one transfer of the head, and takes it off the queue if that was the last.
    fn transfer_head(&mut self, inode: InodeId) {
        let Some(mut head) = self.queue(inode).and_then(std::collections::VecDeque::pop_front)
        else {
            return;
        };
        match self.transfer(inode, &mut head) {
            None => {
                if let Some(queue) = self.queue(inode) {
                    queue.push_front(head);
                }
            }
            Some(result) if !head.abandoned => {
                self.outcomes.insert(head.ticket, (result, head.buf));
            }
            Some(_) => {}
        }
    }

    /// One transfer; its result once there is nothing left to do.
    fn transfer(&mut self, inode: InodeId, entry: &mut Entry) -> Option<io::Result<()>> {
        match &mut entry.work {
            Work::Sync { handle, mark } => Some(self.sync(*handle, *mark)),
            Work::Write { done, .. } if *done == entry.buf.len() => Some(Ok(())),
            Work::Write { offset, done, dsync } => {
                let position = *offset + *done as u64;
                match self.write(inode, &entry.buf[*done..], position, *dsync) {
                    Ok(count) => *done += count,
                    Err(error) => return Some(Err(error)),
                }
                (*done == entry.buf.len()).then_some(Ok(()))
            }
            Work::Read { offset, done } => {
                let position = offset.saturating_add(*done as u64);
                let count = match self.read(inode, &mut entry.buf[*done..], position) {
                    Ok(count) => count,
                    Err(error) => return Some(Err(error)),
                };
                *done += count;
                if count == 0 {
                    entry.buf.truncate(*done);
                }
                (count == 0 || *done == entry.buf.len()).then_some(Ok(()))
            }
        }
    }
}
