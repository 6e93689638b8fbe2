//! Bounds on what the partition holds: what is refused at them, and what is evicted.
//!
//! A write that goes beyond a bound is followed, in the same commit group, by tombstones of keys that go for it:
//! they are gone when it is there, and stay gone. The keydir holds no keys, so to write its tombstone
//! the record of a victim is read: from the page cache, or on the ring, and then the store holds a little too
//! much until that is done. Nothing ever waits for an eviction, except that no further requests are
//! taken while too much is still on its way out ([`evict_is_behind`](Partition::evict_is_behind)).
//!
//! ## Invariants
//! - **EV1** A key is evicted by a tombstone like any other: what holds of deletions holds of evictions.
//! - **EV2** No key is evicted of which something is staged or waits to be: what is decided about a key by
//!   its published record holds then, and the tombstone deletes nothing that is newer.
//! - **EV3** A partition that cannot evict what it would have to rests until something changes.

use std::sync::Arc;

use bytes::Bytes;

use super::groups::{Answer, Effect};
use super::handles::{Opened, read};
use super::ledger::{Amount, Ledger, signed};
use super::{Event, Ops, Partition};
use crate::error::{Error, ErrorKind};
use crate::keydir::{Aging, Candidate, Location};
use crate::limits::{
    EVICTION_CANDIDATES, EVICTIONS_A_TURN, EVICTIONS_READING_MAX, EVICTIONS_STAGED_MAX,
    KEY_LEN_MAX, STAGED_BYTES_MAX,
};
use crate::log::data_file::DataFile;
use crate::log::format::FormatError;
use crate::log::format::record::{RECORD_HEADER_LEN_MAX, RecordHeader, RecordKind, SEAL_LEN};
use crate::mailbox::{Body, Durable};
use crate::options::{Capacity, Eviction};
use crate::planted::{Bug, is_planted};
use crate::types::{KeyHash, KeyspaceId};

/// Of a record so much is read first: nearly always all of its key.
const HEAD_LEN: usize = 1 << 10;
/// Longest beginning of a record that holds its key.
const HEAD_LEN_MAX: usize = RECORD_HEADER_LEN_MAX + KEY_LEN_MAX + SEAL_LEN;
/// Victims that could not be read, which are left out: more damage than this is past helping.
const UNREADABLE_MAX: usize = 64;

/// What a partition with a bound has to know.
pub(super) struct Evictor {
    /// This partition's share.
    capacity: Capacity,
    ledger: Ledger,
    /// Room that batches over partitions have taken and not filled yet.
    claimed: Amount,
    random: fastrand::Rng,
    /// Victims whose records are being read, to learn their keys.
    reading: Vec<Candidate>,
    /// Tombstones that are not published yet.
    staged: usize,
    unreadable: Vec<Candidate>,
    /// EV3.
    is_resting: bool,
    /// The least by which the bounds were exceeded since the store was opened: with more than it may
    /// hold, perhaps.
    excess_least: Amount,
}

impl Capacity {
    /// What the keydir has to remember of each key.
    pub(super) fn aging(&self) -> Aging {
        match self.eviction {
            Eviction::Lru if self.is_bounded() => Aging::Lru,
            Eviction::Lfu if self.is_bounded() => Aging::Lfu,
            _ => Aging::Off,
        }
    }

    /// By how much a partition that holds `held` is beyond its bounds; negative where it is not.
    fn excess(&self, held: Amount) -> Amount {
        let over = |held: i64, max: Option<u64>| {
            let max = max.unwrap_or(u64::MAX);
            held.saturating_sub(signed(max))
        };
        Amount {
            entries: over(held.entries, self.entries_max),
            bytes: over(held.bytes, self.bytes_max),
        }
    }

    /// What may be held beyond the bounds while evictions are on their way.
    fn slack(&self) -> Amount {
        let part = |max: Option<u64>, least: u64, most: usize| {
            (max.unwrap_or(0) / 16).clamp(least, most as u64)
        };
        Amount::new(
            part(self.entries_max, 16, EVICTIONS_STAGED_MAX),
            part(self.bytes_max, 64 << 10, STAGED_BYTES_MAX),
        )
    }
}

impl Evictor {
    /// `None` if nothing is bounded.
    pub(super) fn new(capacity: Capacity, seed: u64, held: Amount) -> Option<Box<Evictor>> {
        capacity.is_bounded().then(|| {
            Box::new(Evictor {
                capacity,
                ledger: Ledger::default(),
                claimed: Amount::default(),
                random: fastrand::Rng::with_seed(seed),
                reading: Vec::new(),
                staged: 0,
                unreadable: Vec::new(),
                is_resting: false,
                excess_least: capacity.excess(held),
            })
        })
    }

    /// What was published of the key has expired, or was in a range that is deleted.
    pub(super) fn expired(&mut self, hash: KeyHash) {
        self.ledger.expired(hash);
    }

    /// Whether something is on its way that will make the partition hold less.
    fn is_moving(&self) -> bool {
        !self.reading.is_empty() || !self.ledger.is_empty()
    }

    fn is_spared(&self, candidate: &Candidate) -> bool {
        self.ledger.is_staged(candidate.hash)
            || self.reading.contains(candidate)
            || self.unreadable.contains(candidate)
    }
}

impl Partition {
    /// What the partition holds once everything that is staged is published.
    fn held(&self, evictor: &Evictor) -> Amount {
        self.published().plus(evictor.ledger.growth())
    }

    fn published(&self) -> Amount {
        Amount::new(self.keydir.len(), self.usage.total().live_bytes)
    }

    /// Says what the store was opened with, if that is more than it may hold.
    pub(super) fn evict_opened(&self) {
        let Some(evictor) = &self.evictor else { return };
        let (held, capacity) = (self.published(), evictor.capacity);
        let counters = &self.view.counters;
        counters.entries_max.set(capacity.entries_max.unwrap_or(0));
        counters.bytes_max.set(capacity.bytes_max.unwrap_or(0));
        if is_over(capacity.excess(held)) {
            tracing::info!(
                partition = self.id.0,
                keys = held.entries,
                live_bytes = held.bytes,
                entries_max = capacity.entries_max,
                bytes_max = capacity.bytes_max,
                eviction = ?capacity.eviction,
                "the partition holds more than it may"
            );
        }
    }

    /// Why a put is refused that makes the record of `hash` one of `len` bytes, if so.
    pub(super) fn full_refusal(&self, hash: KeyHash, len: u32) -> Option<Error> {
        self.full_refusal_of([(hash, Some(len))])
    }

    /// The same of writes to different keys that happen together; without a length they delete.
    pub(super) fn full_refusal_of(
        &self,
        writes: impl IntoIterator<Item = (KeyHash, Option<u32>)>,
    ) -> Option<Error> {
        let evictor = self.evictor.as_deref()?;
        let capacity = evictor.capacity;
        let mut growth = Amount::default();
        for (hash, len) in writes {
            if let Some(len) = len
                && capacity.bytes_max.is_some_and(|max| u64::from(len) > max)
            {
                let what = format!("a record of {len} bytes is longer than");
                return Some(self.full(&what, capacity, "bytes_max", "raise it"));
            }
            growth = growth.plus(self.growth_by(evictor, hash, len));
        }
        let excess = capacity.excess(self.held(evictor).plus(evictor.claimed).plus(growth));
        let bound = match excess {
            Amount { entries, .. } if entries > 0 && growth.entries > 0 => "entries_max",
            Amount { bytes, .. } if bytes > 0 && growth.bytes > 0 => "bytes_max",
            _ => return None,
        };
        let what =
            format!("{} keys in {} bytes are all of", self.keydir.len(), self.published().bytes);
        match capacity.eviction {
            Eviction::None => {
                Some(self.full(&what, capacity, bound, "delete keys, raise it, or evict"))
            }
            Eviction::Ttl if self.expiries.len() <= evictor.staged + evictor.reading.len() => {
                let cure = "none of its keys has a time to live, so delete keys, or raise it";
                Some(self.full(&what, capacity, bound, cure))
            }
            _ => None,
        }
    }

    /// What a write adds to what the partition will hold.
    fn growth_by(&self, evictor: &Evictor, hash: KeyHash, len: Option<u32>) -> Amount {
        let published = || self.keydir.get(hash).map(|location| location.len);
        let before = evictor.ledger.newest(hash, published);
        Amount::of(len).minus(Amount::of(before))
    }

    /// Takes the room that a batch needs whose keys are locked, until [`unclaim`](Self::unclaim).
    pub(super) fn claim(
        &mut self,
        writes: impl IntoIterator<Item = (KeyHash, Option<u32>)>,
    ) -> Amount {
        let Some(mut evictor) = self.evictor.take() else { return Amount::default() };
        let grown = writes.into_iter().fold(Amount::default(), |sum, (hash, len)| {
            sum.plus(self.growth_by(&evictor, hash, len))
        });
        // What it will free is nobody's before it has.
        let claim = Amount { entries: grown.entries.max(0), bytes: grown.bytes.max(0) };
        evictor.claimed = evictor.claimed.plus(claim);
        self.evictor = Some(evictor);
        claim
    }

    /// The batch has filled its room, or never will.
    pub(super) fn unclaim(&mut self, claim: Amount) {
        if let Some(evictor) = &mut self.evictor {
            evictor.claimed = evictor.claimed.minus(claim);
        }
    }

    fn full(&self, what: &str, capacity: Capacity, bound: &str, cure: &str) -> Error {
        self.view.counters.writes_full.add(1);
        let max = if bound == "entries_max" { capacity.entries_max } else { capacity.bytes_max };
        let message = format!(
            "{}: the store is full: {what} this partition's share of {bound}, {}; {cure}",
            self.dir.display(),
            max.unwrap_or(0)
        );
        Error::new(ErrorKind::Full, message)
    }

    /// Evicts, or begins to, what is too much; called after each request and whenever something ended.
    pub(super) fn evict_advance(&mut self, ops: &mut Ops) {
        for _ in 0..EVICTIONS_A_TURN {
            if !self.evict_is_due() {
                return;
            }
            if !self.evict_one(ops) {
                self.evict_rest(true);
                return;
            }
        }
    }

    /// Whether there is something to evict, and room for its tombstone.
    pub(super) fn evict_is_due(&self) -> bool {
        let Some(evictor) = self.evictor.as_deref() else { return false };
        if evictor.is_resting || evictor.capacity.eviction == Eviction::None {
            return false;
        }
        let on_its_way = evictor.reading.iter().fold(Amount::default(), |sum, candidate| {
            sum.plus(Amount::of(Some(candidate.location.len)))
        });
        is_over(evictor.capacity.excess(self.held(evictor).minus(on_its_way)))
            && evictor.staged < EVICTIONS_STAGED_MAX
            && evictor.reading.len() < EVICTIONS_READING_MAX
            && self.groups.staged_bytes() < 2 * STAGED_BYTES_MAX
            && self.poisoned.is_none()
            && !self.inbox.is_closed()
    }

    /// Whether so much is still to be evicted that no further requests are taken for now (W6 for bounds).
    pub(super) fn evict_is_behind(&self) -> bool {
        let Some(evictor) = self.evictor.as_deref() else { return false };
        if evictor.capacity.eviction == Eviction::None || !evictor.is_moving() {
            return false;
        }
        let excess = evictor.capacity.excess(self.held(evictor));
        let (least, slack) = (evictor.excess_least, evictor.capacity.slack());
        excess.entries > least.entries.max(0) + slack.entries
            || excess.bytes > least.bytes.max(0) + slack.bytes
    }

    /// Until something changes there is nothing to evict (EV3), or there may be again.
    pub(super) fn evict_rest(&mut self, is_resting: bool) {
        if let Some(evictor) = &mut self.evictor {
            evictor.is_resting = is_resting;
        }
    }

    /// Time has passed: what could not be read may be readable now.
    pub(super) fn evict_tick(&mut self) {
        if let Some(evictor) = &mut self.evictor {
            evictor.unreadable.clear();
            evictor.is_resting = false;
        }
    }

    /// False if it came to nothing.
    fn evict_one(&mut self, ops: &mut Ops) -> bool {
        if self.del_refusal().is_some() {
            return false;
        }
        let Some(victim) = self.victim() else { return false };
        let location = victim.location;
        let data = self.data_at(location);
        match self.key_now(&data, &victim) {
            Some(Ok((header, key))) => self.evict(&victim, header.keyspace, key),
            Some(Err(what)) => self.evict_unreadable(victim, &data, &what),
            None => {
                self.evict_read(victim, data, ops);
                true
            }
        }
    }

    /// The key that goes next.
    fn victim(&mut self) -> Option<Candidate> {
        let mut evictor = self.evictor.take()?;
        let mut random = evictor.random.fork();
        let is_spared = |candidate: &Candidate| evictor.is_spared(candidate);
        let victim = match evictor.capacity.eviction {
            Eviction::Ttl => {
                // Those on their way out come first, and are no more than may be staged.
                let in_order = self.expiries.iter().take(2 * EVICTIONS_STAGED_MAX);
                let mut known = in_order.filter_map(|(_, hash)| {
                    let location = self.keydir.get(hash)?;
                    Some(Candidate { hash: KeyHash { route: 0, ..hash }, location })
                });
                known.find(|candidate| !is_spared(candidate))
            }
            Eviction::Random => self.keydir.worst_of(1, &mut random, is_spared),
            _ => self.keydir.worst_of(EVICTION_CANDIDATES, &mut random, is_spared),
        };
        evictor.random = random;
        self.evictor = Some(evictor);
        victim
    }

    /// The key of an entry, if its record is in the page cache.
    pub(super) fn key_now(
        &self,
        data: &DataFile,
        victim: &Candidate,
    ) -> Option<Result<(RecordHeader, Bytes), FormatError>> {
        let len = victim.location.len as usize;
        let len_max = len.min(HEAD_LEN_MAX);
        for head_len in [HEAD_LEN.min(len_max), len_max] {
            let mut head = vec![0; head_len];
            data.fill_now(&mut head, u64::from(victim.location.offset))?;
            match self.key_of(data, victim, &head) {
                Err(FormatError::Incomplete { .. }) if head.len() < len_max => {}
                key => return Some(key),
            }
        }
        None
    }

    /// The key in the beginning of an entry's record, and the record's header. Its value is not looked at; that it is the key of
    /// the entry, 96 bits of hash say.
    pub(super) fn key_of(
        &self,
        data: &DataFile,
        victim: &Candidate,
        head: &[u8],
    ) -> Result<(RecordHeader, Bytes), FormatError> {
        let place = data.identity.at(u64::from(victim.location.offset));
        let (header, _) = RecordHeader::decode(head, place)?;
        let (start, len) = (header.header_len(), usize::from(header.key_len));
        // What an encrypted key is opened with stands behind it.
        let end = start + len + if header.is_sealed() { SEAL_LEN } else { 0 };
        let body = head.get(start..end).ok_or(FormatError::Incomplete { need: end })?;
        let (stored_key, seal) = body.split_at(len);
        let key = self.config.codecs.key(&header, stored_key, seal)?;
        let key = &key[..];
        let hash = self.hasher.hash(header.keyspace, key);
        if (KeyHash { route: 0, ..hash }) == victim.hash {
            Ok((header, Bytes::copy_from_slice(key)))
        } else {
            Err(FormatError::invalid("the record is of another key than its keydir entry"))
        }
    }

    fn evict_read(&mut self, victim: Candidate, data: Arc<DataFile>, ops: &mut Ops) {
        let (disk, fs, index) = (self.disk.clone(), self.fs.clone(), self.index);
        let len = head_len(victim.location);
        self.note_read(len as u64);
        if let Some(evictor) = &mut self.evictor {
            evictor.reading.push(victim);
        }
        ops.push(Box::pin(async move {
            let offset = u64::from(victim.location.offset);
            let (opened, result) = read(&disk, fs, data.stored.clone(), len, offset).await;
            (index, Event::VictimRead { victim, data, opened, result })
        }));
    }

    pub(super) fn evict_read_done(
        &mut self,
        victim: Candidate,
        data: &DataFile,
        opened: Opened,
        result: std::io::Result<Vec<u8>>,
    ) {
        self.handles_keep(data, opened);
        let Some(evictor) = &mut self.evictor else { return };
        evictor.reading.retain(|reading| *reading != victim);
        evictor.is_resting = false;
        // The entry may have moved on, or gone, or be about to (EV2).
        let is_still_due = self.is_at(victim.hash, victim.location, data)
            && !self.evictor.as_ref().is_some_and(|evictor| evictor.is_spared(&victim))
            && self.evict_is_due();
        if !is_still_due {
            return;
        }
        let key = match result {
            Ok(head) => self.key_of(data, &victim, &head).map_err(|what| what.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let _left_to_the_next_turn = match key {
            Ok((header, key)) => self.evict(&victim, header.keyspace, key),
            Err(what) => self.evict_unreadable(victim, data, &what),
        };
    }

    /// A victim whose key cannot be told is left out, or it would be chosen again and again.
    fn evict_unreadable(
        &mut self,
        victim: Candidate,
        data: &DataFile,
        what: &dyn std::fmt::Display,
    ) -> bool {
        tracing::error!(
            partition = self.id.0,
            path = %data.path.display(),
            offset = victim.location.offset,
            error = %what,
            "cannot evict a key, because its record cannot be read"
        );
        let Some(evictor) = &mut self.evictor else { return false };
        let has_room = evictor.unreadable.len() < UNREADABLE_MAX;
        if has_room {
            evictor.unreadable.push(victim);
        }
        has_room
    }

    /// Stages the tombstone (EV1).
    fn evict(&mut self, victim: &Candidate, keyspace: KeyspaceId, key: Bytes) -> bool {
        let hash = self.hasher.hash(keyspace, &key);
        if self.parked.has(hash) {
            return false; // EV2
        }
        if is_planted(Bug::EvictionUnlogged) {
            self.usage.expired(victim.location);
            self.expiries.set(hash, None);
            return self.keydir.remove(hash).is_some();
        }
        let body = Body::key_only(&self.config.codecs, keyspace, key);
        let (_, len) = self.stage(RecordKind::Del, &body, None, Durable::Written);
        self.staged(Effect::Del { hash, len }, Answer::Evicted);
        if let Some(evictor) = &mut self.evictor {
            evictor.staged += 1;
        }
        true
    }

    /// A record was staged.
    pub(super) fn evict_staged(&mut self, effect: Effect) {
        let Some(evictor) = &mut self.evictor else { return };
        if let Some(hash) = effect.hash() {
            let published = self.keydir.get(hash).map(|location| location.len);
            evictor.ledger.staged(effect, published);
        }
    }

    /// A staged record was published.
    pub(super) fn evict_published(&mut self, effect: Effect, answer: &Answer) {
        let Some(evictor) = &mut self.evictor else { return };
        evictor.ledger.published(effect);
        evictor.is_resting = false;
        if matches!(answer, Answer::Evicted) {
            evictor.staged -= 1;
            self.keydir.note_evicted();
        }
    }

    /// A staged record failed.
    pub(super) fn evict_failed(&mut self, effect: Effect, answer: &Answer) {
        let Some(evictor) = &mut self.evictor else { return };
        evictor.ledger.unstaged(effect);
        evictor.staged -= usize::from(matches!(answer, Answer::Evicted));
    }

    /// A group was published: what was evicted with it is told, and the bounds are held against what is left.
    pub(super) fn evict_tell(&mut self, evicted: u64) {
        let published = self.published();
        if let Some(evictor) = &mut self.evictor {
            let excess = evictor.capacity.excess(published);
            let least = &mut evictor.excess_least;
            least.entries = least.entries.min(excess.entries);
            least.bytes = least.bytes.min(excess.bytes);
        }
        if evicted > 0 {
            self.view.counters.evicted.add(evicted);
            tracing::debug!(
                partition = self.id.0,
                evicted,
                keys = published.entries,
                live_bytes = published.bytes,
                "keys were evicted"
            );
        }
    }

    /// What was published of the key has expired.
    pub(super) fn evict_expired(&mut self, hash: KeyHash) {
        if let Some(evictor) = &mut self.evictor {
            evictor.expired(hash);
        }
    }

    /// Whether victims are being read.
    pub(super) fn evict_is_idle(&self) -> bool {
        self.evictor.as_ref().is_none_or(|evictor| evictor.reading.is_empty())
    }
}

/// Of a record so many bytes hold its key.
pub(super) fn head_len(location: Location) -> usize {
    (location.len as usize).min(HEAD_LEN_MAX)
}

fn is_over(excess: Amount) -> bool {
    excess.entries > 0 || excess.bytes > 0
}
