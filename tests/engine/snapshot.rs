//! Snapshots: what was there at one moment over all partitions, whatever is done afterwards (S1).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use futures::future::{FutureExt, try_join, try_join_all};
use ringcask::sim::SimClock;
use ringcask::{Compaction, Db, Durability, ErrorKind, Eviction, Options, Snapshot, WriteBatch};

use crate::support::{EIO, Store, bytes_of, contents, defer, each_disk, get, seed, wait};

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// Gives all keys another number, in one batch, until it is over.
pub(crate) fn write_batches(db: &Db, keys: &[String], is_over: &AtomicBool) {
    for n in 1_u64.. {
        let batch =
            keys.iter().fold(WriteBatch::new(), |batch, key| batch.put(key, n.to_le_bytes()));
        wait(db.write(batch)).unwrap();
        if is_over.load(Ordering::SeqCst) {
            break;
        }
    }
}

fn options(store: &Store) -> Options {
    let options = store.options().partitions(3).data_file_len_max(16 << 10);
    options.durability(Durability::Buffered)
}

/// Holds a snapshot against what was there, by every way to read it.
fn check(snapshot: &Snapshot, expected: &Contents, random: &mut fastrand::Rng) {
    let all: Vec<(bytes::Bytes, bytes::Bytes)> = wait(snapshot.scan().try_collect()).unwrap();
    let found: Contents = all.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    assert_eq!(all.len(), found.len(), "a key is seen twice");
    let differ = |key: &&Vec<u8>| found.get(*key) != expected.get(*key);
    let wrong: Vec<_> = found.keys().chain(expected.keys()).filter(differ).take(5).collect();
    assert!(wrong.is_empty(), "{} of {} keys, wrong: {wrong:?}", found.len(), expected.len());
    let backwards: Vec<_> = wait(snapshot.scan().reverse().keys().try_collect()).unwrap();
    assert!(backwards.iter().rev().map(|key| &key[..]).eq(expected.keys().map(|key| &key[..])));
    assert_eq!(wait(snapshot.count()).unwrap() as usize, expected.len());
    let mut asked: Vec<Vec<u8>> = (0..20).map(|_| bytes_of(random, 3)).collect();
    if !expected.is_empty() {
        let keys: Vec<&Vec<u8>> = expected.keys().collect();
        asked.extend((0..20).map(|_| (*random.choice(&keys).unwrap()).clone()));
    }
    let many = wait(snapshot.get_many(&asked)).unwrap();
    for (key, value) in asked.iter().zip(many) {
        let wanted = expected.get(key);
        assert_eq!(value.as_deref(), wanted.map(|value| &value[..]));
        assert_eq!(wait(snapshot.get(key)).unwrap(), value);
        assert_eq!(wait(snapshot.contains_key(key)).unwrap(), wanted.is_some());
        let entry = wait(snapshot.entry(key)).unwrap();
        assert_eq!(entry.map(|entry| entry.value_len), wanted.map(|value| value.len() as u64));
    }
    let prefix = bytes_of(random, 1);
    let with_prefix = wait(snapshot.scan().prefix(&prefix).count()).unwrap();
    let wanted = expected.keys().filter(|key| key.starts_with(&prefix)).count();
    assert_eq!(with_prefix as usize, wanted);
}

/// Breaks if anything that is done to the store shows in a snapshot.
#[test]
fn ten_thousand_overwrites_later_the_old_values_are_there() {
    let seed = seed();
    each_disk(|store| {
        let random = &mut fastrand::Rng::with_seed(seed);
        let db = store.open_with(options(store));
        let key = |n: u32| format!("key {n:04}");
        let value = |n: u32, round: u32| format!("{round}:{n}").repeat(20).into_bytes();
        let puts = (0..500).map(|n| db.put(key(n), value(n, 0)));
        wait(try_join_all(puts)).unwrap();
        wait(db.put("long", vec![7; 200_000])).unwrap();
        let mut expected: Contents = (0..500).map(|n| (key(n).into_bytes(), value(n, 0))).collect();
        expected.insert(b"long".to_vec(), vec![7; 200_000]);
        let before = wait(db.snapshot()).unwrap();
        for round in 1..=20 {
            let puts = (0..500).map(|n| db.put(key(n), value(n, round)));
            wait(try_join_all(puts)).unwrap();
            if round == 10 {
                check(&before, &expected, random);
                wait(db.compact()).unwrap();
                check(&before, &expected, random);
            }
        }
        let between = wait(db.snapshot()).unwrap();
        let then = contents(&db);
        wait(db.put("new", "v")).unwrap();
        wait(db.del("long")).unwrap();
        wait(db.delete_prefix("key 03")).unwrap();
        wait(db.compact()).unwrap();
        check(&before, &expected, random);
        check(&between, &then, random);
        wait(db.clear()).unwrap();
        wait(db.compact()).unwrap();
        check(&between, &then, random);
        assert!(contents(&db).is_empty());
        let stats = db.stats();
        assert!(stats.snapshots == 2 && stats.snapshot_bytes > 0);
        drop(between);
        check(&before, &expected, random);
        drop(before);
        assert_eq!((db.stats().snapshots, db.stats().snapshot_bytes), (0, 0));
        wait(db.close()).unwrap();
    });
}

/// Breaks if any kind of change goes by without being noted: expiry, deletion by range, a batch, compaction that moved
/// what is changed afterwards.
#[test]
fn several_snapshots_each_show_their_moment_whatever_happens() {
    let seed = seed();
    for round in 0..12 {
        let random = &mut fastrand::Rng::with_seed(seed + round);
        let store = Store::sim(seed + round);
        let clock = SimClock::new(1_700_000_000_000);
        let db = store.open_with(options(&store).clock(clock.clone()));
        let mut snapshots: Vec<(Snapshot, Contents)> = Vec::new();
        let key = |random: &mut fastrand::Rng| vec![b'a' + random.u8(..4), random.u8(..40)];
        for _ in 0..400 {
            match random.u8(..40) {
                0 => assert!(wait(db.compact()).is_ok()),
                1 => wait(db.delete_range([b'a' + random.u8(..4), random.u8(..40)]..)).unwrap(),
                2 => wait(db.delete_prefix([b'a' + random.u8(..4)])).unwrap(),
                3..6 => clock.advance(Duration::from_secs(random.u64(..4))),
                6..9 if snapshots.len() < 4 => {
                    let snapshot = wait(db.snapshot()).unwrap();
                    snapshots.push((snapshot, contents(&db)));
                }
                6..9 => {
                    let (snapshot, expected) = snapshots.swap_remove(random.usize(..4));
                    check(&snapshot, &expected, random);
                }
                9..13 => {
                    let count = random.usize(1..8);
                    let batch = (0..count).fold(WriteBatch::new(), |batch, _| {
                        if random.bool() {
                            batch.put(key(random), bytes_of(random, 30))
                        } else {
                            batch.del(key(random))
                        }
                    });
                    wait(db.write(batch)).unwrap();
                }
                13..20 => assert!(wait(db.del(key(random))).is_ok()),
                _ => {
                    let len = random.usize(..400);
                    let put = db.put(key(random), bytes_of(random, len));
                    let ttl = Duration::from_secs(random.u64(1..8));
                    wait(if random.bool() { put.ttl(ttl) } else { put }).unwrap();
                }
            }
            if random.u8(..10) == 0 {
                for (snapshot, expected) in &snapshots {
                    check(snapshot, expected, random);
                }
            }
        }
        for (snapshot, expected) in &snapshots {
            check(snapshot, expected, random);
        }
        wait(db.close()).unwrap();
    }
}

/// S1: breaks if partitions are looked at one after the other: a snapshot could have the effect without its cause, or
/// half of a batch.
#[test]
fn all_partitions_are_shown_at_one_moment() {
    for store in [Store::uring(), Store::blocking()] {
        let options = store.options().partitions(4).workers(2).durability(Durability::Buffered);
        let db = store.open_with(options);
        let by_partition = |index: usize| {
            let mut keys = (0..).map(|n| format!("key {n}"));
            keys.find(|key| db.partition_of(key) == index).unwrap()
        };
        let keys: Vec<String> = (0..4).map(by_partition).collect();
        let batch_keys: Vec<String> = keys.iter().map(|key| format!("{key}, batch")).collect();
        let number = |value: Option<bytes::Bytes>| {
            value.map_or(0, |value| u64::from_le_bytes(value[..].try_into().unwrap()))
        };
        let (is_over, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1_u64.. {
                    for key in &keys {
                        wait(db.put(key, n.to_le_bytes())).unwrap();
                    }
                    rounds.store(n, Ordering::SeqCst);
                    if is_over.load(Ordering::SeqCst) {
                        break;
                    }
                }
            });
            scope.spawn(|| write_batches(&db, &batch_keys, &is_over));
            let end = defer(|| is_over.store(true, Ordering::SeqCst));
            for _ in 0..400 {
                let acknowledged = rounds.load(Ordering::SeqCst);
                let snapshot = wait(db.snapshot()).unwrap();
                let found = wait(snapshot.get_many(&keys)).unwrap();
                let found: Vec<u64> = found.into_iter().map(number).collect();
                assert!(found.windows(2).all(|pair| pair[0] >= pair[1]), "{found:?}");
                assert!(found[0] - found[3] <= 1, "{found:?}");
                assert!(found[3] >= acknowledged, "{found:?} after {acknowledged}");
                let batch = wait(snapshot.get_many(&batch_keys)).unwrap();
                assert!(batch.iter().all(|value| *value == batch[0]), "half of a batch");
                assert_eq!(wait(snapshot.get_many(&batch_keys)).unwrap(), batch);
            }
            drop(end);
        });
        wait(db.close()).unwrap();
    }
}

/// S1: breaks if a partition answers writes that its mark does not have, while another one still publishes what its own
/// mark will have. Seen from outside: whoever was answered `second` finds `first` absent, and a snapshot has it the
/// other way round.
#[test]
fn no_partition_publishes_between_the_marks_of_two() {
    for (first, second) in [(0, 1), (1, 0)] {
        let store = Store::sim(seed());
        let db = store.open_with(store.options().partitions(2).workers(2));
        let key = |partition| {
            let mut keys = (0..).map(|n| format!("key {n}"));
            keys.find(|key| db.partition_of(key) == partition).unwrap()
        };
        let (first, second) = (key(first), key(second));
        store.disk().stall_syncs(true);
        let mut put_first = db.put(&first, "v").into_future().boxed();
        assert!((&mut put_first).now_or_never().is_none());
        while store.disk().stalled() == 0 {
            std::thread::yield_now();
        }
        let mut snapshot = db.snapshot().boxed();
        assert!((&mut snapshot).now_or_never().is_none());
        let mut put_second =
            db.put(&second, "v").durability(Durability::Buffered).into_future().boxed();
        // Held, it is never answered meanwhile. If it were, that would take no longer than this.
        for _ in 0..200 {
            assert!((&mut put_second).now_or_never().is_none(), "answered while it should be held");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(wait(db.get(&first)).unwrap(), None);
        store.disk().stall_syncs(false);
        let snapshot = wait(snapshot).unwrap();
        wait(try_join(put_first, put_second)).unwrap();
        assert_eq!(wait(snapshot.get(&first)).unwrap().as_deref(), Some(b"v".as_slice()));
        assert_eq!(wait(snapshot.get(&second)).unwrap(), None);
        assert_eq!(contents(&db).len(), 2);
        wait(db.close()).unwrap();
    }
}

/// GA1: breaks if partitions wait for somebody who does not want his snapshot any more.
#[test]
fn a_snapshot_that_nobody_waits_for_holds_nobody() {
    each_disk(|store| {
        let db = store.open_with(options(store));
        for round in 0..40_u32 {
            let puts = (0..50_u32).map(|n| db.put(n.to_le_bytes(), round.to_le_bytes()));
            let snapshot = db.snapshot();
            let dropped = async {
                let mut snapshot = Box::pin(snapshot);
                for _ in 0..round % 4 {
                    if (&mut snapshot).now_or_never().is_some() {
                        break;
                    }
                }
                Ok(())
            };
            wait(try_join(try_join_all(puts), dropped)).unwrap();
        }
        wait(db.sync()).unwrap();
        let mut looks = 0;
        while db.stats().snapshots > 0 {
            std::thread::yield_now();
            looks += 1;
            assert!(looks < 10_000_000, "a snapshot that was dropped lives on");
        }
        wait(db.close()).unwrap();
    });
}

/// Descriptors of this process on files of the store, and of these on files that have lost their names.
fn open_files(store: &Store) -> (usize, usize) {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    let ours: Vec<_> = targets.filter(|target| target.starts_with(store.path())).collect();
    let is_deleted =
        |target: &&std::path::PathBuf| target.to_string_lossy().ends_with(" (deleted)");
    (ours.len(), ours.iter().filter(is_deleted).count())
}

/// Breaks if a dropped snapshot keeps files, on disk or open.
#[test]
fn a_dropped_snapshot_gives_back_what_it_held() {
    for store in [Store::uring(), Store::blocking()] {
        let random = &mut fastrand::Rng::with_seed(seed());
        let db = store.open_with(options(&store).compaction(Compaction::off()));
        let fill = |round: u8| {
            let puts = (0..300_u32).map(|n| db.put(n.to_le_bytes(), vec![round; 300]));
            wait(try_join_all(puts)).unwrap();
        };
        fill(1);
        fill(2);
        let expected = contents(&db);
        let (snapshot, other) = (wait(db.snapshot()).unwrap(), wait(db.snapshot()).unwrap());
        let clone = snapshot.clone();
        let mut scan = snapshot.scan();
        assert!(wait(scan.next()).unwrap().is_ok());
        fill(3);
        wait(db.compact()).unwrap();
        // In files that the moment did not have.
        fill(4);
        wait(db.compact()).unwrap();
        drop((snapshot, other));
        check(&clone, &expected, random);
        assert!(open_files(&store).1 > 0, "nothing was held, so nothing can be given back");
        drop(clone);
        let rest: Vec<_> = wait(scan.try_collect()).unwrap();
        assert_eq!(rest.len(), 299);
        let mut left = usize::MAX;
        for _ in 0..1000 {
            left = open_files(&store).1;
            if left == 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(left, 0, "files are still held");
        wait(db.close()).unwrap();
    }
}

#[test]
fn a_snapshot_ends_when_it_is_too_old() {
    let store = Store::sim(seed());
    let clock = SimClock::new(1_700_000_000_000);
    let (age, moment) = (Duration::from_secs(60), Duration::from_millis(1));
    let db = store.open_with(options(&store).clock(clock.clone()).snapshot_age_max(age));
    wait(db.put("k", "v")).unwrap();
    let snapshot = wait(db.snapshot()).unwrap();
    let mut scan = snapshot.scan();
    clock.advance(Duration::from_millis(59_999));
    wait(db.put("k", "w")).unwrap();
    assert_eq!(wait(snapshot.get("k")).unwrap().unwrap(), "v");
    clock.advance(moment);
    for error in [
        wait(snapshot.get("k")).unwrap_err(),
        wait(snapshot.get("never")).unwrap_err(),
        wait(snapshot.get_many(["k"])).unwrap_err(),
        wait(snapshot.count()).unwrap_err(),
        wait(scan.next()).unwrap().unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::SnapshotEnded, "{error}");
        assert!(error.to_string().contains("older than 60s"), "{error}");
    }
    assert_eq!(db.stats().snapshots, 0);
    let next = wait(db.snapshot()).unwrap();
    assert_eq!(wait(next.get("k")).unwrap().unwrap(), "w");
    wait(db.close()).unwrap();
    let db = store.open_with(options(&store).clock(clock.clone()).snapshot_age_max(None));
    let snapshot = wait(db.snapshot()).unwrap();
    clock.advance(Duration::from_secs(1 << 30));
    assert_eq!(wait(snapshot.get("k")).unwrap().unwrap(), "w");
    wait(db.close()).unwrap();
}

/// SS3: breaks if a snapshot that is given up for its memory says something wrong instead of an error.
#[test]
fn the_oldest_snapshot_ends_when_too_much_changes() {
    let store = Store::sim(seed());
    let db = store.open_with(options(&store).snapshot_bytes_max(200_000));
    let put_all = |value: &str| {
        let puts = (0..3000_u32).map(|n| db.put(n.to_le_bytes(), value.to_owned()));
        wait(try_join_all(puts)).unwrap();
    };
    put_all("old");
    let oldest = wait(db.snapshot()).unwrap();
    for n in 0..100_u32 {
        wait(db.put(n.to_le_bytes(), "middle")).unwrap();
    }
    let youngest = wait(db.snapshot()).unwrap();
    let mut right = 0;
    for n in 0..3000_u32 {
        wait(db.del(n.to_le_bytes())).unwrap();
        let asked = n / 2;
        match wait(oldest.get(asked.to_le_bytes())) {
            Ok(value) => right += u32::from(value.unwrap() == "old"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::SnapshotEnded);
                assert!(error.to_string().contains("200000 bytes"), "{error}");
                assert_eq!(right, n, "nothing wrong before that");
                break;
            }
        }
        assert!(db.stats().snapshot_bytes <= 200_000);
    }
    assert!(right > 100 && wait(oldest.count()).is_err());
    let value = wait(youngest.get(0_u32.to_le_bytes())).unwrap().unwrap();
    assert_eq!(value, "middle");
    assert_eq!(wait(youngest.count()).unwrap(), 3000);
    assert_eq!(db.stats().snapshots, 1);
    wait(db.close()).unwrap();
}

#[test]
fn a_closed_store_has_no_snapshots() {
    each_disk(|store| {
        let db = store.open_with(options(store));
        wait(db.put("k", "v")).unwrap();
        let snapshot = wait(db.snapshot()).unwrap();
        wait(db.del("k")).unwrap();
        let mut scan = snapshot.scan();
        wait(db.close()).unwrap();
        let errors = [
            wait(snapshot.get("k")).unwrap_err(),
            wait(snapshot.get("never")).unwrap_err(),
            wait(scan.next()).unwrap().unwrap_err(),
            wait(db.snapshot()).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        }
        let db = store.open_with(options(store));
        assert_eq!(get(&db, "k"), None);
        assert!(wait(snapshot.get("k")).unwrap_err().is_closed());
        wait(db.close()).unwrap();
    });
}

/// Breaks if a snapshot takes damage for a key that was not there.
#[test]
fn damage_is_told_and_other_keys_are_read() {
    let store = Store::sim(seed());
    let db = store.open_with(options(&store).partitions(1).compaction(Compaction::off()));
    wait(db.put("damaged", vec![1; 100])).unwrap();
    wait(db.put("sound", "v")).unwrap();
    let snapshot = wait(db.snapshot()).unwrap();
    wait(db.clear()).unwrap();
    let file = &store.data_files()[0];
    let bytes = store.read(file);
    let at = bytes.windows(50).position(|window| window == [1; 50]).unwrap() as u64;
    store.disk().flip(store.path().join(file), at, 4).unwrap();
    let error = wait(snapshot.get("damaged")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.location().is_some());
    assert_eq!(wait(snapshot.get("sound")).unwrap().unwrap(), "v");
    wait(db.close()).unwrap();
}

#[test]
fn what_was_evicted_stays_in_the_snapshot() {
    let store = Store::sim(seed());
    let options = options(&store).partitions(1).entries_max(50).eviction(Eviction::Lru);
    let db = store.open_with(options);
    for n in 0..40_u32 {
        wait(db.put(n.to_le_bytes(), "old")).unwrap();
    }
    let snapshot = wait(db.snapshot()).unwrap();
    let expected = contents(&db);
    for n in 100..400_u32 {
        wait(db.put(n.to_le_bytes(), "new")).unwrap();
    }
    wait(db.compact()).unwrap();
    assert!(db.stats().total().evicted > 200);
    check(&snapshot, &expected, &mut fastrand::Rng::with_seed(seed()));
    wait(db.close()).unwrap();
}

#[test]
fn keyspaces_are_shown_at_the_same_moment() {
    let store = Store::sim(seed());
    let db = store.open_with(options(&store));
    let left = wait(db.keyspace("left")).unwrap();
    let right = wait(db.keyspace("right")).unwrap();
    wait(db.put("k", "default")).unwrap();
    wait(left.put("k", "left")).unwrap();
    wait(right.put("k", "right")).unwrap();
    let of_left = wait(left.snapshot()).unwrap();
    wait(left.put("k", "later")).unwrap();
    assert!(wait(db.drop_keyspace("right")).unwrap());
    let late = wait(db.keyspace("late")).unwrap();
    wait(late.put("k", "v")).unwrap();
    assert_eq!(wait(of_left.get("k")).unwrap().unwrap(), "left");
    let of_default = of_left.keyspace(&db).unwrap();
    assert_eq!(wait(of_default.get("k")).unwrap().unwrap(), "default");
    assert_eq!(wait(of_left.keyspace(&late).unwrap().count()).unwrap(), 0);
    let error = of_left.keyspace(&right).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyspaceDropped);
    let other = Store::sim(1);
    let other_db: Db = other.open();
    let error = of_left.keyspace(&other_db).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    wait(other_db.close()).unwrap();
    wait(db.close()).unwrap();
}

/// Breaks if a partition that takes no writes any more keeps others from marking, or cannot be read.
#[test]
fn a_store_that_takes_no_writes_can_be_looked_at() {
    let store = Store::sim(seed());
    let db = store.open_with(store.options().partitions(2));
    wait(db.put("k", "v")).unwrap();
    let before = wait(db.snapshot()).unwrap();
    store.disk().fail_syncs(EIO, true);
    let failed = (0..20).filter(|n| wait(db.put(format!("{n}"), "v")).is_err()).count();
    assert!(failed > 0);
    store.disk().clear_faults();
    let after = wait(db.snapshot()).unwrap();
    assert_eq!(wait(before.count()).unwrap(), 1);
    assert_eq!(wait(after.get("k")).unwrap().unwrap(), "v");
    assert_eq!(wait(after.count()).unwrap(), wait(db.count()).unwrap());
    drop(wait(db.close()));
}
