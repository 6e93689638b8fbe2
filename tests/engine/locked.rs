//! Files that are locked in memory: read without the disk, within bounds, and gone with their files.

use std::time::{Duration, Instant};

use ringcask::{Compaction, Db, ErrorKind, Options};
use rustix::param::page_size;

use crate::support::{self, EIO, Store, contents, each_disk, get, wait};

const KEYS: usize = 2_000;
/// More than all files, and less than anybody may lock.
const ROOM: u64 = 6 << 20;

fn options(store: &Store) -> Options {
    let options = store.options().partitions(2).data_file_len_max(64 << 10);
    options.compaction(Compaction::off())
}

fn key(number: usize) -> String {
    format!("key {number}")
}

fn value(number: usize) -> Vec<u8> {
    vec![number as u8; 100 + number % 100]
}

fn fill(store: &Store) {
    let db = store.open_with(options(store));
    wait(db.load((0..KEYS).map(|number| (key(number), value(number))))).unwrap();
    wait(db.close()).unwrap();
}

/// What all data files and their hints take in memory, where they lie in whole pages.
fn stored_len(store: &Store) -> u64 {
    let hints = store.data_files().into_iter().map(|file| file.replace(".data", ".hint"));
    let files = store.data_files().into_iter().chain(hints);
    files.map(|file| store.read(&file).len().next_multiple_of(page_size()) as u64).sum()
}

/// Waits for the upkeep thread, which nothing tells when it is done.
fn until(db: &Db, what: &str, is_so: impl Fn(u64) -> bool) {
    support::until(what, || db.stats(), |stats| is_so(stats.locked_bytes));
}

fn check_all(db: &Db) {
    for number in 0..KEYS {
        assert_eq!(get(db, key(number)).unwrap(), value(number), "{number}");
    }
}

/// Breaks if what is locked is asked of the page cache or of the disk, or only data files are locked.
#[test]
fn what_is_locked_is_read_from_memory() {
    let store = Store::sim(7);
    fill(&store);
    let db = store.open_with(options(&store).locked_bytes(ROOM));
    until(&db, "all is locked", |locked| locked == stored_len(&store));
    store.disk().fail_reads(EIO);
    check_all(&db);
    let before = db.stats().total();
    assert_eq!(before.gets, before.gets_hop_free);
    // A scan takes its keys from hints.
    assert_eq!(contents(&db).len(), KEYS);
    wait(db.close()).unwrap();
}

/// Breaks if more is locked than may be, or nothing is where not all of it fits.
#[test]
fn what_fits_is_locked_and_the_rest_is_read_as_ever() {
    each_disk(|store| {
        fill(store);
        let (all, longest) = (stored_len(store), 70 << 10);
        let room = all / 2;
        let db = store.open_with(options(store).locked_bytes(room));
        until(&db, "half is locked", |locked| locked > room - longest);
        check_all(&db);
        assert!(db.stats().locked_bytes <= room);
        wait(db.close()).unwrap();
        let db = store.open_with(options(store));
        check_all(&db);
        assert_eq!(db.stats().locked_bytes, 0);
        wait(db.close()).unwrap();
    });
}

/// Breaks if memory stays locked when its file is gone, or new files are not locked.
#[test]
fn files_that_are_written_are_locked_and_those_that_go_are_let_go() {
    each_disk(|store| {
        fill(store);
        let options = options(store).locked_bytes(ROOM).compaction(Compaction::new());
        let db = store.open_with(options);
        for _round in 0..5 {
            wait(db.load((0..KEYS).map(|number| (key(number), value(number + 1))))).unwrap();
            wait(db.load((0..KEYS).map(|number| (key(number), value(number))))).unwrap();
        }
        wait(db.compact()).unwrap();
        check_all(&db);
        // Hints come to less than their data files, and the last two of the log are written to.
        until(&db, "what there is is locked", |locked| {
            let len = db.stats().total().log_bytes;
            locked <= 2 * len && locked + 2 * (70 << 10) >= len
        });
        wait(db.close()).unwrap();
    });
}

/// Breaks if a file that cannot be read keeps others from being locked, or its keys from being read.
#[test]
fn a_file_that_cannot_be_locked_is_read_as_ever() {
    let store = Store::sim(11);
    fill(&store);
    let db = store.open_with(options(&store).locked_bytes(ROOM));
    let all = stored_len(&store);
    until(&db, "all is locked", |locked| locked == all);
    let put = |from: usize| {
        let numbers = from..from + KEYS;
        wait(db.load(numbers.map(|number| (key(number), value(number))))).unwrap();
    };
    store.disk().fail_reads(EIO);
    put(KEYS);
    // Each file is tried, and none can be read.
    let mut seen = (0, Instant::now());
    while seen.0 == 0 || seen.1.elapsed() < Duration::from_millis(100) {
        let reads = store.disk().reads();
        if reads != seen.0 {
            seen = (reads, Instant::now());
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    assert_eq!(db.stats().locked_bytes, all);
    store.disk().clear_faults();
    put(2 * KEYS);
    until(&db, "later files are locked", |locked| locked >= all + all / 2);
    for number in 0..3 * KEYS {
        assert_eq!(get(&db, key(number)).unwrap(), value(number), "{number}");
    }
    wait(db.close()).unwrap();
}

/// Breaks if a limit of the process is found out about when it is too late to say so.
#[test]
fn what_no_process_may_lock_is_refused() {
    for store in [Store::uring(), Store::blocking()] {
        let error = store.try_open(options(&store).locked_bytes(u64::MAX)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let error = error.to_string();
        assert!(error.contains("locked_bytes") && error.contains("ulimit -l"), "{error}");
    }
    // Memory has no limit of what may stay in it.
    let store = Store::memory();
    let db = store.open_with(options(&store).locked_bytes(u64::MAX));
    wait(db.put("key", "value")).unwrap();
    assert_eq!(db.stats().locked_bytes, 0);
    wait(db.close()).unwrap();
}
