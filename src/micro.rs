//! What `benches/micro.rs` measures below the public API; no part of it.

use crate::keydir::{Aging, FileSlot, Keydir, KeydirLoader, KeydirReader, Location};
use crate::len_code::round_len;
use crate::log::format::data_header::{FileIdentity, Place};
use crate::log::format::record::{RecordHeader, decode_record, encode_record};
use crate::route::{KeyHasher, PartitionMap};
use crate::types::{KeyspaceId, Seqno};

/// Keys to partitions.
pub struct Router {
    hasher: KeyHasher,
    map: PartitionMap,
}

impl Router {
    pub fn new(partitions: u32) -> Router {
        Router { hasher: KeyHasher::new(&[7; 16]), map: PartitionMap::new(partitions) }
    }

    pub fn partition_of(&self, key: &[u8]) -> u32 {
        self.map.partition_of(self.hasher.hash(KeyspaceId::default(), key)).0
    }
}

/// One partition's keydir, with a record of 128 bytes for each key.
pub struct Index {
    hasher: KeyHasher,
    keydir: Keydir,
    reader: KeydirReader,
}

impl Index {
    pub fn new(keys: impl Iterator<Item = impl AsRef<[u8]>>) -> Index {
        let hasher = KeyHasher::new(&[7; 16]);
        let mut loader = KeydirLoader::new();
        for (number, key) in keys.enumerate() {
            let hash = hasher.hash(KeyspaceId::default(), key.as_ref());
            loader.offer(hash, Seqno(number as u64), Some(location(number as u32)));
        }
        let keydir = loader.finish(Aging::Off, |_| ());
        let reader = keydir.reader();
        Index { hasher, keydir, reader }
    }

    /// Where the key's record is.
    pub fn lookup(&self, key: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash(KeyspaceId::default(), key);
        self.reader.lookup(hash, |location| location.offset)
    }

    /// Points the key at another record.
    pub fn replace(&mut self, key: &[u8], number: u32) -> bool {
        let hash = self.hasher.hash(KeyspaceId::default(), key);
        self.keydir.upsert(hash, location(number)).is_some()
    }

    pub fn bytes_per_key(&self) -> f64 {
        self.keydir.ram_bytes() as f64 / self.keydir.len() as f64
    }
}

fn location(number: u32) -> Location {
    let offset = number % (1 << 24) * 128;
    Location { slot: FileSlot(0), offset, len: round_len(128), has_expiry: false }
}

fn place() -> Place {
    FileIdentity(7).at(4096)
}

/// Appends the record of a put, checksums included.
pub fn encode(buf: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    encode_record(buf, place(), &RecordHeader::put(1, key, value), [key, value]);
}

/// Length of the value of the record, both checksums verified.
pub fn decode(record: &[u8]) -> Option<usize> {
    decode_record(record, place()).ok().map(|record| record.value.len())
}
