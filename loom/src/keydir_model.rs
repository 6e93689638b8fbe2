//! The keydir while it grows: a reader finds what is there, and nothing that was replaced.

use std::sync::Arc;

use loom::thread;

use crate::Model;
use crate::keydir::{Aging, FileSlot, Keydir, KeydirLoader, KeydirReader, Location};
use crate::sync::{AtomicU64, Ordering};
use crate::types::{KeyHash, Seqno};

pub(crate) const MODELS: [Model; 6] = [
    ("k9: a key that moves first is found while tables grow", Some(4), || stays(0)),
    ("k9: a key that moves last is found while tables grow", Some(4), || stays(1)),
    ("k9: keys that are looked up together are found while tables grow", Some(3), together),
    ("k10: what was replaced is not found again while tables grow", Some(4), replaced),
    ("k10: what was removed is not found again while tables grow", Some(4), removed),
    ("k11: two readers agree with the order of writes", Some(3), two_readers),
];

const OLD: Location = at(8);
const NEW: Location = at(16);

const fn at(offset: u32) -> Location {
    Location { slot: FileSlot(1), offset, len: 16, has_expiry: false }
}

/// The key number `n`: even ones are in the lower of two tables, which moves first.
fn key(n: u32) -> KeyHash {
    let table = if n % 2 == 0 { 1 << 20 } else { 3 << 30 };
    KeyHash { bucket: u64::from(n) << 57 | u64::from(n), table: table + n, route: 0 }
}

/// A keydir of one table that holds key 0 or 1, and is about to grow with the next one.
fn keydir(n: u32) -> Keydir {
    let mut loader = KeydirLoader::new();
    loader.offer(key(n), Seqno(1), Some(OLD));
    loader.finish(Aging::Lru, |_| ())
}

/// From the first key to the end of the expansion.
fn grow(keydir: &mut Keydir) {
    for n in 2..5 {
        assert_eq!(keydir.upsert(key(n), OLD), None);
    }
}

fn find(reader: &KeydirReader, n: u32) -> Option<Location> {
    reader.lookup_as(key(n), true, |location| location)
}

fn stays(n: u32) {
    let mut keydir = keydir(n);
    let reader = keydir.reader();
    let reading = thread::spawn(move || {
        assert_eq!(find(&reader, n), Some(OLD));
        assert_eq!(find(&reader, n), Some(OLD));
    });
    grow(&mut keydir);
    reading.join().expect("a model's thread does not panic");
    assert_eq!(keydir.get(key(n)), Some(OLD));
    assert_eq!(keydir.len(), 4);
}

/// One key at a time: loom does not know of a thread that holds one lock twice to read.
fn together() {
    let mut keydir = keydir(1);
    let reader = keydir.reader();
    let reading = thread::spawn(move || {
        for (key, expected) in [(key(1), Some(OLD)), (key(7), None)] {
            let mut found = None;
            reader.lookup_many(&[key], |_, location| found = Some(location));
            assert_eq!(found, Some(expected));
        }
    });
    grow(&mut keydir);
    reading.join().expect("a model's thread does not panic");
}

/// The key is replaced in the midst of the expansion; `told` says so to the reader.
fn replaced() {
    let mut keydir = keydir(0);
    let reader = keydir.reader();
    let told = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&told);
    let reading = thread::spawn(move || {
        let is_told = seen.load(Ordering::Acquire) == 1;
        let first = find(&reader, 0);
        let second = find(&reader, 0);
        assert!(first == Some(NEW) || (first == Some(OLD) && !is_told), "{first:?}");
        assert!(second == Some(NEW) || first == Some(OLD) && second == Some(OLD), "{second:?}");
    });
    assert_eq!(keydir.upsert(key(2), OLD), None);
    assert_eq!(keydir.upsert(key(3), OLD), None);
    assert_eq!(keydir.upsert(key(0), NEW), Some(OLD));
    told.store(1, Ordering::Release);
    assert_eq!(keydir.upsert(key(4), OLD), None);
    reading.join().expect("a model's thread does not panic");
    assert_eq!(keydir.get(key(0)), Some(NEW));
}

fn removed() {
    let mut keydir = keydir(1);
    let reader = keydir.reader();
    let reading = thread::spawn(move || {
        let first = find(&reader, 1);
        let second = find(&reader, 1);
        assert!(first.is_some() || second.is_none(), "a removed key came back");
    });
    assert_eq!(keydir.upsert(key(2), OLD), None);
    assert_eq!(keydir.upsert(key(3), OLD), None);
    assert_eq!(keydir.upsert(key(4), OLD), None);
    assert_eq!(keydir.remove(key(1)), Some(OLD));
    reading.join().expect("a model's thread does not panic");
    assert_eq!(keydir.get(key(1)), None);
}

/// What one reader has seen, another one that hears of it sees too.
fn two_readers() {
    let mut keydir = keydir(0);
    let heard = Arc::new(AtomicU64::new(0));
    let (reader, telling) = (keydir.reader(), Arc::clone(&heard));
    let first = thread::spawn(move || {
        if find(&reader, 0) == Some(NEW) {
            telling.store(1, Ordering::Release);
        }
    });
    let reader = keydir.reader();
    let second = thread::spawn(move || {
        let is_told = heard.load(Ordering::Acquire) == 1;
        let found = find(&reader, 0);
        assert!(found == Some(NEW) || (found == Some(OLD) && !is_told), "{found:?}");
    });
    assert_eq!(keydir.upsert(key(2), OLD), None);
    assert_eq!(keydir.upsert(key(3), OLD), None);
    assert_eq!(keydir.upsert(key(0), NEW), Some(OLD));
    for reading in [first, second] {
        reading.join().expect("a model's thread does not panic");
    }
}
