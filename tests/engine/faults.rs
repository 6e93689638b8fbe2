//! Disks that fail: what was acknowledged stays, what fails says so, and nothing hangs (D1).

use futures::future::join_all;
use ringcask::{Db, Durability, Error, ErrorKind, Result};

use crate::support::{EIO, Store, bytes_of, contents, get, seed, wait};

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().as_ref().map(Error::kind)
}

/// Retrying a failed sync reports as durable what the kernel has dropped.
#[test]
fn a_failed_sync_poisons_the_partition_for_writes() {
    for prewrite in [false, true] {
        let store = Store::sim(seed());
        let options = || store.options().partitions(1).prewrite(prewrite);
        let db = store.open_with(options());
        for n in 0..20 {
            wait(db.put(format!("{n}"), "durable")).unwrap();
        }
        wait(db.put("buffered", "v").durability(Durability::Buffered)).unwrap();
        store.disk().fail_syncs(EIO, false);
        let error = wait(db.put("k", "v")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
        assert!(db.stats().total().poisoned.is_some());
        // One sync failed, later ones would not: nobody may find out by trying.
        assert_eq!(kind(wait(db.put("k", "v"))), Some(ErrorKind::Poisoned));
        assert_eq!(
            kind(wait(db.put("k", "v").durability(Durability::Buffered))),
            Some(ErrorKind::Poisoned)
        );
        assert_eq!(kind(wait(db.del("0"))), Some(ErrorKind::Poisoned));
        assert_eq!(kind(wait(db.del("missing"))), Some(ErrorKind::Poisoned));
        assert_eq!(kind(wait(db.sync())), Some(ErrorKind::Poisoned));
        assert_eq!(get(&db, "0").unwrap(), "durable");
        assert_eq!(get(&db, "k"), None, "never acknowledged, so never seen (K2)");
        assert_eq!(contents(&db).len(), 21);
        assert_eq!(kind(wait(db.close())), Some(ErrorKind::Poisoned));
        assert_eq!(kind(wait(db.close())), Some(ErrorKind::Poisoned));
        let db = store.open_with(options());
        for n in 0..20 {
            assert_eq!(get(&db, format!("{n}")).unwrap(), "durable");
        }
        wait(db.put("k", "v")).unwrap();
        wait(db.close()).unwrap();
    }
}

/// Everybody who waits for the sync that failed is told, and partitions that are well go on.
#[test]
fn poison_reaches_every_waiter_and_one_partition_only() {
    let store = Store::sim(seed());
    let db = store.open_with(store.options().partitions(4).workers(2).prewrite(false));
    for n in 0..40 {
        wait(db.put(format!("{n}"), "v")).unwrap();
    }
    store.disk().fail_syncs(EIO, false);
    let puts = (0..200).map(|n| db.put(format!("new {n}"), "v"));
    let answers = wait(join_all(puts));
    let poisoned = db.stats().partitions.iter().filter(|one| one.poisoned.is_some()).count();
    assert_eq!(poisoned, 1);
    assert!(answers.iter().any(Result::is_ok));
    for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        assert_eq!(error.kind(), ErrorKind::Poisoned);
    }
    assert_eq!(kind(wait(db.close())), Some(ErrorKind::Poisoned));
    let db = store.open();
    for (n, answer) in answers.iter().enumerate() {
        assert!(answer.is_err() || get(&db, format!("new {n}")).is_some());
    }
    wait(db.close()).unwrap();
}

/// A full disk is an everyday event: it fails the write, and is over when there is space.
#[test]
fn a_full_disk_fails_the_write_and_is_over_when_there_is_space() {
    let seed = seed();
    for prewrite in [false, true] {
        for durability in [Durability::Sync, Durability::Buffered] {
            let store = Store::sim(seed);
            let options =
                || store.options().partitions(1).prewrite(prewrite).durability(durability);
            let db = store.open_with(options());
            for n in 0..10 {
                wait(db.put(format!("{n}"), vec![n; 1000])).unwrap();
            }
            for round in 0..3 {
                store.disk().capacity_bytes(Some(store.used_bytes() + 50_000));
                let mut refused = 0;
                for n in 0..10 {
                    let put = wait(db.put(format!("big {round} {n}"), vec![n; 400_000]));
                    if let Err(error) = put {
                        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                        assert!(error.to_string().contains("free space"), "{error}");
                        assert_eq!(get(&db, format!("big {round} {n}")), None);
                        refused += 1;
                    }
                }
                assert!(refused >= 7, "{refused} refused");
                assert_eq!(get(&db, "3").unwrap(), vec![3; 1000], "reads go on");
                store.disk().capacity_bytes(None);
                wait(db.put(format!("after {round}"), vec![1; 400_000])).unwrap();
            }
            let before = contents(&db);
            assert!(db.stats().total().poisoned.is_none());
            wait(db.close()).unwrap();
            let db = store.open();
            assert_eq!(contents(&db), before);
            wait(db.close()).unwrap();
        }
    }
}

/// Moving to a new file needs space too: the file header, and `FILES` written anew.
#[test]
fn a_full_disk_in_rotation_loses_nothing_and_is_over_when_there_is_space() {
    for extra in (0..6000).step_by(97) {
        let store = Store::sim(extra);
        let options =
            store.options().partitions(1).data_file_len_max(4096).prewrite(extra % 2 == 0);
        let db = store.open_with(options);
        for n in 0..4 {
            wait(db.put(format!("{n}"), vec![n; 700])).unwrap();
        }
        store.disk().capacity_bytes(Some(store.used_bytes() + extra));
        let mut acknowledged = Vec::new();
        for n in 4..24_u8 {
            match wait(db.put(format!("{n}"), vec![n; 300])) {
                Ok(()) => acknowledged.push(n),
                Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}"),
            }
        }
        assert!(acknowledged.len() < 20);
        let check = |db: &Db| {
            for n in &acknowledged {
                assert_eq!(get(db, format!("{n}")).unwrap(), vec![*n; 300], "{extra}");
            }
        };
        check(&db);
        let full = store.on(store.disk().kill());
        let db_of_full = full.open();
        check(&db_of_full);
        wait(db_of_full.close()).unwrap();
        store.disk().capacity_bytes(None);
        wait(db.put("after", "v")).unwrap();
        wait(db.close()).unwrap();
        let db = store.open();
        check(&db);
        assert_eq!(get(&db, "after").unwrap(), "v");
        wait(db.close()).unwrap();
    }
}

/// Close promises a sealed log: if the disk is too full for it, it says so and loses nothing.
#[test]
fn closing_on_a_full_disk_says_so() {
    let store = Store::sim(seed());
    let db = store.open_with(store.options().partitions(1).prewrite(false));
    wait(db.put("k", "v")).unwrap();
    store.disk().capacity_bytes(Some(0));
    assert_eq!(kind(wait(db.close())), Some(ErrorKind::NoSpace));
    store.disk().capacity_bytes(None);
    let db = store.open();
    assert_eq!(get(&db, "k").unwrap(), "v");
    wait(db.close()).unwrap();
}

/// Breaks if a read that fails looks like a missing key.
#[test]
fn a_read_that_fails_names_the_file() {
    let store = Store::sim(seed());
    let db = store.open_one();
    wait(db.put("k", "v")).unwrap();
    store.disk().fail_reads(EIO);
    let error = wait(db.get("k")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("000000001.data"), "{error}");
    assert_eq!(kind(wait(db.get_many(["k"]))), Some(ErrorKind::Io));
    assert_eq!(kind(wait(db.scan().next()).unwrap()), Some(ErrorKind::Io));
    assert_eq!(get(&db, "missing"), None, "needs no read");
    store.disk().clear_faults();
    assert_eq!(get(&db, "k").unwrap(), "v");
    wait(db.put("k", "w")).unwrap();
    wait(db.close()).unwrap();
}

/// Breaks if a record that rotted while the store is open is handed out, or called missing.
#[test]
fn a_record_that_rots_is_reported_and_the_others_are_read() {
    let store = Store::sim(seed());
    let db = store.open_one();
    for n in 0..10 {
        wait(db.put(format!("{n}"), vec![n + 100; 200])).unwrap();
    }
    let file = "partition-000/000000001.data";
    let value = store.read(file).windows(200).position(|at| at == [104; 200]).unwrap() as u64;
    let path = store.path().join(file);
    store.disk().flip(&path, value + 50, 1).unwrap();
    let error = wait(db.get("4")).unwrap_err();
    assert!(error.is_corrupt(), "{error}");
    let (at_path, at) = error.location().unwrap();
    assert!(at_path == path && at < value && value - at < 100);
    for n in [3, 5] {
        assert_eq!(get(&db, format!("{n}")).unwrap(), vec![n + 100; 200]);
    }
    store.disk().flip(&path, value + 50, 1).unwrap();
    assert!(get(&db, "4").is_some());
    wait(db.close()).unwrap();
}

/// Breaks if an answer depends on whether a record was in the page cache, or came in pieces (G2).
#[test]
fn cold_reads_and_short_transfers_give_the_same_answers() {
    let seed = seed();
    for (would_block, short) in [(1.0, 0.0), (0.5, 0.5), (0.0, 0.9)] {
        let store = Store::sim(seed);
        store.disk().would_block(would_block);
        store.disk().short_transfers(short);
        let random = &mut fastrand::Rng::with_seed(seed);
        let db = store.open_with(store.options().data_file_len_max(32 << 10));
        let mut expected = std::collections::BTreeMap::new();
        for n in 0..150_u32 {
            let len = random.usize(..3000);
            let value = bytes_of(random, len);
            wait(db.put(n.to_le_bytes(), &value).durability(Durability::Buffered)).unwrap();
            expected.insert(n.to_le_bytes().to_vec(), value);
        }
        let gets = (0..300_u32).map(|n| db.get(n.to_le_bytes()));
        for (n, found) in wait(join_all(gets)).into_iter().enumerate() {
            let expected = expected.get(&(n as u32).to_le_bytes()[..]);
            assert_eq!(found.unwrap().as_deref(), expected.map(Vec::as_slice));
        }
        let total = db.stats().total();
        if would_block > 0.9 {
            assert_eq!(total.reads, 150);
            assert_eq!(total.gets_hop_free, 150, "a missing key needs no read");
        }
        assert_eq!((total.gets, total.gets_missing), (300, 150));
        assert_eq!(contents(&db), expected);
        wait(db.close()).unwrap();
        let db = store.open();
        assert_eq!(contents(&db), expected);
        wait(db.close()).unwrap();
    }
}

/// D1: breaks if a group whose write failed comes alive with the next open, because all of it had reached
/// the disk before the error did.
#[test]
fn what_was_told_to_have_failed_does_not_come_alive() {
    let seed = seed();
    for nth in 0..40 {
        let store = Store::sim(seed);
        let options = |store: &Store| {
            store.options().partitions(1).prewrite(false).durability(Durability::Buffered)
        };
        let db = store.open_with(options(&store));
        wait(db.put("before", "v")).unwrap();
        store.disk().fail_late(store.disk().ops() + nth, EIO);
        let mut stored = vec!["before".to_owned()];
        for n in 0..20 {
            let key = format!("{n}");
            if wait(db.put(&key, "v")).is_ok() {
                stored.push(key);
            }
            let left = store.on(store.disk().kill());
            let db = left.open_with(options(&left));
            stored.sort();
            let found: Vec<_> = contents(&db).into_keys().collect();
            let expected: Vec<_> = stored.iter().map(|key| key.clone().into_bytes()).collect();
            assert_eq!(found, expected, "a failure at {nth}, killed after {n}");
            wait(db.close()).unwrap();
        }
        store.disk().clear_faults();
        assert_eq!(contents(&db).len(), stored.len());
        wait(db.close()).unwrap();
    }
}
