//! Ranges of keys that are deleted as a whole: hidden at once, worked off later, for good (N1, C1).
//!
//! Without these a key could come back after `clear`: to a reader without a hop, to an update, after a restart
//! from hints or from data, or once compaction has dropped the tombstone; or what was put after it could go.

use std::collections::BTreeMap;
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{join, join_all, try_join_all};
use ringcask::sim::Cut;
use ringcask::{Compaction, Db, Durability, ErrorKind, Expected, Options, Swap, WriteBatch};

use crate::support::{
    ENOSPC, Store, accounts, contents, defer, each_disk, get, is_hint, seed, wait,
};

/// Waits until upkeep has worked off every range.
fn worked_off(db: &Db) {
    let mut polls = 0;
    while db.stats().total().range_dels_pending > 0 {
        std::thread::yield_now();
        // Something for the workers to wake up for.
        wait(db.sync()).unwrap();
        polls += 1;
        assert!(polls < 1_000_000, "a range is never worked off");
    }
}

fn quiet(store: &Store) -> Options {
    store.options().partitions(1).compaction(Compaction::off())
}

fn keys(db: &Db) -> Vec<String> {
    contents(db).into_keys().map(|key| String::from_utf8(key).unwrap()).collect()
}

fn put_all(db: &Db, keys: &[&str], value: &str) {
    wait(try_join_all(keys.iter().map(|key| db.put(key, value.to_owned())))).unwrap();
}

/// Breaks if any path to a key ignores ranges, or a bound is off by one key.
#[test]
fn every_read_misses_what_a_range_had() {
    each_disk(|store| {
        let db = store.open();
        let all = ["a", "b", "b1", "b2", "c", "d"];
        put_all(&db, &all, "v");
        wait(db.delete_range("b".."c")).unwrap();
        let left = ["a", "c", "d"];
        for _ in 0..2 {
            for key in all {
                let is_left = left.contains(&key);
                assert_eq!(get(&db, key).is_some(), is_left, "{key}");
                assert_eq!(wait(db.contains_key(key)).unwrap(), is_left);
                assert_eq!(wait(db.entry(key)).unwrap().is_some(), is_left);
            }
            assert_eq!(keys(&db), left);
            assert_eq!(wait(db.count()).unwrap(), 3);
            worked_off(&db);
            assert_eq!(db.stats().total().keys, 3);
        }
        wait(db.close()).unwrap();

        for spoiled in [false, true] {
            if spoiled {
                store.spoil_hints();
            }
            let db = store.open();
            assert_eq!(keys(&db), left, "hints are spoiled: {spoiled}");
            assert_eq!(db.stats().total().keys, 3);
            wait(db.compact()).unwrap();
            assert_eq!(keys(&db), left);
            wait(db.close()).unwrap();
        }
    });
}

#[test]
fn bounds_are_those_of_the_standard_library() {
    let store = Store::sim(0);
    let db = store.open();
    let all = ["a", "a\0", "b", "c", "\u{7f}"];
    let left = |range: (Bound<&str>, Bound<&str>)| {
        put_all(&db, &all, "v");
        wait(db.delete_range::<&str>(range)).unwrap();
        keys(&db)
    };
    assert_eq!(left((Included("a"), Excluded("b"))), ["b", "c", "\u{7f}"]);
    assert_eq!(left((Excluded("a"), Included("b"))), ["a", "c", "\u{7f}"]);
    assert_eq!(left((Excluded("a"), Excluded("a\0"))), all);
    assert_eq!(left((Unbounded, Excluded("c"))), ["c", "\u{7f}"]);
    assert_eq!(left((Included("c"), Unbounded)), ["a", "a\0", "b"]);
    assert_eq!(left((Included("c"), Excluded("b"))), all);
    assert_eq!(left((Unbounded, Excluded(""))), all);
    assert_eq!(left((Unbounded, Unbounded)), [""; 0]);
    put_all(&db, &all, "v");
    wait(db.delete_prefix("a")).unwrap();
    assert_eq!(keys(&db), ["b", "c", "\u{7f}"]);
    wait(db.put([0xff, 0xff, 1], "v")).unwrap();
    wait(db.put([0xff, 0xfe], "v")).unwrap();
    wait(db.delete_prefix([0xff, 0xff])).unwrap();
    assert_eq!(get(&db, [0xff, 0xff, 1]), None);
    assert!(get(&db, [0xff, 0xfe]).is_some());
    wait(db.delete_prefix("")).unwrap();
    assert_eq!(wait(db.count()).unwrap(), 0);
}

/// Breaks if `clear` reaches into another keyspace.
#[test]
fn a_range_is_of_one_keyspace() {
    let store = Store::sim(0);
    let db = store.open();
    let [a, b] = ["a", "b"].map(|name| wait(db.keyspace(name)).unwrap());
    for handle in [&db, &*a, &*b] {
        put_all(handle, &["k", "l"], "v");
    }
    wait(a.clear()).unwrap();
    wait(b.delete_prefix("k")).unwrap();
    let check = |db: &Db| {
        let [a, b] = ["a", "b"].map(|name| wait(db.keyspace(name)).unwrap());
        assert_eq!(
            (keys(db), keys(&a), keys(&b)),
            (vec!["k".into(), "l".into()], vec![], vec!["l".into()])
        );
    };
    check(&db);
    worked_off(&db);
    check(&db);
    wait(db.close()).unwrap();
    check(&store.open());
}

/// W1, K3: breaks if what is put after a range goes with it, in the same group too, or what is put before stays.
#[test]
fn what_is_put_after_a_range_stays() {
    each_disk(|store| {
        let db = store.open_one();
        put_all(&db, &["k1", "k2", "k3"], "old");
        let results = wait(join_all((0..50).map(|round| {
            let db = &db;
            async move {
                let put = db.put("k1", format!("{round}"));
                let cleared = db.clear();
                // Polled in this order, so sent in this order.
                let (put, cleared, after) = futures::join!(put, cleared, db.put("k2", "new"));
                put.and(cleared).and(after)
            }
        })));
        results.into_iter().collect::<ringcask::Result<Vec<()>>>().unwrap();
        let check = |db: &Db| {
            assert_eq!(get(db, "k2").as_deref(), Some(b"new".as_slice()));
            assert_eq!((get(db, "k1"), get(db, "k3")), (None, None));
            assert_eq!(keys(db), ["k2"]);
        };
        check(&db);
        worked_off(&db);
        check(&db);
        wait(db.close()).unwrap();
        check(&store.open_one());
    });
}

/// UP1: breaks if an operation that looks finds a key that a range has, staged, on its way or published, or
/// does not find what was put after it.
#[test]
fn operations_that_look_find_no_key_of_a_range() {
    each_disk(|store| {
        let db = store.open_one();
        for is_worked_off in [false, true] {
            put_all(&db, &["a", "b", "c", "d", "e", "f", "g", "h"], "1");
            if is_worked_off {
                wait(db.clear()).unwrap();
                worked_off(&db);
            }
            // All in one turn of the worker: the range is staged when they are decided.
            let cleared = db.clear();
            let looks = join_all([
                db.put_if_absent("a", "2"),
                db.put_if_present("b", "2"),
                db.expire("c", Duration::from_secs(9)),
            ]);
            let (cleared, looks, sum, swap, old, was_there, len) = wait(async {
                futures::join!(
                    cleared,
                    looks,
                    db.incr("d", 5),
                    db.compare_and_swap("e", Expected::Absent, "2"),
                    db.get_and_put("f", "2"),
                    db.del("g"),
                    db.append("h", "xyz"),
                )
            });
            cleared.unwrap();
            let looks: Vec<bool> = looks.into_iter().map(|look| look.unwrap()).collect();
            assert_eq!(looks, [true, false, false]);
            assert_eq!((sum.unwrap(), swap.unwrap()), (5, Swap::Done));
            assert_eq!((old.unwrap(), was_there.unwrap(), len.unwrap()), (None, false, 3));
            assert_eq!(keys(&db), ["a", "d", "e", "f", "h"]);

            // Published, and perhaps not worked off: one after the other.
            put_all(&db, &["a", "b", "d"], "1");
            wait(db.clear()).unwrap();
            assert!(!wait(db.del("a")).unwrap());
            assert!(!wait(db.put_if_present("b", "2")).unwrap());
            assert_eq!(wait(db.incr("d", 7)).unwrap(), 7);
            assert!(wait(db.del("d")).unwrap());
            assert!(wait(db.put_if_absent("b", "2")).unwrap());
            assert_eq!(wait(db.get_and_del("b")).unwrap().unwrap(), "2");
            assert_eq!(keys(&db), [""; 0]);
        }
        wait(db.close()).unwrap();
        assert_eq!(keys(&store.open_one()), [""; 0]);
    });
}

/// Breaks if a million keys cost `clear` more than a record, or the accounts do not come out (K5).
#[test]
fn clearing_costs_one_record_a_partition() {
    let store = Store::blocking();
    let db = store.open_with(store.options().partitions(2).compaction(Compaction::off()));
    for chunk in 0..50 {
        let puts = (0..2000_u32).map(|n| {
            db.put((chunk * 2000 + n).to_le_bytes(), "v").durability(Durability::Buffered)
        });
        wait(try_join_all(puts)).unwrap();
    }
    let before = db.stats().total();
    wait(db.clear()).unwrap();
    let after = db.stats().total();
    assert_eq!((after.commit_records - before.commit_records, after.range_dels), (2, 2));
    assert!(after.commit_bytes - before.commit_bytes < 400);
    worked_off(&db);
    let total = db.stats().total();
    assert_eq!((total.keys, total.live_bytes, total.range_removed), (0, 0, 100_000));
    assert_eq!(total.range_dels_pending, 0);
    // Where there is nothing, nothing is written.
    wait(db.clear()).unwrap();
    assert_eq!(db.stats().total().commit_records, after.commit_records);
    let accounts_before = accounts(&db);
    wait(db.close()).unwrap();
    let db = store.open();
    assert_eq!(accounts(&db)[..4], accounts_before[..4]);
    wait(db.compact()).unwrap();
    assert_eq!(accounts(&db)[..5], [0; 5], "nothing is left, the tombstones neither");
}

/// Breaks if a walk over the files leaves out the log, a file without a hint, or one that compaction makes
/// meanwhile.
#[test]
fn every_file_is_rid_of_a_range() {
    let mut random = fastrand::Rng::with_seed(seed());
    for round in 0..10 {
        let store = Store::sim(random.u64(..));
        let options = store.options().partitions(1).data_file_len_max(4 << 10);
        let options = if round % 2 == 0 { options.compaction(Compaction::off()) } else { options };
        let db = store.open_with(options.clone());
        let mut model = BTreeMap::new();
        for _ in 0..40 {
            let puts: Vec<(String, String)> = (0..random.usize(1..30))
                .map(|_| (format!("{:02}", random.u8(..60)), "v".repeat(random.usize(..200))))
                .collect();
            for (key, value) in &puts {
                wait(db.put(key, value.clone())).unwrap();
                model.insert(key.clone().into_bytes(), value.clone().into_bytes());
            }
            let [mut from, mut to] = [(); 2].map(|()| format!("{:02}", random.u8(..60)));
            if from > to {
                std::mem::swap(&mut from, &mut to);
            }
            wait(db.delete_range(from.as_str()..to.as_str())).unwrap();
            model.retain(|key, _| key[..] < *from.as_bytes() || key[..] >= *to.as_bytes());
            if random.u8(..5) == 0 {
                let compacting = db.compact();
                let (_, deleted) = wait(join(compacting, db.delete_prefix("3")));
                deleted.unwrap();
                model.retain(|key, _| !key.starts_with(b"3"));
            }
            assert_eq!(contents(&db), model);
        }
        worked_off(&db);
        assert_eq!(db.stats().total().keys, model.len() as u64);
        assert_eq!(contents(&db), model);
        if round % 2 == 1 {
            // Or else it could go on between the count and the close.
            wait(db.compact()).unwrap();
        }
        let counted = accounts(&db);
        wait(db.close()).unwrap();
        if round % 3 == 0 {
            store.spoil_hints();
        }
        let db = store.open_with(options.compaction(Compaction::off()));
        assert_eq!(contents(&db), model);
        assert_eq!(accounts(&db)[..4], counted[..4], "K5: accounts are the same after a reopen");
        wait(db.compact()).unwrap();
        assert_eq!(contents(&db), model);
        wait(db.close()).unwrap();
        assert!(wait(store.options().verify(store.path())).unwrap().is_sound());
        assert_eq!(contents(&store.open()), model);
    }
}

/// C1: breaks if a range tombstone goes while a file that stays has what it hides; the keys would be back at the
/// next open.
#[test]
fn a_range_tombstone_outlives_what_it_hides() {
    for is_worked_off in [false, true] {
        let store = Store::sim(0);
        let db = store.open_with(quiet(&store));
        put_all(&db, &["a", "k1", "k2", "z"], "v");
        wait(db.close()).unwrap();
        let db = store.open_with(quiet(&store));
        put_all(&db, &["k3"], "v");
        wait(db.delete_prefix("k")).unwrap();
        if is_worked_off {
            worked_off(&db);
        }
        wait(db.close()).unwrap();

        // The tombstone's file alone: it has to stay for the sake of the older one.
        let db = store.open_with(quiet(&store));
        wait(db.compact_files(0, &[2])).unwrap();
        wait(db.close()).unwrap();
        let db = store.open_with(quiet(&store));
        assert_eq!(keys(&db), ["a", "z"]);
        assert!(db.stats().total().shadow_bytes > 0);
        // Both: nothing is left to hide.
        wait(db.compact()).unwrap();
        wait(db.compact()).unwrap();
        assert_eq!(db.stats().total().shadow_bytes, 0);
        wait(db.close()).unwrap();
        let db = store.open_with(quiet(&store));
        assert_eq!(keys(&db), ["a", "z"]);
    }
}

/// C1: breaks if churn of inserting and clearing leaves more behind each time.
#[test]
fn clearing_again_and_again_does_not_leak() {
    let store = Store::sim(0);
    let db = store.open_with(store.options().partitions(1).data_file_len_max(16 << 10));
    wait(db.put("other", "stays")).unwrap();
    let mut largest = 0;
    for round in 0..60 {
        let puts = (0..100).map(|n| db.put(format!("k{n}"), vec![round; 100]));
        wait(try_join_all(puts)).unwrap();
        wait(db.delete_prefix("k")).unwrap();
        worked_off(&db);
        if round == 20 {
            largest = store.used_bytes();
        }
    }
    assert_eq!(keys(&db), ["other"]);
    assert!(store.used_bytes() < 2 * largest, "{} after {largest}", store.used_bytes());
    wait(db.compact()).unwrap();
    wait(db.compact()).unwrap();
    assert_eq!(db.stats().total().shadow_bytes, 0);
    assert!(db.stats().total().log_bytes < 1000);
}

/// Breaks if entries with a time to live leave their times behind when a range takes them.
#[test]
fn times_to_live_go_with_their_keys() {
    let store = Store::sim(0);
    let db = store.open_with(quiet(&store));
    for key in ["k1", "k2", "l"] {
        wait(db.put(key, "v").ttl(Duration::from_secs(1000))).unwrap();
    }
    wait(db.delete_prefix("k")).unwrap();
    wait(db.put("k2", "again")).unwrap();
    worked_off(&db);
    let total = db.stats().total();
    assert_eq!((total.keys, total.keys_mortal), (2, 1));
    wait(db.close()).unwrap();
    let db = store.open_with(quiet(&store));
    let total = db.stats().total();
    assert_eq!((total.keys, total.keys_mortal), (2, 1));
    assert_eq!(keys(&db), ["k2", "l"]);
}

/// W2: breaks if a range that was acknowledged as durable is not, or a buffered one tears what is beside it.
#[test]
fn a_range_is_as_durable_as_asked() {
    let store = Store::sim(0);
    // Zeros that are written ahead are synced, and what lies before them too.
    let db = store.open_with(quiet(&store).prewrite(false));
    put_all(&db, &["a", "b"], "v");
    wait(db.delete_prefix("a").durability(Durability::Buffered)).unwrap();
    assert_eq!(keys(&db), ["b"]);
    let lost = store.on(store.disk().power_cut(Cut::DropUnsynced));
    assert_eq!(keys(&lost.open_one()), ["a", "b"]);
    let killed = store.on(store.disk().kill());
    assert_eq!(keys(&killed.open_one()), ["b"]);
    wait(db.delete_prefix("b")).unwrap();
    let kept = store.on(store.disk().power_cut(Cut::DropUnsynced));
    assert_eq!(keys(&kept.open_one()), [""; 0]);
}

/// SP3: breaks if a full disk keeps ranges from being deleted, which is how it gets space again.
#[test]
fn a_full_disk_can_be_cleared() {
    let store = Store::sim(0);
    let options = store.options().partitions(1).data_file_len_max(64 << 10);
    let db = store.open_with(options);
    for n in 0..40 {
        wait(db.put(format!("k{n}"), vec![7; 4000])).unwrap();
    }
    wait(db.put("kept", "v")).unwrap();
    store.disk().capacity_bytes(Some(store.used_bytes()));
    let refused = wait(db.put("big", vec![7; 60_000])).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoSpace);
    wait(db.delete_prefix("k0")).unwrap();
    wait(db.delete_range("k1".."kept")).unwrap();
    worked_off(&db);
    wait(db.compact()).unwrap();
    wait(db.put("big", vec![7; 60_000])).unwrap();
    assert_eq!(keys(&db), ["big", "kept"]);
    wait(db.close()).unwrap();
    assert_eq!(keys(&store.open_one()), ["big", "kept"]);
}

/// Breaks if a range that failed to be written hides anything, or a later one goes wrong by it.
#[test]
fn a_range_that_fails_hides_nothing() {
    for op in 0..4 {
        let store = Store::sim(0);
        let db = store.open_with(quiet(&store).prewrite(false));
        put_all(&db, &["a", "b"], "v");
        store.disk().fail_op(store.disk().ops() + op, ENOSPC, false);
        let cleared = wait(db.clear());
        store.disk().clear_faults();
        if cleared.is_err() && db.stats().total().poisoned.is_none() {
            assert_eq!(keys(&db), ["a", "b"]);
            assert!(!wait(db.put_if_absent("a", "w")).unwrap());
            wait(db.delete_prefix("a")).unwrap();
            assert_eq!(keys(&db), ["b"]);
        }
        let _poisoned = wait(db.close());
        let found = keys(&store.open_one());
        assert!(found.is_empty() || cleared.is_err(), "{op}: {found:?}");
    }
}

/// Breaks if a hint with a range, or a file with one, does not pass what looks at files: verify, scrub, repair.
#[test]
fn verify_and_repair_keep_ranges() {
    let store = Store::sim(0);
    let db = store.open_with(quiet(&store));
    put_all(&db, &["a", "b"], "v");
    wait(db.close()).unwrap();
    let db = store.open_with(quiet(&store));
    put_all(&db, &["b", "c"], "w");
    wait(db.delete_range("b".."c")).unwrap();
    put_all(&db, &["bb"], "x");
    wait(db.close()).unwrap();
    assert!(store.image().keys().any(|file| is_hint(file)));
    let report = wait(store.options().verify(store.path())).unwrap();
    assert!(report.is_sound() && report.misrouted_records == 0, "{report:?}");

    // A damaged record beside it: the range is copied with the others.
    let file = "partition-000/000000002.data";
    let mut bytes = store.read(file);
    let at = bytes.windows(2).position(|pair| pair == b"cw").unwrap();
    bytes[at + 1] ^= 1;
    store.write(file, &bytes);
    let report = wait(store.options().repair(store.path())).unwrap();
    assert_eq!((report.records_kept, report.records_lost), (3, 1));
    let db = store.open_with(quiet(&store));
    assert_eq!(keys(&db), ["a", "bb"]);
    wait(db.compact()).unwrap();
    assert_eq!(keys(&db), ["a", "bb"]);
}

/// RD2, KS4: breaks if a dropped keyspace can be read or written, or leaves anything to one of its name.
#[test]
fn a_dropped_keyspace_is_gone() {
    each_disk(|store| {
        let db = store.open();
        let old = wait(db.keyspace("s")).unwrap();
        put_all(&old, &["a", "b"], "v");
        put_all(&db, &["a"], "v");
        assert!(!wait(db.drop_keyspace("other")).unwrap());
        assert!(wait(db.drop_keyspace("s")).unwrap());
        assert_eq!(db.keyspaces(), [""; 0]);
        let errors = [
            wait(old.get("a")).unwrap_err(),
            wait(old.put("a", "w")).unwrap_err(),
            wait(old.del("a")).unwrap_err(),
            wait(old.incr("n", 1)).unwrap_err(),
            wait(old.clear()).unwrap_err(),
            wait(old.count()).unwrap_err(),
        ];
        assert!(
            errors.iter().all(|error| error.kind() == ErrorKind::KeyspaceDropped),
            "{errors:?}"
        );
        let new = wait(db.keyspace("s")).unwrap();
        assert_eq!(keys(&new), [""; 0]);
        put_all(&new, &["b"], "new");
        worked_off(&db);
        assert_eq!(db.stats().total().keys, 2);
        assert!(wait(old.get("b")).is_err());
        wait(db.close()).unwrap();
        let db = store.open();
        let new = wait(db.keyspace("s")).unwrap();
        assert_eq!((keys(&db), keys(&new)), (vec!["a".to_owned()], vec!["b".to_owned()]));
        wait(db.compact()).unwrap();
        assert_eq!((keys(&db), keys(&new)), (vec!["a".to_owned()], vec!["b".to_owned()]));
        wait(db.close()).unwrap();
    });
}

/// KS4: breaks if a crash leaves a keyspace dropped by half.
#[test]
fn a_drop_that_was_cut_short_is_finished_by_the_next_open() {
    let begin = |store: &Store| {
        let db = store.open_with(store.options().partitions(2).compaction(Compaction::off()));
        let space = wait(db.keyspace("s")).unwrap();
        put_all(&space, &["a", "b", "c", "d"], "v");
        put_all(&db, &["a"], "v");
        db
    };
    let mut seen = [0; 2];
    for op in 0.. {
        let store = Store::sim(0);
        let db = begin(&store);
        store.disk().crash_at(store.disk().ops() + op);
        let dropped = wait(db.drop_keyspace("s"));
        for cut in [Cut::DropUnsynced, Cut::KeepAll] {
            let after = store.on(store.disk().power_cut(cut));
            let db = after.open();
            let is_there = db.keyspaces() == ["s"];
            seen[usize::from(is_there)] += 1;
            assert!(dropped.is_err() || !is_there, "{op}: it is back");
            let space = wait(db.keyspace("s")).unwrap();
            let expected: &[&str] = if is_there { &["a", "b", "c", "d"] } else { &[] };
            assert_eq!(keys(&space), expected, "{op}: dropped by half");
            assert_eq!(keys(&db), ["a"]);
            wait(db.close()).unwrap();
        }
        if dropped.is_ok() {
            break;
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

/// Breaks if deleting more ranges than are kept at once is refused, or never answered.
#[test]
fn more_ranges_than_are_kept_at_once_wait() {
    let store = Store::sim(0);
    let db = store.open_with(quiet(&store));
    let count = 3 * ringcask::limits::RANGES_PENDING_MAX;
    let key = |n: usize| Bytes::from(format!("{n:06}"));
    let puts = (0..count).map(|n| db.put(key(n), "v").durability(Durability::Buffered));
    wait(try_join_all(puts)).unwrap();
    wait(db.put("kept", "v")).unwrap();
    wait(try_join_all((0..count).map(|n| db.delete_prefix(key(n))))).unwrap();
    assert_eq!(keys(&db), ["kept"]);
    worked_off(&db);
    assert_eq!(db.stats().total().keys, 1);
    let closing = (0..count).map(|n| db.delete_prefix(key(n)));
    let (deleted, closed) = wait(join(join_all(closing), db.close()));
    closed.unwrap();
    let refused = deleted.iter().filter_map(|deleted| deleted.as_ref().err());
    assert!(
        refused.into_iter().all(ringcask::Error::is_closed),
        "R1: done, or told that it is closed"
    );
    assert_eq!(keys(&store.open_with(quiet(&store))), ["kept"]);
}

/// RG2: breaks if a reader on another thread sees a key after `clear` was acknowledged, while ranges are
/// worked off and compaction moves what is left.
#[test]
fn readers_never_see_a_key_that_was_cleared() {
    let store = Store::uring();
    let db = store.open_with(store.options().partitions(2).data_file_len_max(64 << 10));
    let round = AtomicU64::new(0);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (db, round, is_done) = (db.clone(), &round, &is_done);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                while !is_done.load(SeqCst) {
                    let cleared = round.load(SeqCst);
                    let key = format!("k{}", random.u32(..300));
                    if let Some(value) = wait(db.get(&key)).unwrap() {
                        let of_round: u64 = std::str::from_utf8(&value).unwrap().parse().unwrap();
                        assert!(of_round > cleared, "{key} of round {of_round} after {cleared}");
                    }
                }
            });
        }
        let end = defer(|| is_done.store(true, SeqCst));
        for n in 1..=150_u64 {
            let puts = (0..300).map(|key| {
                db.put(format!("k{key}"), n.to_string()).durability(Durability::Buffered)
            });
            wait(try_join_all(puts)).unwrap();
            wait(db.clear().durability(Durability::Buffered)).unwrap();
            round.store(n, SeqCst);
        }
        drop(end);
    });
    assert_eq!(wait(db.count()).unwrap(), 0);
    worked_off(&db);
    assert_eq!(db.stats().total().keys, 0);
}

/// Breaks if many keys that are read from the disk are held against the ranges there are when they have been read:
/// one may have been worked off since they were looked up.
#[test]
fn many_keys_are_hidden_while_their_range_is_worked_off() {
    let store = Store::sim(seed());
    let db = store.open_with(quiet(&store));
    store.disk().would_block(1.0);
    for round in 0..30 {
        let keys: Vec<String> = (0..3).map(|n| format!("{round} {n}")).collect();
        wait(try_join_all(keys.iter().map(|key| db.put(key, "v")))).unwrap();
        wait(db.clear()).unwrap();
        loop {
            let is_last = db.stats().total().range_dels_pending == 0;
            let found = wait(db.get_many(&keys)).unwrap();
            assert!(found.iter().all(Option::is_none), "round {round}");
            if is_last {
                break;
            }
        }
    }
    wait(db.close()).unwrap();
}

/// Breaks if a batch takes a key for one that is there, of which the keydir has a record that a range hides; or the other
/// way round one that was put behind the range, before it is worked off.
#[test]
fn a_batch_counts_no_key_that_a_range_hides() {
    each_disk(|store| {
        for (partitions, is_cold) in [(1, false), (3, false), (3, true)] {
            let other = Store::sim(seed());
            let store = if is_cold || partitions == 3 { &other } else { store };
            let db = store.open_with(store.options().partitions(partitions));
            if is_cold {
                store.disk().would_block(1.0);
            }
            let all: Vec<String> = (0..12).map(|n| format!("key {n}")).collect();
            let put_all = |value: &str| {
                wait(try_join_all(all.iter().map(|key| db.put(key, value)))).unwrap();
            };
            let batch = || {
                let puts = all.iter().step_by(2);
                let batch = puts.fold(WriteBatch::new(), |batch, key| batch.put(key, "batch"));
                all.iter().skip(1).step_by(2).fold(batch, WriteBatch::del)
            };
            for round in 0..10 {
                put_all("old");
                let done = if partitions == 1 && round % 2 == 0 {
                    // In one turn of the worker: the range is staged when the batch is.
                    let (cleared, done) =
                        wait(async { futures::join!(db.clear(), db.write(batch())) });
                    cleared.unwrap();
                    done.unwrap()
                } else {
                    wait(db.clear()).unwrap();
                    wait(db.write(batch())).unwrap()
                };
                assert_eq!((done.puts, done.dels, done.were_there), (6, 6, 0), "round {round}");
                assert_eq!(contents(&db).len(), 6);
                let done = wait(db.write(batch())).unwrap();
                assert_eq!(done.were_there, 6, "what was put behind the range, round {round}");

                put_all("old");
                wait(db.delete_range("key 0".."key 2")).unwrap();
                wait(db.put("key 1", "behind it")).unwrap();
                let done = wait(db.write(batch())).unwrap();
                let hidden = all.iter().filter(|key| &key[..] < "key 2" && &key[..] != "key 1");
                assert_eq!(done.were_there as usize, 12 - hidden.count(), "round {round}");
            }
            worked_off(&db);
            assert_eq!(db.stats().total().keys as usize, contents(&db).len());
            wait(db.close()).unwrap();
        }
    });
}
