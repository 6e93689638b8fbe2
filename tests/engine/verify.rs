//! `Db::verify`: finds every damaged byte, goes on behind it, and changes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use ringcask::sim::Cut;
use ringcask::{Db, Durability, ErrorKind, VerifyReport};

use crate::opening::{crc32c, of_newer_version};
use crate::support::{EIO, Store, bytes_of, contents, each_disk, get, seed, wait};

pub(crate) fn verify(store: &Store) -> VerifyReport {
    wait(store.options().verify(store.path())).unwrap_or_else(|error| panic!("{error}"))
}

/// Rotations, replaced values and deletions in two partitions, small enough to damage byte by byte.
pub(crate) fn fill_small(store: &Store) -> Db {
    let options = store.options().partitions(2).data_file_len_max(4096).prewrite(false);
    let db = store.open_with(options);
    for n in 0..6 {
        wait(db.put(format!("key {n}"), format!("value {n}"))).unwrap();
    }
    wait(db.put("key 1", "a newer value")).unwrap();
    assert!(wait(db.del("key 2")).unwrap());
    // Of three, two are in one partition, which therefore has two files.
    for n in 0..3 {
        wait(db.put(format!("large {n}"), vec![n; 3000])).unwrap();
    }
    // Wherever the store's random hash key sends the others: no partition is empty.
    for n in 0.. {
        wait(db.put(format!("last {n}"), "x")).unwrap();
        let files = store.data_files();
        let has_file = |partition| files.iter().any(|file| file.starts_with(partition));
        if has_file("partition-000") && has_file("partition-001") {
            break;
        }
    }
    db
}

#[test]
fn a_sound_store_is_sound() {
    each_disk(|store| {
        let db = fill_small(store);
        let keys = db.stats().total().keys;
        wait(db.close()).unwrap();
        let report = verify(store);
        assert!(report.is_sound(), "{report:?}");
        assert_eq!(report.damage_count(), 0);
        assert_eq!((report.partitions, report.files), (2, store.data_files().len() as u64));
        assert_eq!(report.records, keys + 3, "with what was replaced and deleted");
        assert_eq!((report.hints, report.hints_missing), (report.files, 0));
        assert_eq!((report.torn_bytes, report.misrouted_records, report.strays.len()), (0, 0, 0));
        let bytes: usize = store.data_files().iter().map(|file| store.read(file).len()).sum();
        assert_eq!(report.bytes, bytes as u64);
        let db = store.open();
        assert_eq!(db.stats().total().keys, keys);
        wait(db.close()).unwrap();
    });
}

/// What a hint spares opening to read, verify reads: otherwise damage would show only when somebody asks for
/// the key.
#[test]
fn damage_that_opening_does_not_read_is_found() {
    each_disk(|store| {
        let db = fill_small(store);
        let values = contents(&db);
        wait(db.close()).unwrap();
        let is_record = |window: &[u8]| window == b"key 3value 3";
        let hit = store.data_files().into_iter().find_map(|file| {
            let at = store.read(&file).windows(12).position(is_record)?;
            Some((file, at))
        });
        let (file, at) = hit.unwrap();
        let mut bytes = store.read(&file);
        bytes[at + 11] ^= 1;
        store.write(&file, &bytes);
        let db = store.open();
        for (key, value) in &values {
            match wait(db.get(key)) {
                Ok(found) => assert_eq!(found.as_deref(), Some(value.as_slice())),
                Err(error) => assert!(error.is_corrupt() && key == b"key 3", "{error}"),
            }
        }
        assert!(wait(db.get("key 3")).unwrap_err().is_corrupt());
        wait(db.close()).unwrap();
        let report = verify(store);
        assert_eq!(report.damage_count(), 1, "{report:?}");
        assert_eq!(report.damage[0].key.as_deref(), Some(b"key 3".as_slice()));
    });
}

/// What is wrong with a hint that opening ignores is told, and is no damage; a missing one is counted.
#[test]
fn hints_that_opening_ignores_are_no_damage() {
    let store = Store::sim(seed());
    let db = fill_small(&store);
    let values = contents(&db);
    wait(db.close()).unwrap();
    let (first, other) = ("partition-000/000000001.hint", "partition-001/000000001.hint");
    let sound = store.read(first);
    let files = verify(&store).files;
    for (bytes, what) in [
        (Vec::new(), ""),
        (sound[..sound.len() - 1].to_vec(), ""),
        (store.read(other), "belongs to another partition"),
        (store.read("partition-000/000000001.data"), ""),
        (of_newer_version(first, sound.clone()), "version 2"),
    ] {
        store.write(first, &bytes);
        let report = verify(&store);
        assert!(report.is_sound(), "{report:?}");
        assert_eq!((report.hints, report.hints_missing), (files - 1, 0), "{report:?}");
        let [hint] = &report.hints_ignored[..] else { panic!("{report:?}") };
        assert!(hint.path.ends_with(first) && hint.what.contains(what), "{hint}");
        let copy = store.on(store.disk().kill());
        let db = copy.open();
        assert_eq!(contents(&db), values);
        wait(db.close()).unwrap();
    }
    store.remove(first);
    let report = verify(&store);
    assert_eq!((report.hints, report.hints_missing), (files - 1, 1), "{report:?}");
    assert!(report.is_sound() && report.hints_ignored.is_empty());
    // Of a file that is not listed it is a leftover, as the file would be.
    store.write("partition-000/000000077.hint", &sound);
    let report = verify(&store);
    assert_eq!(report.strays, [store.path().join("partition-000/000000077.hint")]);
    assert!(report.is_sound());
}

/// Every checksum of the hint holds, and it points at an older value: opening would believe it.
#[test]
fn a_hint_that_contradicts_its_data_file_is_damage() {
    let store = Store::sim(seed());
    let db = store.open_one();
    for value in ["old", "new"] {
        wait(db.put("a", value)).unwrap();
        wait(db.put("b", value)).unwrap();
    }
    wait(db.close()).unwrap();
    assert!(verify(&store).is_sound());
    forge_hint(&store, FIRST_HINT);
    let copy = store.on(store.disk().kill());
    let db = copy.open();
    // This is why it is damage.
    assert_ne!(wait(db.get("a")).ok().flatten().as_deref(), Some(b"new".as_slice()));
    wait(db.close()).unwrap();
    let report = verify(&store);
    let [damage] = &report.damage[..] else { panic!("{report:?}") };
    assert_eq!((damage.path.clone(), damage.offset), (store.path().join(FIRST_HINT), 128));
    assert_eq!(damage.key.as_deref(), Some(b"a".as_slice()), "{damage}");
    assert!(damage.what.contains("contradicts its data file"), "{damage}");
}

pub(crate) const FIRST_HINT: &str = "partition-000/000000001.hint";

/// Makes the first entry of a hint point at the record 80 bytes before, with the checksum made good.
pub(crate) fn forge_hint(store: &Store, hint: &str) {
    let mut bytes = store.read(hint);
    // Seed of the checksums: that of store id, partition and file id.
    let identity = [&bytes[16..36], &bytes[40..48]].concat();
    let len = u32::from_le_bytes(bytes[132..136].try_into().unwrap()) as usize;
    // Behind the block's head: shared, rest, kind, and then the place in units of 8 bytes above ten bits.
    let at = 128 + 12 + 3;
    let mut place = [0; 8];
    place[..5].copy_from_slice(&bytes[at..at + 5]);
    let before = u64::from_le_bytes(place) - (10 << 10);
    bytes[at..at + 5].copy_from_slice(&before.to_le_bytes()[..5]);
    let crc = crc32c(crc32c(0, &identity), &bytes[132..128 + len]);
    bytes[128..132].copy_from_slice(&crc.to_le_bytes());
    store.write(hint, &bytes);
}

/// Damage in one place hides none in another.
#[test]
fn all_damage_is_found_in_one_go() {
    let store = Store::sim(seed());
    let db = store.open_with(store.options().partitions(2).data_file_len_max(16 << 10));
    let random = &mut fastrand::Rng::with_seed(1);
    let values: BTreeMap<Vec<u8>, Vec<u8>> =
        (0..200).map(|n| (format!("key {n:03}").into_bytes(), bytes_of(random, 300))).collect();
    for (key, value) in &values {
        wait(db.put(key, value.as_slice()).durability(Durability::Buffered)).unwrap();
    }
    wait(db.close()).unwrap();
    let mut hit: Vec<(PathBuf, u64)> = Vec::new();
    let mut keys = Vec::new();
    for file in store.data_files() {
        let bytes = store.read(&file);
        for (key, value) in &values {
            let at = bytes.windows(value.len()).position(|window| window == value.as_slice());
            if let Some(at) = at.filter(|_| key.last() == Some(&b'7')) {
                let path = store.path().join(&file);
                store.disk().flip(&path, at as u64 + 5, 1).unwrap();
                hit.push((path, at as u64 + 5));
                keys.push(key.clone());
            }
        }
    }
    assert_eq!(hit.len(), 20);
    let missing = store.path().join("partition-001/000000001.data");
    let is_elsewhere = |(path, _): &&(PathBuf, u64)| *path != missing;
    let expected = hit.iter().filter(is_elsewhere).count();
    let moved = store.read("partition-001/000000001.data");
    let report = verify(&store);
    assert_eq!(report.damage.len(), 20);
    for (damage, (path, at)) in report.damage.iter().zip(&hit) {
        assert!(damage.offset <= *at && *at < damage.offset + damage.len.unwrap(), "{damage}");
        assert_eq!(&damage.path, path);
    }
    let mut named: Vec<_> = report.damage.iter().filter_map(|damage| damage.key.clone()).collect();
    named.sort();
    keys.sort();
    assert_eq!(named, keys);
    assert_eq!(report.records, 180);
    // With a file gone too, the others are still read.
    store.disk().write_file("/elsewhere", &moved).unwrap();
    let gone = store.on(store.disk().kill());
    gone.remove("partition-001/000000001.data");
    let report = verify(&gone);
    assert_eq!(report.damage.len(), expected + 1);
    assert!(report.damage.iter().any(|damage| damage.path == missing && damage.len.is_none()));
}

/// What the next open cleans up is not damage.
#[test]
fn torn_tails_and_strays_are_told_from_damage() {
    let store = Store::sim(seed());
    // The sync of zeros written ahead would make durable what is to be torn.
    let db = store.open_with(store.options().partitions(1).prewrite(false));
    wait(db.put("k", "v")).unwrap();
    wait(db.put("torn", vec![1; 5000]).durability(Durability::Buffered)).unwrap();
    let mut torn = None;
    for seed in 0..60 {
        let cut = store.on(store.disk().power_cut(Cut::Random { seed }));
        let report = verify(&cut);
        assert!(report.is_sound(), "{report:?}");
        let db = cut.open();
        assert_eq!(get(&db, "k").unwrap(), "v");
        assert_eq!(get(&db, "torn").is_none(), report.records == 1);
        if report.torn_bytes > 0 {
            torn = Some(report.torn_bytes);
        }
        wait(db.close()).unwrap();
    }
    assert!(torn.is_some());
    wait(db.close()).unwrap();
    store.write("partition-000/000000077.data", b"anything");
    store.write("partition-000/notes", b"mine");
    let report = verify(&store);
    assert!(report.is_sound());
    assert_eq!(report.strays, [store.path().join("partition-000/000000077.data")]);
    assert_eq!(store.read("partition-000/000000077.data"), b"anything");
}

/// Bytes and times of files are what they were, sound or damaged.
#[test]
fn verify_changes_nothing() {
    for damaged in [false, true] {
        let store = Store::blocking();
        wait(fill_small(&store).close()).unwrap();
        store.write("partition-000/000000077.data", b"a stray");
        if damaged {
            for (file, mut bytes) in store.image() {
                let at = bytes.len() / 2;
                bytes[at] ^= 1;
                store.write(&file, &bytes);
            }
        }
        let times = || -> BTreeMap<PathBuf, SystemTime> {
            let mut paths = vec![store.path().to_owned()];
            for name in store.list("").iter().chain(&store.data_files()) {
                paths.push(store.path().join(name));
            }
            let time = |path: PathBuf| {
                let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
                (path, modified)
            };
            paths.into_iter().map(time).collect()
        };
        let before = (store.image(), times());
        let report = verify(&store);
        assert_eq!(report.is_sound(), !damaged);
        assert_eq!((store.image(), times()), before);
    }
}

#[test]
fn an_open_store_is_not_verified() {
    each_disk(|store| {
        let db = fill_small(store);
        for _again in 0..2 {
            let error = wait(store.options().verify(store.path())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
        }
        wait(db.close()).unwrap();
        assert!(verify(store).is_sound());
        wait(store.open().close()).unwrap();
    });
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let store = Store::blocking();
    let refuse = |what: &str| {
        for error in [
            wait(store.options().verify(store.path())).map(drop).unwrap_err(),
            wait(store.options().repair(store.path())).map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::NotAStore, "{what}: {error}");
        }
    };
    refuse("empty");
    assert_eq!(store.list(""), [""; 0], "no LOCK either");
    store.write("notes", b"mine");
    refuse("foreign");
    assert_eq!(store.list(""), ["notes"]);
    let missing = wait(Db::verify(store.path().join("missing"))).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotAStore);
    let file = wait(Db::verify(store.path().join("notes"))).unwrap_err();
    assert_eq!(file.kind(), ErrorKind::NotAStore);
}

/// A newer build's file is not damage, and nothing in it is called that.
#[test]
fn newer_files_are_told_from_damage() {
    for file in ["MANIFEST", "partition-000/FILES", "partition-000/000000001.data"] {
        let store = Store::sim(seed());
        wait(fill_small(&store).close()).unwrap();
        store.write(file, &of_newer_version(file, store.read(file)));
        let report = verify(&store);
        assert!(!report.is_sound());
        assert_eq!((report.newer.len(), report.damage.len()), (1, 0), "{report:?}");
        assert_eq!(report.newer[0].path, store.path().join(file));
    }
}

/// A disk that refuses to read is the reason to verify, not to give up.
#[test]
fn what_cannot_be_read_is_reported() {
    let store = Store::sim(seed());
    wait(fill_small(&store).close()).unwrap();
    store.disk().fail_reads(EIO);
    let report = verify(&store);
    assert!(!report.is_sound());
    assert!(report.damage[0].what.contains("cannot be read"), "{report:?}");
    store.disk().clear_faults();
    assert!(verify(&store).is_sound());
}

/// The files of a partition are judged even if their list is gone, and whatever MANIFEST says.
#[test]
fn lost_lists_do_not_end_the_reading() {
    let store = Store::sim(seed());
    wait(fill_small(&store).close()).unwrap();
    let records = verify(&store).records;
    store.write("partition-001/FILES", b"");
    store.write("MANIFEST", b"format_version = 1\n");
    let report = verify(&store);
    assert_eq!((report.records, report.damage.len()), (records, 2), "{report:?}");
    let path = store.path().join("partition-001/000000001.data");
    store.disk().flip(&path, 200, 1).unwrap();
    let report = verify(&store);
    assert_eq!((report.records, report.damage.len()), (records - 1, 3), "{report:?}");
}
