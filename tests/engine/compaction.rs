//! Compaction gives back space and nothing else: whatever it does to files, the store says the same
//! before, during and after it, and whenever it is opened again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::FutureExt;
use futures::future::{join, join_all};
use ringcask::sim::Cut;
use ringcask::{Compacted, Compaction, Db, Durability, Error, ErrorKind, Options, Result};

use crate::support::{Store, bytes_of, contents, defer, each_disk, get, seed, wait};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

const FILE_HEADER_LEN: u64 = 128;
const GROUP_HEADER_LEN: u64 = 48;

/// One partition of small files, in which nothing is compacted unless a test asks for it.
fn manual(store: &Store) -> Options {
    store.options().partitions(1).data_file_len_max(4096).compaction(Compaction::off())
}

/// Compacts whenever there is the least reason to.
fn eager(store: &Store) -> Options {
    manual(store).compaction(Compaction::new().dead_ratio(0.05))
}

/// Ids of the first partition's data files.
fn ids(store: &Store) -> Vec<u64> {
    let id_of = |file: String| file.strip_prefix("partition-000/")?.get(..9)?.parse().ok();
    store.data_files().into_iter().filter_map(id_of).collect()
}

/// The store as a killed process leaves it; on real disks, as one that was dropped does.
fn kill(store: Store, db: Db) -> Store {
    if store.is_sim() {
        return store.on(store.disk().kill());
    }
    drop(db);
    store
}

fn all_disks() -> [Store; 3] {
    [Store::uring(), Store::blocking(), Store::sim(seed())]
}

/// What is counted, and must be the same however the store came to be what it is.
fn accounts(db: &Db) -> [u64; 4] {
    let total = db.stats().total();
    [total.keys, total.live_bytes, total.shadow_bytes, total.dead_bytes]
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().as_ref().map(Error::kind)
}

/// A put, an overwrite or a deletion of one of `keys` keys.
fn change(db: &Db, model: &mut Model, random: &mut fastrand::Rng, keys: u8) {
    let key = format!("key {}", random.u8(..keys)).into_bytes();
    let durability = if random.bool() { Durability::Sync } else { Durability::Buffered };
    if random.u8(..5) < 3 {
        let len = random.usize(..60);
        let value = bytes_of(random, len);
        wait(db.put(&key, &value).durability(durability)).unwrap();
        model.insert(key, value);
    } else {
        assert_eq!(wait(db.del(&key)).unwrap(), model.remove(&key).is_some());
    }
}

/// Holds a store against the model: as it is, and as a killed process leaves it, with and without its
/// hints.
fn check_everywhere(
    store: &Store,
    db: &Db,
    model: &Model,
    options: impl Fn(&Store) -> Options,
    what: &str,
) {
    assert_eq!(&contents(db), model, "{what}: now");
    for spoil in [false, true] {
        check_reopened(store, db, model, &options, spoil, what);
    }
}

fn check_reopened(
    store: &Store,
    db: &Db,
    model: &Model,
    options: impl Fn(&Store) -> Options,
    spoil: bool,
    what: &str,
) {
    let after = store.on(store.disk().kill());
    if spoil {
        after.spoil_hints();
    }
    let reopened = after.open_with(options(&after));
    let what = format!("{what}: reopened, hints spoiled: {spoil}");
    assert_eq!(&contents(&reopened), model, "{what}");
    assert_eq!(accounts(&reopened), accounts(db), "{what}");
    wait(reopened.close()).unwrap();
}

/// Breaks if the output of a compaction, which is the newer file, outranks what was written to the
/// active file since: old values would return with the next open (K3).
#[test]
fn a_write_beside_a_compaction_outranks_what_was_copied() {
    for store in all_disks() {
        let db = store.open_with(manual(&store).data_file_records_max(4));
        for key in ["overwritten", "deleted", "kept", "filler"] {
            wait(db.put(key, "old")).unwrap();
        }
        // Into the active file, before and after the copies are made.
        wait(db.put("filler", "new")).unwrap();
        assert_eq!(ids(&store), [1, 2]);
        let done = wait(db.compact_files(0, &[1])).unwrap();
        assert_eq!((done.records_kept, done.records_dropped), (3, 1));
        wait(db.put("overwritten", "new")).unwrap();
        assert!(wait(db.del("deleted")).unwrap());
        let expected = contents(&db);
        assert_eq!(expected.len(), 3);
        assert_eq!(expected[&b"overwritten"[..]], b"new");
        let options = |store: &Store| manual(store).data_file_records_max(4);
        let store = kill(store, db);
        let db = store.open_with(options(&store));
        assert_eq!(contents(&db), expected, "{}", store.name());
        // The active file, sealed by then, is compacted after the one with the larger id.
        wait(db.compact()).unwrap();
        assert_eq!(contents(&db), expected);
        wait(db.close()).unwrap();
        store.spoil_hints();
        let db = store.open_with(options(&store));
        assert_eq!(contents(&db), expected);
        wait(db.close()).unwrap();
    }
}

/// C1: breaks if a tombstone goes while the record that it shadows stays.
#[test]
fn a_deleted_key_stays_deleted_whichever_file_is_compacted() {
    let orders: [&[&[u64]]; 5] = [&[&[2]], &[&[1]], &[&[2], &[1]], &[&[1], &[2]], &[&[1, 2]]];
    for order in orders {
        for mut store in all_disks() {
            let what = format!("{order:?} on {}", store.name());
            let options = |store: &Store| manual(store).data_file_records_max(3);
            let db = store.open_with(options(&store));
            // Each of the two has something else that is dead, and so a reason to be compacted.
            for key in ["k", "one", "first"] {
                wait(db.put(key, "v")).unwrap();
            }
            assert!(wait(db.del("k")).unwrap());
            for key in ["two", "second", "first", "second", "three"] {
                wait(db.put(key, "v")).unwrap();
            }
            assert_eq!(ids(&store), [1, 2, 3]);
            // What was asked for first may be in other files by now.
            let mut now: BTreeMap<u64, u64> = [(1, 1), (2, 2)].into();
            let mut db = db;
            for &files in order {
                let files: Vec<u64> = files.iter().map(|file| now[file]).collect();
                let done = wait(db.compact_files(0, &files)).unwrap();
                assert!(done.records_dropped > 0, "{what}");
                let newest = *ids(&store).last().unwrap();
                now.values_mut().filter(|id| files.contains(id)).for_each(|id| *id = newest);
                assert_eq!(get(&db, "k"), None, "{what}");
                store = kill(store, db);
                db = store.open_with(options(&store));
                assert_eq!(get(&db, "k"), None, "{what}, reopened");
                assert_eq!(contents(&db).len(), 5, "{what}");
            }
            wait(db.close()).unwrap();
        }
    }
}

/// Of `files`, those whose bit is set.
fn subset(bits: u32, files: &[u64]) -> Vec<u64> {
    files.iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1).map(|(_, id)| *id).collect()
}

/// Every subset of a small store's files, after scripts of puts, overwrites and deletions, and another
/// subset on top: breaks if any mix of files makes a deleted key or an old value come back, or loses
/// one, or if what is counted is not what is there (K3, K5, C1, CM3).
#[test]
fn any_files_may_be_compacted_in_any_order() {
    let seed = seed();
    let random = &mut fastrand::Rng::with_seed(seed);
    let scripts = 150;
    let mut dropped = 0;
    for script in 0..scripts {
        let store = Store::sim(random.u64(..));
        let records_max = random.u64(1..5);
        let options = |store: &Store| manual(store).data_file_records_max(records_max);
        let keys = random.u8(2..5);
        let mut model = Model::new();
        let db = store.open_with(options(&store));
        let files_max = match script % 10 {
            0 => 5,
            1..4 => 4,
            _ => random.usize(2..4),
        };
        while ids(&store).len() < files_max {
            change(&db, &mut model, random, keys);
        }
        wait(db.close()).unwrap();
        let files = ids(&store);
        for bits in 1..1 << files.len() {
            let chosen = subset(bits, &files);
            let what =
                format!("script {script}: {chosen:?} of {files:?}, {records_max} records each");
            let copy = store.on(store.disk().kill());
            let db = copy.open_with(options(&copy));
            let mut model = model.clone();
            for _ in 0..random.u8(..3) {
                change(&db, &mut model, random, keys);
            }
            dropped += wait(db.compact_files(0, &chosen)).unwrap().records_dropped;
            assert_eq!(contents(&db), model, "{what}: now");
            check_reopened(&copy, &db, &model, options, random.bool(), &what);
            if bits % 4 == 1 {
                for _ in 0..random.u8(..3) {
                    change(&db, &mut model, random, keys);
                }
                let files = ids(&copy);
                let chosen = subset(random.u32(..1 << files.len()), &files);
                let what = format!("{what}, then {chosen:?} of {files:?}");
                wait(db.compact_files(0, &chosen)).unwrap();
                check_everywhere(&copy, &db, &model, options, &what);
                let what = format!("{what}, then all");
                wait(db.compact()).unwrap();
                check_everywhere(&copy, &db, &model, options, &what);
                assert_eq!(accounts(&db)[3], 0, "{what}: nothing dead is left");
                wait(db.close()).unwrap();
                // Two tombstones of one key in files whose ages overlap can keep each other for one
                // compaction, but not for another, which takes both.
                let db = copy.open_with(options(&copy));
                wait(db.compact()).unwrap();
                assert_eq!(contents(&db), model, "{what}");
                assert_eq!(accounts(&db)[2..], [0, 0], "{what}: nothing is left to give back");
                wait(db.close()).unwrap();
            } else {
                wait(db.close()).unwrap();
            }
        }
    }
    assert!(dropped > scripts * 10, "{dropped} records were dropped");
}

/// Random operations while background and forced compactions run beside them: the store is the map,
/// over closing, being killed and reopened. Breaks if a move overtakes a write, if a record is moved
/// that is no longer the newest, or if a file goes while something still points into it (K4, CM3).
#[test]
fn the_store_is_an_ordered_map_while_it_is_compacted() {
    let seed = seed();
    let random = &mut fastrand::Rng::with_seed(seed);
    for run in 0..8 {
        let mut store = match run {
            0 => Store::uring(),
            1 => Store::blocking(),
            _ => Store::sim(random.u64(..)),
        };
        let options =
            |store: &Store| eager(store).partitions(2).data_file_len_max(4096 << (run % 3));
        let mut model = Model::new();
        let mut compactions = 0;
        for life in 0..4 {
            if store.is_sim() && run > 4 {
                store.disk().short_transfers(0.2);
                store.disk().would_block(0.3);
            }
            let db = store.open_with(options(&store));
            let what = format!("run {run}, life {life}");
            assert_eq!(contents(&db), model, "{what}");
            for _batch in 0..4 {
                let is_forced = random.bool();
                let writes = async {
                    for _ in 0..30 {
                        step(&db, &mut model, random).await;
                    }
                };
                if is_forced {
                    let (done, ()) = wait(join(db.compact(), writes));
                    done.unwrap();
                } else {
                    wait(writes);
                }
                assert_eq!(contents(&db), model, "{what}");
            }
            let total = db.stats().total();
            assert_eq!(total.keys as usize, model.len(), "{what}");
            assert_eq!(total.compactions_failed, 0, "{what}");
            compactions += total.compactions;
            if life % 2 == 0 {
                wait(db.close()).unwrap();
            } else {
                store = kill(store, db);
            }
        }
        assert!(compactions > 2, "run {run}: {compactions} compactions");
    }
}

/// Something that may be done to a store, and to the model.
async fn step(db: &Db, model: &mut Model, random: &mut fastrand::Rng) {
    let key = format!("key {}", random.u32(..40)).into_bytes();
    match random.u8(..100) {
        0..60 => {
            let len = if random.u8(..10) == 0 { random.usize(..5000) } else { random.usize(..300) };
            let value = bytes_of(random, len);
            let durability = if random.bool() { Durability::Sync } else { Durability::Buffered };
            db.put(&key, &value).durability(durability).await.unwrap();
            model.insert(key, value);
        }
        60..78 => assert_eq!(db.del(&key).await.unwrap(), model.remove(&key).is_some()),
        78..88 => {
            let found = db.get(&key).await.unwrap();
            assert_eq!(found.as_deref(), model.get(&key).map(Vec::as_slice));
        }
        88..93 => assert_eq!(db.contains_key(&key).await.unwrap(), model.contains_key(&key)),
        93..96 => {
            let keys: Vec<_> = (0..8).map(|n| format!("key {}", n * 5)).collect();
            for (key, found) in keys.iter().zip(db.get_many(&keys).await.unwrap()) {
                assert_eq!(found.as_deref(), model.get(key.as_bytes()).map(Vec::as_slice));
            }
        }
        96..98 => db.sync().await.unwrap(),
        _ => {
            let mut scan = db.scan();
            let mut expected = model.iter();
            while let Some(entry) = scan.next().await {
                let (key, value) = entry.unwrap();
                assert_eq!(expected.next(), Some((&key.to_vec(), &value.to_vec())));
            }
            assert_eq!(expected.next(), None);
        }
    }
}

/// Breaks if a walk loses the files that it walks, or finds a key neither where it was nor where it was
/// moved to.
#[test]
fn a_scan_goes_on_across_compactions() {
    each_disk(|store| {
        let db = store.open_with(manual(store));
        let mut expected = Model::new();
        for round in 0..2_u8 {
            // Every other overwrite, so that each file has something that stays.
            for n in (0..120).step_by(1 + usize::from(round)) {
                let key = format!("{n:03}").into_bytes();
                let value = vec![round; 150];
                wait(db.put(&key, &value).durability(Durability::Buffered)).unwrap();
                expected.insert(key, value);
                if round == 0 && n % 2 == 0 {
                    wait(db.put(format!("gone {n}"), vec![9; 100])).unwrap();
                }
            }
        }
        for n in (0..120).step_by(2) {
            assert!(wait(db.del(format!("gone {n}"))).unwrap());
        }
        // Partly read; then most of the files that it began with go.
        let mut scan = db.scan();
        let mut found = Model::new();
        for _ in 0..5 {
            let (key, value) = wait(scan.next()).unwrap().unwrap();
            found.insert(key.to_vec(), value.to_vec());
        }
        let done = wait(db.compact()).unwrap();
        assert!(done.files_removed > 8 && done.records_kept > 50, "{done:?}");
        while let Some(entry) = wait(scan.next()) {
            let (key, value) = entry.unwrap();
            assert!(found.insert(key.to_vec(), value.to_vec()).is_none());
        }
        assert_eq!(found, expected, "{}", store.name());

        // And with the pages of the walk between the steps of the compaction.
        for round in 2..12_u8 {
            let puts = (0..120).filter(|n| n % 3 == u32::from(round) % 3).map(|n| {
                let key = format!("{n:03}").into_bytes();
                let value = vec![round; 150];
                expected.insert(key.clone(), value.clone());
                db.put(key, value).durability(Durability::Buffered)
            });
            assert!(wait(join_all(puts.collect::<Vec<_>>())).iter().all(Result::is_ok));
            let walk = async {
                let mut found = Model::new();
                let mut scan = db.scan();
                while let Some(entry) = scan.next().await {
                    let (key, value) = entry.unwrap();
                    assert!(found.insert(key.to_vec(), value.to_vec()).is_none());
                }
                found
            };
            let (done, found) = wait(join(db.compact(), walk));
            assert!(done.unwrap().files_removed > 0);
            assert_eq!(found, expected, "{}, round {round}", store.name());
        }
        wait(db.close()).unwrap();
    });
}

/// Readers on threads of their own, while what they read is overwritten and moved: breaks if a get meets
/// a file that is gone, a slot that has another file by now, or a value older than one that was
/// acknowledged before it began (G1, G2).
#[test]
fn gets_beside_compactions_are_never_wrong() {
    const KEYS: usize = 64;
    for store in [Store::uring(), Store::blocking()] {
        let db = store.open_with(eager(&store).durability(Durability::Buffered));
        let acknowledged: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
        let value_of = |key: usize, version: u64| {
            let mut value = version.to_le_bytes().to_vec();
            value.resize(8 + key * 3, key as u8);
            value
        };
        for key in 0..KEYS {
            wait(db.put(key.to_le_bytes(), value_of(key, 0))).unwrap();
        }
        let is_over = AtomicBool::new(false);
        let gets = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for reader in 0..2 {
                let (db, acknowledged, is_over, gets) = (&db, &acknowledged, &is_over, &gets);
                scope.spawn(move || {
                    let random = &mut fastrand::Rng::with_seed(reader);
                    while !is_over.load(Ordering::Relaxed) {
                        let key = random.usize(..KEYS);
                        let least = acknowledged[key].load(Ordering::SeqCst);
                        let found = get(db, key.to_le_bytes()).expect("it is never deleted");
                        let version = u64::from_le_bytes(found[..8].try_into().unwrap());
                        assert!(version >= least, "key {key}: {version} after {least}");
                        assert_eq!(found, value_of(key, version), "key {key}");
                        gets.fetch_add(1, Ordering::Relaxed);
                        std::thread::yield_now();
                    }
                });
            }
            let end = defer(|| is_over.store(true, Ordering::Relaxed));
            let random = &mut fastrand::Rng::with_seed(1);
            for version in 1..700 {
                // Some keys hardly ever, so that there is always something to move.
                let key = random.usize(..KEYS).min(random.usize(..KEYS));
                wait(db.put(key.to_le_bytes(), value_of(key, version))).unwrap();
                acknowledged[key].store(version, Ordering::SeqCst);
                if version % 100 == 0 {
                    wait(db.compact()).unwrap();
                }
            }
            drop(end);
        });
        let total = db.stats().total();
        assert!(total.compactions > 4, "{} compactions", total.compactions);
        assert!(gets.into_inner() > 100);
        wait(db.close()).unwrap();
    }
}

/// Overwrites everything three times over: breaks if a second compaction cannot deal with what the first
/// one made, or if space is not given back.
#[test]
fn cycle_after_cycle_gives_back_what_is_dead() {
    each_disk(|store| {
        let db = store.open_with(manual(store));
        for cycle in 0..3_u8 {
            for round in 0..2 {
                let puts = (0..60).map(|n| db.put(format!("{n}"), vec![cycle * 2 + round; 200]));
                assert!(wait(join_all(puts)).iter().all(Result::is_ok));
            }
            let done = wait(db.compact()).unwrap();
            assert!(done.records_dropped >= 60, "{done:?}");
            let after = db.stats().total();
            assert_eq!(after.dead_bytes, 0, "{}, cycle {cycle}", store.name());
            assert_eq!(after.files as usize, store.data_files().len());
            assert!(after.log_bytes < 60 * 300 + 6 * 400, "{} bytes are left", after.log_bytes);
            assert!((0..60).all(|n| get(&db, format!("{n}")).unwrap() == vec![cycle * 2 + 1; 200]));
        }
        wait(db.close()).unwrap();
        check_directory(store, 60);
    });
}

/// The data files and hints of a closed store, and what its stats say of them.
fn check_directory(store: &Store, keys: u64) {
    let files = store.data_files();
    let len: u64 = files.iter().map(|file| store.read(file).len() as u64).sum();
    let mut listed = store.list("partition-000");
    listed.retain(|name| name != "FILES" && name != "RESERVE");
    for file in &files {
        let hint = file.replace(".data", ".hint").replace("partition-000/", "");
        assert!(listed.contains(&hint), "{file} has no hint");
    }
    assert_eq!(listed.len(), 2 * files.len(), "nothing else: {listed:?}");
    let db = store.open_with(manual(store));
    let total = db.stats().total();
    assert_eq!((total.files, total.log_bytes, total.keys), (files.len() as u64, len, keys));
    let records = total.live_bytes + total.shadow_bytes + total.dead_bytes;
    let overhead = FILE_HEADER_LEN + 2 * GROUP_HEADER_LEN;
    assert!(records == 0 || records + overhead * total.files <= len);
    wait(db.close()).unwrap();
}

/// Breaks if tombstones outlive everything that they delete, or the files of a store that is empty stay.
#[test]
fn when_everything_is_deleted_nothing_is_left() {
    for (mut store, is_killed) in all_disks().into_iter().zip([false, true, true]) {
        let mut db = store.open_with(manual(&store));
        for _again in 0..2 {
            let puts = (0..100).map(|n| db.put(format!("{n}"), vec![1; 100]));
            assert!(wait(join_all(puts)).iter().all(Result::is_ok));
            let dels = wait(join_all((0..100).map(|n| db.del(format!("{n}")))));
            assert!(dels.into_iter().all(|was_there| was_there.unwrap()));
            let done = wait(db.compact()).unwrap();
            assert_eq!((done.records_kept, done.records_dropped), (0, 200), "{}", store.name());
            assert_eq!((done.files_written, done.bytes_written), (0, 0));
            let total = db.stats().total();
            assert_eq!((total.files, total.log_bytes, total.keys), (0, 0, 0));
            assert_eq!(store.data_files(), [""; 0]);
            if is_killed {
                store = kill(store, db);
            } else {
                wait(db.close()).unwrap();
            }
            db = store.open_with(manual(&store));
            assert_eq!(contents(&db), Model::new());
            assert_eq!(accounts(&db), [0; 4]);
        }
        wait(db.close()).unwrap();
        check_directory(&store, 0);
    }
}

/// PO1: breaks if files are copied only to have been copied.
#[test]
fn where_nothing_is_dead_nothing_is_done() {
    each_disk(|store| {
        let look = || -> Vec<(String, Vec<u8>, Option<std::time::SystemTime>)> {
            let image = store.image().into_iter();
            let modified = |file: &String| {
                let metadata = std::fs::metadata(store.path().join(file));
                metadata.ok().map(|metadata| metadata.modified().unwrap())
            };
            image.map(|(file, bytes)| (file.clone(), bytes, modified(&file))).collect()
        };
        // Few enough files that they are not merged.
        let settings = Compaction::new().dead_ratio(0.01).dead_bytes(0);
        let options = || manual(store).compaction(settings.clone());
        let db = store.open_with(options());
        assert_eq!(wait(db.compact()).unwrap(), Compacted::default(), "an empty store");
        let puts = (0..100).map(|n| db.put(format!("{n}"), vec![1; 100]));
        assert!(wait(join_all(puts)).iter().all(Result::is_ok));
        assert_eq!(wait(db.compact()).unwrap(), Compacted::default());
        assert_eq!(wait(db.compact_files(0, &[])).unwrap(), Compacted::default());
        assert_eq!(wait(db.compact_files(0, &[1, 2, 777])).unwrap(), Compacted::default());
        assert_eq!(db.stats().total().compactions, 0);
        wait(db.close()).unwrap();
        let before = look();
        let db = store.open_with(options());
        assert_eq!(wait(db.compact()).unwrap(), Compacted::default());
        assert_eq!(wait(db.compact_files(0, &ids(store))).unwrap(), Compacted::default());
        wait(db.close()).unwrap();
        assert_eq!(look(), before, "{}", store.name());
    });
}

/// PO1: breaks if a file in which everything counts is copied because there is room for it beside others.
#[test]
fn where_something_is_dead_only_that_is_done() {
    each_disk(|store| {
        let db = store.open_with(manual(store).data_file_records_max(3));
        for n in 0..12 {
            wait(db.put(format!("{n}"), "v")).unwrap();
        }
        wait(db.put("4", "newer")).unwrap();
        assert_eq!(ids(store), [1, 2, 3, 4, 5]);
        let done = wait(db.compact()).unwrap();
        assert_eq!((done.files_removed, done.records_kept, done.records_dropped), (1, 2, 1));
        assert!(ids(store).starts_with(&[1, 3, 4, 5]), "{}", store.name());
        assert_eq!(wait(db.compact()).unwrap(), Compacted::default());
        wait(db.close()).unwrap();
        check_directory(store, 12);
    });
}

/// C1, with filters: among keys that are never touched again, deletions give back their space, and the
/// tombstones go with what they deleted. Breaks if "may hold the key" is asked of ages alone.
#[test]
fn deletions_among_cold_keys_give_back_their_space() {
    for store in all_disks() {
        let db = store.open_with(manual(&store));
        let puts = (0..400).map(|n| db.put(format!("cold {n:03}"), vec![1; 100]));
        assert!(wait(join_all(puts)).iter().all(Result::is_ok));
        let cold_bytes = db.stats().total().live_bytes;
        let puts = (0..200).map(|n| db.put(format!("gone {n:03}"), vec![2; 100]));
        assert!(wait(join_all(puts)).iter().all(Result::is_ok));
        let dels = wait(join_all((0..200).map(|n| db.del(format!("gone {n:03}")))));
        assert!(dels.into_iter().all(|was_there| was_there.unwrap()));
        wait(db.compact()).unwrap();
        let total = db.stats().total();
        assert_eq!((total.live_bytes, total.dead_bytes), (cold_bytes, 0));
        // A filter may be wrong about some: files of cold keys, older than every tombstone, stayed.
        assert!(total.shadow_bytes < 200 * 40 / 10, "{} bytes of tombstones", total.shadow_bytes);
        let store = kill(store, db);
        let db = store.open_with(manual(&store));
        let found = contents(&db);
        assert_eq!(found.len(), 400);
        assert!(found.iter().all(|(key, value)| key.starts_with(b"cold") && *value == [1; 100]));
        wait(db.close()).unwrap();
    }
}

/// Queues and sessions insert and delete for ever: breaks if what they leave behind piles up, the
/// tombstones in particular. What counts takes some 2 KiB, and a file 4 KiB; half of what is there may be
/// dead, and what was written since the last step of a compaction comes on top.
#[test]
fn inserting_and_deleting_for_ever_takes_no_more_space() {
    for cold in [0, 200] {
        let store = Store::sim(seed());
        let options = || manual(&store).compaction(Compaction::new());
        let mut db = store.open_with(options());
        let puts = (0..cold).map(|n| db.put(format!("cold {n}"), vec![1; 100]));
        assert!(wait(join_all(puts)).iter().all(Result::is_ok));
        let base = db.stats().total().log_bytes;
        let mut rotations = 0;
        let mut most = 0;
        for n in 0..4000_u32 {
            let live = 10;
            let put = db.put(format!("job {n}"), vec![2; 150]).durability(Durability::Buffered);
            wait(put).unwrap();
            if n >= live {
                assert!(wait(db.del(format!("job {}", n - live))).unwrap());
            }
            most = most.max(db.stats().total().log_bytes);
            if n % 1000 == 999 {
                rotations += db.stats().total().rotations;
                wait(db.close()).unwrap();
                db = store.open_with(options());
            }
        }
        assert!(rotations > 200, "{rotations} rotations");
        // Cold files hold no tombstone back for long, and none is rewritten for it.
        let bound = 2 * base + 10 * 4096;
        println!("{cold} cold keys in {base} bytes, at most {most} bytes");
        assert!(most <= bound, "{cold} cold keys: {most} bytes, of them {base} cold");
        assert_eq!(db.stats().total().keys, cold + 10);
        wait(db.close()).unwrap();
    }
}

/// CM1: a value that is durable is left out because a newer one is there, which is not: breaks if the
/// files that held it go before the newer one is on disk. A power cut would leave neither.
#[test]
fn what_supersedes_a_durable_value_is_durable_before_it_goes() {
    let seed = seed();
    for round in 0..30_u64 {
        for is_deleted in [false, true] {
            let store = Store::sim(seed ^ round);
            let options = manual(&store).data_file_records_max(3).prewrite(round % 2 == 0);
            let db = store.open_with(options.durability(Durability::Buffered));
            for key in ["k", "other", "third", "into the next file"] {
                wait(db.put(key, "durable").durability(Durability::Sync)).unwrap();
            }
            if is_deleted {
                assert!(wait(db.del("k")).unwrap());
            } else {
                wait(db.put("k", "newer")).unwrap();
            }
            let asked = db.compact_files(0, &[1]);
            let done = if round % 3 == 0 {
                // While more comes in behind it.
                let put = db.put("later", "v");
                let (done, put) = wait(join(asked, put));
                put.unwrap();
                done
            } else {
                wait(asked)
            };
            assert_eq!(done.unwrap().records_dropped, 1);
            let random = |n| Cut::Random { seed: seed.wrapping_add(round * 7 + n) };
            for cut in [Cut::DropUnsynced, Cut::KeepAll, random(1), random(2)] {
                let after = store.on(store.disk().power_cut(cut));
                let left = after.open_with(manual(&after));
                let found = get(&left, "k");
                let what = format!("round {round}, {cut:?}: {found:?}");
                if is_deleted {
                    assert!(found.is_none() || found.as_deref() == Some(b"durable"), "{what}");
                } else {
                    assert!(found.is_some(), "{what}");
                }
                for key in ["other", "third", "into the next file"] {
                    assert_eq!(get(&left, key).unwrap(), "durable", "{what}");
                }
                wait(left.close()).unwrap();
            }
            wait(db.close()).unwrap();
        }
    }
}

/// A store with some work for a compaction, on many files.
fn with_work(store: &Store, options: Options) -> (Db, Model) {
    let db = store.open_with(options);
    for round in 0..3_u8 {
        let puts = (0..60).filter(|n| round == 0 || n % 2 == 0);
        let puts = puts.map(|n| db.put(format!("{n:02}"), vec![round; 150]));
        assert!(wait(join_all(puts.collect::<Vec<_>>())).iter().all(Result::is_ok));
    }
    let model = contents(&db);
    (db, model)
}

/// Breaks if closing waits for ever for a compaction, or somebody for ever for one that will not be
/// done (R1, X1).
#[test]
fn closing_ends_a_compaction_and_answers_for_it() {
    for store in all_disks() {
        let (db, model) = with_work(&store, manual(&store));
        let (compacted, again, closed) = wait(async {
            let compacting = async { join(db.compact(), db.compact()).await };
            let ((compacted, again), closed) = join(compacting, db.close()).await;
            (compacted, again, closed)
        });
        closed.unwrap();
        for error in [compacted.err(), again.err()].into_iter().flatten() {
            assert!(matches!(error.kind(), ErrorKind::Closed | ErrorKind::Cancelled), "{error}");
        }
        assert_eq!(kind(wait(db.compact())), Some(ErrorKind::Closed));
        assert_eq!(kind(wait(db.cancel_compaction())), Some(ErrorKind::Closed));
        check_directory(&store, 60);

        // Dropped while it waits, and then the store as well.
        let db = store.open_with(manual(&store));
        assert_eq!(contents(&db), model);
        let compacting = db.compact();
        assert!(Box::pin(compacting).now_or_never().is_none_or(|done| done.is_ok()));
        drop(db);
        let db = store.open_with(manual(&store));
        assert_eq!(contents(&db), model);
        wait(db.close()).unwrap();
        check_directory(&store, 60);
    }
}

/// Breaks if giving up a compaction leaves half of it, or gives up one that is asked for later.
#[test]
fn a_cancelled_compaction_can_be_asked_for_again() {
    for store in all_disks() {
        let (db, model) = with_work(&store, manual(&store));
        wait(db.cancel_compaction()).unwrap();
        for _again in 0..20 {
            let (first, (second, cancelled)) =
                wait(join(db.compact(), join(db.compact(), db.cancel_compaction())));
            cancelled.unwrap();
            for error in [first.err(), second.err()].into_iter().flatten() {
                assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
                assert!(error.to_string().contains("cancelled"), "{error}");
            }
            assert_eq!(contents(&db), model);
            // More work, and files whose hints are still to be written.
            for n in 0..30 {
                let put = db.put(format!("{n:02}"), model[format!("{n:02}").as_bytes()].clone());
                wait(put.durability(Durability::Buffered)).unwrap();
            }
            wait(db.cancel_compaction()).unwrap();
        }
        let done = wait(db.compact()).unwrap();
        assert!(done.files_removed > 2, "{done:?}");
        assert_eq!(accounts(&db)[3], 0);
        assert_eq!(contents(&db), model);
        wait(db.close()).unwrap();
        check_directory(&store, 60);
    }
}

/// Breaks if two who ask at once get in each other's way, or if the second is told of a compaction that
/// began before it asked.
#[test]
fn two_may_ask_at_once() {
    each_disk(|store| {
        let (db, model) = with_work(store, manual(store));
        let (first, second) = wait(join(db.compact(), db.compact()));
        let first = first.unwrap();
        assert!(first.files_removed > 2, "{first:?}");
        assert_eq!(second.unwrap(), Compacted::default());
        assert_eq!(accounts(&db)[3], 0);
        // Everything written before the second asks is compacted when it is answered.
        for round in 10..20_u8 {
            let puts = |value| (0..60).map(move |n| (format!("{n:02}"), vec![value; 150]));
            let puts_now = puts(round).map(|(key, value)| db.put(key, value));
            assert!(wait(join_all(puts_now)).iter().all(Result::is_ok));
            let (first, second) = wait(join(db.compact(), async {
                for (key, value) in puts(round + 100) {
                    db.put(key, value).durability(Durability::Buffered).await.unwrap();
                }
                db.compact().await
            }));
            first.unwrap();
            second.unwrap();
            assert_eq!(accounts(&db)[3], 0, "{}, round {round}", store.name());
        }
        assert_eq!(contents(&db).len(), model.len());
        wait(db.close()).unwrap();
    });
}

/// W2 of backups: they hard-link sealed files, and read them later. Breaks if compaction writes into a
/// file that was sealed, or gives the id of one that is gone to another.
#[test]
fn sealed_files_stay_as_they_are_until_they_go_and_no_id_comes_twice() {
    use std::os::unix::fs::MetadataExt;
    for store in [Store::uring(), Store::blocking()] {
        let look = |id: &u64| {
            let path = store.path().join(format!("partition-000/{id:09}.data"));
            let metadata = std::fs::metadata(path).ok()?;
            let modified = (metadata.mtime(), metadata.mtime_nsec());
            Some((metadata.ino(), metadata.len(), modified, metadata.ctime_nsec()))
        };
        let mut sealed = BTreeMap::new();
        let mut gone = BTreeSet::new();
        let mut newest = 0;
        for life in 0..4 {
            // What is there when the store is closed is sealed.
            for id in ids(&store) {
                sealed.entry(id).or_insert_with(|| look(&id).unwrap());
            }
            let db = store.open_with(eager(&store).durability(Durability::Buffered));
            let random = &mut fastrand::Rng::with_seed(life);
            for _round in 0..8 {
                for _ in 0..20 {
                    let value = vec![life as u8; random.usize(..400)];
                    wait(db.put(format!("{}", random.u8(..60)), value)).unwrap();
                    if random.bool() {
                        wait(db.del(format!("{}", random.u8(..60)))).unwrap();
                    }
                }
                if random.bool() {
                    wait(db.compact()).unwrap();
                }
                let now = ids(&store);
                for id in &now {
                    assert!(!gone.contains(id), "file {id} came back");
                    newest = newest.max(*id);
                }
                for (id, then) in &sealed {
                    match look(id) {
                        Some(now) => assert_eq!(now, *then, "file {id}"),
                        None => drop(gone.insert(*id)),
                    }
                }
                sealed.retain(|id, _| !gone.contains(id));
            }
            if life % 2 == 0 {
                wait(db.close()).unwrap();
            } else {
                drop(db);
                wait(store.open_with(manual(&store)).close()).unwrap();
            }
        }
        assert!(gone.len() > 4 && newest > 20, "{} files are gone of {newest}", gone.len());
    }
}

/// Breaks if a setting that means nothing is taken, or refused without saying what would be right.
#[test]
fn settings_out_of_bounds_are_refused_with_the_bounds() {
    let store = Store::sim(0);
    for (bad, name, bounds) in [
        (Compaction::new().dead_ratio(0.0), "dead_ratio is 0", "more than 0"),
        (Compaction::new().dead_ratio(-0.5), "dead_ratio is -0.5", "more than 0"),
        (Compaction::new().dead_ratio(1.0), "dead_ratio is 1", "less than 1"),
        (Compaction::new().dead_ratio(f64::NAN), "dead_ratio is NaN", "less than 1"),
        (Compaction::off().dead_ratio(2.0), "dead_ratio is 2", "less than 1"),
        (Compaction::new().hours_utc(24, 3), "hours_utc is 24 to 3", "0 to 23"),
        (Compaction::new().hours_utc(3, 25), "hours_utc is 3 to 25", "0 to 23"),
        (Compaction::new().hours_utc(7, 7), "hours_utc is 7 to 7", "at least one"),
        (Compaction::new().bytes_per_sec(0), "bytes_per_sec is 0", "Compaction::off"),
    ] {
        let error = store.try_open(manual(&store).compaction(bad)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        let text = error.to_string();
        assert!(text.contains(name) && text.contains(bounds), "{text}");
        assert!(store.list("").is_empty(), "nothing was created");
    }
    for good in [
        Compaction::new().dead_ratio(f64::MIN_POSITIVE).dead_bytes(0).hours_utc(23, 24),
        Compaction::new().dead_ratio(0.999_999).bytes_per_sec(u64::MAX).hours_utc(0, 24),
        Compaction::off().merge_small(false).bytes_per_sec(1),
    ] {
        wait(store.open_with(manual(&store).compaction(good)).close()).unwrap();
    }
}

/// A rate makes a compaction slow, and no other: breaks if a step is cut so small that it gets nowhere,
/// if an answer waits for the pace, or if closing sleeps a compaction out.
#[test]
fn a_compaction_at_a_low_rate_is_done_in_the_end() {
    for store in all_disks() {
        let (db, model) = with_work(&store, manual(&store));
        wait(db.close()).unwrap();
        let slow = |rate| manual(&store).compaction(Compaction::off().bytes_per_sec(rate));
        let db = store.open_with(slow(300_000));
        let done = wait(db.compact()).unwrap();
        assert!(done.files_removed > 3, "{done:?}");
        assert_eq!(accounts(&db)[3], 0);
        assert_eq!(contents(&db), model);
        let puts = (0..60).map(|n| db.put(format!("{n:02}"), &model[format!("{n:02}").as_bytes()]));
        assert!(wait(join_all(puts)).iter().all(Result::is_ok));
        wait(db.close()).unwrap();
        if !store.is_sim() {
            // Hours of work, were it not cancelled: steps of some bytes, and their waits.
            let db = store.open_with(slow(2000));
            let (compacted, closed) = wait(join(db.compact(), db.close()));
            assert_eq!(kind(compacted), Some(ErrorKind::Closed));
            closed.unwrap();
        }
        let db = store.open_with(manual(&store));
        assert_eq!(contents(&db), model);
        wait(db.close()).unwrap();
    }
}
