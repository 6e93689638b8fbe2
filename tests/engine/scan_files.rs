//! Scans and the files they read: with hints and without, many of them, while they come and go.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::TryStreamExt;
use ringcask::sim::SimClock;
use ringcask::{Compaction, Db, Durability, Options};

use crate::scan::{check, collect, fill};
use crate::support::{Store, contents, each_disk, is_hint, seed, wait};

fn options(store: &Store) -> Options {
    let options = store.options().partitions(2).data_file_len_max(4096);
    options.durability(Durability::Buffered).compaction(Compaction::off())
}

fn keys(db: &Db) -> Vec<bytes::Bytes> {
    wait(db.scan().keys().try_collect()).unwrap()
}

/// Breaks if a scan takes a hint for more, or for less, than the names of keys.
#[test]
fn hints_logs_and_both_say_the_same() {
    let seed = seed();
    each_disk(|store| {
        let random = &mut fastrand::Rng::with_seed(seed);
        // All of it in one file without a hint; then in many with hints and one without.
        for file_len in [1 << 20, 4096] {
            let db = store.open_with(options(store).data_file_len_max(file_len));
            let before = contents(&db);
            for key in before.keys() {
                wait(db.del(key)).unwrap();
            }
            let mut expected = fill(&db, random, 500);
            check(&db, &expected, random);
            wait(db.compact()).unwrap();
            check(&db, &expected, random);
            // What was scanned is extended by what comes.
            for _ in 0..30 {
                let key = vec![b'a' + random.u8(..3); random.usize(1..4)];
                wait(db.put(&key, "later")).unwrap();
                expected.insert(key, b"later".to_vec());
                assert_eq!(keys(&db).len(), expected.len());
            }
            check(&db, &expected, random);
            wait(db.close()).unwrap();
            let db = store.open_with(options(store));
            check(&db, &expected, random);
            wait(db.close()).unwrap();
            // Scanned before upkeep has made them anew.
            store.spoil_hints();
            let db = store.open_with(options(store));
            check(&db, &expected, random);
            wait(db.close()).unwrap();
        }
    });
}

/// H1: breaks if a scan passes over what a damaged hint does not say, or gives up because of it.
#[test]
fn a_hint_that_is_damaged_under_a_scan_is_ignored_and_made_anew() {
    let random = &mut fastrand::Rng::with_seed(seed());
    let mut hints_made = 0;
    for round in 0..40_u64 {
        let store = Store::sim(round);
        let db = store.open_with(options(&store).partitions(1).data_file_len_max(64 << 10));
        let expected: BTreeMap<Vec<u8>, Vec<u8>> = (0..1500_u32)
            .map(|n| (format!("key {:05}", n * 7919 % 1500).into_bytes(), n.to_le_bytes().to_vec()))
            .collect();
        for (key, value) in &expected {
            wait(db.put(key, value)).unwrap();
        }
        wait(db.close()).unwrap();
        let db = store.open_with(options(&store).partitions(1));
        let hints: Vec<String> = store.image().into_keys().filter(|file| is_hint(file)).collect();
        let mut damage = || {
            let hint = &hints[random.usize(..hints.len())];
            let path = store.path().join(hint);
            // It may be being made anew: then there is no file of that name, or an empty one.
            let Some(len) = store.disk().read_file(&path).map(|bytes| bytes.len() as u64) else {
                return;
            };
            if len > 0 {
                // What it replaced it with since may be shorter, which is no damage done and none needed.
                let _ = store.disk().flip(path, random.u64(..len), 1 << random.u8(..8));
            }
        };
        damage();
        let mut scan = if round % 2 == 0 { db.scan() } else { db.scan().reverse() };
        let mut found = BTreeMap::new();
        let mut last: Option<bytes::Bytes> = None;
        while let Some(entry) = wait(scan.next()) {
            let (key, value) = entry.unwrap();
            let is_next = last.as_ref().is_none_or(|last| (key > last) == (round % 2 == 0));
            assert!(is_next, "in order, and none twice");
            last = Some(key.clone());
            found.insert(key.to_vec(), value.to_vec());
            if found.len() % 400 == 0 {
                damage();
            }
        }
        assert!(found == expected, "{} keys of {}", found.len(), expected.len());
        let prefix = wait(db.scan().prefix("key 01").count()).unwrap();
        assert_eq!(prefix, 500);
        hints_made += db.stats().total().hints;
        wait(db.close()).unwrap();
        let db = store.open();
        assert!(contents(&db) == expected);
        wait(db.close()).unwrap();
    }
    assert!(hints_made > 20, "{hints_made} scans met damage, which is too few to show anything");
}

/// T1: breaks if a scan believes the expiry that an older record of the key had, or none.
#[test]
fn what_expires_is_hidden_wherever_its_record_is() {
    each_disk(|store| {
        let clock = SimClock::new(1_700_000_000_000);
        let options = options(store).partitions(1).clock(clock.clone());
        let db = store.open_with(options);
        let second = Duration::from_secs(1);
        for n in 0..60_u32 {
            let put = db.put(format!("{n:02}"), vec![1; 200]);
            let put = if n % 3 == 0 { put.ttl(5 * second) } else { put };
            wait(put).unwrap();
        }
        assert_eq!(keys(&db).len(), 60);
        // A walk that has begun, and does not know what comes now.
        let mut begun = db.scan().keys();
        assert_eq!(wait(begun.next()).unwrap().unwrap(), "00");
        wait(db.put("57", "now for ever")).unwrap();
        wait(db.put("58", "now brief").ttl(2 * second)).unwrap();
        wait(db.put("54", "now longer").ttl(50 * second)).unwrap();
        wait(db.compact()).unwrap();
        clock.advance(5 * second);
        let rest: Vec<_> = wait(begun.try_collect()).unwrap();
        let is_there = |n: &u32| match n {
            54 | 57 => true,
            58 => false,
            n => n % 3 != 0,
        };
        let expected: Vec<String> = (0..60).filter(is_there).map(|n| format!("{n:02}")).collect();
        // The first page was passed before anything had expired.
        assert!(rest.iter().rev().zip(expected.iter().rev()).take(30).all(|(a, b)| a == b));
        assert_eq!(keys(&db), expected);
        assert_eq!(wait(db.count()).unwrap(), expected.len() as u64);
        wait(db.close()).unwrap();
    });
}

/// Descriptors of this process on files of the store that have lost their names.
fn open_removed_files(store: &Store) -> usize {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    targets
        .filter(|target| {
            target.starts_with(store.path()) && target.to_string_lossy().ends_with(" (deleted)")
        })
        .count()
}

/// G3: breaks if whoever drops a scan in the middle keeps files on disk that compaction removed.
#[test]
fn a_scan_that_is_dropped_gives_back_what_it_held() {
    for store in [Store::uring(), Store::blocking()] {
        let db = store.open_with(options(&store));
        for n in 0..600_u32 {
            wait(db.put((n % 100).to_le_bytes(), vec![n as u8; 200])).unwrap();
        }
        let (mut entries, mut names) = (db.scan(), db.scan().reverse().keys());
        assert!(wait(entries.next()).unwrap().is_ok() && wait(names.next()).unwrap().is_ok());
        let unpolled = db.scan();
        assert!(wait(db.compact()).unwrap().files_removed > 10);
        // The scans go on with what is gone for everybody else.
        let rest: Vec<_> = wait(names.try_collect()).unwrap();
        assert_eq!(rest.len(), 99);
        assert!(open_removed_files(&store) > 0, "nothing was held, so nothing can be given back");
        drop((entries, unpolled));
        let mut left = usize::MAX;
        for _ in 0..1000 {
            // Closing is for upkeep, which looks once in a while.
            left = open_removed_files(&store);
            if left == 0 {
                break;
            }
            wait(db.put("k", "v")).unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(left, 0, "files are still held");
        wait(db.close()).unwrap();
    }
}

const KEYS: u64 = 4000;

/// Breaks if a scan needs a descriptor for every file, or looks only at those that are open.
#[test]
fn thousands_of_files_are_scanned_through_a_few_descriptors() {
    let store = Store::sim(seed());
    let small = || options(&store).partitions(1).data_file_records_max(2).open_files_max(8);
    let db = store.open_with(small());
    for n in 0..KEYS {
        let key = format!("{:04}", n * 2_654_435_761 % KEYS);
        wait(db.put(key, n.to_le_bytes())).unwrap();
    }
    assert!(db.stats().total().files >= KEYS / 2);
    let all: Vec<String> = (0..KEYS).map(|n| format!("{n:04}")).collect();
    for _ in 0..2 {
        let found = collect(db.scan());
        assert!(found.iter().map(|(key, _)| &key[..]).eq(all.iter().map(String::as_bytes)));
        let backwards: Vec<_> = wait(db.scan().reverse().limit(100).keys().try_collect()).unwrap();
        assert!(backwards.iter().eq(all.iter().rev().take(100).map(String::as_bytes)));
        assert_eq!(wait(db.scan().prefix("12").count()).unwrap(), 100);
        assert!(db.stats().total().files_open <= 9, "{}", db.stats().total().files_open);
    }
    wait(db.close()).unwrap();
}
