//! Batches: all of one happens or nothing, in one partition or across many, whoever looks and whatever fails.

use std::time::Duration;

use futures::future::join_all;
use ringcask::sim::Cut;
use ringcask::{Compaction, Db, Durability, ErrorKind, Options, WriteBatch};

use crate::support::{
    EIO, ENOSPC, Store, accounts, bytes_of, contents, each_disk, get, seed, wait,
};

/// A batch over every partition of `db`, `per_partition` keys in each, all with this value.
fn over_all(db: &Db, per_partition: usize, value: &[u8]) -> (WriteBatch, Vec<String>) {
    let keys = keys_in(db, per_partition);
    let batch = keys.iter().fold(WriteBatch::new(), |batch, key| batch.put(key, value));
    (batch, keys)
}

fn keys_in(db: &Db, per_partition: usize) -> Vec<String> {
    let partitions = db.stats().partitions.len();
    let mut counts = vec![0; partitions];
    let mut keys = Vec::new();
    for n in 0.. {
        if counts.iter().all(|count| *count == per_partition) {
            break;
        }
        let key = format!("key {n}");
        let count = &mut counts[db.partition_of(key.as_bytes())];
        if *count < per_partition {
            *count += 1;
            keys.push(key);
        }
    }
    keys
}

fn four(store: &Store) -> Options {
    store.options().partitions(4)
}

#[test]
fn a_batch_does_what_its_entries_say_and_counts_them() {
    each_disk(|store| {
        for partitions in [1, 3] {
            let dir = Store::sim(1);
            let store = if partitions == 1 { store } else { &dir };
            let db = store.open_with(store.options().partitions(partitions));
            wait(db.put("there", "0")).unwrap();
            wait(db.put("gone", "0")).unwrap();
            let batch = WriteBatch::new()
                .put("there", "1")
                .put("new", "2")
                .del("gone")
                .del("never")
                .put("twice", "a")
                .del("twice")
                .put("twice", "b");
            assert_eq!(batch.len(), 7);
            let done = wait(db.write(&batch)).unwrap();
            assert_eq!((done.puts, done.dels, done.were_there), (3, 2, 2));
            assert_eq!(get(&db, "there").unwrap(), "1");
            assert_eq!(get(&db, "new").unwrap(), "2");
            assert_eq!(get(&db, "twice").unwrap(), "b");
            assert_eq!(get(&db, "gone"), None);
            assert_eq!(db.stats().total().keys, 3);
            // It can be sent again.
            let done = wait(db.write(batch)).unwrap();
            assert_eq!((done.puts, done.dels, done.were_there), (3, 2, 3));
            wait(db.close()).unwrap();
            let db = store.open();
            assert_eq!(contents(&db).len(), 3);
            assert_eq!(get(&db, "twice").unwrap(), "b");
            wait(db.close()).unwrap();
        }
    });
}

#[test]
fn an_empty_batch_is_done_at_once() {
    let store = Store::sim(seed());
    let db = store.open();
    let mut batch = WriteBatch::new().put("k", "v");
    batch.clear();
    assert!(batch.is_empty());
    assert_eq!(wait(db.write(batch)).unwrap().puts, 0);
    assert!(store.data_files().is_empty());
    wait(db.close()).unwrap();
    let error = wait(db.write(WriteBatch::new())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[test]
fn a_batch_with_anything_invalid_writes_nothing() {
    let store = Store::sim(seed());
    let options = four(&store).key_len_max(20).value_len_max(100);
    let db = store.open_with(options.batch_entries_max(5).batch_bytes_max(1000));
    let good = || WriteBatch::new().put("a", "1").put("b", "2");
    for (batch, word) in [
        (good().put("", "x"), "empty"),
        (good().del(""), "empty"),
        (good().put("k".repeat(21), "x"), "key_len_max"),
        (good().put("k", vec![0; 101]), "value_len_max"),
        (good().put_with_ttl("k", "v", Duration::ZERO), "time to live"),
        (good().del("1").del("2").del("3").del("4"), "batch_entries_max is 5"),
        (good().put("k", vec![0; 1000]), "batch_bytes_max is 1000"),
    ] {
        let error = wait(db.write(batch)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(contents(&db).is_empty());
    wait(db.close()).unwrap();
}

/// Breaks if a batch over partitions is left behind in a shape that an open, a hint, a compaction or an account
/// takes for something else.
#[test]
fn a_batch_over_partitions_survives_close_kill_spoiled_hints_and_compaction() {
    each_disk(|store| {
        let options = || store.options().compaction(Compaction::off());
        let db = store.open_with(options().partitions(4));
        let (batch, keys) = over_all(&db, 5, b"first");
        wait(db.write(batch)).unwrap();
        let dels = keys[..10].iter().fold(WriteBatch::new(), WriteBatch::del);
        assert_eq!(wait(db.write(dels)).unwrap().were_there, 10);
        let expected = contents(&db);
        assert_eq!(expected.len(), 10);
        wait(db.close()).unwrap();

        let report = wait(store.options().verify(store.path())).unwrap();
        assert!(report.is_sound() && report.misrouted_records == 0, "{report:?}");
        store.spoil_hints();
        let db = store.open_with(options());
        assert_eq!(contents(&db), expected);
        let total = accounts(&db);
        wait(db.close()).unwrap();
        let db = store.open_with(options());
        assert_eq!(accounts(&db), total, "K5");
        // The first one makes every resolve durable; the second finds that no decision is needed any more.
        wait(db.compact()).unwrap();
        wait(db.compact()).unwrap();
        assert_eq!(contents(&db), expected);
        assert_eq!(db.stats().total().dead_bytes, 0, "intents, decisions and resolves go");
        wait(db.close()).unwrap();
        assert_eq!(contents(&store.open()), expected);
    });
}

/// Breaks if part of a batch too large for one commit group is visible, or survives, without the rest.
#[test]
fn a_batch_larger_than_a_commit_group_is_one_all_the_same() {
    let seed = seed();
    let store = Store::sim(seed);
    let db = store.open_one();
    let mut random = fastrand::Rng::with_seed(seed);
    let values: Vec<Vec<u8>> = (0..7).map(|_| bytes_of(&mut random, 1 << 20)).collect();
    let batch = || {
        let puts = values.iter().enumerate();
        puts.fold(WriteBatch::new(), |batch, (n, value)| batch.put(n.to_string(), value))
    };
    assert_eq!(wait(db.write(batch())).unwrap().puts, 7);
    let found = contents(&db);
    assert!(found.values().eq(&values));
    let done = wait(db.write(batch().del("0"))).unwrap();
    assert_eq!((done.puts, done.dels, done.were_there), (6, 1, 7));
    wait(db.close()).unwrap();
    store.spoil_hints();
    let db = store.open();
    assert_eq!(contents(&db).len(), 6);
    wait(db.close()).unwrap();
}

/// Breaks if two batches wait for each other's keys, or a single write for both.
#[test]
fn batches_over_the_same_keys_and_partitions_do_not_wait_for_each_other_for_ever() {
    each_disk(|store| {
        let db = store.open_with(four(store).mailbox_requests_max(2));
        let keys = keys_in(&db, 3);
        let writes = (0..60_usize).map(|n| {
            let db = &db;
            let mut keys = keys.clone();
            let turn = n % keys.len();
            keys.rotate_left(turn);
            async move {
                let value = n.to_string();
                let batch =
                    keys.iter().fold(WriteBatch::new(), |batch, key| batch.put(key, &value[..]));
                let (batch, single) =
                    futures::join!(db.write(batch), db.put_if_present(&keys[n % 5], "single"));
                batch.and(single)
            }
        });
        for written in wait(join_all(writes)) {
            written.unwrap();
        }
        let mut last: Vec<_> = contents(&db).into_values().filter(|v| v != b"single").collect();
        last.dedup();
        assert_eq!(last.len(), 1, "every batch was whole");
        wait(db.close()).unwrap();
    });
}

/// Breaks if the decision of a batch depends on who waits for it.
#[test]
fn a_batch_whose_future_is_dropped_happens_whole_or_not_at_all() {
    each_disk(|store| {
        let db = store.open_with(four(store));
        for polls in 0..3 {
            let (batch, keys) = over_all(&db, 2, format!("{polls}").as_bytes());
            let mut write = Box::pin(db.write(batch));
            let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
            for _ in 0..polls {
                let _pending = write.as_mut().poll(cx);
            }
            drop(write);
            // Behind the batch in every queue.
            let batch = keys.iter().fold(WriteBatch::new(), |batch, key| batch.put(key, "after"));
            let done = wait(db.write(batch)).unwrap();
            assert!(done.were_there == 0 || done.were_there == 8, "{done:?}");
        }
        wait(db.close()).unwrap();
    });
}

/// Breaks if closing forgets batches in flight, or waits for ever for one.
#[test]
fn closing_sees_batches_through() {
    each_disk(|store| {
        let db = store.open_with(four(store));
        let batches: Vec<_> =
            (0..20).map(|n| over_all(&db, 2, n.to_string().as_bytes()).0).collect();
        let writes = join_all(batches.into_iter().map(|batch| db.write(batch)));
        let (written, closed) = wait(async { futures::join!(writes, db.close()) });
        closed.unwrap();
        for written in &written {
            match written {
                Ok(done) => assert_eq!(done.puts, 8),
                Err(error) => assert!(error.is_closed(), "{error}"),
            }
        }
        let db = store.open();
        let mut found: Vec<_> = contents(&db).into_values().collect();
        let is_any = written.iter().any(Result::is_ok);
        assert_eq!(found.len(), if is_any { 8 } else { 0 });
        found.dedup();
        assert!(found.len() <= 1);
        wait(db.close()).unwrap();
    });
}

/// Every operation of the disk fails once, another at each run. Breaks if a participant that fails leaves the
/// others with half a batch, or with locked keys, or if somebody goes on who cannot know what was decided.
#[test]
fn whatever_fails_a_batch_happens_whole_or_not_at_all() {
    for (errno, kinds) in [
        (EIO, [ErrorKind::Io, ErrorKind::Poisoned]),
        (ENOSPC, [ErrorKind::NoSpace, ErrorKind::Poisoned]),
    ] {
        let mut failed = 0;
        for nth in 0.. {
            let store = Store::sim(seed());
            let db = store.open_with(four(&store).workers(1));
            let (batch, keys) = over_all(&db, 2, b"old");
            wait(db.write(batch)).unwrap();
            let disk = store.disk();
            let at = disk.ops() + nth;
            disk.fail_op(at, errno, false);
            // Some keys are new, and no file but those of the batch names them.
            let (batch, all) = over_all(&db, 4, b"new");
            let written = wait(db.write(batch));
            if disk.ops() <= at {
                break;
            }
            disk.clear_faults();
            let scanned = contents(&db);
            let (keys_now, value) = if written.is_ok() { (&all, b"new") } else { (&keys, b"old") };
            assert_eq!(scanned.len(), keys_now.len(), "operation {nth}: {scanned:?}");
            assert!(keys_now.iter().all(|key| scanned[key.as_bytes()] == value));
            let values = |db: &Db| -> Vec<_> {
                let mut values: Vec<_> = keys.iter().map(|key| get(db, key).unwrap()).collect();
                values.dedup();
                values
            };
            match &written {
                Ok(_) => assert_eq!(values(&db), ["new"], "operation {nth}"),
                Err(error) => {
                    failed += 1;
                    assert!(kinds.contains(&error.kind()), "operation {nth}: {error}");
                    assert_eq!(values(&db), ["old"], "operation {nth}");
                }
            }
            let is_poisoned = written.is_err_and(|error| error.kind() == ErrorKind::Poisoned);
            for key in &keys {
                let put = wait(db.put(key, "put"));
                assert!(put.is_ok() || is_poisoned, "operation {nth}: {put:?}");
            }
            let after = store.on(disk.power_cut(Cut::KeepAll));
            let again = after.open();
            let found = values(&again);
            assert!(is_poisoned || found == ["put"], "operation {nth}: {found:?}");
            let mut batches = found.clone();
            batches.retain(|value| value != "put");
            batches.dedup();
            assert!(batches.len() <= 1, "operation {nth}: {found:?}");
            let count = contents(&again).len();
            assert!(is_poisoned || count == scanned.len(), "operation {nth}: {count}");
            assert!(count == keys.len() || count == all.len(), "operation {nth}: {count}");
            wait(again.close()).unwrap();
        }
        assert!(failed > 3, "at least the intents of every partition: {failed}");
    }
}

/// The power goes before every operation of the disk. Breaks if a part of a batch is found by the next open, or by
/// the one after that, which itself was cut short.
#[test]
fn a_crash_at_any_moment_leaves_all_of_a_batch_or_nothing() {
    // In one partition it may be one operation of the disk, before which nothing new is there.
    let [one, many] = [1, 4].map(crash_at_any_moment);
    println!("old, new: {one:?}, {many:?}");
    assert!(one[0] > 0 && many.iter().all(|count| *count > 0));
}

/// How often the old and the new values were found.
fn crash_at_any_moment(partitions: u32) -> [u64; 2] {
    let store = Store::sim(seed());
    let db = store.open_with(store.options().partitions(partitions).workers(1));
    let (batch, keys) = over_all(&db, 3, b"old");
    wait(db.write(batch)).unwrap();
    wait(db.close()).unwrap();
    // A copy counts its operations anew.
    let store = store.on(store.disk().kill());
    store.disk().record();
    let db = store.open_with(store.options().workers(1));
    let opened_at = store.disk().ops();
    wait(db.write(over_all(&db, 3, b"new").0)).unwrap();
    let written_at = store.disk().ops();
    // Behind that only upkeep and closing follow.
    let till = (written_at - opened_at) as usize + 2;
    wait(db.close()).unwrap();
    let mut outcomes = [0; 2];
    for (nth, moment) in (0..).zip(store.disk().moments()).skip(opened_at as usize).take(till) {
        for cut in [Cut::DropUnsynced, Cut::KeepAll, Cut::Random { seed: nth }] {
            // Every fifth operation, and over all moments each of them.
            for again in (nth % 5..).step_by(5) {
                let store = store.on(moment.disk.power_cut(cut));
                store.disk().crash_at(again);
                let half = wait(store.options().open(store.path()));
                let is_whole = !store.disk().crashed();
                drop(half);
                let store = store.on(store.disk().power_cut(cut));
                let db = store.open();
                let mut found: Vec<_> = keys.iter().map(|key| get(&db, key).unwrap()).collect();
                found.dedup();
                assert_eq!(found.len(), 1, "before operation {nth}, then {again}: {found:?}");
                assert!(
                    nth < written_at || found == ["new"],
                    "before operation {nth}, then {again}"
                );
                outcomes[usize::from(found[0] == "new")] += 1;
                wait(db.close()).unwrap();
                if is_whole {
                    break;
                }
            }
        }
    }
    outcomes
}

/// Writers put one number under all keys, batch after batch, some over all partitions and some over one; readers
/// look at all keys at once. Breaks if a reader sees two batches mixed, or waits for ever for a quiet moment.
#[test]
fn get_many_sees_every_batch_whole() {
    each_disk(|store| {
        let db = store.open_with(four(store));
        let (batch, keys) = over_all(&db, 3, b"0");
        wait(db.write(batch)).unwrap();
        std::thread::scope(|scope| {
            let (db, keys) = (&db, &keys);
            for writer in 0..2 {
                scope.spawn(move || {
                    for n in 0..60 {
                        let value = format!("{writer} {n}");
                        wait(db.write(over_all(db, 3, value.as_bytes()).0)).unwrap();
                    }
                });
            }
            for _reader in 0..2 {
                scope.spawn(move || {
                    for _ in 0..60 {
                        let mut found = wait(db.get_many(keys)).unwrap();
                        found.dedup();
                        assert_eq!(found.len(), 1, "{found:?}");
                    }
                });
            }
        });
        wait(db.close()).unwrap();
    });
}

/// Breaks if somebody who reads and forgets it keeps writers waiting, or keeps the store from closing.
#[test]
fn a_get_many_that_is_never_polled_again_is_in_nobodys_way() {
    let store = Store::blocking();
    let db = store.open_with(four(&store));
    let (batch, keys) = over_all(&db, 2, b"0");
    wait(db.write(batch)).unwrap();
    let mut kept = Vec::new();
    let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
    for n in 0..20_u32 {
        let (batch, _) = over_all(&db, 2, &n.to_le_bytes());
        let mut write = Box::pin(db.write(batch));
        let _pending = write.as_mut().poll(cx);
        let mut read = Box::pin(db.get_many(&keys));
        let _pending = read.as_mut().poll(cx);
        kept.push(read);
        wait(write).unwrap();
    }
    wait(db.close()).unwrap();
}

/// So many keys that publishing them takes as long as a read does. Breaks if readers are not told that a batch is
/// half way: together they would see two batches, and one after the other less of a batch than before.
#[test]
fn a_batch_in_one_partition_is_seen_whole() {
    each_disk(|store| {
        let db = store.open_one();
        let (batch, keys) = over_all(&db, 500, b"0");
        wait(db.write(batch)).unwrap();
        std::thread::scope(|scope| {
            let (db, keys) = (&db, &keys);
            scope.spawn(move || {
                for n in 1..150_u32 {
                    let (batch, _) = over_all(db, 500, n.to_string().as_bytes());
                    wait(db.write(batch).durability(Durability::Buffered)).unwrap();
                }
            });
            scope.spawn(move || {
                let mut newest = 0;
                for n in 0..300 {
                    if n % 2 == 0 {
                        let mut found = wait(db.get_many(keys)).unwrap();
                        found.dedup();
                        assert_eq!(found.len(), 1, "{found:?}");
                        continue;
                    }
                    for key in keys {
                        let value = get(db, key).unwrap();
                        let number: u32 = std::str::from_utf8(&value).unwrap().parse().unwrap();
                        assert!(number >= newest, "{number} after {newest}");
                        newest = number;
                    }
                }
            });
        });
        wait(db.close()).unwrap();
    });
}

/// Breaks if a batch is acknowledged before its decision, or its intents, or its only group, are on disk.
#[test]
fn an_acknowledged_batch_survives_a_power_cut() {
    for partitions in [1, 2, 4] {
        let store = Store::sim(seed());
        let db = store.open_with(store.options().partitions(partitions));
        for value in ["old", "new"] {
            let (batch, keys) = over_all(&db, 3, value.as_bytes());
            wait(db.write(batch)).unwrap();
            let after = store.on(store.disk().power_cut(Cut::DropUnsynced));
            let again = after.open();
            assert!(keys.iter().all(|key| get(&again, key).is_some_and(|found| found == value)));
            wait(again.close()).unwrap();
        }
        wait(db.close()).unwrap();
    }
}

/// Ranges are deleted at every moment of a batch: some between its intents and their copies. Then the power goes, or
/// the disk is full, at every operation. Breaks if the next open thinks otherwise than this one about which came
/// first, or if upkeep is done with a range before an intent counts that the range hides.
#[test]
fn a_range_that_comes_between_intents_and_copies_hides_the_same_after_the_next_open() {
    let mut shown = [0; 2];
    for is_full in [false, true] {
        for nth in 0..30 {
            let store = Store::sim(seed());
            let options = || store.options().partitions(3).workers(1).compaction(Compaction::off());
            let db = store.open_with(options());
            wait(db.write(over_all(&db, 2, b"old").0)).unwrap();
            let disk = store.disk();
            let at = disk.ops() + nth;
            if is_full {
                disk.fail_op(at, ENOSPC, false);
            } else {
                disk.crash_at(at);
            }
            let (batch, _) = over_all(&db, 4, b"new");
            let clear = async {
                for _ in 0..=nth % 4 {
                    let _failed = db.clear().await;
                }
            };
            let (written, ()) = wait(async { futures::join!(db.write(batch), clear) });
            disk.clear_faults();
            let is_poisoned = db.stats().total().poisoned.is_some();
            let before = (!disk.crashed() && !is_poisoned).then(|| {
                let before = contents(&db);
                while db.stats().total().range_dels_pending > 0 {
                    wait(db.sync()).unwrap();
                }
                assert_eq!(contents(&db), before, "operation {nth}: upkeep changed something");
                assert_eq!(db.stats().total().keys as usize, before.len(), "operation {nth}");
                before
            });
            let cut = if is_full { Cut::KeepAll } else { Cut::DropUnsynced };
            let after = store.on(disk.power_cut(cut));
            let again = after.open_with(after.options().compaction(Compaction::off()));
            let found = contents(&again);
            let what = format!("full {is_full}, operation {nth}: {written:?}");
            if let Some(before) = before {
                assert_eq!(found, before, "{what}");
            }
            for partition in 0..3 {
                let of = |(key, _): &(&Vec<u8>, &Vec<u8>)| again.partition_of(key) == partition;
                let mut values: Vec<_> = found.iter().filter(of).map(|(_, value)| value).collect();
                let count = values.len();
                values.dedup();
                assert!(values.len() <= 1, "{what}: {found:?}");
                let all = if values.first().is_some_and(|value| *value == b"new") { 4 } else { 2 };
                assert!(count == 0 || count == all, "{what}: {found:?}");
            }
            shown[usize::from(found.values().any(|value| value == b"new"))] += 1;
            wait(again.close()).unwrap();
        }
    }
    assert!(
        shown.iter().all(|count| *count > 0),
        "batches come before ranges and after: {shown:?}"
    );
}

/// RD2: breaks if a batch that waits for a key while its keyspace is dropped writes into it all the same.
#[test]
fn a_batch_that_waits_while_its_keyspace_is_dropped_leaves_nothing_there() {
    for partitions in [1, 3] {
        let store = Store::sim(seed());
        store.disk().would_block(1.0);
        for round in 0..20 {
            let db = store.open_with(store.options().partitions(partitions));
            let gone = wait(db.keyspace("gone")).unwrap();
            let (batch, keys) = over_all(&gone, 2, b"old");
            wait(gone.write(batch)).unwrap();
            // Each is read from the disk, and the batch waits behind it.
            let looks = join_all(keys.iter().map(|key| gone.append(key, "x")));
            let (batch, _) = over_all(&gone, 2, b"new");
            let write = gone.write(batch);
            let drop_space = async {
                for _ in 0..round % 5 {
                    db.sync().await.unwrap();
                }
                db.drop_keyspace("gone").await
            };
            let (_looks, _written, dropped) =
                wait(async { futures::join!(looks, write, drop_space) });
            assert!(dropped.unwrap());
            while db.stats().total().range_dels_pending > 0 {
                wait(db.sync()).unwrap();
            }
            assert_eq!(db.stats().total().keys, 0, "round {round}, {partitions} partitions");
            wait(db.close()).unwrap();
        }
    }
}

/// BA1, TO3: breaks if a range tombstone goes although a file that stays has intents that it hides. A hint does not list
/// these, and an open that has lost it settles their batch once more.
#[test]
fn what_was_deleted_stays_so_without_the_hint_of_its_batch() {
    let store = Store::sim(seed());
    let options = || store.options().partitions(2).data_file_len_max(4096);
    let db = store.open_with(options().compaction(Compaction::off()));
    // The intents fill a file, and so the copies are in the next one.
    let (batch, keys) = over_all(&db, 2, &[1; 1500]);
    wait(db.write(batch)).unwrap();
    assert_eq!(contents(&db).len(), keys.len());
    wait(db.delete_prefix("key")).unwrap();
    wait(db.sync()).unwrap();
    assert!(contents(&db).is_empty());
    // Closed and opened, the range is worked off and every file is sealed.
    wait(db.close()).unwrap();
    let db = store.open_with(options().compaction(Compaction::off()));
    for partition in 0..2 {
        let dir = format!("partition-{partition:03}/");
        let files = store.data_files();
        let ids = files.iter().filter_map(|file| file.strip_prefix(&dir)?.get(..9)?.parse().ok());
        let others: Vec<u64> = ids.filter(|id| *id > 1).collect();
        assert!(!others.is_empty(), "{files:?}");
        wait(db.compact_files(partition, &others)).unwrap();
    }
    wait(db.close()).unwrap();
    for partition in 0..2 {
        store.remove(&format!("partition-{partition:03}/000000001.hint"));
    }
    let db = store.open_with(options().compaction(Compaction::off()));
    assert_eq!(contents(&db).len(), 0, "deleted keys are back");
    // With the intents goes the reason to keep the tombstone.
    wait(db.compact()).unwrap();
    wait(db.compact()).unwrap();
    assert_eq!(db.stats().total().shadow_bytes, 0);
    wait(db.close()).unwrap();
}
