//! What the partition does besides its requests: hints, compaction, scrubbing, and letting go of files.
//!
//! One step at a time, on the worker's upkeep thread; between two steps the partition looks at what
//! there is to do. Hints come first, because a file without one is slow to open and cannot be asked
//! for its keys; compaction takes turns with key runs and locking; scrubbing comes last, because nothing waits for it.

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::compaction::{Compactor, Stepped};
use super::key_runs::{KeyRuns, Stepped as KeyRunStepped};
use super::listing::ChangeFailure;
use super::locking::{LockStepped, Locker};
use super::scrub::{Scrubbed, Scrubber};
use super::{Event, Ops, Partition, ScrubRate};
use crate::error::Result;
use crate::io::{File, Fs};
use crate::log::data_file::DataFile;
use crate::log::key_run::KeyRun;
use crate::moment::Moment;
use crate::types::FileId;
use crate::upkeep::hints::HintJob;
use crate::upkeep::range_del::{RangeJob, Step as RangeStep};
use crate::upkeep::scrub::Allowance;

/// How long the upkeep thread waits for readers of a file that is gone, before it looks again later.
const READERS_WAIT: Duration = Duration::from_millis(20);

/// How a step of upkeep ended; `None` if it panicked.
pub(crate) enum UpkeepEvent {
    Hint(Option<(Box<HintJob>, Result<Option<u64>>)>),
    Compaction(Option<Stepped>),
    KeyRun(Option<KeyRunStepped>),
    Locked(Option<LockStepped>),
    Rested,
    /// The outputs of a compaction are in `FILES`, and its inputs are not any more.
    Listed(Option<Result<(), ChangeFailure>>),
    /// Whether the reserve could be made.
    Reserved(bool),
    /// What readers still hold.
    Released(Option<Released>),
    Scrub(Option<Scrubbed>),
    /// Records that ranges hide were looked for.
    Ranges(Option<(Box<RangeJob>, Result<RangeStep>)>),
}

/// What upkeep is about in one partition.
#[derive(Default)]
pub(super) struct Upkeep {
    /// A step is under way on the upkeep thread.
    is_busy: bool,
    hints_due: VecDeque<FileId>,
    hint: Option<Box<HintJob>>,
    /// Tried again when time has passed.
    hints_failed: Vec<FileId>,
    /// Wait for batches to be settled (BA3).
    hints_held: Vec<FileId>,
    pub(super) compactor: Compactor,
    pub(super) key_runs: KeyRuns,
    pub(super) scrubber: Scrubber,
    pub(super) locker: Locker,
    released: Released,
    /// Backups that need the names of files.
    pins: usize,
    /// Names that may go when they are done.
    pinned: Vec<PathBuf>,
}

/// Files that no entry points into any more, and descriptors that were given up.
#[derive(Default)]
pub(crate) struct Released {
    names: Vec<PathBuf>,
    files: Vec<Arc<DataFile>>,
    runs: Vec<Arc<KeyRun>>,
    handles: Vec<Arc<File>>,
    /// Of snapshots that have ended.
    moments: Vec<Arc<Moment>>,
    /// Nothing changed since readers were last seen to hold all of `files`.
    is_waiting: bool,
}

impl Upkeep {
    pub(super) fn new(hints_due: Vec<FileId>, scrub: Option<ScrubRate>) -> Upkeep {
        let allowance = scrub.map(|rate| Allowance::new(rate.bytes_per_sec, Instant::now()));
        Upkeep {
            hints_due: hints_due.into(),
            scrubber: Scrubber::new(allowance),
            locker: Locker::new(),
            ..Upkeep::default()
        }
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
        self.locker.look();
    }

    /// These files are to get hints, if they are still there by then.
    pub(super) fn hints_wanted(&mut self, files: Vec<FileId>) {
        self.hints_due.extend(files);
    }

    /// Nothing holds these files any more.
    pub(super) fn files_settled(&mut self, files: &[FileId]) {
        let due = self.hints_held.extract_if(.., |file| files.contains(file));
        self.hints_due.extend(due);
        self.compactor.look();
    }

    /// The file is gone: its names may be removed, and its descriptor closed once nobody reads it (G3).
    pub(super) fn release(
        &mut self,
        data: Arc<DataFile>,
        names: impl IntoIterator<Item = PathBuf>,
    ) {
        let held = if self.pins > 0 { &mut self.pinned } else { &mut self.released.names };
        held.extend(names);
        self.released.files.push(data);
        self.released.is_waiting = false;
    }

    /// These names may be removed.
    pub(super) fn release_names(&mut self, names: impl IntoIterator<Item = PathBuf>) {
        self.released.names.extend(names);
        self.released.is_waiting = false;
    }

    /// Scans have other runs now.
    pub(super) fn release_runs(&mut self, runs: Vec<Arc<KeyRun>>) {
        self.release_names(runs.iter().map(|run| run.stored.path.clone()).collect::<Vec<_>>());
        self.released.runs.extend(runs);
    }

    /// Files keep their names until [`unpin`](Self::unpin) is called as often.
    pub(super) fn pin(&mut self) {
        self.pins += 1;
    }

    pub(super) fn unpin(&mut self) {
        self.pins -= 1;
        if self.pins == 0 {
            self.released.names.append(&mut self.pinned);
            self.released.is_waiting = false;
        }
    }

    /// Descriptors that are closed once nobody reads through them (G3).
    pub(super) fn release_handles(&mut self, handles: Vec<Arc<File>>) {
        self.released.handles.extend(handles);
        self.released.is_waiting = false;
    }

    /// Memory and files that are let go of.
    pub(super) fn release_moments(&mut self, moments: Vec<Arc<Moment>>) {
        self.released.moments.extend(moments);
        self.released.is_waiting = false;
    }
}

impl Partition {
    /// Starts the next step of upkeep, if one is due.
    pub(super) fn upkeep_advance(&mut self, ops: &mut Ops) {
        self.expiry_advance(ops);
        self.range_remove();
        if self.upkeep.is_busy {
            return;
        }
        self.scrub_forget();
        let is_busy = self.release_advance(ops)
            || self.reserve_advance(ops)
            || self.hint_advance(ops)
            || self.range_advance(ops);
        if !is_busy {
            if self.upkeep.key_runs.take_turn()
                && (self.key_runs_advance(ops) || self.lock_advance(ops))
            {
                return;
            }
            self.compaction_advance(ops);
            if self.upkeep.is_busy || self.key_runs_advance(ops) || self.lock_advance(ops) {
                return;
            }
            if self.upkeep.compactor.is_idle() {
                self.scrub_advance(ops);
            }
        }
    }

    /// A timer says that time has passed.
    pub(super) fn upkeep_tick(&mut self) {
        self.upkeep.released.is_waiting = false;
        self.snapshots_grow_old();
        let failed = std::mem::take(&mut self.upkeep.hints_failed);
        self.upkeep.hints_wanted(failed);
        self.upkeep.compactor.look();
        self.upkeep.locker.look();
        self.batch_request_sync();
        self.reserve_look();
        self.evict_tick();
        self.upkeep.scrubber.tick();
        self.range_work.tick();
    }

    /// Whether upkeep could go on without anything else happening first.
    pub(super) fn upkeep_has_work(&self) -> bool {
        self.upkeep.compactor.is_moving() || self.expiry_has_work() || self.range_has_work()
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
            UpkeepEvent::KeyRun(stepped) => {
                self.upkeep.is_busy = false;
                self.key_run_stepped(stepped);
            }
            UpkeepEvent::Locked(stepped) => {
                self.upkeep.is_busy = false;
                self.lock_stepped(stepped);
            }
            UpkeepEvent::Ranges(ended) => {
                self.upkeep.is_busy = false;
                self.range_stepped(ended);
            }
            UpkeepEvent::Rested => self.upkeep.is_busy = false,
            UpkeepEvent::Scrub(scrubbed) => {
                self.upkeep.is_busy = false;
                self.scrub_done(scrubbed);
            }
            UpkeepEvent::Listed(listed) => self.compaction_listed(listed, ops),
            UpkeepEvent::Reserved(is_made) => {
                self.upkeep.is_busy = false;
                self.reserve_made(is_made);
            }
            UpkeepEvent::Released(held) => {
                self.upkeep.is_busy = false;
                let Released { names, files, runs, handles, .. } = held.unwrap_or_default();
                let released = &mut self.upkeep.released;
                released.is_waiting = released.is_empty();
                released.names.extend(names);
                released.files.extend(files);
                released.runs.extend(runs);
                released.handles.extend(handles);
                self.upkeep.locker.look();
                self.reserve_look();
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
        if released.is_empty() || released.is_waiting {
            return false;
        }
        let (fs, released) = (self.fs.clone(), std::mem::take(released));
        let open_max = self.config.open_files_max;
        self.upkeep_step(ops, move || released.step(&fs, open_max), UpkeepEvent::Released);
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
            if self.batches.holds(id) {
                self.upkeep.hints_held.push(id);
                self.batch_request_sync();
                continue;
            }
            let sealed = self.listed.find_sealed(id);
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
                job.show(len);
                self.view.counters.hints.add(1);
                self.view.counters.hint_bytes.add(len);
                self.upkeep.compactor.look();
                self.upkeep.locker.look();
                self.range_work.look();
            }
            Err(error) => {
                tracing::warn!(partition = self.id.0, %error, "no hint file was written");
                let file = job.file().id;
                if error.is_corrupt() {
                    self.note_damaged(file, error);
                } else {
                    self.upkeep.hints_failed.push(file);
                }
            }
        }
    }
}

impl Released {
    fn is_empty(&self) -> bool {
        self.names.is_empty()
            && self.files.is_empty()
            && self.runs.is_empty()
            && self.handles.is_empty()
            && self.moments.is_empty()
    }

    /// Removes names, and closes what nobody reads; returns the rest. A file that is read without a name stays open; where
    /// that would be too many, they keep their names instead, and are opened when they are read.
    fn step(mut self, fs: &Fs, open_max: usize) -> Released {
        self.moments.drain(..).for_each(|moment| moment.clear());
        let names: HashSet<PathBuf> = self.names.iter().cloned().collect();
        let held = || self.files.iter().filter(|data| is_held(data));
        let nameless = held().filter(|data| !names.contains(&data.path)).count();
        let mut left = open_max.saturating_sub(nameless);
        let mut kept_names = HashSet::new();
        for data in held() {
            if names.contains(&data.path) {
                if left == 0 {
                    // Whoever still reads through them closes them.
                    let hint = data.hint();
                    drop((data.give_up(), hint.as_ref().map(|hint| hint.stored.give_up())));
                    kept_names.extend([data.path.clone(), data.path.with_extension("hint")]);
                    continue;
                }
                left -= 1;
            }
            // Whoever walks over it could not open it once its name is gone.
            match data.open(fs) {
                Ok(file) => data.keep_open(file),
                Err(error) => {
                    tracing::warn!(path = %data.path.display(), %error, "cannot remove a file in use");
                    return self;
                }
            }
            // Without its hint the data file is read instead (H1).
            if let Some(hint) = data.hint()
                && let Ok(file) = hint.stored.open(fs)
            {
                hint.stored.keep_open(file);
            }
        }
        for run in self.runs.iter().filter(|run| is_held(run)) {
            // Without it the files are read that it covers.
            if let Ok(file) = run.stored.open(fs) {
                run.stored.keep_open(file);
            }
        }
        for name in self.names.extract_if(.., |name| !kept_names.contains(name)) {
            match fs.remove_file(&name) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(path = %name.display(), %error, "cannot remove a compacted file");
                }
                _ => {}
            }
        }
        self.forget_unheld();
        if !self.is_empty() {
            fs.rest(READERS_WAIT);
            self.forget_unheld();
        }
        self
    }

    fn forget_unheld(&mut self) {
        self.files.retain(is_held);
        self.runs.retain(is_held);
        self.handles.retain(is_held);
    }
}

fn is_held<T>(shared: &Arc<T>) -> bool {
    Arc::strong_count(shared) > 1
}
