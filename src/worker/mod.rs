//! One pinned thread, one ring, its partitions.
//!
//! The worker is one hand-written future: a *turn* drains mailboxes, starts what can be started, and
//! acts on what ended. There is no lock, no shared state and no task switch inside a turn.
//!
//! ## Invariants
//! - **WK1** The worker can be woken by callers only while nothing is unsubmitted: tokio-uring submits
//!   when its runtime parks, and a runtime that keeps being woken never parks. A turn that pushed
//!   entries therefore ends in `Disk::poll_flush`, which wakes it when the kernel has them.
//! - **WK2** Before it sleeps the worker looks into its mailboxes once more (M2).

mod pool;
mod ticker;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

pub(crate) use pool::{
    Batches, Loading, Opened, Setup, Signals, WorkerPlan, available_cores, ring_error, spawn,
};
pub(crate) use ticker::Ticker;

use crate::error::Result;
use crate::io::Disk;
use crate::mailbox::{Doorbell, Ticks};
use crate::partition::{Ops, Partition, poll_ops};

struct Worker {
    partitions: Vec<Partition>,
    ops: Ops,
    disk: Disk,
    doorbell: Arc<Doorbell>,
}

impl Worker {
    fn new(mut partitions: Vec<Partition>, disk: Disk, doorbell: Arc<Doorbell>) -> Worker {
        if let [partition] = &mut partitions[..] {
            partition.be_alone();
        }
        Worker { partitions, ops: Ops::new(), disk, doorbell }
    }

    /// Takes requests, starts operations, acts on those that ended; true if anything happened.
    fn turn(&mut self, cx: &mut Context<'_>) -> bool {
        let ticks = self.doorbell.take_ticks();
        if ticks != Ticks::default() {
            self.partitions.iter_mut().for_each(|partition| partition.tick(ticks));
        }
        let mut happened = false;
        for partition in &mut self.partitions {
            happened |= partition.drain(&mut self.ops);
            partition.advance(&mut self.ops);
        }
        while let Some((index, event)) = poll_ops(&mut self.ops, cx) {
            let partition = &mut self.partitions[index];
            partition.on_event(event, &mut self.ops);
            // What came in while the operation ran joins the group that starts now.
            partition.drain(&mut self.ops);
            partition.advance(&mut self.ops);
            happened = true;
        }
        happened
    }

    fn is_finished(&self) -> bool {
        self.ops.is_empty() && self.partitions.iter().all(Partition::is_finished)
    }

    /// The first failure of any partition, for whoever closes the store.
    fn outcome(&self) -> Result<()> {
        self.partitions.iter().find_map(Partition::failure).map_or(Ok(()), Err)
    }
}

impl Future for Worker {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let worker = self.get_mut();
        worker.doorbell.awake();
        let happened = worker.turn(cx);
        if worker.is_finished() {
            return Poll::Ready(worker.outcome());
        }
        if worker.disk.poll_flush(cx).is_pending() {
            return Poll::Pending; // WK1
        }
        worker.doorbell.sleep(cx.waker());
        let has_work = worker.partitions.iter().any(Partition::has_work);
        if happened || has_work || worker.doorbell.has_tick() {
            worker.doorbell.awake();
            cx.waker().wake_by_ref(); // WK2: through the executor, so that completions are reaped too.
        }
        Poll::Pending
    }
}
