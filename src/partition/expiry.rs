//! Keys that have expired: hidden by every read at once, taken out of the keydir by and by.
//!
//! Nothing is written for that. The expired record is its own tombstone: it shadows what is older, also
//! through restart, until compaction finds that nothing older is left (C1).
//!
//! Whoever watches is told of each key that is taken out. The keydir does not know it, so while anybody watches the record
//! is read first: from the page cache, or some at a time on the ring, and then the key is taken out when
//! that is done, if it is still due.
//!
//! ## Invariants
//! - **T1** While wall clock and boot clock disagree nothing is taken out or dropped for having expired;
//!   reads hide it all the same.

use std::sync::Arc;

use super::eviction::head_len;
use super::handles::{Opened, read};
use super::{Event, Ops, Partition};
use crate::keydir::{Candidate, Location};
use crate::limits::EXPIRED_READING_MAX;
use crate::log::data_file::DataFile;
use crate::log::format::FormatError;
use crate::log::format::record::RecordHeader;
use crate::types::KeyHash;

/// Keys taken out in one turn of the worker: some tenths of a millisecond.
const EXPIRED_A_TURN: usize = 1024;
/// The same while somebody watches, because each of them is read.
const EXPIRED_A_TURN_WATCHED: usize = 128;

impl Partition {
    /// Whether the key has an expiry, and that is past.
    pub(super) fn is_expired(&self, hash: KeyHash) -> bool {
        self.expiries.get(hash).is_some_and(|at| self.config.expiry.is_past(at))
    }

    /// Takes out some keys that have expired.
    pub(super) fn expiry_advance(&mut self, ops: &mut Ops) {
        if !self.expiry_has_work() {
            return;
        }
        if self.config.watchers.now().is_some() {
            self.expiry_advance_watched(ops);
            self.watch_tell();
            self.watch_wake();
        } else {
            for _ in 0..EXPIRED_A_TURN {
                let Some((at, hash)) = self.expiries.first() else { break };
                if !self.config.expiry.is_over(at) {
                    break;
                }
                self.expire(hash);
            }
        }
        self.expiry_tell();
    }

    fn expiry_advance_watched(&mut self, ops: &mut Ops) {
        let due = self.expiries.iter().take(EXPIRED_A_TURN_WATCHED + EXPIRED_READING_MAX);
        let due = due.take_while(|(at, _)| self.config.expiry.is_over(*at));
        let due = due.map(|(_, hash)| hash).filter(|hash| !self.expiring.contains(hash));
        let due: Vec<KeyHash> = due.collect();
        for hash in due {
            let Some(location) = self.keydir.get(hash) else {
                self.expire(hash);
                continue;
            };
            let expired = Candidate { hash, location };
            let data = self.data_at(location);
            match self.key_now(&data, &without_route(expired)) {
                Some(key) => self.expire_told(hash, location, key),
                None if self.expiring.len() < EXPIRED_READING_MAX => {
                    self.expiry_read(expired, data, ops);
                }
                None => break,
            }
        }
    }

    fn expiry_read(&mut self, expired: Candidate, data: Arc<DataFile>, ops: &mut Ops) {
        let (disk, fs, index) = (self.disk.clone(), self.fs.clone(), self.index);
        let len = head_len(expired.location);
        self.note_read(len as u64);
        self.expiring.push(expired.hash);
        ops.push(Box::pin(async move {
            let offset = u64::from(expired.location.offset);
            let (opened, result) = read(&disk, fs, data.stored.clone(), len, offset).await;
            (index, Event::ExpiredRead { expired, data, opened, result })
        }));
    }

    pub(super) fn expiry_read_done(
        &mut self,
        expired: Candidate,
        data: &DataFile,
        opened: Opened,
        result: std::io::Result<Vec<u8>>,
    ) {
        self.handles_keep(data, opened);
        let Candidate { hash, location } = expired;
        self.expiring.retain(|reading| *reading != hash);
        let at = self.expiries.get(hash);
        // It may have been written, moved or deleted meanwhile; what is still due comes again.
        if !self.is_at(hash, location, data) || !at.is_some_and(|at| self.config.expiry.is_over(at))
        {
            return;
        }
        let key = match result {
            Ok(head) => self.key_of(data, &without_route(expired), &head),
            Err(error) => Err(FormatError::Invalid(error.to_string().into())),
        };
        self.expire_told(hash, location, key);
        self.expiry_tell();
        self.watch_tell();
        self.watch_wake();
    }

    /// Takes a key out and tells it, unless a range that was deleted had it before.
    fn expire_told(
        &mut self,
        hash: KeyHash,
        location: Location,
        key: Result<(RecordHeader, bytes::Bytes), FormatError>,
    ) {
        self.expire(hash);
        match key {
            Ok((header, key)) if self.cover((header.keyspace, &key)) <= header.seqno => {
                self.watch_expired(header.keyspace, key, header.seqno);
            }
            Ok(_) => {}
            Err(error) => {
                let path = &self.data_at(location).path;
                let why = format!("{} at offset {}: {error}", path.display(), location.offset);
                self.watch_missed(&why);
            }
        }
    }

    fn expire(&mut self, hash: KeyHash) {
        self.expiries.set(hash, None);
        self.snapshots_note(hash);
        if let Some(location) = self.keydir.remove(hash) {
            self.usage.expired(location);
            self.evict_expired(hash);
            self.view.counters.expired.add(1);
        }
    }

    fn expiry_tell(&mut self) {
        self.view.counters.keys_mortal.set(self.expiries.len() as u64);
        self.view.show_usage(&self.usage);
        self.upkeep.compactor.look();
    }

    /// Whether there are keys to take out now.
    pub(super) fn expiry_has_work(&self) -> bool {
        // Those that are being read come first, or soon.
        let mut due = self.expiries.iter().take(self.expiring.len() + 1);
        due.any(|(at, hash)| !self.expiring.contains(&hash) && self.config.expiry.is_over(at))
            && self.expiring.len() < EXPIRED_READING_MAX
    }
}

/// As keys are compared with what their records say.
fn without_route(candidate: Candidate) -> Candidate {
    Candidate { hash: KeyHash { route: 0, ..candidate.hash }, ..candidate }
}
