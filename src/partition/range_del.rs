//! Deleting ranges of keys: one record hides them at once, and the keydir is rid of them later.
//!
//! ```text
//! stage     the record goes into the open group as any other
//! publish   the range is in `ranges`, and shown to readers, before anybody is told
//! walk      upkeep looks through the files for records that are hidden     (upkeep::range_del)
//! remove    their entries, some a turn; what they pointed at is dead (K5)
//! forget    the range, once every file was looked through
//! ```
//!
//! While a range is in `ranges` whoever has a record in hand asks whether it is hidden. The ranges of one walk
//! are all that there were when it began; those that come later are for the next one.
//!
//! ## Invariants
//! - **RD1** A range is forgotten only when no keydir entry of its keys points at an older record. So a walk
//!   looks through every file that such an entry may point into, those that compaction made meanwhile included,
//!   and rests while compaction moves entries from one to the other.
//! - **RD2** In a keyspace that was dropped nothing is put any more.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::commit::InFlight;
use super::groups::{Answer, Effect};
use super::upkeep::UpkeepEvent;
use super::{Ops, Partition};
use crate::error::{Error, ErrorKind, Result};
use crate::keydir::FileSlot;
use crate::limits::RANGES_PENDING_MAX;
use crate::log::format::record::RecordKind;
use crate::mailbox::{Body, Durable, ReplySender};
use crate::planted::{Bug, is_planted};
use crate::ranges::{RangeDel, Ranges};
use crate::types::{FileId, KeyspaceId, Seqno};
use crate::upkeep::range_del::{Hidden, RangeJob, Step, Surroundings};

/// Entries looked at in one turn of the worker: some tenths of a millisecond.
const REMOVED_A_TURN: usize = 1024;

/// What a partition is about with its ranges.
pub(super) struct RangeWork {
    /// Range tombstones in groups that are not published.
    staged: usize,
    /// No keydir entry points at a record that a range up to this sequence number hides.
    worked_through: Seqno,
    /// There may be something to do that the last walk did not do.
    is_due: bool,
    walk: Option<Walk>,
    /// Why the last walk did not end.
    failure: Option<Error>,
    /// For when there is room.
    waiting: VecDeque<Waiting>,
    dropped: HashSet<KeyspaceId>,
}

struct Waiting {
    body: Body,
    durable: Durable,
    reply: ReplySender<Result<()>>,
}

/// One walk over the files.
struct Walk {
    /// The newest of its ranges.
    through: Seqno,
    ranges: Arc<Ranges>,
    todo: Vec<FileId>,
    job: Option<Box<RangeJob>>,
    /// What was found in a file and is still in the keydir.
    found: Option<Found>,
    failure: Option<Error>,
}

struct Found {
    file: FileId,
    slot: FileSlot,
    hidden: std::vec::IntoIter<Hidden>,
}

impl RangeWork {
    /// Nothing was deleted yet since the partition was opened, which left none of it in the keydir.
    pub(super) fn new(next_seqno: Seqno) -> RangeWork {
        RangeWork {
            staged: 0,
            worked_through: Seqno(next_seqno.0.saturating_sub(1)),
            is_due: false,
            walk: None,
            failure: None,
            waiting: VecDeque::new(),
            dropped: HashSet::new(),
        }
    }

    pub(super) fn worked_through(&self) -> Seqno {
        self.worked_through
    }

    pub(super) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// So many range tombstones are published, or failed.
    pub(super) fn unstage(&mut self, count: usize) {
        self.staged -= count;
    }

    /// Something changed that may let a walk end which could not.
    pub(super) fn look(&mut self) {
        self.is_due = true;
    }

    /// Time has passed; damage does not go away by that.
    pub(super) fn tick(&mut self) {
        self.is_due |= self.failure.as_ref().is_some_and(|failure| !failure.is_corrupt());
    }

    /// Keydir entries point into this file that pointed elsewhere before (RD1).
    pub(super) fn file_made(&mut self, file: FileId) {
        if let Some(walk) = &mut self.walk {
            walk.todo.push(file);
        }
    }

    pub(super) fn fail_waiting(&mut self, error: &Error) {
        for waiting in self.waiting.drain(..) {
            waiting.reply.send(Err(error.clone()));
        }
    }
}

impl Partition {
    pub(super) fn range_del(
        &mut self,
        body: Body,
        is_drop: bool,
        durable: Durable,
        reply: ReplySender<Result<()>>,
    ) {
        if let Some(error) = &self.poisoned {
            return reply.send(Err(error.clone()));
        }
        if is_drop {
            self.range_work.dropped.insert(body.keyspace);
        } else if let Some(error) = self.dropped_refusal(body.keyspace) {
            return reply.send(Err(error));
        }
        let waiting = Waiting { body, durable, reply };
        if self.range_work.waiting.is_empty() && self.ranges_have_room() {
            self.range_stage(waiting);
        } else {
            self.range_work.waiting.push_back(waiting);
        }
    }

    /// Why nothing may be put into a keyspace, if so (RD2).
    pub(super) fn dropped_refusal(&self, keyspace: KeyspaceId) -> Option<Error> {
        let all = &self.range_work.dropped;
        (!all.is_empty() && all.contains(&keyspace)).then(Error::keyspace_dropped)
    }

    /// The sequence number below which no published record of the key counts.
    pub(super) fn cover(&self, key: (KeyspaceId, &[u8])) -> Seqno {
        self.ranges.cover(key.0, key.1)
    }

    /// Whether a range is over the key that is not worked off, published or not.
    pub(super) fn is_covered(&self, key: (KeyspaceId, &[u8])) -> bool {
        self.cover(key) > Seqno(0) || self.ranges_are_staged() && self.is_cover_staged(key)
    }

    pub(super) fn is_cover_staged(&self, key: (KeyspaceId, &[u8])) -> bool {
        let is_in_flight = match &self.in_flight {
            InFlight::Group(group) | InFlight::Undo(group, _) => group.covers(key),
            InFlight::None | InFlight::Pause | InFlight::Rotation => false,
        };
        is_in_flight || self.groups.cover(key)
    }

    pub(super) fn ranges_are_staged(&self) -> bool {
        self.range_work.staged > 0
    }

    fn ranges_have_room(&self) -> bool {
        self.ranges.len() + self.range_work.staged < RANGES_PENDING_MAX
    }

    fn range_stage(&mut self, waiting: Waiting) {
        let Waiting { body, durable, reply } = waiting;
        if let Some(error) = self.del_refusal() {
            return reply.send(Err(error));
        }
        self.view.counters.range_dels.add(1);
        let is_idle = matches!(self.in_flight, InFlight::None) && self.groups.is_empty();
        if self.keydir.len() == 0 && is_idle {
            // No tombstone where there is nothing; but that must be as durable as asked.
            self.note_durable(durable);
            return self.groups.wait(Answer::Done(reply.into()));
        }
        let begin = Bytes::copy_from_slice(body.key());
        let range =
            RangeDel { keyspace: body.keyspace, end: body.value(), begin, seqno: self.next_seqno };
        let body = body.encrypted(&self.config.codecs, RecordKind::RangeDel);
        let (_, len) = self.stage(RecordKind::RangeDel, &body, None, durable);
        let ranges = &mut self.groups.open().ranges;
        let index = ranges.len() as u32;
        ranges.push(range);
        self.range_work.staged += 1;
        self.staged(Effect::RangeDel { index, len }, Answer::Done(reply.into()));
    }

    /// Goes on with those who waited for room.
    pub(super) fn range_waiting_advance(&mut self) {
        while !self.range_work.waiting.is_empty() && self.range_can_advance() {
            let Some(waiting) = self.range_work.waiting.pop_front() else { return };
            if self.inbox.is_closed() {
                waiting.reply.send(Err(Error::closed()));
            } else if self.ranges_have_room() {
                self.range_stage(waiting);
            } else if let Some(failure) = &self.range_work.failure {
                waiting.reply.send(Err(failure.clone()));
            }
        }
    }

    fn range_can_advance(&self) -> bool {
        let is_stuck = self.range_work.failure.is_some();
        self.inbox.is_closed() || self.ranges_have_room() || is_stuck
    }

    pub(super) fn ranges_published(&mut self, range: &RangeDel) {
        self.ranges.insert(range);
    }

    /// Before anybody is told that they are deleted.
    pub(super) fn ranges_show(&mut self, published: usize) {
        self.range_work.unstage(published);
        self.range_work.look();
        self.view.ranges.show(&self.ranges);
        self.view.counters.range_dels_pending.set(self.ranges.len() as u64);
    }

    /// Whether there is something to do at once.
    pub(super) fn range_has_work(&self) -> bool {
        let is_found = self.range_work.walk.as_ref().is_some_and(|walk| walk.found.is_some());
        is_found || !self.range_work.waiting.is_empty() && self.range_can_advance()
    }

    /// Takes some entries out of the keydir whose records were found to be hidden.
    pub(super) fn range_remove(&mut self) {
        let Some(mut walk) = self.range_work.walk.take() else { return };
        let Some(found) = &mut walk.found else {
            self.range_work.walk = Some(walk);
            return;
        };
        // The slot may have another file by now.
        let is_there = self.files.get(found.slot).is_some_and(|data| data.id == found.file);
        for hidden in found.hidden.by_ref().take(REMOVED_A_TURN) {
            let location = self.keydir.get(hidden.hash).filter(|location| {
                is_there && location.slot == found.slot && location.offset == hidden.offset
            });
            let Some(location) = location else { continue };
            self.snapshots_note(hidden.hash);
            self.keydir.remove(hidden.hash);
            if let Some(evictor) = &mut self.evictor {
                evictor.expired(hidden.hash);
            }
            let expires_at = self.expiries.get(hidden.hash);
            if expires_at.is_some_and(|at| self.config.expiry.is_over(at)) {
                self.usage.expired(location);
            } else {
                self.usage.removed(location);
            }
            self.expiries.set(hidden.hash, None);
            self.view.counters.range_removed.add(1);
        }
        if found.hidden.len() == 0 || !is_there {
            walk.found = None;
            self.upkeep.compactor.look();
        }
        self.range_work.walk = Some(walk);
        self.view.counters.keys_mortal.set(self.expiries.len() as u64);
        self.view.show_usage(&self.usage);
    }

    /// Starts the next step of a walk; true if there is one.
    pub(super) fn range_advance(&mut self, ops: &mut Ops) -> bool {
        if self.poisoned.is_some() || self.inbox.is_closed() {
            self.range_work.walk = None;
            return false;
        }
        // RD1: between two files an entry could be missed in both.
        if self.upkeep.compactor.is_listing() || self.upkeep.compactor.is_moving() {
            return false;
        }
        let Some(mut walk) = self.range_work.walk.take().or_else(|| self.range_walk_begin()) else {
            return false;
        };
        if walk.found.is_some() {
            self.range_work.walk = Some(walk);
            return false;
        }
        let Some(mut job) = walk.job.take().or_else(|| self.range_next_job(&mut walk)) else {
            self.range_walk_end(walk);
            return false;
        };
        self.range_work.walk = Some(walk);
        let step = move || {
            let stepped = job.step();
            (job, stepped)
        };
        self.upkeep_step(ops, step, UpkeepEvent::Ranges);
        true
    }

    fn range_walk_begin(&mut self) -> Option<Walk> {
        if !self.range_work.is_due || self.ranges.is_empty() {
            self.range_work.is_due = false;
            return None;
        }
        let through = self.ranges.seqno_max();
        if self.batches.has_intents_before(through) {
            return None; // RD1: they may be what the keydir points at in the end (BA5).
        }
        self.range_work.is_due = false;
        let live = self.files.iter().filter(|(slot, _)| self.usage.file(*slot).live_records > 0);
        let mut todo: Vec<FileId> = live.map(|(_, data)| data.id).collect();
        if is_planted(Bug::RangeForgottenEarly) {
            todo.clear();
        }
        let ranges = Arc::new(self.ranges.clone());
        Some(Walk { through, ranges, todo, job: None, found: None, failure: None })
    }

    /// The next file, if it may have something.
    fn range_next_job(&self, walk: &mut Walk) -> Option<Box<RangeJob>> {
        while let Some(id) = walk.todo.pop() {
            let Some((slot, data)) = self.files.iter().find(|(_, data)| data.id == id) else {
                continue; // Compacted meanwhile.
            };
            if self.usage.file(slot).live_records == 0 {
                continue;
            }
            let surroundings = Surroundings {
                fs: self.fs.clone(),
                dir: self.dir.clone(),
                owner: self.owner.clone(),
                hasher: self.hasher.clone(),
                ranges: walk.ranges.clone(),
            };
            let sealed = self.listed.find_sealed(id);
            let job = match (sealed, &self.active) {
                (Some(sealed), _) if sealed.seqno_min >= walk.through => continue,
                (Some(sealed), _) => {
                    RangeJob::sealed(surroundings, slot, data.clone(), *sealed, true)
                }
                (None, Some(active)) if active.data.id == id => {
                    RangeJob::log(surroundings, slot, data.clone(), active.end)
                }
                (None, _) => continue,
            };
            return Some(Box::new(job));
        }
        None
    }

    pub(super) fn range_stepped(&mut self, ended: Option<(Box<RangeJob>, Result<Step>)>) {
        let Some(walk) = &mut self.range_work.walk else { return };
        match ended {
            Some((job, Ok(step))) => {
                let (file, slot) = job.place();
                if !step.hidden.is_empty() {
                    walk.found = Some(Found { file, slot, hidden: step.hidden.into_iter() });
                }
                walk.job = (!step.is_over).then_some(job);
            }
            Some((job, Err(error))) => {
                tracing::warn!(partition = self.id.0, %error, "a file cannot be rid of a range");
                walk.failure = Some(error.clone());
                if error.is_corrupt() {
                    self.note_damaged(job.place().0, error);
                }
            }
            None => {
                let panicked = "looking for a range panicked, which is a bug in ringcask";
                walk.failure = Some(Error::new(ErrorKind::Io, panicked));
            }
        }
    }

    fn range_walk_end(&mut self, walk: Walk) {
        self.range_work.failure = walk.failure;
        if self.range_work.failure.is_some() {
            return; // What is hidden stays hidden.
        }
        self.range_work.worked_through = walk.through;
        self.ranges.forget_through(walk.through);
        self.view.ranges.show(&self.ranges);
        self.view.counters.range_dels_pending.set(self.ranges.len() as u64);
        // Range tombstones may not be needed any more, and much may be dead.
        self.upkeep.compactor.ranges_worked_off();
    }
}
