//! Key runs: the keys of many files in one order, made once scans have found many files.

use std::path::Path;
use std::time::Duration;

use futures::TryStreamExt;
use ringcask::sim::SimClock;
use ringcask::{Compaction, Db, Durability, Options};

use crate::scan::{check, fill};
use crate::support::{Store, each_disk, seed, wait};

fn options(store: &Store) -> Options {
    let options = store.options().partitions(1).data_file_len_max(4096);
    options.durability(Durability::Buffered).compaction(Compaction::off())
}

fn keys(db: &Db) -> Vec<bytes::Bytes> {
    wait(db.scan().keys().try_collect()).unwrap()
}

/// Scans until there are runs, and so few files that none covers that no scan asks for more.
fn scan_until_merged(db: &Db) {
    for _ in 0..2000 {
        keys(db);
        // Whatever wakes the worker.
        wait(db.del("no such key")).unwrap();
        if db.stats().total().key_runs > 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("there is no key run after so many scans");
}

fn run_names(store: &Store) -> Vec<String> {
    let names = store.list("partition-000");
    let is_run = |name: &String| Path::new(name).extension().is_some_and(|ext| ext == "keys");
    names.into_iter().filter(is_run).collect()
}

/// SN1, KR1, KR2: breaks if a run names too little, stands for too much, or is believed to say what is there.
#[test]
fn scans_through_runs_are_what_an_ordered_map_says() {
    let seed = seed();
    each_disk(|store| {
        let random = &mut fastrand::Rng::with_seed(seed);
        let db = store.open_with(options(store));
        let mut expected = fill(&db, random, 1000);
        let mut runs_most = 0;
        for round in 0..12 {
            scan_until_merged(&db);
            check(&db, &expected, random);
            for _ in 0..150 {
                let key = vec![*random.choice(&[0, b'a', b'b', 0xff]).unwrap(); random.usize(1..9)];
                if random.u8(..3) == 0 {
                    assert_eq!(wait(db.del(&key)).unwrap(), expected.remove(&key).is_some());
                } else {
                    let value = vec![round; random.usize(..200)];
                    wait(db.put(&key, &value)).unwrap();
                    expected.insert(key, value);
                }
                if random.u8(..40) == 0 {
                    check(&db, &expected, random);
                }
            }
            if round % 4 == 3 {
                wait(db.compact()).unwrap();
            }
            runs_most = runs_most.max(db.stats().total().key_runs);
            check(&db, &expected, random);
        }
        assert!((1..=9).contains(&runs_most), "{runs_most} runs at a time");
        wait(db.close()).unwrap();
        assert!(run_names(store).is_empty(), "closing leaves {:?}", run_names(store));
        let db = store.open_with(options(store));
        check(&db, &expected, random);
        wait(db.close()).unwrap();
    });
}

/// Breaks if a scan goes over everything that was ever written once it was merged.
#[test]
fn what_is_deleted_leaves_the_runs() {
    let store = Store::sim(seed());
    let db = store.open_with(options(&store).data_file_records_max(16));
    let mut bytes_most = 0;
    for round in 0..20_u32 {
        for n in 0..200_u32 {
            wait(db.put(format!("{round:03} {n:05}"), "v")).unwrap();
        }
        if let Some(before) = round.checked_sub(1) {
            wait(db.delete_prefix(format!("{before:03}"))).unwrap();
        }
        wait(db.compact()).unwrap();
        for _ in 0..20 {
            assert_eq!(keys(&db).len(), 200);
            wait(db.del("no such key")).unwrap();
        }
        bytes_most = bytes_most.max(db.stats().total().key_run_bytes);
    }
    assert!(bytes_most > 0, "there never was a run");
    assert!(bytes_most < 64 << 10, "{bytes_most} bytes for 200 keys");
    wait(db.close()).unwrap();
}

/// T1: breaks if a run says that a key has expired, or has not, after its record was replaced or moved.
#[test]
fn what_expires_is_hidden_whatever_a_run_says() {
    each_disk(|store| {
        let clock = SimClock::new(1_700_000_000_000);
        let db = store.open_with(options(store).data_file_records_max(4).clock(clock.clone()));
        let second = Duration::from_secs(1);
        for n in 0..100_u32 {
            let put = db.put(format!("{n:02}"), "v");
            let put = if n % 3 == 0 { put.ttl(5 * second) } else { put };
            wait(put).unwrap();
        }
        scan_until_merged(&db);
        wait(db.persist("03")).unwrap();
        wait(db.put("06", "now for ever")).unwrap();
        wait(db.put("09", "now longer").ttl(50 * second)).unwrap();
        wait(db.put("10", "now brief").ttl(second)).unwrap();
        let is_there = |n: &u32| match n {
            3 | 6 | 9 => true,
            10 => false,
            n => n % 3 != 0,
        };
        clock.advance(5 * second);
        let expected: Vec<String> = (0..100).filter(is_there).map(|n| format!("{n:02}")).collect();
        assert_eq!(keys(&db), expected);
        wait(db.compact()).unwrap();
        assert_eq!(keys(&db), expected);
        assert_eq!(wait(db.count()).unwrap(), expected.len() as u64);
        wait(db.close()).unwrap();
    });
}

/// H1: breaks if a damaged run costs a scan a key, an error, or more than its help.
#[test]
fn a_damaged_run_is_ignored() {
    let random = &mut fastrand::Rng::with_seed(seed());
    let mut damaged = 0;
    for round in 0..40_u64 {
        let store = Store::sim(round);
        let db = store.open_with(options(&store).data_file_records_max(64));
        let expected: Vec<String> = (0..2000).map(|n| format!("key {n:05}")).collect();
        for n in 0..2000 {
            wait(db.put(&expected[n * 7919 % 2000], "v")).unwrap();
        }
        scan_until_merged(&db);
        let names = run_names(&store);
        let mut damage = || {
            let path = store.path().join("partition-000").join(random.choice(&names).unwrap());
            let at = random.u64(128..db.stats().total().key_run_bytes.max(129));
            damaged += u32::from(store.disk().flip(path, at, 1 << random.u8(..8)).is_ok());
        };
        damage();
        let is_forwards = round % 2 == 0;
        let mut scan = if is_forwards { db.scan().keys() } else { db.scan().reverse().keys() };
        let mut found = Vec::new();
        while let Some(key) = wait(scan.next()) {
            found.push(key.unwrap());
            if found.len() % 500 == 0 {
                damage();
            }
        }
        if !is_forwards {
            found.reverse();
        }
        assert!(found.iter().eq(expected.iter().map(String::as_bytes)), "round {round}");
        assert_eq!(keys(&db).len(), expected.len());
        // Made anew, by whichever scan comes.
        assert_eq!(wait(db.scan().prefix("key 01").count()).unwrap(), 1000);
        wait(db.close()).unwrap();
    }
    assert!(damaged > 40, "{damaged} flips, which is too few to show anything");
}

/// Breaks if a run that a killed process left is read, or stays.
#[test]
fn a_run_that_is_found_is_removed() {
    each_disk(|store| {
        let db = store.open_with(options(store));
        for n in 0..500_u32 {
            wait(db.put(n.to_le_bytes(), [1; 60])).unwrap();
        }
        scan_until_merged(&db);
        let name = run_names(store).pop().expect("there is a run");
        let left = store.read(&format!("partition-000/{name}"));
        wait(db.close()).unwrap();
        store.write(&format!("partition-000/{name}"), &left);
        let report = wait(store.options().verify(store.path())).unwrap();
        assert!(report.is_sound(), "{report:?}");
        let db = store.open_with(options(store));
        assert_eq!(keys(&db).len(), 500);
        for _ in 0..1000 {
            if run_names(store).iter().all(|found| *found != name) {
                break;
            }
            wait(db.del("no such key")).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!run_names(store).contains(&name), "{name} stays");
        wait(db.close()).unwrap();
    });
}
