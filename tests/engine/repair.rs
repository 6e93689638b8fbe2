//! `Db::repair`: keeps what is sound, loses nothing else, and may be killed anywhere.

use std::collections::{BTreeMap, BTreeSet};

use ringcask::sim::{Cut, SimDisk};
use ringcask::{Compaction, Db, Durability, ErrorKind, RepairReport, WriteBatch};

use crate::opening::of_newer_version;
use crate::support::{
    EMFILE, ENOSPC, Store, bytes_of, contents, each_disk, get, is_hint, seed, wait,
};
use crate::verify::{FIRST_HINT, fill_small, forge_hint, verify};

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

fn repair(store: &Store) -> RepairReport {
    wait(store.options().repair(store.path())).unwrap_or_else(|error| panic!("{error}"))
}

fn open_contents(store: &Store) -> Contents {
    let db = store.open();
    let found = contents(&db);
    wait(db.close()).unwrap();
    found
}

fn files_of(disk: &Store) -> BTreeSet<Vec<u8>> {
    disk.image().into_values().collect()
}

#[test]
fn a_sound_store_is_left_as_it_is() {
    each_disk(|store| {
        wait(fill_small(store).close()).unwrap();
        store.write("partition-000/000000077.data", b"a stray");
        let before = store.image();
        let report = repair(store);
        assert!(!report.is_changed() && report.found.is_sound(), "{report:?}");
        assert_eq!(store.image(), before);
        wait(store.open().close()).unwrap();
    });
}

/// Opening would believe it, so it goes; nothing else does, and the next open writes a right one. Killed
/// anywhere, the repair is run again.
#[test]
fn a_hint_that_contradicts_its_data_file_is_removed() {
    let store = Store::sim(seed());
    let db = store.open_one();
    for value in ["old", "new"] {
        wait(db.put("a", value)).unwrap();
        wait(db.put("b", value)).unwrap();
    }
    wait(db.close()).unwrap();
    let values = BTreeMap::from(["a", "b"].map(|key| (key.as_bytes().to_vec(), b"new".to_vec())));
    forge_hint(&store, FIRST_HINT);
    let mut expected = store.image();
    expected.remove(FIRST_HINT);
    for crash_at in 0.. {
        let disk = store.disk().kill();
        disk.crash_at(crash_at);
        let crashed = store.on(disk.clone());
        let ended = wait(crashed.options().repair(crashed.path()));
        let is_crashed = disk.crashed();
        for left in [disk.kill(), disk.power_cut(Cut::DropUnsynced)].map(|left| store.on(left)) {
            let report = repair(&left);
            assert!(is_crashed || !report.is_changed(), "{report:?}");
            assert_eq!(left.image(), expected, "{crash_at}");
            assert_eq!(open_contents(&left), values, "{crash_at}");
            let report = verify(&left);
            assert_eq!((report.hints, report.hints_missing), (1, 0));
        }
        if !is_crashed {
            let report = ended.unwrap();
            assert_eq!(report.hints_removed, [store.path().join(FIRST_HINT)]);
            assert!(report.set_aside.is_empty() && report.written.is_empty());
            break;
        }
    }
}

/// A torn tail is recovery's business: repair neither cuts nor seals it.
#[test]
fn a_killed_store_is_left_as_it_is() {
    let store = Store::sim(seed());
    let db = fill_small(&store);
    for seed in 0..20 {
        let cut = store.on(store.disk().power_cut(Cut::Random { seed }));
        let before = cut.image();
        assert!(!repair(&cut).is_changed());
        assert_eq!(cut.image(), before);
    }
    wait(db.close()).unwrap();
}

/// Damage of every kind at once.
fn ruin(store: &Store) {
    let flip = |file: &str, at: u64| store.disk().flip(store.path().join(file), at, 1).unwrap();
    flip("partition-000/000000001.data", 200);
    flip("partition-001/000000001.data", 20);
    flip("partition-001/FILES", 40);
    store.remove("MANIFEST");
}

/// The promise of repair, at every single operation of it: killed, or the power cut, and run again, it
/// ends with the same contents, and with every damaged file kept.
#[test]
fn a_repair_that_was_killed_anywhere_is_run_again() {
    let seed = seed();
    let store = Store::sim(seed);
    wait(fill_small(&store).close()).unwrap();
    ruin(&store);
    let ruined = store.image();
    let whole = store.on(store.disk().kill());
    let report = repair(&whole);
    assert_eq!(report.rebuilt.len(), 2, "{report:?}");
    assert_eq!(report.set_aside.len(), 3, "{report:?}");
    let expected = open_contents(&whole);
    assert!(expected.len() >= 5, "most of it");
    for crash_at in 0.. {
        let disk = store.disk().kill();
        disk.crash_at(crash_at);
        let crashed = store.on(disk.clone());
        let ended = wait(crashed.options().repair(crashed.path()));
        if !disk.crashed() {
            ended.unwrap();
            assert!(crash_at > 20, "{crash_at}");
            break;
        }
        let policies =
            [Cut::DropUnsynced, Cut::KeepAll, Cut::Random { seed }, Cut::Random { seed: seed + 1 }];
        let cuts = policies.map(|policy| disk.power_cut(policy));
        for (index, left) in [disk.kill()].into_iter().chain(cuts).enumerate() {
            let what = format!("crashed at {crash_at}, left {index}");
            let left = store.on(left);
            // An open in between is refused, or finds what it would have found in the end.
            let between = left.on(left.disk().kill());
            if let Ok(db) = between.try_open(between.options()) {
                assert_eq!(contents(&db), expected, "{what}");
                wait(db.close()).unwrap();
            }
            for again in [left, between] {
                repair(&again);
                for (file, bytes) in &ruined {
                    let is_damaged = file != "MANIFEST" && !expected_sound(file);
                    assert!(!is_damaged || files_of(&again).contains(bytes), "{what}: {file}");
                }
                assert_eq!(open_contents(&again), expected, "{what}");
                assert!(verify(&again).is_sound(), "{what}");
                assert!(!repair(&again).is_changed(), "{what}");
            }
        }
    }
}

fn expected_sound(file: &str) -> bool {
    !["partition-000/000000001.data", "partition-001/000000001.data", "partition-001/FILES"]
        .contains(&file)
}

/// Breaks if a repair that goes on where another was killed, and finds nothing to keep, says that nothing was
/// changed: whoever asked for it would not learn of the loss.
#[test]
fn a_repair_that_goes_on_and_keeps_nothing_says_so() {
    let store = Store::sim(seed());
    wait(fill_small(&store).close()).unwrap();
    let file = "partition-000/000000001.data";
    store.remove(file);
    store.write(&format!("{file}.damaged"), &[0; 200]);
    let report = repair(&store);
    assert_eq!(report.missing, [store.path().join(file)], "{report:?}");
    assert!(report.is_changed() && report.records_lost > 0);
    assert!(!open_contents(&store).is_empty() && !repair(&store).is_changed());
}

/// Everything that may fail is tried before anything is moved.
#[test]
fn a_full_disk_is_an_error_and_loses_nothing() {
    let store = Store::sim(seed());
    wait(fill_small(&store).close()).unwrap();
    store.disk().flip(store.path().join("partition-000/000000001.data"), 200, 1).unwrap();
    let before = store.image();
    let used = store.used_bytes();
    let mut refused = 0;
    for room in (0..6000).step_by(64) {
        store.disk().capacity_bytes(Some(used + room));
        match wait(store.options().repair(store.path())) {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{room}: {error}");
                assert_eq!(store.image(), before, "{room}");
                refused += 1;
            }
            Ok(report) => {
                assert!(report.is_changed());
                break;
            }
        }
    }
    assert!(refused > 0, "{refused}");
    assert!(open_contents(&store).len() >= 6);
}

/// An operation that fails without the disk being dead: an error, and the next repair finishes.
#[test]
fn any_failed_operation_leaves_a_store_that_can_be_repaired() {
    let store = Store::sim(seed());
    wait(fill_small(&store).close()).unwrap();
    ruin(&store);
    let whole = store.on(store.disk().kill());
    repair(&whole);
    let expected = open_contents(&whole);
    for nth in 0.. {
        let disk = store.disk().kill();
        disk.fail_op(nth, ENOSPC, false);
        let failing = store.on(disk.clone());
        let ended = wait(failing.options().repair(failing.path()));
        if disk.ops() <= nth {
            break;
        }
        if let Err(error) = ended {
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{nth}: {error}");
        }
        disk.clear_faults();
        repair(&failing);
        assert_eq!(open_contents(&failing), expected, "{nth}");
    }
}

/// On real files too, with every part of the store gone in turn.
#[test]
fn lost_files_are_dropped_and_lost_lists_made_anew() {
    let sound = Store::blocking();
    wait(fill_small(&sound).close()).unwrap();
    let values = {
        let found = open_contents(&sound);
        assert!(verify(&sound).is_sound());
        found
    };
    for file in sound.image().into_keys() {
        for emptied in [false, true] {
            let store = Store::blocking();
            for (name, bytes) in sound.image() {
                std::fs::create_dir_all(store.path().join(&name).parent().unwrap()).unwrap();
                store.write(&name, &bytes);
            }
            if emptied {
                store.write(&file, b"");
            } else {
                store.remove(&file);
            }
            let report = repair(&store);
            assert_eq!(report.is_changed(), !is_hint(&file), "{file}: {report:?}");
            let found = open_contents(&store);
            if is_hint(&file) {
                assert_eq!(found, values, "{file}");
                let counts = (report.found.hints_missing, report.found.hints_ignored.len());
                assert_eq!(counts, if emptied { (0, 1) } else { (1, 0) }, "{report:?}");
            } else if sound.data_files().contains(&file) {
                assert!(report.records_lost > 0);
                assert!(found.len() < values.len() || found != values, "{file}");
                assert_eq!(report.missing.len(), usize::from(!emptied), "{report:?}");
                assert_eq!(report.set_aside.len(), usize::from(emptied));
            } else {
                assert_eq!(found, values, "{file}");
                assert!(report.rebuilt[0].ends_with(&file), "{report:?}");
                assert!(!report.warnings.is_empty());
            }
            // Written to again, and opened again: no number was given twice.
            let db = store.open();
            for key in values.keys() {
                wait(db.put(key, "after")).unwrap();
            }
            wait(db.close()).unwrap();
            let db = store.open();
            for key in values.keys() {
                assert_eq!(get(&db, key).unwrap(), "after", "{file}");
            }
            wait(db.close()).unwrap();
        }
    }
}

/// A partition's whole directory gone: the others keep their keys, and it starts anew.
#[test]
fn a_lost_partition_starts_anew() {
    let store = Store::blocking();
    wait(fill_small(&store).close()).unwrap();
    std::fs::remove_dir_all(store.path().join("partition-000")).unwrap();
    let report = repair(&store);
    assert!(report.rebuilt[0].ends_with("partition-000/FILES"));
    let db = store.open();
    assert!(!contents(&db).is_empty());
    for n in 0..20 {
        wait(db.put(format!("{n}"), "v")).unwrap();
    }
    wait(db.close()).unwrap();
    assert!(open_contents(&store).len() > 20);
}

/// A note that somebody left beside MANIFEST is no reason to call the rest no store.
#[test]
fn a_lost_manifest_is_made_anew_beside_strangers() {
    let store = Store::blocking();
    wait(fill_small(&store).close()).unwrap();
    let values = open_contents(&store);
    store.write("A note", b"mine");
    store.remove("MANIFEST");
    assert_eq!(verify(&store).damage_count(), 1);
    assert!(repair(&store).rebuilt[0].ends_with("MANIFEST"));
    assert_eq!(open_contents(&store), values);
    assert_eq!(store.read("A note"), b"mine");
}

#[test]
fn without_anything_to_go_by_nothing_is_changed() {
    let store = Store::blocking();
    wait(store.open_with(store.options().partitions(2)).close()).unwrap();
    store.write("MANIFEST", b"nothing");
    let before = store.image();
    let error = wait(store.options().repair(store.path())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("MANIFEST"), "{error}");
    assert_eq!(store.image(), before);
}

/// Damaged and newer at once: nothing is touched, because what this build does not know it would lose.
#[test]
fn a_newer_file_anywhere_stops_the_whole_repair() {
    for newer in ["MANIFEST", "partition-001/FILES", "partition-001/000000001.data"] {
        let store = Store::sim(seed());
        wait(fill_small(&store).close()).unwrap();
        store.write(newer, &of_newer_version(newer, store.read(newer)));
        store.disk().flip(store.path().join("partition-000/000000001.data"), 200, 1).unwrap();
        let before = store.image();
        let error = wait(store.options().repair(store.path())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NewerFormat, "{error}");
        assert_eq!(store.image(), before);
    }
}

#[test]
fn an_open_store_is_not_repaired() {
    each_disk(|store| {
        let db: Db = fill_small(store);
        let error = wait(store.options().repair(store.path())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
        wait(db.close()).unwrap();
    });
}

/// A file of many records, hit in many places: exactly the records that were hit are gone.
#[test]
fn much_damage_costs_what_it_hits() {
    let store = Store::sim(seed());
    let db = store.open_with(store.options().partitions(1));
    let value = |n: usize| vec![n as u8; 200 + n % 300];
    let puts = (0..2000).map(|n| db.put(format!("key {n:04}"), value(n)));
    wait(futures::future::try_join_all(puts)).unwrap();
    wait(db.close()).unwrap();
    let file = "partition-000/000000001.data";
    let mut bytes = store.read(file);
    let hole = bytes.len() / 2;
    bytes[hole..hole + 40_960].fill(0);
    let whole = |n: usize| {
        let record = [format!("key {n:04}").into_bytes(), value(n)].concat();
        bytes.windows(record.len()).any(|window| window == record)
    };
    let sound: Vec<usize> = (0..2000).filter(|n| whole(*n)).collect();
    assert!((1800..1960).contains(&sound.len()), "{}", sound.len());
    store.write(file, &bytes);
    let small = store.options().data_file_len_max(64 << 10);
    let report = wait(small.repair(store.path())).unwrap();
    let kept = report.records_kept as usize;
    // The body of a record at the edge may be whole and its header not.
    assert!(sound.len() - kept <= 1, "{kept} of {}", sound.len());
    assert_eq!(report.records_lost as usize, 2000 - kept);
    assert!(report.written.len() > 5, "data_file_len_max holds for new files");
    let found = open_contents(&store);
    assert_eq!(found.len(), kept);
    for (key, found) in found {
        let n: usize = std::str::from_utf8(&key[4..]).unwrap().parse().unwrap();
        assert_eq!(found, value(n));
    }
    assert_eq!(store.read("partition-000/000000001.data.damaged"), bytes);
}

/// A second damage to the file that has the name taken already gets another name.
#[test]
fn names_of_damaged_files_are_never_reused() {
    let store = Store::sim(seed());
    wait(fill_small(&store).close()).unwrap();
    store.write("MANIFEST.damaged", b"mine");
    store.write("partition-000/000000001.data.damaged", b"mine too");
    ruin(&store);
    store.write("MANIFEST", b"not any more");
    let report = repair(&store);
    assert_eq!(store.read("MANIFEST.damaged"), b"mine");
    assert_eq!(store.read("partition-000/000000001.data.damaged"), b"mine too");
    assert_eq!(store.read("MANIFEST.damaged.2"), b"not any more");
    assert!(store.list("partition-000").contains(&"000000001.data.damaged.2".to_owned()));
    assert_eq!(report.set_aside.len(), 4);
    assert!(!open_contents(&store).is_empty());
}

/// The disk underneath dies for good while repair reads: an error or a report, never a panic.
#[test]
fn a_dying_disk_does_not_make_it_worse() {
    let store = Store::sim(seed());
    wait(fill_small(&store).close()).unwrap();
    let before = store.image();
    let disk: SimDisk = store.disk().kill();
    disk.crash_at(0);
    let dying = store.on(disk);
    let _error_or_report = wait(dying.options().repair(dying.path()));
    assert_eq!(dying.image(), before);
}

/// No permission, no memory, no descriptors: no reason to call anything damaged, and none to change it.
#[test]
fn what_may_not_be_read_now_is_not_given_up() {
    let sim = Store::sim(seed());
    wait(fill_small(&sim).close()).unwrap();
    let before = sim.image();
    sim.disk().fail_reads(EMFILE);
    let error = wait(sim.options().repair(sim.path())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert_eq!(sim.image(), before);

    // The same of one file, beside damage in another.
    for file in ["partition-000/000000001.data", "partition-000/FILES"] {
        let store = Store::blocking();
        wait(fill_small(&store).close()).unwrap();
        store.remove("partition-001/000000001.data");
        store.remove(file);
        std::fs::create_dir(store.path().join(file)).unwrap();
        let names = || ["", "partition-000", "partition-001"].map(|dir| store.list(dir));
        let before = names();
        let report = verify(&store);
        let says_so = |path: &std::path::Path| {
            report
                .damage
                .iter()
                .any(|damage| damage.path == path && damage.what.contains("cannot be"))
        };
        assert!(says_so(&store.path().join(file)), "{report:?}");
        assert!(report.damage_count() >= 2, "{report:?}");
        let error = wait(store.options().repair(store.path())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.to_string().contains(file), "{error}");
        assert_eq!(names(), before);
    }
}

/// Any damage to any store: what verifies opens, what does not is repaired, a crash in between does not
/// matter, and no key ever has a value that it never had.
#[test]
fn any_damage_is_repaired() {
    let seed = seed();
    let random = &mut fastrand::Rng::with_seed(seed);
    for round in 0..150 {
        let what = format!("round {round}, seed {seed}");
        let store = Store::sim(random.u64(..));
        let options = store.options().partitions(random.u32(1..=3)).data_file_len_max(4096);
        let db = store.open_with(options.prewrite(random.bool()));
        let mut history: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for _ in 0..random.usize(1..60) {
            let key = format!("key {}", random.u8(..20));
            if random.u8(..6) == 0 {
                wait(db.del(&key)).unwrap();
                continue;
            }
            let len = random.usize(..400);
            let value = bytes_of(random, len);
            let durability = if random.bool() { Durability::Sync } else { Durability::Buffered };
            wait(db.put(&key, value.as_slice()).durability(durability)).unwrap();
            history.entry(key).or_default().push(value);
        }
        let damaged = match random.u8(..3) {
            0 => store.on(store.disk().kill()),
            1 => store.on(store.disk().power_cut(Cut::Random { seed: random.u64(..) })),
            _ => {
                wait(db.close()).unwrap();
                store.on(store.disk().kill())
            }
        };
        let before = damaged.image();
        for _ in 0..random.usize(..4) {
            ruin_somewhere(&damaged, random);
        }
        let report = match wait(damaged.options().verify(damaged.path())) {
            Ok(report) => report,
            // MANIFEST is gone, and there never was a durable write: what a creation leaves behind.
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotAStore, "{what}: {error}");
                assert_eq!(damaged.data_files(), [""; 0], "{what}");
                wait(damaged.open().close()).unwrap();
                continue;
            }
        };
        let trial = damaged.on(damaged.disk().kill());
        trial.spoil_hints();
        let opened = trial.try_open(trial.options());
        assert_eq!(report.is_sound(), opened.is_ok(), "{what}: {report:?} {opened:?}");
        if let Ok(db) = opened {
            let found = contents(&db);
            wait(db.close()).unwrap();
            // With hints too, and with the same contents.
            assert_eq!(open_contents(&damaged.on(damaged.disk().kill())), found, "{what}");
        }
        if !report.newer.is_empty() {
            let error = wait(damaged.options().repair(damaged.path())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NewerFormat, "{what}");
            continue;
        }
        if random.bool() {
            damaged.disk().crash_at(random.u64(..40));
        }
        let ended = wait(damaged.options().repair(damaged.path()));
        let after = damaged.on(if random.bool() {
            damaged.disk().kill()
        } else if damaged.disk().crashed() {
            damaged.disk().power_cut(Cut::Random { seed: random.u64(..) })
        } else {
            damaged.disk().power_cut(Cut::DropUnsynced)
        });
        let report = match (ended, wait(after.options().repair(after.path()))) {
            (_, Ok(report)) => report,
            // MANIFEST is gone, and no data file is left that has a header.
            (first, Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
                assert!(error.to_string().contains("MANIFEST"), "{what}: {error}");
                assert!(first.is_err());
                continue;
            }
        };
        let db = after.try_open(after.options());
        let db = db.unwrap_or_else(|error| panic!("{what}: {error}, {report:?}"));
        for (key, value) in contents(&db) {
            let key = String::from_utf8(key).unwrap();
            assert!(history[&key].contains(&value), "{what}: {key}");
        }
        for key in history.keys() {
            wait(db.put(key, "after")).unwrap();
        }
        wait(db.close()).unwrap();
        let found = open_contents(&after);
        assert!(history.keys().all(|key| found[key.as_bytes()] == b"after"), "{what}");
        assert!(verify(&after).is_sound(), "{what}");
        assert!(!before.is_empty());
    }
}

/// A flip, a hole, a copied sector, a lost end or a lost file.
fn ruin_somewhere(store: &Store, random: &mut fastrand::Rng) {
    let files: Vec<String> = store.image().into_keys().collect();
    let file = &files[random.usize(..files.len())];
    let mut bytes = store.read(file);
    let at = random.usize(..bytes.len().max(1));
    let end = bytes.len().min(at + random.usize(1..2000));
    match random.u8(..6) {
        0 => return store.remove(file),
        1 => bytes.truncate(at),
        2 => bytes[at..end].fill(0),
        3 => bytes[at..end].fill_with(|| random.u8(..)),
        4 if end > at => {
            let from = random.usize(..=at) & !7;
            let to = at & !7;
            let copy = bytes[from..(from + end - at).min(bytes.len())].to_vec();
            let len = copy.len().min(bytes.len() - to);
            bytes[to..to + len].copy_from_slice(&copy[..len]);
        }
        _ if end > at => bytes[at] ^= 1 << random.u8(..8),
        _ => {}
    }
    store.write(file, &bytes);
}

/// A store is killed at every moment of a batch over its partitions, and files that the batch is not in are damaged.
/// Breaks if repair drops intents or decisions, or calls them damage: the next open could not settle them.
#[test]
fn a_batch_on_its_way_survives_repair() {
    let mut outcomes = [0; 2];
    for nth in 0.. {
        let store = Store::sim(seed());
        let options = || store.options().workers(1).compaction(Compaction::off());
        let db = store.open_with(options().partitions(3));
        let keys: Vec<String> = (0..12).map(|n| format!("key {n}")).collect();
        let batch = |value: &str| {
            keys.iter().fold(WriteBatch::new(), |batch, key| batch.put(key, value.to_owned()))
        };
        wait(db.write(batch("old"))).unwrap();
        for partition in 0..3 {
            let mut keys = (0..1000).map(|n| format!("lost {n}"));
            let key = keys.find(|key| db.partition_of(key) == partition);
            wait(db.put(key.unwrap(), vec![b'l'; 300])).unwrap();
        }
        wait(db.close()).unwrap();
        let db = store.open_with(options());
        wait(db.put("before", "v")).unwrap();
        let disk = store.disk();
        disk.crash_at(disk.ops() + nth);
        let _crashed = wait(db.write(batch("new")));
        // What comes behind the answer has its moments too, down to the mark that closes the log.
        let _crashed = wait(db.sync());
        let _crashed = wait(db.close());
        if !disk.crashed() {
            break;
        }
        let killed = || store.on(disk.power_cut(Cut::KeepAll));
        let expected = open_contents(&killed());
        let sound = killed();
        assert!(!repair(&sound).is_changed(), "operation {nth}");
        assert_eq!(open_contents(&sound), expected, "operation {nth}");

        let damaged = killed();
        for dir in ["partition-000", "partition-001", "partition-002"] {
            // The last record of a sealed file.
            let file = format!("{dir}/000000001.data");
            let at = damaged.read(&file).len() as u64 - 100;
            damaged.disk().flip(damaged.path().join(&file), at, 1).unwrap();
        }
        let report = repair(&damaged);
        assert_eq!(report.set_aside.len(), 3, "operation {nth}: {report:?}");
        let found = open_contents(&damaged);
        for key in &keys {
            let key = key.as_bytes();
            assert_eq!(found.get(key), expected.get(key), "operation {nth}: {report:?}");
        }
        outcomes[usize::from(found[&b"key 0"[..]] == b"new")] += 1;
    }
    assert!(outcomes.iter().all(|count| *count > 0), "before the decision and after: {outcomes:?}");
}
