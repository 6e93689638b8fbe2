//! Starting workers: which core, which partitions, and what happens when one cannot start or ends.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use core_affinity::CoreId;
use crossbeam_channel::{Receiver, Sender};

use super::Worker;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{Disk, Driver, Fs, uring_denied_hint};
use crate::mailbox::{Doorbell, Inbox};
use crate::partition::recovery::{self, LoadProgress, Loaded, Recovered, Report};
use crate::partition::{Partition, PartitionConfig, PartitionView};
use crate::types::PartitionId;

/// What one worker gets.
pub(crate) struct WorkerPlan {
    pub(crate) index: usize,
    pub(crate) core: Option<CoreId>,
    pub(crate) driver: Driver,
    pub(crate) doorbell: Arc<Doorbell>,
    pub(crate) partitions: Vec<(PartitionId, Inbox)>,
}

/// What all workers of a store get.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) fs: Fs,
    pub(crate) root: PathBuf,
    pub(crate) config: PartitionConfig,
}

/// What a worker tells while it opens its partitions.
pub(crate) enum Loading {
    /// One more file is loaded of partition `id`, or none yet.
    Progress { id: PartitionId, progress: LoadProgress },
    /// All of the worker's partitions are read.
    Read(Batches),
    /// All of them are loaded.
    Done(Vec<Opened>),
}

/// What the logs of one worker's partitions say of batches that are not settled.
#[derive(Default)]
pub(crate) struct Batches {
    /// With intents that nothing resolves.
    pub(crate) unsettled: Vec<u64>,
    pub(crate) decided: Vec<u64>,
}

/// A partition while its worker opens it.
enum Opening<'a> {
    /// What other partitions know decides what counts in it.
    Waiting(Box<Loaded<'a>>),
    Recovered(Box<Recovered>),
}

/// A partition that one worker has loaded.
pub(crate) struct Opened {
    pub(crate) id: PartitionId,
    pub(crate) view: Arc<PartitionView>,
    /// What is to be removed once all partitions are loaded.
    pub(crate) strays: Vec<PathBuf>,
    pub(crate) report: Report,
}

/// The cores this process may use, by its cpuset; empty if that cannot be told.
pub(crate) fn available_cores() -> Vec<CoreId> {
    core_affinity::get_core_ids().unwrap_or_default()
}

/// What a worker waits for while it opens its partitions; if they are dropped it leaves at once.
#[derive(Clone)]
pub(crate) struct Signals {
    /// Every partition is read: the batches that happened, of those that any has unsettled.
    pub(crate) committed: Receiver<Arc<HashSet<u64>>>,
    /// Every partition is loaded.
    pub(crate) go: Receiver<()>,
}

/// Starts a worker. It reports what it loaded to `loaded`, waits for its signals, serves until its mailboxes
/// are closed, and then calls `ended`.
pub(crate) fn spawn(
    plan: WorkerPlan,
    setup: Setup,
    loaded: Sender<Result<Loading>>,
    signals: Signals,
    ended: impl FnOnce(Result<()>) + Send + 'static,
) -> std::io::Result<()> {
    std::thread::Builder::new().name(format!("ringcask-{}", plan.index)).spawn(move || {
        let failed = loaded.clone();
        let run = AssertUnwindSafe(|| run(plan, &setup, &loaded, &signals));
        let outcome = catch_unwind(run).unwrap_or_else(|_panic| {
            Err(Error::new(
                ErrorKind::Poisoned,
                "a worker panicked, which is a bug in ringcask; open the store again to go on",
            ))
        });
        if let Err(error) = &outcome {
            // Nobody listens once the store is open.
            let _opener_is_gone = failed.try_send(Err(error.clone()));
        }
        ended(outcome);
    })?;
    Ok(())
}

fn run(
    plan: WorkerPlan,
    setup: &Setup,
    loaded: &Sender<Result<Loading>>,
    signals: &Signals,
) -> Result<()> {
    let WorkerPlan { index, core, driver, doorbell, partitions } = plan;
    let uring = matches!(driver, Driver::Uring);
    let engine = |disk: Disk| async move {
        disk.start_helpers();
        if let Some(core) = core {
            // A cpuset may have changed since it was read; an unpinned worker is slower, not wrong.
            if !core_affinity::set_for_current(core) {
                tracing::debug!(worker = index, core = core.id, "could not pin a worker");
            }
        }
        let mut opening = Vec::new();
        let mut batches = Batches::default();
        for (id, inbox) in partitions {
            let mut tell = |progress| {
                // The opener has left if another worker failed.
                let _opener_left = loaded.send(Ok(Loading::Progress { id, progress }));
            };
            let read = recovery::load(&setup.fs, &setup.root, id, &setup.config, &mut tell)?;
            let unsettled = read.unsettled();
            batches.decided.extend_from_slice(read.decisions());
            // What takes most memory while it waits is rarely what has to wait.
            let state = if unsettled.is_empty() {
                Opening::Recovered(Box::new(read.settle(&HashSet::new())?))
            } else {
                Opening::Waiting(Box::new(read))
            };
            batches.unsettled.extend(unsettled);
            opening.push((id, inbox, state));
        }
        let told = loaded.send(Ok(Loading::Read(batches))).is_ok();
        let Some(committed) = signals.committed.recv().ok().filter(|_| told) else {
            return Ok(()); // Another worker could not start.
        };
        let mut ready = Vec::new();
        let mut opened = Vec::new();
        for (partition_index, (id, inbox, state)) in opening.into_iter().enumerate() {
            let mut recovered = match state {
                Opening::Waiting(read) => read.settle(&committed)?,
                Opening::Recovered(recovered) => *recovered,
            };
            let (view, strays) = (recovered.view().clone(), recovered.take_strays());
            opened.push(Opened { id, view, strays, report: recovered.report });
            let config = setup.config.clone();
            ready.push(Partition::new(recovered, config, partition_index, disk.clone(), inbox));
        }
        let told = loaded.send(Ok(Loading::Done(opened))).is_ok();
        if !told || signals.go.recv().is_err() {
            return Ok(());
        }
        Worker::new(ready, disk, doorbell).await
    };
    driver.run(engine).map_err(|error| {
        if uring {
            ring_error(&error)
        } else {
            Error::new(ErrorKind::Io, format!("cannot start a worker: {error}"))
        }
    })?
}

/// The sentence for a ring that could not be created.
pub(crate) fn ring_error(error: &std::io::Error) -> Error {
    Error::new(
        ErrorKind::IoUringUnavailable,
        format!(
            "cannot create an io_uring: {error}; {}, or open the store with Io::Blocking",
            uring_denied_hint(error)
        ),
    )
}
