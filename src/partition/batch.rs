//! Batches: all of one happens, or nothing, whatever ends first (B1).
//!
//! A batch whose records fit into one commit group is one: a group lives or dies whole (F4). It costs what a
//! put costs. Every other batch, over several partitions or too large for a group, goes like this; who waits
//! for whom stands in `mailbox/peers.rs`:
//!
//! ```text
//! lock       its keys, each behind whatever waits for the key already
//! intents    what is to be written, as records that name the batch; synced
//! decision   one record in one partition, when every intent is durable; synced: the batch has happened
//! copies     the same writes once more as ordinary records, and behind them a resolve, in each partition
//! publish    all keys of the partition at once; the locks are given back
//! ```
//!
//! DESIGN left it open how intents become records. Here they are written again at once, rather than counted
//! where they lie until compaction rewrites them: twice the bytes for a batch over partitions, none of them
//! waited for (the decision has made them good, so the copies need no sync), and in return nothing else has
//! to know about batches. A record that names a batch is never live: keydir, hints, scans and compaction pass
//! it over. Only an open has to look at it, and only if the partition was killed between decision and resolve.
//!
//! ## Invariants
//! - **BA1** An intent counts only if some partition's log has the decision of its batch and its own partition's
//!   log has no resolve of it behind it. The open that finds this copies it, with the intent's own sequence
//!   number, before anything is served (`settle.rs`). To do that twice is to do it once: whatever was written of
//!   the key since has a larger number (K3), and so has a tombstone that hides it, which stays as long as the
//!   filter of the intent's file has the key (C1), or, if it is one of a range, as long as the file has intents (TO3).
//! - **BA2** Without a decision there was no batch. A decision is written only by the open that wrote the
//!   intents, so none appears later: an abort needs no record.
//! - **BA3** A file with intents that a decision may still make count, or with a decision that others may still
//!   need, is left alone by compaction, and gets no hint, because a hint does not say what it has of these. So is a
//!   file with copies of a batch that is not published yet: who makes a key run asks the keydir for its keys (KR1).
//! - **BA4** A decision is needed until every participant's resolve is durable.
//! - **BA5** Copies that cannot be written, on a full disk, are no reason to take anything back: the keydir then
//!   points at the intents, and the next open writes the copies.
//! - **BA6** A key is locked from before its intent is staged until its copy is published, so nothing of it is
//!   written or decided in between.
//! - **BA7** A range that is deleted waits for no key. A batch comes before it if its intents do: what was seen for its
//!   conditions was there, and what it wrote in the range is hidden, here as for the next open (BA1). Upkeep is not
//!   done with a range that intents came before until their batch is published: RD1 needs to see them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::groups::{Answer, BatchAnswer, BatchRecord, Effect, Need, Pending};
use super::ledger::Amount;
use super::update::Sought;
use super::write::{record_header, record_len};
use super::{Ops, Partition};
use crate::error::{Error, Result};
use crate::keydir::Location;
use crate::log::format::record::{RecordHeader, RecordKind, body_crc};
use crate::mailbox::{
    Agreement, Batch, BatchDone, BatchEntry, Body, Condition, Deciding, Durable, EntryChange,
    Expected, Message, Part, Participation, ReplySender, batch_id, conflict,
};
use crate::planted::{Bug, is_planted};
use crate::types::{ExpiresAt, FileId, KeyHash, KeyspaceId, Seqno};

/// A batch's claim to a key.
pub(super) struct Lock {
    pub(super) batch: u64,
    pub(super) hash: KeyHash,
    pub(super) keyspace: KeyspaceId,
    pub(super) key: Bytes,
    /// Its record is looked at: there is a condition, or a range is over the key, and then the keydir does not
    /// say whether it is there.
    pub(super) looks: bool,
    pub(super) expected: Option<Expected>,
}

impl Lock {
    pub(super) fn sought(&self) -> Sought<'_> {
        let needs_value = matches!(self.expected, Some(Expected::Value(_)));
        Sought { keyspace: self.keyspace, key: &self.key, needs_value, keeps_value: false }
    }
}

/// The batches that a partition has to do with.
#[derive(Default)]
pub(super) struct Batches {
    works: HashMap<u64, Work>,
    bytes: usize,
    /// All keys of these are locked.
    ready: VecDeque<u64>,
    /// Keys whose batch has ended, for whoever waits next.
    released: Vec<KeyHash>,
    /// Decisions that are staged or on their way.
    deciding: HashMap<u64, Deciding>,
    /// Decisions in the log that may still be needed, and the file of each (BA4).
    decisions: HashMap<u64, FileId>,
    /// Files with intents that may still count, or with copies that do not count yet (BA3).
    unsettled: HashMap<u64, Vec<FileId>>,
    /// Decided, and waiting for a range over one of their keys to be published, or to fail.
    behind_ranges: Vec<u64>,
    /// Resolves that are in the log, in its order, and not known to be durable.
    resolving: VecDeque<Resolving>,
    /// Agreements of which this partition has published its part and not yet written its resolve.
    agreements: HashMap<u64, Arc<Agreement>>,
}

struct Resolving {
    file: FileId,
    end: u64,
    batch: u64,
}

/// A batch, or the part of it that this partition has, on its way.
struct Work {
    entries: Vec<BatchEntry>,
    durable: Durable,
    len_bytes: usize,
    whose: Whose,
    step: Step,
    /// Keys that are still to be locked.
    missing: usize,
    locked: Vec<KeyHash>,
    /// Keys that were looked at, and the records that were there.
    found: Found,
    /// Keys of conditions, in which a record was found.
    seen: Vec<(KeyHash, KeyspaceId, Bytes)>,
    is_conflict: bool,
    /// Why a key could not be looked at.
    error: Option<Error>,
    /// Where the records of the entries are; `None` for a key that was not there to be deleted.
    intents: Vec<Option<Location>>,
    copies: Vec<Option<Location>>,
    /// Entries that a range hides which was deleted since.
    hidden: Vec<bool>,
    /// A copy was not written (BA5).
    is_in_place: bool,
    /// The resolve is in the group that has the copies.
    is_resolve_staged: bool,
    /// Records that are staged or on their way.
    left: usize,
    /// The number of its first intent, and of its first copy; each has the next one.
    intents_from: Seqno,
    copies_from: Seqno,
    /// Room that it has taken.
    claim: Amount,
}

/// By key the record that was there, if one was.
type Found = HashMap<KeyHash, Option<Seqno>>;

enum Whose {
    /// All of it is here, and goes into one group.
    Mine(ReplySender<Result<BatchDone>>),
    Shared(Participation),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Locking,
    /// Waits for the conditions of others.
    Locked,
    Preparing,
    /// Every intent is durable.
    Prepared,
    Copying,
}

impl Batches {
    pub(super) fn is_idle(&self) -> bool {
        self.works.is_empty() && self.deciding.is_empty() && self.released.is_empty()
    }

    /// Bytes of batches that are held in memory (W5).
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn can_advance(&self, ranges_are_staged: bool) -> bool {
        !self.ready.is_empty()
            || !self.released.is_empty()
            || (!self.behind_ranges.is_empty() && !ranges_are_staged)
    }

    /// Whether a batch still wants its keys.
    pub(super) fn is_waiting(&self, batch: u64) -> bool {
        self.works.get(&batch).is_some_and(|work| work.step == Step::Locking)
    }

    /// The key is the batch's, and is as it should be, or not; false if the batch is over.
    pub(super) fn locked(
        &mut self,
        lock: &Lock,
        is_met: Result<bool>,
        found: Option<Seqno>,
    ) -> bool {
        let batch = lock.batch;
        let Some(work) = self.works.get_mut(&batch).filter(|work| work.step == Step::Locking)
        else {
            return false;
        };
        work.locked.push(lock.hash);
        if lock.looks {
            work.found.insert(lock.hash, found);
        }
        if lock.expected.is_some() && found.is_some() {
            work.seen.push((lock.hash, lock.keyspace, lock.key.clone()));
        }
        match is_met {
            Ok(is_met) => work.is_conflict |= !is_met,
            Err(error) => work.error = Some(error),
        }
        work.missing -= 1;
        if work.missing == 0 {
            self.ready.push_back(batch);
        }
        true
    }

    /// BA3.
    pub(super) fn holds(&self, file: FileId) -> bool {
        self.decisions.values().any(|of| *of == file)
            || self.unsettled.values().any(|files| files.contains(&file))
    }

    /// Whether all that the batch does anywhere is to delete.
    pub(super) fn only_deletes(&self, batch: u64) -> bool {
        let works = self.works.get(&batch).map(Work::only_deletes);
        let deciding = || self.deciding.get(&batch).map(Deciding::only_deletes);
        let agreed = || self.agreements.get(&batch).map(|agreement| agreement.only_deletes());
        works.or_else(deciding).or_else(agreed).unwrap_or(false)
    }

    /// Whether a batch has intents in the log, or on their way to it, from before `seqno`, and is neither published
    /// nor aborted.
    pub(super) fn has_intents_before(&self, seqno: Seqno) -> bool {
        self.works.values().any(|work| {
            !matches!(work.step, Step::Locking | Step::Locked) && work.intents_from < seqno
        })
    }

    /// The file has, or is going to have, intents of the batch, or copies that are not published yet.
    pub(super) fn note_records(&mut self, batch: u64, file: FileId) {
        let files = self.unsettled.entry(batch).or_default();
        if files.last() != Some(&file) {
            files.push(file);
        }
    }

    /// The file has, or is going to have, the decision.
    pub(super) fn note_decision(&mut self, batch: u64, file: FileId) {
        self.decisions.insert(batch, file);
    }

    /// Whether a sync of the log would settle anything.
    pub(super) fn has_resolving(&self) -> bool {
        !self.resolving.is_empty()
    }

    fn begin(&mut self, id: u64, work: Work) {
        self.bytes += work.len_bytes;
        self.works.insert(id, work);
    }

    /// The end of a batch here; its keys are for whoever waits next.
    fn end(&mut self, id: u64) -> Option<Work> {
        let mut work = self.works.remove(&id)?;
        self.bytes -= work.len_bytes;
        self.released.append(&mut work.locked);
        Some(work)
    }
}

impl Partition {
    /// Takes a batch from the mailbox: does it here, or gives everybody who takes part their part.
    pub(super) fn batch(&mut self, mut batch: Batch, ops: &mut Ops) {
        let refusal = self.batch_refusal(batch.parts.iter().all(Part::is_del));
        let refusal = refusal
            .or_else(|| batch.parts.iter().find_map(|part| self.space_refusal(&part.entries)));
        if let Some(error) = refusal {
            return batch.reply.send(Err(error));
        }
        let Some(id) = batch_id(self.id, self.take_seqno()) else {
            let message = "the partition has given out all numbers that batches can have; dump the store and \
                           load it into a new one";
            return batch.reply.send(Err(Error::invalid(message)));
        };
        self.view.counters.batches.add(1);
        if batch.parts.len() > 1 || !need_of(&batch.parts[0].entries).fits() {
            return Agreement::begin(id, batch, &self.config.peers);
        }
        let Some(part) = batch.parts.pop() else { return };
        if let Some(error) = self.full_refusal_of(writes_of(&part.entries)) {
            return batch.reply.send(Err(error));
        }
        let is_free = part.conditions.is_empty()
            && part.entries.iter().all(|entry| {
                let is_covered = self.is_covered((entry.body.keyspace, &entry.key));
                !is_covered && !self.parked.has(entry.hash)
            });
        if is_free {
            self.batch_here(&part.entries, &Found::new(), batch.durable, batch.reply);
        } else {
            self.batch_lock(id, part, batch.durable, Whose::Mine(batch.reply), ops);
        }
    }

    /// Does what the other partitions have asked for.
    pub(super) fn batch_messages(&mut self, ops: &mut Ops) {
        for message in self.config.peers.take(self.id) {
            match message {
                Message::Prepare(participation, part) => {
                    self.batch_prepare(participation, part, ops);
                }
                Message::Stage(id) => self.batch_intents(id),
                Message::Decide(deciding) => self.batch_decide(deciding),
                Message::Publish(id) => self.batch_copies(id),
                Message::Abort(id) => self.batch_aborted(id),
                Message::Doubt(id, error) => self.batch_in_doubt(id, &error),
                Message::Read(request) => self.get_many(request, ops),
                Message::Snapshot(marking, life) => self.snapshot_wanted(marking, life),
                Message::Backup(marking, reply) => self.backup_wanted(marking, reply),
                Message::Unpin => self.upkeep.unpin(),
                Message::Go => self.moments.go(),
                Message::SnapshotEnded => self.snapshots_prune(),
                Message::Forget(id) => {
                    if let Some(file) = self.batches.decisions.remove(&id) {
                        self.batch_settled(vec![file]);
                    }
                }
            }
        }
    }

    /// Goes on with batches whose keys are locked, and with whoever waited for one that ended.
    pub(super) fn batch_advance(&mut self, ops: &mut Ops) {
        while self.batches.can_advance(self.ranges_are_staged()) {
            if !self.ranges_are_staged() {
                for id in std::mem::take(&mut self.batches.behind_ranges) {
                    self.batch_copies(id);
                }
            }
            for hash in std::mem::take(&mut self.batches.released) {
                self.unpark(hash, ops);
            }
            if let Some(id) = self.batches.ready.pop_front() {
                self.batch_is_locked(id);
            }
        }
    }

    fn batch_refusal(&mut self, is_del: bool) -> Option<Error> {
        let poisoned = self.poisoned.clone();
        poisoned.or_else(|| if is_del { self.del_refusal() } else { self.put_refusal() })
    }

    /// A keyspace that it writes to may have been dropped.
    fn space_refusal(&self, entries: &[BatchEntry]) -> Option<Error> {
        entries.iter().find_map(|entry| self.dropped_refusal(entry.body.keyspace))
    }

    fn batch_prepare(&mut self, participation: Participation, part: Part, ops: &mut Ops) {
        if participation.agreement().is_over() {
            return participation.give_up();
        }
        if self.sealing {
            return participation.fail(&Error::closed());
        }
        let refusal = self.batch_refusal(participation.agreement().only_deletes());
        let refusal = refusal.or_else(|| self.space_refusal(&part.entries));
        if let Some(error) = refusal.or_else(|| self.full_refusal_of(writes_of(&part.entries))) {
            return participation.fail(&error);
        }
        let id = participation.agreement().id;
        self.batch_lock(id, part, Durable::Sync, Whose::Shared(participation), ops);
    }

    /// Locks the keys of a batch, or queues for those that are locked (BA6).
    fn batch_lock(&mut self, id: u64, part: Part, durable: Durable, whose: Whose, ops: &mut Ops) {
        let len_bytes = part.len_bytes();
        let Part { entries, conditions, .. } = part;
        let looked_at: HashSet<KeyHash> =
            conditions.iter().map(|condition| condition.hash).collect();
        let written = entries.iter().filter(|entry| !looked_at.contains(&entry.hash));
        let mut locks: Vec<Lock> = written
            .map(|BatchEntry { hash, key, body, .. }| Lock {
                batch: id,
                hash: *hash,
                keyspace: body.keyspace,
                key: key.clone(),
                looks: self.is_covered((body.keyspace, key)),
                expected: None,
            })
            .collect();
        locks.extend(conditions.into_iter().map(|Condition { hash, keyspace, key, expected }| {
            Lock { batch: id, hash, keyspace, key, looks: true, expected: Some(expected) }
        }));
        let count = entries.len();
        let work = Work {
            entries,
            durable,
            len_bytes,
            whose,
            step: Step::Locking,
            missing: locks.len(),
            locked: Vec::with_capacity(locks.len()),
            found: Found::new(),
            seen: Vec::new(),
            is_conflict: false,
            error: None,
            intents: vec![None; count],
            copies: vec![None; count],
            hidden: vec![false; count],
            is_in_place: false,
            is_resolve_staged: false,
            left: 0,
            intents_from: Seqno(0),
            copies_from: Seqno(0),
            claim: Amount::default(),
        };
        self.batches.begin(id, work);
        for lock in locks {
            if self.parked.has(lock.hash) {
                self.parked.push_lock(lock);
            } else {
                self.parked.begin(lock.hash);
                self.lock_try(lock, ops);
            }
        }
    }

    /// The batch is over here.
    fn batch_end(&mut self, id: u64) -> Option<Work> {
        let work = self.batches.end(id)?;
        self.unclaim(work.claim);
        Some(work)
    }

    fn batch_is_locked(&mut self, id: u64) {
        let Some(mut work) = self.batches.works.remove(&id) else { return };
        let is_conflict = work.is_conflict;
        let mut error = work.error.take();
        if error.is_none() && !is_conflict {
            // Others may have filled the room since it was looked for.
            error = self.full_refusal_of(writes_of(&work.entries));
        }
        work.claim = self.claim(writes_of(&work.entries));
        let agreement = match &work.whose {
            Whose::Shared(participation) => Some(participation.agreement().clone()),
            Whose::Mine(_) => None,
        };
        work.step = if agreement.is_some() { Step::Locked } else { work.step };
        self.batches.works.insert(id, work);
        if let Some(agreement) = agreement {
            return match error {
                Some(error) => self.batch_failed(id, &error),
                None if agreement.has_conditions() => agreement.locked(is_conflict),
                None => self.batch_intents(id),
            };
        }
        let Some(work) = self.batch_end(id) else { return };
        let is_conflict = is_conflict || self.is_overtaken(&work);
        let Whose::Mine(reply) = work.whose else { return };
        let refusal = error.or_else(|| is_conflict.then(conflict));
        let refusal = refusal.or_else(|| self.batch_refusal(only_deletes(&work.entries)));
        match refusal.or_else(|| self.space_refusal(&work.entries)) {
            Some(error) => reply.send(Err(error)),
            None => self.batch_here(&work.entries, &work.found, work.durable, reply),
        }
    }

    /// Whether the entry takes a record: there may be nothing to delete.
    fn has_effect(&self, entry: &BatchEntry) -> bool {
        entry.change != EntryChange::Del
            || self.staged_keys.is_any(entry.hash)
            || self.keydir.get(entry.hash).is_some()
    }

    /// Whether the published record of the key, if the keydir has one, is hidden by a published range. `found` are the
    /// records of those keys that were covered when they were locked; nothing was written of any since.
    fn is_hidden(&self, entry: &BatchEntry, found: &Found) -> bool {
        let cover = self.cover((entry.body.keyspace, &entry.key));
        let found = found.get(&entry.hash).copied().flatten();
        cover > Seqno(0) && found.is_none_or(|seqno| seqno < cover)
    }

    /// Whether a range was deleted since its conditions were looked at that has what they saw. Ranges wait for no key.
    fn is_overtaken(&self, work: &Work) -> bool {
        work.seen.iter().any(|(hash, keyspace, key)| {
            let full_key = (*keyspace, &key[..]);
            let found = work.found.get(hash).copied().flatten();
            // A range that is worked off already is told by what it left: nobody else takes a key that is locked.
            let is_taken = |seqno| seqno < self.cover(full_key) || self.keydir.get(*hash).is_none();
            found.is_some_and(is_taken)
                || self.ranges_are_staged() && self.is_cover_staged(full_key)
        })
    }

    /// All of a batch into one group.
    fn batch_here(
        &mut self,
        entries: &[BatchEntry],
        found: &Found,
        durable: Durable,
        reply: ReplySender<Result<BatchDone>>,
    ) {
        let done = self.batch_count(entries);
        let only_deletes = only_deletes(entries);
        let records: Vec<&BatchEntry> =
            entries.iter().filter(|entry| self.has_effect(entry)).collect();
        self.groups.make_room_together(need_of(records.iter().copied()), self.bounds);
        self.note_durable(durable);
        let is_together = records.len() > 1;
        for entry in records {
            if is_planted(Bug::BatchInPieces) {
                self.groups.close_open();
            }
            self.groups.open().has_batch |= is_together;
            // A range that is staged came after the key was locked, and so hides whatever there is.
            let is_hidden = self.is_hidden(entry, found)
                || self.ranges_are_staged()
                    && self.is_cover_staged((entry.body.keyspace, &entry.key));
            let header = entry_header(entry, None);
            let (at, len) = self.stage_here(header, &entry.body, durable);
            let hash = entry.hash;
            let effect = match entry.change {
                EntryChange::Put { expires_at } => Effect::Put { hash, at, len, expires_at },
                EntryChange::Del => Effect::Del { hash, len },
            };
            self.staged(effect, Answer::Entry(BatchRecord { is_hidden, only_deletes }));
        }
        let answer = BatchAnswer { only_deletes, done, reply };
        self.groups.wait(Answer::Batch(Box::new(answer)));
    }

    fn batch_count(&self, entries: &[BatchEntry]) -> BatchDone {
        let is_del = |entry: &&BatchEntry| entry.change == EntryChange::Del;
        let dels = entries.iter().filter(is_del).count() as u64;
        let puts = entries.len() as u64 - dels;
        self.view.counters.puts.add(puts);
        for body in entries.iter().filter(|entry| !is_del(entry)).map(|entry| &entry.body) {
            self.view.counters.put_value_bytes.add(body.raw_len());
            self.view.counters.put_stored_bytes.add(body.value_len() as u64);
        }
        self.view.counters.dels.add(dels);
        BatchDone { puts, dels, were_there: 0 }
    }

    /// Stages the intents of a batch whose keys are locked.
    fn batch_intents(&mut self, id: u64) {
        let Some(mut work) = self.batches.works.remove(&id) else { return };
        let refusal = self.batch_refusal(work.only_deletes());
        let refusal = refusal.or_else(|| self.is_overtaken(&work).then(conflict));
        if let Some(error) = refusal.or_else(|| self.space_refusal(&work.entries)) {
            self.batches.works.insert(id, work);
            return self.batch_failed(id, &error);
        }
        work.step = Step::Preparing;
        work.intents_from = self.next_seqno;
        let is_early = is_planted(Bug::DecidedEarly);
        let durable = if is_early { Durable::Written } else { Durable::Sync };
        for (index, entry) in work.entries.iter().enumerate() {
            if !self.has_effect(entry) {
                continue;
            }
            let header = entry_header(entry, Some(id));
            let (at, len) = self.stage_record(header, &entry.body, durable);
            self.batches.note_records(id, self.groups.target_file());
            let effect = Effect::Intent { batch: id, entry: index, at, len };
            self.groups.open().pending.push(Pending { effect, answer: Answer::Part });
            work.left += 1;
        }
        if work.left == 0 {
            // What was seen may not be durable yet.
            self.note_durable(Durable::Sync);
            let effect = Effect::Seen { batch: id };
            self.groups.open().pending.push(Pending { effect, answer: Answer::Part });
            work.left = 1;
        }
        self.batches.works.insert(id, work);
    }

    /// An intent is durable, at `location`; or what the batch has seen is.
    pub(super) fn batch_intent_durable(&mut self, id: u64, written: Option<(usize, Location)>) {
        let Some(work) = self.batches.works.get_mut(&id) else { return };
        if let Some((entry, location)) = written {
            work.intents[entry] = Some(location);
        }
        work.left -= 1;
        if work.left == 0 && work.step == Step::Preparing {
            work.step = Step::Prepared;
            if let Whose::Shared(participation) = &work.whose {
                participation.prepared();
            }
        }
    }

    /// This partition cannot do its part.
    pub(super) fn batch_failed(&mut self, id: u64, error: &Error) {
        // Of a group that fails, every intent says so.
        let is_undecided = self
            .batches
            .works
            .get(&id)
            .is_some_and(|work| !matches!(work.step, Step::Prepared | Step::Copying));
        if !is_undecided {
            return;
        }
        let Some(work) = self.batch_end(id) else { return };
        match work.whose {
            Whose::Mine(reply) => reply.send(Err(error.clone())),
            Whose::Shared(participation) => participation.fail(error),
        }
        self.batch_forget(id);
    }

    fn batch_aborted(&mut self, id: u64) {
        if let Some(work) = self.batch_end(id)
            && let Whose::Shared(participation) = work.whose
        {
            participation.give_up();
        }
        self.batch_forget(id);
    }

    fn batch_in_doubt(&mut self, id: u64, error: &Error) {
        if let Some(work) = self.batch_end(id)
            && let Whose::Shared(participation) = work.whose
        {
            participation.give_up();
        }
        if self.poisoned.is_none() {
            let source = std::io::Error::other(error.to_string());
            self.poison("deciding a batch that this partition takes part in", &source);
        }
    }

    /// The intents of a batch will never count, or their copies are durable.
    fn batch_forget(&mut self, id: u64) {
        let files = self.batches.unsettled.remove(&id);
        self.batch_settled(files.unwrap_or_default());
    }

    /// These files may be held by one batch less (BA3).
    fn batch_settled(&mut self, files: Vec<FileId>) {
        let listed = |file: &FileId| self.listed.find_sealed(*file).is_some();
        let free: Vec<FileId> =
            files.into_iter().filter(|file| listed(file) && !self.batches.holds(*file)).collect();
        if !free.is_empty() {
            self.upkeep.files_settled(&free);
        }
    }

    /// Stages the decision: every intent is durable (AG2).
    fn batch_decide(&mut self, mut deciding: Deciding) {
        if let Some(error) = self.batch_refusal(deciding.only_deletes()) {
            return deciding.undecided(&error);
        }
        deciding.staged();
        let id = deciding.id();
        let durable =
            if is_planted(Bug::DecisionUnsynced) { Durable::Written } else { Durable::Sync };
        let (_, len) =
            self.stage_record(control(RecordKind::BatchDecision, id), &nothing(), durable);
        self.batches.note_decision(id, self.groups.target_file());
        self.batches.deciding.insert(id, deciding);
        let effect = Effect::Decision { batch: id, len };
        self.groups.open().pending.push(Pending { effect, answer: Answer::Part });
    }

    /// The decision is durable: the batch has happened.
    pub(super) fn batch_decided(&mut self, id: u64) {
        if let Some(deciding) = self.batches.deciding.remove(&id) {
            deciding.decided();
        }
    }

    /// The group with the decision failed; if its sync did, nobody knows what the drive has (D1).
    pub(super) fn batch_undecided(&mut self, id: u64, error: &Error, is_in_doubt: bool) {
        let Some(deciding) = self.batches.deciding.remove(&id) else { return };
        if is_in_doubt {
            deciding.in_doubt(error);
        } else {
            self.batches.decisions.remove(&id);
            deciding.undecided(error);
        }
    }

    /// Stages what was intended as ordinary records, and the resolve behind them.
    fn batch_copies(&mut self, id: u64) {
        let Some(mut work) = self.batches.works.remove(&id) else { return };
        let is_behind =
            |entry: &BatchEntry| self.is_cover_staged((entry.body.keyspace, &entry.key));
        if self.ranges_are_staged() && work.entries.iter().any(is_behind) {
            self.batches.works.insert(id, work);
            return self.batches.behind_ranges.push(id);
        }
        work.step = Step::Copying;
        let Whose::Shared(participation) = &work.whose else { return };
        self.batches.agreements.insert(id, participation.agreement().clone());
        for (index, entry) in work.entries.iter().enumerate() {
            // BA7: the copy would come after the range. And in a keyspace that was dropped there must be none (RD2).
            let cover = self.cover((entry.body.keyspace, &entry.key));
            work.hidden[index] =
                cover >= work.intents_from || self.dropped_refusal(entry.body.keyspace).is_some();
        }
        let is_written = work.intents.iter().any(Option::is_some);
        if !is_written || self.poisoned.is_some() {
            work.is_in_place = is_written;
            self.batches.works.insert(id, work);
            return self.batch_publish(id);
        }
        let mut need = need_of(to_copy(&work).map(|(_, entry)| entry));
        let resolve_len = control(RecordKind::BatchResolve, id).record_len();
        need.len += u64::from(resolve_len);
        need.records += 1;
        // A resolve must not be in the log without the copies, so it is in their group or in a later one that
        // is begun when they are written.
        let is_together = need.fits();
        if is_together {
            self.groups.make_room_together(need, self.bounds);
        }
        let durable = Durable::Written;
        work.copies_from = self.next_seqno;
        let mut staged = 0;
        for (index, entry) in to_copy(&work) {
            let header = entry_header(entry, None);
            let (at, len) = if is_together {
                self.stage_here(header, &entry.body, durable)
            } else {
                self.stage_record(header, &entry.body, durable)
            };
            let effect = Effect::Copy { batch: id, entry: index, at, len };
            self.groups.open().pending.push(Pending { effect, answer: Answer::Part });
            staged += 1;
        }
        work.left = staged;
        work.is_resolve_staged = is_together;
        if is_together {
            self.batch_resolve(id, true);
        }
        self.batches.works.insert(id, work);
        if staged == 0 {
            self.batch_publish(id);
        }
    }

    /// Stages a resolve; into the open group, if room was made for it there.
    fn batch_resolve(&mut self, id: u64, has_room: bool) {
        let header = control(RecordKind::BatchResolve, id);
        let (_, len) = if has_room {
            self.stage_here(header, &nothing(), Durable::Written)
        } else {
            self.stage_record(header, &nothing(), Durable::Written)
        };
        let effect = Effect::Resolve { batch: id, len };
        self.groups.open().pending.push(Pending { effect, answer: Answer::Part });
    }

    /// A copy is written at `location`, or, with `None`, its group failed.
    pub(super) fn batch_copied(&mut self, id: u64, entry: usize, location: Option<Location>) {
        let Some(work) = self.batches.works.get_mut(&id) else { return };
        work.copies[entry] = location;
        work.is_in_place |= location.is_none();
        work.left -= 1;
        if work.left > 0 {
            if let Some(active) = &self.active {
                self.batches.note_records(id, active.data.id);
            }
            return;
        }
        let is_resolved_later = !work.is_in_place && !work.is_resolve_staged;
        self.batch_publish(id);
        if is_resolved_later && self.poisoned.is_none() {
            self.batch_resolve(id, false);
        }
    }

    /// Everything that the batch does here counts from now on, at once.
    fn batch_publish(&mut self, id: u64) {
        let Some(work) = self.batch_end(id) else { return };
        let mut done = self.batch_count(&work.entries);
        self.view.turn_epoch();
        let mut copied = 0;
        for (nth, (index, entry)) in with_intents(&work).enumerate() {
            if work.hidden[index] {
                // The range came after it, and takes the old record out of the keydir.
                let found = work.found.get(&entry.hash).map(Option::is_some);
                let was_there = || self.keydir.get(entry.hash).is_some();
                done.were_there += u64::from(found.unwrap_or_else(was_there));
                continue;
            }
            let is_hidden = self.is_hidden(entry, &work.found);
            // The next open finds a copy that was written, and takes it for newer than its intent.
            let copy = work.copies[index];
            let seqno = match copy {
                Some(_) => Seqno(work.copies_from.0 + copied),
                None => Seqno(work.intents_from.0 + nth as u64),
            };
            copied += 1;
            let Some(location) = copy.or(work.intents[index]) else { continue };
            let is_news = entry.change != EntryChange::Del || self.keydir.get(entry.hash).is_some();
            let was_there = match entry.change {
                EntryChange::Put { expires_at } => {
                    self.publish_put(entry.hash, location, expires_at, copy.is_some())
                }
                EntryChange::Del => self.publish_del(entry.hash, location, copy.is_some()),
            };
            done.were_there += u64::from(was_there && !is_hidden);
            if is_news {
                self.watch_entry(entry, RecordHeader { seqno, ..entry_header(entry, None) });
            }
        }
        self.view.turn_epoch();
        self.view.counters.keys_mortal.set(self.expiries.len() as u64);
        self.view.show_usage(&self.usage);
        if work.intents.iter().all(Option::is_none)
            && let Some(agreement) = self.batches.agreements.remove(&id)
        {
            self.batch_forget(id);
            agreement.resolved();
        }
        if work.is_in_place {
            tracing::warn!(
                partition = self.id.0,
                "a batch was committed whose records could not be written again; the next open does that"
            );
        }
        self.watch_tell();
        if let Whose::Shared(participation) = work.whose {
            participation.published(done);
        }
        self.watch_wake();
    }

    /// A resolve is in the log.
    pub(super) fn batch_resolve_written(&mut self, id: u64) {
        if let Some(active) = &self.active {
            let (file, end) = (active.data.id, active.end);
            self.batches.resolving.push_back(Resolving { file, end, batch: id });
            self.batch_resolves_durable();
        }
    }

    /// Looks which resolves are durable by now.
    pub(super) fn batch_resolves_durable(&mut self) {
        while let Some(&Resolving { file, end, batch }) = self.batches.resolving.front() {
            if !self.is_durable_through(file, end) {
                return;
            }
            self.batches.resolving.pop_front();
            self.batch_forget(batch);
            if let Some(agreement) = self.batches.agreements.remove(&batch) {
                agreement.resolved();
            }
        }
    }

    /// Sees to it that what is resolved is known to be, once a file is to be compacted or gets its hint.
    pub(super) fn batch_request_sync(&mut self) {
        if self.batches.has_resolving() && self.poisoned.is_none() {
            self.groups.request_sync();
        }
    }

    /// The partition takes no writes any more: what is not decided is not done.
    pub(super) fn batch_fail(&mut self, error: &Error) {
        let undecided: Vec<u64> = self.batches.works.keys().copied().collect();
        for id in undecided {
            self.batch_failed(id, error);
        }
    }
}

impl Work {
    /// Whether the batch does nothing else anywhere.
    fn only_deletes(&self) -> bool {
        match &self.whose {
            Whose::Shared(participation) => participation.agreement().only_deletes(),
            Whose::Mine(_) => only_deletes(&self.entries),
        }
    }
}

/// By key what there will be of it, `None` where there will be nothing.
fn writes_of(entries: &[BatchEntry]) -> impl Iterator<Item = (KeyHash, Option<u32>)> {
    entries.iter().map(|entry| match entry.change {
        EntryChange::Put { expires_at } => (entry.hash, Some(record_len(&entry.body, expires_at))),
        EntryChange::Del => (entry.hash, None),
    })
}

fn only_deletes(entries: &[BatchEntry]) -> bool {
    entries.iter().all(|entry| entry.change == EntryChange::Del)
}

/// The entries that have an intent, with their indexes.
fn with_intents(work: &Work) -> impl Iterator<Item = (usize, &BatchEntry)> {
    work.entries.iter().enumerate().filter(|(index, _)| work.intents[*index].is_some())
}

/// Those of them that are to be copied.
fn to_copy(work: &Work) -> impl Iterator<Item = (usize, &BatchEntry)> {
    with_intents(work).filter(|(index, _)| !work.hidden[*index])
}

/// What the records of these entries take.
fn need_of<'e>(entries: impl IntoIterator<Item = &'e BatchEntry>) -> Need {
    let mut need = Need::default();
    for entry in entries {
        need.len += u64::from(entry_header(entry, None).record_len());
        need.records += 1;
        need.key_bytes += u64::from(entry.body.key_len);
    }
    need
}

fn entry_header(entry: &BatchEntry, batch: Option<u64>) -> RecordHeader {
    let (kind, expires_at) = match entry.change {
        EntryChange::Put { expires_at } => (RecordKind::Put, expires_at),
        EntryChange::Del => (RecordKind::Del, None::<ExpiresAt>),
    };
    record_header(kind, &entry.body, expires_at, batch)
}

fn nothing() -> Body {
    Body::plain(KeyspaceId(0), &[], bytes::Bytes::new())
}

/// A record that is about a batch and not about a key.
pub(super) fn control(kind: RecordKind, batch: u64) -> RecordHeader {
    let header = record_header(kind, &nothing(), None, Some(batch));
    RecordHeader { body_crc: body_crc(&[], &[]), ..header }
}
