//! Compaction that is cut short anywhere, or meets a disk that fails or has lost something: nothing that
//! counts goes with it.

use futures::FutureExt;
use futures::future::{join, try_join_all};
use ringcask::sim::{Cut, KeptBytes, KeptNames, Moment, OpKind};
use ringcask::{Compaction, Db, Durability, Error, ErrorKind, Options, Result};

use crate::support::{EIO, Oracle, Store, bytes_of, contents, get, seed, wait};

/// Many small files in one partition.
fn small_files(store: &Store, compaction: Compaction) -> Options {
    let options = store.options().partitions(1).workers(1).compaction(compaction);
    options.data_file_len_max(4096).data_file_records_max(4)
}

fn eager() -> Compaction {
    Compaction::new().dead_ratio(0.05)
}

fn expect_kind<T>(result: Result<T>) -> Option<T> {
    let ordinary = [ErrorKind::Io, ErrorKind::NoSpace, ErrorKind::Poisoned, ErrorKind::Closed];
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(ordinary.contains(&error.kind()), "{error}");
            None
        }
    }
}

/// Sends a put or, without a length, a deletion, and tells the oracle.
async fn write(
    db: &Db,
    oracle: &mut Oracle,
    random: &mut fastrand::Rng,
    key: u32,
    len_max: Option<usize>,
    is_durable: bool,
) {
    let key = format!("key {key}").into_bytes();
    let answer = if let Some(len_max) = len_max {
        let len = random.usize(..len_max);
        let value = bytes_of(random, len);
        oracle.attempt(&key, Some(&value));
        let durability = if is_durable { Durability::Sync } else { Durability::Buffered };
        db.put(&key, value).durability(durability).await.map(|()| is_durable)
    } else {
        oracle.attempt(&key, None);
        db.del(&key).await.map(|_| true)
    };
    if let Some(is_durable) = expect_kind(answer) {
        oracle.acknowledge(&key, is_durable);
    }
}

/// Overwrites and deletions over several files, then a compaction with writes beside it, more writes, and
/// another compaction. Stops at nothing.
fn workload(db: &Db, oracle: &mut Oracle, random: &mut fastrand::Rng) {
    for n in 0..17 {
        let len_max = (n % 5 != 4).then_some(200);
        wait(write(db, oracle, random, n % 6, len_max, n % 3 != 1));
    }
    let (compacted, ()) = wait(join(db.compact(), async {
        for n in 0..5 {
            let len_max = (n != 3).then_some(1500);
            write(db, oracle, random, n * 2 % 7, len_max, n % 2 == 0).await;
        }
    }));
    expect_kind(compacted);
    for n in 0..5 {
        wait(write(db, oracle, random, n % 4, (n != 2).then_some(100), n == 1));
    }
    expect_kind(wait(db.compact()));
    wait(write(db, oracle, random, 0, Some(50), false));
}

fn recover(store: &Store, what: &str) -> Db {
    let opened = store.try_open(small_files(store, Compaction::off()));
    opened.unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// CM1, C2: one compaction of a file whose durable values are superseded by what is not durable yet, cut
/// off at each of its operations, under many cuts. Breaks if the file can go before what superseded its
/// values, or before the names of what replaces it, are on disk.
#[test]
fn neither_old_nor_new_is_never_what_a_power_cut_leaves() {
    let seed = seed();
    for background in [false, true] {
        let mut nth = 0;
        loop {
            let store = Store::sim(seed ^ nth);
            let compaction = if background { eager() } else { Compaction::off() };
            let options = small_files(&store, compaction).prewrite(nth.is_multiple_of(2));
            let db = store.open_with(options.durability(Durability::Buffered));
            let mut oracle = Oracle::default();
            let random = &mut fastrand::Rng::with_seed(seed);
            for key in [0, 1, 2, 3, 4] {
                wait(write(&db, &mut oracle, random, key, Some(100), true));
            }
            // Whatever the background makes of this is cut off as well.
            let before = store.disk().ops();
            store.disk().crash_at(before + nth);
            wait(write(&db, &mut oracle, random, 0, Some(100), false));
            oracle.attempt(b"key 1", None);
            if expect_kind(wait(db.del("key 1"))).is_some() {
                oracle.acknowledge(b"key 1", false);
            }
            if !background {
                expect_kind(wait(db.compact_files(0, &[1])));
            }
            wait(write(&db, &mut oracle, random, 2, Some(100), false));
            let is_done = !store.disk().crashed();
            let random = |n: u64| Cut::Random { seed: seed.wrapping_mul(31).wrapping_add(n) };
            for cut in (0..12).map(random).chain([Cut::DropUnsynced, Cut::KeepAll]) {
                let what = format!("background: {background}, crashed at {nth}, {cut:?}");
                let left = store.on(store.disk().power_cut(cut));
                let db = recover(&left, &what);
                oracle.check(&db, &what);
                wait(db.close()).unwrap();
            }
            drop(db);
            if is_done {
                break;
            }
            nth += 1;
        }
        assert!(nth > 12 || background, "the compaction has {nth} operations");
    }
}

/// C2: killed right after `FILES` was replaced, and then the power is cut while the next open clears away
/// what it no longer lists. Breaks if the old list comes back without its files.
#[test]
fn an_open_after_a_kill_removes_nothing_that_the_durable_list_has() {
    let store = Store::sim(seed());
    let db = store.open_with(small_files(&store, Compaction::off()));
    for n in 0..12_u8 {
        wait(db.put(format!("{}", n % 5), vec![n; 50])).unwrap();
    }
    let expected = contents(&db);
    wait(db.close()).unwrap();
    // Without a file to seal, the next open has no list of its own to make durable.
    let db = store.open_with(small_files(&store, Compaction::off()));
    store.disk().record();
    wait(db.compact()).unwrap();
    let mut removals = 0;
    for killed in store.disk().moments() {
        let left = store.on(killed.disk);
        left.disk().record();
        drop(recover(&left, "killed"));
        for moment in left.disk().moments() {
            removals += u32::from(moment.kind == OpKind::Remove);
            for seed in 0..16 {
                let names = KeptNames::Random;
                let cut = Cut::Apart { bytes: KeptBytes::All, names, seed };
                let db = recover(&left.on(moment.disk.power_cut(cut)), "killed, then cut");
                assert_eq!(contents(&db), expected);
            }
        }
    }
    assert!(removals > 10, "{removals}");
    wait(db.close()).unwrap();
}

/// Crash after crash at random moments, with background compaction on: what one recovery and the
/// compactions after it left must be good enough for the next.
#[test]
fn crashes_among_background_compactions_lose_nothing() {
    let seed = seed();
    let random = &mut fastrand::Rng::with_seed(seed);
    for round in 0..25 {
        let mut store = Store::sim(random.u64(..));
        let mut oracle = Oracle::default();
        for crash in 0..5 {
            let what = format!("round {round}, crash {crash}");
            let db = store.open_with(small_files(&store, eager()));
            oracle.check(&db, &format!("{what} opened"));
            oracle.settle(&db);
            store.disk().crash_at(store.disk().ops() + random.u64(..250));
            workload(&db, &mut oracle, random);
            let is_killed = random.u8(..3) == 0;
            let cut = Cut::Random { seed: random.u64(..) };
            let disk = store.disk();
            let next = store.on(if is_killed { disk.kill() } else { disk.power_cut(cut) });
            drop(db);
            store = next;
            if is_killed {
                oracle.all_durable();
            } else {
                oracle.forget_acknowledgements();
            }
        }
    }
}

/// CM1: the sync that a compaction waits for goes along with a group of writes, which may fail. Breaks if the
/// compaction then waits until somebody asks for something durable.
#[test]
fn a_compaction_goes_on_when_the_writes_before_its_sync_fail() {
    let seed = seed();
    for nth in 0..150 {
        let store = Store::sim(seed ^ nth);
        let options = |durability| {
            let options = store.options().partitions(1).prewrite(false);
            options.compaction(Compaction::off()).durability(durability)
        };
        let db = store.open_with(options(Durability::Sync));
        for key in 0..8_u8 {
            wait(db.put([key], "old")).unwrap();
        }
        wait(db.close()).unwrap();
        let db = store.open_with(options(Durability::Buffered));
        wait(db.put([0], "new")).unwrap();
        store.disk().fail_op(store.disk().ops() + nth, EIO, false);
        let mut compacting = Box::pin(db.compact_files(0, &[1]));
        // Every write is a turn of the worker, and none is durable.
        let mut turn = 0;
        while (&mut compacting).now_or_never().is_none() {
            assert!(turn < 2000, "stuck, with a failure at {nth}");
            turn += 1;
            let puts = (0..3_u8).map(|n| db.put([n], "newer"));
            expect_kind(wait(try_join_all(puts)));
        }
        drop(compacting);
        expect_kind(wait(db.close()));
    }
}

/// D1: breaks if a compaction that ends just after the sync of the log has failed has it synced again.
#[test]
fn a_compaction_does_not_retry_the_sync_that_poisoned_its_partition() {
    let seed = seed();
    let mut poisoned = 0;
    for nth in 0..600 {
        let store = Store::sim(seed ^ nth);
        let options =
            || store.options().partitions(1).prewrite(false).compaction(Compaction::off());
        let db = store.open_with(options());
        wait(db.put("a", "old")).unwrap();
        wait(db.close()).unwrap();
        let db = store.open_with(options());
        wait(db.put("a", "new").durability(Durability::Buffered)).unwrap();
        let disk = store.disk();
        disk.fail_op(disk.ops() + nth % 30, EIO, false);
        disk.record();
        let (compacted, put) = wait(join(db.compact_files(0, &[1]), db.put("b", "v")));
        expect_kind(compacted);
        expect_kind(put);
        // The compaction is over when this is answered.
        expect_kind(wait(db.close()));
        let of_log = |moment: &Moment| {
            moment.kind == OpKind::Sync && moment.path.ends_with("000000002.data")
        };
        let moments = disk.moments();
        let Some(at) = moments.get(nth as usize % 30).filter(|moment| of_log(moment)) else {
            continue;
        };
        poisoned += 1;
        let again = moments[nth as usize % 30 + 1..].iter().filter(|moment| of_log(moment)).count();
        assert_eq!(again, 0, "{nth}: {} is synced again", at.path.display());
    }
    assert!(poisoned > 10, "{poisoned}");
}

/// On a full disk there may be no room for a copy. Breaks if that is not said, if half a copy takes the
/// last of the space, or if deleting does not help.
#[test]
fn a_full_disk_refuses_a_compaction_and_keeps_everything() {
    for room in (0..3000).step_by(211) {
        let store = Store::sim(room);
        let db = store.open_with(small_files(&store, Compaction::off()));
        for n in 0..40_u8 {
            wait(db.put(format!("{}", n % 25), vec![n; 300])).unwrap();
        }
        let expected = contents(&db);
        // What was kept in reserve is somebody else's by now.
        let reserve = store.read("partition-000/RESERVE").len() as u64;
        let used = store.used_bytes() - reserve;
        store.disk().capacity_bytes(Some(used + room));
        let mut refused = 0;
        for _again in 0..3 {
            match wait(db.compact()) {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NoSpace, "{room}: {error}");
                    assert!(error.to_string().contains("partition-000"), "{error}");
                    refused += 1;
                }
            }
            assert_eq!(contents(&db), expected, "{room}");
            assert!(store.used_bytes() <= used + room, "half a copy stays");
        }
        assert!(refused == 3 || room > 200, "{room} bytes are no room");
        store.disk().capacity_bytes(None);
        wait(db.compact()).unwrap();
        assert_eq!(db.stats().total().dead_bytes, 0);
        assert_eq!(contents(&db), expected);
        wait(db.put("after", "v")).unwrap();
        wait(db.close()).unwrap();
        let db = recover(&store, "full");
        assert_eq!(db.stats().total().keys, 26);
        wait(db.close()).unwrap();
    }
}

/// Breaks if a damaged record is copied or silently left out, if the file goes although a part of it
/// could not be read, or if one bad file keeps all others from being compacted.
#[test]
fn a_damaged_file_stops_its_compaction_and_no_other() {
    let options = |store: &Store| small_files(store, Compaction::off());
    let whole = Store::sim(0);
    let db = whole.open_with(options(&whole));
    for round in 0..2_u8 {
        for n in 0..8 {
            // One key of each file is overwritten in a later one.
            if round == 0 || n % 4 == 0 {
                wait(db.put(format!("{n}"), vec![round; 100])).unwrap();
            }
        }
    }
    wait(db.close()).unwrap();
    let file = "partition-000/000000001.data";
    let path = whole.path().join(file);
    let len = whole.read(file).len() as u64;
    // In a group's header, a record's, a value, and the closing mark.
    for offset in [140, 180, 250, len - 20] {
        for late in [false, true] {
            let what = format!("damaged at {offset}, after the open: {late}");
            let store = whole.on(whole.disk().kill());
            let is_end = offset + 48 >= len;
            if !late {
                store.disk().flip(&path, offset, 0x40).unwrap();
            }
            let db = match store.try_open(options(&store)) {
                Ok(db) => db,
                Err(error) => {
                    assert!(is_end && error.is_corrupt(), "{what}: {error}");
                    continue;
                }
            };
            if late {
                store.disk().flip(&path, offset, 0x40).unwrap();
            }
            let bytes = store.read(file);
            for _again in 0..2 {
                let error = wait(db.compact_files(0, &[1])).unwrap_err();
                assert!(error.is_corrupt(), "{what}: {error}");
                let (at_path, at) = error.location().unwrap();
                assert!(at_path == path && at <= offset, "{what}: {error}");
                assert_eq!(store.read(file), bytes, "{what}");
            }
            assert!(wait(db.compact()).unwrap_err().is_corrupt(), "{what}");
            assert_eq!(db.stats().total().compactions, 1, "{what}: the other file was compacted");
            assert!(store.list("partition-000").len() < 10, "nothing is left lying about");
            let check = |db: &Db| {
                for n in [0, 4, 5, 6, 7] {
                    let round = u8::from(n % 4 == 0);
                    assert_eq!(get(db, format!("{n}")).unwrap(), vec![round; 100], "{what}");
                }
                for n in 1..4 {
                    match wait(db.get(format!("{n}"))) {
                        Ok(value) => assert_eq!(value.unwrap(), [0; 100][..], "{what}"),
                        Err(error) => assert!(error.is_corrupt(), "{what}: {error}"),
                    }
                }
            };
            check(&db);
            wait(db.put("after", "v")).unwrap();
            check(&db);
            assert_eq!(store.read(file), bytes);
            wait(db.close()).unwrap();
            if !is_end {
                // Its hint is sound, so what is sound in it can still be had.
                let db = store.open_with(options(&store));
                check(&db);
                assert_eq!(get(&db, "after").unwrap(), "v");
                wait(db.close()).unwrap();
            }
        }
    }
}

/// Breaks if the background tries a damaged file again and again, or gives up altogether because of it.
#[test]
fn the_background_goes_round_a_damaged_file() {
    let store = Store::sim(seed());
    let db = store.open_with(small_files(&store, Compaction::off()));
    for n in 0..4 {
        wait(db.put(format!("damaged {n}"), vec![n; 100])).unwrap();
    }
    wait(db.put("damaged 0", "newer")).unwrap();
    wait(db.close()).unwrap();
    let file = "partition-000/000000001.data";
    let bytes = store.read(file);
    store.disk().flip(store.path().join(file), 600, 1).unwrap();
    let db = store.open_with(small_files(&store, eager()));
    let mut most = 0;
    for n in 0..800_u32 {
        let put = db.put(format!("{}", n % 5), n.to_le_bytes());
        wait(put.durability(Durability::Buffered)).unwrap();
        most = most.max(store.data_files().len());
    }
    let total = db.stats().total();
    assert_eq!(total.compactions_failed, 1);
    assert!(total.compactions > 5, "{} compactions", total.compactions);
    assert!(most < 40, "{most} files at a time");
    assert_eq!(store.read(file).len(), bytes.len());
    let is_damaged =
        |n: u8| wait(db.get(format!("damaged {n}"))).is_err_and(|e: Error| e.is_corrupt());
    assert_eq!((1..4).filter(|n| is_damaged(*n)).count(), 1);
    wait(db.close()).unwrap();
}
