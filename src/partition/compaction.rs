//! One compaction at a time: chosen, copied in the background, listed, moved, let go.
//!
//! ```text
//! look      is there a reason?                               (upkeep::compaction::policy)
//! work      steps of the job on the upkeep thread            (upkeep::compaction::job)
//! sync      what superseded the records that were left out becomes durable
//! list      FILES names the outputs instead of the inputs    (the commit: one replacement)
//! move      each copied record that is still the newest of its key, some a turn (K4)
//! release   the inputs' names go, and then their descriptors (C2, G3)
//! ```
//!
//! ## Invariants
//! - **CM1** A record that was left out was superseded by something durable: a later power cut cannot
//!   take the newer one and leave neither.
//! - **CM2** `FILES` changes by one hand at a time: while a compaction lists, the log does not move to a
//!   new file, and the other way round.
//! - **CM3** Before its file leaves the table of files no keydir entry points into it.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::commit::InFlight;
use super::listing::{ChangeFailure, replace_files};
use super::rotation::too_many_files;
use super::upkeep::UpkeepEvent;
use super::{Event, Ops, Partition, Retention};
use crate::error::{Error, ErrorKind, Result};
use crate::keydir::{FileSlot, Location};
use crate::limits::FILES_PER_PARTITION_MAX;
use crate::log::files::{FilesList, SealedFile};
use crate::log::layout;
use crate::mailbox::ReplySender;
use crate::planted::{Bug, is_planted};
use crate::stats::Compacted;
use crate::types::FileId;
use crate::upkeep::compaction::job::{Input, Job, Output, Progress, Surroundings};
use crate::upkeep::compaction::policy::{self, FileFacts, Pace, Reason, Room};
use crate::upkeep::throttle::Debt;

/// Moves made in one turn of the worker: some tenths of a millisecond.
const MOVES_A_TURN: usize = 1024;

/// How long the upkeep thread rests at once.
const REST_SLICE: Duration = Duration::from_millis(10);

/// A job that has done a step.
pub(crate) struct Stepped {
    job: Box<Job>,
    progress: Result<Progress>,
    rest: Duration,
}

/// What compaction is about in one partition.
#[derive(Default)]
pub(super) struct Compactor {
    stage: Stage,
    /// Something changed since it was last asked whether there is a reason.
    is_due: bool,
    reason: Option<Reason>,
    /// How long the next step is put off, for the sake of the rate.
    rest: Duration,
    /// Files whose tombstones are still needed, as of the last file that went.
    shadow_needed: HashSet<FileId>,
    /// Files that could not be copied because they are damaged, and how.
    damaged: HashMap<FileId, Error>,
    /// The job under way is to be given up. Those who waited for it were told, and who asks now does not
    /// mean it.
    is_cancelled: bool,
    forced: Option<Forced>,
    /// Asked for while one was under way, which may have missed what they mean.
    waiting: Vec<ReplySender<Result<Compacted>>>,
    started: Option<Instant>,
}

#[derive(Default)]
enum Stage {
    #[default]
    Idle,
    /// Between two steps.
    Working(Box<Job>),
    /// With the upkeep thread.
    Stepping,
    /// Done, and waiting for the log to be durable as far as it was then (CM1).
    Syncing {
        job: Box<Job>,
        file: FileId,
        end: u64,
    },
    Listing(Changes),
    Moving(Changes),
}

/// Files that go, files that come.
struct Changes {
    inputs: Vec<Input>,
    outputs: Vec<(FileSlot, Output)>,
    after: FilesList,
    /// Which move is next: of which output, and where in its list.
    next: (usize, usize),
}

/// A compaction that somebody waits for.
struct Forced {
    replies: Vec<ReplySender<Result<Compacted>>>,
    /// `None` until the file that was active is sealed and has its hint.
    pending: Option<Vec<FileId>>,
    only: Option<Vec<FileId>>,
    sealing: Option<FileId>,
    done: Compacted,
}

impl Compactor {
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle)
    }

    pub(super) fn is_moving(&self) -> bool {
        matches!(self.stage, Stage::Moving(_))
    }

    /// CM2.
    pub(super) fn is_listing(&self) -> bool {
        matches!(self.stage, Stage::Listing(_))
    }

    /// Something changed that may be a reason.
    pub(super) fn look(&mut self) {
        self.is_due = true;
    }

    /// What range tombstones hid is dead now, and the tombstones themselves may be needed no longer.
    pub(super) fn ranges_worked_off(&mut self) {
        self.shadow_needed.clear();
        self.look();
    }

    pub(super) fn note_damaged(&mut self, file: FileId, damage: Error) {
        self.damaged.insert(file, damage);
    }

    pub(super) fn is_damaged(&self, file: FileId) -> bool {
        self.damaged.contains_key(&file)
    }

    /// The file that somebody wants sealed.
    pub(super) fn sealing(&self) -> Option<FileId> {
        self.forced.as_ref().and_then(|forced| forced.sealing)
    }
}

impl Partition {
    /// Compacts whatever gains anything, the active file included.
    pub(super) fn compact(
        &mut self,
        only: Option<Vec<FileId>>,
        reply: ReplySender<Result<Compacted>>,
    ) {
        if let Some(error) = &self.poisoned {
            return reply.send(Err(error.clone()));
        }
        let compactor = &mut self.upkeep.compactor;
        if compactor.forced.is_some() {
            return compactor.waiting.push(reply);
        }
        self.compact_begin(only, vec![reply]);
    }

    fn compact_begin(
        &mut self,
        only: Option<Vec<FileId>>,
        replies: Vec<ReplySender<Result<Compacted>>>,
    ) {
        let is_worth_sealing = only.is_none()
            && self.active.as_ref().is_some_and(|active| {
                let usage = self.usage.file(active.slot);
                usage.dead_records() + usage.shadow_records > 0
            });
        let sealing =
            self.active.as_ref().filter(|_| is_worth_sealing).map(|active| active.data.id);
        if sealing.is_some() {
            self.groups.leave_file();
        }
        let done = Compacted::default();
        let forced = Forced { replies, pending: None, only, sealing, done };
        self.upkeep.compactor.forced = Some(forced);
    }

    /// Gives up what is under way and what was asked for; both can be asked for again, also before what
    /// is under way has ended.
    pub(super) fn compact_cancel(&mut self, reply: ReplySender<Result<()>>) {
        let compactor = &mut self.upkeep.compactor;
        compactor.is_cancelled = true;
        let forced = compactor.forced.take().map_or_else(Vec::new, |forced| forced.replies);
        for asked in forced.into_iter().chain(std::mem::take(&mut compactor.waiting)) {
            asked.send(Err(cancelled()));
        }
        reply.send(Ok(()));
    }

    /// Goes on with the compaction under way, or looks for a reason to begin one.
    pub(super) fn compaction_advance(&mut self, ops: &mut Ops) {
        if self.inbox.is_closed() {
            self.upkeep.compactor.is_cancelled = true;
        }
        match std::mem::take(&mut self.upkeep.compactor.stage) {
            Stage::Idle => self.compaction_look(ops),
            Stage::Working(job) | Stage::Syncing { job, .. } if self.is_compaction_over() => {
                self.compaction_discard(job, ops);
            }
            Stage::Working(job) => {
                if !self.compaction_rest(ops) {
                    return self.compaction_step(job, ops);
                }
                self.upkeep.compactor.stage = Stage::Working(job);
            }
            Stage::Syncing { job, file, end } => {
                if self.is_durable_through(file, end)
                    && !matches!(self.in_flight, InFlight::Rotation)
                {
                    self.compaction_list(job, ops);
                } else {
                    self.upkeep.compactor.stage = Stage::Syncing { job, file, end };
                }
            }
            Stage::Moving(changes) => self.compaction_move(changes),
            busy @ (Stage::Stepping | Stage::Listing(_)) => self.upkeep.compactor.stage = busy,
        }
    }

    fn is_compaction_over(&self) -> bool {
        self.upkeep.compactor.is_cancelled || self.poisoned.is_some()
    }

    fn compaction_look(&mut self, ops: &mut Ops) {
        if let Some(error) = self.poisoned.clone() {
            return self.forced_done(&Err(error));
        }
        if self.inbox.is_closed() {
            return self.forced_done(&Err(Error::closed()));
        }
        if std::mem::take(&mut self.upkeep.compactor.is_cancelled) {
            self.upkeep.compactor.is_due = false;
        }
        if self.upkeep.compactor.forced.is_some() {
            return self.forced_look(ops);
        }
        if !std::mem::take(&mut self.upkeep.compactor.is_due) {
            return;
        }
        let hour = (self.config.clock.wall_ms() / 3_600_000 % 24) as u8;
        let facts = self.file_facts();
        let chosen = policy::choose(&facts, &self.config.compaction, hour, self.room());
        if let Some((files, reason)) = chosen {
            self.compaction_begin(&files, reason, ops);
        }
    }

    /// The log cannot leave the file that somebody wants sealed: they are told, because trying for as
    /// long as they wait could be for ever.
    pub(super) fn forced_seal_failed(&mut self, error: &Error) {
        let active = self.active.as_ref().map(|active| active.data.id);
        if active.is_some() && self.upkeep.compactor.sealing() == active {
            self.forced_done(&Err(error.clone()));
        }
        self.backup_fail(error);
    }

    /// The next part of a compaction that somebody waits for, or its end.
    fn forced_look(&mut self, ops: &mut Ops) {
        let Some(forced) = &mut self.upkeep.compactor.forced else { return };
        let active = self.active.as_ref().map(|active| active.data.id);
        if forced.sealing.is_some() && forced.sealing == active {
            return; // The log is about to leave it.
        }
        forced.sealing = None;
        if self.upkeep.has_hints_due() {
            return;
        }
        if self.batches.has_resolving() {
            return self.batch_request_sync(); // Until then some files are held (BA3).
        }
        let facts = self.file_facts();
        let Some(forced) = &mut self.upkeep.compactor.forced else { return };
        let only = forced.only.take();
        let pending = forced.pending.get_or_insert_with(|| match only {
            Some(only) => only,
            None => facts.iter().map(|file| file.id).collect(),
        });
        let pending = pending.clone();
        let room = self.room();
        if let Some(files) = policy::choose_forced(&facts, &pending, room) {
            if let Some(forced) = &mut self.upkeep.compactor.forced {
                forced.pending =
                    Some(pending.into_iter().filter(|id| !files.contains(id)).collect());
            }
            return self.compaction_begin(&files, Reason::Forced, ops);
        }
        let compactor = &self.upkeep.compactor;
        let damage = pending.iter().find_map(|id| compactor.damaged.get(id));
        let too_large =
            facts.iter().filter(|file| pending.contains(&file.id) && file.is_worth_it());
        let outcome = match (damage, too_large.map(FileFacts::space).min()) {
            (Some(damage), _) => Err(damage.clone()),
            (None, Some(needed)) => Err(no_space(&self.dir, needed, room.free_bytes)),
            (None, None) => Ok(compactor.forced.as_ref().map(|f| f.done).unwrap_or_default()),
        };
        self.forced_done(&outcome);
    }

    fn forced_done(&mut self, outcome: &Result<Compacted>) {
        let Some(forced) = self.upkeep.compactor.forced.take() else { return };
        let waiting = std::mem::take(&mut self.upkeep.compactor.waiting);
        let is_over = outcome.is_err() && (self.inbox.is_closed() || self.poisoned.is_some());
        for reply in forced.replies {
            reply.send(outcome.clone());
        }
        if is_over {
            for reply in waiting {
                reply.send(outcome.clone());
            }
        } else if !waiting.is_empty() {
            self.compact_begin(None, waiting);
        }
    }

    fn compaction_begin(&mut self, files: &[FileId], reason: Reason, ops: &mut Ops) {
        // Each input makes room for about one output, but only afterwards; encrypted for the first time, short
        // records take up to three times the space.
        let outputs_max = if self.config.codecs.overhead() > 0 { 3 } else { 1 } * files.len() + 1;
        if self.files.iter().count() + outputs_max > FILES_PER_PARTITION_MAX {
            tracing::warn!(partition = self.id.0, "too many data files to compact any");
            return self.forced_done(&Err(too_many_files(&self.dir)));
        }
        let mut inputs = Vec::new();
        for (slot, data) in self.files.iter().filter(|(_, data)| files.contains(&data.id)) {
            if let Some(sealed) = self.listed.find_sealed(data.id) {
                inputs.push(Input { slot, data: data.clone(), sealed: *sealed });
            }
        }
        let is_outside = |sealed: &&SealedFile| !files.contains(&sealed.id);
        let outside: Vec<SealedFile> =
            self.listed.sealed.iter().filter(is_outside).copied().collect();
        tracing::debug!(partition = self.id.0, files = inputs.len(), ?reason, "compaction begins");
        self.reserve_release_for_compaction();
        let surroundings = Surroundings {
            fs: self.fs.clone(),
            dir: self.dir.clone(),
            owner: self.owner.clone(),
            hasher: self.hasher.clone(),
            keydir: self.keydir.reader(),
            ids: self.groups.ids().clone(),
            bounds: self.bounds,
            pace: Pace::new(self.config.compaction.bytes_per_sec),
            clock: self.config.expiry.clone(),
            ranges_worked_through: self.range_work.worked_through(),
        };
        self.upkeep.compactor.reason = Some(reason);
        self.upkeep.compactor.started = Some(Instant::now());
        self.compaction_step(Box::new(Job::new(surroundings, inputs, &outside)), ops);
    }

    fn compaction_step(&mut self, mut job: Box<Job>, ops: &mut Ops) {
        self.upkeep.compactor.stage = Stage::Stepping;
        let step = move || {
            let (progress, rest) = job.step();
            Stepped { job, progress, rest }
        };
        self.upkeep_step(ops, step, UpkeepEvent::Compaction);
    }

    /// Rests a little, if the rate asks for it: in slices, so that others of the worker get their turn, and
    /// a compaction that is cancelled ends.
    fn compaction_rest(&mut self, ops: &mut Ops) -> bool {
        let slice = self.upkeep.compactor.rest.min(REST_SLICE);
        self.upkeep.compactor.rest -= slice;
        if !slice.is_zero() {
            let rest = move || std::thread::sleep(slice);
            self.upkeep_step(ops, rest, |_| UpkeepEvent::Rested);
        }
        !slice.is_zero()
    }

    pub(super) fn compaction_stepped(&mut self, stepped: Option<Stepped>, ops: &mut Ops) {
        let compactor = &mut self.upkeep.compactor;
        compactor.stage = Stage::Idle;
        let Some(Stepped { mut job, progress, rest }) = stepped else {
            self.view.counters.compactions_failed.add(1);
            let panicked = "compaction panicked, which is a bug in ringcask; nothing was changed";
            return self.forced_done(&Err(Error::new(ErrorKind::Io, panicked)));
        };
        // Hints that could not be read are made anew.
        self.upkeep.hints_wanted(job.take_broken_hints());
        let compactor = &mut self.upkeep.compactor;
        compactor.rest = rest;
        match progress {
            Ok(Progress::Copying) => compactor.stage = Stage::Working(job),
            Ok(Progress::Decided { tombstones_kept }) => {
                if self.is_worth_it(&job, tombstones_kept) {
                    self.upkeep.compactor.stage = Stage::Working(job);
                } else {
                    let ids = job.inputs().iter().map(|input| input.sealed.id);
                    self.upkeep.compactor.shadow_needed.extend(ids);
                    self.upkeep.compactor.look();
                }
            }
            Ok(Progress::Done) => {
                // CM1: whatever was found in the keydir was published, and lies before the log's end.
                let (file, end) = self
                    .active
                    .as_ref()
                    .map_or((FileId(0), 0), |active| (active.data.id, active.end));
                if is_planted(Bug::SupersedersUnsynced) {
                    return self.compaction_list(job, ops);
                }
                self.upkeep.compactor.stage = Stage::Syncing { job, file, end };
                self.compaction_request_sync();
            }
            Err(error) => {
                tracing::warn!(partition = self.id.0, %error, "compaction failed, nothing is lost");
                self.view.counters.compactions_failed.add(1);
                let is_asked_for = compactor.reason == Some(Reason::Forced);
                let is_input = |input: &&Input| {
                    error.location().is_some_and(|(path, _)| input.data.path == path)
                };
                if let Some(input) = job.inputs().iter().find(is_input) {
                    self.note_damaged(input.sealed.id, error);
                    let compactor = &mut self.upkeep.compactor;
                    if let Some(forced) = compactor.forced.as_mut().filter(|_| is_asked_for) {
                        // The others are tried again without it.
                        let inputs = job.inputs().iter().map(|input| input.sealed.id);
                        forced.pending.get_or_insert_default().extend(inputs);
                    }
                } else if is_asked_for && !compactor.is_cancelled {
                    self.forced_done(&Err(error));
                }
                self.compaction_discard(job, ops);
            }
        }
    }

    /// Asks for the sync that a compaction waits for, if one does; again when the group that it was to go with
    /// has failed, but never after a sync has (D1).
    pub(super) fn compaction_request_sync(&mut self) {
        if let Stage::Syncing { file, end, .. } = self.upkeep.compactor.stage
            && !self.is_durable_through(file, end)
            && self.poisoned.is_none()
        {
            self.groups.request_sync();
        }
    }

    /// Whether what the inputs give back is enough, now that it is known which tombstones stay.
    fn is_worth_it(&self, job: &Job, tombstones_kept: u64) -> bool {
        let reason = self.upkeep.compactor.reason;
        if matches!(reason, Some(Reason::Dead | Reason::Small) | None) {
            return true;
        }
        let (mut dead_bytes, mut shadow_bytes, mut shadow_records, mut bytes) = (0, 0, 0, 0);
        for input in job.inputs() {
            let usage = self.usage.file(input.slot);
            dead_bytes += usage.dead_bytes();
            shadow_bytes += usage.shadow_bytes;
            shadow_records += usage.shadow_records;
            bytes += usage.record_bytes;
        }
        let dropped = shadow_records.saturating_sub(tombstones_kept);
        let gain = dead_bytes + shadow_bytes * dropped / shadow_records.max(1);
        match reason {
            Some(Reason::Forced) => {
                let key = self.config.codecs.key_id();
                let is_stale = |input: &Input| input.data.key != key;
                dead_bytes > 0 || dropped > 0 || job.inputs().iter().any(is_stale)
            }
            _ => gain as f64 >= self.config.compaction.dead_ratio * policy::WORTH_IT * bytes as f64,
        }
    }

    fn compaction_discard(&mut self, job: Box<Job>, ops: &mut Ops) {
        self.upkeep.compactor.stage = Stage::Idle;
        self.upkeep_step(ops, move || job.discard(), |_| UpkeepEvent::Released(None));
    }

    /// Whether the log is on disk up to where it ended in `file`.
    pub(super) fn is_durable_through(&self, file: FileId, end: u64) -> bool {
        match &self.active {
            Some(active) if active.data.id == file => active.durable >= end,
            // The log has moved on, which takes a sync of what it leaves (W4).
            _ => true,
        }
    }

    fn compaction_list(&mut self, job: Box<Job>, ops: &mut Ops) {
        let (inputs, outputs) = job.into_parts();
        let mut after = self.listed.clone();
        after.sealed.retain(|sealed| inputs.iter().all(|input| input.sealed.id != sealed.id));
        after.sealed.extend(outputs.iter().map(|output| output.sealed));
        after.sealed.sort_unstable_by_key(|sealed| sealed.id);
        let of_log = inputs.iter().map(|input| input.sealed.id);
        let of_log = of_log.filter(|id| !self.listed.copies.contains(id));
        after.log_gone = of_log.fold(after.log_gone, FileId::max);
        after.copies.retain(|id| inputs.iter().all(|input| input.sealed.id != *id));
        after.copies.extend(outputs.iter().map(|output| output.sealed.id));
        after.next = self.groups.ids().next();
        let outputs = outputs
            .into_iter()
            .map(|output| {
                let slot = self.files.insert(output.data.clone());
                (slot.expect("`compaction_begin` found room"), output)
            })
            .collect();
        let (fs, dir) = (self.fs.clone(), self.dir.clone());
        let (before, replacement) = (self.listed.clone(), after.clone());
        if is_planted(Bug::InputsRemovedEarly) {
            for name in inputs.iter().flat_map(|input| names_of(&self.dir, input.sealed.id)) {
                drop(self.fs.remove_file(&name));
            }
        }
        self.upkeep.compactor.stage =
            Stage::Listing(Changes { inputs, outputs, after, next: (0, 0) });
        let (disk, index) = (self.disk.clone(), self.index);
        ops.push(Box::pin(async move {
            let listed = disk.cold(move || replace_files(&fs, &dir, &before, &replacement)).await;
            (index, Event::Upkept(UpkeepEvent::Listed(listed)))
        }));
    }

    pub(super) fn compaction_listed(
        &mut self,
        listed: Option<Result<(), ChangeFailure>>,
        ops: &mut Ops,
    ) {
        let stage = std::mem::take(&mut self.upkeep.compactor.stage);
        let Stage::Listing(changes) = stage else { return };
        match listed {
            Some(Ok(())) => self.compaction_committed(changes),
            Some(Err(ChangeFailure::Again(error))) => {
                tracing::warn!(partition = self.id.0, %error, "compaction failed, nothing is lost");
                self.view.counters.compactions_failed.add(1);
                if self.upkeep.compactor.reason == Some(Reason::Forced) {
                    self.forced_done(&Err(error));
                }
                self.compaction_undo(changes);
            }
            Some(Err(ChangeFailure::Poison(what, source))) => {
                // Outputs stay: FILES may name them.
                self.poison(what, &source);
            }
            None => self.poison("replacing FILES", &std::io::Error::other("the helper panicked")),
        }
        self.upkeep_advance(ops);
    }

    /// `FILES` is what it was, so the outputs are strays.
    fn compaction_undo(&mut self, changes: Changes) {
        for (slot, output) in changes.outputs {
            self.files.remove(slot);
            let names = names_of(&self.dir, output.sealed.id);
            self.upkeep.release(output.data, names);
        }
    }

    fn compaction_committed(&mut self, changes: Changes) {
        self.listed = changes.after.clone();
        // Before its file leaves the table of files (CF2).
        self.view.show_log_gone(self.listed.log_gone);
        for (slot, output) in &changes.outputs {
            self.usage.records(*slot, output.sealed.records, output.record_bytes);
            self.usage.shadow(*slot, output.shadow_records, output.shadow_bytes);
            self.view.counters.log_bytes.add(output.sealed.len);
        }
        // Readers find a file before any entry points into it.
        self.files_show();
        self.upkeep.locker.look();
        self.upkeep.compactor.stage = Stage::Moving(changes);
    }

    /// Makes the next moves, and lets go of the inputs after the last one.
    fn compaction_move(&mut self, mut changes: Changes) {
        let mut left = MOVES_A_TURN;
        while let Some((slot, output)) = changes.outputs.get(changes.next.0) {
            let moves = &output.moves[changes.next.1..];
            if left == 0 {
                self.upkeep.compactor.stage = Stage::Moving(changes);
                return self.view.show_usage(&self.usage);
            }
            let now = moves.len().min(left);
            self.keydir.warm(moves[..now].iter().map(|moved| moved.hash));
            for moved in &moves[..now] {
                let to = Location { slot: *slot, offset: moved.to, len: moved.len, ..moved.from };
                if self.keydir.replace_if(moved.hash, moved.from, to) {
                    self.usage.moved(moved.from, to);
                }
            }
            left -= now;
            changes.next.1 += now;
            if now == moves.len() {
                changes.next = (changes.next.0 + 1, 0);
            }
        }
        self.compaction_finish(changes);
    }

    fn compaction_finish(&mut self, changes: Changes) {
        let mut done = Compacted::default();
        for (_, output) in &changes.outputs {
            self.range_work.file_made(output.sealed.id);
            done.files_written += 1;
            done.bytes_written += output.sealed.len;
            done.records_kept += output.sealed.records;
        }
        for input in changes.inputs {
            done.files_removed += 1;
            done.bytes_removed += input.sealed.len;
            done.records_dropped += input.sealed.records;
            assert_eq!(self.usage.file(input.slot).live_records, 0, "CM3");
            self.usage.remove(input.slot);
            self.files.remove(input.slot);
            let names = names_of(&self.dir, input.sealed.id);
            self.upkeep.release(input.data, names);
        }
        done.records_dropped -= done.records_kept;
        self.files_show();
        self.view.show_usage(&self.usage);
        let counters = &self.view.counters;
        counters.files.set(self.files.iter().count() as u64);
        counters.files_other_key.set(self.files.not_under(self.config.codecs.key_id()));
        counters.log_bytes.set(counters.log_bytes.get() - done.bytes_removed);
        counters.compactions.add(1);
        counters.compaction_read_bytes.add(done.bytes_removed);
        counters.compaction_written_bytes.add(done.bytes_written);
        let hint_bytes: u64 = changes.outputs.iter().map(|(_, output)| output.hint_len).sum();
        counters.hints.add(done.files_written);
        counters.hint_bytes.add(hint_bytes);
        let compactor = &mut self.upkeep.compactor;
        let took = compactor.started.take().map_or(0, |started| started.elapsed().as_millis());
        tracing::info!(
            partition = self.id.0,
            files_removed = done.files_removed,
            files_written = done.files_written,
            bytes_removed = done.bytes_removed,
            bytes_written = done.bytes_written,
            records_dropped = done.records_dropped,
            elapsed_ms = took as u64,
            "compacted"
        );
        // Files went, so tombstones elsewhere may not be needed any more. Those that were kept just now
        // are.
        let kept = changes.outputs.iter().filter(|(_, output)| output.shadow_records > 0);
        compactor.shadow_needed = kept.map(|(_, output)| output.sealed.id).collect();
        let is_asked_for = compactor.reason == Some(Reason::Forced);
        if let Some(forced) = compactor.forced.as_mut().filter(|_| is_asked_for) {
            forced.done.add(&done);
        }
        compactor.look();
    }

    /// How long writers pause after a group that took so long. Only while compaction is at it: what it
    /// cannot help is no reason to wait.
    pub(super) fn compaction_pause(&self, took: Duration) -> Duration {
        if self.upkeep.compactor.is_idle() {
            self.view.counters.compaction_debt_bytes.set(0);
            return Duration::ZERO;
        }
        let debt = self.compaction_debt();
        self.view.counters.compaction_debt_bytes.set(debt.bytes());
        debt.pause(took)
    }

    fn compaction_debt(&self) -> Debt {
        let total = self.usage.total();
        let active =
            self.active.as_ref().map(|active| self.usage.file(active.slot)).unwrap_or_default();
        let dead_bytes = total.dead_bytes() - active.dead_bytes();
        Debt {
            dead_bytes,
            kept_bytes: total.record_bytes - active.record_bytes - dead_bytes,
            dead_ratio: self.config.compaction.dead_ratio,
            file_len: self.bounds.len_max,
        }
    }

    fn file_facts(&self) -> Vec<FileFacts> {
        let compactor = &self.upkeep.compactor;
        let retained_from = self.retained_from();
        let files = self.files.iter().filter(|(_, data)| !self.batches.holds(data.id));
        let files = files.filter(|(_, data)| data.is_copy() || data.id < retained_from);
        let facts = files.filter_map(|(slot, data)| {
            let sealed = self.listed.find_sealed(data.id)?;
            let usage = self.usage.file(slot);
            Some(FileFacts {
                id: sealed.id,
                len: sealed.len,
                records: sealed.records,
                live_bytes: usage.live_bytes,
                shadow_bytes: usage.shadow_bytes,
                dead_bytes: usage.dead_bytes(),
                kept_records: usage.live_records + usage.shadow_records,
                seqno_min: sealed.seqno_min,
                is_shadow_needed: compactor.shadow_needed.contains(&sealed.id),
                is_stale: data.key != self.config.codecs.key_id(),
                is_damaged: compactor.damaged.contains_key(&sealed.id),
            })
        });
        facts.collect()
    }

    /// The oldest file of the log that is kept for those who follow it: together with what is newer, files of as many
    /// bytes as were asked for, and none of them too old.
    fn retained_from(&self) -> FileId {
        let Retention { bytes: mut left, age_max_ms } = self.config.changes_retention;
        let mut from = self.groups.ids().next();
        if left == 0 {
            return from;
        }
        let begun: HashMap<FileId, u64> =
            self.files.iter().map(|(_, data)| (data.id, data.created_at_ms())).collect();
        let now = self.config.clock.wall_ms();
        // What a jump of the clock calls old may be needed.
        let age_max_ms = age_max_ms.filter(|_| self.config.expiry.is_trusted());
        // The newest change in a file is no newer than the file after it.
        let mut ended = now;
        if let Some(active) = &self.active {
            left = left.saturating_sub(active.end);
            ended = active.data.created_at_ms();
        }
        let of_log = self.listed.sealed.iter().rev();
        for sealed in of_log.filter(|sealed| !self.listed.copies.contains(&sealed.id)) {
            let age_ms = now.saturating_sub(ended);
            if left == 0 || age_max_ms.is_some_and(|age_max_ms| age_ms > age_max_ms) {
                break;
            }
            left = left.saturating_sub(sealed.len);
            from = sealed.id;
            ended = begun.get(&sealed.id).copied().unwrap_or(ended);
        }
        from
    }

    fn room(&self) -> Room {
        // Where it cannot be told, a write will.
        let free_bytes = self.fs.free_bytes(&self.dir).unwrap_or(u64::MAX);
        let free_bytes = free_bytes.saturating_add(self.reserve_held());
        Room { file_len_max: self.bounds.len_max, free_bytes }
    }
}

fn names_of(dir: &std::path::Path, id: FileId) -> [std::path::PathBuf; 2] {
    [layout::data_file_path(dir, id), layout::hint_file_path(dir, id)]
}

#[cold]
fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "the compaction was cancelled; what it had finished stays")
}

#[cold]
fn no_space(dir: &std::path::Path, needed: u64, free: u64) -> Error {
    Error::new(
        ErrorKind::NoSpace,
        format!(
            "{}: cannot compact: the file with the least live data takes {needed} bytes to copy, and \
             {free} may be used; free some space on the file system, then try again",
            dir.display()
        ),
    )
}
