//! `Options::salvage`: a damaged store opens with what is sound, and says what is not.

use std::collections::BTreeMap;

use ringcask::ErrorKind;
use ringcask::sim::Cut;

use crate::opening::of_newer_version;
use crate::support::{ENOSPC, Store, contents, each_disk, is_hint, seed, wait};
use crate::verify::{fill_small, verify};

/// Whatever opening refuses is repaired; every sound record is there.
#[test]
fn whatever_is_damaged_the_store_opens() {
    let sound = Store::sim(seed());
    let db = fill_small(&sound);
    let values = contents(&db);
    wait(db.close()).unwrap();
    sound.spoil_hints();
    let data = sound.data_files();
    for file in sound.image().into_keys().filter(|file| !is_hint(file)) {
        for how in 0..3 {
            let store = sound.on(sound.disk().kill());
            match how {
                0 => store.remove(&file),
                1 => store.write(&file, b""),
                _ => {
                    let at = store.read(&file).len() as u64 / 2;
                    store.disk().flip(store.path().join(&file), at, 1).unwrap();
                }
            }
            let error = store.try_open(store.options()).unwrap_err();
            assert!(error.is_corrupt(), "{file}: {error}");
            let db = store.open_with(store.options().salvage(true));
            let report = db.salvaged().unwrap();
            assert!(report.is_changed() && report.found.damage_count() > 0, "{file}: {report:?}");
            let found = contents(&db);
            let written: Vec<&[u8]> = values.values().map(Vec::as_slice).collect();
            for value in found.values() {
                let is_old = [b"value 1".as_slice(), b"value 2"].contains(&value.as_slice());
                assert!(is_old || written.contains(&value.as_slice()), "{file}: {value:?}");
            }
            if !data.contains(&file) {
                assert_eq!(found, values, "{file}");
            }
            assert!(found.len() + 8 > values.len(), "{file}: most is there");
            wait(db.put("new", "v")).unwrap();
            wait(db.close()).unwrap();
            assert!(verify(&store).is_sound());
            // Once: it is sound now.
            let db = store.open_with(store.options().salvage(true));
            assert!(db.salvaged().is_none());
            wait(db.close()).unwrap();
        }
    }
}

#[test]
fn a_sound_store_is_not_touched() {
    each_disk(|store| {
        wait(fill_small(store).close()).unwrap();
        let before = store.image();
        let db = store.open_with(store.options().salvage(true));
        assert!(db.salvaged().is_none() && db.clone().salvaged().is_none());
        wait(db.close()).unwrap();
        assert_eq!(store.image(), before);
    });
}

/// On real disks too, and the lock is free again when it is over.
#[test]
fn the_lock_changes_hands() {
    each_disk(|store| {
        wait(fill_small(store).close()).unwrap();
        store.write("partition-000/FILES", b"");
        let db = store.open_with(store.options().salvage(true));
        assert!(db.clone().salvaged().unwrap().rebuilt[0].ends_with("partition-000/FILES"));
        let error = store.try_open(store.options().salvage(true)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
        wait(db.close()).unwrap();
        wait(store.open().close()).unwrap();
    });
}

/// What is no damage stays the error that it is, and nothing is changed.
#[test]
fn what_is_no_damage_is_not_repaired() {
    let store = Store::sim(0);
    wait(fill_small(&store).close()).unwrap();
    store.spoil_hints();
    let before = store.image();
    let refuse = |store: &Store, kind| {
        let error = store.try_open(store.options().salvage(true)).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    };
    let asked = store.options().salvage(true).partitions(7);
    assert_eq!(store.try_open(asked).unwrap_err().kind(), ErrorKind::PartitionCount);
    store.disk().fail_reads(5);
    refuse(&store, ErrorKind::Io);
    store.disk().clear_faults();
    assert_eq!(store.image(), before);
    let newer = store.on(store.disk().kill());
    let file = "partition-000/000000001.data";
    newer.write(file, &of_newer_version(file, newer.read(file)));
    newer.write("partition-001/FILES", b"");
    let before = newer.image();
    refuse(&newer, ErrorKind::NewerFormat);
    assert_eq!(newer.image(), before);
    // A repair that cannot be done is an error, and nothing is lost with it.
    let full = store.on(store.disk().kill());
    full.disk().flip(full.path().join(file), 150, 1).unwrap();
    full.disk().capacity_bytes(Some(full.used_bytes()));
    refuse(&full, ErrorKind::NoSpace);
    full.disk().capacity_bytes(None);
    wait(full.open_with(full.options().salvage(true)).close()).unwrap();
}

/// The power is cut anywhere in between: the next open goes on, with the same outcome.
#[test]
fn a_salvage_that_was_killed_is_gone_on_with() {
    let store = Store::sim(seed());
    wait(fill_small(&store).close()).unwrap();
    store.spoil_hints();
    store.disk().flip(store.path().join("partition-000/000000001.data"), 200, 1).unwrap();
    store.write("partition-001/FILES", b"");
    let open = |store: &Store| -> BTreeMap<Vec<u8>, Vec<u8>> {
        let db = store.open_with(store.options().salvage(true));
        let found = contents(&db);
        wait(db.close()).unwrap();
        found
    };
    let expected = open(&store.on(store.disk().kill()));
    for crash_at in 0.. {
        let disk = store.disk().kill();
        disk.crash_at(crash_at);
        let crashed = store.on(disk.clone());
        let ended = crashed.try_open(crashed.options().salvage(true));
        if let Ok(db) = &ended {
            // Closing meets the crash, too.
            let _outcome = wait(db.close());
        }
        drop(ended);
        if !disk.crashed() {
            break;
        }
        for left in [disk.kill(), disk.power_cut(Cut::DropUnsynced), disk.power_cut(Cut::KeepAll)] {
            assert_eq!(open(&store.on(left)), expected, "crashed at {crash_at}");
        }
    }
}

/// A full disk is told from damage even while the repair writes.
#[test]
fn a_failing_operation_is_an_error_and_no_loss() {
    let store = Store::sim(seed());
    wait(fill_small(&store).close()).unwrap();
    store.write("partition-001/FILES", b"");
    let whole = store.on(store.disk().kill());
    let db = whole.open_with(whole.options().salvage(true));
    let expected = contents(&db);
    wait(db.close()).unwrap();
    for nth in 0..40 {
        let failing = store.on(store.disk().kill());
        failing.disk().fail_op(nth, ENOSPC, false);
        if let Ok(db) = failing.try_open(failing.options().salvage(true)) {
            let _outcome = wait(db.close());
        }
        failing.disk().clear_faults();
        let db = failing.open_with(failing.options().salvage(true));
        assert_eq!(contents(&db), expected, "{nth}");
        wait(db.close()).unwrap();
    }
}
