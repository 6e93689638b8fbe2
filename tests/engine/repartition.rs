//! Another number of partitions: everything is as it was, through any crash, and what moves is what has to.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use ringcask::sim::{Cut, SimClock};
use ringcask::{Db, Durability, ErrorKind, Options, RepartitionReport, Ttl, WriteBatch};

use crate::support::{Store, contents, each_disk, get, seed, wait};

/// Files so short that there are several.
fn options(store: &Store) -> Options {
    store.options().data_file_len_max(8 << 10).durability(Durability::Buffered)
}

fn repartition(store: &Store, count: u32) -> RepartitionReport {
    wait(options(store).repartition(store.path(), count)).unwrap()
}

fn partitions(db: &Db) -> usize {
    db.stats().partitions.len()
}

/// What a store holds, keyspaces and times to live too.
#[derive(Debug, PartialEq)]
struct All {
    default: BTreeMap<Vec<u8>, Vec<u8>>,
    space: BTreeMap<Vec<u8>, Vec<u8>>,
    expiries: Vec<Option<SystemTime>>,
}

const MORTALS: usize = 12;

fn all(db: &Db) -> All {
    let default = contents(db);
    for (key, value) in &default {
        assert_eq!(get(db, key).as_deref(), Some(value.as_slice()), "get and scan");
    }
    let space = wait(db.keyspace("space").into_future()).unwrap();
    let expiry = |index| {
        wait(db.entry(format!("mortal-{index}"))).unwrap().and_then(|entry| entry.expires_at)
    };
    All { default, space: contents(&space), expiries: (0..MORTALS).map(expiry).collect() }
}

/// Keys that are there, are not any more, and never were.
fn fill(db: &Db, random: &mut fastrand::Rng, key_count: u32) {
    let space = wait(db.keyspace("space").into_future()).unwrap();
    for round in 0..3_u8 {
        for key in 0..key_count {
            if random.u8(..3) == 0 {
                continue;
            }
            let value = vec![round; random.usize(..60)];
            let put = db.put(format!("k{key:05}"), value);
            wait(put.into_future()).unwrap();
            if key % 8 == 0 {
                let put = space.put(format!("s{key}"), [round]);
                wait(put.into_future()).unwrap();
            }
        }
        for key in (0..key_count).filter(|_| random.u8(..4) == 0) {
            wait(db.del(format!("k{key:05}"))).unwrap();
        }
        let batch =
            (0..20).fold(WriteBatch::new(), |batch, key| batch.put(format!("b{key}"), [round]));
        wait(db.write(batch).into_future()).unwrap();
        let from = random.u32(..key_count);
        let range = format!("k{from:05}")..format!("k{:05}", from + key_count / 8);
        wait(db.delete_range(range).into_future()).unwrap();
    }
    for index in 0..MORTALS {
        let put = db.put(format!("mortal-{index}"), "v");
        let ttl = Duration::from_secs(1000 + index as u64);
        wait(put.ttl(ttl).into_future()).unwrap();
    }
}

/// Breaks if a key, a value or a time to live is lost on the way, or if a key that is deleted is not.
#[test]
fn up_and_down_everything_is_as_it_was() {
    each_disk(|store| {
        let random = &mut fastrand::Rng::with_seed(seed());
        let db = store.open_with(options(store).partitions(4));
        fill(&db, random, 400);
        let mut before = all(&db);
        wait(db.close()).unwrap();
        for (from, to) in [(4, 7), (7, 2), (2, 2), (2, 5), (5, 1), (1, 3)] {
            let report = repartition(store, to);
            assert_eq!((report.partitions_before, report.partitions_after), (from, to));
            let keys = before.default.len() + before.space.len();
            assert_eq!(report.keys_moved + report.keys_kept, keys as u64);
            assert!(wait(options(store).verify(store.path())).unwrap().is_sound());
            if random.bool() {
                store.spoil_hints();
            }
            let db = store.open_with(options(store));
            assert_eq!(partitions(&db), to as usize);
            assert_eq!(all(&db), before);
            let is_directory = |name: &String| name.starts_with("partition-");
            let directories = store.list("").into_iter().filter(is_directory);
            assert!(directories.eq((0..to).map(|partition| format!("partition-{partition:03}"))));
            fill(&db, random, 400);
            if random.bool() {
                wait(db.compact()).unwrap();
            }
            before = all(&db);
            wait(db.close()).unwrap();
        }
    });
}

/// Puts some of 24 keys, each with `value`, and deletes others.
fn put_and_del(
    db: &Db,
    value: u8,
    random: &mut fastrand::Rng,
    model: &mut BTreeMap<Vec<u8>, Vec<u8>>,
) {
    for key in 0..24_u8 {
        match random.u8(..6) {
            0 | 1 => {
                wait(db.put([key], [value]).into_future()).unwrap();
                model.insert(vec![key], vec![value]);
            }
            2 | 3 => {
                let was_there = wait(db.del([key])).unwrap();
                assert_eq!(was_there, model.remove(&vec![key]).is_some());
            }
            _ => {}
        }
    }
}

/// Whole histories of partition counts against one ordered map: few keys that are put and deleted all the time, so
/// that what some key has left behind somewhere, once upon a time, would be noticed if it came back.
#[test]
fn nothing_that_was_left_behind_comes_back() {
    let random = &mut fastrand::Rng::with_seed(seed());
    for case in 0..150 {
        let mut store = Store::sim(random.u64(..));
        if case % 3 == 0 {
            store = store.encrypted([9; 32]);
        }
        let mut model = BTreeMap::new();
        let mut count = random.u32(1..7);
        let mut db = store.open_with(options(&store).partitions(count));
        for step in 0..10_u8 {
            put_and_del(&db, step, random, &mut model);
            match random.u8(..4) {
                0 => drop(wait(db.compact()).unwrap()),
                1 => {
                    wait(db.delete_range([7]..[12]).into_future()).unwrap();
                    model.retain(|key, _| !(7..12).contains(&key[0]));
                }
                _ => {}
            }
            wait(db.close()).unwrap();
            if random.bool() {
                store.spoil_hints();
            }
            count = random.u32(1..8);
            repartition(&store, count);
            db = store.open_with(options(&store));
            assert_eq!(partitions(&db), count as usize);
            assert_eq!(contents(&db), model, "case {case}, step {step}");
            assert_eq!(db.stats().total().keys, model.len() as u64);
        }
        wait(db.close()).unwrap();
    }
}

/// The same with MANIFEST lost now and then. Breaks if repair forgets which partitions there were: what keys have left
/// behind would count again.
#[test]
fn nothing_that_was_left_behind_comes_back_with_a_manifest_made_anew() {
    let random = &mut fastrand::Rng::with_seed(seed());
    let mut with_wider_maps = 0;
    for case in 0..100 {
        let store = Store::sim(random.u64(..));
        let mut model = BTreeMap::new();
        let mut db = store.open_with(options(&store).partitions(random.u32(1..7)));
        for step in 0..10_u8 {
            put_and_del(&db, step, random, &mut model);
            if random.u8(..3) == 0 {
                wait(db.compact()).unwrap();
            }
            wait(db.close()).unwrap();
            let count = random.u32(1..8);
            repartition(&store, count);
            let manifest = String::from_utf8(store.read("MANIFEST")).unwrap();
            with_wider_maps += u32::from(manifest.contains("wider_maps"));
            // A store in which there never was anything cannot be made anew.
            if random.bool() && !store.data_files().is_empty() {
                store.remove("MANIFEST");
                let report = wait(options(&store).repair(store.path())).unwrap();
                assert_eq!(report.rebuilt, [store.path().join("MANIFEST")]);
            }
            db = store.open_with(options(&store));
            assert_eq!(partitions(&db), count as usize, "case {case}, step {step}");
            assert_eq!(contents(&db), model, "case {case}, step {step}");
        }
        wait(db.close()).unwrap();
    }
    assert!(with_wider_maps > 100, "{with_wider_maps}");
}

/// A change of the count is killed at every moment, and MANIFEST is lost too. Breaks if repair takes a map for the one in
/// force for which not everything has been copied.
#[test]
fn whenever_it_is_killed_a_manifest_made_anew_has_everything() {
    let random = &mut fastrand::Rng::with_seed(seed());
    for (from, to) in [(2, 5), (5, 2), (3, 4), (4, 1)] {
        let store = Store::sim(random.u64(..));
        let db = store.open_with(options(&store).partitions(from));
        fill(&db, random, 60);
        let before = contents(&db);
        wait(db.close()).unwrap();
        let crashed = store.on(store.disk().kill());
        crashed.disk().record();
        repartition(&crashed, to);
        let mut counts = BTreeMap::new();
        for (nth, moment) in crashed.disk().moments().into_iter().enumerate() {
            let store = store.on(moment.disk.kill());
            store.remove("MANIFEST");
            wait(options(&store).repair(store.path())).unwrap();
            let db = store.open_with(options(&store));
            *counts.entry(partitions(&db)).or_insert(0) += 1;
            assert_eq!(contents(&db), before, "{from} to {to}, moment {nth}");
            wait(db.close()).unwrap();
            assert!(wait(options(&store).verify(store.path())).unwrap().is_sound());
        }
        let mut both = [from as usize, to as usize];
        both.sort_unstable();
        assert!(counts.into_keys().eq(both));
    }
}

/// Breaks if a directory goes that holds something of somebody else's.
#[test]
fn a_directory_with_strangers_stays() {
    let store = Store::blocking();
    let db = store.open_with(options(&store).partitions(3));
    fill(&db, &mut fastrand::Rng::with_seed(1), 50);
    wait(db.close()).unwrap();
    store.write("partition-002/a note", b"mine");
    repartition(&store, 1);
    assert_eq!(store.list(""), ["LOCK", "MANIFEST", "partition-000", "partition-002"]);
    assert_eq!(store.list("partition-002"), ["a note"]);
    let report = wait(options(&store).repartition(store.path(), 3)).unwrap();
    assert_eq!(report.partitions_after, 3);
}

/// Killed, or without power, before any single operation: the store has one count or the other and all that was in it,
/// and can be given any count afterwards.
#[test]
fn whenever_it_is_killed_everything_is_there() {
    let random = &mut fastrand::Rng::with_seed(seed());
    for (from, to) in [(2, 5), (5, 2), (3, 4), (4, 1)] {
        let store = Store::sim(random.u64(..));
        let db = store.open_with(options(&store).partitions(from));
        fill(&db, random, 60);
        let before = all(&db);
        wait(db.sync()).unwrap();
        let crashed = store.on(store.disk().kill());
        drop(db);
        crashed.disk().record();
        repartition(&crashed, to);
        let moments = crashed.disk().moments();
        assert!(moments.len() > 30, "{}", moments.len());
        let mut counts = BTreeMap::new();
        for moment in moments {
            for left in [
                moment.disk.kill(),
                moment.disk.power_cut(Cut::DropUnsynced),
                moment.disk.power_cut(Cut::Random { seed: random.u64(..) }),
            ] {
                let store = store.on(left);
                let reader = store.open_with(options(&store).read_only(true));
                let count = partitions(&reader);
                assert_eq!(contents(&reader), before.default);
                wait(reader.close()).unwrap();
                *counts.entry(count).or_insert(0) += 1;

                if random.bool() {
                    let db = store.open_with(options(&store));
                    assert_eq!(partitions(&db), count);
                    assert_eq!(all(&db), before);
                    for (key, _) in before.default.iter().filter(|(key, _)| key[0] == b'k') {
                        wait(db.del(key)).unwrap();
                    }
                    wait(db.compact()).unwrap();
                    wait(db.close()).unwrap();
                } else {
                    let db = wait(options(&store).repartition(store.path(), 6));
                    assert_eq!(db.unwrap().partitions_before as usize, count);
                    let db = store.open_with(options(&store));
                    assert_eq!(all(&db), before);
                    wait(db.close()).unwrap();
                    continue;
                }
                // What was deleted is not brought back by copies that never counted.
                let again = if count == to as usize { from } else { to };
                repartition(&store, again);
                let db = store.open_with(options(&store));
                assert!(contents(&db).keys().all(|key| key[0] != b'k'), "{count} → {again}");
                assert!(get(&db, "b3").is_some());
                wait(db.close()).unwrap();
            }
        }
        assert_eq!(counts.keys().copied().collect::<Vec<_>>(), {
            let mut both = vec![from as usize, to as usize];
            both.sort_unstable();
            both
        });
    }
}

/// Breaks if more moves than consistent hashing says, or if what stays is written again.
#[test]
fn what_moves_is_what_has_to() {
    const KEYS: u64 = 20_000;
    let store = Store::sim(seed());
    let db = store.open_with(store.options().partitions(4));
    for key in 0..KEYS {
        let put = db.put(key.to_le_bytes(), [7; 40]).durability(Durability::Buffered);
        wait(put.into_future()).unwrap();
    }
    let live = db.stats().total().live_bytes;
    wait(db.close()).unwrap();
    for (from, to) in [(4_u64, 7_u64), (7, 2), (2, 3)] {
        let (before, files) = (store.image(), store.data_files());
        let used = store.used_bytes();
        let report = wait(store.options().repartition(store.path(), to as u32)).unwrap();
        assert_eq!(report.keys_moved + report.keys_kept, KEYS);
        let expected = KEYS * from.abs_diff(to) / from.max(to);
        let (least, most) = (expected * 95 / 100, expected * 105 / 100);
        assert!((least..=most).contains(&report.keys_moved), "{report:?}, not {expected}");
        assert_eq!(report.bytes_moved, live / KEYS * report.keys_moved);
        // A header and marks a file, a list a partition.
        assert!(store.used_bytes() < used + report.bytes_moved * 102 / 100 + to * 20_000);
        let after = store.image();
        for file in &files {
            let bytes = &before[file];
            let id: u64 = file["partition-".len()..][..3].parse().unwrap();
            assert_eq!(after.get(file), (id < to).then_some(bytes), "{file}");
        }
    }
}

/// The clock may be wrong just now, so a record that has expired is not dropped for that.
#[test]
fn what_has_expired_moves_too() {
    let store = Store::sim(1);
    let clock = SimClock::new(1_800_000_000_000);
    let options = || options(&store).clock(clock.clone());
    let db = store.open_with(options().partitions(1));
    for key in 0..50_u8 {
        wait(db.put([key], "v").ttl(Duration::from_secs(100)).into_future()).unwrap();
    }
    wait(db.close()).unwrap();
    clock.set(1_900_000_000_000);
    let report = wait(options().repartition(store.path(), 2)).unwrap();
    assert_eq!(report.keys_moved + report.keys_kept, 50);
    clock.set(1_800_000_000_000);
    let db = store.open_with(options());
    assert_eq!(contents(&db).len(), 50);
    for key in 0..50_u8 {
        assert_eq!(wait(db.ttl([key])).unwrap(), Ttl::Left(Duration::from_secs(100)));
    }
    clock.advance(Duration::from_secs(101));
    assert_eq!(contents(&db).len(), 0);
    wait(db.close()).unwrap();
}

#[test]
fn a_full_disk_leaves_the_store_as_it_was() {
    let store = Store::sim(seed());
    let random = &mut fastrand::Rng::with_seed(5);
    let db = store.open_with(options(&store).partitions(2));
    fill(&db, random, 300);
    let before = all(&db);
    wait(db.close()).unwrap();
    // Settled, so that only what moves needs space.
    wait(store.open_with(options(&store)).close()).unwrap();
    store.disk().capacity_bytes(Some(store.used_bytes() + 6000));
    let error = wait(options(&store).repartition(store.path(), 5)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    store.disk().clear_faults();
    let db = store.open_with(options(&store));
    assert_eq!((partitions(&db), all(&db)), (2, before));
    wait(db.close()).unwrap();
    assert!(store.data_files().iter().all(|file| file < &"partition-002".to_owned()));
    assert_eq!(repartition(&store, 5).partitions_before, 2);
}

#[test]
fn it_is_refused_where_it_cannot_be() {
    each_disk(|store| {
        let repartition = |count| wait(options(store).repartition(store.path(), count));
        assert_eq!(repartition(2).unwrap_err().kind(), ErrorKind::NotAStore);
        let db = store.open_with(options(store).partitions(2));
        wait(db.put("k", "v").into_future()).unwrap();
        assert_eq!(repartition(3).unwrap_err().kind(), ErrorKind::Locked);
        wait(db.close()).unwrap();
        for count in [0, 4097] {
            assert_eq!(repartition(count).unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
        let reader = store.open_with(options(store).read_only(true));
        assert_eq!(repartition(3).unwrap_err().kind(), ErrorKind::Locked);
        wait(reader.close()).unwrap();

        repartition(9).unwrap();
        // It is the count of the store that counts now.
        let error = store.try_open(options(store).partitions(2)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PartitionCount);
    });
}

/// Breaks if a MANIFEST that somebody has put back routes keys to partitions that no longer have them, without a word;
/// or if what is refused by an open is sound to verify, or beyond repair.
#[test]
fn an_older_manifest_is_noticed_and_made_anew() {
    for (from, to) in [(3, 2), (2, 3)] {
        let store = Store::sim(1);
        let db = store.open_with(options(&store).partitions(from));
        fill(&db, &mut fastrand::Rng::with_seed(1), 100);
        let before = all(&db);
        wait(db.close()).unwrap();
        let manifest = store.read("MANIFEST");
        repartition(&store, to);
        let after = store.image();
        store.write("MANIFEST", &manifest);
        for options in [options(&store), options(&store).read_only(true)] {
            let error = store.try_open(options).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.to_string().contains("older"), "{error}");
        }
        let report = wait(options(&store).verify(store.path())).unwrap();
        let [damage] = &report.damage[..] else { panic!("{report:?}") };
        assert!(damage.path.ends_with("MANIFEST") && damage.what.contains("older"), "{damage}");
        assert_eq!(report.misrouted_records, {
            let sound = store.on(store.disk().kill());
            sound.write("MANIFEST", &after["MANIFEST"]);
            wait(options(&sound).verify(sound.path())).unwrap().misrouted_records
        });
        for (file, bytes) in &after {
            assert!(file == "MANIFEST" || store.read(file) == *bytes, "{file}");
        }

        let report = wait(options(&store).repair(store.path())).unwrap();
        assert_eq!(report.rebuilt, [store.path().join("MANIFEST")]);
        assert_eq!(store.read("MANIFEST.damaged"), manifest);
        assert!(wait(options(&store).verify(store.path())).unwrap().is_sound());
        let db = store.open_with(options(&store));
        // With its keyspaces' names, which the older one had.
        assert_eq!((partitions(&db), all(&db)), (to as usize, before));
        wait(db.close()).unwrap();
    }
}
