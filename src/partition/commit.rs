//! Group commit: the log's only writer.
//!
//! ```text
//! stage     requests are encoded into the open group            (write.rs)
//! submit    one write, and one sync if anybody asked for it
//! publish   every key of the group, in sequence order
//! reply     to everybody
//! ```
//!
//! While a group is in flight the next one fills up: nobody waits for a timer, and the longer a sync
//! takes the more share it.
//!
//! How a group is made durable: a DSYNC write makes only its own range durable, so it is used only
//! when everything before the group is durable already, and only inside space whose zeros are on disk,
//! where the drive needs no metadata for it (W2, W3). Otherwise: write, then fdatasync.

use std::time::{Duration, Instant};

use super::groups::{Answer, Effect, Group, Pending};
use super::watch::Reading;
use super::{Event, Ops, Partition, nanos_since};
use crate::error::Error;
use crate::io::WriteMode;
use crate::keydir::Location;
use crate::log::format::group::GROUP_HEADER_LEN;
use crate::planted::{Bug, is_planted};
use crate::types::{ExpiresAt, FileId, KeyHash};

/// A group up to this long is made durable by one DSYNC write if it can be.
const DSYNC_LEN_MAX: u64 = 256 << 10;
/// A group up to this many bytes may be written by the worker itself ([`Here`]).
const HERE_LEN_MAX: u64 = 64 << 10;
/// A worker that stood still for longer than this leaves off.
const HERE_TIME_MAX: Duration = Duration::from_millis(1);
/// So many groups then go through the ring.
const HERE_BACKOFF_GROUPS: u32 = 64;

/// What the log is busy with.
pub(super) enum InFlight {
    None,
    /// A group is being written, or synced; its buffer is with the operation (U1).
    Group(Group),
    /// A group failed, by this error, and its header is being zeroed; nobody is told before that.
    Undo(Group, Error),
    /// Nothing, until compaction has caught up a little (W6).
    Pause,
    /// The log moves to a new file, or is being sealed for good.
    Rotation,
}

impl Partition {
    pub(super) fn commit_advance(&mut self, ops: &mut Ops) {
        self.moments_mark();
        if self.moments.is_held() {
            return;
        }
        while matches!(self.in_flight, InFlight::None) {
            let Some(front) = self.groups.front() else { break };
            let (file, len, has_records) = (front.file, front.len(), front.has_records());
            let active = self.active.as_ref().map(|active| active.data.id);
            if has_records && active != Some(file) {
                if self.may_leave_file() {
                    self.rotate(ops);
                }
                return;
            }
            if has_records && self.prewrite_would_overlap(len) {
                return;
            }
            if has_records && !self.pause.is_zero() {
                return self.commit_pause(ops);
            }
            let Some(group) = self.groups.pop() else { break };
            if has_records {
                self.commit_submit(group, ops);
            } else {
                self.commit_barrier(group, ops);
            }
        }
        let is_left = matches!(self.in_flight, InFlight::None)
            && self.groups.is_empty()
            && self.active.as_ref().is_some_and(|active| self.is_to_be_sealed(active.data.id));
        if is_left && self.may_leave_file() && self.poisoned.is_none() {
            return self.seal(ops);
        }
        self.prewrite_advance(ops);
    }

    /// Whether somebody wants this file sealed, though nothing is to be written to another one.
    fn is_to_be_sealed(&self, file: FileId) -> bool {
        self.upkeep.compactor.sealing() == Some(file) || self.backups.is_sealing(file)
    }

    fn commit_pause(&mut self, ops: &mut Ops) {
        let (disk, index) = (self.disk.clone(), self.index);
        let pause = std::mem::take(&mut self.pause);
        self.view.counters.throttled_nanos.add(pause.as_nanos() as u64);
        self.in_flight = InFlight::Pause;
        ops.push(Box::pin(async move {
            disk.pause(pause).await;
            (index, Event::Paused)
        }));
    }

    pub(super) fn commit_paused(&mut self) {
        if matches!(self.in_flight, InFlight::Pause) {
            self.in_flight = InFlight::None;
        }
    }

    /// Zeros that are still being written would land behind the cut of the old file; and `FILES` changes
    /// by one hand at a time (CM2).
    fn may_leave_file(&self) -> bool {
        !self.prewrite.is_in_flight() && !self.upkeep.compactor.is_listing()
    }

    /// One write, and a sync unless nobody asked or the write brings its own.
    fn commit_submit(&mut self, mut group: Group, ops: &mut Ops) {
        let active = self.active.as_ref().expect("a group is submitted to the active file");
        let (disk, file, index) = (self.disk.clone(), active.file.clone(), self.index);
        let payload_len = (group.buf.len() - GROUP_HEADER_LEN) as u32;
        let header =
            active.chain.group(payload_len, group.payload_crc, group.record_count, active.durable);
        let (encoded, header_crc) = header.encode(active.data.identity);
        group.buf[..GROUP_HEADER_LEN].copy_from_slice(&encoded);
        group.header_crc = header_crc;
        group.place(active.data.identity, active.end);

        group.needs_sync &= !is_planted(Bug::AckBeforeSync);
        self.submitted_at = Instant::now();
        let start = active.end;
        let dsync = group.needs_sync
            && (active.durable == start || is_planted(Bug::DsyncCoversAll))
            && start + group.len() <= active.prewritten
            && group.len() <= DSYNC_LEN_MAX;
        let mode = if dsync { WriteMode::Dsync } else { WriteMode::Plain };
        let sync = group.needs_sync && !dsync;
        if group.needs_sync {
            self.prewrite.note_group(group.len());
        } else {
            self.prewrite.note_unsynced_group();
        }
        if dsync {
            self.view.counters.commits_dsync.add(1);
        }
        let is_for_one = group.is_lone() && self.inbox.is_empty();
        let may_wait = is_for_one || dsync && self.here.is_alone;
        let is_short = group.len() <= HERE_LEN_MAX && !sync;
        let buf = std::mem::take(&mut group.buf);
        if is_short && may_wait && ops.is_empty() && self.here.is_worth_it() {
            let started = Instant::now();
            if let Some(result) = disk.write_here(&file, &buf, start, mode) {
                if !is_for_one {
                    self.here.note(started.elapsed());
                }
                self.in_flight = InFlight::Group(group);
                return self.commit_done(result, dsync, buf, ops);
            }
        }
        self.in_flight_len = buf.len() as u64;
        self.in_flight = InFlight::Group(group);
        ops.push(Box::pin(async move {
            let (result, buf) = disk.write(&file, buf, start, mode).await;
            let event = match result {
                Ok(()) if sync => {
                    let mut result = disk.sync(&file).await;
                    if result.is_err() && is_planted(Bug::FailedSyncRetried) {
                        result = disk.sync(&file).await;
                    }
                    Event::Committed { result, at_sync: true, buf }
                }
                result => Event::Committed { result, at_sync: dsync, buf },
            };
            (index, event)
        }));
    }

    /// A group without records: replies, after a sync if one was asked for and is needed.
    fn commit_barrier(&mut self, group: Group, ops: &mut Ops) {
        let unsynced = self.active.as_ref().filter(|active| active.durable < active.end);
        let Some(active) = unsynced.filter(|_| group.needs_sync) else {
            return self.commit_publish(group, 0);
        };
        let (disk, file, index) = (self.disk.clone(), active.file.clone(), self.index);
        self.in_flight_len = 0;
        self.in_flight = InFlight::Group(group);
        ops.push(Box::pin(async move {
            let result = disk.sync(&file).await;
            (index, Event::Committed { result, at_sync: true, buf: Vec::new() })
        }));
    }

    pub(super) fn commit_done(
        &mut self,
        result: std::io::Result<()>,
        at_sync: bool,
        buf: Vec<u8>,
        ops: &mut Ops,
    ) {
        self.in_flight_len = 0;
        let InFlight::Group(mut group) = std::mem::replace(&mut self.in_flight, InFlight::None)
        else {
            return; // Poisoned meanwhile: everybody was told.
        };
        group.buf = buf;
        match result {
            Ok(()) => {
                let start = self.commit_written(&group, at_sync);
                self.pause = self.compaction_pause(self.submitted_at.elapsed());
                self.commit_publish(group, start);
            }
            Err(error) if at_sync => {
                self.in_flight = InFlight::Group(group);
                self.poison("a sync of the log", &error);
            }
            Err(error) => self.commit_undo(group, &error, ops),
        }
    }

    /// The log is longer now; returns where the group began.
    fn commit_written(&mut self, group: &Group, synced: bool) -> u64 {
        let active = self.active.as_mut().expect("the file written to stays until rotation");
        let start = active.end;
        if group.has_records() {
            active.end += group.len();
            active.data.set_records_end(active.end);
            active.chain.advance(group.header_crc);
            active.record_count += u64::from(group.record_count);
            active.seqno_min = active.seqno_min.min(group.seqno_min);
            active.seqno_max = active.seqno_max.max(group.seqno_max);
            self.view.show_seqno_max(active.seqno_max);
        }
        if synced {
            active.durable = active.end;
            active.data.set_durable_end(Some(active.end));
        }
        self.unsynced = active.durable < active.end;
        let counters = &self.view.counters;
        if synced {
            counters.syncs.add(1);
        }
        if group.has_records() {
            counters.commits.add(1);
            counters.commit_records.add(u64::from(group.record_count));
            counters.commit_bytes.add(group.len());
            counters.log_bytes.add(group.len());
        }
        start
    }

    /// Every key in sequence order (K4), then every reply.
    fn commit_publish(&mut self, mut group: Group, start: u64) {
        let slot = self.active.as_ref().map(|active| active.slot);
        let mut evicted = 0;
        let place = |at: u32, len: u32, has_expiry: bool| {
            let slot = slot.expect("a published record is in the active file");
            Location { slot, offset: (start + u64::from(at)) as u32, len, has_expiry }
        };
        if group.has_batch {
            self.view.turn_epoch();
        }
        let identity = self.active.as_ref().map(|active| active.data.identity);
        let mut reading = self.config.watchers.now().zip(identity).map(|(watchers, identity)| {
            let records = group.buf.get(GROUP_HEADER_LEN..).unwrap_or_default();
            Reading::begin(watchers, records, identity.at(start + GROUP_HEADER_LEN as u64))
        });
        self.keydir.warm(group.pending.iter().filter_map(|pending| pending.effect.hash()));
        // Of the batch whose records come now.
        let mut were_there = 0;
        for Pending { effect, answer } in &mut group.pending {
            // A tombstone may be of a key that was not there, where keys look alike while they are staged.
            let is_news = match (&reading, *effect) {
                (Some(_), Effect::Del { hash, .. }) => self.keydir.get(hash).is_some(),
                _ => true,
            };
            let was_there = match *effect {
                Effect::Put { hash, at, len, expires_at } => {
                    *self.staged_keys.slot(hash) -= 1;
                    let location = place(at, len, expires_at.is_some());
                    self.publish_put(hash, location, expires_at, true)
                }
                Effect::Del { hash, len } => {
                    *self.staged_keys.slot(hash) -= 1;
                    let was_there = self.publish_del(hash, place(0, len, false), true);
                    evicted += u64::from(matches!(answer, Answer::Evicted) && was_there);
                    was_there
                }
                Effect::RangeDel { index, len } => {
                    self.usage.del(place(0, len, false).slot, len, None);
                    self.ranges_published(&group.ranges[index as usize]);
                    false
                }
                Effect::Intent { batch, entry, at, len } => {
                    let location = place(at, len, false);
                    self.usage.records(location.slot, 1, u64::from(len));
                    self.batch_intent_durable(batch, Some((entry, location)));
                    false
                }
                Effect::Seen { batch } => {
                    self.batch_intent_durable(batch, None);
                    false
                }
                Effect::Copy { batch, entry, at, len } => {
                    self.batch_copied(batch, entry, Some(place(at, len, false)));
                    false
                }
                Effect::Decision { batch, len } => {
                    self.usage.records(place(0, len, false).slot, 1, u64::from(len));
                    self.batch_decided(batch);
                    false
                }
                Effect::Resolve { batch, len } => {
                    self.usage.records(place(0, len, false).slot, 1, u64::from(len));
                    self.batch_resolve_written(batch);
                    false
                }
                Effect::None => false,
            };
            match answer {
                Answer::WasThere(_, answer) => *answer = was_there,
                Answer::Entry(of) => were_there += u64::from(was_there && !of.is_hidden),
                Answer::Batch(answer) => answer.done.were_there = std::mem::take(&mut were_there),
                Answer::Done(_) | Answer::Decided(_) | Answer::Part | Answer::Evicted => {}
            }
            self.evict_published(*effect, answer);
            if let Some(reading) = &mut reading {
                self.watch_record(reading, (*effect, answer), is_news, &group.ranges);
            }
        }
        if !group.ranges.is_empty() {
            self.ranges_show(group.ranges.len());
        }
        self.evict_tell(evicted);
        if group.has_batch {
            self.view.turn_epoch();
        }
        self.batch_resolves_durable();
        self.view.counters.keys_mortal.set(self.expiries.len() as u64);
        self.view.show_usage(&self.usage);
        if let Some(staged_at) = group.staged_at {
            self.view.counters.commit_latency.record(nanos_since(staged_at));
        }
        if !is_planted(Bug::WatchToldLate) {
            self.watch_tell();
        }
        for pending in group.pending.drain(..) {
            pending.answer.send();
        }
        self.watch_tell();
        self.watch_wake();
        self.config.watchers.log_grown();
        self.groups.recycle(group);
    }

    /// The record at `location` is the newest of its key from now on; whether the key was there before. One that
    /// is not `new` was counted already, as nothing.
    pub(super) fn publish_put(
        &mut self,
        hash: KeyHash,
        location: Location,
        expires_at: Option<ExpiresAt>,
        is_new: bool,
    ) -> bool {
        let location = Location { has_expiry: expires_at.is_some(), ..location };
        self.snapshots_note(hash);
        let was_expired = self.is_expired(hash);
        let old = self.keydir.upsert(hash, location);
        self.expiries.set(hash, expires_at);
        if is_new {
            self.usage.put(location, old.filter(|_| !is_planted(Bug::DeadUncounted)));
        } else {
            self.usage.revived(location, old);
        }
        old.is_some() && !was_expired
    }

    /// The key is deleted, by the tombstone at `location`; whether it was there.
    pub(super) fn publish_del(&mut self, hash: KeyHash, location: Location, is_new: bool) -> bool {
        self.snapshots_note(hash);
        let old = self.keydir.remove(hash);
        if is_new {
            self.usage.del(location.slot, location.len, old);
        } else {
            self.usage.superseded(old);
        }
        let was_there = old.is_some() && !self.is_expired(hash);
        self.expiries.set(hash, None);
        was_there
    }

    /// A write failed: its header is zeroed, so that what did reach the disk can never come alive, and then
    /// its callers are told (D1).
    fn commit_undo(&mut self, group: Group, error: &std::io::Error, ops: &mut Ops) {
        let active = self.active.as_ref().expect("the file written to stays until rotation");
        let (disk, file, index) = (self.disk.clone(), active.file.clone(), self.index);
        let (path, start) = (active.data.path.clone(), active.end);
        self.view.counters.commits_failed.add(1);
        let copied = match error.raw_os_error() {
            Some(errno) => std::io::Error::from_raw_os_error(errno),
            None => std::io::Error::new(error.kind(), error.to_string()),
        };
        let told = Error::io(&format!("write {} bytes to", group.len()), &path, copied);
        tracing::warn!(partition = self.id.0, error = %told, "commit group failed");
        self.groups.forget(&group);
        self.in_flight = InFlight::Undo(group, told);
        ops.push(Box::pin(async move {
            // No more than was written: on a full disk there is no space for a byte behind it.
            let written = file.len().map_or(u64::MAX, |len| len.saturating_sub(start));
            let zeros = vec![0; written.min(GROUP_HEADER_LEN as u64) as usize];
            let result = if zeros.is_empty() || is_planted(Bug::FailedGroupLeft) {
                Ok(())
            } else {
                disk.write(&file, zeros, start, WriteMode::Plain).await.0
            };
            (index, Event::Undone { result })
        }));
    }

    pub(super) fn commit_undone(&mut self, result: std::io::Result<()>) {
        if let Err(error) = result {
            return self.poison("zeroing a commit group that could not be written", &error);
        }
        let in_flight = std::mem::replace(&mut self.in_flight, InFlight::None);
        if let InFlight::Undo(group, error) = in_flight {
            let file = group.file;
            if let Some(retry) = self.fail_or_retry(vec![group], file, &error) {
                self.groups.push_front(retry);
            }
        }
        self.compaction_request_sync();
    }
}

/// Whether a group is written by the worker itself, without the way through the ring and back, which costs a
/// quarter of a lone caller's durable put.
///
/// A worker that waits for the drive does nothing else, so it does that only while no operation of its
/// partitions is under way; for a lone caller, whom nobody is behind; or for one DSYNC write of its only
/// partition, since what comes in meanwhile would have to wait for that anyway. It leaves off for a while when the
/// drive was slow for more than a lone caller, and when there is something to read, which would not have to wait.
#[derive(Default)]
pub(super) struct Here {
    /// The worker has no other partition.
    is_alone: bool,
    /// Groups that still go through the ring.
    backoff: u32,
}

impl Here {
    pub(super) fn be_alone(&mut self) {
        self.is_alone = true;
    }

    pub(super) fn leave_off(&mut self) {
        self.backoff = HERE_BACKOFF_GROUPS;
    }

    fn is_worth_it(&mut self) -> bool {
        self.backoff = self.backoff.saturating_sub(1);
        self.backoff == 0
    }

    fn note(&mut self, took: Duration) {
        if took > HERE_TIME_MAX {
            self.leave_off();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_drive_and_reads_send_groups_through_the_ring_for_a_while() {
        let mut here = Here::default();
        let mut through_the_ring = |leave_off: &dyn Fn(&mut Here)| {
            leave_off(&mut here);
            let count = (0..1_000).position(|_| here.is_worth_it());
            assert!(here.is_worth_it());
            count
        };
        assert_eq!(through_the_ring(&|_| ()), Some(0));
        assert_eq!(through_the_ring(&|here| here.note(HERE_TIME_MAX)), Some(0));
        let some = Some(HERE_BACKOFF_GROUPS as usize - 1);
        assert_eq!(through_the_ring(&|here| here.note(HERE_TIME_MAX * 2)), some);
        assert_eq!(through_the_ring(&Here::leave_off), some);
    }
}
