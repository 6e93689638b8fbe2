//! Data files and `FILES` as the format describes them, read without the engine's code. Only ever given bytes
//! that are known to be sound, so nothing is checked but that.

use std::collections::{BTreeMap, BTreeSet};

pub(crate) const FILE_HEADER_LEN: usize = 128;
pub(crate) const GROUP_HEADER_LEN: usize = 48;
const RECORD_HEADER_LEN: usize = 32;
/// Longer ones a layout does not have, but for a single record.
pub(crate) const DATA_FILE_LEN_MAX: usize = 4096;

/// A record and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) at: usize,
    /// With header, key and value, without padding.
    pub(crate) len: usize,
    pub(crate) seqno: u64,
    pub(crate) key: Vec<u8>,
    /// `None` for a tombstone; as its caller gave it.
    pub(crate) value: Option<Vec<u8>>,
    /// Where the range ends, if it is a range tombstone; nothing where it has no end.
    end: Option<Vec<u8>>,
    pub(crate) partition: u32,
    /// The batch that it is about.
    batch: Option<u64>,
    pub(crate) is_decision: bool,
    pub(crate) is_resolve: bool,
}

/// Before the keys of the one keyspace besides the default one, where both are in one map: no other key begins so.
const IN_SPACE: &[u8] = b"\xff\xfein space: ";

/// The key as it is known here.
pub(crate) fn full_key(in_space: bool, key: &[u8]) -> Vec<u8> {
    if in_space { [IN_SPACE, key].concat() } else { key.to_vec() }
}

/// Whether it is in the keyspace, and its own bytes.
pub(crate) fn split_key(key: &[u8]) -> (bool, &[u8]) {
    key.strip_prefix(IN_SPACE).map_or((false, key), |key| (true, key))
}

impl Record {
    pub(crate) fn is_range(&self) -> bool {
        self.end.is_some()
    }

    /// What counts by itself, whatever is known of batches.
    pub(crate) fn is_plain(&self) -> bool {
        self.batch.is_none()
    }

    /// What only counts once its batch is decided, and until it is resolved.
    pub(crate) fn is_intent(&self) -> bool {
        self.batch.is_some() && !self.is_control()
    }

    pub(crate) fn is_control(&self) -> bool {
        self.is_decision || self.is_resolve
    }

    /// Whether it decides what happens to that intent.
    pub(crate) fn decides(&self, intent: &Record) -> bool {
        self.is_decision && self.batch == intent.batch
    }

    /// Whether it says anything of the key, if that is of its partition.
    pub(crate) fn concerns(&self, key: &[u8]) -> bool {
        match &self.end {
            Some(end) => {
                let ((of, begin), (in_space, key)) = (split_key(&self.key), split_key(key));
                of == in_space && begin <= key && (end.is_empty() || *key < **end)
            }
            None => *self.key == *key,
        }
    }
}

/// A commit group, or the closing mark, which has no records.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) at: usize,
    pub(crate) end: usize,
    pub(crate) number: u64,
    pub(crate) durable_through: u64,
    pub(crate) records: Vec<Record>,
}

/// A data file, taken apart.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) bytes: Vec<u8>,
    pub(crate) groups: Vec<Group>,
    /// It ends in a closing mark.
    pub(crate) is_closed: bool,
}

impl Log {
    pub(crate) fn of(bytes: &[u8]) -> Log {
        let mut groups: Vec<Group> = Vec::new();
        let mut at = FILE_HEADER_LEN;
        let mut is_closed = false;
        while !is_closed && matches!(bytes.get(at + 4..at + 8), Some(b"RGRP" | b"REND")) {
            is_closed = &bytes[at + 4..at + 8] == b"REND";
            let end = at + GROUP_HEADER_LEN + u32_at(bytes, at + 28) as usize;
            let mut records = Vec::new();
            let mut record_at = at + GROUP_HEADER_LEN;
            for _ in 0..u32_at(bytes, at + 36) {
                let (record, padded) = record_of(bytes, record_at, u32_at(bytes, 32));
                records.push(record);
                record_at += padded;
            }
            assert_eq!(record_at, end, "the parser reads groups as they were written");
            let (number, durable_through) = (u64_at(bytes, at + 16), u64_at(bytes, at + 40));
            groups.push(Group { at, end, number, durable_through, records });
            at = end;
        }
        Log { bytes: bytes.to_vec(), groups, is_closed }
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.groups.iter().flat_map(|group| &group.records)
    }
}

/// The record at `at`, and how many bytes it takes.
fn record_of(bytes: &[u8], at: usize, partition: u32) -> (Record, usize) {
    let extension = u16_at(bytes, at + 30) as usize;
    let key_at = at + RECORD_HEADER_LEN + extension;
    let key_end = key_at + u16_at(bytes, at + 24) as usize;
    let value_end = key_end + u32_at(bytes, at + 16) as usize;
    let (mut key, mut stored) =
        (bytes[key_at..key_end].to_vec(), bytes[key_end..value_end].to_vec());
    let (compression, encryption) = (bytes[at + 27] % 16, bytes[at + 27] / 16);
    // Of the extension's fields the length comes last.
    let raw_len = if compression == 0 { u64::MAX } else { u64_at(bytes, key_at - 8) };
    if encryption == 1 {
        let value_len = (stored.len() - 64) as u64;
        let about = [
            &bytes[at + 20..at + 24],
            &bytes[at + 26..at + 28],
            &bytes[at + 24..at + 26],
            &value_len.to_le_bytes(),
            &raw_len.to_le_bytes(),
        ]
        .concat();
        (key, stored) = cipher::open(&about, &key, &stored);
    }
    let kind = bytes[at + 26];
    let end = (kind == 3).then(|| stored.clone());
    let (is_decision, is_resolve) = (kind == 4, kind == 5);
    let flags = u16_at(bytes, at + 28);
    let batch_at = at + RECORD_HEADER_LEN + if flags & 1 == 0 { 0 } else { 8 };
    let batch = (flags & 2 != 0).then(|| u64_at(bytes, batch_at));
    let in_space = u32_at(bytes, at + 20) > 0;
    let key = if is_decision || is_resolve { Vec::new() } else { full_key(in_space, &key) };
    let value = (kind == 1).then(|| match compression {
        0 => stored,
        1 => decompressed(&stored, raw_len as usize),
        _ => panic!("no layout has a record of compression {compression}"),
    });
    let seqno = u64_at(bytes, at + 8);
    let len = value_end - at;
    let record =
        Record { at, len, seqno, key, value, end, partition, batch, is_decision, is_resolve };
    (record, padded(len))
}

/// The key of encrypted layouts.
pub(crate) const KEY: [u8; 32] = *b"thirty-two bytes of a test's key";

#[cfg(feature = "encryption")]
mod cipher {
    use chacha20poly1305::aead::inout::InOutBuf;
    use chacha20poly1305::{AeadInOut, Key, KeyInit, XChaCha20Poly1305, XNonce};

    /// The keys for keys and for values, from the keystream of the store's.
    fn derived() -> [XChaCha20Poly1305; 2] {
        let mut stream = [0; 64];
        let nonce = XNonce::from(*b"ringcask key derivation1");
        let cipher = XChaCha20Poly1305::new(&Key::from(super::KEY));
        cipher.encrypt_inout_detached(&nonce, &[], InOutBuf::from(&mut stream[..])).unwrap();
        let key = |at: usize| Key::try_from(&stream[at..at + 32]).unwrap();
        [XChaCha20Poly1305::new(&key(0)), XChaCha20Poly1305::new(&key(32))]
    }

    pub(super) fn open(about: &[u8], key: &[u8], stored: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let [of_keys, of_values] = derived();
        let nonce = XNonce::try_from(&stored[8..32]).unwrap();
        let (key_tag, value_tag) = (&stored[32..48], &stored[48..64]);
        let (mut key, mut value) = (key.to_vec(), stored[64..].to_vec());
        let tag = |bytes: &[u8]| bytes.try_into().unwrap();
        let into = |bytes| InOutBuf::<u8>::from(bytes);
        of_keys.decrypt_inout_detached(&nonce, about, into(&mut key[..]), &tag(key_tag)).unwrap();
        let about = [about, key_tag].concat();
        of_values
            .decrypt_inout_detached(&nonce, &about, into(&mut value[..]), &tag(value_tag))
            .unwrap();
        (key, value)
    }
}

#[cfg(not(feature = "encryption"))]
mod cipher {
    pub(super) fn open(_: &[u8], _: &[u8], _: &[u8]) -> (Vec<u8>, Vec<u8>) {
        panic!("an encrypted record without the feature")
    }
}

fn decompressed(stored: &[u8], len: usize) -> Vec<u8> {
    #[cfg(feature = "lz4")]
    return lz4_flex::block::decompress(stored, len).unwrap();
    #[cfg(not(feature = "lz4"))]
    panic!("{} bytes, {len} once decompressed, without the feature", stored.len());
}

/// Multiples of 8 up to 504, then 32 steps an octave.
pub(crate) fn padded(len: usize) -> usize {
    if len <= 504 {
        return len.next_multiple_of(8);
    }
    len.next_multiple_of(1 << (len.ilog2() - 5))
}

/// What `FILES` says.
#[derive(Clone, Debug)]
pub(crate) struct List {
    pub(crate) active: Option<u64>,
    pub(crate) sealed: Vec<Sealed>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sealed {
    pub(crate) id: u64,
    pub(crate) len: usize,
    pub(crate) digest: u32,
}

impl List {
    pub(crate) fn of(bytes: &[u8]) -> List {
        let entry = |entry: &[u8]| Sealed {
            id: u64_at(entry, 0),
            len: u64_at(entry, 8) as usize,
            digest: u32_at(entry, 40),
        };
        let active = u64_at(bytes, 40);
        let sealed = bytes[72..bytes.len() - 8].chunks_exact(48).map(entry).collect();
        List { active: (active != 0).then_some(active), sealed }
    }
}

/// The newest record of every key: its number, and the value unless it is deleted.
pub(crate) type Newest<'a> = BTreeMap<&'a [u8], &'a Record>;

/// What these records add up to. A range tombstone is the newest record of every key that it deletes.
pub(crate) fn newest<'a>(records: impl Iterator<Item = &'a Record>) -> Newest<'a> {
    let mut newest = Newest::new();
    let (ranges, records): (Vec<&Record>, Vec<&Record>) = records.partition(|r| r.is_range());
    for record in records {
        let found = newest.entry(&record.key).or_insert(record);
        if record.seqno > found.seqno {
            *found = record;
        }
    }
    for range in ranges {
        for (key, found) in &mut newest {
            // Numbers of different partitions say nothing about each other.
            let is_over = range.partition == found.partition && range.concerns(key);
            if is_over && range.seqno > found.seqno {
                *found = range;
            }
        }
    }
    newest
}

/// The intents that an open makes count, of each partition and batch, if it comes upon these records in this
/// order: of batches that some partition has decided, and this one has not resolved behind them (BA1). What a hint
/// stands for is not read, and a hint says nothing of batches, so a batch that was settled may be so again.
pub(crate) fn unsettled<'a>(read: impl Iterator<Item = &'a Record>) -> Unsettled<'a> {
    let mut unsettled = Unsettled::new();
    let mut decided = BTreeSet::new();
    for record in read {
        let Some(batch) = record.batch else { continue };
        let place = (record.partition, batch);
        if record.is_decision {
            decided.insert(batch);
        } else if record.is_resolve {
            unsettled.remove(&place);
        } else {
            unsettled.entry(place).or_default().push(record);
        }
    }
    unsettled.retain(|(_, batch), _| decided.contains(batch));
    unsettled
}

pub(crate) type Unsettled<'a> = BTreeMap<(u32, u64), Vec<&'a Record>>;

/// What settling these adds to the books: tombstones are shadow, and the rest is dead, because every key has had
/// something newer since, the record's own copy if nothing else.
pub(crate) fn settled_again(unsettled: &Unsettled<'_>) -> Again {
    let mut again = Again::default();
    let mut of = None;
    let mut len = 0;
    let mut push = |partition: u32, copied: usize| {
        // The first record of a file comes behind the file's header and that of its only group, and a closing mark
        // comes last. Room for one group more is kept.
        let is_full = len + copied + 2 * GROUP_HEADER_LEN > DATA_FILE_LEN_MAX;
        if of != Some(partition) || is_full {
            again.files += 1;
            again.log_bytes += FILE_HEADER_LEN + 2 * GROUP_HEADER_LEN;
            len = FILE_HEADER_LEN + GROUP_HEADER_LEN;
        }
        of = Some(partition);
        len += copied;
        again.log_bytes += copied;
    };
    for ((partition, _), intents) in unsettled {
        for intent in intents {
            // The same record, without the name of a batch.
            let copied = padded(intent.len - 8);
            push(*partition, copied);
            *(if intent.value.is_some() { &mut again.dead } else { &mut again.shadow }) += copied;
        }
        let resolve = RECORD_HEADER_LEN + 8;
        push(*partition, resolve);
        again.dead += resolve;
    }
    again
}

/// Bytes and files that settling wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Again {
    shadow: usize,
    dead: usize,
    files: usize,
    log_bytes: usize,
}

impl Again {
    /// In the order of the store's accounts.
    pub(crate) fn accounts(&self) -> [u64; 6] {
        let Again { shadow, dead, files, log_bytes } = *self;
        [0, 0, shadow, dead, files, log_bytes].map(|count| count as u64)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
