//! Sectors that cannot be read any more.
//!
//! Without this test a get could answer a read error with a panic, with "missing", or with bytes
//! that were never written.

use std::fs::OpenOptions;

use ringcask::{ErrorKind, Io, Options};
use rustix::fs::Advice;
use rustix::param::page_size;

use crate::support::loop_mount::{FileSystem, LoopMount};
use crate::support::{MIB, close, data_files, drivers, open, until, wait};

const KEYS: usize = 200;

fn value(number: usize) -> Vec<u8> {
    vec![number as u8; 50_000 + number * 100]
}

fn half_of_it_is_gone(io: &Io) {
    let Some(mount) = LoopMount::new(FileSystem::Ext4, 48 * MIB) else { return };
    let options = Options::new().partitions(1).io(io.clone()).data_file_len_max(4 * MIB);
    let db = open(&options, &mount.store());
    wait(futures::future::try_join_all(
        (0..KEYS).map(|number| db.put(number.to_string(), value(number))),
    ))
    .unwrap();

    // The device loses what lies behind its new end, and nothing of that is left in memory.
    OpenOptions::new().write(true).open(mount.image()).unwrap().set_len(14 * MIB).unwrap();
    for file in data_files(&mount.store()) {
        let file = std::fs::File::open(file).unwrap();
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }

    let (mut right, mut failed) = (0, 0);
    for number in 0..KEYS {
        match wait(db.get(number.to_string())) {
            Ok(found) => {
                assert!(found.is_some_and(|found| found == value(number)), "key {number}");
                right += 1;
            }
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Corrupt), "{error}");
                assert!(error.to_string().contains(".data"), "no file is named: {error}");
                failed += 1;
            }
        }
    }
    println!("{io:?}: {right} right, {failed} failed");
    assert!(failed > 0, "the device lost nothing");
    let _whatever_it_says = close(&db);
}

/// One that is read without a hop.
fn short(number: usize) -> Vec<u8> {
    vec![number as u8; 40_000 + number * 100]
}

fn is_all_locked(locked_bytes: u64, mount: &LoopMount) -> bool {
    let files = data_files(&mount.store());
    let hints = files.iter().map(|file| file.with_extension("hint"));
    let lens = files.iter().cloned().chain(hints).map(|file| Some(file.metadata().ok()?.len()));
    let page = page_size() as u64;
    let lens = lens.map(|len| Some(len?.next_multiple_of(page)));
    lens.sum::<Option<u64>>() == Some(locked_bytes)
}

/// Reads of what is locked in memory, when the device has lost it.
fn all_of_it_is_in_memory(io: &Io) {
    let Some(mount) = LoopMount::new(FileSystem::Ext4, 48 * MIB) else { return };
    let options = Options::new().partitions(1).io(io.clone()).data_file_len_max(4 * MIB);
    let db = open(&options, &mount.store());
    wait(db.load((0..KEYS).map(|number| (number.to_string(), short(number))))).unwrap();
    close(&db).unwrap();
    drop(db);
    let db = open(&options.locked_bytes(48 * MIB), &mount.store());
    // The last that is locked is a hint, so by then every data file is.
    until("all is locked", || db.stats(), |stats| is_all_locked(stats.locked_bytes, &mount));
    OpenOptions::new().write(true).open(mount.image()).unwrap().set_len(MIB).unwrap();
    for file in data_files(&mount.store()) {
        let file = std::fs::File::open(file).unwrap();
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }
    for number in 0..KEYS {
        let found = wait(db.get(number.to_string())).unwrap();
        assert!(found.is_some_and(|found| found == short(number)), "key {number}");
    }
    let total = db.stats().total();
    assert_eq!((total.gets, total.gets_hop_free), (KEYS as u64, KEYS as u64));
    let _whatever_it_says = close(&db);
}

/// Without it a sector that is lost could kill the process, or what is locked be asked of the disk.
#[test]
fn what_is_locked_is_read_without_the_device() {
    drivers().iter().for_each(all_of_it_is_in_memory);
}

/// Without it see above.
#[test]
fn a_get_says_that_it_could_not_read() {
    drivers().iter().for_each(half_of_it_is_gone);
}
