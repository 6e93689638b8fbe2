//! Telling watchers what is published, while it is published.
//!
//! Keys and values come from the group's buffer, which has every record of it, so nothing is kept for watchers while
//! nobody watches. The events of a group are told together, before its callers are answered; whoever waits for
//! them is woken after that.

use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;

use super::Partition;
use super::groups::{Answer, Effect};
use crate::log::format::FormatError;
use crate::log::format::data_header::Place;
use crate::log::format::record::RecordHeader;
use crate::mailbox::{BatchEntry, Changed, EntryChange, Event, Watcher, raw_len};
use crate::ranges::RangeDel;
use crate::types::{KeyspaceId, PartitionId, Seqno};

/// What is published and not told yet, and who is to be woken.
#[derive(Default)]
pub(super) struct Telling {
    events: Vec<Event>,
    wakers: Vec<Waker>,
}

/// A group that is being published, record by record.
pub(super) struct Reading<'g> {
    watchers: Arc<Vec<Arc<Watcher>>>,
    /// The records that are still to come, and where the first of them is.
    rest: &'g [u8],
    place: Place,
}

impl<'g> Reading<'g> {
    pub(super) fn begin(watchers: Arc<Vec<Arc<Watcher>>>, rest: &'g [u8], place: Place) -> Self {
        Reading { watchers, rest, place }
    }

    /// The next record: its header, and key and value as they are stored.
    fn next(&mut self) -> Result<(RecordHeader, &'g [u8], &'g [u8]), FormatError> {
        let (header, _) = RecordHeader::decode(self.rest, self.place)?;
        let len = header.record_len() as usize;
        let incomplete = FormatError::Incomplete { need: len };
        let Some((record, rest)) = self.rest.split_at_checked(len) else { return Err(incomplete) };
        (self.rest, self.place) = (rest, self.place.plus(len));
        let (key, rest) = record[header.header_len()..].split_at(usize::from(header.key_len));
        Ok((header, key, &rest[..header.value_len as usize]))
    }
}

impl Partition {
    /// The next record of a group has just been published.
    pub(super) fn watch_record(
        &mut self,
        reading: &mut Reading<'_>,
        (effect, answer): (Effect, &Answer),
        is_news: bool,
        ranges: &[RangeDel],
    ) {
        if !effect.has_record() {
            return;
        }
        let event = reading.next().and_then(|(header, stored_key, stored)| {
            let (keyspace, seqno) = (header.keyspace, header.seqno);
            let event = |change| Some(Event { keyspace, seqno, change });
            if !is_news {
                return Ok(None);
            }
            Ok(match effect {
                Effect::Put { .. } | Effect::Del { .. } => {
                    let key = self.config.codecs.key(&header, stored_key, stored)?;
                    let Some(len_max) = wanted(&reading.watchers, keyspace, &key) else {
                        return Ok(None);
                    };
                    let key = Bytes::copy_from_slice(&key);
                    event(match (effect, answer) {
                        (Effect::Put { .. }, _) => {
                            let stored = (raw_len(&header) <= len_max as u64)
                                .then(|| Bytes::copy_from_slice(stored));
                            Changed::Put { key, header: Box::new(header), stored }
                        }
                        (_, Answer::Evicted) => Changed::Evicted { key },
                        _ => Changed::Del { key },
                    })
                }
                Effect::RangeDel { index, .. } => {
                    event(range_del(&ranges[index as usize], self.id))
                }
                // Of a batch that is told when it is published.
                Effect::Intent { .. }
                | Effect::Copy { .. }
                | Effect::Seen { .. }
                | Effect::Decision { .. }
                | Effect::Resolve { .. }
                | Effect::None => None,
            })
        });
        match event {
            Ok(event) => self.watch.events.extend(event),
            Err(error) => self.watch_missed(&error.to_string()),
        }
    }

    /// A write of a batch over partitions has just been published.
    pub(super) fn watch_entry(&mut self, entry: &BatchEntry, header: RecordHeader) {
        let Some(watchers) = self.config.watchers.now() else { return };
        let keyspace = header.keyspace;
        let stored = entry.body.value();
        let key = match self.config.codecs.key(&header, entry.body.key(), &stored) {
            Ok(key) => key,
            Err(error) => return self.watch_missed(&error.to_string()),
        };
        let Some(len_max) = wanted(&watchers, keyspace, &key) else { return };
        // Records that stay where the intents are may be hidden by a range that was deleted meanwhile (BA5).
        if self.cover((keyspace, &key)) > header.seqno {
            return;
        }
        let key = Bytes::copy_from_slice(&key);
        let change = match entry.change {
            EntryChange::Put { .. } => {
                let stored = (raw_len(&header) <= len_max as u64).then_some(stored);
                Changed::Put { key, header: Box::new(header), stored }
            }
            EntryChange::Del => Changed::Del { key },
        };
        self.watch.events.push(Event { keyspace, seqno: header.seqno, change });
    }

    /// A key was taken out because it has expired.
    pub(super) fn watch_expired(&mut self, keyspace: KeyspaceId, key: Bytes, seqno: Seqno) {
        self.watch.events.push(Event { keyspace, seqno, change: Changed::Expired { key } });
    }

    /// Something was published, or taken out, of which nobody knows the key.
    pub(super) fn watch_missed(&mut self, why: &str) {
        tracing::error!(partition = self.id.0, why, "watchers miss an event");
        self.watch_tell();
        for watcher in self.config.watchers.now().iter().flat_map(|all| all.iter()) {
            self.watch.wakers.extend(watcher.miss(1));
        }
    }

    /// Tells what was published so far.
    pub(super) fn watch_tell(&mut self) {
        if self.watch.events.is_empty() {
            return;
        }
        for watcher in self.config.watchers.now().iter().flat_map(|all| all.iter()) {
            self.watch.wakers.extend(watcher.tell(&self.watch.events));
        }
        self.watch.events.clear();
        self.watch.events.shrink_to(64);
    }

    /// Wakes whoever waits for what was told.
    pub(super) fn watch_wake(&mut self) {
        self.watch.wakers.drain(..).for_each(Waker::wake);
    }
}

/// Whether anybody watches the key, and the longest value that any of them wants.
pub(super) fn wanted(watchers: &[Arc<Watcher>], keyspace: KeyspaceId, key: &[u8]) -> Option<usize> {
    let interests = watchers.iter().map(|watcher| watcher.interest());
    interests.filter(|interest| interest.is_in(keyspace, key)).map(|one| one.value_len_max).max()
}

fn range_del(range: &RangeDel, partition: PartitionId) -> Changed {
    Changed::RangeDel { begin: range.begin.clone(), end: range.end.clone(), partition }
}
