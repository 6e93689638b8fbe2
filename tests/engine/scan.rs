//! Scans against an ordered map, at rest and while everything moves.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::TryStreamExt;
use futures::future::join_all;
use ringcask::{Compaction, Db, Durability, ErrorKind, Scan};

use crate::support::{Store, bytes_of, defer, each_disk, seed, wait};

pub(crate) type Entries = Vec<(Vec<u8>, Vec<u8>)>;

pub(crate) fn collect(scan: Scan) -> Entries {
    let entries: Vec<_> = wait(scan.try_collect()).unwrap();
    let owned = |(key, value): (bytes::Bytes, bytes::Bytes)| (key.to_vec(), value.to_vec());
    entries.into_iter().map(owned).collect()
}

fn random_key(random: &mut fastrand::Rng) -> Vec<u8> {
    // Few letters and all lengths, so that keys are prefixes of each other.
    let len = random.usize(1..6);
    std::iter::repeat_with(|| *random.choice(&[0, b'a', b'b', 0xff]).unwrap()).take(len).collect()
}

pub(crate) fn fill(
    db: &Db,
    random: &mut fastrand::Rng,
    count: usize,
) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut expected = BTreeMap::new();
    for _ in 0..count {
        let key = random_key(random);
        if random.u8(..4) == 0 {
            let was_there = expected.remove(&key).is_some();
            assert_eq!(wait(db.del(&key)).unwrap(), was_there);
        } else {
            let len = random.usize(..200);
            let value = bytes_of(random, len);
            wait(db.put(&key, &value)).unwrap();
            expected.insert(key, value);
        }
    }
    expected
}

pub(crate) fn check(db: &Db, expected: &BTreeMap<Vec<u8>, Vec<u8>>, random: &mut fastrand::Rng) {
    let owned = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
    for _ in 0..60 {
        let bound = |random: &mut fastrand::Rng| match random.u8(..3) {
            0 => Bound::Unbounded,
            1 => Bound::Included(random_key(random)),
            _ => Bound::Excluded(random_key(random)),
        };
        let (from, to) = (bound(random), bound(random));
        let prefix: Vec<u8> =
            if random.bool() { Vec::new() } else { random_key(random)[..1].to_vec() };
        let limit = if random.bool() { usize::MAX } else { random.usize(..20) };
        let reverse = random.bool();
        let mut wanted: Entries = expected
            .iter()
            .filter(|(key, _)| {
                // Not `BTreeMap::range`, which panics where a scan is empty.
                let from = match &from {
                    Bound::Unbounded => true,
                    Bound::Included(from) => *key >= from,
                    Bound::Excluded(from) => *key > from,
                };
                let to = match &to {
                    Bound::Unbounded => true,
                    Bound::Included(to) => *key <= to,
                    Bound::Excluded(to) => *key < to,
                };
                from && to && key.starts_with(&prefix)
            })
            .map(owned)
            .collect();
        if reverse {
            wanted.reverse();
        }
        wanted.truncate(limit);
        let scan = || {
            let mut scan = db.scan().range((from.clone(), to.clone())).prefix(&prefix);
            if reverse {
                scan = scan.reverse();
            }
            if limit < usize::MAX { scan.limit(limit) } else { scan }
        };
        assert_eq!(collect(scan()), wanted);
        let keys: Vec<_> = wait(scan().keys().try_collect()).unwrap();
        assert!(keys.iter().eq(wanted.iter().map(|(key, _)| key)));
        assert_eq!(wait(scan().count()).unwrap(), wanted.len() as u64);
    }
    assert_eq!(collect(db.scan()), expected.iter().map(owned).collect::<Vec<_>>());
    assert_eq!(wait(db.count()).unwrap(), expected.len() as u64);
}

/// Breaks if order, bounds or limits are off by one anywhere, or deleted keys show up.
#[test]
fn every_kind_of_scan_is_what_an_ordered_map_says() {
    let seed = seed();
    each_disk(|store| {
        let random = &mut fastrand::Rng::with_seed(seed);
        let options = store.options().partitions(3).data_file_len_max(8 << 10);
        let db = store.open_with(options.durability(Durability::Buffered));
        assert!(collect(db.scan()).is_empty());
        let expected = fill(&db, random, 800);
        check(&db, &expected, random);
        wait(db.close()).unwrap();
        let db = store.open();
        check(&db, &expected, random);
        wait(db.close()).unwrap();
    });
}

/// Breaks if a limit counts what a filter keeps back, or two filters are one.
#[test]
fn a_filter_sees_keys_and_values_and_a_limit_counts_what_it_lets_through() {
    each_disk(|store| {
        let db = store.open_with(store.options().partitions(2).data_file_len_max(4096));
        for n in 0..300_u32 {
            wait(db.put(format!("{n:03}"), n.to_le_bytes()).durability(Durability::Buffered))
                .unwrap();
        }
        let odd = || {
            let scan = db.scan().filter(|key, value| {
                let n: u32 = std::str::from_utf8(key).unwrap().parse().unwrap();
                assert_eq!(value, n.to_le_bytes());
                n % 2 == 1
            });
            scan.filter(|key, _| key[2] != b'5')
        };
        let names = |numbers: &[u32]| numbers.iter().map(|n| format!("{n:03}")).collect::<Vec<_>>();
        let keys = |scan: Scan| -> Vec<_> { wait(scan.keys().try_collect()).unwrap() };
        assert_eq!(keys(odd().limit(5)), names(&[1, 3, 7, 9, 11]));
        assert_eq!(keys(odd().limit(2).reverse().prefix("1")), names(&[199, 197]));
        assert_eq!(collect(odd()).len(), 120);
        assert_eq!(wait(odd().count()).unwrap(), 120);
        assert_eq!(wait(odd().keys().count()).unwrap(), 120);
        assert_eq!(wait(odd().limit(7).count()).unwrap(), 7);
        assert_eq!(wait(db.scan().limit(7).count()).unwrap(), 7);
        assert!(keys(odd().limit(0)).is_empty());
        // What was taken already is not counted again.
        let mut begun = db.scan().limit(20).keys();
        assert!(wait(begun.next()).is_some());
        assert_eq!(wait(begun.count()).unwrap(), 19);
        wait(db.close()).unwrap();
    });
}

/// Values longer than a page of the walk, and groups longer than one.
#[test]
fn a_scan_passes_long_values() {
    each_disk(|store| {
        let db = store.open_one();
        let lens = [3 << 20, 10, 1 << 20, 0, (1 << 20) - 100, 5, 2 << 20];
        let puts =
            lens.iter().enumerate().map(|(n, len)| db.put(format!("{n}"), vec![n as u8; *len]));
        assert!(wait(join_all(puts)).iter().all(Result::is_ok));
        let puts = (0..300).map(|n| db.put(format!("k{n:03}"), vec![1; 10_000]));
        assert!(wait(join_all(puts)).iter().all(Result::is_ok));
        let entries = collect(db.scan());
        assert_eq!(entries.len(), 307);
        for (n, len) in lens.iter().enumerate() {
            assert_eq!(entries[n].1, vec![n as u8; *len]);
        }
        wait(db.close()).unwrap();
    });
}

/// A walk over the log that misses a key because it was overwritten meanwhile would make a backup, or
/// an export, that lacks it.
#[test]
fn a_key_that_is_there_all_the_time_is_always_seen() {
    let seed = seed();
    for store in [Store::uring(), Store::blocking(), Store::sim(seed)] {
        let options = store.options().partitions(2).data_file_len_max(64 << 10);
        let db = store.open_with(options.durability(Durability::Buffered));
        let keys: Vec<String> = (0..200).map(|n| format!("stays {n:03}")).collect();
        let puts = keys.iter().map(|key| db.put(key, vec![0; 100]));
        assert!(wait(join_all(puts)).iter().all(Result::is_ok));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (db, done, keys) = (&db, &done, &keys);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed ^ thread);
                    while !done.load(Ordering::Relaxed) {
                        let writes = (0..20).map(|_| {
                            let key = keys[random.usize(..keys.len())].clone();
                            let (value, gone) = (vec![random.u8(..); 100], random.u32(..50));
                            async move {
                                db.put(&key, value).await.unwrap();
                                // Others come and go.
                                let gone = format!("goes {gone}");
                                db.put(&gone, "v").await.unwrap();
                                db.del(&gone).await.unwrap();
                            }
                        });
                        wait(join_all(writes));
                    }
                });
            }
            let end = defer(|| done.store(true, Ordering::Relaxed));
            for _ in 0..if store.is_sim() { 40 } else { 15 } {
                let mut seen = 0;
                let mut last = Vec::new();
                for (key, value) in collect(db.scan()) {
                    assert!(key > last, "in order, and none twice");
                    if key.starts_with(b"stays") {
                        assert!(value.len() == 100 && value.iter().all(|byte| *byte == value[0]));
                        seen += 1;
                    }
                    last = key;
                }
                assert_eq!(seen, keys.len());
                let seen: Vec<_> =
                    wait(db.scan().prefix("stays").reverse().keys().try_collect()).unwrap();
                assert!(seen.iter().rev().eq(&keys));
            }
            drop(end);
        });
        wait(db.close()).unwrap();
    }
}

/// The same without chance: breaks if a scan looks for a key where it was when the scan read of it.
#[test]
fn a_key_that_is_overwritten_or_moved_before_its_turn_is_seen() {
    for is_moved in [false, true] {
        let store = Store::sim(seed());
        let db = store.open_with(store.options().compaction(Compaction::off()));
        let keys: Vec<String> = (0..20).map(|n| format!("key {n:02}")).collect();
        let put_all = |value| wait(join_all(keys.iter().map(|key| db.put(key, value))));
        assert!(put_all("gone").iter().chain(&put_all("old")).all(Result::is_ok));
        let (mut up, mut down) = (db.scan(), db.scan().reverse());
        assert_eq!(wait(up.next()).unwrap().unwrap().0, keys[0]);
        assert_eq!(wait(down.next()).unwrap().unwrap().0, keys[19]);
        if is_moved {
            assert!(wait(db.compact()).unwrap().files_removed > 0);
        } else {
            assert!(put_all("new").iter().all(Result::is_ok));
        }
        let seen = |scan: Scan| collect(scan).into_iter().map(|(key, _)| key);
        assert!(seen(up).eq(keys[1..].iter().map(String::as_bytes)));
        assert!(seen(down).eq(keys[..19].iter().rev().map(String::as_bytes)));
        wait(db.close()).unwrap();
    }
}

/// Breaks if what was read ahead is lost, or an ended scan starts again.
#[test]
fn a_scan_ends_once_and_stays_ended() {
    let store = Store::sim(seed());
    let db = store.open();
    for n in 0..5 {
        wait(db.put(format!("{n}"), "v")).unwrap();
    }
    let mut scan = db.scan().limit(3);
    for n in 0..3 {
        assert_eq!(wait(scan.next()).unwrap().unwrap().0, format!("{n}"));
    }
    for _ in 0..3 {
        assert!(wait(scan.next()).is_none());
    }
    // A key that is deleted after the walk is left out.
    let mut scan = db.scan();
    assert!(wait(scan.next()).is_some());
    wait(db.del("4")).unwrap();
    let mut rest = 0;
    while let Some(entry) = wait(scan.next()) {
        entry.unwrap();
        rest += 1;
    }
    assert!((3..=4).contains(&rest));
    wait(db.close()).unwrap();
}

/// Breaks if a long record is judged by its head alone: one whose key was damaged would be missing from
/// every scan, without a word.
#[test]
fn a_scan_says_that_the_key_of_a_long_record_is_damaged() {
    let store = Store::sim(0);
    let db = store.open_one();
    wait(db.put("a long one", vec![1_u8; 3 << 20])).unwrap();
    wait(db.put("a short one", "v")).unwrap();
    let file = store.path().join(&store.data_files()[0]);
    // File header, group header, record header, then the key.
    store.disk().flip(file, 128 + 48 + 32 + 2, 0x20).unwrap();
    let found: Result<Vec<_>, _> = wait(db.scan().keys().try_collect());
    assert_eq!(found.unwrap_err().kind(), ErrorKind::Corrupt);
    drop(db);
}

/// Breaks if a walk goes on to wherever the log ends by then: it would never catch up with its writers.
#[test]
fn a_scan_ends_where_the_log_ended_when_it_began() {
    let store = Store::sim(0);
    let db = store.open_one();
    for n in 0..20 {
        wait(db.put(format!("{n:02}"), vec![0_u8; 100_000]).durability(Durability::Buffered))
            .unwrap();
    }
    let mut keys = db.scan().keys();
    let mut pages_after = 0;
    let found = wait(async {
        let mut found = Vec::new();
        loop {
            // Between any two polls of the walk as much is written as a page holds.
            let next = futures::future::poll_fn(|cx| {
                std::task::Poll::Ready(futures::StreamExt::poll_next_unpin(&mut keys, cx))
            })
            .await;
            match next {
                std::task::Poll::Ready(Some(key)) => found.push(key.unwrap()),
                std::task::Poll::Ready(None) => break found,
                std::task::Poll::Pending => {
                    pages_after += 1;
                    assert!(pages_after < 10_000, "the walk does not end");
                    for n in 0..10 {
                        let put = db.put(format!("{n:02}"), vec![1_u8; 100_000]);
                        put.durability(Durability::Buffered).await.unwrap();
                    }
                }
            }
        }
    });
    let expected: Vec<String> = (0..20).map(|n| format!("{n:02}")).collect();
    assert_eq!(found, expected);
    assert!(db.stats().total().pages < 10, "{} pages", db.stats().total().pages);
    wait(db.close()).unwrap();
}
