//! Scrubbing: damage in a record that nobody reads is found all the same, and nothing waits for it.

use std::time::{Duration, Instant};

use ringcask::{Compaction, Db, PartitionStats};

use crate::support::{self, Store, contents, each_disk, get, wait};

const FAST: u64 = 1 << 30;

/// Several sealed files in one partition, and which of them has the value of `key 007`, and where.
fn fill(store: &Store) -> (String, usize) {
    let db = store.open_with(store.options().partitions(1).data_file_len_max(16 << 10));
    for n in 0..100 {
        wait(db.put(format!("key {n:03}"), [n; 1000])).unwrap();
    }
    wait(db.close()).unwrap();
    let needle = [b"key 007".as_slice(), &[7; 1000]].concat();
    let found = store.data_files().into_iter().find_map(|file| {
        let at = store.read(&file).windows(needle.len()).position(|window| window == needle)?;
        Some((file, at + 500))
    });
    found.unwrap()
}

fn flip(store: &Store, (file, at): &(String, usize)) {
    let mut bytes = store.read(file);
    bytes[*at] ^= 1;
    store.write(file, &bytes);
}

/// Waits for the upkeep thread, which nothing tells when it is done.
fn until(db: &Db, what: &str, is_so: impl Fn(&PartitionStats) -> bool) -> PartitionStats {
    support::until(what, || db.stats().total(), is_so)
}

/// Without it the byte would be found when somebody asks for the key, and there is no backup any more.
#[test]
fn a_flipped_byte_in_a_record_nobody_reads_is_found() {
    each_disk(|store| {
        let place = fill(store);
        let options = || store.options().scrub_bytes_per_sec(FAST).compaction(Compaction::off());
        let lens = store.data_files().into_iter().map(|file| store.read(&file).len() as u64);
        let all: u64 = lens.sum();
        let db = store.open_with(options());
        let stats = until(&db, "sound", |stats| stats.scrub_passes == 1);
        assert_eq!((stats.scrubbed_bytes, stats.files_damaged), (all, 0));
        wait(db.close()).unwrap();

        flip(store, &place);
        let before = store.image();
        let db = store.open_with(options());
        let stats = until(&db, "damaged", |stats| stats.scrub_passes == 1);
        assert_eq!(stats.files_damaged, 1);
        assert!(stats.scrubbed_bytes < all && stats.scrubbed_bytes > all / 2, "{stats:?}");
        // The files behind it were read, and the other records still are.
        assert_eq!(get(&db, "key 008").unwrap(), [8; 1000].as_slice());
        assert!(wait(db.get("key 007")).unwrap_err().is_corrupt());
        wait(db.close()).unwrap();
        assert_eq!(store.image(), before, "a scrub changes nothing");
    });
}

#[test]
fn nothing_is_read_unless_asked_for() {
    let store = Store::sim(0);
    flip(&store, &fill(&store));
    let db = store.open();
    for n in 0..100 {
        wait(db.put("key", format!("{n}"))).unwrap();
    }
    let stats = db.stats().total();
    assert_eq!((stats.scrubbed_bytes, stats.scrub_passes, stats.files_damaged), (0, 0, 0));
    wait(db.close()).unwrap();
}

/// A damaged file is not compacted, which would fail again and again.
#[test]
fn a_damaged_file_is_left_alone() {
    let store = Store::sim(0);
    let place = fill(&store);
    flip(&store, &place);
    let options = store.options().scrub_bytes_per_sec(FAST).data_file_len_max(16 << 10);
    let db = store.open_with(options);
    until(&db, "damaged", |stats| stats.files_damaged == 1 && stats.scrub_passes == 1);
    // Much of every file is dead by now, of the damaged one too.
    for n in (0..100).filter(|n| *n != 7) {
        wait(db.put(format!("key {n:03}"), [n; 900])).unwrap();
    }
    until(&db, "compacted", |stats| stats.compactions > 0);
    let files = store.data_files();
    assert!(files.contains(&place.0), "{files:?}");
    let stats = db.stats().total();
    assert_eq!((stats.compactions_failed, stats.files_damaged), (0, 1), "{stats:?}");
    wait(db.close()).unwrap();
}

/// At a byte a second a scrub holds its first file for days: neither compaction nor close waits for it.
#[test]
fn a_scrub_keeps_neither_files_nor_the_store_open() {
    for store in [Store::uring(), Store::blocking()] {
        let options = || store.options().partitions(1).data_file_len_max(16 << 20);
        let db = store.open_with(options());
        let puts = (0..200).map(|n| db.put(format!("key {n:03}"), vec![n; 64 << 10]));
        wait(futures::future::try_join_all(puts)).unwrap();
        wait(db.close()).unwrap();
        let first = store.data_files().remove(0);

        let db = store.open_with(options().scrub_bytes_per_sec(1).compaction(Compaction::off()));
        let began = until(&db, "begun", |stats| stats.scrubbed_bytes > 0).scrubbed_bytes;
        assert!(began < 8 << 20, "{began}");
        for n in 0..200 {
            wait(db.put(format!("key {n:03}"), "short")).unwrap();
        }
        wait(db.compact()).unwrap();
        // Unlinked, and its space is free: nobody holds it.
        until(&db, "released", |_| !store.data_files().contains(&first) && deleted(&store) == 0);
        let stats = db.stats().total();
        assert_eq!((stats.files_damaged, stats.compactions_failed), (0, 0));
        assert_eq!(contents(&db).len(), 200);
        let closing = Instant::now();
        wait(db.close()).unwrap();
        assert!(closing.elapsed() < Duration::from_secs(20));
        wait(store.open().close()).unwrap();
    }
}

/// Files of the store that this process holds open though they are gone.
fn deleted(store: &Store) -> usize {
    let targets = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = targets.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets
        .filter(|target| target.starts_with(store.path()))
        .filter(|target| target.to_string_lossy().ends_with(" (deleted)"))
        .count()
}

/// Puts and a close in the middle of it, many times.
#[test]
fn a_store_closes_while_it_is_scrubbed() {
    each_disk(|store| {
        fill(store);
        for round in 0..10 {
            let db = store.open_with(store.options().scrub_bytes_per_sec(FAST));
            if round % 2 == 0 {
                wait(db.put("key", format!("{round}"))).unwrap();
            }
            wait(db.close()).unwrap();
        }
        let db = store.open();
        assert_eq!(contents(&db).len(), 101);
        wait(db.close()).unwrap();
    });
}

#[test]
fn a_rate_of_nothing_is_refused() {
    let store = Store::sim(0);
    let error = store.try_open(store.options().scrub_bytes_per_sec(0)).unwrap_err();
    assert!(error.to_string().contains("scrub_bytes_per_sec is 0"), "{error}");
}
