//! Operations that look before they write: decided here, because only this worker writes the key.
//!
//! What such an operation finds is the newest state of its key, staged or published. It waits, and every
//! later write of the key behind it, while that state is not at hand: while it is in a group that is on its
//! way, or in a record that has to be read from the disk. Other keys go on.
//!
//! ## Invariants
//! - **UP1** What is decided from a staged record goes into the same group, so that they fail together.
//! - **UP2** Writes of one key happen in the order they were taken from the mailbox. A range that is deleted waits
//!   for no key: it may overtake what waits there, and is seen by it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::commit::InFlight;
use super::decide::{Found, Old, Write, decide, value_len_max};
use super::groups::{Effect, Room};
use super::handles::{Opened, read};
use super::write::record_len;
use super::{Event, Ops, Partition, PartitionConfig};
use crate::error::Error;
use crate::keydir::Location;
use crate::limits::READ_NOW_LEN_MAX;
use crate::log::data_file::{Checked, DataFile, check_record};
use crate::log::format::FormatError;
use crate::log::format::data_header::Place;
use crate::log::format::record::{RECORD_HEADER_LEN_MAX, RecordKind};
use crate::mailbox::{Body, Change, Request, Update};
use crate::types::{KeyHash, KeyspaceId, Seqno};

/// Writes that wait for the state of their key.
#[derive(Default)]
pub(super) struct Parked {
    keys: HashMap<KeyHash, Queue>,
    requests: usize,
    bytes: usize,
}

struct Queue {
    waits_for: WaitsFor,
    keyspace: KeyspaceId,
    key: Bytes,
    requests: VecDeque<Request>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WaitsFor {
    /// What is staged of the key.
    Group,
    /// The record of the key.
    Record,
}

/// Where the newest state of a key is.
enum Newest {
    /// In the open group.
    Open(Effect),
    /// In a group that is on its way.
    OnItsWay,
    Published(Option<Location>),
}

impl Queue {
    fn key(&self) -> (KeyspaceId, &[u8]) {
        (self.keyspace, &self.key)
    }
}

impl Parked {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn has(&self, hash: KeyHash) -> bool {
        !self.keys.is_empty() && self.keys.contains_key(&hash)
    }

    pub(super) fn requests(&self) -> usize {
        self.requests
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, hash: KeyHash, request: Request) {
        if let Some(queue) = self.keys.get_mut(&hash) {
            self.requests += 1;
            self.bytes += request.len_bytes();
            queue.requests.push_back(request);
        }
    }

    /// Puts `update` at the head of its key's queue.
    fn park(&mut self, update: Box<Update>, waits_for: WaitsFor) {
        let hash = update.hash;
        let queue = self.keys.entry(hash).or_insert_with(|| Queue {
            waits_for,
            keyspace: update.keyspace,
            key: update.key.clone(),
            requests: VecDeque::new(),
        });
        queue.waits_for = waits_for;
        let request = Request::Update(update);
        self.requests += 1;
        self.bytes += request.len_bytes();
        queue.requests.push_front(request);
    }

    fn pop(&mut self, hash: KeyHash) -> Option<Request> {
        let request = self.keys.get_mut(&hash)?.requests.pop_front()?;
        self.requests -= 1;
        self.bytes -= request.len_bytes();
        Some(request)
    }
}

impl Partition {
    pub(super) fn update(&mut self, update: Box<Update>, ops: &mut Ops) {
        if self.parked.has(update.hash) {
            self.parked.push(update.hash, Request::Update(update));
        } else {
            self.update_try(update, ops);
        }
    }

    /// Goes on with whoever waited for a group that is no longer on its way.
    pub(super) fn update_advance(&mut self, ops: &mut Ops) {
        if self.parked.is_empty() {
            return;
        }
        let waiting = self.parked.keys.iter();
        let waiting = waiting.filter(|(_, queue)| queue.waits_for == WaitsFor::Group);
        let over = waiting.filter(|(hash, queue)| !self.is_on_its_way(**hash, queue.key()));
        let over: Vec<KeyHash> = over.map(|(hash, _)| *hash).collect();
        for hash in over {
            self.unpark(hash, ops);
        }
    }

    /// Whether [`update_advance`](Self::update_advance) would find something to do.
    pub(super) fn update_can_advance(&self) -> bool {
        self.parked.keys.iter().any(|(hash, queue)| {
            queue.waits_for == WaitsFor::Group && !self.is_on_its_way(*hash, queue.key())
        })
    }

    /// Handles what waits for a key, until one of them has to wait again.
    fn unpark(&mut self, hash: KeyHash, ops: &mut Ops) {
        while let Some(request) = self.parked.pop(hash) {
            match request {
                Request::Put { hash, body, expires_at, durable, reply } => {
                    self.put(hash, &body, expires_at, durable, reply);
                }
                Request::Del { hash, body, durable, reply } => {
                    if !self.del(hash, &body, durable, reply, ops) {
                        return;
                    }
                }
                Request::Update(update) => {
                    if !self.update_try(update, ops) {
                        return;
                    }
                }
                _ => unreachable!("only writes of a key wait for it"),
            }
        }
        self.parked.keys.remove(&hash);
    }

    /// Decides, or waits at the head of the key's queue; says which.
    pub(super) fn update_try(&mut self, update: Box<Update>, ops: &mut Ops) -> bool {
        if let Some(error) = &self.poisoned {
            update.change.fail(error);
            return true;
        }
        let refusal = if update.change.is_del() { self.del_refusal() } else { self.put_refusal() };
        if let Some(error) = refusal {
            update.change.fail(&error);
            return true;
        }
        if let Some(error) = self.dropped_refusal(update.keyspace) {
            update.change.fail(&error);
            return true;
        }
        match self.newest(update.hash, update.full_key()) {
            Newest::OnItsWay => {
                self.parked.park(update, WaitsFor::Group);
                false
            }
            Newest::Open(effect) => self.update_from_open(update, effect),
            Newest::Published(None) => {
                self.update_decide(*update, &Found::Absent);
                true
            }
            Newest::Published(Some(location))
                if location.has_expiry && self.is_expired(update.hash) =>
            {
                self.update_decide(*update, &Found::Absent);
                true
            }
            Newest::Published(Some(_))
                if !update.change.needs_record() && self.cover(update.full_key()) == Seqno(0) =>
            {
                self.update_decide(*update, &Found::Present);
                true
            }
            Newest::Published(Some(location)) => self.update_from_record(update, location, ops),
        }
    }

    fn newest(&mut self, hash: KeyHash, key: (KeyspaceId, &[u8])) -> Newest {
        if *self.staged_keys.slot(hash) > 0 || self.ranges_are_staged() {
            if let Some(effect) = self.groups.open().newest(hash, key) {
                return Newest::Open(effect);
            }
            if self.is_on_its_way(hash, key) {
                return Newest::OnItsWay;
            }
        }
        Newest::Published(self.keydir.get(hash))
    }

    fn is_on_its_way(&self, hash: KeyHash, key: (KeyspaceId, &[u8])) -> bool {
        let is_in_flight = match &self.in_flight {
            InFlight::Group(group) | InFlight::Undo(group, _) => group.newest(hash, key).is_some(),
            InFlight::None | InFlight::Pause | InFlight::Rotation => false,
        };
        is_in_flight || self.groups.is_ready(hash, key)
    }

    /// From what is staged in the open group, if the outcome fits into it too (UP1).
    fn update_from_open(&mut self, update: Box<Update>, effect: Effect) -> bool {
        let identity = self.owner.identity_of(self.groups.target_file());
        let found = match effect {
            Effect::Put { at, len, .. } => {
                let record = &self.groups.open().buf[at as usize..][..len as usize];
                let record = Bytes::copy_from_slice(record);
                let view = View { config: &self.config, cover: Seqno(0) };
                let read = found(&record, identity.at(at.into()), &update, view);
                read.expect("the record was encoded here")
            }
            Effect::Del { .. } | Effect::RangeDel { .. } | Effect::None => Found::Absent,
        };
        let value_len = value_len_max(&update.change, &found);
        let len = RECORD_HEADER_LEN_MAX + update.key.len() + value_len;
        let len = (len + self.config.codecs.overhead()) as u64;
        let room = self.groups.room_for(len, update.key.len() as u64, self.bounds);
        if room == Room::Here {
            self.update_decide(*update, &found);
            true
        } else {
            self.groups.close_open();
            self.parked.park(update, WaitsFor::Group);
            false
        }
    }

    /// From a published record: at once if it is in the page cache.
    fn update_from_record(
        &mut self,
        update: Box<Update>,
        location: Location,
        ops: &mut Ops,
    ) -> bool {
        let data = self.files.get(location.slot).expect("K1: an entry points into a file").clone();
        data.note_used(self.view.clock.load(Ordering::Relaxed));
        let view = View { config: &self.config, cover: self.cover(update.full_key()) };
        if let Some(found) = read_now(&data, location, &update, view) {
            self.update_decide(*update, &found);
            return true;
        }
        let hash = update.hash;
        self.parked.park(update, WaitsFor::Record);
        let (disk, fs, index) = (self.disk.clone(), self.fs.clone(), self.index);
        let (len, offset) = (location.len as usize, u64::from(location.offset));
        self.view.counters.reads.add(1);
        self.view.counters.read_bytes.add(len as u64);
        self.reads_in_flight += 1;
        self.reads_in_flight_bytes += len;
        ops.push(Box::pin(async move {
            let (opened, result) = read(&disk, fs, data.stored.clone(), len, offset).await;
            (index, Event::RecordRead { hash, location, data, opened, result })
        }));
        false
    }

    pub(super) fn update_read(
        &mut self,
        hash: KeyHash,
        location: Location,
        data: &Arc<DataFile>,
        opened: Opened,
        result: std::io::Result<Vec<u8>>,
        ops: &mut Ops,
    ) {
        self.handles_keep(data, opened);
        self.reads_in_flight -= 1;
        self.reads_in_flight_bytes -= location.len as usize;
        let Some(Request::Update(update)) = self.parked.pop(hash) else {
            return; // Poisoned meanwhile: everybody was told.
        };
        let newest = self.newest(hash, update.full_key());
        let is_newest =
            matches!(newest, Newest::Published(Some(_))) && self.is_at(hash, location, data);
        let refused = match result {
            // The entry moved on while its record was read: compaction does that. Or a range was deleted.
            _ if !is_newest => Ok(None),
            Err(source) => {
                let attempt = format!("read {} bytes at {} of", location.len, location.offset);
                Err(Error::io(&attempt, &data.path, source))
            }
            Ok(bytes) => {
                let view = View { config: &self.config, cover: self.cover(update.full_key()) };
                let place = data.place(u64::from(location.offset));
                match found(&Bytes::from(bytes), place, &update, view) {
                    Ok(found) => Ok(Some(found)),
                    Err(what) => {
                        let error = what.at(&data.path, u64::from(location.offset));
                        tracing::error!(partition = self.id.0, %error, "damaged record");
                        Err(error)
                    }
                }
            }
        };
        let is_over = match refused {
            Ok(Some(found)) => {
                self.update_decide(*update, &found);
                true
            }
            Ok(None) => self.update_try(update, ops),
            Err(error) => {
                update.change.fail(&error);
                true
            }
        };
        if is_over {
            self.unpark(hash, ops);
        }
    }

    fn update_decide(&mut self, update: Update, found: &Found) {
        let (hash, durable) = (update.hash, update.durable);
        let (keyspace, key) = (update.keyspace, update.key.clone());
        // Without it a full store could not be told what to forget.
        let is_expiry = matches!(update.change, Change::Expire { .. });
        let Some((write, answer)) = decide(update, found, &self.config.codecs) else { return };
        match write {
            Write::Nothing => {
                // What it saw may not be durable yet.
                self.note_durable(durable);
                self.groups.wait(answer);
            }
            Write::Put { body, expires_at } => {
                let refusal = self.full_refusal(hash, record_len(&body, expires_at));
                if let Some(error) = refusal.filter(|_| !is_expiry) {
                    return answer.fail(&error);
                }
                self.stage_put(hash, &body, expires_at, durable, answer);
            }
            Write::Del => {
                self.view.counters.dels.add(1);
                let body = Body::key_only(&self.config.codecs, keyspace, key);
                let (_, len) = self.stage(RecordKind::Del, &body, None, durable);
                self.staged(Effect::Del { hash, len }, answer);
            }
        }
    }

    /// Tells everybody who waits for the state of a key.
    pub(super) fn update_fail(&mut self, error: &Error) {
        let parked = std::mem::take(&mut self.parked);
        for request in parked.keys.into_values().flat_map(|queue| queue.requests) {
            match request {
                Request::Put { reply, .. } => reply.send(Err(error.clone())),
                Request::Del { reply, .. } => reply.send(Err(error.clone())),
                Request::Update(update) => update.change.fail(error),
                _ => unreachable!("only writes of a key wait for it"),
            }
        }
    }
}

/// What decides whether a record counts, and what it says.
#[derive(Clone, Copy)]
struct View<'a> {
    config: &'a PartitionConfig,
    /// Below this sequence number the key is deleted.
    cover: Seqno,
}

/// What a record says of the key of `update`: it may be another's, have expired, or have been deleted with a
/// range.
fn found(
    record: &Bytes,
    place: Place,
    update: &Update,
    View { config, cover }: View<'_>,
) -> Result<Found, FormatError> {
    let (keyspace, key) = update.full_key();
    Ok(match check_record(&config.codecs, record, place, keyspace, key) {
        Checked::Match { header, value }
            if !config.expiry.hides(header.expires_at()) && header.seqno >= cover =>
        {
            let body = if update.change.keeps_value() {
                let stored = record.slice(header.header_len()..value.end);
                Some(Body::renewed(&config.codecs, &header, stored)?)
            } else {
                None
            };
            let stored = record.slice(value);
            let value = if !update.change.needs_value() {
                Bytes::new()
            } else if let Some(decoded) = config.codecs.decode(&header, &stored)? {
                Bytes::from(decoded)
            } else {
                stored
            };
            let (seqno, expires_at) = (header.seqno, header.expires_at());
            Found::Record(Old { value, seqno, expires_at, body })
        }
        Checked::Match { .. } | Checked::OtherKey => Found::Absent,
        Checked::Damaged(why) => return Err(why),
    })
}

/// What the record says, if it is in the page cache and sound.
fn read_now(data: &DataFile, location: Location, update: &Update, view: View<'_>) -> Option<Found> {
    let len = location.len as usize;
    if len > READ_NOW_LEN_MAX {
        return None;
    }
    let mut bytes = vec![0; len];
    data.fill_now(&mut bytes, u64::from(location.offset))?;
    found(&Bytes::from(bytes), data.place(u64::from(location.offset)), update, view).ok()
}
