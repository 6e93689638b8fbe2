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

use bytes::Bytes;

use super::batch::Lock;
use super::commit::InFlight;
use super::decide::{Found, Old, Write, decide, is_as_expected, value_len_max};
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
    /// Those whose head waits for a group; the others are told when their time has come.
    for_groups: HashMap<KeyHash, (KeyspaceId, Bytes)>,
    requests: usize,
    bytes: usize,
}

type Queue = VecDeque<Waiting>;

/// What waits for its turn with a key.
enum Waiting {
    Write(Request),
    Lock(Lock),
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

impl Waiting {
    fn sought(&self) -> Sought<'_> {
        match self {
            Waiting::Write(Request::Update(update)) => update.sought(),
            Waiting::Lock(lock) => lock.sought(),
            Waiting::Write(_) => unreachable!("only what looks first waits for the state of a key"),
        }
    }

    fn full_key(&self) -> (KeyspaceId, Bytes) {
        let Sought { keyspace, key, .. } = self.sought();
        (keyspace, Bytes::copy_from_slice(key))
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
        self.put_in(hash, Waiting::Write(request), VecDeque::push_back);
    }

    /// Puts a batch's claim to a key behind whatever waits for the key.
    pub(super) fn push_lock(&mut self, lock: Lock) {
        self.put_in(lock.hash, Waiting::Lock(lock), VecDeque::push_back);
    }

    /// A queue for a key that has none, held by whoever looks at the key now.
    pub(super) fn begin(&mut self, hash: KeyHash) {
        self.keys.insert(hash, Queue::new());
    }

    /// Puts what came to its turn back to the head of its key's queue.
    fn park(&mut self, hash: KeyHash, waiting: Waiting, waits_for: WaitsFor) {
        self.keys.entry(hash).or_default();
        if waits_for == WaitsFor::Group {
            self.for_groups.insert(hash, waiting.full_key());
        }
        self.put_in(hash, waiting, VecDeque::push_front);
    }

    fn put_in(
        &mut self,
        hash: KeyHash,
        waiting: Waiting,
        put: fn(&mut VecDeque<Waiting>, Waiting),
    ) {
        let Some(queue) = self.keys.get_mut(&hash) else { return };
        if let Waiting::Write(request) = &waiting {
            self.requests += 1;
            self.bytes += request.len_bytes();
        }
        put(queue, waiting);
    }

    fn pop(&mut self, hash: KeyHash) -> Option<Waiting> {
        let waiting = self.keys.get_mut(&hash)?.pop_front()?;
        self.for_groups.remove(&hash);
        if let Waiting::Write(request) = &waiting {
            self.requests -= 1;
            self.bytes -= request.len_bytes();
        }
        Some(waiting)
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
        if self.parked.for_groups.is_empty() {
            return;
        }
        let waiting = self.parked.for_groups.iter();
        let over =
            waiting.filter(|(hash, (space, key))| !self.is_on_its_way(**hash, (*space, key)));
        let over: Vec<KeyHash> = over.map(|(hash, _)| *hash).collect();
        for hash in over {
            self.unpark(hash, ops);
        }
    }

    /// Whether [`update_advance`](Self::update_advance) would find something to do.
    pub(super) fn update_can_advance(&self) -> bool {
        let mut waiting = self.parked.for_groups.iter();
        waiting.any(|(hash, (space, key))| !self.is_on_its_way(*hash, (*space, key)))
    }

    /// Handles what waits for a key, until one of them has to wait again.
    pub(super) fn unpark(&mut self, hash: KeyHash, ops: &mut Ops) {
        while let Some(waiting) = self.parked.pop(hash) {
            let request = match waiting {
                Waiting::Write(request) => request,
                Waiting::Lock(lock) => {
                    if self.lock_try(lock, ops) {
                        return;
                    }
                    continue;
                }
            };
            match request {
                Request::Put { hash, body, expires_at, durable, reply } => {
                    self.put(hash, &body, expires_at, durable, reply);
                }
                Request::Del { hash, body, durable, reply } => {
                    if !self.del(hash, body, durable, reply, ops) {
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
        // It may have been what could not be evicted (EV2).
        self.evict_rest(false);
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
                self.park(update, WaitsFor::Group);
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
                let read = found(&record, identity.at(at.into()), update.sought(), view);
                read.expect("the record was encoded here")
            }
            _ => Found::Absent,
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
            self.park(update, WaitsFor::Group);
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
        let data = self.data_to_read(location);
        let view = View { config: &self.config, cover: self.cover(update.full_key()) };
        if let Some(found) = read_now(&data, location, update.sought(), view) {
            self.update_decide(*update, &found);
            return true;
        }
        let hash = update.hash;
        self.park(update, WaitsFor::Record);
        self.record_read(hash, location, data, ops);
        false
    }

    fn park(&mut self, update: Box<Update>, waits_for: WaitsFor) {
        self.parked.park(update.hash, Waiting::Write(Request::Update(update)), waits_for);
    }

    /// Reads the record that the head of a key's queue waits for.
    fn record_read(
        &mut self,
        hash: KeyHash,
        location: Location,
        data: Arc<DataFile>,
        ops: &mut Ops,
    ) {
        let (disk, fs, index) = (self.disk.clone(), self.fs.clone(), self.index);
        let (len, offset) = (location.len as usize, u64::from(location.offset));
        self.note_read(len as u64);
        self.reads_in_flight += 1;
        self.reads_in_flight_bytes += len;
        ops.push(Box::pin(async move {
            let (opened, result) = read(&disk, fs, data.stored.clone(), len, offset).await;
            (index, Event::RecordRead { hash, location, data, opened, result })
        }));
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
        let Some(waiting) = self.parked.pop(hash) else {
            return; // Poisoned meanwhile: everybody was told.
        };
        let read = self.judge_read(hash, location, data, result, waiting.sought());
        let is_over = match (waiting, read) {
            (Waiting::Write(Request::Update(update)), Ok(Some(found))) => {
                self.update_decide(*update, &found);
                true
            }
            (Waiting::Write(Request::Update(update)), Ok(None)) => self.update_try(update, ops),
            (Waiting::Write(Request::Update(update)), Err(error)) => {
                update.change.fail(&error);
                true
            }
            (Waiting::Lock(lock), Ok(None)) => !self.lock_try(lock, ops),
            (Waiting::Lock(lock), Ok(Some(found))) => !self.lock_decide(&lock, Ok(&found)),
            (Waiting::Lock(lock), Err(error)) => !self.lock_decide(&lock, Err(error)),
            (Waiting::Write(_), _) => unreachable!("only what looks first waits for a record"),
        };
        if is_over {
            self.unpark(hash, ops);
        }
    }

    /// What a record that was read says; `None` if it is to be looked for again.
    fn judge_read(
        &mut self,
        hash: KeyHash,
        location: Location,
        data: &DataFile,
        result: std::io::Result<Vec<u8>>,
        sought: Sought<'_>,
    ) -> Result<Option<Found>, Error> {
        let newest = self.newest(hash, (sought.keyspace, sought.key));
        let is_newest =
            matches!(newest, Newest::Published(Some(_))) && self.is_at(hash, location, data);
        if !is_newest {
            // The entry moved on while its record was read: compaction does that. Or a range was deleted.
            return Ok(None);
        }
        let bytes = result.map_err(|source| {
            let attempt = format!("read {} bytes at {} of", location.len, location.offset);
            Error::io(&attempt, &data.path, source)
        })?;
        let view = View { config: &self.config, cover: self.cover((sought.keyspace, sought.key)) };
        let place = data.place(u64::from(location.offset));
        found(&Bytes::from(bytes), place, sought, view).map(Some).map_err(|what| {
            let error = what.at(&data.path, u64::from(location.offset));
            tracing::error!(partition = self.id.0, %error, "damaged record");
            error
        })
    }

    /// Gives the key to the batch whose turn it is, once its condition can be looked at; false if the batch
    /// is over, and the next in the queue has its turn.
    pub(super) fn lock_try(&mut self, lock: Lock, ops: &mut Ops) -> bool {
        if !self.batches.is_waiting(lock.batch) {
            return false;
        }
        if !lock.looks {
            return self.lock_decide(&lock, Ok(&Found::Present));
        }
        let full_key = (lock.sought().keyspace, lock.sought().key);
        let location = match self.newest(lock.hash, full_key) {
            Newest::Published(location) => location,
            on_its_way => {
                // Only what is published was seen by whoever set the condition, and only that has its place.
                if matches!(on_its_way, Newest::Open(_)) {
                    self.groups.close_open();
                }
                self.parked.park(lock.hash, Waiting::Lock(lock), WaitsFor::Group);
                return true;
            }
        };
        let location =
            location.filter(|location| !(location.has_expiry && self.is_expired(lock.hash)));
        let Some(location) = location else { return self.lock_decide(&lock, Ok(&Found::Absent)) };
        let data = self.data_to_read(location);
        let view = View { config: &self.config, cover: self.cover(full_key) };
        if let Some(found) = read_now(&data, location, lock.sought(), view) {
            return self.lock_decide(&lock, Ok(&found));
        }
        let hash = lock.hash;
        self.parked.park(hash, Waiting::Lock(lock), WaitsFor::Record);
        self.record_read(hash, location, data, ops);
        true
    }

    fn lock_decide(&mut self, lock: &Lock, found: Result<&Found, Error>) -> bool {
        let found_seqno = match found {
            Ok(Found::Record(old)) => Some(old.seqno),
            _ => None,
        };
        let is_met = found.map(|found| {
            lock.expected.as_ref().is_none_or(|expected| is_as_expected(expected, found))
        });
        self.batches.locked(lock, is_met, found_seqno)
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
        for waiting in parked.keys.into_values().flatten() {
            match waiting {
                Waiting::Write(Request::Put { reply, .. }) => reply.send(Err(error.clone())),
                Waiting::Write(Request::Del { reply, .. }) => reply.send(Err(error.clone())),
                Waiting::Write(Request::Update(update)) => update.change.fail(error),
                // Its batch is told itself.
                Waiting::Lock(_) => {}
                Waiting::Write(_) => unreachable!("only writes of a key wait for it"),
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

/// What somebody wants to know of a key.
#[derive(Clone, Copy)]
pub(super) struct Sought<'a> {
    pub(super) keyspace: KeyspaceId,
    pub(super) key: &'a [u8],
    /// Also the value, and not only that there is one.
    pub(super) needs_value: bool,
    /// What is stored is written again.
    pub(super) keeps_value: bool,
}

impl Update {
    fn sought(&self) -> Sought<'_> {
        let (keyspace, key) = self.full_key();
        let (needs_value, keeps_value) = (self.change.needs_value(), self.change.keeps_value());
        Sought { keyspace, key, needs_value, keeps_value }
    }
}

/// What a record says of the key that is sought: it may be another's, have expired, or have been deleted with a
/// range.
fn found(
    record: &Bytes,
    place: Place,
    sought: Sought<'_>,
    View { config, cover }: View<'_>,
) -> Result<Found, FormatError> {
    Ok(match check_record(&config.codecs, record, place, sought.keyspace, sought.key) {
        Checked::Match { header, value } if config.shows(&header, cover) => {
            let body = if sought.keeps_value {
                let stored = record.slice(header.header_len()..value.end);
                Some(Body::renewed(&config.codecs, &header, stored)?)
            } else {
                None
            };
            let stored = record.slice(value);
            let value = if !sought.needs_value {
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
fn read_now(
    data: &DataFile,
    location: Location,
    sought: Sought<'_>,
    view: View<'_>,
) -> Option<Found> {
    let len = location.len as usize;
    if len > READ_NOW_LEN_MAX {
        return None;
    }
    let mut bytes = vec![0; len];
    data.fill_now(&mut bytes, u64::from(location.offset))?;
    found(&Bytes::from(bytes), data.place(u64::from(location.offset)), sought, view).ok()
}
