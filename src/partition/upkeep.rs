//! What the partition does besides its requests: hints, compaction, and letting go of files.
//!
//! One step at a time, on the worker's upkeep thread; between two steps the partition looks at what
//! there is to do. Hints come first, because a file without one is slow to open and cannot be asked
//! for its keys.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::compaction::{Compactor, Stepped};
use super::listing::ChangeFailure;
use super::{Event, Ops, Partition};
use crate::error::Result;
use crate::io::Fs;
use crate::log::data_file::DataFile;
use crate::types::FileId;
use crate::upkeep::hints::HintJob;

/// How long the upkeep thread waits for readers of a file that is gone, before it looks again later.
const READERS_WAIT: Duration = Duration::from_millis(20);

/// How a step of upkeep ended; `None` if it panicked.
pub(crate) enum UpkeepEvent {
    Hint(Option<(Box<HintJob>, Result<Option<u64>>)>),
    Compaction(Option<Stepped>),
    /// The outputs of a compaction are in `FILES`, and its inputs are not any more.
    Listed(Option<Result<(), ChangeFailure>>),
    /// Files that readers still hold.
    Released(Option<Vec<Arc<DataFile>>>),
}

/// What upkeep is about in one partition.
#[derive(Default)]
pub(super) struct Upkeep {
    /// A step is under way on the upkeep thread.
    is_busy: bool,
    hints_due: VecDeque<FileId>,
    hint: Option<Box<HintJob>>,
    pub(super) compactor: Compactor,
    released: Released,
}

/// Files that no entry points into any more.
#[derive(Default)]
struct Released {
    names: Vec<PathBuf>,
    files: Vec<Arc<DataFile>>,
    /// Nothing changed since readers were last seen to hold all of `files`.
    is_waiting: bool,
}

impl Upkeep {
    pub(super) fn new(hints_due: Vec<FileId>) -> Upkeep {
        Upkeep { hints_due: hints_due.into(), ..Upkeep::default() }
    }

    /// Whether nothing is under way. What readers still hold is theirs to end.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_busy && self.hint.is_none() && self.compactor.is_idle()
    }

    pub(super) fn has_hints_due(&self) -> bool {
        self.hint.is_some() || !self.hints_due.is_empty()
    }

    /// A data file was sealed.
    pub(super) fn file_sealed(&mut self, file: FileId) {
        self.hints_due.push_back(file);
        self.compactor.look();
    }

    /// The file is gone: its names may be removed, and its descriptor closed once nobody reads it (G3).
    pub(super) fn release(
        &mut self,
        data: Arc<DataFile>,
        names: impl IntoIterator<Item = PathBuf>,
    ) {
        self.released.names.extend(names);
        self.released.files.push(data);
        self.released.is_waiting = false;
    }
}

impl Partition {
    /// Starts the next step of upkeep, if one is due.
    pub(super) fn upkeep_advance(&mut self, ops: &mut Ops) {
        if self.upkeep.is_busy {
            return;
        }
        if !self.release_advance(ops) && !self.hint_advance(ops) {
            self.compaction_advance(ops);
        }
    }

    /// A timer says that time has passed.
    pub(super) fn upkeep_tick(&mut self) {
        self.upkeep.released.is_waiting = false;
        self.upkeep.compactor.look();
    }

    /// Whether upkeep could go on without anything else happening first.
    pub(super) fn upkeep_has_work(&self) -> bool {
        self.upkeep.compactor.is_moving()
    }

    pub(super) fn upkeep_done(&mut self, event: UpkeepEvent, ops: &mut Ops) {
        match event {
            UpkeepEvent::Hint(ended) => {
                self.upkeep.is_busy = false;
                self.hint_done(ended);
            }
            UpkeepEvent::Compaction(stepped) => {
                self.upkeep.is_busy = false;
                self.compaction_stepped(stepped, ops);
            }
            UpkeepEvent::Listed(listed) => self.compaction_listed(listed, ops),
            UpkeepEvent::Released(held) => {
                self.upkeep.is_busy = false;
                let released = &mut self.upkeep.released;
                released.is_waiting = released.files.is_empty();
                released.files.extend(held.unwrap_or_default());
            }
        }
    }

    /// Runs `step` on the upkeep thread.
    pub(super) fn upkeep_step<T: Send + 'static>(
        &mut self,
        ops: &mut Ops,
        step: impl FnOnce() -> T + Send + 'static,
        event: impl FnOnce(Option<T>) -> UpkeepEvent + 'static,
    ) {
        self.upkeep.is_busy = true;
        let (disk, index) = (self.disk.clone(), self.index);
        ops.push(Box::pin(async move { (index, Event::Upkept(event(disk.upkeep(step).await))) }));
    }

    fn release_advance(&mut self, ops: &mut Ops) -> bool {
        let released = &mut self.upkeep.released;
        if (released.files.is_empty() && released.names.is_empty()) || released.is_waiting {
            return false;
        }
        let names = std::mem::take(&mut released.names);
        let files = std::mem::take(&mut released.files);
        let fs = self.fs.clone();
        self.upkeep_step(ops, move || release(&fs, &names, files), UpkeepEvent::Released);
        true
    }

    fn hint_advance(&mut self, ops: &mut Ops) -> bool {
        if self.poisoned.is_some() {
            self.upkeep.hints_due.clear();
            self.upkeep.hint = None;
            return false;
        }
        let job = self.upkeep.hint.take().or_else(|| self.next_hint());
        let Some(mut job) = job else { return false };
        let step = move || {
            let stepped = job.step();
            (job, stepped)
        };
        self.upkeep_step(ops, step, UpkeepEvent::Hint);
        true
    }

    fn next_hint(&mut self) -> Option<Box<HintJob>> {
        loop {
            let id = self.upkeep.hints_due.pop_front()?;
            let sealed = self.listed.sealed.iter().find(|sealed| sealed.id == id);
            let data = self.files.iter().find(|(_, data)| data.id == id);
            if let (Some(sealed), Some((_, data))) = (sealed, data) {
                return Some(Box::new(HintJob::new(
                    self.fs.clone(),
                    self.dir.clone(),
                    self.owner.clone(),
                    self.hasher.clone(),
                    data.clone(),
                    *sealed,
                )));
            }
        }
    }

    fn hint_done(&mut self, ended: Option<(Box<HintJob>, Result<Option<u64>>)>) {
        let Some((job, stepped)) = ended else { return };
        match stepped {
            Ok(None) => self.upkeep.hint = Some(job),
            Ok(Some(len)) => {
                self.view.counters.hints.add(1);
                self.view.counters.hint_bytes.add(len);
                self.upkeep.compactor.look();
            }
            Err(error) => {
                tracing::warn!(partition = self.id.0, %error, "no hint file was written");
                if error.is_corrupt() {
                    self.upkeep.compactor.note_damaged(job.file().id);
                }
            }
        }
    }
}

/// Removes names, and closes the files that nobody reads; returns the others.
fn release(fs: &Fs, names: &[PathBuf], mut files: Vec<Arc<DataFile>>) -> Vec<Arc<DataFile>> {
    for name in names {
        match fs.remove_file(name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %name.display(), %error, "cannot remove a compacted file");
            }
            _ => {}
        }
    }
    let is_held = |data: &Arc<DataFile>| Arc::strong_count(data) > 1;
    files.retain(is_held);
    if !files.is_empty() {
        std::thread::sleep(READERS_WAIT);
        files.retain(is_held);
    }
    files
}
