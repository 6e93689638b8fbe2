//! The disk fills up, and is emptied again.
//!
//! Without these tests a full disk, the most ordinary of failures, could cost a restart or a write.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use futures::future::join_all;
use ringcask::{Db, Durability, Error, ErrorKind, Options};

use crate::support::loop_mount::{FileSystem, LoopMount};
use crate::support::{MIB, close, drivers, open, wait};

const VALUE_LEN: usize = 16 << 10;

fn value(number: usize) -> Vec<u8> {
    vec![number as u8; VALUE_LEN - number % 1000]
}

/// Puts until the disk is full; returns what it was told then.
fn fill(db: &Db, stored: &mut BTreeMap<usize, Vec<u8>>, durability: Durability) -> Error {
    for number in stored.len().. {
        let put = db.put(number.to_string(), value(number)).durability(durability);
        match wait(put) {
            Ok(()) => drop(stored.insert(number, value(number))),
            Err(error) => return error,
        }
        assert!(number < 10_000, "the disk never filled up");
    }
    unreachable!()
}

fn check(db: &Db, stored: &BTreeMap<usize, Vec<u8>>) {
    for (number, value) in stored {
        let found = wait(db.get(number.to_string())).unwrap();
        assert!(found.is_some_and(|found| found == value), "key {number}");
    }
    assert_eq!(db.stats().total().keys, stored.len() as u64);
}

fn fill_and_free(options: &Options, durability: Durability) {
    let Some(mount) = LoopMount::new(FileSystem::Ext4, 24 * MIB) else { return };
    let filler = mount.path().join("filler");
    std::fs::write(&filler, vec![1; 6 << 20]).unwrap();
    File::open(&filler).unwrap().sync_all().unwrap();
    let db = open(options, &mount.store());
    let mut stored = BTreeMap::new();

    let error = fill(&db, &mut stored, durability);
    assert_no_space(&error, &mount.store());
    assert!(stored.len() > 100, "full after {} puts", stored.len());
    let mut refused = 0;
    for number in 20_000..20_005 {
        match wait(db.put(number.to_string(), value(number))) {
            // What upkeep gave back meanwhile may be enough for one more.
            Ok(()) => drop(stored.insert(number, value(number))),
            Err(error) => {
                assert_no_space(&error, &mount.store());
                assert_eq!(wait(db.get(number.to_string())).unwrap(), None);
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "the disk is not full");
    check(&db, &stored);

    std::fs::remove_file(&filler).unwrap();
    // The space is free when the removal is committed.
    rustix::fs::syncfs(File::open(mount.path()).unwrap()).unwrap();
    for number in 10_000..10_100 {
        wait(db.put(number.to_string(), value(number))).unwrap();
        stored.insert(number, value(number));
    }
    check(&db, &stored);
    close(&db).unwrap();
    drop(db);

    let db = open(options, &mount.store());
    check(&db, &stored);
    close(&db).unwrap();
}

fn assert_no_space(error: &Error, store: &Path) {
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    let text = error.to_string();
    assert!(text.contains(&store.display().to_string()), "no file is named: {text}");
    assert!(text.contains("free space"), "no cure is named: {text}");
}

/// Without it a write that finds no room could take the store with it until it is opened again.
#[test]
fn writes_resume_once_there_is_room() {
    for io in drivers() {
        for durability in [Durability::Sync, Durability::Buffered] {
            println!("{io:?}, {durability:?}");
            fill_and_free(&Options::new().partitions(1).io(io.clone()), durability);
        }
    }
}

/// Without it running out of space between two files, where a log is sealed, a file is created and a
/// list is replaced, could end in a log that cannot go on.
#[test]
fn a_rotation_without_room_is_tried_again() {
    for io in drivers() {
        for file_len_max in [300 << 10, 20 << 10] {
            println!("{io:?}, files of {file_len_max} bytes");
            let options =
                Options::new().partitions(1).io(io.clone()).data_file_len_max(file_len_max);
            fill_and_free(&options, Durability::Buffered);
        }
    }
}

/// Without it a store on a full disk might not open to be read, or to have something deleted.
#[test]
fn a_full_disk_opens_or_says_why_not() {
    for io in drivers() {
        let Some(mount) = LoopMount::new(FileSystem::Ext4, 24 * MIB) else { return };
        let options = Options::new().partitions(1).io(io);
        let db = open(&options, &mount.store());
        let mut stored = BTreeMap::new();
        let error = fill(&db, &mut stored, Durability::Sync);
        assert_no_space(&error, &mount.store());
        if let Err(error) = close(&db) {
            assert_no_space(&error, &mount.store());
        }
        drop(db);
        match wait(options.open(mount.store())) {
            Ok(db) => {
                check(&db, &stored);
                println!("close: {:?}", close(&db));
            }
            Err(error) => assert_no_space(&error, &mount.store()),
        }
    }
}

/// D1: breaks if deleting needs space that only deleting could free, or if puts wait for a restart.
#[test]
fn deleting_makes_room_on_a_full_disk() {
    for io in drivers() {
        let Some(mount) = LoopMount::new(FileSystem::Ext4, 24 * MIB) else { return };
        let options = Options::new().partitions(1).io(io).data_file_len_max(MIB);
        let db = open(&options, &mount.store());
        let mut stored = BTreeMap::new();
        let error = fill(&db, &mut stored, Durability::Buffered);
        assert_no_space(&error, &mount.store());

        let count = stored.len();
        let gone: Vec<usize> = (0..count).filter(|number| number % 4 != 0).collect();
        for some in gone.chunks(32) {
            let dels = join_all(some.iter().map(|number| db.del(number.to_string())));
            for (number, deleted) in some.iter().zip(wait(dels)) {
                let deleted = deleted.or_else(|error| {
                    // The reserve is for so many deletions only, and then compaction makes space.
                    assert_no_space(&error, &mount.store());
                    wait(db.compact())?;
                    wait(db.del(number.to_string()))
                });
                assert!(deleted.unwrap(), "{number} of {count}");
                stored.remove(number);
            }
        }
        wait(db.compact()).unwrap();
        // The space is free when the removals are committed.
        rustix::fs::syncfs(File::open(mount.path()).unwrap()).unwrap();
        for number in 10_000..10_000 + count / 4 {
            let put = db.put(number.to_string(), value(number));
            wait(put.durability(Durability::Buffered)).unwrap();
            stored.insert(number, value(number));
        }
        check(&db, &stored);
        assert!(db.stats().total().poisoned.is_none());
        close(&db).unwrap();
        drop(db);
        let db = open(&options, &mount.store());
        check(&db, &stored);
        close(&db).unwrap();
    }
}
