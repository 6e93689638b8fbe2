//! The hop-free read: a get answered on the caller's thread (G1, G2).
//!
//! Look up under the table's read lock, load the table of open files while the entry is known to be
//! there, read without blocking, check both checksums and the whole key, decode the value. Whatever is not
//! plain success goes to the worker, who alone may call something damaged. A look-up while a batch is published
//! may show a part of it, so it goes to the worker too, who answers between batches (B1).

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::Shared;
use super::read_cache::At;
use crate::keydir::Location;
use crate::limits::{READ_COPY_LEN_MAX, READ_NOW_LEN_MAX};
use crate::log::codec::Codecs;
use crate::log::data_file::{Checked, DataFile, check_record};
use crate::log::format::record::RecordHeader;
use crate::mailbox::Entry;
use crate::moment::Place;
use crate::planted::{Bug, is_planted};
use crate::types::{FileId, KeyHash, KeyspaceId, Seqno};

pub(super) enum ReadNow {
    Found(Entry),
    /// The keydir has no such key.
    Missing,
    /// Ask the worker.
    Hop,
}

pub(super) fn read_now(
    shared: &Shared,
    shard: usize,
    hash: KeyHash,
    key: (KeyspaceId, &[u8]),
    is_use: bool,
) -> ReadNow {
    let view = &shared.partitions[shard].view;
    let epoch = view.epoch();
    if epoch % 2 == 1 {
        return ReadNow::Hop;
    }
    // Before the look-up: the other way round a range could be worked off in between (RG2).
    let cover = view.ranges.cover(key.0, key.1);
    let found = view.keydir.lookup_as(hash, is_use, |location| (location, view.files.load()));
    if view.epoch() != epoch {
        return ReadNow::Hop;
    }
    let Some((location, files)) = found else {
        view.gets_hop_free.add(1);
        view.gets_missing.add(1);
        return ReadNow::Missing;
    };
    let entry =
        files.get(location.slot).and_then(|data| read_at(shared, shard, data, location, key));
    match entry {
        Some(entry) if shared.expiry.hides(entry.expires_at) || is_hidden(&entry, cover) => {
            view.gets_hop_free.add(1);
            view.gets_missing.add(1);
            ReadNow::Missing
        }
        Some(entry) => {
            view.gets_hop_free.add(1);
            ReadNow::Found(entry)
        }
        None => ReadNow::Hop,
    }
}

/// Whether a range that was deleted since has the entry.
fn is_hidden(entry: &Entry, cover: Seqno) -> bool {
    entry.seqno < cover && !is_planted(Bug::RangeIgnoredByReaders)
}

/// The entry at a place that somebody holds on to, if its record is in the page cache.
pub(super) fn read_place(
    shared: &Shared,
    shard: usize,
    place: &Place,
    key: (KeyspaceId, &[u8]),
) -> Option<Entry> {
    let entry = read_at(shared, shard, &place.data, place.location, key)?;
    shared.partitions[shard].view.gets_hop_free.add(1);
    Some(entry)
}

/// The entry of a record, if that is in memory and is what it should be.
fn read_at(
    shared: &Shared,
    shard: usize,
    data: &DataFile,
    location: Location,
    key: (KeyspaceId, &[u8]),
) -> Option<Entry> {
    let file = if is_planted(Bug::CachedByOffset) { FileId(0) } else { data.id };
    let at = At { shard: shard as u32, file, offset: location.offset };
    // What is locked costs no more to read than to find in the read cache.
    let is_cached = !data.is_locked();
    if is_cached && let Some(entry) = shared.read_cache.get(at, key) {
        return Some(entry);
    }
    data.note_used(shared.partitions[shard].view.clock.load(Ordering::Relaxed));
    let entry = read_record(data, &shared.codecs, location, key)?;
    if is_cached {
        shared.read_cache.put(at, key, &entry);
    }
    Some(entry)
}

/// The entry, if the record is in the page cache and is what it should be.
fn read_record(
    data: &DataFile,
    codecs: &Codecs,
    location: Location,
    key: (KeyspaceId, &[u8]),
) -> Option<Entry> {
    thread_local! {
        /// Grows to the longest record this thread has read, at most `READ_COPY_LEN_MAX`.
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    let len = location.len as usize;
    if len > READ_NOW_LEN_MAX {
        return None;
    }
    if len > READ_COPY_LEN_MAX {
        let mut bytes = vec![0; len];
        let (header, value) = read_checked(data, codecs, location, key, &mut bytes)?;
        let value = match codecs.decode(&header, &bytes[value.clone()]).ok()? {
            Some(decoded) => Bytes::from(decoded),
            None => Bytes::from(bytes).slice(value),
        };
        return Some(Entry::new(value, &header));
    }
    // A copy, so that a short value does not keep a longer buffer alive.
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < len {
            scratch.resize(len, 0);
        }
        let (header, value) = read_checked(data, codecs, location, key, &mut scratch[..len])?;
        let stored = &scratch[value];
        let decoded = codecs.decode(&header, stored).ok()?;
        let value = decoded.map_or_else(|| Bytes::copy_from_slice(stored), Bytes::from);
        Some(Entry::new(value, &header))
    })
}

fn read_checked(
    data: &DataFile,
    codecs: &Codecs,
    location: Location,
    key: (KeyspaceId, &[u8]),
    bytes: &mut [u8],
) -> Option<(RecordHeader, Range<usize>)> {
    let offset = u64::from(location.offset);
    data.fill_now(bytes, offset)?;
    match check_record(codecs, bytes, data.place(offset), key.0, key.1) {
        Checked::Match { header, value } => Some((header, value)),
        Checked::OtherKey | Checked::Damaged(_) => None,
    }
}
