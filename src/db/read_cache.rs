//! Records that were read, in memory, by where they are.
//!
//! A place in a data file never comes to hold another record, and file ids are never given twice (F1): what is kept can be of
//! no more use, when its key was written again or compaction has moved it, but never stale. Which record of a key is the
//! newest, whether it has expired and whether a range has it is asked of the keydir and the clock as ever.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::mailbox::Entry;
use crate::stats::Striped;
use crate::types::{ExpiresAt, FileId, KeyspaceId, Seqno};

/// What a record takes besides its key and value: two headers of the allocator, and a slot of the cache.
const RECORD_OVERHEAD: usize = 128;
/// A guess, which the cache sizes its tables by.
const RECORD_LEN_USUAL: usize = 512;

/// Where a record is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct At {
    pub(super) shard: u32,
    pub(super) file: FileId,
    pub(super) offset: u32,
}

/// Of the whole store; does nothing unless it was asked for.
pub(super) struct ReadCache(Option<Box<Records>>);

struct Records {
    cache: Cache<At, Record, Weight>,
    hits: Striped,
}

#[derive(Clone)]
struct Record {
    keyspace: KeyspaceId,
    /// The key, and the value behind it.
    bytes: Bytes,
    key_len: u16,
    seqno: Seqno,
    expires_at: Option<ExpiresAt>,
}

#[derive(Clone)]
struct Weight;

impl Weighter<At, Record> for Weight {
    fn weight(&self, _: &At, record: &Record) -> u64 {
        (record.bytes.len() + RECORD_OVERHEAD) as u64
    }
}

impl ReadCache {
    pub(super) fn new(bytes_max: u64) -> ReadCache {
        ReadCache((bytes_max > 0).then(|| {
            let records = usize::try_from(bytes_max).unwrap_or(usize::MAX) / RECORD_LEN_USUAL;
            let cache = Cache::with_weighter(records.max(1), bytes_max, Weight);
            Box::new(Records { cache, hits: Striped::default() })
        }))
    }

    /// The record at a place, if it is of this key.
    pub(super) fn get(&self, at: At, (keyspace, key): (KeyspaceId, &[u8])) -> Option<Entry> {
        let records = self.0.as_ref()?;
        let mut record = records.cache.get(&at)?;
        let key_len = usize::from(record.key_len);
        if record.keyspace != keyspace || record.bytes[..key_len] != *key {
            return None;
        }
        records.hits.add(1);
        record.bytes.advance(key_len);
        Some(Entry { value: record.bytes, seqno: record.seqno, expires_at: record.expires_at })
    }

    /// Keeps what was read, and checked.
    pub(super) fn put(&self, at: At, (keyspace, key): (KeyspaceId, &[u8]), entry: &Entry) {
        let (Some(records), Ok(key_len)) = (&self.0, u16::try_from(key.len())) else { return };
        let mut bytes = BytesMut::with_capacity(key.len() + entry.value.len());
        bytes.put_slice(key);
        bytes.put_slice(&entry.value);
        let (bytes, seqno, expires_at) = (bytes.freeze(), entry.seqno, entry.expires_at);
        records.cache.insert(at, Record { keyspace, bytes, key_len, seqno, expires_at });
    }

    /// Bytes that are kept, and how many gets were answered from them.
    pub(super) fn stats(&self) -> (u64, u64) {
        self.0.as_ref().map_or((0, 0), |records| (records.cache.weight(), records.hits.get()))
    }
}
